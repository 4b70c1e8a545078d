// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/regex/regex.h"

static void full_match_needs_the_whole_text(void **state)
{
    (void)state;
    struct regex *r = regex_new(STR("/api/v[0-9]+/.*"), NULL);
    assert_non_null(r);
    assert_true(regex_full_match(r, STR("/api/v12/x")));
    assert_false(regex_full_match(r, STR("x/api/v12/x")));
    assert_false(regex_full_match(r, STR("")));
    regex_free(r);
}

static void full_match_sees_all_alternatives(void **state)
{
    (void)state;
    struct regex *r = regex_new(STR("a|ab"), NULL);
    assert_true(regex_full_match(r, STR("ab")));
    assert_false(regex_full_match(r, STR("abc")));
    regex_free(r);
}

static void search_finds_a_part(void **state)
{
    (void)state;
    struct regex *r = regex_new(STR("up_(cx|rq)"), NULL);
    assert_true(regex_search(r, STR("cluster.up_rq_total")));
    assert_false(regex_search(r, STR("cluster.down")));
    regex_free(r);
}

static void text_may_hold_nul(void **state)
{
    (void)state;
    struct regex *r = regex_new(STR("a.b"), NULL);
    assert_true(regex_full_match(r, str_n("a\0b", 3)));
    regex_free(r);
}

static void bad_patterns_say_why(void **state)
{
    (void)state;
    struct err e = { 0 };
    assert_null(regex_new(STR("a(b"), &e));
    assert_string_equal(e.msg, "missing ): a(b");
    assert_null(regex_new(STR("(?=x)"), &e)); // look-ahead is not RE2
    static char big[REGEX_LENGTH_MAX + 1];
    memset(big, 'a', sizeof(big));
    assert_null(regex_new(str_n(big, sizeof(big)), &e));
    assert_non_null(strstr(e.msg, "16385 bytes"));
}

static void memory_is_bounded(void **state)
{
    (void)state;
    struct err e = { 0 };
    assert_null(regex_new(STR("((((a{100}){100}){100}){100})"), &e));
}

static void replace_uses_groups(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct str out = { 0 };
    struct regex *r = regex_new(STR("/svc/([^/]+)(/.*)"), NULL);
    assert_true(regex_replace_all(r, STR("/svc/cart/items"), STR("/\\1-v2\\2"), &a, &out));
    assert_true(str_is(out, "/cart-v2/items"));
    struct str same = out;
    assert_false(regex_replace_all(r, STR("/svc/cart/items"), STR("\\7"), &a, &out));
    assert_ptr_equal(out.p, same.p);
    regex_free(r);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_match_needs_the_whole_text), cmocka_unit_test(full_match_sees_all_alternatives),
        cmocka_unit_test(search_finds_a_part),             cmocka_unit_test(text_may_hold_nul),
        cmocka_unit_test(bad_patterns_say_why),            cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(replace_uses_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
