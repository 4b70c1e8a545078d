// SPDX-License-Identifier: Apache-2.0
// A route configuration (route.v3.RouteConfiguration): frozen, counted; pure look-up. A stream holds a reference.
#ifndef PROXY_MODEL_ROUTE_TABLE_H
#define PROXY_MODEL_ROUTE_TABLE_H

#include "lib/base/hash.h"
#include "lib/http/message.h"
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
// What add[0..n) of one level make of h, as Envoy does it: values[i], all worked out before anything changes; then what overwrites, then what is
// added, each in the order of the list. Whether a field exists is asked before, too. An empty value counts only when its entry keeps those. values are
// used up. req: host and path can be set by ":authority", "host", ":path"; NULL for answers.
void header_adds_take(const struct header_add *add, struct str *values, size_t n, struct headers *h, struct http_request *req);
struct header_ops { // request or response side; a level's removals come before its values are worked out
    struct header_add *add;
    size_t add_count;
    struct str *remove;
    size_t remove_count;
};
// Takes out what the level removes; the host is never one of these.
void header_ops_remove(const struct header_ops *ops, struct headers *h);


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
    bool omit_canary;         // omit_canary_hosts predicate
    bool avoid_previous_priorities; // previous_priorities
    uint32_t priority_update_frequency; // attempts after which the tried priorities are taken off; default 1
    uint32_t host_selection_attempts; // default 1
    uint32_t *status_codes;
    size_t status_code_count;
    struct header_matcher *headers;         // retriable_headers: of an answer, any
    size_t header_count;
    struct header_matcher *request_headers; // retriable_request_headers: any, or no retry at all; none = always
    size_t request_header_count;
    struct reset_header {                   // rate_limited_retry_back_off: answers say when to come back
        struct str name;
        bool unix_time;                     // a point in time, else seconds from now
    } *reset_headers;
    size_t reset_header_count;
    uint64_t reset_max_ms;                  // a longer wait is not believed
};

enum { REDIRECT_CODES_MAX = 8 };
struct internal_redirect { // route.v3.InternalRedirectPolicy
    uint32_t max;             // redirects followed, default 1
    uint16_t codes[REDIRECT_CODES_MAX];
    size_t code_count;        // default: 302
    bool cross_scheme;
    bool previous_routes;     // predicate: no route twice
    bool safe_cross_scheme;   // predicate: http may not lead to https
    struct str *allowed;      // predicate: names of the routes it may lead to
    size_t allowed_count;
    bool allow_list;
    struct str *copy;         // response_headers_to_copy: into the next request
    size_t copy_count;
};

struct hash_policy {
    enum { HASH_HEADER, HASH_COOKIE, HASH_SOURCE_IP, HASH_QUERY } kind;
    bool terminal;
    struct str name, cookie_path;
    int64_t cookie_ttl_s; // -1 = do not generate
    struct str cookie_attributes; // "; SameSite=Strict; Secure", for generated ones
    struct regex *rewrite;     // of a header's value; NULL = as it is
    struct str rewrite_sub;
};

struct weighted_cluster {
    struct str name;
    uint32_t weight;
    struct header_ops request_ops, response_ops;
    struct str host_rewrite; // empty = none
    struct str cluster_header; // names the cluster in place of name; empty = none
    struct ext *per_filter;
    size_t per_filter_count;
    struct subset_key *subset; // metadata_match, with the route's below it
    size_t subset_count;
};

struct mirror {
    struct str cluster;
    struct str cluster_header; // names the cluster in place of cluster; empty = none
    struct str host;           // host_rewrite_literal; empty = none
    struct fraction fraction;
    bool append_shadow;
};

// One criterion of metadata_match, namespace "envoy.lb": sorted by key.
struct subset_key {
    struct str key, value; // value in canonical text: strings as they are, numbers and bools as JSON
};

struct rate_limits; // proxy/filters/http/rate_actions.h

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
    bool any_path; // set by route_table_seal: the prefix "/" without any further condition
    struct query_matcher *cookies;      // route.v3.CookieMatcher: name and value
    bool *cookie_inverts;
    size_t cookie_count;
    struct fact_matcher {               // dynamic_metadata
        struct str space, key;
        struct str *path;               // several keys; NULL = only key
        size_t path_count;
        bool invert, present_only, want_present;
        struct string_matcher string;
    } *facts;
    size_t fact_count;
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
    struct regex *host_rewrite_re;      // host_rewrite_path_regex: of the path
    struct str host_rewrite_sub;
    bool append_x_forwarded_host;
    bool hedge;                         // hedge_policy.hedge_on_per_try_timeout
    bool high_priority;                 // priority: HIGH
    bool has_buffer_limit;
    uint64_t buffer_limit;              // request_body_buffer_limit or per_request_buffer_limit_bytes
    struct internal_redirect *redirects; // NULL = answers with redirects are the client's
    struct subset_key *subset;          // metadata_match
    size_t subset_count;
    struct hash_policy *hash;
    size_t hash_count;
    struct mirror *mirrors;
    size_t mirror_count;
    struct str *upgrades;               // allowed upgrade types of this route (lower case)
    size_t upgrade_count;
    struct str *upgrades_off;           // those that the route switches off, whatever the listener says
    size_t upgrade_off_count;
    bool connect_terminate;             // CONNECT ends here; its payload goes to the cluster as it is
    bool connect_post;                  // POST is taken for CONNECT (allow_post)
    uint8_t connect_proxy_version;      // of the PROXY header ahead of the payload, 0 = none
    // redirect
    int redirect_status;
    struct str redirect_scheme, redirect_host, redirect_path, redirect_prefix;
    struct format *redirect_format;     // path_rewrite: makes redirect_path; NULL = none
    uint32_t redirect_port;
    bool redirect_https, redirect_strip_query;
    // direct response
    int direct_status;
    struct str direct_body;
    struct format *direct_format;       // body_format; NULL = direct_body as it is
    struct str direct_type;             // content-type of that
    struct header_ops request_ops, response_ops;
    struct ext *per_filter; // typed_per_filter_config: ext.name = filter name, cfg = parsed by the filter's route parser
    size_t per_filter_count;
    struct str decorator;   // operation
    struct str metadata;    // see proxy/core/metadata.h
    struct str stat_name;   // "VIRTUAL HOST.route.STAT_PREFIX"; empty = not counted by itself
    const struct rate_limits *rate_limits; // of the action; NULL = none
    bool include_vh_rate_limits;           // the virtual host's apply as well
};

struct virtual_cluster { // route.v3.VirtualCluster: requests that are counted together
    struct str name, stat_name; // stat_name: "VIRTUAL HOST.vcluster.NAME"
    struct header_matcher *headers; // all; none = every request
    size_t header_count;
};

struct virtual_host {
    struct str name;
    struct str *domains;
    size_t domain_count;
    struct route *routes;
    size_t route_count;
    struct header_ops request_ops, response_ops;
    struct retry_policy *retry;
    bool include_request_attempt_count, include_attempt_in_response, include_is_timeout_retry;
    bool hedge;                  // for routes without a hedge_policy
    bool has_buffer_limit;       // for routes that say none
    uint64_t buffer_limit;
    enum { TLS_REQ_NONE, TLS_REQ_EXTERNAL, TLS_REQ_ALL } require_tls;
    struct str metadata;         // see proxy/core/metadata.h
    struct virtual_cluster *clusters; // in order, the last one takes the rest ("other"); none configured: none
    size_t cluster_count;
    uint32_t direct_max;         // max_direct_response_body_size_bytes of the table
    struct ext *per_filter;
    size_t per_filter_count;
    const struct rate_limits *rate_limits; // NULL = none
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
    struct str *internal_only;   // internal_only_headers: taken from external requests
    size_t internal_only_count;
    struct ext *per_filter;      // typed_per_filter_config of the table
    size_t per_filter_count;
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
// Whether the match of one route, wherever it stands, fits.
bool route_match(const struct route *rt, const struct match_request *r);
// For filters whose rules have a route.v3.RouteMatch (msg): its part of *ret, in a. 0, or negative with "match.field: reason". Set by proxy/config.
struct config_ctx;
struct err;
extern int (*config_route_match)(struct config_ctx *ctx, const void *msg, struct arena *a, struct route *ret, struct err *err);
// First route whose match fits. NULL when none.
const struct route *virtual_host_route(const struct virtual_host *vh, const struct match_request *r);
// Bits of a comma-separated list ("5xx,reset"); words without a meaning are passed over, as in Envoy.
uint32_t retry_on_parse(struct str list);
// The operations on answers of w (NULL = none), route, virtual host and table, into ret in the order in which they are applied: the level that is
// evaluated last wins, the table's by default, the route's with most_specific_header_mutations_wins. How many.
enum { HEADER_LEVELS = 4 };
size_t header_levels_response(const struct route_table *t, const struct virtual_host *vh, const struct route *rt, const struct weighted_cluster *w,
                              const struct header_ops *ret[HEADER_LEVELS]);
// The virtual cluster of a request; NULL when vh has none.
const struct virtual_cluster *virtual_host_cluster(const struct virtual_host *vh, const struct match_request *r);
// By r->random; the route must be weighted.
const struct weighted_cluster *route_pick_weighted(const struct route *rt, uint64_t random);

#endif
