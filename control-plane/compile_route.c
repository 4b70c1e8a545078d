// SPDX-License-Identifier: Apache-2.0
// Route configurations: one per HTTP port, named by the port; a virtual host per service and per further host of a VirtualService, then
// allow_any or block_all.
#include <stdio.h>
#include <string.h>

#include "control-plane/compile_int.h"
#include "lib/base/map.h"

// Nothing behind this route can be reached.
static bool catches_all(const struct cp_http_match *m)
{
    if (!m) {
        return true;
    }
    bool any_path = m->uri.kind <= CP_PRESENT || (m->uri.kind == CP_PREFIX && str_is(m->uri.value, "/")) ||
                    (m->uri.kind == CP_REGEX && str_is(m->uri.value, ".*"));
    return any_path && !m->header_count && !m->query_count && m->method.kind == CP_UNSET && m->authority.kind == CP_UNSET &&
           m->scheme.kind == CP_UNSET;
}

static bool applies(const struct compiler *k, const struct cp_http_match *m, uint16_t port)
{
    if (!m) {
        return true;
    }
    if (m->port && m->port != port) {
        return false;
    }
    // HTTPMatchRequest: where gateways are named, labels and namespace do not count
    return m->gateways ? m->gateways == CP_GATEWAYS_MESH : cpc_mesh_match(k, m->gateways, &m->source_labels, m->source_ns);
}

// The routes of v that hold for this proxy and port, up to the first that catches all. Returns their number; b may be NULL to only count.
static size_t write_vs_routes(struct compiler *k, struct buf *b, const struct cp_virtual_service *v, uint16_t port)
{
    size_t n = 0;
    for (size_t i = 0; i < v->http_count; i++) {
        const struct cp_http_route *r = &v->http[i];
        for (size_t m = 0; m < (r->match_count ? r->match_count : 1); m++) {
            const struct cp_http_match *match = r->match_count ? &r->matches[m] : NULL;
            if (!applies(k, match, port)) {
                continue;
            }
            if (b) {
                buf_printf(b, "%s", n ? ", " : "");
                cpc_http_route(k, b, v, r, match, port);
            }
            n++;
            if (catches_all(match)) {
                return n;
            }
        }
    }
    return n;
}

static void write_default_route(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p)
{
    static const struct cp_retries unset;
    const struct cp_hash *h = cpc_hash(k, s, str_n("", 0), p->number);
    buf_printf(b, "{name: default, match: {prefix: /}, route: {cluster: %s, timeout: 0s, max_grpc_timeout: 0s",
               cpc_q(k, cpc_cluster_name(k, p, str_n("", 0), s)));
    cpc_retry(k, b, &unset, false);
    if (h) {
        buf_printf(b, ", hash_policy: [");
        cpc_hash_policy(k, b, h);
        buf_printf(b, "]");
    }
    buf_printf(b, "}, decorator: {operation: %s}}", cpc_qf(k, "%.*s:%u/*", STR_FMT(s->host), p->number));
}

// Host names know no case.
static struct str lower(struct compiler *k, struct str s)
{
    struct str low = arena_str(&k->scratch, s);
    for (size_t i = 0; i < low.n; i++) {
        ((char *)low.p)[i] = low.p[i] >= 'A' && low.p[i] <= 'Z' ? (char)(low.p[i] | 0x20) : low.p[i];
    }
    return low;
}

// One domain of a virtual host, unless another service of this port has it: the whole route configuration would be refused.
static void write_domain(struct compiler *k, struct buf *b, const struct cp_service *s, struct map *taken, struct str domain)
{
    struct str key = lower(k, domain);
    if (!map_get(taken, key)) {
        map_put(taken, key, (void *)s);
        buf_printf(b, ", %s", cpc_q(k, domain));
    }
}

// The host itself (taken beforehand), FQDN with a trailing dot, the short forms as seen from the node's namespace, and the addresses.
static void write_domains(struct compiler *k, struct buf *b, const struct cp_service *s, struct map *taken)
{
    struct arena *a = &k->scratch;
    buf_printf(b, "%s", cpc_q(k, s->host));
    write_domain(k, b, s, taken, arena_printf(a, "%.*s.", STR_FMT(s->host)));
    struct str suffix = arena_printf(&k->scratch, ".%.*s.svc.cluster.local", STR_FMT(s->meta.ns));
    if (str_ends(s->host, suffix) && s->host.n > suffix.n) {
        struct str name = str_n(s->host.p, s->host.n - suffix.n);
        if (str_eq(s->meta.ns, k->node->ns)) {
            write_domain(k, b, s, taken, name);
        }
        write_domain(k, b, s, taken, arena_printf(a, "%.*s.%.*s.svc", STR_FMT(name), STR_FMT(s->meta.ns)));
        write_domain(k, b, s, taken, arena_printf(a, "%.*s.%.*s", STR_FMT(name), STR_FMT(s->meta.ns)));
    }
    for (size_t i = 0; i < s->address_count; i++) {
        struct addr ip;
        char text[ADDR_TEXT_MAX];
        if (addr_parse_ip(s->addresses[i], 0, &ip)) {
            addr_ip_text(&ip, text);
            write_domain(k, b, s, taken, arena_printf(a, ip.family == AF_INET6 ? "[%s]" : "%s", text));
        }
    }
}

// The VirtualService of a host on one port: the closest name wins, then the first in Istio's order. One that has no route for this port and
// proxy does not count. NULL: none.
static const struct cp_virtual_service *vs_for(struct compiler *k, struct str host, uint16_t port)
{
    for (struct str key = host; key.n; key = cp_wider_host(&k->scratch, key)) {
        for (const struct cpc_vs_ref *r = map_get(&k->vs_by_host, key); r; r = r->next) {
            if (r->v->http_count && write_vs_routes(k, NULL, r->v, port)) {
                return r->v;
            }
        }
    }
    return NULL;
}

static void write_vhost(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p, struct map *taken)
{
    const struct cp_virtual_service *v = k->vs_count ? vs_for(k, s->host, p->number) : NULL;
    buf_printf(b, "{name: %s, domains: [", cpc_qf(k, "%.*s:%u", STR_FMT(s->host), p->number));
    write_domains(k, b, s, taken);
    buf_printf(b, "], include_request_attempt_count: true, routes: [");
    if (v) {
        write_vs_routes(k, b, v, p->number);
    } else {
        write_default_route(k, b, s, p);
    }
    buf_printf(b, "]}, ");
}

static const struct cp_port *http_port(const struct cp_service *s, uint16_t port);

// pattern covers a service that has this HTTP port.
static bool covers_port(const struct compiler *k, struct str pattern, uint16_t port)
{
    if (pattern.p[0] != '*') {
        size_t at = (size_t)(uintptr_t)map_get(&k->c->by_host, pattern);
        return at && k->views[at - 1].visible && http_port(&k->c->services[at - 1], port);
    }
    for (size_t i = 0; i < k->c->service_count; i++) {
        if (k->views[i].visible && cp_host_covers(pattern, k->c->services[i].host) && http_port(&k->c->services[i], port)) {
            return true;
        }
    }
    return false;
}

// A VirtualService can name hosts that are no service of a port. They are served on the ports of its other hosts, or on 80 when it has none.
static bool serves_port(const struct compiler *k, const struct cp_virtual_service *v, uint16_t port)
{
    for (size_t i = 0; i < v->host_count; i++) {
        if (covers_port(k, v->hosts[i], port)) {
            return true;
        }
    }
    return port == 80;
}

// Those hosts come before the short names and addresses of services.
static void claim_further_hosts(struct compiler *k, const struct cp_virtual_service *v, uint16_t port, struct map *taken)
{
    for (size_t i = 0; i < v->host_count && v->http_count; i++) {
        struct str host = v->hosts[i];
        if (!map_get(taken, host) && !covers_port(k, host, port) && !str_is(host, "*") && serves_port(k, v, port) &&
            write_vs_routes(k, NULL, v, port)) {
            map_put(taken, host, (void *)v);
        }
    }
}

static void write_further_hosts(struct compiler *k, struct buf *b, const struct cp_virtual_service *v, uint16_t port, const struct map *taken)
{
    for (size_t i = 0; i < v->host_count; i++) {
        struct str host = v->hosts[i];
        if (map_get(taken, host) != v) {
            continue;
        }
        struct addr ip;
        bool v6 = addr_parse_ip(host, 0, &ip) && ip.family == AF_INET6;
        buf_printf(b, "{name: %s, domains: [%s], include_request_attempt_count: true, routes: [", cpc_qf(k, "%.*s:%u", STR_FMT(host), port),
                   v6 ? cpc_qf(k, "[%.*s]", STR_FMT(host)) : cpc_q(k, host));
        write_vs_routes(k, b, v, port);
        buf_printf(b, "]}, ");
    }
}

// Its requests come to 0.0.0.0_PORT.
static bool on_shared_listener(const struct cp_service *s, const struct cp_port *p)
{
    struct addr vip;
    return p->protocol == CP_HTTP || (p->sniff && !cpc_vip(s, &vip));
}

static const struct cp_port *http_port(const struct cp_service *s, uint16_t port)
{
    for (size_t p = 0; p < s->port_count; p++) {
        if (s->ports[p].number == port && on_shared_listener(s, &s->ports[p])) {
            return &s->ports[p];
        }
    }
    return NULL;
}

static int add_port(struct compiler *k, uint16_t port)
{
    struct buf b = { 0 };
    char name[8];
    snprintf(name, sizeof(name), "%u", port);
    buf_printf(&b, "{name: '%u', validate_clusters: false, ignore_port_in_host_matching: true, max_direct_response_body_size_bytes: 1048576, "
                   "virtual_hosts: [",
               port);
    struct map taken = { 0 };
    for (int pass = 0; pass < 2; pass++) { // real hosts before short forms of others
        for (size_t i = 0; i < k->c->service_count; i++) {
            const struct cp_service *s = &k->c->services[i];
            const struct cp_port *p = http_port(s, port);
            if (!k->views[i].visible) {
                continue;
            }
            if (p && pass) {
                write_vhost(k, &b, s, p, &taken);
            } else if (p) {
                map_put(&taken, lower(k, s->host), (void *)s);
            }
        }
        for (size_t i = 0; !pass && i < k->vs_count; i++) {
            claim_further_hosts(k, k->vs[i], port, &taken);
        }
    }
    for (size_t i = 0; i < k->vs_count; i++) {
        write_further_hosts(k, &b, k->vs[i], port, &taken);
    }
    map_fini(&taken);
    if (k->o->registry_only) {
        buf_printf(&b, "{name: block_all, domains: ['*'], routes: [{name: block_all, match: {prefix: /}, direct_response: {status: 502}}]}]}");
    } else {
        buf_printf(&b, "{name: allow_any, domains: ['*'], include_request_attempt_count: true, routes: [{name: allow_any, match: {prefix: /}, "
                       "route: {cluster: PassthroughCluster, timeout: 0s, max_grpc_timeout: 0s}}]}]}");
    }
    return cpc_add(k, CP_RDS, str_c(name), &b);
}

// Of a listener that one service has for itself.
static int add_own(struct compiler *k, const struct cp_service *s, const struct cp_port *p)
{
    struct buf b = { 0 };
    const struct cp_virtual_service *v = k->vs_count ? vs_for(k, s->host, p->number) : NULL;
    struct str name = arena_printf(&k->set->arena, "%.*s:%u", STR_FMT(s->host), p->number);
    buf_printf(&b, "{name: %s, validate_clusters: false, ignore_port_in_host_matching: true, max_direct_response_body_size_bytes: 1048576, "
                   "virtual_hosts: [{name: %s, domains: ['*'], include_request_attempt_count: true, routes: [",
               cpc_q(k, name), cpc_q(k, name));
    if (v) {
        write_vs_routes(k, &b, v, p->number);
    } else {
        write_default_route(k, &b, s, p);
    }
    buf_printf(&b, "]}]}");
    return cpc_add(k, CP_RDS, name, &b);
}

int cpc_routes(struct compiler *k)
{
    unsigned char seen[65536 / 8] = { 0 };
    for (size_t i = 0; i < k->c->service_count; i++) {
        for (size_t p = 0; p < k->c->services[i].port_count; p++) {
            const struct cp_port *port = &k->c->services[i].ports[p];
            if (k->views[i].visible && port->sniff && !on_shared_listener(&k->c->services[i], port) && add_own(k, &k->c->services[i], port)) {
                return k->err->code;
            }
            if (!k->views[i].visible || !on_shared_listener(&k->c->services[i], port) || (seen[port->number / 8] & (1u << (port->number % 8)))) {
                continue;
            }
            seen[port->number / 8] |= (unsigned char)(1u << (port->number % 8));
            if (add_port(k, port->number)) {
                return k->err->code;
            }
        }
    }
    return 0;
}
