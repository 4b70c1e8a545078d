// SPDX-License-Identifier: Apache-2.0
// What gRPC over HTTP/2 says in header fields (its PROTOCOL-HTTP2 and http-grpc-status-mapping documents). Pure; any thread.
#ifndef LIB_HTTP_GRPC_TEXT_H
#define LIB_HTTP_GRPC_TEXT_H

#include "lib/http/headers.h"

enum grpc_status { // those that we make ourselves
    GRPC_UNKNOWN = 2,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_UNAUTHENTICATED = 16,
};

// Whether a content-type is gRPC's: "application/grpc", alone or followed by '+' or ';'. Not grpc-web.
bool grpc_content_type(struct str value);
// The status that stands for an HTTP status of an answer that is not gRPC.
enum grpc_status grpc_status_of_http(int status);
// "TimeoutValue TimeoutUnit" (1 to 8 digits and one of H M S m u n) in milliseconds, parts of one rounded up. False when it is anything else.
bool grpc_timeout_parse(struct str value, uint64_t *ret_ms);
// The same the other way: milliseconds as the finest unit in which 8 digits hold them. In the arena.
struct str grpc_timeout_text(uint64_t ms, struct arena *a);
// A text as Status-Message: percent-encoded except printable ASCII without '%'. In the arena; empty when its limit is hit.
struct str grpc_message_encode(struct str text, struct arena *a);

#endif
