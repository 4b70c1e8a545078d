// SPDX-License-Identifier: Apache-2.0
// Timer wheel of a loop, millisecond resolution, O(1) set and cancel. Loop's thread only.
#ifndef LIB_EVENT_TIMER_H
#define LIB_EVENT_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/list.h"

struct loop;

// Embedded in its owner.
struct timer {
    struct list link;
    uint64_t expires_ms; // monotonic
    void (*fn)(struct timer *t); // may free its owner or set the timer again
};

void timer_init(struct timer *t, void (*fn)(struct timer *));
// (Re)arms to fire delay_ms from the loop's cached now, never early.
void timer_set(struct loop *l, struct timer *t, uint64_t delay_ms);
// Idempotent.
void timer_cancel(struct timer *t);
bool timer_pending(const struct timer *t);

#endif
