// SPDX-License-Identifier: Apache-2.0
// Configurations of the rate limit filters that are refused, with the field's name; and what tests/parity cannot ask Envoy for.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.pb-c.h"
#include "envoy/extensions/filters/http/ratelimit/v3/rate_limit.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/filters/http/filters.h"
#include "proxy/filters/http/rate_actions.h"
#include "proxy/http/stream.h"

static struct arena a;
static struct err err;

static int setup(void **state)
{
    (void)state;
    a = (struct arena){ 0 };
    err = (struct err){ 0 };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&a);
    return 0;
}

static ProtobufCMessage *message(const ProtobufCMessageDescriptor *d, const char *json)
{
    ProtobufCMessage *m;
    if (pb_json_parse(str_c(json), d, 0, &a, &m, &err) < 0) {
        fail_msg("%s: %s", json, err.msg);
    }
    return m;
}

static const struct rate_limits *limits(const char *json, enum rate_limits_place place)
{
    char text[1024];
    snprintf(text, sizeof(text), "{\"rate_limits\":[%s]}", json);
    const Envoy__Config__Route__V3__VirtualHost *m = (const void *)message(&envoy__config__route__v3__virtual_host__descriptor, text);
    const struct rate_limits *l = NULL;
    return rate_limits_parse(NULL, m->n_rate_limits, m->rate_limits, place, &a, &l, &err) ? NULL : l;
}

static void refused_entries(void **state)
{
    (void)state;
#define R "rate_limits[0]: "
#define ACT(x) "{\"actions\":[" x "]}"
    static const struct {
        const char *json, *text;
    } t[] = {
        { "{}", R "actions: 1 to 64 are needed" },
        { "{\"stage\":11,\"actions\":[{\"remote_address\":{}}]}", R "stage: must be at most 10" },
        { ACT("{}"), R "actions[0]: action_specifier: missing" },
        { ACT("{\"generic_key\":{}}"), R "actions[0].generic_key: descriptor_value: missing" },
        { ACT("{\"request_headers\":{\"header_name\":\"x\"}}"), R "actions[0].request_headers: descriptor_key: missing" },
        { ACT("{\"request_headers\":{\"descriptor_key\":\"x\"}}"), R "actions[0].request_headers: header_name: missing" },
        { ACT("{\"query_parameters\":{\"descriptor_key\":\"x\"}}"), R "actions[0].query_parameters: query_parameter_name: missing" },
        { ACT("{\"header_value_match\":{\"descriptor_value\":\"x\"}}"), R "actions[0].header_value_match: headers: at least one is needed" },
        { ACT("{\"query_parameter_value_match\":{\"descriptor_value\":\"x\"}}"),
          R "actions[0].query_parameter_value_match: query_parameters: at least one is needed" },
        { ACT("{\"masked_remote_address\":{\"v4_prefix_mask_len\":33}}"), R "actions[0].masked_remote_address: v4_prefix_mask_len: must be at most 32" },
        { ACT("{\"remote_address_match\":{\"descriptor_value\":\"x\"}}"), R "actions[0].remote_address_match: address_matcher: missing" },
        { ACT("{\"metadata\":{\"descriptor_key\":\"x\"}}"), R "actions[0].metadata: metadata_key: needs key and path" },
        { ACT("{\"metadata\":{\"descriptor_key\":\"x\",\"source\":\"CLUSTER_ENTRY\",\"metadata_key\":{\"key\":\"k\",\"path\":[{\"key\":\"p\"}]}}}"),
          R "actions[0].metadata: source: only DYNAMIC and ROUTE_ENTRY are supported" },
        { ACT("{\"extension\":{\"name\":\"mine\"}}"), R "actions[0].extension: \"mine\": extensions are not supported" },
        { ACT("{\"remote_address\":{}},{\"generic_key\":{}}"), R "actions[1].generic_key: descriptor_value: missing" },
        { "{\"actions\":[{\"remote_address\":{}}],\"hits_addend\":{}}", R "hits_addend: must have either number or format" },
        { "{\"actions\":[{\"remote_address\":{}}],\"hits_addend\":{\"number\":1000000001}}", R "hits_addend.number: must be at most 1000000000" },
        { "{\"actions\":[{\"remote_address\":{}}],\"hits_addend\":{\"format\":\"%REQ(a)%%REQ(b)%\"}}", R "hits_addend.format: must be one operator" },
        { "{\"actions\":[{\"remote_address\":{}}],\"limit\":{}}", R "limit: needs dynamic_metadata or rate_limit" },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        assert_null(limits(t[i].json, RATE_LIMITS_ROUTE));
        assert_string_equal(err.msg, t[i].text);
    }
    assert_null(limits("{\"stage\":1,\"actions\":[{\"remote_address\":{}}]}", RATE_LIMITS_GLOBAL_FILTER));
    assert_string_equal(err.msg, R "stage: means nothing in a filter's own rate_limits");
    assert_null(limits("{\"actions\":[{\"remote_address\":{}}],\"limit\":{\"rate_limit\":{\"requests_per_unit\":1}}}", RATE_LIMITS_LOCAL_FILTER));
    assert_string_equal(err.msg, R "limit: means nothing where this process limits");
}

static int local(const char *json, bool of_route)
{
    void *cfg = NULL;
    const void *m = message(&envoy__extensions__filters__http__local_ratelimit__v3__local_rate_limit__descriptor, json);
    return of_route ? http_filter_local_ratelimit.route_config_parse(NULL, m, &a, &cfg, &err)
                    : http_filter_local_ratelimit.ext.config_parse(NULL, m, &a, &cfg, &err);
}

static void refused_local_limits(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } t[] = {
        { "{}", "stat_prefix: missing" },
        { "{\"stat_prefix\":\"x\",\"stage\":11}", "stage: must be at most 10" },
        { "{\"stat_prefix\":\"x\",\"local_cluster_rate_limit\":{}}", "local_cluster_rate_limit: is not supported" },
        { "{\"stat_prefix\":\"x\",\"token_bucket\":{\"max_tokens\":1,\"fill_interval\":\"0.01s\"}}", "token_bucket.fill_interval: must be 50 ms or more" },
        { "{\"stat_prefix\":\"x\",\"max_dynamic_descriptors\":0}", "max_dynamic_descriptors: must be 1 to 100000" },
        { "{\"stat_prefix\":\"x\",\"response_headers_to_add\":[{\"header\":{\"key\":\":path\",\"value\":\"x\"}}]}",
          "response_headers_to_add[0].header.key: \":path\" cannot be set this way" },
        { "{\"stat_prefix\":\"x\",\"rate_limits\":[{}]}", R "actions: 1 to 64 are needed" },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        assert_int_not_equal(local(t[i].json, false), 0);
        assert_string_equal(err.msg, t[i].text);
    }
    assert_int_equal(local("{\"stat_prefix\":\"x\"}", false), 0);
    assert_int_not_equal(local("{\"stat_prefix\":\"x\"}", true), 0);
    assert_string_equal(err.msg, "token_bucket: must be set for a route");
}

#define SERVICE "\"rate_limit_service\":{\"grpc_service\":{\"envoy_grpc\":{\"cluster_name\":\"c\"}},\"transport_api_version\":\"V3\"}"

static void refused_global_limits(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } t[] = {
        { "{" SERVICE "}", "domain: missing" },
        { "{\"domain\":\"d\"}", "rate_limit_service.grpc_service: missing" },
        { "{\"domain\":\"d\",\"rate_limit_service\":{\"grpc_service\":{\"envoy_grpc\":{\"cluster_name\":\"c\"}}}}",
          "rate_limit_service.transport_api_version: must be V3" },
        { "{\"domain\":\"d\",\"rate_limit_service\":{\"grpc_service\":{\"google_grpc\":{\"target_uri\":\"x\"}},\"transport_api_version\":\"V3\"}}",
          "rate_limit_service.grpc_service: google_grpc: is not supported; name a cluster with envoy_grpc" },
        { "{\"domain\":\"d\"," SERVICE ",\"request_type\":\"some\"}", "request_type: must be internal, external or both" },
        { "{\"domain\":\"d\"," SERVICE ",\"stage\":11}", "stage: must be at most 10" },
        { "{\"domain\":\"d\"," SERVICE ",\"stat_prefix\":\"p\"}", "stat_prefix: is not supported" },
        { "{\"domain\":\"d\"," SERVICE ",\"rate_limits\":[{\"disable_key\":\"k\",\"actions\":[{\"remote_address\":{}}]}]}",
          R "disable_key: means nothing in a filter's own rate_limits" },
    };
    void *cfg = NULL;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        const void *m = message(&envoy__extensions__filters__http__ratelimit__v3__rate_limit__descriptor, t[i].json);
        assert_int_not_equal(http_filter_ratelimit.ext.config_parse(NULL, m, &a, &cfg, &err), 0);
        assert_string_equal(err.msg, t[i].text);
    }
    assert_int_equal(http_filter_ratelimit.ext.config_parse(
                         NULL, message(&envoy__extensions__filters__http__ratelimit__v3__rate_limit__descriptor, "{\"domain\":\"d\"," SERVICE "}"), &a, &cfg, &err), 0);
    const void *m = message(&envoy__extensions__filters__http__ratelimit__v3__rate_limit_per_route__descriptor, "{\"override_option\":\"INCLUDE_POLICY\"}");
    assert_int_not_equal(http_filter_ratelimit.route_config_parse(NULL, m, &a, &cfg, &err), 0);
}

// The action dynamic_metadata, which Envoy 1.40 takes only with a switch.
static void dynamic_metadata(void **state)
{
    (void)state;
    const struct rate_limits *l = limits(ACT("{\"dynamic_metadata\":{\"descriptor_key\":\"k\",\"default_value\":\"none\","
                                             "\"metadata_key\":{\"key\":\"ns\",\"path\":[{\"key\":\"a:b\"}]}}}"), RATE_LIMITS_ROUTE);
    assert_non_null(l);
    struct stream s = { 0 };
    struct route r = { 0 };
    s.route = &r;
    struct rate_limit_descriptor d[2];
    size_t n = 0;
    const struct rate_limits_ask q = { 0 };
    rate_limits_fill(l, &s, &q, d, &n);
    assert_int_equal(n, 1);
    assert_true(str_is(d[0].entries[0].value, "none"));
    stream_info_metadata_text(&s.info, &s.arena, STR("ns"), STR("a:b"), STR("found"));
    rate_limits_fill(l, &s, &q, d, &n);
    assert_int_equal(n, 2);
    assert_true(str_is(d[1].entries[0].key, "k") && str_is(d[1].entries[0].value, "found"));
    arena_fini(&s.arena);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = { T(refused_entries), T(refused_local_limits), T(refused_global_limits), T(dynamic_metadata) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
