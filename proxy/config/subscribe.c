// SPDX-License-Identifier: Apache-2.0
// What to ask the xds-client for: names that resources refer to, and files that their config sources name.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/mem.h"
#include "proxy/config/build.h"
#include "proxy/config/config_int.h"

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

static void forget_gone(struct map *m, const struct map *names)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(m, &i));) {
        if (!map_get(names, e->key)) {
            map_del(m, e->key);
        }
    }
}

void config_subscribe_endpoints(struct config *c)
{
    struct map names = { 0 };
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->clusters, &i));) {
        struct cluster_rec *r = e->val;
        if (r->cfg->type == CLUSTER_EDS) {
            map_put(&names, r->cfg->eds_service_name, r);
        }
    }
    subscribe_set(c, XDS_ENDPOINT, &names);
    forget_gone(&c->eds_gave_up, &names);
    map_fini(&names);
}

// A name that left and came back within one turn is not shown again: the client has it still.
static void route_find(struct config *c, struct str name)
{
    struct route_rec *r = map_get(&c->routes, name);
    if (r && !r->unused_since_ms) {
        return;
    }
    if (r) {
        r->unused_since_ms = 0;
        r->stale = true;
    }
    const struct xds_resource *known = xds_find(c->xds, XDS_ROUTE, name);
    struct err err = { 0 };
    if (known && known->bytes.p) {
        (void)config_route_accept(c, name, known->bytes, &err); // was accepted before
    }
}

static void collect_routes(struct config *c, struct map *names)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&c->listeners, &i));) {
        struct listener_rec *r = e->val;
        const struct listener_refs *both[] = { r->active ? &r->active_refs : NULL, r->warming ? &r->warming_refs : NULL };
        for (int k = 0; k < 2; k++) {
            for (size_t n = 0; both[k] && n < both[k]->rds_count; n++) {
                map_put(names, both[k]->rds[n], r);
            }
        }
    }
}

void config_subscribe_routes(struct config *c)
{
    struct map names = { 0 };
    struct map_entry *e;
    collect_routes(c, &names);
    subscribe_set(c, XDS_ROUTE, &names);
    forget_gone(&c->rds_gave_up, &names);
    for (size_t i = 0; (e = map_next(&c->routes, &i));) {
        struct route_rec *r = e->val;
        if (!map_get(&names, r->name) && !r->unused_since_ms) {
            r->unused_since_ms = loop_now_ms(c->o.loop) + (loop_now_ms(c->o.loop) == 0);
        }
    }
    for (size_t i = 0; (e = map_next(&names, &i));) {
        route_find(c, e->key);
    }
    map_fini(&names);
}

// As route_find.
static void secret_find_known(struct config *c, struct str name)
{
    const struct secret *x = map_get(&c->secrets.secrets, name);
    const struct xds_resource *known = x && !x->present ? xds_find(c->xds, XDS_SECRET, name) : NULL;
    if (known && known->bytes.p) {
        struct arena scratch = { 0 };
        struct err err = { 0 };
        struct xds_update_item it = { .name = known->name, .bytes = known->bytes, .version = known->version, .is_static = known->is_static };
        (void)config_secret_accept(c, &it, &scratch, &err);
        arena_fini(&scratch);
    }
}

void config_subscribe_secrets(struct config *c)
{
    if (!c->secrets.wanted_changed) {
        return;
    }
    size_t n;
    struct str *v = secret_wanted(&c->secrets, &n);
    xds_subscribe(c->xds, XDS_SECRET, v, n);
    c->secrets.wanted_changed = false;
    for (size_t i = 0; i < n; i++) {
        secret_find_known(c, v[i]);
    }
    free(v);
}

// ---- sources that resources name ----

enum { SOURCES_MAX = 64 }; // files named by config sources

static int add_source(void *arg, int type, const char *path, struct err *err)
{
    struct config *c = arg;
    char key[4128];
    if (!path) {
        return c->file_types >> type & 1 ? err_set(err, -EEXIST, "%s comes from files here, which another resource names",
                                                   xds_type_short((enum xds_type)type))
                                         : 0;
    }
    int n = snprintf(key, sizeof(key), "%d %s", type, path);
    if (n >= (int)sizeof(key)) {
        return err_set(err, -ENAMETOOLONG, "longer than 4096 bytes");
    }
    if (map_get(&c->sources, str_c(key))) {
        return 0;
    }
    if (c->sources.count >= SOURCES_MAX) {
        return err_set(err, -E2BIG, "more than %d files", SOURCES_MAX);
    }
    int rc = xds_add_file(c->xds, (enum xds_type)type, path, err);
    if (!rc) {
        map_put(&c->sources, str_c(key), c);
        c->file_types |= 1u << type;
    }
    return rc;
}

static const char *node_cluster(const struct config_ctx *ctx)
{
    return ctx->node_cluster ? ctx->node_cluster : "";
}

struct config_ctx config_build_ctx(struct config *c, struct arena *scratch)
{
    config_runtime_number = runtime_number;
    config_runtime_fraction = runtime_fraction;
    config_runtime_bool = runtime_bool;
    config_node_cluster = node_cluster;
    return (struct config_ctx){ .scratch = scratch, .secrets = &c->secrets, .ipv6 = c->o.ipv6, .runtime = c->o.runtime,
                                .node_id = c->o.node_id, .node_cluster = c->o.node_cluster, .add_source = add_source, .add_source_arg = c };
}
