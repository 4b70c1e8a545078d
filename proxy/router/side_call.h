// SPDX-License-Identifier: Apache-2.0
// Requests of our own to a cluster by name (authorization servers, key sets, rate limit servers): one HTTP request, or one unary gRPC call on
// top of it. They go through the same balancers, pools, limits and statistics as a client's requests.
//
// Life: side_call_start → exactly one done callback, later and never inside a function of this header, or side_call_cancel before that and no
// callback. The handle is dead as soon as done or cancel returns. All on one worker's thread.
#ifndef PROXY_ROUTER_SIDE_CALL_H
#define PROXY_ROUTER_SIDE_CALL_H

#include "lib/http/grpc_text.h"
#include "proxy/core/stream_info.h"
#include "proxy/core/worker.h"
#include "proxy/model/route_table.h"

enum {
    SIDE_ANSWER_MAX = 1024 * 1024, // bytes of an answer's body, unless the caller says
};

struct side_call;
struct side_grpc;

enum side_failure {
    SIDE_OK,         // an answer came, whole: what its status says is the caller's business
    SIDE_NO_ANSWER,  // no connection, no endpoint, no cluster, or it broke
    SIDE_TIMEOUT,    // not in time
    SIDE_TOO_LARGE,  // more than answer_max bytes
};

// What came; everything lives until done returns.
struct side_answer {
    enum side_failure failure;
    int status;                     // of HTTP; without an answer what a proxy would say in its place (503, 504)
    struct headers *headers;        // never NULL
    const struct headers *trailers; // NULL = none
    struct str body;
    const char *reason;             // failures: stable text, as response code details
    const struct stream_info *info; // of the call: endpoint, flags, times, cluster
    struct arena *arena;            // for the callee's own use until it returns
};

struct side_request {               // read during side_call_start only
    struct str cluster;
    struct str method, path, host;
    const struct headers *headers;  // copied; NULL = none. x-envoy-internal is added
    struct buf *body;               // moved; NULL = none (an empty one says "content-length: 0")
    uint64_t timeout_ms;            // 0 = none
    size_t answer_max;              // 0 = SIDE_ANSWER_MAX
    const struct retry_policy *retry; // copied, but for its lists: core.v3.RetryPolicy has none; NULL = one attempt
    bool grpc;                      // "te: trailers", no content-length
    bool no_envoy_headers;          // no x-envoy-internal
    void (*done)(void *owner, const struct side_answer *a);
    void *owner;
};
// NULL only while the thread ends (after side_call_worker_fini): no callback comes then. Everything else, an unknown cluster too, is told by done.
struct side_call *side_call_start(struct worker *w, const struct side_request *q);
// No callback comes any more. NULL is fine. Inside the call's own done it does nothing.
void side_call_cancel(struct side_call *c);
void side_call_worker_init(void);
// Ends what is still under way on this thread, at its end: callers that are still there hear nothing.
void side_call_worker_fini(void);

// ---- gRPC, unary ----

enum { GRPC_OK = 0, GRPC_CANCELLED = 1, GRPC_RESOURCE_EXHAUSTED = 8 };

struct side_grpc_answer {           // lives until done returns
    int status;                     // grpc-status; GRPC_OK: message is there
    struct str message;             // serialized
    struct str text;                // of a status that is not GRPC_OK: grpc-message as sent (percent-encoded), or ours
    enum side_failure failure;      // SIDE_OK: the status is the server's own word
    const struct side_answer *http;
};

struct side_grpc_request {          // read during side_grpc_start only
    struct str cluster;
    struct str authority;           // empty = the cluster's name
    struct str path;                // "/package.Service/Method"
    struct str message;             // serialized; copied
    const struct headers *metadata; // initial metadata, copied; NULL = none
    uint64_t timeout_ms;            // said as grpc-timeout, and kept here; 0 = none
    size_t answer_max;              // of the message; 0 = SIDE_ANSWER_MAX
    const struct retry_policy *retry; // as for side_request
    bool no_envoy_headers;          // GrpcService.EnvoyGrpc.skip_envoy_headers
    void (*done)(void *owner, const struct side_grpc_answer *a);
    void *owner;
};
// As side_call_start and side_call_cancel.
struct side_grpc *side_grpc_start(struct worker *w, const struct side_grpc_request *q);
void side_grpc_cancel(struct side_grpc *g);

// ---- pure, for the tests ----
// The one message of a unary answer: 5 bytes of head, not compressed, nothing behind it. False: it is not that. An empty body has no message.
bool side_grpc_unframe(struct str body, struct str *ret_message);

#endif
