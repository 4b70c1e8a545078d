// SPDX-License-Identifier: Apache-2.0
// envoy.filters.network.rbac: authorization is not built yet, so rules are refused: a filter that let everything pass would be a hole. With
// `rules` absent nothing is enforced (`rules: {}` means deny all, and is refused like any other).
#include <errno.h>

#include "envoy/extensions/filters/network/rbac/v3/rbac.pb-c.h"
#include "proxy/filters/network/filters.h"

static int rbac_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx, (void)arena, (void)ret_cfg;
    const Envoy__Extensions__Filters__Network__Rbac__V3__RBAC *m = msg;
    return m && m->rules ? err_set(err, -EINVAL, "rules: authorization of connections is not supported yet") : 0;
}

const struct network_filter_ops network_filter_rbac = {
    .ext = { .name = "envoy.filters.network.rbac",
             .type_url = "envoy.extensions.filters.network.rbac.v3.RBAC",
             .config_parse = rbac_config_parse },
};
