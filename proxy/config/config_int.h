// SPDX-License-Identifier: Apache-2.0
// Inside proxy/config: the state of struct config and what its three files call of each other. config.c takes updates, subscribe.c asks for what
// resources refer to, commit.c decides what is ready and publishes. Control thread.
#ifndef PROXY_CONFIG_CONFIG_INT_H
#define PROXY_CONFIG_CONFIG_INT_H

#include "proxy/config/config.h"
#include "proxy/config/config_ctx.h"
#include "proxy/config/secrets.h"

// A cluster by name: what serves, and what is on its way.
struct cluster_rec {
    struct config *c;
    struct str name;                // owned
    struct cluster_cfg *cfg;        // newest accepted; ref
    struct tls_slot **slots;        // of cfg, in its arena
    size_t slot_count;
    struct cluster_snap *active;    // in the snapshot; ref; NULL while warming for the first time
    struct endpoint_set *endpoints; // newest for cfg; ref; NULL = not known yet
    struct host_table *hosts;       // owned
    struct dns_cluster *dns;        // owned; DNS clusters
    struct cluster_shared *shared;  // ref
    struct cluster_monitor *monitor; // owned; NULL where there is nothing to watch
    uint64_t since_ms;              // warming since
    bool dirty;                     // cfg or endpoints differ from active
};

struct route_rec {
    struct str name;            // owned
    struct route_table *active; // in the snapshot; ref; NULL while the first one waits
    struct route_table *next;   // accepted, waits for clusters; ref; NULL = none
    bool stale;                 // from before nobody asked for the name: serves old connections, no reason for a listener to begin
    uint64_t unused_since_ms;   // no listener names it since then; 0 = some do
};

// What a listener refers to; views in its arena.
struct listener_refs {
    struct str *rds, *clusters;
    size_t rds_count, cluster_count;
    struct tls_slot **slots;
    size_t slot_count;
};

struct listener_rec {
    struct str name;               // owned
    struct listener_cfg *active;   // ref; NULL = none yet
    struct listener_cfg *warming;  // ref; NULL = none
    struct listener_refs active_refs, warming_refs;
    uint64_t since_ms;
};

struct config {
    struct config_opts o;
    struct xds_client *xds;        // borrowed
    struct secret_store secrets;
    struct map clusters;           // name → struct cluster_rec *
    struct map listeners;          // name → struct listener_rec *
    struct map routes;             // name → struct route_rec *
    struct map leaving;            // removed cluster → moment (ms) at which it leaves the snapshot
    struct map missed;             // cluster that was removed before it ever served → moment at which routes no longer wait for it
    struct map eds_gave_up;        // wanted names that are not there: the first fetch timed out, or the server said so
    struct map rds_gave_up;
    struct map sources;            // "type path" of files that config sources name
    uint32_t file_types;           // bit per xds_type that such files serve
    struct snapshot *snap;         // published last; ref
    struct loop_task commit;
    struct timer warm_timer;       // re-check of what is waited for
    bool listeners_changed, clusters_changed, routes_changed;
    bool stopped;
    struct config_status status;
};

// Since when (loop's clock, ms) the control plane could have sent what is missing: now while its stream is down after it was up, so that time
// does not run then; 0 without a stream.
uint64_t config_online_since(const struct config *c);
// A commit at the end of this turn.
void config_schedule(struct config *c);
// The context of one build on behalf of c.
struct config_ctx config_build_ctx(struct config *c, struct arena *scratch);
// Takes a route configuration; it serves from the next commit on, or when the clusters that it names are there. -EINVAL + err.
int config_route_accept(struct config *c, struct str name, struct str bytes, struct err *err);
// Frees r and its references; it is in no map any more.
void config_route_free(struct route_rec *r);
// Takes a secret (tls.v3.Secret) of the xds-client. -EINVAL + err.
int config_secret_accept(struct config *c, const struct xds_update_item *it, struct arena *scratch, struct err *err);
// Interest in what clusters, listeners and TLS refer to, as they are now. Names that nobody refers to any more are forgotten.
void config_subscribe_endpoints(struct config *c);
void config_subscribe_routes(struct config *c);
void config_subscribe_secrets(struct config *c);
// For stats_on_collect; arg is the struct config.
void config_collect_gauges(void *arg);
// c->commit's function: moves what is ready into a new snapshot and publishes it when anything changed.
void config_commit(struct loop_task *t);

#endif
