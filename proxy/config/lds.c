// SPDX-License-Identifier: Apache-2.0
// listener.v3.Listener → struct listener_cfg, with its filter chains and filters.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "proto/pb_util.h"
#include "proxy/access_log/access_log.h"
#include "proxy/config/build.h"
#include "proxy/config/tcp_match.h"
#include "proxy/filters/listener/registry.h"
#include "proxy/filters/network/registry.h"
#include "proxy/listener/listener_filter.h"
#include "proxy/listener/network_filter.h"

typedef Envoy__Config__Listener__V3__Listener listener_msg;
typedef Envoy__Config__Listener__V3__FilterChain chain_msg;
typedef Envoy__Config__Listener__V3__FilterChainMatch match_msg;
typedef Envoy__Config__Listener__V3__ListenerFilterChainMatchPredicate predicate_msg;
typedef Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager hcm_msg;
typedef Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy tcp_msg;

enum { CHAINS_MAX = 10000, FILTERS_MAX = 64, PREDICATE_DEPTH_MAX = 16, LISTENER_BLOCK_BYTES = 1024,
       HANDSHAKE_DEFAULT_MS = 15000 /* as istiod writes it; a handshake that stops costs more than a connection */ };

// What an extension's typed_config holds, NULL without one. Whether an HTTP connection manager's is understood, its builder looks.
static int unpack_config(struct config_ctx *ctx, const Google__Protobuf__Any *any, const struct ext_ops *ops, const char *name,
                         ProtobufCMessage **ret, struct err *err)
{
    *ret = NULL;
    struct err e = { 0 };
    if (any && build_ext_config(any, ops, ctx->scratch, ret, &e)) {
        return cfg_fail(err, "typed_config", "\"%s\": %.900s", name, e.msg);
    }
    return 0;
}

static int parse_ext(struct config_ctx *ctx, const struct ext_ops *ops, const ProtobufCMessage *msg, const char *name, struct ext *ret,
                     struct err *err)
{
    void *cfg = NULL;
    ret->ops = ops;
    ret->name = build_str(ctx->arena, name);
    if (ops->config_parse && ops->config_parse(ctx, msg, ctx->arena, &cfg, err)) {
        return cfg_in(err, "typed_config");
    }
    ret->cfg = cfg;
    return 0;
}

// Which clusters a TCP proxy needs before its listener may begin.
static void note_tcp_clusters(struct config_ctx *ctx, const tcp_msg *m)
{
    if (m->cluster_specifier_case == ENVOY__EXTENSIONS__FILTERS__NETWORK__TCP_PROXY__V3__TCP_PROXY__CLUSTER_SPECIFIER_CLUSTER) {
        config_ctx_add_cluster(ctx, str_c(m->cluster));
    } else if (m->cluster_specifier_case == ENVOY__EXTENSIONS__FILTERS__NETWORK__TCP_PROXY__V3__TCP_PROXY__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS) {
        for (size_t i = 0; i < m->weighted_clusters->n_clusters; i++) {
            config_ctx_add_cluster(ctx, str_c(m->weighted_clusters->clusters[i]->name));
        }
    }
}

static int build_network_filter(struct config_ctx *ctx, const Envoy__Config__Listener__V3__Filter *m, struct ext *ret, struct err *err)
{
    if (m->config_type_case == ENVOY__CONFIG__LISTENER__V3__FILTER__CONFIG_TYPE_CONFIG_DISCOVERY) {
        return cfg_fail(err, "config_discovery", "not supported yet");
    }
    const Google__Protobuf__Any *any =
        m->config_type_case == ENVOY__CONFIG__LISTENER__V3__FILTER__CONFIG_TYPE_TYPED_CONFIG ? m->typed_config : NULL;
    ProtobufCMessage *msg;
    struct str declared = any ? pb_any_type_name(any, ctx->scratch) : str_n(NULL, 0);
    const struct network_filter_ops *ops = network_filter_find(str_c(m->name), declared);
    if (!ops) {
        return cfg_fail(err, "name", "network filter \"%s\" (%.*s) is not supported", m->name, STR_FMT(declared));
    }
    if (unpack_config(ctx, any, &ops->ext, m->name, &msg, err)) {
        return err->code;
    }
    if (!msg && !strcmp(ops->ext.name, "envoy.filters.network.http_connection_manager")) {
        return cfg_fail(err, "typed_config", "missing");
    }
    if (msg && msg->descriptor ==
                   &envoy__extensions__filters__network__http_connection_manager__v3__http_connection_manager__descriptor) {
        struct http_manager_cfg *h = NULL;
        if (build_http_manager(ctx, (const hcm_msg *)(const void *)msg, &h, err)) {
            return cfg_in(err, "typed_config");
        }
        *ret = (struct ext){ .ops = &ops->ext, .cfg = h, .name = build_str(ctx->arena, m->name) };
        return 0;
    }
    if (parse_ext(ctx, &ops->ext, msg, m->name, ret, err)) {
        return err->code;
    }
    if (msg && msg->descriptor == &envoy__extensions__filters__network__tcp_proxy__v3__tcp_proxy__descriptor) {
        const tcp_msg *t = (const tcp_msg *)(const void *)msg;
        note_tcp_clusters(ctx, t);
        if (build_tcp_match(t, ctx->arena, (struct tcp_proxy_cfg *)ret->cfg, err)) { // just made, still ours
            return cfg_in(err, "typed_config");
        }
    }
    return 0;
}

static int build_filters(struct config_ctx *ctx, const chain_msg *m, struct filter_chain *c, struct err *err)
{
    if (m->n_filters == 0 || m->n_filters > FILTERS_MAX) {
        return cfg_fail(err, "filters", "%zu filters; 1 to %d are needed", m->n_filters, FILTERS_MAX);
    }
    c->filters = arena_array(ctx->arena, struct ext, m->n_filters);
    for (size_t i = 0; i < m->n_filters; i++) {
        if (build_network_filter(ctx, m->filters[i], &c->filters[i], err)) {
            return cfg_in(err, "filters[%zu]", i);
        }
        c->filter_count++;
        bool terminal = ((const struct network_filter_ops *)(const void *)c->filters[i].ops)->terminal;
        if (terminal != (i + 1 == m->n_filters)) {
            return cfg_fail(err, "filters", terminal ? "\"%s\" must be the last filter" : "\"%s\" is last, but does not end a chain",
                            m->filters[i]->name);
        }
    }
    return 0;
}

// Metadata exchange in front of a TCP proxy.
static bool speaks_peer_exchange(const struct filter_chain *c)
{
    const struct ext *last = &c->filters[c->filter_count - 1];
    for (size_t i = 0; i + 1 < c->filter_count; i++) {
        if (!strcmp(c->filters[i].ops->name, "istio.metadata_exchange")) {
            return !strcmp(last->ops->name, "envoy.filters.network.tcp_proxy");
        }
    }
    return false;
}

static struct hash128 hash_message(const ProtobufCMessage *m)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *p = mem_alloc(n ? n : 1);
    protobuf_c_message_pack(m, p);
    struct hash128 h = hash_content(p, n);
    free(p);
    return h;
}

static bool same_hash(const struct hash128 *a, const struct hash128 *b)
{
    return a->lo == b->lo && a->hi == b->hi;
}

// The chain of the former version that is c, if it has it. Files that c was made of may have changed: then it is another one.
static struct filter_chain *find_former(const struct listener_cfg *former, const struct map *by_hash, const struct filter_chain *c)
{
    struct filter_chain *o = former ? map_get(by_hash, str_n(&c->hash, sizeof(c->hash))) : NULL;
    bool same = o && (c->tls ? c->tls->slot : NULL) == (o->tls ? o->tls->slot : NULL);
    return same ? o : NULL;
}

static void drop_chain(void *c)
{
    filter_chain_unref(c);
}

static int fill_chain(struct config_ctx *ctx, const chain_msg *m, struct filter_chain *c, struct err *err)
{
    if (CFG_KNOWN(m, err, "filter_chain_match", "filters", "metadata", "transport_socket", "transport_socket_connect_timeout", "name")) {
        return err->code;
    }
    c->name = build_str(ctx->arena, m->name);
    c->metadata = build_metadata_bytes(m->metadata, ctx->arena);
    c->connect_timeout_ms = (uint64_t)pb_duration_ms(m->transport_socket_connect_timeout, HANDSHAKE_DEFAULT_MS);
    if (build_filters(ctx, m, c, err)) {
        return err->code;
    }
    ctx->peer_exchange = speaks_peer_exchange(c);
    return build_transport_socket(ctx, m->transport_socket, true, &c->tls, err);
}

// *ret lives as long as the listener. It is built whole even when it turns out to be known: names that it refers to are collected on the way.
static int build_chain(struct config_ctx *ctx, struct listener_cfg *l, const struct map *former, const chain_msg *m, struct filter_chain **ret,
                       struct err *err)
{
    struct filter_chain *c = filter_chain_new();
    c->hash = hash_message(&m->base);
    ctx->arena = &c->arena;
    int rc = fill_chain(ctx, m, c, err);
    ctx->arena = &l->arena;
    if (rc) {
        filter_chain_unref(c);
        return rc;
    }
    struct filter_chain *o = find_former(ctx->former, former, c);
    if (o) {
        filter_chain_unref(c);
        c = filter_chain_ref(o);
    }
    arena_on_free(&l->arena, drop_chain, c);
    *ret = c;
    return 0;
}

static int build_cidrs(struct arena *a, size_t n, Envoy__Config__Core__V3__CidrRange *const *v, const struct cidr **ret, size_t *ret_n,
                       struct err *err)
{
    struct cidr *c = arena_array(a, struct cidr, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (build_cidr(v[i], &c[i], err)) {
            return err->code;
        }
    }
    *ret = c;
    *ret_n = n;
    return 0;
}

static struct str *build_strs(struct arena *a, size_t n, char *const *v)
{
    struct str *s = arena_array(a, struct str, n + 1);
    for (size_t i = 0; i < n; i++) {
        s[i] = build_str(a, v[i]);
    }
    return s;
}

static int build_criteria(struct config_ctx *ctx, const match_msg *m, struct chain_criteria *c, struct err *err)
{
    if (CFG_KNOWN(m, err, "destination_port", "prefix_ranges", "source_type", "source_prefix_ranges", "source_ports", "server_names",
                  "transport_protocol", "application_protocols")) {
        return err->code;
    }
    struct arena *a = ctx->arena;
    c->destination_port = pb_u32_or(m->destination_port, 0);
    if (m->destination_port && (c->destination_port == 0 || c->destination_port > 65535)) {
        return cfg_fail(err, "destination_port", "%u is not 1 to 65535", c->destination_port);
    }
    if (build_cidrs(a, m->n_prefix_ranges, m->prefix_ranges, &c->destinations, &c->destination_count, err)) {
        return cfg_in(err, "prefix_ranges");
    }
    if (build_cidrs(a, m->n_source_prefix_ranges, m->source_prefix_ranges, &c->sources, &c->source_count, err)) {
        return cfg_in(err, "source_prefix_ranges");
    }
    c->server_names = build_strs(a, m->n_server_names, m->server_names);
    c->server_name_count = m->n_server_names;
    c->application_protocols = build_strs(a, m->n_application_protocols, m->application_protocols);
    c->application_protocol_count = m->n_application_protocols;
    c->transport_protocol = build_str(a, m->transport_protocol);
    c->source_type = (enum source_type)m->source_type; // same numbers
    uint32_t *ports = arena_array(a, uint32_t, m->n_source_ports + 1);
    for (size_t i = 0; i < m->n_source_ports; i++) {
        ports[i] = m->source_ports[i];
        if (ports[i] == 0 || ports[i] > 65535) {
            return cfg_fail(err, "source_ports", "%u is not 1 to 65535", ports[i]);
        }
    }
    c->source_ports = ports;
    c->source_port_count = m->n_source_ports;
    return 0;
}

static int build_chain_list(struct config_ctx *ctx, const listener_msg *m, struct listener_cfg *l, const struct map *former, struct err *err)
{
    if (m->n_filter_chains > CHAINS_MAX) {
        return cfg_fail(err, "filter_chains", "%zu chains, at most %d", m->n_filter_chains, CHAINS_MAX);
    }
    l->chains = chain_matcher_new(ctx->arena);
    l->all_chains = arena_array(ctx->arena, struct filter_chain *, m->n_filter_chains + 1);
    for (size_t i = 0; i < m->n_filter_chains; i++) {
        struct filter_chain *c = NULL;
        struct chain_criteria k = { 0 };
        if (build_chain(ctx, l, former, m->filter_chains[i], &c, err)) {
            return cfg_in(err, "filter_chains[%zu]", i);
        }
        if (m->filter_chains[i]->filter_chain_match && build_criteria(ctx, m->filter_chains[i]->filter_chain_match, &k, err)) {
            return cfg_in(err, "filter_chains[%zu].filter_chain_match", i);
        }
        struct err e = { 0 };
        if (chain_matcher_add(l->chains, &k, c, c->name, &e)) {
            cfg_fail(err, "filter_chain_match", "%.900s", e.msg);
            return cfg_in(err, "filter_chains[%zu]", i);
        }
        l->all_chains[l->chain_count++] = c;
    }
    if (m->default_filter_chain && build_chain(ctx, l, former, m->default_filter_chain, &l->default_chain, err)) {
        return cfg_in(err, "default_filter_chain");
    }
    if (l->chain_count == 0 && !l->default_chain) {
        return cfg_fail(err, "filter_chains", "at least one is needed");
    }
    return 0;
}

static int build_chains(struct config_ctx *ctx, const listener_msg *m, struct listener_cfg *l, struct err *err)
{
    struct map former = { 0 }; // by hash
    const struct listener_cfg *f = ctx->former;
    for (size_t i = 0; f && i < f->chain_count; i++) {
        map_put(&former, str_n(&f->all_chains[i]->hash, sizeof(struct hash128)), f->all_chains[i]);
    }
    if (f && f->default_chain) {
        map_put(&former, str_n(&f->default_chain->hash, sizeof(struct hash128)), f->default_chain);
    }
    int rc = build_chain_list(ctx, m, l, &former, err);
    map_fini(&former);
    return rc;
}

static int build_predicate(struct arena *a, const predicate_msg *m, int depth, struct port_predicate **ret, struct err *err);

static int build_predicate_set(struct arena *a, size_t n, predicate_msg *const *v, int depth, struct port_predicate *p, struct err *err)
{
    p->rules = arena_array(a, struct port_predicate *, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (build_predicate(a, v[i], depth + 1, &p->rules[i], err)) {
            return err->code;
        }
    }
    p->rule_count = n;
    return 0;
}

static int build_predicate(struct arena *a, const predicate_msg *m, int depth, struct port_predicate **ret, struct err *err)
{
    if (depth > PREDICATE_DEPTH_MAX) {
        return cfg_fail(err, "filter_disabled", "nested deeper than %d", PREDICATE_DEPTH_MAX);
    }
    struct port_predicate *p = arena_new(a, struct port_predicate);
    *ret = p;
    switch (m->rule_case) {
    case ENVOY__CONFIG__LISTENER__V3__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_OR_MATCH:
        p->kind = PP_OR;
        return build_predicate_set(a, m->or_match->n_rules, m->or_match->rules, depth, p, err);
    case ENVOY__CONFIG__LISTENER__V3__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_AND_MATCH:
        p->kind = PP_AND;
        return build_predicate_set(a, m->and_match->n_rules, m->and_match->rules, depth, p, err);
    case ENVOY__CONFIG__LISTENER__V3__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_NOT_MATCH: {
        predicate_msg *one[] = { m->not_match };
        p->kind = PP_NOT;
        return build_predicate_set(a, 1, one, depth, p, err);
    }
    case ENVOY__CONFIG__LISTENER__V3__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_ANY_MATCH:
        p->kind = PP_ANY;
        return 0;
    case ENVOY__CONFIG__LISTENER__V3__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_DESTINATION_PORT_RANGE:
        p->kind = PP_RANGE;
        p->start = m->destination_port_range->start;
        p->end = m->destination_port_range->end;
        return 0;
    default:
        return cfg_fail(err, "filter_disabled", "rule missing");
    }
}

static int build_listener_filter(struct config_ctx *ctx, const Envoy__Config__Listener__V3__ListenerFilter *m,
                                 struct listener_filter_cfg *f, struct err *err)
{
    if (m->config_type_case == ENVOY__CONFIG__LISTENER__V3__LISTENER_FILTER__CONFIG_TYPE_CONFIG_DISCOVERY) {
        return cfg_fail(err, "config_discovery", "not supported yet");
    }
    const Google__Protobuf__Any *any =
        m->config_type_case == ENVOY__CONFIG__LISTENER__V3__LISTENER_FILTER__CONFIG_TYPE_TYPED_CONFIG ? m->typed_config : NULL;
    struct str declared = any ? pb_any_type_name(any, ctx->scratch) : str_n(NULL, 0);
    const struct listener_filter_ops *ops = listener_filter_find(str_c(m->name), declared);
    ProtobufCMessage *msg;
    if (!ops) {
        return cfg_fail(err, "name", "listener filter \"%s\" (%.*s) is not supported", m->name, STR_FMT(declared));
    }
    if (unpack_config(ctx, any, &ops->ext, m->name, &msg, err) || parse_ext(ctx, &ops->ext, msg, m->name, &f->ext, err)) {
        return err->code;
    }
    return m->filter_disabled ? build_predicate(ctx->arena, m->filter_disabled, 0, &f->disabled, err) : 0;
}

static int build_listener_filters(struct config_ctx *ctx, const listener_msg *m, struct listener_cfg *l, struct err *err)
{
    if (m->n_listener_filters > FILTERS_MAX) {
        return cfg_fail(err, "listener_filters", "%zu filters, at most %d", m->n_listener_filters, FILTERS_MAX);
    }
    l->listener_filters = arena_array(ctx->arena, struct listener_filter_cfg, m->n_listener_filters + 1);
    for (size_t i = 0; i < m->n_listener_filters; i++) {
        if (build_listener_filter(ctx, m->listener_filters[i], &l->listener_filters[i], err)) {
            return cfg_in(err, "listener_filters[%zu]", i);
        }
        l->listener_filter_count++;
    }
    l->listener_filters_timeout_ms = (uint64_t)pb_duration_ms(m->listener_filters_timeout, 15000);
    l->continue_on_timeout = m->continue_on_listener_filters_timeout;
    bool server_first = true;
    if (runtime_bool(ctx, "remora.server_first", &server_first, err)) {
        return err->code;
    }
    l->no_server_first = !server_first;
    return 0;
}

static int build_addresses(struct config_ctx *ctx, const listener_msg *m, struct listener_cfg *l, struct err *err)
{
    l->addresses = arena_array(ctx->arena, struct addr, 1 + m->n_additional_addresses);
    if (build_address(m->address, ctx->arena, &l->addresses[0], err)) {
        return cfg_in(err, "address");
    }
    l->address_count = 1;
    for (size_t i = 0; i < m->n_additional_addresses; i++) {
        if (build_address(m->additional_addresses[i]->address, ctx->arena, &l->addresses[l->address_count++], err)) {
            return cfg_in(err, "additional_addresses[%zu].address", i);
        }
    }
    if (m->stat_prefix[0]) {
        l->stat_name = build_str(ctx->arena, m->stat_prefix);
    } else {
        char ip[ADDR_TEXT_MAX];
        const struct addr *a = &l->addresses[0];
        if (a->family == AF_UNIX) {
            l->stat_name = arena_printf(ctx->arena, "%s", a->path);
        } else {
            l->stat_name = arena_printf(ctx->arena, a->family == AF_INET6 ? "[%s]_%u" : "%s_%u", addr_ip_text(a, ip), a->port);
        }
    }
    return 0;
}

static int build_access_logs(struct config_ctx *ctx, const listener_msg *m, struct listener_cfg *l, struct err *err)
{
    l->access_logs = arena_array(ctx->arena, struct access_log_cfg *, m->n_access_log + 1);
    for (size_t i = 0; i < m->n_access_log; i++) {
        if (access_log_parse(m->access_log[i], ctx->arena, &l->access_logs[l->access_log_count++], err)) {
            return cfg_in(err, "access_log[%zu]", i);
        }
    }
    return 0;
}

static int check_known(const listener_msg *m, struct err *err)
{
    return CFG_KNOWN(m, err, "name", "address", "additional_addresses", "stat_prefix", "filter_chains", "use_original_dst",
                     "default_filter_chain", "per_connection_buffer_limit_bytes", "metadata", "deprecated_v1", "drain_type",
                     "listener_filters", "listener_filters_timeout", "continue_on_listener_filters_timeout", "transparent", "freebind",
                     "traffic_direction", "connection_balance_config", "reuse_port", "enable_reuse_port", "access_log",
                     "tcp_backlog_size", "max_connections_to_accept_per_socket_event", "bind_to_port", "ignore_global_conn_limit",
                     "bypass_overload_manager");
}

static int fill(struct config_ctx *ctx, const listener_msg *m, struct listener_cfg *l, struct err *err)
{
    if (check_known(m, err)) {
        return err->code;
    }
    l->name = build_str(ctx->arena, m->name);
    l->metadata = build_metadata_bytes(m->metadata, ctx->arena);
    l->bind_to_port = pb_bool_or(m->bind_to_port, m->deprecated_v1 ? pb_bool_or(m->deprecated_v1->bind_to_port, true) : true);
    l->use_original_dst = pb_bool_or(m->use_original_dst, false);
    l->transparent = pb_bool_or(m->transparent, false);
    l->freebind = pb_bool_or(m->freebind, false);
    l->ignore_global_limit = m->ignore_global_conn_limit || m->bypass_overload_manager;
    l->reuse_port = true; // one socket per worker always
    l->direction = (enum traffic_direction)m->traffic_direction; // same numbers
    l->max_accept_per_event = pb_u32_or(m->max_connections_to_accept_per_socket_event, 0);
    l->buffer_limit = pb_u32_or(m->per_connection_buffer_limit_bytes, 0);
    if (build_addresses(ctx, m, l, err) || build_listener_filters(ctx, m, l, err) || build_chains(ctx, m, l, err) ||
        build_access_logs(ctx, m, l, err)) {
        return err->code;
    }
    return 0;
}

// As Envoy tells a change of filter chains only from another one.
static struct hash128 hash_rest(const listener_msg *m)
{
    listener_msg rest = *m;
    rest.n_filter_chains = 0;
    rest.filter_chains = NULL;
    rest.default_filter_chain = NULL;
    return hash_message(&rest.base);
}

int build_listener(struct config_ctx *ctx, struct str bytes, struct listener_cfg **ret, struct err *err)
{
    listener_msg *m = NULL;
    config_route_match = build_route_match; // for filters, which cannot call this folder
    config_uses_cluster = config_ctx_add_cluster;
    if (pb_unpack_as(listener_msg, envoy__config__listener__v3__listener, bytes, ctx->scratch, &m, err) || pb_whole(&m->base, NULL, NULL, err)) {
        return err->code;
    }
    struct listener_cfg *l = calloc(1, sizeof(*l));
    if (!l) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    refs_init(&l->refs);
    arena_init(&l->arena, LISTENER_BLOCK_BYTES, 0);
    l->hash = hash_content(bytes.p, bytes.n);
    l->rest_hash = hash_rest(m);
    if (ctx->former && !same_hash(&ctx->former->rest_hash, &l->rest_hash)) {
        ctx->former = NULL;
    }
    ctx->arena = ctx->names_arena = &l->arena;
    int rc = fill(ctx, m, l, err);
    if (rc) {
        listener_cfg_unref(l);
        return rc;
    }
    *ret = l;
    return 0;
}
