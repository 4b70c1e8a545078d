// SPDX-License-Identifier: Apache-2.0
// What client and server share: gRPC core running, its completion queue, operations in flight, messages. Inside lib/grpc only.
#ifndef LIB_GRPC_CORE_H
#define LIB_GRPC_CORE_H

#include "lib/grpc/grpc.h"

// gRPC's own opaque type has the name of our server call.
#define grpc_call grpc_core_call
#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#undef grpc_call

#include "lib/base/arena.h"
#include "lib/base/list.h"

// Counts operations that gRPC core still holds; embedded in a channel or server. Guarded by the fence's lock.
struct core_user {
    unsigned inflight;
};

// One operation at gRPC core; embedded in its call. Its address is the tag. Free again when done has been called.
struct core_op {
    struct mailbox_msg msg;
    struct loop *loop;
    struct core_user *user;
    bool active; // loop's thread: between start and done
    bool ok;     // the event's success
    void (*done)(struct core_op *op, bool ok); // loop's thread
};

// Starts gRPC core on first use.
void core_start(void);
grpc_completion_queue *core_cq(void);
// To be called right before the tag is given to gRPC core.
void core_op_begin(struct core_op *op, struct loop *l, struct core_user *u, void (*done)(struct core_op *op, bool ok));
// The operation was refused at once: no event will come.
void core_op_abandon(struct core_op *op);
// Waits until nothing of u is in flight: all is in the loop's mailbox then.
void core_wait(struct core_user *u);
// To be called before the memory of u goes: the queue's thread may still be leaving.
void core_sync(void);

// ---- messages ----
// Outgoing messages of one call in order; the first is being sent while op is active.
struct core_queue {
    struct list items;
    unsigned count;
};
void core_queue_init(struct core_queue *q);
int core_queue_push(struct core_queue *q, struct str bytes); // copies; -ENOBUFS
grpc_byte_buffer *core_queue_front(const struct core_queue *q);
void core_queue_pop(struct core_queue *q);
void core_queue_clear(struct core_queue *q);
// Calls fn(arg, bytes) with the message's contiguous bytes, then destroys b. false (fn not called) when it cannot be decoded.
bool core_message(grpc_byte_buffer *b, void (*fn)(void *arg, struct str bytes), void *arg);

// Copies metadata into gRPC's form; false when a key or value is not legal.
bool core_md_make(const struct grpc_md *md, size_t n, grpc_metadata_array *ret);
void core_md_free(grpc_metadata_array *a); // also the slices in it
// The received metadata as views, pointing into a.
struct grpc_md *core_md_views(const grpc_metadata_array *a, struct arena *mem);
static inline struct str core_slice_str(const grpc_slice *s)
{
    return str_n(GRPC_SLICE_START_PTR(*s), GRPC_SLICE_LENGTH(*s));
}

#endif
