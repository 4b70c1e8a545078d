// SPDX-License-Identifier: Apache-2.0
// Outbound listeners, none of which binds: 0.0.0.0_PORT for HTTP and for what has no address of its own, ADDRESS_PORT for TCP and TLS services.
#include <stdio.h>

#include "control-plane/compile_int.h"
#include "lib/net/cidr.h"

// Offers peers of a real Istio mesh the ALPN they choose their filter chain by.
#define ALPN                                                                                                                                             \
    "{name: istio.alpn, typed_config: {'@type': type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig, "                         \
    "alpn_override: [{upstream_protocol: HTTP10, alpn_override: [istio-http/1.0, istio, http/1.0]}, "                                                    \
    "{upstream_protocol: HTTP11, alpn_override: [istio-http/1.1, istio, http/1.1]}, "                                                                    \
    "{upstream_protocol: HTTP2, alpn_override: [istio-h2, istio, h2]}]}}"
// Routes say what these two do.
#define FAULT "{name: envoy.filters.http.fault, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}"
#define CORS "{name: envoy.filters.http.cors, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}"

// Filter chains of one listener while they are written.
struct chains {
    struct compiler *k;
    struct buf *b;
    struct map *taken; // what a chain matches already: the proxy refuses a listener with the same match twice
    const char *sep;
    struct buf *last; // takes the chain for every connection, where an HTTP chain is beside it: the match of chains never goes back
    bool wild;      // many services share this listener
    bool tls;       // a chain asks for a server name
    bool catch_all; // a chain takes every connection
};

static void write_tcp_policy(struct compiler *k, struct buf *b, const struct cp_service *s, struct str subset)
{
    const struct cp_destination_rule *d = s ? cpc_view(k, s)->rule : NULL;
    const struct cp_lb *lb = d ? d->policy.lb : NULL;
    if (d && d->policy.pool && d->policy.pool->tcp_idle.n) {
        buf_printf(b, ", idle_timeout: %.*s", STR_FMT(d->policy.pool->tcp_idle));
    }
    if (d && d->policy.pool && d->policy.pool->max_duration.n) {
        buf_printf(b, ", max_downstream_connection_duration: %.*s", STR_FMT(d->policy.pool->max_duration));
    }
    const struct cp_tunnel *tunnel = d ? d->policy.tunnel : NULL;
    for (size_t i = 0; d && subset.n && i < d->subset_count; i++) {
        if (str_eq(d->subsets[i].name, subset)) {
            lb = d->subsets[i].policy.lb ? d->subsets[i].policy.lb : lb;
            tunnel = d->subsets[i].policy.tunnel; // the rule's own is for connections to no subset, as in istiod
        }
    }
    if (tunnel) {
        bool v6 = str_find(tunnel->host, ':') >= 0;
        buf_printf(b, ", tunneling_config: {hostname: %s%s}", cpc_qf(k, "%s%.*s%s:%u", v6 ? "[" : "", STR_FMT(tunnel->host), v6 ? "]" : "", tunnel->port),
                   tunnel->post ? ", use_post: true" : "");
    }
    if (lb && lb->hash.key == CP_HASH_SOURCE_IP) {
        buf_printf(b, ", hash_policy: [{source_ip: {}}]");
    }
}

// The TCP proxy of a chain; v NULL: straight to the service.
static void write_proxy(struct chains *c, const struct cp_service *s, const struct cp_port *p, const struct cp_virtual_service *v,
                        const struct cp_l4_route *r)
{
    static const struct cp_destination none;
    struct compiler *k = c->k;
    const struct cp_destination *first = r ? &r->routes[0] : &none;
    const struct cp_service *to = r ? cp_find_service(k->c, first->host, v->meta.ns) : s;
    bool weighted = r && r->route_count > 1;
    struct str name = r ? cpc_destination(k, first, v->meta.ns, p->number) : cpc_cluster_name(k, p, str_n("", 0), s);
    buf_printf(c->b, "{name: envoy.filters.network.tcp_proxy, typed_config: {'@type': "
                     "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: %s",
               weighted ? cpc_qf(k, "%.*s.%.*s", STR_FMT(v->meta.name), STR_FMT(v->meta.ns)) : cpc_q(k, name));
    if (weighted) {
        const char *sep = "";
        buf_printf(c->b, ", weighted_clusters: {clusters: [");
        for (size_t i = 0; i < r->route_count; i++) {
            if (r->routes[i].weight) {
                buf_printf(c->b, "%s{name: %s, weight: %u}", sep, cpc_q(k, cpc_destination(k, &r->routes[i], v->meta.ns, p->number)),
                           r->routes[i].weight);
                sep = ", ";
            }
        }
        buf_printf(c->b, "]}");
    } else {
        buf_printf(c->b, ", cluster: %s", cpc_q(k, name));
    }
    write_tcp_policy(k, c->b, to, weighted ? str_n("", 0) : first->subset);
    cpc_access_log(k, c->b);
    buf_printf(c->b, "}}");
}

static void write_range(struct chains *c, struct str text, const char *sep)
{
    struct cidr r;
    char ip[ADDR_TEXT_MAX];
    if (cidr_parse(text, &r)) { // checked when loaded
        struct str address = text;
        address = str_split(&address, '/');
        snprintf(ip, sizeof(ip), "%.*s", STR_FMT(address));
        buf_printf(c->b, "%s{address_prefix: '%s', prefix_len: %u}", sep, ip, r.len);
    }
}

// The names and ranges of one chain, without those that an earlier chain took. false: nothing is left to match, so there is no such chain.
static bool write_chain_match(struct chains *c, const struct str *names, size_t n, const struct str *ranges, size_t m)
{
    struct str where = STR("");
    const char *sep = "";
    size_t kept = 0;
    for (size_t i = 0; i < m; i++) {
        where = arena_printf(&c->k->scratch, "%.*s,%.*s", STR_FMT(where), STR_FMT(ranges[i]));
    }
    struct buf text = { 0 };
    for (size_t i = 0; i < (n ? n : 1); i++) {
        struct str name = n && !str_is(names[i], "*") ? names[i] : STR("");
        struct str key = arena_printf(&c->k->scratch, "%.*s|%.*s", STR_FMT(name), STR_FMT(where));
        if (map_get(c->taken, key)) {
            continue;
        }
        map_put(c->taken, key, c);
        kept++;
        if (name.n) {
            buf_printf(&text, "%s%s", sep, cpc_q(c->k, name));
            sep = ", ";
            c->tls = true;
        }
    }
    if (kept) {
        buf_printf(c->b, "%s{", c->sep);
        c->sep = ", ";
        c->catch_all |= !*sep && !m;
        if (*sep || m) {
            buf_printf(c->b, "filter_chain_match: {server_names: [");
            buf_move(c->b, &text, buf_len(&text));
            buf_printf(c->b, "], prefix_ranges: [");
            for (size_t i = 0; i < m; i++) {
                write_range(c, ranges[i], i ? ", " : "");
            }
            buf_printf(c->b, "]}, ");
        }
        buf_printf(c->b, "filters: [");
    }
    buf_clear(&text);
    return kept > 0;
}

static void add_chain(struct chains *c, const struct str *names, size_t n, const struct str *ranges, size_t m, const struct cp_service *s,
                      const struct cp_port *p, const struct cp_virtual_service *v, const struct cp_l4_route *r)
{
    struct buf *b = c->b;
    const char *sep = c->sep;
    bool last = c->last && !n && !m;
    if (last) {
        c->b = c->last;
        c->sep = "";
    }
    if (write_chain_match(c, names, n, ranges, m)) {
        write_proxy(c, s, p, v, r);
        buf_printf(c->b, "]");
        if (v) {
            cpc_config_metadata(c->k, c->b, &v->meta);
        }
        buf_printf(c->b, "}");
    }
    if (last) {
        c->b = b;
        c->sep = sep;
    }
}

static bool names_host(const struct cp_virtual_service *v, const struct cp_service *s)
{
    for (size_t i = 0; i < v->host_count; i++) {
        if (cp_host_covers(v->hosts[i], s->host)) {
            return true;
        }
    }
    return false;
}

static bool l4_applies(const struct compiler *k, const struct cp_l4_match *m, uint16_t port)
{
    return (!m->port || m->port == port) && cpc_mesh_match(k, m->gateways, &m->source_labels, m->source_ns);
}

// Ranges that tell a service apart on a shared listener.
static size_t ranges_of(const struct cp_service *s, bool wild, const struct str **ret)
{
    *ret = s->addresses;
    return wild ? s->address_count : 0;
}

static void tls_chains(struct chains *c, const struct cp_service *s, const struct cp_port *p)
{
    const struct str *own;
    size_t own_count = ranges_of(s, c->wild, &own);
    bool any = false;
    for (size_t i = 0; i < c->k->vs_count; i++) {
        const struct cp_virtual_service *v = c->k->vs[i];
        for (size_t t = 0; v->tls_count && names_host(v, s) && t < v->tls_count; t++) {
            const struct cp_l4_route *r = &v->tls[t];
            for (size_t x = 0; x < r->match_count; x++) {
                const struct cp_l4_match *m = &r->matches[x];
                if (l4_applies(c->k, m, p->number)) {
                    any = true;
                    add_chain(c, m->sni, m->sni_count, m->subnet_count ? m->subnets : own, m->subnet_count ? m->subnet_count : own_count, s, p, v, r);
                }
            }
        }
    }
    if (!any) {
        add_chain(c, &s->host, c->wild ? 1 : 0, own, own_count, s, p, NULL, NULL);
    }
}

// true: this route takes all that is left.
static bool tcp_route_chains(struct chains *c, const struct cp_service *s, const struct cp_port *p, const struct cp_virtual_service *v,
                             const struct cp_l4_route *r)
{
    const struct str *own;
    size_t own_count = ranges_of(s, c->wild, &own);
    for (size_t x = 0; x < (r->match_count ? r->match_count : 1); x++) {
        const struct cp_l4_match *m = r->match_count ? &r->matches[x] : NULL;
        if (m && !l4_applies(c->k, m, p->number)) {
            continue;
        }
        if (!m || !m->subnet_count) {
            add_chain(c, NULL, 0, own, own_count, s, p, v, r);
            return true;
        }
        add_chain(c, NULL, 0, m->subnets, m->subnet_count, s, p, v, r);
    }
    return false;
}

static void tcp_chains(struct chains *c, const struct cp_service *s, const struct cp_port *p)
{
    const struct str *own;
    size_t own_count = ranges_of(s, c->wild, &own);
    for (size_t i = 0; i < c->k->vs_count; i++) {
        const struct cp_virtual_service *v = c->k->vs[i];
        for (size_t t = 0; v->tcp_count && names_host(v, s) && t < v->tcp_count; t++) {
            if (tcp_route_chains(c, s, p, v, &v->tcp[t])) {
                return;
            }
        }
    }
    add_chain(c, NULL, 0, own, own_count, s, p, NULL, NULL);
}

static void service_chains(struct chains *c, const struct cp_service *s, const struct cp_port *p)
{
    if (p->tls) {
        tls_chains(c, s, p);
    } else {
        tcp_chains(c, s, p);
    }
}

static void end_chains(struct chains *c)
{
    buf_printf(c->b, "]");
    if (c->last && buf_len(c->last)) {
        buf_printf(c->b, ", default_filter_chain: ");
        buf_move(c->b, c->last, buf_len(c->last));
    }
}

static void write_default_chain(struct compiler *k, struct buf *b)
{
    buf_printf(b, ", default_filter_chain: {name: PassthroughFilterChain, filters: [");
    cpc_tcp_proxy(k, b, cpc_passthrough(k), cpc_passthrough(k));
    buf_printf(b, "]}");
}

static void write_inspectors(struct compiler *k, struct buf *b, bool tls, bool http)
{
    if (tls || http) {
        buf_printf(b, ", listener_filters: [%s%s%s], listener_filters_timeout: %.*s, continue_on_listener_filters_timeout: true",
                   tls ? CPC_TLS_INSPECTOR : "", tls && http ? ", " : "", http ? CPC_HTTP_INSPECTOR "}" : "", STR_FMT(k->o->sniff_timeout));
    }
}

static void write_http_chain(struct compiler *k, struct buf *b, const char *name, const char *routes)
{
    buf_printf(b, "{filter_chain_match: {transport_protocol: raw_buffer, application_protocols: [http/1.1, h2c]}, filters: "
                  "[{name: envoy.filters.network.http_connection_manager, typed_config: {'@type': " CPC_HCM_URL ", stat_prefix: 'outbound_%s;', "
                  "rds: {config_source: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}, route_config_name: %s}, "
                  "use_remote_address: false, normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: KEEP_UNCHANGED, "
                  "proxy_100_continue: true, stream_idle_timeout: 0s, upgrade_configs: [{upgrade_type: websocket}], "
                  "http_filters: [" ALPN ", " FAULT ", " CORS ", " CPC_ROUTER "]",
               name, routes);
    cpc_access_log(k, b);
    buf_printf(b, "}}]}");
}

static int add_address(struct compiler *k, const struct cp_service *s, const struct cp_port *p, const struct addr *vip)
{
    struct buf b = { 0 }, last = { 0 };
    struct map taken = { 0 };
    char name[ADDR_TEXT_MAX + 8], ip[ADDR_TEXT_MAX];
    struct chains c = { .k = k, .b = &b, .taken = &taken, .sep = "" };
    snprintf(name, sizeof(name), "%s_%u", addr_ip_text(vip, ip), p->number);
    buf_printf(&b, "{name: '%s', address: {socket_address: {address: '%s', port_value: %u}}, bind_to_port: false, traffic_direction: OUTBOUND, "
                   "filter_chains: [",
               name, ip, p->number);
    if (p->sniff) {
        write_http_chain(k, &b, name, cpc_qf(k, "%.*s:%u", STR_FMT(s->host), p->number));
        c.sep = ", ";
        c.last = &last;
    }
    service_chains(&c, s, p);
    end_chains(&c);
    write_inspectors(k, &b, c.tls, p->sniff);
    buf_printf(&b, "}");
    map_fini(&taken);
    return cpc_add(k, CP_LDS, arena_printf(&k->set->arena, "%s", name), &b);
}

// 0.0.0.0_PORT: HTTP services are told apart by host, TLS services by server name, TCP services by range; the rest passes through.
static int add_wildcard(struct compiler *k, uint16_t port)
{
    struct buf b = { 0 }, last = { 0 };
    struct map taken = { 0 };
    struct chains c = { .k = k, .b = &b, .taken = &taken, .sep = "", .wild = true };
    char name[64];
    bool http = false, declared = false;
    snprintf(name, sizeof(name), "%s_%u", k->node->ip.family == AF_INET6 ? "::" : "0.0.0.0", port);
    buf_printf(&b, "{name: '%s', address: {socket_address: {address: %s, port_value: %u}}, bind_to_port: false, traffic_direction: OUTBOUND, "
                   "filter_chains: [",
               name, cpc_wildcard(k), port);
    for (int pass = 0; pass < 2; pass++) { // HTTP first
        for (size_t i = 0; i < k->c->service_count; i++) {
            const struct cp_service *s = &k->c->services[i];
            struct addr vip;
            for (size_t p = 0; p < s->port_count && k->views[i].visible; p++) {
                const struct cp_port *at = &s->ports[p];
                if (at->number != port) {
                    continue;
                }
                declared |= at->protocol == CP_HTTP;
                if (pass == 0 && (at->protocol == CP_HTTP || (at->sniff && !cpc_vip(s, &vip))) && !http) {
                    http = true;
                    write_http_chain(k, &b, name, cpc_qf(k, "%u", port));
                    c.sep = ", ";
                    c.last = &last;
                } else if (pass == 1 && at->protocol == CP_TCP && !cpc_vip(s, &vip) && (!declared || at->tls || s->address_count)) {
                    service_chains(&c, s, at); // beside HTTP, a service without name and range cannot be told apart
                }
            }
        }
    }
    end_chains(&c);
    write_inspectors(k, &b, c.tls, http);
    if (!c.catch_all) {
        write_default_chain(k, &b);
    }
    buf_printf(&b, "}");
    map_fini(&taken);
    return cpc_add(k, CP_LDS, arena_printf(&k->set->arena, "%s", name), &b);
}

int cpc_outbound_listeners(struct compiler *k)
{
    unsigned char done[65536 / 8] = { 0 };
    for (size_t i = 0; i < k->c->service_count; i++) {
        const struct cp_service *s = &k->c->services[i];
        for (size_t p = 0; p < s->port_count && k->views[i].visible; p++) {
            const struct cp_port *at = &s->ports[p];
            struct addr vip;
            if (at->protocol == CP_TCP && cpc_vip(s, &vip)) {
                if (add_address(k, s, at, &vip)) {
                    return k->err->code;
                }
                continue;
            }
            if (done[at->number / 8] & (1u << (at->number % 8))) {
                continue;
            }
            done[at->number / 8] |= (unsigned char)(1u << (at->number % 8));
            if (add_wildcard(k, at->number)) {
                return k->err->code;
            }
        }
    }
    return 0;
}
