// SPDX-License-Identifier: Apache-2.0
// Two connections joined: what one reads the other writes, with back-pressure, half-close in both directions and an idle time-out.
#ifndef LIB_NET_RELAY_H
#define LIB_NET_RELAY_H

#include "lib/net/conn.h"

// Embedded in its owner. Takes over ops and owner of both connections.
struct relay {
    struct conn *a, *b;    // owned by the relay's owner, freed by it in on_done
    uint64_t idle_ms;      // 0 = none: neither side moved a byte for this long
    void (*on_done)(struct relay *r, struct conn *who, enum conn_close why); // both sides ended, one broke, or idle (who NULL). Once.
    struct timer idle;
    bool done;
};

// Both connections are OPEN; bytes already in a->in or b->in are moved first.
void relay_start(struct relay *r, struct conn *a, struct conn *b, uint64_t idle_ms,
                 void (*on_done)(struct relay *r, struct conn *who, enum conn_close why));
// Detaches without closing. After on_done or before freeing the connections.
void relay_stop(struct relay *r);

#endif
