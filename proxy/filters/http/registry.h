// SPDX-License-Identifier: Apache-2.0
// HTTP filters that exist: one file and one line in registry.c each. What is not here is refused by name by the configuration.
#ifndef PROXY_FILTERS_HTTP_REGISTRY_H
#define PROXY_FILTERS_HTTP_REGISTRY_H

#include "proxy/http/http_filter.h"

// In order of canonical names; NULL ends it.
extern const struct http_filter_ops *const http_filters[];
// By the type of the configuration message ("envoy.extensions.filters.http.router.v3.Router", without "type.googleapis.com/") when
// type is not empty, as Envoy does; by canonical name otherwise. NULL: unknown.
const struct http_filter_ops *http_filter_find(struct str name, struct str type);

#endif
