// SPDX-License-Identifier: Apache-2.0
#include "lib/tls/tls_ctx.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include "lib/base/mem.h"
#include "lib/base/scope.h"
#include "lib/tls/ossl.h"
#include "lib/tls/tls_int.h"

enum {
    SESSION_TTL_S = 3600,
    TICKETS_PER_HANDSHAKE = 1, // a client of ours keeps one
    ALPN_TOTAL_MAX = 65535,
};

// What Istio sets for mesh traffic; TLS 1.3 adds its own (below).
#define DEFAULT_CIPHERS                                                                                                \
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:"                         \
    "ECDHE-RSA-AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-GCM-SHA256"
// AES-128 first: as good, and cheaper both per byte and in the key schedule (SHA-256).
#define TLS13_CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define DEFAULT_CURVES "X25519:P-256:P-384"

static _Atomic size_t live;
static _Atomic uint64_t next_serial = 1;

static int load_chain(SSL_CTX *s, struct str pem, char **ret_uri, struct err *err)
{
    ossl_scope_bio *b = ossl_bio(pem);
    bool broken = false;
    ossl_scope_x509 *leaf = b ? ossl_read_cert(b, &broken) : NULL;
    if (!leaf) {
        return err_set(err, -EINVAL, "certificate chain: no valid PEM certificate");
    }
    if (SSL_CTX_use_certificate(s, leaf) != 1) {
        return ossl_err(err, -EINVAL, "certificate chain");
    }
    for (int i = 2;; i++) {
        ossl_scope_x509 *c = ossl_read_cert(b, &broken);
        if (broken) {
            return err_set(err, -EINVAL, "certificate chain: certificate %d is not valid PEM", i);
        }
        if (!c) {
            break;
        }
        if (SSL_CTX_add1_chain_cert(s, c) != 1) {
            return ossl_err(err, -EINVAL, "certificate chain");
        }
    }
    struct arena a = { 0 };
    struct san *names;
    size_t n;
    if (ossl_names(leaf, &a, &names, &n)) {
        for (size_t i = 0; i < n && !*ret_uri; i++) {
            *ret_uri = names[i].type == SAN_URI ? str_dup(names[i].value) : NULL;
        }
    }
    arena_fini(&a);
    return 0;
}

static int load_key(SSL_CTX *s, struct str pem, struct err *err)
{
    ossl_scope_pkey *k = ossl_read_key(pem, err);
    if (!k) {
        return -EINVAL;
    }
    if (SSL_CTX_use_PrivateKey(s, k) != 1 || SSL_CTX_check_private_key(s) != 1) {
        return ossl_err(err, -EINVAL, "private key does not belong to the certificate");
    }
    return 0;
}

static int load_roots(struct tls_ctx *c, struct str pem, struct err *err)
{
    ossl_scope_bio *b = ossl_bio(pem);
    X509_STORE *store = SSL_CTX_get_cert_store(c->ssl);
    bool broken = false;
    int n = 0;
    while (b && n < OSSL_PEM_CERTS_MAX) {
        ossl_scope_x509 *x = ossl_read_cert(b, &broken);
        if (!x) {
            break;
        }
        if (X509_STORE_add_cert(store, x) != 1 || (c->server && SSL_CTX_add_client_CA(c->ssl, x) != 1)) {
            return ossl_err(err, -EINVAL, "trusted roots");
        }
        (void)X509_check_purpose(x, -1, 0); // fills its caches now rather than in the first handshakes of several workers at once
        n++;
    }
    if (broken) {
        return err_set(err, -EINVAL, "trusted roots: certificate %d is not valid PEM", n + 1);
    }
    if (n == 0) {
        return err_set(err, -EINVAL, "trusted roots: no PEM certificate found");
    }
    // A configured intermediate is trusted as it stands.
    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
    return 0;
}

static int load_crls(struct tls_ctx *c, struct str pem, struct err *err)
{
    ossl_scope_bio *b = ossl_bio(pem);
    X509_STORE *store = SSL_CTX_get_cert_store(c->ssl);
    int n = 0;
    X509_CRL *crl;
    while (b && (crl = PEM_read_bio_X509_CRL(b, NULL, NULL, (void *)"")) != NULL) {
        int ok = X509_STORE_add_crl(store, crl);
        X509_CRL_free(crl);
        if (ok != 1) {
            return ossl_err(err, -EINVAL, "revocation list");
        }
        n++;
    }
    unsigned long e = ERR_peek_last_error();
    bool at_end = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    if (!at_end || n == 0) {
        return err_set(err, -EINVAL, "revocation list: list %d is not valid PEM", n + 1);
    }
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    c->has_crl = true;
    return 0;
}

static int version_number(enum tls_version v, int automatic)
{
    static const int numbers[] = { [TLS_V1_0] = TLS1_VERSION, [TLS_V1_1] = TLS1_1_VERSION, [TLS_V1_2] = TLS1_2_VERSION, [TLS_V1_3] = TLS1_3_VERSION };
    return v == TLS_VERSION_AUTO ? automatic : numbers[v];
}

static int set_versions(SSL_CTX *s, const struct tls_ctx_params *p, struct err *err)
{
    int lo = version_number(p->min_version, TLS1_2_VERSION), hi = version_number(p->max_version, TLS1_3_VERSION);
    if (p->min_version == TLS_VERSION_AUTO && hi < lo) {
        lo = hi;
    }
    if (lo > hi) {
        return err_set(err, -EINVAL, "TLS versions: the minimum is above the maximum");
    }
    if (lo < TLS1_2_VERSION) {
        SSL_CTX_set_security_level(s, 0); // their handshake signs with SHA-1, which level 1 refuses
    }
    if (!SSL_CTX_set_min_proto_version(s, lo) || !SSL_CTX_set_max_proto_version(s, hi)) {
        return ossl_err(err, -EINVAL, "TLS versions");
    }
    return 0;
}

// Envoy lists may group equals as "[A|B]"; OpenSSL has no such thing, the order inside a group is kept.
static char *openssl_cipher_list(struct str list)
{
    char *out = str_dup(list);
    char *w = out;
    for (char *r = out; *r; r++) {
        if (*r != '[' && *r != ']') {
            *w++ = *r == '|' ? ':' : *r;
        }
    }
    *w = 0;
    return out;
}

static int set_ciphers(SSL_CTX *s, struct str list, struct err *err)
{
    scope_free char *text = list.n ? openssl_cipher_list(list) : str_dup(STR(DEFAULT_CIPHERS));
    // OpenSSL skips names it does not know as long as one is left; a typing error must not go unseen.
    struct str rest = str_c(text);
    while (rest.p && rest.n) {
        scope_free char *one = str_dup(str_split(&rest, ':'));
        if (one[0] == 0 || strchr("!-+@", one[0])) {
            continue;
        }
        if (SSL_CTX_set_cipher_list(s, one) != 1) {
            ERR_clear_error();
            return err_set(err, -EINVAL, "cipher list: unknown cipher \"%s\" (TLS 1.3 ciphers are not listed here)", one);
        }
    }
    if (SSL_CTX_set_cipher_list(s, text) != 1 || SSL_CTX_set_ciphersuites(s, TLS13_CIPHERS) != 1) {
        return ossl_err(err, -EINVAL, "cipher list");
    }
    return 0;
}

static int set_curves(SSL_CTX *s, struct str list, struct err *err)
{
    scope_free char *text = str_dup(list.n ? list : STR(DEFAULT_CURVES));
    if (SSL_CTX_set1_groups_list(s, text) != 1) {
        ERR_clear_error();
        return err_set(err, -EINVAL, "curve list \"%s\" has a name that OpenSSL does not know", text);
    }
    return 0;
}

static int set_alpn(struct tls_ctx *c, const struct tls_ctx_params *p, struct err *err)
{
    size_t total = 0;
    for (size_t i = 0; i < p->alpn_count; i++) {
        if (p->alpn[i].n == 0 || p->alpn[i].n > 255) {
            return err_set(err, -EINVAL, "ALPN protocol %zu: a name has 1 to 255 bytes", i);
        }
        total += 1 + p->alpn[i].n;
    }
    if (total > ALPN_TOTAL_MAX) {
        return err_set(err, -EINVAL, "ALPN protocols: the list is too long");
    }
    c->alpn = mem_alloc(total + 1);
    for (size_t i = 0; i < p->alpn_count; i++) {
        c->alpn[c->alpn_len++] = (unsigned char)p->alpn[i].n;
        memcpy(c->alpn + c->alpn_len, p->alpn[i].p, p->alpn[i].n);
        c->alpn_len += (unsigned)p->alpn[i].n;
    }
    if (c->server && total) {
        SSL_CTX_set_alpn_select_cb(c->ssl, tls_hook_alpn, c);
    }
    return 0;
}

static int set_modes(struct tls_ctx *c, const struct tls_ctx_params *p, struct err *err)
{
    SSL_CTX *s = c->ssl;
    // NO_AUTO_CHAIN: else OpenSSL would verify our own certificate in every handshake to find its chain.
    SSL_CTX_set_mode(s, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_NO_AUTO_CHAIN);
    // An EOF without close_notify is left to the layer above, which knows from its own framing whether bytes are missing.
    SSL_CTX_set_options(s, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF |
                               (p->policy.client_order ? 0 : SSL_OP_CIPHER_SERVER_PREFERENCE));
    // Records after a TLS 1.3 handshake are ours (established.c).
    SSL_CTX_set_keylog_callback(s, tls_hook_keys);
    SSL_CTX_set_msg_callback(s, tls_hook_message);
    SSL_CTX_set_timeout(s, p->policy.session_s ? (long)p->policy.session_s : SESSION_TTL_S);
    SSL_CTX_set_cert_verify_callback(s, tls_hook_verify, c);
    if (c->server) {
        int mode = p->verify_peer || p->require_peer_cert ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
        SSL_CTX_set_verify(s, mode | (p->require_peer_cert ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
        // Tickets are numbers of sessions that this context keeps (sessions.c), so no other policy can resume them.
        SSL_CTX_set_options(s, SSL_OP_NO_TICKET);
        SSL_CTX_set_session_cache_mode(s, SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL);
        c->sessions = tls_sessions_new();
        SSL_CTX_set_app_data(s, c);
        SSL_CTX_sess_set_new_cb(s, tls_hook_keep_session);
        SSL_CTX_sess_set_get_cb(s, tls_hook_find_session);
        SSL_CTX_sess_set_remove_cb(s, tls_hook_drop_session);
        if (!SSL_CTX_set_num_tickets(s, p->policy.no_tickets ? 0 : TICKETS_PER_HANDSHAKE) ||
            !SSL_CTX_set_session_id_context(s, (const unsigned char *)&c->serial, sizeof(c->serial))) {
            return ossl_err(err, -EIO, "TLS sessions");
        }
    } else {
        SSL_CTX_set_verify(s, SSL_VERIFY_PEER, NULL); // the hook decides
        SSL_CTX_set_session_cache_mode(s, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(s, tls_hook_new_session);
    }
    return 0;
}

static int fill_params(struct tls_ctx *c, const struct tls_ctx_params *p, struct err *err)
{
    int r = set_modes(c, p, err);
    r = r ? r : set_versions(c->ssl, p, err);
    r = r ? r : set_ciphers(c->ssl, p->ciphers, err);
    r = r ? r : set_curves(c->ssl, p->curves, err);
    return r ? r : set_alpn(c, p, err);
}

static int fill(struct tls_ctx *c, const struct tls_ctx_params *p, struct err *err)
{
    int r = fill_params(c, p, err);
    if (r == 0 && p->cert_chain_pem.n) {
        r = load_chain(c->ssl, p->cert_chain_pem, &c->local_uri, err);
        r = r ? r : load_key(c->ssl, p->key_pem, err);
    } else if (r == 0 && (p->server || p->key_pem.n)) {
        r = err_set(err, -EINVAL, p->server ? "a TLS server needs a certificate" : "private key without certificate");
    }
    if (r == 0 && p->ca_pem.n) {
        r = load_roots(c, p->ca_pem, err);
    } else if (r == 0 && p->verify_peer) {
        r = err_set(err, -EINVAL, "trusted roots: none given, so no peer could be verified");
    }
    if (r == 0 && p->crl_pem.n) {
        r = load_crls(c, p->crl_pem, err);
    }
    return r;
}

static int make(const struct tls_ctx_params *p, int (*how)(struct tls_ctx *, const struct tls_ctx_params *, struct err *),
                struct tls_ctx **ret, struct err *err)
{
    struct tls_ctx *c = mem_new(struct tls_ctx);
    atomic_init(&c->refs, 1);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    c->serial = atomic_fetch_add_explicit(&next_serial, 1, memory_order_relaxed);
    c->server = p->server;
    c->verify_peer = p->verify_peer;
    c->policy = p->policy;
    ERR_clear_error();
    c->ssl = SSL_CTX_new(p->server ? TLS_server_method() : TLS_client_method());
    int r = c->ssl ? how(c, p, err) : ossl_err(err, -ENOMEM, "making a TLS context");
    ERR_clear_error();
    if (r) {
        tls_ctx_unref(c);
        return r;
    }
    *ret = c;
    return 0;
}

int tls_ctx_new(const struct tls_ctx_params *p, struct tls_ctx **ret, struct err *err)
{
    return make(p, fill, ret, err);
}

int tls_ctx_check(const struct tls_ctx_params *p, struct err *err)
{
    struct tls_ctx *c = NULL;
    int r = make(p, fill_params, &c, err);
    tls_ctx_unref(c);
    return r;
}

struct tls_ctx *tls_ctx_ref(struct tls_ctx *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void tls_ctx_unref(struct tls_ctx *c)
{
    // acq_rel: the last one sees all writes of the others before it frees.
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    tls_sessions_free(c->sessions);
    c->sessions = NULL;
    SSL_CTX_free(c->ssl);
    free(c->alpn);
    free(c->local_uri);
    free(c);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

size_t tls_ctx_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}
