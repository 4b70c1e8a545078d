// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xds-client/helpers.h"
#include "xds-client/backoff.h"
#include "xds-client/subscription.h"

static struct xds_sub sub;
static struct arena arena;

static int set_up(void **state)
{
    (void)state;
    sub = (struct xds_sub){ 0 };
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    xds_sub_fini(&sub);
    arena_fini(&arena);
    return 0;
}

static size_t expire(uint64_t now, struct str **names)
{
    return xds_sub_expire(&sub, now, &arena, names);
}

static void changes_are_noticed(void **state)
{
    (void)state;
    struct str ab[] = { STR("a"), STR("b"), STR("a") }, ba[] = { STR("b"), STR("a") };
    assert_true(xds_sub_set(&sub, false, ab, 3, 0));
    assert_int_equal(sub.names.count, 2);
    assert_false(xds_sub_set(&sub, false, ba, 2, 0)); // order does not matter
    assert_true(xds_sub_set(&sub, false, ba, 1, 0));
    assert_false(xds_sub_wants(&sub, STR("a")));
    assert_true(xds_sub_set(&sub, false, NULL, 0, 0));
    assert_false(xds_sub_wants(&sub, STR("b")));
    assert_false(xds_sub_set(&sub, false, NULL, 0, 0));
}

static void wildcard_wants_all(void **state)
{
    (void)state;
    assert_false(xds_sub_wants(&sub, STR("x")));
    assert_true(xds_sub_set(&sub, true, NULL, 0, 0));
    assert_true(xds_sub_wants(&sub, STR("x")));
    assert_false(xds_sub_waits_for(&sub, STR("x")));
}

static void names_no_server_takes_are_left_out(void **state)
{
    (void)state;
    struct str bad[] = { STR(""), STR("\xff"), STR("a\0b"), STR("ok") };
    xds_sub_set(&sub, false, bad, 4, 0);
    assert_int_equal(sub.names.count, 1);
    assert_true(xds_sub_wants(&sub, STR("ok")));
}

static void deadline_is_told_once_and_kept_over_changes(void **state)
{
    (void)state;
    struct str a[] = { STR("a"), STR("b") }, *names = NULL;
    xds_sub_set_timeout(&sub, 100, 0);
    xds_sub_set(&sub, false, a, 1, 1000);
    assert_int_equal(xds_sub_deadline(&sub), 1100);
    xds_sub_set(&sub, false, a, 2, 1050); // a keeps its own
    assert_int_equal(xds_sub_deadline(&sub), 1100);
    assert_int_equal(expire(1099, &names), 0);
    assert_int_equal(expire(1100, &names), 1);
    assert_string_equal(names[0].p, "a");
    assert_int_equal(xds_sub_deadline(&sub), 1150);
    xds_sub_answer(&sub, STR("b"));
    assert_int_equal(xds_sub_deadline(&sub), 0);
    assert_int_equal(expire(9999, &names), 0);
}

static void wildcard_deadline_has_no_name(void **state)
{
    (void)state;
    struct str *names = NULL;
    xds_sub_set(&sub, true, NULL, 0, 10);
    xds_sub_set_timeout(&sub, 5, 20);
    assert_int_equal(expire(25, &names), 1);
    assert_int_equal(names[0].n, 0);
    assert_int_equal(expire(26, &names), 0);
}

static void timeout_zero_waits_for_ever(void **state)
{
    (void)state;
    struct str a[] = { STR("a") };
    xds_sub_set_timeout(&sub, 100, 0);
    xds_sub_set(&sub, false, a, 1, 0);
    xds_sub_set_timeout(&sub, 0, 0);
    assert_int_equal(xds_sub_deadline(&sub), 0);
}

static void backoff_doubles_up_to_its_limit(void **state)
{
    (void)state;
    struct xds_backoff b;
    xds_backoff_init(&b, 0, 0);
    assert_int_equal(xds_backoff_next(&b, 0.5), 250);
    assert_int_equal(xds_backoff_next(&b, 0.5), 500);
    for (int i = 0; i < 70; i++) {
        assert_in_range(xds_backoff_next(&b, 0.999), 0, 30000);
    }
    assert_int_equal(xds_backoff_next(&b, 0.5), 15000);
    assert_int_equal(xds_backoff_next(&b, 0), 0); // full jitter
    xds_backoff_reset(&b);
    assert_int_equal(xds_backoff_next(&b, 0.5), 250);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(changes_are_noticed),
        T(wildcard_wants_all),
        T(names_no_server_takes_are_left_out),
        T(deadline_is_told_once_and_kept_over_changes),
        T(wildcard_deadline_has_no_name),
        T(timeout_zero_waits_for_ever),
        T(backoff_doubles_up_to_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
