// SPDX-License-Identifier: Apache-2.0
// Invariants between calls: len is the sum of the live bytes; every slice but tail holds live bytes; tail->next is NULL but
// between a buf_reserve that needed fresh slices and its commit ("pending" slices, empty). Any other change drops them.
#include "lib/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"

enum {
    SLICE_CAP = BUF_SLICE_BYTES - sizeof(struct slice),
    CACHE_MAX = 256,       // slices a thread keeps: 4 MiB
    COMPACT_MAX = 8 * 1024, // a piece made by buf_compact: never taken for an ordinary slice
    MOVE_COPY_MAX = 1024,  // a whole slice with fewer live bytes is copied when the destination's tail has room
};

#ifndef __SANITIZE_ADDRESS__
// This thread's free slices, last freed first: it is still warm in the processor's cache.
static _Thread_local struct slice *cache;
static _Thread_local unsigned cached;
#endif
// Slices taken less slices given back, and the most of it since buf_release. A buffer that changes threads only shifts both.
static _Thread_local int64_t live, peak;

static struct slice *slice_new_cap(size_t cap)
{
    struct slice *s = mem_alloc(sizeof(*s) + cap);
    s->next = NULL;
    s->off = s->end = BUF_HEADROOM;
    s->cap = (uint32_t)cap;
    return s;
}

static struct slice *slice_new(void)
{
    live++;
    peak = live > peak ? live : peak;
#ifndef __SANITIZE_ADDRESS__
    struct slice *s = cache;
    if (__builtin_expect(s != NULL, 1)) {
        cache = s->next;
        cached--;
        s->next = NULL;
        s->off = s->end = BUF_HEADROOM;
        return s;
    }
#endif
    return slice_new_cap(SLICE_CAP);
}

static void slice_free(struct slice *s)
{
    live -= s->cap == SLICE_CAP;
#ifndef __SANITIZE_ADDRESS__
    if (__builtin_expect(s->cap == SLICE_CAP && cached < CACHE_MAX, 1)) {
        s->next = cache;
        cache = s;
        cached++;
        return;
    }
#endif
    free(s);
}

void buf_cache_free(void)
{
#ifndef __SANITIZE_ADDRESS__
    while (cache) {
        struct slice *s = cache;
        cache = s->next;
        free(s);
    }
    cached = 0;
#endif
}

size_t buf_surplus(void)
{
    return (size_t)(peak - live) * BUF_SLICE_BYTES;
}

void buf_release(void)
{
    buf_cache_free();
    peak = live;
}

static inline size_t slice_len(const struct slice *s)
{
    return s->end - s->off;
}
static inline size_t slice_room(const struct slice *s)
{
    return s->cap - s->end;
}

static void chain_free(struct slice *s)
{
    while (s) {
        struct slice *next = s->next;
        slice_free(s);
        s = next;
    }
}

void buf_clear_slices(struct buf *b)
{
    chain_free(b->head);
    *b = (struct buf){ 0 };
}

// Gives back what a reserve without a commit left behind.
static inline void drop_pending(struct buf *b)
{
    if (b->len == 0) {
        if (b->head) {
            buf_clear(b);
        }
    } else if (b->tail->next) {
        chain_free(b->tail->next);
        b->tail->next = NULL;
    }
}

// Links s (with its bytes) behind the tail; pending slices must be gone.
static void push(struct buf *b, struct slice *s)
{
    s->next = NULL;
    if (b->tail) {
        b->tail->next = s;
    } else {
        b->head = s;
    }
    b->tail = s;
}

static void append_raw(struct buf *b, const char *p, size_t n)
{
    b->len += n;
    while (n) {
        if (!b->tail || slice_room(b->tail) == 0) {
            push(b, slice_new());
        }
        struct slice *s = b->tail;
        size_t k = slice_room(s) < n ? slice_room(s) : n;
        memcpy(s->data + s->end, p, k);
        s->end += (uint32_t)k;
        p += k;
        n -= k;
    }
}

void buf_append(struct buf *b, const void *p, size_t n)
{
    if (n == 0) {
        return;
    }
    drop_pending(b);
    append_raw(b, p, n);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    size_t room;
    char *p = buf_reserve(b, 256, &room);
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(p, room, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < room) {
        buf_commit(b, (size_t)n);
    } else {
        buf_commit(b, 0);
        if (n > 0) {
            char *big = mem_alloc((size_t)n + 1);
            vsnprintf(big, (size_t)n + 1, fmt, again);
            buf_append(b, big, (size_t)n);
            free(big);
        }
    }
    va_end(again);
}

bool buf_prepend(struct buf *b, const void *p, size_t n)
{
    if (!b->len || b->head->off < n) {
        return false;
    }
    b->head->off -= (uint32_t)n;
    memcpy(b->head->data + b->head->off, p, n);
    b->len += n;
    return true;
}

char *buf_reserve(struct buf *b, size_t want, size_t *ret_room)
{
    CHECK(want <= BUF_SLICE_ROOM);
    drop_pending(b);
    struct slice *s = b->tail;
    if (!s) {
        s = slice_new();
        b->head = b->tail = s;
    } else if (slice_room(s) < want || slice_room(s) == 0) {
        s = slice_new();
        b->tail->next = s;
    }
    *ret_room = slice_room(s);
    return s->data + s->end;
}

void buf_commit(struct buf *b, size_t n)
{
    if (n == 0) {
        drop_pending(b);
        return;
    }
    if (b->tail->next) {
        b->tail = b->tail->next;
    }
    CHECK(n <= slice_room(b->tail));
    b->tail->end += (uint32_t)n;
    b->len += n;
}

int buf_reserve_iov(struct buf *b, size_t want, struct iovec *iov, int max)
{
    drop_pending(b);
    if (max <= 0) {
        return 0;
    }
    if (!b->tail) {
        b->head = b->tail = slice_new();
    }
    int n = 0;
    struct slice *last = b->tail;
    size_t got = slice_room(last);
    if (got) {
        iov[n++] = (struct iovec){ .iov_base = last->data + last->end, .iov_len = got };
    }
    while (n < max && got < want) {
        last->next = slice_new();
        last = last->next;
        iov[n++] = (struct iovec){ .iov_base = last->data + last->end, .iov_len = slice_room(last) };
        got += slice_room(last);
    }
    return n;
}

void buf_commit_iov(struct buf *b, size_t n)
{
    struct slice *s = b->tail;
    b->len += n;
    while (n) {
        size_t k = slice_room(s) < n ? slice_room(s) : n;
        s->end += (uint32_t)k;
        n -= k;
        if (k) {
            b->tail = s;
        }
        s = s->next;
        CHECK(n == 0 || s);
    }
    drop_pending(b);
}

void buf_drain(struct buf *b, size_t n)
{
    CHECK(n <= b->len);
    if (n == b->len) {
        buf_clear(b);
        return;
    }
    drop_pending(b);
    b->len -= n;
    while (n) {
        struct slice *s = b->head;
        size_t k = slice_len(s);
        if (n < k) {
            s->off += (uint32_t)n;
            return;
        }
        n -= k;
        b->head = s->next;
        slice_free(s);
    }
}

size_t buf_move(struct buf *dst, struct buf *src, size_t n)
{
    n = n < src->len ? n : src->len;
    if (n == 0) {
        return 0;
    }
    drop_pending(src);
    drop_pending(dst);
    if (n == src->len && !dst->head) {
        *dst = *src;
        *src = (struct buf){ 0 };
        return n;
    }
    size_t left = n;
    while (left) {
        struct slice *s = src->head;
        size_t k = slice_len(s);
        if (k > left) {
            append_raw(dst, s->data + s->off, left);
            s->off += (uint32_t)left;
            src->len -= left;
            return n;
        }
        src->head = s->next;
        src->len -= k;
        left -= k;
        if (k <= MOVE_COPY_MAX && dst->tail && slice_room(dst->tail) >= k) {
            append_raw(dst, s->data + s->off, k);
            slice_free(s);
        } else {
            push(dst, s);
            dst->len += k;
        }
    }
    if (!src->head) {
        src->tail = NULL;
    }
    return n;
}

struct str buf_pullup(struct buf *b, size_t n)
{
    CHECK(n <= b->len);
    if (n == 0) {
        return (struct str){ 0 };
    }
    drop_pending(b);
    if (slice_len(b->head) >= n) {
        return str_n(b->head->data + b->head->off, n);
    }
    CHECK(n <= UINT32_MAX / 2);
    // All n bytes into one slice in front; a normal one when they fit, so that it is recycled.
    struct slice *big = n <= BUF_SLICE_ROOM ? slice_new() : slice_new_cap(n + BUF_HEADROOM);
    buf_peek(b, 0, big->data + big->off, n);
    big->end = big->off + (uint32_t)n;
    size_t rest = b->len - n;
    buf_drain(b, n);
    big->next = b->head;
    b->head = big;
    if (!b->tail) {
        b->tail = big;
    }
    b->len = rest + n;
    return str_n(big->data + big->off, n);
}

void buf_compact(struct buf *b)
{
    drop_pending(b);
    size_t held = 0;
    for (const struct slice *s = b->head; s; s = s->next) {
        held += s->cap;
    }
    if (held < BUF_SLICE_BYTES / 2 || held < 2 * b->len) {
        return;
    }
    struct buf to = { 0 };
    for (size_t left = b->len; left;) {
        size_t n = left < COMPACT_MAX ? left : COMPACT_MAX;
        struct slice *s = slice_new_cap(n + BUF_HEADROOM);
        buf_peek(b, b->len - left, s->data + s->off, n);
        s->end += (uint32_t)n;
        push(&to, s);
        to.len += n;
        left -= n;
    }
    buf_clear(b);
    *b = to;
}

size_t buf_peek(const struct buf *b, size_t off, void *p, size_t n)
{
    size_t got = 0;
    for (const struct slice *s = b->head; s && got < n; s = s->next) {
        size_t k = slice_len(s);
        if (off >= k) {
            off -= k;
            continue;
        }
        k -= off;
        k = k < n - got ? k : n - got;
        memcpy((char *)p + got, s->data + s->off + off, k);
        got += k;
        off = 0;
    }
    return got;
}

int buf_iov(const struct buf *b, struct iovec *iov, int max)
{
    int n = 0;
    for (struct slice *s = b->head; s && n < max; s = s->next) {
        if (slice_len(s)) {
            iov[n++] = (struct iovec){ .iov_base = s->data + s->off, .iov_len = slice_len(s) };
        }
    }
    return n;
}
