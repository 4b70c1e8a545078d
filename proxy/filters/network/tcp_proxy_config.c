// SPDX-License-Identifier: Apache-2.0
// tcp_proxy.v3.TcpProxy → struct tcp_proxy_cfg.
#include <errno.h>

#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "envoy/type/v3/hash_policy.pb-c.h"
#include "lib/http/chars.h"
#include "proto/pb_util.h"
#include "proxy/access_log/access_log.h"
#include "proxy/filters/network/tcp_proxy.h"
#include "proxy/filters/network/tcp_tunnel.h"

typedef Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy tcp_proxy_msg;
typedef Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy__WeightedCluster weighted_msg;

typedef Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy__TunnelingConfig tunnel_msg;

enum { IDLE_DEFAULT_MS = 3600000, WEIGHTED_MAX = 1000, TUNNEL_HEADERS_MAX = 1000 };

// What would change traffic and is not done here.
static int refuse_unsupported(const tcp_proxy_msg *m, struct err *err)
{
    const struct {
        const char *field;
        bool set;
    } fields[] = {
        { "on_demand", m->on_demand },
        { "downstream_idle_timeout", m->downstream_idle_timeout },
        { "upstream_idle_timeout", m->upstream_idle_timeout },
        { "proxy_protocol_tlvs", m->n_proxy_protocol_tlvs > 0 },
        { "check_drain_close", m->check_drain_close && !m->check_drain_close->value }, // drained connections do end here
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (fields[i].set) {
            return err_set(err, -EINVAL, "%s: not supported yet", fields[i].field);
        }
    }
    return 0;
}

static int parse_weighted(const weighted_msg *m, struct arena *a, struct tcp_proxy_cfg *c, struct err *err)
{
    if (m->n_clusters == 0 || m->n_clusters > WEIGHTED_MAX) {
        return err_set(err, -EINVAL, "weighted_clusters.clusters: %zu entries; 1 to %d are needed", m->n_clusters, WEIGHTED_MAX);
    }
    c->weighted = arena_array(a, struct tcp_weighted, m->n_clusters);
    for (size_t i = 0; i < m->n_clusters; i++) {
        if (!m->clusters[i]->name[0] || m->clusters[i]->weight == 0) {
            return err_set(err, -EINVAL, "weighted_clusters.clusters[%zu]: name and a weight of at least 1 are needed", i);
        }
        c->weighted[i] = (struct tcp_weighted){ .name = arena_str(a, str_c(m->clusters[i]->name)), .weight = m->clusters[i]->weight };
        c->total_weight += c->weighted[i].weight;
    }
    c->weighted_count = m->n_clusters;
    return 0;
}

static int parse_target(const tcp_proxy_msg *m, struct arena *a, struct tcp_proxy_cfg *c, struct err *err)
{
    switch (m->cluster_specifier_case) {
    case ENVOY__EXTENSIONS__FILTERS__NETWORK__TCP_PROXY__V3__TCP_PROXY__CLUSTER_SPECIFIER_CLUSTER:
        c->cluster = arena_str(a, str_c(m->cluster));
        return c->cluster.n ? 0 : err_set(err, -EINVAL, "cluster: a name is needed");
    case ENVOY__EXTENSIONS__FILTERS__NETWORK__TCP_PROXY__V3__TCP_PROXY__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS:
        return parse_weighted(m->weighted_clusters, a, c, err);
    default:
        return err_set(err, -EINVAL, "cluster or weighted_clusters is needed");
    }
}

static int parse_hash(const tcp_proxy_msg *m, struct tcp_proxy_cfg *c, struct err *err)
{
    for (size_t i = 0; i < m->n_hash_policy; i++) {
        if (m->hash_policy[i]->policy_specifier_case != ENVOY__TYPE__V3__HASH_POLICY__POLICY_SPECIFIER_SOURCE_IP) {
            return err_set(err, -EINVAL, "hash_policy[%zu]: only source_ip is supported", i);
        }
        c->hash_source_ip = true;
    }
    return 0;
}

static int parse_access_logs(const tcp_proxy_msg *m, struct arena *a, struct tcp_proxy_cfg *c, struct err *err)
{
    c->access_logs = m->n_access_log ? arena_array(a, struct access_log_cfg *, m->n_access_log) : NULL;
    for (size_t i = 0; i < m->n_access_log; i++) {
        if (access_log_parse(m->access_log[i], a, &c->access_logs[i], err) != 0) {
            return err_wrap(err, "access_log[%zu]", i);
        }
        c->access_log_count++;
    }
    return 0;
}

// ---- tunneling_config ----

static int parse_tunnel_header(const Envoy__Config__Core__V3__HeaderValueOption *m, struct arena *a, struct tcp_tunnel_header *ret, struct err *err)
{
    struct str name = str_c(m->header ? m->header->key : NULL);
    if (name.n && !ch_all(name, CH_TOKEN)) {
        return err_set(err, -EINVAL, "header.key: \"%.*s\" is no name of a field", STR_FMT(name));
    }
    if (m->header && m->header->raw_value.len) {
        return err_set(err, -EINVAL, "header.raw_value: not supported yet");
    }
    enum hdr_id id = hdr_id_of(name);
    if (!name.n || hdr_is_connection_specific(id) || str_eq_nocase(name, STR("host")) || str_eq_nocase(name, STR("content-length"))) {
        return err_set(err, -EINVAL, "header.key: \"%.*s\" cannot be set", STR_FMT(name));
    }
    char *lower = arena_alloc(a, name.n + 1);
    for (size_t i = 0; i < name.n; i++) {
        lower[i] = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] | 0x20) : name.p[i];
    }
    ret->name = str_n(lower, name.n);
    ret->keep_empty = m->keep_empty_value;
    bool append = m->append ? m->append->value : true;
    switch (m->append_action) {
    case ENVOY__CONFIG__CORE__V3__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__APPEND_IF_EXISTS_OR_ADD:
        ret->overwrite = !append;
        break;
    case ENVOY__CONFIG__CORE__V3__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__ADD_IF_ABSENT:
        ret->if_absent = true;
        break;
    case ENVOY__CONFIG__CORE__V3__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS_OR_ADD:
        ret->overwrite = true;
        break;
    case ENVOY__CONFIG__CORE__V3__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS:
        ret->if_exists = true;
        break;
    default:
        return err_set(err, -EINVAL, "append_action: unknown value %d", (int)m->append_action);
    }
    if (format_compile(str_c(m->header->value), a, &ret->value, err) != 0) {
        return err_wrap(err, "header.value");
    }
    return 0;
}

static int refuse_tunnel_fields(const tunnel_msg *m, struct err *err)
{
    const char *field = m->propagate_response_headers    ? "propagate_response_headers"
                        : m->propagate_response_trailers ? "propagate_response_trailers"
                        : m->request_id_extension        ? "request_id_extension"
                        : m->request_id_header[0]        ? "request_id_header"
                        : m->request_id_metadata_key[0]  ? "request_id_metadata_key"
                        : m->n_formatters                ? "formatters"
                                                         : NULL;
    return field ? err_set(err, -EINVAL, "tunneling_config.%s: not supported yet", field) : 0;
}

static int parse_tunnel(const tunnel_msg *m, struct arena *a, struct tcp_tunnel_cfg **ret, struct err *err)
{
    if (refuse_tunnel_fields(m, err)) {
        return err->code;
    }
    struct tcp_tunnel_cfg *t = arena_new(a, struct tcp_tunnel_cfg);
    if (!m->hostname[0]) {
        return err_set(err, -EINVAL, "tunneling_config.hostname: is needed, as host:port");
    }
    if (m->post_path[0] && !m->use_post) {
        return err_set(err, -EINVAL, "tunneling_config.post_path: only with use_post");
    }
    if (m->post_path[0] && m->post_path[0] != '/') {
        return err_set(err, -EINVAL, "tunneling_config.post_path: must begin with /");
    }
    if (format_compile(str_c(m->hostname), a, &t->hostname, err) != 0) {
        return err_wrap(err, "tunneling_config.hostname");
    }
    t->post = m->use_post;
    t->path = m->post_path[0] ? arena_str(a, str_c(m->post_path)) : STR("/");
    if (m->n_headers_to_add > TUNNEL_HEADERS_MAX) {
        return err_set(err, -EINVAL, "tunneling_config.headers_to_add: more than %d", TUNNEL_HEADERS_MAX);
    }
    t->headers = m->n_headers_to_add ? arena_array(a, struct tcp_tunnel_header, m->n_headers_to_add) : NULL;
    for (size_t i = 0; i < m->n_headers_to_add; i++) {
        t->headers[i] = (struct tcp_tunnel_header){ 0 };
        if (parse_tunnel_header(m->headers_to_add[i], a, &t->headers[t->header_count++], err) != 0) {
            return err_wrap(err, "tunneling_config.headers_to_add[%zu]", i);
        }
    }
    *ret = t;
    return 0;
}

// ---- connecting, logging ----

static int parse_backoff(const Envoy__Config__Core__V3__BackoffStrategy *m, struct tcp_proxy_cfg *c, struct err *err)
{
    if (!m) {
        return 0;
    }
    int64_t base = pb_duration_ms(m->base_interval, 0), max = pb_duration_ms(m->max_interval, base * 10);
    if (base < 1) {
        return err_set(err, -EINVAL, "backoff_options.base_interval: must be at least 1 ms");
    }
    if (max < base) {
        return err_set(err, -EINVAL, "backoff_options.max_interval: must not be below base_interval");
    }
    c->backoff_ms = (uint64_t)base;
    c->backoff_max_ms = (uint64_t)max;
    return 0;
}

// TLS handshakes are over before a connection comes here, so ON_DOWNSTREAM_TLS_HANDSHAKE is what always happens.
static int parse_connect_mode(const tcp_proxy_msg *m, struct tcp_proxy_cfg *c, struct err *err)
{
    if ((unsigned)m->upstream_connect_mode > ENVOY__EXTENSIONS__FILTERS__NETWORK__TCP_PROXY__V3__UPSTREAM_CONNECT_MODE__ON_DOWNSTREAM_TLS_HANDSHAKE) {
        return err_set(err, -EINVAL, "upstream_connect_mode: unknown value %d", (int)m->upstream_connect_mode);
    }
    c->wait_for_data = m->upstream_connect_mode == ENVOY__EXTENSIONS__FILTERS__NETWORK__TCP_PROXY__V3__UPSTREAM_CONNECT_MODE__ON_DOWNSTREAM_DATA;
    if (c->wait_for_data && !m->max_early_data_bytes) {
        return err_set(err, -EINVAL, "max_early_data_bytes: is needed with upstream_connect_mode ON_DOWNSTREAM_DATA");
    }
    return 0;
}

static int parse_log_options(const Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy__TcpAccessLogOptions *m, struct tcp_proxy_cfg *c,
                             struct err *err)
{
    if (!m) {
        return 0;
    }
    int64_t interval = pb_duration_ms(m->access_log_flush_interval, 0);
    if (m->access_log_flush_interval && interval < 1) {
        return err_set(err, -EINVAL, "access_log_options.access_log_flush_interval: must be at least 1 ms");
    }
    c->log_interval_ms = (uint64_t)interval;
    c->log_start = m->flush_access_log_on_start;
    c->log_connected = m->flush_access_log_on_connected;
    return 0;
}

int tcp_proxy_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    const tcp_proxy_msg *m = msg;
    if (!m) {
        return err_set(err, -EINVAL, "the TCP proxy needs a configuration");
    }
    struct tcp_proxy_cfg *c = arena_new(arena, struct tcp_proxy_cfg);
    int rc = refuse_unsupported(m, err);
    rc = rc ? rc : parse_target(m, arena, c, err);
    rc = rc ? rc : parse_hash(m, c, err);
    rc = rc ? rc : parse_access_logs(m, arena, c, err);
    rc = rc ? rc : parse_log_options(m->access_log_options, c, err);
    rc = rc ? rc : parse_backoff(m->backoff_options, c, err);
    rc = rc ? rc : parse_connect_mode(m, c, err);
    rc = rc || !m->tunneling_config ? rc : parse_tunnel(m->tunneling_config, arena, &c->tunnel, err);
    if (rc != 0) {
        return rc;
    }
    c->stat_prefix = arena_str(arena, str_c(m->stat_prefix));
    c->idle_ms = (uint64_t)pb_duration_ms(m->idle_timeout, IDLE_DEFAULT_MS);
    c->max_duration_ms = (uint64_t)pb_duration_ms(m->max_downstream_connection_duration, 0);
    if (m->max_downstream_connection_duration && c->max_duration_ms == 0) {
        return err_set(err, -EINVAL, "max_downstream_connection_duration: must be at least 1 ms");
    }
    if (m->max_downstream_connection_duration_jitter_percentage) {
        double percent = m->max_downstream_connection_duration_jitter_percentage->value;
        if (!(percent >= 0 && percent <= 100)) {
            return err_set(err, -EINVAL, "max_downstream_connection_duration_jitter_percentage: must be 0 to 100");
        }
        c->max_duration_jitter_ppm = (uint32_t)(percent * 10000);
    }
    c->max_connect_attempts = pb_u32_or(m->max_connect_attempts, 1);
    if (c->max_connect_attempts == 0) {
        return err_set(err, -EINVAL, "max_connect_attempts: must be at least 1");
    }
    *ret_cfg = c;
    return 0;
}
