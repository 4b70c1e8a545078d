// SPDX-License-Identifier: Apache-2.0
// What all workers share is exact: limits, budgets and ejections with several threads at once. (Also run with SAN=tsan.)
#include "tests/unit/proxy/world.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "proxy/upstream/internal.h"

enum { THREADS = 4, ROUNDS = 3000, LIMIT = 3, HOSTS = 8 };

struct task {
    struct world x;
    struct cluster_worker *cw;
    void (*fn)(struct task *t);
    pthread_t thread;
    uint64_t granted, refused;
};

static struct task tasks[THREADS];
static struct stats_store *stats;
static struct snapshot *snapshot;
static atomic_uint inside, too_many, peak;

static void build(void (*change)(struct cluster_cfg *c), size_t hosts)
{
    struct lb_endpoint_cfg e[HOSTS];
    for (size_t i = 0; i < hosts; i++) {
        char text[40];
        snprintf(text, sizeof(text), "10.0.0.%zu:80", i + 1);
        e[i] = world_endpoint(world_ip(text));
    }
    struct cluster_cfg *c = world_cluster("c", LB_ROUND_ROBIN);
    change(c);
    snapshot = snapshot_clone(NULL);
    world_cluster_put(snapshot, c, NULL, e, hosts);
    stats = stats_store_new(THREADS + 1);
}

static void *run_one(void *arg)
{
    struct task *t = arg;
    struct worker *w = &t->x.w;
    w->loop = loop_new(NULL);
    w->index = (int)(t - tasks);
    w->stats = stats_shard_get(stats, w->index);
    w->snap = snapshot_ref(snapshot);
    upstream_worker_init(w);
    t->cw = upstream_cluster(w, STR("c"));
    t->fn(t);
    upstream_worker_fini(w);
    snapshot_unref(w->snap);
    loop_free(w->loop);
    buf_cache_free();
    return NULL;
}

static void run(void (*change)(struct cluster_cfg *c), size_t hosts, void (*fn)(struct task *t))
{
    signal_block_all();
    build(change, hosts);
    inside = too_many = peak = 0;
    for (int i = 0; i < THREADS; i++) {
        tasks[i] = (struct task){ .fn = fn };
        assert_int_equal(pthread_create(&tasks[i].thread, NULL, run_one, &tasks[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(tasks[i].thread, NULL);
    }
}

static void tidy(void)
{
    snapshot_unref(snapshot);
    stats_store_free(stats);
}

static uint64_t granted(void)
{
    uint64_t n = 0;
    for (int i = 0; i < THREADS; i++) {
        n += tasks[i].granted;
    }
    return n;
}

static void enter(void)
{
    unsigned n = atomic_fetch_add(&inside, 1) + 1, p = atomic_load(&peak);
    while (n > p && !atomic_compare_exchange_weak(&peak, &p, n)) {
    }
    if (n > LIMIT) {
        atomic_fetch_add(&too_many, 1);
    }
    sched_yield();
    atomic_fetch_sub(&inside, 1);
}

static void limits(struct cluster_cfg *c)
{
    c->breakers[0].max_requests = c->breakers[0].max_retries = LIMIT;
}

static void take_requests(struct task *t)
{
    struct host *h = t->cw->snap->endpoints->v[0].host;
    for (int i = 0; i < ROUNDS; i++) {
        if (upstream_request_begin(t->cw, h, 0)) {
            enter();
            t->granted++;
            upstream_request_done(t->cw, h, 0, 200, false);
        } else {
            t->refused++;
        }
    }
}

static void requests_never_exceed_their_limit(void **state)
{
    (void)state;
    run(limits, 1, take_requests);
    assert_int_equal(too_many, 0);
    assert_true(granted() > 0);
    const struct cluster_snap *cs = snapshot_cluster(snapshot, STR("c"));
    assert_int_equal(atomic_load(&cs->shared->requests[0]), 0);
    assert_int_equal(atomic_load(&cs->endpoints->v[0].host->rq_active), 0);
    tidy();
}

// By the cluster's limit, and by the host's own (per_host_thresholds).
static void limit_connections(struct cluster_cfg *c)
{
    c->breakers[0].max_connections = 1;
}
static void limit_connections_of_a_host(struct cluster_cfg *c)
{
    c->host_connections[0] = 1;
}

static void take_connections(struct task *t)
{
    struct host *h = t->cw->snap->endpoints->v[0].host;
    for (int i = 0; i < 50 * ROUNDS; i++) {
        if (upstream_cx_take(t->cw, t->cw->snap->cfg, h, 0, false)) {
            if (atomic_fetch_add(&inside, 1)) {
                atomic_fetch_add(&too_many, 1);
            }
            t->granted++;
            atomic_fetch_sub(&inside, 1);
            upstream_cx_give(t->cw, h, 0);
        }
    }
}

static void connections_never_exceed_their_limits(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        run(i ? limit_connections_of_a_host : limit_connections, 1, take_connections);
        assert_int_equal(too_many, 0);
        assert_true(granted() > 0);
        const struct cluster_snap *cs = snapshot_cluster(snapshot, STR("c"));
        assert_int_equal(atomic_load(&cs->shared->connections[0]), 0);
        assert_int_equal(atomic_load(&cs->endpoints->v[0].host->cx_active), 0);
        tidy();
    }
}

static void take_retries(struct task *t)
{
    for (int i = 0; i < ROUNDS; i++) {
        if (upstream_retry_begin(t->cw, 0)) {
            enter();
            t->granted++;
            upstream_retry_done(t->cw, 0);
        }
    }
}

static void retries_never_exceed_their_limit(void **state)
{
    (void)state;
    run(limits, 1, take_retries);
    assert_int_equal(too_many, 0);
    assert_true(granted() > 0);
    tidy();
}

static void budget(struct cluster_cfg *c)
{
    c->breakers[0] = (struct breaker_limits){ .max_requests = UINT32_MAX, .retry_limit = RETRY_LIMIT_BUDGET, .budget_percent = 10,
                                              .budget_min = 1, .budget_interval_ms = 3600000 };
}

static void fail_and_retry(struct task *t)
{
    struct host *h = t->cw->snap->endpoints->v[0].host;
    for (int i = 0; i < ROUNDS; i++) {
        (void)!upstream_request_begin(t->cw, h, 0);
        upstream_request_done(t->cw, h, 0, 503, false);
        if (upstream_retry_begin(t->cw, 0)) {
            t->granted++;
            (void)!upstream_request_begin(t->cw, h, 0);
            upstream_request_done(t->cw, h, 0, 503, false);
            upstream_retry_done(t->cw, 0);
        }
    }
}

static void a_budget_over_time_is_one_for_all_workers(void **state)
{
    (void)state;
    run(budget, 1, fail_and_retry);
    uint64_t first = THREADS * ROUNDS;
    assert_true(granted() <= first / 10);       // never more
    assert_true(granted() >= first / 10 * 4 / 5); // and not much less: what waits in batches, or met another's hand, is refused
    tidy();
}

static void outliers(struct cluster_cfg *c)
{
    c->breakers[0].max_requests = UINT32_MAX;
    c->outlier = (struct outlier_cfg){ .enabled = true, .consecutive_5xx = 5, .enforcing_5xx = 100, .max_ejection_percent = 50,
                                       .interval_ms = 10000, .base_ejection_ms = 30000, .max_ejection_ms = 300000 };
}

static void fail_everywhere(struct task *t)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct host *h = t->cw->snap->endpoints->v[(size_t)i % HOSTS].host;
        (void)!upstream_request_begin(t->cw, h, 0);
        upstream_request_done(t->cw, h, 0, 500, false);
    }
}

static void not_one_host_too_many_is_ejected(void **state)
{
    (void)state;
    run(outliers, HOSTS, fail_everywhere);
    unsigned out = 0;
    const struct endpoint_set *set = snapshot_cluster(snapshot, STR("c"))->endpoints;
    for (size_t i = 0; i < HOSTS; i++) {
        out += atomic_load(&set->v[i].host->flags) == HOST_FAILED_OUTLIER;
    }
    assert_int_equal(out, HOSTS / 2);
    assert_int_equal(stats_sum(stats, STAT_CLUSTER_OUTLIER, STR("c"), STAT_ID_CLUSTER_OUTLIER_ENFORCED_TOTAL), HOSTS / 2);
    assert_int_equal(stats_sum(stats, STAT_CLUSTER_OUTLIER, STR("c"), STAT_ID_CLUSTER_OUTLIER_ACTIVE), HOSTS / 2);
    tidy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_never_exceed_their_limit),
        cmocka_unit_test(connections_never_exceed_their_limits),
        cmocka_unit_test(retries_never_exceed_their_limit),
        cmocka_unit_test(a_budget_over_time_is_one_for_all_workers),
        cmocka_unit_test(not_one_host_too_many_is_ejected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
