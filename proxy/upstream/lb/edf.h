// SPDX-License-Identifier: Apache-2.0
// Earliest deadline first: an exact weighted rotation. An entry of weight w is due every 1/w of virtual time, so over any stretch each entry is
// chosen within one of its share. Pure; one owner.
#ifndef PROXY_UPSTREAM_LB_EDF_H
#define PROXY_UPSTREAM_LB_EDF_H

#include <stddef.h>
#include <stdint.h>

struct edf_entry {
    double deadline;
    uint32_t index;
    uint32_t order; // ties: first come, first served
};
struct edf {
    struct edf_entry *heap; // owned, n entries, the next one first
    size_t n;
    uint32_t order;
};

// weight(arg, i) > 0 for i < n. Entries start at random phases, so that workers do not all begin with the same host.
void edf_init(struct edf *e, size_t n, double (*weight)(void *arg, size_t i), void *arg);
void edf_fini(struct edf *e);
// The next index; it is put back by its present weight.
size_t edf_next(struct edf *e, double (*weight)(void *arg, size_t i), void *arg);

#endif
