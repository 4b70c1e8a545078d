// SPDX-License-Identifier: Apache-2.0
// The nghttp2 session: how it is set up, and what it calls back while it reads and writes. Frames, streams, windows and HPACK are its;
// what a message may look like (RFC 9113 §8) is ours. Nothing here calls back into it but to submit
// frames; whatever the owner must hear later is marked on the stream (h2_dirty).
#include "lib/base/check.h"
#include "lib/base/recycle.h"
#include "lib/http/h2_conn.h"

// ---- receiving ----

static struct h2 *h2_user(void *user)
{
    return user;
}

struct h2_stream *h2_find(struct h2 *h, int32_t sid)
{
    struct h2_stream *x = h->found; // frames and their callbacks come in runs
    if (!x || x->sid != sid || x->closed) {
        x = h->found = nghttp2_session_get_stream_user_data(h->session, sid);
    }
    return x;
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

// What is behind the head makes the message malformed (RFC 9113 §8.1.1).
static void break_message(struct h2 *h, struct h2_stream *x)
{
    x->broken = true;
    h2_rst(h, x->sid, NGHTTP2_PROTOCOL_ERROR); // on_stream_close says so to the owner
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t sid, const uint8_t *data, size_t n, void *user)
{
    (void)session;
    (void)flags;
    struct h2 *h = h2_user(user);
    struct h2_stream *x = h2_find(h, sid);
    bool breaks = x && !x->broken && !x->told && !x->given_up && h2_breaks_length(h, x, n);
    if (breaks) {
        break_message(h, x);
    }
    if (!x || x->broken || x->told || x->given_up || (x->connect && !x->tunnel && h->server && x->head_sent)) { // or a tunnel that was refused
        if (x && x->broken) {
            nghttp2_session_consume_connection(h->session, n);
        } else {
            nghttp2_session_consume(h->session, sid, n);
        }
        return 0;
    }
    if (x->in_left >= 0) {
        x->in_left -= (int64_t)n;
    }
    x->s.bytes_in += n;
    buf_append(&x->in, data, n);
    if (x->s.paused) {
        buf_compact(&x->in); // it is going to stay
    }
    h2_dirty(h, x);
    return 0;
}

static void on_end_stream(struct h2 *h, int32_t sid)
{
    struct h2_stream *x = h2_find(h, sid);
    if (!x || x->broken) {
        return;
    }
    if (h2_breaks_end(h, x) && !x->told && !x->given_up) {
        break_message(h, x);
        return;
    }
    x->in_end = true;
    h2_guard_earn(h, 2);
    h2_dirty(h, x);
}

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
        x = h2_find(h, f->hd.stream_id);
        if (x) {
            x->rst_heard = true;
        }
        break;
    case NGHTTP2_WINDOW_UPDATE:
        if (h->n_high) {
            x = f->hd.stream_id ? h2_find(h, f->hd.stream_id) : NULL;
            if (x || !f->hd.stream_id) {
                h2_window_opened(h, x);
            }
        }
        break;
    case NGHTTP2_SETTINGS:
        if (h->n_high) {
            h2_window_opened(h, NULL);
        }
        if (!(f->hd.flags & NGHTTP2_FLAG_ACK) && !h->settings_heard) {
            h->settings_heard = h->settled_due = true;
            if (!h->server) {
                h2_client_settled(h);
            }
        }
        break;
    case NGHTTP2_PING:
        if ((f->hd.flags & NGHTTP2_FLAG_ACK) && h->draining && !h->drain_final && f->ping.opaque_data[0] == 0) {
            h2_drain_final(h);
        }
        break;
    case NGHTTP2_GOAWAY:
        h2_tell_goaway(h);
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
    struct h2_stream *x = h2_find(h, sid);
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

// ---- sending ----

// Frames of many sizes cut a small window into pieces, which come back as updates of as many sizes, and so on: it gets full ones.
static bool window_ample(const struct h2 *h, const struct h2_stream *x)
{
    int32_t all = nghttp2_session_get_remote_window_size(h->session);
    int32_t one = nghttp2_session_get_stream_remote_window_size(h->session, x->sid);
    return (all < one ? all : one) >= H2_WINDOW_AMPLE;
}

ssize_t h2_read_body(nghttp2_session *session, int32_t sid, uint8_t *buf, size_t length, uint32_t *flags,
                     nghttp2_data_source *source, void *user)
{
    (void)buf;
    struct h2_stream *x = source->ptr;
    h2_user(user)->found = x; // on_frame_sent and on_stream_close follow
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
    h2_sent(h, x, length);
    return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *f, void *user)
{
    (void)session;
    struct h2 *h = h2_user(user);
    if ((f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA) || f->hd.stream_id == 0) {
        return 0;
    }
    struct h2_stream *x = h2_find(h, f->hd.stream_id);
    if (!x) {
        return 0;
    }
    x->s.bytes_out += f->hd.type == NGHTTP2_HEADERS ? f->hd.length + 9 : 9;
    if (f->hd.type == NGHTTP2_HEADERS && f->headers.cat == NGHTTP2_HCAT_REQUEST && h->first_window < h->stream_window) {
        x->window = h->careful ? H2_CAREFUL_WINDOW : h->first_window;
        if (h->careful && !x->s.paused) {
            h2_client_raise(h, x, false);
        }
    }
    if (f->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        x->end_sent = true;
        if (h->server && !x->in_end && !h2_each_ends(x)) { // RFC 9113 §8.1: the answer is complete, nobody wants the rest of the request
            nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_NO_ERROR);
        }
    }
    return 0;
}

// ---- making ----

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

nghttp2_session *h2_session_new(struct h2 *h)
{
    // Some twenty small pieces for every message: streams, frames, entries of the header tables.
    static nghttp2_mem mem = { .malloc = mem_malloc_cb, .calloc = mem_calloc_cb, .realloc = mem_realloc_cb, .free = mem_free_cb };
    nghttp2_session_callbacks *cb;
    nghttp2_option *opt;
    nghttp2_session *session = NULL;
    CHECK(nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&opt) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_sent);
    nghttp2_option_set_no_auto_window_update(opt, 1);
    nghttp2_option_set_no_http_messaging(opt, 1); // h2_fields.c, and here what is counted: half the price, and stricter
    // Not no_closed_streams: frames on them would be ignored in place of refused (RFC 9113 §5.1).
    nghttp2_option_set_max_settings(opt, 32);
    nghttp2_option_set_max_outbound_ack(opt, h->opts->max_outbound_control < 500 ? h->opts->max_outbound_control : 500);
    nghttp2_option_set_max_deflate_dynamic_table_size(opt, h->opts->hpack_table);
    int rv = h->server ? nghttp2_session_server_new3(&session, cb, h, opt, &mem) : nghttp2_session_client_new3(&session, cb, h, opt, &mem);
    CHECK(rv == 0);
    nghttp2_option_del(opt);
    nghttp2_session_callbacks_del(cb);
    return session;
}
