// SPDX-License-Identifier: Apache-2.0
#include "proxy/upstream/lb/edf.h"

#include <stdbool.h>
#include <stdlib.h>

#include "lib/base/mem.h"
#include "lib/base/rand.h"

static bool before(const struct edf_entry *a, const struct edf_entry *b)
{
    return a->deadline != b->deadline ? a->deadline < b->deadline : (int32_t)(a->order - b->order) < 0;
}

static void sift_down(struct edf *e, size_t i)
{
    struct edf_entry x = e->heap[i];
    for (size_t child; (child = 2 * i + 1) < e->n; i = child) {
        if (child + 1 < e->n && before(&e->heap[child + 1], &e->heap[child])) {
            child++;
        }
        if (!before(&e->heap[child], &x)) {
            break;
        }
        e->heap[i] = e->heap[child];
    }
    e->heap[i] = x;
}

void edf_init(struct edf *e, size_t n, double (*weight)(void *arg, size_t i), void *arg)
{
    *e = (struct edf){ .heap = mem_alloc(n * sizeof(*e->heap)), .n = n };
    for (size_t i = 0; i < n; i++) {
        e->heap[i] = (struct edf_entry){ .deadline = rand_double() / weight(arg, i), .index = (uint32_t)i, .order = e->order++ };
    }
    for (size_t i = n / 2; i-- > 0;) {
        sift_down(e, i);
    }
}

void edf_fini(struct edf *e)
{
    free(e->heap);
    e->heap = NULL;
}

size_t edf_next(struct edf *e, double (*weight)(void *arg, size_t i), void *arg)
{
    size_t chosen = e->heap[0].index;
    e->heap[0].deadline += 1.0 / weight(arg, chosen);
    e->heap[0].order = e->order++;
    sift_down(e, 0);
    return chosen;
}
