// SPDX-License-Identifier: Apache-2.0
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
// cmocka needs those four first
#include <cmocka.h>

#include "lib/base/check.h"
#include "lib/tls/verify.h"

static bool one(enum san_type t, const char *name, enum san_type mt, enum san_match how, bool nocase, const char *value)
{
    struct san s = { t, str_c(name) };
    struct san_matcher m = { mt, how, nocase, str_c(value) };
    return san_match_any(&s, 1, &m, 1);
}

static void test_kinds(void **st)
{
    (void)st;
    const char *id = "spiffe://td/ns/a/sa/b";
    assert_true(one(SAN_URI, id, SAN_URI, SAN_EXACT, false, id));
    assert_true(one(SAN_URI, id, SAN_ANY, SAN_EXACT, false, id));
    assert_false(one(SAN_URI, id, SAN_DNS, SAN_EXACT, false, id));
    assert_false(one(SAN_URI, id, SAN_URI, SAN_EXACT, false, "spiffe://td/ns/a/sa/"));
    assert_false(one(SAN_URI, id, SAN_URI, SAN_EXACT, false, "SPIFFE://td/ns/a/sa/b"));
    assert_true(one(SAN_URI, id, SAN_URI, SAN_EXACT, true, "SPIFFE://td/ns/a/sa/b"));
    assert_true(one(SAN_URI, id, SAN_URI, SAN_PREFIX, false, "spiffe://td/"));
    assert_false(one(SAN_URI, id, SAN_URI, SAN_PREFIX, false, "spiffe://td/ns/a/sa/bc"));
    assert_true(one(SAN_URI, id, SAN_URI, SAN_PREFIX, true, "SPIFFE://TD/"));
    assert_true(one(SAN_URI, id, SAN_URI, SAN_SUFFIX, false, "/sa/b"));
    assert_false(one(SAN_URI, id, SAN_URI, SAN_SUFFIX, false, "/sa/a"));
    assert_true(one(SAN_URI, id, SAN_URI, SAN_SUFFIX, true, "/SA/B"));
    assert_true(one(SAN_URI, id, SAN_URI, SAN_CONTAINS, false, "/ns/a/"));
    assert_true(one(SAN_URI, id, SAN_URI, SAN_CONTAINS, true, "/NS/A/"));
    assert_false(one(SAN_URI, id, SAN_URI, SAN_CONTAINS, true, "/NS/C/"));
    assert_true(one(SAN_IP, "10.0.0.1", SAN_IP, SAN_EXACT, false, "10.0.0.1"));
}

static void test_dns(void **st)
{
    (void)st;
    assert_true(one(SAN_DNS, "Example.COM", SAN_DNS, SAN_EXACT, false, "example.com"));
    assert_true(one(SAN_DNS, "*.example.com", SAN_DNS, SAN_EXACT, false, "a.example.com"));
    assert_true(one(SAN_DNS, "*.example.com", SAN_ANY, SAN_EXACT, false, "a.EXAMPLE.com"));
    assert_false(one(SAN_DNS, "*.example.com", SAN_DNS, SAN_EXACT, false, "a.b.example.com"));
    assert_false(one(SAN_DNS, "*.example.com", SAN_DNS, SAN_EXACT, false, "example.com"));
    assert_false(one(SAN_DNS, "*.example.com", SAN_DNS, SAN_EXACT, false, ".example.com"));
    assert_false(one(SAN_DNS, "*", SAN_DNS, SAN_EXACT, false, "com"));
    assert_false(one(SAN_DNS, "a*.example.com", SAN_DNS, SAN_EXACT, false, "ab.example.com"));
    // Only names in certificates may hold a wildcard.
    assert_false(one(SAN_DNS, "a.example.com", SAN_DNS, SAN_EXACT, false, "*.example.com"));
    // And only DNS names.
    assert_false(one(SAN_URI, "*.example.com", SAN_ANY, SAN_EXACT, false, "a.example.com"));
}

static void test_lists(void **st)
{
    (void)st;
    struct san names[] = { { SAN_DNS, STR_INIT("x") }, { SAN_URI, STR_INIT("spiffe://a") } };
    struct san_matcher m[] = { { SAN_URI, SAN_EXACT, false, STR_INIT("spiffe://b") }, { SAN_URI, SAN_EXACT, false, STR_INIT("spiffe://a") } };
    assert_true(san_match_any(names, 2, m, 2));
    assert_false(san_match_any(names, 2, m, 1));
    assert_false(san_match_any(names, 1, m, 2));
    assert_false(san_match_any(NULL, 0, m, 2));
    assert_true(san_match_any(NULL, 0, NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_dns),
        cmocka_unit_test(test_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
