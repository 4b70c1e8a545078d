// SPDX-License-Identifier: Apache-2.0
// Inside of proxy/http: a downstream HTTP connection, the worker's free lists, and the seams between the files.
#ifndef PROXY_HTTP_INTERNAL_H
#define PROXY_HTTP_INTERNAL_H

#include "proxy/http/http_filter.h"
#include "proxy/http/manager.h"
#include "proxy/http/stream.h"

enum {
    STREAM_ARENA_H1_BYTES = 4080, // the same for HTTP/1, where a connection has one stream: a usual request and its answer fit
    STREAM_ARENA_BYTES = 2032,   // first block of a stream's arena: a small request and its answer fit; the largest that lib/base/recycle keeps
    STREAMS_KEPT_MAX = 64,       // free streams a worker keeps: 3 KB each, 5 after HTTP/1
    HTTP_DATE_MAX = 32,
    IDLE_AWAKE_MAX = 128,        // connections of a worker that may wait for a request with all their state: 0.3 KB each
    DOWNSTREAM_HIGH = 16 * 1024, // bytes that may wait for a client; what one read from the upstream brought comes on top
};

struct route_hold {              // counted without atomics: one worker's streams
    struct list link;
    struct route_table *table;   // ref
    uint32_t n;
};

struct http_worker {             // SLOT_HTTP
    struct stream *free_streams; // by link.next; memory kept warm
    unsigned free_count;
    struct list holds;           // struct route_hold in use, last used first
    uint64_t date_s;             // second of date
    char date[HTTP_DATE_MAX];    // RFC 9110 §5.6.7
    size_t date_len;
    struct list awake;           // struct http_conn.link of connections, but HTTP/2
    uint32_t awake_count;
};

// What a connection needs while requests are under way. Where there are more than IDLE_AWAKE_MAX, those that wait for a request give this and
// their codec back (idle.c): downstream.terminal is then the stat_block, and the next byte makes a new one.
struct http_conn {
    struct downstream *ds;
    const struct http_manager_cfg *cfg;
    struct codec *codec;         // owned; NULL until the first bytes have told the protocol
    struct stat_block *stats;
    struct list streams;         // open ones
    struct stream *next;         // its head is being read
    struct list link;            // http_worker.awake; alone = not in it
    uint64_t idle_since_ms, head_since_ms, drain_at_ms; // 0 = does not apply
    uint64_t bytes_in_seen, bytes_out_seen; // of conn, already counted
    uint64_t snap_version;       // table belongs to this snapshot
    struct route_table *table;   // borrowed from the snapshot; NULL = none
    struct str xfcc;             // element to append, made once; owned
    uint32_t requests;
    bool xfcc_made, table_known;
    bool draining;               // the next answer says Connection: close
    bool ended;
};

static inline struct http_worker *http_worker_of(const struct worker *w)
{
    return w->slots[SLOT_HTTP];
}

// ---- stream.c ----
struct stream *stream_take(struct http_conn *hc);
void stream_release(struct stream *s);
// The codec has the head; runs the request.
void stream_begin(struct stream *s, struct codec_stream *cs, struct http_request *req);
// Logs, counts, destroys the filters and gives the memory back.
void stream_finish(struct stream *s);
extern const struct codec_stream_ops stream_codec_ops;

// ---- filter_chain.c ----
void chain_start(struct stream *s);
void chain_data(struct stream *s, struct buf *data, bool end);
void chain_trailers(struct stream *s, struct headers *trailers);
void chain_destroy(struct stream *s);
// Ends the filters and makes the stream ready for chain_start again.
void chain_reset(struct stream *s);
void chain_response(struct stream *s, struct http_response *resp);

// ---- headers_in.c: pure ----
struct request_peer {            // what the connection says
    struct addr remote, local;
    bool tls;
    bool mtls;                   // the peer presented a certificate
    struct str xfcc;             // our element about it
};
// X-Forwarded-*, X-Request-Id, X-Envoy-* from outside, X-Forwarded-Client-Cert, Via. *ret_remote: the client's address as far as it can
// be trusted. *ret_trust says what the rest may believe. False: a header name with '_' must be refused.
struct request_trust {
    bool internal;      // the client is one of us (internal_address_config)
    bool envoy_fields;  // there are x-envoy- fields, and they may be honoured
    int reject_status;  // original IP detection refuses the request; 0 = no
};
bool request_headers_prepare(struct http_request *req, const struct http_manager_cfg *cfg, const struct request_peer *p,
                             struct addr *ret_remote, struct request_trust *ret_trust);
// internal_only_headers of the route table, of a request that is not internal.
void request_headers_only_internal(struct http_request *req, const struct str *names, size_t n);
// ---- redirect.c ----
// The stream ends: a redirect is not followed any more.
void redirect_cancel(struct stream *s);
// ---- forward_cert.c ----
// One element of X-Forwarded-Client-Cert ("By=…;Hash=…;…") in the arena.
struct str xfcc_element(const struct http_manager_cfg *cfg, const struct tls_info *tls, struct arena *a);

// ---- headers_out.c ----
void response_headers_prepare(struct http_response *resp, const struct stream *s);
struct str http_date(struct http_worker *hw, uint64_t wall_ms);

// ---- upgrade.c: pure ----
// Forgets an upgrade that is to be ignored.
void upgrade_prepare(struct http_request *req);
// Whether the upgrade that req asks for (if any) may go to the upstream. route: NULL = none.
bool upgrade_allowed(const struct http_request *req, const struct http_manager_cfg *cfg, const struct route *route);
// The filters that req goes through (UpgradeConfig.filters).
const struct http_chain *upgrade_chain(const struct http_request *req, const struct http_manager_cfg *cfg);
// Whether an answer with this status makes the exchange a tunnel.
bool upgrade_switches(const struct http_request *req, int status);

// ---- websocket.c ----
// A client of extended CONNECT has no key; an HTTP/1.1 server wants one.
void websocket_request(struct stream *s);
// An HTTP/1.1 client wants its key's digest; a server of extended CONNECT does not say it.
void websocket_response(struct stream *s, struct http_response *resp);

// ---- manager.c ----
// A timer of the downstream stands at or before the earliest moment at which some limit may have been reached, and looks only then.
// The connection's timer must look again at this moment at the latest.
void http_conn_arm(struct http_conn *hc, uint64_t at_ms);
// Fresh state for d, whose timer, ops and terminal become its; counts nothing. No codec yet.
struct http_conn *http_conn_new(struct downstream *d, struct stat_block *stats);
// Puts a codec on the connection, or waits for the bytes that tell which one.
void http_conn_codec(struct http_conn *hc);
// Counts the bytes that have moved.
void http_conn_count_bytes(struct http_conn *hc);
// Everything of the connection ends, at once.
void http_conn_end(struct http_conn *hc);
extern const struct downstream_ops http_conn_ds_ops;

// ---- idle.c ----
// Into and out of http_worker.awake; out of it twice is harmless.
void idle_enter(struct http_conn *hc);
void idle_leave(struct http_conn *hc);
void idle_trim(struct http_conn *hc);
// The connection may be waiting for a request now: others that have waited for longer go to sleep when there are many.
static inline void idle_check(struct http_conn *hc)
{
    if (http_worker_of(hc->ds->worker)->awake_count > IDLE_AWAKE_MAX) {
        idle_trim(hc);
    }
}
// d's timer has fired: false when it sleeps and may go on, and then the timer is set again.
bool idle_due(struct downstream *d);
// The state of d's connection, made anew when it slept.
struct http_conn *idle_wake(struct downstream *d);

#endif
