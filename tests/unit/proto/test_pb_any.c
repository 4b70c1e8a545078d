// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "envoy/config/core/v3/address.pb-c.h"
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "envoy/tcp/metadataexchange/config/metadata_exchange.pb-c.h"
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

static Google__Protobuf__Any *any_of(const char *flow)
{
    ProtobufCMessage *m;
    struct err err;
    struct str text = arena_printf(&arena, "--- %s", flow); // YAML, so that few quotes are needed
    if (pb_json_parse(text, &google__protobuf__any__descriptor, 0, &arena, &m, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return (Google__Protobuf__Any *)m;
}

static void test_plain(void **state)
{
    (void)state;
    Google__Protobuf__Any *any = any_of(
        "{\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, "
        "cluster: c}");
    Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy *tp;
    assert_int_equal(pb_any_unpack_as(Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy,
                                      envoy__extensions__filters__network__tcp_proxy__v3__tcp_proxy,
                                      any, &arena, &tp, NULL),
                     0);
    assert_string_equal(tp->cluster, "c");
    assert_true(str_is(pb_any_type_name(any, &arena),
                       "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"));
    Google__Protobuf__Any *again = pb_any_pack(&tp->base, &arena);
    assert_string_equal(again->type_url, any->type_url);
    assert_true(str_eq(pb_bytes(again->value), pb_bytes(any->value)));
}

static void test_typed_struct(void **state)
{
    (void)state;
    static const char *const wrappers[] = { "udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct" };
    for (size_t i = 0; i < array_len(wrappers); i++) {
        char text[512];
        snprintf(text, sizeof(text),
                 "{\"@type\": type.googleapis.com/%s, type_url: type.googleapis.com/"
                 "envoy.tcp.metadataexchange.config.MetadataExchange, value: {protocol: "
                 "istio-peer-exchange, "
                 "enableDiscovery: true, a_later_field: 1}}",
                 wrappers[i]);
        Google__Protobuf__Any *any = any_of(text);
        ProtobufCMessage *m;
        struct err err;
        assert_int_equal(pb_any_unpack(any, NULL, &arena, &m, &err), 0);
        assert_ptr_equal(m->descriptor,
                         &envoy__tcp__metadataexchange__config__metadata_exchange__descriptor);
        const Envoy__Tcp__Metadataexchange__Config__MetadataExchange *mx = (const void *)m;
        assert_string_equal(mx->protocol, "istio-peer-exchange");
        assert_true(mx->enable_discovery);
        assert_true(str_is(pb_any_type_name(any, &arena),
                           "envoy.tcp.metadataexchange.config.MetadataExchange"));
    }
}

static int unpack_error(const char *json, const ProtobufCMessageDescriptor *expected,
                        struct err *err)
{
    ProtobufCMessage *m = (void *)1;
    int r = pb_any_unpack(json ? any_of(json) : NULL, expected, &arena, &m, err);
    assert_ptr_equal(m, (void *)1); // untouched on failure
    return r;
}

static void test_refused(void **state)
{
    (void)state;
    struct err err;
    const ProtobufCMessageDescriptor *address = &google__protobuf__struct__descriptor;
    assert_int_equal(unpack_error(NULL, address, &err), -EINVAL);
    assert_int_equal(unpack_error("{\"@type\": x/y.Z, value: AAAA}", NULL, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "\"x/y.Z\""));
    assert_int_equal(unpack_error("{}", NULL, &err), -EINVAL);
    assert_int_equal(
        unpack_error("{\"@type\": type.googleapis.com/google.protobuf.Empty}", address, &err),
        -EINVAL);
    assert_string_equal(err.msg, "type google.protobuf.Empty, expected google.protobuf.Struct");
    assert_int_equal(
        unpack_error("{\"@type\": udpa.type.v1.TypedStruct, type_url: a/b.C}", NULL, &err),
        -ENOENT);
    assert_int_equal(
        unpack_error("{\"@type\": udpa.type.v1.TypedStruct, type_url: type.googleapis.com/"
                     "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, value: {cluster: 5}}",
                     NULL, &err),
        -EINVAL);
    assert_non_null(strstr(err.msg, "TcpProxy: cluster: a number where text is expected"));
    Google__Protobuf__Any bad = GOOGLE__PROTOBUF__ANY__INIT;
    bad.type_url = (char *)"type.googleapis.com/google.protobuf.Duration";
    bad.value = (ProtobufCBinaryData){ .data = (uint8_t *)"\x0a", .len = 1 };
    ProtobufCMessage *m;
    assert_int_equal(pb_any_unpack(&bad, NULL, &arena, &m, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_plain, teardown),
        cmocka_unit_test_teardown(test_typed_struct, teardown),
        cmocka_unit_test_teardown(test_refused, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
