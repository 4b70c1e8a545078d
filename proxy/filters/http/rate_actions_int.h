// SPDX-License-Identifier: Apache-2.0
// What rate_actions_parse.c makes and rate_actions.c runs.
#ifndef PROXY_FILTERS_HTTP_RATE_ACTIONS_INT_H
#define PROXY_FILTERS_HTTP_RATE_ACTIONS_INT_H

#include "lib/net/cidr.h"
#include "proxy/filters/http/parse.h"
#include "proxy/filters/http/rate_actions.h"

struct format;

enum rate_action_kind {
    RA_SOURCE_CLUSTER, RA_DESTINATION_CLUSTER, RA_HEADER, RA_QUERY, RA_REMOTE_ADDRESS, RA_MASKED_ADDRESS, RA_GENERIC, RA_HEADER_MATCH,
    RA_QUERY_MATCH, RA_METADATA, RA_ADDRESS_MATCH,
};

struct rate_action {
    enum rate_action_kind kind;
    struct str key;            // of the entry
    struct str value;          // fixed; source cluster; metadata: default_value
    struct format *format;     // of value, when it has operators
    struct str fallback;       // default_value, when format gives nothing
    struct str name;           // header, query parameter, namespace of metadata
    bool optional;             // skip_if_absent
    bool expect;               // expect_match
    bool of_route;             // metadata of the route, else dynamic metadata
    bool invert;               // address matcher
    uint8_t v4_bits, v6_bits;
    struct header_matcher *headers;
    struct query_matcher *queries;
    size_t match_count;        // of headers or queries
    struct str *path;          // keys of metadata
    size_t path_count;
    struct cidr *ranges;
    size_t range_count;
};

struct rate_rule {
    unsigned stage;
    bool keyed;                // disable_key is set
    struct fraction share;     // what the runtime says about it, else always
    bool done;                 // apply_on_stream_done
    enum rate_limit_headers headers;
    struct rate_action *actions;
    size_t count;
    bool has_hits, negative;
    uint64_t hits;
    struct format *hits_format; // in place of hits
    bool has_override;         // limit.dynamic_metadata
    struct str limit_space;
    struct str *limit_path;
    size_t limit_path_count;
    bool fixed_limit;          // limit.rate_limit
    uint32_t limit_requests;
    int limit_unit;            // type.v3.RateLimitUnit
};

struct rate_limits {
    struct rate_rule *v;
    size_t count;
};

#endif
