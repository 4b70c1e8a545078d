// SPDX-License-Identifier: Apache-2.0
// Small HTTP/1.1 server for admin, metrics and readiness pages: whole answers, bounded requests, keep-alive. Not for proxying.
// What clients do not read and what they have half sent is bounded in sum: beyond, who reads nothing is cut off, and large answers and requests
// with a body get 503; small answers (probes) always pass.
#ifndef LIB_HTTP_SERVER_H
#define LIB_HTTP_SERVER_H

#include "lib/http/message.h"
#include "lib/base/buf.h"
#include "lib/net/addr.h"
#include "lib/event/loop.h"

struct http_server;
struct http_server_later;

enum { HTTP_SERVER_BODY_MAX = 1024 * 1024, HTTP_SERVER_CONNS_MAX = 256, HTTP_SERVER_IDLE_MS = 60000,
       HTTP_SERVER_UNREAD_MAX = 16 * 1024 * 1024, HTTP_SERVER_BODIES_MAX = 8 * 1024 * 1024, HTTP_SERVER_STALE_MS = 2000 };

struct http_server_req {
    const struct http_request *req; // borrowed during the handler
    struct str path;                // without query
    struct str query;               // behind '?', may be empty
    struct buf *body;               // whole body
    struct arena *arena;            // dies after the answer was written
    struct addr peer;
    struct client *client;          // the server's own
};
struct http_server_resp {
    int status;                // default 200
    const char *content_type;  // default "text/plain; charset=UTF-8"
    struct buf body;           // taken
    struct headers headers;    // extra ones
    bool close;                // close the connection afterwards
    void (*after)(void *arg);  // called once the answer has left or the client is gone (quitquitquit); may be NULL; closes
    void *after_arg;
};
// Listens on a (port 0: any; a Unix path gets unix_mode and is removed by http_server_free). handler runs on the loop's thread and
// answers at once; it may free the server. NULL + err when the address cannot be had.
struct http_server *http_server_new(struct loop *l, const struct addr *a, int unix_mode,
                                    void (*handler)(void *arg, struct http_server_req *q, struct http_server_resp *r), void *arg,
                                    struct err *err);
// For a handler that cannot answer at once: what it puts into its response is ignored, http_server_answer gives the answer. Until then the client's
// time-out does not run; it may go away, and the server with it.
struct http_server_later *http_server_later(struct http_server_req *q);
// On the loop's thread, once: sends r to the client if it is still there, takes r->body and frees t.
void http_server_answer(struct http_server_later *t, struct http_server_resp *r);
// The address really bound (port 0 asked).
struct addr http_server_addr(const struct http_server *s);
// Closes all connections; nothing is called any more. NULL is ignored.
void http_server_free(struct http_server *s);
// Value of query parameter name, percent-decoded into arena; p NULL when absent, empty when without value.
struct str http_query_get(struct str query, const char *name, struct arena *a);

#endif
