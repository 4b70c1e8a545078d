// SPDX-License-Identifier: Apache-2.0
// istio.alpn: what a connection to a TLS upstream offers as ALPN depends on the HTTP version that the upstream speaks, so that an Istio peer
// takes it to an HTTP filter chain. Upstreams speak HTTP/1.1 so far.
#include "istio/envoy/config/filter/http/alpn/v2alpha1/config.pb-c.h"
#include "proxy/filters/http/filters.h"

struct alpn_cfg {
    struct str *v;
    size_t n;
};

static int alpn_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    (void)err;
    const Istio__Envoy__Config__Filter__Http__Alpn__V2alpha1__FilterConfig *m = msg;
    struct alpn_cfg *c = arena_new(arena, struct alpn_cfg);
    for (size_t i = 0; m && i < m->n_alpn_override; i++) {
        const Istio__Envoy__Config__Filter__Http__Alpn__V2alpha1__FilterConfig__AlpnOverride *o = m->alpn_override[i];
        if (o->upstream_protocol != ISTIO__ENVOY__CONFIG__FILTER__HTTP__ALPN__V2ALPHA1__FILTER_CONFIG__PROTOCOL__HTTP11) {
            continue;
        }
        c->n = o->n_alpn_override;
        c->v = arena_array(arena, struct str, c->n ? c->n : 1);
        for (size_t k = 0; k < c->n; k++) {
            c->v[k] = arena_str(arena, str_c(o->alpn_override[k]));
        }
    }
    *ret_cfg = c;
    return 0;
}

static enum http_filter_status alpn_on_request(struct http_filter *f, struct http_request *req)
{
    (void)req;
    const struct alpn_cfg *c = f->cfg;
    if (c->n) {
        f->stream->alpn_override = c->v;
        f->stream->alpn_override_count = c->n;
    }
    return HF_CONTINUE;
}

const struct http_filter_ops http_filter_alpn = {
    .ext = { .name = "istio.alpn", .type_url = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
             .config_parse = alpn_config_parse },
    .on_request = alpn_on_request,
};
