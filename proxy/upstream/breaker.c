// SPDX-License-Identifier: Apache-2.0
// Circuit breakers: exact over all workers, because each limit is taken by adding first and looking afterwards.
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

static void count_status(struct stat_block *b, int status)
{
    static const enum stat_any by_class[] = {
        [1] = STAT_ID_CLUSTER_UPSTREAM_RQ_1XX, [2] = STAT_ID_CLUSTER_UPSTREAM_RQ_2XX, [3] = STAT_ID_CLUSTER_UPSTREAM_RQ_3XX,
        [4] = STAT_ID_CLUSTER_UPSTREAM_RQ_4XX, [5] = STAT_ID_CLUSTER_UPSTREAM_RQ_5XX,
    };
    if (status >= 100 && status < 600) {
        stat_inc(b, by_class[status / 100]);
        stat_inc(b, STAT_ID_CLUSTER_UPSTREAM_RQ_COMPLETED);
    }
}

bool upstream_request_begin(struct cluster_worker *cw, struct host *h, int priority)
{
    if (!breaker_take(&cluster_shared_of(cw)->requests[priority], cw->snap->cfg->breakers[priority].max_requests)) {
        stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_PENDING_OVERFLOW);
        return false;
    }
    cluster_hold(cw);
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
    count_status(cw->stats, status);
    atomic_fetch_sub_explicit(&h->rq_active, 1, memory_order_relaxed);
    bool good = status >= 100 && status < 500 && !local_failure;
    atomic_fetch_add_explicit(good ? &h->rq_success : &h->rq_error, 1, memory_order_relaxed);
    outlier_result(cw, h, status, local_failure);
    cluster_release(cw);
}

bool upstream_retry_begin(struct cluster_worker *cw, int priority)
{
    if (!breaker_take(&cluster_shared_of(cw)->retries[priority], cw->snap->cfg->breakers[priority].max_retries)) {
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
