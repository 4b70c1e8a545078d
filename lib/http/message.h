// SPDX-License-Identifier: Apache-2.0
// What HTTP/1 and HTTP/2 have in common: the head of a message, and how it ends (RFC 9110).
#ifndef LIB_HTTP_MESSAGE_H
#define LIB_HTTP_MESSAGE_H

#include "lib/http/headers.h"

enum http_version { HTTP_10, HTTP_11, HTTP_2 };

// Request head. Views live in the arena of headers. `host` is the authority (Host header or :authority); the header list does
// not hold host, content-length, transfer-encoding or hop-by-hop fields: framing is said by the members here and regenerated
// by the sending codec.
struct http_request {
    struct str method;    // as sent, case-sensitive
    struct str scheme;    // "http"/"https", may be empty in HTTP/1
    struct str host;      // authority with port if any; may be empty for HTTP/1.0
    struct str path;      // origin-form with query, "*" for OPTIONS *; authority-form only for CONNECT (then empty)
    enum http_version version;
    struct headers headers;
    struct str upgrade;   // value of Upgrade when Connection names it (HTTP/1) or :protocol (HTTP/2 extended CONNECT)
    bool expect_continue; // Expect: 100-continue
    bool te_trailers;     // TE named trailers
    int64_t content_length; // -1 = unknown (chunked or HTTP/2 without the field)
    bool end_stream;      // no body follows
    bool capital_names;   // HTTP/1: Host or a framing field began with a capital letter (enum h1_names)
};

struct http_response {
    uint16_t status;
    enum http_version version;
    struct headers headers; // as above
    int64_t content_length; // -1 = unknown
    bool end_stream;        // no body follows
    bool capital_names;     // as above
    struct str upgrade;     // 101: the protocol switched to
};

#endif
