// SPDX-License-Identifier: Apache-2.0
// apply and check: plan, compare with what is there, routing, one transaction.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "init-net/adopt.h"
#include "init-net/commands.h"
#include "init-net/install.h"
#include "init-net/plan.h"
#include "init-net/print.h"
#include "init-net/report.h"
#include "init-net/route.h"
#include "init-net/signals.h"
#include "init-net/verify.h"
#include "lib/base/clock.h"
#include "lib/base/scope.h"

struct apply {
    struct options *o;
    struct plan plan;
    struct install in;
    size_t route_changes;
    size_t adopted; // connections open before the rules
    uint64_t start_ms, took_ms; // without validation
    const char *result; // "applied", "unchanged", …
};

// v: what a validation said, NULL when there was none.
static int finish(struct apply *ap, const struct verify_result *v)
{
    const struct options *o = ap->o;
    uint64_t ms = ap->took_ms;
    report_warnings(o);
    if (o->output == OUTPUT_TEXT) {
        report_message(o, "info", "%s: %zu rules by %s, %s mode, IPv6 %s, hash %016llx, %llu ms", ap->result, ap->plan.n,
                       install_backend_name(ap->in.backend), o->mode == MODE_TPROXY ? "TPROXY" : "REDIRECT",
                       ap->plan.v6 ? "captured" : (o->v6_drop ? "dropped" : "left alone"),
                       (unsigned long long)plan_hash(&ap->plan), (unsigned long long)ms);
        return EXIT_OK;
    }
    struct json_writer w;
    struct buf out = { 0 };
    char hash[32];
    snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)plan_hash(&ap->plan));
    report_begin(o, &w, &out, ap->result);
    jw_kv(&w, "backend", str_c(install_backend_name(ap->in.backend)));
    jw_kv(&w, "mode", o->mode == MODE_TPROXY ? STR("TPROXY") : STR("REDIRECT"));
    jw_kv_bool(&w, "ipv4", true);
    jw_kv_bool(&w, "ipv6", ap->plan.v6);
    jw_kv(&w, "hash", str_c(hash));
    jw_kv_u64(&w, "rules", ap->plan.n);
    jw_kv_u64(&w, "routing_changes", ap->route_changes);
    jw_kv_u64(&w, "adopted_connections", ap->adopted);
    jw_kv_u64(&w, "duration_ms", ms);
    if (v) {
        cmd_verify_put(&w, v);
    }
    report_end(o, &w, &out);
    return EXIT_OK;
}

static int dry_run(struct apply *ap)
{
    const struct options *o = ap->o;
    struct buf out = { 0 };
    if (o->dry_run == DRY_JSON) {
        print_json(&ap->plan, &out);
    } else if (o->dry_run == DRY_IPTABLES || o->backend >= BACKEND_IPTABLES) {
        print_iptables(&ap->plan, &out);
    } else {
        print_nft(&ap->plan, plan_hash(&ap->plan), &out);
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

static void prepare(struct apply *ap, struct options *o)
{
    *ap = (struct apply){ .o = o, .start_ms = clock_mono_ms(), .result = "applied" };
    plan_build(o, o->arena, &ap->plan);
    plan_set_layout(&ap->plan, o->backend == BACKEND_NFT_IP ? PLAN_IP : PLAN_INET);
}

static int64_t deadline(const struct apply *ap)
{
    return (int64_t)ap->start_ms + ap->o->timeout_ms;
}

// Nothing of the plan differs from the kernel, so nothing is touched and the counters stay.
static bool is_unchanged(struct apply *ap, struct nl *route)
{
    char why[160];
    if (ap->o->force_apply || (ap->o->takeover && install_has_removable(&ap->in))) {
        return false;
    }
    if (install_equals(&ap->in, &ap->plan, why, sizeof(why)) && route_check(route, &ap->plan, why, sizeof(why))) {
        return true;
    }
    report_message(ap->o, "debug", "rules are written: %s", why);
    return false;
}

// Only the first rules wake conntrack up; on a later run it knows all connections.
static void adopt(struct apply *ap, bool first)
{
    struct err why;
    if (ap->o->established != ESTABLISHED_ADOPT || !first) {
        return;
    }
    if (adopt_connections(&ap->adopted, &why)) {
        report_message(ap->o, "warn", "connections that are open now may break: %s", why.msg);
    }
}

// Another backend is no cure for what happens outside of install_write, whatever the kernel's number for it says.
static int final(int code)
{
    return nft_is_lacking(code) ? -EIO : code;
}

// Routing, then rules, then what is stale; or nothing.
static int write_all(struct apply *ap, struct nl *route, struct err *err)
{
    struct route_added added = { 0 };
    sigset_t before;
    size_t pruned = 0;
    signals_hold(&before);
    int r = final(route_apply(route, &ap->plan, ap->o->takeover, &added, err));
    r = r ? r : install_write(&ap->in, &ap->plan, err);
    if (r) {
        route_undo(route, &added);
    } else {
        r = added.stale ? final(route_prune(route, &ap->plan, ap->o->takeover, &pruned, err)) : 0;
        ap->route_changes = route_added_count(&added) + pruned;
    }
    signals_release(&before);
    return r;
}

// One backend. -ENOENT and the like: it is not to be had here.
static int try_backend(struct apply *ap, struct nl *route, enum backend b, bool first, struct err *err)
{
    int r = install_choose(&ap->in, &ap->plan, b, err);
    if (r) {
        return r;
    }
    if (is_unchanged(ap, route)) {
        ap->result = "unchanged";
        return final(route_prune(route, &ap->plan, ap->o->takeover, &ap->route_changes, err));
    }
    if (ap->adopted == 0) {
        adopt(ap, first);
    }
    return write_all(ap, route, err);
}

// The first backend that this place has.
static int write_anyhow(struct apply *ap, struct nl *route, struct err *err)
{
    enum backend candidates[4];
    struct err err_here = { 0 };
    size_t n = install_candidates(&ap->in, candidates);
    bool first = install_is_empty(&ap->in);
    int r = 0;
    for (size_t i = 0; i < n; i++) {
        r = try_backend(ap, route, candidates[i], first, &err_here);
        if (r == 0) {
            return i == 0 || !ap->o->force_iptables.n
                       ? 0
                       : options_warn(ap->o, err, "--force-iptables-binary: %s; the rules go through nftables", err->msg);
        }
        // The first refusal is the one to tell, unless a later one says more than "not here".
        bool not_here = nft_is_lacking(r) || r == -EACCES;
        if (i == 0 || !not_here) {
            *err = err_here;
        }
        if (!not_here) {
            return r;
        }
        report_message(ap->o, "debug", "%s cannot be used here: %s", install_backend_name(candidates[i]), err_here.msg);
    }
    return r;
}

static int apply_rules(struct apply *ap, struct err *err)
{
    scope_nl struct nl route = { 0 };
    int r = install_open(&ap->in, ap->o, deadline(ap), err);
    r = r ? r : nl_open(&route, NETLINK_ROUTE, err);
    r = r ? r : install_warn_foreign(&ap->in, err);
    r = r ? r : write_anyhow(ap, &route, err);
    install_close(&ap->in);
    return r;
}

// What is there is not looked at, so all is named that a cleanup knows.
static int dry_cleanup(const struct options *o)
{
    struct buf out = { 0 };
    report_warnings(o);
    buf_printf(&out, "# nothing was touched; a cleanup removes of this what is there\n");
    for (size_t i = 0; i < 3; i++) {
        static const char *const families[] = { "inet", "ip", "ip6" };
        buf_printf(&out, "delete table %s %s\n", families[i], PLAN_TABLE);
    }
    buf_printf(&out, "# chains REMORA_* of iptables and ip6tables, routing rules and routes with origin %d, ::6/128 on lo\n", ROUTE_PROTOCOL);
    return report_write(STDOUT_FILENO, &out) ? EXIT_APPLY : EXIT_OK;
}

int cmd_apply(struct options *o, const struct facts *facts)
{
    struct apply ap;
    struct err err = { 0 };
    if (o->cleanup_only) {
        return o->dry_run ? dry_cleanup(o) : cmd_cleanup(o, facts);
    }
    prepare(&ap, o);
    if (o->dry_run) {
        return dry_run(&ap);
    }
    if (o->skip_rule_apply) {
        ap.result = "rules not touched";
    } else if (apply_rules(&ap, &err)) {
        report_failed(o, &err);
        return EXIT_APPLY;
    }
    ap.took_ms = clock_mono_ms() - ap.start_ms;
    struct verify_result v;
    if (o->run_validation && o->output == OUTPUT_JSON) {
        int code = cmd_verify_run(o, &v); // its checks belong to the one line that says all
        finish(&ap, &v);
        return code;
    }
    finish(&ap, NULL);
    return o->run_validation ? cmd_verify_run(o, &v) : EXIT_OK;
}

static int check_anyhow(struct apply *ap, struct err *err)
{
    enum backend candidates[4];
    int r = install_open(&ap->in, ap->o, deadline(ap), err);
    size_t n = r ? 0 : install_candidates(&ap->in, candidates);
    for (size_t i = 0; i < n; i++) {
        r = install_choose(&ap->in, &ap->plan, candidates[i], err);
        r = r ? r : install_check(&ap->in, &ap->plan, err);
        if (!nft_is_lacking(r)) {
            break;
        }
    }
    install_close(&ap->in);
    return r;
}

int cmd_check(struct options *o, const struct facts *facts)
{
    (void)facts;
    struct apply ap;
    struct err err = { 0 };
    prepare(&ap, o);
    if (check_anyhow(&ap, &err)) {
        report_failed(o, &err);
        return EXIT_APPLY;
    }
    ap.took_ms = clock_mono_ms() - ap.start_ms;
    ap.result = "accepted by the kernel, not committed";
    return finish(&ap, NULL);
}
