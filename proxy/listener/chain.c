// SPDX-License-Identifier: Apache-2.0
// Listener filters → filter chain → transport → network filters.
//
// Bytes that listener filters look at are really read, into conn->in, and stay there: whoever comes next finds them (a TLS transport gets
// them as raw bytes). A listener whose filters need no bytes goes on at once, so protocols where the server speaks first work.
#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "proxy/access_log/access_log.h"
#include "proxy/listener/internal.h"
#include "proxy/listener/listener_filter.h"
#include "proxy/listener/network_filter.h"

static void choose_chain(struct downstream *d);

void chain_progress_free(struct downstream *d)
{
    struct progress *p = d->pre;
    if (p) {
        timer_cancel(&p->timeout);
        server_first_fini(p);
        stat_gauge_add(d->stats, STAT_ID_LISTENER_DOWNSTREAM_PRE_CX_ACTIVE, -1);
        d->pre = NULL;
        free(p);
    }
}

// ---- network filters ----

static void start_filters(struct downstream *d, size_t from)
{
    const struct filter_chain *chain = d->chain;
    for (size_t i = from; i < chain->filter_count; i++) {
        const struct network_filter_ops *ops = (const struct network_filter_ops *)chain->filters[i].ops;
        if (ops->terminal) {
            ops->start(d, chain->filters[i].cfg);
            if (d->drains && !d->closed && d->ops && d->ops->on_drain) { // asked for while there was nobody to ask
                d->ops->on_drain(d);
            }
            return;
        }
        enum filter_verdict v = ops->on_connection ? ops->on_connection(d, chain->filters[i].cfg) : FILTER_CONTINUE;
        if (v == FILTER_HELD) {
            return;
        }
        if (v == FILTER_CLOSE) {
            break;
        }
    }
    chain_refuse(d); // or (proxy/config prevents it) no terminal filter
}

void chain_go_on(struct downstream *d, const void *cfg)
{
    size_t i = 0;
    while (i < d->chain->filter_count && d->chain->filters[i].cfg != cfg) {
        i++;
    }
    d->ops = NULL;
    d->terminal = NULL;
    start_filters(d, i + 1);
}

void chain_refuse(struct downstream *d)
{
    if (!d->chain->filter_count) {
        downstream_close(d);
        return;
    }
    const struct ext *last = &d->chain->filters[d->chain->filter_count - 1];
    const struct network_filter_ops *ops = (const struct network_filter_ops *)last->ops;
    if (d->probe) {
        ops->probe_cancel(d->probe);
        d->probe = NULL;
    }
    if (ops->refused && !d->closed) {
        ops->refused(d, last->cfg);
    }
    downstream_close(d);
}

// ---- TLS ----

static void tls_opened(struct conn *c)
{
    struct downstream *d = c->owner;
    stat_inc(d->stats, STAT_ID_LISTENER_SSL_HANDSHAKE);
    start_filters(d, 0);
}

static void tls_closed(struct conn *c, enum conn_close why)
{
    struct downstream *d = c->owner;
    const char *detail = c->close_detail ? c->close_detail : "";
    stat_inc(d->stats, STAT_ID_LISTENER_SSL_CONNECTION_ERROR);
    if (strstr(detail, "certificate") || strstr(detail, "SAN")) {
        stat_inc(d->stats, STAT_ID_LISTENER_SSL_FAIL_VERIFY_ERROR);
    }
    log_debug(LOGC_CONNECTION, c->id, "downstream_tls_failed", "why=%d detail=\"%s\"", (int)why, detail);
    downstream_close(d);
}

static const struct conn_ops tls_conn_ops = { .on_open = tls_opened, .on_close = tls_closed };

static void start_tls(struct downstream *d)
{
    const struct tls_cfg *tls = d->chain->tls;
    struct tls_ctx *ctx = tls_slot_get(tls->slot);
    struct tls_server_opts o = { .sans = tls->sans, .san_count = tls->san_count };
    struct transport *t = ctx && !d->conn->eof_in ? transport_tls_server(ctx, &o) : NULL;
    if (!ctx) {
        log_warn(LOGC_CONNECTION, d->conn->id, "downstream_no_certificate", "listener=%.*s", STR_FMT(d->listener->name));
    }
    tls_ctx_unref(ctx);
    if (!t) { // fail closed
        stat_inc(d->stats, STAT_ID_LISTENER_SSL_CONNECTION_ERROR);
        downstream_close(d);
        return;
    }
    d->conn->ops = &tls_conn_ops;
    conn_set_transport(d->conn, t, d->chain->connect_timeout_ms);
}

// ---- the chain ----

static void no_chain(struct downstream *d)
{
    stat_inc(d->stats, STAT_ID_LISTENER_NO_FILTER_CHAIN_MATCH);
    log_debug(LOGC_CONNECTION, d->conn->id, "no_filter_chain_match", "listener=%.*s", STR_FMT(d->listener->name));
    if (d->listener->access_log_count) {
        struct stream_info i;
        downstream_info(d, &i);
        i.flags = RF(NO_ROUTE);
        i.details = "filter_chain_not_found";
        i.end_ns = loop_now_ns(d->worker->loop);
        struct format_ctx ctx = { .info = &i };
        access_log_write(d->worker, d->listener->access_logs, d->listener->access_log_count, &ctx);
    }
    downstream_close(d);
}

const struct filter_chain *chain_find(const struct downstream *d)
{
    const struct listener_cfg *l = d->listener;
    struct chain_input in = { .destination = *downstream_local(d),
                              .source = *downstream_remote(d),
                              .server_name = downstream_server_name(d),
                              .transport_protocol = d->tls_hello ? STR("tls") : STR("raw_buffer"),
                              .application_protocols = d->alpn,
                              .application_protocol_count = d->alpn_count };
    const struct filter_chain *c = l->chains ? chain_matcher_find(l->chains, &in) : NULL;
    return c ? c : l->default_chain;
}

bool chain_probes(const struct downstream *d)
{
    const struct progress *p = d->pre;
    return p && (p->probe || p->chain);
}

void chain_take(struct downstream *d, const struct filter_chain *chain)
{
    if (d->pre) {
        server_first_chosen(d->pre, chain);
    }
    chain_progress_free(d);
    d->chain = chain ? filter_chain_ref((struct filter_chain *)chain) : NULL;
    if (!d->chain) {
        no_chain(d);
    } else if (d->chain->tls) {
        start_tls(d);
    } else {
        start_filters(d, 0);
    }
}

static void choose_chain(struct downstream *d)
{
    chain_take(d, chain_find(d));
}

// ---- listener filters ----

static const struct listener_filter_ops *filter_ops(const struct listener_filter_cfg *f)
{
    return (const struct listener_filter_ops *)f->ext.ops;
}

bool chain_filter_disabled(const struct downstream *d, const struct listener_filter_cfg *f)
{
    return f->disabled && port_predicate_match(f->disabled, downstream_local(d)->port);
}

// Filters from `from` on that are done with the socket alone. Returns the index of the first that needs bytes, or the count when all are
// done; SIZE_MAX: close.
static size_t accept_from(struct downstream *d, size_t from)
{
    const struct listener_cfg *l = d->listener;
    for (size_t i = from; i < l->listener_filter_count; i++) {
        const struct listener_filter_cfg *f = &l->listener_filters[i];
        if (chain_filter_disabled(d, f)) {
            continue;
        }
        enum listener_verdict v = filter_ops(f)->on_accept(d, f->ext.cfg);
        if (v != LF_DONE) {
            return v == LF_CLOSE ? SIZE_MAX : i;
        }
    }
    return l->listener_filter_count;
}

// What the filter at the front says to the bytes that are there.
static enum listener_verdict look(struct downstream *d, const struct listener_filter_cfg *f)
{
    struct buf *in = &d->conn->in;
    size_t max = filter_ops(f)->max_bytes, consumed = 0;
    bool eof = d->conn->eof_in;
    struct str bytes = buf_pullup(in, in->len < max ? in->len : max);
    enum listener_verdict v = filter_ops(f)->on_bytes(d, f->ext.cfg, bytes, eof, &consumed);
    buf_drain(in, consumed);
    if (v == LF_NEED_BYTES && (eof || bytes.n >= max)) {
        v = LF_DONE; // nothing more will come, or it may not have more
    }
    return v;
}

static void run(struct downstream *d)
{
    struct progress *p = d->pre;
    const struct listener_cfg *l = d->listener;
    while (p->at < l->listener_filter_count) {
        if (d->conn->in.len == 0 && !d->conn->eof_in) {
            server_first_wait(p); // a PROXY header has been taken, say, and nothing came behind it yet
            return;
        }
        if (filter_ops(&l->listener_filters[p->at])->sniffs) {
            server_first_heard(p); // its own words, not a load balancer's
        }
        enum listener_verdict v = look(d, &l->listener_filters[p->at]);
        if (v == LF_NEED_BYTES) {
            return;
        }
        size_t next = v == LF_CLOSE ? SIZE_MAX : accept_from(d, p->at + 1);
        if (next == SIZE_MAX) {
            downstream_close(d);
            return;
        }
        p->at = next;
    }
    choose_chain(d);
}

static void pre_data(struct conn *c)
{
    run(c->owner);
}

static void pre_eof(struct conn *c)
{
    if (c->in.len == 0) {
        downstream_close(c->owner); // came and went without a word
    } else {
        run(c->owner);
    }
}

static void pre_closed(struct conn *c, enum conn_close why)
{
    (void)why;
    downstream_close(c->owner);
}

static const struct conn_ops pre_ops = { .on_data = pre_data, .on_eof = pre_eof, .on_close = pre_closed };

// No filter that is left out has the last word on who may come in.
static bool may_go_on(const struct progress *p)
{
    const struct listener_cfg *l = p->d->listener;
    for (size_t i = p->at; i < l->listener_filter_count; i++) {
        const struct listener_filter_cfg *f = &l->listener_filters[i];
        const struct listener_filter_ops *ops = filter_ops(f);
        if (!chain_filter_disabled(p->d, f) && !(ops->may_skip ? ops->may_skip(f->ext.cfg) : ops->sniffs)) {
            return false;
        }
    }
    return l->continue_on_timeout;
}

static void timed_out(struct timer *t)
{
    struct progress *p = container_of(t, struct progress, timeout);
    struct downstream *d = p->d;
    stat_inc(d->stats, STAT_ID_LISTENER_DOWNSTREAM_PRE_CX_TIMEOUT);
    if (may_go_on(p)) {
        choose_chain(d);
    } else {
        downstream_close(d);
    }
}

void chain_begin(struct downstream *d)
{
    const struct listener_cfg *l = d->listener;
    size_t at = accept_from(d, 0);
    if (at == SIZE_MAX) {
        downstream_close(d);
        return;
    }
    if (at == l->listener_filter_count) {
        choose_chain(d);
        return;
    }
    struct progress *p = mem_new(struct progress);
    p->d = d;
    p->at = at;
    timer_init(&p->timeout, timed_out);
    if (l->listener_filters_timeout_ms) {
        timer_set(d->worker->loop, &p->timeout, l->listener_filters_timeout_ms);
    }
    d->pre = p;
    d->conn->ops = &pre_ops;
    stat_gauge_add(d->stats, STAT_ID_LISTENER_DOWNSTREAM_PRE_CX_ACTIVE, 1);
    server_first_wait(p);
}
