// SPDX-License-Identifier: Apache-2.0
#include "init-net/nft_expr.h"

#include <arpa/inet.h>
#include <libnftnl/expr.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <net/if.h>
#include <stdio.h>

#include "lib/base/check.h"

// Type numbers that nft(8) uses to print set elements (its enum datatypes); the kernel stores but does not read them.
enum { TYPE_IPADDR = 7, TYPE_IP6ADDR = 8, TYPE_SERVICE = 13, TYPE_UID = 24, TYPE_GID = 25 };

struct build {
    struct nftnl_rule *rule;
    struct nft_sets *sets;
    uint32_t *next_set_id;
    uint8_t family; // of the table
};

static struct nftnl_expr *expr_new(const char *name)
{
    struct nftnl_expr *e = nftnl_expr_alloc(name);
    CHECK(e);
    return e;
}

static void add_meta(struct build *b, uint32_t key)
{
    struct nftnl_expr *e = expr_new("meta");
    nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, NFT_REG_1);
    nftnl_rule_add_expr(b->rule, e);
}

static void add_ct(struct build *b, uint32_t key)
{
    struct nftnl_expr *e = expr_new("ct");
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, key);
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
    nftnl_rule_add_expr(b->rule, e);
}

static void add_payload(struct build *b, uint32_t base, uint32_t offset, uint32_t len)
{
    struct nftnl_expr *e = expr_new("payload");
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, len);
    nftnl_rule_add_expr(b->rule, e);
}

static void add_cmp(struct build *b, bool negate, const void *data, uint32_t len)
{
    struct nftnl_expr *e = expr_new("cmp");
    nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, negate ? NFT_CMP_NEQ : NFT_CMP_EQ);
    nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, data, len);
    nftnl_rule_add_expr(b->rule, e);
}

static void add_mask(struct build *b, const void *mask, uint32_t len)
{
    static const uint8_t zero[16];
    struct nftnl_expr *e = expr_new("bitwise");
    nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, len);
    nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, mask, len);
    nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, zero, len);
    nftnl_rule_add_expr(b->rule, e);
}

static void add_range(struct build *b, bool negate, const void *lo, const void *hi, uint32_t len)
{
    struct nftnl_expr *e = expr_new("range");
    nftnl_expr_set_u32(e, NFTNL_EXPR_RANGE_SREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_RANGE_OP, negate ? NFT_RANGE_NEQ : NFT_RANGE_EQ);
    nftnl_expr_set(e, NFTNL_EXPR_RANGE_FROM_DATA, lo, len);
    nftnl_expr_set(e, NFTNL_EXPR_RANGE_TO_DATA, hi, len);
    nftnl_rule_add_expr(b->rule, e);
}

// A constant into register reg.
static void add_value(struct build *b, uint32_t reg, const void *data, uint32_t len)
{
    struct nftnl_expr *e = expr_new("immediate");
    nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, reg);
    nftnl_expr_set(e, NFTNL_EXPR_IMM_DATA, data, len);
    nftnl_rule_add_expr(b->rule, e);
}

static void add_verdict(struct build *b, int verdict, const char *chain)
{
    struct nftnl_expr *e = expr_new("immediate");
    nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
    if (chain) {
        nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, chain);
    }
    nftnl_rule_add_expr(b->rule, e);
}

static void add_set_meta(struct build *b, uint32_t key)
{
    struct nftnl_expr *e = expr_new("meta");
    nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(e, NFTNL_EXPR_META_SREG, NFT_REG_1);
    nftnl_rule_add_expr(b->rule, e);
}

static void add_set_ct(struct build *b, uint32_t key)
{
    struct nftnl_expr *e = expr_new("ct");
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, key);
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_SREG, NFT_REG_1);
    nftnl_rule_add_expr(b->rule, e);
}

// --- sets ---

static struct nftnl_set *set_new(struct build *b, uint32_t type, uint32_t key_len, bool interval)
{
    CHECK(b->sets->n < NFT_SETS_PER_RULE);
    struct nftnl_set *s = nftnl_set_alloc();
    CHECK(s);
    nftnl_set_set_str(s, NFTNL_SET_TABLE, PLAN_TABLE);
    nftnl_set_set_str(s, NFTNL_SET_NAME, "__set%d");
    nftnl_set_set_u32(s, NFTNL_SET_FAMILY, b->family);
    nftnl_set_set_u32(s, NFTNL_SET_ID, ++*b->next_set_id);
    nftnl_set_set_u32(s, NFTNL_SET_FLAGS,
                      NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | (interval ? NFT_SET_INTERVAL : 0u));
    nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, type);
    nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, key_len);
    b->sets->v[b->sets->n++] = s;
    return s;
}

static void set_add(struct nftnl_set *s, const void *key, uint32_t len, bool end)
{
    struct nftnl_set_elem *e = nftnl_set_elem_alloc();
    CHECK(e);
    nftnl_set_elem_set(e, NFTNL_SET_ELEM_KEY, key, len);
    if (end) {
        nftnl_set_elem_set_u32(e, NFTNL_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
    }
    nftnl_set_elem_add(s, e);
}

static void add_lookup(struct build *b, struct nftnl_set *s, bool negate)
{
    struct nftnl_expr *e = expr_new("lookup");
    nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
    nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, nftnl_set_get_str(s, NFTNL_SET_NAME));
    nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SET_ID, nftnl_set_get_u32(s, NFTNL_SET_ID));
    nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_FLAGS, negate ? NFT_LOOKUP_F_INV : 0);
    nftnl_rule_add_expr(b->rule, e);
}

// Which family the packet is of; in a table of family ip or ip6 there is no other.
static void match_nfproto(struct build *b, uint8_t family, bool negate)
{
    uint8_t nfproto = family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6;
    if (b->family == NFPROTO_INET) {
        add_meta(b, NFT_META_NFPROTO);
        add_cmp(b, negate, &nfproto, 1);
    }
}

static void match_port_list(struct build *b, const struct match *m)
{
    const struct port_list *l = &m->ports;
    add_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, m->kind == MATCH_SPORT ? 0 : 2, 2);
    uint16_t lo = htons(l->v[0].lo), hi = htons(l->v[0].hi);
    if (l->n == 1 && lo == hi) {
        add_cmp(b, m->negate, &lo, sizeof(lo));
        return;
    }
    if (l->n == 1) {
        add_range(b, m->negate, &lo, &hi, sizeof(lo));
        return;
    }
    bool interval = false;
    for (size_t i = 0; i < l->n; i++) {
        interval = interval || l->v[i].lo != l->v[i].hi;
    }
    struct nftnl_set *s = set_new(b, TYPE_SERVICE, 2, interval);
    for (size_t i = 0; i < l->n; i++) {
        lo = htons(l->v[i].lo);
        set_add(s, &lo, sizeof(lo), false);
        // An interval is half open: its end is the first port outside; 65535 has none.
        if (interval && l->v[i].hi != 65535) {
            hi = htons((uint16_t)(l->v[i].hi + 1));
            set_add(s, &hi, sizeof(hi), true);
        }
    }
    add_lookup(b, s, m->negate);
}

// First address behind the network; false when the network reaches the end of the address space.
static bool net_end(const struct cidr *c, uint8_t *ret)
{
    memcpy(ret, c->addr, 16);
    for (int bit = c->len - 1; bit >= 0; bit--) {
        uint8_t mask = (uint8_t)(0x80u >> (bit % 8));
        ret[bit / 8] ^= mask;
        if (ret[bit / 8] & mask) {
            return true;
        }
    }
    return false;
}

static void net_mask(const struct cidr *c, uint8_t *ret)
{
    memset(ret, 0, 16);
    for (unsigned bit = 0; bit < c->len; bit++) {
        ret[bit / 8] |= (uint8_t)(0x80u >> (bit % 8));
    }
}

static void match_net_list(struct build *b, const struct match *m)
{
    const struct cidr_list *l = &m->nets;
    bool v4 = l->v[0].family == AF_INET;
    uint32_t len = v4 ? 4 : 16;
    uint8_t other[16];
    match_nfproto(b, l->v[0].family, false);
    if (l->n == 1 && l->v[0].len == 0 && !m->negate) {
        return;
    }
    bool source = m->kind == MATCH_SADDR;
    add_payload(b, NFT_PAYLOAD_NETWORK_HEADER, v4 ? (source ? 12 : 16) : (source ? 8 : 24), len);
    if (l->n == 1) {
        if (l->v[0].len != len * 8) {
            net_mask(&l->v[0], other);
            add_mask(b, other, len);
        }
        add_cmp(b, m->negate, l->v[0].addr, len);
        return;
    }
    bool interval = false;
    for (size_t i = 0; i < l->n; i++) {
        interval = interval || l->v[i].len != len * 8;
    }
    struct nftnl_set *s = set_new(b, v4 ? TYPE_IPADDR : TYPE_IP6ADDR, len, interval);
    bool joined = false; // this network begins where the last one ended: one interval, as nft(8) sends it
    for (size_t i = 0; i < l->n; i++) {
        if (!joined) {
            set_add(s, l->v[i].addr, len, false);
        }
        bool ends = interval && net_end(&l->v[i], other);
        joined = ends && i + 1 < l->n && memcmp(other, l->v[i + 1].addr, len) == 0;
        if (ends && !joined) {
            set_add(s, other, len, true);
        }
    }
    add_lookup(b, s, m->negate);
}

static void match_id_list(struct build *b, const struct match *m)
{
    bool uid = m->kind == MATCH_UID;
    add_meta(b, uid ? NFT_META_SKUID : NFT_META_SKGID);
    if (m->ids.n == 1) {
        add_cmp(b, m->negate, &m->ids.v[0], 4);
        return;
    }
    struct nftnl_set *s = set_new(b, uid ? TYPE_UID : TYPE_GID, 4, false);
    for (size_t i = 0; i < m->ids.n; i++) {
        set_add(s, &m->ids.v[i], 4, false);
    }
    add_lookup(b, s, m->negate);
}

static void match_interface(struct build *b, const struct match *m)
{
    char name[IFNAMSIZ] = "";
    size_t n = strlen(m->name);
    bool prefix = n && m->name[n - 1] == '*';
    memcpy(name, m->name, n - prefix < IFNAMSIZ ? n - prefix : IFNAMSIZ - 1);
    add_meta(b, m->kind == MATCH_IIF ? NFT_META_IIFNAME : NFT_META_OIFNAME);
    if (!prefix) {
        add_cmp(b, m->negate, name, IFNAMSIZ);
    } else if (n > 1) {
        add_cmp(b, m->negate, name, (uint32_t)(n - 1));
    }
}

static void match_mark_value(struct build *b, const struct match *m)
{
    if (m->mark.mask != UINT32_MAX) {
        add_mask(b, &m->mark.mask, 4);
    }
    add_cmp(b, m->negate, &m->mark.value, 4);
}

static void add_match(struct build *b, const struct match *m)
{
    static const uint32_t zero = 0;
    static const uint8_t tcp_flags = 0x17, tcp_syn = 0x02; // FIN|SYN|RST|ACK; RFC 9293 §3.1
    switch (m->kind) {
    case MATCH_FAMILY:
        match_nfproto(b, m->family, m->negate);
        break;
    case MATCH_PROTO:
        add_meta(b, NFT_META_L4PROTO);
        add_cmp(b, m->negate, &m->proto, 1);
        break;
    case MATCH_SPORT:
    case MATCH_DPORT:
        match_port_list(b, m);
        break;
    case MATCH_IIF:
    case MATCH_OIF:
        match_interface(b, m);
        break;
    case MATCH_SADDR:
    case MATCH_DADDR:
        match_net_list(b, m);
        break;
    case MATCH_UID:
    case MATCH_GID:
        match_id_list(b, m);
        break;
    case MATCH_MARK:
        add_meta(b, NFT_META_MARK);
        match_mark_value(b, m);
        break;
    case MATCH_CT_MARK:
        add_ct(b, NFT_CT_MARK);
        match_mark_value(b, m);
        break;
    case MATCH_CT_STATE:
        add_ct(b, NFT_CT_STATE);
        add_mask(b, &m->ct_state, 4);
        add_cmp(b, true, &zero, 4);
        break;
    case MATCH_NOT_SYN:
        add_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1);
        add_mask(b, &tcp_flags, 1);
        add_cmp(b, true, &tcp_syn, 1);
        break;
    }
}

static void add_redirect(struct build *b, const struct rule *r)
{
    uint16_t port = htons(r->port);
    add_value(b, NFT_REG_1, &port, sizeof(port));
    struct nftnl_expr *e = expr_new("redir");
    nftnl_expr_set_u32(e, NFTNL_EXPR_REDIR_REG_PROTO_MIN, NFT_REG_1);
    nftnl_rule_add_expr(b->rule, e);
}

static void add_tproxy(struct build *b, const struct rule *r)
{
    uint16_t port = htons(r->port);
    uint32_t family = NFPROTO_IPV4;
    for (size_t i = 0; i < r->n; i++) {
        if (r->m[i].kind == MATCH_DADDR && r->m[i].nets.v[0].family == AF_INET6) {
            family = NFPROTO_IPV6;
        }
    }
    add_value(b, NFT_REG_1, &port, sizeof(port));
    struct nftnl_expr *e = expr_new("tproxy");
    nftnl_expr_set_u32(e, NFTNL_EXPR_TPROXY_FAMILY, family);
    nftnl_expr_set_u32(e, NFTNL_EXPR_TPROXY_REG_PORT, NFT_REG_1);
    nftnl_rule_add_expr(b->rule, e);
    add_value(b, NFT_REG_1, &r->value, sizeof(r->value));
    add_set_meta(b, NFT_META_MARK);
    add_verdict(b, NF_ACCEPT, NULL);
}

// The port is unreachable: ICMPX stands for both families, where a table holds both.
static void add_reject(struct build *b, const struct rule *r)
{
    struct nftnl_expr *e = expr_new("reject");
    bool tcp = false;
    for (size_t i = 0; i < r->n; i++) {
        tcp = tcp || (r->m[i].kind == MATCH_PROTO && r->m[i].proto == IPPROTO_TCP);
    }
    uint8_t code = b->family == NFPROTO_INET ? NFT_REJECT_ICMPX_PORT_UNREACH : b->family == NFPROTO_IPV4 ? 3 : 4;
    uint32_t type = tcp ? NFT_REJECT_TCP_RST : b->family == NFPROTO_INET ? NFT_REJECT_ICMPX_UNREACH : NFT_REJECT_ICMP_UNREACH;
    nftnl_expr_set_u32(e, NFTNL_EXPR_REJECT_TYPE, type);
    nftnl_expr_set_u8(e, NFTNL_EXPR_REJECT_CODE, tcp ? 0 : code); // RFC 792, RFC 4443 §3.1
    nftnl_rule_add_expr(b->rule, e);
}

static void add_action(struct build *b, const struct rule *r)
{
    switch (r->action) {
    case ACTION_RETURN:
        add_verdict(b, NFT_RETURN, NULL);
        break;
    case ACTION_ACCEPT:
        add_verdict(b, NF_ACCEPT, NULL);
        break;
    case ACTION_DROP:
        add_verdict(b, NF_DROP, NULL);
        break;
    case ACTION_REJECT:
        add_reject(b, r);
        break;
    case ACTION_JUMP:
        add_verdict(b, NFT_JUMP, plan_chains[r->target].name);
        break;
    case ACTION_REDIRECT:
        add_redirect(b, r);
        break;
    case ACTION_TPROXY:
        add_tproxy(b, r);
        break;
    case ACTION_MARK:
        add_value(b, NFT_REG_1, &r->value, sizeof(r->value));
        add_set_meta(b, NFT_META_MARK);
        break;
    case ACTION_CT_SAVE:
        add_meta(b, NFT_META_MARK);
        add_set_ct(b, NFT_CT_MARK);
        break;
    case ACTION_CT_RESTORE:
        add_ct(b, NFT_CT_MARK);
        add_set_meta(b, NFT_META_MARK);
        break;
    case ACTION_ZONE: {
        uint16_t zone = (uint16_t)r->value;
        add_value(b, NFT_REG_1, &zone, sizeof(zone));
        add_set_ct(b, NFT_CT_ZONE);
        add_verdict(b, NFT_RETURN, NULL);
        break;
    }
    }
}

static void add_comment(struct nftnl_rule *rule, const struct rule *r)
{
    char text[NFTNL_UDATA_COMMENT_MAXLEN];
    snprintf(text, sizeof(text), "%s%s%s", r->origin, r->origin[0] ? ": " : "", r->comment);
    struct nftnl_udata_buf *u = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
    CHECK(u);
    nftnl_udata_put_strz(u, NFTNL_UDATA_RULE_COMMENT, text);
    nftnl_rule_set_data(rule, NFTNL_RULE_USERDATA, nftnl_udata_buf_data(u), nftnl_udata_buf_len(u));
    nftnl_udata_buf_free(u);
}

struct nftnl_rule *nft_rule_build(uint8_t family, const struct rule *r, uint32_t *next_set_id, struct nft_sets *ret_sets)
{
    *ret_sets = (struct nft_sets){ 0 };
    struct nftnl_rule *rule = nftnl_rule_alloc();
    CHECK(rule);
    struct build b = { .rule = rule, .sets = ret_sets, .next_set_id = next_set_id, .family = family };
    nftnl_rule_set_str(rule, NFTNL_RULE_TABLE, PLAN_TABLE);
    nftnl_rule_set_str(rule, NFTNL_RULE_CHAIN, plan_chains[r->chain].name);
    nftnl_rule_set_u32(rule, NFTNL_RULE_FAMILY, family);
    for (size_t i = 0; i < r->n; i++) {
        add_match(&b, &r->m[i]);
    }
    struct nftnl_expr *counter = expr_new("counter");
    nftnl_expr_set_u64(counter, NFTNL_EXPR_CTR_PACKETS, 0);
    nftnl_expr_set_u64(counter, NFTNL_EXPR_CTR_BYTES, 0);
    nftnl_rule_add_expr(rule, counter);
    add_action(&b, r);
    add_comment(rule, r);
    return rule;
}

void nft_sets_free(struct nft_sets *sets)
{
    for (size_t i = 0; i < sets->n; i++) {
        nftnl_set_free(sets->v[i]);
    }
    sets->n = 0;
}
