// SPDX-License-Identifier: Apache-2.0
// Gauges of clusters that nobody counts as things happen: how many endpoints there are, and how far circuit breakers are filled. Written before
// each exposition, for clusters that a worker has used or that have health checks. Control thread.
#include "proxy/config/config_int.h"
#include "proxy/upstream/breaker.h"
#include "proxy/upstream/cluster.h"

static uint64_t left(uint32_t limit, uint32_t n)
{
    return n < limit ? limit - n : 0;
}

static void set_breakers(struct stat_block *b, const struct breaker_limits *l, const struct cluster_shared *s, int priority)
{
    // The ids of the priorities follow each other in the same order.
    unsigned off = priority ? STAT_ID_CLUSTER_LB_HIGH_CX_OPEN - STAT_ID_CLUSTER_LB_DEFAULT_CX_OPEN : 0;
    uint32_t pending = atomic_load_explicit(&s->pending[priority], memory_order_relaxed);
    uint32_t requests = atomic_load_explicit(&s->requests[priority], memory_order_relaxed);
    const struct {
        enum stat_any open, remaining;
        uint32_t n, limit;
    } v[] = {
        { STAT_ID_CLUSTER_LB_DEFAULT_CX_OPEN, STAT_ID_CLUSTER_LB_DEFAULT_REMAINING_CX,
          atomic_load_explicit(&s->connections[priority], memory_order_relaxed), l->max_connections },
        { STAT_ID_CLUSTER_LB_DEFAULT_CX_POOL_OPEN, STAT_ID_CLUSTER_LB_DEFAULT_REMAINING_CX_POOLS,
          atomic_load_explicit(&s->pools[priority], memory_order_relaxed), l->max_pools ? l->max_pools : UINT32_MAX },
        { STAT_ID_CLUSTER_LB_DEFAULT_RQ_PENDING_OPEN, STAT_ID_CLUSTER_LB_DEFAULT_REMAINING_PENDING, pending, l->max_pending },
        { STAT_ID_CLUSTER_LB_DEFAULT_RQ_OPEN, STAT_ID_CLUSTER_LB_DEFAULT_REMAINING_RQ, requests, l->max_requests },
        { STAT_ID_CLUSTER_LB_DEFAULT_RQ_RETRY_OPEN, STAT_ID_CLUSTER_LB_DEFAULT_REMAINING_RETRIES,
          atomic_load_explicit(&s->retries[priority], memory_order_relaxed), breaker_retries_allowed(l, pending + requests) },
    };
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        stat_gauge_set(b, (enum stat_any)((unsigned)v[i].open + off), v[i].n >= v[i].limit);
        if (l->track_remaining) {
            stat_gauge_set(b, (enum stat_any)((unsigned)v[i].remaining + off), left(v[i].limit, v[i].n));
        }
    }
}

static void set_members(struct stat_block *b, const struct endpoint_set *set)
{
    uint64_t healthy = 0, pending = 0;
    for (size_t i = 0; i < set->count; i++) {
        unsigned flags = atomic_load_explicit(&set->v[i].host->flags, memory_order_relaxed);
        healthy += (flags & ~(unsigned)HOST_REMOVED) == 0;
        pending += (flags & HOST_PENDING_HC) != 0;
    }
    stat_gauge_set(b, STAT_ID_CLUSTER_LB_MEMBERSHIP_TOTAL, set->count);
    stat_gauge_set(b, STAT_ID_CLUSTER_LB_MEMBERSHIP_HEALTHY, healthy);
    stat_gauge_set(b, STAT_ID_CLUSTER_LB_MEMBERSHIP_EXCLUDED, pending);
}

void config_collect_gauges(void *arg)
{
    struct config *c = arg;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->clusters, &i));) {
        struct cluster_rec *r = e->val;
        if (!r->active || !(r->monitor || atomic_load_explicit(&r->shared->used, memory_order_relaxed))) {
            continue;
        }
        const struct cluster_cfg *cfg = r->active->cfg;
        struct stat_block *b = stats_scope_get(stats_shard_control(c->o.stats), STAT_CLUSTER_LB, cfg->stat_name);
        set_members(b, r->active->endpoints);
        for (int priority = 0; priority < 2; priority++) {
            set_breakers(b, &cfg->breakers[priority], r->shared, priority);
        }
    }
}
