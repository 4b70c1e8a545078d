// SPDX-License-Identifier: Apache-2.0
// remoractl proxy-config listener
#include "cli/commands.h"
#include "cli/describe.h"
#include "cli/order.h"
#include "cli/output.h"
#include "cli/source.h"
#include "lib/base/check.h"

static const struct dump_kind kind = {
    .section = "ListenersConfigDump",
    .what = "listeners",
    .lists = { { "dynamic_listeners", "active_state.listener" }, { "static_listeners", "listener" } },
};

// Filters are told by name, as istioctl does it; istiod and Envoy's own examples use these.
static const char http_filter[] = "envoy.filters.network.http_connection_manager", tcp_filter[] = "envoy.filters.network.tcp_proxy";

struct row {
    const struct json *listener;
    struct dump_list chains; // the default chain last
    struct str address, type;
    uint32_t port;
};

struct chain {
    struct str match, destination;
};

static bool mentions(const struct json *n, struct str word)
{
    if (n->type == JSON_STRING) {
        return str_find_str(n->text, word) >= 0;
    }
    for (const struct json *m = n->first; m; m = m->next) {
        if (mentions(m, word)) {
            return true;
        }
    }
    return false;
}

// A TCP proxy into nowhere only guards against loops; it says nothing about the listener.
static bool is_black_hole(const struct json *filter)
{
    const struct json *config = dump_get(filter, "typed_config");
    return config && mentions(config, STR("BlackHoleCluster"));
}

static struct str type_of(const struct dump_list *chains)
{
    size_t http = 0, tcp = 0;
    for (size_t i = 0; i < chains->n; i++) {
        const struct json *filters = dump_get(chains->v[i], "filters");
        for (const struct json *f = filters ? filters->first : NULL; f; f = f->next) {
            struct str name = dump_str(f, "name");
            http += str_is(name, http_filter);
            tcp += str_is(name, tcp_filter) && !is_black_hole(f);
        }
    }
    return http ? tcp ? STR("HTTP+TCP") : STR("HTTP") : tcp ? STR("TCP") : STR("UNKNOWN");
}

static struct str http_destination(const struct json *manager, struct arena *a)
{
    const struct json *route_config = dump_get(manager, "route_config");
    struct str rds = dump_str(manager, "rds.route_config_name");
    if (route_config) {
        return describe_route_config(route_config, a);
    }
    return rds.n ? arena_printf(a, "Route: %.*s", STR_FMT(rds)) : STR("HTTP");
}

static struct str destination_of(const struct json *chain, struct arena *a)
{
    const struct json *filters = dump_get(chain, "filters");
    for (const struct json *f = filters ? filters->first : NULL; f; f = f->next) {
        struct str name = dump_str(f, "name");
        const struct json *config = dump_get(f, "typed_config");
        if (str_is(name, http_filter)) {
            return http_destination(config, a);
        }
        if (str_is(name, tcp_filter) && !is_black_hole(f)) {
            return describe_cluster(dump_str(config, "cluster"), a);
        }
    }
    return STR("Non-HTTP/Non-TCP");
}

static struct str protocols_of(const struct json *list, struct arena *a)
{
    // The lists that istiod makes have names of their own.
    static const struct {
        const char *list, *text;
    } known[] = {
        { "http/1.0,http/1.1,h2c,istio-http/1.0,istio-http/1.1,istio-h2", "HTTP TLS" },
        { "istio,istio-http/1.0,istio-http/1.1,istio-h2", "Istio HTTP Plain" },
        { "istio-peer-exchange,istio", "TCP TLS" },
        { "http/1.0,http/1.1,h2c", "HTTP" },
    };
    struct str text = describe_join(list, ",", a);
    for (size_t i = 0; i < array_len(known); i++) {
        if (str_is(text, known[i].list)) {
            return str_c(known[i].text);
        }
    }
    return text;
}

static void add(struct buf *b, const char *label, struct str text)
{
    buf_printf(b, "%s%s%.*s", b->len ? "; " : "", label, STR_FMT(text));
}

static struct str ranges_of(const struct json *ranges, struct arena *a)
{
    struct buf b = { 0 };
    for (const struct json *m = ranges->first; m; m = m->next) {
        struct str prefix = dump_str(m, "address_prefix");
        buf_printf(&b, "%s%.*s/%u", b.len ? "," : "", STR_FMT(prefix), dump_u32(m, "prefix_len"));
    }
    return describe_take(&b, a);
}

// listener.v3.FilterChainMatch in words. Source addresses and types are not shown, as in istioctl.
static struct str match_of(const struct json *match, struct arena *a)
{
    const struct json *names = dump_get(match, "server_names"), *protocols = dump_get(match, "application_protocols");
    const struct json *port = dump_get(match, "destination_port"), *ranges = dump_get(match, "prefix_ranges");
    struct str transport = dump_str(match, "transport_protocol"), colon_port = STR("");
    struct buf b = { 0 };
    if (names && names->count) {
        add(&b, "SNI: ", describe_join(names, ",", a));
    }
    if (transport.n) {
        add(&b, "Trans: ", transport);
    }
    if (protocols && protocols->count) {
        add(&b, "App: ", protocols_of(protocols, a));
    }
    if (port) {
        colon_port = arena_printf(a, ":%u", dump_u32(match, "destination_port"));
    }
    if (ranges && ranges->count) {
        add(&b, "Addr: ", ranges_of(ranges, a));
        buf_append_str(&b, colon_port);
    } else if (port) {
        add(&b, "Addr: *", colon_port);
    }
    return b.len ? describe_take(&b, a) : STR("ALL");
}

// Falling by destination: that is how istioctl orders the chains of a listener.
static bool chain_less(const void *a, const void *b)
{
    return str_cmp(((const struct chain *)a)->destination, ((const struct chain *)b)->destination) > 0;
}

static bool row_less(const void *x, const void *y)
{
    const struct row *a = x, *b = y;
    int d = a->port != b->port ? (a->port < b->port ? -1 : 1) : str_cmp(a->address, b->address);
    return (d ? d : str_cmp(a->type, b->type)) < 0;
}

static struct str own_address(const struct json *address)
{
    struct str ip = dump_str(address, "socket_address.address");
    return ip.n ? ip : dump_str(address, "pipe.path");
}

static bool has_address(const struct row *r, struct str wanted)
{
    const struct json *more = dump_get(r->listener, "additional_addresses");
    if (str_eq_nocase(r->address, wanted)) {
        return true;
    }
    for (const struct json *m = more ? more->first : NULL; m; m = m->next) {
        if (str_eq_nocase(dump_str(m, "address.socket_address.address"), wanted)) {
            return true;
        }
    }
    return false;
}

static bool is_wanted(const struct cli_options *o, const struct row *r)
{
    return (!o->listen_address.n || has_address(r, o->listen_address)) && (!o->port || r->port == o->port) &&
           (!o->type.n || str_eq_nocase(r->type, o->type));
}

static struct row make_row(const struct json *listener, struct arena *a)
{
    struct row r = { .listener = listener };
    const struct json *address = dump_get(listener, "address"), *last = dump_get(listener, "default_filter_chain");
    const struct json *chains = dump_get(listener, "filter_chains");
    for (const struct json *m = chains ? chains->first : NULL; m; m = m->next) {
        dump_add(&r.chains, m, a);
    }
    if (last) {
        dump_add(&r.chains, last, a);
    }
    r.address = own_address(address);
    r.port = dump_u32(address, "socket_address.port_value");
    r.type = type_of(&r.chains);
    return r;
}

static int collect(struct cli *c, const struct json *dump, const struct row ***ret, size_t *ret_n, struct err *err)
{
    struct dump_list l;
    int r = dump_resources(dump, &kind, c->arena, &l, err);
    if (r) {
        return r;
    }
    struct row *rows = arena_array(c->arena, struct row, l.n + 1);
    const struct row **v = arena_array(c->arena, const struct row *, l.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < l.n; i++) {
        rows[i] = make_row(l.v[i], c->arena);
        if (is_wanted(&c->o, &rows[i])) {
            v[n++] = &rows[i];
        }
    }
    order_sort((const void **)v, n, row_less);
    if (l.n == 0) {
        cli_note(c, "there are no listeners");
    }
    *ret = v;
    *ret_n = n;
    return 0;
}

static void add_chains(struct cli *c, struct table *t, const struct row *r, struct str *cells)
{
    size_t n = r->chains.n;
    struct chain *chains = arena_array(c->arena, struct chain, n + 1);
    const struct chain **v = arena_array(c->arena, const struct chain *, n + 1);
    for (size_t i = 0; i < n; i++) {
        chains[i].match = match_of(dump_get(r->chains.v[i], "filter_chain_match"), c->arena);
        chains[i].destination = destination_of(r->chains.v[i], c->arena);
        v[i] = &chains[i];
    }
    order_sort((const void **)v, n, chain_less);
    for (size_t i = 0; i < n; i++) {
        cells[3] = v[i]->match;
        cells[4] = v[i]->destination;
        table_row(t, cells + !c->kinds);
    }
}

static void add_row(struct cli *c, struct table *t, const struct row *r)
{
    struct buf addresses = { 0 };
    struct str name = dump_str(r->listener, "name");
    const struct json *more = dump_get(r->listener, "additional_addresses");
    buf_append_str(&addresses, r->address);
    for (const struct json *m = more ? more->first : NULL; m; m = m->next) {
        buf_append(&addresses, ",", 1);
        buf_append_str(&addresses, dump_str(m, "address.socket_address.address"));
    }
    struct str cells[5] = { arena_printf(c->arena, "listener/%.*s", STR_FMT(name)), describe_take(&addresses, c->arena),
                            arena_printf(c->arena, "%u", r->port), r->type };
    if (c->o.verbose) {
        add_chains(c, t, r, cells);
    } else {
        table_row(t, cells + !c->kinds);
    }
}

// What the proxy refused is in no table, yet it is what people look for.
static void note_rejected(struct cli *c, const struct json *dump)
{
    const struct json *list = dump_get(dump_section(dump, kind.section), "dynamic_listeners");
    for (const struct json *m = list ? list->first : NULL; m; m = m->next) {
        struct str name = dump_str(m, "name"), details = dump_str(m, "error_state.details");
        if (details.n) {
            cli_note(c, "the proxy rejected the last update of listener %.*s: %.*s", STR_FMT(name), STR_FMT(details));
        }
    }
}

int table_listeners(struct cli *c, const struct json *dump, struct err *err)
{
    const struct row **v;
    size_t n;
    struct table t;
    int r = collect(c, dump, &v, &n, err);
    if (r) {
        return r;
    }
    const char *names = c->o.verbose ? "NAME\tADDRESSES\tPORT\tMATCH\tDESTINATION" : "NAME\tADDRESSES\tPORT\tTYPE";
    table_init(&t, c->arena, 1);
    table_header(&t, names + (c->kinds ? 0 : sizeof("NAME")));
    for (size_t i = 0; i < n; i++) {
        add_row(c, &t, v[i]);
    }
    output_table(c, &t);
    note_rejected(c, dump);
    return 0;
}

int cmd_pc_listener(struct cli *c, struct err *err)
{
    struct json *dump;
    const struct row **v;
    size_t n;
    int r = source_admin(c, "/config_dump?mask=dynamic_listeners,static_listeners", &dump, err);
    if (r || c->o.format == FORMAT_TABLE) {
        return r ? r : table_listeners(c, dump, err);
    }
    r = collect(c, dump, &v, &n, err);
    if (r == 0) {
        struct dump_list l = { 0 };
        for (size_t i = 0; i < n; i++) {
            dump_add(&l, v[i]->listener, c->arena);
        }
        output_list(c, &l);
    }
    return r;
}
