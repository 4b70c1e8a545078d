// SPDX-License-Identifier: Apache-2.0
// The state-of-the-world variant of ADS as a pure state machine for one stream: bytes in, bytes out, no socket, clock or thread.
// envoy.service.discovery.v3.AggregatedDiscoveryService.StreamAggregatedResources. Only CDS, LDS (and the singletons) are full
// sets here; istiod's EDS answers hold the changed assignments alone, so for other types absence means nothing.
#ifndef XDS_CLIENT_SOTW_H
#define XDS_CLIENT_SOTW_H

#include "xds-client/response.h"
#include "xds-client/view.h"

struct xds_sotw_type {
    bool requested;     // asked for on this stream
    struct str version; // owned; last accepted version_info, kept over streams
    struct str nonce;   // owned; of the last response on this stream
    struct map sent;    // names of the last request; empty = wildcard or none
    bool wildcard;
};

// A zeroed struct is a valid machine before its first stream.
struct xds_sotw {
    struct xds_sotw_type types[XDS_TYPE_COUNT];
    bool node_sent;
    uint64_t ignored; // responses for a type unknown or not asked for on this stream
};

void xds_sotw_fini(struct xds_sotw *s);
// A new stream begins: nonces are forgotten, versions kept, the node is sent with the first request.
void xds_sotw_start(struct xds_sotw *s);
// The next request there is to send, appended to out as a packed DiscoveryRequest; false when there is none.
bool xds_sotw_next(struct xds_sotw *s, const struct xds_view *v, struct buf *out);
// As xds_delta_decode, for a DiscoveryResponse.
int xds_sotw_decode(struct xds_sotw *s, struct str bytes, struct arena *a, struct xds_response *ret, struct err *err);
// Appends the ACK (nack empty: the version is taken over) or NACK (the old version is repeated) of a decoded response, with all
// names the server knows of. Changed names follow in a request of their own (xds_sotw_next): istiod reads nothing but the
// error of a NACK.
void xds_sotw_answer(struct xds_sotw *s, const struct xds_view *v, const struct xds_response *r, struct str nack, struct buf *out);

#endif
