// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/extensions/transport_sockets/tls/v3/secret.pb-c.h"
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

static const char *written(const ProtobufCMessage *m, unsigned flags, bool typed)
{
    struct buf out = { 0 };
    struct json_writer w;
    jw_init(&w, &out, 0);
    if (typed) {
        pb_json_write_typed(&w, m, flags);
    } else {
        pb_json_write(&w, m, flags);
    }
    const char *s = arena_str(&arena, buf_pullup(&out, buf_len(&out))).p;
    buf_clear(&out);
    return s;
}

// YAML or JSON in, our JSON out.
static const char *rewritten(const ProtobufCMessageDescriptor *d, const char *text, unsigned flags)
{
    ProtobufCMessage *m;
    struct err err;
    if (pb_json_parse(str_c(text), d, 0, &arena, &m, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return written(m, flags, false);
}

static void test_defaults_and_presence(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d = &envoy__config__cluster__v3__cluster__descriptor;
    assert_string_equal(
        rewritten(d, "name: ''\nlb_policy: ROUND_ROBIN\nrespect_dns_ttl: false\nfilters: []", 0),
        "{}");
    assert_string_equal(rewritten(d, "common_lb_config: {healthyPanicThreshold: {}}", 0),
                        "{\"common_lb_config\":{\"healthy_panic_threshold\":{}}}");
    assert_string_equal(rewritten(d, "type: STATIC", 0),
                        "{\"type\":\"STATIC\"}"); // in a oneof: set, though 0
    assert_string_equal(rewritten(d, "lb_policy: 77", 0), "{\"lb_policy\":77}"); // no name for it
    assert_string_equal(rewritten(d, "per_connection_buffer_limit_bytes: 0", 0),
                        "{\"per_connection_buffer_limit_bytes\":0}");
    assert_string_equal(rewritten(d, "maglev_lb_config: {table_size: 65537}", 0),
                        "{\"maglev_lb_config\":{\"table_size\":\"65537\"}}");
}

static void test_defaults_on_request(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d =
        &envoy__config__cluster__v3__cluster__common_lb_config__zone_aware_lb_config__descriptor;
    assert_string_equal(
        rewritten(d, "routing_enabled: {}", PB_JSON_DEFAULTS), // an absent wrapper stays absent
        "{\"routing_enabled\":{\"value\":0},\"fail_traffic_on_panic\":false}");
    const ProtobufCMessageDescriptor *s = &envoy__config__cluster__v3__circuit_breakers__descriptor;
    assert_string_equal(rewritten(s, "--- {}", PB_JSON_DEFAULTS),
                        "{\"thresholds\":[],\"per_host_thresholds\":[]}");
}

static void test_well_known(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d = &envoy__config__cluster__v3__cluster__descriptor;
    static const char *const times[] = { "0s",           "0.250s",      "1s",     "0.000001s",
                                         "0.000000001s", "9223372035s", "-1.500s" };
    for (size_t i = 0; i < array_len(times); i++) {
        struct str in = arena_printf(&arena, "connect_timeout: %s", times[i]);
        struct str out = arena_printf(&arena, "{\"connect_timeout\":\"%s\"}", times[i]);
        assert_string_equal(rewritten(d, in.p, 0), out.p);
    }
    assert_string_equal(
        rewritten(&google__protobuf__timestamp__descriptor, "--- '2026-11-21T06:00:31.5+02:00'", 0),
        "\"2026-11-21T04:00:31.500Z\"");
    assert_string_equal(rewritten(&google__protobuf__struct__descriptor,
                                  "{\"a\": [1, 2.5, null, true, \"x\"], \"b\": {}}", 0),
                        "{\"a\":[1,2.5,null,true,\"x\"],\"b\":{}}");
    Google__Protobuf__FloatValue f = GOOGLE__PROTOBUF__FLOAT_VALUE__INIT;
    f.value = 0.1f;
    assert_string_equal(written(&f.base, 0, false), "0.1");
    f.value = NAN;
    assert_string_equal(written(&f.base, 0, false), "\"NaN\"");
    Google__Protobuf__Int64Value i = GOOGLE__PROTOBUF__INT64_VALUE__INIT;
    i.value = INT64_MIN;
    assert_string_equal(written(&i.base, 0, false), "\"-9223372036854775808\"");
}

static void test_any(void **state)
{
    (void)state;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    assert_string_equal(written(&any.base, 0, false), "{}");
    any.type_url = (char *)"type.googleapis.com/google.protobuf.Duration";
    any.value = (ProtobufCBinaryData){ .data = (uint8_t *)"\x08\x01", .len = 2 };
    assert_string_equal(
        written(&any.base, 0, false),
        "{\"@type\":\"type.googleapis.com/google.protobuf.Duration\",\"value\":\"1s\"}");
    any.type_url = (char *)"x/a.B";
    assert_string_equal(written(&any.base, 0, false), "{\"@type\":\"x/a.B\",\"value\":\"CAE=\"}");
    any.type_url =
        (char *)"type.googleapis.com/envoy.config.cluster.v3.Cluster"; // bytes that are no Cluster
    assert_string_equal(
        written(&any.base, 0, false),
        "{\"@type\":\"type.googleapis.com/envoy.config.cluster.v3.Cluster\",\"value\":\"CAE=\"}");
    Envoy__Config__Cluster__V3__Cluster c = ENVOY__CONFIG__CLUSTER__V3__CLUSTER__INIT;
    c.name = (char *)"c";
    assert_string_equal(
        written(&c.base, 0, true),
        "{\"@type\":\"type.googleapis.com/envoy.config.cluster.v3.Cluster\",\"name\":\"c\"}");
}

// base64 of "[redacted]" is what Envoy's dumps say in place of a key.
static void test_redaction(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d =
        &envoy__extensions__transport_sockets__tls__v3__secret__descriptor;
    const char *text = "name: default\n"
                       "tls_certificate: {certificate_chain: {inline_bytes: Q0hBSU4=}, "
                       "private_key: {inline_bytes: S0VZ}}";
    assert_non_null(strstr(rewritten(d, text, 0), "S0VZ"));
    const char *s = rewritten(d, text, PB_JSON_REDACT);
    assert_null(strstr(s, "S0VZ"));
    assert_non_null(strstr(s, "\"private_key\":{\"inline_bytes\":\"W3JlZGFjdGVkXQ==\"}"));
    assert_non_null(strstr(s, "\"certificate_chain\":{\"inline_bytes\":\"Q0hBSU4=\"}"));
    assert_non_null(strstr(s, "\"name\":\"default\""));
    s = rewritten(
        d, "tls_certificate: {private_key: {filename: /k.pem}, password: {inline_string: pw}}",
        PB_JSON_REDACT);
    assert_string_equal(s, "{\"tls_certificate\":{\"private_key\":{\"filename\":\"/"
                           "k.pem\"},\"password\":{\"inline_string\":\"[redacted]\"}}}");
    s = rewritten(d, "session_ticket_keys: {keys: [{inline_bytes: S0VZ}]}", PB_JSON_REDACT);
    assert_null(strstr(s, "S0VZ"));
    s = rewritten(d, "generic_secret: {secret: {inline_string: tok}}", PB_JSON_REDACT);
    assert_null(strstr(s, "tok"));
    // Inside an Any, and in the free JSON of a TypedStruct.
    s = rewritten(&google__protobuf__any__descriptor,
                  "'@type': envoy.extensions.transport_sockets.tls.v3.Secret\ntls_certificate: "
                  "{private_key: {inline_string: KEY}}",
                  PB_JSON_REDACT);
    assert_null(strstr(s, "KEY"));
    s = rewritten(&google__protobuf__any__descriptor,
                  "'@type': udpa.type.v1.TypedStruct\nvalue: {tls_certificate: {privateKey: "
                  "{inline_string: KEY}}, name: n}",
                  PB_JSON_REDACT);
    assert_null(strstr(s, "KEY"));
    assert_non_null(strstr(s, "\"name\":\"n\""));
}

// Any in Any beyond what the writer nests: cut with a remark, still JSON.
static void test_depth(void **state)
{
    (void)state;
    Google__Protobuf__Any *any = pb_new_as(&arena, Google__Protobuf__Any, google__protobuf__any);
    for (int i = 0; i < 200; i++) {
        any = pb_any_pack(&any->base, &arena);
    }
    const char *s = written(&any->base, 0, false);
    assert_non_null(strstr(s, "(cut: nested too deep)"));
    assert_int_equal(s[strlen(s) - 1], '}');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_defaults_and_presence, teardown),
        cmocka_unit_test_teardown(test_defaults_on_request, teardown),
        cmocka_unit_test_teardown(test_well_known, teardown),
        cmocka_unit_test_teardown(test_any, teardown),
        cmocka_unit_test_teardown(test_redaction, teardown),
        cmocka_unit_test_teardown(test_depth, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
