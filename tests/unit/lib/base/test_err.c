// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "lib/base/err.h"
#include "lib/base/utf8.h"

static void test_set_and_wrap(void **state)
{
    (void)state;
    struct err e = { 0 };
    assert_int_equal(err_set(&e, -EINVAL, "bad %s", "port"), -EINVAL);
    assert_int_equal(err_wrap(&e, "listener %d", 3), -EINVAL);
    assert_string_equal(e.msg, "listener 3: bad port");
    assert_int_equal(e.code, -EINVAL);
    assert_int_equal(err_errno(&e, ENOENT, "/x"), -ENOENT);
    assert_string_equal(e.msg, "/x: No such file or directory");
}

static void test_null(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, -EIO, "x"), -EIO);
    assert_int_equal(err_errno(NULL, EIO, "x"), -EIO);
    assert_int_equal(err_wrap(NULL, "x"), -1);
}

static void test_own_message_as_argument(void **state)
{
    (void)state;
    struct err e;
    err_set(&e, -EIO, "inner");
    err_set(&e, -EINVAL, "outer (%s)", e.msg);
    assert_string_equal(e.msg, "outer (inner)");
}

static void test_cut(void **state)
{
    (void)state;
    struct err e;
    char big[ERR_MSG_MAX + 10];
    memset(big, 'x', sizeof(big));
    big[sizeof(big) - 1] = '\0';
    err_set(&e, -EIO, "%s", big);
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
    assert_string_equal(e.msg + ERR_MSG_MAX - 4, "…");
    // Never in the middle of a character: é is two bytes, shifted by zero or one byte.
    for (int shift = 0; shift < 2; shift++) {
        for (size_t i = 0; i + 2 < sizeof(big); i += 2) {
            memcpy(big + i, "é", 2);
        }
        big[sizeof(big) - 2] = '\0';
        err_set(&e, -EIO, "%s%s", shift ? "x" : "", big);
        assert_true(utf8_valid(str_c(e.msg)));
        assert_true(str_ends(str_c(e.msg), STR("…")));
        err_wrap(&e, "again");
        assert_true(utf8_valid(str_c(e.msg)));
        assert_true(str_starts(str_c(e.msg), STR("again: ")) && str_ends(str_c(e.msg), STR("…")));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_wrap),
        cmocka_unit_test(test_null),
        cmocka_unit_test(test_own_message_as_argument),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
