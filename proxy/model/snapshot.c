// SPDX-License-Identifier: Apache-2.0
#include "proxy/model/snapshot.h"

#include <stdlib.h>

#include "lib/base/mem.h"

// ---- cluster and endpoints ----

struct cluster_snap *cluster_snap_new(struct cluster_cfg *cfg, struct endpoint_set *endpoints, struct cluster_shared *shared,
                                      void (*shared_unref)(struct cluster_shared *s))
{
    struct cluster_snap *c = mem_new(struct cluster_snap);
    refs_init(&c->refs);
    c->cfg = cluster_cfg_ref(cfg);
    c->endpoints = endpoints ? endpoint_set_ref(endpoints) : endpoint_set_new();
    c->shared = shared;
    c->shared_unref = shared_unref;
    return c;
}

struct cluster_snap *cluster_snap_ref(struct cluster_snap *c)
{
    refs_get(&c->refs);
    return c;
}

void cluster_snap_unref(struct cluster_snap *c)
{
    if (!c || !refs_put(&c->refs)) {
        return;
    }
    if (c->shared && c->shared_unref) {
        c->shared_unref(c->shared);
    }
    endpoint_set_unref(c->endpoints);
    cluster_cfg_unref(c->cfg);
    free(c);
}

// ---- snapshot ----

enum { LISTENER_KEY_MAX = 19 }; // family, port, 16 bytes of address

// Key of virtual_listeners: the address' bytes. Unix sockets have none (they are never an original destination).
static struct str listener_key(const struct addr *a, char out[LISTENER_KEY_MAX])
{
    size_t n = a->family == AF_INET ? 4 : 16;
    out[0] = a->family == AF_INET ? 4 : 6;
    out[1] = (char)(a->port >> 8);
    out[2] = (char)a->port;
    memcpy(out + 3, a->ip, n);
    return str_n(out, 3 + n);
}

static void index_virtual(struct snapshot *s)
{
    map_fini(&s->virtual_listeners);
    map_init(&s->virtual_listeners);
    for (size_t i = 0; i < s->listener_count; i++) {
        struct listener_cfg *l = s->listeners[i];
        for (size_t j = 0; !l->bind_to_port && j < l->address_count; j++) {
            if (l->addresses[j].family == AF_INET || l->addresses[j].family == AF_INET6) {
                char key[LISTENER_KEY_MAX];
                map_put(&s->virtual_listeners, listener_key(&l->addresses[j], key), l);
            }
        }
    }
}

struct snapshot *snapshot_clone(const struct snapshot *s)
{
    struct snapshot *n = mem_new(struct snapshot);
    refs_init(&n->refs);
    arena_init(&n->garbage, 0, 0);
    if (!s) {
        return n;
    }
    n->version = s->version + 1;
    n->home = s->home;
    snapshot_set_listeners(n, s->listeners, s->listener_count);
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->routes, &i));) {
        map_put(&n->routes, e->key, route_table_ref(e->val));
    }
    for (size_t i = 0; (e = map_next(&s->clusters, &i));) {
        map_put(&n->clusters, e->key, cluster_snap_ref(e->val));
    }
    return n;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
    refs_get(&s->refs);
    return s;
}

static void snapshot_free(struct snapshot *s)
{
    for (size_t i = 0; i < s->listener_count; i++) {
        listener_cfg_unref(s->listeners[i]);
    }
    free(s->listeners);
    map_fini(&s->virtual_listeners);
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->routes, &i));) {
        route_table_unref(e->val);
    }
    map_fini(&s->routes);
    for (size_t i = 0; (e = map_next(&s->clusters, &i));) {
        cluster_snap_unref(e->val);
    }
    map_fini(&s->clusters);
    arena_fini(&s->garbage);
    free(s);
}

static void free_at_home(struct mailbox_msg *m)
{
    snapshot_free(container_of(m, struct snapshot, free_msg));
}

void snapshot_unref(struct snapshot *s)
{
    if (!s || !refs_put(&s->refs)) {
        return;
    }
    if (s->home) {
        s->free_msg.fn = free_at_home;
        loop_post(s->home, &s->free_msg);
    } else {
        snapshot_free(s);
    }
}

void snapshot_set_listeners(struct snapshot *s, struct listener_cfg **v, size_t n)
{
    struct listener_cfg **copy = n ? mem_alloc(n * sizeof(struct listener_cfg *)) : NULL;
    for (size_t i = 0; i < n; i++) {
        copy[i] = listener_cfg_ref(v[i]);
    }
    for (size_t i = 0; i < s->listener_count; i++) {
        listener_cfg_unref(s->listeners[i]);
    }
    free(s->listeners);
    s->listeners = copy;
    s->listener_count = n;
    index_virtual(s);
}

void snapshot_put_route(struct snapshot *s, struct route_table *t)
{
    route_table_unref(map_put(&s->routes, t->name, route_table_ref(t)));
}

void snapshot_del_route(struct snapshot *s, struct str name)
{
    route_table_unref(map_del(&s->routes, name));
}

void snapshot_put_cluster(struct snapshot *s, struct cluster_snap *c)
{
    cluster_snap_unref(map_put(&s->clusters, c->cfg->name, cluster_snap_ref(c)));
}

void snapshot_del_cluster(struct snapshot *s, struct str name)
{
    cluster_snap_unref(map_del(&s->clusters, name));
}

struct route_table *snapshot_route(const struct snapshot *s, struct str name)
{
    return map_get(&s->routes, name);
}

struct cluster_snap *snapshot_cluster(const struct snapshot *s, struct str name)
{
    return map_get(&s->clusters, name);
}

struct listener_cfg *snapshot_virtual_listener(const struct snapshot *s, const struct addr *dst)
{
    if (dst->family != AF_INET && dst->family != AF_INET6) {
        return NULL;
    }
    struct addr a = addr_unmap(*dst);
    char key[LISTENER_KEY_MAX];
    struct listener_cfg *l = map_get(&s->virtual_listeners, listener_key(&a, key));
    if (l) {
        return l;
    }
    memset(a.ip, 0, sizeof(a.ip));
    l = map_get(&s->virtual_listeners, listener_key(&a, key));
    if (!l && a.family == AF_INET && dst->family == AF_INET6) {
        a.family = AF_INET6; // a listener on [::]:port takes IPv4 in IPv6 too
        l = map_get(&s->virtual_listeners, listener_key(&a, key));
    }
    return l;
}
