// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/rand.h"
#include "lib/event/wheel.h"

static void add(struct wheel *w, struct timer *t, uint64_t at)
{
    list_init(&t->link);
    t->expires_ms = at;
    wheel_add(w, t);
}

static struct timer *pop(struct wheel *w)
{
    if (list_empty(&w->due)) {
        return NULL;
    }
    struct timer *t = list_entry(w->due.next, struct timer, link);
    list_del(&t->link);
    return t;
}

// Each delay fires at its own millisecond: not at the one before, and next_ms never promises later.
static void test_exact(void **state)
{
    (void)state;
    static const uint64_t starts[] = { 0, 1, 63, 64, 4095, 1000003, 1700000000000 };
    static const uint64_t delays[] = { 1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 262143, 262144, 16777216, 16777217,
                                       1073741823, 1073741824, 5000000000 };
    static struct wheel w;
    for (size_t s = 0; s < array_len(starts); s++) {
        for (size_t d = 0; d < array_len(delays); d++) {
            struct timer t;
            wheel_init(&w, starts[s]);
            uint64_t at = starts[s] + delays[d];
            add(&w, &t, at);
            assert_true(wheel_next_ms(&w) <= at && wheel_next_ms(&w) > starts[s]);
            wheel_advance(&w, at - 1);
            assert_null(pop(&w));
            assert_int_equal(wheel_next_ms(&w), at);
            wheel_advance(&w, at);
            assert_ptr_equal(pop(&w), &t);
            assert_int_equal(wheel_next_ms(&w), UINT64_MAX);
        }
    }
}

// Following next_ms step by step, as a loop does, reaches the expiry in a few steps.
static void test_steps(void **state)
{
    (void)state;
    static struct wheel w;
    struct timer t;
    wheel_init(&w, 12345);
    add(&w, &t, 12345 + 3600000);
    int steps = 0;
    while (list_empty(&w.due)) {
        wheel_advance(&w, wheel_next_ms(&w));
        assert_true(++steps < 8);
    }
    assert_int_equal(w.now_ms, 12345 + 3600000);
    wheel_fini(&w);
    assert_true(list_empty(&t.link));
}

static void test_order_and_past(void **state)
{
    (void)state;
    static struct wheel w;
    struct timer a, b, c, past;
    wheel_init(&w, 1000);
    add(&w, &c, 1300);
    add(&w, &a, 1100);
    add(&w, &b, 1200);
    add(&w, &past, 10);
    assert_true(wheel_next_ms(&w) <= 1000);
    wheel_advance(&w, 5000);
    assert_ptr_equal(pop(&w), &past);
    assert_ptr_equal(pop(&w), &a);
    assert_ptr_equal(pop(&w), &b);
    assert_ptr_equal(pop(&w), &c);
}

static void test_backwards(void **state)
{
    (void)state;
    static struct wheel w;
    struct timer a, b;
    wheel_init(&w, 1000000);
    add(&w, &a, 500);
    add(&w, &b, 1000100);
    wheel_advance(&w, 400);
    assert_true(list_empty(&w.due));
    wheel_advance(&w, 500);
    assert_ptr_equal(pop(&w), &a);
    wheel_advance(&w, 1000099);
    assert_null(pop(&w));
    wheel_advance(&w, 1000100);
    assert_ptr_equal(pop(&w), &b);
}

// Random timers, cancels and jumps against a plain array.
static void test_random(void **state)
{
    (void)state;
    enum { N = 300 };
    static struct wheel w;
    static struct timer t[N];
    rand_seed(7);
    uint64_t now = 123456789;
    wheel_init(&w, now);
    for (int i = 0; i < N; i++) {
        list_init(&t[i].link);
    }
    for (int round = 0; round < 3000; round++) {
        struct timer *x = &t[rand_below(N)];
        list_del(&x->link);
        if (rand_below(4)) {
            add(&w, x, now + (rand_below(2) ? rand_below(300) : rand_below(1 << rand_below(25))));
        }
        if (rand_below(3) == 0) {
            uint64_t next = UINT64_MAX;
            for (int i = 0; i < N; i++) {
                if (!list_empty(&t[i].link) && t[i].expires_ms < next) {
                    next = t[i].expires_ms;
                }
            }
            assert_true(wheel_next_ms(&w) <= (next > now ? next : now) || next == UINT64_MAX);
            now += rand_below(2) ? rand_below(100) : rand_below(100000);
            wheel_advance(&w, now);
            uint64_t before = 0;
            for (struct timer *p; (p = pop(&w));) {
                assert_true(p->expires_ms <= now);
                assert_true(p->expires_ms >= before || p->expires_ms <= w.now_ms);
                before = p->expires_ms;
            }
            for (int i = 0; i < N; i++) {
                assert_true(list_empty(&t[i].link) || t[i].expires_ms > now); // none is late
            }
        }
    }
    wheel_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),     cmocka_unit_test(test_steps),  cmocka_unit_test(test_order_and_past),
        cmocka_unit_test(test_backwards), cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
