// SPDX-License-Identifier: Apache-2.0
// Inside of proxy/stats: the store, and a sorted view over all shards that the three expositions share.
#ifndef PROXY_STATS_STORE_H
#define PROXY_STATS_STORE_H

#include <pthread.h>

#include "lib/base/map.h"
#include "proxy/stats/stats.h"

struct stat_meta { // one line of catalog.def
    enum stat_scope scope;
    enum stat_kind kind;
    const char *name, *help;
};
extern const struct stat_meta stat_metas[STAT_ANY_COUNT];
// "cluster", "http", … as the names begin; "" = they begin with the block's name.
extern const char *const stat_scope_names[STAT_SCOPE_COUNT];
// Ids [first, end) of a scope.
unsigned stat_scope_first(enum stat_scope scope);
unsigned stat_scope_end(enum stat_scope scope);

enum {
    HISTOGRAM_DECADES = 9, // 0…9, 10…99, … values of 10^9 and more count as the largest
    HISTOGRAM_UNITS = 10,  // buckets of the first decade
    HISTOGRAM_STEPS = 90,  // buckets of every other decade: two significant digits
    HISTOGRAM_BUCKETS = HISTOGRAM_UNITS + (HISTOGRAM_DECADES - 1) * HISTOGRAM_STEPS,
};

// Log-linear histogram; one writer. A decade's buckets exist from its first value on, so that the usual one costs under 2 KB.
struct stat_histogram {
    atomic_ullong sum;
    _Atomic(atomic_ullong *) decades[HISTOGRAM_DECADES];
};
// Several of them added up.
struct histogram_sum {
    uint64_t count, sum;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};
void histogram_record(struct stat_histogram *h, uint64_t value);
void histogram_free(struct stat_histogram *h);
void histogram_merge(const struct stat_histogram *h, struct histogram_sum *sum);
// q in [0, 1]; linear inside a bucket. count must not be 0.
double histogram_quantile(const struct histogram_sum *s, double q);
// Values that are certainly ≤ bound.
uint64_t histogram_count_below(const struct histogram_sum *s, double bound);

extern const double histogram_quantiles[];       // of the text and JSON forms, percent
extern const size_t histogram_quantile_count;

struct stat_codes { // upstream_rq_<code>; the shard's thread appends, readers see count through acquire
    atomic_uint count;
    struct {
        atomic_uint code;
        atomic_ullong n;
        uint64_t zero; // n at the last stats_reset_counters; control thread
    } v[STAT_CODES_MAX];
};

struct stats_shard {
    pthread_mutex_t lock;             // the maps and the list; never held while formatting
    struct map blocks[STAT_SCOPE_COUNT];
    struct stat_block *list;
};

struct stat_registered {
    struct stat_registered *next;
    char *name;                       // owned
    enum stat_kind kind;
    uint64_t (*fn)(void *arg);
    struct str (*text)(void *arg);    // text-valued when set
    void *arg;
};

struct stats_store {
    int shard_count;
    struct stats_shard *shards;
    struct stat_registered *registered; // control thread
    void (*collect)(void *arg);       // before each exposition
    void *collect_arg;
    bool have_dropped;
    uint64_t swept_ms;
};

// ---- view ----
struct stats_group { // one scope object: its blocks on all shards
    enum stat_scope scope;
    struct str name;           // as stored
    struct stat_block **v;     // in the view's array
    size_t n;
};
struct stats_view {
    struct stat_block **blocks;   // owned
    struct stats_group *groups;   // owned; sorted by full name
    size_t group_count;
    struct stat_registered **reg; // owned; sorted by name
    size_t reg_count;
};
// Frees what was dropped and is over its grace time, then lists the rest.
void stats_view_init(struct stats_view *v, struct stats_store *s);
void stats_view_fini(struct stats_view *v);
uint64_t stats_group_value(const struct stats_group *g, unsigned id);
// Ever counted, raised or recorded.
bool stats_group_used(const struct stats_group *g, unsigned id);
void stats_group_histogram(const struct stats_group *g, unsigned id, struct histogram_sum *ret);
// Statuses seen with their counts, ascending by code; at most max. Returns how many.
size_t stats_group_codes(const struct stats_group *g, unsigned *codes, uint64_t *counts, size_t max);
// "cluster.NAME.metric" into out with ':' as '_' (Envoy's rule for names); the view is valid until out changes.
struct str stats_full_name(const struct stats_group *g, const char *metric, struct buf *out);

#endif
