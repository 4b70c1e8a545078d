// SPDX-License-Identifier: Apache-2.0
// Envoy's GET /stats: text values first, then counters and gauges, then histograms; "name: value", each part in the order of names.
#include <stdio.h>
#include <stdlib.h>

#include "proxy/stats/rows.h"

static bool wanted(const struct stats_dump_opts *o, struct str name)
{
    return !o || !o->keep || o->keep(o->arg, name);
}

static int by_metric(const void *a, const void *b)
{
    return strcmp(((const struct stats_row *)a)->metric, ((const struct stats_row *)b)->metric);
}

static size_t group_values(const struct stats_group *g, bool used_only, struct stats_row *rows)
{
    size_t n = 0;
    unsigned end = stat_scope_end(g->scope);
    for (unsigned id = stat_scope_first(g->scope); id < end; id++) {
        if (stat_metas[id].kind == STAT_HISTOGRAM || (used_only && !stats_group_used(g, id))) {
            continue;
        }
        snprintf(rows[n].metric, sizeof(rows[n].metric), "%s", stat_metas[id].name);
        rows[n++].value = stats_group_value(g, id);
    }
    unsigned codes[STATS_CODES_SHOWN];
    uint64_t counts[STATS_CODES_SHOWN];
    size_t k = stats_group_codes(g, codes, counts, STATS_CODES_SHOWN);
    for (size_t i = 0; i < k; i++) {
        snprintf(rows[n].metric, sizeof(rows[n].metric), "upstream_rq_%u", codes[i]);
        rows[n++].value = counts[i];
    }
    qsort(rows, n, sizeof(*rows), by_metric);
    return n;
}

static void each_registered(const struct stats_view *v, const struct stats_dump_opts *o, size_t *next, const char *before,
                            const struct stats_visitor *vis)
{
    for (; *next < v->reg_count; ++*next) {
        struct stat_registered *r = v->reg[*next];
        if (r->text) {
            continue;
        }
        if (before && strcmp(r->name, before) > 0) {
            return;
        }
        if (wanted(o, str_c(r->name))) {
            uint64_t value = r->fn(r->arg);
            if (value || !o || !o->used_only || r->kind == STAT_GAUGE) {
                vis->value(vis->arg, str_c(r->name), value);
            }
        }
    }
}

static void each_value(const struct stats_view *v, const struct stats_dump_opts *o, const struct stats_visitor *vis)
{
    struct buf name = { 0 };
    size_t next = 0;
    struct stats_row rows[STATS_ROWS_MAX];
    for (size_t i = 0; i < v->group_count; i++) {
        const struct stats_group *g = &v->groups[i];
        struct str first = stats_full_name(g, "", &name);
        char *before = str_dup(first);
        each_registered(v, o, &next, before, vis);
        free(before);
        size_t n = group_values(g, o && o->used_only, rows);
        for (size_t k = 0; k < n; k++) {
            struct str full = stats_full_name(g, rows[k].metric, &name);
            if (wanted(o, full)) {
                vis->value(vis->arg, full, rows[k].value);
            }
        }
    }
    each_registered(v, o, &next, NULL, vis);
    buf_clear(&name);
}

static void each_histogram(const struct stats_view *v, const struct stats_dump_opts *o, const struct stats_visitor *vis)
{
    struct buf name = { 0 };
    for (size_t i = 0; i < v->group_count; i++) {
        const struct stats_group *g = &v->groups[i];
        unsigned end = stat_scope_end(g->scope);
        for (unsigned id = stat_scope_first(g->scope); id < end; id++) {
            if (stat_metas[id].kind != STAT_HISTOGRAM || (o && o->used_only && !stats_group_used(g, id))) {
                continue;
            }
            struct str full = stats_full_name(g, stat_metas[id].name, &name);
            if (wanted(o, full)) {
                struct histogram_sum h;
                stats_group_histogram(g, id, &h);
                vis->histogram(vis->arg, full, &h);
            }
        }
    }
    buf_clear(&name);
}

void stats_each(struct stats_store *s, const struct stats_dump_opts *o, const struct stats_visitor *vis)
{
    struct stats_view v;
    stats_view_init(&v, s);
    for (size_t i = 0; i < v.reg_count; i++) {
        if (v.reg[i]->text && wanted(o, str_c(v.reg[i]->name))) {
            vis->text(vis->arg, str_c(v.reg[i]->name), v.reg[i]->text(v.reg[i]->arg));
        }
    }
    each_value(&v, o, vis);
    each_histogram(&v, o, vis);
    stats_view_fini(&v);
}

static void text_text(void *out, struct str name, struct str value)
{
    buf_printf(out, "%.*s: \"%.*s\"\n", STR_FMT(name), STR_FMT(value));
}

static void text_value(void *out, struct str name, uint64_t value)
{
    buf_printf(out, "%.*s: %llu\n", STR_FMT(name), (unsigned long long)value);
}

static void text_histogram(void *out, struct str name, const struct histogram_sum *h)
{
    buf_printf(out, "%.*s: ", STR_FMT(name));
    if (h->count == 0) {
        buf_printf(out, "No recorded values\n");
        return;
    }
    for (size_t i = 0; i < histogram_quantile_count; i++) {
        buf_printf(out, "%sP%g(nan,%.10g)", i ? " " : "", histogram_quantiles[i],
                   histogram_quantile(h, histogram_quantiles[i] / 100));
    }
    buf_printf(out, "\n");
}

void stats_dump_text(struct stats_store *s, const struct stats_dump_opts *o, struct buf *out)
{
    const struct stats_visitor vis = {
        .arg = out, .text = text_text, .value = text_value, .histogram = text_histogram
    };
    stats_each(s, o, &vis);
}
