// SPDX-License-Identifier: Apache-2.0
// Policies and what stands around them: weights, priorities, panic, health, hosts tried before.
#include "tests/unit/proxy/world.h"

#include <stdio.h>

#include "lib/base/hash.h"
#include "lib/base/rand.h"
#include "proxy/upstream/lb/lb.h"

static struct world x;
static struct host_table *table;

static int setup(void **state)
{
    (void)state;
    rand_seed(7);
    world_init(&x);
    table = host_table_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&x);
    host_table_free(table);
    return 0;
}

enum { HOSTS = 8 };
static struct lb_endpoint_cfg e[HOSTS];

static void endpoints(size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char text[40];
        snprintf(text, sizeof(text), "10.0.0.%zu:80", i + 1);
        e[i] = world_endpoint(world_ip(text));
    }
}

static struct cluster_worker *put(enum lb_policy lb, size_t n, double panic)
{
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct cluster_cfg *c = world_cluster("c", lb);
    c->healthy_panic_threshold = panic;
    world_cluster_put(s, c, table, e, n);
    snapshot_unref(world_swap(&x, s));
    return upstream_cluster(&x.w, STR("c"));
}

static int pick_with(struct cluster_worker *cw, const struct pick *p)
{
    struct picked r;
    if (!upstream_pick(cw, p, &r)) {
        return -1;
    }
    int i = r.host->addr.ip[3] - 1;
    picked_release(&r);
    return i;
}

static int pick(struct cluster_worker *cw)
{
    static const struct pick none;
    return pick_with(cw, &none);
}

static unsigned hits[HOSTS];
static void draw(struct cluster_worker *cw, int n)
{
    memset(hits, 0, sizeof(hits));
    for (int i = 0; i < n; i++) {
        int k = pick(cw);
        assert_true(k >= 0);
        hits[k]++;
    }
}

static void round_robin_takes_turns(void **state)
{
    (void)state;
    endpoints(4);
    struct cluster_worker *cw = put(LB_ROUND_ROBIN, 4, 0);
    int first = pick(cw);
    for (int i = 1; i < 12; i++) {
        assert_int_equal(pick(cw), (first + i) % 4);
    }
}

static void weights_are_exact(void **state)
{
    (void)state;
    static const enum lb_policy policies[] = { LB_ROUND_ROBIN, LB_LEAST_REQUEST };
    for (size_t p = 0; p < 2; p++) {
        endpoints(3);
        e[0].weight = 90;
        e[1].weight = 9;
        e[2].weight = 1;
        struct cluster_worker *cw = put(policies[p], 3, 0);
        draw(cw, 1000);
        assert_in_range(hits[0], 899, 901);
        assert_in_range(hits[1], 89, 91);
        assert_in_range(hits[2], 9, 11);
    }
}

static void random_follows_weights(void **state)
{
    (void)state;
    endpoints(2);
    struct cluster_worker *cw = put(LB_RANDOM, 2, 0);
    draw(cw, 20000);
    assert_in_range(hits[0], 9600, 10400);
    e[1].weight = 3;
    cw = put(LB_RANDOM, 2, 0);
    draw(cw, 20000);
    assert_in_range(hits[0], 4700, 5300);
}

static void least_request_avoids_the_busy(void **state)
{
    (void)state;
    endpoints(2);
    struct cluster_worker *cw = put(LB_LEAST_REQUEST, 2, 0);
    static const struct pick none;
    struct picked r;
    assert_true(upstream_pick(cw, &none, &r));
    int busy = r.host->addr.ip[3] - 1;
    for (int i = 0; i < 10; i++) {
        assert_true(upstream_request_begin(cw, r.host, 0));
    }
    draw(cw, 1000);
    assert_in_range(hits[busy], 150, 350); // only when both choices fall on it
    for (int i = 0; i < 10; i++) {
        upstream_request_done(cw, r.host, 0, 200, false);
    }
    picked_release(&r);
    draw(cw, 1000);
    assert_in_range(hits[busy], 400, 600);
}

static void consistent_hashing(void **state)
{
    (void)state;
    static const enum lb_policy policies[] = { LB_RING_HASH, LB_MAGLEV };
    for (size_t p = 0; p < 2; p++) {
        int before[2000], moved = 0;
        endpoints(5);
        struct cluster_worker *cw = put(policies[p], 5, 0);
        memset(hits, 0, sizeof(hits));
        for (uint64_t i = 0; i < 2000; i++) {
            struct pick k = { .has_hash = true, .hash = hash_xx64(&i, sizeof(i), 0) };
            before[i] = pick_with(cw, &k);
            assert_int_equal(pick_with(cw, &k), before[i]);
            hits[before[i]]++;
        }
        for (int i = 0; i < 5; i++) {
            assert_in_range(hits[i], 250, 550);
        }
        cw = put(policies[p], 4, 0); // the last host goes: not much more than its share may move
        for (uint64_t i = 0; i < 2000; i++) {
            struct pick k = { .has_hash = true, .hash = hash_xx64(&i, sizeof(i), 0) };
            moved += before[i] != 4 && pick_with(cw, &k) != before[i];
        }
        assert_in_range(moved, 0, policies[p] == LB_RING_HASH ? 300 : 100); // the ring's points depend on the number of hosts a little
    }
}

static void unhealthy_hosts_are_left_out(void **state)
{
    (void)state;
    endpoints(4);
    e[1].health = EDS_UNHEALTHY;
    e[2].health = EDS_DRAINING;
    struct cluster_worker *cw = put(LB_ROUND_ROBIN, 4, 0);
    draw(cw, 100);
    assert_int_equal(hits[1] + hits[2], 0);
    assert_int_equal(hits[0], 50);
    // back again with the next update
    e[1].health = EDS_HEALTHY;
    draw(put(LB_ROUND_ROBIN, 4, 0), 99);
    assert_int_equal(hits[1], 33);
}

static void all_unhealthy_without_panic_fails(void **state)
{
    (void)state;
    endpoints(2);
    e[0].health = e[1].health = EDS_UNHEALTHY;
    assert_int_equal(pick(put(LB_ROUND_ROBIN, 2, 0)), -1);
    assert_int_equal(world_stat(&x, STAT_CLUSTER, "c", STAT_ID_CLUSTER_UPSTREAM_CX_NONE_HEALTHY), 1);
    assert_int_equal(pick(put(LB_ROUND_ROBIN, 0, 50)), -1);
}

static void panic_uses_all(void **state)
{
    (void)state;
    endpoints(4);
    e[0].health = e[1].health = e[2].health = EDS_UNHEALTHY;
    draw(put(LB_ROUND_ROBIN, 4, 50), 100); // 25 % healthy, under the 50 %
    assert_int_equal(hits[0], 25);
    e[2].health = EDS_HEALTHY;
    draw(put(LB_ROUND_ROBIN, 4, 50), 100); // 50 %: no panic
    assert_int_equal(hits[0], 0);
}

// A priority below the threshold is not in panic while the next ones carry the load.
static void no_panic_while_another_priority_serves(void **state)
{
    (void)state;
    endpoints(8);
    e[0].health = e[1].health = e[2].health = EDS_UNHEALTHY;
    for (int i = 4; i < 8; i++) {
        e[i].priority = 1;
    }
    draw(put(LB_ROUND_ROBIN, 8, 50), 10000); // 25 % × 1.4 stay
    assert_int_equal(hits[0] + hits[1] + hits[2], 0);
    assert_in_range(hits[3], 3200, 3800);
}

static void priorities_overflow_gradually(void **state)
{
    (void)state;
    endpoints(6);
    for (int i = 2; i < 6; i++) {
        e[i].priority = 1;
    }
    struct cluster_worker *cw = put(LB_ROUND_ROBIN, 6, 0);
    draw(cw, 100);
    assert_int_equal(hits[0] + hits[1], 100);
    e[0].health = EDS_UNHEALTHY; // 50 % healthy × 1.4 = 70 % of the load
    draw(put(LB_ROUND_ROBIN, 6, 0), 10000);
    assert_in_range(hits[1], 6700, 7300);
    assert_int_equal(hits[0], 0);
    e[1].health = EDS_UNHEALTHY;
    draw(put(LB_ROUND_ROBIN, 6, 0), 100);
    assert_int_equal(hits[2], 25);
}

static void localities_share_by_weight(void **state)
{
    (void)state;
    endpoints(3);
    e[0].zone = STR("a");
    e[0].locality_weight = 80;
    e[1].zone = e[2].zone = STR("b");
    e[1].locality_weight = e[2].locality_weight = 20;
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct cluster_cfg *c = world_cluster("c", LB_ROUND_ROBIN);
    c->spread = LOCALITY_WEIGHTED;
    world_cluster_put(s, c, table, e, 3);
    snapshot_unref(world_swap(&x, s));
    draw(upstream_cluster(&x.w, STR("c")), 1000);
    assert_in_range(hits[0], 799, 801);
    assert_in_range(hits[1], 99, 101);
}

static void health_changes_are_seen_without_a_snapshot(void **state)
{
    (void)state;
    endpoints(2);
    struct cluster_worker *cw = put(LB_ROUND_ROBIN, 2, 0);
    draw(cw, 10);
    struct host *h = cw->snap->endpoints->v[0].host;
    host_set_flag(h, HOST_FAILED_ACTIVE_HC, true);
    draw(cw, 10);
    assert_int_equal(hits[0], 0);
    host_set_flag(h, HOST_FAILED_ACTIVE_HC, false);
    draw(cw, 10);
    assert_int_equal(hits[0], 5);
}

static void tried_hosts_are_avoided_while_others_are_there(void **state)
{
    (void)state;
    static const enum lb_policy policies[] = { LB_ROUND_ROBIN, LB_LEAST_REQUEST, LB_RANDOM, LB_RING_HASH };
    for (size_t p = 0; p < 4; p++) {
        endpoints(4);
        struct cluster_worker *cw = put(policies[p], 4, 0);
        const struct endpoint_set *set = cw->snap->endpoints;
        struct pick k = { .tried_count = 3, .reselect = 1, .has_hash = true, .hash = 5 };
        for (int i = 0; i < 3; i++) {
            k.tried[i] = set->v[i].host;
        }
        for (int i = 0; i < 50; i++) {
            assert_int_equal(pick_with(cw, &k), 3);
        }
        k.tried[3] = set->v[3].host;
        k.tried_count = 4;
        assert_true(pick_with(cw, &k) >= 0); // better the same again than none
    }
}

static void original_destination(void **state)
{
    (void)state;
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct cluster_cfg *c = world_cluster("c", LB_CLUSTER_PROVIDED);
    c->type = CLUSTER_ORIGINAL_DST;
    world_cluster_put(s, c, NULL, NULL, 0);
    snapshot_unref(world_swap(&x, s));
    struct cluster_worker *cw = upstream_cluster(&x.w, STR("c"));
    struct pick k = { .original_dst = world_ip("10.0.0.3:9080") };
    struct picked a, b;
    assert_true(upstream_pick(cw, &k, &a));
    assert_true(upstream_pick(cw, &k, &b));
    assert_ptr_equal(a.host, b.host);
    assert_string_equal(a.host->text, "10.0.0.3:9080");
    k.original_dst = world_ip("[::ffff:10.0.0.3]:9080");
    picked_release(&b);
    assert_true(upstream_pick(cw, &k, &b));
    assert_ptr_equal(a.host, b.host);
    k.original_dst.family = 0;
    assert_int_equal(pick_with(cw, &k), -1);
    picked_release(&a);
    picked_release(&b);
}

static void every_policy_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(lb_find(LB_MAGLEV)->name, "MAGLEV");
    assert_string_equal(lb_find(LB_LEAST_REQUEST)->name, "LEAST_REQUEST");
    assert_null(lb_find(LB_CLUSTER_PROVIDED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(round_robin_takes_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(weights_are_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(random_follows_weights, setup, teardown),
        cmocka_unit_test_setup_teardown(least_request_avoids_the_busy, setup, teardown),
        cmocka_unit_test_setup_teardown(consistent_hashing, setup, teardown),
        cmocka_unit_test_setup_teardown(unhealthy_hosts_are_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(all_unhealthy_without_panic_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(panic_uses_all, setup, teardown),
        cmocka_unit_test_setup_teardown(no_panic_while_another_priority_serves, setup, teardown),
        cmocka_unit_test_setup_teardown(priorities_overflow_gradually, setup, teardown),
        cmocka_unit_test_setup_teardown(localities_share_by_weight, setup, teardown),
        cmocka_unit_test_setup_teardown(health_changes_are_seen_without_a_snapshot, setup, teardown),
        cmocka_unit_test_setup_teardown(tried_hosts_are_avoided_while_others_are_there, setup, teardown),
        cmocka_unit_test_setup_teardown(original_destination, setup, teardown),
        cmocka_unit_test(every_policy_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
