// SPDX-License-Identifier: Apache-2.0
// Builders: one xDS message in, one frozen model object out, or "path.to.field: reason". Control thread; no I/O but what is said.
#ifndef PROXY_CONFIG_BUILD_H
#define PROXY_CONFIG_BUILD_H

#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/core/v3/address.pb-c.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/config/core/v3/config_source.pb-c.h"
#include "envoy/config/endpoint/v3/endpoint.pb-c.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "envoy/config/route/v3/route.pb-c.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "envoy/type/matcher/v3/string.pb-c.h"
#include "envoy/type/v3/percent.pb-c.h"
#include "proxy/config/config_ctx.h"
#include "proxy/http/manager.h"
#include "proxy/model/cluster_cfg.h"
#include "proxy/model/listener_cfg.h"
#include "proxy/model/matcher.h"
#include "proxy/model/route_table.h"

// ---- whole resources: bytes of the resource (for the content hash), a fresh object with one reference ----
int build_cluster(struct config_ctx *ctx, struct str bytes, struct cluster_cfg **ret, struct err *err);
int build_listener(struct config_ctx *ctx, struct str bytes, struct listener_cfg **ret, struct err *err);
int build_route_table(struct config_ctx *ctx, const Envoy__Config__Route__V3__RouteConfiguration *m, struct hash128 hash,
                      struct route_table **ret, struct err *err);
// A route.v3.RouteMatch (msg) for route_match; config_route_match of filters.
int build_route_match(struct config_ctx *ctx, const void *msg, struct arena *a, struct route *ret, struct err *err);
int build_route_table_bytes(struct config_ctx *ctx, struct str bytes, struct route_table **ret, struct err *err);
// Endpoints of an assignment into the arena. names: whether DNS names are allowed as addresses (DNS clusters).
int build_endpoints(const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *m, bool names, struct arena *a, struct lb_endpoint_cfg **ret,
                    size_t *ret_count, struct err *err);
int build_endpoint_policy(const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *m, struct arena *a, struct endpoint_policy *ret,
                          struct err *err);

// ---- parts ----
// "envoy.lb" metadata of an endpoint as canonical texts: proxy/model/lb_criteria.h. Lists also give their elements. st may be NULL.
int build_lb_metadata(const Google__Protobuf__Struct *st, struct arena *a, struct lb_criterion **ret, size_t *ret_count, struct err *err);
// The parts of a cluster, from files of their own: common_lb_config, lb_policy with its options, load_balancing_policy, lb_subset_config;
// health_checks; outlier_detection and circuit_breakers.
int build_balancing(struct config_ctx *ctx, const Envoy__Config__Cluster__V3__Cluster *m, struct cluster_cfg *c, struct err *err);
int build_health_checks(struct config_ctx *ctx, const Envoy__Config__Cluster__V3__Cluster *m, struct cluster_cfg *c, struct err *err);
int build_resilience(const Envoy__Config__Cluster__V3__Cluster *m, struct cluster_cfg *c, struct err *err);
int build_address(const Envoy__Config__Core__V3__Address *m, struct arena *a, struct addr *ret, struct err *err);
int build_cidr(const Envoy__Config__Core__V3__CidrRange *m, struct cidr *ret, struct err *err);
// RFC 9110 §5.1, §5.5: a token; no control characters but tabs. What is put into messages must not be able to end a line of theirs.
bool build_header_name_ok(struct str name);
bool build_header_value_ok(struct str value);
// inline_string, inline_bytes, filename (read now), environment_variable. NULL m gives the empty view.
int build_data_source(const Envoy__Config__Core__V3__DataSource *m, struct arena *a, struct str *ret, struct err *err);
// http2_protocol_options of either side; 0 = not said.
enum { HEAD_KB_MAX = 8192 }; // max_request_headers_kb, max_response_headers_kb
// Http1ProtocolOptions of a listener or a cluster (o NULL: not there) and the runtime's say, into limits and names.
int build_h1_options(struct config_ctx *ctx, const Envoy__Config__Core__V3__Http1ProtocolOptions *o, struct h1_limits *limits,
                     enum h1_names *names, struct err *err);
struct build_h2 {
    uint32_t max_streams, stream_window, conn_window;
    bool allow_connect;
    struct h2_opts opts;
};
int build_h2_options(const Envoy__Config__Core__V3__Http2ProtocolOptions *o, struct build_h2 *ret, struct err *err);
int build_string_matcher(const Envoy__Type__Matcher__V3__StringMatcher *m, struct arena *a, struct string_matcher *ret, struct err *err);
int build_header_matcher(const Envoy__Config__Route__V3__HeaderMatcher *m, struct arena *a, struct header_matcher *ret, struct err *err);
int build_regex(const Envoy__Type__Matcher__V3__RegexMatcher *m, struct arena *a, struct regex **ret, struct err *err);
struct fraction build_fraction(const Envoy__Type__V3__FractionalPercent *m);
// Entries of …_headers_to_add; field names them in errors.
int build_header_adds(size_t n, Envoy__Config__Core__V3__HeaderValueOption *const *v, const char *field, struct arena *a, struct header_add **ret,
                      size_t *ret_count, struct err *err);
int build_local_replies(struct config_ctx *ctx, const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__LocalReplyConfig *m,
                        struct local_replies **ret, struct err *err);
int build_http_manager(struct config_ctx *ctx, const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager *m,
                       struct http_manager_cfg **ret, struct err *err);
// retry_policy of a route or virtual host; m NULL leaves *ret alone.
int build_retry_policy(struct config_ctx *ctx, const Envoy__Config__Route__V3__RetryPolicy *m, struct retry_policy **ret, struct err *err);
// hedge_policy: *ret = hedge_on_per_try_timeout. m may be NULL.
int build_hedge(const Envoy__Config__Route__V3__HedgePolicy *m, bool *ret, struct err *err);
int build_internal_redirect(struct config_ctx *ctx, const Envoy__Config__Route__V3__InternalRedirectPolicy *m, struct internal_redirect **ret,
                            struct err *err);
// ---- runtime.c: static layers of the bootstrap's layered_runtime ----
// The fraction of a key where the runtime has it, else its default_value.
struct fraction build_runtime_fraction(const struct config_ctx *ctx, const Envoy__Config__Core__V3__RuntimeFractionalPercent *m);
// False, *ret left alone: the runtime does not have the key, or it is no number. Clipped to max.
int runtime_bool(const struct config_ctx *ctx, const char *key, bool *ret, struct err *err); // fails when the value is no bool
bool runtime_number(const struct config_ctx *ctx, const char *key, uint64_t max, uint64_t *ret);
bool runtime_fraction(const struct config_ctx *ctx, const char *key, uint32_t *ret_numerator, uint32_t *ret_denominator);
// The filter_metadata of m as bytes (proxy/core/metadata.h), in the arena; empty when there is none. m may be NULL.
struct str build_metadata_bytes(const Envoy__Config__Core__V3__Metadata *m, struct arena *a);
// Canonical text of a string, number or bool of metadata, in the arena, for comparing; p NULL for other values.
struct str build_value_text(const Google__Protobuf__Value *v, struct arena *a);
// typed_per_filter_config of a route, weighted cluster or virtual host.
int build_per_filter(struct config_ctx *ctx, size_t n, ProtobufCMessage *const *entries, struct ext **ret, size_t *ret_count, struct err *err);
// The configuration of an extension, checked for what we do not know unless the extension only observes (ext_ops.lenient).
int build_ext_config(const Google__Protobuf__Any *any, const struct ext_ops *ops, struct arena *a, ProtobufCMessage **ret, struct err *err);
// Upstream or downstream transport socket. *ret NULL = raw_buffer. m NULL = raw.
int build_transport_socket(struct config_ctx *ctx, const Envoy__Config__Core__V3__TransportSocket *m, bool server, struct tls_cfg **ret,
                           struct err *err);
// Upstream transport socket into t: as above, or upstream_proxy_protocol around one of them.
int build_upstream_socket(struct config_ctx *ctx, const Envoy__Config__Core__V3__TransportSocket *m, struct transport_cfg *t, struct err *err);
// Where resources of a type (enum xds_type) come from. A file becomes a source of its own (ctx->add_source). *ret_remote: a source of the
// xds-client delivers them; false for api_config_source, a gRPC service of their own: what Istio calls sds-grpc is this process.
int build_config_source(struct config_ctx *ctx, const Envoy__Config__Core__V3__ConfigSource *m, int type, bool *ret_remote, struct err *err);
// The view of a protobuf string copied into the arena.
static inline struct str build_str(struct arena *a, const char *s)
{
    return arena_str(a, str_c(s ? s : ""));
}

#endif
