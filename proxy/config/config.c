// SPDX-License-Identifier: Apache-2.0
// The sink of xds-client: resources → model objects → snapshots. What changed within one loop turn is published as one snapshot.
//
// Warming: a new cluster enters the snapshot when its endpoints are known (EDS answered, DNS resolved once) and its certificates are there; a
// new listener when its routes and certificates are there. Until then the former version serves. A resource that is waited for longer than
// the initial fetch time-out is no longer waited for: the cluster then has no endpoints, the listener answers without routes, TLS without its
// secret refuses (fail closed).
//
// Make before break: routes and listeners that name a new cluster wait for it; a cluster that is removed, and the routes of a listener that is
// gone, stay for a moment, since what refers to them changes in another response, and connections of the old listener are still being drained.
#include "proxy/config/config.h"

#include <stdlib.h>
#include <string.h>

#include "envoy/extensions/transport_sockets/tls/v3/secret.pb-c.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"
#include "proxy/config/config_int.h"
#include "proxy/listener/listener.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/discovery.h"
#include "proxy/upstream/monitor.h"

enum { CLUSTER_LINGER_MS = 2000 }; // a removed cluster: routes that no longer name it come in a later response

static void warm_tick(struct timer *t);

void config_schedule(struct config *c)
{
    if (!c->stopped) {
        loop_defer(c->o.loop, &c->commit);
    }
}

struct config *config_new(const struct config_opts *o)
{
    struct config *c = mem_new(struct config);
    c->o = *o;
    c->o.initial_fetch_timeout_ms = o->initial_fetch_timeout_ms ? o->initial_fetch_timeout_ms : 15000;
    secret_store_init(&c->secrets);
    c->secrets.validate_only = o->validate_only;
    loop_task_init(&c->commit, config_commit);
    timer_init(&c->warm_timer, warm_tick);
    c->snap = snapshot_clone(NULL);
    c->snap->home = o->loop;
    if (o->stats) {
        stats_on_collect(o->stats, config_collect_gauges, c);
    }
    return c;
}

void config_route_free(struct route_rec *r)
{
    route_table_unref(r->active);
    route_table_unref(r->next);
    free((char *)r->name.p);
    free(r);
}

static void cluster_rec_free(struct cluster_rec *r)
{
    if (r->dns) {
        dns_cluster_free(r->dns);
    }
    cluster_monitor_free(r->monitor);
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

void config_stop(struct config *c)
{
    c->stopped = true;
    if (c->o.stats) {
        stats_on_collect(c->o.stats, NULL, NULL);
    }
    loop_task_cancel(&c->commit);
    timer_cancel(&c->warm_timer);
}

void config_free(struct config *c)
{
    struct map_entry *e;
    config_stop(c);
    for (size_t i = 0; (e = map_next(&c->clusters, &i));) {
        cluster_rec_free(e->val);
    }
    for (size_t i = 0; (e = map_next(&c->listeners, &i));) {
        listener_rec_free(e->val);
    }
    for (size_t i = 0; (e = map_next(&c->routes, &i));) {
        config_route_free(e->val);
    }
    map_fini(&c->clusters);
    map_fini(&c->listeners);
    map_fini(&c->routes);
    map_fini(&c->leaving);
    map_fini(&c->missed);
    map_fini(&c->sources);
    map_fini(&c->eds_gave_up);
    map_fini(&c->rds_gave_up);
    snapshot_unref(c->snap);
    secret_store_fini(&c->secrets);
    free(c);
}

// ---- clusters ----

// A set from discovery, or NULL (not known yet); takes the reference.
static void cluster_take_endpoints(struct cluster_rec *r, struct endpoint_set *set)
{
    if (set && r->monitor) {
        set = cluster_monitor_set(r->monitor, set);
    }
    endpoint_set_unref(r->endpoints);
    r->endpoints = set;
}

static void cluster_is_dirty(struct cluster_rec *r)
{
    r->dirty = true;
    r->c->clusters_changed = true;
    config_schedule(r->c);
}

static void cluster_set_endpoints(struct cluster_rec *r, struct endpoint_set *set)
{
    cluster_take_endpoints(r, set);
    cluster_is_dirty(r);
}

static void dns_changed(void *arg, struct endpoint_set *set)
{
    cluster_set_endpoints(arg, set);
}

// ---- what watches their hosts ----

static void monitor_changed(void *arg, struct endpoint_set *set)
{
    struct cluster_rec *r = arg;
    endpoint_set_unref(r->endpoints);
    r->endpoints = set;
    cluster_is_dirty(r);
}

static void monitor_ready(void *arg)
{
    config_schedule(((struct cluster_rec *)arg)->c);
}

// r->cfg is new. Endpoints follow.
static void cluster_watch(struct cluster_rec *r)
{
    struct config *c = r->c;
    if (!r->monitor && cluster_monitor_needed(r->cfg) && !c->o.validate_only && c->o.stats) {
        const struct monitor_opts o = { .loop = c->o.loop, .stats = stats_shard_control(c->o.stats), .shared = r->shared,
                                        .changed = monitor_changed, .ready = monitor_ready, .arg = r };
        r->monitor = cluster_monitor_new(&o);
    }
    if (r->monitor) {
        cluster_monitor_use(r->monitor, r->cfg);
    }
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
        struct endpoint_policy policy;
        if (!build_endpoint_policy(m, &a, &policy, err)) {
            set = endpoint_set_build(r->hosts, r->cfg, v, n);
            endpoint_set_policy(set, &policy);
        }
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
    cluster_watch(r);
    cluster_take_endpoints(r, NULL);
    const struct cluster_cfg *cfg = r->cfg;
    if (cfg->type == CLUSTER_EDS) {
        const struct xds_resource *res = xds_find(c->xds, XDS_ENDPOINT, cfg->eds_service_name);
        struct err err = { 0 };
        if (res) {
            cluster_take_endpoints(r, endpoints_from_cla(r, res->bytes, &err));
        } else if (map_get(&c->eds_gave_up, cfg->eds_service_name)) {
            cluster_take_endpoints(r, endpoint_set_build(r->hosts, cfg, NULL, 0));
        }
    } else if ((cfg->type == CLUSTER_STRICT_DNS || cfg->type == CLUSTER_LOGICAL_DNS) && !c->o.validate_only) {
        r->dns = dns_cluster_new(c->o.loop, c->o.dns, r->hosts, r->cfg, dns_changed, r);
        if (c->o.stats) {
            dns_cluster_count(r->dns, stats_shard_control(c->o.stats));
        }
    } else {
        cluster_take_endpoints(r, endpoint_set_build(r->hosts, cfg, cfg->endpoints, cfg->endpoint_count));
    }
}

// A point in time as the value of a map; never NULL.
static void *moment(const struct config *c, uint64_t from_now_ms)
{
    return (void *)(uintptr_t)(loop_now_ms(c->o.loop) + from_now_ms);
}

static void cluster_remove(struct config *c, struct str name)
{
    struct cluster_rec *r = map_del(&c->clusters, name);
    if (r) {
        c->status.clusters_removed++;
        c->clusters_changed = true;
        map_put(r->active ? &c->leaving : &c->missed, name, moment(c, CLUSTER_LINGER_MS));
        cluster_rec_free(r);
    }
}

static int cluster_accept(struct config *c, struct xds_update_item *it, struct arena *scratch, struct err *err)
{
    struct config_ctx ctx = config_build_ctx(c, scratch);
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
    config_subscribe_endpoints(c);
    config_subscribe_secrets(c);
}

static void sink_endpoints(struct config *c, struct xds_update *u)
{
    // service name → item; then one walk over the clusters
    struct map by_name = { 0 };
    for (size_t i = 0; i < u->count; i++) {
        map_put(&by_name, u->items[i].name, &u->items[i]);
        if (u->items[i].bytes.p) {
            map_del(&c->eds_gave_up, u->items[i].name);
        } else {
            map_put(&c->eds_gave_up, u->items[i].name, c);
        }
    }
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->clusters, &i));) {
        struct cluster_rec *r = e->val;
        struct xds_update_item *it = r->cfg->type == CLUSTER_EDS ? map_get(&by_name, r->cfg->eds_service_name) : NULL;
        if (!it || it->refused.p) {
            continue;
        }
        if (!it->bytes.p && r->endpoints) {
            continue; // as Envoy: the endpoints go with their cluster, or when an assignment without any comes
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

int config_route_accept(struct config *c, struct str name, struct str bytes, struct err *err)
{
    struct arena scratch = { 0 };
    struct config_ctx ctx = config_build_ctx(c, &scratch);
    struct route_table *t = NULL;
    int rc = build_route_table_bytes(&ctx, bytes, &t, err);
    arena_fini(&scratch);
    if (rc) {
        return rc;
    }
    struct route_rec *r = map_get(&c->routes, name);
    if (!r) {
        r = mem_new(struct route_rec);
        r->name = str_n(str_dup(name), name.n);
        map_put(&c->routes, r->name, r);
    }
    route_table_unref(r->next);
    r->next = t;
    map_del(&c->rds_gave_up, name);
    return 0;
}

static void sink_routes(struct config *c, struct xds_update *u)
{
    for (size_t i = 0; i < u->count; i++) {
        struct xds_update_item *it = &u->items[i];
        struct err err = { 0 };
        if (!it->bytes.p) {
            // As Envoy: routes stay as long as a listener names them. Not there from the start: nothing to wait for.
            map_put(&c->rds_gave_up, it->name, c);
        } else if (config_route_accept(c, it->name, it->bytes, &err)) {
            refuse(u, it, &err);
        }
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

static bool same_address(const struct listener_cfg *a, const struct listener_cfg *b, struct addr *ret)
{
    for (size_t i = 0; a && i < a->address_count; i++) {
        for (size_t k = 0; k < b->address_count; k++) {
            // Port 0 is a different one each time.
            if (addr_eq(&a->addresses[i], &b->addresses[k]) && (a->addresses[i].port || a->addresses[i].family == AF_UNIX)) {
                *ret = a->addresses[i];
                return true;
            }
        }
    }
    return false;
}

// Two listeners on one address would share its connections at random: the sockets are bound with SO_REUSEPORT.
static int listener_check_address(const struct config *c, struct str name, const struct listener_cfg *l, struct err *err)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->listeners, &i));) {
        const struct listener_rec *r = e->val;
        const struct listener_cfg *newest = r->warming ? r->warming : r->active;
        struct addr a;
        char text[ADDR_TEXT_MAX];
        if (!str_eq(r->name, name) && newest && newest->bind_to_port == l->bind_to_port && same_address(newest, l, &a)) {
            return cfg_fail(err, "address", "%s is the address of listener \"%.*s\"", addr_text(&a, text), STR_FMT(r->name));
        }
    }
    return 0;
}

// Tries to bind what this process does not serve yet. A second socket on an address of ours would take its share of the new connections with it
// when it is closed.
static int listener_check_new_address(const struct config *c, struct str name, const struct listener_cfg *l, struct err *err)
{
    const struct listener_rec *r = map_get(&c->listeners, name);
    struct addr a;
    struct err e = { 0 };
    bool ours = r && r->active && r->active->bind_to_port && same_address(r->active, l, &a);
    if (!l->bind_to_port || c->o.validate_only || ours || !listener_check_bind(l, &e)) {
        return 0;
    }
    return cfg_fail(err, "address", "%.900s", e.msg);
}

static int listener_accept(struct config *c, struct xds_update_item *it, struct arena *scratch, struct err *err)
{
    struct config_ctx ctx = config_build_ctx(c, scratch);
    struct listener_cfg *l = NULL;
    struct listener_rec *r = map_get(&c->listeners, it->name);
    ctx.former = r && r->active ? r->active : r ? r->warming : NULL;
    if (build_listener(&ctx, it->bytes, &l, err)) {
        return err->code;
    }
    l->is_static = it->is_static;
    if (!l->name.n) { // a static one without a name: the bootstrap gave it one
        l->name = arena_str(&l->arena, it->name);
    }
    if (listener_check_address(c, it->name, l, err) || listener_check_new_address(c, it->name, l, err)) {
        listener_cfg_unref(l);
        return err->code;
    }
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
    r->warming_refs = (struct listener_refs){ .rds = ctx.rds_names, .rds_count = ctx.rds_count, .clusters = ctx.cluster_names,
                                              .cluster_count = ctx.cluster_count, .slots = ctx.slots, .slot_count = ctx.slot_count };
    r->since_ms = loop_now_ms(c->o.loop);
    return 0;
}

static void sink_listeners(struct config *c, struct xds_update *u)
{
    // What goes first: an address may pass from one listener to another in one response.
    for (size_t i = 0; i < u->count; i++) {
        if (!u->items[i].bytes.p) {
            listener_remove(c, u->items[i].name);
        }
    }
    for (size_t i = 0; i < u->count; i++) {
        struct xds_update_item *it = &u->items[i];
        struct arena scratch = { 0 };
        struct err err = { 0 };
        if (it->bytes.p && listener_accept(c, it, &scratch, &err)) {
            refuse(u, it, &err);
        }
        arena_fini(&scratch);
    }
    config_subscribe_routes(c);
    config_subscribe_secrets(c);
}

// ---- secrets ----

int config_secret_accept(struct config *c, const struct xds_update_item *it, struct arena *scratch, struct err *err)
{
    Envoy__Extensions__TransportSockets__Tls__V3__Secret *m = NULL;
    struct str none = str_n(NULL, 0), chain = none, key = none, ca = none, crl = none;
    if (pb_unpack_as(Envoy__Extensions__TransportSockets__Tls__V3__Secret, envoy__extensions__transport_sockets__tls__v3__secret, it->bytes,
                     scratch, &m, err) ||
        pb_whole(&m->base, NULL, NULL, err)) {
        return err->code;
    }
    if (m->type_case == ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__SECRET__TYPE_TLS_CERTIFICATE) {
        if (CFG_KNOWN(m->tls_certificate, err, "certificate_chain", "private_key")) {
            return cfg_in(err, "tls_certificate");
        }
        if (build_data_source(m->tls_certificate->certificate_chain, scratch, &chain, err)) {
            return cfg_in(err, "tls_certificate.certificate_chain");
        }
        if (build_data_source(m->tls_certificate->private_key, scratch, &key, err)) {
            return cfg_in(err, "tls_certificate.private_key");
        }
        if (!chain.n || !key.n) {
            return cfg_fail(err, chain.n ? "tls_certificate.private_key" : "tls_certificate.certificate_chain", "missing");
        }
    } else if (m->type_case == ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__SECRET__TYPE_VALIDATION_CONTEXT) {
        if (CFG_KNOWN(m->validation_context, err, "trusted_ca", "crl")) {
            return cfg_in(err, "validation_context");
        }
        if (build_data_source(m->validation_context->trusted_ca, scratch, &ca, err)) {
            return cfg_in(err, "validation_context.trusted_ca");
        }
        if (build_data_source(m->validation_context->crl, scratch, &crl, err)) {
            return cfg_in(err, "validation_context.crl");
        }
        if (!ca.n) {
            return cfg_fail(err, "validation_context.trusted_ca", "missing");
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
        } else if (config_secret_accept(c, it, &scratch, &err)) {
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
    config_schedule(c);
    return rc;
}

void config_each_secret(struct config *c, void (*fn)(void *arg, const struct config_secret *s), void *arg)
{
    struct map_entry **v = map_sorted(&c->secrets.secrets);
    for (size_t i = 0; i < c->secrets.secrets.count; i++) {
        const struct secret *x = v[i]->val;
        struct config_secret s = { .name = x->name, .chain_pem = x->is_root ? x->ca : x->chain, .version = x->version,
                                   .is_root = x->is_root, .is_static = x->is_static, .warming = !x->present, .updated_ms = x->updated_ms };
        fn(arg, &s);
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
    config_schedule(c);
}

static void missing(void *arg, enum xds_type t, struct str name)
{
    struct config *c = arg;
    if (loop_now_ms(c->o.loop) - config_online_since(c) < c->o.initial_fetch_timeout_ms) {
        return; // the stream is down, or has not been up for long: commit.c counts that time by itself
    }
    log_warn(LOGC_CONFIG, 0, "first_fetch_timeout", "type=%s name=%.*s", xds_type_short(t), STR_FMT(name));
    if (t == XDS_ENDPOINT) {
        map_put(&c->eds_gave_up, name, c);
    } else if (t == XDS_ROUTE) {
        map_put(&c->rds_gave_up, name, c);
    }
    config_schedule(c);
}

void config_set_client(struct config *c, struct xds_client *x)
{
    c->xds = x;
    xds_on_missing(x, missing, c, c->o.initial_fetch_timeout_ms);
}

static void warm_tick(struct timer *t)
{
    struct config *c = container_of(t, struct config, warm_timer);
    config_schedule(c);
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
