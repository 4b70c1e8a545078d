// SPDX-License-Identifier: Apache-2.0
// The transport under real connections: loop, sockets, watermarks, over loopback.
#define FIXTURE_NO_CONN
#include "tests/unit/lib/tls/fixture.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/event/loop.h"
#include "lib/net/conn.h"

#define ALICE "spiffe://td/ns/a/sa/alice"
#define BOB "spiffe://td/ns/b/sa/bob"
enum { WAIT_MS = 10000 };

static struct loop *loop;
static struct tls_ctx *client_ctx, *server_ctx;
static int listen_fd;
static struct addr listen_addr;

struct end {
    struct conn *c;
    bool open, eof, closed;
    enum conn_close why;
    char detail[512];
    size_t got;
    bool keep;         // do not consume
    struct buf *echo;  // echo what comes
    unsigned lows;
};

static void on_open(struct conn *c)
{
    ((struct end *)c->owner)->open = true;
}
static void on_data(struct conn *c)
{
    struct end *e = c->owner;
    if (e->keep) {
        return;
    }
    e->got += c->in.len;
    if (e->echo) {
        conn_write(c, &c->in);
        if (conn_above_high(c)) {
            conn_pause_read(c, CONN_PAUSE_FLOW);
        }
    } else {
        buf_clear(&c->in);
    }
}
static void on_low(struct conn *c)
{
    ((struct end *)c->owner)->lows++;
    conn_resume_read(c, CONN_PAUSE_FLOW);
}
static void on_eof(struct conn *c)
{
    ((struct end *)c->owner)->eof = true;
}
static void on_close(struct conn *c, enum conn_close why)
{
    struct end *e = c->owner;
    e->closed = true;
    e->why = why;
    snprintf(e->detail, sizeof(e->detail), "%s", c->close_detail ? c->close_detail : "");
}
static const struct conn_ops ops = {
    .on_open = on_open, .on_data = on_data, .on_low = on_low, .on_eof = on_eof, .on_close = on_close,
};

#define WAIT_FOR(cond)                                                                                                 \
    do {                                                                                                               \
        uint64_t end_ = clock_mono_ms() + WAIT_MS;                                                                     \
        while (!(cond)) {                                                                                              \
            if (clock_mono_ms() > end_) {                                                                              \
                fail_msg("timed out waiting for %s", #cond);                                                           \
            }                                                                                                          \
            loop_turn(loop, 20);                                                                                       \
        }                                                                                                              \
    } while (0)

static int setup(void **st)
{
    (void)st;
    struct err err = { 0 };
    fixture_ca();
    struct identity alice = fixture_identity(ALICE), bob = fixture_identity(BOB);
    client_ctx = fixture_ctx(false, &alice, true);
    server_ctx = fixture_ctx(true, &bob, true);
    loop = loop_new(&err);
    assert_true(addr_parse(STR("127.0.0.1:0"), &listen_addr));
    struct socket_listen_opts o = { 0 };
    listen_fd = socket_listen(&listen_addr, &o, &err);
    assert_true(listen_fd >= 0);
    assert_int_equal(socket_local(listen_fd, &listen_addr), 0);
    return 0;
}

static int teardown(void **st)
{
    (void)st;
    close(listen_fd);
    loop_free(loop);
    tls_ctx_unref(client_ctx);
    tls_ctx_unref(server_ctx);
    arena_fini(&mem);
    return tls_ctx_live() == 0 ? 0 : -1;
}

static struct conn *accept_one(struct end *e)
{
    struct addr peer;
    int fd = -EAGAIN;
    uint64_t end = clock_mono_ms() + WAIT_MS;
    while (fd == -EAGAIN && clock_mono_ms() < end) {
        loop_turn(loop, 1);
        fd = socket_accept(listen_fd, &peer);
    }
    assert_true(fd >= 0);
    e->c = conn_accepted(loop, fd, &peer, &listen_addr, &ops, e);
    return e->c;
}

static void dial(struct end *client, struct end *server, const struct tls_client_opts *co, const struct tls_server_opts *so)
{
    client->c = conn_connect(loop, &listen_addr, NULL, 5000, &ops, client);
    conn_set_transport(client->c, transport_tls_client(client_ctx, co), 0);
    accept_one(server);
    conn_set_transport(server->c, transport_tls_server(server_ctx, so), 5000);
}

static void hang_up(struct end *a, struct end *b)
{
    conn_free(a->c);
    conn_free(b->c);
    loop_turn(loop, 0);
}

static void test_big_echo(void **st)
{
    (void)st;
    enum { TOTAL = 5 * 1000 * 1000 };
    struct end c = { 0 }, s = { 0 };
    struct buf marker;
    s.echo = &marker;
    struct tls_client_opts co = { 0 };
    dial(&c, &s, &co, NULL);
    WAIT_FOR(c.open && s.open);
    assert_true(str_is(transport_tls_info(c.c)->peer_uri, BOB));
    assert_true(str_is(transport_tls_info(s.c)->peer_uri, ALICE));
    char *data = calloc(1, TOTAL);
    conn_write_bytes(c.c, data, TOTAL);
    WAIT_FOR(c.got == TOTAL);
    assert_int_equal(s.got, TOTAL);
    assert_int_equal(c.c->bytes_out, TOTAL);
    assert_int_equal(c.c->bytes_in, TOTAL);
    free(data);
    hang_up(&c, &s);
}

static void test_half_close(void **st)
{
    (void)st;
    struct end c = { 0 }, s = { 0 };
    struct tls_client_opts co = { 0 };
    dial(&c, &s, &co, NULL);
    WAIT_FOR(c.open && s.open);
    conn_write_bytes(c.c, "question", 8);
    conn_shutdown(c.c);
    WAIT_FOR(s.eof);
    assert_int_equal(s.got, 8);
    conn_write_bytes(s.c, "answer", 6);
    conn_shutdown(s.c);
    WAIT_FOR(c.eof && c.closed && s.closed);
    assert_int_equal(c.got, 6);
    assert_int_equal(c.why, CONN_CLOSE_REMOTE);
    hang_up(&c, &s);
}

static void test_bytes_taken_by_an_inspector(void **st)
{
    (void)st;
    struct end c = { 0 }, s = { .keep = true };
    struct tls_client_opts co = { 0 };
    c.c = conn_connect(loop, &listen_addr, NULL, 5000, &ops, &c);
    conn_set_transport(c.c, transport_tls_client(client_ctx, &co), 0);
    accept_one(&s);
    WAIT_FOR(s.c->in.len > 100); // the hello, looked at and left
    s.keep = false;
    conn_set_transport(s.c, transport_tls_server(server_ctx, NULL), 5000);
    WAIT_FOR(c.open && s.open);
    conn_write_bytes(c.c, "x", 1);
    WAIT_FOR(s.got == 1);
    hang_up(&c, &s);
}

static void test_refused_name(void **st)
{
    (void)st;
    struct end c = { 0 }, s = { 0 };
    struct san_matcher m = { SAN_URI, SAN_EXACT, false, STR_INIT("spiffe://td/ns/x/sa/x") };
    struct tls_client_opts co = { .sans = &m, .san_count = 1 };
    dial(&c, &s, &co, NULL);
    WAIT_FOR(c.closed && s.closed);
    assert_false(c.open || s.open);
    assert_int_equal(c.why, CONN_CLOSE_TLS);
    assert_int_equal(s.why, CONN_CLOSE_TLS);
    assert_non_null(strstr(c.detail, "match none of the expected [spiffe://td/ns/x/sa/x]"));
    assert_non_null(strstr(s.detail, "bad certificate"));
    hang_up(&c, &s);
}

static void test_plain_client(void **st)
{
    (void)st;
    struct end c = { 0 }, s = { 0 };
    c.c = conn_connect(loop, &listen_addr, NULL, 5000, &ops, &c);
    conn_write_bytes(c.c, "GET / HTTP/1.1\r\n\r\n", 18);
    accept_one(&s);
    conn_set_transport(s.c, transport_tls_server(server_ctx, NULL), 5000);
    WAIT_FOR(s.closed);
    assert_int_equal(s.why, CONN_CLOSE_TLS);
    assert_non_null(strstr(s.detail, "plain HTTP"));
    hang_up(&c, &s);
}

static void test_silent_client_times_out(void **st)
{
    (void)st;
    struct end c = { 0 }, s = { 0 };
    c.c = conn_connect(loop, &listen_addr, NULL, 5000, &ops, &c);
    accept_one(&s);
    conn_set_transport(s.c, transport_tls_server(server_ctx, NULL), 20);
    WAIT_FOR(s.closed);
    assert_int_equal(s.why, CONN_CLOSE_CONNECT_TIMEOUT);
    hang_up(&c, &s);
}

static void test_many_small_messages_and_reset(void **st)
{
    (void)st;
    struct end c = { 0 }, s = { 0 };
    struct buf marker;
    s.echo = &marker;
    struct tls_client_opts co = { 0 };
    dial(&c, &s, &co, NULL);
    WAIT_FOR(c.open && s.open);
    for (size_t i = 1; i <= 300; i++) {
        conn_write_bytes(c.c, "ping", 4);
        WAIT_FOR(c.got == 4 * i);
    }
    conn_free_reset(c.c);
    WAIT_FOR(s.closed);
    assert_true(s.why == CONN_CLOSE_RESET);
    conn_free(s.c);
    loop_turn(loop, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_big_echo),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_bytes_taken_by_an_inspector),
        cmocka_unit_test(test_refused_name),
        cmocka_unit_test(test_plain_client),
        cmocka_unit_test(test_silent_client_times_out),
        cmocka_unit_test(test_many_small_messages_and_reset),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
