// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "lib/base/str.h"

static void test_compare(void **state)
{
    (void)state;
    assert_true(str_eq(STR("ab"), str_c("ab")));
    assert_false(str_eq(STR("ab"), STR("aB")));
    assert_true(str_eq(STR(""), str_c(NULL)));
    assert_true(str_eq_nocase(STR("Host-1"), STR("hOST-1")));
    assert_false(str_eq_nocase(STR("a["), STR("a{"))); // only letters fold
    assert_false(str_eq_nocase(STR("ab"), STR("abc")));
    assert_true(str_cmp(STR("a"), STR("ab")) < 0);
    assert_true(str_cmp(STR("b"), STR("ab")) > 0);
    assert_int_equal(str_cmp(STR("ab"), STR("ab")), 0);
    assert_true(str_cmp(STR("\x7f"), STR("\x80")) < 0); // bytes, not chars with sign
    assert_int_equal(str_cmp(str_c(NULL), STR("")), 0);
}

static void test_find(void **state)
{
    (void)state;
    assert_true(str_starts(STR("abc"), STR("ab")));
    assert_true(str_starts(STR("abc"), STR("")));
    assert_false(str_starts(STR("a"), STR("ab")));
    assert_true(str_ends(STR("abc"), STR("bc")));
    assert_false(str_ends(STR("c"), STR("bc")));
    assert_int_equal(str_find(STR("a:b:c"), ':'), 1);
    assert_int_equal(str_find(str_c(NULL), ':'), -1);
    assert_int_equal(str_find_str(STR("xyzzy"), STR("zy")), 3);
    assert_int_equal(str_find_str(STR("xy"), STR("")), 0);
    assert_int_equal(str_find_str(STR("xy"), STR("xyz")), -1);
}

static void test_cut(void **state)
{
    (void)state;
    assert_true(str_is(str_trim(STR(" \t a b\t ")), "a b"));
    assert_true(str_is(str_trim(STR(" \t ")), ""));
    struct str rest = STR("a,,b");
    assert_true(str_is(str_split(&rest, ','), "a"));
    assert_true(str_is(str_split(&rest, ','), ""));
    assert_true(str_is(str_split(&rest, ','), "b"));
    assert_null(rest.p);
    rest = STR("a,");
    assert_true(str_is(str_split(&rest, ','), "a"));
    assert_non_null(rest.p); // an empty last part is still a part
    assert_true(str_is(str_split(&rest, ','), ""));
    assert_null(rest.p);
    assert_true(str_is(str_skip(STR("abc"), 2), "c"));
    assert_true(str_is(str_skip(STR("abc"), 9), ""));
}

static void test_number(void **state)
{
    (void)state;
    uint64_t v = 7;
    assert_true(str_to_u64(STR("0"), 10, &v) && v == 0);
    assert_true(str_to_u64(STR("0010"), 10, &v) && v == 10);
    assert_true(str_to_u64(STR("18446744073709551615"), UINT64_MAX, &v) && v == UINT64_MAX);
    v = 7;
    static const char *const bad[] = { "", "-1", "+1", " 1", "1 ", "1a", "18446744073709551616", "99999999999999999999", "11" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(str_to_u64(str_c(bad[i]), i == 8 ? 10 : UINT64_MAX, &v));
        assert_int_equal(v, 7);
    }
}

static void test_dup(void **state)
{
    (void)state;
    char *p = str_dup(str_n("a\0b", 3));
    assert_memory_equal(p, "a\0b", 4);
    free(p);
    p = str_dup(str_c(NULL));
    assert_string_equal(p, "");
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare), cmocka_unit_test(test_find),   cmocka_unit_test(test_cut),
        cmocka_unit_test(test_number),  cmocka_unit_test(test_dup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
