// SPDX-License-Identifier: Apache-2.0
#include "init-net/ipt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "init-net/print.h"
#include "init-net/spawn.h"
#include "lib/base/check.h"
#include "lib/base/clock.h"

enum { V4, V6 };
static const uint8_t families[] = { AF_INET, AF_INET6 };
static const struct ipt_content nothing;

const char *ipt_name(const struct ipt *t)
{
    return t->legacy ? "iptables-legacy" : "iptables-nft";
}

// --- the programs ---

// Where the lock of iptables-legacy is kept: its usual file, or, where that cannot be written (read-only root), our network
// namespace's own file, which is what the rules belong to.
static const char *lock_setting(void)
{
    static const char usual[] = "/run/xtables.lock";
    if (getenv("XTABLES_LOCKFILE") || access(usual, W_OK) == 0 || (access(usual, F_OK) < 0 && access("/run", W_OK) == 0)) {
        return NULL;
    }
    return "XTABLES_LOCKFILE=/proc/self/ns/net";
}

// "iptables v1.8.9 (nf_tables)"; versions before 1.8 know legacy only and do not say so.
static bool is_variant(const struct ipt *t, const char *program, bool legacy)
{
    struct spawn_result r;
    struct err err;
    char *argv[] = { (char *)program, "-V", NULL };
    if (spawn_run(argv, NULL, str_n(NULL, 0), t->deadline_ms, t->a, &r, &err) || r.status != 0) {
        return false;
    }
    return (str_find_str(r.out, STR("(nf_tables)")) < 0) == legacy;
}

// "iptables-nft-restore", else "iptables-restore" when that is this variant.
static const char *find_program(const struct ipt *t, int family, const char *what)
{
    char name[64];
    const char *first = family == V6 ? "ip6tables" : "iptables";
    snprintf(name, sizeof(name), "%s-%s-%s", first, t->legacy ? "legacy" : "nft", what);
    const char *path = spawn_find(name, t->a);
    if (path) {
        return path;
    }
    snprintf(name, sizeof(name), "%s-%s", first, what);
    path = spawn_find(name, t->a);
    return path && is_variant(t, path, t->legacy) ? path : NULL;
}

int ipt_open(struct ipt *t, bool legacy, struct arena *a, int64_t deadline_ms, struct err *err)
{
    struct ipt x = { .legacy = legacy, .a = a, .deadline_ms = deadline_ms };
    for (int f = 0; f < 2; f++) {
        x.family[f].restore = find_program(&x, f, "restore");
        x.family[f].save = x.family[f].restore ? find_program(&x, f, "save") : NULL;
    }
    if (!x.family[V4].save) {
        return err_set(err, -ENOENT,
                       "there is no %s-restore with %s-save here: use an image that has iptables, or a kernel "
                       "with nf_tables",
                       ipt_name(&x), ipt_name(&x));
    }
    if (legacy && geteuid() != 0) {
        return err_set(err, -EACCES,
                       "iptables-legacy works for user 0 only; run this container as root (runAsUser: 0), or "
                       "on a kernel with nf_tables");
    }
    *t = x;
    return 0;
}

static int run(struct ipt *t, const char *program, const char *option, struct str input, struct spawn_result *ret, struct err *err)
{
    char seconds[32];
    int64_t left = t->deadline_ms - (int64_t)clock_mono_ms();
    char *argv[8] = { (char *)program };
    size_t n = 1;
    bool restore = str_ends(str_c(program), STR("restore"));
    if (restore) {
        argv[n++] = "--noflush";
    }
    if (restore && t->legacy) {
        snprintf(seconds, sizeof(seconds), "%lld", left > 1000 ? (long long)left / 1000 : 1);
        argv[n++] = "-w";
        argv[n++] = seconds;
    }
    if (option) {
        argv[n++] = (char *)option;
    }
    return spawn_run(argv, t->legacy ? lock_setting() : NULL, input, t->deadline_ms, t->a, ret, err);
}

static int said(const struct ipt *t, const char *program, const struct spawn_result *r, struct err *err)
{
    struct str text = str_trim(r->err);
    static const char *const lacking[] = { "No such file",     "not supported", "does not exist",
                                           "can't initialize", "by that name",  "issing kernel module" };
    int code = -EINVAL;
    for (size_t i = 0; i < array_len(lacking); i++) {
        code = str_find_str(text, str_c(lacking[i])) >= 0 ? -EOPNOTSUPP : code;
    }
    bool refused = str_find_str(text, STR("ermission")) >= 0 || str_find_str(text, STR("must be root")) >= 0;
    return err_set(err, refused ? -EPERM : code, "%s ended with %d: %.*s%s", program, r->status, text.n > 400 ? 400 : (int)text.n, text.p,
                   refused ? t->legacy ? " (iptables-legacy needs user 0, CAP_NET_ADMIN and CAP_NET_RAW)"
                                       : " (needs CAP_NET_ADMIN in the user namespace that owns the network namespace)"
                           : "");
}

// --- reading ---

int ipt_read(struct ipt *t, struct err *err)
{
    for (int f = 0; f < 2; f++) {
        struct ipt_family *x = &t->family[f];
        struct spawn_result r;
        x->saved = (struct ipt_saved){ 0 };
        if (!x->save) {
            continue;
        }
        int code = run(t, x->save, NULL, str_n(NULL, 0), &r, err);
        if (code) {
            return code;
        }
        if (r.status != 0) {
            if (f == V6) {
                x->restore = x->save = NULL; // a kernel without IPv6; a plan that wants it will say so
                continue;
            }
            return said(t, x->save, &r, err);
        }
        ipt_from_save(r.out, t->a, &x->saved);
    }
    return 0;
}

bool ipt_has_ours(const struct ipt *t)
{
    for (int f = 0; f < 2; f++) {
        for (int k = 0; k < IPT_TABLES; k++) {
            if (!ipt_content_is_empty(&t->family[f].saved.ours[k])) {
                return true;
            }
        }
    }
    return false;
}

// What the plan wants of one family; returns whether it wants anything.
static bool wanted(const struct plan *p, int f, struct ipt_content ret[IPT_TABLES])
{
    bool any = false;
    for (int k = 0; k < IPT_TABLES; k++) {
        ret[k] = nothing;
        if (p) {
            ipt_from_plan(p, families[f], (enum ipt_table)k, &ret[k]);
        }
        any = any || !ipt_content_is_empty(&ret[k]);
    }
    return any;
}

bool ipt_equals(const struct ipt *t, const struct plan *p, char *why, size_t why_size)
{
    bool any = false;
    for (int f = 0; f < 2; f++) {
        const struct ipt_saved *s = &t->family[f].saved;
        struct ipt_content want[IPT_TABLES];
        char marker[21];
        bool wants = wanted(p, f, want), has = false;
        for (int k = 0; k < IPT_TABLES; k++) {
            has = has || !ipt_content_is_empty(&s->ours[k]);
        }
        any = any || wants;
        ipt_marker(plan_hash(p), s->digest, marker);
        if (wants != has) {
            snprintf(why, why_size, "there are %s IPv%d rules in %s", has ? "unwanted" : "no", f == V6 ? 6 : 4, ipt_name(t));
            return false;
        }
        if (wants && strncmp(marker, s->marker.n ? s->marker.p : "", 10) != 0) {
            snprintf(why, why_size, "the rules were made for another configuration");
            return false;
        }
        if (wants && !str_is(s->marker, marker)) {
            snprintf(why, why_size, "the IPv%d rules in %s are not as they were written", f == V6 ? 6 : 4, ipt_name(t));
            return false;
        }
        if (s->displaced) {
            snprintf(why, why_size, "another rule stands before ours in a built-in chain of %s", ipt_name(t));
            return false;
        }
    }
    return true;
}

// --- writing ---

// Which rule the program complains about: "… line 12 failed", "Error occurred at line: 12", "line: 12".
static size_t bad_line(struct str text)
{
    ptrdiff_t at = str_find_str(text, STR("line"));
    while (at >= 0) {
        text = str_skip(text, (size_t)at + 4);
        struct str s = text;
        while (s.n && (s.p[0] == ':' || s.p[0] == ' ')) {
            s = str_skip(s, 1);
        }
        size_t n = 0;
        while (s.n && s.p[0] >= '0' && s.p[0] <= '9' && n < 10000000) {
            n = n * 10 + (size_t)(s.p[0] - '0');
            s = str_skip(s, 1);
        }
        if (n) {
            return n;
        }
        at = str_find_str(text, STR("line"));
    }
    return 0;
}

static int rule_refused(struct ipt *t, const char *program, const struct ipt_script *s, struct str script, const struct spawn_result *r,
                        struct err *err)
{
    int code = said(t, program, r, err);
    size_t n = bad_line(r->err);
    struct str line = { 0 };
    for (size_t i = 0; i < n && script.n; i++) {
        line = str_split(&script, '\n');
    }
    if (n == 0 || n > s->n || code == -EPERM) {
        return code;
    }
    const struct rule *rule = s->rules[n - 1];
    if (rule) {
        return err_wrap(err, "the rule of %s%s%s was refused: %.*s", rule->origin, rule->origin[0] ? ": " : "", rule->comment,
                        line.n > 200 ? 200 : (int)line.n, line.p);
    }
    return err_wrap(err, "refused: %.*s", line.n > 200 ? 200 : (int)line.n, line.p);
}

// Hands a script to the program of one family and frees it.
static int send_script(struct ipt *t, int f, struct ipt_script *s, const char *option, struct err *err)
{
    const char *program = t->family[f].restore;
    struct spawn_result r;
    int code = 0;
    if (s->n && !program) {
        code = err_set(err, -ENOENT,
                       "there is no program for IPv6 rules (ip6tables-%s-restore), or the kernel has no ip6tables; "
                       "use --ipv6=off to leave IPv6 alone",
                       t->legacy ? "legacy" : "nft");
    } else if (s->n) {
        struct str script = arena_str(t->a, buf_pullup(&s->text, buf_len(&s->text)));
        code = run(t, program, option, script, &r, err);
        code = code == 0 && r.status ? rule_refused(t, program, s, script, &r, err) : code;
    }
    ipt_script_fini(s);
    return code;
}

struct change {
    struct ipt_content from[IPT_TABLES], to[IPT_TABLES];
};

// One pass over the families, IPv6 first: what comes (and what it replaces), or what only goes.
static int pass(struct ipt *t, struct change ch[2], bool coming, struct err *err)
{
    static const int order[] = { V6, V4 };
    for (int i = 0; i < 2; i++) {
        int f = order[i];
        struct ipt_script s = { 0 };
        for (int k = 0; k < IPT_TABLES; k++) {
            if (!ipt_content_is_empty(&ch[f].to[k]) == coming) {
                ipt_script_add(&s, (enum ipt_table)k, &ch[f].from[k], &ch[f].to[k]);
            }
        }
        int code = send_script(t, f, &s, NULL, err);
        if (code) {
            return code;
        }
    }
    return 0;
}

// Some tables may have changed already: what is there now gives way to what was there.
static void put_back(struct ipt *t, struct change ch[2])
{
    struct err ignored;
    struct ipt_saved before[2] = { t->family[V4].saved, t->family[V6].saved };
    t->deadline_ms += 10000; // it may have been the time that ran out
    if (ipt_read(t, &ignored)) {
        return;
    }
    for (int f = 0; f < 2; f++) {
        for (int k = 0; k < IPT_TABLES; k++) {
            const struct ipt_saved *now = &t->family[f].saved;
            ch[f].to[k] = ipt_content_join(&before[f].ours[k], &before[f].foreign[k], t->a);
            ch[f].from[k] = ipt_content_join(&now->ours[k], &now->foreign[k], t->a);
        }
    }
    if (pass(t, ch, false, &ignored) == 0) {
        pass(t, ch, true, &ignored);
    }
    t->family[V4].saved = before[V4];
    t->family[V6].saved = before[V6];
}

// Reads the rules back and writes down how they look, see ipt_text.h.
static int leave_marker(struct ipt *t, const struct plan *p, struct err *err)
{
    int code = ipt_read(t, err);
    for (int f = 0; f < 2 && code == 0; f++) {
        const struct ipt_saved *s = &t->family[f].saved;
        struct ipt_content want[IPT_TABLES];
        struct ipt_script script = { 0 };
        char digits[21];
        ipt_marker(plan_hash(p), s->digest, digits);
        wanted(p, f, want);
        for (int k = IPT_TABLES - 1; k >= 0 && script.n == 0; k--) {
            struct ipt_content marker = { 0 };
            if (!ipt_content_is_empty(&want[k])) {
                ipt_lines_add(&marker.chains, t->a, arena_printf(t->a, "REMORA_%s", digits), NULL);
                ipt_script_add(&script, (enum ipt_table)k, &nothing, &marker);
            }
        }
        code = send_script(t, f, &script, NULL, err);
    }
    return code;
}

int ipt_replace(struct ipt *t, const struct plan *p, bool takeover, struct err *err)
{
    struct change ch[2];
    for (int f = 0; f < 2; f++) {
        const struct ipt_saved *s = &t->family[f].saved;
        wanted(p, f, ch[f].to);
        for (int k = 0; k < IPT_TABLES; k++) {
            ch[f].from[k] = takeover ? ipt_content_join(&s->ours[k], &s->foreign[k], t->a) : s->ours[k];
        }
    }
    int code = pass(t, ch, true, err);
    code = code ? code : pass(t, ch, false, err);
    code = code || !p ? code : leave_marker(t, p, err);
    if (code) {
        put_back(t, ch);
    }
    return code;
}

int ipt_check(struct ipt *t, const struct plan *p, struct err *err)
{
    int code = 0;
    for (int f = 0; f < 2 && code == 0; f++) {
        struct ipt_content want[IPT_TABLES];
        struct ipt_script s = { 0 };
        wanted(p, f, want);
        for (int k = 0; k < IPT_TABLES; k++) {
            ipt_script_add(&s, (enum ipt_table)k, &t->family[f].saved.ours[k], &want[k]);
        }
        code = send_script(t, f, &s, "--test", err);
    }
    return code;
}

int ipt_counters(struct ipt *t, struct str ret[2], struct err *err)
{
    for (int f = 0; f < 2; f++) {
        struct spawn_result r;
        ret[f] = str_n(NULL, 0);
        if (!t->family[f].save) {
            continue;
        }
        int code = run(t, t->family[f].save, "-c", str_n(NULL, 0), &r, err);
        if (code) {
            return code;
        }
        ret[f] = r.status == 0 ? r.out : ret[f];
    }
    return 0;
}

bool ipt_is_from(const struct ipt *t, int family, const struct plan *p)
{
    char marker[21];
    const struct ipt_saved *s = &t->family[family].saved;
    ipt_marker(plan_hash(p), s->digest, marker);
    return str_is(s->marker, marker);
}
