// SPDX-License-Identifier: Apache-2.0
// stats: the counter of every rule, by what the rule means.
#include <errno.h>
#include <unistd.h>

#include "init-net/commands.h"
#include "init-net/install.h"
#include "init-net/report.h"
#include "lib/base/clock.h"

static void show_text(const struct nft_state *s)
{
    struct buf out = { 0 };
    buf_printf(&out, "%12s %14s  %-14s %s\n", "PACKETS", "BYTES", "CHAIN", "MEANING");
    for (size_t i = 0; i < s->n_rules; i++) {
        const struct state_rule *r = &s->rules[i];
        buf_printf(&out, "%12llu %14llu  %-14s %s\n", (unsigned long long)r->packets, (unsigned long long)r->bytes,
                   r->chain, r->comment);
    }
    report_write(STDOUT_FILENO, &out);
}

static void show_json(const struct options *o, const struct nft_state *s, const char *backend)
{
    struct json_writer w;
    struct buf out = { 0 };
    report_begin(o, &w, &out, "counters");
    jw_kv(&w, "backend", str_c(backend));
    jw_kv(&w, "table", str_c(s->comment));
    jw_key(&w, STR("rules"));
    jw_array(&w);
    for (size_t i = 0; i < s->n_rules; i++) {
        const struct state_rule *r = &s->rules[i];
        jw_object(&w);
        jw_kv(&w, "chain", str_c(r->chain));
        jw_kv(&w, "meaning", str_c(r->comment));
        jw_kv_u64(&w, "packets", r->packets);
        jw_kv_u64(&w, "bytes", r->bytes);
        jw_object_end(&w);
    }
    jw_array_end(&w);
    report_end(o, &w, &out);
}

// "[12:720] -A REMORA_CAPTURE -d …": one of our rules with its counters.
static void take_line(struct str line, struct arena *a, struct state_rule *v, size_t *n, size_t max)
{
    struct str counters = str_split(&line, ']');
    struct str rest = str_trim(line);
    uint64_t packets, bytes;
    counters = str_skip(counters, 1);
    struct str first = str_split(&counters, ':');
    if (!str_starts(rest, STR("-A REMORA_")) || *n == max || !str_to_u64(first, UINT64_MAX, &packets) ||
        !str_to_u64(counters, UINT64_MAX, &bytes)) {
        return;
    }
    rest = str_skip(rest, 3);
    struct str chain = str_split(&rest, ' ');
    v[(*n)++] = (struct state_rule){ .chain = arena_str(a, chain).p, .comment = arena_str(a, rest).p, .packets = packets,
                                     .bytes = bytes };
}

// iptables keeps no comments, so the rule itself stands for its meaning.
static int read_iptables(struct install *in, struct nft_state *ret, struct err *err)
{
    struct str text;
    struct nft_state s = { .comment = in->ipt.family[0].saved.marker.n ? "remora-init" : "" };
    int r = ipt_counters(&in->ipt, &text, err);
    if (r) {
        return r;
    }
    size_t lines = 0;
    for (size_t i = 0; i < text.n; i++) {
        lines += text.p[i] == '\n';
    }
    s.rules = arena_array(in->o->arena, struct state_rule, lines + 1);
    while (text.n) {
        take_line(str_split(&text, '\n'), in->o->arena, s.rules, &s.n_rules, lines);
    }
    *ret = s;
    return 0;
}

int cmd_stats(struct options *o, const struct facts *facts)
{
    (void)facts;
    scope_install struct install in = { 0 };
    struct nft_state s;
    struct err err;
    int r = install_open(&in, o, (int64_t)clock_mono_ms() + o->timeout_ms, &err);
    r = r ? r : install_find(&in, &err);
    s = in.state;
    if (r == 0 && (in.backend == BACKEND_IPTABLES_NFT || in.backend == BACKEND_IPTABLES_LEGACY)) {
        r = read_iptables(&in, &s, &err);
    }
    if (r == 0 && in.backend == BACKEND_AUTO) {
        r = err_set(&err, -ENOENT, "there are no rules of ours in this network namespace: nothing was applied");
    }
    if (r) {
        report_failed(o, &err);
        return EXIT_APPLY;
    }
    if (o->output == OUTPUT_JSON) {
        show_json(o, &s, install_backend_name(in.backend));
    } else {
        show_text(&s);
    }
    return EXIT_OK;
}
