// SPDX-License-Identifier: Apache-2.0
// ServiceEntry, WorkloadEntry.
#include <errno.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"
#include "lib/net/cidr.h"

static int load_endpoint(struct loader *l, const struct json *n, struct cp_endpoint *e)
{
    struct cp_labels ports = { 0 };
    if (ld_members(l, n, "address ports labels network locality weight serviceAccount") || ld_str(l, n, "address", &e->address) ||
        ld_labels(l, n, "ports", &ports) || ld_labels(l, n, "labels", &e->labels) || ld_str(l, n, "locality", &e->locality) ||
        ld_u32(l, n, "weight", WEIGHT_MAX, &e->weight) || ld_str(l, n, "serviceAccount", &e->service_account)) {
        return -EINVAL;
    }
    if (!e->address.n) {
        return ld_fail(l, n, "address: missing");
    }
    struct addr ip;
    if ((!addr_parse_ip(e->address, 0, &ip) && ld_name(l, n, "address", e->address)) ||
        (e->service_account.n && ld_name(l, n, "serviceAccount", e->service_account))) {
        return -EINVAL;
    }
    for (size_t i = 0; i < ports.n; i++) {
        uint64_t v;
        if (!str_to_u64(ports.v[i].value, 65535, &v) || v == 0) {
            return ld_fail(l, json_get(n, "ports"), "\"%.*s\" is not a port", STR_FMT(ports.v[i].value));
        }
    }
    e->ports = ports.v;
    e->port_count = ports.n;
    e->ns = l->meta.ns;
    e->workload = l->meta.name;
    return 0;
}

int ld_workload(struct loader *l, const struct json *spec)
{
    struct cp_endpoint e = { 0 };
    if (load_endpoint(l, spec, &e)) {
        return -EINVAL;
    }
    struct addr a;
    if (!addr_parse_ip(e.address, 0, &a)) {
        return ld_fail(l, json_get(spec, "address"), "\"%.*s\" is not an IP address", STR_FMT(e.address));
    }
    size_t n = l->c->workload_count;
    *(struct cp_endpoint *)ld_grow(l, (void **)&l->c->workloads, &l->c->workload_count, &l->workload_cap, sizeof(e)) = e;
    *(struct cp_meta *)ld_grow(l, (void **)&l->c->workload_meta, &n, &l->workload_meta_cap, sizeof(l->meta)) = l->meta;
    return 0;
}

static int load_protocol(struct loader *l, const struct json *n, struct cp_port *p)
{
    static const char *const http[] = { "HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY" };
    static const char *const tcp[] = { "TCP", "TLS", "HTTPS", "MONGO", "MYSQL", "REDIS" };
    struct str s = { 0 };
    if (ld_str(l, n, "protocol", &s)) {
        return -EINVAL;
    }
    if (!s.n) { // a name such as "http-web" says nothing here: that is for Kubernetes' Services
        p->protocol = CP_TCP;
        p->sniff = true;
        return 0;
    }
    for (size_t i = 0; i < array_len(http); i++) {
        if (str_eq_nocase(s, str_c(http[i]))) {
            p->protocol = CP_HTTP;
            p->http2 = str_eq_nocase(s, STR("HTTP2")) || str_eq_nocase(s, STR("GRPC"));
            return 0;
        }
    }
    for (size_t i = 0; i < array_len(tcp); i++) {
        if (str_eq_nocase(s, str_c(tcp[i]))) {
            p->protocol = CP_TCP;
            p->tls = str_eq_nocase(s, STR("TLS")) || str_eq_nocase(s, STR("HTTPS"));
            return 0;
        }
    }
    return ld_fail(l, json_get(n, "protocol"), "\"%.*s\" is not one of HTTP, HTTP2, GRPC, TCP, TLS, HTTPS, MONGO, MYSQL, REDIS", STR_FMT(s));
}

static int load_ports(struct loader *l, const struct json *spec, struct cp_service *s)
{
    const struct json *ports = json_get(spec, "ports");
    if (!ports || ports->type != JSON_ARRAY || !ports->count) {
        return ld_fail(l, ports ? ports : spec, "ports: at least one is needed");
    }
    s->ports = arena_array(l->a, struct cp_port, ports->count);
    for (const struct json *n = ports->first; n; n = n->next) {
        struct cp_port *p = &s->ports[s->port_count++];
        if (ld_members(l, n, "number protocol name targetPort") || ld_port(l, n, "number", &p->number) ||
            ld_str(l, n, "name", &p->name) || load_protocol(l, n, p)) {
            return -EINVAL;
        }
        if (!p->number) {
            return ld_fail(l, n, "number: missing");
        }
        for (size_t i = 0; i + 1 < s->port_count; i++) {
            if (s->ports[i].number == p->number || (p->name.n && str_eq(s->ports[i].name, p->name))) {
                return ld_fail(l, n, "number or name of another port of this service");
            }
        }
        p->target = p->number;
        if (ld_port(l, n, "targetPort", &p->target)) {
            return -EINVAL;
        }
    }
    return 0;
}

static int load_resolution(struct loader *l, const struct json *spec, struct cp_service *s)
{
    struct str r = STR("NONE"), loc = STR("MESH_EXTERNAL");
    if (ld_str(l, spec, "resolution", &r) || ld_str(l, spec, "location", &loc)) {
        return -EINVAL;
    }
    if (str_is(r, "STATIC")) {
        s->resolution = CP_STATIC;
    } else if (str_is(r, "DNS") || str_is(r, "DNS_ROUND_ROBIN")) {
        s->resolution = str_is(r, "DNS") ? CP_DNS : CP_DNS_ONE;
    } else if (str_is(r, "NONE")) {
        s->resolution = CP_NONE;
    } else {
        return ld_fail(l, json_get(spec, "resolution"), "\"%.*s\" is not one of NONE, STATIC, DNS, DNS_ROUND_ROBIN", STR_FMT(r));
    }
    if (!str_is(loc, "MESH_EXTERNAL") && !str_is(loc, "MESH_INTERNAL")) {
        return ld_fail(l, json_get(spec, "location"), "\"%.*s\" is neither MESH_INTERNAL nor MESH_EXTERNAL", STR_FMT(loc));
    }
    s->external = str_is(loc, "MESH_EXTERNAL");
    return 0;
}

static int load_service_endpoints(struct loader *l, const struct json *spec, struct cp_service *s)
{
    const struct json *eps = json_get(spec, "endpoints");
    if (!eps || eps->type == JSON_NULL) {
        return 0;
    }
    if (eps->type != JSON_ARRAY) {
        return ld_fail(l, eps, "must be a list");
    }
    s->endpoints = arena_array(l->a, struct cp_endpoint, eps->count + 1);
    for (const struct json *n = eps->first; n; n = n->next) {
        struct cp_endpoint *e = &s->endpoints[s->endpoint_count++];
        struct addr a;
        if (load_endpoint(l, n, e)) {
            return -EINVAL;
        }
        e->workload = arena_printf(l->a, "%.*s-%zu", STR_FMT(l->meta.name), s->endpoint_count - 1);
        if (s->resolution == CP_STATIC && !addr_parse_ip(e->address, 0, &a)) {
            return ld_fail(l, json_get(n, "address"), "resolution STATIC needs an IP address, not \"%.*s\"", STR_FMT(e->address));
        }
    }
    return 0;
}

static int load_addresses(struct loader *l, const struct json *spec, struct cp_service *s)
{
    if (ld_strs(l, spec, "addresses", &s->addresses, &s->address_count)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < s->address_count; i++) {
        struct cidr c;
        if (!cidr_parse(s->addresses[i], &c)) {
            return ld_fail(l, json_get(spec, "addresses"), "\"%.*s\" is not an address or range", STR_FMT(s->addresses[i]));
        }
    }
    return 0;
}

int ld_service_entry(struct loader *l, const struct json *spec)
{
    struct cp_service s = { .meta = l->meta };
    struct str *hosts = NULL;
    size_t n = 0;
    struct cp_labels selector = { 0 };
    struct cp_endpoint *own = NULL;
    if (ld_members(l, spec, "hosts addresses ports location resolution endpoints workloadSelector exportTo subjectAltNames") ||
        ld_strs(l, spec, "hosts", &hosts, &n) || ld_export(l, spec, &s.export) ||
        ld_strs(l, spec, "subjectAltNames", &s.alt_names, &s.alt_name_count) || load_addresses(l, spec, &s) || load_ports(l, spec, &s) ||
        load_resolution(l, spec, &s) || load_service_endpoints(l, spec, &s)) {
        return -EINVAL;
    }
    const struct json *sel = json_get(spec, "workloadSelector");
    if (sel && (ld_members(l, sel, "labels") || ld_labels(l, sel, "labels", &selector))) {
        return -EINVAL;
    }
    if (!n) {
        return ld_fail(l, spec, "hosts: at least one is needed");
    }
    for (size_t i = 0; i < n; i++) {
        s.host = hosts[i];
        for (size_t x = 0; x < s.host.n; x++) { // host names know no case
            ((char *)s.host.p)[x] = s.host.p[x] >= 'A' && s.host.p[x] <= 'Z' ? (char)(s.host.p[x] | 0x20) : s.host.p[x];
        }
        if (ld_host(l, json_get(spec, "hosts"), "host", s.host)) {
            return -EINVAL;
        }
        size_t other = (size_t)(uintptr_t)map_get(&l->c->by_host, s.host);
        if (other) {
            const struct cp_meta *m = &l->c->services[other - 1].meta;
            return ld_fail(l, json_get(spec, "hosts"), "host \"%.*s\" is also in %s:%d", STR_FMT(s.host), m->file, m->line);
        }
        if ((s.resolution == CP_DNS || s.resolution == CP_DNS_ONE) && !selector.n && (!s.endpoint_count || s.endpoints == own)) {
            // ServiceEntry.resolution: without endpoints, the host itself is resolved
            if (str_starts(s.host, STR("*."))) {
                return ld_fail(l, json_get(spec, "hosts"), "\"%.*s\": a wildcard cannot be resolved; give endpoints", STR_FMT(s.host));
            }
            own = arena_new(l->a, struct cp_endpoint);
            *own = (struct cp_endpoint){ .address = s.host, .ns = l->meta.ns, .workload = l->meta.name };
            s.endpoints = own;
            s.endpoint_count = 1;
        }
        if (selector.n) {
            struct cp_selector *x = ld_grow(l, (void **)&l->selectors, &l->selector_count, &l->selector_cap, sizeof(*x));
            *x = (struct cp_selector){ .service = l->c->service_count, .labels = selector };
        }
        *(struct cp_service *)ld_grow(l, (void **)&l->c->services, &l->c->service_count, &l->service_cap, sizeof(s)) = s;
        map_put(&l->c->by_host, s.host, (void *)(uintptr_t)l->c->service_count);
    }
    return 0;
}
