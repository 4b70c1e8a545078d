// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/json.h"
#include "lib/base/mem.h"

static struct arena arena;
static struct err err;

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static struct json *parse(const char *text)
{
    struct json *n = NULL;
    err.msg[0] = '\0';
    int r = json_parse(str_c(text), &arena, &n, &err);
    assert_true((r == 0) == (n != NULL));
    return n;
}

static void refuse(const char *text, const char *message)
{
    if (parse(text)) {
        fail_msg("taken: %s", text);
    }
    assert_string_equal(err.msg, message);
}

static void test_values(void **state)
{
    (void)state;
    struct json *n = parse(" {\"a\": [1, -2.5e+3, true, false, null], \"b\": {\"c\": \"x\"}, \"\": 0}\r\n");
    assert_int_equal(n->type, JSON_OBJECT);
    assert_int_equal(n->count, 3);
    struct json *a = json_get(n, "a");
    assert_int_equal(a->count, 5);
    assert_int_equal(a->first->type, JSON_NUMBER);
    assert_true(str_is(a->first->next->text, "-2.5e+3"));
    assert_true(a->first->next->next->boolean);
    assert_int_equal(a->first->next->next->next->type, JSON_BOOL);
    assert_int_equal(a->first->next->next->next->next->type, JSON_NULL);
    assert_true(str_is(json_path(n, "b.c")->text, "x"));
    assert_null(json_path(n, "b.c.d"));
    assert_null(json_path(n, "b.x"));
    assert_true(str_is(json_str(json_get(n, "b"), "c"), "x"));
    assert_int_equal(json_str(n, "a").n, 0);
    assert_null(json_get(NULL, "a"));
    assert_null(json_get(a, "a"));
    assert_non_null(json_get(n, ""));
    assert_false(a->first->plain);
    assert_int_equal(parse("[]")->count, 0);
    assert_int_equal(parse("{}")->count, 0);
    assert_true(str_is(parse("\xef\xbb\xbf\"bom\"")->text, "bom"));
}

static void test_places(void **state)
{
    (void)state;
    struct json *n = parse("{\n  \"a\":\n    [1,\n  2]}");
    struct json *a = json_get(n, "a");
    assert_int_equal(n->line, 1);
    assert_int_equal(a->line, 3);
    assert_int_equal(a->col, 5);
    assert_int_equal(a->first->next->line, 4);
    assert_int_equal(a->first->next->col, 3);
}

static void test_strings(void **state)
{
    (void)state;
    assert_true(str_is(parse("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"")->text, "\"\\/\b\f\n\r\t"));
    assert_true(str_is(parse("\"\\u0041\\u00e9\\u20AC\\ud83d\\uDE00\"")->text, "Aé€😀"));
    struct str s = parse("\"a\\u0000b\"")->text;
    assert_int_equal(s.n, 3);
    assert_memory_equal(s.p, "a\0b", 4);
    assert_true(str_is(parse("\"é€😀\"")->text, "é€😀"));
    refuse("\"\\x41\"", "line 1, column 2: unknown escape in a string");
    refuse("\"\\u12g4\"", "line 1, column 2: \\u needs four hexadecimal digits");
    refuse("\"\\ud83d\"", "line 1, column 2: half of a surrogate pair");
    refuse("\"\\ud83d\\u0041\"", "line 1, column 2: half of a surrogate pair");
    refuse("\"\\ude00\"", "line 1, column 2: half of a surrogate pair");
    refuse("\"a\nb\"", "line 1, column 3: a control character in a string; write it as an escape");
    refuse("\"abc", "line 1, column 1: a string without its closing quote");
    refuse("\"abc\\", "line 1, column 1: a string without its closing quote");
    refuse("\"abc\\\"", "line 1, column 1: a string without its closing quote");
    static const char *const bad[] = { "\x80", "\xc0\xaf", "\xc3", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80",
                                       "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xff", "\xe2\x82" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[16];
        snprintf(text, sizeof(text), "\"%s\"", bad[i]);
        refuse(text, "line 1, column 2: bytes that are not UTF-8");
    }
}

static void test_numbers(void **state)
{
    (void)state;
    static const char *const good[] = { "0", "-0", "10", "0.5", "1e5", "1E-5", "-1.25e+10", "123456789012345678901234567890" };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_string_equal(parse(good[i])->text.p, good[i]);
    }
    static const char *const bad[] = { "01", "-", "+1", ".5", "1.", "1e", "1e+", "0x10", "NaN", "Infinity", "1_0", "tru", "nul",
                                       "truee", "None" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse(bad[i], "line 1, column 1: neither a number nor true, false or null; text needs quotes");
    }
}

static void test_structure_errors(void **state)
{
    (void)state;
    refuse("", "line 1, column 1: the text ends where a value is expected");
    refuse("[1,\n2", "line 2, column 2: expected ',' or ']' in an array");
    refuse("[1 2]", "line 1, column 4: expected ',' or ']' in an array");
    refuse("[1,]", "line 1, column 4: expected a value");
    refuse("[,1]", "line 1, column 2: expected a value");
    refuse("{\"a\" 1}", "line 1, column 6: expected ':' behind a key");
    refuse("{\"a\":1,}", "line 1, column 8: expected a key in quotes");
    refuse("{a:1}", "line 1, column 2: expected a key in quotes");
    refuse("{\"a\":1 \"b\":2}", "line 1, column 8: expected ',' or '}' in an object");
    refuse("{\"a\":", "line 1, column 6: the text ends where a value is expected");
    refuse("{\"a\":1}\n x", "line 2, column 2: more text behind the value");
    refuse("// c\n1", "line 1, column 1: expected a value");
    struct json *n = NULL;
    assert_true(json_parse(str_n("1\0", 2), &arena, &n, &err) < 0);
    assert_true(json_parse(str_n(NULL, 0), &arena, &n, NULL) < 0); // no err is fine
    assert_null(n);
}

static void test_duplicate_keys(void **state)
{
    (void)state;
    refuse("{\"a\":1,\n \"b\":2, \"a\":3}", "line 2, column 9: the key \"a\" is there twice");
    assert_non_null(parse("{\"a\":{\"a\":1}}"));
    // Same beyond the size where a table takes over, and in each position.
    for (int dup = 0; dup <= 40; dup += 4) {
        char text[1024];
        int n = snprintf(text, sizeof(text), "{");
        for (int i = 0; i < 40; i++) {
            n += snprintf(text + n, sizeof(text) - (size_t)n, "\"k%d\":%d,", i, i);
        }
        snprintf(text + n, sizeof(text) - (size_t)n, "\"k%d\":0}", dup);
        if (dup == 40) {
            assert_int_equal(parse(text)->count, 41);
        } else {
            assert_null(parse(text));
            assert_non_null(strstr(err.msg, "is there twice"));
        }
    }
}

static void test_depth(void **state)
{
    (void)state;
    char text[400] = { 0 };
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    assert_non_null(parse(text));
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    refuse(text, "line 1, column 65: nested deeper than 64 levels");
}

static void test_memory_limit(void **state)
{
    (void)state;
    struct arena small;
    struct json *n;
    arena_init(&small, 0, 1000);
    assert_true(json_parse(STR("[1,2,3,4,5,6,7,8,9,10,11,12]"), &small, &n, &err) < 0);
    assert_non_null(strstr(err.msg, "memory limit"));
    arena_fini(&small);
}

static char *written(struct buf *b)
{
    static char out[4096];
    size_t n = buf_peek(b, 0, out, sizeof(out) - 1);
    out[n] = '\0';
    buf_clear(b);
    return out;
}

static void test_writer(void **state)
{
    (void)state;
    struct buf b = { 0 };
    struct json_writer w;
    jw_init(&w, &b, 0);
    jw_object(&w);
    jw_kv(&w, "s", STR("a\"\\\n\x01\x7f"
                       "\xff"
                       "é"));
    jw_kv_bool(&w, "t", true);
    jw_kv_u64(&w, "u", UINT64_MAX);
    jw_key(&w, STR("i"));
    jw_i64(&w, INT64_MIN);
    jw_key(&w, STR("e"));
    jw_array(&w);
    jw_array_end(&w);
    jw_key(&w, STR("d"));
    jw_array(&w);
    jw_double(&w, 0.1);
    jw_double(&w, 3);
    jw_double(&w, 1.0 / 0.0);
    jw_null(&w);
    jw_raw(&w, STR("{\"r\":1}"));
    jw_array_end(&w);
    jw_object_end(&w);
    assert_string_equal(written(&b), "{\"s\":\"a\\\"\\\\\\n\\u0001\\u007f\xef\xbf\xbdé\",\"t\":true,\"u\":18446744073709551615,"
                                     "\"i\":-9223372036854775808,\"e\":[],\"d\":[0.1,3,\"Infinity\",null,{\"r\":1}]}");
    jw_init(&w, &b, 2);
    jw_tree(&w, parse("{\"a\":[1,{\"b\":{}}],\"c\":\"\"}"));
    assert_string_equal(written(&b), "{\n  \"a\": [\n    1,\n    {\n      \"b\": {}\n    }\n  ],\n  \"c\": \"\"\n}");
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char *const texts[] = { "{\"a\":[1,-2.5,true,null],\"b\":\"\\u0001x\"}", "[]", "[[],[[]],{}]", "\"\"" };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct buf b = { 0 };
        struct json_writer w;
        jw_init(&w, &b, 0);
        jw_tree(&w, parse(texts[i]));
        assert_string_equal(written(&b), texts[i]);
    }
}

static void test_either(void **state)
{
    (void)state;
    struct json *n;
    assert_int_equal(json_or_yaml_parse(STR("\n {\"a\":1}"), &arena, &n, &err), 0);
    assert_false(json_get(n, "a")->plain);
    assert_int_equal(json_or_yaml_parse(STR("a: 1\n"), &arena, &n, &err), 0);
    assert_true(json_get(n, "a")->plain);
    assert_null(n->next);
    assert_true(json_or_yaml_parse(STR("a: 1\n---\nb: 2\n"), &arena, &n, &err) < 0);
    assert_string_equal(err.msg, "line 3: a second YAML document; expected one");
    assert_true(json_or_yaml_parse(STR(" # nothing\n"), &arena, &n, &err) < 0);
    assert_string_equal(err.msg, "the text is empty");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_values, teardown),
        cmocka_unit_test_teardown(test_places, teardown),
        cmocka_unit_test_teardown(test_strings, teardown),
        cmocka_unit_test_teardown(test_numbers, teardown),
        cmocka_unit_test_teardown(test_structure_errors, teardown),
        cmocka_unit_test_teardown(test_duplicate_keys, teardown),
        cmocka_unit_test_teardown(test_depth, teardown),
        cmocka_unit_test_teardown(test_memory_limit, teardown),
        cmocka_unit_test_teardown(test_writer, teardown),
        cmocka_unit_test_teardown(test_round_trip, teardown),
        cmocka_unit_test_teardown(test_either, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
