// SPDX-License-Identifier: Apache-2.0
// VirtualServices: what they refer to, and which of them want the same host.
#include "control-plane/analyze_int.h"

static const struct json *first(const struct json *n, const char *key)
{
    const struct json *m = json_get(n, key);
    return m && m->type == JSON_ARRAY ? m->first : NULL;
}

static uint64_t port_number(const struct json *p)
{
    uint64_t v = 0;
    const struct json *n = json_get(p, "number");
    n = n ? n : json_get(p, "port");
    return n && str_to_u64(n->text, 65535, &v) ? v : 0;
}

static void check_port(struct analysis *x, const struct an_object *o, const struct json *d, const struct an_host *h)
{
    const struct json *want = json_get(d, "port"), *at = json_get(d, "host");
    struct str host = json_str(d, "host");
    if (!want) {
        if (h->ports && h->ports->count > 1) {
            an_report(x, CP_ERROR, "IST0112", o, at, "destination \"%.*s\" has %zu ports: the route must say which", STR_FMT(host), h->ports->count);
        }
        return;
    }
    for (const struct json *p = h->ports && h->ports->type == JSON_ARRAY ? h->ports->first : NULL; p; p = p->next) {
        if (port_number(p) == port_number(want)) {
            return;
        }
    }
    an_report(x, CP_ERROR, "IST0101", o, at, "host:port not found: \"%.*s:%llu\"", STR_FMT(host), (unsigned long long)port_number(want));
}

static bool rule_has(const struct an_ref *r, struct str subset)
{
    for (; r; r = r->next) {
        for (const struct json *s = first(r->o->spec, "subsets"); s; s = s->next) {
            if (str_eq(json_str(s, "name"), subset)) {
                return true;
            }
        }
    }
    return false;
}

static bool has_subset(struct analysis *x, struct str host, struct str ns, struct str subset)
{
    for (struct str key = an_full(x, host, ns); key.n; key = cp_wider_host(x->a, key)) {
        if (rule_has(map_get(&x->rules, key), subset)) {
            return true;
        }
    }
    return false;
}

static void check_destination(struct analysis *x, const struct an_object *o, const struct json *d, bool mirror)
{
    struct str host = json_str(d, "host"), subset = json_str(d, "subset");
    const struct json *at = json_get(d, "host");
    if (!host.n) {
        return; // IST0106 says it
    }
    const struct an_host *h = an_find_host(x, host, o->ns);
    if (!h) {
        an_report(x, CP_ERROR, "IST0101", o, at, "%shost not found: \"%.*s\"", mirror ? "mirror " : "", STR_FMT(host));
    } else {
        check_port(x, o, d, h);
    }
    if (subset.n && !has_subset(x, host, o->ns, subset)) {
        an_report(x, CP_ERROR, "IST0101", o, at, "%s+subset not found in any DestinationRule: \"%.*s+%.*s\"", mirror ? "mirror" : "host", STR_FMT(host),
                  STR_FMT(subset));
    }
}

static void check_destinations(struct analysis *x, const struct an_object *o)
{
    static const char *const kinds[] = { "tcp", "tls", "http" };
    for (int k = 0; k < 3; k++) {
        for (const struct json *r = first(o->spec, kinds[k]); r; r = r->next) {
            for (const struct json *d = first(r, "route"); d; d = d->next) {
                check_destination(x, o, json_get(d, "destination"), false);
            }
            if (json_get(r, "mirror")) {
                check_destination(x, o, json_get(r, "mirror"), true);
            }
            for (const struct json *m = first(r, "mirrors"); m; m = m->next) {
                check_destination(x, o, json_get(m, "destination"), true);
            }
        }
    }
}

// ---- gateways ----

static const struct an_object *find_gateway(struct analysis *x, struct str name, struct str ns)
{
    struct str rest = name, part = str_split(&rest, '/');
    const struct an_object *o;
    if (rest.p) { // "namespace/name"
        ns = part;
        name = rest;
    }
    for (size_t i = 0; (o = an_next(x, "Gateway", &i));) {
        if (str_eq(o->name, name) && str_eq(o->ns, ns)) {
            return o;
        }
    }
    return NULL;
}

// A gateway's host is "name", "namespace/name", "./name" or "*/name"; the two names may be wildcards of each other.
static bool gateway_takes(const struct an_object *g, struct str host, struct str ns)
{
    for (const struct json *s = first(g->spec, "servers"); s; s = s->next) {
        for (const struct json *h = first(s, "hosts"); h; h = h->next) {
            struct str rest = h->text, from = str_split(&rest, '/'), name = rest.p ? rest : h->text;
            bool seen = !rest.p || str_is(from, "*") || str_eq(str_is(from, ".") ? g->ns : from, ns);
            if (seen && (cp_host_covers(name, host) || cp_host_covers(host, name))) {
                return true;
            }
        }
    }
    return false;
}

static void check_gateways(struct analysis *x, const struct an_object *o)
{
    for (const struct json *n = first(o->spec, "gateways"); n; n = n->next) {
        if (str_is(n->text, "mesh")) {
            continue;
        }
        const struct an_object *g = find_gateway(x, n->text, o->ns);
        bool taken = false;
        if (!g) {
            an_report(x, CP_ERROR, "IST0101", o, n, "gateway not found: \"%.*s\"", STR_FMT(n->text));
        }
        for (const struct json *h = first(o->spec, "hosts"); g && h && !taken; h = h->next) {
            taken = gateway_takes(g, h->text, o->ns);
        }
        if (!taken) {
            an_report(x, CP_WARNING, "IST0132", o, n, "none of its hosts is a host of gateway %.*s", STR_FMT(n->text));
        }
    }
}

// A route of a gateway without a subset is not split by what another VirtualService, of the mesh, says about that host.
static void check_ingress_subsets(struct analysis *x, const struct an_object *o)
{
    const struct an_object *other;
    if (!first(o->spec, "gateways")) {
        return;
    }
    for (const struct json *r = first(o->spec, "http"); r; r = r->next) {
        for (const struct json *d = first(r, "route"); d; d = d->next) {
            const struct json *to = json_get(d, "destination");
            for (size_t i = 0; !json_str(to, "subset").n && (other = an_next(x, "VirtualService", &i));) {
                bool splits = false;
                for (const struct json *q = first(other->spec, "http"); q; q = q->next) {
                    for (const struct json *w = first(q, "route"); w; w = w->next) {
                        const struct json *e = json_get(w, "destination");
                        bool own = false;
                        for (const struct json *h = first(other->spec, "hosts"); h; h = h->next) {
                            own |= str_eq(h->text, json_str(e, "host"));
                        }
                        splits |= own && json_str(e, "subset").n && str_eq(json_str(e, "host"), json_str(to, "host"));
                    }
                }
                if (splits) {
                    an_report(x, CP_WARNING, "IST0140", o, json_get(to, "host"), "the subsets of VirtualService %.*s/%.*s do not hold for this gateway route",
                              STR_FMT(other->ns), STR_FMT(other->name));
                }
            }
        }
    }
}

void an_virtual_services(struct analysis *x)
{
    const struct an_object *o;
    for (size_t i = 0; (o = an_next(x, "VirtualService", &i));) {
        check_destinations(x, o);
        check_gateways(x, o);
        check_ingress_subsets(x, o);
        an_matches(x, o);
    }
}

// ---- the same host twice ----

static bool in_mesh(const struct an_object *o)
{
    const struct json *n = first(o->spec, "gateways");
    if (!n) {
        return true;
    }
    for (; n; n = n->next) {
        if (str_is(n->text, "mesh")) {
            return true;
        }
    }
    return false;
}

static bool to_all(const struct an_object *o)
{
    bool all = o->export.n == 0;
    for (size_t i = 0; i < o->export.n; i++) {
        all |= str_is(o->export.v[i], "*");
    }
    return all;
}

// A namespace that both are exported to by name.
static bool share_scope(const struct an_object *a, const struct an_object *b)
{
    for (size_t i = 0; i < a->export.n; i++) {
        struct str ns = str_is(a->export.v[i], ".") ? a->ns : a->export.v[i];
        for (size_t k = 0; k < b->export.n; k++) {
            if (str_eq(ns, str_is(b->export.v[k], ".") ? b->ns : b->export.v[k])) {
                return true;
            }
        }
    }
    return false;
}

// Both want host a, or one of the two is a wildcard for the other.
static bool meet(const struct an_object *a, struct str host, const struct an_object *b, struct str other)
{
    bool all_a = to_all(a), all_b = to_all(b);
    if (str_eq(host, other)) {
        return all_a != all_b || all_a || share_scope(a, b);
    }
    // where one is for some namespaces, the other's wildcards count as well
    return all_a != all_b && (cp_host_covers(host, other) || cp_host_covers(other, host));
}

struct conflict {
    const struct an_object *o;
    struct str host, names;
};

static void add_conflicts(struct analysis *x, struct conflict *c, struct str host, const struct an_ref *list)
{
    for (; list; list = list->next) {
        const struct an_object *b = list->o;
        struct str name = arena_printf(x->a, "%.*s/%.*s", STR_FMT(b->ns), STR_FMT(b->name));
        bool found = false;
        for (const struct json *g = b != c->o && in_mesh(b) ? first(b->spec, "hosts") : NULL; g && !found; g = g->next) {
            found = meet(c->o, host, b, an_full(x, g->text, b->ns));
        }
        if (found && str_find_str(c->names, name) < 0) {
            c->host = c->host.n ? c->host : host;
            c->names = arena_printf(x->a, "%.*s%s%.*s", STR_FMT(c->names), c->names.n ? ", " : "", STR_FMT(name));
        }
    }
}

// Those that a wildcard covers are found by looking at all; there are few wildcards.
static void add_covered(struct analysis *x, struct conflict *c, struct str host)
{
    const struct an_object *o;
    for (size_t i = 0; (o = an_next(x, "VirtualService", &i));) {
        add_conflicts(x, c, host, &(struct an_ref){ .o = o });
    }
}

void an_conflicting_hosts(struct analysis *x)
{
    const struct an_object *o;
    for (size_t i = 0; (o = an_next(x, "VirtualService", &i));) {
        struct conflict c = { .o = o };
        for (const struct json *h = in_mesh(o) ? first(o->spec, "hosts") : NULL; h; h = h->next) {
            struct str host = an_full(x, h->text, o->ns);
            if (str_starts(host, STR("*"))) {
                add_covered(x, &c, host);
            } else {
                add_conflicts(x, &c, host, map_get(&x->virtual_services, host));
                add_conflicts(x, &c, host, x->wild_virtual_services);
            }
        }
        if (c.host.n) {
            an_report(x, CP_ERROR, "IST0109", o, json_get(json_get(o->doc, "metadata"), "name"),
                      "host %.*s is also one of %.*s: sidecars follow only one of them", STR_FMT(c.host), STR_FMT(c.names));
        }
    }
}
