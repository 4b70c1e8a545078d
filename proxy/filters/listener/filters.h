// SPDX-License-Identifier: Apache-2.0
// What registry.c lists.
#ifndef PROXY_FILTERS_LISTENER_FILTERS_H
#define PROXY_FILTERS_LISTENER_FILTERS_H

#include "proxy/listener/listener_filter.h"

extern const struct listener_filter_ops listener_filter_original_dst, listener_filter_tls_inspector, listener_filter_http_inspector,
    listener_filter_original_src, listener_filter_proxy_protocol;

#endif
