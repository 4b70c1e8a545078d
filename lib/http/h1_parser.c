// SPDX-License-Identifier: Apache-2.0
// Incremental HTTP/1 parser. The end of a head is searched once over the slices as they come; a complete head is copied once into
// the arena and parsed there in one pass, so every view of the message points into that copy. Every verdict depends on byte
// positions alone, never on how the bytes were split: tests and fuzzers hold that against the whole-buffer run.
#include "lib/http/h1_parser.h"

#include "lib/base/check.h"
#include "lib/http/chars.h"
#include "lib/http/h1_fields.h"
#include "lib/http/h1_lenient.h"
#include "lib/http/scan.h"

enum state {
    ST_HEAD,        // nothing or a part of the head was seen
    ST_LENGTH,      // body_left bytes of body follow
    ST_CHUNK_SIZE,  // at a chunk-size line
    ST_CHUNK_DATA,  // body_left bytes of this chunk follow
    ST_CHUNK_END,   // at the CRLF behind a chunk's data
    ST_TRAILERS,    // behind the last chunk
    ST_UNTIL_CLOSE, // all that comes is body
    ST_DONE,
    ST_FAILED,
};

const struct h1_limits h1_limits_default = {
    .head_bytes = H1_HEAD_BYTES_MAX,
    .header_count = H1_HEADER_COUNT_MAX,
    .allow_http10 = false,
    .allow_absolute_url = true,
};

static const char *const error_text[H1_ERR_COUNT] = {
    [H1_OK] = "http1.ok",
    [H1_ERR_REQUEST_LINE] = "http1.invalid_request_line",
    [H1_ERR_STATUS_LINE] = "http1.invalid_status_line",
    [H1_ERR_METHOD] = "http1.invalid_method",
    [H1_ERR_TARGET] = "http1.invalid_target",
    [H1_ERR_VERSION] = "http1.unsupported_version",
    [H1_ERR_HEADER_NAME] = "http1.invalid_header_name",
    [H1_ERR_HEADER_VALUE] = "http1.invalid_header_value",
    [H1_ERR_OBS_FOLD] = "http1.line_folding",
    [H1_ERR_BARE_LF] = "http1.bare_lf",
    [H1_ERR_BARE_CR] = "http1.bare_cr",
    [H1_ERR_NUL] = "http1.nul_byte",
    [H1_ERR_HOST_MISSING] = "http1.missing_host",
    [H1_ERR_HOST_DUPLICATE] = "http1.duplicate_host",
    [H1_ERR_HOST_INVALID] = "http1.invalid_host",
    [H1_ERR_CL_INVALID] = "http1.invalid_content_length",
    [H1_ERR_CL_DUPLICATE] = "http1.duplicate_content_length",
    [H1_ERR_CL_AND_TE] = "http1.content_length_and_transfer_encoding",
    [H1_ERR_TE_UNSUPPORTED] = "http1.unsupported_transfer_encoding",
    [H1_ERR_TE_HTTP10] = "http1.transfer_encoding_in_http10",
    [H1_ERR_CHUNK_SIZE] = "http1.invalid_chunk_size",
    [H1_ERR_CHUNK_EXT] = "http1.invalid_chunk_extension",
    [H1_ERR_CHUNK_END] = "http1.invalid_chunk_end",
    [H1_ERR_TRAILER] = "http1.forbidden_trailer",
    [H1_ERR_HEAD_TOO_LARGE] = "http1.headers_too_large",
    [H1_ERR_TOO_MANY_HEADERS] = "http1.too_many_headers",
    [H1_ERR_CONNECTION_HEADER] = "http1.invalid_connection_header",
    [H1_ERR_UNEXPECTED_EOF] = "http1.unexpected_end",
    [H1_ERR_BODY_NOT_ALLOWED] = "http1.body_not_allowed",
    [H1_ERR_UNEXPECTED_BYTES] = "http1.unexpected_bytes",
    [H1_ERR_HTTP10] = "http1.http10_not_allowed",
};

const char *h1_error_text(enum h1_error e)
{
    return (unsigned)e < H1_ERR_COUNT ? error_text[e] : "http1.unknown_error";
}

int h1_error_status(enum h1_error e)
{
    switch (e) {
    case H1_ERR_HEAD_TOO_LARGE:
    case H1_ERR_TOO_MANY_HEADERS:
        return 431;
    case H1_ERR_TE_UNSUPPORTED:
        return 501; // RFC 9112 §6.1
    case H1_ERR_VERSION:
        return 505;
    case H1_ERR_HTTP10:
        return 426;
    default:
        return 400;
    }
}

static void reset_message(struct h1_parser *p, struct arena *arena)
{
    p->state = ST_HEAD;
    p->arena = arena;
    p->error = H1_OK;
    if (p->is_request) {
        p->req = (struct http_request){ .content_length = -1 };
        p->req.headers.arena = arena;
    } else {
        p->resp = (struct http_response){ .content_length = -1 };
        p->resp.headers.arena = arena;
    }
    p->trailers = (struct headers){ .arena = arena };
    p->body = H1_BODY_NONE;
    p->body_left = 0;
    p->keep_alive = false;
    p->scan_off = p->line_off = 0;
    p->scan_cr = p->started = false;
    p->skipped_lines = 0;
    p->chunk_left_ext = H1_CHUNK_EXT_MAX;
}

void h1_parser_init(struct h1_parser *p, bool is_request, const struct h1_limits *limits, struct arena *arena)
{
    p->is_request = is_request;
    p->limits = limits ? *limits : h1_limits_default;
    p->head_request = p->connect_request = false;
    reset_message(p, arena);
}

void h1_parser_next(struct h1_parser *p, struct arena *arena)
{
    reset_message(p, arena);
}

bool h1_parser_idle(const struct h1_parser *p)
{
    return p->state == ST_HEAD && !p->started;
}

static enum h1_event fail(struct h1_parser *p, enum h1_error e)
{
    p->state = ST_FAILED;
    p->error = e;
    p->keep_alive = false;
    return H1_FAILED;
}

// ---- finding the end of a head or of trailers ----

// The empty line of a head that lies in n bytes at d from its beginning, each line ending with CR LF. False: the slow way decides.
static inline bool find_end_at_once(const char *d, size_t n, size_t *ret_len)
{
    if (n < 2 * SCAN_BYTES) {
        return false;
    }
    // Bits of LFs, of bytes behind a CR, and of places where the second byte of a line stands.
    uint32_t lf = scan_equal(d, '\n'), behind_cr = scan_equal(d, '\r') << 1, second = lf << 2 | 2;
    for (size_t at = 0;;) {
        uint32_t empty = lf & behind_cr & second, upto_empty = empty ? empty ^ (empty - 1) : UINT32_MAX;
        if (lf & ~behind_cr & upto_empty) {
            return false;
        }
        if (empty) {
            *ret_len = at + scan_first(empty) + 1;
            return true;
        }
        if (at + SCAN_BYTES >= n) {
            return false;
        }
        at = at + 2 * SCAN_BYTES <= n ? at + SCAN_BYTES : n - SCAN_BYTES; // the last piece overlaps
        lf = scan_equal(d + at, '\n');
        behind_cr = scan_equal(d + at - 1, '\r');
        second = scan_equal(d + at - 2, '\n');
    }
}

// Looks for the empty line. H1_HEAD: found, *ret_len bytes with it. H1_NEED_MORE or H1_FAILED otherwise.
// limit: the last LF must stand before this offset.
static __attribute__((noinline)) enum h1_event find_end_by_lines(struct h1_parser *p, const struct buf *in, size_t limit, size_t *ret_len)
{
    size_t base = 0; // offset of the slice's first byte
    for (const struct slice *s = in->head; s; s = s->next) {
        const char *d = s->data + s->off;
        size_t k = s->end - s->off;
        while (p->scan_off < base + k) {
            const char *from = d + (p->scan_off - base);
            const char *q = memchr(from, '\n', base + k - p->scan_off);
            size_t at = q ? base + (size_t)(q - d) : base + k;
            if (at >= limit) {
                return fail(p, H1_ERR_HEAD_TOO_LARGE);
            }
            if (!q) {
                p->scan_off = at;
                p->scan_cr = d[k - 1] == '\r';
                break;
            }
            bool cr = q > from ? q[-1] == '\r' : p->scan_cr;
            if (!cr && !p->limits.lenient) {
                return fail(p, H1_ERR_BARE_LF);
            }
            if (at - p->line_off == cr) {
                *ret_len = at + 1;
                return H1_HEAD;
            }
            p->scan_off = p->line_off = at + 1;
            p->scan_cr = false;
        }
        base += k;
    }
    return H1_NEED_MORE;
}

static inline enum h1_event find_end(struct h1_parser *p, const struct buf *in, size_t limit, size_t *ret_len)
{
    struct str front = buf_front(in);
    if (p->scan_off == 0 && !p->limits.lenient && find_end_at_once(front.p, front.n < limit ? front.n : limit, ret_len)) {
        return H1_HEAD;
    }
    return find_end_by_lines(p, in, limit, ret_len);
}

// Copies the first len bytes into the arena, zero-padded for readers that look at eight bytes at once, and takes them from in.
static const char *take_copy(struct h1_parser *p, struct buf *in, size_t len, bool trailers)
{
    bool lenient = p->limits.lenient;
    char *raw = lenient ? arena_alloc(p->arena, len) : NULL;
    char *copy = arena_alloc(p->arena, (lenient ? 2 * len : len) + H1_FIELDS_PAD);
    if (!copy || (lenient && !raw)) {
        return NULL;
    }
    size_t n = len;
    struct str front = buf_front(in);
    if (front.n >= len) {
        memcpy(lenient ? raw : copy, front.p, len);
    } else {
        buf_peek(in, 0, lenient ? raw : copy, len);
    }
    if (lenient) {
        n = h1_lenient_text(raw, len, p->is_request && !trailers, trailers, copy);
    }
    memset(copy + n, 0, H1_FIELDS_PAD);
    buf_drain(in, len);
    p->scan_off = p->line_off = 0;
    p->scan_cr = false;
    return copy;
}

// ---- heads ----

static enum h1_event begin_body(struct h1_parser *p)
{
    switch (p->body) {
    case H1_BODY_NONE:
        p->state = ST_DONE;
        break;
    case H1_BODY_LENGTH:
        p->state = ST_LENGTH;
        break;
    case H1_BODY_CHUNKED:
        p->state = ST_CHUNK_SIZE;
        break;
    case H1_BODY_UNTIL_CLOSE:
        p->state = ST_UNTIL_CLOSE;
        break;
    }
    return H1_HEAD;
}

// Takes an empty line in front of a request. False: the second byte must be seen first.
static __attribute__((noinline)) bool skip_empty_line(struct h1_parser *p, struct buf *in, enum h1_error *ret_e)
{
    char two[2];
    size_t n = buf_peek(in, 0, two, 2), len = two[0] == '\n' ? 1 : 2;
    if (n < len) {
        return false;
    }
    *ret_e = len == 2 && two[1] != '\n' ? H1_ERR_BARE_CR : H1_OK;
    buf_drain(in, *ret_e ? 0 : len);
    p->skipped_lines++;
    return true;
}

// The first byte settles what is surely not HTTP, so that a TLS hello is not waited upon. False: not decided yet.
static enum h1_error check_first_byte(struct h1_parser *p, struct buf *in, bool *ret_wait)
{
    unsigned max = p->limits.lenient ? H1_LENIENT_EMPTY_LINES : 1;
    struct str f = buf_front(in);
    *ret_wait = false;
    while (p->is_request && p->skipped_lines < max && (f.p[0] == '\r' || (p->limits.lenient && f.p[0] == '\n'))) {
        enum h1_error e = H1_OK;
        *ret_wait = !skip_empty_line(p, in, &e) || (!e && in->len == 0);
        if (e || *ret_wait) {
            return e;
        }
        f = buf_front(in);
    }
    if (f.p[0] == '\n') {
        return H1_ERR_BARE_LF;
    }
    if (p->is_request) {
        return ch_is(f.p[0], CH_TOKEN) ? H1_OK : H1_ERR_METHOD;
    }
    return f.p[0] == 'H' ? H1_OK : H1_ERR_STATUS_LINE;
}

static __attribute__((noinline)) enum h1_event run_head(struct h1_parser *p, struct buf *in)
{
    if (in->len == 0) {
        return H1_NEED_MORE;
    }
    p->started = true;
    if (p->scan_off == 0) {
        bool wait;
        enum h1_error e = check_first_byte(p, in, &wait);
        if (e) {
            return fail(p, e);
        }
        if (wait) {
            return H1_NEED_MORE;
        }
    }
    size_t len;
    enum h1_event ev = find_end(p, in, p->limits.head_bytes, &len);
    if (ev != H1_HEAD) {
        return ev;
    }
    const char *copy = take_copy(p, in, len, false);
    if (!copy) {
        return fail(p, H1_ERR_HEAD_TOO_LARGE);
    }
    enum h1_error e = p->is_request ? h1_parse_request_head(p, copy, len) : h1_parse_response_head(p, copy, len);
    return e ? fail(p, e) : begin_body(p);
}

// ---- chunked bodies (RFC 9112 §7.1) ----

static enum h1_error parse_chunk_line(struct h1_parser *p, const char *line, size_t n, uint64_t *ret_size)
{
    uint64_t size = 0;
    size_t i = 0;
    for (; i < n && ch_is(line[i], CH_HEX); i++) {
        if (i == 16 || size >> 59) { // 16 digits, 63 bits
            return H1_ERR_CHUNK_SIZE;
        }
        size = size << 4 | ch_hex(line[i]);
    }
    if (i == 0) {
        return H1_ERR_CHUNK_SIZE;
    }
    while (p->limits.lenient && i < n && (line[i] == ' ' || line[i] == '\t')) {
        i++;
    }
    if (i < n) {
        if (line[i] != ';') { // white space before ';' is "bad" (RFC 9110 §5.6.3) and read in more than one way
            return H1_ERR_CHUNK_SIZE;
        }
        if (n - i > p->chunk_left_ext) {
            return H1_ERR_CHUNK_EXT;
        }
        p->chunk_left_ext -= (uint32_t)(n - i);
        for (; i < n; i++) {
            unsigned char c = (unsigned char)line[i];
            if ((c < 0x20 && c != '\t') || c == 0x7f) {
                return H1_ERR_CHUNK_EXT;
            }
        }
    }
    *ret_size = size;
    return H1_OK;
}

static __attribute__((noinline)) enum h1_event run_chunk_size(struct h1_parser *p, struct buf *in)
{
    char copy[H1_CHUNK_LINE_MAX];
    struct str f = buf_front(in);
    size_t have = in->len < sizeof(copy) ? in->len : sizeof(copy);
    const char *line = f.p;
    const char *lf = f.n ? memchr(f.p, '\n', f.n < have ? f.n : have) : NULL;
    if (!lf && f.n < have) { // the line crosses slices
        buf_peek(in, 0, copy, have);
        line = copy;
        lf = memchr(copy, '\n', have);
    }
    if (!lf) {
        return have < sizeof(copy) ? H1_NEED_MORE
                                   : fail(p, memchr(line, ';', have) ? H1_ERR_CHUNK_EXT : H1_ERR_CHUNK_SIZE);
    }
    size_t n = (size_t)(lf - line);
    if (n == 0 || lf[-1] != '\r') {
        return fail(p, H1_ERR_BARE_LF);
    }
    uint64_t size;
    enum h1_error e = parse_chunk_line(p, line, n - 1, &size);
    if (e) {
        return fail(p, e);
    }
    buf_drain(in, n + 1);
    p->body_left = size;
    p->state = size ? ST_CHUNK_DATA : ST_TRAILERS;
    return H1_DATA; // means: go on
}

static __attribute__((noinline)) enum h1_event run_chunk_end(struct h1_parser *p, struct buf *in)
{
    char two[2];
    size_t n = buf_peek(in, 0, two, 2);
    if ((n > 0 && two[0] != '\r') || (n > 1 && two[1] != '\n')) {
        return fail(p, H1_ERR_CHUNK_END);
    }
    if (n < 2) {
        return H1_NEED_MORE;
    }
    buf_drain(in, 2);
    p->state = ST_CHUNK_SIZE;
    return H1_DATA; // means: go on
}

static __attribute__((noinline)) enum h1_event run_trailers(struct h1_parser *p, struct buf *in)
{
    size_t len;
    enum h1_event ev = find_end(p, in, H1_TRAILER_BYTES_MAX, &len);
    if (ev != H1_HEAD) {
        return ev;
    }
    if (len <= 2) { // no trailers
        buf_drain(in, len);
        p->state = ST_DONE;
        return H1_END;
    }
    const char *copy = take_copy(p, in, len, true);
    if (!copy) {
        return fail(p, H1_ERR_HEAD_TOO_LARGE);
    }
    enum h1_error e = h1_parse_trailers(p, copy, len);
    if (e) {
        return fail(p, e);
    }
    p->state = ST_DONE;
    return H1_TRAILERS;
}

// ---- the machine ----

enum h1_event h1_parser_run(struct h1_parser *p, struct buf *in)
{
    for (;;) {
        enum h1_event ev = H1_NEED_MORE;
        switch ((enum state)p->state) {
        case ST_HEAD:
            return run_head(p, in);
        case ST_LENGTH:
        case ST_CHUNK_DATA:
            if (p->body_left) {
                return in->len ? H1_DATA : H1_NEED_MORE;
            }
            p->state = p->state == ST_LENGTH ? ST_DONE : ST_CHUNK_END;
            continue;
        case ST_CHUNK_SIZE:
            ev = run_chunk_size(p, in);
            break;
        case ST_CHUNK_END:
            ev = run_chunk_end(p, in);
            break;
        case ST_TRAILERS:
            return run_trailers(p, in);
        case ST_UNTIL_CLOSE:
            return in->len ? H1_DATA : H1_NEED_MORE;
        case ST_DONE:
            return H1_END;
        case ST_FAILED:
            return H1_FAILED;
        }
        if (ev != H1_DATA) {
            return ev;
        }
    }
}

size_t h1_take_body(struct h1_parser *p, struct buf *in, struct buf *out, size_t max)
{
    switch ((enum state)p->state) {
    case ST_LENGTH:
    case ST_CHUNK_DATA:
        max = p->body_left < max ? (size_t)p->body_left : max;
        max = buf_move(out, in, max);
        p->body_left -= max;
        return max;
    case ST_UNTIL_CLOSE:
        return buf_move(out, in, max);
    default:
        return 0;
    }
}

enum h1_event h1_parser_eof(struct h1_parser *p)
{
    switch ((enum state)p->state) {
    case ST_HEAD:
        return p->started ? fail(p, H1_ERR_UNEXPECTED_EOF) : H1_END;
    case ST_UNTIL_CLOSE:
        p->state = ST_DONE;
        return H1_END;
    case ST_LENGTH:
        if (p->body_left == 0) {
            p->state = ST_DONE;
            return H1_END;
        }
        return fail(p, H1_ERR_UNEXPECTED_EOF);
    case ST_DONE:
        return H1_END;
    case ST_FAILED:
        return H1_FAILED;
    default:
        return fail(p, H1_ERR_UNEXPECTED_EOF);
    }
}
