// SPDX-License-Identifier: Apache-2.0
// RING_HASH: each host owns points on a ring by weight (cluster.v3.Cluster.RingHashLbConfig); a request goes to the first point at or after its
// hash. A request without a hash goes to a random point. How many points a host gets and how they are named is chosen so that rings come out
// as Envoy's: tests/unit/proxy/upstream/test_placement.c has recorded placements.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "proxy/upstream/lb/lb.h"
#include "proxy/upstream/lb/policies.h"

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

// Austin Appleby's MurmurHash64A with the seed of GNU libstdc++'s std::hash, which is what MURMUR_HASH_2 means.
static uint64_t murmur2(const char *p, size_t n)
{
    const uint64_t m = 0xc6a4a7935bd1e995ull;
    uint64_t h = 0xc70f6907ull ^ (n * m);
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t k;
        memcpy(&k, p, 8);
        k *= m;
        k ^= k >> 47;
        h = (h ^ (k * m)) * m;
    }
    if (n) {
        uint64_t k = 0;
        memcpy(&k, p, n); // little-endian, as everywhere here
        h = (h ^ k) * m;
    }
    h ^= h >> 47;
    h *= m;
    return h ^ (h >> 47);
}

// The lightest host gets a whole number of points, and the ring at least ring_min and at most ring_max.
static double points_in_all(const struct lb_hosts *h, double sum)
{
    double lightest = 1;
    for (size_t i = 0; i < h->n; i++) {
        double share = h->weight[i] / sum;
        lightest = share < lightest ? share : lightest;
    }
    double scale = ceil(lightest * (double)h->cfg->ring_min) / lightest, max = (double)h->cfg->ring_max;
    return scale < max ? scale : max;
}

static void add_points(struct ring *r, const struct lb_hosts *h, size_t i, double upto)
{
    struct str name = lb_hash_key(h, i);
    char *key = mem_alloc(name.n + 24);
    memcpy(key, name.p, name.n);
    for (uint64_t k = 0; (double)r->n < upto; k++) {
        size_t n = name.n + (size_t)snprintf(key + name.n, 24, "_%llu", (unsigned long long)k);
        uint64_t hash = h->cfg->ring_murmur ? murmur2(key, n) : hash_xx64(key, n, 0);
        r->v[r->n++] = (struct point){ hash, (uint32_t)i };
    }
    free(key);
}

static void ring_init(void *state, const struct lb_hosts *h, uint64_t now_ms)
{
    (void)now_ms;
    struct ring *r = state;
    double sum = 0, upto = 0;
    for (size_t i = 0; i < h->n; i++) {
        sum += h->weight[i];
    }
    double all = points_in_all(h, sum);
    r->v = mem_alloc(((size_t)ceil(all) + h->n + 1) * sizeof(*r->v));
    for (size_t i = 0; i < h->n; i++) {
        upto += all * (h->weight[i] / sum);
        add_points(r, h, i, upto);
    }
    if (r->n == 0) { // rounding of a ring of one point
        add_points(r, h, 0, 1);
    }
    qsort(r->v, r->n, sizeof(*r->v), point_cmp);
}

static void ring_fini(void *state)
{
    free(((struct ring *)state)->v);
}

static size_t ring_pick(void *state, const struct lb_hosts *h, const struct lb_draw *d)
{
    (void)h;
    const struct ring *r = state;
    uint64_t hash = d->has_hash ? d->hash : d->random;
    size_t lo = 0, hi = r->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (r->v[mid].hash < hash) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return r->v[(lo + d->attempt) % r->n].index;
}

const struct lb_ops lb_ring_hash = {
    .policy = LB_RING_HASH,
    .name = "RING_HASH",
    .by_hash = true,
    .state_size = sizeof(struct ring),
    .init = ring_init,
    .fini = ring_fini,
    .pick = ring_pick,
};
