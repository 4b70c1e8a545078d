// SPDX-License-Identifier: Apache-2.0
// Bump allocator: memory that dies at one moment (a stream, a configuration object, one request's parse).
#ifndef LIB_BASE_ARENA_H
#define LIB_BASE_ARENA_H

#include "lib/base/str.h"

enum { ARENA_ALIGN = 16 };
struct arena_block {
    struct arena_block *next; // owned
    size_t cap, used;         // bytes of data
    _Alignas(ARENA_ALIGN) char data[];
};
struct arena_cleanup;

// One thread at a time. Zero-initialised is a valid empty arena with default block size.
struct arena {
    struct arena_block *head;      // owned; the block being filled
    struct arena_cleanup *cleanup; // run in reverse order of registration on reset
    size_t block_bytes;            // size of a block (0 = 4096); where it is at most RECYCLE_PIECE_MAX, those behind the first have half of it
    size_t used_bytes;             // sum of what was handed out
    size_t limit_bytes;            // 0 = none; beyond it arena_alloc returns NULL
};

// block_bytes: size of each block, 0 for the default; limit_bytes: 0 for none.
void arena_init(struct arena *a, size_t block_bytes, size_t limit_bytes);
// Runs the cleanups and frees every block but (when keep_first) one of default size, so that a stream's arena is cheap to reuse.
void arena_reset(struct arena *a, bool keep_first);
// Runs the cleanups and frees everything; the arena is empty and usable again.
void arena_fini(struct arena *a);
__attribute__((noinline, cold)) void *arena_alloc_slow(struct arena *a, size_t n); // for arena_alloc: when the block has no room, or there is a limit
// 16-byte aligned, uninitialised. NULL only when limit_bytes is set and exceeded; otherwise aborts when out of memory.
static inline void *arena_alloc(struct arena *a, size_t n)
{
    struct arena_block *b = a->head;
    size_t k = n ? (n + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1) : ARENA_ALIGN; // 0 when n is absurd
    if (__builtin_expect(!b || b->cap - b->used < k || k < n || a->limit_bytes, 0)) {
        return arena_alloc_slow(a, n);
    }
    void *p = b->data + b->used;
    b->used += k;
    a->used_bytes += k;
    return p;
}
// As arena_alloc, zeroed.
static inline void *arena_zalloc(struct arena *a, size_t n)
{
    void *p = arena_alloc(a, n);
    return p && n ? memset(p, 0, n) : p;
}
#define arena_new(a, type) ((type *)arena_zalloc((a), sizeof(type)))
#define arena_array(a, type, count) ((type *)arena_zalloc((a), sizeof(type) * (count)))
// Copy of s in the arena, NUL-terminated behind its end (so .p is also a C string). NULL view on limit.
struct str arena_str(struct arena *a, struct str s);
char *arena_strdup(struct arena *a, const char *s);
__attribute__((format(printf, 2, 3))) struct str arena_printf(struct arena *a, const char *fmt, ...);
// fn(arg) runs when the arena is reset or finished, last registered first.
void arena_on_free(struct arena *a, void (*fn)(void *arg), void *arg);

#endif
