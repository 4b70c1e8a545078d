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
struct moment {
    const struct lb_hosts *h;
    uint64_t now_ms;
};

static double weight_of(void *arg, size_t i)
{
    const struct moment *m = arg;
    return lb_weight(m->h, i, m->now_ms);
}

static void rr_init(void *state, const struct lb_hosts *h, uint64_t now_ms)
{
    struct round_robin *s = state;
    s->equal = lb_equal(h, now_ms);
    s->next = rand_u64() >> 1;
    if (!s->equal) {
        edf_init(&s->edf, h->n, weight_of, &(struct moment){ h, now_ms });
    }
}

static void rr_fini(void *state)
{
    edf_fini(&((struct round_robin *)state)->edf);
}

static size_t rr_pick(void *state, const struct lb_hosts *h, const struct lb_draw *d)
{
    struct round_robin *s = state;
    return s->equal ? (size_t)(s->next++ % h->n) : edf_next(&s->edf, weight_of, &(struct moment){ h, d->now_ms });
}

const struct lb_ops lb_round_robin = {
    .policy = LB_ROUND_ROBIN,
    .name = "ROUND_ROBIN",
    .state_size = sizeof(struct round_robin),
    .init = rr_init,
    .fini = rr_fini,
    .pick = rr_pick,
};
