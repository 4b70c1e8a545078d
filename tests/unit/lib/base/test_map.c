// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "lib/base/map.h"

static struct str key(char buf[16], int i)
{
    return str_n(buf, (size_t)snprintf(buf, 16, "k%d", i));
}

static void test_put_get_del(void **state)
{
    (void)state;
    struct map m = { 0 };
    int a = 1, b = 2;
    assert_null(map_get(&m, STR("x")));
    assert_null(map_del(&m, STR("x")));
    assert_null(map_put(&m, STR("x"), &a));
    assert_ptr_equal(map_put(&m, STR("x"), &b), &a);
    assert_int_equal(m.count, 1);
    assert_ptr_equal(map_get(&m, STR("x")), &b);
    assert_null(map_put(&m, STR(""), &a)); // the empty key is a key
    assert_ptr_equal(map_get(&m, str_c(NULL)), &a);
    assert_null(map_put(&m, str_n("\0", 1), &b));
    assert_ptr_equal(map_get(&m, str_n("\0", 1)), &b);
    assert_ptr_equal(map_del(&m, STR("")), &a);
    assert_null(map_get(&m, STR("")));
    assert_int_equal(m.count, 2);
    map_fini(&m);
}

static void test_many(void **state)
{
    (void)state;
    struct map m;
    char buf[16];
    static int vals[5000];
    map_init(&m);
    for (int round = 0; round < 3; round++) { // marks of removed entries must not pile up
        for (int i = 0; i < 5000; i++) {
            assert_null(map_put(&m, key(buf, i), &vals[i]));
        }
        for (int i = 0; i < 5000; i++) {
            assert_ptr_equal(map_get(&m, key(buf, i)), &vals[i]);
        }
        for (int i = 0; i < 5000; i += 2) {
            assert_ptr_equal(map_del(&m, key(buf, i)), &vals[i]);
        }
        for (int i = 0; i < 5000; i++) {
            assert_ptr_equal(map_get(&m, key(buf, i)), i % 2 ? &vals[i] : NULL);
        }
        // Remove the rest while visiting.
        size_t i = 0, seen = 0;
        for (struct map_entry *e; (e = map_next(&m, &i)); seen++) {
            map_del(&m, e->key);
        }
        assert_int_equal(seen, 2500);
        assert_true(m.used * 4 <= m.cap * 3); // else each insert would rebuild
        assert_int_equal(m.count, 0);
    }
    assert_true(m.cap <= 16384);
    map_fini(&m);
}

static void test_churn_stays_small(void **state)
{
    (void)state;
    struct map m = { 0 };
    char buf[16];
    int v;
    for (int i = 0; i < 100000; i++) {
        map_put(&m, key(buf, i), &v);
        map_del(&m, key(buf, i));
    }
    assert_true(m.cap <= 16);
    map_fini(&m);
}

static void test_sorted(void **state)
{
    (void)state;
    struct map m = { 0 };
    int v;
    struct map_entry **none = map_sorted(&m);
    assert_non_null(none);
    free(none);
    map_put(&m, STR("b"), &v);
    map_put(&m, STR("a"), &v);
    map_put(&m, STR("ab"), &v);
    struct map_entry **s = map_sorted(&m);
    assert_true(str_is(s[0]->key, "a") && str_is(s[1]->key, "ab") && str_is(s[2]->key, "b"));
    free(s);
    map_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_get_del),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_churn_stays_small),
        cmocka_unit_test(test_sorted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
