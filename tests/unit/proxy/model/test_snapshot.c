// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/model/snapshot.h"

static struct addr ip(const char *text)
{
    struct addr a = { 0 };
    assert_true(addr_parse(str_c(text), &a));
    return a;
}

static struct listener_cfg *listener(const char *name, const char *addr, bool bind)
{
    struct listener_cfg *l = listener_cfg_new();
    l->name = str_c(name);
    l->addresses = arena_new(&l->arena, struct addr);
    l->addresses[0] = ip(addr);
    l->address_count = 1;
    l->bind_to_port = bind;
    return l;
}

static void is_virtual(const struct snapshot *s, const char *dst, const char *want)
{
    struct addr a = ip(dst);
    struct listener_cfg *l = snapshot_virtual_listener(s, &a);
    assert_string_equal(l ? l->name.p : "none", want);
}

static void virtual_listener_by_destination(void **state)
{
    (void)state;
    struct listener_cfg *v[] = {
        listener("virtualOutbound", "0.0.0.0:15001", true), listener("0.0.0.0_9080", "0.0.0.0:9080", false),
        listener("10.0.0.7_9080", "10.0.0.7:9080", false),  listener("::_9090", "[::]:9090", false),
    };
    struct snapshot *s = snapshot_clone(NULL);
    snapshot_set_listeners(s, v, 4);
    is_virtual(s, "10.0.0.7:9080", "10.0.0.7_9080");
    is_virtual(s, "10.0.0.8:9080", "0.0.0.0_9080");
    is_virtual(s, "[::ffff:10.0.0.7]:9080", "10.0.0.7_9080");
    is_virtual(s, "[::ffff:10.0.0.8]:9080", "0.0.0.0_9080");
    is_virtual(s, "[fd00::1]:9090", "::_9090");
    is_virtual(s, "[fd00::1]:9080", "none");
    is_virtual(s, "[::ffff:10.0.0.8]:9090", "::_9090");
    is_virtual(s, "10.0.0.8:15001", "none"); // binds, so it is no target of a hand-over
    is_virtual(s, "10.0.0.8:1", "none");
    for (size_t i = 0; i < 4; i++) {
        listener_cfg_unref(v[i]);
    }
    snapshot_unref(s);
}

static void freed(void *arg)
{
    ++*(int *)arg;
}

static void shared_freed(struct cluster_shared *s)
{
    ++*(int *)(void *)s;
}

// A snapshot keeps what it refers to; a clone shares it; the last reference frees it once.
static void references_are_shared(void **state)
{
    (void)state;
    int listeners_freed = 0, routes_freed = 0, clusters_freed = 0, shared = 0;
    struct listener_cfg *l = listener("l", "0.0.0.0:1", true);
    arena_on_free(&l->arena, freed, &listeners_freed);
    struct route_table *t = route_table_new();
    t->name = STR("r");
    arena_on_free(&t->arena, freed, &routes_freed);
    struct cluster_cfg *cfg = cluster_cfg_new();
    cfg->name = STR("c");
    arena_on_free(&cfg->arena, freed, &clusters_freed);
    struct cluster_snap *cs = cluster_snap_new(cfg, NULL, (struct cluster_shared *)(void *)&shared, shared_freed);
    cluster_cfg_unref(cfg);

    struct snapshot *s1 = snapshot_clone(NULL);
    snapshot_set_listeners(s1, &l, 1);
    snapshot_put_route(s1, t);
    snapshot_put_cluster(s1, cs);
    listener_cfg_unref(l);
    route_table_unref(t);
    cluster_snap_unref(cs);
    struct snapshot *s2 = snapshot_clone(s1);
    assert_int_equal(s2->version, s1->version + 1);
    snapshot_unref(s1);
    assert_ptr_equal(snapshot_cluster(s2, STR("c")), cs);
    assert_ptr_equal(snapshot_route(s2, STR("r")), t);
    assert_int_equal(listeners_freed + routes_freed + clusters_freed, 0);
    snapshot_del_route(s2, STR("r"));
    assert_null(snapshot_route(s2, STR("r")));
    assert_int_equal(routes_freed, 1);
    snapshot_del_cluster(s2, STR("c"));
    assert_int_equal(clusters_freed, 1);
    assert_int_equal(shared, 1);
    snapshot_del_cluster(s2, STR("never"));
    snapshot_unref(s2);
    assert_int_equal(listeners_freed, 1);
}

static void replaced_cluster_is_dropped(void **state)
{
    (void)state;
    struct snapshot *s = snapshot_clone(NULL);
    for (int i = 0; i < 2; i++) {
        struct cluster_cfg *cfg = cluster_cfg_new();
        cfg->name = STR("c");
        struct cluster_snap *cs = cluster_snap_new(cfg, NULL, NULL, NULL);
        snapshot_put_cluster(s, cs);
        cluster_cfg_unref(cfg);
        assert_ptr_equal(snapshot_cluster(s, STR("c")), cs);
        cluster_snap_unref(cs);
    }
    assert_int_equal(s->clusters.count, 1);
    snapshot_unref(s);
}

static void last_reference_is_freed_at_home(void **state)
{
    (void)state;
    int n = 0;
    struct loop *home = loop_new(NULL);
    struct snapshot *s = snapshot_clone(NULL);
    s->home = home;
    arena_on_free(&s->garbage, freed, &n);
    snapshot_unref(snapshot_ref(s));
    assert_int_equal(n, 0);
    snapshot_unref(s);
    assert_int_equal(n, 0);
    loop_turn(home, 0);
    assert_int_equal(n, 1);
    loop_free(home);
}

static void port_predicates(void **state)
{
    (void)state;
    struct port_predicate a = { .kind = PP_RANGE, .start = 80, .end = 81 }, b = { .kind = PP_RANGE, .start = 443, .end = 445 };
    struct port_predicate *ab[] = { &a, &b };
    struct port_predicate any = { .kind = PP_OR, .rules = ab, .rule_count = 2 };
    struct port_predicate *anys[] = { &any };
    struct port_predicate not = { .kind = PP_NOT, .rules = anys, .rule_count = 1 };
    struct port_predicate all = { .kind = PP_AND, .rules = ab, .rule_count = 2 };
    assert_true(port_predicate_match(&any, 80));
    assert_false(port_predicate_match(&any, 81)); // half-open
    assert_true(port_predicate_match(&any, 444));
    assert_false(port_predicate_match(&not, 444));
    assert_true(port_predicate_match(&not, 1));
    assert_false(port_predicate_match(&all, 80));
}

static void host_flags_move_the_epoch(void **state)
{
    (void)state;
    struct addr a = ip("10.0.0.1:80");
    struct host *h = host_new(&a, STR("name"));
    assert_string_equal(h->text, "10.0.0.1:80");
    unsigned e = host_health_epoch();
    assert_false(host_set_flag(h, HOST_FAILED_EDS, false));
    assert_int_equal(host_health_epoch(), e);
    assert_true(host_set_flag(h, HOST_FAILED_OUTLIER, true));
    assert_int_not_equal(host_health_epoch(), e);
    host_unref(h);
    struct endpoint_set *x = endpoint_set_new(), *y = endpoint_set_new();
    assert_int_not_equal(x->generation, y->generation);
    endpoint_set_unref(x);
    endpoint_set_unref(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(virtual_listener_by_destination), cmocka_unit_test(references_are_shared),
        cmocka_unit_test(replaced_cluster_is_dropped),     cmocka_unit_test(last_reference_is_freed_at_home),
        cmocka_unit_test(port_predicates),                 cmocka_unit_test(host_flags_move_the_epoch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
