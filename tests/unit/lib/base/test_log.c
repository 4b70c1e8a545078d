// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/json.h"
#include "lib/base/log.h"

static char out[65536];
static int saved, pipe_fds[2];

static void capture(void)
{
    assert_int_equal(pipe2(pipe_fds, O_NONBLOCK), 0);
    saved = dup(2);
    dup2(pipe_fds[1], 2);
}

static const char *captured(void)
{
    dup2(saved, 2);
    close(saved);
    close(pipe_fds[1]);
    size_t n = 0;
    ssize_t k;
    while ((k = read(pipe_fds[0], out + n, sizeof(out) - 1 - n)) > 0) {
        n += (size_t)k;
    }
    close(pipe_fds[0]);
    out[n] = '\0';
    return out;
}

static int count(const char *s, const char *needle)
{
    int n = 0;
    while ((s = strstr(s, needle))) {
        n++;
        s++;
    }
    return n;
}

static void test_names(void **state)
{
    (void)state;
    for (int i = 0; i < LOGC_COUNT; i++) {
        assert_int_equal(log_component_parse(log_component_name((enum log_component)i)), i);
    }
    for (int i = 0; i < LOG_LEVELS; i++) {
        assert_int_equal(log_level_parse(log_level_name((enum log_level)i)), i);
    }
    assert_int_equal(log_level_parse("warn"), LOG_WARN);
    assert_int_equal(log_level_parse("WARNING"), LOG_WARN);
    assert_int_equal(log_level_parse("loud"), -1);
    assert_int_equal(log_level_parse(NULL), -1);
    assert_int_equal(log_component_parse("nothing"), -1);
    assert_null(log_component_name(LOGC_COUNT));
    assert_null(log_level_name(LOG_LEVELS));
}

// A stderr that nobody reads must not hold the process; who reads again learns how much is missing.
static void test_full_pipe(void **state)
{
    (void)state;
    static char junk[4096];
    int old = dup(2), p[2];
    assert_int_equal(pipe(p), 0);
    assert_true(fcntl(p[1], F_SETPIPE_SZ, 4 * sizeof(junk)) > 0);
    assert_int_equal(fcntl(p[1], F_SETFL, O_NONBLOCK), 0);
    while (write(p[1], junk, sizeof(junk)) > 0) {
    }
    assert_int_equal(fcntl(p[1], F_SETFL, 0), 0);
    assert_int_equal(fcntl(p[0], F_SETFL, O_NONBLOCK), 0);
    dup2(p[1], 2);
    alarm(60); // in place of waiting for ever
    for (int i = 0; i < 5; i++) {
        log_info(LOGC_POOL, 0, "nobody_reads", "%s", "");
    }
    alarm(0);
    while (read(p[0], junk, sizeof(junk)) > 0) {
    }
    log_info(LOGC_POOL, 0, "read_again", "%s", "");
    log_info(LOGC_POOL, 0, "as_ever", "%s", "");
    dup2(old, 2);
    memset(junk, 0, sizeof(junk));
    assert_true(read(p[0], junk, sizeof(junk) - 1) > 0);
    assert_int_equal(count(junk, "nobody_reads"), 0);
    assert_int_equal(count(junk, " read_again lost=5\n"), 1);
    assert_int_equal(count(junk, " as_ever\n"), 1);
    close(old);
    close(p[0]);
    close(p[1]);
}

static void test_text_line(void **state)
{
    (void)state;
    capture();
    log_info(LOGC_POOL, 42, "opened", "peer=%s bad=%s", "1.2.3.4:5", "a\nfake line");
    log_debug(LOGC_POOL, 0, "hidden", "%s", "");
    const char *s = captured();
    assert_int_equal(count(s, "\n"), 1);
    assert_non_null(strstr(s, " info    pool       opened id=42 peer=1.2.3.4:5 bad=a\\x0afake line\n"));
    assert_int_equal(s[4], '-');
    assert_int_equal(s[23], 'Z');
}

static void test_levels(void **state)
{
    (void)state;
    log_set_level(LOGC_DNS, LOG_TRACE);
    log_set_level(LOGC_CA, LOG_OFF);
    capture();
    log_trace(LOGC_DNS, 0, "seen", "%s", "");
    log_debug(LOGC_MAIN, 0, "unseen", "%s", "");
    log_error(LOGC_CA, 0, "unseen", "%s", "");
    const char *s = captured();
    assert_int_equal(count(s, "seen"), 1);
    assert_int_equal(count(s, "unseen"), 0);
    log_set_level(-1, LOG_INFO);
    assert_int_equal(log_levels[LOGC_DNS], LOG_INFO);
}

static void test_json_line(void **state)
{
    (void)state;
    log_set_json(true);
    capture();
    log_warn(LOGC_CONFIG, 7, "refused", "why=\"%s\"", "tab\there \\ back");
    const char *s = captured();
    log_set_json(false);
    struct arena a = { 0 };
    struct json *n;
    struct err err;
    assert_int_equal(json_parse(str_c(s), &a, &n, &err), 0);
    assert_true(str_is(json_str(n, "level"), "warning"));
    assert_true(str_is(json_str(n, "component"), "config"));
    assert_true(str_is(json_str(n, "event"), "refused"));
    assert_true(str_is(json_get(n, "id")->text, "7"));
    assert_true(str_is(json_str(n, "detail"), "why=\"tab\there \\ back\""));
    arena_fini(&a);
}

static void test_repeats_are_limited(void **state)
{
    (void)state;
    capture();
    for (int i = 0; i < 200; i++) {
        log_warn(LOGC_MAIN, 0, "again", "n=%d", i);
    }
    log_warn(LOGC_MAIN, 0, "other", "%s", "");
    const char *s = captured();
    int n = count(s, "again");
    assert_true(n >= 10 && n <= 20); // 20: a second began meanwhile
    assert_int_equal(count(s, "other"), 1);
    log_set_level(LOGC_MAIN, LOG_DEBUG);
    capture();
    for (int i = 0; i < 50; i++) {
        log_debug(LOGC_MAIN, 0, "wanted", "n=%d", i);
    }
    assert_int_equal(count(captured(), "wanted"), 50);
    log_set_level(-1, LOG_INFO);
}

static void test_long_line_is_cut(void **state)
{
    (void)state;
    static char big[10000];
    memset(big, '\1', sizeof(big) - 1); // grows fourfold as an escape
    for (int json = 0; json < 2; json++) {
        log_set_json(json);
        capture();
        log_info(LOGC_MAIN, 1, json ? "long_json" : "long_text", "%s", big);
        const char *s = captured();
        assert_true(strlen(s) <= 4096);
        assert_int_equal(count(s, "\n"), 1);
    }
    log_set_json(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),     cmocka_unit_test(test_full_pipe), cmocka_unit_test(test_text_line),           cmocka_unit_test(test_levels),
        cmocka_unit_test(test_json_line), cmocka_unit_test(test_repeats_are_limited), cmocka_unit_test(test_long_line_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
