// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.rbac, as far as it enforces nothing. Rules are refused: a policy that is not enforced must not look accepted.
#include <errno.h>

#include "envoy/extensions/filters/http/rbac/v3/rbac.pb-c.h"
#include "proxy/filters/http/filters.h"

static int rbac_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    (void)arena;
    const Envoy__Extensions__Filters__Http__Rbac__V3__RBAC *m = msg;
    if (m && (m->rules || m->shadow_rules)) {
        return err_set(err, -ENOTSUP, "%s: HTTP authorization is not built in yet", m->rules ? "rules" : "shadow_rules");
    }
    *ret_cfg = NULL;
    return 0;
}

const struct http_filter_ops http_filter_rbac = {
    .ext = { .name = "envoy.filters.http.rbac", .type_url = "envoy.extensions.filters.http.rbac.v3.RBAC",
             .config_parse = rbac_config_parse },
};
