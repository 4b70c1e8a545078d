// SPDX-License-Identifier: Apache-2.0
// A TCP connection carried in one HTTP exchange with an upstream proxy (tcp_proxy.v3.TcpProxy.TunnelingConfig): CONNECT, or POST. Worker's thread.
#ifndef PROXY_FILTERS_NETWORK_TCP_TUNNEL_H
#define PROXY_FILTERS_NETWORK_TCP_TUNNEL_H

#include "proxy/access_log/format.h"
#include "proxy/upstream/cluster.h"

struct tcp_tunnel_header {
    struct str name;
    struct format *value;
    bool overwrite, if_absent, if_exists; // append_action; none: appended
    bool keep_empty;
};

struct tcp_tunnel_cfg {          // in the listener's arena
    struct format *hostname;
    bool post;                   // use_post
    struct str path;             // of a POST
    struct tcp_tunnel_header *headers;
    size_t header_count;
};

// begin → (open → start → done) or fail. Embedded in its owner, zeroed before.
struct tcp_tunnel {
    // Exactly one of the two, possibly before tcp_tunnel_begin returns. detail: static, or lives to the end of the turn; may be NULL.
    void (*on_open)(struct tcp_tunnel *t);
    void (*on_fail)(struct tcp_tunnel *t, enum pool_failure why, const char *detail);
    // After tcp_tunnel_start: both sides ended, one broke (who: the client's connection, or NULL for the upstream), or idle (CONN_CLOSE_LOCAL).
    void (*on_done)(struct tcp_tunnel *t, const struct conn *who, enum conn_close why);
    void *owner;
    // For logs: of the latest attempt; the texts are in its arena.
    struct addr host, local;
    struct str peer_uri;
    // private
    uint64_t bytes_in, bytes_out; // of the exchange that is over
    struct cluster_worker *cw;
    struct picked picked;
    struct pool_request pr;
    struct arena *arena;
    const struct http_request *req; // in arena
    struct codec_stream *up;
    struct conn *down;
    struct timer idle;
    uint64_t idle_ms, active_ms;
    int priority, status;
    bool waiting, begun, opened, finished;
    bool up_ended, up_broken, down_ended;
};

// The request that opens a tunnel, in the arena; ctx: what operators may read.
const struct http_request *tcp_tunnel_request(const struct tcp_tunnel_cfg *cfg, const struct format_ctx *ctx, struct arena *a);
// Asks p for the tunnel. p is the caller's; arena and req live until tcp_tunnel_stop.
void tcp_tunnel_begin(struct tcp_tunnel *t, struct cluster_worker *cw, const struct picked *p, const struct pool_opts *o,
                      const struct http_request *req, struct arena *arena);
// After on_open: moves bytes between the tunnel and down, whose ops and owner it takes. idle_ms 0 = none.
void tcp_tunnel_start(struct tcp_tunnel *t, struct conn *down, uint64_t idle_ms);
// Wire bytes of the latest exchange, for logs.
void tcp_tunnel_wire(const struct tcp_tunnel *t, uint64_t *ret_in, uint64_t *ret_out);
// Lets go of everything but down, at any time. An exchange that is not over is reset.
void tcp_tunnel_stop(struct tcp_tunnel *t);

#endif
