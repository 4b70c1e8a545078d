// SPDX-License-Identifier: Apache-2.0
// envoy.filters.network.sni_cluster: the server name of the TLS hello names the cluster, in place of the one that the TCP proxy is set to. East-west
// gateways of Istio pass mutual TLS through by it ("outbound_.9080_._.reviews.default.svc.cluster.local").
#include "proxy/filters/network/filters.h"

static enum filter_verdict on_connection(struct downstream *d, const void *cfg)
{
    (void)cfg;
    if (downstream_server_name(d).n) {
        downstream_hints(d)->cluster = downstream_server_name(d);
    }
    return FILTER_CONTINUE;
}

const struct network_filter_ops network_filter_sni_cluster = {
    .ext = { .name = "envoy.filters.network.sni_cluster", .type_url = "envoy.extensions.filters.network.sni_cluster.v3.SniCluster" },
    .on_connection = on_connection,
    .observes = true, // who said nothing has no server name: probes go where the TCP proxy is set to
};
