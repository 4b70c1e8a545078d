// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

static const uint8_t families[] = { AF_INET, AF_INET6 };

// Adds the address condition of one family; false when that family has nothing to match.
static bool resolvers_of(const struct options *o, struct plan *p, uint8_t family, struct cidr_list *ret)
{
    *ret = cidr_list_family(&o->resolvers, family, p->a);
    return ret->n > 0 && (family == AF_INET || p->v6);
}

// nat: port 53 to the proxy's resolver, TCP before UDP as istio-iptables has it.
static void redirects(const struct options *o, struct plan *p)
{
    static const uint8_t protos[] = { IPPROTO_TCP, IPPROTO_UDP };
    for (size_t i = 0; i < 2; i++) {
        for (size_t f = 0; f < 2; f++) {
            struct cidr_list nets = { 0 };
            if ((o->capture_all_dns && f > 0) || (!o->capture_all_dns && !resolvers_of(o, p, families[f], &nets))) {
                continue;
            }
            struct rule *r = plan_add(p, CHAIN_DNS, ACTION_REDIRECT,
                                      o->capture_all_dns ? "--capture-all-dns" : "--redirect-dns",
                                      "DNS to the proxy's resolver");
            r->port = DNS_PORT;
            match_nets(p, r, MATCH_DADDR, &nets, false);
            match_proto(r, protos[i]);
            match_port(p, r, MATCH_DPORT, 53, false);
        }
    }
}

static struct rule *zone(struct plan *p, enum chain c, const char *what, enum match_kind side, uint16_t port, uint32_t value)
{
    struct rule *r = plan_add(p, c, ACTION_ZONE, "--redirect-dns", "%s", what);
    r->value = value;
    match_proto(r, IPPROTO_UDP);
    match_port(p, r, side, port, false);
    return r;
}

// The proxy by user, group or mark.
static void proxy_zones(const struct options *o, struct plan *p)
{
    static const enum match_kind kinds[] = { MATCH_MARK, MATCH_UID, MATCH_GID };
    for (size_t i = 0; i < 3; i++) {
        const struct id_list *ids = kinds[i] == MATCH_UID ? &o->proxy_uids : &o->proxy_gids;
        bool mark = kinds[i] == MATCH_MARK;
        for (size_t k = 0; k < 2 && (mark ? o->proxy_mark.mask != 0 : ids->n > 0); k++) {
            struct rule *r = k ? zone(p, CHAIN_RAW_OUT, "proxy answers the application", MATCH_SPORT, DNS_PORT, DNS_ZONE_APP)
                               : zone(p, CHAIN_RAW_OUT, "proxy asks a nameserver", MATCH_DPORT, 53, DNS_ZONE_PROXY);
            if (mark) {
                match_mark(r, MATCH_MARK, o->proxy_mark, false);
            } else {
                match_ids(r, kinds[i], ids, false);
            }
        }
    }
}

// raw: the proxy's upstream queries live in conntrack zone 1, the application's in zone 2. In one zone an application
// that takes a source port which the proxy has just used would meet the proxy's entry and get past the redirect.
static void zones(const struct options *o, struct plan *p)
{
    proxy_zones(o, p);
    for (size_t f = 0; f < 2; f++) {
        struct cidr_list nets = { 0 };
        if ((o->capture_all_dns && f > 0) || (!o->capture_all_dns && !resolvers_of(o, p, families[f], &nets))) {
            continue;
        }
        struct rule *r = plan_add(p, CHAIN_RAW_OUT, ACTION_ZONE, "--redirect-dns", "application asks");
        r->value = DNS_ZONE_APP;
        match_nets(p, r, MATCH_DADDR, &nets, false);
        match_proto(r, IPPROTO_UDP);
        match_port(p, r, MATCH_DPORT, 53, false);
        r = plan_add(p, CHAIN_RAW_PRE, ACTION_ZONE, "--redirect-dns", "nameserver answers the proxy");
        r->value = DNS_ZONE_PROXY;
        match_nets(p, r, MATCH_SADDR, &nets, false);
        match_proto(r, IPPROTO_UDP);
        match_port(p, r, MATCH_SPORT, 53, false);
    }
}

// DNS capture. -x does not protect a nameserver; -o 53 does.
void rules_dns(const struct options *o, struct plan *p)
{
    if (!o->redirect_dns) {
        return;
    }
    if (o->groups.all || o->groups.n) {
        plan_add(p, CHAIN_CAPTURE, ACTION_JUMP, "--redirect-dns", "DNS")->target = CHAIN_DNS;
    }
    redirects(o, p);
    zones(o, p);
}
