// SPDX-License-Identifier: Apache-2.0
// The router: one request to one cluster, over as many attempts as policy allows, and the answer back. It sees messages, not the filter
// chain: the HTTP filter "router" (proxy/filters/http/router.c) gives it a request and hears what to send.
//
// Life: router_start → attempts (waiting for a connection → sending and receiving → done or failed → perhaps back-off and again) →
// answered. router_destroy may come at any time (client gone) and ends all of it. Worker's thread.
#ifndef PROXY_ROUTER_ROUTER_H
#define PROXY_ROUTER_ROUTER_H

#include "proxy/core/stream_info.h"
#include "proxy/model/route_table.h"
#include "proxy/upstream/cluster.h"

enum {
    ROUTER_REPLAY_MAX = 64 * 1024,   // request body kept for further attempts unless the route says; a longer one is not tried again
    ROUTER_REPLAY_LIMIT = 4 * 1024 * 1024, // and what a route may say at most
    ROUTER_TIMEOUT_MS = 15000,       // route.v3.RouteAction.timeout when unset
    ROUTER_STALE_RETRIES_MAX = 3,    // attempts that met a connection which its server had closed meanwhile
    ROUTER_BACKOFF_MS = 25,          // route.v3.RetryPolicy.RetryBackOff.base_interval when unset
};

struct router;
struct hedge;

// What the engine does for the router. All but format may end in router_destroy at the end of the turn, never inside the call.
struct router_ops {
    void (*response)(struct router *r, struct http_response *resp); // head of the answer
    void (*informational)(struct router *r, struct http_response *resp); // 1xx
    void (*data)(struct router *r, struct buf *data, bool end);
    void (*trailers)(struct router *r, struct headers *trailers);
    // An answer made here; nothing follows.
    void (*local_reply)(struct router *r, int status, struct str body, const char *details, uint32_t flags, const struct headers *extra);
    // The answer cannot be completed.
    void (*reset)(struct router *r, const char *details, uint32_t flags);
    // Stop / go on giving the request's body.
    void (*pause)(struct router *r);
    void (*resume)(struct router *r);
    // A header value with operators. resp: NULL before there is one.
    struct str (*format)(struct router *r, const struct format *f, const struct http_response *resp);
    // The route follows redirects (route.internal_redirect_policy) and the answer is one of the codes: true when the request starts over, after
    // the call; the router is then destroyed by its owner. body: the whole request body, taken. NULL = never.
    bool (*follow)(struct router *r, const struct http_response *resp, struct buf *body);
};

struct router_cfg { // router.v3.Router
    bool suppress_envoy_headers;
    bool respect_expected_timeout; // respect_expected_rq_timeout
};

struct router_attempt { // the current one
    struct pool_request pr;
    struct picked picked;      // while begun
    struct codec_stream *up;   // while open
    enum { ATTEMPT_NONE, ATTEMPT_WAITING, ATTEMPT_OPEN } state;
    bool begun;                // upstream_request_begin without its done
    bool raw;                  // CONNECT ends here: the upstream gets the payload
    bool in_get;               // pool_http_get is on the stack
    uint64_t start_ms;
};

struct router {
    // set by the owner before router_start; borrowed until router_destroy
    const struct router_ops *ops;
    void *owner;
    const struct router_cfg *cfg;
    struct worker *worker;
    struct arena *arena;
    struct http_request *req;  // changed in place: header operations, rewrites
    struct stream_info *info;
    const struct route_table *table;
    const struct virtual_host *vhost;
    const struct route *route; // NULL = none
    uint64_t random;
    struct addr original_dst;  // for ORIGINAL_DST clusters; family 0 = none
    const struct upstream_hints *hints;     // of the client's connection; NULL = none
    const struct addr *client, *client_dst; // both ends of the client's connection
    struct stat_block *http_stats;
    bool envoy_fields;         // the request has x-envoy- fields that its sender may use
    const struct str *alpn_override;
    size_t alpn_override_count;
    const struct str *alpn_override_h2;
    size_t alpn_override_h2_count;
    // private
    struct stat_block *counts[2]; // of the virtual cluster and of the route; NULL = not counted by itself
    const struct weighted_cluster *weighted;
    const struct retry_policy *policy; // in force; NULL = none
    struct hedge *hedges;      // earlier attempts that still may answer
    struct str cluster;        // name
    struct cluster_worker *cw; // while an attempt is begun
    struct router_attempt at;
    struct buf replay;         // request body kept for an attempt to come
    struct headers *req_trailers;
    struct shadow *shadows;    // mirrors that still get the body
    struct str authority;      // the request's host as the route has it, whichever endpoint is picked
    struct str set_cookie;     // for the answer: ties the client to an endpoint
    struct timer timeout, per_try, per_try_idle, backoff, longest;
    struct host *tried[PICK_TRIED_MAX]; // refs
    int tried_count;
    uint64_t timeout_ms;       // of the whole answer; 0 = none
    uint64_t per_try_ms;       // 0 = none
    uint64_t start_ms;         // loop time
    uint64_t retry_wait_ms;    // the upstream said when to come back; 0 = back-off
    size_t replay_max;
    int prio;                  // 0 DEFAULT, 1 HIGH: whose limits count
    uint32_t priorities_tried, priorities_seen; // previous_priorities: bits to pass over, and to pass over from the next update on
    uint32_t priority_attempts;
    uint32_t retries_left;
    uint8_t stale_retries;
    bool hedging;              // per-try time-outs start another attempt and leave the first
    bool no_retry;             // the policy is not for this request
    bool alt_response;         // x-envoy-upstream-rq-timeout-alt-response: time-outs are 204
    bool timed_out;            // the last attempt ended by per-try time-out
    bool keep_body;            // replay may still be needed after it was sent
    bool body_end;             // the request is complete
    bool tunnel;               // the upstream switched protocols: bytes both ways until both ends
    bool answer_end;           // its upstream has ended, the client has not
    bool paused;               // the owner was asked to pause
    bool up_high;              // the upstream connection is above its mark
    bool down_high;            // the client is
    bool responded;            // the answer's head went out (or a local answer)
    bool retrying;             // upstream_retry_begin without its done
    bool retried;              // by policy, at least once
    bool counted;              // by its virtual cluster or its route too
    bool done, ended;          // answered in full; destroyed
};

// Everything from the route to the first attempt; may answer at once.
void router_start(struct router *r);
// Moves all of data. end: last part of the request.
void router_request_data(struct router *r, struct buf *data, bool end);
void router_request_trailers(struct router *r, struct headers *trailers);
// The client cannot take more / can again.
void router_downstream_high(struct router *r);
void router_downstream_low(struct router *r);
// Gives everything back; cancels what is under way.
void router_destroy(struct router *r);

// ---- pure parts, for the files of this folder and their tests ----
enum retry_event {
    RETRY_EV_RESPONSE,       // a status came
    RETRY_EV_CONNECT_FAIL,   // no connection
    RETRY_EV_REFUSED,        // the upstream says it did nothing
    RETRY_EV_RESET,          // broke before an answer
    RETRY_EV_TIMEOUT,        // per-try time-out
};
// Whether policy p wants a further attempt. headers: of the answer (may be NULL).
bool retry_wanted(const struct retry_policy *p, enum retry_event ev, int status, const struct headers *headers);
// Some retriable_headers of the policy are in h.
bool retry_headers_match(const struct retry_policy *p, const struct headers *h);
// What the answer says about when to come back (rate_limited_retry_back_off), with jitter upwards; 0 = nothing that is believed.
uint64_t retry_reset_wait_ms(const struct retry_policy *p, const struct headers *h, uint64_t wall_ms, uint64_t random);
// Wait before retry number n (1 = first): uniform in [0, base × 2^(n-1)), at most max.
uint64_t retry_backoff_ms(const struct retry_policy *p, uint32_t n, uint64_t random);
// RFC 9110 §9.2.2: may be sent again though it may have been processed.
bool method_is_idempotent(struct str method);
// RFC 9110 §9.2.1: asks for nothing but an answer (TRACE left out).
bool method_is_safe(struct str method);

// Ends the mirrored requests that are still under way on this thread, at its end. They outlive the requests that they copy.
void mirror_worker_fini(void);

// Operations of one level, removals first (as Envoy). Values are made from the head as it is before. req: host and path can be set by
// ":authority", "host", ":path"; NULL for answers.
void header_ops_apply(const struct header_ops *ops, struct headers *h, struct http_request *req, struct router *r,
                      const struct http_response *resp);
// All levels of the route in Envoy's order.
void header_ops_request(struct router *r);
void header_ops_response(struct router *r, struct http_response *resp);
// Host and path as the route wants them. picked host name is applied with auto_host_rewrite.
void route_rewrite(struct router *r);
// Location of a redirect, in the arena.
struct str redirect_location(const struct route *rt, const struct http_request *req, struct arena *a);
// Hash of the route's policies; false when none gives a value. A cookie policy with a lifetime makes a value for clients that have none:
// *ret_cookie is then what Set-Cookie shall say (left alone otherwise; may be NULL: none is made).
bool route_hash(const struct route *rt, const struct http_request *req, const struct addr *source, uint64_t random, struct arena *a,
                uint64_t *ret, struct str *ret_cookie);

#endif
