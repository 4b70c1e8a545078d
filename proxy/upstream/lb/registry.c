// SPDX-License-Identifier: Apache-2.0
#include "lib/base/check.h"
#include "proxy/upstream/lb/lb.h"
#include "proxy/upstream/lb/policies.h"

// One line each. CLUSTER_PROVIDED is not a balancer: ORIGINAL_DST clusters choose by themselves.
static const struct lb_ops *const all[] = {
    &lb_round_robin, &lb_least_request, &lb_random, &lb_ring_hash, &lb_maglev,
};

const struct lb_ops *lb_find(enum lb_policy p)
{
    for (size_t i = 0; i < array_len(all); i++) {
        if (all[i]->policy == p) {
            return all[i];
        }
    }
    return NULL;
}
