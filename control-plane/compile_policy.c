// SPDX-License-Identifier: Apache-2.0
// The blocks of a traffic policy as members of a cluster: limits, outlier detection, balancing, protocol options.
#include "control-plane/compile_int.h"

#define OPTIONS_NAME "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

static unsigned limit(uint32_t v)
{
    return v ? v : UINT32_MAX; // unset limits are Istio's: none
}

void cpc_limits(struct buf *b, const struct cp_policy *p)
{
    static const struct cp_pool none;
    const struct cp_pool *o = p->pool ? p->pool : &none;
    buf_printf(b, ", circuit_breakers: {thresholds: [{max_connections: %u, max_pending_requests: %u, max_requests: %u, max_retries: %u",
               limit(o->max_connections), limit(o->max_pending), limit(o->max_requests), limit(o->max_retries));
    if (p->budget) {
        buf_printf(b, ", retry_budget: {budget_percent: {value: %g}, min_retry_concurrency: %u", p->budget->percent, p->budget->min);
        if (p->budget->interval.n) {
            buf_printf(b, ", budget_interval: %.*s", STR_FMT(p->budget->interval));
        }
        buf_printf(b, "}");
    }
    buf_printf(b, "}]}");
    if (!o->keepalive) {
        return;
    }
    buf_printf(b, ", upstream_connection_options: {tcp_keepalive: {");
    if (o->keepalive_probes) {
        buf_printf(b, "keepalive_probes: %u, ", o->keepalive_probes);
    }
    if (o->keepalive_time.n) { // whole seconds
        buf_printf(b, "keepalive_time: %.*s, ", (int)str_find(o->keepalive_time, '.'), o->keepalive_time.p);
    }
    if (o->keepalive_interval.n) {
        buf_printf(b, "keepalive_interval: %.*s", (int)str_find(o->keepalive_interval, '.'), o->keepalive_interval.p);
    }
    buf_printf(b, "}}");
}

void cpc_outlier(struct buf *b, const struct cp_outlier *o)
{
    if (!o) {
        return;
    }
    buf_printf(b, ", outlier_detection: {enforcing_success_rate: 0"); // detection by success rate is not Istio's
    if (o->has_5xx) {
        buf_printf(b, ", consecutive_5xx: %u, enforcing_consecutive_5xx: %d", o->consecutive_5xx, o->consecutive_5xx ? 100 : 0);
    }
    if (o->has_gateway) {
        buf_printf(b, ", consecutive_gateway_failure: %u, enforcing_consecutive_gateway_failure: %d", o->consecutive_gateway,
                   o->consecutive_gateway ? 100 : 0);
    }
    if (o->max_ejection_percent) {
        buf_printf(b, ", max_ejection_percent: %u", o->max_ejection_percent);
    }
    if (o->interval.n) {
        buf_printf(b, ", interval: %.*s", STR_FMT(o->interval));
    }
    if (o->base.n) {
        buf_printf(b, ", base_ejection_time: %.*s", STR_FMT(o->base));
    }
    if (o->split) {
        buf_printf(b, ", split_external_local_origin_errors: true, enforcing_local_origin_success_rate: 0");
    }
    if (o->split && o->consecutive_local) {
        buf_printf(b, ", consecutive_local_origin_failure: %u, enforcing_consecutive_local_origin_failure: 100", o->consecutive_local);
    }
    buf_printf(b, "}");
}

static void write_slow_start(struct buf *b, const char *key, const struct cp_lb *lb)
{
    if (!lb->warmup.n) {
        return;
    }
    buf_printf(b, ", %s: {slow_start_config: {slow_start_window: %.*s", key, STR_FMT(lb->warmup));
    if (lb->warmup_full) {
        buf_printf(b, ", aggression: {default_value: %g, runtime_key: '('}, min_weight_percent: {value: %g}", lb->warmup_aggression,
                   lb->warmup_percent);
    }
    buf_printf(b, "}}");
}

void cpc_lb(struct buf *b, const struct cp_lb *lb)
{
    static const struct cp_lb none;
    lb = lb ? lb : &none;
    if (lb->hash.key != CP_HASH_NONE) {
        uint64_t size = lb->hash.size ? lb->hash.size : lb->hash.legacy ? 1024 : 0;
        buf_printf(b, ", lb_policy: %s", lb->hash.maglev ? "MAGLEV" : "RING_HASH");
        if (size) {
            buf_printf(b, lb->hash.maglev ? ", maglev_lb_config: {table_size: %llu}" : ", ring_hash_lb_config: {minimum_ring_size: %llu}",
                       (unsigned long long)size);
        }
    } else if (str_is(lb->simple, "ROUND_ROBIN")) {
        buf_printf(b, ", lb_policy: ROUND_ROBIN");
        write_slow_start(b, "round_robin_lb_config", lb);
    } else if (str_is(lb->simple, "RANDOM")) {
        buf_printf(b, ", lb_policy: RANDOM");
    } else {
        buf_printf(b, ", lb_policy: LEAST_REQUEST");
        write_slow_start(b, "least_request_lb_config", lb);
    }
}

void cpc_common_lb(struct buf *b, const struct cp_policy *p)
{
    const struct cp_locality_lb *lo = p->lb ? p->lb->locality : NULL;
    buf_printf(b, ", common_lb_config: {healthy_panic_threshold: {value: %u}", p->outlier ? p->outlier->min_health_percent : 0);
    if (lo && !lo->disabled && (lo->distribute_count || (p->outlier && (lo->failover_count || lo->priority_count)))) {
        buf_printf(b, ", locality_weighted_lb_config: {}");
    }
    buf_printf(b, "}");
}

bool cpc_is_http2(const struct cp_port *port, const struct cp_policy *p)
{
    const struct cp_pool *o = p->pool;
    if (o && o->use_client_protocol) {
        return false;
    }
    return port->http2 || (port->protocol == CP_HTTP && o && o->h2_upgrade > 0);
}

static void write_h2(struct buf *b, const struct cp_pool *o)
{
    buf_printf(b, "http2_protocol_options: {");
    if (o && o->max_streams) {
        buf_printf(b, "max_concurrent_streams: %u, ", o->max_streams);
    }
    if (o && (o->h2_interval.n || o->h2_timeout.n)) {
        buf_printf(b, "connection_keepalive: {");
        if (o->h2_interval.n) {
            buf_printf(b, "interval: %.*s, ", STR_FMT(o->h2_interval));
        }
        if (o->h2_timeout.n) {
            buf_printf(b, "timeout: %.*s", STR_FMT(o->h2_timeout));
        }
        buf_printf(b, "}");
    }
    buf_printf(b, "}");
}

// Original TLS asks for the server's name by the request's host, and checks the certificate against it, where the rule says neither.
static void write_auto_names(struct buf *b, const struct cp_tls *t)
{
    bool own = t && (t->mode == CP_TLS_SIMPLE || t->mode == CP_TLS_MUTUAL);
    bool sni = own && !t->sni.n, san = sni && !t->name_count && !t->skip_verify;
    if (sni) {
        buf_printf(b, "upstream_http_protocol_options: {auto_sni: true%s}, ", san ? ", auto_san_validation: true" : "");
    }
}

void cpc_http_options(struct buf *b, const struct cp_port *port, const struct cp_policy *p)
{
    const struct cp_pool *o = p->pool;
    bool h2 = cpc_is_http2(port, p), client = o && o->use_client_protocol;
    struct str idle = !o ? str_n(NULL, 0) : o->http_idle.n ? o->http_idle : o->tcp_idle;
    bool common = o && (idle.n || o->max_requests_per_connection || o->max_duration.n);
    bool names = p->tls && (p->tls->mode == CP_TLS_SIMPLE || p->tls->mode == CP_TLS_MUTUAL) && !p->tls->sni.n;
    if (!h2 && !client && !common && !names) {
        return;
    }
    buf_printf(b, ", typed_extension_protocol_options: {" OPTIONS_NAME ": {'@type': type.googleapis.com/" OPTIONS_NAME ", ");
    write_auto_names(b, p->tls);
    if (common) {
        buf_printf(b, "common_http_protocol_options: {");
        if (idle.n) {
            buf_printf(b, "idle_timeout: %.*s, ", STR_FMT(idle));
        }
        if (o->max_duration.n) {
            buf_printf(b, "max_connection_duration: %.*s, ", STR_FMT(o->max_duration));
        }
        if (o->max_requests_per_connection) {
            buf_printf(b, "max_requests_per_connection: %u", o->max_requests_per_connection);
        }
        buf_printf(b, "}, ");
    }
    if (client) {
        buf_printf(b, "use_downstream_protocol_config: {http_protocol_options: {}, ");
        write_h2(b, o);
        buf_printf(b, "}");
    } else if (h2) {
        buf_printf(b, "explicit_http_config: {");
        write_h2(b, o);
        buf_printf(b, "}");
    } else {
        buf_printf(b, "explicit_http_config: {http_protocol_options: {}}");
    }
    buf_printf(b, "}}");
}
