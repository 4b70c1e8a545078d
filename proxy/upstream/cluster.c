// SPDX-License-Identifier: Apache-2.0
// One worker's clusters: made on first use, following snapshots, gone some time after their last user.
#include "proxy/upstream/cluster.h"

#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "proxy/upstream/internal.h"

static struct stat_block *scope_hold(const struct cluster_worker *cw, enum stat_scope scope)
{
    const struct cluster_cfg *cfg = cw->snap->cfg;
    struct stat_block *b = stats_scope_get(cw->worker->stats, scope, cfg->stat_name.n ? cfg->stat_name : cw->name);
    stats_scope_hold(b);
    return b;
}

// Further blocks of statistics, as the present configuration needs them; they stay.
static void more_stats(struct cluster_worker *cw)
{
    const struct cluster_cfg *cfg = cw->snap->cfg;
    if (!cw->outlier_stats && cfg->outlier.enabled) {
        cw->outlier_stats = scope_hold(cw, STAT_CLUSTER_OUTLIER);
    }
    bool pools = cfg->breakers[0].max_pools || cfg->breakers[1].max_pools;
    if (!cw->lb_stats && (cfg->subset.enabled || pools || cfg->close_on_host_failure || cw->snap->endpoints->policy.drop_count)) {
        cw->lb_stats = scope_hold(cw, STAT_CLUSTER_LB);
    }
}

void upstream_grpc_done(struct cluster_worker *cw, struct str status)
{
    uint64_t n;
    if (!cw->grpc_stats) {
        cw->grpc_stats = scope_hold(cw, STAT_CLUSTER_GRPC);
    }
    stat_inc(cw->grpc_stats, STAT_ID_CLUSTER_GRPC_TOTAL);
    stat_inc(cw->grpc_stats, str_is(status, "0") ? STAT_ID_CLUSTER_GRPC_SUCCESS : STAT_ID_CLUSTER_GRPC_FAILURE);
    if (str_to_u64(status, 16, &n)) {
        stat_inc(cw->grpc_stats, (enum stat_any)(STAT_ID_CLUSTER_GRPC_STATUS_0 + n));
    }
}

static struct cluster_worker *cluster_new(struct upstream *u, struct str name, struct cluster_snap *cs)
{
    struct cluster_worker *cw = mem_new(struct cluster_worker);
    struct cluster_priv *p = mem_new(struct cluster_priv);
    cw->worker = u->worker;
    cw->name = str_n(str_dup(name), name.n);
    cw->snap = cluster_snap_ref(cs);
    cw->stats = scope_hold(cw, STAT_CLUSTER);
    more_stats(cw);
    cw->priv = p;
    p->cw = cw;
    if (cs->shared) {
        refs_get(&cs->shared->refs);
        p->shared = cs->shared;
    } else {
        p->shared = cluster_shared_new();
    }
    atomic_store_explicit(&p->shared->used, true, memory_order_relaxed);
    list_init(&p->link);
    list_init(&p->draining);
    list_init(&p->tcp);
    return cw;
}

static void cluster_free(struct cluster_worker *cw)
{
    struct cluster_priv *p = cluster_priv(cw);
    pool_http_free_all(cw);
    balancer_free(cw->lb);
    upstream_tls_peers_clean(cw, true);
    original_dst_clean(cw, true);
    stats_scope_release(cw->stats);
    stats_scope_release(cw->lb_stats);
    stats_scope_release(cw->outlier_stats);
    stats_scope_release(cw->grpc_stats);
    map_fini(&cw->pools);
    map_fini(&p->tls_peers);
    map_fini(&p->orig_hosts);
    cluster_shared_unref(p->shared);
    cluster_snap_unref(cw->snap);
    list_del(&p->link);
    free((void *)cw->name.p);
    free(p);
    free(cw);
}

static void forget_recent(struct upstream *u)
{
    memset(u->recent, 0, sizeof(u->recent));
}

static void cluster_die(struct upstream *u, struct cluster_worker *cw)
{
    forget_recent(u);
    struct cluster_priv *p = cluster_priv(cw);
    p->dead = true;
    p->dead_ms = loop_now_ms(u->worker->loop);
    list_add_tail(&u->dead, &p->link);
    pool_http_follow(cw);
}

static void sweep(struct timer *t)
{
    struct upstream *u = container_of(t, struct upstream, sweep);
    uint64_t now = loop_now_ms(u->worker->loop);
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&u->clusters, &i));) {
        struct cluster_worker *cw = e->val;
        upstream_tls_peers_clean(cw, false);
        original_dst_clean(cw, false);
    }
    list_for_safe(l, &u->dead)
    {
        struct cluster_priv *p = list_entry(l, struct cluster_priv, link);
        upstream_tls_peers_clean(p->cw, false);
        if (p->users == 0 && !pool_http_any(p->cw) && now - p->dead_ms >= DEAD_GRACE_MS) {
            cluster_free(p->cw);
        }
    }
    if (u->clusters.count || !list_empty(&u->dead)) {
        timer_set(u->worker->loop, t, SWEEP_MS);
    }
}

// Hosts fail and come back without a snapshot: host_health_epoch tells.
static void look_at_hosts(struct upstream *u)
{
    unsigned epoch = host_health_epoch();
    if (__builtin_expect(epoch == u->health_epoch, 1)) {
        return;
    }
    u->health_epoch = epoch;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&u->clusters, &i));) {
        struct cluster_worker *cw = e->val;
        if (cw->snap->cfg->type == CLUSTER_ORIGINAL_DST) {
            continue;
        }
        pool_http_check_hosts(cw);
        if (cw->snap->cfg->close_on_host_failure) {
            pool_tcp_check_hosts(cw);
        }
    }
}

static void turn_over(struct loop_hook *h)
{
    look_at_hosts(container_of(h, struct upstream, hook));
}

static void watch_over(struct timer *t)
{
    struct upstream *u = container_of(t, struct upstream, watch);
    look_at_hosts(u);
    timer_set(u->worker->loop, t, WATCH_MS);
}

static void watch_hosts(struct upstream *u, const struct cluster_cfg *cfg)
{
    if (cfg->close_on_host_failure && !timer_pending(&u->watch)) {
        timer_set(u->worker->loop, &u->watch, WATCH_MS);
    }
}

void upstream_worker_init(struct worker *w)
{
    struct upstream *u = mem_new(struct upstream);
    u->worker = w;
    list_init(&u->dead);
    timer_init(&u->sweep, sweep);
    timer_init(&u->watch, watch_over);
    u->health_epoch = host_health_epoch();
    u->hook.fn = turn_over;
    loop_add_hook(w->loop, &u->hook);
    w->slots[SLOT_UPSTREAM] = u;
}

void upstream_worker_fini(struct worker *w)
{
    struct upstream *u = upstream_of(w);
    timer_cancel(&u->sweep);
    timer_cancel(&u->watch);
    loop_del_hook(&u->hook);
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&u->clusters, &i));) {
        cluster_free(e->val);
    }
    map_fini(&u->clusters);
    while (!list_empty(&u->dead)) {
        cluster_free(list_entry(u->dead.next, struct cluster_priv, link)->cw);
    }
    free(u);
    w->slots[SLOT_UPSTREAM] = NULL;
}

void upstream_on_snapshot(struct worker *w, const struct snapshot *old)
{
    (void)old;
    struct upstream *u = upstream_of(w);
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&u->clusters, &i));) {
        struct cluster_worker *cw = e->val;
        struct cluster_snap *cs = snapshot_cluster(w->snap, cw->name);
        if (cs == cw->snap) {
            continue;
        }
        if (!cs) {
            map_del(&u->clusters, e->key);
            cluster_die(u, cw);
            continue;
        }
        bool other_hosts = cs->endpoints->generation != cw->snap->endpoints->generation;
        cluster_snap_unref(cw->snap);
        cw->snap = cluster_snap_ref(cs);
        more_stats(cw);
        pool_http_follow(cw);
        if (other_hosts && cs->cfg->close_on_set_change) {
            pool_http_drain(cw);
        }
        watch_hosts(u, cs->cfg);
    }
}

// What tells names apart stands in their middle as a rule: "outbound|9080|v1|reviews.default.svc.cluster.local".
static struct cluster_worker **recent_place(struct upstream *u, struct str name)
{
    uint64_t a = 0, b = 0;
    if (name.n >= 16) {
        memcpy(&a, name.p + name.n / 4, sizeof(a));
        memcpy(&b, name.p + name.n / 2, sizeof(b));
    } else if (name.n) {
        a = (unsigned char)name.p[0] | (uint64_t)(unsigned char)name.p[name.n - 1] << 8;
    }
    return &u->recent[((a ^ b << 7) + name.n) * 0x9e3779b97f4a7c15u >> 32 & (RECENT_CLUSTERS - 1)];
}

struct cluster_worker *upstream_cluster(struct worker *w, struct str name)
{
    struct upstream *u = upstream_of(w);
    struct cluster_worker **recent = recent_place(u, name), *cw = *recent;
    if (cw && str_eq(cw->name, name)) {
        return cw;
    }
    cw = map_get(&u->clusters, name);
    if (cw) {
        *recent = cw;
        return cw;
    }
    struct cluster_snap *cs = snapshot_cluster(w->snap, name);
    if (!cs) {
        return NULL;
    }
    cw = cluster_new(u, name, cs);
    map_put(&u->clusters, name, cw);
    watch_hosts(u, cs->cfg);
    if (!timer_pending(&u->sweep)) {
        timer_set(w->loop, &u->sweep, SWEEP_MS);
    }
    return cw;
}

// ---- picking ----

// Hosts of ORIGINAL_DST clusters have no metadata: the first match without conditions, else the default.
static const struct transport_cfg *transport_without_metadata(const struct cluster_cfg *cfg)
{
    for (size_t i = 0; i < cfg->transport_count; i++) {
        if (cfg->transports[i].match_count == 0) {
            return &cfg->transports[i];
        }
    }
    return &cfg->default_transport;
}

// The set's transport indexes were made against the cluster's configuration of the time; one that does not fit any more gives NULL, for a
// guess could mean plaintext.
static const struct transport_cfg *transport_of(const struct cluster_cfg *cfg, const struct endpoint *e)
{
    if (e->transport == UINT16_MAX) {
        return &cfg->default_transport;
    }
    return e->transport < cfg->transport_count ? &cfg->transports[e->transport] : NULL;
}

bool upstream_pick(struct cluster_worker *cw, const struct pick *p, struct picked *ret)
{
    struct host *h = NULL;
    const struct transport_cfg *t = NULL;
    uint32_t priority = 0;
    struct str metadata = { 0 };
    if (cw->snap->cfg->type == CLUSTER_ORIGINAL_DST) {
        h = original_dst_pick(cw, p);
        t = transport_without_metadata(cw->snap->cfg);
    } else {
        const struct endpoint *e = balancer_pick(cw, p);
        h = e ? e->host : NULL;
        priority = e ? e->priority : 0;
        metadata = e ? e->metadata : metadata;
        t = e ? transport_of(cw->snap->cfg, e) : NULL;
    }
    if (!h || !t) {
        stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_CX_NONE_HEALTHY);
        return false;
    }
    *ret = (struct picked){ .host = host_ref(h), .transport = t, .cs = cluster_snap_ref(cw->snap), .priority = priority,
                             .metadata = metadata };
    return true;
}

enum upstream_drop upstream_drop(struct cluster_worker *cw, struct str *ret_category)
{
    const struct endpoint_policy *p = &cw->snap->endpoints->policy;
    for (size_t i = 0; i < p->drop_count; i++) {
        if (rand_below(1000000) < p->drops[i].per_million) {
            stat_inc(cw->lb_stats, STAT_ID_CLUSTER_LB_DROP_OVERLOAD);
            if (ret_category) {
                *ret_category = p->drops[i].category;
            }
            return p->drops[i].per_million >= 1000000 ? DROP_ALL : DROP_SOME;
        }
    }
    return DROP_NONE;
}

void picked_release(struct picked *p)
{
    host_unref(p->host);
    cluster_snap_unref(p->cs);
    *p = (struct picked){ 0 };
}
