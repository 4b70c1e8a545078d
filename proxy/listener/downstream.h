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

struct limiter; // proxy/authz/rate_limit.h

// What few connections have: made on first use, dies with the connection.
struct downstream_found {
    struct arena arena;
    struct addr remote;          // the client, as a PROXY header says; family 0 = conn->peer
    struct str server_name;      // arena
    const struct upstream_hints *hints; // arena; what filters want of upstream connections, NULL = nothing
    const struct connection_fact *facts; // dynamic metadata of listener filters; arena
    struct dynamic_metadata *dynamic; // that of network filters; arena
    struct limiter *limiter;     // local_rate_limit_per_downstream_connection; arena, NULL = not asked yet
    const char *termination;     // why a network filter closed it, for logs; static or in arena
    const char *details;         // likewise, as response code details
    uint32_t flags;              // RF(...)
};

struct downstream;

// Set by the terminal filter; either may be unset.
struct downstream_ops {
    // The server drains. Deadline by the filter's own rules; the filter finishes and calls downstream_close.
    void (*on_drain)(struct downstream *d);
    // The worker ends. Free the filter's state and call downstream_close at once. Unset: downstream_close.
    void (*on_abort)(struct downstream *d);
    // Whether something under way has borrowed from d->listener (not from its chain), which then may not be replaced. Unset: nothing.
    bool (*borrows_listener)(const struct downstream *d);
};

// Owned by the worker's listener set; destroyed by downstream_close. The terminal network filter owns conn's ops from start on.
// Thousands of these wait for a client's next word, so it is kept small (docs/performance.md; tests/unit/proxy/filters/http/test_idle.c).
struct downstream {
    struct list link;            // worker's list of connections (drain, shutdown)
    struct worker *worker;
    struct conn *conn;           // owned; its peer and local are unmapped, and local is the original destination once restored
    struct listener_cfg *listener; // ref: the listener that is responsible (the virtual one after dispatch); a later version when only chains changed
    struct filter_chain *chain;  // ref; NULL until matched. May outlive its place in the listener
    struct stat_block *stats;    // of the listener
    struct downstream_found *found; // owned; NULL = nothing of it
    const struct str *alpn;      // static or in found's arena; what an inspector saw, NULL when nothing
    uint64_t start_wall_ms, start_ns; // accepted: since 1970, monotonic
    void *terminal;              // state of the terminal filter
    void *probe;                 // of the terminal filter, for its start: what it connected while the client was silent; NULL = nothing
    const struct downstream_ops *ops; // of the terminal filter; NULL = none
    void *pre;                   // listener filter progress, private to proxy/listener
    struct timer timer;          // the terminal filter's, which initialises it; cancelled by downstream_close
    uint32_t requests;           // HTTP: so far, noted while the manager's state of an idle connection is gone
    uint8_t alpn_count;          // at most DOWNSTREAM_ALPN_MAX
    bool tls_hello : 1;          // transport protocol "tls" in place of "raw_buffer"
    bool restored : 1;           // conn->local came from SO_ORIGINAL_DST, TPROXY or a PROXY header
    bool inbound : 1;            // the listener whose socket accepted it is of that direction
    bool drains : 1;             // on_drain is due once there is a terminal filter
    bool closed : 1;
    bool limited : 1;            // it counts against the limit on all connections
};

// The client, and where it wanted to go. Views that live as long as d.
static inline const struct addr *downstream_remote(const struct downstream *d)
{
    return d->found && d->found->remote.family ? &d->found->remote : &d->conn->peer;
}
static inline const struct addr *downstream_local(const struct downstream *d)
{
    return &d->conn->local;
}
// Of the TLS hello, lower case; empty when there is none.
static inline struct str downstream_server_name(const struct downstream *d)
{
    return d->found ? d->found->server_name : str_n(NULL, 0);
}
static inline const struct connection_fact *downstream_facts(const struct downstream *d)
{
    return d->found ? d->found->facts : NULL;
}
static inline const struct upstream_hints *downstream_hints_get(const struct downstream *d)
{
    return d->found ? d->found->hints : NULL;
}
// For listener filters: the address that the client dialled.
static inline void downstream_restore(struct downstream *d, struct addr local)
{
    d->conn->local = local;
    d->restored = true;
}
struct downstream_found *downstream_found(struct downstream *d); // never NULL
static inline struct arena *downstream_arena(struct downstream *d) // dies with the connection
{
    return &downstream_found(d)->arena;
}

// The terminal filter is done: access logs of the connection are its own business. Closes the connection (flushing was done before),
// drops references, frees d at the end of the turn. Safe inside callbacks; a second call does nothing.
void downstream_close(struct downstream *d);
// Where the client wanted to go, for ORIGINAL_DST clusters. false when it dialled our own socket (not redirected, no PROXY header): connecting
// there would be a loop.
bool downstream_original_dst(const struct downstream *d, struct addr *ret);
// The hints to write to, made empty on first use. For listener and network filters.
struct upstream_hints *downstream_hints(struct downstream *d);
// What is known of the connection, as the start of a stream's or a TCP connection's facts. ret is overwritten; its views live as long as d.
void downstream_info(const struct downstream *d, struct stream_info *ret);
const struct tls_info *downstream_tls(const struct downstream *d); // NULL = plaintext

#endif
