// SPDX-License-Identifier: Apache-2.0
// Boot- and control-path allocation: aborts with a message when memory is out. The data path uses arenas, slabs and slices.
#ifndef LIB_BASE_MEM_H
#define LIB_BASE_MEM_H

#include <stddef.h>

void *mem_alloc(size_t n);            // uninitialised
void *mem_zalloc(size_t n);           // zeroed
void *mem_realloc(void *p, size_t n); // as realloc
char *mem_strdup(const char *s);      // NULL stays NULL
#define mem_new(type) ((type *)mem_zalloc(sizeof(type)))
// Grows *p (elements of size bytes) so that index need-1 exists: doubles *cap. Usage: mem_grow(&v, &cap, need, sizeof *v).
void mem_grow(void *p, size_t *cap, size_t need, size_t size);

#endif
