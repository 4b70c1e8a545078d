// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/app_probes.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/json.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/event/thread.h"
#include "lib/http/client.h"

struct app_probes {
    pthread_mutex_t lock; // guards what follows, up to the line
    struct loop *loop;    // borrowed; NULL once freed
    int under_way;        // jobs, each of which holds this
    // ---- loop's thread, or written before any job
    struct arena arena;
    struct app_probe *probes;
    size_t count;
    struct addr pod, from;
    uint16_t status_port;
    bool closing;
};

struct job {
    struct mailbox_msg msg;
    struct app_probes *owner;         // counted in under_way
    struct http_server_later *later;  // owned until answered
    struct http_client_req q;
    struct arena arena;
    struct headers headers;
    bool tcp;
    int status; // of the answer
    struct str body;
};

static bool is_probe_path(struct str path)
{
    static const char *const lives[] = { "/livez", "/readyz", "/startupz" }, *const cycles[] = { "/prestopz", "/poststartz" };
    bool health = str_starts(path, STR("/app-health/"));
    if (!health && !str_starts(path, STR("/app-lifecycle/"))) {
        return false;
    }
    const char *const *names = health ? lives : cycles;
    for (size_t i = 0; i < (health ? array_len(lives) : array_len(cycles)); i++) {
        if (str_ends(path, str_c(names[i]))) {
            return path.n > strlen(names[i]) + (health ? 12 : 15);
        }
    }
    return false;
}

static int parse_one(const struct json *n, struct arena *a, struct app_probe *p, struct err *err)
{
    const struct json *http = json_get(n, "httpGet"), *tcp = json_get(n, "tcpSocket"), *grpc = json_get(n, "grpc"), *seconds = json_get(n, "timeoutSeconds");
    const struct json *what = http ? http : tcp ? tcp : grpc;
    const struct json *port = json_get(what, "port");
    uint64_t number = 0, timeout_s = 1;
    if (!is_probe_path(n->key)) {
        return err_set(err, -EINVAL, "\"%.*s\" is no path of a probe", STR_FMT(n->key));
    }
    if (!!http + !!tcp + !!grpc != 1) {
        return err_set(err, -EINVAL, "%.*s: one of httpGet, tcpSocket and grpc is needed", STR_FMT(n->key));
    }
    if (!port || port->type != JSON_NUMBER || !str_to_u64(port->text, 65535, &number) || number == 0) {
        return err_set(err, -EINVAL, "%.*s: port is no number from 1 to 65535", STR_FMT(n->key));
    }
    if (seconds && !str_to_u64(seconds->text, 3600, &timeout_s)) {
        return err_set(err, -EINVAL, "%.*s: timeoutSeconds is no number up to 3600", STR_FMT(n->key));
    }
    struct str path = json_str(http, "path"), scheme = json_str(http, "scheme");
    *p = (struct app_probe){ .path = arena_str(a, n->key), .port = (uint16_t)number, .timeout_ms = (int)(timeout_s ? timeout_s : 1) * 1000 };
    p->kind = tcp ? APP_PROBE_TCP : grpc || str_is(scheme, "HTTPS") ? APP_PROBE_UNSUPPORTED : APP_PROBE_HTTP;
    p->target = arena_printf(a, "%s%.*s", path.n && path.p[0] == '/' ? "" : "/", STR_FMT(path));
    return 0;
}

int app_probes_parse(struct str text, struct arena *a, struct app_probe **ret, size_t *ret_count, struct err *err)
{
    struct json *root = NULL;
    if (!text.n) {
        *ret = NULL;
        *ret_count = 0;
        return 0;
    }
    int rc = json_parse(text, a, &root, err);
    if (rc) {
        return rc;
    }
    if (root->type != JSON_OBJECT) {
        return err_set(err, -EINVAL, "not a map of probes");
    }
    struct app_probe *v = arena_zalloc(a, sizeof(*v) * (root->count + 1));
    size_t n = 0;
    for (const struct json *i = root->first; i && !rc; i = i->next) {
        rc = parse_one(i, a, &v[n++], err);
    }
    if (!rc) {
        *ret = v;
        *ret_count = n;
    }
    return rc;
}

struct app_probes *app_probes_new(struct loop *l, struct str text, struct str pod_ip, uint16_t status_port, struct err *err)
{
    struct app_probes *p = mem_new(struct app_probes);
    pthread_mutex_init(&p->lock, NULL);
    p->loop = l;
    p->status_port = status_port;
    if (app_probes_parse(text, &p->arena, &p->probes, &p->count, err)) {
        err_wrap(err, "ISTIO_KUBE_APP_PROBERS");
        app_probes_free(p);
        return NULL;
    }
    if (p->count && !addr_parse_ip(pod_ip, 0, &p->pod)) {
        err_set(err, -EINVAL, "ISTIO_KUBE_APP_PROBERS: the pod's address \"%.*s\" is none", STR_FMT(pod_ip));
        app_probes_free(p);
        return NULL;
    }
    // As pilot-agent's upstream local address: what comes from there to the pod's own address is not redirected again.
    addr_parse_ip(p->pod.family == AF_INET6 ? STR("::6") : STR("127.0.0.6"), 0, &p->from);
    for (size_t i = 0; i < p->count; i++) {
        if (p->probes[i].kind == APP_PROBE_UNSUPPORTED) {
            log_warn(LOGC_MAIN, 0, "app_probe_unsupported", "path=%.*s reason=\"HTTPS and gRPC probes are answered by connecting only\"",
                     STR_FMT(p->probes[i].path));
        }
    }
    return p;
}

// The last one frees.
static void release(struct app_probes *p)
{
    pthread_mutex_destroy(&p->lock);
    arena_fini(&p->arena);
    free(p);
}

static void job_free(struct job *j)
{
    arena_fini(&j->arena);
    free(j);
}

static void on_done(struct mailbox_msg *m)
{
    struct job *j = container_of(m, struct job, msg);
    struct app_probes *p = j->owner;
    struct http_server_resp r = { .status = j->status };
    buf_append(&r.body, j->body.p, j->body.n < APP_PROBE_BODY_MAX ? j->body.n : APP_PROBE_BODY_MAX);
    http_server_answer(j->later, &r);
    job_free(j);
    pthread_mutex_lock(&p->lock);
    bool last = --p->under_way == 0 && p->closing;
    pthread_mutex_unlock(&p->lock);
    if (last) {
        release(p);
    }
}

static void *run(void *arg)
{
    struct job *j = arg;
    struct err err = { 0 };
    int status = j->tcp ? http_client_connect(&j->q, &err) : http_client_do(&j->q, &j->arena, &j->body, &err);
    if (status < 0) {
        log_info(LOGC_MAIN, 0, "app_probe_failed", "path=%.*s reason=\"%s\"", STR_FMT(j->q.path), err.msg);
    }
    // A redirect must name a place, so the kubelet gets 200 (it counts both as success).
    j->status = status < 0 ? 500 : j->tcp || (status >= 300 && status < 400) ? 200 : status;
    buf_cache_free();
    struct app_probes *p = j->owner;
    pthread_mutex_lock(&p->lock);
    struct loop *l = p->loop;
    if (l) {
        loop_post(l, &j->msg); // under the lock: the loop cannot end meanwhile
    }
    bool last = !l && --p->under_way == 0;
    pthread_mutex_unlock(&p->lock);
    if (!l) { // the server is gone, and with it the client
        free(j->later);
        job_free(j);
        if (last) {
            release(p);
        }
    }
    return NULL;
}

// The kubelet's Host names our port where it should name the application's.
static struct str host_of(const struct app_probes *p, const struct app_probe *probe, struct str host, struct arena *a)
{
    char ours[8];
    int n = snprintf(ours, sizeof(ours), ":%u", p->status_port);
    if (n > 0 && str_ends(host, str_n(ours, (size_t)n))) {
        return arena_printf(a, "%.*s:%u", (int)(host.n - (size_t)n), host.p, probe->port);
    }
    return arena_str(a, host);
}

static void start(struct app_probes *p, const struct app_probe *probe, struct http_server_req *q, struct http_server_resp *r)
{
    struct err err = { 0 };
    pthread_t t;
    pthread_mutex_lock(&p->lock);
    bool room = p->under_way < APP_PROBES_AT_ONCE;
    p->under_way += room;
    pthread_mutex_unlock(&p->lock);
    if (!room) {
        r->status = 503;
        buf_printf(&r->body, "too many probes at once\n");
        return;
    }
    struct job *j = mem_new(struct job);
    j->owner = p;
    j->msg.fn = on_done;
    j->tcp = probe->kind != APP_PROBE_HTTP;
    headers_init(&j->headers, &j->arena);
    for (struct hdr *h = headers_first(&q->req->headers); h; h = headers_next(&q->req->headers, h)) {
        headers_add(&j->headers, arena_str(&j->arena, h->name), arena_str(&j->arena, h->value));
    }
    j->q = (struct http_client_req){ .method = "GET", .to = p->pod, .from = p->from, .host = host_of(p, probe, q->req->host, &j->arena),
                                     .path = arena_str(&j->arena, probe->target), .timeout_ms = probe->timeout_ms,
                                     .max_bytes = APP_PROBE_ANSWER_MAX, .headers = &j->headers };
    j->q.to.port = probe->port;
    if (thread_start(&t, "app-probe", run, j, &err)) {
        pthread_mutex_lock(&p->lock);
        p->under_way--;
        pthread_mutex_unlock(&p->lock);
        job_free(j);
        r->status = 500;
        buf_printf(&r->body, "%s\n", err.msg);
        return;
    }
    j->later = http_server_later(q); // in time for on_done, which runs on this thread
    pthread_detach(t);
}

bool app_probes_handle(struct app_probes *p, struct http_server_req *q, struct http_server_resp *r)
{
    if (!str_starts(q->path, STR("/app-health/")) && !str_starts(q->path, STR("/app-lifecycle/"))) {
        return false;
    }
    for (size_t i = 0; i < p->count; i++) {
        if (str_eq(p->probes[i].path, q->path)) {
            start(p, &p->probes[i], q, r);
            return true;
        }
    }
    r->status = 400;
    buf_printf(&r->body, "app prober config does not exists for %.*s", STR_FMT(q->path));
    return true;
}

void app_probes_free(struct app_probes *p)
{
    if (!p) {
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->loop = NULL;
    p->closing = true;
    bool last = p->under_way == 0;
    pthread_mutex_unlock(&p->lock);
    if (last) {
        release(p);
    }
}
