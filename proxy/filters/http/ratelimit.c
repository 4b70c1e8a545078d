// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.ratelimit: asks a rate limit server about each request that has descriptors, and does what it says.
#include <errno.h>

#include "envoy/extensions/filters/http/ratelimit/v3/rate_limit.pb-c.h"
#include "lib/base/rand.h"
#include "proto/pb_util.h"
#include "proxy/access_log/format.h"
#include "proxy/authz/grpc_service.h"
#include "proxy/authz/rate_question.h"
#include "proxy/filters/http/filters.h"
#include "proxy/filters/http/parse_fields.h"
#include "proxy/filters/http/rate_actions.h"
#include "proxy/http/manager.h"
#include "proxy/router/side_call.h"
#include "proxy/upstream/cluster.h"

typedef Envoy__Extensions__Filters__Http__Ratelimit__V3__RateLimit pb_global;
typedef Envoy__Extensions__Filters__Http__Ratelimit__V3__RateLimitPerRoute pb_route;

enum { TIMEOUT_MS = 20, ADDS_MAX = 10 }; // Envoy's

enum whose { ALL_REQUESTS, INTERNAL_REQUESTS, EXTERNAL_REQUESTS }; // request_type
enum vhost_limits { VH_OVERRIDE, VH_INCLUDE, VH_IGNORE };

struct global_cfg {
    struct grpc_service service;
    struct str domain;
    unsigned stage;
    enum whose whose;
    struct fraction enabled, enforced, deny;
    bool exhausted, x_headers, retry_after, hide_limited; // hide_limited: disable_x_envoy_ratelimited_header
    int status, status_on_error;
    struct header_add *adds;
    size_t add_count;
    struct str metadata_space;
    const struct rate_limits *rules; // in place of the route's; NULL = none
};

struct route_cfg {
    struct str domain;           // empty = the filter's
    enum vhost_limits vhost_limits;
    const struct rate_limits *rules;
};

struct global_state {
    struct side_grpc *call;      // under way
    struct str cluster;          // of the route, for statistics
    const struct route *route;   // as it was when the request came: what comes at the end goes by it, too. NULL = not asked about
    const struct virtual_host *vhost;
    const struct route_cfg *per_route;
    bool replied;
    struct headers *adds;        // for the answer; NULL = none
};

// ---- configuration ----

static struct fraction share(const struct config_ctx *ctx, const Envoy__Config__Core__V3__RuntimeFractionalPercent *m, const char *key)
{
    struct fraction f = { .numerator = 100, .denominator = 100 };
    if (m) {
        return parse_runtime_fraction(ctx, m);
    }
    if (ctx && config_runtime_fraction) {
        (void)config_runtime_fraction(ctx, key, &f.numerator, &f.denominator);
    }
    return f;
}

static int take_status(const Envoy__Type__V3__HttpStatus *m, const char *field, int least, int usual, int *ret, struct err *err)
{
    int code = m ? (int)m->code : usual;
    if (code < 100 || code > 599) {
        return err_set(err, -EINVAL, "%s.code: must be 100 to 599", field);
    }
    *ret = code >= least ? code : usual; // as Envoy: what is no error does not limit
    return 0;
}

static int take_whose(const char *s, enum whose *ret, struct err *err)
{
    *ret = strcmp(s, "internal") == 0 ? INTERNAL_REQUESTS : strcmp(s, "external") == 0 ? EXTERNAL_REQUESTS : ALL_REQUESTS;
    bool known = !s[0] || *ret != ALL_REQUESTS || strcmp(s, "both") == 0;
    return known ? 0 : err_set(err, -EINVAL, "request_type: must be internal, external or both");
}

static int take_service(const pb_global *m, struct arena *a, struct global_cfg *c, struct err *err)
{
    const Envoy__Config__Ratelimit__V3__RateLimitServiceConfig *s = m->rate_limit_service;
    if (!s || !s->grpc_service) {
        return err_set(err, -EINVAL, "rate_limit_service.grpc_service: missing");
    }
    if (s->transport_api_version != ENVOY__CONFIG__CORE__V3__API_VERSION__V3) {
        return err_set(err, -EINVAL, "rate_limit_service.transport_api_version: must be V3");
    }
    if (grpc_service_parse(s->grpc_service, TIMEOUT_MS, a, &c->service, err)) {
        return err_wrap(err, "rate_limit_service.grpc_service");
    }
    c->service.timeout_ms = (uint64_t)pb_duration_ms(m->timeout, TIMEOUT_MS); // the filter's own, whatever the service says
    return 0;
}

static int global_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const pb_global *m = msg;
    if (!m || !m->domain[0]) {
        return err_set(err, -EINVAL, "%s: missing", m ? "domain" : "typed_config");
    }
    if (m->stat_prefix[0]) {
        return err_set(err, -ENOTSUP, "stat_prefix: is not supported");
    }
    if (m->stage >= RATE_LIMIT_STAGES) {
        return err_set(err, -EINVAL, "stage: must be at most %d", RATE_LIMIT_STAGES - 1);
    }
    if (m->n_response_headers_to_add > ADDS_MAX) {
        return err_set(err, -EINVAL, "response_headers_to_add: at most %d", ADDS_MAX);
    }
    struct global_cfg *c = arena_new(arena, struct global_cfg);
    *c = (struct global_cfg){ .domain = arena_str(arena, str_c(m->domain)), .stage = m->stage, .exhausted = m->rate_limited_as_resource_exhausted,
                              .x_headers = m->enable_x_ratelimit_headers != 0, .retry_after = m->enable_retry_after_header,
                              .hide_limited = m->disable_x_envoy_ratelimited_header,
                              .enabled = share(ctx, m->filter_enabled, "ratelimit.http_filter_enabled"),
                              .enforced = share(ctx, m->filter_enforced, "ratelimit.http_filter_enforcing"),
                              .deny = { .numerator = m->failure_mode_deny, .denominator = 1 } };
    c->metadata_space = arena_str(arena, m->metadata_namespace[0] ? str_c(m->metadata_namespace) : STR("envoy.filters.http.ratelimit"));
    if (m->failure_mode_deny_percent) {
        c->deny = parse_runtime_fraction(ctx, m->failure_mode_deny_percent);
    }
    if (take_whose(m->request_type, &c->whose, err) || take_status(m->rate_limited_status, "rate_limited_status", 400, 429, &c->status, err) ||
        take_status(m->status_on_error, "status_on_error", 200, 500, &c->status_on_error, err) || take_service(m, arena, c, err) ||
        parse_header_adds(m->n_response_headers_to_add, m->response_headers_to_add, "response_headers_to_add", arena, &c->adds, &c->add_count, err) ||
        rate_limits_parse(ctx, m->n_rate_limits, m->rate_limits, RATE_LIMITS_GLOBAL_FILTER, arena, &c->rules, err)) {
        return err->code;
    }
    *ret_cfg = c;
    return 0;
}

static int route_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const pb_route *m = msg;
    struct route_cfg *c = arena_new(arena, struct route_cfg);
    *ret_cfg = c;
    if (!m) {
        return 0;
    }
    if (m->override_option != ENVOY__EXTENSIONS__FILTERS__HTTP__RATELIMIT__V3__RATE_LIMIT_PER_ROUTE__OVERRIDE_OPTIONS__DEFAULT) {
        return err_set(err, -ENOTSUP, "override_option: is not supported; Envoy does not act on it either");
    }
    c->domain = arena_str(arena, str_c(m->domain));
    c->vhost_limits = (enum vhost_limits)m->vh_rate_limits;
    return rate_limits_parse(ctx, m->n_rate_limits, m->rate_limits, RATE_LIMITS_GLOBAL_FILTER, arena, &c->rules, err);
}

// ---- asking ----

// What the exchange is counted as, when it comes (done false) or when it is over.
static size_t descriptors_of(const struct http_filter *f, bool done, struct rate_limit_descriptor **ret)
{
    const struct global_state *st = f->state;
    const struct global_cfg *c = f->cfg;
    const struct route *r = st->route;
    struct rate_limits_ask q = { .done = done };
    const struct rate_limits *first = st->per_route && st->per_route->rules ? st->per_route->rules : c->rules, *second = NULL;
    if (!first) {
        enum vhost_limits v = r->include_vh_rate_limits ? VH_INCLUDE : st->per_route ? st->per_route->vhost_limits : VH_OVERRIDE;
        q.stage = c->stage;
        first = r->rate_limits;
        second = st->vhost && (v == VH_INCLUDE || (v == VH_OVERRIDE && !first)) ? st->vhost->rate_limits : NULL;
    }
    size_t n = 0, room = rate_limits_count(first) + rate_limits_count(second);
    if (room) {
        *ret = arena_array(&f->stream->arena, struct rate_limit_descriptor, room);
        rate_limits_fill(first, f->stream, &q, *ret, &n);
        rate_limits_fill(second, f->stream, &q, *ret, &n);
    }
    return n;
}

static struct side_grpc *ask(const struct http_filter *f, const struct rate_limit_descriptor *d, size_t n,
                             void (*done)(void *owner, const struct side_grpc_answer *a), void *owner)
{
    const struct global_cfg *c = f->cfg;
    const struct global_state *st = f->state;
    const struct grpc_service *g = &c->service;
    struct str domain = st->per_route && st->per_route->domain.n ? st->per_route->domain : c->domain;
    struct arena scratch;
    arena_init(&scratch, 0, 0);
    struct side_grpc *call = side_grpc_start(
        f->stream->worker, &(struct side_grpc_request){ .cluster = g->cluster, .authority = g->authority,
                                                        .path = STR("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"),
                                                        .message = rate_question_pack(domain, d, n, &scratch), .metadata = g->metadata,
                                                        .timeout_ms = g->timeout_ms, .answer_max = g->answer_max, .retry = g->retry,
                                                        .no_envoy_headers = g->no_envoy_headers, .done = done, .owner = owner });
    arena_fini(&scratch);
    return call;
}

static struct stat_block *limit_stats(const struct http_filter *f, struct cluster_worker **ret)
{
    const struct global_state *st = f->state;
    struct cluster_worker *cw = upstream_cluster(f->stream->worker, st->cluster);
    *ret = cw;
    return cw && cw->stats ? stats_scope_get(f->stream->worker->stats, STAT_CLUSTER_LIMIT, cw->stats->name) : NULL;
}

// ---- answers ----

static struct headers *adds_of(struct http_filter *f)
{
    struct global_state *st = f->state;
    if (!st->adds) {
        st->adds = arena_new(&f->stream->arena, struct headers);
        headers_init(st->adds, &f->stream->arena);
    }
    return st->adds;
}

static void keep_fields(const struct rate_field *v, size_t n, struct headers *h)
{
    for (size_t i = 0; i < n; i++) {
        headers_add(h, arena_str(h->arena, v[i].name), arena_str(h->arena, v[i].value));
    }
}

static void keep_answer(struct http_filter *f, const struct rate_answer *a)
{
    const struct global_cfg *c = f->cfg;
    if (a->response_count) {
        keep_fields(a->response, a->response_count, adds_of(f));
    }
    if (a->over && !c->hide_limited) {
        headers_set(adds_of(f), STR("x-envoy-ratelimited"), STR("true"));
    }
    if (c->x_headers && a->has_limit) {
        struct headers *h = adds_of(f);
        headers_add(h, STR("x-ratelimit-limit"), arena_str(h->arena, a->limit));
        headers_add(h, STR("x-ratelimit-remaining"), arena_printf(h->arena, "%llu", (unsigned long long)a->remaining));
        headers_add(h, STR("x-ratelimit-reset"), arena_printf(h->arena, "%lld", (long long)a->reset_s));
    }
}

static void add_configured(const struct http_filter *f, struct headers *h)
{
    const struct global_cfg *c = f->cfg;
    struct stream *s = f->stream;
    const struct format_ctx ctx = { .info = &s->info, .req = &s->req, .original_path = s->path_original };
    struct str *values = arena_array(&s->arena, struct str, c->add_count + 1);
    for (size_t i = 0; i < c->add_count; i++) {
        values[i] = c->adds[i].format ? format_text(c->adds[i].format, &ctx, &s->arena) : c->adds[i].value;
    }
    header_adds_take(c->adds, values, c->add_count, h, NULL);
}

static void refuse(struct http_filter *f, const struct rate_answer *a)
{
    const struct global_cfg *c = f->cfg;
    struct global_state *st = f->state;
    struct stream *s = f->stream;
    struct headers *h = adds_of(f);
    st->adds = NULL; // said now
    st->replied = true;
    s->info.flags |= RF(RATE_LIMITED); // for what is added
    if (c->retry_after && c->status == 429 && !headers_get(h, STR("retry-after"))) {
        headers_add(h, STR("retry-after"), arena_printf(h->arena, "%lld", (long long)(a->retry_after_s > 0 ? a->retry_after_s : 1)));
    }
    add_configured(f, h);
    if (c->exhausted && stream_is_grpc(s)) {
        headers_set_id(h, HDR_GRPC_STATUS, STR("8")); // RESOURCE_EXHAUSTED
    }
    stream_local_reply(s, c->status, arena_str(&s->arena, a->body), "request_rate_limited", RF(RATE_LIMITED), h);
}

// No answer, or none that makes sense.
static void failed(struct http_filter *f)
{
    const struct global_cfg *c = f->cfg;
    struct global_state *st = f->state;
    struct cluster_worker *cw;
    struct stat_block *stats = limit_stats(f, &cw);
    stat_inc(stats, STAT_ID_CLUSTER_LIMIT_ERROR);
    if (fraction_hit(c->deny, rand_u64())) {
        st->replied = true;
        stream_local_reply(f->stream, c->status_on_error, str_n(NULL, 0), "rate_limiter_error", RF(RATE_LIMIT_SERVICE_ERROR), NULL);
        return;
    }
    stat_inc(stats, STAT_ID_CLUSTER_LIMIT_FAILURE_MODE_ALLOWED);
    stream_continue_request(f->stream, f);
}

static void on_answer(void *owner, const struct side_grpc_answer *g)
{
    struct http_filter *f = owner;
    struct global_state *st = f->state;
    const struct global_cfg *c = f->cfg;
    struct rate_answer a;
    struct err err;
    st->call = NULL;
    struct stream *s = f->stream;
    if (g->status != GRPC_OK || rate_answer_parse(g->message, g->http->arena, &a, &err) ||
        (a.metadata.n && !stream_info_metadata_merge(&s->info, &s->arena, c->metadata_space, a.metadata))) {
        failed(f);
        return;
    }
    struct cluster_worker *cw;
    struct stat_block *stats = limit_stats(f, &cw);
    stat_inc(stats, a.over ? STAT_ID_CLUSTER_LIMIT_OVER_LIMIT : STAT_ID_CLUSTER_LIMIT_OK);
    if (a.over && cw) {
        stat_answer(cw->stats, c->status);
    }
    keep_answer(f, &a);
    if (a.over && fraction_hit(c->enforced, rand_u64())) {
        refuse(f, &a);
        return;
    }
    keep_fields(a.request, a.request_count, &f->stream->req.headers);
    stream_continue_request(f->stream, f);
}

static enum http_filter_status global_on_request(struct http_filter *f, struct http_request *req)
{
    struct stream *s = f->stream;
    struct global_state *st = f->state;
    const struct global_cfg *c = f->cfg;
    (void)req;
    if (!fraction_hit(c->enabled, rand_u64()) || (c->whose == INTERNAL_REQUESTS && !s->internal) || (c->whose == EXTERNAL_REQUESTS && s->internal) ||
        !s->route || s->route->kind != ROUTE_FORWARD) {
        return HF_CONTINUE;
    }
    st->cluster = rate_limits_destination(s);
    if (!upstream_cluster(s->worker, st->cluster)) { // nowhere to go: the router says so
        return HF_CONTINUE;
    }
    st->route = s->route;
    st->vhost = s->vhost;
    st->per_route = stream_per_filter(s, f->ext->name);
    struct rate_limit_descriptor *d = NULL;
    size_t n = descriptors_of(f, false, &d);
    if (!n) {
        return HF_CONTINUE;
    }
    st->call = ask(f, d, n, on_answer, f);
    return HF_STOP; // without a call this thread is about to end
}

static void global_on_response(struct http_filter *f, struct http_response *resp)
{
    struct global_state *st = f->state;
    for (struct hdr *x = st->adds ? headers_first(st->adds) : NULL; x; x = headers_next(st->adds, x)) {
        headers_add_known(&resp->headers, (enum hdr_id)x->id, x->name, x->value);
    }
    st->adds = NULL;
}

static void nobody_listens(void *owner, const struct side_grpc_answer *g)
{
    (void)owner;
    (void)g;
}

static void global_on_destroy(struct http_filter *f)
{
    struct global_state *st = f->state;
    if (st->call) {
        side_grpc_cancel(st->call);
        st->call = NULL;
        return;
    }
    struct rate_limit_descriptor *d = NULL;
    size_t n = st->route ? descriptors_of(f, true, &d) : 0;
    if (n) {
        (void)ask(f, d, n, nobody_listens, NULL);
    }
}

const struct http_filter_ops http_filter_ratelimit = {
    .ext = { .name = "envoy.filters.http.ratelimit", .type_url = "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
             .config_parse = global_parse },
    .route_type_url = "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
    .route_config_parse = route_parse,
    .state_size = sizeof(struct global_state),
    .on_request = global_on_request,
    .on_response = global_on_response,
    .on_destroy = global_on_destroy,
};
