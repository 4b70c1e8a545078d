// SPDX-License-Identifier: Apache-2.0
// The routing half of the plan: ::6/128 on lo, and for TPROXY the rule "mark M looks up table T" with the route
// "everything is local" in T. What we add carries our own origin number (FRA_PROTOCOL, rtm_protocol), so that cleanup
// finds it whatever the flags were.
#ifndef INIT_NET_ROUTE_H
#define INIT_NET_ROUTE_H

#include "init-net/nl.h"
#include "init-net/plan.h"

enum { ROUTE_PROTOCOL = 114 }; // above RTPROT_STATIC, unused by linux/rtnetlink.h and /etc/iproute2/rt_protos

// What route_apply added, so that it can be taken back.
struct route_added {
    bool addr6;
    bool rule[2], route[2]; // IPv4, IPv6
    uint32_t mark, table;
    bool stale; // there is something that route_prune would remove
};

// Before the rules: adds what the plan wants and is not there. With takeover another program's equal rule does not count,
// since it will go. *ret_added says what that was, also on failure (what was added until then).
int route_apply(struct nl *nl, const struct plan *p, bool takeover, struct route_added *ret_added, struct err *err);
// Takes back what route_apply added, as well as it can: for when the kernel refused the rules.
void route_undo(struct nl *nl, const struct route_added *added);
size_t route_added_count(const struct route_added *added);
// After the rules: removes what is ours and the plan (NULL: no plan, so all) does not want. With takeover also the rules
// that istio-iptables makes for TPROXY (mark and table of the plan, or its defaults; each re-run of it adds one more) and
// the route of that table. *ret_changes counts.
int route_prune(struct nl *nl, const struct plan *p, bool takeover, size_t *ret_changes, struct err *err);
// Is the routing as the plan wants it? On false, why says what is missing.
bool route_check(struct nl *nl, const struct plan *p, char *why, size_t why_size);

#endif
