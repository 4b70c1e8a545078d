// SPDX-License-Identifier: Apache-2.0
// A file of the kind that users bring is read whole, and survives being written and read again.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "lib/base/file.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"

static void test_sidecar_bootstrap(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d = &envoy__config__bootstrap__v3__bootstrap__descriptor;
    struct arena a = { 0 };
    struct buf out = { 0 };
    struct json_writer w;
    struct err err;
    struct str text;
    ProtobufCMessage *m, *back;
    assert_int_equal(
        file_read("tests/golden/proto/sidecar-bootstrap.yaml", 1 << 20, &a, &text, &err), 0);
    if (pb_json_parse(text, d, 0, &a, &m, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    jw_init(&w, &out, 2);
    pb_json_write(&w, m, 0);
    assert_int_equal(pb_json_parse(buf_pullup(&out, buf_len(&out)), d, 0, &a, &back, &err), 0);
    assert_true(str_eq(pb_pack(m, &a), pb_pack(back, &a)));
    assert_true(pb_pack(m, &a).n > 3000);
    assert_int_equal(pb_unpack(d, pb_pack(m, &a), &a, &back, &err), 0);
    buf_clear(&out);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sidecar_bootstrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
