// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/base/arena.h"

static void test_align_and_zero(void **state)
{
    (void)state;
    struct arena a = { 0 }; // zeroed is valid
    char *before = NULL;
    for (size_t n = 0; n < 200; n++) {
        char *p = arena_zalloc(&a, n);
        assert_int_equal((uintptr_t)p % 16, 0);
        assert_ptr_not_equal(p, before);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(p[i], 0);
            p[i] = (char)0xaa;
        }
        before = p;
    }
    arena_fini(&a);
    assert_null(a.head);
    assert_non_null(arena_alloc(&a, 1)); // usable again
    arena_fini(&a);
}

static void test_large_piece_keeps_head(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 1024, 0);
    char *p = arena_alloc(&a, 16);
    char *big = arena_alloc(&a, 100000);
    memset(big, 1, 100000);
    char *q = arena_alloc(&a, 16);
    assert_ptr_equal(q, p + 16); // the room behind p was not lost
    arena_fini(&a);
}

static void test_limit(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 0, 100);
    assert_non_null(arena_alloc(&a, 64));
    assert_null(arena_alloc(&a, 64));
    assert_null(arena_alloc(&a, (size_t)1 << 40));
    assert_non_null(arena_alloc(&a, 32));
    assert_null(arena_str(&a, STR("does not fit any more")).p);
    assert_null(arena_printf(&a, "%s", "does not fit").p);
    arena_reset(&a, true);
    assert_non_null(arena_alloc(&a, 96));
    arena_fini(&a);
}

static void test_strings(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct str s = arena_str(&a, str_n("ab", 1));
    assert_int_equal(s.n, 1);
    assert_string_equal(s.p, "a");
    assert_string_equal(arena_strdup(&a, "xyz"), "xyz");
    s = arena_printf(&a, "%d-%s", 5, "z");
    assert_int_equal(s.n, 3);
    assert_string_equal(s.p, "5-z");
    assert_int_equal(arena_str(&a, str_c(NULL)).n, 0);
    arena_fini(&a);
}

static int order[3], calls;
static void note(void *arg)
{
    order[calls++] = *(int *)arg;
}

static void test_cleanups(void **state)
{
    (void)state;
    struct arena a = { 0 };
    int one = 1, two = 2, three = 3;
    calls = 0;
    arena_on_free(&a, note, &one);
    arena_on_free(&a, note, &two);
    arena_reset(&a, true);
    assert_int_equal(calls, 2);
    assert_int_equal(order[0], 2);
    assert_int_equal(order[1], 1);
    arena_on_free(&a, note, &three);
    arena_fini(&a);
    assert_int_equal(calls, 3);
    arena_fini(&a);
    assert_int_equal(calls, 3);
}

static void test_reset_reuses_block(void **state)
{
    (void)state;
    struct arena a = { 0 };
    void *p = arena_alloc(&a, 100);
    arena_alloc(&a, 100000);
    arena_reset(&a, true);
    assert_int_equal(a.used_bytes, 0);
#ifndef __SANITIZE_ADDRESS__
    assert_ptr_equal(arena_alloc(&a, 100), p);
#else
    (void)p;
#endif
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_align_and_zero), cmocka_unit_test(test_large_piece_keeps_head),
        cmocka_unit_test(test_limit),          cmocka_unit_test(test_strings),
        cmocka_unit_test(test_cleanups),       cmocka_unit_test(test_reset_reuses_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
