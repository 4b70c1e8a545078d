// SPDX-License-Identifier: Apache-2.0
// Listeners: virtualOutbound (15001), virtualInbound (15006), and one that does not bind per destination.
#include <stdio.h>
#include <stdlib.h>

#include "control-plane/compile_int.h"

#define HCM_URL "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
#define ROUTER "{name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
// Offers peers of a real Istio mesh the ALPN they choose their filter chain by.
#define ALPN "{name: istio.alpn, typed_config: {'@type': type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig, "             \
             "alpn_override: [{upstream_protocol: HTTP10, alpn_override: [istio-http/1.0, istio, http/1.0]}, "                                        \
             "{upstream_protocol: HTTP11, alpn_override: [istio-http/1.1, istio, http/1.1]}, "                                                        \
             "{upstream_protocol: HTTP2, alpn_override: [istio-h2, istio, h2]}]}}"
#define SDS_SELF "sds_config: {api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}], "  \
                 "set_node_on_first_message_only: true}, initial_fetch_timeout: 0s, resource_api_version: V3}"
#define HTTP_INSPECTOR "{name: envoy.filters.listener.http_inspector, typed_config: {'@type': "                                                        \
                       "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}"
#define TLS_INSPECTOR "{name: envoy.filters.listener.tls_inspector, typed_config: {'@type': "                                                          \
                      "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}"
#define ORIGINAL_DST "{name: envoy.filters.listener.original_dst, typed_config: {'@type': "                                                            \
                     "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}"

enum { OUTBOUND_PORT = 15001, INBOUND_PORT = 15006 };

static const char *wildcard(const struct compiler *k)
{
    return k->node->ip.family == AF_INET6 ? "'::'" : "0.0.0.0";
}

static const char *passthrough(const struct compiler *k)
{
    return k->o->registry_only ? "BlackHoleCluster" : "PassthroughCluster";
}

// ---- outbound ----

static int add_virtual_outbound(struct compiler *k)
{
    struct buf b = { 0 };
    buf_printf(&b, "{name: virtualOutbound, address: {socket_address: {address: %s, port_value: %d}}, use_original_dst: true, "
                   "traffic_direction: OUTBOUND, filter_chains: [{filter_chain_match: {destination_port: %d}, name: virtualOutbound-blackhole, "
                   "filters: [",
               wildcard(k), OUTBOUND_PORT, OUTBOUND_PORT);
    cpc_tcp_proxy(k, &b, "BlackHoleCluster", "BlackHoleCluster");
    buf_printf(&b, "]}, {name: virtualOutbound-catchall-tcp, filters: [");
    cpc_tcp_proxy(k, &b, passthrough(k), passthrough(k));
    buf_printf(&b, "]}]}");
    return cpc_add(k, CP_LDS, STR("virtualOutbound"), &b);
}

static int add_http_outbound(struct compiler *k, uint16_t port)
{
    struct buf b = { 0 };
    char name[64];
    bool v6 = k->node->ip.family == AF_INET6;
    snprintf(name, sizeof(name), "%s_%u", v6 ? "::" : "0.0.0.0", port);
    buf_printf(&b, "{name: '%s', address: {socket_address: {address: %s, port_value: %u}}, bind_to_port: false, traffic_direction: OUTBOUND, "
                   "listener_filters: [" HTTP_INSPECTOR "}], listener_filters_timeout: %.*s, continue_on_listener_filters_timeout: true, "
                   "filter_chains: [{filter_chain_match: {transport_protocol: raw_buffer, application_protocols: [http/1.1, h2c]}, filters: "
                   "[{name: envoy.filters.network.http_connection_manager, typed_config: {'@type': " HCM_URL ", stat_prefix: 'outbound_%s;', "
                   "rds: {config_source: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}, route_config_name: '%u'}, "
                   "use_remote_address: false, normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: KEEP_UNCHANGED, "
                   "proxy_100_continue: true, stream_idle_timeout: 0s, upgrade_configs: [{upgrade_type: websocket}], "
                   "http_filters: [" ALPN ", " ROUTER "]",
               name, wildcard(k), port, STR_FMT(k->o->sniff_timeout), name, port);
    cpc_access_log(k, &b);
    buf_printf(&b, "}}]}], default_filter_chain: {name: PassthroughFilterChain, filters: [");
    cpc_tcp_proxy(k, &b, passthrough(k), passthrough(k));
    buf_printf(&b, "]}}");
    return cpc_add(k, CP_LDS, str_c(name), &b);
}

// The TCP route of the service's VirtualService for this port, or NULL.
static const struct cp_tcp_route *tcp_route_of(const struct cp_service *s, uint16_t port)
{
    for (size_t t = 0; s->tcp && t < s->tcp->tcp_count; t++) {
        const struct cp_tcp_route *r = &s->tcp->tcp[t];
        bool fits = r->port_count == 0;
        for (size_t p = 0; p < r->port_count && !fits; p++) {
            fits = r->ports[p] == port;
        }
        if (fits) {
            return r;
        }
    }
    return NULL;
}

static const struct cp_port *destination_port(const struct cp_service *s, uint16_t want, const struct cp_port *asked)
{
    for (size_t i = 0; i < s->port_count; i++) {
        if (s->ports[i].number == (want ? want : asked->number)) {
            return &s->ports[i];
        }
    }
    return s->port_count == 1 ? &s->ports[0] : NULL;
}

static void write_tcp_filter(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p)
{
    const struct cp_tcp_route *r = tcp_route_of(s, p->number);
    const char *name = cpc_q(k, cpc_cluster_name(k, p, str_n("", 0), s));
    if (!r) {
        cpc_tcp_proxy(k, b, name, name);
        return;
    }
    buf_printf(b, "{name: envoy.filters.network.tcp_proxy, typed_config: {'@type': "
                  "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: %s, weighted_clusters: {clusters: [",
               name);
    const char *sep = "";
    for (size_t i = 0; i < r->route_count; i++) {
        const struct cp_service *d = cp_find_service(k->c, r->routes[i].host, s->tcp->meta.ns);
        const struct cp_port *dp = d ? destination_port(d, r->routes[i].port, p) : NULL;
        if (dp && r->routes[i].weight) {
            buf_printf(b, "%s{name: %s, weight: %u}", sep, cpc_q(k, cpc_cluster_name(k, dp, r->routes[i].subset, d)), r->routes[i].weight);
            sep = ", ";
        }
    }
    buf_printf(b, "]}");
    cpc_access_log(k, b);
    buf_printf(b, "}}");
}

static int add_tcp_outbound(struct compiler *k, const struct cp_service *s, const struct cp_port *p)
{
    struct buf b = { 0 };
    struct addr vip;
    char name[ADDR_TEXT_MAX + 8], ip[ADDR_TEXT_MAX];
    bool has_vip = cpc_vip(s, &vip);
    if (has_vip) {
        snprintf(name, sizeof(name), "%s_%u", addr_ip_text(&vip, ip), p->number);
    } else {
        snprintf(ip, sizeof(ip), "%s", k->node->ip.family == AF_INET6 ? "::" : "0.0.0.0");
        snprintf(name, sizeof(name), "%s_%u", ip, p->number);
    }
    buf_printf(&b, "{name: '%s', address: {socket_address: {address: '%s', port_value: %u}}, bind_to_port: false, traffic_direction: OUTBOUND, "
                   "filter_chains: [{filters: [",
               name, ip, p->number);
    write_tcp_filter(k, &b, s, p);
    buf_printf(&b, "]}]}");
    return cpc_add(k, CP_LDS, arena_printf(&k->set->arena, "%s", name), &b);
}

static int add_outbound(struct compiler *k)
{
    for (size_t i = 0; i < k->c->service_count; i++) {
        const struct cp_service *s = &k->c->services[i];
        for (size_t p = 0; p < s->port_count; p++) {
            char name[64];
            const char *any = k->node->ip.family == AF_INET6 ? "::" : "0.0.0.0";
            snprintf(name, sizeof(name), "%s_%u", any, s->ports[p].number);
            struct addr vip;
            bool wild = s->ports[p].protocol == CP_HTTP || !cpc_vip(s, &vip);
            bool there = false; // not sorted yet: look through
            for (size_t x = 0; wild && x < k->set->n[CP_LDS] && !there; x++) {
                there = str_is(k->set->v[CP_LDS][x].name, name);
            }
            if (there) {
                continue; // one listener for all HTTP services of a port; the first TCP service without an address wins its port
            }
            if (s->ports[p].protocol == CP_HTTP ? add_http_outbound(k, s->ports[p].number) : add_tcp_outbound(k, s, &s->ports[p])) {
                return k->err->code;
            }
        }
    }
    return 0;
}

// ---- inbound ----

static void write_server_tls(struct compiler *k, struct buf *b, const char *alpn)
{
    buf_printf(b, ", transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': "
                  "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: true, "
                  "common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3, cipher_suites: "
                  "[ECDHE-ECDSA-AES256-GCM-SHA384, ECDHE-RSA-AES256-GCM-SHA384, ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA256, "
                  "AES256-GCM-SHA384, AES128-GCM-SHA256]}, tls_certificate_sds_secret_configs: [{name: default, " SDS_SELF "}], "
                  "combined_validation_context: {default_validation_context: {match_subject_alt_names: [{prefix: %s}]}, "
                  "validation_context_sds_secret_config: {name: ROOTCA, " SDS_SELF "}}, alpn_protocols: [%s]}}}",
               cpc_qf(k, "spiffe://%.*s/", STR_FMT(k->o->trust_domain)), alpn);
}

static void write_inbound_http(struct compiler *k, struct buf *b, uint16_t port, const char *cluster)
{
    buf_printf(b, "filters: [{name: envoy.filters.network.http_connection_manager, typed_config: {'@type': " HCM_URL ", stat_prefix: "
                  "'inbound_0.0.0.0_%u;', route_config: {name: '%s', validate_clusters: false, virtual_hosts: [{name: 'inbound|http|%u', domains: "
                  "['*'], routes: [{name: default, match: {prefix: /}, route: {cluster: '%s', timeout: 0s, max_stream_duration: "
                  "{max_stream_duration: 0s, grpc_timeout_header_max: 0s}, retry_policy: {retry_on: reset-before-request, num_retries: 2}}, "
                  "decorator: {operation: ':%u/*'}}]}]}, use_remote_address: false, normalize_path: true, merge_slashes: true, "
                  "path_with_escaped_slashes_action: KEEP_UNCHANGED, proxy_100_continue: true, stream_idle_timeout: 0s, server_name: istio-envoy, "
                  "forward_client_cert_details: APPEND_FORWARD, set_current_client_cert_details: {subject: true, dns: true, uri: true}, "
                  "upgrade_configs: [{upgrade_type: websocket}], http_filters: [" ROUTER "]",
               port, cluster, port, cluster, port);
    cpc_access_log(k, b);
    buf_printf(b, "}}]");
}

enum chain_kind { CHAIN_HTTP_MTLS, CHAIN_HTTP_PLAIN, CHAIN_TCP_MTLS, CHAIN_TCP_PLAIN, CHAIN_TCP_TLS_PASS, CHAIN_STRICT_HTTP, CHAIN_STRICT_TCP };

// One filter chain of virtualInbound. port 0: for destinations without a service.
static void write_chain(struct compiler *k, struct buf *b, enum chain_kind kind, uint16_t port, const char *cluster)
{
    static const char *const matches[] = {
        [CHAIN_HTTP_MTLS] = "transport_protocol: tls, application_protocols: [istio, istio-peer-exchange, istio-http/1.0, istio-http/1.1, istio-h2]",
        [CHAIN_HTTP_PLAIN] = "transport_protocol: raw_buffer",
        [CHAIN_TCP_MTLS] = "transport_protocol: tls, application_protocols: [istio-peer-exchange, istio]",
        [CHAIN_TCP_PLAIN] = "transport_protocol: raw_buffer",
        [CHAIN_TCP_TLS_PASS] = "transport_protocol: tls",
        [CHAIN_STRICT_HTTP] = "transport_protocol: tls",
        [CHAIN_STRICT_TCP] = "transport_protocol: tls",
    };
    bool http = kind == CHAIN_HTTP_MTLS || kind == CHAIN_HTTP_PLAIN || kind == CHAIN_STRICT_HTTP;
    bool tls = kind == CHAIN_HTTP_MTLS || kind == CHAIN_TCP_MTLS || kind == CHAIN_STRICT_HTTP || kind == CHAIN_STRICT_TCP;
    const char *match = matches[kind];
    if (!port && kind == CHAIN_HTTP_MTLS) { // "istio" alone is TCP where no service says otherwise
        match = "transport_protocol: tls, application_protocols: [istio-http/1.0, istio-http/1.1, istio-h2]";
    } else if (!port && kind == CHAIN_HTTP_PLAIN) {
        match = "transport_protocol: raw_buffer, application_protocols: [http/1.1, h2c]";
    }
    buf_printf(b, ", {filter_chain_match: {");
    if (port) {
        buf_printf(b, "destination_port: %u, ", port);
    }
    buf_printf(b, "%s}, name: ", match);
    if (port) {
        buf_printf(b, "'0.0.0.0_%u', ", port);
    } else {
        buf_printf(b, "%s, ", http ? "virtualInbound-catchall-http" : "virtualInbound");
    }
    if (http) {
        write_inbound_http(k, b, port, cluster);
    } else {
        buf_printf(b, "filters: [");
        cpc_tcp_proxy(k, b, cpc_q(k, str_c(cluster)), cpc_q(k, str_c(cluster)));
        buf_printf(b, "]");
    }
    if (tls) {
        write_server_tls(k, b, http ? "h2, http/1.1" : "istio-peer-exchange, h2, http/1.1");
    }
    buf_printf(b, "}");
}

static void write_port_chains(struct compiler *k, struct buf *b, const struct cpc_inbound *in)
{
    char cluster[64];
    bool http = in->protocol == CP_HTTP;
    snprintf(cluster, sizeof(cluster), "inbound|%u||", in->port);
    switch (cpc_mtls_mode(k, in->port)) {
    case CP_MTLS_STRICT:
        write_chain(k, b, http ? CHAIN_STRICT_HTTP : CHAIN_STRICT_TCP, in->port, cluster);
        break;
    case CP_MTLS_DISABLE:
        write_chain(k, b, http ? CHAIN_HTTP_PLAIN : CHAIN_TCP_PLAIN, in->port, cluster);
        break;
    default:
        write_chain(k, b, http ? CHAIN_HTTP_MTLS : CHAIN_TCP_MTLS, in->port, cluster);
        write_chain(k, b, http ? CHAIN_HTTP_PLAIN : CHAIN_TCP_PLAIN, in->port, cluster);
        if (!http) {
            write_chain(k, b, CHAIN_TCP_TLS_PASS, in->port, cluster);
        }
        break;
    }
}

static void write_catchall(struct compiler *k, struct buf *b)
{
    static const char name[] = "InboundPassthroughCluster";
    switch (cpc_mtls_mode(k, 0)) {
    case CP_MTLS_STRICT:
        write_chain(k, b, CHAIN_HTTP_MTLS, 0, name);
        write_chain(k, b, CHAIN_STRICT_TCP, 0, name);
        break;
    case CP_MTLS_DISABLE:
        write_chain(k, b, CHAIN_HTTP_PLAIN, 0, name);
        write_chain(k, b, CHAIN_TCP_PLAIN, 0, name);
        write_chain(k, b, CHAIN_TCP_TLS_PASS, 0, name);
        break;
    default:
        write_chain(k, b, CHAIN_HTTP_MTLS, 0, name);
        write_chain(k, b, CHAIN_HTTP_PLAIN, 0, name);
        write_chain(k, b, CHAIN_TCP_MTLS, 0, name);
        write_chain(k, b, CHAIN_TCP_PLAIN, 0, name);
        write_chain(k, b, CHAIN_TCP_TLS_PASS, 0, name);
        break;
    }
}

// http_inspector is needed for ports without a declared protocol only; it stays off for the declared ones, so that a server that speaks
// first is not waited for.
static void write_inspectors(struct buf *b, const struct cpc_inbound *v, size_t n, struct str timeout)
{
    buf_printf(b, "listener_filters: [" ORIGINAL_DST ", " TLS_INSPECTOR ", " HTTP_INSPECTOR);
    if (n == 1) {
        buf_printf(b, ", filter_disabled: {destination_port_range: {start: %u, end: %u}}", v[0].port, v[0].port + 1);
    } else if (n > 1) {
        buf_printf(b, ", filter_disabled: {or_match: {rules: [");
        for (size_t i = 0; i < n; i++) {
            buf_printf(b, "%s{destination_port_range: {start: %u, end: %u}}", i ? ", " : "", v[i].port, v[i].port + 1);
        }
        buf_printf(b, "]}}");
    }
    buf_printf(b, "}], listener_filters_timeout: %.*s, continue_on_listener_filters_timeout: true", STR_FMT(timeout));
}

static int add_virtual_inbound(struct compiler *k)
{
    struct buf b = { 0 };
    struct cpc_inbound *v;
    size_t n = cpc_inbound_ports(k, &v);
    buf_printf(&b, "{name: virtualInbound, address: {socket_address: {address: %s, port_value: %d}}, traffic_direction: INBOUND, ", wildcard(k),
               INBOUND_PORT);
    write_inspectors(&b, v, n, k->o->sniff_timeout);
    buf_printf(&b, ", filter_chains: [{filter_chain_match: {destination_port: %d}, name: virtualInbound-blackhole, filters: [", INBOUND_PORT);
    cpc_tcp_proxy(k, &b, "BlackHoleCluster", "BlackHoleCluster");
    buf_printf(&b, "]}");
    write_catchall(k, &b);
    for (size_t i = 0; i < n; i++) {
        write_port_chains(k, &b, &v[i]);
    }
    buf_printf(&b, "]}");
    free(v);
    return cpc_add(k, CP_LDS, STR("virtualInbound"), &b);
}

int cpc_listeners(struct compiler *k)
{
    return add_virtual_outbound(k) || add_virtual_inbound(k) || add_outbound(k) ? k->err->code : 0;
}
