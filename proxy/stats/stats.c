// SPDX-License-Identifier: Apache-2.0
// Shards, blocks, registered values. A block is made under its shard's lock (once per object and worker); counting takes none.
#include "proxy/stats/stats.h"

#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "proxy/stats/store.h"

const struct stat_meta stat_metas[STAT_ANY_COUNT] = {
#define STAT(scope_, id, kind_, name_, help_)                                                                          \
    { .scope = STAT_##scope_, .kind = STAT_##kind_, .name = name_, .help = help_ },
#include "proxy/stats/catalog.def"
#undef STAT
};

const char *const stat_scope_names[STAT_SCOPE_COUNT] = {
    [STAT_LISTENER] = "listener", [STAT_HTTP] = "http", [STAT_CLUSTER] = "cluster", [STAT_CLUSTER_LB] = "cluster", [STAT_CLUSTER_OUTLIER] = "cluster",
    [STAT_CLUSTER_HEALTH] = "cluster", [STAT_CLUSTER_LIMIT] = "cluster", [STAT_CLUSTER_GRPC] = "cluster", [STAT_TCP] = "tcp", [STAT_VCLUSTER] = "vhost",
    [STAT_ROUTE] = "vhost", [STAT_HTTP_LIMIT] = "", [STAT_TCP_LIMIT] = "local_rate_limit",
    [STAT_TCP_OPEN_LIMIT] = "connection_limit",
    [STAT_HTTP_JWT] = "http",
    [STAT_HTTP_RBAC] = "http", [STAT_HTTP_RBAC_SHADOW] = "http", [STAT_HTTP_RBAC_POLICY] = "http", [STAT_HTTP_RBAC_POLICY_SHADOW] = "http",
    [STAT_TCP_RBAC] = "", [STAT_TCP_RBAC_SHADOW] = "", [STAT_TCP_RBAC_POLICY] = "", [STAT_TCP_RBAC_POLICY_SHADOW] = "",
    [STAT_HTTP_AUTHZ] = "http", [STAT_CLUSTER_AUTHZ] = "cluster", [STAT_TCP_AUTHZ] = "ext_authz",
};

unsigned stat_scope_first(enum stat_scope scope)
{
    unsigned i = 0;
    while (i < STAT_ANY_COUNT && stat_metas[i].scope != scope) {
        i++;
    }
    return i;
}

unsigned stat_scope_end(enum stat_scope scope)
{
    unsigned i = stat_scope_first(scope);
    while (i < STAT_ANY_COUNT && stat_metas[i].scope == scope) {
        i++;
    }
    return i;
}

struct stats_store *stats_store_new(int shards)
{
    CHECK(shards > 0);
    for (int i = 0; i < STAT_SCOPE_COUNT; i++) {
        CHECK(stat_scope_end((enum stat_scope)i) - stat_scope_first((enum stat_scope)i) <= 64); // stat_block.used
    }
    struct stats_store *s = mem_new(struct stats_store);
    s->shard_count = shards;
    s->shards = mem_zalloc(sizeof(*s->shards) * (size_t)shards);
    for (int i = 0; i < shards; i++) {
        pthread_mutex_init(&s->shards[i].lock, NULL);
    }
    return s;
}

static struct stat_histogram *cell_histogram(const struct stat_block *b, unsigned local)
{
    return (struct stat_histogram *)(uintptr_t)atomic_load_explicit(&b->cells[local], memory_order_acquire);
}

static void block_free(struct stat_block *b)
{
    unsigned end = stat_scope_end((enum stat_scope)b->scope);
    for (unsigned i = b->base; i < end; i++) {
        if (stat_metas[i].kind == STAT_HISTOGRAM) {
            histogram_free(cell_histogram(b, i - b->base));
        }
    }
    free(atomic_load_explicit(&b->codes, memory_order_relaxed));
    free(b->zero);
    free((char *)b->name.p);
    free(b);
}

void stats_store_free(struct stats_store *s)
{
    if (!s) {
        return;
    }
    for (int i = 0; i < s->shard_count; i++) {
        struct stats_shard *sh = &s->shards[i];
        for (struct stat_block *b = sh->list, *next; b; b = next) {
            next = b->next;
            block_free(b);
        }
        for (int k = 0; k < STAT_SCOPE_COUNT; k++) {
            map_fini(&sh->blocks[k]);
        }
        pthread_mutex_destroy(&sh->lock);
    }
    for (struct stat_registered *r = s->registered, *next; r; r = next) {
        next = r->next;
        free(r->name);
        free(r);
    }
    free(s->shards);
    free(s);
}

struct stats_shard *stats_shard_get(struct stats_store *s, int index)
{
    CHECK(index >= 0 && index < s->shard_count);
    return &s->shards[index];
}

static struct stat_block *block_new(enum stat_scope scope, struct str name)
{
    unsigned first = stat_scope_first(scope), n = stat_scope_end(scope) - first;
    struct stat_block *b = mem_zalloc(sizeof(*b) + n * sizeof(b->cells[0]));
    b->base = (uint16_t)first;
    b->scope = (uint16_t)scope;
    b->name = str_n(str_dup(name), name.n);
    return b;
}

struct stats_shard *stats_shard_control(struct stats_store *s)
{
    return &s->shards[s->shard_count - 1];
}

struct stat_block *stats_scope_get(struct stats_shard *s, enum stat_scope scope, struct str name)
{
    pthread_mutex_lock(&s->lock);
    struct stat_block *b = map_get(&s->blocks[scope], name);
    if (!b) {
        b = block_new(scope, name);
        map_put(&s->blocks[scope], name, b);
        b->next = s->list;
        s->list = b;
    }
    atomic_store_explicit(&b->dropped, false, memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
    return b;
}

void stats_scope_hold(struct stat_block *b)
{
    if (b) {
        atomic_fetch_add_explicit(&b->holders, 1, memory_order_relaxed);
    }
}

void stats_scope_release(struct stat_block *b)
{
    if (b) {
        atomic_fetch_sub_explicit(&b->holders, 1, memory_order_release); // pairs with shard_sweep: our counting came before
    }
}

static void sweep(struct stats_store *s, uint64_t now_ms);

void stats_scope_drop(struct stats_store *s, enum stat_scope scope, struct str name)
{
    uint64_t now_ms = clock_mono_ms();
    if (s->have_dropped && now_ms - s->swept_ms >= STAT_DROP_GRACE_MS) {
        sweep(s, now_ms);
    }
    for (int i = 0; i < s->shard_count; i++) {
        struct stats_shard *sh = &s->shards[i];
        pthread_mutex_lock(&sh->lock);
        struct stat_block *b = map_get(&sh->blocks[scope], name);
        if (b) {
            b->dropped_ms = now_ms;
            atomic_store_explicit(&b->dropped, true, memory_order_relaxed);
            s->have_dropped = true;
        }
        pthread_mutex_unlock(&sh->lock);
    }
}

static bool gauges_zero(const struct stat_block *b)
{
    unsigned end = stat_scope_end((enum stat_scope)b->scope);
    for (unsigned i = b->base; i < end; i++) {
        if (stat_metas[i].kind == STAT_GAUGE && atomic_load_explicit(&b->cells[i - b->base], memory_order_relaxed) != 0) {
            return false;
        }
    }
    return true;
}

// Under the shard's lock. Returns whether dropped blocks are left for later.
static bool shard_sweep(struct stats_shard *sh, uint64_t now_ms)
{
    bool left = false;
    for (struct stat_block **p = &sh->list; *p;) {
        struct stat_block *b = *p;
        if (!atomic_load_explicit(&b->dropped, memory_order_relaxed)) {
            p = &b->next;
        } else if (now_ms - b->dropped_ms < STAT_DROP_GRACE_MS || atomic_load_explicit(&b->holders, memory_order_acquire) || !gauges_zero(b)) {
            left = true;
            p = &b->next;
        } else {
            *p = b->next;
            map_del(&sh->blocks[b->scope], b->name);
            block_free(b);
        }
    }
    return left;
}

static void sweep(struct stats_store *s, uint64_t now_ms)
{
    bool left = false;
    for (int i = 0; i < s->shard_count; i++) {
        pthread_mutex_lock(&s->shards[i].lock);
        left |= shard_sweep(&s->shards[i], now_ms);
        pthread_mutex_unlock(&s->shards[i].lock);
    }
    s->have_dropped = left;
    s->swept_ms = now_ms;
}

void stat_record(struct stat_block *b, enum stat_any id, uint64_t value)
{
    if (!b) {
        return;
    }
    unsigned local = (unsigned)id - b->base;
    struct stat_histogram *h = cell_histogram(b, local);
    if (__builtin_expect(!h, 0)) {
        h = mem_new(struct stat_histogram);
        atomic_store_explicit(&b->cells[local], (uintptr_t)h, memory_order_release); // pairs with cell_histogram
    }
    histogram_record(h, value);
}

static void count_code(struct stat_block *b, unsigned status)
{
    struct stat_codes *c = atomic_load_explicit(&b->codes, memory_order_relaxed);
    if (__builtin_expect(!c, 0)) {
        c = mem_new(struct stat_codes);
        atomic_store_explicit(&b->codes, c, memory_order_release); // pairs with stats_group_codes
    }
    unsigned n = atomic_load_explicit(&c->count, memory_order_relaxed), i = 0;
    while (i < n && atomic_load_explicit(&c->v[i].code, memory_order_relaxed) != status) {
        i++;
    }
    if (i == STAT_CODES_MAX) {
        return; // counted by its class only
    }
    atomic_ullong *cell = &c->v[i].n;
    atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + 1, memory_order_relaxed);
    if (i == n) {
        atomic_store_explicit(&c->v[i].code, status, memory_order_relaxed);
        atomic_store_explicit(&c->count, n + 1, memory_order_release);
    }
}

void stat_answer(struct stat_block *b, int status)
{
    static const enum stat_any completed[STAT_SCOPE_COUNT] = {
        [STAT_CLUSTER] = STAT_ID_CLUSTER_UPSTREAM_RQ_COMPLETED, [STAT_VCLUSTER] = STAT_ID_VCLUSTER_RQ_COMPLETED,
        [STAT_ROUTE] = STAT_ID_ROUTE_RQ_COMPLETED,
    };
    if (!b || status < 100 || status > 599) {
        return;
    }
    enum stat_any id = completed[b->scope]; // the classes stand behind it
    DCHECK(id);
    stat_inc(b, id);
    stat_inc(b, (enum stat_any)(id + (unsigned)status / 100));
    count_code(b, (unsigned)status);
}

uint64_t stats_sum(struct stats_store *s, enum stat_scope scope, struct str name, enum stat_any id)
{
    uint64_t sum = 0;
    for (int i = 0; i < s->shard_count; i++) {
        struct stats_shard *sh = &s->shards[i];
        pthread_mutex_lock(&sh->lock);
        struct stat_block *b = map_get(&sh->blocks[scope], name);
        if (b) {
            sum += stats_group_value(&(struct stats_group){ .scope = scope, .name = name, .v = &b, .n = 1 }, id);
        }
        pthread_mutex_unlock(&sh->lock);
    }
    return sum;
}

static struct stat_registered *registered_new(struct stats_store *s, const char *name, void *arg)
{
    struct stat_registered *r = mem_new(struct stat_registered);
    r->name = mem_strdup(name);
    r->arg = arg;
    r->next = s->registered;
    s->registered = r;
    return r;
}

void stats_register(struct stats_store *s, const char *name, enum stat_kind kind, const char *help,
                    uint64_t (*fn)(void *arg), void *arg)
{
    (void)help; // Envoy's expositions carry no help texts; the argument keeps call sites documented
    struct stat_registered *r = registered_new(s, name, arg);
    r->kind = kind;
    r->fn = fn;
}

void stats_register_text(struct stats_store *s, const char *name, struct str (*fn)(void *arg), void *arg)
{
    registered_new(s, name, arg)->text = fn;
}

static void reset_codes(struct stat_block *b)
{
    struct stat_codes *c = atomic_load_explicit(&b->codes, memory_order_acquire);
    unsigned n = c ? atomic_load_explicit(&c->count, memory_order_acquire) : 0;
    for (unsigned i = 0; i < n; i++) {
        c->v[i].zero = atomic_load_explicit(&c->v[i].n, memory_order_relaxed);
    }
}

void stats_reset_counters(struct stats_store *s)
{
    for (int i = 0; i < s->shard_count; i++) {
        pthread_mutex_lock(&s->shards[i].lock);
        for (struct stat_block *b = s->shards[i].list; b; b = b->next) {
            unsigned n = stat_scope_end((enum stat_scope)b->scope) - b->base;
            if (!b->zero) {
                b->zero = mem_zalloc(sizeof(*b->zero) * n);
            }
            for (unsigned k = 0; k < n; k++) {
                if (stat_metas[b->base + k].kind == STAT_COUNTER) {
                    b->zero[k] = atomic_load_explicit(&b->cells[k], memory_order_relaxed);
                }
            }
            reset_codes(b);
        }
        pthread_mutex_unlock(&s->shards[i].lock);
    }
}

// ---- view ----

// Of the full name; blocks of a scope without a name of its own begin with theirs.
static struct str first_word(const struct stat_block *b)
{
    return stat_scope_names[b->scope][0] ? str_c(stat_scope_names[b->scope]) : b->name;
}

static int by_scope_and_name(const void *x, const void *y)
{
    const struct stat_block *a = *(struct stat_block *const *)x, *b = *(struct stat_block *const *)y;
    int order = str_cmp(first_word(a), first_word(b)); // several scopes are called "cluster"
    order = order ? order : str_cmp(a->name, b->name);
    return order ? order : (int)a->scope - (int)b->scope;
}

static int by_registered_name(const void *x, const void *y)
{
    return strcmp((*(struct stat_registered *const *)x)->name, (*(struct stat_registered *const *)y)->name);
}

static size_t view_collect(struct stats_view *v, struct stats_store *s)
{
    size_t n = 0, cap = 0;
    if (s->have_dropped) {
        sweep(s, clock_mono_ms());
    }
    for (int i = 0; i < s->shard_count; i++) {
        struct stats_shard *sh = &s->shards[i];
        pthread_mutex_lock(&sh->lock);
        for (struct stat_block *b = sh->list; b; b = b->next) {
            mem_grow(&v->blocks, &cap, n + 1, sizeof(*v->blocks));
            v->blocks[n++] = b;
        }
        pthread_mutex_unlock(&sh->lock);
    }
    return n;
}

void stats_on_collect(struct stats_store *s, void (*fn)(void *arg), void *arg)
{
    s->collect = fn;
    s->collect_arg = arg;
}

void stats_view_init(struct stats_view *v, struct stats_store *s)
{
    *v = (struct stats_view){ 0 };
    if (s->collect) {
        s->collect(s->collect_arg);
    }
    size_t n = view_collect(v, s);
    if (n) {
        qsort(v->blocks, n, sizeof(*v->blocks), by_scope_and_name);
    }
    v->groups = mem_zalloc(sizeof(*v->groups) * (n ? n : 1));
    for (size_t i = 0; i < n; i++) {
        struct stat_block *b = v->blocks[i];
        struct stats_group *g = v->group_count ? &v->groups[v->group_count - 1] : NULL;
        if (g && g->scope == b->scope && str_eq(g->name, b->name)) {
            g->n++;
        } else {
            v->groups[v->group_count++] =
                (struct stats_group){ .scope = (enum stat_scope)b->scope, .name = b->name, .v = &v->blocks[i], .n = 1 };
        }
    }
    size_t cap = 0;
    for (struct stat_registered *r = s->registered; r; r = r->next) {
        mem_grow(&v->reg, &cap, v->reg_count + 1, sizeof(*v->reg));
        v->reg[v->reg_count++] = r;
    }
    if (v->reg_count) {
        qsort(v->reg, v->reg_count, sizeof(*v->reg), by_registered_name);
    }
}

void stats_view_fini(struct stats_view *v)
{
    free(v->blocks);
    free(v->groups);
    free(v->reg);
}

uint64_t stats_group_value(const struct stats_group *g, unsigned id)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < g->n; i++) {
        const struct stat_block *b = g->v[i];
        unsigned local = id - b->base;
        if (stat_metas[id].kind == STAT_HISTOGRAM) {
            struct histogram_sum h = { 0 };
            const struct stat_histogram *p = cell_histogram(b, local);
            if (p) {
                histogram_merge(p, &h);
            }
            sum += h.count;
        } else {
            sum += atomic_load_explicit(&b->cells[local], memory_order_relaxed) - (b->zero ? b->zero[local] : 0);
        }
    }
    return sum;
}

bool stats_group_used(const struct stats_group *g, unsigned id)
{
    for (size_t i = 0; i < g->n; i++) {
        const struct stat_block *b = g->v[i];
        unsigned local = id - b->base;
        // Histograms hold a pointer once used; counters that were ever raised are not zero; gauges have their bit.
        if (atomic_load_explicit(&b->cells[local], memory_order_relaxed) != 0 ||
            (atomic_load_explicit(&b->used, memory_order_relaxed) >> local & 1)) {
            return true;
        }
    }
    return false;
}

void stats_group_histogram(const struct stats_group *g, unsigned id, struct histogram_sum *ret)
{
    memset(ret, 0, sizeof(*ret));
    for (size_t i = 0; i < g->n; i++) {
        const struct stat_histogram *h = cell_histogram(g->v[i], id - g->v[i]->base);
        if (h) {
            histogram_merge(h, ret);
        }
    }
}

size_t stats_group_codes(const struct stats_group *g, unsigned *codes, uint64_t *counts, size_t max)
{
    uint64_t all[600] = { 0 };
    for (size_t i = 0; i < g->n; i++) {
        struct stat_codes *c = atomic_load_explicit(&g->v[i]->codes, memory_order_acquire);
        unsigned n = c ? atomic_load_explicit(&c->count, memory_order_acquire) : 0;
        for (unsigned k = 0; k < n; k++) {
            all[atomic_load_explicit(&c->v[k].code, memory_order_relaxed)] +=
                atomic_load_explicit(&c->v[k].n, memory_order_relaxed) - c->v[k].zero;
        }
    }
    size_t n = 0;
    for (unsigned i = 0; i < array_len(all) && n < max; i++) {
        if (all[i]) {
            codes[n] = i;
            counts[n++] = all[i];
        }
    }
    return n;
}

struct str stats_full_name(const struct stats_group *g, const char *metric, struct buf *out)
{
    buf_clear(out);
    const char *scope = stat_scope_names[g->scope];
    buf_printf(out, "%s%s%.*s.%s", scope, scope[0] ? "." : "", STR_FMT(g->name), metric);
    struct str s = buf_pullup(out, out->len);
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == ':') {
            ((char *)s.p)[i] = '_';
        }
    }
    return s;
}
