// SPDX-License-Identifier: Apache-2.0
// remoractl proxy-config route
#include "cli/commands.h"
#include "cli/describe.h"
#include "cli/order.h"
#include "cli/output.h"
#include "cli/source.h"

static const struct dump_kind kind = {
    .section = "RoutesConfigDump",
    .what = "routes",
    .lists = { { "dynamic_route_configs", "route_config" }, { "static_route_configs", "route_config" } },
};

// By port number; others are not compared at all, which is what istioctl does.
static bool route_less(const void *a, const void *b)
{
    uint64_t x, y;
    return str_to_u64(dump_str(a, "name"), INT64_MAX, &x) && str_to_u64(dump_str(b, "name"), INT64_MAX, &y) && x < y;
}

static int collect(struct cli *c, const struct json *dump, struct dump_list *ret, struct err *err)
{
    struct dump_list l, wanted = { 0 };
    int r = dump_resources(dump, &kind, c->arena, &l, err);
    if (r) {
        return r;
    }
    order_sort((const void **)l.v, l.n, route_less);
    for (size_t i = 0; i < l.n; i++) {
        if (!c->o.name.n || str_eq(c->o.name, dump_str(l.v[i], "name"))) {
            dump_add(&wanted, l.v[i], c->arena);
        }
    }
    if (l.n == 0) {
        cli_note(c, "there are no routes");
    }
    *ret = wanted;
    return 0;
}

static void add_host(struct cli *c, struct table *t, struct str name, const struct json *host)
{
    const struct json *routes = dump_get(host, "routes");
    struct str cells[5] = { name, dump_str(host, "name"), describe_domains(dump_get(host, "domains"), c->arena), STR("/*"), STR("404") };
    if (!routes || !routes->count) {
        table_row(t, cells);
        return;
    }
    for (const struct json *m = routes->first; m; m = m->next) {
        if (str_is(dump_str(m, "route.cluster"), "PassthroughCluster")) {
            continue; // on every outbound port; says nothing
        }
        cells[3] = describe_match(dump_get(m, "match"), c->arena);
        cells[4] = dump_management(m, c->arena);
        table_row(t, cells);
    }
}

static void add_row(struct cli *c, struct table *t, const struct json *route)
{
    const struct json *hosts = dump_get(route, "virtual_hosts");
    struct str name = dump_str(route, "name");
    name = c->kinds ? arena_printf(c->arena, "route/%.*s", STR_FMT(name)) : name;
    if (!c->o.verbose) {
        table_row(t, (struct str[]){ name, arena_printf(c->arena, "%zu", hosts ? hosts->count : 0) });
        return;
    }
    for (const struct json *m = hosts ? hosts->first : NULL; m; m = m->next) {
        add_host(c, t, name, m);
    }
}

int table_routes(struct cli *c, const struct json *dump, struct err *err)
{
    struct dump_list l;
    struct table t;
    int r = collect(c, dump, &l, err);
    if (r) {
        return r;
    }
    table_init(&t, c->arena, 5);
    table_header(&t, c->o.verbose ? "NAME\tVHOST NAME\tDOMAINS\tMATCH\tVIRTUAL SERVICE" : "NAME\tVIRTUAL HOSTS");
    for (size_t i = 0; i < l.n; i++) {
        add_row(c, &t, l.v[i]);
    }
    output_table(c, &t);
    return 0;
}

int cmd_pc_route(struct cli *c, struct err *err)
{
    struct json *dump;
    struct dump_list l;
    int r = source_admin(c, "/config_dump?mask=dynamic_route_configs,static_route_configs", &dump, err);
    if (r || c->o.format == FORMAT_TABLE) {
        return r ? r : table_routes(c, dump, err);
    }
    r = collect(c, dump, &l, err);
    if (r == 0) {
        output_list(c, &l);
    }
    return r;
}
