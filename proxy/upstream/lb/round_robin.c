// SPDX-License-Identifier: Apache-2.0
// ROUND_ROBIN: equal weights by a counter, others by earliest deadline first.
#include "proxy/upstream/lb/edf.h"
#include "proxy/upstream/lb/lb.h"
#include "proxy/upstream/lb/policies.h"

#include "lib/base/rand.h"

struct round_robin {
    bool equal;
    uint64_t next;
    struct edf edf;
};

static double weight_of(void *arg, size_t i)
{
    return ((struct endpoint *const *)arg)[i]->weight;
}

static void rr_init(void *state, const struct cluster_cfg *cfg, struct endpoint *const *v, size_t n)
{
    (void)cfg;
    struct round_robin *s = state;
    s->equal = lb_equal_weights(v, n);
    s->next = rand_u64() >> 1;
    if (!s->equal) {
        edf_init(&s->edf, n, weight_of, (void *)v);
    }
}

static void rr_fini(void *state)
{
    edf_fini(&((struct round_robin *)state)->edf);
}

static size_t rr_pick(void *state, struct endpoint *const *v, size_t n, bool has_hash, uint64_t hash, uint64_t random)
{
    (void)has_hash, (void)hash, (void)random;
    struct round_robin *s = state;
    return s->equal ? (size_t)(s->next++ % n) : edf_next(&s->edf, weight_of, (void *)v);
}

const struct lb_ops lb_round_robin = {
    .policy = LB_ROUND_ROBIN,
    .name = "ROUND_ROBIN",
    .state_size = sizeof(struct round_robin),
    .init = rr_init,
    .fini = rr_fini,
    .pick = rr_pick,
};
