// SPDX-License-Identifier: Apache-2.0
#include "init-net/route.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <unistd.h>

#ifndef IFA_PROTO
#define IFA_PROTO 11 // linux/if_addr.h of Linux 5.18; older kernels pass over it
#endif

enum { REQ_BYTES = 512, RULES_MAX = 64, LO = 1 };
// set_…() return 0 when they changed something, this when there was nothing to change, or a negative errno.
enum { NOTHING_TO_DO = 1 };

static const uint8_t addr6[16] = { [15] = 6 };

struct fwmark_rule {
    uint8_t family;
    uint32_t mark, table;
    uint32_t priority; // 0: the kernel's choice
    uint8_t protocol; // who made it: FRA_PROTOCOL
};

static bool is_ours(const struct fwmark_rule *r)
{
    return r->protocol == ROUTE_PROTOCOL;
}

// What is there.
struct routing {
    bool addr6;
    size_t n;
    struct fwmark_rule rules[RULES_MAX];
};

static int on_addr(const struct nlmsghdr *msg, void *arg)
{
    struct routing *s = arg;
    const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(msg);
    const struct nlattr *attr;
    if (ifa->ifa_family != AF_INET6 || ifa->ifa_index != LO) {
        return MNL_CB_OK;
    }
    mnl_attr_for_each(attr, msg, sizeof(*ifa)) {
        if (mnl_attr_get_type(attr) == IFA_ADDRESS && mnl_attr_get_payload_len(attr) == 16 &&
            memcmp(mnl_attr_get_payload(attr), addr6, 16) == 0) {
            s->addr6 = true;
        }
    }
    return MNL_CB_OK;
}

static int on_rule(const struct nlmsghdr *msg, void *arg)
{
    struct routing *s = arg;
    const struct fib_rule_hdr *h = mnl_nlmsg_get_payload(msg);
    struct fwmark_rule r = { .family = h->family, .table = h->table };
    uint32_t mask = UINT32_MAX;
    const struct nlattr *attr;
    mnl_attr_for_each(attr, msg, sizeof(*h)) {
        uint16_t type = mnl_attr_get_type(attr);
        if (type == FRA_FWMARK) {
            r.mark = mnl_attr_get_u32(attr);
        } else if (type == FRA_FWMASK) {
            mask = mnl_attr_get_u32(attr);
        } else if (type == FRA_TABLE) {
            r.table = mnl_attr_get_u32(attr);
        } else if (type == FRA_PRIORITY) {
            r.priority = mnl_attr_get_u32(attr);
        } else if (type == FRA_PROTOCOL) {
            r.protocol = mnl_attr_get_u8(attr);
        }
    }
    if (r.mark && mask == UINT32_MAX && s->n < RULES_MAX) {
        s->rules[s->n++] = r;
    }
    return MNL_CB_OK;
}

static int dump(struct nl *nl, uint16_t type, uint8_t family, size_t header, mnl_cb_t cb, struct routing *s)
{
    char buf[REQ_BYTES];
    const struct routing before = *s;
    uint64_t until_ms = 0;
    int code;
    do {
        *s = before;
        struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
        msg->nlmsg_type = type;
        msg->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        *(uint8_t *)mnl_nlmsg_put_extra_header(msg, header) = family;
        code = nl_request(nl, msg, cb, s);
    } while (nl_again(code, &until_ms));
    return code;
}

static int read_routing(struct nl *nl, struct routing *ret, struct err *err)
{
    struct routing s = { 0 };
    int code = dump(nl, RTM_GETADDR, AF_INET6, sizeof(struct ifaddrmsg), on_addr, &s);
    code = code ? code : dump(nl, RTM_GETRULE, AF_INET, sizeof(struct fib_rule_hdr), on_rule, &s);
    // A kernel without IPv6 answers a dump of its rules with an error; there is nothing to see then.
    if (code == 0 && access("/proc/net/if_inet6", F_OK) == 0) {
        code = dump(nl, RTM_GETRULE, AF_INET6, sizeof(struct fib_rule_hdr), on_rule, &s);
    }
    if (code) {
        return err_set(err, code, "cannot read addresses and routing rules: %s", strerror(-code));
    }
    *ret = s;
    return 0;
}

static int failed(struct err *err, int code, const char *what)
{
    return err_set(err, code, "cannot %s: %s", what,
                   code == -EPERM ? "needs CAP_NET_ADMIN in the user namespace that owns the network namespace"
                                  : strerror(-code));
}

// ::6/128 on lo, added or removed.
static int set_addr6(struct nl *nl, bool add, struct err *err)
{
    char buf[REQ_BYTES];
    struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
    msg->nlmsg_type = add ? RTM_NEWADDR : RTM_DELADDR;
    msg->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_EXCL : 0);
    struct ifaddrmsg *ifa = mnl_nlmsg_put_extra_header(msg, sizeof(*ifa));
    *ifa = (struct ifaddrmsg){ .ifa_family = AF_INET6, .ifa_prefixlen = 128, .ifa_index = LO };
    mnl_attr_put(msg, IFA_LOCAL, 16, addr6);
    mnl_attr_put(msg, IFA_ADDRESS, 16, addr6);
    if (add) {
        mnl_attr_put_u32(msg, IFA_FLAGS, IFA_F_NODAD);
        mnl_attr_put_u8(msg, IFA_PROTO, ROUTE_PROTOCOL);
    }
    int code = nl_request(nl, msg, NULL, NULL);
    if (code == 0 || code == (add ? -EEXIST : -EADDRNOTAVAIL)) {
        return code == 0 ? 0 : NOTHING_TO_DO;
    }
    if (code == -EACCES || code == -ENODEV) {
        return err_set(err, code, "cannot add ::6/128 to lo: IPv6 is disabled there; set "
                                  "net.ipv6.conf.lo.disable_ipv6=0 or use --ipv6=off");
    }
    return failed(err, code, add ? "add ::6/128 to lo" : "remove ::6/128 from lo");
}

// A removal takes the first rule that is equal, whoever made it, unless it names the priority.
static int set_rule(struct nl *nl, bool add, const struct fwmark_rule *r, struct err *err)
{
    char buf[REQ_BYTES], what[96];
    struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
    msg->nlmsg_type = add ? RTM_NEWRULE : RTM_DELRULE;
    msg->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_EXCL : 0);
    struct fib_rule_hdr *h = mnl_nlmsg_put_extra_header(msg, sizeof(*h));
    *h = (struct fib_rule_hdr){ .family = r->family, .action = FR_ACT_TO_TBL };
    mnl_attr_put_u32(msg, FRA_TABLE, r->table);
    mnl_attr_put_u32(msg, FRA_FWMARK, r->mark);
    mnl_attr_put_u8(msg, FRA_PROTOCOL, r->protocol);
    if (r->priority) {
        mnl_attr_put_u32(msg, FRA_PRIORITY, r->priority);
    }
    int code = nl_request(nl, msg, NULL, NULL);
    if (code == 0 || code == (add ? -EEXIST : -ENOENT)) {
        return code == 0 ? 0 : NOTHING_TO_DO;
    }
    snprintf(what, sizeof(what), "%s the routing rule of mark %u to table %u", add ? "add" : "remove", r->mark, r->table);
    return failed(err, code, what);
}

// protocol: rtm_protocol, who made it; 0 in a removal means anybody.
static int set_route(struct nl *nl, bool add, uint8_t family, uint32_t table, uint8_t protocol, struct err *err)
{
    char buf[REQ_BYTES], what[96];
    struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
    msg->nlmsg_type = add ? RTM_NEWROUTE : RTM_DELROUTE;
    msg->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_EXCL : 0);
    struct rtmsg *rt = mnl_nlmsg_put_extra_header(msg, sizeof(*rt));
    *rt = (struct rtmsg){
        .rtm_family = family,
        .rtm_table = table < 256 ? (unsigned char)table : RT_TABLE_UNSPEC,
        .rtm_protocol = protocol,
        .rtm_scope = family == AF_INET ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE,
        .rtm_type = RTN_LOCAL,
    };
    mnl_attr_put_u32(msg, RTA_TABLE, table);
    mnl_attr_put_u32(msg, RTA_OIF, LO);
    int code = nl_request(nl, msg, NULL, NULL);
    // ENOENT: not even the table is there.
    if (code == 0 || code == (add ? -EEXIST : -ESRCH) || (!add && code == -ENOENT)) {
        return code == 0 ? 0 : NOTHING_TO_DO;
    }
    snprintf(what, sizeof(what), "%s the local route in table %u", add ? "add" : "remove", table);
    return failed(err, code, what);
}

static bool plan_wants(const struct plan *p, const struct fwmark_rule *r)
{
    bool on = p && (r->family == AF_INET ? p->policy_route4 : p->policy_route6);
    return on && r->mark == p->route_mark && r->table == p->route_table;
}

// Ours of a former configuration go; with p NULL all of ours go.
static int remove_stale(struct nl *nl, const struct routing *s, const struct plan *p, size_t *changes, struct err *err)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct fwmark_rule *r = &s->rules[i];
        if (!is_ours(r) || plan_wants(p, r)) {
            continue;
        }
        int code = set_rule(nl, false, r, err);
        if (code < 0) {
            return code;
        }
        // Another mark, same table: the route is still wanted.
        bool route_on = p && (r->family == AF_INET ? p->policy_route4 : p->policy_route6);
        if (!(route_on && p->route_table == r->table)) {
            code = set_route(nl, false, r->family, r->table, ROUTE_PROTOCOL, err);
        }
        if (code < 0) {
            return code;
        }
        (*changes)++;
    }
    if (s->addr6 && !(p && p->passthrough_addr6)) {
        int code = set_addr6(nl, false, err);
        if (code < 0) {
            return code;
        }
        (*changes)++;
    }
    return 0;
}

// istio-iptables' rules of TPROXY mode, whose chains are taken over. Its route stays where the plan wants one there: it
// says the same.
static int remove_istio(struct nl *nl, const struct routing *s, const struct plan *p, size_t *changes, struct err *err)
{
    enum { ISTIO_MARK = 1337, ISTIO_TABLE = 133 };
    for (size_t i = 0; i < s->n; i++) {
        const struct fwmark_rule *r = &s->rules[i];
        bool same = p && r->mark == p->route_mark && r->table == p->route_table;
        if (is_ours(r) || !(same || (r->mark == ISTIO_MARK && r->table == ISTIO_TABLE))) {
            continue;
        }
        int code = set_rule(nl, false, r, err);
        bool route_on = p && (r->family == AF_INET ? p->policy_route4 : p->policy_route6);
        if (code >= 0 && !(route_on && p->route_table == r->table)) {
            code = set_route(nl, false, r->family, r->table, 0, err);
        }
        if (code < 0) {
            return code;
        }
        (*changes)++;
    }
    return 0;
}

static bool has_rule(const struct routing *s, const struct fwmark_rule *want, bool ours)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct fwmark_rule *r = &s->rules[i];
        if (r->family == want->family && r->mark == want->mark && r->table == want->table && (!ours || is_ours(r))) {
            return true;
        }
    }
    return false;
}

// The rules of policy routing that the plan wants.
static size_t wanted_rules(const struct plan *p, struct fwmark_rule ret[2])
{
    size_t n = 0;
    if (p->policy_route4) {
        ret[n++] = (struct fwmark_rule){ AF_INET, p->route_mark, p->route_table, 0, ROUTE_PROTOCOL };
    }
    if (p->policy_route6) {
        ret[n++] = (struct fwmark_rule){ AF_INET6, p->route_mark, p->route_table, 0, ROUTE_PROTOCOL };
    }
    return n;
}

// Would route_prune find work?
static bool has_stale(const struct routing *s, const struct plan *p)
{
    for (size_t i = 0; i < s->n; i++) {
        if (is_ours(&s->rules[i]) && !plan_wants(p, &s->rules[i])) {
            return true;
        }
    }
    return s->addr6 && !p->passthrough_addr6;
}

int route_apply(struct nl *nl, const struct plan *p, bool takeover, struct route_added *ret_added, struct err *err)
{
    struct routing s;
    struct fwmark_rule want[2];
    struct route_added added = { .mark = p->route_mark, .table = p->route_table };
    int code = read_routing(nl, &s, err);
    added.stale = code == 0 && (takeover || has_stale(&s, p));
    if (code == 0 && p->passthrough_addr6 && !s.addr6) {
        code = set_addr6(nl, true, err);
        added.addr6 = code == 0;
    }
    size_t n = wanted_rules(p, want);
    for (size_t i = 0; i < n && code >= 0; i++) {
        bool v6 = want[i].family == AF_INET6;
        // The route first: a rule that leads to an empty table would be passed over, which looks like no TPROXY.
        code = set_route(nl, true, want[i].family, want[i].table, ROUTE_PROTOCOL, err);
        added.route[v6] = code == 0;
        if (code >= 0 && !has_rule(&s, &want[i], takeover)) {
            code = set_rule(nl, true, &want[i], err);
            added.rule[v6] = code == 0;
        }
    }
    *ret_added = added;
    return code < 0 ? code : 0;
}

void route_undo(struct nl *nl, const struct route_added *added)
{
    struct err err;
    for (int v6 = 0; v6 < 2; v6++) {
        struct fwmark_rule r = { v6 ? AF_INET6 : AF_INET, added->mark, added->table, 0, ROUTE_PROTOCOL };
        if (added->rule[v6]) {
            set_rule(nl, false, &r, &err);
        }
        if (added->route[v6]) {
            set_route(nl, false, r.family, r.table, ROUTE_PROTOCOL, &err);
        }
    }
    if (added->addr6) {
        set_addr6(nl, false, &err);
    }
}

size_t route_added_count(const struct route_added *added)
{
    return (size_t)added->addr6 + added->rule[0] + added->rule[1] + added->route[0] + added->route[1];
}

int route_prune(struct nl *nl, const struct plan *p, bool takeover, size_t *ret_changes, struct err *err)
{
    struct routing s;
    size_t changes = 0;
    int code = read_routing(nl, &s, err);
    code = code ? code : remove_stale(nl, &s, p, &changes, err);
    code = code || !takeover ? code : remove_istio(nl, &s, p, &changes, err);
    if (code == 0) {
        *ret_changes = changes;
    }
    return code;
}

bool route_check(struct nl *nl, const struct plan *p, char *why, size_t why_size)
{
    struct routing s;
    struct err err;
    struct fwmark_rule want[2];
    if (read_routing(nl, &s, &err)) {
        snprintf(why, why_size, "%s", err.msg);
        return false;
    }
    if (p->passthrough_addr6 && !s.addr6) {
        snprintf(why, why_size, "lo lacks the address ::6/128");
        return false;
    }
    size_t n = wanted_rules(p, want);
    for (size_t i = 0; i < n; i++) {
        if (!has_rule(&s, &want[i], false)) {
            snprintf(why, why_size, "there is no IPv%d routing rule from mark %u to table %u",
                     want[i].family == AF_INET ? 4 : 6, want[i].mark, want[i].table);
            return false;
        }
    }
    return true;
}
