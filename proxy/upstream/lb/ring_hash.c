// SPDX-License-Identifier: Apache-2.0
// RING_HASH: each host owns points on a ring by weight (cluster.v3.Cluster.RingHashLbConfig, minimum_ring_size 1024, xxHash of the address
// text and a counter); a request goes to the first point at or after its hash. A request without a hash goes to a random point.
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "proxy/upstream/lb/lb.h"
#include "proxy/upstream/lb/policies.h"

enum { RING_MIN = 1024, RING_MAX = 65536 };

struct point {
    uint64_t hash;
    uint32_t index;
};
struct ring {
    struct point *v; // owned, sorted by hash
    size_t n;
};

static int point_cmp(const void *a, const void *b)
{
    const struct point *x = a, *y = b;
    return x->hash != y->hash ? (x->hash > y->hash) - (x->hash < y->hash) : (x->index > y->index) - (x->index < y->index);
}

// Points of the heaviest host. As far as possible they do not depend on how many hosts there are, so that when one goes only its own share
// moves; the ring has at least RING_MIN points, and at most RING_MAX (and one per host).
static size_t points_of_heaviest(size_t n)
{
    size_t points = 256;
    while (points * n < RING_MIN) {
        points *= 2;
    }
    while (points > 1 && points * n > RING_MAX) {
        points /= 2;
    }
    return points;
}

static size_t points_of(uint32_t w, uint32_t heaviest, size_t n)
{
    size_t p = (size_t)(((uint64_t)points_of_heaviest(n) * w + heaviest - 1) / heaviest);
    return p ? p : 1;
}

static void ring_init(void *state, const struct cluster_cfg *cfg, struct endpoint *const *v, size_t n)
{
    (void)cfg;
    struct ring *r = state;
    uint32_t heaviest = 1;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        heaviest = v[i]->weight > heaviest ? v[i]->weight : heaviest;
    }
    for (size_t i = 0; i < n; i++) {
        count += points_of(v[i]->weight, heaviest, n);
    }
    r->v = mem_alloc(count * sizeof(*r->v));
    for (size_t i = 0; i < n; i++) {
        size_t points = points_of(v[i]->weight, heaviest, n);
        for (size_t j = 0; j < points; j++) {
            char key[ADDR_TEXT_MAX + 24];
            int len = snprintf(key, sizeof(key), "%s_%zu", v[i]->host->text, j);
            r->v[r->n++] = (struct point){ hash_xx64(key, (size_t)len, 0), (uint32_t)i };
        }
    }
    qsort(r->v, r->n, sizeof(*r->v), point_cmp);
}

static void ring_fini(void *state)
{
    free(((struct ring *)state)->v);
}

static size_t ring_pick(void *state, struct endpoint *const *v, size_t n, bool has_hash, uint64_t hash, uint64_t random)
{
    (void)v, (void)n;
    const struct ring *r = state;
    uint64_t h = has_hash ? hash : random;
    size_t lo = 0, hi = r->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (r->v[mid].hash < h) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return r->v[lo == r->n ? 0 : lo].index;
}

const struct lb_ops lb_ring_hash = {
    .policy = LB_RING_HASH,
    .name = "RING_HASH",
    .state_size = sizeof(struct ring),
    .init = ring_init,
    .fini = ring_fini,
    .pick = ring_pick,
};
