// SPDX-License-Identifier: Apache-2.0
// envoy.filters.network.http_connection_manager: the registry's line for proxy/http. proxy/config builds its configuration itself, because
// it needs the route table and the HTTP filters.
#include "proxy/http/manager.h"
#include "proxy/filters/network/filters.h"

static void start(struct downstream *d, const void *cfg)
{
    http_manager_start(d, cfg);
}

const struct network_filter_ops network_filter_http_manager = {
    .ext = { .name = "envoy.filters.network.http_connection_manager",
             .type_url = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" },
    .terminal = true,
    .start = start,
};
