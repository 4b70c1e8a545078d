// SPDX-License-Identifier: Apache-2.0
// The HTTP connection manager (http_connection_manager.v3): configuration as the model holds it, and the start of a connection.
#ifndef PROXY_HTTP_MANAGER_H
#define PROXY_HTTP_MANAGER_H

#include "lib/http/h1_parser.h"
#include "lib/http/h2_opts.h"
#include "lib/net/cidr.h"
#include "proxy/listener/downstream.h"
#include "proxy/model/route_table.h"

struct access_log_cfg;
struct http_filter_ops;

enum codec_type { CODEC_AUTO, CODEC_H1, CODEC_H2 };
enum forward_client_cert { FCC_SANITIZE, FCC_FORWARD_ONLY, FCC_APPEND_FORWARD, FCC_SANITIZE_SET, FCC_ALWAYS_FORWARD_ONLY };
enum server_header { SERVER_OVERWRITE, SERVER_APPEND_IF_ABSENT, SERVER_PASS_THROUGH };
enum escaped_slashes { ESC_KEEP, ESC_REJECT, ESC_UNESCAPE_REDIRECT, ESC_UNESCAPE_FORWARD };

struct http_chain {
    struct ext *filters;            // ops are struct http_filter_ops; last is terminal
    size_t count;
};

struct http_upgrade {               // UpgradeConfig
    struct str type;                // "websocket"
    bool enabled;                   // a route may say otherwise
    struct http_chain chain;        // in place of the connection manager's; count 0 = that
};

// How answers that are made here look (local_reply_config): the first mapper whose filter takes the answer may change it, then comes a format.
struct local_replies { // in the listener's arena
    struct local_reply_mapper {
        struct access_log_filter *filter;
        uint16_t status;            // 0 = as it is
        bool has_body;
        struct str body;
        struct header_add *adds;
        size_t add_count;
        struct format *format;      // of the body; NULL = that of the whole
        struct str type;            // content-type of what format makes
    } *mappers;
    size_t mapper_count;
    struct format *format;          // NULL = the body as it is
    struct str type;
};

struct http_manager_cfg { // in the listener's arena
    enum codec_type codec;
    struct str stat_prefix;
    struct str rds_name;            // empty = inline
    struct route_table *inline_routes; // ref by the listener's arena
    struct http_chain chain;        // http_filters
    struct h1_limits h1;            // sizes count for HTTP/2 too
    enum h1_names h1_names;         // header_key_format
    struct str http10_host;         // default_host_for_http_10; empty = a request of HTTP/1.0 without Host is refused
    uint32_t h2_max_streams, h2_stream_window, h2_conn_window; // http2_protocol_options; 0 = default
    struct h2_opts h2;
    bool h2_allow_connect;          // extended CONNECT (RFC 8441)
    bool normalize_path, merge_slashes;
    enum escaped_slashes escaped_slashes;
    bool use_remote_address, skip_xff_append;
    uint32_t xff_trusted_hops;
    struct cidr *internal;          // internal_address_config: who counts as one of us; none = nobody
    size_t internal_count;
    bool internal_unix;
    struct ip_detection {           // original_ip_detection_extensions, tried in order
        struct str header;          // custom_header; empty = xff
        bool trust;                 // custom_header: the address may make the request internal
        int reject_status;          // custom_header: 0 = none
        uint32_t hops;              // xff
        struct cidr *cidrs;         // xff: proxies that are passed over in place of a number of hops
        size_t cidr_count;
    } *detections;
    size_t detection_count;
    struct str scheme_overwrite;    // scheme_header_transformation; empty = none
    struct str user_agent, user_node; // add_user_agent: the node's cluster and id; empty = no
    bool generate_request_id, preserve_external_request_id, always_set_request_id_in_response;
    bool proxy_100_continue;
    enum forward_client_cert forward_client_cert;
    struct { bool subject, cert, chain, dns, uri; } set_client_cert;
    struct str server_name;         // "envoy" by default
    enum server_header server_header;
    struct str via;
    uint64_t stream_idle_ms;        // default 300000, 0 = none
    uint64_t request_timeout_ms;    // whole request, 0 = none
    uint64_t request_headers_ms;    // default 30000, 0 = none
    // Slow bodies: of a body of known length at least body_min_bytes must come in each body_window_ms, but when we do not read or the client
    // may wait for 100 Continue. Default 3000 bytes in 30 s; 0 = no such limit (request_timeout is set).
    uint64_t body_window_ms, body_min_bytes;
    uint64_t idle_ms;               // connection without streams; default 3600000
    uint64_t max_connection_ms;     // 0 = none
    uint64_t max_stream_ms;         // 0 = none
    uint64_t drain_ms;              // default 5000
    uint32_t max_requests_per_connection; // 0 = none
    struct http_upgrade *upgrades;
    size_t upgrade_count;
    bool strip_any_host_port, strip_matching_host_port, strip_trailing_host_dot;
    bool headers_with_underscores_reject, headers_with_underscores_drop;
    bool stream_error_on_invalid_http;
    struct access_log_cfg **access_logs;
    size_t access_log_count;
    bool append_x_forwarded_port;
    const struct local_replies *local_replies; // NULL = as they are
};

// ---- headers_in.c: pure ----
enum path_verdict { PATH_OK, PATH_REFUSED, PATH_REDIRECTED };
// Normalises req->path as configured (normalize_path, merge_slashes, path_with_escaped_slashes_action), so that policy, routes and upstream
// see one spelling. PATH_REDIRECTED: answer 307 with req->path as the location.
enum path_verdict request_path_prepare(struct http_request *req, const struct http_manager_cfg *cfg);
// Host: port and trailing dot as configured.
void request_host_prepare(struct http_request *req, const struct http_manager_cfg *cfg, uint16_t local_port);

// Terminal network filter "envoy.filters.network.http_connection_manager" calls this (proxy/filters/network/http_manager.c).
void http_manager_start(struct downstream *d, const struct http_manager_cfg *cfg);
// Per-worker state (date string, free lists).
void http_worker_init(struct worker *w);
void http_worker_fini(struct worker *w);

#endif
