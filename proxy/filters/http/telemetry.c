// SPDX-License-Identifier: Apache-2.0
// Filters that only measure. They are accepted so that Istio's chains load; what they would count is not built yet, and nothing that
// a request or its answer contains depends on it.
#include "proxy/filters/http/filters.h"

const struct http_filter_ops http_filter_grpc_stats = {
    .ext = { .name = "envoy.filters.http.grpc_stats", .type_url = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig" },
};

const struct http_filter_ops http_filter_istio_stats = {
    .ext = { .name = "istio.stats", .type_url = "stats.PluginConfig" },
};
