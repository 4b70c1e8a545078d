// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

struct owner {
    enum match_kind match;
    const struct id_list *ids; // MATCH_UID, MATCH_GID
    struct mark mark;          // MATCH_MARK
    const char *origin;
    const char *word;
};

static void match_owner(struct rule *r, const struct owner *w, bool negate)
{
    if (w->match == MATCH_MARK) {
        match_mark(r, MATCH_MARK, w->mark, negate);
    } else {
        match_ids(r, w->match, w->ids, negate);
    }
}

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
        // With DNS capture the proxy's own look-ups at a resolver on lo must get through; only the gid rules do not know that.
        struct port_range spared[2] = { { o->tunnel_port, o->tunnel_port }, { 53, 53 } };
        bool dns = o->redirect_dns && w->match != MATCH_GID;
        match_ports(p, r, MATCH_DPORT, &(struct port_list){ .n = dns ? 2 : 1, .v = spared }, true);
        match_owner(r, w, false);
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
        match_owner(r, w, true);
    }
}

static void proxy_leaves(struct plan *p, const struct owner *w)
{
    match_owner(plan_add(p, CHAIN_OUTBOUND, ACTION_RETURN, w->origin, "traffic of the proxy itself"), w, false);
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

static struct mark whole_mark(uint32_t value)
{
    return (struct mark){ .value = value, .mask = UINT32_MAX };
}

// --proxy-mark: the proxy told by a mark on its sockets, where it shares its user with the application. All that -u gives a
// user, the mark gives too: the hairpin, the way out, and (rules/dns.c, rules/inbound_tproxy.c) zones and self calls.
static void owner_by_mark(const struct options *o, struct plan *p)
{
    struct owner marks = { .match = MATCH_MARK, .mark = o->proxy_mark, .origin = "--proxy-mark", .word = "mark" };
    if (!o->proxy_mark.mask) {
        return;
    }
    if (o->mode == MODE_TPROXY && o->hairpin != HAIRPIN_OFF) {
        // Two other marks on lo: deliveries with the client's address, and self calls, which mangle has marked anew.
        const uint32_t values[] = { o->tproxy_mark, TPROXY_SELF_MARK };
        for (size_t i = 0; i < 2; i++) {
            struct rule *r = plan_add(p, CHAIN_OUTBOUND, ACTION_RETURN, "--proxy-mark",
                                      i ? "self call: inbound by tproxy" : "proxy delivers to the application");
            match_name(r, MATCH_OIF, "lo");
            match_mark(r, MATCH_MARK, whole_mark(values[i]), false);
        }
    }
    if (o->hairpin != HAIRPIN_OFF) {
        hairpin(o, p, &marks);
    }
    proxy_leaves(p, &marks);
}

// Which traffic is the proxy's. Our order asks for the proxy in the positive, so that traffic without a socket owner
// cannot be taken for it, and every uid has its hairpin.
void rules_owner(const struct options *o, struct plan *p)
{
    struct owner uids = { .match = MATCH_UID, .ids = &o->proxy_uids, .origin = "-u", .word = "user" };
    struct owner gids = { .match = MATCH_GID, .ids = &o->proxy_gids, .origin = "-g", .word = "group" };
    bool lo_open = !captures_loopback(o);
    owner_by_mark(o, p);
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
