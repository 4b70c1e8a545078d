// SPDX-License-Identifier: Apache-2.0
#include "lib/event/mailbox.h"

bool mailbox_push(struct mailbox *b, struct mailbox_msg *m)
{
    struct mailbox_msg *old = atomic_load_explicit(&b->newest, memory_order_relaxed);
    do {
        m->next = old;
        // Release: what the sender wrote into the message; partner: the acquire in mailbox_take. No ABA problem: the
        // receiver only ever takes the whole stack.
    } while (!atomic_compare_exchange_weak_explicit(&b->newest, &old, m, memory_order_release, memory_order_relaxed));
    return old == NULL;
}

struct mailbox_msg *mailbox_take(struct mailbox *b)
{
    if (!atomic_load_explicit(&b->newest, memory_order_relaxed)) {
        return NULL; // the usual turn: no bus-locked instruction
    }
    struct mailbox_msg *m = atomic_exchange_explicit(&b->newest, NULL, memory_order_acquire);
    struct mailbox_msg *oldest = NULL;
    while (m) {
        struct mailbox_msg *next = m->next;
        m->next = oldest;
        oldest = m;
        m = next;
    }
    return oldest;
}
