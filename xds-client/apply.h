// SPDX-License-Identifier: Apache-2.0
// One response of any source → the sink → the store. Pure: no I/O, no clock. What did not change never reaches the sink.
#ifndef XDS_CLIENT_APPLY_H
#define XDS_CLIENT_APPLY_H

#include "xds-client/response.h"
#include "xds-client/store.h"
#include "xds-client/subscription.h"

struct xds_apply {
    struct xds_store *store;
    struct xds_sub *sub; // resources that are not wanted are passed over; NULL = everything is (static resources)
    int origin;          // XDS_ORIGIN_*
    bool first;          // no response of this type came before: the sink hears of it even when nothing changed
    uint64_t wall_ms;
    xds_sink_fn sink;
    void *arg;
};

// Shows the sink what changed, keeps what it accepted, remembers what it or the decoder refused (r->items[].refused, r->refused).
// Nothing is done for a response with r->error. The store changes after the sink returned. The sink may subscribe.
void xds_apply(const struct xds_apply *ap, struct xds_response *r, struct arena *a);

#endif
