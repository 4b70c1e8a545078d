// SPDX-License-Identifier: Apache-2.0
// Probes over raw TCP, HTTP/1.1, HTTP/2 and gRPC (grpc.health.v1). A connection is kept between probes where the check allows it.
#include "proxy/upstream/probe.h"

#include <stdlib.h>

#include "lib/base/mem.h"

enum { BODY_MAX = 64 * 1024 };

static void drop_connection(struct probe *p)
{
    if (p->stream) {
        codec_stream_set(p->stream, NULL, NULL);
        p->stream = NULL;
    }
    if (p->codec) {
        codec_free(p->codec);
    } else if (p->conn) {
        conn_free(p->conn);
    }
    p->codec = NULL;
    p->conn = NULL;
}

static void finish(struct probe *p, enum probe_result r)
{
    timer_cancel(&p->timer);
    p->running = false;
    if (p->stream) { // given up before its end
        drop_connection(p);
    }
    if (!p->t.check->keep_connection || r == PROBE_NETWORK) {
        drop_connection(p);
    }
    p->done(p, r);
}

static void timed_out(struct timer *t)
{
    struct probe *p = container_of(t, struct probe, timer);
    drop_connection(p);
    finish(p, PROBE_NETWORK);
}

void probe_init(struct probe *p, struct loop *l, void (*done)(struct probe *p, enum probe_result r))
{
    *p = (struct probe){ .loop = l, .done = done };
    timer_init(&p->timer, timed_out);
}

bool probe_received(const struct buf *b, const struct str *want, size_t n)
{
    char *all = mem_alloc(b->len + 1);
    size_t len = buf_peek(b, 0, all, b->len), at = 0, i = 0;
    for (; i < n; i++) {
        const char *hit = want[i].n ? memmem(all + at, len - at, want[i].p, want[i].n) : all + at;
        if (!hit) {
            break;
        }
        at = (size_t)(hit - all) + want[i].n;
    }
    free(all);
    return i == n;
}

static bool in_ranges(const struct health_range *v, size_t n, int status)
{
    for (size_t i = 0; i < n; i++) {
        if (status >= v[i].first && status < v[i].end) {
            return true;
        }
    }
    return false;
}

// ---- HTTP and gRPC ----

static enum probe_result judge_http(const struct probe *p)
{
    const struct health_cfg *c = p->t.check;
    if (c->expected_count ? !in_ranges(c->expected, c->expected_count, p->status) : p->status != 200) {
        return in_ranges(c->retriable, c->retriable_count, p->status) ? PROBE_RETRIABLE : PROBE_BAD;
    }
    if (p->bad_service) {
        return PROBE_OTHER;
    }
    return probe_received(&p->body, c->receive, c->receive_count) ? PROBE_OK : PROBE_BAD;
}

// grpc.health.v1.HealthCheckResponse: field 1, status, 1 = SERVING. In one frame of gRPC: flag, length (4 bytes), message.
static enum probe_result judge_grpc(struct probe *p)
{
    unsigned char f[7];
    bool serving = buf_peek(&p->body, 0, f, sizeof(f)) == sizeof(f) && f[0] == 0 && f[1] + f[2] + f[3] == 0 && f[4] == 2 && f[5] == 0x08 && f[6] == 1;
    return p->status == 200 && !p->grpc_failed && serving ? PROBE_OK : PROBE_BAD;
}

static void answered(struct probe *p)
{
    codec_stream_set(p->stream, NULL, NULL);
    p->stream = NULL;
    finish(p, p->t.check->kind == HEALTH_GRPC ? judge_grpc(p) : judge_http(p));
}

static void take_grpc_status(struct probe *p, const struct headers *h)
{
    struct str v = headers_value(h, STR("grpc-status"));
    if (v.p && !str_is(v, "0")) {
        p->grpc_failed = true;
    }
}

static void up_response(struct codec_stream *s, struct http_response *resp)
{
    struct probe *p = codec_stream_owner(s);
    if (resp->status < 200) {
        return;
    }
    const struct string_matcher *m = p->t.check->service;
    p->status = resp->status;
    p->bad_service = m && !string_matcher_match(m, headers_value(&resp->headers, STR("x-envoy-upstream-healthchecked-cluster")));
    take_grpc_status(p, &resp->headers);
    if (resp->end_stream) {
        answered(p);
    }
}

static void up_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct probe *p = codec_stream_owner(s);
    size_t limit = p->t.check->buffer_limit ? p->t.check->buffer_limit : BODY_MAX;
    if (p->body.len < limit) {
        buf_move(&p->body, data, limit - p->body.len);
    }
    if (end) {
        answered(p);
    }
}

static void up_trailers(struct codec_stream *s, struct headers *trailers)
{
    struct probe *p = codec_stream_owner(s);
    take_grpc_status(p, trailers);
    answered(p);
}

static void up_broken(struct probe *p)
{
    p->stream = NULL;
    drop_connection(p);
    finish(p, PROBE_NETWORK);
}

static void up_reset(struct codec_stream *s, enum codec_reset why, const char *detail)
{
    (void)why, (void)detail;
    up_broken(codec_stream_owner(s));
}

static void up_close(struct codec_stream *s)
{
    up_broken(codec_stream_owner(s));
}

static const struct codec_stream_ops up_ops = {
    .on_response = up_response, .on_data = up_data, .on_trailers = up_trailers, .on_reset = up_reset, .on_close = up_close,
};

// Between probes: the server closed the connection that was kept. (During one, its stream heard of it before.)
static void client_closed(struct codec *c, enum conn_close why)
{
    (void)why;
    struct probe *p = codec_owner(c);
    bool was_running = p->running;
    drop_connection(p);
    if (was_running) {
        finish(p, PROBE_NETWORK);
    }
}

static const struct codec_ops client_ops = { .on_conn_close = client_closed };

static void add_headers(const struct health_cfg *c, struct headers *h)
{
    for (size_t i = 0; i < c->header_count; i++) {
        if (c->headers[i].append) {
            headers_add(h, c->headers[i].name, c->headers[i].value);
        } else {
            headers_set(h, c->headers[i].name, c->headers[i].value);
        }
    }
    for (size_t i = 0; i < c->remove_count; i++) {
        headers_remove(h, c->remove[i]);
    }
}

// grpc.health.v1.HealthCheckRequest: field 1, service.
static void put_grpc_request(struct str service, struct buf *b)
{
    char head[8] = { 0 };
    size_t n = service.n ? 2 + (service.n > 127) + service.n : 0;
    head[3] = (char)(n >> 8);
    head[4] = (char)n;
    buf_append(b, head, 5);
    if (service.n) {
        char key[3] = { 0x0a, (char)(service.n > 127 ? (service.n & 127) | 128 : service.n), (char)(service.n >> 7) };
        buf_append(b, key, service.n > 127 ? 3 : 2);
        buf_append_str(b, service);
    }
}

static void ask_http(struct probe *p)
{
    const struct health_cfg *c = p->t.check;
    bool grpc = c->kind == HEALTH_GRPC;
    arena_fini(&p->arena);
    arena_init(&p->arena, 1024, 0);
    buf_clear(&p->body);
    p->status = 0;
    p->bad_service = p->grpc_failed = false;
    struct codec_stream *s = p->stream = codec_new_stream(p->codec, &up_ops, p, &p->arena);
    if (!s) {
        drop_connection(p);
        finish(p, PROBE_NETWORK);
        return;
    }
    struct http_request q = { .method = grpc ? STR("POST") : c->method, .scheme = p->t.transport->tls ? STR("https") : STR("http"),
                              .host = p->t.authority, .path = grpc ? STR("/grpc.health.v1.Health/Check") : c->path,
                              .version = c->h2 ? HTTP_2 : HTTP_11, .content_length = -1, .end_stream = !grpc };
    headers_init(&q.headers, &p->arena);
    headers_add(&q.headers, STR("user-agent"), STR("Envoy/HC")); // what backends that log less for health checks look for
    struct buf body = { 0 };
    if (grpc) {
        headers_add(&q.headers, STR("content-type"), STR("application/grpc"));
        q.te_trailers = true;
        put_grpc_request(c->grpc_service, &body);
    }
    add_headers(c, &q.headers);
    codec_send_request(s, &q);
    if (grpc) {
        codec_send_data(s, &body, true);
        buf_clear(&body);
    }
    codec_flush(p->codec);
}

// ---- TCP ----

static void tcp_data(struct conn *c)
{
    struct probe *p = c->owner;
    buf_move(&p->body, &c->in, c->in.len);
    if (!p->running) { // nobody asked
        buf_clear(&p->body);
    } else if (probe_received(&p->body, p->t.check->receive, p->t.check->receive_count)) {
        finish(p, PROBE_OK);
    } else if (p->body.len > BODY_MAX) {
        drop_connection(p);
        finish(p, PROBE_BAD);
    }
}

static void tcp_closed(struct conn *c, enum conn_close why)
{
    (void)why;
    struct probe *p = c->owner;
    bool was_running = p->running;
    drop_connection(p);
    if (was_running) {
        finish(p, PROBE_NETWORK);
    }
}

static const struct conn_ops tcp_ops = { .on_data = tcp_data, .on_close = tcp_closed };

static void ask_tcp(struct probe *p)
{
    const struct health_cfg *c = p->t.check;
    buf_clear(&p->body);
    if (c->send.n) {
        conn_write_bytes(p->conn, c->send.p, c->send.n);
    }
    if (c->receive_count == 0) {
        finish(p, PROBE_OK);
    }
}

// ---- connecting ----

static void connect_opened(struct conn *c)
{
    struct probe *p = c->owner;
    if (p->t.check->kind == HEALTH_TCP) {
        c->ops = &tcp_ops;
        ask_tcp(p);
        return;
    }
    p->codec = p->t.check->h2 ? codec_h2_client(c, &client_ops, p, NULL) : codec_h1_client(c, &client_ops, p, NULL);
    ask_http(p);
}

static const struct conn_ops connect_ops = { .on_open = connect_opened, .on_close = tcp_closed };

// The transport of the cluster; NULL without TLS. false: its certificate is not there.
static bool make_transport(struct probe *p, struct transport **ret)
{
    const struct tls_cfg *tls = p->t.transport->tls;
    *ret = NULL;
    if (!tls) {
        return true;
    }
    struct tls_ctx *ctx = tls_slot_get(tls->slot);
    if (!ctx) {
        return false;
    }
    if (ctx != p->ctx) { // a session belongs to the certificate it was made with
        tls_session_slot_fini(&p->session);
        p->session = (struct tls_session_slot){ 0 };
        tls_ctx_unref(p->ctx);
        p->ctx = ctx;
    } else {
        tls_ctx_unref(ctx);
    }
    static const struct str h2 = STR_INIT("h2");
    const struct health_cfg *c = p->t.check;
    struct tls_client_opts o = { .sni = tls->sni, .sans = tls->sans, .san_count = tls->san_count, .session = &p->session };
    o.alpn = c->alpn ? c->alpn : c->h2 ? &h2 : NULL;
    o.alpn_count = c->alpn ? c->alpn_count : c->h2;
    *ret = transport_tls_client(p->ctx, &o);
    return *ret != NULL;
}

static void start_connection(struct probe *p)
{
    struct transport *tr;
    if (!make_transport(p, &tr)) {
        finish(p, PROBE_NETWORK);
        return;
    }
    struct socket_connect_opts o = p->t.cluster->connect;
    if (o.source.family != p->t.addr.family) {
        o.source = p->t.addr.family == AF_INET6 ? p->t.cluster->source_v6 : (struct addr){ 0 };
    }
    p->conn = conn_connect(p->loop, &p->t.addr, &o, 0, &connect_ops, p);
    if (tr) {
        conn_set_transport(p->conn, tr, 0);
    }
}

void probe_run(struct probe *p, const struct probe_target *t)
{
    if (p->conn && (!addr_eq(&t->addr, &p->t.addr) || (p->codec && !codec_can_open(p->codec)))) {
        drop_connection(p);
    }
    p->t = *t;
    p->running = true;
    timer_set(p->loop, &p->timer, t->check->timeout_ms);
    if (p->codec) {
        ask_http(p);
    } else if (p->conn) {
        ask_tcp(p);
    } else {
        start_connection(p);
    }
}

void probe_stop(struct probe *p)
{
    timer_cancel(&p->timer);
    p->running = false;
    drop_connection(p);
}

void probe_fini(struct probe *p)
{
    probe_stop(p);
    tls_session_slot_fini(&p->session);
    tls_ctx_unref(p->ctx);
    arena_fini(&p->arena);
    buf_clear(&p->body);
}
