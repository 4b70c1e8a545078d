// SPDX-License-Identifier: Apache-2.0
// Expressions back into matches and actions: nft_expr.c the other way round.
#include "init-net/live.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/check.h"

enum { ADDRESS_BYTES = 16, ELEMENTS_MAX = 262144 };

// What register 1 holds.
enum held { HELD_NONE, HELD_META, HELD_CT, HELD_PAYLOAD, HELD_VALUE };

// A list that is still to be asked for.
struct lookup {
    size_t rule, match;
    uint8_t family;
    const char *set;
};

struct decoder {
    struct plan *p;
    struct err *err;
    int code;
    struct lookup *lookups; // owned
    size_t n_lookups, cap_lookups;
    // the rule being read
    uint8_t family; // of its table
    struct rule *r;
    enum held held;
    uint32_t key, base, offset; // META, CT; PAYLOAD
    uint8_t value[4];           // VALUE
    uint8_t mask[ADDRESS_BYTES];
    uint32_t mask_len; // 0: none
    uint8_t nfproto;   // said by the condition before; consumed by an address
    bool acted;
    bool strange;
};

static struct match *new_match(struct decoder *d, enum match_kind kind, bool negate)
{
    if (d->r->n == RULE_MATCHES_MAX) {
        d->strange = true;
        return NULL;
    }
    struct match *m = &d->r->m[d->r->n++];
    *m = (struct match){ .kind = kind, .negate = negate };
    return m;
}

// A family that no address condition follows stands for itself.
static void flush_family(struct decoder *d)
{
    uint8_t family = d->nfproto;
    d->nfproto = 0;
    struct match *m = family ? new_match(d, MATCH_FAMILY, false) : NULL;
    if (m) {
        m->family = family;
    }
}

// A condition on the held address field: which one.
static bool address_kind(const struct decoder *d, uint32_t len, enum match_kind *ret)
{
    if (d->held != HELD_PAYLOAD || d->base != NFT_PAYLOAD_NETWORK_HEADER) {
        return false;
    }
    bool source = d->offset == (len == 4 ? 12u : 8u);
    *ret = source ? MATCH_SADDR : MATCH_DADDR;
    return true;
}

static bool port_kind(const struct decoder *d, enum match_kind *ret)
{
    if (d->held != HELD_PAYLOAD || d->base != NFT_PAYLOAD_TRANSPORT_HEADER || d->offset > 2) {
        return false;
    }
    *ret = d->offset == 0 ? MATCH_SPORT : MATCH_DPORT;
    return true;
}

static void one_port(struct decoder *d, enum match_kind kind, bool negate, uint16_t lo, uint16_t hi)
{
    struct match *m = new_match(d, kind, negate);
    if (m) {
        m->ports = (struct port_list){ .n = 1, .v = arena_array(d->p->a, struct port_range, 1) };
        m->ports.v[0] = (struct port_range){ lo, hi };
    }
}

static void one_net(struct decoder *d, enum match_kind kind, bool negate, const uint8_t *addr, uint32_t len)
{
    struct match *m = new_match(d, kind, negate);
    struct cidr c = { .family = len == 4 ? AF_INET : AF_INET6, .len = (uint8_t)(len * 8) };
    memcpy(c.addr, addr, len);
    if (d->mask_len) {
        c.len = 0;
        for (uint32_t bit = 0; bit < len * 8 && (d->mask[bit / 8] & (0x80u >> (bit % 8))); bit++) {
            c.len++;
        }
    }
    d->nfproto = 0; // the address says it
    if (m) {
        m->nets = (struct cidr_list){ .n = 1, .v = arena_array(d->p->a, struct cidr, 1) };
        m->nets.v[0] = c;
    }
}

static void one_name(struct decoder *d, bool negate, const char *data, uint32_t len)
{
    struct match *m = new_match(d, d->key == NFT_META_IIFNAME ? MATCH_IIF : MATCH_OIF, negate);
    // A whole name is compared with its end, a prefix without.
    bool prefix = strnlen(data, len) == len;
    if (m) {
        m->name = arena_printf(d->p->a, "%.*s%s", (int)strnlen(data, len), data, prefix ? "*" : "").p;
    }
}

static void one_mark(struct decoder *d, enum match_kind kind, bool negate, uint32_t value)
{
    struct match *m = new_match(d, kind, negate);
    if (m) {
        m->mark = (struct mark){ .value = value, .mask = UINT32_MAX };
        if (d->mask_len == 4) {
            memcpy(&m->mark.mask, d->mask, 4);
        }
    }
}

static void compare_meta(struct decoder *d, bool negate, const void *data, uint32_t len)
{
    uint32_t word = 0;
    memcpy(&word, data, len < 4 ? len : 4);
    struct match *m = NULL;
    switch (d->key) {
    case NFT_META_NFPROTO:
        d->nfproto = *(const uint8_t *)data;
        d->strange = d->strange || negate;
        return;
    case NFT_META_L4PROTO:
        m = new_match(d, MATCH_PROTO, negate);
        break;
    case NFT_META_IIFNAME:
    case NFT_META_OIFNAME:
        one_name(d, negate, data, len);
        return;
    case NFT_META_SKUID:
    case NFT_META_SKGID:
        m = new_match(d, d->key == NFT_META_SKUID ? MATCH_UID : MATCH_GID, negate);
        break;
    case NFT_META_MARK:
        one_mark(d, MATCH_MARK, negate, word);
        return;
    default:
        d->strange = true;
    }
    if (m && m->kind == MATCH_PROTO) {
        m->proto = (uint8_t)word;
    } else if (m) {
        m->ids = (struct id_list){ .n = 1, .v = arena_array(d->p->a, uint32_t, 1) };
        m->ids.v[0] = word;
    }
}

static void compare_ct(struct decoder *d, bool negate, const void *data)
{
    uint32_t word;
    memcpy(&word, data, 4);
    struct match *m;
    if (d->key == NFT_CT_MARK) {
        one_mark(d, MATCH_CT_MARK, negate, word);
        return;
    }
    // "state & bits != 0"
    if (d->key != NFT_CT_STATE || d->mask_len != 4 || !negate || word != 0 || !(m = new_match(d, MATCH_CT_STATE, false))) {
        d->strange = true;
        return;
    }
    memcpy(&m->ct_state, d->mask, 4);
}

static void on_cmp(struct decoder *d, struct nftnl_expr *e)
{
    uint32_t len = 0;
    const void *data = nftnl_expr_get(e, NFTNL_EXPR_CMP_DATA, &len);
    uint32_t op = nftnl_expr_get_u32(e, NFTNL_EXPR_CMP_OP);
    bool negate = op == NFT_CMP_NEQ;
    enum match_kind kind;
    uint16_t port;
    d->strange = d->strange || !data || (op != NFT_CMP_EQ && !negate);
    if (d->strange) {
        return;
    }
    if (d->nfproto && !address_kind(d, len, &kind)) {
        flush_family(d);
    }
    if (d->held == HELD_META) {
        compare_meta(d, negate, data, len);
    } else if (d->held == HELD_CT && len == 4) {
        compare_ct(d, negate, data);
    } else if (len == 2 && port_kind(d, &kind)) {
        memcpy(&port, data, 2);
        one_port(d, kind, negate, ntohs(port), ntohs(port));
    } else if ((len == 4 || len == 16) && address_kind(d, len, &kind)) {
        one_net(d, kind, negate, data, len);
    } else if (d->held == HELD_PAYLOAD && d->base == NFT_PAYLOAD_TRANSPORT_HEADER && d->offset == 13 && negate) {
        new_match(d, MATCH_NOT_SYN, false);
    } else {
        d->strange = true;
    }
    d->mask_len = 0;
}

static void on_range(struct decoder *d, struct nftnl_expr *e)
{
    uint32_t n1 = 0, n2 = 0;
    const void *from = nftnl_expr_get(e, NFTNL_EXPR_RANGE_FROM_DATA, &n1);
    const void *to = nftnl_expr_get(e, NFTNL_EXPR_RANGE_TO_DATA, &n2);
    uint16_t lo, hi;
    enum match_kind kind;
    flush_family(d);
    if (!from || !to || n1 != 2 || n2 != 2 || !port_kind(d, &kind)) {
        d->strange = true;
        return;
    }
    memcpy(&lo, from, 2);
    memcpy(&hi, to, 2);
    one_port(d, kind, nftnl_expr_get_u32(e, NFTNL_EXPR_RANGE_OP) == NFT_RANGE_NEQ, ntohs(lo), ntohs(hi));
}

static void on_lookup(struct decoder *d, struct nftnl_expr *e)
{
    enum match_kind kind = MATCH_UID;
    uint32_t len = d->nfproto == NFPROTO_IPV6 || (!d->nfproto && d->family == NFPROTO_IPV6) ? 16 : 4;
    bool address = address_kind(d, len, &kind);
    if (!address && !port_kind(d, &kind)) {
        kind = d->key == NFT_META_SKUID ? MATCH_UID : MATCH_GID;
        d->strange = d->strange || d->held != HELD_META || (d->key != NFT_META_SKUID && d->key != NFT_META_SKGID);
    }
    if (!address) {
        flush_family(d);
    }
    d->nfproto = 0;
    if (d->strange || !new_match(d, kind, (nftnl_expr_get_u32(e, NFTNL_EXPR_LOOKUP_FLAGS) & NFT_LOOKUP_F_INV) != 0)) {
        return;
    }
    if (d->n_lookups == d->cap_lookups) {
        size_t cap = d->cap_lookups ? d->cap_lookups * 2 : 16;
        struct lookup *v = arena_array(d->p->a, struct lookup, cap);
        if (d->n_lookups) {
            memcpy(v, d->lookups, d->n_lookups * sizeof(*v));
        }
        d->lookups = v;
        d->cap_lookups = cap;
    }
    d->lookups[d->n_lookups++] = (struct lookup){ (size_t)(d->r - d->p->rules), d->r->n - 1, d->family,
                                                  arena_strdup(d->p->a, nftnl_expr_get_str(e, NFTNL_EXPR_LOOKUP_SET)) };
}

static void act(struct decoder *d, enum action_kind action)
{
    d->strange = d->strange || d->acted;
    d->r->action = action;
    d->acted = true;
}

static void on_verdict(struct decoder *d, struct nftnl_expr *e)
{
    int verdict = (int)nftnl_expr_get_u32(e, NFTNL_EXPR_IMM_VERDICT);
    // "tproxy …; accept" and "ct zone …; return" are one action each.
    if (d->acted && ((d->r->action == ACTION_TPROXY && verdict == NF_ACCEPT) || (d->r->action == ACTION_ZONE && verdict == NFT_RETURN))) {
        return;
    }
    if (verdict == NFT_JUMP) {
        const char *name = nftnl_expr_get_str(e, NFTNL_EXPR_IMM_CHAIN);
        int c = CHAIN_BASES;
        while (c < CHAIN_COUNT && strcmp(plan_chains[c].name, name) != 0) {
            c++;
        }
        d->strange = d->strange || c == CHAIN_COUNT;
        d->r->target = c == CHAIN_COUNT ? CHAIN_INBOUND : (enum chain)c;
        act(d, ACTION_JUMP);
        return;
    }
    d->strange = d->strange || (verdict != NFT_RETURN && verdict != NF_ACCEPT && verdict != NF_DROP);
    act(d, verdict == NFT_RETURN ? ACTION_RETURN : verdict == NF_ACCEPT ? ACTION_ACCEPT : ACTION_DROP);
}

static void on_immediate(struct decoder *d, struct nftnl_expr *e)
{
    uint32_t len = 0;
    if (nftnl_expr_is_set(e, NFTNL_EXPR_IMM_VERDICT)) {
        on_verdict(d, e);
        return;
    }
    const void *data = nftnl_expr_get(e, NFTNL_EXPR_IMM_DATA, &len);
    d->strange = d->strange || !data || len > sizeof(d->value);
    if (!d->strange) {
        memset(d->value, 0, sizeof(d->value));
        memcpy(d->value, data, len);
        d->held = HELD_VALUE;
    }
}

static uint16_t held_port(struct decoder *d)
{
    uint16_t port;
    memcpy(&port, d->value, 2);
    d->strange = d->strange || d->held != HELD_VALUE;
    return ntohs(port);
}

static void on_meta(struct decoder *d, struct nftnl_expr *e)
{
    uint32_t key = nftnl_expr_get_u32(e, NFTNL_EXPR_META_KEY);
    if (!nftnl_expr_is_set(e, NFTNL_EXPR_META_SREG)) {
        d->held = HELD_META;
        d->key = key;
        return;
    }
    if (key != NFT_META_MARK) {
        d->strange = true;
    } else if (d->held == HELD_CT && d->key == NFT_CT_MARK) {
        act(d, ACTION_CT_RESTORE);
    } else if (d->held == HELD_VALUE) {
        memcpy(&d->r->value, d->value, 4);
        if (!d->acted) {
            act(d, ACTION_MARK);
        }
        d->strange = d->strange || (d->r->action != ACTION_MARK && d->r->action != ACTION_TPROXY);
    } else {
        d->strange = true;
    }
}

static void on_ct(struct decoder *d, struct nftnl_expr *e)
{
    uint32_t key = nftnl_expr_get_u32(e, NFTNL_EXPR_CT_KEY);
    uint16_t zone;
    if (!nftnl_expr_is_set(e, NFTNL_EXPR_CT_SREG)) {
        d->held = HELD_CT;
        d->key = key;
    } else if (key == NFT_CT_MARK && d->held == HELD_META && d->key == NFT_META_MARK) {
        act(d, ACTION_CT_SAVE);
    } else if (key == NFT_CT_ZONE && d->held == HELD_VALUE) {
        memcpy(&zone, d->value, 2);
        act(d, ACTION_ZONE);
        d->r->value = zone;
    } else {
        d->strange = true;
    }
}

static int on_expr(struct nftnl_expr *e, void *arg)
{
    struct decoder *d = arg;
    const char *name = nftnl_expr_get_str(e, NFTNL_EXPR_NAME);
    uint32_t len = 0;
    bool condition = strcmp(name, "cmp") == 0 || strcmp(name, "range") == 0 || strcmp(name, "lookup") == 0;
    if (strcmp(name, "meta") == 0) {
        on_meta(d, e);
    } else if (strcmp(name, "ct") == 0) {
        on_ct(d, e);
    } else if (strcmp(name, "payload") == 0) {
        d->held = HELD_PAYLOAD;
        d->base = nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_BASE);
        d->offset = nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET);
    } else if (strcmp(name, "bitwise") == 0) {
        const void *mask = nftnl_expr_get(e, NFTNL_EXPR_BITWISE_MASK, &len);
        d->strange = d->strange || !mask || len > ADDRESS_BYTES;
        d->mask_len = d->strange ? 0 : len;
        memcpy(d->mask, d->strange ? d->mask : mask, d->mask_len);
    } else if (condition) {
        d->strange = d->strange || d->acted;
        name[0] == 'c' ? on_cmp(d, e) : name[0] == 'r' ? on_range(d, e) : on_lookup(d, e);
    } else if (strcmp(name, "immediate") == 0) {
        on_immediate(d, e);
    } else if (strcmp(name, "redir") == 0) {
        act(d, ACTION_REDIRECT);
        d->r->port = held_port(d);
    } else if (strcmp(name, "tproxy") == 0) {
        act(d, ACTION_TPROXY);
        d->r->port = held_port(d);
    } else if (strcmp(name, "reject") == 0) {
        act(d, ACTION_REJECT);
    } else if (strcmp(name, "counter") == 0) {
        flush_family(d); // the conditions are over
    } else {
        d->strange = true;
    }
    return MNL_CB_OK;
}

static const char *comment_of(struct nftnl_rule *rule, struct arena *a)
{
    uint32_t len = 0;
    const char *data = nftnl_rule_get_data(rule, NFTNL_RULE_USERDATA, &len);
    // One TLV: type, length, text (nft(8)'s NFTNL_UDATA_RULE_COMMENT).
    if (!data || len < 2 || data[0] != NFTNL_UDATA_RULE_COMMENT || (uint32_t)(uint8_t)data[1] + 2 > len) {
        return "";
    }
    return arena_str(a, str_n(data + 2, strnlen(data + 2, (uint8_t)data[1]))).p;
}

static int chain_by_name(const char *name)
{
    for (int c = 0; c < CHAIN_COUNT; c++) {
        if (strcmp(plan_chains[c].name, name) == 0) {
            return c;
        }
    }
    return -1;
}

static int on_rule(const struct nlmsghdr *msg, void *arg)
{
    struct decoder *d = arg;
    struct nftnl_rule *rule = nftnl_rule_alloc();
    CHECK(rule);
    if (nftnl_rule_nlmsg_parse(msg, rule) == 0 && strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), PLAN_TABLE) == 0 && d->code == 0) {
        const char *chain = nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN), *comment = comment_of(rule, d->p->a);
        int c = chain_by_name(chain);
        d->r = plan_add(d->p, c < 0 ? CHAIN_INBOUND : (enum chain)c, ACTION_RETURN, "", "%s", "");
        d->held = HELD_NONE;
        d->mask_len = 0;
        d->acted = false;
        d->strange = c < 0;
        // A table of family ip or ip6 sees nothing else.
        d->nfproto = d->family == NFPROTO_INET ? 0 : d->family;
        flush_family(d);
        nftnl_expr_foreach(rule, on_expr, d);
        live_set_comment(d->p, d->r, comment);
        if (d->strange || !d->acted) {
            d->code = err_set(d->err, -EINVAL,
                              "rule %zu of chain %s (%s) is not one that remora-init writes; apply puts the "
                              "rules in order",
                              c < 0 ? 0 : plan_rule_number(d->p, d->r), chain, comment);
        }
    }
    nftnl_rule_free(rule);
    return MNL_CB_OK;
}

// --- sets ---

struct element {
    uint8_t key[ADDRESS_BYTES];
    uint32_t len;
    bool end;
};

struct elements {
    struct arena *a;
    struct element *v; // arena
    size_t n, cap;
};

static int take_element(struct nftnl_set_elem *e, void *arg)
{
    struct elements *l = arg;
    uint32_t len = 0;
    const void *key = nftnl_set_elem_get(e, NFTNL_SET_ELEM_KEY, &len);
    bool end = nftnl_set_elem_is_set(e, NFTNL_SET_ELEM_FLAGS) &&
               (nftnl_set_elem_get_u32(e, NFTNL_SET_ELEM_FLAGS) & NFT_SET_ELEM_INTERVAL_END) != 0;
    if (!key || len > ADDRESS_BYTES || l->n >= ELEMENTS_MAX) {
        return MNL_CB_OK;
    }
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 32;
        struct element *v = arena_array(l->a, struct element, cap);
        if (l->n) {
            memcpy(v, l->v, l->n * sizeof(*v));
        }
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n] = (struct element){ .len = len, .end = end };
    memcpy(l->v[l->n++].key, key, len);
    return MNL_CB_OK;
}

static int on_elements(const struct nlmsghdr *msg, void *arg)
{
    struct nftnl_set *s = nftnl_set_alloc();
    CHECK(s);
    if (nftnl_set_elems_nlmsg_parse(msg, s) == 0) {
        nftnl_set_elem_foreach(s, take_element, arg);
    }
    nftnl_set_free(s);
    return MNL_CB_OK;
}

static int read_elements(struct nl *nl, uint8_t family, const char *name, struct elements *l)
{
    char buf[512];
    struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETSETELEM, family, NLM_F_DUMP, 0);
    struct nftnl_set *s = nftnl_set_alloc();
    CHECK(s);
    nftnl_set_set_str(s, NFTNL_SET_TABLE, PLAN_TABLE);
    nftnl_set_set_str(s, NFTNL_SET_NAME, name);
    nftnl_set_elems_nlmsg_build_payload(msg, s);
    nftnl_set_free(s);
    return nl_request(nl, msg, on_elements, l);
}

// By key; the end of one interval before the beginning of the next.
static int by_key(const void *x, const void *y)
{
    const struct element *a = x, *b = y;
    int r = memcmp(a->key, b->key, ADDRESS_BYTES);
    return r ? r : (int)b->end - (int)a->end;
}

static uint16_t port_of(const struct element *e)
{
    uint16_t port;
    memcpy(&port, e->key, 2);
    return ntohs(port);
}

static void ports_from(const struct elements *l, bool interval, struct match *m)
{
    struct port_list p = { .v = arena_array(l->a, struct port_range, l->n + 1) };
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].end) {
            continue;
        }
        uint16_t lo = port_of(&l->v[i]), hi = lo;
        if (interval) {
            hi = i + 1 < l->n ? (uint16_t)(port_of(&l->v[i + 1]) - 1) : 65535;
        }
        p.v[p.n++] = (struct port_range){ lo, hi };
    }
    m->ports = p;
}

// The largest network that begins at addr and does not reach end (NULL: the end of the address space).
static struct cidr largest_net(const uint8_t *addr, const uint8_t *end, uint32_t len)
{
    struct cidr c = { .family = len == 4 ? AF_INET : AF_INET6, .len = (uint8_t)(len * 8) };
    memcpy(c.addr, addr, len);
    while (c.len > 0) {
        unsigned bit = c.len - 1u;
        uint8_t last[ADDRESS_BYTES];
        if (c.addr[bit / 8] & (0x80u >> (bit % 8))) {
            break;
        }
        memcpy(last, c.addr, len);
        for (unsigned k = bit; k < len * 8; k++) {
            last[k / 8] |= (uint8_t)(0x80u >> (k % 8));
        }
        if (end && memcmp(last, end, len) >= 0) {
            break;
        }
        c.len--;
    }
    return c;
}

// The address behind a network; false at the end of the address space.
static bool behind(const struct cidr *c, uint8_t *ret)
{
    memcpy(ret, c->addr, ADDRESS_BYTES);
    for (int bit = c->len - 1; bit >= 0; bit--) {
        uint8_t one = (uint8_t)(0x80u >> (bit % 8));
        ret[bit / 8] ^= one;
        if (ret[bit / 8] & one) {
            return true;
        }
    }
    return false;
}

static void nets_from(const struct elements *l, bool interval, struct match *m)
{
    size_t cap = l->n * 64 + 1; // an interval between two addresses is at most 2 * 128 networks; ours come from far fewer
    struct cidr_list p = { .v = arena_array(l->a, struct cidr, cap) };
    for (size_t i = 0; i < l->n; i++) {
        const struct element *e = &l->v[i];
        const uint8_t *end = i + 1 < l->n ? l->v[i + 1].key : NULL;
        uint8_t at[ADDRESS_BYTES];
        if (e->end) {
            continue;
        }
        if (!interval) {
            p.v[p.n] = (struct cidr){ .family = e->len == 4 ? AF_INET : AF_INET6, .len = (uint8_t)(e->len * 8) };
            memcpy(p.v[p.n++].addr, e->key, e->len);
            continue;
        }
        memcpy(at, e->key, ADDRESS_BYTES);
        bool more = true;
        while (more && p.n < cap && (!end || memcmp(at, end, e->len) < 0)) {
            p.v[p.n] = largest_net(at, end, e->len);
            more = behind(&p.v[p.n++], at);
        }
    }
    m->nets = p;
}

static void ids_from(const struct elements *l, struct match *m)
{
    struct id_list p = { .v = arena_array(l->a, uint32_t, l->n + 1) };
    for (size_t i = 0; i < l->n; i++) {
        memcpy(&p.v[p.n++], l->v[i].key, 4); // host order
    }
    m->ids = p;
}

static int fill_lookup(struct nl *nl, struct plan *p, const struct lookup *x, struct err *err)
{
    struct elements l = { .a = p->a };
    struct match *m = &p->rules[x->rule].m[x->match];
    bool interval = false;
    uint64_t until_ms = 0;
    int code;
    do {
        l.n = 0;
        code = read_elements(nl, x->family, x->set, &l);
    } while (nl_again(code, &until_ms));
    if (code || l.n == 0) {
        return err_set(err, code ? code : -EINVAL, "cannot read the list of rule '%s': %s", p->rules[x->rule].comment,
                       code ? nft_hint(code) : "it is empty");
    }
    qsort(l.v, l.n, sizeof(*l.v), by_key);
    for (size_t i = 0; i < l.n; i++) {
        interval = interval || l.v[i].end;
    }
    if (m->kind == MATCH_SPORT || m->kind == MATCH_DPORT) {
        ports_from(&l, interval, m);
    } else if (m->kind == MATCH_SADDR || m->kind == MATCH_DADDR) {
        nets_from(&l, interval, m);
    } else {
        ids_from(&l, m);
    }
    return 0;
}

static int read_rules(struct nl *nl, const struct nft_state *s, struct decoder *d)
{
    const struct {
        bool there;
        uint8_t family;
    } own[] = { { s->inet, NFPROTO_INET }, { s->ip, NFPROTO_IPV4 }, { s->ip6, NFPROTO_IPV6 } };
    int code = 0;
    for (size_t i = 0; i < array_len(own) && code == 0; i++) {
        char buf[256];
        struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETRULE, own[i].family, NLM_F_DUMP, 0);
        mnl_attr_put_strz(msg, NFTA_RULE_TABLE, PLAN_TABLE);
        d->family = own[i].family;
        code = own[i].there ? nl_request(nl, msg, on_rule, d) : 0;
    }
    return code;
}

int live_read_nft(struct nl *nl, const struct nft_state *s, struct plan *p, struct err *err)
{
    const struct plan before = *p;
    struct decoder d;
    uint64_t until_ms = 0;
    int code;
    do {
        *p = before;
        d = (struct decoder){ .p = p, .err = err };
        code = read_rules(nl, s, &d);
    } while (nl_again(code, &until_ms));
    if (code) {
        return err_set(err, code, "cannot read the kernel's rules: %s", nft_hint(code));
    }
    for (size_t i = 0; i < d.n_lookups && d.code == 0; i++) {
        d.code = fill_lookup(nl, p, &d.lookups[i], err);
    }
    return d.code;
}
