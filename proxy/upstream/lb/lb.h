// SPDX-License-Identifier: Apache-2.0
// Load balancers: one file and one line in registry.c each. An instance belongs to one worker and one choice of hosts.
#ifndef PROXY_UPSTREAM_LB_LB_H
#define PROXY_UPSTREAM_LB_LB_H

#include "proxy/model/endpoints.h"

// The hosts that an instance chooses among; they live as long as it does and do not change.
struct lb_hosts {
    const struct endpoint *const *v;
    const double *weight; // of each, > 0, in any unit
    size_t n;             // ≥ 1
    const struct cluster_cfg *cfg;
};
// What one choice may depend on.
struct lb_draw {
    bool has_hash;
    uint64_t hash;    // meaningful with has_hash
    uint64_t random;  // a fresh draw
    uint32_t attempt; // 0, 1, …: the same request asks again because it did not like what it got
    uint64_t now_ms;  // monotonic, for slow start
};

struct lb_ops {
    enum lb_policy policy;
    const char *name; // "ROUND_ROBIN"
    bool by_hash;     // equal hashes go to equal hosts: priorities are then chosen by the hash, too
    size_t state_size;
    void (*init)(void *state, const struct lb_hosts *h, uint64_t now_ms);
    void (*fini)(void *state);
    // Index into h->v.
    size_t (*pick)(void *state, const struct lb_hosts *h, const struct lb_draw *d);
};
const struct lb_ops *lb_find(enum lb_policy p); // NULL: not there (config refuses the cluster)

// Weight of host i at this moment: less while it starts slowly (cluster.v3.Cluster.SlowStartConfig).
double lb_weight(const struct lb_hosts *h, size_t i, uint64_t now_ms);
// All weights alike, and nobody starts slowly: the policy may do without looking at weights until the next instance.
bool lb_equal(const struct lb_hosts *h, uint64_t now_ms);
// What stands for the endpoint where hosts are placed by hash: its hash_key, its host name, or its address.
struct str lb_hash_key(const struct lb_hosts *h, size_t i);

#endif
