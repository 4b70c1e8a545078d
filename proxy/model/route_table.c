// SPDX-License-Identifier: Apache-2.0
#include "proxy/model/route_table.h"

#include "proxy/core/facts.h"
#include "proxy/core/stream_info.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/base/map.h"
#include "lib/base/mem.h"

struct route_table *route_table_new(void)
{
    struct route_table *t = mem_new(struct route_table);
    refs_init(&t->refs);
    arena_init(&t->arena, 0, 0);
    return t;
}

struct route_table *route_table_ref(struct route_table *t)
{
    refs_get(&t->refs);
    return t;
}

void route_table_unref(struct route_table *t)
{
    if (t && refs_put(&t->refs)) {
        arena_fini(&t->arena);
        free(t);
    }
}

// ---- domains ----

// Wildcard domains of one length (without the '*').
struct wild {
    size_t len;
    struct map hosts; // lower-case text → struct virtual_host *
};
struct wilds { // longest first
    struct wild *v;
    size_t n, cap;
};

struct domain_index {
    struct map exact; // lower-case → struct virtual_host *
    struct wilds suffixes, prefixes;
    struct virtual_host *any; // "*"
};

enum { HOST_STACK_MAX = 256 };

static void lower_into(char *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        out[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 0x20) : s.p[i];
    }
}

static void index_free(void *arg)
{
    struct domain_index *x = arg;
    map_fini(&x->exact);
    for (size_t i = 0; i < x->suffixes.n; i++) {
        map_fini(&x->suffixes.v[i].hosts);
    }
    for (size_t i = 0; i < x->prefixes.n; i++) {
        map_fini(&x->prefixes.v[i].hosts);
    }
    free(x->suffixes.v);
    free(x->prefixes.v);
}

static struct map *wild_hosts(struct wilds *w, size_t len)
{
    size_t i = 0;
    while (i < w->n && w->v[i].len > len) {
        i++;
    }
    if (i == w->n || w->v[i].len != len) {
        mem_grow(&w->v, &w->cap, w->n + 1, sizeof(*w->v));
        memmove(&w->v[i + 1], &w->v[i], (w->n - i) * sizeof(*w->v));
        w->v[i] = (struct wild){ .len = len };
        w->n++;
    }
    return &w->v[i].hosts;
}

static int add_domain(struct domain_index *x, struct virtual_host *vh, struct str domain, struct arena *a, struct err *err)
{
    if (domain.n == 0) {
        return err_set(err, -EINVAL, "virtual host '%.*s': an empty domain", STR_FMT(vh->name));
    }
    struct virtual_host *former;
    if (str_is(domain, "*")) {
        former = x->any;
        x->any = vh;
    } else {
        char *low = arena_alloc(a, domain.n);
        lower_into(low, domain);
        struct str key = str_n(low, domain.n);
        struct map *m = &x->exact;
        if (key.p[0] == '*') {
            key = str_skip(key, 1);
            m = wild_hosts(&x->suffixes, key.n);
        } else if (key.p[key.n - 1] == '*') {
            key.n--;
            m = wild_hosts(&x->prefixes, key.n);
        }
        former = map_put(m, key, vh);
    }
    if (former) {
        return err_set(err, -EINVAL, "domain '%.*s' is in virtual host '%.*s' and in '%.*s'; a domain may occur only once",
                       STR_FMT(domain), STR_FMT(former->name), STR_FMT(vh->name));
    }
    return 0;
}

// No condition but the path's: as route_matches looks at them.
static bool matches_any_path(const struct route *rt)
{
    return rt->path_kind == PATH_PREFIX && rt->path.n == 1 && rt->path.p[0] == '/' && !rt->header_count && !rt->query_count &&
           !rt->cookie_count && !rt->fact_count && !rt->grpc_only && !rt->has_fraction;
}

int route_table_seal(struct route_table *t, struct err *err)
{
    struct domain_index *x = arena_new(&t->arena, struct domain_index);
    arena_on_free(&t->arena, index_free, x);
    for (size_t i = 0; i < t->vhost_count; i++) {
        struct virtual_host *vh = &t->vhosts[i];
        for (size_t j = 0; j < vh->domain_count; j++) {
            int rc = add_domain(x, vh, vh->domains[j], &t->arena, err);
            if (rc != 0) {
                return rc;
            }
        }
        for (size_t j = 0; j < vh->route_count; j++) {
            vh->routes[j].vhost = vh;
            vh->routes[j].any_path = matches_any_path(&vh->routes[j]);
        }
    }
    t->index = x;
    return 0;
}

// Host of an authority without its port; "[::1]:80" gives "[::1]". Digits only count as a port.
static struct str strip_port(struct str a)
{
    size_t i = a.n;
    while (i > 0 && a.p[i - 1] >= '0' && a.p[i - 1] <= '9') {
        i--;
    }
    bool ipv6 = a.n && a.p[0] == '[';
    if (i == 0 || a.p[i - 1] != ':' || i == a.n || (ipv6 && (i < 2 || a.p[i - 2] != ']'))) {
        return a;
    }
    return str_n(a.p, i - 1);
}

static struct virtual_host *find_wild(const struct wilds *w, struct str host, bool suffix)
{
    for (size_t i = 0; i < w->n; i++) {
        size_t len = w->v[i].len;
        if (len < host.n) { // the '*' stands for at least one byte
            struct str part = suffix ? str_skip(host, host.n - len) : str_n(host.p, len);
            struct virtual_host *vh = map_get(&w->v[i].hosts, part);
            if (vh) {
                return vh;
            }
        }
    }
    return NULL;
}

static struct virtual_host *find_host(const struct domain_index *x, struct str host)
{
    struct virtual_host *vh = x->exact.count ? map_get(&x->exact, host) : NULL;
    vh = vh ? vh : find_wild(&x->suffixes, host, true);
    vh = vh ? vh : find_wild(&x->prefixes, host, false);
    return vh ? vh : x->any;
}

const struct virtual_host *route_table_vhost(const struct route_table *t, struct str authority)
{
    const struct domain_index *x = t->index;
    if (!x->exact.count && !x->suffixes.n && !x->prefixes.n) {
        return x->any;
    }
    if (t->ignore_port) {
        authority = strip_port(authority);
    }
    char stack[HOST_STACK_MAX];
    char *low = authority.n <= sizeof(stack) ? stack : mem_alloc(authority.n);
    lower_into(low, authority);
    const struct virtual_host *vh = find_host(x, str_n(low, authority.n));
    if (low != stack) {
        free(low);
    }
    return vh;
}

// ---- routes ----

static bool path_matches(const struct route *rt, const struct match_request *r, struct str path)
{
    switch (rt->path_kind) {
    case PATH_PREFIX:
        if (rt->path.n == 1 && rt->path.p[0] == '/') {
            return path.n > 0 && path.p[0] == '/'; // "/", nearly every route of a mesh
        }
        return path.n >= rt->path.n &&
               (rt->case_sensitive ? memcmp(path.p, rt->path.p, rt->path.n) == 0 : str_eq_nocase(str_n(path.p, rt->path.n), rt->path));
    case PATH_EXACT:
        return rt->case_sensitive ? str_eq(path, rt->path) : str_eq_nocase(path, rt->path);
    case PATH_SEPARATED_PREFIX:
        if (path.n < rt->path.n || (path.n > rt->path.n && path.p[rt->path.n] != '/')) {
            return false;
        }
        path.n = rt->path.n;
        return rt->case_sensitive ? str_eq(path, rt->path) : str_eq_nocase(path, rt->path);
    case PATH_REGEX:
    case PATH_TEMPLATE: // compiled to an expression by proxy/config
        return rt->path_re && regex_full_match(rt->path_re, path);
    case PATH_CONNECT:
        return str_is(r->method, "CONNECT");
    }
    return false;
}

// "application/grpc", alone or with a "+suffix" or parameters.
static bool is_grpc(const struct match_request *r)
{
    struct str ct = headers_value_id(r->headers, HDR_CONTENT_TYPE);
    struct str want = STR("application/grpc");
    return str_starts(ct, want) && (ct.n == want.n || ct.p[want.n] == '+' || ct.p[want.n] == ';');
}

// route.v3.CookieMatcher: a cookie that is missing never matches, inverted or not.
static bool cookie_matches(const struct query_matcher *m, bool invert, const struct headers *h)
{
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        struct str rest = x->id == HDR_COOKIE ? x->value : str_n(NULL, 0);
        while (rest.n) {
            struct str value = str_trim(str_split(&rest, ';')), name = str_split(&value, '=');
            if (str_eq(name, m->name)) {
                return string_matcher_match(&m->string, value) != invert;
            }
        }
    }
    return false;
}

// Of facts the latest one of a name counts, as in access logs.
static struct metadata_value find_fact(const struct fact_matcher *m, const struct match_request *r)
{
    if (r->info) {
        return stream_info_metadata_find(r->info, m->space, m->path ? m->path : &m->key, m->path ? m->path_count : 1);
    }
    const struct connection_fact *f = r->facts;
    while (f && !(str_eq(f->space, m->space) && str_eq(f->key, m->key))) {
        f = f->next;
    }
    return f && !m->path ? (struct metadata_value){ .kind = MV_TEXT, .bytes = f->value } : (struct metadata_value){ .kind = MV_NONE };
}

static bool fact_matches(const struct fact_matcher *m, const struct match_request *r)
{
    const struct metadata_value v = find_fact(m, r);
    bool hit = m->present_only ? (v.kind != MV_NONE) == m->want_present : v.kind == MV_TEXT && string_matcher_match(&m->string, v.bytes);
    return hit != m->invert;
}

static bool route_matches(const struct route *rt, const struct match_request *r, struct str path, struct str query)
{
    if (!path_matches(rt, r, path)) {
        return false;
    }
    for (size_t i = 0; i < rt->header_count; i++) {
        if (!header_matcher_match(&rt->headers[i], r)) {
            return false;
        }
    }
    for (size_t i = 0; i < rt->query_count; i++) {
        if (!query_matcher_match(&rt->queries[i], query, r->arena)) {
            return false;
        }
    }
    for (size_t i = 0; i < rt->cookie_count; i++) {
        if (!cookie_matches(&rt->cookies[i], rt->cookie_inverts[i], r->headers)) {
            return false;
        }
    }
    for (size_t i = 0; i < rt->fact_count; i++) {
        if (!fact_matches(&rt->facts[i], r)) {
            return false;
        }
    }
    return (!rt->grpc_only || is_grpc(r)) && (!rt->has_fraction || fraction_hit(rt->fraction, r->random));
}

const struct virtual_cluster *virtual_host_cluster(const struct virtual_host *vh, const struct match_request *r)
{
    for (size_t i = 0; i < vh->cluster_count; i++) {
        const struct virtual_cluster *c = &vh->clusters[i];
        size_t k = 0;
        while (k < c->header_count && header_matcher_match(&c->headers[k], r)) {
            k++;
        }
        if (k == c->header_count) {
            return c;
        }
    }
    return NULL;
}

// Path conditions see neither query nor fragment (route.v3.RouteMatch).
static struct str split_path(struct str path, struct str *ret_query)
{
    ptrdiff_t hash = str_find(path, '#');
    if (hash >= 0) {
        path.n = (size_t)hash;
    }
    ptrdiff_t at = str_find(path, '?');
    *ret_query = at >= 0 ? str_skip(path, (size_t)at + 1) : str_n(NULL, 0);
    path.n = at >= 0 ? (size_t)at : path.n;
    return path;
}

int (*config_route_match)(struct config_ctx *ctx, const void *msg, struct arena *a, struct route *ret, struct err *err);

bool route_match(const struct route *rt, const struct match_request *r)
{
    struct str query, path = split_path(r->path, &query);
    return route_matches(rt, r, path, query);
}

const struct route *virtual_host_route(const struct virtual_host *vh, const struct match_request *r)
{
    if (vh->route_count && vh->routes[0].any_path && r->path.n && r->path.p[0] == '/') {
        return &vh->routes[0]; // as nearly every virtual host of a mesh has it
    }
    struct str query, path = split_path(r->path, &query);
    for (size_t i = 0; i < vh->route_count; i++) {
        if (route_matches(&vh->routes[i], r, path, query)) {
            return &vh->routes[i];
        }
    }
    return NULL;
}

uint32_t retry_on_parse(struct str list)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } names[] = {
        { "5xx", RETRY_5XX },
        { "gateway-error", RETRY_GATEWAY_ERROR },
        { "reset", RETRY_RESET },
        { "connect-failure", RETRY_CONNECT_FAILURE },
        { "refused-stream", RETRY_REFUSED_STREAM },
        { "retriable-4xx", RETRY_RETRIABLE_4XX },
        { "retriable-status-codes", RETRY_STATUS_CODES },
        { "retriable-headers", RETRY_HEADERS },
        { "envoy-ratelimited", RETRY_ENVOY_RATELIMITED },
        { "reset-before-request", RETRY_RESET_BEFORE_REQUEST },
        { "cancelled", RETRY_GRPC_CANCELLED },
        { "deadline-exceeded", RETRY_GRPC_DEADLINE },
        { "internal", RETRY_GRPC_INTERNAL },
        { "resource-exhausted", RETRY_GRPC_EXHAUSTED },
        { "unavailable", RETRY_GRPC_UNAVAILABLE },
        { "http3-post-connect-failure", RETRY_HTTP3 },
    };
    uint32_t on = 0;
    while (list.n) {
        struct str item = str_trim(str_split(&list, ','));
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            on |= str_is(item, names[i].name) ? names[i].bit : 0;
        }
    }
    return on;
}

const struct weighted_cluster *route_pick_weighted(const struct route *rt, uint64_t random)
{
    if (rt->weighted_count == 0 || rt->total_weight == 0) {
        return NULL;
    }
    // Stirred (splitmix64), so that the choice does not depend on a fraction that the same draw has passed before.
    uint64_t z = random + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    uint64_t left = (z ^ (z >> 31)) % rt->total_weight;
    for (size_t i = 0; i < rt->weighted_count; i++) {
        if (left < rt->weighted[i].weight) {
            return &rt->weighted[i];
        }
        left -= rt->weighted[i].weight;
    }
    return &rt->weighted[rt->weighted_count - 1];
}
