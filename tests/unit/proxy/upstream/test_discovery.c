// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/proxy/world.h"

#include <stdio.h>

static struct host_table *table;
static struct cluster_cfg *cfg;

static int setup(void **state)
{
    (void)state;
    table = host_table_new();
    cfg = cluster_cfg_new();
    cfg->name = STR("c");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    host_table_free(table);
    cluster_cfg_unref(cfg);
    return 0;
}

static struct lb_endpoint_cfg endpoint(const char *addr)
{
    return world_endpoint(world_ip(addr));
}

static void hosts_keep_their_identity(void **state)
{
    (void)state;
    struct lb_endpoint_cfg v[] = { endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80"), endpoint("10.0.0.1:81") };
    struct endpoint_set *a = endpoint_set_build(table, cfg, v, 3);
    assert_int_equal(a->count, 3);
    struct endpoint_set *b = endpoint_set_build(table, cfg, v + 1, 2);
    assert_ptr_equal(a->v[1].host, b->v[0].host);
    assert_ptr_equal(a->v[2].host, b->v[1].host);
    assert_ptr_not_equal(a->v[0].host, a->v[2].host);
    assert_int_not_equal(a->generation, b->generation);
    endpoint_set_unref(a);
    endpoint_set_unref(b);
}

static void duplicates_and_names_are_left_out(void **state)
{
    (void)state;
    struct lb_endpoint_cfg v[] = { endpoint("10.0.0.1:80"), { .host_name = STR("x"), .port = 80 }, endpoint("10.0.0.1:80") };
    v[2].weight = 9;
    struct endpoint_set *s = endpoint_set_build(table, cfg, v, 3);
    assert_int_equal(s->count, 1);
    assert_int_equal(s->total_weight, 1);
    endpoint_set_unref(s);
}

static void transport_is_chosen_by_metadata(void **state)
{
    (void)state;
    static struct str_pair istio[] = { { STR_INIT("tlsMode"), STR_INIT("istio") } };
    static struct str_pair other[] = { { STR_INIT("tlsMode"), STR_INIT("none") }, { STR_INIT("x"), STR_INIT("y") } };
    struct transport_cfg t[] = { { .match = istio, .match_count = 1 }, { .match_count = 0 } };
    cfg->transports = t;
    cfg->transport_count = 2;
    struct lb_endpoint_cfg v[] = { endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80"), endpoint("10.0.0.3:80") };
    v[0].metadata = istio;
    v[0].metadata_count = 1;
    v[1].metadata = other;
    v[1].metadata_count = 2;
    struct endpoint_set *s = endpoint_set_build(table, cfg, v, 3);
    assert_int_equal(s->v[0].transport, 0);
    assert_int_equal(s->v[1].transport, 1);
    assert_int_equal(s->v[2].transport, 1);
    endpoint_set_unref(s);
    cfg->transport_count = 1; // without the catch-all the default is left
    s = endpoint_set_build(table, cfg, v, 3);
    assert_int_equal(s->v[1].transport, UINT16_MAX);
    endpoint_set_unref(s);
}

static void health_of_eds_is_a_flag(void **state)
{
    (void)state;
    struct lb_endpoint_cfg v[] = { endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80") };
    v[0].health = EDS_UNHEALTHY;
    v[1].health = EDS_DEGRADED;
    v[1].weight = 0; // counts as 1
    struct endpoint_set *s = endpoint_set_build(table, cfg, v, 2);
    assert_int_equal(atomic_load(&s->v[0].host->flags), HOST_FAILED_EDS);
    assert_int_equal(atomic_load(&s->v[1].host->flags), 0);
    assert_int_equal(s->v[1].weight, 1);
    assert_true(s->equal_weights);
    endpoint_set_unref(s);
    v[0].health = EDS_HEALTHY;
    s = endpoint_set_build(table, cfg, v, 2);
    assert_int_equal(atomic_load(&s->v[0].host->flags), 0);
    endpoint_set_unref(s);
}

static void texts_are_copied_and_shared(void **state)
{
    (void)state;
    char region[] = "r1";
    struct lb_endpoint_cfg v[] = { endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80") };
    v[0].region = v[1].region = str_c(region);
    struct endpoint_set *s = endpoint_set_build(table, cfg, v, 2);
    region[0] = 'x';
    assert_true(str_is(s->v[0].region, "r1"));
    assert_ptr_equal(s->v[0].region.p, s->v[1].region.p);
    endpoint_set_unref(s);
}

// {envoy.lb: {canary: true}} and the same with false, as on the wire.
#define CANARY(flag) STR("\x0a\x1a\x0a\x08" "envoy.lb" "\x12\x0e\x0a\x0c\x0a\x06" "canary" "\x12\x02\x20" flag)

static void metadata_is_kept_once(void **state)
{
    (void)state;
    char twin[64];
    struct str yes = CANARY("\x01"), no = CANARY("\x00");
    memcpy(twin, yes.p, yes.n);
    struct lb_endpoint_cfg v[] = { endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80"), endpoint("10.0.0.3:80"), endpoint("10.0.0.4:80") };
    v[0].all_metadata = yes;
    v[1].all_metadata = no;
    v[2].all_metadata = str_n(twin, yes.n);
    struct endpoint_set *s = endpoint_set_build(table, cfg, v, 4), *copy = endpoint_set_new();
    memset(twin, 0, sizeof(twin));
    endpoint_set_copy(copy, s, NULL);
    for (struct endpoint_set *x = s; x; x = x == s ? copy : NULL) {
        assert_true(str_eq(x->v[0].metadata, yes) && str_eq(x->v[1].metadata, no));
        assert_ptr_equal(x->v[0].metadata.p, x->v[2].metadata.p);
        assert_true(x->v[0].canary && !x->v[1].canary && x->v[2].canary && !x->v[3].canary);
        assert_int_equal(x->v[3].metadata.n, 0);
    }
    assert_ptr_not_equal(s->v[0].metadata.p, copy->v[0].metadata.p);
    endpoint_set_unref(s);
    endpoint_set_unref(copy);
}

static void forgotten_hosts_are_freed(void **state)
{
    (void)state;
    struct endpoint_set *s = NULL;
    struct host *kept = NULL;
    for (int i = 0; i < 200; i++) {
        char text[32];
        snprintf(text, sizeof(text), "10.0.1.%d:80", i);
        struct lb_endpoint_cfg v = endpoint(text);
        struct endpoint_set *next = endpoint_set_build(table, cfg, &v, 1);
        if (i == 0) {
            kept = host_ref(next->v[0].host);
        }
        endpoint_set_unref(s);
        s = next;
    }
    assert_int_equal(atomic_load(&kept->refs.n), 2); // ours and the table's: it is in use, so it stays known
    host_unref(kept);
    endpoint_set_unref(s);
}

// ---- DNS clusters ----

static struct endpoint_set *got;
static int changes;

static void changed(void *arg, struct endpoint_set *set)
{
    (void)arg;
    endpoint_set_unref(got);
    got = set;
    changes++;
}

static void dns_cluster_resolves(void **state)
{
    (void)state;
    struct loop *l = loop_new(NULL);
    struct dns *d = dns_new(l, NULL);
    assert_non_null(d);
    // Names that need no server: literals.
    struct lb_endpoint_cfg v[] = {
        { .host_name = STR("127.0.0.1"), .port = 81, .weight = 2 },
        endpoint("10.0.0.9:82"),
        { .host_name = STR("127.0.0.2"), .port = 83, .weight = 1 },
    };
    cfg->endpoints = v;
    cfg->endpoint_count = 3;
    cfg->type = CLUSTER_STRICT_DNS;
    cfg->dns_lookup = DNS_LOOKUP_V4;
    struct dns_cluster *c = dns_cluster_new(l, d, table, cfg, changed, NULL);
    got = NULL;
    changes = 0;
    for (int i = 0; i < 2000 && !changes; i++) {
        loop_turn(l, 1);
    }
    assert_int_equal(changes, 1); // once, when all names were answered
    assert_int_equal(got->count, 3);
    assert_string_equal(got->v[0].host->text, "127.0.0.1:81");
    assert_int_equal(got->v[0].weight, 2);
    assert_string_equal(got->v[1].host->text, "10.0.0.9:82");
    assert_string_equal(got->v[2].host->text, "127.0.0.2:83");
    endpoint_set_unref(got);
    dns_cluster_free(c);
    dns_free(d);
    loop_free(l);
}

static void dns_cluster_without_names_is_told_later(void **state)
{
    (void)state;
    struct loop *l = loop_new(NULL);
    got = NULL;
    changes = 0;
    struct dns_cluster *c = dns_cluster_new(l, NULL, table, cfg, changed, NULL);
    assert_int_equal(changes, 0);
    loop_turn(l, 0);
    assert_int_equal(changes, 1);
    assert_int_equal(got->count, 0);
    endpoint_set_unref(got);
    dns_cluster_free(c);
    loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hosts_keep_their_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(duplicates_and_names_are_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(transport_is_chosen_by_metadata, setup, teardown),
        cmocka_unit_test_setup_teardown(health_of_eds_is_a_flag, setup, teardown),
        cmocka_unit_test_setup_teardown(texts_are_copied_and_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata_is_kept_once, setup, teardown),
        cmocka_unit_test_setup_teardown(forgotten_hosts_are_freed, setup, teardown),
        cmocka_unit_test_setup_teardown(dns_cluster_resolves, setup, teardown),
        cmocka_unit_test_setup_teardown(dns_cluster_without_names_is_told_later, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
