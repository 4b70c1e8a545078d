// SPDX-License-Identifier: Apache-2.0
// A request from its route to its end. Attempts are in attempt.c.
#include "proxy/router/router.h"

#include "lib/base/check.h"
#include "proxy/router/internal.h"

static void on_timeout(struct timer *t);

// ---- the route's answer ----

static void local(struct router *r, int status, struct str body, const char *details, uint32_t flags, const struct headers *extra)
{
    r->responded = true;
    router_finish(r);
    r->ops->local_reply(r, status, body, details, flags, extra);
}

static void redirect(struct router *r)
{
    struct http_response resp = { .status = (uint16_t)(r->route->redirect_status ? r->route->redirect_status : 301) };
    headers_init(&resp.headers, r->arena);
    struct route rt = *r->route;
    if (rt.redirect_format) {
        struct str path = r->ops->format(r, rt.redirect_format, NULL);
        rt.redirect_path = path.n && path.p[0] == '/' ? path : arena_printf(r->arena, "/%.*s", STR_FMT(path));
    }
    headers_add_id(&resp.headers, HDR_LOCATION, redirect_location(&rt, r->req, r->arena));
    header_ops_response(r, &resp);
    stat_inc(r->http_stats, STAT_ID_HTTP_RQ_REDIRECT);
    local(r, resp.status, str_n(NULL, 0), "direct_response", 0, &resp.headers);
}

static void direct(struct router *r)
{
    struct str body = r->route->direct_body;
    struct http_response resp = { .status = (uint16_t)r->route->direct_status };
    headers_init(&resp.headers, r->arena);
    if (r->route->direct_format) {
        headers_add_id(&resp.headers, HDR_CONTENT_TYPE, r->route->direct_type);
    }
    header_ops_response(r, &resp);
    stat_inc(r->http_stats, STAT_ID_HTTP_RQ_DIRECT);
    if (r->route->direct_format) {
        body = r->ops->format(r, r->route->direct_format, &resp);
    }
    local(r, resp.status, body, "direct_response", 0, &resp.headers);
}

static struct str choose_cluster(struct router *r)
{
    const struct route *rt = r->route;
    if (rt->weighted_count) {
        r->weighted = route_pick_weighted(rt, r->random);
        return r->weighted->name.n ? r->weighted->name : headers_value(&r->req->headers, r->weighted->cluster_header);
    }
    return rt->cluster_header.n ? headers_value(&r->req->headers, rt->cluster_header) : rt->cluster;
}

struct str router_number(struct arena *a, uint64_t n)
{
    enum { DIGITS = 20 };
    if (n < 10) {
        return str_n(&"0123456789"[n], 1);
    }
    char *out = arena_alloc(a, DIGITS);
    size_t at = DIGITS;
    for (; n >= 100; n /= 100) {
        unsigned two = (unsigned)(n % 100);
        out[--at] = (char)('0' + two % 10);
        out[--at] = (char)('0' + two / 10);
    }
    do {
        out[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    return str_n(out + at, DIGITS - at);
}

const struct str *router_keep_metadata(struct router *r, struct str md)
{
    struct str *keep = md.n ? arena_new(r->arena, struct str) : NULL;
    if (keep) {
        *keep = arena_str(r->arena, md);
    }
    return keep;
}

static void prepare_head(struct router *r)
{
    router_say_timeout(r);
    header_ops_request(r);
    route_rewrite(r);
    r->authority = r->req->host;
}

// An answer made here has the fields of the route and of its levels, as one from upstream.
void router_local_headers(struct router *r, int status, struct headers *h)
{
    struct http_response resp = { .status = (uint16_t)status, .headers = *h };
    if (r->vhost->include_attempt_in_response && r->info->attempts) {
        headers_set_id(&resp.headers, HDR_X_ENVOY_ATTEMPT_COUNT, router_number(r->arena, r->info->attempts));
    }
    header_ops_response(r, &resp);
    *h = resp.headers;
}

void router_start(struct router *r)
{
    list_init(&r->at.pr.link);
    timer_init(&r->timeout, on_timeout);
    stat_inc(r->http_stats, STAT_ID_HTTP_RQ_ROUTED);
    if (!r->route) {
        stat_inc(r->http_stats, STAT_ID_HTTP_NO_ROUTE);
        local(r, 404, str_n(NULL, 0), "route_not_found", RF(NO_ROUTE), NULL);
        return;
    }
    if (r->route->kind == ROUTE_REDIRECT) {
        redirect(r);
        return;
    }
    if (r->route->kind == ROUTE_DIRECT) {
        direct(r);
        return;
    }
    counts_begin(r);
    r->cluster = choose_cluster(r);
    r->info->upstream_cluster = r->cluster;
    r->body_end = r->req->end_stream;
    r->prio = r->route->high_priority;
    r->start_ms = loop_now_ms(r->worker->loop);
    router_policy(r);
    const struct cluster_worker *cw = r->cluster.n ? upstream_cluster(r->worker, r->cluster) : NULL;
    r->keep_body = !r->body_end && (r->retries_left || r->route->redirects || method_is_idempotent(r->req->method));
    if (!cw) {
        stat_inc(r->http_stats, STAT_ID_HTTP_NO_CLUSTER);
        r->info->upstream_cluster = str_n(NULL, 0);
        local(r, r->route->cluster_not_found_status ? r->route->cluster_not_found_status : 503, str_n(NULL, 0), "cluster_not_found",
              RF(NO_CLUSTER), NULL);
        return;
    }
    if (metadata_wanted(METADATA_CLUSTER)) {
        r->info->metadata[METADATA_CLUSTER] = router_keep_metadata(r, cw->snap->cfg->metadata);
    }
    prepare_head(r);
    if (r->route->mirror_count) {
        mirror_start(r);
    }
    if (r->body_end) {
        router_request_complete(r);
    }
    attempt_begin(r);
}

// ---- time-outs ----

void router_request_complete(struct router *r)
{
    uint64_t ms = r->timeout_ms;
    if (ms && !r->tunnel && !r->done && !timer_pending(&r->timeout)) {
        timer_set(r->worker->loop, &r->timeout, ms);
    }
}

void router_timed_out(struct router *r, const char *details, uint32_t flags)
{
    struct headers extra;
    headers_init(&extra, r->arena);
    int status = r->alt_response ? 204 : 504;
    counts_answer(r, status);
    router_local_headers(r, status, &extra);
    local(r, status, r->alt_response ? str_n(NULL, 0) : STR("upstream request timeout"), details, flags, &extra);
}

static void on_timeout(struct timer *t)
{
    struct router *r = container_of(t, struct router, timeout);
    if (r->cw) {
        stat_inc(r->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_TIMEOUT);
        counts_add(r, STAT_ID_VCLUSTER_RQ_TIMEOUT);
    }
    if (r->at.begun) {
        atomic_fetch_add_explicit(&r->at.picked.host->rq_timeout, 1, memory_order_relaxed);
    }
    attempt_cancel(r);
    if (r->responded) {
        router_finish(r);
        r->ops->reset(r, "response_timeout", RF(UPSTREAM_TIMEOUT));
    } else {
        router_timed_out(r, "response_timeout", RF(UPSTREAM_TIMEOUT));
    }
}

// ---- the request's body ----

static void copy_to(struct buf *to, const struct buf *from)
{
    for (const struct slice *s = from->head; s; s = s->next) {
        buf_append(to, s->data + s->off, s->end - s->off);
    }
}

static void pause(struct router *r)
{
    if (!r->paused) {
        r->paused = true;
        r->ops->pause(r);
    }
}

static void resume(struct router *r)
{
    if (r->paused) {
        r->paused = false;
        r->ops->resume(r);
    }
}

// What was kept for another attempt is too much.
static void forget_body(struct router *r)
{
    r->keep_body = false;
    buf_clear(&r->replay);
}

void router_request_data(struct router *r, struct buf *data, bool end)
{
    if (r->shadows) {
        mirror_data(r, data, end);
    }
    if (r->done || r->ended) {
        buf_clear(data);
        return;
    }
    if (r->at.state != ATTEMPT_OPEN) { // nowhere to send yet: kept, and the client waits when it gets too much
        buf_move(&r->replay, data, data->len);
        if (r->replay.len >= ROUTER_REPLAY_MAX || r->replay.len >= r->replay_max) {
            pause(r);
        }
    } else {
        if (r->keep_body && r->replay.len + data->len > r->replay_max) {
            forget_body(r);
        }
        if (r->keep_body) {
            copy_to(&r->replay, data);
        }
        codec_send_data(r->at.up, data, end);
    }
    if (end) {
        r->body_end = true;
        router_request_complete(r);
        attempt_client_ended(r);
    }
}

void router_request_trailers(struct router *r, struct headers *trailers)
{
    if (r->shadows) {
        mirror_trailers(r, trailers);
    }
    if (r->done || r->ended) {
        return;
    }
    r->req_trailers = arena_new(r->arena, struct headers);
    *r->req_trailers = *trailers;
    r->body_end = true;
    if (r->at.state == ATTEMPT_OPEN) {
        codec_send_trailers(r->at.up, trailers);
    }
    router_request_complete(r);
}

void attempt_send_request(struct router *r)
{
    struct codec_stream *up = r->at.up;
    bool empty = r->body_end && !r->replay.len && !r->req_trailers;
    // Where the end is known by now and there was nothing (a chunked body of zero bytes), the head says so.
    bool end_stream = r->req->end_stream;
    r->req->end_stream = empty;
    codec_send_request(up, r->req);
    r->req->end_stream = end_stream;
    if (r->replay.len) {
        bool end = r->body_end && !r->req_trailers;
        struct buf data = { 0 };
        if (r->keep_body && r->replay.len <= r->replay_max) {
            copy_to(&data, &r->replay);
        } else {
            buf_move(&data, &r->replay, r->replay.len);
            r->keep_body = false;
        }
        codec_send_data(up, &data, end);
        buf_clear(&data);
    }
    if (r->req_trailers) {
        codec_send_trailers(up, r->req_trailers);
    }
    if (r->body_end) {
        codec_flush(codec_stream_codec(up)); // complete: the upstream may begin while this turn's other requests are read
    }
    if (!r->up_high) {
        resume(r);
    }
}

// ---- back-pressure ----

void router_downstream_high(struct router *r)
{
    r->down_high = true;
    if (r->at.state == ATTEMPT_OPEN) {
        codec_stream_pause(r->at.up);
    }
}

void router_downstream_low(struct router *r)
{
    r->down_high = false;
    if (r->at.state == ATTEMPT_OPEN) {
        codec_stream_resume(r->at.up);
    }
}

// ---- end ----

// Those timers are initialised when first needed.
static inline void cancel_lazy(struct timer *t)
{
    if (t->fn) {
        timer_cancel(t);
    }
}

void router_finish(struct router *r)
{
    r->done = true;
    hedge_cancel_all(r);
    timer_cancel(&r->timeout);
    cancel_lazy(&r->per_try);
    cancel_lazy(&r->per_try_idle);
    cancel_lazy(&r->backoff);
    cancel_lazy(&r->longest);
    buf_clear(&r->replay);
    resume(r); // what the client still sends is read away
}

void router_destroy(struct router *r)
{
    if (r->ended || !r->timeout.fn) { // never started
        return;
    }
    if (!r->done && r->at.begun && r->at.state == ATTEMPT_WAITING) {
        stat_inc(r->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_CANCELLED);
    }
    r->ended = true;
    if (r->shadows) {
        mirror_abandon(r);
    }
    r->paused = false; // the owner is going
    attempt_cancel(r);
    router_finish(r);
    for (int i = 0; i < r->tried_count; i++) {
        host_unref(r->tried[i]);
    }
    r->tried_count = 0;
}
