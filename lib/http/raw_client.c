// SPDX-License-Identifier: Apache-2.0
// The upstream side of a CONNECT that ends here (route.v3.RouteAction.UpgradeConfig.ConnectConfig): a codec that speaks no HTTP. Its one
// exchange is answered with 200 as soon as it begins, because the connection is there; then bytes pass both ways as they are.
#include "lib/base/mem.h"
#include "lib/http/codec_impl.h"

enum { LINGER_MS = 5000 };

struct raw {
    struct codec c;
    struct codec_stream s;
    struct arena *arena;
    struct loop_task task;
    enum conn_close gone_why;
    bool used, begun, answered, end_sent, given_up, told, closing, gone, above_high;
};

static struct raw *raw_of(struct codec *c)
{
    return container_of(c, struct raw, c);
}

static void kick(struct raw *r)
{
    if (!r->c.freed) {
        loop_defer(r->c.conn->loop, &r->task);
    }
}

static void answer(struct raw *r)
{
    struct http_response ok = { .status = 200, .version = HTTP_11, .content_length = -1 };
    r->answered = true;
    headers_init(&ok.headers, r->arena);
    if (r->s.ops->on_response) {
        r->s.ops->on_response(&r->s, &ok);
    }
}

static void deliver(struct raw *r)
{
    struct conn *conn = r->c.conn;
    if (!r->used || !r->answered || r->told || r->given_up || r->s.paused || r->s.remote_done) {
        return;
    }
    bool end = conn->eof_in;
    if (conn->in.len == 0 && !end) {
        return;
    }
    struct buf data = { 0 };
    r->s.bytes_in += conn->in.len;
    buf_move(&data, &conn->in, conn->in.len);
    r->s.remote_done = end;
    if (r->s.ops->on_data) {
        r->s.ops->on_data(&r->s, &data, end);
    }
    buf_clear(&data);
}

static void tell_reset(struct raw *r, enum codec_reset why, const char *detail)
{
    if (r->used && !r->told && !r->given_up && r->s.ops->on_reset) {
        r->s.ops->on_reset(&r->s, why, detail);
    }
}

static void tell_close(struct raw *r)
{
    if (r->used && !r->told) {
        r->told = true;
        r->c.active--;
        if (r->s.ops->on_close) {
            r->s.ops->on_close(&r->s);
        }
        r->s.ops = &codec_no_stream_ops;
    }
}

// The connection's end follows the exchange's. What was sent leaves first where both sides ended well.
static void end(struct raw *r)
{
    if (!r->given_up && !r->gone_why) {
        if (!r->closing) {
            r->closing = true;
            conn_close_after_flush(r->c.conn, LINGER_MS);
        }
        return;
    }
    r->gone = true;
    if (r->given_up) {
        conn_free_reset(r->c.conn); // no orderly end; its memory stays to the end of the turn
    }
    if (r->c.ops->on_conn_close) {
        r->c.ops->on_conn_close(&r->c, r->gone_why ? r->gone_why : CONN_CLOSE_LOCAL);
    }
}

// All callbacks come from here. The codec may be freed by each.
static void settle(struct raw *r)
{
    if (r->c.freed || r->gone) {
        return;
    }
    if (r->begun && !r->answered && !r->given_up && !r->gone_why) {
        answer(r);
    }
    if (!r->c.freed) {
        deliver(r);
    }
    bool ended = r->s.remote_done && r->end_sent;
    if (r->c.freed || (!ended && !r->given_up && !r->gone_why)) {
        return;
    }
    if (r->gone_why && !ended) {
        tell_reset(r, r->gone_why == CONN_CLOSE_REMOTE ? CODEC_RESET_REMOTE : CODEC_RESET_CONNECTION,
                   r->c.conn->close_detail ? r->c.conn->close_detail : "upstream_remote_disconnect");
    }
    if (!r->c.freed) {
        tell_close(r);
    }
    if (!r->c.freed) {
        end(r);
    }
}

static void on_task(struct loop_task *t)
{
    settle(container_of(t, struct raw, task));
}

// ---- the connection ----

static void on_conn_data(struct conn *c)
{
    settle(c->owner);
}

static void on_conn_low(struct conn *c)
{
    struct raw *r = c->owner;
    if (r->above_high) {
        r->above_high = false;
        if (r->used && !r->told && r->s.ops->on_low) {
            r->s.ops->on_low(&r->s);
        }
    }
}

static void on_conn_close(struct conn *c, enum conn_close why)
{
    struct raw *r = c->owner;
    r->gone_why = why;
    settle(r);
}

static const struct conn_ops conn_ops = { .on_data = on_conn_data, .on_eof = on_conn_data, .on_low = on_conn_low,
                                          .on_close = on_conn_close };

// ---- the codec ----

static bool can_open(const struct codec *c)
{
    const struct raw *r = container_of(c, struct raw, c);
    return !r->used && !c->freed && !r->gone && c->conn->state == CONN_OPEN;
}

static struct codec_stream *new_stream(struct codec *c, const struct codec_stream_ops *ops, void *owner, struct arena *arena)
{
    struct raw *r = raw_of(c);
    r->used = true;
    r->arena = arena;
    r->s = (struct codec_stream){ .codec = c, .ops = ops, .owner = owner, .id = 1 };
    c->active++;
    return &r->s;
}

static void end_sending(struct raw *r)
{
    r->end_sent = true;
    conn_shutdown(r->c.conn);
}

// Nothing of the request is said to the server. A CONNECT goes on behind its end; any other request that is complete by now ends our side.
static void send_request(struct codec_stream *s, const struct http_request *q)
{
    struct raw *r = raw_of(s->codec);
    if (r->begun || r->given_up || s->codec->freed) {
        return;
    }
    r->begun = true;
    s->local_done = q->end_stream;
    if (q->end_stream && q->path.n) {
        end_sending(r);
    }
    kick(r);
}

static void send_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct raw *r = raw_of(s->codec);
    bool early = s->local_done && !r->answered; // a CONNECT that has not heard its answer
    if (r->told || r->given_up || r->end_sent || !r->begun || early || s->codec->freed) {
        buf_clear(data);
        return;
    }
    struct conn *conn = s->codec->conn;
    s->bytes_out += data->len;
    if (data->len) {
        conn_write(conn, data);
    }
    if (end) {
        end_sending(r);
        kick(r);
    } else if (conn_above_high(conn) && !r->above_high) {
        r->above_high = true;
        if (s->ops->on_high) {
            s->ops->on_high(s);
        }
    }
}

static void send_trailers(struct codec_stream *s, const struct headers *trailers)
{
    (void)trailers; // a tunnel has none
    struct buf none = { 0 };
    send_data(s, &none, true);
}

static void flush(struct codec *c)
{
    (void)c; // conn_write has sent what the kernel takes
}

static void reset(struct codec_stream *s, enum codec_reset why)
{
    (void)why;
    struct raw *r = raw_of(s->codec);
    if (!r->told && !r->given_up) {
        r->given_up = true;
        kick(r);
    }
}

static void pause(struct codec_stream *s)
{
    if (!s->paused) {
        s->paused = true;
        conn_pause_read(s->codec->conn, CONN_PAUSE_FLOW);
    }
}

static void resume(struct codec_stream *s)
{
    if (s->paused) {
        s->paused = false;
        conn_resume_read(s->codec->conn, CONN_PAUSE_FLOW);
        kick(raw_of(s->codec));
    }
}

static void drain(struct codec *c)
{
    (void)c; // it serves one exchange anyway
}

static void destroy(struct codec *c)
{
    struct raw *r = raw_of(c);
    if (c->freed) {
        return;
    }
    c->freed = true;
    loop_task_cancel(&r->task);
    r->s.ops = &codec_no_stream_ops;
    struct loop *l = c->conn->loop;
    conn_free(c->conn);
    loop_free_later(l, r);
}

static const struct codec_impl impl = {
    .version = HTTP_11,
    .can_open = can_open,
    .new_stream = new_stream,
    .send_request = send_request,
    .send_data = send_data,
    .send_trailers = send_trailers,
    .flush = flush,
    .reset = reset,
    .pause = pause,
    .resume = resume,
    .drain = drain,
    .destroy = destroy,
};

struct codec *codec_raw_client(struct conn *conn, const struct codec_ops *ops, void *owner)
{
    struct raw *r = mem_new(struct raw);
    r->c = (struct codec){ .impl = &impl, .ops = ops, .owner = owner, .conn = conn };
    r->s.ops = &codec_no_stream_ops;
    loop_task_init(&r->task, on_task);
    conn->ops = &conn_ops;
    conn->owner = r;
    return &r->c;
}
