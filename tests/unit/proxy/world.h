// SPDX-License-Identifier: Apache-2.0
// A worker by hand for tests: loop, statistics, snapshot; clusters of loopback servers; sockets that are looked at between turns.
#ifndef TESTS_UNIT_PROXY_WORLD_H
#define TESTS_UNIT_PROXY_WORLD_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/buf.h"
#include "lib/event/signal.h"
#include "lib/net/socket.h"
#include "proxy/core/worker.h"
#include "proxy/model/snapshot.h"
#include "proxy/stats/stats.h"
#ifndef WORLD_WITHOUT_UPSTREAM // defined by tests of folders beside proxy/upstream
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/discovery.h"
#endif

struct world {
    struct worker w;
    struct stats_store *stats;
};

static inline struct addr world_ip(const char *text)
{
    struct addr a = { 0 };
    assert_true(addr_parse(str_c(text), &a));
    return a;
}

static inline void world_init(struct world *x)
{
    signal_block_all();
    *x = (struct world){ 0 };
    x->stats = stats_store_new(2);
    x->w.loop = loop_new(NULL);
    x->w.stats = stats_shard_get(x->stats, 0);
    x->w.snap = snapshot_clone(NULL);
#ifndef WORLD_WITHOUT_UPSTREAM
    upstream_worker_init(&x->w);
#endif
}

// After the listener's fini, where there is one.
static inline void world_fini(struct world *x)
{
#ifndef WORLD_WITHOUT_UPSTREAM
    upstream_worker_fini(&x->w);
#endif
    snapshot_unref(x->w.snap);
    loop_turn(x->w.loop, 0);
    loop_free(x->w.loop);
    stats_store_free(x->stats);
    buf_cache_free();
}

// Makes s the worker's snapshot; returns the former one, which the caller drops after the subsystems have followed.
static inline struct snapshot *world_swap(struct world *x, struct snapshot *s)
{
    struct snapshot *old = x->w.snap;
    x->w.snap = s;
#ifndef WORLD_WITHOUT_UPSTREAM
    upstream_on_snapshot(&x->w, old);
#endif
    return old;
}

#define world_turn_until(x, cond)                                                                                      \
    do {                                                                                                               \
        for (int turns_ = 0; turns_ < 3000 && !(cond); turns_++) {                                                     \
            loop_turn((x)->w.loop, 1);                                                                                 \
        }                                                                                                              \
        assert_true(cond);                                                                                             \
    } while (0)

static inline void world_turns(struct world *x, int n)
{
    for (int i = 0; i < n; i++) {
        loop_turn(x->w.loop, 1);
    }
}

static inline uint64_t world_stat(struct world *x, enum stat_scope scope, const char *name, enum stat_any id)
{
    return stats_sum(x->stats, scope, str_c(name), id);
}

#ifndef WORLD_WITHOUT_UPSTREAM
// A cluster whose endpoints are the n addresses, priority 0, weight 1. The caller may change *cfg before world_cluster_put.
static inline struct cluster_cfg *world_cluster(const char *name, enum lb_policy lb)
{
    struct cluster_cfg *c = cluster_cfg_new();
    c->name = c->stat_name = arena_str(&c->arena, str_c(name));
    c->lb = lb;
    return c;
}

// Puts it into the snapshot with the endpoints; takes the reference on cfg. table may be NULL: hosts of their own.
static inline struct cluster_snap *world_cluster_put(struct snapshot *s, struct cluster_cfg *cfg, struct host_table *table,
                                                     const struct lb_endpoint_cfg *v, size_t n)
{
    struct host_table *t = table ? table : host_table_new();
    struct endpoint_set *set = endpoint_set_build(t, cfg, v, n);
    struct cluster_snap *cs = cluster_snap_new(cfg, set, cluster_shared_new(), cluster_shared_unref);
    snapshot_put_cluster(s, cs);
    cluster_cfg_unref(cfg);
    endpoint_set_unref(set);
    cluster_snap_unref(cs); // the snapshot's reference stays
    if (!table) {
        host_table_free(t);
    }
    return cs;
}

static inline struct lb_endpoint_cfg world_endpoint(struct addr a)
{
    return (struct lb_endpoint_cfg){ .addr = a, .weight = 1, .locality_weight = 1 };
}

#endif

// ---- sockets ----

// A server on a free loopback port.
static inline int world_listen(struct addr *ret)
{
    struct addr any = world_ip("127.0.0.1:0");
    struct socket_listen_opts o = { 0 };
    int fd = socket_listen(&any, &o, NULL);
    assert_true(fd >= 0);
    assert_int_equal(socket_local(fd, ret), 0);
    return fd;
}

// A port where nobody listens.
static inline struct addr world_dead_port(void)
{
    struct addr a;
    close(world_listen(&a));
    return a;
}

static inline int world_accept(struct world *x, int listen_fd)
{
    struct addr peer;
    for (int i = 0; i < 3000; i++) {
        int fd = socket_accept(listen_fd, &peer);
        if (fd >= 0) {
            return fd;
        }
        loop_turn(x->w.loop, 1);
    }
    fail_msg("nobody connected");
    return -1;
}

// Reads until want bytes or the end came; returns the count.
static inline size_t world_read(struct world *x, int fd, char *p, size_t want)
{
    size_t got = 0;
    for (int i = 0; i < 3000 && got < want; i++) {
        ssize_t n = recv(fd, p + got, want - got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            break;
        }
        got += n > 0 ? (size_t)n : 0;
        loop_turn(x->w.loop, n > 0 ? 0 : 1);
    }
    return got;
}

// "" = orderly end, "reset", "open", or what came (at most 255 bytes).
static inline const char *world_peek(struct world *x, int fd)
{
    static char out[256];
    for (int i = 0; i < 500; i++) {
        ssize_t n = recv(fd, out, sizeof(out) - 1, MSG_DONTWAIT);
        if (n >= 0) {
            out[n] = '\0';
            return out;
        }
        if (errno != EAGAIN) {
            return "reset";
        }
        loop_turn(x->w.loop, 1);
    }
    return "open";
}

static inline void world_send(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

#endif
