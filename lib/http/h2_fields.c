// SPDX-License-Identifier: Apache-2.0
// Header blocks ↔ messages (RFC 9113 §8.2, §8.3): every rule for names, values and pseudo-header fields is here; nghttp2 is told to leave
// them to us. A message that breaks one does not reach an HTTP/1 upstream (threat class T20).
#include "lib/base/mem.h"
#include "lib/http/chars.h"
#include "lib/http/h2_conn.h"
#include "lib/http/scan.h"
#include "lib/http/url.h"

// Fields that filters and the router may add before the list has to move; a request's pseudo-header fields leave some room as well.
enum { ROOM_REQUEST = 9, ROOM_RESPONSE = 4 };
enum { NAMES_AGAIN = 128 }; // heads

// ---- receiving ----

static void drop_fields(struct h2_block *b)
{
    for (uint32_t i = 0; i < b->n; i++) {
        nghttp2_rcbuf_decref(b->v[i].name);
        nghttp2_rcbuf_decref(b->v[i].value);
    }
    b->n = 0;
}

void h2_block_begin(struct h2 *h)
{
    drop_fields(&h->block);
    h->block.bytes = 0;
    h->block.over = 0;
    h->block.too_large = false;
}

void h2_block_fini(struct h2 *h)
{
    drop_fields(&h->block);
    free(h->block.v);
    h->block.v = NULL;
    h->block.cap = 0;
}

void h2_block_add(struct h2 *h, nghttp2_rcbuf *name, nghttp2_rcbuf *value)
{
    struct h2_block *b = &h->block;
    if (b->too_large) { // the rest is decoded, for the table's sake, and dropped
        b->over++;
        return;
    }
    b->bytes += nghttp2_rcbuf_get_buf(name).len + nghttp2_rcbuf_get_buf(value).len;
    if (b->bytes > h->limits->head_bytes || b->n >= h->limits->header_count) {
        b->too_large = true;
        return;
    }
    if (b->n == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 16;
        b->v = mem_realloc(b->v, b->cap * sizeof(*b->v));
    }
    nghttp2_rcbuf_incref(name);
    nghttp2_rcbuf_incref(value);
    b->v[b->n++] = (struct h2_field){ name, value };
}

static struct str view(nghttp2_rcbuf *r)
{
    nghttp2_vec v = nghttp2_rcbuf_get_buf(r);
    return str_n((const char *)v.base, v.len);
}

static bool name_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!ch_is(s.p[i], CH_TOKEN) || (s.p[i] >= 'A' && s.p[i] <= 'Z')) {
            return false;
        }
    }
    return s.n > 0;
}

static bool value_ok(struct str s)
{
    uint32_t bad = 0;
    if (s.n < SCAN_BYTES) {
        bad = scan_bits(scan_v_control(scan_load_short(s.p, s.n)));
    } else {
        for (size_t i = 0; i + SCAN_BYTES <= s.n; i += SCAN_BYTES) {
            bad |= scan_control(s.p + i);
        }
        bad |= scan_control(s.p + s.n - SCAN_BYTES);
    }
    return !bad && (s.n == 0 || (s.p[0] != ' ' && s.p[0] != '\t' && s.p[s.n - 1] != ' ' && s.p[s.n - 1] != '\t'));
}

struct head { // what the fields said
    struct arena *a;
    struct headers *list;
    struct str method, scheme, path, authority, protocol, status, host;
    struct str cookies[64];
    unsigned n_cookies;
    size_t cookie_bytes;
    int64_t length;
    bool has_host, has_authority, has_path, has_scheme, has_protocol, expect, te_trailers, request, allow_connect;
};

static const char *take_pseudo(struct head *m, struct str name, struct str value)
{
    struct str *to = NULL;
    bool *flag = NULL;
    if (m->request) {
        if (str_eq(name, STR(":method"))) {
            to = &m->method;
        } else if (str_eq(name, STR(":scheme"))) {
            to = &m->scheme;
            flag = &m->has_scheme;
        } else if (str_eq(name, STR(":path"))) {
            to = &m->path;
            flag = &m->has_path;
        } else if (str_eq(name, STR(":authority"))) {
            to = &m->authority;
            flag = &m->has_authority;
        } else if (m->allow_connect && str_eq(name, STR(":protocol"))) { // RFC 8441 §3: only where we offered it
            to = &m->protocol;
            flag = &m->has_protocol;
        }
    } else if (str_eq(name, STR(":status"))) {
        to = &m->status;
    }
    if (!to || to->p || (flag && *flag)) {
        return "http2.invalid_pseudo_header";
    }
    if (flag) {
        *flag = true;
    }
    *to = arena_str(m->a, value);
    return to->p ? NULL : "http2.headers_too_large";
}

static const char *take_cookie(struct head *m, struct str value)
{
    if (value.n == 0) {
        return NULL; // joined as the last one it would leave a value that ends in a space, which §8.2.1 forbids to send on
    }
    if (m->n_cookies == array_len(m->cookies)) {
        return "http2.too_many_cookies";
    }
    m->cookies[m->n_cookies++] = value;
    m->cookie_bytes += value.n + 2;
    return NULL;
}

static const char *take_special(struct head *m, enum hdr_id id, struct str value, bool *ret_taken)
{
    uint64_t n;
    *ret_taken = true;
    switch (id) {
    case HDR_CONNECTION:
    case HDR_KEEP_ALIVE:
    case HDR_PROXY_CONNECTION:
    case HDR_TRANSFER_ENCODING:
    case HDR_UPGRADE:
    case HDR_HTTP2_SETTINGS: // RFC 9113 §8.2.2
        return "http2.connection_specific_field";
    case HDR_HOST:
        if (m->request && m->has_host) {
            return "http2.duplicate_host";
        }
        m->has_host = true;
        m->host = value;
        return NULL;
    case HDR_CONTENT_LENGTH:
        if (m->length >= 0 || value.n == 0 || value.n > 19 || !str_to_u64(value, INT64_MAX, &n)) {
            return "http2.invalid_content_length";
        }
        m->length = (int64_t)n;
        return NULL;
    case HDR_TE:
        if (!m->request || !str_eq_nocase(value, STR("trailers"))) {
            return "http2.connection_specific_field";
        }
        m->te_trailers = true;
        return NULL;
    case HDR_TRAILER:
        return NULL;
    case HDR_EXPECT:
        if (m->request && str_eq_nocase(value, STR("100-continue"))) {
            m->expect = true;
            return NULL;
        }
        break;
    case HDR_COOKIE:
        if (m->request) {
            return take_cookie(m, value);
        }
        break;
    default:
        break;
    }
    *ret_taken = false;
    return NULL;
}

static void add_field(struct head *m, enum hdr_id id, struct str name, struct str value)
{
    struct str n = id == HDR_OTHER ? arena_str(m->a, name) : hdr_name_of(id), v = arena_str(m->a, value);
    if (!n.p || !v.p) {
        m->list->truncated = true;
        return;
    }
    headers_add_known(m->list, id, n, v);
}

// RFC 9113 §8.2.3.
static void join_cookies(struct head *m)
{
    if (m->n_cookies == 0) {
        return;
    }
    char *p = arena_alloc(m->a, m->cookie_bytes);
    if (!p) {
        m->list->truncated = true;
        return;
    }
    size_t n = 0;
    for (unsigned i = 0; i < m->n_cookies; i++) {
        if (i) {
            p[n++] = ';';
            p[n++] = ' ';
        }
        memcpy(p + n, m->cookies[i].p, m->cookies[i].n);
        n += m->cookies[i].n;
    }
    headers_add_id(m->list, HDR_COOKIE, str_n(p, n));
}

static const char *read_fields(struct h2 *h, struct head *m)
{
    struct h2_block *b = &h->block;
    bool regular = false;
    if (!headers_reserve(m->list, b->n + (m->request ? ROOM_REQUEST : ROOM_RESPONSE))) {
        return "http2.headers_too_large";
    }
    for (uint32_t i = 0; i < b->n; i++) {
        struct str name = view(b->v[i].name), value = view(b->v[i].value);
        if (!value_ok(value)) {
            return "http2.invalid_header_value";
        }
        if (name.n && name.p[0] == ':') {
            const char *e = regular ? "http2.invalid_pseudo_header" : take_pseudo(m, name, value);
            if (e) {
                return e;
            }
            continue;
        }
        regular = true;
        enum hdr_id id = hdr_id_of(name);
        if (id == HDR_OTHER ? !name_ok(name) : memcmp(name.p, hdr_name_of(id).p, name.n) != 0) { // known, but not in lower case
            return "http2.invalid_header_name";
        }
        bool taken;
        const char *e = take_special(m, id, value, &taken);
        if (e) {
            return e;
        }
        if (!taken) {
            add_field(m, id, name, value);
        }
    }
    join_cookies(m);
    return m->list->truncated ? "http2.headers_too_large" : NULL;
}

static const char *check_target(struct head *m, bool connect)
{
    struct str name;
    uint16_t port = 0;
    if (m->has_protocol && (!connect || !m->has_authority || !ch_all(m->protocol, CH_TOKEN))) { // RFC 8441 §4
        return "http2.invalid_connect";
    }
    if (connect && !m->has_protocol) { // RFC 9113 §8.5
        return m->has_path || m->has_scheme || !m->has_authority || !url_split_authority(m->authority, &name, &port) || port == 0
                   ? "http2.invalid_connect" : NULL;
    }
    if (!m->has_path || !m->has_scheme) {
        return "http2.missing_pseudo_header";
    }
    bool star = m->path.n == 1 && m->path.p[0] == '*' && str_is(m->method, "OPTIONS");
    if (!star && (m->path.n == 0 || m->path.p[0] != '/' || !ch_all(m->path, CH_PATH))) {
        return "http2.invalid_path";
    }
    if (str_eq_nocase(m->scheme, STR("http"))) {
        m->scheme = STR("http");
    } else if (str_eq_nocase(m->scheme, STR("https"))) {
        m->scheme = STR("https");
    } else {
        return "http2.invalid_scheme";
    }
    return NULL;
}

static const char *check_authority(struct head *m)
{
    struct str name;
    uint16_t port;
    if (m->has_authority && m->has_host && !str_eq_nocase(m->authority, m->host)) {
        return "http2.host_differs_from_authority";
    }
    if (!m->has_authority && m->has_host) {
        m->authority = arena_str(m->a, m->host);
        m->has_authority = true;
    }
    if (!m->has_authority) {
        return "http2.missing_authority";
    }
    return url_split_authority(m->authority, &name, &port) ? NULL : "http2.invalid_authority";
}

const char *h2_block_request(struct h2 *h, struct arena *a, struct http_request *ret)
{
    struct http_request r = { .version = HTTP_2 };
    headers_init(&r.headers, a);
    struct head m = { .a = a, .list = &r.headers, .length = -1, .request = true, .allow_connect = h->allow_connect };
    const char *e = read_fields(h, &m);
    if (e) {
        return e;
    }
    if (!ch_all(m.method, CH_TOKEN)) {
        return "http2.invalid_method";
    }
    bool connect = str_is(m.method, "CONNECT");
    e = check_target(&m, connect);
    e = e ? e : check_authority(&m);
    if (e) {
        return e;
    }
    r.method = m.method;
    r.scheme = m.scheme;
    r.host = m.authority;
    r.path = m.path;
    r.upgrade = m.protocol;
    r.expect_continue = m.expect;
    r.te_trailers = m.te_trailers;
    r.content_length = m.length;
    *ret = r;
    return NULL;
}

const char *h2_block_response(struct h2 *h, struct arena *a, struct http_response *ret)
{
    struct http_response r = { .version = HTTP_2 };
    headers_init(&r.headers, a);
    struct head m = { .a = a, .list = &r.headers, .length = -1 };
    const char *e = read_fields(h, &m);
    if (e) {
        return e;
    }
    uint64_t status;
    if (m.status.n != 3 || !str_to_u64(m.status, 999, &status) || status < 100 || status == 101) {
        return "http2.invalid_status";
    }
    if ((status < 200 && m.length >= 0) || (status == 204 && m.length > 0)) { // RFC 9110 §8.6
        return "http2.invalid_content_length";
    }
    r.status = (uint16_t)status;
    r.content_length = status < 200 || status == 204 ? -1 : m.length;
    *ret = r;
    return NULL;
}

const char *h2_block_trailers(struct h2 *h, struct arena *a, struct headers *ret)
{
    headers_init(ret, a);
    struct head m = { .a = a, .list = ret };
    for (uint32_t i = 0; i < h->block.n; i++) {
        struct str name = view(h->block.v[i].name), value = view(h->block.v[i].value);
        enum hdr_id id = hdr_id_of(name);
        if (!name_ok(name) || !value_ok(value) || hdr_is_connection_specific(id) || id == HDR_CONTENT_LENGTH || id == HDR_TE) {
            return "http2.invalid_trailer"; // a pseudo-header field is no name either
        }
        if (!hdr_is_bad_trailer(id, name)) {
            add_field(&m, id, name, value);
        }
    }
    return ret->truncated ? "http2.headers_too_large" : NULL;
}

// ---- sending ----

void h2_out_begin(struct h2_out *o, size_t n_fields)
{
    o->n = 0;
    o->cap = n_fields + H2_PSEUDO_MAX;
    o->v = o->cap <= array_len(o->fixed) ? o->fixed : mem_alloc(o->cap * sizeof(*o->v));
}

void h2_out_put(struct h2_out *o, struct str name, struct str value)
{
    o->v[o->n++] = (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name.p, .namelen = name.n,
                                 .value = (uint8_t *)(uintptr_t)value.p, .valuelen = value.n,
                                 .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME };
}

// A name in lower case; empty when it is no token.
static struct str lower_name(struct str s, struct arena *a)
{
    bool upper = false;
    for (size_t i = 0; i < s.n; i++) {
        if (!ch_is(s.p[i], CH_TOKEN)) {
            return str_n(NULL, 0);
        }
        upper |= s.p[i] >= 'A' && s.p[i] <= 'Z';
    }
    if (!upper) {
        return s;
    }
    char *p = arena_alloc(a, s.n);
    for (size_t i = 0; p && i < s.n; i++) {
        p[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 0x20) : s.p[i];
    }
    return str_n(p, p ? s.n : 0);
}

// What may have been made from input by a policy must not end a line behind the next downgrade.
static struct str clean_value(struct str s, struct arena *a)
{
    if (value_ok(s)) {
        return s;
    }
    char *p = arena_alloc(a, s.n);
    for (size_t i = 0; p && i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        p[i] = (c < 0x20 && c != '\t') || c == 0x7f ? ' ' : s.p[i];
    }
    return str_trim(str_n(p, p ? s.n : 0));
}

static bool own_field(enum hdr_id id)
{
    return hdr_is_connection_specific(id) || id == HDR_HOST || id == HDR_CONTENT_LENGTH || id == HDR_TE || id == HDR_TRAILER;
}

// Another value in every message: not worth a place in the peer's table (RFC 7541 §6.2.3), which costs both ends more than it saves.
static bool value_varies(enum hdr_id id)
{
    switch (id) {
    case HDR_X_REQUEST_ID:
    case HDR_X_ENVOY_UPSTREAM_SERVICE_TIME:
    case HDR_X_B3_TRACEID:
    case HDR_X_B3_SPANID:
    case HDR_TRACEPARENT:
        return true;
    default:
        return false;
    }
}

// A name that is in the table is named by its number, also in front of a value that shall not be: so each of these is put there now and then.
static bool keep_out_of_table(struct h2 *h, enum hdr_id id)
{
    if (!value_varies(id)) {
        return false;
    }
    bool named = h->named & HDR_BIT(id);
    h->named |= HDR_BIT(id);
    return named;
}

void h2_out_length(struct h2_out *o, int64_t n, char text[H2_LENGTH_TEXT])
{
    char *p = text + H2_LENGTH_TEXT;
    do {
        *--p = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    h2_out_put(o, STR("content-length"), str_n(p, (size_t)(text + H2_LENGTH_TEXT - p)));
}

void h2_out_fields(struct h2 *h, struct h2_out *o, const struct headers *list)
{
    struct arena *a = &h->scratch;
    if (++h->heads_out % NAMES_AGAIN == 0) {
        h->named = 0; // the table may have dropped them
    }
    for (uint32_t i = 0; i < list->count && o->n < o->cap; i++) {
        const struct hdr *x = &list->v[i];
        if (x->removed || own_field(x->id)) {
            continue;
        }
        struct str name = x->id == HDR_OTHER ? lower_name(x->name, a) : hdr_name_of(x->id);
        if (name.n) {
            h2_out_put(o, name, clean_value(x->value, a));
            if (x->id == HDR_OTHER) {
                o->v[o->n - 1].flags = NGHTTP2_NV_FLAG_NONE; // the name is no constant
            } else if (keep_out_of_table(h, x->id)) {
                o->v[o->n - 1].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
            }
        }
    }
}

void h2_out_end(struct h2_out *o)
{
    if (o->v != o->fixed) {
        free(o->v);
    }
}
