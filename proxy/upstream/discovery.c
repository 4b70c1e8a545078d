// SPDX-License-Identifier: Apache-2.0
// Endpoint sets from addresses; hosts by address within their cluster. Control thread.
#include "proxy/core/metadata.h"
#include "proxy/upstream/discovery.h"

#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "proxy/upstream/internal.h"

enum { HOST_KEY_MAX = ADDR_KEY_MAX * 8 };

struct host_table {
    struct map hosts; // address → struct host * (ref)
};

struct host_table *host_table_new(void)
{
    return mem_new(struct host_table);
}

void host_table_free(struct host_table *t)
{
    if (!t) {
        return;
    }
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&t->hosts, &i));) {
        host_unref(e->val);
    }
    map_fini(&t->hosts);
    free(t);
}

// Further addresses are part of what a host is: with others it is another one.
static struct str host_key(const struct lb_endpoint_cfg *e, char out[HOST_KEY_MAX])
{
    size_t n = upstream_addr_key(&e->addr, out).n;
    for (size_t i = 0; i < e->more_count && n + ADDR_KEY_MAX <= HOST_KEY_MAX; i++) {
        n += upstream_addr_key(&e->more[i], out + n).n;
    }
    return str_n(out, n);
}

static struct host *table_host(struct host_table *t, const struct lb_endpoint_cfg *e)
{
    char key[HOST_KEY_MAX];
    struct str k = host_key(e, key);
    struct host *h = map_get(&t->hosts, k);
    if (!h) {
        h = host_new(&e->addr, e->host_name);
        atomic_store_explicit(&h->since_ms, clock_mono_ms(), memory_order_relaxed);
        if (e->more_count) {
            h->more = mem_alloc(e->more_count * sizeof(*h->more));
            memcpy(h->more, e->more, e->more_count * sizeof(*h->more));
            h->more_count = (uint32_t)e->more_count;
        }
        map_put(&t->hosts, k, h);
    }
    return host_ref(h);
}

// Only sets give references on hosts, and only this thread makes sets: a host that is ours alone can go. Looked for when the table has grown
// well beyond what is in use.
static void table_trim(struct host_table *t, size_t in_use)
{
    if (t->hosts.count <= 2 * in_use + 16) {
        return;
    }
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&t->hosts, &i));) {
        struct host *h = e->val;
        if (atomic_load_explicit(&h->refs.n, memory_order_acquire) == 1) {
            map_del(&t->hosts, e->key);
            host_unref(h);
        }
    }
}

static bool has_pair(const struct lb_endpoint_cfg *e, const struct str_pair *want)
{
    for (size_t i = 0; i < e->metadata_count; i++) {
        if (str_eq(e->metadata[i].key, want->key)) {
            return str_eq(e->metadata[i].value, want->value);
        }
    }
    return false;
}

// Cluster.transport_socket_matches: the first whose pairs are all in the endpoint's metadata.
static uint16_t transport_index(const struct cluster_cfg *cfg, const struct lb_endpoint_cfg *e)
{
    for (size_t i = 0; i < cfg->transport_count; i++) {
        const struct transport_cfg *t = &cfg->transports[i];
        size_t hits = 0;
        while (hits < t->match_count && has_pair(e, &t->match[hits])) {
            hits++;
        }
        if (hits == t->match_count) {
            return (uint16_t)i;
        }
    }
    return UINT16_MAX;
}

// Most neighbours share their locality: keep one copy.
static struct str share(struct arena *a, struct str s, struct str former)
{
    return s.n == 0 ? (struct str){ 0 } : str_eq(s, former) ? former : arena_str(a, s);
}

// The pods of one deployment have the same.
static struct str share_metadata(struct endpoint_set *set, struct str md)
{
    enum { NEIGHBOURS = 16 };
    for (size_t i = set->count - 1, k = 0; md.n && i > 0 && k < NEIGHBOURS; i--, k++) {
        if (str_eq(set->v[i - 1].metadata, md)) {
            return set->v[i - 1].metadata;
        }
    }
    return md.n ? arena_str(&set->arena, md) : (struct str){ 0 };
}

static struct lb_criterion *copy_lb(struct arena *a, const struct lb_endpoint_cfg *e)
{
    struct lb_criterion *v = arena_array(a, struct lb_criterion, e->lb_metadata_count);
    for (size_t i = 0; i < e->lb_metadata_count; i++) {
        const struct lb_criterion *m = &e->lb_metadata[i];
        v[i] = (struct lb_criterion){ arena_str(a, m->key), arena_str(a, m->value), m->element };
    }
    return v;
}

static const struct endpoint_more *copy_more(struct arena *a, const struct cluster_cfg *cfg, const struct lb_endpoint_cfg *e)
{
    bool metadata = cfg->subset.enabled && e->lb_metadata_count;
    bool check = cfg->check_count && (e->check_addr.family || e->check_port || e->check_host.n || e->check_off);
    if (!metadata && !check && !e->hash_key.n) {
        return NULL;
    }
    struct endpoint_more *m = arena_array(a, struct endpoint_more, 1);
    *m = (struct endpoint_more){ .hash_key = arena_str(a, e->hash_key) };
    if (metadata) {
        m->lb_metadata = copy_lb(a, e);
        m->lb_metadata_count = e->lb_metadata_count;
    }
    if (check) {
        m->check_addr = e->check_addr;
        m->check_port = e->check_port;
        m->check_host = arena_str(a, e->check_host);
        m->check_off = e->check_off;
    }
    return m;
}

static bool is_canary(struct str md)
{
    struct metadata_value v = { 0 };
    if (md.n) {
        v = metadata_find(md, STR("envoy.lb"), STR("canary"));
    }
    return v.kind == MV_BOOL && v.boolean;
}

static void fill(struct endpoint_set *set, const struct cluster_cfg *cfg, const struct lb_endpoint_cfg *e, struct host *h)
{
    static const struct endpoint none;
    const struct endpoint *former = set->count ? &set->v[set->count - 1] : &none;
    struct endpoint *x = &set->v[set->count++];
    *x = (struct endpoint){
        .host = h,
        .weight = e->weight ? e->weight : 1,
        .priority = e->priority,
        .eds_health = e->health,
        .canary = is_canary(e->all_metadata),
        .transport = transport_index(cfg, e),
        .region = share(&set->arena, e->region, former->region),
        .zone = share(&set->arena, e->zone, former->zone),
        .sub_zone = share(&set->arena, e->sub_zone, former->sub_zone),
        .locality_weight = e->locality_weight,
        .metadata = share_metadata(set, e->all_metadata),
        .more = copy_more(&set->arena, cfg, e),
    };
    set->equal_weights = set->equal_weights && x->weight == set->v[0].weight;
    set->total_weight += x->weight;
    // DEGRADED hosts are used like healthy ones.
    bool failed = e->health == EDS_UNHEALTHY || e->health == EDS_DRAINING || e->health == EDS_TIMEOUT;
    host_set_flag(h, HOST_FAILED_EDS, failed);
}

struct endpoint_set *endpoint_set_build(struct host_table *t, const struct cluster_cfg *cfg, const struct lb_endpoint_cfg *v, size_t n)
{
    struct endpoint_set *set = endpoint_set_new();
    endpoint_set_policy(set, &cfg->policy);
    set->v = n ? arena_array(&set->arena, struct endpoint, n) : NULL;
    struct map seen = { 0 }; // an address counts once, where it is named first
    for (size_t i = 0; i < n; i++) {
        if (v[i].addr.family == 0) {
            continue;
        }
        struct host *h = table_host(t, &v[i]);
        if (map_put(&seen, str_n(&h, sizeof(h)), h)) {
            host_unref(h);
            continue;
        }
        fill(set, cfg, &v[i], h);
    }
    map_fini(&seen);
    table_trim(t, set->count);
    return set;
}
