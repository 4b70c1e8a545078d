// SPDX-License-Identifier: Apache-2.0
// A worker with an HTTP listener chain by hand: clients on socket pairs, loopback servers that the test plays itself.
#ifndef TESTS_UNIT_PROXY_FILTERS_HTTP_MESH_H
#define TESTS_UNIT_PROXY_FILTERS_HTTP_MESH_H

#include <fcntl.h>
#include <stdio.h>

#include "tests/unit/proxy/world.h"

#include "proxy/access_log/access_log.h"
#include "proxy/access_log/file.h"
#include "proxy/filters/http/filters.h"
#include "proxy/http/manager.h"
#include "proxy/listener/listener.h"
#include "proxy/listener/network_filter.h"
#include "proxy/router/router.h"

struct mesh {
    struct world x;
    struct listener_cfg *l;
    struct http_manager_cfg *hcm; // may be changed before the first connection
    struct router_cfg router_cfg;
    struct route_table *table;
    struct virtual_host *vhost;
    struct route *route;          // the first one: prefix "/" to cluster "up"
    struct cluster_cfg *cluster;
    struct snapshot *old;
    int listen_fd[3];
    struct addr up[3];
    char log_path[64];
};

static void mesh_start(struct downstream *d, const void *cfg)
{
    http_manager_start(d, cfg);
}

static const struct network_filter_ops mesh_filter = { .ext = { .name = "hcm" }, .terminal = true, .start = mesh_start };

static inline void mesh_routes(struct mesh *m)
{
    struct route_table *t = m->table = route_table_new();
    struct arena *a = &t->arena;
    t->name = STR("rt");
    t->vhosts = arena_array(a, struct virtual_host, 1);
    t->vhost_count = 1;
    m->vhost = &t->vhosts[0];
    m->vhost->name = STR("vh");
    m->vhost->domains = arena_array(a, struct str, 1);
    m->vhost->domains[0] = STR("*");
    m->vhost->domain_count = 1;
    m->vhost->routes = arena_array(a, struct route, 4);
    m->vhost->route_count = 1;
    m->route = &m->vhost->routes[0];
    *m->route = (struct route){ .name = STR("r"), .vhost = m->vhost, .path_kind = PATH_PREFIX, .path = STR("/"), .case_sensitive = true,
                                .cluster = STR("up"), .timeout_ms = 0, .idle_timeout_ms = -1, .max_stream_ms = -1,
                                .max_grpc_timeout_ms = -1 };
}

static inline void mesh_init(struct mesh *m)
{
    memset(m, 0, sizeof(*m));
    world_init(&m->x);
    listener_worker_init(&m->x.w);
    http_worker_init(&m->x.w);
    access_log_worker_init(&m->x.w);
    m->l = listener_cfg_new();
    struct arena *a = &m->l->arena;
    m->l->name = m->l->stat_name = STR("l");
    struct filter_chain *fc = m->l->default_chain = arena_new(a, struct filter_chain);
    fc->filters = arena_array(a, struct ext, 1);
    fc->filter_count = 1;
    struct http_manager_cfg *h = m->hcm = arena_new(a, struct http_manager_cfg);
    fc->filters[0] = (struct ext){ .ops = &mesh_filter.ext, .cfg = h, .name = STR("hcm") };
    h->stat_prefix = STR("hcm");
    h->server_name = STR("istio-envoy");
    h->generate_request_id = true;
    h->stream_idle_ms = 300000;
    h->idle_ms = 3600000;
    h->drain_ms = 5000;
    h->chain.filters = arena_array(a, struct ext, 4);
    h->chain.filters[0] = (struct ext){ .ops = &http_filter_router.ext, .cfg = &m->router_cfg, .name = STR("router") };
    h->chain.count = 1;
    mesh_routes(m);
    m->cluster = world_cluster("up", LB_ROUND_ROBIN);
}

// Servers 0 … n-1 listen; those with their bit in dead do not.
static inline void mesh_go(struct mesh *m, int n, unsigned dead)
{
    struct lb_endpoint_cfg v[3];
    for (int i = 0; i < n; i++) {
        m->listen_fd[i] = -1;
        if (dead >> i & 1) {
            m->up[i] = world_dead_port();
        } else {
            m->listen_fd[i] = world_listen(&m->up[i]);
        }
        v[i] = world_endpoint(m->up[i]);
    }
    assert_int_equal(route_table_seal(m->table, NULL), 0);
    m->hcm->inline_routes = m->table;
    struct snapshot *s = snapshot_clone(m->x.w.snap);
    world_cluster_put(s, m->cluster, NULL, v, (size_t)n);
    m->cluster = NULL; // the snapshot's
    snapshot_unref(world_swap(&m->x, s));
}

static inline void mesh_fini(struct mesh *m)
{
    listener_worker_fini(&m->x.w);
    world_turns(&m->x, 2);
    access_log_worker_fini(&m->x.w);
    listener_cfg_unref(m->l);
    for (int i = 0; i < 3; i++) {
        if (m->listen_fd[i] > 0) {
            close(m->listen_fd[i]);
        }
    }
    cluster_cfg_unref(m->cluster); // of a test that did not go
    upstream_worker_fini(&m->x.w);
    loop_turn(m->x.w.loop, 0);
    http_worker_fini(&m->x.w);
    route_table_unref(m->table);
    snapshot_unref(m->x.w.snap);
    loop_turn(m->x.w.loop, 0);
    loop_free(m->x.w.loop);
    stats_store_free(m->x.stats);
    access_log_stop();
    if (m->log_path[0]) {
        unlink(m->log_path);
    }
    buf_cache_free();
}

static inline int mesh_client(struct mesh *m)
{
    int v[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, v), 0);
    struct addr peer = world_ip("10.1.1.1:4000"), local = world_ip("10.2.2.2:80");
    listener_inject(&m->x.w, m->l, v[1], &peer, &local);
    return v[0];
}

// Everything that has come and comes until text is in it (or the end, or nothing for a while). Static.
static inline const char *mesh_until(struct mesh *m, int fd, const char *text)
{
    static char out[65536];
    size_t got = 0;
    out[0] = '\0';
    for (int i = 0; i < 1500 && got + 1 < sizeof(out); i++) {
        ssize_t n = recv(fd, out + got, sizeof(out) - 1 - got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            break;
        }
        got += n > 0 ? (size_t)n : 0;
        out[got] = '\0';
        if (text && strstr(out, text)) {
            break;
        }
        loop_turn(m->x.w.loop, n > 0 ? 0 : 1);
    }
    return out;
}

#define mesh_expect(m, fd, text)                                                                                       \
    do {                                                                                                               \
        const char *got_ = mesh_until(m, fd, text);                                                                    \
        if (!strstr(got_, text)) {                                                                                     \
            fail_msg("no \"%s\" in \"%s\"", text, got_);                                                               \
        }                                                                                                              \
    } while (0)

static inline bool mesh_closed(struct mesh *m, int fd)
{
    char c;
    for (int i = 0; i < 300; i++) {
        ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            return true;
        }
        if (n > 0) {
            return false;
        }
        loop_turn(m->x.w.loop, 1);
    }
    return false;
}

static inline uint64_t mesh_http(struct mesh *m, enum stat_any id)
{
    return world_stat(&m->x, STAT_HTTP, "hcm", id);
}

static inline uint64_t mesh_cluster(struct mesh *m, enum stat_any id)
{
    return world_stat(&m->x, STAT_CLUSTER, "up", id);
}

// An access log whose lines mesh_logged gives; before the first connection.
static inline void mesh_log(struct mesh *m, const char *format)
{
    struct arena *a = &m->l->arena;
    snprintf(m->log_path, sizeof(m->log_path), "/tmp/remora-mesh-XXXXXX");
    close(mkstemp(m->log_path));
    struct access_log_cfg *c = arena_new(a, struct access_log_cfg);
    assert_int_equal(sink_get(str_c(m->log_path), &c->sink, NULL), 0);
    assert_int_equal(format_compile(str_c(format), a, &c->format, NULL), 0);
    m->hcm->access_logs = arena_array(a, struct access_log_cfg *, 1);
    m->hcm->access_logs[0] = c;
    m->hcm->access_log_count = 1;
}

// What was logged so far; once.
static inline const char *mesh_logged(struct mesh *m)
{
    static char out[8192];
    access_log_worker_fini(&m->x.w);
    access_log_stop();
    int fd = open(m->log_path, O_RDONLY);
    ssize_t n = read(fd, out, sizeof(out) - 1);
    close(fd);
    out[n > 0 ? n : 0] = '\0';
    return out;
}

#endif
