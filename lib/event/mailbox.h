// SPDX-License-Identifier: Apache-2.0
// The queue behind loop_post: many senders, one receiver, no lock. Messages are declared in loop.h.
#ifndef LIB_EVENT_MAILBOX_H
#define LIB_EVENT_MAILBOX_H

#include <stdatomic.h>

#include "lib/event/loop.h"

struct mailbox {
    _Atomic(struct mailbox_msg *) newest; // any thread, atomic: a stack; the receiver turns it round
};

// Any thread; takes m. True when the box was empty: the sender must wake the receiver, whoever comes later need not.
bool mailbox_push(struct mailbox *b, struct mailbox_msg *m);
// Receiver only. All messages, oldest first, linked by next; NULL when there are none.
struct mailbox_msg *mailbox_take(struct mailbox *b);

#endif
