// SPDX-License-Identifier: Apache-2.0
// What the files of this folder share. Everything belongs to one worker's thread.
#ifndef PROXY_LISTENER_INTERNAL_H
#define PROXY_LISTENER_INTERNAL_H

#include "proxy/listener/first_speaker.h"
#include "proxy/listener/listener.h"
#include "proxy/listener/network_filter.h"

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
    uint32_t probes; // server_first.c: under way for destinations that are not known to speak first
    struct speaker_table *speakers; // owned; NULL until something was learned
};
static inline struct listener_set *listener_set_of(const struct worker *w)
{
    return w->slots[SLOT_LISTENER];
}

// ---- dispatch.c ----
// A fresh connection: makes the downstream, restores the original destination, finds its listener, begins. Takes fd.
void listener_dispatch(struct worker *w, struct listener_cfg *accepted_by, int fd, const struct addr *peer, const struct addr *local);

// ---- chain.c ----
struct progress { // downstream.pre, while a filter waits for bytes
    struct downstream *d;
    size_t at; // index of the filter that waits
    struct timer timeout;
    // server_first.c
    struct timer silence;            // the client said nothing for this long: probe, later: give the probe up; fn NULL = no probes
    const struct filter_chain *chain; // of the probe: the one that would be taken on time-out
    void *probe;                     // of the chain's terminal filter; NULL = none
    uint8_t tries;                   // probes that could not connect
    bool counted;                    // in listener_set.probes
    bool heard;                      // the client spoke
    bool stutters;                   // the server said something, too little to know what
};
// Listener filters, then filter chain, transport, network filters. d->listener is set.
void chain_begin(struct downstream *d);
// Frees what is left of the progress of listener filters.
void chain_progress_free(struct downstream *d);
bool chain_filter_disabled(const struct downstream *d, const struct listener_filter_cfg *f);
// The chain for what is known of the connection now; NULL = none.
const struct filter_chain *chain_find(const struct downstream *d);
// Whether a probe is under way for a chain of the listener as it is.
bool chain_probes(const struct downstream *d);
// Ends the listener filters and begins with this chain.
void chain_take(struct downstream *d, const struct filter_chain *chain);

// ---- server_first.c: see docs/internals/server-first.md ----
// A filter waits for the client's first bytes. May take the chain already (the connection is then out of the caller's hands).
void server_first_wait(struct progress *p);
// The client spoke: from now on its bytes decide.
void server_first_heard(struct progress *p);
// A chain was chosen: keeps the probe for it when it is the same chain, else gives it up. Called by chain_take.
void server_first_chosen(struct progress *p, const struct filter_chain *chain);
// The connection ends.
void server_first_fini(struct progress *p);

#endif
