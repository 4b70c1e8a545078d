// SPDX-License-Identifier: Apache-2.0
// Inside the compiler: resources are written as YAML flow text with printf, where every value that came from a user is quoted with q(), then
// read by the same strict JSON codec that reads files, and packed. That keeps the shapes readable next to istiod's dumps.
#ifndef CONTROL_PLANE_COMPILE_INT_H
#define CONTROL_PLANE_COMPILE_INT_H

#include "control-plane/compile.h"
#include "lib/base/buf.h"

// What one service is for this proxy.
struct cpc_view {
    bool visible;                           // exportTo
    const struct cp_destination_rule *rule; // merged; NULL = none
};

struct cpc_vs_ref { // in Istio's order
    const struct cp_virtual_service *v;
    struct cpc_vs_ref *next;
};

struct compiler {
    const struct cp_config *c;
    const struct cp_node *node;
    const struct cp_options *o;
    struct cp_set *set;
    struct arena scratch;     // texts of one resource
    struct arena work;        // lives as long as the compiler
    struct cpc_view *views;   // one per service, in work
    const struct cp_virtual_service **vs; // those that this proxy follows, in Istio's order; in work
    size_t vs_count;
    struct map vs_by_host; // host as a VirtualService names it → struct cpc_vs_ref
    struct str locality; // of the proxy, "region/zone/subzone"
    struct cpc_port_needs *needs; // of virtualInbound's ports, while it is written; in work
    size_t need_count;
    struct str http_policy, tcp_policy; // filters of inbound chains, each ending with ", "; in work
    struct err *err;
    size_t cap[CP_TYPE_COUNT];
};

// s as a double-quoted scalar, in scratch.
const char *cpc_q(struct compiler *k, struct str s);
__attribute__((format(printf, 2, 3))) const char *cpc_qf(struct compiler *k, const char *fmt, ...);
// What the proxy sees: fills views, vs and locality.
void cpc_views(struct compiler *k);
void cpc_views_free(struct compiler *k);
const struct cpc_view *cpc_view(const struct compiler *k, const struct cp_service *s);
// The blocks that hold for one port of a service, and a subset when there is one.
struct cp_policy cpc_policy(const struct cp_destination_rule *rule, const struct cp_subset *subset, uint16_t port);
// The consistent hash of a destination: of its subset, port (0: none is named) or rule, or NULL.
const struct cp_hash *cpc_hash(const struct compiler *k, const struct cp_service *s, struct str subset, uint16_t port);
bool cpc_mesh_match(const struct compiler *k, enum cp_gateways g, const struct cp_labels *labels, struct str ns);

// Adds the resource whose YAML is in text (emptied). 0 or negative with k->err.
int cpc_add(struct compiler *k, enum cp_type t, struct str name, struct buf *text);

// Parts shared by the type files.
// "outbound|9080|v1|host" in scratch.
struct str cpc_cluster_name(struct compiler *k, const struct cp_port *p, struct str subset, const struct cp_service *s);
uint16_t cpc_endpoint_port(const struct cp_endpoint *e, const struct cp_port *p);
// The port that a destination means: the one it names, the service's only one, or the one that was asked for. NULL: there is none.
const struct cp_port *cpc_destination_port(const struct cp_service *s, uint16_t want, uint16_t asked);
// The cluster of a destination. A port or service that is not there leads to a cluster that does not exist, as in Istio (503 NC).
struct str cpc_destination(struct compiler *k, const struct cp_destination *d, struct str ns, uint16_t asked);
// The service's first address that is one host (not a range); false when it has none.
bool cpc_vip(const struct cp_service *s, struct addr *ret);
// ", metadata: {filter_metadata: {istio: {config: …}}}" of a VirtualService.
void cpc_config_metadata(struct compiler *k, struct buf *b, const struct cp_meta *m);
// Members of a cluster, each beginning with ", ".
void cpc_limits(struct buf *b, const struct cp_policy *p);
void cpc_outlier(struct buf *b, const struct cp_outlier *o);
void cpc_lb(struct buf *b, const struct cp_lb *lb);
void cpc_common_lb(struct buf *b, const struct cp_policy *p);
void cpc_http_options(struct buf *b, const struct cp_port *port, const struct cp_policy *p);
// The cluster speaks HTTP/2 always.
bool cpc_is_http2(const struct cp_port *port, const struct cp_policy *p);
void cpc_transport(struct compiler *k, struct buf *b, const struct cp_service *s, const struct cp_port *p, struct str subset,
                   const struct cp_policy *policy, bool original_dst);
// ", transport_socket: …": TLS of its own to a host of the outside world, by the system's roots and that host's name.
void cpc_file_tls(struct compiler *k, struct buf *b, struct str host);
// `{cluster_name: …, endpoints: […]}` of the service's endpoints that carry the subset's labels.
void cpc_assignment(struct compiler *k, struct buf *b, struct str name, const struct cp_service *s, const struct cp_port *p,
                    const struct cp_labels *labels, const struct cp_policy *policy);
// `match: {…}` of a route; m NULL: everything.
void cpc_match(struct compiler *k, struct buf *b, const struct cp_http_match *m);
// A whole route: `{name: …}`; m NULL: it has no match.
void cpc_http_route(struct compiler *k, struct buf *b, const struct cp_virtual_service *v, const struct cp_http_route *r,
                    const struct cp_http_match *m, uint16_t port);
void cpc_retry(struct compiler *k, struct buf *b, const struct cp_retries *r, bool hashed);
void cpc_hash_policy(struct compiler *k, struct buf *b, const struct cp_hash *h); // `{header: …}`
void cpc_string_match(struct compiler *k, struct buf *b, const struct cp_string_match *m); // `{exact: …}`
int cpc_outbound_listeners(struct compiler *k);
// Writes a filter-chain's TCP proxy filter: `{name: envoy.filters.network.tcp_proxy, …}`.
void cpc_tcp_proxy(struct compiler *k, struct buf *b, const char *stat_prefix, const char *cluster);
const char *cpc_wildcard(const struct compiler *k);    // 0.0.0.0, or '::'
const char *cpc_passthrough(const struct compiler *k); // where unknown destinations go
void cpc_access_log(struct compiler *k, struct buf *b); // ", access_log: […]" or nothing
// Services and ports whose endpoints are this node: calls fn for each distinct target port.
struct cpc_inbound {
    uint16_t port;         // on the pod
    const struct cp_port *service_port;
    enum cp_protocol protocol;
    const struct cp_service *service;
};
size_t cpc_inbound_ports(struct compiler *k, struct cpc_inbound **ret); // in scratch-lived arena of the set
enum cp_mtls cpc_mtls_mode(const struct compiler *k, uint16_t port); // never CP_MTLS_UNSET
// The same of another workload, by its labels; labels NULL: what holds for a namespace as a whole.
enum cp_mtls cpc_peer_mode(const struct compiler *k, struct str ns, const struct cp_labels *labels, uint16_t port);
const struct cp_peer_authentication *cpc_workload_peer_policy(const struct compiler *k); // the one with a selector that holds for this proxy, or NULL

// ---- policies ----

#define CPC_ROOT_NAMESPACE "istio-system"
struct cpc_authz_list {
    const struct cp_authz **v;
    size_t n;
};
// Fills http_policy and tcp_policy.
void cpc_policy_filters(struct compiler *k);
// A policy is for this proxy. root: ask for those of the root namespace; otherwise for those of its own one, when that is another.
bool cpc_policy_applies(const struct compiler *k, const struct cp_meta *m, const struct cp_labels *selector, bool targets, bool root);
void cpc_ext_authz(struct compiler *k, struct buf *b, const struct cp_provider *p, bool tcp); // the filter, and ", "
void cpc_jwt_filter(struct compiler *k, struct buf *b); // the filter and ", ", or nothing
int cpc_jwt_clusters(struct compiler *k); // those that keys come from, where no service has one
// The mesh's trust domain is number 0, its aliases follow.
size_t cpc_domain_count(const struct compiler *k);
struct str cpc_domain(const struct compiler *k, size_t i);
// Principals "DOMAIN/ns/NS/sa/SA", and names of trust domains, with those that mean the same in the other domains of this mesh. In scratch.
const struct str *cpc_alias_principals(struct compiler *k, const struct str *v, size_t n, size_t *ret_n);
const struct str *cpc_alias_domains(struct compiler *k, const struct str *v, size_t n, size_t *ret_n);

// What Istio names sds-grpc is the sidecar itself.
#define CPC_SDS_SOURCE                                                                                                                                   \
    "api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}], "                           \
    "set_node_on_first_message_only: true}, resource_api_version: V3"
#define CPC_SDS_SELF "sds_config: {" CPC_SDS_SOURCE ", initial_fetch_timeout: 0s}"

// Parts of listeners.
#define CPC_HCM_URL "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
#define CPC_ROUTER "{name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
#define CPC_HTTP_INSPECTOR                                                                                                                               \
    "{name: envoy.filters.listener.http_inspector, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}"
// Open ones lack their last brace, for members to follow.
#define CPC_TLS_INSPECTOR_OPEN                                                                                                                           \
    "{name: envoy.filters.listener.tls_inspector, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}"
#define CPC_TLS_INSPECTOR CPC_TLS_INSPECTOR_OPEN "}"

int cpc_clusters(struct compiler *k);
int cpc_endpoints(struct compiler *k);
int cpc_listeners(struct compiler *k);
int cpc_routes(struct compiler *k);

#endif
