// SPDX-License-Identifier: Apache-2.0
// CheckRequest, written field by field: no message is made that would only be walked once, and texts may hold NUL.
#include <stdlib.h>

#include "proxy/authz/check.h"

// Field numbers of envoy.service.auth.v3 and of what it holds.
enum {
    REQUEST_ATTRIBUTES = 1,
    ATTR_SOURCE = 1, ATTR_DESTINATION = 2, ATTR_REQUEST = 4, ATTR_EXTENSIONS = 10, ATTR_METADATA = 11, ATTR_TLS = 12, ATTR_ROUTE_METADATA = 13,
    PEER_ADDRESS = 1, PEER_SERVICE = 2, PEER_LABELS = 3, PEER_PRINCIPAL = 4, PEER_CERTIFICATE = 5,
    ADDRESS_SOCKET = 1, SOCKET_ADDRESS = 2, SOCKET_PORT = 3,
    REQ_TIME = 1, REQ_HTTP = 2, TIME_SECONDS = 1, TIME_NANOS = 2,
    HTTP_ID = 1, HTTP_METHOD = 2, HTTP_HEADERS = 3, HTTP_PATH = 4, HTTP_HOST = 5, HTTP_SCHEME = 6, HTTP_SIZE = 9, HTTP_PROTOCOL = 10,
    HTTP_BODY = 11, HTTP_RAW_BODY = 12, HTTP_HEADER_MAP = 13, MAP_HEADERS = 1, HEADER_KEY = 1, HEADER_RAW = 3,
    PAIR_KEY = 1, PAIR_VALUE = 2, TLS_SNI = 1, METADATA_FILTER = 1,
    WIRE_VARINT = 0, WIRE_BYTES = 2,
    VARINT_MAX = 10, LENGTH_ROOM = 1, FIRST_ROOM = 1024,
};

struct out { // grows in the arena
    struct arena *a;
    char *p;
    size_t n, cap;
};

static void room(struct out *o, size_t n)
{
    if (o->cap - o->n >= n) {
        return;
    }
    size_t cap = o->cap * 2 > o->n + n ? o->cap * 2 : o->n + n + FIRST_ROOM;
    char *p = arena_alloc(o->a, cap);
    if (o->n) {
        memcpy(p, o->p, o->n);
    }
    o->p = p;
    o->cap = cap;
}

static void put_varint(struct out *o, uint64_t v)
{
    room(o, VARINT_MAX);
    for (; v >= 0x80; v >>= 7) {
        o->p[o->n++] = (char)(v | 0x80);
    }
    o->p[o->n++] = (char)v;
}

static void put_number(struct out *o, unsigned field, uint64_t v)
{
    if (v) {
        put_varint(o, field << 3 | WIRE_VARINT);
        put_varint(o, v);
    }
}

// Also when it is empty.
static void put_bytes(struct out *o, unsigned field, struct str s)
{
    put_varint(o, field << 3 | WIRE_BYTES);
    put_varint(o, s.n);
    room(o, s.n);
    if (s.n) {
        memcpy(o->p + o->n, s.p, s.n);
        o->n += s.n;
    }
}

static void put_text(struct out *o, unsigned field, struct str s)
{
    if (s.n) {
        put_bytes(o, field, check_utf8(s, o->a));
    }
}

// A message within: what is written until end() is its content. Most are short, so one byte is left for the length.
static size_t begin(struct out *o, unsigned field)
{
    put_varint(o, field << 3 | WIRE_BYTES);
    room(o, LENGTH_ROOM);
    o->n += LENGTH_ROOM;
    return o->n;
}

static void end(struct out *o, size_t at)
{
    size_t n = o->n - at, more = 0;
    for (size_t v = n; v >= 0x80; v >>= 7) {
        more++;
    }
    if (more) {
        room(o, more);
        memmove(o->p + at + more, o->p + at, n);
    }
    struct out length = { .a = o->a, .p = o->p + at - LENGTH_ROOM, .cap = VARINT_MAX };
    put_varint(&length, n);
    o->n += more;
}

static void put_pairs(struct out *o, unsigned field, const struct check_pair *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t at = begin(o, field);
        put_text(o, PAIR_KEY, v[i].key);
        put_text(o, PAIR_VALUE, v[i].value);
        end(o, at);
    }
}

static void put_address(struct out *o, const struct addr *addr)
{
    char text[ADDR_TEXT_MAX];
    size_t address = begin(o, PEER_ADDRESS), socket = begin(o, ADDRESS_SOCKET);
    put_text(o, SOCKET_ADDRESS, str_c(addr_ip_text(addr, text)));
    put_number(o, SOCKET_PORT, addr->port);
    end(o, socket);
    end(o, address);
}

static void put_peer(struct out *o, unsigned field, const struct check_peer *p)
{
    size_t at = begin(o, field);
    put_address(o, &p->addr);
    put_text(o, PEER_SERVICE, p->service);
    put_pairs(o, PEER_LABELS, p->labels, p->label_count);
    put_text(o, PEER_PRINCIPAL, p->principal);
    put_text(o, PEER_CERTIFICATE, p->certificate);
    end(o, at);
}

// Envoy's map has one value for a name: those of further fields behind a comma.
static struct str joined(const struct check_http *h, size_t i, struct arena *a)
{
    size_t bytes = 0, count = 0;
    for (size_t k = i; k < h->header_count; k++) {
        if (str_eq(h->headers[k].key, h->headers[i].key)) {
            bytes += h->headers[k].value.n + 1;
            count++;
        }
    }
    if (count == 1) {
        return h->headers[i].value;
    }
    char *p = arena_alloc(a, bytes);
    size_t n = 0;
    for (size_t k = i; p && k < h->header_count; k++) {
        struct str v = h->headers[k].value;
        if (!str_eq(h->headers[k].key, h->headers[i].key)) {
            continue;
        }
        if (n) {
            p[n++] = ',';
        }
        if (v.n) {
            memcpy(p + n, v.p, v.n);
            n += v.n;
        }
    }
    return str_n(p, n);
}

static bool seen_before(const struct check_http *h, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (str_eq(h->headers[k].key, h->headers[i].key)) {
            return true;
        }
    }
    return false;
}

static void put_headers(struct out *o, const struct check_http *h)
{
    static const struct str partial = STR_INIT("x-envoy-auth-partial-body");
    struct str said = h->partial ? STR("true") : STR("false");
    if (h->raw) {
        size_t map = begin(o, HTTP_HEADER_MAP);
        for (size_t i = 0; i < h->header_count + h->has_body; i++) {
            size_t at = begin(o, MAP_HEADERS);
            put_text(o, HEADER_KEY, i < h->header_count ? h->headers[i].key : partial);
            put_bytes(o, HEADER_RAW, i < h->header_count ? h->headers[i].value : said);
            end(o, at);
        }
        end(o, map);
        return;
    }
    for (size_t i = 0; i < h->header_count; i++) {
        if (!seen_before(h, i)) {
            put_pairs(o, HTTP_HEADERS, &(struct check_pair){ h->headers[i].key, joined(h, i, o->a) }, 1);
        }
    }
    if (h->has_body) {
        put_pairs(o, HTTP_HEADERS, &(struct check_pair){ partial, said }, 1);
    }
}

static void put_http(struct out *o, const struct check_http *h)
{
    char id[24];
    size_t n = sizeof(id), at = begin(o, REQ_HTTP);
    uint64_t v = h->id;
    do {
        id[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    put_text(o, HTTP_ID, str_n(id + n, sizeof(id) - n));
    put_text(o, HTTP_METHOD, h->method);
    put_headers(o, h);
    put_text(o, HTTP_PATH, h->path);
    put_text(o, HTTP_HOST, h->host);
    put_text(o, HTTP_SCHEME, h->scheme);
    put_number(o, HTTP_SIZE, h->size);
    put_text(o, HTTP_PROTOCOL, h->protocol);
    if (h->has_body && h->body_as_bytes && h->body.n) {
        put_bytes(o, HTTP_RAW_BODY, h->body);
    } else if (h->has_body) {
        put_text(o, HTTP_BODY, h->body);
    }
    end(o, at);
}

static void put_request(struct out *o, const struct check_question *q)
{
    size_t at = begin(o, ATTR_REQUEST), time = begin(o, REQ_TIME);
    put_number(o, TIME_SECONDS, q->time_ms / 1000);
    put_number(o, TIME_NANOS, q->time_ms % 1000 * 1000000);
    end(o, time);
    put_http(o, q->http);
    end(o, at);
}

struct str check_question_pack(const struct check_question *q, struct arena *a)
{
    struct out o = { .a = a };
    room(&o, FIRST_ROOM);
    size_t at = begin(&o, REQUEST_ATTRIBUTES);
    put_peer(&o, ATTR_SOURCE, &q->source);
    put_peer(&o, ATTR_DESTINATION, &q->destination);
    if (q->http) {
        put_request(&o, q);
    }
    put_pairs(&o, ATTR_EXTENSIONS, q->extensions, q->extension_count);
    put_bytes(&o, ATTR_METADATA, q->metadata); // said also when there is nothing in it
    if (q->has_tls) {
        size_t tls = begin(&o, ATTR_TLS);
        put_text(&o, TLS_SNI, q->sni);
        end(&o, tls);
    }
    if (q->http) {
        put_bytes(&o, ATTR_ROUTE_METADATA, q->route_metadata);
    }
    end(&o, at);
    return str_n(o.p, o.n);
}

struct str check_certificate(struct str pem, struct arena *a)
{
    static const char special[] = "\n +/=", hex[] = "0123456789ABCDEF"; // all that PEM has of them
    char *out = arena_alloc(a, pem.n * 3 + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < pem.n; i++) {
        unsigned char c = (unsigned char)pem.p[i];
        if (c && strchr(special, c)) {
            out[n++] = '%';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        } else {
            out[n++] = (char)c;
        }
    }
    return str_n(out, n);
}

static void put_space(struct out *o, struct str space, const struct metadata_value *v)
{
    if (v->kind == MV_STRUCT) {
        size_t at = begin(o, METADATA_FILTER);
        put_text(o, PAIR_KEY, space);
        put_bytes(o, PAIR_VALUE, v->bytes);
        end(o, at);
    }
}

struct str check_metadata(const struct stream_info *info, const struct str *spaces, size_t n, struct arena *a)
{
    struct out o = { .a = a };
    for (size_t i = 0; i < n; i++) {
        const struct metadata_value v = stream_info_metadata_find(info, spaces[i], NULL, 0);
        put_space(&o, spaces[i], &v);
    }
    return str_n(o.p, o.n);
}

struct str check_metadata_of(struct str metadata, const struct str *spaces, size_t n, struct arena *a)
{
    struct out o = { .a = a };
    for (size_t i = 0; i < n; i++) {
        const struct metadata_value v = metadata_find(metadata, spaces[i], str_n(NULL, 0));
        put_space(&o, spaces[i], &v);
    }
    return str_n(o.p, o.n);
}

// Length of the valid character that begins at s.p[0], 0 when there is none (Unicode §3.9, table 3-7).
static size_t character(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    unsigned char c = p[0];
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c <= 0xdf ? 2 : c >= 0xe0 && c <= 0xef ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
    if (n == 0 || n > s.n) {
        return 0;
    }
    if (n > 1 && ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) || (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f))) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

struct str check_utf8(struct str s, struct arena *a)
{
    char *copy = NULL;
    for (size_t i = 0, n; i < s.n; i += n ? n : 1) {
        n = character(str_skip(s, i));
        if (!n && !copy) {
            copy = (char *)arena_str(a, s).p;
        }
        if (!n && copy) {
            copy[i] = '!';
        }
    }
    return copy ? str_n(copy, s.n) : s;
}
