// SPDX-License-Identifier: Apache-2.0
// Scope cleanup for cold code: `scope_free char *p`, `scope_close int fd`.
#ifndef LIB_BASE_SCOPE_H
#define LIB_BASE_SCOPE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void scope_free_(void *p)
{
    free(*(void **)p);
}
static inline void scope_close_(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}
static inline void scope_fclose_(FILE **f)
{
    if (*f) {
        fclose(*f);
    }
}
#define scope_free __attribute__((cleanup(scope_free_)))
#define scope_close __attribute__((cleanup(scope_close_)))
#define scope_fclose __attribute__((cleanup(scope_fclose_)))

#endif
