// SPDX-License-Identifier: Apache-2.0
// The filters of this folder, one line per file, for registry.c and for tests.
#ifndef PROXY_FILTERS_HTTP_FILTERS_H
#define PROXY_FILTERS_HTTP_FILTERS_H

#include "proxy/http/http_filter.h"

extern const struct http_filter_ops http_filter_alpn;
extern const struct http_filter_ops http_filter_cors;
extern const struct http_filter_ops http_filter_ext_authz;
extern const struct http_filter_ops http_filter_fault;
extern const struct http_filter_ops http_filter_grpc_stats;
extern const struct http_filter_ops http_filter_grpc_web;
extern const struct http_filter_ops http_filter_istio_stats;
extern const struct http_filter_ops http_filter_local_ratelimit;
extern const struct http_filter_ops http_filter_jwt_authn;
extern const struct http_filter_ops http_filter_metadata_exchange;
extern const struct http_filter_ops http_filter_ratelimit;
extern const struct http_filter_ops http_filter_rbac;
extern const struct http_filter_ops http_filter_router;

#endif
