// SPDX-License-Identifier: Apache-2.0
// The set is fetched by the worker whose request needs it first. Others learn of it by a message to their loop. Each worker keeps a reference of its
// own to the set, and takes the lock only when there is a newer one, that is, once a fetch.
#include "proxy/filters/http/jwt_remote.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "proxy/router/side_call.h"
#include "proxy/stats/stats.h"

enum { REFETCH_EARLY_MS = 5000, LOOK_MS = 10000, FETCH_GAP_MIN_MS = 1000, STAT_NAME_MAX = 512 };
// Before the end of a set's time; how soon a timer learns that its configuration is gone; between two fetches that nobody asked for.

struct remote_worker {        // that worker's thread only, but where said
    struct jwt_remote *remote;
    struct worker *worker;
    struct jwks *keys;        // ref; NULL = none
    uint64_t until_ms;
    unsigned version;
    struct list waiters;      // struct jwt_waiter.link
    size_t waiting;           // since the last message, those that gave up too
    bool told;                // registered with the remote, a message will come
    bool fetched;             // the message's word; written before it is posted
    struct mailbox_msg msg;   // holds a reference to the remote
    struct remote_worker *next; // in the remote's list; under the lock
};

struct jwt_remote {
    atomic_uint refs;
    atomic_bool closed;
    atomic_bool chained;      // some fetch has the timer for the next one
    struct jwt_remote_opts o; // frozen
    struct remote_worker *workers[JWT_WORKERS_MAX]; // each written by its worker
    atomic_uint version;      // release with the lock held, acquire by workers
    struct list link, ahead;  // of all that are open; of those whose first fetch nobody has asked for; under all_lock
    unsigned users;           // configurations; under all_lock
    atomic_bool named;        // stat_prefix and stat_own are there; release, acquire
    atomic_uint fetched, failed; // before they were
    struct str stat_prefix, stat_own; // owned; for jwt_count
    pthread_mutex_t lock;     // below
    struct jwks *keys;
    uint64_t until_ms;
    bool fetching;
    struct remote_worker *telling; // whom to tell how the fetch ends
};

struct fetch {                // one at a time of a remote; its worker's thread
    struct list link;         // of this thread's fetches
    struct jwt_remote *remote; // ref
    struct worker *worker;
    struct timer timer;       // async: until the next one
    uint64_t at_ms;           // of the next one
    bool chained;             // the remote's timer is this one's
};

static _Thread_local struct list fetches;
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list all = { &all, &all };       // struct jwt_remote.link, without references
static struct list ahead = { &ahead, &ahead }; // struct jwt_remote.ahead, the same
static atomic_uint ahead_count;

static struct jwt_remote *remote_ref(struct jwt_remote *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

static void remote_unref(struct jwt_remote *r)
{
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t i = 0; i < JWT_WORKERS_MAX; i++) {
        if (r->workers[i]) {
            jwks_unref(r->workers[i]->keys);
            free(r->workers[i]);
        }
    }
    jwks_unref(r->keys);
    arena_fini(&r->o.arena);
    pthread_mutex_destroy(&r->lock);
    free((char *)r->stat_prefix.p);
    free((char *)r->stat_own.p);
    free(r);
}

static bool same_retry(const struct retry_policy *a, const struct retry_policy *b)
{
    return a == b || (a && b && a->on == b->on && a->num_retries == b->num_retries && a->backoff_base_ms == b->backoff_base_ms &&
                      a->backoff_max_ms == b->backoff_max_ms);
}

static bool same_opts(const struct jwt_remote_opts *a, const struct jwt_remote_opts *b)
{
    return str_eq(a->cluster, b->cluster) && str_eq(a->host, b->host) && str_eq(a->path, b->path) && a->timeout_ms == b->timeout_ms &&
           a->cache_ms == b->cache_ms && a->async == b->async && a->failed_refetch_ms == b->failed_refetch_ms && same_retry(a->retry, b->retry);
}

static struct jwt_remote *make(struct jwt_remote_opts *o)
{
    struct jwt_remote *r = mem_new(struct jwt_remote);
    atomic_init(&r->refs, 1);
    r->o = *o;
    o->arena = (struct arena){ 0 };
    r->o.cluster = arena_str(&r->o.arena, o->cluster);
    r->o.host = arena_str(&r->o.arena, o->host);
    r->o.path = arena_str(&r->o.arena, o->path);
    pthread_mutex_init(&r->lock, NULL);
    list_add_tail(&all, &r->link);
    list_init(&r->ahead);
    if (r->o.async) {
        list_add_tail(&ahead, &r->ahead);
        atomic_fetch_add_explicit(&ahead_count, 1, memory_order_relaxed);
    }
    return r;
}

struct jwt_remote *jwt_remote_open(struct jwt_remote_opts *o)
{
    struct jwt_remote *r = NULL;
    pthread_mutex_lock(&all_lock);
    for (struct list *p = all.next; p != &all && !r; p = p->next) {
        struct jwt_remote *x = list_entry(p, struct jwt_remote, link);
        r = same_opts(&x->o, o) ? x : NULL;
    }
    r = r ? r : make(o);
    r->users++;
    pthread_mutex_unlock(&all_lock);
    arena_fini(&o->arena);
    return r;
}

// Under all_lock.
static void not_ahead(struct jwt_remote *r)
{
    if (!list_empty(&r->ahead)) {
        list_del(&r->ahead);
        atomic_fetch_sub_explicit(&ahead_count, 1, memory_order_relaxed);
    }
}

void jwt_remote_close(struct jwt_remote *r)
{
    if (!r) {
        return;
    }
    pthread_mutex_lock(&all_lock);
    bool last = --r->users == 0;
    if (last) {
        not_ahead(r);
        list_del(&r->link);
    }
    pthread_mutex_unlock(&all_lock);
    if (last) {
        atomic_store_explicit(&r->closed, true, memory_order_relaxed);
        remote_unref(r);
    }
}

static struct remote_worker *worker_of(struct jwt_remote *r, struct worker *w)
{
    struct remote_worker *x = w->index >= 0 && w->index < JWT_WORKERS_MAX ? r->workers[w->index] : NULL;
    if (!x && w->index >= 0 && w->index < JWT_WORKERS_MAX) {
        x = r->workers[w->index] = mem_new(struct remote_worker);
        x->remote = r;
        x->worker = w;
        list_init(&x->waiters);
    }
    return x;
}

struct jwks *jwt_remote_keys(struct jwt_remote *r, struct worker *w)
{
    struct remote_worker *x = worker_of(r, w);
    if (!x) {
        return NULL;
    }
    if (x->version != atomic_load_explicit(&r->version, memory_order_acquire)) {
        pthread_mutex_lock(&r->lock);
        jwks_unref(x->keys);
        x->keys = r->keys ? jwks_ref(r->keys) : NULL;
        x->until_ms = r->until_ms;
        x->version = atomic_load_explicit(&r->version, memory_order_relaxed);
        pthread_mutex_unlock(&r->lock);
    }
    return loop_now_ms(w->loop) < x->until_ms ? x->keys : NULL;
}

// ---- waiting ----

static void on_told(struct mailbox_msg *m)
{
    struct remote_worker *x = container_of(m, struct remote_worker, msg);
    struct list due; // those that wait anew meanwhile are for the next message
    list_init(&due);
    x->told = false;
    x->waiting = 0;
    while (!list_empty(&x->waiters)) {
        struct list *p = x->waiters.next;
        list_del(p);
        list_add_tail(&due, p);
    }
    bool fetched = x->fetched;
    while (!list_empty(&due)) {
        struct jwt_waiter *a = list_entry(due.next, struct jwt_waiter, link);
        list_del(&a->link);
        a->fn(a, fetched);
    }
    remote_unref(x->remote);
}

void jwt_count(struct worker *w, struct str prefix, struct str own, enum stat_any id)
{
    static const struct str middle = STR_INIT(".jwt_authn");
    char name[STAT_NAME_MAX];
    size_t n = 0;
    const struct str parts[] = { prefix, middle, own.n ? STR(".") : own, own };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        size_t k = parts[i].n < sizeof(name) - n ? parts[i].n : sizeof(name) - n;
        if (k) {
            memcpy(name + n, parts[i].p, k);
        }
        n += k;
    }
    stat_inc(stats_scope_get(w->stats, STAT_HTTP_JWT, str_n(name, n)), id);
}

void jwt_remote_forget(struct jwt_waiter *x)
{
    if (x->link.next) {
        list_del(&x->link);
    }
}

// ---- fetching ----

static void start_fetch(struct fetch *f);

static void fetch_free(struct fetch *f)
{
    if (f->chained) {
        atomic_store_explicit(&f->remote->chained, false, memory_order_relaxed);
    }
    list_del(&f->link);
    remote_unref(f->remote);
    free(f);
}

static void count(const struct fetch *f, bool ok)
{
    struct jwt_remote *r = f->remote;
    if (atomic_load_explicit(&r->named, memory_order_acquire)) {
        jwt_count(f->worker, r->stat_prefix, r->stat_own, ok ? STAT_ID_HTTP_JWT_FETCH_OK : STAT_ID_HTTP_JWT_FETCH_FAILED);
    } else {
        atomic_fetch_add_explicit(ok ? &r->fetched : &r->failed, 1, memory_order_relaxed);
    }
}

// What was counted before anybody knew where.
static void count_former(struct jwt_remote *r, struct worker *w, atomic_uint *n, enum stat_any id)
{
    unsigned k = atomic_load_explicit(n, memory_order_relaxed) ? atomic_exchange_explicit(n, 0, memory_order_relaxed) : 0;
    for (; k; k--) {
        jwt_count(w, r->stat_prefix, r->stat_own, id);
    }
}

void jwt_remote_name(struct jwt_remote *r, struct worker *w, struct str stat_prefix, struct str stat_own)
{
    if (!atomic_load_explicit(&r->named, memory_order_acquire)) {
        pthread_mutex_lock(&r->lock);
        if (!atomic_load_explicit(&r->named, memory_order_relaxed)) {
            r->stat_prefix = str_n(str_dup(stat_prefix), stat_prefix.n);
            r->stat_own = str_n(str_dup(stat_own), stat_own.n);
            atomic_store_explicit(&r->named, true, memory_order_release);
        }
        pthread_mutex_unlock(&r->lock);
    }
    count_former(r, w, &r->fetched, STAT_ID_HTTP_JWT_FETCH_OK);
    count_former(r, w, &r->failed, STAT_ID_HTTP_JWT_FETCH_FAILED);
}

// The outcome for all: keys (taken) or NULL.
static void publish(struct jwt_remote *r, struct jwks *keys, uint64_t now_ms)
{
    struct jwks *old = NULL;
    pthread_mutex_lock(&r->lock);
    if (keys) {
        old = r->keys;
        r->keys = keys;
        r->until_ms = r->o.async ? UINT64_MAX : now_ms + r->o.cache_ms;
        atomic_fetch_add_explicit(&r->version, 1, memory_order_release);
    }
    r->fetching = false;
    struct remote_worker *x = r->telling;
    r->telling = NULL;
    pthread_mutex_unlock(&r->lock);
    jwks_unref(old);
    while (x) {
        struct remote_worker *next = x->next; // x may be on its way again after the message
        x->fetched = keys != NULL;
        loop_post(x->worker->loop, &x->msg);
        x = next;
    }
}

static void on_timer(struct timer *t)
{
    struct fetch *f = container_of(t, struct fetch, timer);
    struct jwt_remote *r = f->remote;
    uint64_t now = loop_now_ms(f->worker->loop);
    if (atomic_load_explicit(&r->closed, memory_order_relaxed)) {
        fetch_free(f);
        return;
    }
    if (now < f->at_ms) {
        timer_set(f->worker->loop, t, f->at_ms - now < LOOK_MS ? f->at_ms - now : LOOK_MS);
        return;
    }
    pthread_mutex_lock(&r->lock);
    bool mine = !r->fetching;
    r->fetching = true;
    pthread_mutex_unlock(&r->lock);
    if (mine) {
        start_fetch(f);
    } else { // a request was quicker
        f->at_ms = now + FETCH_GAP_MIN_MS;
        timer_set(f->worker->loop, t, FETCH_GAP_MIN_MS);
    }
}

static void schedule(struct fetch *f, bool ok)
{
    const struct jwt_remote_opts *o = &f->remote->o;
    if (o->async && !f->chained) {
        f->chained = !atomic_exchange_explicit(&f->remote->chained, true, memory_order_relaxed);
    }
    if (!f->chained) {
        fetch_free(f);
        return;
    }
    uint64_t wait = !ok ? o->failed_refetch_ms : o->cache_ms > REFETCH_EARLY_MS ? o->cache_ms - REFETCH_EARLY_MS : o->cache_ms;
    wait = wait < FETCH_GAP_MIN_MS ? FETCH_GAP_MIN_MS : wait;
    f->at_ms = loop_now_ms(f->worker->loop) + wait;
    timer_init(&f->timer, on_timer);
    timer_set(f->worker->loop, &f->timer, wait < LOOK_MS ? wait : LOOK_MS);
}

static void on_answer(void *owner, const struct side_answer *a)
{
    struct fetch *f = owner;
    struct jwks *keys = NULL;
    struct err err = { 0 };
    bool answered = a->failure == SIDE_OK && a->status == 200 && a->body.n;
    if (answered && jwks_parse(a->body, &keys, &err)) {
        keys = NULL;
    }
    if (!keys) {
        log_warn(LOGC_CONFIG, 0, "jwks_fetch_failed", "cluster=\"%.*s\" host=\"%.*s\" path=\"%.*s\" status=%d reason=\"%s\"",
                 STR_FMT(f->remote->o.cluster), STR_FMT(f->remote->o.host), STR_FMT(f->remote->o.path), a->status,
                 answered ? err.msg : a->reason ? a->reason : "no key set");
    }
    count(f, keys != NULL);
    bool ok = keys != NULL;
    publish(f->remote, keys, loop_now_ms(f->worker->loop));
    schedule(f, ok);
}

static void start_fetch(struct fetch *f)
{
    const struct jwt_remote_opts *o = &f->remote->o;
    const struct side_request q = { .cluster = o->cluster, .method = STR("GET"), .path = o->path, .host = o->host, .timeout_ms = o->timeout_ms,
                                    .answer_max = JWKS_BYTES_MAX, .retry = o->retry, .done = on_answer, .owner = f };
    if (!side_call_start(f->worker, &q)) { // the thread ends
        publish(f->remote, NULL, 0);
        fetch_free(f);
    }
}

static struct fetch *fetch_new(struct jwt_remote *r, struct worker *w)
{
    struct fetch *f = mem_new(struct fetch);
    if (!fetches.next) {
        list_init(&fetches);
    }
    list_add_tail(&fetches, &f->link);
    f->remote = remote_ref(r);
    f->worker = w;
    return f;
}

void jwt_remote_on_snapshot(struct worker *w)
{
    if (w->index != 0 || !atomic_load_explicit(&ahead_count, memory_order_relaxed)) {
        return;
    }
    struct list now;
    list_init(&now);
    pthread_mutex_lock(&all_lock);
    while (!list_empty(&ahead)) {
        struct jwt_remote *r = list_entry(ahead.next, struct jwt_remote, ahead);
        not_ahead(r);
        struct fetch *f = fetch_new(r, w); // with a reference, while the lock keeps it from its end
        list_del(&f->link);
        list_add_tail(&now, &f->link);
    }
    pthread_mutex_unlock(&all_lock);
    while (!list_empty(&now)) {
        struct fetch *f = list_entry(now.next, struct fetch, link);
        list_del(&f->link);
        list_add_tail(&fetches, &f->link);
        pthread_mutex_lock(&f->remote->lock);
        bool mine = !f->remote->fetching && !f->remote->keys;
        f->remote->fetching |= mine;
        pthread_mutex_unlock(&f->remote->lock);
        if (mine) {
            start_fetch(f);
        } else { // a request was quicker
            fetch_free(f);
        }
    }
}

bool jwt_remote_wait(struct jwt_remote *r, struct worker *w, struct jwt_waiter *a)
{
    struct remote_worker *x = worker_of(r, w);
    if (!x || x->waiting >= JWT_REMOTE_WAITERS_MAX) {
        return false;
    }
    x->waiting++;
    list_add_tail(&x->waiters, &a->link);
    pthread_mutex_lock(&r->lock);
    bool mine = !r->fetching;
    r->fetching = true;
    if (!x->told) {
        x->told = true;
        x->msg.fn = on_told;
        x->next = r->telling;
        r->telling = x;
        remote_ref(r);
    }
    pthread_mutex_unlock(&r->lock);
    if (mine) {
        start_fetch(fetch_new(r, w));
    }
    return true;
}

void jwt_remote_worker_fini(void)
{
    while (fetches.next && !list_empty(&fetches)) {
        struct fetch *f = list_entry(fetches.next, struct fetch, link);
        if (f->timer.fn && timer_pending(&f->timer)) {
            timer_cancel(&f->timer);
        } else {
            publish(f->remote, NULL, 0);
        }
        fetch_free(f);
    }
}
