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
    // Sides (RELAY_A, RELAY_B) whose first bytes are not for the other side; set before relay_start, see gate.
    uint8_t gated;
    // New bytes, or the end (eof), on a gated side: takes what is its own from c->in. true: the rest is payload, and it is not asked again. It may
    // end the relay, returning false.
    bool (*gate)(struct relay *r, struct conn *c, bool eof);
};
enum { RELAY_A = 1, RELAY_B = 2 };

// Zeroed before, but for gate and gated. Both connections are OPEN; bytes already in a->in or b->in are moved first.
void relay_start(struct relay *r, struct conn *a, struct conn *b, uint64_t idle_ms,
                 void (*on_done)(struct relay *r, struct conn *who, enum conn_close why));
// Detaches without closing. After on_done or before freeing the connections.
void relay_stop(struct relay *r);

#endif
