// SPDX-License-Identifier: Apache-2.0
// The plan in iptables-restore syntax. That dialect has no lists but of ports, so one rule may become several:
// one for each network, group of ports and id.
#include "init-net/ipt_text.h"

#include <linux/netfilter.h>
#include <stdio.h>

#include "init-net/print.h"

enum { MULTIPORT_MAX = 15 }; // xt_multiport: a range counts twice

// Ports from index *ix on that fit into one multiport match; *ix moves behind them.
static void print_port_group(const struct match *m, size_t *ix, struct buf *out)
{
    const struct port_list *l = &m->ports;
    const char *side = m->kind == MATCH_SPORT ? "sport" : "dport";
    const char *no = m->negate ? "! " : "";
    if (l->n == 1) {
        buf_printf(out, " %s--%s %u", no, side, l->v[0].lo);
        if (l->v[0].hi != l->v[0].lo) {
            buf_printf(out, ":%u", l->v[0].hi);
        }
        *ix = 1;
        return;
    }
    buf_printf(out, " -m multiport %s--%ss ", no, side);
    const char *sep = "";
    for (int used = 0; *ix < l->n; (*ix)++) {
        bool range = l->v[*ix].hi != l->v[*ix].lo;
        used += range ? 2 : 1;
        if (used > MULTIPORT_MAX) {
            return;
        }
        buf_printf(out, range ? "%s%u:%u" : "%s%u", sep, l->v[*ix].lo, l->v[*ix].hi);
        sep = ",";
    }
}

static void print_interface(const char *option, const struct match *m, struct buf *out)
{
    size_t n = strlen(m->name);
    bool prefix = n && m->name[n - 1] == '*';
    buf_printf(out, " %s%s %.*s%s", m->negate ? "! " : "", option, (int)(n - prefix), m->name, prefix ? "+" : "");
}

static void print_mark(const char *module, const struct match *m, struct buf *out)
{
    buf_printf(out, " -m %s %s--mark 0x%x", module, m->negate ? "! " : "", m->mark.value);
    if (m->mark.mask != UINT32_MAX) {
        buf_printf(out, "/0x%x", m->mark.mask);
    }
}

static void print_owner(const struct match *m, size_t from, size_t to, struct buf *out)
{
    for (size_t i = from; i < to; i++) {
        buf_printf(out, " -m owner %s--%s %u", m->negate ? "! " : "", m->kind == MATCH_UID ? "uid-owner" : "gid-owner",
                   m->ids.v[i]);
    }
}

static void print_ct_state(uint32_t bits, struct buf *out)
{
    const char *sep = " -m conntrack --ctstate ";
    static const char *const names[] = { "INVALID", "ESTABLISHED", "RELATED" };
    for (size_t i = 0; i < 3; i++) {
        if (bits & (1u << i)) {
            buf_printf(out, "%s%s", sep, names[i]);
            sep = ",";
        }
    }
}

// Which element of each list a line is about.
struct pick {
    size_t net, id;
    size_t *port; // moved on by the line
};

static void print_match(const struct match *m, const struct pick *pick, struct buf *out)
{
    char text[64];
    switch (m->kind) {
    case MATCH_FAMILY:
        break;
    case MATCH_PROTO:
        buf_printf(out, " -p %s", m->proto == IPPROTO_TCP ? "tcp" : "udp");
        break;
    case MATCH_SPORT:
    case MATCH_DPORT:
        print_port_group(m, pick->port, out);
        break;
    case MATCH_IIF:
        print_interface("-i", m, out);
        break;
    case MATCH_OIF:
        print_interface("-o", m, out);
        break;
    case MATCH_SADDR:
    case MATCH_DADDR:
        buf_printf(out, " %s%s %s", m->negate ? "! " : "", m->kind == MATCH_SADDR ? "-s" : "-d",
                   cidr_text(&m->nets.v[pick->net], text, sizeof(text)));
        break;
    case MATCH_UID:
    case MATCH_GID:
        print_owner(m, m->negate ? 0 : pick->id, m->negate ? m->ids.n : pick->id + 1, out);
        break;
    case MATCH_MARK:
        print_mark("mark", m, out);
        break;
    case MATCH_CT_MARK:
        print_mark("connmark", m, out);
        break;
    case MATCH_CT_STATE:
        print_ct_state(m->ct_state, out);
        break;
    case MATCH_NOT_SYN:
        buf_printf(out, " ! --tcp-flags FIN,SYN,RST,ACK SYN");
        break;
    }
}

static void print_action(const struct rule *r, struct buf *out)
{
    switch (r->action) {
    case ACTION_RETURN:
        buf_printf(out, " -j RETURN\n");
        break;
    case ACTION_ACCEPT:
        buf_printf(out, " -j ACCEPT\n");
        break;
    case ACTION_DROP:
        buf_printf(out, " -j DROP\n");
        break;
    case ACTION_REJECT: // only in chains that iptables does not get
        break;
    case ACTION_JUMP:
        buf_printf(out, " -j %s\n", plan_chains[r->target].iptables_name);
        break;
    case ACTION_REDIRECT:
        buf_printf(out, " -j REDIRECT --to-ports %u\n", r->port);
        break;
    case ACTION_TPROXY:
        buf_printf(out, " -j TPROXY --on-port %u --tproxy-mark 0x%x/0xffffffff\n", r->port, r->value);
        break;
    case ACTION_MARK:
        buf_printf(out, " -j MARK --set-mark 0x%x\n", r->value);
        break;
    case ACTION_CT_SAVE:
        buf_printf(out, " -j CONNMARK --save-mark\n");
        break;
    case ACTION_CT_RESTORE:
        buf_printf(out, " -j CONNMARK --restore-mark\n");
        break;
    case ACTION_ZONE:
        buf_printf(out, " -j CT --zone %u\n", r->value);
        break;
    }
}

static void print_rule(const struct rule *r, struct buf *out)
{
    size_t nets = 1, ids = 1, ports = 0;
    for (size_t i = 0; i < r->n; i++) {
        const struct match *m = &r->m[i];
        if (m->kind == MATCH_SADDR || m->kind == MATCH_DADDR) {
            nets = m->nets.n; // negated ones are single, see rules/
        } else if ((m->kind == MATCH_UID || m->kind == MATCH_GID) && !m->negate) {
            ids = m->ids.n;
        } else if (m->kind == MATCH_SPORT || m->kind == MATCH_DPORT) {
            ports = m->ports.n;
        }
    }
    for (size_t net = 0; net < nets; net++) {
        for (size_t id = 0; id < ids; id++) {
            size_t port = 0;
            do {
                struct pick pick = { .net = net, .id = id, .port = &port };
                buf_printf(out, "-A %s", plan_chains[r->chain].iptables_name);
                for (size_t i = 0; i < r->n; i++) {
                    print_match(&r->m[i], &pick, out);
                }
                print_action(r, out);
            } while (port < ports);
        }
    }
}

static void add_rule(const struct plan *p, const struct rule *r, struct ipt_content *c)
{
    struct buf text = { 0 };
    print_rule(r, &text);
    struct str rest = arena_str(p->a, buf_pullup(&text, buf_len(&text)));
    while (rest.n) {
        ipt_lines_add(&c->rules, p->a, str_split(&rest, '\n'), r);
    }
    buf_clear(&text);
}

void ipt_from_plan(const struct plan *p, uint8_t family, enum ipt_table t, struct ipt_content *ret)
{
    struct ipt_content c = { 0 };
    for (int k = 0; k < CHAIN_COUNT; k++) {
        const struct chain_info *info = &plan_chains[k];
        if (strcmp(info->iptables_table, ipt_table_names[t]) != 0 || !plan_chain_in(p, family, (enum chain)k)) {
            continue;
        }
        ipt_lines_add(&c.chains, p->a, str_c(info->iptables_name), NULL);
        for (size_t i = 0; i < p->n; i++) {
            const struct rule *r = &p->rules[i];
            if ((int)r->chain == k && plan_rule_is_for(r, family)) {
                add_rule(p, r, &c);
            }
        }
        if (k < CHAIN_BASES) {
            struct str hook = arena_printf(p->a, "-A %s -j %s", info->hook == NF_INET_PRE_ROUTING ? "PREROUTING" : "OUTPUT",
                                           info->iptables_name);
            ipt_lines_add(&c.hooks, p->a, hook, NULL);
        }
    }
    *ret = c;
}

void print_iptables(const struct plan *p, struct buf *out)
{
    static const struct ipt_content nothing;
    for (int v6 = 0; v6 < 2; v6++) {
        struct ipt_script s = { 0 };
        for (int t = 0; t < IPT_TABLES; t++) {
            struct ipt_content c;
            ipt_from_plan(p, v6 ? AF_INET6 : AF_INET, (enum ipt_table)t, &c);
            ipt_script_add(&s, (enum ipt_table)t, &nothing, &c);
        }
        if (s.n || !v6) {
            buf_printf(out, "# %s --noflush\n", v6 ? "ip6tables-restore" : "iptables-restore");
        }
        buf_move(out, &s.text, buf_len(&s.text));
        ipt_script_fini(&s);
    }
    print_routes(p, out);
}
