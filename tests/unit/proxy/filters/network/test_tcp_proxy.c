// SPDX-License-Identifier: Apache-2.0
// Listener → chain → tcp_proxy → upstream on one loop with real sockets.
#include "tests/unit/proxy/world.h"

#include <sys/resource.h>

#include "lib/tls/cert.h"
#include "proxy/access_log/access_log.h"
#include "proxy/filters/network/registry.h"
#include "proxy/filters/network/tcp_proxy.h"
#include "proxy/listener/listener.h"
#include "proxy/listener/listener_filter.h"
#include "proxy/listener/network_filter.h"

static struct world x;

static int setup(void **state)
{
    (void)state;
    world_init(&x);
    listener_worker_init(&x.w);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    listener_worker_fini(&x.w);
    world_fini(&x);
    return 0;
}

static void publish(struct snapshot *s)
{
    struct snapshot *old = world_swap(&x, s);
    listener_on_snapshot(&x.w, old);
    snapshot_unref(old);
}

static const struct ext_ops *network(const char *name)
{
    const struct network_filter_ops *ops = network_filter_find(str_c(name), (struct str){ 0 });
    assert_non_null(ops);
    return &ops->ext;
}

static struct listener_cfg *listener_new(const char *name, const char *addr)
{
    struct listener_cfg *l = listener_cfg_new();
    l->name = l->stat_name = arena_str(&l->arena, str_c(name));
    l->addresses = arena_new(&l->arena, struct addr);
    l->addresses[0] = world_ip(addr);
    l->address_count = 1;
    l->chains = chain_matcher_new(&l->arena);
    return l;
}

static struct filter_chain *tcp_chain(struct listener_cfg *l, const char *cluster)
{
    struct tcp_proxy_cfg *t = arena_new(&l->arena, struct tcp_proxy_cfg);
    t->stat_prefix = STR("tcp");
    t->cluster = arena_str(&l->arena, str_c(cluster));
    t->max_connect_attempts = 1;
    struct filter_chain *c = arena_new(&l->arena, struct filter_chain);
    c->filters = arena_new(&l->arena, struct ext);
    c->filters[0] = (struct ext){ .ops = network("envoy.filters.network.tcp_proxy"), .cfg = t };
    c->filter_count = 1;
    return c;
}

static struct tcp_proxy_cfg *cfg_of(struct filter_chain *c)
{
    return (struct tcp_proxy_cfg *)(void *)c->filters[c->filter_count - 1].cfg;
}

// A client of listener l whose destination is dst.
static int client_to(struct listener_cfg *l, const char *dst)
{
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    struct addr peer = world_ip("10.1.1.9:40000"), local = world_ip(dst);
    listener_inject(&x.w, l, fd[0], &peer, &local);
    return fd[1];
}

// A listener with one chain to one cluster of the addresses; published.
static struct listener_cfg *one_cluster(const struct addr *addrs, size_t n, struct tcp_proxy_cfg **ret_cfg)
{
    struct lb_endpoint_cfg e[4];
    for (size_t i = 0; i < n; i++) {
        e[i] = world_endpoint(addrs[i]);
    }
    struct snapshot *s = snapshot_clone(x.w.snap);
    world_cluster_put(s, world_cluster("c", LB_ROUND_ROBIN), NULL, e, n);
    struct listener_cfg *l = listener_new("l", "0.0.0.0:9080");
    l->default_chain = tcp_chain(l, "c");
    if (ret_cfg) {
        *ret_cfg = cfg_of(l->default_chain);
    }
    snapshot_set_listeners(s, &l, 1);
    listener_cfg_unref(l);
    publish(s);
    return l;
}

// Closed without a byte; bytes of the client that nobody read make it a reset.
static void is_closed(int fd)
{
    const char *end = world_peek(&x, fd);
    assert_true(end[0] == '\0' || strcmp(end, "reset") == 0);
}

static void exchange(int a, int b, const char *there, const char *back)
{
    char got[256] = "";
    world_send(a, there);
    assert_int_equal(world_read(&x, b, got, strlen(there)), strlen(there));
    assert_memory_equal(got, there, strlen(there));
    world_send(b, back);
    assert_int_equal(world_read(&x, a, got, strlen(back)), strlen(back));
    assert_memory_equal(got, back, strlen(back));
}

static void bytes_go_both_ways(void **state)
{
    (void)state;
    struct addr up;
    int listen_fd = world_listen(&up);
    int client = client_to(one_cluster(&up, 1, NULL), "10.0.0.5:9080");
    int server = world_accept(&x, listen_fd);
    exchange(client, server, "ping", "pong");
    assert_int_equal(listener_connections(&x.w), 1);
    close(client);
    assert_string_equal(world_peek(&x, server), "");
    close(server);
    world_turn_until(&x, listener_connections(&x.w) == 0);
    assert_int_equal(world_stat(&x, STAT_TCP, "tcp", STAT_ID_TCP_CX_RX_BYTES), 4);
    assert_int_equal(world_stat(&x, STAT_CLUSTER, "c", STAT_ID_CLUSTER_UPSTREAM_CX_ACTIVE), 0);
    assert_int_equal(world_stat(&x, STAT_CLUSTER, "c", STAT_ID_CLUSTER_UPSTREAM_CX_RX_BYTES), 4);
    assert_int_equal(world_stat(&x, STAT_LISTENER, "l", STAT_ID_LISTENER_DOWNSTREAM_CX_ACTIVE), 0);
    close(listen_fd);
}

static void server_may_speak_first(void **state)
{
    (void)state;
    struct addr up;
    int listen_fd = world_listen(&up);
    int client = client_to(one_cluster(&up, 1, NULL), "10.0.0.5:9080");
    int server = world_accept(&x, listen_fd);
    world_send(server, "220 hello\r\n");
    assert_string_equal(world_peek(&x, client), "220 hello\r\n");
    close(client);
    close(server);
    close(listen_fd);
}

static void half_close_is_passed_on(void **state)
{
    (void)state;
    struct addr up;
    int listen_fd = world_listen(&up);
    int client = client_to(one_cluster(&up, 1, NULL), "10.0.0.5:9080");
    world_send(client, "request");
    shutdown(client, SHUT_WR); // before the upstream is even connected
    int server = world_accept(&x, listen_fd);
    assert_string_equal(world_peek(&x, server), "request");
    assert_string_equal(world_peek(&x, server), "");
    world_send(server, "answer");
    assert_string_equal(world_peek(&x, client), "answer");
    close(server);
    assert_string_equal(world_peek(&x, client), "");
    world_turn_until(&x, listener_connections(&x.w) == 0);
    close(client);
    close(listen_fd);
}

static void connect_failure_tries_another_host(void **state)
{
    (void)state;
    struct addr up[3];
    int listen_fd = world_listen(&up[0]);
    up[1] = world_dead_port();
    up[2] = world_ip("127.0.0.1:1"); // nobody listens there either
    struct tcp_proxy_cfg *cfg;
    struct listener_cfg *l = one_cluster(up, 3, &cfg);
    cfg->max_connect_attempts = 3;
    for (int i = 0; i < 4; i++) { // wherever each begins, it ends at the live host
        int client = client_to(l, "10.0.0.5:9080");
        int server = world_accept(&x, listen_fd);
        exchange(client, server, "a", "b");
        close(client);
        close(server);
    }
    assert_in_range(world_stat(&x, STAT_CLUSTER, "c", STAT_ID_CLUSTER_UPSTREAM_CX_CONNECT_FAIL), 1, 8);
    close(listen_fd);
}

static void connect_failure_closes_when_no_attempt_is_left(void **state)
{
    (void)state;
    struct addr dead = world_dead_port();
    int client = client_to(one_cluster(&dead, 1, NULL), "10.0.0.5:9080");
    assert_string_equal(world_peek(&x, client), "");
    world_turn_until(&x, listener_connections(&x.w) == 0);
    close(client);
}

static void empty_and_unknown_clusters_close(void **state)
{
    (void)state;
    struct listener_cfg *l = one_cluster(NULL, 0, NULL); // as BlackHoleCluster
    int client = client_to(l, "10.0.0.5:9080");
    assert_string_equal(world_peek(&x, client), "");
    close(client);
    struct listener_cfg *m = listener_new("m", "0.0.0.0:1");
    m->default_chain = tcp_chain(m, "nowhere");
    client = client_to(m, "10.0.0.5:1");
    assert_string_equal(world_peek(&x, client), "");
    assert_int_equal(world_stat(&x, STAT_TCP, "tcp", STAT_ID_TCP_CX_NO_ROUTE), 1);
    close(client);
    listener_cfg_unref(m);
}

// A connection keeps its cluster when the snapshot is replaced under it; new ones see the new endpoints.
static void snapshot_swap_under_traffic(void **state)
{
    (void)state;
    struct addr a, b;
    int la = world_listen(&a), lb = world_listen(&b);
    struct listener_cfg *l = one_cluster(&a, 1, NULL);
    int client = client_to(l, "10.0.0.5:9080");
    int server = world_accept(&x, la);
    exchange(client, server, "1", "2");
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct lb_endpoint_cfg e = world_endpoint(b);
    world_cluster_put(s, world_cluster("c", LB_ROUND_ROBIN), NULL, &e, 1);
    publish(s);
    exchange(client, server, "3", "4");
    int client2 = client_to(l, "10.0.0.5:9080"), server2 = world_accept(&x, lb);
    exchange(client2, server2, "5", "6");
    // then the cluster goes altogether: what runs, runs on
    s = snapshot_clone(x.w.snap);
    snapshot_del_cluster(s, STR("c"));
    publish(s);
    exchange(client, server, "7", "8");
    int client3 = client_to(l, "10.0.0.5:9080");
    assert_string_equal(world_peek(&x, client3), "");
    close(client);
    close(client2);
    close(client3);
    close(server);
    close(server2);
    world_turn_until(&x, listener_connections(&x.w) == 0);
    close(la);
    close(lb);
}

// Much data against a slow reader: everything arrives, and the proxy holds back the sender meanwhile.
static void back_pressure_holds_the_sender(void **state)
{
    (void)state;
    enum { TOTAL = 24 * 1024 * 1024, PIECE = 64 * 1024 };
    struct addr up;
    int listen_fd = world_listen(&up);
    int client = client_to(one_cluster(&up, 1, NULL), "10.0.0.5:9080");
    int server = world_accept(&x, listen_fd);
    char *piece = malloc(PIECE);
    memset(piece, 'x', PIECE);
    size_t sent = 0, got = 0;
    for (int idle = 0; idle < 50 && sent < TOTAL;) { // nobody reads at the other end
        ssize_t n = send(client, piece, PIECE, MSG_DONTWAIT | MSG_NOSIGNAL);
        idle = n > 0 ? 0 : idle + 1;
        sent += n > 0 ? (size_t)n : 0;
        loop_turn(x.w.loop, 0);
    }
    assert_true(sent < TOTAL);
    while (got < TOTAL) {
        ssize_t n = sent < TOTAL ? send(client, piece, TOTAL - sent < PIECE ? TOTAL - sent : PIECE, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        sent += n > 0 ? (size_t)n : 0;
        loop_turn(x.w.loop, 0);
        n = recv(server, piece, PIECE, MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(got, TOTAL);
    free(piece);
    close(client);
    close(server);
    close(listen_fd);
}

static void reset_is_passed_on(void **state)
{
    (void)state;
    struct addr up;
    int listen_fd = world_listen(&up);
    struct addr at = world_dead_port();
    struct listener_cfg *l = one_cluster(&up, 1, NULL);
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct listener_cfg *bound = listener_new("bound", "127.0.0.1:1");
    bound->addresses[0] = at;
    bound->bind_to_port = true;
    bound->default_chain = tcp_chain(bound, "c");
    struct listener_cfg *v[] = { l, bound };
    snapshot_set_listeners(s, v, 2);
    listener_cfg_unref(bound);
    publish(s);
    bool done;
    struct socket_connect_opts o = { 0 };
    int client = socket_connect(&at, &o, &done);
    int server = world_accept(&x, listen_fd);
    exchange(client, server, "a", "b");
    socket_close_reset(server);
    assert_string_equal(world_peek(&x, client), "reset");
    close(client);
    world_turn_until(&x, listener_connections(&x.w) == 0);
    close(listen_fd);
}

static void idle_connections_end(void **state)
{
    (void)state;
    struct addr up;
    int listen_fd = world_listen(&up);
    struct tcp_proxy_cfg *cfg;
    struct listener_cfg *l = one_cluster(&up, 1, &cfg);
    cfg->idle_ms = 30;
    int client = client_to(l, "10.0.0.5:9080");
    int server = world_accept(&x, listen_fd);
    world_turn_until(&x, listener_connections(&x.w) == 0);
    assert_string_equal(world_peek(&x, client), "");
    assert_int_equal(world_stat(&x, STAT_TCP, "tcp", STAT_ID_TCP_IDLE_TIMEOUT), 1);
    close(client);
    close(server);
    close(listen_fd);
}

// ---- TLS between two of our own listeners ----

struct pki {
    struct arena arena;
    struct str ca, cert[2], key[2];
};

static void pki_make(struct pki *p)
{
    struct err e = { 0 };
    struct str ca_key, csr;
    arena_init(&p->arena, 0, 0);
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, &p->arena, &ca_key, &e), 0);
    assert_int_equal(cert_new_ca(ca_key, STR("test"), 3600, &p->arena, &p->ca, &e), 0);
    static const char *const ids[] = { "spiffe://cluster.local/ns/default/sa/client", "spiffe://cluster.local/ns/default/sa/server" };
    for (int i = 0; i < 2; i++) {
        struct cert_sign_opts o = { .uri_san = str_c(ids[i]), .ttl_s = 3600 };
        assert_int_equal(cert_new_key(KEY_ECDSA_P256, &p->arena, &p->key[i], &e), 0);
        assert_int_equal(cert_new_csr(p->key[i], o.uri_san, &p->arena, &csr, &e), 0);
        assert_int_equal(cert_sign_csr(csr, p->ca, ca_key, &o, &p->arena, &p->cert[i], &e), 0);
    }
}

static struct tls_slot *slot_new(const struct pki *p, bool server)
{
    static const struct str alpn[] = { STR_INIT("istio") };
    struct tls_ctx_params t = { .server = server, .cert_chain_pem = p->cert[server], .key_pem = p->key[server], .ca_pem = p->ca,
                                .verify_peer = true, .require_peer_cert = server, .alpn = alpn, .alpn_count = server };
    struct tls_slot *s = tls_slot_new();
    struct tls_ctx *ctx;
    struct err e = { 0 };
    if (tls_ctx_new(&t, &ctx, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    atomic_store(&s->ctx, ctx);
    return s;
}

static void drop_slot(void *arg)
{
    tls_slot_unref(arg);
}

static struct tls_cfg *tls_new(struct arena *a, struct tls_slot *s)
{
    struct tls_cfg *t = arena_new(a, struct tls_cfg);
    arena_on_free(a, drop_slot, s);
    t->slot = s;
    t->require_client_cert = true;
    return t;
}

struct mtls {
    struct pki pki;
    int listen_fd;           // the application behind the server's proxy
    struct addr inbound;     // of the proxy's inbound listener
    struct listener_cfg *out;
    struct tls_cfg *client_tls, *server_tls;
    struct tls_slot *client_slot;
};

// Stands for tls_inspector, which is in a folder beside this one: one byte is enough here.
static enum listener_verdict wants_bytes(struct downstream *d, const void *cfg)
{
    (void)d, (void)cfg;
    return LF_NEED_BYTES;
}

static enum listener_verdict looks_at_bytes(struct downstream *d, const void *cfg, struct str bytes, bool eof, size_t *ret_consumed)
{
    (void)cfg, (void)eof, (void)ret_consumed;
    static struct str istio[] = { STR_INIT("istio") };
    if (bytes.p[0] == 22) {
        d->tls_hello = true;
        d->alpn = istio;
        d->alpn_count = 1;
    }
    return LF_DONE;
}

static const struct listener_filter_ops inspector = {
    .ext = { .name = "test" }, .on_accept = wants_bytes, .on_bytes = looks_at_bytes, .max_bytes = 1,
};

static void add_inspector(struct listener_cfg *l)
{
    l->listener_filters = arena_new(&l->arena, struct listener_filter_cfg);
    l->listener_filters[0].ext.ops = &inspector.ext;
    l->listener_filter_count = 1;
}

// out → cluster "mtls" → inbound (PERMISSIVE: TLS with ALPN istio, plaintext as it is) → cluster "app".
static void mtls_world(struct mtls *m)
{
    static const struct str istio[] = { STR_INIT("istio-peer-exchange"), STR_INIT("istio") };
    pki_make(&m->pki);
    struct addr app;
    m->listen_fd = world_listen(&app);
    m->inbound = world_dead_port();
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct lb_endpoint_cfg e = world_endpoint(app);
    world_cluster_put(s, world_cluster("app", LB_ROUND_ROBIN), NULL, &e, 1);

    struct cluster_cfg *c = world_cluster("mtls", LB_ROUND_ROBIN);
    static struct str_pair istio_mode[] = { { STR_INIT("tlsMode"), STR_INIT("istio") } };
    m->client_slot = slot_new(&m->pki, false);
    m->client_tls = tls_new(&c->arena, m->client_slot);
    m->client_tls->alpn = arena_array(&c->arena, struct str, 2);
    memcpy(m->client_tls->alpn, istio, sizeof(istio));
    m->client_tls->alpn_count = 2;
    m->client_tls->sni = STR("outbound_.9080_._.app.default.svc.cluster.local");
    c->transports = arena_array(&c->arena, struct transport_cfg, 2);
    c->transports[0] = (struct transport_cfg){ .name = STR("tlsMode-istio"), .tls = m->client_tls, .match = istio_mode, .match_count = 1 };
    c->transports[1] = (struct transport_cfg){ .name = STR("tlsMode-disabled") };
    c->transport_count = 2;
    e = world_endpoint(m->inbound);
    e.metadata = istio_mode;
    e.metadata_count = 1;
    world_cluster_put(s, c, NULL, &e, 1);

    struct listener_cfg *in = listener_new("in", "127.0.0.1:1");
    in->addresses[0] = m->inbound;
    in->bind_to_port = true;
    in->direction = DIRECTION_INBOUND;
    in->listener_filters_timeout_ms = 5000;
    add_inspector(in);
    struct filter_chain *tls = tcp_chain(in, "app"), *raw = tcp_chain(in, "app");
    tls->tls = m->server_tls = tls_new(&in->arena, slot_new(&m->pki, true));
    struct chain_criteria k = { .transport_protocol = STR("tls"), .application_protocols = istio, .application_protocol_count = 2 };
    assert_int_equal(chain_matcher_add(in->chains, &k, tls, STR("tls"), NULL), 0);
    k = (struct chain_criteria){ .transport_protocol = STR("raw_buffer") };
    assert_int_equal(chain_matcher_add(in->chains, &k, raw, STR("raw"), NULL), 0);
    m->out = listener_new("out", "0.0.0.0:9080");
    m->out->default_chain = tcp_chain(m->out, "mtls");
    struct listener_cfg *v[] = { in, m->out };
    snapshot_set_listeners(s, v, 2);
    listener_cfg_unref(in);
    listener_cfg_unref(m->out);
    publish(s);
}

static void mtls_fini(struct mtls *m)
{
    close(m->listen_fd);
    arena_fini(&m->pki.arena);
}

static void mutual_tls_through_the_pair(void **state)
{
    (void)state;
    struct mtls m;
    mtls_world(&m);
    for (int i = 0; i < 3; i++) { // later ones may resume
        int client = client_to(m.out, "10.0.0.5:9080");
        world_send(client, "hello");
        int server = world_accept(&x, m.listen_fd);
        assert_string_equal(world_peek(&x, server), "hello");
        exchange(client, server, "ping", "pong");
        shutdown(client, SHUT_WR);
        assert_string_equal(world_peek(&x, server), "");
        world_send(server, "bye");
        assert_string_equal(world_peek(&x, client), "bye");
        close(server);
        assert_string_equal(world_peek(&x, client), "");
        close(client);
    }
    world_turn_until(&x, listener_connections(&x.w) == 0);
    assert_int_equal(world_stat(&x, STAT_LISTENER, "in", STAT_ID_LISTENER_SSL_HANDSHAKE), 3);
    assert_int_equal(world_stat(&x, STAT_CLUSTER, "mtls", STAT_ID_CLUSTER_SSL_HANDSHAKE), 3);
    mtls_fini(&m);
}

static void wrong_server_name_is_refused(void **state)
{
    (void)state;
    struct mtls m;
    mtls_world(&m);
    static struct san_matcher other[] = { { .type = SAN_URI, .match = SAN_EXACT, .value = STR_INIT("spiffe://cluster.local/ns/x/sa/y") } };
    m.client_tls->sans = other;
    m.client_tls->san_count = 1;
    int client = client_to(m.out, "10.0.0.5:9080");
    world_send(client, "secret");
    is_closed(client);
    struct addr peer;
    assert_int_equal(socket_accept(m.listen_fd, &peer), -EAGAIN); // nothing came through
    assert_int_equal(world_stat(&x, STAT_CLUSTER, "mtls", STAT_ID_CLUSTER_SSL_CONNECTION_ERROR), 1);
    close(client);
    mtls_fini(&m);
}

static void wrong_client_name_is_refused(void **state)
{
    (void)state;
    struct mtls m;
    mtls_world(&m);
    static struct san_matcher other[] = { { .type = SAN_URI, .match = SAN_PREFIX, .value = STR_INIT("spiffe://other.domain/") } };
    m.server_tls->sans = other;
    m.server_tls->san_count = 1;
    int client = client_to(m.out, "10.0.0.5:9080");
    world_send(client, "secret");
    is_closed(client);
    struct addr peer;
    assert_int_equal(socket_accept(m.listen_fd, &peer), -EAGAIN);
    assert_int_equal(world_stat(&x, STAT_LISTENER, "in", STAT_ID_LISTENER_SSL_CONNECTION_ERROR), 1);
    close(client);
    mtls_fini(&m);
}

// Without its certificate the client side does not fall back to plaintext, and neither does the server side.
static void missing_certificates_fail_closed(void **state)
{
    (void)state;
    struct mtls m;
    mtls_world(&m);
    struct tls_ctx *kept = atomic_exchange(&m.client_slot->ctx, NULL);
    int client = client_to(m.out, "10.0.0.5:9080");
    is_closed(client);
    struct addr peer;
    assert_int_equal(socket_accept(m.listen_fd, &peer), -EAGAIN);
    close(client);
    atomic_store(&m.client_slot->ctx, kept);
    kept = atomic_exchange(&m.server_tls->slot->ctx, NULL);
    client = client_to(m.out, "10.0.0.5:9080");
    world_send(client, "secret");
    is_closed(client);
    assert_int_equal(socket_accept(m.listen_fd, &peer), -EAGAIN);
    close(client);
    atomic_store(&m.server_tls->slot->ctx, kept);
    mtls_fini(&m);
}

static void permissive_takes_plaintext(void **state)
{
    (void)state;
    struct mtls m;
    mtls_world(&m);
    bool done;
    struct socket_connect_opts o = { 0 };
    int client = socket_connect(&m.inbound, &o, &done);
    world_turns(&x, 3);
    world_send(client, "PLAIN");
    int server = world_accept(&x, m.listen_fd);
    assert_string_equal(world_peek(&x, server), "PLAIN");
    exchange(client, server, "ping", "pong");
    close(client);
    close(server);
    mtls_fini(&m);
}

// ---- configuration ----

static void registry_knows_names_and_types(void **state)
{
    (void)state;
    struct str none = { 0 };
    assert_non_null(network_filter_find(STR("any"), STR("stats.PluginConfig")));
    assert_non_null(network_filter_find(STR("any"), STR("envoy.tcp.metadataexchange.config.MetadataExchange")));
    assert_non_null(network_filter_find(STR("envoy.filters.network.http_connection_manager"), none));
    assert_null(network_filter_find(STR("envoy.filters.network.redis_proxy"), none));
    assert_null(network_filter_find(STR("envoy.filters.network.tcp_proxy"), STR("some.Other")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bytes_go_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(server_may_speak_first, setup, teardown),
        cmocka_unit_test_setup_teardown(half_close_is_passed_on, setup, teardown),
        cmocka_unit_test_setup_teardown(connect_failure_tries_another_host, setup, teardown),
        cmocka_unit_test_setup_teardown(connect_failure_closes_when_no_attempt_is_left, setup, teardown),
        cmocka_unit_test_setup_teardown(empty_and_unknown_clusters_close, setup, teardown),
        cmocka_unit_test_setup_teardown(snapshot_swap_under_traffic, setup, teardown),
        cmocka_unit_test_setup_teardown(back_pressure_holds_the_sender, setup, teardown),
        cmocka_unit_test_setup_teardown(reset_is_passed_on, setup, teardown),
        cmocka_unit_test_setup_teardown(idle_connections_end, setup, teardown),
        cmocka_unit_test_setup_teardown(mutual_tls_through_the_pair, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_server_name_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_client_name_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(missing_certificates_fail_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(permissive_takes_plaintext, setup, teardown),
        cmocka_unit_test(registry_knows_names_and_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
