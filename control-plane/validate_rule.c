// SPDX-License-Identifier: Apache-2.0
// DestinationRule.
#include "control-plane/validate_int.h"
#include "lib/base/check.h"

static bool has_any(const struct json *n, const char *const *keys, size_t count)
{
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        found |= va_get(n, keys[i]) != NULL;
    }
    return found;
}

// ---- connectionPool, outlierDetection ----

static void not_negative(struct cp_validator *v, const struct json *n, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (va_number(va_get(n, keys[i])) < 0) {
            va_error(v, va_get(n, keys[i]), "must not be negative");
        }
    }
}

static void check_pool_tcp(struct cp_validator *v, const struct json *tcp)
{
    static const char *const counts[] = { "maxConnections" };
    const struct json *keepalive = va_get(tcp, "tcpKeepalive"), *idle = va_get(tcp, "idleTimeout");
    not_negative(v, tcp, counts, array_len(counts));
    va_duration(v, tcp, "connectTimeout");
    va_duration(v, tcp, "maxConnectionDuration");
    if (va_number(idle) != 0) { // 0s: never
        va_duration(v, tcp, "idleTimeout");
    }
    va_duration(v, keepalive, "time");
    va_duration(v, keepalive, "interval");
}

static void check_pool_http(struct cp_validator *v, const struct json *http)
{
    static const char *const counts[] = { "http1MaxPendingRequests", "http2MaxRequests", "maxRequestsPerConnection", "maxRetries",
                                          "maxConcurrentStreams" };
    static const char *const times[] = { "interval", "timeout" };
    const struct json *keepalive = va_get(http, "http2KeepAlive"), *client = va_get(http, "useClientProtocol");
    not_negative(v, http, counts, array_len(counts));
    va_duration(v, http, "idleTimeout");
    if (client && client->boolean && str_is(json_str(http, "h2UpgradePolicy"), "UPGRADE")) {
        va_error(v, client, "does not go with h2UpgradePolicy UPGRADE");
    }
    for (size_t i = 0; keepalive && i < array_len(times); i++) {
        if (!va_get(keepalive, times[i])) {
            va_error(v, keepalive, "%s: missing", times[i]);
        }
        va_duration(v, keepalive, times[i]);
    }
}

static void check_pool(struct cp_validator *v, const struct json *n)
{
    if (n && !va_get(n, "tcp") && !va_get(n, "http")) {
        va_error(v, n, "tcp or http is needed");
    }
    check_pool_tcp(v, va_get(n, "tcp"));
    check_pool_http(v, va_get(n, "http"));
}

static void check_outlier(struct cp_validator *v, const struct json *n)
{
    static const char *const percents[] = { "maxEjectionPercent", "minHealthPercent" };
    const struct json *split = va_get(n, "splitExternalLocalOriginErrors"), *local = va_get(n, "consecutiveLocalOriginFailures");
    va_duration(v, n, "baseEjectionTime");
    va_duration(v, n, "interval");
    if (va_number(va_get(n, "consecutiveErrors")) != 0) {
        va_warn(v, va_get(n, "consecutiveErrors"), "is the older form of consecutiveGatewayErrors and consecutive5xxErrors");
    }
    if (va_number(local) > 0 && !(split && split->boolean)) {
        va_error(v, local, "has an effect only with splitExternalLocalOriginErrors");
    }
    for (size_t i = 0; i < array_len(percents); i++) {
        double x = va_number(va_get(n, percents[i]));
        if (x < 0 || x > 100) {
            va_error(v, va_get(n, percents[i]), "must be from 0 to 100");
        }
    }
}

// ---- loadBalancer ----

static bool is_prime(uint64_t x)
{
    for (uint64_t d = 2; d * d <= x; d++) {
        if (x % d == 0) {
            return false;
        }
    }
    return x > 0;
}

static void check_hash(struct cp_validator *v, const struct json *n)
{
    enum { TABLE_MAX = 5000011 };
    const struct json *cookie = va_get(n, "httpCookie"), *maglev = va_get(n, "maglev"), *old = va_get(n, "minimumRingSize");
    if (cookie && !json_str(cookie, "name").n) {
        va_error(v, cookie, "name: missing");
    }
    const struct json *list = va_get(cookie, "attributes");
    for (const struct json *a = list ? list->first : NULL; a; a = a->next) {
        bool twice = false;
        for (const struct json *b = list->first; b != a; b = b->next) {
            twice |= str_eq(json_str(a, "name"), json_str(b, "name"));
        }
        if (!json_str(a, "name").n || twice) {
            va_error(v, list, "names must be there, and differ");
        }
    }
    if (va_number(old) != 0) {
        va_warn(v, old, "is the older form of ringHash.minimumRingSize");
        if (maglev || va_get(n, "ringHash")) {
            va_error(v, old, "does not go with ringHash or maglev");
        }
    }
    double size = va_number(va_get(maglev, "tableSize"));
    if (maglev && (size < 1 || size >= TABLE_MAX || !is_prime((uint64_t)size))) {
        va_error(v, maglev, "tableSize: must be a prime number below %d", TABLE_MAX);
    }
}

struct place { // a locality: region, zone, sub-zone; empty from some on
    struct str part[3];
    size_t n;
};

static bool parse_place(struct str s, struct place *p)
{
    bool good = true;
    *p = (struct place){ 0 };
    for (struct str rest = s; rest.p && good; p->n++) {
        p->part[p->n] = p->n == 2 ? rest : str_split(&rest, '/');
        good = p->part[p->n].n > 0;
        rest = p->n == 2 ? str_n(NULL, 0) : rest;
    }
    return good && p->n > 0;
}

// a was named before b and holds it, as Istio looks at it.
static bool overlap(const struct place *a, const struct place *b)
{
    if (str_is(a->part[0], "*") || (str_eq(a->part[0], b->part[0]) && (a->n == 1 || b->n == 1))) {
        return true;
    }
    if (!str_eq(a->part[0], b->part[0])) {
        return false;
    }
    if (str_is(a->part[1], "*") || (str_eq(a->part[1], b->part[1]) && (a->n == 2 || b->n == 2))) {
        return true;
    }
    return str_eq(a->part[1], b->part[1]) && (str_is(a->part[2], "*") || str_eq(a->part[2], b->part[2]));
}

static void check_places(struct cp_validator *v, const struct json *at, const struct str *names, size_t n)
{
    struct place *seen = arena_array(v->a, struct place, n + 1);
    for (size_t i = 0; i < n; i++) {
        ptrdiff_t star = str_find(names[i], '*');
        if (!parse_place(names[i], &seen[i]) || (star >= 0 && (size_t)star + 1 != names[i].n)) {
            va_error(v, at, "\"%.*s\" is no locality: REGION/ZONE/SUBZONE, with one * at the end at most", STR_FMT(names[i]));
            return;
        }
        for (size_t k = 0; k < i; k++) {
            if (overlap(&seen[k], &seen[i])) {
                va_error(v, at, "\"%.*s\" and \"%.*s\" overlap", STR_FMT(names[k]), STR_FMT(names[i]));
                return;
            }
        }
    }
}

// false: something is wrong that Istio stops at.
static bool check_distribute(struct cp_validator *v, const struct json *list)
{
    struct str *from = arena_array(v->a, struct str, (list ? list->count : 0) + 1);
    size_t n = 0;
    for (const struct json *d = list ? list->first : NULL; d; d = d->next) {
        const struct json *to = va_get(d, "to");
        struct str *names = arena_array(v->a, struct str, (to ? to->count : 0) + 1);
        size_t k = 0;
        double sum = 0;
        from[n++] = json_str(d, "from");
        for (const struct json *w = to ? to->first : NULL; w; w = w->next) {
            names[k++] = w->key;
            sum += va_number(w);
            if (va_number(w) < 1 || va_number(w) > 100) {
                va_error(v, w, "must be a weight from 1 to 100");
                return false;
            }
        }
        if (sum != 100) {
            va_error(v, to ? to : d, "the weights must add up to 100, not %g", sum);
            return false;
        }
        check_places(v, to, names, k);
    }
    check_places(v, list, from, n);
    return true;
}

static void check_failover(struct cp_validator *v, const struct json *n)
{
    for (const struct json *f = va_first(n, "failover"); f; f = f->next) {
        struct str from = json_str(f, "from"), to = json_str(f, "to");
        bool region = str_find(from, '/') < 0 && str_find(to, '/') < 0 && str_find(from, '*') < 0 && str_find(to, '*') < 0;
        if (str_eq(from, to) || !region) {
            va_error(v, va_get(n, "failover"), "from and to must be two different regions");
        }
    }
}

static bool names_topology(const struct json *priority)
{
    static const char *const labels[] = { "topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone" };
    bool found = false;
    for (const struct json *p = priority ? priority->first : NULL; p; p = p->next) {
        for (size_t i = 0; i < array_len(labels); i++) {
            found |= str_is(p->text, labels[i]);
        }
    }
    return found;
}

static void check_locality(struct cp_validator *v, const struct json *n, bool zone_aware, bool outlier)
{
    const struct json *distribute = va_get(n, "distribute"), *priority = va_get(n, "failoverPriority");
    bool failover = va_first(n, "failover") != NULL;
    if (!n) {
        return;
    }
    if (!zone_aware && distribute && distribute->count && failover) {
        va_error(v, n, "distribute and failover exclude each other");
        return;
    }
    if (names_topology(priority) && (failover || zone_aware)) {
        va_error(v, priority, "labels of places go neither with failover nor with zoneAwareLbSetting");
        if (!zone_aware) {
            return;
        }
    }
    if (!zone_aware && !check_distribute(v, distribute)) {
        return;
    }
    if ((failover || (priority && priority->count)) && !outlier) {
        va_warn(v, n, "failover needs outlierDetection beside it: nothing else tells that a place has failed");
    }
    check_failover(v, n);
}

static void check_lb(struct cp_validator *v, const struct json *n, bool outlier)
{
    const struct json *warm = va_get(n, "warmup"), *locality = va_get(n, "localityLbSetting"), *zone = va_get(n, "zoneAwareLbSetting");
    check_hash(v, va_get(n, "consistentHash"));
    if (locality && zone) {
        va_error(v, zone, "does not go with localityLbSetting");
    }
    check_locality(v, locality, false, outlier);
    check_locality(v, zone, true, outlier);
    if (!warm) {
        return;
    }
    if (!va_get(warm, "duration")) {
        va_error(v, warm, "duration: missing");
    }
    va_duration(v, warm, "duration");
    if (va_number(va_get(warm, "minimumPercent")) > 100) {
        va_error(v, va_get(warm, "minimumPercent"), "must be at most 100");
    }
    if (va_get(warm, "aggression") && va_number(va_get(warm, "aggression")) <= 0) {
        va_error(v, va_get(warm, "aggression"), "must be above 0");
    }
}

// ---- tls, tunnel, the whole ----

static void check_tls(struct cp_validator *v, const struct json *n)
{
    struct str mode = json_str(n, "mode"), roots = json_str(n, "caCertificates"), credential = json_str(n, "credentialName");
    bool simple = str_is(mode, "SIMPLE"), mutual = str_is(mode, "MUTUAL");
    const struct json *skip = va_get(n, "insecureSkipVerify");
    bool names = va_first(n, "subjectAltNames") != NULL;
    if (skip && skip->boolean && ((simple && (roots.n || credential.n || names)) || (mutual && (roots.n || names)))) {
        va_error(v, skip, "goes with neither caCertificates nor subjectAltNames");
    }
    bool certificate = json_str(n, "clientCertificate").n, key = json_str(n, "privateKey").n;
    if ((simple || mutual) && credential.n) {
        if (certificate || key || roots.n || json_str(n, "caCrl").n) {
            va_error(v, va_get(n, "credentialName"), "goes with no files beside it");
        }
    } else if (mutual && (!certificate || !key)) {
        va_error(v, n, "MUTUAL needs clientCertificate and privateKey");
    }
}

static void check_tunnel(struct cp_validator *v, const struct json *n)
{
    struct str protocol = json_str(n, "protocol"), host = json_str(n, "targetHost");
    if (!n) {
        return;
    }
    if (protocol.n && !str_is(protocol, "CONNECT") && !str_is(protocol, "POST")) {
        va_error(v, va_get(n, "protocol"), "must be CONNECT or POST");
    }
    if (!va_is_domain(host) && !va_is_ip(host)) {
        va_error(v, n, "targetHost: \"%.*s\" is no host name and no address", STR_FMT(host));
    }
    va_port(v, n, va_get(n, "targetPort"));
}

static void check_ports(struct cp_validator *v, const struct json *list)
{
    static const char *const blocks[] = { "outlierDetection", "connectionPool", "loadBalancer", "tls" };
    bool muted = v->muted;
    v->muted = true; // as in Istio
    for (const struct json *p = list ? list->first : NULL; p; p = p->next) {
        if (!va_get(p, "port")) {
            va_error(v, p, "port: missing");
        }
        if (!has_any(p, blocks, array_len(blocks))) {
            va_error(v, p, "outlierDetection, connectionPool, loadBalancer or tls is needed");
            continue;
        }
        check_outlier(v, va_get(p, "outlierDetection"));
        check_pool(v, va_get(p, "connectionPool"));
        check_lb(v, va_get(p, "loadBalancer"), va_get(p, "outlierDetection") != NULL);
        check_tls(v, va_get(p, "tls"));
    }
    v->muted = muted;
}

void va_traffic_policy(struct cp_validator *v, const struct json *at, const struct json *policy)
{
    static const char *const blocks[] = { "outlierDetection", "connectionPool", "loadBalancer", "tls",
                                          "portLevelSettings", "tunnel", "proxyProtocol", "retryBudget" };
    if (!policy) {
        return;
    }
    if (!has_any(policy, blocks, array_len(blocks))) {
        va_error(v, at, "trafficPolicy: is empty");
        return;
    }
    if (va_get(policy, "tunnel") && va_get(policy, "proxyProtocol")) {
        va_error(v, va_get(policy, "tunnel"), "does not go with proxyProtocol");
        return;
    }
    check_outlier(v, va_get(policy, "outlierDetection"));
    check_pool(v, va_get(policy, "connectionPool"));
    check_lb(v, va_get(policy, "loadBalancer"), va_get(policy, "outlierDetection") != NULL);
    check_tls(v, va_get(policy, "tls"));
    check_ports(v, va_get(policy, "portLevelSettings"));
    check_tunnel(v, va_get(policy, "tunnel"));
}

void va_destination_rule(struct cp_validator *v, const struct json *spec)
{
    const struct json *list = va_get(spec, "subsets"), *selector = va_get(spec, "workloadSelector");
    if (!va_is_wild_domain(json_str(spec, "host"))) {
        va_error(v, va_get(spec, "host") ? va_get(spec, "host") : spec, "\"%.*s\" is no host name", STR_FMT(json_str(spec, "host")));
    }
    va_traffic_policy(v, va_get(spec, "trafficPolicy"), va_get(spec, "trafficPolicy"));
    for (const struct json *s = list ? list->first : NULL; s; s = s->next) {
        struct str name = json_str(s, "name");
        for (const struct json *o = list->first; o != s; o = o->next) {
            if (str_eq(json_str(o, "name"), name)) {
                va_error(v, s, "there is a subset \"%.*s\" already", STR_FMT(name));
            }
        }
        if (!va_is_label(name)) {
            va_error(v, s, "name: \"%.*s\" is no name of a subset", STR_FMT(name));
        }
        va_labels(v, s, "labels");
        v->muted = true;
        va_traffic_policy(v, s, va_get(s, "trafficPolicy"));
        v->muted = false;
    }
    va_export(v, spec, false, selector != NULL);
    va_selector(v, selector, "matchLabels", "holds for no workload in particular without labels");
}
