// SPDX-License-Identifier: Apache-2.0
// How a cluster's connections are made: plain, the mesh's mutual TLS, TLS with files of the workload; a PROXY protocol header before them.
#include "control-plane/compile_int.h"

#define TLS_URL "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
#define TLS_PARAMS "tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}"
#define RAW_SOCKET                                                                                                                                     \
    "{name: envoy.transport_sockets.raw_buffer, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}"
// Files are read by the sidecar, and watched.
#define SDS_FILES "sds_config: {" CPC_SDS_SOURCE "}"

static bool account_seen(const struct cp_service *s, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (str_eq(s->endpoints[k].service_account, s->endpoints[i].service_account) && str_eq(s->endpoints[k].ns, s->endpoints[i].ns)) {
            return true;
        }
    }
    return false;
}

static void write_names(struct compiler *k, struct buf *b, const struct str *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s{exact: %s}", i ? ", " : "", cpc_q(k, names[i]));
    }
}

// The peers that may answer: names that the rule gives, or one per service account and those of the service. false: none is known.
static bool write_peer_names(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_tls *t)
{
    const char *sep = "";
    if (t && t->name_count) {
        write_names(k, b, t->names, t->name_count);
        return true;
    }
    for (size_t i = 0; i < s->endpoint_count; i++) {
        const struct cp_endpoint *e = &s->endpoints[i];
        for (size_t d = 0; e->service_account.n && !account_seen(s, i) && d < cpc_domain_count(k); d++) {
            buf_printf(b, "%s{exact: %s}", sep,
                       cpc_qf(k, "spiffe://%.*s/ns/%.*s/sa/%.*s", STR_FMT(cpc_domain(k, d)), STR_FMT(e->ns), STR_FMT(e->service_account)));
            sep = ", ";
        }
    }
    for (size_t i = 0; i < s->alt_name_count; i++) {
        buf_printf(b, "%s{exact: %s}", sep, cpc_q(k, s->alt_names[i]));
        sep = ", ";
    }
    return *sep;
}

static void write_mesh_names(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_tls *t)
{
    if (!write_peer_names(k, b, s, t)) { // at least a name of this mesh
        for (size_t d = 0; d < cpc_domain_count(k); d++) {
            buf_printf(b, "%s{prefix: %s}", d ? ", " : "", cpc_qf(k, "spiffe://%.*s/", STR_FMT(cpc_domain(k, d))));
        }
    }
}

static void write_mesh_tls(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p, struct str subset,
                           const struct cp_policy *policy)
{
    const struct cp_tls *t = policy->tls;
    buf_printf(b, "{name: envoy.transport_sockets.tls, typed_config: {'@type': " TLS_URL ", common_tls_context: {" TLS_PARAMS ", "
                  "tls_certificate_sds_secret_configs: [{name: default, " CPC_SDS_SELF "}], "
                  "combined_validation_context: {default_validation_context: {match_subject_alt_names: [");
    write_mesh_names(k, b, s, t);
    buf_printf(b, "]}, validation_context_sds_secret_config: {name: ROOTCA, " CPC_SDS_SELF "}}, alpn_protocols: [istio-peer-exchange, istio%s]}, "
                  "sni: %s}}",
               cpc_is_http2(p, policy) ? ", h2" : "",
               t && t->sni.n ? cpc_q(k, t->sni) : cpc_qf(k, "outbound_.%u_.%.*s_.%.*s", p->number, STR_FMT(subset), STR_FMT(s->host)));
}

static void write_file_tls(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p, const struct cp_policy *policy)
{
    const struct cp_tls *t = policy->tls;
    buf_printf(b, "{name: envoy.transport_sockets.tls, typed_config: {'@type': " TLS_URL ", common_tls_context: {" TLS_PARAMS);
    if (t->mode == CP_TLS_MUTUAL) {
        buf_printf(b, ", tls_certificate_sds_secret_configs: [{name: %s, " SDS_FILES "}]",
                   cpc_qf(k, "file-cert:%.*s~%.*s", STR_FMT(t->certificate), STR_FMT(t->key)));
    }
    if (t->skip_verify) {
        buf_printf(b, ", validation_context: {}");
    } else {
        buf_printf(b, ", combined_validation_context: {default_validation_context: {match_subject_alt_names: [");
        write_peer_names(k, b, s, t);
        buf_printf(b, "]");
        if (t->crl.n) {
            buf_printf(b, ", crl: {filename: %s}", cpc_q(k, t->crl));
        }
        buf_printf(b, "}, validation_context_sds_secret_config: {name: %s, " SDS_FILES "}}",
                   t->roots.n ? cpc_qf(k, "file-root:%.*s", STR_FMT(t->roots)) : "'file-root:system'");
    }
    if (cpc_is_http2(p, policy)) {
        buf_printf(b, ", alpn_protocols: [h2]");
    }
    buf_printf(b, "}");
    if (t->sni.n) {
        buf_printf(b, ", sni: %s", cpc_q(k, t->sni));
    }
    buf_printf(b, "}}");
}

void cpc_file_tls(struct compiler *k, struct buf *b, struct str host)
{
    buf_printf(b, ", transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': " TLS_URL ", common_tls_context: {" TLS_PARAMS
                  ", combined_validation_context: {default_validation_context: {match_subject_alt_names: [{exact: %s}]}, "
                  "validation_context_sds_secret_config: {name: 'file-root:system', " SDS_FILES "}}}",
               cpc_q(k, host));
    struct addr ip;
    if (!addr_parse_ip(host, 0, &ip)) { // an address is no server name (RFC 6066 §3)
        buf_printf(b, ", sni: %s", cpc_q(k, host));
    }
    buf_printf(b, "}}");
}

// A socket, or nothing for plain text where that is the default; wrapped when a PROXY protocol header comes first.
static void begin_socket(struct buf *b, const struct cp_policy *p)
{
    if (p->proxy_protocol) {
        buf_printf(b, "{name: envoy.transport_sockets.upstream_proxy_protocol, typed_config: {'@type': "
                      "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, config: {version: V%d}, "
                      "transport_socket: ",
                   p->proxy_protocol);
    }
}

static void end_socket(struct buf *b, const struct cp_policy *p)
{
    if (p->proxy_protocol) {
        buf_printf(b, "}}");
    }
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

// Mutual TLS to the endpoints whose label says that a sidecar is there, plain text to the others.
static void write_automatic(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p, struct str subset,
                            const struct cp_policy *policy)
{
    buf_printf(b, ", transport_socket_matches: [{name: tlsMode-istio, match: {tlsMode: istio}, transport_socket: ");
    begin_socket(b, policy);
    write_mesh_tls(k, b, s, p, subset, policy);
    end_socket(b, policy);
    buf_printf(b, "}, {name: tlsMode-disabled, match: {}, transport_socket: ");
    begin_socket(b, policy);
    buf_printf(b, RAW_SOCKET);
    end_socket(b, policy);
    buf_printf(b, "}]");
}

void cpc_transport(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p, struct str subset,
                   const struct cp_policy *policy, bool original_dst)
{
    const struct cp_tls *t = policy->tls;
    bool off = cpc_peer_mode(k, s->meta.ns, NULL, 0) == CP_MTLS_DISABLE;
    bool plain = t ? t->mode == CP_TLS_DISABLE : s->external || off || !has_mesh_endpoint(s);
    if (plain && !policy->proxy_protocol) {
        return;
    }
    if (!t && !plain && !original_dst) {
        write_automatic(k, b, s, p, subset, policy);
        return;
    }
    buf_printf(b, ", transport_socket: ");
    begin_socket(b, policy);
    if (plain) {
        buf_printf(b, RAW_SOCKET);
    } else if (t && t->mode != CP_TLS_ISTIO_MUTUAL) {
        write_file_tls(k, b, s, p, policy);
    } else {
        write_mesh_tls(k, b, s, p, subset, policy);
    }
    end_socket(b, policy);
}
