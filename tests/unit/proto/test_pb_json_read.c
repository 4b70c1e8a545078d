// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/config/trace/v3/zipkin.pb-c.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "lib/base/check.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"

static struct arena arena;

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static ProtobufCMessage *parse(const ProtobufCMessageDescriptor *desc, const char *text)
{
    ProtobufCMessage *m;
    struct err err;
    if (pb_json_parse(str_c(text), desc, 0, &arena, &m, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return m;
}

// A bootstrap as users write it: two spellings, numbers as YAML has them, Any, durations, oneofs.
static void test_bootstrap_yaml(void **state)
{
    (void)state;
    const char *text =
        "node: {id: n1, cluster: c, metadata: {LABELS: {app: a}, N: 1.5, B: true, L: [x, null]}}\n"
        "admin:\n"
        "  accessLogPath: /dev/null\n"
        "  address: {socket_address: {address: 127.0.0.1, port_value: 15000}}\n"
        "static_resources:\n"
        "  clusters:\n"
        "  - name: 8080\n"
        "    connectTimeout: 0.25s\n"
        "    type: STRICT_DNS\n"
        "    lb_policy: LEAST_REQUEST\n"
        "    circuit_breakers: {thresholds: [{max_connections: '7', priority: HIGH}]}\n"
        "    common_lb_config: {healthy_panic_threshold: {}}\n"
        "    typed_extension_protocol_options:\n"
        "      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n"
        "        '@type': "
        "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n"
        "        explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 100}}\n"
        "  listeners:\n"
        "  - name: l\n"
        "    filter_chains:\n"
        "    - filters:\n"
        "      - name: hcm\n"
        "        typed_config:\n"
        "          '@type': "
        "type.googleapis.com/"
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n"
        "          stat_prefix: s\n"
        "          stream_idle_timeout: 0s\n";
    const Envoy__Config__Bootstrap__V3__Bootstrap *b =
        (const void *)parse(&envoy__config__bootstrap__v3__bootstrap__descriptor, text);
    assert_string_equal(b->admin->access_log_path, "/dev/null");
    assert_int_equal(b->admin->address->socket_address->port_value, 15000);
    assert_true(str_is(
        pb_struct_str(pb_struct_get(b->node->metadata, "LABELS")->struct_value, "app"), "a"));
    assert_true(pb_struct_get(b->node->metadata, "B")->bool_value);
    const Google__Protobuf__ListValue *l = pb_struct_get(b->node->metadata, "L")->list_value;
    assert_int_equal(l->values[1]->kind_case, GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE);
    const Envoy__Config__Cluster__V3__Cluster *c = b->static_resources->clusters[0];
    assert_string_equal(c->name, "8080");
    assert_int_equal(c->connect_timeout->nanos, 250000000);
    assert_int_equal(c->type, ENVOY__CONFIG__CLUSTER__V3__CLUSTER__DISCOVERY_TYPE__STRICT_DNS);
    assert_int_equal(c->cluster_discovery_type_case,
                     ENVOY__CONFIG__CLUSTER__V3__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE);
    assert_int_equal(pb_u32_or(c->circuit_breakers->thresholds[0]->max_connections, 0), 7);
    assert_non_null(c->common_lb_config->healthy_panic_threshold); // present though empty
    assert_null(c->outlier_detection);
    assert_int_equal(c->n_typed_extension_protocol_options, 1);
    const Envoy__Config__Listener__V3__Filter *f =
        b->static_resources->listeners[0]->filter_chains[0]->filters[0];
    const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager
        *hcm;
    ProtobufCMessage *m;
    assert_int_equal(pb_any_unpack(f->typed_config, NULL, &arena, &m, NULL), 0);
    hcm = (const void *)m;
    assert_non_null(hcm->stream_idle_timeout); // 0s is not absent
    assert_null(hcm->request_timeout);
}

static void test_camel_case(void **state)
{
    (void)state;
    const char *text = "{\"consecutive5xx\": 3, \"maxEjectionPercent\": 50, "
                       "\"splitExternalLocalOriginErrors\": true}";
    const Envoy__Config__Cluster__V3__OutlierDetection *o =
        (const void *)parse(&envoy__config__cluster__v3__outlier_detection__descriptor, text);
    assert_int_equal(o->consecutive_5xx->value, 3);
    assert_int_equal(o->max_ejection_percent->value, 50);
    assert_true(o->split_external_local_origin_errors);
    const Envoy__Config__Core__V3__Http1ProtocolOptions *h = (const void *)parse(
        &envoy__config__core__v3__http1_protocol_options__descriptor, "{\"acceptHttp10\": true}");
    assert_true(h->accept_http_10);
}

static void test_errors_name_the_place(void **state)
{
    (void)state;
    const struct {
        const char *text, *expected;
    } cases[] = {
        { "static_resources:\n  clusters:\n  - name: a\n  - name: b\n    lb_policy: ROUNDROBIN\n",
          "static_resources.clusters[1].lb_policy (line 5, column 16): unknown value "
          "\"ROUNDROBIN\"; one of CLUSTER_PROVIDED, " },
        { "static_resources: {clusters: [{nam: a}]}",
          "static_resources.clusters[0].nam (line 1, column 37): unknown field; "
          "envoy.config.cluster.v3.Cluster has none" },
        { "admin: {address: {socket_address: {port_value: 70000000000}}}",
          "admin.address.socket_address.port_value (line 1, column 48): 70000000000 does not fit: "
          "expected 0 to 4294967295" },
        { "admin: {address: {socket_address: {port_value: 80.5}}}",
          "port_value (line 1, column 48): 80.5 is not a whole number" },
        { "admin: {address: {socket_address: {port_value: -1}}}",
          "-1 does not fit: expected 0 to 4294967295" },
        { "admin: {address: {socket_address: {port_value: http}}}", "http is not a whole number" },
        { "admin: {address: {socket_address: {port_value: [1]}}}", "a list is not a whole number" },
        { "admin: {address: {socket_address: {port_value: 1, named_port: x}}}",
          "named_port (line 1, column 63): cannot stand beside port_value" },
        { "admin: {access_log_path: a, accessLogPath: b}",
          "accessLogPath (line 1, column 44): given twice" },
        { "static_resources: {clusters: {}}",
          "static_resources.clusters (line 1, column 30): an object where a list is expected" },
        { "static_resources: {clusters: [null]}",
          "clusters[0] (line 1, column 31): null where an object is expected" },
        { "static_resources: []",
          "static_resources (line 1, column 19): a list where an object is expected" },
        { "static_resources: {clusters: [{connect_timeout: 5}]}",
          "connect_timeout (line 1, column 49): not a duration; expected seconds such as "
          "\"0.25s\"" },
        { "static_resources: {clusters: [{connect_timeout: 5ms}]}", "\"5ms\" is not a duration" },
        { "static_resources: {clusters: [{respect_dns_ttl: 'true'}]}",
          "text where true or false is expected (without quotes)" },
        { "{\"node\": {\"id\": 5}}",
          "node.id (line 1, column 17): a number where text is expected; put it in quotes" },
        { "node: {metadata: 5}",
          "node.metadata (line 1, column 18): a number where an object is expected" },
        { "stats_sinks: [{name: x, typed_config: {value: 1}}]",
          "stats_sinks[0].typed_config (line 1, column 39): needs \"@type\"" },
        { "stats_sinks: [{typed_config: {'@type': x/a.B}}]",
          "typed_config.@type (line 1, column 40): unknown type \"x/a.B\"" },
        { "stats_sinks: [{typed_config: {'@type': envoy.config.metrics.v3.StatsdSink, prefx: p}}]",
          "stats_sinks[0].typed_config.prefx (line 1, column 83): unknown field; "
          "envoy.config.metrics.v3.StatsdSink" },
        { "layered_runtime: {layers: [{static_layer: {a: {b: 1e999}}}]}",
          "layered_runtime.layers[0].static_layer.a.b (line 1, column 51): 1e999 does not fit a "
          "number of 64 bits" },
        { "- 1", "line 1, column 1: a list where an object is expected" },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        ProtobufCMessage *m = (void *)1;
        struct err err = { 0 };
        int r = pb_json_parse(str_c(cases[i].text),
                              &envoy__config__bootstrap__v3__bootstrap__descriptor, 0, &arena, &m,
                              &err);
        assert_int_equal(r, -EINVAL);
        assert_ptr_equal(m, (void *)1);
        if (!strstr(err.msg, cases[i].expected)) {
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, err.msg, cases[i].expected);
        }
    }
}

static void test_ignore_unknown(void **state)
{
    (void)state;
    ProtobufCMessage *m;
    const ProtobufCMessageDescriptor *d = &envoy__config__core__v3__locality__descriptor;
    assert_int_equal(pb_json_parse(STR("{\"x\": {\"y\": []}, \"zone\": \"z\"}"), d,
                                   PB_JSON_IGNORE_UNKNOWN, &arena, &m, NULL),
                     0);
    assert_string_equal(((Envoy__Config__Core__V3__Locality *)m)->zone, "z");
}

// value: the JSON of a google.protobuf wrapper; ok says whether it is taken.
static bool taken(const ProtobufCMessageDescriptor *d, const char *value, ProtobufCMessage **ret)
{
    struct json *n;
    struct str text = arena_printf(&arena, "[%s]", value);
    assert_int_equal(json_parse(text, &arena, &n, NULL), 0);
    return pb_json_read(n->first, d, 0, &arena, ret, NULL) == 0;
}

static void test_integers(void **state)
{
    (void)state;
    const struct {
        const char *text;
        bool ok;
        int64_t value;
    } cases[] = {
        { "9223372036854775807", true, INT64_MAX },
        { "\"-9223372036854775808\"", true, INT64_MIN },
        { "9223372036854775808", false, 0 },
        { "-9223372036854775809", false, 0 },
        { "\"12\"", true, 12 },
        { "5.0", true, 5 },
        { "1e3", true, 1000 },
        { "-1.5e1", true, -15 },
        { "1.5", false, 0 },
        { "1e-1", false, 0 },
        { "1e30", false, 0 },
        { "\"\"", false, 0 },
        { "\" 1\"", false, 0 },
        { "\"0x10\"", false, 0 },
        { "\"+1\"", false, 0 },
        { "true", false, 0 },
        { "null", false, 0 },
        { "-0", true, 0 },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        ProtobufCMessage *m;
        bool ok = taken(&google__protobuf__int64_value__descriptor, cases[i].text, &m);
        if (ok != cases[i].ok) {
            fail_msg("%s: %s", cases[i].text, ok ? "taken" : "refused");
        }
        if (ok) {
            assert_int_equal(((Google__Protobuf__Int64Value *)m)->value, cases[i].value);
        }
    }
    ProtobufCMessage *m;
    assert_true(taken(&google__protobuf__uint64_value__descriptor, "18446744073709551615", &m));
    assert_true(((Google__Protobuf__UInt64Value *)m)->value == UINT64_MAX);
    assert_false(taken(&google__protobuf__uint64_value__descriptor, "-1", &m));
    assert_true(taken(&google__protobuf__int32_value__descriptor, "-2147483648", &m));
    assert_int_equal(((Google__Protobuf__Int32Value *)m)->value, INT32_MIN);
    assert_false(taken(&google__protobuf__int32_value__descriptor, "2147483648", &m));
}

static void test_doubles_and_bytes(void **state)
{
    (void)state;
    ProtobufCMessage *m;
    assert_true(taken(&google__protobuf__double_value__descriptor, "1.5e3", &m));
    assert_true(((Google__Protobuf__DoubleValue *)m)->value == 1500);
    assert_true(taken(&google__protobuf__double_value__descriptor, "\"NaN\"", &m));
    assert_true(isnan(((Google__Protobuf__DoubleValue *)m)->value));
    assert_true(taken(&google__protobuf__double_value__descriptor, "\"-Infinity\"", &m));
    assert_true(((Google__Protobuf__DoubleValue *)m)->value < 0);
    assert_false(taken(&google__protobuf__double_value__descriptor, "\"inf\"", &m));
    assert_false(taken(&google__protobuf__float_value__descriptor, "1e39", &m));
    assert_true(taken(&google__protobuf__bytes_value__descriptor, "\"AP8\"", &m)); // no padding
    assert_int_equal(((Google__Protobuf__BytesValue *)m)->value.len, 2);
    assert_false(taken(&google__protobuf__bytes_value__descriptor, "\"A!\"", &m));
    assert_false(taken(&google__protobuf__string_value__descriptor, "\"a\\u0000b\"", &m));
    assert_false(taken(&google__protobuf__string_value__descriptor, "5", &m));
}

static void test_duration_and_timestamp(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\"1\"",    "\"s\"",    "\"1.s\"", "\".5s\"", "\"1.0000000001s\"", "\"315576000001s\"",
        "\"1e3s\"", "\"--1s\"", "\"1 s\"", "1"
    };
    ProtobufCMessage *m;
    for (size_t i = 0; i < array_len(bad); i++) {
        if (taken(&google__protobuf__duration__descriptor, bad[i], &m)) {
            fail_msg("%s was taken", bad[i]);
        }
    }
    assert_true(taken(&google__protobuf__duration__descriptor, "\"-1.25s\"", &m));
    assert_int_equal(((Google__Protobuf__Duration *)m)->seconds, -1);
    assert_int_equal(((Google__Protobuf__Duration *)m)->nanos, -250000000);
    assert_true(taken(&google__protobuf__duration__descriptor, "\"9223372035s\"", &m));
    assert_int_equal(((Google__Protobuf__Duration *)m)->seconds, 9223372035);

    const struct {
        const char *text;
        int64_t seconds;
        int32_t nanos;
    } good[] = {
        { "\"1970-01-01T00:00:00Z\"", 0, 0 },
        { "\"2026-11-21T04:00:31.123Z\"", 1795233631, 123000000 },
        { "\"2026-11-21T06:00:31+02:00\"", 1795233631, 0 },
        { "\"2024-02-29T00:00:00.000000001Z\"", 1709164800, 1 },
        { "\"0001-01-01T00:00:00Z\"", -62135596800, 0 },
    };
    for (size_t i = 0; i < array_len(good); i++) {
        assert_true(taken(&google__protobuf__timestamp__descriptor, good[i].text, &m));
        assert_int_equal(((Google__Protobuf__Timestamp *)m)->seconds, good[i].seconds);
        assert_int_equal(((Google__Protobuf__Timestamp *)m)->nanos, good[i].nanos);
    }
    static const char *const wrong[] = { "\"2026-02-30T00:00:00Z\"", "\"2026-11-21\"",
                                         "\"2026-11-21T04:00:31\"",  "\"2026-13-01T00:00:00Z\"",
                                         "\"2026-11-21T24:00:00Z\"", "\"2026-11-21T04:00:31.Z\"" };
    for (size_t i = 0; i < array_len(wrong); i++) {
        if (taken(&google__protobuf__timestamp__descriptor, wrong[i], &m)) {
            fail_msg("%s was taken", wrong[i]);
        }
    }
}

static void test_any_forms(void **state)
{
    (void)state;
    ProtobufCMessage *m;
    const ProtobufCMessageDescriptor *any = &google__protobuf__any__descriptor;
    assert_true(taken(any, "{}", &m));
    assert_true(taken(
        any, "{\"@type\": \"type.googleapis.com/google.protobuf.Duration\", \"value\": \"1s\"}",
        &m));
    assert_int_equal(((Google__Protobuf__Any *)m)->value.len, 2);
    assert_false(taken(
        any, "{\"@type\": \"type.googleapis.com/google.protobuf.Duration\", \"seconds\": 1}", &m));
    assert_true(taken(any, "{\"@type\": \"x/a.B\", \"value\": \"AQI=\"}",
                      &m)); // as written for unknown types
    assert_int_equal(((Google__Protobuf__Any *)m)->value.len, 2);
    assert_false(taken(any, "{\"@type\": \"x/a.B\", \"value\": {}}", &m));
    assert_false(taken(any, "{\"@type\": 5}", &m));
}

// proto3 `optional` is a one-member oneof here: given and default is kept apart from absent.
static void test_optional_keeps_presence(void **state)
{
    (void)state;
    ProtobufCMessage *m = parse(&envoy__config__route__v3__header_matcher__descriptor,
                                "{\"name\": \"x\", \"present_match\": false}");
    const Envoy__Config__Route__V3__HeaderMatcher *h = (const void *)m;
    assert_int_equal(
        h->header_match_specifier_case,
        ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PRESENT_MATCH);
    assert_true(pb_pack(m, &arena).n == 5); // name, and false on the wire
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_bootstrap_yaml, teardown),
        cmocka_unit_test_teardown(test_camel_case, teardown),
        cmocka_unit_test_teardown(test_errors_name_the_place, teardown),
        cmocka_unit_test_teardown(test_ignore_unknown, teardown),
        cmocka_unit_test_teardown(test_integers, teardown),
        cmocka_unit_test_teardown(test_doubles_and_bytes, teardown),
        cmocka_unit_test_teardown(test_duration_and_timestamp, teardown),
        cmocka_unit_test_teardown(test_any_forms, teardown),
        cmocka_unit_test_teardown(test_optional_keeps_presence, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
