// SPDX-License-Identifier: Apache-2.0
// envoy.filters.listener.proxy_protocol: takes a PROXY header off the front of the connection; its addresses are the connection's from then on.
// Whoever can reach such a port can claim any address: it is for ports that only a load balancer reaches.
#include <errno.h>

#include "envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.pb-c.h"
#include "lib/base/base64.h"
#include "lib/base/log.h"
#include "lib/net/proxy_header.h"
#include "proxy/filters/listener/filters.h"

enum { TLV_FACTS_MAX = 64 }; // TLVs of one header that rules look at

typedef Envoy__Extensions__Filters__Listener__ProxyProtocol__V3__ProxyProtocol proxy_protocol_msg;

struct tlv_rule { // rules
    uint8_t type;
    bool base64;
    struct str space, key;
};

struct proxy_protocol_cfg {
    struct tlv_rule *rules;
    size_t rule_count;
    bool allow_without; // allow_requests_without_proxy_protocol
    bool refuse[3];     // disallowed_versions, by version
    bool keep_tlvs, keep_all;
    uint8_t keep[32]; // pass_through_tlvs: bit set of types
};

static int parse_pass_through(const Envoy__Config__Core__V3__ProxyProtocolPassThroughTLVs *m, struct proxy_protocol_cfg *c, struct err *err)
{
    if (!m) {
        return 0;
    }
    c->keep_tlvs = true;
    c->keep_all = m->match_type == ENVOY__CONFIG__CORE__V3__PROXY_PROTOCOL_PASS_THROUGH_TLVS__PASS_TLVS_MATCH_TYPE__INCLUDE_ALL;
    for (size_t i = 0; i < m->n_tlv_type; i++) {
        if (m->tlv_type[i] > 255) {
            return err_set(err, -EINVAL, "pass_through_tlvs.tlv_type[%zu]: %u is not a TLV type", i, m->tlv_type[i]);
        }
        c->keep[m->tlv_type[i] / 8] |= (uint8_t)(1u << m->tlv_type[i] % 8);
    }
    return 0;
}

static int parse_rules(const proxy_protocol_msg *m, struct arena *a, struct proxy_protocol_cfg *c, struct err *err)
{
    if (m->n_rules &&
        m->tlv_location != ENVOY__EXTENSIONS__FILTERS__LISTENER__PROXY_PROTOCOL__V3__PROXY_PROTOCOL__TLV_LOCATION__DYNAMIC_METADATA) {
        return err_set(err, -EINVAL, "tlv_location: only DYNAMIC_METADATA is supported");
    }
    c->rules = m->n_rules ? arena_array(a, struct tlv_rule, m->n_rules) : NULL;
    for (size_t i = 0; i < m->n_rules; i++) {
        const Envoy__Extensions__Filters__Listener__ProxyProtocol__V3__ProxyProtocol__KeyValuePair *kv = m->rules[i]->on_tlv_present;
        if (m->rules[i]->tlv_type > 255 || !kv || !kv->key[0]) {
            return err_set(err, -EINVAL, "rules[%zu]: a tlv_type up to 255 and on_tlv_present.key are needed", i);
        }
        c->rules[c->rule_count++] = (struct tlv_rule){
            .type = (uint8_t)m->rules[i]->tlv_type,
            .base64 =
                kv->value_string_encoding ==
                ENVOY__EXTENSIONS__FILTERS__LISTENER__PROXY_PROTOCOL__V3__PROXY_PROTOCOL__KEY_VALUE_PAIR__VALUE_STRING_ENCODING__BASE64,
            .space = arena_str(a, kv->metadata_namespace[0] ? str_c(kv->metadata_namespace) : STR("envoy.filters.listener.proxy_protocol")),
            .key = arena_str(a, str_c(kv->key)),
        };
    }
    return 0;
}

static int proxy_protocol_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    const proxy_protocol_msg *m = msg;
    struct proxy_protocol_cfg *c = arena_new(arena, struct proxy_protocol_cfg);
    *ret_cfg = c;
    if (!m) {
        return 0;
    }
    if (parse_rules(m, arena, c, err)) {
        return err->code;
    }
    for (size_t i = 0; i < m->n_disallowed_versions; i++) {
        c->refuse[m->disallowed_versions[i] == ENVOY__CONFIG__CORE__V3__PROXY_PROTOCOL_CONFIG__VERSION__V1 ? 1 : 2] = true;
    }
    if (c->refuse[1] && c->refuse[2]) {
        return err_set(err, -EINVAL, "disallowed_versions: nothing is left");
    }
    c->allow_without = m->allow_requests_without_proxy_protocol;
    return parse_pass_through(m->pass_through_tlvs, c, err);
}

static enum listener_verdict on_accept(struct downstream *d, const void *cfg)
{
    (void)d, (void)cfg;
    return LF_NEED_BYTES;
}

static enum listener_verdict refuse(struct downstream *d, const char *why)
{
    stat_inc(d->stats, STAT_ID_LISTENER_PROXY_PROTOCOL_ERROR);
    log_debug(LOGC_CONNECTION, d->conn->id, "proxy_protocol_refused", "listener=%.*s why=\"%s\"", STR_FMT(d->listener->name), why);
    return LF_CLOSE;
}

// Text of a TLV: bytes that are no printable ASCII become '!'. (Envoy keeps UTF-8; logs are read by more than one program.)
static struct str text_of(struct arena *a, struct str value)
{
    struct str r = arena_str(a, value);
    for (size_t i = 0; i < r.n; i++) {
        if (r.p[i] < 0x20 || r.p[i] > 0x7e) {
            ((char *)r.p)[i] = '!';
        }
    }
    return r;
}

static void apply_rules(struct downstream *d, const struct proxy_protocol_cfg *c, uint8_t type, struct str value)
{
    for (size_t i = 0; i < c->rule_count; i++) {
        const struct tlv_rule *r = &c->rules[i];
        if (r->type == type) {
            struct downstream_found *found = downstream_found(d);
            struct connection_fact *f = arena_new(&found->arena, struct connection_fact);
            // Copies: the listener whose rules these are may be replaced while the connection lasts.
            *f = (struct connection_fact){ .space = arena_str(&found->arena, r->space), .key = arena_str(&found->arena, r->key),
                                           .next = found->facts };
            f->value = r->base64 ? base64_encode(&found->arena, value) : text_of(&found->arena, value);
            found->facts = f;
        }
    }
}

// false: TLVs are wanted, and broken.
static bool keep_tlvs(struct downstream *d, const struct proxy_protocol_cfg *c, struct str tlvs)
{
    struct str rest = tlvs, value;
    uint8_t type;
    char *out = c->keep_tlvs && tlvs.n ? arena_alloc(downstream_arena(d), tlvs.n) : NULL;
    size_t n = 0, facts = 0;
    for (const char *at = rest.p; proxy_tlv_next(&rest, &type, &value); at = rest.p) {
        if (facts++ < TLV_FACTS_MAX) { // a header may hold twenty thousand
            apply_rules(d, c, type, value);
        }
        if (c->keep_tlvs && (c->keep_all || (c->keep[type / 8] >> type % 8 & 1))) {
            memcpy(out + n, at, (size_t)(rest.p - at));
            n += (size_t)(rest.p - at);
        }
    }
    if (n) {
        downstream_hints(d)->tlvs = str_n(out, n);
    }
    return rest.n == 0;
}

static enum listener_verdict on_bytes(struct downstream *d, const void *cfg, struct str bytes, bool eof, size_t *ret_consumed)
{
    const struct proxy_protocol_cfg *c = cfg;
    struct proxy_header h;
    switch (proxy_header_parse(bytes, &h)) {
    case PROXY_HEADER_MORE:
        return eof ? refuse(d, "it ends within") : LF_NEED_BYTES;
    case PROXY_HEADER_NONE:
        return c->allow_without ? LF_DONE : refuse(d, "there is none");
    case PROXY_HEADER_BAD:
        return refuse(d, "it is malformed");
    case PROXY_HEADER_FOUND:
        break;
    }
    if (c->refuse[h.version]) {
        return refuse(d, "its version is not allowed");
    }
    if ((c->keep_tlvs || c->rule_count) && !keep_tlvs(d, c, h.tlvs)) {
        return refuse(d, "its TLVs are malformed");
    }
    if (!h.local) {
        downstream_found(d)->remote = h.source;
        downstream_restore(d, h.destination);
    }
    *ret_consumed = h.length;
    d->conn->bytes_in -= h.length; // no payload
    stat_inc(d->stats, STAT_ID_LISTENER_PROXY_PROTOCOL_FOUND);
    return LF_DONE;
}

// A client that sends half a header, or nothing, must not come in without one.
static bool may_skip(const void *cfg)
{
    return ((const struct proxy_protocol_cfg *)cfg)->allow_without;
}

const struct listener_filter_ops listener_filter_proxy_protocol = {
    .ext = { .name = "envoy.filters.listener.proxy_protocol",
             .type_url = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
             .config_parse = proxy_protocol_config_parse },
    .on_accept = on_accept,
    .on_bytes = on_bytes,
    .may_skip = may_skip,
    .max_bytes = PROXY_V2_BYTES_MAX,
};
