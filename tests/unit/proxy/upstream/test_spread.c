// SPDX-License-Identifier: Apache-2.0
// What lies around a policy: localities, zones, slow start, bounded loads, hosts that just failed, drops, retry budgets. Draws are seeded; the
// bounds are four standard deviations or more of what is drawn.
#include "tests/unit/proxy/world.h"

#include <stdio.h>

#include "lib/base/clock.h"
#include "lib/base/hash.h"
#include "lib/base/rand.h"

enum { HOSTS = 12 };

static struct world x;
static struct host_table *table;
static struct lb_endpoint_cfg e[HOSTS];
static struct endpoint_policy policy;
static unsigned hits[HOSTS];

static int setup(void **state)
{
    (void)state;
    rand_seed(7);
    world_init(&x);
    table = host_table_new();
    policy = (struct endpoint_policy){ 0 };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    upstream_set_local(&(struct upstream_local){ 0 });
    world_fini(&x);
    host_table_free(table);
    return 0;
}

static void endpoints(size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char text[40];
        snprintf(text, sizeof(text), "10.0.0.%zu:80", i + 1);
        e[i] = world_endpoint(world_ip(text));
    }
}

static struct cluster_worker *put_named(const char *name, struct host_table *t, enum lb_policy lb, size_t first, size_t n,
                                        void (*change)(struct cluster_cfg *c))
{
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct cluster_cfg *c = world_cluster(name, lb);
    c->healthy_panic_threshold = 0;
    c->policy = policy;
    if (change) {
        change(c);
    }
    world_cluster_put(s, c, t, e + first, n);
    snapshot_unref(world_swap(&x, s));
    return upstream_cluster(&x.w, str_c(name));
}

static struct cluster_worker *put(enum lb_policy lb, size_t n, void (*change)(struct cluster_cfg *c))
{
    return put_named("c", table, lb, 0, n, change);
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

static void draw(struct cluster_worker *cw, int n)
{
    static const struct pick none;
    memset(hits, 0, sizeof(hits));
    for (int i = 0; i < n; i++) {
        int k = pick_with(cw, &none);
        assert_true(k >= 0);
        hits[k]++;
    }
}

static struct host *host(struct cluster_worker *cw, size_t i)
{
    return cw->snap->endpoints->v[i].host;
}

// ---- priorities ----

static void overprovisioning_factor_counts(void **state)
{
    (void)state;
    endpoints(4);
    e[0].health = EDS_UNHEALTHY;
    e[2].priority = e[3].priority = 1;
    policy.overprovisioning_pct = 100; // half of priority 0 is gone: so is half of its load
    draw(put(LB_ROUND_ROBIN, 4, NULL), 10000);
    assert_in_range(hits[1], 4800, 5200);
    policy.overprovisioning_pct = 200;
    draw(put(LB_ROUND_ROBIN, 4, NULL), 1000);
    assert_int_equal(hits[1], 1000);
}

static void priorities_by_weight_of_what_is_healthy(void **state)
{
    (void)state;
    endpoints(3);
    e[0].weight = 90;
    e[1].weight = 10;
    e[0].health = EDS_UNHEALTHY;
    e[2].priority = 1;
    draw(put(LB_ROUND_ROBIN, 3, NULL), 10000); // by number: 50 % × 1.4
    assert_in_range(hits[1], 6800, 7200);
    policy.weighted_priority_health = true;
    draw(put(LB_ROUND_ROBIN, 3, NULL), 10000); // by weight: 10 % × 1.4
    assert_in_range(hits[1], 1250, 1550);
}

static void ignore_new(struct cluster_cfg *c)
{
    c->ignore_new_until_checked = true;
    c->healthy_panic_threshold = 50;
}

static void new_hosts_are_ignored_until_they_were_checked(void **state)
{
    (void)state;
    endpoints(4);
    e[3].priority = 1;
    struct cluster_worker *cw = put(LB_ROUND_ROBIN, 4, ignore_new);
    for (size_t i = 1; i < 3; i++) { // two of three are new
        host_set_flag(host(cw, i), HOST_FAILED_ACTIVE_HC, true);
        host_set_flag(host(cw, i), HOST_PENDING_HC, true);
    }
    draw(cw, 1000); // one of one is healthy: no panic, and nothing for the next priority
    assert_int_equal(hits[0], 1000);
    host_set_flag(host(cw, 1), HOST_PENDING_HC, false); // checked, and bad: one of two × 1.4
    draw(cw, 10000);
    assert_in_range(hits[0], 6800, 7200);
}

// ---- localities ----

static void weighted(struct cluster_cfg *c)
{
    c->spread = LOCALITY_WEIGHTED;
}

static void localities(void)
{
    endpoints(6);
    for (size_t i = 0; i < 6; i++) {
        e[i].zone = i < 4 ? STR("a") : STR("b");
        e[i].locality_weight = 50;
    }
}

static void sick_localities_lose_their_share(void **state)
{
    (void)state;
    localities();
    draw(put(LB_ROUND_ROBIN, 6, weighted), 1000);
    assert_in_range(hits[0] + hits[1] + hits[2] + hits[3], 499, 501);
    e[0].health = EDS_UNHEALTHY; // three of four × 1.4: still in full
    draw(put(LB_ROUND_ROBIN, 6, weighted), 1000);
    assert_in_range(hits[1] + hits[2] + hits[3], 499, 501);
    e[1].health = e[2].health = EDS_UNHEALTHY; // one of four × 1.4 = 0.35: 35 to 100
    draw(put(LB_ROUND_ROBIN, 6, weighted), 1350);
    assert_in_range(hits[3], 348, 352);
}

static void localities_without_a_weight_get_nothing(void **state)
{
    (void)state;
    localities();
    e[4].locality_weight = e[5].locality_weight = 0;
    draw(put(LB_ROUND_ROBIN, 6, weighted), 100);
    assert_int_equal(hits[4] + hits[5], 0);
}

// ---- zones ----

static void zones(struct cluster_cfg *c)
{
    c->spread = LOCALITY_ZONE_AWARE;
}

static void zones_half(struct cluster_cfg *c)
{
    zones(c);
    c->zone_routing_percent = 50;
}

// Callers: 10.0.0.9 … .12, hosts: .1 … .8. from: how many of each are in zone "a".
static struct cluster_worker *zone_world(size_t callers_in_a, size_t hosts_in_a, void (*change)(struct cluster_cfg *c))
{
    upstream_set_local(&(struct upstream_local){ STR("me"), STR(""), STR("a"), STR("") });
    endpoints(HOSTS);
    for (size_t i = 0; i < HOSTS; i++) {
        e[i].zone = i < 8 ? i < hosts_in_a ? STR("a") : STR("b") : i - 8 < callers_in_a ? STR("a") : STR("b");
    }
    static struct host_table *callers;
    callers = host_table_new();
    put_named("me", callers, LB_ROUND_ROBIN, 8, 4, NULL);
    host_table_free(callers);
    return put(LB_ROUND_ROBIN, 8, change);
}

static unsigned sum(size_t from, size_t to)
{
    unsigned n = 0;
    for (; from < to; from++) {
        n += hits[from];
    }
    return n;
}

static void the_own_zone_is_preferred(void **state)
{
    (void)state;
    draw(zone_world(2, 4, zones), 1000); // half of the callers, half of the hosts
    assert_int_equal(sum(0, 4), 1000);
    draw(zone_world(2, 6, zones), 1000);
    assert_int_equal(sum(0, 6), 1000);
    draw(zone_world(2, 4, zones_half), 10000); // half of the requests do not ask
    assert_in_range(sum(0, 4), 7300, 7700);
}

static void what_does_not_fit_goes_where_there_is_room(void **state)
{
    (void)state;
    draw(zone_world(3, 3, zones), 10000); // 3/4 of the callers, 3/8 of the hosts: half stays
    assert_in_range(sum(0, 3), 4800, 5200);
    assert_in_range(sum(3, 8), 4800, 5200);
}

static void few_hosts_are_not_split(struct cluster_cfg *c)
{
    zones(c);
    c->zone_min_hosts = 9;
}

static void zones_do_not_matter_without_enough_hosts_or_a_place(void **state)
{
    (void)state;
    draw(zone_world(2, 4, few_hosts_are_not_split), 800);
    assert_int_equal(sum(0, 4), 400);
    struct cluster_worker *cw = zone_world(0, 4, zones); // nobody like us among the callers
    draw(cw, 800);
    assert_int_equal(sum(0, 4), 400);
}

// ---- slow start ----

static void slow(struct cluster_cfg *c)
{
    c->slow_start = (struct slow_start_cfg){ .window_ms = 100000, .aggression = 1, .min_percent = 10 };
}

static void new_hosts_start_slowly(void **state)
{
    (void)state;
    static const enum lb_policy policies[] = { LB_ROUND_ROBIN, LB_LEAST_REQUEST };
    for (size_t p = 0; p < 2; p++) {
        uint64_t now = 10000000;
        loop_set_fake_time(x.w.loop, now);
        endpoints(2);
        struct cluster_worker *cw = put(policies[p], 2, slow);
        atomic_store(&host(cw, 0)->since_ms, now - 1000000);
        atomic_store(&host(cw, 1)->since_ms, now);
        cw = put(policies[p], 2, slow); // built with these times
        draw(cw, 1100);
        assert_in_range(hits[1], 99, 101); // 10 %
        loop_set_fake_time(x.w.loop, now + 50000);
        draw(cw, 1500);
        assert_in_range(hits[1], 495, 505); // half the weight
        loop_set_fake_time(x.w.loop, now + 100000);
        draw(cw, 1000);
        assert_in_range(hits[1], 495, 505);
    }
}

// ---- least request ----

static void no_bias(struct cluster_cfg *c)
{
    c->least_request_bias = 0;
}

static void more_bias(struct cluster_cfg *c)
{
    c->least_request_bias = 2;
}

static void busy(struct cluster_worker *cw, size_t i, int n)
{
    for (int k = 0; k < n; k++) {
        assert_true(upstream_request_begin(cw, host(cw, i), 0));
    }
}

static void idle(struct cluster_worker *cw, size_t i, int n)
{
    for (int k = 0; k < n; k++) {
        upstream_request_done(cw, host(cw, i), 0, 200, false);
    }
}

static void active_requests_weigh_as_configured(void **state)
{
    (void)state;
    static const struct {
        void (*change)(struct cluster_cfg *c);
        unsigned expected; // of 1300, weights 4 and 2, one request active at the first
    } v[] = { { NULL, 650 }, { no_bias, 867 }, { more_bias, 433 } };
    for (size_t i = 0; i < 3; i++) {
        endpoints(2);
        e[0].weight = 4;
        e[1].weight = 2;
        struct cluster_worker *cw = put(LB_LEAST_REQUEST, 2, v[i].change);
        busy(cw, 0, 1);
        draw(cw, 1300);
        assert_in_range(hits[0], v[i].expected - 3, v[i].expected + 3);
        idle(cw, 0, 1);
    }
}

static void scan(struct cluster_cfg *c)
{
    c->least_request_full_scan = true;
}

static void three_choices(struct cluster_cfg *c)
{
    c->least_request_choices = 3;
}

static void choices_are_as_many_as_configured(void **state)
{
    (void)state;
    endpoints(4);
    struct cluster_worker *cw = put(LB_LEAST_REQUEST, 4, NULL);
    busy(cw, 0, 5);
    draw(cw, 16000);
    assert_in_range(hits[0], 880, 1120); // 1/16: both draws fell on it
    idle(cw, 0, 5);
    cw = put(LB_LEAST_REQUEST, 4, three_choices);
    busy(cw, 0, 5);
    draw(cw, 64000);
    assert_in_range(hits[0], 870, 1130); // 1/64
    idle(cw, 0, 5);
    cw = put(LB_LEAST_REQUEST, 4, scan);
    busy(cw, 0, 1);
    draw(cw, 1000);
    assert_int_equal(hits[0], 0);
    idle(cw, 0, 1);
}

// ---- hashing ----

static void bounded(struct cluster_cfg *c)
{
    c->hash_balance_factor = 150;
}

static void overloaded_hosts_pass_requests_on(void **state)
{
    (void)state;
    static const enum lb_policy policies[] = { LB_RING_HASH, LB_MAGLEV };
    for (size_t p = 0; p < 2; p++) {
        endpoints(4);
        struct cluster_worker *cw = put(policies[p], 4, bounded);
        const struct pick k = { .has_hash = true, .hash = hash_xx64("user", 4, 0) };
        int home = pick_with(cw, &k);
        assert_int_equal(pick_with(cw, &k), home);
        busy(cw, (size_t)home, 8);
        int next = pick_with(cw, &k);
        assert_int_not_equal(next, home);
        assert_int_equal(pick_with(cw, &k), next); // always the same one
        idle(cw, (size_t)home, 8);
        assert_int_equal(pick_with(cw, &k), home);
    }
}

static void hash_keys_stand_for_addresses(void **state)
{
    (void)state;
    endpoints(4);
    for (size_t i = 0; i < 4; i++) {
        e[i].hash_key = i % 2 ? STR("odd") : STR("even");
    }
    struct cluster_worker *cw = put(LB_RING_HASH, 4, NULL);
    for (uint64_t i = 0; i < 100; i++) {
        const struct pick k = { .has_hash = true, .hash = hash_xx64(&i, sizeof(i), 0) };
        assert_in_range(pick_with(cw, &k), 0, 1); // 2 and 3 have the same points
    }
}

// ---- hosts that just failed ----

static void hosts_that_refuse_are_passed_over(void **state)
{
    (void)state;
    uint64_t now = 10000000;
    loop_set_fake_time(x.w.loop, now);
    endpoints(3);
    struct cluster_worker *cw = put(LB_ROUND_ROBIN, 3, NULL);
    busy(cw, 1, 1);
    upstream_request_done(cw, host(cw, 1), 0, 0, true);
    draw(cw, 300);
    assert_int_equal(hits[1], 0);
    loop_set_fake_time(x.w.loop, now += 50);
    draw(cw, 300);
    assert_int_equal(hits[1], 100);
    busy(cw, 1, 2);
    upstream_request_done(cw, host(cw, 1), 0, 0, true); // twice in a row: longer; together they count once
    upstream_request_done(cw, host(cw, 1), 0, 0, true);
    loop_set_fake_time(x.w.loop, now += 99);
    draw(cw, 30);
    assert_int_equal(hits[1], 0);
    loop_set_fake_time(x.w.loop, now += 1);
    draw(cw, 30);
    assert_int_equal(hits[1], 10);
    busy(cw, 1, 1);
    idle(cw, 1, 1); // a success: all is forgotten
    busy(cw, 1, 1);
    upstream_request_done(cw, host(cw, 1), 0, 0, true);
    loop_set_fake_time(x.w.loop, now + 50);
    draw(cw, 30);
    assert_int_equal(hits[1], 10);
}

static void the_last_host_is_used_whatever_it_did(void **state)
{
    (void)state;
    endpoints(2);
    struct cluster_worker *cw = put(LB_RANDOM, 2, NULL);
    for (size_t i = 0; i < 2; i++) {
        busy(cw, i, 1);
        upstream_request_done(cw, host(cw, i), 0, 0, true);
    }
    draw(cw, 10);
}

// ---- drops and budgets ----

static void drops_are_counted_out(void **state)
{
    (void)state;
    struct drop_overload v[] = { { STR("throttle"), 250000 }, { STR("test"), 500000 } };
    policy.drops = v;
    policy.drop_count = 2;
    endpoints(1);
    struct cluster_worker *cw = put(LB_ROUND_ROBIN, 1, NULL);
    int dropped = 0, by_test = 0;
    for (int i = 0; i < 10000; i++) {
        struct str category;
        if (upstream_drop(cw, &category)) {
            dropped++;
            by_test += str_is(category, "test");
        }
    }
    assert_in_range(dropped, 6050, 6450); // 1 - 0.75 × 0.5
    assert_in_range(by_test, 3550, 3950);
}

static void own_budget(struct cluster_cfg *c)
{
    c->breakers[0].retry_limit = RETRY_LIMIT_DEFAULT;
    c->breakers[0].max_requests = UINT32_MAX;
}

// Every request fails and wants a retry: how many of n get one, at the given pace.
static int retries_of(struct cluster_worker *cw, int n, uint64_t every_ms, uint64_t *now)
{
    int retries = 0;
    for (int i = 0; i < n; i++) {
        loop_set_fake_time(x.w.loop, *now += every_ms);
        busy(cw, 0, 1);
        upstream_request_done(cw, host(cw, 0), 0, 503, false);
        if (upstream_retry_begin(cw, 0)) {
            retries++;
            busy(cw, 0, 1);
            upstream_request_done(cw, host(cw, 0), 0, 503, false);
            upstream_retry_done(cw, 0);
        }
    }
    return retries;
}

static void the_own_budget_holds_over_time(void **state)
{
    (void)state;
    uint64_t now = 10000000;
    endpoints(1);
    struct cluster_worker *cw = put(LB_ROUND_ROBIN, 1, own_budget);
    assert_int_equal(retries_of(cw, 50, 1000, &now), 50); // one a second: as many as are wanted
    now += 20000;
    assert_in_range(retries_of(cw, 8000, 2, &now), 1500, 1600); // 500 a second: 20 %
    now += 20000;
    assert_int_equal(retries_of(cw, 50, 1000, &now), 50);
}

static void percentage(struct cluster_cfg *c)
{
    c->breakers[0] = (struct breaker_limits){ .max_requests = 1000, .max_pending = 1000, .max_connections = 1000, .max_retries = 0,
                                              .retry_limit = RETRY_LIMIT_BUDGET, .budget_percent = 25, .budget_min = 2 };
}

static void a_budget_follows_active_requests(void **state)
{
    (void)state;
    endpoints(1);
    struct cluster_worker *cw = put(LB_ROUND_ROBIN, 1, percentage);
    assert_true(upstream_retry_begin(cw, 0)); // min_retry_concurrency
    assert_true(upstream_retry_begin(cw, 0));
    assert_false(upstream_retry_begin(cw, 0));
    busy(cw, 0, 16);
    assert_true(upstream_retry_begin(cw, 0));
    assert_true(upstream_retry_begin(cw, 0));
    assert_false(upstream_retry_begin(cw, 0)); // 4 of 16
    idle(cw, 0, 16);
    for (int i = 0; i < 4; i++) {
        upstream_retry_done(cw, 0);
    }
    assert_int_equal(world_stat(&x, STAT_CLUSTER, "c", STAT_ID_CLUSTER_UPSTREAM_RQ_RETRY_OVERFLOW), 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(overprovisioning_factor_counts), T(priorities_by_weight_of_what_is_healthy), T(sick_localities_lose_their_share),
        T(new_hosts_are_ignored_until_they_were_checked), T(localities_without_a_weight_get_nothing), T(the_own_zone_is_preferred), T(what_does_not_fit_goes_where_there_is_room),
        T(zones_do_not_matter_without_enough_hosts_or_a_place), T(new_hosts_start_slowly), T(active_requests_weigh_as_configured),
        T(choices_are_as_many_as_configured), T(overloaded_hosts_pass_requests_on), T(hash_keys_stand_for_addresses),
        T(hosts_that_refuse_are_passed_over), T(the_last_host_is_used_whatever_it_did), T(drops_are_counted_out),
        T(the_own_budget_holds_over_time), T(a_budget_follows_active_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
