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

static struct json *docs(const char *text)
{
    struct json *n = NULL;
    err.msg[0] = '\0';
    int r = yaml_parse(str_c(text), &arena, &n, &err);
    assert_true((r == 0) == (n != NULL));
    return n;
}

static struct json *parse(const char *text)
{
    struct json *n = docs(text);
    if (!n) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(n->count, 1);
    return n->first;
}

static void refuse(const char *text, const char *message)
{
    if (docs(text)) {
        fail_msg("taken: %s", text);
    }
    if (!strstr(err.msg, message)) {
        fail_msg("got: %s, want: %s", err.msg, message);
    }
}

static void test_scalars(void **state)
{
    (void)state;
    struct json *n = parse("a: 1\nb: 'true'\nc: true\nd: ~\ne:\nf: on\ng: 0644\nh: -1.5e3\ni: !!str 12\nj: \"x\\n\"\nk: False\n"
                           "l: |\n  x\n  y\nm: !!int 5\nn: 1.2.3\n");
    assert_int_equal(json_get(n, "a")->type, JSON_NUMBER);
    assert_true(json_get(n, "a")->plain);
    assert_int_equal(json_get(n, "b")->type, JSON_STRING);
    assert_false(json_get(n, "b")->plain);
    assert_int_equal(json_get(n, "c")->type, JSON_BOOL);
    assert_true(json_get(n, "c")->boolean);
    assert_int_equal(json_get(n, "d")->type, JSON_NULL);
    assert_int_equal(json_get(n, "e")->type, JSON_NULL);
    assert_true(str_is(json_str(n, "f"), "on"));
    assert_true(str_is(json_str(n, "g"), "0644"));
    assert_int_equal(json_get(n, "h")->type, JSON_NUMBER);
    assert_true(str_is(json_str(n, "i"), "12"));
    assert_false(json_get(n, "i")->plain);
    assert_true(str_is(json_str(n, "j"), "x\n"));
    assert_false(json_get(n, "k")->boolean);
    assert_true(str_is(json_get(n, "k")->text, "False"));
    assert_true(str_is(json_str(n, "l"), "x\ny\n"));
    assert_int_equal(json_get(n, "m")->type, JSON_NUMBER);
    assert_int_equal(json_get(n, "n")->type, JSON_STRING);
}

static void test_places(void **state)
{
    (void)state;
    struct json *n = parse("a:\n  - b: 1\n    c: x\n");
    struct json *c = json_get(json_get(n, "a")->first, "c");
    assert_int_equal(c->line, 3);
    assert_int_equal(c->col, 8);
}

static void test_documents(void **state)
{
    (void)state;
    struct json *n = docs("---\n# nothing\n---\na: 1\n---\n\n---\n- 2\n...\n");
    assert_int_equal(n->count, 2);
    assert_int_equal(n->first->type, JSON_OBJECT);
    assert_int_equal(n->first->next->type, JSON_ARRAY);
    assert_null(n->first->next->next);
    assert_int_equal(docs("")->count, 0);
    assert_int_equal(docs("# only a comment")->count, 0);
    assert_int_equal(docs("''")->count, 1); // empty text is not an empty document
}

static void test_aliases(void **state)
{
    (void)state;
    struct json *n = parse("base: &b {x: [1, 2]}\nsame: *b\nlist: [*b, &s text, *s]\n");
    assert_true(str_is(json_path(n, "same.x")->first->next->text, "2"));
    assert_true(str_is(json_get(n, "same")->key, "same"));
    assert_true(str_is(json_get(n, "base")->key, "base"));
    struct json *list = json_get(n, "list");
    assert_int_equal(list->count, 3);
    assert_int_equal(list->first->key.n, 0);
    assert_true(str_is(list->first->next->next->text, "text"));
    assert_true(str_is(parse("[&a 1, &a 2, *a]")->first->next->next->text, "2")); // the latest counts
    refuse("a: *missing\n", "line 1, column 4: an alias without its anchor");
    refuse("&a [*a]\n", "line 1, column 5: an alias inside the value it stands for");
    refuse("a: &x 1\n---\nb: *x\n", "line 3, column 4: an alias without its anchor");
}

// Each level ten times the one before: 10^9 values if it were walked.
static void test_alias_bomb(void **state)
{
    (void)state;
    char text[2048];
    int n = snprintf(text, sizeof(text), "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 10; i++) {
        n += snprintf(text + n, sizeof(text) - (size_t)n, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++) {
            n += snprintf(text + n, sizeof(text) - (size_t)n, "%s*a%d", k ? "," : "", i - 1);
        }
        n += snprintf(text + n, sizeof(text) - (size_t)n, "]\n");
    }
    refuse(text, "aliases counted out");
    // Many aliases of something small.
    char *many = mem_alloc(20000);
    n = snprintf(many, 20000, "- &a x\n");
    for (int i = 0; i < YAML_ALIASES_MAX; i++) {
        n += snprintf(many + n, (size_t)(20000 - n), "- *a\n");
    }
    assert_int_equal(parse(many)->count, YAML_ALIASES_MAX + 1);
    snprintf(many + n, (size_t)(20000 - n), "- *a\n");
    refuse(many, "more than 1000 aliases");
    free(many);
}

static void test_depth(void **state)
{
    (void)state;
    char text[600] = { 0 };
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    assert_non_null(parse(text));
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    refuse(text, "line 1, column 65: nested deeper than 64 levels");
    // Through aliases: 40 levels inside 40 levels.
    char deep[600];
    memset(text, 0, sizeof(text));
    memset(text, '[', 40);
    memset(text + 40, ']', 40);
    snprintf(deep, sizeof(deep), "- &a %s\n- %.40s*a%.40s\n", text, text, text + 40);
    refuse(deep, "nested deeper than 64 levels");
}

static void test_refusals(void **state)
{
    (void)state;
    refuse("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key \"a\" is there twice");
    refuse("a: !custom 1\n", "line 1, column 4: a tag that is not known here");
    refuse("a: !!binary aGk=\n", "line 1, column 4: a tag that is not known here");
    refuse("a: !!set {x: 1}\n", "a tag that is not known here");
    refuse("a: !!int abc\n", "the value does not fit its tag");
    refuse("a: !!map 1\n", "a tag that is not known here");
    refuse("? [1]\n: 2\n", "line 1, column 3: a key must be plain text");
    refuse("<<: {a: 1}\n", "line 1, column 1: merge keys (<<) are not taken");
    refuse("a: [1\n", "line 2, column 1");
    refuse("a: b: c\n", "line 1, column 5");
    refuse("a:\n\t- 1\n", "line 2, column 1");
    refuse("a: \"x\n", "line ");
    refuse("a: \xff\n", "line ");
    refuse("a: \x01\n", "line ");
    refuse("%YAML 3.0\n---\na: 1\n", "line 1");
}

static char *yaml_of(const char *json)
{
    static char out[4096];
    struct json *n;
    struct buf b = { 0 };
    assert_int_equal(json_parse(str_c(json), &arena, &n, &err), 0);
    yaml_write(&b, n);
    size_t k = buf_peek(&b, 0, out, sizeof(out) - 1);
    out[k] = '\0';
    buf_clear(&b);
    return out;
}

static void test_write(void **state)
{
    (void)state;
    assert_string_equal(yaml_of("{\"a\":{\"b\":[1,{\"c\":true,\"d\":[]},[2,3]]},\"e\":{}}"),
                        "a:\n  b:\n  - 1\n  - c: true\n    d: []\n  - - 2\n    - 3\ne: {}\n");
    assert_string_equal(yaml_of("[\"\",\"true\",\"null\",\"1\",\"on\",\"x: y\",\"a#b\",\"- x\",\"a\\nb\",\"plain text\",\"/p\"]"),
                        "- \"\"\n- \"true\"\n- \"null\"\n- \"1\"\n- \"on\"\n- \"x: y\"\n- \"a#b\"\n- \"- x\"\n- \"a\\nb\"\n"
                        "- plain text\n- /p\n");
    assert_string_equal(yaml_of("null"), "null\n");
}

// What yaml_write writes, yaml_parse reads as the same tree.
static void test_write_reads_back(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"a b\":\"c: d\",\"#\":\"'\",\"y\":\"no\",\"k\":[[],{},[[\"x\"]],null,-1.5,\"-1\",\"~\",\"0x1\",\"1e3\",\".\",\"..\",\"=\"]}",
        "[\"a,b\",\"a ,b\",\" a\",\"a \",\"é\",\"\\u0000\",\"\\u007f\",\"\\t\",\"a: \",\"a:\",\":a\",\"@a\",\"*a\",\"&a\",\"!a\",\"%a\"]",
        "[\"2026-01-01\",\"12:30:45\",\"a:b\",\"[x]\",\"{x}\",\"a\\\\b\",\"\\u2028\",\"\\ufeff\",\"---\",\"...\",\"? x\",\"<<\"]",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct json *n = parse(yaml_of(texts[i]));
        struct json *want;
        assert_int_equal(json_parse(str_c(texts[i]), &arena, &want, &err), 0);
        struct buf a = { 0 }, b = { 0 };
        struct json_writer w;
        jw_init(&w, &a, 0);
        jw_tree(&w, n);
        jw_init(&w, &b, 0);
        jw_tree(&w, want);
        assert_true(str_eq(buf_pullup(&a, a.len), buf_pullup(&b, b.len)));
        buf_clear(&a);
        buf_clear(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_scalars, teardown),   cmocka_unit_test_teardown(test_places, teardown),
        cmocka_unit_test_teardown(test_documents, teardown), cmocka_unit_test_teardown(test_aliases, teardown),
        cmocka_unit_test_teardown(test_alias_bomb, teardown), cmocka_unit_test_teardown(test_depth, teardown),
        cmocka_unit_test_teardown(test_refusals, teardown),  cmocka_unit_test_teardown(test_write, teardown),
        cmocka_unit_test_teardown(test_write_reads_back, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
