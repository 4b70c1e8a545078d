// SPDX-License-Identifier: Apache-2.0
// Route configurations: one per HTTP port, named by the port; a virtual host per service, then allow_any or block_all.
#include <stdio.h>
#include <string.h>

#include "control-plane/compile_int.h"
#include "lib/base/map.h"

static void write_matcher(struct compiler *k, struct buf *b, const struct cp_string_match *m, bool ignore_case)
{
    static const char *const names[] = { [CP_EXACT] = "exact", [CP_PREFIX] = "prefix" };
    if (m->kind == CP_REGEX) {
        buf_printf(b, "string_match: {safe_regex: {regex: %s}}", cpc_q(k, m->value));
    } else {
        buf_printf(b, "string_match: {%s: %s%s}", names[m->kind], cpc_q(k, m->value), ignore_case ? ", ignore_case: true" : "");
    }
}

static void write_pseudo(struct compiler *k, struct buf *b, const char *name, const struct cp_string_match *m, const char **sep)
{
    if (m->kind != CP_ANY) {
        buf_printf(b, "%s{name: '%s', ", *sep, name);
        write_matcher(k, b, m, false);
        buf_printf(b, "}");
        *sep = ", ";
    }
}

static void write_path(struct compiler *k, struct buf *b, const struct cp_http_match *m)
{
    if (m->uri.kind == CP_EXACT) {
        buf_printf(b, "path: %s", cpc_q(k, m->uri.value));
    } else if (m->uri.kind == CP_REGEX) {
        buf_printf(b, "safe_regex: {regex: %s}", cpc_q(k, m->uri.value));
    } else {
        buf_printf(b, "prefix: %s", m->uri.kind == CP_PREFIX ? cpc_q(k, m->uri.value) : "/");
    }
    buf_printf(b, ", case_sensitive: %s", m->ignore_uri_case ? "false" : "true");
}

static void write_match(struct compiler *k, struct buf *b, const struct cp_http_match *m)
{
    const char *sep = "";
    buf_printf(b, "match: {");
    write_path(k, b, m);
    buf_printf(b, ", headers: [");
    for (size_t i = 0; i < m->header_count; i++) {
        const struct cp_header_match *h = &m->headers[i];
        buf_printf(b, "%s{name: %s, ", sep, cpc_q(k, h->name));
        if (h->match.kind == CP_ANY) {
            buf_printf(b, "present_match: true");
        } else {
            write_matcher(k, b, &h->match, false);
        }
        buf_printf(b, "%s}", h->without ? ", invert_match: true" : "");
        sep = ", ";
    }
    write_pseudo(k, b, ":method", &m->method, &sep);
    write_pseudo(k, b, ":authority", &m->authority, &sep);
    write_pseudo(k, b, ":scheme", &m->scheme, &sep);
    buf_printf(b, "], query_parameters: [");
    for (size_t i = 0; i < m->query_count; i++) {
        buf_printf(b, "%s{name: %s, ", i ? ", " : "", cpc_q(k, m->queries[i].name));
        if (m->queries[i].match.kind == CP_ANY) {
            buf_printf(b, "present_match: true");
        } else {
            write_matcher(k, b, &m->queries[i].match, false);
        }
        buf_printf(b, "}");
    }
    buf_printf(b, "]}");
}

static void write_header_list(struct compiler *k, struct buf *b, const struct cp_label *v, size_t n, bool overwrite, const char **sep)
{
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s{header: {key: %s, value: %s}%s}", *sep, cpc_q(k, v[i].key), cpc_q(k, v[i].value),
                   overwrite ? ", append_action: OVERWRITE_IF_EXISTS_OR_ADD" : "");
        *sep = ", ";
    }
}

// The changes of one level, or of a route and its only destination together (more may be NULL).
static void write_changes(struct compiler *k, struct buf *b, const struct cp_header_changes *h, const struct cp_header_changes *more,
                          const char *side)
{
    static const struct cp_header_changes none;
    const struct cp_header_changes *both[] = { h, more ? more : &none };
    const char *sep = "";
    buf_printf(b, ", %s_headers_to_add: [", side);
    for (int i = 0; i < 2; i++) {
        write_header_list(k, b, both[i]->set, both[i]->set_count, true, &sep);
        write_header_list(k, b, both[i]->add, both[i]->add_count, false, &sep);
    }
    buf_printf(b, "], %s_headers_to_remove: [", side);
    sep = "";
    for (int i = 0; i < 2; i++) {
        for (size_t x = 0; x < both[i]->remove_count; x++) {
            buf_printf(b, "%s%s", sep, cpc_q(k, both[i]->remove[x]));
            sep = ", ";
        }
    }
    buf_printf(b, "]");
}

static bool retries_status(struct str on)
{
    while (on.n) {
        struct str one = str_trim(str_split(&on, ','));
        uint64_t v;
        if (str_to_u64(one, 599, &v)) {
            return true;
        }
    }
    return false;
}

// Istio's default where the VirtualService is silent; attempts 0 means none.
static void write_retry(struct compiler *k, struct buf *b, const struct cp_retries *r)
{
    if (r->set && !r->attempts) {
        return;
    }
    struct str on = r->retry_on.n ? r->retry_on : STR("connect-failure,refused-stream,unavailable,cancelled");
    buf_printf(b, ", retry_policy: {num_retries: %u, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: "
                  "{'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], "
                  "host_selection_retry_max_attempts: 5",
               r->set ? r->attempts : 2);
    if (r->per_try_timeout.n) {
        buf_printf(b, ", per_try_timeout: %.*s", STR_FMT(r->per_try_timeout));
    }
    if (retries_status(on)) {
        struct str rest = on;
        const char *sep = "";
        buf_printf(b, ", retriable_status_codes: [");
        while (rest.n) {
            uint64_t v;
            if (str_to_u64(str_trim(str_split(&rest, ',')), 599, &v)) {
                buf_printf(b, "%s%llu", sep, (unsigned long long)v);
                sep = ", ";
            }
        }
        buf_printf(b, "]");
        on = arena_printf(&k->scratch, "%.*s,retriable-status-codes", STR_FMT(on));
    }
    buf_printf(b, ", retry_on: %s}", cpc_q(k, on));
}

static const struct cp_port *port_of(const struct cp_service *s, uint16_t want, uint16_t asked)
{
    for (size_t i = 0; i < s->port_count; i++) {
        if (s->ports[i].number == (want ? want : asked)) {
            return &s->ports[i];
        }
    }
    return s->port_count == 1 ? &s->ports[0] : NULL;
}

// A destination's cluster name; a port that the service does not have leads to a cluster that does not exist, as in Istio (503 NC).
static struct str destination(struct compiler *k, const struct cp_destination *d, struct str ns, uint16_t port)
{
    const struct cp_service *s = cp_find_service(k->c, d->host, ns);
    const struct cp_port *p = s ? port_of(s, d->port, port) : NULL;
    return p ? cpc_cluster_name(k, p, d->subset, s)
             : arena_printf(&k->scratch, "outbound|%u|%.*s|%.*s", d->port ? d->port : port, STR_FMT(d->subset), STR_FMT(d->host));
}

static void write_clusters(struct compiler *k, struct buf *b, const struct cp_http_route *r, struct str ns, uint16_t port)
{
    if (r->route_count == 1) {
        buf_printf(b, "cluster: %s", cpc_q(k, destination(k, &r->routes[0], ns, port)));
        return;
    }
    const char *sep = "";
    buf_printf(b, "weighted_clusters: {clusters: [");
    for (size_t i = 0; i < r->route_count; i++) {
        if (r->routes[i].weight) {
            buf_printf(b, "%s{name: %s, weight: %u", sep, cpc_q(k, destination(k, &r->routes[i], ns, port)), r->routes[i].weight);
            write_changes(k, b, &r->routes[i].request, NULL, "request");
            write_changes(k, b, &r->routes[i].response, NULL, "response");
            buf_printf(b, "}");
            sep = ", ";
        }
    }
    buf_printf(b, "]}");
}

static void write_forward(struct compiler *k, struct buf *b, const struct cp_http_route *r, struct str ns, uint16_t port)
{
    struct str timeout = r->timeout.n ? r->timeout : STR("0s");
    buf_printf(b, "route: {");
    write_clusters(k, b, r, ns, port);
    buf_printf(b, ", timeout: %.*s, max_grpc_timeout: %.*s", STR_FMT(timeout), STR_FMT(timeout));
    if (r->rewrite_uri.n) {
        buf_printf(b, ", prefix_rewrite: %s", cpc_q(k, r->rewrite_uri));
    }
    if (r->rewrite_authority.n) {
        buf_printf(b, ", host_rewrite_literal: %s", cpc_q(k, r->rewrite_authority));
    }
    write_retry(k, b, &r->retries);
    buf_printf(b, "}");
}

static void write_redirect(struct compiler *k, struct buf *b, const struct cp_http_route *r)
{
    static const struct {
        uint32_t code;
        const char *name;
    } codes[] = { { 301, "MOVED_PERMANENTLY" }, { 302, "FOUND" }, { 303, "SEE_OTHER" }, { 307, "TEMPORARY_REDIRECT" }, { 308, "PERMANENT_REDIRECT" } };
    const char *code = codes[0].name;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        code = codes[i].code == r->redirect_code ? codes[i].name : code;
    }
    buf_printf(b, "redirect: {response_code: %s", code);
    if (r->redirect_uri.n) {
        buf_printf(b, ", path_redirect: %s", cpc_q(k, r->redirect_uri));
    }
    if (r->redirect_authority.n) {
        buf_printf(b, ", host_redirect: %s", cpc_q(k, r->redirect_authority));
    }
    if (r->redirect_scheme.n) {
        buf_printf(b, ", scheme_redirect: %s", cpc_q(k, r->redirect_scheme));
    }
    if (r->redirect_port) {
        buf_printf(b, ", port_redirect: %u", r->redirect_port);
    }
    buf_printf(b, "}");
}

static void write_action(struct compiler *k, struct buf *b, const struct cp_http_route *r, const struct cp_virtual_service *v, uint16_t port)
{
    if (r->redirect) {
        write_redirect(k, b, r);
    } else if (r->direct_status) {
        buf_printf(b, "direct_response: {status: %u, body: {inline_string: %s}}", r->direct_status, cpc_q(k, r->direct_body));
    } else {
        write_forward(k, b, r, v->meta.ns, port);
    }
    // one destination is a plain cluster: its header changes stand on the route
    const struct cp_destination *only = r->route_count == 1 ? &r->routes[0] : NULL;
    write_changes(k, b, &r->request, only ? &only->request : NULL, "request");
    write_changes(k, b, &r->response, only ? &only->response : NULL, "response");
    buf_printf(b, ", metadata: {filter_metadata: {istio: {config: %s}}}",
               cpc_qf(k, "/apis/networking.istio.io/v1/namespaces/%.*s/virtual-service/%.*s", STR_FMT(v->meta.ns), STR_FMT(v->meta.name)));
}

static bool applies(const struct compiler *k, const struct cp_http_match *m, uint16_t port)
{
    return (!m->port || m->port == port) && cp_labels_match(&m->source_labels, &k->node->labels);
}

static void write_vs_routes(struct compiler *k, struct buf *b, const struct cp_virtual_service *v, const struct cp_service *s, uint16_t port)
{
    static const struct cp_http_match any;
    const char *sep = "";
    for (size_t i = 0; i < v->http_count; i++) {
        const struct cp_http_route *r = &v->http[i];
        for (size_t m = 0; m < (r->match_count ? r->match_count : 1); m++) {
            const struct cp_http_match *match = r->match_count ? &r->matches[m] : &any;
            if (!applies(k, match, port)) {
                continue;
            }
            buf_printf(b, "%s{name: %s, ", sep, r->name.n ? cpc_q(k, r->name) : "default");
            write_match(k, b, match);
            buf_printf(b, ", ");
            write_action(k, b, r, v, port);
            buf_printf(b, ", decorator: {operation: %s}}", cpc_qf(k, "%.*s:%u/*", STR_FMT(s->host), port));
            sep = ", ";
        }
    }
}

static void write_default_route(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p)
{
    static const struct cp_retries unset;
    buf_printf(b, "{name: default, match: {prefix: /}, route: {cluster: %s, timeout: 0s, max_grpc_timeout: 0s",
               cpc_q(k, cpc_cluster_name(k, p, str_n("", 0), s)));
    write_retry(k, b, &unset);
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

static void write_vhost(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p, struct map *taken)
{
    const struct cp_virtual_service *v = s->http;
    buf_printf(b, "{name: %s, domains: [", cpc_qf(k, "%.*s:%u", STR_FMT(s->host), p->number));
    write_domains(k, b, s, taken);
    buf_printf(b, "], include_request_attempt_count: true, routes: [");
    if (v) {
        write_vs_routes(k, b, v, s, p->number);
    } else {
        write_default_route(k, b, s, p);
    }
    buf_printf(b, "]}, ");
}

static const struct cp_port *http_port(const struct cp_service *s, uint16_t port)
{
    for (size_t p = 0; p < s->port_count; p++) {
        if (s->ports[p].number == port && s->ports[p].protocol == CP_HTTP) {
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
            if (p && pass) {
                write_vhost(k, &b, s, p, &taken);
            } else if (p) {
                map_put(&taken, lower(k, s->host), (void *)s);
            }
        }
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

int cpc_routes(struct compiler *k)
{
    unsigned char seen[65536 / 8] = { 0 };
    for (size_t i = 0; i < k->c->service_count; i++) {
        for (size_t p = 0; p < k->c->services[i].port_count; p++) {
            const struct cp_port *port = &k->c->services[i].ports[p];
            if (port->protocol != CP_HTTP || (seen[port->number / 8] & (1u << (port->number % 8)))) {
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
