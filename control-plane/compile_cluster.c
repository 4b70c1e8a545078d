// SPDX-License-Identifier: Apache-2.0
// Clusters: outbound|PORT|SUBSET|HOST, inbound|PORT||, and the three fixed ones.
#include <stdio.h>
#include <stdlib.h>

#include "control-plane/compile_int.h"

// Where a cluster's endpoints come from.
static const char *cluster_type(const struct cp_service *s, const struct cp_policy *policy)
{
    if (s->resolution == CP_NONE || (policy->lb && str_is(policy->lb->simple, "PASSTHROUGH"))) {
        return "ORIGINAL_DST";
    }
    return s->resolution == CP_DNS ? "STRICT_DNS" : s->resolution == CP_DNS_ONE ? "LOGICAL_DNS" : "EDS";
}

static void write_rule(struct compiler *k, struct buf *b, const struct cp_destination_rule *d)
{
    if (d) {
        buf_printf(b, "config: %s, ", cpc_qf(k, "/apis/networking.istio.io/v1/namespaces/%.*s/destination-rule/%.*s", STR_FMT(d->meta.ns),
                                             STR_FMT(d->meta.name)));
    }
}

static void write_cluster_metadata(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_subset *subset,
                                   const struct cp_policy *policy)
{
    buf_printf(b, ", metadata: {filter_metadata: {istio: {");
    if (policy->tls && (policy->tls->mode == CP_TLS_SIMPLE || policy->tls->mode == CP_TLS_MUTUAL)) {
        buf_printf(b, "alpn_override: 'false', ");
    }
    write_rule(k, b, cpc_view(k, s)->rule);
    if (s->external) {
        buf_printf(b, "external: true, ");
    }
    if (subset) {
        buf_printf(b, "subset: %s, ", cpc_q(k, subset->name));
    }
    buf_printf(b, "services: [{host: %s, name: %s, namespace: %s}]}}}", cpc_q(k, s->host), cpc_q(k, s->host), cpc_q(k, s->meta.ns));
}

static const struct cp_labels no_labels;

static int add_outbound(struct compiler *k, const struct cp_service *s, const struct cp_port *p, const struct cp_subset *subset)
{
    struct buf b = { 0 };
    struct str sub = subset ? subset->name : str_n("", 0), name = cpc_cluster_name(k, p, sub, s);
    struct cp_policy policy = cpc_policy(cpc_view(k, s)->rule, subset, p->number);
    const char *type = cluster_type(s, &policy);
    bool original = type[0] == 'O';
    struct str timeout = policy.pool && policy.pool->connect_timeout.n ? policy.pool->connect_timeout : STR("10s");
    buf_printf(&b, "{name: %s, alt_stat_name: %s, type: %s, connect_timeout: %.*s", cpc_q(k, name), cpc_qf(k, "%.*s;", STR_FMT(name)), type,
               STR_FMT(timeout));
    if (original) {
        buf_printf(&b, ", lb_policy: CLUSTER_PROVIDED");
    } else {
        cpc_lb(&b, policy.lb);
    }
    if (type[0] == 'E') {
        buf_printf(&b, ", eds_cluster_config: {eds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}, service_name: %s}",
                   cpc_q(k, name));
    } else if (!original) {
        buf_printf(&b, ", dns_refresh_rate: 60s, respect_dns_ttl: true, dns_lookup_family: %s, load_assignment: ",
                   k->node->ip.family == AF_INET6 ? "AUTO" : "V4_ONLY");
        cpc_assignment(k, &b, name, s, p, subset ? &subset->labels : &no_labels, &policy);
    }
    cpc_limits(&b, &policy);
    cpc_outlier(&b, policy.outlier);
    cpc_http_options(&b, p, &policy);
    cpc_transport(k, &b, s, p, sub, &policy, original);
    cpc_common_lb(&b, &policy);
    write_cluster_metadata(k, &b, s, subset, &policy);
    buf_printf(&b, "}");
    return cpc_add(k, CP_CDS, arena_str(&k->set->arena, name), &b);
}

// Each (service, port, subset): fn's turn. subset is NULL for the whole service.
static int each_outbound(struct compiler *k,
                         int (*fn)(struct compiler *, const struct cp_service *, const struct cp_port *, const struct cp_subset *))
{
    for (size_t i = 0; i < k->c->service_count; i++) {
        const struct cp_service *s = &k->c->services[i];
        const struct cp_destination_rule *d = k->views[i].rule;
        for (size_t p = 0; p < s->port_count && k->views[i].visible; p++) {
            if (fn(k, s, &s->ports[p], NULL)) {
                return k->err->code;
            }
            for (size_t x = 0; d && x < d->subset_count; x++) {
                if (fn(k, s, &s->ports[p], &d->subsets[x])) {
                    return k->err->code;
                }
            }
        }
    }
    return 0;
}

#define PASS_OPTIONS "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': "                      \
                     "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, "                                              \
                     "common_http_protocol_options: {idle_timeout: 300s}, "                                                                                        \
                     "use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}}}"
#define NO_LIMITS "circuit_breakers: {thresholds: [{max_connections: 4294967295, max_pending_requests: 4294967295, max_requests: 4294967295, "    \
                  "max_retries: 4294967295}]}"

// Proxy-to-application traffic leaves from 127.0.0.6 / ::6, which the redirect rules let pass.
static const char *bind_source(const struct compiler *k)
{
    return k->node->ip.family == AF_INET6 ? "'::6'" : "127.0.0.6";
}

static int add_fixed(struct compiler *k)
{
    struct buf b = { 0 };
    buf_printf(&b, "{name: BlackHoleCluster, alt_stat_name: BlackHoleCluster;, type: STATIC, connect_timeout: 10s, load_assignment: "
                   "{cluster_name: BlackHoleCluster}}");
    if (cpc_add(k, CP_CDS, STR("BlackHoleCluster"), &b)) {
        return k->err->code;
    }
    buf_printf(&b, "{name: PassthroughCluster, alt_stat_name: PassthroughCluster;, type: ORIGINAL_DST, connect_timeout: 10s, lb_policy: "
                   "CLUSTER_PROVIDED, " NO_LIMITS ", " PASS_OPTIONS "}");
    if (cpc_add(k, CP_CDS, STR("PassthroughCluster"), &b)) {
        return k->err->code;
    }
    buf_printf(&b, "{name: InboundPassthroughCluster, alt_stat_name: InboundPassthroughCluster;, type: ORIGINAL_DST, connect_timeout: 10s, "
                   "lb_policy: CLUSTER_PROVIDED, " NO_LIMITS ", " PASS_OPTIONS ", upstream_bind_config: {source_address: {address: %s, port_value: 0}}}",
               bind_source(k));
    return cpc_add(k, CP_CDS, STR("InboundPassthroughCluster"), &b);
}

// Of a rule, only the connection pool holds on the server's side, and it never makes HTTP/1.1 into HTTP/2 there.
static int add_inbound(struct compiler *k, const struct cpc_inbound *in)
{
    struct buf b = { 0 };
    char name[64];
    struct cp_policy policy = cpc_policy(cpc_view(k, in->service)->rule, NULL, in->service_port->number);
    struct cp_pool pool = { 0 };
    if (policy.pool) {
        pool = *policy.pool;
        pool.h2_upgrade = 0;
    }
    policy = (struct cp_policy){ .pool = &pool };
    snprintf(name, sizeof(name), "inbound|%u||", in->port);
    buf_printf(&b, "{name: '%s', alt_stat_name: '%s;', type: ORIGINAL_DST, connect_timeout: %.*s, lb_policy: CLUSTER_PROVIDED, cleanup_interval: 60s",
               name, name, (int)(pool.connect_timeout.n ? pool.connect_timeout.n : 3), pool.connect_timeout.n ? pool.connect_timeout.p : "10s");
    cpc_limits(&b, &policy);
    cpc_http_options(&b, in->service_port, &policy);
    buf_printf(&b, ", upstream_bind_config: {source_address: {address: %s, port_value: 0}}, metadata: {filter_metadata: {istio: {", bind_source(k));
    write_rule(k, &b, cpc_view(k, in->service)->rule);
    buf_printf(&b, "services: [{host: %s, name: %s, namespace: %s}]}}}}", cpc_q(k, in->service->host), cpc_q(k, in->service->host), cpc_q(k, in->service->meta.ns));
    return cpc_add(k, CP_CDS, str_c(name), &b);
}

int cpc_clusters(struct compiler *k)
{
    if (add_fixed(k) || each_outbound(k, add_outbound) || cpc_jwt_clusters(k)) {
        return k->err->code;
    }
    struct cpc_inbound *v;
    size_t n = cpc_inbound_ports(k, &v);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        rc = add_inbound(k, &v[i]);
    }
    free(v);
    return rc;
}

static int add_assignment(struct compiler *k, const struct cp_service *s, const struct cp_port *p, const struct cp_subset *subset)
{
    struct cp_policy policy = cpc_policy(cpc_view(k, s)->rule, subset, p->number);
    if (cluster_type(s, &policy)[0] != 'E') {
        return 0;
    }
    struct buf b = { 0 };
    struct str name = arena_str(&k->set->arena, cpc_cluster_name(k, p, subset ? subset->name : str_n("", 0), s));
    cpc_assignment(k, &b, name, s, p, subset ? &subset->labels : &no_labels, &policy);
    return cpc_add(k, CP_EDS, name, &b);
}

int cpc_endpoints(struct compiler *k)
{
    return each_outbound(k, add_assignment);
}
