// SPDX-License-Identifier: Apache-2.0
// Clusters and their endpoints: outbound|PORT|SUBSET|HOST, inbound|PORT||, and the three fixed ones.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control-plane/compile_int.h"

#define TLS_URL "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
#define RAW_SOCKET "{name: envoy.transport_sockets.raw_buffer, typed_config: {'@type': "                              \
                   "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}"
// What Istio names sds-grpc is the sidecar itself.
#define SDS_SELF "sds_config: {api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}], "      \
                 "set_node_on_first_message_only: true}, initial_fetch_timeout: 0s, resource_api_version: V3}"

static void write_limits(struct buf *b, const struct cp_policy *p)
{
    // Unset limits are Istio's: none.
    buf_printf(b, ", circuit_breakers: {thresholds: [{max_connections: %u, max_pending_requests: %u, max_requests: %u, max_retries: %u}]}",
               p->max_connections ? p->max_connections : UINT32_MAX, p->max_pending ? p->max_pending : UINT32_MAX,
               p->max_requests ? p->max_requests : UINT32_MAX, p->max_retries ? p->max_retries : UINT32_MAX);
}

static void write_outlier(struct buf *b, const struct cp_policy *p)
{
    if (!p->outlier) {
        return;
    }
    buf_printf(b, ", outlier_detection: {consecutive_5xx: %u, enforcing_consecutive_5xx: %d, enforcing_success_rate: 0", p->consecutive_5xx,
               p->consecutive_5xx ? 100 : 0);
    if (p->consecutive_gateway) {
        buf_printf(b, ", consecutive_gateway_failure: %u, enforcing_consecutive_gateway_failure: 100", p->consecutive_gateway);
    }
    if (p->max_ejection_percent) {
        buf_printf(b, ", max_ejection_percent: %u", p->max_ejection_percent);
    }
    if (p->outlier_interval.n) {
        buf_printf(b, ", interval: %.*s", STR_FMT(p->outlier_interval));
    }
    if (p->outlier_base.n) {
        buf_printf(b, ", base_ejection_time: %.*s", STR_FMT(p->outlier_base));
    }
    buf_printf(b, "}");
}

static bool account_seen(const struct cp_service *s, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (str_eq(s->endpoints[k].service_account, s->endpoints[i].service_account)) {
            return true;
        }
    }
    return false;
}

// Mesh TLS towards the service's endpoints: our certificate, the mesh's roots, one exact name per service account.
static void write_mesh_tls(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p, struct str subset)
{
    buf_printf(b, "{name: envoy.transport_sockets.tls, typed_config: {'@type': " TLS_URL ", common_tls_context: {"
                  "tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}, "
                  "tls_certificate_sds_secret_configs: [{name: default, " SDS_SELF "}], "
                  "combined_validation_context: {default_validation_context: {match_subject_alt_names: [");
    const char *sep = "";
    for (size_t i = 0; i < s->endpoint_count; i++) {
        const struct cp_endpoint *e = &s->endpoints[i];
        if (e->service_account.n && !account_seen(s, i)) {
            buf_printf(b, "%s{exact: %s}", sep,
                       cpc_qf(k, "spiffe://%.*s/ns/%.*s/sa/%.*s", STR_FMT(k->o->trust_domain), STR_FMT(e->ns), STR_FMT(e->service_account)));
            sep = ", ";
        }
    }
    if (!*sep) { // no account known: at least a name of this mesh
        buf_printf(b, "{prefix: %s}", cpc_qf(k, "spiffe://%.*s/", STR_FMT(k->o->trust_domain)));
    }
    buf_printf(b, "]}, validation_context_sds_secret_config: {name: ROOTCA, " SDS_SELF "}}, alpn_protocols: [istio-peer-exchange, istio]}, sni: %s}}",
               cpc_qf(k, "outbound_.%u_.%.*s_.%.*s", p->number, STR_FMT(subset), STR_FMT(s->host)));
}

static bool has_mesh_endpoint(const struct cp_service *s)
{
    for (size_t i = 0; i < s->endpoint_count; i++) {
        if (str_is(cp_label_get(&s->endpoints[i].labels, "security.istio.io/tlsMode"), "istio")) {
            return true;
        }
    }
    return false;
}

static void write_transport(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p, struct str subset,
                            const struct cp_policy *policy)
{
    if (policy->tls == CP_TLS_DISABLE) {
        return;
    }
    if (policy->tls == CP_TLS_ISTIO_MUTUAL) {
        buf_printf(b, ", transport_socket: ");
        write_mesh_tls(k, b, s, p, subset);
        return;
    }
    if (!has_mesh_endpoint(s)) {
        return;
    }
    buf_printf(b, ", transport_socket_matches: [{name: tlsMode-istio, match: {tlsMode: istio}, transport_socket: ");
    write_mesh_tls(k, b, s, p, subset);
    buf_printf(b, "}, {name: tlsMode-disabled, match: {}, transport_socket: " RAW_SOCKET "}]");
}

static void write_endpoint_address(struct compiler *k, struct buf *b, const struct cp_endpoint *e, const struct cp_port *p)
{
    buf_printf(b, "{endpoint: {address: {socket_address: {address: %s, port_value: %u}}}, ", cpc_q(k, e->address), cpc_endpoint_port(e, p));
    buf_printf(b, "metadata: {filter_metadata: {");
    if (str_is(cp_label_get(&e->labels, "security.istio.io/tlsMode"), "istio")) {
        buf_printf(b, "envoy.transport_socket_match: {tlsMode: istio}, ");
    }
    struct str app = cp_label_get(&e->labels, "app"), version = cp_label_get(&e->labels, "version");
    buf_printf(b, "istio: {workload: %s}}}, ", cpc_qf(k, "%.*s;%.*s;%.*s;%.*s;", STR_FMT(app), STR_FMT(e->ns), STR_FMT(app), STR_FMT(version)));
    buf_printf(b, "load_balancing_weight: %u}", e->weight ? e->weight : 1);
}

static void write_locality(struct compiler *k, struct buf *b, struct str locality)
{
    static const char *const names[] = { "region", "zone", "sub_zone" };
    struct str rest = locality;
    buf_printf(b, "locality: {");
    for (int i = 0; i < 3 && rest.n; i++) {
        buf_printf(b, "%s%s: %s", i ? ", " : "", names[i], cpc_q(k, str_split(&rest, '/')));
    }
    buf_printf(b, "}");
}

// `endpoints: [...]` of the service's endpoints that carry the subset's labels, grouped by locality.
static void write_assignment(struct compiler *k, struct buf *b, struct str name, const struct cp_service *s, const struct cp_port *p,
                             const struct cp_labels *labels)
{
    buf_printf(b, "{cluster_name: %s, endpoints: [", cpc_q(k, name));
    const char *outer = "";
    for (size_t i = 0; i < s->endpoint_count; i++) {
        const struct cp_endpoint *e = &s->endpoints[i];
        bool first_of_locality = cp_labels_match(labels, &e->labels);
        for (size_t x = 0; x < i && first_of_locality; x++) {
            first_of_locality = !(str_eq(s->endpoints[x].locality, e->locality) && cp_labels_match(labels, &s->endpoints[x].labels));
        }
        if (!first_of_locality) {
            continue;
        }
        uint64_t weight = 0;
        buf_printf(b, "%s{", outer);
        write_locality(k, b, e->locality);
        buf_printf(b, ", lb_endpoints: [");
        const char *sep = "";
        for (size_t x = i; x < s->endpoint_count; x++) {
            const struct cp_endpoint *other = &s->endpoints[x];
            if (str_eq(other->locality, e->locality) && cp_labels_match(labels, &other->labels)) {
                buf_printf(b, "%s", sep);
                write_endpoint_address(k, b, other, p);
                weight += other->weight ? other->weight : 1;
                sep = ", ";
            }
        }
        buf_printf(b, "], load_balancing_weight: %llu}", (unsigned long long)(weight < UINT32_MAX ? weight : UINT32_MAX));
        outer = ", ";
    }
    buf_printf(b, "]}");
}

static const struct cp_labels no_labels;

static int add_outbound(struct compiler *k, const struct cp_service *s, const struct cp_port *p, struct str subset,
                        const struct cp_labels *labels, const struct cp_policy *policy)
{
    struct buf b = { 0 };
    struct str name = cpc_cluster_name(k, p, subset, s);
    bool original = s->resolution == CP_NONE;
    buf_printf(&b, "{name: %s, alt_stat_name: %s, type: %s, connect_timeout: %.*s", cpc_q(k, name), cpc_qf(k, "%.*s;", STR_FMT(name)),
               original ? "ORIGINAL_DST" : s->resolution == CP_DNS ? "STRICT_DNS" : "EDS",
               (int)(policy->connect_timeout.n ? policy->connect_timeout.n : 3), policy->connect_timeout.n ? policy->connect_timeout.p : "10s");
    if (original) {
        buf_printf(&b, ", lb_policy: CLUSTER_PROVIDED");
    } else {
        buf_printf(&b, ", lb_policy: %.*s", (int)(policy->lb.n ? policy->lb.n : 13), policy->lb.n ? policy->lb.p : "LEAST_REQUEST");
    }
    if (s->resolution == CP_STATIC) {
        buf_printf(&b, ", eds_cluster_config: {eds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}, service_name: %s}",
                   cpc_q(k, name));
    } else if (s->resolution == CP_DNS) {
        buf_printf(&b, ", dns_refresh_rate: 60s, respect_dns_ttl: true, dns_lookup_family: %s, load_assignment: ",
                   k->node->ip.family == AF_INET6 ? "AUTO" : "V4_ONLY");
        write_assignment(k, &b, name, s, p, labels);
    }
    write_limits(&b, policy);
    write_outlier(&b, policy);
    if (policy->max_requests_per_connection || policy->idle_timeout.n) {
        buf_printf(&b, ", typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': "
                       "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, common_http_protocol_options: {");
        if (policy->idle_timeout.n) {
            buf_printf(&b, "idle_timeout: %.*s, ", STR_FMT(policy->idle_timeout));
        }
        if (policy->max_requests_per_connection) {
            buf_printf(&b, "max_requests_per_connection: %u", policy->max_requests_per_connection);
        }
        buf_printf(&b, "}, explicit_http_config: {http_protocol_options: {}}}}");
    }
    write_transport(k, &b, s, p, subset, policy);
    buf_printf(&b, ", common_lb_config: {healthy_panic_threshold: {}}, metadata: {filter_metadata: {istio: {");
    const struct cp_destination_rule *d = s->rule;
    if (d) {
        buf_printf(&b, "config: %s, ", cpc_qf(k, "/apis/networking.istio.io/v1/namespaces/%.*s/destination-rule/%.*s", STR_FMT(d->meta.ns),
                                               STR_FMT(d->meta.name)));
    }
    if (subset.n) {
        buf_printf(&b, "subset: %s, ", cpc_q(k, subset));
    }
    buf_printf(&b, "services: [{host: %s, name: %s, namespace: %s}]}}}}", cpc_q(k, s->host), cpc_q(k, s->host), cpc_q(k, s->meta.ns));
    return cpc_add(k, CP_CDS, arena_str(&k->set->arena, name), &b);
}

// Each (service, port, subset): fn's turn.
static int each_outbound(struct compiler *k, int (*fn)(struct compiler *, const struct cp_service *, const struct cp_port *, struct str,
                                                       const struct cp_labels *, const struct cp_policy *))
{
    static const struct cp_policy no_policy;
    for (size_t i = 0; i < k->c->service_count; i++) {
        const struct cp_service *s = &k->c->services[i];
        const struct cp_destination_rule *d = s->rule;
        for (size_t p = 0; p < s->port_count; p++) {
            if (fn(k, s, &s->ports[p], str_n("", 0), &no_labels, d ? &d->policy : &no_policy)) {
                return k->err->code;
            }
            for (size_t x = 0; d && x < d->subset_count; x++) {
                if (fn(k, s, &s->ports[p], d->subsets[x].name, &d->subsets[x].labels, &d->subsets[x].policy)) {
                    return k->err->code;
                }
            }
        }
    }
    return 0;
}

#define PASS_OPTIONS "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': "                      \
                     "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, "                                              \
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

static int add_inbound(struct compiler *k, const struct cpc_inbound *in)
{
    struct buf b = { 0 };
    char name[64];
    snprintf(name, sizeof(name), "inbound|%u||", in->port);
    buf_printf(&b, "{name: '%s', alt_stat_name: '%s;', type: ORIGINAL_DST, connect_timeout: 10s, lb_policy: CLUSTER_PROVIDED, " NO_LIMITS
                   ", cleanup_interval: 60s, upstream_bind_config: {source_address: {address: %s, port_value: 0}}, metadata: {filter_metadata: "
                   "{istio: {services: [{host: %s, name: %s, namespace: %s}]}}}}",
               name, name, bind_source(k), cpc_q(k, in->service->host), cpc_q(k, in->service->host), cpc_q(k, in->service->meta.ns));
    return cpc_add(k, CP_CDS, str_c(name), &b);
}

int cpc_clusters(struct compiler *k)
{
    if (add_fixed(k) || each_outbound(k, add_outbound)) {
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

static int add_assignment(struct compiler *k, const struct cp_service *s, const struct cp_port *p, struct str subset,
                          const struct cp_labels *labels, const struct cp_policy *policy)
{
    (void)policy;
    if (s->resolution != CP_STATIC) {
        return 0;
    }
    struct buf b = { 0 };
    struct str name = arena_str(&k->set->arena, cpc_cluster_name(k, p, subset, s));
    write_assignment(k, &b, name, s, p, labels);
    return cpc_add(k, CP_EDS, name, &b);
}

int cpc_endpoints(struct compiler *k)
{
    return each_outbound(k, add_assignment);
}
