// SPDX-License-Identifier: Apache-2.0
#include "proxy/model/endpoints.h"

#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"

// Moved by host_set_flag with release, read by balancers with acquire: who sees the new epoch sees the flag.
static atomic_uint health_epoch = 1;
static atomic_ullong last_generation;

struct host *host_new(const struct addr *a, struct str hostname)
{
    struct host *h = mem_new(struct host);
    refs_init(&h->refs);
    h->addr = *a;
    if (a->family == AF_UNIX) {
        h->path = mem_strdup(a->path ? a->path : "");
        h->addr.path = h->path;
    }
    h->hostname = hostname.n ? str_dup(hostname) : NULL;
    addr_text(&h->addr, h->text);
    atomic_init(&h->success_rate, -1);
    atomic_init(&h->local_success_rate, -1);
    return h;
}

struct host *host_ref(struct host *h)
{
    refs_get(&h->refs);
    return h;
}

void host_unref(struct host *h)
{
    if (h && refs_put(&h->refs)) {
        free(h->path);
        free(h->hostname);
        free(h->more);
        free(h);
    }
}

bool host_set_flag(struct host *h, enum host_flag f, bool on)
{
    unsigned bit = (unsigned)f;
    unsigned old = on ? atomic_fetch_or_explicit(&h->flags, bit, memory_order_relaxed)
                      : atomic_fetch_and_explicit(&h->flags, ~bit, memory_order_relaxed);
    if (((old & bit) != 0) == on) {
        return false;
    }
    atomic_fetch_add_explicit(&health_epoch, 1, memory_order_release);
    return true;
}

unsigned host_health_epoch(void)
{
    return atomic_load_explicit(&health_epoch, memory_order_acquire);
}

struct endpoint_set *endpoint_set_new(void)
{
    struct endpoint_set *e = mem_new(struct endpoint_set);
    refs_init(&e->refs);
    arena_init(&e->arena, 1024, 0);
    e->equal_weights = true;
    e->generation = atomic_fetch_add_explicit(&last_generation, 1, memory_order_relaxed) + 1;
    return e;
}

static const struct endpoint_more *copy_more(struct arena *a, const struct endpoint_more *x)
{
    struct endpoint_more *c = arena_array(a, struct endpoint_more, 1);
    *c = *x;
    c->hash_key = arena_str(a, x->hash_key);
    c->check_host = arena_str(a, x->check_host);
    c->lb_metadata = x->lb_metadata_count ? arena_array(a, struct lb_criterion, x->lb_metadata_count) : NULL;
    for (size_t i = 0; i < x->lb_metadata_count; i++) {
        const struct lb_criterion *m = &x->lb_metadata[i];
        c->lb_metadata[i] = (struct lb_criterion){ arena_str(a, m->key), arena_str(a, m->value), m->element };
    }
    return c;
}

// Neighbours that have the same metadata share one copy of it.
static struct str copy_metadata(struct endpoint_set *e, struct str md)
{
    enum { NEIGHBOURS = 16 };
    for (size_t i = e->count; i > 0 && i + NEIGHBOURS > e->count; i--) {
        if (str_eq(e->v[i - 1].metadata, md)) {
            return e->v[i - 1].metadata;
        }
    }
    return md.n ? arena_str(&e->arena, md) : (struct str){ 0 };
}

static struct endpoint copy_of(struct arena *a, const struct endpoint *x)
{
    struct endpoint c = *x;
    host_ref(c.host);
    struct str *texts[] = { &c.region, &c.zone, &c.sub_zone };
    for (size_t i = 0; i < array_len(texts); i++) {
        *texts[i] = texts[i]->n ? arena_str(a, *texts[i]) : (struct str){ 0 };
    }
    c.more = x->more ? copy_more(a, x->more) : NULL;
    return c;
}

static void set_append(struct endpoint_set *e, const struct endpoint *x)
{
    struct str md = copy_metadata(e, x->metadata);
    e->v[e->count] = copy_of(&e->arena, x);
    e->v[e->count++].metadata = md;
    e->equal_weights = e->equal_weights && x->weight == e->v[0].weight;
    e->total_weight += x->weight;
}

void endpoint_set_add(struct endpoint_set *e, const struct endpoint *x)
{
    struct endpoint *v = arena_array(&e->arena, struct endpoint, e->count + 1);
    if (e->count) {
        memcpy(v, e->v, e->count * sizeof(*v));
    }
    e->v = v;
    set_append(e, x);
}

void endpoint_set_policy(struct endpoint_set *e, const struct endpoint_policy *p)
{
    e->policy = *p;
    e->policy.drops = p->drop_count ? arena_array(&e->arena, struct drop_overload, p->drop_count) : NULL;
    for (size_t i = 0; i < p->drop_count; i++) {
        e->policy.drops[i] = (struct drop_overload){ arena_str(&e->arena, p->drops[i].category), p->drops[i].per_million };
    }
}

void endpoint_set_copy(struct endpoint_set *e, const struct endpoint_set *from, const struct host *without)
{
    endpoint_set_policy(e, &from->policy);
    e->v = arena_array(&e->arena, struct endpoint, from->count + 1);
    for (size_t i = 0; i < from->count; i++) {
        if (from->v[i].host != without) {
            set_append(e, &from->v[i]);
        }
    }
}

struct endpoint_set *endpoint_set_ref(struct endpoint_set *e)
{
    refs_get(&e->refs);
    return e;
}

void endpoint_set_unref(struct endpoint_set *e)
{
    if (!e || !refs_put(&e->refs)) {
        return;
    }
    for (size_t i = 0; i < e->count; i++) {
        host_unref(e->v[i].host);
    }
    arena_fini(&e->arena);
    free(e);
}
