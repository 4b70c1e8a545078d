// SPDX-License-Identifier: Apache-2.0
// The client side of HTTP/1: one request at a time on a connection that a pool may keep.
#include "lib/http/h1_conn.h"

// The connection will carry no further request; said once, while an exchange may still run.
static void goaway(struct h1 *h)
{
    if (!h->draining) {
        h->draining = true;
        if (h->c.ops->on_goaway) {
            h->c.ops->on_goaway(&h->c);
        }
    }
}

// Bytes that nobody asked for. They must never become the answer to the next request.
static bool begin(struct h1 *h)
{
    goaway(h);
    if (!h->c.freed) {
        h1_gone(h, CONN_CLOSE_LOCAL);
    }
    return false;
}

// Bytes that came before the request left belong to an earlier one (a late 408, or a confused server). A connection that becomes open sends what
// waits and reads in one go: with a quick server, the answer to its first request is there before our own flush at the end of the turn.
static bool answered_too_early(const struct h1 *h, const struct h1_exchange *x)
{
    bool sent_on_open = h->exchanges == 0 && x->out != H1_OUT_NO_HEAD && h->c.conn->out.len == 0;
    return !x->flushed && !sent_on_open;
}

static void on_head(struct h1 *h, struct h1_exchange *x)
{
    struct http_response *r = &x->p.resp;
    if (answered_too_early(h, x)) {
        h1_reset(h, x, h->exchanges ? CODEC_RESET_BEFORE_REQUEST : CODEC_RESET_PROTOCOL,
                 h1_error_text(H1_ERR_UNEXPECTED_BYTES), H1_FATE_ABORT);
        return;
    }
    if (r->status < 200 && r->status != 101) {
        if (++x->informational > H1_INFORMATIONAL_MAX) {
            h1_reset(h, x, CODEC_RESET_OVERFLOW, "http1.too_many_informational_responses", H1_FATE_ABORT);
            return;
        }
        if (x->s.ops->on_response) {
            x->s.ops->on_response(&x->s, r);
        }
        if (!h->c.freed) {
            h1_parser_next(&x->p, x->arena);
        }
        return;
    }
    if (r->status == 101 && !x->tunnel) {
        h1_reset(h, x, CODEC_RESET_PROTOCOL, "http1.unexpected_upgrade", H1_FATE_ABORT);
        return;
    }
    if (r->status == 101 || (x->p.connect_request && r->status < 300)) {
        x->out = H1_OUT_TUNNEL;
        x->s.local_done = false;
    } else if (x->tunnel) { // refused to switch: an ordinary answer
        x->tunnel = false;
    }
    x->head_heard = true;
    x->s.remote_done = r->end_stream;
    bool keep = x->p.keep_alive;
    if (x->s.ops->on_response) {
        x->s.ops->on_response(&x->s, r);
    }
    if (h->c.freed) {
        return;
    }
    if (!keep) {
        x->fate = x->fate > H1_FATE_CLOSE ? x->fate : H1_FATE_CLOSE;
        goaway(h);
    }
    if (!h->c.freed && x->s.remote_done && !x->over) {
        h1_over(h, x, H1_FATE_KEEP);
    }
}

// With the answer the exchange is over, even when the request's body is not: nobody waits for the rest.
static void on_end(struct h1 *h, struct h1_exchange *x)
{
    if (!x->tunnel || x->s.local_done) {
        h1_over(h, x, H1_FATE_KEEP);
    }
}

static void on_failed(struct h1 *h, struct h1_exchange *x)
{
    bool ended = x->p.error == H1_OK || x->p.error == H1_ERR_UNEXPECTED_EOF;
    bool nothing = x->p.error == H1_OK && x->informational == 0;
    if (!ended && answered_too_early(h, x)) {
        nothing = true;
    }
    enum codec_reset why = nothing && h->exchanges ? CODEC_RESET_BEFORE_REQUEST : ended ? CODEC_RESET_REMOTE : CODEC_RESET_PROTOCOL;
    h1_reset(h, x, why, ended ? "upstream_remote_disconnect" : h1_error_text(x->p.error), H1_FATE_ABORT);
}

static void on_eof(struct h1 *h)
{
    if (!h->x) {
        goaway(h);
        if (!h->c.freed) {
            h1_gone(h, CONN_CLOSE_REMOTE);
        }
    }
}

static void on_early(struct h1 *h, struct h1_exchange *x)
{
    (void)h;
    (void)x; // not reached: a client exchange ends with the answer
}

static void finished(struct h1 *h, struct h1_exchange *x)
{
    bool complete = x->s.local_done && x->s.remote_done;
    if (x->fate != H1_FATE_KEEP || !complete || h->draining || h->c.conn->in.len || h->eof) {
        goaway(h);
        if (!h->c.freed) {
            h1_gone(h, h->eof ? CONN_CLOSE_REMOTE : CONN_CLOSE_LOCAL);
        }
    }
}

static const struct h1_side side = {
    .begin = begin, .on_head = on_head, .on_end = on_end, .on_failed = on_failed, .on_eof = on_eof, .on_early = on_early,
    .finished = finished,
};

// ---- sending ----

static bool can_open(const struct codec *c)
{
    const struct h1 *h = (const struct h1 *)(const void *)c;
    return !h->x && !h->draining && !h->gone && !h->gone_due && !h->closing && !h->eof && !c->freed &&
           c->conn->state == CONN_OPEN && c->conn->in.len == 0;
}

static struct codec_stream *new_stream(struct codec *c, const struct codec_stream_ops *ops, void *owner, struct arena *arena)
{
    struct h1 *h = h1_of(c);
    struct h1_exchange *x = h1_exchange_new(h, false, arena);
    x->s.ops = ops;
    x->s.owner = owner;
    x->opened = true;
    c->active++;
    return &x->s;
}

// RFC 9110 §8.6: a request without content says so where its method gives content a meaning.
static bool expects_content(const struct http_request *r)
{
    return !str_is(r->method, "GET") && !str_is(r->method, "HEAD") && !str_is(r->method, "DELETE") && !str_is(r->method, "TRACE") &&
           !r->upgrade.n;
}

static void send_request(struct codec_stream *s, const struct http_request *r)
{
    struct h1 *h = h1_of(s->codec);
    struct h1_exchange *x = h1_exchange_of(s);
    if (x->over || x->out != H1_OUT_NO_HEAD || h->gone || h->gone_due) {
        return;
    }
    if (r->headers.truncated) {
        h1_over(h, x, H1_FATE_ABORT);
        return;
    }
    bool connect = str_is(r->method, "CONNECT");
    x->p.connect_request = connect;
    x->p.head_request = x->head_request = str_is(r->method, "HEAD");
    x->tunnel = connect || r->upgrade.n;
    struct h1_request_as as = { HTTP_11, r->content_length, r->expect_continue };
    if (r->end_stream || connect) {
        x->out = H1_OUT_EMPTY;
        as.content_length = !connect && (r->content_length == 0 || expects_content(r)) ? 0 : -1;
        as.expect_continue = false;
    } else if (r->content_length >= 0) {
        x->out = H1_OUT_LENGTH;
        x->out_left = (uint64_t)r->content_length;
    } else {
        x->out = H1_OUT_CHUNKED;
    }
    struct h1_write_opts w = { .names = h->names, .chunked = x->out == H1_OUT_CHUNKED, .close = h->draining, .upgrade = r->upgrade.n > 0 };
    struct buf *out = &h->c.conn->out;
    size_t before = out->len;
    h1_write_request_as(out, r, &w, &as);
    size_t n = out->len - before;
    if (r->end_stream) {
        h1_local_done(h, x);
    }
    h1_sent(h, x, n);
}

static void drain(struct codec *c)
{
    struct h1 *h = h1_of(c);
    h->draining = true;
    if (!h->x) {
        h1_gone(h, CONN_CLOSE_LOCAL);
    }
}

static const struct h1_impl impl = {
    .base = {
        .version = HTTP_11,
        .can_open = can_open,
        .new_stream = new_stream,
        .send_request = send_request,
        .send_data = h1_send_data,
        .send_trailers = h1_send_trailers,
        .flush = h1_flush,
        .reset = h1_stream_reset,
        .pause = h1_pause,
        .resume = h1_resume,
        .drain = drain,
        .destroy = h1_destroy,
    },
    .side = &side,
};

struct codec *codec_h1_client(struct conn *conn, const struct codec_ops *ops, void *owner, const struct codec_opts *o)
{
    return &h1_new(conn, &impl, ops, owner, o)->c;
}
