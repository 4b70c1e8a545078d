// SPDX-License-Identifier: Apache-2.0
// Delegates: a VirtualService without hosts holds the routes of one path of another one. Its routes take the place of the root's route,
// narrowed by the root's match.
#include <errno.h>
#include <string.h>

#include "control-plane/load_int.h"

static const struct cp_virtual_service *find(const struct loader *l, struct str name, struct str ns)
{
    for (size_t i = 0; i < l->c->virtual_service_count; i++) {
        const struct cp_virtual_service *v = &l->c->virtual_services[i];
        if (str_eq(v->meta.name, name) && str_eq(v->meta.ns, ns)) {
            return v;
        }
    }
    return NULL;
}

// The root's condition must hold for all that the delegate's lets through; otherwise the pair is dropped, as Istio does.
static bool conflict(const struct cp_string_match *root, const struct cp_string_match *leaf)
{
    if (root->kind == CP_UNSET || leaf->kind == CP_UNSET) {
        return false;
    }
    if (root->kind == CP_EXACT) {
        return leaf->kind != CP_EXACT || !str_eq(root->value, leaf->value);
    }
    if (root->kind == CP_PREFIX) {
        return (leaf->kind != CP_EXACT && leaf->kind != CP_PREFIX) || !str_starts(leaf->value, root->value);
    }
    return true;
}

static const struct cp_header_match *find_header(const struct cp_header_match *v, size_t n, const struct cp_header_match *like)
{
    for (size_t i = 0; i < n; i++) {
        if (str_eq(v[i].name, like->name) && v[i].without == like->without) {
            return &v[i];
        }
    }
    return NULL;
}

static bool headers_conflict(const struct cp_header_match *root, size_t n, const struct cp_header_match *leaf, size_t m)
{
    for (size_t i = 0; i < m; i++) {
        const struct cp_header_match *r = find_header(root, n, &leaf[i]);
        if (r && conflict(&r->match, &leaf[i].match)) {
            return true;
        }
    }
    return false;
}

static bool labels_conflict(const struct cp_labels *root, const struct cp_labels *leaf)
{
    for (size_t i = 0; i < leaf->n; i++) {
        for (size_t k = 0; k < root->n; k++) {
            if (str_eq(root->v[k].key, leaf->v[i].key) && !str_eq(root->v[k].value, leaf->v[i].value)) {
                return true;
            }
        }
    }
    return false;
}

static bool matches_conflict(const struct cp_http_match *r, const struct cp_http_match *m)
{
    return conflict(&r->uri, &m->uri) || conflict(&r->scheme, &m->scheme) || conflict(&r->method, &m->method) ||
           conflict(&r->authority, &m->authority) || headers_conflict(r->headers, r->header_count, m->headers, m->header_count) ||
           headers_conflict(r->queries, r->query_count, m->queries, m->query_count) || r->ignore_uri_case != m->ignore_uri_case ||
           (r->port && m->port && r->port != m->port) || (r->source_ns.n && !str_eq(r->source_ns, m->source_ns)) ||
           labels_conflict(&r->source_labels, &m->source_labels) || (r->gateways && m->gateways && r->gateways != m->gateways);
}

// Those of both; the leaf's win.
static void merge_headers(struct loader *l, const struct cp_header_match *root, size_t n, struct cp_header_match **v, size_t *count)
{
    struct cp_header_match *out = arena_array(l->a, struct cp_header_match, n + *count + 1);
    size_t k = *count;
    if (k) {
        memcpy(out, *v, k * sizeof(*out));
    }
    for (size_t i = 0; i < n; i++) {
        if (!find_header(*v, *count, &root[i])) {
            out[k++] = root[i];
        }
    }
    *v = out;
    *count = k;
}

static struct str join_names(struct loader *l, struct str root, struct str leaf)
{
    return !leaf.n ? root : !root.n ? leaf : arena_printf(l->a, "%.*s-%.*s", STR_FMT(root), STR_FMT(leaf));
}

static struct cp_http_match merge_match(struct loader *l, const struct cp_http_match *root, const struct cp_http_match *leaf)
{
    struct cp_http_match m = *leaf;
    m.name = join_names(l, root->name, leaf->name);
    m.uri = m.uri.kind ? m.uri : root->uri;
    m.scheme = m.scheme.kind ? m.scheme : root->scheme;
    m.method = m.method.kind ? m.method : root->method;
    m.authority = m.authority.kind ? m.authority : root->authority;
    m.port = m.port ? m.port : root->port;
    m.source_ns = m.source_ns.n ? m.source_ns : root->source_ns;
    m.gateways = m.gateways ? m.gateways : root->gateways;
    m.stat_prefix = m.stat_prefix.n ? m.stat_prefix : root->stat_prefix;
    merge_headers(l, root->headers, root->header_count, &m.headers, &m.header_count);
    merge_headers(l, root->queries, root->query_count, &m.queries, &m.query_count);
    struct cp_labels both = { .v = arena_array(l->a, struct cp_label, root->source_labels.n + leaf->source_labels.n + 1) };
    for (size_t i = 0; i < leaf->source_labels.n; i++) {
        both.v[both.n++] = leaf->source_labels.v[i];
    }
    for (size_t i = 0; i < root->source_labels.n; i++) { // the same key twice has the same value here
        both.v[both.n++] = root->source_labels.v[i];
    }
    m.source_labels = both;
    return m;
}

// false: the two exclude each other.
static bool merge_matches(struct loader *l, const struct cp_http_route *root, struct cp_http_route *r)
{
    const struct cp_http_match *leaf = r->matches;
    size_t n = r->match_count;
    if (!root->match_count) {
        return true;
    }
    if (!n) {
        r->matches = root->matches;
        r->match_count = root->match_count;
        return true;
    }
    r->matches = arena_array(l->a, struct cp_http_match, root->match_count * n);
    r->match_count = 0;
    for (size_t i = 0; i < n; i++) {
        bool found = false;
        for (size_t k = 0; k < root->match_count; k++) {
            if (!matches_conflict(&root->matches[k], &leaf[i])) {
                r->matches[r->match_count++] = merge_match(l, &root->matches[k], &leaf[i]);
                found = true;
            }
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

// The root's settings hold where the delegate says nothing.
static void inherit(struct loader *l, const struct cp_http_route *root, struct cp_http_route *r)
{
    r->name = join_names(l, root->name, r->name);
    r->rewrite = r->rewrite ? r->rewrite : root->rewrite;
    r->timeout = r->timeout.n ? r->timeout : root->timeout;
    r->retries = r->retries.set ? r->retries : root->retries;
    r->fault = r->fault ? r->fault : root->fault;
    r->cors = r->cors ? r->cors : root->cors;
    if (!r->mirror_count) {
        r->mirrors = root->mirrors;
        r->mirror_count = root->mirror_count;
    }
    if (!r->has_headers) {
        r->has_headers = root->has_headers;
        r->request = root->request;
        r->response = root->response;
    }
}

static int delegate_of(struct loader *l, const struct cp_virtual_service *v, const struct cp_http_route *r,
                       const struct cp_virtual_service **ret)
{
    const struct json at = { .line = r->line };
    const struct cp_virtual_service *d = find(l, r->delegate, r->delegate_ns);
    l->file = v->meta.file;
    if (!d || !cp_exported(&d->export, d->meta.ns, v->meta.ns)) {
        return ld_fail(l, &at, "VirtualService %.*s: delegate %.*s/%.*s is no VirtualService that is known here", STR_FMT(v->meta.name),
                       STR_FMT(r->delegate_ns), STR_FMT(r->delegate));
    }
    if (d->host_count) {
        return ld_fail(l, &at, "VirtualService %.*s: delegate %.*s has hosts of its own (%s:%d)", STR_FMT(v->meta.name), STR_FMT(r->delegate),
                       d->meta.file, d->meta.line);
    }
    for (size_t i = 0; i < d->http_count; i++) {
        if (d->http[i].delegate.n) {
            return ld_fail(l, &at, "VirtualService %.*s: delegate %.*s delegates again, which is not possible", STR_FMT(v->meta.name),
                           STR_FMT(r->delegate));
        }
    }
    *ret = d;
    return 0;
}

// Names in a delegate's routes are those of its own namespace.
static void own_names(struct loader *l, struct cp_http_route *r, struct str ns)
{
    struct cp_destination *to = arena_array(l->a, struct cp_destination, r->route_count + 1);
    for (size_t i = 0; i < r->route_count; i++) {
        to[i] = r->routes[i];
        const struct cp_service *s = cp_find_service(l->c, to[i].host, ns);
        to[i].host = s ? s->host : ld_full_name(l, to[i].host, ns);
    }
    r->routes = to;
    struct cp_mirror *m = arena_array(l->a, struct cp_mirror, r->mirror_count + 1);
    for (size_t i = 0; i < r->mirror_count; i++) {
        m[i] = r->mirrors[i];
        const struct cp_service *s = cp_find_service(l->c, m[i].to.host, ns);
        m[i].to.host = s ? s->host : ld_full_name(l, m[i].to.host, ns);
    }
    r->mirrors = m;
}

static int expand(struct loader *l, struct cp_virtual_service *v)
{
    struct cp_http_route *out = NULL;
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < v->http_count; i++) {
        const struct cp_http_route *r = &v->http[i];
        const struct cp_virtual_service *d = NULL;
        if (!r->delegate.n) {
            *(struct cp_http_route *)ld_grow(l, (void **)&out, &n, &cap, sizeof(*r)) = *r;
            continue;
        }
        if (delegate_of(l, v, r, &d)) {
            return -EINVAL;
        }
        for (size_t k = 0; k < d->http_count; k++) {
            struct cp_http_route x = d->http[k];
            own_names(l, &x, d->meta.ns);
            if (merge_matches(l, r, &x)) {
                inherit(l, r, &x);
                *(struct cp_http_route *)ld_grow(l, (void **)&out, &n, &cap, sizeof(x)) = x;
            }
        }
    }
    v->http = out;
    v->http_count = n;
    return 0;
}

int ld_delegates(struct loader *l)
{
    for (size_t i = 0; i < l->c->virtual_service_count; i++) {
        struct cp_virtual_service *v = &l->c->virtual_services[i];
        bool root = false;
        for (size_t k = 0; k < v->http_count && v->host_count; k++) {
            root |= v->http[k].delegate.n > 0;
        }
        if (root && expand(l, v)) {
            return -EINVAL;
        }
    }
    return 0;
}
