// SPDX-License-Identifier: Apache-2.0
// One active health check of a cluster (core.v3.HealthCheck), frozen with its cluster.
#ifndef PROXY_MODEL_HEALTH_CFG_H
#define PROXY_MODEL_HEALTH_CFG_H

#include "lib/base/str.h"
#include "proxy/model/matcher.h"

enum health_kind { HEALTH_HTTP, HEALTH_GRPC, HEALTH_TCP };

struct health_header {
    struct str name, value;
    bool append; // beside one of that name, else in its place
};
struct health_range { // [first, end)
    int64_t first, end;
};

struct health_cfg {
    enum health_kind kind;
    uint64_t timeout_ms, interval_ms, initial_jitter_ms, jitter_ms;
    uint32_t jitter_percent;          // of the interval
    uint32_t unhealthy_threshold, healthy_threshold;
    uint64_t no_traffic_ms, no_traffic_healthy_ms; // while nobody has used the cluster
    uint64_t unhealthy_ms, unhealthy_edge_ms, healthy_edge_ms; // in place of interval_ms; 0 = that
    uint32_t alt_port;                // 0 = the endpoint's
    bool keep_connection;             // reuse_connection
    bool always_log_failure, always_log_success;
    struct str *alpn;                 // tls_options.alpn_protocols; NULL = the transport's
    size_t alpn_count;
    // HTTP, gRPC
    bool h2;
    struct str host, path, method;    // host empty: the cluster's name
    struct health_header *headers;
    size_t header_count;
    struct str *remove;               // request_headers_to_remove
    size_t remove_count;
    struct health_range *expected;    // none = 200
    size_t expected_count;
    struct health_range *retriable;   // an answer of these counts against unhealthy_threshold rather than at once
    size_t retriable_count;
    struct string_matcher *service;   // service_name_matcher on x-envoy-upstream-healthchecked-cluster; NULL = none
    struct str grpc_service, grpc_authority;
    // TCP; HTTP: receive only
    struct str send;                  // bytes
    struct str *receive;              // all of them, in this order, gaps allowed
    size_t receive_count;
    uint64_t buffer_limit;            // response_buffer_size: of the body that receive looks at
};

#endif
