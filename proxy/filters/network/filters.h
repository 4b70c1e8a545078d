// SPDX-License-Identifier: Apache-2.0
// What registry.c lists.
#ifndef PROXY_FILTERS_NETWORK_FILTERS_H
#define PROXY_FILTERS_NETWORK_FILTERS_H

#include "proxy/listener/network_filter.h"

extern const struct network_filter_ops network_filter_http_manager, network_filter_tcp_proxy, network_filter_rbac, network_filter_sni_cluster,
    network_filter_connection_limit, network_filter_local_ratelimit, network_filter_ext_authz;
// telemetry.c: accepted, nothing to do with the bytes.
extern const struct network_filter_ops network_filter_istio_stats, network_filter_metadata_exchange, network_filter_mongo_proxy,
    network_filter_mysql_proxy;

#endif
