// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "lib/http/url.h"

static void authorities(void **state)
{
    (void)state;
    const struct {
        const char *in, *host; // host NULL: malformed
        int port;
    } t[] = {
        { "h", "h", 0 }, { "h:80", "h", 80 }, { "H.Ns.:65535", "H.Ns.", 65535 }, { "10.0.0.1:1", "10.0.0.1", 1 },
        { "[::1]:80", "::1", 80 }, { "[fe80::1%eth0]", "fe80::1%eth0", 0 }, { "[::ffff:1.2.3.4]", "::ffff:1.2.3.4", 0 },
        { "a_b:8080", "a_b", 8080 }, { "", NULL, 0 }, { ":80", NULL, 0 }, { "h:", NULL, 0 }, { "h:0", NULL, 0 },
        { "h:65536", NULL, 0 }, { "h:000080", NULL, 0 }, { "h:8 0", NULL, 0 }, { "h:80:80", NULL, 0 }, { "::1", NULL, 0 },
        { "[::1", NULL, 0 }, { "[::1]80", NULL, 0 }, { "[::1]:", NULL, 0 }, { "[]", NULL, 0 }, { "[h]", NULL, 0 },
        { "[1:2:3:4:5:6:7:8:9]", NULL, 0 }, { "[::1%]", NULL, 0 }, { "u@h", NULL, 0 }, { "h/", NULL, 0 }, { "h,i", NULL, 0 },
        { "h%20", NULL, 0 }, { "h\x80", NULL, 0 }, { " h", NULL, 0 },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct str host = STR("unset");
        uint16_t port = 7;
        bool ok = url_split_authority(str_c(t[i].in), &host, &port);
        assert_int_equal(ok, t[i].host != NULL);
        assert_true(str_is(host, ok ? t[i].host : "unset"));
        assert_int_equal(port, ok ? t[i].port : 7);
    }
}

static void split_path(void **state)
{
    (void)state;
    struct str q;
    assert_true(str_is(url_split_path(STR("/a?b=c?d#e"), &q), "/a"));
    assert_true(str_is(q, "b=c?d"));
    assert_true(str_is(url_split_path(STR("/a#b?c"), &q), "/a"));
    assert_null(q.p);
    assert_true(str_is(url_split_path(STR("/a?"), &q), "/a"));
    assert_non_null(q.p);
    assert_int_equal(q.n, 0);
}

static void decode(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct str s;
    assert_true(url_decode(STR("a%20%2Fb%c3%A9"), &a, &s));
    assert_true(str_is(s, "a /b\xc3\xa9"));
    assert_true(url_decode(STR("%00"), &a, &s));
    assert_int_equal(s.n, 1);
    const char *bad[] = { "%", "%2", "a%2", "%zz", "%2g" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(url_decode(str_c(bad[i]), &a, &s));
    }
    arena_fini(&a);
}

static void normalize(void **state)
{
    (void)state;
    const struct {
        const char *in, *plain, *merged; // NULL: refused
    } t[] = {
        { "/", "/", "/" }, { "/a/b", "/a/b", "/a/b" }, { "/a/./b", "/a/b", "/a/b" }, { "/a/../b", "/b", "/b" }, { "/a/..", "/", "/" },
        { "/a/.", "/a/", "/a/" }, { "/a/b/../..", "/", "/" }, { "/..", NULL, NULL }, { "/a/../..", NULL, NULL }, { "/../a", NULL, NULL },
        { "//a//b", "//a//b", "/a/b" }, { "/a//", "/a//", "/a/" }, { "/a//../b", "/a/b", "/b" }, { "/.a/..b/...", "/.a/..b/...", "/.a/..b/..." },
        { "/a/./?x=/../y//z", "/a/?x=/../y//z", "/a/?x=/../y//z" }, { "/a?..", "/a?..", "/a?.." }, { "", NULL, NULL }, { "a", NULL, NULL },
        { "//", "//", "/" }, { "/./", "/", "/" }, { "///..", "//", NULL },
    };
    struct arena a = { 0 };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        for (int merge = 0; merge < 2; merge++) {
            const char *want = merge ? t[i].merged : t[i].plain;
            struct str s = STR("unset");
            bool ok = url_normalize_path(str_c(t[i].in), merge, &a, &s);
            if (ok != (want != NULL) || !str_is(s, want ? want : "unset")) {
                fail_msg("%s merge=%d gave %.*s", t[i].in, merge, STR_FMT(s));
            }
        }
    }
    struct str s;
    assert_false(url_normalize_path(str_n("/a\0b", 4), false, &a, &s));
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(authorities),
        cmocka_unit_test(split_path),
        cmocka_unit_test(decode),
        cmocka_unit_test(normalize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
