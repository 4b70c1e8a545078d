// SPDX-License-Identifier: Apache-2.0
// What happens to a cluster's hosts by time, on the control thread: active health checks (core.v3.HealthCheck), and the half of outlier
// detection that looks at intervals (cluster.v3.OutlierDetection). Results reach the workers as flags of hosts.
#ifndef PROXY_UPSTREAM_MONITOR_H
#define PROXY_UPSTREAM_MONITOR_H

#include "lib/event/loop.h"
#include "proxy/model/snapshot.h"
#include "proxy/stats/stats.h"

struct cluster_monitor;
struct monitor_opts {
    struct loop *loop;
    struct stats_shard *stats;      // the control thread's
    struct cluster_shared *shared;  // borrowed
    // A set in place of the last one: a removed host that had stayed because it was healthy is gone. Reference given.
    void (*changed)(void *arg, struct endpoint_set *set);
    // The first round of health checks is over. Once.
    void (*ready)(void *arg);
    void *arg;
};
// Whether the configuration gives a monitor anything to do.
bool cluster_monitor_needed(const struct cluster_cfg *cfg);
struct cluster_monitor *cluster_monitor_new(const struct monitor_opts *o);
// Takes hosts out of ejection and failure that it had put there. NULL is fine.
void cluster_monitor_free(struct cluster_monitor *m);
// A first or new configuration; what is known of hosts stays.
void cluster_monitor_use(struct cluster_monitor *m, struct cluster_cfg *cfg);
// The set as discovery has it becomes the set as it is to be used: hosts that discovery no longer has may stay while their health checks
// succeed (Cluster.ignore_health_on_host_removal false). Takes a reference that nobody else has, gives one.
struct endpoint_set *cluster_monitor_set(struct cluster_monitor *m, struct endpoint_set *set);
// Whether every host of the set has had its first check (true without checks).
bool cluster_monitor_ready(const struct cluster_monitor *m);

#endif
