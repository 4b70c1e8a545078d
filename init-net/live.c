// SPDX-License-Identifier: Apache-2.0
// The other half of live.h: lines of iptables-save back into rules, print_iptables.c the other way round.
#include "init-net/live.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "lib/base/check.h"

void live_set_comment(struct plan *p, struct rule *r, const char *text)
{
    struct str s = str_c(text);
    ptrdiff_t colon = str_find_str(s, STR(": "));
    bool flag = colon > 0 && (text[0] == '-' || str_starts(s, STR("ISTIO_")));
    r->origin = flag ? arena_str(p->a, str_n(text, (size_t)colon)).p : "";
    r->comment = arena_str(p->a, flag ? str_skip(s, (size_t)colon + 2) : s).p;
}

enum { WORDS_MAX = 64 };

struct line {
    struct plan *p;
    struct rule *r;
    struct str w[WORDS_MAX];
    size_t n, at;
    bool negate;   // "!" stood before
    bool connmark; // the module of --mark
    bool bad;
};

static struct str next_word(struct line *l)
{
    if (l->at == l->n) {
        l->bad = true;
        return str_n("", 0);
    }
    return l->w[l->at++];
}

static uint32_t number(struct line *l, struct str s)
{
    uint64_t v = 0;
    if (str_starts(s, STR("0x"))) {
        s = str_skip(s, 2);
        l->bad = l->bad || s.n == 0 || s.n > 8;
        for (size_t i = 0; i < s.n && !l->bad; i++) {
            char c = (char)(s.p[i] | 0x20);
            bool digit = c >= '0' && c <= '9', letter = c >= 'a' && c <= 'f';
            l->bad = !digit && !letter;
            v = v * 16 + (uint64_t)(digit ? c - '0' : c - 'a' + 10);
        }
    } else if (!str_to_u64(s, UINT32_MAX, &v)) {
        l->bad = true;
    }
    return (uint32_t)v;
}

static struct match *add(struct line *l, enum match_kind kind)
{
    static struct match nowhere;
    if (l->r->n == RULE_MATCHES_MAX) {
        l->bad = true;
        return &nowhere;
    }
    struct match *m = &l->r->m[l->r->n++];
    *m = (struct match){ .kind = kind, .negate = l->negate };
    l->negate = false;
    return m;
}

static void add_ports(struct line *l, enum match_kind kind)
{
    struct str list = next_word(l);
    struct match *m = add(l, kind);
    m->ports = (struct port_list){ .v = arena_array(l->p->a, struct port_range, 16) };
    while (list.n && m->ports.n < 16) {
        struct str hi = str_split(&list, ',');
        struct str lo = str_split(&hi, ':');
        uint16_t a = (uint16_t)number(l, lo);
        m->ports.v[m->ports.n++] = (struct port_range){ a, hi.n ? (uint16_t)number(l, hi) : a };
    }
}

static void add_net(struct line *l, enum match_kind kind, uint8_t family)
{
    struct str text = next_word(l);
    struct str full = str_find(text, '/') >= 0 ? text : arena_printf(l->p->a, "%.*s/%d", STR_FMT(text), family == AF_INET ? 32 : 128);
    struct match *m = add(l, kind);
    m->nets = (struct cidr_list){ .n = 1, .v = arena_array(l->p->a, struct cidr, 1) };
    if (cidr_parse(full, &m->nets.v[0], NULL)) {
        l->bad = true;
    }
}

static void add_name(struct line *l, enum match_kind kind)
{
    struct str name = next_word(l);
    bool prefix = str_ends(name, STR("+"));
    add(l, kind)->name = arena_printf(l->p->a, "%.*s%s", (int)(name.n - prefix), name.p, prefix ? "*" : "").p;
}

static void add_id(struct line *l, enum match_kind kind)
{
    struct match *m = add(l, kind);
    m->ids = (struct id_list){ .n = 1, .v = arena_array(l->p->a, uint32_t, 1) };
    m->ids.v[0] = number(l, next_word(l));
}

static struct mark mark_of(struct line *l, struct str text)
{
    struct mark m = { .mask = UINT32_MAX };
    m.value = number(l, str_split(&text, '/'));
    if (text.n) {
        m.mask = number(l, text);
    }
    return m;
}

static void add_state(struct line *l)
{
    struct str list = next_word(l);
    uint32_t bits = 0;
    while (list.n) {
        struct str word = str_split(&list, ',');
        uint32_t bit = str_is(word, "INVALID")       ? CT_INVALID
                       : str_is(word, "ESTABLISHED") ? CT_ESTABLISHED
                       : str_is(word, "RELATED")     ? CT_RELATED
                                                     : 0u;
        l->bad = l->bad || !bit;
        bits |= bit;
    }
    add(l, MATCH_CT_STATE)->ct_state = bits;
}

// "! --tcp-flags FIN,SYN,RST,ACK SYN" is the only use we make of it.
static void add_flags(struct line *l)
{
    bool known = str_is(next_word(l), "FIN,SYN,RST,ACK");
    known = str_is(next_word(l), "SYN") && known && l->negate;
    l->negate = false;
    l->bad = l->bad || !known;
    add(l, MATCH_NOT_SYN);
}

static int chain_index(enum ipt_table t, struct str name)
{
    for (int c = 0; c < CHAIN_COUNT; c++) {
        if (strcmp(plan_chains[c].iptables_table, ipt_table_names[t]) == 0 && str_is(name, plan_chains[c].iptables_name)) {
            return c;
        }
    }
    return -1;
}

static void read_target(struct line *l, enum ipt_table t)
{
    static const struct {
        const char *word;
        enum action_kind action;
    } simple[] = { { "RETURN", ACTION_RETURN },     { "ACCEPT", ACTION_ACCEPT }, { "DROP", ACTION_DROP },
                   { "REDIRECT", ACTION_REDIRECT }, { "TPROXY", ACTION_TPROXY }, { "MARK", ACTION_MARK },
                   { "CONNMARK", ACTION_CT_SAVE },  { "CT", ACTION_ZONE } };
    struct str target = next_word(l);
    for (size_t i = 0; i < array_len(simple); i++) {
        if (str_is(target, simple[i].word)) {
            l->r->action = simple[i].action;
            return;
        }
    }
    int c = chain_index(t, target);
    l->r->action = ACTION_JUMP;
    l->r->target = c < 0 ? CHAIN_INBOUND : (enum chain)c;
    l->bad = l->bad || c < 0;
}

// What follows a target.
static bool read_target_option(struct line *l, struct str word)
{
    struct rule *r = l->r;
    if (str_is(word, "--to-ports") || str_is(word, "--on-port")) {
        r->port = (uint16_t)number(l, next_word(l));
    } else if (str_is(word, "--tproxy-mark") || str_is(word, "--set-xmark") || str_is(word, "--set-mark")) {
        r->value = mark_of(l, next_word(l)).value;
    } else if (str_is(word, "--zone")) {
        r->value = number(l, next_word(l));
    } else if (str_is(word, "--save-mark") || str_is(word, "--restore-mark")) {
        r->action = str_is(word, "--save-mark") ? ACTION_CT_SAVE : ACTION_CT_RESTORE;
    } else if (str_is(word, "--on-ip") || str_is(word, "--nfmask") || str_is(word, "--ctmask")) {
        next_word(l); // always the default
    } else {
        return false;
    }
    return true;
}

static void read_word(struct line *l, enum ipt_table t, uint8_t family)
{
    struct str word = next_word(l);
    if (str_is(word, "!")) {
        l->negate = true;
    } else if (str_is(word, "-m")) {
        struct str module = next_word(l);
        l->connmark = str_is(module, "connmark") || (l->connmark && !str_is(module, "mark"));
    } else if (str_is(word, "-p")) {
        struct str proto = next_word(l);
        add(l, MATCH_PROTO)->proto = str_is(proto, "tcp") ? IPPROTO_TCP : IPPROTO_UDP;
        l->bad = l->bad || !(str_is(proto, "tcp") || str_is(proto, "udp"));
    } else if (str_is(word, "-s") || str_is(word, "-d")) {
        add_net(l, str_is(word, "-s") ? MATCH_SADDR : MATCH_DADDR, family);
    } else if (str_is(word, "-i") || str_is(word, "-o")) {
        add_name(l, str_is(word, "-i") ? MATCH_IIF : MATCH_OIF);
    } else if (str_is(word, "--dport") || str_is(word, "--dports")) {
        add_ports(l, MATCH_DPORT);
    } else if (str_is(word, "--sport") || str_is(word, "--sports")) {
        add_ports(l, MATCH_SPORT);
    } else if (str_is(word, "--uid-owner") || str_is(word, "--gid-owner")) {
        add_id(l, str_is(word, "--uid-owner") ? MATCH_UID : MATCH_GID);
    } else if (str_is(word, "--mark")) {
        struct mark m = mark_of(l, next_word(l));
        add(l, l->connmark ? MATCH_CT_MARK : MATCH_MARK)->mark = m;
    } else if (str_is(word, "--ctstate")) {
        add_state(l);
    } else if (str_is(word, "--tcp-flags")) {
        add_flags(l);
    } else if (str_is(word, "-j")) {
        read_target(l, t);
    } else if (!read_target_option(l, word)) {
        l->bad = true;
    }
}

static int read_line(struct str text, enum ipt_table t, uint8_t family, struct plan *p, struct err *err)
{
    struct line l = { .p = p };
    struct str rest = str_skip(text, 3);
    while (rest.n && l.n < WORDS_MAX) {
        struct str word = str_split(&rest, ' ');
        if (word.n) {
            l.w[l.n++] = word;
        }
    }
    int c = chain_index(t, next_word(&l));
    l.r = plan_add(p, c < 0 ? CHAIN_INBOUND : (enum chain)c, ACTION_RETURN, "", "%.*s", text.n > 90 ? 90 : (int)text.n, text.p);
    match_family(l.r, family);
    bool target = false;
    l.bad = c < 0;
    while (l.at < l.n && !l.bad) {
        target = target || str_is(l.w[l.at], "-j");
        read_word(&l, t, family);
    }
    if (l.bad || !target) {
        return err_set(err, -EINVAL, "'%.*s' in table %s is not a rule that remora-init writes; apply puts the rules in order",
                       text.n > 300 ? 300 : (int)text.n, text.p, ipt_table_names[t]);
    }
    return 0;
}

int live_read_ipt(struct str text, uint8_t family, struct plan *p, struct err *err)
{
    struct ipt_saved s;
    ipt_from_save(text, p->a, &s);
    for (int t = 0; t < IPT_TABLES; t++) {
        for (size_t i = 0; i < s.ours[t].rules.n; i++) {
            int r = read_line(s.ours[t].rules.v[i].text, (enum ipt_table)t, family, p, err);
            if (r) {
                return r;
            }
        }
    }
    return 0;
}

// What ipt_read has read, once more as rules.
static int read_saved(const struct ipt *t, struct plan *p, struct err *err)
{
    static const uint8_t families[] = { AF_INET, AF_INET6 };
    for (int f = 0; f < 2; f++) {
        for (int k = 0; k < IPT_TABLES; k++) {
            const struct ipt_lines *l = &t->family[f].saved.ours[k].rules;
            for (size_t i = 0; i < l->n; i++) {
                int r = read_line(l->v[i].text, (enum ipt_table)k, families[f], p, err);
                if (r) {
                    return r;
                }
            }
        }
    }
    return 0;
}

int live_read(struct install *in, struct plan *ret, struct err *err)
{
    struct plan p = { .o = in->o, .a = in->o->arena };
    int r;
    if (in->backend == BACKEND_AUTO) {
        return err_set(err, -ENOENT, "there are no rules of ours in this network namespace: nothing was applied");
    }
    if (in->backend == BACKEND_NFT || in->backend == BACKEND_NFT_IP) {
        plan_set_layout(&p, in->backend == BACKEND_NFT_IP ? PLAN_IP : PLAN_INET);
        r = live_read_nft(&in->nft, &in->state, &p, err);
    } else {
        r = read_saved(&in->ipt, &p, err);
    }
    if (r == 0) {
        *ret = p;
    }
    return r;
}
