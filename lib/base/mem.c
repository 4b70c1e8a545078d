// SPDX-License-Identifier: Apache-2.0
#include "lib/base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((noreturn, cold)) static void out_of_memory(void)
{
    static const char msg[] = "remora: out of memory; give the process a higher memory limit\n";
    ssize_t done = write(STDERR_FILENO, msg, sizeof(msg) - 1);
    (void)done;
    abort();
}

void *mem_alloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p) {
        out_of_memory();
    }
    return p;
}

void *mem_zalloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    if (!p) {
        out_of_memory();
    }
    return p;
}

void *mem_realloc(void *p, size_t n)
{
    void *q = realloc(p, n ? n : 1);
    if (!q) {
        out_of_memory();
    }
    return q;
}

char *mem_strdup(const char *s)
{
    if (!s) {
        return NULL;
    }
    size_t n = strlen(s) + 1;
    return memcpy(mem_alloc(n), s, n);
}

void mem_grow(void *p, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap) {
        return;
    }
    size_t want = *cap ? *cap : 8;
    while (want < need) {
        if (want > SIZE_MAX / 2) {
            out_of_memory();
        }
        want *= 2;
    }
    if (size && want > SIZE_MAX / size) {
        out_of_memory();
    }
    void *v;
    memcpy(&v, p, sizeof(v)); // p is the address of any object pointer
    v = mem_realloc(v, want * size);
    memcpy(p, &v, sizeof(v));
    *cap = want;
}
