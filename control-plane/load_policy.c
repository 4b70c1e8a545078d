// SPDX-License-Identifier: Apache-2.0
// DestinationRule, PeerAuthentication.
#include <errno.h>
#include <stdlib.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"

static int load_pool(struct loader *l, const struct json *n, struct cp_policy *p)
{
    const struct json *tcp = json_get(n, "tcp"), *http = json_get(n, "http");
    if (ld_members(l, n, "tcp http")) {
        return -EINVAL;
    }
    if (tcp && (ld_members(l, tcp, "maxConnections connectTimeout") || ld_u32(l, tcp, "maxConnections", UINT32_MAX, &p->max_connections) ||
                ld_duration(l, tcp, "connectTimeout", &p->connect_timeout))) {
        return -EINVAL;
    }
    if (p->connect_timeout.n && strtod(p->connect_timeout.p, NULL) < 0.001) {
        return ld_fail(l, json_get(tcp, "connectTimeout"), "must be at least 1ms");
    }
    return http && (ld_members(l, http, "http1MaxPendingRequests http2MaxRequests maxRequestsPerConnection maxRetries idleTimeout") ||
                    ld_u32(l, http, "http1MaxPendingRequests", UINT32_MAX, &p->max_pending) ||
                    ld_u32(l, http, "http2MaxRequests", UINT32_MAX, &p->max_requests) ||
                    ld_u32(l, http, "maxRequestsPerConnection", UINT32_MAX, &p->max_requests_per_connection) ||
                    ld_u32(l, http, "maxRetries", UINT32_MAX, &p->max_retries) || ld_duration(l, http, "idleTimeout", &p->idle_timeout))
               ? -EINVAL
               : 0;
}

static int load_lb(struct loader *l, const struct json *n, struct cp_policy *p)
{
    if (ld_members(l, n, "simple") || ld_str(l, n, "simple", &p->lb)) {
        return -EINVAL;
    }
    if (str_is(p->lb, "UNSPECIFIED") || str_is(p->lb, "LEAST_CONN")) {
        p->lb = STR("LEAST_REQUEST");
    }
    if (p->lb.n && !str_is(p->lb, "ROUND_ROBIN") && !str_is(p->lb, "LEAST_REQUEST") && !str_is(p->lb, "RANDOM")) {
        return ld_fail(l, json_get(n, "simple"), "\"%.*s\" is not one of ROUND_ROBIN, LEAST_REQUEST, RANDOM", STR_FMT(p->lb));
    }
    return 0;
}

static int load_outlier(struct loader *l, const struct json *n, struct cp_policy *p)
{
    p->outlier = true;
    p->consecutive_5xx = 5;
    return ld_members(l, n, "consecutive5xxErrors consecutiveGatewayErrors interval baseEjectionTime maxEjectionPercent") ||
                   ld_u32(l, n, "consecutive5xxErrors", 1000000, &p->consecutive_5xx) ||
                   ld_u32(l, n, "consecutiveGatewayErrors", 1000000, &p->consecutive_gateway) ||
                   ld_u32(l, n, "maxEjectionPercent", 100, &p->max_ejection_percent) ||
                   ld_duration(l, n, "interval", &p->outlier_interval) || ld_duration(l, n, "baseEjectionTime", &p->outlier_base)
               ? -EINVAL
               : 0;
}

static int load_policy_tls(struct loader *l, const struct json *n, struct cp_policy *p)
{
    struct str mode = { 0 };
    if (ld_members(l, n, "mode") || ld_str(l, n, "mode", &mode)) {
        return -EINVAL;
    }
    if (str_is(mode, "DISABLE")) {
        p->tls = CP_TLS_DISABLE;
    } else if (str_is(mode, "ISTIO_MUTUAL")) {
        p->tls = CP_TLS_ISTIO_MUTUAL;
    } else {
        return ld_fail(l, n, "mode: \"%.*s\" is not supported; DISABLE or ISTIO_MUTUAL", STR_FMT(mode));
    }
    return 0;
}

static int load_policy(struct loader *l, const struct json *n, struct cp_policy *p)
{
    const struct json *pool = json_get(n, "connectionPool"), *lb = json_get(n, "loadBalancer"), *od = json_get(n, "outlierDetection"),
                      *tls = json_get(n, "tls");
    return ld_members(l, n, "connectionPool loadBalancer outlierDetection tls") || (pool && load_pool(l, pool, p)) ||
                   (lb && load_lb(l, lb, p)) || (od && load_outlier(l, od, p)) || (tls && load_policy_tls(l, tls, p))
               ? -EINVAL
               : 0;
}

static int load_subset(struct loader *l, const struct json *n, struct cp_destination_rule *d, struct cp_subset *s)
{
    const struct json *tp = json_get(n, "trafficPolicy");
    if (ld_members(l, n, "name labels trafficPolicy") || ld_str(l, n, "name", &s->name) || ld_labels(l, n, "labels", &s->labels)) {
        return -EINVAL;
    }
    s->policy = d->policy;
    s->has_policy = tp != NULL;
    if (tp && load_policy(l, tp, &s->policy)) {
        return -EINVAL;
    }
    if (!s->name.n) {
        return ld_fail(l, n, "name: missing");
    }
    for (size_t i = 0; &d->subsets[i] != s; i++) {
        if (str_eq(d->subsets[i].name, s->name)) {
            return ld_fail(l, n, "name: there is a subset \"%.*s\" already", STR_FMT(s->name));
        }
    }
    return ld_name(l, n, "name", s->name);
}

int ld_destination_rule(struct loader *l, const struct json *spec)
{
    struct cp_destination_rule d = { .meta = l->meta };
    const struct json *tp = json_get(spec, "trafficPolicy"), *subsets = json_get(spec, "subsets");
    if (ld_members(l, spec, "host trafficPolicy subsets exportTo") || ld_str(l, spec, "host", &d.host) ||
        (tp && load_policy(l, tp, &d.policy))) {
        return -EINVAL;
    }
    if (!d.host.n) {
        return ld_fail(l, spec, "host: missing");
    }
    if (subsets && subsets->type != JSON_ARRAY) {
        return ld_fail(l, subsets, "must be a list");
    }
    d.subsets = arena_array(l->a, struct cp_subset, (subsets ? subsets->count : 0) + 1);
    for (const struct json *n = subsets ? subsets->first : NULL; n; n = n->next) {
        if (load_subset(l, n, &d, &d.subsets[d.subset_count++])) {
            return -EINVAL;
        }
    }
    *(struct cp_destination_rule *)ld_grow(l, (void **)&l->c->destination_rules, &l->c->destination_rule_count, &l->dr_cap, sizeof(d)) = d;
    return 0;
}

// ---- PeerAuthentication ----

static int load_mode(struct loader *l, const struct json *n, enum cp_mtls *ret)
{
    static const struct {
        const char *name;
        enum cp_mtls mode;
    } modes[] = { { "UNSET", CP_MTLS_UNSET }, { "DISABLE", CP_MTLS_DISABLE }, { "PERMISSIVE", CP_MTLS_PERMISSIVE }, { "STRICT", CP_MTLS_STRICT } };
    struct str s = STR("UNSET");
    if (ld_members(l, n, "mode") || ld_str(l, n, "mode", &s)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < array_len(modes); i++) {
        if (str_is(s, modes[i].name)) {
            *ret = modes[i].mode;
            return 0;
        }
    }
    return ld_fail(l, json_get(n, "mode"), "\"%.*s\" is not one of UNSET, DISABLE, PERMISSIVE, STRICT", STR_FMT(s));
}

int ld_peer_authentication(struct loader *l, const struct json *spec)
{
    struct cp_peer_authentication p = { .meta = l->meta };
    const struct json *sel = json_get(spec, "selector"), *mtls = json_get(spec, "mtls"), *ports = json_get(spec, "portLevelMtls");
    if (ld_members(l, spec, "selector mtls portLevelMtls") ||
        (sel && (ld_members(l, sel, "matchLabels") || ld_labels(l, sel, "matchLabels", &p.selector))) ||
        (mtls && load_mode(l, mtls, &p.mode))) {
        return -EINVAL;
    }
    if (ports && ports->type != JSON_OBJECT) {
        return ld_fail(l, ports, "must be an object of ports");
    }
    if (ports && !p.selector.n) {
        return ld_fail(l, ports, "needs a selector: ports are those of workloads");
    }
    p.ports = arena_zalloc(l->a, sizeof(*p.ports) * ((ports ? ports->count : 0) + 1));
    for (const struct json *n = ports ? ports->first : NULL; n; n = n->next) {
        uint64_t v;
        if (!str_to_u64(n->key, 65535, &v)) {
            return ld_fail(l, n, "is not a port");
        }
        p.ports[p.port_count].port = (uint16_t)v;
        if (load_mode(l, n, &p.ports[p.port_count++].mode)) {
            return -EINVAL;
        }
    }
    *(struct cp_peer_authentication *)ld_grow(l, (void **)&l->c->peer_authentications, &l->c->peer_authentication_count, &l->pa_cap, sizeof(p)) = p;
    return 0;
}
