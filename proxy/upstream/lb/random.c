// SPDX-License-Identifier: Apache-2.0
// RANDOM, by weight.
#include <stdlib.h>

#include "lib/base/mem.h"
#include "proxy/upstream/lb/lb.h"
#include "proxy/upstream/lb/policies.h"

struct random_state {
    uint64_t *upto; // owned; sums of the weights up to and with i; NULL = equal weights
};

static void random_init(void *state, const struct cluster_cfg *cfg, struct endpoint *const *v, size_t n)
{
    (void)cfg;
    struct random_state *s = state;
    if (lb_equal_weights(v, n)) {
        return;
    }
    s->upto = mem_alloc(n * sizeof(*s->upto));
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        s->upto[i] = sum += v[i]->weight;
    }
}

static void random_fini(void *state)
{
    free(((struct random_state *)state)->upto);
}

static size_t random_pick(void *state, struct endpoint *const *v, size_t n, bool has_hash, uint64_t hash, uint64_t random)
{
    (void)v, (void)has_hash, (void)hash;
    const struct random_state *s = state;
    if (!s->upto) {
        return (size_t)(random % n);
    }
    uint64_t x = random % s->upto[n - 1];
    size_t lo = 0, hi = n - 1;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->upto[mid] > x) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return lo;
}

const struct lb_ops lb_random = {
    .policy = LB_RANDOM,
    .name = "RANDOM",
    .state_size = sizeof(struct random_state),
    .init = random_init,
    .fini = random_fini,
    .pick = random_pick,
};
