// SPDX-License-Identifier: Apache-2.0
// What our trimmed definitions do not have is found wherever it stands.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "lib/base/str.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"

static struct arena arena;
static ProtobufCMessageUnknownField later = { .tag = 99, .wire_type = PROTOBUF_C_WIRE_TYPE_VARINT, .len = 1, .data = (uint8_t *)"\x01" };

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static ProtobufCMessage *read_yaml(const ProtobufCMessageDescriptor *d, const char *flow)
{
    ProtobufCMessage *m = NULL;
    struct err err = { 0 };
    if (pb_json_parse(arena_printf(&arena, "--- %s", flow), d, 0, &arena, &m, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return m;
}

static void add_unknown(ProtobufCMessage *m)
{
    m->n_unknown_fields = 1;
    m->unknown_fields = &later;
}

static void test_unknown_fields(void **state)
{
    (void)state;
    struct err err = { 0 };
    ProtobufCMessage *m = read_yaml(&envoy__config__listener__v3__listener__descriptor,
                                    "{filter_chains: [{name: a}, {name: b, filter_chain_match: {destination_port: 5, source_type: EXTERNAL}}]}");
    assert_int_equal(pb_whole(m, NULL, NULL, &err), 0);
    const Envoy__Config__Listener__V3__Listener *l = (const void *)m;
    add_unknown(&l->filter_chains[1]->filter_chain_match->base);
    assert_int_equal(pb_whole(m, NULL, NULL, &err), -EINVAL);
    assert_string_equal(err.msg, "filter_chains[1].filter_chain_match: field number 99 of FilterChainMatch: not known here");
    assert_int_equal(pb_whole(m, "x", NULL, &err), -EINVAL);
    assert_string_equal(err.msg, "x.filter_chains[1].filter_chain_match: field number 99 of FilterChainMatch: not known here");
    assert_int_equal(pb_whole(m, NULL, "filter_chains", &err), 0);
    assert_int_equal(pb_whole(m, NULL, NULL, NULL), -EINVAL);
    add_unknown(m);
    assert_int_equal(pb_whole(m, NULL, "filter_chains", &err), -EINVAL);
    assert_string_equal(err.msg, "field number 99 of Listener: not known here");
}

static void test_enums(void **state)
{
    (void)state;
    struct err err = { 0 };
    ProtobufCMessage *m = read_yaml(&envoy__config__cluster__v3__cluster__descriptor,
                                    "{type: EDS, common_lb_config: {override_host_status: {statuses: [HEALTHY, DRAINING]}}}");
    Envoy__Config__Cluster__V3__Cluster *c = (void *)m;
    assert_int_equal(pb_whole(m, NULL, NULL, &err), 0);
    c->common_lb_config->override_host_status->statuses[1] = 77;
    assert_int_equal(pb_whole(m, NULL, NULL, &err), -EINVAL);
    assert_string_equal(err.msg, "common_lb_config.override_host_status.statuses[1]: unknown value 77");
    c->common_lb_config = NULL;
    c->lb_policy = 77;
    assert_int_equal(pb_whole(m, NULL, NULL, &err), -EINVAL);
    c->lb_policy = 0;
    assert_int_equal(pb_whole(m, NULL, NULL, &err), 0);
    c->cluster_discovery_type_case = 0; // what stands behind an alternative that is not chosen does not count
    c->type = 99;
    assert_int_equal(pb_whole(m, NULL, NULL, &err), 0);
}

static void test_durations(void **state)
{
    (void)state;
    struct err err = { 0 };
    ProtobufCMessage *m = read_yaml(&envoy__config__cluster__v3__cluster__descriptor, "{connect_timeout: 0s, outlier_detection: {interval: 1s}}");
    Envoy__Config__Cluster__V3__Cluster *c = (void *)m;
    assert_int_equal(pb_whole(m, NULL, NULL, &err), 0);
    c->outlier_detection->interval->seconds = -1;
    assert_int_equal(pb_whole(m, NULL, NULL, &err), -EINVAL);
    assert_string_equal(err.msg, "outlier_detection.interval: must be 0s or more, and well-formed");
    c->outlier_detection->interval->seconds = 1;
    c->outlier_detection->interval->nanos = 1000000000;
    assert_int_equal(pb_whole(m, NULL, NULL, &err), -EINVAL);
    c->outlier_detection->interval->nanos = 999999999;
    assert_int_equal(pb_whole(m, NULL, NULL, &err), 0);
    m = read_yaml(&envoy__config__cluster__v3__cluster__descriptor, "{common_lb_config: {healthy_panic_threshold: {value: 100.5}}}");
    assert_int_equal(pb_whole(m, NULL, NULL, &err), -EINVAL);
    assert_string_equal(err.msg, "common_lb_config.healthy_panic_threshold: must be 0 to 100");
}

static void test_any(void **state)
{
    (void)state;
    struct err err = { 0 };
    Google__Protobuf__Any *any = (void *)read_yaml(&google__protobuf__any__descriptor,
                                                   "{'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/"
                                                   "envoy.tcp.metadataexchange.config.MetadataExchange, value: {protocol: p, a_later_field: 1}}");
    ProtobufCMessage *m = (void *)1;
    assert_int_equal(pb_any_unpack_whole(any, NULL, NULL, &arena, &m, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "a_later_field"));
    assert_ptr_equal(m, (void *)1);
    assert_int_equal(pb_any_unpack(any, NULL, &arena, &m, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_unknown_fields, teardown),
        cmocka_unit_test_teardown(test_enums, teardown),
        cmocka_unit_test_teardown(test_durations, teardown),
        cmocka_unit_test_teardown(test_any, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
