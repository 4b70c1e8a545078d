// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

// -o: outbound ports left alone, TCP and UDP. First of all outbound rules: beats even the hairpin and DNS.
void rules_exclude_ports(const struct options *o, struct plan *p)
{
    static const uint8_t protos[] = { IPPROTO_TCP, IPPROTO_UDP };
    for (size_t i = 0; i < 2 && o->outbound_exclude.n; i++) {
        struct rule *r = plan_add(p, CHAIN_OUTBOUND, ACTION_RETURN, "-o", "outbound ports left alone");
        match_proto(r, protos[i]);
        match_ports(p, r, MATCH_DPORT, &o->outbound_exclude, false);
    }
}
