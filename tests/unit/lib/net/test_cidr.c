// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "lib/base/check.h"
#include "lib/base/rand.h"
#include "lib/net/cidr.h"

static struct cidr parse(const char *s)
{
    struct cidr c = { 0 };
    if (!cidr_parse(str_c(s), &c)) {
        fail_msg("refused: %s", s);
    }
    return c;
}

static struct addr ip(const char *s)
{
    struct addr a;
    assert_true(addr_parse_ip(str_c(s), 80, &a));
    return a;
}

static void test_parse(void **state)
{
    (void)state;
    char text[ADDR_TEXT_MAX];
    struct cidr c = parse("10.1.2.3/8");
    assert_int_equal(c.len, 8);
    assert_string_equal(addr_ip_text(&c.base, text), "10.0.0.0");
    c = parse("10.1.2.255/25");
    assert_string_equal(addr_ip_text(&c.base, text), "10.1.2.128");
    assert_int_equal(parse("1.2.3.4").len, 32);
    assert_int_equal(parse("::1").len, 128);
    c = parse("2001:db8:ffff::1/33");
    assert_string_equal(addr_ip_text(&c.base, text), "2001:db8:8000::");
    assert_int_equal(parse("0.0.0.0/0").len, 0);
    static const char *const bad[] = { "", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10/8", "10.0.0.0/8/8", "10.0.0.0/-1",
                                       "10.0.0.0/8 ", "a/8", "fe80::1%1/64" };
    for (size_t i = 0; i < array_len(bad); i++) {
        if (cidr_parse(str_c(bad[i]), &c)) {
            fail_msg("taken: %s", bad[i]);
        }
    }
}

static void test_contains(void **state)
{
    (void)state;
    struct cidr c = parse("10.128.0.0/9"), all = parse("0.0.0.0/0"), six = parse("fd00::/8"), all6 = parse("::/0");
    struct addr in = ip("10.200.1.1"), out = ip("10.127.255.255"), v6 = ip("fd12::1"), mapped = ip("::ffff:10.200.1.1"),
                none = { 0 };
    assert_true(cidr_contains(&c, &in) && cidr_contains(&all, &in) && cidr_contains(&all, &out));
    assert_false(cidr_contains(&c, &out) || cidr_contains(&c, &v6) || cidr_contains(&all, &v6));
    assert_true(cidr_contains(&six, &v6) && cidr_contains(&c, &mapped) && cidr_contains(&all6, &v6));
    assert_false(cidr_contains(&six, &in) || cidr_contains(&all6, &in) || cidr_contains(&all, &none));
}

static void test_trie(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct cidr_trie *t = cidr_trie_new(&a);
    static const char *const prefixes[] = { "10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "10.1.2.0/24", "10.1.2.3/32",
                                            "192.168.0.0/16", "fd00::/8", "fd00:1::/32" };
    for (size_t i = 0; i < array_len(prefixes); i++) {
        struct cidr c = parse(prefixes[i]);
        assert_null(cidr_trie_put(t, &c, (void *)prefixes[i]));
    }
    static const char *const cases[][2] = {
        { "10.1.2.3", "10.1.2.3/32" }, { "10.1.2.4", "10.1.2.0/24" }, { "10.1.3.1", "10.1.0.0/16" },
        { "10.2.0.1", "10.0.0.0/8" },  { "11.0.0.1", "0.0.0.0/0" },   { "192.168.7.7", "192.168.0.0/16" },
        { "fd00:1::9", "fd00:1::/32" }, { "fd77::1", "fd00::/8" },     { "::ffff:10.1.2.3", "10.1.2.3/32" },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct addr x = ip(cases[i][0]);
        assert_string_equal(cidr_trie_find(t, &x), cases[i][1]);
    }
    struct addr none = ip("2001::1"), zero = { 0 };
    assert_null(cidr_trie_find(t, &none));
    assert_null(cidr_trie_find(t, &zero));
    struct cidr c = parse("10.1.2.0/24"), absent = parse("10.1.2.0/23");
    assert_string_equal(cidr_trie_get_exact(t, &c), "10.1.2.0/24");
    assert_null(cidr_trie_get_exact(t, &absent));
    assert_string_equal(cidr_trie_put(t, &c, (void *)"new"), "10.1.2.0/24");
    assert_string_equal(cidr_trie_get_exact(t, &c), "new");
    arena_fini(&a);
}

// Random prefixes and addresses against looking through all of them.
static void test_trie_random(void **state)
{
    (void)state;
    enum { N = 300 };
    static struct cidr c[N];
    static int val[N];
    rand_seed(3);
    for (int family = 0; family < 2; family++) {
        struct arena a = { 0 };
        struct cidr_trie *t = cidr_trie_new(&a);
        for (int i = 0; i < N; i++) {
            char text[64];
            // Few distinct bits, so that prefixes nest and share.
            snprintf(text, sizeof(text), family ? "%x00:%x::/%u" : "%u.%u.0.0/%u", (unsigned)(rand_below(4) + 10),
                     (unsigned)(rand_below(8) * 32), (unsigned)rand_below(family ? 129 : 33));
            c[i] = parse(text);
            cidr_trie_put(t, &c[i], &val[i]);
        }
        for (int i = 0; i < 3000; i++) {
            struct addr x = c[rand_below(N)].base;
            x.ip[rand_below(family ? 6 : 4)] ^= (uint8_t)(1 << rand_below(8));
            int best = -1;
            for (int k = 0; k < N; k++) {
                if (cidr_contains(&c[k], &x) && (best < 0 || c[k].len >= c[best].len)) {
                    best = k; // of equal prefixes the last put wins
                }
            }
            assert_ptr_equal(cidr_trie_find(t, &x), best < 0 ? NULL : &val[best]);
        }
        arena_fini(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_contains),
        cmocka_unit_test(test_trie),
        cmocka_unit_test(test_trie_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
