// SPDX-License-Identifier: Apache-2.0
// Inside the compiler: resources are written as YAML flow text with printf, where every value that came from a user is quoted with q(), then
// read by the same strict JSON codec that reads files, and packed. That keeps the shapes readable next to istiod's dumps.
#ifndef CONTROL_PLANE_COMPILE_INT_H
#define CONTROL_PLANE_COMPILE_INT_H

#include "control-plane/compile.h"
#include "lib/base/buf.h"

struct compiler {
    const struct cp_config *c;
    const struct cp_node *node;
    const struct cp_options *o;
    struct cp_set *set;
    struct arena scratch;     // texts of one resource
    struct err *err;
    size_t cap[CP_TYPE_COUNT];
};

// s as a double-quoted scalar, in scratch.
const char *cpc_q(struct compiler *k, struct str s);
__attribute__((format(printf, 2, 3))) const char *cpc_qf(struct compiler *k, const char *fmt, ...);
// Adds the resource whose YAML is in text (emptied). 0 or negative with k->err.
int cpc_add(struct compiler *k, enum cp_type t, struct str name, struct buf *text);

// Parts shared by the type files.
// "outbound|9080|v1|host" in scratch.
struct str cpc_cluster_name(struct compiler *k, const struct cp_port *p, struct str subset, const struct cp_service *s);
uint16_t cpc_endpoint_port(const struct cp_endpoint *e, const struct cp_port *p);
// The service's first address that is one host (not a range); false when it has none.
bool cpc_vip(const struct cp_service *s, struct addr *ret);
// Writes a filter-chain's TCP proxy filter: `{name: envoy.filters.network.tcp_proxy, …}`.
void cpc_tcp_proxy(struct compiler *k, struct buf *b, const char *stat_prefix, const char *cluster);
void cpc_access_log(struct compiler *k, struct buf *b); // ", access_log: […]" or nothing
// Services and ports whose endpoints are this node: calls fn for each distinct target port.
struct cpc_inbound {
    uint16_t port;         // on the pod
    enum cp_protocol protocol;
    const struct cp_service *service;
};
size_t cpc_inbound_ports(struct compiler *k, struct cpc_inbound **ret); // in scratch-lived arena of the set
enum cp_mtls cpc_mtls_mode(const struct compiler *k, uint16_t port); // never CP_MTLS_UNSET

int cpc_clusters(struct compiler *k);
int cpc_endpoints(struct compiler *k);
int cpc_listeners(struct compiler *k);
int cpc_routes(struct compiler *k);

#endif
