// SPDX-License-Identifier: Apache-2.0
#include "init-net/print.h"

#include <linux/netfilter.h>
#include <stdio.h>

#include "lib/base/json.h"

void print_table_comment(uint64_t hash, char *buf, size_t n)
{
    snprintf(buf, n, "remora-init %016llx", (unsigned long long)hash);
}

void print_marker(uint64_t hash, char *buf, size_t n)
{
    snprintf(buf, n, "hash_%016llx", (unsigned long long)hash);
}

static const char *proto_name(uint8_t proto)
{
    return proto == IPPROTO_TCP ? "tcp" : "udp";
}

// Protocol that a port match of this rule reads.
static const char *rule_proto(const struct rule *r)
{
    for (size_t i = 0; i < r->n; i++) {
        if (r->m[i].kind == MATCH_PROTO) {
            return proto_name(r->m[i].proto);
        }
    }
    return "th";
}

static void print_ports(const struct port_list *l, struct buf *out)
{
    if (l->n > 1) {
        buf_printf(out, "{ ");
    }
    for (size_t i = 0; i < l->n; i++) {
        buf_printf(out, "%s%u", i ? ", " : "", l->v[i].lo);
        if (l->v[i].hi != l->v[i].lo) {
            buf_printf(out, "-%u", l->v[i].hi);
        }
    }
    if (l->n > 1) {
        buf_printf(out, " }");
    }
}

static void print_nets(const struct cidr_list *l, struct buf *out)
{
    char text[64];
    if (l->n > 1) {
        buf_printf(out, "{ ");
    }
    for (size_t i = 0; i < l->n; i++) {
        buf_printf(out, "%s%s", i ? ", " : "", cidr_text(&l->v[i], text, sizeof(text)));
    }
    if (l->n > 1) {
        buf_printf(out, " }");
    }
}

static void print_ids(const struct id_list *l, struct buf *out)
{
    if (l->n > 1) {
        buf_printf(out, "{ ");
    }
    for (size_t i = 0; i < l->n; i++) {
        buf_printf(out, "%s%u", i ? ", " : "", l->v[i]);
    }
    if (l->n > 1) {
        buf_printf(out, " }");
    }
}

static void print_mark(const char *what, const struct match *m, struct buf *out)
{
    const char *op = m->negate ? "!=" : "==";
    if (m->mark.mask == UINT32_MAX) {
        buf_printf(out, "%s %s%u", what, m->negate ? "!= " : "", m->mark.value);
    } else {
        buf_printf(out, "%s and 0x%x %s 0x%x", what, m->mark.mask, op, m->mark.value);
    }
}

static void print_ct_state(uint32_t bits, struct buf *out)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = { { CT_INVALID, "invalid" }, { CT_ESTABLISHED, "established" }, { CT_RELATED, "related" } };
    const char *sep = "ct state ";
    for (size_t i = 0; i < 3; i++) {
        if (bits & names[i].bit) {
            buf_printf(out, "%s%s", sep, names[i].name);
            sep = ",";
        }
    }
}

static void print_match(const struct rule *r, const struct match *m, struct buf *out)
{
    const char *no = m->negate ? "!= " : "";
    const char *ip = m->nets.n && m->nets.v && (m->kind == MATCH_SADDR || m->kind == MATCH_DADDR) &&
                             m->nets.v[0].family == AF_INET6
                         ? "ip6"
                         : "ip";
    switch (m->kind) {
    case MATCH_FAMILY:
        buf_printf(out, "meta nfproto %s%s", no, m->family == AF_INET ? "ipv4" : "ipv6");
        break;
    case MATCH_PROTO:
        buf_printf(out, "meta l4proto %s", proto_name(m->proto));
        break;
    case MATCH_SPORT:
    case MATCH_DPORT:
        buf_printf(out, "%s %s %s", rule_proto(r), m->kind == MATCH_SPORT ? "sport" : "dport", no);
        print_ports(&m->ports, out);
        break;
    case MATCH_IIF:
        buf_printf(out, "iifname %s\"%s\"", no, m->name);
        break;
    case MATCH_OIF:
        buf_printf(out, "oifname %s\"%s\"", no, m->name);
        break;
    case MATCH_SADDR:
    case MATCH_DADDR:
        buf_printf(out, "%s %s %s", ip, m->kind == MATCH_SADDR ? "saddr" : "daddr", no);
        print_nets(&m->nets, out);
        break;
    case MATCH_UID:
    case MATCH_GID:
        buf_printf(out, "meta %s %s", m->kind == MATCH_UID ? "skuid" : "skgid", no);
        print_ids(&m->ids, out);
        break;
    case MATCH_MARK:
        print_mark("meta mark", m, out);
        break;
    case MATCH_CT_MARK:
        print_mark("ct mark", m, out);
        break;
    case MATCH_CT_STATE:
        print_ct_state(m->ct_state, out);
        break;
    case MATCH_NOT_SYN:
        buf_printf(out, "tcp flags & (fin | syn | rst | ack) != syn");
        break;
    }
}

static void print_action(const struct rule *r, struct buf *out)
{
    switch (r->action) {
    case ACTION_RETURN:
        buf_printf(out, "return");
        break;
    case ACTION_ACCEPT:
        buf_printf(out, "accept");
        break;
    case ACTION_DROP:
        buf_printf(out, "drop");
        break;
    case ACTION_REJECT:
        buf_printf(out, "%s", strcmp(rule_proto(r), "tcp") == 0 ? "reject with tcp reset" : "reject");
        break;
    case ACTION_JUMP:
        buf_printf(out, "jump %s", plan_chains[r->target].name);
        break;
    case ACTION_REDIRECT:
        buf_printf(out, "redirect to :%u", r->port);
        break;
    case ACTION_TPROXY: {
        uint8_t family = AF_INET;
        for (size_t i = 0; i < r->n; i++) {
            family = r->m[i].kind == MATCH_DADDR ? r->m[i].nets.v[0].family : family;
        }
        buf_printf(out, "tproxy %s to :%u meta mark set %u accept", family == AF_INET ? "ip" : "ip6", r->port,
                   r->value);
        break;
    }
    case ACTION_MARK:
        buf_printf(out, "meta mark set %u", r->value);
        break;
    case ACTION_CT_SAVE:
        buf_printf(out, "ct mark set meta mark");
        break;
    case ACTION_CT_RESTORE:
        buf_printf(out, "meta mark set ct mark");
        break;
    case ACTION_ZONE:
        buf_printf(out, "ct zone set %u return", r->value);
        break;
    }
}

void print_nft_rule(const struct plan *p, const struct rule *r, struct buf *out)
{
    (void)p;
    bool has_port = false;
    for (size_t i = 0; i < r->n; i++) {
        has_port = has_port || r->m[i].kind == MATCH_SPORT || r->m[i].kind == MATCH_DPORT;
    }
    for (size_t i = 0; i < r->n; i++) {
        // "tcp dport" says the protocol already.
        if (r->m[i].kind == MATCH_PROTO && has_port) {
            continue;
        }
        print_match(r, &r->m[i], out);
        buf_append(out, " ", 1);
    }
    buf_printf(out, "counter ");
    print_action(r, out);
}

static void print_chain(const struct plan *p, uint8_t family, enum chain c, struct buf *out)
{
    const struct chain_info *info = &plan_chains[c];
    buf_printf(out, "\n\tchain %s {\n", info->name);
    if (info->type) {
        buf_printf(out, "\t\ttype %s hook %s priority %d; policy accept;\n", info->type,
                   info->hook == NF_INET_PRE_ROUTING ? "prerouting" : "output", plan_chain_priority(p, c));
    }
    for (size_t i = 0; i < p->n; i++) {
        if (p->rules[i].chain != c || !plan_rule_is_for(&p->rules[i], family)) {
            continue;
        }
        buf_printf(out, "\t\t");
        print_nft_rule(p, &p->rules[i], out);
        buf_printf(out, " comment \"%s%s%s\"\n", p->rules[i].origin, p->rules[i].origin[0] ? ": " : "",
                   p->rules[i].comment);
    }
    buf_printf(out, "\t}\n");
}

static const char *family_word(uint8_t family)
{
    return family == NFPROTO_INET ? "inet" : family == NFPROTO_IPV4 ? "ip" : "ip6";
}

static void print_table(const struct plan *p, uint8_t family, uint64_t hash, struct buf *out)
{
    const char *word = family_word(family);
    // The first three lines are what makes the replacement complete, whatever was there.
    buf_printf(out, "table %s %s\ndelete table %s %s\ntable %s %s {\n", word, PLAN_TABLE, word, PLAN_TABLE, word, PLAN_TABLE);
    if (hash) {
        char comment[64];
        print_table_comment(hash, comment, sizeof(comment));
        buf_printf(out, "\tcomment \"%s\"\n", comment);
    }
    // A chain stands before those that jump to it.
    for (int c = CHAIN_COUNT - 1; c >= 0; c--) {
        if (c >= CHAIN_BASES && plan_chain_in(p, family, (enum chain)c)) {
            print_chain(p, family, (enum chain)c, out);
        }
    }
    for (int c = 0; c < CHAIN_BASES; c++) {
        if (plan_chain_in(p, family, (enum chain)c)) {
            print_chain(p, family, (enum chain)c, out);
        }
    }
    buf_printf(out, "}\n");
}

void print_nft(const struct plan *p, uint64_t hash, struct buf *out)
{
    uint8_t families[2];
    size_t n = plan_tables(p, families);
    for (size_t i = 0; i < n; i++) {
        print_table(p, families[i], hash, out);
    }
}

void print_routes(const struct plan *p, struct buf *out)
{
    if (p->passthrough_addr6) {
        buf_printf(out, "# ip -6 addr add ::6/128 dev lo\n");
    }
    for (int v6 = 0; v6 < 2; v6++) {
        if (v6 ? p->policy_route6 : p->policy_route4) {
            buf_printf(out, "# ip %s rule add fwmark %u lookup %u\n", v6 ? "-6" : "-4", p->route_mark, p->route_table);
            buf_printf(out, "# ip %s route add local default dev lo table %u\n", v6 ? "-6" : "-4", p->route_table);
        }
    }
}

static void json_rule(const struct plan *p, const struct rule *r, struct json_writer *w)
{
    struct buf text = { 0 };
    print_nft_rule(p, r, &text);
    jw_object(w);
    jw_kv(w, "chain", str_c(plan_chains[r->chain].name));
    jw_kv_u64(w, "number", plan_rule_number(p, r));
    jw_kv(w, "rule", buf_pullup(&text, buf_len(&text)));
    jw_kv(w, "flag", str_c(r->origin));
    jw_kv(w, "comment", str_c(r->comment));
    jw_object_end(w);
    buf_clear(&text);
}

static void json_routes(const struct plan *p, struct json_writer *w)
{
    jw_key(w, STR("routing"));
    jw_object(w);
    jw_kv_bool(w, "address_6_on_lo", p->passthrough_addr6);
    jw_kv_bool(w, "policy_route_ipv4", p->policy_route4);
    jw_kv_bool(w, "policy_route_ipv6", p->policy_route6);
    if (p->policy_route4) {
        jw_kv_u64(w, "mark", p->route_mark);
        jw_kv_u64(w, "table", p->route_table);
    }
    jw_object_end(w);
}

void print_json(const struct plan *p, struct buf *out)
{
    struct json_writer w;
    char hash[32];
    snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)plan_hash(p));
    jw_init(&w, out, 2);
    jw_object(&w);
    jw_kv(&w, "version", STR(REMORA_VERSION));
    jw_kv(&w, "table", p->layout == PLAN_IP ? STR("ip " PLAN_TABLE ", ip6 " PLAN_TABLE) : STR("inet " PLAN_TABLE));
    jw_kv(&w, "hash", str_c(hash));
    jw_kv(&w, "mode", p->o->mode == MODE_TPROXY ? STR("TPROXY") : STR("REDIRECT"));
    jw_kv_bool(&w, "ipv6", p->v6);
    jw_key(&w, STR("chains"));
    jw_array(&w);
    for (int c = 0; c < CHAIN_COUNT; c++) {
        if (!plan_chain_used(p, (enum chain)c)) {
            continue;
        }
        jw_object(&w);
        jw_kv(&w, "name", str_c(plan_chains[c].name));
        if (plan_chains[c].type) {
            jw_kv(&w, "type", str_c(plan_chains[c].type));
            jw_kv(&w, "hook", plan_chains[c].hook == NF_INET_PRE_ROUTING ? STR("prerouting") : STR("output"));
            jw_key(&w, STR("priority"));
            jw_i64(&w, plan_chain_priority(p, (enum chain)c));
        }
        jw_object_end(&w);
    }
    jw_array_end(&w);
    jw_key(&w, STR("rules"));
    jw_array(&w);
    for (size_t i = 0; i < p->n; i++) {
        json_rule(p, &p->rules[i], &w);
    }
    jw_array_end(&w);
    json_routes(p, &w);
    jw_key(&w, STR("warnings"));
    jw_array(&w);
    for (size_t i = 0; i < p->o->n_warnings; i++) {
        jw_str(&w, p->o->warnings[i]);
    }
    jw_array_end(&w);
    jw_object_end(&w);
    buf_append(out, "\n", 1);
}
