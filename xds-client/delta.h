// SPDX-License-Identifier: Apache-2.0
// The incremental ("delta") variant of ADS as a pure state machine for one stream: bytes in, bytes out, no socket, clock or
// thread. envoy.service.discovery.v3.AggregatedDiscoveryService.DeltaAggregatedResources;
// https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
#ifndef XDS_CLIENT_DELTA_H
#define XDS_CLIENT_DELTA_H

#include "xds-client/response.h"
#include "xds-client/view.h"

struct xds_delta_type {
    bool requested;  // asked for on this stream
    bool wildcard;   // ... with everything
    struct map sent; // names the server holds as subscribed on this stream
};

// A zeroed struct is a valid machine before its first stream.
struct xds_delta {
    struct xds_delta_type types[XDS_TYPE_COUNT];
    bool node_sent;
    uint64_t ignored; // responses for a type unknown or not asked for on this stream
};

void xds_delta_fini(struct xds_delta *d);
// A new stream begins: everything is to be asked for again, the node is sent with the first request.
void xds_delta_start(struct xds_delta *d);
// The next request there is to send, appended to out as a packed DeltaDiscoveryRequest; false when there is none. Types in the
// order of resource_types.def; the first request of a type carries initial_resource_versions of what is held, later ones only
// the difference of names. Never an ACK: nonce empty.
bool xds_delta_next(struct xds_delta *d, const struct xds_view *v, struct buf *out);
// Decodes a DeltaDiscoveryResponse; views in *ret borrow from bytes, arrays from the arena. 0 = to be applied and answered with
// xds_delta_answer; -ENOENT = to be ignored (counted); -EBADMSG = not a response, the stream must be reset.
int xds_delta_decode(struct xds_delta *d, struct str bytes, struct arena *a, struct xds_response *ret, struct err *err);
// Appends the ACK (nack empty) or NACK of a response that was decoded, a packed DeltaDiscoveryRequest without names.
void xds_delta_answer(struct xds_delta *d, const struct xds_view *v, const struct xds_response *r, struct str nack, struct buf *out);

#endif
