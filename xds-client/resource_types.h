// SPDX-License-Identifier: Apache-2.0
// What the protocol machines know of each resource type, from resource_types.def.
#ifndef XDS_CLIENT_RESOURCE_TYPES_H
#define XDS_CLIENT_RESOURCE_TYPES_H

#include "xds-client/xds_client.h"

struct xds_type_info {
    const char *short_name;
    struct str url;
    bool wildcard;   // no names = everything
    bool full_state; // state of the world: what a response leaves out is gone
};
const struct xds_type_info *xds_type_info(enum xds_type t);
// Types with one nameless message for the whole proxy (NDS, PCDS): the name we give it ("NameTable"); p NULL for other types,
// whose messages all carry their name in field 1.
struct str xds_type_singleton(enum xds_type t);

#endif
