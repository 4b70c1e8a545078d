// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

enum { ADMIN_PORT = 15000, QUIC_PORT = 443 };

static const uint8_t families[] = { AF_INET, AF_INET6 };

static void proxy_may(const struct options *o, struct plan *p)
{
    const char *text = "the proxy itself may";
    if (o->proxy_mark.mask) {
        match_mark(plan_add(p, CHAIN_GUARD_OUT, ACTION_RETURN, "--proxy-mark", "%s", text), MATCH_MARK, o->proxy_mark, false);
    }
    if (o->proxy_uids.n) {
        match_ids(plan_add(p, CHAIN_GUARD_OUT, ACTION_RETURN, "-u", "%s", text), MATCH_UID, &o->proxy_uids, false);
    }
    if (o->proxy_gids.n) {
        match_ids(plan_add(p, CHAIN_GUARD_OUT, ACTION_RETURN, "-g", "%s", text), MATCH_GID, &o->proxy_gids, false);
    }
}

// --guard-admin: who shares the pod's network could else change the proxy's log levels, drain it or read its configuration.
static void guard_admin(const struct options *o, struct plan *p)
{
    if (o->guard_admin) {
        struct rule *r = plan_add(p, CHAIN_GUARD_OUT, ACTION_REJECT, "--guard-admin", "the admin port is the proxy's own");
        match_name(r, MATCH_OIF, "lo");
        match_proto(r, IPPROTO_TCP);
        match_port(p, r, MATCH_DPORT, ADMIN_PORT, false);
    }
}

static struct rule *quic_rule(const struct options *o, struct plan *p, const struct cidr_list *nets, enum action_kind action,
                              const char *origin, const char *text)
{
    struct rule *r = plan_add(p, CHAIN_GUARD_OUT, action, origin, "%s", text);
    match_nets(p, r, MATCH_DADDR, nets, false);
    match_proto(r, IPPROTO_UDP);
    match_port(p, r, MATCH_DPORT, QUIC_PORT, false);
    if (action == ACTION_REJECT && !o->groups.all) {
        match_ids(r, MATCH_GID, &o->groups, false);
    }
    return r;
}

// --reject-quic: HTTP/3 would pass by the proxy; refused at once, clients take TCP. Exactly where TCP to that port is
// captured: the exceptions are those of rules/interfaces.c, exclude_ports.c, owner.c and capture.c.
static void reject_quic(const struct options *o, struct plan *p)
{
    static const char refused[] = "QUIC is refused, clients fall back to TCP";
    static const struct cidr_list any;
    bool all = o->cidrs.all || port_list_has(&o->outbound_ports, QUIC_PORT);
    bool nobody = !o->groups.all && o->groups.n == 0;
    if (!o->reject_quic || nobody || port_list_has(&o->outbound_exclude, QUIC_PORT)) {
        return;
    }
    match_name(quic_rule(o, p, &any, ACTION_RETURN, "", "application talks to itself"), MATCH_OIF, "lo");
    for (size_t i = 0; i < o->exclude_interfaces.n; i++) {
        match_name(quic_rule(o, p, &any, ACTION_RETURN, "-c", "interface left alone"), MATCH_OIF, o->exclude_interfaces.v[i]);
    }
    if (o->groups.all && o->groups_exclude.n) {
        match_ids(quic_rule(o, p, &any, ACTION_RETURN, "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "groups left alone"), MATCH_GID,
                  &o->groups_exclude, false);
    }
    for (size_t f = 0; f < 2; f++) {
        struct cidr_list nets = cidr_list_family(&o->cidrs_exclude, families[f], p->a);
        if (nets.n && (families[f] == AF_INET || p->v6)) {
            quic_rule(o, p, &nets, ACTION_RETURN, "-x", "networks left alone");
        }
    }
    if (all) {
        quic_rule(o, p, &any, ACTION_REJECT, "--reject-quic", refused);
        return;
    }
    for (size_t f = 0; f < 2; f++) {
        struct cidr_list nets = cidr_list_family(&o->cidrs, families[f], p->a);
        if (nets.n && (families[f] == AF_INET || p->v6)) {
            quic_rule(o, p, &nets, ACTION_REJECT, "--reject-quic", refused);
        }
    }
}

// What the application must not do, refused so that it notices at once.
void rules_guard(const struct options *o, struct plan *p)
{
    if (o->guard_admin || o->reject_quic) {
        proxy_may(o, p);
        guard_admin(o, p);
        reject_quic(o, p);
    }
}
