// SPDX-License-Identifier: Apache-2.0
// envoy.filters.listener.original_src: upstream connections leave from the client's address, so that the application sees who it talks to. istiod
// sets it on the inbound listener in TPROXY mode; the mark is what the routing rules of that mode know the answers by (init-net).
#include <errno.h>

#include "envoy/extensions/filters/listener/original_src/v3/original_src.pb-c.h"
#include "proxy/filters/listener/filters.h"

struct original_src_cfg {
    bool bind_port;
    uint32_t mark;
};

static int original_src_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx, (void)err;
    const Envoy__Extensions__Filters__Listener__OriginalSrc__V3__OriginalSrc *m = msg;
    struct original_src_cfg *c = arena_new(arena, struct original_src_cfg);
    if (m) {
        c->bind_port = m->bind_port;
        c->mark = m->mark;
    }
    *ret_cfg = c;
    return 0;
}

static enum listener_verdict on_accept(struct downstream *d, const void *cfg)
{
    const struct original_src_cfg *c = cfg;
    const struct addr *remote = downstream_remote(d);
    if (remote->family == AF_INET || remote->family == AF_INET6) {
        struct upstream_hints *h = downstream_hints(d);
        h->source = *remote;
        h->source.port = c->bind_port ? remote->port : 0;
        h->mark = c->mark;
    }
    return LF_DONE;
}

const struct listener_filter_ops listener_filter_original_src = {
    .ext = { .name = "envoy.filters.listener.original_src",
             .type_url = "envoy.extensions.filters.listener.original_src.v3.OriginalSrc",
             .config_parse = original_src_config_parse },
    .on_accept = on_accept,
};
