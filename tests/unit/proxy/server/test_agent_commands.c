// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/server/agent_commands.h"

static void numbers_of_flags(void **state)
{
    (void)state;
    char *argv[] = { "--periodMillis=250", "--timeoutSeconds", "9", "--periodMillisX=1", "--timeoutSeconds=never", "--timeoutSeconds" };
    unsigned long v = 7;
    int i = 0;
    assert_int_equal(agent_flag_number(6, argv, &i, "--timeoutSeconds", 60, &v), 0);
    assert_int_equal(agent_flag_number(6, argv, &i, "--periodMillis", 1000, &v), 1);
    assert_int_equal(v, 250);
    assert_int_equal(agent_flag_number(6, argv, &i, "--periodMillis", 100, &v), -1);
    i = 1;
    assert_int_equal(agent_flag_number(6, argv, &i, "--timeoutSeconds", 60, &v), 1);
    assert_int_equal(v, 9);
    assert_int_equal(i, 2);
    i = 3;
    assert_int_equal(agent_flag_number(6, argv, &i, "--periodMillis", 1000, &v), 0);
    i = 4;
    assert_int_equal(agent_flag_number(6, argv, &i, "--timeoutSeconds", 60, &v), -1);
    i = 5;
    assert_int_equal(agent_flag_number(6, argv, &i, "--timeoutSeconds", 60, &v), -1);
    assert_int_equal(v, 9);
}

static void other_command_lines_are_the_proxys(void **state)
{
    (void)state;
    char *sidecar[] = { "pilot-agent", "proxy", "sidecar", "wait" }, *file[] = { "remora-proxy", "-c", "wait" }, *none[] = { "remora-proxy" };
    int status = 7;
    assert_false(agent_command(4, sidecar, &status));
    assert_false(agent_command(3, file, &status));
    assert_false(agent_command(1, none, &status));
    assert_int_equal(status, 7);
}

static void command_lines_that_are_wrong(void **state)
{
    (void)state;
    char *port[] = { "pilot-agent", "request", "--debug-port=80", "GET", "stats" }, *words[] = { "pilot-agent", "request", "GET" };
    char *url[] = { "pilot-agent", "wait", "--url=ftp://x/" };
    int status = 0;
    assert_true(agent_command(5, port, &status));
    assert_int_equal(status, 1);
    status = 0;
    assert_true(agent_command(3, words, &status));
    assert_int_equal(status, 1);
    status = 0;
    assert_true(agent_command(3, url, &status));
    assert_int_equal(status, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(numbers_of_flags), cmocka_unit_test(other_command_lines_are_the_proxys),
                                        cmocka_unit_test(command_lines_that_are_wrong) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
