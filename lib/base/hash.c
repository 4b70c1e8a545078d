// SPDX-License-Identifier: Apache-2.0
#include "lib/base/hash.h"

#include <stdatomic.h>

#include <xxhash.h>

#include "lib/base/rand.h"

uint64_t hash_xx64(const void *p, size_t n, uint64_t seed)
{
    return XXH64(n ? p : "", n, seed);
}

uint64_t hash_seed(void)
{
    // Relaxed: the value is the whole message. The first of several racing threads wins the exchange, all then see its value.
    static _Atomic uint64_t seed;
    uint64_t v = atomic_load_explicit(&seed, memory_order_relaxed);
    if (__builtin_expect(v != 0, 1)) {
        return v;
    }
    uint64_t mine;
    rand_bytes(&mine, sizeof(mine));
    mine |= 1; // 0 means "not chosen yet"
    return atomic_compare_exchange_strong_explicit(&seed, &v, mine, memory_order_relaxed, memory_order_relaxed) ? mine : v;
}

struct hash128 hash_content(const void *p, size_t n)
{
    XXH128_hash_t h = XXH3_128bits(n ? p : "", n);
    return (struct hash128){ .lo = h.low64, .hi = h.high64 };
}
