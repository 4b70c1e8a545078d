// SPDX-License-Identifier: Apache-2.0
// An accepted connection from accept to close: which listener and filter chain took it, what the listener filters found out.
#ifndef PROXY_LISTENER_DOWNSTREAM_H
#define PROXY_LISTENER_DOWNSTREAM_H

#include "lib/net/conn.h"
#include "lib/tls/transport_tls.h"
#include "proxy/core/facts.h"
#include "proxy/core/hints.h"
#include "proxy/core/stream_info.h"
#include "proxy/core/worker.h"
#include "proxy/model/listener_cfg.h"
#include "proxy/stats/stats.h"

enum { DOWNSTREAM_ALPN_MAX = 16 };

// Owned by the worker's listener set; destroyed by downstream_close. The terminal network filter owns conn's ops from start on.
struct downstream {
    struct list link;            // worker's list of connections (drain, shutdown)
    struct worker *worker;
    struct conn *conn;           // owned
    struct listener_cfg *listener; // ref: the listener whose chain was taken (virtual one after dispatch)
    struct listener_cfg *accepted_by; // ref: the listener whose socket accepted
    const struct filter_chain *chain; // in listener; NULL until matched
    struct stat_block *stats;    // of accepted_by's scope… the listener that took it
    struct addr remote, local;   // local = original destination once restored; the socket's own address is conn->local
    const struct upstream_hints *hints; // arena; what filters want of upstream connections, NULL = nothing
    const struct connection_fact *facts; // dynamic metadata; arena
    struct str transport_protocol; // "raw_buffer" / "tls"
    struct str server_name;      // arena
    struct str *alpn;            // arena, at most DOWNSTREAM_ALPN_MAX; NULL when none
    uint32_t alpn_count;
    bool restored;               // local came from SO_ORIGINAL_DST or TPROXY
    bool closed;
    struct arena arena;          // dies with the connection
    uint64_t start_wall_ms, start_ns; // accepted: since 1970, monotonic
    const char *termination;     // why a network filter closed it, for logs; static or in arena
    void *terminal;              // state of the terminal filter
    void *probe;                 // of the terminal filter, for its start: what it connected while the client was silent; NULL = nothing
    // Set by the terminal filter: the server drains. deadline by the filter's own rules; the filter finishes and calls downstream_close.
    void (*on_drain)(struct downstream *d);
    // Set by the terminal filter: the worker ends. Free the filter's state and call downstream_close at once. Unset: downstream_close.
    void (*on_abort)(struct downstream *d);
    // Listener filter progress, private to proxy/listener.
    void *pre;
};

// The terminal filter is done: access logs of the connection are its own business. Closes the connection (flushing was done before),
// drops references, frees d at the end of the turn. Safe inside callbacks; a second call does nothing.
void downstream_close(struct downstream *d);
// Where the client wanted to go, for ORIGINAL_DST clusters. false when it dialled our own socket (not redirected, no PROXY header): connecting
// there would be a loop.
bool downstream_original_dst(const struct downstream *d, struct addr *ret);
// d->hints to write to, made empty on first use. For listener and network filters.
struct upstream_hints *downstream_hints(struct downstream *d);
// What is known of the connection, as the start of a stream's or a TCP connection's facts. ret is overwritten; its views live as long as d.
void downstream_info(const struct downstream *d, struct stream_info *ret);
const struct tls_info *downstream_tls(const struct downstream *d); // NULL = plaintext

#endif
