// SPDX-License-Identifier: Apache-2.0
// What the files of this folder share. Everything belongs to one worker's thread.
#ifndef PROXY_LISTENER_INTERNAL_H
#define PROXY_LISTENER_INTERNAL_H

#include "proxy/listener/listener.h"

struct listener_set { // SLOT_LISTENER
    struct worker *worker;
    struct list sockets;  // struct listen_socket
    struct list conns;    // struct downstream.link
    size_t conn_count;
    struct list dead;     // downstream.link of those closed in this turn
    struct loop_task bury;
    struct timer retry;   // addresses that could not be bound
    struct timer resume;  // accepting goes on after EMFILE
    int spare_fd;         // given up for a moment to turn away a connection when descriptors are out; -1 = none left
    bool paused, closed, closed_inbound;
};
static inline struct listener_set *listener_set_of(const struct worker *w)
{
    return w->slots[SLOT_LISTENER];
}

// ---- dispatch.c ----
// A fresh connection: makes the downstream, restores the original destination, finds its listener, begins. Takes fd.
void listener_dispatch(struct worker *w, struct listener_cfg *accepted_by, int fd, const struct addr *peer, const struct addr *local);

// ---- chain.c ----
// Listener filters, then filter chain, transport, network filters. d->listener is set.
void chain_begin(struct downstream *d);
// Frees what is left of the progress of listener filters.
void chain_progress_free(struct downstream *d);

#endif
