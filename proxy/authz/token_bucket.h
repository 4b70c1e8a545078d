// SPDX-License-Identifier: Apache-2.0
// A token bucket that fills steadily (type.v3.TokenBucket): max_tokens at most, tokens_per_fill in each fill_interval, spread evenly as Envoy
// does. One word of mutable state, changed by compare-and-swap, so that all workers share one bucket without a lock.
#ifndef PROXY_AUTHZ_TOKEN_BUCKET_H
#define PROXY_AUTHZ_TOKEN_BUCKET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct token_bucket {
    double max;                // tokens; frozen
    double rate;               // tokens a second; frozen, above 0
    _Atomic double empty_at_s; // any thread: the moment at which the bucket would have been empty, in seconds of the caller's clock
};

// Full. fill_ms > 0. Any thread, before the bucket is shared.
void token_bucket_init(struct token_bucket *b, uint64_t max_tokens, uint64_t tokens_per_fill, uint64_t fill_ms);
// Takes n tokens, or none: false when there are fewer (and for n = 0, as in Envoy). now_ns: monotonic, need not agree exactly between threads.
bool token_bucket_take(struct token_bucket *b, uint64_t now_ns, uint64_t n);
// Puts n tokens back, as far as there is room.
void token_bucket_give(struct token_bucket *b, uint64_t now_ns, uint64_t n);
// Whole tokens in it.
uint64_t token_bucket_left(const struct token_bucket *b, uint64_t now_ns);
// Milliseconds, rounded up, until there is one token; 0 = there is one.
uint64_t token_bucket_wait_ms(const struct token_bucket *b, uint64_t now_ns);

#endif
