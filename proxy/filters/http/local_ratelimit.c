// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.local_ratelimit: token buckets of this process, shared by all workers, or of one client connection. A route's configuration
// replaces the listener's.
#include <errno.h>

#include "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.pb-c.h"
#include "lib/base/rand.h"
#include "proto/pb_util.h"
#include "proxy/access_log/format.h"
#include "proxy/authz/rate_limit.h"
#include "proxy/filters/http/filters.h"
#include "proxy/filters/http/parse_fields.h"
#include "proxy/filters/http/rate_actions.h"
#include "proxy/http/manager.h"

typedef Envoy__Extensions__Filters__Http__LocalRatelimit__V3__LocalRateLimit pb_local;

enum { STATS_KEPT = 64 }; // workers that remember their block; others look it up

enum vhost_limits { VH_OVERRIDE, VH_INCLUDE, VH_IGNORE }; // common.ratelimit.v3.VhRateLimitsOptions, same numbers

struct local_cfg {
    struct str stat_prefix;
    struct stat_block **stats;   // by worker; each writes only its own
    int status;
    struct fraction enabled, enforced;
    struct header_add *request_adds, *response_adds;
    size_t request_add_count, response_add_count;
    unsigned stage;
    bool has_descriptors;        // only then it is asked what the request has
    bool per_connection;
    bool x_headers, retry_after;
    bool exhausted;              // rate_limited_as_resource_exhausted
    enum vhost_limits vhost_limits;
    const struct rate_limits *rules; // in place of the route's; NULL = none
    struct limiter *limiter;     // per_connection: the pattern of theirs
};

struct local_state {
    bool x_headers;              // fields for the answer
    struct limiter_answer answer;
};

static int take_status(const Envoy__Type__V3__HttpStatus *m, int *ret, struct err *err)
{
    unsigned code = m ? (unsigned)m->code : 0;
    if (m && (code < 100 || code > 599)) {
        return err_set(err, -EINVAL, "status.code: must be 100 to 599");
    }
    *ret = code >= 400 ? (int)code : 429; // as Envoy: what is no error does not limit
    return 0;
}

static int take_limiter(const pb_local *m, struct arena *a, struct local_cfg *c, struct err *err)
{
    if (m->local_cluster_rate_limit) {
        return err_set(err, -ENOTSUP, "local_cluster_rate_limit: is not supported");
    }
    const struct limiter_msg lm = { .bucket = m->token_bucket, .descriptors = m->descriptors, .descriptor_count = m->n_descriptors,
                                    .dynamic_max = pb_u32_or(m->max_dynamic_descriptors, RATE_LIMIT_DYNAMIC_DEFAULT),
                                    .always_default = pb_bool_or(m->always_consume_default_token_bucket, true) };
    c->has_descriptors = m->n_descriptors > 0;
    return limiter_parse(&lm, a, &c->limiter, err);
}

static struct fraction share(const struct config_ctx *ctx, const Envoy__Config__Core__V3__RuntimeFractionalPercent *m)
{
    return m ? parse_runtime_fraction(ctx, m) : (struct fraction){ .denominator = 100 }; // not said: off
}

static int local_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const pb_local *m = msg;
    if (!m) {
        return err_set(err, -EINVAL, "typed_config: missing");
    }
    if (!m->stat_prefix[0]) {
        return err_set(err, -EINVAL, "stat_prefix: missing");
    }
    struct local_cfg *c = arena_new(arena, struct local_cfg);
    *c = (struct local_cfg){ .stat_prefix = arena_str(arena, str_c(m->stat_prefix)), .stage = m->stage, .vhost_limits = (enum vhost_limits)m->vh_rate_limits,
                             .per_connection = m->local_rate_limit_per_downstream_connection, .exhausted = m->rate_limited_as_resource_exhausted,
                             .x_headers = m->enable_x_ratelimit_headers != 0, .retry_after = m->enable_retry_after_header };
    c->stats = arena_zalloc(arena, STATS_KEPT * sizeof(struct stat_block *));
    c->enabled = share(ctx, m->filter_enabled);
    c->enforced = share(ctx, m->filter_enforced);
    if (m->stage >= RATE_LIMIT_STAGES) {
        return err_set(err, -EINVAL, "stage: must be at most %d", RATE_LIMIT_STAGES - 1);
    }
    if (take_status(m->status, &c->status, err) || take_limiter(m, arena, c, err) ||
        parse_header_adds(m->n_request_headers_to_add_when_not_enforced, m->request_headers_to_add_when_not_enforced,
                          "request_headers_to_add_when_not_enforced", arena, &c->request_adds, &c->request_add_count, err) ||
        parse_header_adds(m->n_response_headers_to_add, m->response_headers_to_add, "response_headers_to_add", arena, &c->response_adds,
                          &c->response_add_count, err) ||
        rate_limits_parse(ctx, m->n_rate_limits, m->rate_limits, RATE_LIMITS_LOCAL_FILTER, arena, &c->rules, err)) {
        return err->code;
    }
    *ret_cfg = c;
    return 0;
}

static int local_route_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const pb_local *m = msg;
    if (m && !m->token_bucket) {
        return err_set(err, -EINVAL, "token_bucket: must be set for a route");
    }
    return local_parse(ctx, msg, arena, ret_cfg, err);
}

static struct stat_block *stats_of(const struct local_cfg *c, const struct worker *w)
{
    struct stat_block *b = w->index >= 0 && w->index < STATS_KEPT ? c->stats[w->index] : NULL;
    if (!b) { // never dropped: kept for good
        b = stats_scope_get(w->stats, STAT_HTTP_LIMIT, c->stat_prefix);
        if (w->index >= 0 && w->index < STATS_KEPT) {
            c->stats[w->index] = b;
        }
    }
    return b;
}

// The route's entries and the virtual host's, as the options say.
static size_t descriptors_of(const struct local_cfg *c, struct stream *s, struct rate_limit_descriptor **ret)
{
    const struct rate_limits_ask q = { .stage = c->stage, .any_time = true, .keyed_are_off = true };
    const struct rate_limits *first = c->rules, *second = NULL;
    size_t n = 0;
    if (!first && s->route && s->route->kind == ROUTE_FORWARD) {
        first = s->route->rate_limits;
        bool with = s->route->include_vh_rate_limits || c->vhost_limits == VH_INCLUDE || (c->vhost_limits == VH_OVERRIDE && !first);
        second = with && s->vhost ? s->vhost->rate_limits : NULL;
    }
    size_t room = rate_limits_count(first) + rate_limits_count(second);
    if (room) {
        *ret = arena_array(&s->arena, struct rate_limit_descriptor, room);
        const struct rate_limits_ask own = { .stage = 0 }; // embedded entries have no stage, and those for the end of the exchange do not count
        rate_limits_fill(first, s, c->rules ? &own : &q, *ret, &n);
        rate_limits_fill(second, s, &q, *ret, &n);
    }
    return n;
}

static struct limiter *limiter_of(const struct local_cfg *c, struct stream *s)
{
    if (!c->per_connection) {
        return c->limiter;
    }
    struct downstream_found *f = downstream_found(s->ds);
    if (!f->limiter) { // the first configuration that asks decides for the connection, as in Envoy
        f->limiter = limiter_copy(c->limiter, &f->arena);
    }
    return f->limiter;
}

static struct str *values_of(const struct header_add *v, size_t n, struct stream *s)
{
    const struct format_ctx ctx = { .info = &s->info, .req = &s->req, .original_path = s->path_original };
    struct str *values = arena_array(&s->arena, struct str, n + 1);
    for (size_t i = 0; i < n; i++) {
        values[i] = v[i].format ? format_text(v[i].format, &ctx, &s->arena) : v[i].value;
    }
    return values;
}

static void refuse(struct http_filter *f, const struct local_cfg *c)
{
    struct stream *s = f->stream;
    const struct local_state *st = f->state;
    struct headers h;
    headers_init(&h, &s->arena);
    header_adds_take(c->response_adds, values_of(c->response_adds, c->response_add_count, s), c->response_add_count, &h, NULL);
    if (c->retry_after && c->status == 429 && st->answer.has_bucket && !headers_get(&h, STR("retry-after"))) {
        headers_add(&h, STR("retry-after"), arena_printf(&s->arena, "%llu", (unsigned long long)(st->answer.reset_s ? st->answer.reset_s : 1)));
    }
    if (c->exhausted && stream_is_grpc(s)) {
        headers_add_id(&h, HDR_GRPC_STATUS, STR("8")); // RESOURCE_EXHAUSTED
    }
    stream_local_reply(s, c->status, STR("local_rate_limited"), "local_rate_limited", RF(RATE_LIMITED), &h);
}

static enum http_filter_status local_on_request(struct http_filter *f, struct http_request *req)
{
    struct stream *s = f->stream;
    struct local_state *st = f->state;
    const struct local_cfg *c = stream_per_filter(s, f->ext->name);
    c = c ? c : f->cfg;
    if (!fraction_hit(c->enabled, rand_u64())) {
        return HF_CONTINUE;
    }
    struct stat_block *stats = stats_of(c, s->worker);
    stat_inc(stats, STAT_ID_HTTP_LIMIT_ENABLED);
    struct rate_limit_descriptor *d = NULL;
    size_t n = c->has_descriptors ? descriptors_of(c, s, &d) : 0;
    limiter_ask(limiter_of(c, s), d, n, loop_now_ns(s->worker->loop), &s->arena, &st->answer);
    st->x_headers = st->answer.has_bucket &&
                    (st->answer.headers == RL_HEADERS_ON || (st->answer.headers == RL_HEADERS_UNSPECIFIED && c->x_headers));
    if (st->answer.allowed && !st->answer.shadow) {
        stat_inc(stats, STAT_ID_HTTP_LIMIT_OK);
        return HF_CONTINUE;
    }
    stat_inc(stats, STAT_ID_HTTP_LIMIT_RATE_LIMITED);
    if (st->answer.allowed) {
        stat_inc(stats, STAT_ID_HTTP_LIMIT_SHADOW_MODE);
        return HF_CONTINUE;
    }
    if (!fraction_hit(c->enforced, rand_u64())) {
        header_adds_take(c->request_adds, values_of(c->request_adds, c->request_add_count, s), c->request_add_count, &req->headers, req);
        return HF_CONTINUE;
    }
    stat_inc(stats, STAT_ID_HTTP_LIMIT_ENFORCED);
    refuse(f, c);
    return HF_STOP;
}

// On every answer: printf and a look-up of the name would cost more than the limit itself.
static void add_number(struct headers *h, struct str name, uint64_t n)
{
    enum { DIGITS_MAX = 20 };
    char *text = arena_alloc(h->arena, DIGITS_MAX), *end = text + DIGITS_MAX, *p = end;
    do {
        *--p = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    headers_add_known(h, HDR_OTHER, name, str_n(p, (size_t)(end - p)));
}

// draft-polli-ratelimit-headers-03
static void local_on_response(struct http_filter *f, struct http_response *resp)
{
    const struct local_state *st = f->state;
    if (st->x_headers) {
        add_number(&resp->headers, STR("x-ratelimit-limit"), st->answer.limit);
        add_number(&resp->headers, STR("x-ratelimit-remaining"), st->answer.remaining);
        add_number(&resp->headers, STR("x-ratelimit-reset"), st->answer.reset_s);
    }
}

const struct http_filter_ops http_filter_local_ratelimit = {
    .ext = { .name = "envoy.filters.http.local_ratelimit", .type_url = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
             .config_parse = local_parse },
    .route_type_url = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    .route_config_parse = local_route_parse,
    .state_size = sizeof(struct local_state),
    .on_request = local_on_request,
    .on_response = local_on_response,
};
