// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/explain.h"

#include "lib/http/url.h"
#include "proxy/filters/network/tcp_proxy.h"
#include "proxy/http/manager.h"
#include "proxy/model/lb_criteria.h"

enum { LOST_MAX = 20, AFTER_MAX = 10 }; // candidates named in a step; the rest is counted

struct explain {
    const struct snapshot *s;
    const struct explain_request *q;
    struct http_request head;    // of q, as the connection manager has made it
    struct arena *a;
    struct json_writer *w;
    struct str result;
};

static void step(struct explain *e, const char *what, struct str name, const char *verdict, struct str why)
{
    jw_object(e->w);
    jw_kv(e->w, "step", str_c(what));
    jw_kv(e->w, "name", name);
    jw_kv(e->w, "verdict", str_c(verdict));
    jw_kv(e->w, "why", why);
    jw_object_end(e->w);
}

static void taken(struct explain *e, const char *what, struct str name, struct str why)
{
    step(e, what, name, "taken", why);
}

static void lost(struct explain *e, const char *what, struct str name, struct str why)
{
    step(e, what, name, "lost", why);
}

static void rest(struct explain *e, const char *what, size_t n, const char *why)
{
    if (n) {
        step(e, what, arena_printf(e->a, "%zu more", n), "lost", str_c(why));
    }
}

// ---- listener ----

static bool has_port(const struct listener_cfg *l, uint16_t port)
{
    for (size_t i = 0; i < l->address_count; i++) {
        if (l->addresses[i].port == port) {
            return true;
        }
    }
    return false;
}

static bool is_wildcard(const struct listener_cfg *l)
{
    return l->address_count && addr_is_any(&l->addresses[0]);
}

static const struct http_manager_cfg *http_of(const struct filter_chain *c)
{
    const struct ext *x = c && c->filter_count ? &c->filters[c->filter_count - 1] : NULL;
    return x && str_is(str_c(x->ops->name), "envoy.filters.network.http_connection_manager") ? x->cfg : NULL;
}

static const struct route_table *table_of(const struct explain *e, const struct http_manager_cfg *h)
{
    return !h ? NULL : h->rds_name.n ? snapshot_route(e->s, h->rds_name) : h->inline_routes;
}

// A listener of an address whose name only DNS knows: the one that has the host among its virtual hosts, other than by "*".
static bool knows_host(const struct explain *e, const struct listener_cfg *l)
{
    for (size_t i = 0; i < l->chain_count; i++) {
        const struct route_table *t = table_of(e, http_of(l->all_chains[i]));
        const struct virtual_host *v = t ? route_table_vhost(t, e->q->head.host) : NULL;
        for (size_t k = 0; v && k < v->domain_count; k++) {
            if (!str_is(v->domains[k], "*")) {
                return true;
            }
        }
    }
    return false;
}

static const struct listener_cfg *pick_listener(const struct explain *e, struct str *ret_why)
{
    const struct explain_request *q = e->q;
    const struct listener_cfg *wild = NULL, *known = NULL, *first = NULL, *redirect = NULL;
    if (q->dst.family && !q->listener.n) {
        const struct listener_cfg *l = snapshot_virtual_listener(e->s, &q->dst);
        if (l) {
            *ret_why = STR("it is the listener of the original destination");
            return l;
        }
    }
    for (size_t i = 0; i < e->s->listener_count; i++) {
        const struct listener_cfg *l = e->s->listeners[i];
        if (q->listener.n) {
            if (str_eq(l->name, q->listener)) {
                *ret_why = STR("asked for by name");
                return l;
            }
            continue;
        }
        redirect = l->use_original_dst && l->direction != DIRECTION_INBOUND && !redirect ? l : redirect;
        if (has_port(l, q->port) && l->direction != DIRECTION_INBOUND) {
            known = !known && knows_host(e, l) ? l : known;
            wild = !wild && is_wildcard(l) ? l : wild;
            first = first ? first : l;
        }
    }
    *ret_why = known   ? STR("its port, and its routes know the host")
               : wild  ? STR("wildcard listener of the port")
               : first ? STR("it has the port")
                       : STR("no listener has the port: what is redirected stays there");
    return known ? known : wild ? wild : first ? first : redirect;
}

static const struct listener_cfg *explain_listener(struct explain *e)
{
    struct str why = str_n(NULL, 0);
    const struct listener_cfg *l = pick_listener(e, &why);
    if (!l) {
        step(e, "listener", STR("-"), "note", STR("no listener takes this; the connection would be refused or go past the proxy"));
        e->result = STR("no listener");
        return NULL;
    }
    taken(e, "listener", l->name, why);
    size_t others = 0, named = 0;
    for (size_t i = 0; i < e->s->listener_count; i++) {
        const struct listener_cfg *o = e->s->listeners[i];
        if (o == l) {
            continue;
        }
        if (has_port(o, e->q->port) && named++ < LOST_MAX) {
            lost(e, "listener", o->name, o->direction == DIRECTION_INBOUND ? STR("same port, for inbound traffic")
                                                                           : STR("same port, another address"));
        } else {
            others++;
        }
    }
    rest(e, "listener", others, "another port");
    return l;
}

// ---- chain ----

static const struct filter_chain *explain_chain(struct explain *e, const struct listener_cfg *l)
{
    static const struct str http[] = { { .p = "http/1.1", .n = 8 } };
    struct chain_input in = { .destination = e->q->dst, .source = e->q->source, .transport_protocol = e->q->tls ? STR("tls") : STR("raw_buffer"),
                              .server_name = e->q->tls ? e->q->head.host : str_n(NULL, 0), .application_protocols = e->q->tls ? NULL : http,
                              .application_protocol_count = e->q->tls ? 0 : 1 };
    if (!in.destination.family) {
        in.destination = l->address_count ? l->addresses[0] : in.destination;
        in.destination.port = e->q->port;
    }
    const struct filter_chain *c = l->chains ? chain_matcher_find(l->chains, &in) : NULL;
    bool fallback = !c && l->default_chain;
    c = c ? c : l->default_chain;
    if (!c) {
        step(e, "chain", STR("-"), "note", STR("no filter chain fits: the connection would be closed (NR)"));
        e->result = STR("closed: no filter chain");
        return NULL;
    }
    taken(e, "chain", c->name.n ? c->name : STR("(unnamed)"), fallback ? STR("default filter chain: no other fits")
                                                                      : STR("most specific filter_chain_match that fits"));
    for (size_t i = 0; i < l->chain_count && i < LOST_MAX; i++) {
        const struct filter_chain *o = l->all_chains[i];
        if (o != c) {
            lost(e, "chain", o->name.n ? o->name : STR("(unnamed)"), o == l->default_chain ? STR("only when no other fits")
                                                                                           : STR("does not fit, or is less specific"));
        }
    }
    rest(e, "chain", l->chain_count > LOST_MAX ? l->chain_count - LOST_MAX : 0, "not listed");
    return c;
}

// ---- virtual host ----

// How a domain covers the host: 4 exact, 3 suffix, 2 prefix, 1 any, 0 not.
static int covers(struct str domain, struct str host)
{
    if (str_is(domain, "*")) {
        return 1;
    }
    if (str_eq_nocase(domain, host)) {
        return 4;
    }
    size_t n = domain.n - 1;
    if (domain.n > 1 && domain.p[0] == '*' && host.n > n) {
        return str_eq_nocase(str_skip(host, host.n - n), str_skip(domain, 1)) ? 3 : 0;
    }
    if (domain.n > 1 && domain.p[n] == '*' && host.n > n) {
        return str_eq_nocase(str_n(host.p, n), str_n(domain.p, n)) ? 2 : 0;
    }
    return 0;
}

static struct str bare_host(struct str host)
{
    ptrdiff_t colon = str_find(host, ':');
    return colon > 0 && host.p[0] != '[' ? str_n(host.p, (size_t)colon) : host;
}

static struct str covering(const struct virtual_host *v, struct str host, int *ret_kind)
{
    struct str best = str_n(NULL, 0);
    *ret_kind = 0;
    for (size_t i = 0; i < v->domain_count; i++) {
        int k = covers(v->domains[i], host);
        if (k > *ret_kind || (k && k == *ret_kind && v->domains[i].n > best.n)) {
            *ret_kind = k;
            best = v->domains[i];
        }
    }
    return best;
}

static const struct virtual_host *explain_vhost(struct explain *e, const struct route_table *t)
{
    const struct virtual_host *v = route_table_vhost(t, e->head.host);
    struct str host = t->ignore_port ? bare_host(e->head.host) : e->head.host;
    if (!v) {
        step(e, "virtual host", STR("-"), "note", arena_printf(e->a, "none of %zu has a domain for \"%.*s\": 404 (NR)", t->vhost_count, STR_FMT(host)));
        e->result = STR("404: no virtual host");
        return NULL;
    }
    int kind;
    struct str d = covering(v, host, &kind);
    taken(e, "virtual host", v->name, arena_printf(e->a, "domain \"%.*s\" covers \"%.*s\"", STR_FMT(d), STR_FMT(host)));
    size_t others = 0, named = 0;
    for (size_t i = 0; i < t->vhost_count; i++) {
        const struct virtual_host *o = &t->vhosts[i];
        if (o == v) {
            continue;
        }
        d = covering(o, host, &kind);
        if (kind && named++ < LOST_MAX) {
            lost(e, "virtual host", o->name, arena_printf(e->a, "domain \"%.*s\" covers it too, and is less specific", STR_FMT(d)));
        } else {
            others++;
        }
    }
    rest(e, "virtual host", others, "no domain covers the host");
    return v;
}

// ---- route ----

static struct match_request request_of(const struct explain *e, uint64_t random)
{
    const struct http_request *r = &e->head;
    return (struct match_request){ .method = r->method, .path = r->path, .authority = r->host, .scheme = r->scheme, .headers = &r->headers,
                                   .random = random, .arena = e->a };
}

static bool fits(const struct route *rt, const struct match_request *m)
{
    const struct virtual_host one = { .routes = (struct route *)(uintptr_t)rt, .route_count = 1 };
    return virtual_host_route(&one, m) != NULL;
}

// The first condition that does not hold; empty when all do.
static struct str why_not(const struct explain *e, const struct route *rt)
{
    static const char *const kinds[] = { "begin with", "be", "match", "be or be below", "be a CONNECT to", "match the template" };
    const struct match_request m = request_of(e, 0);
    struct route bare = *rt;
    bare.header_count = bare.query_count = bare.cookie_count = 0;
    bare.has_fraction = bare.grpc_only = false;
    if (!fits(&bare, &m)) {
        return arena_printf(e->a, "the path must %s %.*s%s", kinds[rt->path_kind], STR_FMT(rt->path),
                            rt->case_sensitive ? "" : " (any case)");
    }
    for (size_t i = 0; i < rt->header_count; i++) {
        if (!header_matcher_match(&rt->headers[i], &m)) {
            return arena_printf(e->a, "the condition on header %.*s does not hold", STR_FMT(rt->headers[i].name));
        }
    }
    bare.queries = rt->queries;
    bare.query_count = rt->query_count;
    if (!fits(&bare, &m)) {
        return STR("a condition on the query does not hold");
    }
    bare.cookies = rt->cookies;
    bare.cookie_inverts = rt->cookie_inverts;
    bare.cookie_count = rt->cookie_count;
    if (!fits(&bare, &m)) {
        return STR("a condition on a cookie does not hold");
    }
    bare.grpc_only = rt->grpc_only;
    if (!fits(&bare, &m)) {
        return STR("only gRPC requests");
    }
    if (rt->has_fraction && rt->fraction.numerator == 0) {
        return STR("takes none of the requests (runtime_fraction 0)");
    }
    return str_n(NULL, 0);
}

static struct str route_name(const struct explain *e, const struct virtual_host *v, const struct route *rt)
{
    size_t i = (size_t)(rt - v->routes);
    return rt->name.n ? arena_printf(e->a, "[%zu] %.*s", i, STR_FMT(rt->name)) : arena_printf(e->a, "[%zu]", i);
}

static const struct route *explain_route(struct explain *e, const struct virtual_host *v)
{
    for (size_t i = 0; i < v->route_count; i++) {
        const struct route *rt = &v->routes[i];
        struct str why = why_not(e, rt);
        if (why.n) {
            if (i < LOST_MAX) {
                lost(e, "route", route_name(e, v, rt), why);
            }
            continue;
        }
        if (rt->has_fraction && rt->fraction.numerator < rt->fraction.denominator) {
            step(e, "route", route_name(e, v, rt), "note",
                 arena_printf(e->a, "all conditions hold, and chance gives it %u of %u requests; this one goes on", rt->fraction.numerator,
                              rt->fraction.denominator));
            continue;
        }
        taken(e, "route", route_name(e, v, rt), STR("the first route whose conditions all hold"));
        for (size_t k = i + 1, n = 0; k < v->route_count && n < AFTER_MAX; k++, n++) {
            bool also = !why_not(e, &v->routes[k]).n;
            lost(e, "route", route_name(e, v, &v->routes[k]), also ? STR("would fit too, but comes later") : STR("comes later, and does not fit"));
        }
        return rt;
    }
    step(e, "route", STR("-"), "note", STR("no route's conditions hold: 404 (NR)"));
    e->result = STR("404: no route");
    return NULL;
}

// ---- cluster, subset, endpoint ----

static bool in_subset(const struct endpoint *p, const struct subset_key *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool hit = false;
        for (size_t k = 0; p->more && k < p->more->lb_metadata_count && !hit; k++) {
            hit = str_eq(p->more->lb_metadata[k].key, v[i].key) && str_eq(p->more->lb_metadata[k].value, v[i].value);
        }
        if (!hit) {
            return false;
        }
    }
    return true;
}

static struct str unusable(const struct endpoint *p)
{
    static const char *const eds[] = { "", "", "unhealthy in EDS", "draining", "timed out in EDS", "" };
    unsigned f = atomic_load_explicit(&p->host->flags, memory_order_relaxed);
    return f & HOST_FAILED_OUTLIER     ? STR("ejected by outlier detection")
           : f & HOST_FAILED_ACTIVE_HC ? STR("failed its health check")
           : f & HOST_FAILED_EDS       ? STR("unhealthy in EDS")
           : f                         ? STR("not usable")
           : p->eds_health < 6         ? str_c(eds[p->eds_health])
                                       : str_n(NULL, 0);
}

static void explain_endpoints(struct explain *e, const struct cluster_snap *cs, const struct subset_key *subset, size_t n)
{
    static const char *const policies[] = { "round robin", "least request", "ring hash", "random", "Maglev", "the cluster itself" };
    const struct endpoint_set *set = cs->endpoints;
    bool subsets = n && cs->cfg->subset.enabled;
    if (cs->cfg->type == CLUSTER_ORIGINAL_DST) {
        taken(e, "endpoint", STR("original destination"), STR("the cluster connects to the address that the client meant"));
        return;
    }
    uint32_t best = UINT32_MAX;
    size_t usable = 0;
    for (size_t i = 0; i < set->count; i++) {
        const struct endpoint *p = &set->v[i];
        if ((!subsets || in_subset(p, subset, n)) && !unusable(p).n && p->priority <= best) {
            usable = p->priority < best ? 1 : usable + 1;
            best = p->priority;
        }
    }
    if (!usable) {
        step(e, "endpoint", STR("-"), "note", set->count ? STR("none is usable: 503 (UH), or any of them when the panic threshold says so")
                                                        : STR("the cluster has none: 503 (UH)"));
    }
    for (size_t i = 0; i < set->count && i < LOST_MAX * 2; i++) {
        const struct endpoint *p = &set->v[i];
        struct str name = str_c(p->host->text), why = unusable(p);
        if (subsets && !in_subset(p, subset, n)) {
            lost(e, "endpoint", name, STR("not in the subset"));
        } else if (why.n) {
            lost(e, "endpoint", name, why);
        } else if (p->priority > best) {
            lost(e, "endpoint", name, arena_printf(e->a, "priority %u; %u has usable ones", p->priority, best));
        } else {
            taken(e, "endpoint", name, arena_printf(e->a, "one of %zu by %s", usable, policies[cs->cfg->lb]));
        }
    }
    rest(e, "endpoint", set->count > LOST_MAX * 2 ? set->count - LOST_MAX * 2 : 0, "not listed");
}

static void explain_cluster(struct explain *e, struct str name, struct str why, const struct subset_key *subset, size_t n)
{
    const struct cluster_snap *cs = name.n ? snapshot_cluster(e->s, name) : NULL;
    if (!cs) {
        step(e, "cluster", name.n ? name : STR("-"), "note", STR("there is no such cluster: 503 (NC), or the route's cluster_not_found_response_code"));
        e->result = arena_printf(e->a, "no cluster \"%.*s\"", STR_FMT(name));
        return;
    }
    taken(e, "cluster", name, why);
    for (size_t i = 0; i < n; i++) {
        taken(e, "subset", arena_printf(e->a, "%.*s=%.*s", STR_FMT(subset[i].key), STR_FMT(subset[i].value)),
              cs->cfg->subset.enabled ? STR("metadata_match of the route") : STR("asked for, but the cluster has no subsets: all endpoints"));
    }
    ptrdiff_t bar = str_find(name, '|');
    if (bar >= 0) { // istiod's "outbound|9080|v2|reviews.default.svc.cluster.local"
        struct str left = name;
        (void)str_split(&left, '|');
        (void)str_split(&left, '|');
        struct str sub = str_split(&left, '|');
        if (sub.n) {
            taken(e, "subset", sub, STR("in the cluster's name: a subset of the DestinationRule"));
        }
    }
    explain_endpoints(e, cs, subset, n);
    e->result = arena_printf(e->a, "cluster %.*s", STR_FMT(name));
}

static void explain_weighted(struct explain *e, const struct route *rt)
{
    const struct weighted_cluster *best = &rt->weighted[0];
    for (size_t i = 1; i < rt->weighted_count; i++) {
        best = rt->weighted[i].weight > best->weight ? &rt->weighted[i] : best;
    }
    for (size_t i = 0; i < rt->weighted_count; i++) {
        const struct weighted_cluster *c = &rt->weighted[i];
        if (c != best) {
            step(e, "cluster", c->name.n ? c->name : c->cluster_header, c->weight ? "note" : "lost",
                 arena_printf(e->a, "weight %u of %llu: chance decides", c->weight, (unsigned long long)rt->total_weight));
        }
    }
    struct str name = best->name.n ? best->name : headers_value(&e->head.headers, best->cluster_header);
    explain_cluster(e, name, arena_printf(e->a, "weight %u of %llu, the heaviest: chance decides", best->weight, (unsigned long long)rt->total_weight),
                    best->subset, best->subset_count);
}

static void explain_action(struct explain *e, const struct route *rt)
{
    if (rt->kind == ROUTE_REDIRECT) {
        taken(e, "action", STR("redirect"), arena_printf(e->a, "the route answers %d itself", rt->redirect_status));
        e->result = arena_printf(e->a, "%d: redirect", rt->redirect_status);
    } else if (rt->kind == ROUTE_DIRECT) {
        taken(e, "action", STR("direct response"), arena_printf(e->a, "the route answers %d itself", rt->direct_status));
        e->result = arena_printf(e->a, "%d: direct response", rt->direct_status);
    } else if (rt->weighted_count) {
        explain_weighted(e, rt);
    } else if (rt->cluster_header.n) {
        explain_cluster(e, headers_value(&e->head.headers, rt->cluster_header),
                        arena_printf(e->a, "named by header %.*s", STR_FMT(rt->cluster_header)), rt->subset, rt->subset_count);
    } else {
        explain_cluster(e, rt->cluster, STR("the route's cluster"), rt->subset, rt->subset_count);
    }
    for (size_t i = 0; i < rt->mirror_count; i++) {
        const struct mirror *m = &rt->mirrors[i];
        step(e, "mirror", m->cluster.n ? m->cluster : m->cluster_header, "note",
             arena_printf(e->a, "gets a copy of %u of %u requests", m->fraction.numerator, m->fraction.denominator));
    }
}

static void explain_tcp(struct explain *e, const struct filter_chain *c)
{
    const struct ext *x = c->filter_count ? &c->filters[c->filter_count - 1] : NULL;
    if (!x || !str_is(str_c(x->ops->name), "envoy.filters.network.tcp_proxy")) {
        step(e, "action", x ? str_c(x->ops->name) : STR("-"), "note", STR("neither HTTP nor TCP proxy"));
        return;
    }
    const struct tcp_proxy_cfg *t = x->cfg;
    step(e, "action", STR("TCP proxy"), "note", STR("this chain does not look at HTTP"));
    explain_cluster(e, t->weighted_count ? t->weighted[0].name : t->cluster,
                    t->weighted_count ? STR("the first of the weighted clusters: chance decides") : STR("the TCP proxy's cluster"), t->subset,
                    t->subset_count);
}

// Path and host as the connection manager makes them before it looks for a route. False: it answers by itself.
static bool explain_prepare(struct explain *e, const struct http_manager_cfg *h)
{
    struct http_request *q = &e->head;
    struct str path = q->path, host = q->host;
    q->path = arena_str(e->a, path); // changed in place
    enum path_verdict v = request_path_prepare(q, h);
    request_host_prepare(q, h, e->q->port);
    if (v != PATH_OK) {
        step(e, "path", q->path, "note", v == PATH_REFUSED ? STR("normalisation refuses it: 400") : STR("normalisation answers with a redirect there: 307"));
        e->result = v == PATH_REFUSED ? STR("400: path refused") : STR("307: path normalised");
        return false;
    }
    if (!str_eq(path, q->path)) {
        step(e, "path", q->path, "note", STR("as normalize_path, merge_slashes and path_with_escaped_slashes_action make it"));
    }
    if (!str_eq(host, q->host)) {
        step(e, "host", q->host, "note", STR("as strip_any_host_port and its like make it"));
    }
    return true;
}

static void explain_http(struct explain *e, const struct http_manager_cfg *h)
{
    if (!explain_prepare(e, h)) {
        return;
    }
    const struct route_table *t = table_of(e, h);
    if (!t) {
        step(e, "routes", h->rds_name, "note", STR("the route configuration has not come yet: 404 (NR)"));
        e->result = STR("404: no route configuration");
        return;
    }
    taken(e, "routes", h->rds_name.n ? h->rds_name : t->name.n ? t->name : STR("(inline)"),
          h->rds_name.n ? STR("route configuration of the HTTP connection manager (RDS)") : STR("inline in the listener"));
    const struct virtual_host *v = explain_vhost(e, t);
    const struct route *rt = v ? explain_route(e, v) : NULL;
    if (rt) {
        explain_action(e, rt);
    }
}

void explain_write(const struct snapshot *s, const struct explain_request *q, struct arena *scratch, struct json_writer *w)
{
    struct explain e = { .s = s, .q = q, .head = q->head, .a = scratch, .w = w, .result = STR("-") };
    jw_object(w);
    jw_kv(w, "request", arena_printf(scratch, "%.*s %.*s://%.*s%.*s", STR_FMT(q->head.method), STR_FMT(q->head.scheme),
                                     STR_FMT(q->head.host), STR_FMT(q->head.path)));
    jw_key(w, STR("steps"));
    jw_array(w);
    const struct listener_cfg *l = explain_listener(&e);
    const struct filter_chain *c = l ? explain_chain(&e, l) : NULL;
    const struct http_manager_cfg *h = http_of(c);
    if (h) {
        explain_http(&e, h);
    } else if (c) {
        explain_tcp(&e, c);
    }
    jw_array_end(w);
    jw_kv(w, "result", e.result);
    jw_object_end(w);
}

// ---- the admin page ----

// "http://host:port/path?query", without its scheme too.
static bool take_url(struct str url, struct explain_request *q, struct arena *a)
{
    struct str rest = url;
    q->head.scheme = STR("http");
    if (str_starts(url, STR("https://"))) {
        q->head.scheme = STR("https");
        rest = str_skip(url, 8);
    } else if (str_starts(url, STR("http://"))) {
        rest = str_skip(url, 7);
    }
    q->tls = q->head.scheme.n == 5;
    size_t n = 0;
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?') {
        n++;
    }
    q->head.host = str_n(rest.p, n);
    struct str path = str_skip(rest, n), name;
    q->head.path = path.n && path.p[0] == '/' ? path : arena_printf(a, "/%.*s", STR_FMT(path));
    if (!n || !url_split_authority(q->head.host, &name, &q->port)) {
        return false;
    }
    q->port = q->port ? q->port : q->tls ? 443 : 80;
    struct addr literal;
    if (addr_parse_ip(name, q->port, &literal)) {
        q->dst = literal;
    }
    return true;
}

static bool take_header(struct str line, struct explain_request *q)
{
    ptrdiff_t colon = str_find(line, ':');
    if (colon <= 0) {
        return false;
    }
    struct str name = str_trim(str_n(line.p, (size_t)colon)), value = str_trim(str_skip(line, (size_t)colon + 1));
    if (str_eq_nocase(name, STR("host"))) {
        q->head.host = value;
    } else {
        headers_add(&q->head.headers, name, value);
    }
    return name.n > 0;
}

static bool take_address(struct str text, uint16_t port, struct addr *ret)
{
    return !text.n || addr_parse(text, ret) || addr_parse_ip(text, port, ret);
}

static const char *take_query(struct http_server_req *hq, struct explain_request *q)
{
    struct str method = http_query_get(hq->query, "method", hq->arena), url = http_query_get(hq->query, "url", hq->arena);
    headers_init(&q->head.headers, hq->arena);
    q->head.method = method.n ? method : STR("GET");
    q->head.version = HTTP_11;
    q->listener = http_query_get(hq->query, "listener", hq->arena);
    (void)addr_parse_ip(STR("127.0.0.1"), 0, &q->source);
    if (!url.n || !take_url(url, q, hq->arena)) {
        return "url: give it as url=http://host:port/path\n";
    }
    if (!take_address(http_query_get(hq->query, "dst", hq->arena), q->port, &q->dst) ||
        !take_address(http_query_get(hq->query, "source", hq->arena), 0, &q->source)) {
        return "dst, source: an IP address is wanted, with or without port\n";
    }
    struct str rest = hq->query;
    while (rest.n) { // header may be there several times
        struct str pair = str_split(&rest, '&');
        if (str_starts(pair, STR("header=")) && !take_header(http_query_get(pair, "header", hq->arena), q)) {
            return "header: \"name: value\" is wanted\n";
        }
    }
    return NULL;
}

void explain_page(const struct snapshot *s, struct http_server_req *hq, struct http_server_resp *r)
{
    struct explain_request q = { 0 };
    const char *bad = take_query(hq, &q);
    if (bad || !s) {
        r->status = bad ? 400 : 503;
        buf_append_str(&r->body, str_c(bad ? bad : "there is no configuration yet\n"));
        return;
    }
    struct json_writer w;
    r->content_type = "application/json";
    jw_init(&w, &r->body, 1);
    explain_write(s, &q, hq->arena, &w);
    buf_append_str(&r->body, STR("\n"));
}
