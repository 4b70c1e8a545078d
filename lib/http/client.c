// SPDX-License-Identifier: Apache-2.0
#include "lib/http/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "lib/base/clock.h"
#include "lib/base/scope.h"
#include "lib/http/h1_parser.h"
#include "lib/net/socket.h"

enum { READ_BYTES = 16 * 1024 };

struct exchange {
    const struct http_client_req *q;
    int fd;
    uint64_t deadline_ms;
    struct arena *arena;
    struct h1_parser p;
    struct buf in, body;
    char to[ADDR_TEXT_MAX];
};

// 0, -ETIMEDOUT or another negative errno.
static int wait_for(struct exchange *x, short events)
{
    for (;;) {
        uint64_t now = clock_mono_ms();
        if (now >= x->deadline_ms) {
            return -ETIMEDOUT;
        }
        struct pollfd p = { .fd = x->fd, .events = events };
        int n = poll(&p, 1, (int)(x->deadline_ms - now));
        if (n > 0) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
    }
}

static int open_connection(struct exchange *x)
{
    bool done = false;
    struct socket_connect_opts o = { .source = x->q->from };
    x->fd = socket_connect(&x->q->to, &o, &done);
    if (x->fd < 0) {
        return x->fd;
    }
    if (done) {
        return 0;
    }
    int r = wait_for(x, POLLOUT);
    return r ? r : socket_error(x->fd);
}

static int connect_failed(const struct exchange *x, int r, struct err *err)
{
    char what[ADDR_TEXT_MAX + 16];
    snprintf(what, sizeof(what), "connect to %s", x->to);
    return err_errno(err, -r, what);
}

int http_client_connect(const struct http_client_req *q, struct err *err)
{
    struct exchange x = { .q = q, .fd = -1, .deadline_ms = clock_mono_ms() + (uint64_t)(q->timeout_ms > 0 ? q->timeout_ms : 0) };
    addr_text(&q->to, x.to);
    int r = open_connection(&x);
    scope_close int fd = x.fd;
    return r < 0 ? connect_failed(&x, r, err) : 0;
}

static int send_request(struct exchange *x)
{
    const struct http_client_req *q = x->q;
    struct http_request r = { .method = str_c(q->method), .host = q->host, .path = q->path, .version = HTTP_11,
                              .content_length = q->body.n ? (int64_t)q->body.n : -1 };
    headers_init(&r.headers, x->arena);
    for (struct hdr *h = q->headers ? headers_first(q->headers) : NULL; h; h = headers_next(q->headers, h)) {
        headers_add(&r.headers, h->name, h->value);
    }
    struct buf out = { 0 };
    h1_write_request(&out, &r, &(struct h1_write_opts){ .close = true });
    buf_append_str(&out, q->body);
    int r_send = 0;
    while (out.len && !r_send) {
        struct str front = buf_front(&out);
        ssize_t n = send(x->fd, front.p, front.n, MSG_NOSIGNAL);
        if (n >= 0) {
            buf_drain(&out, (size_t)n);
        } else if (errno == EAGAIN) {
            r_send = wait_for(x, POLLOUT);
        } else if (errno == EPIPE || errno == ECONNRESET) {
            break; // an early answer may be waiting
        } else if (errno != EINTR) {
            r_send = -errno;
        }
    }
    buf_clear(&out);
    return r_send;
}

// 0 = go on, 1 = the answer is complete, negative errno.
static int parse(struct exchange *x, bool eof, struct err *err)
{
    for (;;) {
        enum h1_event ev = h1_parser_run(&x->p, &x->in);
        if (ev == H1_NEED_MORE && eof) {
            ev = h1_parser_idle(&x->p) ? H1_NEED_MORE : h1_parser_eof(&x->p);
            if (ev == H1_NEED_MORE) {
                return err_set(err, -ECONNRESET, "%s closed the connection without an answer", x->to);
            }
        }
        switch (ev) {
        case H1_NEED_MORE:
            return 0;
        case H1_DATA:
            h1_take_body(&x->p, &x->in, &x->body, SIZE_MAX);
            if (x->body.len > x->q->max_bytes) {
                return err_set(err, -EMSGSIZE, "the answer of %s is larger than %zu bytes", x->to, x->q->max_bytes);
            }
            break;
        case H1_END:
            if (x->p.resp.status >= 200) {
                return 1;
            }
            h1_parser_next(&x->p, x->arena);
            break;
        case H1_FAILED:
            return err_set(err, -EPROTO, "the answer of %s is not valid HTTP (%s)", x->to, h1_error_text(x->p.error));
        case H1_HEAD:
            if (x->p.resp.status == 101) {
                return err_set(err, -EPROTO, "%s switched protocols unasked", x->to);
            }
            break;
        case H1_TRAILERS:
            break;
        }
    }
}

static int read_answer(struct exchange *x, struct err *err)
{
    for (;;) {
        size_t room;
        char *p = buf_reserve(&x->in, READ_BYTES / 2, &room);
        ssize_t n = recv(x->fd, p, room, 0);
        int saved = errno;
        buf_commit(&x->in, n > 0 ? (size_t)n : 0);
        if (n < 0 && saved == EINTR) {
            continue;
        }
        if (n < 0 && saved == EAGAIN) {
            int r = wait_for(x, POLLIN);
            if (r) {
                return err_errno(err, -r, "read the answer");
            }
            continue;
        }
        if (n < 0) {
            return err_errno(err, saved, "read the answer");
        }
        int r = parse(x, n == 0, err);
        if (r) {
            return r;
        }
    }
}

int http_client_do(const struct http_client_req *q, struct arena *a, struct str *ret_body, struct err *err)
{
    struct exchange x = { .q = q, .fd = -1, .arena = a };
    x.deadline_ms = clock_mono_ms() + (uint64_t)(q->timeout_ms > 0 ? q->timeout_ms : 0);
    addr_text(&q->to, x.to);
    h1_parser_init(&x.p, false, NULL, a);
    x.p.head_request = strcmp(q->method, "HEAD") == 0;
    int r = open_connection(&x);
    scope_close int fd = x.fd;
    if (r < 0) {
        return connect_failed(&x, r, err);
    }
    r = send_request(&x);
    if (r < 0) {
        err_errno(err, -r, "cannot send the request");
    } else {
        r = read_answer(&x, err);
    }
    if (r < 0) {
        err_wrap(err, "%s %.*s at %s", q->method, STR_FMT(q->path), x.to);
    } else {
        char *text = arena_alloc(a, x.body.len + 1);
        if (text) {
            size_t n = buf_peek(&x.body, 0, text, x.body.len);
            text[n] = '\0';
            *ret_body = str_n(text, n);
            r = x.p.resp.status;
        } else {
            r = err_set(err, -ENOMEM, "the answer of %s does not fit", x.to);
        }
    }
    buf_clear(&x.in);
    buf_clear(&x.body);
    return r;
}
