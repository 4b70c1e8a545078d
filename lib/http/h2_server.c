// SPDX-License-Identifier: Apache-2.0
// The server side of HTTP/2: requests in, answers out, many at a time.
#include "lib/http/h2_conn.h"


static void put_status(struct h2_out *o, int status, char text[4])
{
    text[0] = (char)('0' + status / 100 % 10);
    text[1] = (char)('0' + status / 10 % 10);
    text[2] = (char)('0' + status % 10);
    h2_out_put(o, STR(":status"), str_n(text, 3));
}

// The block was more than we take: answered, so that the client learns why (RFC 6585 §5).
static void refuse_large(struct h2 *h, int32_t sid)
{
    struct h2_out o;
    char text[4];
    h2_out_begin(&o, 1);
    put_status(&o, 431, text);
    h2_out_put(&o, STR("content-length"), STR("0"));
    nghttp2_submit_response(h->session, sid, o.v, o.n, NULL);
    h2_out_end(&o);
    h2_rst(h, sid, NGHTTP2_NO_ERROR);
    h2_bad_message(h, 431, "http2.headers_too_large");
}

static void trailers(struct h2 *h, struct h2_stream *x, const nghttp2_frame *f)
{
    if (!x || x->broken || x->told || x->given_up) {
        return;
    }
    const char *bad = h->block.too_large ? "http2.trailers_too_large" : h2_block_trailers(h, x->arena, &x->trailers);
    if (!bad && (!(f->hd.flags & NGHTTP2_FLAG_END_STREAM) || h2_breaks_end(h, x))) { // RFC 9113 §8.1, §8.1.1
        bad = "http2.invalid_trailer";
    }
    if (bad) {
        x->broken = true;
        h2_rst(h, f->hd.stream_id, NGHTTP2_PROTOCOL_ERROR);
        h2_bad_message(h, 400, bad);
        return;
    }
    x->has_trailers = true;
    x->in_end = true;
    h2_dirty(h, x);
}

void h2_server_block(struct h2 *h, const nghttp2_frame *f)
{
    int32_t sid = f->hd.stream_id;
    if (f->headers.cat != NGHTTP2_HCAT_REQUEST) {
        trailers(h, h2_find(h, sid), f);
        return;
    }
    if (h->failed) {
        return;
    }
    if (!h->window_raised) { // not at the start: a peer that is no good hears only SETTINGS
        h->window_raised = true;
        nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, (int32_t)h->conn_window);
    }
    if (h->block.too_large) {
        refuse_large(h, sid);
        return;
    }
    struct arena *arena = h->c.ops->get_arena(&h->c);
    if (h->c.freed) {
        return;
    }
    struct http_request r;
    const char *bad = h2_block_request(h, arena, &r);
    bool connect = !bad && str_is(r.method, "CONNECT"), end = f->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (!bad && end && !connect && r.content_length > 0) { // RFC 9113 §8.1.1
        bad = "http2.invalid_content_length";
    }
    if (bad) {
        h2_rst(h, sid, NGHTTP2_PROTOCOL_ERROR);
        h2_bad_message(h, 400, bad);
        return;
    }
    struct h2_stream *x = h2_stream_new(h, sid, arena);
    h->opened++;
    nghttp2_session_set_stream_user_data(h->session, sid, x);
    h->found = x;
    x->in_end = end;
    x->in_left = connect ? -1 : r.content_length;
    x->connect = connect;
    x->protocol = r.upgrade;
    if (r.upgrade.n) { // RFC 8441 §4: what follows sees the request that HTTP/1.1 would have made
        r.method = STR("GET");
    }
    r.end_stream = x->connect || x->in_end;
    r.expect_continue = r.expect_continue && !r.end_stream;
    x->s.remote_done = r.end_stream;
    x->s.bytes_in = f->hd.length + 9;
    x->head_request = str_is(r.method, "HEAD");
    h->c.active++;
    h->c.ops->on_request(&h->c, &x->s, &r);
    if (!h->c.freed) {
        h2_begin_closed(h, x);
    }
}

static void submit_head(struct h2 *h, struct h2_stream *x, const struct http_response *r, int64_t length, bool end)
{
    struct h2_out o;
    char text[4], digits[H2_LENGTH_TEXT];
    h2_out_begin(&o, r->headers.count + 1);
    put_status(&o, r->status, text);
    h2_out_fields(h, &o, &r->headers);
    if (length >= 0) {
        h2_out_length(&o, length, digits);
    }
    if (r->status < 200) {
        nghttp2_submit_headers(h->session, NGHTTP2_FLAG_NONE, x->sid, NULL, o.v, o.n, NULL);
    } else {
        nghttp2_data_provider body = { .source = { .ptr = x }, .read_callback = h2_read_body };
        nghttp2_submit_response(h->session, x->sid, o.v, o.n, end ? NULL : &body);
    }
    h2_out_end(&o);
    arena_reset(&h->scratch, false);
}

// From here on the stream is a tunnel; what the client has sent early goes on.
static void send_switched(struct h2 *h, struct h2_stream *x, const struct http_response *r)
{
    struct http_response ok = *r;
    ok.status = r->status == 101 ? 200 : r->status;
    x->tunnel = true;
    x->s.remote_done = false;
    submit_head(h, x, &ok, -1, false);
    h2_head_sent(h, x, false);
}

static void send_response(struct codec_stream *s, const struct http_response *r)
{
    struct h2 *h = h2_of(s->codec);
    struct h2_stream *x = h2_stream_of(s);
    if (x->told || x->given_up || x->closed || x->head_sent || h->failed || h->gone) {
        return;
    }
    // RFC 9113 §8.6, RFC 8441 §4: 2xx means switched, and nothing else does.
    bool success = r->status >= 200 && r->status < 300, extended = x->protocol.n > 0;
    if (r->headers.truncated || (r->status == 101 && !extended) || (extended && success)) {
        h2_stream_reset(s, CODEC_RESET_LOCAL);
        return;
    }
    if (x->connect && (r->status == 101 || success)) {
        send_switched(h, x, r);
        return;
    }
    if (r->status < 200) {
        submit_head(h, x, r, -1, false);
        h2_kick(h);
        return;
    }
    bool bodiless = x->head_request || r->status == 204 || r->status == 304;
    int64_t length = r->status == 204 ? -1 : r->content_length;
    if (r->end_stream && !bodiless && length > 0) {
        length = 0; // the body it announces will not come
    }
    x->out_empty = bodiless || r->end_stream;
    x->out_left = x->out_empty ? -1 : r->content_length;
    submit_head(h, x, r, length, x->out_empty);
    if (x->connect) {
        h2_drop_input(h, x); // meant for a tunnel that there will not be
    }
    h2_head_sent(h, x, r->end_stream);
}

static const struct codec_impl impl = {
    .version = HTTP_2,
    .send_response = send_response,
    .send_data = h2_send_data,
    .send_trailers = h2_send_trailers,
    .flush = h2_flush,
    .reset = h2_stream_reset,
    .pause = h2_pause,
    .resume = h2_resume,
    .drain = h2_drain,
    .destroy = h2_destroy,
};

struct codec *codec_h2_server(struct conn *conn, const struct codec_ops *ops, void *owner, const struct codec_opts *o)
{
    return &h2_new(conn, &impl, true, ops, owner, o)->c;
}
