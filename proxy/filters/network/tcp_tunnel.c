// SPDX-License-Identifier: Apache-2.0
#include "proxy/filters/network/tcp_tunnel.h"

#include "lib/base/check.h"

static void finish(struct tcp_tunnel *t, const struct conn *who, enum conn_close why)
{
    if (!t->finished) {
        t->finished = true;
        timer_cancel(&t->idle);
        t->on_done(t, who, why);
    }
}

// ---- the request ----

// core.v3.HeaderValueOption
static void add_header(struct headers *h, const struct tcp_tunnel_header *x, const struct format_ctx *ctx, struct arena *a)
{
    struct str value = format_text(x->value, ctx, a);
    bool there = headers_get(h, x->name) != NULL;
    if ((!value.n && !x->keep_empty) || (x->if_absent && there) || (x->if_exists && !there)) {
        return;
    }
    if (x->overwrite || x->if_exists) {
        headers_set(h, x->name, value);
    } else {
        headers_add(h, x->name, value);
    }
}

const struct http_request *tcp_tunnel_request(const struct tcp_tunnel_cfg *cfg, const struct format_ctx *ctx, struct arena *a)
{
    struct http_request *r = arena_new(a, struct http_request);
    *r = (struct http_request){ .method = cfg->post ? STR("POST") : STR("CONNECT"), .path = cfg->post ? cfg->path : str_n(NULL, 0),
                                .version = HTTP_11, .content_length = -1, .end_stream = !cfg->post,
                                .host = format_text(cfg->hostname, ctx, a) };
    headers_init(&r->headers, a);
    for (size_t i = 0; i < cfg->header_count; i++) {
        add_header(&r->headers, &cfg->headers[i], ctx, a);
    }
    return r;
}

// ---- before it is open ----

// Gives back what the attempt holds.
static void release(struct tcp_tunnel *t, int status, bool failure)
{
    if (t->begun) {
        t->begun = false;
        upstream_request_done(t->cw, t->picked.host, t->priority, status, failure);
        picked_release(&t->picked);
    }
}

static void let_go(struct tcp_tunnel *t, bool give_up)
{
    struct codec_stream *up = t->up;
    if (!up) {
        return;
    }
    t->up = NULL;
    t->bytes_in = codec_stream_bytes_in(up);
    t->bytes_out = codec_stream_bytes_out(up);
    codec_stream_set(up, NULL, NULL);
    if (give_up) {
        stat_inc(t->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_TX_RESET);
        codec_stream_reset(up, CODEC_RESET_LOCAL);
    }
}

static void fail(struct tcp_tunnel *t, enum pool_failure why, const char *detail, bool give_up)
{
    let_go(t, give_up);
    release(t, t->status, !t->status && why != POOL_FAIL_OVERFLOW);
    t->on_fail(t, why, detail);
}

static void up_response(struct codec_stream *s, struct http_response *r)
{
    struct tcp_tunnel *t = codec_stream_owner(s);
    if (t->opened || (r->status < 200 && r->status != 101)) {
        return;
    }
    t->status = r->status;
    if (r->status < 200 || r->status >= 300 || r->end_stream) {
        const char *detail = arena_printf(t->arena, "tunnel response:%d", r->status).p;
        fail(t, POOL_FAIL_CONNECT, detail, !r->end_stream);
        return;
    }
    t->opened = true;
    codec_stream_pause(s); // until somebody takes the bytes
    t->on_open(t);
}

static void up_end(struct tcp_tunnel *t)
{
    t->up_ended = true;
    if (t->down) {
        conn_shutdown(t->down);
    }
}

static void up_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct tcp_tunnel *t = codec_stream_owner(s);
    if (!t->opened || !t->down) { // the rest of an answer that nobody wants
        return;
    }
    t->active_ms = loop_now_ms(t->cw->worker->loop);
    if (data->len && t->down->state == CONN_OPEN && !t->down->eof_out) {
        buf_move(&t->down->out, data, data->len);
        conn_flush(t->down);
        if (conn_above_high(t->down)) {
            codec_stream_pause(s);
        }
    }
    if (end) {
        up_end(t);
    }
}

static void up_trailers(struct codec_stream *s, struct headers *trailers)
{
    (void)trailers;
    struct tcp_tunnel *t = codec_stream_owner(s);
    if (t->opened) {
        up_end(t);
    }
}

static void up_high(struct codec_stream *s)
{
    struct tcp_tunnel *t = codec_stream_owner(s);
    if (t->down) {
        conn_pause_read(t->down, CONN_PAUSE_FLOW);
    }
}

static void up_low(struct codec_stream *s)
{
    struct tcp_tunnel *t = codec_stream_owner(s);
    if (t->down) {
        conn_resume_read(t->down, CONN_PAUSE_FLOW);
    }
}

static void up_reset(struct codec_stream *s, enum codec_reset why, const char *detail)
{
    struct tcp_tunnel *t = codec_stream_owner(s);
    t->up_broken = true;
    stat_inc(t->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_RX_RESET);
    if (!t->opened) {
        fail(t, why == CODEC_RESET_PROTOCOL ? POOL_FAIL_PROTOCOL : POOL_FAIL_CONNECT, detail, false);
    } else if (t->down) {
        let_go(t, false);
        finish(t, NULL, CONN_CLOSE_RESET);
    }
}

static void up_close(struct codec_stream *s)
{
    struct tcp_tunnel *t = codec_stream_owner(s);
    if (!t->opened) {
        up_reset(s, CODEC_RESET_CONNECTION, NULL);
        return;
    }
    let_go(t, false);
    if (t->down) {
        conn_resume_read(t->down, CONN_PAUSE_FLOW); // what the client still says goes nowhere
    }
    if (t->down && t->down->state == CONN_CLOSED) {
        finish(t, t->down, CONN_CLOSE_REMOTE);
    }
}

static const struct codec_stream_ops up_ops = {
    .on_response = up_response, .on_data = up_data, .on_trailers = up_trailers, .on_high = up_high, .on_low = up_low, .on_reset = up_reset,
    .on_close = up_close,
};

static void on_ready(struct pool_request *pr, struct codec *c, const struct conn *conn)
{
    struct tcp_tunnel *t = container_of(pr, struct tcp_tunnel, pr);
    const struct tls_info *tls = transport_tls_info(conn);
    t->waiting = false;
    t->local = conn->local;
    t->peer_uri = tls ? arena_str(t->arena, tls->peer_uri) : str_n(NULL, 0);
    t->up = codec_new_stream(c, &up_ops, t, t->arena);
    if (!t->up) {
        fail(t, POOL_FAIL_CONNECT, NULL, false);
        return;
    }
    codec_send_request(t->up, t->req);
    codec_flush(c);
}

static void on_fail(struct pool_request *pr, enum pool_failure why, const char *detail)
{
    struct tcp_tunnel *t = container_of(pr, struct tcp_tunnel, pr);
    t->waiting = false;
    fail(t, why, detail, false);
}

void tcp_tunnel_begin(struct tcp_tunnel *t, struct cluster_worker *cw, const struct picked *p, const struct pool_opts *o,
                      const struct http_request *req, struct arena *arena)
{
    CHECK(!t->up && !t->begun && !t->waiting);
    t->cw = cw;
    t->arena = arena;
    t->req = req;
    t->priority = o->priority;
    t->host = p->host->addr;
    t->local = (struct addr){ 0 };
    t->status = 0;
    t->up_ended = t->up_broken = false;
    if (!upstream_request_begin(cw, p->host, o->priority)) {
        t->on_fail(t, POOL_FAIL_OVERFLOW, NULL);
        return;
    }
    t->picked = (struct picked){ .host = host_ref(p->host), .transport = p->transport, .cs = cluster_snap_ref(p->cs), .priority = p->priority };
    t->begun = t->waiting = true;
    t->pr = (struct pool_request){ .on_ready = on_ready, .on_fail = on_fail };
    list_init(&t->pr.link);
    pool_http_get(cw, &t->picked, o, &t->pr);
}

// ---- the client's side ----

static void on_data(struct conn *c)
{
    struct tcp_tunnel *t = c->owner;
    if (t->up) {
        codec_send_data(t->up, &c->in, false);
        codec_flush(codec_stream_codec(t->up));
    }
    buf_clear(&c->in); // its way out is closed: nobody is there to read it
}

static void on_eof(struct conn *c)
{
    struct tcp_tunnel *t = c->owner;
    if (t->down_ended) {
        return;
    }
    t->down_ended = true;
    if (t->up) {
        codec_send_data(t->up, &c->in, true);
        codec_flush(codec_stream_codec(t->up));
    }
    buf_clear(&c->in);
}

static void on_low(struct conn *c)
{
    struct tcp_tunnel *t = c->owner;
    if (t->up) {
        codec_stream_resume(t->up);
    }
}

static void on_close(struct conn *c, enum conn_close why)
{
    struct tcp_tunnel *t = c->owner;
    // An orderly end leaves the exchange to come to its own.
    if (why != CONN_CLOSE_REMOTE || !t->up) {
        finish(t, c, why);
    }
}

static const struct conn_ops down_ops = { .on_data = on_data, .on_eof = on_eof, .on_low = on_low, .on_close = on_close };

static void on_idle(struct timer *timer)
{
    struct tcp_tunnel *t = container_of(timer, struct tcp_tunnel, idle);
    uint64_t now = loop_now_ms(t->cw->worker->loop), last = t->down->active_ms > t->active_ms ? t->down->active_ms : t->active_ms;
    if (now < last + t->idle_ms) {
        timer_set(t->cw->worker->loop, timer, last + t->idle_ms - now);
    } else {
        finish(t, NULL, CONN_CLOSE_LOCAL);
    }
}

void tcp_tunnel_start(struct tcp_tunnel *t, struct conn *down, uint64_t idle_ms)
{
    t->down = down;
    t->idle_ms = idle_ms;
    down->ops = &down_ops;
    down->owner = t;
    down->pause = 0;
    timer_init(&t->idle, on_idle);
    if (idle_ms) {
        timer_set(t->cw->worker->loop, &t->idle, idle_ms);
    }
    if (down->in.len) {
        on_data(down);
    }
    if (down->eof_in) {
        on_eof(down); // told to the former owner
    }
    conn_pause_read(down, CONN_PAUSE_OWNER); // so that resume sees a change and looks for waiting bytes
    conn_resume_read(down, CONN_PAUSE_OWNER);
    if (t->up_ended) {
        conn_shutdown(down);
    }
    if (t->up) {
        codec_stream_resume(t->up);
    }
}

void tcp_tunnel_wire(const struct tcp_tunnel *t, uint64_t *ret_in, uint64_t *ret_out)
{
    *ret_in = t->up ? codec_stream_bytes_in(t->up) : t->bytes_in;
    *ret_out = t->up ? codec_stream_bytes_out(t->up) : t->bytes_out;
}

void tcp_tunnel_stop(struct tcp_tunnel *t)
{
    if (t->idle.fn) {
        timer_cancel(&t->idle);
    }
    t->finished = true;
    if (t->waiting) {
        t->waiting = false;
        pool_http_cancel(&t->pr);
        list_del(&t->pr.link);
    }
    let_go(t, true);
    release(t, t->status, t->up_broken);
    if (t->down) {
        static const struct conn_ops none;
        t->down->ops = &none;
        t->down = NULL;
    }
}
