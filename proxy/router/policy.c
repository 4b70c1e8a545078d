// SPDX-License-Identifier: Apache-2.0
// What holds for one request: the route's retries and time-outs, and what an internal client asks for in x-envoy- fields. Those of external
// clients do not get here (proxy/http/headers_in.c).
#include "lib/base/check.h"
#include "lib/http/grpc_text.h"
#include "proxy/router/internal.h"

// Takes the field out of the request: it is for us.
static struct str take(struct router *r, const char *name)
{
    struct str v = headers_value(&r->req->headers, str_c(name));
    if (v.p) {
        headers_remove(&r->req->headers, str_c(name));
    }
    return v;
}

static bool take_number(struct router *r, const char *name, uint64_t max, uint64_t *ret)
{
    struct str v = take(r, name);
    return v.n && str_to_u64(v, max, ret);
}

static void add_codes(struct retry_policy *p, struct str list, struct arena *a)
{
    uint32_t *v = arena_array(a, uint32_t, p->status_code_count + CLIENT_CODES_MAX);
    for (size_t i = 0; i < p->status_code_count; i++) {
        v[i] = p->status_codes[i];
    }
    for (int i = 0; i < CLIENT_CODES_MAX && list.n; i++) {
        uint64_t code;
        if (str_to_u64(str_trim(str_split(&list, ',')), 599, &code)) {
            v[p->status_code_count++] = (uint32_t)code;
        }
    }
    p->status_codes = v;
}

static void add_names(struct retry_policy *p, struct str list, struct arena *a)
{
    struct header_matcher *v = arena_array(a, struct header_matcher, p->header_count + CLIENT_CODES_MAX);
    for (size_t i = 0; i < p->header_count; i++) {
        v[i] = p->headers[i];
    }
    for (int i = 0; i < CLIENT_CODES_MAX && list.n; i++) {
        struct str name = str_trim(str_split(&list, ','));
        if (name.n) {
            v[p->header_count++] = (struct header_matcher){ .kind = HM_PRESENT, .present = true, .name = name, .id = hdr_id_of(name) };
        }
    }
    p->headers = v;
}

static bool any_matches(const struct header_matcher *m, size_t n, const struct match_request *q)
{
    for (size_t i = 0; i < n; i++) {
        if (header_matcher_match(&m[i], q)) {
            return true;
        }
    }
    return false;
}

// retriable_request_headers: a route may limit retries to some requests.
static bool request_may_be_retried(const struct router *r, const struct retry_policy *p)
{
    const struct http_request *req = r->req;
    const struct match_request q = { .method = req->method, .path = req->path, .authority = req->host, .scheme = req->scheme,
                                     .headers = &req->headers, .arena = r->arena, .head = req };
    return p->request_header_count == 0 || any_matches(p->request_headers, p->request_header_count, &q);
}

bool retry_headers_match(const struct retry_policy *p, const struct headers *h)
{
    const struct match_request q = { .headers = h, .arena = h->arena };
    return any_matches(p->headers, p->header_count, &q);
}

static void client_retries(struct router *r)
{
    struct str on = take(r, "x-envoy-retry-on"), grpc = take(r, "x-envoy-retry-grpc-on"), codes = take(r, "x-envoy-retriable-status-codes"),
               names = take(r, "x-envoy-retriable-header-names");
    uint64_t max = 0, per_try = 0;
    bool has_max = take_number(r, "x-envoy-max-retries", UINT32_MAX, &max);
    bool has_try = take_number(r, "x-envoy-upstream-rq-per-try-timeout-ms", INT32_MAX, &per_try);
    struct str hedge = take(r, "x-envoy-hedge-on-per-try-timeout");
    r->hedging = hedge.n ? str_is(hedge, "true") : r->hedging;
    uint32_t bits = retry_on_parse(on) | retry_on_parse(grpc);
    if (!bits && !has_max && !has_try && !codes.n && !names.n) {
        return;
    }
    struct retry_policy *p = arena_new(r->arena, struct retry_policy);
    *p = r->policy ? *r->policy : (struct retry_policy){ .num_retries = 1, .host_selection_attempts = 1 };
    p->on |= bits;
    p->num_retries = has_max && p->on ? (uint32_t)max : p->num_retries;
    p->per_try_timeout_ms = has_try ? per_try : p->per_try_timeout_ms;
    if (codes.n) {
        add_codes(p, codes, r->arena);
    }
    if (names.n) {
        add_names(p, names, r->arena);
    }
    r->policy = p;
}

// The route's time-out; max_stream_duration takes its place. With max_grpc_timeout a gRPC request has the one its client asked for, up to
// that limit; 0 = none.
static uint64_t route_timeout(const struct router *r)
{
    const struct route *rt = r->route;
    if (rt->has_max_stream) {
        return 0;
    }
    if (rt->max_grpc_timeout_ms >= 0 && grpc_content_type(headers_value_id(&r->req->headers, HDR_CONTENT_TYPE))) {
        uint64_t max = (uint64_t)rt->max_grpc_timeout_ms, ms = 0;
        if (grpc_timeout_parse(headers_value_id(&r->req->headers, HDR_GRPC_TIMEOUT), &ms) && rt->grpc_timeout_offset_ms < ms) {
            ms -= rt->grpc_timeout_offset_ms;
        }
        return max && (ms == 0 || ms > max) ? max : ms;
    }
    return rt->timeout_ms < 0 ? ROUTER_TIMEOUT_MS : (uint64_t)rt->timeout_ms;
}

static void client_timeout(struct router *r)
{
    uint64_t ms, asked;
    bool has = take_number(r, "x-envoy-upstream-rq-timeout-ms", INT32_MAX, &asked);
    if (r->cfg->respect_expected_timeout &&
        str_to_u64(headers_value_id(&r->req->headers, HDR_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS), INT32_MAX, &ms)) {
        r->timeout_ms = ms;
    } else if (has) {
        r->timeout_ms = asked;
    }
    r->alt_response = take(r, "x-envoy-upstream-rq-timeout-alt-response").p != NULL;
    (void)take(r, "x-envoy-upstream-alt-stat-name");
}

void router_policy(struct router *r)
{
    const struct retry_policy *configured = r->route->retry ? r->route->retry : r->vhost->retry;
    r->policy = configured;
    r->hedging = r->route->hedge;
    r->timeout_ms = route_timeout(r);
    if (r->envoy_fields) {
        client_retries(r);
        client_timeout(r);
    }
    const struct retry_policy *p = r->policy;
    r->retries_left = p && p->on && request_may_be_retried(r, p) ? p->num_retries : 0;
    r->no_retry = p && r->retries_left == 0 && p->num_retries > 0; // not for want of attempts, so no limit is reported
    r->per_try_ms = p ? p->per_try_timeout_ms : 0;
    if (r->timeout_ms && r->per_try_ms >= r->timeout_ms) {
        r->per_try_ms = 0;
    }
    uint64_t limit = r->route->has_buffer_limit ? r->route->buffer_limit : ROUTER_REPLAY_MAX;
    r->replay_max = limit > ROUTER_REPLAY_LIMIT ? ROUTER_REPLAY_LIMIT : (size_t)limit;
}

// The upstream shall not work longer than its answer is waited for: x-envoy-expected-rq-timeout-ms, and grpc-timeout unless the route has
// max_stream_duration. Later attempts have what is left.
void router_say_timeout(struct router *r)
{
    uint64_t total = r->timeout_ms, ms = r->hedging || !r->per_try_ms ? total : r->per_try_ms;
    if (!ms) {
        return;
    }
    if (total) {
        uint64_t gone = loop_now_ms(r->worker->loop) - r->start_ms;
        uint64_t left = gone < total ? total - gone : 1; // 0 would mean no limit
        ms = ms < left ? ms : left;
    }
    struct headers *h = &r->req->headers;
    if (!r->cfg->suppress_envoy_headers) {
        headers_set_id(h, HDR_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, router_number(r->arena, ms));
    }
    const struct route *rt = r->route;
    if (rt->max_grpc_timeout_ms >= 0 && !rt->has_max_stream && grpc_content_type(headers_value_id(h, HDR_CONTENT_TYPE))) {
        headers_set_id(h, HDR_GRPC_TIMEOUT, grpc_timeout_text(ms, r->arena));
    }
}

uint64_t retry_reset_wait_ms(const struct retry_policy *p, const struct headers *h, uint64_t wall_ms, uint64_t random)
{
    for (size_t i = 0; i < p->reset_header_count; i++) {
        uint64_t s;
        if (!str_to_u64(headers_value(h, p->reset_headers[i].name), UINT32_MAX, &s)) {
            continue;
        }
        if (p->reset_headers[i].unix_time) {
            s = s > wall_ms / 1000 ? s - wall_ms / 1000 : 0;
        }
        uint64_t ms = s * 1000;
        if (ms && ms <= p->reset_max_ms) {
            return ms + random % (ms / 2 + 1); // never sooner than asked, and not all at once
        }
        return 0;
    }
    return 0;
}
