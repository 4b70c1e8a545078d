// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

// --established=syn-only: a connection that was open before conntrack began to look starts for it with a segment that is
// no SYN; left alone, it survives. The price: a captured connection whose conntrack entry is lost does not heal.
void rules_established(const struct options *o, struct plan *p)
{
    if (o->established != ESTABLISHED_SYN_ONLY) {
        return;
    }
    static const enum chain chains[] = { CHAIN_NAT_PRE, CHAIN_NAT_OUT };
    for (size_t i = 0; i < 2; i++) {
        struct rule *r = plan_add(p, chains[i], ACTION_RETURN, "--established", "open before the rules came");
        match_proto(r, IPPROTO_TCP);
        match_not_syn(r);
    }
}
