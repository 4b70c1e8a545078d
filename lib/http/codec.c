// SPDX-License-Identifier: Apache-2.0
#include "lib/http/codec_impl.h"

const struct codec_stream_ops codec_no_stream_ops = { 0 };

void *codec_owner(const struct codec *c)
{
    return c->owner;
}

struct conn *codec_conn(const struct codec *c)
{
    return c->conn;
}

enum http_version codec_version(const struct codec *c)
{
    return c->impl->version;
}

uint32_t codec_active(const struct codec *c)
{
    return c->active;
}

bool codec_can_open(const struct codec *c)
{
    return c->impl->can_open && c->impl->can_open(c);
}

bool codec_settled(const struct codec *c)
{
    return !c->impl->settled || c->impl->settled(c);
}

struct codec_stream *codec_new_stream(struct codec *c, const struct codec_stream_ops *ops, void *owner, struct arena *arena)
{
    return codec_can_open(c) ? c->impl->new_stream(c, ops ? ops : &codec_no_stream_ops, owner, arena) : NULL;
}

void codec_drain(struct codec *c)
{
    c->impl->drain(c);
}

bool codec_leave(struct codec *c)
{
    return c->impl->leave && c->impl->leave(c);
}

void codec_free(struct codec *c)
{
    if (c) {
        c->impl->destroy(c);
    }
}

void codec_stream_set(struct codec_stream *s, const struct codec_stream_ops *ops, void *owner)
{
    s->ops = ops ? ops : &codec_no_stream_ops;
    s->owner = owner;
}

void *codec_stream_owner(const struct codec_stream *s)
{
    return s->owner;
}

struct codec *codec_stream_codec(const struct codec_stream *s)
{
    return s->codec;
}

uint64_t codec_stream_id(const struct codec_stream *s)
{
    return s->id;
}

void codec_send_request(struct codec_stream *s, const struct http_request *r)
{
    s->codec->impl->send_request(s, r);
}

void codec_send_response(struct codec_stream *s, const struct http_response *r)
{
    s->codec->impl->send_response(s, r);
}

void codec_send_data(struct codec_stream *s, struct buf *data, bool end)
{
    s->codec->impl->send_data(s, data, end);
}

void codec_send_trailers(struct codec_stream *s, const struct headers *trailers)
{
    s->codec->impl->send_trailers(s, trailers);
}

void codec_flush(struct codec *c)
{
    c->impl->flush(c);
}

void codec_stream_reset(struct codec_stream *s, enum codec_reset why)
{
    s->codec->impl->reset(s, why);
}

void codec_stream_pause(struct codec_stream *s)
{
    s->codec->impl->pause(s);
}

void codec_stream_resume(struct codec_stream *s)
{
    s->codec->impl->resume(s);
}

bool codec_stream_remote_done(const struct codec_stream *s)
{
    return s->remote_done;
}

bool codec_stream_local_done(const struct codec_stream *s)
{
    return s->local_done;
}

uint64_t codec_stream_bytes_in(const struct codec_stream *s)
{
    return s->bytes_in;
}

uint64_t codec_stream_bytes_out(const struct codec_stream *s)
{
    return s->bytes_out;
}
