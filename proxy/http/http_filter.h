// SPDX-License-Identifier: Apache-2.0
// HTTP filters: run on each request in declared order, on each response in reverse order. The last one is terminal (the router).
#ifndef PROXY_HTTP_HTTP_FILTER_H
#define PROXY_HTTP_HTTP_FILTER_H

#include "lib/http/message.h"
#include "proxy/core/ext.h"
#include "proxy/http/stream.h"

enum http_filter_status {
    HF_CONTINUE,
    HF_STOP, // the filter will call stream_continue_request(s, this filter) or stream_local_reply later (or has replied)
};

struct http_filter { // one instance on one stream, in the stream's arena
    const struct http_filter_ops *ops;
    const void *cfg;        // listener's
    const struct ext *ext;  // as configured
    struct stream *stream;
    uint16_t index;         // position in the chain
    void *state;            // ops->state_size bytes, zeroed
};

// Unset events pass through.
struct http_filter_ops {
    struct ext_ops ext; // first
    bool terminal;
    // Configuration in typed_per_filter_config (route, virtual host); NULL = such a configuration is refused.
    const char *route_type_url;
    int (*route_config_parse)(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err);
    size_t state_size;
    enum http_filter_status (*on_request)(struct http_filter *f, struct http_request *req);
    // Body. The filter may change data; what is left is passed on. end: last.
    enum http_filter_status (*on_request_data)(struct http_filter *f, struct buf *data, bool end);
    void (*on_request_trailers)(struct http_filter *f, struct headers *trailers);
    // Response head on its way to the client (also local replies).
    void (*on_response)(struct http_filter *f, struct http_response *resp);
    void (*on_response_data)(struct http_filter *f, struct buf *data, bool end);
    void (*on_response_trailers)(struct http_filter *f, struct headers *trailers);
    // Trailers said as body, for clients that cannot hear any: what it appends to ret is the message's last data, and no trailers follow.
    // False: they stay trailers. Called in place of on_response_trailers.
    bool (*response_trailers_as_data)(struct http_filter *f, const struct headers *trailers, struct buf *ret);
    // The terminal filter only: downstream back-pressure.
    void (*on_downstream_high)(struct http_filter *f);
    void (*on_downstream_low)(struct http_filter *f);
    // The stream ends (complete or reset): give everything back. Always called once after on_request.
    void (*on_destroy)(struct http_filter *f);
};

#endif
