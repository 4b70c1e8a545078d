// SPDX-License-Identifier: Apache-2.0
#include "proxy/filters/listener/tls_hello.h"

#include <stdlib.h>

#include "lib/base/mem.h"

enum {
    RECORD_HEADER = 5,          // type, version (2), length (2)
    RECORD_BYTES_MAX = 1 << 14, // RFC 8446 §5.1
    HANDSHAKE_HEADER = 4,       // type, length (3)
    TYPE_HANDSHAKE = 22,
    TYPE_CLIENT_HELLO = 1,
    EXT_SERVER_NAME = 0,
    EXT_ALPN = 16,
    NAME_HOST = 0,
};

// A cursor that never passes the end: after a short read everything is empty and bad stays set.
struct reader {
    const unsigned char *p;
    size_t n;
    bool bad;
};

static struct reader take(struct reader *r, size_t n)
{
    if (r->bad || n > r->n) {
        r->bad = true;
        r->n = 0;
        return (struct reader){ .bad = true };
    }
    struct reader part = { .p = r->p, .n = n };
    r->p += n;
    r->n -= n;
    return part;
}

static uint32_t number(struct reader *r, size_t bytes)
{
    struct reader part = take(r, bytes);
    uint32_t v = 0;
    for (size_t i = 0; i < part.n; i++) {
        v = v << 8 | part.p[i];
    }
    return v;
}

// A vector with a length of len_bytes before it.
static struct reader vector(struct reader *r, size_t len_bytes)
{
    return take(r, number(r, len_bytes));
}

static struct str view(struct reader r)
{
    return str_n(r.p, r.n);
}

static bool parse_server_name(struct reader ext, struct tls_hello *h)
{
    struct reader list = vector(&ext, 2);
    if (ext.bad || ext.n || list.n == 0) {
        return false;
    }
    while (list.n) {
        uint32_t type = number(&list, 1);
        struct reader name = vector(&list, 2);
        if (list.bad) {
            return false;
        }
        if (type == NAME_HOST && h->server_name.n == 0) {
            if (name.n == 0 || name.n > TLS_HELLO_NAME_MAX || memchr(name.p, 0, name.n)) {
                return false;
            }
            h->server_name = view(name);
        }
    }
    return true;
}

static bool parse_alpn(struct reader ext, struct tls_hello *h)
{
    struct reader list = vector(&ext, 2);
    if (ext.bad || ext.n || list.n == 0) {
        return false;
    }
    while (list.n) {
        struct reader name = vector(&list, 1);
        if (list.bad || name.n == 0) {
            return false;
        }
        if (h->alpn_count < TLS_HELLO_ALPN_MAX) {
            h->alpn[h->alpn_count++] = view(name);
        }
    }
    return true;
}

static bool parse_extensions(struct reader exts, struct tls_hello *h)
{
    bool seen_name = false, seen_alpn = false;
    while (exts.n) {
        uint32_t type = number(&exts, 2);
        struct reader body = vector(&exts, 2);
        if (exts.bad) {
            return false;
        }
        // RFC 8446 §4.2: no extension twice.
        if (type == EXT_SERVER_NAME && (seen_name || !parse_server_name(body, h))) {
            return false;
        }
        if (type == EXT_ALPN && (seen_alpn || !parse_alpn(body, h))) {
            return false;
        }
        seen_name = seen_name || type == EXT_SERVER_NAME;
        seen_alpn = seen_alpn || type == EXT_ALPN;
    }
    return true;
}

// The body of a whole ClientHello.
static bool parse_body(struct reader r, struct tls_hello *h)
{
    take(&r, 2 + 32); // legacy_version, random
    struct reader session = vector(&r, 1), ciphers = vector(&r, 2), compression = vector(&r, 1);
    if (r.bad || session.n > 32 || ciphers.n < 2 || ciphers.n % 2 || compression.n < 1) {
        return false;
    }
    if (r.n == 0) {
        return true; // TLS 1.2 without extensions
    }
    struct reader exts = vector(&r, 2);
    return !r.bad && r.n == 0 && parse_extensions(exts, h);
}

// What the records hold of the message so far. Its length stands in the first four bytes of the handshake, which may come in pieces too.
struct scan {
    size_t records, have; // handshake bytes seen
    unsigned char head[HANDSHAKE_HEADER];
    size_t need;          // of the message with its header, 0 = not known yet
};

// false: not TLS.
static bool scan_record(struct scan *s, const unsigned char *p, size_t n, size_t len)
{
    for (size_t i = 0; i < n && s->have + i < HANDSHAKE_HEADER; i++) {
        s->head[s->have + i] = p[i];
    }
    s->have += n;
    s->records++;
    if (s->have >= 1 && s->head[0] != TYPE_CLIENT_HELLO) {
        return false;
    }
    if (s->have >= HANDSHAKE_HEADER && !s->need) {
        s->need = HANDSHAKE_HEADER + ((size_t)s->head[1] << 16 | (size_t)s->head[2] << 8 | s->head[3]);
    }
    return len > 0 && len <= RECORD_BYTES_MAX && s->records <= TLS_HELLO_RECORDS_MAX && s->need <= TLS_HELLO_BYTES_MAX;
}

static bool record_header_fits(const unsigned char *p, size_t n)
{
    return (n < 1 || p[0] == TYPE_HANDSHAKE) && (n < 2 || p[1] == 3) && (n < 3 || p[2] <= 4);
}

// The message in one piece, from several records.
static char *join(struct str bytes, size_t need)
{
    char *out = mem_alloc(need);
    size_t at = 0;
    for (size_t off = 0; at < need;) {
        size_t len = (size_t)(unsigned char)bytes.p[off + 3] << 8 | (unsigned char)bytes.p[off + 4];
        size_t n = len < need - at ? len : need - at;
        memcpy(out + at, bytes.p + off + RECORD_HEADER, n);
        at += n;
        off += RECORD_HEADER + len;
    }
    return out;
}

enum tls_hello_result tls_hello_parse(struct str bytes, struct tls_hello *ret)
{
    const unsigned char *p = (const unsigned char *)bytes.p;
    struct scan s = { 0 };
    for (size_t off = 0;;) {
        size_t left = bytes.n - off;
        if (!record_header_fits(p + off, left)) {
            return TLS_HELLO_NOT_TLS;
        }
        if (left < RECORD_HEADER) {
            return TLS_HELLO_MORE;
        }
        size_t len = (size_t)p[off + 3] << 8 | p[off + 4];
        size_t n = len < left - RECORD_HEADER ? len : left - RECORD_HEADER;
        if (!scan_record(&s, p + off + RECORD_HEADER, n, len)) {
            return TLS_HELLO_NOT_TLS;
        }
        if (s.need && s.have >= s.need) {
            break;
        }
        if (n < len) {
            return TLS_HELLO_MORE;
        }
        off += RECORD_HEADER + len;
    }
    struct tls_hello h = { .joined = s.records > 1 ? join(bytes, s.need) : NULL };
    const char *message = h.joined ? h.joined : bytes.p + RECORD_HEADER;
    struct reader r = { .p = (const unsigned char *)message + HANDSHAKE_HEADER, .n = s.need - HANDSHAKE_HEADER };
    if (!parse_body(r, &h)) {
        tls_hello_fini(&h);
        return TLS_HELLO_NOT_TLS;
    }
    *ret = h;
    return TLS_HELLO_FOUND;
}

void tls_hello_fini(struct tls_hello *h)
{
    free(h->joined);
    h->joined = NULL;
}
