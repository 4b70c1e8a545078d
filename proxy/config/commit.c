// SPDX-License-Identifier: Apache-2.0
// What is ready, what lingers, and the snapshot that comes of it.
#include <stdlib.h>

#include "lib/base/mem.h"
#include "proxy/config/config_int.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/discovery.h"
#include "proxy/upstream/monitor.h"

enum {
    WARM_TICK_MS = 250,
    OFFLINE_LINGER_MS = 5000,      // what was removed before the stream broke stays so long after it is back: what goes with it comes again
    ROUTE_LINGER_MS = 10000,       // routes of a listener that is gone: twice http_connection_manager's drain_timeout default
};

// ---- what is waited for ----

uint64_t config_online_since(const struct config *c)
{
    struct xds_ads_status st;
    xds_ads_state(c->xds, &st);
    uint64_t now = loop_now_ms(c->o.loop);
    if (!st.connects) {
        return 0;
    }
    return st.connected ? st.connected_since_ms : now;
}

static bool waited_too_long(const struct config *c, uint64_t since_ms)
{
    uint64_t online = config_online_since(c);
    return loop_now_ms(c->o.loop) - (since_ms > online ? since_ms : online) >= c->o.initial_fetch_timeout_ms;
}

static bool slots_ready(struct tls_slot *const *slots, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!atomic_load_explicit(&slots[i]->ctx, memory_order_acquire)) {
            return false;
        }
    }
    return true;
}

static bool cluster_ready(const struct config *c, const struct cluster_rec *r)
{
    bool known = r->endpoints && slots_ready(r->slots, r->slot_count);
    // New hosts of a cluster that serves already join it as their checks succeed.
    return (known && (r->active || !r->monitor || cluster_monitor_ready(r->monitor))) || waited_too_long(c, r->since_ms);
}

// Whether a cluster of this name is on its way for the first time, or was until a moment ago (routes without it will follow). One that nobody
// announced is not waited for.
static bool cluster_coming(const struct config *c, struct str name)
{
    const struct cluster_rec *r = name.n ? map_get(&c->clusters, name) : NULL;
    return r ? !r->active && !map_get(&c->leaving, name) : name.n && map_get(&c->missed, name);
}

// Whether one of the table's routes goes to a cluster for which fits says yes.
static bool any_cluster(const struct route_table *t, bool (*fits)(const struct config *c, struct str name), const struct config *c)
{
    for (size_t i = 0; i < t->vhost_count; i++) {
        for (size_t k = 0; k < t->vhosts[i].route_count; k++) {
            const struct route *r = &t->vhosts[i].routes[k];
            bool found = fits(c, r->cluster);
            for (size_t w = 0; w < r->weighted_count && !found; w++) {
                found = fits(c, r->weighted[w].name);
            }
            if (found) {
                return true;
            }
        }
    }
    return false;
}

static bool cluster_leaving(const struct config *c, struct str name)
{
    return name.n && map_get(&c->leaving, name);
}

static bool listener_ready(const struct config *c, const struct listener_rec *r)
{
    const struct listener_refs *f = &r->warming_refs;
    if (waited_too_long(c, r->since_ms)) {
        return true;
    }
    for (size_t i = 0; i < f->rds_count; i++) {
        const struct route_rec *t = map_get(&c->routes, f->rds[i]);
        if (!(t && t->active && !t->stale) && !map_get(&c->rds_gave_up, f->rds[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < f->cluster_count; i++) {
        if (cluster_coming(c, f->clusters[i])) {
            return false;
        }
    }
    return slots_ready(f->slots, f->slot_count);
}

static void free_shared(struct cluster_shared *s)
{
    cluster_shared_unref(s);
}

// Moves ready clusters into `active`. Returns how many are still warming.
static size_t promote_clusters(struct config *c)
{
    size_t warming = 0;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->clusters, &i));) {
        struct cluster_rec *r = e->val;
        if (!r->dirty) {
            continue;
        }
        if (!cluster_ready(c, r)) {
            warming++;
            continue;
        }
        if (!r->endpoints) {
            r->endpoints = endpoint_set_build(r->hosts, r->cfg, NULL, 0);
        }
        struct cluster_snap *s = mem_new(struct cluster_snap);
        refs_init(&s->refs);
        s->cfg = cluster_cfg_ref(r->cfg);
        s->endpoints = endpoint_set_ref(r->endpoints);
        refs_get(&r->shared->refs);
        s->shared = r->shared;
        s->shared_unref = free_shared;
        cluster_snap_unref(r->active);
        r->active = s;
        r->dirty = false;
        map_del(&c->leaving, r->name);
        map_del(&c->missed, r->name);
        c->clusters_changed = true;
    }
    return warming;
}

static size_t promote_routes(struct config *c)
{
    size_t waiting = 0;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->routes, &i));) {
        struct route_rec *r = e->val;
        if (r->next && !any_cluster(r->next, cluster_coming, c)) {
            route_table_unref(r->active);
            r->active = r->next;
            r->next = NULL;
            r->stale = false;
            c->routes_changed = true;
        }
        waiting += r->next != NULL;
    }
    return waiting;
}

// Routes that still name clusters which are leaving, while their successors wait for new ones.
static bool in_transition(const struct config *c)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->routes, &i));) {
        const struct route_rec *r = e->val;
        if (r->next && r->active && any_cluster(r->active, cluster_leaving, c)) {
            return true;
        }
    }
    return false;
}

static size_t expire_clusters(struct config *c, struct map *m, uint64_t now)
{
    size_t left = 0;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(m, &i));) {
        if ((uint64_t)(uintptr_t)e->val <= now) {
            map_del(m, e->key);
            c->clusters_changed = true;
        } else {
            left++;
        }
    }
    return left;
}

// What was removed some time ago leaves the snapshot now. Returns how much is still lingering.
static size_t expire(struct config *c)
{
    uint64_t now = loop_now_ms(c->o.loop);
    size_t left = c->missed.count + c->leaving.count;
    struct map_entry *e;
    if (left && now - config_online_since(c) >= OFFLINE_LINGER_MS) {
        // A new cluster takes the initial fetch time-out at most; so long the old ones may have to stay.
        uint64_t patience = c->leaving.count && in_transition(c) ? c->o.initial_fetch_timeout_ms : 0;
        left = expire_clusters(c, &c->missed, now) + expire_clusters(c, &c->leaving, now > patience ? now - patience : 0);
    }
    for (size_t i = 0; (e = map_next(&c->routes, &i));) {
        struct route_rec *r = e->val;
        if (r->unused_since_ms && (!r->active || now - r->unused_since_ms >= ROUTE_LINGER_MS)) {
            map_del(&c->routes, r->name);
            config_route_free(r);
            c->routes_changed = true;
        } else {
            left += r->unused_since_ms != 0;
        }
    }
    return left;
}

static size_t promote_listeners(struct config *c)
{
    size_t warming = 0;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->listeners, &i));) {
        struct listener_rec *r = e->val;
        if (!r->warming) {
            continue;
        }
        if (!listener_ready(c, r)) {
            warming++;
            continue;
        }
        listener_cfg_unref(r->active);
        r->active = r->warming;
        r->active_refs = r->warming_refs;
        r->warming = NULL;
        c->listeners_changed = true;
    }
    if (c->listeners_changed) {
        config_subscribe_routes(c); // names that only the former versions had
    }
    return warming;
}

static void apply_clusters(struct config *c, struct snapshot *s)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->snap->clusters, &i));) {
        if (!map_get(&c->clusters, e->key) && !map_get(&c->leaving, e->key)) {
            const struct cluster_cfg *cfg = ((struct cluster_snap *)e->val)->cfg;
            for (int scope = STAT_CLUSTER; scope <= STAT_CLUSTER_GRPC; scope++) {
                stats_scope_drop(c->o.stats, (enum stat_scope)scope, cfg->stat_name);
            }
            struct arena scratch = { 0 };
            stats_scope_drop(c->o.stats, STAT_CLUSTER_AUTHZ, arena_printf(&scratch, "%.*s.ext_authz", STR_FMT(cfg->stat_name)));
            arena_fini(&scratch);
            snapshot_del_cluster(s, e->key);
        }
    }
    for (size_t i = 0; (e = map_next(&c->clusters, &i));) {
        struct cluster_rec *r = e->val;
        if (r->active && snapshot_cluster(c->snap, r->name) != r->active) {
            snapshot_put_cluster(s, r->active);
        }
    }
}

static void apply_routes(struct config *c, struct snapshot *s)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->snap->routes, &i));) {
        if (!map_get(&c->routes, e->key)) {
            snapshot_del_route(s, e->key);
        }
    }
    for (size_t i = 0; (e = map_next(&c->routes, &i));) {
        struct route_rec *r = e->val;
        if (r->active && snapshot_route(c->snap, r->name) != r->active) {
            snapshot_put_route(s, r->active);
        }
    }
}

static void apply_listeners(struct config *c, struct snapshot *s)
{
    struct listener_cfg **v = mem_zalloc(sizeof(*v) * (c->listeners.count + 1));
    struct map_entry **sorted = map_sorted(&c->listeners);
    size_t n = 0;
    for (size_t i = 0; i < c->listeners.count; i++) {
        struct listener_rec *r = sorted[i]->val;
        if (r->active) {
            v[n++] = r->active;
        }
    }
    snapshot_set_listeners(s, v, n);
    c->status.listeners_active = n;
    free(sorted);
    free(v);
}

static void collect_secrets(struct config *c)
{
    secret_store_gc(&c->secrets);
    config_subscribe_secrets(c);
    if (c->secrets.changed) {
        config_schedule(c);
    }
}

void config_commit(struct loop_task *t)
{
    struct config *c = container_of(t, struct config, commit);
    size_t unfinished = expire(c);
    c->status.clusters_warming = promote_clusters(c);
    unfinished += promote_routes(c);
    c->status.listeners_warming = promote_listeners(c);
    c->status.clusters_active = c->clusters.count - c->status.clusters_warming;
    if (unfinished + c->status.clusters_warming + c->status.listeners_warming) {
        timer_set(c->o.loop, &c->warm_timer, WARM_TICK_MS);
    }
    if (!c->clusters_changed && !c->routes_changed && !c->listeners_changed && !c->secrets.changed) {
        collect_secrets(c);
        return;
    }
    struct snapshot *s = snapshot_clone(c->snap);
    s->home = c->o.loop;
    if (c->clusters_changed) {
        apply_clusters(c, s);
    }
    if (c->routes_changed) {
        apply_routes(c, s);
    }
    if (c->listeners_changed) {
        apply_listeners(c, s);
    }
    c->clusters_changed = c->routes_changed = c->listeners_changed = c->secrets.changed = false;
    // What this snapshot replaces dies with the one before it, when no worker uses that any more.
    secret_take_garbage(&c->secrets, &c->snap->garbage);
    struct snapshot *old = c->snap;
    c->snap = s;
    c->status.snapshot_version = s->version;
    c->o.publish(c->o.arg, snapshot_ref(s));
    snapshot_unref(old);
    collect_secrets(c);
}
