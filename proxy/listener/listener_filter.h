// SPDX-License-Identifier: Apache-2.0
// Listener filters: look at the first bytes (without taking them) or at the socket, before a filter chain is chosen.
#ifndef PROXY_LISTENER_LISTENER_FILTER_H
#define PROXY_LISTENER_LISTENER_FILTER_H

#include "proxy/core/ext.h"
#include "proxy/listener/downstream.h"

enum listener_verdict { LF_DONE, LF_NEED_BYTES, LF_CLOSE };

struct listener_filter_ops {
    struct ext_ops ext; // first
    // On accept. LF_DONE when bytes are not needed. May call downstream_restore (original_dst, proxy_protocol).
    enum listener_verdict (*on_accept)(struct downstream *d, const void *cfg);
    // bytes: all that has come so far, not consumed; may consume leading bytes by setting *ret_consumed (PROXY protocol). eof: no more will come.
    enum listener_verdict (*on_bytes)(struct downstream *d, const void *cfg, struct str bytes, bool eof, size_t *ret_consumed);
    size_t max_bytes; // that on_bytes may ask for; beyond it the filter is done
    // It only wants to know what the client speaks: while the client is silent, the connection may go on without it (server_first.c).
    bool sniffs;
    // Whether a connection may go on without this filter's verdict when the time is over (continue_on_listener_filters_timeout). Unset: yes if
    // it sniffs. A filter that the client must satisfy says no, and the connection is closed.
    bool (*may_skip)(const void *cfg);
};

#endif
