// SPDX-License-Identifier: Apache-2.0
// What a mesh peer says of itself by metadata exchange: names for logs and metrics, never for a decision about access.
#ifndef PROXY_CORE_PEER_H
#define PROXY_CORE_PEER_H

#include "lib/base/str.h"

struct peer_info { // empty = not said
    struct str id; // node id: "sidecar~10.0.0.1~pod.ns~ns.svc.cluster.local"
    struct str name, namespace, workload, cluster, owner;
    struct str canonical_name, canonical_revision, app, version; // labels
};

#endif
