// SPDX-License-Identifier: Apache-2.0
// Clusters at run time. cluster_shared: what all workers share (breaker counters). cluster_worker: one worker's pools, balancer and
// statistics of one cluster, made on first use, following snapshots.
#ifndef PROXY_UPSTREAM_CLUSTER_H
#define PROXY_UPSTREAM_CLUSTER_H

#include "lib/http/codec.h"
#include "lib/tls/transport_tls.h"
#include "proxy/core/hints.h"
#include "proxy/core/worker.h"
#include "proxy/model/snapshot.h"
#include "proxy/stats/stats.h"

// Exact over workers: counters are atomics; a limit is taken by increment-then-check (undone when over).
struct cluster_shared {
    struct refs refs;
    atomic_uint connections[2], pending[2], requests[2], retries[2], pools[2]; // by priority DEFAULT, HIGH
    _Atomic(struct retry_window *) window; // owned; attempts and retries of the last seconds, for budgets; made on first use: see breaker.c
    atomic_uint ejected;                  // outlier: hosts that are out now
    atomic_bool used;                     // a worker has looked for the cluster
    atomic_ullong used_ms;                // monotonic ms of the last request or connection, 0 = never
};
// One object per cluster name for as long as the name exists: every cluster_snap of that name refers to it.
struct cluster_shared *cluster_shared_new(void);
void cluster_shared_unref(struct cluster_shared *s);

struct cluster_worker {
    struct worker *worker;
    struct str name;             // owned copy
    struct cluster_snap *snap;   // ref: current configuration and endpoints
    struct stat_block *stats;
    struct stat_block *lb_stats, *outlier_stats; // NULL where the configuration has no need of them
    struct stat_block *grpc_stats; // NULL until the first gRPC answer
    struct lb *lb;               // owned; rebuilt when endpoints->generation changes
    struct map pools;            // host text + transport + alpn key → struct pool
    // private
    void *priv;
};

// Worker's thread.
void upstream_worker_init(struct worker *w);
void upstream_worker_fini(struct worker *w);
void upstream_on_snapshot(struct worker *w, const struct snapshot *old);
// NULL = no such cluster in the worker's snapshot. The result stays valid while the caller has something open on it (a request begun, a retry
// begun, a waiting pool_request, a TCP connection not released), and for at least 30 s after the cluster was removed.
struct cluster_worker *upstream_cluster(struct worker *w, struct str name);

enum { PICK_TRIED_MAX = 8 };
struct pick {                        // what a balancer may know
    bool has_hash;
    uint64_t hash;
    struct addr original_dst;        // ORIGINAL_DST clusters; family 0 = none
    struct host *tried[PICK_TRIED_MAX]; // previous_hosts: avoid these while others are there
    int tried_count;
    int reselect;                    // host_selection_retry_max_attempts
    const struct subset_key *subset; // metadata_match of the route or weighted cluster; NULL = none
    size_t subset_count;
    bool omit_canary;                // omit_canary_hosts: the same for endpoints that are canaries
    uint32_t avoid_priorities;       // previous_priorities: bits of priorities to pass over while another has hosts
};
// The chosen endpoint: host and cs counted for the caller (picked_release), transport resolved. false = nobody available.
struct picked {
    struct host *host;
    const struct transport_cfg *transport; // in the cluster's cfg: hold cs
    struct cluster_snap *cs;         // ref
    uint32_t priority;               // of the endpoint
    struct str metadata;             // the endpoint's, see proxy/core/metadata.h; hold cs
};
bool upstream_pick(struct cluster_worker *cw, const struct pick *p, struct picked *ret);
void picked_release(struct picked *p);
// Whether this request is to be dropped, by endpoint.v3.ClusterLoadAssignment.Policy.drop_overloads: answer 503. Once for each request, before
// its first pick. *ret_category (may be NULL) is borrowed from cw->snap.
enum upstream_drop { DROP_NONE, DROP_SOME, DROP_ALL /* each request of the cluster is dropped */ };
enum upstream_drop upstream_drop(struct cluster_worker *cw, struct str *ret_category);
// Where this process is, for zone-aware routing: the cluster whose endpoints are its own replicas (bootstrap.v3.ClusterManager.
// local_cluster_name, empty = none) and the node's locality. The texts live as long as the process; once, before workers start.
struct upstream_local {
    struct str cluster, region, zone, sub_zone;
};
void upstream_set_local(const struct upstream_local *l);

// ---- connections ----
enum pool_failure {
    POOL_FAIL_OVERFLOW,   // breaker: UO
    POOL_FAIL_CONNECT,    // refused, reset while connecting: UF
    POOL_FAIL_TIMEOUT,    // connect or handshake time-out: UF
    POOL_FAIL_TLS,        // handshake refused: UF, with detail
    POOL_FAIL_NO_SECRET,  // certificate missing: fail closed, UF
    POOL_FAIL_PROTOCOL,   // cluster wants a protocol that is not there
};

// A request waiting for an HTTP connection; embedded in the router's attempt.
struct pool_request {
    struct list link;
    // Exactly one of the two, possibly before pool_http_get returns. on_ready: open a stream now with codec_new_stream(c, …); when the stream
    // closes, the pool takes the connection back by itself.
    void (*on_ready)(struct pool_request *r, struct codec *c, const struct conn *conn);
    void (*on_fail)(struct pool_request *r, enum pool_failure why, const char *detail);
    bool reused;            // on_ready: the connection has served a request before
    void *pool;             // private
};
struct pool_opts {
    enum http_version downstream; // for use_downstream_protocol_config
    const struct str *alpn_override; // istio.alpn: offer these in place of the configured list; NULL = configured
    size_t alpn_override_count;
    const struct str *alpn_override_h2; // the same for connections that will speak HTTP/2
    size_t alpn_override_h2_count;
    bool raw;               // no HTTP: the payload of a CONNECT that ends here (codec_raw_client)
    int priority;           // 0 DEFAULT, 1 HIGH
    struct str authority;   // the request's host, or what stands for it: for clusters with auto_sni or auto_san
    const struct upstream_hints *hints;   // of the client's connection; NULL = none. Connections of different sources are not shared
    const struct addr *client, *client_dst; // of the client's connection, for PROXY headers; NULL = not made for a client
};
void pool_http_get(struct cluster_worker *cw, const struct picked *p, const struct pool_opts *o, struct pool_request *r);
void pool_http_cancel(struct pool_request *r); // before on_ready/on_fail
// Requests in flight against the breaker (max_requests): false = over the limit. Paired with upstream_request_done.
bool upstream_request_begin(struct cluster_worker *cw, struct host *h, int priority);
// status 0 = no answer. Feeds host counters and outlier detection.
void upstream_request_done(struct cluster_worker *cw, struct host *h, int priority, int status, bool local_failure);
// One gRPC answer, by the text of its grpc-status.
void upstream_grpc_done(struct cluster_worker *cw, struct str status);
// Retries against the breaker: max_retries, or the retry budget. Paired.
bool upstream_retry_begin(struct cluster_worker *cw, int priority);
void upstream_retry_done(struct cluster_worker *cw, int priority);

// A TCP connection for tcp_proxy, never pooled. on_ready: conn is OPEN and belongs to the caller (set ops/owner at once; at the end
// conn_free it and, in the same turn, pool_tcp_release). Exactly one callback, possibly before pool_tcp_get returns.
struct pool_tcp_request {
    void (*on_ready)(struct pool_tcp_request *r, struct conn *c);
    void (*on_fail)(struct pool_tcp_request *r, enum pool_failure why, const char *detail);
    struct conn *conn;      // private until on_ready
    struct cluster_worker *cw;
    struct host *host;
    int priority;
    void *priv;
};
void pool_tcp_get(struct cluster_worker *cw, const struct picked *p, const struct pool_opts *o, struct pool_tcp_request *r);
void pool_tcp_cancel(struct pool_tcp_request *r);
void pool_tcp_release(struct pool_tcp_request *r); // after on_ready, when the connection is gone

#endif
