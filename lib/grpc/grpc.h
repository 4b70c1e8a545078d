// SPDX-License-Identifier: Apache-2.0
// The fence around gRPC C core: the only folder that includes <grpc/...>. One completion-queue thread serves all channels and
// servers; everything reaches the caller as mailbox messages on the caller's loop, and all functions are called on that loop's
// thread except where said. Messages are byte strings; protobuf is the caller's business. gRPC's own limit of 4 MiB for
// received messages is lifted to GRPC_MESSAGE_MAX_BYTES.
#ifndef LIB_GRPC_GRPC_H
#define LIB_GRPC_GRPC_H

#include "lib/base/err.h"
#include "lib/base/str.h"
#include "lib/event/loop.h"

enum { GRPC_MESSAGE_MAX_BYTES = 256 * 1024 * 1024 };

// Metadata pair; borrowed during calls, owned by the event during callbacks.
struct grpc_md {
    struct str key, value;
};

// ---- client ----
struct grpc_chan;

struct grpc_chan_opts {
    struct str target;        // "127.0.0.1:15010", "istiod.istio-system.svc:15012", "unix:/path"
    bool tls;
    struct str root_pem;      // TLS: roots; empty = the system's
    struct str cert_pem, key_pem; // TLS: client certificate; empty = none
    struct str server_name;   // TLS: name to check in place of the target's host; empty = target's
    int keepalive_ms, keepalive_timeout_ms; // 0 = library default
};
// First use starts gRPC core and its threads. Loop's thread.
struct grpc_chan *grpc_chan_new(struct loop *l, const struct grpc_chan_opts *o, struct err *err);
// Live calls are cancelled; their callbacks do not come. Waits (milliseconds) until gRPC core has let go of them, so the loop may
// be freed afterwards. May be called inside a callback. NULL is fine.
void grpc_chan_free(struct grpc_chan *c);

struct grpc_stream; // a client call: bidirectional stream or unary

struct grpc_stream_ops {
    // One message. bytes are borrowed during the call. Reading goes on by itself unless grpc_stream_pause.
    void (*on_message)(struct grpc_stream *s, struct str bytes);
    // The call has ended: gRPC status code (0 = OK) and text. Last callback; the stream is freed after it returns.
    void (*on_end)(struct grpc_stream *s, int status, struct str message);
};
// Never NULL; a call that cannot start ends with a status. Keys of md are lower-case; a pair that HTTP/2 cannot carry ends the
// call with INVALID_ARGUMENT (3).
// method "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources". deadline_ms 0 = none.
struct grpc_stream *grpc_stream_new(struct grpc_chan *c, const char *method, const struct grpc_md *md, size_t n, int deadline_ms,
                                    const struct grpc_stream_ops *ops, void *owner);
void *grpc_stream_owner(const struct grpc_stream *s);
// Queues one message (copied), at most GRPC_QUEUE_MAX waiting: -ENOBUFS beyond, -EPIPE when the call has ended.
enum { GRPC_QUEUE_MAX = 1024 };
int grpc_stream_send(struct grpc_stream *s, struct str bytes);
// No more messages from us; those queued are still sent.
void grpc_stream_half_close(struct grpc_stream *s);
// Stops / goes on asking for messages; one that was asked for already may still come.
void grpc_stream_pause(struct grpc_stream *s, bool paused);
void grpc_stream_cancel(struct grpc_stream *s); // on_end will not be called; the stream is gone for the caller
// Unary: one request, one answer. cb(status, message, response) once, unless the channel is freed before.
void grpc_unary(struct grpc_chan *c, const char *method, const struct grpc_md *md, size_t n, struct str request, int deadline_ms,
                void (*cb)(void *arg, int status, struct str message, struct str response), void *arg);

// ---- server ----
struct grpc_srv;
struct grpc_call; // a server call

struct grpc_srv_opts {
    bool tls;
    struct str cert_pem, key_pem; // TLS
    struct str client_ca_pem;     // TLS: ask for (not require) client certificates signed by these
};
struct grpc_call_info {
    struct str method;       // "/package.Service/Method"
    struct str peer;         // "ipv4:10.0.0.1:1234"
    const struct grpc_md *md; // request metadata
    size_t md_count;
    struct str peer_uri;     // first URI SAN of a verified client certificate, empty without
    bool tls;
};
struct grpc_srv_ops {
    // A call arrived. Return true to serve it (set owner with grpc_call_set_owner); false answers UNIMPLEMENTED. info is borrowed.
    bool (*on_call)(struct grpc_srv *s, struct grpc_call *c, const struct grpc_call_info *info);
    void (*on_message)(struct grpc_call *c, struct str bytes);
    void (*on_half_close)(struct grpc_call *c);
    // The call is over (peer gone, cancelled, or finished by us). Last callback; freed after it returns.
    void (*on_end)(struct grpc_call *c);
};
struct grpc_srv *grpc_srv_new(struct loop *l, const struct grpc_srv_ops *ops, void *owner, struct err *err);
// May be called several times (plaintext and TLS ports) before grpc_srv_start. port 0 picks one. Returns the port or negative errno.
int grpc_srv_listen(struct grpc_srv *s, const char *addr, const struct grpc_srv_opts *o, struct err *err);
void grpc_srv_start(struct grpc_srv *s);
// Certificate chain and key of all TLS ports for handshakes from now on (copied); connections that are open stay as they are. A pair that
// gRPC core cannot use is refused by it at the next handshake, and the former one stays.
void grpc_srv_set_cert(struct grpc_srv *s, struct str cert_pem, struct str key_pem);
// Cancels all calls: on_end comes for each of them from inside. Then waits (milliseconds) until gRPC core has let go of the server,
// so the loop may be freed afterwards. Not from a callback of this server. NULL is fine.
void grpc_srv_free(struct grpc_srv *s);
void *grpc_srv_owner(const struct grpc_srv *s);
void grpc_call_set_owner(struct grpc_call *c, void *owner);
void *grpc_call_owner(const struct grpc_call *c);
// As grpc_stream_send.
int grpc_call_send(struct grpc_call *c, struct str bytes);
// Ends the call with a status after what is queued was sent; on_end follows. Only the first one counts.
void grpc_call_finish(struct grpc_call *c, int status, const char *message);

// Stops gRPC core and its threads after all channels and servers are gone (tests, clean exit). Nothing when never used.
void grpc_fence_shutdown(void);

#endif
