// SPDX-License-Identifier: Apache-2.0
// TLS 1.3 after the handshake: a peer that holds the keys sends whatever the input says, well sealed or not. No crash, data comes
// out as it went in, and after an error or an end nothing more does.
// fuzz-modules: lib/tls lib/net lib/event lib/base
#include <errno.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/tls/tls_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct buf wire;

// In place of lib/net/conn.c.
ssize_t conn_raw_read(struct conn *c, void *p, size_t n)
{
    (void)c;
    size_t k = buf_peek(&wire, 0, p, n);
    buf_drain(&wire, k);
    return k ? (ssize_t)k : -EAGAIN;
}
ssize_t conn_raw_write(struct conn *c, const void *p, size_t n)
{
    (void)c;
    (void)p;
    return (ssize_t)n;
}

static const uint8_t secret[RECORD13_SECRET_MAX] = { 1, 2, 3 };

// One step of the script: byte 0 chooses, bytes 1 and 2 are a length. Returns the bytes used; *ret_data: application bytes sent.
static size_t step(struct record13 *peer, const uint8_t *p, size_t n, size_t *ret_data)
{
    size_t len = ((size_t)p[1] << 8 | p[2]) % (n - 2 < 2048 ? n - 2 : 2048);
    const uint8_t *bytes = p + 3;
    *ret_data = 0;
    if (p[0] < 16) { // not sealed at all
        buf_append(&wire, bytes, len);
        return 3 + len;
    }
    static const enum record13_type types[] = { RECORD13_DATA, RECORD13_HANDSHAKE, RECORD13_ALERT, RECORD13_DATA };
    enum record13_type type = p[0] < 32 ? (enum record13_type)(p[0] & 31) : types[p[0] & 3];
    char out[RECORD13_MAX];
    struct iovec iov = { (void *)(uintptr_t)bytes, len };
    size_t k = record13_seal(peer, type, &iov, 1, len, out);
    buf_append(&wire, out, k);
    if (type == RECORD13_HANDSHAKE && len == 5 && bytes[0] == 24) {
        record13_rekey_out(peer);
    }
    *ret_data = type == RECORD13_DATA ? len : 0;
    return 3 + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    struct tls_ctx ctx = { .server = data[0] & 1 };
    struct conn c = { 0 };
    struct tls_conn t = { .ctx = &ctx, .own = true, .done = true, .t.conn = &c };
    struct record13 peer;
    const struct record13_suite *suite = record13_suite_of(0x1301 + (data[0] >> 1) % 3);
    CHECK(record13_init(&t.rec, suite, secret, 0, secret, 0) && record13_init(&peer, suite, secret, 0, secret, 0));
    struct buf in = { 0 };
    size_t sent = 0;
    enum io io = IO_AGAIN;
    for (size_t at = 1; at + 3 < size && (io == IO_AGAIN || io == IO_OK);) {
        size_t n;
        at += step(&peer, data + at, size - at, &n);
        sent += n;
        tls_batch_begin(&t);
        io = tls_own_read(&t, &in, 4096);
        tls_batch_end(&t);
        CHECK(in.len <= sent);
        CHECK(t.raw.len < RECORD13_MAX);
        if (io == IO_ERROR) {
            CHECK(t.detail);
        }
    }
    buf_clear(&in);
    buf_clear(&wire);
    buf_clear(&t.raw);
    buf_clear(&t.left);
    record13_fini(&t.rec);
    record13_fini(&peer);
    free(t.detail);
    return 0;
}
