// SPDX-License-Identifier: Apache-2.0
// Network filters: run when a connection has its chain and its transport is ready. All but the last decide at once; the last one is
// terminal and takes the connection over.
#ifndef PROXY_LISTENER_NETWORK_FILTER_H
#define PROXY_LISTENER_NETWORK_FILTER_H

#include "proxy/core/ext.h"
#include "proxy/listener/downstream.h"

enum filter_verdict { FILTER_CONTINUE, FILTER_CLOSE };

struct network_filter_ops {
    struct ext_ops ext; // first
    bool terminal;
    // Non-terminal: FILTER_CLOSE ends the connection (set d->termination). Unset = continue.
    enum filter_verdict (*on_connection)(struct downstream *d, const void *cfg);
    // Terminal: takes d->conn (sets its ops and owner); bytes may already be in conn->in. Ends with downstream_close(d).
    void (*start)(struct downstream *d, const void *cfg);
};

#endif
