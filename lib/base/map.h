// SPDX-License-Identifier: Apache-2.0
// Hash map from byte strings to pointers, for control-path and frozen tables. Open addressing; iteration in insertion order of
// the live entries is not promised. One thread, or read-only by many.
#ifndef LIB_BASE_MAP_H
#define LIB_BASE_MAP_H

#include "lib/base/str.h"

struct map_entry {
    struct str key; // owned copy
    uint64_t hash;
    void *val; // borrowed by the map
};

struct map {
    struct map_entry *entries; // owned, capacity a power of two; key.p NULL = free
    size_t cap, count, used;
};

void map_init(struct map *m); // a zeroed struct is a valid empty map too
void map_fini(struct map *m); // does not free values
// Inserts or replaces; returns the former value or NULL.
void *map_put(struct map *m, struct str key, void *val);
void *map_get(const struct map *m, struct str key);
// Removes; returns the value or NULL.
void *map_del(struct map *m, struct str key);
// for (size_t i = 0; (e = map_next(m, &i)); ) visits each live entry; the map must not change meanwhile (map_del of the visited one is allowed).
struct map_entry *map_next(const struct map *m, size_t *i);
// Live keys in byte order into a heap array of count entries (borrowed keys), the caller frees. For stable output.
struct map_entry **map_sorted(const struct map *m);

#endif
