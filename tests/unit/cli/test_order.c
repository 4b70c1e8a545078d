// SPDX-License-Identifier: Apache-2.0
// The order of equal elements is what Go's sort.Slice gives: the sums below are of Go's results for the same inputs.
#include "cli/order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/check.h"

struct item {
    uint32_t key, id;
};

static bool by_key(const void *a, const void *b)
{
    return ((const struct item *)a)->key < ((const struct item *)b)->key;
}

// No order at all: multiples of three are equal to everything.
static bool by_some_keys(const void *x, const void *y)
{
    const struct item *a = x, *b = y;
    return a->key % 3 && b->key % 3 && a->key < b->key;
}

enum shape { RANDOM, RISING, FALLING, NEARLY_SORTED, STRICTLY_FALLING, PARTIAL };

static void fill(struct item *items, uint32_t n, uint32_t mod, enum shape shape)
{
    uint32_t seed = 12345;
    for (uint32_t i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        const uint32_t keys[] = { [RISING] = i / mod, [FALLING] = (n - i) / mod, [STRICTLY_FALLING] = n - i };
        uint32_t key = (seed >> 8) % mod;
        if (shape == RISING || shape == FALLING || shape == STRICTLY_FALLING) {
            key = keys[shape];
        } else if (shape == NEARLY_SORTED && i % 10 != 0) {
            key = i;
        }
        items[i] = (struct item){ .key = key, .id = i };
    }
}

static void test_as_go(void **state)
{
    static const struct {
        uint32_t n, mod, shape;
        uint64_t sum;
    } cases[] = {
        { 12, 3, 0, UINT64_C(0x1dbfd22855f9b9bd) },    { 13, 3, 0, UINT64_C(0xcb4962a9af7bae25) },
        { 40, 4, 0, UINT64_C(0xc73e5d9081bc8d35) },    { 49, 1000, 0, UINT64_C(0xa071fd9642564915) },
        { 60, 5, 0, UINT64_C(0x8b485d36462fbb0d) },    { 200, 7, 0, UINT64_C(0x51e27f558abb8b59) },
        { 1000, 10, 0, UINT64_C(0xa281d1bf3491df2b) }, { 1000, 1000000, 0, UINT64_C(0x2cbcc5ad61c55b6f) },
        { 300, 4, 1, UINT64_C(0xf90bc44125dc3a99) },   { 300, 4, 2, UINT64_C(0xb197ea5f35510e31) },
        { 500, 1, 3, UINT64_C(0x90edc5e3b934794b) },   { 100, 1, 4, UINT64_C(0x644931484736d1d9) },
        { 64, 100, 5, UINT64_C(0xf99db2476cc3d303) },  { 2000, 2, 0, UINT64_C(0x4122ca42f78e4c71) },
    };
    (void)state;
    for (size_t c = 0; c < array_len(cases); c++) {
        uint32_t n = cases[c].n;
        struct item *items = calloc(n, sizeof(*items));
        const void **v = calloc(n, sizeof(*v));
        fill(items, n, cases[c].mod, cases[c].shape);
        for (uint32_t i = 0; i < n; i++) {
            v[i] = &items[i];
        }
        order_sort(v, n, cases[c].shape == PARTIAL ? by_some_keys : by_key);
        uint64_t sum = UINT64_C(14695981039346656037);
        for (uint32_t i = 0; i < n; i++) {
            sum = (sum ^ ((const struct item *)v[i])->id) * UINT64_C(1099511628211);
            assert_true(cases[c].shape == PARTIAL || i == 0 || !by_key(v[i], v[i - 1]));
        }
        assert_int_equal(sum, cases[c].sum);
        free(v);
        free(items);
    }
}

static void test_nothing_to_sort(void **state)
{
    struct item one = { 1, 1 };
    const void *v[] = { &one };
    (void)state;
    order_sort(NULL, 0, by_key);
    order_sort(v, 1, by_key);
    assert_ptr_equal(v[0], &one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_go),
        cmocka_unit_test(test_nothing_to_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
