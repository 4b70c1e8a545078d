// SPDX-License-Identifier: Apache-2.0
// The server side of HTTP/1: requests in, answers out, one at a time, in order.
#include "lib/http/h1_conn.h"
#include "lib/http/status.h"

static bool is_connect(const struct http_request *r)
{
    return r->path.n == 0; // the parser leaves it empty for CONNECT only
}

static bool begin(struct h1 *h)
{
    if (h->above_high) { // a peer that does not read its answers gets no further ones (threat class T13)
        if (!h->read_paused) {
            h->read_paused = true;
            conn_pause_read(h->c.conn, CONN_PAUSE_OWNER);
        }
        return false;
    }
    struct arena *arena = h->c.ops->get_arena(&h->c);
    if (h->c.freed || h->x) {
        return false;
    }
    h1_resume_reading(h);
    h1_exchange_new(h, true, arena);
    return true;
}

static void on_head(struct h1 *h, struct h1_exchange *x)
{
    struct http_request *r = &x->p.req;
    x->opened = true;
    h->c.active++;
    x->s.remote_done = r->end_stream;
    x->head_request = str_is(r->method, "HEAD");
    if (!x->p.keep_alive) {
        x->fate = H1_FATE_CLOSE;
    }
    h->c.ops->on_request(&h->c, &x->s, r);
}

static void on_end(struct h1 *h, struct h1_exchange *x)
{
    if (x->s.local_done) {
        h1_over(h, x, H1_FATE_KEEP);
    }
}

// The codec's own answer to what is no request.
static void write_error(struct h1 *h, int status)
{
    const char *reason = http_reason(status);
    buf_printf(&h->c.conn->out, "HTTP/1.1 %d %s\r\ncontent-type: text/plain\r\ncontent-length: %zu\r\n%sconnection: %sclose\r\n\r\n%s",
               status, reason, strlen(reason), status == 426 ? "upgrade: HTTP/1.1\r\n" : "", status == 426 ? "upgrade, " : "",
               reason);
}

static void on_failed(struct h1 *h, struct h1_exchange *x)
{
    bool ended = x->p.error == H1_ERR_UNEXPECTED_EOF || x->p.error == H1_OK;
    const char *detail = h1_error_text(x->p.error);
    int status = h1_error_status(x->p.error);
    if (!x->opened) {
        h1_exchange_drop(h);
        if (ended) {
            h1_gone(h, CONN_CLOSE_REMOTE);
            return;
        }
        if (h->c.ops->on_bad_request) {
            h->c.ops->on_bad_request(&h->c, status, detail);
        }
        if (!h->c.freed) {
            write_error(h, status);
            h1_close(h, H1_FATE_LINGER);
        }
        return;
    }
    bool answer = !ended && x->out == H1_OUT_NO_HEAD;
    h1_reset(h, x, ended ? CODEC_RESET_REMOTE : CODEC_RESET_PROTOCOL, detail,
             answer || x->told ? H1_FATE_LINGER : H1_FATE_ABORT);
    if (answer && !h->c.freed) {
        write_error(h, status);
        x->out = H1_OUT_CLOSE;
    }
}

static void on_eof(struct h1 *h)
{
    struct h1_exchange *x = h->x;
    if (!x) {
        if (h->c.conn->out.len) {
            h1_close(h, H1_FATE_CLOSE);
        } else {
            h1_gone(h, CONN_CLOSE_REMOTE);
        }
    } else if (h->half_close_ok) {
        return; // on_eof comes again when nothing is left to answer
    } else if (!x->s.local_done) {
        h1_reset(h, x, CODEC_RESET_REMOTE, "downstream_remote_disconnect", H1_FATE_ABORT);
    }
}

// Our answer is complete, the request is not (RFC 9112 §9.3: read the body or close).
static void on_early(struct h1 *h, struct h1_exchange *x)
{
    const struct h1_parser *p = &x->p;
    bool small = p->body == H1_BODY_CHUNKED || p->body_left <= H1_DRAIN_MAX;
    if (!small || x->fate != H1_FATE_KEEP || h->draining) {
        h1_over(h, x, H1_FATE_LINGER);
        return;
    }
    h1_detach(h, x);
    x->discard_left = H1_DRAIN_MAX;
    if (x->s.paused) {
        x->s.paused = false;
        conn_resume_read(h->c.conn, CONN_PAUSE_FLOW);
    }
    h->rerun = true;
}

static void finished(struct h1 *h, struct h1_exchange *x)
{
    if (x->fate == H1_FATE_ABORT) {
        // A body that ends with the connection would look complete after a plain FIN, and so would what a tunnel carries.
        h->reset_on_free = x->out == H1_OUT_CLOSE || x->out == H1_OUT_TUNNEL;
        h1_gone(h, h->eof ? CONN_CLOSE_REMOTE : CONN_CLOSE_LOCAL);
    } else if (x->fate != H1_FATE_KEEP) {
        bool unread = x->fate == H1_FATE_LINGER || !x->s.remote_done || h->c.conn->in.len;
        h1_close(h, unread ? H1_FATE_LINGER : H1_FATE_CLOSE);
    }
}

static const struct h1_side side = {
    .begin = begin, .on_head = on_head, .on_end = on_end, .on_failed = on_failed, .on_eof = on_eof, .on_early = on_early,
    .finished = finished,
};

// ---- sending ----

static void send_informational(struct h1 *h, struct h1_exchange *x, const struct http_response *r)
{
    if (x->p.req.version != HTTP_11) { // RFC 9110 §15.2: none to HTTP/1.0
        return;
    }
    struct buf *out = &h->c.conn->out;
    size_t before = out->len;
    struct http_response copy = *r;
    copy.version = HTTP_11;
    h1_write_response(out, &copy, &(struct h1_write_opts){ .names = h->names });
    x->continue_sent |= r->status == 100;
    h1_sent(h, x, out->len - before);
}

static enum h1_out choose_framing(const struct h1_exchange *x, const struct http_response *r)
{
    if (r->status == 101 || (is_connect(&x->p.req) && r->status < 300)) {
        return H1_OUT_TUNNEL;
    }
    if (x->head_request || r->status == 204 || r->status == 304 || r->end_stream) {
        return H1_OUT_EMPTY;
    }
    if (r->content_length >= 0) {
        return H1_OUT_LENGTH;
    }
    return x->p.req.version == HTTP_11 ? H1_OUT_CHUNKED : H1_OUT_CLOSE;
}

// Whether the connection must end with this answer, as far as can be known now. A client that still waits for 100 may send its body
// or not: the bytes that follow cannot be told apart.
static bool must_close(const struct h1 *h, const struct h1_exchange *x, const struct http_response *r)
{
    const struct h1_parser *p = &x->p;
    return x->fate != H1_FATE_KEEP || h->draining || x->out == H1_OUT_CLOSE ||
           (!x->s.remote_done && ((p->req.expect_continue && !x->continue_sent) ||
                                  (r->end_stream && p->body == H1_BODY_LENGTH && p->body_left > H1_DRAIN_MAX)));
}

static void send_response(struct codec_stream *s, const struct http_response *r)
{
    struct h1 *h = h1_of(s->codec);
    struct h1_exchange *x = h1_exchange_of(s);
    if (x->over || x->told || x->out != H1_OUT_NO_HEAD || h->gone) {
        return;
    }
    if (r->status < 200 && r->status != 101) {
        send_informational(h, x, r);
        return;
    }
    if (r->headers.truncated || (r->status == 101 && x->p.req.upgrade.n == 0)) { // nobody asked to switch
        h1_over(h, x, H1_FATE_ABORT);
        return;
    }
    struct h1_response_as as = { x->p.req.version, r->content_length, r->end_stream };
    x->out = (uint8_t)choose_framing(x, r);
    x->out_left = x->out == H1_OUT_LENGTH ? (uint64_t)r->content_length : 0;
    x->tunnel = x->out == H1_OUT_TUNNEL;
    bool close = !x->tunnel && must_close(h, x, r);
    if (close || x->tunnel) {
        x->fate = x->fate > H1_FATE_CLOSE ? x->fate : H1_FATE_CLOSE;
    }
    if (x->tunnel) {
        as.content_length = -1;
        as.end_stream = false;
    } else if (r->end_stream && !x->head_request && r->status != 304 && r->content_length > 0) {
        as.content_length = 0; // the body it announces will not come
    }
    struct h1_write_opts w = {
        .names = h->names,
        .chunked = x->out == H1_OUT_CHUNKED,
        .close = close,
        .keep_alive_10 = !close && !x->tunnel && x->p.req.version == HTTP_10,
        .upgrade = r->status == 101,
        .head_request = x->head_request,
    };
    struct buf *out = &h->c.conn->out;
    size_t before = out->len;
    h1_write_response_as(out, r, &w, &as);
    size_t n = out->len - before;
    if (x->tunnel) { // the request's end did not end the stream: raw bytes follow
        x->s.remote_done = false;
        h->rerun = true;
    } else if (r->end_stream) {
        h1_local_done(h, x);
    }
    h1_sent(h, x, n);
}

static const struct h1_impl impl = {
    .base = {
        .version = HTTP_11,
        .send_response = send_response,
        .send_data = h1_send_data,
        .send_trailers = h1_send_trailers,
        .flush = h1_flush,
        .reset = h1_stream_reset,
        .pause = h1_pause,
        .resume = h1_resume,
        .drain = h1_drain,
        .destroy = h1_destroy,
        .leave = h1_leave,
    },
    .side = &side,
};

struct codec *codec_h1_server(struct conn *conn, const struct codec_ops *ops, void *owner, const struct codec_opts *o)
{
    return &h1_new(conn, &impl, ops, owner, o)->c;
}
