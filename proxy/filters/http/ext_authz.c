// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.ext_authz: a server of the operator decides about each request. The request waits behind this filter, its body within
// bounds, until the answer is there. Whatever goes wrong denies it, unless failure_mode_allow says otherwise.
#include "proxy/filters/http/ext_authz.h"

#include "lib/base/rand.h"
#include "lib/tls/transport_tls.h"
#include "proxy/filters/http/filters.h"
#include "proxy/http/manager.h"
#include "proxy/upstream/cluster.h"

struct authz_state {
    struct http_filter *f;
    const struct authz_server *server;
    struct side_call *call;           // while asked over HTTP
    struct side_grpc *grpc;           // while asked over gRPC
    struct authz_body body;
    bool buffering;                   // the body is waited for
    bool asking;
    uint64_t start_ns;                // of the question
    struct check_header *answer_headers; // for the client's answer; in the stream's arena
    size_t answer_header_count;
};

static const struct str metadata_space = STR_INIT("envoy.filters.http.ext_authz");
static const struct str check_path = STR_INIT("/envoy.service.auth.v3.Authorization/Check");

// ---- statistics ----

static struct stat_block *scope_of(struct http_filter *f, enum stat_scope scope, struct str name)
{
    const struct authz_cfg *c = f->cfg;
    struct str text = arena_printf(&f->stream->arena, "%.*s.%.*s", STR_FMT(name), STR_FMT(c->stat_suffix));
    return stats_scope_get(f->stream->worker->stats, scope, text);
}

static void count(struct http_filter *f, enum stat_any id)
{
    const struct stat_block *b = stream_stats(f->stream);
    if (b) {
        stat_inc(scope_of(f, STAT_HTTP_AUTHZ, b->name), id);
    }
}

// The cluster that the request goes to, where it is not denied; NULL = none.
static struct cluster_worker *target(const struct stream *s)
{
    return s->info.upstream_cluster.n ? upstream_cluster(s->worker, s->info.upstream_cluster) : NULL;
}

static void count_both(struct http_filter *f, enum stat_any id, enum stat_any cluster_id)
{
    struct cluster_worker *cw = target(f->stream);
    count(f, id);
    if (cw) {
        stat_inc(scope_of(f, STAT_CLUSTER_AUTHZ, cw->snap->cfg->stat_name), cluster_id);
    }
}

// ---- the question ----

enum { PSEUDO_FIELDS = 10 }; // those that http_request keeps beside the list

// The request's head as one list in Envoy's terms, less what the configuration keeps back.
static size_t head_fields(const struct authz_cfg *c, const struct authz_server *server, const struct stream *s, struct arena *a,
                          struct check_pair **ret)
{
    const struct http_request *req = &s->req;
    struct check_pair *v = arena_array(a, struct check_pair, req->headers.count + PSEUDO_FIELDS), *out = v;
    const struct authz_names *allowed = server != &c->server && server->allowed.set ? &server->allowed : &c->allowed;
    bool by_list = allowed->set || c->server.http; // without a list a gRPC server sees all, an HTTP server what it needs
    size_t n = 0, kept = 0;
    v[n++] = (struct check_pair){ STR(":authority"), req->host };
    v[n++] = (struct check_pair){ STR(":path"), req->path };
    v[n++] = (struct check_pair){ STR(":method"), req->method };
    v[n++] = (struct check_pair){ STR(":scheme"), req->scheme };
    for (struct hdr *x = headers_first(&req->headers); x; x = headers_next(&req->headers, x)) {
        if (s->ws_key_made && str_eq_nocase(x->name, STR("sec-websocket-key"))) { // not the client's
            continue;
        }
        struct str name = x->id ? hdr_name_of((enum hdr_id)x->id) : arena_str(a, x->name);
        for (size_t i = 0; !x->id && i < name.n; i++) {
            char *ch = (char *)name.p + i;
            *ch = *ch >= 'A' && *ch <= 'Z' ? (char)(*ch | 0x20) : *ch;
        }
        v[n++] = (struct check_pair){ name, x->value };
    }
    if (req->content_length >= 0) {
        v[n++] = (struct check_pair){ STR("content-length"), arena_printf(a, "%lld", (long long)req->content_length) };
    }
    if (req->upgrade.n) {
        v[n++] = (struct check_pair){ STR("connection"), req->version == HTTP_2 ? STR("upgrade") : STR("Upgrade") };
        v[n++] = (struct check_pair){ STR("upgrade"), req->upgrade };
    }
    if (req->te_trailers) {
        v[n++] = (struct check_pair){ STR("te"), STR("trailers") };
    }
    for (size_t i = 0; i < n; i++) {
        struct str name = v[i].key;
        bool always = server->http && (str_is(name, ":authority") || str_is(name, ":path") || str_is(name, ":method") ||
                                       str_is(name, "authorization"));
        bool out_of_list = by_list && !always && !authz_names_match(allowed, name);
        bool absent = name.p[0] == ':' && !v[i].value.n;
        if (!absent && !out_of_list && !str_is(name, "x-envoy-auth-partial-body") && !authz_names_match(&c->disallowed, name)) {
            out[kept++] = v[i];
        }
    }
    *ret = out;
    return kept;
}

static struct str principal(const struct tls_info *t, bool local)
{
    if (!t) {
        return str_n(NULL, 0);
    }
    if (local) {
        return t->local_uri;
    }
    return check_principal(t->peer_uri, t->peer_dns_count ? t->peer_dns_names[0] : STR(""), t->peer_subject);
}

static void fill_peers(struct http_filter *f, struct check_question *q, struct arena *a)
{
    const struct authz_cfg *c = f->cfg;
    const struct stream *s = f->stream;
    const struct tls_info *t = s->info.downstream_tls;
    q->source = (struct check_peer){ .addr = *downstream_remote(s->ds), .principal = principal(t, false),
                                     .service = headers_value(&s->req.headers, STR("x-envoy-downstream-service-cluster")) };
    if (c->peer_certificate && t) {
        q->source.certificate = check_certificate(t->peer_pem, a);
    }
    q->destination = (struct check_peer){ .addr = *downstream_local(s->ds), .principal = principal(t, true), .labels = c->labels,
                                          .label_count = c->label_count };
    q->has_tls = c->tls_session;
    q->sni = t && t->sni.n ? t->sni : s->info.requested_server_name;
}

// context_extensions of all levels of the route: the more specific one wins.
static void fill_extensions(struct http_filter *f, struct check_question *q, struct arena *a)
{
    const void *levels[STREAM_LEVELS];
    size_t n = stream_per_filter_all(f->stream, f->ext->name, levels), total = 0, count_ = 0;
    for (size_t i = 0; i < n; i++) {
        total += ((const struct authz_route *)levels[i])->extension_count;
    }
    struct check_pair *v = arena_array(a, struct check_pair, total + 1);
    for (size_t i = 0; i < n; i++) {
        const struct authz_route *r = levels[i];
        for (size_t k = 0; k < r->extension_count; k++) {
            size_t at = 0;
            while (at < count_ && !str_eq(v[at].key, r->extensions[k].key)) {
                at++;
            }
            v[at] = r->extensions[k];
            count_ = at == count_ ? count_ + 1 : count_;
        }
    }
    q->extensions = v;
    q->extension_count = count_;
}

static void fill_metadata(struct http_filter *f, struct check_question *q, struct arena *a)
{
    const struct authz_cfg *c = f->cfg;
    const struct stream_info *info = &f->stream->info;
    q->metadata = check_metadata(info, c->metadata.v, c->metadata.count, a);
    if (info->metadata[METADATA_ROUTE]) {
        q->route_metadata = check_metadata_of(*info->metadata[METADATA_ROUTE], c->route_metadata.v, c->route_metadata.count, a);
    }
}

// What has waited and what comes now, at most max bytes of it.
static struct str body_text(const struct buf *held, const struct buf *data, size_t max, struct arena *a)
{
    size_t all = held->len + (data ? data->len : 0), n = all < max ? all : max;
    char *p = arena_alloc(a, n + 1);
    size_t got = buf_peek(held, 0, p, n);
    if (data && got < n) {
        got += buf_peek(data, 0, p + got, n - got);
    }
    return str_n(p, got);
}

static void fill_http(struct http_filter *f, const struct buf *data, bool with_body, struct check_http *h, struct arena *a)
{
    static const struct str protocols[] = { [HTTP_10] = STR_INIT("HTTP/1.0"), [HTTP_11] = STR_INIT("HTTP/1.1"), [HTTP_2] = STR_INIT("HTTP/2") };
    const struct authz_cfg *c = f->cfg;
    struct authz_state *st = f->state;
    struct stream *s = f->stream;
    const struct http_request *req = &s->req;
    *h = (struct check_http){ .id = s->random, .method = req->method, .path = req->path, .host = req->host, .scheme = req->scheme,
                              .protocol = protocols[req->version], .size = s->info.bytes_received, .raw = c->raw_headers };
    struct check_pair *v;
    h->header_count = head_fields(c, st->server, s, a, &v);
    h->headers = v;
    if (with_body) {
        h->has_body = true;
        h->body = body_text(&s->held, data, st->body.max, a);
        h->partial = h->body.n < s->held.len + (data ? data->len : 0);
        h->body_as_bytes = st->body.as_bytes;
    }
}

// ---- answers ----

static void deny(struct http_filter *f, int status, struct str body, const char *details, const struct headers *extra)
{
    stream_local_reply(f->stream, status, body, details, RF(UNAUTHORIZED_EXTERNAL), extra);
}

static void reject(struct http_filter *f)
{
    count_both(f, STAT_ID_HTTP_AUTHZ_INVALID, STAT_ID_CLUSTER_AUTHZ_INVALID);
    deny(f, 500, str_n(NULL, 0), "ext_authz_invalid", NULL);
}

static void go_on(struct http_filter *f)
{
    stream_continue_request(f->stream, f);
}

// False: what policies behind this filter may decide by has no room.
static bool take_metadata(struct http_filter *f, const struct check_answer *a)
{
    const struct authz_cfg *c = f->cfg;
    struct authz_state *st = f->state;
    struct stream *s = f->stream;
    if (!a->metadata.n) {
        return true;
    }
    if (!c->take_metadata) {
        count(f, STAT_ID_HTTP_AUTHZ_IGNORED_METADATA);
        return true;
    }
    struct str bytes = check_answer_metadata(a, loop_now_ns(s->worker->loop) - st->start_ns, &s->arena);
    return stream_info_metadata_merge(&s->info, &s->arena, metadata_space, bytes);
}

static bool queries_ok(const struct check_answer *a, bool strict)
{
    for (size_t i = 0; i < a->query_set_count; i++) {
        if (!check_query_text(a->query_set[i].key, strict) || !check_query_text(a->query_set[i].value, strict)) {
            return false;
        }
    }
    return true;
}

// More than a client might send.
static bool outgrown(const struct stream *s)
{
    uint32_t n = 0;
    for (struct hdr *x = headers_first(&s->req.headers); x; x = headers_next(&s->req.headers, x)) {
        n++;
    }
    const struct h1_limits *l = &s->cfg->h1;
    return (l->header_count && n > l->header_count) || (l->head_bytes && s->req.headers.bytes + s->req.path.n > l->head_bytes);
}

static void allow(struct http_filter *f, const struct check_answer *a)
{
    const struct authz_cfg *c = f->cfg;
    struct authz_state *st = f->state;
    struct stream *s = f->stream;
    bool queries = a->query_set_count || a->query_remove_count;
    if (!authz_headers_ok(a->headers, a->header_count) || !authz_headers_ok(a->answer_headers, a->answer_header_count) || !queries_ok(a, c->validate)) {
        reject(f);
        return;
    }
    authz_headers_apply(a->headers, a->header_count, &s->req.headers, &s->req);
    for (size_t i = 0; i < a->remove_count; i++) {
        headers_remove(&s->req.headers, a->remove[i]); // pseudo fields and the host are not among these
    }
    if (queries && s->req.path.n) {
        s->req.path = check_query_change(s->req.path, a->query_set, a->query_set_count, a->query_remove, a->query_remove_count, &s->arena);
    }
    if (outgrown(s)) {
        reject(f);
        return;
    }
    st->answer_headers = authz_headers_keep(a->answer_headers, a->answer_header_count, &s->arena);
    st->answer_header_count = a->answer_header_count;
    if (c->clear_route_cache && (a->header_count || a->remove_count || queries)) {
        stream_select_route(s);
    }
    count_both(f, STAT_ID_HTTP_AUTHZ_OK, STAT_ID_CLUSTER_AUTHZ_OK);
    go_on(f);
}

// The headers that the server wants on its answer to the client.
static bool client_headers(struct http_filter *f, const struct check_answer *a, struct headers *ret)
{
    headers_init(ret, &f->stream->arena);
    if (!authz_headers_ok(a->headers, a->header_count)) {
        return false;
    }
    authz_headers_apply(a->headers, a->header_count, ret, NULL);
    if (!a->body.n) {
        headers_remove_id(ret, HDR_CONTENT_TYPE);
    }
    return true;
}

static int client_status(int status, int otherwise)
{
    return status >= 200 && status <= 599 ? status : otherwise;
}

static void refuse(struct http_filter *f, const struct check_answer *a)
{
    const struct authz_cfg *c = f->cfg;
    struct headers extra;
    int status = client_status(a->status, 403);
    count_both(f, STAT_ID_HTTP_AUTHZ_DENIED, STAT_ID_CLUSTER_AUTHZ_DENIED);
    struct cluster_worker *cw = c->charge_cluster ? target(f->stream) : NULL;
    if (cw) {
        stat_answer(cw->stats, status);
    }
    if (!client_headers(f, a, &extra)) {
        reject(f);
        return;
    }
    struct str body = a->body;
    if (c->max_denied_body && body.n > c->max_denied_body) {
        body.n = c->max_denied_body;
    }
    deny(f, status, arena_str(&f->stream->arena, body), "ext_authz_denied", &extra);
}

// No answer. True: the request goes on all the same.
static bool failed(struct http_filter *f, const struct check_answer *a)
{
    const struct authz_cfg *c = f->cfg;
    struct stream *s = f->stream;
    count_both(f, STAT_ID_HTTP_AUTHZ_ERROR, STAT_ID_CLUSTER_AUTHZ_ERROR);
    if (c->failure_mode_allow) {
        count_both(f, STAT_ID_HTTP_AUTHZ_FAILURE_MODE_ALLOWED, STAT_ID_CLUSTER_AUTHZ_FAILURE_MODE_ALLOWED);
        if (c->failure_mode_header) {
            headers_add(&s->req.headers, STR("x-envoy-auth-failure-mode-allowed"), STR("true"));
        }
        return true;
    }
    struct headers extra;
    bool said = client_headers(f, a, &extra);
    deny(f, client_status(a->status, c->status_on_error), arena_str(&s->arena, said ? a->body : str_n(NULL, 0)), "ext_authz_error",
         said ? &extra : NULL);
    return false;
}

static void finish(struct http_filter *f, const struct check_answer *a)
{
    const struct authz_cfg *c = f->cfg;
    struct authz_state *st = f->state;
    st->call = NULL;
    st->grpc = NULL;
    st->asking = false;
    if ((a->bad_action && c->validate) || !take_metadata(f, a)) {
        reject(f);
        return;
    }
    switch (a->verdict) {
    case CHECK_OK:
        allow(f, a);
        return;
    case CHECK_DENIED:
        refuse(f, a);
        return;
    default:
        if (failed(f, a)) {
            go_on(f);
        }
        return;
    }
}

static void on_http(void *owner, const struct side_answer *answer)
{
    struct http_filter *f = owner;
    const struct authz_state *st = f->state;
    struct check_answer a;
    authz_http_answer(st->server, answer, answer->arena, &a);
    finish(f, &a);
}

static void on_grpc(void *owner, const struct side_grpc_answer *answer)
{
    struct http_filter *f = owner;
    struct check_answer a = { .verdict = CHECK_ERROR };
    if (answer->status == GRPC_OK && check_answer_parse(answer->message, answer->http->arena, &a, NULL)) {
        a = (struct check_answer){ .verdict = CHECK_ERROR };
    }
    finish(f, &a);
}

// ---- asking ----

static bool send_http(struct http_filter *f, const struct check_http *http, struct arena *scratch)
{
    struct authz_state *st = f->state;
    struct headers h;
    struct side_request q;
    struct buf body = { 0 };
    headers_init(&h, scratch);
    if (!authz_http_request(st->server, f->stream, http, &h, &q)) {
        return false;
    }
    buf_append_str(&body, http->body);
    q.body = &body;
    q.done = on_http;
    q.owner = f;
    st->call = side_call_start(f->stream->worker, &q);
    buf_clear(&body);
    return st->call != NULL;
}

static bool send_grpc(struct http_filter *f, const struct check_http *http, struct arena *scratch)
{
    struct authz_state *st = f->state;
    const struct grpc_service *g = &st->server->grpc;
    struct check_question q = { .time_ms = f->stream->info.start_wall_ms, .http = http };
    fill_peers(f, &q, scratch);
    fill_extensions(f, &q, scratch);
    fill_metadata(f, &q, scratch);
    st->grpc = side_grpc_start(f->stream->worker, &(struct side_grpc_request){ .cluster = g->cluster, .authority = g->authority,
                                                                               .path = check_path, .message = check_question_pack(&q, scratch),
                                                                               .metadata = g->metadata, .timeout_ms = g->timeout_ms,
                                                                               .answer_max = g->answer_max, .retry = g->retry,
                                                                               .no_envoy_headers = g->no_envoy_headers, .done = on_grpc,
                                                                               .owner = f });
    return st->grpc != NULL;
}

// Asks; the answer comes later. data: what comes now of the body, not held yet; NULL = nothing. False: the question cannot be put, which a
// request without a body learns at once.
static bool ask(struct http_filter *f, const struct buf *data)
{
    struct authz_state *st = f->state;
    struct arena scratch;
    struct check_http http;
    bool with_body = st->buffering;
    st->buffering = false;
    st->asking = true;
    f->stream->held_max = 0;
    st->start_ns = loop_now_ns(f->stream->worker->loop);
    arena_init(&scratch, 0, 0);
    fill_http(f, data, with_body, &http, &scratch);
    bool sent = st->server->http ? send_http(f, &http, &scratch) : send_grpc(f, &http, &scratch);
    arena_fini(&scratch);
    return sent;
}

// ---- events ----

static bool enabled(const struct authz_cfg *c, const struct stream *s)
{
    if (c->has_enabled && !fraction_hit(c->enabled, rand_u64())) {
        return false;
    }
    return !c->enabled_metadata || metadata_match(c->enabled_metadata, &s->info);
}

static bool wants_body(struct http_filter *f, const struct authz_route *r, const struct http_request *req)
{
    const struct authz_cfg *c = f->cfg;
    struct authz_state *st = f->state;
    if (r && r->has_body) {
        st->body = r->body;
        st->body.as_bytes |= st->server->http;
    } else if (c->has_body && !(r && r->no_body)) {
        st->body = c->body;
    } else {
        return false;
    }
    return !req->end_stream && !req->upgrade.n && req->path.n; // a conversation has no end to wait for
}

static enum http_filter_status on_request(struct http_filter *f, struct http_request *req)
{
    const struct authz_cfg *c = f->cfg;
    struct authz_state *st = f->state;
    struct stream *s = f->stream;
    const struct authz_route *r = stream_per_filter(s, f->ext->name);
    if (!s->route || (r && r->disabled)) { // nowhere to go, or told not to ask
        return HF_CONTINUE;
    }
    if (!enabled(c, s)) {
        count(f, STAT_ID_HTTP_AUTHZ_DISABLED);
        if (c->deny_at_disable) {
            deny(f, c->status_on_error, str_n(NULL, 0), "ext_authz_error", NULL);
            return HF_STOP;
        }
        return HF_CONTINUE;
    }
    st->f = f;
    st->server = r && r->server ? r->server : &c->server;
    st->buffering = wants_body(f, r, req);
    if (st->buffering) {
        s->held_max = st->body.max;
        return HF_STOP;
    }
    if (!ask(f, NULL)) {
        st->asking = false;
        return failed(f, &(struct check_answer){ .verdict = CHECK_ERROR }) ? HF_CONTINUE : HF_STOP;
    }
    return HF_STOP;
}

static enum http_filter_status on_request_data(struct http_filter *f, struct buf *data, bool end)
{
    struct authz_state *st = f->state;
    struct stream *s = f->stream;
    if (!st->buffering) {
        return st->asking ? HF_STOP : HF_CONTINUE;
    }
    size_t all = s->held.len + data->len;
    if (!st->body.partial && all > st->body.max) {
        st->buffering = false;
        stat_inc(stream_stats(s), STAT_ID_HTTP_RQ_TOO_LARGE);
        stream_local_reply(s, 413, STR("Payload Too Large"), "request_payload_too_large", 0, NULL);
        return HF_STOP;
    }
    if ((end || (st->body.partial && all >= st->body.max)) && !ask(f, data)) {
        st->asking = false;
        return failed(f, &(struct check_answer){ .verdict = CHECK_ERROR }) ? HF_CONTINUE : HF_STOP;
    }
    return HF_STOP;
}

static void on_request_trailers(struct http_filter *f, struct headers *trailers)
{
    struct authz_state *st = f->state;
    (void)trailers;
    if (st->buffering) {
        (void)ask(f, NULL); // where that fails, the worker is ending
    }
}

static void on_response(struct http_filter *f, struct http_response *resp)
{
    struct authz_state *st = f->state;
    authz_headers_apply(st->answer_headers, st->answer_header_count, &resp->headers, NULL);
}

static void on_destroy(struct http_filter *f)
{
    struct authz_state *st = f->state;
    side_call_cancel(st->call);
    side_grpc_cancel(st->grpc);
    st->call = NULL;
    st->grpc = NULL;
}

const struct http_filter_ops http_filter_ext_authz = {
    .ext = { .name = "envoy.filters.http.ext_authz", .type_url = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
             .config_parse = ext_authz_parse },
    .route_type_url = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
    .route_config_parse = ext_authz_parse_route,
    .state_size = sizeof(struct authz_state),
    .on_request = on_request,
    .on_request_data = on_request_data,
    .on_request_trailers = on_request_trailers,
    .on_response = on_response,
    .on_destroy = on_destroy,
};
