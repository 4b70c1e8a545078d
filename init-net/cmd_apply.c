// SPDX-License-Identifier: Apache-2.0
// apply and check: plan, compare with what is there, routing, one transaction.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "init-net/adopt.h"
#include "init-net/commands.h"
#include "init-net/nft_batch.h"
#include "init-net/nft_state.h"
#include "init-net/plan.h"
#include "init-net/print.h"
#include "init-net/report.h"
#include "init-net/route.h"
#include "init-net/signals.h"
#include "lib/base/clock.h"
#include "lib/base/scope.h"

enum { FOREIGN_MAX = 16 };

struct apply {
    struct options *o;
    struct plan plan;
    uint64_t hash;
    struct nft_state state;
    struct nft_foreign foreign[FOREIGN_MAX]; // tables that --takeover removes
    size_t n_foreign;
    size_t route_changes;
    size_t adopted; // connections open before the rules
    uint64_t start_ms;
    int64_t deadline_ms;
    const char *result; // "applied", "unchanged", …
};

static int finish(struct apply *ap)
{
    const struct options *o = ap->o;
    uint64_t ms = clock_mono_ms() - ap->start_ms;
    report_warnings(o);
    if (o->output == OUTPUT_TEXT) {
        report_message(o, "info", "%s: %zu rules in table inet %s, %s mode, IPv6 %s, hash %016llx, %llu ms", ap->result,
                       ap->plan.n, PLAN_TABLE, o->mode == MODE_TPROXY ? "TPROXY" : "REDIRECT",
                       ap->plan.v6 ? "captured" : (o->v6_drop ? "dropped" : "left alone"),
                       (unsigned long long)ap->hash, (unsigned long long)ms);
        return EXIT_OK;
    }
    struct json_writer w;
    struct buf out = { 0 };
    char hash[32];
    snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)ap->hash);
    report_begin(o, &w, &out, ap->result);
    jw_kv(&w, "backend", STR("nftables"));
    jw_kv(&w, "mode", o->mode == MODE_TPROXY ? STR("TPROXY") : STR("REDIRECT"));
    jw_kv_bool(&w, "ipv4", true);
    jw_kv_bool(&w, "ipv6", ap->plan.v6);
    jw_kv(&w, "hash", str_c(hash));
    jw_kv_u64(&w, "rules", ap->plan.n);
    jw_kv_u64(&w, "routing_changes", ap->route_changes);
    jw_kv_u64(&w, "adopted_connections", ap->adopted);
    jw_kv_u64(&w, "duration_ms", ms);
    report_end(o, &w, &out);
    return EXIT_OK;
}

static int dry_run(struct apply *ap)
{
    const struct options *o = ap->o;
    struct buf out = { 0 };
    if (o->dry_run == DRY_JSON) {
        print_json(&ap->plan, &out);
    } else if (o->dry_run == DRY_IPTABLES) {
        print_iptables(&ap->plan, &out);
    } else {
        print_nft(&ap->plan, ap->hash, &out);
        print_routes(&ap->plan, &out);
    }
    report_warnings(o);
    if (o->dry_run_file.n) {
        struct str path = arena_str(o->arena, o->dry_run_file);
        struct str text = buf_pullup(&out, buf_len(&out));
        struct buf copy = { 0 };
        buf_append_str(&copy, text);
        scope_close int fd = open(path.p, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        int r = fd < 0 ? -errno : report_write(fd, &copy);
        buf_clear(&copy);
        if (r) {
            buf_clear(&out);
            report_message(o, "error", "DRY_RUN_FILE_PATH: %s: %s", path.p, strerror(-r));
            return EXIT_APPLY;
        }
    }
    return report_write(STDOUT_FILENO, &out) ? EXIT_APPLY : EXIT_OK;
}

// Tables of other redirectors: two of them at one hook fight over who comes first.
static int look_at_foreign(struct apply *ap, struct err *err)
{
    for (size_t i = 0; i < ap->state.n_tables; i++) {
        const struct state_table *t = &ap->state.tables[i];
        const char *owner = nft_state_foreign_owner(t);
        if (!owner) {
            continue;
        }
        bool istio = str_is(STR("istio-iptables"), owner);
        if (istio && ap->o->takeover && ap->n_foreign < FOREIGN_MAX) {
            ap->foreign[ap->n_foreign++] = (struct nft_foreign){ t->family, t->name };
            continue;
        }
        if (options_warn(ap->o, err, "table %s belongs to %s: its rules stay, and traffic may be redirected twice%s",
                         t->name, owner, istio ? "; --takeover removes it" : "")) {
            return -EEXIST;
        }
    }
    return 0;
}

static int prepare(struct apply *ap, struct options *o)
{
    *ap = (struct apply){ .o = o, .start_ms = clock_mono_ms(), .result = "applied" };
    ap->deadline_ms = (int64_t)ap->start_ms + o->timeout_ms;
    plan_build(o, o->arena, &ap->plan);
    ap->hash = plan_hash(&ap->plan);
    return 0;
}

// Nothing of the plan differs from the kernel, so nothing is touched and the counters stay.
static bool is_unchanged(struct apply *ap, struct nl *route)
{
    char why[160];
    if (ap->o->force_apply || ap->n_foreign) {
        return false;
    }
    if (nft_state_equals(&ap->state, &ap->plan, why, sizeof(why)) && route_check(route, &ap->plan, why, sizeof(why))) {
        return true;
    }
    report_message(ap->o, "debug", "rules are written: %s", why);
    return false;
}

// Only the first rules wake conntrack up; on a later run it knows all connections.
static void adopt(struct apply *ap)
{
    struct err why;
    if (ap->o->established != ESTABLISHED_ADOPT || ap->state.present) {
        return;
    }
    if (adopt_connections(&ap->adopted, &why)) {
        report_message(ap->o, "warn", "connections that are open now may break: %s", why.msg);
    }
}

static int commit(struct apply *ap, struct nl *nft, struct err *err)
{
    int r = -EEXIST;
    if (!ap->state.present) {
        r = nft_apply(nft, &ap->plan, ap->hash, NFT_CREATE, ap->foreign, ap->n_foreign, ap->deadline_ms, err);
    }
    // There already, perhaps since a moment ago by another remora-init.
    if (r == -EEXIST) {
        r = nft_apply(nft, &ap->plan, ap->hash, NFT_REPLACE, ap->foreign, ap->n_foreign, ap->deadline_ms, err);
    }
    return r;
}

static int apply_rules(struct apply *ap, struct err *err)
{
    scope_nl struct nl nft = { 0 };
    scope_nl struct nl route = { 0 };
    int r = nl_open(&nft, NETLINK_NETFILTER, err);
    r = r ? r : nl_open(&route, NETLINK_ROUTE, err);
    r = r ? r : nft_state_read(&nft, ap->o->arena, &ap->state, err);
    r = r ? r : look_at_foreign(ap, err);
    if (r) {
        return r;
    }
    size_t pruned = 0;
    if (is_unchanged(ap, &route)) {
        ap->result = "unchanged";
        r = route_prune(&route, &ap->plan, &pruned, err);
        ap->route_changes = pruned;
        return r;
    }
    adopt(ap);
    struct route_added added = { 0 };
    sigset_t before;
    signals_hold(&before);
    r = route_apply(&route, &ap->plan, &added, err);
    r = r ? r : commit(ap, &nft, err);
    if (r) {
        route_undo(&route, &added);
    } else {
        r = route_prune(&route, &ap->plan, &pruned, err);
        ap->route_changes = route_added_count(&added) + pruned;
    }
    signals_release(&before);
    return r;
}

int cmd_apply(struct options *o, const struct facts *facts)
{
    struct apply ap;
    struct err err = { 0 };
    if (o->cleanup_only && !o->dry_run) {
        return cmd_cleanup(o, facts);
    }
    prepare(&ap, o);
    if (o->dry_run) {
        return dry_run(&ap);
    }
    if (o->skip_rule_apply) {
        ap.result = "rules not touched";
    } else if (apply_rules(&ap, &err)) {
        report_warnings(o);
        report_message(o, "error", "%s", err.msg);
        return EXIT_APPLY;
    }
    int code = finish(&ap);
    return o->run_validation && code == EXIT_OK ? cmd_verify(o, facts) : code;
}

int cmd_check(struct options *o, const struct facts *facts)
{
    (void)facts;
    struct apply ap;
    struct err err = { 0 };
    scope_nl struct nl nft = { 0 };
    prepare(&ap, o);
    int r = nl_open(&nft, NETLINK_NETFILTER, &err);
    r = r ? r : nft_apply(&nft, &ap.plan, ap.hash, NFT_VALIDATE, NULL, 0, ap.deadline_ms, &err);
    if (r) {
        report_warnings(o);
        report_message(o, "error", "%s", err.msg);
        return EXIT_APPLY;
    }
    ap.result = "accepted by the kernel, not committed";
    return finish(&ap);
}
