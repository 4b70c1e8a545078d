// SPDX-License-Identifier: Apache-2.0
// LEAST_REQUEST as cluster.v3.Cluster.LeastRequestLbConfig says: equal weights by the least busy of choice_count random hosts; others by
// earliest deadline first with weight / (active + 1).
#include "proxy/upstream/lb/edf.h"
#include "proxy/upstream/lb/lb.h"
#include "proxy/upstream/lb/policies.h"

#include "lib/base/rand.h"

struct least_request {
    bool equal;
    uint32_t choices;
    struct edf edf;
};

static unsigned active(const struct endpoint *e)
{
    return atomic_load_explicit(&e->host->rq_active, memory_order_relaxed);
}

static double weight_of(void *arg, size_t i)
{
    const struct endpoint *e = ((struct endpoint *const *)arg)[i];
    return (double)e->weight / (active(e) + 1.0);
}

static void lr_init(void *state, const struct cluster_cfg *cfg, struct endpoint *const *v, size_t n)
{
    struct least_request *s = state;
    s->equal = lb_equal_weights(v, n);
    s->choices = cfg->least_request_choices >= 2 ? cfg->least_request_choices : 2;
    if (!s->equal) {
        edf_init(&s->edf, n, weight_of, (void *)v);
    }
}

static void lr_fini(void *state)
{
    edf_fini(&((struct least_request *)state)->edf);
}

static size_t lr_pick(void *state, struct endpoint *const *v, size_t n, bool has_hash, uint64_t hash, uint64_t random)
{
    (void)has_hash, (void)hash;
    struct least_request *s = state;
    if (!s->equal) {
        return edf_next(&s->edf, weight_of, (void *)v);
    }
    size_t best = (size_t)(random % n);
    for (uint32_t i = 1; i < s->choices && n > 1; i++) {
        size_t other = (size_t)rand_below(n);
        if (active(v[other]) < active(v[best])) {
            best = other;
        }
    }
    return best;
}

const struct lb_ops lb_least_request = {
    .policy = LB_LEAST_REQUEST,
    .name = "LEAST_REQUEST",
    .state_size = sizeof(struct least_request),
    .init = lr_init,
    .fini = lr_fini,
    .pick = lr_pick,
};
