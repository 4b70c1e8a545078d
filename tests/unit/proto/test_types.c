// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/core/v3/address.pb-c.h"
#include "proto/types.h"

static void test_find(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d = &envoy__config__cluster__v3__cluster__descriptor;
    assert_ptr_equal(types_find(STR("type.googleapis.com/envoy.config.cluster.v3.Cluster")), d);
    assert_ptr_equal(types_find(STR("envoy.config.cluster.v3.Cluster")), d);
    assert_null(types_find(STR("evil.example/envoy.config.cluster.v3.Cluster")));
    assert_null(types_find(STR("envoy.config.cluster.v3.Cluste")));
    assert_null(types_find(STR("type.googleapis.com/")));
    assert_null(types_find((struct str){ 0 }));
    assert_true(str_is(types_url(d), "type.googleapis.com/envoy.config.cluster.v3.Cluster"));
    assert_ptr_equal(types_by_short_name(STR("Cluster"))->desc, d);
    assert_null(types_by_short_name(STR("cluster")));
    assert_null(types_url(&envoy__config__core__v3__address__descriptor).p);
}

// The order is what the search relies on; names and descriptors must belong together.
static void test_list(void **state)
{
    (void)state;
    size_t n;
    const struct type_entry *e = types_all(&n);
    assert_true(n > 150);
    for (size_t i = 0; i < n; i++) {
        assert_true(i == 0 || strcmp(e[i - 1].name, e[i].name) < 0);
        assert_string_equal(e[i].desc->name, e[i].name);
        assert_ptr_equal(types_find(str_c(e[i].url)), e[i].desc);
        assert_ptr_equal(types_entry(e[i].desc), &e[i]);
        assert_ptr_equal(types_by_short_name(str_c(e[i].short_name)), &e[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
