// SPDX-License-Identifier: Apache-2.0
// One non-blocking byte stream on one loop: buffers, watermarks, half-close, a transport, and why it ended.
//
// Life: CONNECTING (client only) → HANDSHAKING (with a transport) → OPEN → CLOSED.
// Destruction: conn_free may be called at any time, also inside the connection's own callbacks: the socket is closed at once,
// no callback follows, and the memory goes at the end of the loop's turn. When on_close has been called the connection is
// CLOSED, and its owner must still call conn_free.
#ifndef LIB_NET_CONN_H
#define LIB_NET_CONN_H

#include "lib/base/buf.h"
#include "lib/event/loop.h"
#include "lib/net/addr.h"
#include "lib/net/race.h"
#include "lib/net/socket.h"
#include "lib/net/transport.h"

enum conn_state { CONN_CONNECTING, CONN_HANDSHAKING, CONN_OPEN, CONN_CLOSED };

enum conn_close {
    CONN_CLOSE_NONE,
    CONN_CLOSE_LOCAL,           // we closed it
    CONN_CLOSE_REMOTE,          // orderly end from the peer (both directions done, or EOF where the owner does not do half-close)
    CONN_CLOSE_RESET,           // RST or another socket error
    CONN_CLOSE_CONNECT_FAIL,    // refused, unreachable, no descriptors
    CONN_CLOSE_CONNECT_TIMEOUT, // TCP or handshake did not finish in time
    CONN_CLOSE_TLS,             // handshake or record failed; close_detail says why
};

struct conn;

// Callbacks run on the loop's thread, never from inside the conn_* function that caused them, except where said. Unset = ignored.
struct conn_ops {
    // TCP connected and handshake done. (For accepted connections without transport: not called.)
    void (*on_open)(struct conn *c);
    // New bytes are in c->in. The owner consumes what it can; what stays is kept, on_data comes again only with new bytes.
    void (*on_data)(struct conn *c);
    // The peer will send no more; c->in may still hold bytes. Unset: the connection closes with CONN_CLOSE_REMOTE.
    void (*on_eof)(struct conn *c);
    // c->out fell to the low mark after having been at or above the high mark.
    void (*on_low)(struct conn *c);
    // c->out is empty and all was handed to the kernel.
    void (*on_drained)(struct conn *c);
    // It is CLOSED. Called at most once, never after conn_free.
    void (*on_close)(struct conn *c, enum conn_close why);
};

enum conn_pause { // reasons to stop reading; reading goes on when none is left
    CONN_PAUSE_FLOW = 1, // back-pressure from the other side
    CONN_PAUSE_OWNER = 2,
};

struct conn {
    // set by the owner, any time
    const struct conn_ops *ops;
    void *owner;             // borrowed
    uint32_t high, low;      // watermarks of out in bytes; defaults CONN_HIGH_DEFAULT, high/2
    // read by the owner
    struct loop *loop;
    enum conn_state state : 8;
    enum conn_close close_reason : 8;
    short connect_errno;      // positive errno of a failed connect or of a reset
    bool eof_in : 1;          // peer sent its end
    bool eof_out : 1;         // we asked for our end (conn_shutdown)
    bool sips : 1;            // set by the owner: reads at most CONN_SIP_BYTES at once, for who wants a head and nothing behind it yet
    // private; an idle connection is small (docs/performance.md), so what only some need is on the heap
    bool readable : 1, writable : 1; // latches: the kernel may have bytes, may take bytes
    bool hup : 1;             // end or error was signalled: a short read does not mean that nothing follows
    bool bulk : 1;            // the last read filled its slice
    bool above_high : 1, owe_low : 1, owe_drained : 1;
    bool writing_blocked : 1; // the transport holds bytes for the socket
    bool closing : 1;         // conn_close_after_flush
    bool linger : 1;          // wait for the peer's end behind our FIN
    bool fin_sent : 1, freed : 1;
    uint8_t pause;            // enum conn_pause bits
    uint8_t broken;           // enum conn_close: why the next task closes, NONE = it does not
    // read by the owner
    const char *close_detail; // static or owned by the transport; NULL when none. For logs: %UPSTREAM_TRANSPORT_FAILURE_REASON%
    struct buf in;            // plain bytes read, not yet consumed
    struct buf out;           // plain bytes to write
    struct addr peer, local;
    struct transport *transport; // owned; NULL = raw
    uint64_t id;              // unique in the process
    uint64_t bytes_in, bytes_out; // plain bytes since the start
    uint64_t active_ms;       // loop time of the last byte in or out
    // private
    struct loop_fd fd;
    struct loop_task task; // callbacks owed, reading to go on, destruction
    struct conn_rare *rare; // owned; what is needed on the way to OPEN and at the end; NULL = nothing of it
};

enum { CONN_HIGH_DEFAULT = 256 * 1024, CONN_READ_BUDGET = 256 * 1024 /* bytes per turn before others get their turn */,
       CONN_SIP_BYTES = 256 };

// Takes fd (accepted, non-blocking). The connection is OPEN and reads at once. peer/local are copied.
struct conn *conn_accepted(struct loop *l, int fd, const struct addr *peer, const struct addr *local, const struct conn_ops *ops,
                           void *owner);
// Starts connecting. Never NULL: an immediate failure is reported by on_close in a later turn task. timeout_ms covers TCP and
// handshake, 0 = none. If transport is wanted, call conn_set_transport before returning to the loop.
struct conn *conn_connect(struct loop *l, const struct addr *to, const struct socket_connect_opts *o, uint64_t timeout_ms,
                          const struct conn_ops *ops, void *owner);
// The same to one of several addresses, whichever answers first (lib/net/race.h); n is 1 to RACE_MAX. peer becomes the one that did.
struct conn *conn_connect_any(struct loop *l, const struct race_target *v, size_t n, uint64_t timeout_ms, const struct conn_ops *ops,
                              void *owner);
// Takes t. On an accepted connection the state becomes HANDSHAKING, unconsumed c->in is given to the transport as raw bytes,
// on_open follows the handshake; timeout_ms (0 = none) limits the handshake.
void conn_set_transport(struct conn *c, struct transport *t, uint64_t timeout_ms);
// Raw bytes that the peer gets before anything else, ahead of a handshake too (a PROXY header): copied, sent when connected, not counted in
// bytes_out. Only while CONNECTING; at most CONN_PREFACE_MAX, which a fresh socket always takes at once.
enum { CONN_PREFACE_MAX = 4096 };
void conn_set_preface(struct conn *c, const void *p, size_t n);
// Moves all bytes of b to c->out and tries to send at once. May only mark the connection broken; on_close then follows from a task.
void conn_write(struct conn *c, struct buf *b);
void conn_write_bytes(struct conn *c, const void *p, size_t n);
// Sends what the owner appended to c->out directly. Call once per turn's work rather than once per piece.
void conn_flush(struct conn *c);
static inline bool conn_above_high(const struct conn *c)
{
    return c->out.len >= c->high;
}
// Half-close: after out has drained, the peer sees our end (FIN, after close_notify with TLS).
void conn_shutdown(struct conn *c);
// Stops / goes on reading for this reason. Going on re-reads at the end of the turn when something waited.
void conn_pause_read(struct conn *c, enum conn_pause why);
void conn_resume_read(struct conn *c, enum conn_pause why);
// Sends what is in out, then our end, waits for the peer's end or until linger_ms from now, whichever is first, and closes:
// on_close(CONN_CLOSE_LOCAL). Waiting keeps the kernel from throwing away what the peer has not read yet (a close with unread
// input resets). linger_ms 0: closes as soon as out has drained, without waiting. Input is discarded meanwhile.
void conn_close_after_flush(struct conn *c, uint64_t linger_ms);
// See "Destruction" above. reset: RST rather than FIN.
void conn_free(struct conn *c);
void conn_free_reset(struct conn *c);

// For transports: raw bytes. conn_raw_read: >0 bytes, 0 = EOF, -EAGAIN, other negative errno.
ssize_t conn_raw_read(struct conn *c, void *p, size_t n);
ssize_t conn_raw_write(struct conn *c, const void *p, size_t n);

#endif
