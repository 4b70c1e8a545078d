// SPDX-License-Identifier: Apache-2.0
// Priorities and panic around localities and a balancing policy. Rebuilt when the endpoint set, its cluster's configuration, or the health
// of one of its hosts changed; otherwise a pick is one look at the policy.
//
// Hosts that just refused or broke connections are passed over for a moment while others are there (outlier.c says for how long): a dead host
// then costs a handful of attempts rather than its share of all of them. Envoy does not do this. It does not apply to hash policies, which
// promise a place, nor where nobody else is left.
#include "proxy/upstream/balancer.h"

#include <math.h>
#include <stdlib.h>

#include "lib/base/mem.h"
#include "lib/base/rand.h"

// Envoy's default endpoint.v3.ClusterLoadAssignment.Policy.overprovisioning_factor.
enum { OVERPROVISIONING_PCT = 140, SUSPECT_DRAWS = 3 };

bool lb_usable(const struct endpoint *e)
{
    return upstream_host_usable(e->host);
}

static uint8_t state_of(const struct lb *lb, const struct endpoint *e)
{
    unsigned flags = atomic_load_explicit(&e->host->flags, memory_order_relaxed);
    bool ignored = lb->cfg->ignore_new_until_checked && (flags & HOST_PENDING_HC);
    return (uint8_t)((lb_usable(e) ? MEMBER_USABLE : 0) | (ignored ? 0 : MEMBER_COUNTS));
}

void lb_free(struct lb *lb)
{
    if (!lb) {
        return;
    }
    subsets_free(lb);
    for (size_t i = 0; i < lb->level_count; i++) {
        level_fini(lb, &lb->levels[i]);
    }
    free(lb->levels);
    free(lb->members);
    free(lb->state);
    endpoint_set_unref(lb->set);
    cluster_cfg_unref(lb->cfg);
    free(lb);
}

void balancer_free(struct lb *lb)
{
    lb_free(lb);
}

static struct level *level_for(struct lb *lb, uint32_t priority)
{
    size_t i = 0;
    while (i < lb->level_count && lb->levels[i].priority < priority) {
        i++;
    }
    if (i == lb->level_count || lb->levels[i].priority != priority) {
        lb->levels = mem_realloc(lb->levels, (lb->level_count + 1) * sizeof(*lb->levels));
        memmove(&lb->levels[i + 1], &lb->levels[i], (lb->level_count - i) * sizeof(*lb->levels));
        lb->levels[i] = (struct level){ .priority = priority };
        lb->level_count++;
    }
    return &lb->levels[i];
}

// Envoy's priority loads: a level keeps all of the traffic until fewer than 100/1.4 % of its hosts are usable; what is missing goes on to the
// next ones. When nothing at all is usable, levels in panic share by their number of hosts.
static void set_loads(struct lb *lb)
{
    uint32_t health_sum = 0, factor = lb->set->policy.overprovisioning_pct ? lb->set->policy.overprovisioning_pct : OVERPROVISIONING_PCT;
    size_t hosts = 0;
    for (size_t i = 0; i < lb->level_count; i++) {
        struct level *l = &lb->levels[i];
        uint64_t h = l->total ? (uint64_t)factor * l->healthy / l->total : 0;
        l->load = h > 100 ? 100 : (uint32_t)h; // for now: health
        health_sum += l->load;
        hosts += l->total_hosts;
    }
    health_sum = health_sum > 100 ? 100 : health_sum;
    uint32_t left = 100, first = UINT32_MAX;
    for (size_t i = 0; i < lb->level_count; i++) {
        struct level *l = &lb->levels[i];
        l->panic = health_sum < 100 && l->total_hosts &&
                   100.0 * (double)l->healthy_hosts / (double)l->total_hosts < lb->cfg->healthy_panic_threshold;
        l->closed = l->panic && lb->cfg->fail_on_panic;
        if (health_sum == 0) {
            l->load = l->panic ? (uint32_t)(100 * l->total_hosts / hosts) : 0;
            first = l->panic && first == UINT32_MAX ? (uint32_t)i : first;
        } else {
            l->load = l->load * 100 / health_sum;
            first = l->load && first == UINT32_MAX ? (uint32_t)i : first;
        }
        l->load = l->load > left ? left : l->load;
        left -= l->load;
    }
    if (first != UINT32_MAX) {
        lb->levels[first].load += left; // rounding
    }
}

static void count_member(struct lb *lb, size_t i)
{
    const struct endpoint *e = lb->members[i];
    struct level *l = level_for(lb, e->priority);
    bool usable = (lb->state[i] = state_of(lb, e)) & MEMBER_USABLE;
    if (!(lb->state[i] & MEMBER_COUNTS)) {
        return;
    }
    size_t n = lb->set->policy.weighted_priority_health ? e->weight : 1;
    l->total += n;
    l->total_hosts++;
    l->healthy += usable ? n : 0;
    l->healthy_hosts += usable;
}

struct lb *lb_build(struct cluster_worker *cw, struct cluster_cfg *cfg, struct endpoint_set *set, const struct endpoint **members, size_t n,
                    bool plain)
{
    struct lb *lb = mem_new(struct lb);
    lb->cfg = cluster_cfg_ref(cfg);
    lb->set = endpoint_set_ref(set);
    lb->epoch = host_health_epoch();
    lb->plain = plain;
    lb->ops = lb_find(cfg->lb == LB_CLUSTER_PROVIDED ? LB_ROUND_ROBIN : cfg->lb);
    CHECK(lb->ops); // proxy/config refuses others
    lb->members = members;
    lb->member_count = n;
    lb->state = mem_zalloc(n ? n : 1);
    for (size_t i = 0; i < n; i++) {
        count_member(lb, i);
    }
    if (lb->level_count) {
        set_loads(lb);
    }
    for (size_t i = 0; i < lb->level_count; i++) {
        if (lb->levels[i].load && !lb->levels[i].closed) {
            level_fill(cw, lb, &lb->levels[i]);
        }
    }
    return lb;
}

bool lb_any(const struct lb *lb)
{
    for (size_t i = 0; i < lb->level_count; i++) {
        if (lb->levels[i].group_count) {
            return true;
        }
    }
    return false;
}

static bool health_unchanged(const struct lb *lb)
{
    for (size_t i = 0; i < lb->member_count; i++) {
        if (lb->state[i] != state_of(lb, lb->members[i])) {
            return false;
        }
    }
    return true;
}

static bool still_current(const struct cluster_worker *cw, struct lb *lb)
{
    if (lb->set->generation != cw->snap->endpoints->generation || lb->cfg != cw->snap->cfg) {
        return false;
    }
    if (lb->cfg->spread == LOCALITY_ZONE_AWARE) {
        const struct endpoint_set *local = local_endpoints(cw);
        if ((local ? local->generation : 0) != lb->local_generation) {
            return false;
        }
    }
    unsigned epoch = host_health_epoch();
    if (lb->epoch != epoch && !health_unchanged(lb)) {
        return false;
    }
    lb->epoch = epoch;
    return true;
}

static struct lb *balancer_current(struct cluster_worker *cw)
{
    struct lb *lb = cw->lb;
    if (lb && still_current(cw, lb)) {
        return lb;
    }
    struct endpoint_set *set = cw->snap->endpoints;
    const struct endpoint **all = mem_alloc((set->count ? set->count : 1) * sizeof(struct endpoint *));
    for (size_t i = 0; i < set->count; i++) {
        all[i] = &set->v[i];
    }
    cw->lb = lb_build(cw, cw->snap->cfg, set, all, set->count, false);
    const struct endpoint_set *local = cw->snap->cfg->spread == LOCALITY_ZONE_AWARE ? local_endpoints(cw) : NULL;
    cw->lb->local_generation = local ? local->generation : 0;
    lb_free(lb);
    return cw->lb;
}

static bool was_tried(const struct pick *p, const struct host *h)
{
    for (int i = 0; i < p->tried_count; i++) {
        if (p->tried[i] == h) {
            return true;
        }
    }
    return false;
}

// By the predicates of a retry.
static bool unwanted(const struct pick *p, const struct endpoint *e)
{
    return (p->tried_count && was_tried(p, e->host)) || (p->omit_canary && e->canary);
}

// Envoy's previous_priorities: the first level that is not avoided and has hosts. NULL = all are avoided.
static struct level *level_beside(struct cluster_worker *cw, struct lb *lb, uint32_t avoid)
{
    for (size_t i = 0; i < lb->level_count; i++) {
        struct level *l = &lb->levels[i];
        bool avoided = l->priority < 32 && (avoid >> l->priority & 1);
        if (avoided || l->closed || l->healthy_hosts == 0) {
            continue;
        }
        if (!l->group_count) { // no picks come here otherwise
            level_fill(cw, lb, l);
        }
        if (l->group_count) {
            return l;
        }
    }
    return NULL;
}

// x: hash or random number. By priority loads, as Envoy.
static struct level *choose_level(struct lb *lb, uint64_t x)
{
    if (lb->level_count == 1) {
        return lb->levels[0].group_count ? &lb->levels[0] : NULL;
    }
    uint32_t at = (uint32_t)(x % 100) + 1, upto = 0;
    struct level *last = NULL;
    for (size_t i = 0; i < lb->level_count; i++) {
        struct level *l = &lb->levels[i];
        upto += l->load;
        if (l->group_count == 0) {
            if (l->load && at <= upto) {
                return NULL; // fail_traffic_on_panic
            }
            continue;
        }
        last = l;
        if (at <= upto) {
            return l;
        }
    }
    return last;
}

// Envoy's bounded loads (consistent_hashing_lb_config.hash_balance_factor): whether host i has more than its part of the requests under way.
static double overload(const struct group *g, size_t i, uint64_t all_active, double sum)
{
    uint64_t slots = ((all_active + 1) * g->hosts.cfg->hash_balance_factor + 99) / 100;
    double own = ceil((double)slots * g->weight[i] / sum);
    return atomic_load_explicit(&g->v[i]->host->rq_active, memory_order_relaxed) / (own < 1 ? 1 : own);
}

// An overloaded host's requests go to others in an order that the hash decides; all overloaded: to the least so.
static size_t bounded(const struct group *g, size_t i, uint64_t hash)
{
    uint64_t all = 0;
    double sum = 0;
    for (size_t k = 0; k < g->n; k++) {
        all += atomic_load_explicit(&g->v[k]->host->rq_active, memory_order_relaxed);
        sum += g->weight[k];
    }
    double least = overload(g, i, all, sum);
    size_t best = i, at = i;
    for (size_t k = 0; least >= 1 && k < 2 * g->n; k++) {
        hash = hash * 6364136223846793005ull + 1442695040888963407ull; // Knuth's MMIX generator
        at = k < g->n ? (size_t)((hash >> 33) % g->n) : k - g->n;      // by chance first, then whoever was missed
        double x = overload(g, at, all, sum);
        if (x < least) {
            least = x;
            best = at;
        }
    }
    return best;
}

static bool is_suspect(const struct host *h, uint64_t now_ms)
{
    uint64_t until = atomic_load_explicit(&h->refused_until_ms, memory_order_relaxed);
    return __builtin_expect(until != 0, 0) && now_ms < until;
}

// The policy's choice in g, or a neighbour's when that one is suspect.
static size_t draw_from(struct lb *lb, struct group *g, const struct lb_draw *d)
{
    size_t i = lb->ops->pick(g->state, &g->hosts, d);
    if (lb->ops->by_hash) {
        return lb->cfg->hash_balance_factor ? bounded(g, i, d->has_hash ? d->hash : d->random) : i;
    }
    if (g->n == 1 || !is_suspect(g->v[i]->host, d->now_ms)) {
        return i;
    }
    for (int k = 0; k < SUSPECT_DRAWS; k++) {
        struct lb_draw again = *d;
        again.random = rand_u64();
        size_t j = lb->ops->pick(g->state, &g->hosts, &again);
        if (!is_suspect(g->v[j]->host, d->now_ms)) {
            return j;
        }
    }
    for (size_t k = 1; k < g->n; k++) {
        size_t j = (i + k) % g->n;
        if (!is_suspect(g->v[j]->host, d->now_ms)) {
            return j;
        }
    }
    return i;
}

const struct endpoint *lb_choose(struct cluster_worker *cw, struct lb *lb, const struct pick *p)
{
    const struct endpoint *e = NULL;
    struct group *g = NULL;
    size_t i = 0;
    struct lb_draw d = { .has_hash = p->has_hash, .hash = p->hash, .now_ms = loop_now_ms(cw->worker->loop) };
    for (int tries = 0; tries <= p->reselect; tries++) {
        d.random = rand_u64();
        d.attempt = (uint32_t)tries;
        bool by_hash = lb->ops->by_hash;
        struct level *l = choose_level(lb, by_hash ? (d.has_hash ? d.hash : d.random) : lb->level_count > 1 ? rand_u64() : 0);
        if (!l) {
            return NULL;
        }
        if (p->avoid_priorities) {
            struct level *beside = level_beside(cw, lb, p->avoid_priorities);
            l = beside ? beside : l;
        }
        g = level_group(l);
        i = draw_from(lb, g, &d);
        e = g->v[i];
        if (!unwanted(p, e)) {
            return e;
        }
    }
    // Chance did not find one: any other that was not tried is better than the same again.
    for (size_t k = 1; p->reselect > 0 && k < g->n; k++) {
        size_t j = (i + k) % g->n;
        if (!unwanted(p, g->v[j])) {
            return g->v[j];
        }
    }
    return e;
}

const struct endpoint *balancer_pick(struct cluster_worker *cw, const struct pick *p)
{
    struct lb *lb = balancer_current(cw);
    if (lb->cfg->subset.enabled) {
        lb = subset_find(cw, lb, p);
    }
    const struct endpoint *e = lb ? lb_choose(cw, lb, p) : NULL;
    if (!e && lb && lb != cw->lb && cw->snap->cfg->subset.panic_mode_any) {
        e = lb_choose(cw, cw->lb, p);
    }
    return e;
}
