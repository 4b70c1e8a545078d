// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

// Inbound capture by nat: the tunnel port passes, then either all ports but -d, or the ports of -b.
// The redirect itself is also the target of the hairpin, so it stands in every mode.
void rules_inbound_redirect(const struct options *o, struct plan *p)
{
    struct rule *r = plan_add(p, CHAIN_TO_INBOUND, ACTION_REDIRECT, "-z", "to the proxy's inbound port");
    r->port = o->inbound_port;
    match_proto(r, IPPROTO_TCP);
    if (o->mode != MODE_REDIRECT || (!o->inbound_ports.all && o->inbound_ports.n == 0)) {
        return;
    }
    r = plan_add(p, CHAIN_NAT_PRE, ACTION_JUMP, "-b", "inbound TCP");
    r->target = CHAIN_INBOUND;
    match_proto(r, IPPROTO_TCP);
    r = plan_add(p, CHAIN_INBOUND, ACTION_RETURN, "-e", "tunnel port");
    match_proto(r, IPPROTO_TCP);
    match_port(p, r, MATCH_DPORT, o->tunnel_port, false);
    if (o->inbound_ports.all && o->inbound_exclude.n) {
        r = plan_add(p, CHAIN_INBOUND, ACTION_RETURN, "-d", "inbound ports left alone");
        match_proto(r, IPPROTO_TCP);
        match_ports(p, r, MATCH_DPORT, &o->inbound_exclude, false);
    }
    r = plan_add(p, CHAIN_INBOUND, ACTION_JUMP, "-b", o->inbound_ports.all ? "all inbound ports" : "inbound ports");
    r->target = CHAIN_TO_INBOUND;
    match_proto(r, IPPROTO_TCP);
    match_ports(p, r, MATCH_DPORT, &o->inbound_ports, false);
}
