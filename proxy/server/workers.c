// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/workers.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/base/buf.h"
#include "lib/base/mem.h"
#include "lib/event/thread.h"
#include "proxy/access_log/access_log.h"
#include "proxy/filters/http/jwt_remote.h"
#include "proxy/http/manager.h"
#include "proxy/listener/listener.h"
#include "proxy/router/router.h"
#include "proxy/router/side_call.h"
#include "proxy/server/trim.h"
#include "proxy/upstream/cluster.h"

struct worker_thread {
    struct worker w;
    struct workers *all;
    pthread_t thread;
    bool started;
    bool ended; // worker thread: its engines are gone; errands that still come go home undone
    uint64_t applied; // control thread only: version acknowledged
};

struct workers {
    struct loop *control;
    struct worker_thread *v;
    int n;
    void (*on_applied)(void *arg);
    void *on_applied_arg;
};

// One errand to a worker and back: do_work runs on the worker, then done runs on the control thread, which frees it.
struct errand {
    struct mailbox_msg msg;
    struct worker_thread *t;
    void (*do_work)(struct errand *e);
    void (*done)(struct errand *e);
    struct snapshot *snap;     // publish: a reference that becomes the worker's
    uint64_t version;          // publish
    bool inbound_only, accept; // drain
    size_t connections;        // count: the answer
    struct count_round *round; // count
};

struct count_round {
    int waiting;
    size_t sum;
    void (*fn)(void *arg, size_t connections);
    void *arg;
};

static void errand_back(struct mailbox_msg *m)
{
    struct errand *e = container_of(m, struct errand, msg);
    if (e->done) {
        e->done(e);
    }
    free(e);
}

static void errand_there(struct mailbox_msg *m)
{
    struct errand *e = container_of(m, struct errand, msg);
    if (!e->t->ended) {
        e->do_work(e);
    }
    snapshot_unref(e->snap); // publish_work took it over, when it ran
    e->snap = NULL;
    e->msg.fn = errand_back;
    loop_post(e->t->all->control, &e->msg);
}

static struct errand *errand_new(struct worker_thread *t, void (*do_work)(struct errand *), void (*done)(struct errand *))
{
    struct errand *e = mem_new(struct errand);
    e->msg.fn = errand_there;
    e->t = t;
    e->do_work = do_work;
    e->done = done;
    return e;
}

static void errand_send(struct errand *e)
{
    loop_post(e->t->w.loop, &e->msg);
}

static void *worker_main(void *arg)
{
    struct worker_thread *t = arg;
    struct worker *w = &t->w;
    access_log_worker_init(w);
    http_worker_init(w);
    upstream_worker_init(w);
    side_call_worker_init();
    listener_worker_init(w);
    listener_on_snapshot(w, NULL);
    jwt_remote_on_snapshot(w);
    struct trim_worker trim;
    trim_worker_init(&trim, w->loop);
    loop_run(w->loop);
    trim_worker_fini(&trim);
    t->ended = true;
    listener_worker_fini(w);
    mirror_worker_fini();
    side_call_worker_fini();
    jwt_remote_worker_fini();
    upstream_worker_fini(w);
    http_worker_fini(w);
    access_log_worker_fini(w);
    snapshot_unref(w->snap);
    w->snap = NULL;
    // What the fini functions deferred runs here, while the thread's slice cache is still there.
    loop_turn(w->loop, 0);
    buf_cache_free();
    return NULL;
}

struct workers *workers_start(struct loop *control, struct stats_store *stats, int n, struct snapshot *first, struct err *err)
{
    struct workers *ws = mem_new(struct workers);
    ws->control = control;
    ws->n = n;
    ws->v = mem_zalloc(sizeof(*ws->v) * (size_t)n);
    for (int i = 0; i < n; i++) {
        struct worker_thread *t = &ws->v[i];
        char name[24];
        snprintf(name, sizeof(name), "worker_%d", i);
        t->all = ws;
        t->w.index = i;
        t->w.stats = stats_shard_get(stats, i);
        t->w.loop = loop_new(err);
        if (!t->w.loop) {
            workers_stop(ws);
            return NULL;
        }
        t->w.snap = snapshot_ref(first);
        if (thread_start(&t->thread, name, worker_main, t, err)) {
            snapshot_unref(t->w.snap);
            workers_stop(ws);
            return NULL;
        }
        t->started = true;
    }
    return ws;
}

static void publish_work(struct errand *e)
{
    struct worker *w = &e->t->w;
    struct snapshot *old = w->snap;
    w->snap = e->snap;
    e->snap = NULL;
    upstream_on_snapshot(w, old);
    listener_on_snapshot(w, old);
    jwt_remote_on_snapshot(w);
    snapshot_unref(old);
}

static void publish_done(struct errand *e)
{
    struct workers *ws = e->t->all;
    uint64_t before = workers_applied(ws);
    e->t->applied = e->version;
    if (workers_applied(ws) > before && ws->on_applied) {
        ws->on_applied(ws->on_applied_arg);
    }
}

void workers_publish(struct workers *ws, struct snapshot *s)
{
    for (int i = 0; i < ws->n; i++) {
        struct errand *e = errand_new(&ws->v[i], publish_work, publish_done);
        e->snap = snapshot_ref(s);
        e->version = s->version;
        errand_send(e);
    }
}

uint64_t workers_applied(const struct workers *ws)
{
    uint64_t min = UINT64_MAX;
    for (int i = 0; i < ws->n; i++) {
        min = ws->v[i].applied < min ? ws->v[i].applied : min;
    }
    return ws->n ? min : 0;
}

void workers_on_applied(struct workers *ws, void (*fn)(void *arg), void *arg)
{
    ws->on_applied = fn;
    ws->on_applied_arg = arg;
}

static void drain_work(struct errand *e)
{
    struct worker *w = &e->t->w;
    w->drain_inbound_only = e->inbound_only && (!w->draining || w->drain_inbound_only); // all is more than inbound only
    w->draining = true;
    if (e->accept) {
        listener_drain_notify(w, e->inbound_only);
    } else {
        listener_drain(w, e->inbound_only);
    }
}

void workers_drain(struct workers *ws, bool inbound_only, bool accept)
{
    for (int i = 0; i < ws->n; i++) {
        struct errand *e = errand_new(&ws->v[i], drain_work, NULL);
        e->inbound_only = inbound_only;
        e->accept = accept;
        errand_send(e);
    }
}

static void count_work(struct errand *e)
{
    e->connections = listener_connections(&e->t->w);
}

static void count_done(struct errand *e)
{
    struct count_round *r = e->round;
    r->sum += e->connections;
    if (--r->waiting == 0) {
        r->fn(r->arg, r->sum);
        free(r);
    }
}

void workers_count(struct workers *ws, void (*fn)(void *arg, size_t connections), void *arg)
{
    struct count_round *r = mem_new(struct count_round);
    r->waiting = ws->n;
    r->fn = fn;
    r->arg = arg;
    for (int i = 0; i < ws->n; i++) {
        struct errand *e = errand_new(&ws->v[i], count_work, count_done);
        e->round = r;
        errand_send(e);
    }
}

void workers_stop(struct workers *ws)
{
    for (int i = 0; i < ws->n; i++) {
        if (ws->v[i].started) {
            loop_stop(ws->v[i].w.loop);
        }
    }
    for (int i = 0; i < ws->n; i++) {
        if (ws->v[i].started) {
            pthread_join(ws->v[i].thread, NULL);
        }
    }
    for (int i = 0; i < ws->n; i++) { // none of them posts to another any more
        if (ws->v[i].w.loop) {
            loop_free(ws->v[i].w.loop);
        }
    }
    loop_turn(ws->control, 0); // errands on their way home
    free(ws->v);
    free(ws);
}
