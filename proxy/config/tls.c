// SPDX-License-Identifier: Apache-2.0
// Transport sockets: extensions.transport_sockets.tls.v3 and raw_buffer → struct tls_cfg.
#include <string.h>

#include "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.pb-c.h"
#include "envoy/extensions/transport_sockets/tls/v3/tls.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"
#include "proxy/config/secrets.h"
#include "xds-client/xds_client.h"

typedef Envoy__Extensions__TransportSockets__Tls__V3__CommonTlsContext common_tls;
typedef Envoy__Extensions__TransportSockets__Tls__V3__CertificateValidationContext validation;
typedef Envoy__Extensions__TransportSockets__Tls__V3__SdsSecretConfig sds_config;
typedef Envoy__Extensions__TransportSockets__Tls__V3__DownstreamTlsContext server_tls;

enum { SANS_MAX = 4096, SNI_MAX = 255, ALPN_NAME_MAX = 255, SESSION_TIMEOUT_MAX_S = 7 * 24 * 3600 };

static struct str join(struct arena *a, char *const *v, size_t n)
{
    struct buf b = { 0 };
    for (size_t i = 0; i < n; i++) {
        buf_printf(&b, "%s%s", i ? ":" : "", v[i]);
    }
    size_t len = buf_len(&b);
    struct str s = arena_str(a, buf_pullup(&b, len));
    buf_clear(&b);
    return s;
}

static int build_params(const common_tls *c, struct arena *a, struct slot_params *p, struct err *err)
{
    const Envoy__Extensions__TransportSockets__Tls__V3__TlsParameters *t = c->tls_params;
    if (!t) {
        return 0;
    }
    if (CFG_KNOWN(t, err, "tls_minimum_protocol_version", "tls_maximum_protocol_version", "cipher_suites", "ecdh_curves")) {
        return cfg_in(err, "tls_params");
    }
    if ((unsigned)t->tls_minimum_protocol_version > TLS_V1_3 || (unsigned)t->tls_maximum_protocol_version > TLS_V1_3) {
        return cfg_fail(err, "tls_params", "a protocol version is unknown");
    }
    p->min_version = (enum tls_version)t->tls_minimum_protocol_version; // same numbers
    p->max_version = (enum tls_version)t->tls_maximum_protocol_version;
    p->ciphers = join(a, t->cipher_suites, t->n_cipher_suites);
    p->curves = join(a, t->ecdh_curves, t->n_ecdh_curves);
    return 0;
}

// The ALPN names that we can speak. "istio-peer-exchange" means a message ahead of the payload: it is kept only where the metadata exchange filter
// stands beside a TCP proxy. Upstream pools leave out what their protocol is not (pool_h1.c).
static int build_alpn(const common_tls *c, bool peer_exchange, struct arena *a, struct str **ret, size_t *ret_count, struct err *err)
{
    struct str *v = arena_array(a, struct str, c->n_alpn_protocols + 1);
    size_t n = 0;
    for (size_t i = 0; i < c->n_alpn_protocols; i++) {
        size_t len = strlen(c->alpn_protocols[i]);
        if (len == 0 || len > ALPN_NAME_MAX) {
            return cfg_fail(err, "common_tls_context.alpn_protocols", "entry %zu: a name has 1 to %d bytes", i, ALPN_NAME_MAX);
        }
        if (peer_exchange || strcmp(c->alpn_protocols[i], "istio-peer-exchange")) {
            v[n++] = build_str(a, c->alpn_protocols[i]);
        }
    }
    *ret = v;
    *ret_count = n;
    return 0;
}

static int build_san(const Envoy__Type__Matcher__V3__StringMatcher *m, enum san_type type, struct arena *a, struct san_matcher *ret,
                     struct err *err)
{
    static const enum san_match kinds[] = { [SM_EXACT] = SAN_EXACT, [SM_PREFIX] = SAN_PREFIX, [SM_SUFFIX] = SAN_SUFFIX,
                                            [SM_CONTAINS] = SAN_CONTAINS };
    struct string_matcher s;
    if (build_string_matcher(m, a, &s, err)) {
        return err->code;
    }
    if (s.kind == SM_REGEX) {
        return cfg_fail(err, "safe_regex", "regular expressions over certificate names are not supported yet");
    }
    *ret = (struct san_matcher){ .type = type, .match = kinds[s.kind], .ignore_case = s.ignore_case, .value = s.value };
    return 0;
}

static int build_sans(const validation *v, struct arena *a, struct tls_cfg *t, struct err *err)
{
    static const enum san_type types[] = { SAN_ANY, SAN_EMAIL, SAN_DNS, SAN_URI, SAN_IP };
    size_t n = v->n_match_subject_alt_names + v->n_match_typed_subject_alt_names;
    if (n > SANS_MAX) {
        return cfg_fail(err, "match_typed_subject_alt_names", "%zu entries, at most %d", n, SANS_MAX);
    }
    t->sans = arena_array(a, struct san_matcher, n + 1);
    for (size_t i = 0; i < v->n_match_subject_alt_names; i++) {
        if (build_san(v->match_subject_alt_names[i], SAN_ANY, a, &t->sans[t->san_count++], err)) {
            return cfg_in(err, "match_subject_alt_names[%zu]", i);
        }
    }
    for (size_t i = 0; i < v->n_match_typed_subject_alt_names; i++) {
        const Envoy__Extensions__TransportSockets__Tls__V3__SubjectAltNameMatcher *m = v->match_typed_subject_alt_names[i];
        if (m->oid[0]) {
            return cfg_fail(err, "match_typed_subject_alt_names", "entry %zu: oid is not supported", i);
        }
        if (m->san_type == ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__SAN_TYPE_UNSPECIFIED ||
            (size_t)m->san_type >= sizeof(types) / sizeof(types[0]) || !m->matcher) {
            return cfg_fail(err, "match_typed_subject_alt_names", "entry %zu: san_type and matcher are needed, OTHER_NAME is not supported", i);
        }
        if (build_san(m->matcher, types[m->san_type], a, &t->sans[t->san_count++], err)) {
            return cfg_in(err, "match_typed_subject_alt_names[%zu].matcher", i);
        }
    }
    return 0;
}

// A data source that is there but empty would pass for none: no roots, nobody verified.
static int build_pem(const Envoy__Config__Core__V3__DataSource *m, struct arena *a, struct str *ret, struct err *err)
{
    if (build_data_source(m, a, ret, err)) {
        return err->code;
    }
    return m && !ret->n ? cfg_fail(err, "specifier", "there is nothing in it") : 0;
}

static int build_validation(const validation *v, struct config_ctx *ctx, struct slot_params *p, struct tls_cfg *t, struct err *err)
{
    if (!v) {
        return 0;
    }
    if (CFG_KNOWN(v, err, "trusted_ca", "system_root_certs", "match_subject_alt_names", "match_typed_subject_alt_names", "crl",
                  "trust_chain_verification")) {
        return err->code;
    }
    if (build_pem(v->trusted_ca, ctx->scratch, &p->ca_pem, err)) {
        return cfg_in(err, "trusted_ca");
    }
    if (v->system_root_certs) {
        p->ca_name = STR("file-root:system");
    }
    if (build_pem(v->crl, ctx->scratch, &p->crl_pem, err)) {
        return cfg_in(err, "crl");
    }
    return build_sans(v, ctx->arena, t, err);
}

// Name and source of a secret. Without a source it is a static one of the bootstrap.
static int build_sds(struct config_ctx *ctx, const sds_config *s, struct str *ret_name, bool *ret_xds, struct err *err)
{
    if (!s->name[0]) {
        return cfg_fail(err, "name", "missing");
    }
    *ret_name = build_str(ctx->scratch, s->name);
    *ret_xds = false;
    if (!s->sds_config && !secret_known(ctx->secrets, *ret_name)) {
        return cfg_fail(err, "name", "there is no static secret \"%s\", and no sds_config to ask", s->name);
    }
    return s->sds_config && build_config_source(ctx, s->sds_config, XDS_SECRET, ret_xds, err) ? cfg_in(err, "sds_config") : 0;
}

static int build_certificates(const common_tls *c, struct config_ctx *ctx, struct slot_params *p, bool *ret_xds, struct err *err)
{
    if (c->n_tls_certificates + c->n_tls_certificate_sds_secret_configs > 1) {
        return cfg_fail(err, "tls_certificates", "more than one certificate is not supported yet");
    }
    if (c->n_tls_certificate_sds_secret_configs) {
        return build_sds(ctx, c->tls_certificate_sds_secret_configs[0], &p->cert_name, ret_xds, err)
                   ? cfg_in(err, "tls_certificate_sds_secret_configs[0]")
                   : 0;
    }
    if (!c->n_tls_certificates) {
        return 0;
    }
    const Envoy__Extensions__TransportSockets__Tls__V3__TlsCertificate *t = c->tls_certificates[0];
    if (CFG_KNOWN(t, err, "certificate_chain", "private_key")) {
        return cfg_in(err, "tls_certificates[0]");
    }
    if (!t->certificate_chain || !t->private_key) {
        return cfg_fail(err, "tls_certificates", "entry 0: certificate_chain and private_key are both needed");
    }
    if (build_pem(t->certificate_chain, ctx->scratch, &p->cert_pem, err)) {
        return cfg_in(err, "tls_certificates[0].certificate_chain");
    }
    return build_pem(t->private_key, ctx->scratch, &p->key_pem, err) ? cfg_in(err, "tls_certificates[0].private_key") : 0;
}

static int build_roots(const common_tls *c, struct config_ctx *ctx, struct slot_params *p, struct tls_cfg *t, bool *ret_xds, struct err *err)
{
    const validation *v = NULL;
    const sds_config *sds = NULL;
    const char *field = "validation_context", *sds_field = "validation_context_sds_secret_config";
    switch (c->validation_context_type_case) {
    case ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT:
        v = c->validation_context;
        break;
    case ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT_SDS_SECRET_CONFIG:
        sds = c->validation_context_sds_secret_config;
        break;
    case ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_COMBINED_VALIDATION_CONTEXT:
        if (CFG_KNOWN(c->combined_validation_context, err, "default_validation_context", "validation_context_sds_secret_config")) {
            return cfg_in(err, "combined_validation_context");
        }
        if (!c->combined_validation_context->default_validation_context || !c->combined_validation_context->validation_context_sds_secret_config) {
            return cfg_fail(err, "combined_validation_context", "default_validation_context and validation_context_sds_secret_config are both needed");
        }
        v = c->combined_validation_context->default_validation_context;
        sds = c->combined_validation_context->validation_context_sds_secret_config;
        field = "combined_validation_context.default_validation_context";
        sds_field = "combined_validation_context.validation_context_sds_secret_config";
        break;
    default:
        return 0;
    }
    if (build_validation(v, ctx, p, t, err)) {
        return cfg_in(err, "%s", field);
    }
    if (sds) {
        if (build_sds(ctx, sds, &p->ca_name, ret_xds, err)) {
            return cfg_in(err, "%s", sds_field);
        }
    }
    bool untrusted = v && v->trust_chain_verification ==
                              ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__CERTIFICATE_VALIDATION_CONTEXT__TRUST_CHAIN_VERIFICATION__ACCEPT_UNTRUSTED;
    p->verify_peer = !untrusted && (p->ca_pem.n || p->ca_name.n);
    if (t->san_count && !p->verify_peer) {
        return cfg_fail(err, field, "names to match without trusted_ca: a peer could claim any name");
    }
    return 0;
}

static void drop_slot(void *slot)
{
    tls_slot_unref(slot);
}

static int build_common(struct config_ctx *ctx, const common_tls *c, bool server, struct tls_policy policy, struct tls_cfg *t, struct err *err)
{
    struct slot_params p = { .server = server, .require_peer_cert = server && t->require_client_cert, .policy = policy };
    bool cert_xds = false, ca_xds = false;
    struct str *alpn = NULL;
    size_t alpn_count = 0;
    if (CFG_KNOWN(c, err, "tls_params", "tls_certificates", "tls_certificate_sds_secret_configs", "validation_context",
                  "validation_context_sds_secret_config", "combined_validation_context", "alpn_protocols") ||
        build_params(c, ctx->scratch, &p, err) || build_certificates(c, ctx, &p, &cert_xds, err) ||
        build_roots(c, ctx, &p, t, &ca_xds, err)) {
        return cfg_in(err, "common_tls_context");
    }
    if (build_alpn(c, ctx->peer_exchange, ctx->arena, &alpn, &alpn_count, err)) {
        return err->code;
    }
    if (server) {
        p.alpn = alpn;
        p.alpn_count = alpn_count;
        if (t->require_client_cert && !p.verify_peer) {
            return cfg_fail(err, "require_client_certificate", "needs a validation context with trusted_ca");
        }
        if (!p.cert_pem.n && !p.cert_name.n) {
            return cfg_fail(err, "common_tls_context.tls_certificates", "a server needs a certificate");
        }
    } else {
        t->alpn = alpn;
        t->alpn_count = alpn_count;
    }
    if (secret_slot_get(ctx->secrets, &p, cert_xds, ca_xds, &t->slot, err)) {
        char reason[ERR_MSG_MAX];
        memcpy(reason, err->msg, sizeof(reason));
        return cfg_fail(err, "common_tls_context", "%.900s", reason);
    }
    arena_on_free(ctx->arena, drop_slot, t->slot);
    config_ctx_add_slot(ctx, t->slot);
    return 0;
}

static int build_server_policy(const server_tls *m, struct tls_policy *y, struct err *err)
{
    // Without a staple of our own (TlsCertificate.ocsp_staple is refused) LENIENT and STRICT mean the same.
    if (m->ocsp_staple_policy == ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__DOWNSTREAM_TLS_CONTEXT__OCSP_STAPLE_POLICY__MUST_STAPLE) {
        return cfg_fail(err, "ocsp_staple_policy", "MUST_STAPLE is not supported: OCSP responses are not stapled");
    }
    int64_t s = m->session_timeout ? m->session_timeout->seconds : 0;
    s = s > SESSION_TIMEOUT_MAX_S ? SESSION_TIMEOUT_MAX_S : s; // RFC 8446 §4.6.1 has no longer one
    y->session_s = m->session_timeout && s == 0 && m->session_timeout->nanos ? 1 : (uint32_t)s;
    y->no_tickets = m->session_ticket_keys_type_case ==
                        ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__DOWNSTREAM_TLS_CONTEXT__SESSION_TICKET_KEYS_TYPE_DISABLE_STATELESS_SESSION_RESUMPTION &&
                    m->disable_stateless_session_resumption;
    y->no_session_ids = m->disable_stateful_session_resumption;
    y->client_order = m->prefer_client_ciphers;
    return 0;
}

static int build_downstream(struct config_ctx *ctx, const server_tls *m, struct tls_cfg *t, struct err *err)
{
    struct tls_policy policy = { 0 };
    if (CFG_KNOWN(m, err, "common_tls_context", "require_client_certificate", "disable_stateless_session_resumption",
                  "disable_stateful_session_resumption", "session_timeout", "ocsp_staple_policy", "prefer_client_ciphers")) {
        return err->code;
    }
    t->require_client_cert = pb_bool_or(m->require_client_certificate, false);
    if (!m->common_tls_context) {
        return cfg_fail(err, "common_tls_context", "missing");
    }
    if (build_server_policy(m, &policy, err)) {
        return err->code;
    }
    return build_common(ctx, m->common_tls_context, true, policy, t, err);
}

static int build_upstream(struct config_ctx *ctx, const Envoy__Extensions__TransportSockets__Tls__V3__UpstreamTlsContext *m,
                          struct tls_cfg *t, struct err *err)
{
    static const common_tls empty = ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__COMMON_TLS_CONTEXT__INIT;
    if (CFG_KNOWN(m, err, "common_tls_context", "sni", "max_session_keys", "enforce_rsa_key_usage")) {
        return err->code;
    }
    if (strlen(m->sni) > SNI_MAX) {
        return cfg_fail(err, "sni", "%zu bytes, at most %d", strlen(m->sni), SNI_MAX);
    }
    struct tls_policy policy = { .no_resumption = m->max_session_keys && m->max_session_keys->value == 0,
                                 .rsa_usage = pb_bool_or(m->enforce_rsa_key_usage, false) };
    t->sni = build_str(ctx->arena, m->sni);
    return build_common(ctx, m->common_tls_context ? m->common_tls_context : &empty, false, policy, t, err);
}

int build_transport_socket(struct config_ctx *ctx, const Envoy__Config__Core__V3__TransportSocket *m, bool server, struct tls_cfg **ret,
                           struct err *err)
{
    if (!m) {
        *ret = NULL;
        return 0;
    }
    if (m->config_type_case != ENVOY__CONFIG__CORE__V3__TRANSPORT_SOCKET__CONFIG_TYPE_TYPED_CONFIG) {
        if (!strcmp(m->name, "envoy.transport_sockets.raw_buffer")) {
            *ret = NULL;
            return 0;
        }
        return cfg_fail(err, "transport_socket.typed_config", "missing");
    }
    ProtobufCMessage *cfg = NULL;
    struct err e = { 0 };
    if (pb_any_unpack_whole(m->typed_config, NULL, NULL, ctx->scratch, &cfg, &e)) {
        return cfg_fail(err, "transport_socket.typed_config", "%.900s", e.msg);
    }
    if (cfg->descriptor == &envoy__extensions__transport_sockets__raw_buffer__v3__raw_buffer__descriptor) {
        *ret = NULL;
        return 0;
    }
    const ProtobufCMessageDescriptor *want = server ? &envoy__extensions__transport_sockets__tls__v3__downstream_tls_context__descriptor
                                                    : &envoy__extensions__transport_sockets__tls__v3__upstream_tls_context__descriptor;
    if (cfg->descriptor != want) {
        return cfg_fail(err, "transport_socket.typed_config", "type %s is not supported here", cfg->descriptor->name);
    }
    struct tls_cfg *t = arena_new(ctx->arena, struct tls_cfg);
    int rc = server ? build_downstream(ctx, (const void *)cfg, t, err) : build_upstream(ctx, (const void *)cfg, t, err);
    if (rc) {
        return cfg_in(err, "transport_socket.typed_config");
    }
    *ret = t;
    return 0;
}
