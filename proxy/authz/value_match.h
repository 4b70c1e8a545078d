// SPDX-License-Identifier: Apache-2.0
// type.matcher.v3.ValueMatcher: conditions on google.protobuf.Value. Frozen, pure, any thread.
#ifndef PROXY_AUTHZ_VALUE_MATCH_H
#define PROXY_AUTHZ_VALUE_MATCH_H

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "proxy/core/metadata.h"
#include "proxy/model/matcher.h"

enum { VALUE_MATCH_DEPTH_MAX = 16 };

struct value_match {
    enum { VM_NULL, VM_NUMBER, VM_RANGE, VM_STRING, VM_BOOL, VM_PRESENT, VM_ELEMENT, VM_OR } kind;
    bool truth;                  // BOOL, PRESENT
    double from, to;             // NUMBER: from; RANGE: [from, to)
    struct string_matcher string;
    struct value_match *inner;   // ELEMENT: one; OR: count; arena
    size_t count;
};

// msg: Envoy__Type__Matcher__V3__ValueMatcher. 0, or negative with "field: reason".
int value_match_parse(const void *msg, struct arena *a, struct value_match *ret, struct err *err);
// v of kind MV_NONE: there is no such value.
bool value_match(const struct value_match *m, const struct metadata_value *v);

#endif
