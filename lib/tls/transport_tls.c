// SPDX-License-Identifier: Apache-2.0
// TLS as a transport: OpenSSL does the handshake, and with TLS 1.2 everything; see tls_int.h for who does what when.
#include "lib/tls/transport_tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/tls/libctx.h"
#include "lib/tls/ossl.h"
#include "lib/tls/tls_int.h"

enum {
    COALESCE_BELOW = 4096, // join small slices into one record
};

static const struct transport_ops tls_ops;

// ---- words for failures ----

const char *tls_alert_name(unsigned description)
{
    static const char *const names[256] = {
        [0] = "close notify", [10] = "unexpected message", [20] = "bad record mac", [22] = "record overflow",
        [40] = "handshake failure", [42] = "bad certificate", [43] = "unsupported certificate", [44] = "certificate revoked",
        [45] = "certificate expired", [46] = "certificate unknown", [47] = "illegal parameter", [48] = "unknown CA",
        [49] = "access denied", [50] = "decode error", [51] = "decrypt error", [70] = "protocol version",
        [71] = "insufficient security", [80] = "internal error", [86] = "inappropriate fallback", [90] = "user canceled",
        [109] = "missing extension", [110] = "unsupported extension", [112] = "unrecognized name",
        [113] = "bad certificate status response", [115] = "unknown PSK identity", [116] = "certificate required",
        [120] = "no application protocol",
    };
    return description < array_len(names) && names[description] ? names[description] : "unknown alert";
}

static void explain_queue(struct tls_conn *t, const char *phase)
{
    unsigned long e = ERR_peek_error();
    int reason = ERR_GET_LIB(e) == ERR_LIB_SSL ? ERR_GET_REASON(e) : 0;
    char text[OSSL_TEXT_MAX];
    ossl_error_text(text, sizeof(text));
    if (reason >= SSL_AD_REASON_OFFSET) {
        tls_say(t, "TLS %s: peer sent the alert \"%s\"", phase, tls_alert_name((unsigned)(reason - SSL_AD_REASON_OFFSET)));
        return;
    }
    switch (reason) {
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
        tls_say(t, "TLS %s: peer sent plain HTTP", phase);
        break;
    case SSL_R_WRONG_VERSION_NUMBER:
        tls_say(t, "TLS %s: peer does not speak TLS (%s)", phase, text);
        break;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        tls_say(t, "TLS %s: peer sent no certificate, and one is required", phase);
        break;
    default:
        tls_say(t, "TLS %s: %s", phase, text);
    }
}

enum io tls_fail(struct tls_conn *t, const char *phase)
{
    char text[OSSL_TEXT_MAX];
    if (t->raw_err) {
        tls_say(t, "TLS %s: connection broken: %s", phase, strerror_r(-t->raw_err, text, sizeof(text)));
    } else if (t->raw_eof && !t->done && ERR_peek_error() == 0) {
        tls_say(t, "TLS %s: peer closed the connection", phase);
    } else {
        explain_queue(t, phase);
    }
    ERR_clear_error();
    t->t.conn->close_detail = t->detail;
    return IO_ERROR;
}

// What a call that returned ret <= 0 means.
static enum io result(struct tls_conn *t, int ret, const char *phase)
{
    switch (SSL_get_error(t->ssl, ret)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return IO_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return IO_EOF;
    default:
        return tls_fail(t, phase);
    }
}

// ---- transport ops ----

static struct tls_conn *of(struct transport *t)
{
    return container_of(t, struct tls_conn, t);
}

void tls_drop_ssl(struct tls_conn *t)
{
    if (t->ssl) {
        // Else OpenSSL would mark the session as not resumable.
        SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(t->ssl);
        t->ssl = NULL;
    }
}

static void tls_drop_handshake(struct tls_conn *t)
{
    if (t->hs) {
        OPENSSL_cleanse(t->hs, sizeof(*t->hs));
        free(t->hs);
        t->hs = NULL;
    }
}

// The verify hook does not run on resumption; a session was only offered or accepted when its peer passed.
static bool take_resumed_peer(struct tls_conn *t)
{
    X509 *leaf = t->peer ? NULL : SSL_get0_peer_certificate(t->ssl);
    if (leaf) {
        t->peer = tls_peer_of(leaf);
    }
    return !leaf || t->peer;
}

static struct tls_info *info_new(struct tls_conn *t);

// All that the handshake was needed for is known: facts are kept, OpenSSL's object goes if it can.
static enum io finished(struct tls_conn *t)
{
    if (!take_resumed_peer(t) || !(t->info = info_new(t))) {
        tls_say(t, "TLS handshake: out of memory");
        return tls_fail(t, "handshake");
    }
    t->done = true;
    t->more = true; // data may have come in the same read as the peer's Finished
    tls_take_over(t);
    tls_drop_handshake(t);
    return IO_OK;
}

static enum io tls_handshake(struct transport *tr)
{
    struct tls_conn *t = of(tr);
    if (tls_flush_left(t) == IO_ERROR) {
        return tls_fail(t, "handshake");
    }
    tls_batch_begin(t);
    OSSL_LIB_CTX *before = tls_libctx_enter();
    int r = SSL_do_handshake(t->ssl);
    tls_libctx_leave(before);
    enum io io = r == 1 ? IO_OK : result(t, r, "handshake");
    tls_batch_end(t);
    if (io == IO_EOF || (t->raw_err && io != IO_ERROR)) {
        io = tls_fail(t, "handshake");
    }
    if (io == IO_OK) {
        io = finished(t);
    }
    if (io == IO_ERROR && t->slot) {
        tls_session_slot_fini(t->slot);
    }
    return io;
}

static enum io openssl_read(struct tls_conn *t, struct buf *in, size_t want)
{
    enum io io = IO_OK;
    size_t got = 0;
    while (got < want) {
        size_t room, n = 0;
        char *p = buf_reserve(in, 1, &room);
        int r = SSL_read_ex(t->ssl, p, room, &n);
        buf_commit(in, r == 1 ? n : 0);
        if (r != 1) {
            io = result(t, r, "read");
            break;
        }
        got += n;
    }
    t->more = io == IO_OK;
    if (t->got_ticket) {
        // A message after the handshake makes OpenSSL set up its write buffer too, and only a write would release it.
        t->got_ticket = false;
        (void)SSL_free_buffers(t->ssl);
    }
    return io;
}

static enum io tls_read(struct transport *tr, struct buf *in, size_t want)
{
    struct tls_conn *t = of(tr);
    tls_batch_begin(t);
    enum io io = t->own ? tls_own_read(t, in, want) : openssl_read(t, in, want);
    tls_batch_end(t); // key updates and alerts are answered from inside a read
    if (io == IO_ERROR && t->own) {
        (void)tls_fail(t, "read");
    }
    return io;
}

static enum io openssl_write(struct tls_conn *t, struct buf *out)
{
    while (out->len && t->left.len == 0 && t->raw_err == 0) {
        struct str s = buf_front(out);
        if (s.n < COALESCE_BELOW && s.n < out->len) {
            s = buf_pullup(out, out->len < BUF_SLICE_ROOM ? out->len : BUF_SLICE_ROOM);
        }
        size_t n = 0;
        int r = SSL_write_ex(t->ssl, s.p, s.n < RECORD13_PLAIN_MAX ? s.n : RECORD13_PLAIN_MAX, &n);
        if (r != 1) {
            return result(t, r, "write");
        }
        buf_drain(out, n);
    }
    return IO_OK;
}

static enum io tls_write(struct transport *tr, struct buf *out)
{
    struct tls_conn *t = of(tr);
    enum io io = tls_flush_left(t);
    if (io == IO_OK) {
        tls_batch_begin(t);
        io = t->own ? tls_own_write(t, out) : openssl_write(t, out);
        tls_batch_end(t);
    }
    if (io == IO_ERROR || t->raw_err) {
        return tls_fail(t, "write");
    }
    return io == IO_OK && (t->left.len || out->len) ? IO_AGAIN : io;
}

static enum io tls_shutdown(struct transport *tr)
{
    struct tls_conn *t = of(tr);
    if (!t->done) {
        return IO_OK;
    }
    tls_batch_begin(t);
    if (t->own) {
        tls_own_close(t);
    } else if (!(SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN) && SSL_shutdown(t->ssl) < 0) {
        ERR_clear_error();
    }
    tls_batch_end(t);
    enum io io = tls_flush_left(t);
    return io == IO_ERROR ? tls_fail(t, "shutdown") : io;
}

static bool tls_pending(struct transport *tr)
{
    return of(tr)->more;
}

static void tls_destroy(struct transport *tr)
{
    struct tls_conn *t = of(tr);
    if (t->t.conn && t->t.conn->close_detail == t->detail) {
        t->t.conn->close_detail = NULL;
    }
    tls_drop_ssl(t);
    tls_drop_handshake(t);
    record13_fini(&t->rec);
    tls_ctx_unref(t->ctx);
    tls_peer_unref(t->peer);
    buf_clear(&t->left);
    buf_clear(&t->raw);
    free(t->info);
    free(t->detail);
    free(t);
}

static const struct transport_ops tls_ops = {
    .name = "tls",
    .handshake = tls_handshake,
    .read = tls_read,
    .write = tls_write,
    .shutdown = tls_shutdown,
    .pending = tls_pending,
    .destroy = tls_destroy,
};

// ---- making ----

static struct tls_conn *tls_conn_new(struct tls_ctx *ctx, const struct san_matcher *sans, size_t san_count)
{
    struct tls_conn *t = calloc(1, sizeof(*t));
    if (!t) {
        return NULL;
    }
    t->t.ops = &tls_ops;
    t->ctx = tls_ctx_ref(ctx);
    t->sans = sans;
    t->san_count = san_count;
    t->hs = calloc(1, sizeof(*t->hs));
    BIO *b = t->hs ? tls_bio_new(t) : NULL;
    t->ssl = b ? SSL_new(ctx->ssl) : NULL;
    if (!t->ssl) {
        BIO_free(b);
        tls_destroy(&t->t);
        ERR_clear_error();
        return NULL;
    }
    SSL_set_bio(t->ssl, b, b);
    SSL_set_app_data(t->ssl, t);
    return t;
}

struct transport *transport_tls_server(struct tls_ctx *ctx, const struct tls_server_opts *o)
{
    CHECK(ctx->server);
    struct tls_conn *t = tls_conn_new(ctx, o ? o->sans : NULL, o ? o->san_count : 0);
    if (!t) {
        return NULL;
    }
    SSL_set_accept_state(t->ssl);
    return &t->t;
}

static bool offer_alpn(SSL *ssl, const struct str *alpn, size_t count)
{
    unsigned char wire[1024];
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (alpn[i].n == 0 || alpn[i].n > 255 || n + 1 + alpn[i].n > sizeof(wire)) {
            return false;
        }
        wire[n++] = (unsigned char)alpn[i].n;
        memcpy(wire + n, alpn[i].p, alpn[i].n);
        n += alpn[i].n;
    }
    return n == 0 || SSL_set_alpn_protos(ssl, wire, (unsigned)n) == 0; // this one returns 0 on success
}

static bool set_sni(SSL *ssl, struct str sni)
{
    char host[TLSEXT_MAXLEN_host_name + 1];
    if (sni.n > TLSEXT_MAXLEN_host_name || memchr(sni.p, 0, sni.n)) {
        return false;
    }
    memcpy(host, sni.p, sni.n);
    host[sni.n] = 0;
    return SSL_set_tlsext_host_name(ssl, host) == 1;
}

struct transport *transport_tls_client(struct tls_ctx *ctx, const struct tls_client_opts *o)
{
    CHECK(!ctx->server);
    struct tls_conn *t = tls_conn_new(ctx, o->sans, o->san_count);
    if (!t) {
        return NULL;
    }
    if ((o->sni.n && !set_sni(t->ssl, o->sni)) || !offer_alpn(t->ssl, o->alpn, o->alpn_count)) {
        ERR_clear_error();
        tls_destroy(&t->t);
        return NULL;
    }
    t->slot = o->session;
    SSL_set_connect_state(t->ssl);
    tls_offer_session(t);
    return &t->t;
}

void tls_session_slot_fini(struct tls_session_slot *s)
{
    SSL_SESSION_free(s->session);
    s->session = NULL;
}

// One block: the facts, and behind them the texts that OpenSSL's object owns.
static struct tls_info *info_new(struct tls_conn *t)
{
    const unsigned char *alpn = NULL;
    unsigned alpn_len = 0;
    SSL_get0_alpn_selected(t->ssl, &alpn, &alpn_len);
    struct str sni = str_c(SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name));
    struct tls_info *i = malloc(sizeof(*i) + alpn_len + sni.n + 1);
    if (!i) {
        return NULL;
    }
    char *text = (char *)(i + 1);
    if (alpn_len) {
        memcpy(text, alpn, alpn_len);
    }
    if (sni.n) {
        memcpy(text + alpn_len, sni.p, sni.n);
    }
    *i = (struct tls_info){
        .version = SSL_get_version(t->ssl),
        .cipher = SSL_get_cipher_name(t->ssl),
        .alpn = str_n(text, alpn_len),
        .sni = str_n(text + alpn_len, sni.n),
        .resumed = SSL_session_reused(t->ssl) == 1,
        .peer_cert = t->peer && t->ctx->verify_peer,
        .local_uri = str_c(t->ctx->local_uri),
    };
    if (t->peer) {
        i->peer_uri = t->peer->uri;
        i->peer_subject = t->peer->subject;
        i->peer_dns = t->peer->dns;
        i->peer_uris = t->peer->uris;
        i->peer_uri_count = t->peer->uri_count;
        i->peer_dns_names = t->peer->dns_names;
        i->peer_dns_count = t->peer->dns_count;
        i->peer_sha256 = t->peer->sha_hex;
        i->peer_pem = t->peer->pem;
    }
    return i;
}

const struct tls_info *transport_tls_info(const struct conn *c)
{
    if (!c->transport || c->transport->ops != &tls_ops) {
        return NULL;
    }
    return of(c->transport)->info;
}
