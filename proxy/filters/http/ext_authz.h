// SPDX-License-Identifier: Apache-2.0
// Inside of the HTTP filter ext_authz: its configuration (ext_authz_config.c), questions and answers over HTTP (ext_authz_http.c), what an
// answer makes of messages (ext_authz_apply.c), and the filter itself (ext_authz.c).
#ifndef PROXY_FILTERS_HTTP_EXT_AUTHZ_H
#define PROXY_FILTERS_HTTP_EXT_AUTHZ_H

#include "proxy/authz/check.h"
#include "proxy/authz/grpc_service.h"
#include "proxy/authz/metadata_match.h"
#include "proxy/http/http_filter.h"
#include "proxy/router/side_call.h"

struct authz_names { // type.matcher.v3.ListStringMatcher of header names
    const struct string_matcher *v;
    size_t count;
    bool set; // the list was there, perhaps empty
};

struct authz_body { // BufferSettings
    uint32_t max;
    bool partial;  // allow_partial_message
    bool as_bytes; // pack_as_bytes
};

struct authz_server { // where to ask
    bool http;
    struct grpc_service grpc;
    // HttpService
    struct str cluster, path_prefix;
    uint64_t timeout_ms;
    struct retry_policy *retry;
    struct authz_names allowed;       // authorization_request.allowed_headers
    const struct header_add *add;     // headers_to_add
    size_t add_count;
    struct authz_names upstream, upstream_append, client, client_ok, metadata; // authorization_response
};

struct authz_spaces { // namespaces of metadata
    const struct str *v;
    size_t count;
};

struct authz_cfg { // in the listener's arena
    struct authz_server server;
    bool failure_mode_allow, failure_mode_header;
    bool has_body;
    struct authz_body body;
    bool clear_route_cache;
    int status_on_error;
    bool validate;
    struct authz_spaces metadata, route_metadata;
    bool has_enabled;
    struct fraction enabled;
    const struct metadata_match *enabled_metadata; // filter_enabled_metadata; NULL = always
    bool deny_at_disable;
    bool peer_certificate, tls_session;
    struct str stat_suffix;           // "ext_authz" or "ext_authz.PREFIX"
    struct authz_names allowed, disallowed;
    bool charge_cluster;
    bool raw_headers;
    bool take_metadata;
    uint32_t max_denied_body;         // 0 = no limit
    const struct check_pair *labels;  // of the destination
    size_t label_count;
};

struct authz_route { // ExtAuthzPerRoute
    bool disabled;
    const struct check_pair *extensions;
    size_t extension_count;
    bool no_body;                     // disable_request_body_buffering
    bool has_body;
    struct authz_body body;
    const struct authz_server *server; // NULL = the filter's
};

// ---- ext_authz_config.c ----
int ext_authz_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err);
int ext_authz_parse_route(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err);
bool authz_names_match(const struct authz_names *n, struct str name);

// ---- ext_authz_http.c ----
// The question as an HTTP request; false when it cannot be said so (CONNECT has no path). h: initialised, gets the fields.
bool authz_http_request(const struct authz_server *s, struct stream *st, const struct check_http *http, struct headers *h, struct side_request *ret);
// What an HTTP answer means; in the arena.
void authz_http_answer(const struct authz_server *s, const struct side_answer *a, struct arena *arena, struct check_answer *ret);

// ---- ext_authz_apply.c ----
// Whether a name and a value may stand in a message.
bool authz_header_ok(const struct check_header *h);
// False: some of the n is not fit for a message.
bool authz_headers_ok(const struct check_header *v, size_t n);
// Action by action, in Envoy's order; copies into h's arena. req: for requests, whose pseudo fields may be set; NULL for answers.
void authz_headers_apply(const struct check_header *v, size_t n, struct headers *h, struct http_request *req);
// Copies of all that outlives the answer.
struct check_header *authz_headers_keep(const struct check_header *v, size_t n, struct arena *a);

#endif
