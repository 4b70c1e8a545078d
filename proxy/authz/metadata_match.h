// SPDX-License-Identifier: Apache-2.0
// type.matcher.v3.MetadataMatcher on dynamic metadata, as policies and switches of filters ask for it. Frozen, in the owner's arena.
#ifndef PROXY_AUTHZ_METADATA_MATCH_H
#define PROXY_AUTHZ_METADATA_MATCH_H

#include "proxy/authz/value_match.h"
#include "proxy/core/stream_info.h"

struct metadata_match {
    struct str space;
    const struct str *path;
    size_t path_count;
    struct value_match value;
    bool invert;
};
// msg: Envoy__Type__Matcher__V3__MetadataMatcher. 0, or negative with "field: reason".
int metadata_match_parse(const void *msg, struct arena *a, const struct metadata_match **ret, struct err *err);
bool metadata_match(const struct metadata_match *m, const struct stream_info *info);

#endif
