// SPDX-License-Identifier: Apache-2.0
// Policies: what is taken, what is refused and with which words, long lists, and what a connection may be asked. test_matrix.c has the meaning of
// conditions.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "envoy/config/rbac/v3/rbac.pb-c.h"
#include "lib/base/buf.h"
#include "proto/pb_json.h"
#include "proxy/authz/authz_int.h"

static struct arena arena;
static struct err err;

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

static struct authz *parse(enum authz_of of, const char *json)
{
    ProtobufCMessage *m = NULL;
    struct authz *z = NULL;
    if (pb_json_parse(str_c(json), &envoy__config__rbac__v3__rbac__descriptor, 0, &arena, &m, &err) < 0) {
        fail_msg("%s\n%s", err.msg, json);
    }
    return authz_parse(m, of, &arena, &z, &err) < 0 ? NULL : z;
}

#define POLICY(permission, principal) "{\"policies\":{\"p\":{\"permissions\":[" permission "],\"principals\":[" principal "]}}}"
#define ANY "{\"any\":true}"

static void refusals(void **state)
{
    (void)state;
    static const struct { const char *json, *words; } rows[] = {
        { "{\"policies\":{\"p\":{}}}", "policies[p]: permissions: at least one is needed" },
        { "{\"policies\":{\"p\":{\"permissions\":[" ANY "]}}}", "policies[p]: principals: at least one is needed" },
        { "{\"policies\":{\"p\":{\"permissions\":[" ANY "],\"principals\":[" ANY "],\"condition\":\"\"}}}", "policies[p]: condition: expressions (CEL) are not supported" },
        { "{\"audit_logging_options\":\"\"}", "audit_logging_options: audit loggers are not supported" },
        { POLICY("{}", ANY), "policies[p]: permissions: [0]: rule: is missing or not supported" },
        { POLICY(ANY, "{}"), "policies[p]: principals: [0]: identifier: is missing or not supported" },
        { POLICY("{\"any\":false}", ANY), "policies[p]: permissions: [0]: any: can only be true" },
        { POLICY("{\"and_rules\":{}}", ANY), "policies[p]: permissions: [0]: and_rules.rules: at least one is needed" },
        { POLICY("{\"or_rules\":{\"rules\":[" ANY ",{\"url_path\":{}}]}}", ANY), "policies[p]: permissions: [0]: or_rules.rules: [1]: url_path.path: is missing" },
        { POLICY("{\"not_rule\":{\"destination_port\":65536}}", ANY), "policies[p]: permissions: [0]: not_rule: destination_port: is not a range of ports" },
        { POLICY("{\"destination_port_range\":{\"start\":5,\"end\":5}}", ANY), "policies[p]: permissions: [0]: destination_port_range: is not a range of ports" },
        { POLICY("{\"destination_ip\":{\"address_prefix\":\"10.0.0\",\"prefix_len\":8}}", ANY), "policies[p]: permissions: [0]: destination_ip: \"10.0.0/8\" is not an address range" },
        { POLICY("{\"destination_ip\":{\"address_prefix\":\"10.0.0.0\",\"prefix_len\":33}}", ANY),
          "policies[p]: permissions: [0]: destination_ip: \"10.0.0.0/33\" is not an address range" },
        { POLICY("{\"header\":{\"name\":\"x\",\"string_match\":{\"safe_regex\":{\"regex\":\"(\"}}}}", ANY), "policies[p]: permissions: [0]: header: string_match: safe_regex.regex: " },
        { POLICY("{\"header\":{\"name\":\"x\",\"string_match\":{\"prefix\":\"\"}}}", ANY), "policies[p]: permissions: [0]: header: string_match: match_pattern: " },
        { POLICY("{\"matcher\":{\"name\":\"envoy.rbac.matchers.upstream_ip_port\"}}", ANY),
          "policies[p]: permissions: [0]: matcher: the extension \"envoy.rbac.matchers.upstream_ip_port\" is not supported" },
        { POLICY("{\"uri_template\":{\"name\":\"mine\"}}", ANY), "policies[p]: permissions: [0]: uri_template: the extension \"mine\" is not supported" },
        { POLICY("{\"metadata\":{\"filter\":\"f\",\"path\":[{\"key\":\"k\"}]}}", ANY), "policies[p]: permissions: [0]: metadata: value: is missing" },
        { POLICY("{\"metadata\":{\"filter\":\"f\",\"path\":[{}],\"value\":{\"present_match\":true}}}", ANY), "policies[p]: permissions: [0]: metadata: path[0].key: is missing" },
        { POLICY("{\"metadata\":{\"filter\":\"f\",\"path\":[{\"key\":\"k\"}],\"value\":{\"or_match\":{\"value_matchers\":[{\"null_match\":{}}]}}}}", ANY),
          "policies[p]: permissions: [0]: metadata: value: or_match: value_matchers: at least 2 are needed" },
        { POLICY("{\"metadata\":{\"filter\":\"envoy.filters.network.mysql_proxy\",\"path\":[{\"key\":\"t\"}],\"value\":{\"present_match\":true}}}", ANY),
          "policies[p]: permissions: [0]: metadata: \"envoy.filters.network.mysql_proxy\" finds nothing out here" },
        { POLICY(ANY, "{\"custom\":{\"name\":\"x\"}}"), "policies[p]: principals: [0]: custom: the extension \"x\" is not supported" },
        { POLICY(ANY, "{\"filter_state\":{\"key\":\"io.istio.peer_principal\"}}"),
          "policies[p]: principals: [0]: filter_state: \"io.istio.peer_principal\": filter state is not supported" },
        { POLICY(ANY, "{\"sourced_metadata\":{}}"), "policies[p]: principals: [0]: sourced_metadata.metadata_matcher: is missing" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_null(parse(AUTHZ_OF_REQUEST, rows[i].json));
        if (strncmp(err.msg, rows[i].words, strlen(rows[i].words)) != 0) {
            fail_msg("\"%s\" in place of \"%s\"", err.msg, rows[i].words);
        }
    }
}

static void depth_is_bounded(void **state)
{
    (void)state;
    for (int depth = AUTHZ_DEPTH_MAX; depth <= AUTHZ_DEPTH_MAX + 1; depth++) {
        struct buf b = { 0 };
        buf_printf(&b, "{\"policies\":{\"p\":{\"permissions\":[" ANY "],\"principals\":[");
        for (int i = 0; i + 1 < depth; i++) {
            buf_printf(&b, "{\"not_id\":");
        }
        buf_printf(&b, ANY);
        for (int i = 0; i + 1 < depth; i++) {
            buf_printf(&b, "}");
        }
        buf_append(&b, "]}}}", 5);
        struct authz *z = parse(AUTHZ_OF_REQUEST, buf_pullup(&b, b.len).p);
        assert_int_equal(z != NULL, depth == AUTHZ_DEPTH_MAX);
        buf_clear(&b);
    }
    assert_non_null(strstr(err.msg, "more than 32 conditions within each other"));
}

static bool allowed(const struct authz *z, const struct authz_subject *s)
{
    return authz_decide(z, s).allowed;
}

static void connections(void **state)
{
    (void)state;
    struct str uri = STR("spiffe://td/ns/a/sa/b");
    struct addr here;
    assert_true(addr_parse_ip(STR("10.0.0.1"), 27017, &here));
    struct authz_subject s = { .local = &here, .tls = true, .uris = &uri, .uri_count = 1 }, plain = { .local = &here };
    const struct authz *z = parse(AUTHZ_OF_CONNECTION, POLICY("{\"destination_port\":27017}", "{\"authenticated\":{\"principal_name\":{\"exact\":\"spiffe://td/ns/a/sa/b\"}}}"));
    assert_true(allowed(z, &s));
    assert_false(allowed(z, &plain));
    assert_false(allowed(parse(AUTHZ_OF_CONNECTION, "{}"), &s)); // no policy allows
    assert_true(allowed(parse(AUTHZ_OF_CONNECTION, "{\"action\":\"DENY\"}"), &s));
    assert_true(allowed(parse(AUTHZ_OF_CONNECTION, "{\"action\":\"LOG\"}"), &s));
    // a connection has no path: nothing matches, not even what any path would
    assert_false(allowed(parse(AUTHZ_OF_CONNECTION, POLICY("{\"url_path\":{\"path\":{\"safe_regex\":{\"regex\":\".*\"}}}}", ANY)), &s));
    assert_null(parse(AUTHZ_OF_CONNECTION, POLICY(ANY, "{\"or_ids\":{\"ids\":[{\"header\":{\"name\":\":path\"}}]}}")));
    // any client of TLS, with or without a certificate, as in Envoy
    s.uri_count = 0;
    assert_true(allowed(parse(AUTHZ_OF_CONNECTION, POLICY(ANY, "{\"authenticated\":{}}")), &s));
    assert_false(allowed(parse(AUTHZ_OF_CONNECTION, POLICY(ANY, "{\"authenticated\":{}}")), &plain));
}

static void the_first_name_decides(void **state)
{
    (void)state;
    struct authz_subject s = { 0 };
    const struct authz *z = parse(AUTHZ_OF_REQUEST, "{\"action\":\"DENY\",\"policies\":{\"b\":{\"permissions\":[" ANY "],\"principals\":[" ANY "]},"
                                                    "\"a\":{\"permissions\":[" ANY "],\"principals\":[{\"not_id\":" ANY "}]},"
                                                    "\"ab\":{\"permissions\":[" ANY "],\"principals\":[" ANY "]}}}");
    struct authz_decision d = authz_decide(z, &s);
    assert_true(d.matched && !d.allowed && str_is(d.policy, "ab"));
}

// A map on the wire may name a key twice: the last one counts, or a former rule would stay.
static void of_two_with_one_name_the_last_counts(void **state)
{
    (void)state;
    Envoy__Config__Rbac__V3__RBAC *m = NULL;
    struct authz *z = NULL;
    ProtobufCMessage *two = NULL;
    assert_int_equal(pb_json_parse(STR("{\"policies\":{\"p\":{\"permissions\":[" ANY "],\"principals\":[" ANY "]},\"q\":{\"permissions\":[" ANY "],"
                                       "\"principals\":[{\"not_id\":" ANY "}]}}}"), &envoy__config__rbac__v3__rbac__descriptor, 0, &arena, &two, &err), 0);
    m = (void *)two;
    m->policies[0]->key[0] = m->policies[1]->key[0] = 'x';
    assert_int_equal(authz_parse(m, AUTHZ_OF_REQUEST, &arena, &z, &err), 0);
    assert_int_equal(z->count, 1);
    assert_false(allowed(z, &(struct authz_subject){ 0 }));
}

// ---- long lists ----

static const struct node *principals_of(const struct authz *z)
{
    return &z->policies[0].principals;
}

static struct authz *list_of(const char *format, int n)
{
    struct buf b = { 0 };
    buf_printf(&b, "{\"policies\":{\"p\":{\"permissions\":[" ANY "],\"principals\":[{\"or_ids\":{\"ids\":[");
    for (int i = 0; i < n; i++) {
        buf_printf(&b, i ? "," : "");
        char text[300];
        const char *at = strchr(format, '#');
        snprintf(text, sizeof(text), "%.*s%d%s", (int)(at - format), format, i, at + 1);
        buf_printf(&b, "%s", text);
    }
    buf_append(&b, "]}}]}}}", 8);
    struct authz *z = parse(AUTHZ_OF_REQUEST, buf_pullup(&b, b.len).p);
    buf_clear(&b);
    assert_non_null(z);
    return z;
}

static void long_lists_become_sets(void **state)
{
    (void)state;
    struct str uri = STR("spiffe://td/ns/n7/sa/499");
    struct authz_subject s = { .tls = true, .uris = &uri, .uri_count = 1 };
    struct authz *z = list_of("{\"authenticated\":{\"principal_name\":{\"exact\":\"spiffe://td/ns/n7/sa/#\"}}}", 500);
    assert_int_equal(principals_of(z)->count, 1);
    assert_int_equal(principals_of(z)->children[0].kind, NODE_SET);
    assert_true(allowed(z, &s));
    uri = STR("spiffe://td/ns/n7/sa/500");
    assert_false(allowed(z, &s));
    // namespaces are expressions: few are left, and they say the same
    z = list_of("{\"authenticated\":{\"principal_name\":{\"safe_regex\":{\"regex\":\".*/ns/n#/.*\"}}}}", 500);
    assert_int_equal(principals_of(z)->count, 1);
    assert_int_equal(principals_of(z)->children[0].kind, NODE_AFFIXES);
    assert_true(allowed(z, &s));
    uri = STR("spiffe://td/ns/n500/sa/500");
    assert_false(allowed(z, &s));
    uri = STR("/ns/n/ns/n5/ns/n49/");
    assert_true(allowed(z, &s));
    uri = STR("spiffe://td/ns/n7/sa/\n"); // "." is no line end
    assert_false(allowed(z, &s));
    uri = STR("spiffe://td/ns/n7/sa/\xff"); // nor what is not UTF-8
    assert_false(allowed(z, &s));
    uri = STR("spiffe://td/ns/n7/sa/\xc3\xa4");
    assert_true(allowed(z, &s));
    // others are tried together
    z = list_of("{\"authenticated\":{\"principal_name\":{\"safe_regex\":{\"regex\":\"spiffe://.*/ns/n#/.+\"}}}}", 48);
    assert_int_equal(principals_of(z)->count, 3);
    assert_true(allowed(z, &s));
    struct addr from;
    assert_true(addr_parse_ip(STR("10.1.77.5"), 1, &from));
    s.remote = &from;
    z = list_of("{\"remote_ip\":{\"address_prefix\":\"10.1.#.0\",\"prefix_len\":24}}", 200);
    assert_int_equal(principals_of(z)->children[0].kind, NODE_CIDR_SET);
    assert_true(allowed(z, &s));
    assert_true(addr_parse_ip(STR("10.1.200.5"), 1, &from));
    assert_false(allowed(z, &s));
}

static bool has_path(const struct authz *z, const char *path)
{
    struct arena a = { 0 };
    struct headers h;
    headers_init(&h, &a);
    const struct match_request r = { .path = str_c(path), .headers = &h, .arena = &a };
    bool yes = allowed(z, &(struct authz_subject){ .request = &r });
    arena_fini(&a);
    return yes;
}

#define PATHS(kind, a, b, c, d, more)                                                                                  \
    "{\"policies\":{\"p\":{\"permissions\":[{\"url_path\":{\"path\":{\"" kind "\":\"" a "\"" more "}}},{\"url_path\":{\"path\":{\"" kind "\":\"" b "\"" more \
    "}}},{\"url_path\":{\"path\":{\"" kind "\":\"" c "\"" more "}}},{\"url_path\":{\"path\":{\"" kind "\":\"" d "\"" more "}}}],\"principals\":[" ANY "]}}}"

static void beginnings_and_ends(void **state)
{
    (void)state;
    struct authz *z = parse(AUTHZ_OF_REQUEST, PATHS("prefix", "/b", "/a/b", "/a/bc", "/C", ""));
    assert_int_equal(z->policies[0].permissions.count, 1);
    assert_int_equal(z->policies[0].permissions.children[0].affixes->count, 3); // "/a/bc" begins with "/a/b"
    assert_true(has_path(z, "/a/bcd") && has_path(z, "/a/b") && has_path(z, "/b?x") && has_path(z, "/Cx"));
    assert_false(has_path(z, "/a/") || has_path(z, "/a/?b") || has_path(z, "/c") || has_path(z, "/") || has_path(z, "/B"));
    z = parse(AUTHZ_OF_REQUEST, PATHS("prefix", "/b", "/a/B", "/a/bc", "/C", ",\"ignore_case\":true"));
    assert_true(has_path(z, "/A/b") && has_path(z, "/B") && has_path(z, "/cc"));
    assert_false(has_path(z, "/a") || has_path(z, "/d"));
    z = parse(AUTHZ_OF_REQUEST, PATHS("suffix", ".png", ".tar.gz", ".gz", "x", ""));
    assert_true(has_path(z, "/a.png") && has_path(z, "/a.gz") && has_path(z, "/x") && has_path(z, "/a.tar.gz?y"));
    assert_false(has_path(z, "/a.PNG") || has_path(z, "/png") || has_path(z, "/z"));
    z = parse(AUTHZ_OF_REQUEST, PATHS("contains", "ab", "abc", "ax", "a", ""));
    assert_true(has_path(z, "/za") && !has_path(z, "/zb"));
    z = parse(AUTHZ_OF_REQUEST, PATHS("contains", "aab", "aac", "aad", "aaaz", ",\"ignore_case\":true"));
    assert_true(has_path(z, "/aaaaD") && has_path(z, "/AAAAAAZ") && !has_path(z, "/aaaa") && !has_path(z, "/aae"));
}

static void quoted_expressions_stay_apart(void **state)
{
    (void)state;
    struct str uri = STR("a2)|(?:b");
    struct authz_subject s = { .tls = true, .uris = &uri, .uri_count = 1 };
    struct authz *z = list_of("{\"authenticated\":{\"principal_name\":{\"safe_regex\":{\"regex\":\"\\\\Qa#)|(?:b\"}}}}", 5);
    assert_int_equal(principals_of(z)->count, 5);
    assert_true(allowed(z, &s));
    uri = STR("b");
    assert_false(allowed(z, &s));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(refusals), T(depth_is_bounded), T(connections), T(the_first_name_decides), T(of_two_with_one_name_the_last_counts), T(long_lists_become_sets), T(beginnings_and_ends),
        T(quoted_expressions_stay_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
