// SPDX-License-Identifier: Apache-2.0
#include "init-net/nft_state.h"

#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>

#include "init-net/foreign.h"
#include "init-net/ipt_text.h"
#include "init-net/nft_expr.h"
#include "init-net/print.h"
#include "lib/base/check.h"
#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "lib/base/scope.h"

struct reading {
    struct arena *a;
    struct nft_state *s;
};

static void *array_grow(struct arena *a, void *v, size_t n, size_t *cap, size_t size)
{
    if (n < *cap) {
        return v;
    }
    size_t want = *cap ? *cap * 2 : 32;
    void *bigger = arena_zalloc(a, want * size);
    if (n) {
        memcpy(bigger, v, n * size);
    }
    *cap = want;
    return bigger;
}

// Our comment sits in a TLV as nft(8) writes it.
static const char *userdata_comment(const void *data, uint32_t len, uint8_t type, struct arena *a)
{
    const struct nftnl_udata *u;
    const char *end = (const char *)data + len;
    if (!data) {
        return "";
    }
    for (u = data; (const char *)u + 2 <= end && (const char *)u + 2 + nftnl_udata_len(u) <= end;
         u = nftnl_udata_next(u)) {
        if (nftnl_udata_type(u) == type && nftnl_udata_len(u)) {
            return arena_str(a, str_n(nftnl_udata_get(u), strnlen(nftnl_udata_get(u), nftnl_udata_len(u)))).p;
        }
    }
    return "";
}

static bool is_ours(const char *table, uint32_t family)
{
    return strcmp(table, PLAN_TABLE) == 0 &&
           (family == NFPROTO_INET || family == NFPROTO_IPV4 || family == NFPROTO_IPV6);
}

// A hash from a table or a marker; all of them must say the same.
static void note_comment(struct nft_state *s, const char *comment)
{
    if (!comment[0]) {
        return;
    }
    s->comments_differ = s->comments_differ || (s->comment[0] && strcmp(s->comment, comment) != 0);
    s->comment = comment;
}

static int on_table(const struct nlmsghdr *msg, void *arg)
{
    struct reading *r = arg;
    struct nftnl_table *t = nftnl_table_alloc();
    CHECK(t);
    if (nftnl_table_nlmsg_parse(msg, t) == 0) {
        struct nft_state *s = r->s;
        s->tables = array_grow(r->a, s->tables, s->n_tables, &s->cap_tables, sizeof(*s->tables));
        struct state_table *x = &s->tables[s->n_tables++];
        x->family = (uint8_t)nftnl_table_get_u32(t, NFTNL_TABLE_FAMILY);
        x->name = arena_strdup(r->a, nftnl_table_get_str(t, NFTNL_TABLE_NAME));
        if (is_ours(x->name, x->family)) {
            uint32_t len = 0;
            const void *data = nftnl_table_get_data(t, NFTNL_TABLE_USERDATA, &len);
            s->present = true;
            s->inet = s->inet || x->family == NFPROTO_INET;
            s->ip = s->ip || x->family == NFPROTO_IPV4;
            s->ip6 = s->ip6 || x->family == NFPROTO_IPV6;
            note_comment(s, userdata_comment(data, len, NFTNL_UDATA_TABLE_COMMENT, r->a));
        }
    }
    nftnl_table_free(t);
    return MNL_CB_OK;
}

// The tables that the iptables-nft program uses.
static bool is_xt_table(const char *name)
{
    return strcmp(name, "nat") == 0 || strcmp(name, "mangle") == 0 || strcmp(name, "raw") == 0;
}

static void note_xt_chain(struct reading *r, uint8_t family, const char *table, const char *name)
{
    const char *owner = foreign_chain_owner(str_c(name));
    struct nft_state *s = r->s;
    if (owner || ipt_chain_is_ours(str_c(name))) {
        s->xt = array_grow(r->a, s->xt, s->n_xt, &s->cap_xt, sizeof(*s->xt));
        s->xt[s->n_xt++] = (struct state_chain){ family, arena_strdup(r->a, table), arena_strdup(r->a, name), owner };
    }
}

static int on_chain(const struct nlmsghdr *msg, void *arg)
{
    struct reading *r = arg;
    struct nftnl_chain *c = nftnl_chain_alloc();
    CHECK(c);
    if (nftnl_chain_nlmsg_parse(msg, c) == 0) {
        const char *table = nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE), *name = nftnl_chain_get_str(c, NFTNL_CHAIN_NAME);
        uint8_t family = (uint8_t)nftnl_chain_get_u32(c, NFTNL_CHAIN_FAMILY);
        if (is_ours(table, family) && str_starts(str_c(name), STR("hash_"))) {
            note_comment(r->s, arena_printf(r->a, "remora-init %s", name + strlen("hash_")).p);
        } else if (is_ours(table, family)) {
            r->s->n_chains++;
        } else if (family != NFPROTO_INET && is_xt_table(table)) {
            note_xt_chain(r, family, table, name);
        }
    }
    nftnl_chain_free(c);
    return MNL_CB_OK;
}

struct digest {
    uint64_t h;
    uint64_t packets, bytes;
};

// Expressions are compared by what they say, not by their bytes: the kernel fills in attributes of its own.
static int digest_expr(struct nftnl_expr *e, void *arg)
{
    struct digest *d = arg;
    char text[512];
    const char *name = nftnl_expr_get_str(e, NFTNL_EXPR_NAME);
    d->h = hash_xx64(name, strlen(name), d->h);
    if (strcmp(name, "counter") == 0) {
        d->packets = nftnl_expr_get_u64(e, NFTNL_EXPR_CTR_PACKETS);
        d->bytes = nftnl_expr_get_u64(e, NFTNL_EXPR_CTR_BYTES);
        return MNL_CB_OK;
    }
    if (strcmp(name, "lookup") == 0) {
        uint32_t flags = nftnl_expr_get_u32(e, NFTNL_EXPR_LOOKUP_FLAGS);
        d->h = hash_xx64(&flags, sizeof(flags), d->h);
        return MNL_CB_OK;
    }
    if (strcmp(name, "redir") == 0) {
        // On the way back the register of the upper port is set, too.
        uint32_t reg = nftnl_expr_get_u32(e, NFTNL_EXPR_REDIR_REG_PROTO_MIN);
        d->h = hash_xx64(&reg, sizeof(reg), d->h);
        return MNL_CB_OK;
    }
    int n = nftnl_expr_snprintf(text, sizeof(text), e, NFTNL_OUTPUT_DEFAULT, 0);
    d->h = hash_xx64(text, n > 0 && (size_t)n < sizeof(text) ? (size_t)n : 0, d->h);
    return MNL_CB_OK;
}

static struct digest rule_digest(struct nftnl_rule *rule)
{
    struct digest d = { 0 };
    nftnl_expr_foreach(rule, digest_expr, &d);
    return d;
}

static int on_rule(const struct nlmsghdr *msg, void *arg)
{
    struct reading *r = arg;
    struct nft_state *s = r->s;
    struct nftnl_rule *rule = nftnl_rule_alloc();
    CHECK(rule);
    if (nftnl_rule_nlmsg_parse(msg, rule) == 0 &&
        is_ours(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY))) {
        uint32_t len = 0;
        const void *data = nftnl_rule_get_data(rule, NFTNL_RULE_USERDATA, &len);
        struct digest d = rule_digest(rule);
        s->rules = array_grow(r->a, s->rules, s->n_rules, &s->cap_rules, sizeof(*s->rules));
        s->rules[s->n_rules++] = (struct state_rule){
            .family = (uint8_t)nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY),
            .chain = arena_strdup(r->a, nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN)),
            .comment = userdata_comment(data, len, NFTNL_UDATA_RULE_COMMENT, r->a),
            .packets = d.packets,
            .bytes = d.bytes,
            .content = d.h,
        };
    }
    nftnl_rule_free(rule);
    return MNL_CB_OK;
}

// table: for rules, only those of this table (kernels before 4.14 send all); NULL: of all.
static int dump(struct nl *nl, uint16_t type, uint16_t family, const char *table, mnl_cb_t cb, void *arg)
{
    char buf[256];
    struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(buf, type, family, NLM_F_DUMP, 0);
    if (table) {
        mnl_attr_put_strz(msg, NFTA_RULE_TABLE, table);
    }
    return nl_request(nl, msg, cb, arg);
}

// In an ambient mesh none of Istio's chains is istio-iptables'.
static void settle_owners(struct nft_state *s)
{
    bool ambient = false;
    for (size_t i = 0; i < s->n_xt; i++) {
        ambient = ambient || foreign_is_ambient(str_c(s->xt[i].name));
    }
    for (size_t i = 0; i < s->n_xt; i++) {
        s->xt[i].owner = foreign_settle(s->xt[i].owner, ambient);
    }
}

static int read_once(struct nl *nl, struct reading *r)
{
    struct nft_state *s = r->s;
    int code = dump(nl, NFT_MSG_GETTABLE, NFPROTO_UNSPEC, NULL, on_table, r);
    bool chains = s->present;
    for (size_t i = 0; i < s->n_tables; i++) {
        chains = chains || (s->tables[i].family != NFPROTO_INET && is_xt_table(s->tables[i].name));
    }
    if (code == 0 && chains) {
        code = dump(nl, NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NULL, on_chain, r);
        settle_owners(s);
    }
    const struct {
        bool there;
        uint8_t family;
    } own[] = { { s->inet, NFPROTO_INET }, { s->ip, NFPROTO_IPV4 }, { s->ip6, NFPROTO_IPV6 } };
    for (size_t i = 0; i < array_len(own) && code == 0; i++) {
        code = own[i].there ? dump(nl, NFT_MSG_GETRULE, own[i].family, PLAN_TABLE, on_rule, r) : 0;
    }
    return code;
}

int nft_state_read(struct nl *nl, struct arena *a, struct nft_state *ret, struct err *err)
{
    uint64_t until_ms = 0;
    int code;
    do {
        struct nft_state s = { .comment = "" };
        struct reading r = { .a = a, .s = &s };
        code = read_once(nl, &r);
        if (code == 0) {
            *ret = s;
            return 0;
        }
    } while (nl_again(code, &until_ms));
    return err_set(err, code, "cannot read the kernel's rules: %s", nft_hint(code));
}

// The index of the next rule of a chain, from k on.
static size_t next_rule(const struct nft_state *s, uint8_t family, const char *chain, size_t k)
{
    while (k < s->n_rules && (s->rules[k].family != family || strcmp(s->rules[k].chain, chain) != 0)) {
        k++;
    }
    return k;
}

// The rules of one chain in kernel order against those of the plan in plan order.
static bool chain_equals(const struct nft_state *s, const struct plan *p, uint8_t family, enum chain c, char *why,
                         size_t why_size)
{
    uint32_t set_id = 0;
    size_t k = 0, number = 0;
    const char *name = plan_chains[c].name;
    bool wanted = plan_chain_in(p, family, c);
    for (size_t i = 0; i < p->n && wanted; i++) {
        if (p->rules[i].chain != c || !plan_rule_is_for(&p->rules[i], family)) {
            continue;
        }
        number++;
        k = next_rule(s, family, name, k);
        if (k == s->n_rules) {
            snprintf(why, why_size, "rule %zu of chain %s is missing (%s)", number, name, p->rules[i].comment);
            return false;
        }
        struct nft_sets sets;
        struct nftnl_rule *rule = nft_rule_build(family, &p->rules[i], &set_id, &sets);
        uint64_t want = rule_digest(rule).h;
        nftnl_rule_free(rule);
        nft_sets_free(&sets);
        if (want != s->rules[k].content) {
            snprintf(why, why_size, "rule %zu of chain %s differs (%s)", number, name, p->rules[i].comment);
            return false;
        }
        k++;
    }
    if (next_rule(s, family, name, k) != s->n_rules) {
        snprintf(why, why_size, "chain %s has a rule more than it should", name);
        return false;
    }
    return true;
}

static bool tables_equal(const struct nft_state *s, const struct plan *p, char *why, size_t why_size)
{
    uint8_t families[2];
    size_t n = plan_tables(p, families), has = (size_t)s->inet + s->ip + s->ip6;
    for (size_t i = 0; i < n; i++) {
        bool there = families[i] == NFPROTO_INET ? s->inet : families[i] == NFPROTO_IPV4 ? s->ip : s->ip6;
        if (!there) {
            snprintf(why, why_size, "there is no table %s %s",
                     families[i] == NFPROTO_INET ? "inet" : families[i] == NFPROTO_IPV4 ? "ip" : "ip6", PLAN_TABLE);
            return false;
        }
    }
    if (has != n) {
        snprintf(why, why_size, "there is a table %s of another address family", PLAN_TABLE);
        return false;
    }
    return true;
}

bool nft_state_equals(const struct nft_state *s, const struct plan *p, char *why, size_t why_size)
{
    char comment[64];
    uint8_t families[2];
    size_t chains = 0, n = plan_tables(p, families);
    if (!tables_equal(s, p, why, why_size)) {
        return false;
    }
    print_table_comment(plan_hash(p), comment, sizeof(comment));
    if (strcmp(comment, s->comment) != 0 || s->comments_differ) {
        snprintf(why, why_size, "the rules were made for another configuration");
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        for (int c = 0; c < CHAIN_COUNT; c++) {
            chains += plan_chain_in(p, families[i], (enum chain)c);
            if (!chain_equals(s, p, families[i], (enum chain)c, why, why_size)) {
                return false;
            }
        }
    }
    if (chains != s->n_chains) {
        snprintf(why, why_size, "%zu chains where there should be %zu", s->n_chains, chains);
        return false;
    }
    return true;
}

// --- what else goes ---

// Does the chain go? s->xt holds ours and all known owners'.
static const struct state_chain *doomed(const struct nft_state *s, uint8_t family, const char *table, const char *chain,
                                        bool takeover)
{
    for (size_t i = 0; i < s->n_xt; i++) {
        const struct state_chain *c = &s->xt[i];
        if (c->family == family && strcmp(c->table, table) == 0 && strcmp(c->name, chain) == 0) {
            return !c->owner || (takeover && foreign_is_removable(c->owner)) ? c : NULL;
        }
    }
    return NULL;
}

struct hunt {
    const struct nft_state *s;
    bool takeover;
    struct arena *a;
    struct nft_removals *rm;
};

struct jump {
    const char *chain;                  // NULL: the rule jumps nowhere
    bool marks_self, connmark, mark_of; // what istio-iptables leaves in the built-in chains of mangle
    bool returns, interface, interface_only;
    size_t matches;
};

static int look_at_expr(struct nftnl_expr *e, void *arg)
{
    struct jump *j = arg;
    const char *name = nftnl_expr_get_str(e, NFTNL_EXPR_NAME);
    uint32_t len = 0;
    if (strcmp(name, "immediate") == 0 && nftnl_expr_is_set(e, NFTNL_EXPR_IMM_CHAIN)) {
        j->chain = nftnl_expr_get_str(e, NFTNL_EXPR_IMM_CHAIN);
    } else if (strcmp(name, "immediate") == 0 && nftnl_expr_is_set(e, NFTNL_EXPR_IMM_VERDICT)) {
        j->returns = (int)nftnl_expr_get_u32(e, NFTNL_EXPR_IMM_VERDICT) == NFT_RETURN;
    } else if (strcmp(name, "target") == 0) {
        const char *target = nftnl_expr_get_str(e, NFTNL_EXPR_TG_NAME);
        const uint32_t *mark = nftnl_expr_get(e, NFTNL_EXPR_TG_INFO, &len);
        // struct xt_mark_tginfo2 of linux/netfilter/xt_mark.h begins with the mark.
        j->marks_self = strcmp(target, "MARK") == 0 && len >= 4 && *mark == TPROXY_SELF_MARK;
        j->connmark = strcmp(target, "CONNMARK") == 0;
    } else if (strcmp(name, "match") == 0) {
        const char *match = nftnl_expr_get_str(e, NFTNL_EXPR_MT_NAME);
        j->mark_of = j->mark_of || strcmp(match, "mark") == 0 || strcmp(match, "connmark") == 0;
        j->matches++;
    } else if (strcmp(name, "meta") == 0 && nftnl_expr_is_set(e, NFTNL_EXPR_META_KEY)) {
        uint32_t key = nftnl_expr_get_u32(e, NFTNL_EXPR_META_KEY);
        j->interface_only = key == NFT_META_IIFNAME || key == NFT_META_OIFNAME;
        j->interface = j->interface || j->interface_only;
        j->mark_of = j->mark_of || key == NFT_META_MARK; // iptables-nft writes some matches as nft would
        j->matches++;
    } else if (strcmp(name, "payload") == 0 || strcmp(name, "ct") == 0) {
        j->mark_of = j->mark_of || name[0] == 'c';
        j->matches++;
    }
    return MNL_CB_OK;
}

// Rules in chains that stay, but which belong to what goes: jumps to it, and what istio-iptables puts beside them.
static int on_xt_rule(const struct nlmsghdr *msg, void *arg)
{
    struct hunt *h = arg;
    struct nftnl_rule *rule = nftnl_rule_alloc();
    CHECK(rule);
    if (nftnl_rule_nlmsg_parse(msg, rule) == 0) {
        uint8_t family = (uint8_t)nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY);
        const char *table = nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), *chain = nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN);
        struct jump j = { 0 };
        nftnl_expr_foreach(rule, look_at_expr, &j);
        bool istio = false;
        for (size_t i = 0; i < h->s->n_xt && h->takeover; i++) {
            const char *owner = h->s->xt[i].owner;
            istio = istio || (owner && h->s->xt[i].family == family && strcmp(owner, "istio-iptables") == 0);
        }
        bool mangle = strcmp(table, "mangle") == 0;
        bool leftover = istio && ((mangle && (j.marks_self || (j.connmark && j.mark_of))) ||
                                  (mangle && j.returns && j.mark_of && j.interface) ||
                                  (strcmp(table, "raw") != 0 && j.returns && j.interface_only && j.matches == 1));
        bool builtin = strcmp(chain, "PREROUTING") == 0 || strcmp(chain, "OUTPUT") == 0;
        bool to_doomed = j.chain && doomed(h->s, family, table, j.chain, h->takeover);
        if (!doomed(h->s, family, table, chain, h->takeover) && (to_doomed || (leftover && builtin))) {
            nft_removal_add(h->rm, h->a, (struct nft_removal){ family, arena_strdup(h->a, table), arena_strdup(h->a, chain),
                                                               nftnl_rule_get_u64(rule, NFTNL_RULE_HANDLE) });
        }
    }
    nftnl_rule_free(rule);
    return MNL_CB_OK;
}

// Own tables that the plan leaves out, and foreign ones.
static void remove_tables(const struct nft_state *s, const struct plan *p, bool takeover, struct arena *a,
                          struct nft_removals *rm)
{
    uint8_t keep[2] = { 0 };
    size_t n = p ? plan_tables(p, keep) : 0;
    for (size_t i = 0; i < s->n_tables; i++) {
        const struct state_table *t = &s->tables[i];
        const char *owner = foreign_table_owner(t->name);
        bool kept = (n > 0 && t->family == keep[0]) || (n > 1 && t->family == keep[1]);
        if ((is_ours(t->name, t->family) && !kept) || (owner && takeover && foreign_is_removable(owner))) {
            nft_removal_add(rm, a, (struct nft_removal){ .family = t->family, .table = t->name });
        }
    }
}

int nft_state_removals(const struct nft_state *s, struct nl *nl, const struct plan *p, bool xt, bool takeover,
                       struct arena *a, struct nft_removals *rm, struct err *err)
{
    struct hunt h = { s, takeover, a, rm };
    int code = 0;
    remove_tables(s, p, takeover, a, rm);
    // Each table once: its rules that lead into what goes.
    for (size_t i = 0; i < s->n_xt && xt && code == 0; i++) {
        const struct state_chain *c = &s->xt[i];
        bool seen = false;
        for (size_t k = 0; k < i; k++) {
            seen = seen || (s->xt[k].family == c->family && strcmp(s->xt[k].table, c->table) == 0);
        }
        const size_t before = rm->n;
        uint64_t until_ms = 0;
        do {
            rm->n = before;
            code = seen ? 0 : dump(nl, NFT_MSG_GETRULE, c->family, c->table, on_xt_rule, &h);
        } while (nl_again(code, &until_ms));
    }
    if (code) {
        return err_set(err, code, "cannot read the kernel's rules: %s", nft_hint(code));
    }
    for (size_t i = 0; i < s->n_xt && xt; i++) {
        const struct state_chain *c = &s->xt[i];
        if (doomed(s, c->family, c->table, c->name, takeover)) {
            nft_removal_add(rm, a, (struct nft_removal){ .family = c->family, .table = c->table, .chain = c->name });
        }
    }
    return 0;
}
