// SPDX-License-Identifier: Apache-2.0
// cluster.v3.Cluster → struct cluster_cfg.
#include <stdlib.h>
#include <string.h>

#include "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.pb-c.h"
#include "envoy/extensions/upstreams/http/v3/http_protocol_options.pb-c.h"
#include "envoy/extensions/upstreams/tcp/v3/tcp_protocol_options.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"
#include "xds-client/xds_client.h"

typedef Envoy__Config__Cluster__V3__Cluster cluster;

enum { INTERVAL_MAX_MS = 24 * 3600 * 1000, DNS_REFRESH_MIN_MS = 100 };
enum { KEEPALIVE_PROBES_MAX = 127, KEEPALIVE_S_MAX = 32767 }; // linux/tcp.h: MAX_TCP_KEEPCNT, MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL

static int build_type(const cluster *m, struct cluster_cfg *c, struct err *err)
{
    static const enum cluster_type types[] = { CLUSTER_STATIC, CLUSTER_STRICT_DNS, CLUSTER_LOGICAL_DNS, CLUSTER_EDS,
                                               CLUSTER_ORIGINAL_DST };
    if (m->cluster_discovery_type_case == ENVOY__CONFIG__CLUSTER__V3__CLUSTER__CLUSTER_DISCOVERY_TYPE_CLUSTER_TYPE) {
        return cfg_fail(err, "cluster_type", "\"%s\" is not supported yet", m->cluster_type->name);
    }
    unsigned t = m->cluster_discovery_type_case == ENVOY__CONFIG__CLUSTER__V3__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE ? (unsigned)m->type : 0;
    if (t >= sizeof(types) / sizeof(types[0])) {
        return cfg_fail(err, "type", "unknown value %u", t);
    }
    c->type = types[t];
    return 0;
}

static int take_common_http(const Envoy__Config__Core__V3__HttpProtocolOptions *o, struct cluster_cfg *c, struct err *err)
{
    if (!o) {
        return 0;
    }
    if (CFG_KNOWN(o, err, "idle_timeout", "max_connection_duration", "max_requests_per_connection", "max_headers_count",
                  "max_response_headers_kb", "max_stream_duration", "headers_with_underscores_action")) {
        return err->code;
    }
    c->idle_timeout_ms = (uint64_t)pb_duration_ms(o->idle_timeout, (int64_t)c->idle_timeout_ms);
    c->max_connection_ms = (uint64_t)pb_duration_ms(o->max_connection_duration, 0);
    c->max_stream_ms = (uint64_t)pb_duration_ms(o->max_stream_duration, 0);
    // headers_with_underscores_action is about requests of clients; it has no effect on a cluster (core.v3.HttpProtocolOptions).
    c->max_requests_per_connection = pb_u32_or(o->max_requests_per_connection, c->max_requests_per_connection);
    c->h1.header_count = pb_u32_or(o->max_headers_count, c->h1.header_count);
    uint32_t kb = pb_u32_or(o->max_response_headers_kb, c->h1.head_bytes / 1024);
    if (c->h1.header_count == 0) {
        return cfg_fail(err, "max_headers_count", "must be at least 1");
    }
    if (kb == 0 || kb > HEAD_KB_MAX) {
        return cfg_fail(err, "max_response_headers_kb", "must be 1 to %d", HEAD_KB_MAX);
    }
    c->h1.head_bytes = kb * 1024;
    return 0;
}

// Names of TLS servers that follow the request.
static int take_names(const Envoy__Config__Core__V3__UpstreamHttpProtocolOptions *o, struct arena *a, struct cluster_cfg *c, struct err *err)
{
    if (!o) {
        return 0;
    }
    if (CFG_KNOWN(o, err, "auto_sni", "auto_san_validation", "override_auto_sni_header")) {
        return err->code;
    }
    const char *name = o->override_auto_sni_header;
    if (name[0] && !build_header_name_ok(str_c(name + (name[0] == ':')))) {
        return cfg_fail(err, "override_auto_sni_header", "\"%s\" is no name of a field", name);
    }
    c->auto_sni = o->auto_sni;
    c->auto_san = o->auto_san_validation;
    c->auto_sni_header = build_str(a, o->override_auto_sni_header);
    return 0;
}

static int take_http2(const Envoy__Config__Core__V3__Http2ProtocolOptions *o, const char *field, struct cluster_cfg *c, struct err *err)
{
    struct build_h2 b;
    if (build_h2_options(o, &b, err)) {
        return cfg_in(err, "%s", field);
    }
    c->h2_max_streams = b.max_streams;
    c->h2_stream_window = b.stream_window;
    c->h2_conn_window = b.conn_window;
    c->h2 = b.opts;
    return 0;
}

static int build_protocol_options(struct config_ctx *ctx, const Google__Protobuf__Any *any, struct cluster_cfg *c, struct err *err)
{
    Envoy__Extensions__Upstreams__Http__V3__HttpProtocolOptions *o = NULL;
    struct err e = { 0 };
    if (pb_any_unpack_whole_as(Envoy__Extensions__Upstreams__Http__V3__HttpProtocolOptions,
                         envoy__extensions__upstreams__http__v3__http_protocol_options, any, ctx->scratch, &o, &e)) {
        return cfg_fail(err, "value", "%.900s", e.msg);
    }
    if (CFG_KNOWN(o, err, "common_http_protocol_options", "upstream_http_protocol_options", "explicit_http_config",
                  "use_downstream_protocol_config")) {
        return err->code;
    }
    if (take_common_http(o->common_http_protocol_options, c, err)) {
        return cfg_in(err, "common_http_protocol_options");
    }
    if (take_names(o->upstream_http_protocol_options, ctx->arena, c, err)) {
        return cfg_in(err, "upstream_http_protocol_options");
    }
    switch (o->upstream_protocol_options_case) {
    case ENVOY__EXTENSIONS__UPSTREAMS__HTTP__V3__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_EXPLICIT_HTTP_CONFIG:
        if (o->explicit_http_config->protocol_config_case ==
            ENVOY__EXTENSIONS__UPSTREAMS__HTTP__V3__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP2_PROTOCOL_OPTIONS) {
            c->protocol = UPSTREAM_H2;
            return take_http2(o->explicit_http_config->http2_protocol_options, "explicit_http_config.http2_protocol_options", c, err);
        }
        if (!o->explicit_http_config->http_protocol_options) {
            return cfg_fail(err, "explicit_http_config", "one of http_protocol_options, http2_protocol_options is needed");
        }
        return build_h1_options(ctx, o->explicit_http_config->http_protocol_options, &c->h1, &c->h1_names, err)
                   ? cfg_in(err, "explicit_http_config.http_protocol_options")
                   : 0;
    case ENVOY__EXTENSIONS__UPSTREAMS__HTTP__V3__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_USE_DOWNSTREAM_PROTOCOL_CONFIG:
        c->protocol = UPSTREAM_DOWNSTREAM;
        if (build_h1_options(ctx, o->use_downstream_protocol_config->http_protocol_options, &c->h1, &c->h1_names, err)) {
            return cfg_in(err, "use_downstream_protocol_config.http_protocol_options");
        }
        return !o->use_downstream_protocol_config->http2_protocol_options
                   ? 0
                   : take_http2(o->use_downstream_protocol_config->http2_protocol_options,
                                "use_downstream_protocol_config.http2_protocol_options", c, err);
    default:
        return cfg_fail(err, "upstream_protocol_options", "missing");
    }
}

// idle_timeout is about connections that wait in a pool for a client; TCP connections are made when clients come.
static int check_tcp_options(struct config_ctx *ctx, const Google__Protobuf__Any *any, struct err *err)
{
    Envoy__Extensions__Upstreams__Tcp__V3__TcpProtocolOptions *o = NULL;
    struct err e = { 0 };
    if (pb_any_unpack_whole_as(Envoy__Extensions__Upstreams__Tcp__V3__TcpProtocolOptions,
                               envoy__extensions__upstreams__tcp__v3__tcp_protocol_options, any, ctx->scratch, &o, &e)) {
        return cfg_fail(err, "value", "%.900s", e.msg);
    }
    return CFG_KNOWN(o, err, "idle_timeout");
}

static int build_protocol(struct config_ctx *ctx, const cluster *m, struct cluster_cfg *c, struct err *err)
{
    c->protocol = m->protocol_selection == ENVOY__CONFIG__CLUSTER__V3__CLUSTER__CLUSTER_PROTOCOL_SELECTION__USE_DOWNSTREAM_PROTOCOL
                      ? UPSTREAM_DOWNSTREAM
                      : UPSTREAM_H1;
    if (m->http_protocol_options && m->http2_protocol_options && c->protocol != UPSTREAM_DOWNSTREAM) {
        return cfg_fail(err, "http_protocol_options", "stands beside http2_protocol_options; say which with protocol_selection");
    }
    c->idle_timeout_ms = 3600 * 1000;
    c->h1 = h1_limits_default;
    if (build_h1_options(ctx, m->http_protocol_options, &c->h1, &c->h1_names, err)) {
        return cfg_in(err, "http_protocol_options");
    }
    c->max_requests_per_connection = pb_u32_or(m->max_requests_per_connection, 0);
    if (m->http2_protocol_options) {
        c->protocol = c->protocol == UPSTREAM_H1 ? UPSTREAM_H2 : c->protocol;
        if (take_http2(m->http2_protocol_options, "http2_protocol_options", c, err)) {
            return err->code;
        }
    }
    if (take_common_http(m->common_http_protocol_options, c, err)) {
        return cfg_in(err, "common_http_protocol_options");
    }
    if (take_names(m->upstream_http_protocol_options, ctx->arena, c, err)) {
        return cfg_in(err, "upstream_http_protocol_options");
    }
    for (size_t i = 0; i < m->n_typed_extension_protocol_options; i++) {
        const char *key = m->typed_extension_protocol_options[i]->key;
        if (!strcmp(key, "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions")) {
            if (check_tcp_options(ctx, m->typed_extension_protocol_options[i]->value, err)) {
                return cfg_in(err, "typed_extension_protocol_options[%s]", key);
            }
            continue;
        }
        if (strcmp(key, "envoy.extensions.upstreams.http.v3.HttpProtocolOptions")) {
            return cfg_fail(err, "typed_extension_protocol_options", "\"%s\" is not supported", key);
        }
        if (build_protocol_options(ctx, m->typed_extension_protocol_options[i]->value, c, err)) {
            return cfg_in(err, "typed_extension_protocol_options[%s]", key);
        }
    }
    return 0;
}

static int build_transport_match(struct config_ctx *ctx, const Envoy__Config__Cluster__V3__Cluster__TransportSocketMatch *m,
                                 struct transport_cfg *t, struct err *err)
{
    t->name = build_str(ctx->arena, m->name);
    if (!m->name[0] || !m->transport_socket) { // without the latter its endpoints would be spoken to in clear text
        return cfg_fail(err, "transport_socket", "name and transport_socket are both needed");
    }
    if (build_upstream_socket(ctx, m->transport_socket, t, err)) {
        return err->code;
    }
    size_t n = m->match ? m->match->n_fields : 0;
    t->match = n ? arena_array(ctx->arena, struct str_pair, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        struct str v = pb_value_str(m->match->fields[i]->value);
        if (!v.p) {
            return cfg_fail(err, "match", "\"%s\": only text values are supported", m->match->fields[i]->key);
        }
        t->match[t->match_count++] = (struct str_pair){ build_str(ctx->arena, m->match->fields[i]->key), arena_str(ctx->arena, v) };
    }
    return 0;
}

// A match whose transport we cannot speak yet (HBONE's "tunnel") is left out: endpoints that want it have no other match and are then
// reached as the rest of the list says, so it is only left out where no address of ours can carry it.
static bool match_is_hbone(const Envoy__Config__Cluster__V3__Cluster__TransportSocketMatch *m)
{
    return pb_struct_str(m->match, "tunnel").p != NULL;
}

static int build_transports(struct config_ctx *ctx, const cluster *m, struct cluster_cfg *c, struct err *err)
{
    if (build_upstream_socket(ctx, m->transport_socket, &c->default_transport, err)) {
        return err->code;
    }
    c->transports = arena_array(ctx->arena, struct transport_cfg, m->n_transport_socket_matches + 1);
    for (size_t i = 0; i < m->n_transport_socket_matches; i++) {
        if (match_is_hbone(m->transport_socket_matches[i])) {
            continue;
        }
        if (build_transport_match(ctx, m->transport_socket_matches[i], &c->transports[c->transport_count++], err)) {
            return cfg_in(err, "transport_socket_matches[%zu]", i);
        }
    }
    return 0;
}

// A certificate that must match a list and the request's host, both: only one of them can be said.
static int check_names(const struct cluster_cfg *c, struct err *err)
{
    bool listed = c->default_transport.tls && c->default_transport.tls->san_count;
    for (size_t i = 0; i < c->transport_count; i++) {
        listed |= c->transports[i].tls && c->transports[i].tls->san_count;
    }
    return c->auto_san && listed ? cfg_fail(err, "upstream_http_protocol_options.auto_san_validation",
                                            "not supported beside match_typed_subject_alt_names")
                                 : 0;
}

// The first of each family counts.
static int take_source(const Envoy__Config__Core__V3__SocketAddress *s, struct cluster_cfg *c, struct err *err)
{
    struct addr a;
    if (CFG_KNOWN(s, err, "address", "port_value", "ipv4_compat")) {
        return cfg_in(err, "source_address");
    }
    if (!addr_parse_ip(str_c(s->address), (uint16_t)(s->port_value > 65535 ? 0 : s->port_value), &a)) {
        return cfg_fail(err, "source_address.address", "\"%s\" is not an IP address", s->address);
    }
    struct addr *to = a.family == AF_INET6 ? &c->source_v6 : &c->connect.source;
    *to = to->family ? *to : a;
    return 0;
}

static int build_connect(const cluster *m, struct cluster_cfg *c, struct err *err)
{
    const Envoy__Config__Core__V3__BindConfig *b = m->upstream_bind_config;
    if (b) {
        if (CFG_KNOWN(b, err, "source_address", "extra_source_addresses", "freebind")) {
            return cfg_in(err, "upstream_bind_config");
        }
        c->connect.freebind = pb_bool_or(b->freebind, false);
        if (b->source_address && take_source(b->source_address, c, err)) {
            return cfg_in(err, "upstream_bind_config");
        }
        for (size_t i = 0; i < b->n_extra_source_addresses; i++) {
            if (CFG_KNOWN(b->extra_source_addresses[i], err, "address")) {
                return cfg_in(err, "upstream_bind_config.extra_source_addresses[%zu]", i);
            }
            if (b->extra_source_addresses[i]->address && take_source(b->extra_source_addresses[i]->address, c, err)) {
                return cfg_in(err, "upstream_bind_config.extra_source_addresses[%zu]", i);
            }
        }
    }
    const Envoy__Config__Cluster__V3__UpstreamConnectionOptions *o = m->upstream_connection_options;
    if (o && CFG_KNOWN(o, err, "tcp_keepalive", "happy_eyeballs_config", "set_local_interface_name_on_upstream_connections")) {
        return cfg_in(err, "upstream_connection_options");
    }
    if (o && o->tcp_keepalive) {
        if (pb_u32_or(o->tcp_keepalive->keepalive_probes, 0) > KEEPALIVE_PROBES_MAX || pb_u32_or(o->tcp_keepalive->keepalive_time, 0) > KEEPALIVE_S_MAX ||
            pb_u32_or(o->tcp_keepalive->keepalive_interval, 0) > KEEPALIVE_S_MAX) {
            return cfg_fail(err, "upstream_connection_options.tcp_keepalive", "at most %d probes and %d seconds are possible", KEEPALIVE_PROBES_MAX,
                            KEEPALIVE_S_MAX);
        }
        c->connect.keepalive_probes = (int)pb_u32_or(o->tcp_keepalive->keepalive_probes, 0);
        c->connect.keepalive_idle_s = (int)pb_u32_or(o->tcp_keepalive->keepalive_time, 7200);
        c->connect.keepalive_interval_s = (int)pb_u32_or(o->tcp_keepalive->keepalive_interval, 0);
    }
    if (o && o->happy_eyeballs_config) {
        const Envoy__Config__Cluster__V3__UpstreamConnectionOptions__HappyEyeballsConfig *h = o->happy_eyeballs_config;
        static const uint16_t families[] = { 0, AF_INET, AF_INET6 };
        if ((unsigned)h->first_address_family_version >= sizeof(families) / sizeof(families[0])) {
            return cfg_fail(err, "upstream_connection_options.happy_eyeballs_config.first_address_family_version", "must be DEFAULT, V4 or V6");
        }
        c->first_family = families[h->first_address_family_version];
        c->first_family_count = pb_u32_or(h->first_address_family_count, 1);
        if (c->first_family_count == 0) {
            return cfg_fail(err, "upstream_connection_options.happy_eyeballs_config.first_address_family_count", "must be at least 1");
        }
    }
    return 0;
}

// Name servers of the cluster's own; the rest of c-ares' options is tuning that lib/net/dns does its own way.
static int build_resolver(struct config_ctx *ctx, const cluster *m, struct cluster_cfg *c, struct err *err)
{
    Envoy__Extensions__Network__DnsResolver__Cares__V3__CaresDnsResolverConfig *o = NULL;
    struct err e = { 0 };
    if (!m->typed_dns_resolver_config) {
        return 0;
    }
    if (pb_any_unpack_whole_as(Envoy__Extensions__Network__DnsResolver__Cares__V3__CaresDnsResolverConfig,
                         envoy__extensions__network__dns_resolver__cares__v3__cares_dns_resolver_config,
                         m->typed_dns_resolver_config->typed_config, ctx->scratch, &o, &e)) {
        return cfg_fail(err, "typed_config", "%.900s", e.msg);
    }
    if (CFG_KNOWN(o, err, "resolvers", "filter_unroutable_families", "dns_resolver_options", "udp_max_queries", "query_timeout_seconds",
                  "query_tries", "rotate_nameservers", "edns0_max_payload_size", "max_udp_channel_duration", "reinit_channel_on_timeout",
                  "qcache_max_ttl")) {
        return cfg_in(err, "typed_config");
    }
    for (size_t i = 0; i < o->n_resolvers; i++) {
        struct addr a;
        char text[ADDR_TEXT_MAX];
        if (build_address(o->resolvers[i], ctx->scratch, &a, err)) {
            return cfg_in(err, "typed_config.resolvers[%zu]", i);
        }
        if (a.family == AF_UNIX) {
            return cfg_fail(err, "typed_config.resolvers", "entry %zu: must be an IP address", i);
        }
        a.port = a.port ? a.port : 53;
        c->dns_servers = arena_printf(ctx->arena, "%.*s%s%s", STR_FMT(c->dns_servers), i ? "," : "", addr_text(&a, text));
    }
    return 0;
}

static int build_dns(const cluster *m, struct cluster_cfg *c, struct err *err)
{
    static const enum dns_lookup lookups[] = { DNS_LOOKUP_AUTO, DNS_LOOKUP_V4, DNS_LOOKUP_V6, DNS_LOOKUP_V4_PREFERRED, DNS_LOOKUP_ALL };
    c->dns_lookup = (unsigned)m->dns_lookup_family < 5 ? lookups[m->dns_lookup_family] : DNS_LOOKUP_AUTO;
    c->dns_refresh_ms = (uint64_t)pb_duration_ms(m->dns_refresh_rate, 5000);
    c->dns_refresh_ms = c->dns_refresh_ms < DNS_REFRESH_MIN_MS ? DNS_REFRESH_MIN_MS
                        : c->dns_refresh_ms > INTERVAL_MAX_MS  ? INTERVAL_MAX_MS
                                                               : c->dns_refresh_ms;
    c->dns_jitter_ms = (uint64_t)pb_duration_ms(m->dns_jitter, 0);
    c->dns_jitter_ms = c->dns_jitter_ms > INTERVAL_MAX_MS ? INTERVAL_MAX_MS : c->dns_jitter_ms;
    c->respect_dns_ttl = m->respect_dns_ttl;
    if (m->dns_failure_refresh_rate) {
        uint64_t base = (uint64_t)pb_duration_ms(m->dns_failure_refresh_rate->base_interval, 0);
        uint64_t max = (uint64_t)pb_duration_ms(m->dns_failure_refresh_rate->max_interval, (int64_t)(base * 10));
        if (base == 0 || max < base || max > INTERVAL_MAX_MS) {
            return cfg_fail(err, "dns_failure_refresh_rate", "base_interval is needed, and max_interval must not be less, nor above a day");
        }
        c->dns_fail_base_ms = base;
        c->dns_fail_max_ms = max;
    }
    return 0;
}

static int build_original_dst(const cluster *m, struct cluster_cfg *c, struct err *err)
{
    c->cleanup_interval_ms = (uint64_t)pb_duration_ms(m->cleanup_interval, 5000);
    if (m->lb_config_case == ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_CONFIG_ORIGINAL_DST_LB_CONFIG) {
        const Envoy__Config__Cluster__V3__Cluster__OriginalDstLbConfig *o = m->original_dst_lb_config;
        if (CFG_KNOWN(o, err, "use_http_header", "upstream_port_override")) {
            return cfg_in(err, "original_dst_lb_config");
        }
        c->original_dst_use_header = o->use_http_header;
        c->original_dst_port = pb_u32_or(o->upstream_port_override, 0);
    }
    return 0;
}

static int build_eds_source(struct config_ctx *ctx, const cluster *m, struct err *err)
{
    bool remote = true;
    if (m->eds_cluster_config && m->eds_cluster_config->eds_config &&
        build_config_source(ctx, m->eds_cluster_config->eds_config, XDS_ENDPOINT, &remote, err)) {
        return cfg_in(err, "eds_cluster_config.eds_config");
    }
    return remote ? 0 : cfg_fail(err, "eds_cluster_config.eds_config.api_config_source", "not supported; give ads or path_config_source");
}

static int build_discovery(struct config_ctx *ctx, const cluster *m, struct cluster_cfg *c, struct err *err)
{
    bool dns = c->type == CLUSTER_STRICT_DNS || c->type == CLUSTER_LOGICAL_DNS;
    c->eds_service_name = c->name;
    if (c->type == CLUSTER_EDS && m->eds_cluster_config && m->eds_cluster_config->service_name[0]) {
        c->eds_service_name = build_str(ctx->arena, m->eds_cluster_config->service_name);
    }
    if (build_resolver(ctx, m, c, err)) {
        return cfg_in(err, "typed_dns_resolver_config");
    }
    if (build_dns(m, c, err)) {
        return err->code;
    }
    if (c->type == CLUSTER_ORIGINAL_DST) {
        return build_original_dst(m, c, err);
    }
    if (c->type == CLUSTER_EDS) {
        return build_eds_source(ctx, m, err);
    }
    if (!m->load_assignment && dns) {
        return cfg_fail(err, "load_assignment", "missing");
    }
    if (m->load_assignment && (build_endpoints(m->load_assignment, dns, ctx->arena, &c->endpoints, &c->endpoint_count, err) ||
                               build_endpoint_policy(m->load_assignment, ctx->arena, &c->policy, err))) {
        return cfg_in(err, "load_assignment");
    }
    if (c->type == CLUSTER_LOGICAL_DNS && c->endpoint_count != 1) {
        return cfg_fail(err, "load_assignment.endpoints", "a LOGICAL_DNS cluster has one endpoint, not %zu", c->endpoint_count);
    }
    return 0;
}

static void build_metadata(struct config_ctx *ctx, const cluster *m, struct cluster_cfg *c)
{
    const Google__Protobuf__Struct *istio = pb_metadata_get(m->metadata, "istio");
    c->metadata = build_metadata_bytes(m->metadata, ctx->arena);
    c->metadata_disable_mx = pb_struct_get(istio, "disable_mx") != NULL;
    c->metadata_no_alpn_override = str_is(pb_struct_str(istio, "alpn_override"), "false");
}

// Upstream network filters: Istio's metadata exchange, which has its ALPN offered (tls.c) and is spoken by the TCP proxy.
static int check_filters(const cluster *m, struct config_ctx *ctx, struct err *err)
{
    ctx->peer_exchange = false;
    for (size_t i = 0; i < m->n_filters; i++) {
        if (strcmp(m->filters[i]->name, "istio.metadata_exchange")) {
            return cfg_fail(err, "filters", "\"%s\" is not supported", m->filters[i]->name);
        }
        ctx->peer_exchange = true;
    }
    return 0;
}

static int check_known(const cluster *m, struct err *err)
{
    return CFG_KNOWN(m, err, "transport_socket_matches", "name", "alt_stat_name", "type", "cluster_type", "eds_cluster_config",
                     "connect_timeout", "per_connection_buffer_limit_bytes", "lb_policy", "load_assignment",
                     "max_requests_per_connection", "circuit_breakers", "upstream_http_protocol_options",
                     "common_http_protocol_options", "http_protocol_options", "http2_protocol_options",
                     "typed_extension_protocol_options", "dns_refresh_rate", "dns_jitter", "dns_failure_refresh_rate",
                     "respect_dns_ttl", "dns_lookup_family", "typed_dns_resolver_config", "wait_for_warm_on_init",
                     "outlier_detection", "cleanup_interval", "upstream_bind_config", "ring_hash_lb_config", "maglev_lb_config",
                     "original_dst_lb_config", "least_request_lb_config", "round_robin_lb_config", "common_lb_config",
                     "load_balancing_policy", "lb_subset_config", "health_checks",
                     "transport_socket", "metadata", "protocol_selection", "upstream_connection_options",
                     "close_connections_on_host_health_failure", "ignore_health_on_host_removal", "filters",
                     "track_timeout_budgets", "track_cluster_stats", "preconnect_policy");
}

static int fill(struct config_ctx *ctx, const cluster *m, struct cluster_cfg *c, struct err *err)
{
    if (!m->name[0]) {
        return cfg_fail(err, "name", "missing");
    }
    c->name = build_str(ctx->arena, m->name);
    c->stat_name = m->alt_stat_name[0] ? build_str(ctx->arena, m->alt_stat_name) : c->name;
    c->connect_timeout_ms = (uint64_t)pb_duration_ms(m->connect_timeout, 5000);
    if (m->connect_timeout && c->connect_timeout_ms == 0) {
        return cfg_fail(err, "connect_timeout", "must be greater than 0s");
    }
    c->buffer_limit = pb_u32_or(m->per_connection_buffer_limit_bytes, 0);
    if (check_known(m, err) || check_filters(m, ctx, err) || build_type(m, c, err) || build_balancing(ctx, m, c, err) || build_protocol(ctx, m, c, err) ||
        build_transports(ctx, m, c, err) || check_names(c, err) || build_resilience(m, c, err) || build_connect(m, c, err) || build_discovery(ctx, m, c, err) ||
        build_health_checks(ctx, m, c, err)) {
        return err->code;
    }
    build_metadata(ctx, m, c);
    return 0;
}

int build_cluster(struct config_ctx *ctx, struct str bytes, struct cluster_cfg **ret, struct err *err)
{
    cluster *m = NULL;
    if (pb_unpack_as(cluster, envoy__config__cluster__v3__cluster, bytes, ctx->scratch, &m, err) || pb_whole(&m->base, NULL, NULL, err)) {
        return err->code;
    }
    struct cluster_cfg *c = cluster_cfg_new();
    c->hash = hash_content(bytes.p, bytes.n);
    ctx->arena = &c->arena;
    int rc = fill(ctx, m, c, err);
    if (rc) {
        cluster_cfg_unref(c);
        return rc;
    }
    *ret = c;
    return 0;
}
