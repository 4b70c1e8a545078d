// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.fault: delays and aborts a share of the requests, to see what clients make of it. A route's configuration replaces the
// listener's.
#include <errno.h>
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
};

struct fault_state {
    const struct fault_cfg *cfg;
    struct timer timer;
    struct http_filter *filter;
};

typedef Envoy__Extensions__Filters__Http__Fault__V3__HTTPFault pb_fault;

static int parse_delay(const Envoy__Extensions__Filters__Common__Fault__V3__FaultDelay *m, struct fault_cfg *c, struct err *err)
{
    c->delay = true;
    c->delay_share = parse_fraction(m->percentage);
    switch (m->fault_delay_secifier_case) {
    case ENVOY__EXTENSIONS__FILTERS__COMMON__FAULT__V3__FAULT_DELAY__FAULT_DELAY_SECIFIER_FIXED_DELAY:
        c->delay_ms = (uint64_t)pb_duration_ms(m->fixed_delay, 0);
        return c->delay_ms <= FAULT_DELAY_MAX_MS ? 0 : err_set(err, -EINVAL, "delay.fixed_delay: more than %d ms", FAULT_DELAY_MAX_MS);
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

static int fault_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    const pb_fault *m = msg;
    struct fault_cfg *c = arena_new(arena, struct fault_cfg);
    *ret_cfg = c;
    if (!m) {
        return 0;
    }
    if (m->response_rate_limit) {
        return err_set(err, -ENOTSUP, "response_rate_limit: is not supported");
    }
    if (m->max_active_faults) {
        return err_set(err, -ENOTSUP, "max_active_faults: is not supported");
    }
    if ((m->upstream_cluster && m->upstream_cluster[0]) || m->n_downstream_nodes) {
        return err_set(err, -ENOTSUP, "upstream_cluster, downstream_nodes: are not supported");
    }
    c->headers = arena_array(arena, struct header_matcher, m->n_headers + 1);
    for (size_t i = 0; i < m->n_headers; i++, c->header_count++) {
        int rc = parse_header_matcher(m->headers[i], arena, &c->headers[i], err);
        if (rc < 0) {
            return err_wrap(err, "headers[%zu]", i);
        }
    }
    int rc = m->delay ? parse_delay(m->delay, c, err) : 0;
    return rc < 0 || !m->abort ? rc : parse_abort(m->abort, arena, c, err);
}

static bool matches(const struct http_filter *f, const struct fault_cfg *c, const struct http_request *req)
{
    const struct match_request r = { .method = req->method, .path = req->path, .authority = req->host, .scheme = req->scheme,
                                     .headers = &req->headers, .arena = &f->stream->arena };
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
    const struct fault_state *st = f->state;
    const struct fault_cfg *c = st->cfg;
    if (!c->abort || !fraction_hit(c->abort_share, rand_u64())) {
        return false;
    }
    const struct http_request *req = &f->stream->req;
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
    if (!c->delay || !fraction_hit(c->delay_share, rand_u64())) {
        return 0;
    }
    return c->delay_by_header && !number(req, STR("x-envoy-fault-delay-request"), FAULT_DELAY_MAX_MS, &ms) ? 0 : ms;
}

static enum http_filter_status fault_on_request(struct http_filter *f, struct http_request *req)
{
    struct fault_state *st = f->state;
    const struct fault_cfg *c = stream_per_filter(f->stream, f->stream->cfg->filters[f->index].name);
    c = c ? c : f->cfg;
    if (!c || (!c->delay && !c->abort) || !matches(f, c, req)) {
        return HF_CONTINUE;
    }
    st->cfg = c;
    st->filter = f;
    uint64_t ms = delay_of(c, req);
    if (ms) {
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
