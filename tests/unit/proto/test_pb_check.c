// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/type/matcher/v3/value.pb-c.h"
#include "lib/base/check.h"
#include "proto/pb_util.h"

static const ProtobufCMessageDescriptor *const cluster =
    &envoy__config__cluster__v3__cluster__descriptor;

static void test_taken(void **state)
{
    (void)state;
    assert_int_equal(pb_check(cluster, STR("\x0a\x01x"), NULL), 0); // name: "x"
    assert_int_equal(pb_check(cluster,
                              STR("\xc2\x3e\x03"
                                  "abc"),
                              NULL),
                     0);                                               // unknown field 1000, bytes
    assert_int_equal(pb_check(cluster, STR("\xc0\x3e\x05"), NULL), 0); // unknown field 1000, varint
    assert_int_equal(pb_check(cluster, STR("\x0a\x02\xc3\xa9"), NULL), 0); // name: "é"
    // retriable_status_codes packed (7) and one by one
    const ProtobufCMessageDescriptor *retry = &envoy__config__route__v3__retry_policy__descriptor;
    assert_int_equal(pb_check(retry, STR("\x3a\x03\xf7\x03\x01"), NULL), 0);
    assert_int_equal(pb_check(retry, STR("\x38\xf7\x03"), NULL), 0);
}

static void test_refused(void **state)
{
    (void)state;
    const struct {
        struct str bytes;
        const char *reason;
    } cases[] = {
        { STR("\x0a"), "malformed or cut off" }, // no length
        { STR("\x0a\x05"
              "abc"),
          "field 1 (name) is malformed or cut off" },
        { STR("\x08\x01"), "wire type 0, expected 2" }, // name as varint
        { STR("\x12\x00"), "wire type 2, expected 0" }, // type (enum) as bytes
        { STR("\x0a\x03"
              "a\0b"),
          "NUL" },
        { STR("\x0a\x02\xc3\x28"), "not UTF-8" },
        { STR("\x0a\x01\xff"), "not UTF-8" },
        { STR("\x00\x01"), "malformed field tag" }, // field 0
        { STR("\x0b\x0c"), "malformed" },           // group
        { STR("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "malformed field tag" },
        { STR("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "malformed" }, // length 2^64-1
        { STR("\xc5\x3e\x01\x02"), "malformed" },            // unknown fixed32, cut
        { STR("\x22\x01\x0a"), "google.protobuf.Duration" }, // connect_timeout: bad content
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct err err = { 0 };
        assert_int_equal(pb_check(cluster, cases[i].bytes, &err), -EINVAL);
        if (!strstr(err.msg, cases[i].reason)) {
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, err.msg, cases[i].reason);
        }
    }
}

// ValueMatcher.or_match.value_matchers… nested: PB_DEPTH_MAX messages pass, one more does not.
static void test_depth(void **state)
{
    (void)state;
    char bytes[1024];
    for (int extra = 0; extra < 2; extra++) {
        size_t n = 0;
        for (int i = 1; i < PB_DEPTH_MAX + extra; i++) { // from the innermost outwards
            char head[8];
            size_t k = 0;
            head[k++] =
                (PB_DEPTH_MAX + extra - i) % 2 ? 0x3a : 0x0a; // or_match (7), value_matchers (1)
            if (n >= 128) {
                head[k++] = (char)(0x80 | (n & 0x7f));
                head[k++] = (char)(n >> 7);
            } else {
                head[k++] = (char)n;
            }
            memmove(bytes + k, bytes, n);
            memcpy(bytes, head, k);
            n += k;
        }
        struct err err = { 0 };
        const ProtobufCMessageDescriptor *d = &envoy__type__matcher__v3__value_matcher__descriptor;
        assert_int_equal(pb_check(d, str_n(bytes, n), &err), extra ? -EINVAL : 0);
        assert_true(!extra || strstr(err.msg, "nested deeper"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taken),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
