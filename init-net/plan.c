// SPDX-License-Identifier: Apache-2.0
#include "init-net/plan.h"

#include <linux/netfilter.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "init-net/print.h"
#include "init-net/rules/registry.h"
#include "lib/base/check.h"
#include "lib/base/hash.h"

// Hook priorities of linux/netfilter_ipv4.h: raw -300, mangle -150, dstnat -100.
const struct chain_info plan_chains[CHAIN_COUNT] = {
    [CHAIN_RAW_PRE] = { "raw_pre", "filter", NF_INET_PRE_ROUTING, -300, "raw", "REMORA_PRE" },
    [CHAIN_RAW_OUT] = { "raw_out", "filter", NF_INET_LOCAL_OUT, -300, "raw", "REMORA_OUT" },
    // Behind conntrack (-200), before all that changes a packet. iptables could refuse in its table filter only.
    [CHAIN_GUARD_OUT] = { "guard_out", "filter", NF_INET_LOCAL_OUT, -190, "none", "" },
    [CHAIN_MANGLE_PRE] = { "mangle_pre", "filter", NF_INET_PRE_ROUTING, -150, "mangle", "REMORA_PRE" },
    [CHAIN_MANGLE_OUT] = { "mangle_out", "route", NF_INET_LOCAL_OUT, -150, "mangle", "REMORA_OUT" },
    [CHAIN_NAT_PRE] = { "nat_pre", "nat", NF_INET_PRE_ROUTING, -100, "nat", "REMORA_PRE" },
    [CHAIN_NAT_OUT] = { "nat_out", "nat", NF_INET_LOCAL_OUT, -100, "nat", "REMORA_OUT" },
    [CHAIN_INBOUND] = { "inbound", NULL, 0, 0, "nat", "REMORA_INBOUND" },
    [CHAIN_OUTBOUND] = { "outbound", NULL, 0, 0, "nat", "REMORA_OUTBOUND" },
    [CHAIN_CAPTURE] = { "capture", NULL, 0, 0, "nat", "REMORA_CAPTURE" },
    [CHAIN_DNS] = { "dns", NULL, 0, 0, "nat", "REMORA_DNS" },
    [CHAIN_TO_INBOUND] = { "to_inbound", NULL, 0, 0, "nat", "REMORA_TO_IN" },
    [CHAIN_TO_OUTBOUND] = { "to_outbound", NULL, 0, 0, "nat", "REMORA_TO_OUT" },
    [CHAIN_TPROXY_INBOUND] = { "tproxy_inbound", NULL, 0, 0, "mangle", "REMORA_TP_IN" },
    [CHAIN_TPROXY_DIVERT] = { "tproxy_divert", NULL, 0, 0, "mangle", "REMORA_TP_DIV" },
    [CHAIN_TPROXY] = { "to_tproxy", NULL, 0, 0, "mangle", "REMORA_TPROXY" },
};

struct rule *plan_add(struct plan *p, enum chain c, enum action_kind action, const char *origin, const char *fmt, ...)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 64;
        struct rule *v = arena_array(p->a, struct rule, cap);
        if (p->n) {
            memcpy(v, p->rules, p->n * sizeof(*v));
        }
        p->rules = v;
        p->cap = cap;
    }
    char text[RULE_COMMENT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    struct rule *r = &p->rules[p->n++];
    *r = (struct rule){ .chain = c, .action = action, .origin = origin };
    r->comment = arena_str(p->a, str_c(text)).p;
    return r;
}

static struct match *add_match(struct rule *r, enum match_kind kind, bool negate)
{
    CHECK(r->n < RULE_MATCHES_MAX);
    struct match *m = &r->m[r->n++];
    *m = (struct match){ .kind = kind, .negate = negate };
    return m;
}

void match_family(struct rule *r, uint8_t family)
{
    add_match(r, MATCH_FAMILY, false)->family = family;
}

void match_proto(struct rule *r, uint8_t proto)
{
    add_match(r, MATCH_PROTO, false)->proto = proto;
}

void match_ports(struct plan *p, struct rule *r, enum match_kind kind, const struct port_list *ports, bool negate)
{
    if (ports->n) {
        add_match(r, kind, negate)->ports = port_list_disjoint(ports, p->a);
    }
}

void match_port(struct plan *p, struct rule *r, enum match_kind kind, uint16_t port, bool negate)
{
    struct port_range one = { port, port };
    match_ports(p, r, kind, &(struct port_list){ .n = 1, .v = &one }, negate);
}

void match_name(struct rule *r, enum match_kind kind, const char *name)
{
    add_match(r, kind, false)->name = name;
}

void match_nets(struct plan *p, struct rule *r, enum match_kind kind, const struct cidr_list *nets, bool negate)
{
    if (nets->n) {
        add_match(r, kind, negate)->nets = cidr_list_disjoint(nets, p->a);
    }
}

void match_net(struct plan *p, struct rule *r, enum match_kind kind, const struct cidr *net, bool negate)
{
    struct cidr one = *net;
    match_nets(p, r, kind, &(struct cidr_list){ .n = 1, .v = &one }, negate);
}

void match_ids(struct rule *r, enum match_kind kind, const struct id_list *ids, bool negate)
{
    CHECK(ids->n);
    add_match(r, kind, negate)->ids = *ids;
}

void match_mark(struct rule *r, enum match_kind kind, struct mark mark, bool negate)
{
    add_match(r, kind, negate)->mark = mark;
}

void match_ct_state(struct rule *r, uint32_t bits)
{
    add_match(r, MATCH_CT_STATE, false)->ct_state = bits;
}

void match_not_syn(struct rule *r)
{
    add_match(r, MATCH_NOT_SYN, false);
}

bool plan_chain_used(const struct plan *p, enum chain c)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->rules[i].chain == c) {
            return true;
        }
    }
    return false;
}

bool plan_rule_is_for(const struct rule *r, uint8_t family)
{
    for (size_t i = 0; i < r->n && family != NFPROTO_INET; i++) {
        const struct match *m = &r->m[i];
        if ((m->kind == MATCH_FAMILY && m->family != family) ||
            ((m->kind == MATCH_SADDR || m->kind == MATCH_DADDR) && m->nets.v[0].family != family)) {
            return false;
        }
    }
    return true;
}

bool plan_chain_in(const struct plan *p, uint8_t family, enum chain c)
{
    // IPv6 that is not captured has no rules but those of --ipv6=drop, which stand in mangle.
    bool only_drop = family == NFPROTO_IPV6 && !p->v6;
    if (only_drop && (!p->o->v6_drop || strcmp(plan_chains[c].iptables_table, "mangle") != 0)) {
        return false;
    }
    if (c >= CHAIN_BASES) {
        return plan_chain_used(p, c); // a jump may lead here, though this family has no rule in it
    }
    for (size_t i = 0; i < p->n; i++) {
        if (p->rules[i].chain == c && plan_rule_is_for(&p->rules[i], family)) {
            return true;
        }
    }
    return false;
}

size_t plan_tables(const struct plan *p, uint8_t ret[2])
{
    if (p->layout == PLAN_INET) {
        ret[0] = NFPROTO_INET;
        return 1;
    }
    ret[0] = NFPROTO_IPV4;
    ret[1] = NFPROTO_IPV6;
    return p->v6 || p->o->v6_drop ? 2 : 1;
}

// Tables have comments since Linux 5.10.
static bool keeps_comments(void)
{
    struct utsname u;
    uint64_t major = 0, minor = 0;
    if (uname(&u) < 0) {
        return false;
    }
    struct str rest = str_c(u.release);
    struct str first = str_split(&rest, '.');
    size_t n = 0;
    while (n < rest.n && rest.p[n] >= '0' && rest.p[n] <= '9') {
        n++;
    }
    return str_to_u64(first, 1000, &major) && str_to_u64(str_n(rest.p, n), 1000, &minor) &&
           (major > 5 || (major == 5 && minor >= 10));
}

void plan_set_layout(struct plan *p, enum plan_layout layout)
{
    p->layout = layout;
    p->marker = layout == PLAN_IP || !keeps_comments();
}

size_t plan_rule_number(const struct plan *p, const struct rule *r)
{
    size_t n = 0;
    for (const struct rule *x = p->rules; x <= r; x++) {
        n += x->chain == r->chain;
    }
    return n;
}

int plan_chain_priority(const struct plan *p, enum chain c)
{
    bool nat = c == CHAIN_NAT_PRE || c == CHAIN_NAT_OUT;
    return plan_chains[c].priority + (nat ? p->nat_offset : 0);
}

// A jump into a chain without rules does nothing, and the chain will not be there.
static void drop_idle_jumps(struct plan *p)
{
    size_t before;
    do {
        before = p->n;
        bool used[CHAIN_COUNT];
        for (int c = 0; c < CHAIN_COUNT; c++) {
            used[c] = plan_chain_used(p, (enum chain)c);
        }
        size_t n = 0;
        for (size_t i = 0; i < p->n; i++) {
            if (p->rules[i].action != ACTION_JUMP || used[p->rules[i].target]) {
                p->rules[n++] = p->rules[i];
            }
        }
        p->n = n;
    } while (p->n != before);
}

// A regular chain that nothing can reach is left out.
static void drop_unreachable(struct plan *p)
{
    bool live[CHAIN_COUNT] = { false };
    for (int c = 0; c < CHAIN_BASES; c++) {
        live[c] = true;
    }
    for (int pass = 0; pass < CHAIN_COUNT; pass++) {
        for (size_t i = 0; i < p->n; i++) {
            if (p->rules[i].action == ACTION_JUMP && live[p->rules[i].chain]) {
                live[p->rules[i].target] = true;
            }
        }
    }
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (live[p->rules[i].chain]) {
            p->rules[n++] = p->rules[i];
        }
    }
    p->n = n;
}

// A base chain that never captures or marks anything only costs time (and the guard in front of it guards nothing).
static void drop_idle_bases(struct plan *p)
{
    bool works[CHAIN_BASES] = { false };
    for (size_t i = 0; i < p->n; i++) {
        if (p->rules[i].chain < CHAIN_BASES && p->rules[i].action != ACTION_RETURN) {
            works[p->rules[i].chain] = true;
        }
    }
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->rules[i].chain >= CHAIN_BASES || works[p->rules[i].chain]) {
            p->rules[n++] = p->rules[i];
        }
    }
    p->n = n;
}

void plan_build(const struct options *o, struct arena *a, struct plan *ret)
{
    *ret = (struct plan){ .o = o, .a = a, .v6 = o->v6, .nat_offset = (int)(int32_t)o->nat_priority_offset };
    for (size_t i = 0; i < rules_registry_count; i++) {
        rules_registry[i].emit(o, ret);
    }
    drop_idle_jumps(ret);
    drop_idle_bases(ret);
    drop_unreachable(ret);
    bool tproxy = plan_chain_used(ret, CHAIN_TPROXY);
    ret->passthrough_addr6 = o->v6;
    ret->policy_route4 = tproxy;
    ret->policy_route6 = tproxy && o->v6;
    ret->route_mark = o->tproxy_mark;
    ret->route_table = o->tproxy_table;
}

bool plan_is_empty(const struct plan *p)
{
    return p->n == 0 && !p->passthrough_addr6 && !p->policy_route4;
}

uint64_t plan_hash(const struct plan *p)
{
    // The text says all that the kernel gets; the version number is raised when the batch changes behind the same text.
    enum { FORMAT_VERSION = 1 };
    struct buf b = { 0 };
    print_nft(p, 0, &b);
    print_routes(p, &b);
    struct str text = buf_pullup(&b, buf_len(&b));
    uint64_t h = hash_xx64(text.p, text.n, FORMAT_VERSION);
    buf_clear(&b);
    return h;
}
