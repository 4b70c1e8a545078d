// SPDX-License-Identifier: Apache-2.0
// Connections through a listener's filters up to the choice of the chain, with real sockets; the terminal filter only notes who came.
#include "tests/unit/proxy/world.h"

#include <stdio.h>

#include "proxy/filters/listener/registry.h"
#include "proxy/listener/listener.h"
#include "proxy/listener/listener_filter.h"
#include "proxy/listener/network_filter.h"

static struct world x;
static char taken[512]; // "chain:bytes;"
static struct downstream *last;

static void closed(struct conn *c, enum conn_close why)
{
    (void)why;
    last = NULL;
    downstream_close(c->owner);
}
static const struct conn_ops taken_ops = { .on_close = closed };

static void note(struct downstream *d, const void *cfg)
{
    struct str front = buf_front(&d->conn->in);
    size_t n = strlen(taken);
    snprintf(taken + n, sizeof(taken) - n, "%s:%.*s;", (const char *)cfg, STR_FMT(front));
    d->conn->ops = &taken_ops;
    d->conn->owner = d;
    last = d;
}
static const struct network_filter_ops terminal = { .ext = { .name = "note" }, .terminal = true, .start = note };

static enum filter_verdict refuse(struct downstream *d, const void *cfg)
{
    (void)d, (void)cfg;
    return FILTER_CLOSE;
}
static const struct network_filter_ops refusing = { .ext = { .name = "refuse" }, .on_connection = refuse };

static struct listener_cfg *l;

static int setup(void **state)
{
    (void)state;
    world_init(&x);
    listener_worker_init(&x.w);
    taken[0] = '\0';
    last = NULL;
    l = listener_cfg_new();
    l->name = l->stat_name = STR("in");
    l->chains = chain_matcher_new(&l->arena);
    l->listener_filters = arena_array(&l->arena, struct listener_filter_cfg, 4);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    listener_cfg_unref(l);
    listener_worker_fini(&x.w);
    world_fini(&x);
    return 0;
}

static struct listener_filter_cfg *filter(const char *name)
{
    const struct listener_filter_ops *ops = listener_filter_find(str_c(name), (struct str){ 0 });
    assert_non_null(ops);
    l->listener_filters[l->listener_filter_count].ext.ops = &ops->ext;
    return &l->listener_filters[l->listener_filter_count++];
}

static void chain(const char *name, uint32_t port, const char *transport, const char *alpn)
{
    struct filter_chain *c = arena_new(&l->arena, struct filter_chain);
    c->filters = arena_new(&l->arena, struct ext);
    c->filters[0] = (struct ext){ .ops = &terminal.ext, .cfg = name };
    c->filter_count = 1;
    struct str a = str_c(alpn);
    struct chain_criteria k = { .destination_port = port, .transport_protocol = str_c(transport), .application_protocols = &a,
                                .application_protocol_count = alpn != NULL };
    assert_int_equal(chain_matcher_add(l->chains, &k, c, str_c(name), NULL), 0);
}

static int client(const char *dst)
{
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    struct addr peer = world_ip("10.1.1.9:40000"), local = world_ip(dst);
    listener_inject(&x.w, l, fd[0], &peer, &local);
    return fd[1];
}

#define TLS "envoy.filters.listener.tls_inspector"
#define HTTP "envoy.filters.listener.http_inspector"

static void no_filters_begin_at_once(void **state)
{
    (void)state;
    chain("all", 0, NULL, NULL);
    int fd = client("10.0.0.5:1");
    assert_string_equal(taken, "all:;");
    close(fd);
    world_turn_until(&x, listener_connections(&x.w) == 0);
}

static void http_is_found_in_pieces(void **state)
{
    (void)state;
    filter(TLS);
    filter(HTTP);
    chain("http", 0, "raw_buffer", "http/1.1");
    chain("raw", 0, "raw_buffer", NULL);
    int fd = client("10.0.0.5:1");
    world_send(fd, "GE");
    world_turns(&x, 5);
    assert_string_equal(taken, "");
    assert_int_equal(world_stat(&x, STAT_LISTENER, "in", STAT_ID_LISTENER_DOWNSTREAM_PRE_CX_ACTIVE), 1);
    world_send(fd, "T / HTTP/1.1\r");
    world_turn_until(&x, taken[0]);
    assert_string_equal(taken, "http:GET / HTTP/1.1\r;"); // all bytes are there
    assert_int_equal(world_stat(&x, STAT_LISTENER, "in", STAT_ID_LISTENER_DOWNSTREAM_PRE_CX_ACTIVE), 0);
    close(fd);
    world_turn_until(&x, listener_connections(&x.w) == 0);
}

static void other_bytes_are_raw(void **state)
{
    (void)state;
    filter(TLS);
    filter(HTTP);
    chain("http", 0, "raw_buffer", "http/1.1");
    chain("raw", 0, "raw_buffer", NULL);
    int fd = client("10.0.0.5:1");
    world_send(fd, "*1\r\n");
    world_turn_until(&x, taken[0]);
    assert_string_equal(taken, "raw:*1\r\n;");
    close(fd);
}

// istiod: filter_disabled names ports whose chains need no look, so protocols where the server speaks first do not wait.
static void disabled_by_port(void **state)
{
    (void)state;
    static struct port_predicate p = { .kind = PP_RANGE, .start = 25, .end = 26 };
    filter(TLS)->disabled = &p;
    filter(HTTP)->disabled = &p;
    chain("raw", 0, "raw_buffer", NULL);
    int fd = client("10.0.0.5:25");
    assert_string_equal(taken, "raw:;");
    close(fd);
    fd = client("10.0.0.5:26");
    assert_string_equal(taken, "raw:;");
    close(fd);
}

static void timeout_goes_on_or_closes(void **state)
{
    (void)state;
    filter(TLS);
    chain("raw", 0, "raw_buffer", NULL);
    l->listener_filters_timeout_ms = 20;
    int fd = client("10.0.0.5:1");
    assert_string_equal(world_peek(&x, fd), "");
    assert_string_equal(taken, "");
    close(fd);
    l->continue_on_timeout = true;
    fd = client("10.0.0.5:1");
    world_turn_until(&x, taken[0]);
    assert_string_equal(taken, "raw:;");
    assert_int_equal(world_stat(&x, STAT_LISTENER, "in", STAT_ID_LISTENER_DOWNSTREAM_PRE_CX_TIMEOUT), 2);
    close(fd);
}

static void end_before_the_verdict(void **state)
{
    (void)state;
    filter(HTTP);
    chain("raw", 0, "raw_buffer", NULL);
    int fd = client("10.0.0.5:1");
    close(fd); // without a byte
    world_turn_until(&x, listener_connections(&x.w) == 0);
    assert_string_equal(taken, "");
    fd = client("10.0.0.5:1");
    world_send(fd, "GET"); // could still become HTTP, but no more comes
    shutdown(fd, SHUT_WR);
    world_turn_until(&x, taken[0]);
    assert_string_equal(taken, "raw:GET;");
    close(fd);
}

static void no_chain_closes(void **state)
{
    (void)state;
    chain("tls-only", 0, "tls", NULL);
    int fd = client("10.0.0.5:1");
    assert_string_equal(world_peek(&x, fd), "");
    assert_int_equal(world_stat(&x, STAT_LISTENER, "in", STAT_ID_LISTENER_NO_FILTER_CHAIN_MATCH), 1);
    close(fd);
    world_turn_until(&x, listener_connections(&x.w) == 0);
}

static void network_filter_may_refuse(void **state)
{
    (void)state;
    struct filter_chain *c = arena_new(&l->arena, struct filter_chain);
    c->filters = arena_array(&l->arena, struct ext, 2);
    c->filters[0] = (struct ext){ .ops = &refusing.ext };
    c->filters[1] = (struct ext){ .ops = &terminal.ext, .cfg = "never" };
    c->filter_count = 2;
    l->default_chain = c;
    int fd = client("10.0.0.5:1");
    assert_string_equal(world_peek(&x, fd), "");
    assert_string_equal(taken, "");
    close(fd);
}

// A handshake record whose content is garbage, sent slowly, and 70 KiB of nothing else.
static void endless_hello_is_bounded(void **state)
{
    (void)state;
    filter(TLS);
    chain("raw", 0, "raw_buffer", NULL);
    chain("tls", 0, "tls", NULL);
    int fd = client("10.0.0.5:1");
    char rec[5 + 1024] = { 22, 3, 1, 4, 0, 1, 0, (char)0xff, 0 }; // a ClientHello of 65,280 bytes
    for (int i = 0; i < 80 && !taken[0]; i++) {
        (void)!send(fd, rec, sizeof(rec), MSG_NOSIGNAL);
        world_turns(&x, 2);
        memset(rec + 5, 0, 1024);
    }
    assert_memory_equal(taken, "raw:", 4);
    close(fd);
}

static void hello_reaches_the_chain(void **state)
{
    (void)state;
    filter(TLS);
    filter(HTTP);
    chain("istio", 9080, "tls", "istio");
    chain("raw", 9080, "raw_buffer", NULL);
    int fd = client("10.0.0.5:9080");
    static const unsigned char hello[] = {
        22, 3, 1, 0, 59,                                                                 // record
        1, 0, 0, 55, 3, 3,                                                               // ClientHello, version
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // random
        0, 0, 2, 0x13, 1, 1, 0,                                                          // session, ciphers, compression
        0, 12, 0, 16, 0, 8, 0, 6, 5, 'i', 's', 't', 'i', 'o',                            // ALPN
    };
    assert_int_equal(send(fd, hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
    world_turn_until(&x, taken[0]);
    assert_memory_equal(taken, "istio:", 6);
    assert_true(last->tls_hello);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_filters_begin_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(http_is_found_in_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(other_bytes_are_raw, setup, teardown),
        cmocka_unit_test_setup_teardown(disabled_by_port, setup, teardown),
        cmocka_unit_test_setup_teardown(timeout_goes_on_or_closes, setup, teardown),
        cmocka_unit_test_setup_teardown(end_before_the_verdict, setup, teardown),
        cmocka_unit_test_setup_teardown(no_chain_closes, setup, teardown),
        cmocka_unit_test_setup_teardown(network_filter_may_refuse, setup, teardown),
        cmocka_unit_test_setup_teardown(endless_hello_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(hello_reaches_the_chain, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
