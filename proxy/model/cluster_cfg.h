// SPDX-License-Identifier: Apache-2.0
// A cluster as configured (cluster.v3.Cluster): frozen, counted. Its endpoints change apart from it (endpoints.h).
#ifndef PROXY_MODEL_CLUSTER_CFG_H
#define PROXY_MODEL_CLUSTER_CFG_H

#include "lib/base/hash.h"
#include "lib/http/h1_parser.h"
#include "lib/http/h2_opts.h"
#include "lib/net/socket.h"
#include "proxy/core/ext.h"
#include "proxy/model/health_cfg.h"
#include "proxy/model/lb_criteria.h"
#include "proxy/model/matcher.h"
#include "proxy/model/refs.h"
#include "proxy/model/tls_cfg.h"

enum cluster_type { CLUSTER_STATIC, CLUSTER_STRICT_DNS, CLUSTER_LOGICAL_DNS, CLUSTER_EDS, CLUSTER_ORIGINAL_DST };
enum lb_policy { LB_ROUND_ROBIN, LB_LEAST_REQUEST, LB_RING_HASH, LB_RANDOM, LB_MAGLEV, LB_CLUSTER_PROVIDED };
enum dns_lookup { DNS_LOOKUP_AUTO, DNS_LOOKUP_V4, DNS_LOOKUP_V6, DNS_LOOKUP_V4_PREFERRED, DNS_LOOKUP_ALL };
enum upstream_protocol { UPSTREAM_H1, UPSTREAM_H2, UPSTREAM_DOWNSTREAM /* use_downstream_protocol_config */ };

// One way to reach an endpoint: raw or TLS; chosen by the endpoint's metadata (Cluster.transport_socket_matches) or the default.
struct transport_cfg {
    struct str name;       // of the match, "tlsMode-istio"; empty for the default
    struct tls_cfg *tls;   // NULL = raw
    int proxy_version;     // upstream_proxy_protocol: 1, 2; 0 = no header
    bool proxy_pass_all;   // hands on every TLV that the listener kept, else those of proxy_pass
    uint8_t proxy_pass[32]; // bit set of TLV types
    struct str proxy_tlvs; // added_tlvs, encoded
    struct str_pair { struct str key, value; } *match; // all must be in the endpoint's envoy.transport_socket_match metadata
    size_t match_count;
};

// What limits retries: a plain number of them at a time, or a share of the requests.
enum retry_limit {
    RETRY_LIMIT_COUNT,   // max_retries
    RETRY_LIMIT_BUDGET,  // circuit_breakers.thresholds.retry_budget
    RETRY_LIMIT_DEFAULT, // nothing was configured, or no limit (istiod: 4294967295): remora's own budget, see breaker.c
};
struct breaker_limits { // one priority; UINT32_MAX = no limit
    uint32_t max_connections, max_pending, max_requests, max_retries;
    uint32_t max_pools;      // 0 = no limit
    float budget_percent;    // of the requests now active and pending, or of those of the last budget_interval_ms
    uint32_t budget_min;     // retries at a time that are always allowed
    uint32_t budget_interval_ms; // 0 = only those of this moment
    uint8_t retry_limit;     // enum retry_limit; zero: max_retries counts
    bool track_remaining;    // the remaining_* gauges
};

// cluster.v3.OutlierDetection. enforcing_*: percent of the detections that eject.
struct outlier_cfg {
    bool enabled;
    uint32_t consecutive_5xx, consecutive_gateway, consecutive_local_origin;
    uint32_t enforcing_5xx, enforcing_gateway, enforcing_local_origin, max_ejection_percent;
    uint64_t interval_ms, base_ejection_ms, max_ejection_ms, max_ejection_jitter_ms;
    bool split_local_origin;
    uint32_t enforcing_success_rate, enforcing_local_success_rate, success_rate_min_hosts, success_rate_volume;
    uint32_t success_rate_stdev_factor; // thousandths
    uint32_t failure_pct_threshold, enforcing_failure_pct, enforcing_local_failure_pct, failure_pct_min_hosts, failure_pct_volume;
    bool always_eject_one;
    bool no_uneject_on_health; // successful_active_health_check_uneject_host false
};

// New hosts, and hosts that became healthy, get their weight step by step (cluster.v3.Cluster.SlowStartConfig).
struct slow_start_cfg {
    uint64_t window_ms; // 0 = off
    double aggression, min_percent;
};

enum locality_spread { LOCALITY_NONE, LOCALITY_WEIGHTED, LOCALITY_ZONE_AWARE };

enum subset_fallback { SUBSET_NOT_DEFINED, SUBSET_NO_FALLBACK, SUBSET_ANY_ENDPOINT, SUBSET_DEFAULT, SUBSET_KEYS };
struct subset_selector {
    struct str *keys; // in byte order
    size_t key_count;
    enum subset_fallback fallback;
    struct str *fallback_keys; // SUBSET_KEYS: some of keys, in byte order
    size_t fallback_key_count;
    bool single_host;
};
// cluster.v3.Cluster.LbSubsetConfig.
struct subset_cfg {
    bool enabled;
    enum subset_fallback fallback;
    struct lb_criterion *default_subset;
    size_t default_count;
    struct subset_selector *selectors;
    size_t selector_count;
    bool locality_weight_aware, scale_locality_weight, panic_mode_any, list_as_any;
};

// endpoint.v3.ClusterLoadAssignment.Policy.
struct drop_overload {
    struct str category;
    uint32_t per_million;
};
struct endpoint_policy {
    uint32_t overprovisioning_pct; // 0 = the default, 140
    bool weighted_priority_health; // priorities by the weight of their healthy hosts rather than by the number
    struct drop_overload *drops;
    size_t drop_count;
};

struct cluster_cfg {
    struct refs refs;
    struct arena arena;
    struct hash128 hash;
    struct str name, stat_name /* alt_stat_name or name */, eds_service_name /* or name */;
    enum cluster_type type;
    enum lb_policy lb;
    uint32_t least_request_choices; // 2
    bool least_request_full_scan;   // load_balancing_policies.least_request: FULL_SCAN
    double least_request_bias;      // active_request_bias, 1.0
    struct slow_start_cfg slow_start;
    uint64_t ring_min, ring_max;    // 1024, 8388608
    bool ring_murmur;               // MURMUR_HASH_2
    uint32_t maglev_size;           // 65537; a prime
    bool hash_by_hostname;          // consistent_hashing_lb_config.use_hostname_for_hashing
    uint32_t hash_balance_factor;   // percent, 0 = hosts may be overloaded
    struct subset_cfg subset;
    uint64_t connect_timeout_ms;    // default 5000
    uint32_t buffer_limit;          // per_connection_buffer_limit_bytes, 0 = default
    enum upstream_protocol protocol;
    struct h1_limits h1;            // of answers
    enum h1_names h1_names;         // header_key_format of requests
    uint32_t h2_max_streams, h2_stream_window, h2_conn_window; // http2_protocol_options; 0 = default
    struct h2_opts h2;              // max_outbound_frames 0: all default
    uint64_t idle_timeout_ms;       // upstream connections: default 3600000, 0 = none
    uint64_t max_connection_ms;     // 0 = none
    uint64_t max_stream_ms;         // max_stream_duration of each attempt; 0 = none
    uint32_t max_requests_per_connection; // 0 = none
    struct transport_cfg *transports; // transport_socket_matches in order
    size_t transport_count;
    struct transport_cfg default_transport;
    bool auto_sni, auto_san;        // upstream_http_protocol_options: server name and expected certificate by the request's host
    struct str auto_sni_header;     // or by this field of the request; empty = host
    struct breaker_limits breakers[2]; // DEFAULT, HIGH
    uint32_t host_connections[2];      // per_host_thresholds.max_connections
    struct outlier_cfg outlier;
    struct socket_connect_opts connect; // upstream_bind_config (IPv4), keepalive, mark
    struct addr source_v6;              // extra_source_addresses / IPv6 source; family 0 = none
    double healthy_panic_threshold;     // percent; default 50; istiod sends 0
    enum locality_spread spread;
    double zone_routing_percent;        // zone_aware_lb_config.routing_enabled, 100
    uint64_t zone_min_hosts;            // min_cluster_size, 6
    bool fail_on_panic;                 // fail_traffic_on_panic
    bool close_on_host_failure;         // close_connections_on_host_health_failure
    bool close_on_set_change;           // close_connections_on_host_set_change
    bool ignore_new_until_checked;      // ignore_new_hosts_until_first_hc
    bool ignore_health_on_removal;      // ignore_health_on_host_removal
    struct health_cfg *checks;          // health_checks
    size_t check_count;
    enum dns_lookup dns_lookup;
    uint64_t dns_refresh_ms;  // default 5000
    uint64_t dns_jitter_ms;   // 0 = none
    uint64_t dns_fail_base_ms, dns_fail_max_ms; // dns_failure_refresh_rate; 0 = dns_refresh_ms
    bool respect_dns_ttl;
    struct str dns_servers;   // "10.0.0.1:53,[::1]:53"; empty = the host's
    uint16_t first_family;    // happy_eyeballs_config: AF_INET, AF_INET6; 0 = as the first address
    uint32_t first_family_count; // so many of it before the first of the other; 1
    bool original_dst_use_header; // ORIGINAL_DST: x-envoy-original-dst-host
    uint32_t original_dst_port;   // upstream_port_override, 0 = none
    uint64_t cleanup_interval_ms; // ORIGINAL_DST hosts; default 5000; clipped
    // Endpoints of STATIC and DNS clusters as configured: a packed ClusterLoadAssignment is turned into these by proxy/config.
    struct lb_endpoint_cfg *endpoints;
    size_t endpoint_count;
    struct endpoint_policy policy; // of load_assignment; EDS: in the endpoint set
    struct str metadata;      // see proxy/core/metadata.h
    bool metadata_disable_mx, metadata_no_alpn_override;
    bool is_static;   // from the bootstrap
    bool added_via_api;
};

// One endpoint as configured, address or DNS name not yet resolved.
struct lb_endpoint_cfg {
    struct addr addr;      // family 0: resolve hostname:port
    struct str host_name;  // DNS name to resolve, or endpoint.hostname
    uint16_t port;
    uint32_t weight;       // ≥ 1
    uint8_t health;        // enum eds_health (endpoints.h)
    uint32_t priority;
    struct str region, zone, sub_zone;
    uint32_t locality_weight;
    struct str_pair *metadata; // envoy.transport_socket_match values that are strings
    size_t metadata_count;
    struct lb_criterion *lb_metadata; // envoy.lb, see lb_criteria.h
    size_t lb_metadata_count;
    struct str hash_key;   // envoy.lb hash_key: stands for the address on rings and in tables
    struct addr *more;     // additional_addresses
    size_t more_count;
    struct addr check_addr; // health_check_config.address; family 0 = that of the endpoint
    uint16_t check_port;    // health_check_config.port_value, 0 = that of the endpoint
    struct str check_host;  // health_check_config.hostname
    bool check_off;         // health_check_config.disable_active_health_check
    struct str all_metadata; // see proxy/core/metadata.h
};

// One reference, empty arena, and the defaults named above (limits of the breakers: 1024, 1024, 1024, 3 as Envoy's). Any thread.
struct cluster_cfg *cluster_cfg_new(void);
struct cluster_cfg *cluster_cfg_ref(struct cluster_cfg *c);
// Any thread; the last one frees. NULL is fine.
void cluster_cfg_unref(struct cluster_cfg *c);

#endif
