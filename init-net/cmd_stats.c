// SPDX-License-Identifier: Apache-2.0
// stats: the counter of every rule, by what the rule means.
#include "init-net/commands.h"
#include "init-net/nft_state.h"
#include "init-net/report.h"

#include <unistd.h>

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

static void show_json(const struct options *o, const struct nft_state *s)
{
    struct json_writer w;
    struct buf out = { 0 };
    report_begin(o, &w, &out, "counters");
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

int cmd_stats(struct options *o, const struct facts *facts)
{
    (void)facts;
    scope_nl struct nl nl = { 0 };
    struct nft_state s;
    struct err err;
    int r = nl_open(&nl, NETLINK_NETFILTER, &err);
    r = r ? r : nft_state_read(&nl, o->arena, &s, &err);
    if (r) {
        report_message(o, "error", "%s", err.msg);
        return EXIT_APPLY;
    }
    if (!s.present) {
        report_message(o, "error", "there is no table inet %s in this network namespace: nothing was applied", PLAN_TABLE);
        return EXIT_APPLY;
    }
    if (o->output == OUTPUT_JSON) {
        show_json(o, &s);
    } else {
        show_text(&s);
    }
    return EXIT_OK;
}
