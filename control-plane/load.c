// SPDX-License-Identifier: Apache-2.0
// YAML → struct cp_config. Strict: an unknown kind, field or value is an error that names file, line and field.
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "control-plane/model.h"
#include "lib/base/check.h"
#include "lib/base/file.h"
#include "lib/base/json.h"
#include "lib/base/mem.h"
#include "lib/net/cidr.h"

enum { FILE_BYTES_MAX = 8 * 1024 * 1024, FILES_MAX = 4096, DEPTH_MAX = 16, OBJECTS_MAX = 50000, WEIGHT_MAX = 1000000 };

struct loader {
    struct cp_config *c;
    struct arena *a;
    const char *file; // in arena
    struct err *err;
    struct cp_meta meta;
    // growing lists
    size_t service_cap, workload_cap, workload_meta_cap, vs_cap, dr_cap, pa_cap;
    struct cp_selector { size_t service; struct cp_labels labels; } *selectors; // services that select workloads
    size_t selector_count, selector_cap;
};

static __attribute__((format(printf, 3, 4))) int fail(struct loader *l, const struct json *n, const char *fmt, ...)
{
    char text[ERR_MSG_MAX / 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n && n->key.n) {
        return err_set(l->err, -EINVAL, "%s:%d: %.*s: %s", l->file, n->line, STR_FMT(n->key), text);
    }
    return err_set(l->err, -EINVAL, "%s:%d: %s", l->file, n ? n->line : 0, text);
}

// n must be an object with no other members than the space-separated names in known.
static int check_members(struct loader *l, const struct json *n, const char *known)
{
    if (n->type != JSON_OBJECT) {
        return fail(l, n, "must be an object");
    }
    for (const struct json *m = n->first; m; m = m->next) {
        struct str rest = str_c(known);
        bool found = false;
        while (rest.n && !found) {
            found = str_eq(str_split(&rest, ' '), m->key);
        }
        if (!found) {
            return fail(l, m, "unknown or unsupported field; known here: %s", known);
        }
    }
    return 0;
}

static int get_str(struct loader *l, const struct json *n, const char *key, struct str *ret)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != JSON_STRING && !(m->plain && (m->type == JSON_NUMBER || m->type == JSON_BOOL))) {
        return fail(l, m, "must be text");
    }
    *ret = arena_str(l->a, m->text);
    return 0;
}

static int num_of(struct loader *l, const struct json *m, uint64_t max, uint64_t *ret)
{
    if (!str_to_u64(m->text, max, ret)) {
        return fail(l, m, "must be a number from 0 to %llu", (unsigned long long)max);
    }
    return 0;
}

static int get_u32(struct loader *l, const struct json *n, const char *key, uint64_t max, uint32_t *ret)
{
    const struct json *m = json_get(n, key);
    uint64_t v;
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (num_of(l, m, max, &v)) {
        return -EINVAL;
    }
    *ret = (uint32_t)v;
    return 0;
}

static int get_port(struct loader *l, const struct json *n, const char *key, uint16_t *ret)
{
    uint32_t v = *ret;
    if (get_u32(l, n, key, 65535, &v)) {
        return -EINVAL;
    }
    *ret = (uint16_t)v;
    return 0;
}

static int get_bool(struct loader *l, const struct json *n, const char *key, bool *ret)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != JSON_BOOL) {
        return fail(l, m, "must be true or false");
    }
    *ret = m->boolean;
    return 0;
}

// Durations as Istio writes them: "10s", "1.5s", "500ms", "1m", "1h". Stored in seconds form for protobuf's JSON ("0.5s").
static int get_duration(struct loader *l, const struct json *n, const char *key, struct str *ret)
{
    struct str s = { 0 };
    if (get_str(l, n, key, &s) || !s.n) {
        return s.n ? 0 : l->err->code;
    }
    static const struct {
        const char *unit;
        double seconds;
    } units[] = { { "ms", 0.001 }, { "us", 1e-6 }, { "s", 1 }, { "m", 60 }, { "h", 3600 } };
    char *end;
    double v = strtod(s.p, &end);
    for (size_t i = 0; i < array_len(units); i++) {
        if (end != s.p && !strcmp(end, units[i].unit) && v >= 0 && v < 1e9) {
            *ret = arena_printf(l->a, "%.6fs", v * units[i].seconds);
            return 0;
        }
    }
    return fail(l, json_get(n, key), "\"%.*s\" is not a duration such as 10s, 500ms or 1m", STR_FMT(s));
}

static int get_strs(struct loader *l, const struct json *n, const char *key, struct str **ret, size_t *ret_n)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != JSON_ARRAY) {
        return fail(l, m, "must be a list");
    }
    *ret = arena_array(l->a, struct str, m->count + 1);
    for (const struct json *x = m->first; x; x = x->next) {
        if (x->type != JSON_STRING && !x->plain) {
            return fail(l, m, "must hold text");
        }
        (*ret)[(*ret_n)++] = arena_str(l->a, x->text);
    }
    return 0;
}

static int get_labels(struct loader *l, const struct json *n, const char *key, struct cp_labels *ret)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != JSON_OBJECT) {
        return fail(l, m, "must be an object of texts");
    }
    ret->v = arena_array(l->a, struct cp_label, m->count + 1);
    for (const struct json *x = m->first; x; x = x->next) {
        if (x->type == JSON_OBJECT || x->type == JSON_ARRAY || x->type == JSON_NULL) {
            return fail(l, x, "must be text");
        }
        ret->v[ret->n++] = (struct cp_label){ arena_str(l->a, x->key), arena_str(l->a, x->text) };
    }
    return 0;
}

static void *grow(struct loader *l, void **v, size_t *n, size_t *cap, size_t size)
{
    if (*n == *cap) {
        size_t want = *cap ? *cap * 2 : 16;
        void *p = arena_zalloc(l->a, want * size);
        if (*n) {
            memcpy(p, *v, *n * size);
        }
        *v = p;
        *cap = want;
    }
    return (char *)*v + size * (*n)++;
}

// ---- ServiceEntry, WorkloadEntry ----

static int load_endpoint(struct loader *l, const struct json *n, struct cp_endpoint *e)
{
    struct cp_labels ports = { 0 };
    if (check_members(l, n, "address ports labels network locality weight serviceAccount") || get_str(l, n, "address", &e->address) ||
        get_labels(l, n, "ports", &ports) || get_labels(l, n, "labels", &e->labels) || get_str(l, n, "locality", &e->locality) ||
        get_u32(l, n, "weight", WEIGHT_MAX, &e->weight) || get_str(l, n, "serviceAccount", &e->service_account)) {
        return -EINVAL;
    }
    if (!e->address.n) {
        return fail(l, n, "address: missing");
    }
    for (size_t i = 0; i < ports.n; i++) {
        uint64_t v;
        if (!str_to_u64(ports.v[i].value, 65535, &v) || v == 0) {
            return fail(l, json_get(n, "ports"), "\"%.*s\" is not a port", STR_FMT(ports.v[i].value));
        }
    }
    e->ports = ports.v;
    e->port_count = ports.n;
    e->ns = l->meta.ns;
    return 0;
}

static int load_workload(struct loader *l, const struct json *spec)
{
    struct cp_endpoint e = { 0 };
    if (load_endpoint(l, spec, &e)) {
        return -EINVAL;
    }
    struct addr a;
    if (!addr_parse_ip(e.address, 0, &a)) {
        return fail(l, json_get(spec, "address"), "\"%.*s\" is not an IP address", STR_FMT(e.address));
    }
    size_t n = l->c->workload_count;
    *(struct cp_endpoint *)grow(l, (void **)&l->c->workloads, &l->c->workload_count, &l->workload_cap, sizeof(e)) = e;
    *(struct cp_meta *)grow(l, (void **)&l->c->workload_meta, &n, &l->workload_meta_cap, sizeof(l->meta)) = l->meta;
    return 0;
}

static int load_protocol(struct loader *l, const struct json *n, struct cp_port *p)
{
    static const char *const http[] = { "HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY" };
    static const char *const tcp[] = { "TCP", "TLS", "HTTPS", "MONGO", "MYSQL", "REDIS" };
    struct str s = { 0 };
    if (get_str(l, n, "protocol", &s)) {
        return -EINVAL;
    }
    if (!s.n) { // from the name, as Istio does: "http-web" is HTTP
        struct str rest = p->name;
        s = str_split(&rest, '-');
    }
    for (size_t i = 0; i < array_len(http); i++) {
        if (str_eq_nocase(s, str_c(http[i]))) {
            p->protocol = CP_HTTP;
            return 0;
        }
    }
    for (size_t i = 0; i < array_len(tcp); i++) {
        if (str_eq_nocase(s, str_c(tcp[i]))) {
            p->protocol = CP_TCP;
            return 0;
        }
    }
    if (json_get(n, "protocol")) {
        return fail(l, json_get(n, "protocol"), "\"%.*s\" is not one of HTTP, HTTP2, GRPC, TCP, TLS, HTTPS, MONGO, MYSQL, REDIS", STR_FMT(s));
    }
    p->protocol = CP_TCP;
    return 0;
}

static int load_ports(struct loader *l, const struct json *spec, struct cp_service *s)
{
    const struct json *ports = json_get(spec, "ports");
    if (!ports || ports->type != JSON_ARRAY || !ports->count) {
        return fail(l, ports ? ports : spec, "ports: at least one is needed");
    }
    s->ports = arena_array(l->a, struct cp_port, ports->count);
    for (const struct json *n = ports->first; n; n = n->next) {
        struct cp_port *p = &s->ports[s->port_count++];
        if (check_members(l, n, "number protocol name targetPort") || get_port(l, n, "number", &p->number) ||
            get_str(l, n, "name", &p->name) || load_protocol(l, n, p)) {
            return -EINVAL;
        }
        if (!p->number) {
            return fail(l, n, "number: missing");
        }
        p->target = p->number;
        if (get_port(l, n, "targetPort", &p->target)) {
            return -EINVAL;
        }
    }
    return 0;
}

static int load_resolution(struct loader *l, const struct json *spec, struct cp_service *s)
{
    struct str r = STR("NONE"), loc = STR("MESH_EXTERNAL");
    if (get_str(l, spec, "resolution", &r) || get_str(l, spec, "location", &loc)) {
        return -EINVAL;
    }
    if (str_is(r, "STATIC")) {
        s->resolution = CP_STATIC;
    } else if (str_is(r, "DNS") || str_is(r, "DNS_ROUND_ROBIN")) {
        s->resolution = CP_DNS;
    } else if (str_is(r, "NONE")) {
        s->resolution = CP_NONE;
    } else {
        return fail(l, json_get(spec, "resolution"), "\"%.*s\" is not one of NONE, STATIC, DNS, DNS_ROUND_ROBIN", STR_FMT(r));
    }
    if (!str_is(loc, "MESH_EXTERNAL") && !str_is(loc, "MESH_INTERNAL")) {
        return fail(l, json_get(spec, "location"), "\"%.*s\" is neither MESH_INTERNAL nor MESH_EXTERNAL", STR_FMT(loc));
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
        return fail(l, eps, "must be a list");
    }
    s->endpoints = arena_array(l->a, struct cp_endpoint, eps->count + 1);
    for (const struct json *n = eps->first; n; n = n->next) {
        struct cp_endpoint *e = &s->endpoints[s->endpoint_count++];
        struct addr a;
        if (load_endpoint(l, n, e)) {
            return -EINVAL;
        }
        if (s->resolution == CP_STATIC && !addr_parse_ip(e->address, 0, &a)) {
            return fail(l, json_get(n, "address"), "resolution STATIC needs an IP address, not \"%.*s\"", STR_FMT(e->address));
        }
    }
    return 0;
}

static int load_addresses(struct loader *l, const struct json *spec, struct cp_service *s)
{
    if (get_strs(l, spec, "addresses", &s->addresses, &s->address_count)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < s->address_count; i++) {
        struct cidr c;
        if (!cidr_parse(s->addresses[i], &c)) {
            return fail(l, json_get(spec, "addresses"), "\"%.*s\" is not an address or range", STR_FMT(s->addresses[i]));
        }
    }
    return 0;
}

static int load_service_entry(struct loader *l, const struct json *spec)
{
    struct cp_service s = { .meta = l->meta };
    struct str *hosts = NULL;
    size_t n = 0;
    struct cp_labels selector = { 0 };
    if (check_members(l, spec, "hosts addresses ports location resolution endpoints workloadSelector exportTo subjectAltNames") ||
        get_strs(l, spec, "hosts", &hosts, &n) || load_addresses(l, spec, &s) || load_ports(l, spec, &s) ||
        load_resolution(l, spec, &s) || load_service_endpoints(l, spec, &s)) {
        return -EINVAL;
    }
    const struct json *sel = json_get(spec, "workloadSelector");
    if (sel && (check_members(l, sel, "labels") || get_labels(l, sel, "labels", &selector))) {
        return -EINVAL;
    }
    if (!n) {
        return fail(l, spec, "hosts: at least one is needed");
    }
    for (size_t i = 0; i < n; i++) {
        s.host = hosts[i];
        for (size_t k = 0; k < l->c->service_count; k++) {
            if (str_eq(l->c->services[k].host, s.host)) {
                return fail(l, json_get(spec, "hosts"), "host \"%.*s\" is also in %s:%d", STR_FMT(s.host), l->c->services[k].meta.file,
                            l->c->services[k].meta.line);
            }
        }
        if (selector.n) {
            struct cp_selector *x = grow(l, (void **)&l->selectors, &l->selector_count, &l->selector_cap, sizeof(*x));
            *x = (struct cp_selector){ .service = l->c->service_count, .labels = selector };
        }
        *(struct cp_service *)grow(l, (void **)&l->c->services, &l->c->service_count, &l->service_cap, sizeof(s)) = s;
    }
    return 0;
}

// ---- VirtualService ----

static int load_string_match(struct loader *l, const struct json *n, struct cp_string_match *m)
{
    static const struct {
        const char *key;
        enum cp_match kind;
    } kinds[] = { { "exact", CP_EXACT }, { "prefix", CP_PREFIX }, { "regex", CP_REGEX } };
    if (check_members(l, n, "exact prefix regex")) {
        return -EINVAL;
    }
    for (size_t i = 0; i < array_len(kinds); i++) {
        if (json_get(n, kinds[i].key)) {
            m->kind = kinds[i].kind;
            return get_str(l, n, kinds[i].key, &m->value);
        }
    }
    return 0; // {}: any value, present
}

static int get_match(struct loader *l, const struct json *n, const char *key, struct cp_string_match *m)
{
    const struct json *x = json_get(n, key);
    return x ? load_string_match(l, x, m) : 0;
}

static int load_named_matches(struct loader *l, const struct json *n, const char *key, bool without, struct cp_header_match **v, size_t *count)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != JSON_OBJECT) {
        return fail(l, m, "must be an object");
    }
    struct cp_header_match *nv = arena_array(l->a, struct cp_header_match, *count + m->count + 1);
    if (*count) {
        memcpy(nv, *v, *count * sizeof(**v));
    }
    *v = nv;
    for (const struct json *x = m->first; x; x = x->next) {
        struct cp_header_match *h = &nv[(*count)++];
        h->name = arena_str(l->a, x->key);
        h->without = without;
        if (load_string_match(l, x, &h->match)) {
            return -EINVAL;
        }
    }
    return 0;
}

static int load_http_match(struct loader *l, const struct json *n, struct cp_http_match *m)
{
    if (check_members(l, n, "name uri scheme method authority headers withoutHeaders port sourceLabels queryParams ignoreUriCase gateways") ||
        get_match(l, n, "uri", &m->uri) || get_match(l, n, "method", &m->method) || get_match(l, n, "authority", &m->authority) ||
        get_match(l, n, "scheme", &m->scheme) || get_bool(l, n, "ignoreUriCase", &m->ignore_uri_case) || get_port(l, n, "port", &m->port) ||
        get_labels(l, n, "sourceLabels", &m->source_labels) || load_named_matches(l, n, "headers", false, &m->headers, &m->header_count) ||
        load_named_matches(l, n, "withoutHeaders", true, &m->headers, &m->header_count) ||
        load_named_matches(l, n, "queryParams", false, &m->queries, &m->query_count)) {
        return -EINVAL;
    }
    return 0;
}

static int load_changes_side(struct loader *l, const struct json *n, struct cp_header_changes *h)
{
    struct cp_labels set = { 0 }, add = { 0 };
    if (!n) {
        return 0;
    }
    if (check_members(l, n, "set add remove") || get_labels(l, n, "set", &set) || get_labels(l, n, "add", &add) ||
        get_strs(l, n, "remove", &h->remove, &h->remove_count)) {
        return -EINVAL;
    }
    h->set = set.v;
    h->set_count = set.n;
    h->add = add.v;
    h->add_count = add.n;
    return 0;
}

static int load_changes(struct loader *l, const struct json *n, struct cp_header_changes *req, struct cp_header_changes *resp)
{
    const struct json *h = json_get(n, "headers");
    if (!h) {
        return 0;
    }
    return check_members(l, h, "request response") || load_changes_side(l, json_get(h, "request"), req) ||
                   load_changes_side(l, json_get(h, "response"), resp)
               ? -EINVAL
               : 0;
}

static int load_destination(struct loader *l, const struct json *n, struct cp_destination *d)
{
    const struct json *dest = json_get(n, "destination");
    if (check_members(l, n, "destination weight headers") || get_u32(l, n, "weight", WEIGHT_MAX, &d->weight)) {
        return -EINVAL;
    }
    if (!dest) {
        return fail(l, n, "destination: missing");
    }
    const struct json *port = json_get(dest, "port");
    if (check_members(l, dest, "host subset port") || get_str(l, dest, "host", &d->host) || get_str(l, dest, "subset", &d->subset) ||
        (port && (check_members(l, port, "number") || get_port(l, port, "number", &d->port))) ||
        load_changes(l, n, &d->request, &d->response)) {
        return -EINVAL;
    }
    return d->host.n ? 0 : fail(l, dest, "host: missing");
}

static int load_destinations(struct loader *l, const struct json *n, struct cp_destination **v, size_t *count)
{
    const struct json *m = json_get(n, "route");
    if (!m) {
        return 0;
    }
    if (m->type != JSON_ARRAY || !m->count) {
        return fail(l, m, "must be a list with at least one entry");
    }
    *v = arena_array(l->a, struct cp_destination, m->count);
    uint64_t sum = 0;
    for (const struct json *x = m->first; x; x = x->next) {
        struct cp_destination *d = &(*v)[(*count)++];
        if (load_destination(l, x, d)) {
            return -EINVAL;
        }
        sum += d->weight;
    }
    if (*count == 1 && (*v)[0].weight == 0) {
        (*v)[0].weight = 100;
        sum = 100;
    }
    return sum ? 0 : fail(l, m, "the sum of the weights is 0");
}

static int load_redirect(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *m = json_get(n, "redirect");
    if (!m) {
        return 0;
    }
    r->redirect = true;
    r->redirect_code = 301;
    if (check_members(l, m, "uri authority port scheme redirectCode") || get_str(l, m, "uri", &r->redirect_uri) ||
        get_str(l, m, "authority", &r->redirect_authority) || get_str(l, m, "scheme", &r->redirect_scheme) ||
        get_port(l, m, "port", &r->redirect_port) || get_u32(l, m, "redirectCode", 399, &r->redirect_code)) {
        return -EINVAL;
    }
    switch (r->redirect_code) {
    case 301: case 302: case 303: case 307: case 308:
        return 0;
    default:
        return fail(l, json_get(m, "redirectCode"), "must be 301, 302, 303, 307 or 308");
    }
}

static int load_retries(struct loader *l, const struct json *n, struct cp_retries *r)
{
    const struct json *m = json_get(n, "retries");
    if (!m) {
        return 0;
    }
    r->set = true;
    return check_members(l, m, "attempts perTryTimeout retryOn") || get_u32(l, m, "attempts", 100, &r->attempts) ||
                   get_duration(l, m, "perTryTimeout", &r->per_try_timeout) || get_str(l, m, "retryOn", &r->retry_on)
               ? -EINVAL
               : 0;
}

static int load_rewrite(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *m = json_get(n, "rewrite");
    const struct json *d = json_get(n, "directResponse");
    if (m && (check_members(l, m, "uri authority") || get_str(l, m, "uri", &r->rewrite_uri) || get_str(l, m, "authority", &r->rewrite_authority))) {
        return -EINVAL;
    }
    if (d) {
        const struct json *body = json_get(d, "body");
        if (check_members(l, d, "status body") || get_u32(l, d, "status", 599, &r->direct_status) ||
            (body && (check_members(l, body, "string") || get_str(l, body, "string", &r->direct_body)))) {
            return -EINVAL;
        }
        if (r->direct_status < 200) {
            return fail(l, d, "status: must be 200 to 599");
        }
    }
    return 0;
}

static int load_http_route(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *match = json_get(n, "match");
    if (check_members(l, n, "name match route redirect directResponse rewrite timeout retries headers") || get_str(l, n, "name", &r->name)) {
        return -EINVAL;
    }
    if (match && match->type != JSON_ARRAY) {
        return fail(l, match, "must be a list");
    }
    r->matches = arena_array(l->a, struct cp_http_match, (match ? match->count : 0) + 1);
    for (const struct json *x = match ? match->first : NULL; x; x = x->next) {
        if (load_http_match(l, x, &r->matches[r->match_count++])) {
            return -EINVAL;
        }
    }
    if (load_destinations(l, n, &r->routes, &r->route_count) || load_redirect(l, n, r) || load_rewrite(l, n, r) ||
        get_duration(l, n, "timeout", &r->timeout) || load_retries(l, n, &r->retries) || load_changes(l, n, &r->request, &r->response)) {
        return -EINVAL;
    }
    int actions = (r->route_count > 0) + r->redirect + (r->direct_status > 0);
    return actions == 1 ? 0 : fail(l, n, "exactly one of route, redirect, directResponse is needed");
}

static int load_tcp_route(struct loader *l, const struct json *n, struct cp_tcp_route *r)
{
    const struct json *match = json_get(n, "match");
    if (check_members(l, n, "match route")) {
        return -EINVAL;
    }
    r->ports = arena_array(l->a, uint16_t, (match ? match->count : 0) + 1);
    for (const struct json *x = match ? match->first : NULL; x; x = x->next) {
        if (check_members(l, x, "port") || get_port(l, x, "port", &r->ports[r->port_count++])) {
            return -EINVAL;
        }
    }
    return load_destinations(l, n, &r->routes, &r->route_count) ? -EINVAL : r->route_count ? 0 : fail(l, n, "route: missing");
}

static int load_virtual_service(struct loader *l, const struct json *spec)
{
    struct cp_virtual_service v = { .meta = l->meta };
    struct str *gateways = NULL;
    size_t gateway_count = 0;
    if (check_members(l, spec, "hosts gateways http tcp exportTo") || get_strs(l, spec, "hosts", &v.hosts, &v.host_count) ||
        get_strs(l, spec, "gateways", &gateways, &gateway_count)) {
        return -EINVAL;
    }
    if (!v.host_count) {
        return fail(l, spec, "hosts: at least one is needed");
    }
    for (size_t i = 0; i < gateway_count; i++) {
        if (!str_is(gateways[i], "mesh")) {
            return fail(l, json_get(spec, "gateways"), "only \"mesh\" is supported: there are no gateways here");
        }
    }
    const struct json *http = json_get(spec, "http"), *tcp = json_get(spec, "tcp");
    if ((http && http->type != JSON_ARRAY) || (tcp && tcp->type != JSON_ARRAY)) {
        return fail(l, http ? http : tcp, "must be a list");
    }
    v.http = arena_array(l->a, struct cp_http_route, (http ? http->count : 0) + 1);
    for (const struct json *n = http ? http->first : NULL; n; n = n->next) {
        if (load_http_route(l, n, &v.http[v.http_count++])) {
            return -EINVAL;
        }
    }
    v.tcp = arena_array(l->a, struct cp_tcp_route, (tcp ? tcp->count : 0) + 1);
    for (const struct json *n = tcp ? tcp->first : NULL; n; n = n->next) {
        if (load_tcp_route(l, n, &v.tcp[v.tcp_count++])) {
            return -EINVAL;
        }
    }
    *(struct cp_virtual_service *)grow(l, (void **)&l->c->virtual_services, &l->c->virtual_service_count, &l->vs_cap, sizeof(v)) = v;
    return 0;
}

// ---- DestinationRule ----

static int load_pool(struct loader *l, const struct json *n, struct cp_policy *p)
{
    const struct json *tcp = json_get(n, "tcp"), *http = json_get(n, "http");
    if (check_members(l, n, "tcp http")) {
        return -EINVAL;
    }
    if (tcp && (check_members(l, tcp, "maxConnections connectTimeout") || get_u32(l, tcp, "maxConnections", UINT32_MAX, &p->max_connections) ||
                get_duration(l, tcp, "connectTimeout", &p->connect_timeout))) {
        return -EINVAL;
    }
    return http && (check_members(l, http, "http1MaxPendingRequests http2MaxRequests maxRequestsPerConnection maxRetries idleTimeout") ||
                    get_u32(l, http, "http1MaxPendingRequests", UINT32_MAX, &p->max_pending) ||
                    get_u32(l, http, "http2MaxRequests", UINT32_MAX, &p->max_requests) ||
                    get_u32(l, http, "maxRequestsPerConnection", UINT32_MAX, &p->max_requests_per_connection) ||
                    get_u32(l, http, "maxRetries", UINT32_MAX, &p->max_retries) || get_duration(l, http, "idleTimeout", &p->idle_timeout))
               ? -EINVAL
               : 0;
}

static int load_lb(struct loader *l, const struct json *n, struct cp_policy *p)
{
    if (check_members(l, n, "simple") || get_str(l, n, "simple", &p->lb)) {
        return -EINVAL;
    }
    if (str_is(p->lb, "UNSPECIFIED") || str_is(p->lb, "LEAST_CONN")) {
        p->lb = STR("LEAST_REQUEST");
    }
    if (p->lb.n && !str_is(p->lb, "ROUND_ROBIN") && !str_is(p->lb, "LEAST_REQUEST") && !str_is(p->lb, "RANDOM")) {
        return fail(l, json_get(n, "simple"), "\"%.*s\" is not one of ROUND_ROBIN, LEAST_REQUEST, RANDOM", STR_FMT(p->lb));
    }
    return 0;
}

static int load_outlier(struct loader *l, const struct json *n, struct cp_policy *p)
{
    p->outlier = true;
    p->consecutive_5xx = 5;
    return check_members(l, n, "consecutive5xxErrors consecutiveGatewayErrors interval baseEjectionTime maxEjectionPercent") ||
                   get_u32(l, n, "consecutive5xxErrors", 1000000, &p->consecutive_5xx) ||
                   get_u32(l, n, "consecutiveGatewayErrors", 1000000, &p->consecutive_gateway) ||
                   get_u32(l, n, "maxEjectionPercent", 100, &p->max_ejection_percent) ||
                   get_duration(l, n, "interval", &p->outlier_interval) || get_duration(l, n, "baseEjectionTime", &p->outlier_base)
               ? -EINVAL
               : 0;
}

static int load_policy_tls(struct loader *l, const struct json *n, struct cp_policy *p)
{
    struct str mode = { 0 };
    if (check_members(l, n, "mode") || get_str(l, n, "mode", &mode)) {
        return -EINVAL;
    }
    if (str_is(mode, "DISABLE")) {
        p->tls = CP_TLS_DISABLE;
    } else if (str_is(mode, "ISTIO_MUTUAL")) {
        p->tls = CP_TLS_ISTIO_MUTUAL;
    } else {
        return fail(l, n, "mode: \"%.*s\" is not supported; DISABLE or ISTIO_MUTUAL", STR_FMT(mode));
    }
    return 0;
}

static int load_policy(struct loader *l, const struct json *n, struct cp_policy *p)
{
    const struct json *pool = json_get(n, "connectionPool"), *lb = json_get(n, "loadBalancer"), *od = json_get(n, "outlierDetection"),
                      *tls = json_get(n, "tls");
    return check_members(l, n, "connectionPool loadBalancer outlierDetection tls") || (pool && load_pool(l, pool, p)) ||
                   (lb && load_lb(l, lb, p)) || (od && load_outlier(l, od, p)) || (tls && load_policy_tls(l, tls, p))
               ? -EINVAL
               : 0;
}

static int load_subset(struct loader *l, const struct json *n, struct cp_destination_rule *d, struct cp_subset *s)
{
    const struct json *tp = json_get(n, "trafficPolicy");
    if (check_members(l, n, "name labels trafficPolicy") || get_str(l, n, "name", &s->name) || get_labels(l, n, "labels", &s->labels)) {
        return -EINVAL;
    }
    s->policy = d->policy;
    s->has_policy = tp != NULL;
    if (tp && load_policy(l, tp, &s->policy)) {
        return -EINVAL;
    }
    return s->name.n ? 0 : fail(l, n, "name: missing");
}

static int load_destination_rule(struct loader *l, const struct json *spec)
{
    struct cp_destination_rule d = { .meta = l->meta };
    const struct json *tp = json_get(spec, "trafficPolicy"), *subsets = json_get(spec, "subsets");
    if (check_members(l, spec, "host trafficPolicy subsets exportTo") || get_str(l, spec, "host", &d.host) ||
        (tp && load_policy(l, tp, &d.policy))) {
        return -EINVAL;
    }
    if (!d.host.n) {
        return fail(l, spec, "host: missing");
    }
    if (subsets && subsets->type != JSON_ARRAY) {
        return fail(l, subsets, "must be a list");
    }
    d.subsets = arena_array(l->a, struct cp_subset, (subsets ? subsets->count : 0) + 1);
    for (const struct json *n = subsets ? subsets->first : NULL; n; n = n->next) {
        if (load_subset(l, n, &d, &d.subsets[d.subset_count++])) {
            return -EINVAL;
        }
    }
    *(struct cp_destination_rule *)grow(l, (void **)&l->c->destination_rules, &l->c->destination_rule_count, &l->dr_cap, sizeof(d)) = d;
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
    if (check_members(l, n, "mode") || get_str(l, n, "mode", &s)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < array_len(modes); i++) {
        if (str_is(s, modes[i].name)) {
            *ret = modes[i].mode;
            return 0;
        }
    }
    return fail(l, json_get(n, "mode"), "\"%.*s\" is not one of UNSET, DISABLE, PERMISSIVE, STRICT", STR_FMT(s));
}

static int load_peer_authentication(struct loader *l, const struct json *spec)
{
    struct cp_peer_authentication p = { .meta = l->meta };
    const struct json *sel = json_get(spec, "selector"), *mtls = json_get(spec, "mtls"), *ports = json_get(spec, "portLevelMtls");
    if (check_members(l, spec, "selector mtls portLevelMtls") ||
        (sel && (check_members(l, sel, "matchLabels") || get_labels(l, sel, "matchLabels", &p.selector))) ||
        (mtls && load_mode(l, mtls, &p.mode))) {
        return -EINVAL;
    }
    if (ports && ports->type != JSON_OBJECT) {
        return fail(l, ports, "must be an object of ports");
    }
    p.ports = arena_zalloc(l->a, sizeof(*p.ports) * ((ports ? ports->count : 0) + 1));
    for (const struct json *n = ports ? ports->first : NULL; n; n = n->next) {
        uint64_t v;
        if (!str_to_u64(n->key, 65535, &v)) {
            return fail(l, n, "is not a port");
        }
        p.ports[p.port_count].port = (uint16_t)v;
        if (load_mode(l, n, &p.ports[p.port_count++].mode)) {
            return -EINVAL;
        }
    }
    *(struct cp_peer_authentication *)grow(l, (void **)&l->c->peer_authentications, &l->c->peer_authentication_count, &l->pa_cap, sizeof(p)) = p;
    return 0;
}

// ---- documents and files ----

static const struct cp_kind {
    const char *kind, *group;
    int (*load)(struct loader *l, const struct json *spec);
} kinds[] = {
    { "ServiceEntry", "networking.istio.io/", load_service_entry },
    { "WorkloadEntry", "networking.istio.io/", load_workload },
    { "VirtualService", "networking.istio.io/", load_virtual_service },
    { "DestinationRule", "networking.istio.io/", load_destination_rule },
    { "PeerAuthentication", "security.istio.io/", load_peer_authentication },
};

static int load_meta(struct loader *l, const struct json *doc)
{
    const struct json *m = json_get(doc, "metadata");
    l->meta = (struct cp_meta){ .ns = STR("default"), .file = l->file, .line = doc->line };
    if (!m) {
        return fail(l, doc, "metadata: missing");
    }
    if (check_members(l, m, "name namespace labels annotations") || get_str(l, m, "name", &l->meta.name) || get_str(l, m, "namespace", &l->meta.ns)) {
        return -EINVAL;
    }
    return l->meta.name.n ? 0 : fail(l, m, "name: missing");
}

static int load_document(struct loader *l, const struct json *doc)
{
    struct str kind = { 0 }, api = { 0 };
    static const struct json no_spec = { .type = JSON_OBJECT };
    if (check_members(l, doc, "apiVersion kind metadata spec status") || get_str(l, doc, "kind", &kind) || get_str(l, doc, "apiVersion", &api) ||
        load_meta(l, doc)) {
        return -EINVAL;
    }
    if (l->c->service_count + l->c->workload_count + l->c->virtual_service_count > OBJECTS_MAX) {
        return fail(l, doc, "more than %d objects", OBJECTS_MAX);
    }
    for (size_t i = 0; i < array_len(kinds); i++) {
        if (!str_is(kind, kinds[i].kind)) {
            continue;
        }
        if (!str_starts(api, str_c(kinds[i].group))) {
            return fail(l, json_get(doc, "apiVersion") ? json_get(doc, "apiVersion") : doc, "%s belongs to %sv1", kinds[i].kind, kinds[i].group);
        }
        l->meta.kind = str_c(kinds[i].kind);
        const struct json *spec = json_get(doc, "spec");
        return kinds[i].load(l, spec && spec->type != JSON_NULL ? spec : &no_spec);
    }
    return fail(l, json_get(doc, "kind") ? json_get(doc, "kind") : doc,
                "unknown kind \"%.*s\"; known: ServiceEntry, WorkloadEntry, VirtualService, DestinationRule, PeerAuthentication", STR_FMT(kind));
}

static int load_text(struct loader *l, struct str text, const char *name)
{
    struct arena scratch = { 0 };
    struct json *docs = NULL;
    struct err e = { 0 };
    int rc = 0;
    l->file = arena_strdup(l->a, name);
    if (yaml_parse(text, &scratch, &docs, &e)) {
        rc = err_set(l->err, -EINVAL, "%s: %s", name, e.msg);
    }
    for (const struct json *d = docs ? docs->first : NULL; d && !rc; d = d->next) {
        rc = load_document(l, d);
    }
    arena_fini(&scratch);
    return rc;
}

static int load_file(struct loader *l, const char *path)
{
    struct arena a = { 0 };
    struct str text;
    int rc = file_read(path, FILE_BYTES_MAX, &a, &text, l->err);
    rc = rc ? rc : load_text(l, text, path);
    arena_fini(&a);
    return rc;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_folder(struct loader *l, const char *folder, int depth, int *files)
{
    struct dirent **v = NULL;
    int n = scandir(folder, &v, NULL, by_name);
    if (n < 0) {
        return err_errno(l->err, errno, folder);
    }
    int rc = 0;
    for (int i = 0; i < n; i++) {
        char path[4096];
        struct stat st;
        size_t len = strlen(v[i]->d_name);
        bool yaml = (len > 5 && !strcmp(v[i]->d_name + len - 5, ".yaml")) || (len > 4 && !strcmp(v[i]->d_name + len - 4, ".yml"));
        snprintf(path, sizeof(path), "%s/%s", folder, v[i]->d_name);
        if (rc == 0 && v[i]->d_name[0] != '.' && stat(path, &st) == 0) {
            if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
                rc = load_folder(l, path, depth + 1, files);
            } else if (S_ISREG(st.st_mode) && yaml) {
                rc = ++*files > FILES_MAX ? err_set(l->err, -EINVAL, "%s: more than %d files", folder, FILES_MAX) : load_file(l, path);
            }
        }
        free(v[i]);
    }
    free(v);
    return rc;
}

// ---- after all files: selectors and references ----

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

static const struct cp_destination_rule *rule_of(const struct cp_config *c, const struct cp_service *s)
{
    for (size_t i = 0; i < c->destination_rule_count; i++) {
        const struct cp_destination_rule *d = &c->destination_rules[i];
        if (cp_find_service(c, d->host, d->meta.ns) == s) {
            return d;
        }
    }
    return NULL;
}

static int check_destination(struct loader *l, const struct cp_virtual_service *v, const struct cp_destination *d)
{
    const struct cp_service *s = cp_find_service(l->c, d->host, v->meta.ns);
    l->file = v->meta.file;
    const struct json at = { .line = v->meta.line };
    if (!s) {
        return fail(l, &at, "VirtualService %.*s: destination host \"%.*s\" is no known service", STR_FMT(v->meta.name), STR_FMT(d->host));
    }
    if (d->subset.n) {
        const struct cp_destination_rule *r = rule_of(l->c, s);
        for (size_t i = 0; r && i < r->subset_count; i++) {
            if (str_eq(r->subsets[i].name, d->subset)) {
                return 0;
            }
        }
        return fail(l, &at, "VirtualService %.*s: no DestinationRule gives \"%.*s\" a subset \"%.*s\"", STR_FMT(v->meta.name), STR_FMT(d->host),
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

static int finish(struct loader *l, int rc, struct cp_config **ret)
{
    if (!rc) {
        resolve_selectors(l);
        rc = check_references(l);
    }
    if (rc) {
        cp_config_free(l->c);
        return rc;
    }
    *ret = l->c;
    return 0;
}

static struct loader loader_new(struct err *err)
{
    struct loader l = { .c = mem_new(struct cp_config), .err = err };
    l.a = &l.c->arena;
    arena_init(l.a, 64 * 1024, 0);
    return l;
}

int cp_load(const char *folder, struct cp_config **ret, struct err *err)
{
    struct loader l = loader_new(err);
    int files = 0;
    return finish(&l, load_folder(&l, folder, 0, &files), ret);
}

int cp_load_text(struct str text, const char *name, struct cp_config **ret, struct err *err)
{
    struct loader l = loader_new(err);
    return finish(&l, load_text(&l, text, name), ret);
}

void cp_config_free(struct cp_config *c)
{
    if (c) {
        arena_fini(&c->arena);
        free(c);
    }
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
    char full[512];
    bool is_short = str_find(name, '.') < 0;
    snprintf(full, sizeof(full), "%.*s.%.*s.svc.cluster.local", STR_FMT(name), STR_FMT(ns));
    for (size_t i = 0; i < c->service_count; i++) {
        if (str_eq(c->services[i].host, name) || (is_short && str_is(c->services[i].host, full))) {
            return &c->services[i];
        }
    }
    return NULL;
}
