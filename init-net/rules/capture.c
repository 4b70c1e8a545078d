// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

static const uint8_t families[] = { AF_INET, AF_INET6 };

// -x and the loopback network: destinations left alone. -x stands before -q and -i.
static void excluded(const struct options *o, struct plan *p)
{
    const struct cidr *loopbacks[] = { &o->loopback4, &o->loopback6 };
    for (size_t f = 0; f < 2; f++) {
        if (families[f] == AF_INET6 && !p->v6) {
            continue;
        }
        match_net(p, plan_add(p, CHAIN_CAPTURE, ACTION_RETURN, "", "loopback"), MATCH_DADDR, loopbacks[f], false);
    }
    for (size_t f = 0; f < 2; f++) {
        struct cidr_list nets = cidr_list_family(&o->cidrs_exclude, families[f], p->a);
        if (nets.n == 0 || (families[f] == AF_INET6 && !p->v6)) {
            continue;
        }
        match_nets(p, plan_add(p, CHAIN_CAPTURE, ACTION_RETURN, "-x", "networks left alone"), MATCH_DADDR, &nets,
                   false);
    }
}

// The destinations that go to the proxy: -q ports whatever the address, then -i networks.
void rules_capture(const struct options *o, struct plan *p)
{
    if (!o->cidrs.all && o->cidrs.n == 0 && o->outbound_ports.n == 0) {
        return;
    }
    excluded(o, p);
    if (o->outbound_ports.n) {
        struct rule *r = plan_add(p, CHAIN_CAPTURE, ACTION_JUMP, "-q", "outbound ports that are captured");
        r->target = CHAIN_TO_OUTBOUND;
        match_proto(r, IPPROTO_TCP);
        match_ports(p, r, MATCH_DPORT, &o->outbound_ports, false);
    }
    if (o->cidrs.all) {
        plan_add(p, CHAIN_CAPTURE, ACTION_JUMP, "-i", "all networks are captured")->target = CHAIN_TO_OUTBOUND;
    }
    for (size_t f = 0; f < 2; f++) {
        struct cidr_list nets = cidr_list_family(&o->cidrs, families[f], p->a);
        if (nets.n == 0 || (families[f] == AF_INET6 && !p->v6)) {
            continue;
        }
        struct rule *r = plan_add(p, CHAIN_CAPTURE, ACTION_JUMP, "-i", "networks that are captured");
        r->target = CHAIN_TO_OUTBOUND;
        match_nets(p, r, MATCH_DADDR, &nets, false);
    }
    struct rule *r = plan_add(p, CHAIN_TO_OUTBOUND, ACTION_REDIRECT, "-p", "to the proxy's outbound port");
    r->port = o->outbound_port;
    match_proto(r, IPPROTO_TCP);
}
