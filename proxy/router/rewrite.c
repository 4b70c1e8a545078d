// SPDX-License-Identifier: Apache-2.0
// What a route does to host and path, and the addresses of redirects.
#include "lib/http/url.h"
#include "lib/regex/regex.h"
#include "proxy/router/internal.h"

// pq with its first n bytes replaced.
static struct str replace_front(struct str pq, size_t n, struct str with, struct arena *a)
{
    return arena_printf(a, "%.*s%.*s", STR_FMT(with), STR_FMT(str_skip(pq, n)));
}

// Bytes of pq that the route's match covers: what prefix_rewrite replaces.
static size_t matched_bytes(const struct route *rt, struct str pq)
{
    switch (rt->path_kind) {
    case PATH_PREFIX:
    case PATH_SEPARATED_PREFIX:
        return rt->path.n <= pq.n ? rt->path.n : pq.n;
    default: { // the whole path, without its query
        ptrdiff_t q = str_find(pq, '?');
        return q >= 0 ? (size_t)q : pq.n;
    }
    }
}

static struct str rewrite_path(const struct route *rt, struct str pq, struct arena *a)
{
    if (rt->has_prefix_rewrite) {
        return replace_front(pq, matched_bytes(rt, pq), rt->prefix_rewrite, a);
    }
    if (rt->rewrite_re) { // the query takes no part (route.v3.RouteAction.regex_rewrite)
        ptrdiff_t q = str_find(pq, '?');
        struct str path = q >= 0 ? str_n(pq.p, (size_t)q) : pq, out;
        if (regex_replace_all(rt->rewrite_re, path, rt->rewrite_sub, a, &out)) {
            return arena_printf(a, "%.*s%.*s", STR_FMT(out), STR_FMT(str_skip(pq, path.n)));
        }
    }
    return pq;
}

static struct str without_query(struct str pq)
{
    ptrdiff_t q = str_find(pq, '?');
    return q >= 0 ? str_n(pq.p, (size_t)q) : pq;
}

void route_set_host(struct router *r, struct str host)
{
    struct headers *h = &r->req->headers;
    if (r->route->append_x_forwarded_host && !str_eq(host, r->req->host)) {
        struct str old = headers_value_id(h, HDR_X_FORWARDED_HOST);
        headers_set_id(h, HDR_X_FORWARDED_HOST,
                       old.n ? arena_printf(r->arena, "%.*s,%.*s", STR_FMT(old), STR_FMT(r->req->host)) : r->req->host);
    }
    if (!r->cfg->suppress_envoy_headers) {
        headers_set(h, STR("x-envoy-original-host"), r->req->host);
    }
    r->req->host = host;
}

void route_rewrite(struct router *r)
{
    const struct route *rt = r->route;
    if (r->weighted && r->weighted->host_rewrite.n) {
        r->req->host = r->weighted->host_rewrite; // without a trace, as Envoy does
    }
    if (rt->host_rewrite_re) {
        struct str path = without_query(r->req->path), out;
        if (regex_replace_all(rt->host_rewrite_re, path, rt->host_rewrite_sub, r->arena, &out)) {
            route_set_host(r, out);
        }
    } else if (rt->host_rewrite.n) {
        route_set_host(r, rt->host_rewrite);
    } else if (rt->host_rewrite_header.n) {
        struct str v = headers_value(&r->req->headers, rt->host_rewrite_header);
        if (v.n) {
            route_set_host(r, v);
        }
    }
    if ((!rt->has_prefix_rewrite && !rt->rewrite_re) || !r->req->path.n) { // CONNECT has no path
        return;
    }
    struct str path = rewrite_path(rt, r->req->path, r->arena);
    if (!path.n || path.p[0] != '/') {
        path = arena_printf(r->arena, "/%.*s", STR_FMT(path)); // a rewrite to nothing, or without its slash
    }
    if (!r->cfg->suppress_envoy_headers) {
        headers_set_id(&r->req->headers, HDR_X_ENVOY_ORIGINAL_PATH, r->req->path);
    }
    r->req->path = path;
}

// ---- redirects (route.v3.RedirectAction) ----

static struct str without_port(struct str host)
{
    size_t i = host.n;
    while (i > 0 && host.p[i - 1] >= '0' && host.p[i - 1] <= '9') {
        i--;
    }
    return i > 0 && i < host.n && host.p[i - 1] == ':' ? str_n(host.p, i - 1) : host;
}

static struct str redirect_to_path(const struct route *rt, struct str pq, struct arena *a)
{
    struct str query = str_skip(pq, without_query(pq).n);
    if (rt->redirect_strip_query) {
        query.n = 0;
    }
    if (rt->redirect_path.n) {
        bool own = str_find(rt->redirect_path, '?') >= 0; // brings its query along
        return own ? rt->redirect_path : arena_printf(a, "%.*s%.*s", STR_FMT(rt->redirect_path), STR_FMT(query));
    }
    struct str path = without_query(pq);
    if (rt->redirect_prefix.n) {
        path = replace_front(path, matched_bytes(rt, path), rt->redirect_prefix, a);
    } else if (rt->rewrite_re) {
        path = rewrite_path(rt, path, a);
    }
    return arena_printf(a, "%.*s%.*s", STR_FMT(path), STR_FMT(query));
}

struct str redirect_location(const struct route *rt, const struct http_request *req, struct arena *a)
{
    struct str scheme = rt->redirect_scheme.n ? rt->redirect_scheme : rt->redirect_https ? STR("https") : req->scheme;
    struct str host = rt->redirect_host.n ? rt->redirect_host : req->host;
    if (rt->redirect_port) {
        host = arena_printf(a, "%.*s:%u", STR_FMT(without_port(host)), rt->redirect_port);
    } else if (!rt->redirect_host.n && !str_eq(scheme, req->scheme)) {
        // http://h:80 to https must not name port 80, and the other way round.
        if ((str_is(req->scheme, "http") && str_ends(host, STR(":80"))) ||
            (str_is(req->scheme, "https") && str_ends(host, STR(":443")))) {
            host = without_port(host);
        }
    }
    struct str path = redirect_to_path(rt, req->path, a);
    return arena_printf(a, "%.*s://%.*s%.*s", STR_FMT(scheme), STR_FMT(host), STR_FMT(path));
}
