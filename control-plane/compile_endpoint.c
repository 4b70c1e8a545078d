// SPDX-License-Identifier: Apache-2.0
// Endpoints of a cluster: grouped by locality, with Istio's priorities and weights as seen from the proxy's own locality.
#include <string.h>

#include "control-plane/compile_int.h"

struct group {
    struct str locality;
    uint32_t priority;
    uint64_t weight;
    bool empty; // left out by a distribution
    const struct cp_endpoint **v;
    size_t n;
};

struct groups {
    struct compiler *k;
    struct group *v; // in scratch
    size_t n;
};

static struct str level(struct str locality, int i)
{
    struct str part = { 0 };
    for (int x = 0; x <= i; x++) {
        part = locality.n ? str_split(&locality, '/') : str_n(NULL, 0);
    }
    return part;
}

static uint32_t weight_of(const struct cp_endpoint *e)
{
    return e->weight ? e->weight : 1;
}

static struct groups by_locality(struct compiler *k, const struct cp_service *s, const struct cp_labels *labels)
{
    struct groups g = { .k = k, .v = arena_array(&k->scratch, struct group, s->endpoint_count + 1) };
    for (size_t i = 0; i < s->endpoint_count; i++) {
        const struct cp_endpoint *e = &s->endpoints[i];
        if (!cp_labels_match(labels, &e->labels)) {
            continue;
        }
        size_t x = 0;
        while (x < g.n && !str_eq(g.v[x].locality, e->locality)) {
            x++;
        }
        if (x == g.n) {
            g.v[g.n++] = (struct group){ .locality = e->locality, .v = arena_array(&k->scratch, const struct cp_endpoint *, s->endpoint_count) };
        }
        g.v[x].v[g.v[x].n++] = e;
        g.v[x].weight += weight_of(e);
    }
    return g;
}

// Priorities in use become 0, 1, 2, … without gaps.
static void close_gaps(struct groups *g)
{
    uint32_t next = 0, at = 0;
    for (size_t left = g->n; left;) {
        uint32_t low = UINT32_MAX;
        for (size_t i = 0; i < g->n; i++) {
            low = g->v[i].priority >= at && g->v[i].priority < low ? g->v[i].priority : low;
        }
        for (size_t i = 0; i < g->n; i++) {
            if (g->v[i].priority == low) {
                g->v[i].priority = next;
                left--;
            }
        }
        next++;
        at = low + 1;
    }
}

// 0: the same sub-zone, 1: zone, 2: region, 3: where the region fails over to (or any other when nothing is said), 4: the rest.
static uint32_t distance(const struct compiler *k, const struct cp_locality_lb *lo, struct str to)
{
    for (int i = 0; i < 3; i++) {
        if (!str_eq(level(k->locality, i), level(to, i))) {
            if (i) {
                return (uint32_t)(3 - i);
            }
            for (size_t f = 0; lo && f < lo->failover_count; f++) {
                if (str_eq(lo->failover[f].key, level(k->locality, 0))) {
                    return str_eq(lo->failover[f].value, level(to, 0)) ? 3 : 4;
                }
            }
            return 3;
        }
    }
    return 0;
}

static void fail_over(struct groups *g, const struct cp_locality_lb *lo)
{
    for (size_t i = 0; i < g->n; i++) {
        g->v[i].priority = g->v[i].priority * 5 + distance(g->k, lo, g->v[i].locality);
    }
    close_gaps(g);
}

// A topology label that a workload does not carry itself says its locality.
static struct str label_of(const struct cp_labels *labels, struct str locality, struct str key)
{
    static const char *const names[] = { "topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone" };
    for (size_t i = 0; i < labels->n; i++) {
        if (str_eq(labels->v[i].key, key)) {
            return labels->v[i].value;
        }
    }
    for (int i = 0; i < 3; i++) {
        if (str_is(key, names[i])) {
            return level(locality, i);
        }
    }
    return str_n(NULL, 0);
}

// How many of the labels, from the first on, the endpoint shares with the proxy: all = 0, none = their number.
static uint32_t mismatch(const struct compiler *k, const struct cp_locality_lb *lo, const struct cp_endpoint *e)
{
    uint32_t n = (uint32_t)lo->priority_count, extra = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct str value = lo->priority[i], key = str_split(&value, '=');
        struct str mine = value.p ? value : label_of(&k->node->labels, k->locality, key);
        if (!str_eq(mine, label_of(&e->labels, e->locality, key))) {
            if (i == 0 && str_is(key, "topology.istio.io/network")) { // another network is worse than anything else
                extra = n;
                continue;
            }
            return n - i + extra;
        }
    }
    return extra;
}

static void split_by_labels(struct groups *g, const struct cp_locality_lb *lo)
{
    size_t total = 0, n = 0;
    for (size_t i = 0; i < g->n; i++) {
        total += g->v[i].n;
    }
    struct group *out = arena_array(&g->k->scratch, struct group, total + 1);
    for (size_t i = 0; i < g->n; i++) {
        size_t first = n;
        for (size_t e = 0; e < g->v[i].n; e++) {
            uint32_t p = mismatch(g->k, lo, g->v[i].v[e]);
            size_t x = first;
            while (x < n && out[x].priority != p) {
                x++;
            }
            if (x == n) {
                out[n++] = (struct group){ .locality = g->v[i].locality, .priority = p,
                                           .v = arena_array(&g->k->scratch, const struct cp_endpoint *, g->v[i].n) };
            }
            out[x].v[out[x].n++] = g->v[i].v[e];
            out[x].weight += weight_of(g->v[i].v[e]);
        }
    }
    g->v = out;
    g->n = n;
    close_gaps(g);
}

static bool locality_matches(struct str rule, struct str locality)
{
    for (int i = 0; i < 3; i++) {
        struct str want = level(rule, i);
        if (!str_is(want, "*") && (want.n || i == 0) && !str_eq(want, level(locality, i))) {
            return false;
        }
    }
    return true;
}

static void spread(struct groups *g, const struct cp_distribute *d)
{
    bool *done = arena_array(&g->k->scratch, bool, g->n + 1);
    for (size_t t = 0; t < d->to_count; t++) {
        uint64_t percent = 0, sum = 0;
        bool *here = arena_array(&g->k->scratch, bool, g->n + 1);
        str_to_u64(d->to[t].value, 100, &percent); // checked when loaded
        for (size_t i = 0; i < g->n; i++) {
            here[i] = !done[i] && locality_matches(d->to[t].key, g->v[i].locality);
            done[i] |= here[i];
            sum += here[i] ? g->v[i].weight : 0;
        }
        for (size_t i = 0; i < g->n; i++) {
            g->v[i].weight = here[i] && sum ? (g->v[i].weight * percent + sum - 1) / sum : g->v[i].weight;
        }
    }
    for (size_t i = 0; i < g->n; i++) {
        g->v[i].empty = !done[i];
    }
}

// Failing over needs outlier detection: without it no endpoint is ever found wanting. Istio then does it by default.
static void apply_locality(struct groups *g, const struct cp_policy *policy)
{
    const struct cp_locality_lb *lo = policy->lb ? policy->lb->locality : NULL;
    if (lo && lo->disabled) {
        return;
    }
    if (lo && lo->distribute_count) {
        for (size_t i = 0; i < lo->distribute_count; i++) {
            if (locality_matches(lo->distribute[i].from, g->k->locality)) {
                spread(g, &lo->distribute[i]);
                return;
            }
        }
        return;
    }
    if (!policy->outlier) {
        return;
    }
    if (lo && lo->priority_count) {
        split_by_labels(g, lo);
    }
    if (!lo || !lo->priority_count || lo->failover_count) {
        fail_over(g, lo);
    }
}

// The workload as telemetry names it: "NAME;NAMESPACE;CANONICAL NAME;REVISION;CLUSTER".
static const char *workload(struct compiler *k, const struct cp_endpoint *e)
{
    static const char *const keys[] = { "service.istio.io/canonical-name", "app.kubernetes.io/name", "app" };
    struct str name = e->workload, version = cp_label_get(&e->labels, "service.istio.io/canonical-revision");
    for (int i = 2; i >= 0; i--) {
        struct str v = cp_label_get(&e->labels, keys[i]);
        name = v.n ? v : name;
    }
    version = version.n ? version : cp_label_get(&e->labels, "version");
    return cpc_qf(k, "%.*s;%.*s;%.*s;%.*s;%.*s", STR_FMT(e->workload), STR_FMT(e->ns), STR_FMT(name), STR_FMT(version), STR_FMT(k->node->cluster_id));
}

// A rule's word on TLS holds for all; otherwise the endpoint must have a sidecar, whose PeerAuthentication does not turn mutual TLS off.
static bool takes_mtls(const struct compiler *k, const struct cp_service *s, const struct cp_endpoint *e, const struct cp_port *p,
                       const struct cp_policy *policy)
{
    bool sidecar = str_is(cp_label_get(&e->labels, "security.istio.io/tlsMode"), "istio");
    if (policy->tls && s->resolution == CP_STATIC) {
        return policy->tls->mode == CP_TLS_ISTIO_MUTUAL;
    }
    return sidecar && cpc_peer_mode(k, e->ns, &e->labels, cpc_endpoint_port(e, p)) != CP_MTLS_DISABLE;
}

static void write_endpoint(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_endpoint *e, const struct cp_port *p, const struct cp_policy *policy)
{
    buf_printf(b, "{endpoint: {address: {socket_address: {address: %s, port_value: %u}}}, ", cpc_q(k, e->address), cpc_endpoint_port(e, p));
    buf_printf(b, "metadata: {filter_metadata: {");
    if (takes_mtls(k, s, e, p, policy)) {
        buf_printf(b, "envoy.transport_socket_match: {tlsMode: istio}, ");
    }
    buf_printf(b, "istio: {workload: %s}}}, ", workload(k, e));
    buf_printf(b, "load_balancing_weight: %u}", weight_of(e));
}

static void write_locality(struct compiler *k, struct buf *b, struct str locality)
{
    static const char *const names[] = { "region", "zone", "sub_zone" };
    struct str rest = locality;
    buf_printf(b, "locality: {");
    for (int i = 0; i < 3 && rest.n; i++) {
        buf_printf(b, "%s%s: %s", i ? ", " : "", names[i], cpc_q(k, str_split(&rest, '/')));
    }
    buf_printf(b, "}");
}

void cpc_assignment(struct compiler *k, struct buf *b, struct str name, const struct cp_service *s, const struct cp_port *p,
                    const struct cp_labels *labels, const struct cp_policy *policy)
{
    struct groups g = by_locality(k, s, labels);
    apply_locality(&g, policy);
    buf_printf(b, "{cluster_name: %s, endpoints: [", cpc_q(k, name));
    for (size_t i = 0; i < g.n; i++) {
        uint64_t weight = g.v[i].weight < UINT32_MAX ? g.v[i].weight : UINT32_MAX;
        buf_printf(b, "%s{", i ? ", " : "");
        write_locality(k, b, g.v[i].locality);
        buf_printf(b, ", lb_endpoints: [");
        for (size_t e = 0; e < g.v[i].n && !g.v[i].empty; e++) {
            buf_printf(b, "%s", e ? ", " : "");
            write_endpoint(k, b, s, g.v[i].v[e], p, policy);
        }
        buf_printf(b, "], load_balancing_weight: %llu, priority: %u}", (unsigned long long)weight, g.v[i].priority);
    }
    buf_printf(b, "]}");
}
