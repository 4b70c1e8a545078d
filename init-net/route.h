// SPDX-License-Identifier: Apache-2.0
// The routing half of the plan: ::6/128 on lo, and for TPROXY the rule "mark M looks up table T" with the route
// "everything is local" in T. What we add carries our own origin number (FRA_PROTOCOL, rtm_protocol), so that cleanup
// finds it whatever the flags were.
#ifndef INIT_NET_ROUTE_H
#define INIT_NET_ROUTE_H

#include "init-net/nl.h"
#include "init-net/plan.h"

enum { ROUTE_PROTOCOL = 114 }; // above RTPROT_STATIC, unused by linux/rtnetlink.h and /etc/iproute2/rt_protos

// Before the rules: adds what the plan wants and is not there. *ret_changes counts.
int route_apply(struct nl *nl, const struct plan *p, size_t *ret_changes, struct err *err);
// After the rules: removes what is ours and the plan (NULL: no plan, so all) does not want. *ret_changes counts.
int route_prune(struct nl *nl, const struct plan *p, size_t *ret_changes, struct err *err);
// Is the routing as the plan wants it? On false, why says what is missing.
bool route_check(struct nl *nl, const struct plan *p, char *why, size_t why_size);

#endif
