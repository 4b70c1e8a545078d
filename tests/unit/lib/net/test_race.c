// SPDX-License-Identifier: Apache-2.0
// RFC 8305: order of addresses, and who is tried when. Time is moved by hand.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/event/signal.h"
#include "lib/net/conn.h"
#include "lib/net/race.h"

static struct loop *loop;
static int result_fd, results;
static size_t winner;

static int setup(void **state)
{
    (void)state;
    signal_block_all();
    loop = loop_new(NULL);
    loop_set_fake_time(loop, 1000);
    results = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_turn(loop, 0);
    loop_free(loop);
    return 0;
}

static struct addr ip(const char *text)
{
    struct addr a;
    assert_true(addr_parse(str_c(text), &a));
    return a;
}

static int server(struct addr *ret, int backlog)
{
    struct addr any = ip("127.0.0.1:0");
    struct socket_listen_opts o = { .backlog = backlog };
    int fd = socket_listen(&any, &o, NULL);
    assert_true(fd >= 0);
    assert_int_equal(socket_local(fd, ret), 0);
    return fd;
}

static struct addr dead_port(void)
{
    struct addr a;
    close(server(&a, 1));
    return a;
}

enum { FILL = 3 };

// A server whose queue is full: connecting hangs. Fills fds.
static int full_server(struct addr *ret, int fds[FILL])
{
    int fd = server(ret, 1);
    for (int i = 0; i < FILL; i++) {
        struct socket_connect_opts o = { 0 };
        bool done;
        fds[i] = socket_connect(ret, &o, &done);
        assert_true(fds[i] >= 0);
    }
    return fd;
}

static void done(void *arg, int fd, size_t i)
{
    (void)arg;
    result_fd = fd;
    winner = i;
    results++;
}

static void turn_until_result(void)
{
    for (int i = 0; i < 3000 && !results; i++) {
        loop_turn(loop, 1);
    }
    assert_int_equal(results, 1);
}

static void families_take_turns(void **state)
{
    (void)state;
    const char *const text[] = { "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "[fd00::1]:1", "[fd00::2]:1", "[fd00::3]:1", "[fd00::4]:1" };
    static const struct {
        uint16_t first;
        uint32_t count;
        int order[7];
    } v[] = { { 0, 1, { 0, 3, 1, 4, 2, 5, 6 } },
              { AF_INET6, 1, { 3, 0, 4, 1, 5, 2, 6 } },
              { AF_INET6, 2, { 3, 4, 0, 5, 1, 6, 2 } },
              { AF_INET, 9, { 0, 1, 2, 3, 4, 5, 6 } } };
    for (size_t k = 0; k < 4; k++) {
        struct addr a[7];
        for (size_t i = 0; i < 7; i++) {
            a[i] = ip(text[i]);
        }
        race_order(a, 7, v[k].first, v[k].count);
        for (size_t i = 0; i < 7; i++) {
            struct addr want = ip(text[v[k].order[i]]);
            assert_true(addr_eq(&a[i], &want));
        }
    }
}

static void a_refused_address_gives_way_at_once(void **state)
{
    (void)state;
    struct race_target v[3] = { { .to = dead_port() }, { .to = dead_port() } };
    int fd = server(&v[2].to, 8);
    struct race *r = race_start(loop, v, 3, done, NULL);
    turn_until_result(); // no time has passed
    assert_int_equal(winner, 2);
    assert_true(result_fd >= 0);
    close(result_fd);
    race_free(r);
    close(fd);
}

static void a_silent_address_gives_way_after_the_delay(void **state)
{
    (void)state;
    struct race_target v[2] = { 0 };
    int fill[FILL], silent = full_server(&v[0].to, fill), fd = server(&v[1].to, 8);
    struct race *r = race_start(loop, v, 2, done, NULL);
    for (int i = 0; i < 5; i++) {
        loop_turn(loop, 1);
    }
    loop_set_fake_time(loop, 1000 + RACE_DELAY_MS - 1);
    for (int i = 0; i < 5; i++) {
        loop_turn(loop, 1);
    }
    assert_int_equal(results, 0);
    loop_set_fake_time(loop, 1000 + RACE_DELAY_MS);
    turn_until_result();
    assert_int_equal(winner, 1);
    close(result_fd);
    race_free(r);
    for (int i = 0; i < FILL; i++) {
        close(fill[i]);
    }
    close(silent);
    close(fd);
}

static void all_refused(void **state)
{
    (void)state;
    struct race_target v[2] = { { .to = dead_port() }, { .to = dead_port() } };
    struct race *r = race_start(loop, v, 2, done, NULL);
    turn_until_result();
    assert_int_equal(result_fd, -ECONNREFUSED);
    race_free(r);
}

static void freed_in_the_middle(void **state)
{
    (void)state;
    struct race_target v[2] = { 0 };
    int a = server(&v[0].to, 8), b = server(&v[1].to, 8);
    race_free(race_start(loop, v, 2, done, NULL));
    struct race *r = race_start(loop, v, 2, done, NULL);
    loop_turn(loop, 0);
    if (!results) {
        race_free(r);
        loop_turn(loop, 1);
        assert_int_equal(results, 0);
    } else {
        close(result_fd);
        race_free(r);
    }
    close(a);
    close(b);
}

static bool opened, closed;

static void on_open(struct conn *c)
{
    opened = true;
    conn_write_bytes(c, "x", 1);
}

static void on_close(struct conn *c, enum conn_close why)
{
    (void)c;
    closed = why == CONN_CLOSE_CONNECT_FAIL;
}

static void connections_race(void **state)
{
    (void)state;
    static const struct conn_ops ops = { .on_open = on_open, .on_close = on_close };
    struct race_target v[2] = { { .to = dead_port() } };
    int fd = server(&v[1].to, 8), peer = -1;
    opened = closed = false;
    struct conn *c = conn_connect_any(loop, v, 2, 0, &ops, NULL);
    char byte = 0;
    for (int i = 0; i < 3000 && byte == 0; i++) {
        struct addr from;
        loop_turn(loop, 1);
        peer = peer < 0 ? socket_accept(fd, &from) : peer;
        (void)!recv(peer, &byte, 1, MSG_DONTWAIT);
    }
    assert_true(opened);
    assert_int_equal(byte, 'x');
    assert_true(addr_eq(&c->peer, &v[1].to));
    conn_free(c);
    close(peer);
    close(fd);
    v[1].to = dead_port();
    c = conn_connect_any(loop, v, 2, 0, &ops, NULL);
    for (int i = 0; i < 3000 && !closed; i++) {
        loop_turn(loop, 1);
    }
    assert_true(closed);
    assert_int_equal(c->connect_errno, ECONNREFUSED);
    conn_free(c);
    conn_free(conn_connect_any(loop, v, 2, 0, &ops, NULL)); // before it began
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_take_turns), T(a_refused_address_gives_way_at_once), T(a_silent_address_gives_way_after_the_delay),
        T(all_refused), T(freed_in_the_middle), T(connections_race),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
