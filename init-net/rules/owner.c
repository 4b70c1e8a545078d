// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

struct owner {
    enum match_kind match;
    const struct id_list *ids;
    const char *origin;
    const char *word;
};

// Does -i name a loopback address? Then applications are captured on lo too.
static bool captures_loopback(const struct options *o)
{
    static const uint8_t one6[16] = { [15] = 1 };
    for (size_t i = 0; i < o->cidrs.n; i++) {
        const struct cidr *c = &o->cidrs.v[i];
        if ((c->family == AF_INET && c->addr[0] == 127) || (c->family == AF_INET6 && c->len == 128 &&
                                                            cidr_contains(c, AF_INET6, one6))) {
            return true;
        }
    }
    return false;
}

// The proxy calling an address of its own pod: intercept as inbound, so that mTLS and policy hold there too.
static void hairpin(const struct options *o, struct plan *p, const struct owner *w)
{
    const struct cidr *loopbacks[] = { &o->loopback4, &o->loopback6 };
    for (size_t i = 0; i < 2; i++) {
        if (loopbacks[i]->family == AF_INET6 && !p->v6) {
            continue;
        }
        struct rule *r = plan_add(p, CHAIN_OUTBOUND, ACTION_JUMP, w->origin,
                                  "proxy (by %s) calls its own pod: as inbound", w->word);
        r->target = CHAIN_TO_INBOUND;
        match_name(r, MATCH_OIF, "lo");
        match_net(p, r, MATCH_DADDR, loopbacks[i], true);
        match_proto(r, IPPROTO_TCP);
        // With DNS capture the proxy's own look-ups at a resolver on lo must get through; only the uid rules know that.
        struct port_range spared[2] = { { o->tunnel_port, o->tunnel_port }, { 53, 53 } };
        bool dns = o->redirect_dns && w->match == MATCH_UID;
        match_ports(p, r, MATCH_DPORT, &(struct port_list){ .n = dns ? 2 : 1, .v = spared }, true);
        match_ids(r, w->match, w->ids, false);
    }
}

// lo belongs to the application: whoever is not the proxy passes. With DNS capture all but DNS does.
static void application_on_lo(const struct options *o, struct plan *p, const struct owner *w)
{
    struct rule *r = plan_add(p, CHAIN_OUTBOUND, ACTION_RETURN, w ? w->origin : "", "application talks to itself");
    match_name(r, MATCH_OIF, "lo");
    if (o->redirect_dns) {
        match_proto(r, IPPROTO_TCP);
        match_port(p, r, MATCH_DPORT, 53, true);
    }
    if (w) {
        match_ids(r, w->match, w->ids, true);
    }
}

static void proxy_leaves(struct plan *p, const struct owner *w)
{
    match_ids(plan_add(p, CHAIN_OUTBOUND, ACTION_RETURN, w->origin, "traffic of the proxy itself"), w->match, w->ids,
              false);
}

// istio-iptables' order: three rules for each single id. The second id of -u and any -g are "not the proxy" for the
// first id's rule on lo, so their hairpin is dead.
static void owner_compat(const struct options *o, struct plan *p, const struct owner *all, bool lo_open)
{
    for (size_t i = 0; i < all->ids->n; i++) {
        struct id_list one = { .n = 1, .v = &all->ids->v[i] };
        struct owner w = *all;
        w.ids = &one;
        if (o->hairpin != HAIRPIN_OFF) {
            hairpin(o, p, &w);
        }
        if (lo_open) {
            application_on_lo(o, p, &w);
        }
        proxy_leaves(p, &w);
    }
}

// Which traffic is the proxy's. Our order asks for the proxy in the positive, so that traffic without a socket owner
// cannot be taken for it, and every uid has its hairpin.
void rules_owner(const struct options *o, struct plan *p)
{
    struct owner uids = { MATCH_UID, &o->proxy_uids, "-u", "user" };
    struct owner gids = { MATCH_GID, &o->proxy_gids, "-g", "group" };
    bool lo_open = !captures_loopback(o);
    if (o->proxy_mark.mask) {
        match_mark(plan_add(p, CHAIN_OUTBOUND, ACTION_RETURN, "--proxy-mark", "traffic of the proxy itself"),
                   MATCH_MARK, o->proxy_mark, false);
    }
    if (o->compat_istio) {
        owner_compat(o, p, &uids, lo_open);
        owner_compat(o, p, &gids, lo_open);
        return;
    }
    bool has_uids = uids.ids->n > 0, has_gids = gids.ids->n > 0;
    if (has_uids && o->hairpin != HAIRPIN_OFF) {
        hairpin(o, p, &uids);
    }
    // Where the application is not let go on lo as a whole, istio-iptables reaches the gid hairpin too.
    bool gid_hairpin = o->hairpin == HAIRPIN_ALL || (o->hairpin == HAIRPIN_UID && !lo_open);
    if (has_uids) {
        proxy_leaves(p, &uids);
    }
    if (has_gids && gid_hairpin) {
        hairpin(o, p, &gids);
    }
    if (lo_open) {
        application_on_lo(o, p, NULL);
    }
    if (has_gids) {
        proxy_leaves(p, &gids);
    }
}

// Owner groups (ISTIO_OUTBOUND_OWNER_GROUPS…), then on to the rules by destination.
void rules_groups(const struct options *o, struct plan *p)
{
    if (!o->groups.all && o->groups.n == 0) {
        return;
    }
    if (o->groups.all && o->groups_exclude.n) {
        match_ids(plan_add(p, CHAIN_OUTBOUND, ACTION_RETURN, "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
                           "groups left alone"),
                  MATCH_GID, &o->groups_exclude, false);
    }
    struct rule *r = plan_add(p, CHAIN_OUTBOUND, ACTION_JUMP, o->groups.all ? "" : "ISTIO_OUTBOUND_OWNER_GROUPS",
                              o->groups.all ? "the application's traffic" : "traffic of the captured groups");
    r->target = CHAIN_CAPTURE;
    if (!o->groups.all) {
        match_ids(r, MATCH_GID, &o->groups, false);
    }
}
