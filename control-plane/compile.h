// SPDX-License-Identifier: Apache-2.0
// Model → xDS resources for one proxy, in the shapes that istiod sends (names of listeners, clusters, routes and chains are istiod's).
#ifndef CONTROL_PLANE_COMPILE_H
#define CONTROL_PLANE_COMPILE_H

#include "control-plane/model.h"
#include "lib/base/hash.h"

enum cp_type { CP_CDS, CP_EDS, CP_LDS, CP_RDS, CP_TYPE_COUNT };
struct str cp_type_url(enum cp_type t); // "type.googleapis.com/…"
int cp_type_parse(struct str url);      // -1: not served
const char *cp_type_short(enum cp_type t);

struct cp_node {          // who asks; views borrowed
    struct str id;        // "sidecar~IP~NAME.NS~NS.svc.cluster.local"
    struct str name, ns, service_account, version, cluster_id;
    struct addr ip;
    struct cp_labels labels;
    struct str locality; // "region/zone/subzone", or empty
};
// From a packed core.v3.Node. Views live in the arena. Error names what is missing.
int cp_node_parse(struct str bytes, struct arena *a, struct cp_node *ret, struct err *err);

struct cp_options {
    struct str trust_domain;   // "cluster.local"
    bool registry_only;        // unknown destinations are refused (BlackHoleCluster, 502) in place of passed through
    bool access_log;           // proxies log to /dev/stdout
    struct str sniff_timeout;  // protocolDetectionTimeout, "5s"
};

// What the folder says of the mesh goes with the command line. 0, or an error for the operator.
int cp_check_mesh(const struct cp_config *c, const struct cp_options *o, struct err *err);

struct cp_resource {
    struct str name, bytes;
    struct hash128 hash;
};
struct cp_set { // immutable; counted by its users through cp_set_ref/unref (one thread)
    unsigned refs;
    struct arena arena;
    struct cp_resource *v[CP_TYPE_COUNT]; // in name order
    size_t n[CP_TYPE_COUNT];
};
// The node's labels are those of its WorkloadEntry (by address and namespace), and its own where that one says nothing.
// Settings of the folder come before those in o.
int cp_compile(const struct cp_config *c, const struct cp_node *asking, const struct cp_options *o, struct cp_set **ret, struct err *err);
void cp_set_unref(struct cp_set *s);
// NULL when there is none of that name.
const struct cp_resource *cp_set_find(const struct cp_set *s, enum cp_type t, struct str name);

#endif
