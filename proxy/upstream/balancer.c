// SPDX-License-Identifier: Apache-2.0
// Priorities, panic and locality weights around a balancing policy. Rebuilt when the endpoint set, its cluster's configuration, or the health
// of one of its hosts changed; otherwise a pick is one look at the policy.
#include <stdlib.h>

#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "proxy/upstream/internal.h"
#include "proxy/upstream/lb/lb.h"

// Envoy's default endpoint.v3.ClusterLoadAssignment.Policy.overprovisioning_factor.
enum { OVERPROVISIONING_PCT = 140 };

struct level { // one priority
    uint32_t priority;
    size_t total, healthy;
    uint32_t load;        // percent of the picks
    bool panic;           // use all hosts, whatever their health
    struct endpoint *own; // owned copies (weights adjusted to localities)
    struct endpoint **v;  // owned, into own
    const struct endpoint **origin; // owned, the set's endpoints in the same order
    size_t n;
    void *state;          // policy's
};

struct lb {
    struct endpoint_set *set; // ref
    struct cluster_cfg *cfg;  // ref
    unsigned epoch;
    const struct lb_ops *ops;
    struct level *levels; // ascending priority
    size_t level_count;
    bool *usable; // by endpoint, as of the build
};

static bool is_usable(const struct endpoint *e)
{
    return atomic_load_explicit(&e->host->flags, memory_order_relaxed) == 0;
}

void balancer_free(struct lb *lb)
{
    if (!lb) {
        return;
    }
    for (size_t i = 0; i < lb->level_count; i++) {
        struct level *l = &lb->levels[i];
        if (l->state) {
            lb->ops->fini(l->state);
        }
        free(l->state);
        free(l->own);
        free(l->v);
        free(l->origin);
    }
    free(lb->levels);
    free(lb->usable);
    endpoint_set_unref(lb->set);
    cluster_cfg_unref(lb->cfg);
    free(lb);
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
    uint32_t health_sum = 0;
    size_t hosts = 0;
    for (size_t i = 0; i < lb->level_count; i++) {
        struct level *l = &lb->levels[i];
        uint32_t h = (uint32_t)(OVERPROVISIONING_PCT * l->healthy / l->total);
        l->load = h > 100 ? 100 : h; // for now: health
        health_sum += l->load;
        hosts += l->total;
    }
    health_sum = health_sum > 100 ? 100 : health_sum;
    uint32_t left = 100, first = UINT32_MAX;
    for (size_t i = 0; i < lb->level_count; i++) {
        struct level *l = &lb->levels[i];
        l->panic = health_sum < 100 && 100.0 * (double)l->healthy / (double)l->total < lb->cfg->healthy_panic_threshold;
        if (health_sum == 0) {
            l->load = l->panic ? (uint32_t)(100 * l->total / hosts) : 0;
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

// Weight of the endpoint within its level. With locality weights a locality's share is split among its usable endpoints by their weights
// (cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig).
static uint32_t weight_in_level(const struct lb *lb, const struct level *l, const struct endpoint *e)
{
    if (!lb->cfg->locality_weighted) {
        return e->weight;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < l->n; i++) {
        const struct endpoint *o = l->origin[i];
        if (str_eq(o->region, e->region) && str_eq(o->zone, e->zone) && str_eq(o->sub_zone, e->sub_zone)) {
            sum += o->weight;
        }
    }
    uint64_t w = ((uint64_t)e->locality_weight << 16) * e->weight / (sum ? sum : 1);
    return w > UINT32_MAX ? UINT32_MAX : (uint32_t)w;
}

static void fill_level(struct lb *lb, struct level *l)
{
    if (l->load == 0) {
        return;
    }
    l->own = mem_alloc(l->total * sizeof(*l->own));
    l->v = mem_alloc(l->total * sizeof(*l->v));
    l->origin = mem_alloc(l->total * sizeof(*l->origin));
    for (size_t i = 0; i < lb->set->count; i++) {
        const struct endpoint *e = &lb->set->v[i];
        bool zero = lb->cfg->locality_weighted && e->locality_weight == 0; // such a locality gets nothing
        if (e->priority == l->priority && (l->panic || lb->usable[i]) && !zero) {
            l->origin[l->n++] = e;
        }
    }
    for (size_t i = 0; i < l->n; i++) {
        l->own[i] = *l->origin[i];
        l->v[i] = &l->own[i];
        l->own[i].weight = weight_in_level(lb, l, l->origin[i]);
        l->own[i].weight = l->own[i].weight ? l->own[i].weight : 1;
    }
    if (l->n) {
        l->state = mem_zalloc(lb->ops->state_size);
        lb->ops->init(l->state, lb->cfg, l->v, l->n);
    }
}

static struct lb *balancer_new(struct cluster_cfg *cfg, struct endpoint_set *set, unsigned epoch)
{
    struct lb *lb = mem_new(struct lb);
    lb->cfg = cluster_cfg_ref(cfg);
    lb->set = endpoint_set_ref(set);
    lb->epoch = epoch;
    lb->ops = lb_find(cfg->lb == LB_CLUSTER_PROVIDED ? LB_ROUND_ROBIN : cfg->lb);
    CHECK(lb->ops); // proxy/config refuses others
    lb->usable = mem_zalloc(set->count ? set->count : 1);
    for (size_t i = 0; i < set->count; i++) {
        struct level *l = level_for(lb, set->v[i].priority);
        lb->usable[i] = is_usable(&set->v[i]);
        l->total++;
        l->healthy += lb->usable[i];
    }
    if (lb->level_count) {
        set_loads(lb);
    }
    for (size_t i = 0; i < lb->level_count; i++) {
        fill_level(lb, &lb->levels[i]);
    }
    return lb;
}

static bool health_unchanged(const struct lb *lb)
{
    for (size_t i = 0; i < lb->set->count; i++) {
        if (lb->usable[i] != is_usable(&lb->set->v[i])) {
            return false;
        }
    }
    return true;
}

static struct lb *balancer_current(struct cluster_worker *cw)
{
    struct lb *lb = cw->lb;
    unsigned epoch = host_health_epoch();
    if (lb && lb->set->generation == cw->snap->endpoints->generation && lb->cfg == cw->snap->cfg) {
        if (lb->epoch == epoch || health_unchanged(lb)) {
            lb->epoch = epoch;
            return lb;
        }
    }
    cw->lb = balancer_new(cw->snap->cfg, cw->snap->endpoints, epoch);
    balancer_free(lb);
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

static struct level *choose_level(struct lb *lb)
{
    if (lb->level_count == 1) {
        return lb->levels[0].n ? &lb->levels[0] : NULL;
    }
    uint32_t x = (uint32_t)rand_below(100);
    struct level *last = NULL;
    for (size_t i = 0; i < lb->level_count; i++) {
        struct level *l = &lb->levels[i];
        if (l->n == 0) {
            continue;
        }
        last = l;
        if (x < l->load) {
            return l;
        }
        x -= l->load;
    }
    return last;
}

const struct endpoint *balancer_pick(struct cluster_worker *cw, const struct pick *p)
{
    struct lb *lb = balancer_current(cw);
    struct level *l = choose_level(lb);
    if (!l) {
        return NULL;
    }
    size_t i = 0;
    for (int tries = 0; tries <= p->reselect; tries++) {
        i = lb->ops->pick(l->state, l->v, l->n, p->has_hash, p->hash, rand_u64());
        if (p->tried_count == 0 || !was_tried(p, l->v[i]->host)) {
            return l->origin[i];
        }
    }
    // Chance did not find one: any other that was not tried is better than the same again.
    for (size_t k = 1; p->reselect > 0 && k < l->n; k++) {
        size_t j = (i + k) % l->n;
        if (!was_tried(p, l->v[j]->host)) {
            return l->origin[j];
        }
    }
    return l->origin[i];
}
