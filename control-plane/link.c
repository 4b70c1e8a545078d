// SPDX-License-Identifier: Apache-2.0
// After all files: selectors and references.
#include <errno.h>
#include <stdio.h>
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

static int fail_at(struct loader *l, const struct cp_meta *at, const char *what, struct str host, const struct cp_meta *other)
{
    const struct json n = { .line = at->line };
    l->file = at->file;
    return ld_fail(l, &n, "%.*s %.*s: host \"%.*s\" has %s already: %.*s, %s:%d", STR_FMT(at->kind), STR_FMT(at->name), STR_FMT(host), what,
                STR_FMT(other->name), other->file, other->line);
}

// The service that an object is about, to be written to. An object about an unknown host has no effect, which the operator may want to know.
static struct cp_service *target(struct loader *l, const struct cp_meta *m, struct str host)
{
    const struct cp_service *s = cp_find_service(l->c, host, m->ns);
    if (!s) {
        log_warn(LOGC_CONTROL, 0, "host_unknown", "file=%s line=%d kind=%.*s name=%.*s host=%.*s (no effect)", m->file, m->line,
                 STR_FMT(m->kind), STR_FMT(m->name), STR_FMT(host));
    }
    return s ? &l->c->services[s - l->c->services] : NULL;
}

static int link_rules(struct loader *l)
{
    for (size_t i = 0; i < l->c->destination_rule_count; i++) {
        const struct cp_destination_rule *d = &l->c->destination_rules[i];
        struct cp_service *s = target(l, &d->meta, d->host);
        if (s && s->rule) {
            return fail_at(l, &d->meta, "a DestinationRule", d->host, &s->rule->meta);
        }
        if (s) {
            s->rule = d;
        }
    }
    return 0;
}

static int link_virtual_services(struct loader *l)
{
    for (size_t i = 0; i < l->c->virtual_service_count; i++) {
        const struct cp_virtual_service *v = &l->c->virtual_services[i];
        for (size_t h = 0; h < v->host_count; h++) {
            struct cp_service *s = target(l, &v->meta, v->hosts[h]);
            if (s && v->http_count && s->http && s->http != v) {
                return fail_at(l, &v->meta, "a VirtualService with http routes", v->hosts[h], &s->http->meta);
            }
            if (s && v->tcp_count && s->tcp && s->tcp != v) {
                return fail_at(l, &v->meta, "a VirtualService with tcp routes", v->hosts[h], &s->tcp->meta);
            }
            if (s) {
                s->http = v->http_count ? v : s->http;
                s->tcp = v->tcp_count ? v : s->tcp;
            }
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

static int check_destination(struct loader *l, const struct cp_virtual_service *v, const struct cp_destination *d)
{
    const struct cp_service *s = cp_find_service(l->c, d->host, v->meta.ns);
    l->file = v->meta.file;
    const struct json at = { .line = v->meta.line };
    if (!s) {
        return ld_fail(l, &at, "VirtualService %.*s: destination host \"%.*s\" is no known service", STR_FMT(v->meta.name), STR_FMT(d->host));
    }
    if (d->subset.n) {
        const struct cp_destination_rule *r = s->rule;
        for (size_t i = 0; r && i < r->subset_count; i++) {
            if (str_eq(r->subsets[i].name, d->subset)) {
                return 0;
            }
        }
        return ld_fail(l, &at, "VirtualService %.*s: no DestinationRule gives \"%.*s\" a subset \"%.*s\"", STR_FMT(v->meta.name), STR_FMT(d->host),
                    STR_FMT(d->subset));
    }
    return 0;
}

static int check_references(struct loader *l)
{
    for (size_t i = 0; i < l->c->virtual_service_count; i++) {
        const struct cp_virtual_service *v = &l->c->virtual_services[i];
        for (size_t h = 0; h < v->http_count; h++) {
            for (size_t d = 0; d < v->http[h].route_count; d++) {
                if (check_destination(l, v, &v->http[h].routes[d])) {
                    return -EINVAL;
                }
            }
        }
        for (size_t h = 0; h < v->tcp_count; h++) {
            for (size_t d = 0; d < v->tcp[h].route_count; d++) {
                if (check_destination(l, v, &v->tcp[h].routes[d])) {
                    return -EINVAL;
                }
            }
        }
    }
    return 0;
}

int ld_link(struct loader *l)
{
    resolve_selectors(l);
    return link_rules(l) || link_virtual_services(l) || check_references(l) || check_tcp_addresses(l) ? -EINVAL : 0;
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
