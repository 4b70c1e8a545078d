// SPDX-License-Identifier: Apache-2.0
// The client side of HTTP/2: requests of many downstream connections on one upstream connection.
#include "lib/http/h2_conn.h"

#include <stdlib.h>

#include "lib/base/mem.h"

enum { INFORMATIONAL_MAX = 16, STREAMS_BEFORE_SETTINGS = 1, STREAMS_MAX = 1024, STREAM_IDS_MAX = 0x3ffffff0 };

static void protocol_error(struct h2 *h, struct h2_stream *x)
{
    x->broken = true;
    h2_rst(h, x->sid, NGHTTP2_PROTOCOL_ERROR); // on_stream_close says so to the owner
    h2_bad_message(h, 502, "http2.invalid_response");
}

static void trailers(struct h2 *h, struct h2_stream *x, bool end)
{
    if (h->block.too_large || !end || h2_breaks_end(h, x) || h2_block_trailers(h, x->arena, &x->trailers)) { // RFC 9113 §8.1
        protocol_error(h, x);
        return;
    }
    x->has_trailers = true;
    x->in_end = true;
    h2_dirty(h, x);
}

// RFC 9113 §8.5: with 2xx both sides talk past HTTP. For an upgrade that is what 101 says in HTTP/1.1.
static bool switched(struct h2_stream *x, struct http_response *r)
{
    if (r->status >= 300) {
        return false;
    }
    x->tunnel = true;
    x->s.remote_done = r->end_stream = false;
    r->content_length = -1;
    if (x->protocol.n) {
        r->status = 101;
        r->upgrade = x->protocol;
    }
    return true;
}

// RFC 9110 §6.4.1: whatever length it announces.
static bool has_no_body(const struct h2_stream *x, const struct http_response *r)
{
    return x->head_request || r->status == 204 || r->status == 304;
}

void h2_client_block(struct h2 *h, const nghttp2_frame *f)
{
    struct h2_stream *x = h2_find(h, f->hd.stream_id);
    if (!x || x->broken || x->told || x->given_up || h->failed) {
        return;
    }
    bool end = f->hd.flags & NGHTTP2_FLAG_END_STREAM;
    x->s.bytes_in += f->hd.length + 9;
    if (x->head_heard) {
        trailers(h, x, end);
        return;
    }
    struct http_response r;
    if (h->block.too_large || h2_block_response(h, x->arena, &r) || (r.status < 200 && (end || ++x->informational > INFORMATIONAL_MAX)) ||
        (end && r.content_length > 0 && !has_no_body(x, &r))) { // RFC 9113 §8.1, §8.1.1
        protocol_error(h, x);
        return;
    }
    r.end_stream = end || r.status < 200;
    if (r.status >= 200) {
        x->head_heard = true;
        x->in_end = x->s.remote_done = end;
    }
    if (x->connect && r.status >= 200 && !switched(x, &r)) {
        x->connect = false; // an ordinary answer
    }
    if (r.status >= 200 && !x->tunnel) {
        x->in_left = has_no_body(x, &r) ? 0 : r.content_length;
    }
    if (r.status >= 200 && !x->tunnel && !end && (r.content_length == 0 || r.status == 204 || r.status == 304)) {
        x->s.remote_done = false;
        x->empty = mem_alloc(sizeof(r));
        *x->empty = r;
        return;
    }
    if (x->s.ops->on_response) {
        x->s.ops->on_response(&x->s, &r);
    }
    if (!h->c.freed) {
        h2_dirty(h, x);
    }
}

void h2_client_empty(struct h2_stream *x)
{
    struct http_response *r = x->empty;
    x->empty = NULL;
    r->end_stream = x->trailers.count == 0;
    x->s.remote_done = r->end_stream;
    if (x->s.ops->on_response) {
        x->s.ops->on_response(&x->s, r);
    }
    free(r);
}

void h2_client_raise(struct h2 *h, struct h2_stream *x, bool taken)
{
    if (!x->window || x->in_end || x->closed || x->told || x->given_up) {
        return;
    }
    if (x->window < H2_FIRST_WINDOW) { // by its size: before an acknowledgement nghttp2 does not count with what SETTINGS say
        x->window = H2_FIRST_WINDOW;
        nghttp2_submit_window_update(h->session, NGHTTP2_FLAG_NONE, x->sid, H2_FIRST_WINDOW - H2_CAREFUL_WINDOW);
        h2_kick(h);
    }
    uint32_t share = H2_SHARED_WINDOWS / h->n_streams, to = share < h->stream_window ? share : h->stream_window;
    if (taken && to > x->window && (int32_t)to > nghttp2_session_get_stream_effective_local_window_size(h->session, x->sid)) {
        x->window = to;
        nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, x->sid, (int32_t)to);
        h2_kick(h);
    }
}

static void say_window(struct h2 *h, uint32_t n)
{
    nghttp2_settings_entry iv = { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, n };
    nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, &iv, 1);
    h2_kick(h);
}

// SETTINGS leave before any request that waits, and take the difference from every open stream (RFC 9113 §6.9.2), which gets it back.
void h2_client_careful(struct h2 *h, const struct h2_stream *x)
{
    if (h->careful || x->window || h->first_window == h->stream_window || h->failed || h->gone || h->gone_due) {
        return;
    }
    h->careful = true;
    say_window(h, H2_CAREFUL_WINDOW);
    list_for (p, &h->streams) {
        const struct h2_stream *o = list_entry(p, struct h2_stream, link);
        if (o->window && !o->in_end && !o->closed && !o->given_up) {
            nghttp2_submit_window_update(h->session, NGHTTP2_FLAG_NONE, o->sid, H2_FIRST_WINDOW - H2_CAREFUL_WINDOW);
        }
    }
}

void h2_client_careless(struct h2 *h)
{
    if (!h->failed && !h->gone && !h->gone_due && !h->closing) {
        h->careful = false;
        say_window(h, h->first_window);
    }
}

static bool can_open(const struct codec *c)
{
    const struct h2 *h = (const struct h2 *)(const void *)c;
    if (h->draining || h->failed || h->closing || h->gone || h->gone_due || h->eof || c->freed || h->goaway_told ||
        c->conn->state != CONN_OPEN || h->opened >= STREAM_IDS_MAX) {
        return false;
    }
    uint32_t max = h->settings_heard ? nghttp2_session_get_remote_settings(h->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
                                     : STREAMS_BEFORE_SETTINGS;
    return h->n_streams < (max > STREAMS_MAX ? STREAMS_MAX : max) && nghttp2_session_check_request_allowed(h->session);
}

static bool settled(const struct codec *c)
{
    return ((const struct h2 *)(const void *)c)->settings_heard;
}

static struct codec_stream *new_stream(struct codec *c, const struct codec_stream_ops *ops, void *owner, struct arena *arena)
{
    struct h2 *h = h2_of(c);
    h2_keepalive_stream(h);
    struct h2_stream *x = h2_stream_new(h, 0, arena);
    x->s.ops = ops;
    x->s.owner = owner;
    c->active++;
    return &x->s;
}

static void put_pseudo(const struct h2 *h, struct h2_out *o, const struct http_request *r, bool plain_connect)
{
    h2_out_put(o, STR(":method"), r->upgrade.n ? STR("CONNECT") : r->method);
    if (r->upgrade.n) {
        h2_out_put(o, STR(":protocol"), r->upgrade);
    }
    if (!plain_connect) {
        h2_out_put(o, STR(":scheme"), r->scheme.n ? r->scheme : h->c.conn->transport ? STR("https") : STR("http"));
        h2_out_put(o, STR(":path"), r->path);
    }
    if (r->host.n) {
        h2_out_put(o, STR(":authority"), r->host);
    }
}

static void submit(struct h2 *h, struct h2_stream *x, const struct http_request *r)
{
    struct h2_out o;
    char digits[H2_LENGTH_TEXT];
    bool connect = str_is(r->method, "CONNECT"), bodiless = r->end_stream && !x->connect;
    h2_out_begin(&o, r->headers.count + 3);
    put_pseudo(h, &o, r, connect);
    h2_out_fields(h, &o, &r->headers);
    if (r->te_trailers) {
        h2_out_put(&o, STR("te"), STR("trailers"));
    }
    if (r->expect_continue && !r->end_stream) {
        h2_out_put(&o, STR("expect"), STR("100-continue"));
    }
    if (r->content_length >= 0 && !x->connect && (r->content_length == 0 || !r->end_stream)) {
        h2_out_length(&o, r->content_length, digits);
    }
    nghttp2_data_provider body = { .source = { .ptr = x }, .read_callback = h2_read_body };
    int32_t sid = nghttp2_submit_request(h->session, NULL, o.v, o.n, bodiless ? NULL : &body, x);
    h2_out_end(&o);
    arena_reset(&h->scratch, false);
    if (sid < 0) {
        h2_stream_reset(&x->s, CODEC_RESET_LOCAL);
        return;
    }
    x->sid = sid;
    x->out_empty = bodiless;
    x->head_request = str_is(r->method, "HEAD");
    x->out_left = r->end_stream ? -1 : r->content_length;
    h2_head_sent(h, x, bodiless);
}

// RFC 8441 §3: only a server that offers extended CONNECT may be asked to upgrade. The request's own method is lost, as with Envoy.
static void submit_upgrade(struct h2 *h, struct h2_stream *x, const struct http_request *r)
{
    if (nghttp2_session_get_remote_settings(h->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1) {
        submit(h, x, r);
        return;
    }
    h2_tell_reset(x, CODEC_RESET_PROTOCOL, "http2.upgrade_not_offered");
    if (!h->c.freed) {
        h2_stream_reset(&x->s, CODEC_RESET_LOCAL);
    }
}

void h2_client_settled(struct h2 *h)
{
    list_for_safe (p, &h->streams) {
        struct h2_stream *x = list_entry(p, struct h2_stream, link);
        struct http_request *r = x->later;
        x->later = NULL;
        if (r && !x->given_up && !x->told) {
            submit_upgrade(h, x, r);
        }
        free(r);
        if (h->c.freed) {
            return;
        }
    }
}

static void send_request(struct codec_stream *s, const struct http_request *r)
{
    struct h2 *h = h2_of(s->codec);
    struct h2_stream *x = h2_stream_of(s);
    if (x->told || x->given_up || x->head_sent || x->later || h->failed || h->gone || h->gone_due) {
        return;
    }
    bool connect = str_is(r->method, "CONNECT"), upgrade = r->upgrade.n > 0;
    if (upgrade && !connect && !r->end_stream) { // bytes behind the head are the tunnel's (RFC 8441 §5): there is no place for a body
        x->unsayable = true;
        h2_dirty(h, x);
        return;
    }
    bool sayable = !connect || (r->end_stream && !upgrade);
    if (r->headers.truncated || (!connect && r->path.n == 0) || !sayable) {
        h2_stream_reset(s, CODEC_RESET_LOCAL);
        return;
    }
    x->connect = connect || upgrade;
    x->protocol = upgrade ? arena_str(x->arena, r->upgrade) : r->upgrade;
    if (!upgrade) {
        submit(h, x, r);
    } else if (h->settings_heard) {
        submit_upgrade(h, x, r);
    } else {
        x->later = mem_alloc(sizeof(*r));
        *x->later = *r; // its views live as long as the stream's owner
    }
}

static const struct codec_impl impl = {
    .version = HTTP_2,
    .can_open = can_open,
    .settled = settled,
    .new_stream = new_stream,
    .send_request = send_request,
    .send_data = h2_send_data,
    .send_trailers = h2_send_trailers,
    .flush = h2_flush,
    .reset = h2_stream_reset,
    .pause = h2_pause,
    .resume = h2_resume,
    .drain = h2_drain,
    .destroy = h2_destroy,
};

struct codec *codec_h2_client(struct conn *conn, const struct codec_ops *ops, void *owner, const struct codec_opts *o)
{
    return &h2_new(conn, &impl, false, ops, owner, o)->c;
}
