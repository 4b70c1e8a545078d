// SPDX-License-Identifier: Apache-2.0
// RANDOM, by weight.
#include <stdlib.h>

#include "lib/base/mem.h"
#include "proxy/upstream/lb/lb.h"
#include "proxy/upstream/lb/policies.h"

struct random_state {
    double *upto; // owned; sums of the weights up to and with i; NULL = equal weights
};

static void random_init(void *state, const struct lb_hosts *h, uint64_t now_ms)
{
    (void)now_ms;
    struct random_state *s = state;
    bool equal = true;
    for (size_t i = 1; i < h->n; i++) {
        equal = equal && h->weight[i] == h->weight[0];
    }
    if (equal) {
        return;
    }
    s->upto = mem_alloc(h->n * sizeof(*s->upto));
    double sum = 0;
    for (size_t i = 0; i < h->n; i++) {
        s->upto[i] = sum += h->weight[i];
    }
}

static void random_fini(void *state)
{
    free(((struct random_state *)state)->upto);
}

static size_t random_pick(void *state, const struct lb_hosts *h, const struct lb_draw *d)
{
    const struct random_state *s = state;
    if (!s->upto) {
        return (size_t)(d->random % h->n);
    }
    double x = (double)(d->random >> 11) * 0x1p-53 * s->upto[h->n - 1]; // 53 bits: below the last sum
    size_t lo = 0, hi = h->n - 1;
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
