// SPDX-License-Identifier: Apache-2.0
// Linear probing. A removed entry leaves a mark (key.p = &gone), so that removing while iterating moves nothing; marks go when
// the table is rebuilt. count = live entries, used = live entries and marks.
#include "lib/base/map.h"

#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/base/mem.h"

static const char gone[1];

static bool is_live(const struct map_entry *e)
{
    return e->key.p && e->key.p != gone;
}

void map_init(struct map *m)
{
    *m = (struct map){ 0 };
}

void map_fini(struct map *m)
{
    for (size_t i = 0; i < m->cap; i++) {
        if (is_live(&m->entries[i])) {
            free((void *)m->entries[i].key.p);
        }
    }
    free(m->entries);
    *m = (struct map){ 0 };
}

static struct map_entry *find(const struct map *m, struct str key, uint64_t hash)
{
    if (m->cap == 0) {
        return NULL;
    }
    for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct map_entry *e = &m->entries[i];
        if (!e->key.p) {
            return NULL; // there is always a free entry: used stays under 3/4 of cap
        }
        if (e->hash == hash && e->key.p != gone && str_eq(e->key, key)) {
            return e;
        }
    }
}

static struct map_entry *free_slot(struct map_entry *entries, size_t cap, uint64_t hash)
{
    size_t i = hash & (cap - 1);
    while (entries[i].key.p) {
        i = (i + 1) & (cap - 1);
    }
    return &entries[i];
}

static void rebuild(struct map *m)
{
    size_t cap = 8;
    while (cap < (m->count + 1) * 2) {
        cap *= 2;
    }
    struct map_entry *fresh = mem_zalloc(cap * sizeof(*fresh));
    for (size_t i = 0; i < m->cap; i++) {
        if (is_live(&m->entries[i])) {
            *free_slot(fresh, cap, m->entries[i].hash) = m->entries[i];
        }
    }
    free(m->entries);
    m->entries = fresh;
    m->cap = cap;
    m->used = m->count;
}

void *map_put(struct map *m, struct str key, void *val)
{
    uint64_t hash = hash_str(key);
    struct map_entry *e = find(m, key, hash);
    if (e) {
        void *old = e->val;
        e->val = val;
        return old;
    }
    if ((m->used + 1) * 4 > m->cap * 3) {
        rebuild(m);
    }
    e = free_slot(m->entries, m->cap, hash);
    e->key = (struct str){ .p = str_dup(key), .n = key.n };
    e->hash = hash;
    e->val = val;
    m->count++;
    m->used++;
    return NULL;
}

void *map_get(const struct map *m, struct str key)
{
    struct map_entry *e = m->count ? find(m, key, hash_str(key)) : NULL;
    return e ? e->val : NULL;
}

void *map_del(struct map *m, struct str key)
{
    struct map_entry *e = m->count ? find(m, key, hash_str(key)) : NULL;
    if (!e) {
        return NULL;
    }
    void *val = e->val;
    free((void *)e->key.p);
    *e = (struct map_entry){ .key = { .p = gone, .n = 0 } };
    m->count--;
    return val;
}

struct map_entry *map_next(const struct map *m, size_t *i)
{
    while (*i < m->cap) {
        struct map_entry *e = &m->entries[(*i)++];
        if (is_live(e)) {
            return e;
        }
    }
    return NULL;
}

static int by_key(const void *a, const void *b)
{
    return str_cmp((*(struct map_entry *const *)a)->key, (*(struct map_entry *const *)b)->key);
}

struct map_entry **map_sorted(const struct map *m)
{
    struct map_entry **v = mem_alloc((m->count + 1) * sizeof(struct map_entry *));
    size_t n = 0, i = 0;
    for (struct map_entry *e; (e = map_next(m, &i));) {
        v[n++] = e;
    }
    v[n] = NULL;
    qsort(v, n, sizeof(struct map_entry *), by_key);
    return v;
}
