// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/http/grpc_text.h"

static void timeouts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms; // -1 = refused
    } cases[] = {
        { "1S", 1000 },       { "100m", 100 },       { "1u", 1 },          { "1000u", 1 },  { "1001u", 2 },
        { "1n", 1 },          { "1000001n", 2 },     { "2M", 120000 },     { "1H", 3600000 }, { "99999999H", 359999996400000 },
        { "00000001S", 1000 }, { "0m", 0 },          { "", -1 },           { "S", -1 },     { "1", -1 },
        { "123456789S", -1 }, { "1s", -1 },          { "-1S", -1 },        { "+1S", -1 },   { " 1S", -1 },
        { "1 S", -1 },        { "1S ", -1 },         { "1SS", -1 },        { "0x1S", -1 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t ms = 77;
        bool ok = grpc_timeout_parse(str_c(cases[i].text), &ms);
        if (ok != (cases[i].ms >= 0) || (ok ? (int64_t)ms != cases[i].ms : ms != 77)) {
            fail_msg("\"%s\": %d %llu", cases[i].text, ok, (unsigned long long)ms);
        }
    }
}

static void timeout_text_keeps_to_eight_digits(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 0, 0);
    static const struct {
        uint64_t ms;
        const char *want;
    } cases[] = { { 1, "1m" }, { 99999999, "99999999m" }, { 100000001, "100001S" }, { 100000000000000, "27777778H" },
                  { UINT64_MAX, "99999999H" } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct str got = grpc_timeout_text(cases[i].ms, &a);
        assert_int_equal(got.n, strlen(cases[i].want));
        assert_memory_equal(got.p, cases[i].want, got.n);
    }
    arena_fini(&a);
}

static void content_types(void **state)
{
    (void)state;
    assert_true(grpc_content_type(STR("application/grpc")));
    assert_true(grpc_content_type(STR("application/grpc+proto")));
    assert_true(grpc_content_type(STR("Application/gRPC; charset=x")));
    assert_false(grpc_content_type(STR("application/grpc-web")));
    assert_false(grpc_content_type(STR("application/grp")));
    assert_false(grpc_content_type(STR("")));
}

static void messages(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 0, 0);
    struct str got = grpc_message_encode(STR("50% \xc3\xbc\r\n~"), &a);
    assert_true(str_is(got, "50%25 %C3%BC%0D%0A~"));
    assert_int_equal(grpc_message_encode(str_n(NULL, 0), &a).n, 0);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeouts),
        cmocka_unit_test(timeout_text_keeps_to_eight_digits),
        cmocka_unit_test(content_types),
        cmocka_unit_test(messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
