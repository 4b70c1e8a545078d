// SPDX-License-Identifier: Apache-2.0
// LEAST_REQUEST as cluster.v3.Cluster.LeastRequestLbConfig says: equal weights by the least busy of choice_count random hosts (or of all, with
// FULL_SCAN); others by earliest deadline first with weight / (active + 1)^active_request_bias.
#include <math.h>

#include "proxy/upstream/lb/edf.h"
#include "proxy/upstream/lb/lb.h"
#include "proxy/upstream/lb/policies.h"

#include "lib/base/rand.h"

struct least_request {
    bool equal;
    uint32_t choices;
    struct edf edf;
};
struct moment {
    const struct lb_hosts *h;
    uint64_t now_ms;
};

static unsigned active(const struct endpoint *e)
{
    return atomic_load_explicit(&e->host->rq_active, memory_order_relaxed);
}

static double weight_of(void *arg, size_t i)
{
    const struct moment *m = arg;
    double w = lb_weight(m->h, i, m->now_ms), bias = m->h->cfg->least_request_bias, n = active(m->h->v[i]) + 1.0;
    if (n == 1.0 || bias == 0) {
        return w;
    }
    return w / (bias == 1.0 ? n : pow(n, bias));
}

static void lr_init(void *state, const struct lb_hosts *h, uint64_t now_ms)
{
    struct least_request *s = state;
    s->equal = lb_equal(h, now_ms);
    s->choices = h->cfg->least_request_choices >= 2 ? h->cfg->least_request_choices : 2;
    if (!s->equal) {
        edf_init(&s->edf, h->n, weight_of, &(struct moment){ h, now_ms });
    }
}

static void lr_fini(void *state)
{
    edf_fini(&((struct least_request *)state)->edf);
}

// The least busy of all; the first of equals from a random place on.
static size_t full_scan(const struct lb_hosts *h, uint64_t random)
{
    size_t first = (size_t)(random % h->n), best = first;
    for (size_t k = 1; k < h->n; k++) {
        size_t i = (first + k) % h->n;
        best = active(h->v[i]) < active(h->v[best]) ? i : best;
    }
    return best;
}

static size_t lr_pick(void *state, const struct lb_hosts *h, const struct lb_draw *d)
{
    struct least_request *s = state;
    if (!s->equal) {
        return edf_next(&s->edf, weight_of, &(struct moment){ h, d->now_ms });
    }
    if (h->cfg->least_request_full_scan) {
        return full_scan(h, d->random);
    }
    size_t best = (size_t)(d->random % h->n);
    for (uint32_t i = 1; i < s->choices && h->n > 1; i++) {
        size_t other = (size_t)rand_below(h->n);
        if (active(h->v[other]) < active(h->v[best])) {
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
