// SPDX-License-Identifier: Apache-2.0
// Client half of the fence. All state lives on the loop's thread; gRPC core gets the embedded operations and gives them back
// through the mailbox. A stream's memory goes when the caller has let go of it and no operation is out.
#include <errno.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"
#include "lib/base/scope.h"
#include "lib/grpc/core.h"

enum {
    RECONNECT_MIN_MS = 200,
    RECONNECT_MAX_MS = 5000, // gRPC's own two minutes would outlast the caller's back-off
    METADATA_MAX_BYTES = 64 * 1024,
};

struct grpc_chan {
    struct loop *loop;
    grpc_channel *core; // owned; NULL after grpc_chan_free
    struct core_user user;
    unsigned refs;      // the caller and each stream
    struct list streams;
};

struct grpc_stream {
    struct list link;
    struct grpc_chan *chan; // ref
    grpc_core_call *core;   // owned
    const struct grpc_stream_ops *ops;
    void *owner;
    unsigned busy; // operations out, plus one while a callback runs
    bool gone;     // the caller has let go: no callback any more
    bool ended;    // on_end was called
    bool paused, half_close, half_closed, send_failed, got_status, bad_metadata;
    struct core_op start_op, headers_op, status_op, read_op, write_op, early_op;
    grpc_metadata_array md, headers, trailers;
    grpc_byte_buffer *in;
    struct core_queue out;
    grpc_status_code status;
    grpc_slice details;
};

// ---- channel ----

static void chan_unref(struct grpc_chan *c)
{
    if (--c->refs == 0) {
        core_sync();
        free(c);
        grpc_shutdown();
    }
}

static grpc_channel_credentials *credentials(const struct grpc_chan_opts *o)
{
    if (!o->tls) {
        return grpc_insecure_credentials_create();
    }
    scope_free char *root = o->root_pem.n ? str_dup(o->root_pem) : NULL;
    scope_free char *cert = o->cert_pem.n ? str_dup(o->cert_pem) : NULL;
    scope_free char *key = o->key_pem.n ? str_dup(o->key_pem) : NULL;
    grpc_ssl_pem_key_cert_pair pair = { .private_key = key, .cert_chain = cert };
    return grpc_ssl_credentials_create(root, cert && key ? &pair : NULL, NULL, NULL);
}

static grpc_arg int_arg(const char *key, int value)
{
    return (grpc_arg){ .type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value };
}
static grpc_arg text_arg(const char *key, const char *value)
{
    return (grpc_arg){ .type = GRPC_ARG_STRING, .key = (char *)(uintptr_t)key, .value.string = (char *)(uintptr_t)value };
}

static grpc_channel *channel_new(const struct grpc_chan_opts *o, grpc_channel_credentials *creds)
{
    scope_free char *target = str_dup(o->target);
    scope_free char *name = str_dup(o->server_name);
    grpc_arg args[16];
    size_t n = 0;
    args[n++] = int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, GRPC_MESSAGE_MAX_BYTES);
    args[n++] = int_arg(GRPC_ARG_MAX_METADATA_SIZE, METADATA_MAX_BYTES);
    // A new channel is a new connection: new roots, no back-off left over from an older one.
    args[n++] = int_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    args[n++] = int_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_MIN_MS);
    args[n++] = int_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MAX_MS);
    args[n++] = int_arg(GRPC_ARG_ENABLE_RETRIES, 0); // the caller retries, and it would keep copies of messages
    args[n++] = int_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0); // the control plane is reached directly
    args[n++] = int_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    args[n++] = text_arg(GRPC_ARG_PRIMARY_USER_AGENT_STRING, "remora/" REMORA_VERSION);
    if (o->keepalive_ms > 0) {
        args[n++] = int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, o->keepalive_ms);
        args[n++] = int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0); // 0 = as many as keep-alive wants
    }
    if (o->keepalive_timeout_ms > 0) {
        args[n++] = int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, o->keepalive_timeout_ms);
    }
    if (o->tls && o->server_name.n) {
        args[n++] = text_arg(GRPC_SSL_TARGET_NAME_OVERRIDE_ARG, name);
    }
    CHECK(n <= array_len(args));
    grpc_channel_args all = { .num_args = n, .args = args };
    return grpc_channel_create(target, creds, &all);
}

struct grpc_chan *grpc_chan_new(struct loop *l, const struct grpc_chan_opts *o, struct err *err)
{
    if (o->target.n == 0) {
        err_set(err, -EINVAL, "gRPC channel without a target");
        return NULL;
    }
    core_start();
    grpc_channel_credentials *creds = credentials(o);
    if (!creds) {
        err_set(err, -EINVAL, "TLS for %.*s: the roots or the client certificate cannot be used", STR_FMT(o->target));
        return NULL;
    }
    grpc_channel *core = channel_new(o, creds);
    grpc_channel_credentials_release(creds);
    if (!core) {
        err_set(err, -EINVAL, "gRPC channel to %.*s cannot be made", STR_FMT(o->target));
        return NULL;
    }
    struct grpc_chan *c = mem_new(struct grpc_chan);
    grpc_init(); // counted: what is freed from the mailbox may outlive grpc_fence_shutdown
    c->loop = l;
    c->core = core;
    c->refs = 1;
    list_init(&c->streams);
    return c;
}

void grpc_chan_free(struct grpc_chan *c)
{
    if (!c) {
        return;
    }
    list_for_safe (p, &c->streams) {
        grpc_stream_cancel(list_entry(p, struct grpc_stream, link));
    }
    core_wait(&c->user);
    grpc_channel_destroy(c->core);
    c->core = NULL;
    chan_unref(c);
}

// ---- stream ----

static void stream_done(struct grpc_stream *s);
static const struct grpc_stream_ops unary_ops;
static void unary_free(void *u);

static void release(struct grpc_stream *s)
{
    if (--s->busy || !s->gone) {
        return;
    }
    if (s->ops == &unary_ops) {
        unary_free(s->owner); // cancelled before its end
    }
    list_del(&s->link);
    core_queue_clear(&s->out);
    if (s->in) {
        grpc_byte_buffer_destroy(s->in);
    }
    core_md_free(&s->md);
    grpc_metadata_array_destroy(&s->headers);
    grpc_metadata_array_destroy(&s->trailers);
    grpc_slice_unref(s->details);
    if (s->core) {
        grpc_call_unref(s->core);
    }
    chan_unref(s->chan);
    free(s);
}

static void start_batch(struct grpc_stream *s, struct core_op *op, grpc_op *ops, size_t n, void (*done)(struct core_op *, bool))
{
    core_op_begin(op, s->chan->loop, &s->chan->user, done);
    s->busy++;
    grpc_call_error e = grpc_call_start_batch(s->core, ops, n, op, NULL);
    CHECK(e == GRPC_CALL_OK); // anything else is a mistake of ours in the order of operations
}

static void on_write_done(struct core_op *op, bool ok);
static void on_read_done(struct core_op *op, bool ok);

static void write_next(struct grpc_stream *s)
{
    if (s->write_op.active || s->send_failed || s->got_status || s->gone || s->bad_metadata) {
        return;
    }
    grpc_byte_buffer *b = core_queue_front(&s->out);
    if (b) {
        grpc_op op = { .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = b };
        start_batch(s, &s->write_op, &op, 1, on_write_done);
    } else if (s->half_close && !s->half_closed) {
        s->half_closed = true;
        grpc_op op = { .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT };
        start_batch(s, &s->write_op, &op, 1, on_write_done);
    }
}

static void on_write_done(struct core_op *op, bool ok)
{
    struct grpc_stream *s = container_of(op, struct grpc_stream, write_op);
    if (!s->half_closed) {
        core_queue_pop(&s->out);
    }
    s->send_failed = s->send_failed || !ok; // the status tells why
    write_next(s);
    stream_done(s);
    release(s);
}

static void read_next(struct grpc_stream *s)
{
    if (s->read_op.active || s->paused || s->got_status || s->gone || s->bad_metadata) {
        return;
    }
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &s->in };
    start_batch(s, &s->read_op, &op, 1, on_read_done);
}

static void hand_over(void *arg, struct str bytes)
{
    struct grpc_stream *s = arg;
    if (!s->gone && s->ops->on_message) {
        s->ops->on_message(s, bytes);
    }
}

static void on_read_done(struct core_op *op, bool ok)
{
    struct grpc_stream *s = container_of(op, struct grpc_stream, read_op);
    grpc_byte_buffer *b = s->in;
    s->in = NULL;
    bool more = ok && b;
    if (b && !s->gone) {
        more = core_message(b, hand_over, s);
        if (!more && !s->gone) {
            grpc_call_cancel_with_status(s->core, GRPC_STATUS_INTERNAL, "received message cannot be decoded", NULL);
        }
    } else if (b) {
        grpc_byte_buffer_destroy(b);
    }
    if (more) {
        read_next(s);
    }
    stream_done(s);
    release(s);
}

static void on_plain_done(struct grpc_stream *s, bool ok)
{
    s->send_failed = s->send_failed || !ok;
    stream_done(s);
    release(s);
}
static void on_start_done(struct core_op *op, bool ok)
{
    on_plain_done(container_of(op, struct grpc_stream, start_op), ok);
}
static void on_headers_done(struct core_op *op, bool ok)
{
    (void)ok; // failure: the status follows
    on_plain_done(container_of(op, struct grpc_stream, headers_op), true);
}
static void on_status_done(struct core_op *op, bool ok)
{
    struct grpc_stream *s = container_of(op, struct grpc_stream, status_op);
    s->got_status = true;
    if (!ok && s->status == GRPC_STATUS_OK) {
        s->status = GRPC_STATUS_UNKNOWN;
    }
    stream_done(s);
    release(s);
}

// The end is told once the status is here and no message can follow. Held by its caller's busy count.
static void stream_done(struct grpc_stream *s)
{
    if (!s->got_status || s->read_op.active || s->gone) {
        return;
    }
    s->ended = true;
    s->gone = true;
    if (s->ops->on_end) {
        s->ops->on_end(s, (int)s->status, core_slice_str(&s->details));
    }
}

static void start_call(struct grpc_stream *s, const char *method, int deadline_ms)
{
    gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
    if (deadline_ms > 0) {
        deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(deadline_ms, GPR_TIMESPAN));
    }
    grpc_slice m = grpc_slice_from_copied_string(method);
    s->core = grpc_channel_create_call(s->chan->core, NULL, GRPC_PROPAGATE_DEFAULTS, core_cq(), m, NULL, deadline, NULL);
    grpc_slice_unref(m);
    CHECK(s->core);
    grpc_op start = { .op = GRPC_OP_SEND_INITIAL_METADATA,
                      .data.send_initial_metadata = { .count = s->md.count, .metadata = s->md.metadata } };
    start_batch(s, &s->start_op, &start, 1, on_start_done);
    grpc_op headers = { .op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &s->headers };
    start_batch(s, &s->headers_op, &headers, 1, on_headers_done);
    grpc_op status = { .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                       .data.recv_status_on_client = { .trailing_metadata = &s->trailers,
                                                       .status = &s->status,
                                                       .status_details = &s->details } };
    start_batch(s, &s->status_op, &status, 1, on_status_done);
    read_next(s);
}

// A call that never reached gRPC core ends through the mailbox like all others.
static void on_early_end(struct core_op *op, bool ok)
{
    (void)ok;
    struct grpc_stream *s = container_of(op, struct grpc_stream, early_op);
    s->got_status = true;
    stream_done(s);
    release(s);
}

static void end_early(struct grpc_stream *s, grpc_status_code status, const char *why)
{
    s->bad_metadata = true;
    s->status = status;
    s->details = grpc_slice_from_copied_string(why);
    core_op_begin(&s->early_op, s->chan->loop, &s->chan->user, on_early_end);
    s->busy++;
    core_op_abandon(&s->early_op); // not in gRPC core: nothing to wait for
    loop_post(s->chan->loop, &s->early_op.msg);
}

struct grpc_stream *grpc_stream_new(struct grpc_chan *c, const char *method, const struct grpc_md *md, size_t n, int deadline_ms,
                                    const struct grpc_stream_ops *ops, void *owner)
{
    struct grpc_stream *s = mem_new(struct grpc_stream);
    s->chan = c;
    c->refs++;
    list_add_tail(&c->streams, &s->link);
    s->ops = ops;
    s->owner = owner;
    core_queue_init(&s->out);
    grpc_metadata_array_init(&s->headers);
    grpc_metadata_array_init(&s->trailers);
    s->details = grpc_empty_slice();
    if (!core_md_make(md, n, &s->md)) {
        end_early(s, GRPC_STATUS_INVALID_ARGUMENT, "request metadata has a key or value that HTTP/2 cannot carry");
    } else {
        start_call(s, method, deadline_ms);
    }
    return s;
}

void *grpc_stream_owner(const struct grpc_stream *s)
{
    return s->owner;
}

int grpc_stream_send(struct grpc_stream *s, struct str bytes)
{
    if (s->gone || s->got_status || s->half_close || s->send_failed) {
        return -EPIPE;
    }
    int r = core_queue_push(&s->out, bytes);
    if (r == 0) {
        write_next(s);
    }
    return r;
}

void grpc_stream_half_close(struct grpc_stream *s)
{
    if (!s->gone && !s->half_close) {
        s->half_close = true;
        write_next(s);
    }
}

void grpc_stream_pause(struct grpc_stream *s, bool paused)
{
    s->paused = paused;
    read_next(s);
}

void grpc_stream_cancel(struct grpc_stream *s)
{
    if (s->gone) {
        return;
    }
    s->gone = true;
    if (s->core) {
        grpc_call_cancel(s->core, NULL);
    }
    s->busy++;
    release(s); // frees when nothing is out
}

// ---- unary ----

struct unary {
    void (*cb)(void *arg, int status, struct str message, struct str response);
    void *arg;
    char *response; // owned; NULL = none yet
    size_t n;
};

static void unary_free(void *arg)
{
    struct unary *u = arg;
    if (u) {
        free(u->response);
        free(u);
    }
}

static void unary_message(struct grpc_stream *s, struct str bytes)
{
    struct unary *u = s->owner;
    if (u->response) {
        return; // a second one is a broken server; the first counts
    }
    u->response = str_dup(bytes);
    u->n = bytes.n;
}

static void unary_end(struct grpc_stream *s, int status, struct str message)
{
    struct unary *u = s->owner;
    s->owner = NULL; // freed here, not by release
    if (status == GRPC_STATUS_OK && !u->response) {
        status = GRPC_STATUS_INTERNAL;
        message = STR("the server answered OK without a message");
    }
    u->cb(u->arg, status, message, str_n(u->response, u->n));
    unary_free(u);
}

static const struct grpc_stream_ops unary_ops = { .on_message = unary_message, .on_end = unary_end };

void grpc_unary(struct grpc_chan *c, const char *method, const struct grpc_md *md, size_t n, struct str request, int deadline_ms,
                void (*cb)(void *arg, int status, struct str message, struct str response), void *arg)
{
    struct unary *u = mem_new(struct unary);
    u->cb = cb;
    u->arg = arg;
    struct grpc_stream *s = grpc_stream_new(c, method, md, n, deadline_ms, &unary_ops, u);
    (void)grpc_stream_send(s, request); // a fresh queue is never full
    grpc_stream_half_close(s);
}
