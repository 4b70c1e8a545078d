// SPDX-License-Identifier: Apache-2.0
// What registry.c lists.
#ifndef PROXY_UPSTREAM_LB_POLICIES_H
#define PROXY_UPSTREAM_LB_POLICIES_H

#include "proxy/upstream/lb/lb.h"

extern const struct lb_ops lb_round_robin, lb_least_request, lb_random, lb_ring_hash, lb_maglev;

#endif
