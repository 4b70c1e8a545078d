// SPDX-License-Identifier: Apache-2.0
// Configurations of network filters: what is taken, and that what would change traffic is refused by name.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "envoy/extensions/filters/network/mongo_proxy/v3/mongo_proxy.pb-c.h"
#include "envoy/extensions/filters/network/rbac/v3/rbac.pb-c.h"
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "envoy/type/v3/hash_policy.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/filters/network/registry.h"
#include "proxy/filters/network/tcp_proxy.h"
#include "proxy/listener/network_filter.h"

static struct arena arena;
static struct err err;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0, 0);
    err = (struct err){ 0 };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static int parse(const char *filter, const ProtobufCMessageDescriptor *desc, const char *json, void **ret)
{
    ProtobufCMessage *msg;
    const struct network_filter_ops *ops = network_filter_find(str_c(filter), (struct str){ 0 });
    if (pb_json_parse(str_c(json), desc, 0, &arena, &msg, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    return ops->ext.config_parse(NULL, msg, &arena, ret, &err);
}

static const struct tcp_proxy_cfg *tcp(const char *json)
{
    void *cfg = NULL;
    if (parse("envoy.filters.network.tcp_proxy", &envoy__extensions__filters__network__tcp_proxy__v3__tcp_proxy__descriptor, json,
              &cfg) != 0) {
        assert_null(cfg);
        return NULL;
    }
    return cfg;
}

static void cluster_and_defaults(void **state)
{
    (void)state;
    const struct tcp_proxy_cfg *c = tcp("{\"stat_prefix\":\"t\",\"cluster\":\"outbound|6379||redis\"}");
    assert_non_null(c);
    assert_true(str_is(c->cluster, "outbound|6379||redis"));
    assert_int_equal(c->idle_ms, 3600000);
    assert_int_equal(c->max_connect_attempts, 1);
    assert_int_equal(c->weighted_count, 0);
}

static void values_that_are_given(void **state)
{
    (void)state;
    const struct tcp_proxy_cfg *c = tcp("{\"stat_prefix\":\"t\",\"cluster\":\"c\",\"idle_timeout\":\"0s\",\"max_connect_attempts\":3,"
                                        "\"max_downstream_connection_duration\":\"1.5s\",\"hash_policy\":[{\"source_ip\":{}}]}");
    assert_non_null(c);
    assert_int_equal(c->idle_ms, 0);
    assert_int_equal(c->max_connect_attempts, 3);
    assert_int_equal(c->max_duration_ms, 1500);
    assert_true(c->hash_source_ip);
}

static void weighted_clusters(void **state)
{
    (void)state;
    const struct tcp_proxy_cfg *c =
        tcp("{\"weighted_clusters\":{\"clusters\":[{\"name\":\"a\",\"weight\":90},{\"name\":\"b\",\"weight\":10}]}}");
    assert_non_null(c);
    assert_int_equal(c->weighted_count, 2);
    assert_int_equal(c->total_weight, 100);
    assert_true(str_is(c->weighted[1].name, "b"));
    assert_null(tcp("{\"weighted_clusters\":{}}"));
    assert_null(tcp("{\"weighted_clusters\":{\"clusters\":[{\"name\":\"a\"}]}}"));
    assert_string_equal(err.msg, "weighted_clusters.clusters[0]: name and a weight of at least 1 are needed");
}

static void no_target_is_refused(void **state)
{
    (void)state;
    assert_null(tcp("{\"stat_prefix\":\"t\"}"));
    assert_null(tcp("{\"cluster\":\"\"}"));
}

static void unsupported_fields_are_named(void **state)
{
    (void)state;
    assert_null(tcp("{\"cluster\":\"c\",\"tunneling_config\":{\"hostname\":\"x\"}}"));
    assert_string_equal(err.msg, "tunneling_config: not supported yet");
    assert_null(tcp("{\"cluster\":\"c\",\"access_log_options\":{\"flush_access_log_on_connected\":true}}"));
    assert_string_equal(err.msg, "access_log_options: not supported yet");
    assert_null(tcp("{\"cluster\":\"c\",\"check_drain_close\":false}"));
    assert_string_equal(err.msg, "check_drain_close: not supported yet");
    assert_null(tcp("{\"cluster\":\"c\",\"max_downstream_connection_duration_jitter_percentage\":{\"value\":101}}"));
    assert_string_equal(err.msg, "max_downstream_connection_duration_jitter_percentage: must be 0 to 100");
    assert_null(tcp("{\"cluster\":\"c\",\"hash_policy\":[{\"filter_state\":{\"key\":\"k\"}}]}"));
    assert_string_equal(err.msg, "hash_policy[0]: only source_ip is supported");
    assert_null(tcp("{\"cluster\":\"c\",\"access_log\":[{\"name\":\"x\",\"typed_config\":{\"@type\":"
                    "\"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\"}}]}"));
    assert_memory_equal(err.msg, "access_log[0]", 13);
}

// rules absent = nothing enforced; rules {} = deny all, which must never turn into "let everything pass".
static void rbac_rules_are_refused(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d = &envoy__extensions__filters__network__rbac__v3__rbac__descriptor;
    void *cfg = NULL;
    assert_int_equal(parse("envoy.filters.network.rbac", d, "{\"stat_prefix\":\"t\"}", &cfg), 0);
    assert_int_not_equal(parse("envoy.filters.network.rbac", d, "{\"stat_prefix\":\"t\",\"rules\":{}}", &cfg), 0);
    assert_string_equal(err.msg, "rules: authorization of connections is not supported yet");
}

static void mongo_delay_is_refused(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d = &envoy__extensions__filters__network__mongo_proxy__v3__mongo_proxy__descriptor;
    void *cfg = NULL;
    assert_int_equal(parse("envoy.filters.network.mongo_proxy", d, "{\"stat_prefix\":\"m\"}", &cfg), 0);
    assert_int_not_equal(parse("envoy.filters.network.mongo_proxy", d, "{\"stat_prefix\":\"m\",\"delay\":{\"fixed_delay\":\"1s\"}}", &cfg), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(cluster_and_defaults, setup, teardown),
        cmocka_unit_test_setup_teardown(values_that_are_given, setup, teardown),
        cmocka_unit_test_setup_teardown(weighted_clusters, setup, teardown),
        cmocka_unit_test_setup_teardown(no_target_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(unsupported_fields_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(rbac_rules_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(mongo_delay_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
