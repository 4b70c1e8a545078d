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
enum host_flag {
    HOST_FAILED_EDS = 1,
    HOST_FAILED_ACTIVE_HC = 2,
    HOST_FAILED_OUTLIER = 4,
    HOST_PENDING_HC = 8,  // not checked yet: with HOST_FAILED_ACTIVE_HC, for admin's sake; out of every count when new hosts are to be ignored
    HOST_REMOVED = 16,    // discovery no longer has it, but its health checks still succeed
};

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
    atomic_ullong ejected_ms;           // outlier: monotonic ms of the last ejection
    atomic_uint rate_total, rate_success, local_total, local_success; // outlier: answers of this interval; taken by the control thread
    atomic_int success_rate, local_success_rate; // of the last interval in tenths of a percent, -1 = too few answers
    atomic_ullong since_ms;             // monotonic ms: slow start begins here (made, or healthy again)
    atomic_ullong refused_until_ms;     // monotonic ms: it refused or broke connections just now, see balancer.c; 0 = not
    atomic_uint refused_row;            // so many times in a row
    // Set once before any thread but the control thread sees the host
    struct addr *more;                  // further addresses of the same endpoint, owned; RFC 8305
    uint32_t more_count;
    bool checked;                       // control thread: a health check has had a result
};
// Made with one reference; hostname may be empty. a->path is copied.
struct host *host_new(const struct addr *a, struct str hostname);
struct host *host_ref(struct host *h);
void host_unref(struct host *h); // any thread; NULL is fine
// Sets or clears a bit of flags and moves the health epoch on when that changed something. Returns whether it did. Any thread.
bool host_set_flag(struct host *h, enum host_flag f, bool on);
// Counts changes of any host's flags in the process: load balancers look again when it moved.
unsigned host_health_epoch(void);

// What few endpoints have.
struct endpoint_more {
    struct str hash_key;  // empty = the host's address
    struct lb_criterion *lb_metadata; // only with subsets
    size_t lb_metadata_count;
    // endpoint.v3.Endpoint.HealthCheckConfig, only with health checks
    struct addr check_addr;     // family 0 = the endpoint's
    uint16_t check_port;        // 0 = the endpoint's
    struct str check_host;      // empty = as the check says
    bool check_off;
};

struct endpoint {
    struct host *host;    // counted by the set
    uint32_t weight;
    uint32_t priority;
    uint8_t eds_health;   // enum eds_health
    bool canary;          // metadata envoy.lb canary
    uint16_t transport;   // index into cluster_cfg.transports, or UINT16_MAX = default_transport
    struct str region, zone, sub_zone;
    uint32_t locality_weight;
    struct str metadata;  // see proxy/core/metadata.h; neighbours share it
    const struct endpoint_more *more; // NULL = nothing of it
};

struct endpoint_set {
    struct refs refs;
    struct arena arena;
    struct endpoint *v;
    size_t count;
    uint64_t total_weight;
    bool equal_weights;
    struct endpoint_policy policy;
    uint64_t generation;  // unique in the process: load balancers rebuild when it differs
};
// Empty: one reference, count 0, a generation of its own.
struct endpoint_set *endpoint_set_new(void);
struct endpoint_set *endpoint_set_ref(struct endpoint_set *e);
// Before anybody else sees e: a further endpoint like x, with texts of its own and a reference on the host.
void endpoint_set_add(struct endpoint_set *e, const struct endpoint *x);
// Policy p, with texts of its own.
void endpoint_set_policy(struct endpoint_set *e, const struct endpoint_policy *p);
// Policy and all endpoints of from, but for those of the host without (may be NULL).
void endpoint_set_copy(struct endpoint_set *e, const struct endpoint_set *from, const struct host *without);
void endpoint_set_unref(struct endpoint_set *e); // any thread; drops the hosts too; NULL is fine

#endif
