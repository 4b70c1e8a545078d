// SPDX-License-Identifier: Apache-2.0
#include "init-net/nft_batch.h"

#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "init-net/nft_expr.h"
#include "init-net/print.h"
#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/base/scope.h"

// The messages of one transaction, one after the other in memory, and what each is about.
struct batch {
    char *buf; // owned
    size_t len, cap;
    uint32_t seq, first_seq;
    struct label {
        const struct rule *rule; // NULL: see what
        const char *what;        // static text
        const char *name;        // borrowed
    } *labels; // owned; index: seq - first_seq
    size_t cap_labels;
};

static void batch_fini(struct batch *b)
{
    free(b->buf);
    free(b->labels);
}
#define scope_batch __attribute__((cleanup(batch_fini)))

// Room for one more message; what it is about goes into the label.
static char *batch_next(struct batch *b, const struct rule *rule, const char *what, const char *name)
{
    mem_grow(&b->buf, &b->cap, b->len + NL_MSG_MAX, 1);
    size_t ix = b->seq - b->first_seq;
    mem_grow(&b->labels, &b->cap_labels, ix + 1, sizeof(*b->labels));
    b->labels[ix] = (struct label){ rule, what, name };
    return b->buf + b->len;
}

static void batch_done(struct batch *b, const struct nlmsghdr *msg)
{
    b->len += NLMSG_ALIGN(msg->nlmsg_len);
    b->seq++;
}

static void put_table(struct batch *b, uint16_t type, uint16_t flags, uint8_t family, const char *name,
                      const char *comment)
{
    struct nlmsghdr *msg =
        nftnl_nlmsg_build_hdr(batch_next(b, NULL, "table", name), type, family, flags, b->seq);
    struct nftnl_table *t = nftnl_table_alloc();
    CHECK(t);
    nftnl_table_set_u32(t, NFTNL_TABLE_FAMILY, family);
    nftnl_table_set_str(t, NFTNL_TABLE_NAME, name);
    if (comment) {
        struct nftnl_udata_buf *u = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
        CHECK(u);
        nftnl_udata_put_strz(u, NFTNL_UDATA_TABLE_COMMENT, comment);
        nftnl_table_set_data(t, NFTNL_TABLE_USERDATA, nftnl_udata_buf_data(u), nftnl_udata_buf_len(u));
        nftnl_udata_buf_free(u);
    }
    nftnl_table_nlmsg_build_payload(msg, t);
    nftnl_table_free(t);
    batch_done(b, msg);
}

static void put_chain(struct batch *b, const struct plan *p, uint8_t family, enum chain c)
{
    const struct chain_info *info = &plan_chains[c];
    struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(batch_next(b, NULL, "chain", info->name), NFT_MSG_NEWCHAIN, family,
                                                 NLM_F_CREATE, b->seq);
    struct nftnl_chain *ch = nftnl_chain_alloc();
    CHECK(ch);
    nftnl_chain_set_str(ch, NFTNL_CHAIN_TABLE, PLAN_TABLE);
    nftnl_chain_set_str(ch, NFTNL_CHAIN_NAME, info->name);
    if (info->type) {
        nftnl_chain_set_str(ch, NFTNL_CHAIN_TYPE, info->type);
        nftnl_chain_set_u32(ch, NFTNL_CHAIN_HOOKNUM, info->hook);
        nftnl_chain_set_s32(ch, NFTNL_CHAIN_PRIO, plan_chain_priority(p, c));
        nftnl_chain_set_u32(ch, NFTNL_CHAIN_POLICY, NF_ACCEPT);
    }
    nftnl_chain_nlmsg_build_payload(msg, ch);
    nftnl_chain_free(ch);
    batch_done(b, msg);
}

// A chain that is only a name.
static void put_marker(struct batch *b, uint8_t family, uint64_t hash)
{
    char name[64];
    print_marker(hash, name, sizeof(name));
    struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(batch_next(b, NULL, "chain", "of the marker"), NFT_MSG_NEWCHAIN, family,
                                                 NLM_F_CREATE, b->seq);
    struct nftnl_chain *ch = nftnl_chain_alloc();
    CHECK(ch);
    nftnl_chain_set_str(ch, NFTNL_CHAIN_TABLE, PLAN_TABLE);
    nftnl_chain_set_str(ch, NFTNL_CHAIN_NAME, name);
    nftnl_chain_nlmsg_build_payload(msg, ch);
    nftnl_chain_free(ch);
    batch_done(b, msg);
}

// A set, and its elements in as many messages as the 64 KiB of an attribute ask for.
static void put_set(struct batch *b, uint8_t family, const struct rule *r, struct nftnl_set *s)
{
    struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(batch_next(b, r, "set", ""), NFT_MSG_NEWSET, family, NLM_F_CREATE, b->seq);
    nftnl_set_nlmsg_build_payload(msg, s);
    batch_done(b, msg);
    struct nftnl_set_elems_iter *it = nftnl_set_elems_iter_create(s);
    CHECK(it);
    int more;
    do {
        msg = nftnl_nlmsg_build_hdr(batch_next(b, r, "set elements", ""), NFT_MSG_NEWSETELEM, family, NLM_F_CREATE, b->seq);
        more = nftnl_set_elems_nlmsg_build_payload_iter(msg, it);
        batch_done(b, msg);
    } while (more > 0);
    nftnl_set_elems_iter_destroy(it);
}

static void put_rule(struct batch *b, uint8_t family, const struct rule *r, uint32_t *next_set_id)
{
    struct nft_sets sets;
    struct nftnl_rule *rule = nft_rule_build(family, r, next_set_id, &sets);
    for (size_t i = 0; i < sets.n; i++) {
        put_set(b, family, r, sets.v[i]);
    }
    struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(batch_next(b, r, "rule", ""), NFT_MSG_NEWRULE, family,
                                                 NLM_F_CREATE | NLM_F_APPEND, b->seq);
    nftnl_rule_nlmsg_build_payload(msg, rule);
    batch_done(b, msg);
    nftnl_rule_free(rule);
    nft_sets_free(&sets);
}

static void put_begin(struct batch *b)
{
    b->seq = b->first_seq = (uint32_t)time(NULL);
    batch_done(b, nftnl_batch_begin(batch_next(b, NULL, "transaction", "begin"), b->seq));
}

static void put_end(struct batch *b)
{
    batch_done(b, nftnl_batch_end(batch_next(b, NULL, "transaction", "end"), b->seq));
}

void nft_removal_add(struct nft_removals *l, struct arena *a, struct nft_removal r)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        struct nft_removal *v = arena_array(a, struct nft_removal, cap);
        if (l->n) {
            memcpy(v, l->v, l->n * sizeof(*v));
        }
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = r;
}

// One rule, or with handle 0 all rules of a chain.
static void put_rule_removal(struct batch *b, const struct nft_removal *x)
{
    struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(batch_next(b, NULL, "removal of a rule of chain", x->chain), NFT_MSG_DELRULE,
                                                 x->family, 0, b->seq);
    struct nftnl_rule *r = nftnl_rule_alloc();
    CHECK(r);
    nftnl_rule_set_u32(r, NFTNL_RULE_FAMILY, x->family);
    nftnl_rule_set_str(r, NFTNL_RULE_TABLE, x->table);
    nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, x->chain);
    if (x->handle) {
        nftnl_rule_set_u64(r, NFTNL_RULE_HANDLE, x->handle);
    }
    nftnl_rule_nlmsg_build_payload(msg, r);
    nftnl_rule_free(r);
    batch_done(b, msg);
}

static void put_chain_removal(struct batch *b, const struct nft_removal *x)
{
    struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(batch_next(b, NULL, "removal of chain", x->chain), NFT_MSG_DELCHAIN,
                                                 x->family, 0, b->seq);
    struct nftnl_chain *c = nftnl_chain_alloc();
    CHECK(c);
    nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, x->table);
    nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, x->chain);
    nftnl_chain_nlmsg_build_payload(msg, c);
    nftnl_chain_free(c);
    batch_done(b, msg);
}

// Rules before chains: a chain that a rule still jumps to cannot go.
static void put_removals(struct batch *b, const struct nft_removals *rm)
{
    for (size_t i = 0; rm && i < rm->n; i++) {
        if (rm->v[i].chain) {
            put_rule_removal(b, &rm->v[i]);
        } else {
            put_table(b, NFT_MSG_DELTABLE, 0, rm->v[i].family, rm->v[i].table, NULL);
        }
    }
    for (size_t i = 0; rm && i < rm->n; i++) {
        if (rm->v[i].chain && !rm->v[i].handle) {
            put_chain_removal(b, &rm->v[i]);
        }
    }
}

static void put_plan_table(struct batch *b, const struct plan *p, uint8_t family, uint64_t hash, bool replace,
                           uint32_t *next_set_id)
{
    char comment[64];
    print_table_comment(hash, comment, sizeof(comment));
    // Made, deleted, made again: so the deletion cannot fail, and nothing of a former state survives, not even the
    // priority of a hook, which a flush would keep. The price is an RCU grace period when the socket is closed.
    if (replace) {
        put_table(b, NFT_MSG_NEWTABLE, NLM_F_CREATE, family, PLAN_TABLE, NULL);
        put_table(b, NFT_MSG_DELTABLE, 0, family, PLAN_TABLE, NULL);
    }
    put_table(b, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, family, PLAN_TABLE, comment);
    for (int c = 0; c < CHAIN_COUNT; c++) {
        if (plan_chain_in(p, family, (enum chain)c)) {
            put_chain(b, p, family, (enum chain)c);
        }
    }
    for (size_t i = 0; i < p->n; i++) {
        if (plan_chain_in(p, family, p->rules[i].chain) && plan_rule_is_for(&p->rules[i], family)) {
            put_rule(b, family, &p->rules[i], next_set_id);
        }
    }
    if (p->marker) {
        put_marker(b, family, hash);
    }
}

static void put_plan(struct batch *b, const struct plan *p, uint64_t hash, bool replace)
{
    uint8_t families[2];
    uint32_t next_set_id = 0;
    size_t n = plan_tables(p, families);
    for (size_t i = 0; i < n; i++) {
        put_plan_table(b, p, families[i], hash, replace, &next_set_id);
    }
}

struct answer {
    int code; // first error
    uint32_t seq;
    char text[160]; // the kernel's own words, may be empty
};

static int ext_attr(const struct nlattr *attr, void *arg)
{
    struct answer *ans = arg;
    if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG && mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0) {
        snprintf(ans->text, sizeof(ans->text), "%s", mnl_attr_get_str(attr));
    }
    return MNL_CB_OK;
}

static void note_error(struct answer *ans, const struct nlmsghdr *msg)
{
    if (msg->nlmsg_len < mnl_nlmsg_size(sizeof(struct nlmsgerr))) {
        return;
    }
    const struct nlmsgerr *e = mnl_nlmsg_get_payload(msg);
    if (e->error == 0 || ans->code) {
        return;
    }
    ans->code = e->error;
    ans->seq = msg->nlmsg_seq;
    if (msg->nlmsg_flags & NLM_F_ACK_TLVS) {
        size_t off = sizeof(*e);
        if (!(msg->nlmsg_flags & NLM_F_CAPPED)) {
            off += e->msg.nlmsg_len - sizeof(struct nlmsghdr);
        }
        mnl_attr_parse(msg, (unsigned)off, ext_attr, ans);
    }
}

// Sends the transaction. The kernel works on it within the call, so all answers are there when it returns.
static int batch_send(struct nl *nl, struct batch *b, struct answer *ret)
{
    *ret = (struct answer){ 0 };
    int want = (int)(b->len + 4096);
    int have = 0;
    socklen_t size = sizeof(have);
    int fd = mnl_socket_get_fd(nl->s);
    if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &have, &size) == 0 && have < want &&
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &want, sizeof(want)) < 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &want, sizeof(want));
    }
    if (mnl_socket_sendto(nl->s, b->buf, b->len) < 0) {
        ret->code = -errno;
        ret->seq = b->first_seq;
        return ret->code;
    }
    scope_free char *buf = mem_alloc(NL_MSG_MAX);
    for (;;) {
        ssize_t n = recv(fd, buf, NL_MSG_MAX, MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            // More complaints than the socket holds: the first are there already.
            return errno == EAGAIN ? ret->code : (ret->code ? ret->code : -errno);
        }
        int left = (int)n;
        for (const struct nlmsghdr *m = (const void *)buf; mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left)) {
            if (m->nlmsg_type == NLMSG_ERROR) {
                note_error(ret, m);
            }
        }
    }
}

bool nft_is_lacking(int code)
{
    return code == -ENOENT || code == -EOPNOTSUPP || code == -EAFNOSUPPORT || code == -EPROTONOSUPPORT;
}

const char *nft_hint(int code)
{
    switch (code) {
    case -EPERM:
        return "needs CAP_NET_ADMIN in the user namespace that owns the network namespace";
    case -EOPNOTSUPP:
    case -EAFNOSUPPORT:
    case -EPROTONOSUPPORT:
        return "the kernel lacks a part of nf_tables";
    case -ENOENT:
        return "the kernel lacks a part of nf_tables, or its module is not loaded";
    case -EEXIST:
        return "there already";
    case -EINVAL:
        return "the kernel finds it invalid";
    default:
        return strerror(-code);
    }
}

// As above, for a table or chain.
static const char *thing_needs(const char *name)
{
    for (int c = 0; c < CHAIN_BASES; c++) {
        if (strcmp(plan_chains[c].name, name) == 0 && strcmp(plan_chains[c].type, "nat") == 0) {
            return ": nat chains (CONFIG_NFT_NAT; in inet tables Linux 5.2)";
        }
    }
    return strcmp(name, PLAN_TABLE) == 0 ? ": its address family (CONFIG_NF_TABLES_INET, _IPV4, _IPV6)" : "";
}

// What the kernel must have for a rule, when it says that something is not there.
static const char *rule_needs(const struct rule *r)
{
    bool set = false, ct = false;
    for (size_t i = 0; i < r->n; i++) {
        const struct match *m = &r->m[i];
        ct = ct || m->kind == MATCH_CT_STATE || m->kind == MATCH_CT_MARK;
        set = set || ((m->kind == MATCH_SPORT || m->kind == MATCH_DPORT) && m->ports.n > 1) ||
              ((m->kind == MATCH_SADDR || m->kind == MATCH_DADDR) && m->nets.n > 1);
    }
    switch (r->action) {
    case ACTION_REDIRECT:
        return "nft_redir (CONFIG_NFT_REDIR; in inet tables Linux 5.2)";
    case ACTION_REJECT:
        return "nft_reject (CONFIG_NFT_REJECT)";
    case ACTION_TPROXY:
        return "nft_tproxy (CONFIG_NFT_TPROXY, Linux 4.19)";
    case ACTION_ZONE:
        return "nft_ct with zones (CONFIG_NFT_CT, CONFIG_NF_CONNTRACK_ZONES)";
    case ACTION_CT_SAVE:
    case ACTION_CT_RESTORE:
        return "nft_ct with marks (CONFIG_NFT_CT, CONFIG_NF_CONNTRACK_MARK)";
    default:
        return ct ? "nft_ct (CONFIG_NFT_CT)" : set ? "sets (nft_set_hash, nft_set_rbtree)" : "nf_tables (CONFIG_NF_TABLES)";
    }
}

int nft_refused(const struct plan *p, const struct rule *r, const char *what, int code, const char *kernel_text,
                struct err *err)
{
    struct buf text = { 0 };
    print_nft_rule(p, r, &text);
    struct str s = buf_pullup(&text, buf_len(&text));
    bool lacking = nft_is_lacking(code);
    err_set(err, code, "the kernel refused the %s of rule %zu in chain %s (%s%s%s): %s%s%s%s%s: %.*s", what,
            plan_rule_number(p, r), plan_chains[r->chain].name, r->origin, r->origin[0] ? ": " : "", r->comment,
            nft_hint(code), lacking ? ": " : "", lacking ? rule_needs(r) : "", kernel_text[0] ? "; " : "", kernel_text,
            s.n > 300 ? 300 : (int)s.n, s.p);
    buf_clear(&text);
    return code;
}

static int explain_error(const struct plan *p, const struct batch *b, const struct answer *ans, struct err *err)
{
    size_t ix = ans->seq - b->first_seq;
    const struct label *l = ix < b->seq - b->first_seq ? &b->labels[ix] : NULL;
    const char *sep = ans->text[0] ? "; " : "";
    if (ans->code == -EPERM || !l) {
        return err_set(err, ans->code, "the kernel refused the rules: %s%s%s", nft_hint(ans->code), sep, ans->text);
    }
    if (!l->rule) {
        return err_set(err, ans->code, "the kernel refused %s %s: %s%s%s%s", l->what, l->name, nft_hint(ans->code),
                       nft_is_lacking(ans->code) ? thing_needs(l->name) : "", sep, ans->text);
    }
    return nft_refused(p, l->rule, l->what, ans->code, ans->text, err);
}

static bool is_transient(int code)
{
    return code == -EAGAIN || code == -EINTR || code == -ERESTART || code == -EBUSY;
}

// Sends until it is in, is refused, or time is over.
static int send_until(struct nl *nl, struct batch *b, const struct plan *p, int64_t deadline_ms, struct err *err)
{
    for (;;) {
        struct answer ans;
        if (batch_send(nl, b, &ans) == 0) {
            return 0;
        }
        if (!is_transient(ans.code) || (int64_t)clock_mono_ms() >= deadline_ms) {
            return explain_error(p, b, &ans, err);
        }
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
    }
}

int nft_apply(struct nl *nl, const struct plan *p, uint64_t hash, enum nft_commit commit, const struct nft_removals *rm,
              int64_t deadline_ms, struct err *err)
{
    scope_batch struct batch b = { 0 };
    put_begin(&b);
    put_removals(&b, rm);
    put_plan(&b, p, hash, commit != NFT_CREATE);
    if (commit != NFT_VALIDATE) {
        put_end(&b);
    }
    return send_until(nl, &b, p, deadline_ms, err);
}

int nft_delete(struct nl *nl, const struct nft_removals *rm, int64_t deadline_ms, struct err *err)
{
    scope_batch struct batch b = { 0 };
    put_begin(&b);
    put_removals(&b, rm);
    put_end(&b);
    return send_until(nl, &b, NULL, deadline_ms, err);
}
