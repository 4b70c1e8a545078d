// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/control-plane/common.h"

#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/endpoint/v3/endpoint.pb-c.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "envoy/config/route/v3/route.pb-c.h"
#include "lib/base/json.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"

static struct cp_set *compile(const struct cp_config *c, const char *ip)
{
    struct cp_node n = mesh_node(ip);
    struct cp_set *s = NULL;
    struct err err = { 0 };
    if (cp_compile(c, &n, &mesh_options, &s, &err)) {
        fail_msg("%s", err.msg);
    }
    return s;
}

// A resource as compact JSON text; the caller frees.
static char *text_of(const struct cp_set *s, enum cp_type t, const char *name)
{
    const struct cp_resource *r = cp_set_find(s, t, str_c(name));
    if (!r) {
        fail_msg("no %s %s", cp_type_short(t), name);
    }
    struct arena a = { 0 };
    ProtobufCMessage *m = NULL;
    struct buf b = { 0 };
    struct json_writer w;
    assert_int_equal(pb_unpack(types_find(cp_type_url(t)), r->bytes, &a, &m, NULL), 0);
    jw_init(&w, &b, 0);
    pb_json_write(&w, m, 0);
    size_t n = buf_len(&b);
    char *out = str_dup(buf_pullup(&b, n));
    buf_clear(&b);
    arena_fini(&a);
    return out;
}

static void has(const struct cp_set *s, enum cp_type t, const char *name, const char *part, bool want)
{
    char *text = text_of(s, t, name);
    if ((strstr(text, part) != NULL) != want) {
        fail_msg("%s %s: %s \"%s\" in %s", cp_type_short(t), name, want ? "no" : "unexpected", part, text);
    }
    free(text);
}

static void clusters_have_istiods_names_and_tls(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("");
    struct cp_set *s = compile(c, "10.7.0.99");
    assert_non_null(cp_set_find(s, CP_CDS, STR("BlackHoleCluster")));
    assert_non_null(cp_set_find(s, CP_CDS, STR("PassthroughCluster")));
    assert_non_null(cp_set_find(s, CP_CDS, STR("InboundPassthroughCluster")));
    assert_null(cp_set_find(s, CP_CDS, STR("inbound|9080||")));
    const char *v1 = "outbound|9080|v1|reviews.default.svc.cluster.local";
    has(s, CP_CDS, v1, "\"tlsMode-istio\"", true);
    has(s, CP_CDS, v1, "\"exact\":\"spiffe://cluster.local/ns/default/sa/rev\"", true);
    has(s, CP_CDS, v1, "\"sni\":\"outbound_.9080_.v1_.reviews.default.svc.cluster.local\"", true);
    has(s, CP_CDS, "outbound|6379||redis.default.svc.cluster.local", "transport_socket_matches", false); // its endpoint is outside the mesh
    has(s, CP_EDS, v1, "10.7.0.11", true);
    has(s, CP_EDS, v1, "10.7.0.12", false);
    has(s, CP_EDS, "outbound|9080||reviews.default.svc.cluster.local", "10.7.0.12", true);
    cp_set_unref(s);
    cp_config_free(c);
}

static void routes_carry_match_weights_and_passthrough(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("");
    struct cp_set *s = compile(c, "10.7.0.99");
    has(s, CP_RDS, "9080", "\"name\":\"end-user\",\"string_match\":{\"exact\":\"jason\"}", true);
    has(s, CP_RDS, "9080", "\"weight\":90", true);
    has(s, CP_RDS, "9080", "\"240.240.0.10\"", true);
    has(s, CP_RDS, "9080", "\"allow_any\"", true);
    assert_null(cp_set_find(s, CP_RDS, STR("6379")));
    cp_set_unref(s);
    cp_config_free(c);
}

static void listeners_by_protocol(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("");
    struct cp_set *s = compile(c, "10.7.0.99");
    has(s, CP_LDS, "0.0.0.0_9080", "\"route_config_name\":\"9080\"", true);
    has(s, CP_LDS, "240.240.0.11_6379", "outbound|6379||redis.default.svc.cluster.local", true);
    has(s, CP_LDS, "virtualOutbound", "\"use_original_dst\":true", true);
    cp_set_unref(s);
    cp_config_free(c);
}

static void inbound_chains_follow_peer_authentication(void **state)
{
    (void)state;
    static const struct {
        const char *mode;
        bool mtls, plain;
    } cases[] = { { "STRICT", true, false }, { "PERMISSIVE", true, true }, { "DISABLE", false, true } };
    for (size_t i = 0; i < 3; i++) {
        char more[256];
        snprintf(more, sizeof(more), "---\nkind: PeerAuthentication\napiVersion: security.istio.io/v1\nmetadata: {name: d}\nspec: {mtls: {mode: %s}}\n",
                 cases[i].mode);
        struct cp_config *c = load_mesh(more);
        struct cp_set *s = compile(c, "10.7.0.11");
        has(s, CP_CDS, "inbound|9080||", "\"127.0.0.6\"", true);
        has(s, CP_LDS, "virtualInbound", "\"destination_port\":9080,\"transport_protocol\":\"tls\"", cases[i].mtls);
        has(s, CP_LDS, "virtualInbound", "\"destination_port\":9080,\"transport_protocol\":\"raw_buffer\"", cases[i].plain);
        cp_set_unref(s);
        cp_config_free(c);
    }
}

// Beside TLS and plain text of each, and the inspector stays on for this port alone.
static void a_port_without_a_protocol_is_http_and_tcp_inbound(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: either}\n"
                                    "spec: {hosts: [either.example], resolution: STATIC, workloadSelector: {labels: {app: reviews}}, "
                                    "ports: [{number: 7001, name: http-is-just-a-name}]}\n");
    struct cp_set *s = compile(c, "10.7.0.11");
    has(s, CP_LDS, "virtualInbound", "\"destination_port\":7001,\"transport_protocol\":\"raw_buffer\",\"application_protocols\":[\"http/1.1\",\"h2c\"]", true);
    has(s, CP_LDS, "virtualInbound", "\"destination_port\":7001,\"transport_protocol\":\"raw_buffer\"}", true);
    has(s, CP_LDS, "virtualInbound", "\"filter_disabled\":{\"or_match\":{\"rules\":[{\"destination_port_range\":{\"start\":9080,\"end\":9081}},", true);
    has(s, CP_LDS, "0.0.0.0_7001", "\"default_filter_chain\":{\"filters\":", true);
    cp_set_unref(s);
    cp_config_free(c);
}

// As a real istiod answered: labels from the first on; topology labels that nobody carries come from the locality.
static void failover_priorities_follow_labels(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: z}\nspec: {host: reviews, trafficPolicy: "
                                    "{outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [version=v2, topology.kubernetes.io/region]}}}}\n"
                                    "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: r3}\nspec: {address: 10.7.0.13, "
                                    "locality: eu/a, labels: {app: reviews, version: v2}}\n"
                                    "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: me}\nspec: {address: 10.7.0.99, locality: eu/b}\n");
    struct cp_set *s = compile(c, "10.7.0.99");
    char *text = text_of(s, CP_EDS, "outbound|9080||reviews.default.svc.cluster.local");
    const char *v1 = strstr(text, "10.7.0.11"), *v2 = strstr(text, "10.7.0.12"), *near = strstr(text, "10.7.0.13");
    const char *one = strstr(text, "\"priority\":1"), *two = strstr(text, "\"priority\":2");
    assert_true(v1 && v2 && near && one && two);
    assert_null(strstr(text, "\"priority\":3"));
    assert_true(v1 < two && two < v2);     // wrong version: last
    assert_true(v2 < one && one < near);   // right version, elsewhere
    assert_null(strstr(near, "priority")); // right version, same region: first
    free(text);
    cp_set_unref(s);
    cp_config_free(c);
}

// On the server's side a rule's connection pool holds, and nothing else of it.
static void inbound_clusters_have_the_connection_pool(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: p}\nspec: {host: reviews, trafficPolicy: "
                                    "{connectionPool: {tcp: {maxConnections: 7, connectTimeout: 4s}, http: {h2UpgradePolicy: UPGRADE, idleTimeout: 5s}}, "
                                    "outlierDetection: {consecutive5xxErrors: 3}, tls: {mode: DISABLE}}}\n");
    struct cp_set *s = compile(c, "10.7.0.11");
    has(s, CP_CDS, "inbound|9080||", "\"max_connections\":7", true);
    has(s, CP_CDS, "inbound|9080||", "\"connect_timeout\":\"4s\"", true);
    has(s, CP_CDS, "inbound|9080||", "\"idle_timeout\":\"5s\"", true);
    has(s, CP_CDS, "inbound|9080||", "outlier_detection", false);
    has(s, CP_CDS, "inbound|9080||", "http2_protocol_options", false);
    has(s, CP_CDS, "outbound|9080||reviews.default.svc.cluster.local", "http2_protocol_options", true);
    cp_set_unref(s);
    cp_config_free(c);
}

// What a user writes into a match or a header must stay a value, whatever it looks like.
static void values_cannot_break_out_of_their_quotes(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: z}\n"
                                    "spec: {hosts: [redis], http: [{match: [{headers: {a: {exact: 'x\"}}], evil: {\\'}}}], route: "
                                    "[{destination: {host: reviews}}], headers: {request: {set: {k: '\", b: \"%%'}}}}]}\n");
    struct cp_set *s = compile(c, "10.7.0.99");
    cp_set_unref(s);
    cp_config_free(c);
}

// Each domain once per port: real hosts before short forms of others, then the order of the files.
static void domains_are_told_apart(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: t}\n"
                                    "spec: {hosts: [reviews], addresses: [240.240.0.10], ports: [{number: 9080, name: p9080, protocol: HTTP}]}\n");
    struct cp_set *s = compile(c, "10.7.0.99");
    char *text = text_of(s, CP_RDS, "9080");
    for (size_t i = 0; i < 2; i++) {
        const char *once = i ? "\"240.240.0.10\"" : "\"reviews\"";
        const char *at = strstr(text, once);
        assert_non_null(at);
        assert_null(strstr(at + 1, once));
    }
    has(s, CP_RDS, "9080", "[\"reviews\",\"reviews.\"]", true); // its own name, and not the address that another service has
    free(text);
    cp_set_unref(s);
    cp_config_free(c);
}

static void odd_text_stays_text(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: odd}\nspec: {hosts: [redis], http: ["
                                    "{name: \"a}, {b: \\\"c\\\\\", headers: {request: {set: {\"x: y\": \"}]#'\"}}}, "
                                    "match: [{uri: {exact: \"/}'\\\"\"}}], route: [{destination: {host: redis}}]}]}\n"
                                    "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: r9}\nspec: {address: 10.7.0.19, "
                                    "locality: \"a: b/}c/'d\", labels: {app: reviews, version: \"v}, x: y\"}}\n");
    struct cp_set *s = compile(c, "10.7.0.99");
    has(s, CP_EDS, "outbound|9080||reviews.default.svc.cluster.local", "\"region\":\"a: b\",\"zone\":\"}c\",\"sub_zone\":\"'d\"", true);
    has(s, CP_EDS, "outbound|9080||reviews.default.svc.cluster.local", "r9;default;reviews;v}, x: y;", true);
    cp_set_unref(s);
    cp_config_free(c);
}

static void ipv6_nodes_listen_on_ipv6(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: six}\n"
                                    "spec: {hosts: [six.example], addresses: [\"fd00::10\"], resolution: STATIC, endpoints: [{address: \"fd00::2\"}], "
                                    "ports: [{number: 80, name: p80, protocol: HTTP}, {number: 81, name: p81, protocol: TCP}]}\n");
    struct cp_set *s = compile(c, "fd00::2");
    has(s, CP_LDS, "virtualOutbound", "\"address\":\"::\"", true);
    has(s, CP_LDS, "virtualInbound", "\"address\":\"::\"", true);
    has(s, CP_LDS, "::_80", "\"bind_to_port\":false", true);
    has(s, CP_LDS, "fd00::10_81", "\"address\":\"fd00::10\"", true);
    has(s, CP_CDS, "inbound|80||", "\"address\":\"::6\"", true);
    has(s, CP_RDS, "80", "\"[fd00::10]\"", true);
    cp_set_unref(s);
    cp_config_free(c);
}

#define VS(name, ns, created, hosts, more) \
    "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: " name ", namespace: " ns ", creationTimestamp: " created "}\n" \
    "spec: {hosts: [" hosts "], http: [{name: " name ", route: [{destination: {host: reviews.default.svc.cluster.local, port: {number: 9080}}}]}]" more "}\n"

// As a real istiod answered for these: the closest name, then what is exported to the namespace alone, then the oldest.
static void the_closest_and_oldest_virtual_service_wins(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *wins;
    } cases[] = {
        { VS("wide", "default", "2000-01-01", "'*.cluster.local'", "") VS("exact", "default", "2024-01-01", "plain.x.svc.cluster.local", ""), "exact" },
        { VS("wide", "default", "2000-01-01", "'*.cluster.local'", "") VS("closer", "default", "2024-01-01", "'*.x.svc.cluster.local'", ""), "closer" },
        { VS("b-old", "default", "2000-01-01", "plain.x.svc.cluster.local", "") VS("a-new", "default", "2024-01-01", "plain.x.svc.cluster.local", ""), "b-old" },
        { VS("public", "x", "2000-01-01", "plain.x.svc.cluster.local", "") VS("private", "default", "2024-01-01", "plain.x.svc.cluster.local", ", exportTo: ['.']"), "private" },
        { VS("public", "x", "2024-01-01", "plain.x.svc.cluster.local", "") VS("hidden", "x", "2000-01-01", "plain.x.svc.cluster.local", ", exportTo: ['.']"), "public" },
        { VS("public", "x", "2024-01-01", "plain.x.svc.cluster.local", "") VS("gateway", "x", "2000-01-01", "plain.x.svc.cluster.local", ", gateways: [g]"), "public" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char more[2048];
        snprintf(more, sizeof(more), "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: plain, namespace: x}\n"
                                     "spec: {hosts: [plain.x.svc.cluster.local], ports: [{number: 7777, name: p7777, protocol: HTTP}]}\n%s", cases[i].yaml);
        struct cp_config *c = load_mesh(more);
        struct cp_set *s = compile(c, "10.7.0.99");
        char want[64];
        snprintf(want, sizeof(want), "/virtual-service/%s\"", cases[i].wins);
        has(s, CP_RDS, "7777", want, true);
        cp_set_unref(s);
        cp_config_free(c);
    }
}

#define DR(name, ns, lb, more) \
    "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: " name ", namespace: " ns "}\n" \
    "spec: {host: plain.x.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: " lb "}}" more "}\n"

// The client's namespace, the service's, the root's; within one, the rule that selects the workload.
static void the_nearest_destination_rule_wins(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *lb;
    } cases[] = {
        { DR("a", "istio-system", "RANDOM", ""), "RANDOM" },
        { DR("a", "istio-system", "RANDOM", "") DR("b", "x", "ROUND_ROBIN", ""), "services\":[" }, // ROUND_ROBIN is 0 and not written
        { DR("a", "x", "ROUND_ROBIN", "") DR("b", "default", "RANDOM", ""), "RANDOM" },
        { DR("a", "x", "RANDOM", ", exportTo: [elsewhere]"), "LEAST_REQUEST" },
        { DR("a", "elsewhere", "RANDOM", ""), "LEAST_REQUEST" },
        { DR("a", "default", "LEAST_REQUEST", "") DR("b", "default", "RANDOM", ", workloadSelector: {matchLabels: {app: me}}"), "RANDOM" },
        { DR("a", "default", "LEAST_REQUEST", "") DR("b", "default", "RANDOM", ", workloadSelector: {matchLabels: {app: you}}"), "LEAST_REQUEST" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static struct cp_label me = { STR_INIT("app"), STR_INIT("me") };
        char more[2048];
        snprintf(more, sizeof(more), "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: plain, namespace: x}\n"
                                     "spec: {hosts: [plain.x.svc.cluster.local], resolution: STATIC, ports: [{number: 7777, name: p7777, protocol: HTTP}]}\n%s", cases[i].yaml);
        struct cp_config *c = load_mesh(more);
        struct cp_node n = mesh_node("10.7.0.99");
        struct cp_set *s = NULL;
        struct err err = { 0 };
        n.labels = (struct cp_labels){ &me, 1 };
        assert_int_equal(cp_compile(c, &n, &mesh_options, &s, &err), 0);
        has(s, CP_CDS, "outbound|7777||plain.x.svc.cluster.local", cases[i].lb, true);
        if (cases[i].lb[0] == 's') {
            has(s, CP_CDS, "outbound|7777||plain.x.svc.cluster.local", "\"lb_policy\"", false);
        }
        cp_set_unref(s);
        cp_config_free(c);
    }
}

static void a_service_is_seen_where_it_is_exported_to(void **state)
{
    (void)state;
    static const char *const exports[] = { "['.']", "[default]", "['*']", "[elsewhere]" };
    for (size_t i = 0; i < 4; i++) {
        char more[512];
        snprintf(more, sizeof(more), "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: plain, namespace: x}\n"
                                     "spec: {hosts: [p.x], exportTo: %s, ports: [{number: 7777, name: p7777, protocol: HTTP}]}\n", exports[i]);
        struct cp_config *c = load_mesh(more);
        struct cp_set *s = compile(c, "10.7.0.99");
        bool seen = i == 1 || i == 2;
        assert_true((cp_set_find(s, CP_CDS, STR("outbound|7777||p.x")) != NULL) == seen);
        assert_true((cp_set_find(s, CP_LDS, STR("0.0.0.0_7777")) != NULL) == seen);
        assert_true((cp_set_find(s, CP_RDS, STR("7777")) != NULL) == seen);
        cp_set_unref(s);
        cp_config_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failover_priorities_follow_labels),
        cmocka_unit_test(inbound_clusters_have_the_connection_pool),
        cmocka_unit_test(the_closest_and_oldest_virtual_service_wins),
        cmocka_unit_test(the_nearest_destination_rule_wins),
        cmocka_unit_test(a_service_is_seen_where_it_is_exported_to),
        cmocka_unit_test(clusters_have_istiods_names_and_tls),
        cmocka_unit_test(routes_carry_match_weights_and_passthrough),
        cmocka_unit_test(listeners_by_protocol),
        cmocka_unit_test(inbound_chains_follow_peer_authentication),
        cmocka_unit_test(a_port_without_a_protocol_is_http_and_tcp_inbound),
        cmocka_unit_test(values_cannot_break_out_of_their_quotes),
        cmocka_unit_test(domains_are_told_apart),
        cmocka_unit_test(odd_text_stays_text),
        cmocka_unit_test(ipv6_nodes_listen_on_ipv6),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
