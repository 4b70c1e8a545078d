// SPDX-License-Identifier: Apache-2.0
#include "lib/http/h2_conn.h"

#include <stdlib.h>

#include "lib/base/check.h"
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

static void tell_goaway(struct h2 *h)
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
    x->out_left = -1;
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

static void drop_output(struct h2_stream *x)
{
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
    drop_output(x);
    list_del(&x->dirty);
    list_del(&x->link);
    h->n_streams--;
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
    if (!x->rst_heard && x->close_code != NGHTTP2_NO_ERROR && x->close_code != NGHTTP2_CANCEL) {
        *ret_detail = "http2.protocol_error";
        return CODEC_RESET_PROTOCOL;
    }
    return CODEC_RESET_REMOTE;
}

// A tunnel whose sides end on their own. An upgraded stream of a server is over with its own end.
static bool each_ends(const struct h2_stream *x)
{
    return x->tunnel && !x->protocol.n;
}

// Hands over what was received. The codec may be freed when this returns.
static void deliver(struct h2 *h, struct h2_stream *x)
{
    bool end = x->in_end && !x->s.remote_done;
    if (x->told || x->given_up || x->s.paused || (x->in.len == 0 && !end) || (x->connect && !x->tunnel)) {
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
    }
    if (trailers && !x->s.paused && !x->given_up && !x->told) {
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

// Bytes of the one stream, and of all of them in front of the kernel.
static bool takes_no_more(const struct h2 *h, const struct h2_stream *x)
{
    return x->out.len >= H2_STREAM_HIGH || h->c.conn->out.len >= H2_CONN_HIGH;
}

static bool may_take_more(const struct h2 *h, const struct h2_stream *x)
{
    return x->out.len < H2_STREAM_HIGH && h->c.conn->out.len < H2_CONN_HIGH;
}

// Acts on the marks of one stream.
static void service(struct h2 *h, struct h2_stream *x)
{
    if (x->told || x->given_up) {
        finish(h, x);
        return;
    }
    if (x->unsayable) {
        h2_tell_reset(x, CODEC_RESET_PROTOCOL, "http2.upgrade_with_body");
        if (!h->c.freed) {
            finish(h, x);
        }
        return;
    }
    bool clean = x->closed && x->close_code == NGHTTP2_NO_ERROR;
    if (h->server && clean && x->end_sent && (!each_ends(x) || x->s.remote_done)) {
        finish(h, x);
        return;
    }
    if (h->failed && !whole(h, x, clean)) {
        enum codec_reset why = h->fail_why;
        bool unheard = !h->server && why != CODEC_RESET_PROTOCOL && h->opened > 1 && !x->head_heard && !x->informational;
        h2_tell_reset(x, unheard ? CODEC_RESET_BEFORE_REQUEST : why, h->fail_detail);
        if (!h->c.freed) {
            finish(h, x);
        }
        return;
    }
    if (x->closed && !whole(h, x, clean)) {
        const char *detail;
        enum codec_reset why = reset_kind(h, x, &detail);
        h2_tell_reset(x, why, detail);
        if (!h->c.freed) {
            finish(h, x);
        }
        return;
    }
    if (x->empty && x->in.len && !x->given_up) {
        h2_tell_reset(x, CODEC_RESET_PROTOCOL, "http2.invalid_response");
        if (!h->c.freed) {
            h2_stream_reset(&x->s, CODEC_RESET_PROTOCOL);
        }
        return;
    }
    if (x->empty && x->in_end) {
        h2_client_empty(x);
        if (h->c.freed) {
            return;
        }
    }
    if (!x->empty) {
        deliver(h, x);
    }
    if (h->c.freed) {
        return;
    }
    if (x->above_high && may_take_more(h, x) && !x->told && !x->given_up) {
        x->above_high = false;
        if (x->s.ops->on_low) {
            x->s.ops->on_low(&x->s);
        }
    }
    if (!h->c.freed && complete(h, x)) {
        finish(h, x);
    }
}

// ---- receiving: inside nghttp2 ----

static struct h2 *h2_user(void *user)
{
    return user;
}

static struct h2_stream *find(struct h2 *h, int32_t sid)
{
    return nghttp2_session_get_stream_user_data(h->session, sid);
}

static int alive(const struct h2 *h)
{
    return h->c.freed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

void h2_bad_message(struct h2 *h, int status, const char *detail)
{
    if (!h2_guard_spend(h, status == 431 ? 400 : 50)) {
        h2_fail(h, NGHTTP2_ENHANCE_YOUR_CALM, "http2.too_many_glitches");
    }
    if (h->opts->invalid_ends_connection && status != 431) {
        h2_fail(h, NGHTTP2_PROTOCOL_ERROR, detail);
    }
    if (h->server && h->c.ops->on_bad_request) {
        h->c.ops->on_bad_request(&h->c, status, detail);
    }
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    (void)frame;
    h2_block_begin(h2_user(user));
    return alive(h2_user(user));
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value, uint8_t flags,
                     void *user)
{
    (void)session;
    (void)frame;
    (void)flags;
    struct h2 *h = h2_user(user);
    h2_block_add(h, name, value);
    if (h->block.over > H2_OVER_MAX) { // each byte on the wire may stand for kilobytes: not even to be dropped (threat class T17)
        h2_fail(h, NGHTTP2_ENHANCE_YOUR_CALM, "http2.header_bomb");
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return 0;
}

// nghttp2 would drop the field and go on; RFC 9113 §8.2.1 wants the message refused.
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
                             uint8_t flags, void *user)
{
    (void)session;
    (void)frame;
    (void)name;
    (void)value;
    (void)flags;
    h2_user(user)->block.bad = true;
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t sid, const uint8_t *data, size_t n, void *user)
{
    (void)session;
    (void)flags;
    struct h2 *h = h2_user(user);
    struct h2_stream *x = find(h, sid);
    if (!x || x->told || x->given_up || (x->connect && !x->tunnel && h->server && x->head_sent)) { // or a tunnel that was refused
        nghttp2_session_consume(h->session, sid, n);
        return 0;
    }
    x->s.bytes_in += n;
    buf_append(&x->in, data, n);
    h2_dirty(h, x);
    return 0;
}

static void on_end_stream(struct h2 *h, int32_t sid)
{
    struct h2_stream *x = find(h, sid);
    if (x) {
        x->in_end = true;
        h2_guard_earn(h, 2);
        h2_dirty(h, x);
    }
}

static void drain_final(struct h2 *h);

static int on_frame(nghttp2_session *session, const nghttp2_frame *f, void *user)
{
    (void)session;
    struct h2 *h = h2_user(user);
    if (alive(h)) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    struct h2_stream *x;
    switch (f->hd.type) {
    case NGHTTP2_HEADERS:
        if (h->server) {
            h2_server_block(h, f);
        } else {
            h2_client_block(h, f);
        }
        break;
    case NGHTTP2_DATA:
        if (f->hd.flags & NGHTTP2_FLAG_END_STREAM) {
            on_end_stream(h, f->hd.stream_id);
        }
        break;
    case NGHTTP2_RST_STREAM:
        x = find(h, f->hd.stream_id);
        if (x) {
            x->rst_heard = true;
        }
        break;
    case NGHTTP2_SETTINGS:
        if (!(f->hd.flags & NGHTTP2_FLAG_ACK) && !h->settings_heard) {
            h->settings_heard = h->settled_due = true;
            if (!h->server) {
                h2_client_settled(h);
            }
        }
        break;
    case NGHTTP2_PING:
        if ((f->hd.flags & NGHTTP2_FLAG_ACK) && h->draining && !h->drain_final && f->ping.opaque_data[0] == 0) {
            drain_final(h);
        }
        break;
    case NGHTTP2_GOAWAY:
        tell_goaway(h);
        break;
    default:
        break;
    }
    return alive(h);
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *f, int code, void *user)
{
    (void)session;
    (void)code;
    struct h2 *h = h2_user(user);
    if (!alive(h) && f->hd.type == NGHTTP2_HEADERS) {
        h2_bad_message(h, 400, "http2.violation_of_messaging");
    }
    return alive(h);
}

static int on_stream_close(nghttp2_session *session, int32_t sid, uint32_t code, void *user)
{
    (void)session;
    struct h2 *h = h2_user(user);
    struct h2_stream *x = find(h, sid);
    if (x) {
        x->closed = true;
        x->close_code = code;
        if (code == NGHTTP2_NO_ERROR) {
            h2_guard_earn(h, 2);
        }
        h2_dirty(h, x);
    }
    return 0;
}

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

// Frames of many sizes cut a small window into pieces, which come back as updates of as many sizes, and so on: it gets full ones.
static bool window_ample(const struct h2 *h, const struct h2_stream *x)
{
    int32_t all = nghttp2_session_get_remote_window_size(h->session);
    int32_t one = nghttp2_session_get_stream_remote_window_size(h->session, x->sid);
    return (all < one ? all : one) >= H2_WINDOW_AMPLE;
}

static bool window_closed(const struct h2 *h, const struct h2_stream *x)
{
    return nghttp2_session_get_remote_window_size(h->session) <= 0 ||
           nghttp2_session_get_stream_remote_window_size(h->session, x->sid) <= 0;
}

ssize_t h2_read_body(nghttp2_session *session, int32_t sid, uint8_t *buf, size_t length, uint32_t *flags,
                     nghttp2_data_source *source, void *user)
{
    (void)buf;
    struct h2_stream *x = source->ptr;
    size_t n = x->out.len < length ? x->out.len : length, first = buf_front(&x->out).n;
    if (first >= H2_SLICE_FRAME_MIN && first < n && window_ample(h2_user(user), x)) {
        n = first; // the slice as it is
    }
    if ((n == 0 && !x->end_queued) || x->told || x->given_up) {
        x->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (x->end_queued && n == x->out.len) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (x->n_trailers_out) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            nghttp2_submit_trailer(session, sid, x->trailers_out, x->n_trailers_out);
        }
    }
    return (ssize_t)n;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
                        nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)frame;
    struct h2 *h = h2_user(user);
    struct h2_stream *x = source->ptr;
    struct buf *out = &h->c.conn->out;
    if (length == 0 && !(framehd[4] & NGHTTP2_FLAG_END_STREAM)) {
        return 0; // in front of trailers: an empty frame says nothing
    }
    if (buf_front(&x->out).n == length && buf_prepend(&x->out, framehd, 9)) {
        buf_move(out, &x->out, length + 9);
    } else { // copied, so that no slice goes along with a few bytes in it
        buf_append(out, framehd, 9);
        for (size_t left = length; left;) {
            struct str s = buf_front(&x->out);
            size_t n = s.n < left ? s.n : left;
            buf_append(out, s.p, n);
            buf_drain(&x->out, n);
            left -= n;
        }
    }
    x->s.bytes_out += length;
    h->guard.data_sent++;
    h2_guard_earn(h, 4); // it may be answered with WINDOW_UPDATE frames
    if (x->above_high && may_take_more(h, x)) {
        h2_dirty(h, x);
    }
    return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *f, void *user)
{
    (void)session;
    struct h2 *h = h2_user(user);
    if ((f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA) || f->hd.stream_id == 0) {
        return 0;
    }
    struct h2_stream *x = find(h, f->hd.stream_id);
    if (!x) {
        return 0;
    }
    x->s.bytes_out += f->hd.type == NGHTTP2_HEADERS ? f->hd.length + 9 : 9;
    if (f->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        x->end_sent = true;
        if (h->server && !x->in_end && !each_ends(x)) { // RFC 9113 §8.1: the answer is complete, nobody wants the rest of the request
            nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_NO_ERROR);
        }
    }
    return 0;
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
    buf_move(&x->out, data, data->len);
    if (end) {
        local_done(h, x);
    } else {
        wake(h, x);
    }
    if (x->out.len && x->out.len <= H2_STREAM_HIGH / 4 && window_closed(h, x)) {
        buf_compact(&x->out); // it is going to stay
    } else if (x->out.len >= H2_STREAM_HIGH && !x->above_high) {
        pump_now(h);
        if (takes_no_more(h, x) && !end) {
            x->above_high = true;
            if (x->s.ops->on_high) {
                x->s.ops->on_high(&x->s);
            }
        }
    }
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
    x->given_up = true;
    buf_clear(&x->out);
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
}

void h2_resume(struct codec_stream *s)
{
    if (s->paused) {
        s->paused = false;
        h2_dirty(h2_of(s->codec), h2_stream_of(s));
    }
}

// ---- the connection's end ----

static void drain_final(struct h2 *h)
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
        drop_output(x);
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
    tell_goaway(h);
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
        drain_final(h);
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
            reset_all(h, CODEC_RESET_REMOTE, h->server ? "downstream_remote_disconnect" : "upstream_remote_disconnect");
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
    list_for (p, &h->streams) {
        struct h2_stream *x = list_entry(p, struct h2_stream, link);
        if (x->above_high) {
            h2_dirty(h, x);
        }
    }
    h2_leave(h);
}

static void on_conn_close(struct conn *c, enum conn_close why)
{
    struct h2 *h = c->owner;
    h2_enter(h);
    if (h->closing) {
        why = CONN_CLOSE_LOCAL;
    }
    reset_all(h, why == CONN_CLOSE_REMOTE ? CODEC_RESET_REMOTE : CODEC_RESET_CONNECTION,
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

static void *mem_malloc_cb(size_t n, void *user)
{
    (void)user;
    return recycle_malloc(n);
}

static void *mem_calloc_cb(size_t count, size_t n, void *user)
{
    (void)user;
    return recycle_calloc(count, n);
}

static void *mem_realloc_cb(void *p, size_t n, void *user)
{
    (void)user;
    return recycle_realloc(p, n);
}

static void mem_free_cb(void *p, void *user)
{
    (void)user;
    recycle_free(p);
}

static nghttp2_session *session_new(struct h2 *h)
{
    // Some twenty small pieces for every message: streams, frames, entries of the header tables.
    static nghttp2_mem mem = { .malloc = mem_malloc_cb, .calloc = mem_calloc_cb, .realloc = mem_realloc_cb, .free = mem_free_cb };
    nghttp2_session_callbacks *cb;
    nghttp2_option *opt;
    nghttp2_session *session = NULL;
    CHECK(nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&opt) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(cb, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback2(cb, on_invalid_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_sent);
    nghttp2_option_set_no_auto_window_update(opt, 1);
    nghttp2_option_set_no_closed_streams(opt, 1); // it would keep them for their place among priorities
    nghttp2_option_set_max_settings(opt, 32);
    nghttp2_option_set_max_outbound_ack(opt, h->opts->max_outbound_control < 500 ? h->opts->max_outbound_control : 500);
    nghttp2_option_set_max_deflate_dynamic_table_size(opt, h->opts->hpack_table);
    int rv = h->server ? nghttp2_session_server_new3(&session, cb, h, opt, &mem) : nghttp2_session_client_new3(&session, cb, h, opt, &mem);
    CHECK(rv == 0);
    nghttp2_option_del(opt);
    nghttp2_session_callbacks_del(cb);
    return session;
}

static void submit_settings(struct h2 *h, const struct codec_opts *o)
{
    nghttp2_settings_entry iv[6];
    size_t n = 0;
    uint32_t streams = o && o->max_concurrent_streams ? o->max_concurrent_streams : H2_MAX_STREAMS;
    iv[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, h->server ? streams : 0 };
    iv[n++] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
                                        o && o->stream_window ? o->stream_window : H2_STREAM_WINDOW };
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
    h->session = session_new(h);
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
