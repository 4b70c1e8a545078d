// SPDX-License-Identifier: Apache-2.0
// explain: the way of one packet through the rules that the same flags would make (needs no privileges), or with --live
// through those that stand in the kernel.
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "init-net/commands.h"
#include "init-net/eval.h"
#include "init-net/live.h"
#include "init-net/print.h"
#include "init-net/report.h"
#include "lib/base/clock.h"

static int make_packet(const struct options *o, struct packet *ret, struct err *err)
{
    const struct packet_options *x = &o->packet;
    struct packet k = {
        .dir = (enum direction)x->dir,
        .uid = x->uid,
        .gid = x->gid,
        .mark = x->mark,
        .has_owner = x->dir == DIR_OUT,
    };
    if (str_is(x->proto, "tcp") || str_is(x->proto, "udp")) {
        k.proto = str_is(x->proto, "tcp") ? IPPROTO_TCP : IPPROTO_UDP;
    } else {
        return err_set(err, -EINVAL, "--proto must be tcp or udp");
    }
    if (!x->dst.n) {
        return err_set(err, -EINVAL, "--dst is missing: say where the packet goes, like --dst 10.96.5.5:80");
    }
    int r = eval_address(x->dst, &k.family, k.dst, &k.dport, err);
    if (r) {
        return err_wrap(err, "--dst");
    }
    if (!k.dport) {
        return err_set(err, -EINVAL, "--dst: the port is missing");
    }
    uint8_t family = k.family;
    if (x->src.n && eval_address(x->src, &family, k.src, &k.sport, err)) {
        return err_wrap(err, "--src");
    }
    if (family != k.family) {
        return err_set(err, -EINVAL, "--src and --dst are of different address families");
    }
    // What goes to a loopback address goes by lo, whatever the default of --oif says.
    static const uint8_t lo6[16] = { [15] = 1 };
    bool to_lo = k.family == AF_INET ? k.dst[0] == 127 : memcmp(k.dst, lo6, 16) == 0;
    const char *oif = to_lo && !options_given(o, "oif") ? "lo" : arena_str(o->arena, x->oif).p;
    k.oif = x->dir == DIR_OUT ? oif : NULL;
    k.iif = x->dir == DIR_IN ? arena_str(o->arena, x->iif).p : NULL;
    *ret = k;
    return 0;
}

// Text of one condition: the rule printed with this condition alone.
static void print_condition(const struct plan *p, const struct rule *r, int i, struct buf *out)
{
    struct rule one = { .chain = r->chain, .action = ACTION_RETURN, .n = 1, .origin = "", .comment = "" };
    one.m[0] = r->m[i];
    bool port = one.m[0].kind == MATCH_SPORT || one.m[0].kind == MATCH_DPORT;
    for (size_t k = 0; port && k < r->n; k++) {
        if (r->m[k].kind == MATCH_PROTO) {
            one.m[one.n++] = r->m[k];
        }
    }
    struct buf text = { 0 };
    print_nft_rule(p, &one, &text);
    struct str s = buf_pullup(&text, buf_len(&text));
    ptrdiff_t end = str_find_str(s, STR(" counter"));
    buf_append(out, s.p, end > 0 ? (size_t)end : s.n);
    buf_clear(&text);
}

// Rules of the other family, which stand apart in the kernel and are one list only here, say nothing.
static bool is_elsewhere(const struct plan *p, const struct rule *r, int failed)
{
    return p->o->live && failed >= 0 && r->m[failed].kind == MATCH_FAMILY;
}

static void trace_text(const struct plan *p, const struct rule *r, int failed, void *arg)
{
    struct buf *out = arg;
    if (is_elsewhere(p, r, failed)) {
        return;
    }
    buf_printf(out, "%-14s %2zu  %s  %s%s%s", plan_chains[r->chain].name, plan_rule_number(p, r),
               failed < 0 ? "match" : "  -  ", r->origin, r->origin[0] ? ": " : "", r->comment);
    if (failed >= 0) {
        buf_printf(out, "  [not: ");
        print_condition(p, r, failed, out);
        buf_append(out, "]", 1);
    }
    buf_append(out, "\n", 1);
}

struct json_trace {
    struct json_writer w;
};

static void trace_json(const struct plan *p, const struct rule *r, int failed, void *arg)
{
    struct json_trace *t = arg;
    struct buf text = { 0 };
    if (is_elsewhere(p, r, failed)) {
        return;
    }
    jw_object(&t->w);
    jw_kv(&t->w, "chain", str_c(plan_chains[r->chain].name));
    jw_kv_u64(&t->w, "number", plan_rule_number(p, r));
    jw_kv(&t->w, "comment", str_c(r->comment));
    jw_kv(&t->w, "flag", str_c(r->origin));
    jw_kv_bool(&t->w, "match", failed < 0);
    if (failed >= 0) {
        print_condition(p, r, failed, &text);
        jw_kv(&t->w, "failed", buf_pullup(&text, buf_len(&text)));
    }
    jw_object_end(&t->w);
    buf_clear(&text);
}

static int explain_json(const struct options *o, const struct plan *p, const struct packet *k)
{
    struct json_trace t;
    struct buf out = { 0 };
    char text[64];
    report_begin(o, &t.w, &out, "explained");
    jw_key(&t.w, STR("steps"));
    jw_array(&t.w);
    struct fate f = eval_packet(p, k, trace_json, &t);
    jw_array_end(&t.w);
    jw_kv(&t.w, "fate", str_c(eval_fate_text(&f, text, sizeof(text))));
    if (f.port) {
        jw_kv_u64(&t.w, "port", f.port);
    }
    jw_kv_u64(&t.w, "ct_zone", f.zone);
    jw_kv(&t.w, "decided_by", str_c(f.rule ? f.rule->comment : "no rule"));
    jw_kv(&t.w, "flag", str_c(f.rule ? f.rule->origin : ""));
    report_end(o, &t.w, &out);
    return EXIT_OK;
}

// --live: the rules that stand in the kernel.
static int read_live(struct options *o, struct plan *ret, struct err *err)
{
    scope_install struct install in = { 0 };
    int r = install_open(&in, o, (int64_t)clock_mono_ms() + o->timeout_ms, err);
    r = r ? r : install_find(&in, err);
    return r ? r : live_read(&in, ret, err);
}

int cmd_explain(struct options *o, const struct facts *facts)
{
    (void)facts;
    struct plan p;
    struct packet k;
    struct err err;
    if (make_packet(o, &k, &err)) {
        report_message(o, "error", "%s", err.msg);
        return EXIT_FLAGS;
    }
    report_warnings(o);
    if (!o->live) {
        plan_build(o, o->arena, &p);
    } else if (read_live(o, &p, &err)) {
        report_message(o, "error", "%s", err.msg);
        return EXIT_APPLY;
    }
    if (o->output == OUTPUT_JSON) {
        return explain_json(o, &p, &k);
    }
    struct buf out = { 0 };
    char text[64];
    struct fate f = eval_packet(&p, &k, trace_text, &out);
    buf_printf(&out, "fate: %s", eval_fate_text(&f, text, sizeof(text)));
    if (f.rule) {
        buf_printf(&out, " (%s, rule %zu: %s%s%s)", plan_chains[f.rule->chain].name, plan_rule_number(&p, f.rule),
                   f.rule->origin, f.rule->origin[0] ? ": " : "", f.rule->comment);
    }
    if (f.zone) {
        buf_printf(&out, "; conntrack zone %u", f.zone);
    }
    buf_append(&out, "\n", 1);
    return report_write(STDOUT_FILENO, &out) ? EXIT_APPLY : EXIT_OK;
}
