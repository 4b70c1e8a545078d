// SPDX-License-Identifier: Apache-2.0
#include "lib/base/recycle.h"

#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RECYCLE 0
#elif defined(__has_feature)
#define RECYCLE (!__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer) && !__has_feature(memory_sanitizer))
#else
#define RECYCLE 1
#endif

// A class holds pieces with room for at least 24 + 16 × class bytes, which are malloc's own steps on 64-bit machines.
enum { STEP = 16, FIRST = 24, CLASSES = (RECYCLE_PIECE_MAX - FIRST) / STEP + 1 };

struct piece {
    struct piece *next;
};

struct lists {
    size_t bytes;
    struct piece *free[CLASSES];
};

static _Thread_local struct lists *mine; // allocated on first use, as thread-local memory is zeroed for threads that never need it
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_lists(void *p)
{
    struct lists *l = p;
    mine = NULL;
    for (int i = 0; i < CLASSES; i++) {
        for (struct piece *x = l->free[i], *next; x; x = next) {
            next = x->next;
            free(x);
        }
    }
    free(l);
}

static void make_key(void)
{
    (void)pthread_key_create(&key, free_lists);
}

static struct lists *first_use(void)
{
    (void)pthread_once(&once, make_key);
    struct lists *l = calloc(1, sizeof(*l));
    if (l && pthread_setspecific(key, l) != 0) {
        free(l);
        l = NULL;
    }
    return mine = l;
}

void *recycle_malloc(size_t n)
{
    size_t class = n <= FIRST ? 0 : (n - FIRST + STEP - 1) / STEP;
    struct lists *l = mine;
    if (!RECYCLE || class >= CLASSES || !l || !l->free[class]) {
        return malloc(n);
    }
    struct piece *x = l->free[class];
    l->free[class] = x->next;
    l->bytes -= FIRST + STEP * class;
    return x;
}

void *recycle_calloc(size_t count, size_t n)
{
    size_t all;
    if (__builtin_mul_overflow(count, n, &all)) {
        return NULL;
    }
    void *p = recycle_malloc(all);
    return p ? memset(p, 0, all) : NULL;
}

void recycle_free(void *p)
{
    if (!RECYCLE || !p) {
        free(p);
        return;
    }
    size_t room = malloc_usable_size(p);
    size_t class = (room - FIRST) / STEP; // rounded down: every piece of a class is large enough for it
    struct lists *l = mine ? mine : first_use();
    if (room < FIRST || class >= CLASSES || !l || l->bytes + room > RECYCLE_THREAD_MAX) {
        free(p);
        return;
    }
    struct piece *x = p;
    x->next = l->free[class];
    l->free[class] = x;
    l->bytes += FIRST + STEP * class;
}

void *recycle_realloc(void *p, size_t n)
{
    if (!p) {
        return recycle_malloc(n);
    }
    return realloc(p, n); // the piece is malloc's own; it may grow in place
}
