// SPDX-License-Identifier: Apache-2.0
// A cluster's transport sockets → struct transport_cfg: raw or TLS, with a PROXY header before it where upstream_proxy_protocol wraps it.
#include "envoy/extensions/transport_sockets/proxy_protocol/v3/upstream_proxy_protocol.pb-c.h"
#include "lib/net/proxy_header.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"

typedef Envoy__Extensions__TransportSockets__ProxyProtocol__V3__ProxyProtocolUpstreamTransport wrapper_msg;
typedef Envoy__Config__Core__V3__ProxyProtocolConfig config_msg;

enum { TLV_BYTES_MAX = 2048 };

static int build_pass(const Envoy__Config__Core__V3__ProxyProtocolPassThroughTLVs *m, struct transport_cfg *t, struct err *err)
{
    if (!m) {
        return 0;
    }
    t->proxy_pass_all = m->match_type == ENVOY__CONFIG__CORE__V3__PROXY_PROTOCOL_PASS_THROUGH_TLVS__PASS_TLVS_MATCH_TYPE__INCLUDE_ALL;
    for (size_t i = 0; i < m->n_tlv_type; i++) {
        if (m->tlv_type[i] > 255) {
            return cfg_fail(err, "tlv_type", "%u is not a TLV type", m->tlv_type[i]);
        }
        t->proxy_pass[m->tlv_type[i] / 8] |= (uint8_t)(1u << m->tlv_type[i] % 8);
    }
    return 0;
}

static int build_added(struct arena *a, const config_msg *m, struct transport_cfg *t, struct err *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < m->n_added_tlvs; i++) {
        if (m->added_tlvs[i]->format_string) {
            return cfg_fail(err, "added_tlvs", "entry %zu: format_string is not supported; give a value", i);
        }
        if (m->added_tlvs[i]->type > 255 || m->added_tlvs[i]->value.len == 0) {
            return cfg_fail(err, "added_tlvs", "entry %zu: a type up to 255 and a value are needed", i);
        }
        bytes += 3 + m->added_tlvs[i]->value.len;
    }
    if (bytes > TLV_BYTES_MAX) {
        return cfg_fail(err, "added_tlvs", "%zu bytes, at most %d", bytes, TLV_BYTES_MAX);
    }
    char *p = bytes ? arena_alloc(a, bytes) : NULL;
    t->proxy_tlvs = str_n(p, bytes);
    for (size_t i = 0; i < m->n_added_tlvs; i++) {
        size_t n = m->added_tlvs[i]->value.len;
        p[0] = (char)m->added_tlvs[i]->type;
        p[1] = (char)(n >> 8);
        p[2] = (char)n;
        memcpy(p + 3, m->added_tlvs[i]->value.data, n);
        p += 3 + n;
    }
    return 0;
}

static int build_proxy_protocol(struct config_ctx *ctx, const config_msg *m, struct transport_cfg *t, struct err *err)
{
    t->proxy_version = 1;
    if (!m) {
        return 0;
    }
    if (CFG_KNOWN(m, err, "version", "pass_through_tlvs", "added_tlvs")) {
        return err->code;
    }
    t->proxy_version = m->version == ENVOY__CONFIG__CORE__V3__PROXY_PROTOCOL_CONFIG__VERSION__V2 ? 2 : 1;
    if (t->proxy_version == 1 && (m->pass_through_tlvs || m->n_added_tlvs)) {
        return cfg_fail(err, "version", "V1 carries no TLVs; set V2");
    }
    if (build_pass(m->pass_through_tlvs, t, err)) {
        return cfg_in(err, "pass_through_tlvs");
    }
    return build_added(ctx->arena, m, t, err);
}

int build_upstream_socket(struct config_ctx *ctx, const Envoy__Config__Core__V3__TransportSocket *m, struct transport_cfg *t,
                          struct err *err)
{
    struct str type = { 0 };
    if (m && m->config_type_case == ENVOY__CONFIG__CORE__V3__TRANSPORT_SOCKET__CONFIG_TYPE_TYPED_CONFIG) {
        type = pb_any_type_name(m->typed_config, ctx->scratch);
    }
    if (!str_is(type, "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport")) {
        return build_transport_socket(ctx, m, false, &t->tls, err);
    }
    ProtobufCMessage *any = NULL;
    struct err e = { 0 };
    if (pb_any_unpack_whole(m->typed_config, NULL, NULL, ctx->scratch, &any, &e)) {
        return cfg_fail(err, "transport_socket.typed_config", "%.900s", e.msg);
    }
    const wrapper_msg *w = (const void *)any;
    // allow_unspecified_address: a connection made for nobody says so with LOCAL or UNKNOWN in any case.
    if (CFG_KNOWN(w, err, "config", "transport_socket", "allow_unspecified_address", "tlv_as_pool_key") ||
        build_proxy_protocol(ctx, w->config, t, err)) {
        return cfg_in(err, "transport_socket.typed_config");
    }
    if (!w->transport_socket) {
        return cfg_fail(err, "transport_socket.typed_config.transport_socket", "missing");
    }
    return build_transport_socket(ctx, w->transport_socket, false, &t->tls, err) ? cfg_in(err, "transport_socket.typed_config") : 0;
}
