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
        buf_printf(&out, "%12llu %14llu  %-14s %s\n", (unsigned long long)r->packets, (unsigned long long)r->bytes, r->chain, r->comment);
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

// Reading the counters of one family.
struct counting {
    struct arena *a;
    struct nft_state *s;
    struct ipt_content plan[IPT_TABLES];  // what the flags make; empty when the rules are from other ones
    size_t seen[IPT_TABLES][CHAIN_COUNT]; // rules met so far
    size_t max;
};

// The same rule in the plan, for its meaning: the next one of that chain.
static const struct rule *next_of_plan(struct counting *c, int table, struct str chain)
{
    const struct ipt_lines *l = &c->plan[table].rules;
    struct str begin = arena_printf(c->a, "-A %.*s ", STR_FMT(chain));
    int k = 0;
    while (k < CHAIN_COUNT &&
           !(strcmp(plan_chains[k].iptables_table, ipt_table_names[table]) == 0 && str_is(chain, plan_chains[k].iptables_name))) {
        k++;
    }
    size_t skip = k < CHAIN_COUNT ? c->seen[table][k]++ : 0;
    for (size_t i = 0; i < l->n && k < CHAIN_COUNT; i++) {
        if (str_starts(l->v[i].text, begin) && skip-- == 0) {
            return l->v[i].rule;
        }
    }
    return NULL;
}

// "[12:720] -A REMORA_CAPTURE -d …": one of our rules with its counters.
static void take_line(struct counting *c, int table, struct str line)
{
    struct str counters = str_split(&line, ']');
    struct str rest = str_trim(line);
    uint64_t packets, bytes;
    counters = str_skip(counters, 1);
    struct str first = str_split(&counters, ':');
    if (!str_starts(rest, STR("-A REMORA_")) || c->s->n_rules == c->max || !str_to_u64(first, UINT64_MAX, &packets) ||
        !str_to_u64(counters, UINT64_MAX, &bytes)) {
        return;
    }
    rest = str_skip(rest, 3);
    struct str chain = str_split(&rest, ' ');
    const struct rule *r = next_of_plan(c, table, chain);
    // iptables keeps no comments: without the flags the rule itself stands for its meaning.
    struct str meaning = r ? arena_printf(c->a, "%s%s%s", r->origin, r->origin[0] ? ": " : "", r->comment) : rest;
    c->s->rules[c->s->n_rules++] =
        (struct state_rule){ .chain = arena_str(c->a, chain).p, .comment = arena_str(c->a, meaning).p, .packets = packets, .bytes = bytes };
}

static void take_family(struct counting *c, struct str text)
{
    int table = -1;
    while (text.n) {
        struct str line = str_split(&text, '\n');
        for (int t = 0; line.n && line.p[0] == '*' && t < IPT_TABLES; t++) {
            table = str_is(str_trim(str_skip(line, 1)), ipt_table_names[t]) ? t : table;
        }
        if (table >= 0) {
            take_line(c, table, line);
        }
    }
}

static int read_iptables(struct install *in, struct nft_state *ret, struct err *err)
{
    static const uint8_t families[] = { AF_INET, AF_INET6 };
    struct str texts[2];
    struct plan p;
    struct nft_state s = { .comment = "remora-init" };
    int r = ipt_counters(&in->ipt, texts, err);
    if (r) {
        return r;
    }
    size_t max = texts[0].n / 8 + texts[1].n / 8 + 1; // more lines than that cannot be in there
    s.rules = arena_array(in->o->arena, struct state_rule, max);
    plan_build(in->o, in->o->arena, &p);
    for (int f = 0; f < 2; f++) {
        struct counting c = { .a = in->o->arena, .s = &s, .max = max };
        for (int t = 0; t < IPT_TABLES && ipt_is_from(&in->ipt, f, &p); t++) {
            ipt_from_plan(&p, families[f], (enum ipt_table)t, &c.plan[t]);
        }
        take_family(&c, texts[f]);
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
