// SPDX-License-Identifier: Apache-2.0
// HTTP/1 writers. A head is sized first and written into one reserved piece; only heads larger than a slice go piecewise.
#include "lib/http/chars.h"
#include "lib/http/h1_parser.h"
#include "lib/http/scan.h"
#include "lib/http/status.h"

enum { PIECE_MAX = BUF_SLICE_ROOM, FRAMING_ROOM = 256 };

// Field ids that are never copied from the list.
#define BIT(id) (1ull << (id))
static const uint64_t own_ids = BIT(HDR_HOST) | BIT(HDR_CONTENT_LENGTH) | BIT(HDR_TRANSFER_ENCODING) | BIT(HDR_CONNECTION) |
                                BIT(HDR_KEEP_ALIVE) | BIT(HDR_PROXY_CONNECTION) | BIT(HDR_TE) | BIT(HDR_TRAILER) |
                                BIT(HDR_UPGRADE) | BIT(HDR_HTTP2_SETTINGS);

struct out {
    struct buf *b;
    char *p, *start, *end;
    bool proper, own_proper; // names of the list, names we make: Every-Word
};

static void out_begin(struct out *o, struct buf *b, size_t estimate)
{
    size_t room;
    o->b = b;
    o->start = o->p = buf_reserve(b, estimate < PIECE_MAX ? estimate : PIECE_MAX, &room);
    o->end = o->p + room;
}

static void out_end(struct out *o)
{
    buf_commit(o->b, (size_t)(o->p - o->start));
}

static __attribute__((noinline, cold)) void put_slow(struct out *o, const char *p, size_t n)
{
    out_end(o);
    buf_append(o->b, p, n);
    out_begin(o, o->b, 1);
}

static __attribute__((noinline, cold)) void make_room(struct out *o, size_t n)
{
    out_end(o);
    out_begin(o, o->b, n);
}

// Whether n bytes fit in one piece behind p; n beyond PIECE_MAX never do.
static inline bool has_room(struct out *o, size_t n)
{
    if (__builtin_expect((size_t)(o->end - o->p) >= n, 1)) {
        return true;
    }
    if (n > PIECE_MAX) {
        return false;
    }
    make_room(o, n);
    return true;
}

// Most names and values are shorter than a call of memcpy is worth. Pieces overlap at the end.
static inline void copy(char *to, const char *from, size_t n)
{
    if (n >= SCAN_BYTES) {
        if (n > 3 * SCAN_BYTES) {
            memcpy(to, from, n);
            return;
        }
        memcpy(to, from, SCAN_BYTES);
        if (n > 2 * SCAN_BYTES) {
            memcpy(to + SCAN_BYTES, from + SCAN_BYTES, SCAN_BYTES);
        }
        memcpy(to + n - SCAN_BYTES, from + n - SCAN_BYTES, SCAN_BYTES);
    } else if (n >= 8) {
        memcpy(to, from, 8);
        memcpy(to + n - 8, from + n - 8, 8);
    } else if (n >= 4) {
        memcpy(to, from, 4);
        memcpy(to + n - 4, from + n - 4, 4);
    } else if (n) {
        to[0] = from[0];
        to[n / 2] = from[n / 2];
        to[n - 1] = from[n - 1];
    }
}

static inline void put(struct out *o, const char *p, size_t n)
{
    if (__builtin_expect((size_t)(o->end - o->p) < n, 0)) {
        put_slow(o, p, n);
    } else {
        copy(o->p, p, n);
        o->p += n;
    }
}
static inline void put_str(struct out *o, struct str s)
{
    put(o, s.p, s.n);
}
// Where room is known to be.
static inline void put_known(struct out *o, const char *p, size_t n)
{
    memcpy(o->p, p, n);
    o->p += n;
}
#define put_lit(o, lit) (has_room((o), sizeof(lit) - 1) ? put_known((o), (lit), sizeof(lit) - 1) : (void)0)

static void put_u64(struct out *o, uint64_t v)
{
    enum { DIGITS = 20 };
    size_t n = 1;
    for (uint64_t x = v; x >= 10; x /= 10) {
        n++;
    }
    if (has_room(o, DIGITS)) {
        o->p += n;
        for (char *p = o->p; n; n--) {
            *--p = (char)('0' + v % 10);
            v /= 10;
        }
    }
}

static inline bool breaks_line(char c)
{
    return c == '\r' || c == '\n' || c == '\0';
}

static __attribute__((noinline, cold)) void put_cleaned(struct out *o, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = breaks_line(s.p[i]) ? ' ' : s.p[i];
        put(o, &c, 1);
    }
}

// Copies n bytes; true when one of them is below 0x20.
static inline bool copy_text(char *to, const char *from, size_t n)
{
    scan_v low;
    if (n < SCAN_BYTES) {
        low = (scan_v)(scan_load_short(from, n) <= SCAN_ALL(0x1f));
    } else {
        low = (scan_v)(scan_load(from + n - SCAN_BYTES) <= SCAN_ALL(0x1f));
        for (size_t i = 0; i + SCAN_BYTES < n; i += SCAN_BYTES) {
            low |= (scan_v)(scan_load(from + i) <= SCAN_ALL(0x1f));
        }
    }
    copy(to, from, n);
    return scan_bits(low) != 0;
}

// Text that must stay on its line. Fields from our own parser are clean; those a filter or policy made may not be.
static inline void put_text(struct out *o, struct str s)
{
    if (__builtin_expect(!has_room(o, s.n) || copy_text(o->p, s.p, s.n), 0)) { // it may be only a tab
        put_cleaned(o, s);
    } else {
        o->p += s.n;
    }
}

static inline bool is_target(struct str s)
{
    scan_v bad;
    if (s.n < SCAN_BYTES) {
        bad = scan_v_not_target(scan_load_short(s.p, s.n));
    } else {
        bad = scan_v_not_target(scan_load(s.p + s.n - SCAN_BYTES));
        for (size_t i = 0; i + SCAN_BYTES < s.n; i += SCAN_BYTES) {
            bad |= scan_v_not_target(scan_load(s.p + i));
        }
    }
    return scan_bits(bad) == 0;
}

// Request-line parts: what may not stand there goes out percent-encoded, so that a rewritten path cannot end the line.
static __attribute__((noinline, cold)) void put_escaped(struct out *o, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        char esc[3] = { '%', "0123456789ABCDEF"[c >> 4], "0123456789ABCDEF"[c & 15] };
        bool plain = ch_is(s.p[i], CH_PATH);
        put(o, plain ? &s.p[i] : esc, plain ? 1 : 3);
    }
}

static inline void put_target(struct out *o, struct str s)
{
    if (__builtin_expect(is_target(s), 1)) {
        put_str(o, s);
    } else {
        put_escaped(o, s);
    }
}

static bool is_token(struct str s)
{
    bool ok = s.n > 0;
    for (size_t i = 0; i < s.n; i++) {
        ok &= ch_is(s.p[i], CH_TOKEN);
    }
    return ok;
}

static void set_names(struct out *o, enum h1_names names, bool capital)
{
    o->proper = names == H1_NAMES_PROPER;
    o->own_proper = o->proper || (names == H1_NAMES_PRESERVE && capital);
}

// The first letter and each behind a byte that is no letter or digit in upper case, as Envoy's ProperCaseWords.
static __attribute__((noinline)) void put_proper(struct out *o, struct str name)
{
    bool start = true;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i], low = (char)(c | 0x20);
        bool letter = low >= 'a' && low <= 'z';
        c = letter && start ? (char)(c & ~0x20) : c;
        put(o, &c, 1);
        start = !letter && !(c >= '0' && c <= '9');
    }
}

static inline void put_name(struct out *o, struct str name, bool proper)
{
    if (__builtin_expect(proper, 0)) {
        put_proper(o, name);
    } else {
        put_str(o, name);
    }
}
#define put_own(o, lit) put_name((o), STR(lit), (o)->own_proper)

static inline bool is_own(const struct hdr *x)
{
    return x->removed || (x->id == HDR_OTHER ? !is_token(x->name) : x->id < 64 && (own_ids & BIT(x->id)) != 0);
}

// The field stands in the text it came in as it would be written.
static inline bool is_whole(const struct hdr *x)
{
    return x->wire && x->value.p == x->name.p + x->name.n + 2 && x->value.p[x->value.n] == '\r';
}

// Fields that came behind one another and go on unchanged are one piece. Returns how many, 0 when v[0] is none.
static inline uint32_t put_run(struct out *o, const struct hdr *v, uint32_t n)
{
    const char *end = v->name.p;
    uint32_t i = 0;
    while (i < n && v[i].name.p == end && is_whole(&v[i]) && !v[i].removed && (v[i].id == HDR_OTHER || !is_own(&v[i]))) {
        end = v[i].value.p + v[i].value.n + 2;
        i++;
    }
    put(o, v->name.p, (size_t)(end - v->name.p));
    return i;
}

// There is room for the whole line.
static inline void put_line(struct out *o, struct str name, struct str value)
{
    char *p = o->p;
    copy(p, name.p, name.n);
    p += name.n;
    memcpy(p, ": ", 2);
    p += 2;
    if (__builtin_expect(copy_text(p, value.p, value.n), 0)) { // it may be only a tab
        o->p = p;
        put_cleaned(o, value);
        put_lit(o, "\r\n");
        return;
    }
    p += value.n;
    memcpy(p, "\r\n", 2);
    o->p = p + 2;
}

static void put_fields(struct out *o, const struct headers *h)
{
    for (uint32_t i = 0; i < h->count; i++) {
        const struct hdr *x = &h->v[i];
        if (x->wire && !o->proper) {
            uint32_t n = put_run(o, x, h->count - i);
            if (n) {
                i += n - 1;
                continue;
            }
        }
        if (is_own(x)) {
            continue;
        }
        if (!o->proper && has_room(o, x->name.n + x->value.n + 4)) {
            put_line(o, x->name, x->value);
            continue;
        }
        put_name(o, x->name, o->proper);
        put_lit(o, ": ");
        put_text(o, x->value);
        put_lit(o, "\r\n");
    }
}

// Connection with all its options in one field, Upgrade, and the empty line.
static __attribute__((noinline)) void put_options(struct out *o, const struct h1_write_opts *w, struct str upgrade, bool te, bool up)
{
    if (up) {
        put_own(o, "upgrade: ");
        put_text(o, upgrade);
        put_lit(o, "\r\n");
    }
    if (te) {
        put_own(o, "te: ");
        put_lit(o, "trailers\r\n");
    }
    if (w->close || w->keep_alive_10 || up || te) {
        const char *sep = "";
        put_own(o, "connection: ");
        const struct {
            bool on;
            const char *name;
        } opts[] = { { w->close, "close" }, { w->keep_alive_10 && !w->close, "keep-alive" }, { up, "upgrade" }, { te, "te" } };
        for (size_t i = 0; i < sizeof(opts) / sizeof(opts[0]); i++) {
            if (opts[i].on) {
                put_str(o, str_c(sep));
                put_str(o, str_c(opts[i].name));
                sep = ", ";
            }
        }
        put_lit(o, "\r\n");
    }
}

static inline void put_connection(struct out *o, const struct h1_write_opts *w, struct str upgrade, bool te)
{
    bool up = w->upgrade && upgrade.n;
    if (up || te || w->close || w->keep_alive_10) {
        put_options(o, w, upgrade, te, up);
    }
    put_lit(o, "\r\n");
}

static size_t head_estimate(const struct headers *h, struct str a, struct str b, struct str c, struct str d)
{
    return h->bytes + (size_t)h->count * 4 + a.n + b.n + c.n + d.n + FRAMING_ROOM;
}

static void put_length(struct out *o, uint64_t n)
{
    put_own(o, "content-length: ");
    put_u64(o, n);
    put_lit(o, "\r\n");
}

static void put_chunked(struct out *o)
{
    put_own(o, "transfer-encoding: ");
    put_lit(o, "chunked\r\n");
}

void h1_write_request_as(struct buf *b, const struct http_request *r, const struct h1_write_opts *w, const struct h1_request_as *as)
{
    struct out o;
    out_begin(&o, b, head_estimate(&r->headers, r->method, r->host, r->path, r->upgrade));
    set_names(&o, w->names, r->capital_names);
    if (__builtin_expect(is_token(r->method), 1)) { // '#' may stand in a method, not in a target
        put_str(&o, r->method);
    } else {
        put_target(&o, r->method);
    }
    put_lit(&o, " ");
    put_target(&o, r->path.n ? r->path : r->host); // authority-form for CONNECT
    put_str(&o, as->version == HTTP_10 ? STR(" HTTP/1.0\r\n") : STR(" HTTP/1.1\r\n"));
    if (r->host.n || as->version != HTTP_10) {
        put_own(&o, "host: ");
        put_target(&o, r->host);
        put_lit(&o, "\r\n");
    }
    put_fields(&o, &r->headers);
    if (w->chunked) {
        put_chunked(&o);
    } else if (as->content_length >= 0) {
        put_length(&o, (uint64_t)as->content_length);
    }
    if (as->expect_continue) {
        put_own(&o, "expect: ");
        put_lit(&o, "100-continue\r\n");
    }
    put_connection(&o, w, r->upgrade, r->te_trailers);
    out_end(&o);
}

void h1_write_request(struct buf *b, const struct http_request *r, const struct h1_write_opts *w)
{
    h1_write_request_as(b, r, w, &(struct h1_request_as){ r->version, r->content_length, r->expect_continue });
}

void h1_write_response_as(struct buf *b, const struct http_response *r, const struct h1_write_opts *w, const struct h1_response_as *as)
{
    struct out o;
    struct str reason = str_c(http_reason(r->status));
    out_begin(&o, b, head_estimate(&r->headers, reason, r->upgrade, (struct str){ 0 }, (struct str){ 0 }));
    set_names(&o, w->names, r->capital_names);
    put_str(&o, as->version == HTTP_10 ? STR("HTTP/1.0 ") : STR("HTTP/1.1 "));
    if (__builtin_expect(r->status == 200, 1)) {
        put_lit(&o, "200");
    } else {
        put_u64(&o, r->status);
    }
    put_lit(&o, " ");
    put_str(&o, reason);
    put_lit(&o, "\r\n");
    put_fields(&o, &r->headers);
    if (r->status >= 200 && r->status != 204) { // RFC 9110 §8.6: no length in 1xx and 204
        if (w->chunked) {
            put_chunked(&o);
        } else if (as->content_length >= 0) {
            put_length(&o, (uint64_t)as->content_length);
        } else if (as->end_stream && !w->head_request && r->status != 304) {
            put_length(&o, 0);
        } else if (w->head_request && r->status != 304 && r->version != HTTP_10) {
            put_chunked(&o); // RFC 9112 §6.1: as it would be for GET
        }
    }
    put_connection(&o, w, r->upgrade, false);
    out_end(&o);
}

void h1_write_response(struct buf *b, const struct http_response *r, const struct h1_write_opts *w)
{
    h1_write_response_as(b, r, w, &(struct h1_response_as){ r->version, r->content_length, r->end_stream });
}

void h1_write_body(struct buf *b, struct buf *src, bool chunked)
{
    if (src->len == 0) { // a chunk of size 0 would end the message
        return;
    }
    if (!chunked) {
        buf_move(b, src, src->len);
        return;
    }
    char line[18];
    size_t i = sizeof(line), n = src->len;
    line[--i] = '\n';
    line[--i] = '\r';
    do {
        line[--i] = "0123456789abcdef"[n & 15];
        n >>= 4;
    } while (n);
    buf_append(b, line + i, sizeof(line) - i);
    buf_move(b, src, src->len);
    buf_append(b, "\r\n", 2);
}

void h1_write_end(struct buf *b, const struct headers *trailers, bool chunked)
{
    if (!chunked) {
        return; // trailers cannot be said; RFC 9110 §6.5.1 lets us drop them
    }
    struct out o;
    out_begin(&o, b, (trailers ? trailers->bytes + (size_t)trailers->count * 4 : 0) + 16);
    set_names(&o, H1_NAMES_PLAIN, false); // trailers keep their names
    put_lit(&o, "0\r\n");
    if (trailers) {
        put_fields(&o, trailers);
    }
    put_lit(&o, "\r\n");
    out_end(&o);
}
