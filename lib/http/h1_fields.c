// SPDX-License-Identifier: Apache-2.0
// Start lines, fields and framing rules of HTTP/1 (RFC 9112 §3–§6). One pass; views point into the text.
#include "lib/http/h1_fields.h"

#include <stddef.h>

#include "lib/http/chars.h"
#include "lib/http/scan.h"
#include "lib/http/url.h"

enum { CONNECTION_FIELDS_MAX = 8, PREALLOC_REQUEST = 24, PREALLOC_RESPONSE = 10 };

// What the fields of one message said about framing and the connection.
struct fields {
    bool host, content_length, chunked, upgrade, upgrade_twice, expect;
    bool capital;                         // of Host, Content-Length or Transfer-Encoding
    bool close, keep_alive, conn_upgrade; // options of Connection
    uint64_t length;
    unsigned n_connection;
    struct str host_value, upgrade_value;
    struct str connection[CONNECTION_FIELDS_MAX]; // n_connection of them are set
};

static inline void fields_init(struct fields *f)
{
    memset(f, 0, offsetof(struct fields, connection));
}

// ---- bytes ----

_Static_assert((int)H1_FIELDS_PAD >= (int)SCAN_BYTES, "a scan that begins in the text ends in the padding");

// The first control byte but HTAB. The text ends with CRLF, so there is one.
static inline const char *find_ctl(const char *p)
{
    uint32_t found;
    while (!(found = scan_control(p))) {
        p += SCAN_BYTES;
    }
    return p + scan_first(found);
}

// The first byte that no request target has.
static inline const char *find_not_target(const char *p)
{
    uint32_t found;
    while (!(found = scan_not_target(p))) {
        p += SCAN_BYTES;
    }
    return p + scan_first(found);
}

// Why the control byte at p is not a line's end; H1_OK when it is.
static enum h1_error line_end(const char *p, enum h1_error other)
{
    if (p[0] == '\r') {
        return p[1] == '\n' ? H1_OK : H1_ERR_BARE_CR;
    }
    return p[0] == '\0' ? H1_ERR_NUL : other;
}

static inline bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static __attribute__((noinline)) struct str trim(const char *p, const char *end)
{
    while (p < end && is_blank(*p)) {
        p++;
    }
    while (p < end && is_blank(end[-1])) {
        end--;
    }
    return str_n(p, (size_t)(end - p));
}

// ---- single fields ----

// Digits only, below 2^63 (RFC 9110 §8.6). A list of equal values is refused too: it is a sign of merged messages.
static enum h1_error take_content_length(const struct h1_parser *p, struct fields *f, struct str v)
{
    uint64_t length;
    if (f->content_length && !p->limits.lenient) {
        return H1_ERR_CL_DUPLICATE;
    }
    if (v.n == 0 || v.n > 19 || !str_to_u64(v, INT64_MAX, &length)) {
        return H1_ERR_CL_INVALID;
    }
    if (f->content_length && f->length != length) {
        return H1_ERR_CL_DUPLICATE;
    }
    f->length = length;
    f->content_length = true;
    return H1_OK;
}

// Exactly one field with exactly "chunked": everything else has been read in more than one way (RFC 9112 §6.1, §6.3).
static enum h1_error take_transfer_encoding(struct fields *f, struct str v)
{
    if (f->chunked || !str_eq_nocase(v, STR("chunked"))) {
        return H1_ERR_TE_UNSUPPORTED;
    }
    f->chunked = true;
    return H1_OK;
}

static enum h1_error take_host(struct h1_parser *p, struct fields *f, struct str v)
{
    if (!p->is_request) {
        return H1_OK; // no meaning in a response; dropped
    }
    if (f->host && !(p->limits.lenient && str_eq(f->host_value, v))) {
        return H1_ERR_HOST_DUPLICATE;
    }
    f->host = true;
    f->host_value = v;
    return H1_OK;
}

static bool list_has(struct str list, struct str what)
{
    while (list.p) {
        if (str_eq_nocase(str_trim(str_split(&list, ',')), what)) {
            return true;
        }
    }
    return false;
}

// Fields that say how this message or this connection works are taken out; all others go to the list.
static enum h1_error take_own_field(struct h1_parser *p, struct fields *f, struct headers *h, const struct hdr *x)
{
    struct str name = x->name, v = x->value;
    switch (x->id) {
    case HDR_HOST:
        f->capital |= name.p[0] == 'H';
        return take_host(p, f, v);
    case HDR_CONTENT_LENGTH:
        f->capital |= name.p[0] == 'C';
        return take_content_length(p, f, v);
    case HDR_TRANSFER_ENCODING:
        f->capital |= name.p[0] == 'T';
        return take_transfer_encoding(f, v);
    case HDR_CONNECTION:
        if (f->n_connection == CONNECTION_FIELDS_MAX) {
            return H1_ERR_CONNECTION_HEADER;
        }
        f->connection[f->n_connection++] = v;
        return H1_OK;
    case HDR_UPGRADE:
        f->upgrade_twice |= f->upgrade;
        f->upgrade = true;
        f->upgrade_value = v;
        return H1_OK;
    case HDR_TE:
        if (p->is_request && list_has(v, STR("trailers"))) {
            p->req.te_trailers = true;
        }
        return H1_OK;
    case HDR_KEEP_ALIVE:
    case HDR_PROXY_CONNECTION:
    case HDR_HTTP2_SETTINGS:
    case HDR_TRAILER:
        return H1_OK;
    case HDR_EXPECT:
        if (p->is_request && str_eq_nocase(v, STR("100-continue"))) {
            f->expect = true;
            return H1_OK;
        }
        break;
    default:
        break;
    }
    headers_add_hdr(h, x);
    return H1_OK;
}

static enum h1_error take_trailer(struct headers *h, const struct hdr *x)
{
    enum hdr_id id = (enum hdr_id)x->id;
    if (hdr_is_connection_specific(id) || hdr_is_bad_trailer(id, x->name)) {
        return H1_ERR_TRAILER;
    }
    headers_add_hdr(h, x);
    return H1_OK;
}

#define BIT(id) HDR_BIT(id)

// x stands where the list goes on. f is NULL for trailers.
static inline enum h1_error take_field(struct h1_parser *p, struct fields *f, struct headers *h, const struct hdr *x)
{
    const uint64_t own = BIT(HDR_HOST) | BIT(HDR_CONTENT_LENGTH) | BIT(HDR_TRANSFER_ENCODING) | BIT(HDR_CONNECTION) | BIT(HDR_UPGRADE) |
                         BIT(HDR_TE) | BIT(HDR_KEEP_ALIVE) | BIT(HDR_PROXY_CONNECTION) | BIT(HDR_HTTP2_SETTINGS) | BIT(HDR_TRAILER) |
                         BIT(HDR_EXPECT);
    if (!f) {
        return take_trailer(h, x);
    }
    if (own & BIT(x->id)) {
        return take_own_field(p, f, h, x);
    }
    h->count++;
    h->bytes += x->name.n + x->value.n;
    h->ids |= BIT(x->id);
    return H1_OK;
}

// The name at s and its id. A well-known name is made of what names may have; others are looked at byte by byte.
static inline enum h1_error take_name(const char *s, struct hdr *x)
{
    const char *end = s;
    uint32_t found = scan_equal(s, ':');
    if (__builtin_expect(!found, 0)) { // long, or none: a control byte comes at the end of the text at the latest
        while (!(found = scan_equal(end, ':') | scan_control(end))) {
            end += SCAN_BYTES;
        }
    }
    end += scan_first(found);
    x->name = str_n(s, (size_t)(end - s));
    x->id = (uint16_t)hdr_id_of(x->name);
    if (x->id != HDR_OTHER && *end == ':') {
        return H1_OK;
    }
    for (end = s; ch_is(*end, CH_TOKEN); end++) {
    }
    if (*end != ':' || end == s) {
        return *end == '\0' ? H1_ERR_NUL : H1_ERR_HEADER_NAME;
    }
    return H1_OK;
}

// All lines from s on up to the empty one. f is NULL for trailers.
static enum h1_error parse_fields(struct h1_parser *p, const char *s, struct fields *f, struct headers *h)
{
    if (!headers_reserve(h, p->is_request ? PREALLOC_REQUEST : PREALLOC_RESPONSE)) {
        return H1_ERR_HEAD_TOO_LARGE;
    }
    uint32_t count = 0;
    while (*s != '\r') {
        if (is_blank(*s)) {
            return H1_ERR_OBS_FOLD;
        }
        if (++count > p->limits.header_count) {
            return H1_ERR_TOO_MANY_HEADERS;
        }
        if (__builtin_expect(h->count == h->cap, 0) && !headers_reserve(h, h->count + 1)) {
            return H1_ERR_HEAD_TOO_LARGE;
        }
        struct hdr *x = &h->v[h->count];
        enum h1_error e = take_name(s, x);
        if (e) {
            return e;
        }
        const char *value = s + x->name.n + 1, *end = find_ctl(value);
        e = line_end(end, H1_ERR_HEADER_VALUE);
        if (e) {
            return e;
        }
        x->removed = false;
        x->wire = value[0] == ' ' && (unsigned char)value[1] > ' ' && (unsigned char)end[-1] > ' '; // nearly always
        x->value = x->wire ? str_n(value + 1, (size_t)(end - value - 1)) : trim(value, end);
        e = take_field(p, f, h, x);
        if (e && !(e == H1_ERR_TRAILER && p->limits.lenient)) {
            return e;
        }
        s = end + 2;
    }
    if (s[1] != '\n') {
        return H1_ERR_BARE_CR;
    }
    return h->truncated ? H1_ERR_HEAD_TOO_LARGE : H1_OK;
}

// ---- Connection ----

// Names that a peer must not be able to strip on its way through us (threat class T11): framing, routing, identity, and what
// proxies add. Envoy refuses the x-forwarded ones the same way.
static bool connection_may_name(struct str name)
{
    switch (hdr_id_of(name)) {
    case HDR_HOST:
    case HDR_CONTENT_LENGTH:
    case HDR_TRANSFER_ENCODING:
    case HDR_CONTENT_TYPE:
    case HDR_AUTHORIZATION:
    case HDR_COOKIE:
    case HDR_SET_COOKIE:
    case HDR_EXPECT:
    case HDR_LOCATION:
    case HDR_X_REQUEST_ID:
    case HDR_GRPC_STATUS:
    case HDR_GRPC_MESSAGE:
    case HDR_GRPC_TIMEOUT:
    case HDR_TRACEPARENT:
        return false;
    default:
        break;
    }
    return !(name.n >= 12 && str_eq_nocase(str_n(name.p, 12), STR("x-forwarded-"))) &&
           !(name.n >= 8 && str_eq_nocase(str_n(name.p, 8), STR("x-envoy-"))) &&
           !(name.n >= 5 && str_eq_nocase(str_n(name.p, 5), STR("x-b3-")));
}

static enum h1_error take_connection_option(struct fields *f, struct headers *h, struct str opt)
{
    for (size_t i = 0; i < opt.n; i++) {
        if (!ch_is(opt.p[i], CH_TOKEN)) {
            return H1_ERR_CONNECTION_HEADER;
        }
    }
    if (str_eq_nocase(opt, STR("close"))) {
        f->close = true;
    } else if (str_eq_nocase(opt, STR("keep-alive"))) {
        f->keep_alive = true;
    } else if (str_eq_nocase(opt, STR("upgrade"))) {
        f->conn_upgrade = true;
    } else if (!connection_may_name(opt)) {
        return H1_ERR_CONNECTION_HEADER;
    } else {
        headers_remove(h, opt);
    }
    return H1_OK;
}

static enum h1_error take_connection(struct fields *f, struct headers *h)
{
    unsigned n = 0;
    for (unsigned i = 0; i < f->n_connection; i++) {
        struct str rest = f->connection[i];
        while (rest.p) {
            struct str opt = str_trim(str_split(&rest, ','));
            if (opt.n == 0) {
                continue; // empty list elements are legal (RFC 9110 §5.6.1)
            }
            if (++n > H1_CONNECTION_TOKENS_MAX) {
                return H1_ERR_CONNECTION_HEADER;
            }
            enum h1_error e = take_connection_option(f, h, opt);
            if (e) {
                return e;
            }
        }
    }
    return H1_OK;
}

// One protocol, named by Connection too, and not h2c (never honoured: threat class T10). Otherwise the field is dropped, which
// RFC 9110 §7.8 allows a server to do.
static struct str upgrade_of(const struct fields *f, enum http_version version)
{
    if (!f->upgrade || f->upgrade_twice || !f->conn_upgrade || version == HTTP_10) {
        return (struct str){ 0 };
    }
    struct str v = f->upgrade_value;
    for (size_t i = 0; i < v.n; i++) {
        if (!ch_is(v.p[i], CH_TOKEN) && v.p[i] != '/') {
            return (struct str){ 0 };
        }
    }
    return v.n && !str_eq_nocase(v, STR("h2c")) ? v : (struct str){ 0 };
}

// ---- request ----

// host lies in the text (or its padding follows).
static bool host_valid(struct str host)
{
    size_t plain = 0;
    while (plain < host.n) {
        uint32_t other = scan_not_plain_host(host.p + plain);
        plain += other ? scan_first(other) : SCAN_BYTES;
        if (other) {
            break;
        }
    }
    if (host.n && plain >= host.n) {
        return true;
    }
    struct str name;
    uint16_t port;
    return url_split_authority(host, &name, &port);
}

// absolute-form (RFC 9112 §3.2.2): scheme and authority are split off.
static enum h1_error parse_absolute(struct http_request *r, struct str t)
{
    size_t skip;
    if (t.n > 7 && str_eq_nocase(str_n(t.p, 7), STR("http://"))) {
        skip = 7;
        r->scheme = STR("http");
    } else if (t.n > 8 && str_eq_nocase(str_n(t.p, 8), STR("https://"))) {
        skip = 8;
        r->scheme = STR("https");
    } else {
        return H1_ERR_TARGET;
    }
    const char *a = t.p + skip, *end = t.p + t.n, *q = a;
    while (q < end && *q != '/' && *q != '?') {
        q++;
    }
    r->host = str_n(a, (size_t)(q - a));
    if (!host_valid(r->host)) {
        return H1_ERR_TARGET;
    }
    r->path = str_n(q, (size_t)(end - q));
    return H1_OK;
}

static enum h1_error parse_target(struct h1_parser *p, struct str t)
{
    struct http_request *r = &p->req;
    if (str_is(r->method, "CONNECT")) { // authority-form only, with a port (RFC 9112 §3.2.3)
        struct str name;
        uint16_t port;
        if (!url_split_authority(t, &name, &port) || port == 0) {
            return H1_ERR_TARGET;
        }
        r->host = t;
        return H1_OK;
    }
    if (t.p[0] == '/') {
        r->path = t;
        return H1_OK;
    }
    bool options = str_is(r->method, "OPTIONS");
    if (t.p[0] == '*' && t.n == 1) {
        r->path = t;
        return options ? H1_OK : H1_ERR_TARGET;
    }
    if (!p->limits.allow_absolute_url) {
        return H1_ERR_TARGET;
    }
    enum h1_error e = parse_absolute(r, t);
    if (e) {
        return e;
    }
    if (r->path.n == 0) {
        r->path = options ? STR("*") : STR("/"); // RFC 9112 §3.2.4
    } else if (r->path.p[0] == '?') {
        char *q = arena_alloc(p->arena, r->path.n + 1);
        if (!q) {
            return H1_ERR_HEAD_TOO_LARGE;
        }
        q[0] = '/';
        memcpy(q + 1, r->path.p, r->path.n);
        r->path = str_n(q, r->path.n + 1);
    }
    return H1_OK;
}

// "HTTP/" DIGIT "." DIGIT at s. H1_ERR_VERSION for versions we do not speak, shape for what is no version.
static enum h1_error parse_version(const char *s, enum http_version *ret, enum h1_error shape)
{
    if (memcmp(s, "HTTP/1.1", 8) == 0) {
        *ret = HTTP_11;
        return H1_OK;
    }
    for (int i = 0; i < 5; i++) {
        if (s[i] != "HTTP/"[i]) {
            return shape;
        }
    }
    if (!ch_is(s[5], CH_DIGIT) || s[6] != '.' || !ch_is(s[7], CH_DIGIT)) {
        return shape;
    }
    if (s[5] != '1' || s[7] > '1') {
        return H1_ERR_VERSION;
    }
    *ret = s[7] == '1' ? HTTP_11 : HTTP_10;
    return H1_OK;
}

static enum h1_error request_line(struct h1_parser *p, const char **s)
{
    const char *a = *s, *q = a;
    while (ch_is(*q, CH_TOKEN)) {
        q++;
    }
    if (*q != ' ') {
        return *q == '\0' ? H1_ERR_NUL : *q == '\r' ? H1_ERR_REQUEST_LINE : H1_ERR_METHOD;
    }
    p->req.method = str_n(a, (size_t)(q - a));
    const char *t = ++q;
    q = find_not_target(q);
    if (*q != ' ' || q == t) {
        if (*q == '\r') {
            return q[1] == '\n' ? H1_ERR_REQUEST_LINE : H1_ERR_BARE_CR;
        }
        return *q == '\0' ? H1_ERR_NUL : *q == ' ' ? H1_ERR_REQUEST_LINE : H1_ERR_TARGET;
    }
    struct str target = str_n(t, (size_t)(q - t));
    q++;
    enum h1_error e = parse_version(q, &p->req.version, H1_ERR_REQUEST_LINE);
    if (e == H1_OK || e == H1_ERR_VERSION) {
        enum h1_error end = q[8] == '\r' && q[9] != '\n' ? H1_ERR_BARE_CR : q[8] == '\r' ? H1_OK : H1_ERR_REQUEST_LINE;
        e = end ? end : e;
    }
    if (e) {
        return e;
    }
    *s = q + 10;
    return parse_target(p, target);
}

// Both framing fields (RFC 9112 §6.3): refused, or the length is dropped and the connection not used again.
static enum h1_error both_framings(const struct h1_parser *p, struct fields *f)
{
    if (!f->chunked || !f->content_length) {
        return H1_OK;
    }
    if (!p->limits.allow_chunked_length) {
        return H1_ERR_CL_AND_TE;
    }
    f->content_length = false;
    f->length = 0;
    f->close = true;
    return H1_OK;
}

static enum h1_error request_framing(struct h1_parser *p, struct fields *f)
{
    struct http_request *r = &p->req;
    if (both_framings(p, f)) {
        return H1_ERR_CL_AND_TE;
    }
    if (f->chunked && r->version == HTTP_10) {
        return H1_ERR_TE_HTTP10;
    }
    if (r->path.n == 0 && (f->chunked || f->length)) { // CONNECT: content has no meaning (RFC 9110 §9.3.6)
        return H1_ERR_BODY_NOT_ALLOWED;
    }
    r->content_length = f->content_length ? (int64_t)f->length : -1;
    if (f->chunked) {
        p->body = H1_BODY_CHUNKED;
    } else if (f->length) {
        p->body = H1_BODY_LENGTH;
        p->body_left = f->length;
    } else {
        r->end_stream = true;
    }
    return H1_OK;
}

enum h1_error h1_parse_request_head(struct h1_parser *p, const char *text, size_t len)
{
    (void)len;
    struct http_request *r = &p->req;
    struct fields f;
    fields_init(&f);
    enum h1_error e = request_line(p, &text);
    if (!e && r->version == HTTP_10 && !p->limits.allow_http10) {
        e = H1_ERR_HTTP10;
    }
    if (!e) {
        e = parse_fields(p, text, &f, &r->headers);
    }
    if (!e) {
        e = take_connection(&f, &r->headers);
    }
    if (!e) {
        e = request_framing(p, &f);
    }
    if (e) {
        return e;
    }
    if (!f.host && r->version == HTTP_11) {
        return H1_ERR_HOST_MISSING;
    }
    if (f.host && !host_valid(f.host_value)) {
        return H1_ERR_HOST_INVALID;
    }
    if (r->host.n == 0) { // otherwise the target's authority replaces the field
        r->host = f.host_value;
    }
    r->upgrade = upgrade_of(&f, r->version);
    r->capital_names = f.capital;
    r->expect_continue = f.expect && r->version == HTTP_11 && !r->end_stream;
    p->keep_alive = !f.close && (r->version == HTTP_11 || f.keep_alive);
    return H1_OK;
}

// ---- response ----

static enum h1_error status_line(struct h1_parser *p, const char **s)
{
    const char *q = *s;
    enum h1_error e = parse_version(q, &p->resp.version, H1_ERR_STATUS_LINE);
    if (e) {
        return e;
    }
    q += 8;
    if (q[0] != ' ' || !ch_is(q[1], CH_DIGIT) || !ch_is(q[2], CH_DIGIT) || !ch_is(q[3], CH_DIGIT) || q[1] == '0') {
        return H1_ERR_STATUS_LINE;
    }
    p->resp.status = (uint16_t)((q[1] - '0') * 100 + (q[2] - '0') * 10 + (q[3] - '0'));
    q += 4;
    if (*q != ' ' && *q != '\r') { // a missing space before an empty reason is common and harmless
        return H1_ERR_STATUS_LINE;
    }
    q = find_ctl(q);
    e = line_end(q, H1_ERR_STATUS_LINE);
    if (!e) {
        *s = q + 2;
    }
    return e;
}

// RFC 9112 §6.3, in its order.
static enum h1_error response_framing(struct h1_parser *p, struct fields *f)
{
    struct http_response *r = &p->resp;
    bool framed = f->chunked || f->content_length;
    if (both_framings(p, f)) {
        return H1_ERR_CL_AND_TE;
    }
    if (f->chunked && r->version == HTTP_10) {
        return H1_ERR_TE_HTTP10;
    }
    p->keep_alive = !f->close && (r->version == HTTP_11 || f->keep_alive);
    if (r->status < 200) {
        if (framed) {
            return H1_ERR_BODY_NOT_ALLOWED;
        }
        r->end_stream = r->status != 101;
        p->body = r->status == 101 ? H1_BODY_UNTIL_CLOSE : H1_BODY_NONE;
        return H1_OK;
    }
    if (p->connect_request && r->status < 300) { // a tunnel; framing fields are ignored (RFC 9110 §9.3.6)
        p->body = H1_BODY_UNTIL_CLOSE;
        return H1_OK;
    }
    if (r->status == 204) { // no body whatever the fields say; if they promise one, its bytes must not become an answer
        p->keep_alive = p->keep_alive && !f->chunked && f->length == 0;
        r->end_stream = true;
        return H1_OK;
    }
    r->content_length = f->content_length ? (int64_t)f->length : -1;
    if (p->head_request || r->status == 304) {
        r->end_stream = true;
    } else if (f->chunked) {
        p->body = H1_BODY_CHUNKED;
    } else if (f->content_length) {
        p->body = f->length ? H1_BODY_LENGTH : H1_BODY_NONE;
        p->body_left = f->length;
        r->end_stream = f->length == 0;
    } else {
        p->body = H1_BODY_UNTIL_CLOSE;
        p->keep_alive = false;
    }
    return H1_OK;
}

enum h1_error h1_parse_response_head(struct h1_parser *p, const char *text, size_t len)
{
    (void)len;
    struct http_response *r = &p->resp;
    struct fields f;
    fields_init(&f);
    enum h1_error e = status_line(p, &text);
    if (!e) {
        e = parse_fields(p, text, &f, &r->headers);
    }
    if (!e) {
        e = take_connection(&f, &r->headers);
    }
    if (e) {
        return e;
    }
    r->capital_names = f.capital;
    if (r->status == 101) {
        r->upgrade = upgrade_of(&f, r->version);
        if (r->upgrade.n == 0) { // RFC 9110 §15.2.2: a switch that does not say to what
            return H1_ERR_CONNECTION_HEADER;
        }
    }
    e = response_framing(p, &f);
    p->keep_alive = p->keep_alive && r->status != 101;
    return e;
}

enum h1_error h1_parse_trailers(struct h1_parser *p, const char *text, size_t len)
{
    (void)len;
    return parse_fields(p, text, NULL, &p->trailers);
}
