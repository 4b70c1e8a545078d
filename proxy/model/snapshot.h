// SPDX-License-Identifier: Apache-2.0
// All configuration, frozen, counted. A new snapshot copies the tables of references and replaces only what changed. Workers swap their
// reference between two loop turns; the last reference gone, the snapshot is freed on the control thread (post through on_last).
#ifndef PROXY_MODEL_SNAPSHOT_H
#define PROXY_MODEL_SNAPSHOT_H

#include "lib/base/map.h"
#include "lib/event/loop.h"
#include "proxy/model/cluster_cfg.h"
#include "proxy/model/endpoints.h"
#include "proxy/model/listener_cfg.h"
#include "proxy/model/route_table.h"

struct cluster_shared; // proxy/upstream/cluster.h: breakers shared by all workers; counted there

// A cluster and its current endpoints.
struct cluster_snap {
    struct refs refs;
    struct cluster_cfg *cfg;         // ref
    struct endpoint_set *endpoints;  // ref; never NULL (may be empty)
    struct cluster_shared *shared;   // ref, through the two functions below
    void (*shared_unref)(struct cluster_shared *s);
};
// One reference. Takes references on cfg and endpoints (NULL = an empty set) of its own; takes over the caller's reference on shared.
struct cluster_snap *cluster_snap_new(struct cluster_cfg *cfg, struct endpoint_set *endpoints, struct cluster_shared *shared,
                                      void (*shared_unref)(struct cluster_shared *s));
struct cluster_snap *cluster_snap_ref(struct cluster_snap *c);
void cluster_snap_unref(struct cluster_snap *c);

struct snapshot {
    struct refs refs;
    uint64_t version;                 // counts up
    struct listener_cfg **listeners;  // refs
    size_t listener_count;
    struct map virtual_listeners;     // key: see listener_key → struct listener_cfg *; those with bind_to_port false
    struct map routes;                // name → struct route_table * (refs)
    struct map clusters;              // name → struct cluster_snap * (refs)
    // What dies with the snapshot that it replaced (old TLS contexts): run when this one is freed.
    struct arena garbage;
    struct loop *home;                // control loop: the free happens there
    struct mailbox_msg free_msg;
};

// Copy with references (version + 1), for the control thread to change before publishing.
struct snapshot *snapshot_clone(const struct snapshot *s); // NULL = an empty one
struct snapshot *snapshot_ref(struct snapshot *s);
// Any thread. The last drop posts the free to home (or frees at once when home is NULL).
void snapshot_unref(struct snapshot *s);
// Control thread, before publishing. They take references.
void snapshot_set_listeners(struct snapshot *s, struct listener_cfg **v, size_t n); // rebuilds virtual_listeners
void snapshot_put_route(struct snapshot *s, struct route_table *t);
void snapshot_del_route(struct snapshot *s, struct str name);
void snapshot_put_cluster(struct snapshot *s, struct cluster_snap *c);
void snapshot_del_cluster(struct snapshot *s, struct str name);
// Look-ups; borrowed.
struct route_table *snapshot_route(const struct snapshot *s, struct str name);
struct cluster_snap *snapshot_cluster(const struct snapshot *s, struct str name);
// The non-binding listener for an original destination: exact address and port first, then the wildcard address of its family (and the
// IPv4 wildcard for IPv4 in IPv6) with that port. NULL when none.
struct listener_cfg *snapshot_virtual_listener(const struct snapshot *s, const struct addr *dst);

#endif
