// SPDX-License-Identifier: Apache-2.0
// Matchers of filter configurations (protobuf → proxy/model/matcher.h). Control thread; everything in the arena.
#ifndef PROXY_FILTERS_HTTP_PARSE_H
#define PROXY_FILTERS_HTTP_PARSE_H

#include "envoy/type/v3/percent.pb-c.h"
#include "proxy/authz/match_parse.h"

// NULL: 0 % (type.v3.FractionalPercent unset).
struct fraction parse_fraction(const Envoy__Type__V3__FractionalPercent *m);

#endif
