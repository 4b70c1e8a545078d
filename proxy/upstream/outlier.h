// SPDX-License-Identifier: Apache-2.0
// What the two halves of outlier detection share: outlier.c on workers, monitor.c on the control thread.
#ifndef PROXY_UPSTREAM_OUTLIER_H
#define PROXY_UPSTREAM_OUTLIER_H

#include "proxy/upstream/internal.h"

enum outlier_kind { OUTLIER_5XX, OUTLIER_GATEWAY, OUTLIER_LOCAL, OUTLIER_RATE, OUTLIER_LOCAL_RATE, OUTLIER_PCT, OUTLIER_LOCAL_PCT };

struct outlier_place { // where a host was found to be an outlier; borrowed
    const struct cluster_cfg *cfg;
    struct cluster_shared *shared;
    struct stat_block *stats; // STAT_CLUSTER_OUTLIER of the calling thread's shard
    size_t hosts;             // in the cluster
    uint64_t now_ms;          // monotonic
};
// Counts the detection and ejects the host when enforcing_… and max_ejection_percent allow it. Any thread.
void outlier_detected(const struct outlier_place *p, struct host *h, enum outlier_kind k);

#endif
