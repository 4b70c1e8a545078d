// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/event/loop.h"

struct probe {
    struct timer t;
    int fired;
    uint64_t again_ms; // set again with this delay when not 0
    struct timer *cancel;
};
static struct loop *loop;

static void on_fire(struct timer *t)
{
    struct probe *p = list_entry(t, struct probe, t);
    p->fired++;
    assert_false(timer_pending(t));
    if (p->again_ms) {
        timer_set(loop, t, p->again_ms);
    }
    if (p->cancel) {
        timer_cancel(p->cancel);
    }
}

static int setup(void **state)
{
    (void)state;
    loop = loop_new(NULL);
    loop_set_fake_time(loop, 1000);
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

static void at(uint64_t ms)
{
    loop_set_fake_time(loop, ms);
    loop_turn(loop, 0);
}

static void test_fires_once_in_time(void **state)
{
    (void)state;
    struct probe p = { 0 };
    timer_init(&p.t, on_fire);
    assert_false(timer_pending(&p.t));
    timer_set(loop, &p.t, 100);
    assert_true(timer_pending(&p.t));
    at(1099);
    assert_int_equal(p.fired, 0);
    at(1100);
    assert_int_equal(p.fired, 1);
    at(9999);
    assert_int_equal(p.fired, 1);
}

static void test_set_again_moves(void **state)
{
    (void)state;
    struct probe p = { 0 };
    timer_init(&p.t, on_fire);
    timer_set(loop, &p.t, 100);
    at(1050);
    timer_set(loop, &p.t, 100);
    at(1149);
    assert_int_equal(p.fired, 0);
    at(1150);
    assert_int_equal(p.fired, 1);
}

static void test_cancel(void **state)
{
    (void)state;
    struct probe p = { 0 };
    timer_init(&p.t, on_fire);
    timer_cancel(&p.t);
    timer_set(loop, &p.t, 10);
    timer_cancel(&p.t);
    timer_cancel(&p.t);
    at(2000);
    assert_int_equal(p.fired, 0);
}

static void test_periodic_and_zero(void **state)
{
    (void)state;
    struct probe p = { .again_ms = 10 }, z = { 0 };
    timer_init(&p.t, on_fire);
    timer_set(loop, &p.t, 10);
    for (uint64_t ms = 1001; ms <= 1100; ms++) {
        at(ms);
    }
    assert_int_equal(p.fired, 10);
    timer_cancel(&p.t);
    timer_init(&z.t, on_fire);
    timer_set(loop, &z.t, 0);
    loop_turn(loop, -1); // does not wait
    assert_int_equal(z.fired, 1);
}

// A timer that sets itself to "now" fires once a turn, not for ever in one.
static void zero_again(struct timer *t)
{
    struct probe *p = list_entry(t, struct probe, t);
    p->fired++;
    timer_set(loop, t, 0);
}

static void test_zero_again(void **state)
{
    (void)state;
    struct probe p = { 0 };
    timer_init(&p.t, zero_again);
    timer_set(loop, &p.t, 0);
    loop_turn(loop, 0);
    assert_int_equal(p.fired, 1);
    loop_turn(loop, 0);
    assert_int_equal(p.fired, 2);
    timer_cancel(&p.t);
}

static void test_cancel_among_due(void **state)
{
    (void)state;
    struct probe a = { 0 }, b = { 0 };
    timer_init(&a.t, on_fire);
    timer_init(&b.t, on_fire);
    a.cancel = &b.t;
    timer_set(loop, &a.t, 10);
    timer_set(loop, &b.t, 10);
    at(1020);
    assert_int_equal(a.fired, 1);
    assert_int_equal(b.fired, 0);
}

static void test_far(void **state)
{
    (void)state;
    struct probe p = { 0 };
    timer_init(&p.t, on_fire);
    timer_set(loop, &p.t, UINT64_MAX); // clipped, not wrapped
    at(1000 + ((uint64_t)1 << 40));
    assert_int_equal(p.fired, 0);
    timer_cancel(&p.t);
}

static void test_real_time_never_early(void **state)
{
    (void)state;
    struct loop *l = loop_new(NULL);
    struct probe p = { 0 };
    timer_init(&p.t, on_fire);
    uint64_t start = loop_now_ns(l);
    timer_set(l, &p.t, 3);
    while (!p.fired) {
        loop_turn(l, -1);
    }
    assert_true(loop_now_ns(l) - start >= 3000000);
    loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fires_once_in_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_again_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_periodic_and_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zero_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_among_due, setup, teardown),
        cmocka_unit_test_setup_teardown(test_far, setup, teardown),
        cmocka_unit_test(test_real_time_never_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
