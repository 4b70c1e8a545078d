// SPDX-License-Identifier: Apache-2.0
// Reference counts of frozen objects: any thread may take and drop; the last drop frees.
#ifndef PROXY_MODEL_REFS_H
#define PROXY_MODEL_REFS_H

#include <stdatomic.h>
#include <stdbool.h>

struct refs {
    atomic_uint n;
};

static inline void refs_init(struct refs *r)
{
    atomic_init(&r->n, 1);
}
static inline void refs_get(struct refs *r)
{
    atomic_fetch_add_explicit(&r->n, 1, memory_order_relaxed);
}
// True when this was the last reference. acq_rel pairs with the drops of other threads.
static inline bool refs_put(struct refs *r)
{
    return atomic_fetch_sub_explicit(&r->n, 1, memory_order_acq_rel) == 1;
}

#endif
