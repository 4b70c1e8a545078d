// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

// IPv6 that is not wanted returns first in every chain, so that no rule below needs a thought about it. (istio-iptables'
// nftables backend has no such guard and captures IPv6 halfway.)
void rules_ipv6(const struct options *o, struct plan *p)
{
    if (o->v6 || o->v6_drop) {
        return;
    }
    for (int c = 0; c < CHAIN_BASES; c++) {
        match_family(plan_add(p, (enum chain)c, ACTION_RETURN, "--ipv6", "IPv6 is left alone"), AF_INET6);
    }
}

// --ipv6=drop: TCP over IPv6 would pass by the proxy, so it does not pass at all. Interfaces of -c were let go before;
// lo stays, the application may talk to itself.
void rules_ipv6_drop(const struct options *o, struct plan *p)
{
    if (!o->v6_drop) {
        return;
    }
    static const enum chain chains[] = { CHAIN_MANGLE_PRE, CHAIN_MANGLE_OUT };
    for (size_t i = 0; i < 2; i++) {
        bool in = chains[i] == CHAIN_MANGLE_PRE;
        struct rule *r = plan_add(p, chains[i], ACTION_RETURN, "--ipv6", "IPv6 on lo is left alone");
        match_family(r, AF_INET6);
        match_name(r, in ? MATCH_IIF : MATCH_OIF, "lo");
        r = plan_add(p, chains[i], ACTION_DROP, "--ipv6", "TCP over IPv6 is dropped");
        match_family(r, AF_INET6);
        match_proto(r, IPPROTO_TCP);
    }
    static const enum chain others[] = { CHAIN_RAW_PRE, CHAIN_RAW_OUT, CHAIN_NAT_PRE, CHAIN_NAT_OUT };
    for (size_t i = 0; i < 4; i++) {
        match_family(plan_add(p, others[i], ACTION_RETURN, "--ipv6", "IPv6 is not captured"), AF_INET6);
    }
    match_family(plan_add(p, CHAIN_MANGLE_PRE, ACTION_RETURN, "--ipv6", "IPv6 is not captured"), AF_INET6);
    match_family(plan_add(p, CHAIN_MANGLE_OUT, ACTION_RETURN, "--ipv6", "IPv6 is not captured"), AF_INET6);
}
