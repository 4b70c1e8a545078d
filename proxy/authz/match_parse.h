// SPDX-License-Identifier: Apache-2.0
// Matchers of filter configurations (protobuf → proxy/model/matcher.h). Control thread; everything in the arena.
#ifndef PROXY_AUTHZ_MATCH_PARSE_H
#define PROXY_AUTHZ_MATCH_PARSE_H

#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/type/matcher/v3/string.pb-c.h"
#include "lib/base/err.h"
#include "proxy/model/matcher.h"

// 0, or negative with "field: reason".
int parse_string_matcher(const Envoy__Type__Matcher__V3__StringMatcher *m, struct arena *a, struct string_matcher *ret, struct err *err);
int parse_header_matcher(const Envoy__Config__Route__V3__HeaderMatcher *m, struct arena *a, struct header_matcher *ret, struct err *err);

#endif
