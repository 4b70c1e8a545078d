// SPDX-License-Identifier: Apache-2.0
// AuthorizationPolicies and RequestAuthentications: what is refused, and what must not go wrong in what is made of them. The shapes themselves are
// compared with a real istiod's in tests/golden/control/policies.
#include "tests/unit/control-plane/common.h"

#include "lib/base/json.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"

#define POLICY "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: "
#define TOKENS "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: t}\nspec: "
#define MESH(settings) "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n" settings
#define PROVIDER MESH("    extensionProviders:\n    - {name: x, envoyExtAuthzHttp: {service: reviews.default.svc.cluster.local, port: 9080}}\n")

static const struct mistake mistakes[] = {
    { POLICY "{rules: [{from: [{}]}]}\n", "from: source is missing" },
    { POLICY "{rules: [{from: [{source: {}}]}]}\n", "source: says nothing" },
    { POLICY "{rules: [{from: [{source: {principal: [a]}}]}]}\n", "principal: unknown or unsupported" },
    { POLICY "{rules: [{to: [{operation: {path: [/a]}}]}]}\n", "path: unknown or unsupported" },
    { POLICY "{rules: [{when: [{key: request.header, values: [a]}]}]}\n", "\"request.header\" is no attribute" },
    { POLICY "{rules: [{when: [{key: \"request.headersx[a]\", values: [a]}]}]}\n", "is no attribute" },
    { POLICY "{rules: [{when: [{key: source.ip}]}]}\n", "values or notValues are needed" },
    { POLICY "{rules: [{when: [{key: source.ip, value: [1.1.1.1]}]}]}\n", "value: unknown or unsupported" },
    { POLICY "{rules: [{from: [{source: {ipBlocks: [1.2.3]}}]}]}\n", "ipBlocks: \"1.2.3\" is neither an address nor a range" },
    { POLICY "{rules: [{to: [{operation: {ports: [http]}}]}]}\n", "ports: \"http\" is no port" },
    { POLICY "{rules: [{to: [{operation: {paths: [\"/{**}/{*}\"]}}]}]}\n", "may stand behind {**}" },
    { POLICY "{rules: [{to: [{operation: {methods: [\"\"]}}]}]}\n", "methods: holds an empty text" },
    { POLICY "{rules: [null]}\n", "must be an object" },
    { POLICY "{rules: {}}\n", "rules: must be a list" },
    { POLICY "{rule: []}\n", "rule: unknown or unsupported" },
    { POLICY "{action: REFUSE}\n", "\"REFUSE\" is not one of: ALLOW DENY AUDIT CUSTOM" },
    { POLICY "{action: DENY}\n", "DENY without rules is never triggered" },
    { POLICY "{selector: {matchLabel: {a: b}}}\n", "matchLabel: unknown or unsupported" },
    { POLICY "{selector: {matchLabels: {a: \"*\"}}}\n", "selectors know no wildcards" },
    { POLICY "{action: CUSTOM, provider: {name: x}, rules: [{}]}\n", "no extensionProviders of ConfigMap istio in istio-system has the name \"x\"" },
    { PROVIDER POLICY "{action: CUSTOM, provider: {name: y}, rules: [{}]}\n", "has the name \"y\"" },
    { PROVIDER POLICY "{action: CUSTOM, rules: [{}]}\n", "provider" },
    { PROVIDER POLICY "{action: CUSTOM, provider: {name: x}, rules: [{from: [{source: {principals: [a]}}]}]}\n", "does not go with action CUSTOM" },
    { MESH("    extensionProviders:\n    - {name: x, envoyExtAuthzGrpc: {service: nowhere, port: 1}}\n") POLICY
      "{action: CUSTOM, provider: {name: x}, rules: [{}]}\n",
      "service \"nowhere\" of provider \"x\" is no known service" },
    { MESH("    extensionProviders:\n    - {name: x, envoyExtAuthzGrpc: {service: reviews.default.svc.cluster.local, port: 1}}\n") POLICY
      "{action: CUSTOM, provider: {name: x}, rules: [{}]}\n",
      "has no port 1" },
    { MESH("    extensionProviders:\n    - {name: x, zipkin: {service: a, port: 1}}\n"), "zipkin: unknown or unsupported" },
    { MESH("    extensionProviders:\n    - {name: X, envoyExtAuthzGrpc: {service: a, port: 1}}\n"), "is no name of a provider" },
    { MESH("    extensionProviders:\n    - {name: x, envoyExtAuthzGrpc: {service: a, port: 1, statusOnError: \"999\"}}\n"), "\"999\" is no HTTP status" },
    { MESH("    extensionProviders:\n    - {name: x, envoyExtAuthzHttp: {service: a, port: 1, includeRequestHeadersInCheck: [\"*\"]}}\n"), "a header's name" },
    { MESH("    extensionProviders:\n    - {name: x, envoyExtAuthzGrpc: {service: a, port: 1}}\n    - {name: x, envoyExtAuthzGrpc: {service: a, port: 1}}\n"),
      "named twice" },
    { MESH("    enableTracing: true\n"), "enableTracing: unknown or unsupported" },
    { MESH("    accessLogFile: /tmp/log\n"), "accessLogFile: must be /dev/stdout" },
    { MESH("    rootNamespace: mesh\n"), "rootNamespace: must be istio-system" },
    { MESH("    outboundTrafficPolicy: {mode: DENY}\n"), "\"DENY\" is not one of: REGISTRY_ONLY ALLOW_ANY" },
    { "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndata: {}\n", "only \"istio\" in istio-system" },
    { TOKENS "{jwtRules: [{issuer: a}]}\n", "jwks or jwksUri is needed" },
    { TOKENS "{jwtRules: [{issuer: a, jwks: \"{}\"}]}\n", "jwks: " },
    { TOKENS "{jwtRules: [{issuer: a, jwks: '{\"keys\": []}'}]}\n", "jwks: no usable key" },
    { TOKENS "{jwtRules: [{issuer: a, jwksUri: \"ftp://a/b\"}]}\n", "neither with http:// nor with https://" },
    { TOKENS "{jwtRules: [{issuer: a, jwksUri: \"https:///b\"}]}\n", "names no host" },
    { TOKENS "{jwtRules: [{issuers: [a]}]}\n", "issuers: unknown or unsupported" },
};

static void mistakes_are_refused_by_line(void **state)
{
    (void)state;
    expect_mistakes(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

// Lines of the settings, which are a text within the file, are those of the file.
static void settings_have_the_files_lines(void **state)
{
    (void)state;
    struct cp_config *c = NULL;
    struct err err = { 0 };
    assert_int_not_equal(cp_load_text(str_c("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n"
                                            "    trustDomainAliases: [a]\n    enableTracing: true\n"),
                                      "m.yaml", &c, &err),
                         0);
    assert_string_equal(err.msg, "m.yaml:7: enableTracing: unknown or unsupported field; known here: extensionProviders trustDomainAliases "
                                 "trustDomain rootNamespace accessLogFile outboundTrafficPolicy protocolDetectionTimeout");
}

static struct cp_set *compile(const char *more)
{
    struct cp_config *c = load_mesh(more);
    struct cp_node n = mesh_node("10.7.0.11");
    struct cp_set *s = NULL;
    struct err err = { 0 };
    if (cp_compile(c, &n, &mesh_options, &s, &err)) {
        fail_msg("%s", err.msg);
    }
    cp_config_free(c);
    return s;
}

// A resource as compact JSON in the arena.
static const char *text_of(const struct cp_set *s, enum cp_type t, const char *name, struct arena *a)
{
    const struct cp_resource *r = cp_set_find(s, t, str_c(name));
    ProtobufCMessage *m = NULL;
    struct buf b = { 0 };
    struct json_writer w;
    assert_non_null(r);
    assert_int_equal(pb_unpack(types_find(cp_type_url(t)), r->bytes, a, &m, NULL), 0);
    jw_init(&w, &b, 0);
    pb_json_write(&w, m, 0);
    const char *out = arena_str(a, buf_pullup(&b, buf_len(&b))).p;
    buf_clear(&b);
    return out;
}

static void contains(const char *more, enum cp_type t, const char *name, const char *part)
{
    struct arena a = { 0 };
    struct cp_set *s = compile(more);
    const char *text = text_of(s, t, name, &a);
    if (!strstr(text, part)) {
        fail_msg("no %s in %s", part, text);
    }
    cp_set_unref(s);
    arena_fini(&a);
}

static void values_stay_values(void **state)
{
    (void)state;
    contains(POLICY "{rules: [{to: [{operation: {hosts: ['/\"}]}, {any: true']}}]}]}\n", CP_LDS, "virtualInbound", "\"exact\":\"/\\\"}]}, {any: true\"");
    contains(POLICY "{rules: [{from: [{source: {namespaces: ['a\"]}}.*']}}]}]}\n", CP_LDS, "virtualInbound",
             "\"regex\":\".*/ns/a\\\"\\\\]\\\\}\\\\}\\\\..*/.*\"");
    contains(POLICY "{rules: [{when: [{key: 'request.headers[x\": y]', values: [\"%s%n\"]}]}]}\n", CP_LDS, "virtualInbound",
             "\"name\":\"x\\\": y\",\"string_match\":{\"exact\":\"%s%n\"}");
}

// Nothing is left of a rule for HTTP on a TCP chain, and nothing passes there.
static void what_cannot_be_asked_is_not_allowed(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct cp_set *s = compile(POLICY "{rules: [{to: [{operation: {methods: [GET]}}]}]}\n");
    const char *text = text_of(s, CP_LDS, "virtualInbound", &a);
    assert_non_null(strstr(text, "\"@type\":\"type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC\",\"rules\":{}"));
    cp_set_unref(s);
    arena_fini(&a);
}

static void keys_of_the_outside_have_a_cluster(void **state)
{
    (void)state;
    contains(TOKENS "{jwtRules: [{issuer: a, jwksUri: \"https://keys.example/k\"}]}\n", CP_CDS, "jwks-tls|443||keys.example",
             "\"match_subject_alt_names\":[{\"exact\":\"keys.example\"}]");
    contains(TOKENS "{jwtRules: [{issuer: a, jwksUri: \"https://keys.example/k\"}]}\n", CP_LDS, "virtualInbound", "\"cluster\":\"jwks-tls|443||keys.example\"");
    contains(TOKENS "{jwtRules: [{issuer: a, jwksUri: \"http://10.9.9.9:81/k\"}]}\n", CP_CDS, "jwks|81||10.9.9.9", "\"port_value\":81");
    contains(TOKENS "{jwtRules: [{issuer: a, jwksUri: \"http://reviews.default.svc.cluster.local:9080/k\"}]}\n", CP_LDS, "virtualInbound",
             "\"cluster\":\"outbound|9080||reviews.default.svc.cluster.local\"");
}

static void settings_of_the_folder_hold(void **state)
{
    (void)state;
    static const char settings[] = MESH("    trustDomain: cluster.local\n    accessLogFile: /dev/stdout\n    outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n"
                                        "    protocolDetectionTimeout: 100ms\n    trustDomainAliases: [old.example]\n");
    contains(settings, CP_LDS, "virtualInbound", "/dev/stdout");
    contains(settings, CP_LDS, "virtualInbound", "\"listener_filters_timeout\":\"0.100s\"");
    contains(settings, CP_LDS, "virtualInbound", "[{\"prefix\":\"spiffe://cluster.local/\"},{\"prefix\":\"spiffe://old.example/\"}]");
    contains(settings, CP_LDS, "virtualOutbound", "\"cluster\":\"BlackHoleCluster\",\"access_log\"");
    struct cp_config *c = load_mesh(settings);
    const struct cp_options other = { .trust_domain = STR_INIT("example.org") };
    struct err err = { 0 };
    assert_int_equal(cp_check_mesh(c, &mesh_options, &err), 0);
    assert_int_not_equal(cp_check_mesh(c, &other, &err), 0);
    assert_string_equal(err.msg, "mesh.yaml: trustDomain: \"cluster.local\" is not the \"example.org\" of --trust-domain, which signs the certificates");
    cp_config_free(c);
}

// The proxy at 10.7.0.11 says nothing of itself; its WorkloadEntry says app: reviews.
static void selectors_see_the_files_labels(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh(POLICY "{action: DENY, selector: {matchLabels: {app: reviews, tier: back}}, rules: [{}]}\n");
    struct cp_label own[] = { { STR_INIT("app"), STR_INIT("other") }, { STR_INIT("tier"), STR_INIT("back") } };
    struct cp_node n = mesh_node("10.7.0.11");
    struct err err = { 0 };
    n.labels = (struct cp_labels){ own, 2 };
    for (int there = 1; there >= 0; there--) {
        struct arena a = { 0 };
        struct cp_set *s = NULL;
        n.ns = there ? STR("default") : STR("elsewhere");
        assert_int_equal(cp_compile(c, &n, &mesh_options, &s, &err), 0);
        assert_int_equal(strstr(text_of(s, CP_LDS, "virtualInbound", &a), "ns[default]-policy[p]-rule[0]") != NULL, there);
        cp_set_unref(s);
        arena_fini(&a);
    }
    cp_config_free(c);
}

// Which one of two providers is meant nobody can tell.
static void two_providers_let_nothing_pass(void **state)
{
    (void)state;
    contains(MESH("    extensionProviders:\n    - {name: x, envoyExtAuthzHttp: {service: reviews.default.svc.cluster.local, port: 9080}}\n"
                  "    - {name: y, envoyExtAuthzGrpc: {service: reviews.default.svc.cluster.local, port: 9080}}\n") POLICY
             "{action: CUSTOM, provider: {name: x}, rules: [{}]}\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
             "metadata: {name: q}\nspec: {action: CUSTOM, provider: {name: y}, rules: [{}]}\n",
             CP_LDS, "virtualInbound", "istio-ext-authz-x-ns[default]-policy[p]-rule[0]-deny-due-to-bad-CUSTOM-action");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_refused_by_line),
        cmocka_unit_test(settings_have_the_files_lines),
        cmocka_unit_test(values_stay_values),
        cmocka_unit_test(what_cannot_be_asked_is_not_allowed),
        cmocka_unit_test(keys_of_the_outside_have_a_cluster),
        cmocka_unit_test(settings_of_the_folder_hold),
        cmocka_unit_test(selectors_see_the_files_labels),
        cmocka_unit_test(two_providers_let_nothing_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
