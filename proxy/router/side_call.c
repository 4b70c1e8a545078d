// SPDX-License-Identifier: Apache-2.0
// A side call is a router whose client is this process: what it hears is gathered until the answer is whole.
#include "proxy/router/side_call.h"

#include <stdlib.h>

#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "proxy/router/internal.h"

enum { ARENA_BYTES = 2032 }; // the largest that lib/base/recycle keeps: question and answer, but for the bodies

struct side_call {
    struct router r;
    struct list link;           // of this thread's calls
    struct router_cfg cfg;
    struct arena arena;
    struct http_request req;
    struct stream_info info;
    struct route route;
    struct retry_policy retry;
    struct loop_task end;
    struct side_answer answer;
    struct headers headers, trailers;
    struct buf body;            // of the answer
    size_t body_max;
    bool ended;                 // the outcome is known, end is deferred
    bool telling;               // done is on the stack
    void (*done)(void *owner, const struct side_answer *a);
    void *owner;
};

static _Thread_local struct list calls; // a worker's
static _Thread_local bool closed;       // side_call_worker_fini was called
static const struct route_table no_table;
static const struct virtual_host no_vhost;

static struct side_call *call_of(struct router *r)
{
    return container_of(r, struct side_call, r);
}

static void release(struct side_call *c)
{
    router_destroy(&c->r);
    list_del(&c->link);
    loop_task_cancel(&c->end);
    buf_clear(&c->body);
    arena_fini(&c->arena);
    free(c);
}

// Out of the list first: what the callee does with its own objects, or starts anew, does not meet this one.
static void on_end(struct loop_task *t)
{
    struct side_call *c = container_of(t, struct side_call, end);
    router_destroy(&c->r);
    list_del(&c->link);
    list_init(&c->link);
    if (c->answer.failure == SIDE_OK) {
        c->answer.body = buf_pullup(&c->body, c->body.len);
    }
    c->telling = true;
    c->done(c->owner, &c->answer);
    release(c);
}

// Never inside the router's own call, nor the caller's.
static void end_later(struct side_call *c, enum side_failure why, const char *reason)
{
    if (!c->ended) {
        c->ended = true;
        c->answer.failure = why;
        c->answer.reason = reason;
        loop_defer(c->r.worker->loop, &c->end);
    }
}

static void on_response(struct router *r, struct http_response *resp)
{
    struct side_call *c = call_of(r);
    c->answer.status = resp->status;
    c->headers = resp->headers;
    if (resp->end_stream) {
        end_later(c, SIDE_OK, NULL);
    }
}

static void on_informational(struct router *r, struct http_response *resp)
{
    (void)r;
    (void)resp;
}

static void on_data(struct router *r, struct buf *data, bool last)
{
    struct side_call *c = call_of(r);
    if (c->ended) {
        buf_clear(data);
        return;
    }
    if (data->len > c->body_max - c->body.len) {
        buf_clear(data);
        buf_clear(&c->body);
        end_later(c, SIDE_TOO_LARGE, "answer_too_large");
        return;
    }
    buf_move(&c->body, data, data->len);
    if (last) {
        end_later(c, SIDE_OK, NULL);
    }
}

static void on_trailers(struct router *r, struct headers *trailers)
{
    struct side_call *c = call_of(r);
    c->trailers = *trailers;
    c->answer.trailers = &c->trailers;
    end_later(c, SIDE_OK, NULL);
}

static void on_local_reply(struct router *r, int status, struct str body, const char *details, uint32_t flags, const struct headers *extra)
{
    struct side_call *c = call_of(r);
    (void)body;
    (void)extra;
    c->answer.status = status;
    c->info.flags |= flags;
    end_later(c, flags & RF(UPSTREAM_TIMEOUT) ? SIDE_TIMEOUT : SIDE_NO_ANSWER, details);
}

static void on_reset(struct router *r, const char *details, uint32_t flags)
{
    struct side_call *c = call_of(r);
    c->info.flags |= flags;
    c->answer.status = flags & RF(UPSTREAM_TIMEOUT) ? 504 : 503;
    end_later(c, flags & RF(UPSTREAM_TIMEOUT) ? SIDE_TIMEOUT : SIDE_NO_ANSWER, details);
}

// The whole body was given at the start.
static void on_pause(struct router *r)
{
    (void)r;
}

static struct str no_format(struct router *r, const struct format *f, const struct http_response *resp)
{
    (void)r;
    (void)f;
    (void)resp;
    return str_n(NULL, 0); // such a route has no header operations
}

static const struct router_ops ops = {
    .response = on_response, .informational = on_informational, .data = on_data, .trailers = on_trailers, .local_reply = on_local_reply,
    .reset = on_reset, .pause = on_pause, .resume = on_pause, .format = no_format,
};

static void copy_head(struct side_call *c, const struct side_request *q)
{
    struct arena *a = &c->arena;
    c->req = (struct http_request){ .method = arena_str(a, q->method), .path = arena_str(a, q->path), .host = arena_str(a, q->host),
                                    .scheme = STR("http"), .version = HTTP_11, .te_trailers = q->grpc,
                                    .content_length = q->body && !q->grpc ? (int64_t)q->body->len : -1, .end_stream = !q->body || !q->body->len };
    headers_init(&c->req.headers, a);
    for (struct hdr *x = q->headers ? headers_first(q->headers) : NULL; x; x = headers_next(q->headers, x)) {
        headers_add_known(&c->req.headers, (enum hdr_id)x->id, arena_str(a, x->name), arena_str(a, x->value));
    }
    if (!q->no_envoy_headers) {
        headers_set_id(&c->req.headers, HDR_X_ENVOY_INTERNAL, STR("true"));
    }
}

struct side_call *side_call_start(struct worker *w, const struct side_request *q)
{
    if (closed) {
        return NULL;
    }
    struct side_call *c = mem_new(struct side_call);
    arena_init(&c->arena, ARENA_BYTES, 0);
    loop_task_init(&c->end, on_end);
    if (!calls.next) {
        list_init(&calls);
    }
    list_add_tail(&calls, &c->link);
    copy_head(c, q);
    c->done = q->done;
    c->owner = q->owner;
    c->body_max = q->answer_max ? q->answer_max : SIDE_ANSWER_MAX;
    headers_init(&c->headers, &c->arena);
    c->answer.headers = &c->headers;
    c->answer.info = &c->info;
    c->answer.arena = &c->arena;
    size_t body = q->body ? q->body->len : 0;
    if (q->retry) { // a call may outlive the configuration that made it: one whose exchange is over, say
        c->retry = *q->retry;
    }
    c->route = (struct route){ .kind = ROUTE_FORWARD, .cluster = arena_str(&c->arena, q->cluster), .timeout_ms = (int64_t)q->timeout_ms,
                               .idle_timeout_ms = -1, .max_stream_ms = -1, .max_grpc_timeout_ms = -1, .grpc_header_max_ms = -1,
                               .retry = q->retry ? &c->retry : NULL, .has_buffer_limit = true, .buffer_limit = body };
    c->r = (struct router){ .ops = &ops, .cfg = &c->cfg, .worker = w, .arena = &c->arena, .req = &c->req, .info = &c->info,
                            .table = &no_table, .vhost = &no_vhost, .route = &c->route, .random = rand_u64() };
    router_start(&c->r);
    if (body) {
        router_request_data(&c->r, q->body, true);
    }
    return c;
}

void *side_call_own(struct side_call *c, size_t n)
{
    c->owner = arena_zalloc(&c->arena, n);
    return c->owner;
}

void side_call_cancel(struct side_call *c)
{
    if (c && !c->telling) {
        release(c);
    }
}

void side_call_worker_init(void)
{
    closed = false;
}

void side_call_worker_fini(void)
{
    closed = true;
    while (calls.next && !list_empty(&calls)) {
        release(list_entry(calls.next, struct side_call, link));
    }
}
