// SPDX-License-Identifier: Apache-2.0
#include "init-net/eval.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

// A packet on its way through the chains.
struct walk {
    const struct plan *p;
    struct packet pkt;
    struct fate fate;
    eval_trace trace;
    void *arg;
};

enum verdict { GO_ON, RETURNED, ACCEPTED, DECIDED }; // DECIDED: nat done, tproxied or dropped

static bool in_nets(const struct cidr_list *l, uint8_t family, const uint8_t *addr)
{
    for (size_t i = 0; i < l->n; i++) {
        if (cidr_contains(&l->v[i], family, addr)) {
            return true;
        }
    }
    return false;
}

static bool has_mark(const struct match *m, uint32_t mark)
{
    return (mark & m->mark.mask) == m->mark.value;
}

static bool holds(const struct match *m, const struct packet *k)
{
    bool yes = false;
    switch (m->kind) {
    case MATCH_FAMILY:
        yes = m->family == k->family;
        break;
    case MATCH_PROTO:
        yes = m->proto == k->proto;
        break;
    case MATCH_SPORT:
        yes = port_list_has(&m->ports, k->sport);
        break;
    case MATCH_DPORT:
        yes = port_list_has(&m->ports, k->dport);
        break;
    case MATCH_IIF:
        yes = k->iif && name_matches(m->name, k->iif);
        break;
    case MATCH_OIF:
        yes = k->oif && name_matches(m->name, k->oif);
        break;
    case MATCH_SADDR:
    case MATCH_DADDR:
        // The match holds a condition on the family, negated or not.
        if (m->nets.v[0].family != k->family) {
            return false;
        }
        yes = in_nets(&m->nets, k->family, m->kind == MATCH_SADDR ? k->src : k->dst);
        break;
    case MATCH_UID:
    case MATCH_GID:
        // Without a socket the kernel's expression breaks off, whatever is asked.
        if (!k->has_owner) {
            return false;
        }
        yes = id_list_has(&m->ids, m->kind == MATCH_UID ? k->uid : k->gid);
        break;
    case MATCH_MARK:
        yes = has_mark(m, k->mark);
        break;
    case MATCH_CT_MARK:
        yes = has_mark(m, k->ct_mark);
        break;
    case MATCH_CT_STATE:
        yes = (k->ct_state & m->ct_state) != 0;
        break;
    case MATCH_NOT_SYN:
        yes = k->not_syn;
        break;
    }
    return yes != m->negate;
}

static int first_failed(const struct rule *r, const struct packet *k)
{
    for (size_t i = 0; i < r->n; i++) {
        if (!holds(&r->m[i], k)) {
            return (int)i;
        }
    }
    return -1;
}

static enum verdict run_chain(struct walk *w, enum chain c);

static enum verdict decide(struct walk *w, const struct rule *r, enum fate_kind kind)
{
    w->fate.kind = kind;
    w->fate.port = r->port;
    w->fate.rule = r;
    return DECIDED;
}

static enum verdict act(struct walk *w, const struct rule *r)
{
    enum verdict v;
    switch (r->action) {
    case ACTION_RETURN:
        w->fate.rule = r;
        return RETURNED;
    case ACTION_ACCEPT:
        w->fate.rule = r;
        return ACCEPTED;
    case ACTION_DROP:
        return decide(w, r, FATE_DROP);
    case ACTION_REJECT:
        return decide(w, r, FATE_REJECT);
    case ACTION_JUMP:
        v = run_chain(w, r->target);
        // Back in this chain; the rule that returned may still be the one that decided.
        return v == RETURNED ? GO_ON : v;
    case ACTION_REDIRECT:
        return decide(w, r, FATE_REDIRECT);
    case ACTION_TPROXY:
        w->pkt.mark = r->value;
        return decide(w, r, FATE_TPROXY);
    case ACTION_MARK:
        w->pkt.mark = r->value;
        return GO_ON;
    case ACTION_CT_SAVE:
        w->pkt.ct_mark = w->pkt.mark;
        return GO_ON;
    case ACTION_CT_RESTORE:
        w->pkt.mark = w->pkt.ct_mark;
        return GO_ON;
    case ACTION_ZONE:
        // The first assignment wins; conntrack has its template then.
        w->fate.zone = w->fate.zone ? w->fate.zone : r->value;
        return RETURNED;
    }
    return GO_ON;
}

static enum verdict run_chain(struct walk *w, enum chain c)
{
    for (size_t i = 0; i < w->p->n; i++) {
        const struct rule *r = &w->p->rules[i];
        if (r->chain != c) {
            continue;
        }
        int failed = first_failed(r, &w->pkt);
        if (w->trace) {
            w->trace(w->p, r, failed, w->arg);
        }
        if (failed >= 0) {
            continue;
        }
        enum verdict v = act(w, r);
        if (v != GO_ON) {
            return v;
        }
    }
    return RETURNED;
}

// The redirect of the output hook goes to the loopback address, and the packet comes in again by lo.
static void redirect_to_lo(struct walk *w)
{
    static const uint8_t lo4[16] = { 127, 0, 0, 1 }, lo6[16] = { [15] = 1 };
    memcpy(w->pkt.dst, w->pkt.family == AF_INET ? lo4 : lo6, 16);
    w->pkt.dport = w->fate.port;
    w->pkt.oif = "lo";
}

struct fate eval_packet(const struct plan *p, const struct packet *pkt, eval_trace trace, void *arg)
{
    struct walk w = { .p = p, .pkt = *pkt, .trace = trace, .arg = arg };
    if (pkt->dir == DIR_OUT) {
        w.pkt.iif = NULL;
        if (run_chain(&w, CHAIN_RAW_OUT) != DECIDED && run_chain(&w, CHAIN_GUARD_OUT) != DECIDED &&
            run_chain(&w, CHAIN_MANGLE_OUT) != DECIDED &&
            run_chain(&w, CHAIN_NAT_OUT) == DECIDED && w.fate.kind == FATE_REDIRECT) {
            redirect_to_lo(&w);
        }
        bool goes_on = w.fate.kind != FATE_DROP && w.fate.kind != FATE_REJECT;
        if (goes_on && w.pkt.oif && strcmp(w.pkt.oif, "lo") == 0) {
            // Comes back by lo with its mark; the socket owner is gone and nat has been asked already.
            struct fate out = w.fate;
            w.pkt.iif = "lo";
            w.pkt.oif = NULL;
            w.pkt.has_owner = false;
            run_chain(&w, CHAIN_RAW_PRE);
            if (run_chain(&w, CHAIN_MANGLE_PRE) != DECIDED) {
                w.fate = out;
            }
        }
    } else {
        w.pkt.oif = NULL;
        w.pkt.has_owner = false;
        run_chain(&w, CHAIN_RAW_PRE);
        if (run_chain(&w, CHAIN_MANGLE_PRE) != DECIDED) {
            run_chain(&w, CHAIN_NAT_PRE);
        }
    }
    w.fate.mark = w.pkt.mark;
    return w.fate;
}

int eval_address(struct str text, uint8_t *ret_family, uint8_t ret_addr[16], uint16_t *port, struct err *err)
{
    struct str addr = text, tail = { 0 };
    ptrdiff_t close = str_find(text, ']');
    if (text.n && text.p[0] == '[' && close > 0) {
        addr = str_n(text.p + 1, (size_t)close - 1);
        tail = str_skip(text, (size_t)close + 1);
    } else if (str_find(text, '.') >= 0 && str_find(text, ':') >= 0) {
        addr = str_n(text.p, (size_t)str_find(text, ':'));
        tail = str_skip(text, addr.n);
    }
    char s[INET6_ADDRSTRLEN + 1];
    uint8_t bytes[16] = { 0 };
    uint64_t n = *port;
    snprintf(s, sizeof(s), "%.*s", addr.n > INET6_ADDRSTRLEN ? INET6_ADDRSTRLEN : (int)addr.n, addr.p);
    uint8_t family = inet_pton(AF_INET, s, bytes) == 1 ? AF_INET : AF_INET6;
    if (family == AF_INET6 && inet_pton(AF_INET6, s, bytes) != 1) {
        return err_set(err, -EINVAL, "'%.*s' is no address:port", STR_FMT(text));
    }
    if (tail.n && (tail.p[0] != ':' || !str_to_u64(str_skip(tail, 1), 65535, &n))) {
        return err_set(err, -EINVAL, "'%.*s' has no valid port", STR_FMT(text));
    }
    *ret_family = family;
    memcpy(ret_addr, bytes, 16);
    *port = (uint16_t)n;
    return 0;
}

const char *eval_fate_text(const struct fate *f, char *buf, size_t n)
{
    static const char *const words[] = { "not touched", "redirect to port ", "tproxy to port ", "dropped", "rejected" };
    if (f->kind == FATE_REDIRECT || f->kind == FATE_TPROXY) {
        snprintf(buf, n, "%s%u", words[f->kind], f->port);
    } else {
        snprintf(buf, n, "%s", words[f->kind]);
    }
    return buf;
}
