// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.router: joins the stream (proxy/http) and the router (proxy/router), which do not know each other.
#include "proxy/router/router.h"

#include <errno.h>

#include "envoy/extensions/filters/http/router/v3/router.pb-c.h"
#include "lib/base/log.h"
#include "proxy/access_log/format.h"
#include "proxy/filters/http/filters.h"

static int router_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    const Envoy__Extensions__Filters__Http__Router__V3__Router *m = msg;
    struct router_cfg *c = arena_new(arena, struct router_cfg);
    if (m) {
        if (m->n_upstream_http_filters) {
            return err_set(err, -ENOTSUP, "upstream_http_filters: are not supported");
        }
        if (m->n_strict_check_headers) {
            return err_set(err, -ENOTSUP, "strict_check_headers: is not supported");
        }
        if (m->reject_connect_request_early_data) {
            return err_set(err, -ENOTSUP, "reject_connect_request_early_data: is not supported");
        }
        c->respect_expected_timeout = m->respect_expected_rq_timeout;
        if (m->n_upstream_log) {
            log_warn(LOGC_CONFIG, 0, "upstream_log_off", "reason=\"upstream access logs are not built in; the listener's logs are\"");
        }
        c->suppress_envoy_headers = m->suppress_envoy_headers;
    }
    *ret_cfg = c;
    return 0;
}

static struct stream *stream_of(const struct router *r)
{
    return ((struct http_filter *)r->owner)->stream;
}

static void to_response(struct router *r, struct http_response *resp)
{
    stream_send_response(stream_of(r), resp);
}

static void to_informational(struct router *r, struct http_response *resp)
{
    stream_send_informational(stream_of(r), resp);
}

static void to_data(struct router *r, struct buf *data, bool end)
{
    stream_send_data(stream_of(r), data, end);
}

static void to_trailers(struct router *r, struct headers *trailers)
{
    stream_send_trailers(stream_of(r), trailers);
}

static void to_local_reply(struct router *r, int status, struct str body, const char *details, uint32_t flags,
                           const struct headers *extra)
{
    stream_of(r)->route_fields_done = extra != NULL;
    stream_local_reply(stream_of(r), status, body, details, flags, extra);
}

static void to_reset(struct router *r, const char *details, uint32_t flags)
{
    stream_reset(stream_of(r), details, flags);
}

static void to_pause(struct router *r)
{
    stream_pause_request(stream_of(r));
}

static void to_resume(struct router *r)
{
    stream_resume_request(stream_of(r));
}

static bool to_follow(struct router *r, const struct http_response *resp, struct buf *body)
{
    return stream_follow(stream_of(r), resp, body);
}

static struct str to_format(struct router *r, const struct format *f, const struct http_response *resp)
{
    struct stream *s = stream_of(r);
    const struct format_ctx ctx = { .info = &s->info, .req = &s->req, .resp = resp, .original_path = s->path_original };
    return format_text(f, &ctx, &s->arena);
}

static const struct router_ops ops = {
    .response = to_response, .informational = to_informational, .data = to_data, .trailers = to_trailers,
    .local_reply = to_local_reply, .reset = to_reset, .pause = to_pause, .resume = to_resume, .format = to_format, .follow = to_follow,
};

static enum http_filter_status on_request(struct http_filter *f, struct http_request *req)
{
    struct stream *s = f->stream;
    struct router *r = f->state;
    r->ops = &ops;
    r->owner = f;
    r->cfg = f->cfg;
    r->worker = s->worker;
    r->arena = &s->arena;
    r->req = req;
    r->info = &s->info;
    r->table = s->table;
    r->vhost = s->vhost;
    r->route = s->route;
    r->random = s->random;
    r->envoy_fields = s->envoy_fields;
    (void)downstream_original_dst(s->ds, &r->original_dst);
    r->hints = downstream_hints_get(s->ds);
    r->client = downstream_remote(s->ds);
    r->client_dst = downstream_local(s->ds);
    r->http_stats = stream_stats(s);
    r->alpn_override = s->alpn_override;
    r->alpn_override_count = s->alpn_override_count;
    r->alpn_override_h2 = s->alpn_override_h2;
    r->alpn_override_h2_count = s->alpn_override_h2_count;
    r->down_high = s->down_high;
    router_start(r);
    return HF_STOP;
}

static enum http_filter_status on_request_data(struct http_filter *f, struct buf *data, bool end)
{
    router_request_data(f->state, data, end);
    return HF_STOP;
}

static void on_request_trailers(struct http_filter *f, struct headers *trailers)
{
    router_request_trailers(f->state, trailers);
}

static void on_downstream_high(struct http_filter *f)
{
    router_downstream_high(f->state);
}

static void on_downstream_low(struct http_filter *f)
{
    router_downstream_low(f->state);
}

static void on_destroy(struct http_filter *f)
{
    router_destroy(f->state);
}

const struct http_filter_ops http_filter_router = {
    .ext = { .name = "envoy.filters.http.router", .type_url = "envoy.extensions.filters.http.router.v3.Router",
             .config_parse = router_config_parse },
    .terminal = true,
    .state_size = sizeof(struct router),
    .on_request = on_request,
    .on_request_data = on_request_data,
    .on_request_trailers = on_request_trailers,
    .on_downstream_high = on_downstream_high,
    .on_downstream_low = on_downstream_low,
    .on_destroy = on_destroy,
};
