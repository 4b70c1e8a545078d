// SPDX-License-Identifier: Apache-2.0
// Inside of load balancing: priorities → localities → a policy's choice, over the hosts of a cluster or of one of its subsets. One worker.
//
//   struct lb      the endpoints that belong together: all of the cluster's, or one subset's; rebuilt when one of them changes its health
//   struct level   those of one priority, and the share of the picks that goes there
//   struct group   those among which a policy chooses: a level's, or one locality's of it
#ifndef PROXY_UPSTREAM_BALANCER_H
#define PROXY_UPSTREAM_BALANCER_H

#include "proxy/upstream/internal.h"
#include "proxy/upstream/lb/edf.h"
#include "proxy/upstream/lb/lb.h"

struct group {
    const struct endpoint **v; // owned
    double *weight;            // owned, beside v
    size_t n;
    struct lb_hosts hosts;     // of the policy: v, weight, n
    void *state;               // owned, the policy's; NULL when n is 0
    const struct endpoint *locality; // any member: tells region, zone and sub-zone
    double share;              // weighted localities: weight times what its healthy hosts can carry
};

enum level_spread {
    SPREAD_ONE,       // one group
    SPREAD_WEIGHTED,  // groups in turns by their share
    SPREAD_DIRECT,    // zone-aware: all to groups[0], the own zone
    SPREAD_RESIDUAL,  // zone-aware: a part to groups[0], the rest where there is room
};

struct level { // one priority
    uint32_t priority;
    size_t total, healthy;           // hosts, or weights with weighted_priority_health
    size_t total_hosts, healthy_hosts;
    uint32_t load;        // percent of the picks
    bool panic;           // use all hosts, whatever their health
    bool closed;          // in panic, and fail_traffic_on_panic is set: no host
    enum level_spread spread;
    struct group *groups; // owned
    size_t group_count;
    struct edf turns;     // SPREAD_WEIGHTED
    uint32_t own_part;    // SPREAD_RESIDUAL: of 10000, what stays in the own zone
    uint64_t *room;       // owned; SPREAD_RESIDUAL: sums of what the other groups can take, up to and with i
};

enum member_state {
    MEMBER_USABLE = 1,
    MEMBER_COUNTS = 2, // a part of percentages and panic: not while it is new, unchecked, and to be ignored for that
};

struct lb {
    struct endpoint_set *set; // ref
    struct cluster_cfg *cfg;  // ref
    unsigned epoch;
    const struct lb_ops *ops;
    const struct endpoint **members; // owned, into set: who may be chosen, healthy or not
    uint8_t *state;                  // owned, beside members: enum member_state bits as of the build
    size_t member_count;
    struct level *levels;            // owned, ascending priority
    size_t level_count;
    bool plain;                      // a subset that does not look at localities
    uint64_t local_generation;       // zone-aware: of the local cluster's endpoints then
    // of the cluster's whole
    struct map subsets;              // subset_key → struct lb * (owned), or SUBSET_NOBODY
};

// ---- balancer.c ----
// members: endpoints of set, taken over (heap). Never NULL.
struct lb *lb_build(struct cluster_worker *cw, struct cluster_cfg *cfg, struct endpoint_set *set, const struct endpoint **members, size_t n,
                    bool plain);
void lb_free(struct lb *lb);
// NULL when nobody is available.
const struct endpoint *lb_choose(struct cluster_worker *cw, struct lb *lb, const struct pick *p);
bool lb_usable(const struct endpoint *e);
// Whether any member is usable, or would be used in panic.
bool lb_any(const struct lb *lb);

// ---- localities.c ----
// Splits the usable members of l into its groups and says how the picks are spread over them.
void level_fill(struct cluster_worker *cw, struct lb *lb, struct level *l);
void level_fini(const struct lb *lb, struct level *l);
struct group *level_group(struct level *l);
// The endpoint set of the local cluster for zone-aware routing, NULL when there is none.
const struct endpoint_set *local_endpoints(const struct cluster_worker *cw);

// ---- subset.c ----
// The balancer that a request's criteria lead to: a subset's, the fallback's, or NULL for nobody. root: the cluster's.
struct lb *subset_find(struct cluster_worker *cw, struct lb *root, const struct pick *p);
void subsets_free(struct lb *root);

#endif
