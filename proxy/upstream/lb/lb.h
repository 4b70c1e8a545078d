// SPDX-License-Identifier: Apache-2.0
// Load balancers: one file and one line in registry.c each. An instance belongs to one worker and one endpoint set.
#ifndef PROXY_UPSTREAM_LB_LB_H
#define PROXY_UPSTREAM_LB_LB_H

#include "proxy/model/endpoints.h"

struct lb_ops {
    enum lb_policy policy;
    const char *name; // "ROUND_ROBIN"
    size_t state_size;
    // v: the usable endpoints of the chosen priority, n ≥ 1; they live as long as the instance.
    void (*init)(void *state, const struct cluster_cfg *cfg, struct endpoint *const *v, size_t n);
    void (*fini)(void *state);
    // Index into v. hash is only meaningful with has_hash; random: a fresh draw.
    size_t (*pick)(void *state, struct endpoint *const *v, size_t n, bool has_hash, uint64_t hash, uint64_t random);
};
const struct lb_ops *lb_find(enum lb_policy p); // NULL: not there (config refuses the cluster)

#endif
