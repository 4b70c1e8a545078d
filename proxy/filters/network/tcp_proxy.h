// SPDX-License-Identifier: Apache-2.0
// envoy.filters.network.tcp_proxy: its configuration as the model holds it.
#ifndef PROXY_FILTERS_NETWORK_TCP_PROXY_H
#define PROXY_FILTERS_NETWORK_TCP_PROXY_H

#include "lib/base/arena.h"
#include "lib/base/err.h"

struct access_log_cfg;
struct config_ctx;
struct subset_key;
struct tcp_tunnel_cfg;

struct tcp_weighted {
    struct str name;
    uint32_t weight;
    const struct subset_key *subset; // metadata_match, with the proxy's below it
    size_t subset_count;
};

struct tcp_proxy_cfg { // in the listener's arena
    struct str stat_prefix;
    struct str cluster;            // empty when weighted
    struct tcp_weighted *weighted;
    size_t weighted_count;
    uint64_t total_weight;
    const struct subset_key *subset; // metadata_match
    size_t subset_count;
    uint64_t idle_ms;              // default 3600000, 0 = none
    uint64_t max_duration_ms;      // max_downstream_connection_duration, 0 = none
    uint32_t max_duration_jitter_ppm; // added to it at random, up to this much of it
    uint32_t max_connect_attempts; // default 1
    uint64_t backoff_ms, backoff_max_ms; // backoff_options: between attempts, growing; 0 = none
    bool wait_for_data;            // upstream_connect_mode ON_DOWNSTREAM_DATA: the client speaks before anybody is connected to
    bool hash_source_ip;           // hash_policy
    struct tcp_tunnel_cfg *tunnel; // tunneling_config, NULL = none
    uint64_t log_interval_ms;      // access_log_options: entries while the connection lasts; 0 = none
    bool log_start, log_connected;
    struct access_log_cfg **access_logs;
    size_t access_log_count;
};

enum { TCP_DRAIN_MS = 45000 }; // a drained connection may live on for this; Istio's --drain-time-s

// config_parse of the filter's ops.
int tcp_proxy_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err);

#endif
