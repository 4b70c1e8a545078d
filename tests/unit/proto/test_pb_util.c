// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "lib/base/check.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"

static struct arena arena;

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void test_duration(void **state)
{
    (void)state;
    Google__Protobuf__Duration d = GOOGLE__PROTOBUF__DURATION__INIT;
    const struct {
        int64_t seconds;
        int32_t nanos;
        int64_t ms;
    } cases[] = {
        { 0, 0, 0 },
        { 1, 500000000, 1500 },
        { 0, 1, 1 },
        { 0, 999999, 1 },
        { 0, 1000001, 2 },
        { 9223372035, 0, 9223372035000 },
        { 315576000000, 999999999, 315576000001000 },
        { 315576000001, 0, -7 },
        { -1, 0, -7 },
        { 0, -1, -7 },
        { 0, 1000000000, -7 },
        { INT64_MAX, 0, -7 },
        { INT64_MIN, 0, -7 },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        d.seconds = cases[i].seconds;
        d.nanos = cases[i].nanos;
        assert_int_equal(pb_duration_ms(&d, -7), cases[i].ms);
        assert_int_equal(pb_duration_valid(&d), cases[i].ms != -7);
    }
    assert_int_equal(pb_duration_ms(NULL, 42), 42);
    assert_false(pb_duration_valid(NULL));
}

static void test_wrappers(void **state)
{
    (void)state;
    Google__Protobuf__UInt32Value u = GOOGLE__PROTOBUF__UINT32_VALUE__INIT;
    Google__Protobuf__BoolValue b = GOOGLE__PROTOBUF__BOOL_VALUE__INIT;
    assert_int_equal(pb_u32_or(NULL, 7), 7);
    assert_int_equal(pb_u32_or(&u, 7), 0); // present and 0 is not absent
    u.value = UINT32_MAX;
    assert_int_equal(pb_u32_or(&u, 7), UINT32_MAX);
    assert_true(pb_bool_or(NULL, true));
    assert_false(pb_bool_or(&b, true));
}

static void test_struct_and_maps(void **state)
{
    (void)state;
    Envoy__Config__Core__V3__Metadata *md;
    struct err err;
    const char *text = "filter_metadata: {istio: {workload: w, n: 1}, envoy.lb: {}}";
    assert_int_equal(pb_json_parse(str_c(text), &envoy__config__core__v3__metadata__descriptor, 0,
                                   &arena, (ProtobufCMessage **)&md, &err),
                     0);
    const Google__Protobuf__Struct *st = pb_metadata_get(md, "istio");
    assert_true(str_is(pb_struct_str(st, "workload"), "w"));
    assert_null(pb_struct_str(st, "n").p);
    assert_null(pb_struct_str(st, "absent").p);
    assert_true(pb_struct_get(st, "n")->number_value == 1);
    assert_non_null(pb_metadata_get(md, "envoy.lb"));
    assert_null(pb_metadata_get(md, "envoy"));
    assert_null(pb_metadata_get(NULL, "envoy"));
    assert_null(pb_struct_get(NULL, "x"));
}

// Entries in another order pack to the same bytes; pb_pack keeps their order.
static void test_pack_stable(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "--- {name: c, metadata: {filter_metadata: {b: {y: 1, x: 2}, a: {}}}}",
        "--- {name: c, metadata: {filter_metadata: {a: {}, b: {x: 2, y: 1}}}}",
    };
    struct str plain[2], stable[2];
    struct err err;
    for (int i = 0; i < 2; i++) {
        ProtobufCMessage *m;
        assert_int_equal(pb_json_parse(str_c(texts[i]),
                                       &envoy__config__cluster__v3__cluster__descriptor, 0, &arena,
                                       &m, &err),
                         0);
        plain[i] = pb_pack(m, &arena);
        stable[i] = pb_pack_stable(m, &arena);
    }
    assert_false(str_eq(plain[0], plain[1]));
    assert_true(str_eq(stable[0], stable[1]));
    assert_true(str_eq(plain[1], stable[1]));
}

static void test_field_is_map(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *c = &envoy__config__cluster__v3__cluster__descriptor;
    const ProtobufCFieldDescriptor *map =
        protobuf_c_message_descriptor_get_field_by_name(c, "typed_extension_protocol_options");
    assert_true(pb_field_is_map(c, map));
    assert_false(pb_field_is_map(c, protobuf_c_message_descriptor_get_field_by_name(c, "filters")));
    assert_false(pb_field_is_map(c, protobuf_c_message_descriptor_get_field_by_name(c, "name")));
    assert_false(pb_field_is_map(map->descriptor, map)); // the owner is part of the rule
}

// The same singular field given 30,000 times makes protobuf-c copy ever longer lists: the budget
// ends it.
static void test_growth_is_bounded(void **state)
{
    (void)state;
    ProtobufCMessage *m = NULL;
    struct err err;
    static char nested[30000 * 4];
    for (size_t i = 0; i < sizeof(nested); i += 4) {
        memcpy(nested + i, "\x52\x02\x0a\x00", 4); // circuit_breakers (10): { thresholds (1): {} }
    }
    assert_int_equal(pb_unpack(&envoy__config__cluster__v3__cluster__descriptor,
                               str_n(nested, sizeof(nested)), &arena, &m, &err),
                     -ENOMEM);
    assert_null(m);
    assert_true(arena.used_bytes < 64u << 20);
}

static void test_arena_limit(void **state)
{
    (void)state;
    struct arena small;
    arena_init(&small, 256, 300);
    ProtobufCMessage *m;
    struct err err;
    assert_int_equal(pb_unpack(&envoy__config__cluster__v3__cluster__descriptor, STR("\x0a\x01x"),
                               &small, &m, &err),
                     -ENOMEM);
    arena_fini(&small);
}

static void test_empty_message(void **state)
{
    (void)state;
    ProtobufCMessage *m;
    assert_int_equal(pb_unpack(&envoy__config__cluster__v3__cluster__descriptor, (struct str){ 0 },
                               &arena, &m, NULL),
                     0);
    struct str s = pb_pack(m, &arena);
    assert_int_equal(s.n, 0);
    assert_non_null(s.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_duration, teardown),
        cmocka_unit_test_teardown(test_wrappers, teardown),
        cmocka_unit_test_teardown(test_struct_and_maps, teardown),
        cmocka_unit_test_teardown(test_pack_stable, teardown),
        cmocka_unit_test_teardown(test_field_is_map, teardown),
        cmocka_unit_test_teardown(test_growth_is_bounded, teardown),
        cmocka_unit_test_teardown(test_arena_limit, teardown),
        cmocka_unit_test_teardown(test_empty_message, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
