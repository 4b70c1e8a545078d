// SPDX-License-Identifier: Apache-2.0
// What the YAML folder says, checked: Istio's kinds in the fields that we serve. Frozen after loading; everything in one arena.
#ifndef CONTROL_PLANE_MODEL_H
#define CONTROL_PLANE_MODEL_H

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/base/map.h"
#include "lib/net/addr.h"

struct cp_label {
    struct str key, value;
};
struct cp_labels {
    struct cp_label *v;
    size_t n;
};

struct cp_meta { // every object
    struct str kind, name, ns;
    const char *file;
    int line;
    struct str created; // metadata.creationTimestamp; empty: unknown, which counts as the oldest
};

// spec.exportTo: which namespaces see an object.
struct cp_export {
    struct str *v; // "*", "." or namespaces; none = all
    size_t n;
};

enum cp_protocol { CP_HTTP, CP_TCP }; // HTTP, HTTP2 and GRPC names are HTTP; TCP, TLS, HTTPS, MONGO, MYSQL, REDIS are TCP

struct cp_port {
    uint16_t number, target; // target: port on the endpoints
    struct str name;
    enum cp_protocol protocol;
    bool tls;   // TLS, HTTPS: told apart by SNI
    bool sniff; // nothing is said: TCP, and HTTP where a connection begins like that
    bool http2; // HTTP2, GRPC
};

struct cp_endpoint {
    struct str address;  // IP address, or a DNS name (resolution DNS)
    struct cp_label *ports; // port name → number text, over the service's target port
    size_t port_count;
    struct cp_labels labels;
    struct str locality;  // "region/zone/subzone"
    uint32_t weight;      // 0 = 1
    struct str service_account, ns;
    struct str workload; // name of the WorkloadEntry, or one made from the service's
};

enum cp_resolution { CP_NONE, CP_STATIC, CP_DNS, CP_DNS_ONE }; // ONE: each connection goes to the first address

struct cp_service { // one host of a ServiceEntry
    struct cp_meta meta;
    struct str host;
    struct str *addresses; // virtual addresses (IP or CIDR)
    size_t address_count;
    struct cp_port *ports;
    size_t port_count;
    bool external;
    enum cp_resolution resolution;
    struct cp_endpoint *endpoints; // inline ones, and the selected workloads
    size_t endpoint_count;
    struct cp_export export;
    struct str *alt_names; // subjectAltNames
    size_t alt_name_count;
};

// CP_UNSET: the field is absent. CP_PRESENT: any value, but one must be there ({}).
enum cp_match { CP_UNSET, CP_PRESENT, CP_EXACT, CP_PREFIX, CP_REGEX };
struct cp_string_match {
    enum cp_match kind;
    struct str value;
};
struct cp_header_match {
    struct str name;
    struct cp_string_match match;
    bool without;
};
enum cp_gateways { CP_GATEWAYS_UNSET, CP_GATEWAYS_MESH, CP_GATEWAYS_OTHER }; // OTHER: no sidecar is meant
struct cp_http_match {
    struct str name, stat_prefix, source_ns;
    struct cp_string_match uri, method, authority, scheme;
    bool ignore_uri_case;
    struct cp_header_match *headers, *queries;
    size_t header_count, query_count;
    uint16_t port; // 0 = any
    struct cp_labels source_labels;
    enum cp_gateways gateways;
};
struct cp_header_changes {
    struct cp_label *set, *add;
    size_t set_count, add_count;
    struct str *remove;
    size_t remove_count;
    struct str authority; // a change of host or :authority, which is a rewrite of the host
};
struct cp_destination {
    struct str host, subset;
    uint16_t port; // 0 = the service's only port, or the one the request came for
    uint32_t weight;
    struct cp_header_changes request, response;
};
struct cp_retries {
    bool set;
    uint32_t attempts;
    struct str per_try_timeout, retry_on, backoff;
    bool remote_localities;
    bool has_avoid, avoid; // retryIgnorePreviousHosts
};
struct cp_fault {
    bool delay, abort, grpc;
    struct str delay_time;
    uint32_t delay_ppm, abort_ppm; // millionths of the requests
    uint32_t abort_status;         // HTTP status, or the gRPC one
};
struct cp_mirror {
    struct cp_destination to;
    uint32_t ppm;
};
struct cp_cors {
    struct cp_string_match *origins;
    size_t origin_count;
    struct str methods, headers, expose, max_age; // lists joined with ','
    int credentials; // 0 unset, 1 true, -1 false
    bool ignore_unmatched;
};
struct cp_redirect {
    struct str uri, prefix, authority, scheme;
    uint32_t code;
    uint16_t port;
    bool request_port; // derivePort FROM_REQUEST_PORT
    bool has_port;     // port or derivePort is there
};
struct cp_rewrite {
    struct str uri, authority, regex, substitution;
};
struct cp_direct {
    uint32_t status;
    bool has_body, bytes; // bytes: body is base64
    struct str body;
};
// Parts that are absent are NULL.
struct cp_http_route {
    struct str name;
    struct cp_http_match *matches;
    size_t match_count;
    struct cp_destination *routes;
    size_t route_count;
    struct cp_redirect *redirect;
    struct cp_direct *direct;
    struct cp_rewrite *rewrite;
    struct cp_fault *fault;
    struct cp_cors *cors;
    struct cp_mirror *mirrors;
    size_t mirror_count;
    struct str timeout;
    struct cp_retries retries;
    bool has_headers;
    struct cp_header_changes request, response;
    struct str delegate, delegate_ns; // of a root: replaced by the delegate's routes when files are linked
    int line;
};
struct cp_l4_match { // of TLS and TCP routes
    struct str *sni;
    size_t sni_count;
    struct str *subnets; // destinationSubnets
    size_t subnet_count;
    uint16_t port; // 0 = any
    struct cp_labels source_labels;
    struct str source_ns;
    enum cp_gateways gateways;
};
struct cp_l4_route {
    struct cp_l4_match *matches; // none = all (TCP only)
    size_t match_count;
    struct cp_destination *routes;
    size_t route_count;
};
struct cp_virtual_service {
    struct cp_meta meta;
    struct str *hosts; // full names once linked; none: only a delegate of others
    size_t host_count;
    struct cp_export export;
    bool mesh; // applies to sidecars: gateways is absent or has "mesh"
    struct cp_http_route *http;
    size_t http_count;
    struct cp_l4_route *tls, *tcp;
    size_t tls_count, tcp_count;
};

enum cp_hash_key { CP_HASH_NONE, CP_HASH_HEADER, CP_HASH_COOKIE, CP_HASH_SOURCE_IP, CP_HASH_QUERY };
struct cp_hash { // loadBalancer.consistentHash
    enum cp_hash_key key;
    struct str name, path, ttl; // ttl empty: the cookie is not made by the proxy
    struct cp_label *attributes;
    size_t attribute_count;
    bool maglev;
    uint64_t size; // 0 = default
    bool legacy;   // neither ringHash nor maglev is there: a ring of at least 1024
};
struct cp_distribute {
    struct str from;
    struct cp_label *to; // locality → weight
    size_t to_count;
};
struct cp_locality_lb {
    bool disabled;
    struct cp_distribute *distribute;
    size_t distribute_count;
    struct cp_label *failover; // from → to regions
    size_t failover_count;
    struct str *priority; // failoverPriority labels, "name" or "name=value"
    size_t priority_count;
};
struct cp_lb {
    struct str simple; // ROUND_ROBIN, LEAST_REQUEST, RANDOM, PASSTHROUGH; empty = default
    struct cp_hash hash;
    struct cp_locality_lb *locality;
    struct str warmup; // duration; empty = none
    bool warmup_full;  // the warmup object, with the two numbers; otherwise warmupDurationSecs
    double warmup_percent, warmup_aggression;
};
struct cp_pool {
    uint32_t max_connections, max_pending, max_requests, max_requests_per_connection, max_retries, max_streams; // 0 = unset
    struct str connect_timeout, max_duration, tcp_idle, http_idle;
    bool keepalive;
    uint32_t keepalive_probes;
    struct str keepalive_time, keepalive_interval;
    struct str h2_interval, h2_timeout; // http2KeepAlive
    int h2_upgrade;                     // 0 default, 1 UPGRADE, -1 DO_NOT_UPGRADE
    bool use_client_protocol;
};
struct cp_outlier {
    bool has_5xx, has_gateway, split;
    uint32_t consecutive_5xx, consecutive_gateway, consecutive_local, max_ejection_percent, min_health_percent;
    struct str interval, base;
};
enum cp_tls_mode { CP_TLS_DISABLE, CP_TLS_SIMPLE, CP_TLS_MUTUAL, CP_TLS_ISTIO_MUTUAL };
struct cp_tls {
    enum cp_tls_mode mode;
    struct str certificate, key, roots, crl, sni;
    struct str *names;
    size_t name_count;
    bool skip_verify;
};
struct cp_budget { // retryBudget
    double percent;
    uint32_t min;
    struct str interval;
};
struct cp_tunnel { // tunnel
    bool post;
    struct str host;
    uint16_t port;
};
// trafficPolicy. A block that is absent is NULL; blocks are taken over whole, never field by field.
struct cp_policy {
    const struct cp_pool *pool;
    const struct cp_lb *lb;
    const struct cp_outlier *outlier;
    const struct cp_tls *tls;
    const struct cp_budget *budget;
    const struct cp_tunnel *tunnel; // of TCP and TLS connections
    int proxy_protocol; // 0 none, 1, 2
    struct cp_port_policy *ports;
    size_t port_count;
};
struct cp_port_policy {
    uint16_t port;
    struct cp_policy policy; // the first four blocks
};
struct cp_subset {
    struct str name;
    struct cp_labels labels;
    bool has_policy;
    struct cp_policy policy;
};
struct cp_destination_rule {
    struct cp_meta meta;
    struct str host; // full name once linked
    struct cp_export export;
    struct cp_labels selector; // workloadSelector
    bool has_policy;
    struct cp_policy policy;
    struct cp_subset *subsets;
    size_t subset_count;
    const struct cp_destination_rule *next; // another rule for the same host, in order of creation
};

enum cp_mtls { CP_MTLS_UNSET, CP_MTLS_DISABLE, CP_MTLS_PERMISSIVE, CP_MTLS_STRICT };
struct cp_peer_authentication {
    struct cp_meta meta;
    struct cp_labels selector;
    enum cp_mtls mode;
    struct { uint16_t port; enum cp_mtls mode; } *ports;
    size_t port_count;
};

// ---- AuthorizationPolicy ----

// What a condition is about. Those before CP_AUTHZ_FIRST_PRINCIPAL say what is asked for, the others who asks.
enum cp_authz_key {
    CP_AUTHZ_HOST,
    CP_AUTHZ_METHOD,
    CP_AUTHZ_PATH,
    CP_AUTHZ_PORT,
    CP_AUTHZ_DESTINATION_IP,
    CP_AUTHZ_SNI,
    CP_AUTHZ_METADATA, // experimental.envoy.filters.NAME[KEY]: name and path
    CP_AUTHZ_FIRST_PRINCIPAL,
    CP_AUTHZ_PRINCIPAL = CP_AUTHZ_FIRST_PRINCIPAL,
    CP_AUTHZ_REQUEST_PRINCIPAL,
    CP_AUTHZ_SERVICE_ACCOUNT, // name has the policy's namespace
    CP_AUTHZ_TRUST_DOMAIN,
    CP_AUTHZ_NAMESPACE,
    CP_AUTHZ_REMOTE_IP,
    CP_AUTHZ_SOURCE_IP,
    CP_AUTHZ_AUDIENCES,
    CP_AUTHZ_PRESENTER,
    CP_AUTHZ_HEADER, // name
    CP_AUTHZ_CLAIM,  // path
};
struct cp_authz_condition { // one of the values, and none of the others
    enum cp_authz_key key;
    struct str name;
    struct str *path;
    size_t path_count;
    struct str *values, *not_values;
    size_t value_count, not_value_count;
};
struct cp_authz_all { // every condition
    struct cp_authz_condition *v;
    size_t n;
};
struct cp_authz_rule { // one of from, and one of to; each list has an element at least, with the conditions of "when" behind its own
    struct cp_authz_all *from, *to;
    size_t from_count, to_count;
};
enum cp_authz_action { CP_AUTHZ_ALLOW, CP_AUTHZ_DENY, CP_AUTHZ_AUDIT, CP_AUTHZ_CUSTOM };
struct cp_authz {
    struct cp_meta meta;
    struct cp_labels selector;
    bool targets; // targetRef or targetRefs: it is for gateways and waypoints, no sidecar is meant
    bool dry_run; // annotation istio.io/dry-run
    enum cp_authz_action action;
    struct str provider; // CUSTOM
    struct cp_authz_rule *rules;
    size_t rule_count;
};

// ---- RequestAuthentication ----

struct cp_jwt_rule {
    struct str issuer, jwks, jwks_uri, payload_header, timeout; // timeout empty: Istio's 5 s
    struct str *audiences, *params, *cookies, *space_delimited;
    size_t audience_count, param_count, cookie_count, space_delimited_count;
    struct cp_label *headers, *claims; // name → prefix; header → claim
    size_t header_count, claim_count;
    bool forward;
    bool https;         // of jwksUri
    struct str host;    // of jwksUri
    uint16_t port;      // of jwksUri
};
struct cp_request_authentication {
    struct cp_meta meta;
    struct cp_labels selector;
    bool targets;
    struct cp_jwt_rule *rules;
    size_t rule_count;
};

// ---- MeshConfig: the part of it that the ConfigMap "istio" in istio-system gives ----

struct cp_provider { // extensionProviders: envoyExtAuthzHttp or envoyExtAuthzGrpc
    struct str name, service, timeout, path_prefix;
    bool grpc, fail_open;
    uint16_t port;
    uint32_t status_on_error; // 0 = unset
    bool body, partial, pack; // includeRequestBodyInCheck
    uint32_t body_max;
    struct str *include, *upstream, *downstream_deny, *downstream_allow; // header names, "*" at one end
    size_t include_count, upstream_count, downstream_deny_count, downstream_allow_count;
    struct cp_labels add; // includeAdditionalHeadersInCheck
    int line;
};
struct cp_mesh {
    const char *file; // NULL: there is no such ConfigMap
    struct str trust_domain;  // empty: nothing is said; else it must be that of the command line (cp_check_mesh)
    struct str sniff_timeout; // protocolDetectionTimeout; empty: nothing is said
    int access_log;    // accessLogFile: 1 /dev/stdout, -1 none, 0 nothing is said
    int registry_only; // outboundTrafficPolicy.mode: 1 REGISTRY_ONLY, -1 ALLOW_ANY, 0 nothing is said
    struct str *aliases; // trustDomainAliases
    size_t alias_count;
    struct cp_provider *providers;
    size_t provider_count;
};

struct cp_config {
    struct arena arena;
    struct map by_host;  // host → index + 1 in services
    struct map by_rule;  // host of a DestinationRule → the oldest one, others behind next
    uint64_t version;
    struct cp_service *services;
    size_t service_count;
    struct cp_endpoint *workloads; // WorkloadEntries
    struct cp_meta *workload_meta;
    size_t workload_count;
    struct cp_virtual_service *virtual_services; // in order of creation, as the rules are
    size_t virtual_service_count;
    struct cp_destination_rule *destination_rules;
    size_t destination_rule_count;
    struct cp_peer_authentication *peer_authentications;
    size_t peer_authentication_count;
    struct cp_authz *authz; // in order of creation, as the next
    size_t authz_count;
    struct cp_request_authentication *request_authentications;
    size_t request_authentication_count;
    struct cp_mesh mesh;
};

// Loads every *.yaml and *.yml below folder. On any mistake nothing is returned and err says "FILE:LINE: field: reason".
int cp_load(const char *folder, struct cp_config **ret, struct err *err);
// The same from one text (tests, fuzzing).
int cp_load_text(struct str text, const char *name, struct cp_config **ret, struct err *err);
void cp_config_free(struct cp_config *c);
struct json;
// One document alone, without what it refers to. Kinds that are not ours are fine.
int cp_check_document(const struct json *doc, const char *file, struct err *err);

// All labels of want are in have.
bool cp_labels_match(const struct cp_labels *want, const struct cp_labels *have);
struct str cp_label_get(const struct cp_labels *l, const char *key);
// Short names mean a host of the object's own namespace: "reviews" in default is "reviews.default.svc.cluster.local". Names with dots stay.
// The service that a name in namespace ns means: exact host, or host of the short name. NULL when there is none.
const struct cp_service *cp_find_service(const struct cp_config *c, struct str name, struct str ns);
// An object with this exportTo in namespace own is seen from namespace ns.
bool cp_exported(const struct cp_export *e, struct str own, struct str ns);
// The service that an extension provider names, "HOST" or "NAMESPACE/HOST"; NULL when there is none.
const struct cp_service *cp_find_provider_service(const struct cp_config *c, struct str name);
// A host name, or "*.domain" or "*", as a VirtualService or rule names it, covers this host.
bool cp_host_covers(struct str pattern, struct str host);
// The next less specific pattern that covers host: "a.b.c" → "*.b.c" → "*.c" → "*" → nothing. In the arena.
struct str cp_wider_host(struct arena *a, struct str host);

#endif
