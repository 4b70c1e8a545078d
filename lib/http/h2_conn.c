// SPDX-License-Identifier: Apache-2.0
#include "lib/http/h2_conn.h"

#include <stdlib.h>

#include "lib/base/mem.h"
#include "lib/base/recycle.h"

enum { ABUSE_LINGER_MS = 100 }; // time to hear the GOAWAY; reading on what is thrown away costs, too

static void settle(struct h2 *h);

// ---- marks ----

void h2_enter(struct h2 *h)
{
    h->depth++;
}

void h2_leave(struct h2 *h)
{
    if (h->depth == 1) {
        settle(h);
    }
    h->depth--;
}

static void on_task(struct loop_task *t)
{
    struct h2 *h = container_of(t, struct h2, task);
    h2_enter(h);
    h2_leave(h);
}

void h2_kick(struct h2 *h)
{
    if (h->depth == 0 && !h->c.freed) {
        loop_defer(h->c.conn->loop, &h->task);
    }
}

void h2_dirty(struct h2 *h, struct h2_stream *x)
{
    if (list_empty(&x->dirty)) {
        list_add_tail(&h->dirty, &x->dirty);
    }
    h2_kick(h);
}

static void gone(struct h2 *h, enum conn_close why)
{
    if (!h->gone && !h->gone_due) {
        h->gone_due = true;
        h->gone_why = why;
    }
    h2_kick(h);
}

void h2_tell_goaway(struct h2 *h)
{
    if (!h->goaway_told && !h->server) {
        h->goaway_told = true;
        if (h->c.ops->on_goaway) {
            h->c.ops->on_goaway(&h->c);
        }
    }
}

// Every stream ends with why.
static void reset_all(struct h2 *h, enum codec_reset why, const char *detail)
{
    if (h->failed) {
        return;
    }
    h->failed = true;
    h->fail_why = why;
    h->fail_detail = detail;
    list_for (p, &h->streams) {
        h2_dirty(h, list_entry(p, struct h2_stream, link));
    }
    h2_kick(h);
}

void h2_fail(struct h2 *h, uint32_t code, const char *detail)
{
    if (!h->failed) {
        nghttp2_session_terminate_session(h->session, code);
        h->abused = code == NGHTTP2_ENHANCE_YOUR_CALM;
        reset_all(h, CODEC_RESET_PROTOCOL, detail);
    }
}

void h2_lost(struct h2 *h, const char *detail)
{
    reset_all(h, CODEC_RESET_CONNECTION, detail);
    gone(h, CONN_CLOSE_LOCAL);
}

void h2_rst(struct h2 *h, int32_t sid, uint32_t code)
{
    nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, sid, code);
    h2_kick(h);
}

// ---- streams ----

struct h2_stream *h2_stream_new(struct h2 *h, int32_t sid, struct arena *arena)
{
    struct h2_stream *x = recycle_calloc(1, sizeof(*x));
    x = x ? x : mem_new(struct h2_stream);
    x->s.codec = &h->c;
    x->s.ops = &codec_no_stream_ops;
    x->s.id = sid ? (uint64_t)sid : ++h->opened;
    x->sid = sid;
    x->arena = arena;
    x->out_left = x->in_left = -1;
    list_init(&x->dirty);
    list_add_tail(&h->streams, &x->link);
    h->n_streams++;
    return x;
}

static void consume(struct h2 *h, struct h2_stream *x, size_t n)
{
    if (n == 0) {
        return;
    }
    if (x->closed) {
        nghttp2_session_consume_connection(h->session, n);
    } else {
        nghttp2_session_consume(h->session, x->sid, n);
    }
}

void h2_drop_input(struct h2 *h, struct h2_stream *x)
{
    size_t n = x->in.len;
    buf_clear(&x->in);
    consume(h, x, n);
}

static void drop_output(struct h2 *h, struct h2_stream *x)
{
    h->unsent -= x->out.len;
    buf_clear(&x->out);
    free(x->trailers_out);
    x->trailers_out = NULL;
    free(x->later);
    x->later = NULL;
    free(x->empty);
    x->empty = NULL;
}

static void release(struct h2 *h, struct h2_stream *x)
{
    h2_drop_input(h, x);
    size_t left = x->out.len;
    buf_clear(&x->out);
    h2_sent(h, x, left);
    drop_output(h, x);
    list_del(&x->dirty);
    list_del(&x->link);
    h->n_streams--;
    h->n_high -= x->above_high;
    if (h->careful && h->n_streams == 0) {
        h2_client_careless(h);
    }
    h->found = h->found == x ? NULL : h->found;
    if (x->closed || x->sid == 0) {
        loop_free_later(h->c.conn->loop, x);
    } else {
        list_add_tail(&h->zombies, &x->link);
    }
}

static void tell_close(struct h2 *h, struct h2_stream *x)
{
    if (x->told) {
        return;
    }
    x->told = true;
    h->c.active--;
    if (x->s.ops->on_close) {
        x->s.ops->on_close(&x->s);
    }
    x->s.ops = &codec_no_stream_ops;
}

void h2_tell_reset(struct h2_stream *x, enum codec_reset why, const char *detail)
{
    if (!x->told && !x->given_up && x->s.ops->on_reset) {
        x->s.ops->on_reset(&x->s, why, detail);
    }
}

static enum codec_reset reset_kind(const struct h2 *h, const struct h2_stream *x, const char **ret_detail)
{
    *ret_detail = "http2.remote_reset";
    if (!h->server && !x->rst_heard && (x->close_code == NGHTTP2_REFUSED_STREAM || x->s.bytes_out == 0)) { // or never sent
        *ret_detail = "http2.remote_goaway";
        return CODEC_RESET_GOAWAY;
    }
    if (!h->server && x->close_code == NGHTTP2_REFUSED_STREAM) {
        *ret_detail = "http2.remote_refuse";
        return CODEC_RESET_REFUSED;
    }
    if (x->broken || (x->rst_heard ? !h->server && x->close_code == NGHTTP2_PROTOCOL_ERROR
                     : x->close_code != NGHTTP2_NO_ERROR && x->close_code != NGHTTP2_CANCEL)) {
        *ret_detail = "http2.protocol_error";
        return CODEC_RESET_PROTOCOL;
    }
    return CODEC_RESET_REMOTE;
}

// Hands over what was received. The codec may be freed when this returns.
static void deliver(struct h2 *h, struct h2_stream *x)
{
    bool end = x->in_end && !x->s.remote_done;
    if (x->told || x->given_up || (x->in.len ? x->s.paused : !end) || (x->connect && !x->tunnel)) {
        return;
    }
    size_t n = x->in.len;
    bool trailers = end && x->has_trailers && x->trailers.count > 0;
    if (n || (end && !trailers)) {
        struct buf data = { 0 };
        buf_move(&data, &x->in, n);
        x->s.remote_done = end && !trailers;
        if (x->s.ops->on_data) {
            x->s.ops->on_data(&x->s, &data, end && !trailers);
        }
        buf_clear(&data);
        if (h->c.freed) {
            return;
        }
        consume(h, x, n);
        if (x->window && !x->s.paused && x->s.bytes_in >= H2_FIRST_WINDOW / 2) {
            h2_client_raise(h, x, true);
        }
    }
    if (trailers && (!x->s.paused || n == 0) && !x->given_up && !x->told) {
        x->s.remote_done = true;
        if (x->s.ops->on_trailers) {
            x->s.ops->on_trailers(&x->s, &x->trailers);
        }
    }
}

// x is over for its owner.
static void finish(struct h2 *h, struct h2_stream *x)
{
    bool told = x->told;
    tell_close(h, x);
    if (h->c.freed) {
        return;
    }
    if (!x->closed && x->sid && !h->failed && !x->given_up) {
        x->given_up = true;
        h2_drop_input(h, x);
        h2_rst(h, x->sid, h->server ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL);
    }
    bool free_now = x->closed || x->sid == 0 || h->failed;
    if (free_now) {
        release(h, x);
    }
    if ((free_now || !told) && h->c.ops->on_idle) {
        h->c.ops->on_idle(&h->c);
    }
}

// Nothing of this exchange is missing on our side of x: what is left may be delivered although the stream is closed.
static bool whole(const struct h2 *h, const struct h2_stream *x, bool clean)
{
    return clean && x->in_end && (!h->server || (x->tunnel && x->end_sent)); // RFC 9113 §8.1: a server may say NO_ERROR behind its end
}

// Both sides of a tunnel end on their own; a client's other exchanges are over with the answer, nobody waits for the request's rest.
static bool complete(const struct h2 *h, const struct h2_stream *x)
{
    return x->s.remote_done && (x->tunnel ? x->closed : !h->server);
}

static void tell_and_finish(struct h2 *h, struct h2_stream *x, enum codec_reset why, const char *detail)
{
    h2_tell_reset(x, why, detail);
    if (!h->c.freed) {
        finish(h, x);
    }
}

// The connection has failed, or the peer closed the stream, before the exchange was whole.
static void broken(struct h2 *h, struct h2_stream *x)
{
    if (h->failed) {
        bool unheard = !h->server && h->fail_why != CODEC_RESET_PROTOCOL && h->opened > 1 && !x->head_heard && !x->informational;
        tell_and_finish(h, x, unheard ? CODEC_RESET_BEFORE_REQUEST : h->fail_why, h->fail_detail);
        return;
    }
    if (!h->server && !x->empty && x->in.len) { // what came before the reset was sent to be read
        deliver(h, x);
    }
    if (!h->c.freed) {
        const char *detail;
        enum codec_reset why = reset_kind(h, x, &detail);
        tell_and_finish(h, x, why, detail);
    }
}

// What a stream needs that goes no further; false: it does.
static bool over(struct h2 *h, struct h2_stream *x)
{
    bool clean = x->closed && x->close_code == NGHTTP2_NO_ERROR;
    if (x->told || x->given_up) {
        finish(h, x);
    } else if (x->unsayable) {
        tell_and_finish(h, x, CODEC_RESET_PROTOCOL, "http2.upgrade_with_body");
    } else if (h->server && clean && x->end_sent && (!h2_each_ends(x) || x->s.remote_done)) {
        finish(h, x);
    } else if ((h->failed || x->closed) && !whole(h, x, clean)) {
        broken(h, x);
    } else if (x->empty && x->in.len) {
        h2_tell_reset(x, CODEC_RESET_PROTOCOL, "http2.invalid_response");
        if (!h->c.freed) {
            h2_stream_reset(&x->s, CODEC_RESET_PROTOCOL);
        }
    } else {
        return false;
    }
    return true;
}

static void pass_on(struct h2 *h, struct h2_stream *x)
{
    if (x->empty && x->in_end) {
        h2_client_empty(x);
    }
    if (!h->c.freed && !x->empty) {
        deliver(h, x);
    }
}

// Acts on the marks of one stream.
static void service(struct h2 *h, struct h2_stream *x)
{
    if (over(h, x)) {
        return;
    }
    pass_on(h, x);
    if (!h->c.freed && x->above_high && h2_may_take_more(h, x) && !x->told && !x->given_up) {
        x->above_high = x->began_closed = false;
        h->n_high--;
        if (x->s.ops->on_low) {
            x->s.ops->on_low(&x->s);
        }
    }
    if (!h->c.freed && complete(h, x)) {
        finish(h, x);
    }
}

// ---- receiving ----

static void receive(struct h2 *h)
{
    if (h->c.conn->in.len) {
        h2_keepalive_heard(h);
    }
    struct buf in = { 0 }; // taken out of the connection: a callback may free that
    buf_move(&in, &h->c.conn->in, h->c.conn->in.len);
    while (in.len && !h->c.freed && !h->failed) {
        struct str front = buf_front(&in);
        uint32_t code = NGHTTP2_ENHANCE_YOUR_CALM;
        const char *bad = h2_guard_scan(h, front.p, front.n, &code);
        if (bad) {
            h2_fail(h, code, bad);
            break;
        }
        h->in_session = true;
        ssize_t k = nghttp2_session_mem_recv(h->session, (const uint8_t *)front.p, front.n);
        h->in_session = false;
        if (h->c.freed) {
            break;
        }
        if (k < 0) {
            h2_fail(h, k == NGHTTP2_ERR_FLOODED ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_PROTOCOL_ERROR, nghttp2_strerror((int)k));
            break;
        }
        buf_drain(&in, (size_t)k);
        if ((size_t)k < front.n) {
            break;
        }
        if (h2_guard_outbound(h)) {
            h2_fail(h, NGHTTP2_ENHANCE_YOUR_CALM, "http2.outbound_flood");
        }
        while (!list_empty(&h->dirty) && !h->c.freed) {
            struct h2_stream *x = list_entry(h->dirty.next, struct h2_stream, dirty);
            list_del(&x->dirty);
            list_init(&x->dirty);
            service(h, x);
        }
    }
    buf_clear(&in);
    if (h->c.freed && h->session) { // codec_free was called inside
        nghttp2_session_del(h->session);
        h->session = NULL;
    }
}

// ---- sending ----

static bool window_closed(const struct h2 *h, const struct h2_stream *x)
{
    return nghttp2_session_get_remote_window_size(h->session) <= 0 ||
           nghttp2_session_get_stream_remote_window_size(h->session, x->sid) <= 0;
}

// Frames from nghttp2 to the connection, as far as the high mark allows, and from there to the kernel.
static void pump(struct h2 *h)
{
    struct conn *conn = h->c.conn;
    for (int rounds = 0; rounds < 8; rounds++) {
        bool all = false;
        size_t max = conn->out.len ? H2_CONN_HIGH : H2_BATCH; // with something left over, the kernel is full
        while (conn->out.len < max) {
            const uint8_t *p;
            h->in_session = true;
            ssize_t n = nghttp2_session_mem_send(h->session, &p);
            h->in_session = false;
            if (n < 0) {
                reset_all(h, CODEC_RESET_PROTOCOL, "http2.session_failed");
                gone(h, CONN_CLOSE_LOCAL);
                return;
            }
            if (n == 0) {
                all = true;
                break;
            }
            buf_append(&conn->out, p, (size_t)n);
        }
        if (conn->out.len) {
            conn_flush(conn);
        }
        if (all || conn->out.len >= H2_CONN_HIGH) {
            return; // on_low goes on
        }
    }
    loop_defer(conn->loop, &h->task); // others get their turn
}

static void pump_now(struct h2 *h)
{
    if (!h->c.freed && !h->gone && !h->in_session && !h->closing && !h->gone_due) {
        pump(h);
        h2_kick(h);
    }
}

// Streams of one connection that are served in the same turn leave with one system call, at the turn's end.
void h2_flush(struct codec *c)
{
    struct h2 *h = h2_of(c);
    if (!h->gone) {
        h2_kick(h);
    }
}

static void wake(struct h2 *h, struct h2_stream *x)
{
    if (x->deferred) {
        x->deferred = false;
        nghttp2_session_resume_data(h->session, x->sid);
    }
    h2_kick(h);
}

static void local_done(struct h2 *h, struct h2_stream *x)
{
    x->s.local_done = true;
    x->end_queued = true;
    wake(h, x);
}

void h2_head_sent(struct h2 *h, struct h2_stream *x, bool end)
{
    x->head_sent = true;
    if (end) {
        x->s.local_done = true;
        x->end_queued = true;
    }
    h2_dirty(h, x);
}

static bool may_send(const struct h2 *h, const struct h2_stream *x)
{
    return x->head_sent && !x->told && !x->given_up && !x->closed && !x->s.local_done && !h->failed && !h->gone;
}

// ---- marks: what waits for windows and for the kernel ----

static void set_high(struct h2 *h, struct h2_stream *x)
{
    if (!x->above_high && !x->told && !x->given_up && !x->s.local_done) {
        x->above_high = true;
        h->n_high++;
        if (x->s.ops->on_high) {
            x->s.ops->on_high(&x->s);
        }
    }
}

// So much waits behind closed windows or a full kernel that those streams stop, too, whose sources have not spoken yet.
static void set_all_high(struct h2 *h)
{
    list_for (p, &h->streams) {
        struct h2_stream *x = list_entry(p, struct h2_stream, link);
        if (h->c.conn->out.len >= H2_CONN_HIGH || window_closed(h, x)) { // one that can send hears of no change that would let it go on
            set_high(h, x);
        }
    }
}

// A lone stream keeps some frames for a peer that gives windows back piece by piece; many of them may not do so at once.
static bool stalled(const struct h2 *h)
{
    return h->server && h->unsent >= H2_STALLED_HIGH;
}

bool h2_may_take_more(const struct h2 *h, const struct h2_stream *x)
{
    if (h->c.conn->out.len >= H2_CONN_HIGH) {
        return false;
    }
    if (h->server && (x->began_closed || h->unsent >= H2_STALLED_HIGH / 2)) {
        return x->out.len == 0 && !window_closed(h, x);
    }
    return x->out.len < H2_STREAM_HIGH;
}

static __attribute__((noinline)) void above(struct h2 *h, struct h2_stream *x)
{
    bool much = stalled(h);
    pump_now(h);
    if (x->out.len >= H2_STREAM_HIGH || h->c.conn->out.len >= H2_CONN_HIGH || (x->out.len && stalled(h))) {
        set_high(h, x);
    }
    if (much && stalled(h)) {
        set_all_high(h);
    }
}

// Behind an addition to x->out.
static void check_high(struct h2 *h, struct h2_stream *x, bool end)
{
    if (x->out.len && x->out.len <= H2_STREAM_HIGH / 4 && window_closed(h, x)) {
        buf_compact(&x->out); // it is going to stay
        if (x->began_closed && !end) {
            set_high(h, x);
        }
    } else if ((x->out.len >= H2_STREAM_HIGH || stalled(h)) && !x->above_high) {
        above(h, x);
    }
}

void h2_begin_closed(struct h2 *h, struct h2_stream *x)
{
    // The stream's own window is what SETTINGS say: nothing about it can have come before.
    if (nghttp2_session_get_remote_window_size(h->session) <= 0 ||
        nghttp2_session_get_remote_settings(h->session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE) == 0) {
        x->began_closed = true;
        set_high(h, x);
    }
}

void h2_window_opened(struct h2 *h, struct h2_stream *x)
{
    if (x ? !x->above_high : !h->n_high) {
        return;
    }
    if (x) {
        h2_dirty(h, x);
        return;
    }
    list_for (p, &h->streams) {
        x = list_entry(p, struct h2_stream, link);
        if (x->above_high) {
            h2_dirty(h, x);
        }
    }
}

void h2_sent(struct h2 *h, struct h2_stream *x, size_t n)
{
    bool many = h->unsent >= H2_STALLED_HIGH / 2;
    h->unsent -= n;
    if (many && h->unsent < H2_STALLED_HIGH / 2) {
        h2_window_opened(h, NULL);
    } else if (x->above_high && h2_may_take_more(h, x)) {
        h2_dirty(h, x);
    }
}

void h2_send_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct h2 *h = h2_of(s->codec);
    struct h2_stream *x = h2_stream_of(s);
    if (!may_send(h, x) || x->out_empty) {
        buf_clear(data);
        if (end && may_send(h, x)) {
            local_done(h, x);
            h2_dirty(h, x);
        }
        return;
    }
    if (x->out_left >= 0) {
        if ((int64_t)data->len > x->out_left || (end && (int64_t)data->len < x->out_left)) {
            buf_clear(data); // a message that lies about its length must not look complete
            h2_stream_reset(s, CODEC_RESET_PROTOCOL);
            return;
        }
        x->out_left -= (int64_t)data->len;
    }
    h->unsent += data->len;
    buf_move(&x->out, data, data->len);
    if (end) {
        local_done(h, x);
    } else {
        wake(h, x);
    }
    check_high(h, x, end);
}

// The trailers live here until the body has left.
static void keep_trailers(struct h2_stream *x, const struct h2_out *o)
{
    size_t bytes = 0;
    for (size_t i = 0; i < o->n; i++) {
        bytes += o->v[i].namelen + o->v[i].valuelen;
    }
    x->trailers_out = mem_alloc(o->n * sizeof(*o->v) + bytes);
    uint8_t *at = (uint8_t *)(x->trailers_out + o->n);
    for (size_t i = 0; i < o->n; i++) {
        nghttp2_nv nv = o->v[i];
        nv.flags &= (uint8_t)~NGHTTP2_NV_FLAG_NO_COPY_NAME; // the frame may outlive x
        nv.name = memcpy(at, nv.name, nv.namelen);
        at += nv.namelen;
        nv.value = nv.valuelen ? memcpy(at, nv.value, nv.valuelen) : at;
        at += nv.valuelen;
        x->trailers_out[i] = nv;
    }
    x->n_trailers_out = o->n;
}

void h2_send_trailers(struct codec_stream *s, const struct headers *trailers)
{
    struct h2 *h = h2_of(s->codec);
    struct h2_stream *x = h2_stream_of(s);
    struct buf none = { 0 };
    if (may_send(h, x) && !x->out_empty && x->out_left <= 0) {
        struct h2_out o;
        h2_out_begin(&o, trailers->count);
        h2_out_fields(h, &o, trailers);
        if (o.n) {
            keep_trailers(x, &o);
        }
        h2_out_end(&o);
        arena_reset(&h->scratch, false);
    }
    h2_send_data(s, &none, true);
}

void h2_stream_reset(struct codec_stream *s, enum codec_reset why)
{
    struct h2 *h = h2_of(s->codec);
    struct h2_stream *x = h2_stream_of(s);
    if (x->told || x->given_up || s->codec->freed) {
        return;
    }
    if (h->server && x->head_sent && !x->closed && !h->failed) {
        pump_now(h); // what the answer has so far: nghttp2 drops what waits behind RST_STREAM
    }
    x->given_up = true;
    size_t dropped = x->out.len;
    buf_clear(&x->out);
    h2_sent(h, x, dropped);
    h2_drop_input(h, x);
    if (x->sid && !x->closed) {
        uint32_t code = why == CODEC_RESET_REFUSED ? NGHTTP2_REFUSED_STREAM : why == CODEC_RESET_PROTOCOL ? NGHTTP2_PROTOCOL_ERROR
                        : !h->server ? NGHTTP2_CANCEL : why == CODEC_RESET_CONNECTION ? NGHTTP2_CONNECT_ERROR : NGHTTP2_INTERNAL_ERROR;
        h2_rst(h, x->sid, code);
    }
    h2_dirty(h, x);
}

void h2_pause(struct codec_stream *s)
{
    s->paused = true;
    if (!h2_of(s->codec)->server) {
        h2_client_careful(h2_of(s->codec), h2_stream_of(s));
    }
}

void h2_resume(struct codec_stream *s)
{
    if (s->paused) {
        s->paused = false;
        h2_client_raise(h2_of(s->codec), h2_stream_of(s), false);
        h2_dirty(h2_of(s->codec), h2_stream_of(s));
    }
}

// ---- the connection's end ----

void h2_drain_final(struct h2 *h)
{
    h->drain_final = true;
    nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h->session), NGHTTP2_NO_ERROR, NULL,
                          0);
    h2_kick(h);
}

// Two steps (RFC 9113 §6.8): requests under way when the first GOAWAY leaves are still taken.
void h2_drain(struct codec *c)
{
    struct h2 *h = h2_of(c);
    if (h->draining || c->freed || h->gone) {
        return;
    }
    h->draining = true;
    if (!h->server) {
        h2_kick(h);
        return;
    }
    nghttp2_submit_shutdown_notice(h->session);
    nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, NULL); // zeros: not one of h2_keepalive.c
    timer_set(c->conn->loop, &h->timer, H2_DRAIN_MS);
    h2_kick(h);
}

static void free_streams(struct h2 *h, struct list *list)
{
    list_for_safe (p, list) {
        struct h2_stream *x = list_entry(p, struct h2_stream, link);
        x->s.ops = &codec_no_stream_ops;
        x->told = true;
        buf_clear(&x->in);
        drop_output(h, x);
        list_del(&x->link);
        loop_free_later(h->c.conn->loop, x);
    }
}

static void stop_timers(struct h2 *h)
{
    timer_cancel(&h->timer);
    timer_cancel(&h->head_timer);
    timer_cancel(&h->ping_timer);
}

void h2_destroy(struct codec *c)
{
    struct h2 *h = h2_of(c);
    if (c->freed) {
        return;
    }
    struct loop *l = c->conn->loop;
    c->freed = true;
    loop_task_cancel(&h->task);
    stop_timers(h);
    h->found = NULL;
    free_streams(h, &h->streams);
    free_streams(h, &h->zombies);
    list_init(&h->dirty);
    h2_block_fini(h);
    arena_fini(&h->scratch);
    if (!h->in_session) {
        nghttp2_session_del(h->session);
        h->session = NULL;
    }
    conn_free(c->conn);
    loop_free_later(l, h);
}

static void tell_gone(struct h2 *h)
{
    h->gone_due = false;
    h->gone = true;
    stop_timers(h);
    if (h->c.ops->on_conn_close) {
        h->c.ops->on_conn_close(&h->c, h->gone_why);
    }
}

// What is queued leaves, then the connection closes.
static void start_close(struct h2 *h)
{
    struct conn *conn = h->c.conn;
    h->closing = true;
    stop_timers(h);
    h2_tell_goaway(h);
    if (!h->c.freed) {
        conn_close_after_flush(conn, h->abused ? ABUSE_LINGER_MS : conn->out.len ? 15000 : 1000);
        if (h->abused) {
            conn_pause_read(conn, CONN_PAUSE_OWNER);
        }
    }
}

static bool streams_waiting(const struct h2 *h)
{
    list_for (p, &h->streams) {
        const struct h2_stream *x = list_entry(p, struct h2_stream, link);
        if (x->end_queued && !x->end_sent && !x->closed) {
            return true;
        }
    }
    return false;
}

static void arm_tick(struct h2 *h)
{
    struct loop *l = h->c.conn->loop;
    if (!timer_pending(&h->timer) && (h->guard.preface_left || streams_waiting(h))) {
        timer_set(l, &h->timer, H2_TICK_MS);
    }
    if (!h->guard.in_block) {
        timer_cancel(&h->head_timer);
    } else if (!timer_pending(&h->head_timer)) {
        h->head_blocks = h->guard.blocks;
        timer_set(l, &h->head_timer, h->head_ms ? h->head_ms : H2_TICK_MS);
    }
}

static void head_too_slow(struct h2 *h)
{
    if (h->server && h->c.ops->on_bad_request) {
        h->c.ops->on_bad_request(&h->c, 408, "http2.headers_too_slow");
    }
    if (!h->c.freed) {
        h2_fail(h, NGHTTP2_ENHANCE_YOUR_CALM, "http2.headers_too_slow");
    }
}

static void on_head_timer(struct timer *t)
{
    struct h2 *h = container_of(t, struct h2, head_timer);
    h2_enter(h);
    if (h->guard.in_block && h->guard.blocks == h->head_blocks && !h->failed) {
        head_too_slow(h);
    }
    h2_leave(h);
}

static void on_timer(struct timer *t)
{
    struct h2 *h = container_of(t, struct h2, timer);
    h2_enter(h);
    if (h->draining && !h->drain_final) {
        h2_drain_final(h);
    } else if (h->guard.preface_left) {
        head_too_slow(h);
    }
    if (h->c.freed) {
        h2_leave(h);
        return;
    }
    list_for (p, &h->streams) { // a peer that does not take the end of an answer
        struct h2_stream *x = list_entry(p, struct h2_stream, link);
        if (x->end_queued && !x->end_sent && !x->closed && !x->given_up) {
            if (x->tick_out == x->s.bytes_out + 1) {
                h2_tell_reset(x, CODEC_RESET_REMOTE, "http2.stalled");
                if (h->c.freed) {
                    break;
                }
                h2_stream_reset(&x->s, CODEC_RESET_LOCAL);
            }
            x->tick_out = x->s.bytes_out + 1;
        }
    }
    h2_leave(h);
}

static bool session_over(const struct h2 *h)
{
    return !nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session);
}

static void settle(struct h2 *h)
{
    while (!h->c.freed && !h->gone) {
        if (!list_empty(&h->dirty)) {
            struct h2_stream *x = list_entry(h->dirty.next, struct h2_stream, dirty);
            list_del(&x->dirty);
            list_init(&x->dirty);
            service(h, x);
            continue;
        }
        if (h->gone_due) { // a paused stream that has its whole message may still deliver it
            if (list_empty(&h->streams)) {
                tell_gone(h);
            }
            return;
        }
        if (h->closing) {
            return;
        }
        if (h->settled_due) {
            h->settled_due = false;
            if (!h->server && h->c.ops->on_idle) {
                h->c.ops->on_idle(&h->c);
            }
            continue;
        }
        if (h->eof) {
            reset_all(h, h->server ? CODEC_RESET_REMOTE : CODEC_RESET_CONNECTION,
                      h->server ? "downstream_remote_disconnect" : "upstream_remote_disconnect");
            gone(h, CONN_CLOSE_REMOTE);
            continue;
        }
        pump(h);
        if (!list_empty(&h->dirty) || h->gone_due) {
            continue;
        }
        if (!h->failed && !list_empty(&h->streams) && session_over(h)) { // nghttp2 ended it by itself, with GOAWAY
            reset_all(h, CODEC_RESET_PROTOCOL, "http2.protocol_error");
            continue;
        }
        if (h->failed || session_over(h) || (!h->server && h->draining && list_empty(&h->streams))) {
            if (list_empty(&h->streams)) {
                start_close(h);
                return;
            }
        }
        arm_tick(h);
        return;
    }
}

// ---- the connection's callbacks ----

static void on_conn_data(struct conn *c)
{
    struct h2 *h = c->owner;
    h2_enter(h);
    if (!h->closing && !h->gone_due) {
        receive(h);
    }
    h2_leave(h);
}

static void on_conn_eof(struct conn *c)
{
    struct h2 *h = c->owner;
    h->eof = true;
    on_conn_data(c);
}

static void on_conn_low(struct conn *c)
{
    struct h2 *h = c->owner;
    h2_enter(h);
    h2_window_opened(h, NULL);
    h2_leave(h);
}

static void on_conn_close(struct conn *c, enum conn_close why)
{
    struct h2 *h = c->owner;
    h2_enter(h);
    if (h->closing) {
        why = CONN_CLOSE_LOCAL;
    }
    reset_all(h, h->server && why == CONN_CLOSE_REMOTE ? CODEC_RESET_REMOTE : CODEC_RESET_CONNECTION,
              c->close_detail ? c->close_detail : "connection_closed");
    gone(h, why);
    h2_leave(h);
}

static void on_conn_open(struct conn *c)
{
    struct h2 *h = c->owner;
    h2_enter(h);
    if (h->c.ops->on_idle) {
        h->c.ops->on_idle(&h->c);
    }
    h2_leave(h);
}

static const struct conn_ops conn_ops = {
    .on_open = on_conn_open, .on_data = on_conn_data, .on_eof = on_conn_eof, .on_low = on_conn_low, .on_close = on_conn_close,
};

// ---- making ----

static void begin_task(struct loop_task *t)
{
    struct h2 *h = container_of(t, struct h2, task);
    h->task.fn = on_task;
    h2_enter(h);
    if (h->c.conn->in.len) {
        receive(h);
    }
    h2_leave(h);
}

static void submit_settings(struct h2 *h, const struct codec_opts *o)
{
    nghttp2_settings_entry iv[6];
    size_t n = 0;
    uint32_t streams = o && o->max_concurrent_streams ? o->max_concurrent_streams : H2_MAX_STREAMS;
    iv[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, h->server ? streams : 0 };
    bool given = o && o->stream_window;
    h->stream_window = given ? o->stream_window : H2_STREAM_WINDOW;
    h->first_window = given || h->server ? h->stream_window : H2_FIRST_WINDOW;
    iv[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, h->first_window };
    if (!h->server) {
        iv[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 };
    }
    if (h->opts->hpack_table != H2_HPACK_TABLE_DEFAULT) {
        iv[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, h->opts->hpack_table };
    }
    if (h->allow_connect) { // RFC 8441 §3
        iv[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 };
    }
    nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, iv, n);
}

struct h2 *h2_new(struct conn *conn, const struct codec_impl *impl, bool server, const struct codec_ops *ops, void *owner,
                  const struct codec_opts *o)
{
    struct h2 *h = mem_new(struct h2);
    h->c = (struct codec){ .impl = impl, .ops = ops, .owner = owner, .conn = conn };
    h->server = server;
    h->limits = o && o->h1 ? o->h1 : &h1_limits_default;
    h->conn_window = o && o->conn_window ? o->conn_window : server ? H2_CONN_WINDOW_SERVER : H2_CONN_WINDOW_CLIENT;
    h->allow_connect = server && o && o->allow_connect;
    h->eof = conn->eof_in;
    list_init(&h->streams);
    list_init(&h->dirty);
    list_init(&h->zombies);
    loop_task_init(&h->task, begin_task);
    timer_init(&h->timer, on_timer);
    timer_init(&h->head_timer, on_head_timer);
    h->opts = o && o->h2 ? o->h2 : &h2_opts_default;
    h->head_ms = o ? o->head_timeout_ms : 0;
    h2_guard_init(h);
    h->session = h2_session_new(h);
    submit_settings(h, o);
    if (!server) {
        nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, (int32_t)h->conn_window);
    }
    conn->ops = &conn_ops;
    conn->owner = h;
    conn->high = H2_CONN_HIGH;
    conn->low = H2_CONN_HIGH / 2;
    h2_keepalive_init(h);
    loop_defer(conn->loop, &h->task);
    return h;
}
