// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

static const struct cidr passthrough[] = {
    { .family = AF_INET, .len = 32, .addr = { 127, 0, 0, 6 } },
    { .family = AF_INET6, .len = 128, .addr = { [15] = 6 } },
};

static struct mark whole_mark(uint32_t value)
{
    return (struct mark){ .value = value, .mask = UINT32_MAX };
}

// What is not intercepted: the proxy's own upstream packets (mark M), its deliveries, and lo but for self calls.
static void not_captured(const struct options *o, struct plan *p)
{
    struct rule *r = plan_add(p, CHAIN_TPROXY_INBOUND, ACTION_RETURN, "-t", "packets of the proxy's upstream sockets");
    match_mark(r, MATCH_MARK, whole_mark(o->tproxy_mark), false);
    for (size_t i = 0; i < 2; i++) {
        if (passthrough[i].family == AF_INET6 && !p->v6) {
            continue;
        }
        r = plan_add(p, CHAIN_TPROXY_INBOUND, ACTION_RETURN, "", "proxy delivers to the application");
        match_name(r, MATCH_IIF, "lo");
        match_net(p, r, MATCH_SADDR, &passthrough[i], false);
    }
    r = plan_add(p, CHAIN_TPROXY_INBOUND, ACTION_RETURN, "", "lo, but for the proxy's calls to its own pod");
    match_name(r, MATCH_IIF, "lo");
    match_mark(r, MATCH_MARK, whole_mark(TPROXY_SELF_MARK), true);
    // istio-iptables captures the tunnel port in this mode, against its own documentation.
    r = plan_add(p, CHAIN_TPROXY_INBOUND, ACTION_RETURN, "-e", "tunnel port");
    match_proto(r, IPPROTO_TCP);
    match_port(p, r, MATCH_DPORT, o->tunnel_port, false);
    if (o->inbound_ports.all && o->inbound_exclude.n) {
        r = plan_add(p, CHAIN_TPROXY_INBOUND, ACTION_RETURN, "-d", "inbound ports left alone");
        match_proto(r, IPPROTO_TCP);
        match_ports(p, r, MATCH_DPORT, &o->inbound_exclude, false);
    }
}

static void captured(const struct options *o, struct plan *p)
{
    struct rule *r = plan_add(p, CHAIN_TPROXY_INBOUND, ACTION_JUMP, "-b", "connections already captured");
    r->target = CHAIN_TPROXY_DIVERT;
    match_proto(r, IPPROTO_TCP);
    match_ports(p, r, MATCH_DPORT, &o->inbound_ports, false);
    match_ct_state(r, CT_ESTABLISHED | CT_RELATED);
    r = plan_add(p, CHAIN_TPROXY_INBOUND, ACTION_JUMP, "-b", o->inbound_ports.all ? "all inbound ports" : "inbound ports");
    r->target = CHAIN_TPROXY;
    match_proto(r, IPPROTO_TCP);
    match_ports(p, r, MATCH_DPORT, &o->inbound_ports, false);

    plan_add(p, CHAIN_TPROXY_DIVERT, ACTION_MARK, "-t", "routed to lo")->value = o->tproxy_mark;
    plan_add(p, CHAIN_TPROXY_DIVERT, ACTION_ACCEPT, "-t", "to the socket that has it");

    const struct cidr *loopbacks[] = { &o->loopback4, &o->loopback6 };
    for (size_t i = 0; i < 2; i++) {
        if (loopbacks[i]->family == AF_INET6 && !p->v6) {
            continue;
        }
        r = plan_add(p, CHAIN_TPROXY, ACTION_TPROXY, "-z", "to the proxy's inbound port");
        r->port = o->inbound_port;
        r->value = o->tproxy_mark;
        match_net(p, r, MATCH_DADDR, loopbacks[i], true);
        match_proto(r, IPPROTO_TCP);
        // nft's tproxy goes on when nobody listens; without this the application would get it past the proxy.
        r = plan_add(p, CHAIN_TPROXY, ACTION_DROP, "-z", "nobody listens on the proxy's inbound port");
        match_net(p, r, MATCH_DADDR, loopbacks[i], true);
        match_proto(r, IPPROTO_TCP);
    }
}

// Packets the pod itself sends: self calls of the proxy get mark 1338 so that they are intercepted when they come back
// by lo; answers on connections that the proxy opened with mark M are routed to lo.
static void output_marks(const struct options *o, struct plan *p)
{
    struct rule *r = plan_add(p, CHAIN_MANGLE_OUT, ACTION_RETURN, "-t", "packets of the proxy's upstream sockets");
    match_name(r, MATCH_OIF, "lo");
    match_mark(r, MATCH_MARK, whole_mark(o->tproxy_mark), false);
    const struct cidr *loopbacks[] = { &o->loopback4, &o->loopback6 };
    static const struct {
        enum match_kind kind;
        const char *origin;
    } owners[] = { { MATCH_MARK, "--proxy-mark" }, { MATCH_UID, "-u" }, { MATCH_GID, "-g" } };
    for (size_t k = 0; k < 3 && o->hairpin != HAIRPIN_OFF; k++) {
        const struct id_list *ids = owners[k].kind == MATCH_UID ? &o->proxy_uids : &o->proxy_gids;
        bool mark = owners[k].kind == MATCH_MARK;
        for (size_t i = 0; i < 2 && (mark ? o->proxy_mark.mask != 0 : ids->n > 0); i++) {
            if (loopbacks[i]->family == AF_INET6 && !p->v6) {
                continue;
            }
            r = plan_add(p, CHAIN_MANGLE_OUT, ACTION_MARK, owners[k].origin, "proxy calls its own pod: as inbound");
            r->value = TPROXY_SELF_MARK;
            match_name(r, MATCH_OIF, "lo");
            match_net(p, r, MATCH_DADDR, loopbacks[i], true);
            match_proto(r, IPPROTO_TCP);
            if (mark) {
                match_mark(r, MATCH_MARK, o->proxy_mark, false);
            } else {
                match_ids(r, owners[k].kind, ids, false);
            }
        }
    }
    r = plan_add(p, CHAIN_MANGLE_OUT, ACTION_CT_RESTORE, "-t", "answers go back to the proxy");
    match_mark(r, MATCH_CT_MARK, whole_mark(o->tproxy_mark), false);
}

// Inbound capture by tproxy. The routing rule "mark M looks up table T" and the route "all is local" there belong to it.
void rules_inbound_tproxy(const struct options *o, struct plan *p)
{
    if (o->mode != MODE_TPROXY || (!o->inbound_ports.all && o->inbound_ports.n == 0)) {
        return;
    }
    struct rule *r = plan_add(p, CHAIN_MANGLE_PRE, ACTION_JUMP, "-b", "inbound TCP");
    r->target = CHAIN_TPROXY_INBOUND;
    match_proto(r, IPPROTO_TCP);
    r = plan_add(p, CHAIN_MANGLE_PRE, ACTION_CT_SAVE, "-t", "remember the proxy's upstream connections");
    match_proto(r, IPPROTO_TCP);
    match_mark(r, MATCH_MARK, whole_mark(o->tproxy_mark), false);
    not_captured(o, p);
    captured(o, p);
    output_marks(o, p);
}
