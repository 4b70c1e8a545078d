// SPDX-License-Identifier: Apache-2.0
// fuzz-modules: proxy/filters/http proxy/http proxy/listener proxy/access_log proxy/router proxy/upstream proxy/model proxy/stats proxy/core lib/http lib/net lib/event lib/base
// A whole connection: client bytes → listener, HTTP manager, router, pool → upstream, and back, on a loop whose time stands still unless the
// script moves it. Everything random has a fixed seed, so that one file is one run.
//
// Input: byte 0 options; then operations, one byte each (low three bits the kind, the rest an argument), some followed by a length byte
// and bytes to send. Held: the upstream never gets bytes in doubt (strict_h1.h), in particular none behind a request for an upgrade that it has
// not agreed to; nor does the client unless it asked for HEAD, CONNECT or an upgrade; when all is closed no connection, request or memory is left.
#include <sys/un.h>

#include "lib/base/check.h"
#include "lib/base/rand.h"
#include "tests/fuzz/strict_h1.h"
#include "tests/unit/proxy/filters/http/mesh.h"

// What the rig's assertions of cmocka end in.
void _assert_true(const LargestIntegralType result, const char *const expression, const char *const file, const int line)
{
    if (!result) {
        fprintf(stderr, "%s:%d: %s\n", file, line, expression);
        abort();
    }
}

void _assert_int_equal(const LargestIntegralType a, const LargestIntegralType b, const char *const file, const int line)
{
    _assert_true(a == b, "equal", file, line);
}

void _fail(const char *const file, const int line)
{
    _assert_true(0, "failed", file, line);
}

void print_error(const char *const format, ...)
{
    (void)format;
}

enum { UPSTREAMS_MAX = 8, LOG_MAX = 1 << 18, SENT_MAX = 1 << 16, LAST_WORD_MS = 2000 };

struct end { // one socket of ours and what came on it
    int fd;
    bool eof;
    bool switched; // an upstream that has said something with 101 in it: what follows may be no HTTP
    size_t n, n_sent;
    char got[LOG_MAX], sent[SENT_MAX];
};

static struct mesh m;
static struct end client, upstream[UPSTREAMS_MAX];
static unsigned upstreams;
static uint64_t now;
static bool odd_methods; // HEAD, CONNECT or an upgrade may have been asked for: answers cannot be read without knowing for which

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void hear(struct end *e)
{
    while (e->fd >= 0 && !e->eof && e->n < LOG_MAX) {
        ssize_t n = recv(e->fd, e->got + e->n, LOG_MAX - e->n, MSG_DONTWAIT);
        if (n < 0) {
            e->eof = errno != EAGAIN;
            return;
        }
        e->eof = n == 0;
        e->n += (size_t)n;
    }
}

static void turn(void)
{
    loop_turn(m.x.w.loop, 0);
    struct addr peer;
    int fd = upstreams < UPSTREAMS_MAX ? socket_accept(m.listen_fd[0], &peer) : -1;
    if (fd >= 0) {
        struct end *u = &upstream[upstreams++];
        u->fd = fd;
        u->eof = u->switched = false;
        u->n = u->n_sent = 0;
    }
    hear(&client);
    for (unsigned i = 0; i < upstreams; i++) {
        hear(&upstream[i]);
    }
}

static void drop(struct end *e)
{
    if (e->fd >= 0) {
        hear(e);
        close(e->fd);
        e->fd = -1;
    }
}

// The strict reader's word on all that came on e. May be in doubt about names of hosts that it does not know.
static void judge(struct end *e, bool request)
{
    static struct strict s;
    memset(&s, 0, sizeof(s));
    s.p = e->got;
    s.n = e->n;
    s.request = request;
    s.eof = e->eof;
    if (e->n == LOG_MAX || e->switched || (!request && odd_methods)) {
        return;
    }
    strict_read(&s);
    bool tunnel = s.doubt && m.hcm->upgrade_count && !request && strcmp(s.doubt, "101") == 0;
    if (s.doubt && !tunnel && strcmp(s.doubt, "host") != 0 && strcmp(s.doubt, "connection") != 0) {
        fprintf(stderr, "%s got bytes in doubt (%s):\n%.*s\n", request ? "upstream" : "client", s.doubt, (int)e->n, e->got);
        abort();
    }
}

static void new_client(void)
{
    if (client.fd >= 0) {
        hear(&client);
        judge(&client, false);
        drop(&client);
    }
    client.fd = mesh_client(&m);
    client.eof = false;
    client.n = client.n_sent = 0;
    odd_methods = false;
}

static void give(struct end *e, const uint8_t *p, size_t n)
{
    if (e->fd < 0 || e->eof) {
        return;
    }
    n = n < SENT_MAX - e->n_sent ? n : SENT_MAX - e->n_sent;
    memcpy(e->sent + e->n_sent, p, n);
    e->n_sent += n;
    bool upgrades = m.hcm->upgrade_count && memmem(e->sent, e->n_sent, "ebsocket", 8);
    if (e != &client) {
        e->switched = e->switched || memmem(e->sent, e->n_sent, "101", 3);
    } else if (upgrades || memmem(e->sent, e->n_sent, "HEAD", 4) || memmem(e->sent, e->n_sent, "CONNECT", 7) || memmem(e->sent, e->n_sent, "PRI", 3)) {
        odd_methods = true;
    }
    (void)!send(e->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void step(uint8_t op, const uint8_t **data, size_t *size)
{
    static const uint64_t jumps[] = { 1, 100, 1001, 16000, 31000, 301000, 3600000, 5001 };
    unsigned kind = op & 7, arg = op >> 3;
    struct end *u = upstreams ? &upstream[arg % upstreams] : NULL;
    size_t n = kind <= 1 && *size ? *(*data)++ : 0;
    *size -= kind <= 1 && *size ? 1 : 0;
    n = n < *size ? n : *size;
    switch (kind) {
    case 0:
        give(&client, *data, n);
        break;
    case 1:
        if (u) {
            give(u, *data, n);
        }
        break;
    case 2:
        break;
    case 3:
        shutdown(client.fd, SHUT_WR);
        break;
    case 4:
        if (u && u->fd >= 0) {
            shutdown(u->fd, arg & 16 ? SHUT_RDWR : SHUT_WR);
        }
        break;
    case 5:
        new_client();
        break;
    case 6:
        now += jumps[arg & 7];
        loop_set_fake_time(m.x.w.loop, now);
        break;
    default:
        listener_drain_notify(&m.x.w, false);
        break;
    }
    *data += n;
    *size -= n;
    if (!(arg & 8) || kind > 1) { // several sends may arrive as one
        turn();
    }
}

static void begin(uint8_t options)
{
    static unsigned number;
    rand_seed(1);
    mesh_init(&m);
    now = 1000000;
    loop_set_fake_time(m.x.w.loop, now);
    m.hcm->request_headers_ms = 30000;
    m.hcm->body_window_ms = 30000;
    m.hcm->body_min_bytes = 3000;
    m.hcm->h1 = h1_limits_default;
    m.hcm->h1.allow_http10 = true;
    m.hcm->http10_host = STR("old");
    m.hcm->h1.lenient = options & 1;
    m.cluster->h1 = m.hcm->h1;
    m.hcm->codec = options & 2 ? CODEC_AUTO : CODEC_H1;
    m.hcm->proxy_100_continue = options & 4;
    m.cluster->max_requests_per_connection = options & 8 ? 1 : 0;
    if (options & 32) {
        m.hcm->upgrades = arena_array(&m.l->arena, struct http_upgrade, 1);
        m.hcm->upgrades[0] = (struct http_upgrade){ .type = STR("websocket"), .enabled = true };
        m.hcm->upgrade_count = 1;
    }
    m.route->timeout_ms = options & 16 ? 15000 : 0;
    char path[64];
    snprintf(path, sizeof(path), "@remora-fuzz-%d-%u", getpid(), number++);
    m.up[0] = (struct addr){ .family = AF_UNIX, .path = path };
    struct socket_listen_opts o = { 0 };
    m.listen_fd[0] = socket_listen(&m.up[0], &o, NULL);
    CHECK(m.listen_fd[0] >= 0);
    CHECK(route_table_seal(m.table, NULL) == 0);
    m.hcm->inline_routes = m.table;
    struct lb_endpoint_cfg v = world_endpoint(m.up[0]);
    v.addr.path = arena_strdup(&m.cluster->arena, path);
    struct snapshot *s = snapshot_clone(m.x.w.snap);
    world_cluster_put(s, m.cluster, NULL, &v, 1);
    snapshot_unref(world_swap(&m.x, s));
    upstreams = 0;
    client.fd = -1;
    new_client();
}

// As mesh_fini, without waiting.
static void finish(void)
{
    listener_worker_fini(&m.x.w);
    loop_turn(m.x.w.loop, 0);
    loop_turn(m.x.w.loop, 0);
    access_log_worker_fini(&m.x.w);
    listener_cfg_unref(m.l);
    close(m.listen_fd[0]);
    upstream_worker_fini(&m.x.w);
    loop_turn(m.x.w.loop, 0);
    http_worker_fini(&m.x.w);
    route_table_unref(m.table);
    snapshot_unref(m.x.w.snap);
    loop_turn(m.x.w.loop, 0);
    loop_free(m.x.w.loop);
    stats_store_free(m.x.stats);
    buf_cache_free();
}

static void turns(int n)
{
    for (int i = 0; i < n; i++) {
        turn();
    }
}

static void end(void)
{
    turns(4);
    judge(&client, false);
    drop(&client);
    turns(4);
    for (unsigned i = 0; i < upstreams; i++) {
        hear(&upstream[i]);
        judge(&upstream[i], true);
        drop(&upstream[i]); // only now: a tunnel whose client had ended its side before lives on until the other side ends, too
    }
    turns(4);
    now += LAST_WORD_MS; // a client that misbehaved over HTTP/2 is not read any more: its end is not seen, the time for our last word runs out
    loop_set_fake_time(m.x.w.loop, now);
    turns(4);
    CHECK(listener_connections(&m.x.w) == 0);
    CHECK(stats_sum(m.x.stats, STAT_HTTP, STR("hcm"), STAT_ID_HTTP_RQ_ACTIVE) == 0);
    finish();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    begin(data[0]);
    data++;
    size--;
    for (int steps = 0; size > 0 && steps < 400; steps++) {
        uint8_t op = *data++;
        size--;
        step(op, &data, &size);
    }
    end();
    return 0;
}
