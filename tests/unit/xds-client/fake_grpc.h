// SPDX-License-Identifier: Apache-2.0
// Stands in for lib/grpc: the test is the server, and no thread, socket or clock is involved. Include it once per program.
#ifndef TESTS_UNIT_XDS_CLIENT_FAKE_GRPC_H
#define TESTS_UNIT_XDS_CLIENT_FAKE_GRPC_H

#include <errno.h>

#include "lib/base/mem.h"
#include "lib/grpc/grpc.h"
#include "tests/unit/xds-client/helpers.h"

struct grpc_chan {
    int unused;
};

struct grpc_stream {
    const struct grpc_stream_ops *ops;
    void *owner;
};

enum { FAKE_SENT_MAX = 64 };

static struct {
    int channels, streams; // made so far
    int live_channels;
    struct grpc_stream *stream; // the open one
    struct arena a;
    struct str sent[FAKE_SENT_MAX]; // requests of the open stream
    size_t n_sent, n_read;
    struct str root_pem, target, method; // of the last channel and stream
    char md[512];                        // "key=value;" of the last stream
    int send_result;
} fake;

struct grpc_chan *grpc_chan_new(struct loop *l, const struct grpc_chan_opts *o, struct err *err)
{
    (void)l;
    (void)err;
    fake.channels++;
    fake.live_channels++;
    fake.root_pem = arena_str(&fake.a, o->root_pem);
    fake.target = arena_str(&fake.a, o->target);
    return mem_new(struct grpc_chan);
}

void grpc_chan_free(struct grpc_chan *c)
{
    assert_null(fake.stream);
    fake.live_channels--;
    free(c);
}

struct grpc_stream *grpc_stream_new(struct grpc_chan *c, const char *method, const struct grpc_md *md, size_t n, int deadline_ms,
                                    const struct grpc_stream_ops *ops, void *owner)
{
    (void)c;
    (void)deadline_ms;
    assert_null(fake.stream);
    fake.streams++;
    fake.n_sent = fake.n_read = 0;
    fake.md[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        size_t at = strlen(fake.md);
        snprintf(fake.md + at, sizeof(fake.md) - at, "%.*s=%.*s;", STR_FMT(md[i].key), STR_FMT(md[i].value));
    }
    fake.method = str_c(method);
    fake.stream = mem_new(struct grpc_stream);
    fake.stream->ops = ops;
    fake.stream->owner = owner;
    return fake.stream;
}

void *grpc_stream_owner(const struct grpc_stream *s)
{
    return s->owner;
}

int grpc_stream_send(struct grpc_stream *s, struct str bytes)
{
    assert_ptr_equal(s, fake.stream);
    if (fake.send_result) {
        return fake.send_result;
    }
    assert_true(fake.n_sent < FAKE_SENT_MAX);
    fake.sent[fake.n_sent++] = arena_str(&fake.a, bytes);
    return 0;
}

void grpc_stream_cancel(struct grpc_stream *s)
{
    assert_ptr_equal(s, fake.stream);
    fake.stream = NULL;
    free(s);
}

// ---- the server's side ----

static inline void fake_end(int status, const char *message)
{
    struct grpc_stream *s = fake.stream;
    fake.stream = NULL;
    s->ops->on_end(s, status, str_c(message));
    free(s);
}

static inline void fake_answer(struct str bytes)
{
    fake.stream->ops->on_message(fake.stream, bytes);
}

// The next request that was not read yet, NULL when there is none.
static inline delta_request *fake_next(void)
{
    return fake.n_read < fake.n_sent ? read_delta(&fake.a, fake.sent[fake.n_read++]) : NULL;
}

static inline void fake_fini(void)
{
    assert_null(fake.stream);
    assert_int_equal(fake.live_channels, 0);
    arena_fini(&fake.a);
    memset(&fake, 0, sizeof(fake));
}

#endif
