// SPDX-License-Identifier: Apache-2.0
// Connections for tcp_proxy: one for each downstream connection, never shared.
#include <stdlib.h>
#include <sys/socket.h>

#include "lib/base/mem.h"
#include "proxy/upstream/breaker.h"
#include "proxy/upstream/internal.h"

struct tcp_connect { // from pool_tcp_get to the failure, the cancel, or pool_tcp_release
    struct list link;        // cluster_priv.tcp
    struct pool_tcp_request *r;
    struct cluster_snap *cs; // ref: the transport's expected names are in it
    struct tls_peer *peer;
    uint64_t begun_ms;
};

// Gives back everything but the connection.
static void tcp_end(struct pool_tcp_request *r)
{
    struct tcp_connect *x = r->priv;
    r->priv = NULL;
    r->conn = NULL;
    list_del(&x->link);
    upstream_tls_peer_put(r->cw, x->peer);
    upstream_cx_end(r->cw, r->host, r->priority);
    host_unref(r->host);
    // The transport goes with its connection at the end of the turn, and may look at what cs owns until then.
    cluster_snap_unref(x->cs);
    free(x);
}

static void tcp_opened(struct conn *c)
{
    struct tcp_connect *x = c->owner;
    struct pool_tcp_request *r = x->r;
    struct stat_block *b = r->cw->stats;
    stat_record(b, STAT_ID_CLUSTER_UPSTREAM_CX_CONNECT_MS, loop_now_ms(c->loop) - x->begun_ms);
    if (c->transport) {
        stat_inc(b, STAT_ID_CLUSTER_SSL_HANDSHAKE);
    }
    stat_inc(b, STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL);
    stat_gauge_add(b, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE, 1);
    // Least request looks at this one, as it does in Envoy, where a TCP connection counts as a request.
    atomic_fetch_add_explicit(&r->host->rq_active, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&r->host->rq_total, 1, memory_order_relaxed);
    outlier_result(r->cw, r->host, 200, false);
    r->on_ready(r, c);
}

static void tcp_failed(struct conn *c, enum conn_close why)
{
    struct tcp_connect *x = c->owner;
    struct pool_tcp_request *r = x->r;
    enum pool_failure f = upstream_connect_failed(r->cw, r->host, c, why);
    outlier_result(r->cw, r->host, 0, true);
    const char *detail = c->close_detail; // lives until the end of the turn
    conn_free(c);
    tcp_end(r);
    r->on_fail(r, f, detail);
}

static const struct conn_ops tcp_ops = { .on_open = tcp_opened, .on_close = tcp_failed };

void pool_tcp_get(struct cluster_worker *cw, const struct picked *p, const struct pool_opts *o, struct pool_tcp_request *r)
{
    int priority = o->priority;
    r->conn = NULL;
    r->priv = NULL;
    r->cw = cw;
    r->host = p->host;
    r->priority = priority;
    if (!upstream_cx_take(cw, p->cs->cfg, p->host, priority, false)) {
        stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_CX_OVERFLOW);
        r->on_fail(r, POOL_FAIL_OVERFLOW, NULL);
        return;
    }
    const struct tls_cfg *tls = p->transport->tls;
    struct connect_target t = { .host = p->host, .cs = p->cs, .transport = p->transport };
    struct buf preface = { 0 };
    upstream_preface(p->transport, o, &preface);
    t.preface = buf_pullup(&preface, preface.len);
    if (o->hints) {
        t.source = o->hints->source;
        t.mark = o->hints->mark;
    }
    if (tls) {
        t.alpn = o->alpn_override ? o->alpn_override : tls->alpn;
        t.alpn_count = o->alpn_override ? o->alpn_override_count : tls->alpn_count;
    }
    struct tcp_connect *x = mem_new(struct tcp_connect);
    enum pool_failure why;
    struct conn *c = upstream_connect(cw, &t, &tcp_ops, x, &x->peer, &why);
    buf_clear(&preface);
    if (!c) {
        upstream_cx_give(cw, p->host, priority);
        free(x);
        r->on_fail(r, why, why == POOL_FAIL_NO_SECRET ? "certificate not available yet" : NULL);
        return;
    }
    x->r = r;
    list_add_tail(&cluster_priv(cw)->tcp, &x->link);
    x->cs = cluster_snap_ref(p->cs);
    x->begun_ms = loop_now_ms(cw->worker->loop);
    r->host = host_ref(p->host);
    r->conn = c;
    r->priv = x;
    upstream_cx_begin(cw, r->host);
}

void pool_tcp_cancel(struct pool_tcp_request *r)
{
    if (r->priv) {
        conn_free(r->conn);
        tcp_end(r);
    }
}

void pool_tcp_release(struct pool_tcp_request *r)
{
    if (!r->priv) {
        return;
    }
    struct stat_block *b = r->cw->stats;
    stat_gauge_add(b, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE, -1);
    stat_add(b, STAT_ID_CLUSTER_UPSTREAM_CX_RX_BYTES, r->conn->bytes_in);
    stat_add(b, STAT_ID_CLUSTER_UPSTREAM_CX_TX_BYTES, r->conn->bytes_out);
    atomic_fetch_sub_explicit(&r->host->rq_active, 1, memory_order_relaxed);
    tcp_end(r);
}

void pool_tcp_check_hosts(struct cluster_worker *cw)
{
    list_for (at, &cluster_priv(cw)->tcp) {
        struct tcp_connect *x = list_entry(at, struct tcp_connect, link);
        const struct conn *c = x->r->conn;
        if (c && c->state == CONN_OPEN && !upstream_host_usable(x->r->host)) {
            // The owner hears of it as it hears of the peer's end.
            stat_inc(cw->lb_stats, STAT_ID_CLUSTER_LB_CLOSE_NOTIFY);
            (void)shutdown(c->fd.fd, SHUT_RDWR);
        }
    }
}
