// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/init-net/support.h"

static struct arena a;
static struct options o;
static struct err err;

static int parse(const char *line)
{
    return test_parse(line, &a, &o, &err);
}

static int no_env(void **state)
{
    (void)state;
    test_env = NULL;
    return 0;
}

static bool warned(const char *word)
{
    for (size_t i = 0; i < o.n_warnings; i++) {
        if (strstr(o.warnings[i].p, word)) {
            return true;
        }
    }
    return false;
}

static void the_injectors_line_is_understood(void **state)
{
    (void)state;
    assert_int_equal(parse("remora-init istio-iptables " BASE_FLAGS " --log_output_level=default:info"), 0);
    assert_true(o.istio_call);
    assert_true(o.compat_istio);
    assert_int_equal(o.command, CMD_APPLY);
    assert_int_equal(o.outbound_port, 15001);
    assert_int_equal(o.inbound_port, 15006);
    assert_int_equal(o.tunnel_port, 15008);
    assert_int_equal(o.proxy_uids.v[0], 1337);
    assert_int_equal(o.proxy_gids.v[0], 1337);
    assert_true(o.cidrs.all);
    assert_true(o.inbound_ports.all);
    assert_int_equal(o.inbound_exclude.n, 3);
    assert_int_equal(o.cidrs_exclude.n, 0);
    assert_true(o.groups.all);
    assert_int_equal(o.n_warnings, 0);
}

static void all_spellings_of_a_flag_are_the_same(void **state)
{
    (void)state;
    static const char *const lines[] = { "r --envoy-port 7 -z 8", "r --envoy-port=7 -z 8", "r -p7 -z 8", "r -p=7 -z 8",
                                         "r -p 7 -z 8", "/bin/istio-iptables -p 7 -z 8" };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        assert_int_equal(parse(lines[i]), 0);
        assert_int_equal(o.outbound_port, 7);
        assert_int_equal(o.inbound_port, 8);
    }
}

static void the_last_one_who_speaks_wins(void **state)
{
    (void)state;
    static const char *const env[] = { "INBOUND_CAPTURE_PORT=1111", "REDIRECT_DNS=true", "ISTIO_META_DNS_CAPTURE=false",
                                       NULL };
    test_env = env;
    assert_int_equal(parse("r"), 0);
    assert_int_equal(o.inbound_port, 1111);
    assert_false(o.redirect_dns); // the second variable beats the first
    assert_int_equal(parse("r -z 2222 --redirect-dns"), 0);
    assert_int_equal(o.inbound_port, 2222);
    assert_true(o.redirect_dns);
}

static void an_empty_value_is_a_value(void **state)
{
    (void)state;
    static const char *const env[] = { "ISTIO_SERVICE_EXCLUDE_CIDR=10.0.0.0/8", "ISTIO_OUTBOUND_OWNER_GROUPS=", NULL };
    test_env = env;
    assert_int_equal(parse("r -x ''"), 0);
    assert_int_equal(o.cidrs_exclude.n, 0);
    assert_false(o.groups.all);
    assert_int_equal(o.groups.n, 0);
}

static void a_bad_line_ends_with_255_and_a_bad_value_with_1(void **state)
{
    (void)state;
    static const char *const lines[] = { "r --nosuch", "r -Z", "r -p", "r --iptables-probe-port=70000",
                                         "r --probe-timeout=soon", "r --redirect-dns=maybe", "r frobnicate",
                                         "r --dst 1.2.3.4:5", "r --dry-run=xml" };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        assert_int_equal(parse(lines[i]), EXIT_FLAGS);
        assert_true(err.msg[0]);
    }
    static const char *const values[] = { "r -p abc", "r -z 0", "r -z 70000", "r -d 80,70000", "r -i 10.0.0.0",
                                          "r -x *", "r -q *", "r -c abcdefghijklmnopq", "r -u no-such-user",
                                          "r -t abc", "r -p 5 -z 5", "r --force-iptables-binary=x",
                                          "r -m TPROXY -t 1338", "r -m TPROXY -r 254", "r --ipv6=maybe",
                                          "r --proxy-mark=0xfff/0xf" };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        assert_int_equal(parse(values[i]), EXIT_APPLY);
        assert_true(err.msg[0]);
    }
    parse("r -d 80,70000");
    assert_non_null(strstr(err.msg, "-d/--istio-local-exclude-ports: item 2 '70000'"));
}

static void bad_variables_are_warned_about(void **state)
{
    (void)state;
    static const char *const env[] = { "DROP_INVALID=yes", "PROBE_TIMEOUT=x", NULL };
    test_env = env;
    assert_int_equal(parse("r -m FOO"), 0);
    assert_false(o.drop_invalid);
    assert_int_equal(o.probe_timeout_ms, 5000);
    assert_int_equal(o.mode, MODE_REDIRECT);
    assert_true(warned("DROP_INVALID"));
    assert_true(warned("PROBE_TIMEOUT"));
    assert_true(warned("FOO"));
    assert_int_equal(parse("r --strict"), EXIT_APPLY);
    assert_int_equal(parse("r --strict -m FOO"), EXIT_APPLY);
}

static void what_has_no_effect_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *line, *word;
    } cases[] = {
        { "r -b 80 -d 90", "-d has no effect" },
        { "r -i * -q 80", "-q has no effect" },
        { "r -x fd00::/8", "-x names IPv6" },
        { "r --capture-all-dns", "--capture-all-dns" },
        { "r -t 7", "-t and -r" },
        { "r --force-iptables-binary=legacy --backend=nft", "--force-iptables-binary" },
        { "r --backend=iptables --nat-priority-offset=3", "--nat-priority-offset" },
        { "r --log_target stdout", "--log_target" },
        { "r --iptables-trace-logging", "--iptables-trace-logging" },
        { "r --skip-rule-apply", "--skip-rule-apply" },
        { "istio-iptables stray", "'stray' is ignored" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse(cases[i].line), 0);
        assert_true(warned(cases[i].word));
        char strict[256];
        snprintf(strict, sizeof(strict), "%s --strict", cases[i].line);
        assert_int_not_equal(parse(strict), 0);
    }
}

static void ipv6_follows_the_addresses(void **state)
{
    (void)state;
    static const struct {
        bool v4, v6, lo_off;
        const char *line;
        int code;
        bool on;
    } cases[] = {
        { true, false, false, "r", 0, false },
        { true, true, false, "r", 0, false },
        { false, true, false, "r", 0, true },
        { true, true, false, "r --dual-stack", 0, true },
        { true, false, false, "r --dual-stack", 0, false },
        { true, true, true, "r --dual-stack", 0, false },
        { false, false, false, "r", EXIT_APPLY, false },
        { false, false, false, "r --dry-run", 0, false },
        { false, false, false, "r --ipv6=on", 0, true },
        { true, true, false, "r --ipv6=off --dual-stack", 0, false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct facts f = test_facts();
        f.have_v4 = cases[i].v4;
        f.have_v6 = cases[i].v6;
        f.v6_lo_off = cases[i].lo_off;
        o.v6 = false;
        assert_int_equal(test_parse_with(cases[i].line, &f, &a, &o, &err), cases[i].code);
        assert_int_equal(o.v6, cases[i].on);
        // Asked for both and got one: that is said.
        bool lacks = strstr(cases[i].line, "--dual-stack") && !strstr(cases[i].line, "--ipv6") && !cases[i].on;
        assert_int_equal(cases[i].code ? 0 : o.n_warnings, lacks);
    }
    assert_int_equal(parse("r --ipv6=drop"), 0);
    assert_true(o.v6_drop);
    assert_false(o.v6);
}

static void resolvers_are_read_with_care(void **state)
{
    (void)state;
    struct cidr_list l;
    size_t skipped;
    options_resolvers(STR("nameserver 10.0.0.1 # x\r\nnameserver\t::1\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n"
                          "nameserver\nnameserverx 1.1.1.1\n#nameserver 2.2.2.2\noptions ndots:5"), &a, &l, &skipped);
    assert_int_equal(l.n, 2);
    assert_int_equal(skipped, 1);
    assert_int_equal(l.v[1].len, 128);

    struct facts f = test_facts();
    f.resolv = STR("nameserver fd00::1\nnameserver fe80::1%eth0\n");
    assert_int_equal(test_parse_with("r --redirect-dns", &f, &a, &o, &err), 0);
    assert_false(o.redirect_dns); // only IPv6 resolvers, IPv4 pod
    assert_true(warned("DNS capture is off"));
    assert_int_equal(test_parse_with("r --redirect-dns --capture-all-dns", &f, &a, &o, &err), 0);
    assert_true(o.redirect_dns);
    f.resolv_readable = false;
    assert_int_equal(test_parse_with("r --redirect-dns", &f, &a, &o, &err), EXIT_APPLY);
}

static void the_proxys_user_has_defaults(void **state)
{
    (void)state;
    struct facts f = test_facts();
    assert_int_equal(test_parse_with("r", &f, &a, &o, &err), 0);
    assert_int_equal(o.proxy_uids.v[0], 1337);
    f.passwd = STR("istio-proxy:x:4711:1:\nmine:x:12:1:\n");
    assert_int_equal(test_parse_with("r", &f, &a, &o, &err), 0);
    assert_int_equal(o.proxy_uids.v[0], 4711);
    assert_int_equal(o.proxy_gids.v[0], 4711);
    static const char *const env[] = { "ENVOY_USER=mine", NULL };
    test_env = env;
    assert_int_equal(test_parse_with("r -g 9", &f, &a, &o, &err), 0);
    assert_int_equal(o.proxy_uids.v[0], 12);
    assert_int_equal(o.proxy_gids.v[0], 9);
}

static void loopback_network_is_checked(void **state)
{
    (void)state;
    static const char *const good[] = { "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.0.0.1/8", NULL };
    static const char *const bad[] = { "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=10.0.0.1/8", NULL };
    static const char *const wide[] = { "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.0.0.1/7", NULL };
    test_env = good;
    assert_int_equal(parse("r"), 0);
    assert_int_equal(o.loopback4.len, 8);
    test_env = bad;
    assert_int_equal(parse("r"), EXIT_APPLY);
    test_env = wide;
    assert_int_equal(parse("r"), EXIT_APPLY);
}

static void durations_are_gos(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int ms; // -1: refused
    } cases[] = { { "5s", 5000 }, { "300ms", 300 }, { "1m30s", 90000 }, { "1.5s", 1500 }, { "0", 0 }, { "", -1 },
                  { "5", -1 },    { "s", -1 },      { "5x", -1 },       { "-5s", -1 },    { "25h", -1 } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t ms = 0;
        assert_int_equal(options_duration(str_c(cases[i].text), &ms), cases[i].ms >= 0);
        assert_int_equal(ms, cases[i].ms >= 0 ? cases[i].ms : 0);
    }
}

static void facts_come_from_proc_texts(void **state)
{
    (void)state;
    assert_true(facts_scan_fib_trie(STR("  |-- 10.0.0.5\n     /32 host LOCAL\n")));
    assert_false(facts_scan_fib_trie(STR("  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 10.0.0.255\n  /32 link BROADCAST\n")));
    assert_false(facts_scan_fib_trie(STR("  |-- 169.254.1.1\n     /32 host LOCAL\n")));
    assert_true(facts_scan_if_inet6(STR("fd000000000000000000000000000005 02 40 00 80     eth0\n")));
    assert_false(facts_scan_if_inet6(STR("00000000000000000000000000000001 01 80 10 80       lo\n"
                                         "00000000000000000000000000000006 01 80 00 80       lo\n"
                                         "fe800000000000000000000000000001 02 40 20 80     eth0\n")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_injectors_line_is_understood, no_env),
        cmocka_unit_test_setup(all_spellings_of_a_flag_are_the_same, no_env),
        cmocka_unit_test_setup(the_last_one_who_speaks_wins, no_env),
        cmocka_unit_test_setup(an_empty_value_is_a_value, no_env),
        cmocka_unit_test_setup(a_bad_line_ends_with_255_and_a_bad_value_with_1, no_env),
        cmocka_unit_test_setup(bad_variables_are_warned_about, no_env),
        cmocka_unit_test_setup(what_has_no_effect_is_said, no_env),
        cmocka_unit_test_setup(ipv6_follows_the_addresses, no_env),
        cmocka_unit_test_setup(resolvers_are_read_with_care, no_env),
        cmocka_unit_test_setup(the_proxys_user_has_defaults, no_env),
        cmocka_unit_test_setup(loopback_network_is_checked, no_env),
        cmocka_unit_test_setup(durations_are_gos, no_env),
        cmocka_unit_test_setup(facts_come_from_proc_texts, no_env),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    arena_fini(&a);
    return r;
}
