// SPDX-License-Identifier: Apache-2.0
// Small blocking HTTP/1.1 client for the command line and probes: one request, whole answer, bounded. Never on a worker.
#ifndef LIB_HTTP_CLIENT_H
#define LIB_HTTP_CLIENT_H

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/http/message.h"
#include "lib/net/addr.h"

struct http_client_req {
    const char *method;   // "GET"
    struct addr to;
    struct str host;      // Host header
    struct str path;      // with query
    struct str body;
    int timeout_ms;       // whole exchange
    size_t max_bytes;     // of the answer
    struct addr from;     // bound before connecting; family 0: none
    const struct headers *headers; // more fields, or NULL
};
// Status ≥ 100 with *ret_body in the arena, or negative errno + err ("connect to 127.0.0.1:15000: Connection refused").
int http_client_do(const struct http_client_req *q, struct arena *a, struct str *ret_body, struct err *err);
// Whether q->to takes a connection from q->from within q->timeout_ms: 0, or negative errno + err.
int http_client_connect(const struct http_client_req *q, struct err *err);

#endif
