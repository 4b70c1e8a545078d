// SPDX-License-Identifier: Apache-2.0
// Circuit breakers: exact over all workers, because each limit is taken by adding first and looking afterwards.
//
// Retries have one of three limits. max_retries: so many at a time. A configured budget: a share of the requests of this moment (or, with
// budget_interval, of the last seconds). Otherwise remora's own budget, which is on always: of the attempts of the last ten seconds, at most
// 20 % on top may be retries, or 10 a second where there are few requests. A share of a time rather than of a moment keeps a backend that fails
// at once from being asked twice as often, and lets the one burst through that a dying host causes.
#include <stdlib.h>

#include "lib/base/mem.h"
#include "proxy/upstream/breaker.h"
#include "proxy/upstream/internal.h"

struct cluster_shared *cluster_shared_new(void)
{
    struct cluster_shared *s = mem_new(struct cluster_shared);
    refs_init(&s->refs);
    return s;
}

void cluster_shared_unref(struct cluster_shared *s)
{
    if (s && refs_put(&s->refs)) {
        free(atomic_load_explicit(&s->window, memory_order_acquire));
        free(s);
    }
}

bool breaker_take(atomic_uint *n, uint32_t limit)
{
    if (atomic_fetch_add_explicit(n, 1, memory_order_relaxed) < limit) {
        return true;
    }
    atomic_fetch_sub_explicit(n, 1, memory_order_relaxed);
    return false;
}

void breaker_give(atomic_uint *n)
{
    atomic_fetch_sub_explicit(n, 1, memory_order_relaxed);
}

// ---- retry budgets ----

enum {
    DEFAULT_BUDGET_PCT = 20, DEFAULT_BUDGET_MS = 10000, DEFAULT_BUDGET_PER_S = 10,
    RETRY_SLOTS = 10,
    BATCH = 16,                        // attempts between two looks at the shared window
    COUNT_BITS = 24, COUNT_MAX = (1 << COUNT_BITS) - 1,
};

struct retry_window { // by priority
    atomic_ullong v[2][RETRY_SLOTS];
};

// Made by whoever comes first.
static atomic_ullong *window_of(struct cluster_shared *s, int priority)
{
    struct retry_window *w = atomic_load_explicit(&s->window, memory_order_acquire);
    if (!w) {
        struct retry_window *fresh = mem_new(struct retry_window);
        if (atomic_compare_exchange_strong_explicit(&s->window, &w, fresh, memory_order_acq_rel, memory_order_acquire)) {
            w = fresh;
        } else {
            free(fresh);
        }
    }
    return w->v[priority];
}

// A slot of the window: the time it stands for (16 bits), attempts, retries (24 bits each).
static uint64_t slot_make(uint64_t when, uint64_t attempts, uint64_t retries)
{
    return (when & 0xffff) << (2 * COUNT_BITS) | (attempts > COUNT_MAX ? COUNT_MAX : attempts) << COUNT_BITS |
           (retries > COUNT_MAX ? COUNT_MAX : retries);
}
static uint64_t slot_attempts(uint64_t x)
{
    return x >> COUNT_BITS & COUNT_MAX;
}
static uint64_t slot_retries(uint64_t x)
{
    return x & COUNT_MAX;
}
static bool slot_is(uint64_t x, uint64_t when)
{
    return x >> (2 * COUNT_BITS) == (when & 0xffff);
}

static void window_add(atomic_ullong window[RETRY_SLOTS], uint64_t when, int attempts, int retries)
{
    atomic_ullong *slot = &window[when % RETRY_SLOTS];
    unsigned long long old = atomic_load_explicit(slot, memory_order_relaxed), fresh;
    do {
        uint64_t a = slot_is(old, when) ? slot_attempts(old) : 0, r = slot_is(old, when) ? slot_retries(old) : 0;
        fresh = slot_make(when, a + (uint64_t)attempts, retries < 0 && r == 0 ? 0 : r + (uint64_t)(int64_t)retries);
    } while (!atomic_compare_exchange_weak_explicit(slot, &old, fresh, memory_order_relaxed, memory_order_relaxed));
}

static void window_sum(atomic_ullong window[RETRY_SLOTS], uint64_t when, uint64_t *ret_attempts, uint64_t *ret_retries)
{
    uint64_t attempts = 0, retries = 0;
    for (uint64_t back = 0; back < RETRY_SLOTS && back <= when; back++) {
        uint64_t x = atomic_load_explicit(&window[(when - back) % RETRY_SLOTS], memory_order_relaxed);
        if (slot_is(x, when - back)) {
            attempts += slot_attempts(x);
            retries += slot_retries(x);
        }
    }
    *ret_attempts = attempts;
    *ret_retries = retries;
}

// Milliseconds that the budget looks back; 0 = it does not.
static uint64_t budget_interval(const struct breaker_limits *l)
{
    return l->retry_limit == RETRY_LIMIT_DEFAULT ? DEFAULT_BUDGET_MS : l->retry_limit == RETRY_LIMIT_BUDGET ? l->budget_interval_ms : 0;
}

static uint64_t window_now(const struct cluster_worker *cw, const struct breaker_limits *l)
{
    uint64_t slot_ms = budget_interval(l) / RETRY_SLOTS;
    return loop_now_ms(cw->worker->loop) / (slot_ms ? slot_ms : 1);
}

static void flush_batch(struct cluster_worker *cw, int priority)
{
    uint32_t *batch = &cluster_priv(cw)->rq_batch[priority];
    if (*batch) {
        window_add(window_of(cluster_shared_of(cw), priority), window_now(cw, &cw->snap->cfg->breakers[priority]), (int)*batch, 0);
        *batch = 0;
    }
}

static void count_attempt(struct cluster_worker *cw, int priority)
{
    if (budget_interval(&cw->snap->cfg->breakers[priority]) && ++cluster_priv(cw)->rq_batch[priority] >= BATCH) {
        flush_batch(cw, priority);
    }
}

// One more retry within the share of the requests of the last seconds.
static bool window_take(struct cluster_worker *cw, int priority, const struct breaker_limits *l)
{
    atomic_ullong *window = window_of(cluster_shared_of(cw), priority);
    uint64_t when = window_now(cw, l), attempts, retries;
    flush_batch(cw, priority);
    window_add(window, when, 0, 1);
    window_sum(window, when, &attempts, &retries);
    bool own = l->retry_limit == RETRY_LIMIT_DEFAULT;
    // attempts has the earlier retries in it, but not this one.
    double first = attempts + 1 > retries ? (double)(attempts + 1 - retries) : 0;
    double share = (own ? DEFAULT_BUDGET_PCT : (double)l->budget_percent) / 100 * first;
    double least = own ? DEFAULT_BUDGET_PER_S * DEFAULT_BUDGET_MS / 1000 : l->budget_min;
    if ((double)retries <= (share > least ? share : least)) {
        return true;
    }
    window_add(window, when, 0, -1);
    return false;
}

uint32_t breaker_retries_allowed(const struct breaker_limits *l, uint32_t active)
{
    if (l->retry_limit != RETRY_LIMIT_BUDGET) {
        return l->max_retries;
    }
    double share = (double)l->budget_percent / 100 * active;
    return share > l->budget_min ? (uint32_t)share : l->budget_min;
}

// What the number of retries at a time may be.
static uint32_t retries_at_a_time(const struct cluster_worker *cw, int priority, const struct breaker_limits *l)
{
    if (l->retry_limit == RETRY_LIMIT_COUNT) {
        return l->max_retries;
    }
    if (budget_interval(l)) {
        return UINT32_MAX;
    }
    struct cluster_shared *s = cluster_shared_of(cw);
    return breaker_retries_allowed(l, atomic_load_explicit(&s->requests[priority], memory_order_relaxed) +
                                          atomic_load_explicit(&s->pending[priority], memory_order_relaxed));
}

// ---- requests ----

bool upstream_request_begin(struct cluster_worker *cw, struct host *h, int priority)
{
    if (!breaker_take(&cluster_shared_of(cw)->requests[priority], cw->snap->cfg->breakers[priority].max_requests)) {
        stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_PENDING_OVERFLOW);
        return false;
    }
    cluster_hold(cw);
    count_attempt(cw, priority);
    stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL);
    stat_gauge_add(cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE, 1);
    atomic_fetch_add_explicit(&h->rq_active, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->rq_total, 1, memory_order_relaxed);
    return true;
}

void upstream_request_done(struct cluster_worker *cw, struct host *h, int priority, int status, bool local_failure)
{
    breaker_give(&cluster_shared_of(cw)->requests[priority]);
    stat_gauge_add(cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE, -1);
    stat_answer(cw->stats, status);
    atomic_fetch_sub_explicit(&h->rq_active, 1, memory_order_relaxed);
    bool good = status >= 100 && status < 500 && !local_failure;
    atomic_fetch_add_explicit(good ? &h->rq_success : &h->rq_error, 1, memory_order_relaxed);
    outlier_result(cw, h, status, local_failure);
    cluster_release(cw);
}

bool upstream_retry_begin(struct cluster_worker *cw, int priority)
{
    const struct breaker_limits *l = &cw->snap->cfg->breakers[priority];
    atomic_uint *retries = &cluster_shared_of(cw)->retries[priority];
    bool taken = breaker_take(retries, retries_at_a_time(cw, priority, l));
    if (taken && budget_interval(l) && !window_take(cw, priority, l)) {
        breaker_give(retries);
        taken = false;
    }
    if (!taken) {
        stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_RETRY_OVERFLOW);
        return false;
    }
    cluster_hold(cw);
    stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_RETRY);
    return true;
}

void upstream_retry_done(struct cluster_worker *cw, int priority)
{
    breaker_give(&cluster_shared_of(cw)->retries[priority]);
    cluster_release(cw);
}
