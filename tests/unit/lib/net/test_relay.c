// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/net/relay.h"

// client fd ── a · relay · b ── server fd
static struct loop *loop;
static struct relay relay;
static struct conn *a, *b, *done_who;
static int client, server, dones;
static enum conn_close done_why;

static const struct conn_ops idle_ops;

static void tcp_pair(int *ret_a, int *ret_b)
{
    struct addr any, local, peer;
    assert_true(addr_parse(STR("127.0.0.1:0"), &any));
    int l = socket_listen(&any, NULL, NULL);
    assert_int_equal(socket_local(l, &local), 0);
    bool done;
    *ret_b = socket_connect(&local, NULL, &done);
    struct pollfd p = { .fd = l, .events = POLLIN };
    assert_int_equal(poll(&p, 1, 2000), 1);
    *ret_a = socket_accept(l, &peer);
    assert_true(*ret_a >= 0 && *ret_b >= 0);
    close(l);
}

static void on_done(struct relay *r, struct conn *who, enum conn_close why)
{
    assert_ptr_equal(r, &relay);
    dones++;
    done_who = who;
    done_why = why;
}

static int setup(void **state)
{
    (void)state;
    int fa, fb;
    loop = loop_new(NULL);
    tcp_pair(&fa, &client);
    tcp_pair(&fb, &server);
    a = conn_accepted(loop, fa, NULL, NULL, &idle_ops, NULL);
    b = conn_accepted(loop, fb, NULL, NULL, &idle_ops, NULL);
    dones = 0;
    relay = (struct relay){ 0 };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    relay_stop(&relay);
    conn_free(a);
    conn_free(b);
    loop_free(loop);
    if (client >= 0) {
        close(client);
    }
    if (server >= 0) {
        close(server);
    }
    buf_cache_free();
    return 0;
}

static void settle(void)
{
    loop_turn(loop, 20);
    for (int i = 0; i < 5; i++) {
        loop_turn(loop, 0);
    }
}

static void expect(int fd, const char *text)
{
    char out[64] = { 0 };
    for (uint64_t end = clock_mono_ms() + 2000; clock_mono_ms() < end && strlen(out) < strlen(text);) {
        loop_turn(loop, 5);
        size_t at = strlen(out);
        ssize_t k = recv(fd, out + at, sizeof(out) - 1 - at, MSG_DONTWAIT);
        (void)k;
    }
    assert_string_equal(out, text);
}

static bool is_eof(int fd)
{
    char c;
    for (uint64_t end = clock_mono_ms() + 2000; clock_mono_ms() < end;) {
        loop_turn(loop, 5);
        if (recv(fd, &c, 1, MSG_DONTWAIT) == 0) {
            return true;
        }
    }
    return false;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), 0), strlen(text));
}

static void test_both_ways(void **state)
{
    (void)state;
    say(client, "first"); // read before the relay exists
    settle();
    relay_start(&relay, a, b, 0, on_done);
    expect(server, "first");
    say(server, "second");
    expect(client, "second");
    say(client, "third");
    expect(server, "third");
    assert_int_equal(dones, 0);
}

static void test_half_close(void **state)
{
    (void)state;
    relay_start(&relay, a, b, 0, on_done);
    say(client, "request");
    shutdown(client, SHUT_WR);
    expect(server, "request");
    assert_true(is_eof(server));
    assert_int_equal(dones, 0);
    say(server, "response"); // the way back is still open
    expect(client, "response");
    shutdown(server, SHUT_WR);
    assert_true(is_eof(client));
    settle();
    assert_int_equal(dones, 1);
    assert_int_equal(done_why, CONN_CLOSE_REMOTE);
}

// The end came before the relay did, with bytes in front of it.
static void note_eof(struct conn *c)
{
    (void)c;
}

static void test_end_before_start(void **state)
{
    (void)state;
    static const struct conn_ops waiting = { .on_eof = note_eof };
    a->ops = &waiting;
    say(client, "all");
    shutdown(client, SHUT_WR);
    settle();
    assert_true(a->eof_in);
    relay_start(&relay, a, b, 0, on_done);
    expect(server, "all");
    assert_true(is_eof(server));
}

// Both owners had paused reading: the relay reads on.
static void test_takes_off_pauses(void **state)
{
    (void)state;
    conn_pause_read(a, CONN_PAUSE_OWNER);
    conn_pause_read(b, CONN_PAUSE_FLOW);
    say(client, "x");
    say(server, "y");
    settle();
    relay_start(&relay, a, b, 0, on_done);
    expect(server, "x");
    expect(client, "y");
}

static void test_reset(void **state)
{
    (void)state;
    relay_start(&relay, a, b, 0, on_done);
    socket_close_reset(server);
    server = -1;
    settle();
    assert_int_equal(dones, 1);
    assert_ptr_equal(done_who, b);
    assert_int_equal(done_why, CONN_CLOSE_RESET);
}

// A server that does not read: what the relay holds is bounded, the rest waits in the client's kernel; then all arrives.
static void test_back_pressure(void **state)
{
    (void)state;
    enum { N = 30000000 };
    relay_start(&relay, a, b, 0, on_done);
    char *p = mem_alloc(N), *out = mem_alloc(N);
    for (size_t i = 0; i < N; i++) {
        p[i] = (char)(i * 13 + i / 255);
    }
    size_t sent = 0, got = 0, quiet = 0;
    while (quiet < 5) { // until nothing moves any more
        ssize_t k = send(client, p + sent, N - sent, MSG_DONTWAIT);
        quiet = k > 0 ? 0 : quiet + 1;
        sent += k > 0 ? (size_t)k : 0;
        loop_turn(loop, 1);
    }
    assert_true(sent < N);
    assert_true(b->out.len >= b->high && b->out.len < b->high + 2 * CONN_READ_BUDGET);
    assert_int_equal(a->in.len, 0);
    assert_true(a->pause & CONN_PAUSE_FLOW);
    for (uint64_t end = clock_mono_ms() + 5000; got < N && clock_mono_ms() < end;) {
        ssize_t k = send(client, p + sent, N - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += k > 0 ? (size_t)k : 0;
        if (sent == N) {
            shutdown(client, SHUT_WR);
        }
        k = recv(server, out + got, N - got, MSG_DONTWAIT);
        got += k > 0 ? (size_t)k : 0;
        loop_turn(loop, 0);
    }
    assert_int_equal(got, N);
    assert_memory_equal(p, out, N);
    assert_true(is_eof(server));
    free(p);
    free(out);
}

static void test_idle(void **state)
{
    (void)state;
    loop_set_fake_time(loop, 10000);
    relay_start(&relay, a, b, 1000, on_done);
    loop_set_fake_time(loop, 10900);
    say(client, "x");
    expect(server, "x");
    loop_set_fake_time(loop, 11800); // a byte moved at 10900
    settle();
    assert_int_equal(dones, 0);
    loop_set_fake_time(loop, 11899);
    settle();
    assert_int_equal(dones, 0);
    loop_set_fake_time(loop, 11900);
    settle();
    assert_int_equal(dones, 1);
    assert_null(done_who);
}

static void test_stop(void **state)
{
    (void)state;
    relay_start(&relay, a, b, 1000, on_done);
    relay_stop(&relay);
    relay_stop(&relay);
    socket_close_reset(server);
    server = -1;
    settle();
    assert_int_equal(dones, 0);
}

// ---- sides whose first bytes are not for the other ----

static int gates;

// "<...>" is the gate's own; "!" ends the relay.
static bool gate(struct relay *r, struct conn *c, bool eof)
{
    gates++;
    struct str bytes = buf_pullup(&c->in, c->in.len);
    ptrdiff_t end = str_find(bytes, '>');
    if (bytes.n && bytes.p[0] == '!') {
        relay_stop(r);
        return false;
    }
    if (end < 0) {
        return eof;
    }
    buf_drain(&c->in, (size_t)end + 1);
    return true;
}

static void nothing(struct conn *c)
{
    (void)c;
}
static const struct conn_ops keeps_open = { .on_eof = nothing };

static void start_gated(uint8_t sides)
{
    gates = 0;
    relay.gate = gate;
    relay.gated = sides;
    relay_start(&relay, a, b, 0, on_done);
}

static void test_gate_takes_its_own(void **state)
{
    (void)state;
    say(client, "<he");
    settle();
    start_gated(RELAY_A);
    say(server, "greeting"); // the other direction is free
    expect(client, "greeting");
    say(client, "llo>payload");
    expect(server, "payload");
    int asked = gates;
    say(client, "<more>");
    expect(server, "<more>");
    assert_int_equal(gates, asked); // not again
}

static void test_gate_on_both_sides(void **state)
{
    (void)state;
    start_gated(RELAY_A | RELAY_B);
    say(server, "<b>");
    settle();
    say(client, "<a>");
    settle();
    say(server, "x");
    expect(client, "x");
    say(client, "y");
    expect(server, "y");
}

static void test_gate_at_the_end(void **state)
{
    (void)state;
    start_gated(RELAY_A);
    say(client, "<half");
    shutdown(client, SHUT_WR);
    expect(server, "<half");
    assert_true(is_eof(server));
    assert_int_equal(dones, 0); // the other half goes on
    say(server, "answer");
    expect(client, "answer");
}

static void test_gate_ends_the_relay(void **state)
{
    (void)state;
    say(client, "!");
    settle();
    start_gated(RELAY_A);
    assert_null(relay.a);
    say(server, "x");
    settle();
}

// Bytes and the client's end are both there before the relay begins, and the gate does not like the bytes: nobody is asked again.
static void test_gate_ends_the_relay_before_the_end(void **state)
{
    (void)state;
    a->ops = &keeps_open;
    say(client, "!");
    shutdown(client, SHUT_WR);
    for (int i = 0; i < 1000 && !a->eof_in; i++) {
        loop_turn(loop, 10);
    }
    assert_true(a->eof_in && a->in.len == 1);
    start_gated(RELAY_A);
    assert_int_equal(gates, 1);
    assert_null(relay.a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
        T(test_both_ways), T(test_half_close), T(test_end_before_start), T(test_takes_off_pauses), T(test_reset),
        T(test_back_pressure), T(test_idle), T(test_stop), T(test_gate_takes_its_own), T(test_gate_on_both_sides), T(test_gate_at_the_end),
        T(test_gate_ends_the_relay), T(test_gate_ends_the_relay_before_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
