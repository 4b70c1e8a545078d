// SPDX-License-Identifier: Apache-2.0
// What OpenSSL asks us during a handshake: is this chain good, which protocol, may this session be resumed.
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/tls/ossl.h"
#include "lib/tls/tls_int.h"

enum { DETAIL_MAX = 1024 };

void tls_say(struct tls_conn *t, const char *fmt, ...)
{
    if (t->detail) {
        return;
    }
    char text[DETAIL_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++) { // names in it come from the peer and go to logs
        *p = (unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p;
    }
    t->detail = strdup(text); // NULL only means that the log has no reason
}

// The earliest end of the chain that OpenSSL built.
static int64_t chain_end(X509_STORE_CTX *x)
{
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(x);
    int64_t end = INT64_MAX;
    for (int i = 0; chain && i < sk_X509_num(chain); i++) {
        int64_t e = ossl_time_s(X509_get0_notAfter(sk_X509_value(chain, i)));
        end = e < end ? e : end;
    }
    return end;
}

static bool chain_good(struct tls_conn *t, X509_STORE_CTX *x)
{
    struct tls_chain_key key;
    bool cacheable = tls_chain_key(t->ctx, t->peer, X509_STORE_CTX_get0_untrusted(x), &key);
    if (cacheable && tls_chain_known(&key, tls_now_s())) {
        X509_STORE_CTX_set_error(x, X509_V_OK);
        return true;
    }
    if (X509_verify_cert(x) != 1) {
        int e = X509_STORE_CTX_get_error(x);
        if (e == X509_V_OK) { // out of memory inside; must not look like success
            X509_STORE_CTX_set_error(x, X509_V_ERR_UNSPECIFIED);
        }
        struct str name = t->peer->uri.n ? t->peer->uri : t->peer->subject;
        tls_say(t, "peer certificate [%.*s] refused: %s", STR_FMT(name), X509_verify_cert_error_string(e));
        return false;
    }
    if (cacheable) {
        tls_chain_remember(&key, chain_end(x));
    }
    return true;
}

// RFC 5280 §4.2.1.3: the server signs, or with RSA key exchange decrypts, with the key of its certificate.
static bool rsa_usage_good(struct tls_conn *t, SSL *ssl, X509 *leaf)
{
    EVP_PKEY *key = X509_get0_pubkey(leaf);
    if (!key || EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA) {
        return true;
    }
    const SSL_CIPHER *c = SSL_get_pending_cipher(ssl);
    bool decrypts = c && SSL_CIPHER_get_kx_nid(c) == NID_kx_rsa;
    if (X509_get_key_usage(leaf) & (decrypts ? KU_KEY_ENCIPHERMENT : KU_DIGITAL_SIGNATURE)) { // all bits without the extension
        return true;
    }
    tls_say(t, "peer certificate [%.*s] refused: its key usage does not allow %s", STR_FMT(t->peer->subject), decrypts ? "key encipherment" : "signatures");
    return false;
}

int tls_hook_verify(X509_STORE_CTX *x, void *arg)
{
    struct tls_ctx *ctx = arg;
    SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_conn *t = SSL_get_app_data(ssl);
    X509 *leaf = X509_STORE_CTX_get0_cert(x);
    tls_peer_unref(t->peer);
    t->peer = leaf ? tls_peer_of(leaf) : NULL;
    if (!t->peer) {
        X509_STORE_CTX_set_error(x, X509_V_ERR_OUT_OF_MEM);
        return 0;
    }
    if (ctx->verify_peer && !chain_good(t, x)) {
        return 0;
    }
    if (ctx->policy.rsa_usage && !rsa_usage_good(t, ssl, leaf)) {
        X509_STORE_CTX_set_error(x, X509_V_ERR_INVALID_PURPOSE);
        return 0;
    }
    char text[DETAIL_MAX];
    if (!tls_peer_names_match(t->peer, t->sans, t->san_count, text, sizeof(text))) {
        tls_say(t, "%s", text);
        X509_STORE_CTX_set_error(x, X509_V_ERR_HOSTNAME_MISMATCH); // the peer sees the alert bad_certificate
        return 0;
    }
    X509_STORE_CTX_set_error(x, X509_V_OK);
    return 1;
}

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// OpenSSL gives the secrets only this way: "LABEL CLIENT_RANDOM SECRET" in the format of key log files. Nothing is written anywhere.
void tls_hook_keys(const SSL *ssl, const char *line)
{
    static const struct str labels[] = { STR_INIT("CLIENT_TRAFFIC_SECRET_0 "), STR_INIT("SERVER_TRAFFIC_SECRET_0 ") };
    struct tls_conn *t = SSL_get_app_data(ssl);
    for (int i = 0; t && t->hs && i < 2; i++) {
        if (!str_starts(str_c(line), labels[i])) {
            continue;
        }
        const char *hex = strrchr(line, ' ') + 1;
        size_t n = strlen(hex) / 2;
        bool ok = n <= RECORD13_SECRET_MAX;
        for (size_t k = 0; ok && k < n; k++) {
            int hi = nibble(hex[2 * k]), lo = nibble(hex[2 * k + 1]);
            ok = hi >= 0 && lo >= 0;
            t->hs->secret[i][k] = (uint8_t)(hi << 4 | lo);
        }
        t->hs->have[i] = ok;
    }
}

void tls_hook_message(int sent, int version, int type, const void *p, size_t n, SSL *ssl, void *arg)
{
    (void)version;
    (void)arg;
    struct tls_conn *t = SSL_get_app_data(ssl);
    if (!sent || !t || !t->hs) {
        return;
    }
    if (type == SSL3_RT_HEADER) {
        t->hs->sent++;
    } else if (type == SSL3_RT_HANDSHAKE && n > 0 && *(const unsigned char *)p == SSL3_MT_FINISHED) {
        t->hs->sent = 0; // told after its records; what follows is under the application keys
    }
}

int tls_hook_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len, void *arg)
{
    (void)ssl;
    const struct tls_ctx *ctx = arg;
    for (unsigned i = 0; i < ctx->alpn_len; i += 1u + ctx->alpn[i]) {
        for (unsigned k = 0; k < in_len; k += 1u + in[k]) {
            if (in[k] == ctx->alpn[i] && k + 1u + in[k] <= in_len && memcmp(in + k + 1, ctx->alpn + i + 1, in[k]) == 0) {
                *out = in + k + 1;
                *out_len = in[k];
                return SSL_TLSEXT_ERR_OK;
            }
        }
    }
    return SSL_TLSEXT_ERR_NOACK; // go on without a protocol, as Envoy does
}

// True when a session's peer would be accepted by this connection now; the chain itself was checked when the session was made,
// under the same context.
bool tls_session_allowed(const struct tls_conn *t, SSL_SESSION *s)
{
    X509 *leaf = SSL_SESSION_get0_peer(s);
    if (!leaf) {
        return !t->ctx->verify_peer && t->san_count == 0;
    }
    struct tls_peer *p = tls_peer_of(leaf);
    char text[DETAIL_MAX];
    bool ok = p && p->not_after_s > tls_now_s() && tls_peer_names_match(p, t->sans, t->san_count, text, sizeof(text));
    tls_peer_unref(p);
    return ok;
}

static int serial_index(void)
{
    static _Atomic int index = -1;
    int i = atomic_load(&index);
    if (i < 0) {
        int fresh = SSL_SESSION_get_ex_new_index(0, NULL, NULL, NULL, NULL);
        int none = -1;
        i = atomic_compare_exchange_strong(&index, &none, fresh) ? fresh : none;
    }
    return i;
}

int tls_hook_new_session(SSL *ssl, SSL_SESSION *s)
{
    struct tls_conn *t = SSL_get_app_data(ssl);
    if (t) {
        t->got_ticket = true;
    }
    if (!t || !t->slot || t->ctx->policy.no_resumption || !SSL_SESSION_is_resumable(s)) {
        return 0;
    }
    // What may resume it: connections of this very context (same certificate, roots and parameters).
    if (!SSL_SESSION_set_ex_data(s, serial_index(), (void *)(uintptr_t)t->ctx->serial)) {
        return 0;
    }
    SSL_SESSION_free(t->slot->session);
    t->slot->session = s;
    return 1; // the reference is ours now
}

void tls_offer_session(struct tls_conn *t)
{
    SSL_SESSION *s = t->slot ? t->slot->session : NULL;
    if (!s) {
        return;
    }
    int64_t ends = (int64_t)SSL_SESSION_get_time(s) + SSL_SESSION_get_timeout(s);
    const char *host = SSL_SESSION_get0_hostname(s), *sni = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
    bool same_host = !host || (sni && strcmp(host, sni) == 0);
    bool same_ctx = (uintptr_t)SSL_SESSION_get_ex_data(s, serial_index()) == (uintptr_t)t->ctx->serial;
    if (!same_host || !same_ctx || ends <= tls_now_s() || !tls_session_allowed(t, s) || !SSL_set_session(t->ssl, s)) {
        ERR_clear_error();
        tls_session_slot_fini(t->slot);
    }
}
