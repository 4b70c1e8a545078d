// SPDX-License-Identifier: Apache-2.0
// What stands between a connection's plain bytes and its socket: nothing (raw), TLS, later tunnels. A connection owns at most
// one transport, which may own a further one below it. The transport reads raw bytes with conn_raw_read and writes with
// conn_raw_write, so bytes that listener filters have already taken from the socket are seen first.
#ifndef LIB_NET_TRANSPORT_H
#define LIB_NET_TRANSPORT_H

#include "lib/base/buf.h"

struct conn;

enum io {
    IO_OK,    // done, or progress was made
    IO_AGAIN, // nothing more until the socket is ready again
    IO_EOF,   // orderly end of the peer's bytes
    IO_ERROR, // broken; conn->close_detail says why
};

struct transport {
    const struct transport_ops *ops;
    struct conn *conn; // owner
};

struct transport_ops {
    const char *name; // "tls"
    // Called when the socket is connected and on each readiness until it returns IO_OK or IO_ERROR.
    enum io (*handshake)(struct transport *t);
    // Appends plain bytes to in, about want. IO_OK: some came and more may follow; IO_AGAIN: nothing more now (bytes may
    // have been appended); IO_EOF, IO_ERROR.
    enum io (*read)(struct transport *t, struct buf *in, size_t want);
    // Takes plain bytes from out. IO_OK: all taken and flushed; IO_AGAIN: call again when writable; IO_ERROR.
    enum io (*write)(struct transport *t, struct buf *out);
    // Tells the peer that no more bytes come (TLS close_notify). IO_OK, IO_AGAIN, IO_ERROR.
    enum io (*shutdown)(struct transport *t);
    // True when read must be called again though the socket may be silent (bytes buffered inside). Unset = never.
    bool (*pending)(struct transport *t);
    void (*destroy)(struct transport *t); // frees t
};

#endif
