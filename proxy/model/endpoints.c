// SPDX-License-Identifier: Apache-2.0
#include "proxy/model/endpoints.h"

#include <stdlib.h>

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
