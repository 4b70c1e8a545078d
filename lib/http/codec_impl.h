// SPDX-License-Identifier: Apache-2.0
// Private to lib/http: what every protocol's codec and stream begin with, and the table codec.c dispatches on.
#ifndef LIB_HTTP_CODEC_IMPL_H
#define LIB_HTTP_CODEC_IMPL_H

#include "lib/http/codec.h"

struct codec_impl {
    enum http_version version;
    bool (*can_open)(const struct codec *c);
    bool (*settled)(const struct codec *c); // unset = always
    struct codec_stream *(*new_stream)(struct codec *c, const struct codec_stream_ops *ops, void *owner, struct arena *arena);
    void (*send_request)(struct codec_stream *s, const struct http_request *r);
    void (*send_response)(struct codec_stream *s, const struct http_response *r);
    void (*send_data)(struct codec_stream *s, struct buf *data, bool end);
    void (*send_trailers)(struct codec_stream *s, const struct headers *trailers);
    void (*flush)(struct codec *c);
    void (*reset)(struct codec_stream *s, enum codec_reset why);
    void (*pause)(struct codec_stream *s);
    void (*resume)(struct codec_stream *s);
    void (*drain)(struct codec *c);
    void (*destroy)(struct codec *c); // codec_free: the connection too
    bool (*leave)(struct codec *c);   // codec_leave; unset = never
};

struct codec {
    const struct codec_impl *impl;
    const struct codec_ops *ops; // borrowed
    void *owner;
    struct conn *conn;           // owned
    uint32_t active;             // streams the owner knows and that are not closed
    bool freed;                  // codec_free was called; the memory lives to the end of the turn
};

struct codec_stream {
    struct codec *codec;
    const struct codec_stream_ops *ops; // never NULL
    void *owner;
    uint64_t id;
    uint64_t bytes_in, bytes_out;
    bool remote_done, local_done, paused;
};

extern const struct codec_stream_ops codec_no_stream_ops; // hears nothing

#endif
