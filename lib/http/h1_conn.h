// SPDX-License-Identifier: Apache-2.0
// Private to lib/http: what the HTTP/1 server and client codec share: the parse loop, sending of bodies, watermarks, closing.
//
// One exchange at a time. Nothing that ends a stream or the connection happens inside the caller's call: functions leave marks
// (exchange over, connection gone, run again) and h1_settle acts on them when the connection's callback returns, or from a task at
// the end of the turn.
#ifndef LIB_HTTP_H1_CONN_H
#define LIB_HTTP_H1_CONN_H

#include "lib/http/codec_impl.h"
#include "lib/http/h1_parser.h"

enum {
    H1_PIPELINE_MAX = 64 * 1024,   // bytes kept of further requests while one is being answered; then reading stops
    H1_DRAIN_MAX = 64 * 1024,      // rest of a request body that is read away after an early answer, to keep the connection
    H1_LINGER_MAX = 1024 * 1024,   // input thrown away while a closing connection waits for the peer's end
    H1_LINGER_MS = 1000,           // how long it waits
    H1_STALL_MS = 30000,           // a closing connection whose peer takes nothing for this long is cut; the kernel's buffer may hide
                                   // progress of a slow one for a while
    H1_INFORMATIONAL_MAX = 16,     // 1xx heads in front of one answer
};

enum h1_out { // framing of what we send
    H1_OUT_NO_HEAD, // nothing sent yet
    H1_OUT_EMPTY,   // no body on the wire, whatever the owner sends (HEAD, 204, 304, end with the head)
    H1_OUT_LENGTH,
    H1_OUT_CHUNKED,
    H1_OUT_CLOSE,   // the connection's end ends the message
    H1_OUT_TUNNEL,
};

enum h1_fate { // of the connection once the exchange is over
    H1_FATE_KEEP,
    H1_FATE_CLOSE,  // after what is queued was sent
    H1_FATE_LINGER, // as CLOSE, but unread input would make the kernel send RST: wait for the peer's end
    H1_FATE_ABORT,  // at once
};

struct h1;

struct h1_exchange {
    struct codec_stream s;
    struct h1_parser p;
    struct arena *arena;   // owner's
    struct arena scratch;  // trailers that are read away
    uint64_t out_left;     // H1_OUT_LENGTH
    size_t discard_left;   // bytes that may still be read away when told
    uint8_t out;           // enum h1_out
    uint8_t fate;          // enum h1_fate; only grows worse
    uint8_t informational; // 1xx heads heard
    bool opened;           // the owner knows s
    bool told;             // on_close was called: input is read away, the arena is gone
    bool over;             // on_close is due, then the exchange goes
    bool continue_sent;    // server: a 100 went out
    bool flushed;          // client: the request's head was handed to the kernel
    bool tunnel;
    bool head_request;
    bool head_heard;       // client: the final one
    bool head_due;         // client: paused, but the head is still wanted
};

struct h1_side {
    // Bytes wait and there is no exchange. False: not now.
    bool (*begin)(struct h1 *h);
    void (*on_head)(struct h1 *h, struct h1_exchange *x);
    // The peer's message is complete and was delivered.
    void (*on_end)(struct h1 *h, struct h1_exchange *x);
    // The peer's bytes are not acceptable, or ended too early (p.error says which; H1_OK: before the first byte).
    void (*on_failed)(struct h1 *h, struct h1_exchange *x);
    // The peer ended its side and no message of its is under way.
    void (*on_eof)(struct h1 *h);
    // The exchange ended on our side alone.
    void (*on_early)(struct h1 *h, struct h1_exchange *x);
    // x is freed when this returns.
    void (*finished)(struct h1 *h, struct h1_exchange *x);
};

struct h1_impl {
    struct codec_impl base; // first
    const struct h1_side *side;
};

struct h1_closing {        // no exchange any more; waiting for the flush
    struct h1 *h;
    struct timer timer;
    uint64_t progress;     // conn->bytes_out at the last tick
    size_t linger_left;
    bool lingering;
};

struct h1 { // small: an idle connection has one; what an exchange needs is in h1_exchange
    struct codec c;
    const struct h1_limits *limits;
    struct h1_exchange *x; // owned; NULL when idle
    struct h1_closing *closing; // owned; NULL = not closing
    struct loop_task task;
    uint32_t exchanges;    // finished ones
    uint16_t depth;        // callbacks of conn or task under way
    uint8_t gone_why;      // enum conn_close
    uint8_t names;         // enum h1_names
    bool eof : 1, draining : 1, half_close_ok : 1;
    bool above_high : 1;
    bool read_paused : 1;  // CONN_PAUSE_OWNER set by us
    bool rerun : 1;        // h1_run is due
    bool gone_due : 1, gone : 1; // on_conn_close is due / was called
    bool reset_on_free : 1;
};

static inline const struct h1_side *h1_side_of(const struct h1 *h)
{
    return ((const struct h1_impl *)(const void *)h->c.impl)->side;
}

static inline struct h1 *h1_of(struct codec *c)
{
    return (struct h1 *)(void *)c;
}
static inline struct h1_exchange *h1_exchange_of(struct codec_stream *s)
{
    return (struct h1_exchange *)(void *)s;
}

// Takes conn.
struct h1 *h1_new(struct conn *conn, const struct h1_impl *impl, const struct codec_ops *ops, void *owner, const struct codec_opts *o);
struct h1_exchange *h1_exchange_new(struct h1 *h, bool is_request, struct arena *arena);
// Frees an exchange that the owner never heard of.
void h1_exchange_drop(struct h1 *h);
// Settles later in this turn (or when the running callback returns).
void h1_kick(struct h1 *h);
// x ends; the connection's fate becomes at least this bad.
void h1_over(struct h1 *h, struct h1_exchange *x, enum h1_fate fate);
// As h1_over after telling the owner on_reset.
void h1_reset(struct h1 *h, struct h1_exchange *x, enum codec_reset why, const char *detail, enum h1_fate fate);
// on_conn_close is due.
void h1_gone(struct h1 *h, enum conn_close why);
// Starts closing an idle connection.
void h1_close(struct h1 *h, enum h1_fate fate);
// Behind bytes appended to conn->out by x.
void h1_sent(struct h1 *h, struct h1_exchange *x, size_t n);
// Takes CONN_PAUSE_OWNER off.
void h1_resume_reading(struct h1 *h);
// Our message is complete.
void h1_local_done(struct h1 *h, struct h1_exchange *x);
// Lets the parser's trailers go to the scratch arena: the owner's is gone.
void h1_detach(struct h1 *h, struct h1_exchange *x);

// Shared entries of codec_impl.
void h1_send_data(struct codec_stream *s, struct buf *data, bool end);
void h1_send_trailers(struct codec_stream *s, const struct headers *trailers);
void h1_flush(struct codec *c);
void h1_stream_reset(struct codec_stream *s, enum codec_reset why);
void h1_pause(struct codec_stream *s);
void h1_resume(struct codec_stream *s);
void h1_drain(struct codec *c);
void h1_destroy(struct codec *c);
bool h1_leave(struct codec *c);

#endif
