// SPDX-License-Identifier: Apache-2.0
// Filters that only observe: accepted, and the bytes pass as if they were not there.
//   istio.stats               Istio's TCP metrics; not built yet
//   istio.metadata_exchange   its being there makes proxy/config keep the ALPN istio-peer-exchange; where that is negotiated, tcp_proxy speaks it
//   mongo_proxy, mysql_proxy  protocol statistics
#include <errno.h>

#include "envoy/extensions/filters/network/mongo_proxy/v3/mongo_proxy.pb-c.h"
#include "envoy/tcp/metadataexchange/config/metadata_exchange.pb-c.h"
#include "proxy/filters/network/filters.h"
#include "proxy/filters/network/peer_exchange.h"

const struct network_filter_ops network_filter_istio_stats = {
    .ext = { .name = "istio.stats", .type_url = "stats.PluginConfig" },
    .observes = true,
};

static int mx_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx, (void)arena, (void)ret_cfg;
    const Envoy__Tcp__Metadataexchange__Config__MetadataExchange *m = msg;
    if (m && m->protocol[0] && strcmp(m->protocol, PEER_EXCHANGE_ALPN) != 0) {
        return err_set(err, -EINVAL, "protocol: only " PEER_EXCHANGE_ALPN " is spoken");
    }
    return 0;
}

const struct network_filter_ops network_filter_metadata_exchange = {
    .ext = { .name = "istio.metadata_exchange",
             .type_url = "envoy.tcp.metadataexchange.config.MetadataExchange",
             .config_parse = mx_config_parse },
    .observes = true,
};

// An injected delay would change traffic: refused rather than left out.
static int mongo_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx, (void)arena, (void)ret_cfg;
    const Envoy__Extensions__Filters__Network__MongoProxy__V3__MongoProxy *m = msg;
    return m && m->delay ? err_set(err, -EINVAL, "delay: not supported") : 0;
}

const struct network_filter_ops network_filter_mongo_proxy = {
    .ext = { .name = "envoy.filters.network.mongo_proxy",
             .type_url = "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy",
             .config_parse = mongo_config_parse },
    .observes = true,
};

const struct network_filter_ops network_filter_mysql_proxy = {
    .ext = { .name = "envoy.filters.network.mysql_proxy", .type_url = "envoy.extensions.filters.network.mysql_proxy.v3.MySQLProxy" },
    .observes = true,
};
