// SPDX-License-Identifier: Apache-2.0
#include "lib/grpc/core.h"

#include <errno.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/support/log.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/event/thread.h"

// gRPC core is not built with the thread sanitizer, which therefore does not see that what was written before an operation
// started is visible to the queue's thread.
#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#define SEEN_BY_QUEUE(p) __tsan_release(p)
#define SEE(p) __tsan_acquire(p)
#else
#define SEEN_BY_QUEUE(p) ((void)(p))
#define SEE(p) ((void)(p))
#endif

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // guards what follows and every core_user
static pthread_cond_t drained = PTHREAD_COND_INITIALIZER;
static grpc_completion_queue *cq; // NULL = not started
static pthread_t cq_thread;

// The queue's thread only forwards: all decisions are made on the loop's thread.
static void *queue_main(void *arg)
{
    grpc_completion_queue *q = arg;
    for (;;) {
        grpc_event e = grpc_completion_queue_next(q, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (e.type == GRPC_QUEUE_SHUTDOWN) {
            return NULL;
        }
        if (e.type != GRPC_OP_COMPLETE) {
            continue;
        }
        struct core_op *op = e.tag;
        SEE(op);
        // Under the lock, so that who waits for the count to fall finds the message in the mailbox, and who frees the user
        // afterwards (core_sync) finds us gone.
        pthread_mutex_lock(&lock);
        struct core_user *u = op->user;
        op->ok = e.success != 0;
        loop_post(op->loop, &op->msg); // op belongs to the loop's thread from here on
        u->inflight--;
        pthread_cond_broadcast(&drained);
        pthread_mutex_unlock(&lock);
    }
}

static void log_line(gpr_log_func_args *a)
{
    if (a->severity == GPR_LOG_SEVERITY_ERROR) {
        log_warn(LOGC_GRPC, 0, "grpc_core", "message=%s", a->message);
    } else {
        log_debug(LOGC_GRPC, 0, "grpc_core", "message=%s", a->message);
    }
}

void core_start(void)
{
    pthread_mutex_lock(&lock);
    if (!cq) {
        gpr_set_log_function(log_line);
        grpc_init();
        cq = grpc_completion_queue_create_for_next(NULL);
        struct err err = { 0 };
        CHECK(thread_start(&cq_thread, "grpc-queue", queue_main, cq, &err) == 0);
    }
    pthread_mutex_unlock(&lock);
}

grpc_completion_queue *core_cq(void)
{
    return cq;
}

void grpc_fence_shutdown(void)
{
    pthread_mutex_lock(&lock);
    grpc_completion_queue *q = cq;
    cq = NULL;
    pthread_mutex_unlock(&lock);
    if (!q) {
        return;
    }
    grpc_completion_queue_shutdown(q);
    pthread_join(cq_thread, NULL);
    grpc_completion_queue_destroy(q);
    grpc_shutdown_blocking();
}

static void op_arrived(struct mailbox_msg *m)
{
    struct core_op *op = container_of(m, struct core_op, msg);
    op->active = false;
    op->done(op, op->ok);
}

void core_op_begin(struct core_op *op, struct loop *l, struct core_user *u, void (*done)(struct core_op *op, bool ok))
{
    CHECK(!op->active);
    op->msg.fn = op_arrived;
    op->loop = l;
    op->user = u;
    op->done = done;
    op->active = true;
    pthread_mutex_lock(&lock);
    u->inflight++;
    pthread_mutex_unlock(&lock);
    SEEN_BY_QUEUE(op);
}

void core_op_abandon(struct core_op *op)
{
    op->active = false;
    pthread_mutex_lock(&lock);
    op->user->inflight--;
    pthread_mutex_unlock(&lock);
}

void core_wait(struct core_user *u)
{
    pthread_mutex_lock(&lock);
    while (u->inflight) {
        pthread_cond_wait(&drained, &lock);
    }
    pthread_mutex_unlock(&lock);
}

void core_sync(void)
{
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
}

// ---- messages ----

struct item {
    struct list link;
    grpc_byte_buffer *bytes; // owned
};

void core_queue_init(struct core_queue *q)
{
    list_init(&q->items);
    q->count = 0;
}

int core_queue_push(struct core_queue *q, struct str bytes)
{
    if (q->count >= GRPC_QUEUE_MAX) {
        return -ENOBUFS;
    }
    struct item *i = mem_new(struct item);
    grpc_slice s = grpc_slice_from_copied_buffer(bytes.n ? bytes.p : "", bytes.n);
    i->bytes = grpc_raw_byte_buffer_create(&s, 1);
    grpc_slice_unref(s);
    list_add_tail(&q->items, &i->link);
    q->count++;
    return 0;
}

grpc_byte_buffer *core_queue_front(const struct core_queue *q)
{
    return list_empty(&q->items) ? NULL : list_entry(q->items.next, struct item, link)->bytes;
}

void core_queue_pop(struct core_queue *q)
{
    struct item *i = list_entry(q->items.next, struct item, link);
    list_del(&i->link);
    q->count--;
    grpc_byte_buffer_destroy(i->bytes);
    free(i);
}

void core_queue_clear(struct core_queue *q)
{
    while (!list_empty(&q->items)) {
        core_queue_pop(q);
    }
}

bool core_message(grpc_byte_buffer *b, void (*fn)(void *arg, struct str bytes), void *arg)
{
    grpc_byte_buffer_reader r;
    if (!grpc_byte_buffer_reader_init(&r, b)) {
        grpc_byte_buffer_destroy(b);
        return false;
    }
    grpc_slice s = grpc_byte_buffer_reader_readall(&r);
    grpc_byte_buffer_reader_destroy(&r);
    grpc_byte_buffer_destroy(b);
    fn(arg, core_slice_str(&s));
    grpc_slice_unref(s);
    return true;
}

bool core_md_make(const struct grpc_md *md, size_t n, grpc_metadata_array *ret)
{
    grpc_metadata_array_init(ret);
    if (n == 0) {
        return true;
    }
    ret->metadata = gpr_malloc(n * sizeof(*ret->metadata));
    ret->capacity = n;
    for (size_t i = 0; i < n; i++) {
        grpc_metadata *m = &ret->metadata[ret->count++];
        m->key = grpc_slice_from_copied_buffer(md[i].key.p, md[i].key.n);
        m->value = grpc_slice_from_copied_buffer(md[i].value.n ? md[i].value.p : "", md[i].value.n);
        if (!grpc_header_key_is_legal(m->key) || grpc_is_binary_header(m->key) ||
            !grpc_header_nonbin_value_is_legal(m->value)) {
            core_md_free(ret);
            return false;
        }
    }
    return true;
}

void core_md_free(grpc_metadata_array *a)
{
    for (size_t i = 0; i < a->count; i++) {
        grpc_slice_unref(a->metadata[i].key);
        grpc_slice_unref(a->metadata[i].value);
    }
    gpr_free(a->metadata);
    grpc_metadata_array_init(a);
}

struct grpc_md *core_md_views(const grpc_metadata_array *a, struct arena *mem)
{
    struct grpc_md *v = arena_array(mem, struct grpc_md, a->count + 1);
    for (size_t i = 0; i < a->count; i++) {
        v[i] = (struct grpc_md){ .key = core_slice_str(&a->metadata[i].key), .value = core_slice_str(&a->metadata[i].value) };
    }
    return v;
}
