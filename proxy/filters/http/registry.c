// SPDX-License-Identifier: Apache-2.0
#include "proxy/filters/http/registry.h"

#include "proxy/filters/http/filters.h"

const struct http_filter_ops *const http_filters[] = {
    &http_filter_cors,
    &http_filter_ext_authz,
    &http_filter_fault,
    &http_filter_grpc_stats,
    &http_filter_grpc_web,
    &http_filter_local_ratelimit,
    &http_filter_ratelimit,
    &http_filter_rbac,
    &http_filter_router,
    &http_filter_alpn,
    &http_filter_jwt_authn,
    &http_filter_metadata_exchange,
    &http_filter_istio_stats,
    NULL,
};

const struct http_filter_ops *http_filter_find(struct str name, struct str type)
{
    for (size_t i = 0; http_filters[i]; i++) {
        const struct ext_ops *e = &http_filters[i]->ext;
        if (type.n ? e->type_url && str_is(type, e->type_url) : str_is(name, e->name)) {
            return http_filters[i];
        }
    }
    return NULL;
}
