// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "lib/http/headers.h"

static void every_well_known_name(void **state)
{
    (void)state;
    for (int id = 1; id < HDR_ID_COUNT; id++) {
        struct str n = hdr_name_of((enum hdr_id)id);
        assert_int_equal(hdr_id_of(n), id);
        char up[64];
        assert_true(n.n < sizeof(up));
        for (size_t i = 0; i < n.n; i++) {
            up[i] = n.p[i] >= 'a' && n.p[i] <= 'z' ? (char)(n.p[i] - 32) : n.p[i];
        }
        assert_int_equal(hdr_id_of(str_n(up, n.n)), id);
        for (size_t i = 0; i < n.n; i++) { // one byte different in any bit is another name, but for the case
            for (int bit = 0; bit < 8; bit++) {
                char other[64];
                memcpy(other, n.p, n.n);
                other[i] = (char)(other[i] ^ (1 << bit));
                bool letter = n.p[i] >= 'a' && n.p[i] <= 'z';
                if (!(letter && bit == 5)) {
                    assert_int_not_equal(hdr_id_of(str_n(other, n.n)), id);
                }
            }
        }
        assert_int_not_equal(hdr_id_of(str_n(n.p, n.n - 1)), id);
    }
    assert_int_equal(hdr_id_of(STR("")), HDR_OTHER);
    assert_int_equal(hdr_id_of(STR("x")), HDR_OTHER);
    assert_int_equal(hdr_id_of(STR("x-my-own")), HDR_OTHER);
}

static size_t sum(const struct headers *h)
{
    size_t n = 0;
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        n += x->name.n + x->value.n;
    }
    return n;
}

static void look_up_set_remove(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct headers h;
    headers_init(&h, &a);
    headers_add(&h, STR("X-One"), STR("1"));
    headers_add(&h, STR("Cookie"), STR("a"));
    headers_add(&h, STR("x-one"), STR("2"));
    headers_add_id(&h, HDR_COOKIE, STR("b"));
    assert_true(str_is(headers_value(&h, STR("X-ONE")), "1"));
    assert_true(str_is(headers_value(&h, STR("COOKIE")), "a"));
    assert_ptr_equal(headers_get(&h, STR("cookie")), headers_get_id(&h, HDR_COOKIE));
    assert_null(headers_get(&h, STR("x-two")));
    assert_null(headers_value(&h, STR("x-two")).p);
    bool present = false;
    assert_true(str_is(headers_joined(&h, STR("x-one"), &present), "1,2"));
    assert_true(present);
    assert_true(str_is(headers_joined(&h, STR("cookie"), NULL), "a,b"));
    headers_joined(&h, STR("none"), &present);
    assert_false(present);
    headers_set(&h, STR("x-ONE"), STR("three"));
    assert_true(str_is(headers_joined(&h, STR("x-one"), NULL), "three"));
    assert_true(str_is(headers_get(&h, STR("x-one"))->name, "X-One")); // the case it came with
    assert_int_equal(headers_remove_id(&h, HDR_COOKIE), 2);
    assert_int_equal(headers_remove(&h, STR("cookie")), 0);
    headers_set_id(&h, HDR_COOKIE, STR("c"));
    assert_true(str_is(headers_value_id(&h, HDR_COOKIE), "c"));
    headers_set(&h, STR("new"), STR(""));
    assert_non_null(headers_value(&h, STR("new")).p);
    assert_int_equal(h.bytes, sum(&h));
    assert_int_equal(headers_remove(&h, STR("X-one")), 1);
    assert_int_equal(h.bytes, sum(&h));
    assert_true(str_is(headers_first(&h)->value, "c"));
    arena_fini(&a);
}

static void grows(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct headers h;
    headers_init(&h, &a);
    for (int i = 0; i < 1000; i++) {
        headers_add(&h, arena_printf(&a, "n%d", i), arena_printf(&a, "%d", i));
    }
    assert_int_equal(h.count, 1000);
    assert_true(str_is(headers_value(&h, STR("n999")), "999"));
    assert_true(str_is(headers_value(&h, STR("n0")), "0"));
    arena_fini(&a);
}

static void arena_limit_is_told(void **state)
{
    (void)state;
    struct arena a;
    struct headers h;
    arena_init(&a, 0, 1500);
    headers_init(&h, &a);
    for (int i = 0; i < 100; i++) {
        headers_add(&h, STR("n"), STR("v"));
    }
    assert_true(h.truncated);
    assert_true(h.count < 100);
    arena_fini(&a);
}

static void knows_what_it_cannot_have(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct headers h;
    headers_init(&h, &a);
    assert_false(headers_may_have(&h, UINT64_MAX));
    headers_add(&h, STR("X-Own"), STR("1"));
    assert_true(headers_may_have(&h, HDR_BIT(HDR_OTHER)));
    assert_false(headers_may_have(&h, HDR_BIT(HDR_COOKIE) | HDR_BIT(HDR_DATE)));
    for (int id = 1; id < HDR_ID_COUNT; id++) {
        assert_null(headers_get_id(&h, (enum hdr_id)id));
        headers_set_id(&h, (enum hdr_id)id, STR("a"));
        headers_set(&h, hdr_name_of((enum hdr_id)id), STR("b"));
        assert_true(headers_may_have(&h, HDR_BIT(id)));
        assert_true(str_is(headers_value_id(&h, (enum hdr_id)id), "b"));
        assert_int_equal(headers_remove_id(&h, (enum hdr_id)id), 1);
        assert_null(headers_get(&h, hdr_name_of((enum hdr_id)id)));
        headers_add(&h, hdr_name_of((enum hdr_id)id), STR("c"));
        assert_true(str_is(headers_value_id(&h, (enum hdr_id)id), "c"));
    }
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_what_it_cannot_have),
        cmocka_unit_test(every_well_known_name),
        cmocka_unit_test(look_up_set_remove),
        cmocka_unit_test(grows),
        cmocka_unit_test(arena_limit_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
