// SPDX-License-Identifier: Apache-2.0
// What a protocol machine may look at when it writes a request: who we are, what is wanted, what is held.
#ifndef XDS_CLIENT_VIEW_H
#define XDS_CLIENT_VIEW_H

#include "xds-client/store.h"
#include "xds-client/subscription.h"

struct xds_view {
    struct str node;                // packed envoy.config.core.v3.Node
    const struct xds_sub *subs;     // [XDS_TYPE_COUNT]
    const struct xds_store *stores; // [XDS_TYPE_COUNT]
    uint32_t served;                // bit per type: this stream asks for it
};

// Whether the stream has anything to ask for this type: wildcard, or at least one name. A type of names whose set is empty
// cannot be asked for: no names would mean all (DeltaDiscoveryRequest.resource_names_subscribe).
static inline bool xds_view_asks(const struct xds_view *v, enum xds_type t)
{
    return (v->served >> t & 1) && v->subs[t].subscribed && (v->subs[t].wildcard || v->subs[t].names.count);
}

#endif
