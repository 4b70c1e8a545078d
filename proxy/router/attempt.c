// SPDX-License-Identifier: Apache-2.0
// One attempt after the other: host, connection, exchange, and what to do when it fails.
#include <stdio.h>

#include "lib/base/check.h"
#include "lib/base/rand.h"
#include "lib/net/proxy_header.h"
#include "lib/tls/transport_tls.h"
#include "proxy/router/internal.h"

static const struct codec_stream_ops up_ops;

static uint64_t now_ns(const struct router *r)
{
    return loop_now_ns(r->worker->loop);
}


static void cancel(struct timer *t)
{
    if (t->fn) {
        timer_cancel(t);
    }
}

// The upstream gave a sign of life.
static void touch(struct router *r)
{
    if (r->per_try_idle.fn && timer_pending(&r->per_try_idle)) {
        timer_set(r->worker->loop, &r->per_try_idle, r->policy->per_try_idle_ms);
    }
}

// ---- accounting ----

// The current attempt's outcome. status 0: no answer; failure: the upstream's or the network's fault.
static void attempt_done(struct router *r, int status, bool failure)
{
    struct router_attempt *at = &r->at;
    at->state = ATTEMPT_NONE;
    if (at->begun) {
        at->begun = false;
        upstream_request_done(r->cw, at->picked.host, r->prio, status, failure);
        picked_release(&at->picked);
    }
    if (r->retrying) {
        r->retrying = false;
        if (status && status < 500) {
            stat_inc(r->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_RETRY_SUCCESS);
            counts_add(r, STAT_ID_VCLUSTER_RQ_RETRY_SUCCESS);
        }
        upstream_retry_done(r->cw, r->prio);
    }
    cancel(&r->per_try);
    cancel(&r->per_try_idle);
    cancel(&r->longest);
    r->up_high = false;
}

static void count_wire(struct router *r)
{
    r->info->upstream_bytes_received += codec_stream_bytes_in(r->at.up);
    r->info->upstream_bytes_sent += codec_stream_bytes_out(r->at.up);
}

// Lets go of the exchange. give_up: it is not over yet, so its connection cannot be used again.
static void detach(struct router *r, bool give_up)
{
    struct codec_stream *up = r->at.up;
    if (!up) {
        return;
    }
    count_wire(r);
    r->at.up = NULL;
    codec_stream_set(up, NULL, NULL);
    if (give_up) {
        stat_inc(r->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_TX_RESET);
        codec_stream_reset(up, CODEC_RESET_LOCAL);
    }
}

void attempt_cancel(struct router *r)
{
    struct router_attempt *at = &r->at;
    if (at->state == ATTEMPT_WAITING) {
        pool_http_cancel(&at->pr);
        list_del(&at->pr.link);
    } else if (at->state == ATTEMPT_OPEN) {
        detach(r, true);
    }
    if (at->state != ATTEMPT_NONE || at->begun) {
        attempt_done(r, 0, false);
    }
}

// ---- trying again ----

static void on_backoff(struct timer *t)
{
    struct router *r = container_of(t, struct router, backoff);
    attempt_begin(r);
}

static void remember_tried(struct router *r, struct host *h)
{
    const struct retry_policy *p = r->policy;
    if (p && p->avoid_previous_priorities && r->at.picked.priority < 32) {
        r->priorities_seen |= 1u << r->at.picked.priority;
        if (++r->priority_attempts % p->priority_update_frequency == 0) {
            r->priorities_tried = r->priorities_seen;
        }
    }
    if (p && p->avoid_previous_hosts && r->tried_count < PICK_TRIED_MAX) {
        r->tried[r->tried_count++] = host_ref(h);
    }
}

bool router_replay_possible(const struct router *r)
{
    bool nothing_sent = r->at.state != ATTEMPT_OPEN;
    return !r->responded && !r->done && (nothing_sent || r->keep_body || (r->body_end && r->req->end_stream));
}

// The policy wants another attempt: takes it from the budgets. *flags: why not.
static bool take_retry(struct router *r, uint32_t *flags)
{
    if (r->no_retry) {
        return false;
    }
    if (r->retries_left == 0) {
        *flags |= RF(UPSTREAM_RETRY_LIMIT);
        stat_inc(r->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_RETRY_LIMIT);
        counts_add(r, STAT_ID_VCLUSTER_RQ_RETRY_LIMIT);
        return false;
    }
    if (r->retrying) { // what the retry that failed now held is free again
        r->retrying = false;
        upstream_retry_done(r->cw, r->prio);
    }
    if (!upstream_retry_begin(r->cw, r->prio)) {
        *flags |= RF(UPSTREAM_OVERFLOW);
        counts_add(r, STAT_ID_VCLUSTER_RQ_RETRY_OVERFLOW);
        return false;
    }
    counts_add(r, STAT_ID_VCLUSTER_RQ_RETRY);
    r->retries_left--;
    return true;
}

// After attempt_done: wait a little, then go on with another attempt.
static void schedule_retry(struct router *r)
{
    const struct retry_policy *p = r->policy;
    r->retrying = true;
    r->retried = true;
    stat_inc(r->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_RETRY_BACKOFF);
    timer_init(&r->backoff, on_backoff);
    uint64_t wait = r->retry_wait_ms ? r->retry_wait_ms : retry_backoff_ms(p, p->num_retries - r->retries_left, rand_u64());
    r->retry_wait_ms = 0;
    timer_set(r->worker->loop, &r->backoff, wait);
}

// ---- failures ----

struct failure {
    enum retry_event event;
    int status;             // of the answer we give
    uint32_t flags;
    const char *reason;     // "connection termination"
    const char *detail;     // transport failure; may be NULL
};

static void answer_failure(struct router *r, const struct failure *f)
{
    bool detail = f->detail && f->detail[0];
    // What exactly failed between the proxies is for the log, not for the client.
    struct str body = arena_printf(r->arena, "upstream connect error or disconnect/reset before headers. %s: %s",
                                   r->retried ? "retried and the latest reset reason" : "reset reason", f->reason);
    struct str details = arena_printf(r->arena, "upstream_reset_before_response_started{%s%s%s}", f->reason, detail ? "|" : "",
                                      detail ? f->detail : "");
    if (detail && (f->flags & RF(UPSTREAM_CONNECT_FAILURE))) {
        r->info->transport_failure = arena_str(r->arena, str_c(f->detail));
    }
    struct headers extra;
    headers_init(&extra, r->arena);
    if ((f->flags & RF(UPSTREAM_OVERFLOW)) && !r->cfg->suppress_envoy_headers) {
        headers_add_id(&extra, HDR_X_ENVOY_OVERLOADED, STR("true"));
    }
    r->info->flags |= f->flags; // operators in the fields may ask
    router_local_headers(r, f->status, &extra);
    r->responded = true;
    router_finish(r);
    counts_answer(r, f->status);
    r->ops->local_reply(r, f->status, body, details.p, f->flags, &extra);
}

// The attempt came to nothing before an answer.
static void attempt_failed(struct router *r, struct failure f)
{
    struct router_attempt *at = &r->at;
    bool replay = router_replay_possible(r), wanted = replay && retry_wanted(r->policy, f.event, 0, NULL);
    if (wanted) {
        wanted = take_retry(r, &f.flags);
    }
    if (wanted && at->begun) {
        remember_tried(r, at->picked.host);
    }
    detach(r, false);
    attempt_done(r, 0, f.event != RETRY_EV_REFUSED);
    if (wanted) {
        schedule_retry(r);
    } else if (!r->hedges) { // else those that were put aside may still answer
        answer_failure(r, &f);
    }
}

static void on_fail(struct pool_request *pr, enum pool_failure why, const char *detail)
{
    struct router *r = container_of(pr, struct router, at.pr);
    static const struct failure kinds[] = {
        [POOL_FAIL_OVERFLOW] = { .status = 503, .flags = RF(UPSTREAM_OVERFLOW), .reason = "overflow" },
        [POOL_FAIL_CONNECT] = { .status = 503, .flags = RF(UPSTREAM_CONNECT_FAILURE), .reason = "remote connection failure" },
        [POOL_FAIL_TIMEOUT] = { .status = 503, .flags = RF(UPSTREAM_CONNECT_FAILURE), .reason = "connection timeout" },
        [POOL_FAIL_TLS] = { .status = 503, .flags = RF(UPSTREAM_CONNECT_FAILURE), .reason = "remote connection failure" },
        [POOL_FAIL_NO_SECRET] = { .status = 503, .flags = RF(UPSTREAM_CONNECT_FAILURE), .reason = "local connection failure" },
        [POOL_FAIL_PROTOCOL] = { .status = 502, .flags = RF(UPSTREAM_PROTOCOL_ERROR), .reason = "protocol error" },
    };
    struct failure f = kinds[why];
    f.detail = detail;
    if (why == POOL_FAIL_OVERFLOW || why == POOL_FAIL_PROTOCOL) { // another attempt would only add to the load, or fail the same way
        attempt_done(r, 0, false);
        answer_failure(r, &f);
        return;
    }
    f.event = RETRY_EV_CONNECT_FAIL;
    attempt_failed(r, f);
}

static struct failure failure_of(enum codec_reset why, const char *detail, bool h2)
{
    switch (why) {
    case CODEC_RESET_REFUSED:
    case CODEC_RESET_GOAWAY:
        return (struct failure){ RETRY_EV_REFUSED, 503, RF(UPSTREAM_REMOTE_RESET), "remote refused stream reset", NULL };
    case CODEC_RESET_PROTOCOL:
    case CODEC_RESET_OVERFLOW:
        return (struct failure){ RETRY_EV_RESET, 502, RF(UPSTREAM_PROTOCOL_ERROR), "protocol error", h2 ? NULL : detail };
    case CODEC_RESET_REMOTE:
        if (h2) {
            return (struct failure){ RETRY_EV_RESET, 503, RF(UPSTREAM_REMOTE_RESET), "remote reset", NULL };
        }
        break;
    default:
        break;
    }
    return (struct failure){ RETRY_EV_RESET, 503, RF(UPSTREAM_TERMINATION), "connection termination", NULL };
}

// A connection from the pool that its server had closed just before: nobody has seen the request, as far as HTTP lets us know
// (RFC 9110 §9.2.2), so it is sent again at once when doing it twice would be harmless. A GOAWAY says it for certain.
static bool retry_stale(struct router *r, enum codec_reset why)
{
    bool stale = why == CODEC_RESET_BEFORE_REQUEST && r->at.pr.reused && method_is_idempotent(r->req->method);
    if ((!stale && why != CODEC_RESET_GOAWAY) || r->stale_retries >= ROUTER_STALE_RETRIES_MAX || !router_replay_possible(r)) {
        return false;
    }
    r->stale_retries++;
    detach(r, false);
    attempt_done(r, 0, false);
    attempt_begin(r);
    return true;
}

static void up_reset(struct codec_stream *s, enum codec_reset why, const char *detail)
{
    struct router *r = codec_stream_owner(s);
    struct failure f = failure_of(why, detail, codec_version(codec_stream_codec(s)) == HTTP_2);
    stat_inc(r->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_RX_RESET);
    if (!r->responded) {
        if (f.flags == RF(UPSTREAM_TERMINATION) && method_is_safe(r->req->method)) {
            // The connection ended without an answer, and asking twice does no harm: who wants failed connections tried again
            // wants this too (RFC 9110 §9.2.2). Envoy does so with "reset" only.
            f.event = RETRY_EV_CONNECT_FAIL;
        }
        if (!retry_stale(r, why)) {
            attempt_failed(r, f);
        }
        return;
    }
    bool cut = why == CODEC_RESET_CONNECTION || why == CODEC_RESET_REMOTE;
    if (cut && !r->tunnel && codec_version(codec_stream_codec(s)) != HTTP_2) { // an answer that is cut off is malformed
        f = (struct failure){ .flags = RF(UPSTREAM_PROTOCOL_ERROR), .reason = "protocol error" };
    }
    int status = r->info->status;
    detach(r, false);
    attempt_done(r, status, true);
    router_finish(r);
    r->info->upstream_end_ns = now_ns(r);
    r->ops->reset(r, arena_printf(r->arena, "upstream_reset_after_response_started{%s}", f.reason).p, f.flags);
}

// ---- answers ----

static void complete(struct router *r, int status)
{
    r->info->upstream_end_ns = now_ns(r);
    stat_record(r->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_TIME, loop_now_ms(r->worker->loop) - r->at.start_ms);
    counts_time(r, loop_now_ms(r->worker->loop) - r->at.start_ms);
    detach(r, false);
    attempt_done(r, status, false);
    router_finish(r);
}

// The upstream said all it will. What CONNECT carries is TCP, whose sides end on their own (RFC 9113 §8.5). Anything else that switched is over when
// its server ends, as in Envoy: who speaks WebSocket has then nothing to say any more (RFC 6455 §7.1.1).
static void upstream_ended(struct router *r, int status)
{
    if (!r->at.up) {
        return;
    }
    if (r->tunnel && !r->body_end && !r->req->path.n) {
        r->answer_end = true;
        cancel(&r->per_try_idle);
        return;
    }
    if (r->tunnel && !r->body_end) {
        struct buf none = { 0 };
        codec_send_data(r->at.up, &none, true);
    }
    complete(r, status);
}

void attempt_client_ended(struct router *r)
{
    if (r->answer_end && r->at.up) {
        complete(r, r->info->status);
    }
}

static bool retry_response(struct router *r, const struct http_response *resp)
{
    uint32_t flags = 0;
    if (!router_replay_possible(r) || !retry_wanted(r->policy, RETRY_EV_RESPONSE, resp->status, &resp->headers)) {
        return false;
    }
    if (!take_retry(r, &flags)) {
        r->info->flags |= flags;
        return false;
    }
    if (r->policy->reset_header_count) {
        r->retry_wait_ms = retry_reset_wait_ms(r->policy, &resp->headers, loop_wall_ms(r->worker->loop), rand_u64());
    }
    remember_tried(r, r->at.picked.host);
    // The rest of an answer that nobody wants is not worth a connection's slot for long: without a body it stays usable.
    detach(r, !resp->end_stream);
    attempt_done(r, resp->status, false);
    schedule_retry(r);
    return true;
}

static void decorate(struct router *r, struct http_response *resp)
{
    struct headers *h = &resp->headers;
    bool whole = r->body_end && !r->req->upgrade.n && r->req->path.n; // the time from the end of the request: an upgrade or CONNECT goes on
    if (!r->cfg->suppress_envoy_headers && whole) {
        headers_set_id(h, HDR_X_ENVOY_UPSTREAM_SERVICE_TIME,
                       router_number(r->arena, loop_now_ms(r->worker->loop) - r->at.start_ms));
    }
    if (r->vhost->include_attempt_in_response) {
        headers_set_id(h, HDR_X_ENVOY_ATTEMPT_COUNT, router_number(r->arena, r->info->attempts));
    }
    if (r->set_cookie.n) {
        headers_add_id(h, HDR_SET_COOKIE, r->set_cookie);
    }
    header_ops_response(r, resp);
}

// route.internal_redirect_policy
static bool follow_redirect(struct router *r, const struct http_response *resp)
{
    const struct internal_redirect *p = r->route->redirects;
    bool asked = false;
    for (size_t i = 0; p && i < p->code_count; i++) {
        asked |= p->codes[i] == resp->status;
    }
    if (!asked || !r->ops->follow || !r->body_end || r->req_trailers) {
        return false;
    }
    bool whole = r->req->end_stream || r->keep_body;
    if (!whole || !r->ops->follow(r, resp, &r->replay)) {
        return false;
    }
    hedge_cancel_all(r);
    detach(r, !resp->end_stream);
    attempt_done(r, resp->status, false);
    router_finish(r);
    return true;
}

static void count_grpc(struct router *r, const struct headers *h)
{
    struct str status = headers_value_id(h, HDR_GRPC_STATUS);
    if (status.n) {
        upstream_grpc_done(r->cw, status);
    }
}

static void up_response(struct codec_stream *s, struct http_response *resp)
{
    struct router *r = codec_stream_owner(s);
    if (resp->status < 200 && resp->status != 101) {
        // RFC 9110 §15.2.1: a 100 is for the client that asked; 103 is for everybody; others are dropped.
        if (resp->status == 103 || (resp->status == 100 && r->req->expect_continue)) {
            r->ops->informational(r, resp);
        }
        return;
    }
    if (retry_response(r, resp) || follow_redirect(r, resp)) {
        return;
    }
    r->responded = true;
    hedge_cancel_all(r);
    r->keep_body = false;
    buf_clear(&r->replay);
    cancel(&r->per_try);
    touch(r);
    r->info->details = "via_upstream";
    r->info->status = resp->status;
    counts_answer(r, resp->status);
    if (resp->end_stream) {
        count_grpc(r, &resp->headers);
    }
    if (r->at.raw && r->req->path.n) { // a POST in the place of CONNECT: its body is the tunnel
        r->tunnel = true;
        timer_cancel(&r->timeout);
    } else if (resp->status == 101 || (!r->req->path.n && resp->status >= 200 && resp->status < 300)) { // CONNECT has no path
        r->tunnel = true;
        r->body_end = false;
        timer_cancel(&r->timeout); // a conversation is not measured against the time of an answer
    }
    decorate(r, resp);
    bool end = resp->end_stream;
    int status = resp->status;
    r->ops->response(r, resp);
    if (end) {
        upstream_ended(r, status);
    }
}

static void up_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct router *r = codec_stream_owner(s);
    touch(r);
    r->ops->data(r, data, end);
    if (end) {
        upstream_ended(r, r->info->status);
    }
}

static void up_trailers(struct codec_stream *s, struct headers *trailers)
{
    struct router *r = codec_stream_owner(s);
    count_grpc(r, trailers);
    r->ops->trailers(r, trailers);
    upstream_ended(r, r->info->status);
}

static void up_high(struct codec_stream *s)
{
    struct router *r = codec_stream_owner(s);
    r->up_high = true;
    if (!r->body_end && !r->paused) {
        r->paused = true;
        r->ops->pause(r);
    }
}

static void up_low(struct codec_stream *s)
{
    struct router *r = codec_stream_owner(s);
    r->up_high = false;
    if (r->paused) {
        r->paused = false;
        r->ops->resume(r);
    }
}

// Without a reset before: our own message broke it (a body that is not as long as announced).
static void up_close(struct codec_stream *s)
{
    struct router *r = codec_stream_owner(s);
    if (r->answer_end) { // a tunnel's server ended well, and does not listen any more
        complete(r, r->info->status);
        return;
    }
    up_reset(s, CODEC_RESET_CONNECTION, NULL);
}

static const struct codec_stream_ops up_ops = {
    .on_response = up_response, .on_data = up_data, .on_trailers = up_trailers, .on_high = up_high, .on_low = up_low,
    .on_reset = up_reset, .on_close = up_close,
};

// ---- beginning ----

bool attempt_backing_off(const struct router *r)
{
    return r->backoff.fn && timer_pending(&r->backoff);
}

// The per-try time is over, and the attempt may go on beside another. False: there is none.
static bool hedge_on_timeout(struct router *r)
{
    uint32_t flags = 0;
    if (!r->hedging || r->responded || r->at.state != ATTEMPT_OPEN || !router_replay_possible(r)) {
        return false;
    }
    if (!r->policy || !take_retry(r, &flags)) {
        r->info->flags |= flags;
        return true; // this one goes on until the route's time-out
    }
    remember_tried(r, r->at.picked.host);
    hedge_park(r);
    r->timed_out = true;
    schedule_retry(r);
    return true;
}

bool attempt_hedge_again(struct router *r)
{
    uint32_t flags = 0;
    if (attempt_backing_off(r)) {
        return true; // one is about to start anyway
    }
    if (!take_retry(r, &flags)) {
        r->info->flags |= flags;
        return r->at.state != ATTEMPT_NONE; // another one runs: it may do better
    }
    if (r->at.state == ATTEMPT_OPEN) {
        cancel(&r->per_try);
        cancel(&r->per_try_idle);
        hedge_park(r);
    } else if (r->at.state == ATTEMPT_WAITING) {
        attempt_cancel(r);
    }
    schedule_retry(r);
    return true;
}

void attempt_take_response(struct router *r, struct codec_stream *s, struct http_response *resp)
{
    codec_stream_set(s, &up_ops, r);
    if (r->down_high) {
        codec_stream_pause(s);
    }
    up_response(s, resp);
}

void attempt_take_reset(struct router *r, struct codec_stream *s, enum codec_reset why, const char *detail)
{
    codec_stream_set(s, &up_ops, r);
    up_reset(s, why, detail);
}

static void attempt_timed_out(struct router *r, const char *details)
{
    if (hedge_on_timeout(r)) {
        return;
    }
    stat_inc(r->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_PER_TRY_TIMEOUT);
    atomic_fetch_add_explicit(&r->at.picked.host->rq_timeout, 1, memory_order_relaxed);
    uint32_t flags = RF(UPSTREAM_TIMEOUT);
    bool again = router_replay_possible(r) && retry_wanted(r->policy, RETRY_EV_TIMEOUT, 0, NULL) && take_retry(r, &flags);
    if (again) {
        remember_tried(r, r->at.picked.host);
    }
    if (r->at.state == ATTEMPT_WAITING) {
        pool_http_cancel(&r->at.pr);
        list_del(&r->at.pr.link);
    }
    detach(r, true);
    attempt_done(r, 0, true);
    r->timed_out = true;
    if (again) {
        schedule_retry(r);
        return;
    }
    if (r->responded) {
        router_finish(r);
        r->ops->reset(r, details, flags);
    } else {
        router_timed_out(r, details, flags);
    }
}

static void on_per_try(struct timer *t)
{
    attempt_timed_out(container_of(t, struct router, per_try), "upstream_per_try_timeout");
}

static void on_per_try_idle(struct timer *t)
{
    attempt_timed_out(container_of(t, struct router, per_try_idle), "upstream_per_try_idle_timeout");
}

// ConnectConfig.proxy_protocol_config: ahead of the payload, inside of TLS.
static void send_proxy_header(struct router *r, struct codec *c)
{
    struct buf header = { 0 };
    proxy_header_write(r->route->connect_proxy_version, r->client, r->client_dst, str_n(NULL, 0), &header);
    conn_write(codec_conn(c), &header);
    buf_clear(&header);
}

static void answer_local(struct router *r, int status, struct str body, const char *details, uint32_t flags)
{
    if (r->retrying) {
        r->retrying = false;
        upstream_retry_done(r->cw, r->prio);
    }
    struct headers extra;
    headers_init(&extra, r->arena);
    router_local_headers(r, status, &extra);
    r->responded = true;
    router_finish(r);
    counts_answer(r, status);
    r->ops->local_reply(r, status, body, details, flags, &extra);
}

// The cluster's max_stream_duration.
static void on_longest(struct timer *t)
{
    struct router *r = container_of(t, struct router, longest);
    uint32_t flags = RF(UPSTREAM_MAX_DURATION);
    stat_inc(r->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_MAX_DURATION);
    bool again = router_replay_possible(r) && retry_wanted(r->policy, RETRY_EV_RESET, 0, NULL) && take_retry(r, &flags);
    if (again) {
        remember_tried(r, r->at.picked.host);
    }
    detach(r, true);
    attempt_done(r, 0, true);
    if (again) {
        schedule_retry(r);
    } else if (r->responded) {
        router_finish(r);
        r->ops->reset(r, "upstream_max_stream_duration_reached", flags);
    } else if (!r->hedges) {
        answer_local(r, r->body_end ? 504 : 408, STR("upstream max stream duration reached"), "upstream_max_stream_duration_reached", flags);
    }
}

static void on_ready(struct pool_request *pr, struct codec *c, const struct conn *conn)
{
    struct router *r = container_of(pr, struct router, at.pr);
    struct stream_info *i = r->info;
    i->upstream_local = conn->local;
    const struct tls_info *tls = conn->transport ? transport_tls_info(conn) : NULL;
    if (tls && !str_eq(i->upstream_peer_uri, tls->peer_uri)) {
        i->upstream_peer_uri = arena_str(r->arena, tls->peer_uri);
    }
    r->at.up = codec_new_stream(c, &up_ops, r, r->arena);
    r->at.state = ATTEMPT_OPEN;
    if (!r->at.up) {
        attempt_failed(r, failure_of(CODEC_RESET_CONNECTION, NULL, false));
        return;
    }
    if (!i->upstream_start_ns) {
        i->upstream_start_ns = now_ns(r);
    }
    i->upstream_protocol = codec_version(c);
    if (r->at.raw && r->route->connect_proxy_version) {
        send_proxy_header(r, c);
    }
    if (r->cw->snap->cfg->max_stream_ms) {
        timer_init(&r->longest, on_longest);
        timer_set(r->worker->loop, &r->longest, r->cw->snap->cfg->max_stream_ms);
    }
    counts_add(r, STAT_ID_VCLUSTER_RQ_TOTAL);
    if (r->down_high) {
        codec_stream_pause(r->at.up);
    }
    attempt_send_request(r);
}

// Whether the request's payload goes to the cluster as it is (UpgradeConfig.ConnectConfig).
static bool ends_here(const struct router *r)
{
    return r->route->connect_terminate && (!r->req->path.n || (r->route->connect_post && str_is(r->req->method, "POST")));
}

static bool pick_host(struct router *r)
{
    struct pick p = { .original_dst = r->original_dst, .tried_count = r->tried_count };
    const struct cluster_cfg *cfg = r->cw->snap->cfg;
    if (cfg->original_dst_use_header) {
        struct addr a;
        struct str v = headers_value_id(&r->req->headers, HDR_X_ENVOY_ORIGINAL_DST_HOST);
        if (v.n && addr_parse(v, &a)) {
            p.original_dst = a;
        }
    }
    if (r->route->hash_count && (cfg->lb == LB_RING_HASH || cfg->lb == LB_MAGLEV)) { // to others a hash means nothing, and no cookie is made
        p.has_hash = route_hash(r->route, r->req, &r->info->downstream_remote, r->random, r->arena, &p.hash, &r->set_cookie);
    }
    p.subset = r->weighted ? r->weighted->subset : r->route->subset;
    p.subset_count = r->weighted ? r->weighted->subset_count : r->route->subset_count;
    for (int i = 0; i < r->tried_count; i++) {
        p.tried[i] = r->tried[i];
    }
    p.reselect = r->policy ? (int)(r->policy->host_selection_attempts ? r->policy->host_selection_attempts : 1) : 0;
    p.omit_canary = r->policy && r->policy->omit_canary && r->retried;
    p.avoid_priorities = r->priorities_tried;
    bool picked = upstream_pick(r->cw, &p, &r->at.picked);
    if (picked && r->priorities_tried && r->at.picked.priority < 32 && (r->priorities_tried >> r->at.picked.priority & 1)) {
        r->priorities_tried = r->priorities_seen = 0; // all were tried: begin anew
    }
    return picked;
}

// As endpoint.v3 drop_overloads ask for. all: there is no chance that another request fares better.
static void answer_dropped(struct router *r, bool all)
{
    struct headers extra;
    headers_init(&extra, r->arena);
    router_local_headers(r, 503, &extra);
    if (!r->cfg->suppress_envoy_headers) {
        headers_add(&extra, all ? STR("x-envoy-unconditional-drop-overload") : STR("x-envoy-drop-overload"), STR("true"));
    }
    r->info->attempts = 0;
    r->responded = true;
    router_finish(r);
    counts_answer(r, 503);
    r->ops->local_reply(r, 503, all ? STR("unconditional drop overload") : STR("drop overload"),
                        all ? "unconditional_drop_overload" : "drop_overload",
                        all ? RF(UNCONDITIONAL_DROP_OVERLOAD) : RF(DROP_OVERLOAD), &extra);
}

// What depends on the chosen host.
static void set_for_host(struct router *r)
{
    struct host *h = r->at.picked.host;
    r->info->upstream_host = h->addr;
    if (metadata_wanted(METADATA_UPSTREAM_HOST)) {
        r->info->metadata[METADATA_UPSTREAM_HOST] = router_keep_metadata(r, r->at.picked.metadata);
    }
    if (r->route->auto_host_rewrite && h->hostname) {
        route_set_host(r, arena_str(r->arena, str_c(h->hostname)));
    }
    if (r->vhost->include_request_attempt_count) {
        headers_set_id(&r->req->headers, HDR_X_ENVOY_ATTEMPT_COUNT, router_number(r->arena, r->info->attempts));
    }
    if (r->info->attempts > 1 && r->retried) {
        router_say_timeout(r);
        if (r->vhost->include_is_timeout_retry) {
            headers_set(&r->req->headers, STR("x-envoy-is-timeout-retry"), r->timed_out ? STR("true") : STR("false"));
        }
        r->timed_out = false;
    }
}

// For clusters that take a TLS server's name from the request: its host as the route has it, or the field that they name.
static struct str server_name(const struct router *r, const struct cluster_cfg *cfg)
{
    struct str v = cfg->auto_sni_header.n ? headers_value(&r->req->headers, cfg->auto_sni_header) : str_n(NULL, 0);
    return v.n ? v : r->authority;
}

void attempt_begin(struct router *r)
{
    struct cluster_worker *before = r->cw, *cw = upstream_cluster(r->worker, r->cluster);
    if (before && before != cw && r->retrying) { // the cluster went (and came) during the back-off
        upstream_retry_done(before, r->prio);
        r->retrying = false;
    }
    r->cw = cw;
    r->info->attempts++;
    if (!cw) {
        answer_local(r, 503, str_n(NULL, 0), "cluster_not_found", RF(NO_CLUSTER));
        return;
    }
    enum upstream_drop drop = r->info->attempts == 1 ? upstream_drop(cw, NULL) : DROP_NONE;
    if (drop != DROP_NONE) {
        answer_dropped(r, drop == DROP_ALL);
        return;
    }
    if (!pick_host(r)) {
        answer_local(r, 503, STR("no healthy upstream"), "no_healthy_upstream", RF(NO_HEALTHY_UPSTREAM));
        return;
    }
    if (!upstream_request_begin(cw, r->at.picked.host, r->prio)) {
        picked_release(&r->at.picked);
        if (r->retrying) {
            r->retrying = false;
            upstream_retry_done(cw, r->prio);
        }
        answer_failure(r, &(struct failure){ .status = 503, .flags = RF(UPSTREAM_OVERFLOW), .reason = "overflow" });
        return;
    }
    r->at.begun = true;
    r->at.state = ATTEMPT_WAITING;
    r->at.start_ms = loop_now_ms(r->worker->loop);
    set_for_host(r);
    const struct retry_policy *p = r->policy;
    if (r->per_try_ms) {
        timer_init(&r->per_try, on_per_try);
        timer_set(r->worker->loop, &r->per_try, r->per_try_ms);
    }
    if (p && p->per_try_idle_ms) {
        timer_init(&r->per_try_idle, on_per_try_idle);
        timer_set(r->worker->loop, &r->per_try_idle, p->per_try_idle_ms);
    }
    r->at.pr.on_ready = on_ready;
    r->at.pr.on_fail = on_fail;
    r->at.pr.reused = false;
    r->at.raw = ends_here(r);
    bool override = r->alpn_override && !cw->snap->cfg->metadata_no_alpn_override;
    const struct pool_opts o = { .raw = r->at.raw, .downstream = r->req->version, .alpn_override = override ? r->alpn_override : NULL,
                                 .alpn_override_count = override ? r->alpn_override_count : 0,
                                 .alpn_override_h2 = override ? r->alpn_override_h2 : NULL,
                                 .alpn_override_h2_count = override ? r->alpn_override_h2_count : 0,
                                 .priority = r->prio,
                                 .authority = server_name(r, cw->snap->cfg),
                                 .hints = r->hints,
                                 .client = r->client,
                                 .client_dst = r->client_dst };
    pool_http_get(cw, &r->at.picked, &o, &r->at.pr);
}
