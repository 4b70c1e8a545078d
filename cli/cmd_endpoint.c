// SPDX-License-Identifier: Apache-2.0
// remoractl proxy-config endpoint (live hosts, from /clusters?format=json) and eds (as configured, from a config dump)
#include <errno.h>

#include "cli/commands.h"
#include "cli/describe.h"
#include "cli/order.h"
#include "cli/output.h"
#include "cli/source.h"

struct row {
    struct str address, cluster, status;
    uint32_t port;
    bool failed; // ejected by outlier detection
};

struct rows {
    struct row *v;
    size_t n, cap;
};

static void add(struct rows *l, const struct row *r, struct arena *a)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        struct row *v = arena_array(a, struct row, cap);
        if (l->n) {
            memcpy(v, l->v, l->n * sizeof(*v));
        }
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = *r;
}

static bool row_less(const void *x, const void *y)
{
    const struct row *a = x, *b = y;
    int d = str_cmp(a->address, b->address);
    if (d == 0 && a->port != b->port) {
        return a->port < b->port;
    }
    return (d ? d : str_cmp(a->cluster, b->cluster)) < 0;
}

static bool is_wanted(const struct cli_options *o, const struct row *r)
{
    return (!o->endpoint_address.n || str_eq_nocase(r->address, o->endpoint_address)) && (!o->port || r->port == o->port) &&
           (!o->cluster.n || str_eq_nocase(r->cluster, o->cluster)) && (!o->status.n || str_eq_nocase(r->status, o->status));
}

// Hosts that the options ask for; with clusters, those that have one.
static void collect(struct cli *c, const struct json *statuses, struct rows *ret, struct dump_list *ret_clusters)
{
    for (const struct json *m = statuses->first; m; m = m->next) {
        const struct json *hosts = dump_get(m, "host_statuses");
        size_t before = ret->n;
        for (const struct json *h = hosts ? hosts->first : NULL; h; h = h->next) {
            struct row r = { .cluster = dump_str(m, "name"),
                             .status = describe_health(dump_str(h, "health_status.eds_health_status")),
                             .failed = dump_bool(h, "health_status.failed_outlier_check") };
            r.address = describe_address(dump_get(h, "address"), "unix://", &r.port, c->arena);
            if (is_wanted(&c->o, &r)) {
                add(ret, &r, c->arena);
            }
        }
        if (ret->n > before) {
            dump_add(ret_clusters, m, c->arena);
        }
    }
}

static void write_rows(struct cli *c, const struct rows *l)
{
    const struct row **v = arena_array(c->arena, const struct row *, l->n + 1);
    struct table t;
    for (size_t i = 0; i < l->n; i++) {
        v[i] = &l->v[i];
    }
    order_sort((const void **)v, l->n, row_less);
    table_init(&t, c->arena, 5);
    table_header(&t, "ENDPOINT\tSTATUS\tOUTLIER CHECK\tCLUSTER");
    for (size_t i = 0; i < l->n; i++) {
        struct str at = v[i]->port ? arena_printf(c->arena, "%.*s:%u", STR_FMT(v[i]->address), v[i]->port) : v[i]->address;
        table_row(&t, (struct str[]){ at, v[i]->status, v[i]->failed ? STR("FAILED") : STR("OK"), v[i]->cluster });
    }
    output_table(c, &t);
}

int cmd_pc_endpoint(struct cli *c, struct err *err)
{
    struct json *answer;
    struct rows rows = { 0 };
    struct dump_list clusters = { 0 };
    int r = source_admin(c, "/clusters?format=json", &answer, err);
    if (r) {
        return r;
    }
    const struct json *statuses = answer->type == JSON_ARRAY ? answer : dump_get(answer, "cluster_statuses");
    if (!statuses && dump_get(answer, "configs")) {
        return err_set(err, -EINVAL,
                       "this is a config dump; endpoints and their health are in curl 'ADMIN/clusters?format=json' "
                       "(endpoints as configured: remoractl pc eds)");
    }
    if (!statuses && c->o.file.n && answer->count) {
        return err_set(err, -EINVAL, "this has no \"cluster_statuses\"; save them with: curl 'ADMIN/clusters?format=json'");
    }
    if (statuses) {
        collect(c, statuses, &rows, &clusters);
    }
    if (c->o.format == FORMAT_TABLE) {
        write_rows(c, &rows);
    } else {
        output_list(c, &clusters);
    }
    return 0;
}

// ---- eds ----

static const struct dump_kind kind = {
    .section = "EndpointsConfigDump",
    .what = "endpoints",
    .lists = { { "dynamic_endpoint_configs", "endpoint_config" }, { "static_endpoint_configs", "endpoint_config" } },
};

static bool eds_less(const void *a, const void *b)
{
    struct subset_key x = dump_subset_key(dump_str(a, "cluster_name")), y = dump_subset_key(dump_str(b, "cluster_name"));
    return dump_subset_less(&x, &y);
}

static struct str locality_text(const struct json *l, struct arena *a)
{
    struct str region = dump_str(l, "region"), zone = dump_str(l, "zone"), sub = dump_str(l, "sub_zone");
    if (!zone.n) {
        return region;
    }
    return sub.n ? arena_printf(a, "%.*s/%.*s/%.*s", STR_FMT(region), STR_FMT(zone), STR_FMT(sub))
                 : arena_printf(a, "%.*s/%.*s", STR_FMT(region), STR_FMT(zone));
}

static struct str with_port(const struct json *address, uint32_t *ret_port, struct arena *a)
{
    struct str text = describe_address(address, "", ret_port, a);
    return dump_get(address, "socket_address") ? arena_printf(a, "%.*s:%u", STR_FMT(text), *ret_port) : text;
}

// All addresses of an endpoint, "1.2.3.4:80,[…]:80" (additional ones are dual stack).
static struct str endpoint_text(const struct json *endpoint, struct row *ret, struct arena *a)
{
    const struct json *more = dump_get(endpoint, "additional_addresses"), *address = dump_get(endpoint, "address");
    uint32_t port;
    struct buf b = { 0 };
    ret->address = describe_address(address, "", &ret->port, a);
    buf_append_str(&b, with_port(address, &port, a));
    for (const struct json *m = more ? more->first : NULL; m; m = m->next) {
        buf_append(&b, ",", 1);
        buf_append_str(&b, with_port(dump_get(m, "address"), &port, a));
    }
    return describe_take(&b, a);
}

// Adds the wanted endpoints of one ClusterLoadAssignment to t; returns how many.
static size_t add_assignment(struct cli *c, struct table *t, const struct json *assignment)
{
    const struct json *localities = dump_get(assignment, "endpoints");
    struct row r = { .cluster = dump_str(assignment, "cluster_name") };
    size_t n = 0;
    for (const struct json *m = localities ? localities->first : NULL; m; m = m->next) {
        const struct json *list = dump_get(m, "lb_endpoints");
        for (const struct json *e = list ? list->first : NULL; e; e = e->next) {
            struct str text = endpoint_text(dump_get(e, "endpoint"), &r, c->arena);
            r.status = describe_health(dump_str(e, "health_status"));
            if (is_wanted(&c->o, &r)) {
                text = c->kinds ? arena_printf(c->arena, "endpoint/%.*s", STR_FMT(text)) : text;
                table_row(t, (struct str[]){ text, r.status, locality_text(dump_get(m, "locality"), c->arena), r.cluster });
                n++;
            }
        }
    }
    return n;
}

static int write_eds(struct cli *c, const struct json *dump, bool table, struct err *err)
{
    struct dump_list l = { 0 }, wanted = { 0 };
    struct table t;
    int r = dump_resources(dump, &kind, c->arena, &l, err);
    if (r) {
        return r == -ENOENT ? err_set(err, r, "the dump has no endpoints; save one with: curl 'ADMIN/config_dump?include_eds'") : r;
    }
    order_sort((const void **)l.v, l.n, eds_less);
    table_init(&t, c->arena, 5);
    table_header(&t, "NAME\tSTATUS\tLOCALITY\tCLUSTER");
    for (size_t i = 0; i < l.n; i++) {
        if (add_assignment(c, &t, l.v[i])) {
            dump_add(&wanted, l.v[i], c->arena);
        }
    }
    if (table) {
        output_table(c, &t);
    } else {
        output_list(c, &wanted);
    }
    return 0;
}

int table_eds(struct cli *c, const struct json *dump, struct err *err)
{
    struct err why = { 0 };
    int r = write_eds(c, dump, true, &why);
    if (r == -ENOENT) { // part of the dump that few have
        cli_note(c, "%s", why.msg);
        return 0;
    }
    return r ? err_set(err, r, "%s", why.msg) : 0;
}

int cmd_pc_eds(struct cli *c, struct err *err)
{
    struct json *dump;
    int r = source_admin(c, "/config_dump?include_eds=true", &dump, err);
    return r ? r : write_eds(c, dump, c->o.format == FORMAT_TABLE, err);
}
