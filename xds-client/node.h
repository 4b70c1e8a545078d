// SPDX-License-Identifier: Apache-2.0
// Who we are, from the environment of an Istio pod, as pilot-agent tells istiod: id, cluster, locality, metadata, ProxyConfig.
// Pure: the environment, the files and the addresses come in. (Istio: pkg/bootstrap's node metadata, annotation
// proxy.istio.io/config, mesh.v1alpha1.ProxyConfig.)
#ifndef XDS_CLIENT_NODE_H
#define XDS_CLIENT_NODE_H

#include "istio/mesh/v1alpha1/proxy.pb-c.h"
#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/base/json.h"

// The Istio release whose configuration we take; istiod generates by it (metadata ISTIO_VERSION).
#define NODE_ISTIO_VERSION "1.30.0"

struct node_in {
    const char *const *envp; // "NAME=value", NULL at the end: environ
    // As file_read; NULL = file_read. A file that is not there is -ENOENT.
    int (*read_file)(const char *path, size_t max_bytes, struct arena *a, struct str *ret, struct err *err);
    const char *root;      // put before the paths etc/istio/…; "" for the working directory, "/" in a container
    const struct str *ips; // addresses of the interfaces, loopback left out; may be empty when INSTANCE_IP is set
    size_t ip_count;
    struct str domain;  // --domain; empty = NAMESPACE.svc.cluster.local
    struct str cluster; // --serviceCluster; empty = from ProxyConfig and labels
};

// All in the arena given.
struct node_info {
    struct str id;      // "sidecar~10.0.0.1~pod.ns~ns.svc.cluster.local"
    struct str cluster; // "app.ns"
    struct str pod, ns, service_account, ip, cluster_id;
    struct json *metadata; // object, members in order of their names
    struct str region, zone, sub_zone;
    Istio__Mesh__V1alpha1__ProxyConfig *proxy; // merged: defaults < mesh file < PROXY_CONFIG < annotation
    struct str serialized;                     // envoy.config.core.v3.Node, packed, for xds_client_new
};

// -EINVAL with the variable or file and the place when a value does not parse; nothing is guessed then, for istiod would end every
// stream with InvalidArgument.
int node_from_env(const struct node_in *in, struct arena *a, struct node_info *ret, struct err *err);
// Value of a variable in envp, the empty view with p NULL when it is not set.
struct str node_env(const char *const *envp, const char *name);

#endif
