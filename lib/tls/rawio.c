// SPDX-License-Identifier: Apache-2.0
// Between TLS and the socket. Writing: the records of one call are gathered in a buffer of the thread and go out with one write;
// only what the kernel refuses is kept per connection (left), so nobody above ever sees a full socket in the middle of a record.
// Reading for OpenSSL: it asks for a record's header, then its body; what comes beyond is kept (raw), so that a whole number of
// records has been consumed whenever OpenSSL returns.
#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"
#include "lib/tls/tls_int.h"

enum { DIRECT_FROM = 4096 }; // reads of this size need no copy

static _Thread_local struct {
    struct tls_conn *owner; // whose records are in it; NULL between calls
    size_t len;
    char *bytes; // TLS_BATCH_BYTES in the thread's scratch memory
} batch;

// Not thread-local arrays: the C library writes zeros over those of each thread that starts, and gRPC starts many.
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static pthread_key_t scratch_key; // its destructor frees a thread's scratch
static _Thread_local struct tls_scratch *scratch;

static void scratch_init(void)
{
    CHECK(pthread_key_create(&scratch_key, free) == 0);
}

struct tls_scratch *tls_scratch_get(void)
{
    if (__builtin_expect(!scratch, 0)) {
        pthread_once(&scratch_once, scratch_init);
        scratch = mem_alloc(sizeof(*scratch));
        batch.bytes = scratch->batch;
        pthread_setspecific(scratch_key, scratch);
    }
    return scratch;
}

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

void tls_batch_begin(struct tls_conn *t)
{
    DCHECK(!batch.owner);
    (void)tls_scratch_get();
    batch.owner = t;
    if (!t->own && __builtin_expect(ERR_peek_error() != 0, 0)) {
        ERR_clear_error(); // SSL_get_error looks at the queue; leave no trace of others
    }
}

void tls_batch_end(struct tls_conn *t)
{
    batch_flush(t);
    batch.owner = NULL;
}

char *tls_batch_room(struct tls_conn *t, size_t n)
{
    DCHECK(batch.owner == t);
    if (n > TLS_BATCH_BYTES - batch.len) {
        batch_flush(t);
    }
    return batch.bytes + batch.len;
}

void tls_batch_put(size_t n)
{
    batch.len += n;
    CHECK(batch.len <= TLS_BATCH_BYTES);
}

enum io tls_flush_left(struct tls_conn *t)
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

// ---- the BIO that OpenSSL sees ----

static int bio_write(BIO *b, const char *p, size_t n, size_t *ret)
{
    struct tls_conn *t = BIO_get_data(b);
    *ret = n;
    if (t->own || batch.owner != t) {
        return 1; // the records are not OpenSSL's any more, or it says good-bye in SSL_free
    }
    for (size_t k; n; p += k, n -= k) {
        k = n < TLS_BATCH_BYTES ? n : TLS_BATCH_BYTES;
        memcpy(tls_batch_room(t, k), p, k);
        tls_batch_put(k);
    }
    return 1;
}

static ssize_t raw_fill(struct tls_conn *t)
{
    size_t room;
    char *p = buf_reserve(&t->raw, DIRECT_FROM, &room);
    ssize_t k = conn_raw_read(t->t.conn, p, room);
    buf_commit(&t->raw, k > 0 ? (size_t)k : 0);
    return k;
}

static size_t take(struct tls_conn *t, char *p, size_t n)
{
    if (t->own) {
        size_t k = n < t->feed.n ? n : t->feed.n;
        memcpy(p, t->feed.p, k);
        t->feed = str_skip(t->feed, k);
        return k;
    }
    size_t k = buf_peek(&t->raw, 0, p, n);
    buf_drain(&t->raw, k);
    return k;
}

static int bio_read(BIO *b, char *p, size_t n, size_t *ret)
{
    struct tls_conn *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    *ret = 0;
    if (t->own && t->feed.n == 0) {
        BIO_set_retry_read(b);
        return 0;
    }
    if (!t->own && t->raw.len == 0) {
        bool direct = n >= DIRECT_FROM;
        ssize_t k = direct ? conn_raw_read(t->t.conn, p, n) : raw_fill(t);
        if (k <= 0) {
            if (k == -EAGAIN) {
                BIO_set_retry_read(b);
            }
            t->raw_eof = t->raw_eof || k == 0;
            t->raw_err = k < 0 && k != -EAGAIN ? (int)k : t->raw_err;
            return 0;
        }
        if (direct) {
            *ret = (size_t)k;
            return 1;
        }
    }
    *ret = take(t, p, n);
    return 1;
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

static BIO_METHOD *method;
static void method_init(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "connection");
    if (m && BIO_meth_set_write_ex(m, bio_write) && BIO_meth_set_read_ex(m, bio_read) && BIO_meth_set_ctrl(m, bio_ctrl)) {
        method = m;
    }
}

BIO *tls_bio_new(struct tls_conn *t)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, method_init);
    BIO *b = method ? BIO_new(method) : NULL;
    if (b) {
        BIO_set_data(b, t);
        BIO_set_init(b, 1);
    }
    return b;
}
