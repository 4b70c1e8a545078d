// SPDX-License-Identifier: Apache-2.0
// Hosts and the endpoint sets that refer to them. A host keeps its identity (and so its counters and health) over EDS and DNS updates; an
// endpoint set is frozen and counted.
#ifndef PROXY_MODEL_ENDPOINTS_H
#define PROXY_MODEL_ENDPOINTS_H

#include "lib/net/addr.h"
#include "proxy/model/cluster_cfg.h"
#include "proxy/model/refs.h"

enum eds_health { EDS_UNKNOWN, EDS_HEALTHY, EDS_UNHEALTHY, EDS_DRAINING, EDS_TIMEOUT, EDS_DEGRADED };

// Why a host must not be used, as bits; 0 = healthy.
enum host_flag { HOST_FAILED_EDS = 1, HOST_FAILED_ACTIVE_HC = 2, HOST_FAILED_OUTLIER = 4 };

// Shared by all workers; atomics are relaxed counters unless said otherwise. Made by the control thread, looked up by (cluster, address).
struct host {
    struct refs refs;
    struct addr addr;
    char text[ADDR_TEXT_MAX];  // "10.0.0.1:9080"
    char *path;                // storage of addr.path, owned
    char *hostname;            // owned, may be NULL
    atomic_uint flags;         // enum host_flag
    atomic_uint rq_active, cx_active;       // gauges over all workers
    atomic_ullong cx_total, cx_connect_fail, rq_total, rq_success, rq_error, rq_timeout;
    atomic_uint consecutive_5xx, consecutive_gateway, consecutive_local; // outlier
    atomic_uint ejections;              // outlier: how often in a row, multiplies the next ejection's time
    atomic_ullong unejected_ms;         // outlier: monotonic ms of the last return, 0 = never
};
// Made with one reference; hostname may be empty. a->path is copied.
struct host *host_new(const struct addr *a, struct str hostname);
struct host *host_ref(struct host *h);
void host_unref(struct host *h); // any thread; NULL is fine
// Sets or clears a bit of flags and moves the health epoch on when that changed something. Returns whether it did. Any thread.
bool host_set_flag(struct host *h, enum host_flag f, bool on);
// Counts changes of any host's flags in the process: load balancers look again when it moved.
unsigned host_health_epoch(void);

struct endpoint {
    struct host *host;    // counted by the set
    uint32_t weight;
    uint32_t priority;
    uint8_t eds_health;   // enum eds_health
    uint16_t transport;   // index into cluster_cfg.transports, or UINT16_MAX = default_transport
    struct str region, zone, sub_zone;
    uint32_t locality_weight;
    struct str workload;
};

struct endpoint_set {
    struct refs refs;
    struct arena arena;
    struct endpoint *v;
    size_t count;
    uint64_t total_weight;
    bool equal_weights;
    uint64_t generation;  // unique in the process: load balancers rebuild when it differs
};
// Empty: one reference, count 0, a generation of its own.
struct endpoint_set *endpoint_set_new(void);
struct endpoint_set *endpoint_set_ref(struct endpoint_set *e);
void endpoint_set_unref(struct endpoint_set *e); // any thread; drops the hosts too; NULL is fine

#endif
