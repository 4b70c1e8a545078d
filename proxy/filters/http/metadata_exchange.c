// SPDX-License-Identifier: Apache-2.0
// istio.metadata_exchange on HTTP. Peers' labels are telemetry and not read yet; but the headers that carry them are between proxies only:
// they are taken off before an application sees them, in the directions that the configuration names.
#include "io/istio/http/peer_metadata/config.pb-c.h"
#include "proxy/filters/http/filters.h"

struct mx_cfg {
    bool strip_request;  // downstream_discovery has istio_headers
    bool strip_response; // upstream_discovery has istio_headers
};

static bool by_headers(Io__Istio__Http__PeerMetadata__Config__DiscoveryMethod *const *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (v[i]->method_specifier_case == IO__ISTIO__HTTP__PEER_METADATA__CONFIG__DISCOVERY_METHOD__METHOD_SPECIFIER_ISTIO_HEADERS) {
            return true;
        }
    }
    return false;
}

static int mx_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    (void)err;
    const Io__Istio__Http__PeerMetadata__Config *m = msg;
    struct mx_cfg *c = arena_new(arena, struct mx_cfg);
    if (m) {
        c->strip_request = by_headers(m->downstream_discovery, m->n_downstream_discovery);
        c->strip_response = by_headers(m->upstream_discovery, m->n_upstream_discovery);
    }
    *ret_cfg = c;
    return 0;
}

static void strip(struct headers *h)
{
    headers_remove_id(h, HDR_X_ENVOY_PEER_METADATA);
    headers_remove_id(h, HDR_X_ENVOY_PEER_METADATA_ID);
}

static enum http_filter_status mx_on_request(struct http_filter *f, struct http_request *req)
{
    const struct mx_cfg *c = f->cfg;
    if (c->strip_request) {
        strip(&req->headers);
    }
    return HF_CONTINUE;
}

static void mx_on_response(struct http_filter *f, struct http_response *resp)
{
    const struct mx_cfg *c = f->cfg;
    if (c->strip_response) {
        strip(&resp->headers);
    }
}

const struct http_filter_ops http_filter_metadata_exchange = {
    .ext = { .name = "istio.metadata_exchange", .type_url = "io.istio.http.peer_metadata.Config", .config_parse = mx_config_parse,
             .lenient = true },
    .on_request = mx_on_request,
    .on_response = mx_on_response,
};
