// SPDX-License-Identifier: Apache-2.0
#include "proxy/authz/token_bucket.h"

#include <math.h>

// Seconds of uptime as double leave more than 10^-7 s of precision; a token that is missing by less than this counts as there.
static const double SLACK = 1e-6;

void token_bucket_init(struct token_bucket *b, uint64_t max_tokens, uint64_t tokens_per_fill, uint64_t fill_ms)
{
    b->max = (double)max_tokens;
    b->rate = (double)tokens_per_fill * 1000.0 / (double)fill_ms;
    atomic_init(&b->empty_at_s, -INFINITY); // long ago: full, whatever the clock says
}

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static double tokens_at(const struct token_bucket *b, double empty_at_s, double now_s)
{
    double n = (now_s - empty_at_s) * b->rate;
    return n > b->max ? b->max : n > 0 ? n : 0;
}

// Relaxed throughout: nothing else is published with a token.
static bool change(struct token_bucket *b, uint64_t now_ns, double n)
{
    double now_s = seconds(now_ns), was = atomic_load_explicit(&b->empty_at_s, memory_order_relaxed), left;
    do {
        double have = tokens_at(b, was, now_s);
        if (have + SLACK < n) {
            return false;
        }
        left = have - n;
        left = left > b->max ? b->max : left > 0 ? left : 0;
    } while (!atomic_compare_exchange_weak_explicit(&b->empty_at_s, &was, now_s - left / b->rate, memory_order_relaxed, memory_order_relaxed));
    return true;
}

bool token_bucket_take(struct token_bucket *b, uint64_t now_ns, uint64_t n)
{
    return n > 0 && change(b, now_ns, (double)n);
}

void token_bucket_give(struct token_bucket *b, uint64_t now_ns, uint64_t n)
{
    (void)change(b, now_ns, -(double)n);
}

static double left_at(const struct token_bucket *b, uint64_t now_ns)
{
    return tokens_at(b, atomic_load_explicit(&((struct token_bucket *)(uintptr_t)b)->empty_at_s, memory_order_relaxed), seconds(now_ns));
}

uint64_t token_bucket_left(const struct token_bucket *b, uint64_t now_ns)
{
    return (uint64_t)(left_at(b, now_ns) + SLACK);
}

uint64_t token_bucket_wait_ms(const struct token_bucket *b, uint64_t now_ns)
{
    double missing = 1 - left_at(b, now_ns);
    return missing <= SLACK ? 0 : (uint64_t)ceil(missing / b->rate * 1000.0 - SLACK);
}
