// SPDX-License-Identifier: Apache-2.0
// Labels of this node for authorization servers (ext_authz's bootstrap_metadata_labels_key).
#ifndef PROXY_AUTHZ_NODE_LABELS_H
#define PROXY_AUTHZ_NODE_LABELS_H

#include "proxy/authz/check.h"

struct Envoy__Config__Core__V3__Node;

// node of the bootstrap, which lives as long as the process; NULL = none. Once, before configurations are built.
void node_labels_init(const struct Envoy__Config__Core__V3__Node *node);
// The texts of the Struct that the node's metadata has under key; how many. In the arena.
size_t node_labels_get(const char *key, struct arena *a, const struct check_pair **ret);

#endif
