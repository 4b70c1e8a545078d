// SPDX-License-Identifier: Apache-2.0
// Bytes in transit: a chain of fixed-size slices, each owned by exactly one buffer at a time, so that moving bytes from a
// read buffer to a write buffer moves pointers. Slices come from a per-thread cache (BUF_SLICE_BYTES each); an empty buffer
// holds none. Not thread-safe: one thread owns a buffer; a buffer may be handed to another thread whole.
#ifndef LIB_BASE_BUF_H
#define LIB_BASE_BUF_H

#include <sys/uio.h>

#include "lib/base/str.h"

enum {
    BUF_SLICE_BYTES = 16384, // allocation size of a slice, header included
    BUF_IOV_MAX = 16,        // slices per readv/writev
    BUF_HEADROOM = 16,       // bytes that a fresh slice leaves free in front, for buf_prepend
};

struct slice {
    struct slice *next; // owned by the buffer
    uint32_t off;       // first live byte
    uint32_t end;       // one past the last live byte
    uint32_t cap;       // bytes in data
    char data[];
};

enum { BUF_SLICE_ROOM = BUF_SLICE_BYTES - sizeof(struct slice) - BUF_HEADROOM }; // what a fresh slice takes

struct buf {
    struct slice *head, *tail;
    size_t len; // live bytes in all slices
};

static inline size_t buf_len(const struct buf *b)
{
    return b->len;
}
// First contiguous live bytes (empty view when the buffer is empty). Borrowed until the buffer changes.
static inline struct str buf_front(const struct buf *b)
{
    return b->head ? str_n(b->head->data + b->head->off, b->head->end - b->head->off) : str_n(NULL, 0);
}

void buf_clear_slices(struct buf *b); // for buf_clear
// Frees every slice (back to this thread's cache); the buffer is empty and usable.
static inline void buf_clear(struct buf *b)
{
    if (b->head) { // otherwise everything is zero
        buf_clear_slices(b);
    }
}
// Copies n bytes to the end.
void buf_append(struct buf *b, const void *p, size_t n);
// Puts n bytes in front, where the first slice has room for them: always, when nothing was put in front of it before and n is at most
// BUF_HEADROOM. False: it has none (or there is no slice), nothing happened.
bool buf_prepend(struct buf *b, const void *p, size_t n);
static inline void buf_append_str(struct buf *b, struct str s)
{
    buf_append(b, s.p, s.n);
}
__attribute__((format(printf, 2, 3))) void buf_printf(struct buf *b, const char *fmt, ...);
// At least want bytes of contiguous room at the end; the caller writes *ret_room or fewer bytes there, then calls buf_commit.
// want must be at most BUF_SLICE_ROOM.
char *buf_reserve(struct buf *b, size_t want, size_t *ret_room);
// n bytes were written where the last buf_reserve pointed.
void buf_commit(struct buf *b, size_t n);
// Room for a readv of about want bytes: fills iov (at most max entries), returns the count. buf_commit_iov(n) accepts what came;
// unused fresh slices go back to the cache.
int buf_reserve_iov(struct buf *b, size_t want, struct iovec *iov, int max);
void buf_commit_iov(struct buf *b, size_t n);
// Drops n bytes (at most len) from the front.
void buf_drain(struct buf *b, size_t n);
// Moves up to n bytes from the front of src to the end of dst: whole slices by pointer, small remainders by copy.
// Returns the bytes moved.
size_t buf_move(struct buf *dst, struct buf *src, size_t n);
// Makes the first n bytes (n ≤ len) contiguous, whatever n is, and returns them. May allocate one larger slice.
struct str buf_pullup(struct buf *b, size_t n);
// For bytes that are going to stay: where slices are used badly, their bytes move to memory of their own size.
void buf_compact(struct buf *b);
// Copies up to n bytes from offset off without consuming. Returns the bytes copied.
size_t buf_peek(const struct buf *b, size_t off, void *p, size_t n);
// Live slices as iovec for writev; returns the count (at most max).
int buf_iov(const struct buf *b, struct iovec *iov, int max);
// Bytes of slices that this thread had in use at once since the last buf_release, and has not now.
size_t buf_surplus(void);
// Frees this thread's cached slices and counts the surplus anew. What the heap then does with the memory is the caller's business (malloc_trim).
void buf_release(void);
// Frees this thread's cached slices. Called at thread end and by memory tests.
void buf_cache_free(void);

#endif
