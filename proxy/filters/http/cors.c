// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.cors: its listener configuration is empty; policies stand at routes and virtual hosts.
#include "proxy/filters/http/filters.h"

const struct http_filter_ops http_filter_cors = {
    .ext = { .name = "envoy.filters.http.cors", .type_url = "envoy.extensions.filters.http.cors.v3.Cors" },
};
