// SPDX-License-Identifier: Apache-2.0
// One active health check of one endpoint: connects (or uses the connection of the last time), asks, judges. What follows from results is the
// monitor's. Control thread.
#ifndef PROXY_UPSTREAM_PROBE_H
#define PROXY_UPSTREAM_PROBE_H

#include "lib/http/codec.h"
#include "lib/tls/transport_tls.h"
#include "proxy/model/cluster_cfg.h"

enum probe_result {
    PROBE_OK,
    PROBE_BAD,       // an answer, and not the wanted one
    PROBE_RETRIABLE, // an answer of retriable_statuses
    PROBE_NETWORK,   // no answer: not connected, broken, too late
    PROBE_OTHER,     // an answer, but of another service than service_name_matcher wants
};

struct probe_target { // borrowed while the probe runs
    const struct health_cfg *check;
    const struct cluster_cfg *cluster;
    const struct transport_cfg *transport;
    struct addr addr;
    struct str authority;
};

struct probe {
    struct loop *loop;
    void (*done)(struct probe *p, enum probe_result r); // may run, stop or start the probe again
    // private
    struct probe_target t;
    struct timer timer;          // the attempt's end
    bool running;
    struct conn *conn;           // owned until a codec has it
    struct codec *codec;         // owned
    struct codec_stream *stream; // while an exchange runs
    struct tls_session_slot session;
    struct tls_ctx *ctx;         // ref: what session belongs to
    struct arena arena;          // of one exchange
    struct buf body;             // what came, as far as it is looked at
    int status;
    bool bad_service, grpc_failed;
};

void probe_init(struct probe *p, struct loop *l, void (*done)(struct probe *p, enum probe_result r));
// One attempt; done follows exactly once (perhaps before this returns), unless probe_stop comes first.
void probe_run(struct probe *p, const struct probe_target *t);
// Ends the attempt and closes the connection.
void probe_stop(struct probe *p);
void probe_fini(struct probe *p);

// Whether the texts are all in b, in order, gaps allowed (core.v3.HealthCheck.TcpHealthCheck.receive).
bool probe_received(const struct buf *b, const struct str *want, size_t n);

#endif
