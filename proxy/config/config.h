// SPDX-License-Identifier: Apache-2.0
// Configuration on the control thread: xDS resources in (as the sink of xds-client), frozen snapshots out. A resource that cannot be
// accepted is refused with "path.to.field: reason" and the former one keeps serving. Changes of one loop turn become one snapshot.
#ifndef PROXY_CONFIG_CONFIG_H
#define PROXY_CONFIG_CONFIG_H

#include "lib/event/loop.h"
#include "lib/net/dns.h"
#include "proxy/model/snapshot.h"
#include "proxy/stats/stats.h"
#include "xds-client/xds_client.h"

struct config;

struct config_opts {
    struct loop *loop;
    struct stats_store *stats;
    struct dns *dns;
    // A new snapshot (reference given to the callee) to hand to all workers. Never twice for the same content.
    void (*publish)(void *arg, struct snapshot *s);
    void *arg;
    bool ipv6;              // the host has IPv6: DNS AUTO
    const char *node_id, *node_cluster; // borrowed for good; NULL = none
    const struct Envoy__Config__Bootstrap__V3__LayeredRuntime *runtime; // of the bootstrap; NULL = none; borrowed for good
    uint64_t initial_fetch_timeout_ms; // default for sources that do not say: 15000
    bool validate_only;     // --mode validate: no sockets are bound, no names resolved, no files watched
};
struct config *config_new(const struct config_opts *o);
// No snapshot is published any more, whatever comes: what publish would reach may go.
void config_stop(struct config *c);
void config_free(struct config *c);
// The client that feeds this configuration: config subscribes to what resources refer to (EDS, RDS, SDS, ECDS names). Before the first update.
void config_set_client(struct config *c, struct xds_client *x);
// Sink for xds_client_new; arg is the struct config.
void config_sink(void *arg, struct xds_update *u);

// Secrets that this process resolves by itself (sds-grpc in Istio's configuration: "default", "ROOTCA", "file-cert:…", "file-root:…").
// Identity provider's result: PEM texts, copied. Rotation refills TLS slots; new handshakes use them. name "default": chain + key; "ROOTCA": roots in chain_pem.
int config_set_secret(struct config *c, struct str name, struct str chain_pem, struct str key_pem, struct err *err);

// For admin: each secret known now, or waited for (chain_pem empty).
struct config_secret {
    struct str name, chain_pem /* or roots */, version;
    bool is_root, is_static, warming;
    uint64_t updated_ms;
};
void config_each_secret(struct config *c, void (*fn)(void *arg, const struct config_secret *s), void *arg);
// Names of clusters / listeners still warming (not yet in the snapshot), and whether everything of the first round is there.
struct config_status {
    size_t clusters_active, clusters_warming, listeners_active, listeners_warming;
    uint64_t listeners_added, listeners_modified, listeners_removed, clusters_added, clusters_updated, clusters_removed;
    uint64_t snapshot_version;
};
void config_status(const struct config *c, struct config_status *ret);
bool config_cluster_warming(const struct config *c, struct str name);
bool config_listener_warming(const struct config *c, struct str name);
// The snapshot published last; borrowed, control thread. NULL before the first.
struct snapshot *config_snapshot(const struct config *c);

#endif
