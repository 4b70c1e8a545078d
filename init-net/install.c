// SPDX-License-Identifier: Apache-2.0
#include "init-net/install.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "init-net/foreign.h"
#include "init-net/report.h"
#include "lib/base/check.h"
#include "lib/base/clock.h"

const char *install_backend_name(enum backend b)
{
    switch (b) {
    case BACKEND_NFT:
        return "nftables";
    case BACKEND_NFT_IP:
        return "nftables-ip";
    case BACKEND_IPTABLES_NFT:
        return "iptables-nft";
    case BACKEND_IPTABLES_LEGACY:
        return "iptables-legacy";
    case BACKEND_IPTABLES:
    case BACKEND_AUTO:
        break;
    }
    return "none";
}

static bool is_iptables(enum backend b)
{
    return b == BACKEND_IPTABLES_NFT || b == BACKEND_IPTABLES_LEGACY;
}

// REMORA_PRETEND_MISSING: for tests of the fallbacks on kernels that have everything.
static bool pretends(const struct options *o, const char *part)
{
    return str_find_str(o->pretend_missing, str_c(part)) >= 0;
}

int install_open(struct install *in, struct options *o, int64_t deadline_ms, struct err *err)
{
    *in = (struct install){ .o = o, .deadline_ms = deadline_ms, .lock = -1, .state = { .comment = "" } };
    int r = pretends(o, "nf_tables") ? -EPROTONOSUPPORT : nl_open(&in->nft, NETLINK_NETFILTER, &in->nft_missing);
    r = r ? r : nft_state_read(&in->nft, o->arena, &in->state, &in->nft_missing);
    // EINVAL: nfnetlink is there, for conntrack perhaps, but does not know the subsystem.
    if (r && r != -EINVAL && !nft_is_lacking(r)) {
        *err = in->nft_missing;
        return r;
    }
    in->nft_there = r == 0;
    legacy_scan(&in->legacy);
    return 0;
}

void install_close(struct install *in)
{
    nl_close(&in->nft);
    if (in->o && in->lock >= 0) {
        close(in->lock);
        in->lock = -1;
    }
}

// iptables has no transaction over its tables, so two of us must not write at the same time. The lock is an abstract
// socket's name: it belongs to the network namespace, as the rules do, needs no writable file, and ends with the process.
// Whoever holds it too long (nobody should) is passed by: what may happen then is a refusal, not a wrong rule set.
static void install_lock(struct install *in)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX, .sun_path = "\0remora-init" };
    socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen("remora-init") + 1);
    int64_t start = (int64_t)clock_mono_ms(), end = start + (in->deadline_ms - start) / 2;
    if (in->lock >= 0) {
        return;
    }
    in->lock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    while (in->lock >= 0 && bind(in->lock, (struct sockaddr *)&name, n) < 0 && (int64_t)clock_mono_ms() < end) {
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
    }
}

size_t install_candidates(const struct install *in, enum backend ret[4])
{
    const struct options *o = in->o;
    enum backend asked = (enum backend)o->backend;
    size_t n = 0;
    if (asked == BACKEND_AUTO && o->force_iptables.n) {
        // An image without iptables is no reason to fail: istio-iptables' manifests set this for its own image.
        ret[n++] = str_is(o->force_iptables, "legacy") ? BACKEND_IPTABLES_LEGACY : BACKEND_IPTABLES_NFT;
        ret[n++] = BACKEND_NFT;
        ret[n++] = BACKEND_NFT_IP;
        return n;
    }
    if (asked == BACKEND_AUTO || asked == BACKEND_NFT) {
        ret[n++] = BACKEND_NFT;
        ret[n++] = BACKEND_NFT_IP;
    }
    // iptables' tables have fixed priorities, and ours no chain that refuses; such a wish must not be lost on the way.
    if ((asked == BACKEND_AUTO && !options_given(o, "nat-priority-offset") && !o->guard_admin && !o->reject_quic) ||
        asked == BACKEND_IPTABLES) {
        // Where another program uses legacy tables, ours belong there too.
        bool legacy_first = !in->nft_there || in->legacy.nat_in_use;
        ret[n++] = legacy_first ? BACKEND_IPTABLES_LEGACY : BACKEND_IPTABLES_NFT;
        ret[n++] = legacy_first ? BACKEND_IPTABLES_NFT : BACKEND_IPTABLES_LEGACY;
    }
    if (n == 0) {
        ret[n++] = asked;
    }
    return n;
}

static int open_ipt(struct install *in, enum backend b, struct err *err)
{
    install_lock(in);
    int r = ipt_open(&in->ipt, b == BACKEND_IPTABLES_LEGACY, in->o->arena, in->deadline_ms, err);
    return r ? r : ipt_read(&in->ipt, err);
}

int install_choose(struct install *in, struct plan *p, enum backend b, struct err *err)
{
    in->backend = b;
    plan_set_layout(p, b == BACKEND_NFT_IP ? PLAN_IP : PLAN_INET);
    if (is_iptables(b)) {
        if (b == BACKEND_IPTABLES_NFT && !in->nft_there) {
            return err_set(err, -EPROTONOSUPPORT, "iptables-nft needs nf_tables in the kernel: %s", in->nft_missing.msg);
        }
        return open_ipt(in, b, err);
    }
    if (!in->nft_there) {
        return err_set(err, -EPROTONOSUPPORT, "the kernel has no nf_tables: %s", in->nft_missing.msg);
    }
    if (b == BACKEND_NFT && pretends(in->o, "inet")) {
        return err_set(err, -EOPNOTSUPP, "the kernel has no inet tables with nat");
    }
    return 0;
}

static bool has_own_xt(const struct install *in)
{
    for (size_t i = 0; i < in->state.n_xt; i++) {
        if (!in->state.xt[i].owner) {
            return true;
        }
    }
    return false;
}

bool install_is_empty(const struct install *in)
{
    return !in->state.present && !has_own_xt(in) && !in->legacy.ours;
}

bool install_equals(const struct install *in, const struct plan *p, char *why, size_t why_size)
{
    bool xt = has_own_xt(in) && in->backend != BACKEND_IPTABLES_NFT;
    bool legacy = in->legacy.ours && in->backend != BACKEND_IPTABLES_LEGACY;
    bool nft = in->state.present && is_iptables(in->backend);
    if (xt || legacy || nft) {
        snprintf(why, why_size, "rules of ours also stand in %s", xt ? "iptables-nft" : legacy ? "iptables-legacy" : "nftables");
        return false;
    }
    if (!is_iptables(in->backend)) {
        return nft_state_equals(&in->state, p, why, why_size);
    }
    return ipt_equals(&in->ipt, p, why, why_size);
}

// --- others ---

__attribute__((format(printf, 4, 5))) static void note_owner(struct others *l, const char *owner, const char *where, const char *fmt, ...)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].owner, owner) == 0 && strcmp(l->v[i].where, where) == 0) {
            return;
        }
    }
    if (l->n == array_len(l->v)) {
        return;
    }
    struct other *x = &l->v[l->n++];
    *x = (struct other){ .owner = owner, .where = where };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(x->what, sizeof(x->what), fmt, ap);
    va_end(ap);
}

void install_find_others(const struct install *in, struct others *ret)
{
    *ret = (struct others){ 0 };
    for (size_t i = 0; i < in->state.n_tables; i++) {
        const char *owner = foreign_table_owner(in->state.tables[i].name);
        if (owner) {
            note_owner(ret, owner, "nftables", "table %s", in->state.tables[i].name);
        }
    }
    for (size_t i = 0; i < in->state.n_xt; i++) {
        const struct state_chain *c = &in->state.xt[i];
        if (c->owner) {
            note_owner(ret, c->owner, "iptables-nft", "chain %s of table %s", c->name, c->table);
        }
    }
    for (size_t i = 0; i < in->legacy.n_owners; i++) {
        note_owner(ret, in->legacy.owners[i], "iptables-legacy", "its chains");
    }
}

bool install_has_removable(const struct install *in)
{
    struct others l;
    install_find_others(in, &l);
    for (size_t i = 0; i < l.n; i++) {
        if (foreign_is_removable(l.v[i].owner)) {
            return true;
        }
    }
    return false;
}

int install_warn_foreign(struct install *in, struct err *err)
{
    struct others l;
    install_find_others(in, &l);
    for (size_t i = 0; i < l.n; i++) {
        const struct other *x = &l.v[i];
        bool removable = foreign_is_removable(x->owner);
        if (removable && in->o->takeover) {
            continue;
        }
        if (options_warn(in->o, err, "%s has rules here (%s in %s): they stay, and traffic may be redirected twice; %s", x->owner, x->what,
                         x->where, removable ? "--takeover removes them" : "remove them, or do not run both in one pod")) {
            return -EEXIST;
        }
    }
    return 0;
}

// --- writing ---

// Does a rest in iptables-legacy have to go that its program must remove?
static bool legacy_rest(const struct install *in)
{
    bool foreign = false;
    for (size_t i = 0; i < in->legacy.n_owners && in->o->takeover; i++) {
        foreign = foreign || foreign_is_removable(in->legacy.owners[i]);
    }
    return in->legacy.ours || foreign;
}

// What stands in iptables-legacy, removed by its program; ipt is read already when legacy_ready.
static int remove_legacy(struct install *in, struct err *err)
{
    struct ipt legacy;
    if (!legacy_rest(in)) {
        return 0;
    }
    install_lock(in);
    int r = ipt_open(&legacy, true, in->o->arena, in->deadline_ms, err);
    r = r ? r : ipt_read(&legacy, err);
    r = r ? r : ipt_replace(&legacy, NULL, in->o->takeover, err);
    if (r) {
        err_wrap(err, "rules in iptables-legacy must go, but cannot be removed");
        return -EIO; // ours are written already: no other backend shall be tried
    }
    return 0;
}

// Before anything is changed: could remove_legacy do its work?
static int foresee_legacy(struct install *in, struct err *err)
{
    struct ipt legacy;
    if (!legacy_rest(in) || in->backend == BACKEND_IPTABLES_LEGACY || ipt_open(&legacy, true, in->o->arena, in->deadline_ms, err) == 0) {
        return 0;
    }
    err_wrap(err, "rules in iptables-legacy must go (%s)", in->legacy.ours ? "ours" : in->legacy.owners[0]);
    return -EIO;
}

static int write_nft_once(struct install *in, const struct plan *p, bool *ret_others, struct err *err)
{
    struct nft_removals rm = { 0 };
    uint64_t hash = plan_hash(p);
    int r = nft_state_removals(&in->state, &in->nft, p, true, in->o->takeover, in->o->arena, &rm, err);
    *ret_others = rm.n > 0;
    if (r) {
        return r;
    }
    r = -EEXIST;
    if (!in->state.present) {
        r = nft_apply(&in->nft, p, hash, NFT_CREATE, &rm, in->deadline_ms, err);
    }
    // There already, perhaps since a moment ago by another remora-init.
    if (r == -EEXIST) {
        r = nft_apply(&in->nft, p, hash, NFT_REPLACE, &rm, in->deadline_ms, err);
    }
    return r;
}

enum { ATTEMPTS = 5 };

// ENOENT may mean the plan (the kernel lacks something) or what should go with it (gone by another hand meanwhile); the
// kernel is asked for the plan alone.
static int write_nft(struct install *in, const struct plan *p, struct err *err)
{
    bool others = false;
    int r = write_nft_once(in, p, &others, err);
    for (int i = 0; i < ATTEMPTS && r == -ENOENT && others; i++) {
        r = nft_apply(&in->nft, p, plan_hash(p), NFT_VALIDATE, NULL, in->deadline_ms, err);
        r = r ? r : nft_state_read(&in->nft, in->o->arena, &in->state, err);
        if (r) {
            return r;
        }
        r = write_nft_once(in, p, &others, err);
    }
    return r == -ENOENT && others ? -EBUSY : r;
}

// The footprint of the nf_tables backends, and foreign tables, when iptables holds the rules now.
static int remove_nft(struct install *in, struct err *err)
{
    bool xt = in->backend != BACKEND_IPTABLES_NFT; // its program has dealt with these
    int r = 0;
    for (int i = 0; i < ATTEMPTS && in->nft_there; i++) {
        struct nft_removals rm = { 0 };
        r = nft_state_removals(&in->state, &in->nft, NULL, xt, in->o->takeover, in->o->arena, &rm, err);
        r = r || rm.n == 0 ? r : nft_delete(&in->nft, &rm, in->deadline_ms, err);
        if (r != -ENOENT) {
            return r;
        }
        r = nft_state_read(&in->nft, in->o->arena, &in->state, err);
        if (r) {
            return r;
        }
    }
    return r;
}

int install_write(struct install *in, const struct plan *p, struct err *err)
{
    int r = foresee_legacy(in, err);
    if (r) {
        return r;
    }
    if (!is_iptables(in->backend)) {
        r = write_nft(in, p, err);
        return r ? r : remove_legacy(in, err);
    }
    r = ipt_replace(&in->ipt, p, in->o->takeover, err);
    if (r == 0 && remove_nft(in, err)) {
        r = -EIO;
    }
    return r || in->backend == BACKEND_IPTABLES_LEGACY ? r : remove_legacy(in, err);
}

int install_check(struct install *in, const struct plan *p, struct err *err)
{
    if (is_iptables(in->backend)) {
        return ipt_check(&in->ipt, p, err);
    }
    return nft_apply(&in->nft, p, plan_hash(p), NFT_VALIDATE, NULL, in->deadline_ms, err);
}

int install_remove(struct install *in, bool *ret_found, struct err *err)
{
    in->backend = BACKEND_AUTO;
    bool found = !install_is_empty(in);
    int r = remove_nft(in, err);
    r = r ? r : remove_legacy(in, err);
    *ret_found = found;
    return r;
}

int install_find(struct install *in, struct err *err)
{
    const struct nft_state *s = &in->state;
    in->backend = BACKEND_AUTO;
    if (s->present) {
        in->backend = s->inet ? BACKEND_NFT : BACKEND_NFT_IP;
        return 0;
    }
    if (has_own_xt(in) || in->legacy.ours) {
        in->backend = has_own_xt(in) ? BACKEND_IPTABLES_NFT : BACKEND_IPTABLES_LEGACY;
        return open_ipt(in, in->backend, err);
    }
    if (in->legacy.hidden) {
        return err_set(err, -EACCES,
                       "there are no rules of ours in nf_tables; whether there are some in iptables-legacy only user 0 "
                       "can see");
    }
    return 0;
}
