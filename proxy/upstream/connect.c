// SPDX-License-Identifier: Apache-2.0
// One connection to one endpoint: source address, transport, and what is counted about it.
#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/net/proxy_header.h"
#include "proxy/upstream/breaker.h"
#include "proxy/upstream/internal.h"

// ---- TLS peers ----

struct peer_key { // no padding: all members are eight bytes
    const struct host *host;
    const struct transport_cfg *transport;
    uint64_t alpn;
    struct hash128 sni; // of names that the request says; zero = none
};

static uint64_t alpn_hash(const struct str *alpn, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) {
        h = hash_xx64(alpn[i].p, alpn[i].n, h);
    }
    return h;
}

// Takes ctx. A peer whose certificate was rotated begins without a session: resuming would present the old identity.
static struct tls_peer *tls_peer_get(struct cluster_worker *cw, const struct connect_target *t, struct tls_ctx *ctx)
{
    struct map *peers = &cluster_priv(cw)->tls_peers;
    struct peer_key k = { t->host, t->transport, alpn_hash(t->alpn, t->alpn_count), .sni = { 0 } };
    if (t->names) {
        struct str name = t->names->san.value.n ? t->names->san.value : t->names->sni;
        k.sni = hash_content(name.p, name.n);
    }
    struct tls_peer *p = map_get(peers, str_n(&k, sizeof(k)));
    if (!p) {
        p = mem_new(struct tls_peer);
        p->host = host_ref(t->host);
        p->cs = cluster_snap_ref(t->cs);
        p->transport = t->transport;
        map_put(peers, str_n(&k, sizeof(k)), p);
    }
    if (p->ctx != ctx) {
        tls_session_slot_fini(&p->session);
        p->session = (struct tls_session_slot){ 0 };
        tls_ctx_unref(p->ctx);
        p->ctx = ctx;
    } else {
        tls_ctx_unref(ctx);
    }
    p->users++;
    cluster_hold(cw);
    return p;
}

void upstream_tls_peer_put(struct cluster_worker *cw, struct tls_peer *p)
{
    if (p) {
        p->users--;
        p->used_ms = loop_now_ms(cw->worker->loop);
        cluster_release(cw);
    }
}

void upstream_tls_peers_clean(struct cluster_worker *cw, bool all)
{
    uint64_t now = loop_now_ms(cw->worker->loop);
    struct map *peers = &cluster_priv(cw)->tls_peers;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(peers, &i));) {
        struct tls_peer *p = e->val;
        bool stale = p->cs->cfg != cw->snap->cfg || now - p->used_ms > TLS_PEER_IDLE_MS;
        if (all || (p->users == 0 && stale)) {
            map_del(peers, e->key);
            tls_session_slot_fini(&p->session);
            tls_ctx_unref(p->ctx);
            host_unref(p->host);
            cluster_snap_unref(p->cs);
            free(p);
        }
    }
}

// ---- PROXY header ----

static void keep_tlvs(const struct transport_cfg *t, struct str from, struct buf *out)
{
    struct str rest = from, value;
    uint8_t type;
    for (const char *at = rest.p; proxy_tlv_next(&rest, &type, &value); at = rest.p) {
        if (t->proxy_pass_all || (t->proxy_pass[type / 8] >> type % 8 & 1)) {
            buf_append(out, at, (size_t)(rest.p - at));
        }
    }
}

void upstream_preface(const struct transport_cfg *t, const struct pool_opts *o, struct buf *out)
{
    static const struct addr none;
    if (!t->proxy_version) {
        return;
    }
    struct buf tlvs = { 0 };
    buf_append(&tlvs, t->proxy_tlvs.p, t->proxy_tlvs.n);
    if (o->hints) {
        keep_tlvs(t, o->hints->tlvs, &tlvs);
    }
    proxy_header_write(t->proxy_version, o->client ? o->client : &none, o->client_dst ? o->client_dst : &none, buf_pullup(&tlvs, tlvs.len), out);
    buf_clear(&tlvs);
}

// ---- connecting ----

static struct socket_connect_opts connect_opts(const struct cluster_cfg *cfg, const struct connect_target *t, const struct addr *to)
{
    struct socket_connect_opts o = cfg->connect;
    uint16_t family = to->family;
    if (t->source.family == family) {
        o.source = t->source;
        o.transparent_source = true;
    } else if (family == AF_INET6 && cfg->source_v6.family) {
        o.source = cfg->source_v6;
    }
    if (o.source.family != family) {
        o.source = (struct addr){ 0 };
    }
    o.mark = t->mark ? t->mark : o.mark;
    return o;
}

// RFC 8305 where the endpoint has several addresses.
static struct conn *open_socket(struct cluster_worker *cw, const struct connect_target *t, const struct conn_ops *ops, void *owner)
{
    const struct cluster_cfg *cfg = t->cs->cfg;
    const struct host *h = t->host;
    struct addr v[RACE_MAX] = { h->addr };
    struct race_target targets[RACE_MAX];
    size_t n = 1;
    for (size_t i = 0; i < h->more_count && n < RACE_MAX; i++) {
        v[n++] = h->more[i];
    }
    if (n > 1) {
        race_order(v, n, cfg->first_family, cfg->first_family_count);
    }
    for (size_t i = 0; i < n; i++) {
        targets[i] = (struct race_target){ v[i], connect_opts(cfg, t, &v[i]) };
    }
    return conn_connect_any(cw->worker->loop, targets, n, cfg->connect_timeout_ms, ops, owner);
}

struct conn *upstream_connect(struct cluster_worker *cw, const struct connect_target *t, const struct conn_ops *ops, void *owner,
                              struct tls_peer **ret_peer, enum pool_failure *ret_why)
{
    const struct tls_cfg *tls = t->transport->tls;
    const struct cluster_cfg *cfg = t->cs->cfg;
    struct tls_peer *peer = NULL;
    struct transport *transport = NULL;
    if (tls) {
        struct tls_ctx *ctx = tls_slot_get(tls->slot);
        if (!ctx) { // fail closed: never in plaintext because the certificate is not there
            *ret_why = POOL_FAIL_NO_SECRET;
            return NULL;
        }
        peer = tls_peer_get(cw, t, ctx);
        struct tls_client_opts o = { .sni = tls->sni, .alpn = t->alpn, .alpn_count = t->alpn_count, .sans = tls->sans,
                                     .san_count = tls->san_count, .session = &peer->session };
        if (t->names) {
            o.sni = t->names->sni.n ? t->names->sni : o.sni;
            o.sans = t->names->san.value.n ? &t->names->san : o.sans;
            o.san_count = t->names->san.value.n ? 1 : o.san_count;
        }
        transport = transport_tls_client(peer->ctx, &o);
        if (!transport) {
            upstream_tls_peer_put(cw, peer);
            *ret_why = POOL_FAIL_TLS;
            return NULL;
        }
    }
    struct conn *c = open_socket(cw, t, ops, owner);
    if (t->preface.n && c->state == CONN_CONNECTING) {
        conn_set_preface(c, t->preface.p, t->preface.n);
    }
    if (transport) {
        conn_set_transport(c, transport, 0);
    }
    if (cfg->buffer_limit) {
        c->high = cfg->buffer_limit;
        c->low = cfg->buffer_limit / 2;
    }
    *ret_peer = peer;
    return c;
}

enum pool_failure upstream_connect_failed(struct cluster_worker *cw, struct host *h, const struct conn *c, enum conn_close why)
{
    const char *detail = c->close_detail ? c->close_detail : "";
    stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_CX_CONNECT_FAIL);
    atomic_fetch_add_explicit(&h->cx_connect_fail, 1, memory_order_relaxed);
    log_debug(LOGC_POOL, c->id, "upstream_connect_failed", "cluster=%.*s host=%s errno=%d detail=%s", STR_FMT(cw->name), h->text,
              c->connect_errno, detail);
    if (why == CONN_CLOSE_CONNECT_TIMEOUT) {
        stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_CX_CONNECT_TIMEOUT);
        return POOL_FAIL_TIMEOUT;
    }
    if (why == CONN_CLOSE_TLS) {
        stat_inc(cw->stats, STAT_ID_CLUSTER_SSL_CONNECTION_ERROR);
        if (strstr(detail, "match none of the expected")) { // the words of lib/tls/peer.c
            stat_inc(cw->stats, STAT_ID_CLUSTER_SSL_FAIL_VERIFY_SAN);
        }
        return POOL_FAIL_TLS;
    }
    return POOL_FAIL_CONNECT;
}

bool upstream_cx_take(struct cluster_worker *cw, const struct cluster_cfg *cfg, struct host *h, int priority, bool force)
{
    atomic_uint *n = &cluster_shared_of(cw)->connections[priority];
    uint32_t of_host = cfg->host_connections[priority]; // 0: not from proxy/config (tests)
    if (!breaker_take(&h->cx_active, force || of_host == 0 ? UINT32_MAX : of_host)) {
        return false;
    }
    if (!breaker_take(n, force ? UINT32_MAX : cfg->breakers[priority].max_connections)) {
        breaker_give(&h->cx_active);
        return false;
    }
    return true;
}

void upstream_cx_give(struct cluster_worker *cw, struct host *h, int priority)
{
    breaker_give(&cluster_shared_of(cw)->connections[priority]);
    breaker_give(&h->cx_active);
}

void upstream_cx_begin(struct cluster_worker *cw, struct host *h)
{
    cluster_hold(cw);
    atomic_store_explicit(&cluster_shared_of(cw)->used_ms, loop_now_ms(cw->worker->loop), memory_order_relaxed);
    stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_CX_TOTAL);
    stat_gauge_add(cw->stats, STAT_ID_CLUSTER_UPSTREAM_CX_ACTIVE, 1);
    atomic_fetch_add_explicit(&h->cx_total, 1, memory_order_relaxed);
}

void upstream_cx_end(struct cluster_worker *cw, struct host *h, int priority)
{
    upstream_cx_give(cw, h, priority);
    stat_gauge_add(cw->stats, STAT_ID_CLUSTER_UPSTREAM_CX_ACTIVE, -1);
    stat_inc(cw->stats, STAT_ID_CLUSTER_UPSTREAM_CX_DESTROY);
    cluster_release(cw);
}
