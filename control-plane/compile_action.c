// SPDX-License-Identifier: Apache-2.0
// What a route does, as istiod writes it.
#include "control-plane/compile_int.h"
#include "lib/base/check.h"

// ---- headers ----

static void write_header_list(struct compiler *k, struct buf *b, const struct cp_label *v, size_t n, bool overwrite, const char **sep)
{
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s{header: {key: %s, value: %s}%s}", *sep, cpc_q(k, v[i].key), cpc_q(k, v[i].value),
                   overwrite ? ", append_action: OVERWRITE_IF_EXISTS_OR_ADD" : "");
        *sep = ", ";
    }
}

// The changes of one level, or of a route and its only destination together (more may be NULL).
static void write_changes(struct compiler *k, struct buf *b, const struct cp_header_changes *h, const struct cp_header_changes *more,
                          const char *side)
{
    static const struct cp_header_changes none;
    const struct cp_header_changes *both[] = { h, more ? more : &none };
    const char *sep = "";
    buf_printf(b, ", %s_headers_to_add: [", side);
    for (int i = 0; i < 2; i++) {
        write_header_list(k, b, both[i]->set, both[i]->set_count, true, &sep);
        write_header_list(k, b, both[i]->add, both[i]->add_count, false, &sep);
    }
    buf_printf(b, "], %s_headers_to_remove: [", side);
    sep = "";
    for (int i = 0; i < 2; i++) {
        for (size_t x = 0; x < both[i]->remove_count; x++) {
            buf_printf(b, "%s%s", sep, cpc_q(k, both[i]->remove[x]));
            sep = ", ";
        }
    }
    buf_printf(b, "]");
}

// ---- retries ----

// Splits retryOn: numbers are status codes, the rest are conditions.
static struct str split_retry_on(struct compiler *k, struct buf *b, struct str on)
{
    struct str words = { 0 };
    const char *sep = "";
    while (on.n) {
        struct str one = str_trim(str_split(&on, ','));
        uint64_t code;
        if (str_to_u64(one, 599, &code) && code >= 100) {
            buf_printf(b, "%s%llu", *sep ? sep : ", retriable_status_codes: [", (unsigned long long)code);
            sep = ", ";
        } else if (one.n) {
            words = arena_printf(&k->scratch, "%.*s%s%.*s", STR_FMT(words), words.n ? "," : "", STR_FMT(one));
        }
    }
    if (*sep) {
        buf_printf(b, "]");
        if (str_find_str(words, STR("retriable-status-codes")) < 0) {
            words = arena_printf(&k->scratch, "%.*s,retriable-status-codes", STR_FMT(words));
        }
    }
    return words;
}

// Istio's default where the VirtualService is silent; attempts 0 means none. With consistent hashing the same host is asked again.
void cpc_retry(struct compiler *k, struct buf *b, const struct cp_retries *r, bool hashed)
{
    if (r->set && !r->attempts) {
        return;
    }
    bool avoid = r->has_avoid ? r->avoid : !hashed;
    buf_printf(b, ", retry_policy: {num_retries: %u, host_selection_retry_max_attempts: 5", r->set ? r->attempts : 2);
    if (avoid) {
        buf_printf(b, ", retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: "
                      "{'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]");
    }
    if (r->per_try_timeout.n) {
        buf_printf(b, ", per_try_timeout: %.*s", STR_FMT(r->per_try_timeout));
    }
    if (r->remote_localities) {
        buf_printf(b, ", retry_priority: {name: envoy.retry_priorities.previous_priorities, typed_config: {'@type': "
                      "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, update_frequency: 2}}");
    }
    if (r->backoff.n) {
        buf_printf(b, ", retry_back_off: {base_interval: %.*s}", STR_FMT(r->backoff));
    }
    struct str on = r->retry_on.n ? split_retry_on(k, b, r->retry_on) : STR("connect-failure,refused-stream,unavailable,cancelled");
    buf_printf(b, ", retry_on: %s}", cpc_q(k, on));
}

// ---- forwarding ----

void cpc_hash_policy(struct compiler *k, struct buf *b, const struct cp_hash *h)
{
    switch (h->key) {
    case CP_HASH_HEADER:
        buf_printf(b, "{header: {header_name: %s}}", cpc_q(k, h->name));
        break;
    case CP_HASH_QUERY:
        buf_printf(b, "{query_parameter: {name: %s}}", cpc_q(k, h->name));
        break;
    case CP_HASH_COOKIE:
        buf_printf(b, "{cookie: {name: %s", cpc_q(k, h->name));
        if (h->ttl.n) {
            buf_printf(b, ", ttl: %.*s", STR_FMT(h->ttl));
        }
        if (h->path.n) {
            buf_printf(b, ", path: %s", cpc_q(k, h->path));
        }
        if (h->attribute_count) {
            buf_printf(b, ", attributes: [");
            for (size_t i = 0; i < h->attribute_count; i++) {
                buf_printf(b, "%s{name: %s, value: %s}", i ? ", " : "", cpc_q(k, h->attributes[i].key), cpc_q(k, h->attributes[i].value));
            }
            buf_printf(b, "]");
        }
        buf_printf(b, "}}");
        break;
    default:
        buf_printf(b, "{connection_properties: {source_ip: true}}");
        break;
    }
}

static const struct cp_hash *hash_for(const struct compiler *k, const struct cp_destination *d, struct str ns)
{
    return cpc_hash(k, cp_find_service(k->c, d->host, ns), d->subset, d->port);
}

static void write_hashes(struct compiler *k, struct buf *b, const struct cp_http_route *r, struct str ns)
{
    const char *sep = "";
    for (size_t i = 0; i < r->route_count; i++) {
        const struct cp_hash *h = r->route_count == 1 || r->routes[i].weight ? hash_for(k, &r->routes[i], ns) : NULL;
        if (h) {
            buf_printf(b, "%s", *sep ? sep : ", hash_policy: [");
            cpc_hash_policy(k, b, h);
            sep = ", ";
        }
    }
    buf_printf(b, *sep ? "]" : "");
}

static void write_clusters(struct compiler *k, struct buf *b, const struct cp_http_route *r, struct str ns, uint16_t port)
{
    if (r->route_count == 1) {
        buf_printf(b, "cluster: %s", cpc_q(k, cpc_destination(k, &r->routes[0], ns, port)));
        return;
    }
    const char *sep = "";
    buf_printf(b, "weighted_clusters: {clusters: [");
    for (size_t i = 0; i < r->route_count; i++) {
        const struct cp_destination *d = &r->routes[i];
        if (d->weight) {
            buf_printf(b, "%s{name: %s, weight: %u", sep, cpc_q(k, cpc_destination(k, d, ns, port)), d->weight);
            write_changes(k, b, &d->request, NULL, "request");
            write_changes(k, b, &d->response, NULL, "response");
            if (d->request.authority.n) {
                buf_printf(b, ", host_rewrite_literal: %s", cpc_q(k, d->request.authority));
            }
            buf_printf(b, "}");
            sep = ", ";
        }
    }
    buf_printf(b, "]}");
}

static void write_fraction(struct buf *b, uint32_t ppm)
{
    if (ppm == 1000000) {
        buf_printf(b, "{numerator: 100}");
    } else {
        buf_printf(b, "{numerator: %u, denominator: MILLION}", ppm);
    }
}

static void write_mirrors(struct compiler *k, struct buf *b, const struct cp_http_route *r, struct str ns, uint16_t port)
{
    const char *sep = "";
    for (size_t i = 0; i < r->mirror_count; i++) {
        if (!r->mirrors[i].ppm) {
            continue;
        }
        buf_printf(b, "%s{cluster: %s, trace_sampled: false, disable_shadow_host_suffix_append: true, runtime_fraction: {default_value: ",
                   *sep ? sep : ", request_mirror_policies: [", cpc_q(k, cpc_destination(k, &r->mirrors[i].to, ns, port)));
        write_fraction(b, r->mirrors[i].ppm);
        buf_printf(b, "}}");
        sep = ", ";
    }
    buf_printf(b, *sep ? "]" : "");
}

static void write_rewrites(struct compiler *k, struct buf *b, const struct cp_http_route *r)
{
    const struct cp_rewrite *w = r->rewrite;
    struct str host = w && w->authority.n ? w->authority : r->request.authority;
    if (!host.n && r->route_count == 1) {
        host = r->routes[0].request.authority;
    }
    if (host.n) {
        buf_printf(b, ", host_rewrite_literal: %s", cpc_q(k, host));
    }
    if (w && w->regex.n) {
        buf_printf(b, ", regex_rewrite: {pattern: {regex: %s}, substitution: %s}", cpc_q(k, w->regex), cpc_q(k, w->substitution));
    } else if (w && w->uri.n) {
        buf_printf(b, ", prefix_rewrite: %s", cpc_q(k, w->uri));
    }
}

static void write_forward(struct compiler *k, struct buf *b, const struct cp_http_route *r, struct str ns, uint16_t port)
{
    struct str timeout = r->timeout.n ? r->timeout : STR("0s");
    buf_printf(b, "route: {");
    write_clusters(k, b, r, ns, port);
    buf_printf(b, ", timeout: %.*s, max_grpc_timeout: %.*s", STR_FMT(timeout), STR_FMT(timeout));
    write_rewrites(k, b, r);
    write_mirrors(k, b, r, ns, port);
    cpc_retry(k, b, &r->retries, r->route_count == 1 && hash_for(k, &r->routes[0], ns) != NULL);
    write_hashes(k, b, r, ns);
    buf_printf(b, "}");
}

// ---- answers without a destination ----

static void write_redirect(struct compiler *k, struct buf *b, const struct cp_redirect *r, uint16_t port)
{
    static const struct {
        uint32_t code;
        const char *name;
    } codes[] = { { 301, "MOVED_PERMANENTLY" }, { 302, "FOUND" }, { 303, "SEE_OTHER" }, { 307, "TEMPORARY_REDIRECT" }, { 308, "PERMANENT_REDIRECT" } };
    const char *code = codes[0].name;
    for (size_t i = 0; i < array_len(codes); i++) {
        code = codes[i].code == r->code ? codes[i].name : code;
    }
    buf_printf(b, "redirect: {response_code: %s", code);
    if (r->prefix.n) {
        buf_printf(b, ", prefix_rewrite: %s", cpc_q(k, r->prefix));
    } else if (r->uri.n) {
        buf_printf(b, ", path_redirect: %s", cpc_q(k, r->uri));
    }
    if (r->authority.n) {
        buf_printf(b, ", host_redirect: %s", cpc_q(k, r->authority));
    }
    if (r->scheme.n) {
        buf_printf(b, ", scheme_redirect: %s", cpc_q(k, r->scheme));
    }
    uint16_t to = r->request_port ? port : r->port;
    bool https = str_is(r->scheme, "https");
    if (r->has_port && to && to != (https ? 443 : 80)) { // the scheme's own port is not written
        buf_printf(b, ", port_redirect: %u", to);
    }
    buf_printf(b, "}");
}

static void write_direct(struct compiler *k, struct buf *b, const struct cp_direct *d)
{
    buf_printf(b, "direct_response: {status: %u", d->status);
    if (d->has_body) {
        buf_printf(b, ", body: {%s: %s}", d->bytes ? "inline_bytes" : "inline_string", cpc_q(k, d->body));
    }
    buf_printf(b, "}");
}

// ---- filters' share ----

static void write_fault(struct buf *b, const struct cp_fault *f)
{
    buf_printf(b, "envoy.filters.http.fault: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault");
    if (f->delay) {
        buf_printf(b, ", delay: {fixed_delay: %.*s, percentage: ", STR_FMT(f->delay_time));
        write_fraction(b, f->delay_ppm);
        buf_printf(b, "}");
    }
    if (f->abort) {
        buf_printf(b, ", abort: {%s: %u, percentage: ", f->grpc ? "grpc_status" : "http_status", f->abort_status);
        write_fraction(b, f->abort_ppm);
        buf_printf(b, "}");
    }
    buf_printf(b, "}, ");
}

static void write_cors(struct compiler *k, struct buf *b, const struct cp_cors *c)
{
    buf_printf(b, "envoy.filters.http.cors: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy, "
                  "filter_enabled: {default_value: {numerator: 100}}, forward_not_matching_preflights: %s, allow_origin_string_match: [",
               c->ignore_unmatched ? "false" : "true");
    for (size_t i = 0; i < c->origin_count; i++) {
        buf_printf(b, "%s", i ? ", " : "");
        cpc_string_match(k, b, &c->origins[i]);
    }
    buf_printf(b, "], allow_methods: %s, allow_headers: %s, expose_headers: %s, max_age: %s", cpc_q(k, c->methods), cpc_q(k, c->headers),
               cpc_q(k, c->expose), cpc_q(k, c->max_age));
    if (c->credentials) {
        buf_printf(b, ", allow_credentials: %s", c->credentials > 0 ? "true" : "false");
    }
    buf_printf(b, "}");
}

static void write_filters(struct compiler *k, struct buf *b, const struct cp_http_route *r)
{
    if (!r->fault && !r->cors) {
        return;
    }
    buf_printf(b, ", typed_per_filter_config: {");
    if (r->fault) {
        write_fault(b, r->fault);
    }
    if (r->cors) {
        write_cors(k, b, r->cors);
    }
    buf_printf(b, "}");
}

// ---- the whole ----

// "HOST:PORT/path" of a single destination, "VIRTUALSERVICE:PORT/path" otherwise.
static void write_decorator(struct compiler *k, struct buf *b, const struct cp_virtual_service *v, const struct cp_http_route *r,
                            const struct cp_http_match *m, uint16_t port)
{
    enum cp_match kind = m ? m->uri.kind : CP_UNSET;
    struct str path = kind >= CP_EXACT ? m->uri.value : STR("/"), name = v->meta.name;
    const char *star = kind == CP_EXACT || kind == CP_REGEX ? "" : "*";
    if (r->route_count == 1) {
        const struct cp_service *s = cp_find_service(k->c, r->routes[0].host, v->meta.ns);
        const struct cp_port *p = s ? cpc_destination_port(s, r->routes[0].port, port) : NULL;
        name = s ? s->host : r->routes[0].host;
        port = p ? p->number : r->routes[0].port ? r->routes[0].port : port;
    }
    buf_printf(b, ", decorator: {operation: %s}", cpc_qf(k, "%.*s:%u%.*s%s", STR_FMT(name), port, STR_FMT(path), star));
}

void cpc_http_route(struct compiler *k, struct buf *b, const struct cp_virtual_service *v, const struct cp_http_route *r,
                    const struct cp_http_match *m, uint16_t port)
{
    struct str name = m && m->name.n ? arena_printf(&k->scratch, "%.*s.%.*s", STR_FMT(r->name), STR_FMT(m->name)) : r->name;
    buf_printf(b, "{name: %s, ", name.n ? cpc_q(k, name) : "''");
    cpc_match(k, b, m);
    buf_printf(b, ", ");
    if (r->redirect) {
        write_redirect(k, b, r->redirect, port);
    } else if (r->direct) {
        write_direct(k, b, r->direct);
    } else {
        write_forward(k, b, r, v->meta.ns, port);
    }
    // one destination is a plain cluster: its header changes stand on the route
    const struct cp_destination *only = r->route_count == 1 ? &r->routes[0] : NULL;
    write_changes(k, b, &r->request, only ? &only->request : NULL, "request");
    write_changes(k, b, &r->response, only ? &only->response : NULL, "response");
    write_filters(k, b, r);
    if (m && m->stat_prefix.n) {
        buf_printf(b, ", stat_prefix: %s", cpc_q(k, m->stat_prefix));
    }
    cpc_config_metadata(k, b, &v->meta);
    write_decorator(k, b, v, r, m, port);
    buf_printf(b, "}");
}
