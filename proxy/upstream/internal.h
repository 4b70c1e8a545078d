// SPDX-License-Identifier: Apache-2.0
// What the files of this folder share. Everything belongs to one worker's thread.
#ifndef PROXY_UPSTREAM_INTERNAL_H
#define PROXY_UPSTREAM_INTERNAL_H

#include "proxy/upstream/cluster.h"

struct lb;
struct pool;

enum { RECENT_CLUSTERS = 64, RECENT_POOLS = 8 }; // powers of two

struct upstream { // SLOT_UPSTREAM
    struct worker *worker;
    struct map clusters;   // name → struct cluster_worker *, those in use
    struct cluster_worker *recent[RECENT_CLUSTERS]; // by a part of the name; NULL or in clusters
    struct list dead;      // cluster_priv.link: gone from the configuration, still in use
    struct timer sweep;
    struct loop_hook hook; // looks whether hosts have failed
    struct timer watch;    // the same where nothing else would wake the worker; while a cluster closes connections for it
    unsigned health_epoch; // seen last
};

enum {
    WATCH_MS = 500,
    SWEEP_MS = 10000,      // forgets what nobody uses
    DEAD_GRACE_MS = 30000, // a removed cluster outlives its last user by this: attempts between a back-off and their next try hold no count
    TLS_PEER_IDLE_MS = 600000,
    EMPTY_POOL_MS = 1000,
};

struct cluster_priv {
    struct cluster_worker *cw;
    struct cluster_shared *shared; // ref
    struct list link;
    uint32_t users;        // requests begun, waiting requests, connections: cw must stay
    bool dead;
    uint64_t dead_ms;
    struct map tls_peers;  // struct tls_peer
    struct map orig_hosts; // address → struct host * (ref): ORIGINAL_DST
    uint64_t orig_cleaned_ms;
    uint32_t rq_batch[2];  // attempts by priority that cluster_shared.window does not know of yet
    struct list draining;  // struct pool: not for new requests
    struct pool *recent[RECENT_POOLS]; // of cw->pools, by host; NULL or in the map
    struct list tcp;       // struct tcp_connect: connections of pool_tcp.c
};
static inline struct cluster_priv *cluster_priv(const struct cluster_worker *cw)
{
    return cw->priv;
}
static inline void cluster_hold(struct cluster_worker *cw)
{
    cluster_priv(cw)->users++;
}
static inline void cluster_release(struct cluster_worker *cw)
{
    cluster_priv(cw)->users--;
}

// Nothing known against the host. (One that discovery has dropped may be healthy.)
static inline bool upstream_host_usable(const struct host *h)
{
    return (atomic_load_explicit(&h->flags, memory_order_relaxed) & ~(unsigned)HOST_REMOVED) == 0;
}

static inline struct upstream *upstream_of(const struct worker *w)
{
    return w->slots[SLOT_UPSTREAM];
}
// What was taken from these counters is given back to the same ones, whatever later snapshots hold.
static inline struct cluster_shared *cluster_shared_of(const struct cluster_worker *cw)
{
    return cluster_priv(cw)->shared;
}

// An address as a map key.
enum { ADDR_KEY_MAX = 128 };
struct str upstream_addr_key(const struct addr *a, char out[ADDR_KEY_MAX]);

// ---- balancer.c ----
// Brings cw->lb up to date and chooses; NULL when nobody is available. Borrowed from cw->snap.
const struct endpoint *balancer_pick(struct cluster_worker *cw, const struct pick *p);
void balancer_free(struct lb *lb);

// ---- original_dst.c ----
// The host for a destination, made on first use. Borrowed. NULL when p names none.
struct host *original_dst_pick(struct cluster_worker *cw, const struct pick *p);
// Forgets hosts that nobody uses; all: at the end.
void original_dst_clean(struct cluster_worker *cw, bool all);

// ---- connect.c ----
// What TLS keeps per endpoint between connections: the session to resume.
struct tls_peer {
    struct host *host;           // ref
    struct cluster_snap *cs;     // ref: keeps transport
    const struct transport_cfg *transport;
    struct tls_ctx *ctx;         // ref: a session belongs to the certificate it was made with
    struct tls_session_slot session;
    uint32_t users;
    uint64_t used_ms;
};
// Whom a TLS server must be when the request says it.
struct tls_names {
    struct str sni;         // empty = none
    struct san_matcher san; // value empty = as the transport says
};
struct connect_target {
    struct host *host;
    struct cluster_snap *cs;
    const struct transport_cfg *transport;
    const struct str *alpn; // offered
    size_t alpn_count;
    const struct tls_names *names; // in place of those of transport; NULL = those
    struct addr source;     // original source, family 0 = none
    uint32_t mark;          // 0 = the cluster's
    struct str preface;     // PROXY header, empty = none
};
// Starts a connection with its transport. NULL and *ret_why when that cannot even begin. *ret_peer (may come out NULL) is to be given back
// with upstream_tls_peer_put once the connection is gone.
struct conn *upstream_connect(struct cluster_worker *cw, const struct connect_target *t, const struct conn_ops *ops, void *owner,
                              struct tls_peer **ret_peer, enum pool_failure *ret_why);
// The PROXY header that t wants for o's client, appended to out; nothing when it wants none.
void upstream_preface(const struct transport_cfg *t, const struct pool_opts *o, struct buf *out);
void upstream_tls_peer_put(struct cluster_worker *cw, struct tls_peer *p);
void upstream_tls_peers_clean(struct cluster_worker *cw, bool all);
// Why a connection did not come about, counted in the cluster's and the host's statistics.
enum pool_failure upstream_connect_failed(struct cluster_worker *cw, struct host *h, const struct conn *c, enum conn_close why);
// A place for one more connection to h, in its cluster's breaker and (per_host_thresholds) in h's own limit. Exact over all workers. False: there
// is none, and nothing was taken; with force it is taken all the same.
bool upstream_cx_take(struct cluster_worker *cw, const struct cluster_cfg *cfg, struct host *h, int priority, bool force);
// Gives it back: no connection came of it, and upstream_cx_begin was not called.
void upstream_cx_give(struct cluster_worker *cw, struct host *h, int priority);
// Counters of a connection that begins (before it is open; its place was taken) and ends, which gives the place back.
void upstream_cx_begin(struct cluster_worker *cw, struct host *h);
void upstream_cx_end(struct cluster_worker *cw, struct host *h, int priority);

// ---- pool_h1.c ----
// Pools whose host or configuration is gone serve what they have and end.
void pool_http_follow(struct cluster_worker *cw);
void pool_http_free_all(struct cluster_worker *cw);
// All pools: connections finish what they have and end; new requests get new ones.
void pool_http_drain(struct cluster_worker *cw);
// The same for pools whose host has failed since it was last looked at: a new way to it, where one is taken at all, might do better.
void pool_http_check_hosts(struct cluster_worker *cw);

// ---- pool_tcp.c ----
// Cluster.close_connections_on_host_health_failure: ends the connections to hosts that have failed.
void pool_tcp_check_hosts(struct cluster_worker *cw);
bool pool_http_any(const struct cluster_worker *cw);

// ---- outlier.c ----
void outlier_result(struct cluster_worker *cw, struct host *h, int status, bool local_failure);

#endif
