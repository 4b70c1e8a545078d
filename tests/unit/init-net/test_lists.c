// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/init-net/support.h"

#include <arpa/inet.h>

static struct arena a;

static int ports(const char *text, bool star, struct port_list *ret, struct err *err)
{
    return port_list_parse(str_c(text), star, &a, ret, err);
}

static void ports_take_numbers_ranges_and_empty_items(void **state)
{
    (void)state;
    struct port_list l;
    struct err err;
    assert_int_equal(ports(" 8080,,9000-9100 ,7:9,", false, &l, &err), 0);
    assert_int_equal(l.n, 3);
    assert_true(port_list_has(&l, 8080));
    assert_true(port_list_has(&l, 9100));
    assert_true(port_list_has(&l, 7));
    assert_false(port_list_has(&l, 9101));
    assert_int_equal(ports("", true, &l, &err), 0);
    assert_int_equal(l.n, 0);
    assert_false(l.all);
    assert_int_equal(ports("*", true, &l, &err), 0);
    assert_true(l.all);
}

static void bad_ports_are_named(void **state)
{
    (void)state;
    struct port_list l = { .n = 77 };
    struct err err;
    static const char *const bad[] = { "70000", "http", "9-8", "1-2-3", "-1", "8080,x", "1 2", "1-", "*,80" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_true(ports(bad[i], true, &l, &err) < 0);
        assert_int_equal(l.n, 77);
    }
    ports("80,81,seven", false, &l, &err);
    assert_non_null(strstr(err.msg, "item 3 'seven'"));
    assert_true(ports("*", false, &l, &err) < 0);
}

static void overlapping_ports_are_joined(void **state)
{
    (void)state;
    struct port_list l;
    struct err err;
    assert_int_equal(ports("15090,15021,15020,15000-15020,65535", false, &l, &err), 0);
    struct port_list d = port_list_disjoint(&l, &a);
    assert_int_equal(d.n, 3);
    assert_int_equal(d.v[0].lo, 15000);
    assert_int_equal(d.v[0].hi, 15021);
    assert_int_equal(d.v[1].lo, 15090);
    assert_int_equal(d.v[2].hi, 65535);
}

static void networks_lose_host_bits_and_nested_ones_vanish(void **state)
{
    (void)state;
    struct cidr_list l;
    struct err err;
    char text[64];
    assert_int_equal(cidr_list_parse(STR("10.1.2.3/8,10.5.0.0/16,fd00::1/8,9.9.9.9/32"), false, &a, &l, &err), 0);
    assert_string_equal(cidr_text(&l.v[0], text, sizeof(text)), "10.0.0.0/8");
    struct cidr_list v4 = cidr_list_family(&l, AF_INET, &a);
    struct cidr_list d = cidr_list_disjoint(&v4, &a);
    assert_int_equal(d.n, 2);
    assert_string_equal(cidr_text(&d.v[0], text, sizeof(text)), "9.9.9.9/32");
    assert_string_equal(cidr_text(&d.v[1], text, sizeof(text)), "10.0.0.0/8");
    uint8_t addr[16] = { 10, 255, 0, 1 };
    assert_true(cidr_contains(&d.v[1], AF_INET, addr));
    assert_false(cidr_contains(&d.v[1], AF_INET6, addr));
    addr[0] = 11;
    assert_false(cidr_contains(&d.v[1], AF_INET, addr));
}

static void bad_networks_are_refused(void **state)
{
    (void)state;
    struct cidr_list l;
    struct err err;
    static const char *const bad[] = { "10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0/8", "*,10.0.0.0/8", "1.2.3.4/",
                                       "1.2.3.4/-1", "111111111111111111111111111111111111111111111111111111/8" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_true(cidr_list_parse(str_c(bad[i]), true, &a, &l, &err) < 0);
    }
}

static void ids_take_names_from_the_text_given(void **state)
{
    (void)state;
    struct id_list l;
    struct err err;
    struct str db = STR("root:x:0:0:\nnobody:x:65534:1:\n");
    assert_int_equal(id_list_parse(STR("1337,nobody,root,1337"), false, db, "user", &a, &l, &err), 0);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.v[1], 65534);
    assert_true(id_list_parse(STR("nobo"), false, db, "user", &a, &l, &err) < 0);
    assert_non_null(strstr(err.msg, "/etc/passwd"));
    assert_true(id_list_parse(STR("4294967295"), false, db, "user", &a, &l, &err) < 0);
}

static void interface_wildcards_have_two_spellings(void **state)
{
    (void)state;
    struct name_list l;
    struct err err;
    assert_int_equal(name_list_parse(STR("net+,eth*,lo"), &a, &l, &err), 0);
    assert_true(name_matches(l.v[0], "net17"));
    assert_true(name_matches(l.v[1], "eth0"));
    assert_false(name_matches(l.v[2], "lo0"));
    assert_true(name_list_parse(STR("abcdefghijklmnop"), &a, &l, &err) < 0);
    assert_true(name_list_parse(STR("a/b"), &a, &l, &err) < 0);
    assert_true(name_list_parse(STR("a\"b"), &a, &l, &err) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_take_numbers_ranges_and_empty_items),
        cmocka_unit_test(bad_ports_are_named),
        cmocka_unit_test(overlapping_ports_are_joined),
        cmocka_unit_test(networks_lose_host_bits_and_nested_ones_vanish),
        cmocka_unit_test(bad_networks_are_refused),
        cmocka_unit_test(ids_take_names_from_the_text_given),
        cmocka_unit_test(interface_wildcards_have_two_spellings),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    arena_fini(&a);
    return r;
}
