// SPDX-License-Identifier: Apache-2.0
// envoy.filters.listener.tls_inspector: transport protocol, server name and ALPN offer from the ClientHello. What is no TLS stays
// "raw_buffer".
#include <errno.h>

#include "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/filters/listener/filters.h"
#include "proxy/filters/listener/tls_hello.h"

struct tls_inspector_cfg {
    bool close_on_error; // close_connection_on_client_hello_parsing_errors
};

enum { BYTES_MIN = 256, READ_MAX = 65536, HELLO_MAX = 16384 }; // what tls_inspector.v3.TlsInspector allows

static int tls_inspector_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    const Envoy__Extensions__Filters__Listener__TlsInspector__V3__TlsInspector *m = msg;
    struct tls_inspector_cfg *c = arena_new(arena, struct tls_inspector_cfg);
    if (m) {
        if (pb_bool_or(m->enable_ja3_fingerprinting, false) || pb_bool_or(m->enable_ja4_fingerprinting, false)) {
            return err_set(err, -EINVAL, "enable_ja3_fingerprinting: fingerprints are not supported");
        }
        uint32_t first = pb_u32_or(m->initial_read_buffer_size, BYTES_MIN), most = pb_u32_or(m->max_client_hello_size, BYTES_MIN);
        if (first < BYTES_MIN || first > READ_MAX || most < BYTES_MIN || most > HELLO_MAX) {
            return err_set(err, -EINVAL, "initial_read_buffer_size, max_client_hello_size: must be %d to %d, and %d to %d", BYTES_MIN, READ_MAX, BYTES_MIN,
                           HELLO_MAX);
        }
        // initial_read_buffer_size is a hint about Envoy's buffers; max_client_hello_size only lowers a limit that already holds.
        c->close_on_error = m->close_connection_on_client_hello_parsing_errors;
    }
    *ret_cfg = c;
    return 0;
}

static enum listener_verdict on_accept(struct downstream *d, const void *cfg)
{
    (void)d, (void)cfg;
    return LF_NEED_BYTES;
}

static struct str lower_copy(struct arena *a, struct str s)
{
    struct str r = arena_str(a, s);
    for (size_t i = 0; i < r.n; i++) {
        char c = r.p[i];
        ((char *)r.p)[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    return r;
}

static void keep(struct downstream *d, const struct tls_hello *h)
{
    d->tls_hello = true;
    if (h->server_name.n) {
        downstream_found(d)->server_name = lower_copy(downstream_arena(d), h->server_name);
    }
    d->alpn_count = (uint8_t)(h->alpn_count < DOWNSTREAM_ALPN_MAX ? h->alpn_count : DOWNSTREAM_ALPN_MAX);
    struct str *alpn = d->alpn_count ? arena_array(downstream_arena(d), struct str, d->alpn_count) : NULL;
    for (size_t i = 0; i < d->alpn_count; i++) {
        alpn[i] = arena_str(downstream_arena(d), h->alpn[i]);
    }
    d->alpn = alpn;
}

static enum listener_verdict on_bytes(struct downstream *d, const void *cfg, struct str bytes, bool eof, size_t *ret_consumed)
{
    (void)eof, (void)ret_consumed;
    const struct tls_inspector_cfg *c = cfg;
    struct tls_hello h;
    switch (tls_hello_parse(bytes, &h)) {
    case TLS_HELLO_MORE:
        return LF_NEED_BYTES;
    case TLS_HELLO_FOUND:
        keep(d, &h);
        tls_hello_fini(&h);
        return LF_DONE;
    case TLS_HELLO_NOT_TLS:
        break;
    }
    // A handshake record that does not hold together, as opposed to another protocol.
    return c && c->close_on_error && bytes.n && bytes.p[0] == 22 ? LF_CLOSE : LF_DONE;
}

const struct listener_filter_ops listener_filter_tls_inspector = {
    .ext = { .name = "envoy.filters.listener.tls_inspector",
             .type_url = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
             .config_parse = tls_inspector_config_parse },
    .sniffs = true,
    .on_accept = on_accept,
    .on_bytes = on_bytes,
    .max_bytes = TLS_HELLO_WIRE_MAX,
};
