// SPDX-License-Identifier: Apache-2.0
// The bootstrap: an Envoy-shaped file (config.bootstrap.v3.Bootstrap, JSON or YAML), or what the sidecar's environment says in its place.
// Static resources go to the in-memory source of the xDS client; dynamic_resources become sources.
#ifndef PROXY_CONFIG_BOOTSTRAP_H
#define PROXY_CONFIG_BOOTSTRAP_H

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "lib/base/arena.h"
#include "lib/net/addr.h"
#include "xds-client/xds_client.h"

struct bootstrap {
    struct arena arena;
    Envoy__Config__Bootstrap__V3__Bootstrap *msg; // in arena
    struct addr admin;          // family 0 = no admin
    uint64_t max_connections;   // of clients, over all listeners; 0 = no limit
    bool has_ads;
    bool cds_ads, lds_ads;      // clusters, listeners are asked for over it
    struct xds_ads_opts ads;    // views in arena
    // path_config_source of LDS and CDS, NULL = none
    const char *lds_path, *cds_path;
};
// text: the file's content; name: for messages. Unknown fields are refused by name.
int bootstrap_parse(struct str text, const char *name, struct bootstrap *ret, struct err *err);
void bootstrap_fini(struct bootstrap *b);
// node.locality and cluster_manager.local_cluster_name, for zone-aware routing. b must live as long as the process serves. Before workers start.
void bootstrap_set_local(const struct bootstrap *b);
// Puts static secrets, clusters, listeners into the client (that order) and adds the dynamic sources. -EINVAL + err naming the first refused
// static resource and field.
int bootstrap_apply(const struct bootstrap *b, struct xds_client *x, struct err *err);

#endif
