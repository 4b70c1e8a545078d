// SPDX-License-Identifier: Apache-2.0
// OpenSSL between a connection's plain and raw bytes.
//
// Writing: the records of one call are gathered in a buffer of the thread and go out with one write; only what the kernel
// refuses is kept per connection (left), so OpenSSL itself never sees a full socket. Reading: OpenSSL reads ahead into its own
// buffer, which it frees when empty. An idle connection so holds neither.
#include "lib/tls/transport_tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/tls/ossl.h"
#include "lib/tls/tls_int.h"

enum {
    BATCH_BYTES = 64 * 1024,
    RECORD_PLAIN_MAX = 16384,  // RFC 8446 §5.1
    COALESCE_BELOW = 4096,     // join small slices into one record
    SLICE_ROOM = BUF_SLICE_BYTES - sizeof(struct slice),
};

// Untouched pages of it cost nothing in threads without TLS.
static _Thread_local struct {
    struct tls_conn *owner; // whose records are in it; NULL between calls
    size_t len;
    char bytes[BATCH_BYTES];
} batch;

static const struct transport_ops tls_ops;

// ---- raw side ----

static void raw_put(struct tls_conn *t, const char *p, size_t n)
{
    while (n && t->left.len == 0 && t->raw_err == 0) {
        ssize_t k = conn_raw_write(t->t.conn, p, n);
        if (k == -EAGAIN) {
            break;
        }
        if (k < 0) {
            t->raw_err = (int)k;
            return;
        }
        p += k;
        n -= (size_t)k;
    }
    if (t->raw_err == 0) {
        buf_append(&t->left, p, n);
    }
}

static void batch_flush(struct tls_conn *t)
{
    if (batch.len) {
        raw_put(t, batch.bytes, batch.len);
        batch.len = 0;
    }
}

static void enter(struct tls_conn *t)
{
    DCHECK(!batch.owner);
    batch.owner = t;
    if (__builtin_expect(ERR_peek_error() != 0, 0)) {
        ERR_clear_error(); // SSL_get_error looks at the queue; leave no trace of others
    }
}

// Hands the gathered records to the kernel.
static void leave(struct tls_conn *t)
{
    batch_flush(t);
    batch.owner = NULL;
}

// Retries what the kernel refused before.
static enum io flush_left(struct tls_conn *t)
{
    while (t->left.len && t->raw_err == 0) {
        struct str s = buf_front(&t->left);
        ssize_t k = conn_raw_write(t->t.conn, s.p, s.n);
        if (k == -EAGAIN) {
            return IO_AGAIN;
        }
        if (k < 0) {
            t->raw_err = (int)k;
            break;
        }
        buf_drain(&t->left, (size_t)k);
    }
    return t->raw_err ? IO_ERROR : IO_OK;
}

static int bio_write(BIO *b, const char *p, size_t n, size_t *ret)
{
    struct tls_conn *t = BIO_get_data(b);
    if (batch.owner != t) {
        buf_append(&t->left, p, n); // outside of our own calls (SSL_free); never sent
    } else {
        if (n > BATCH_BYTES - batch.len) {
            batch_flush(t);
        }
        if (n > BATCH_BYTES) {
            raw_put(t, p, n);
        } else {
            memcpy(batch.bytes + batch.len, p, n);
            batch.len += n;
        }
    }
    *ret = n;
    return 1;
}

static int bio_read(BIO *b, char *p, size_t n, size_t *ret)
{
    struct tls_conn *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    *ret = 0;
    ssize_t k = conn_raw_read(t->t.conn, p, n);
    if (k > 0) {
        *ret = (size_t)k;
        return 1;
    }
    if (k == -EAGAIN) {
        BIO_set_retry_read(b);
    } else if (k == 0) {
        t->raw_eof = true;
    } else {
        t->raw_err = (int)k;
    }
    return 0;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    (void)num;
    (void)ptr;
    const struct tls_conn *t = BIO_get_data(b);
    switch (cmd) {
    case BIO_CTRL_FLUSH: // at the end of each flight; we flush when the call ends
        return 1;
    case BIO_CTRL_EOF:
        return t && t->raw_eof;
    default:
        return 0;
    }
}

static BIO_METHOD *bio_method;
static void bio_method_init(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "connection");
    if (m && BIO_meth_set_write_ex(m, bio_write) && BIO_meth_set_read_ex(m, bio_read) && BIO_meth_set_ctrl(m, bio_ctrl)) {
        bio_method = m;
    }
}

// ---- words for failures ----

static void explain_queue(struct tls_conn *t, const char *phase)
{
    unsigned long e = ERR_peek_error();
    int reason = ERR_GET_LIB(e) == ERR_LIB_SSL ? ERR_GET_REASON(e) : 0;
    char text[OSSL_TEXT_MAX];
    ossl_error_text(text, sizeof(text));
    if (reason >= SSL_AD_REASON_OFFSET) {
        // "tlsv1 alert unknown ca"; SSL_alert_desc_string_long does not know the newer ones.
        const char *alert = strstr(text, " alert ");
        tls_say(t, "TLS %s: peer sent the alert \"%s\"", phase, alert ? alert + 7 : text);
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

static enum io fail(struct tls_conn *t, const char *phase)
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
        return fail(t, phase);
    }
}

// ---- transport ops ----

static struct tls_conn *of(struct transport *t)
{
    return container_of(t, struct tls_conn, t);
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

static enum io tls_handshake(struct transport *tr)
{
    struct tls_conn *t = of(tr);
    if (flush_left(t) == IO_ERROR) {
        return fail(t, "handshake");
    }
    enter(t);
    int r = SSL_do_handshake(t->ssl);
    enum io io = r == 1 ? IO_OK : result(t, r, "handshake");
    leave(t);
    if (t->raw_err && io != IO_ERROR) {
        io = fail(t, "handshake");
    }
    if (io == IO_EOF) {
        io = fail(t, "handshake");
    }
    if (io == IO_OK && !take_resumed_peer(t)) {
        tls_say(t, "TLS handshake: out of memory");
        io = fail(t, "handshake");
    }
    if (io == IO_ERROR && t->slot) {
        tls_session_slot_fini(t->slot);
    }
    if (io == IO_OK) {
        t->done = true;
        t->more = true; // data may have come in the same read as the peer's Finished
    }
    return io;
}

static enum io tls_read(struct transport *tr, struct buf *in, size_t want)
{
    struct tls_conn *t = of(tr);
    enum io io = IO_OK;
    size_t got = 0;
    enter(t);
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
    leave(t); // key updates and alerts are answered from inside a read
    return io;
}

static enum io tls_write(struct transport *tr, struct buf *out)
{
    struct tls_conn *t = of(tr);
    enum io io = flush_left(t);
    if (io != IO_OK) {
        return io == IO_ERROR ? fail(t, "write") : io;
    }
    enter(t);
    while (out->len && t->left.len == 0 && t->raw_err == 0) {
        struct str s = buf_front(out);
        if (s.n < COALESCE_BELOW && s.n < out->len) {
            s = buf_pullup(out, out->len < SLICE_ROOM ? out->len : SLICE_ROOM);
        }
        size_t n = 0;
        int r = SSL_write_ex(t->ssl, s.p, s.n < RECORD_PLAIN_MAX ? s.n : RECORD_PLAIN_MAX, &n);
        if (r != 1) {
            io = result(t, r, "write");
            break;
        }
        buf_drain(out, n);
    }
    leave(t);
    if (t->raw_err && io != IO_ERROR) {
        io = fail(t, "write");
    }
    return io == IO_OK && (t->left.len || out->len) ? IO_AGAIN : io;
}

static enum io tls_shutdown(struct transport *tr)
{
    struct tls_conn *t = of(tr);
    if (!t->done) {
        return IO_OK;
    }
    if (!(SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN)) {
        enter(t);
        if (SSL_shutdown(t->ssl) < 0) {
            ERR_clear_error();
        }
        leave(t);
    }
    enum io io = flush_left(t);
    return io == IO_ERROR ? fail(t, "shutdown") : io;
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
    if (t->ssl) {
        // Else OpenSSL would mark the session as not resumable.
        SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(t->ssl);
    }
    tls_ctx_unref(t->ctx);
    tls_peer_unref(t->peer);
    buf_clear(&t->left);
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
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, bio_method_init);
    struct tls_conn *t = calloc(1, sizeof(*t));
    if (!t) {
        return NULL;
    }
    t->t.ops = &tls_ops;
    t->ctx = tls_ctx_ref(ctx);
    t->sans = sans;
    t->san_count = san_count;
    BIO *b = bio_method ? BIO_new(bio_method) : NULL;
    t->ssl = b ? SSL_new(ctx->ssl) : NULL;
    if (!t->ssl) {
        BIO_free(b);
        tls_destroy(&t->t);
        ERR_clear_error();
        return NULL;
    }
    BIO_set_data(b, t);
    BIO_set_init(b, 1);
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

static struct tls_info *info_new(struct tls_conn *t)
{
    struct tls_info *i = calloc(1, sizeof(*i));
    if (!i) {
        return NULL;
    }
    const unsigned char *alpn = NULL;
    unsigned alpn_len = 0;
    SSL_get0_alpn_selected(t->ssl, &alpn, &alpn_len);
    *i = (struct tls_info){
        .version = SSL_get_version(t->ssl),
        .cipher = SSL_get_cipher_name(t->ssl),
        .alpn = str_n(alpn, alpn_len),
        .sni = str_c(SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name)),
        .resumed = SSL_session_reused(t->ssl) == 1,
        .peer_cert = t->peer && t->ctx->verify_peer,
        .local_uri = str_c(t->ctx->local_uri),
    };
    if (t->peer) {
        i->peer_uri = t->peer->uri;
        i->peer_subject = t->peer->subject;
        i->peer_dns = t->peer->dns;
        i->peer_sha256 = t->peer->sha_hex;
    }
    return i;
}

const struct tls_info *transport_tls_info(const struct conn *c)
{
    if (!c->transport || c->transport->ops != &tls_ops) {
        return NULL;
    }
    struct tls_conn *t = of(c->transport);
    if (t->done && !t->info) {
        t->info = info_new(t);
    }
    return t->info;
}
