// SPDX-License-Identifier: Apache-2.0
// What one proxy sees of the mesh: services and rules by exportTo and namespace, DestinationRules merged, VirtualServices in Istio's order.
#include <string.h>

#include "control-plane/compile_int.h"

#define ROOT_NAMESPACE "istio-system"

static bool export_eq(const struct cp_export *a, const struct cp_export *b)
{
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        bool found = false;
        for (size_t k = 0; k < b->n && !found; k++) {
            found = str_eq(a->v[i], b->v[k]);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static bool labels_eq(const struct cp_labels *a, const struct cp_labels *b)
{
    return a->n == b->n && cp_labels_match(a, b);
}

// Rules of one host and namespace are one rule: the first traffic policy, the subsets of all (DestinationRule merging of Istio).
static const struct cp_destination_rule *merge(struct compiler *k, const struct cp_destination_rule *first)
{
    struct cp_destination_rule *out = NULL;
    for (const struct cp_destination_rule *d = first->next; d; d = d->next) {
        if (!str_eq(d->meta.ns, first->meta.ns) || !export_eq(&d->export, &first->export) || !labels_eq(&d->selector, &first->selector)) {
            continue;
        }
        if (!out) {
            out = arena_new(&k->work, struct cp_destination_rule);
            *out = *first;
        }
        if (!out->has_policy) {
            out->policy = d->policy;
            out->has_policy = d->has_policy;
        }
        struct cp_subset *v = arena_array(&k->work, struct cp_subset, out->subset_count + d->subset_count + 1);
        size_t n = out->subset_count;
        if (n) {
            memcpy(v, out->subsets, n * sizeof(*v));
        }
        for (size_t i = 0; i < d->subset_count; i++) {
            bool there = false;
            for (size_t x = 0; x < n && !there; x++) {
                there = str_eq(v[x].name, d->subsets[i].name);
            }
            if (!there) {
                v[n++] = d->subsets[i];
            }
        }
        out->subsets = v;
        out->subset_count = n;
    }
    return out ? out : first;
}

static bool is_private(const struct cp_export *e)
{
    return e->n == 1 && str_is(e->v[0], ".");
}

// A rule before d in its list is for the same namespaces, and so takes d into itself.
static bool merged_before(const struct cp_destination_rule *list, const struct cp_destination_rule *d)
{
    for (; list != d; list = list->next) {
        if (str_eq(list->meta.ns, d->meta.ns) && !list->selector.n && export_eq(&list->export, &d->export)) {
            return true;
        }
    }
    return false;
}

// The rule of namespace ns for host: the most specific name wins, then one that selects this workload. Of those that are not merged because
// they are exported to different namespaces the youngest wins, as in istiod.
static const struct cp_destination_rule *rule_in(struct compiler *k, struct str host, struct str ns, bool only_private)
{
    for (struct str key = host; key.n; key = cp_wider_host(&k->work, key)) {
        const struct cp_destination_rule *plain = NULL;
        const struct cp_destination_rule *list = map_get(&k->c->by_rule, key);
        for (const struct cp_destination_rule *d = list; d; d = d->next) {
            if (!str_eq(d->meta.ns, ns) || !cp_exported(&d->export, d->meta.ns, k->node->ns) || (only_private && !is_private(&d->export))) {
                continue;
            }
            if (d->selector.n && str_eq(d->meta.ns, k->node->ns) && cp_labels_match(&d->selector, &k->node->labels)) {
                return merge(k, d);
            }
            plain = !d->selector.n && !merged_before(list, d) ? d : plain;
        }
        if (plain) {
            return merge(k, plain);
        }
    }
    return NULL;
}

// The client's namespace, then the service's, then the root namespace.
static const struct cp_destination_rule *rule_for(struct compiler *k, const struct cp_service *s)
{
    const struct cp_destination_rule *d = rule_in(k, s->host, k->node->ns, str_is(k->node->ns, ROOT_NAMESPACE));
    if (!d && !str_eq(s->meta.ns, k->node->ns)) {
        d = rule_in(k, s->host, s->meta.ns, false);
    }
    return d ? d : rule_in(k, s->host, STR(ROOT_NAMESPACE), false);
}

// Those of the proxy's own namespace alone, those exported to it by name, then the public ones: the first for a host wins.
static void take_virtual_services(struct compiler *k)
{
    k->vs = arena_array(&k->work, const struct cp_virtual_service *, k->c->virtual_service_count + 1);
    for (int pass = 0; pass < 3; pass++) {
        for (size_t i = 0; i < k->c->virtual_service_count; i++) {
            const struct cp_virtual_service *v = &k->c->virtual_services[i];
            bool everybody = v->export.n == 0;
            for (size_t x = 0; x < v->export.n; x++) {
                everybody |= str_is(v->export.v[x], "*");
            }
            int mine = is_private(&v->export) ? 0 : everybody ? 2 : 1;
            if (v->mesh && v->host_count && mine == pass && cp_exported(&v->export, v->meta.ns, k->node->ns)) {
                k->vs[k->vs_count++] = v;
            }
        }
    }
}

static void index_hosts(struct compiler *k)
{
    for (size_t i = k->vs_count; i--;) { // backwards: the first heads its list
        for (size_t h = 0; h < k->vs[i]->host_count; h++) {
            struct cpc_vs_ref *r = arena_new(&k->work, struct cpc_vs_ref);
            *r = (struct cpc_vs_ref){ .v = k->vs[i], .next = map_get(&k->vs_by_host, k->vs[i]->hosts[h]) };
            map_put(&k->vs_by_host, k->vs[i]->hosts[h], r);
        }
    }
}

static bool is_mine(const struct compiler *k, const struct cp_endpoint *e)
{
    struct addr a;
    return e->locality.n && addr_parse_ip(e->address, 0, &a) && addr_ip_eq(&a, &k->node->ip);
}

// What the folder says of the workload at the proxy's address, before what the proxy says of itself.
static struct str own_locality(const struct compiler *k)
{
    for (size_t i = 0; i < k->c->workload_count; i++) {
        if (is_mine(k, &k->c->workloads[i])) {
            return k->c->workloads[i].locality;
        }
    }
    for (size_t i = 0; i < k->c->service_count; i++) {
        const struct cp_service *s = &k->c->services[i];
        for (size_t e = 0; e < s->endpoint_count; e++) {
            if (is_mine(k, &s->endpoints[e])) {
                return s->endpoints[e].locality;
            }
        }
    }
    return k->node->locality;
}

void cpc_views(struct compiler *k)
{
    k->views = arena_array(&k->work, struct cpc_view, k->c->service_count + 1);
    for (size_t i = 0; i < k->c->service_count; i++) {
        const struct cp_service *s = &k->c->services[i];
        k->views[i].visible = cp_exported(&s->export, s->meta.ns, k->node->ns);
        k->views[i].rule = k->c->destination_rule_count ? rule_for(k, s) : NULL;
    }
    take_virtual_services(k);
    index_hosts(k);
    k->locality = own_locality(k);
}

void cpc_views_free(struct compiler *k)
{
    map_fini(&k->vs_by_host);
    arena_fini(&k->work);
}

const struct cpc_view *cpc_view(const struct compiler *k, const struct cp_service *s)
{
    return &k->views[s - k->c->services];
}

bool cpc_mesh_match(const struct compiler *k, enum cp_gateways g, const struct cp_labels *labels, struct str ns)
{
    return g != CP_GATEWAYS_OTHER && cp_labels_match(labels, &k->node->labels) && (!ns.n || str_eq(ns, k->node->ns));
}

// One port's blocks stand in the place of all others.
static const struct cp_policy *at_port(const struct cp_policy *p, uint16_t port, bool *ret_port)
{
    *ret_port = false;
    for (size_t i = 0; i < p->port_count; i++) {
        if (p->ports[i].port == port) {
            *ret_port = true;
            return &p->ports[i].policy;
        }
    }
    return p;
}

struct cp_policy cpc_policy(const struct cp_destination_rule *rule, const struct cp_subset *subset, uint16_t port)
{
    static const struct cp_policy none;
    bool port_level;
    struct cp_policy p = rule ? *at_port(&rule->policy, port, &port_level) : none;
    if (!subset || !subset->has_policy) {
        return p;
    }
    const struct cp_policy *over = at_port(&subset->policy, port, &port_level);
    p.pool = over->pool || port_level ? over->pool : p.pool;
    p.lb = over->lb || port_level ? over->lb : p.lb;
    p.outlier = over->outlier || port_level ? over->outlier : p.outlier;
    p.tls = over->tls || port_level ? over->tls : p.tls;
    p.budget = over->budget ? over->budget : p.budget;
    p.proxy_protocol = over->proxy_protocol ? over->proxy_protocol : p.proxy_protocol;
    return p;
}

static const struct cp_hash *hash_of(const struct cp_policy *p)
{
    return p->lb && p->lb->hash.key != CP_HASH_NONE ? &p->lb->hash : NULL;
}

const struct cp_hash *cpc_hash(const struct compiler *k, const struct cp_service *s, struct str subset, uint16_t port)
{
    const struct cp_destination_rule *d = s ? cpc_view(k, s)->rule : NULL;
    bool port_level;
    if (!d) {
        return NULL;
    }
    for (size_t i = 0; subset.n && i < d->subset_count; i++) {
        if (!str_eq(d->subsets[i].name, subset)) {
            continue;
        }
        const struct cp_policy *sp = at_port(&d->subsets[i].policy, port, &port_level);
        const struct cp_hash *h = port_level ? hash_of(sp) : NULL;
        h = h ? h : hash_of(&d->subsets[i].policy);
        if (h) {
            return h;
        }
        break;
    }
    const struct cp_policy *p = at_port(&d->policy, port, &port_level);
    const struct cp_hash *h = port_level ? hash_of(p) : NULL;
    return h ? h : hash_of(&d->policy);
}
