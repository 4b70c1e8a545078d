// SPDX-License-Identifier: Apache-2.0
// What cannot be done is refused with the field's path and a reason.
#include "tests/unit/proxy/config/rig.h"

#define HC "{timeout: 1s, interval: 1s, healthy_threshold: 1, unhealthy_threshold: 1"
#define C(rest) XDS_CLUSTER, "{name: c, " rest "}"
#define LISTENER(rest) XDS_LISTENER, "{name: l, " RIG_ADDRESS ", " rest "}"
#define CHAIN(rest) LISTENER("filter_chains: [{" rest "}]")
#define HCM(rest) XDS_LISTENER, RIG_HCM(rest)
#define VHOST(rest) XDS_ROUTE, "{name: r, virtual_hosts: [{name: v, domains: [a], " rest "}]}"
#define ROUTE(rest) VHOST("routes: [{match: {prefix: /}, " rest "}]")
#define ACTION(rest) ROUTE("route: {cluster: c, " rest "}")
#define MATCH(rest) VHOST("routes: [{match: {" rest "}, route: {cluster: c}}]")
#define UP_TLS(rest) C("transport_socket: {name: t, typed_config: {" RIG_ANY "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, " rest "}}")
#define DOWN_TLS(rest)                                                                                                 \
    CHAIN("filters: [" RIG_TCP "], transport_socket: {name: t, typed_config: {" RIG_ANY                                \
          "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, " rest "}}")
// As istiod writes it: the secrets come later. rest: further members, each begun with a comma.
#define ISTIO_ROOTS(rest)                                                                                              \
    "common_tls_context: {combined_validation_context: {default_validation_context: {match_subject_alt_names: [{exact: a}]}," \
    " validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}}" rest "}"
#define HTTP_OPTIONS(rest)                                                                                             \
    "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {" RIG_ANY             \
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions, " rest "}}"
#define PROXY_OUT(rest)                                                                                                \
    C("transport_socket: {name: t, typed_config: {" RIG_ANY                                                            \
      "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, " rest "}}")
#define RAW ", transport_socket: {name: envoy.transport_sockets.raw_buffer}"
#define PROXY_IN(rest)                                                                                                 \
    LISTENER("listener_filters: [{name: p, typed_config: {" RIG_ANY                                                    \
             "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, " rest "}}], filter_chains: [{filters: [" RIG_TCP "]}]")
#define EP(rest) XDS_ENDPOINT, "{cluster_name: c, endpoints: [{lb_endpoints: [{" rest "}]}]}"
#define FIELD "filter_chains[0].filters[0].typed_config."

static const struct {
    enum xds_type type;
    const char *yaml, *says;
} cases[] = {
    // clusters
    { XDS_CLUSTER, "{connect_timeout: 1s}", "name: missing" },
    { C("connect_timeout: 0s"), "connect_timeout: must be greater than 0s" },
    { C("cluster_type: {name: envoy.clusters.redis}"), "cluster_type: \"envoy.clusters.redis\" is not supported yet" },
    { C("type: ORIGINAL_DST"), "lb_policy: CLUSTER_PROVIDED and type ORIGINAL_DST go together" },
    { C("lb_policy: CLUSTER_PROVIDED"), "lb_policy: CLUSTER_PROVIDED and type ORIGINAL_DST go together" },
    { C("least_request_lb_config: {choice_count: 1}"), "least_request_lb_config.choice_count: must be 2 to 1000" },
    { C("type: STRICT_DNS"), "load_assignment: missing" },
    { C("type: STRICT_DNS, dns_failure_refresh_rate: {max_interval: 1s}"), "dns_failure_refresh_rate: base_interval is needed" },
    { C("typed_dns_resolver_config: {typed_config: {" RIG_ANY "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, use_resolvers_as_fallback: true}}"),
      "typed_dns_resolver_config.typed_config.use_resolvers_as_fallback: not supported yet" },
    { C("upstream_connection_options: {happy_eyeballs_config: {first_address_family_version: PIPE}}"), "first_address_family_version: must be DEFAULT, V4 or V6" },
    { C("type: LOGICAL_DNS, load_assignment: {cluster_name: c}"), "load_assignment.endpoints: a LOGICAL_DNS cluster has one endpoint, not 0" },
    { C("least_request_lb_config: {slow_start_config: {slow_start_window: 5s, aggression: {default_value: 0}}}"), "least_request_lb_config.slow_start_config.aggression: must be greater than 0" },
    { C("lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 10, maximum_ring_size: 9}"), "ring_hash_lb_config.minimum_ring_size: must be 1 to maximum_ring_size, 9" },
    { C("lb_policy: MAGLEV, maglev_lb_config: {table_size: 9}"), "maglev_lb_config.table_size: 9 is not a prime" },
    { C("common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 99}}"), "common_lb_config.consistent_hashing_lb_config.hash_balance_factor: must be at least 100" },
    { C("load_balancing_policy: {policies: [{typed_extension_config: {name: mine, typed_config: {" RIG_ANY "envoy.extensions.filters.http.router.v3.Router}}}]}"),
      "load_balancing_policy.policies: none is supported (the last is \"mine\")" },
    { C("load_balancing_policy: {policies: [{typed_extension_config: {name: w, typed_config: {" RIG_ANY "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality}}}]}"),
      "load_balancing_policy.policies[0].typed_extension_config.typed_config.endpoint_picking_policy: missing" },
    { C("lb_subset_config: {subset_selectors: [{}]}"), "lb_subset_config.subset_selectors[0].keys: 1 to 32 are needed" },
    { C("lb_subset_config: {subset_selectors: [{keys: [a, b], single_host_per_subset: true}]}"), "subset_selectors[0].single_host_per_subset: needs a selector of one key" },
    { C("lb_subset_config: {subset_selectors: [{keys: [a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [c]}]}"), "subset_selectors[0].fallback_keys_subset: \"c\" is not among keys" },
    { C("lb_subset_config: {metadata_fallback_policy: FALLBACK_LIST}"), "lb_subset_config.metadata_fallback_policy: not supported yet" },
    { C("health_checks: [{timeout: 1s}]"), "health_checks[0].interval: must be given" },
    { C("health_checks: [{timeout: 1s, interval: 1s, healthy_threshold: 1}]"), "health_checks[0].unhealthy_threshold: missing" },
    { C("health_checks: [" HC "}, " HC "}]"), "health_checks: 2 of them; only one is supported" },
    { C("health_checks: [" HC "}]"), "health_checks[0].health_checker: one of http_health_check" },
    { C("health_checks: [" HC ", custom_health_check: {name: x}}]"), "health_checks[0].custom_health_check: not supported yet" },
    { C("health_checks: [" HC ", http_health_check: {path: x}}]"), "health_checks[0].http_health_check.path: must begin with /" },
    { C("health_checks: [" HC ", http_health_check: {path: /, expected_statuses: [{start: 200, end: 200}]}}]"), "http_health_check.expected_statuses: entry 0" },
    { C("health_checks: [" HC ", http_health_check: {path: /, codec_client_type: HTTP3}}]"), "http_health_check.codec_client_type: only HTTP1 and HTTP2" },
    { C("health_checks: [" HC ", http_health_check: {path: /, request_headers_to_add: [{header: {key: a, value: '%X%'}}]}}]"), "request_headers_to_add: entry 0: command operators" },
    { C("health_checks: [" HC ", tcp_health_check: {send: {text: abc}}}]"), "health_checks[0].tcp_health_check.send.text: an even number of hexadecimal" },
    { C("health_checks: [" HC ", tcp_health_check: {receive: [{text: 0g}]}}]"), "tcp_health_check.receive[0].text: \"0g\" at 0 is not hexadecimal" },
    { C("outlier_detection: {enforcing_success_rate: 101}"), "outlier_detection.enforcing_success_rate: 101 is above 100" },
    { C("outlier_detection: {interval: 0s}"), "outlier_detection.interval: must be greater than 0s" },
    { C("outlier_detection: {monitors: [{name: x}]}"), "outlier_detection.monitors: not supported yet" },
    { C("circuit_breakers: {thresholds: [{retry_budget: {budget_percent: {value: 101}}}]}"), "circuit_breakers.thresholds[0].retry_budget.budget_percent: must be 0 to 100" },
    { C("filters: [{name: f}]"), "filters: \"f\" is not supported" },
    { C("upstream_bind_config: {source_address: {address: here, port_value: 0}}"), "upstream_bind_config.source_address.address: \"here\" is not an IP address" },
    { C("typed_extension_protocol_options: {x: {" RIG_ANY "envoy.extensions.upstreams.http.v3.HttpProtocolOptions}}"), "typed_extension_protocol_options: \"x\" is not supported" },
    { C("type: EDS, eds_cluster_config: {eds_config: {path_config_source: {path: ''}}}"), "eds_cluster_config.eds_config.path_config_source.path: missing" },
    { C("type: EDS, eds_cluster_config: {eds_config: {api_config_source: {api_type: GRPC}}}"), "eds_cluster_config.eds_config.api_config_source: not supported" },
    { C("type: EDS, eds_cluster_config: {eds_config: {}}"), "eds_cluster_config.eds_config.config_source_specifier: one of ads" },
    { C("load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: name, port_value: 80}}}}]}]}"),
      "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: \"name\" is not an IP address" },
    { C("transport_socket: {name: x, typed_config: {" RIG_ANY "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext}}"),
      "transport_socket.typed_config: type envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext is not supported here" },
    { C("transport_socket: {name: x}"), "transport_socket.typed_config: missing" },
    { PROXY_OUT("config: {version: V2}"), "transport_socket.typed_config.transport_socket: missing" },
    { PROXY_OUT("config: {pass_through_tlvs: {}}" RAW), "transport_socket.typed_config.version: V1 carries no TLVs; set V2" },
    { PROXY_OUT("config: {version: V2, pass_through_tlvs: {tlv_type: [256]}}" RAW), "pass_through_tlvs.tlv_type: 256 is not a TLV type" },
    { PROXY_OUT("config: {version: V2, added_tlvs: [{type: 1}]}" RAW), "added_tlvs: entry 0: a type up to 255 and a value are needed" },
    { PROXY_OUT("config: {version: V2}, transport_socket: {name: x}"), "transport_socket.typed_config.transport_socket.typed_config: missing" },
    { C("transport_socket_matches: [{name: m, match: {a: 1}, transport_socket: {name: envoy.transport_sockets.raw_buffer}}]"), "transport_socket_matches[0].match: \"a\": only text values" },
    // endpoints
    { EP(""), "endpoints[0].lb_endpoints[0].endpoint: missing" },
    { EP("endpoint: {address: {socket_address: {address: 1.2.3.4, port_value: 70000}}}"), "endpoint.address.socket_address.port_value: 70000 is not a port" },
    { EP("endpoint: {address: {socket_address: {protocol: UDP, address: 1.2.3.4, port_value: 7}}}"), "socket_address.protocol: only TCP" },
    { EP("endpoint: {address: {socket_address: {address: 1.2.3.4, port_value: 7}}}, load_balancing_weight: 0"), "load_balancing_weight: must be 1 to" },
    { XDS_ENDPOINT, "{cluster_name: c, endpoints: [{priority: 129}]}", "endpoints[0].priority: 129 is above 128" },
    { XDS_ENDPOINT, "{cluster_name: c, policy: {drop_overloads: [{drop_percentage: {numerator: 5}}]}}", "policy.drop_overloads: entry 0: category is missing" },
    { XDS_ENDPOINT, "{cluster_name: c, policy: {overprovisioning_factor: 0}}", "policy.overprovisioning_factor: must be at least 1" },
    { EP("endpoint: {address: {socket_address: {address: 1.2.3.4, port_value: 7}}, health_check_config: {port_value: 70000}}"), "endpoint.health_check_config.port_value: 70000 is not a port" },
    { EP("endpoint: {address: {socket_address: {address: 1.2.3.4, port_value: 7}}, additional_addresses: [{address: {socket_address: {address: x, port_value: 7}}}]}"),
      "endpoint.additional_addresses[0].address.socket_address.address: \"x\" is not an IP address" },
    { EP("endpoint: {address: {socket_address: {address: 1.2.3.4, port_value: 7}}}, metadata: {filter_metadata: {envoy.lb: {a: {b: 1}}}}"),
      "metadata.filter_metadata[envoy.lb].a.value: only strings" },
    // TLS
    { UP_TLS("common_tls_context: {tls_certificates: [{certificate_chain: {inline_string: x}, private_key: {inline_string: y}}]}"), "transport_socket.typed_config.common_tls_context: " },
    { UP_TLS("common_tls_context: {tls_certificates: [{}, {}]}"), "common_tls_context.tls_certificates: more than one certificate" },
    { UP_TLS("common_tls_context: {validation_context: {trusted_ca: {inline_string: x}}}"), "common_tls_context: " },
    { UP_TLS("common_tls_context: {validation_context: {trusted_ca: {filename: /no/such/file}}}"), "validation_context.trusted_ca.filename: /no/such/file" },
    { UP_TLS("common_tls_context: {validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: x}}]}}"), "names to match without trusted_ca" },
    { UP_TLS("common_tls_context: {validation_context: {verify_certificate_hash: [a]}}"), "validation_context.verify_certificate_hash: not supported yet" },
    { UP_TLS("common_tls_context: {validation_context: {match_subject_alt_names: [{safe_regex: {regex: a}}]}}"), "match_subject_alt_names[0].safe_regex: regular expressions" },
    { UP_TLS("common_tls_context: {tls_certificates: [{watched_directory: {path: /x}}]}"), "tls_certificates[0].watched_directory: not supported yet" },
    { UP_TLS("common_tls_context: {tls_certificate_sds_secret_configs: [{sds_config: {ads: {}}}]}"), "tls_certificate_sds_secret_configs[0].name: missing" },
    { UP_TLS("common_tls_context: {tls_certificate_sds_secret_configs: [{name: 'file-cert:/no/cert~/no/key'}]}"), "/no/cert" },
    { UP_TLS("common_tls_context: {combined_validation_context: {default_validation_context: {}, validation_context_sds_secret_config: {name: x, sds_config: {path: ''}}}}"),
      "combined_validation_context.validation_context_sds_secret_config.sds_config.path: missing" },
    { UP_TLS("common_tls_context: {validation_context: {trusted_ca: {inline_string: ''}}}"), "validation_context.trusted_ca.specifier: there is nothing in it" },
    { UP_TLS("common_tls_context: {validation_context: {trusted_ca: {}}}"), "validation_context.trusted_ca.specifier: one of" },
    { UP_TLS("common_tls_context: {combined_validation_context: {default_validation_context: {}}}"), "combined_validation_context: default_validation_context and" },
    { UP_TLS("common_tls_context: {tls_certificates: [{}]}"), "common_tls_context.tls_certificates: entry 0: certificate_chain and private_key" },
    { UP_TLS(ISTIO_ROOTS(", tls_params: {cipher_suites: [NOPE]}")), "transport_socket.typed_config.common_tls_context: cipher list: unknown cipher \"NOPE\"" },
    { UP_TLS(ISTIO_ROOTS(", tls_params: {ecdh_curves: [P-256, nope]}")), "common_tls_context: curve list" },
    { UP_TLS(ISTIO_ROOTS(", tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_2}")), "common_tls_context: TLS versions" },
    { UP_TLS(ISTIO_ROOTS(", tls_params: {compliance_policies: [FIPS_202205]}")), "common_tls_context.tls_params.compliance_policies: not supported yet" },
    { UP_TLS("common_tls_context: {validation_context: {trusted_ca: {filename: /x}, max_verify_depth: 1}}"), "validation_context.max_verify_depth: not supported yet" },
    { UP_TLS("common_tls_context: {validation_context: {only_verify_leaf_cert_crl: true}}"), "validation_context.only_verify_leaf_cert_crl: not supported yet" },
    { UP_TLS("common_tls_context: {validation_context: {allow_expired_certificate: true}}"), "validation_context.allow_expired_certificate: not supported yet" },
    { UP_TLS("common_tls_context: {validation_context: {verify_certificate_spki: [a]}}"), "validation_context.verify_certificate_spki: not supported yet" },
    { UP_TLS("common_tls_context: {validation_context: {custom_validator_config: {name: x}}}"), "validation_context.custom_validator_config: not supported yet" },
    { UP_TLS("common_tls_context: {validation_context: {match_typed_subject_alt_names: [{san_type: OTHER_NAME, oid: 1.2.3, matcher: {exact: x}}]}}"), "entry 0: oid is not supported" },
    { UP_TLS("common_tls_context: {key_log: {path: /x}}"), "common_tls_context.key_log: not supported yet" },
    { UP_TLS("allow_renegotiation: true"), "transport_socket.typed_config.allow_renegotiation: not supported yet" },
    { UP_TLS("auto_host_sni: true"), "transport_socket.typed_config.auto_host_sni: not supported yet" },
    { UP_TLS("auto_sni_san_validation: true"), "transport_socket.typed_config.auto_sni_san_validation: not supported yet" },
    { DOWN_TLS("ocsp_staple_policy: MUST_STAPLE, common_tls_context: {}"), "typed_config.ocsp_staple_policy: MUST_STAPLE is not supported" },
    { DOWN_TLS("session_timeout: -1s, common_tls_context: {}"), "typed_config: session_timeout: must be 0s or more" },
    { DOWN_TLS("session_ticket_keys: {keys: [{inline_string: x}]}, common_tls_context: {}"), "typed_config.session_ticket_keys: not supported yet" },
    { DOWN_TLS("full_scan_certs_on_sni_mismatch: true, common_tls_context: {}"), "typed_config.full_scan_certs_on_sni_mismatch: not supported yet" },
    { UP_TLS("common_tls_context: {tls_params: {signature_algorithms: [x]}}"), "common_tls_context.tls_params.signature_algorithms: not supported yet" },
    { DOWN_TLS("common_tls_context: {}"), "common_tls_context.tls_certificates: a server needs a certificate" },
    { DOWN_TLS("require_client_certificate: true, common_tls_context: {tls_certificate_sds_secret_configs: [{name: x, sds_config: {ads: {}}}]}"), "require_client_certificate: needs a validation context" },
    { UP_TLS("common_tls_context: {validation_context: {match_typed_subject_alt_names: [{matcher: {exact: x}}]}}"), "match_typed_subject_alt_names: entry 0: san_type and matcher" },
    { UP_TLS("common_tls_context: {validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {prefix: ''}}]}}"), "match_typed_subject_alt_names[0].matcher.prefix: must not be empty" },
    { UP_TLS("common_tls_context: {validation_context: {match_subject_alt_names: [{contains: ''}]}}"), "match_subject_alt_names[0].contains: must not be empty" },
    { UP_TLS("common_tls_context: {alpn_protocols: ['']}"), "common_tls_context.alpn_protocols: entry 0: a name has 1 to 255 bytes" },
    { UP_TLS("common_tls_context: {tls_certificate_sds_secret_configs: [{name: nobody}]}"), "tls_certificate_sds_secret_configs[0].name: there is no static secret \"nobody\"" },
    { C("transport_socket_matches: [{name: m, match: {a: b}}]"), "transport_socket_matches[0].transport_socket: name and transport_socket" },
    { MATCH("prefix: /, headers: [{name: x, string_match: {suffix: ''}}]"), "match.headers[0].string_match.suffix: must not be empty" },
    { MATCH("prefix: /, headers: [{name: x, string_match: {safe_regex: {regex: ''}}}]"), "match.headers[0].string_match.safe_regex.regex: missing" },
    { DOWN_TLS("require_sni: true, common_tls_context: {}"), "filter_chains[0].transport_socket.typed_config.require_sni: not supported yet" },
    // listeners
    { XDS_LISTENER, "{name: l, filter_chains: [{filters: [" RIG_TCP "]}]}", "address.address: missing" },
    { LISTENER("stat_prefix: x"), "filter_chains: at least one is needed" },
    { PROXY_IN("disallowed_versions: [V1, V2]"), "listener_filters[0].typed_config.disallowed_versions: nothing is left" },
    { PROXY_IN("pass_through_tlvs: {tlv_type: [999]}"), "pass_through_tlvs.tlv_type[0]: 999 is not a TLV type" },
    { PROXY_IN("rules: [{tlv_type: 2}]"), "listener_filters[0].typed_config.rules[0]: a tlv_type up to 255 and on_tlv_present.key are needed" },
    { PROXY_IN("rules: [{tlv_type: 2, on_tlv_present: {key: k}}], tlv_location: FILTER_STATE"), "tlv_location: only DYNAMIC_METADATA is supported" },
    { CHAIN("filters: [{name: mx, typed_config: {" RIG_ANY "envoy.tcp.metadataexchange.config.MetadataExchange, protocol: mine}}, " RIG_TCP "]"),
      "filters[0].typed_config.protocol: only istio-peer-exchange is spoken" },
    { CHAIN("name: x"), "filter_chains[0].filters: 0 filters; 1 to 64 are needed" },
    { CHAIN("filters: [" RIG_TCP ", " RIG_TCP "]"), "filter_chains[0].filters: \"tcp\" must be the last filter" },
    { CHAIN("filters: [{name: mine}]"), "filters[0].name: network filter \"mine\" () is not supported" },
    { CHAIN("filters: [{name: mine, config_discovery: {}}]"), "filters[0].config_discovery: not supported yet" },
    { CHAIN("filters: [" RIG_TCP "], filter_chain_match: {prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 33}]}"), "filter_chain_match.prefix_ranges.address_prefix: \"10.0.0.0/33\"" },
    { LISTENER("filter_chains: [{name: a, filters: [" RIG_TCP "]}, {name: b, filters: [" RIG_TCP "]}]"), "filter_chains[1].filter_chain_match: " },
    { LISTENER("enable_mptcp: true, filter_chains: [{filters: [" RIG_TCP "]}]"), "enable_mptcp: not supported yet" },
    { LISTENER("listener_filters: [{name: mine}], filter_chains: [{filters: [" RIG_TCP "]}]"), "listener_filters[0].name: listener filter \"mine\"" },
    // HTTP connection manager
    { HCM(""), FIELD "route_specifier: one of rds, route_config is needed" },
    { HCM(RIG_ROUTES), FIELD "http_filters: 0 filters; 1 to 64 are needed" },
    { HCM(", rds: {config_source: {ads: {}}}, http_filters: [" RIG_ROUTER "]"), FIELD "rds.route_config_name: missing" },
    { HCM(", rds: {route_config_name: r, config_source: {api_config_source: {api_type: GRPC}}}, http_filters: [" RIG_ROUTER "]"), FIELD "rds.config_source.api_config_source: not supported" },
    { HCM(", codec_type: HTTP3" RIG_ROUTES ", http_filters: [" RIG_ROUTER "]"), FIELD "codec_type: " },
    { HCM(RIG_ROUTES ", http_filters: [{name: rbac, typed_config: {" RIG_ANY "udpa.type.v1.TypedStruct, type_url: type.googleapis.com/envoy.extensions.filters."
        "http.rbac.v3.RBAC, value: {matcher: {}}}}, " RIG_ROUTER "]"), FIELD "http_filters[0].typed_config: \"rbac\": " },
    { HCM(RIG_ROUTES ", http_filters: [{name: mine}]"), FIELD "http_filters[0].name: HTTP filter \"mine\" () is not supported" },
    { HCM(RIG_ROUTES ", http_filters: [" RIG_ROUTER ", " RIG_ROUTER "]"), FIELD "http_filters: \"envoy.filters.http.router\" must be the last filter" },
    { HCM(RIG_ROUTES ", upgrade_configs: [{upgrade_type: w}, {upgrade_type: W}], http_filters: [" RIG_ROUTER "]"), FIELD "upgrade_configs: \"W\" stands there twice" },
    { HCM(RIG_ROUTES ", upgrade_configs: [{upgrade_type: w, filters: [{name: mine}]}], http_filters: [" RIG_ROUTER "]"), FIELD "upgrade_configs[0].filters[0].name: HTTP filter \"mine\"" },
    { HCM(RIG_ROUTES ", max_request_headers_kb: 0, http_filters: [" RIG_ROUTER "]"), FIELD "max_request_headers_kb: must be 1 to 8192" },
    { HCM(RIG_ROUTES ", http_protocol_options: {send_fully_qualified_url: true}, http_filters: [" RIG_ROUTER "]"), FIELD "http_protocol_options.send_fully_qualified_url: not supported yet" },
    { HCM(RIG_ROUTES ", http_protocol_options: {header_key_format: {}}, http_filters: [" RIG_ROUTER "]"), FIELD "http_protocol_options.header_key_format.header_format: one of" },
    { HCM(RIG_ROUTES ", http_protocol_options: {header_key_format: {stateful_formatter: {name: f}}}, http_filters: [" RIG_ROUTER "]"),
      FIELD "http_protocol_options.header_key_format.stateful_formatter.typed_config: missing" },
    { C("http_protocol_options: {header_key_format: {stateful_formatter: {name: f, typed_config: {" RIG_ANY
        "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig, forward_reason_phrase: true}}}}"),
      "http_protocol_options.header_key_format.stateful_formatter.typed_config.forward_reason_phrase: not supported yet" },
    { C("common_http_protocol_options: {idle_timeout: -1s}"), "common_http_protocol_options.idle_timeout: must be 0s or more" },
    { C(HTTP_OPTIONS("explicit_http_config: {}")), "HttpProtocolOptions].explicit_http_config: one of http_protocol_options, http2_protocol_options" },
    { C(HTTP_OPTIONS("auto_config: {}")), "HttpProtocolOptions].auto_config: not supported yet" },
    { C(HTTP_OPTIONS("common_http_protocol_options: {}")), "HttpProtocolOptions].upstream_protocol_options: missing" },
    { C(HTTP_OPTIONS("explicit_http_config: {http_protocol_options: {}}, http_filters: [{name: x}]")), "HttpProtocolOptions].http_filters: not supported yet" },
    { C(HTTP_OPTIONS("explicit_http_config: {http_protocol_options: {ignore_http_11_upgrade: [{exact: h2c}]}}")), "http_protocol_options.ignore_http_11_upgrade: not supported yet" },
    { C("common_http_protocol_options: {max_connection_duration_jitter: {value: 1}}"), "common_http_protocol_options.max_connection_duration_jitter: not supported yet" },
    { C("http2_protocol_options: {initial_stream_window_size: 65534}"), "http2_protocol_options.initial_stream_window_size: must be 65535 to 2147483647" },
    { C("http2_protocol_options: {initial_connection_window_size: 2147483648}"), "http2_protocol_options.initial_connection_window_size: must be 65535 to 2147483647" },
    { C("http2_protocol_options: {max_concurrent_streams: 0}"), "http2_protocol_options.max_concurrent_streams: must be 1 to 2147483647" },
    { C("http2_protocol_options: {max_concurrent_streams: 2147483648}"), "http2_protocol_options.max_concurrent_streams: must be 1 to 2147483647" },
    { C("http_protocol_options: {}, http2_protocol_options: {}"), "http_protocol_options: stands beside http2_protocol_options" },
    { C("upstream_http_protocol_options: {auto_sni: true, override_auto_sni_header: 'a b'}"), "override_auto_sni_header: \"a b\" is no name" },
    { C("upstream_connection_options: {tcp_keepalive: {keepalive_time: 32768}}"), "upstream_connection_options.tcp_keepalive: at most 127 probes" },
    { C("upstream_connection_options: {tcp_keepalive: {keepalive_probes: 128}}"), "upstream_connection_options.tcp_keepalive: at most 127 probes" },
    { HCM(RIG_ROUTES ", strip_matching_host_port: true, strip_any_host_port: true, http_filters: [" RIG_ROUTER "]"), FIELD "strip_matching_host_port: stands beside" },
    { CHAIN("filters: [{name: envoy.filters.network.http_connection_manager}]"), "filters[0].typed_config: missing" },
    { CHAIN("filters: [" RIG_TCP "], filter_chain_match: {destination_port: 0}"), "filter_chain_match.destination_port: 0 is not 1 to 65535" },
    { CHAIN("filters: [" RIG_TCP "], filter_chain_match: {destination_port: 70000}"), "filter_chain_match.destination_port: 70000 is not 1 to 65535" },
    { CHAIN("filters: [" RIG_TCP "], filter_chain_match: {source_ports: [0]}"), "filter_chain_match.source_ports: 0 is not 1 to 65535" },
    { HCM(RIG_ROUTES ", http_filters: [{name: f, typed_config: {" RIG_ANY "envoy.extensions.filters.http.fault.v3.HTTPFault, delay: {fixed_delay: 0s}}}, " RIG_ROUTER "]"),
      FIELD "http_filters[0].typed_config.delay.fixed_delay: must be greater than 0s" },
    { CHAIN("filters: [{name: tcp, typed_config: {" RIG_ANY "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: c, max_downstream_connection_duration: 0s}}]"),
      "max_downstream_connection_duration: must be at least 1 ms" },
    { LISTENER("listener_filters: [{name: t, typed_config: {" RIG_ANY "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector, max_client_hello_size: 17000}}],"
               " filter_chains: [{filters: [" RIG_TCP "]}]"), "max_client_hello_size: must be" },
    { C("http2_protocol_options: {custom_settings_parameters: [{identifier: 1, value: 1}]}"), "http2_protocol_options.custom_settings_parameters: not supported yet" },
    { C("http2_protocol_options: {connection_keepalive: {interval: 1s}}"), "http2_protocol_options.connection_keepalive.timeout: must be there" },
    { C("http2_protocol_options: {allow_metadata: true}"), "http2_protocol_options.allow_metadata: not supported yet" },
    { C("typed_extension_protocol_options: {envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions: {" RIG_ANY
        "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions, idle_timeout: -1s}}"), "TcpProtocolOptions].value: idle_timeout: must be 0s or more" },
    { C("upstream_bind_config: {source_address: {address: 1.2.3.4, port_value: 0, network_namespace_filepath: /x}}"), "source_address.network_namespace_filepath: not supported yet" },
    { C("upstream_bind_config: {extra_source_addresses: [{address: {address: 1.2.3.4, port_value: 0}, socket_options: {}}]}"), "extra_source_addresses[0].socket_options: not supported yet" },
    { XDS_LISTENER, "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1, network_namespace_filepath: /x}}, filter_chains: [{filters: [" RIG_TCP "]}]}",
      "address.socket_address.network_namespace_filepath: not supported yet" },
    { HCM(RIG_ROUTES ", set_current_client_cert_details: {issuer: true}, http_filters: [" RIG_ROUTER "]"), FIELD "set_current_client_cert_details.issuer: not supported yet" },
    { HCM(RIG_ROUTES ", request_id_extension: {typed_config: {" RIG_ANY "envoy.extensions.filters.http.router.v3.Router}}, http_filters: [" RIG_ROUTER "]"),
      FIELD "request_id_extension.typed_config: type envoy.extensions.filters.http.router.v3.Router is not supported" },
    { HCM(RIG_ROUTES ", server_name: \"a\\nb\", http_filters: [" RIG_ROUTER "]"), FIELD "server_name: must not have line ends" },
    { HCM(", rds: {route_config_name: r, config_source: {ads: {}, resource_api_version: V2}}, http_filters: [" RIG_ROUTER "]"), FIELD "rds.config_source.resource_api_version: only V3" },
    { ROUTE("route: {cluster: c}, request_headers_to_add: [{header: {key: 'a b', value: x}}]"), "request_headers_to_add[0].header.key: \"a b\" is no name" },
    { ROUTE("route: {cluster: c}, response_headers_to_add: [{header: {key: a, value: \"x\\r\\ny: z\"}}]"), "response_headers_to_add[0].header.value: must not have line ends" },
    { ROUTE("route: {cluster: c}, response_headers_to_add: [{header: {key: a, value: x, raw_value: eA==}}]"), "response_headers_to_add[0].header.value: only one of" },
    { ACTION("prefix_rewrite: \"/a\\r\\nb\""), "route.prefix_rewrite: must not have line ends" },
    { ACTION("host_rewrite_literal: \"a\\nb\""), "route.host_rewrite_literal: must not have line ends" },
    { ACTION("regex_rewrite: {pattern: {regex: a}, substitution: \"a\\nb\"}"), "substitution: must not have line ends" },
    { ACTION("request_mirror_policies: [{cluster: c, host_rewrite_literal: \"a\\nb\"}]"), "request_mirror_policies[0].host_rewrite_literal: must not have line ends" },
    { ROUTE("redirect: {host_redirect: \"a\\nb\"}"), "redirect.host_redirect: must not have line ends" },
    { ROUTE("redirect: {path_redirect: \"/a\\nb\"}"), "redirect.path_redirect: must not have line ends" },
    { ACTION("hash_policy: [{cookie: {name: ''}}]"), "route.hash_policy: entry 0: a cookie has a name" },
    { ACTION("hash_policy: [{cookie: {name: a, attributes: [{name: b, value: \"c\\nd\"}]}}]"), "route.hash_policy: entry 0: attributes 0" },
    { ACTION("hash_policy: [{header: {header_name: ''}}]"), "route.hash_policy: entry 0: header.header_name is missing" },
    { ACTION("retry_policy: {retry_back_off: {base_interval: 0s}}"), "retry_policy.retry_back_off: base_interval must be greater than 0s" },
    { ACTION("retry_policy: {retry_back_off: {base_interval: 2s, max_interval: 1s}}"), "retry_policy.retry_back_off: base_interval must be greater than 0s, and max_interval not less" },
    { MATCH("prefix: /, query_parameters: [{name: ''}]"), "match.query_parameters[0].name: missing" },
    { MATCH("path_separated_prefix: /a/"), "match.path_separated_prefix: \"/a/\" must have" },
    { MATCH("prefix: /, runtime_fraction: {}"), "match.runtime_fraction.default_value: missing" },
    { MATCH("safe_regex: {regex: ''}"), "match.safe_regex.regex: missing" },
    { ROUTE("route: {cluster: c}, request_headers_to_remove: ['']"), "is no name of a field" },
    { ROUTE("direct_response: {status: 200, body: {filename: /x, watched_directory: {path: /}}}"), "direct_response.body.watched_directory: not supported yet" },
    { C("common_http_protocol_options: {max_response_headers_kb: 0}"), "common_http_protocol_options.max_response_headers_kb: must be 1 to 8192" },
    { C("upstream_http_protocol_options: {auto_san_validation: true}, transport_socket: {name: tls, typed_config: {" RIG_ANY
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {combined_validation_context: {default_validation_context: "
        "{match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a}}]}, validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}}}}}"),
      "upstream_http_protocol_options.auto_san_validation: not supported beside" },
    { C("common_http_protocol_options: {max_headers_count: 0}"), "common_http_protocol_options.max_headers_count: must be at least 1" },
    { HCM(RIG_ROUTES ", common_http_protocol_options: {max_headers_count: 0}, http_filters: [" RIG_ROUTER "]"), FIELD "common_http_protocol_options.max_headers_count: must be at least 1" },
    { HCM(RIG_ROUTES ", local_reply_config: {mappers: [{body: {inline_string: x}}]}, http_filters: [" RIG_ROUTER "]"), FIELD "local_reply_config.mappers[0].filter: missing" },
    { HCM(", route_config: {virtual_hosts: [{name: v}]}, http_filters: [" RIG_ROUTER "]"), FIELD "route_config.virtual_hosts[0].domains: at least one is needed" },
    // routes
    { XDS_ROUTE, "{name: r, virtual_hosts: [{name: a, domains: [x]}, {name: b, domains: [x]}]}", "virtual_hosts: " },
    { XDS_ROUTE, "{name: r, virtual_hosts: [{name: a, domains: ['*']}, {name: b, domains: ['*']}]}", "virtual_hosts: " },
    { VHOST("routes: [{route: {cluster: c}}]"), "virtual_hosts[0].routes[0].match: missing" },
    { MATCH(""), "match.path_specifier: one of prefix, path" },
    { MATCH("safe_regex: {regex: '('}"), "match.safe_regex.regex: " },
    { MATCH("prefix: /, headers: [{name: x, string_match: {}}]"), "match.headers[0].string_match.match_pattern: one of" },
    { MATCH("prefix: /, dynamic_metadata: [{filter: x}]"), "match.dynamic_metadata: entry 0 needs filter, value and a path" },
    { MATCH("prefix: /, dynamic_metadata: [{filter: x, path: [{key: k}], value: {bool_match: true}}]"), "match.dynamic_metadata: entry 0: only string_match" },
    { C("circuit_breakers: {per_host_thresholds: [{max_requests: 1}]}"), "circuit_breakers.per_host_thresholds[0].max_requests: not supported yet" },
    { HCM(RIG_ROUTES ", flush_access_log_on_new_request: true, http_filters: [" RIG_ROUTER "]"), FIELD "flush_access_log_on_new_request: not supported yet" },
    { XDS_ROUTE, "{name: r, max_direct_response_body_size_bytes: 3, virtual_hosts: [{name: a, domains: [x], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: abcd}}}]}]}",
      "virtual_hosts[0].routes[0].direct_response.body: 4 bytes, at most 3" },
    { ROUTE("name: x"), "routes[0].action: one of route, redirect, direct_response" },
    { ROUTE("route: {timeout: 1s}"), "route.cluster_specifier: one of cluster" },
    { ROUTE("route: {weighted_clusters: {clusters: [{name: a}]}}"), "route.weighted_clusters: the sum of the weights" },
    { ACTION("internal_redirect_policy: {predicates: [{name: mine}]}"), "route.internal_redirect_policy.predicates[0].typed_config: \"mine\" () is not supported" },
    { ACTION("hedge_policy: {initial_requests: 2}"), "route.hedge_policy.initial_requests: not supported yet" },
    { ACTION("metadata_match: {filter_metadata: {envoy.lb: {a: [1]}}}"), "route.metadata_match: envoy.lb.a: only strings, numbers and bools" },
    { ACTION("request_mirror_policies: [{}]"), "route.request_mirror_policies: entry 0 needs one of cluster, cluster_header" },
    { ACTION("host_rewrite_path_regex: {pattern: {regex: a}, substitution: '\\1'}"), "route.host_rewrite_path_regex.substitution: " },
    { ACTION("prefix_rewrite: /a, regex_rewrite: {pattern: {regex: a}}"), "route.prefix_rewrite: only one of" },
    { ACTION("path_rewrite_policy: {name: x, typed_config: {" RIG_ANY "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: /a}}"),
      "path_rewrite_policy: the route must match by path_match_policy" },
    { MATCH("path_match_policy: {name: x}"), "match.path_match_policy.typed_config: missing" },
    { MATCH("path_match_policy: {name: x, typed_config: {" RIG_ANY "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/a/**/b'}}"),
      "match.path_match_policy.typed_config.path_template: \"/a/**/b\" at byte 5: nothing may follow **" },
    { MATCH("prefix: /, cookies: [{name: a}]"), "match.cookies: entry 0 needs name and string_match" },
    { ACTION("retry_policy: {rate_limited_retry_back_off: {}}"), "retry_policy.rate_limited_retry_back_off.reset_headers: at least one" },
    { ACTION("hash_policy: [{filter_state: {key: x}}]"), "route.hash_policy: entry 0: this kind is not supported" },
    { ACTION("retry_policy: {retry_host_predicate: [{name: mine}]}"), "retry_policy.retry_host_predicate: \"mine\" is not supported" },
    { ACTION("regex_rewrite: {substitution: x}"), "route.regex_rewrite.pattern: missing" },
    { ROUTE("direct_response: {status: 99}"), "direct_response.status: 99 is not between 200 and 599" },
    { ROUTE("redirect: {path_redirect: '/%PREFIX()%'}"), "redirect.path_redirect: " },
    { ROUTE("redirect: {regex_rewrite: {substitution: x}}"), "redirect.regex_rewrite.pattern: missing" },
    { ROUTE("route: {cluster: c}, request_headers_to_add: [{header: {key: ':path', value: x}}]"), "request_headers_to_add[0].header.key: \":path\"" },
    { ROUTE("route: {cluster: c}, response_headers_to_add: [{header: {key: x, value: '%NOPE%'}}]"), "response_headers_to_add[0].header.value: " },
    { ROUTE("route: {cluster: c}, typed_per_filter_config: {mine: {" RIG_ANY "envoy.extensions.filters.http.router.v3.Router}}"), "typed_per_filter_config[mine].value: " },
    { ROUTE("non_forwarding_action: {}"), "routes[0].non_forwarding_action: not supported yet" },
};

static int build(struct secret_store *s, enum xds_type t, struct str bytes, struct err *err)
{
    struct arena scratch = { 0 };
    struct config_ctx ctx = { .scratch = &scratch, .secrets = s };
    struct cluster_cfg *c = NULL;
    struct listener_cfg *l = NULL;
    struct route_table *r = NULL;
    Envoy__Config__Endpoint__V3__ClusterLoadAssignment *m = NULL;
    struct lb_endpoint_cfg *v;
    size_t n;
    int rc;
    if (t == XDS_CLUSTER) {
        rc = build_cluster(&ctx, bytes, &c, err);
        cluster_cfg_unref(c);
    } else if (t == XDS_LISTENER) {
        rc = build_listener(&ctx, bytes, &l, err);
        listener_cfg_unref(l);
    } else if (t == XDS_ROUTE) {
        rc = build_route_table_bytes(&ctx, bytes, &r, err);
        route_table_unref(r);
    } else {
        assert_int_equal(pb_unpack_as(Envoy__Config__Endpoint__V3__ClusterLoadAssignment, envoy__config__endpoint__v3__cluster_load_assignment,
                                      bytes, &scratch, &m, err), 0);
        struct endpoint_policy policy;
        rc = build_endpoints(m, false, &scratch, &v, &n, err);
        rc = rc ? rc : build_endpoint_policy(m, &scratch, &policy, err);
    }
    arena_fini(&scratch);
    return rc;
}

static void refusals_name_field_and_reason(void **state)
{
    (void)state;
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct secret_store s;
        struct arena a = { 0 };
        struct err err = { 0 };
        secret_store_init(&s);
        int rc = build(&s, cases[i].type, rig_pack(cases[i].type, cases[i].yaml, &a), &err);
        if (!rc || !strstr(err.msg, cases[i].says)) {
            print_error("case %zu: %s\n  says \"%s\"\n  not  \"%s\"\n", i, cases[i].yaml, rc ? err.msg : "(accepted)", cases[i].says);
            wrong++;
        }
        secret_store_fini(&s);
        arena_fini(&a);
    }
    assert_int_equal(wrong, 0);
}

static void bytes_that_are_no_message_are_refused(void **state)
{
    (void)state;
    static const enum xds_type types[] = { XDS_CLUSTER, XDS_LISTENER, XDS_ROUTE };
    for (size_t i = 0; i < 3; i++) {
        struct secret_store s;
        struct err err = { 0 };
        secret_store_init(&s);
        assert_int_not_equal(build(&s, types[i], STR("\x0a\xff\xff"), &err), 0);
        assert_true(err.msg[0]);
        secret_store_fini(&s);
    }
}

// Our .proto files are trimmed: a field that only Envoy's have is on the wire all the same.
static void fields_that_we_have_no_name_for_are_refused(void **state)
{
    (void)state;
    struct secret_store s;
    struct arena a = { 0 };
    struct err err = { 0 };
    secret_store_init(&s);
    struct str good = rig_pack(XDS_CLUSTER, "{name: c}", &a);
    assert_int_equal(build(&s, XDS_CLUSTER, good, &err), 0);
    struct str more = arena_printf(&a, "%.*s%s", STR_FMT(good), "\xfa\xff\x3f\x01x"); // field 131071, one byte
    assert_int_not_equal(build(&s, XDS_CLUSTER, more, &err), 0);
    assert_string_equal(err.msg, "field number 131071 of Cluster: not known here");

    // A field of a message within, and one of a transport socket.
    Envoy__Config__Cluster__V3__Cluster *m = NULL;
    ProtobufCMessageUnknownField later = { .tag = 99, .wire_type = PROTOBUF_C_WIRE_TYPE_VARINT, .len = 1, .data = (uint8_t *)"\x01" };
    good = rig_pack(XDS_CLUSTER, "{name: c, common_lb_config: {healthy_panic_threshold: {value: 1}}}", &a);
    assert_int_equal(pb_unpack_as(Envoy__Config__Cluster__V3__Cluster, envoy__config__cluster__v3__cluster, good, &a, &m, &err), 0);
    m->common_lb_config->healthy_panic_threshold->base.n_unknown_fields = 1;
    m->common_lb_config->healthy_panic_threshold->base.unknown_fields = &later;
    assert_int_not_equal(build(&s, XDS_CLUSTER, pb_pack(&m->base, &a), &err), 0);
    assert_string_equal(err.msg, "common_lb_config.healthy_panic_threshold: field number 99 of Percent: not known here");
    m->common_lb_config->healthy_panic_threshold->base.n_unknown_fields = 0;
    m->lb_policy = 4; // a number that no balancer has
    assert_int_not_equal(build(&s, XDS_CLUSTER, pb_pack(&m->base, &a), &err), 0);
    assert_string_equal(err.msg, "lb_policy: unknown value 4");

    // The same within a filter's configuration.
    Envoy__Config__Listener__V3__Listener *l = NULL;
    good = rig_pack(XDS_LISTENER, "{name: l, " RIG_ADDRESS ", filter_chains: [{filters: [" RIG_TCP "]}]}", &a);
    assert_int_equal(build(&s, XDS_LISTENER, good, &err), 0);
    assert_int_equal(pb_unpack_as(Envoy__Config__Listener__V3__Listener, envoy__config__listener__v3__listener, good, &a, &l, &err), 0);
    ProtobufCBinaryData *v = &l->filter_chains[0]->filters[0]->typed_config->value;
    more = arena_printf(&a, "%.*s%s", (int)v->len, (const char *)v->data, "\xfa\xff\x3f\x01x");
    *v = (ProtobufCBinaryData){ .len = more.n, .data = (uint8_t *)more.p };
    assert_int_not_equal(build(&s, XDS_LISTENER, pb_pack(&l->base, &a), &err), 0);
    assert_string_equal(err.msg, "filter_chains[0].filters[0].typed_config: \"tcp\": field number 131071 of TcpProxy: not known here");
    secret_store_fini(&s);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals_name_field_and_reason),
        cmocka_unit_test(fields_that_we_have_no_name_for_are_refused),
        cmocka_unit_test(bytes_that_are_no_message_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
