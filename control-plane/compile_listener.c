// SPDX-License-Identifier: Apache-2.0
// The two listeners that bind: virtualOutbound (15001) and virtualInbound (15006).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control-plane/compile_int.h"

#define ORIGINAL_DST "{name: envoy.filters.listener.original_dst, typed_config: {'@type': "                                                            \
                     "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}"

enum { OUTBOUND_PORT = 15001, INBOUND_PORT = 15006 };

const char *cpc_wildcard(const struct compiler *k)
{
    return k->node->ip.family == AF_INET6 ? "'::'" : "0.0.0.0";
}

const char *cpc_passthrough(const struct compiler *k)
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
               cpc_wildcard(k), OUTBOUND_PORT, OUTBOUND_PORT);
    cpc_tcp_proxy(k, &b, "BlackHoleCluster", "BlackHoleCluster");
    buf_printf(&b, "]}, {name: virtualOutbound-catchall-tcp, filters: [");
    cpc_tcp_proxy(k, &b, cpc_passthrough(k), cpc_passthrough(k));
    buf_printf(&b, "]}]}");
    return cpc_add(k, CP_LDS, STR("virtualOutbound"), &b);
}

// ---- inbound ----

static void write_server_tls(struct compiler *k, struct buf *b, const char *alpn)
{
    buf_printf(b, ", transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': "
                  "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: true, "
                  "common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3, cipher_suites: "
                  "[ECDHE-ECDSA-AES256-GCM-SHA384, ECDHE-RSA-AES256-GCM-SHA384, ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA256, "
                  "AES256-GCM-SHA384, AES128-GCM-SHA256]}, tls_certificate_sds_secret_configs: [{name: default, " CPC_SDS_SELF "}], "
                  "combined_validation_context: {default_validation_context: {match_subject_alt_names: [");
    for (size_t i = 0; i < cpc_domain_count(k); i++) {
        buf_printf(b, "%s{prefix: %s}", i ? ", " : "", cpc_qf(k, "spiffe://%.*s/", STR_FMT(cpc_domain(k, i))));
    }
    buf_printf(b, "]}, validation_context_sds_secret_config: {name: ROOTCA, " CPC_SDS_SELF "}}, alpn_protocols: [%s]}}}", alpn);
}

static void write_inbound_http(struct compiler *k, struct buf *b, uint16_t port, const char *cluster)
{
    buf_printf(b, "filters: [{name: envoy.filters.network.http_connection_manager, typed_config: {'@type': " CPC_HCM_URL ", stat_prefix: "
                  "'inbound_0.0.0.0_%u;', route_config: {name: '%s', validate_clusters: false, virtual_hosts: [{name: 'inbound|http|%u', domains: "
                  "['*'], routes: [{name: default, match: {prefix: /}, route: {cluster: '%s', timeout: 0s, max_stream_duration: "
                  "{max_stream_duration: 0s, grpc_timeout_header_max: 0s}, retry_policy: {retry_on: reset-before-request, num_retries: 2}}, "
                  "decorator: {operation: ':%u/*'}}]}]}, use_remote_address: false, normalize_path: true, merge_slashes: true, "
                  "path_with_escaped_slashes_action: KEEP_UNCHANGED, proxy_100_continue: true, stream_idle_timeout: 0s, server_name: istio-envoy, "
                  "forward_client_cert_details: APPEND_FORWARD, set_current_client_cert_details: {subject: true, dns: true, uri: true}, "
                  "upgrade_configs: [{upgrade_type: websocket}], http_filters: [%.*s" CPC_ROUTER "]",
               port, cluster, port, cluster, port, STR_FMT(k->http_policy));
    cpc_access_log(k, b);
    buf_printf(b, "}}]");
}

// What of a port's first bytes must be looked at, for its chains to be told apart. port 0: all that have no chains of their own.
struct cpc_port_needs {
    uint16_t port;
    bool tls, http;
};

static void note_needs(struct compiler *k, uint16_t port, bool tls, bool http)
{
    size_t i = 0;
    while (i < k->need_count && k->needs[i].port < port) {
        i++;
    }
    if (i == k->need_count || k->needs[i].port != port) { // in order of ports; there is room for all
        memmove(&k->needs[i + 1], &k->needs[i], (k->need_count++ - i) * sizeof(*k->needs));
        k->needs[i] = (struct cpc_port_needs){ .port = port };
    }
    k->needs[i].tls |= tls;
    k->needs[i].http |= http;
}

enum chain_kind { CHAIN_HTTP_MTLS, CHAIN_HTTP_PLAIN, CHAIN_TCP_MTLS, CHAIN_TCP_PLAIN, CHAIN_TCP_TLS_PASS, CHAIN_STRICT_HTTP, CHAIN_STRICT_TCP };

// One filter chain of virtualInbound. port 0: for destinations without a service. sniff: HTTP and TCP come to the same port.
static void write_chain(struct compiler *k, struct buf *b, enum chain_kind kind, uint16_t port, bool sniff, const char *cluster)
{
    static const char *const matches[] = {
        [CHAIN_HTTP_MTLS] = "transport_protocol: tls, application_protocols: [istio, istio-peer-exchange, istio-http/1.0, istio-http/1.1, istio-h2]",
        [CHAIN_HTTP_PLAIN] = "transport_protocol: raw_buffer",
        [CHAIN_TCP_MTLS] = "transport_protocol: tls, application_protocols: [istio, istio-peer-exchange, istio-http/1.0, istio-http/1.1, istio-h2]",
        [CHAIN_TCP_PLAIN] = "transport_protocol: raw_buffer",
        [CHAIN_TCP_TLS_PASS] = "transport_protocol: tls",
        [CHAIN_STRICT_HTTP] = "transport_protocol: tls",
        [CHAIN_STRICT_TCP] = "transport_protocol: tls",
    };
    bool http = kind == CHAIN_HTTP_MTLS || kind == CHAIN_HTTP_PLAIN || kind == CHAIN_STRICT_HTTP;
    bool tls = kind == CHAIN_HTTP_MTLS || kind == CHAIN_TCP_MTLS || kind == CHAIN_STRICT_HTTP || kind == CHAIN_STRICT_TCP;
    const char *match = matches[kind];
    if (sniff && kind == CHAIN_TCP_MTLS) {
        match = "transport_protocol: tls, application_protocols: [istio-peer-exchange, istio]";
    } else if (sniff && kind == CHAIN_HTTP_MTLS) { // "istio" alone is TCP where no service says otherwise
        match = "transport_protocol: tls, application_protocols: [istio-http/1.0, istio-http/1.1, istio-h2]";
    } else if (sniff && kind == CHAIN_HTTP_PLAIN) {
        match = "transport_protocol: raw_buffer, application_protocols: [http/1.1, h2c]";
    }
    note_needs(k, port, tls || kind == CHAIN_TCP_TLS_PASS, sniff && kind == CHAIN_HTTP_PLAIN);
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
        buf_printf(b, "filters: [%.*s", STR_FMT(k->tcp_policy));
        cpc_tcp_proxy(k, b, cpc_q(k, str_c(cluster)), cpc_q(k, str_c(cluster)));
        buf_printf(b, "]");
    }
    if (tls) {
        write_server_tls(k, b, http ? "h2, http/1.1" : "istio-peer-exchange, h2, http/1.1");
    }
    buf_printf(b, "}");
}

// Chains of a port, or of all that has none of its own (0), where each connection shows whether it is HTTP.
static void write_sniffing_chains(struct compiler *k, struct buf *b, uint16_t port, const char *cluster)
{
    switch (cpc_mtls_mode(k, port)) {
    case CP_MTLS_STRICT:
        write_chain(k, b, CHAIN_HTTP_MTLS, port, true, cluster);
        write_chain(k, b, CHAIN_STRICT_TCP, port, true, cluster);
        break;
    case CP_MTLS_DISABLE:
        write_chain(k, b, CHAIN_HTTP_PLAIN, port, true, cluster);
        write_chain(k, b, CHAIN_TCP_PLAIN, port, true, cluster);
        break;
    default:
        write_chain(k, b, CHAIN_HTTP_MTLS, port, true, cluster);
        write_chain(k, b, CHAIN_HTTP_PLAIN, port, true, cluster);
        write_chain(k, b, CHAIN_TCP_MTLS, port, true, cluster);
        write_chain(k, b, CHAIN_TCP_PLAIN, port, true, cluster);
        write_chain(k, b, CHAIN_TCP_TLS_PASS, port, true, cluster);
        break;
    }
}

static void write_port_chains(struct compiler *k, struct buf *b, const struct cpc_inbound *in)
{
    char cluster[64];
    bool http = in->protocol == CP_HTTP;
    snprintf(cluster, sizeof(cluster), "inbound|%u||", in->port);
    if (in->service_port->sniff) {
        write_sniffing_chains(k, b, in->port, cluster);
        return;
    }
    switch (cpc_mtls_mode(k, in->port)) {
    case CP_MTLS_STRICT:
        write_chain(k, b, http ? CHAIN_STRICT_HTTP : CHAIN_STRICT_TCP, in->port, false, cluster);
        break;
    case CP_MTLS_DISABLE:
        write_chain(k, b, http ? CHAIN_HTTP_PLAIN : CHAIN_TCP_PLAIN, in->port, false, cluster);
        break;
    default:
        write_chain(k, b, http ? CHAIN_HTTP_MTLS : CHAIN_TCP_MTLS, in->port, false, cluster);
        write_chain(k, b, http ? CHAIN_HTTP_PLAIN : CHAIN_TCP_PLAIN, in->port, false, cluster);
        if (!http) {
            write_chain(k, b, CHAIN_TCP_TLS_PASS, in->port, false, cluster);
        }
        break;
    }
}

// Ports that a PeerAuthentication names and no service has: what comes there is passed on under the port's own mode.
static void write_bare_ports(struct compiler *k, struct buf *b, const struct cpc_inbound *v, size_t n)
{
    const struct cp_peer_authentication *own = cpc_workload_peer_policy(k);
    for (size_t i = 0; own && i < own->port_count; i++) {
        bool known = own->ports[i].port == INBOUND_PORT;
        for (size_t x = 0; x < n && !known; x++) {
            known = v[x].port == own->ports[i].port;
        }
        if (!known) {
            write_sniffing_chains(k, b, own->ports[i].port, "InboundPassthroughCluster");
        }
    }
}

// ", filter_disabled: …" for the ports, or for all but them.
static void write_disabled(struct buf *b, const uint16_t *ports, size_t n, bool but)
{
    if (!n) {
        return;
    }
    buf_printf(b, ", filter_disabled: %s%s", but ? "{not_match: " : "", n > 1 ? "{or_match: {rules: [" : "");
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s{destination_port_range: {start: %u, end: %u}}", i ? ", " : "", ports[i], ports[i] + 1);
    }
    buf_printf(b, "%s%s", n > 1 ? "]}}" : "", but ? "}" : "");
}

// An inspector is off where no chain of a port asks for what it finds, so that a server that speaks first is not waited for.
static void write_inspectors(struct compiler *k, struct buf *b)
{
    uint16_t *ports = arena_array(&k->work, uint16_t, k->need_count + 1);
    bool tls = false, http = false;
    size_t n = 0;
    for (size_t i = 0; i < k->need_count; i++) {
        tls |= k->needs[i].tls;
        http |= k->needs[i].http;
    }
    buf_printf(b, "listener_filters: [" ORIGINAL_DST);
    if (tls) {
        bool all = k->needs[0].tls; // needs[0] is port 0
        for (size_t i = 1; i < k->need_count; i++) {
            ports[n] = k->needs[i].port;
            n += k->needs[i].tls != all;
        }
        buf_printf(b, ", " CPC_TLS_INSPECTOR_OPEN);
        write_disabled(b, ports, n, !all);
        buf_printf(b, "}");
    }
    n = 0;
    for (size_t i = 0; http && i < k->need_count; i++) {
        ports[n] = k->needs[i].port;
        n += !k->needs[i].http;
    }
    if (http) {
        buf_printf(b, ", " CPC_HTTP_INSPECTOR);
        write_disabled(b, ports, n, false);
        buf_printf(b, "}");
    }
    buf_printf(b, "], listener_filters_timeout: %.*s, continue_on_listener_filters_timeout: true", STR_FMT(k->o->sniff_timeout));
}

static int add_virtual_inbound(struct compiler *k)
{
    struct buf b = { 0 }, chains = { 0 };
    struct cpc_inbound *v;
    size_t n = cpc_inbound_ports(k, &v);
    const struct cp_peer_authentication *own = cpc_workload_peer_policy(k);
    k->needs = arena_array(&k->work, struct cpc_port_needs, n + (own ? own->port_count : 0) + 2);
    cpc_policy_filters(k);
    note_needs(k, INBOUND_PORT, false, false);
    write_sniffing_chains(k, &chains, 0, "InboundPassthroughCluster");
    for (size_t i = 0; i < n; i++) {
        write_port_chains(k, &chains, &v[i]);
    }
    write_bare_ports(k, &chains, v, n);
    buf_printf(&b, "{name: virtualInbound, address: {socket_address: {address: %s, port_value: %d}}, traffic_direction: INBOUND, ", cpc_wildcard(k),
               INBOUND_PORT);
    write_inspectors(k, &b);
    buf_printf(&b, ", filter_chains: [{filter_chain_match: {destination_port: %d}, name: virtualInbound-blackhole, filters: [", INBOUND_PORT);
    cpc_tcp_proxy(k, &b, "BlackHoleCluster", "BlackHoleCluster");
    buf_printf(&b, "]}");
    buf_move(&b, &chains, buf_len(&chains));
    buf_printf(&b, "]}");
    free(v);
    return cpc_add(k, CP_LDS, STR("virtualInbound"), &b);
}

int cpc_listeners(struct compiler *k)
{
    return add_virtual_outbound(k) || add_virtual_inbound(k) || cpc_outbound_listeners(k) ? k->err->code : 0;
}
