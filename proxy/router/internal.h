// SPDX-License-Identifier: Apache-2.0
// Inside of proxy/router: the seam between the request (router.c) and its attempts (attempt.c).
#ifndef PROXY_ROUTER_INTERNAL_H
#define PROXY_ROUTER_INTERNAL_H

#include "proxy/router/router.h"

// Picks a host and asks for a connection; answers locally when that is not possible.
void attempt_begin(struct router *r);
// Gives the current attempt back without an outcome (client gone, time-out): cancels what is under way.
void attempt_cancel(struct router *r);
// Sends what the request has so far to the open attempt: called when it opens.
void attempt_send_request(struct router *r);
// The client's side of a tunnel ended.
void attempt_client_ended(struct router *r);
// The route's time-out starts when the request is complete.
void router_request_complete(struct router *r);
// The answer is there (in full or locally): no timer, no replay any more.
void router_finish(struct router *r);

// ---- policy.c ----
enum { CLIENT_CODES_MAX = 16 }; // entries of a client's list
// Sets what holds for this request: policy, time-outs, hedging, limits.
void router_policy(struct router *r);
// Tells the upstream how long it has.
void router_say_timeout(struct router *r);

// ---- hedge.c, and what it needs of attempt.c ----
// Puts the open attempt aside; it may still answer.
void hedge_park(struct router *r);
void hedge_cancel_all(struct router *r);
// The request can be sent once more from what is kept of it.
bool router_replay_possible(const struct router *r);
// An attempt that was put aside failed: another one starts beside those that run, when the budgets allow. False: none.
bool attempt_hedge_again(struct router *r);
bool attempt_backing_off(const struct router *r);
// The stream of an attempt that was put aside is the router's own again, with the event that it had.
void attempt_take_response(struct router *r, struct codec_stream *s, struct http_response *resp);
void attempt_take_reset(struct router *r, struct codec_stream *s, enum codec_reset why, const char *detail);

// Fields that every answer has which is made here: the route's, and x-envoy-attempt-count.
void router_local_headers(struct router *r, int status, struct headers *h);

// No answer in time, and nothing sent yet.
void router_timed_out(struct router *r, const char *details, uint32_t flags);

// A copy of what may go before the exchange ends; NULL when there is nothing.
const struct str *router_keep_metadata(struct router *r, struct str md);

// Rewrites the authority and says what it was, as the route wants.
void route_set_host(struct router *r, struct str host);

// Decimal text in the arena; printf shows in profiles of small requests.
struct str router_number(struct arena *a, uint64_t n);

// ---- counts.c ----
// Where the request is counted beside its cluster: virtual cluster and route.
void counts_begin(struct router *r);
// Metrics of both, by their names in the scope VCLUSTER.
void counts_add_now(struct router *r, enum stat_any vcluster_id);
static inline void counts_add(struct router *r, enum stat_any vcluster_id)
{
    if (r->counted) {
        counts_add_now(r, vcluster_id);
    }
}
// The request's answer.
void counts_answer_now(struct router *r, int status);
static inline void counts_answer(struct router *r, int status)
{
    if (r->counted) {
        counts_answer_now(r, status);
    }
}
void counts_time_now(struct router *r, uint64_t ms);
static inline void counts_time(struct router *r, uint64_t ms)
{
    if (r->counted) {
        counts_time_now(r, ms);
    }
}

// ---- mirror.c ----
// Starts the mirrors of the route, whose head is ready to be sent.
void mirror_start(struct router *r);
// Copies of the body for those that still take it.
void mirror_data(struct router *r, const struct buf *data, bool last);
void mirror_trailers(struct router *r, const struct headers *trailers);
// The request ended before it was complete.
void mirror_abandon(struct router *r);

// ---- side_call.c ----
struct side_call;
// n bytes, zeroed, that live as long as the call and become its owner.
void *side_call_own(struct side_call *c, size_t n);

#endif
