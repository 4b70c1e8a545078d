// SPDX-License-Identifier: Apache-2.0
// core.v3.GrpcService of filters that ask a server: which cluster, how long, what is told along. Frozen, in the owner's arena.
#ifndef PROXY_AUTHZ_GRPC_SERVICE_H
#define PROXY_AUTHZ_GRPC_SERVICE_H

#include "envoy/config/core/v3/grpc_service.pb-c.h"
#include "lib/base/err.h"
#include "lib/http/headers.h"
#include "proxy/model/route_table.h"

struct grpc_service {
    struct str cluster;
    struct str authority;            // empty = the cluster's name
    uint64_t timeout_ms;             // 0 = none
    size_t answer_max;               // max_receive_message_length; 0 = not said
    const struct headers *metadata;  // initial_metadata; NULL = none
    struct retry_policy *retry;      // NULL = one attempt
    bool no_envoy_headers;           // skip_envoy_headers
};
// default_ms: the time-out where none is said. 0, or negative with "field: reason": google_grpc, and metadata that is made for each request.
int grpc_service_parse(const Envoy__Config__Core__V3__GrpcService *m, uint64_t default_ms, struct arena *a, struct grpc_service *ret,
                       struct err *err);
// core.v3.RetryPolicy for a side call; NULL gives NULL. "field: reason" of m itself.
int core_retry_parse(const Envoy__Config__Core__V3__RetryPolicy *m, struct arena *a, struct retry_policy **ret, struct err *err);

#endif
