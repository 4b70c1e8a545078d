// SPDX-License-Identifier: Apache-2.0
// istio.alpn: what a connection to a TLS upstream offers as ALPN depends on the HTTP version that the upstream speaks, so that an Istio peer
// takes it to an HTTP filter chain. Which version that is, the pool knows.
#include "istio/envoy/config/filter/http/alpn/v2alpha1/config.pb-c.h"
#include "proxy/filters/http/filters.h"

struct alpn_list {
    struct str *v;
    size_t n;
};
struct alpn_cfg {
    struct alpn_list h1, h2;
};

static int alpn_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    (void)err;
    const Istio__Envoy__Config__Filter__Http__Alpn__V2alpha1__FilterConfig *m = msg;
    struct alpn_cfg *c = arena_new(arena, struct alpn_cfg);
    for (size_t i = 0; m && i < m->n_alpn_override; i++) {
        const Istio__Envoy__Config__Filter__Http__Alpn__V2alpha1__FilterConfig__AlpnOverride *o = m->alpn_override[i];
        struct alpn_list *l = &c->h1;
        if (o->upstream_protocol == ISTIO__ENVOY__CONFIG__FILTER__HTTP__ALPN__V2ALPHA1__FILTER_CONFIG__PROTOCOL__HTTP2) {
            l = &c->h2;
        } else if (o->upstream_protocol != ISTIO__ENVOY__CONFIG__FILTER__HTTP__ALPN__V2ALPHA1__FILTER_CONFIG__PROTOCOL__HTTP11) {
            continue; // HTTP/1.0: nothing is sent with it
        }
        l->n = o->n_alpn_override;
        l->v = arena_array(arena, struct str, l->n ? l->n : 1);
        for (size_t k = 0; k < l->n; k++) {
            l->v[k] = arena_str(arena, str_c(o->alpn_override[k]));
        }
    }
    *ret_cfg = c;
    return 0;
}

static enum http_filter_status alpn_on_request(struct http_filter *f, struct http_request *req)
{
    (void)req;
    const struct alpn_cfg *c = f->cfg;
    if (c->h1.n) {
        f->stream->alpn_override = c->h1.v;
        f->stream->alpn_override_count = c->h1.n;
    }
    if (c->h2.n) {
        f->stream->alpn_override_h2 = c->h2.v;
        f->stream->alpn_override_h2_count = c->h2.n;
    }
    return HF_CONTINUE;
}

const struct http_filter_ops http_filter_alpn = {
    .ext = { .name = "istio.alpn", .type_url = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
             .config_parse = alpn_config_parse },
    .on_request = alpn_on_request,
};
