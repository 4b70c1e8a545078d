// SPDX-License-Identifier: Apache-2.0
// core.v3.HealthCheck → struct health_cfg.
#include <string.h>

#include "envoy/config/core/v3/health_check.pb-c.h"
#include "envoy/type/v3/http.pb-c.h"
#include "envoy/type/v3/range.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"

typedef Envoy__Config__Core__V3__HealthCheck check_msg;

enum { PAYLOAD_MAX = 16 * 1024, LIST_MAX = 64, SERVICE_MAX = 1024 };

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// text is hexadecimal.
static int take_payload(const Envoy__Config__Core__V3__HealthCheck__Payload *m, struct arena *a, struct str *ret, struct err *err)
{
    if (m->payload_case == ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__PAYLOAD__PAYLOAD_BINARY) {
        *ret = arena_str(a, pb_bytes(m->binary));
        return ret->n && ret->n <= PAYLOAD_MAX ? 0 : cfg_fail(err, "binary", "1 to %d bytes are needed", PAYLOAD_MAX);
    }
    size_t n = m->payload_case == ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__PAYLOAD__PAYLOAD_TEXT ? strlen(m->text) : 0;
    if (n == 0 || n % 2 || n / 2 > PAYLOAD_MAX) {
        return cfg_fail(err, "text", "an even number of hexadecimal digits is needed, for 1 to %d bytes", PAYLOAD_MAX);
    }
    char *out = arena_array(a, char, n / 2);
    for (size_t i = 0; i < n; i += 2) {
        int hi = hex_digit(m->text[i]), lo = hex_digit(m->text[i + 1]);
        if (hi < 0 || lo < 0) {
            return cfg_fail(err, "text", "\"%.2s\" at %zu is not hexadecimal", m->text + i, i);
        }
        out[i / 2] = (char)(hi << 4 | lo);
    }
    *ret = str_n(out, n / 2);
    return 0;
}

static int take_receive(Envoy__Config__Core__V3__HealthCheck__Payload **v, size_t n, struct arena *a, struct health_cfg *c, struct err *err)
{
    if (n > LIST_MAX) {
        return cfg_fail(err, "receive", "%zu entries, at most %d", n, LIST_MAX);
    }
    c->receive = n ? arena_array(a, struct str, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (take_payload(v[i], a, &c->receive[c->receive_count++], err)) {
            return cfg_in(err, "receive[%zu]", i);
        }
    }
    return 0;
}

static int take_ranges(Envoy__Type__V3__Int64Range **v, size_t n, const char *field, struct arena *a, struct health_range **ret,
                       size_t *ret_count, struct err *err)
{
    *ret = n ? arena_array(a, struct health_range, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (v[i]->start < 100 || v[i]->end > 600 || v[i]->start >= v[i]->end) {
            return cfg_fail(err, field, "entry %zu: start and end (not included) must be within 100 to 600", i);
        }
        (*ret)[(*ret_count)++] = (struct health_range){ v[i]->start, v[i]->end };
    }
    return 0;
}

static int take_headers(Envoy__Config__Core__V3__HeaderValueOption **v, size_t n, const char *field, struct arena *a, struct health_cfg *c,
                        struct err *err)
{
    if (n > LIST_MAX) {
        return cfg_fail(err, field, "%zu entries, at most %d", n, LIST_MAX);
    }
    c->headers = n ? arena_array(a, struct health_header, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        const Envoy__Config__Core__V3__HeaderValue *h = v[i]->header;
        if (!h || !h->key[0] || h->key[0] == ':' || !strcasecmp(h->key, "host") || !build_header_name_ok(str_c(h->key)) ||
            !build_header_value_ok(str_c(h->value)) || h->raw_value.len) {
            return cfg_fail(err, field, "entry %zu: not a header that can be set here", i);
        }
        if (strchr(h->value, '%')) {
            return cfg_fail(err, field, "entry %zu: command operators are not supported in health checks", i);
        }
        bool append = v[i]->append_action == 0 && pb_bool_or(v[i]->append, true);
        c->headers[c->header_count++] = (struct health_header){ build_str(a, h->key), build_str(a, h->value), append };
    }
    return 0;
}

static int take_http(const Envoy__Config__Core__V3__HealthCheck__HttpHealthCheck *m, struct arena *a, struct health_cfg *c, struct err *err)
{
    static const char *const methods[] = { "GET", "GET", "HEAD", "POST", "PUT", "DELETE", NULL, "OPTIONS", "TRACE", "PATCH" };
    if (CFG_KNOWN(m, err, "host", "path", "receive", "response_buffer_size", "request_headers_to_add", "request_headers_to_remove",
                  "expected_statuses", "retriable_statuses", "codec_client_type", "service_name_matcher", "method")) {
        return err->code;
    }
    unsigned method = (unsigned)m->method;
    if (method >= sizeof(methods) / sizeof(methods[0]) || !methods[method]) {
        return cfg_fail(err, "method", "value %u is not supported", method);
    }
    if (m->path[0] != '/' || strpbrk(m->path, " \r\n\t")) {
        return cfg_fail(err, "path", "must begin with / and have no spaces");
    }
    if ((unsigned)m->codec_client_type > 1) {
        return cfg_fail(err, "codec_client_type", "only HTTP1 and HTTP2 are supported");
    }
    c->kind = HEALTH_HTTP;
    c->method = str_c(methods[method]);
    c->host = build_str(a, m->host);
    c->path = build_str(a, m->path);
    c->h2 = m->codec_client_type == ENVOY__TYPE__V3__CODEC_CLIENT_TYPE__HTTP2;
    c->buffer_limit = pb_u64_or(m->response_buffer_size, 0);
    if (c->buffer_limit > 1024 * 1024) {
        return cfg_fail(err, "response_buffer_size", "must be at most 1 MiB");
    }
    if (m->service_name_matcher) {
        c->service = arena_array(a, struct string_matcher, 1);
        if (build_string_matcher(m->service_name_matcher, a, c->service, err)) {
            return cfg_in(err, "service_name_matcher");
        }
    }
    c->remove = m->n_request_headers_to_remove ? arena_array(a, struct str, m->n_request_headers_to_remove) : NULL;
    for (size_t i = 0; i < m->n_request_headers_to_remove; i++) {
        c->remove[c->remove_count++] = build_str(a, m->request_headers_to_remove[i]);
    }
    bool bad = take_receive(m->receive, m->n_receive, a, c, err) ||
               take_ranges(m->expected_statuses, m->n_expected_statuses, "expected_statuses", a, &c->expected, &c->expected_count, err) ||
               take_ranges(m->retriable_statuses, m->n_retriable_statuses, "retriable_statuses", a, &c->retriable, &c->retriable_count, err) ||
               take_headers(m->request_headers_to_add, m->n_request_headers_to_add, "request_headers_to_add", a, c, err);
    return bad ? err->code : 0;
}

static int take_kind(const check_msg *m, struct arena *a, struct health_cfg *c, struct err *err)
{
    switch (m->health_checker_case) {
    case ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER_HTTP_HEALTH_CHECK:
        return take_http(m->http_health_check, a, c, err) ? cfg_in(err, "http_health_check") : 0;
    case ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER_GRPC_HEALTH_CHECK:
        c->kind = HEALTH_GRPC;
        c->h2 = true;
        c->grpc_service = build_str(a, m->grpc_health_check->service_name);
        c->grpc_authority = build_str(a, m->grpc_health_check->authority);
        if (c->grpc_service.n > SERVICE_MAX) {
            return cfg_fail(err, "grpc_health_check.service_name", "longer than %d bytes", SERVICE_MAX);
        }
        return take_headers(m->grpc_health_check->initial_metadata, m->grpc_health_check->n_initial_metadata, "initial_metadata", a, c, err)
                   ? cfg_in(err, "grpc_health_check")
                   : 0;
    case ENVOY__CONFIG__CORE__V3__HEALTH_CHECK__HEALTH_CHECKER_TCP_HEALTH_CHECK:
        c->kind = HEALTH_TCP;
        if (CFG_KNOWN(m->tcp_health_check, err, "send", "receive") ||
            (m->tcp_health_check->send && take_payload(m->tcp_health_check->send, a, &c->send, err) && cfg_in(err, "send")) ||
            take_receive(m->tcp_health_check->receive, m->tcp_health_check->n_receive, a, c, err)) {
            return cfg_in(err, "tcp_health_check");
        }
        return 0;
    default:
        return cfg_fail(err, "health_checker", "one of http_health_check, grpc_health_check, tcp_health_check is needed");
    }
}

static uint64_t or_ms(const Google__Protobuf__Duration *d, uint64_t other)
{
    uint64_t ms = (uint64_t)pb_duration_ms(d, 0);
    return ms ? ms : other;
}

static int take_times(const check_msg *m, struct health_cfg *c, struct err *err)
{
    c->timeout_ms = or_ms(m->timeout, 0);
    c->interval_ms = or_ms(m->interval, 0);
    if (!c->timeout_ms || !c->interval_ms) {
        return cfg_fail(err, c->timeout_ms ? "interval" : "timeout", "must be given, and greater than 0s");
    }
    if (!m->unhealthy_threshold || !m->healthy_threshold) {
        return cfg_fail(err, m->healthy_threshold ? "unhealthy_threshold" : "healthy_threshold", "missing");
    }
    c->unhealthy_threshold = m->unhealthy_threshold->value;
    c->healthy_threshold = m->healthy_threshold->value;
    c->initial_jitter_ms = or_ms(m->initial_jitter, 0);
    c->jitter_ms = or_ms(m->interval_jitter, 0);
    c->jitter_percent = m->interval_jitter_percent;
    c->unhealthy_ms = or_ms(m->unhealthy_interval, c->interval_ms);
    c->unhealthy_edge_ms = or_ms(m->unhealthy_edge_interval, c->unhealthy_ms);
    c->healthy_edge_ms = or_ms(m->healthy_edge_interval, c->interval_ms);
    c->no_traffic_ms = or_ms(m->no_traffic_interval, 60000);
    c->no_traffic_healthy_ms = or_ms(m->no_traffic_healthy_interval, c->no_traffic_ms);
    c->alt_port = pb_u32_or(m->alt_port, 0);
    if (c->alt_port > 65535) {
        return cfg_fail(err, "alt_port", "%u is not a port", c->alt_port);
    }
    return c->jitter_percent > 1000 ? cfg_fail(err, "interval_jitter_percent", "must be at most 1000") : 0;
}

static int take_check(const check_msg *m, struct arena *a, struct health_cfg *c, struct err *err)
{
    if (CFG_KNOWN(m, err, "name", "timeout", "interval", "initial_jitter", "interval_jitter", "interval_jitter_percent", "unhealthy_threshold",
                  "healthy_threshold", "alt_port", "reuse_connection", "http_health_check", "tcp_health_check", "grpc_health_check",
                  "no_traffic_interval", "no_traffic_healthy_interval", "unhealthy_interval", "unhealthy_edge_interval",
                  "healthy_edge_interval", "always_log_health_check_failures", "always_log_health_check_success", "tls_options")) {
        return err->code;
    }
    c->keep_connection = pb_bool_or(m->reuse_connection, true);
    c->always_log_failure = m->always_log_health_check_failures;
    c->always_log_success = m->always_log_health_check_success;
    size_t n = m->tls_options ? m->tls_options->n_alpn_protocols : 0;
    c->alpn = n ? arena_array(a, struct str, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        c->alpn[c->alpn_count++] = build_str(a, m->tls_options->alpn_protocols[i]);
    }
    return take_times(m, c, err) || take_kind(m, a, c, err) ? err->code : 0;
}

int build_health_checks(struct config_ctx *ctx, const Envoy__Config__Cluster__V3__Cluster *m, struct cluster_cfg *c, struct err *err)
{
    c->close_on_host_failure = m->close_connections_on_host_health_failure;
    c->ignore_health_on_removal = m->ignore_health_on_host_removal;
    if (m->n_health_checks == 0) {
        return 0;
    }
    if (m->n_health_checks > 1) {
        return cfg_fail(err, "health_checks", "%zu of them; only one is supported", m->n_health_checks);
    }
    if (c->type == CLUSTER_ORIGINAL_DST) {
        return cfg_fail(err, "health_checks", "do not go with type ORIGINAL_DST");
    }
    c->checks = arena_array(ctx->arena, struct health_cfg, 1);
    c->check_count = 1;
    return take_check(m->health_checks[0], ctx->arena, &c->checks[0], err) ? cfg_in(err, "health_checks[0]") : 0;
}
