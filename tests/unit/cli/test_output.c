// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cli/support.h"

#include "cli/output.h"

static struct arena a;

static const char *text(const struct table *t, bool color, bool headers)
{
    struct buf b = { 0 };
    table_write(t, &b, color, headers);
    return describe_take(&b, &a).p;
}

static void test_layout(void **state)
{
    struct table t;
    (void)state;
    table_init(&t, &a, 3);
    table_header(&t, "A\tLONG NAME\tC");
    table_row(&t, (struct str[]){ STR("wider"), STR(""), STR("") });
    table_row(&t, (struct str[]){ STR(""), STR("x"), STR("last is not padded") });
    // Padding stands before the last cell even when that is empty, and never behind it.
    assert_string_equal(text(&t, false, true), "A       LONG NAME   C\n"
                                               "wider               \n"
                                               "        x           last is not padded\n");
    // Without headers their width does not count.
    assert_string_equal(text(&t, false, false), "wider       \n"
                                                "        x   last is not padded\n");
    arena_fini(&a);
}

static void test_width_is_in_characters(void **state)
{
    struct table t;
    (void)state;
    table_init(&t, &a, 1);
    table_header(&t, "N\tM");
    table_row(&t, (struct str[]){ STR("żółw"), STR("1") });
    table_row(&t, (struct str[]){ STR("four"), STR("2") });
    assert_string_equal(text(&t, false, false), "żółw 1\nfour 2\n");
    arena_fini(&a);
}

static void test_no_escapes_from_names(void **state)
{
    struct table t;
    (void)state;
    table_init(&t, &a, 1);
    table_header(&t, "N");
    table_row(&t, (struct str[]){ STR("a\033[31mb\nc\x7f") });
    assert_string_equal(text(&t, false, false), "a?[31mb?c?\n");
    arena_fini(&a);
}

static void test_color_changes_no_width(void **state)
{
    struct table t;
    (void)state;
    table_init(&t, &a, 2);
    table_header(&t, "S\tFAILED");
    table_row(&t, (struct str[]){ STR("FAILED"), STR("plain") });
    assert_string_equal(text(&t, true, true), "S       FAILED\n\033[31mFAILED\033[0m  plain\n");
    arena_fini(&a);
}

static void test_many_rows(void **state)
{
    struct table t;
    (void)state;
    table_init(&t, &a, 1);
    table_header(&t, "I\tJ");
    for (int i = 0; i < 1000; i++) {
        table_row(&t, (struct str[]){ arena_printf(&a, "%d", i), STR("x") });
    }
    const char *s = text(&t, false, false);
    assert_int_equal(strlen(s), 1000 * strlen("999 x\n"));
    assert_memory_equal(s, "0   x\n1   x\n", 12);
    assert_string_equal(s + 999 * 6, "999 x\n");
    arena_fini(&a);
}

static void test_without_type(void **state)
{
    struct json *n;
    struct err err;
    struct cli c = { .arena = &a };
    (void)state;
    assert_int_equal(json_parse(STR("{\"a\":1,\"@type\":\"t\",\"b\":{\"@type\":\"kept\"}}"), &a, &n, &err), 0);
    c.o.format = FORMAT_YAML;
    output_tree(&c, output_without_type(n, &a));
    assert_string_equal(describe_take(&c.out, &a).p, "a: 1\nb:\n  \"@type\": kept\n");
    assert_int_equal(n->count, 3);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_width_is_in_characters),
        cmocka_unit_test(test_no_escapes_from_names),
        cmocka_unit_test(test_color_changes_no_width),
        cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_without_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
