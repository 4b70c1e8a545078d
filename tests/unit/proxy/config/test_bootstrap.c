// SPDX-License-Identifier: Apache-2.0
// The bootstrap file: what is taken from it, and what is wrong with it.
#include "tests/unit/proxy/config/rig.h"

#include "lib/event/signal.h"
#include "proxy/config/bootstrap.h"
#include "proxy/config/config.h"

#define ADS "dynamic_resources: {ads_config: {api_type: DELTA_GRPC, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}"
#define XDS_CLUSTER_AT(address) "static_resources: {clusters: [{name: xds, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: " address "}}]}]}"

#define ADS_TLS(rest) ADS "}\n" XDS_CLUSTER_AT("{pipe: {path: /x}}") ", transport_socket: {name: t, typed_config: {" RIG_ANY \
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: istiod, common_tls_context: {" rest "}}}}]}"

static const struct {
    const char *yaml, *says;
} mistakes[] = {
    { "admin: [", "boot.yaml: " },
    { "admim: {}", "boot.yaml: admim (line 1, column 8): unknown field" },
    { "hds_config: {api_type: GRPC}", "hds_config: not supported yet" },
    { "admin: {address: {socket_address: {address: here, port_value: 1}}}", "admin.address.socket_address.address: \"here\" is not an IP address" },
    { "admin: {allow_paths: [{exact: /stats}]}", "admin.allow_paths: not supported yet" },
    { "admin: {socket_options: [{level: 1, name: 1, int_value: 1}]}", "admin.socket_options: not supported yet" },
    { "cluster_manager: {upstream_bind_config: {}}", "cluster_manager.upstream_bind_config: not supported yet" },
    { "layered_runtime: {layers: [{name: a, static_layer: {}}, {name: b, rtds_layer: {name: r}}]}", "layered_runtime: layer 1: only static_layer" },
    { "layered_runtime: {layers: [{name: a, disk_layer: {symlink_root: /x}}]}", "layered_runtime: layer 0: only static_layer" },
    { "overload_manager: {resource_monitors: [{name: envoy.resource_monitors.fixed_heap}]}", "overload_manager.resource_monitors[0].name: \"envoy.resource_monitors.fixed_heap\"" },
    { "overload_manager: {resource_monitors: [{name: envoy.resource_monitors.global_downstream_max_connections}]}", "resource_monitors[0].typed_config: missing" },
    { "overload_manager: {actions: [{name: x}]}", "overload_manager.actions: not supported yet" },
    { "bootstrap_extensions: [{name: envoy.bootstrap.wasm}]", "bootstrap_extensions: \"envoy.bootstrap.wasm\" is not supported" },
    { "use_tcp_for_dns_lookups: true", "use_tcp_for_dns_lookups: not supported yet" },
    { "default_config_source: {ads: {}}", "default_config_source: not supported yet" },
    { "dynamic_resources: {ads_config: {api_type: REST, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}}", "ads_config.api_type: one of GRPC" },
    { "dynamic_resources: {ads_config: {grpc_services: [{envoy_grpc: {cluster_name: xds}}]}}", "ads_config.api_type: one of GRPC" },
    { "dynamic_resources: {ads_config: {api_type: GRPC, transport_api_version: V2, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}}",
      "ads_config.transport_api_version: only V3" },
    { "dynamic_resources: {ads_config: {api_type: GRPC, grpc_services: [{timeout: 1s, envoy_grpc: {cluster_name: xds}}]}}",
      "ads_config.grpc_services[0].timeout: not supported yet" },
    { "dynamic_resources: {ads_config: {api_type: GRPC, grpc_services: [{initial_metadata: [{key: a, value: '%X%'}], envoy_grpc: {cluster_name: xds}}]}}",
      "ads_config.grpc_services[0].initial_metadata: entry 0" },
    { ADS_TLS("validation_context: {trusted_ca: {filename: /ca}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: x}}]}"),
      "clusters[xds].transport_socket.typed_config.common_tls_context.validation_context.match_typed_subject_alt_names: not supported yet" },
    { ADS_TLS("validation_context_sds_secret_config: {name: x}"), "common_tls_context.validation_context_sds_secret_config: not supported yet" },
    { ADS_TLS("tls_params: {tls_minimum_protocol_version: TLSv1_3}"), "common_tls_context.tls_params: not supported yet" },
    { ADS "}", "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name: there is no static cluster \"xds\"" },
    { "dynamic_resources: {ads_config: {api_type: GRPC}}", "dynamic_resources.ads_config.grpc_services: one entry with envoy_grpc.cluster_name" },
    { "dynamic_resources: {ads_config: {api_type: GRPC, grpc_services: [{google_grpc: {target_uri: x}}]}}", "grpc_services: one entry with envoy_grpc" },
    { "dynamic_resources: {cds_config: {ads: {}}}", "dynamic_resources.cds_config: ads is asked for, but there is no ads_config" },
    { "dynamic_resources: {lds_config: {}}", "dynamic_resources.lds_config: one of ads, path" },
    { "dynamic_resources: {lds_config: {path: ''}}", "dynamic_resources.lds_config: the path is empty" },
    { ADS "}\nstatic_resources: {clusters: [{name: xds}]}", "static_resources.clusters[xds].load_assignment: cluster \"xds\" has no endpoint" },
    { ADS ", lds_config: {api_config_source: {api_type: GRPC}}}\n" XDS_CLUSTER_AT("{pipe: {path: /x}}") "}]}", "dynamic_resources.lds_config: a stream of its own" },
};

static void mistakes_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        struct bootstrap b;
        struct err err = { 0 };
        if (!bootstrap_parse(str_c(mistakes[i].yaml), "boot.yaml", &b, &err)) {
            fail_msg("case %zu is accepted", i);
        }
        if (strncmp(err.msg, "boot.yaml: ", 11) || !strstr(err.msg, mistakes[i].says)) {
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.msg, mistakes[i].says);
        }
    }
}

static void the_stream_is_read_from_its_cluster(void **state)
{
    (void)state;
    struct bootstrap b;
    struct err err = { 0 };
    static const char text[] = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}\n"
        "dynamic_resources: {ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, set_node_on_first_message_only: true,"
        " grpc_services: [{initial_metadata: [{key: X-Tenant, value: blue}], envoy_grpc: {cluster_name: xds}}]}, cds_config: {ads: {}}}\n"
        XDS_CLUSTER_AT("{socket_address: {address: '::1', port_value: 15010}}") ", transport_socket: {name: t, typed_config: {" RIG_ANY
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: istiod, common_tls_context: {validation_context: {trusted_ca: {filename: /ca}}}}}}]}\n";
    if (bootstrap_parse(str_c(text), "boot.yaml", &b, &err)) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(b.admin.port, 15000);
    assert_true(b.has_ads && b.cds_ads && !b.lds_ads && b.ads.delta && b.ads.tls);
    assert_true(str_is(b.ads.target, "[::1]:15010"));
    assert_true(b.ads.header_count == 1 && str_is(b.ads.headers[0][0], "x-tenant") && str_is(b.ads.headers[0][1], "blue"));
    assert_true(str_is(b.ads.server_name, "istiod") && str_is(b.ads.root_file, "/ca"));
    bootstrap_fini(&b);
}

static void publish(void *arg, struct snapshot *s)
{
    struct snapshot **keep = arg;
    snapshot_unref(*keep);
    *keep = s;
}

// Applies the text; the error's text, or NULL and the snapshot.
static const char *apply(const char *text, struct err *err, struct snapshot **ret, struct loop *l)
{
    struct bootstrap b;
    struct xds_node node = { 0 };
    assert_int_equal(bootstrap_parse(str_c(text), "b", &b, err), 0);
    struct stats_store *st = stats_store_new(1);
    struct config_opts o = { .loop = l, .stats = st, .publish = publish, .arg = ret, .validate_only = true };
    struct config *c = config_new(&o);
    struct xds_client *x = xds_client_new(l, &node, config_sink, c);
    config_set_client(c, x);
    int rc = bootstrap_apply(&b, x, err);
    for (int i = 0; i < 4; i++) {
        loop_turn(l, 0);
    }
    config_stop(c);
    xds_client_free(x);
    config_free(c);
    bootstrap_fini(&b);
    stats_store_free(st);
    return rc ? err->msg : NULL;
}

static void static_resources_come_first_and_are_named_when_bad(void **state)
{
    (void)state;
    signal_block_all();
    struct loop *l = loop_new(NULL);
    struct snapshot *s = NULL;
    struct err err = { 0 };
    assert_string_equal(apply("static_resources: {clusters: [{name: a}, {name: b, lb_policy: CLUSTER_PROVIDED}]}", &err, &s, l),
                        "static_resources.clusters: CDS \"b\": lb_policy: CLUSTER_PROVIDED and type ORIGINAL_DST go together");
    assert_non_null(strstr(apply("static_resources: {clusters: [{name: a}, {name: a}]}", &err, &s, l), "more than once"));
    assert_non_null(strstr(apply("dynamic_resources: {cds_config: {path: /no/such/file}}", &err, &s, l), "/no/such/file"));
    assert_null(apply("static_resources: {clusters: [{name: c}], listeners: [{address: {socket_address: {address: 127.0.0.1, port_value: 1}}, "
                      "filter_chains: [{filters: [" RIG_TCP "]}]}]}", &err, &s, l));
    assert_non_null(snapshot_cluster(s, STR("c")));
    assert_int_equal(s->listener_count, 1);
    assert_true(str_is(s->listeners[0]->name, "listener_0")); // nameless ones get a name
    assert_true(s->listeners[0]->is_static);
    snapshot_unref(s);
    loop_turn(l, 0);
    loop_free(l);
}

static void clusters_and_listeners_from_files(void **state)
{
    (void)state;
    signal_block_all();
    char dir[] = "/tmp/remora-test-XXXXXX", cds[64], lds[64], text[256];
    struct loop *l = loop_new(NULL);
    struct snapshot *s = NULL;
    struct err err = { 0 };
    assert_non_null(mkdtemp(dir));
    snprintf(cds, sizeof(cds), "%s/cds.yaml", dir);
    snprintf(lds, sizeof(lds), "%s/lds.yaml", dir);
    FILE *f = fopen(cds, "w");
    fputs("resources:\n- {name: c}\n", f);
    fclose(f);
    f = fopen(lds, "w");
    fputs("resources:\n- {name: l, " RIG_ADDRESS ", filter_chains: [{filters: [" RIG_TCP "]}]}\n", f);
    fclose(f);
    snprintf(text, sizeof(text), "dynamic_resources: {cds_config: {path: %s}, lds_config: {path_config_source: {path: %s}}}", cds, lds);
    assert_null(apply(text, &err, &s, l));
    assert_non_null(snapshot_cluster(s, STR("c")));
    assert_int_equal(s->listener_count, 1);
    assert_false(s->listeners[0]->is_static);
    snapshot_unref(s);
    loop_turn(l, 0);
    loop_free(l);
    remove(cds);
    remove(lds);
    remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(the_stream_is_read_from_its_cluster),
        cmocka_unit_test(static_resources_come_first_and_are_named_when_bad),
        cmocka_unit_test(clusters_and_listeners_from_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
