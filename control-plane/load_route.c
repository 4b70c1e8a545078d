// SPDX-License-Identifier: Apache-2.0
// VirtualService.
#include <errno.h>
#include <string.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"
#include "lib/regex/regex.h"

// A proxy would refuse the whole route table.
static int check_regex(struct loader *l, const struct json *n, struct str text)
{
    struct err e = { 0 };
    struct regex *re = regex_new(text, &e);
    if (!re) {
        return ld_fail(l, n, "%.500s", e.msg);
    }
    regex_free(re);
    return 0;
}

static int check_mesh_only(struct loader *l, const struct json *n)
{
    struct str *gateways = NULL;
    size_t count = 0;
    if (ld_strs(l, n, "gateways", &gateways, &count)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        if (!str_is(gateways[i], "mesh")) {
            return ld_fail(l, json_get(n, "gateways"), "only \"mesh\" is supported: there are no gateways here");
        }
    }
    return 0;
}

static int load_string_match(struct loader *l, const struct json *n, struct cp_string_match *m)
{
    static const struct {
        const char *key;
        enum cp_match kind;
    } kinds[] = { { "exact", CP_EXACT }, { "prefix", CP_PREFIX }, { "regex", CP_REGEX } };
    if (ld_members(l, n, "exact prefix regex")) {
        return -EINVAL;
    }
    for (size_t i = 0; i < array_len(kinds); i++) {
        if (json_get(n, kinds[i].key)) {
            m->kind = kinds[i].kind;
            if (ld_str(l, n, kinds[i].key, &m->value)) {
                return -EINVAL;
            }
            return m->kind == CP_REGEX ? check_regex(l, json_get(n, kinds[i].key), m->value) : 0;
        }
    }
    return 0; // {}: any value, present
}

static int get_match(struct loader *l, const struct json *n, const char *key, struct cp_string_match *m)
{
    const struct json *x = json_get(n, key);
    return x ? load_string_match(l, x, m) : 0;
}

static int load_named_matches(struct loader *l, const struct json *n, const char *key, bool without, struct cp_header_match **v, size_t *count)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != JSON_OBJECT) {
        return ld_fail(l, m, "must be an object");
    }
    struct cp_header_match *nv = arena_array(l->a, struct cp_header_match, *count + m->count + 1);
    if (*count) {
        memcpy(nv, *v, *count * sizeof(**v));
    }
    *v = nv;
    for (const struct json *x = m->first; x; x = x->next) {
        struct cp_header_match *h = &nv[(*count)++];
        h->name = arena_str(l->a, x->key);
        h->without = without;
        if (load_string_match(l, x, &h->match)) {
            return -EINVAL;
        }
    }
    return 0;
}

static int load_http_match(struct loader *l, const struct json *n, struct cp_http_match *m)
{
    if (ld_members(l, n, "name uri scheme method authority headers withoutHeaders port sourceLabels queryParams ignoreUriCase gateways") ||
        get_match(l, n, "uri", &m->uri) || get_match(l, n, "method", &m->method) || get_match(l, n, "authority", &m->authority) ||
        get_match(l, n, "scheme", &m->scheme) || ld_bool(l, n, "ignoreUriCase", &m->ignore_uri_case) || ld_port(l, n, "port", &m->port) ||
        ld_labels(l, n, "sourceLabels", &m->source_labels) || load_named_matches(l, n, "headers", false, &m->headers, &m->header_count) ||
        load_named_matches(l, n, "withoutHeaders", true, &m->headers, &m->header_count) ||
        load_named_matches(l, n, "queryParams", false, &m->queries, &m->query_count) || check_mesh_only(l, n)) {
        return -EINVAL;
    }
    return 0;
}

// What route.v3.HeaderValueOption may name.
static int check_header(struct loader *l, const struct json *n, struct str name)
{
    if (name.n && name.p[0] != ':' && !str_eq_nocase(name, STR("host"))) {
        return 0;
    }
    return ld_fail(l, n, "\"%.*s\" cannot be changed this way; rewrite.authority and rewrite.uri can", STR_FMT(name));
}

static int load_changes_side(struct loader *l, const struct json *n, struct cp_header_changes *h)
{
    struct cp_labels set = { 0 }, add = { 0 };
    if (!n) {
        return 0;
    }
    if (ld_members(l, n, "set add remove") || ld_labels(l, n, "set", &set) || ld_labels(l, n, "add", &add) ||
        ld_strs(l, n, "remove", &h->remove, &h->remove_count)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < set.n + add.n; i++) {
        if (check_header(l, n, (i < set.n ? set.v[i] : add.v[i - set.n]).key)) {
            return -EINVAL;
        }
    }
    for (size_t i = 0; i < h->remove_count; i++) {
        if (check_header(l, n, h->remove[i])) {
            return -EINVAL;
        }
    }
    h->set = set.v;
    h->set_count = set.n;
    h->add = add.v;
    h->add_count = add.n;
    return 0;
}

static int load_changes(struct loader *l, const struct json *n, struct cp_header_changes *req, struct cp_header_changes *resp)
{
    const struct json *h = json_get(n, "headers");
    if (!h) {
        return 0;
    }
    return ld_members(l, h, "request response") || load_changes_side(l, json_get(h, "request"), req) ||
                   load_changes_side(l, json_get(h, "response"), resp)
               ? -EINVAL
               : 0;
}

static int load_destination(struct loader *l, const struct json *n, struct cp_destination *d)
{
    const struct json *dest = json_get(n, "destination");
    if (ld_members(l, n, "destination weight headers") || ld_u32(l, n, "weight", WEIGHT_MAX, &d->weight)) {
        return -EINVAL;
    }
    if (!dest) {
        return ld_fail(l, n, "destination: missing");
    }
    const struct json *port = json_get(dest, "port");
    if (ld_members(l, dest, "host subset port") || ld_str(l, dest, "host", &d->host) || ld_str(l, dest, "subset", &d->subset) ||
        (port && (ld_members(l, port, "number") || ld_port(l, port, "number", &d->port))) ||
        load_changes(l, n, &d->request, &d->response)) {
        return -EINVAL;
    }
    return d->host.n ? 0 : ld_fail(l, dest, "host: missing");
}

static int load_destinations(struct loader *l, const struct json *n, struct cp_destination **v, size_t *count)
{
    const struct json *m = json_get(n, "route");
    if (!m) {
        return 0;
    }
    if (m->type != JSON_ARRAY || !m->count) {
        return ld_fail(l, m, "must be a list with at least one entry");
    }
    *v = arena_array(l->a, struct cp_destination, m->count);
    uint64_t sum = 0;
    for (const struct json *x = m->first; x; x = x->next) {
        struct cp_destination *d = &(*v)[(*count)++];
        if (load_destination(l, x, d)) {
            return -EINVAL;
        }
        sum += d->weight;
    }
    if (*count == 1 && (*v)[0].weight == 0) {
        (*v)[0].weight = 100;
        sum = 100;
    }
    return sum ? 0 : ld_fail(l, m, "the sum of the weights is 0");
}

static int load_redirect(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *m = json_get(n, "redirect");
    if (!m) {
        return 0;
    }
    r->redirect = true;
    r->redirect_code = 301;
    if (ld_members(l, m, "uri authority port scheme redirectCode") || ld_str(l, m, "uri", &r->redirect_uri) ||
        ld_str(l, m, "authority", &r->redirect_authority) || ld_str(l, m, "scheme", &r->redirect_scheme) ||
        ld_port(l, m, "port", &r->redirect_port) || ld_u32(l, m, "redirectCode", 399, &r->redirect_code)) {
        return -EINVAL;
    }
    switch (r->redirect_code) {
    case 301: case 302: case 303: case 307: case 308:
        return 0;
    default:
        return ld_fail(l, json_get(m, "redirectCode"), "must be 301, 302, 303, 307 or 308");
    }
}

static int load_retries(struct loader *l, const struct json *n, struct cp_retries *r)
{
    const struct json *m = json_get(n, "retries");
    if (!m) {
        return 0;
    }
    r->set = true;
    return ld_members(l, m, "attempts perTryTimeout retryOn") || ld_u32(l, m, "attempts", 100, &r->attempts) ||
                   ld_duration(l, m, "perTryTimeout", &r->per_try_timeout) || ld_str(l, m, "retryOn", &r->retry_on)
               ? -EINVAL
               : 0;
}

static int load_rewrite(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *m = json_get(n, "rewrite");
    const struct json *d = json_get(n, "directResponse");
    if (m && (ld_members(l, m, "uri authority") || ld_str(l, m, "uri", &r->rewrite_uri) || ld_str(l, m, "authority", &r->rewrite_authority))) {
        return -EINVAL;
    }
    if (d) {
        const struct json *body = json_get(d, "body");
        if (ld_members(l, d, "status body") || ld_u32(l, d, "status", 599, &r->direct_status) ||
            (body && (ld_members(l, body, "string") || ld_str(l, body, "string", &r->direct_body)))) {
            return -EINVAL;
        }
        if (r->direct_status < 200) {
            return ld_fail(l, d, "status: must be 200 to 599");
        }
    }
    return 0;
}

static int load_http_route(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *match = json_get(n, "match");
    if (ld_members(l, n, "name match route redirect directResponse rewrite timeout retries headers") || ld_str(l, n, "name", &r->name)) {
        return -EINVAL;
    }
    if (match && match->type != JSON_ARRAY) {
        return ld_fail(l, match, "must be a list");
    }
    r->matches = arena_array(l->a, struct cp_http_match, (match ? match->count : 0) + 1);
    for (const struct json *x = match ? match->first : NULL; x; x = x->next) {
        if (load_http_match(l, x, &r->matches[r->match_count++])) {
            return -EINVAL;
        }
    }
    if (load_destinations(l, n, &r->routes, &r->route_count) || load_redirect(l, n, r) || load_rewrite(l, n, r) ||
        ld_duration(l, n, "timeout", &r->timeout) || load_retries(l, n, &r->retries) || load_changes(l, n, &r->request, &r->response)) {
        return -EINVAL;
    }
    int actions = (r->route_count > 0) + r->redirect + (r->direct_status > 0);
    return actions == 1 ? 0 : ld_fail(l, n, "exactly one of route, redirect, directResponse is needed");
}

static int load_tcp_route(struct loader *l, const struct json *n, struct cp_tcp_route *r)
{
    const struct json *match = json_get(n, "match");
    if (ld_members(l, n, "match route")) {
        return -EINVAL;
    }
    r->ports = arena_array(l->a, uint16_t, (match ? match->count : 0) + 1);
    for (const struct json *x = match ? match->first : NULL; x; x = x->next) {
        if (ld_members(l, x, "port") || ld_port(l, x, "port", &r->ports[r->port_count++])) {
            return -EINVAL;
        }
    }
    return load_destinations(l, n, &r->routes, &r->route_count) ? -EINVAL : r->route_count ? 0 : ld_fail(l, n, "route: missing");
}

int ld_virtual_service(struct loader *l, const struct json *spec)
{
    struct cp_virtual_service v = { .meta = l->meta };
    if (ld_members(l, spec, "hosts gateways http tcp exportTo") || ld_strs(l, spec, "hosts", &v.hosts, &v.host_count) ||
        check_mesh_only(l, spec)) {
        return -EINVAL;
    }
    if (!v.host_count) {
        return ld_fail(l, spec, "hosts: at least one is needed");
    }
    const struct json *http = json_get(spec, "http"), *tcp = json_get(spec, "tcp");
    if ((http && http->type != JSON_ARRAY) || (tcp && tcp->type != JSON_ARRAY)) {
        return ld_fail(l, http ? http : tcp, "must be a list");
    }
    v.http = arena_array(l->a, struct cp_http_route, (http ? http->count : 0) + 1);
    for (const struct json *n = http ? http->first : NULL; n; n = n->next) {
        if (load_http_route(l, n, &v.http[v.http_count++])) {
            return -EINVAL;
        }
    }
    v.tcp = arena_array(l->a, struct cp_tcp_route, (tcp ? tcp->count : 0) + 1);
    for (const struct json *n = tcp ? tcp->first : NULL; n; n = n->next) {
        if (load_tcp_route(l, n, &v.tcp[v.tcp_count++])) {
            return -EINVAL;
        }
    }
    *(struct cp_virtual_service *)ld_grow(l, (void **)&l->c->virtual_services, &l->c->virtual_service_count, &l->vs_cap, sizeof(v)) = v;
    return 0;
}
