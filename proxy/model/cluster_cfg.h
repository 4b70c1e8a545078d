// SPDX-License-Identifier: Apache-2.0
// A cluster as configured (cluster.v3.Cluster): frozen, counted. Its endpoints change apart from it (endpoints.h).
#ifndef PROXY_MODEL_CLUSTER_CFG_H
#define PROXY_MODEL_CLUSTER_CFG_H

#include "lib/base/hash.h"
#include "lib/http/h1_parser.h"
#include "lib/net/socket.h"
#include "proxy/core/ext.h"
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

struct breaker_limits { // one priority; UINT32_MAX = no limit
    uint32_t max_connections, max_pending, max_requests, max_retries;
};

struct outlier_cfg {
    bool enabled;
    uint32_t consecutive_5xx, consecutive_gateway, consecutive_local_origin;
    uint32_t enforcing_5xx, enforcing_gateway, enforcing_local_origin, max_ejection_percent;
    uint64_t interval_ms, base_ejection_ms, max_ejection_ms;
    bool split_local_origin;
};

struct cluster_cfg {
    struct refs refs;
    struct arena arena;
    struct hash128 hash;
    struct str name, stat_name /* alt_stat_name or name */, eds_service_name /* or name */;
    enum cluster_type type;
    enum lb_policy lb;
    uint32_t least_request_choices; // 2
    uint64_t connect_timeout_ms;    // default 5000
    uint32_t buffer_limit;          // per_connection_buffer_limit_bytes, 0 = default
    enum upstream_protocol protocol;
    struct h1_limits h1;            // of answers
    enum h1_names h1_names;         // header_key_format of requests
    uint32_t h2_max_streams, h2_stream_window, h2_conn_window; // http2_protocol_options; 0 = default
    uint64_t idle_timeout_ms;       // upstream connections: default 3600000, 0 = none
    uint64_t max_connection_ms;     // 0 = none
    uint32_t max_requests_per_connection; // 0 = none
    struct transport_cfg *transports; // transport_socket_matches in order
    size_t transport_count;
    struct transport_cfg default_transport;
    struct breaker_limits breakers[2]; // DEFAULT, HIGH
    struct outlier_cfg outlier;
    struct socket_connect_opts connect; // upstream_bind_config (IPv4), keepalive, mark
    struct addr source_v6;              // extra_source_addresses / IPv6 source; family 0 = none
    double healthy_panic_threshold;     // percent; default 50; istiod sends 0
    bool locality_weighted;
    enum dns_lookup dns_lookup;
    uint64_t dns_refresh_ms;  // default 5000
    bool respect_dns_ttl;
    bool original_dst_use_header; // ORIGINAL_DST: x-envoy-original-dst-host
    uint32_t original_dst_port;   // upstream_port_override, 0 = none
    uint64_t cleanup_interval_ms; // ORIGINAL_DST hosts; default 5000; clipped
    // Endpoints of STATIC and DNS clusters as configured: a packed ClusterLoadAssignment is turned into these by proxy/config.
    struct lb_endpoint_cfg *endpoints;
    size_t endpoint_count;
    struct str metadata_services_host; // metadata istio services[0].host, for telemetry
    bool metadata_external, metadata_disable_mx, metadata_no_alpn_override;
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
    struct str workload;   // filter_metadata istio.workload "NAME;NS;…", may be empty
};

// One reference, empty arena, and the defaults named above (limits of the breakers: 1024, 1024, 1024, 3 as Envoy's). Any thread.
struct cluster_cfg *cluster_cfg_new(void);
struct cluster_cfg *cluster_cfg_ref(struct cluster_cfg *c);
// Any thread; the last one frees. NULL is fine.
void cluster_cfg_unref(struct cluster_cfg *c);

#endif
