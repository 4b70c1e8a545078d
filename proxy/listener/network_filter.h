// SPDX-License-Identifier: Apache-2.0
// Network filters: run when a connection has its chain and its transport is ready. All but the last decide at once; the last one is
// terminal and takes the connection over.
#ifndef PROXY_LISTENER_NETWORK_FILTER_H
#define PROXY_LISTENER_NETWORK_FILTER_H

#include "proxy/core/ext.h"
#include "proxy/listener/downstream.h"

enum filter_verdict {
    FILTER_CONTINUE,
    FILTER_CLOSE,
    FILTER_HELD, // the filter has taken d->conn over (its ops; d->ops, d->terminal and d->timer are free for it) and ends with chain_refuse(d) or
                 // chain_go_on(d)
};

// What becomes of a connection that a terminal filter makes on behalf of a silent client, see docs/internals/server-first.md.
enum probe_event {
    PROBE_SPOKE,  // the other side sent `words` (all bytes so far); they stay with the probe. Comes again with more bytes until the probe is used or cancelled
    PROBE_FAILED, // nobody could be connected; the probe is gone
    PROBE_ENDED,  // the other side closed before it said anything; the probe is gone
};

struct network_filter_ops {
    struct ext_ops ext; // first
    bool terminal;
    // Non-terminal: FILTER_CLOSE ends the connection (set termination in downstream_found), as chain_refuse does. Unset = continue.
    enum filter_verdict (*on_connection)(struct downstream *d, const void *cfg);
    // Non-terminal, for probes: what on_connection would say of a connection without TLS, without an effect of any kind. Unset: a chain with
    // this filter is not probed, unless `observes`.
    enum filter_verdict (*peek)(const struct downstream *d, const void *cfg);
    bool observes; // on_connection is unset or never closes: nothing to ask before a probe
    // Terminal: takes d->conn (sets its ops and owner); bytes may already be in conn->in. Ends with downstream_close(d). d->probe set: uses the
    // probe and clears it.
    void (*start)(struct downstream *d, const void *cfg);
    // Terminal, optional: connects to where start would, without touching d->conn. NULL = cannot (now). on_event is not called before it returned.
    void *(*probe)(struct downstream *d, const void *cfg, void (*on_event)(struct downstream *d, enum probe_event e, struct str words));
    // Gives up a probe that is not gone yet; safe inside on_event.
    void (*probe_cancel)(void *probe);
    // Terminal, optional: a filter before it has refused the connection, which never comes to start. For access logs.
    void (*refused)(struct downstream *d, const void *cfg);
};

// Ends a connection that a filter held and refuses. Safe inside callbacks.
void chain_refuse(struct downstream *d);
// The filter with this configuration held the connection and lets it go on: d->conn (whose reading is not paused for it any more) belongs to those
// behind it. Safe inside callbacks; d may be closed when this returns.
void chain_go_on(struct downstream *d, const void *cfg);

#endif
