// SPDX-License-Identifier: Apache-2.0
// Listeners of one worker: bind (own SO_REUSEPORT sockets), accept, hand a redirected connection to the listener of its original
// destination, run listener filters, pick the chain, hand over to the network filters; follow snapshots; drain.
#ifndef PROXY_LISTENER_LISTENER_H
#define PROXY_LISTENER_LISTENER_H

#include "proxy/listener/downstream.h"
#include "proxy/model/snapshot.h"

// Worker's thread. Creates the slot (SLOT_LISTENER).
void listener_worker_init(struct worker *w);
void listener_worker_fini(struct worker *w); // closes everything at once
// After worker->snap was swapped: binds new addresses, keeps unchanged sockets (same address), closes gone ones after accepting who waits
// there; connections of removed or changed listeners are drained (on_drain), those among them. Sockets that cannot be bound are logged and retried every second; accept goes on elsewhere.
void listener_on_snapshot(struct worker *w, const struct snapshot *old);
// Control thread, before publishing: can this listener's addresses be bound? Binds a probe socket with SO_REUSEPORT. For NACKs.
int listener_check_bind(const struct listener_cfg *l, struct err *err);
// Tells every connection to drain and goes on accepting: the graceful half of a drain, while others still learn that this proxy goes away.
void listener_drain_notify(struct worker *w, bool inbound_only);
// Stops accepting (who waits in the accept queue is still served) and tells every connection to drain. inbound_only: listeners with direction INBOUND.
void listener_drain(struct worker *w, bool inbound_only);
// Most connections that all listeners together hold (overload.v3: global_downstream_max_connections); more are closed when they come, but for
// those of listeners with ignore_global_limit. UINT64_MAX = no limit. Once, before workers start.
void listener_set_global_limit(uint64_t max);
// Connections open on this worker (accepted and not closed).
size_t listener_connections(const struct worker *w);
// A new connection from elsewhere (tests, internal listeners later): takes fd.
void listener_inject(struct worker *w, struct listener_cfg *l, int fd, const struct addr *peer, const struct addr *local);

#endif
