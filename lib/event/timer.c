// SPDX-License-Identifier: Apache-2.0
#include "lib/event/timer.h"

#include "lib/event/loop.h"
#include "lib/event/wheel.h"

void timer_init(struct timer *t, void (*fn)(struct timer *))
{
    list_init(&t->link);
    t->expires_ms = 0;
    t->fn = fn;
}

void timer_set(struct loop *l, struct timer *t, uint64_t delay_ms)
{
    DCHECK(loop_is_current(l));
    list_del(&t->link);
    // Up to the next whole millisecond, so that the timer is never early; a delay of nothing may fire in this turn.
    uint64_t from = delay_ms ? loop_now_ms_up(l) : loop_now_ms(l);
    t->expires_ms = delay_ms > UINT64_MAX / 2 ? UINT64_MAX / 2 : from + delay_ms;
    wheel_add(loop_wheel(l), t);
}

void timer_cancel(struct timer *t)
{
    list_del(&t->link);
}

bool timer_pending(const struct timer *t)
{
    return !list_empty(&t->link);
}
