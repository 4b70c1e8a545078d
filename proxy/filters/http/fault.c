// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.fault: delays and aborts a share of the requests, to see what clients make of it. A route's configuration replaces the
// listener's.
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "envoy/extensions/filters/http/fault/v3/fault.pb-c.h"
#include "lib/base/rand.h"
#include "proto/pb_util.h"
#include "proxy/filters/http/filters.h"
#include "proxy/filters/http/parse.h"
#include "proxy/http/manager.h"

enum { FAULT_DELAY_MAX_MS = 3600000 };

struct fault_cfg {
    struct header_matcher *headers;
    size_t header_count;
    bool delay, delay_by_header, abort, abort_by_header;
    uint64_t delay_ms;
    struct fraction delay_share, abort_share;
    int status;      // HTTP, 0 = grpc_status
    int grpc_status;
    struct str body;
    struct str cluster;        // upstream_cluster: only requests to it; empty = all
    struct str *nodes;         // downstream_nodes: only requests of these; none = all
    size_t node_count;
    bool limited;
    uint32_t max_active;
    atomic_uint *active;       // shared by all workers; counted when limited
};

struct fault_state {
    const struct fault_cfg *cfg;
    struct timer timer;
    struct http_filter *filter;
    bool counted;
};

typedef Envoy__Extensions__Filters__Http__Fault__V3__HTTPFault pb_fault;

static int parse_delay(const Envoy__Extensions__Filters__Common__Fault__V3__FaultDelay *m, struct fault_cfg *c, struct err *err)
{
    c->delay = true;
    c->delay_share = parse_fraction(m->percentage);
    switch (m->fault_delay_secifier_case) {
    case ENVOY__EXTENSIONS__FILTERS__COMMON__FAULT__V3__FAULT_DELAY__FAULT_DELAY_SECIFIER_FIXED_DELAY:
        c->delay_ms = (uint64_t)pb_duration_ms(m->fixed_delay, 0);
        return c->delay_ms > 0 && c->delay_ms <= FAULT_DELAY_MAX_MS
                   ? 0
                   : err_set(err, -EINVAL, "delay.fixed_delay: must be greater than 0s, and at most %d ms", FAULT_DELAY_MAX_MS);
    case ENVOY__EXTENSIONS__FILTERS__COMMON__FAULT__V3__FAULT_DELAY__FAULT_DELAY_SECIFIER_HEADER_DELAY:
        c->delay_by_header = true;
        return 0;
    default:
        return err_set(err, -EINVAL, "delay: fixed_delay or header_delay must be set");
    }
}

static int parse_abort(const Envoy__Extensions__Filters__Http__Fault__V3__FaultAbort *m, struct arena *a, struct fault_cfg *c,
                       struct err *err)
{
    c->abort = true;
    c->abort_share = parse_fraction(m->percentage);
    c->body = arena_str(a, m->response_body && m->response_body[0] ? str_c(m->response_body) : STR("fault filter abort"));
    switch (m->error_type_case) {
    case ENVOY__EXTENSIONS__FILTERS__HTTP__FAULT__V3__FAULT_ABORT__ERROR_TYPE_HTTP_STATUS:
        c->status = (int)m->http_status;
        return m->http_status >= 200 && m->http_status <= 599 ? 0 : err_set(err, -EINVAL, "abort.http_status: must be 200 to 599");
    case ENVOY__EXTENSIONS__FILTERS__HTTP__FAULT__V3__FAULT_ABORT__ERROR_TYPE_GRPC_STATUS:
        c->grpc_status = (int)m->grpc_status;
        return m->grpc_status <= 16 ? 0 : err_set(err, -EINVAL, "abort.grpc_status: must be at most 16");
    case ENVOY__EXTENSIONS__FILTERS__HTTP__FAULT__V3__FAULT_ABORT__ERROR_TYPE_HEADER_ABORT:
        c->abort_by_header = true;
        return 0;
    default:
        return err_set(err, -EINVAL, "abort: http_status, grpc_status or header_abort must be set");
    }
}

// What the runtime has for the key that the configuration names, else for Envoy's own.
static bool runtime(struct config_ctx *ctx, const char *named, const char *usual, uint64_t max, uint64_t *ret)
{
    return config_runtime_number && config_runtime_number(ctx, named && named[0] ? named : usual, max, ret);
}

// Runtime keys over what is configured. The static layers are all there is, so that they are looked at here.
static int take_runtime(struct config_ctx *ctx, const pb_fault *m, struct fault_cfg *c, struct err *err)
{
    uint64_t n;
    if (c->delay && runtime(ctx, m->delay_percent_runtime, "fault.http.delay.fixed_delay_percent", 100, &n)) {
        c->delay_share = (struct fraction){ .numerator = (uint32_t)n, .denominator = 100 };
    }
    if (c->delay && !c->delay_by_header) {
        (void)runtime(ctx, m->delay_duration_runtime, "fault.http.delay.fixed_duration_ms", FAULT_DELAY_MAX_MS, &c->delay_ms);
    }
    if (c->abort && runtime(ctx, m->abort_percent_runtime, "fault.http.abort.abort_percent", 100, &n)) {
        c->abort_share = (struct fraction){ .numerator = (uint32_t)n, .denominator = 100 };
    }
    if (c->status && runtime(ctx, m->abort_http_status_runtime, "fault.http.abort.http_status", UINT32_MAX, &n)) {
        c->status = n >= 200 && n <= 599 ? (int)n : c->status;
        return n >= 200 && n <= 599 ? 0 : err_set(err, -EINVAL, "abort_http_status_runtime: its value %u is not 200 to 599", (unsigned)n);
    }
    if (c->abort && !c->status && !c->abort_by_header && runtime(ctx, m->abort_grpc_status_runtime, "fault.http.abort.grpc_status", 16, &n)) {
        c->grpc_status = (int)n;
    }
    if (runtime(ctx, m->max_active_faults_runtime, "fault.http.max_active_faults", UINT32_MAX, &n)) {
        c->limited = true;
        c->max_active = (uint32_t)n;
    }
    return 0;
}

static int fault_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const pb_fault *m = msg;
    struct fault_cfg *c = arena_new(arena, struct fault_cfg);
    *ret_cfg = c;
    if (!m) {
        return 0;
    }
    if (m->response_rate_limit) {
        return err_set(err, -ENOTSUP, "response_rate_limit: is not supported");
    }
    c->limited = m->max_active_faults != NULL;
    c->max_active = m->max_active_faults ? m->max_active_faults->value : 0;
    c->active = arena_new(arena, atomic_uint);
    c->cluster = arena_str(arena, str_c(m->upstream_cluster ? m->upstream_cluster : ""));
    c->nodes = arena_array(arena, struct str, m->n_downstream_nodes + 1);
    for (size_t i = 0; i < m->n_downstream_nodes; i++) {
        c->nodes[c->node_count++] = arena_str(arena, str_c(m->downstream_nodes[i]));
    }
    c->headers = arena_array(arena, struct header_matcher, m->n_headers + 1);
    for (size_t i = 0; i < m->n_headers; i++, c->header_count++) {
        int rc = parse_header_matcher(m->headers[i], arena, &c->headers[i], err);
        if (rc < 0) {
            return err_wrap(err, "headers[%zu]", i);
        }
    }
    int rc = m->delay ? parse_delay(m->delay, c, err) : 0;
    rc = rc < 0 || !m->abort ? rc : parse_abort(m->abort, arena, c, err);
    return rc < 0 ? rc : take_runtime(ctx, m, c, err);
}

static bool from_node(const struct fault_cfg *c, const struct http_request *req)
{
    struct str node = headers_value(&req->headers, STR("x-envoy-downstream-service-node"));
    for (size_t i = 0; i < c->node_count; i++) {
        if (node.p && str_eq(node, c->nodes[i])) {
            return true;
        }
    }
    return c->node_count == 0;
}

static bool matches(const struct http_filter *f, const struct fault_cfg *c, const struct http_request *req)
{
    if ((c->cluster.n && !str_eq(c->cluster, f->stream->info.upstream_cluster)) || !from_node(c, req)) {
        return false;
    }
    const struct match_request r = { .method = req->method, .path = req->path, .authority = req->host, .scheme = req->scheme,
                                     .headers = &req->headers, .arena = &f->stream->arena, .head = req };
    for (size_t i = 0; i < c->header_count; i++) {
        if (!header_matcher_match(&c->headers[i], &r)) {
            return false;
        }
    }
    return true;
}

static bool number(const struct http_request *req, struct str name, uint64_t max, uint64_t *ret)
{
    struct str v = headers_value(&req->headers, name);
    return v.n && str_to_u64(v, max, ret);
}

// The configured share, or the smaller one that the client asks for.
static bool share_hit(struct fraction share, bool by_header, const struct http_request *req, struct str header)
{
    uint64_t n;
    if (by_header && number(req, header, UINT32_MAX, &n) && n < share.numerator) {
        share.numerator = (uint32_t)n;
    }
    return fraction_hit(share, rand_u64());
}

// A place among the faults that may be active at a time.
static bool begin_fault(struct fault_state *st)
{
    if (!st->cfg->limited || st->counted) {
        return true;
    }
    if (atomic_fetch_add_explicit(st->cfg->active, 1, memory_order_relaxed) >= st->cfg->max_active) {
        atomic_fetch_sub_explicit(st->cfg->active, 1, memory_order_relaxed);
        return false;
    }
    st->counted = true;
    return true;
}

static void reply_grpc(struct http_filter *f, int status)
{
    if (!stream_is_grpc(f->stream)) { // nobody there who would look at grpc-status; Envoy answers so
        const struct fault_state *st = f->state;
        stream_local_reply(f->stream, 200, st->cfg->body, "fault_filter_abort", RF(FAULT_INJECTED), NULL);
        return;
    }
    struct headers h;
    headers_init(&h, &f->stream->arena);
    headers_add_id(&h, HDR_CONTENT_TYPE, STR("application/grpc"));
    headers_add_id(&h, HDR_GRPC_STATUS, arena_printf(h.arena, "%d", status));
    headers_add_id(&h, HDR_GRPC_MESSAGE, STR("fault filter abort"));
    stream_local_reply(f->stream, 200, str_n(NULL, 0), "fault_filter_abort", RF(FAULT_INJECTED), &h);
}

// True when the request was answered.
static bool abort_now(struct http_filter *f)
{
    struct fault_state *st = f->state;
    const struct fault_cfg *c = st->cfg;
    const struct http_request *req = &f->stream->req;
    if (!c->abort || !share_hit(c->abort_share, c->abort_by_header, req, STR("x-envoy-fault-abort-request-percentage")) || !begin_fault(st)) {
        return false;
    }
    uint64_t status = (uint64_t)c->status;
    if (c->abort_by_header) {
        uint64_t grpc;
        if (number(req, STR("x-envoy-fault-abort-grpc-request"), 16, &grpc)) {
            reply_grpc(f, (int)grpc);
            return true;
        }
        if (!number(req, STR("x-envoy-fault-abort-request"), 599, &status) || status < 200) {
            return false;
        }
    } else if (!status) {
        reply_grpc(f, c->grpc_status);
        return true;
    }
    stream_local_reply(f->stream, (int)status, c->body, "fault_filter_abort", RF(FAULT_INJECTED), NULL);
    return true;
}

static void on_timer(struct timer *t)
{
    struct fault_state *st = container_of(t, struct fault_state, timer);
    if (!abort_now(st->filter)) {
        stream_continue_request(st->filter->stream, st->filter);
    }
}

static uint64_t delay_of(const struct fault_cfg *c, const struct http_request *req)
{
    uint64_t ms = c->delay_ms;
    if (!c->delay || !share_hit(c->delay_share, c->delay_by_header, req, STR("x-envoy-fault-delay-request-percentage"))) {
        return 0;
    }
    return c->delay_by_header && !number(req, STR("x-envoy-fault-delay-request"), FAULT_DELAY_MAX_MS, &ms) ? 0 : ms;
}

static enum http_filter_status fault_on_request(struct http_filter *f, struct http_request *req)
{
    struct fault_state *st = f->state;
    const struct fault_cfg *c = stream_per_filter(f->stream, f->ext->name);
    c = c ? c : f->cfg;
    if (!c || (!c->delay && !c->abort) || !matches(f, c, req)) {
        return HF_CONTINUE;
    }
    st->cfg = c;
    st->filter = f;
    uint64_t ms = delay_of(c, req);
    if (ms && begin_fault(st)) {
        f->stream->info.flags |= RF(DELAY_INJECTED);
        timer_init(&st->timer, on_timer);
        timer_set(f->stream->worker->loop, &st->timer, ms);
        return HF_STOP;
    }
    return abort_now(f) ? HF_STOP : HF_CONTINUE;
}

static void fault_on_destroy(struct http_filter *f)
{
    struct fault_state *st = f->state;
    if (st->timer.fn) {
        timer_cancel(&st->timer);
    }
    if (st->counted) {
        atomic_fetch_sub_explicit(st->cfg->active, 1, memory_order_relaxed);
    }
}

const struct http_filter_ops http_filter_fault = {
    .ext = { .name = "envoy.filters.http.fault", .type_url = "envoy.extensions.filters.http.fault.v3.HTTPFault",
             .config_parse = fault_parse },
    .route_type_url = "envoy.extensions.filters.http.fault.v3.HTTPFault",
    .route_config_parse = fault_parse,
    .state_size = sizeof(struct fault_state),
    .on_request = fault_on_request,
    .on_destroy = fault_on_destroy,
};
