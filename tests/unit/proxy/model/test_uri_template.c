// SPDX-License-Identifier: Apache-2.0
// Path templates against paths, and what they refuse.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/regex/regex.h"
#include "proxy/model/uri_template.h"

static struct arena arena;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static struct regex *compile(const char *template, struct uri_template *t)
{
    struct err err = { 0 };
    assert_int_equal(uri_template_parse(str_c(template), &arena, t, &err), 0);
    struct regex *re = regex_new(t->regex, &err);
    assert_non_null(re);
    return re;
}

static void paths_match(void **state)
{
    (void)state;
    static const struct {
        const char *template, *path;
        bool want;
    } cases[] = {
        { "/a", "/a", true },           { "/a", "/a/", false },         { "/a.b", "/axb", false },       { "/*", "/x", true },
        { "/*", "/", false },           { "/*/b", "/x/b", true },       { "/*/b", "/x/y/b", false },     { "/**", "/", true },
        { "/**", "/x/y", true },        { "/a/**", "/a/", true },       { "/a/**", "/a", false },        { "/{v}/b", "/x/b", true },
        { "/{v=a/*}/b", "/a/x/b", true }, { "/{v=a/*}/b", "/b/x/b", false }, { "/f.{ext}", "/f.js", true }, { "/a+b", "/a+b", true },
        { "/(x)", "/(x)", true },       { "/{r=**}", "/x/y/z", true },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct uri_template t;
        struct regex *re = compile(cases[i].template, &t);
        if (regex_full_match(re, str_c(cases[i].path)) != cases[i].want) {
            fail_msg("%s, %s: not %d", cases[i].template, cases[i].path, cases[i].want);
        }
        regex_free(re);
    }
}

static void bad_templates_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "", "a", "//", "/a//b", "/**/a", "/{", "/{}", "/{1a}", "/{a", "/{a=}", "/{a}{a}", "/{a={b}}", "/a?b",
                                       "/{a}/{b}/{c}/{d}/{e}/{f}", "/\x01", "/{a_name_much_too_long}" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct uri_template t;
        struct err err = { 0 };
        if (uri_template_parse(str_c(bad[i]), &arena, &t, &err) == 0) {
            fail_msg("\"%s\" was accepted", bad[i]);
        }
    }
}

static void variables_move(void **state)
{
    (void)state;
    struct uri_template t;
    struct err err = { 0 };
    struct str sub, out;
    struct regex *re = compile("/t/{country}/{lang=**}", &t);
    assert_int_equal(uri_template_rewrite(STR("/{lang}/in/{country}"), &t, &arena, &sub, &err), 0);
    assert_true(regex_replace_all(re, STR("/t/ch/de/rm"), sub, &arena, &out));
    assert_true(str_is(out, "/de/rm/in/ch"));
    assert_true(uri_template_rewrite(STR("/{nope}"), &t, &arena, &sub, &err) < 0);
    assert_true(uri_template_rewrite(STR("/{lang"), &t, &arena, &sub, &err) < 0);
    assert_true(uri_template_rewrite(STR("x"), &t, &arena, &sub, &err) < 0);
    assert_true(uri_template_rewrite(STR("/\\1"), &t, &arena, &sub, &err) < 0);
    regex_free(re);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(paths_match, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_templates_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(variables_move, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
