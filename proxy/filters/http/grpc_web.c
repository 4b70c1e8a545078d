// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.grpc_web: gRPC for browsers (gRPC's PROTOCOL-WEB), which cannot send or hear trailers. A request becomes plain gRPC; the
// answer's trailers become a last frame of its body, marked with 0x80; with "grpc-web-text" all of it is base64.
#include "lib/http/grpc_text.h"
#include "proxy/filters/http/filters.h"

enum { FRAME_HEADER = 5, TRAILER_FLAG = 0x80 };

struct grpc_web {
    bool on, text_in, text_out;
    bool answering;              // the answer is gRPC and is being rewritten
    bool bad;                    // the request was refused
    // base64 of the request: a group being read
    uint32_t group;
    uint8_t group_n, pad_n;
    // base64 of the answer: what does not fill a group yet, and where the frame being sent ends: there the text is padded, so that the
    // client can read each message when it comes
    uint8_t rest[3], rest_n;
    uint8_t head[FRAME_HEADER], head_n;
    uint32_t frame_left;
};

static const struct str text_type = STR_INIT("application/grpc-web-text");
static const struct str binary_type = STR_INIT("application/grpc-web");

// Whether value is type, alone or followed by a format or parameters; *ret_rest: these ("+proto").
static bool type_is(struct str value, struct str type, struct str *ret_rest)
{
    if (value.n < type.n || !str_eq_nocase(str_n(value.p, type.n), type)) {
        return false;
    }
    *ret_rest = str_skip(value, type.n);
    return ret_rest->n == 0 || ret_rest->p[0] == '+' || ret_rest->p[0] == ';';
}

static enum http_filter_status on_request(struct http_filter *f, struct http_request *req)
{
    struct grpc_web *w = f->state;
    struct str type = headers_value_id(&req->headers, HDR_CONTENT_TYPE), rest, ignored;
    w->text_in = type_is(type, text_type, &rest);
    w->on = w->text_in || type_is(type, binary_type, &rest);
    if (!w->on) {
        return HF_CONTINUE;
    }
    w->text_out = type_is(headers_value(&req->headers, STR("accept")), text_type, &ignored) || w->text_in;
    struct arena *a = &f->stream->arena;
    headers_set_id(&req->headers, HDR_CONTENT_TYPE, arena_printf(a, "application/grpc%.*s", STR_FMT(rest)));
    headers_set(&req->headers, STR("grpc-accept-encoding"), STR("identity"));
    req->te_trailers = true;
    if (w->text_in && !req->end_stream) {
        req->content_length = -1; // it shrinks
    }
    return HF_CONTINUE;
}

// ---- base64 to the upstream ----

static int value_of(unsigned char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    return c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

// One character. A group may be padded wherever a message of the client ends. False: not base64.
static bool take_char(struct grpc_web *w, unsigned char c, struct buf *out)
{
    int v = value_of(c);
    if (c == '=' && w->group_n >= 2) {
        v = 0;
        w->pad_n++;
    } else if (v < 0 || w->pad_n) {
        return false;
    }
    w->group = w->group << 6 | (uint32_t)v;
    if (++w->group_n == 4) {
        if (w->group & ((1u << 8 * w->pad_n) - 1)) { // RFC 4648 §3.5: bits that say nothing
            return false;
        }
        const uint8_t bytes[3] = { (uint8_t)(w->group >> 16), (uint8_t)(w->group >> 8), (uint8_t)w->group };
        buf_append(out, bytes, 3u - w->pad_n);
        w->group_n = w->pad_n = 0;
        w->group = 0;
    }
    return true;
}

static bool decode(struct grpc_web *w, struct buf *data)
{
    struct buf out = { 0 };
    bool ok = true;
    for (const struct slice *s = data->head; s && ok; s = s->next) {
        for (size_t i = s->off; i < s->end && ok; i++) {
            ok = take_char(w, (unsigned char)s->data[i], &out);
        }
    }
    buf_clear(data);
    buf_move(data, &out, out.len);
    buf_clear(&out);
    return ok;
}

static enum http_filter_status on_request_data(struct http_filter *f, struct buf *data, bool end)
{
    struct grpc_web *w = f->state;
    if (!w->on || !w->text_in) {
        return HF_CONTINUE;
    }
    if (w->bad || !decode(w, data) || (end && w->group_n)) {
        buf_clear(data);
        if (!w->bad) {
            w->bad = true;
            stream_local_reply(f->stream, 400, STR("Bad gRPC-web request, invalid base64 data."), "grpc_base_64_decode_failed", 0, NULL);
        }
        return HF_STOP;
    }
    return HF_CONTINUE;
}

// ---- the answer ----

static void on_response(struct http_filter *f, struct http_response *resp)
{
    struct grpc_web *w = f->state;
    struct str type = headers_value_id(&resp->headers, HDR_CONTENT_TYPE);
    if (!w->on || !grpc_content_type(type)) { // what is no gRPC (an error page) stays what it is; its HTTP status tells the client
        return;
    }
    w->answering = true;
    struct str format = type.n > 16 && type.p[16] == '+' ? str_skip(type, 16) : STR("+proto");
    headers_set_id(&resp->headers, HDR_CONTENT_TYPE, arena_printf(&f->stream->arena, "%.*s%.*s",
                                                                  STR_FMT(w->text_out ? text_type : binary_type), STR_FMT(format)));
    if (!resp->end_stream) {
        resp->content_length = -1; // it grows
    }
}

static void put_group(struct buf *out, const uint8_t *in, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t v = (uint32_t)in[0] << 16 | (n > 1 ? (uint32_t)in[1] << 8 : 0) | (n > 2 ? in[2] : 0);
    const char text[4] = { digits[v >> 18], digits[v >> 12 & 63], n > 1 ? digits[v >> 6 & 63] : '=', n > 2 ? digits[v & 63] : '=' };
    buf_append(out, text, 4);
}

static void pad(struct grpc_web *w, struct buf *out)
{
    if (w->rest_n) {
        put_group(out, w->rest, w->rest_n);
        w->rest_n = 0;
    }
}

// Where frames end.
static void follow_frame(struct grpc_web *w, uint8_t c)
{
    if (w->frame_left) {
        w->frame_left--;
        return;
    }
    w->head[w->head_n++] = c;
    if (w->head_n == FRAME_HEADER) {
        w->head_n = 0;
        w->frame_left = (uint32_t)w->head[1] << 24 | (uint32_t)w->head[2] << 16 | (uint32_t)w->head[3] << 8 | w->head[4];
    }
}

static void encode(struct grpc_web *w, struct buf *data, bool end)
{
    struct buf out = { 0 };
    for (const struct slice *s = data->head; s; s = s->next) {
        for (size_t i = s->off; i < s->end; i++) {
            uint8_t c = (uint8_t)s->data[i];
            follow_frame(w, c);
            w->rest[w->rest_n++] = c;
            if (w->rest_n == 3 || (!w->frame_left && !w->head_n)) {
                pad(w, &out);
            }
        }
    }
    if (end) {
        pad(w, &out);
    }
    buf_clear(data);
    buf_move(data, &out, out.len);
    buf_clear(&out);
}

static void on_response_data(struct http_filter *f, struct buf *data, bool end)
{
    struct grpc_web *w = f->state;
    if (w->answering && w->text_out) {
        encode(w, data, end);
    }
}

static bool response_trailers_as_data(struct http_filter *f, const struct headers *trailers, struct buf *ret)
{
    struct grpc_web *w = f->state;
    if (!w->answering) {
        return false;
    }
    struct buf frame = { 0 };
    uint32_t n = 0;
    for (struct hdr *x = headers_first(trailers); x; x = headers_next(trailers, x)) {
        n += (uint32_t)(x->name.n + x->value.n + 3);
    }
    const uint8_t head[FRAME_HEADER] = { TRAILER_FLAG, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n };
    buf_append(&frame, head, sizeof(head));
    for (struct hdr *x = headers_first(trailers); x; x = headers_next(trailers, x)) {
        for (size_t i = 0; i < x->name.n; i++) { // PROTOCOL-WEB: lower case
            char c = x->name.p[i] >= 'A' && x->name.p[i] <= 'Z' ? (char)(x->name.p[i] | 0x20) : x->name.p[i];
            buf_append(&frame, &c, 1);
        }
        buf_append(&frame, ":", 1);
        buf_append_str(&frame, x->value);
        buf_append_str(&frame, STR("\r\n"));
    }
    if (w->text_out) {
        encode(w, &frame, true);
    }
    buf_move(ret, &frame, frame.len);
    return true;
}

const struct http_filter_ops http_filter_grpc_web = {
    .ext = { .name = "envoy.filters.http.grpc_web", .type_url = "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb" },
    .state_size = sizeof(struct grpc_web),
    .on_request = on_request,
    .on_request_data = on_request_data,
    .on_response = on_response,
    .on_response_data = on_response_data,
    .response_trailers_as_data = response_trailers_as_data,
};
