// SPDX-License-Identifier: Apache-2.0
#include "control-plane/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control-plane/serving.h"
#include "control-plane/stream.h"
#include "istio/v1/auth/ca.pb-c.h"
#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/json.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/event/fswatch.h"
#include "lib/event/signal.h"
#include "lib/grpc/grpc.h"
#include "lib/http/server.h"
#include "proto/pb_util.h"

enum { RELOAD_QUIET_MS = 15, GRPC_INVALID_ARGUMENT = 3, GRPC_PERMISSION_DENIED = 7, GRPC_INTERNAL = 13, GRPC_UNAUTHENTICATED = 16, CONNS_MAX = 10000 };

static const char delta_method[] = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
static const char sotw_method[] = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
static const char csr_method[] = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

struct control {
    const struct cp_server_opts *o;
    struct loop *loop;
    struct cp_config *config; // in force
    uint64_t version;
    uint64_t loaded_ms;       // wall clock of the last accepted load
    char reload_error[ERR_MSG_MAX]; // empty when the folder's content is in force
    struct ca ca;
    struct serving serving;
    struct grpc_srv *grpc;
    struct http_server *http;
    struct fswatch *watch;
    struct signal_watch signals;
    struct list conns;
    size_t conn_count;
    uint64_t reloads_ok, reloads_failed, certificates, certificates_refused, refused_calls, pushes[CP_TYPE_COUNT], rejects[CP_TYPE_COUNT];
};

// One call: an ADS stream or a certificate request.
struct cp_conn {
    struct list link;
    struct control *c;
    struct grpc_call *call;
    bool is_ads, authenticated, ended;
    struct token_identity who; // in arena; when authenticated
    struct arena arena;
    struct cp_stream stream;
    struct cp_set *set;        // compiled for set_version
    uint64_t set_version;
    uint64_t connected_ms;     // wall clock
    char peer[96];
};

static void conn_end(struct cp_conn *x, int status, const char *message)
{
    if (!x->ended) {
        x->ended = true;
        log_warn(LOGC_CONTROL, 0, "call_refused", "peer=%s status=%d reason=\"%s\"", x->peer, status, message);
        x->c->refused_calls++;
        grpc_call_finish(x->call, status, message);
    }
}

static bool conn_compile(struct cp_conn *x)
{
    struct err err = { 0 };
    struct cp_set *set = NULL;
    if (x->set && x->set_version == x->c->version) {
        return true;
    }
    if (cp_compile(x->c->config, &x->stream.node, &x->c->o->compile, &set, &err)) {
        // The proxy keeps what it has: better an old configuration than half a new one.
        log_error(LOGC_CONTROL, 0, "compile_failed", "node=%.*s reason=\"%s\"", STR_FMT(x->stream.node.id), err.msg);
        return x->set != NULL;
    }
    cp_set_unref(x->set);
    x->set = set;
    x->set_version = x->c->version;
    return true;
}

static void conn_push(struct cp_conn *x)
{
    struct arena a = { 0 };
    struct str bytes;
    enum cp_type t;
    if (x->ended || !x->stream.has_node || !conn_compile(x)) {
        return;
    }
    while (cp_stream_next(&x->stream, x->set, x->set_version, &a, &bytes, &t)) {
        x->c->pushes[t]++;
        log_debug(LOGC_CONTROL, 0, "push", "node=%.*s type=%s bytes=%zu", STR_FMT(x->stream.node.id), cp_type_short(t), bytes.n);
        if (grpc_call_send(x->call, bytes)) {
            conn_end(x, GRPC_INTERNAL, "the client does not read");
            break;
        }
        arena_reset(&a, true);
    }
    arena_fini(&a);
}

// The identity that a bearer token or a client certificate of ours proves.
static bool authenticate(struct cp_conn *x, const struct grpc_call_info *info)
{
    for (size_t i = 0; i < info->md_count; i++) {
        if (str_is(info->md[i].key, "authorization") && str_starts(info->md[i].value, STR("Bearer "))) {
            struct str token = str_skip(info->md[i].value, 7);
            return token_verify(x->c->ca.token_key, token, (int64_t)time(NULL), &x->arena, &x->who);
        }
    }
    struct str prefix = arena_printf(&x->arena, "spiffe://%.*s/ns/", STR_FMT(x->c->ca.trust_domain));
    if (str_starts(info->peer_uri, prefix)) {
        struct str rest = arena_str(&x->arena, str_skip(info->peer_uri, prefix.n));
        x->who.ns = str_split(&rest, '/');
        struct str sa = str_split(&rest, '/');
        x->who.service_account = rest;
        return str_is(sa, "sa") && x->who.ns.n && rest.n && str_find(rest, '/') < 0;
    }
    return false;
}

static bool on_call(struct grpc_srv *s, struct grpc_call *call, const struct grpc_call_info *info)
{
    struct control *c = grpc_srv_owner(s);
    bool delta = str_is(info->method, delta_method), csr = str_is(info->method, csr_method);
    if (!delta && !csr && !str_is(info->method, sotw_method)) {
        return false;
    }
    struct cp_conn *x = mem_new(struct cp_conn);
    x->c = c;
    x->call = call;
    x->is_ads = !csr;
    x->connected_ms = clock_wall_ms();
    snprintf(x->peer, sizeof(x->peer), "%.*s", STR_FMT(info->peer));
    cp_stream_init(&x->stream, delta);
    list_add_tail(&c->conns, &x->link);
    c->conn_count++;
    grpc_call_set_owner(call, x);
    x->authenticated = info->tls && authenticate(x, info);
    if (info->tls && !x->authenticated) {
        conn_end(x, GRPC_UNAUTHENTICATED, "no valid bearer token and no client certificate of this mesh");
    } else if (csr && !info->tls) {
        conn_end(x, GRPC_UNAUTHENTICATED, "certificates are signed on the TLS port only");
    } else if (c->conn_count > CONNS_MAX) {
        conn_end(x, GRPC_INTERNAL, "too many connections");
    }
    return true;
}

static void sign(struct cp_conn *x, struct str bytes)
{
    struct arena a = { 0 };
    struct err err = { 0 };
    Istio__V1__Auth__IstioCertificateRequest *q = NULL;
    struct str cert;
    int rc = pb_unpack_as(Istio__V1__Auth__IstioCertificateRequest, istio__v1__auth__istio_certificate_request, bytes, &a, &q, &err);
    rc = rc ? rc : ca_sign_workload(&x->c->ca, str_c(q->csr), &x->who, q->validity_duration, &a, &cert, &err);
    if (rc) {
        x->c->certificates_refused++;
        conn_end(x, GRPC_INVALID_ARGUMENT, err.msg);
    } else {
        // Leaf first, the root bundle last (istio.v1.auth.IstioCertificateResponse.cert_chain).
        char *chain[] = { (char *)cert.p, (char *)x->c->ca.root_pem.p };
        Istio__V1__Auth__IstioCertificateResponse r = ISTIO__V1__AUTH__ISTIO_CERTIFICATE_RESPONSE__INIT;
        r.cert_chain = chain;
        r.n_cert_chain = array_len(chain);
        x->c->certificates++;
        x->ended = true;
        log_info(LOGC_CA, 0, "certificate_signed", "namespace=%.*s service_account=%.*s", STR_FMT(x->who.ns), STR_FMT(x->who.service_account));
        grpc_call_send(x->call, pb_pack(&r.base, &a));
        grpc_call_finish(x->call, 0, "");
    }
    arena_fini(&a);
}

static void ads_request(struct cp_conn *x, struct str bytes)
{
    struct err err = { 0 };
    const char *nack = NULL;
    bool had_node = x->stream.has_node;
    if (cp_stream_request(&x->stream, bytes, &nack, &err)) {
        conn_end(x, GRPC_INVALID_ARGUMENT, err.msg);
        return;
    }
    if (!had_node && x->stream.has_node) {
        const struct cp_node *n = &x->stream.node;
        if (x->authenticated && !(str_eq(n->ns, x->who.ns) && str_eq(n->service_account, x->who.service_account))) {
            conn_end(x, GRPC_PERMISSION_DENIED, "node.metadata NAMESPACE and SERVICE_ACCOUNT are not those of the credential");
            return;
        }
        log_info(LOGC_CONTROL, 0, "proxy_connected", "node=%.*s peer=%s", STR_FMT(n->id), x->peer);
    }
    if (nack) {
        for (int t = 0; t < CP_TYPE_COUNT; t++) {
            x->c->rejects[t] += x->stream.w[t].last_error == nack;
        }
        log_warn(LOGC_CONTROL, 0, "proxy_refused", "node=%.*s reason=\"%.800s\"", STR_FMT(x->stream.node.id), nack);
    }
    conn_push(x);
}

static void on_message(struct grpc_call *call, struct str bytes)
{
    struct cp_conn *x = grpc_call_owner(call);
    if (x && !x->ended) {
        if (x->is_ads) {
            ads_request(x, bytes);
        } else {
            sign(x, bytes);
        }
    }
}

static void on_half_close(struct grpc_call *call)
{
    struct cp_conn *x = grpc_call_owner(call);
    if (x && !x->ended && x->is_ads) {
        x->ended = true;
        grpc_call_finish(call, 0, "");
    }
}

static void on_end(struct grpc_call *call)
{
    struct cp_conn *x = grpc_call_owner(call);
    if (!x) {
        return;
    }
    if (x->is_ads && x->stream.has_node) {
        log_info(LOGC_CONTROL, 0, "proxy_gone", "node=%.*s", STR_FMT(x->stream.node.id));
    }
    list_del(&x->link);
    x->c->conn_count--;
    cp_stream_fini(&x->stream);
    cp_set_unref(x->set);
    arena_fini(&x->arena);
    free(x);
}

// ---- reload ----

static void push_all(struct control *c)
{
    list_for_safe(l, &c->conns)
    {
        struct cp_conn *x = list_entry(l, struct cp_conn, link);
        if (x->is_ads) {
            conn_push(x);
        }
    }
}

static int load(struct control *c, struct err *err)
{
    struct cp_config *fresh = NULL;
    if (cp_load(c->o->folder, &fresh, err)) {
        return err->code;
    }
    if (cp_check_mesh(fresh, &c->o->compile, err)) {
        cp_config_free(fresh);
        return err->code;
    }
    cp_config_free(c->config);
    c->config = fresh;
    fresh->version = ++c->version;
    c->loaded_ms = clock_wall_ms();
    c->reload_error[0] = 0;
    return 0;
}

static void on_change(void *arg)
{
    struct control *c = arg;
    struct err err = { 0 };
    uint64_t t0 = clock_mono_ns();
    if (load(c, &err)) {
        c->reloads_failed++;
        memcpy(c->reload_error, err.msg, sizeof(c->reload_error));
        log_error(LOGC_CONTROL, 0, "configuration_refused", "reason=\"%s\" (version %llu keeps serving)", err.msg, (unsigned long long)c->version);
        return;
    }
    c->reloads_ok++;
    push_all(c);
    log_info(LOGC_CONTROL, 0, "configuration_loaded", "version=%llu services=%zu proxies=%zu took_us=%llu", (unsigned long long)c->version,
             c->config->service_count, c->conn_count, (unsigned long long)((clock_mono_ns() - t0) / 1000));
}

// ---- HTTP: metrics, readiness, who has what ----

static void metric(struct buf *b, const char *name, const char *help, const char *kind)
{
    buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

static void write_metrics(const struct control *c, struct buf *b)
{
    metric(b, "remora_control_config_version", "Version of the configuration in force", "gauge");
    buf_printf(b, "remora_control_config_version %llu\n", (unsigned long long)c->version);
    metric(b, "remora_control_reloads_total", "Loads of the folder by result", "counter");
    buf_printf(b, "remora_control_reloads_total{result=\"accepted\"} %llu\n", (unsigned long long)c->reloads_ok);
    buf_printf(b, "remora_control_reloads_total{result=\"refused\"} %llu\n", (unsigned long long)c->reloads_failed);
    metric(b, "remora_control_streams", "Open calls of proxies", "gauge");
    buf_printf(b, "remora_control_streams %zu\n", c->conn_count);
    metric(b, "pilot_xds_pushes", "Responses sent by type", "counter");
    for (int t = 0; t < CP_TYPE_COUNT; t++) {
        buf_printf(b, "pilot_xds_pushes{type=\"%s\"} %llu\n", cp_type_short(t), (unsigned long long)c->pushes[t]);
    }
    metric(b, "pilot_total_xds_rejects", "Responses refused by proxies, by type", "counter");
    for (int t = 0; t < CP_TYPE_COUNT; t++) {
        buf_printf(b, "pilot_total_xds_rejects{type=\"%s\"} %llu\n", cp_type_short(t), (unsigned long long)c->rejects[t]);
    }
    metric(b, "remora_control_certificates_total", "Certificate requests by result", "counter");
    buf_printf(b, "remora_control_certificates_total{result=\"signed\"} %llu\n", (unsigned long long)c->certificates);
    buf_printf(b, "remora_control_certificates_total{result=\"refused\"} %llu\n", (unsigned long long)c->certificates_refused);
    metric(b, "remora_control_calls_refused_total", "Calls ended for missing identity or bad requests", "counter");
    buf_printf(b, "remora_control_calls_refused_total %llu\n", (unsigned long long)c->refused_calls);
}

static const char *watch_status(const struct cp_watch *w)
{
    if (!w->asked) {
        return "IGNORED";
    }
    if (!w->pushes) {
        return "NOT SENT";
    }
    return w->nacked && w->acked_version != w->sent_version ? "ERROR" : w->acked_version == w->sent_version ? "SYNCED" : "STALE";
}

static void write_syncz(const struct control *c, struct buf *b)
{
    struct json_writer w;
    char text[CLOCK_RFC3339_MAX];
    jw_init(&w, b, 2);
    jw_object(&w);
    jw_kv_u64(&w, "config_version", c->version);
    jw_kv(&w, "config_error", str_c(c->reload_error));
    jw_kv(&w, "control_plane", STR("remora-control " REMORA_VERSION));
    jw_key(&w, STR("proxies"));
    jw_array(&w);
    list_for(l, &c->conns)
    {
        const struct cp_conn *x = list_entry(l, struct cp_conn, link);
        if (!x->is_ads || !x->stream.has_node) {
            continue;
        }
        const struct cp_node *n = &x->stream.node;
        struct arena a = { 0 };
        jw_object(&w);
        jw_kv(&w, "proxy", arena_printf(&a, "%.*s.%.*s", STR_FMT(n->name), STR_FMT(n->ns)));
        jw_kv(&w, "node_id", n->id);
        jw_kv(&w, "cluster_id", n->cluster_id);
        jw_kv(&w, "version", n->version);
        jw_kv(&w, "peer", str_c(x->peer));
        clock_rfc3339(x->connected_ms, text);
        jw_kv(&w, "connected_at", str_c(text));
        jw_key(&w, STR("types"));
        jw_object(&w);
        for (int t = 0; t < CP_TYPE_COUNT; t++) {
            const struct cp_watch *k = &x->stream.w[t];
            jw_key(&w, str_c(cp_type_short(t)));
            jw_object(&w);
            jw_kv(&w, "status", str_c(watch_status(k)));
            jw_kv_u64(&w, "sent_version", k->sent_version);
            jw_kv_u64(&w, "acked_version", k->acked_version);
            if (k->last_error) {
                jw_kv(&w, "last_error", str_c(k->last_error));
            }
            jw_object_end(&w);
        }
        jw_object_end(&w);
        jw_object_end(&w);
        arena_fini(&a);
    }
    jw_array_end(&w);
    jw_object_end(&w);
    buf_append(b, "\n", 1);
}

static void on_http(void *arg, struct http_server_req *q, struct http_server_resp *r)
{
    struct control *c = arg;
    if (str_is(q->path, "/metrics")) {
        r->content_type = "text/plain; version=0.0.4; charset=utf-8";
        write_metrics(c, &r->body);
    } else if (str_is(q->path, "/ready") || str_is(q->path, "/healthz/ready")) {
        buf_printf(&r->body, "ready\n");
    } else if (str_is(q->path, "/debug/syncz")) {
        r->content_type = "application/json";
        write_syncz(c, &r->body);
    } else {
        r->status = 404;
        buf_printf(&r->body, "pages: /metrics /ready /debug/syncz\n");
    }
}

// ---- start and stop ----

static void on_signal(struct signal_watch *w, int signo)
{
    struct control *c = container_of(w, struct control, signals);
    log_info(LOGC_CONTROL, 0, "stopping", "signal=%d", signo);
    loop_stop(c->loop);
}

static const struct grpc_srv_ops grpc_ops = {
    .on_call = on_call,
    .on_message = on_message,
    .on_half_close = on_half_close,
    .on_end = on_end,
};

static bool is_loopback_text(const char *text)
{
    struct addr a;
    return addr_parse(str_c(text), &a) && (a.family == AF_UNIX || addr_is_loopback(&a));
}

static void show_certificate(void *arg, struct str cert_pem, struct str key_pem)
{
    struct control *c = arg;
    grpc_srv_set_cert(c->grpc, cert_pem, key_pem);
}

static int start_grpc(struct control *c, struct err *err)
{
    struct arena a = { 0 };
    struct grpc_srv_opts plain = { 0 }, tls = { .tls = true, .client_ca_pem = c->ca.root_pem };
    int rc = 0;
    c->grpc = grpc_srv_new(c->loop, &grpc_ops, c, err);
    if (!c->grpc) {
        return -EIO;
    }
    if (c->o->grpc_addr) {
        if (!is_loopback_text(c->o->grpc_addr)) {
            return err_set(err, -EINVAL, "--grpc-addr %s: plaintext xDS is for loopback addresses only; use --secure-addr", c->o->grpc_addr);
        }
        rc = grpc_srv_listen(c->grpc, c->o->grpc_addr, &plain, err);
    }
    if (rc >= 0 && c->o->secure_addr) {
        c->serving = (struct serving){
            .ca = &c->ca, .sans = c->o->sans, .san_count = c->o->san_count, .loop = c->loop, .use = show_certificate, .arg = c,
        };
        rc = serving_start(&c->serving, &a, &tls.cert_pem, &tls.key_pem, err);
        rc = rc ? rc : grpc_srv_listen(c->grpc, c->o->secure_addr, &tls, err);
    }
    arena_fini(&a);
    if (rc >= 0) {
        grpc_srv_start(c->grpc);
    }
    return rc < 0 ? rc : 0;
}

static int start(struct control *c, struct err *err)
{
    const int signals[] = { SIGTERM, SIGINT };
    struct addr http;
    list_init(&c->conns);
    c->signals.on_signal = on_signal;
    c->loop = loop_new(err);
    if (!c->loop || load(c, err) || ca_open(&c->ca, c->o->state, c->o->compile.trust_domain, err) ||
        signal_watch_start(&c->signals, c->loop, signals, (int)array_len(signals), err)) {
        return -1;
    }
    c->watch = fswatch_new(c->loop, c->o->folder, RELOAD_QUIET_MS, on_change, c, err);
    if (!c->watch || start_grpc(c, err)) {
        return -1;
    }
    if (!c->o->http_addr) {
        return 0;
    }
    if (!addr_parse(str_c(c->o->http_addr), &http)) {
        return err_set(err, -EINVAL, "--http-addr: \"%s\" is not ADDRESS:PORT", c->o->http_addr);
    }
    c->http = http_server_new(c->loop, &http, 0, on_http, c, err);
    return c->http ? 0 : -1;
}

static void stop(struct control *c)
{
    if (c->http) {
        http_server_free(c->http);
    }
    if (c->watch) {
        fswatch_free(c->watch);
    }
    serving_stop(&c->serving);
    if (c->grpc) {
        grpc_srv_free(c->grpc);
    }
    if (c->loop) {
        loop_turn(c->loop, 0);
        signal_watch_stop(&c->signals);
        loop_free(c->loop);
    }
    cp_config_free(c->config);
    ca_close(&c->ca);
    grpc_fence_shutdown();
}

int cp_server_run(const struct cp_server_opts *o)
{
    struct control c = { .o = o };
    struct err err = { 0 };
    signal_block_all();
    int rc = start(&c, &err);
    if (rc) {
        fprintf(stderr, "remora-control: %s\n", err.msg);
    } else {
        log_info(LOGC_CONTROL, 0, "started", "version=%s folder=%s services=%zu xds=%s secure=%s http=%s", REMORA_VERSION, o->folder,
                 c.config->service_count, o->grpc_addr ? o->grpc_addr : "off", o->secure_addr ? o->secure_addr : "off",
                 o->http_addr ? o->http_addr : "off");
        loop_run(c.loop);
    }
    stop(&c);
    return rc ? 1 : 0;
}
