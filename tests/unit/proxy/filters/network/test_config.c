// SPDX-License-Identifier: Apache-2.0
// Configurations of network filters: what is taken, and that what would change traffic is refused by name.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "envoy/extensions/filters/network/connection_limit/v3/connection_limit.pb-c.h"
#include "envoy/extensions/filters/network/local_ratelimit/v3/local_rate_limit.pb-c.h"
#include "envoy/extensions/filters/network/mongo_proxy/v3/mongo_proxy.pb-c.h"
#include "envoy/extensions/filters/network/rbac/v3/rbac.pb-c.h"
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "envoy/type/v3/hash_policy.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/filters/network/registry.h"
#include "proxy/filters/network/tcp_proxy.h"
#include "proxy/filters/network/tcp_tunnel.h"
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
    static const struct {
        const char *json, *why;
    } refused[] = {
        { "\"on_demand\":{}", "on_demand: not supported yet" },
        { "\"upstream_idle_timeout\":\"1s\"", "upstream_idle_timeout: not supported yet" },
        { "\"tunneling_config\":{}", "tunneling_config.hostname: is needed, as host:port" },
        { "\"tunneling_config\":{\"hostname\":\"%NO%\"}", "tunneling_config.hostname: unknown operator" },
        { "\"tunneling_config\":{\"hostname\":\"x:1\",\"post_path\":\"/p\"}", "tunneling_config.post_path: only with use_post" },
        { "\"tunneling_config\":{\"hostname\":\"x:1\",\"use_post\":true,\"post_path\":\"p\"}", "tunneling_config.post_path: must begin with /" },
        { "\"tunneling_config\":{\"hostname\":\"x:1\",\"propagate_response_headers\":true}",
          "tunneling_config.propagate_response_headers: not supported yet" },
        { "\"tunneling_config\":{\"hostname\":\"x:1\",\"request_id_header\":\"x\"}", "tunneling_config.request_id_header: not supported yet" },
        { "\"tunneling_config\":{\"hostname\":\"x:1\",\"headers_to_add\":[{\"header\":{\"key\":\"a b\"}}]}",
          "tunneling_config.headers_to_add[0]: header.key: \"a b\" is no name of a field" },
        { "\"tunneling_config\":{\"hostname\":\"x:1\",\"headers_to_add\":[{\"header\":{\"key\":\":path\"}}]}",
          "tunneling_config.headers_to_add[0]: header.key: \":path\" is no name of a field" },
        { "\"tunneling_config\":{\"hostname\":\"x:1\",\"headers_to_add\":[{\"header\":{\"key\":\"Transfer-Encoding\"}}]}",
          "tunneling_config.headers_to_add[0]: header.key: \"Transfer-Encoding\" cannot be set" },
        { "\"upstream_connect_mode\":\"ON_DOWNSTREAM_DATA\"", "max_early_data_bytes: is needed with upstream_connect_mode ON_DOWNSTREAM_DATA" },
        { "\"backoff_options\":{}", "backoff_options.base_interval: must be at least 1 ms" },
        { "\"backoff_options\":{\"base_interval\":\"2s\",\"max_interval\":\"1s\"}", "backoff_options.max_interval: must not be below base_interval" },
        { "\"access_log_options\":{\"access_log_flush_interval\":\"0s\"}", "access_log_options.access_log_flush_interval: must be at least 1 ms" },
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        char json[512];
        snprintf(json, sizeof(json), "{\"cluster\":\"c\",%s}", refused[i].json);
        assert_null(tcp(json));
        err.msg[strlen(err.msg) < strlen(refused[i].why) ? strlen(err.msg) : strlen(refused[i].why)] = '\0';
        assert_string_equal(err.msg, refused[i].why);
    }
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

static void tunnels_and_times(void **state)
{
    (void)state;
    const struct tcp_proxy_cfg *c = tcp("{\"cluster\":\"c\",\"tunneling_config\":{\"hostname\":\"x:1\",\"use_post\":true,\"headers_to_add\":"
                                        "[{\"header\":{\"key\":\"X-A\",\"value\":\"1\"},\"append\":false}]},"
                                        "\"backoff_options\":{\"base_interval\":\"0.1s\"},\"upstream_connect_mode\":\"ON_DOWNSTREAM_DATA\","
                                        "\"max_early_data_bytes\":10,\"access_log_options\":{\"access_log_flush_interval\":\"60s\"}}");
    assert_non_null(c);
    assert_true(c->tunnel->post && str_is(c->tunnel->path, "/") && c->tunnel->header_count == 1);
    assert_true(str_is(c->tunnel->headers[0].name, "x-a") && c->tunnel->headers[0].overwrite);
    assert_int_equal(c->backoff_ms, 100);
    assert_int_equal(c->backoff_max_ms, 1000);
    assert_true(c->wait_for_data);
    assert_int_equal(c->log_interval_ms, 60000);
    assert_false(c->log_start || c->log_connected);
}

// rules absent = nothing enforced; rules {} = deny all, which must never turn into "let everything pass".
static void rbac_rules(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d = &envoy__extensions__filters__network__rbac__v3__rbac__descriptor;
    void *cfg = NULL;
    assert_int_equal(parse("envoy.filters.network.rbac", d, "{\"stat_prefix\":\"t\"}", &cfg), 0);
    assert_int_equal(parse("envoy.filters.network.rbac", d, "{\"stat_prefix\":\"t\",\"rules\":{},\"delay_deny\":\"1s\"}", &cfg), 0);
    assert_int_not_equal(parse("envoy.filters.network.rbac", d, "{}", &cfg), 0);
    assert_string_equal(err.msg, "stat_prefix: is missing");
    assert_int_not_equal(parse("envoy.filters.network.rbac", d, "{\"stat_prefix\":\"t\",\"matcher\":\"\"}", &cfg), 0);
    assert_string_equal(err.msg, "matcher: match trees are not supported; give rules");
    assert_int_not_equal(parse("envoy.filters.network.rbac", d,
                               "{\"stat_prefix\":\"t\",\"shadow_rules\":{\"policies\":{\"p\":{\"permissions\":[{\"header\":{\"name\":\"x\"}}],"
                               "\"principals\":[{\"any\":true}]}}}}", &cfg), 0);
    assert_string_equal(err.msg, "shadow_rules: policies[p]: permissions: [0]: header: \"x\": a connection has no header fields");
}

static void limits(void **state)
{
    (void)state;
    static const struct {
        const char *json, *why; // why NULL: taken
    } rate[] = {
        { "{\"stat_prefix\":\"x\",\"token_bucket\":{\"max_tokens\":1,\"fill_interval\":\"1s\"}}", NULL },
        { "{\"stat_prefix\":\"x\",\"share_key\":\"k\",\"token_bucket\":{\"max_tokens\":1,\"fill_interval\":\"1s\"}}", NULL },
        { "{\"stat_prefix\":\"x\",\"share_key\":\"k\",\"token_bucket\":{\"max_tokens\":1,\"fill_interval\":\"1s\"}}", NULL },
        { "{\"stat_prefix\":\"x\",\"share_key\":\"k\",\"token_bucket\":{\"max_tokens\":2,\"fill_interval\":\"1s\"}}", NULL },
        { "{\"token_bucket\":{\"max_tokens\":1,\"fill_interval\":\"1s\"}}", "stat_prefix: missing" },
        { "{\"stat_prefix\":\"x\"}", "token_bucket: missing" },
        { "{\"stat_prefix\":\"x\",\"token_bucket\":{\"max_tokens\":1}}", "token_bucket.fill_interval: must be 50 ms or more" },
        { "{\"stat_prefix\":\"x\",\"token_bucket\":{\"max_tokens\":1,\"fill_interval\":\"1s\",\"tokens_per_fill\":0}}",
          "token_bucket.tokens_per_fill: must be greater than 0" },
    }, open[] = {
        { "{\"stat_prefix\":\"x\",\"max_connections\":\"1\"}", NULL },
        { "{\"max_connections\":\"1\"}", "stat_prefix: missing" },
        { "{\"stat_prefix\":\"x\"}", "max_connections: missing" },
        { "{\"stat_prefix\":\"x\",\"max_connections\":\"0\"}", "max_connections: must be greater than 0" },
        { "{\"stat_prefix\":\"x\",\"max_connections\":\"1\",\"delay\":\"1s\"}", "delay: is not supported; connections over the limit are closed at once" },
    };
    void *cfg = NULL;
    for (size_t i = 0; i < sizeof(rate) / sizeof(rate[0]); i++) {
        int rc = parse("envoy.filters.network.local_ratelimit", &envoy__extensions__filters__network__local_ratelimit__v3__local_rate_limit__descriptor,
                       rate[i].json, &cfg);
        assert_int_equal(rc == 0, rate[i].why == NULL);
        assert_true(rc == 0 || strcmp(err.msg, rate[i].why) == 0);
    }
    for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++) {
        int rc = parse("envoy.filters.network.connection_limit", &envoy__extensions__filters__network__connection_limit__v3__connection_limit__descriptor,
                       open[i].json, &cfg);
        assert_int_equal(rc == 0, open[i].why == NULL);
        assert_true(rc == 0 || strcmp(err.msg, open[i].why) == 0);
    }
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
        cmocka_unit_test_setup_teardown(tunnels_and_times, setup, teardown),
        cmocka_unit_test_setup_teardown(rbac_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(limits, setup, teardown),
        cmocka_unit_test_setup_teardown(mongo_delay_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
