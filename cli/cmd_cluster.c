// SPDX-License-Identifier: Apache-2.0
// remoractl proxy-config cluster
#include <errno.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/order.h"
#include "cli/output.h"
#include "cli/source.h"

static const struct dump_kind kind = {
    .section = "ClustersConfigDump",
    .what = "clusters",
    .lists = { { "dynamic_active_clusters", "cluster" }, { "static_clusters", "cluster" } },
};

struct row {
    const struct json *cluster;
    struct str name;
    struct subset_key key;
};

static bool row_less(const void *a, const void *b)
{
    return dump_subset_less(&((const struct row *)a)->key, &((const struct row *)b)->key);
}

// istioctl looks for the words anywhere in the name, and so do we: --fqdn reviews finds reviews.default.svc.cluster.local.
static bool has(struct str name, struct str word)
{
    return !word.n || str_find_str(name, word) >= 0;
}

static bool wanted(const struct cli_options *o, struct str name)
{
    char port[16];
    int n = o->port ? snprintf(port, sizeof(port), "|%u|", o->port) : 0;
    return has(name, o->fqdn) && has(name, o->direction) && has(name, o->subset) && has(name, str_n(port, (size_t)n));
}

// The clusters that the options ask for, sorted, in the arena.
static int collect(struct cli *c, const struct json *dump, const struct row ***ret, size_t *ret_n, struct err *err)
{
    struct dump_list l;
    int r = dump_resources(dump, &kind, c->arena, &l, err);
    if (r) {
        return r;
    }
    struct row *rows = arena_array(c->arena, struct row, l.n + 1);
    const struct row **v = arena_array(c->arena, const struct row *, l.n + 1);
    for (size_t i = 0; i < l.n; i++) {
        rows[i].cluster = l.v[i];
        rows[i].name = dump_str(l.v[i], "name");
        rows[i].key = dump_subset_key(rows[i].name);
        v[i] = &rows[i];
    }
    order_sort((const void **)v, l.n, row_less);
    size_t n = 0;
    for (size_t i = 0; i < l.n; i++) {
        if (wanted(&c->o, v[i]->name)) {
            v[n++] = v[i];
        }
    }
    if (l.n == 0) {
        cli_note(c, "there are no clusters");
    }
    *ret = v;
    *ret_n = n;
    return 0;
}

// cluster.v3.Cluster.DiscoveryType by number, for dumps that do not write names. Absent is STATIC.
static struct str type_of(const struct json *cluster)
{
    static const char *const names[] = { "STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST" };
    struct str text = dump_str(cluster, "type");
    uint64_t n;
    if (!text.n) {
        return STR("STATIC");
    }
    return str_to_u64(text, 4, &n) ? str_c(names[n]) : text;
}

static void add_row(struct cli *c, struct table *t, const struct row *r)
{
    const struct subset_key *k = &r->key;
    struct str name = c->kinds ? arena_printf(c->arena, "cluster/%.*s", STR_FMT(r->name)) : r->name;
    struct str cells[7] = { name, name, STR("-"), STR("-"), STR("-"), type_of(r->cluster), dump_management(r->cluster, c->arena) };
    if (k->parsed) {
        cells[1] = k->fqdn;
        cells[2] = arena_printf(c->arena, "%u", k->port);
        cells[3] = k->subset.n ? k->subset : STR("-");
        cells[4] = k->direction;
    }
    table_row(t, cells + !c->kinds);
}

int table_clusters(struct cli *c, const struct json *dump, struct err *err)
{
    const struct row **v;
    size_t n;
    struct table t;
    int r = collect(c, dump, &v, &n, err);
    if (r) {
        return r;
    }
    table_init(&t, c->arena, 5);
    table_header(&t, &"NAME\tSERVICE FQDN\tPORT\tSUBSET\tDIRECTION\tTYPE\tDESTINATION RULE"[c->kinds ? 0 : 5]);
    for (size_t i = 0; i < n; i++) {
        add_row(c, &t, v[i]);
    }
    output_table(c, &t);
    return 0;
}

int cmd_pc_cluster(struct cli *c, struct err *err)
{
    struct json *dump;
    const struct row **v;
    size_t n;
    int r = source_admin(c, "/config_dump?mask=dynamic_active_clusters,dynamic_warming_clusters,static_clusters", &dump, err);
    if (r || c->o.format == FORMAT_TABLE) {
        return r ? r : table_clusters(c, dump, err);
    }
    r = collect(c, dump, &v, &n, err);
    if (r == 0) {
        struct dump_list l = { 0 };
        for (size_t i = 0; i < n; i++) {
            dump_add(&l, v[i]->cluster, c->arena);
        }
        output_list(c, &l);
    }
    return r;
}
