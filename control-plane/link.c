// SPDX-License-Identifier: Apache-2.0
// After all files: selectors and references.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control-plane/load_int.h"
#include "lib/base/log.h"

static void resolve_selectors(struct loader *l)
{
    for (size_t i = 0; i < l->selector_count; i++) {
        struct cp_service *s = &l->c->services[l->selectors[i].service];
        struct cp_endpoint *v = arena_array(l->a, struct cp_endpoint, s->endpoint_count + l->c->workload_count + 1);
        if (s->endpoint_count) {
            memcpy(v, s->endpoints, s->endpoint_count * sizeof(*v));
        }
        size_t n = s->endpoint_count;
        for (size_t k = 0; k < l->c->workload_count; k++) {
            const struct cp_endpoint *w = &l->c->workloads[k];
            if (str_eq(w->ns, s->meta.ns) && cp_labels_match(&l->selectors[i].labels, &w->labels)) {
                v[n++] = *w;
            }
        }
        s->endpoints = v;
        s->endpoint_count = n;
    }
}

// An object about an unknown host has no effect, which the operator may want to know.
static void warn_unknown(const struct cp_meta *m, struct str host)
{
    log_warn(LOGC_CONTROL, 0, "host_unknown", "file=%s line=%d kind=%.*s name=%.*s host=%.*s (no effect)", m->file, m->line, STR_FMT(m->kind),
             STR_FMT(m->name), STR_FMT(host));
}

// Istio's order: by age, then by name and namespace.
static int by_age(const struct cp_meta *a, const struct cp_meta *b)
{
    int d = str_cmp(a->created, b->created);
    d = d ? d : str_cmp(a->name, b->name);
    return d ? d : str_cmp(a->ns, b->ns);
}

static int rule_by_age(const void *a, const void *b)
{
    return by_age(&((const struct cp_destination_rule *)a)->meta, &((const struct cp_destination_rule *)b)->meta);
}

static int virtual_service_by_age(const void *a, const void *b)
{
    return by_age(&((const struct cp_virtual_service *)a)->meta, &((const struct cp_virtual_service *)b)->meta);
}

// The host of a rule or VirtualService by its full name.
static struct str full_host(struct loader *l, struct str host, struct str ns)
{
    const struct cp_service *s = cp_find_service(l->c, host, ns);
    return s ? s->host : ld_full_name(l, host, ns);
}

static void link_rules(struct loader *l)
{
    struct cp_destination_rule *v = l->c->destination_rules;
    if (!l->c->destination_rule_count) {
        return;
    }
    qsort(v, l->c->destination_rule_count, sizeof(*v), rule_by_age);
    for (size_t i = l->c->destination_rule_count; i--;) { // backwards, so that the oldest heads its list
        v[i].host = full_host(l, v[i].host, v[i].meta.ns);
        v[i].next = map_get(&l->c->by_rule, v[i].host);
        map_put(&l->c->by_rule, v[i].host, &v[i]);
        if (!str_starts(v[i].host, STR("*")) && !cp_find_service(l->c, v[i].host, v[i].meta.ns)) {
            warn_unknown(&v[i].meta, v[i].host);
        }
    }
}

static void link_virtual_services(struct loader *l)
{
    struct cp_virtual_service *v = l->c->virtual_services;
    if (l->c->virtual_service_count) {
        qsort(v, l->c->virtual_service_count, sizeof(*v), virtual_service_by_age);
    }
    for (size_t i = 0; i < l->c->virtual_service_count; i++) {
        for (size_t h = 0; h < v[i].host_count; h++) {
            v[i].hosts[h] = full_host(l, v[i].hosts[h], v[i].meta.ns);
        }
        if (!v[i].mesh) {
            log_warn(LOGC_CONTROL, 0, "gateways_only", "file=%s line=%d kind=VirtualService name=%.*s (no effect: there are no gateways here)",
                     v[i].meta.file, v[i].meta.line, STR_FMT(v[i].meta.name));
        }
    }
}

static int authz_by_age(const void *a, const void *b)
{
    return by_age(&((const struct cp_authz *)a)->meta, &((const struct cp_authz *)b)->meta);
}

static int request_authentication_by_age(const void *a, const void *b)
{
    return by_age(&((const struct cp_request_authentication *)a)->meta, &((const struct cp_request_authentication *)b)->meta);
}

static int peer_authentication_by_age(const void *a, const void *b)
{
    return by_age(&((const struct cp_peer_authentication *)a)->meta, &((const struct cp_peer_authentication *)b)->meta);
}

static const struct cp_provider *find_provider(const struct cp_mesh *m, struct str name)
{
    for (size_t i = 0; i < m->provider_count; i++) {
        if (str_eq(m->providers[i].name, name)) {
            return &m->providers[i];
        }
    }
    return NULL;
}

// A CUSTOM policy whose provider, or the provider's service, is not there could not be enforced.
static int check_provider(struct loader *l, const struct cp_authz *p)
{
    const struct json at = { .line = p->meta.line };
    const struct cp_provider *x = find_provider(&l->c->mesh, p->provider);
    const struct cp_service *s = x ? cp_find_provider_service(l->c, x->service) : NULL;
    bool port = false;
    l->file = p->meta.file;
    if (!x) {
        return ld_fail(l, &at, "AuthorizationPolicy %.*s: no extensionProviders of ConfigMap istio in istio-system has the name \"%.*s\"",
                       STR_FMT(p->meta.name), STR_FMT(p->provider));
    }
    if (!s) {
        return ld_fail(l, &at, "AuthorizationPolicy %.*s: service \"%.*s\" of provider \"%.*s\" is no known service", STR_FMT(p->meta.name),
                       STR_FMT(x->service), STR_FMT(p->provider));
    }
    for (size_t i = 0; i < s->port_count && !port; i++) {
        port = s->ports[i].number == x->port;
    }
    return port ? 0 : ld_fail(l, &at, "AuthorizationPolicy %.*s: \"%.*s\" of provider \"%.*s\" has no port %u", STR_FMT(p->meta.name),
                              STR_FMT(x->service), STR_FMT(p->provider), x->port);
}

static int link_policies(struct loader *l)
{
    struct cp_config *c = l->c;
    if (c->authz_count) {
        qsort(c->authz, c->authz_count, sizeof(*c->authz), authz_by_age);
    }
    if (c->request_authentication_count) {
        qsort(c->request_authentications, c->request_authentication_count, sizeof(*c->request_authentications), request_authentication_by_age);
    }
    if (c->peer_authentication_count) {
        qsort(c->peer_authentications, c->peer_authentication_count, sizeof(*c->peer_authentications), peer_authentication_by_age);
    }
    for (size_t i = 0; i < c->authz_count; i++) {
        if (c->authz[i].action == CP_AUTHZ_CUSTOM && check_provider(l, &c->authz[i])) {
            return -EINVAL;
        }
    }
    return 0;
}

// A TCP connection has nothing but its address to be told by.
static int check_tcp_addresses(struct loader *l)
{
    struct map seen = { 0 };
    int rc = 0;
    for (size_t i = 0; i < l->c->service_count && !rc; i++) {
        const struct cp_service *s = &l->c->services[i];
        struct addr a;
        for (size_t p = 0; p < s->port_count && !rc && s->address_count && addr_parse_ip(s->addresses[0], 0, &a); p++) {
            char text[ADDR_TEXT_MAX];
            a.port = s->ports[p].number;
            const struct cp_service *other = s->ports[p].protocol == CP_TCP ? map_put(&seen, str_c(addr_text(&a, text)), (void *)s) : NULL;
            if (other) {
                const struct json n = { .line = s->meta.line };
                l->file = s->meta.file;
                rc = ld_fail(l, &n, "ServiceEntry %.*s: %s is also the address of a TCP port of \"%.*s\", %s:%d", STR_FMT(s->meta.name), text,
                          STR_FMT(other->host), other->meta.file, other->meta.line);
            }
        }
    }
    map_fini(&seen);
    return rc;
}

static bool has_subset(const struct loader *l, const struct cp_service *s, struct str subset)
{
    for (struct str key = s->host; key.n;) { // the host itself, "*.rest", …, "*"
        for (const struct cp_destination_rule *d = map_get(&l->c->by_rule, key); d; d = d->next) {
            for (size_t i = 0; i < d->subset_count; i++) {
                if (str_eq(d->subsets[i].name, subset)) {
                    return true;
                }
            }
        }
        key = cp_wider_host(l->a, key);
    }
    return false;
}

static int check_destination(struct loader *l, const struct cp_virtual_service *v, const struct cp_destination *d)
{
    const struct cp_service *s = cp_find_service(l->c, d->host, v->meta.ns);
    l->file = v->meta.file;
    const struct json at = { .line = v->meta.line };
    if (!s) {
        return ld_fail(l, &at, "VirtualService %.*s: destination host \"%.*s\" is no known service", STR_FMT(v->meta.name), STR_FMT(d->host));
    }
    if (d->subset.n && !has_subset(l, s, d->subset)) {
        return ld_fail(l, &at, "VirtualService %.*s: no DestinationRule gives \"%.*s\" a subset \"%.*s\"", STR_FMT(v->meta.name), STR_FMT(d->host),
                    STR_FMT(d->subset));
    }
    return 0;
}

static int check_l4(struct loader *l, const struct cp_virtual_service *v, const struct cp_l4_route *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t d = 0; d < r[i].route_count; d++) {
            if (check_destination(l, v, &r[i].routes[d])) {
                return -EINVAL;
            }
        }
    }
    return 0;
}

static int check_references(struct loader *l)
{
    for (size_t i = 0; i < l->c->virtual_service_count; i++) {
        const struct cp_virtual_service *v = &l->c->virtual_services[i];
        for (size_t h = 0; h < v->http_count; h++) {
            const struct cp_http_route *r = &v->http[h];
            for (size_t d = 0; d < r->route_count; d++) {
                if (check_destination(l, v, &r->routes[d])) {
                    return -EINVAL;
                }
            }
            for (size_t d = 0; d < r->mirror_count; d++) {
                if (check_destination(l, v, &r->mirrors[d].to)) {
                    return -EINVAL;
                }
            }
        }
        if (check_l4(l, v, v->tls, v->tls_count) || check_l4(l, v, v->tcp, v->tcp_count)) {
            return -EINVAL;
        }
    }
    return 0;
}

int ld_link(struct loader *l)
{
    resolve_selectors(l);
    link_rules(l);
    link_virtual_services(l);
    return link_policies(l) || ld_delegates(l) || check_references(l) || check_tcp_addresses(l) ? -EINVAL : 0;
}

bool cp_labels_match(const struct cp_labels *want, const struct cp_labels *have)
{
    for (size_t i = 0; i < want->n; i++) {
        bool found = false;
        for (size_t k = 0; k < have->n && !found; k++) {
            found = str_eq(want->v[i].key, have->v[k].key) && str_eq(want->v[i].value, have->v[k].value);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

struct str cp_label_get(const struct cp_labels *l, const char *key)
{
    for (size_t i = 0; i < l->n; i++) {
        if (str_is(l->v[i].key, key)) {
            return l->v[i].value;
        }
    }
    return str_n(NULL, 0);
}

const struct cp_service *cp_find_service(const struct cp_config *c, struct str name, struct str ns)
{
    char full[2 * NAME_BYTES_MAX + 32];
    size_t at = (size_t)(uintptr_t)map_get(&c->by_host, name);
    if (!at && str_find(name, '.') < 0 && name.n + ns.n < sizeof(full) - 24) {
        int n = snprintf(full, sizeof(full), "%.*s.%.*s.svc.cluster.local", STR_FMT(name), STR_FMT(ns));
        at = (size_t)(uintptr_t)map_get(&c->by_host, str_n(full, (size_t)n));
    }
    return at ? &c->services[at - 1] : NULL;
}

const struct cp_service *cp_find_provider_service(const struct cp_config *c, struct str name)
{
    ptrdiff_t slash = str_find(name, '/');
    struct str host = slash < 0 ? name : str_skip(name, (size_t)slash + 1);
    const struct cp_service *s = cp_find_service(c, host, str_n(NULL, 0)); // no short names
    return s && (slash < 0 || str_eq(s->meta.ns, str_n(name.p, (size_t)slash))) ? s : NULL;
}

struct str cp_wider_host(struct arena *a, struct str host)
{
    struct str rest = str_starts(host, STR("*.")) ? str_skip(host, 2) : host;
    ptrdiff_t dot = str_find(rest, '.');
    if (dot < 0) {
        return str_is(host, "*") ? str_n(NULL, 0) : STR("*");
    }
    return arena_printf(a, "*%.*s", (int)(rest.n - (size_t)dot), rest.p + dot);
}

bool cp_host_covers(struct str pattern, struct str host)
{
    if (str_is(pattern, "*")) {
        return true;
    }
    if (str_starts(pattern, STR("*."))) {
        struct str suffix = str_skip(pattern, 1), bare = str_starts(host, STR("*.")) ? str_skip(host, 1) : host;
        return str_ends(bare, suffix) && (bare.n > suffix.n || str_starts(host, STR("*.")));
    }
    return str_eq(pattern, host);
}

bool cp_exported(const struct cp_export *e, struct str own, struct str ns)
{
    bool seen = e->n == 0;
    for (size_t i = 0; i < e->n && !seen; i++) {
        seen = str_is(e->v[i], "*") || str_eq(e->v[i], ns) || (str_is(e->v[i], ".") && str_eq(own, ns));
    }
    return seen;
}
