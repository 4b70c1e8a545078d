// SPDX-License-Identifier: Apache-2.0
#include "proxy/filters/network/registry.h"

#include "lib/base/check.h"
#include "proxy/filters/network/filters.h"

// One line each. What is not here is refused by name.
static const struct network_filter_ops *const all[] = {
    &network_filter_http_manager,
    &network_filter_tcp_proxy,
    &network_filter_rbac,
    &network_filter_ext_authz,
    &network_filter_local_ratelimit,
    &network_filter_connection_limit,
    &network_filter_sni_cluster,
    &network_filter_istio_stats,
    &network_filter_metadata_exchange,
    &network_filter_mongo_proxy,
    &network_filter_mysql_proxy,
};

const struct network_filter_ops *network_filter_find(struct str name, struct str type_name)
{
    for (size_t i = 0; i < array_len(all); i++) {
        if (type_name.n ? str_is(type_name, all[i]->ext.type_url) : str_is(name, all[i]->ext.name)) {
            return all[i];
        }
    }
    return NULL;
}
