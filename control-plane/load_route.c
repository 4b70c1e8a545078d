// SPDX-License-Identifier: Apache-2.0
// VirtualService.
#include <errno.h>
#include <string.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"

int ld_one_destination(struct loader *l, const struct json *dest, struct cp_destination *d)
{
    const struct json *port = NULL;
    if (ld_members(l, dest, "host subset port") || ld_str(l, dest, "host", &d->host) || ld_str(l, dest, "subset", &d->subset) ||
        ld_object(l, dest, "port", &port) || (port && (ld_members(l, port, "number") || ld_port(l, port, "number", &d->port)))) {
        return -EINVAL;
    }
    return d->host.n ? 0 : ld_fail(l, dest, "host: missing");
}

static int load_destination(struct loader *l, const struct json *n, bool http, struct cp_destination *d)
{
    const struct json *dest = NULL;
    if (ld_members(l, n, http ? "destination weight headers" : "destination weight") || ld_u32(l, n, "weight", WEIGHT_MAX, &d->weight) ||
        ld_object(l, n, "destination", &dest)) {
        return -EINVAL;
    }
    if (!dest) {
        return ld_fail(l, n, "destination: missing");
    }
    return ld_one_destination(l, dest, d) || ld_header_changes(l, n, &d->request, &d->response, NULL) ? -EINVAL : 0;
}

static int load_destinations(struct loader *l, const struct json *n, bool http, struct cp_destination **v, size_t *count)
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
        if (load_destination(l, x, http, d)) {
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

static int load_delegate(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *m = NULL;
    if (ld_object(l, n, "delegate", &m) || !m) {
        return l->err->code;
    }
    r->delegate_ns = l->meta.ns;
    if (ld_members(l, m, "name namespace") || ld_str(l, m, "name", &r->delegate) || ld_str(l, m, "namespace", &r->delegate_ns)) {
        return -EINVAL;
    }
    return r->delegate.n ? 0 : ld_fail(l, m, "name: missing");
}

static int load_http_route(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *match = NULL;
    r->line = n->line;
    if (ld_members(l, n, "name match route redirect directResponse delegate rewrite timeout retries fault mirror mirrors mirrorPercent "
                         "mirrorPercentage corsPolicy headers") ||
        ld_str(l, n, "name", &r->name) || ld_list(l, n, "match", &match)) {
        return -EINVAL;
    }
    r->matches = arena_array(l->a, struct cp_http_match, (match ? match->count : 0) + 1);
    for (const struct json *x = match ? match->first : NULL; x; x = x->next) {
        if (ld_http_match(l, x, &r->matches[r->match_count++])) {
            return -EINVAL;
        }
    }
    if (load_destinations(l, n, true, &r->routes, &r->route_count) || load_delegate(l, n, r) || ld_http_action(l, n, r)) {
        return -EINVAL;
    }
    int actions = (r->route_count > 0) + (r->redirect != NULL) + (r->direct != NULL) + (r->delegate.n > 0);
    if (actions != 1) {
        return ld_fail(l, n, "exactly one of route, redirect, directResponse, delegate is needed");
    }
    if (!r->route_count && !r->delegate.n && (r->fault || r->rewrite || r->mirror_count)) {
        return ld_fail(l, n, "fault, rewrite and mirror go with route");
    }
    return 0;
}

static int load_l4_route(struct loader *l, const struct json *n, bool tls, struct cp_l4_route *r)
{
    const struct json *match = NULL;
    if (ld_members(l, n, "match route") || ld_list(l, n, "match", &match)) {
        return -EINVAL;
    }
    if (tls && (!match || !match->count)) {
        return ld_fail(l, n, "match: missing");
    }
    r->matches = arena_array(l->a, struct cp_l4_match, (match ? match->count : 0) + 1);
    for (const struct json *x = match ? match->first : NULL; x; x = x->next) {
        if (ld_l4_match(l, x, tls, &r->matches[r->match_count++])) {
            return -EINVAL;
        }
    }
    return load_destinations(l, n, false, &r->routes, &r->route_count) ? -EINVAL : r->route_count ? 0 : ld_fail(l, n, "route: missing");
}

static int load_l4_routes(struct loader *l, const struct json *spec, const char *key, struct cp_l4_route **v, size_t *count)
{
    const struct json *list = NULL;
    if (ld_list(l, spec, key, &list)) {
        return -EINVAL;
    }
    *v = arena_array(l->a, struct cp_l4_route, (list ? list->count : 0) + 1);
    for (const struct json *n = list ? list->first : NULL; n; n = n->next) {
        if (load_l4_route(l, n, key[1] == 'l', &(*v)[(*count)++])) {
            return -EINVAL;
        }
    }
    return 0;
}

static int load_hosts(struct loader *l, const struct json *spec, struct cp_virtual_service *v)
{
    if (ld_strs(l, spec, "hosts", &v->hosts, &v->host_count)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < v->host_count; i++) {
        struct addr ip;
        if (!str_is(v->hosts[i], "*") && !addr_parse_ip(v->hosts[i], 0, &ip) && ld_host(l, json_get(spec, "hosts"), "host", v->hosts[i])) {
            return -EINVAL;
        }
        for (size_t x = 0; x < v->hosts[i].n; x++) { // host names know no case
            char *c = (char *)&v->hosts[i].p[x];
            *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
        }
    }
    return 0;
}

// A TLS route can only speak for names that the VirtualService is about.
static int check_sni(struct loader *l, const struct json *spec, const struct cp_virtual_service *v)
{
    for (size_t t = 0; t < v->tls_count; t++) {
        for (size_t m = 0; m < v->tls[t].match_count; m++) {
            const struct cp_l4_match *x = &v->tls[t].matches[m];
            for (size_t i = 0; i < x->sni_count; i++) {
                bool covered = false;
                for (size_t h = 0; h < v->host_count && !covered; h++) {
                    covered = cp_host_covers(v->hosts[h], x->sni[i]);
                }
                if (!covered) {
                    return ld_fail(l, json_get(spec, "tls"), "sniHosts: \"%.*s\" is none of this VirtualService's hosts", STR_FMT(x->sni[i]));
                }
            }
        }
    }
    return 0;
}

int ld_virtual_service(struct loader *l, const struct json *spec)
{
    struct cp_virtual_service v = { .meta = l->meta };
    const struct json *http = NULL;
    enum cp_gateways gateways = CP_GATEWAYS_UNSET;
    if (ld_members(l, spec, "hosts gateways http tls tcp exportTo") || load_hosts(l, spec, &v) || ld_gateways(l, spec, &gateways) ||
        ld_export(l, spec, &v.export) || ld_list(l, spec, "http", &http)) {
        return -EINVAL;
    }
    v.mesh = gateways != CP_GATEWAYS_OTHER;
    v.http = arena_array(l->a, struct cp_http_route, (http ? http->count : 0) + 1);
    for (const struct json *n = http ? http->first : NULL; n; n = n->next) {
        if (load_http_route(l, n, &v.http[v.http_count++])) {
            return -EINVAL;
        }
    }
    if (load_l4_routes(l, spec, "tls", &v.tls, &v.tls_count) || load_l4_routes(l, spec, "tcp", &v.tcp, &v.tcp_count)) {
        return -EINVAL;
    }
    if (check_sni(l, spec, &v)) {
        return -EINVAL;
    }
    if (!v.http_count && !v.tls_count && !v.tcp_count) {
        return ld_fail(l, spec, "http, tls or tcp is needed");
    }
    if (!v.host_count && (v.tls_count || v.tcp_count || gateways != CP_GATEWAYS_UNSET)) {
        return ld_fail(l, spec, "hosts: at least one is needed (a delegate has none, and neither gateways nor tls and tcp routes)");
    }
    *(struct cp_virtual_service *)ld_grow(l, (void **)&l->c->virtual_services, &l->c->virtual_service_count, &l->vs_cap, sizeof(v)) = v;
    return 0;
}
