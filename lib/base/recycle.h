// SPDX-License-Identifier: Apache-2.0
// malloc for libraries that ask for many small pieces again and again: freed pieces wait in lists of their thread, by size, for
// the next request. What waits is bounded; with a sanitizer nothing waits, so that it sees every use.
#ifndef LIB_BASE_RECYCLE_H
#define LIB_BASE_RECYCLE_H

#include <stddef.h>

enum {
    RECYCLE_PIECE_MAX = 2048,          // larger pieces are malloc's business
    RECYCLE_THREAD_MAX = 384 * 1024,   // bytes that wait in one thread, freed with it
};

// As malloc, calloc, realloc and free, and interchangeable with them. Any thread; a piece may be freed by another one.
void *recycle_malloc(size_t n);
void *recycle_calloc(size_t count, size_t n);
void *recycle_realloc(void *p, size_t n);
void recycle_free(void *p);

#endif
