// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cli/support.h"

#include <errno.h>

#include "cli/dump.h"

static struct arena a;

static const struct json *parse(const char *text)
{
    struct json *n = NULL;
    struct err err = { 0 };
    if (json_parse(str_c(text), &a, &n, &err)) {
        fail_msg("%s", err.msg);
    }
    return n;
}

static int done(void **state)
{
    (void)state;
    arena_fini(&a);
    return 0;
}

static void test_both_spellings(void **state)
{
    const struct json *n = parse("{\"connect_timeout\":\"1s\",\"lbPolicy\":\"X\",\"http2ProtocolOptions\":{\"maxStreams\":\"7\"},\"a\":1}");
    (void)state;
    assert_true(str_is(dump_str(n, "connect_timeout"), "1s"));
    assert_true(str_is(dump_str(n, "lb_policy"), "X"));
    assert_int_equal(dump_u32(n, "http2_protocol_options.max_streams"), 7);
    assert_null(dump_get(n, "lb_policyx"));
    assert_null(dump_get(n, "lb_polic"));
    assert_null(dump_get(n, "connectTimeout_"));
    assert_null(dump_path(n, "a.b"));
    assert_null(dump_path(NULL, "a"));
    assert_int_equal(dump_u32(n, "lb_policy"), 0);
}

static void test_section(void **state)
{
    const struct json *n = parse("{\"configs\":[{\"@type\":\"t/envoy.admin.v3.ClustersConfigDump\",\"v\":1},"
                                 "{\"@type\":\"t/envoy.admin.v3.OtherClustersConfigDump\",\"v\":2},"
                                 "{\"@type\":\"t/envoy.admin.v3.ClustersConfigDump\",\"v\":3},{\"v\":4},5]}");
    (void)state;
    assert_int_equal(dump_u32(dump_section(n, "ClustersConfigDump"), "v"), 3);
    assert_null(dump_section(n, "RoutesConfigDump"));
}

static void test_resources(void **state)
{
    static const struct dump_kind kind = { .section = "XConfigDump",
                                           .what = "x",
                                           .lists = { { "dynamic_x", "state.x" }, { "static_x", "x" } } };
    struct dump_list l = { 0 };
    struct err err = { 0 };
    (void)state;
    const struct json *n = parse("{\"configs\":[{\"@type\":\"t.XConfigDump\",\"static_x\":[{\"x\":{\"n\":3}}],"
                                 "\"dynamic_x\":[{\"state\":{\"x\":{\"n\":1}}},{\"warming\":{}},{\"state\":{\"x\":{\"n\":2}}}]}]}");
    assert_int_equal(dump_resources(n, &kind, &a, &l, &err), 0);
    assert_int_equal(l.n, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(dump_u32(l.v[i], "n"), i + 1);
    }
    assert_int_equal(dump_resources(parse("{\"configs\":[]}"), &kind, &a, &l, &err), -ENOENT);
    assert_int_equal(dump_resources(parse("{}"), &kind, &a, &l, &err), -EINVAL);
    assert_int_equal(l.n, 3); // untouched
}

static void test_subset_key(void **state)
{
    struct subset_key k = dump_subset_key(STR("outbound|9080|v1|reviews.default"));
    (void)state;
    assert_true(k.parsed && str_is(k.direction, "outbound") && k.port == 9080 && str_is(k.subset, "v1") &&
                str_is(k.fqdn, "reviews.default"));
    k = dump_subset_key(STR("inbound|9080||"));
    assert_true(k.parsed && k.port == 9080 && k.subset.n == 0 && k.fqdn.n == 0);
    k = dump_subset_key(STR("a|b|c"));
    assert_true(!k.parsed && str_is(k.fqdn, "a|b|c"));
    k = dump_subset_key(STR("outbound|1||x|y"));
    assert_true(k.parsed && k.fqdn.n == 0);
}

static void test_management(void **state)
{
    static const struct {
        const char *config, *want;
    } cases[] = {
        { "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews", "reviews.default" },
        { "/apis/networking.istio.io/v1/namespaces/default/destination-rule", "" },
        { "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews/x", "" },
        { "/apis/elsewhere/v1/x", "<unknown>" },
    };
    (void)state;
    for (size_t i = 0; i < array_len(cases); i++) {
        const struct json *n =
            parse(arena_printf(&a, "{\"metadata\":{\"filter_metadata\":{\"istio\":{\"config\":\"%s\"}}}}", cases[i].config).p);
        struct str got = dump_management(n, &a);
        assert_true(str_is(got, cases[i].want));
    }
    assert_int_equal(dump_management(parse("{}"), &a).n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_both_spellings, done), cmocka_unit_test_teardown(test_section, done),
        cmocka_unit_test_teardown(test_resources, done),      cmocka_unit_test_teardown(test_subset_key, done),
        cmocka_unit_test_teardown(test_management, done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
