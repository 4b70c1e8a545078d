// SPDX-License-Identifier: Apache-2.0
// A route configuration (route.v3.RouteConfiguration): frozen, counted; pure look-up. A stream holds a reference.
#ifndef PROXY_MODEL_ROUTE_TABLE_H
#define PROXY_MODEL_ROUTE_TABLE_H

#include "lib/base/hash.h"
#include "proxy/core/ext.h"
#include "proxy/model/matcher.h"
#include "proxy/model/refs.h"

enum path_match { PATH_PREFIX, PATH_EXACT, PATH_REGEX, PATH_SEPARATED_PREFIX, PATH_CONNECT, PATH_TEMPLATE };

// core.v3.HeaderValueOption.HeaderAppendAction, same numbers
enum header_append { HA_APPEND_IF_EXISTS_OR_ADD, HA_ADD_IF_ABSENT, HA_OVERWRITE_IF_EXISTS_OR_ADD, HA_OVERWRITE_IF_EXISTS };
struct header_add {
    struct str name, value; // value may hold command operators (%…%): see format
    enum header_append action;
    struct format *format;  // compiled value when it has operators, NULL = literal (proxy/access_log/format.h)
    bool keep_empty;
};
struct header_ops { // request or response side; removals first? No: Envoy adds first, then removes
    struct header_add *add;
    size_t add_count;
    struct str *remove;
    size_t remove_count;
};

enum retry_on {
    RETRY_5XX = 1 << 0, RETRY_GATEWAY_ERROR = 1 << 1, RETRY_RESET = 1 << 2, RETRY_CONNECT_FAILURE = 1 << 3,
    RETRY_REFUSED_STREAM = 1 << 4, RETRY_RETRIABLE_4XX = 1 << 5, RETRY_STATUS_CODES = 1 << 6, RETRY_HEADERS = 1 << 7,
    RETRY_ENVOY_RATELIMITED = 1 << 8, RETRY_RESET_BEFORE_REQUEST = 1 << 9, RETRY_GRPC_CANCELLED = 1 << 10,
    RETRY_GRPC_DEADLINE = 1 << 11, RETRY_GRPC_INTERNAL = 1 << 12, RETRY_GRPC_EXHAUSTED = 1 << 13, RETRY_GRPC_UNAVAILABLE = 1 << 14,
    RETRY_HTTP3 = 1 << 15,
};
struct retry_policy {
    uint32_t on;              // enum retry_on bits
    uint32_t num_retries;     // default 1
    uint64_t per_try_timeout_ms; // 0 = none
    uint64_t per_try_idle_ms;
    uint64_t backoff_base_ms, backoff_max_ms; // 25, 10 × base
    bool avoid_previous_hosts; // previous_hosts predicate
    uint32_t host_selection_attempts; // default 1
    uint32_t *status_codes;
    size_t status_code_count;
};

struct hash_policy {
    enum { HASH_HEADER, HASH_COOKIE, HASH_SOURCE_IP, HASH_QUERY } kind;
    bool terminal;
    struct str name, cookie_path;
    int64_t cookie_ttl_s; // -1 = do not generate
};

struct weighted_cluster {
    struct str name;
    uint32_t weight;
    struct header_ops request_ops, response_ops;
    struct str host_rewrite; // empty = none
};

struct mirror {
    struct str cluster;
    struct fraction fraction;
    bool append_shadow;
};

enum route_kind { ROUTE_FORWARD, ROUTE_REDIRECT, ROUTE_DIRECT };

struct route {
    struct str name;
    struct virtual_host *vhost;
    // match
    enum path_match path_kind;
    bool case_sensitive;
    struct str path;
    struct regex *path_re;
    struct header_matcher *headers;
    size_t header_count;
    struct query_matcher *queries;
    size_t query_count;
    bool has_fraction;
    struct fraction fraction;
    bool grpc_only;
    // action
    enum route_kind kind;
    struct str cluster;                 // empty when weighted or by header
    struct str cluster_header;
    struct weighted_cluster *weighted;
    size_t weighted_count;
    uint64_t total_weight;
    int cluster_not_found_status;       // 503 default, 404
    int64_t timeout_ms;                 // -1 = unset (15 s), 0 = none
    int64_t idle_timeout_ms;            // -1 = unset
    int64_t max_stream_ms;              // -1 = unset
    int64_t max_grpc_timeout_ms;        // -1 = unset
    uint64_t grpc_timeout_offset_ms;    // taken off grpc-timeout with max_grpc_timeout
    int64_t grpc_header_max_ms;         // max_stream_duration.grpc_timeout_header_max: -1 = unset, 0 = no limit
    bool has_max_stream;                // max_stream_duration is there, whatever it says
    uint64_t grpc_header_offset_ms;     // max_stream_duration.grpc_timeout_header_offset
    struct retry_policy *retry;         // NULL = none
    bool has_prefix_rewrite;
    struct str prefix_rewrite;
    struct regex *rewrite_re;
    struct str rewrite_sub;
    struct str host_rewrite;            // literal
    bool auto_host_rewrite;
    struct str host_rewrite_header;
    bool append_x_forwarded_host;
    struct hash_policy *hash;
    size_t hash_count;
    struct mirror *mirrors;
    size_t mirror_count;
    struct str *upgrades;               // allowed upgrade types of this route (lower case)
    size_t upgrade_count;
    // redirect
    int redirect_status;
    struct str redirect_scheme, redirect_host, redirect_path, redirect_prefix;
    uint32_t redirect_port;
    bool redirect_https, redirect_strip_query;
    // direct response
    int direct_status;
    struct str direct_body;
    struct header_ops request_ops, response_ops;
    struct ext *per_filter; // typed_per_filter_config: ext.name = filter name, cfg = parsed by the filter's route parser
    size_t per_filter_count;
    struct str decorator;   // operation
    struct str config;      // metadata istio.config, for remoractl
};

struct virtual_host {
    struct str name;
    struct str *domains;
    size_t domain_count;
    struct route *routes;
    size_t route_count;
    struct header_ops request_ops, response_ops;
    struct retry_policy *retry;
    bool include_request_attempt_count, include_attempt_in_response;
    enum { TLS_REQ_NONE, TLS_REQ_EXTERNAL, TLS_REQ_ALL } require_tls;
    struct ext *per_filter;
    size_t per_filter_count;
};

struct domain_index; // built by route_table_seal

struct route_table {
    struct refs refs;
    struct arena arena;
    struct hash128 hash;
    struct str name;
    struct virtual_host *vhosts;
    size_t vhost_count;
    bool ignore_port;            // ignore_port_in_host_matching
    bool most_specific_header_mutations_wins;
    struct header_ops request_ops, response_ops;
    struct domain_index *index;
};
// Zeroed, one reference, empty arena. Fill it, then route_table_seal. Any thread.
struct route_table *route_table_new(void);
struct route_table *route_table_ref(struct route_table *t);
// Any thread; the last one frees. NULL is fine.
void route_table_unref(struct route_table *t);
// Builds the domain index. "Only a single wildcard domain…" and duplicate domains are errors naming both virtual hosts.
int route_table_seal(struct route_table *t, struct err *err);
// Envoy's order: exact, then longest suffix "*.x", then longest prefix "x.*", then "*". Case-insensitive. NULL when none.
const struct virtual_host *route_table_vhost(const struct route_table *t, struct str authority);
// First route whose match fits. NULL when none.
const struct route *virtual_host_route(const struct virtual_host *vh, const struct match_request *r);
// By r->random; the route must be weighted.
const struct weighted_cluster *route_pick_weighted(const struct route *rt, uint64_t random);

#endif
