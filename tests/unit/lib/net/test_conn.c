// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/net/conn.h"

static struct loop *loop;

// One connection and all that it reported.
struct end {
    struct conn *c;
    int opens, datas, eofs, lows, draineds, closes;
    enum conn_close why;
    struct buf got; // all bytes taken from c->in
    bool keep;      // leave bytes in c->in
    bool free_on_data, free_on_close, shutdown_on_eof, pause_on_data;
};

static void on_open(struct conn *c)
{
    ((struct end *)c->owner)->opens++;
}
static void on_data(struct conn *c)
{
    struct end *e = c->owner;
    e->datas++;
    if (!e->keep) {
        buf_move(&e->got, &c->in, c->in.len);
    }
    if (e->pause_on_data) {
        conn_pause_read(c, CONN_PAUSE_FLOW);
    }
    if (e->free_on_data) {
        conn_free(c);
        e->c = NULL;
    }
}
static void on_eof(struct conn *c)
{
    struct end *e = c->owner;
    e->eofs++;
    if (e->shutdown_on_eof) {
        conn_shutdown(c);
    }
}
static void on_low(struct conn *c)
{
    ((struct end *)c->owner)->lows++;
}
static void on_drained(struct conn *c)
{
    ((struct end *)c->owner)->draineds++;
}
static void on_close(struct conn *c, enum conn_close why)
{
    struct end *e = c->owner;
    e->closes++;
    e->why = why;
    assert_int_equal(c->state, CONN_CLOSED);
    if (e->free_on_close) {
        conn_free(c);
        e->c = NULL;
    }
}

static const struct conn_ops ops = {
    .on_open = on_open,
    .on_data = on_data,
    .on_eof = on_eof,
    .on_low = on_low,
    .on_drained = on_drained,
    .on_close = on_close,
};
static const struct conn_ops ops_no_half_close = { .on_data = on_data, .on_close = on_close };

static int setup(void **state)
{
    (void)state;
    loop = loop_new(NULL);
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    buf_cache_free();
    return 0;
}

// Turns until cond holds, at most two seconds.
#define UNTIL(cond)                                                                                                    \
    do {                                                                                                               \
        for (uint64_t end_ = clock_mono_ms() + 2000; !(cond);) {                                                       \
            if (clock_mono_ms() > end_) {                                                                              \
                fail_msg("never: %s", #cond);                                                                          \
            }                                                                                                          \
            loop_turn(loop, 10);                                                                                       \
        }                                                                                                              \
    } while (0)

static void settle(void)
{
    for (int i = 0; i < 5; i++) {
        loop_turn(loop, 0);
    }
}

static void finish(struct end *e)
{
    conn_free(e->c);
    e->c = NULL;
    buf_clear(&e->got);
}

// A connected TCP pair over loopback; a non-blocking.
static void tcp_pair(int *ret_a, int *ret_b)
{
    struct addr any, local, peer;
    assert_true(addr_parse(STR("127.0.0.1:0"), &any));
    int l = socket_listen(&any, NULL, NULL);
    assert_true(l >= 0);
    assert_int_equal(socket_local(l, &local), 0);
    bool done;
    *ret_b = socket_connect(&local, NULL, &done);
    struct pollfd p = { .fd = l, .events = POLLIN };
    assert_int_equal(poll(&p, 1, 2000), 1);
    *ret_a = socket_accept(l, &peer);
    assert_true(*ret_a >= 0 && *ret_b >= 0);
    close(l);
}

// e's connection over one half of a pair; returns the other half, blocking or not as told.
static int half(struct end *e, const struct conn_ops *o)
{
    int a, b;
    tcp_pair(&a, &b);
    e->c = conn_accepted(loop, a, NULL, NULL, o, e);
    return b;
}

static char *pattern(size_t n)
{
    char *p = mem_alloc(n);
    for (size_t i = 0; i < n; i++) {
        p[i] = (char)(i * 7 + i / 253);
    }
    return p;
}

// Reads what is there from a non-blocking descriptor.
static size_t slurp(int fd, char *out, size_t max)
{
    size_t n = 0;
    for (ssize_t k; n < max && (k = recv(fd, out + n, max - n, MSG_DONTWAIT)) > 0;) {
        n += (size_t)k;
    }
    return n;
}

static void test_echo_small(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    assert_int_equal(e.c->state, CONN_OPEN);
    assert_int_equal(send(fd, "hello", 5, 0), 5);
    UNTIL(e.datas);
    assert_int_equal(e.datas, 1);
    assert_true(str_is(buf_pullup(&e.got, 5), "hello"));
    assert_int_equal(e.c->bytes_in, 5);
    assert_null(e.c->in.head); // no buffer while idle
    conn_write(e.c, &e.got);
    assert_int_equal(e.got.len, 0);
    assert_int_equal(e.c->out.len, 0); // sent at once
    char out[8];
    assert_int_equal(recv(fd, out, 8, 0), 5);
    assert_int_equal(e.draineds, 0); // never from inside
    settle();
    assert_int_equal(e.draineds, 1);
    assert_int_equal(e.opens, 0); // accepted without transport
    conn_write_bytes(e.c, "direct", 6);
    assert_int_equal(recv(fd, out, 8, 0), 6);
    assert_int_equal(e.c->bytes_out, 11);
    conn_write_bytes(e.c, "", 0);
    finish(&e);
    close(fd);
}

static void test_kept_bytes(void **state)
{
    (void)state;
    struct end e = { .keep = true };
    int fd = half(&e, &ops);
    assert_int_equal(send(fd, "ab", 2, 0), 2);
    UNTIL(e.datas == 1);
    settle();
    assert_int_equal(e.datas, 1); // only with new bytes
    assert_int_equal(send(fd, "cd", 2, 0), 2);
    UNTIL(e.datas == 2);
    assert_true(str_is(buf_pullup(&e.c->in, 4), "abcd"));
    finish(&e);
    close(fd);
}

// A read stops in front of an urgent byte; what follows it is read too.
static void test_urgent_byte(void **state)
{
    (void)state;
    struct end e = { .keep = true };
    int fd = half(&e, &ops);
    assert_int_equal(send(fd, "ab", 2, 0), 2);
    UNTIL(e.c->in.len == 2);
    assert_int_equal(send(fd, "cd", 2, 0), 2);
    assert_int_equal(send(fd, "!", 1, MSG_OOB), 1);
    assert_int_equal(send(fd, "ef", 2, 0), 2);
    UNTIL(e.c->in.len >= 6);
    assert_true(str_is(buf_pullup(&e.c->in, 6), "abcdef"));
    finish(&e);
    close(fd);
}

// More than one budget, more than the socket buffers: both directions, checked byte by byte.
static void test_bulk(void **state)
{
    (void)state;
    enum { N = 8000000 };
    struct end a = { 0 }, b = { 0 };
    int fa, fb;
    tcp_pair(&fa, &fb);
    a.c = conn_accepted(loop, fa, NULL, NULL, &ops, &a);
    b.c = conn_accepted(loop, fb, NULL, NULL, &ops, &b);
    char *p = pattern(N);
    conn_write_bytes(a.c, p, N);
    buf_append(&b.c->out, p, N);
    conn_flush(b.c);
    assert_true(conn_above_high(a.c));
    UNTIL(a.got.len == N && b.got.len == N);
    assert_memory_equal(buf_pullup(&a.got, N).p, p, N);
    assert_memory_equal(buf_pullup(&b.got, N).p, p, N);
    settle();
    assert_int_equal(a.lows, 1);
    assert_true(a.draineds == 1 && b.draineds == 1);
    assert_int_equal(a.c->bytes_out, N);
    assert_int_equal(a.c->bytes_in, N);
    finish(&a);
    finish(&b);
    free(p);
}

// One connection with much to read leaves the others their turn.
static void test_read_budget(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    char *p = pattern(4000000);
    size_t sent = 0;
    for (ssize_t k; (k = send(fd, p + sent, 4000000 - sent, MSG_DONTWAIT)) > 0;) {
        sent += (size_t)k;
    }
    assert_true(sent > 2 * CONN_READ_BUDGET);
    int turns = 0;
    for (size_t before = 0; before < sent; before = e.got.len, turns++) {
        loop_turn(loop, 100);
        // The event and the task of the first turn both read.
        assert_true(e.got.len - before <= 2 * (CONN_READ_BUDGET + 5 * BUF_SLICE_BYTES));
    }
    assert_true(turns >= 2);
    finish(&e);
    close(fd);
    free(p);
}

static void test_watermarks(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    e.c->high = 100000;
    e.c->low = 20000;
    char *p = pattern(8000000), *sink = mem_alloc(8000000);
    conn_write_bytes(e.c, p, 8000000); // more than the kernel takes
    assert_true(conn_above_high(e.c));
    settle();
    assert_int_equal(e.lows, 0);
    size_t got = 0;
    while (got < 8000000) {
        got += slurp(fd, sink + got, 8000000 - got);
        loop_turn(loop, 0);
        if (e.c->out.len > 20000) {
            assert_int_equal(e.lows, 0);
        }
    }
    settle();
    assert_int_equal(e.lows, 1);
    assert_int_equal(e.draineds, 1);
    assert_memory_equal(p, sink, 8000000);
    conn_write_bytes(e.c, p, 10); // below high: no more on_low
    settle();
    assert_int_equal(e.lows, 1);
    // Above high for a moment only, sent in the same call: whoever looked waits for on_low, so it must come.
    buf_append(&e.c->out, p, 100000);
    assert_true(conn_above_high(e.c));
    conn_flush(e.c);
    UNTIL((slurp(fd, sink, 8000000), e.lows == 2));
    finish(&e);
    close(fd);
    free(p);
    free(sink);
}

static void test_pause(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    conn_pause_read(e.c, CONN_PAUSE_FLOW);
    conn_pause_read(e.c, CONN_PAUSE_OWNER);
    assert_int_equal(send(fd, "abc", 3, 0), 3);
    loop_turn(loop, 100);
    settle();
    assert_int_equal(e.datas, 0);
    conn_resume_read(e.c, CONN_PAUSE_FLOW);
    settle();
    assert_int_equal(e.datas, 0); // one reason is left
    conn_resume_read(e.c, CONN_PAUSE_OWNER);
    assert_int_equal(e.datas, 0); // not from inside
    settle();
    assert_int_equal(e.got.len, 3);
    // Paused in its own callback with more to read: nothing is lost.
    e.pause_on_data = true;
    char *p = pattern(200000);
    size_t sent = 0;
    while (sent < 200000) {
        ssize_t k = send(fd, p + sent, 200000 - sent, MSG_DONTWAIT);
        sent += k > 0 ? (size_t)k : 0;
        if (k < 0) {
            conn_resume_read(e.c, CONN_PAUSE_FLOW);
        }
        loop_turn(loop, 0);
    }
    shutdown(fd, SHUT_WR);
    int before = e.datas;
    loop_turn(loop, 10);
    assert_true(e.datas <= before + 1); // one callback per resume
    while (e.got.len < 200003) {
        conn_resume_read(e.c, CONN_PAUSE_FLOW);
        loop_turn(loop, 10);
    }
    e.pause_on_data = false;
    conn_resume_read(e.c, CONN_PAUSE_FLOW);
    UNTIL(e.eofs == 1);
    assert_memory_equal(buf_pullup(&e.got, e.got.len).p + 3, p, 200000);
    finish(&e);
    close(fd);
    free(p);
}

static void test_half_close(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    char out[8];
    assert_int_equal(send(fd, "last", 4, 0), 4);
    shutdown(fd, SHUT_WR);
    UNTIL(e.eofs == 1);
    assert_int_equal(e.got.len, 4); // bytes and end in one event: neither lost
    assert_int_equal(e.closes, 0);
    assert_true(e.c->eof_in);
    conn_write_bytes(e.c, "answer", 6); // our direction is still open
    assert_int_equal(recv(fd, out, 8, 0), 6);
    conn_shutdown(e.c);
    assert_int_equal(e.closes, 0);
    UNTIL(e.closes == 1);
    assert_int_equal(e.why, CONN_CLOSE_REMOTE);
    assert_int_equal(recv(fd, out, 8, 0), 0);
    finish(&e);
    close(fd);
}

static void test_our_end_first(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    char out[8];
    conn_write_bytes(e.c, "x", 1);
    conn_shutdown(e.c);
    conn_shutdown(e.c);
    assert_int_equal(recv(fd, out, 8, 0), 1);
    assert_int_equal(recv(fd, out, 8, 0), 0);
    assert_int_equal(send(fd, "late", 4, 0), 4);
    UNTIL(e.datas == 1);
    close(fd);
    UNTIL(e.closes == 1);
    assert_int_equal(e.eofs, 1);
    assert_int_equal(e.why, CONN_CLOSE_REMOTE);
    finish(&e);
}

// conn_shutdown with bytes that the peer has not taken yet: the end comes behind them.
static void test_shutdown_waits_for_out(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    char *p = pattern(6000000), *sink = mem_alloc(6000001);
    conn_write_bytes(e.c, p, 6000000);
    conn_shutdown(e.c);
    assert_false(e.c->fin_sent);
    size_t got = 0;
    while (got < 6000000) {
        got += slurp(fd, sink + got, 6000001 - got);
        loop_turn(loop, 0);
    }
    settle();
    assert_memory_equal(p, sink, 6000000);
    assert_int_equal(recv(fd, sink, 1, 0), 0);
    finish(&e);
    close(fd);
    free(p);
    free(sink);
}

static void test_no_half_close(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops_no_half_close);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    close(fd);
    UNTIL(e.closes == 1);
    assert_int_equal(e.why, CONN_CLOSE_REMOTE);
    assert_int_equal(e.got.len, 1);
    assert_int_equal(e.c->fd.fd, -1);
    conn_write_bytes(e.c, "ignored", 7); // harmless
    settle();
    assert_int_equal(e.closes, 1);
    finish(&e);
}

static void test_reset(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    socket_close_reset(fd);
    UNTIL(e.closes == 1);
    assert_int_equal(e.why, CONN_CLOSE_RESET);
    assert_int_equal(e.c->connect_errno, ECONNRESET);
    assert_int_equal(e.eofs, 0);
    finish(&e);
}

// Reset while the owner does not want to read: told at once; while flow control paused it: only after resume.
static void test_reset_while_paused(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    conn_pause_read(e.c, CONN_PAUSE_OWNER);
    socket_close_reset(fd);
    UNTIL(e.closes == 1);
    assert_int_equal(e.why, CONN_CLOSE_RESET);
    finish(&e);

    struct end f = { 0 };
    fd = half(&f, &ops);
    conn_pause_read(f.c, CONN_PAUSE_FLOW);
    assert_int_equal(send(fd, "answer", 6, 0), 6);
    socket_close_reset(fd);
    loop_turn(loop, 100);
    settle();
    assert_int_equal(f.closes, 0);
    conn_resume_read(f.c, CONN_PAUSE_FLOW);
    UNTIL(f.closes == 1);
    assert_int_equal(f.got.len, 6);
    assert_int_equal(f.why, CONN_CLOSE_RESET);
    finish(&f);
}

// The peer answers, then resets because we go on sending: the answer is delivered, and the reset is not taken for an end.
static void answer_then_reset(struct end *e, bool paused)
{
    int fd = half(e, &ops);
    if (paused) {
        conn_pause_read(e->c, CONN_PAUSE_FLOW);
    }
    assert_int_equal(send(fd, "413", 3, 0), 3);
    socket_close_reset(fd);
    for (struct pollfd p = { .fd = e->c->fd.fd, .events = POLLIN }; poll(&p, 1, 10) >= 0 && !(p.revents & POLLERR);) {
    }
    conn_write_bytes(e->c, "more", 4); // before the loop has seen the reset
    assert_int_equal(e->closes, 0);
}

static void test_answer_before_reset(void **state)
{
    (void)state;
    for (int paused = 0; paused < 2; paused++) {
        struct end e = { 0 };
        answer_then_reset(&e, paused);
        if (paused) { // flow control holds the answer back, and with it the close
            settle();
            assert_int_equal(e.closes, 0);
            conn_resume_read(e.c, CONN_PAUSE_FLOW);
        }
        UNTIL(e.closes == 1);
        assert_int_equal(e.got.len, 3);
        assert_int_equal(e.why, CONN_CLOSE_RESET);
        assert_int_equal(e.eofs, 0);
        finish(&e);
    }
}

static void test_free_inside(void **state)
{
    (void)state;
    struct end e = { .free_on_data = true };
    int fd = half(&e, &ops);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    UNTIL(e.datas == 1);
    settle();
    char out[1];
    assert_int_equal(recv(fd, out, 1, 0), 0);
    assert_int_equal(e.closes, 0); // no callback follows
    buf_clear(&e.got);
    close(fd);

    struct end f = { .free_on_close = true };
    fd = half(&f, &ops_no_half_close);
    close(fd);
    UNTIL(f.closes == 1);
    settle();
    assert_null(f.c);
    conn_free(NULL);
}

static void test_free_reset(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    conn_free_reset(e.c);
    conn_free(e.c); // twice in a turn is harmless
    char out[1];
    assert_int_equal(recv(fd, out, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(fd);
}

static void test_close_after_flush(void **state)
{
    (void)state;
    // Waits for the peer's end, discards input.
    struct end e = { 0 };
    int fd = half(&e, &ops);
    char out[8];
    conn_write_bytes(e.c, "bye", 3);
    conn_close_after_flush(e.c, 1000);
    assert_int_equal(send(fd, "junk", 4, 0), 4);
    settle();
    assert_int_equal(e.closes, 0);
    assert_int_equal(e.datas, 0);
    assert_int_equal(recv(fd, out, 8, 0), 3);
    assert_int_equal(recv(fd, out, 8, 0), 0);
    close(fd);
    UNTIL(e.closes == 1);
    assert_int_equal(e.why, CONN_CLOSE_LOCAL);
    finish(&e);

    // Without lingering.
    struct end f = { 0 };
    fd = half(&f, &ops);
    conn_write_bytes(f.c, "bye", 3);
    conn_close_after_flush(f.c, 0);
    assert_int_equal(f.closes, 0);
    settle();
    assert_int_equal(f.closes, 1);
    assert_int_equal(f.why, CONN_CLOSE_LOCAL);
    assert_int_equal(recv(fd, out, 8, 0), 3);
    finish(&f);
    close(fd);

    // A peer that neither reads nor ends: the time decides.
    struct end g = { 0 };
    fd = half(&g, &ops);
    loop_set_fake_time(loop, 5000);
    char *p = pattern(8000000);
    conn_write_bytes(g.c, p, 8000000);
    conn_close_after_flush(g.c, 100);
    settle();
    assert_int_equal(g.closes, 0);
    loop_set_fake_time(loop, 5100);
    settle();
    assert_int_equal(g.closes, 1);
    assert_int_equal(g.why, CONN_CLOSE_LOCAL);
    finish(&g);
    close(fd);
    free(p);
}

static void test_connect(void **state)
{
    (void)state;
    struct addr any, local, peer;
    assert_true(addr_parse(STR("127.0.0.1:0"), &any));
    int l = socket_listen(&any, NULL, NULL);
    assert_int_equal(socket_local(l, &local), 0);
    struct end e = { 0 };
    e.c = conn_connect(loop, &local, NULL, 1000, &ops, &e);
    assert_int_equal(e.c->state, CONN_CONNECTING);
    conn_write_bytes(e.c, "early", 5); // kept until it is open
    UNTIL(e.opens == 1);
    assert_int_equal(e.c->state, CONN_OPEN);
    assert_false(e.c->rare != NULL);
    assert_true(addr_is_loopback(&e.c->local));
    int s = socket_accept(l, &peer);
    assert_true(s >= 0);
    assert_true(addr_eq(&peer, &e.c->local));
    settle();
    char out[8];
    assert_int_equal(recv(s, out, 8, 0), 5);
    finish(&e);
    close(s);
    close(l);
    // Nobody listens there now.
    struct end f = { 0 };
    f.c = conn_connect(loop, &local, NULL, 1000, &ops, &f);
    assert_int_equal(f.closes, 0);
    UNTIL(f.closes == 1);
    assert_int_equal(f.why, CONN_CLOSE_CONNECT_FAIL);
    assert_int_equal(f.c->connect_errno, ECONNREFUSED);
    finish(&f);
    // Freed while connecting.
    struct end g = { 0 };
    g.c = conn_connect(loop, &local, NULL, 1000, &ops, &g);
    finish(&g);
    settle();
    assert_int_equal(g.closes + g.opens, 0);
    // A failure known at once is told later.
    struct addr bad = { .family = AF_UNIX, .path = "/nonexistent/x" };
    struct end h = { 0 };
    h.c = conn_connect(loop, &bad, NULL, 0, &ops, &h);
    assert_non_null(h.c);
    assert_int_equal(h.closes, 0);
    settle();
    assert_int_equal(h.why, CONN_CLOSE_CONNECT_FAIL);
    assert_int_equal(h.c->connect_errno, ENOENT);
    finish(&h);
}

// A listener whose queue is full lets connects hang.
static void test_connect_timeout(void **state)
{
    (void)state;
    struct addr any, local;
    assert_true(addr_parse(STR("127.0.0.1:0"), &any));
    struct socket_listen_opts o = { .backlog = 1 };
    int l = socket_listen(&any, &o, NULL), filler[4];
    assert_int_equal(socket_local(l, &local), 0);
    bool done;
    for (size_t i = 0; i < array_len(filler); i++) {
        filler[i] = socket_connect(&local, NULL, &done);
    }
    loop_set_fake_time(loop, 1000);
    struct end e = { 0 };
    e.c = conn_connect(loop, &local, NULL, 300, &ops, &e);
    settle();
    assert_int_equal(e.opens, 0);
    loop_set_fake_time(loop, 1300);
    settle();
    assert_int_equal(e.closes, 1);
    assert_int_equal(e.why, CONN_CLOSE_CONNECT_TIMEOUT);
    finish(&e);
    for (size_t i = 0; i < array_len(filler); i++) {
        close(filler[i]);
    }
    close(l);
}

// --- a transport: one byte of handshake each way, then every byte is xored; reads come through an inner buffer ---

struct xor_transport {
    struct transport t;
    bool sent, fail_read;
    struct buf inner;   // bytes taken from the socket, not asked for yet
    struct buf pending; // xored, not yet taken by the socket
    int shutdowns;
};
static int destroyed;

static enum io xor_handshake(struct transport *t)
{
    struct xor_transport *x = (struct xor_transport *)t;
    char b;
    if (!x->sent) {
        if (conn_raw_write(t->conn, "H", 1) != 1) {
            return IO_AGAIN;
        }
        x->sent = true;
    }
    ssize_t k = conn_raw_read(t->conn, &b, 1);
    if (k == -EAGAIN) {
        return IO_AGAIN;
    }
    if (k != 1 || b != 'H') {
        t->conn->close_detail = "not the right handshake";
        return IO_ERROR;
    }
    return IO_OK;
}

static enum io xor_read(struct transport *t, struct buf *in, size_t want)
{
    struct xor_transport *x = (struct xor_transport *)t;
    char b[8192];
    if (x->fail_read) {
        return IO_ERROR;
    }
    ssize_t k = 0;
    if (x->inner.len == 0) {
        k = conn_raw_read(t->conn, b, sizeof(b));
        if (k <= 0) {
            return k == 0 ? IO_EOF : k == -EAGAIN ? IO_AGAIN : IO_ERROR;
        }
        for (ssize_t i = 0; i < k; i++) {
            b[i] ^= 0x55;
        }
        buf_append(&x->inner, b, (size_t)k);
    }
    buf_move(in, &x->inner, want < 1000 ? want : 1000); // a record at a time
    return IO_OK;
}

static bool xor_pending(struct transport *t)
{
    return ((struct xor_transport *)t)->inner.len > 0;
}

static enum io xor_write(struct transport *t, struct buf *out)
{
    struct xor_transport *x = (struct xor_transport *)t;
    while (out->len || x->pending.len) {
        if (!x->pending.len) {
            char b[4096];
            size_t n = buf_peek(out, 0, b, sizeof(b));
            for (size_t i = 0; i < n; i++) {
                b[i] ^= 0x55;
            }
            buf_drain(out, n);
            buf_append(&x->pending, b, n);
        }
        struct str s = buf_front(&x->pending);
        ssize_t k = conn_raw_write(t->conn, s.p, s.n);
        if (k < 0) {
            return k == -EAGAIN ? IO_AGAIN : IO_ERROR;
        }
        buf_drain(&x->pending, (size_t)k);
    }
    return IO_OK;
}

static enum io xor_shutdown(struct transport *t)
{
    ((struct xor_transport *)t)->shutdowns++;
    return IO_OK;
}

static void xor_destroy(struct transport *t)
{
    struct xor_transport *x = (struct xor_transport *)t;
    buf_clear(&x->inner);
    buf_clear(&x->pending);
    free(x);
    destroyed++;
}

static const struct transport_ops xor_ops = {
    .name = "xor",
    .handshake = xor_handshake,
    .read = xor_read,
    .write = xor_write,
    .shutdown = xor_shutdown,
    .pending = xor_pending,
    .destroy = xor_destroy,
};

static struct transport *xor_new(void)
{
    struct xor_transport *x = mem_new(struct xor_transport);
    x->t.ops = &xor_ops;
    return &x->t;
}

static void test_transport(void **state)
{
    (void)state;
    enum { N = 1000000 };
    struct end a = { 0 }, b = { .shutdown_on_eof = true };
    int fa, fb;
    tcp_pair(&fa, &fb);
    destroyed = 0;
    a.c = conn_accepted(loop, fa, NULL, NULL, &ops, &a);
    b.c = conn_accepted(loop, fb, NULL, NULL, &ops, &b);
    conn_set_transport(a.c, xor_new(), 1000);
    assert_int_equal(a.c->state, CONN_HANDSHAKING);
    char *p = pattern(N);
    conn_write_bytes(a.c, p, N); // before it is open
    // b's owner sees the first bytes, then decides on a transport: they must be given back to it.
    b.keep = true;
    UNTIL(b.datas);
    assert_int_equal(a.opens, 0);
    b.keep = false;
    conn_set_transport(b.c, xor_new(), 1000);
    assert_int_equal(b.c->in.len, 0);
    UNTIL(a.opens == 1 && b.opens == 1);
    assert_false(a.c->rare != NULL);
    UNTIL(b.got.len == N);
    assert_memory_equal(buf_pullup(&b.got, N).p, p, N);
    assert_int_equal(b.c->bytes_in, N);
    assert_int_equal(a.c->bytes_out, N);
    // Pause with records inside the transport: resume must read them though the socket is silent.
    buf_clear(&b.got);
    b.pause_on_data = true;
    conn_write_bytes(a.c, p, 5000);
    UNTIL(b.got.len == 1000);
    loop_turn(loop, 20);
    settle();
    assert_int_equal(b.got.len, 1000);
    b.pause_on_data = false;
    conn_resume_read(b.c, CONN_PAUSE_FLOW);
    UNTIL(b.got.len == 5000);
    conn_shutdown(a.c);
    assert_int_equal(((struct xor_transport *)a.c->transport)->shutdowns, 1);
    UNTIL(a.closes == 1 && b.closes == 1);
    assert_int_equal(a.why, CONN_CLOSE_REMOTE);
    assert_int_equal(b.why, CONN_CLOSE_REMOTE);
    finish(&a);
    finish(&b);
    settle();
    assert_int_equal(destroyed, 2);
    free(p);
}

static void test_transport_failures(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    conn_set_transport(e.c, xor_new(), 0);
    assert_int_equal(send(fd, "X", 1, 0), 1);
    UNTIL(e.closes == 1);
    assert_int_equal(e.why, CONN_CLOSE_TLS);
    assert_string_equal(e.c->close_detail, "not the right handshake");
    assert_int_equal(e.opens, 0);
    finish(&e);
    close(fd);
    // The handshake takes too long.
    loop_set_fake_time(loop, 1000);
    struct end f = { 0 };
    fd = half(&f, &ops);
    conn_set_transport(f.c, xor_new(), 200);
    settle();
    loop_set_fake_time(loop, 1200);
    settle();
    assert_int_equal(f.closes, 1);
    assert_int_equal(f.why, CONN_CLOSE_CONNECT_TIMEOUT);
    finish(&f);
    close(fd);
    // Broken in the middle.
    struct end g = { 0 };
    fd = half(&g, &ops);
    conn_set_transport(g.c, xor_new(), 0);
    assert_int_equal(send(fd, "Hx", 2, 0), 2);
    UNTIL(g.datas == 1);
    ((struct xor_transport *)g.c->transport)->fail_read = true;
    assert_int_equal(send(fd, "x", 1, 0), 1);
    UNTIL(g.closes == 1);
    assert_int_equal(g.why, CONN_CLOSE_TLS);
    finish(&g);
    close(fd);
    // Freed while open: the peer is told.
    struct end h = { 0 };
    fd = half(&h, &ops);
    conn_set_transport(h.c, xor_new(), 0);
    assert_int_equal(send(fd, "H", 1, 0), 1);
    UNTIL(h.opens == 1);
    struct xor_transport *x = (struct xor_transport *)h.c->transport;
    conn_free(h.c);
    assert_int_equal(x->shutdowns, 1); // memory lives until the end of the turn
    settle();
    close(fd);
}

// The loop is freed with connections alive and freed in the last moment: nothing leaks (ASan).
static void test_loop_ends(void **state)
{
    (void)state;
    struct end e = { 0 };
    int fd = half(&e, &ops);
    conn_free(e.c);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
        T(test_echo_small), T(test_kept_bytes), T(test_urgent_byte), T(test_bulk), T(test_read_budget), T(test_watermarks), T(test_pause), T(test_half_close),
        T(test_our_end_first), T(test_shutdown_waits_for_out), T(test_no_half_close), T(test_reset),
        T(test_reset_while_paused), T(test_answer_before_reset), T(test_free_inside), T(test_free_reset),
        T(test_close_after_flush), T(test_connect), T(test_connect_timeout), T(test_transport), T(test_transport_failures),
        T(test_loop_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
