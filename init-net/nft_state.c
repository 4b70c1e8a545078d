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

#include "init-net/nft_batch.h"
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
        if (x->family == NFPROTO_INET && strcmp(x->name, PLAN_TABLE) == 0) {
            uint32_t len = 0;
            const void *data = nftnl_table_get_data(t, NFTNL_TABLE_USERDATA, &len);
            s->present = true;
            s->comment = userdata_comment(data, len, NFTNL_UDATA_TABLE_COMMENT, r->a);
        }
    }
    nftnl_table_free(t);
    return MNL_CB_OK;
}

static int on_chain(const struct nlmsghdr *msg, void *arg)
{
    struct reading *r = arg;
    struct nftnl_chain *c = nftnl_chain_alloc();
    CHECK(c);
    if (nftnl_chain_nlmsg_parse(msg, c) == 0 && strcmp(nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE), PLAN_TABLE) == 0) {
        r->s->n_chains++;
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
        strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), PLAN_TABLE) == 0) {
        uint32_t len = 0;
        const void *data = nftnl_rule_get_data(rule, NFTNL_RULE_USERDATA, &len);
        struct digest d = rule_digest(rule);
        s->rules = array_grow(r->a, s->rules, s->n_rules, &s->cap_rules, sizeof(*s->rules));
        s->rules[s->n_rules++] = (struct state_rule){
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

static int dump(struct nl *nl, uint16_t type, uint16_t family, mnl_cb_t cb, struct reading *r)
{
    char buf[256];
    struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(buf, type, family, NLM_F_DUMP, 0);
    return nl_request(nl, msg, cb, r);
}

int nft_state_read(struct nl *nl, struct arena *a, struct nft_state *ret, struct err *err)
{
    enum { ATTEMPTS = 20 };
    int code = 0;
    for (int i = 0; i < ATTEMPTS; i++) {
        struct nft_state s = { .comment = "" };
        struct reading r = { .a = a, .s = &s };
        code = dump(nl, NFT_MSG_GETTABLE, NFPROTO_UNSPEC, on_table, &r);
        if (code == 0 && s.present) {
            code = dump(nl, NFT_MSG_GETCHAIN, NFPROTO_INET, on_chain, &r);
            code = code ? code : dump(nl, NFT_MSG_GETRULE, NFPROTO_INET, on_rule, &r);
        }
        if (code == 0) {
            *ret = s;
            return 0;
        }
        if (code != -EINTR) {
            break;
        }
    }
    return err_set(err, code, "cannot read the kernel's rules: %s", nft_hint(code));
}

// The rules of one chain in kernel order against those of the plan in plan order.
static bool chain_equals(const struct nft_state *s, const struct plan *p, enum chain c, char *why, size_t why_size)
{
    uint32_t set_id = 0;
    size_t k = 0, number = 0;
    const char *name = plan_chains[c].name;
    for (size_t i = 0; i < p->n; i++) {
        if (p->rules[i].chain != c) {
            continue;
        }
        number++;
        while (k < s->n_rules && strcmp(s->rules[k].chain, name) != 0) {
            k++;
        }
        if (k == s->n_rules) {
            snprintf(why, why_size, "rule %zu of chain %s is missing (%s)", number, name, p->rules[i].comment);
            return false;
        }
        struct nft_sets sets;
        struct nftnl_rule *rule = nft_rule_build(p, &p->rules[i], &set_id, &sets);
        uint64_t want = rule_digest(rule).h;
        nftnl_rule_free(rule);
        nft_sets_free(&sets);
        if (want != s->rules[k].content) {
            snprintf(why, why_size, "rule %zu of chain %s differs (%s)", number, name, p->rules[i].comment);
            return false;
        }
        k++;
    }
    for (; k < s->n_rules; k++) {
        if (strcmp(s->rules[k].chain, name) == 0) {
            snprintf(why, why_size, "chain %s has a rule more than it should", name);
            return false;
        }
    }
    return true;
}

bool nft_state_equals(const struct nft_state *s, const struct plan *p, char *why, size_t why_size)
{
    char comment[64];
    size_t chains = 0;
    if (!s->present) {
        snprintf(why, why_size, "there is no table inet %s", PLAN_TABLE);
        return false;
    }
    print_table_comment(plan_hash(p), comment, sizeof(comment));
    if (strcmp(comment, s->comment) != 0) {
        snprintf(why, why_size, "the rules were made for another configuration");
        return false;
    }
    for (int c = 0; c < CHAIN_COUNT; c++) {
        chains += plan_chain_used(p, (enum chain)c);
        if (!chain_equals(s, p, (enum chain)c, why, why_size)) {
            return false;
        }
    }
    if (chains != s->n_chains) {
        snprintf(why, why_size, "%zu chains where there should be %zu", s->n_chains, chains);
        return false;
    }
    return true;
}

const char *nft_state_foreign_owner(const struct state_table *t)
{
    static const struct {
        const char *table, *owner;
    } known[] = {
        { "istio-proxy-nat", "istio-iptables" },
        { "istio-proxy-mangle", "istio-iptables" },
        { "istio-proxy-raw", "istio-iptables" },
        { "istio-ambient-nat", "Istio ambient" },
        { "istio-ambient-mangle", "Istio ambient" },
        { "consul-cni", "Consul" },
        { "consul_proxy", "Consul" },
        { "linkerd", "linkerd" },
    };
    for (size_t i = 0; i < array_len(known); i++) {
        if (strcmp(t->name, known[i].table) == 0) {
            return known[i].owner;
        }
    }
    return NULL;
}
