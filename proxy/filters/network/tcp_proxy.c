// SPDX-License-Identifier: Apache-2.0
// A downstream connection joined to one upstream connection.
//
// waiting (upstream_connect_mode): until the client has said something.
// connecting: the downstream is not read (its bytes wait in the kernel); a failed connect may go to another host.
// joined: the relay moves bytes by pointer; nothing here runs per byte.
//
// A session may begin as a probe, for a client that has said nothing yet (proxy/listener/server_first.c): it connects, tells when the server
// speaks, and does not touch the downstream until start takes it over.
#include "proxy/filters/network/tcp_proxy.h"

#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "lib/base/recycle.h"
#include "lib/net/relay.h"
#include "proxy/access_log/access_log.h"
#include "proxy/filters/network/filters.h"
#include "proxy/filters/network/peer_exchange.h"
#include "proxy/filters/network/tcp_tunnel.h"
#include "proxy/upstream/cluster.h"

enum { PROBE_WORDS_MAX = 256, PROBE_HOLD_BYTES = 4096 };

struct search { // while connecting only: who was asked
    struct session *session;
    struct pick pick; // tried hosts are counted
    struct addr last; // host of the latest attempt
    struct str detail; // of its failure; d->arena
    enum pool_failure failure;
    bool in_get, failed_in_get;
    const struct http_request *tunnel_request; // NULL until the first attempt
    struct timer wait;        // back-off between attempts, or the idle time-out of a client that is waited for
};

struct log_flush { // access_log_options.access_log_flush_interval
    struct timer timer;
    struct session *session;
};

typedef void probe_fn(struct downstream *d, enum probe_event e, struct str words);

struct session { // downstream.terminal; d's timer is for max_downstream_connection_duration, or the end of a drain
    struct downstream *d;
    const struct tcp_proxy_cfg *cfg;
    struct stat_block *stats;
    struct cluster_worker *cw;  // NULL = none, and between two attempts: nothing keeps it then
    struct str cluster;         // its name, of the configuration or d's hints; empty = there was none
    struct search *search;      // owned, NULL once joined
    struct pool_tcp_request up;
    struct relay relay;
    struct tcp_tunnel *tunnel;  // owned; in the place of up and relay, NULL = the bytes go as they are
    struct log_flush *flush;    // owned; NULL = none
    const char *details;        // static, for the log
    const struct peer_info *down_peer, *up_peer; // in d's arena; NULL = not told
    const struct str *host_metadata; // in d's arena, when some log asks; NULL = none
    probe_fn *probe;            // set while it is one
    uint16_t attempts;
    bool waits;                 // for the client's first bytes
    bool beginning;             // of a probe: nobody to tell yet
    bool dead;                  // a probe that failed meanwhile
};

static void search_free(struct session *s)
{
    if (!s->search) {
        return;
    }
    for (int i = 0; i < s->search->pick.tried_count; i++) {
        host_unref(s->search->pick.tried[i]);
    }
    if (s->search->wait.fn) {
        timer_cancel(&s->search->wait);
    }
    loop_free_later(s->d->worker->loop, s->search);
    s->search = NULL;
}

static void session_free(struct session *s)
{
    struct loop *l = s->d->worker->loop;
    if (!s->probe) {
        timer_cancel(&s->d->timer);
    }
    search_free(s);
    if (s->tunnel) {
        loop_free_later(l, s->tunnel);
    }
    if (s->flush) {
        timer_cancel(&s->flush->timer);
        loop_free_later(l, s->flush);
    }
    loop_free_later(l, s);
}

static void upstream_info(const struct session *s, struct stream_info *i)
{
    i->attempts = s->attempts;
    i->upstream_cluster = s->cluster;
    i->metadata[METADATA_CLUSTER] = s->cw ? &s->cw->snap->cfg->metadata : NULL;
    i->metadata[METADATA_UPSTREAM_HOST] = s->host_metadata;
    if (s->search) {
        i->upstream_host = s->search->last;
        i->transport_failure = s->search->detail;
        return;
    }
    if (s->tunnel) {
        const struct tcp_tunnel *t = s->tunnel;
        i->upstream_host = t->host;
        i->upstream_local = t->local;
        i->upstream_peer_uri = t->peer_uri;
        i->upstream_end_ns = i->end_ns;
        tcp_tunnel_wire(t, &i->upstream_bytes_received, &i->upstream_bytes_sent);
        return;
    }
    const struct conn *c = s->up.conn;
    const struct tls_info *tls = transport_tls_info(c);
    i->upstream_host = s->up.host->addr;
    i->upstream_local = c->local;
    i->upstream_bytes_received = c->bytes_in;
    i->upstream_bytes_sent = c->bytes_out;
    i->upstream_end_ns = i->end_ns;
    i->upstream_peer_uri = tls ? tls->peer_uri : (struct str){ 0 };
}

// One entry. flags: of the end; 0 while the connection lasts.
static void write_log(struct session *s, uint32_t flags)
{
    const struct conn *c = s->d->conn;
    if (s->cfg->access_log_count) {
        struct stream_info i;
        downstream_info(s->d, &i);
        i.flags = flags;
        i.details = s->details;
        i.bytes_received = c->bytes_in;
        i.bytes_sent = c->bytes_out;
        i.end_ns = loop_now_ns(s->d->worker->loop);
        upstream_info(s, &i);
        i.downstream_peer = s->down_peer;
        i.upstream_peer = s->up_peer;
        struct format_ctx ctx = { .info = &i };
        access_log_write(s->d->worker, s->cfg->access_logs, s->cfg->access_log_count, &ctx);
    }
}

// Gives back what is on the upstream side, and the session itself. reset: as in session_end.
static void let_go(struct session *s, bool reset)
{
    relay_stop(&s->relay);
    if (s->tunnel) {
        tcp_tunnel_stop(s->tunnel);
    } else if (s->search) {
        pool_tcp_cancel(&s->up);
    } else {
        struct conn *c = s->up.conn;
        if (reset) {
            conn_free_reset(c);
        }
        conn_free(c);
        pool_tcp_release(&s->up);
    }
    session_free(s);
}

static void probe_gone(struct session *s, enum probe_event e)
{
    struct downstream *d = s->d;
    probe_fn *tell = s->probe;
    if (s->beginning) {
        s->dead = true; // probe() lets go
        return;
    }
    let_go(s, false);
    tell(d, e, (struct str){ 0 });
}

// The one end of a session. reset: the other side broke, so this one shall not look like an orderly end.
static void session_end(struct session *s, uint32_t flags, bool reset)
{
    struct downstream *d = s->d;
    if (s->probe) {
        probe_gone(s, PROBE_FAILED);
        return;
    }
    stat_add(s->stats, STAT_ID_TCP_CX_RX_BYTES, d->conn->bytes_in);
    stat_add(s->stats, STAT_ID_TCP_CX_TX_BYTES, d->conn->bytes_out);
    write_log(s, flags);
    let_go(s, reset);
    d->terminal = NULL;
    d->ops = NULL;
    if (reset) {
        conn_free_reset(d->conn);
    }
    downstream_close(d);
}

// ---- joined ----

// who: NULL = silent for too long.
static void joined_done(struct session *s, const struct conn *who, enum conn_close why)
{
    bool broke = why == CONN_CLOSE_RESET || why == CONN_CLOSE_TLS;
    uint32_t flags = 0;
    if (!who) {
        stat_inc(s->stats, STAT_ID_TCP_IDLE_TIMEOUT);
        s->details = "idle_timeout";
    } else if (broke) {
        flags = who == s->d->conn ? RF(DOWNSTREAM_TERMINATION) : RF(UPSTREAM_TERMINATION);
    }
    session_end(s, flags, broke);
}

static void relay_done(struct relay *r, struct conn *who, enum conn_close why)
{
    joined_done(container_of(r, struct session, relay), who, why);
}

// ---- metadata exchange (Istio): who the peers are, ahead of their payload ----

// c is open. Where the peer speaks it too, ours goes out at once: whichever side has something to say first, both messages are ahead of it.
static void exchange_begin(struct session *s, struct conn *c, uint8_t side)
{
    const struct tls_info *tls = transport_tls_info(c);
    if (!tls || !str_is(tls->alpn, PEER_EXCHANGE_ALPN)) {
        return;
    }
    stat_inc(s->stats, STAT_ID_TCP_MX_ALPN_FOUND);
    struct str own = peer_exchange_message();
    conn_write_bytes(c, own.p, own.n);
    if (c->bytes_out >= own.n) {
        c->bytes_out -= own.n; // no payload
    }
    s->relay.gated |= side;
}

// What came first from a side that is to tell its metadata. As relay.gate.
static bool exchange_read(struct session *s, struct conn *c, bool eof)
{
    struct peer_info p;
    size_t length = 0, have = c->in.len;
    struct str head = buf_pullup(&c->in, have < PEER_EXCHANGE_HEADER ? have : PEER_EXCHANGE_HEADER);
    size_t want = peer_exchange_wants(head);
    switch (have ? peer_exchange_parse(buf_pullup(&c->in, have < want ? have : want), downstream_arena(s->d), &p, &length) : PEER_EXCHANGE_MORE) {
    case PEER_EXCHANGE_MORE:
        return eof; // an end within: payload after all, as far as anybody can tell
    case PEER_EXCHANGE_NONE:
        stat_inc(s->stats, STAT_ID_TCP_MX_NO_HEADER);
        return true;
    case PEER_EXCHANGE_BAD:
        stat_inc(s->stats, STAT_ID_TCP_MX_BAD_HEADER);
        s->details = "peer_metadata_too_long";
        session_end(s, 0, true);
        return false;
    case PEER_EXCHANGE_UNKNOWN:
        stat_inc(s->stats, STAT_ID_TCP_MX_BAD_HEADER);
        break;
    case PEER_EXCHANGE_FOUND: {
        struct peer_info *keep = arena_new(downstream_arena(s->d), struct peer_info);
        *keep = p;
        *(c == s->d->conn ? &s->down_peer : &s->up_peer) = keep;
        stat_inc(s->stats, STAT_ID_TCP_MX_ADDED);
        break;
    }
    }
    buf_drain(&c->in, length);
    c->bytes_in -= length;
    return true;
}

static bool exchange_gate(struct relay *r, struct conn *c, bool eof)
{
    return exchange_read(container_of(r, struct session, relay), c, eof);
}

static void flush_log(struct timer *t)
{
    struct session *s = container_of(t, struct log_flush, timer)->session;
    write_log(s, 0);
    timer_set(s->d->worker->loop, t, s->cfg->log_interval_ms);
}

// The upstream is there.
static void log_connected(struct session *s)
{
    if (s->cfg->log_connected) {
        write_log(s, 0);
    }
}

static void join(struct session *s)
{
    s->relay.gate = exchange_gate;
    relay_start(&s->relay, s->d->conn, s->up.conn, s->cfg->idle_ms, relay_done);
}

// ---- the upstream connection of a probe ----

static void probe_data(struct conn *c)
{
    struct session *s = c->owner;
    if (s->relay.gated & RELAY_B) {
        if (!exchange_read(s, c, false)) {
            return;
        }
        s->relay.gated &= (uint8_t)~RELAY_B;
        if (c->in.len == 0) {
            return;
        }
    }
    if (c->in.len > PROBE_HOLD_BYTES) {
        conn_pause_read(c, CONN_PAUSE_FLOW); // the relay resumes
    }
    s->probe(s->d, PROBE_SPOKE, buf_pullup(&c->in, c->in.len < PROBE_WORDS_MAX ? c->in.len : PROBE_WORDS_MAX));
}

static void probe_eof(struct conn *c)
{
    struct session *s = c->owner;
    if (c->in.len == 0) {
        probe_gone(s, PROBE_ENDED);
    }
}

static void probe_closed(struct conn *c, enum conn_close why)
{
    (void)why;
    probe_gone(c->owner, PROBE_ENDED);
}

static const struct conn_ops probe_ops = { .on_data = probe_data, .on_eof = probe_eof, .on_close = probe_closed };

static void on_ready(struct pool_tcp_request *r, struct conn *c)
{
    struct session *s = container_of(r, struct session, up);
    search_free(s);
    exchange_begin(s, c, RELAY_B);
    if (s->probe) {
        c->ops = &probe_ops;
        c->owner = s;
    } else {
        log_connected(s);
        join(s);
    }
}

// ---- connecting ----

static uint32_t failure_flags(enum pool_failure why)
{
    return why == POOL_FAIL_OVERFLOW ? RF(UPSTREAM_OVERFLOW) : RF(UPSTREAM_CONNECT_FAILURE) | RF(UPSTREAM_RETRY_LIMIT);
}

static bool may_try_again(const struct session *s)
{
    return s->attempts < s->cfg->max_connect_attempts && s->search->failure != POOL_FAIL_OVERFLOW;
}

static bool choose_cluster(struct session *s);
static void connect_next(struct session *s);

static void wait_over(struct timer *t)
{
    struct session *s = container_of(t, struct search, wait)->session;
    if (choose_cluster(s)) { // it may have gone meanwhile
        connect_next(s);
    } else {
        session_end(s, RF(NO_CLUSTER), false);
    }
}

// backoff_options: a random part of base × 2^(attempts so far), as for retries of requests.
static void try_again(struct session *s)
{
    const struct tcp_proxy_cfg *cfg = s->cfg;
    if (!cfg->backoff_ms) {
        connect_next(s);
        return;
    }
    unsigned doubled = s->attempts - 1 < 16 ? s->attempts - 1u : 16;
    uint64_t top = cfg->backoff_ms << doubled;
    top = top > cfg->backoff_max_ms ? cfg->backoff_max_ms : top;
    s->cw = NULL; // a removed cluster may be gone before a long wait is over
    timer_init(&s->search->wait, wait_over);
    timer_set(s->d->worker->loop, &s->search->wait, rand_below(top));
}

static void attempt_failed(struct session *s, enum pool_failure why, const char *detail)
{
    s->search->failure = why;
    if (detail) {
        s->search->detail = arena_str(downstream_arena(s->d), str_c(detail));
    }
    if (s->search->in_get) {
        s->search->failed_in_get = true;
    } else if (may_try_again(s)) {
        try_again(s);
    } else {
        session_end(s, failure_flags(why), false);
    }
}

static void on_fail(struct pool_tcp_request *r, enum pool_failure why, const char *detail)
{
    attempt_failed(container_of(r, struct session, up), why, detail);
}

// ---- tunnelled ----

static struct session *session_of(struct tcp_tunnel *t)
{
    return t->owner;
}

static void tunnel_open(struct tcp_tunnel *t)
{
    struct session *s = session_of(t);
    search_free(s);
    log_connected(s);
    tcp_tunnel_start(t, s->d->conn, s->cfg->idle_ms);
}

static void tunnel_fail(struct tcp_tunnel *t, enum pool_failure why, const char *detail)
{
    attempt_failed(session_of(t), why, detail);
}

static void tunnel_done(struct tcp_tunnel *t, const struct conn *who, enum conn_close why)
{
    struct session *s = session_of(t);
    if (!who && why == CONN_CLOSE_RESET) {
        session_end(s, RF(UPSTREAM_TERMINATION), true);
    } else {
        joined_done(s, who, why);
    }
}

static void tunnel_begin(struct session *s, const struct picked *p, const struct pool_opts *o)
{
    struct search *x = s->search;
    if (!s->tunnel) {
        s->tunnel = mem_new(struct tcp_tunnel);
        *s->tunnel = (struct tcp_tunnel){ .on_open = tunnel_open, .on_fail = tunnel_fail, .on_done = tunnel_done, .owner = s };
        struct stream_info i;
        downstream_info(s->d, &i);
        const struct format_ctx ctx = { .info = &i };
        x->tunnel_request = tcp_tunnel_request(s->cfg->tunnel, &ctx, downstream_arena(s->d));
    }
    tcp_tunnel_begin(s->tunnel, s->cw, p, o, x->tunnel_request, downstream_arena(s->d));
}

static void remember_tried(struct search *x, struct host *h)
{
    if (x->pick.tried_count < PICK_TRIED_MAX) {
        x->pick.tried[x->pick.tried_count++] = host_ref(h);
    }
}

static void connect_next(struct session *s)
{
    const struct pool_opts opts = { .downstream = HTTP_11, .hints = downstream_hints_get(s->d), .client = downstream_remote(s->d), .client_dst = downstream_local(s->d) };
    struct search *x = s->search;
    do {
        struct picked p;
        if (!upstream_pick(s->cw, &x->pick, &p)) {
            session_end(s, RF(NO_HEALTHY_UPSTREAM), false);
            return;
        }
        s->attempts++;
        x->last = p.host->addr;
        if (p.metadata.n && metadata_wanted(METADATA_UPSTREAM_HOST)) {
            struct arena *a = downstream_arena(s->d);
            struct str *md = arena_new(a, struct str);
            *md = arena_str(a, p.metadata);
            s->host_metadata = md;
        }
        remember_tried(x, p.host);
        x->in_get = true;
        x->failed_in_get = false;
        if (s->cfg->tunnel) {
            tunnel_begin(s, &p, &opts);
        } else {
            pool_tcp_get(s->cw, &p, &opts, &s->up);
        }
        picked_release(&p);
        if (!x->failed_in_get) { // on its way, or there already
            x->in_get = false;
            return;
        }
        x->in_get = false;
        if (s->cfg->backoff_ms && may_try_again(s)) {
            try_again(s);
            return;
        }
    } while (may_try_again(s));
    session_end(s, failure_flags(x->failure), false);
}

// The client may end its side early: the relay hears of it when it starts.
static void client_eof(struct conn *c)
{
    (void)c;
}

static void client_closed(struct conn *c, enum conn_close why)
{
    (void)why;
    struct downstream *d = c->owner;
    session_end(d->terminal, RF(DOWNSTREAM_TERMINATION), false);
}

static const struct conn_ops waiting_ops = { .on_eof = client_eof, .on_close = client_closed };

static void connect_chosen(struct session *s)
{
    if (choose_cluster(s)) {
        connect_next(s);
    } else {
        stat_inc(s->stats, STAT_ID_TCP_CX_NO_ROUTE);
        session_end(s, RF(NO_CLUSTER), false);
    }
}

// upstream_connect_mode: ON_DOWNSTREAM_DATA.
static void client_speaks(struct conn *c)
{
    struct downstream *d = c->owner;
    struct session *s = d->terminal;
    if (!s->waits) {
        return;
    }
    s->waits = false;
    if (s->search->wait.fn) {
        timer_cancel(&s->search->wait);
    }
    c->ops = &waiting_ops;
    conn_pause_read(c, CONN_PAUSE_FLOW);
    connect_chosen(s);
}

static void client_silent(struct timer *t)
{
    struct session *s = container_of(t, struct search, wait)->session;
    stat_inc(s->stats, STAT_ID_TCP_IDLE_TIMEOUT);
    s->details = "idle_timeout";
    session_end(s, 0, false);
}

static const struct conn_ops silent_ops = { .on_data = client_speaks, .on_eof = client_speaks, .on_close = client_closed };

static void await_client(struct session *s)
{
    struct conn *c = s->d->conn;
    s->waits = true;
    c->ops = &silent_ops;
    if (s->cfg->idle_ms) {
        timer_init(&s->search->wait, client_silent);
        timer_set(s->d->worker->loop, &s->search->wait, s->cfg->idle_ms);
    }
    conn_resume_read(c, CONN_PAUSE_FLOW);
}

// ---- start ----

// The session's cluster and what of it may be picked. false: there is no such cluster.
static bool choose_cluster(struct session *s)
{
    const struct tcp_proxy_cfg *cfg = s->cfg;
    struct pick *p = &s->search->pick;
    const struct upstream_hints *hints = downstream_hints_get(s->d);
    bool named = hints && hints->cluster.n;
    struct str name = named ? hints->cluster : cfg->cluster;
    p->subset = cfg->subset;
    p->subset_count = cfg->subset_count;
    if (cfg->weighted_count && !named) {
        uint64_t left = rand_below(cfg->total_weight);
        const struct tcp_weighted *w = cfg->weighted;
        while (left >= w->weight) {
            left -= w++->weight;
        }
        name = w->name;
        p->subset = w->subset;
        p->subset_count = w->subset_count;
    }
    s->cw = upstream_cluster(s->d->worker, name);
    s->cluster = s->cw ? name : s->cluster;
    return s->cw != NULL;
}

static void limit_reached(struct timer *t)
{
    struct session *s = container_of(t, struct downstream, timer)->terminal;
    s->details = "max_duration";
    session_end(s, s->cfg->max_duration_ms ? RF(DURATION_TIMEOUT) : 0, false);
}

static void drain(struct downstream *d)
{
    uint64_t at = loop_now_ms(d->worker->loop) + TCP_DRAIN_MS;
    if (!timer_pending(&d->timer) || d->timer.expires_ms > at) {
        timer_set(d->worker->loop, &d->timer, TCP_DRAIN_MS);
    }
}

static void abort_now(struct downstream *d)
{
    session_end(d->terminal, 0, false);
}

static const struct downstream_ops ds_ops = { .on_drain = drain, .on_abort = abort_now };

static struct session *session_new(struct downstream *d, const struct tcp_proxy_cfg *cfg)
{
    struct session *s = recycle_calloc(1, sizeof(*s)); // the loop gives to these lists what is freed later
    CHECK(s);
    s->d = d;
    s->cfg = cfg;
    s->search = recycle_calloc(1, sizeof(*s->search));
    CHECK(s->search);
    s->search->session = s;
    s->stats = stats_scope_get(d->worker->stats, STAT_TCP, cfg->stat_prefix);
    s->up.on_ready = on_ready;
    s->up.on_fail = on_fail;
    struct pick *p = &s->search->pick;
    p->reselect = 5; // cheap: only looked at when another host was tried before
    if (!downstream_original_dst(d, &p->original_dst)) {
        p->original_dst.family = 0;
    }
    if (cfg->hash_source_ip) {
        p->has_hash = true; // the same on every proxy: no seed
        p->hash = hash_xx64(downstream_remote(d)->ip, sizeof(downstream_remote(d)->ip), 0);
    }
    return s;
}

// The downstream is the session's from here on.
static void take_downstream(struct session *s)
{
    struct downstream *d = s->d;
    stat_inc(s->stats, STAT_ID_TCP_CX_TOTAL);
    d->terminal = s;
    d->ops = &ds_ops;
    timer_init(&d->timer, limit_reached);
    d->conn->ops = &waiting_ops;
    d->conn->owner = d;
    conn_pause_read(d->conn, CONN_PAUSE_FLOW);
    if (!s->cfg->tunnel) { // whoever is at the tunnel's other end reads payload only
        exchange_begin(s, d->conn, RELAY_A);
    }
    if (s->cfg->log_start) {
        write_log(s, 0);
    }
    if (s->cfg->log_interval_ms) {
        s->flush = mem_new(struct log_flush);
        s->flush->session = s;
        timer_init(&s->flush->timer, flush_log);
        timer_set(d->worker->loop, &s->flush->timer, s->cfg->log_interval_ms);
    }
    if (s->cfg->max_duration_ms) {
        uint64_t ppm = s->cfg->max_duration_jitter_ppm, max = s->cfg->max_duration_ms;
        uint64_t more = max / 1000000 * ppm + max % 1000000 * ppm / 1000000;
        timer_set(d->worker->loop, &d->timer, max + (more ? rand_below(more + 1) : 0));
    }
    const struct worker *w = d->worker;
    if (w->draining && (!w->drain_inbound_only || d->inbound)) {
        drain(d); // came while the proxy goes away
    }
}

static void *probe(struct downstream *d, const void *cfg, probe_fn *on_event)
{
    const struct tcp_proxy_cfg *c = cfg;
    if (c->tunnel || c->wait_for_data) {
        return NULL;
    }
    struct session *s = session_new(d, cfg);
    s->probe = on_event;
    s->beginning = true;
    if (choose_cluster(s)) {
        connect_next(s);
    }
    s->beginning = false;
    if (!s->cw || s->dead) {
        let_go(s, false);
        return NULL;
    }
    return s;
}

static void probe_cancel(void *handle)
{
    let_go(handle, false);
}

static void start(struct downstream *d, const void *cfg)
{
    struct session *s = d->probe;
    if (s) {
        d->probe = NULL;
        s->probe = NULL;
        take_downstream(s);
        if (!s->search) {
            log_connected(s);
            join(s);
        }
        return;
    }
    s = session_new(d, cfg);
    take_downstream(s);
    if (s->cfg->wait_for_data && d->conn->in.len == 0 && !d->conn->eof_in) {
        await_client(s);
    } else {
        connect_chosen(s);
    }
}

static void refused(struct downstream *d, const void *cfg)
{
    const struct tcp_proxy_cfg *c = cfg;
    struct stream_info i;
    downstream_info(d, &i);
    i.bytes_received = d->conn->bytes_in;
    i.bytes_sent = d->conn->bytes_out;
    i.end_ns = loop_now_ns(d->worker->loop);
    struct format_ctx ctx = { .info = &i };
    access_log_write(d->worker, c->access_logs, c->access_log_count, &ctx);
}

const struct network_filter_ops network_filter_tcp_proxy = {
    .ext = { .name = "envoy.filters.network.tcp_proxy",
             .type_url = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
             .config_parse = tcp_proxy_config_parse },
    .terminal = true,
    .start = start,
    .probe = probe,
    .probe_cancel = probe_cancel,
    .refused = refused,
};
