// SPDX-License-Identifier: Apache-2.0
#include "proxy/filters/listener/registry.h"

#include "lib/base/check.h"
#include "proxy/filters/listener/filters.h"

// One line each. What is not here is refused by name.
static const struct listener_filter_ops *const all[] = {
    &listener_filter_original_dst,
    &listener_filter_tls_inspector,
    &listener_filter_http_inspector,
    &listener_filter_original_src,
    &listener_filter_proxy_protocol,
};

const struct listener_filter_ops *listener_filter_find(struct str name, struct str type_name)
{
    for (size_t i = 0; i < array_len(all); i++) {
        if (type_name.n ? str_is(type_name, all[i]->ext.type_url) : str_is(name, all[i]->ext.name)) {
            return all[i];
        }
    }
    return NULL;
}
