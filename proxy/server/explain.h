// SPDX-License-Identifier: Apache-2.0
// Which way a request would take through the configuration in force, and why the other candidates lose. Pure: reads a snapshot.
#ifndef PROXY_SERVER_EXPLAIN_H
#define PROXY_SERVER_EXPLAIN_H

#include "lib/base/json.h"
#include "lib/http/server.h"
#include "proxy/model/snapshot.h"

struct explain_request {
    struct http_request head; // method, scheme, host, path, headers
    uint16_t port;            // of the address
    bool tls;                 // the client speaks TLS itself
    struct addr dst;          // the original destination, family 0 = not known (the name is not resolved)
    struct addr source;       // family 0 = 127.0.0.1
    struct str listener;      // by name; empty = by address
};
// Writes {"steps": [{"step", "name", "verdict": "taken"|"lost"|"note", "why"}…], "result": "…"}. Control thread.
void explain_write(const struct snapshot *s, const struct explain_request *q, struct arena *scratch, struct json_writer *w);

// The admin page /explain: method, url, header (several), dst, source, listener. s NULL: 503.
void explain_page(const struct snapshot *s, struct http_server_req *hq, struct http_server_resp *r);

#endif
