// SPDX-License-Identifier: Apache-2.0
#include "lib/base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"
#include "lib/base/recycle.h"

enum { DEFAULT_BLOCK_BYTES = 4096, ALIGN = ARENA_ALIGN };

struct arena_cleanup { // lives in the arena
    struct arena_cleanup *next;
    void (*fn)(void *arg);
    void *arg;
};

void arena_init(struct arena *a, size_t block_bytes, size_t limit_bytes)
{
    *a = (struct arena){ .block_bytes = block_bytes, .limit_bytes = limit_bytes };
}

// Data bytes of a block of normal size; the allocation with its header is block_bytes.
static size_t block_cap(const struct arena *a)
{
    size_t n = a->block_bytes ? a->block_bytes : DEFAULT_BLOCK_BYTES;
    return n > sizeof(struct arena_block) + ALIGN ? n - sizeof(struct arena_block) : ALIGN;
}

// Blocks of a size that comes and goes all the time wait in the thread's lists.
static bool small(size_t cap)
{
    return sizeof(struct arena_block) + cap <= RECYCLE_PIECE_MAX;
}

static void block_free(struct arena_block *b)
{
    if (small(b->cap)) {
        recycle_free(b);
    } else {
        free(b);
    }
}

static struct arena_block *block_new(size_t cap)
{
    struct arena_block *b = small(cap) ? recycle_malloc(sizeof(*b) + cap) : NULL;
    b = b ? b : mem_alloc(sizeof(*b) + cap);
    b->next = NULL;
    b->cap = cap;
    b->used = 0;
    return b;
}

static void *alloc_slow(struct arena *a, size_t n)
{
    size_t cap = block_cap(a);
    bool more = a->head && small(cap); // what a short-lived arena still needs is less, as a rule
    if (n > cap / 2 && a->head) {
        // A large piece gets a block of its own behind the head, so that the head's room is not lost.
        struct arena_block *b = block_new(n);
        b->used = n;
        b->next = a->head->next;
        a->head->next = b;
        return b->data;
    }
    cap = more ? cap / 2 : cap;
    struct arena_block *b = block_new(n > cap ? n : cap);
    b->next = a->head;
    a->head = b;
    b->used = n;
    return b->data;
}

static void *alloc_unlimited(struct arena *a, size_t n)
{
    struct arena_block *b = a->head;
    if (__builtin_expect(b && b->cap - b->used >= n, 1)) {
        void *p = b->data + b->used;
        b->used += n;
        return p;
    }
    return alloc_slow(a, n);
}

void *arena_alloc_slow(struct arena *a, size_t n)
{
    CHECK(n <= SIZE_MAX / 2);
    n = n ? (n + ALIGN - 1) & ~(size_t)(ALIGN - 1) : ALIGN;
    if (a->limit_bytes && n > a->limit_bytes - a->used_bytes) {
        return NULL;
    }
    a->used_bytes += n;
    return alloc_unlimited(a, n);
}

struct str arena_str(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.n + 1);
    if (!p) {
        return (struct str){ 0 };
    }
    if (s.n) {
        memcpy(p, s.p, s.n);
    }
    p[s.n] = '\0';
    return (struct str){ .p = p, .n = s.n };
}

char *arena_strdup(struct arena *a, const char *s)
{
    return (char *)arena_str(a, str_c(s)).p;
}

struct str arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n >= 0 ? arena_alloc(a, (size_t)n + 1) : NULL;
    if (p) {
        vsnprintf(p, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    return p ? (struct str){ .p = p, .n = (size_t)n } : (struct str){ 0 };
}

void arena_on_free(struct arena *a, void (*fn)(void *arg), void *arg)
{
    // Outside the limit: a cleanup that cannot be registered would be a leak.
    struct arena_cleanup *c = alloc_unlimited(a, (sizeof(*c) + ALIGN - 1) & ~(size_t)(ALIGN - 1));
    *c = (struct arena_cleanup){ .next = a->cleanup, .fn = fn, .arg = arg };
    a->cleanup = c;
}

void arena_reset(struct arena *a, bool keep_first)
{
    while (a->cleanup) {
        struct arena_cleanup *c = a->cleanup;
        a->cleanup = c->next;
        c->fn(c->arg);
    }
#ifdef __SANITIZE_ADDRESS__
    keep_first = false; // so that a use after reset shows
#endif
    struct arena_block *keep = NULL;
    for (struct arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        if (keep_first && !keep && b->cap == block_cap(a)) {
            keep = b;
            keep->used = 0;
        } else {
            block_free(b);
        }
    }
    if (keep) {
        keep->next = NULL;
    }
    a->head = keep;
    a->used_bytes = 0;
}

void arena_fini(struct arena *a)
{
    arena_reset(a, false);
}
