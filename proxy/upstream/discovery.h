// SPDX-License-Identifier: Apache-2.0
// Endpoint sets on the control thread: from configured endpoints (STATIC), from EDS, from DNS; hosts keep their identity per cluster.
#ifndef PROXY_UPSTREAM_DISCOVERY_H
#define PROXY_UPSTREAM_DISCOVERY_H

#include "lib/net/dns.h"
#include "proxy/model/snapshot.h"
#include "proxy/stats/stats.h"

// All hosts of one cluster ever in use, by address; control thread. Owned by proxy/config's record of the cluster.
struct host_table;
struct host_table *host_table_new(void);
void host_table_free(struct host_table *t);

// Builds a set: endpoints with an address become hosts (reusing those in t), transport indexes are chosen by metadata against cfg. Endpoints
// without an address (DNS names) are left out here. Unhealthy ones are in the set with HOST_FAILED_EDS.
struct endpoint_set *endpoint_set_build(struct host_table *t, const struct cluster_cfg *cfg, const struct lb_endpoint_cfg *v, size_t n);

// DNS clusters: resolves the names of cfg->endpoints, again and again (dns_refresh_ms or the TTL); calls changed(arg, set) with a new set (ref given)
// whenever the addresses differ, and once after the first round (also when it failed: empty set). Control thread.
struct dns_cluster;
struct dns_cluster *dns_cluster_new(struct loop *l, struct dns *d, struct host_table *t, struct cluster_cfg *cfg,
                                    void (*changed)(void *arg, struct endpoint_set *set), void *arg);
// Counts look-ups in the cluster's statistics of the shard. Control thread, right after dns_cluster_new.
void dns_cluster_count(struct dns_cluster *d, struct stats_shard *shard);
void dns_cluster_free(struct dns_cluster *d);

#endif
