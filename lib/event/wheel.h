// SPDX-License-Identifier: Apache-2.0
// Hierarchical timer wheel (Varghese and Lauck 1987, scheme 7): five levels of 64 slots, one millisecond to 12 days. Pure: the
// caller brings the time. What a loop keeps its timers in.
#ifndef LIB_EVENT_WHEEL_H
#define LIB_EVENT_WHEEL_H

#include "lib/event/timer.h"

enum { WHEEL_BITS = 6, WHEEL_SLOTS = 1 << WHEEL_BITS, WHEEL_LEVELS = 5 };

struct wheel {
    uint64_t now_ms;                              // all that expires up to here has been moved to due
    uint64_t occupied[WHEEL_LEVELS];              // bit per slot; may be set for a slot emptied by a cancel
    struct list slots[WHEEL_LEVELS][WHEEL_SLOTS]; // borrowed timers
    struct list due;                              // expired, in order of expiry, not yet run
};

void wheel_init(struct wheel *w, uint64_t now_ms);
// Files t (not linked anywhere) under t->expires_ms; in due when that is not after now_ms.
void wheel_add(struct wheel *w, struct timer *t);
// Moves what expires up to now_ms into due. Time that goes backwards (tests) files everything anew.
void wheel_advance(struct wheel *w, uint64_t now_ms);
// When wheel_advance has next something to do: not after the next expiry. UINT64_MAX when nothing is filed.
uint64_t wheel_next_ms(struct wheel *w);
// Unlinks everything (timers then count as not pending).
void wheel_fini(struct wheel *w);

struct loop;
// The wheel of a loop, and the millisecond at or after its cached time. For timer.c.
struct wheel *loop_wheel(struct loop *l);
uint64_t loop_now_ms_up(const struct loop *l);

#endif
