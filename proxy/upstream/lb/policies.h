// SPDX-License-Identifier: Apache-2.0
// What registry.c lists, and what the policies share.
#ifndef PROXY_UPSTREAM_LB_POLICIES_H
#define PROXY_UPSTREAM_LB_POLICIES_H

#include "proxy/upstream/lb/lb.h"

extern const struct lb_ops lb_round_robin, lb_least_request, lb_random, lb_ring_hash, lb_maglev;

static inline bool lb_equal_weights(struct endpoint *const *v, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        if (v[i]->weight != v[0]->weight) {
            return false;
        }
    }
    return true;
}

#endif
