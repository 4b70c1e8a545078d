// SPDX-License-Identifier: Apache-2.0
#include "lib/http/h1_conn.h"

#include "lib/base/check.h"
#include "lib/base/mem.h"
#include "lib/base/recycle.h"

static void settle(struct h1 *h);
static const struct conn_ops closing_ops;
static void on_timer(struct timer *t);

// ---- marks ----

static void enter(struct h1 *h)
{
    h->depth++;
}

static void leave(struct h1 *h)
{
    if (h->depth == 1) {
        settle(h);
    }
    h->depth--;
}

static void on_task(struct loop_task *t)
{
    struct h1 *h = container_of(t, struct h1, task);
    enter(h);
    leave(h);
}

void h1_kick(struct h1 *h)
{
    if (h->depth == 0 && !h->c.freed) {
        loop_defer(h->c.conn->loop, &h->task);
    }
}

void h1_over(struct h1 *h, struct h1_exchange *x, enum h1_fate fate)
{
    x->over = true;
    if (fate > x->fate) {
        x->fate = (uint8_t)fate;
    }
    h1_kick(h);
}

void h1_reset(struct h1 *h, struct h1_exchange *x, enum codec_reset why, const char *detail, enum h1_fate fate)
{
    if (x->over) {
        return;
    }
    h1_over(h, x, fate);
    if (x->opened && !x->told && x->s.ops->on_reset) {
        x->s.ops->on_reset(&x->s, why, detail);
    }
}

void h1_gone(struct h1 *h, enum conn_close why)
{
    if (!h->gone && !h->gone_due) {
        h->gone_due = true;
        h->gone_why = (uint8_t)why;
    }
    h1_kick(h);
}

// ---- exchanges ----

struct h1_exchange *h1_exchange_new(struct h1 *h, bool is_request, struct arena *arena)
{
    struct h1_exchange *x = recycle_malloc(sizeof(*x)); // the one before this one, as a rule
    CHECK(x);
    memset(x, 0, offsetof(struct h1_exchange, p));
    memset((char *)x + offsetof(struct h1_exchange, arena), 0, sizeof(*x) - offsetof(struct h1_exchange, arena));
    x->s.codec = &h->c;
    x->s.ops = &codec_no_stream_ops;
    x->s.id = h->exchanges + 1;
    x->arena = arena;
    h1_parser_init(&x->p, is_request, h->limits, arena);
    h->x = x;
    return x;
}

static void release(struct h1 *h, struct h1_exchange *x)
{
    h->x = NULL;
    h->exchanges++;
    arena_fini(&x->scratch);
    loop_free_later(h->c.conn->loop, x); // callers up the stack may still look at its marks
}

void h1_exchange_drop(struct h1 *h)
{
    release(h, h->x);
}

void h1_detach(struct h1 *h, struct h1_exchange *x)
{
    (void)h;
    x->p.arena = x->p.trailers.arena = &x->scratch;
}

// Tells the owner that the stream ended. The codec may be freed when this returns.
static void tell_close(struct h1 *h, struct h1_exchange *x)
{
    if (!x->opened || x->told) {
        return;
    }
    x->told = true;
    h->c.active--;
    if (x->s.ops->on_close) {
        x->s.ops->on_close(&x->s);
    }
    x->s.ops = &codec_no_stream_ops;
}

void h1_resume_reading(struct h1 *h)
{
    if (h->read_paused) {
        h->read_paused = false;
        conn_resume_read(h->c.conn, CONN_PAUSE_OWNER);
    }
}

static void finish(struct h1 *h, struct h1_exchange *x)
{
    bool was_open = x->opened && !x->told;
    tell_close(h, x);
    if (h->c.freed) {
        return;
    }
    if (x->s.paused) {
        conn_resume_read(h->c.conn, CONN_PAUSE_FLOW);
    }
    h->c.conn->sips = false;
    h1_resume_reading(h);
    release(h, x);
    if (!h->gone_due) {
        h1_side_of(h)->finished(h, x);
    }
    h->rerun |= h->c.conn->in.len || h->eof || h->draining; // otherwise there is nothing that run would look at
    if (was_open && !h->gone_due && !h->c.freed && h->c.ops->on_idle) {
        h->c.ops->on_idle(&h->c);
    }
}

// ---- receiving ----

static void deliver(struct h1 *h, struct h1_exchange *x, struct buf *data, bool end)
{
    size_t n = data->len;
    x->s.remote_done |= end;
    if (!x->told) {
        if (x->s.ops->on_data) {
            x->s.ops->on_data(&x->s, data, end);
        }
    } else if (n > x->discard_left) {
        h1_over(h, x, H1_FATE_LINGER);
    } else {
        x->discard_left -= n;
    }
    buf_clear(data);
}

static __attribute__((noinline)) void run_data(struct h1 *h, struct h1_exchange *x)
{
    struct buf *in = &h->c.conn->in, body = { 0 };
    size_t before = in->len;
    enum h1_event ev;
    do { // small chunks are gathered, so that they do not cost a callback and a slice each
        h1_take_body(&x->p, in, &body, SIZE_MAX);
        ev = h1_parser_run(&x->p, in);
    } while (ev == H1_DATA);
    x->s.bytes_in += before - in->len;
    bool end = (ev == H1_END || ev == H1_TRAILERS) && x->p.trailers.count == 0;
    deliver(h, x, &body, end);
    if (!h->c.freed && h->c.conn->sips && !x->s.paused && !x->over) {
        h->c.conn->sips = false; // taken
    }
    if (end && !h->c.freed && !x->over) {
        h1_side_of(h)->on_end(h, x);
    }
}

static __attribute__((noinline)) void run_end(struct h1 *h, struct h1_exchange *x)
{
    if (x->p.trailers.count && !x->told) {
        x->s.remote_done = true;
        if (x->s.ops->on_trailers) {
            x->s.ops->on_trailers(&x->s, &x->p.trailers);
        }
    } else {
        struct buf none = { 0 };
        deliver(h, x, &none, true);
    }
    if (!h->c.freed && !x->over) {
        h1_side_of(h)->on_end(h, x);
    }
}

// Raw bytes of a tunnel whose request the parser has finished with.
static __attribute__((noinline)) void run_tunnel(struct h1 *h, struct h1_exchange *x)
{
    struct buf *in = &h->c.conn->in, data = { 0 };
    if (in->len) {
        x->s.bytes_in += in->len;
        buf_move(&data, in, in->len);
        deliver(h, x, &data, false);
    }
    if (h->eof && !h->c.freed && !x->over && !x->s.paused && !x->s.remote_done) {
        deliver(h, x, &data, true);
        if (!h->c.freed && !x->over) {
            h1_side_of(h)->on_end(h, x);
        }
    }
}

static void run_eof(struct h1 *h, struct h1_exchange *x)
{
    if (h1_parser_idle(&x->p) || h1_parser_eof(&x->p) == H1_FAILED) {
        h1_side_of(h)->on_failed(h, x);
    } else {
        run_end(h, x);
    }
}

// The head is there that a paused exchange was still waiting for: now it stops, and what came with the head stays small.
static void pause_behind_head(struct h1 *h, struct h1_exchange *x)
{
    if (!x->head_heard) { // an informational one
        return;
    }
    x->head_due = false;
    if (x->s.paused && !x->over) {
        conn_pause_read(h->c.conn, CONN_PAUSE_FLOW);
        buf_compact(&h->c.conn->in);
    }
}

// One step with the exchange under way. False: nothing more to do now.
static bool run_exchange(struct h1 *h, struct h1_exchange *x)
{
    struct buf *in = &h->c.conn->in;
    if (x->over || (x->s.paused && !x->head_due)) {
        return false;
    }
    if (x->tunnel && x->p.is_request) {
        run_tunnel(h, x);
        return false;
    }
    if (x->s.remote_done) {
        if (in->len > H1_PIPELINE_MAX && !h->read_paused) {
            h->read_paused = true;
            conn_pause_read(h->c.conn, CONN_PAUSE_OWNER);
        }
        if (h->eof) {
            h1_side_of(h)->on_eof(h);
        }
        return false;
    }
    size_t before = in->len;
    enum h1_event ev = h1_parser_run(&x->p, in);
    x->s.bytes_in += before - in->len;
    switch (ev) {
    case H1_NEED_MORE:
        if (h->eof) {
            run_eof(h, x);
        }
        return false;
    case H1_HEAD:
        h1_side_of(h)->on_head(h, x);
        if (!h->c.freed && x->head_due && h->x == x) {
            pause_behind_head(h, x);
        }
        return true;
    case H1_DATA:
        run_data(h, x);
        return true;
    case H1_TRAILERS:
    case H1_END:
        run_end(h, x);
        return true;
    case H1_FAILED:
        h1_side_of(h)->on_failed(h, x);
        return false;
    }
    return false;
}

static bool stopped(const struct h1 *h)
{
    return h->c.freed || h->closing || h->gone || h->gone_due;
}

static void run(struct h1 *h)
{
    while (!stopped(h)) {
        if (h->x) {
            if (!run_exchange(h, h->x)) {
                return;
            }
        } else if (h->c.conn->in.len == 0) {
            if (h->eof) {
                h1_side_of(h)->on_eof(h);
            } else if (h->draining) {
                h1_close(h, H1_FATE_CLOSE);
            }
            return;
        } else if (!h1_side_of(h)->begin(h)) {
            return;
        }
    }
}

// ---- sending ----

static void check_high(struct h1 *h)
{
    struct conn *conn = h->c.conn;
    if (conn->out.len < conn->high || h->above_high) {
        return;
    }
    h1_flush(&h->c);
    if (conn->out.len >= conn->high) {
        h->above_high = true;
        if (h->x && !h->x->told && !h->x->s.local_done && h->x->s.ops->on_high) {
            h->x->s.ops->on_high(&h->x->s);
        }
    }
}

static void check_low(struct h1 *h)
{
    if (!h->above_high || h->c.conn->out.len > h->c.conn->low) {
        return;
    }
    h->above_high = false;
    h->rerun = true; // a further request may have waited for this
    if (h->x && !h->x->told && h->x->s.ops->on_low) {
        h->x->s.ops->on_low(&h->x->s);
    }
}

void h1_sent(struct h1 *h, struct h1_exchange *x, size_t n)
{
    x->s.bytes_out += n;
    check_high(h);
    h1_kick(h);
}

void h1_flush(struct codec *c)
{
    struct h1 *h = h1_of(c);
    if (c->freed || h->gone) {
        return;
    }
    if (h->x && h->x->out != H1_OUT_NO_HEAD) {
        h->x->flushed = true; // also when the connection sent it by itself, as it does on becoming open
    }
    if (c->conn->out.len) {
        conn_flush(c->conn);
    }
    if (h->depth == 0 && h->x && !h->x->p.is_request && !h->x->over && !h->rerun && !h->gone_due && !h->above_high) {
        loop_task_cancel(&h->task); // a request went out whole: that was all it was for
    }
}

void h1_local_done(struct h1 *h, struct h1_exchange *x)
{
    x->s.local_done = true;
    if (x->out == H1_OUT_TUNNEL) {
        conn_shutdown(h->c.conn);
    }
    if (x->s.remote_done) {
        h1_over(h, x, H1_FATE_KEEP);
    } else if (x->out == H1_OUT_TUNNEL && x->p.is_request && x->p.req.upgrade.n) { // see Tunnels in codec.h
        h1_over(h, x, H1_FATE_LINGER);
    }
    h1_kick(h);
}

static bool may_send(struct h1 *h, const struct h1_exchange *x)
{
    return !x->over && !x->told && !x->s.local_done && x->out != H1_OUT_NO_HEAD && !stopped(h);
}

void h1_send_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct h1 *h = h1_of(s->codec);
    struct h1_exchange *x = h1_exchange_of(s);
    if (!may_send(h, x) || x->out == H1_OUT_EMPTY) {
        buf_clear(data);
        if (end && may_send(h, x)) {
            h1_local_done(h, x);
        }
        return;
    }
    if (x->out == H1_OUT_LENGTH) {
        if (data->len > x->out_left || (end && data->len < x->out_left)) {
            buf_clear(data); // a message that lies about its length must not look complete to the peer
            h1_over(h, x, H1_FATE_ABORT);
            return;
        }
        x->out_left -= data->len;
    }
    struct buf *out = &h->c.conn->out;
    size_t before = out->len;
    h1_write_body(out, data, x->out == H1_OUT_CHUNKED);
    if (end) {
        h1_write_end(out, NULL, x->out == H1_OUT_CHUNKED);
    }
    size_t n = out->len - before;
    if (end) {
        h1_local_done(h, x);
    }
    h1_sent(h, x, n);
}

void h1_send_trailers(struct codec_stream *s, const struct headers *trailers)
{
    struct h1 *h = h1_of(s->codec);
    struct h1_exchange *x = h1_exchange_of(s);
    if (!may_send(h, x) || x->out != H1_OUT_CHUNKED) {
        struct buf none = { 0 };
        h1_send_data(s, &none, true);
        return;
    }
    struct buf *out = &h->c.conn->out;
    size_t before = out->len;
    h1_write_end(out, trailers, true);
    size_t n = out->len - before;
    h1_local_done(h, x);
    h1_sent(h, x, n);
}

void h1_stream_reset(struct codec_stream *s, enum codec_reset why)
{
    (void)why; // HTTP/1 has no way to say it
    struct h1_exchange *x = h1_exchange_of(s);
    if (!x->told) {
        h1_over(h1_of(s->codec), x, H1_FATE_ABORT);
    }
}

void h1_pause(struct codec_stream *s)
{
    struct h1_exchange *x = h1_exchange_of(s);
    if (!s->paused && !x->told) {
        s->paused = true;
        x->head_due = !x->p.is_request && !x->head_heard && !x->tunnel;
        if (x->head_due) {
            s->codec->conn->sips = true;
        } else {
            conn_pause_read(s->codec->conn, CONN_PAUSE_FLOW);
        }
    }
}

void h1_resume(struct codec_stream *s)
{
    struct h1 *h = h1_of(s->codec);
    if (s->paused && !h1_exchange_of(s)->told) {
        s->paused = h1_exchange_of(s)->head_due = false;
        conn_resume_read(s->codec->conn, CONN_PAUSE_FLOW);
        h->rerun = true; // what conn->in still holds is not announced again
        h1_kick(h);
    }
}

// ---- closing ----

void h1_close(struct h1 *h, enum h1_fate fate)
{
    struct conn *conn = h->c.conn;
    if (fate == H1_FATE_ABORT) {
        h1_gone(h, CONN_CLOSE_LOCAL);
        return;
    }
    if (h->closing) {
        return;
    }
    struct h1_closing *k = h->closing = mem_new(struct h1_closing);
    k->h = h;
    k->lingering = fate == H1_FATE_LINGER && !h->eof;
    k->linger_left = H1_LINGER_MAX;
    timer_init(&k->timer, on_timer);
    conn->ops = &closing_ops;
    buf_clear(&conn->in);
    h1_resume_reading(h);
    h1_flush(&h->c);
    if (k->lingering) {
        conn_shutdown(conn);
    } else if (conn->out.len == 0) {
        h1_gone(h, CONN_CLOSE_LOCAL);
        return;
    }
    k->progress = conn->bytes_out;
    timer_set(conn->loop, &k->timer, conn->out.len ? H1_STALL_MS : H1_LINGER_MS);
}

static void on_timer(struct timer *t)
{
    struct h1_closing *k = container_of(t, struct h1_closing, timer);
    struct h1 *h = k->h;
    struct conn *conn = h->c.conn;
    enter(h);
    if (conn->out.len && conn->bytes_out != k->progress) {
        k->progress = conn->bytes_out;
        timer_set(conn->loop, t, H1_STALL_MS);
    } else {
        h1_gone(h, CONN_CLOSE_LOCAL);
    }
    leave(h);
}

static void closing_input(struct h1 *h)
{
    struct buf *in = &h->c.conn->in;
    struct h1_closing *k = h->closing;
    bool too_much = in->len > k->linger_left;
    k->linger_left -= too_much ? k->linger_left : in->len;
    buf_clear(in);
    if (too_much || (h->eof && h->c.conn->out.len == 0)) {
        h1_gone(h, CONN_CLOSE_LOCAL);
    }
}

void h1_drain(struct codec *c)
{
    struct h1 *h = h1_of(c);
    h->draining = true;
    h->rerun = true;
    h1_kick(h);
}

void h1_destroy(struct codec *c)
{
    struct h1 *h = h1_of(c);
    if (c->freed) {
        return;
    }
    struct loop *l = c->conn->loop;
    c->freed = true;
    loop_task_cancel(&h->task);
    if (h->closing) {
        timer_cancel(&h->closing->timer);
        loop_free_later(l, h->closing);
    }
    if (h->x) {
        h->x->over = h->x->told = true;
        release(h, h->x);
    }
    if (h->reset_on_free) {
        conn_free_reset(c->conn);
    } else {
        conn_free(c->conn);
    }
    loop_free_later(l, h);
}

bool h1_leave(struct codec *c)
{
    struct h1 *h = h1_of(c);
    const struct conn *conn = c->conn;
    if (h->depth || h->x || h->closing || h->draining || h->rerun || h->gone || h->gone_due || c->freed || !list_empty(&h->task.link) ||
        h->read_paused || h->eof || conn->pause || conn->in.len || conn->out.len || conn->state != CONN_OPEN || conn->broken) {
        return false;
    }
    recycle_free(h);
    return true;
}

// ---- acting on the marks ----

static void tell_gone(struct h1 *h)
{
    h->gone_due = false;
    h->gone = true;
    if (h->closing) {
        timer_cancel(&h->closing->timer);
    }
    if (h->x) { // the streams first
        h->x->over = true;
        tell_close(h, h->x);
        if (h->c.freed) {
            return;
        }
        release(h, h->x);
    }
    if (h->c.ops->on_conn_close) {
        h->c.ops->on_conn_close(&h->c, (enum conn_close)h->gone_why);
    }
}

// A server's answer is complete while its request is not.
static bool ended_early(const struct h1_exchange *x)
{
    return x->p.is_request && x->opened && x->s.local_done && !x->s.remote_done && !x->told && !x->tunnel;
}

static void settle(struct h1 *h)
{
    while (!h->c.freed && !h->gone) {
        struct h1_exchange *x = h->x;
        if (x && x->over) {
            finish(h, x);
        } else if (h->gone_due) {
            tell_gone(h);
            return;
        } else if (x && ended_early(x)) {
            tell_close(h, x);
            if (!h->c.freed) {
                h1_side_of(h)->on_early(h, x);
            }
            if (!h->c.freed && h->c.ops->on_idle) {
                h->c.ops->on_idle(&h->c);
            }
        } else if (h->rerun) {
            h->rerun = false;
            run(h);
        } else {
            if (x && x->out != H1_OUT_NO_HEAD) {
                x->flushed = true;
            }
            uint64_t sent = h->c.conn->bytes_out;
            if (h->c.conn->out.len) {
                h1_flush(&h->c);
            }
            if (h->c.conn->bytes_out == sent) {
                return;
            }
            check_low(h);
            if (!h->rerun && !(h->x && h->x->over) && !h->gone_due) {
                return;
            }
        }
    }
}

// ---- the connection's callbacks ----

static struct h1 *h1_of_conn(struct conn *c)
{
    return c->owner;
}

static void on_conn_data(struct conn *c)
{
    struct h1 *h = h1_of_conn(c);
    enter(h);
    if (h->closing) {
        closing_input(h);
    } else {
        h->rerun = true;
    }
    leave(h);
}

static void on_conn_eof(struct conn *c)
{
    struct h1 *h = h1_of_conn(c);
    h->eof = true;
    on_conn_data(c);
}

static void on_conn_low(struct conn *c)
{
    struct h1 *h = h1_of_conn(c);
    enter(h);
    check_low(h);
    leave(h);
}

// Heard only while closing: each call costs a task.
static void on_conn_drained(struct conn *c)
{
    struct h1 *h = h1_of_conn(c);
    enter(h);
    if (!h->closing->lingering) {
        h1_gone(h, CONN_CLOSE_LOCAL);
    } else {
        timer_set(c->loop, &h->closing->timer, H1_LINGER_MS);
        closing_input(h);
    }
    leave(h);
}

static void on_conn_close(struct conn *c, enum conn_close why)
{
    struct h1 *h = h1_of_conn(c);
    enter(h);
    if (h->x) {
        struct h1_exchange *x = h->x;
        bool fresh = !x->p.is_request && h->exchanges && h1_parser_idle(&x->p) && x->informational == 0;
        h1_reset(h, x, fresh ? CODEC_RESET_BEFORE_REQUEST : why == CONN_CLOSE_REMOTE ? CODEC_RESET_REMOTE : CODEC_RESET_CONNECTION,
                 c->close_detail ? c->close_detail : "connection_closed", H1_FATE_KEEP);
    }
    if (!h->c.freed) {
        h->gone_due = true;
        h->gone_why = (uint8_t)why;
    }
    leave(h);
}

// A codec may be put on a client connection before it is open.
static void on_conn_open(struct conn *c)
{
    struct h1 *h = h1_of_conn(c);
    enter(h);
    if (h->c.ops->on_idle) {
        h->c.ops->on_idle(&h->c);
    }
    leave(h);
}

static const struct conn_ops conn_ops = {
    .on_open = on_conn_open, .on_data = on_conn_data, .on_eof = on_conn_eof, .on_low = on_conn_low, .on_close = on_conn_close,
};
static const struct conn_ops closing_ops = {
    .on_data = on_conn_data, .on_eof = on_conn_eof, .on_low = on_conn_low, .on_drained = on_conn_drained,
    .on_close = on_conn_close,
};

struct h1 *h1_new(struct conn *conn, const struct h1_impl *impl, const struct codec_ops *ops, void *owner, const struct codec_opts *o)
{
    struct h1 *h = recycle_calloc(1, sizeof(*h)); // a connection leaves its codec while it is idle
    CHECK(h);
    h->c = (struct codec){ .impl = &impl->base, .ops = ops, .owner = owner, .conn = conn };
    h->limits = o && o->h1 ? o->h1 : &h1_limits_default;
    h->names = o ? (uint8_t)o->h1_names : H1_NAMES_PLAIN;
    h->half_close_ok = o && o->half_close_ok;
    h->eof = conn->eof_in;
    loop_task_init(&h->task, on_task);
    conn->ops = &conn_ops;
    conn->owner = h;
    if (conn->in.len || h->eof) {
        h->rerun = true;
        loop_defer(conn->loop, &h->task);
    }
    return h;
}
