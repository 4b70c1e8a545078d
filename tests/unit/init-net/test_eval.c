// SPDX-License-Identifier: Apache-2.0
// The evaluator against tests/golden/init/fates.tsv, the same rows that tests/integration/test_init.py sends for real.
#include "tests/unit/init-net/support.h"

#include <arpa/inet.h>

#include "init-net/eval.h"
#include "init-net/live.h"
#include "init-net/plan.h"

static struct arena a;

enum { COLUMNS = 11 };
enum { ID, FLAGS, ENV, RESOLVERS, DIR, IFACE, PROTO, OWNER, SOURCE, DEST, FATE };

static struct packet row_packet(const struct str *col)
{
    struct packet k = { .dir = str_is(col[DIR], "out") ? DIR_OUT : DIR_IN };
    struct err err;
    uint64_t n;
    k.proto = str_is(col[PROTO], "tcp") ? IPPROTO_TCP : IPPROTO_UDP;
    k.has_owner = k.dir == DIR_OUT;
    k.iif = k.oif = arena_str(&a, col[IFACE]).p;
    if (!str_is(col[OWNER], "-")) {
        struct str rest = col[OWNER];
        struct str ids = str_split(&rest, '@');
        assert_true(str_to_u64(str_split(&ids, '/'), UINT32_MAX, &n));
        k.uid = (uint32_t)n;
        assert_true(str_to_u64(ids, UINT32_MAX, &n));
        k.gid = (uint32_t)n;
        k.mark = rest.n ? (uint32_t)strtoul(arena_str(&a, rest).p, NULL, 0) : 0;
    }
    assert_int_equal(eval_address(col[DEST], &k.family, k.dst, &k.dport, &err), 0);
    uint8_t family = k.family;
    if (!str_is(col[SOURCE], "-") && col[SOURCE].p[0] != ':') {
        assert_int_equal(eval_address(col[SOURCE], &family, k.src, &k.sport, &err), 0);
    }
    assert_int_equal(family, k.family);
    return k;
}

static struct str fate_word(const struct fate *f)
{
    static const char *const words[] = { "pass", "redirect", "tproxy", "drop", "reject" };
    return f->port ? arena_printf(&a, "%s:%u", words[f->kind], f->port) : str_c(words[f->kind]);
}

// The same plan as iptables rules, read back as `explain --live` does it.
static void read_back(const struct plan *p, struct plan *ret)
{
    static const struct ipt_content nothing;
    struct err err = { 0 };
    *ret = (struct plan){ .o = p->o, .a = &a };
    for (int v6 = 0; v6 < 2; v6++) {
        struct ipt_script s = { 0 };
        for (int t = 0; t < IPT_TABLES; t++) {
            struct ipt_content c;
            ipt_from_plan(p, v6 ? AF_INET6 : AF_INET, (enum ipt_table)t, &c);
            ipt_script_add(&s, (enum ipt_table)t, &nothing, &c);
        }
        struct str text = arena_str(&a, buf_pullup(&s.text, buf_len(&s.text)));
        ipt_script_fini(&s);
        if (live_read_ipt(text, v6 ? AF_INET6 : AF_INET, ret, &err)) {
            fail_msg("%s", err.msg);
        }
    }
}

static void check_row(const struct str *col)
{
    struct facts facts = test_facts();
    struct options o;
    struct err err;
    struct plan p;
    facts.have_v6 = true;
    const char *env[2] = { str_is(col[ENV], "-") ? NULL : arena_str(&a, col[ENV]).p, NULL };
    test_env = env;
    if (!str_is(col[RESOLVERS], "-")) {
        struct str rest = col[RESOLVERS];
        facts.resolv = STR("");
        while (rest.n) {
            struct str one = str_split(&rest, ',');
            facts.resolv = arena_printf(&a, "%.*snameserver %.*s\n", STR_FMT(facts.resolv), STR_FMT(one));
        }
    }
    struct str flags = str_is(col[FLAGS], "-") ? STR("") : col[FLAGS];
    struct str line = arena_printf(&a, "remora-init " BASE_FLAGS " %.*s", STR_FMT(flags));
    if (test_parse_with(line.p, &facts, &a, &o, &err)) {
        fail_msg("row %.*s: %s", STR_FMT(col[ID]), err.msg);
    }
    plan_build(&o, &a, &p);
    struct packet k = row_packet(col);
    struct fate f = eval_packet(&p, &k, NULL, NULL);
    struct str got = fate_word(&f);
    if (!str_eq(got, col[FATE])) {
        fail_msg("row %.*s: %.*s instead of %.*s, by '%s'", STR_FMT(col[ID]), STR_FMT(got), STR_FMT(col[FATE]),
                 f.rule ? f.rule->comment : "no rule");
    }
    struct plan live = p;
    if (!plan_chain_used(&p, CHAIN_GUARD_OUT)) { // nftables only
        read_back(&p, &live);
    }
    f = eval_packet(&live, &k, NULL, NULL);
    got = fate_word(&f);
    if (!str_eq(got, col[FATE])) {
        fail_msg("row %.*s read back from iptables: %.*s instead of %.*s, by '%s'", STR_FMT(col[ID]), STR_FMT(got),
                 STR_FMT(col[FATE]), f.rule ? f.rule->comment : "no rule");
    }
    test_env = NULL;
}

static void every_row_of_the_table_holds(void **state)
{
    (void)state;
    static char text[1 << 17];
    FILE *file = fopen("tests/golden/init/fates.tsv", "r");
    assert_non_null(file);
    struct str rest = str_n(text, fread(text, 1, sizeof(text), file));
    fclose(file);
    size_t rows = 0;
    while (rest.n) {
        struct str line = str_split(&rest, '\n');
        if (!line.n || line.p[0] == '#') {
            continue;
        }
        struct str col[COLUMNS];
        for (int i = 0; i < COLUMNS; i++) {
            col[i] = str_split(&line, '\t');
        }
        check_row(col);
        rows++;
    }
    assert_true(rows > 200);
}

static struct fate eval_line(const char *flags, struct packet *k)
{
    struct options o;
    struct err err;
    struct plan p;
    struct facts facts = test_facts();
    facts.have_v6 = true;
    assert_int_equal(test_parse_with(flags, &facts, &a, &o, &err), 0);
    plan_build(&o, &a, &p);
    return eval_packet(&p, k, NULL, NULL);
}

static void dns_zones_keep_proxy_and_application_apart(void **state)
{
    (void)state;
    struct packet k = { .dir = DIR_OUT, .family = AF_INET, .proto = IPPROTO_UDP, .dst = { 10, 96, 0, 10 }, .dport = 53,
                        .sport = 40001, .has_owner = true, .uid = 1000, .gid = 1000, .oif = "eth0" };
    const char *line = "r " BASE_FLAGS " --redirect-dns";
    assert_int_equal(eval_line(line, &k).zone, DNS_ZONE_APP);
    k.uid = 1337;
    assert_int_equal(eval_line(line, &k).zone, DNS_ZONE_PROXY);
    k.dport = 40001;
    k.sport = DNS_PORT;
    assert_int_equal(eval_line(line, &k).zone, DNS_ZONE_APP);
    struct packet in = { .dir = DIR_IN, .family = AF_INET, .proto = IPPROTO_UDP, .src = { 10, 96, 0, 10 }, .sport = 53,
                         .dport = 40001, .iif = "eth0" };
    assert_int_equal(eval_line(line, &in).zone, DNS_ZONE_PROXY);
    in.sport = 54;
    assert_int_equal(eval_line(line, &in).zone, 0);
}

static void without_an_owner_nobody_is_taken_for_the_proxy(void **state)
{
    (void)state;
    struct packet k = { .dir = DIR_OUT, .family = AF_INET, .proto = IPPROTO_TCP, .dst = { 8, 8, 8, 8 }, .dport = 443,
                        .oif = "eth0" };
    assert_int_equal(eval_line("r " BASE_FLAGS, &k).kind, FATE_REDIRECT);
}

static void invalid_packets_are_dropped_on_request(void **state)
{
    (void)state;
    struct packet k = { .dir = DIR_IN, .family = AF_INET, .proto = IPPROTO_TCP, .dst = { 10, 244, 0, 5 }, .dport = 8080,
                        .iif = "eth0", .ct_state = CT_INVALID };
    assert_int_equal(eval_line("r " BASE_FLAGS " --drop-invalid", &k).kind, FATE_DROP);
    assert_int_equal(eval_line("r " BASE_FLAGS, &k).kind, FATE_REDIRECT);
}

static void addresses_have_two_shapes(void **state)
{
    (void)state;
    uint8_t family, addr[16];
    uint16_t port = 7;
    struct err err;
    assert_int_equal(eval_address(STR("[fd00::1]:80"), &family, addr, &port, &err), 0);
    assert_int_equal(family, AF_INET6);
    assert_int_equal(port, 80);
    assert_int_equal(eval_address(STR("10.0.0.1"), &family, addr, &port, &err), 0);
    assert_int_equal(port, 80);
    static const char *const bad[] = { "", "10.0.0.1:", "10.0.0.1:99999", "host:80", "[::1]80", "[::1", "1.2.3.4.5:1" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_true(eval_address(str_c(bad[i]), &family, addr, &port, &err) < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_the_table_holds),
        cmocka_unit_test(dns_zones_keep_proxy_and_application_apart),
        cmocka_unit_test(without_an_owner_nobody_is_taken_for_the_proxy),
        cmocka_unit_test(invalid_packets_are_dropped_on_request),
        cmocka_unit_test(addresses_have_two_shapes),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    arena_fini(&a);
    return r;
}
