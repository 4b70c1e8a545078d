// SPDX-License-Identifier: Apache-2.0
// Pools of HTTP connections: one per worker, host, protocol, transport, ALPN list, source and priority.
//
// A connection is in one of three lists of its pool:
//   connecting  TCP or TLS is being set up; it belongs to nobody, whoever waits longest gets it
//   busy        an exchange runs on it, with HTTP/2 as many as the peer allows; the codec tells when one is over (client_idle)
//   idle        ready; the most recently used one is taken first, so that the others can age and go
// Requests that find no room wait in `waiting`; each has (a share of) a connection on its way, as far as the breaker allows.
// A pool that is not for new requests any more (its host or its configuration is gone) moves to cluster_priv.draining and ends when empty.
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "proxy/upstream/breaker.h"
#include "proxy/upstream/internal.h"

struct pool_key { // all bytes are set: it is hashed as a whole
    const struct host *host;
    const struct transport_cfg *transport;
    uint64_t alpn;
    struct hash128 client; // whom its connections are for: source address, PROXY header; zero = everybody
    uint64_t priority, version;
    struct hash128 names;  // of TLS servers, where the request says them; zero = as the transport says
    uint64_t raw;                // bytes as they are: pool_opts.raw
};

enum { ONE_CLIENT_IDLE_MS = 10000 };
enum { ALPN_MAX = 16, H2_STREAMS_EXPECTED = 100 }; // waiting requests for which one HTTP/2 connection is made

struct pool {
    struct pool_key key;
    struct list link;            // cluster_priv.draining, once draining
    struct cluster_worker *cw;
    struct cluster_snap *cs;     // ref: keeps transport
    struct host *host;           // ref
    const struct transport_cfg *transport;
    struct str *alpn;            // owned, one block with its bytes; what is offered
    size_t alpn_count;
    struct addr source;
    uint32_t mark;
    struct tls_names *names;     // owned, with its texts; NULL = as the transport says
    char *preface;               // owned: PROXY header, NULL = none
    size_t preface_bytes;
    int priority;
    enum http_version version;
    bool raw;
    bool draining;
    bool host_ok;                // the host was usable when last looked at
    bool counted;                // against max_connection_pools
    struct list idle, busy, connecting; // struct pool_conn
    struct list waiting;                // struct pool_request
    uint32_t conns, n_connecting, n_settling /* HTTP/2, limits not known yet */, n_waiting;
    struct timer timer;          // the oldest idle connection's end; or the pool's, when it is empty
};

struct pool_conn {
    struct list link;
    struct pool *pool;
    struct conn *conn;
    struct codec *codec;         // once open; owns conn then
    struct tls_peer *peer;
    uint64_t begun_ms, idle_ms;
    uint64_t rx_seen, tx_seen;   // already counted
    uint32_t requests;
    bool is_busy, settling;
};

// Requests that connections on their way may be expected to serve.
static uint32_t expected(const struct pool *p)
{
    return p->version == HTTP_2 ? (p->n_connecting + p->n_settling) * H2_STREAMS_EXPECTED : p->n_connecting;
}

static void pool_connect(struct pool *p);
static void conn_ready(struct pool_conn *pc);

// ---- ends ----

static void count_bytes(struct pool_conn *pc)
{
    struct stat_block *b = pc->pool->cw->stats;
    stat_add(b, STAT_ID_CLUSTER_UPSTREAM_CX_RX_BYTES, pc->conn->bytes_in - pc->rx_seen);
    stat_add(b, STAT_ID_CLUSTER_UPSTREAM_CX_TX_BYTES, pc->conn->bytes_out - pc->tx_seen);
    pc->rx_seen = pc->conn->bytes_in;
    pc->tx_seen = pc->conn->bytes_out;
}

static void pool_uncount(struct pool *p)
{
    if (p->counted) {
        p->counted = false;
        breaker_give(&cluster_shared_of(p->cw)->pools[p->priority]);
    }
}

static struct pool **recent_place(const struct cluster_worker *cw, const struct host *h)
{
    return &cluster_priv(cw)->recent[((uintptr_t)h >> 6 ^ (uintptr_t)h >> 12) & (RECENT_POOLS - 1)];
}

// p leaves the map.
static void forget_recent(const struct pool *p)
{
    struct pool **recent = recent_place(p->cw, p->key.host);
    *recent = *recent == p ? NULL : *recent;
}

static void pool_free(struct pool *p)
{
    timer_cancel(&p->timer);
    forget_recent(p);
    pool_uncount(p);
    if (p->draining) {
        list_del(&p->link);
    } else {
        map_del(&p->cw->pools, str_n(&p->key, sizeof(p->key)));
    }
    cluster_release(p->cw);
    host_unref(p->host);
    cluster_snap_unref(p->cs);
    free(p->alpn);
    free(p->preface);
    free(p->names);
    free(p);
}

// Pools are freed by their timer only: whoever is in the middle of one may go on with it.
static void pool_check_empty(struct pool *p)
{
    if (p->conns == 0 && p->n_waiting == 0) {
        timer_set(p->cw->worker->loop, &p->timer, p->draining ? 0 : EMPTY_POOL_MS);
    }
}

static void pool_conn_free(struct pool_conn *pc)
{
    struct pool *p = pc->pool;
    if (!pc->codec) {
        p->n_connecting--;
    }
    p->n_settling -= pc->settling;
    count_bytes(pc);
    list_del(&pc->link);
    if (pc->codec) {
        codec_free(pc->codec);
    } else {
        conn_free(pc->conn);
    }
    upstream_tls_peer_put(p->cw, pc->peer);
    upstream_cx_end(p->cw, p->host, p->priority);
    p->conns--;
    pc->pool = NULL;
    loop_free_later(p->cw->worker->loop, pc);
    pool_check_empty(p);
}

static void waiting_end(struct pool *p, struct pool_request *r)
{
    list_del(&r->link);
    r->pool = NULL;
    p->n_waiting--;
    breaker_give(&cluster_shared_of(p->cw)->pending[p->priority]);
    stat_gauge_add(p->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_PENDING_ACTIVE, -1);
}

static void waiting_fail(struct pool *p, enum pool_failure why, const char *detail)
{
    struct pool_request *r = list_entry(p->waiting.next, struct pool_request, link);
    waiting_end(p, r);
    stat_inc(p->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_PENDING_FAILURE_EJECT);
    r->on_fail(r, why, detail);
}

// The request that a lost connection was for fails, and all of them when no connection is left that could serve one. A callback may ask for
// this pool again: those requests come with a connection of their own.
static void connect_lost(struct pool *p, enum pool_failure why, const char *detail)
{
    struct list failing;
    list_init(&failing);
    uint32_t n = p->conns == 0 ? p->n_waiting : p->n_waiting > expected(p);
    for (; n > 0 && p->n_waiting > 0; n--) {
        struct pool_request *r = list_entry(p->waiting.next, struct pool_request, link);
        waiting_end(p, r);
        list_add_tail(&failing, &r->link);
    }
    while (!list_empty(&failing)) {
        struct pool_request *r = list_entry(failing.next, struct pool_request, link);
        list_del(&r->link);
        stat_inc(p->cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_PENDING_FAILURE_EJECT);
        r->on_fail(r, why, detail);
    }
    pool_check_empty(p);
}

// ---- while connecting ----

static void client_idle(struct codec *c);
static void client_closed(struct codec *c, enum conn_close why);
static const struct codec_ops client_ops = { .on_idle = client_idle, .on_conn_close = client_closed };

static void connect_opened(struct conn *c)
{
    struct pool_conn *pc = c->owner;
    struct pool *p = pc->pool;
    stat_record(p->cw->stats, STAT_ID_CLUSTER_UPSTREAM_CX_CONNECT_MS, loop_now_ms(c->loop) - pc->begun_ms);
    if (c->transport) {
        stat_inc(p->cw->stats, STAT_ID_CLUSTER_SSL_HANDSHAKE);
    }
    const struct cluster_cfg *cfg = p->cs->cfg;
    const struct codec_opts o = { .h1 = cfg->h1.head_bytes ? &cfg->h1 : NULL, .h1_names = cfg->h1_names,
                                  .stream_window = cfg->h2_stream_window, .conn_window = cfg->h2_conn_window,
                                  .h2 = cfg->h2.max_outbound_frames ? &cfg->h2 : NULL };
    pc->codec = p->raw ? codec_raw_client(c, &client_ops, pc)
                : p->version == HTTP_2 ? codec_h2_client(c, &client_ops, pc, &o) : codec_h1_client(c, &client_ops, pc, &o);
    p->n_connecting--;
    pc->settling = !codec_settled(pc->codec);
    p->n_settling += pc->settling;
    conn_ready(pc);
}

static void connect_closed(struct conn *c, enum conn_close why)
{
    struct pool_conn *pc = c->owner;
    struct pool *p = pc->pool;
    enum pool_failure f = upstream_connect_failed(p->cw, p->host, c, why);
    const char *detail = c->close_detail; // lives until the end of the turn
    char refused[96];
    if (!detail && c->connect_errno) { // Envoy's words
        snprintf(refused, sizeof(refused), "delayed connect error: %s", strerrordesc_np(c->connect_errno));
        detail = refused;
    }
    pool_conn_free(pc);
    connect_lost(p, f, detail);
    pool_connect(p); // one waiter less each time, so this ends
}

static const struct conn_ops connect_ops = { .on_open = connect_opened, .on_close = connect_closed };

// One more connection on its way. false and *ret_why when it cannot even begin.
static bool connect_one(struct pool *p, enum pool_failure *ret_why)
{
    struct connect_target t = { .host = p->host, .cs = p->cs, .transport = p->transport, .alpn = p->alpn,
                                .alpn_count = p->alpn_count, .source = p->source, .mark = p->mark,
                                .preface = str_n(p->preface, p->preface_bytes), .names = p->names };
    struct pool_conn *pc = mem_new(struct pool_conn);
    pc->conn = upstream_connect(p->cw, &t, &connect_ops, pc, &pc->peer, ret_why);
    if (!pc->conn) {
        free(pc);
        return false;
    }
    pc->pool = p;
    pc->begun_ms = loop_now_ms(p->cw->worker->loop);
    list_add_tail(&p->connecting, &pc->link);
    p->conns++;
    p->n_connecting++;
    timer_cancel(&p->timer); // it may stand for the end of an empty pool
    upstream_cx_begin(p->cw, p->host);
    return true;
}

// Connections for those who wait, as far as max_connections allows. The first one of a pool is always made, or its requests would starve
// behind other pools of the cluster (Envoy does the same).
static void pool_connect(struct pool *p)
{
    while (p->n_waiting > expected(p)) {
        if (!upstream_cx_take(p->cw, p->cs->cfg, p->host, p->priority, false)) {
            stat_inc(p->cw->stats, STAT_ID_CLUSTER_UPSTREAM_CX_OVERFLOW);
            if (p->conns > 0) {
                return;
            }
            (void)upstream_cx_take(p->cw, p->cs->cfg, p->host, p->priority, true);
        }
        enum pool_failure why;
        if (!connect_one(p, &why)) {
            upstream_cx_give(p->cw, p->host, p->priority);
            connect_lost(p, why, why == POOL_FAIL_NO_SECRET ? "certificate not available yet" : NULL);
            return;
        }
    }
}

// ---- ready connections ----

static bool may_serve(const struct pool_conn *pc)
{
    const struct cluster_cfg *cfg = pc->pool->cs->cfg;
    uint64_t age = loop_now_ms(pc->conn->loop) - pc->begun_ms;
    return pc->conn->state == CONN_OPEN && codec_can_open(pc->codec) &&
           (cfg->h2_max_streams == 0 || codec_active(pc->codec) < cfg->h2_max_streams) &&
           (cfg->max_requests_per_connection == 0 || pc->requests < cfg->max_requests_per_connection) &&
           (cfg->max_connection_ms == 0 || age < cfg->max_connection_ms);
}

static void serve(struct pool_conn *pc, struct pool_request *r)
{
    list_del(&pc->link);
    list_add_tail(&pc->pool->busy, &pc->link);
    pc->is_busy = true;
    r->pool = NULL;
    r->reused = pc->requests++ > 0;
    r->on_ready(r, pc->codec, pc->conn);
    // The caller may have given up inside. (pc is memory until the end of the turn, whatever happened.)
    if (pc->pool && pc->is_busy && codec_active(pc->codec) == 0) {
        conn_ready(pc);
    }
}

// Those who wait, as many as fit.
static void serve_waiting(struct pool_conn *pc)
{
    struct pool *p = pc->pool;
    do {
        struct pool_request *r = list_entry(p->waiting.next, struct pool_request, link);
        waiting_end(p, r);
        serve(pc, r);
    } while (pc->pool && pc->is_busy && p->n_waiting > 0 && may_serve(pc));
    if (pc->pool && p->version == HTTP_2) {
        pool_connect(p); // for the rest
    }
}

// A PROXY header names one connection of one client: what was made for it serves nobody else, and soon nobody.
static uint64_t idle_limit(const struct pool *p)
{
    uint64_t limit = p->cs->cfg->idle_timeout_ms;
    return p->preface && (limit == 0 || limit > ONE_CLIENT_IDLE_MS) ? ONE_CLIENT_IDLE_MS : limit;
}

// An open connection without an exchange: to whoever waits, or to rest, or away.
static void conn_ready(struct pool_conn *pc)
{
    struct pool *p = pc->pool;
    pc->is_busy = false;
    if (!may_serve(pc) || (p->draining && p->n_waiting == 0)) {
        pool_conn_free(pc);
        pool_connect(p);
        return;
    }
    if (p->n_waiting > 0) {
        serve_waiting(pc);
        return;
    }
    list_del(&pc->link);
    list_add_head(&p->idle, &pc->link);
    pc->idle_ms = loop_now_ms(pc->conn->loop);
    if (idle_limit(p) && !timer_pending(&p->timer)) {
        timer_set(p->cw->worker->loop, &p->timer, idle_limit(p));
    }
}

static void client_idle(struct codec *c)
{
    struct pool_conn *pc = codec_owner(c);
    bool settled = pc->settling && codec_settled(c);
    if (settled) {
        pc->settling = false;
        pc->pool->n_settling--;
    }
    if (!pc->is_busy) {
        return;
    }
    if (codec_active(c) == 0) {
        count_bytes(pc);
        conn_ready(pc);
    } else if (pc->pool->n_waiting > 0 && may_serve(pc)) {
        serve_waiting(pc);
    } else if (settled) {
        pool_connect(pc->pool); // it was expected to take more than its server's limit lets it
    }
}

// Idle: the server closed it, nobody was harmed. Busy: the exchange heard of it through its stream.
static void client_closed(struct codec *c, enum conn_close why)
{
    (void)why;
    struct pool_conn *pc = codec_owner(c);
    struct pool *p = pc->pool;
    pool_conn_free(pc);
    pool_connect(p);
}

static void pool_timer(struct timer *t)
{
    struct pool *p = container_of(t, struct pool, timer);
    if (p->conns == 0 && p->n_waiting == 0) {
        pool_free(p);
        return;
    }
    uint64_t now = loop_now_ms(p->cw->worker->loop), limit = idle_limit(p);
    while (!list_empty(&p->idle) && limit) {
        struct pool_conn *oldest = list_entry(p->idle.prev, struct pool_conn, link);
        uint64_t rested = now - oldest->idle_ms;
        if (rested < limit) {
            timer_set(p->cw->worker->loop, t, limit - rested);
            return;
        }
        pool_conn_free(oldest);
    }
}

// ---- requests ----

// Whether a protocol name says the other HTTP version than v.
static bool alpn_contradicts(struct str name, enum http_version v)
{
    bool h2 = str_is(name, "h2") || str_is(name, "istio-h2");
    bool h1 = str_starts(name, STR("http/1.")) || str_starts(name, STR("istio-http/1."));
    return v == HTTP_2 ? h1 : h2;
}

// What connections of the pool offer: istio.alpn's list for the version, else the configured one without the names of the other version.
static size_t alpn_offer(const struct picked *k, const struct pool_opts *o, enum http_version v, struct str *ret, size_t max)
{
    const struct tls_cfg *tls = k->transport->tls;
    if (!tls) { // without TLS there is no ALPN
        return 0;
    }
    const struct str *from = v == HTTP_2 ? o->alpn_override_h2 : o->alpn_override;
    size_t count = v == HTTP_2 ? o->alpn_override_h2_count : o->alpn_override_count, n = 0;
    if (!from || o->raw) {
        from = tls->alpn;
        count = tls->alpn_count;
    }
    for (size_t i = 0; i < count && n < max; i++) {
        // Metadata exchange puts a message ahead of the payload, which only the TCP proxy does.
        if (!str_is(from[i], "istio-peer-exchange") && (o->raw || !alpn_contradicts(from[i], v))) {
            ret[n++] = from[i];
        }
    }
    if (n == 0 && !o->raw && (count > 0 || v == HTTP_2)) { // RFC 9113 §3.2
        ret[n++] = v == HTTP_2 ? STR("h2") : STR("http/1.1");
    }
    return n;
}

// upstream_http_protocol_options of the cluster: what the request's host makes of the names, with views into it. False: nothing.
static bool names_of(const struct picked *k, const struct pool_opts *o, struct tls_names *ret)
{
    const struct cluster_cfg *cfg = k->cs->cfg;
    struct str host = o->authority;
    struct addr ip;
    if (!k->transport->tls || (!cfg->auto_sni && !cfg->auto_san)) {
        return false;
    }
    ptrdiff_t end = host.n && host.p[0] == '[' ? str_find(host, ']') : str_find(host, ':');
    host = end < 0 ? host : host.p[0] == '[' ? str_n(host.p + 1, (size_t)end - 1) : str_n(host.p, (size_t)end);
    bool is_ip = addr_parse_ip(host, 0, &ip);
    *ret = (struct tls_names){ .sni = cfg->auto_sni && !is_ip ? host : str_n(NULL, 0),
                               .san = { .type = SAN_ANY, .match = SAN_EXACT, .value = !cfg->auto_san ? str_n(NULL, 0) : host.n ? host : STR(" ") /* nobody */ } };
    return ret->sni.n || ret->san.value.n;
}

// Both names are the same text, or not there.
static struct tls_names *names_keep(const struct tls_names *n)
{
    struct str text = n->san.value.n ? n->san.value : n->sni;
    struct tls_names *x = mem_alloc(sizeof(*x) + text.n);
    char *at = memcpy(x + 1, text.p, text.n);
    *x = *n;
    x->sni = n->sni.n ? str_n(at, text.n) : n->sni;
    x->san.value = n->san.value.n ? str_n(at, text.n) : n->san.value;
    return x;
}

static struct pool *pool_new(struct cluster_worker *cw, const struct picked *k, const struct pool_key *key, const struct pool_opts *o,
                             struct str preface, const struct tls_names *names)
{
    struct pool *p = mem_new(struct pool);
    p->key = *key;
    p->cw = cw;
    p->cs = cluster_snap_ref(k->cs);
    p->host = host_ref(k->host);
    p->transport = k->transport;
    if (o->hints) {
        p->source = o->hints->source;
        p->mark = o->hints->mark;
    }
    if (preface.n) {
        p->preface = memcpy(mem_alloc(preface.n), preface.p, preface.n);
        p->preface_bytes = preface.n;
    }
    p->names = names ? names_keep(names) : NULL;
    p->priority = o->priority;
    p->version = (enum http_version)key->version;
    p->raw = key->raw;
    list_init(&p->link);
    list_init(&p->idle);
    list_init(&p->busy);
    list_init(&p->connecting);
    list_init(&p->waiting);
    timer_init(&p->timer, pool_timer);
    struct str alpn[ALPN_MAX];
    size_t n = alpn_offer(k, o, p->version, alpn, array_len(alpn)), bytes = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += alpn[i].n;
    }
    p->alpn = n ? mem_alloc(n * sizeof(*p->alpn) + bytes) : NULL;
    p->alpn_count = n;
    char *at = n ? (char *)(p->alpn + n) : NULL;
    for (size_t i = 0; i < n; i++) {
        memcpy(at, alpn[i].p, alpn[i].n);
        p->alpn[i] = str_n(at, alpn[i].n);
        at += alpn[i].n;
    }
    p->host_ok = upstream_host_usable(p->host);
    p->counted = true;
    cluster_hold(cw);
    map_put(&cw->pools, str_n(&p->key, sizeof(p->key)), p);
    return p;
}

static void pool_drain(struct pool *p);

// Makes room for one more pool where max_connection_pools is reached: one that does nothing goes.
static bool pool_drop_idle(struct cluster_worker *cw, int priority)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&cw->pools, &i));) {
        struct pool *p = e->val;
        if (p->priority == priority && p->n_waiting == 0 && list_empty(&p->busy) && list_empty(&p->connecting)) {
            pool_drain(p);
            return true;
        }
    }
    return false;
}

static bool pool_take_place(struct cluster_worker *cw, const struct picked *k, int priority)
{
    uint32_t max = k->cs->cfg->breakers[priority].max_pools ? k->cs->cfg->breakers[priority].max_pools : UINT32_MAX;
    atomic_uint *n = &cluster_shared_of(cw)->pools[priority];
    if (breaker_take(n, max) || (pool_drop_idle(cw, priority) && breaker_take(n, max))) {
        return true;
    }
    stat_inc(cw->lb_stats, STAT_ID_CLUSTER_LB_CX_POOL_OVERFLOW);
    return false;
}

// NULL: max_connection_pools are there.
static struct pool *pool_for(struct cluster_worker *cw, const struct picked *k, const struct pool_opts *o, enum http_version version)
{
    struct pool_key key = { .host = k->host, .transport = k->transport, .priority = (uint64_t)o->priority,
                            .version = (uint64_t)version, .raw = o->raw };
    const struct str *alpn = version == HTTP_2 ? o->alpn_override_h2 : o->alpn_override;
    size_t n = version == HTTP_2 ? o->alpn_override_h2_count : o->alpn_override_count;
    if (k->transport->tls && alpn && !o->raw) { // without TLS there is no ALPN
        key.alpn = n;
        for (size_t i = 0; i < n; i++) {
            key.alpn = hash_xx64(alpn[i].p, alpn[i].n, key.alpn);
        }
    }
    struct tls_names names;
    bool named = names_of(k, o, &names);
    if (named) {
        struct str name = names.san.value.n ? names.san.value : names.sni;
        key.names = hash_content(name.p, name.n);
    }
    struct buf who = { 0 };
    upstream_preface(k->transport, o, &who);
    size_t preface = who.len;
    if (o->hints && o->hints->source.family) {
        char text[ADDR_KEY_MAX];
        struct str source = upstream_addr_key(&o->hints->source, text);
        buf_append(&who, source.p, source.n);
        buf_append(&who, &o->hints->mark, sizeof(o->hints->mark));
    }
    struct str all = buf_pullup(&who, who.len);
    if (all.n) {
        key.client = hash_content(all.p, all.n);
    }
    struct pool **recent = recent_place(cw, k->host), *p = *recent;
    if (!p || memcmp(&p->key, &key, sizeof(key)) != 0) {
        p = map_get(&cw->pools, str_n(&key, sizeof(key)));
        if (!p && pool_take_place(cw, k, o->priority)) {
            p = pool_new(cw, k, &key, o, str_n(all.p, preface), named ? &names : NULL);
        }
        *recent = p;
    }
    buf_clear(&who);
    return p;
}

// The one place that chooses the upstream protocol.
static enum http_version upstream_version(const struct cluster_cfg *cfg, const struct pool_opts *o)
{
    switch (o->raw ? UPSTREAM_H1 : cfg->protocol) {
    case UPSTREAM_H1:
        return HTTP_11;
    case UPSTREAM_H2:
        return HTTP_2;
    case UPSTREAM_DOWNSTREAM:
        return o->downstream == HTTP_2 ? HTTP_2 : HTTP_11;
    }
    return HTTP_11;
}

void pool_http_get(struct cluster_worker *cw, const struct picked *k, const struct pool_opts *o, struct pool_request *r)
{
    r->pool = NULL;
    struct pool *p = pool_for(cw, k, o, upstream_version(k->cs->cfg, o));
    if (!p) {
        r->on_fail(r, POOL_FAIL_OVERFLOW, NULL);
        return;
    }
    if (p->version == HTTP_2) {
        list_for (at, &p->busy) {
            struct pool_conn *pc = list_entry(at, struct pool_conn, link);
            if (may_serve(pc)) {
                serve(pc, r);
                return;
            }
        }
    }
    while (!list_empty(&p->idle)) {
        struct pool_conn *pc = list_entry(p->idle.next, struct pool_conn, link);
        if (may_serve(pc)) {
            serve(pc, r);
            return;
        }
        pool_conn_free(pc);
    }
    if (!breaker_take(&cluster_shared_of(cw)->pending[p->priority], k->cs->cfg->breakers[p->priority].max_pending)) {
        stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_PENDING_OVERFLOW);
        pool_check_empty(p);
        r->on_fail(r, POOL_FAIL_OVERFLOW, NULL);
        return;
    }
    stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_PENDING_TOTAL);
    stat_gauge_add(cw->stats, STAT_ID_CLUSTER_UPSTREAM_RQ_PENDING_ACTIVE, 1);
    r->pool = p;
    list_add_tail(&p->waiting, &r->link);
    p->n_waiting++;
    pool_connect(p);
}

void pool_http_cancel(struct pool_request *r)
{
    struct pool *p = r->pool;
    if (p) {
        waiting_end(p, r);
        pool_check_empty(p);
    }
}

// ---- following the configuration ----

static void pool_drain(struct pool *p)
{
    forget_recent(p);
    map_del(&p->cw->pools, str_n(&p->key, sizeof(p->key)));
    p->draining = true;
    pool_uncount(p);
    list_add_tail(&cluster_priv(p->cw)->draining, &p->link);
    while (!list_empty(&p->idle)) {
        pool_conn_free(list_entry(p->idle.next, struct pool_conn, link));
    }
    pool_check_empty(p);
}

static bool in_set(const struct endpoint_set *set, const struct host *h)
{
    for (size_t i = 0; i < set->count; i++) {
        if (set->v[i].host == h) {
            return true;
        }
    }
    return false;
}

void pool_http_follow(struct cluster_worker *cw)
{
    bool dead = cluster_priv(cw)->dead, any_host = cw->snap->cfg->type == CLUSTER_ORIGINAL_DST;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&cw->pools, &i));) {
        struct pool *p = e->val;
        if (dead || p->cs->cfg != cw->snap->cfg || (!any_host && !in_set(cw->snap->endpoints, p->host))) {
            pool_drain(p);
        }
    }
}

void pool_http_drain(struct cluster_worker *cw)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&cw->pools, &i));) {
        pool_drain(e->val);
    }
}

void pool_http_check_hosts(struct cluster_worker *cw)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&cw->pools, &i));) {
        struct pool *p = e->val;
        bool ok = upstream_host_usable(p->host);
        if (p->host_ok && !ok) {
            pool_drain(p);
        } else {
            p->host_ok = ok;
        }
    }
}

bool pool_http_any(const struct cluster_worker *cw)
{
    return cw->pools.count > 0 || !list_empty(&cluster_priv(cw)->draining);
}

static void pool_end(struct pool *p)
{
    while (p->n_waiting > 0) {
        waiting_fail(p, POOL_FAIL_CONNECT, "the proxy stops");
    }
    struct list *all[] = { &p->idle, &p->busy, &p->connecting };
    for (size_t i = 0; i < array_len(all); i++) {
        while (!list_empty(all[i])) {
            pool_conn_free(list_entry(all[i]->next, struct pool_conn, link));
        }
    }
    pool_free(p);
}

void pool_http_free_all(struct cluster_worker *cw)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&cw->pools, &i));) {
        pool_end(e->val);
    }
    struct list *draining = &cluster_priv(cw)->draining;
    while (!list_empty(draining)) {
        pool_end(list_entry(draining->next, struct pool, link));
    }
}
