// SPDX-License-Identifier: Apache-2.0
// Parts that configurations of several filters have: fields to add, shares that the runtime may override. Control thread; everything in the arena.
#ifndef PROXY_FILTERS_HTTP_PARSE_FIELDS_H
#define PROXY_FILTERS_HTTP_PARSE_FIELDS_H

#include "envoy/config/core/v3/base.pb-c.h"
#include "proxy/core/ext.h"
#include "proxy/model/route_table.h"

// What the runtime has for the key, else the default value.
struct fraction parse_runtime_fraction(const struct config_ctx *ctx, const Envoy__Config__Core__V3__RuntimeFractionalPercent *m);
// Entries of …_headers_to_add (core.v3.HeaderValueOption); field names them in errors: "field[0].header.key: reason".
int parse_header_adds(size_t n, Envoy__Config__Core__V3__HeaderValueOption *const *v, const char *field, struct arena *a, struct header_add **ret,
                      size_t *ret_count, struct err *err);

#endif
