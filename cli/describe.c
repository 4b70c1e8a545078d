// SPDX-License-Identifier: Apache-2.0
#include "cli/describe.h"

#include "lib/base/check.h"

struct str describe_take(struct buf *b, struct arena *a)
{
    char *text = arena_alloc(a, b->len + 1);
    size_t n = buf_peek(b, 0, text, b->len);
    text[n] = '\0';
    buf_clear(b);
    return str_n(text, n);
}

static void add(struct buf *b, struct str text, const char *sep)
{
    if (b->len) {
        buf_append_str(b, str_c(sep));
    }
    buf_append_str(b, text);
}

struct str describe_join(const struct json *strings, const char *sep, struct arena *a)
{
    struct buf b = { 0 };
    for (const struct json *m = strings ? strings->first : NULL; m; m = m->next) {
        add(&b, m->text, sep);
    }
    return describe_take(&b, a);
}

struct str describe_match(const struct json *match, struct arena *a)
{
    struct str prefix = dump_str(match, "prefix"), separated = dump_str(match, "path_separated_prefix");
    struct str path = dump_str(match, "path");
    const struct json *regex = dump_get(match, "safe_regex");
    struct buf b = { 0 };
    if (prefix.n) {
        add(&b, arena_printf(a, "%.*s*", STR_FMT(prefix)), " ");
    }
    if (separated.n) {
        add(&b, arena_printf(a, "PathPrefix:%.*s", STR_FMT(separated)), " ");
    }
    if (path.n) {
        add(&b, path, " ");
    }
    if (regex) {
        struct str text = dump_str(regex, "regex");
        add(&b, arena_printf(a, "regex %.*s", STR_FMT(text)), " ");
    }
    return describe_take(&b, a);
}

struct str describe_cluster(struct str name, struct arena *a)
{
    return str_find_str(name, STR("Cluster")) >= 0 ? name : arena_printf(a, "Cluster: %.*s", STR_FMT(name));
}

static bool is_any_domain(const struct json *domains)
{
    return domains && domains->count == 1 && str_is(domains->first->text, "*");
}

// The cluster of a configuration with one route, for everything. NULL when it is not like that.
static const struct json *only_cluster(const struct json *route_config)
{
    const struct json *hosts = dump_get(route_config, "virtual_hosts");
    const struct json *host = hosts && hosts->count == 1 ? hosts->first : NULL, *routes = dump_get(host, "routes");
    if (!is_any_domain(dump_get(host, "domains")) || !routes || routes->count != 1 ||
        !str_is(dump_str(routes->first, "match.prefix"), "/")) {
        return NULL;
    }
    return dump_path(routes->first, "route.cluster");
}

static struct str describe_routes(const struct json *routes, struct arena *a)
{
    struct buf b = { 0 };
    for (const struct json *m = routes ? routes->first : NULL; m; m = m->next) {
        if (m != routes->first) {
            buf_append_str(&b, STR(", "));
        }
        buf_append_str(&b, describe_match(dump_get(m, "match"), a));
    }
    return describe_take(&b, a);
}

struct str describe_route_config(const struct json *route_config, struct arena *a)
{
    const struct json *cluster = only_cluster(route_config), *hosts = dump_get(route_config, "virtual_hosts");
    if (cluster) {
        return describe_cluster(cluster->text, a);
    }
    struct buf b = { 0 };
    buf_append_str(&b, STR("Inline Route: "));
    for (const struct json *m = hosts ? hosts->first : NULL; m; m = m->next) {
        const struct json *domains = dump_get(m, "domains");
        if (m != hosts->first) {
            buf_append_str(&b, STR("; "));
        }
        if (domains && domains->count && !is_any_domain(domains)) {
            buf_append_str(&b, describe_join(domains, "/", a));
            buf_append_str(&b, STR(" "));
        }
        buf_append_str(&b, describe_routes(dump_get(m, "routes"), a));
    }
    return describe_take(&b, a);
}

// Without port: no colon at all, or only an IPv6 address in brackets.
static bool has_no_port(struct str domain)
{
    size_t colons = 0;
    for (size_t i = 0; i < domain.n; i++) {
        colons += domain.p[i] == ':';
    }
    return colons == 0 || (colons > 2 && str_ends(domain, STR("]")));
}

static bool contains(const struct str *list, size_t n, struct str s)
{
    for (size_t i = 0; i < n; i++) {
        if (str_eq(list[i], s)) {
            return true;
        }
    }
    return false;
}

// Whether the list has the same name with less behind it: "a.b" for "a.b.svc" and "a.b.svc.cluster.local".
static bool has_shorter(const struct str *list, size_t n, struct str s)
{
    static const struct str endings[] = { STR_INIT(".svc.cluster.local"), STR_INIT(".svc") };
    for (size_t i = 0; i < array_len(endings); i++) {
        if (str_ends(s, endings[i]) && contains(list, n, str_n(s.p, s.n - endings[i].n))) {
            return true;
        }
    }
    return false;
}

struct str describe_domains(const struct json *domains, struct arena *a)
{
    enum { SHOWN = 2 };
    if (!domains || domains->count < 2) {
        return domains && domains->count ? domains->first->text : STR("");
    }
    struct str *list = arena_array(a, struct str, domains->count);
    size_t n = 0, kept = 0;
    for (const struct json *m = domains->first; m; m = m->next) {
        if (has_no_port(m->text)) {
            list[n++] = m->text;
        }
    }
    struct buf b = { 0 };
    for (size_t i = 0; i < n; i++) {
        if (!has_shorter(list, n, list[i]) && ++kept <= SHOWN) {
            add(&b, list[i], ", ");
        }
    }
    if (kept > SHOWN) {
        buf_printf(&b, " + %zu more...", kept - SHOWN);
    }
    return describe_take(&b, a);
}

struct str describe_address(const struct json *address, const char *pipe_prefix, uint32_t *ret_port, struct arena *a)
{
    const struct json *socket = dump_get(address, "socket_address"), *pipe = dump_get(address, "pipe");
    const struct json *internal = dump_get(address, "envoy_internal_address");
    *ret_port = dump_u32(socket, "port_value");
    if (socket) {
        return dump_str(socket, "address");
    }
    struct str path = dump_str(pipe, "path"), name = dump_str(internal, "server_listener_name"), id = dump_str(internal, "endpoint_id");
    if (pipe) {
        return arena_printf(a, "%s%.*s", pipe_prefix, STR_FMT(path));
    }
    return name.n ? arena_printf(a, "envoy://%.*s/%.*s", STR_FMT(name), STR_FMT(id)) : STR("unknown");
}

struct str describe_health(struct str value)
{
    static const char *const names[] = { "UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED" };
    uint64_t n;
    if (!value.n) {
        return STR("UNKNOWN");
    }
    return str_to_u64(value, array_len(names) - 1, &n) ? str_c(names[n]) : value;
}
