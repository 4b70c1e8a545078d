// SPDX-License-Identifier: Apache-2.0
// The seam between a connection's bytes and messages, alike for HTTP/1.1 and HTTP/2, on the server (downstream) and the client
// (upstream) side. A codec sits on a struct conn whose ops it owns; a codec stream is one exchange. Sending never blocks: bytes go to
// the connection's buffer, and back-pressure comes as on_high / on_low of the stream.
//
// Threads: all on the connection's loop. Re-entrancy: callbacks may call any codec function, also reset or destroy. on_high is the
// only callback that may come from inside a codec_send_* call.
//
// Tunnels: after a 101, or a 2xx to CONNECT, was sent (server) or heard (client), the stream carries raw bytes both ways with
// codec_send_data and on_data, although the request had ended before; end = half-close, behind which a CONNECT waits for the other side's end
// while a server's upgraded stream is over with its own end. An HTTP/1 connection closes afterwards. In HTTP/2
// an upgrade is an extended CONNECT (RFC 8441): its owner sees GET with `upgrade` and 101, as in HTTP/1; a server stream refuses to answer
// one with 2xx. What comes in before the switch waits in the codec.
#ifndef LIB_HTTP_CODEC_H
#define LIB_HTTP_CODEC_H

#include "lib/http/h1_parser.h"
#include "lib/http/h2_opts.h"
#include "lib/net/conn.h"

struct codec;        // one connection's protocol state
struct codec_stream; // one exchange on it; owned by the codec, valid until on_close of the stream returned

enum codec_reset {
    CODEC_RESET_LOCAL,            // we gave up
    CODEC_RESET_REMOTE,           // RST_STREAM, or the peer closed in the middle
    CODEC_RESET_REFUSED,          // peer says it was not processed (REFUSED_STREAM): safe to retry
    CODEC_RESET_CONNECTION,       // the connection broke (conn->close_reason says how)
    CODEC_RESET_BEFORE_REQUEST,   // a reused connection closed before any byte of the answer: RFC 9110 §9.2.2 decides on a retry
    CODEC_RESET_PROTOCOL,         // the peer's bytes were not acceptable; detail says why
    CODEC_RESET_OVERFLOW,         // a limit of ours
    CODEC_RESET_GOAWAY,           // the peer's GOAWAY says that it has not looked at it (RFC 9113 §6.8): may be sent again, whatever the method
};

// What the user of a stream hears. Unset = ignored. `owner` is what codec_stream_set_owner stored.
struct codec_stream_ops {
    // Client side: the answer's head. For 1xx (other than 101) it comes with resp->status < 200 and more heads follow.
    void (*on_response)(struct codec_stream *s, struct http_response *resp);
    // Body bytes; the callee moves what it takes out of data, the rest is dropped. end: last bytes (data may be empty).
    void (*on_data)(struct codec_stream *s, struct buf *data, bool end);
    // Trailers; the message ends with them.
    void (*on_trailers)(struct codec_stream *s, struct headers *trailers);
    // More than the high mark waits to be sent: stop feeding; on_low follows.
    void (*on_high)(struct codec_stream *s);
    void (*on_low)(struct codec_stream *s);
    // The stream ended before both sides were complete. Then on_close. (Not called when the server's own answer was complete before
    // the request's body was: the codec then reads a small rest away or closes the connection, and only on_close comes.)
    void (*on_reset)(struct codec_stream *s, enum codec_reset why, const char *detail);
    // Last callback, after completion or reset; s is freed afterwards. Comes in the same turn, never from inside codec_send_*,
    // codec_stream_reset or another function of this header.
    void (*on_close)(struct codec_stream *s);
};

// What the owner of the codec hears.
struct codec_ops {
    // Server side: a request's head arrived. The callee sets ops and owner on s before it returns. req lives in req->headers.arena,
    // which the callee provides through get_arena.
    void (*on_request)(struct codec *c, struct codec_stream *s, struct http_request *req);
    // Where the next request's (server) head shall live; called before parsing begins. The arena is the callee's.
    struct arena *(*get_arena)(struct codec *c);
    // The bytes were not HTTP: the server side answers by itself with status (400, 431, …) in its protocol and then closes, the
    // owner only logs and counts. detail is static text.
    void (*on_bad_request)(struct codec *c, int status, const char *detail);
    // Client side: the peer will accept no new streams (GOAWAY, Connection: close seen).
    void (*on_goaway)(struct codec *c);
    // A stream finished: capacity changed, or the connection became idle (codec_active() == 0). Also when a client's connection opened
    // after the codec was put on it, and when codec_settled becomes true.
    void (*on_idle)(struct codec *c);
    // The connection is gone. Streams were reset before. The owner calls codec_free (may do so right here).
    void (*on_conn_close)(struct codec *c, enum conn_close why);
};

struct codec_opts {
    const struct h1_limits *h1;    // NULL = default; borrowed for the codec's life
    enum h1_names h1_names;        // how names of fields are written
    const struct h2_opts *h2;      // NULL = default; borrowed likewise
    uint64_t head_timeout_ms;      // h2 server: a request's head that is begun; 0 = 15 s
    uint32_t max_concurrent_streams; // server h2; 0 = default
    uint32_t stream_window, conn_window; // h2; 0 = default
    bool allow_connect; // h2 server: extended CONNECT (RFC 8441) is offered
    bool half_close_ok; // h1 server: a client that ended its side still gets its answer (admin pages). Off: its end cancels the
                        // request (CODEC_RESET_REMOTE), as Envoy does
};

// Takes conn (its ops and owner are replaced). HTTP/1.1 server; bytes already in conn->in are parsed on the next turn task or at once.
struct codec *codec_h1_server(struct conn *conn, const struct codec_ops *ops, void *owner, const struct codec_opts *o);
struct codec *codec_h1_client(struct conn *conn, const struct codec_ops *ops, void *owner, const struct codec_opts *o);
// HTTP/2 (RFC 9113): many streams at a time. Refused or abused connections end with GOAWAY; malformed messages with RST_STREAM and
// on_bad_request. A header list over the limits of o->h1 is answered with 431. Server streams close (on_close) when the answer has left
// for the connection. Upgrades: see Tunnels above.
struct codec *codec_h2_server(struct conn *conn, const struct codec_ops *ops, void *owner, const struct codec_opts *o);
struct codec *codec_h2_client(struct conn *conn, const struct codec_ops *ops, void *owner, const struct codec_opts *o);

// Not HTTP: the upstream side of a CONNECT that ends here. Its one exchange hears 200 as soon as a request is "sent", of which the server sees
// nothing, and is a tunnel from there on.
struct codec *codec_raw_client(struct conn *conn, const struct codec_ops *ops, void *owner);

void *codec_owner(const struct codec *c);
struct conn *codec_conn(const struct codec *c);
enum http_version codec_version(const struct codec *c);
// Streams now open.
uint32_t codec_active(const struct codec *c);
// Client: whether codec_new_stream may be called now.
bool codec_can_open(const struct codec *c);
// Client: whether the peer's limits are known. An HTTP/2 server says how many streams it takes in its first frame; until then only one is
// opened, so that none is refused. on_idle tells when it is known.
bool codec_settled(const struct codec *c);
// Client: a new exchange; head, body and trailers are sent with the functions below. arena: where the response head shall live,
// valid until on_close. NULL when !codec_can_open.
struct codec_stream *codec_new_stream(struct codec *c, const struct codec_stream_ops *ops, void *owner, struct arena *arena);
// No new requests after the current ones: h1 answers with Connection: close, h2 sends GOAWAY; closes when idle.
void codec_drain(struct codec *c);
// HTTP/1 server with nothing under way: frees the codec and leaves the connection to the caller, who sets its ops and owner at once and puts
// a new codec on it when the next byte comes. False, and nothing happens: not now (an exchange, bytes that wait either way, a drain, the peer's
// end, a callback of this connection up the stack), or another protocol.
bool codec_leave(struct codec *c);
// Frees the codec and its connection (conn_free); streams hear nothing more. Safe inside callbacks.
void codec_free(struct codec *c);

void codec_stream_set(struct codec_stream *s, const struct codec_stream_ops *ops, void *owner);
void *codec_stream_owner(const struct codec_stream *s);
struct codec *codec_stream_codec(const struct codec_stream *s);
uint64_t codec_stream_id(const struct codec_stream *s);
// Client. r->end_stream: no body follows; r->content_length decides the framing in HTTP/1.
void codec_send_request(struct codec_stream *s, const struct http_request *r);
// Server. status < 200 (100, 103): informational, more follows.
void codec_send_response(struct codec_stream *s, const struct http_response *r);
// Moves all of data. end: message complete. More or less than the announced content-length breaks the message: the connection closes
// and the stream with it (on_close). Ignored on a stream that is over or has no head yet.
void codec_send_data(struct codec_stream *s, struct buf *data, bool end);
void codec_send_trailers(struct codec_stream *s, const struct headers *trailers);
// Writes are gathered: bytes go out with codec_flush or at the latest when the callback that caused them returns.
void codec_flush(struct codec *c);
// Gives up on the stream (h2: RST_STREAM; h1: the connection cannot be reused and closes). on_reset is not called, on_close is,
// later in this turn; codec_stream_set(s, NULL, NULL) before it when the owner does not live that long.
void codec_stream_reset(struct codec_stream *s, enum codec_reset why);
// Stop / go on delivering body of this stream (back-pressure from the other side). A client's stream that was stopped before its answer began
// still hears the head, and its server is kept from sending much behind it.
void codec_stream_pause(struct codec_stream *s);
void codec_stream_resume(struct codec_stream *s);
// The server stream's request is complete / its response is complete.
bool codec_stream_remote_done(const struct codec_stream *s);
bool codec_stream_local_done(const struct codec_stream *s);
// Bytes of this message on the wire, head included, for logs: received and sent.
uint64_t codec_stream_bytes_in(const struct codec_stream *s);
uint64_t codec_stream_bytes_out(const struct codec_stream *s);

#endif
