// SPDX-License-Identifier: Apache-2.0
// Test rig: a codec on one end of a socket pair, raw bytes on the other, a real loop, and a log of what the codec's owner heard.
#ifndef TESTS_UNIT_LIB_HTTP_CODEC_RIG_H
#define TESTS_UNIT_LIB_HTTP_CODEC_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/http/codec.h"

enum { RIG_LOG_MAX = 8192 };

struct rig {
    struct loop *loop;
    struct codec *codec;          // NULL after on_conn_close
    struct codec_stream *stream;  // the open one
    struct arena arena;
    int fd;                       // our raw end, non-blocking
    char log[RIG_LOG_MAX];
    size_t n_log;
    bool free_in_request, reset_in_request, pause_in_request, quiet;
    void (*on_request)(struct rig *r, struct http_request *q); // after logging
    void (*on_end)(struct rig *r);                             // the peer's message ended
    size_t body;                  // body bytes heard
    int highs, lows;
};

__attribute__((format(printf, 2, 3))) static inline void rig_log(struct rig *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(r->log + r->n_log, sizeof(r->log) - r->n_log, fmt, ap);
    va_end(ap);
    assert_true(n >= 0 && (size_t)n < sizeof(r->log) - r->n_log);
    r->n_log += (size_t)n;
}

static inline void rig_fields(struct rig *r, const struct headers *h)
{
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        rig_log(r, " %.*s=%.*s", STR_FMT(x->name), STR_FMT(x->value));
    }
}

static inline void rig_on_response(struct codec_stream *s, struct http_response *q)
{
    struct rig *r = codec_stream_owner(s);
    rig_log(r, "response %u len=%lld%s%s%.*s", q->status, (long long)q->content_length, q->end_stream ? " end" : "",
            q->upgrade.n ? " upgrade=" : "", STR_FMT(q->upgrade));
    rig_fields(r, &q->headers);
    rig_log(r, "|");
    if (q->end_stream && q->status >= 200 && r->on_end) {
        r->on_end(r);
    }
}

static inline void rig_on_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct rig *r = codec_stream_owner(s);
    r->body += data->len;
    if (!r->quiet) {
        struct str all = buf_pullup(data, data->len);
        rig_log(r, "data %.*s%s|", STR_FMT(all), end ? " end" : "");
    }
    if (end && r->on_end) {
        r->on_end(r);
    }
}

static inline void rig_on_trailers(struct codec_stream *s, struct headers *t)
{
    struct rig *r = codec_stream_owner(s);
    rig_log(r, "trailers");
    rig_fields(r, t);
    rig_log(r, "|");
    if (r->on_end) {
        r->on_end(r);
    }
}

static inline void rig_on_high(struct codec_stream *s)
{
    ((struct rig *)codec_stream_owner(s))->highs++;
}

static inline void rig_on_low(struct codec_stream *s)
{
    ((struct rig *)codec_stream_owner(s))->lows++;
}

static inline void rig_on_reset(struct codec_stream *s, enum codec_reset why, const char *detail)
{
    static const char *const names[] = { "local", "remote", "refused", "connection", "before_request", "protocol", "overflow" };
    rig_log(codec_stream_owner(s), "reset %s %s|", names[why], detail);
}

static inline void rig_on_close(struct codec_stream *s)
{
    struct rig *r = codec_stream_owner(s);
    rig_log(r, "close|");
    if (r->stream == s) {
        r->stream = NULL;
    }
}

static const struct codec_stream_ops rig_stream_ops = {
    .on_response = rig_on_response, .on_data = rig_on_data, .on_trailers = rig_on_trailers, .on_high = rig_on_high,
    .on_low = rig_on_low, .on_reset = rig_on_reset, .on_close = rig_on_close,
};

static inline void rig_on_request_cb(struct codec *c, struct codec_stream *s, struct http_request *q)
{
    struct rig *r = codec_owner(c);
    codec_stream_set(s, &rig_stream_ops, r);
    r->stream = s;
    rig_log(r, "request %.*s %.*s host=%.*s len=%lld%s", STR_FMT(q->method), STR_FMT(q->path), STR_FMT(q->host),
            (long long)q->content_length, q->end_stream ? " end" : "");
    rig_fields(r, &q->headers);
    rig_log(r, "|");
    if (r->pause_in_request) {
        codec_stream_pause(s);
    }
    if (r->on_request) {
        r->on_request(r, q);
    }
    if (r->reset_in_request) {
        codec_stream_reset(s, CODEC_RESET_LOCAL);
    }
    if (r->free_in_request) {
        codec_free(c);
        r->codec = NULL;
        r->stream = NULL;
    }
}

static inline struct arena *rig_arena(struct codec *c)
{
    struct rig *r = codec_owner(c);
    arena_reset(&r->arena, true);
    return &r->arena;
}

static inline void rig_bad(struct codec *c, int status, const char *detail)
{
    rig_log(codec_owner(c), "bad %d %s|", status, detail);
}

static inline void rig_goaway(struct codec *c)
{
    rig_log(codec_owner(c), "goaway|");
}

static inline void rig_idle(struct codec *c)
{
    rig_log(codec_owner(c), "idle|");
}

static inline void rig_gone(struct codec *c, enum conn_close why)
{
    struct rig *r = codec_owner(c);
    rig_log(r, "gone %s|", why == CONN_CLOSE_LOCAL ? "local" : why == CONN_CLOSE_REMOTE ? "remote" : "reset");
    codec_free(c);
    r->codec = NULL;
}

static const struct codec_ops rig_ops = {
    .on_request = rig_on_request_cb, .get_arena = rig_arena, .on_bad_request = rig_bad, .on_goaway = rig_goaway,
    .on_idle = rig_idle, .on_conn_close = rig_gone,
};

static inline void rig_turn(struct rig *r, int n)
{
    while (n--) {
        loop_turn(r->loop, 0);
    }
}

static inline struct rig *rig_on(int ours, int theirs, bool server, const struct codec_opts *o)
{
    struct rig *r = calloc(1, sizeof(*r));
    r->fd = ours;
    r->loop = loop_new(NULL);
    assert_non_null(r->loop);
    rig_turn(r, 1); // binds the thread
    struct addr none = { 0 };
    struct conn *c = conn_accepted(r->loop, theirs, &none, &none, NULL, NULL);
    r->codec = server ? codec_h1_server(c, &rig_ops, r, o) : codec_h1_client(c, &rig_ops, r, o);
    rig_turn(r, 2);
    return r;
}

// server: our end plays the client, and the other way round.
static inline struct rig *rig_new(bool server, const struct codec_opts *o)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    return rig_on(fds[0], fds[1], server, o);
}

// The same over TCP on loopback, where a reset can be told from an end.
static inline struct rig *rig_tcp(bool server, const struct codec_opts *o)
{
    struct addr a;
    bool done;
    assert_true(addr_parse(STR("127.0.0.1:0"), &a));
    int l = socket_listen(&a, &(struct socket_listen_opts){ 0 }, NULL);
    assert_true(l >= 0);
    socket_local(l, &a);
    int ours = socket_connect(&a, NULL, &done), theirs;
    assert_true(ours >= 0);
    while ((theirs = socket_accept(l, &a)) == -EAGAIN) {
    }
    assert_true(theirs >= 0);
    close(l);
    return rig_on(ours, theirs, server, o);
}

static inline void rig_free(struct rig *r)
{
    if (r->codec) {
        codec_free(r->codec);
    }
    rig_turn(r, 3);
    loop_free(r->loop);
    arena_fini(&r->arena);
    if (r->fd >= 0) {
        close(r->fd);
    }
    free(r);
    buf_cache_free();
}

static inline void rig_send_n(struct rig *r, const void *p, size_t n)
{
    const char *at = p;
    for (int tries = 0; n && tries < 10000; tries++) {
        ssize_t k = send(r->fd, at, n, MSG_NOSIGNAL);
        if (k > 0) {
            at += k;
            n -= (size_t)k;
        }
        rig_turn(r, 2);
    }
    assert_int_equal(n, 0);
    rig_turn(r, 3);
}

static inline void rig_send(struct rig *r, const char *text)
{
    rig_send_n(r, text, strlen(text));
}

// All that has arrived at our end; "<eof>" or "<reset>" is appended when the codec's side closed.
static inline const char *rig_recv(struct rig *r)
{
    static char text[256 * 1024];
    size_t n = 0;
    for (int quiet = 0; quiet < 3;) {
        rig_turn(r, 2);
        ssize_t k = recv(r->fd, text + n, sizeof(text) - n - 16, 0);
        if (k > 0) {
            n += (size_t)k;
            quiet = 0;
        } else if (k == 0 || errno != EAGAIN) {
            snprintf(text + n, 16, "%s", k == 0 ? "<eof>" : "<reset>");
            return text;
        } else {
            quiet++;
        }
    }
    text[n] = '\0';
    return text;
}

// The log since the last call.
static inline const char *rig_heard(struct rig *r)
{
    static char out[RIG_LOG_MAX];
    memcpy(out, r->log, r->n_log);
    out[r->n_log] = '\0';
    r->n_log = 0;
    return out;
}

// Answers on r->stream: length < 0 means chunked; body NULL means that the head ends the message.
static inline void rig_answer(struct rig *r, int status, long long length, const char *body)
{
    struct arena a = { 0 };
    struct http_response q = { .status = (uint16_t)status, .version = HTTP_11, .content_length = length, .end_stream = !body };
    headers_init(&q.headers, &a);
    headers_add(&q.headers, STR("x-a"), STR("1"));
    codec_send_response(r->stream, &q);
    if (body) {
        struct buf b = { 0 };
        buf_append_str(&b, str_c(body));
        codec_send_data(r->stream, &b, true);
    }
    arena_fini(&a);
}

// A request on a new stream; body NULL: none; length < 0: chunked.
static inline void rig_ask_with(struct rig *r, const char *method, const char *path, long long length, const char *body, bool end,
                                const char *upgrade)
{
    r->stream = codec_new_stream(r->codec, &rig_stream_ops, r, &r->arena);
    assert_non_null(r->stream);
    struct http_request q = { .method = str_c(method), .host = STR("h"), .path = str_c(path), .version = HTTP_11,
                              .content_length = length, .end_stream = !body && end, .upgrade = str_c(upgrade) };
    headers_init(&q.headers, &r->arena);
    headers_add(&q.headers, STR("x-q"), STR("1"));
    codec_send_request(r->stream, &q);
    if (body) {
        struct buf b = { 0 };
        buf_append_str(&b, str_c(body));
        codec_send_data(r->stream, &b, end);
    }
}

static inline void rig_ask(struct rig *r, const char *method, const char *path)
{
    rig_ask_with(r, method, path, -1, NULL, true, NULL);
}

#endif
