// SPDX-License-Identifier: Apache-2.0
// http_connection_manager.v3.HttpConnectionManager → struct http_manager_cfg, and HTTP filter configurations.
#include <string.h>

#include "envoy/extensions/http/original_ip_detection/custom_header/v3/custom_header.pb-c.h"
#include "envoy/extensions/http/original_ip_detection/xff/v3/xff.pb-c.h"
#include "proto/pb_util.h"
#include "proto/types.h"
#include "proxy/access_log/access_log.h"
#include "proxy/config/build.h"
#include "proxy/filters/http/registry.h"
#include "proxy/http/http_filter.h"
#include "xds-client/xds_client.h"

typedef Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager hcm_msg;
typedef Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpFilter filter_msg;

enum { HTTP_FILTERS_MAX = 64 };

int build_ext_config(const Google__Protobuf__Any *any, const struct ext_ops *ops, struct arena *a, ProtobufCMessage **ret, struct err *err)
{
    bool lenient = !ops->config_parse || ops->lenient;
    return lenient ? pb_any_unpack(any, NULL, a, ret, err) : pb_any_unpack_whole(any, NULL, NULL, a, ret, err);
}

static int build_http_filter(struct config_ctx *ctx, const filter_msg *m, struct ext *ret, struct err *err)
{
    if (m->config_type_case == ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_FILTER__CONFIG_TYPE_CONFIG_DISCOVERY) {
        return cfg_fail(err, "config_discovery", "filter \"%s\": discovery of filter configurations is not supported yet", m->name);
    }
    const Google__Protobuf__Any *any =
        m->config_type_case == ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_FILTER__CONFIG_TYPE_TYPED_CONFIG
            ? m->typed_config
            : NULL;
    struct str type = any ? pb_any_type_name(any, ctx->scratch) : str_n(NULL, 0);
    const struct http_filter_ops *ops = http_filter_find(str_c(m->name), type);
    if (!ops) {
        return cfg_fail(err, "name", "HTTP filter \"%s\" (%.*s) is not supported", m->name, STR_FMT(type));
    }
    ProtobufCMessage *msg = NULL;
    struct err e = { 0 };
    if (any && build_ext_config(any, &ops->ext, ctx->scratch, &msg, &e)) {
        return cfg_fail(err, "typed_config", "\"%s\": %.900s", m->name, e.msg);
    }
    void *cfg = NULL;
    if (ops->ext.config_parse && ops->ext.config_parse(ctx, msg, ctx->arena, &cfg, err)) {
        return cfg_in(err, "typed_config");
    }
    if (m->disabled && ops->terminal) {
        return cfg_fail(err, "disabled", "filter \"%s\" ends the chain and cannot be disabled", m->name);
    }
    *ret = (struct ext){ .ops = &ops->ext, .cfg = cfg, .name = build_str(ctx->arena, m->name), .disabled = m->disabled };
    return 0;
}

static int build_http_filters(struct config_ctx *ctx, size_t n, filter_msg *const *m, const char *field, struct http_chain *ret, struct err *err)
{
    if (n == 0 || n > HTTP_FILTERS_MAX) {
        return cfg_fail(err, field, "%zu filters; 1 to %d are needed", n, HTTP_FILTERS_MAX);
    }
    ret->filters = arena_array(ctx->arena, struct ext, n);
    for (size_t i = 0; i < n; i++) {
        if (build_http_filter(ctx, m[i], &ret->filters[i], err)) {
            return cfg_in(err, "%s[%zu]", field, i);
        }
        ret->count++;
        bool terminal = ((const struct http_filter_ops *)(const void *)ret->filters[i].ops)->terminal;
        if (terminal != (i + 1 == n)) {
            return cfg_fail(err, field, terminal ? "\"%s\" must be the last filter" : "\"%s\" is last, but does not end a chain", m[i]->name);
        }
    }
    return 0;
}

// Map entries share one layout in protobuf-c: base, key, value.
struct any_entry {
    ProtobufCMessage base;
    char *key;
    Google__Protobuf__Any *value;
};

// The filter whose per-route configuration has this type.
static const struct http_filter_ops *find_route_ops(struct str name, struct str type)
{
    for (size_t i = 0; http_filters[i]; i++) {
        if (http_filters[i]->route_type_url && str_is(type, http_filters[i]->route_type_url)) {
            return http_filters[i];
        }
    }
    return http_filter_find(name, type);
}

// route.v3.FilterConfig around a configuration, or alone: *any becomes what is inside, which may be NULL.
static int unwrap_filter(struct config_ctx *ctx, const Google__Protobuf__Any **any, bool *ret_disabled, bool *ret_optional, struct err *err)
{
    if (!str_is(pb_any_type_name(*any, ctx->scratch), "envoy.config.route.v3.FilterConfig")) {
        return 0;
    }
    Envoy__Config__Route__V3__FilterConfig *m = NULL;
    struct err e = { 0 };
    if (pb_any_unpack_whole_as(Envoy__Config__Route__V3__FilterConfig, envoy__config__route__v3__filter_config, *any, ctx->scratch, &m, &e)) {
        return cfg_fail(err, "value", "%.900s", e.msg);
    }
    *ret_disabled = m->disabled;
    *ret_optional = m->is_optional;
    *any = m->config && m->config->type_url && m->config->type_url[0] ? m->config : NULL;
    return 0;
}

int build_per_filter(struct config_ctx *ctx, size_t n, ProtobufCMessage *const *entries, struct ext **ret, size_t *ret_count, struct err *err)
{
    struct ext *v = n ? arena_array(ctx->arena, struct ext, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        const struct any_entry *e = (const struct any_entry *)(const void *)entries[i];
        const Google__Protobuf__Any *any = e->value;
        bool disabled = false, optional = false;
        if (any && unwrap_filter(ctx, &any, &disabled, &optional, err)) {
            return cfg_in(err, "typed_per_filter_config[%s]", e->key);
        }
        struct str type = any ? pb_any_type_name(any, ctx->scratch) : str_n(NULL, 0);
        if (!type.n && (any != e->value || disabled)) { // only switched
            v[i] = (struct ext){ .name = build_str(ctx->arena, e->key), .disabled = disabled };
            continue;
        }
        const struct http_filter_ops *ops = find_route_ops(str_c(e->key), type);
        if (!ops && optional) {
            v[i] = (struct ext){ .name = STR("") };
            continue;
        }
        if (!ops || !ops->route_config_parse) {
            cfg_fail(err, "value", "%.*s per route is not supported", STR_FMT(type));
            return cfg_in(err, "typed_per_filter_config[%s]", e->key);
        }
        ProtobufCMessage *msg = NULL;
        struct err e2 = { 0 };
        void *cfg = NULL;
        if (pb_any_unpack_whole(any, NULL, NULL, ctx->scratch, &msg, &e2)) {
            cfg_fail(err, "value", "%.900s", e2.msg);
            return cfg_in(err, "typed_per_filter_config[%s]", e->key);
        }
        if (ops->route_config_parse(ctx, msg, ctx->arena, &cfg, err)) {
            return cfg_in(err, "typed_per_filter_config[%s]", e->key);
        }
        v[i] = (struct ext){ .ops = &ops->ext, .cfg = cfg, .name = build_str(ctx->arena, e->key), .disabled = disabled };
    }
    *ret = v;
    *ret_count = n;
    return 0;
}

static void drop_routes(void *t)
{
    route_table_unref(t);
}

static int build_routes(struct config_ctx *ctx, const hcm_msg *m, struct http_manager_cfg *h, struct err *err)
{
    bool remote = true;
    switch (m->route_specifier_case) {
    case ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_RDS:
        h->rds_name = build_str(ctx->arena, m->rds->route_config_name);
        if (!h->rds_name.n) {
            return cfg_fail(err, "rds.route_config_name", "missing");
        }
        if (m->rds->config_source && build_config_source(ctx, m->rds->config_source, XDS_ROUTE, &remote, err)) {
            return cfg_in(err, "rds.config_source");
        }
        if (!remote) {
            return cfg_fail(err, "rds.config_source.api_config_source", "not supported; give ads or path_config_source");
        }
        config_ctx_add_rds(ctx, h->rds_name);
        return 0;
    case ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_ROUTE_CONFIG:
        if (build_route_table(ctx, m->route_config, (struct hash128){ 0 }, &h->inline_routes, err)) {
            return cfg_in(err, "route_config");
        }
        arena_on_free(ctx->arena, drop_routes, h->inline_routes);
        return 0;
    default:
        return cfg_fail(err, "route_specifier", "one of rds, route_config is needed");
    }
}

static int build_h1(struct config_ctx *ctx, const hcm_msg *m, struct http_manager_cfg *h, struct err *err)
{
    h->h1 = h1_limits_default;
    uint32_t kb = pb_u32_or(m->max_request_headers_kb, 60);
    if (kb == 0 || kb > HEAD_KB_MAX) {
        return cfg_fail(err, "max_request_headers_kb", "must be 1 to %d", HEAD_KB_MAX);
    }
    h->h1.head_bytes = kb * 1024;
    const Envoy__Config__Core__V3__Http1ProtocolOptions *o = m->http_protocol_options;
    if (build_h1_options(ctx, o, &h->h1, &h->h1_names, err)) {
        return cfg_in(err, "http_protocol_options");
    }
    h->http10_host = o ? build_str(ctx->arena, o->default_host_for_http_10) : str_n(NULL, 0);
    return 0;
}

static int build_common(const hcm_msg *m, struct http_manager_cfg *h, struct err *err)
{
    const Envoy__Config__Core__V3__HttpProtocolOptions *o = m->common_http_protocol_options;
    h->idle_ms = 3600 * 1000;
    if (!o) {
        return 0;
    }
    if (CFG_KNOWN(o, err, "idle_timeout", "max_connection_duration", "max_headers_count", "max_stream_duration",
                  "headers_with_underscores_action", "max_requests_per_connection")) {
        return cfg_in(err, "common_http_protocol_options");
    }
    h->idle_ms = (uint64_t)pb_duration_ms(o->idle_timeout, 3600 * 1000);
    h->max_connection_ms = (uint64_t)pb_duration_ms(o->max_connection_duration, 0);
    h->max_stream_ms = (uint64_t)pb_duration_ms(o->max_stream_duration, 0);
    h->max_requests_per_connection = pb_u32_or(o->max_requests_per_connection, 0);
    h->h1.header_count = pb_u32_or(o->max_headers_count, h->h1.header_count);
    if (h->h1.header_count == 0) {
        return cfg_fail(err, "common_http_protocol_options.max_headers_count", "must be at least 1");
    }
    h->headers_with_underscores_reject =
        o->headers_with_underscores_action == ENVOY__CONFIG__CORE__V3__HTTP_PROTOCOL_OPTIONS__HEADERS_WITH_UNDERSCORES_ACTION__REJECT_REQUEST;
    h->headers_with_underscores_drop =
        o->headers_with_underscores_action == ENVOY__CONFIG__CORE__V3__HTTP_PROTOCOL_OPTIONS__HEADERS_WITH_UNDERSCORES_ACTION__DROP_HEADER;
    return 0;
}

static int take_identity(struct config_ctx *ctx, const hcm_msg *m, struct http_manager_cfg *h, struct err *err)
{
    if (m->set_current_client_cert_details && CFG_KNOWN(m->set_current_client_cert_details, err, "subject", "cert", "chain", "dns", "uri")) {
        return cfg_in(err, "set_current_client_cert_details");
    }
    if (!build_header_value_ok(str_c(m->server_name)) || !build_header_value_ok(str_c(m->via))) {
        return cfg_fail(err, build_header_value_ok(str_c(m->via)) ? "server_name" : "via", "must not have line ends or control characters");
    }
    h->use_remote_address = pb_bool_or(m->use_remote_address, false);
    h->skip_xff_append = m->skip_xff_append;
    h->xff_trusted_hops = m->xff_num_trusted_hops;
    if (m->add_user_agent && m->add_user_agent->value) {
        h->user_agent = build_str(ctx->arena, ctx->node_cluster);
        h->user_node = build_str(ctx->arena, ctx->node_id);
    }
    h->generate_request_id = pb_bool_or(m->generate_request_id, true);
    h->preserve_external_request_id = m->preserve_external_request_id;
    h->always_set_request_id_in_response = m->always_set_request_id_in_response;
    h->forward_client_cert = (enum forward_client_cert)m->forward_client_cert_details; // same numbers
    if (m->set_current_client_cert_details) {
        h->set_client_cert.subject = pb_bool_or(m->set_current_client_cert_details->subject, false);
        h->set_client_cert.cert = m->set_current_client_cert_details->cert;
        h->set_client_cert.chain = m->set_current_client_cert_details->chain;
        h->set_client_cert.dns = m->set_current_client_cert_details->dns;
        h->set_client_cert.uri = m->set_current_client_cert_details->uri;
    }
    h->server_name = m->server_name[0] ? build_str(ctx->arena, m->server_name) : STR("envoy");
    h->server_header = (enum server_header)m->server_header_transformation; // same numbers
    h->via = build_str(ctx->arena, m->via);
    h->append_x_forwarded_port = m->append_x_forwarded_port;
    struct str ids = m->request_id_extension ? pb_any_type_name(m->request_id_extension->typed_config, ctx->scratch) : str_n(NULL, 0);
    if (m->request_id_extension && !str_is(ids, "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig")) {
        return cfg_fail(err, "request_id_extension.typed_config", "type %.*s is not supported", STR_FMT(ids));
    }
    return 0;
}

static int build_cidrs(size_t n, Envoy__Config__Core__V3__CidrRange *const *m, struct arena *a, struct cidr **ret, size_t *ret_count,
                       struct err *err)
{
    *ret = n ? arena_array(a, struct cidr, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (build_cidr(m[i], &(*ret)[i], err)) {
            return cfg_in(err, "cidr_ranges[%zu]", i);
        }
    }
    *ret_count = n;
    return 0;
}

static int build_detection(struct config_ctx *ctx, const Envoy__Config__Core__V3__TypedExtensionConfig *x, struct ip_detection *d,
                           struct err *err)
{
    struct str type = x->typed_config ? pb_any_type_name(x->typed_config, ctx->scratch) : str_n(NULL, 0);
    ProtobufCMessage *msg = NULL;
    struct err e = { 0 };
    bool xff = str_is(type, "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig");
    if (!xff && !str_is(type, "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig")) {
        return cfg_fail(err, "typed_config", "\"%s\" (%.*s) is not supported", x->name, STR_FMT(type));
    }
    if (pb_any_unpack_whole(x->typed_config, NULL, NULL, ctx->scratch, &msg, &e)) {
        return cfg_fail(err, "typed_config", "%.900s", e.msg);
    }
    if (xff) {
        const Envoy__Extensions__Http__OriginalIpDetection__Xff__V3__XffConfig *m = (const void *)msg;
        d->hops = m->xff_num_trusted_hops;
        return m->xff_trusted_cidrs ? build_cidrs(m->xff_trusted_cidrs->n_cidrs, m->xff_trusted_cidrs->cidrs, ctx->arena, &d->cidrs,
                                                  &d->cidr_count, err)
                                    : 0;
    }
    const Envoy__Extensions__Http__OriginalIpDetection__CustomHeader__V3__CustomHeaderConfig *m = (const void *)msg;
    d->header = build_str(ctx->arena, m->header_name);
    d->trust = m->allow_extension_to_set_address_as_trusted;
    d->reject_status = m->reject_with_status ? (int)m->reject_with_status->code : 0;
    return d->header.n ? 0 : cfg_fail(err, "typed_config.header_name", "missing");
}

// Who a client is, and who is one of us.
static int build_trust(struct config_ctx *ctx, const hcm_msg *m, struct http_manager_cfg *h, struct err *err)
{
    if (m->internal_address_config) {
        h->internal_unix = m->internal_address_config->unix_sockets;
        if (build_cidrs(m->internal_address_config->n_cidr_ranges, m->internal_address_config->cidr_ranges, ctx->arena, &h->internal,
                        &h->internal_count, err)) {
            return cfg_in(err, "internal_address_config");
        }
    }
    size_t n = m->n_original_ip_detection_extensions;
    if (n && (h->use_remote_address || h->xff_trusted_hops)) {
        return cfg_fail(err, "original_ip_detection_extensions", "cannot be used with use_remote_address or xff_num_trusted_hops");
    }
    h->detections = n ? arena_array(ctx->arena, struct ip_detection, n) : NULL;
    for (size_t i = 0; i < n; i++, h->detection_count++) {
        if (build_detection(ctx, m->original_ip_detection_extensions[i], &h->detections[i], err)) {
            return cfg_in(err, "original_ip_detection_extensions[%zu]", i);
        }
    }
    const Envoy__Config__Core__V3__SchemeHeaderTransformation *t = m->scheme_header_transformation;
    if (t && CFG_KNOWN(t, err, "scheme_to_overwrite")) {
        return cfg_in(err, "scheme_header_transformation");
    }
    if (t && t->transformation_case == ENVOY__CONFIG__CORE__V3__SCHEME_HEADER_TRANSFORMATION__TRANSFORMATION_SCHEME_TO_OVERWRITE) {
        h->scheme_overwrite = build_str(ctx->arena, t->scheme_to_overwrite);
        if (!str_is(h->scheme_overwrite, "http") && !str_is(h->scheme_overwrite, "https")) {
            return cfg_fail(err, "scheme_header_transformation.scheme_to_overwrite", "must be http or https");
        }
    }
    return 0;
}

static int take_paths(const hcm_msg *m, struct http_manager_cfg *h, struct err *err)
{
    static const enum escaped_slashes actions[] = { ESC_KEEP, ESC_KEEP, ESC_REJECT, ESC_UNESCAPE_REDIRECT, ESC_UNESCAPE_FORWARD };
    h->normalize_path = pb_bool_or(m->normalize_path, false);
    h->merge_slashes = m->merge_slashes;
    if ((unsigned)m->path_with_escaped_slashes_action >= sizeof(actions) / sizeof(actions[0])) {
        return cfg_fail(err, "path_with_escaped_slashes_action", "unknown value %d", (int)m->path_with_escaped_slashes_action);
    }
    h->escaped_slashes = actions[m->path_with_escaped_slashes_action];
    h->strip_any_host_port = m->strip_port_mode_case ==
                                 ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_CONNECTION_MANAGER__STRIP_PORT_MODE_STRIP_ANY_HOST_PORT &&
                             m->strip_any_host_port;
    h->strip_matching_host_port = m->strip_matching_host_port;
    if (h->strip_any_host_port && h->strip_matching_host_port) {
        return cfg_fail(err, "strip_matching_host_port", "stands beside strip_any_host_port; only one of them can be set");
    }
    h->strip_trailing_host_dot = m->strip_trailing_host_dot;
    return 0;
}

static void take_times(const hcm_msg *m, struct http_manager_cfg *h)
{
    h->stream_idle_ms = (uint64_t)pb_duration_ms(m->stream_idle_timeout, 300 * 1000);
    h->request_timeout_ms = (uint64_t)pb_duration_ms(m->request_timeout, 0);
    // Envoy has none by default; slow attacks cost us little, but not nothing.
    h->request_headers_ms = (uint64_t)pb_duration_ms(m->request_headers_timeout, 30 * 1000);
    h->body_window_ms = m->request_timeout ? 0 : 30 * 1000;
    h->body_min_bytes = 3000;
    h->drain_ms = (uint64_t)pb_duration_ms(m->drain_timeout, 5000);
}

static int build_upgrades(struct config_ctx *ctx, const hcm_msg *m, struct http_manager_cfg *h, struct err *err)
{
    h->upgrades = m->n_upgrade_configs ? arena_array(ctx->arena, struct http_upgrade, m->n_upgrade_configs) : NULL;
    for (size_t i = 0; i < m->n_upgrade_configs; i++) {
        const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager__UpgradeConfig *u = m->upgrade_configs[i];
        struct http_upgrade *x = &h->upgrades[h->upgrade_count++];
        *x = (struct http_upgrade){ .type = build_str(ctx->arena, u->upgrade_type), .enabled = pb_bool_or(u->enabled, true) };
        for (size_t k = 0; k < i; k++) {
            if (str_eq_nocase(h->upgrades[k].type, x->type)) {
                return cfg_fail(err, "upgrade_configs", "\"%s\" stands there twice", u->upgrade_type);
            }
        }
        if (u->n_filters && build_http_filters(ctx, u->n_filters, u->filters, "filters", &x->chain, err)) {
            return cfg_in(err, "upgrade_configs[%zu]", i);
        }
    }
    return 0;
}

static int build_access_logs(struct config_ctx *ctx, const hcm_msg *m, struct http_manager_cfg *h, struct err *err)
{
    h->access_logs = arena_array(ctx->arena, struct access_log_cfg *, m->n_access_log + 1);
    for (size_t i = 0; i < m->n_access_log; i++) {
        if (access_log_parse(m->access_log[i], ctx->arena, &h->access_logs[h->access_log_count++], err)) {
            return cfg_in(err, "access_log[%zu]", i);
        }
    }
    return 0;
}

// tracing and request_id_extension shape telemetry only; the rest of what is listed is either built below or has no effect on traffic.
static int check_known(const hcm_msg *m, struct err *err)
{
    return CFG_KNOWN(m, err, "codec_type", "stat_prefix", "rds", "route_config", "http_filters", "add_user_agent", "tracing",
                     "common_http_protocol_options", "http1_safe_max_connection_duration", "http_protocol_options",
                     "http2_protocol_options", "server_name", "server_header_transformation", "max_request_headers_kb",
                     "stream_idle_timeout", "request_timeout", "request_headers_timeout", "drain_timeout", "delayed_close_timeout",
                     "access_log", "use_remote_address",
                     "xff_num_trusted_hops", "internal_address_config", "skip_xff_append", "via", "generate_request_id",
                     "preserve_external_request_id", "always_set_request_id_in_response", "forward_client_cert_details",
                     "set_current_client_cert_details", "proxy_100_continue", "upgrade_configs", "normalize_path", "merge_slashes",
                     "path_with_escaped_slashes_action", "request_id_extension", "strip_matching_host_port", "strip_any_host_port",
                     "stream_error_on_invalid_http_message", "strip_trailing_host_dot", "append_x_forwarded_port",
                     "original_ip_detection_extensions", "scheme_header_transformation", "local_reply_config");
}

// stream_error_on_invalid_http_message: false costs the connection; where nobody says anything, only the stream, other than in Envoy.
static int build_h2(const hcm_msg *m, struct http_manager_cfg *h, struct err *err)
{
    const Envoy__Config__Core__V3__Http2ProtocolOptions *o = m->http2_protocol_options;
    h->h2 = h2_opts_default;
    h->h2.invalid_ends_connection = !pb_bool_or(m->stream_error_on_invalid_http_message, true);
    if (!o) {
        return 0;
    }
    struct build_h2 b;
    if (build_h2_options(o, &b, err)) {
        return cfg_in(err, "http2_protocol_options");
    }
    h->h2_max_streams = b.max_streams;
    h->h2_stream_window = b.stream_window;
    h->h2_conn_window = b.conn_window;
    bool ends = h->h2.invalid_ends_connection;
    h->h2 = b.opts;
    if (!o->override_stream_error_on_invalid_http_message) {
        h->h2.invalid_ends_connection = ends && !o->stream_error_on_invalid_http_messaging;
    }
    h->h2_allow_connect = b.allow_connect;
    return 0;
}

int build_http_manager(struct config_ctx *ctx, const hcm_msg *m, struct http_manager_cfg **ret, struct err *err)
{
    struct http_manager_cfg *h = arena_new(ctx->arena, struct http_manager_cfg);
    if (pb_whole(&m->base, NULL, "tracing", err) || check_known(m, err)) {
        return err->code;
    }
    if (m->codec_type > ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_CONNECTION_MANAGER__CODEC_TYPE__HTTP2) {
        return cfg_fail(err, "codec_type", "only AUTO, HTTP1 and HTTP2 are supported yet");
    }
    h->codec = (enum codec_type)m->codec_type; // same numbers
    h->stat_prefix = build_str(ctx->arena, m->stat_prefix);
    h->proxy_100_continue = m->proxy_100_continue;
    h->stream_error_on_invalid_http = pb_bool_or(m->stream_error_on_invalid_http_message, false);
    take_times(m, h);
    if (take_identity(ctx, m, h, err) || build_trust(ctx, m, h, err) || take_paths(m, h, err) || build_h1(ctx, m, h, err) || build_h2(m, h, err) || build_common(m, h, err) || build_upgrades(ctx, m, h, err) ||
        build_routes(ctx, m, h, err) || build_http_filters(ctx, m->n_http_filters, m->http_filters, "http_filters", &h->chain, err) || build_access_logs(ctx, m, h, err)) {
        return err->code;
    }
    struct local_replies *replies = NULL;
    if (m->local_reply_config && build_local_replies(ctx, m->local_reply_config, &replies, err)) {
        return cfg_in(err, "local_reply_config");
    }
    h->local_replies = replies;
    *ret = h;
    return 0;
}
