// SPDX-License-Identifier: Apache-2.0
// Statistics: per-worker cells with one writer (the worker) and any readers. A scope (a listener address, an HTTP stat prefix, a cluster)
// has one block of cells per worker, made on first use; the control thread sums them.
#ifndef PROXY_STATS_STATS_H
#define PROXY_STATS_STATS_H

#include <stdatomic.h>

#include "lib/base/arena.h"
#include "lib/base/buf.h"

enum stat_scope { STAT_LISTENER, STAT_HTTP, STAT_CLUSTER, STAT_TCP, STAT_SCOPE_COUNT };
enum stat_kind { STAT_COUNTER, STAT_GAUGE, STAT_HISTOGRAM };

// Ids count from 0 within each scope: STAT_CLUSTER_UPSTREAM_CX_TOTAL, STAT_HTTP_RQ_TOTAL, …
#define STAT_SCOPE_BEGIN 0
#define STAT(scope, id, kind, name, help) STAT_ID_##scope##_##id,
enum stat_any {
#include "proxy/stats/catalog.def"
    STAT_ANY_COUNT
};
#undef STAT
// A metric is named by the enum above (unique over all scopes); blocks hold only their scope's range.

struct stats_store; // process-wide: all shards
struct stats_shard; // one per worker, plus one for the control thread
struct stat_block;  // the cells of one scope on one shard

struct stats_store *stats_store_new(int shards);
void stats_store_free(struct stats_store *s);
struct stats_shard *stats_shard_get(struct stats_store *s, int index);

// The block of (scope, name) on this shard; made on first call, lives as long as the store or until stats_scope_drop. Shard's thread.
// Worth keeping in the caller's object: a hash look-up.
struct stat_block *stats_scope_get(struct stats_shard *s, enum stat_scope scope, struct str name);
// The object behind the scope is gone from the configuration: blocks are freed once their gauges are zero. Control thread.
void stats_scope_drop(struct stats_store *s, enum stat_scope scope, struct str name);

// Shard's thread. Relaxed single-writer arithmetic, no locked instruction. b may be NULL (excluded by stats matcher): nothing happens.
void stat_add(struct stat_block *b, enum stat_any id, uint64_t n);
void stat_inc(struct stat_block *b, enum stat_any id);
void stat_gauge_add(struct stat_block *b, enum stat_any id, int64_t n);
// Histogram of a value in its own unit (ms), log-linear buckets.
void stat_record(struct stat_block *b, enum stat_any id, uint64_t value);
// Sum over all shards of one metric of one scope. Any thread.
uint64_t stats_sum(struct stats_store *s, enum stat_scope scope, struct str name, enum stat_any id);

// Server-level values that are computed when asked ("server.uptime", "cluster_manager.cds.update_success"). Registered by their owners;
// fn runs on the control thread.
void stats_register(struct stats_store *s, const char *name, enum stat_kind kind, const char *help, uint64_t (*fn)(void *arg), void *arg);
// Text-valued ones ("control_plane.identifier", "cluster_manager.cds.version_text"): fn returns a view valid until the next call.
void stats_register_text(struct stats_store *s, const char *name, struct str (*fn)(void *arg), void *arg);

// Exposition. Control thread. keep(arg, name) decides on each full name; NULL keeps all. used_only: only those ever touched.
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
