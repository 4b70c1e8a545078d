// SPDX-License-Identifier: Apache-2.0
// Hedging (route.v3.HedgePolicy.hedge_on_per_try_timeout): an attempt whose per-try time is over goes on beside the next one; the first
// usable answer wins. Here are the attempts that were put aside; the newest one is the router's own (attempt.c).
#include "lib/base/check.h"
#include "proxy/router/internal.h"

struct hedge {
    struct hedge *next;
    struct router *r;
    struct codec_stream *up;
    struct picked picked;
    struct cluster_worker *cw;
    uint64_t start_ms;
    bool retrying; // holds a place among the cluster's retries
};

static void unlink_hedge(struct hedge *h)
{
    struct hedge **at = &h->r->hedges;
    while (*at != h) {
        at = &(*at)->next;
    }
    *at = h->next;
}

// Gives back what the attempt holds. give_up: its exchange is not over.
static void release(struct hedge *h, int status, bool failure, bool give_up)
{
    struct router *r = h->r;
    r->info->upstream_bytes_received += codec_stream_bytes_in(h->up);
    r->info->upstream_bytes_sent += codec_stream_bytes_out(h->up);
    codec_stream_set(h->up, NULL, NULL);
    if (give_up) {
        stat_inc(h->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_TX_RESET);
        codec_stream_reset(h->up, CODEC_RESET_LOCAL);
    }
    if (h->retrying) {
        upstream_retry_done(h->cw, r->prio);
    }
    upstream_request_done(h->cw, h->picked.host, r->prio, status, failure);
    picked_release(&h->picked);
}

void hedge_cancel_all(struct router *r)
{
    while (r->hedges) {
        struct hedge *h = r->hedges;
        r->hedges = h->next;
        release(h, 0, false, true);
    }
}

// The newest attempt makes way for this one.
static void take_over(struct hedge *h)
{
    struct router *r = h->r;
    unlink_hedge(h);
    attempt_cancel(r);
    if (r->backoff.fn) {
        timer_cancel(&r->backoff);
    }
    if (r->retrying) {
        r->retrying = false;
        upstream_retry_done(r->cw, r->prio);
    }
    r->cw = h->cw;
    r->at.up = h->up;
    r->at.picked = h->picked;
    r->at.begun = true;
    r->at.state = ATTEMPT_OPEN;
    r->at.start_ms = h->start_ms;
    r->retrying = h->retrying;
    r->info->upstream_host = h->picked.host->addr;
}

static void hedge_response(struct codec_stream *s, struct http_response *resp)
{
    struct hedge *h = codec_stream_owner(s);
    struct router *r = h->r;
    if (resp->status < 200 && resp->status != 101) {
        return;
    }
    if (r->policy && retry_wanted(r->policy, RETRY_EV_RESPONSE, resp->status, &resp->headers) && router_replay_possible(r) &&
        attempt_hedge_again(r)) {
        unlink_hedge(h);
        release(h, resp->status, false, !resp->end_stream);
        return;
    }
    take_over(h);
    attempt_take_response(r, s, resp);
}

static void hedge_reset(struct codec_stream *s, enum codec_reset why, const char *detail)
{
    struct hedge *h = codec_stream_owner(s);
    struct router *r = h->r;
    (void)why;
    (void)detail;
    stat_inc(h->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_RX_RESET);
    if (r->at.state == ATTEMPT_NONE && !attempt_backing_off(r) && r->hedges == h && !h->next) { // the last one: it decides
        take_over(h);
        attempt_take_reset(r, s, why, detail);
        return;
    }
    unlink_hedge(h);
    release(h, 0, true, false);
}

static void hedge_close(struct codec_stream *s)
{
    hedge_reset(s, CODEC_RESET_CONNECTION, NULL);
}

static const struct codec_stream_ops hedge_ops = { .on_response = hedge_response, .on_reset = hedge_reset, .on_close = hedge_close };

void hedge_park(struct router *r)
{
    CHECK(r->at.state == ATTEMPT_OPEN);
    struct hedge *h = arena_new(r->arena, struct hedge);
    *h = (struct hedge){ .r = r, .up = r->at.up, .picked = r->at.picked, .cw = r->cw, .start_ms = r->at.start_ms, .retrying = r->retrying,
                         .next = r->hedges };
    r->hedges = h;
    r->retrying = false;
    r->at.up = NULL;
    r->at.begun = false;
    r->at.state = ATTEMPT_NONE;
    r->at.picked = (struct picked){ 0 };
    r->up_high = false;
    codec_stream_set(h->up, &hedge_ops, h);
}
