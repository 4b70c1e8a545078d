// SPDX-License-Identifier: Apache-2.0
// The limiter in this process. Buckets of descriptors that are written out in full are found by a map that is frozen after parsing. Those of
// descriptors with a wildcard (an entry without a value) come into being with the values that requests bring: the last dynamic_max of them are
// kept, in a map of their own under a mutex that is held for a look-up (docs/internals/shared-state.md).
#include "proxy/authz/rate_limit.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/base/list.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "proto/pb_util.h"
#include "proxy/authz/token_bucket.h"

struct bucket_cfg {
    uint64_t max, per_fill, fill_ms;
    bool shadow; // what it refuses passes
};

struct kept { // one value of a wildcard
    struct list link; // of wildcard.recent
    struct str key;   // owned; the map has its own copy
    struct token_bucket bucket;
};

struct wildcard {
    struct rate_limit_entry *entries; // arena; value empty = any
    size_t count;
    struct bucket_cfg cfg;
    uint32_t kept_max;
    pthread_mutex_t lock;  // what follows
    struct map by_key;     // → struct kept
    struct list recent;    // last used first
};

struct exact {
    struct str key; // arena
    struct bucket_cfg cfg;
    struct token_bucket bucket;
};

struct limiter {
    struct bucket_cfg cfg; // of the default bucket; fill_ms 0: there is none
    struct token_bucket bucket;
    bool always_default;
    struct exact *exact;
    size_t exact_count;
    struct map by_key;     // of exact; frozen
    struct wildcard *wild;
    size_t wild_count;
};

enum { KEY_PART_MAX = 256 }; // longer texts are known by their hash: what clients send must not cost memory, nor get by for its length

// "length key length value …": no two lists of entries have the same. The empty view at the arena's limit.
static struct str key_of(const struct rate_limit_entry *e, size_t n, struct arena *a)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        total += 2 * sizeof(uint32_t) + (e[i].key.n <= KEY_PART_MAX ? e[i].key.n : sizeof(struct hash128)) +
                 (e[i].value.n <= KEY_PART_MAX ? e[i].value.n : sizeof(struct hash128));
    }
    char *p = arena_alloc(a, total ? total : 1), *at = p;
    for (size_t i = 0; p && i < n; i++) {
        const struct str parts[] = { e[i].key, e[i].value };
        for (int k = 0; k < 2; k++) {
            uint32_t len = (uint32_t)parts[k].n;
            memcpy(at, &len, sizeof(len));
            at += sizeof(len);
            if (len > KEY_PART_MAX) {
                const struct hash128 h = hash_content(parts[k].p, parts[k].n);
                memcpy(at, &h, sizeof(h));
                at += sizeof(h);
            } else if (len) {
                memcpy(at, parts[k].p, len);
                at += len;
            }
        }
    }
    return p ? str_n(p, total) : str_n(NULL, 0);
}

static int parse_bucket(const Envoy__Type__V3__TokenBucket *m, struct bucket_cfg *ret, struct err *err)
{
    *ret = (struct bucket_cfg){ .max = m->max_tokens, .per_fill = pb_u32_or(m->tokens_per_fill, 1) };
    int64_t ms = pb_duration_ms(m->fill_interval, 0);
    if (ret->per_fill == 0) {
        return err_set(err, -EINVAL, "token_bucket.tokens_per_fill: must be greater than 0");
    }
    if (ms <= 0 || (m->max_tokens && ms < RATE_LIMIT_FILL_MIN_MS)) {
        return err_set(err, -EINVAL, "token_bucket.fill_interval: must be %d ms or more", RATE_LIMIT_FILL_MIN_MS);
    }
    ret->fill_ms = (uint64_t)ms;
    return 0;
}

static void bucket_fill(struct token_bucket *b, const struct bucket_cfg *c)
{
    token_bucket_init(b, c->max, c->per_fill, c->fill_ms);
}

static void kept_free(struct wildcard *w, struct kept *k)
{
    map_del(&w->by_key, k->key);
    list_del(&k->link);
    free((char *)k->key.p);
    free(k);
}

static void wildcard_fini(void *arg)
{
    struct wildcard *w = arg;
    list_for_safe(pos, &w->recent) {
        kept_free(w, list_entry(pos, struct kept, link));
    }
    map_fini(&w->by_key);
    pthread_mutex_destroy(&w->lock);
}

static void wildcard_init(struct wildcard *w, struct arena *a)
{
    pthread_mutex_init(&w->lock, NULL);
    w->by_key = (struct map){ 0 };
    list_init(&w->recent);
    arena_on_free(a, wildcard_fini, w);
}

static void map_free(void *m)
{
    map_fini(m);
}

typedef Envoy__Extensions__Common__Ratelimit__V3__LocalRateLimitDescriptor descriptor_msg;

static int parse_descriptor(const descriptor_msg *m, uint32_t dynamic_max, struct limiter *l, struct arena *a, struct err *err)
{
    struct bucket_cfg cfg;
    if (!m->n_entries || m->n_entries > RATE_LIMIT_ENTRIES_MAX) {
        return err_set(err, -EINVAL, "entries: 1 to %d are needed", RATE_LIMIT_ENTRIES_MAX);
    }
    if (!m->token_bucket) {
        return err_set(err, -EINVAL, "token_bucket: missing");
    }
    if (parse_bucket(m->token_bucket, &cfg, err)) {
        return err->code;
    }
    cfg.shadow = m->shadow_mode;
    struct rate_limit_entry *e = arena_array(a, struct rate_limit_entry, m->n_entries);
    bool wild = false;
    for (size_t i = 0; i < m->n_entries; i++) {
        e[i].key = arena_str(a, str_c(m->entries[i]->key));
        e[i].value = arena_str(a, str_c(m->entries[i]->value));
        if (!e[i].key.n) {
            return err_set(err, -EINVAL, "entries[%zu].key: missing", i);
        }
        wild |= !e[i].value.n;
    }
    struct str key = key_of(e, m->n_entries, a);
    if (!key.p || map_get(&l->by_key, key)) {
        return err_set(err, -EINVAL, "entries: stand there twice");
    }
    if (wild) {
        map_put(&l->by_key, key, l); // only against doubles: no request has an entry without a value that would not be a wildcard's as well
        struct wildcard *w = &l->wild[l->wild_count++];
        *w = (struct wildcard){ .entries = e, .count = m->n_entries, .cfg = cfg, .kept_max = dynamic_max };
        wildcard_init(w, a);
        return 0;
    }
    struct exact *x = &l->exact[l->exact_count++];
    x->key = key;
    x->cfg = cfg;
    bucket_fill(&x->bucket, &cfg);
    map_put(&l->by_key, key, x);
    return 0;
}

int limiter_parse(const struct limiter_msg *m, struct arena *a, struct limiter **ret, struct err *err)
{
    struct limiter *l = arena_new(a, struct limiter);
    l->always_default = m->always_default;
    arena_on_free(a, map_free, &l->by_key);
    if (m->bucket) {
        if (parse_bucket(m->bucket, &l->cfg, err)) {
            return err->code;
        }
        bucket_fill(&l->bucket, &l->cfg);
    }
    if (!m->dynamic_max || m->dynamic_max > RATE_LIMIT_DYNAMIC_MAX) {
        return err_set(err, -EINVAL, "max_dynamic_descriptors: must be 1 to %d", RATE_LIMIT_DYNAMIC_MAX);
    }
    l->exact = arena_array(a, struct exact, m->descriptor_count + 1);
    l->wild = arena_array(a, struct wildcard, m->descriptor_count + 1);
    for (size_t i = 0; i < m->descriptor_count; i++) {
        if (parse_descriptor(m->descriptors[i], m->dynamic_max, l, a, err)) {
            return err_wrap(err, "descriptors[%zu]", i);
        }
    }
    *ret = l;
    return 0;
}

struct limiter *limiter_copy(const struct limiter *l, struct arena *a)
{
    struct limiter *c = arena_new(a, struct limiter);
    c->cfg = l->cfg;
    c->always_default = l->always_default;
    if (c->cfg.fill_ms) {
        bucket_fill(&c->bucket, &c->cfg);
    }
    arena_on_free(a, map_free, &c->by_key);
    c->exact = arena_array(a, struct exact, l->exact_count + 1);
    for (; c->exact_count < l->exact_count; c->exact_count++) {
        struct exact *x = &c->exact[c->exact_count];
        x->key = arena_str(a, l->exact[c->exact_count].key);
        x->cfg = l->exact[c->exact_count].cfg;
        bucket_fill(&x->bucket, &x->cfg);
        map_put(&c->by_key, x->key, x);
    }
    c->wild = arena_array(a, struct wildcard, l->wild_count + 1);
    for (; c->wild_count < l->wild_count; c->wild_count++) {
        struct wildcard *w = &c->wild[c->wild_count];
        const struct wildcard *from = &l->wild[c->wild_count];
        struct rate_limit_entry *e = arena_array(a, struct rate_limit_entry, from->count);
        for (size_t i = 0; i < from->count; i++) {
            e[i] = (struct rate_limit_entry){ arena_str(a, from->entries[i].key), arena_str(a, from->entries[i].value) };
        }
        *w = (struct wildcard){ .entries = e, .count = from->count, .cfg = from->cfg, .kept_max = from->kept_max };
        wildcard_init(w, a);
    }
    return c;
}

// ---- asking ----

struct match {
    const struct rate_limit_descriptor *d;
    const struct bucket_cfg *cfg;
    struct exact *exact;     // one of the two
    struct wildcard *wild;
    struct str key;
};

static bool wildcard_fits(const struct wildcard *w, const struct rate_limit_descriptor *d)
{
    if (d->count != w->count) {
        return false;
    }
    for (size_t i = 0; i < w->count; i++) {
        if (!str_eq(w->entries[i].key, d->entries[i].key) || (w->entries[i].value.n && !str_eq(w->entries[i].value, d->entries[i].value))) {
            return false;
        }
    }
    return true;
}

static bool find_match(struct limiter *l, const struct rate_limit_descriptor *d, struct arena *scratch, struct match *ret)
{
    *ret = (struct match){ .d = d, .key = key_of(d->entries, d->count, scratch) };
    void *x = ret->key.p ? map_get(&l->by_key, ret->key) : NULL;
    if (x && x != l) {
        ret->exact = x;
        ret->cfg = &ret->exact->cfg;
        return true;
    }
    for (size_t i = 0; ret->key.p && i < l->wild_count; i++) {
        if (wildcard_fits(&l->wild[i], d)) {
            ret->wild = &l->wild[i];
            ret->cfg = &ret->wild->cfg;
            return true;
        }
    }
    return false;
}

// Under w's lock.
static struct kept *kept_get(struct wildcard *w, struct str key)
{
    struct kept *k = map_get(&w->by_key, key);
    if (k) {
        list_del(&k->link);
    } else {
        k = mem_new(struct kept);
        k->key = str_n(str_dup(key), key.n);
        bucket_fill(&k->bucket, &w->cfg);
        map_put(&w->by_key, key, k);
    }
    list_add_head(&w->recent, &k->link);
    if (w->by_key.count > w->kept_max) {
        kept_free(w, list_entry(w->recent.prev, struct kept, link));
    }
    return k;
}

static void describe(const struct token_bucket *b, const struct bucket_cfg *cfg, uint64_t now_ns, struct limiter_answer *ret)
{
    ret->has_bucket = true;
    ret->limit = cfg->max;
    ret->remaining = token_bucket_left(b, now_ns);
    ret->reset_s = (token_bucket_wait_ms(b, now_ns) + 999) / 1000;
}

static bool draw_from(struct token_bucket *b, const struct match *m, uint64_t now_ns, struct limiter_answer *state)
{
    bool ok = true;
    if (m->d->negative && m->d->has_hits) {
        token_bucket_give(b, now_ns, m->d->hits);
    } else {
        ok = token_bucket_take(b, now_ns, m->d->has_hits ? m->d->hits : 1);
    }
    describe(b, m->cfg, now_ns, state);
    state->headers = m->d->headers;
    return ok;
}

static bool draw(const struct match *m, uint64_t now_ns, struct limiter_answer *state)
{
    if (m->exact) {
        return draw_from(&m->exact->bucket, m, now_ns, state);
    }
    pthread_mutex_lock(&m->wild->lock);
    bool ok = draw_from(&kept_get(m->wild, m->key)->bucket, m, now_ns, state);
    pthread_mutex_unlock(&m->wild->lock);
    return ok;
}

static double speed(const struct bucket_cfg *c)
{
    return (double)c->per_fill / (double)c->fill_ms;
}

// In front of those that fill faster, behind those that are as fast.
static void insert(struct match *v, size_t n, struct match m)
{
    while (n > 0 && speed(v[n - 1].cfg) > speed(m.cfg)) {
        v[n] = v[n - 1];
        n--;
    }
    v[n] = m;
}

void limiter_ask(struct limiter *l, const struct rate_limit_descriptor *d, size_t n, uint64_t now_ns, struct arena *scratch,
                 struct limiter_answer *ret)
{
    struct limiter_answer first = { .allowed = true };
    struct match *v = n && (l->exact_count || l->wild_count) ? arena_array(scratch, struct match, n) : NULL;
    size_t found = 0;
    for (size_t i = 0; v && i < n; i++) {
        struct match m;
        if (find_match(l, &d[i], scratch, &m)) {
            insert(v, found++, m);
        }
    }
    for (size_t i = 0; i < found; i++) {
        struct limiter_answer state = { .allowed = false };
        bool ok = draw(&v[i], now_ns, &state);
        if (!ok && !v[i].cfg->shadow) {
            *ret = state;
            return;
        }
        bool shadow = first.shadow || !ok;
        first = i == 0 ? state : first;
        first.allowed = true;
        first.shadow = shadow;
    }
    if ((found == 0 || l->always_default) && l->cfg.fill_ms) {
        bool ok = token_bucket_take(&l->bucket, now_ns, 1);
        if (!ok || !found) {
            first = (struct limiter_answer){ .allowed = ok };
            if (l->cfg.max) { // as Envoy: a bucket that holds nothing is not spoken of
                describe(&l->bucket, &l->cfg, now_ns, &first);
            }
        }
    }
    *ret = first;
}
