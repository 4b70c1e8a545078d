// SPDX-License-Identifier: Apache-2.0
// envoy.filters.listener.http_inspector: finds plain HTTP and says so as application protocol "http/1.0", "http/1.1" or "h2c".
#include "proxy/filters/listener/filters.h"
#include "proxy/filters/listener/http_peek.h"

static enum listener_verdict on_accept(struct downstream *d, const void *cfg)
{
    (void)cfg;
    return d->tls_hello ? LF_DONE : LF_NEED_BYTES;
}

static const struct str http_10 = STR_INIT("http/1.0"), http_11 = STR_INIT("http/1.1"), h2c = STR_INIT("h2c");

static enum listener_verdict found(struct downstream *d, const struct str *protocol)
{
    d->alpn = protocol;
    d->alpn_count = 1;
    return LF_DONE;
}

static enum listener_verdict on_bytes(struct downstream *d, const void *cfg, struct str bytes, bool eof, size_t *ret_consumed)
{
    (void)cfg, (void)eof, (void)ret_consumed;
    switch (http_peek(bytes)) {
    case HTTP_PEEK_MORE:
        return LF_NEED_BYTES;
    case HTTP_PEEK_10:
        return found(d, &http_10);
    case HTTP_PEEK_11:
        return found(d, &http_11);
    case HTTP_PEEK_2:
        return found(d, &h2c);
    case HTTP_PEEK_NOT_HTTP:
        break;
    }
    return LF_DONE;
}

const struct listener_filter_ops listener_filter_http_inspector = {
    .ext = { .name = "envoy.filters.listener.http_inspector",
             .type_url = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" },
    .sniffs = true,
    .on_accept = on_accept,
    .on_bytes = on_bytes,
    .max_bytes = HTTP_PEEK_BYTES_MAX,
};
