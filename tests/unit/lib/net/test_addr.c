// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "lib/base/check.h"
#include "lib/net/addr.h"

static void test_round_trip(void **state)
{
    (void)state;
    static const char *const same[] = { "1.2.3.4:80",     "0.0.0.0:0",         "255.255.255.255:65535", "[::1]:15006",
                                        "[2001:db8::1]:1", "[::ffff:1.2.3.4]:9", "unix:///run/x.sock",    "unix://@abstract" };
    for (size_t i = 0; i < array_len(same); i++) {
        struct addr a, b;
        char text[ADDR_TEXT_MAX];
        assert_true(addr_parse(str_c(same[i]), &a));
        assert_string_equal(addr_text(&a, text), same[i]);
        struct sockaddr_storage ss;
        socklen_t len = addr_to_sockaddr(&a, &ss);
        assert_true(len > 0 && addr_from_sockaddr((struct sockaddr *)&ss, len, &b));
        if (a.family != AF_UNIX) {
            assert_true(addr_eq(&a, &b));
            assert_int_equal(addr_hash(&a), addr_hash(&b));
        } else {
            assert_string_equal(b.path, "");
        }
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:+1", "1.2.3:80", "::1:80",
                                       "[::1]", "[::1]80", "[1.2.3.4]:80", "localhost:80", "1.2.3.4:80 ", "01.2.3.4.5:1", ":80",
                                       "unix://", "[::1]:8a", "[::g]:1", "256.1.1.1:1", "1.2.3.4 :80" };
    for (size_t i = 0; i < array_len(bad); i++) {
        struct addr a = { .port = 7 };
        if (addr_parse(str_c(bad[i]), &a)) {
            fail_msg("taken: %s", bad[i]);
        }
        assert_int_equal(a.port, 7); // untouched
    }
    char path[200];
    struct addr a;
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[107] = '\0';
    assert_true(addr_parse(str_c(path), &a)); // 107 bytes and the NUL fill sun_path
    path[107] = 'x';
    path[108] = '\0';
    assert_false(addr_parse(str_c(path), &a));
    assert_false(addr_parse(str_n("1.2.3.4\0:80", 11), &a));
}

static void test_parse_ip(void **state)
{
    (void)state;
    struct addr a;
    char text[ADDR_TEXT_MAX];
    assert_true(addr_parse_ip(STR("10.0.0.1"), 8080, &a));
    assert_int_equal(a.family, AF_INET);
    assert_int_equal(a.port, 8080);
    assert_true(addr_parse_ip(STR("[fe80::1%7]"), 1, &a));
    assert_int_equal(a.scope, 7);
    assert_string_equal(addr_ip_text(&a, text), "fe80::1%7");
    assert_true(addr_parse_ip(STR("fe80::1%lo"), 1, &a));
    assert_int_not_equal(a.scope, 0);
    assert_false(addr_parse_ip(STR("fe80::1%nosuchif"), 1, &a));
    assert_false(addr_parse_ip(STR("fe80::1%"), 1, &a));
    assert_false(addr_parse_ip(STR("1.2.3.4%1"), 1, &a));
    assert_false(addr_parse_ip(STR("[]"), 1, &a));
    assert_true(addr_parse_ip(str_n("::1xyz", 3), 1, &a)); // a view, not a C string
    assert_string_equal(addr_ip_text(&a, text), "::1");
}

static struct addr ip(const char *s, uint16_t port)
{
    struct addr a;
    assert_true(addr_parse_ip(str_c(s), port, &a));
    return a;
}

static void test_properties(void **state)
{
    (void)state;
    struct addr a = ip("127.8.8.8", 1), b = ip("::1", 1), c = ip("::ffff:127.0.0.1", 1), d = ip("::", 0), e = ip("0.0.0.0", 5),
                f = ip("8.8.8.8", 1), g = ip("::2", 1), none = { 0 };
    assert_true(addr_is_loopback(&a) && addr_is_loopback(&b) && addr_is_loopback(&c));
    assert_false(addr_is_loopback(&d) || addr_is_loopback(&f) || addr_is_loopback(&g) || addr_is_loopback(&none));
    assert_true(addr_is_any(&d) && addr_is_any(&e));
    assert_false(addr_is_any(&f) || addr_is_any(&none) || addr_is_any(&b));
    struct addr m = addr_unmap(c), want = ip("127.0.0.1", 1);
    assert_true(addr_eq(&m, &want));
    m = addr_unmap(b);
    assert_true(addr_eq(&m, &b));
    b = f;
    b.port = 2;
    assert_false(addr_eq(&f, &b));
    assert_true(addr_ip_eq(&f, &b));
    assert_int_not_equal(addr_hash(&f), addr_hash(&b));
    b = ip("::", 1);
    assert_false(addr_ip_eq(&e, &b)); // families differ
    struct addr u = { .family = AF_UNIX, .path = "/a" }, v = { .family = AF_UNIX, .path = "/b" };
    assert_false(addr_eq(&u, &v));
    assert_true(addr_eq(&u, &u));
    char text[ADDR_TEXT_MAX];
    assert_string_equal(addr_text(&none, text), "");
}

static void test_unix_sockaddr(void **state)
{
    (void)state;
    struct sockaddr_storage ss;
    struct sockaddr_un *un = (struct sockaddr_un *)&ss;
    struct addr a = { .family = AF_UNIX, .path = "@ab" };
    assert_int_equal(addr_to_sockaddr(&a, &ss), offsetof(struct sockaddr_un, sun_path) + 3);
    assert_memory_equal(un->sun_path, "\0ab", 3);
    a.path = "/ab";
    assert_int_equal(addr_to_sockaddr(&a, &ss), offsetof(struct sockaddr_un, sun_path) + 4);
    assert_string_equal(un->sun_path, "/ab");
    struct sockaddr other = { .sa_family = AF_NETLINK };
    assert_false(addr_from_sockaddr(&other, sizeof(other), &a));
    other.sa_family = AF_INET6;
    assert_false(addr_from_sockaddr(&other, sizeof(other), &a)); // too short
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refused),       cmocka_unit_test(test_parse_ip),
        cmocka_unit_test(test_properties), cmocka_unit_test(test_unix_sockaddr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
