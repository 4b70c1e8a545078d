// SPDX-License-Identifier: Apache-2.0
// Istio's TCP metadata message: bytes as Envoy writes them, and hostile ones.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "envoy/config/core/v3/base.pb-c.h"
#include "lib/base/buf.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proxy/filters/network/peer_exchange.h"

static struct arena a;

static int setup(void **state)
{
    (void)state;
    arena_init(&a, 1024, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&a);
    return 0;
}

// A message by hand: {"x-envoy-peer-metadata": {"NAME": "p"}, "x-envoy-peer-metadata-id": "i"}, as protobuf's own library has it.
static const char by_hand[] = "\x3D\x23\x04\x67\0\0\0\x79"
                              "\x0A\x2Atype.googleapis.com/google.protobuf.Struct"
                              "\x12\x4B"
                              "\x0A\x28\x0A\x15x-envoy-peer-metadata\x12\x0F\x2A\x0D\x0A\x0B\x0A\x04NAME\x12\x03\x1A\x01p"
                              "\x0A\x1F\x0A\x18x-envoy-peer-metadata-id\x12\x03\x1A\x01i";

static void reads_what_others_write(void **state)
{
    (void)state;
    struct str bytes = str_n(by_hand, sizeof(by_hand) - 1);
    struct peer_info p = { 0 };
    size_t n = 0;
    for (size_t i = 1; i < bytes.n; i++) {
        assert_int_equal(peer_exchange_parse(str_n(bytes.p, i), &a, &p, &n), PEER_EXCHANGE_MORE);
    }
    assert_int_equal(peer_exchange_parse(bytes, &a, &p, &n), PEER_EXCHANGE_FOUND);
    assert_int_equal(n, bytes.n);
    assert_true(str_is(p.id, "i") && str_is(p.name, "p"));
    assert_int_equal(peer_exchange_wants(bytes), bytes.n);
}

static void what_is_written_can_be_read(void **state)
{
    (void)state;
    static const char node_json[] = "{\"id\": \"sidecar~10.0.0.1~a.ns~ns.svc\", \"metadata\": {\"NAME\": \"a-1\", \"NAMESPACE\": \"ns\", "
                                    "\"WORKLOAD_NAME\": \"a\", \"CLUSTER_ID\": \"k\","
                                    " \"OWNER\": \"kubernetes://x\", \"SECRET\": \"not for peers\","
                                    " \"LABELS\": {\"app\": \"A\", \"version\": \"v1\", \"service.istio.io/canonical-name\": \"cn\", "
                                    "\"service.istio.io/canonical-revision\": \"cr\","
                                    " \"private\": \"x\"}}}";
    ProtobufCMessage *m = NULL;
    struct err e = { 0 };
    assert_int_equal(pb_json_parse(str_c(node_json), &envoy__config__core__v3__node__descriptor, 0, &a, &m, &e), 0);
    struct str message = peer_exchange_build((const void *)m, &a);
    assert_null(memmem(message.p, message.n, "not for peers", 13));
    assert_null(memmem(message.p, message.n, "private", 7));
    struct peer_info p = { 0 };
    size_t n = 0;
    assert_int_equal(peer_exchange_parse(message, &a, &p, &n), PEER_EXCHANGE_FOUND);
    assert_int_equal(n, message.n);
    assert_true(str_is(p.id, "sidecar~10.0.0.1~a.ns~ns.svc") && str_is(p.name, "a-1") && str_is(p.namespace, "ns") &&
                str_is(p.workload, "a"));
    assert_true(str_is(p.cluster, "k") && str_is(p.owner, "kubernetes://x") && str_is(p.app, "A") && str_is(p.version, "v1"));
    assert_true(str_is(p.canonical_name, "cn") && str_is(p.canonical_revision, "cr"));
}

static void nobody_has_a_message_too(void **state)
{
    (void)state;
    struct peer_info p = { 0 };
    size_t n = 0;
    struct str m = peer_exchange_message();
    assert_int_equal(peer_exchange_parse(m, &a, &p, &n), PEER_EXCHANGE_UNKNOWN);
    assert_int_equal(n, m.n);
}

static void others(void **state)
{
    (void)state;
    static const struct {
        struct str bytes;
        enum peer_exchange_result want;
    } cases[] = {
        { STR_INIT("GET / HTTP/1.1\r\n"), PEER_EXCHANGE_NONE },
        { STR_INIT("\x3D\x23\x04\x68\0\0\0\1x"), PEER_EXCHANGE_NONE },
        { STR_INIT("\x3D\x23\x04\x67\0\0\0\1x"), PEER_EXCHANGE_UNKNOWN },
        { STR_INIT("\x3D\x23\x04\x67\0\0\0\0"), PEER_EXCHANGE_UNKNOWN },
        { STR_INIT("\x3D\x23\x04\x67\0\0\x40\1"), PEER_EXCHANGE_BAD },
        { STR_INIT("\x3D\x23\x04\x67\xff\xff\xff\xff"), PEER_EXCHANGE_BAD },
        { STR_INIT("\x3D\x23\x04\x67\0\0\0\5\x0A\x03"
                   "abc"),
          PEER_EXCHANGE_UNKNOWN },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct peer_info p;
        size_t n = 0;
        assert_int_equal(peer_exchange_parse(cases[i].bytes, &a, &p, &n), cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_what_others_write, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_written_can_be_read, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_has_a_message_too, setup, teardown),
        cmocka_unit_test_setup_teardown(others, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
