// SPDX-License-Identifier: Apache-2.0
// Private to lib/http: HTTP/2 (RFC 9113) on nghttp2: what the server and the client codec share.
//
// nghttp2 keeps the protocol's state and HPACK; around it stand a frame scanner with a budget for abuse (h2_guard.c), the strict
// translation between header blocks and messages (h2_fields.c), and here streams, flow control and the end of a connection.
// A head is delivered from inside nghttp2's receive call; everything else is marked on the stream and delivered by settle, as in h1.
#ifndef LIB_HTTP_H2_CONN_H
#define LIB_HTTP_H2_CONN_H

#include <nghttp2/nghttp2.h>

#include "lib/http/codec_impl.h"
#include "lib/http/h1_parser.h"
#include "lib/http/h2_opts.h"

enum {
    H2_STREAM_WINDOW = 256 * 1024,
    // Client: an answer's window grows with what its owner shows to take. It must not cost much that some wait for clients which do not read.
    H2_FIRST_WINDOW = 16 * 1024,              // until some of it was taken
    H2_CAREFUL_WINDOW = 256,                  // where the owner cannot pass anything on when the request leaves
    H2_SHARED_WINDOWS = 1024 * 1024,          // then a share of this, at most H2_STREAM_WINDOW
    H2_CONN_WINDOW_SERVER = 1024 * 1024,
    H2_CONN_WINDOW_CLIENT = 16 * 1024 * 1024, // one slow client of ours must not stop the answers for the others
    H2_MAX_STREAMS = 100,
    H2_STREAM_HIGH = 32 * 1024,               // unsent bytes of a stream; what one read of its source brought comes on top. With more than a
                                              // frame waiting, a peer that gives windows back frame by frame gets full frames
    H2_CONN_HIGH = 8 * 1024,                  // bytes that the kernel did not take: streams wait
    H2_STALLED_HIGH = 64 * 1024,              // server: bytes of all streams that cannot be sent; then no stream takes more than it can send
    H2_BATCH = 64 * 1024,                     // bytes given to the kernel at once
    H2_SLICE_FRAME_MIN = 4096,                // a slice with so much goes out as a frame of its own, uncopied,
    H2_WINDOW_AMPLE = 256 * 1024,             // where the peer's windows are so large
    H2_TICK_MS = 15000,                       // a header block or a finished answer that moves nothing for one to two ticks ends
    H2_DRAIN_MS = 1000,                       // the second GOAWAY follows the first one's PING, or after this
    H2_BLOCK_BYTES_MAX = 80 * 1024,           // a header block as sent
    H2_CONTINUATIONS_MAX = 8,
    H2_OVER_MAX = 1000,                       // fields behind the one that was too much
    H2_BUDGET_MAX = 2000,                     // see h2_guard.c
    H2_BUDGET_PER_S = 200,
    H2_PSEUDO_MAX = 8,
};

struct h2_field {
    nghttp2_rcbuf *name, *value;
};
struct h2_block { // the header block being received
    struct h2_field *v; // owned
    uint32_t n, cap;
    size_t bytes;
    uint32_t over;      // fields dropped since it is too large
    bool too_large;
};

struct h2_stream {
    struct codec_stream s;
    struct list link;            // h2.streams
    struct list dirty;           // h2.dirty; empty when not in it
    struct arena *arena;         // owner's, for heads and trailers
    int32_t sid;                 // 0: not submitted
    struct buf in, out;
    struct headers trailers;     // heard
    struct str protocol;         // extended CONNECT: what for, in arena
    struct http_response *empty; // owned copy: an answer that must have no body waits for its end, which shows whether it has one
    struct http_request *later;  // owned copy: waits for the server's SETTINGS
    nghttp2_nv *trailers_out;    // owned, one block with its bytes
    size_t n_trailers_out;
    int64_t out_left;            // announced content-length still to be sent; -1 = not announced
    int64_t in_left;             // the same of what the peer sends; 0 also where no body may come
    uint64_t tick_out;
    uint32_t window;             // client: what the server may send; 0 = all that it ever may
    uint32_t close_code;
    uint8_t informational;
    bool head_heard;             // client: the final answer's head
    bool broken;                 // the peer's message was refused behind its head: nothing more of it counts
    bool head_sent, out_empty, head_request;
    bool in_end, has_trailers;   // the peer's message is complete (but maybe not delivered)
    bool closed;                 // nghttp2 has forgotten it
    bool rst_heard;              // by the peer's RST_STREAM
    bool end_sent, end_queued;
    bool connect;                // CONNECT: the frames behind the head are no message; they wait until the other side has switched
    bool unsayable;              // client: HTTP/2 has no way to say the request; told when the owner's call has returned
    bool tunnel;                 // it has: raw bytes both ways until both sides ended
    bool given_up;               // codec_stream_reset
    bool above_high, deferred, told;
    bool began_closed;           // server: its window was closed from the start
};

struct h2_guard {
    uint8_t hd[9];
    unsigned have, preface_left;
    uint32_t payload_left, block_bytes, continuations;
    uint64_t blocks;
    int64_t budget;
    uint64_t budget_ms;
    uint64_t priorities, window_updates, data_sent;
    uint32_t empties;                // in a row
    int32_t last_id, gap_lo, gap_hi; // highest stream opened by the client; the last identifiers it skipped
    bool in_block;
};

struct h2 {
    struct codec c;
    nghttp2_session *session; // owned
    const struct h1_limits *limits;
    const struct h2_opts *opts; // borrowed
    struct list streams, dirty;
    struct h2_stream *found;  // the stream that was asked for last (h2_find)
    struct list zombies;      // streams that are over while nghttp2 still points at them; freed with the session
    struct loop_task task;
    struct timer timer;
    struct timer head_timer;  // while a header block is incomplete
    struct timer ping_timer;  // h2_keepalive.c
    uint64_t heard_ms;
    uint64_t head_ms;         // request_headers_timeout; 0 = H2_TICK_MS
    uint64_t head_blocks;
    bool pinged, heard_since_ping;
    struct h2_guard guard;
    struct h2_block block;
    struct arena scratch;     // while a head is being written
    uint64_t named;           // bit = enum hdr_id: its name was put into the peer's table (h2_out_fields)
    uint32_t heads_out;
    uint64_t opened;          // streams ever
    uint32_t n_streams;       // in the list
    uint32_t n_high;          // of these above_high (or it was, when they ended)
    size_t unsent;            // sum of out of all streams
    uint32_t stream_window;   // client: what a stream gets
    uint32_t first_window;    // client: what it begins with
    bool careful;             // client: SETTINGS say H2_CAREFUL_WINDOW; a stream whose owner takes its answer gets the rest by itself
    uint32_t conn_window;
    unsigned depth;
    enum conn_close gone_why;
    enum codec_reset fail_why;
    const char *fail_detail;
    bool allow_connect;       // server: extended CONNECT is offered
    bool server, in_session, eof, draining, drain_final, goaway_told, window_raised, settings_heard, settled_due;
    bool failed;              // the session ends: every stream is reset, then the connection closes
    bool abused;              // by the peer; it gets no time
    bool closing, gone_due, gone;
};

static inline struct h2 *h2_of(struct codec *c)
{
    return (struct h2 *)(void *)c;
}
static inline struct h2_stream *h2_stream_of(struct codec_stream *s)
{
    return (struct h2_stream *)(void *)s;
}

struct h2 *h2_new(struct conn *conn, const struct codec_impl *impl, bool server, const struct codec_ops *ops, void *owner,
                  const struct codec_opts *o);
// The owner hears why, once, unless it has given up.
void h2_tell_reset(struct h2_stream *x, enum codec_reset why, const char *detail);
struct h2_stream *h2_stream_new(struct h2 *h, int32_t sid, struct arena *arena);
// The owner's stream, NULL where nghttp2 has closed it or it was never told about.
struct h2_stream *h2_find(struct h2 *h, int32_t sid);
// RFC 9113 §8.1.1: whether n more bytes, or the end, do not fit what x's head announced, or come in front of the final head.
static inline bool h2_breaks_length(const struct h2 *h, const struct h2_stream *x, size_t n)
{
    return (x->in_left >= 0 && n > (uint64_t)x->in_left) || (!h->server && !x->head_heard);
}
static inline bool h2_breaks_end(const struct h2 *h, const struct h2_stream *x)
{
    return x->in_left > 0 || (!h->server && !x->head_heard);
}
// Settles x later in this turn, or when the running callback returns.
void h2_dirty(struct h2 *h, struct h2_stream *x);
void h2_kick(struct h2 *h);
// Ends the session with GOAWAY(code).
void h2_fail(struct h2 *h, uint32_t code, const char *detail);
// RST_STREAM.
void h2_rst(struct h2 *h, int32_t sid, uint32_t code);
// Forgets what was received and not delivered; the peer may send as much again.
void h2_drop_input(struct h2 *h, struct h2_stream *x);
// Behind the submission of x's head: end says that nothing follows.
void h2_head_sent(struct h2 *h, struct h2_stream *x, bool end);
// A complete header block (h2_server.c, h2_client.c).
void h2_server_block(struct h2 *h, const nghttp2_frame *f);
void h2_client_block(struct h2 *h, const nghttp2_frame *f);
// Delivers x->empty. The codec may be freed.
void h2_client_empty(struct h2_stream *x);
// The first SETTINGS of the server came.
void h2_client_settled(struct h2 *h);
// Shared entries of codec_impl.
void h2_send_data(struct codec_stream *s, struct buf *data, bool end);
void h2_send_trailers(struct codec_stream *s, const struct headers *trailers);
void h2_flush(struct codec *c);
void h2_stream_reset(struct codec_stream *s, enum codec_reset why);
void h2_pause(struct codec_stream *s);
void h2_resume(struct codec_stream *s);
void h2_drain(struct codec *c);
void h2_destroy(struct codec *c);

// The server's second GOAWAY (RFC 9113 §6.8).
void h2_drain_final(struct h2 *h);
// A client's owner hears once that no stream can be opened any more.
void h2_tell_goaway(struct h2 *h);
// A tunnel whose sides end on their own. An upgraded stream of a server is over with its own end.
static inline bool h2_each_ends(const struct h2_stream *x)
{
    return x->tunnel && !x->protocol.n;
}
// Whether there is room for more of x, behind a call of on_high.
bool h2_may_take_more(const struct h2 *h, const struct h2_stream *x);
// Server, behind on_request: a stream whose answer cannot be sent begins above the high mark.
void h2_begin_closed(struct h2 *h, struct h2_stream *x);
// A window was opened: of one stream, or (NULL) of all.
void h2_window_opened(struct h2 *h, struct h2_stream *x);
// n bytes of x's body have left (or were dropped).
void h2_sent(struct h2 *h, struct h2_stream *x, size_t n);
// Client: x's owner takes its answer (taken: it has taken some): its window grows.
void h2_client_raise(struct h2 *h, struct h2_stream *x, bool taken);
// x's owner cannot take an answer, and its request may not have left: from now on streams begin with H2_CAREFUL_WINDOW.
void h2_client_careful(struct h2 *h, const struct h2_stream *x);
// No stream is left: the next ones begin as usual.
void h2_client_careless(struct h2 *h);

// ---- h2_session.c ----
// A session with h as its user; never NULL.
nghttp2_session *h2_session_new(struct h2 *h);
// A source of DATA: source->ptr is a struct h2_stream.
ssize_t h2_read_body(nghttp2_session *session, int32_t sid, uint8_t *buf, size_t length, uint32_t *flags,
                     nghttp2_data_source *source, void *user);
// A header block was refused; counts, tells and may end the connection.
void h2_bad_message(struct h2 *h, int status, const char *detail);

// ---- h2_conn.c ----
// Marks around everything that may call the owner; the outermost leave acts on what was marked.
void h2_enter(struct h2 *h);
void h2_leave(struct h2 *h);
// The peer is gone: every stream is reset, the connection ends at once.
void h2_lost(struct h2 *h, const char *detail);

// ---- h2_keepalive.c ----
void h2_keepalive_init(struct h2 *h);
// Bytes came.
void h2_keepalive_heard(struct h2 *h);
// A client's stream is about to begin.
void h2_keepalive_stream(struct h2 *h);

// ---- h2_guard.c ----
void h2_guard_init(struct h2 *h);
// Looks at the frames in p before nghttp2 does. NULL: go on; otherwise why the connection must end, and *ret_code.
const char *h2_guard_scan(struct h2 *h, const char *p, size_t n, uint32_t *ret_code);
// Takes cost from the budget. False when it is exhausted.
bool h2_guard_spend(struct h2 *h, int cost);
// Whether too much waits to be sent: a peer that asks and does not read.
bool h2_guard_outbound(const struct h2 *h);
void h2_guard_earn(struct h2 *h, int credit);

// ---- h2_fields.c ----
void h2_block_begin(struct h2 *h);
void h2_block_add(struct h2 *h, nghttp2_rcbuf *name, nghttp2_rcbuf *value);
void h2_block_fini(struct h2 *h);
// The block as a message, copied to a. NULL or why it is malformed.
const char *h2_block_request(struct h2 *h, struct arena *a, struct http_request *ret);
const char *h2_block_response(struct h2 *h, struct arena *a, struct http_response *ret);
// Fields that mean nothing behind a body are left out.
const char *h2_block_trailers(struct h2 *h, struct arena *a, struct headers *ret);

struct h2_out { // a head being written
    nghttp2_nv fixed[64], *v;
    size_t n, cap;
};
void h2_out_begin(struct h2_out *o, size_t n_fields);
// name is a constant in lower case.
void h2_out_put(struct h2_out *o, struct str name, struct str value);
// All fields of list but those which the framing or the connection owns; names in lower case. What had to be changed is in h->scratch.
void h2_out_fields(struct h2 *h, struct h2_out *o, const struct headers *list);
// content-length: n ≥ 0. text: where its digits live as long as o.
enum { H2_LENGTH_TEXT = 20 };
void h2_out_length(struct h2_out *o, int64_t n, char text[H2_LENGTH_TEXT]);
void h2_out_end(struct h2_out *o);

#endif
