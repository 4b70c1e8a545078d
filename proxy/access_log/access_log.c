// SPDX-License-Identifier: Apache-2.0
// A worker's side of the logs: decide, format into the batch of the sink, hand full or old batches over.
#include "proxy/access_log/access_log.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "proxy/access_log/file.h"
#include "proxy/access_log/filter.h"

struct batch { // one sink's lines on one worker
    struct access_log_sink *sink; // NULL: none yet
    struct buf lines;
    uint64_t count;
};

struct log_worker {
    struct worker *worker;
    struct batch *v; // by sink_index; owned
    size_t n;
    struct timer timer; // pending while a batch holds lines
};

static void flush_batch(struct batch *b)
{
    if (b->lines.len) {
        sink_queue(b->sink, &b->lines, b->count);
        b->count = 0;
    }
}

static void flush_all(struct log_worker *lw)
{
    for (size_t i = 0; i < lw->n; i++) {
        flush_batch(&lw->v[i]);
    }
}

static void on_timer(struct timer *t)
{
    flush_all(container_of(t, struct log_worker, timer));
}

void access_log_worker_init(struct worker *w)
{
    struct log_worker *lw = mem_new(struct log_worker);
    lw->worker = w;
    timer_init(&lw->timer, on_timer);
    w->slots[SLOT_ACCESS_LOG] = lw;
}

void access_log_worker_fini(struct worker *w)
{
    struct log_worker *lw = w->slots[SLOT_ACCESS_LOG];
    if (lw) {
        timer_cancel(&lw->timer);
        flush_all(lw);
        free(lw->v);
        free(lw);
        w->slots[SLOT_ACCESS_LOG] = NULL;
    }
}

static struct batch *batch_of(struct log_worker *lw, struct access_log_sink *s)
{
    size_t i = sink_index(s);
    if (i >= lw->n) {
        lw->v = mem_realloc(lw->v, (i + 1) * sizeof(*lw->v));
        memset(lw->v + lw->n, 0, (i + 1 - lw->n) * sizeof(*lw->v));
        lw->n = i + 1;
    }
    lw->v[i].sink = s;
    return &lw->v[i];
}

void access_log_write(struct worker *w, struct access_log_cfg *const *logs, size_t n, const struct format_ctx *ctx)
{
    struct log_worker *lw = w->slots[SLOT_ACCESS_LOG];
    for (size_t i = 0; i < n; i++) {
        const struct access_log_cfg *c = logs[i];
        if (!c->sink || !lw || (c->filter && !access_filter_match(c->filter, ctx, rand_u64()))) {
            continue;
        }
        struct batch *b = batch_of(lw, c->sink);
        format_write(c->format, ctx, &b->lines);
        b->count++;
        if (b->lines.len >= ACCESS_LOG_BATCH) {
            flush_batch(b);
        } else if (!timer_pending(&lw->timer)) {
            timer_set(w->loop, &lw->timer, ACCESS_LOG_FLUSH_MS);
        }
    }
}
