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
};

enum cp_protocol { CP_HTTP, CP_TCP }; // HTTP, HTTP2 and GRPC names are HTTP; TCP, TLS, HTTPS, MONGO, MYSQL, REDIS are TCP

struct cp_port {
    uint16_t number, target; // target: port on the endpoints
    struct str name;
    enum cp_protocol protocol;
};

struct cp_endpoint {
    struct str address;  // IP address, or a DNS name (resolution DNS)
    struct cp_label *ports; // port name → number text, over the service's target port
    size_t port_count;
    struct cp_labels labels;
    struct str locality;  // "region/zone/subzone"
    uint32_t weight;      // 0 = 1
    struct str service_account, ns;
};

enum cp_resolution { CP_NONE, CP_STATIC, CP_DNS };

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
    // What is said about it elsewhere; NULL = nothing.
    const struct cp_destination_rule *rule;
    const struct cp_virtual_service *http, *tcp; // the one with routes of that kind
};

enum cp_match { CP_ANY, CP_EXACT, CP_PREFIX, CP_REGEX };
struct cp_string_match {
    enum cp_match kind;
    struct str value;
};
struct cp_header_match {
    struct str name;
    struct cp_string_match match; // CP_ANY: present
    bool without;
};
struct cp_http_match {
    struct cp_string_match uri, method, authority, scheme;
    bool ignore_uri_case;
    struct cp_header_match *headers, *queries;
    size_t header_count, query_count;
    uint16_t port; // 0 = any
    struct cp_labels source_labels;
};
struct cp_header_changes {
    struct cp_label *set, *add;
    size_t set_count, add_count;
    struct str *remove;
    size_t remove_count;
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
    struct str per_try_timeout, retry_on;
};
struct cp_http_route {
    struct str name;
    struct cp_http_match *matches;
    size_t match_count;
    struct cp_destination *routes;
    size_t route_count;
    bool redirect;
    struct str redirect_uri, redirect_authority, redirect_scheme;
    uint32_t redirect_code;
    uint16_t redirect_port;
    uint32_t direct_status; // 0 = none
    struct str direct_body;
    struct str rewrite_uri, rewrite_authority, timeout;
    struct cp_retries retries;
    struct cp_header_changes request, response;
};
struct cp_tcp_route {
    uint16_t *ports; // matches; none = all
    size_t port_count;
    struct cp_destination *routes;
    size_t route_count;
};
struct cp_virtual_service {
    struct cp_meta meta;
    struct str *hosts;
    size_t host_count;
    struct cp_http_route *http;
    size_t http_count;
    struct cp_tcp_route *tcp;
    size_t tcp_count;
};

enum cp_tls_mode { CP_TLS_AUTO, CP_TLS_DISABLE, CP_TLS_ISTIO_MUTUAL };
struct cp_policy { // trafficPolicy; members keep "unset" as 0 / empty
    struct str lb; // ROUND_ROBIN, LEAST_REQUEST, RANDOM; empty = default
    uint32_t max_connections, max_pending, max_requests, max_requests_per_connection, max_retries;
    struct str connect_timeout, idle_timeout;
    bool outlier;
    uint32_t consecutive_5xx, consecutive_gateway, max_ejection_percent;
    struct str outlier_interval, outlier_base;
    enum cp_tls_mode tls;
};
struct cp_subset {
    struct str name;
    struct cp_labels labels;
    bool has_policy;
    struct cp_policy policy;
};
struct cp_destination_rule {
    struct cp_meta meta;
    struct str host;
    struct cp_policy policy;
    struct cp_subset *subsets;
    size_t subset_count;
};

enum cp_mtls { CP_MTLS_UNSET, CP_MTLS_DISABLE, CP_MTLS_PERMISSIVE, CP_MTLS_STRICT };
struct cp_peer_authentication {
    struct cp_meta meta;
    struct cp_labels selector;
    enum cp_mtls mode;
    struct { uint16_t port; enum cp_mtls mode; } *ports;
    size_t port_count;
};

struct cp_config {
    struct arena arena;
    struct map by_host; // host → index + 1 in services
    uint64_t version;
    struct cp_service *services;
    size_t service_count;
    struct cp_endpoint *workloads; // WorkloadEntries
    struct cp_meta *workload_meta;
    size_t workload_count;
    struct cp_virtual_service *virtual_services;
    size_t virtual_service_count;
    struct cp_destination_rule *destination_rules;
    size_t destination_rule_count;
    struct cp_peer_authentication *peer_authentications;
    size_t peer_authentication_count;
};

// Loads every *.yaml and *.yml below folder. On any mistake nothing is returned and err says "FILE:LINE: field: reason".
int cp_load(const char *folder, struct cp_config **ret, struct err *err);
// The same from one text (tests, fuzzing).
int cp_load_text(struct str text, const char *name, struct cp_config **ret, struct err *err);
void cp_config_free(struct cp_config *c);

// All labels of want are in have.
bool cp_labels_match(const struct cp_labels *want, const struct cp_labels *have);
struct str cp_label_get(const struct cp_labels *l, const char *key);
// Short names mean a host of the object's own namespace: "reviews" in default is "reviews.default.svc.cluster.local". Names with dots stay.
// The service that a name in namespace ns means: exact host, or host of the short name. NULL when there is none.
const struct cp_service *cp_find_service(const struct cp_config *c, struct str name, struct str ns);

#endif
