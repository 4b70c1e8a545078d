// SPDX-License-Identifier: Apache-2.0
// Feeds bytes to the HTTP/1 parser in given pieces and writes every message out again as a proxy would: one reading in, one
// reading out. Shared by the conformance runner, unit tests and fuzz targets.
#ifndef TESTS_CONFORMANCE_H1_REPLAY_H
#define TESTS_CONFORMANCE_H1_REPLAY_H

#include "lib/http/h1_parser.h"

struct replay_opts {
    bool request;
    bool head, connect; // response: what was asked
    struct h1_limits limits;
    size_t first;       // bytes of the first piece; 0 = all at once
    size_t step;        // bytes of each further piece; 0 = all the rest
};

struct replay {
    struct buf out;      // all complete messages, written again
    enum h1_error error; // H1_OK when the bytes ended between messages
    unsigned messages;   // complete ones
    bool closed;         // a message said that the connection ends; bytes behind it were not read
};

struct replay_run {
    struct h1_parser p;
    struct arena arena;
    struct buf in, body;
    struct replay r;
};

static inline void replay_emit(struct replay_run *x)
{
    struct h1_parser *p = &x->p;
    bool until = p->body == H1_BODY_UNTIL_CLOSE, tunnel = until && (p->resp.status == 101 || p->connect_request);
    struct h1_write_opts w = { .chunked = p->body == H1_BODY_CHUNKED || (until && !tunnel), .upgrade = true,
                               .head_request = p->head_request,
                               .keep_alive_10 = p->is_request && p->req.version == HTTP_10 && p->keep_alive };
    if (p->is_request) {
        h1_write_request(&x->r.out, &p->req, &w);
    } else {
        p->resp.version = HTTP_11; // the version is ours, hop by hop
        h1_write_response(&x->r.out, &p->resp, &w);
    }
    h1_write_body(&x->r.out, &x->body, w.chunked);
    h1_write_end(&x->r.out, p->trailers.count ? &p->trailers : NULL, w.chunked);
    x->r.messages++;
    if (!p->keep_alive && !(!p->is_request && p->resp.status < 200 && p->resp.status != 101)) {
        x->r.closed = true;
        return;
    }
    h1_parser_next(p, &x->arena);
}

// Runs what is in x->in.
static inline void replay_step(struct replay_run *x)
{
    while (!x->r.error && !x->r.closed) {
        enum h1_event ev = h1_parser_run(&x->p, &x->in);
        if (ev == H1_NEED_MORE) {
            return;
        }
        if (ev == H1_FAILED) {
            x->r.error = x->p.error;
        } else if (ev == H1_DATA) {
            h1_take_body(&x->p, &x->in, &x->body, SIZE_MAX);
        } else if (ev == H1_END) {
            replay_emit(x);
        }
    }
}

// The caller clears ret.out.
static inline struct replay replay(const struct replay_opts *o, const void *bytes, size_t n)
{
    struct replay_run x = { 0 };
    arena_init(&x.arena, 0, 0);
    h1_parser_init(&x.p, o->request, &o->limits, &x.arena);
    x.p.head_request = o->head;
    x.p.connect_request = o->connect;
    size_t at = 0;
    while (at < n && !x.r.error && !x.r.closed) {
        size_t k = at == 0 && o->first ? o->first : o->step ? o->step : n - at;
        k = k < n - at ? k : n - at;
        buf_append(&x.in, (const char *)bytes + at, k);
        at += k;
        replay_step(&x);
    }
    if (!x.r.error && !x.r.closed) {
        enum h1_event ev = h1_parser_eof(&x.p);
        if (ev == H1_FAILED) {
            x.r.error = x.p.error;
        } else if (!h1_parser_idle(&x.p)) {
            replay_emit(&x);
        }
    }
    buf_clear(&x.in);
    buf_clear(&x.body);
    arena_fini(&x.arena);
    return x.r;
}

#endif
