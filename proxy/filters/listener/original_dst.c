// SPDX-License-Identifier: Apache-2.0
// envoy.filters.listener.original_dst: the local address of a redirected connection is the one it was meant for. Unlike use_original_dst, the
// connection stays with this listener.
#include "lib/net/origdst.h"
#include "proxy/filters/listener/filters.h"

static enum listener_verdict on_accept(struct downstream *d, const void *cfg)
{
    (void)cfg;
    struct addr dst;
    if (!d->restored && origdst_get(d->conn->fd.fd, d->conn->local.family, d->listener->transparent, &dst) == 0) {
        downstream_restore(d, addr_unmap(dst));
    }
    return LF_DONE;
}

const struct listener_filter_ops listener_filter_original_dst = {
    .ext = { .name = "envoy.filters.listener.original_dst",
             .type_url = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" },
    .on_accept = on_accept,
};
