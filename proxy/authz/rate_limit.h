// SPDX-License-Identifier: Apache-2.0
// Rate limits as the filters see them: descriptors that a request has, and the limiter that keeps buckets in this process
// (local_ratelimit; extensions.common.ratelimit.v3). Pure: the caller has the clock.
#ifndef PROXY_AUTHZ_RATE_LIMIT_H
#define PROXY_AUTHZ_RATE_LIMIT_H

#include "envoy/extensions/common/ratelimit/v3/ratelimit.pb-c.h"
#include "envoy/type/v3/token_bucket.pb-c.h"
#include "lib/base/arena.h"
#include "lib/base/err.h"

struct rate_limit_entry {
    struct str key, value;
};

// route.v3.RateLimit.XRateLimitOption, same numbers.
enum rate_limit_headers { RL_HEADERS_UNSPECIFIED, RL_HEADERS_OFF, RL_HEADERS_ON };

struct rate_limit_descriptor { // what one entry of rate_limits made of a request; in the request's arena
    struct rate_limit_entry *entries;
    size_t count;
    bool has_hits;             // hits counts in place of 1
    bool negative;             // hits are given back
    uint64_t hits;
    bool has_override;         // the limit comes with the request
    uint32_t override_requests;
    int override_unit;         // type.v3.RateLimitUnit
    enum rate_limit_headers headers;
};

enum { RATE_LIMIT_FILL_MIN_MS = 50, RATE_LIMIT_DYNAMIC_DEFAULT = 20, RATE_LIMIT_DYNAMIC_MAX = 100000, RATE_LIMIT_ENTRIES_MAX = 64 };

struct limiter; // buckets of one configuration; shared by all workers, or one connection's

struct limiter_msg { // borrowed for the call
    const Envoy__Type__V3__TokenBucket *bucket; // NULL = none: what no descriptor matches passes
    Envoy__Extensions__Common__Ratelimit__V3__LocalRateLimitDescriptor *const *descriptors;
    size_t descriptor_count;
    uint32_t dynamic_max;      // values kept of each descriptor with a wildcard
    bool always_default;       // always_consume_default_token_bucket
};
// In the arena, whose end gives back what the limiter allocates later. "field: reason".
int limiter_parse(const struct limiter_msg *m, struct arena *a, struct limiter **ret, struct err *err);
// The same limits with full buckets of their own.
struct limiter *limiter_copy(const struct limiter *l, struct arena *a);

struct limiter_answer {
    bool allowed;
    bool shadow;               // allowed, although a descriptor in shadow mode has too little
    bool has_bucket;           // the rest is about a bucket
    uint64_t limit, remaining; // tokens
    uint64_t reset_s;          // until there is a token, rounded up
    enum rate_limit_headers headers; // what the descriptor says about x-ratelimit- fields
};
// Takes tokens for a request with these descriptors. Of the buckets that match, the slowest comes first, and the default bucket last; one that has
// too little ends it. scratch: for the time of the call. Any thread.
void limiter_ask(struct limiter *l, const struct rate_limit_descriptor *d, size_t n, uint64_t now_ns, struct arena *scratch,
                 struct limiter_answer *ret);

#endif
