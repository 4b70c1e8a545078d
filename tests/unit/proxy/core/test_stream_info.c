// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/core/stream_info.h"

static void flags_as_text(void **state)
{
    (void)state;
    char out[RF_TEXT_MAX];
    assert_string_equal(response_flags_text(0, false, out), "-");
    assert_string_equal(response_flags_text(RF(UPSTREAM_CONNECT_FAILURE) | RF(UPSTREAM_RETRY_LIMIT), false, out), "URX,UF");
    assert_string_equal(response_flags_text(RF(NO_ROUTE), true, out), "NoRouteFound");
    // all at once stay within the buffer
    assert_true(strlen(response_flags_text(UINT32_MAX, true, out)) < RF_TEXT_MAX);
}

static void text_as_flag(void **state)
{
    (void)state;
    assert_int_equal(response_flag_parse(STR("NR")), RF(NO_ROUTE));
    assert_int_equal(response_flag_parse(STR("UAEX")), RF(UNAUTHORIZED_EXTERNAL));
    assert_int_equal(response_flag_parse(STR("nr")), 0);
    assert_int_equal(response_flag_parse(STR("")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(flags_as_text), cmocka_unit_test(text_as_flag) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
