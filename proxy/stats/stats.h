// SPDX-License-Identifier: Apache-2.0
// Statistics: per-worker cells with one writer (the worker) and any readers. A scope (a listener address, an HTTP stat prefix, a cluster)
// has one block of cells per worker, made on first use; the control thread sums them.
#ifndef PROXY_STATS_STATS_H
#define PROXY_STATS_STATS_H

#include <stdatomic.h>

#include "lib/base/arena.h"
#include "lib/base/buf.h"

// The CLUSTER_… ones continue CLUSTER under the same names: blocks of their own, made where there is something to count.
enum stat_scope {
    STAT_LISTENER, STAT_HTTP, STAT_CLUSTER, STAT_CLUSTER_LB, STAT_CLUSTER_OUTLIER, STAT_CLUSTER_HEALTH, STAT_CLUSTER_LIMIT, STAT_CLUSTER_GRPC, STAT_TCP, STAT_VCLUSTER, STAT_ROUTE,
    STAT_HTTP_LIMIT, STAT_TCP_LIMIT, STAT_TCP_OPEN_LIMIT,
    STAT_HTTP_RBAC, STAT_HTTP_RBAC_SHADOW, STAT_HTTP_RBAC_POLICY, STAT_HTTP_RBAC_POLICY_SHADOW,
    STAT_TCP_RBAC, STAT_TCP_RBAC_SHADOW, STAT_TCP_RBAC_POLICY, STAT_TCP_RBAC_POLICY_SHADOW,
    STAT_HTTP_AUTHZ, STAT_CLUSTER_AUTHZ, STAT_TCP_AUTHZ,
    STAT_HTTP_JWT,
    STAT_SCOPE_COUNT
};
enum stat_kind { STAT_COUNTER, STAT_GAUGE, STAT_HISTOGRAM };

// A metric is named by this enum (unique over all scopes): STAT_ID_CLUSTER_UPSTREAM_CX_TOTAL, STAT_ID_HTTP_RQ_TOTAL, … A block holds
// only its scope's range.
#define STAT(scope, id, kind, name, help) STAT_ID_##scope##_##id,
enum stat_any {
#include "proxy/stats/catalog.def"
    STAT_ANY_COUNT
};
#undef STAT

struct stats_store; // process-wide: all shards
struct stats_shard; // one per worker, plus one for the control thread

enum {
    STAT_CODES_MAX = 24,          // different statuses counted per cluster and worker; further ones only by class
    STAT_DROP_GRACE_MS = 10000,   // between stats_scope_drop and the free: workers have long left the old snapshot
};

// The cells of one scope on one shard. Open only so that the hot functions below can be inlined: use those.
struct stat_block {
    struct stat_block *next;      // shard's list; control thread and shard's thread, under the shard's lock
    uint16_t base;                // first id of the scope
    uint16_t scope;               // enum stat_scope
    atomic_bool dropped;          // its object is gone from the configuration
    uint64_t dropped_ms;          // since then; control thread
    atomic_uint holders;          // stats_scope_hold; written by the shard's thread
    atomic_ullong used;           // gauges that were ever raised, bit = id - base; written by the shard's thread
    struct str name;              // owned
    uint64_t *zero;               // owned; values at the last stats_reset_counters; control thread
    _Atomic(struct stat_codes *) codes; // upstream_rq_<code>, made on first use
    atomic_ullong cells[];        // counters, gauges; for histograms a pointer to struct stat_histogram, made on first use
};

struct stats_store *stats_store_new(int shards);
void stats_store_free(struct stats_store *s);
struct stats_shard *stats_shard_get(struct stats_store *s, int index);
// The last one: the control thread's.
struct stats_shard *stats_shard_control(struct stats_store *s);

// The block of (scope, name) on this shard; made on first call, lives as long as the store or until stats_scope_drop. Shard's thread.
// Worth keeping in the caller's object: a hash look-up.
struct stat_block *stats_scope_get(struct stats_shard *s, enum stat_scope scope, struct str name);
// The caller keeps the block in an object that may outlive what it counts: it is not freed before stats_scope_release. Shard's thread, in the
// same turn as stats_scope_get. NULL is fine.
void stats_scope_hold(struct stat_block *b);
void stats_scope_release(struct stat_block *b);
// The object behind the scope is gone from the configuration: blocks are freed once their gauges are zero and nobody holds them, by later calls
// of this and by the expositions. Control thread.
void stats_scope_drop(struct stats_store *s, enum stat_scope scope, struct str name);

// Shard's thread. Relaxed single-writer arithmetic, no locked instruction. b may be NULL (excluded by stats matcher): nothing happens.
static inline void stat_add(struct stat_block *b, enum stat_any id, uint64_t n)
{
    if (b) {
        atomic_ullong *c = &b->cells[(unsigned)id - b->base];
        atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
    }
}
static inline void stat_inc(struct stat_block *b, enum stat_any id)
{
    stat_add(b, id, 1);
}
static inline void stat_gauge_add(struct stat_block *b, enum stat_any id, int64_t n)
{
    stat_add(b, id, (uint64_t)n);
    if (b) {
        unsigned long long bit = 1ull << ((unsigned)id - b->base);
        unsigned long long used = atomic_load_explicit(&b->used, memory_order_relaxed);
        if (__builtin_expect(!(used & bit), 0)) {
            atomic_store_explicit(&b->used, used | bit, memory_order_relaxed);
        }
    }
}
// Histogram of a value in its own unit (ms), log-linear buckets.
void stat_record(struct stat_block *b, enum stat_any id, uint64_t value);
// One answer: upstream_rq_completed, upstream_rq_Nxx and upstream_rq_<status> of a STAT_CLUSTER, STAT_VCLUSTER or STAT_ROUTE block. Shard's thread.
void stat_answer(struct stat_block *b, int status);
// Sum over all shards of one metric of one scope (histograms: how many values were recorded). Any thread.
uint64_t stats_sum(struct stats_store *s, enum stat_scope scope, struct str name, enum stat_any id);

// Server-level values that are computed when asked ("server.uptime", "cluster_manager.cds.update_success"). Registered by their owners;
// fn runs on the control thread.
void stats_register(struct stats_store *s, const char *name, enum stat_kind kind, const char *help, uint64_t (*fn)(void *arg), void *arg);
// Text-valued ones ("control_plane.identifier", "cluster_manager.cds.version_text"): fn returns a view valid until the next call.
void stats_register_text(struct stats_store *s, const char *name, struct str (*fn)(void *arg), void *arg);

// fn(arg) runs before each exposition, to bring gauges of the control thread's shard up to date. One only; NULL = none. Control thread.
void stats_on_collect(struct stats_store *s, void (*fn)(void *arg), void *arg);
// Sets a gauge to n. Shard's thread.
static inline void stat_gauge_set(struct stat_block *b, enum stat_any id, uint64_t n)
{
    if (b) {
        stat_gauge_add(b, id, (int64_t)(n - atomic_load_explicit(&b->cells[(unsigned)id - b->base], memory_order_relaxed)));
    }
}

// Exposition. Control thread. No interval histograms are kept: the interval part of a quantile reads "nan", as Envoy's does when
// nothing was recorded in its last interval. keep(arg, name) decides on each full name; NULL keeps all. used_only: only those ever touched.
struct stats_dump_opts {
    bool used_only;
    bool (*keep)(void *arg, struct str name);
    void *arg;
};
void stats_dump_text(struct stats_store *s, const struct stats_dump_opts *o, struct buf *out);       // Envoy /stats
void stats_dump_json(struct stats_store *s, const struct stats_dump_opts *o, struct buf *out);       // /stats?format=json
void stats_dump_prometheus(struct stats_store *s, const struct stats_dump_opts *o, struct buf *out); // /stats/prometheus, envoy_ prefix, Envoy's labels
void stats_reset_counters(struct stats_store *s);

#endif
