// SPDX-License-Identifier: Apache-2.0
// Server half of the fence: generic calls (any method) with raw bytes. A call ends when gRPC core has reported its close and no
// operation of it is out; then on_end, then its memory.
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"
#include "lib/base/scope.h"
#include "lib/grpc/core.h"

enum {
    ACCEPTS = 4, // calls that may arrive between two turns of the loop without waiting in gRPC core
    METADATA_MAX_BYTES = 64 * 1024,
    CLIENT_PING_MIN_MS = 5000, // Envoy and pilot-agent ping every 30 s
    KEEPALIVE_MS = 60 * 1000,
    KEEPALIVE_TIMEOUT_MS = 20 * 1000,
};

struct accept_slot {
    struct core_op op;
    struct grpc_srv *srv;
    struct grpc_call *call; // being filled; owned
};

// What a TLS port shows. gRPC core asks for it on its own threads, once for each handshake.
struct tls_port {
    struct list link;
    pthread_mutex_t lock;
    char *cert, *key, *client_ca; // owned; under lock. client_ca NULL = clients are not asked
    bool fresh;                   // under lock: gRPC core has not seen it
};

struct grpc_srv {
    struct loop *loop;
    const struct grpc_srv_ops *ops;
    void *owner;
    grpc_server *core; // owned
    struct core_user user;
    unsigned refs; // the caller, each call, each accept that is out
    bool started, stopping;
    struct core_op shutdown_op;
    struct accept_slot accepts[ACCEPTS];
    struct list calls;
    struct list tls_ports; // struct tls_port; owned, as long as the core's server
};

struct grpc_call {
    struct list link;
    struct grpc_srv *srv;
    grpc_core_call *core;
    void *owner;
    unsigned busy;
    bool served, closed, ended, cancelled; // accepted by the owner; close reported; on_end called; by the peer or by us
    bool half_closed, send_failed, finishing, status_sent;
    int cancelled_flag;
    grpc_call_details details;
    grpc_metadata_array md;
    struct core_op start_op, close_op, read_op, write_op;
    grpc_byte_buffer *in;
    struct core_queue out;
    grpc_status_code status;
    grpc_slice status_text;
};

static void free_secret(char *pem)
{
    if (pem) {
        explicit_bzero(pem, strlen(pem));
        free(pem);
    }
}

static void tls_port_free(struct tls_port *p)
{
    list_del(&p->link);
    free(p->cert);
    free_secret(p->key);
    free(p->client_ca);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void srv_unref(struct grpc_srv *s)
{
    if (--s->refs == 0) {
        core_sync();
        grpc_server_destroy(s->core);
        list_for_safe (p, &s->tls_ports) {
            tls_port_free(list_entry(p, struct tls_port, link));
        }
        free(s);
        grpc_shutdown();
    }
}

// ---- calls ----

static void start_batch(struct grpc_call *c, struct core_op *op, grpc_op *ops, size_t n, void (*done)(struct core_op *, bool))
{
    core_op_begin(op, c->srv->loop, &c->srv->user, done);
    c->busy++;
    grpc_call_error e = grpc_call_start_batch(c->core, ops, n, op, NULL);
    CHECK(e == GRPC_CALL_OK); // anything else is a mistake of ours in the order of operations
}

static void call_end(struct grpc_call *c)
{
    if (!c->ended) {
        c->ended = true;
        if (c->served && c->srv->ops->on_end) {
            c->srv->ops->on_end(c);
        }
    }
}

static struct grpc_call *call_new(struct grpc_srv *s)
{
    struct grpc_call *c = mem_new(struct grpc_call);
    c->srv = s;
    list_init(&c->link);
    grpc_call_details_init(&c->details);
    grpc_metadata_array_init(&c->md);
    core_queue_init(&c->out);
    c->status_text = grpc_empty_slice();
    return c;
}

static void call_free(struct grpc_call *c)
{
    list_del(&c->link);
    core_queue_clear(&c->out);
    if (c->in) {
        grpc_byte_buffer_destroy(c->in);
    }
    grpc_call_details_destroy(&c->details);
    grpc_metadata_array_destroy(&c->md);
    grpc_slice_unref(c->status_text);
    if (c->core) {
        grpc_call_unref(c->core);
    }
    free(c);
}

static void release(struct grpc_call *c)
{
    if (--c->busy || !c->closed) {
        return;
    }
    struct grpc_srv *s = c->srv;
    call_end(c);
    call_free(c);
    srv_unref(s);
}

static void on_write_done(struct core_op *op, bool ok);

static void send_status(struct grpc_call *c)
{
    c->status_sent = true;
    grpc_op op = { .op = GRPC_OP_SEND_STATUS_FROM_SERVER,
                   .data.send_status_from_server = { .status = c->status, .status_details = &c->status_text } };
    start_batch(c, &c->write_op, &op, 1, on_write_done);
}

static void write_next(struct grpc_call *c)
{
    if (c->start_op.active || c->write_op.active || c->status_sent || c->closed) {
        return;
    }
    grpc_byte_buffer *b = c->send_failed ? NULL : core_queue_front(&c->out);
    if (b) {
        grpc_op op = { .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = b };
        start_batch(c, &c->write_op, &op, 1, on_write_done);
    } else if (c->finishing) {
        send_status(c);
    }
}

static void on_write_done(struct core_op *op, bool ok)
{
    struct grpc_call *c = container_of(op, struct grpc_call, write_op);
    if (!c->status_sent) {
        core_queue_pop(&c->out);
    }
    c->send_failed = c->send_failed || !ok;
    write_next(c);
    release(c);
}

static void on_start_done(struct core_op *op, bool ok)
{
    struct grpc_call *c = container_of(op, struct grpc_call, start_op);
    c->send_failed = c->send_failed || !ok;
    write_next(c);
    release(c);
}

static void on_close_done(struct core_op *op, bool ok)
{
    (void)ok;
    struct grpc_call *c = container_of(op, struct grpc_call, close_op);
    c->closed = true;
    c->cancelled = c->cancelled_flag != 0;
    release(c);
}

static void on_read_done(struct core_op *op, bool ok);

static void read_next(struct grpc_call *c)
{
    if (c->closed || c->ended || c->half_closed) {
        return;
    }
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &c->in };
    start_batch(c, &c->read_op, &op, 1, on_read_done);
}

static void hand_over(void *arg, struct str bytes)
{
    struct grpc_call *c = arg;
    if (!c->finishing && !c->ended && c->srv->ops->on_message) {
        c->srv->ops->on_message(c, bytes);
    }
}

static void on_read_done(struct core_op *op, bool ok)
{
    struct grpc_call *c = container_of(op, struct grpc_call, read_op);
    grpc_byte_buffer *b = c->in;
    c->in = NULL;
    if (!b) {
        c->half_closed = true; // or the call is broken; then the close follows
        if (ok && !c->closed && !c->ended && !c->finishing && c->srv->ops->on_half_close) {
            c->srv->ops->on_half_close(c);
        }
    } else if (core_message(b, hand_over, c)) {
        read_next(c);
    } else {
        grpc_call_finish(c, GRPC_STATUS_INTERNAL, "received message cannot be decoded");
    }
    release(c);
}

static struct str auth_value(const grpc_auth_context *a, const char *name)
{
    grpc_auth_property_iterator it = grpc_auth_context_find_properties_by_name(a, name);
    const grpc_auth_property *p = grpc_auth_property_iterator_next(&it);
    return p ? str_n(p->value, p->value_length) : str_n(NULL, 0);
}

// Asks the owner; borrowed views live as long as this call.
static void introduce(struct grpc_call *c)
{
    struct grpc_srv *s = c->srv;
    struct arena a = { 0 };
    char *peer = grpc_call_get_peer(c->core);
    grpc_auth_context *auth = grpc_call_auth_context(c->core);
    struct grpc_call_info info = {
        .method = core_slice_str(&c->details.method),
        .peer = str_c(peer),
        .md = core_md_views(&c->md, &a),
        .md_count = c->md.count,
    };
    if (auth) {
        struct str kind = auth_value(auth, GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME);
        info.tls = str_is(kind, GRPC_SSL_TRANSPORT_SECURITY_TYPE) || str_is(kind, GRPC_TLS_TRANSPORT_SECURITY_TYPE);
        if (grpc_auth_context_peer_is_authenticated(auth)) {
            info.peer_uri = auth_value(auth, GRPC_PEER_URI_PROPERTY_NAME);
        }
    }
    c->served = true; // on_call may finish it at once, and on_end must come then
    if (!s->ops->on_call(s, c, &info)) {
        c->served = false;
        grpc_call_finish(c, GRPC_STATUS_UNIMPLEMENTED, "no such method");
    }
    if (auth) {
        grpc_auth_context_release(auth);
    }
    gpr_free(peer);
    arena_fini(&a);
}

static void call_start(struct grpc_call *c)
{
    list_add_tail(&c->srv->calls, &c->link);
    c->busy++; // until the owner has spoken
    grpc_op close = { .op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &c->cancelled_flag };
    start_batch(c, &c->close_op, &close, 1, on_close_done);
    grpc_op start = { .op = GRPC_OP_SEND_INITIAL_METADATA };
    start_batch(c, &c->start_op, &start, 1, on_start_done);
    introduce(c);
    read_next(c);
    release(c);
}

// ---- server ----

static void accept_next(struct accept_slot *a);

static void on_accept(struct core_op *op, bool ok)
{
    struct accept_slot *a = container_of(op, struct accept_slot, op);
    struct grpc_srv *s = a->srv;
    struct grpc_call *c = a->call;
    a->call = NULL;
    if (!ok || s->stopping) {
        if (c->core) {
            grpc_call_cancel(c->core, NULL);
        }
        call_free(c);
        srv_unref(s);
        return;
    }
    accept_next(a); // takes a reference of its own; ours becomes the call's
    call_start(c);
}

static void accept_next(struct accept_slot *a)
{
    struct grpc_srv *s = a->srv;
    a->call = call_new(s);
    s->refs++;
    core_op_begin(&a->op, s->loop, &s->user, on_accept);
    grpc_call_error e = grpc_server_request_call(s->core, &a->call->core, &a->call->details, &a->call->md, core_cq(), core_cq(), &a->op);
    CHECK(e == GRPC_CALL_OK);
}

static grpc_arg int_arg(const char *key, int value)
{
    return (grpc_arg){ .type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value };
}

struct grpc_srv *grpc_srv_new(struct loop *l, const struct grpc_srv_ops *ops, void *owner, struct err *err)
{
    (void)err; // nothing here fails; ports do
    core_start();
    grpc_arg args[] = {
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, GRPC_MESSAGE_MAX_BYTES),
        int_arg(GRPC_ARG_MAX_METADATA_SIZE, METADATA_MAX_BYTES),
        int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0), // a second server on the port must fail, not share it
        int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, CLIENT_PING_MIN_MS),
        int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
        int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
    };
    grpc_channel_args all = { .num_args = array_len(args), .args = args };
    struct grpc_srv *s = mem_new(struct grpc_srv);
    grpc_init(); // counted: what is freed from the mailbox may outlive grpc_fence_shutdown
    s->loop = l;
    s->ops = ops;
    s->owner = owner;
    s->refs = 1;
    list_init(&s->calls);
    list_init(&s->tls_ports);
    s->core = grpc_server_create(&all, NULL);
    grpc_server_register_completion_queue(s->core, core_cq(), NULL);
    return s;
}

// gRPC core's threads.
static grpc_ssl_certificate_config_reload_status fetch_cert(void *user_data, grpc_ssl_server_certificate_config **config)
{
    struct tls_port *p = user_data;
    grpc_ssl_certificate_config_reload_status r = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    pthread_mutex_lock(&p->lock);
    if (p->fresh) {
        grpc_ssl_pem_key_cert_pair pair = { .private_key = p->key, .cert_chain = p->cert };
        // gRPC core insists on roots; where clients are not asked for certificates they decide nothing.
        *config = grpc_ssl_server_certificate_config_create(p->client_ca ? p->client_ca : p->cert, &pair, 1);
        p->fresh = false;
        r = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
    }
    pthread_mutex_unlock(&p->lock);
    return r;
}

static grpc_server_credentials *credentials(struct grpc_srv *s, const struct grpc_srv_opts *o)
{
    if (!o->tls) {
        return grpc_insecure_server_credentials_create();
    }
    struct tls_port *p = mem_new(struct tls_port);
    pthread_mutex_init(&p->lock, NULL);
    p->cert = str_dup(o->cert_pem);
    p->key = str_dup(o->key_pem);
    p->client_ca = o->client_ca_pem.n ? str_dup(o->client_ca_pem) : NULL;
    p->fresh = true;
    list_add_tail(&s->tls_ports, &p->link);
    return grpc_ssl_server_credentials_create_with_options(grpc_ssl_server_credentials_create_options_using_config_fetcher(
        p->client_ca ? GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE, fetch_cert, p));
}

void grpc_srv_set_cert(struct grpc_srv *s, struct str cert_pem, struct str key_pem)
{
    list_for(l, &s->tls_ports)
    {
        struct tls_port *p = list_entry(l, struct tls_port, link);
        pthread_mutex_lock(&p->lock);
        free(p->cert);
        free_secret(p->key);
        p->cert = str_dup(cert_pem);
        p->key = str_dup(key_pem);
        p->fresh = true;
        pthread_mutex_unlock(&p->lock);
    }
}

int grpc_srv_listen(struct grpc_srv *s, const char *addr, const struct grpc_srv_opts *o, struct err *err)
{
    if (s->started) {
        return err_set(err, -EBUSY, "%s: the server has started already", addr);
    }
    if (o && o->tls && (o->cert_pem.n == 0 || o->key_pem.n == 0)) {
        return err_set(err, -EINVAL, "%s: a TLS port needs a certificate and its key", addr);
    }
    static const struct grpc_srv_opts plain = { 0 };
    grpc_server_credentials *creds = credentials(s, o ? o : &plain);
    int port = creds ? grpc_server_add_http2_port(s->core, addr, creds) : 0;
    if (creds) {
        grpc_server_credentials_release(creds);
    }
    if (port == 0) {
        return err_set(err, -EADDRINUSE, "%s: cannot listen (address in use, or certificate and key not usable)", addr);
    }
    return port;
}

void grpc_srv_start(struct grpc_srv *s)
{
    CHECK(!s->started);
    s->started = true;
    grpc_server_start(s->core);
    for (size_t i = 0; i < ACCEPTS; i++) {
        s->accepts[i].srv = s;
        accept_next(&s->accepts[i]);
    }
}

static void on_shutdown(struct core_op *op, bool ok)
{
    (void)ok;
    srv_unref(container_of(op, struct grpc_srv, shutdown_op));
}

void grpc_srv_free(struct grpc_srv *s)
{
    if (!s) {
        return;
    }
    s->stopping = true;
    list_for_safe (p, &s->calls) {
        struct grpc_call *c = list_entry(p, struct grpc_call, link);
        grpc_call_cancel_with_status(c->core, GRPC_STATUS_UNAVAILABLE, "the server is stopping", NULL);
        call_end(c);
    }
    s->refs++;
    core_op_begin(&s->shutdown_op, s->loop, &s->user, on_shutdown);
    grpc_server_shutdown_and_notify(s->core, core_cq(), &s->shutdown_op);
    grpc_server_cancel_all_calls(s->core);
    core_wait(&s->user);
    srv_unref(s);
}

void *grpc_srv_owner(const struct grpc_srv *s)
{
    return s->owner;
}
void grpc_call_set_owner(struct grpc_call *c, void *owner)
{
    c->owner = owner;
}
void *grpc_call_owner(const struct grpc_call *c)
{
    return c->owner;
}

int grpc_call_send(struct grpc_call *c, struct str bytes)
{
    if (c->finishing || c->closed || c->ended || c->send_failed) {
        return -EPIPE;
    }
    int r = core_queue_push(&c->out, bytes);
    if (r == 0) {
        write_next(c);
    }
    return r;
}

void grpc_call_finish(struct grpc_call *c, int status, const char *message)
{
    if (c->finishing || c->closed || c->ended) {
        return;
    }
    c->finishing = true;
    c->status = (grpc_status_code)status;
    c->status_text = grpc_slice_from_copied_string(message ? message : "");
    write_next(c);
}
