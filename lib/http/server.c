// SPDX-License-Identifier: Apache-2.0
#include "lib/http/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/http/codec.h"
#include "lib/http/url.h"
#include "lib/net/socket.h"

enum { ACCEPTS_PER_EVENT = 32, ACCEPT_RETRY_MS = 100, SMALL_ANSWER_BYTES = 16 * 1024 };

struct http_server {
    struct loop *loop;
    struct loop_fd listener;
    struct timer retry;   // accept again after descriptors ran out
    struct addr addr;
    char *unix_path;      // owned; removed at the end
    void (*handler)(void *arg, struct http_server_req *q, struct http_server_resp *r);
    void *arg;
    struct list conns;    // of struct client
    int count;
};

struct client {
    struct list link;
    struct http_server *server;
    struct codec *codec;   // owned
    struct codec_stream *stream;
    struct http_request *req; // of the stream; in arena
    struct arena arena;    // one request and its answer
    struct buf body;
    struct timer idle;
    struct addr peer;
    void (*after)(void *arg);
    void *after_arg;
    struct http_server_later *later; // borrowed: an answer that somebody owes
};

struct http_server_later {
    struct client *client; // NULL: gone
};

static const struct h1_limits limits = { .head_bytes = H1_HEAD_BYTES_MAX, .header_count = H1_HEADER_COUNT_MAX, .allow_http10 = true,
                                         .allow_absolute_url = true };

static void forget_later(struct client *c)
{
    if (c->later) {
        c->later->client = NULL;
        c->later = NULL;
    }
}

static void client_free(struct client *c)
{
    forget_later(c);
    if (c->link.next != &c->link) {
        list_del(&c->link);
        c->server->count--;
    }
    timer_cancel(&c->idle);
    if (c->codec) {
        codec_free(c->codec);
    }
    buf_clear(&c->body);
    arena_fini(&c->arena);
    loop_free_later(c->server->loop, c);
}

static void call_after(struct client *c)
{
    void (*after)(void *) = c->after;
    c->after = NULL;
    if (after) {
        after(c->after_arg); // may free the server, and with it c
    }
}

// ---- one request ----

static void send_whole(struct client *c, const struct http_response *q, struct buf *body)
{
    bool empty = body->len == 0;
    codec_send_response(c->stream, q);
    if (!empty) {
        codec_send_data(c->stream, body, true);
    }
    buf_clear(body);
}

static void send_error(struct client *c, int status, const char *text)
{
    struct http_response q = { .status = (uint16_t)status, .content_length = (int64_t)strlen(text) };
    struct buf body = { 0 };
    headers_init(&q.headers, &c->arena);
    headers_add_id(&q.headers, HDR_CONTENT_TYPE, STR("text/plain; charset=UTF-8"));
    buf_append_str(&body, str_c(text));
    codec_drain(c->codec);
    send_whole(c, &q, &body);
}

static bool is_stale(const struct client *c)
{
    const struct conn *conn = codec_conn(c->codec);
    return conn->out.len && !c->stream && !c->after && loop_now_ms(c->server->loop) - conn->active_ms >= HTTP_SERVER_STALE_MS;
}

// Whether an answer of n bytes may be kept for c beside what the others have not read. Cuts off who does not read at all, when it is needed.
// One answer alone may have any size.
static bool may_keep(struct client *c, size_t n)
{
    size_t unread = 0;
    if (n <= SMALL_ANSWER_BYTES) {
        return true; // bounded by the number of clients
    }
    list_for (p, &c->server->conns) {
        struct client *x = list_entry(p, struct client, link);
        unread += x == c ? 0 : codec_conn(x->codec)->out.len;
    }
    list_for_safe (p, &c->server->conns) {
        struct client *x = list_entry(p, struct client, link);
        if (unread && unread + n > HTTP_SERVER_UNREAD_MAX && x != c && is_stale(x)) {
            unread -= codec_conn(x->codec)->out.len;
            client_free(x);
        }
    }
    return !unread || unread + n <= HTTP_SERVER_UNREAD_MAX;
}

static bool bodies_fit(const struct client *c)
{
    size_t sum = 0;
    list_for (p, &c->server->conns) {
        sum += list_entry(p, struct client, link)->body.len;
    }
    return sum <= HTTP_SERVER_BODIES_MAX || sum == c->body.len;
}

static void send_answer(struct client *c, struct http_server_resp *r)
{
    if (!r->after && !may_keep(c, r->body.len)) {
        buf_clear(&r->body);
        send_error(c, 503, "others do not read their answers\n");
        return;
    }
    struct http_response out = { .status = (uint16_t)r->status, .content_length = (int64_t)r->body.len, .end_stream = r->body.len == 0 };
    headers_init(&out.headers, &c->arena);
    headers_add_id(&out.headers, HDR_CONTENT_TYPE, r->content_type ? str_c(r->content_type) : STR("text/plain; charset=UTF-8"));
    for (struct hdr *x = headers_first(&r->headers); x; x = headers_next(&r->headers, x)) {
        headers_add(&out.headers, x->name, x->value);
    }
    if (r->close || r->after) { // after: the connection's end tells that the answer has left, at the latest
        codec_drain(c->codec);
    }
    c->after = r->after;
    c->after_arg = r->after_arg;
    send_whole(c, &out, &r->body);
}

static void answer(struct client *c)
{
    struct http_server_req q = { .req = c->req, .body = &c->body, .arena = &c->arena, .peer = c->peer, .client = c };
    q.path = url_split_path(c->req->path, &q.query);
    struct http_server_resp r = { .status = 200 };
    headers_init(&r.headers, &c->arena);
    c->server->handler(c->server->arg, &q, &r);
    if (!c->stream || c->later) { // the handler freed the server, or answers later
        buf_clear(&r.body);
        return;
    }
    send_answer(c, &r);
}

struct http_server_later *http_server_later(struct http_server_req *q)
{
    struct http_server_later *t = mem_new(struct http_server_later);
    t->client = q->client;
    q->client->later = t;
    return t;
}

void http_server_answer(struct http_server_later *t, struct http_server_resp *r)
{
    struct client *c = t->client;
    free(t);
    if (!c) {
        buf_clear(&r->body);
        return;
    }
    c->later = NULL;
    send_answer(c, r);
}

static void on_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct client *c = codec_stream_owner(s);
    if (codec_stream_local_done(s)) {
        return; // refused already
    }
    buf_move(&c->body, data, data->len);
    if (c->body.len > HTTP_SERVER_BODY_MAX) {
        send_error(c, 413, "the request's body is too large\n");
    } else if (!bodies_fit(c)) {
        send_error(c, 503, "others do not finish their requests\n");
    } else if (end) {
        answer(c);
    }
}

static void on_trailers(struct codec_stream *s, struct headers *trailers)
{
    (void)trailers;
    struct client *c = codec_stream_owner(s);
    if (!codec_stream_local_done(s)) {
        answer(c);
    }
}

static void on_close(struct codec_stream *s)
{
    struct client *c = codec_stream_owner(s);
    forget_later(c);
    c->stream = NULL;
    c->req = NULL;
    buf_clear(&c->body);
    arena_reset(&c->arena, false);
    timer_set(c->server->loop, &c->idle, HTTP_SERVER_IDLE_MS);
    codec_flush(c->codec);
    if (codec_conn(c->codec)->out.len == 0) {
        call_after(c);
    }
}

static const struct codec_stream_ops stream_ops = { .on_data = on_data, .on_trailers = on_trailers, .on_close = on_close };

static void on_request(struct codec *codec, struct codec_stream *s, struct http_request *req)
{
    struct client *c = codec_owner(codec);
    codec_stream_set(s, &stream_ops, c);
    c->stream = s;
    c->req = req;
    if (req->path.n == 0) {
        send_error(c, 405, "CONNECT is not served here\n");
    } else if (req->content_length > HTTP_SERVER_BODY_MAX) {
        send_error(c, 413, "the request's body is too large\n");
    } else if (req->end_stream) {
        answer(c);
    } else if (req->expect_continue) {
        struct http_response go_on = { .status = 100, .content_length = -1, .end_stream = true };
        codec_send_response(s, &go_on);
    }
}

static struct arena *get_arena(struct codec *codec)
{
    struct client *c = codec_owner(codec);
    arena_reset(&c->arena, false);
    timer_set(c->server->loop, &c->idle, HTTP_SERVER_IDLE_MS);
    return &c->arena;
}

static void on_conn_close(struct codec *codec, enum conn_close why)
{
    (void)why;
    struct client *c = codec_owner(codec);
    void (*after)(void *) = c->after;
    void *arg = c->after_arg;
    client_free(c);
    if (after) {
        after(arg);
    }
}

static const struct codec_ops codec_ops = { .on_request = on_request, .get_arena = get_arena, .on_conn_close = on_conn_close };

static void on_idle(struct timer *t)
{
    struct client *c = container_of(t, struct client, idle);
    uint64_t now = loop_now_ms(c->server->loop), last = codec_conn(c->codec)->active_ms;
    if (c->later) {
        timer_set(c->server->loop, t, HTTP_SERVER_IDLE_MS);
        return;
    }
    if (now - last < HTTP_SERVER_IDLE_MS) { // bytes moved meanwhile: a large answer to a slow reader
        timer_set(c->server->loop, t, HTTP_SERVER_IDLE_MS - (now - last));
        return;
    }
    on_conn_close(c->codec, CONN_CLOSE_LOCAL);
}

// ---- accepting ----

static void client_new(struct http_server *s, int fd, const struct addr *peer)
{
    struct addr local = s->addr;
    (void)socket_local(fd, &local);
    if (peer->family != AF_UNIX) {
        socket_nodelay(fd);
    }
    struct client *c = mem_new(struct client);
    c->server = s;
    c->peer = *peer;
    timer_init(&c->idle, on_idle);
    timer_set(s->loop, &c->idle, HTTP_SERVER_IDLE_MS);
    list_add_tail(&s->conns, &c->link);
    s->count++;
    struct conn *conn = conn_accepted(s->loop, fd, peer, &local, NULL, NULL);
    c->codec = codec_h1_server(conn, &codec_ops, c, &(struct codec_opts){ .h1 = &limits, .half_close_ok = true });
}

// Ends the connection that has been silent for longest, for a new one, also one that does not read its answer or finish its request. False:
// there is none.
static bool make_room(struct http_server *s)
{
    struct client *oldest = NULL;
    list_for (p, &s->conns) {
        struct client *c = list_entry(p, struct client, link);
        if (!c->after && (!oldest || codec_conn(c->codec)->active_ms < codec_conn(oldest->codec)->active_ms)) {
            oldest = c;
        }
    }
    if (oldest) {
        client_free(oldest);
    }
    return oldest != NULL;
}

static void on_acceptable(struct loop_fd *f, uint32_t events)
{
    (void)events;
    struct http_server *s = container_of(f, struct http_server, listener);
    for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
        struct addr peer;
        int fd = socket_accept(f->fd, &peer);
        if (fd == -EAGAIN) {
            return;
        }
        if (fd < 0) {
            // Out of descriptors or memory. The listener stays readable: looking again at once would spin.
            log_warn(LOGC_ADMIN, 0, "accept_failed", "reason=%s retry_ms=%d", strerror(-fd), ACCEPT_RETRY_MS);
            loop_del_fd(s->loop, f);
            timer_set(s->loop, &s->retry, ACCEPT_RETRY_MS);
            return;
        }
        // Silent clients must not keep kubelet out.
        if (s->count >= HTTP_SERVER_CONNS_MAX && !make_room(s)) {
            close(fd);
            continue;
        }
        client_new(s, fd, &peer);
    }
}

static void on_retry(struct timer *t)
{
    struct http_server *s = container_of(t, struct http_server, retry);
    if (loop_add_fd_level(s->loop, &s->listener, EPOLLIN) < 0) {
        timer_set(s->loop, t, ACCEPT_RETRY_MS);
    }
}

struct http_server *http_server_new(struct loop *l, const struct addr *a, int unix_mode,
                                    void (*handler)(void *arg, struct http_server_req *q, struct http_server_resp *r), void *arg,
                                    struct err *err)
{
    struct socket_listen_opts o = { .unix_mode = unix_mode, .v6only = a->family == AF_INET6 && !addr_is_any(a) };
    int fd = socket_listen(a, &o, err);
    if (fd < 0) {
        return NULL;
    }
    struct http_server *s = mem_new(struct http_server);
    s->loop = l;
    s->handler = handler;
    s->arg = arg;
    s->addr = *a;
    list_init(&s->conns);
    timer_init(&s->retry, on_retry);
    if (a->family == AF_UNIX) {
        s->unix_path = mem_strdup(a->path);
        s->addr.path = s->unix_path;
    } else {
        (void)socket_local(fd, &s->addr);
    }
    s->listener = (struct loop_fd){ .fd = fd, .on_event = on_acceptable };
    int r = loop_add_fd_level(l, &s->listener, EPOLLIN);
    if (r < 0) {
        err_errno(err, -r, "cannot watch a listening socket");
        http_server_free(s);
        return NULL;
    }
    return s;
}

struct addr http_server_addr(const struct http_server *s)
{
    return s->addr;
}

void http_server_free(struct http_server *s)
{
    if (!s) {
        return;
    }
    while (!list_empty(&s->conns)) {
        struct client *c = list_entry(s->conns.next, struct client, link);
        c->stream = NULL;
        client_free(c);
    }
    timer_cancel(&s->retry);
    loop_del_fd(s->loop, &s->listener);
    close(s->listener.fd);
    if (s->unix_path && s->unix_path[0] != '@') {
        unlink(s->unix_path);
    }
    free(s->unix_path);
    loop_free_later(s->loop, s); // a handler or an after function may have called
}

struct str http_query_get(struct str query, const char *name, struct arena *a)
{
    while (query.p) {
        struct str value = str_split(&query, '&');
        struct str key = str_split(&value, '=');
        struct str text;
        if (!url_decode(key, a, &text) || !str_is(text, name)) {
            continue;
        }
        if (!value.p) {
            return STR("");
        }
        return url_decode(value, a, &text) ? text : (struct str){ 0 };
    }
    return (struct str){ 0 };
}
