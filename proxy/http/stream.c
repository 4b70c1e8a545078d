// SPDX-License-Identifier: Apache-2.0
// One exchange from the request's head to the access log.
//
// Life: taken (its head is being read into its arena) → begun (on_request) → answered → closed by the codec (on_close: stream_finish).
// Memory comes from and goes back to the worker's free list, so that an idle connection holds none.
#include "proxy/http/stream.h"

#include <stdlib.h>

#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "lib/http/grpc_text.h"
#include "lib/event/loop.h"
#include "lib/tls/transport_tls.h"
#include "proxy/access_log/access_log.h"
#include "proxy/http/internal.h"
#include "proxy/model/snapshot.h"

// ---- memory ----

struct stream *stream_take(struct http_conn *hc)
{
    struct http_worker *hw = http_worker_of(hc->ds->worker);
    struct stream *s = hw->free_streams;
    if (s) {
        hw->free_streams = (struct stream *)(void *)s->link.next;
        hw->free_count--;
    } else {
        s = mem_alloc(sizeof(*s));
        arena_init(&s->arena, STREAM_ARENA_BYTES, 0);
    }
    // req and resp are set as a whole when they are there.
    memset((char *)s + sizeof(s->arena), 0, offsetof(struct stream, req) - sizeof(s->arena));
    memset(&s->info, 0, sizeof(*s) - offsetof(struct stream, info));
    list_init(&s->link);
    s->hc = hc;
    s->worker = hc->ds->worker;
    s->ds = hc->ds;
    s->cfg = hc->cfg;
    return s;
}

void stream_release(struct stream *s)
{
    struct http_worker *hw = http_worker_of(s->worker);
    if (hw->free_count >= STREAMS_KEPT_MAX) {
        arena_fini(&s->arena);
        free(s);
        return;
    }
    arena_reset(&s->arena, true);
    s->link.next = (struct list *)(void *)hw->free_streams;
    hw->free_streams = s;
    hw->free_count++;
}

// ---- route table ----

static void hold_table(struct stream *s, struct route_table *t)
{
    struct http_worker *hw = http_worker_of(s->worker);
    list_for (p, &hw->holds) {
        struct route_hold *h = list_entry(p, struct route_hold, link);
        if (h->table == t) {
            h->n++;
            s->hold = h;
            s->table = t;
            return;
        }
    }
    struct route_hold *h = mem_new(struct route_hold);
    h->table = route_table_ref(t);
    h->n = 1;
    list_add_head(&hw->holds, &h->link);
    s->hold = h;
    s->table = t;
}

static void drop_table(struct stream *s)
{
    struct route_hold *h = s->hold;
    if (h && --h->n == 0) {
        list_del(&h->link);
        route_table_unref(h->table);
        free(h);
    }
    s->hold = NULL;
    s->table = NULL;
}

// The look-up by name is done once per connection and snapshot.
static void find_table(struct stream *s)
{
    struct http_conn *hc = s->hc;
    struct route_table *t = s->cfg->inline_routes;
    if (s->cfg->rds_name.n) {
        if (!hc->table_known || hc->snap_version != s->worker->snap->version) {
            hc->table = snapshot_route(s->worker->snap, s->cfg->rds_name);
            hc->snap_version = s->worker->snap->version;
            hc->table_known = true;
        }
        t = hc->table;
    }
    if (t) {
        hold_table(s, t);
    }
}

// How long the exchange may take in all: as a gRPC client asked, where the route says that this counts, else the route's or the listener's
// limit (route.v3.RouteAction.MaxStreamDuration).
static uint64_t max_duration_ms(const struct stream *s)
{
    const struct route *r = s->route;
    uint64_t ms;
    if (r->grpc_header_max_ms >= 0 && grpc_timeout_parse(headers_value_id(&s->req.headers, HDR_GRPC_TIMEOUT), &ms)) {
        if (r->grpc_header_max_ms > 0 && ms > (uint64_t)r->grpc_header_max_ms) {
            ms = (uint64_t)r->grpc_header_max_ms;
        }
        ms = ms > r->grpc_header_offset_ms ? ms - r->grpc_header_offset_ms : 0;
        return ms ? ms : 1; // 0 would mean no limit
    }
    return r->max_stream_ms >= 0 ? (uint64_t)r->max_stream_ms : s->cfg->max_stream_ms;
}

// For requests in plain text where the virtual host wants TLS (VirtualHost.require_tls).
static struct route https_route = { .kind = ROUTE_REDIRECT, .redirect_status = 301, .redirect_https = true, .timeout_ms = -1,
                                    .idle_timeout_ms = -1, .max_stream_ms = -1, .max_grpc_timeout_ms = -1, .grpc_header_max_ms = -1 };

void stream_select_route(struct stream *s)
{
    s->vhost = NULL;
    s->route = NULL;
    s->info.route_name = s->info.virtual_host = str_n(NULL, 0);
    s->info.metadata[METADATA_ROUTE] = s->info.metadata[METADATA_VIRTUAL_HOST] = NULL;
    if (s->table) {
        s->vhost = route_table_vhost(s->table, s->req.host);
    }
    if (s->vhost) {
        const struct match_request r = { .method = s->req.method, .path = s->req.path, .authority = s->req.host, .scheme = s->req.scheme,
                                         .headers = &s->req.headers, .random = s->random, .facts = s->info.facts, .info = &s->info, .arena = &s->arena,
                                         .head = &s->req };
        s->info.virtual_host = s->vhost->name;
        s->info.metadata[METADATA_VIRTUAL_HOST] = &s->vhost->metadata;
        bool plain = s->vhost->require_tls && !str_eq_nocase(headers_value_id(&s->req.headers, HDR_X_FORWARDED_PROTO), STR("https"));
        bool to_https = plain && (s->vhost->require_tls == TLS_REQ_ALL || !s->internal);
        s->route = to_https ? &https_route : virtual_host_route(s->vhost, &r);
    }
    s->idle_limit_ms = s->cfg->stream_idle_ms;
    s->max_limit_ms = s->cfg->max_stream_ms;
    s->info.upstream_cluster = str_n(NULL, 0);
    if (s->route) {
        s->info.route_name = s->route->name;
        s->info.metadata[METADATA_ROUTE] = &s->route->metadata;
        // For logs of requests that a filter answers; the router says so again.
        s->info.upstream_cluster = s->route->weighted_count ? route_pick_weighted(s->route, s->random)->name : s->route->cluster;
        s->idle_limit_ms = s->route->idle_timeout_ms >= 0 ? (uint64_t)s->route->idle_timeout_ms : s->idle_limit_ms;
        s->max_limit_ms = max_duration_ms(s);
        if (s->route->has_max_stream && s->max_limit_ms && stream_is_grpc(s)) { // the server learns the limit that holds for the call
            headers_set_id(&s->req.headers, HDR_GRPC_TIMEOUT, grpc_timeout_text(s->max_limit_ms, &s->arena));
        }
    }
}

static const struct ext *per_filter(const struct ext *v, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++) {
        if (str_eq(v[i].name, name)) {
            return &v[i];
        }
    }
    return NULL;
}

// The most specific level that says something: weighted cluster, route, virtual host, table.
static const struct ext *find_per_filter(const struct stream *s, struct str name)
{
    const struct ext *e = NULL;
    if (!s->route) { // as in Envoy: where there is no route, the listener's configuration holds, whatever the virtual host says
        return NULL;
    }
    if (s->route->weighted_count) { // the same draw as the router's
        const struct weighted_cluster *w = route_pick_weighted(s->route, s->random);
        e = w->per_filter_count ? per_filter(w->per_filter, w->per_filter_count, name) : NULL;
    }
    if (!e) {
        e = per_filter(s->route->per_filter, s->route->per_filter_count, name);
    }
    if (!e && s->vhost) {
        e = per_filter(s->vhost->per_filter, s->vhost->per_filter_count, name);
    }
    return e || !s->table ? e : per_filter(s->table->per_filter, s->table->per_filter_count, name);
}

const void *stream_per_filter(const struct stream *s, struct str filter_name)
{
    const struct ext *e = find_per_filter(s, filter_name);
    return e ? e->cfg : NULL;
}

static size_t add_level(const struct ext *v, size_t n, struct str name, const void **ret)
{
    const struct ext *e = n ? per_filter(v, n, name) : NULL;
    if (e && e->cfg) {
        *ret = e->cfg;
        return 1;
    }
    return 0;
}

size_t stream_per_filter_all(const struct stream *s, struct str filter_name, const void *ret[STREAM_LEVELS])
{
    size_t n = s->table ? add_level(s->table->per_filter, s->table->per_filter_count, filter_name, ret) : 0;
    n += s->vhost ? add_level(s->vhost->per_filter, s->vhost->per_filter_count, filter_name, ret + n) : 0;
    n += s->route ? add_level(s->route->per_filter, s->route->per_filter_count, filter_name, ret + n) : 0;
    if (s->route && s->route->weighted_count) {
        const struct weighted_cluster *w = route_pick_weighted(s->route, s->random);
        n += add_level(w->per_filter, w->per_filter_count, filter_name, ret + n);
    }
    return n;
}

bool stream_filter_disabled(const struct stream *s, struct str filter_name, bool by_default)
{
    const struct ext *e = find_per_filter(s, filter_name);
    return e ? e->disabled : by_default;
}

struct stat_block *stream_stats(const struct stream *s)
{
    return s->hc->stats;
}

// ---- request ----

static void info_begin(struct stream *s)
{
    struct stream_info *i = &s->info;
    const struct downstream *d = s->ds;
    struct loop *l = s->worker->loop;
    i->is_http = true;
    i->protocol = s->req.version;
    i->start_wall_ms = loop_wall_ms(l);
    i->start_ns = loop_now_ns(l);
    i->downstream_remote = *downstream_remote(d);
    i->downstream_direct_remote = d->conn->peer; // a PROXY header does not change it
    i->downstream_local = *downstream_local(d);
    i->connection_id = d->conn->id;
    i->facts = downstream_facts(d);
    i->metadata[METADATA_LISTENER] = &d->listener->metadata;
    i->metadata[METADATA_FILTER_CHAIN] = &d->chain->metadata;
    i->requested_server_name = downstream_server_name(d);
    i->downstream_tls = downstream_tls(d);
    s->active_ms = loop_now_ms(l);
    s->random = rand_u64();
}

static void request_end(struct stream *s)
{
    s->request_complete = true;
    s->info.request_end_ns = loop_now_ns(s->worker->loop);
}

// Limits are looked at by the connection's timer; it must not be later than the first of them.
static void arm(struct stream *s)
{
    uint64_t at = UINT64_MAX, start = s->active_ms;
    if (s->idle_limit_ms) {
        at = start + s->idle_limit_ms;
    }
    if (s->max_limit_ms && start + s->max_limit_ms < at) {
        at = start + s->max_limit_ms;
    }
    if (s->cfg->request_timeout_ms && start + s->cfg->request_timeout_ms < at) {
        at = start + s->cfg->request_timeout_ms;
    }
    if (s->cfg->body_window_ms && !s->request_complete && s->req.content_length > 0) {
        s->body_at_ms = start + s->cfg->body_window_ms;
        at = s->body_at_ms < at ? s->body_at_ms : at;
    }
    if (at != UINT64_MAX) {
        http_conn_arm(s->hc, at);
    }
}

static struct str connection_xfcc(struct stream *s)
{
    struct http_conn *hc = s->hc;
    if (!hc->xfcc_made && s->cfg->forward_client_cert != FCC_SANITIZE && s->info.downstream_tls) {
        struct str x = xfcc_element(s->cfg, s->info.downstream_tls, &s->arena);
        if (x.n) {
            hc->xfcc = str_n(memcpy(mem_alloc(x.n), x.p, x.n), x.n);
        }
    }
    hc->xfcc_made = true;
    return hc->xfcc;
}

static void refuse(struct stream *s, int status, const char *body, const char *details, uint32_t flags)
{
    stream_local_reply(s, status, str_c(body), details, flags, NULL);
}

// Everything before filters. False: the request has been answered.
static bool prepare(struct stream *s)
{
    struct http_request *req = &s->req;
    if (!req->host.n && req->version == HTTP_10) {
        req->host = s->cfg->http10_host;
        if (!req->host.n) {
            refuse(s, 400, NULL, "missing_host_header", 0);
            return false;
        }
    }
    if (req->path.n && req->path.p[0] != '/') { // "OPTIONS *"
        refuse(s, 404, NULL, "absolute_path_rejected", 0);
        return false;
    }
    enum path_verdict v = req->path.n ? request_path_prepare(req, s->cfg) : PATH_OK; // CONNECT has none
    if (v == PATH_REFUSED) {
        codec_drain(s->hc->codec);
        refuse(s, 400, NULL, "path_normalization_failed", 0);
        return false;
    }
    request_host_prepare(req, s->cfg, s->info.downstream_local.port);
    const struct tls_info *tls = s->info.downstream_tls;
    const struct request_peer peer = { .remote = *downstream_remote(s->ds), .local = *downstream_local(s->ds), .tls = tls != NULL,
                                       .mtls = tls && tls->peer_cert, .xfcc = connection_xfcc(s) };
    struct request_trust trust;
    if (!request_headers_prepare(req, s->cfg, &peer, &s->info.downstream_remote, &trust)) {
        refuse(s, 400, NULL, "http1.unexpected_underscore", RF(DOWNSTREAM_PROTOCOL_ERROR));
        return false;
    }
    s->internal = trust.internal;
    s->envoy_fields = trust.envoy_fields;
    if (trust.reject_status) {
        refuse(s, trust.reject_status, NULL, "rejecting_because_of_original_ip", 0);
        return false;
    }
    if (v == PATH_REDIRECTED) {
        struct headers extra;
        headers_init(&extra, &s->arena);
        headers_add_id(&extra, HDR_LOCATION, req->path);
        stream_local_reply(s, 307, str_n(NULL, 0), "path_normalization_failed", 0, &extra);
        return false;
    }
    upgrade_prepare(req);
    return true;
}

// The client waits before it sends the body. Unless the upstream shall decide, it is told to go on.
static void answer_expect(struct stream *s)
{
    if (!s->req.expect_continue || s->cfg->proxy_100_continue) {
        return;
    }
    s->req.expect_continue = false;
    struct http_response r = { .status = 100, .version = HTTP_11, .content_length = -1 };
    headers_init(&r.headers, &s->arena);
    codec_send_response(s->down, &r);
}

static void refuse_upgrade(struct stream *s)
{
    if (s->req.version != HTTP_2) {
        codec_drain(s->hc->codec); // what follows may be no HTTP any more
    }
    if (!s->req.path.n && !s->route) { // CONNECT that no route knows
        refuse(s, 404, NULL, "route_not_found", RF(NO_ROUTE));
        return;
    }
    stat_inc(s->hc->stats, STAT_ID_HTTP_RQ_WS_REFUSED);
    refuse(s, 403, NULL, "upgrade_failed", 0);
}

// "content-length: 0" while the stream goes on: the request either ends without a body or is malformed (RFC 9113 §8.1.1), which the codec then
// says. Nothing of it goes anywhere before that is known.
static bool must_await_end(const struct http_request *req)
{
    return req->version == HTTP_2 && req->content_length == 0 && !req->end_stream;
}

void stream_begin(struct stream *s, struct codec_stream *cs, struct http_request *req)
{
    s->down = cs;
    s->req = *req;
    s->path_original = req->path;
    s->id = codec_stream_id(cs);
    codec_stream_set(cs, &stream_codec_ops, s);
    info_begin(s);
    stat_inc(s->hc->stats, STAT_ID_HTTP_RQ_TOTAL);
    stat_gauge_add(s->hc->stats, STAT_ID_HTTP_RQ_ACTIVE, 1);
    s->idle_limit_ms = s->cfg->stream_idle_ms;
    if (req->end_stream) {
        request_end(s);
    }
    if (prepare(s)) {
        find_table(s);
        if (s->table && s->table->internal_only_count && !s->internal) {
            request_headers_only_internal(&s->req, s->table->internal_only, s->table->internal_only_count);
        }
        stream_select_route(s);
        if (upgrade_allowed(&s->req, s->cfg, s->route)) {
            websocket_request(s);
            answer_expect(s);
            s->awaiting_end = must_await_end(&s->req);
            if (!s->awaiting_end) {
                chain_start(s);
            }
        } else {
            refuse_upgrade(s);
        }
    }
    if (s->down && !s->response_complete) {
        arm(s);
    }
}

static void on_data(struct codec_stream *cs, struct buf *data, bool end)
{
    struct stream *s = codec_stream_owner(cs);
    s->active_ms = loop_now_ms(s->worker->loop);
    s->info.bytes_received += data->len;
    if (end) {
        request_end(s);
    }
    if (s->awaiting_end) {
        s->awaiting_end = !end;
        s->req.end_stream = end;
        if (end && s->down && !s->response_complete) {
            chain_start(s);
        }
        return;
    }
    chain_data(s, data, end);
}

static void on_trailers(struct codec_stream *cs, struct headers *trailers)
{
    struct stream *s = codec_stream_owner(cs);
    request_end(s);
    if (s->awaiting_end) {
        s->awaiting_end = false;
        chain_start(s);
    }
    chain_trailers(s, trailers);
}

static struct http_filter *terminal(struct stream *s)
{
    return s->chain_started && !s->destroyed && s->chain->count ? &s->filters[s->chain->count - 1] : NULL;
}

static void on_high(struct codec_stream *cs)
{
    struct stream *s = codec_stream_owner(cs);
    struct http_filter *f = terminal(s);
    s->down_high = true;
    if (f && f->ops->on_downstream_high) {
        f->ops->on_downstream_high(f);
    }
}

static void on_low(struct codec_stream *cs)
{
    struct stream *s = codec_stream_owner(cs);
    s->active_ms = loop_now_ms(s->worker->loop);
    s->down_high = false;
    struct http_filter *f = terminal(s);
    if (f && f->ops->on_downstream_low) {
        f->ops->on_downstream_low(f);
    }
}

static void on_reset(struct codec_stream *cs, enum codec_reset why, const char *detail)
{
    struct stream *s = codec_stream_owner(cs);
    if (s->response_complete && !s->tunnel) {
        return;
    }
    if (why == CODEC_RESET_PROTOCOL) {
        s->info.flags |= RF(DOWNSTREAM_PROTOCOL_ERROR);
        s->info.details = detail;
        if (!s->response_started) {
            s->info.status = 400; // the codec's own answer
        }
    } else {
        stat_inc(s->hc->stats, STAT_ID_HTTP_RQ_RX_RESET);
        bool rst = why == CODEC_RESET_REMOTE && detail && strcmp(detail, "http2.remote_reset") == 0; // else the connection ended
        s->info.flags |= rst ? RF(DOWNSTREAM_REMOTE_RESET) : RF(DOWNSTREAM_TERMINATION);
        if (!s->info.details || !s->local_reply) {
            s->info.details = rst ? detail : "downstream_remote_disconnect";
        }
    }
}

static void on_close(struct codec_stream *cs)
{
    struct stream *s = codec_stream_owner(cs);
    s->down = NULL;
    stream_finish(s);
}

const struct codec_stream_ops stream_codec_ops = {
    .on_data = on_data, .on_trailers = on_trailers, .on_high = on_high, .on_low = on_low, .on_reset = on_reset, .on_close = on_close,
};

// ---- answer ----

void stream_send_response(struct stream *s, struct http_response *resp)
{
    if (!s->down || s->response_started || s->destroyed) {
        return;
    }
    s->tunnel = upgrade_switches(&s->req, resp->status);
    if (s->req.upgrade.n && s->req.version == HTTP_2 && !s->tunnel && resp->status >= 200 && resp->status < 300) {
        // RFC 8441 §5: a success would tell the client that the protocol was switched, which the upstream did not do (threat class T9).
        stream_local_reply(s, 502, STR("upgrade not accepted"), "upgrade_not_accepted", RF(UPSTREAM_PROTOCOL_ERROR), NULL);
        return;
    }
    s->response_started = true;
    s->active_ms = loop_now_ms(s->worker->loop);
    s->info.status = resp->status;
    s->info.first_response_ns = loop_now_ns(s->worker->loop);
    chain_response(s, resp);
    response_headers_prepare(resp, s);
    websocket_response(s, resp);
    s->resp = *resp;
    s->response_complete = resp->end_stream;
    if (s->tunnel) { // from here on the client sends again
        s->request_complete = false;
    }
    codec_send_response(s->down, resp);
    if (resp->end_stream) {
        codec_flush(s->hc->codec);
    }
}

void stream_send_informational(struct stream *s, struct http_response *resp)
{
    if (s->down && !s->response_started) {
        codec_send_response(s->down, resp);
    }
}

// Through the filters before index from.
static void send_data_from(struct stream *s, size_t from, struct buf *data, bool end)
{
    for (size_t i = from; i > 0; i--) {
        struct http_filter *f = &s->filters[i - 1];
        if (f->ops->on_response_data) {
            f->ops->on_response_data(f, data, end);
        }
    }
    s->info.bytes_sent += data->len;
    s->response_complete = end;
    codec_send_data(s->down, data, end);
    if (end) {
        codec_flush(s->hc->codec); // the client need not wait for the end of this turn
    }
}

void stream_send_data(struct stream *s, struct buf *data, bool end)
{
    if (!s->down || !s->response_started || s->response_complete) {
        buf_clear(data);
        return;
    }
    s->active_ms = loop_now_ms(s->worker->loop);
    send_data_from(s, s->chain_started ? s->chain->count : 0, data, end);
}

void stream_send_trailers(struct stream *s, struct headers *trailers)
{
    if (!s->down || !s->response_started || s->response_complete) {
        return;
    }
    s->resp_trailers = arena_new(&s->arena, struct headers);
    *s->resp_trailers = *trailers;
    for (size_t i = s->chain_started ? s->chain->count : 0; i > 0; i--) {
        struct http_filter *f = &s->filters[i - 1];
        struct buf data = { 0 };
        if (f->ops->response_trailers_as_data && f->ops->response_trailers_as_data(f, trailers, &data)) {
            send_data_from(s, i - 1, &data, true);
            buf_clear(&data);
            return;
        }
        if (f->ops->on_response_trailers) {
            f->ops->on_response_trailers(f, trailers);
        }
    }
    *s->resp_trailers = *trailers; // as the filters left them
    s->response_complete = true;
    codec_send_trailers(s->down, trailers);
}

void stream_reset(struct stream *s, const char *details, uint32_t flags)
{
    if (!s->down || (s->response_complete && !s->tunnel)) {
        return;
    }
    s->info.flags |= flags;
    s->info.details = details;
    s->response_complete = true; // nothing more may follow
    codec_flush(s->hc->codec);   // but what was sent so far is the client's
    stat_inc(s->hc->stats, STAT_ID_HTTP_RQ_TX_RESET);
    // RFC 9113 §8.5: a tunnel whose other connection broke.
    codec_stream_reset(s->down, s->tunnel && (flags & RF(UPSTREAM_TERMINATION)) ? CODEC_RESET_CONNECTION : CODEC_RESET_LOCAL);
    s->tunnel = false;
}

// ---- end ----

static void count(struct stream *s)
{
    struct stat_block *b = s->hc->stats;
    const struct stream_info *i = &s->info;
    stat_gauge_add(b, STAT_ID_HTTP_RQ_ACTIVE, -1);
    if (i->status >= 100 && i->status < 600) {
        stat_inc(b, STAT_ID_HTTP_RQ_COMPLETED);
        stat_inc(b, (enum stat_any)(STAT_ID_HTTP_RQ_1XX + i->status / 100 - 1));
    }
    stat_record(b, STAT_ID_HTTP_RQ_TIME, (i->end_ns - i->start_ns) / 1000000);
}

void stream_finish(struct stream *s)
{
    s->info.end_ns = loop_now_ns(s->worker->loop);
    redirect_cancel(s);
    chain_destroy(s);
    count(s);
    if (s->cfg->access_log_count) {
        const struct format_ctx ctx = { .info = &s->info, .req = &s->req, .resp = s->response_started ? &s->resp : NULL,
                                        .resp_trailers = s->resp_trailers, .original_path = s->path_original };
        access_log_write(s->worker, s->cfg->access_logs, s->cfg->access_log_count, &ctx);
    }
    drop_table(s);
    list_del(&s->link);
    stream_release(s);
}
