// SPDX-License-Identifier: Apache-2.0
// The sink of xds-client: resources → model objects → snapshots. What changed within one loop turn is published as one snapshot.
//
// Warming: a new cluster enters the snapshot when its endpoints are known (EDS answered, DNS resolved once) and its certificates are there; a
// new listener when its routes and certificates are there. Until then the former version serves. A resource that is waited for longer than
// the initial fetch time-out is no longer waited for: the cluster then has no endpoints, the listener answers without routes, TLS without its
// secret refuses (fail closed).
#include "proxy/config/config.h"

#include <stdlib.h>
#include <string.h>

#include "envoy/extensions/transport_sockets/tls/v3/secret.pb-c.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"
#include "proxy/config/secrets.h"
#include "proxy/listener/listener.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/discovery.h"

// A cluster by name: what serves, and what is on its way.
struct cluster_rec {
    struct config *c;
    struct str name;                // owned
    struct cluster_cfg *cfg;        // newest accepted; ref
    struct tls_slot **slots;        // of cfg, in its arena
    size_t slot_count;
    struct cluster_snap *active;    // in the snapshot; ref; NULL while warming for the first time
    struct endpoint_set *endpoints; // newest for cfg; ref; NULL = not known yet
    struct host_table *hosts;       // owned
    struct dns_cluster *dns;        // owned; DNS clusters
    struct cluster_shared *shared;  // ref
    uint64_t since_ms;              // warming since
    bool dirty;                     // cfg or endpoints differ from active
};

struct listener_rec {
    struct str name;               // owned
    struct listener_cfg *active;   // ref; NULL = none yet
    struct listener_cfg *warming;  // ref; NULL = none
    struct str *rds_names;         // of the newest, in its arena
    size_t rds_count;
    struct tls_slot **slots;
    size_t slot_count;
    uint64_t since_ms;
    bool is_static;
    bool bind_failed;
};

struct config {
    struct config_opts o;
    struct xds_client *xds;        // borrowed
    struct secret_store secrets;
    struct map clusters;           // name → struct cluster_rec *
    struct map listeners;          // name → struct listener_rec *
    struct map routes;             // name → struct route_table *; refs
    struct map eds_gave_up;        // service names whose first fetch timed out
    struct map rds_gave_up;
    struct snapshot *snap;         // published last; ref
    struct loop_task commit;
    struct timer warm_timer;       // re-check of what is waited for
    bool listeners_changed, clusters_changed, routes_changed;
    struct config_status status;
};

static void commit_task(struct loop_task *t);
static void warm_tick(struct timer *t);

static void schedule(struct config *c)
{
    loop_defer(c->o.loop, &c->commit);
}

struct config *config_new(const struct config_opts *o)
{
    struct config *c = mem_new(struct config);
    c->o = *o;
    c->o.initial_fetch_timeout_ms = o->initial_fetch_timeout_ms ? o->initial_fetch_timeout_ms : 15000;
    secret_store_init(&c->secrets);
    c->secrets.validate_only = o->validate_only;
    loop_task_init(&c->commit, commit_task);
    timer_init(&c->warm_timer, warm_tick);
    c->snap = snapshot_clone(NULL);
    c->snap->home = o->loop;
    return c;
}

static void cluster_rec_free(struct cluster_rec *r)
{
    if (r->dns) {
        dns_cluster_free(r->dns);
    }
    cluster_snap_unref(r->active);
    endpoint_set_unref(r->endpoints);
    cluster_cfg_unref(r->cfg);
    host_table_free(r->hosts);
    cluster_shared_unref(r->shared);
    free((char *)r->name.p);
    free(r);
}

static void listener_rec_free(struct listener_rec *r)
{
    listener_cfg_unref(r->active);
    listener_cfg_unref(r->warming);
    free((char *)r->name.p);
    free(r);
}

void config_free(struct config *c)
{
    struct map_entry *e;
    loop_task_cancel(&c->commit);
    timer_cancel(&c->warm_timer);
    for (size_t i = 0; (e = map_next(&c->clusters, &i));) {
        cluster_rec_free(e->val);
    }
    for (size_t i = 0; (e = map_next(&c->listeners, &i));) {
        listener_rec_free(e->val);
    }
    for (size_t i = 0; (e = map_next(&c->routes, &i));) {
        route_table_unref(e->val);
    }
    map_fini(&c->clusters);
    map_fini(&c->listeners);
    map_fini(&c->routes);
    map_fini(&c->eds_gave_up);
    map_fini(&c->rds_gave_up);
    snapshot_unref(c->snap);
    secret_store_fini(&c->secrets);
    free(c);
}

// ---- what is waited for ----

static bool waited_too_long(const struct config *c, uint64_t since_ms)
{
    return loop_now_ms(c->o.loop) - since_ms >= c->o.initial_fetch_timeout_ms;
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
    return (r->endpoints && slots_ready(r->slots, r->slot_count)) || waited_too_long(c, r->since_ms);
}

static bool listener_ready(const struct config *c, const struct listener_rec *r)
{
    if (waited_too_long(c, r->since_ms)) {
        return true;
    }
    for (size_t i = 0; i < r->rds_count; i++) {
        if (!map_get(&c->routes, r->rds_names[i]) && !map_get(&c->rds_gave_up, r->rds_names[i])) {
            return false;
        }
    }
    return slots_ready(r->slots, r->slot_count);
}

// ---- subscriptions that follow from resources ----

static void subscribe_set(struct config *c, enum xds_type t, struct map *names)
{
    struct str *v = mem_zalloc(sizeof(*v) * (names->count + 1));
    size_t n = 0;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(names, &i));) {
        v[n++] = e->key;
    }
    xds_subscribe(c->xds, t, v, n);
    free(v);
}

static void update_subscriptions(struct config *c, bool eds, bool rds, bool sds)
{
    struct map names = { 0 };
    struct map_entry *e;
    if (eds) {
        for (size_t i = 0; (e = map_next(&c->clusters, &i));) {
            struct cluster_rec *r = e->val;
            if (r->cfg->type == CLUSTER_EDS) {
                map_put(&names, r->cfg->eds_service_name, r);
            }
        }
        subscribe_set(c, XDS_ENDPOINT, &names);
        map_fini(&names);
        names = (struct map){ 0 };
    }
    if (rds) {
        for (size_t i = 0; (e = map_next(&c->listeners, &i));) {
            struct listener_rec *r = e->val;
            for (size_t k = 0; k < r->rds_count; k++) {
                map_put(&names, r->rds_names[k], r);
            }
        }
        subscribe_set(c, XDS_ROUTE, &names);
        // Tables nobody refers to any more leave with their subscription.
        for (size_t i = 0; (e = map_next(&c->routes, &i));) {
            if (!map_get(&names, e->key)) {
                struct route_table *t = map_del(&c->routes, e->key);
                route_table_unref(t);
                c->routes_changed = true;
            }
        }
        map_fini(&names);
    }
    if (sds && c->secrets.wanted_changed) {
        size_t n;
        struct str *v = secret_wanted(&c->secrets, &n);
        xds_subscribe(c->xds, XDS_SECRET, v, n);
        free(v);
        c->secrets.wanted_changed = false;
    }
}

// ---- clusters ----

static void cluster_set_endpoints(struct cluster_rec *r, struct endpoint_set *set)
{
    endpoint_set_unref(r->endpoints);
    r->endpoints = set;
    r->dirty = true;
    r->c->clusters_changed = true;
    schedule(r->c);
}

static void dns_changed(void *arg, struct endpoint_set *set)
{
    cluster_set_endpoints(arg, set);
}

// The assignment's endpoints for r, or NULL + err.
static struct endpoint_set *endpoints_from_cla(struct cluster_rec *r, struct str bytes, struct err *err)
{
    struct arena a = { 0 };
    Envoy__Config__Endpoint__V3__ClusterLoadAssignment *m = NULL;
    struct lb_endpoint_cfg *v;
    size_t n;
    struct endpoint_set *set = NULL;
    if (!pb_unpack_as(Envoy__Config__Endpoint__V3__ClusterLoadAssignment, envoy__config__endpoint__v3__cluster_load_assignment, bytes, &a, &m,
                      err) &&
        !build_endpoints(m, false, &a, &v, &n, err)) {
        set = endpoint_set_build(r->hosts, r->cfg, v, n);
    }
    arena_fini(&a);
    return set;
}

// Endpoints for a new configuration: at once where they are known.
static void cluster_find_endpoints(struct cluster_rec *r)
{
    struct config *c = r->c;
    if (r->dns) {
        dns_cluster_free(r->dns);
        r->dns = NULL;
    }
    endpoint_set_unref(r->endpoints);
    r->endpoints = NULL;
    const struct cluster_cfg *cfg = r->cfg;
    if (cfg->type == CLUSTER_EDS) {
        const struct xds_resource *res = xds_find(c->xds, XDS_ENDPOINT, cfg->eds_service_name);
        struct err err = { 0 };
        if (res) {
            r->endpoints = endpoints_from_cla(r, res->bytes, &err);
        } else if (map_get(&c->eds_gave_up, cfg->eds_service_name)) {
            r->endpoints = endpoint_set_build(r->hosts, cfg, NULL, 0);
        }
    } else if ((cfg->type == CLUSTER_STRICT_DNS || cfg->type == CLUSTER_LOGICAL_DNS) && !c->o.validate_only) {
        r->dns = dns_cluster_new(c->o.loop, c->o.dns, r->hosts, r->cfg, dns_changed, r);
    } else {
        r->endpoints = endpoint_set_build(r->hosts, cfg, cfg->endpoints, cfg->endpoint_count);
    }
}

static void cluster_remove(struct config *c, struct str name)
{
    struct cluster_rec *r = map_del(&c->clusters, name);
    if (r) {
        c->status.clusters_removed++;
        c->clusters_changed = true;
        cluster_rec_free(r);
    }
}

static int cluster_accept(struct config *c, struct xds_update_item *it, struct arena *scratch, struct err *err)
{
    struct config_ctx ctx = { .scratch = scratch, .secrets = &c->secrets, .ipv6 = c->o.ipv6 };
    struct cluster_cfg *cfg = NULL;
    if (build_cluster(&ctx, it->bytes, &cfg, err)) {
        return err->code;
    }
    cfg->is_static = it->is_static;
    cfg->added_via_api = !it->is_static;
    struct cluster_rec *r = map_get(&c->clusters, it->name);
    if (!r) {
        r = mem_new(struct cluster_rec);
        r->c = c;
        r->name = str_n(str_dup(it->name), it->name.n);
        r->hosts = host_table_new();
        r->shared = cluster_shared_new();
        map_put(&c->clusters, r->name, r);
        c->status.clusters_added++;
    } else {
        c->status.clusters_updated++;
    }
    cluster_cfg_unref(r->cfg);
    r->cfg = cfg;
    r->slots = ctx.slots;
    r->slot_count = ctx.slot_count;
    r->since_ms = loop_now_ms(c->o.loop);
    r->dirty = true;
    cluster_find_endpoints(r);
    c->clusters_changed = true;
    return 0;
}

static void refuse(struct xds_update *u, struct xds_update_item *it, const struct err *err)
{
    it->refused = arena_str(u->arena, str_c(err->msg));
    log_warn(LOGC_CONFIG, 0, "resource_refused", "type=%s name=%.*s reason=\"%s\"", xds_type_short(u->type), STR_FMT(it->name), err->msg);
}

static void sink_clusters(struct config *c, struct xds_update *u)
{
    for (size_t i = 0; i < u->count; i++) {
        struct xds_update_item *it = &u->items[i];
        struct arena scratch = { 0 };
        struct err err = { 0 };
        if (!it->bytes.p) {
            cluster_remove(c, it->name);
        } else if (cluster_accept(c, it, &scratch, &err)) {
            refuse(u, it, &err);
        }
        arena_fini(&scratch);
    }
    update_subscriptions(c, true, false, true);
}

static void sink_endpoints(struct config *c, struct xds_update *u)
{
    // service name → item; then one walk over the clusters
    struct map by_name = { 0 };
    for (size_t i = 0; i < u->count; i++) {
        map_put(&by_name, u->items[i].name, &u->items[i]);
    }
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->clusters, &i));) {
        struct cluster_rec *r = e->val;
        struct xds_update_item *it = r->cfg->type == CLUSTER_EDS ? map_get(&by_name, r->cfg->eds_service_name) : NULL;
        if (!it || it->refused.p) {
            continue;
        }
        struct err err = { 0 };
        struct endpoint_set *set =
            it->bytes.p ? endpoints_from_cla(r, it->bytes, &err) : endpoint_set_build(r->hosts, r->cfg, NULL, 0);
        if (set) {
            cluster_set_endpoints(r, set);
        } else {
            refuse(u, it, &err);
        }
    }
    map_fini(&by_name);
}

// ---- routes ----

static void sink_routes(struct config *c, struct xds_update *u)
{
    for (size_t i = 0; i < u->count; i++) {
        struct xds_update_item *it = &u->items[i];
        struct arena scratch = { 0 };
        struct err err = { 0 };
        struct config_ctx ctx = { .scratch = &scratch, .secrets = &c->secrets, .ipv6 = c->o.ipv6 };
        struct route_table *t = NULL;
        if (!it->bytes.p) {
            route_table_unref(map_del(&c->routes, it->name));
            c->routes_changed = true;
        } else if (build_route_table_bytes(&ctx, it->bytes, &t, &err)) {
            refuse(u, it, &err);
        } else {
            route_table_unref(map_put(&c->routes, it->name, t));
            c->routes_changed = true;
        }
        arena_fini(&scratch);
    }
}

// ---- listeners ----

static void listener_remove(struct config *c, struct str name)
{
    struct listener_rec *r = map_del(&c->listeners, name);
    if (r) {
        c->status.listeners_removed++;
        c->listeners_changed = true;
        listener_rec_free(r);
    }
}

static int listener_accept(struct config *c, struct xds_update_item *it, struct arena *scratch, struct err *err)
{
    struct config_ctx ctx = { .scratch = scratch, .secrets = &c->secrets, .ipv6 = c->o.ipv6 };
    struct listener_cfg *l = NULL;
    if (build_listener(&ctx, it->bytes, &l, err)) {
        return err->code;
    }
    l->is_static = it->is_static;
    struct err e = { 0 };
    if (l->bind_to_port && !c->o.validate_only && listener_check_bind(l, &e)) {
        cfg_fail(err, "address", "%.900s", e.msg);
        listener_cfg_unref(l);
        return err->code;
    }
    struct listener_rec *r = map_get(&c->listeners, it->name);
    if (!r) {
        r = mem_new(struct listener_rec);
        r->name = str_n(str_dup(it->name), it->name.n);
        map_put(&c->listeners, r->name, r);
        c->status.listeners_added++;
    } else {
        c->status.listeners_modified++;
    }
    listener_cfg_unref(r->warming);
    r->warming = l;
    r->rds_names = ctx.rds_names;
    r->rds_count = ctx.rds_count;
    r->slots = ctx.slots;
    r->slot_count = ctx.slot_count;
    r->is_static = it->is_static;
    r->since_ms = loop_now_ms(c->o.loop);
    return 0;
}

static void sink_listeners(struct config *c, struct xds_update *u)
{
    for (size_t i = 0; i < u->count; i++) {
        struct xds_update_item *it = &u->items[i];
        struct arena scratch = { 0 };
        struct err err = { 0 };
        if (!it->bytes.p) {
            listener_remove(c, it->name);
        } else if (listener_accept(c, it, &scratch, &err)) {
            refuse(u, it, &err);
        }
        arena_fini(&scratch);
    }
    update_subscriptions(c, false, true, true);
}

// ---- secrets ----

static int secret_accept(struct config *c, struct xds_update_item *it, struct arena *scratch, struct err *err)
{
    Envoy__Extensions__TransportSockets__Tls__V3__Secret *m = NULL;
    struct str none = str_n(NULL, 0), chain = none, key = none, ca = none, crl = none;
    if (pb_unpack_as(Envoy__Extensions__TransportSockets__Tls__V3__Secret, envoy__extensions__transport_sockets__tls__v3__secret, it->bytes,
                     scratch, &m, err)) {
        return err->code;
    }
    if (m->type_case == ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__SECRET__TYPE_TLS_CERTIFICATE) {
        if (build_data_source(m->tls_certificate->certificate_chain, scratch, &chain, err)) {
            return cfg_in(err, "tls_certificate.certificate_chain");
        }
        if (build_data_source(m->tls_certificate->private_key, scratch, &key, err)) {
            return cfg_in(err, "tls_certificate.private_key");
        }
    } else if (m->type_case == ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__SECRET__TYPE_VALIDATION_CONTEXT) {
        if (build_data_source(m->validation_context->trusted_ca, scratch, &ca, err)) {
            return cfg_in(err, "validation_context.trusted_ca");
        }
        if (build_data_source(m->validation_context->crl, scratch, &crl, err)) {
            return cfg_in(err, "validation_context.crl");
        }
    } else {
        return cfg_fail(err, "type", "only tls_certificate and validation_context are supported");
    }
    struct err e = { 0 };
    if (secret_put(&c->secrets, it->name, chain, key, ca, crl, it->version, it->is_static, &e)) {
        return cfg_fail(err, "type", "%.900s", e.msg);
    }
    return 0;
}

static void sink_secrets(struct config *c, struct xds_update *u)
{
    for (size_t i = 0; i < u->count; i++) {
        struct xds_update_item *it = &u->items[i];
        struct arena scratch = { 0 };
        struct err err = { 0 };
        if (!it->bytes.p) {
            secret_del(&c->secrets, it->name);
        } else if (secret_accept(c, it, &scratch, &err)) {
            refuse(u, it, &err);
        }
        arena_fini(&scratch);
    }
}

int config_set_secret(struct config *c, struct str name, struct str chain_pem, struct str key_pem, struct err *err)
{
    struct str none = str_n(NULL, 0);
    bool root = key_pem.n == 0;
    int rc = secret_put(&c->secrets, name, root ? none : chain_pem, key_pem, root ? chain_pem : none, none, none, false, err);
    schedule(c);
    return rc;
}

void config_each_secret(struct config *c, void (*fn)(void *arg, const struct config_secret *s), void *arg)
{
    struct map_entry **v = map_sorted(&c->secrets.secrets);
    for (size_t i = 0; i < c->secrets.secrets.count; i++) {
        const struct secret *x = v[i]->val;
        if (x->present) {
            struct config_secret s = { .name = x->name, .chain_pem = x->is_root ? x->ca : x->chain, .version = x->version,
                                       .is_root = x->is_root, .is_static = x->is_static, .updated_ms = x->updated_ms };
            fn(arg, &s);
        }
    }
    free(v);
}

// ---- sink and commit ----

void config_sink(void *arg, struct xds_update *u)
{
    struct config *c = arg;
    switch (u->type) {
    case XDS_CLUSTER:
        sink_clusters(c, u);
        break;
    case XDS_ENDPOINT:
        sink_endpoints(c, u);
        break;
    case XDS_LISTENER:
        sink_listeners(c, u);
        break;
    case XDS_ROUTE:
        sink_routes(c, u);
        break;
    case XDS_SECRET:
        sink_secrets(c, u);
        break;
    default:
        break; // name tables and proxy configuration are the sidecar's business
    }
    schedule(c);
}

static void missing(void *arg, enum xds_type t, struct str name)
{
    struct config *c = arg;
    log_warn(LOGC_CONFIG, 0, "first_fetch_timeout", "type=%s name=%.*s", xds_type_short(t), STR_FMT(name));
    if (t == XDS_ENDPOINT) {
        map_put(&c->eds_gave_up, name, c);
    } else if (t == XDS_ROUTE) {
        map_put(&c->rds_gave_up, name, c);
    }
    schedule(c);
}

void config_set_client(struct config *c, struct xds_client *x)
{
    c->xds = x;
    xds_on_missing(x, missing, c, c->o.initial_fetch_timeout_ms);
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
        c->clusters_changed = true;
    }
    return warming;
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
        r->warming = NULL;
        c->listeners_changed = true;
    }
    return warming;
}

static void apply_clusters(struct config *c, struct snapshot *s)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->snap->clusters, &i));) {
        if (!map_get(&c->clusters, e->key)) {
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
        if (snapshot_route(c->snap, e->key) != e->val) {
            snapshot_put_route(s, e->val);
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

static void commit_task(struct loop_task *t)
{
    struct config *c = container_of(t, struct config, commit);
    c->status.clusters_warming = promote_clusters(c);
    // Make before break: while clusters are on their way, listeners that came with them wait too.
    c->status.listeners_warming = promote_listeners(c);
    c->status.clusters_active = c->clusters.count - c->status.clusters_warming;
    if (c->status.clusters_warming + c->status.listeners_warming) {
        timer_set(c->o.loop, &c->warm_timer, 250);
    }
    if (!c->clusters_changed && !c->routes_changed && !c->listeners_changed && !c->secrets.changed) {
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
    secret_store_gc(&c->secrets);
}

static void warm_tick(struct timer *t)
{
    struct config *c = container_of(t, struct config, warm_timer);
    schedule(c);
}

void config_status(const struct config *c, struct config_status *ret)
{
    *ret = c->status;
}

bool config_cluster_warming(const struct config *c, struct str name)
{
    const struct cluster_rec *r = map_get(&c->clusters, name);
    return r && r->dirty;
}

bool config_listener_warming(const struct config *c, struct str name)
{
    const struct listener_rec *r = map_get(&c->listeners, name);
    return r && r->warming;
}

struct snapshot *config_snapshot(const struct config *c)
{
    return c->snap;
}
