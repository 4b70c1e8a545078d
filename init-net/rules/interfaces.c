// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

// -k: what comes in from a virtual machine is its outbound traffic. All -i networks of an interface stand before the
// return that ends it; that return also catches UDP, which the redirect does not take.
static void kubevirt(const struct options *o, struct plan *p, const char *name)
{
    static const uint8_t families[] = { AF_INET, AF_INET6 };
    if (o->cidrs.all) {
        struct rule *r = plan_add(p, CHAIN_NAT_PRE, ACTION_JUMP, "-k", "from machine behind %s: as outbound", name);
        r->target = CHAIN_TO_OUTBOUND;
        match_name(r, MATCH_IIF, name);
    }
    for (size_t f = 0; f < 2; f++) {
        struct cidr_list nets = cidr_list_family(&o->cidrs, families[f], p->a);
        if (nets.n == 0 || (families[f] == AF_INET6 && !p->v6)) {
            continue;
        }
        struct rule *r = plan_add(p, CHAIN_NAT_PRE, ACTION_JUMP, "-k", "from machine behind %s: as outbound", name);
        r->target = CHAIN_TO_OUTBOUND;
        match_name(r, MATCH_IIF, name);
        match_nets(p, r, MATCH_DADDR, &nets, false);
    }
    match_name(plan_add(p, CHAIN_NAT_PRE, ACTION_RETURN, "-k", "the rest from machine behind %s", name), MATCH_IIF,
               name);
    // Else tproxy would take its TCP for inbound before nat sees it. (istio-iptables does: both then fight over it.)
    if (o->mode == MODE_TPROXY) {
        match_name(plan_add(p, CHAIN_MANGLE_PRE, ACTION_RETURN, "-k", "from machine behind %s: not inbound", name),
                   MATCH_IIF, name);
    }
}

// Interfaces that are left alone (-c) return in the chains that capture: nat both ways, mangle for TPROXY. -k comes first,
// as in istio-iptables.
void rules_interfaces(const struct options *o, struct plan *p)
{
    for (size_t i = 0; i < o->kubevirt_interfaces.n; i++) {
        kubevirt(o, p, o->kubevirt_interfaces.v[i]);
    }
    for (size_t i = 0; i < o->exclude_interfaces.n; i++) {
        const char *name = o->exclude_interfaces.v[i];
        static const enum chain in[] = { CHAIN_MANGLE_PRE, CHAIN_NAT_PRE };
        static const enum chain out[] = { CHAIN_MANGLE_OUT, CHAIN_NAT_OUT };
        for (size_t k = 0; k < 2; k++) {
            match_name(plan_add(p, in[k], ACTION_RETURN, "-c", "interface %s is left alone", name), MATCH_IIF, name);
            match_name(plan_add(p, out[k], ACTION_RETURN, "-c", "interface %s is left alone", name), MATCH_OIF, name);
        }
    }
}
