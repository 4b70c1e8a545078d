// SPDX-License-Identifier: Apache-2.0
// What is accepted arrives in the model.
#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "tests/unit/proxy/config/rig.h"

#include "proxy/http/manager.h"

struct fixture {
    struct secret_store secrets;
    struct arena a, scratch;
    struct config_ctx ctx;
};

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    secret_store_init(&f->secrets);
    f->ctx = (struct config_ctx){ .scratch = &f->scratch, .secrets = &f->secrets };
}

static void teardown(struct fixture *f)
{
    secret_store_fini(&f->secrets);
    arena_fini(&f->scratch);
    arena_fini(&f->a);
}

static struct cluster_cfg *cluster(struct fixture *f, const char *yaml)
{
    struct cluster_cfg *c = NULL;
    struct err err = { 0 };
    if (build_cluster(&f->ctx, rig_pack(XDS_CLUSTER, yaml, &f->a), &c, &err)) {
        fail_msg("%s", err.msg);
    }
    return c;
}

static struct listener_cfg *listener(struct fixture *f, const char *yaml)
{
    struct listener_cfg *l = NULL;
    struct err err = { 0 };
    if (build_listener(&f->ctx, rig_pack(XDS_LISTENER, yaml, &f->a), &l, &err)) {
        fail_msg("%s", err.msg);
    }
    return l;
}

static void cluster_defaults(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct cluster_cfg *c = cluster(&f, "{name: c}");
    assert_int_equal(c->type, CLUSTER_STATIC);
    assert_int_equal(c->lb, LB_ROUND_ROBIN);
    assert_int_equal(c->connect_timeout_ms, 5000);
    assert_int_equal(c->breakers[1].max_retries, 3);
    assert_int_equal(c->idle_timeout_ms, 3600000);
    assert_true(str_is(c->stat_name, "c") && str_is(c->eds_service_name, "c"));
    assert_false(c->outlier.enabled);
    assert_null(c->default_transport.tls);
    cluster_cfg_unref(c);
    teardown(&f);
}

static void cluster_fields(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct cluster_cfg *c = cluster(&f,
        "{name: 'outbound|80||a', alt_stat_name: 'outbound|80||a;', type: EDS, connect_timeout: 0.25s, lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 4},"
        " eds_cluster_config: {eds_config: {ads: {}}, service_name: other}, common_lb_config: {healthy_panic_threshold: {}},"
        " circuit_breakers: {thresholds: [{max_connections: 7, max_retries: 4294967295}, {priority: HIGH, max_requests: 9}]},"
        " outlier_detection: {consecutive_5xx: 3, interval: 1s, base_ejection_time: 2.5s, max_ejection_percent: 50},"
        " upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}},"
        " metadata: {filter_metadata: {istio: {services: [{host: a.b, name: a, namespace: b}], external: true}}},"
        " transport_socket_matches: [{name: tlsMode-istio, match: {tlsMode: istio}, transport_socket: {name: t, typed_config: {" RIG_ANY
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: x.y, common_tls_context: {alpn_protocols: [istio-peer-exchange, istio],"
        " tls_certificate_sds_secret_configs: [{name: default, sds_config: {api_config_source: {api_type: GRPC}}}],"
        " combined_validation_context: {default_validation_context: {match_subject_alt_names: [{exact: 'spiffe://a/b'}]},"
        " validation_context_sds_secret_config: {name: ROOTCA, sds_config: {api_config_source: {api_type: GRPC}}}}}}}},"
        " {name: raw, match: {}, transport_socket: {name: envoy.transport_sockets.raw_buffer}}]}");
    assert_int_equal(c->type, CLUSTER_EDS);
    assert_true(str_is(c->eds_service_name, "other"));
    assert_true(str_is(c->stat_name, "outbound|80||a;"));
    assert_int_equal(c->connect_timeout_ms, 250);
    assert_int_equal(c->least_request_choices, 4);
    assert_true(c->healthy_panic_threshold == 0);
    assert_int_equal(c->breakers[0].max_connections, 7);
    assert_int_equal(c->breakers[0].max_requests, 1024);
    assert_int_equal(c->breakers[0].max_retries, UINT32_MAX);
    assert_int_equal(c->breakers[1].max_requests, 9);
    assert_true(c->outlier.enabled);
    assert_int_equal(c->outlier.consecutive_5xx, 3);
    assert_int_equal(c->outlier.base_ejection_ms, 2500);
    assert_int_equal(c->outlier.max_ejection_percent, 50);
    assert_int_equal(c->connect.source.family, AF_INET);
    struct metadata_value host = metadata_find(c->metadata, STR("istio"), STR("external"));
    assert_true(host.kind == MV_BOOL && host.boolean);
    assert_int_equal(c->transport_count, 2);
    assert_true(str_is(c->transports[0].match[0].value, "istio"));
    assert_true(str_is(c->transports[0].tls->sni, "x.y"));
    assert_int_equal(c->transports[0].tls->alpn_count, 1);
    assert_int_equal(c->transports[0].tls->san_count, 1);
    assert_null(c->transports[1].tls);
    assert_int_equal(f.ctx.slot_count, 1);
    size_t n;
    struct str *wanted = secret_wanted(&f.secrets, &n);
    assert_int_equal(n, 0); // resolved by this process, not over SDS
    free(wanted);
    cluster_cfg_unref(c);
    teardown(&f);
}

#define DOWN_TLS(rest)                                                                                                 \
    "{name: l, " RIG_ADDRESS ", filter_chains: [{filters: [" RIG_TCP "], transport_socket: {name: t, typed_config: {" RIG_ANY \
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificate_sds_secret_configs: [{name: default,"  \
    " sds_config: {ads: {}}}]}" rest "}}}]}"
#define UP_TLS(rest)                                                                                                   \
    "{name: c, transport_socket: {name: t, typed_config: {" RIG_ANY "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" rest "}}}"

// What differs in a policy is not shared; lib/tls shows what each does.
static void tls_policies(void **state)
{
    (void)state;
    static const char *const servers[] = { DOWN_TLS(""), DOWN_TLS(", disable_stateless_session_resumption: true"),
                                           DOWN_TLS(", disable_stateful_session_resumption: true"), DOWN_TLS(", session_timeout: 60s"),
                                           DOWN_TLS(", prefer_client_ciphers: true") };
    static const char *const clients[] = { UP_TLS(""), UP_TLS(", max_session_keys: 0"), UP_TLS(", enforce_rsa_key_usage: true") };
    struct fixture f;
    setup(&f);
    struct listener_cfg *l[5];
    struct cluster_cfg *c[3];
    for (size_t i = 0; i < 5; i++) {
        l[i] = listener(&f, servers[i]);
        for (size_t k = 0; k < i; k++) {
            assert_ptr_not_equal(l[i]->all_chains[0]->tls->slot, l[k]->all_chains[0]->tls->slot);
        }
    }
    for (size_t i = 0; i < 3; i++) {
        c[i] = cluster(&f, clients[i]);
        for (size_t k = 0; k < i; k++) {
            assert_ptr_not_equal(c[i]->default_transport.tls->slot, c[k]->default_transport.tls->slot);
        }
    }
    // The usual, said or not.
    struct listener_cfg *same = listener(&f, DOWN_TLS(", disable_stateless_session_resumption: false, ocsp_staple_policy: STRICT_STAPLING, session_timeout: 0s"));
    assert_ptr_equal(same->all_chains[0]->tls->slot, l[0]->all_chains[0]->tls->slot);
    struct cluster_cfg *again = cluster(&f, UP_TLS(", max_session_keys: 7, enforce_rsa_key_usage: false"));
    assert_ptr_equal(again->default_transport.tls->slot, c[0]->default_transport.tls->slot);
    listener_cfg_unref(same);
    cluster_cfg_unref(again);
    for (size_t i = 0; i < 5; i++) {
        listener_cfg_unref(l[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        cluster_cfg_unref(c[i]);
    }
    teardown(&f);
}

static void balancing_fields(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct cluster_cfg *c = cluster(&f,
        "{name: c, lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 5, active_request_bias: {default_value: 0.5, runtime_key: '('},"
        " slow_start_config: {slow_start_window: 30s, aggression: {default_value: 2}, min_weight_percent: {value: 5}}},"
        " common_lb_config: {zone_aware_lb_config: {routing_enabled: {value: 40}, min_cluster_size: 3, fail_traffic_on_panic: true},"
        " ignore_new_hosts_until_first_hc: true, close_connections_on_host_set_change: true},"
        " lb_subset_config: {fallback_policy: DEFAULT_SUBSET, default_subset: {a: '1'}, subset_selectors: [{keys: [z, b], fallback_policy: KEYS_SUBSET,"
        " fallback_keys_subset: [z]}], list_as_any: true, panic_mode_any: true, locality_weight_aware: true, scale_locality_weight: true},"
        " load_assignment: {cluster_name: c, policy: {overprovisioning_factor: 200, weighted_priority_health: true, drop_overloads: [{category: x,"
        " drop_percentage: {numerator: 5, denominator: TEN_THOUSAND}}]}, endpoints: [{lb_endpoints: [{endpoint: {hostname: n, address: {socket_address:"
        " {address: 10.0.0.1, port_value: 8}}, additional_addresses: [{address: {socket_address: {address: 'fd00::1', port_value: 8}}}],"
        " health_check_config: {port_value: 9, hostname: h, disable_active_health_check: true}}, metadata: {filter_metadata: {envoy.lb: {hash_key: k,"
        " l: [x, 2]}}}}]}]}}");
    assert_int_equal(c->least_request_choices, 5);
    assert_true(c->least_request_bias == 0.5);
    assert_true(c->slow_start.window_ms == 30000 && c->slow_start.aggression == 2 && c->slow_start.min_percent == 5);
    assert_int_equal(c->spread, LOCALITY_ZONE_AWARE);
    assert_true(c->zone_routing_percent == 40 && c->zone_min_hosts == 3 && c->fail_on_panic);
    assert_true(c->ignore_new_until_checked && c->close_on_set_change);
    const struct subset_cfg *s = &c->subset;
    assert_true(s->enabled && s->list_as_any && s->panic_mode_any && s->locality_weight_aware && s->scale_locality_weight);
    assert_int_equal(s->fallback, SUBSET_DEFAULT);
    assert_true(s->default_count == 1 && str_is(s->default_subset[0].value, "1"));
    assert_true(str_is(s->selectors[0].keys[0], "b") && str_is(s->selectors[0].keys[1], "z") && str_is(s->selectors[0].fallback_keys[0], "z"));
    assert_int_equal(c->policy.overprovisioning_pct, 200);
    assert_true(c->policy.weighted_priority_health && c->policy.drops[0].per_million == 500);
    const struct lb_endpoint_cfg *e = &c->endpoints[0];
    assert_true(str_is(e->hash_key, "k") && e->more_count == 1 && e->more[0].family == AF_INET6);
    assert_true(e->check_port == 9 && str_is(e->check_host, "h") && e->check_off);
    assert_int_equal(e->lb_metadata_count, 4); // hash_key, the list, its two elements
    assert_true(e->lb_metadata[2].element && str_is(e->lb_metadata[3].value, "2"));
    cluster_cfg_unref(c);
    teardown(&f);
}

#define LB_TYPE(type) RIG_ANY "envoy.extensions.load_balancing_policies." type
#define LB_POLICY(type, more) "{typed_extension_config: {name: x, typed_config: {" LB_TYPE(type) more "}}}"

static void load_balancing_policies(void **state)
{
    (void)state;
    static const struct {
        const char *policies;
        enum lb_policy lb;
        enum locality_spread spread;
    } v[] = {
        { LB_POLICY("round_robin.v3.RoundRobin", ", slow_start_config: {slow_start_window: 9s}"), LB_ROUND_ROBIN, LOCALITY_NONE },
        { LB_POLICY("least_request.v3.LeastRequest", ", choice_count: 7, selection_method: FULL_SCAN"), LB_LEAST_REQUEST, LOCALITY_NONE },
        { LB_POLICY("random.v3.Random", ", locality_lb_config: {zone_aware_lb_config: {}}"), LB_RANDOM, LOCALITY_ZONE_AWARE },
        { LB_POLICY("ring_hash.v3.RingHash", ", minimum_ring_size: 77, hash_function: MURMUR_HASH_2"), LB_RING_HASH, LOCALITY_NONE },
        { LB_POLICY("maglev.v3.Maglev", ", table_size: 101, consistent_hashing_lb_config: {hash_balance_factor: 120}"), LB_MAGLEV, LOCALITY_NONE },
        { LB_POLICY("wrr_locality.v3.WrrLocality", ", endpoint_picking_policy: {policies: [" LB_POLICY("least_request.v3.LeastRequest", "") "]}"),
          LB_LEAST_REQUEST, LOCALITY_WEIGHTED },
        { "{typed_extension_config: {name: mine, typed_config: {" RIG_ANY "envoy.extensions.filters.http.router.v3.Router}}}, "
          LB_POLICY("random.v3.Random", ""), LB_RANDOM, LOCALITY_NONE },
    };
    struct fixture f;
    for (size_t i = 0; i < array_len(v); i++) {
        char yaml[1024];
        setup(&f);
        snprintf(yaml, sizeof(yaml), "{name: c, lb_policy: MAGLEV, load_balancing_policy: {policies: [%s]}}", v[i].policies);
        struct cluster_cfg *c = cluster(&f, yaml);
        assert_int_equal(c->lb, v[i].lb);
        assert_int_equal(c->spread, v[i].spread);
        assert_true(i != 0 || c->slow_start.window_ms == 9000);
        assert_true(i != 1 || (c->least_request_choices == 7 && c->least_request_full_scan));
        assert_true(i != 3 || (c->ring_min == 77 && c->ring_murmur));
        assert_true(i != 4 || (c->maglev_size == 101 && c->hash_balance_factor == 120));
        cluster_cfg_unref(c);
        teardown(&f);
    }
}

static void resilience_fields(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct cluster_cfg *c = cluster(&f,
        "{name: c, circuit_breakers: {thresholds: [{max_retries: 4, max_connection_pools: 6, track_remaining: true}, {priority: HIGH, max_retries: 1,"
        " retry_budget: {budget_percent: {value: 12.5}, min_retry_concurrency: 8, budget_interval: 10s}}]},"
        " outlier_detection: {success_rate_stdev_factor: 1500, failure_percentage_threshold: 60, always_eject_one_host: true,"
        " max_ejection_time: 7s, max_ejection_time_jitter: 2s, split_external_local_origin_errors: true, successful_active_health_check_uneject_host: false},"
        " health_checks: [{timeout: 1s, interval: 2s, interval_jitter_percent: 10, unhealthy_interval: 3s, healthy_edge_interval: 4s, no_traffic_interval: 5s,"
        " healthy_threshold: 2, unhealthy_threshold: 3, reuse_connection: false, alt_port: 99, tls_options: {alpn_protocols: [h2]},"
        " http_health_check: {path: /h, method: HEAD, codec_client_type: HTTP2, receive: [{text: 6F6b}], service_name_matcher: {prefix: s},"
        " request_headers_to_remove: [user-agent]}}],"
        " close_connections_on_host_health_failure: true, ignore_health_on_host_removal: true}");
    assert_int_equal(c->breakers[0].retry_limit, RETRY_LIMIT_COUNT);
    assert_true(c->breakers[0].max_retries == 4 && c->breakers[0].max_pools == 6 && c->breakers[0].track_remaining);
    assert_int_equal(c->breakers[1].retry_limit, RETRY_LIMIT_BUDGET);
    assert_true(c->breakers[1].budget_percent == 12.5f && c->breakers[1].budget_min == 8 && c->breakers[1].budget_interval_ms == 10000);
    const struct outlier_cfg *o = &c->outlier;
    assert_true(o->success_rate_stdev_factor == 1500 && o->failure_pct_threshold == 60 && o->always_eject_one && o->no_uneject_on_health);
    assert_true(o->max_ejection_ms == 7000 && o->max_ejection_jitter_ms == 2000 && o->split_local_origin);
    const struct health_cfg *h = &c->checks[0];
    assert_true(h->kind == HEALTH_HTTP && h->h2 && !h->keep_connection && str_is(h->method, "HEAD") && str_is(h->receive[0], "ok"));
    assert_true(h->timeout_ms == 1000 && h->interval_ms == 2000 && h->jitter_percent == 10 && h->unhealthy_ms == 3000);
    assert_true(h->unhealthy_edge_ms == 3000 && h->healthy_edge_ms == 4000 && h->no_traffic_ms == 5000 && h->no_traffic_healthy_ms == 5000);
    assert_true(h->alt_port == 99 && h->alpn_count == 1 && str_is(h->service->value, "s") && str_is(h->remove[0], "user-agent"));
    assert_true(c->close_on_host_failure && c->ignore_health_on_removal);
    cluster_cfg_unref(c);
    // Nothing said, and istiod's "no limit": remora's own budget.
    c = cluster(&f, "{name: c, circuit_breakers: {thresholds: [{max_retries: 4294967295}]}}");
    assert_true(c->breakers[0].retry_limit == RETRY_LIMIT_DEFAULT && c->breakers[1].retry_limit == RETRY_LIMIT_DEFAULT);
    cluster_cfg_unref(c);
    teardown(&f);
}

static void http1_options(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct cluster_cfg *c = cluster(&f, "{name: c, http_protocol_options: {header_key_format: {proper_case_words: {}}, allow_chunked_length: true},"
                                        " common_http_protocol_options: {max_headers_count: 7, max_response_headers_kb: 9}}");
    assert_int_equal(c->h1_names, H1_NAMES_PROPER);
    assert_true(c->h1.allow_chunked_length && !c->h1.lenient);
    assert_int_equal(c->h1.header_count, 7);
    assert_int_equal(c->h1.head_bytes, 9 * 1024);
    cluster_cfg_unref(c);
    // {remora: {http1.lenient: true}}
    Google__Protobuf__Value yes = GOOGLE__PROTOBUF__VALUE__INIT, nested = GOOGLE__PROTOBUF__VALUE__INIT;
    yes.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
    yes.bool_value = true;
    Google__Protobuf__Struct inner = GOOGLE__PROTOBUF__STRUCT__INIT, outer = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct__FieldsEntry in = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT, out = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    in.key = "http1.lenient";
    in.value = &yes;
    inner.n_fields = 1;
    inner.fields = &(Google__Protobuf__Struct__FieldsEntry *){ &in };
    nested.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    nested.struct_value = &inner;
    out.key = "remora";
    out.value = &nested;
    outer.n_fields = 1;
    outer.fields = &(Google__Protobuf__Struct__FieldsEntry *){ &out };
    Envoy__Config__Bootstrap__V3__RuntimeLayer layer = ENVOY__CONFIG__BOOTSTRAP__V3__RUNTIME_LAYER__INIT;
    layer.layer_specifier_case = ENVOY__CONFIG__BOOTSTRAP__V3__RUNTIME_LAYER__LAYER_SPECIFIER_STATIC_LAYER;
    layer.static_layer = &outer;
    Envoy__Config__Bootstrap__V3__LayeredRuntime runtime = ENVOY__CONFIG__BOOTSTRAP__V3__LAYERED_RUNTIME__INIT;
    runtime.n_layers = 1;
    runtime.layers = &(Envoy__Config__Bootstrap__V3__RuntimeLayer *){ &layer };
    f.ctx.runtime = &runtime;
    c = cluster(&f, "{name: c, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {" RIG_ANY
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http_protocol_options: {header_key_format:"
                    " {stateful_formatter: {name: f, typed_config: {" RIG_ANY
                    "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}}}}}}}");
    assert_int_equal(c->h1_names, H1_NAMES_PRESERVE);
    assert_true(c->h1.lenient);
    assert_int_equal(c->h1.head_bytes, H1_HEAD_BYTES_MAX);
    cluster_cfg_unref(c);
    yes.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
    bool ret = false;
    struct err err = { 0 };
    assert_int_equal(runtime_bool(&f.ctx, "remora.http1.lenient", &ret, &err), -EINVAL);
    assert_string_equal(err.msg, "layered_runtime: remora.http1.lenient must be true or false");
    teardown(&f);
}

static void secrets_over_ads_are_wanted(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct cluster_cfg *c = cluster(&f, "{name: c, transport_socket: {name: t, typed_config: {" RIG_ANY
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {validation_context_sds_secret_config: {name: 'kubernetes://ca', sds_config: {ads: {}}}}}}}");
    size_t n;
    struct str *wanted = secret_wanted(&f.secrets, &n);
    assert_int_equal(n, 1);
    assert_true(str_is(wanted[0], "kubernetes://ca"));
    free(wanted);
    assert_null(atomic_load(&c->default_transport.tls->slot->ctx));
    cluster_cfg_unref(c);
    // The last user gone, nobody asks for it any more.
    secret_store_gc(&f.secrets);
    wanted = secret_wanted(&f.secrets, &n);
    assert_int_equal(n, 0);
    free(wanted);
    assert_true(f.secrets.wanted_changed);
    teardown(&f);
}

// A client that stops in the middle of a TLS handshake is cut by default.
static void handshakes_have_a_limit(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct listener_cfg *l = listener(&f, "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: ["
        "{name: a, filter_chain_match: {destination_port: 1}, filters: [" RIG_TCP "]},"
        "{name: b, filter_chain_match: {destination_port: 2}, transport_socket_connect_timeout: 0s, filters: [" RIG_TCP "]}]}");
    assert_int_equal(l->all_chains[0]->connect_timeout_ms, 15000);
    assert_int_equal(l->all_chains[1]->connect_timeout_ms, 0);
    listener_cfg_unref(l);
    teardown(&f);
}

static void listener_fields(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct listener_cfg *l = listener(&f,
        "{name: in, address: {socket_address: {address: '::', port_value: 15006}}, bind_to_port: false, use_original_dst: true, traffic_direction: INBOUND,"
        " listener_filters_timeout: 0.1s, continue_on_listener_filters_timeout: true, additional_addresses: [{address: {pipe: {path: /tmp/x}}}],"
        " listener_filters: [{name: envoy.filters.listener.tls_inspector, typed_config: {" RIG_ANY "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector},"
        " filter_disabled: {or_match: {rules: [{destination_port_range: {start: 80, end: 81}}, {not_match: {any_match: true}}]}}}],"
        " filter_chains: [{name: a, filter_chain_match: {destination_port: 80, source_ports: [7, 8]}, transport_socket_connect_timeout: 2s, filters: [" RIG_TCP "]}],"
        " default_filter_chain: {filters: [{name: tcp, typed_config: {" RIG_ANY
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, weighted_clusters: {clusters: [{name: c, weight: 1}, {name: d, weight: 2}]}}}]}}");
    assert_true(str_is(l->name, "in") && str_is(l->stat_name, "[::]_15006"));
    assert_int_equal(l->address_count, 2);
    assert_string_equal(l->addresses[1].path, "/tmp/x");
    assert_false(l->bind_to_port);
    assert_true(l->use_original_dst && l->continue_on_timeout);
    assert_int_equal(l->direction, DIRECTION_INBOUND);
    assert_int_equal(l->listener_filters_timeout_ms, 100);
    assert_true(port_predicate_match(l->listener_filters[0].disabled, 80));
    assert_false(port_predicate_match(l->listener_filters[0].disabled, 81));
    assert_int_equal(l->chain_count, 1);
    assert_int_equal(l->all_chains[0]->connect_timeout_ms, 2000);
    assert_non_null(l->default_chain);
    assert_int_equal(f.ctx.cluster_count, 2); // once each
    assert_true(str_is(f.ctx.cluster_names[0], "c") && str_is(f.ctx.cluster_names[1], "d"));
    listener_cfg_unref(l);
    teardown(&f);
}

#define CHAIN(name, port) "{name: " name ", filter_chain_match: {destination_port: " port "}, filters: [" RIG_TCP "]}"
#define VERSION(more, chains) "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 9}}" more ", filter_chains: [" chains "]"

static struct listener_cfg *next_version(struct fixture *f, const struct listener_cfg *former, const char *yaml)
{
    f->ctx.former = former;
    f->ctx.cluster_names = NULL;
    f->ctx.cluster_count = f->ctx.cluster_cap = 0;
    return listener(f, yaml);
}

static void listener_versions_share_chains(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct listener_cfg *one = listener(&f, VERSION("", CHAIN("a", "1") ", " CHAIN("b", "2")) ", default_filter_chain: {filters: [" RIG_TCP "]}}");
    struct listener_cfg *two = next_version(&f, one, VERSION("", CHAIN("b", "3") ", " CHAIN("c", "2") ", " CHAIN("a", "1"))
                                            ", default_filter_chain: {filters: [" RIG_TCP "]}}");
    assert_int_equal(f.ctx.cluster_count, 1); // known from shared chains too
    assert_ptr_equal(two->all_chains[2], one->all_chains[0]);
    assert_ptr_equal(two->default_chain, one->default_chain);
    for (int i = 0; i < 2; i++) {
        assert_ptr_not_equal(two->all_chains[i], one->all_chains[0]);
        assert_ptr_not_equal(two->all_chains[i], one->all_chains[1]);
    }
    struct listener_cfg *three = next_version(&f, two, VERSION(", use_original_dst: true", CHAIN("a", "1")) "}");
    assert_ptr_not_equal(three->all_chains[0], two->all_chains[2]);
    assert_true(memcmp(&one->rest_hash, &two->rest_hash, sizeof(struct hash128)) == 0);
    assert_false(memcmp(&one->rest_hash, &three->rest_hash, sizeof(struct hash128)) == 0);
    listener_cfg_unref(one);
    struct chain_input in = { .destination = { .family = AF_INET, .port = 1 }, .transport_protocol = STR("raw_buffer") };
    assert_true(str_is(chain_matcher_find(two->chains, &in)->filters[0].name, "tcp")); // lives on in the second version
    listener_cfg_unref(two);
    listener_cfg_unref(three);
    teardown(&f);
}

static void http_manager_fields(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct listener_cfg *l = listener(&f, RIG_HCM(
        ", rds: {route_config_name: '80', config_source: {ads: {}}}, use_remote_address: true, xff_num_trusted_hops: 2, stream_idle_timeout: 0s,"
        " common_http_protocol_options: {idle_timeout: 7s, max_headers_count: 50}, max_request_headers_kb: 96, request_headers_timeout: 3s,"
        " path_with_escaped_slashes_action: REJECT_REQUEST, normalize_path: true, merge_slashes: true, server_name: me, server_header_transformation: PASS_THROUGH,"
        " forward_client_cert_details: SANITIZE_SET, set_current_client_cert_details: {uri: true}, upgrade_configs: [{upgrade_type: WebSocket}, {upgrade_type: x, enabled: false}],"
        " http_filters: [" RIG_ROUTER "]"));
    const struct http_manager_cfg *h = l->all_chains[0]->filters[0].cfg;
    assert_true(str_is(h->rds_name, "80"));
    assert_int_equal(f.ctx.rds_count, 1);
    assert_true(h->use_remote_address && h->normalize_path && h->merge_slashes);
    assert_int_equal(h->xff_trusted_hops, 2);
    assert_int_equal(h->stream_idle_ms, 0);
    assert_int_equal(h->idle_ms, 7000);
    assert_int_equal(h->h1.header_count, 50);
    assert_int_equal(h->h1.head_bytes, 96 * 1024);
    assert_int_equal(h->request_headers_ms, 3000);
    assert_int_equal(h->escaped_slashes, ESC_REJECT);
    assert_true(str_is(h->server_name, "me"));
    assert_true(h->set_client_cert.uri && !h->set_client_cert.dns);
    assert_int_equal(h->upgrade_count, 2);
    assert_true(str_is(h->upgrades[0].type, "WebSocket") && h->upgrades[0].enabled && h->upgrades[0].chain.count == 0 && !h->upgrades[1].enabled);
    assert_int_equal(h->chain.count, 1);
    listener_cfg_unref(l);
    teardown(&f);
}

static void inline_routes_name_their_clusters(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct listener_cfg *l = listener(&f, RIG_HCM(", route_config: {name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /a}, "
        "route: {cluster: one}}, {match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: two, weight: 1}, {name: one, weight: 1}]}}}]}]}, "
        "http_filters: [" RIG_ROUTER "]"));
    assert_int_equal(f.ctx.cluster_count, 2);
    assert_true(str_is(f.ctx.cluster_names[0], "one") && str_is(f.ctx.cluster_names[1], "two"));
    assert_int_equal(f.ctx.rds_count, 0);
    listener_cfg_unref(l);
    teardown(&f);
}

static void route_fields(void **state)
{
    (void)state;
    struct fixture f;
    struct route_table *t = NULL;
    struct err err = { 0 };
    setup(&f);
    struct str bytes = rig_pack(XDS_ROUTE,
        "{name: '80', ignore_port_in_host_matching: true, virtual_hosts: [{name: v, domains: [a, '*.b'], include_request_attempt_count: true, routes: ["
        "{name: x, match: {path: /p, headers: [{name: h, string_match: {prefix: q}, invert_match: true}], query_parameters: [{name: k, present_match: true}]},"
        " route: {weighted_clusters: {clusters: [{name: c1, weight: 90}, {name: c2, weight: 10}]}, timeout: 0s, prefix_rewrite: /z, host_rewrite_literal: hh,"
        " retry_policy: {retry_on: 'connect-failure, retriable-status-codes,no-such-word', num_retries: 4, retriable_status_codes: [503], per_try_timeout: 0.3s,"
        " retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}]}, hash_policy: [{header: {header_name: u}, terminal: true}]},"
        " decorator: {operation: op}, metadata: {filter_metadata: {istio: {config: /apis/x}}}, request_headers_to_add: [{header: {key: n, value: '%PROTOCOL%'}, append_action: ADD_IF_ABSENT}],"
        " response_headers_to_remove: [server]},"
        "{match: {safe_regex: {regex: '/[0-9]+'}}, redirect: {https_redirect: true, response_code: PERMANENT_REDIRECT}},"
        "{match: {prefix: /}, direct_response: {status: 418, body: {inline_string: tea}}}]}]}", &f.a);
    if (build_route_table_bytes(&f.ctx, bytes, &t, &err)) {
        fail_msg("%s", err.msg);
    }
    assert_true(t->ignore_port);
    const struct virtual_host *v = &t->vhosts[0];
    const struct route *r = &v->routes[0];
    assert_int_equal(v->domain_count, 2);
    assert_int_equal(r->path_kind, PATH_EXACT);
    assert_int_equal(r->header_count, 1);
    assert_int_equal(r->query_count, 1);
    assert_int_equal(r->total_weight, 100);
    assert_int_equal(r->timeout_ms, 0);
    assert_int_equal(r->idle_timeout_ms, -1);
    assert_true(r->has_prefix_rewrite && str_is(r->host_rewrite, "hh"));
    assert_int_equal(r->retry->on, RETRY_CONNECT_FAILURE | RETRY_STATUS_CODES);
    assert_int_equal(r->retry->num_retries, 4);
    assert_int_equal(r->retry->per_try_timeout_ms, 300);
    assert_true(r->retry->avoid_previous_hosts);
    assert_true(r->hash[0].terminal);
    assert_true(str_is(r->decorator, "op") && str_is(metadata_find(r->metadata, STR("istio"), STR("config")).bytes, "/apis/x"));
    assert_int_equal(r->request_ops.add[0].action, HA_ADD_IF_ABSENT);
    assert_non_null(r->request_ops.add[0].format);
    assert_int_equal(r->response_ops.remove_count, 1);
    assert_int_equal(v->routes[1].redirect_status, 308);
    assert_true(v->routes[1].redirect_https);
    assert_int_equal(v->routes[2].direct_status, 418);
    assert_true(str_is(v->routes[2].direct_body, "tea"));
    route_table_unref(t);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cluster_defaults),    cmocka_unit_test(cluster_fields),      cmocka_unit_test(secrets_over_ads_are_wanted),
        cmocka_unit_test(handshakes_have_a_limit),
        cmocka_unit_test(listener_fields),     cmocka_unit_test(http_manager_fields), cmocka_unit_test(inline_routes_name_their_clusters),
        cmocka_unit_test(route_fields),        cmocka_unit_test(tls_policies),
        cmocka_unit_test(balancing_fields),
        cmocka_unit_test(load_balancing_policies),
        cmocka_unit_test(resilience_fields),
        cmocka_unit_test(http1_options),
        cmocka_unit_test(listener_versions_share_chains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
