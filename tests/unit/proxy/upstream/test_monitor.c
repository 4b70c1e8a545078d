// SPDX-License-Identifier: Apache-2.0
// Outlier detection over time, and thresholds of health checks.
#include "tests/unit/proxy/world.h"

#include <stdio.h>
#include <sys/socket.h>

#include "lib/base/rand.h"
#include "proxy/upstream/monitor.h"

enum { HOSTS = 6, START_MS = 1000000 };

static struct world x;
static struct host_table *table;
static struct cluster_monitor *monitor;
static struct cluster_worker *cw;
static struct cluster_cfg *cfg;
static struct endpoint_set *in_use; // ref
static struct lb_endpoint_cfg e[HOSTS];
static int changes, readies;
static uint64_t now_ms;

static int setup(void **state)
{
    (void)state;
    rand_seed(11);
    world_init(&x);
    table = host_table_new();
    now_ms = START_MS;
    changes = readies = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cluster_monitor_free(monitor);
    endpoint_set_unref(in_use);
    in_use = NULL;
    monitor = NULL;
    world_fini(&x);
    host_table_free(table);
    return 0;
}

static void changed(void *arg, struct endpoint_set *set)
{
    (void)arg;
    endpoint_set_unref(in_use);
    in_use = set;
    changes++;
}

static void ready(void *arg)
{
    (void)arg;
    readies++;
}

static void hosts(size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char text[40];
        snprintf(text, sizeof(text), "10.0.0.%zu:80", i + 1);
        e[i] = world_endpoint(world_ip(text));
    }
}

// A cluster of e[0] … e[n-1] in the worker's snapshot, and a monitor over it.
static void start(size_t n, void (*change)(struct cluster_cfg *c))
{
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct cluster_cfg *c = world_cluster("c", LB_ROUND_ROBIN);
    c->healthy_panic_threshold = 0;
    change(c);
    cfg = c;
    struct cluster_snap *cs = world_cluster_put(s, c, table, e, n);
    snapshot_unref(world_swap(&x, s));
    cw = upstream_cluster(&x.w, STR("c"));
    const struct monitor_opts o = { .loop = x.w.loop, .stats = stats_shard_control(x.stats), .shared = cs->shared, .changed = changed, .ready = ready };
    monitor = cluster_monitor_new(&o);
    cluster_monitor_use(monitor, c);
    in_use = cluster_monitor_set(monitor, endpoint_set_build(table, c, e, n));
}

static struct host *host(size_t i)
{
    return cw->snap->endpoints->v[i].host;
}

static unsigned flags(size_t i)
{
    return atomic_load(&host(i)->flags);
}

static void answer(size_t i, int status, int times)
{
    for (int k = 0; k < times; k++) {
        assert_true(upstream_request_begin(cw, host(i), 0));
        upstream_request_done(cw, host(i), 0, status, status == 0);
    }
}

static void pass_ms(uint64_t ms)
{
    now_ms += ms;
    loop_set_fake_time(x.w.loop, now_ms);
    loop_turn(x.w.loop, 0);
}

static uint64_t count(enum stat_any id)
{
    return world_stat(&x, STAT_CLUSTER_OUTLIER, "c", id);
}

static void outlier(struct cluster_cfg *c)
{
    loop_set_fake_time(x.w.loop, now_ms);
    c->outlier = (struct outlier_cfg){ .enabled = true, .consecutive_5xx = 3, .enforcing_5xx = 100, .consecutive_gateway = 2,
                                       .consecutive_local_origin = 4, .enforcing_local_origin = 100, .max_ejection_percent = 50,
                                       .interval_ms = 1000, .base_ejection_ms = 2500, .max_ejection_ms = 6000,
                                       .enforcing_success_rate = 100, .success_rate_min_hosts = 5, .success_rate_volume = 10,
                                       .success_rate_stdev_factor = 1900, .failure_pct_threshold = 85, .enforcing_failure_pct = 100,
                                       .failure_pct_min_hosts = 3, .failure_pct_volume = 10, .enforcing_local_success_rate = 100,
                                       .enforcing_local_failure_pct = 100 };
}

static void consecutive_failures_eject(void **state)
{
    (void)state;
    hosts(2);
    start(2, outlier);
    static const int answers[] = { 500, 503, 200, 500, 500 };
    for (size_t i = 0; i < 5; i++) {
        answer(0, answers[i], 1);
        assert_int_equal(flags(0), 0);
    }
    answer(0, 500, 1);
    assert_int_equal(flags(0), HOST_FAILED_OUTLIER);
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_ENFORCED_5XX), 1);
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_ACTIVE), 1);
    answer(1, 0, 3); // half of the hosts are out already: the other one stays; a failure on the way counts as 503
    assert_int_equal(flags(1), 0);
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_OVERFLOW), 1);
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_DETECTED_GATEWAY), 1); // enforcing 0
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_ENFORCED_GATEWAY), 0);
}

// base × number of ejections, at most max; each interval in good standing takes one off.
static void ejection_time_grows_and_shrinks(void **state)
{
    (void)state;
    hosts(2);
    start(2, outlier);
    static const int out_s[] = { 3, 5, 6, 6 }; // 2.5, 5, 6 (of 7.5), 6: seen at whole seconds
    for (size_t k = 0; k < 4; k++) {
        answer(0, 500, 3);
        for (int s = 0; s < out_s[k]; s++) {
            assert_int_equal(flags(0), HOST_FAILED_OUTLIER);
            pass_ms(1000);
        }
        assert_int_equal(flags(0), 0);
        // The interval that took it back counted as one in good standing; put that back to see the growth.
        atomic_fetch_add(&host(0)->ejections, 1);
    }
    for (int i = 0; i < 6; i++) {
        pass_ms(1000);
    }
    assert_int_equal(atomic_load(&host(0)->ejections), 0);
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_ACTIVE), 0);
}

static void low_success_rate_ejects(void **state)
{
    (void)state;
    hosts(6);
    start(6, outlier);
    for (size_t i = 0; i < 6; i++) {
        for (int k = 0; k < 20; k++) { // never three in a row
            answer(i, i == 3 && k % 2 ? 500 : 200, 1);
        }
    }
    pass_ms(1000);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(flags(i), i == 3 ? HOST_FAILED_OUTLIER : 0);
    }
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_ENFORCED_RATE), 1);
    assert_int_equal(atomic_load(&host(3)->success_rate), 500);
    assert_int_equal(atomic_load(&host(0)->success_rate), 1000);
}

static void too_few_answers_are_not_judged(void **state)
{
    (void)state;
    hosts(6);
    start(6, outlier);
    answer(3, 500, 2);
    answer(0, 200, 9);
    pass_ms(1000);
    assert_int_equal(flags(3), 0);
    assert_int_equal(atomic_load(&host(0)->success_rate), -1);
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_DETECTED_RATE), 0);
}

static void few_hosts_only(struct cluster_cfg *c)
{
    outlier(c);
    c->outlier.consecutive_5xx = 1000;
    c->outlier.consecutive_gateway = 1000;
}

static void failure_percentage_ejects(void **state)
{
    (void)state;
    hosts(3);
    start(3, few_hosts_only);
    answer(0, 200, 20);
    answer(1, 500, 16); // 80 %
    answer(1, 200, 4);
    answer(2, 500, 18); // 90 %
    answer(2, 200, 2);
    pass_ms(1000);
    assert_int_equal(flags(0) | flags(1), 0);
    assert_int_equal(flags(2), HOST_FAILED_OUTLIER);
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_ENFORCED_PCT), 1);
}

static void split(struct cluster_cfg *c)
{
    outlier(c);
    c->outlier.split_local_origin = true;
}

static void local_failures_have_counters_of_their_own(void **state)
{
    (void)state;
    hosts(2);
    start(2, split);
    answer(0, 0, 3);
    assert_int_equal(flags(0), 0);
    answer(0, 500, 1); // reached: the row of failures on the way ends
    answer(0, 0, 3);
    assert_int_equal(flags(0), 0);
    answer(0, 0, 1);
    assert_int_equal(flags(0), HOST_FAILED_OUTLIER);
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_ENFORCED_LOCAL), 1);
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_DETECTED_5XX), 0);
}

static void ten_percent(struct cluster_cfg *c)
{
    outlier(c);
    c->outlier.max_ejection_percent = 10;
    c->outlier.always_eject_one = true;
}

static void one_may_always_go(void **state)
{
    (void)state;
    hosts(3);
    start(3, ten_percent);
    answer(0, 500, 3);
    answer(1, 500, 3);
    assert_int_equal(flags(0), HOST_FAILED_OUTLIER);
    assert_int_equal(flags(1), 0);
}

static void removed_hosts_leave_their_place(void **state)
{
    (void)state;
    hosts(3);
    start(3, outlier);
    answer(0, 500, 3);
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_ACTIVE), 1);
    endpoint_set_unref(in_use);
    in_use = cluster_monitor_set(monitor, endpoint_set_build(table, cfg, e + 1, 2));
    assert_int_equal(count(STAT_ID_CLUSTER_OUTLIER_ACTIVE), 0);
    assert_int_equal(flags(0), 0);
}

// ---- health checks, against sockets of this test ----

static int listen_fd;

static void checks(struct cluster_cfg *c)
{
    c->checks = arena_array(&c->arena, struct health_cfg, 1);
    c->check_count = 1;
    c->checks[0] = (struct health_cfg){ .kind = HEALTH_TCP, .timeout_ms = 20000, .interval_ms = 1, .no_traffic_ms = 1,
                                        .no_traffic_healthy_ms = 1, .unhealthy_ms = 1, .unhealthy_edge_ms = 1, .healthy_edge_ms = 1,
                                        .unhealthy_threshold = 3, .healthy_threshold = 2 };
}

static uint64_t health(enum stat_any id)
{
    return world_stat(&x, STAT_CLUSTER_HEALTH, "c", id);
}

static void hosts_wait_for_their_first_check(void **state)
{
    (void)state;
    listen_fd = world_listen(&e[0].addr);
    e[0] = world_endpoint(e[0].addr);
    e[1] = world_endpoint(world_dead_port());
    start(2, checks);
    assert_false(cluster_monitor_ready(monitor));
    assert_int_equal(flags(0), HOST_FAILED_ACTIVE_HC | HOST_PENDING_HC);
    world_turn_until(&x, cluster_monitor_ready(monitor));
    assert_int_equal(readies, 1);
    assert_int_equal(flags(0), 0); // the first success counts in full
    assert_int_equal(flags(1), HOST_FAILED_ACTIVE_HC);
    assert_int_equal(health(STAT_ID_CLUSTER_HEALTH_HEALTHY), 1);
    close(listen_fd);
    uint64_t failures = health(STAT_ID_CLUSTER_HEALTH_NETWORK_FAILURE);
    world_turn_until(&x, flags(0) == HOST_FAILED_ACTIVE_HC);
    assert_true(health(STAT_ID_CLUSTER_HEALTH_NETWORK_FAILURE) >= failures + 3); // unhealthy_threshold
    assert_int_equal(health(STAT_ID_CLUSTER_HEALTH_HEALTHY), 0);
}

static void a_host_comes_back_after_healthy_threshold(void **state)
{
    (void)state;
    struct addr any = world_ip("127.0.0.1:0");
    struct sockaddr_storage ss;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); // bound, but nobody listens yet
    assert_int_equal(bind(fd, (struct sockaddr *)&ss, addr_to_sockaddr(&any, &ss)), 0);
    assert_int_equal(socket_local(fd, &any), 0);
    e[0] = world_endpoint(any);
    start(1, checks);
    world_turn_until(&x, cluster_monitor_ready(monitor));
    assert_int_equal(flags(0), HOST_FAILED_ACTIVE_HC);
    assert_int_equal(listen(fd, 64), 0);
    world_turn_until(&x, flags(0) == 0);
    assert_int_equal(health(STAT_ID_CLUSTER_HEALTH_SUCCESS), 2);
    close(fd);
}

static void removed_hosts_stay_while_they_are_healthy(void **state)
{
    (void)state;
    listen_fd = world_listen(&e[0].addr);
    e[0] = world_endpoint(e[0].addr);
    int other = world_listen(&e[1].addr);
    e[1] = world_endpoint(e[1].addr);
    start(2, checks);
    world_turn_until(&x, cluster_monitor_ready(monitor));
    endpoint_set_unref(in_use);
    in_use = cluster_monitor_set(monitor, endpoint_set_build(table, cfg, e + 1, 1));
    assert_int_equal(in_use->count, 2);
    assert_int_equal(atomic_load(&in_use->v[1].host->flags), HOST_REMOVED);
    assert_int_equal(changes, 0);
    close(listen_fd);
    world_turn_until(&x, changes == 1);
    assert_int_equal(in_use->count, 1);
    assert_int_equal(in_use->v[0].host->addr.port, e[1].addr.port);
    close(other);
}

static void removal_at_once(struct cluster_cfg *c)
{
    checks(c);
    c->ignore_health_on_removal = true;
}

static void removed_hosts_go_when_health_is_ignored(void **state)
{
    (void)state;
    listen_fd = world_listen(&e[0].addr);
    e[0] = world_endpoint(e[0].addr);
    start(1, removal_at_once);
    world_turn_until(&x, cluster_monitor_ready(monitor));
    endpoint_set_unref(in_use);
    in_use = cluster_monitor_set(monitor, endpoint_set_build(table, cfg, NULL, 0));
    assert_int_equal(in_use->count, 0);
    close(listen_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(consecutive_failures_eject, setup, teardown),
        cmocka_unit_test_setup_teardown(ejection_time_grows_and_shrinks, setup, teardown),
        cmocka_unit_test_setup_teardown(low_success_rate_ejects, setup, teardown),
        cmocka_unit_test_setup_teardown(too_few_answers_are_not_judged, setup, teardown),
        cmocka_unit_test_setup_teardown(failure_percentage_ejects, setup, teardown),
        cmocka_unit_test_setup_teardown(local_failures_have_counters_of_their_own, setup, teardown),
        cmocka_unit_test_setup_teardown(one_may_always_go, setup, teardown),
        cmocka_unit_test_setup_teardown(removed_hosts_leave_their_place, setup, teardown),
        cmocka_unit_test_setup_teardown(hosts_wait_for_their_first_check, setup, teardown),
        cmocka_unit_test_setup_teardown(a_host_comes_back_after_healthy_threshold, setup, teardown),
        cmocka_unit_test_setup_teardown(removed_hosts_stay_while_they_are_healthy, setup, teardown),
        cmocka_unit_test_setup_teardown(removed_hosts_go_when_health_is_ignored, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
