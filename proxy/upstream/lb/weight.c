// SPDX-License-Identifier: Apache-2.0
// Weights as they are at the moment, and the names under which hosts are hashed.
#include <math.h>

#include "proxy/upstream/lb/lb.h"

static uint64_t age_ms(const struct endpoint *e, uint64_t now_ms)
{
    uint64_t since = atomic_load_explicit(&e->host->since_ms, memory_order_relaxed);
    return now_ms > since ? now_ms - since : 0;
}

double lb_weight(const struct lb_hosts *h, size_t i, uint64_t now_ms)
{
    const struct slow_start_cfg *s = &h->cfg->slow_start;
    if (s->window_ms == 0) {
        return h->weight[i];
    }
    uint64_t age = age_ms(h->v[i], now_ms);
    if (age >= s->window_ms) {
        return h->weight[i];
    }
    double t = (double)(age ? age : 1) / (double)s->window_ms;
    double factor = s->aggression == 1.0 ? t : pow(t, 1.0 / s->aggression), least = s->min_percent / 100;
    return h->weight[i] * (factor > least ? factor : least);
}

bool lb_equal(const struct lb_hosts *h, uint64_t now_ms)
{
    for (size_t i = 0; i < h->n; i++) {
        if (h->weight[i] != h->weight[0] || (h->cfg->slow_start.window_ms && age_ms(h->v[i], now_ms) < h->cfg->slow_start.window_ms)) {
            return false;
        }
    }
    return true;
}

struct str lb_hash_key(const struct lb_hosts *h, size_t i)
{
    const struct endpoint *e = h->v[i];
    if (e->more && e->more->hash_key.n) {
        return e->more->hash_key;
    }
    return str_c(h->cfg->hash_by_hostname && e->host->hostname ? e->host->hostname : e->host->text);
}
