// SPDX-License-Identifier: Apache-2.0
// Redirects that the proxy follows itself (route.v3.InternalRedirectPolicy): the request starts over with another target, through all
// filters, as if the client had sent it.
#include "lib/http/chars.h"
#include "lib/http/url.h"
#include "proxy/access_log/access_log.h"
#include "proxy/http/internal.h"

struct stream_redirects {
    struct stream *s;
    struct loop_task restart;
    struct buf body;           // for the next request
    struct str followed[STREAM_REDIRECTS_MAX]; // routes that redirects led to
    uint8_t count, followed_count;
    bool restarting;
};

static struct stream_redirects *redirects_of(struct stream *s)
{
    if (!s->redirects) {
        s->redirects = arena_new(&s->arena, struct stream_redirects);
        s->redirects->s = s;
    }
    return s->redirects;
}

// "http://host[:port]/path?query" in parts; only absolute addresses are followed, as in Envoy.
static bool split_location(struct str url, bool *ret_https, struct str *ret_host, struct str *ret_path, struct arena *a)
{
    struct str rest;
    if (str_starts(url, STR("http://"))) {
        *ret_https = false;
        rest = str_skip(url, 7);
    } else if (str_starts(url, STR("https://"))) {
        *ret_https = true;
        rest = str_skip(url, 8);
    } else {
        return false;
    }
    ptrdiff_t hash = str_find(rest, '#');
    rest.n = hash >= 0 ? (size_t)hash : rest.n;
    size_t n = 0;
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?') {
        if (rest.p[n] == '@') { // nobody's password belongs in an authority
            return false;
        }
        n++;
    }
    *ret_host = arena_str(a, str_n(rest.p, n));
    struct str path = str_skip(rest, n);
    *ret_path = path.n && path.p[0] == '/' ? arena_str(a, path) : arena_printf(a, "/%.*s", STR_FMT(path));
    return n > 0;
}

static bool listed(const struct str *v, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++) {
        if (str_eq(v[i], name)) {
            return true;
        }
    }
    return false;
}

static bool target_allowed(struct stream *s, const struct internal_redirect *p, bool from_https, bool to_https)
{
    struct str name = s->route->name;
    if (p->allow_list && !listed(p->allowed, p->allowed_count, name)) {
        return false;
    }
    if (p->safe_cross_scheme && to_https && !from_https) {
        return false;
    }
    if (p->previous_routes) {
        struct stream_redirects *x = redirects_of(s);
        if (listed(x->followed, x->followed_count, name) || x->followed_count == STREAM_REDIRECTS_MAX) {
            return false;
        }
        x->followed[x->followed_count++] = name;
    }
    return true;
}

static void log_first_part(struct stream *s)
{
    s->info.details = "internal_redirect";
    s->info.end_ns = loop_now_ns(s->worker->loop);
    if (s->cfg->access_log_count) {
        const struct format_ctx ctx = { .info = &s->info, .req = &s->req, .original_path = s->path_original };
        access_log_write(s->worker, s->cfg->access_logs, s->cfg->access_log_count, &ctx);
    }
}

static void start_over(struct loop_task *t)
{
    struct stream_redirects *x = container_of(t, struct stream_redirects, restart);
    struct stream *s = x->s;
    x->restarting = false;
    log_first_part(s);
    const struct stream_info old = s->info;
    chain_reset(s);
    // What the connection says, and what the client's first head told.
    s->info = (struct stream_info){ .is_http = true, .protocol = old.protocol, .start_wall_ms = old.start_wall_ms, .start_ns = old.start_ns,
                                    .request_end_ns = old.request_end_ns, .downstream_remote = old.downstream_remote,
                                    .downstream_direct_remote = old.downstream_direct_remote, .downstream_local = old.downstream_local,
                                    .connection_id = old.connection_id, .requested_server_name = old.requested_server_name,
                                    .downstream_tls = old.downstream_tls, .bytes_received = old.bytes_received,
                                    .facts = old.facts };
    s->info.metadata[METADATA_LISTENER] = old.metadata[METADATA_LISTENER];
    s->info.metadata[METADATA_FILTER_CHAIN] = old.metadata[METADATA_FILTER_CHAIN];
    struct buf body = x->body;
    x->body = (struct buf){ 0 };
    stream_select_route(s);
    chain_start(s);
    if (!s->req.end_stream) {
        chain_data(s, &body, true);
    }
    buf_clear(&body);
}

// Only what is needed again: the next request is told where it came from.
static void retarget(struct stream *s, const struct http_response *resp, bool from_https, struct str host, struct str path)
{
    struct headers *h = &s->req.headers;
    const struct internal_redirect *p = s->route->redirects;
    for (size_t i = 0; i < p->copy_count; i++) {
        struct str v = headers_value(&resp->headers, p->copy[i]);
        if (v.p) {
            headers_set(h, p->copy[i], arena_str(&s->arena, v));
        } else {
            headers_remove(h, p->copy[i]);
        }
    }
    headers_set(h, STR("x-envoy-original-url"),
                arena_printf(&s->arena, "%s://%.*s%.*s", from_https ? "https" : "http", STR_FMT(s->req.host), STR_FMT(s->req.path)));
    s->req.host = host;
    s->req.path = path;
}

// What the upstream wrote becomes a request target, which is read as strictly and spelled the same way as a client's: policies look at it.
static bool take_target(struct stream *s, struct str host, struct str path)
{
    struct str name;
    uint16_t port;
    if ((path.n && !ch_all(path, CH_PATH)) || !url_split_authority(host, &name, &port)) {
        return false;
    }
    s->req.host = host;
    s->req.path = path;
    request_host_prepare(&s->req, s->cfg, s->info.downstream_local.port);
    return request_path_prepare(&s->req, s->cfg) != PATH_REFUSED;
}

bool stream_follow(struct stream *s, const struct http_response *resp, struct buf *body)
{
    const struct route *from = s->route;
    const struct internal_redirect *p = from->redirects;
    bool to_https, from_https = str_is(s->req.scheme, "https");
    struct str host, path, old_host = s->req.host, old_path = s->req.path;
    unsigned count = s->redirects ? s->redirects->count : 0;
    if (count >= p->max || count >= STREAM_REDIRECTS_MAX || !s->down || s->response_started ||
        !split_location(headers_value_id(&resp->headers, HDR_LOCATION), &to_https, &host, &path, &s->arena) ||
        (to_https != from_https && !p->cross_scheme)) {
        return false;
    }
    if (!take_target(s, host, path)) {
        s->req.host = old_host;
        s->req.path = old_path;
        return false;
    }
    host = s->req.host;
    path = s->req.path;
    const struct stream_info info = s->info;
    const struct virtual_host *vhost = s->vhost;
    uint64_t idle = s->idle_limit_ms, max = s->max_limit_ms;
    stream_select_route(s);
    if (!s->route || !target_allowed(s, p, from_https, to_https)) {
        s->req.host = old_host;
        s->req.path = old_path;
        s->route = from;
        s->vhost = vhost;
        s->info = info;
        s->idle_limit_ms = idle;
        s->max_limit_ms = max;
        return false;
    }
    s->req.host = old_host;
    s->req.path = old_path;
    const struct route *to = s->route;
    s->route = from;
    retarget(s, resp, from_https, host, path);
    s->route = to;
    struct stream_redirects *x = redirects_of(s);
    x->count++;
    s->info.status = resp->status;
    s->req.end_stream = s->req.end_stream || body->len == 0;
    if (resp->status == 303 && !str_is(s->req.method, "GET") && !str_is(s->req.method, "HEAD")) { // RFC 9110 §15.4.4
        s->req.method = STR("GET");
        s->req.end_stream = true;
        s->req.content_length = -1;
        buf_clear(body);
    }
    buf_move(&x->body, body, body->len);
    x->restarting = true;
    loop_task_init(&x->restart, start_over);
    loop_defer(s->worker->loop, &x->restart);
    return true;
}

void redirect_cancel(struct stream *s)
{
    struct stream_redirects *x = s->redirects;
    if (!x) {
        return;
    }
    if (x->restarting) {
        x->restarting = false;
        loop_task_cancel(&x->restart);
    }
    buf_clear(&x->body);
}
