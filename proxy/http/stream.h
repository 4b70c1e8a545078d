// SPDX-License-Identifier: Apache-2.0
// One HTTP exchange of a downstream connection: owns its arena; holds its route table; runs the filter chain. Worker's thread.
#ifndef PROXY_HTTP_STREAM_H
#define PROXY_HTTP_STREAM_H

#include "lib/http/codec.h"
#include "proxy/core/stream_info.h"
#include "proxy/core/worker.h"
#include "proxy/listener/downstream.h"
#include "proxy/model/route_table.h"

struct http_chain;
struct http_manager_cfg;
struct http_conn;   // manager's connection state
struct http_filter;
struct route_hold;  // a route table in use by streams of this worker

enum { STREAM_REDIRECTS_MAX = 16 }; // followed for one request, whatever a policy says
enum { STREAM_HELD_MAX = 64 * 1024 }; // held body above which the client is paused
enum { STREAM_LEVELS = 4 }; // of a route that may have configuration for a filter

struct stream {
    struct arena arena;          // first: kept over reuse of the stream's memory
    struct list link;            // of its connection
    struct http_conn *hc;        // connection
    struct worker *worker;
    struct downstream *ds;
    const struct http_manager_cfg *cfg; // frozen, in the listener
    struct codec_stream *down;   // NULL once gone
    struct http_request req;     // in arena; not set before the head is complete (stream_begin)
    struct http_response resp;   // the answer being sent; not set before response_started
    struct stream_info info;     // first of those that begin as zero
    const struct route_table *table; // held; NULL = no route configuration
    const struct virtual_host *vhost; // in table
    const struct route *route;   // in table; NULL = none
    struct str path_original;    // before rewrites
    const struct http_chain *chain; // which filters: the listener's, or those of the upgrade that is asked for; NULL = not known yet
    struct http_filter *filters; // instances, chain->count
    uint64_t random;             // one draw per request
    uint64_t id;
    bool request_complete;       // last byte of the request has come
    bool response_started, response_complete;
    bool local_reply;            // the answer was made here
    bool internal;               // the client is one of us (internal_address_config)
    bool envoy_fields;           // it may steer retries and time-outs by x-envoy- fields, and there are some
    bool tunnel;                 // switched: each side ends on its own
    bool ws_key_made;            // Sec-WebSocket-Key is ours
    bool down_high;              // the client does not take more
    // set by filters for the router
    const struct str *alpn_override; // istio.alpn: offered to TLS upstreams in place of the cluster's list; borrowed from a listener
    size_t alpn_override_count;
    const struct str *alpn_override_h2; // the same for upstreams that are spoken to in HTTP/2
    size_t alpn_override_h2_count;
    // private to proxy/http
    struct route_hold *hold;         // what keeps table alive
    struct headers *resp_trailers;   // in arena; NULL = none
    uint64_t active_ms;              // loop time of the last progress, for the idle time-out
    uint64_t idle_limit_ms, max_limit_ms; // 0 = none; the route's, else the listener's
    uint64_t body_at_ms, body_seen;  // slow bodies: end of the window, bytes received at its begin; 0 = not watched
    uint32_t next_filter;            // the first one that has not seen the request head
    bool stopped;                    // a filter holds the request
    bool chain_started;              // filters have seen (part of) the request: on_destroy is due
    bool destroyed;
    bool awaiting_end;               // the filters see nothing before the request has ended
    bool end_seen;                   // the request's last part has been held or passed on
    bool paused_held, paused_router; // why reading the body is paused
    bool route_fields_done;          // the router has put the route's fields on the local reply that comes
    bool body_excused;               // it was paused in this window
    struct headers *held_trailers;   // in arena
    struct stream_redirects *redirects; // in arena; NULL = none was followed (redirect.c)
    uint32_t held_max;               // how much of it the filter that holds the request wants to see, where that is more
    struct buf held;                 // body waiting behind a stopped filter, bounded by STREAM_HELD_MAX or held_max, and one read
};

// Route look-up with the present request head (again after a filter changed it: clears the cached route first).
void stream_select_route(struct stream *s);
// Whether a route switches the filter off (route.v3.FilterConfig.disabled). by_default: where no level says anything.
bool stream_filter_disabled(const struct stream *s, struct str filter_name, bool by_default);
// Per-route configuration of a filter: weighted cluster, then route, virtual host, table. NULL when none. name: as configured.
const void *stream_per_filter(const struct stream *s, struct str filter_name);
// Those of all levels, the most specific one last; how many.
size_t stream_per_filter_all(const struct stream *s, struct str filter_name, const void *ret[STREAM_LEVELS]);
// By its content type (gRPC over HTTP/2, "Content-Type").
bool stream_is_grpc(const struct stream *s);
// Answers from here: status, text body, optional extra headers by the caller in extra (may be NULL); details are stable text for the log. gRPC
// requests get a gRPC answer. Does nothing when the response has begun (resets instead).
void stream_local_reply(struct stream *s, int status, struct str body, const char *details, uint32_t flags, const struct headers *extra);
// Follows the redirect that resp is, when the policy of the stream's route (which has one) allows it: true, and the request starts over with
// body (taken) later in this turn; the filters, the caller's too, are destroyed then. False: the answer is the client's.
bool stream_follow(struct stream *s, const struct http_response *resp, struct buf *body);
// A filter that stopped goes on.
void stream_continue_request(struct stream *s, struct http_filter *f);
// The terminal filter sends the answer through these (they run the response filters and the codec).
void stream_send_response(struct stream *s, struct http_response *resp); // head; resp->headers in s->arena
void stream_send_informational(struct stream *s, struct http_response *resp); // 1xx
void stream_send_data(struct stream *s, struct buf *data, bool end);
void stream_send_trailers(struct stream *s, struct headers *trailers);
// The connection manager's statistics (STAT_HTTP); NULL = none.
struct stat_block *stream_stats(const struct stream *s);
// Ends the exchange hard (the client sees a reset).
void stream_reset(struct stream *s, const char *details, uint32_t flags);
// Upstream back-pressure: stop / go on reading the request body.
void stream_pause_request(struct stream *s);
void stream_resume_request(struct stream *s);

#endif
