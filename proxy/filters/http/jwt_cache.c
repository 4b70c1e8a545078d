// SPDX-License-Identifier: Apache-2.0
// Verified tokens of a provider on one worker (JwtProvider.jwt_cache_config): the least recently used goes first. An entry holds what the filter
// needs of a token, not the token taken apart.
#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/base/list.h"
#include "lib/base/mem.h"
#include "proxy/filters/http/jwt_int.h"

struct entry {
    struct list link;        // least recently used first
    struct entry *next;      // of its bucket
    uint64_t hash;
    struct arena arena;
    struct str token;
    struct jwt_facts facts;
};

struct jwt_cache {
    struct list used;
    struct entry **buckets;  // owned; a power of two
    size_t mask, count;
    struct jwks *keys;       // ref: what the entries were verified with
};

static void drop(struct jwt_cache *c, struct entry *e)
{
    struct entry **p = &c->buckets[e->hash & c->mask];
    while (*p != e) {
        p = &(*p)->next;
    }
    *p = e->next;
    list_del(&e->link);
    arena_fini(&e->arena);
    free(e);
    c->count--;
}

static void clear(struct jwt_cache *c)
{
    while (!list_empty(&c->used)) {
        drop(c, list_entry(c->used.next, struct entry, link));
    }
    jwks_unref(c->keys);
    c->keys = NULL;
}

void jwt_cache_free(struct jwt_cache *c)
{
    if (c) {
        clear(c);
        free(c->buckets);
        free(c);
    }
}

static struct jwt_cache *cache_of(const struct jwt_provider *p, int worker, bool make)
{
    if (worker < 0 || worker >= JWT_CACHE_WORKERS_MAX) {
        return NULL;
    }
    // Only this worker writes its pointer, and what frees them comes after the last use of the listener.
    struct jwt_cache *c = atomic_load_explicit(&p->caches[worker], memory_order_relaxed);
    if (!c && make) {
        c = mem_new(struct jwt_cache);
        list_init(&c->used);
        size_t n = 16;
        while (n < p->cache_size) {
            n *= 2;
        }
        c->mask = n - 1;
        c->buckets = mem_alloc(n * sizeof(*c->buckets));
        memset(c->buckets, 0, n * sizeof(*c->buckets));
        atomic_store_explicit(&p->caches[worker], c, memory_order_relaxed);
    }
    return c;
}

static struct entry *find(const struct jwt_cache *c, struct str token, uint64_t hash)
{
    struct entry *e = c->buckets[hash & c->mask];
    while (e && !(e->hash == hash && str_eq(e->token, token))) {
        e = e->next;
    }
    return e;
}

const struct jwt_facts *jwt_cache_find(const struct jwt_provider *p, int worker, const struct jwks *keys, struct str token, uint64_t now_s)
{
    struct jwt_cache *c = cache_of(p, worker, false);
    if (!c || c->keys != keys) { // a key that is gone vouches for nobody any more
        return NULL;
    }
    struct entry *e = find(c, token, hash_str(token));
    if (!e) {
        return NULL;
    }
    if (e->facts.has_exp && now_s > e->facts.exp && now_s - e->facts.exp > p->skew_s) {
        drop(c, e);
        return NULL;
    }
    list_del(&e->link);
    list_add_tail(&c->used, &e->link);
    return &e->facts;
}

static struct str kept(struct arena *a, struct str s)
{
    return s.n ? arena_str(a, s) : str_n(NULL, 0);
}

void jwt_cache_put(const struct jwt_provider *p, int worker, struct jwks *keys, struct str token, const struct jwt *t)
{
    struct jwt_cache *c = token.n <= p->cache_token_max ? cache_of(p, worker, true) : NULL;
    uint64_t hash = hash_str(token);
    if (!c) {
        return;
    }
    if (c->keys != keys) {
        clear(c);
        c->keys = jwks_ref(keys);
    }
    if (find(c, token, hash)) {
        return;
    }
    if (c->count >= p->cache_size) {
        drop(c, list_entry(c->used.next, struct entry, link));
    }
    struct entry *e = mem_new(struct entry);
    arena_init(&e->arena, 1024, 0);
    e->hash = hash;
    e->token = arena_str(&e->arena, token);
    jwt_facts_make(p, t, &e->arena, &e->facts);
    struct jwt_facts *f = &e->facts; // the views of t become ours
    f->iss = kept(&e->arena, f->iss);
    f->sub = kept(&e->arena, f->sub);
    f->payload_b64 = kept(&e->arena, f->payload_b64);
    const struct str *aud = f->aud;
    f->aud = f->aud_count ? arena_array(&e->arena, struct str, f->aud_count) : NULL;
    for (size_t i = 0; i < f->aud_count; i++) {
        f->aud[i] = kept(&e->arena, aud[i]);
    }
    for (size_t i = 0; i < p->claim_count; i++) {
        f->claim_values[i] = kept(&e->arena, f->claim_values[i]);
    }
    e->next = c->buckets[hash & c->mask];
    c->buckets[hash & c->mask] = e;
    list_add_tail(&c->used, &e->link);
    c->count++;
}
