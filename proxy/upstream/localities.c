// SPDX-License-Identifier: Apache-2.0
// How a priority's picks are spread over localities: not at all, by their weights (cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig),
// or preferring the own zone (…ZoneAwareLbConfig). With hash policies, localities only change the weights of their hosts: a place on the
// ring must not depend on a second draw.
#include <stdlib.h>

#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "proxy/upstream/balancer.h"

enum { TEN_THOUSAND = 10000 };

static struct upstream_local local;

void upstream_set_local(const struct upstream_local *l)
{
    local = *l;
}

const struct endpoint_set *local_endpoints(const struct cluster_worker *cw)
{
    const struct cluster_snap *cs = local.cluster.n ? snapshot_cluster(cw->worker->snap, local.cluster) : NULL;
    return cs ? cs->endpoints : NULL;
}

static bool same_locality(const struct endpoint *a, const struct endpoint *b)
{
    return str_eq(a->region, b->region) && str_eq(a->zone, b->zone) && str_eq(a->sub_zone, b->sub_zone);
}

static bool is_own(const struct endpoint *e)
{
    return str_eq(e->region, local.region) && str_eq(e->zone, local.zone) && str_eq(e->sub_zone, local.sub_zone);
}

static void group_add(struct group *g, const struct endpoint *e, size_t room)
{
    if (!g->v) {
        g->v = mem_alloc(room * sizeof(*g->v));
        g->weight = mem_alloc(room * sizeof(*g->weight));
        g->locality = e;
    }
    g->v[g->n] = e;
    g->weight[g->n++] = e->weight;
}

static void group_start(struct cluster_worker *cw, const struct lb *lb, struct group *g)
{
    g->hosts = (struct lb_hosts){ .v = g->v, .weight = g->weight, .n = g->n, .cfg = lb->cfg };
    g->state = mem_zalloc(lb->ops->state_size);
    lb->ops->init(g->state, &g->hosts, loop_now_ms(cw->worker->loop));
}

static void group_fini(const struct lb *lb, struct group *g)
{
    if (g->state) {
        lb->ops->fini(g->state);
    }
    free(g->state);
    free(g->v);
    free(g->weight);
}

void level_fini(const struct lb *lb, struct level *l)
{
    for (size_t i = 0; i < l->group_count; i++) {
        group_fini(lb, &l->groups[i]);
    }
    edf_fini(&l->turns);
    free(l->groups);
    free(l->room);
}

static bool takes_part(const struct lb *lb, const struct level *l, size_t i)
{
    uint8_t wanted = l->panic ? MEMBER_COUNTS : MEMBER_USABLE;
    return lb->members[i]->priority == l->priority && (lb->state[i] & wanted);
}

static struct group *group_of(struct level *l, const struct endpoint *e)
{
    for (size_t i = 0; i < l->group_count; i++) {
        if (same_locality(l->groups[i].locality, e)) {
            return &l->groups[i];
        }
    }
    l->groups = mem_realloc(l->groups, (l->group_count + 1) * sizeof(*l->groups));
    l->groups[l->group_count] = (struct group){ 0 };
    return &l->groups[l->group_count++];
}

static void fill_one(struct lb *lb, struct level *l)
{
    struct group g = { 0 };
    for (size_t i = 0; i < lb->member_count; i++) {
        if (takes_part(lb, l, i)) {
            group_add(&g, lb->members[i], lb->member_count);
        }
    }
    if (g.n) {
        l->groups = mem_alloc(sizeof(g));
        l->groups[0] = g;
        l->group_count = 1;
    }
    l->spread = SPREAD_ONE;
}

static void fill_by_locality(struct lb *lb, struct level *l, bool with_weight)
{
    for (size_t i = 0; i < lb->member_count; i++) {
        const struct endpoint *e = lb->members[i];
        if (takes_part(lb, l, i) && !(with_weight && e->locality_weight == 0)) { // such a locality gets nothing
            group_add(group_of(l, e), e, lb->member_count);
        }
    }
}

// Of a locality: all hosts of the level, the usable ones, and those outside the subset too.
struct tally {
    size_t members, usable, in_set;
};

static struct tally tally_of(const struct lb *lb, const struct level *l, const struct group *g)
{
    struct tally t = { 0 };
    for (size_t i = 0; i < lb->member_count; i++) {
        if (lb->members[i]->priority == l->priority && same_locality(lb->members[i], g->locality)) {
            t.members++;
            t.usable += (lb->state[i] & MEMBER_USABLE) != 0;
        }
    }
    for (size_t i = 0; i < lb->set->count; i++) {
        t.in_set += lb->set->v[i].priority == l->priority && same_locality(&lb->set->v[i], g->locality);
    }
    return t;
}

// A locality's weight counts in full until fewer than 1/1.4 of its hosts are usable.
static void set_shares(const struct lb *lb, struct level *l)
{
    double factor = (lb->set->policy.overprovisioning_pct ? lb->set->policy.overprovisioning_pct : 140) / 100.0;
    for (size_t i = 0; i < l->group_count; i++) {
        struct group *g = &l->groups[i];
        struct tally t = tally_of(lb, l, g);
        double able = l->panic ? 1 : factor * (double)t.usable / (double)t.members;
        g->share = g->locality->locality_weight * (able > 1 ? 1 : able);
        if (lb->cfg->subset.scale_locality_weight && lb->member_count != lb->set->count) {
            g->share *= (double)t.members / (double)t.in_set;
        }
    }
}

static double share_of(void *arg, size_t i)
{
    return ((const struct level *)arg)->groups[i].share;
}

// Hash policies: one group, the hosts' weights scaled to their locality's share.
static void flatten(struct lb *lb, struct level *l)
{
    struct group all = { 0 };
    for (size_t i = 0; i < lb->member_count; i++) { // in the order of the assignment, on which ties and tables depend
        const struct endpoint *e = lb->members[i];
        if (!takes_part(lb, l, i) || e->locality_weight == 0) {
            continue;
        }
        const struct group *g = group_of(l, e);
        double sum = 0;
        for (size_t k = 0; k < g->n; k++) {
            sum += g->weight[k];
        }
        group_add(&all, e, lb->member_count);
        all.weight[all.n - 1] = g->share * e->weight / sum;
    }
    for (size_t i = 0; i < l->group_count; i++) {
        group_fini(lb, &l->groups[i]);
    }
    l->groups[0] = all;
    l->group_count = 1;
    l->spread = SPREAD_ONE;
}

static void fill_weighted(struct lb *lb, struct level *l)
{
    fill_by_locality(lb, l, true);
    if (l->group_count == 0) {
        return;
    }
    set_shares(lb, l);
    if (lb->ops->by_hash) {
        flatten(lb, l);
        return;
    }
    l->spread = l->group_count > 1 ? SPREAD_WEIGHTED : SPREAD_ONE;
    if (l->spread == SPREAD_WEIGHTED) {
        edf_init(&l->turns, l->group_count, share_of, l);
    }
}

// ---- zone-aware ----

// Share of the local cluster's usable hosts in the group's locality, of 10000.
static uint64_t local_part(const struct endpoint_set *set, const struct group *g)
{
    uint64_t in = 0, all = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (lb_usable(&set->v[i])) {
            all++;
            in += same_locality(&set->v[i], g->locality);
        }
    }
    return all ? TEN_THOUSAND * in / all : 0;
}

static bool own_zone_first(struct level *l)
{
    for (size_t i = 0; i < l->group_count; i++) {
        if (is_own(l->groups[i].locality)) {
            struct group own = l->groups[i];
            l->groups[i] = l->groups[0];
            l->groups[0] = own;
            return true;
        }
    }
    return false;
}

// The own zone's callers may use its hosts in full when those are at least as large a part of the cluster as the callers are of all callers;
// otherwise what does not fit goes where other zones have more hosts than callers.
static void set_zone_parts(const struct endpoint_set *callers, struct level *l)
{
    uint64_t all = 0;
    for (size_t i = 0; i < l->group_count; i++) {
        all += l->groups[i].n;
    }
    uint64_t own_callers = local_part(callers, &l->groups[0]), own = TEN_THOUSAND * l->groups[0].n / all;
    if (own >= own_callers) {
        l->spread = SPREAD_DIRECT;
        return;
    }
    l->spread = SPREAD_RESIDUAL;
    l->own_part = (uint32_t)(own * TEN_THOUSAND / own_callers);
    l->room = mem_zalloc(l->group_count * sizeof(*l->room));
    for (size_t i = 1; i < l->group_count; i++) {
        uint64_t hosts = TEN_THOUSAND * l->groups[i].n / all, calls = local_part(callers, &l->groups[i]);
        l->room[i] = l->room[i - 1] + (hosts > calls ? hosts - calls : 0);
    }
}

static void merge_groups(struct lb *lb, struct level *l)
{
    for (size_t i = 0; i < l->group_count; i++) {
        group_fini(lb, &l->groups[i]);
    }
    free(l->groups);
    l->groups = NULL;
    l->group_count = 0;
    fill_one(lb, l);
}

static void fill_zone_aware(struct cluster_worker *cw, struct lb *lb, struct level *l)
{
    const struct endpoint_set *callers = local_endpoints(cw);
    bool wanted = l->priority == 0 && !l->panic && !lb->ops->by_hash && callers && callers->count && local.zone.n + local.region.n &&
                  l->healthy_hosts >= lb->cfg->zone_min_hosts;
    if (wanted) {
        fill_by_locality(lb, l, false);
        if (l->group_count > 1 && own_zone_first(l) && local_part(callers, &l->groups[0]) > 0) {
            set_zone_parts(callers, l);
            return;
        }
    }
    merge_groups(lb, l);
}

void level_fill(struct cluster_worker *cw, struct lb *lb, struct level *l)
{
    if (lb->cfg->spread == LOCALITY_WEIGHTED && !lb->plain) {
        fill_weighted(lb, l);
    } else if (lb->cfg->spread == LOCALITY_ZONE_AWARE && !lb->plain) {
        fill_zone_aware(cw, lb, l);
    } else {
        fill_one(lb, l);
    }
    for (size_t i = 0; i < l->group_count; i++) {
        group_start(cw, lb, &l->groups[i]);
    }
}

static size_t residual_group(const struct level *l)
{
    if (rand_below(TEN_THOUSAND) < l->own_part) {
        return 0;
    }
    uint64_t room = l->room[l->group_count - 1];
    if (room == 0) { // rounding
        return (size_t)rand_below(l->group_count);
    }
    uint64_t x = rand_below(room);
    size_t i = 1;
    while (l->room[i] <= x) {
        i++;
    }
    return i;
}

struct group *level_group(struct level *l)
{
    if (l->spread == SPREAD_ONE) {
        return &l->groups[0];
    }
    if (l->spread == SPREAD_WEIGHTED) {
        return &l->groups[edf_next(&l->turns, share_of, l)];
    }
    // zone_aware_lb_config.routing_enabled
    double percent = l->groups[0].hosts.cfg->zone_routing_percent;
    if (percent < 100 && rand_double() * 100 >= percent) {
        uint64_t all = 0;
        for (size_t i = 0; i < l->group_count; i++) {
            all += l->groups[i].n;
        }
        uint64_t x = rand_below(all);
        size_t i = 0;
        while (x >= l->groups[i].n) {
            x -= l->groups[i++].n;
        }
        return &l->groups[i];
    }
    return &l->groups[l->spread == SPREAD_DIRECT ? 0 : residual_group(l)];
}
