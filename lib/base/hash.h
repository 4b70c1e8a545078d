// SPDX-License-Identifier: Apache-2.0
// Hashes: xxh64 for placement and content identity; seeded hash for tables whose keys come from peers.
#ifndef LIB_BASE_HASH_H
#define LIB_BASE_HASH_H

#include "lib/base/str.h"

uint64_t hash_xx64(const void *p, size_t n, uint64_t seed);
// Process-random seed, chosen once.
uint64_t hash_seed(void);
static inline uint64_t hash_str(struct str s)
{
    return hash_xx64(s.p, s.n, hash_seed());
}
// 128-bit content hash of resource bytes, for de-duplication (XXH3).
struct hash128 {
    uint64_t lo, hi;
};
struct hash128 hash_content(const void *p, size_t n);

#endif
