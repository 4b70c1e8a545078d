// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/bootstrap.h"

#include <stdio.h>
#include <string.h>

#include "envoy/config/core/v3/config_source.pb-c.h"
#include "envoy/config/core/v3/grpc_service.pb-c.h"
#include "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections.pb-c.h"
#include "envoy/extensions/transport_sockets/tls/v3/tls.pb-c.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"
#include "proxy/upstream/cluster.h"

typedef Envoy__Config__Bootstrap__V3__Bootstrap bootstrap_msg;
typedef Envoy__Config__Cluster__V3__Cluster cluster_msg;
typedef Envoy__Config__Core__V3__ConfigSource source_msg;

static const cluster_msg *static_cluster(const bootstrap_msg *m, const char *name)
{
    for (size_t i = 0; m->static_resources && i < m->static_resources->n_clusters; i++) {
        if (!strcmp(m->static_resources->clusters[i]->name, name)) {
            return m->static_resources->clusters[i];
        }
    }
    return NULL;
}

// The first endpoint of the cluster that the ADS stream goes to, as gRPC's target.
static int ads_target(const cluster_msg *c, struct bootstrap *b, struct err *err)
{
    const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *la = c->load_assignment;
    if (!la || !la->n_endpoints || !la->endpoints[0]->n_lb_endpoints || !la->endpoints[0]->lb_endpoints[0]->endpoint ||
        !la->endpoints[0]->lb_endpoints[0]->endpoint->address) {
        return cfg_fail(err, "load_assignment", "cluster \"%s\" has no endpoint", c->name);
    }
    const Envoy__Config__Core__V3__Address *a = la->endpoints[0]->lb_endpoints[0]->endpoint->address;
    if (a->address_case == ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_PIPE) {
        b->ads.target = arena_printf(&b->arena, "unix:%s", a->pipe->path);
    } else if (a->address_case == ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_SOCKET_ADDRESS) {
        b->ads.target = arena_printf(&b->arena, strchr(a->socket_address->address, ':') ? "[%s]:%u" : "%s:%u", a->socket_address->address,
                                     a->socket_address->port_value);
    } else {
        return cfg_fail(err, "load_assignment", "cluster \"%s\": unusable address", c->name);
    }
    return 0;
}

static int ads_file(const Envoy__Config__Core__V3__DataSource *d, struct bootstrap *b, struct str *ret_file, struct str *ret_text,
                    struct err *err)
{
    if (d && d->specifier_case == ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_FILENAME) {
        *ret_file = build_str(&b->arena, d->filename);
        return 0;
    }
    if (d && ret_text) {
        return build_data_source(d, &b->arena, ret_text, err);
    }
    return d ? cfg_fail(err, "specifier", "give a filename") : 0;
}

typedef Envoy__Extensions__TransportSockets__Tls__V3__CommonTlsContext common_tls;

// What gRPC's own TLS takes. The rest would be a promise about who the control plane is that nobody keeps.
static int check_ads_tls(const common_tls *k, struct err *err)
{
    if (CFG_KNOWN(k, err, "tls_certificates", "validation_context", "alpn_protocols")) {
        return err->code;
    }
    if (k->validation_context_type_case == ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT &&
        CFG_KNOWN(k->validation_context, err, "trusted_ca")) {
        return cfg_in(err, "validation_context");
    }
    for (size_t i = 0; i < k->n_tls_certificates; i++) {
        if (i > 0) {
            return cfg_fail(err, "tls_certificates", "more than one certificate is not supported yet");
        }
        if (CFG_KNOWN(k->tls_certificates[i], err, "certificate_chain", "private_key")) {
            return cfg_in(err, "tls_certificates[0]");
        }
    }
    return 0;
}

static int ads_tls(const cluster_msg *c, struct bootstrap *b, struct err *err)
{
    if (!c->transport_socket || !c->transport_socket->typed_config) { // raw_buffer by its name
        return c->transport_socket && strcmp(c->transport_socket->name, "envoy.transport_sockets.raw_buffer")
                   ? cfg_fail(err, "transport_socket.typed_config", "missing")
                   : 0;
    }
    if (str_is(pb_any_type_name(c->transport_socket->typed_config, &b->arena), "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer")) {
        return 0;
    }
    Envoy__Extensions__TransportSockets__Tls__V3__UpstreamTlsContext *t = NULL;
    struct err e = { 0 };
    if (pb_any_unpack_whole_as(Envoy__Extensions__TransportSockets__Tls__V3__UpstreamTlsContext,
                         envoy__extensions__transport_sockets__tls__v3__upstream_tls_context, c->transport_socket->typed_config, &b->arena, &t,
                         &e)) {
        return cfg_fail(err, "transport_socket.typed_config", "%.900s", e.msg);
    }
    if (CFG_KNOWN(t, err, "common_tls_context", "sni", "max_session_keys")) {
        return cfg_in(err, "transport_socket.typed_config");
    }
    b->ads.tls = true;
    b->ads.server_name = build_str(&b->arena, t->sni);
    const common_tls *k = t->common_tls_context;
    if (!k) {
        return 0;
    }
    if (check_ads_tls(k, err)) {
        return cfg_in(err, "transport_socket.typed_config.common_tls_context");
    }
    if (k->validation_context_type_case == ENVOY__EXTENSIONS__TRANSPORT_SOCKETS__TLS__V3__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT &&
        ads_file(k->validation_context->trusted_ca, b, &b->ads.root_file, &b->ads.root_pem, err)) {
        return cfg_in(err, "transport_socket.typed_config.common_tls_context.validation_context.trusted_ca");
    }
    if (k->n_tls_certificates && (ads_file(k->tls_certificates[0]->certificate_chain, b, &b->ads.cert_file, NULL, err) ||
                                  ads_file(k->tls_certificates[0]->private_key, b, &b->ads.key_file, NULL, err))) {
        return cfg_in(err, "transport_socket.typed_config.common_tls_context.tls_certificates[0]");
    }
    return 0;
}

// set_node_on_first_message_only: the node is told once in any case. The client's own pace stands in for rate_limit_settings.
static int check_ads(const Envoy__Config__Core__V3__ApiConfigSource *a, struct err *err)
{
    if (CFG_KNOWN(a, err, "api_type", "transport_api_version", "grpc_services", "set_node_on_first_message_only", "rate_limit_settings")) {
        return err->code;
    }
    if (a->api_type == ENVOY__CONFIG__CORE__V3__API_CONFIG_SOURCE__API_TYPE__REST ||
        a->api_type == ENVOY__CONFIG__CORE__V3__API_CONFIG_SOURCE__API_TYPE__DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE) {
        return cfg_fail(err, "api_type", "one of GRPC, DELTA_GRPC, AGGREGATED_GRPC, AGGREGATED_DELTA_GRPC is needed");
    }
    if (a->transport_api_version == ENVOY__CONFIG__CORE__V3__API_VERSION__V2) {
        return cfg_fail(err, "transport_api_version", "only V3 is spoken");
    }
    if (a->n_grpc_services > 1) {
        return cfg_fail(err, "grpc_services", "more than one is not supported");
    }
    if (CFG_KNOWN(a->grpc_services[0], err, "envoy_grpc", "initial_metadata") ||
        CFG_KNOWN(a->grpc_services[0]->envoy_grpc, err, "cluster_name", "skip_envoy_headers", "max_receive_message_length")) {
        return cfg_in(err, "grpc_services[0]");
    }
    return 0;
}

// Metadata pairs of the stream.
static int take_metadata(const Envoy__Config__Core__V3__GrpcService *g, struct bootstrap *b, struct err *err)
{
    struct str(*h)[2] = arena_zalloc(&b->arena, sizeof(*h) * (g->n_initial_metadata + 1));
    for (size_t i = 0; i < g->n_initial_metadata; i++) {
        const Envoy__Config__Core__V3__HeaderValue *v = g->initial_metadata[i];
        if (!v->key[0] || v->raw_value.len || strchr(v->value, '%')) {
            return cfg_fail(err, "grpc_services[0].initial_metadata", "entry %zu: key and value are needed, without raw_value and operators", i);
        }
        h[i][0] = build_str(&b->arena, v->key);
        for (size_t k = 0; k < h[i][0].n; k++) { // gRPC metadata keys are lower case
            char *c = (char *)h[i][0].p + k;
            *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
        }
        h[i][1] = build_str(&b->arena, v->value);
    }
    b->ads.headers = (const struct str(*)[2])h;
    b->ads.header_count = g->n_initial_metadata;
    return 0;
}

static int take_ads(const bootstrap_msg *m, const Envoy__Config__Core__V3__ApiConfigSource *a, struct bootstrap *b, struct err *err)
{
    if (a->n_grpc_services == 0 ||
        a->grpc_services[0]->target_specifier_case != ENVOY__CONFIG__CORE__V3__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC) {
        return cfg_fail(err, "grpc_services", "one entry with envoy_grpc.cluster_name is needed");
    }
    if (check_ads(a, err) || take_metadata(a->grpc_services[0], b, err)) {
        return err->code;
    }
    const char *name = a->grpc_services[0]->envoy_grpc->cluster_name;
    const cluster_msg *c = static_cluster(m, name);
    if (!c) {
        return cfg_fail(err, "grpc_services[0].envoy_grpc.cluster_name", "there is no static cluster \"%s\"", name);
    }
    b->has_ads = true;
    b->ads.delta = a->api_type == ENVOY__CONFIG__CORE__V3__API_CONFIG_SOURCE__API_TYPE__DELTA_GRPC ||
                   a->api_type == ENVOY__CONFIG__CORE__V3__API_CONFIG_SOURCE__API_TYPE__AGGREGATED_DELTA_GRPC;
    if (ads_target(c, b, err) || ads_tls(c, b, err)) {
        return cfg_in(err, "static_resources.clusters[%s]", name);
    }
    return 0;
}

static const char *source_path(const source_msg *s)
{
    if (s->config_source_specifier_case == ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH) {
        return s->path;
    }
    if (s->config_source_specifier_case == ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH_CONFIG_SOURCE) {
        return s->path_config_source->path;
    }
    return NULL;
}

// lds_config or cds_config: a path, the ADS stream, or a gRPC service of its own (taken as the ADS stream when there is none).
static int take_source(const bootstrap_msg *m, const source_msg *s, const char *field, struct bootstrap *b, const char **ret_path, bool *ret_ads,
                       struct err *err)
{
    if (!s) {
        return 0;
    }
    *ret_path = source_path(s);
    if (*ret_path) {
        return **ret_path ? 0 : cfg_fail(err, field, "the path is empty");
    }
    *ret_ads = true;
    switch (s->config_source_specifier_case) {
    case ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS:
        return b->has_ads ? 0 : cfg_fail(err, field, "ads is asked for, but there is no ads_config");
    case ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_API_CONFIG_SOURCE:
        if (b->has_ads) {
            return cfg_fail(err, field, "a stream of its own beside another one is not supported; give ads");
        }
        return take_ads(m, s->api_config_source, b, err) ? cfg_in(err, "%s.api_config_source", field) : 0;
    default:
        return cfg_fail(err, field, "one of ads, path, path_config_source is needed");
    }
}

static int check_runtime(const Envoy__Config__Bootstrap__V3__LayeredRuntime *r, struct err *err)
{
    for (size_t i = 0; r && i < r->n_layers; i++) {
        switch (r->layers[i]->layer_specifier_case) {
        case ENVOY__CONFIG__BOOTSTRAP__V3__RUNTIME_LAYER__LAYER_SPECIFIER_STATIC_LAYER:
        case ENVOY__CONFIG__BOOTSTRAP__V3__RUNTIME_LAYER__LAYER_SPECIFIER_ADMIN_LAYER: // nothing can be set over the admin port
            break;
        default:
            return cfg_fail(err, "layered_runtime", "layer %zu: only static_layer and admin_layer are supported", i);
        }
    }
    return 0;
}

static int take_monitor(const Envoy__Config__Overload__V3__ResourceMonitor *m, struct bootstrap *b, struct err *err)
{
    Envoy__Extensions__ResourceMonitors__DownstreamConnections__V3__DownstreamConnectionsConfig *c = NULL;
    struct err e = { 0 };
    if (strcmp(m->name, "envoy.resource_monitors.global_downstream_max_connections")) {
        return cfg_fail(err, "name", "\"%s\" is not supported", m->name);
    }
    if (pb_any_unpack_whole_as(Envoy__Extensions__ResourceMonitors__DownstreamConnections__V3__DownstreamConnectionsConfig,
                               envoy__extensions__resource_monitors__downstream_connections__v3__downstream_connections_config,
                               m->typed_config, &b->arena, &c, &e)) {
        return cfg_fail(err, "typed_config", "%.900s", e.msg);
    }
    if (c->max_active_downstream_connections <= 0) {
        return cfg_fail(err, "typed_config.max_active_downstream_connections", "must be greater than 0");
    }
    b->max_connections = (uint64_t)c->max_active_downstream_connections;
    return 0;
}

// The one limit that sidecars' files have, by a monitor or, as in older ones, by a runtime key. Others would protect memory that nobody watches.
static int take_overload(struct bootstrap *b, struct err *err)
{
    const Envoy__Config__Overload__V3__OverloadManager *o = b->msg->overload_manager;
    const struct config_ctx ctx = { .runtime = b->msg->layered_runtime };
    if (runtime_number(&ctx, "overload.global_downstream_max_connections", UINT64_MAX - 1, &b->max_connections) && b->max_connections == 0) {
        return cfg_fail(err, "layered_runtime", "overload.global_downstream_max_connections must be greater than 0");
    }
    if (!o) {
        return 0;
    }
    if (CFG_KNOWN(o, err, "refresh_interval", "resource_monitors")) {
        return cfg_in(err, "overload_manager");
    }
    for (size_t i = 0; i < o->n_resource_monitors; i++) {
        if (take_monitor(o->resource_monitors[i], b, err)) {
            return cfg_in(err, "overload_manager.resource_monitors[%zu]", i);
        }
    }
    return 0;
}

static int check_known(const bootstrap_msg *m, struct err *err)
{
    // What is listed beyond node, resources and admin sets up telemetry, memory and watchdogs of Envoy's own process.
    if (CFG_KNOWN(m, err, "node", "static_resources", "dynamic_resources", "cluster_manager", "stats_config", "stats_flush_interval",
                  "stats_flush_on_admin", "stats_eviction_interval", "deferred_stat_options", "watchdog", "watchdogs", "layered_runtime",
                  "admin", "overload_manager", "application_log_config", "tracing", "stats_sinks", "bootstrap_extensions")) {
        return err->code;
    }
    if (m->admin && CFG_KNOWN(m->admin, err, "access_log", "access_log_path", "profile_path", "address", "ignore_global_conn_limit")) {
        return cfg_in(err, "admin");
    }
    if (m->cluster_manager && CFG_KNOWN(m->cluster_manager, err, "local_cluster_name", "outlier_detection", "enable_deferred_cluster_creation")) {
        return cfg_in(err, "cluster_manager");
    }
    for (size_t i = 0; i < m->n_bootstrap_extensions; i++) { // it only registers what listeners may then use, and they are refused
        if (strcmp(m->bootstrap_extensions[i]->name, "envoy.bootstrap.internal_listener")) {
            return cfg_fail(err, "bootstrap_extensions", "\"%s\" is not supported", m->bootstrap_extensions[i]->name);
        }
    }
    return check_runtime(m->layered_runtime, err);
}

static int take_all(struct bootstrap *b, struct err *err)
{
    const bootstrap_msg *m = b->msg;
    if (check_known(m, err) || take_overload(b, err)) {
        return err->code;
    }
    if (m->admin && m->admin->address && build_address(m->admin->address, &b->arena, &b->admin, err)) {
        return cfg_in(err, "admin.address");
    }
    const Envoy__Config__Bootstrap__V3__Bootstrap__DynamicResources *d = m->dynamic_resources;
    if (!d) {
        return 0;
    }
    if (d->ads_config && take_ads(m, d->ads_config, b, err)) {
        return cfg_in(err, "dynamic_resources.ads_config");
    }
    return take_source(m, d->lds_config, "lds_config", b, &b->lds_path, &b->lds_ads, err) ||
                   take_source(m, d->cds_config, "cds_config", b, &b->cds_path, &b->cds_ads, err)
               ? cfg_in(err, "dynamic_resources")
               : 0;
}

int bootstrap_parse(struct str text, const char *name, struct bootstrap *ret, struct err *err)
{
    struct bootstrap b = { 0 };
    ProtobufCMessage *m = NULL;
    if (pb_json_parse(text, &envoy__config__bootstrap__v3__bootstrap__descriptor, 0, &b.arena, &m, err)) {
        err_wrap(err, "%s", name);
        arena_fini(&b.arena);
        return err->code;
    }
    b.msg = (bootstrap_msg *)(void *)m;
    if (take_all(&b, err)) {
        err_wrap(err, "%s", name);
        arena_fini(&b.arena);
        return err->code;
    }
    *ret = b;
    return 0;
}

void bootstrap_set_local(const struct bootstrap *b)
{
    const bootstrap_msg *m = b->msg;
    const Envoy__Config__Core__V3__Locality *l = m->node ? m->node->locality : NULL;
    struct upstream_local here = { .cluster = str_c(m->cluster_manager ? m->cluster_manager->local_cluster_name : "") };
    if (l) {
        here.region = str_c(l->region);
        here.zone = str_c(l->zone);
        here.sub_zone = str_c(l->sub_zone);
    }
    upstream_set_local(&here);
}

void bootstrap_fini(struct bootstrap *b)
{
    arena_fini(&b->arena);
    memset(b, 0, sizeof(*b));
}

static int commit(struct xds_client *x, enum xds_type t, const char *field, struct err *err)
{
    struct err e = { 0 };
    int refused = xds_mem_commit(x, t, &e);
    if (refused) {
        return cfg_fail(err, field, "%.900s", e.msg);
    }
    return 0;
}

static int apply_static(const struct bootstrap *b, struct xds_client *x, struct err *err)
{
    const Envoy__Config__Bootstrap__V3__Bootstrap__StaticResources *s = b->msg->static_resources;
    struct arena a = { 0 };
    int rc = 0;
    for (size_t i = 0; s && i < s->n_secrets; i++) {
        xds_mem_put(x, XDS_SECRET, str_c(s->secrets[i]->name), pb_pack(&s->secrets[i]->base, &a));
    }
    for (size_t i = 0; s && i < s->n_clusters; i++) {
        xds_mem_put(x, XDS_CLUSTER, str_c(s->clusters[i]->name), pb_pack(&s->clusters[i]->base, &a));
    }
    for (size_t i = 0; s && i < s->n_listeners; i++) {
        // A static listener may be nameless; it gets one, since resources are kept by name.
        char name[32];
        snprintf(name, sizeof(name), "listener_%zu", i);
        struct str n = s->listeners[i]->name[0] ? str_c(s->listeners[i]->name) : str_c(name);
        xds_mem_put(x, XDS_LISTENER, n, pb_pack(&s->listeners[i]->base, &a));
    }
    rc = s && s->n_secrets ? commit(x, XDS_SECRET, "static_resources.secrets", err) : 0;
    rc = rc || !s || !s->n_clusters ? rc : commit(x, XDS_CLUSTER, "static_resources.clusters", err);
    rc = rc || !s || !s->n_listeners ? rc : commit(x, XDS_LISTENER, "static_resources.listeners", err);
    arena_fini(&a);
    return rc;
}

int bootstrap_apply(const struct bootstrap *b, struct xds_client *x, struct err *err)
{
    if (apply_static(b, x, err)) {
        return err->code;
    }
    if (b->cds_path && xds_add_file(x, XDS_CLUSTER, b->cds_path, err)) {
        return err->code;
    }
    if (b->lds_path && xds_add_file(x, XDS_LISTENER, b->lds_path, err)) {
        return err->code;
    }
    if (b->cds_ads || b->cds_path) {
        xds_subscribe(x, XDS_CLUSTER, NULL, 0);
    }
    if (b->lds_ads || b->lds_path) {
        xds_subscribe(x, XDS_LISTENER, NULL, 0);
    }
    return b->has_ads ? xds_add_ads(x, &b->ads, err) : 0;
}
