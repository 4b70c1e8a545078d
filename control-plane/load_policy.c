// SPDX-License-Identifier: Apache-2.0
// trafficPolicy: the blocks of a DestinationRule, of its subsets and ports.
#include <errno.h>
#include <stdlib.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"

// ---- connectionPool ----

static int load_keepalive(struct loader *l, const struct json *tcp, struct cp_pool *p)
{
    const struct json *n = NULL;
    if (ld_object(l, tcp, "tcpKeepalive", &n)) {
        return -EINVAL;
    }
    p->keepalive = n != NULL;
    return n && (ld_members(l, n, "probes time interval") || ld_u32(l, n, "probes", 1000, &p->keepalive_probes) ||
                 ld_duration(l, n, "time", &p->keepalive_time) || ld_duration(l, n, "interval", &p->keepalive_interval))
               ? -EINVAL
               : 0;
}

static int load_pool_tcp(struct loader *l, const struct json *tcp, struct cp_pool *p)
{
    if (ld_members(l, tcp, "maxConnections connectTimeout tcpKeepalive maxConnectionDuration idleTimeout") ||
        ld_u32(l, tcp, "maxConnections", INT32_MAX, &p->max_connections) || ld_duration(l, tcp, "connectTimeout", &p->connect_timeout) ||
        ld_duration(l, tcp, "maxConnectionDuration", &p->max_duration) || ld_duration(l, tcp, "idleTimeout", &p->tcp_idle) ||
        load_keepalive(l, tcp, p)) {
        return -EINVAL;
    }
    if (p->connect_timeout.n && strtod(p->connect_timeout.p, NULL) < 0.001) {
        return ld_fail(l, json_get(tcp, "connectTimeout"), "must be at least 1ms");
    }
    return 0;
}

static int load_pool_http(struct loader *l, const struct json *http, struct cp_pool *p)
{
    static const int upgrades[] = { 0, -1, 1 };
    const struct json *ka = NULL;
    int upgrade = 0;
    if (ld_members(l, http, "http1MaxPendingRequests http2MaxRequests maxRequestsPerConnection maxRetries idleTimeout h2UpgradePolicy "
                            "useClientProtocol maxConcurrentStreams http2KeepAlive") ||
        ld_u32(l, http, "http1MaxPendingRequests", INT32_MAX, &p->max_pending) ||
        ld_u32(l, http, "http2MaxRequests", INT32_MAX, &p->max_requests) ||
        ld_u32(l, http, "maxRequestsPerConnection", INT32_MAX, &p->max_requests_per_connection) ||
        ld_u32(l, http, "maxRetries", INT32_MAX, &p->max_retries) || ld_duration(l, http, "idleTimeout", &p->http_idle) ||
        ld_word(l, http, "h2UpgradePolicy", "DEFAULT DO_NOT_UPGRADE UPGRADE", &upgrade) ||
        ld_bool(l, http, "useClientProtocol", &p->use_client_protocol) ||
        ld_u32(l, http, "maxConcurrentStreams", INT32_MAX, &p->max_streams) || ld_object(l, http, "http2KeepAlive", &ka)) {
        return -EINVAL;
    }
    p->h2_upgrade = upgrades[upgrade];
    return ka && (ld_members(l, ka, "interval timeout") || ld_duration(l, ka, "interval", &p->h2_interval) ||
                  ld_duration(l, ka, "timeout", &p->h2_timeout))
               ? -EINVAL
               : 0;
}

static int load_pool(struct loader *l, const struct json *n, struct cp_policy *ret)
{
    const struct json *m = NULL, *tcp = NULL, *http = NULL;
    if (ld_object(l, n, "connectionPool", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    struct cp_pool *p = arena_new(l->a, struct cp_pool);
    ret->pool = p;
    return ld_members(l, m, "tcp http") || ld_object(l, m, "tcp", &tcp) || ld_object(l, m, "http", &http) || (tcp && load_pool_tcp(l, tcp, p)) ||
                   (http && load_pool_http(l, http, p))
               ? -EINVAL
               : 0;
}

// ---- loadBalancer ----

static int load_cookie(struct loader *l, const struct json *n, struct cp_hash *h)
{
    const struct json *list = NULL;
    if (ld_members(l, n, "name path ttl attributes") || ld_str(l, n, "name", &h->name) || ld_str(l, n, "path", &h->path) ||
        ld_duration(l, n, "ttl", &h->ttl) || ld_list(l, n, "attributes", &list)) {
        return -EINVAL;
    }
    h->attributes = arena_array(l->a, struct cp_label, (list ? list->count : 0) + 1);
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        struct cp_label *a = &h->attributes[h->attribute_count++];
        if (ld_members(l, x, "name value") || ld_str(l, x, "name", &a->key) || ld_str(l, x, "value", &a->value)) {
            return -EINVAL;
        }
    }
    return h->name.n ? 0 : ld_fail(l, n, "name: missing");
}

static int load_u64(struct loader *l, const struct json *n, const char *key, uint64_t max, uint64_t *ret)
{
    const struct json *m = json_get(n, key);
    if (m && !str_to_u64(m->text, max, ret)) {
        return ld_fail(l, m, "must be a number from 0 to %llu", (unsigned long long)max);
    }
    return 0;
}

static int load_table(struct loader *l, const struct json *n, struct cp_hash *h)
{
    enum { RING_MAX = 8 * 1024 * 1024, MAGLEV_MAX = 5000011 }; // Envoy's limits of both tables
    const struct json *ring = NULL, *maglev = NULL;
    if (ld_object(l, n, "ringHash", &ring) || ld_object(l, n, "maglev", &maglev) ||
        (ring && (ld_members(l, ring, "minimumRingSize") || load_u64(l, ring, "minimumRingSize", RING_MAX, &h->size))) ||
        (maglev && (ld_members(l, maglev, "tableSize") || load_u64(l, maglev, "tableSize", MAGLEV_MAX, &h->size))) ||
        (!ring && !maglev && load_u64(l, n, "minimumRingSize", RING_MAX, &h->size))) {
        return -EINVAL;
    }
    h->maglev = maglev != NULL;
    h->legacy = !ring && !maglev;
    if (maglev && h->size) {
        for (uint64_t d = 2; d * d <= h->size || h->size < 2; d++) {
            if (h->size < 2 || h->size % d == 0) {
                return ld_fail(l, maglev, "tableSize: must be a prime number");
            }
        }
    }
    return ring && maglev ? ld_fail(l, maglev, "ringHash and maglev exclude each other") : 0;
}

static int load_hash(struct loader *l, const struct json *n, struct cp_hash *h)
{
    const struct json *cookie = NULL;
    bool source = false;
    struct str header = { 0 }, query = { 0 };
    if (ld_members(l, n, "httpHeaderName httpCookie useSourceIp httpQueryParameterName minimumRingSize ringHash maglev") ||
        ld_str(l, n, "httpHeaderName", &header) || ld_str(l, n, "httpQueryParameterName", &query) || ld_bool(l, n, "useSourceIp", &source) ||
        ld_object(l, n, "httpCookie", &cookie) || (cookie && load_cookie(l, cookie, h)) || load_table(l, n, h)) {
        return -EINVAL;
    }
    if ((header.n > 0) + (query.n > 0) + source + (cookie != NULL) != 1) {
        return ld_fail(l, n, "exactly one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName is needed");
    }
    h->key = header.n ? CP_HASH_HEADER : query.n ? CP_HASH_QUERY : source ? CP_HASH_SOURCE_IP : CP_HASH_COOKIE;
    h->name = header.n ? header : query.n ? query : h->name;
    return 0;
}

static int load_distribute(struct loader *l, const struct json *n, struct cp_locality_lb *lo)
{
    const struct json *list = NULL;
    if (ld_list(l, n, "distribute", &list)) {
        return -EINVAL;
    }
    lo->distribute = arena_array(l->a, struct cp_distribute, (list ? list->count : 0) + 1);
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        struct cp_distribute *d = &lo->distribute[lo->distribute_count++];
        struct cp_labels to = { 0 };
        uint64_t sum = 0, v;
        if (ld_members(l, x, "from to") || ld_str(l, x, "from", &d->from) || ld_labels(l, x, "to", &to)) {
            return -EINVAL;
        }
        for (size_t i = 0; i < to.n; i++) {
            if (!str_to_u64(to.v[i].value, 100, &v) || !v) {
                return ld_fail(l, json_get(x, "to"), "\"%.*s\" is not a weight from 1 to 100", STR_FMT(to.v[i].value));
            }
            sum += v;
        }
        if (sum != 100) {
            return ld_fail(l, json_get(x, "to") ? json_get(x, "to") : x, "the weights must add up to 100, not %llu", (unsigned long long)sum);
        }
        d->to = to.v;
        d->to_count = to.n;
    }
    return 0;
}

static int load_locality(struct loader *l, const struct json *n, struct cp_lb *lb)
{
    const struct json *m = NULL, *list = NULL;
    bool enabled = true;
    if (ld_object(l, n, "localityLbSetting", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    struct cp_locality_lb *lo = lb->locality = arena_new(l->a, struct cp_locality_lb);
    if (ld_members(l, m, "enabled distribute failover failoverPriority") || ld_bool(l, m, "enabled", &enabled) || load_distribute(l, m, lo) ||
        ld_list(l, m, "failover", &list) || ld_strs(l, m, "failoverPriority", &lo->priority, &lo->priority_count)) {
        return -EINVAL;
    }
    lo->disabled = !enabled;
    lo->failover = arena_array(l->a, struct cp_label, (list ? list->count : 0) + 1);
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        struct cp_label *f = &lo->failover[lo->failover_count++];
        if (ld_members(l, x, "from to") || ld_str(l, x, "from", &f->key) || ld_str(l, x, "to", &f->value)) {
            return -EINVAL;
        }
        if (str_find(f->key, '/') >= 0 || str_find(f->value, '/') >= 0 || str_eq(f->key, f->value) || !f->key.n || !f->value.n) {
            return ld_fail(l, list, "from and to must be two different regions");
        }
    }
    for (size_t i = 0; lo->failover_count && i < lo->priority_count; i++) {
        if (str_starts(lo->priority[i], STR("topology.kubernetes.io/")) || str_starts(lo->priority[i], STR("topology.istio.io/subzone"))) {
            return ld_fail(l, json_get(m, "failoverPriority"), "\"%.*s\" says by itself what failover says", STR_FMT(lo->priority[i]));
        }
    }
    if (lo->distribute_count && (lo->failover_count || lo->priority_count)) {
        return ld_fail(l, m, "distribute goes with neither failover nor failoverPriority");
    }
    return 0;
}

static int load_warmup(struct loader *l, const struct json *n, struct cp_lb *lb)
{
    const struct json *m = NULL;
    if (ld_object(l, n, "warmup", &m) || ld_duration(l, n, "warmupDurationSecs", &lb->warmup)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    lb->warmup_full = true;
    lb->warmup_percent = 10; // Istio's defaults
    lb->warmup_aggression = 1;
    if (ld_members(l, m, "duration minimumPercent aggression") || ld_duration(l, m, "duration", &lb->warmup) ||
        ld_number(l, m, "minimumPercent", 0, 100, &lb->warmup_percent, NULL) ||
        ld_number(l, m, "aggression", 1e-6, 1e6, &lb->warmup_aggression, NULL)) {
        return -EINVAL;
    }
    return lb->warmup.n ? 0 : ld_fail(l, m, "duration: missing");
}

static int load_lb(struct loader *l, const struct json *n, struct cp_policy *p)
{
    const struct json *m = NULL, *hash = NULL;
    int simple = 0;
    static const char *const names[] = { "", "LEAST_REQUEST", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST" };
    if (ld_object(l, n, "loadBalancer", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    struct cp_lb *lb = arena_new(l->a, struct cp_lb);
    p->lb = lb;
    if (ld_members(l, m, "simple consistentHash localityLbSetting warmup warmupDurationSecs") ||
        ld_word(l, m, "simple", "UNSPECIFIED LEAST_CONN RANDOM PASSTHROUGH ROUND_ROBIN LEAST_REQUEST", &simple) ||
        ld_object(l, m, "consistentHash", &hash) || (hash && load_hash(l, hash, &lb->hash)) || load_locality(l, m, lb) || load_warmup(l, m, lb)) {
        return -EINVAL;
    }
    lb->simple = str_c(names[simple]);
    if (hash && json_get(m, "simple")) {
        return ld_fail(l, hash, "simple and consistentHash exclude each other");
    }
    if (lb->warmup.n && (hash || str_is(lb->simple, "RANDOM") || str_is(lb->simple, "PASSTHROUGH"))) {
        return ld_fail(l, m, "warmup goes with ROUND_ROBIN and LEAST_REQUEST only");
    }
    return 0;
}

// ---- outlierDetection, tls, the rest ----

static int load_outlier(struct loader *l, const struct json *n, struct cp_policy *p)
{
    const struct json *m = NULL;
    if (ld_object(l, n, "outlierDetection", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    struct cp_outlier *o = arena_new(l->a, struct cp_outlier);
    p->outlier = o;
    o->has_5xx = json_get(m, "consecutive5xxErrors") != NULL;
    o->has_gateway = json_get(m, "consecutiveGatewayErrors") != NULL;
    return ld_members(l, m, "consecutive5xxErrors consecutiveGatewayErrors interval baseEjectionTime maxEjectionPercent minHealthPercent "
                            "splitExternalLocalOriginErrors consecutiveLocalOriginFailures") ||
                   ld_u32(l, m, "consecutive5xxErrors", INT32_MAX, &o->consecutive_5xx) ||
                   ld_u32(l, m, "consecutiveGatewayErrors", INT32_MAX, &o->consecutive_gateway) ||
                   ld_u32(l, m, "maxEjectionPercent", 100, &o->max_ejection_percent) ||
                   ld_u32(l, m, "minHealthPercent", 100, &o->min_health_percent) ||
                   ld_bool(l, m, "splitExternalLocalOriginErrors", &o->split) ||
                   ld_u32(l, m, "consecutiveLocalOriginFailures", INT32_MAX, &o->consecutive_local) ||
                   ld_duration(l, m, "interval", &o->interval) || ld_duration(l, m, "baseEjectionTime", &o->base)
               ? -EINVAL
               : 0;
}

static int check_tls(struct loader *l, const struct json *m, const struct cp_tls *t)
{
    if (t->mode == CP_TLS_MUTUAL && (!t->certificate.n || !t->key.n)) {
        return ld_fail(l, m, "MUTUAL needs clientCertificate and privateKey");
    }
    bool own = t->mode == CP_TLS_SIMPLE || t->mode == CP_TLS_MUTUAL;
    if (!own && t->skip_verify) {
        return ld_fail(l, m, "insecureSkipVerify goes with SIMPLE and MUTUAL");
    }
    return 0;
}

static int load_tls(struct loader *l, const struct json *n, struct cp_policy *p)
{
    const struct json *m = NULL;
    int mode = 0;
    if (ld_object(l, n, "tls", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    struct cp_tls *t = arena_new(l->a, struct cp_tls);
    p->tls = t;
    if (json_get(m, "credentialName")) {
        return ld_fail(l, json_get(m, "credentialName"), "not supported: there are no Kubernetes secrets here; name files on the workload");
    }
    if (ld_members(l, m, "mode clientCertificate privateKey caCertificates caCrl sni subjectAltNames insecureSkipVerify") ||
        ld_word(l, m, "mode", "DISABLE SIMPLE MUTUAL ISTIO_MUTUAL", &mode) || ld_str(l, m, "clientCertificate", &t->certificate) ||
        ld_str(l, m, "privateKey", &t->key) || ld_str(l, m, "caCertificates", &t->roots) || ld_str(l, m, "caCrl", &t->crl) ||
        ld_str(l, m, "sni", &t->sni) || ld_strs(l, m, "subjectAltNames", &t->names, &t->name_count) ||
        ld_bool(l, m, "insecureSkipVerify", &t->skip_verify)) {
        return -EINVAL;
    }
    t->mode = (enum cp_tls_mode)mode;
    return check_tls(l, m, t);
}

static int load_tunnel(struct loader *l, const struct json *n, struct cp_policy *p)
{
    const struct json *m = NULL;
    int protocol = 0;
    if (ld_object(l, n, "tunnel", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    struct cp_tunnel *t = arena_new(l->a, struct cp_tunnel);
    if (ld_members(l, m, "protocol targetHost targetPort") || ld_word(l, m, "protocol", "CONNECT POST", &protocol) ||
        ld_str(l, m, "targetHost", &t->host) || ld_port(l, m, "targetPort", &t->port)) {
        return -EINVAL;
    }
    if (!t->host.n || !t->port) {
        return ld_fail(l, m, t->host.n ? "targetPort: missing" : "targetHost: missing");
    }
    t->post = protocol == 1;
    p->tunnel = t;
    return 0;
}

static int load_rest(struct loader *l, const struct json *n, struct cp_policy *p)
{
    const struct json *pp = NULL, *rb = NULL;
    int version = 0;
    if (ld_object(l, n, "proxyProtocol", &pp) || ld_object(l, n, "retryBudget", &rb) ||
        (pp && (ld_members(l, pp, "version") || ld_word(l, pp, "version", "V1 V2", &version)))) {
        return -EINVAL;
    }
    p->proxy_protocol = pp ? version + 1 : 0;
    if (!rb) {
        return 0;
    }
    struct cp_budget *b = arena_new(l->a, struct cp_budget);
    *b = (struct cp_budget){ .percent = 20, .min = 3 }; // Istio's defaults
    if (ld_members(l, rb, "percent budgetInterval minRetryConcurrency") || ld_duration(l, rb, "budgetInterval", &b->interval) ||
        ld_u32(l, rb, "minRetryConcurrency", INT32_MAX, &b->min) || ld_number(l, rb, "percent", 0, 100, &b->percent, NULL)) {
        return -EINVAL;
    }
    b->min = b->min ? b->min : 3;
    p->budget = b;
    return 0;
}

static int load_blocks(struct loader *l, const struct json *n, struct cp_policy *p)
{
    return load_pool(l, n, p) || load_lb(l, n, p) || load_outlier(l, n, p) || load_tls(l, n, p) ? -EINVAL : 0;
}

static int load_port_policies(struct loader *l, const struct json *n, struct cp_policy *p)
{
    const struct json *list = NULL;
    if (ld_list(l, n, "portLevelSettings", &list)) {
        return -EINVAL;
    }
    p->ports = arena_array(l->a, struct cp_port_policy, (list ? list->count : 0) + 1);
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        struct cp_port_policy *pp = &p->ports[p->port_count++];
        const struct json *port = NULL;
        if (ld_members(l, x, "port loadBalancer connectionPool outlierDetection tls") || ld_object(l, x, "port", &port) ||
            (port && (ld_members(l, port, "number") || ld_port(l, port, "number", &pp->port))) || load_blocks(l, x, &pp->policy)) {
            return -EINVAL;
        }
        if (!pp->port) {
            return ld_fail(l, x, "port.number: missing");
        }
    }
    return 0;
}

int ld_traffic_policy(struct loader *l, const struct json *n, struct cp_policy *p)
{
    return ld_members(l, n, "connectionPool loadBalancer outlierDetection tls portLevelSettings proxyProtocol retryBudget tunnel") ||
                   load_blocks(l, n, p) || load_rest(l, n, p) || load_tunnel(l, n, p) || load_port_policies(l, n, p)
               ? -EINVAL
               : 0;
}
