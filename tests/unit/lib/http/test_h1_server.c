// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/lib/http/codec_rig.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: h\r\n\r\n"
#define OK2(body) "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\n\r\n" body
#define REQ(path) "request GET " path " host=h len=-1 end|"

static void keep_alive(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    for (int i = 0; i < 3; i++) {
        rig_send(r, GET("/a"));
        assert_string_equal(rig_heard(r), REQ("/a"));
        assert_int_equal(codec_active(r->codec), 1);
        uint64_t before = codec_conn(r->codec)->bytes_out;
        rig_answer(r, 200, 2, "ok");
        assert_int_equal(codec_conn(r->codec)->bytes_out, before); // head and body leave in one write, later in the turn
        assert_string_equal(rig_heard(r), "");                      // and nothing is told from inside the call
        rig_turn(r, 1);
        assert_int_equal(codec_conn(r->codec)->bytes_out, before + strlen(OK2("ok")));
        assert_string_equal(rig_recv(r), OK2("ok"));
        assert_string_equal(rig_heard(r), "close|idle|");
        assert_int_equal(codec_active(r->codec), 0);
        assert_null(codec_conn(r->codec)->in.head); // idle: no buffer
        assert_null(codec_conn(r->codec)->out.head);
    }
    rig_free(r);
}

static void half_a_request_at_a_time(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    const char *q = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab";
    for (const char *p = q; *p; p++) {
        rig_send_n(r, p, 1);
    }
    assert_string_equal(rig_heard(r), "request POST /a host=h len=2|data a|data b end|");
    assert_int_equal(codec_stream_bytes_in(r->stream), strlen(q));
    rig_answer(r, 200, 0, NULL);
    const char *a = rig_recv(r);
    assert_string_equal(a, "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 0\r\n\r\n");
    rig_free(r);
}

static void pipelining_of_ten(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    for (int i = 0; i < 10; i++) {
        char q[64];
        snprintf(q, sizeof(q), GET("/%d"), i);
        rig_send(r, q);
    }
    for (int i = 0; i < 10; i++) {
        char want[64], body[3];
        snprintf(want, sizeof(want), "%s" REQ("/%d"), i ? "close|idle|" : "", i);
        assert_string_equal(rig_heard(r), want); // the next one only after the answer
        snprintf(body, sizeof(body), "%02d", i);
        rig_answer(r, 200, 2, body);
        snprintf(want, sizeof(want), OK2("%02d"), i);
        assert_string_equal(rig_recv(r), want);
    }
    assert_string_equal(rig_heard(r), "close|idle|");
    rig_free(r);
}

static void answer_at_once(struct rig *r, struct http_request *q)
{
    (void)q;
    rig_answer(r, 200, 2, "ok");
}

static void pipelining_answered_inside_the_callback(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    r->on_request = answer_at_once;
    rig_send(r, GET("/1") GET("/2") GET("/3"));
    assert_string_equal(rig_recv(r), OK2("ok") OK2("ok") OK2("ok"));
    assert_string_equal(rig_heard(r), REQ("/1") "close|idle|" REQ("/2") "close|idle|" REQ("/3") "close|idle|");
    rig_free(r);
}

static void pipelined_bytes_are_bounded(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, GET("/1"));
    char junk[4096];
    memset(junk, 'x', sizeof(junk));
    size_t sent = 0;
    for (int i = 0; i < 4096; i++) {
        ssize_t k = send(r->fd, junk, sizeof(junk), MSG_NOSIGNAL);
        sent += k > 0 ? (size_t)k : 0;
        rig_turn(r, 1);
    }
    assert_true(sent < 4096 * 4096); // the socket filled up
    assert_true(codec_conn(r->codec)->in.len < 1024 * 1024);
    rig_free(r);
}

static void chunked_and_trailers(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                "2\r\nab\r\n3\r\ncde\r\n0\r\nX-T: 1\r\n\r\n");
    assert_string_equal(rig_heard(r), "request POST /a host=h len=-1|data abcde|trailers X-T=1|");
    struct http_response q = { .status = 200, .content_length = -1 };
    struct arena a = { 0 };
    headers_init(&q.headers, &a);
    codec_send_response(r->stream, &q);
    struct buf b = { 0 };
    buf_append_str(&b, STR("hello"));
    codec_send_data(r->stream, &b, false);
    headers_add(&q.headers, STR("x-sum"), STR("9"));
    codec_send_trailers(r->stream, &q.headers);
    assert_string_equal(rig_recv(r), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 9\r\n\r\n");
    assert_string_equal(rig_heard(r), "close|idle|");
    arena_fini(&a);
    rig_free(r);
}

static void continue_100(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_string_equal(rig_heard(r), "request POST /a host=h len=2|");
    struct http_response q = { .status = 100, .content_length = -1, .end_stream = true };
    codec_send_response(r->stream, &q);
    assert_string_equal(rig_recv(r), "HTTP/1.1 100 Continue\r\n\r\n");
    rig_send(r, "ab");
    assert_string_equal(rig_heard(r), "data ab end|");
    rig_answer(r, 200, 2, "ok");
    assert_string_equal(rig_recv(r), OK2("ok"));
    assert_string_equal(rig_heard(r), "close|idle|");
    rig_free(r);
}

static void final_answer_in_place_of_continue(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    rig_answer(r, 417, 0, NULL);
    assert_string_equal(rig_recv(r), "HTTP/1.1 417 Expectation Failed\r\nx-a: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n<eof>");
    shutdown(r->fd, SHUT_WR);
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), "request POST /a host=h len=2|close|idle|gone local|");
    rig_free(r);
}

static void early_answer_reads_a_small_rest_away(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
    rig_answer(r, 403, 2, "no");
    assert_string_equal(rig_recv(r), "HTTP/1.1 403 Forbidden\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nno");
    assert_string_equal(rig_heard(r), "request POST /a host=h len=-1|data ab|close|idle|");
    arena_fini(&r->arena); // the owner's memory goes with the stream
    rig_send(r, "3\r\ncde\r\n0\r\nX-T: 1\r\n\r\n");
    assert_null(r->arena.head); // not used any more
    rig_send(r, GET("/2"));
    assert_string_equal(rig_heard(r), REQ("/2"));
    rig_free(r);
}

static void early_answer_to_a_large_request_closes_without_reset(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n");
    rig_answer(r, 413, 0, NULL);
    char junk[1000] = { 0 };
    for (int i = 0; i < 500; i++) {
        rig_send_n(r, junk, sizeof(junk)); // goes on being taken
    }
    assert_string_equal(rig_recv(r), "HTTP/1.1 413 Payload Too Large\r\nx-a: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n<eof>");
    close(r->fd);
    r->fd = -1;
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), "request POST /a host=h len=500000|close|idle|gone local|");
    rig_free(r);
}

static void early_answer_with_a_body_to_a_large_request(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n");
    rig_answer(r, 413, 2, "no");
    assert_string_equal(rig_recv(r), "HTTP/1.1 413 Payload Too Large\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nno<eof>");
    rig_free(r);
}

// What ends with the connection must not end with a plain FIN when it was broken off.
static void broken_until_close_answer_is_reset(void **state)
{
    (void)state;
    struct h1_limits l = h1_limits_default;
    l.allow_http10 = true;
    struct rig *r = rig_tcp(true, &(struct codec_opts){ .h1 = &l });
    rig_send(r, "GET / HTTP/1.0\r\n\r\n");
    struct http_response q = { .status = 200, .content_length = -1 };
    codec_send_response(r->stream, &q);
    assert_string_equal(rig_recv(r), "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n");
    codec_stream_reset(r->stream, CODEC_RESET_LOCAL);
    rig_turn(r, 3);
    assert_string_equal(rig_recv(r), "<reset>");
    rig_free(r);
}

static void endless_early_body_is_cut(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    rig_answer(r, 403, 2, "no");
    char chunk[4096 + 8];
    memcpy(chunk, "1000\r\n", 6);
    memset(chunk + 6, 'x', 4096);
    memcpy(chunk + 4102, "\r\n", 2);
    for (int i = 0; i < 2000 && r->codec; i++) {
        send(r->fd, chunk, 4104, MSG_NOSIGNAL);
        rig_turn(r, 1);
    }
    assert_null(r->codec);
    rig_free(r);
}

static void lingering_ends_by_time(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    loop_set_fake_time(r->loop, 1000000);
    rig_send(r, "BAD\r\n\r\n");
    assert_string_equal(rig_heard(r), "bad 400 http1.invalid_request_line|");
    loop_set_fake_time(r->loop, 1000900);
    rig_turn(r, 2);
    assert_non_null(r->codec);
    loop_set_fake_time(r->loop, 1001100);
    rig_turn(r, 2);
    assert_string_equal(rig_heard(r), "gone local|");
    rig_free(r);
}

static void cut_off(void **state)
{
    (void)state;
    const struct {
        const char *send, *heard;
    } t[] = {
        { "", "gone remote|" },
        { "GET / HTTP/1.1\r\nHo", "gone remote|" },
        { "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab",
          "request POST / host=h len=5|data ab|reset remote http1.unexpected_end|close|gone remote|" },
        { GET("/a"), REQ("/a") "reset remote downstream_remote_disconnect|close|gone remote|" },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct rig *r = rig_new(true, NULL);
        rig_send(r, t[i].send);
        close(r->fd);
        r->fd = -1;
        rig_turn(r, 4);
        assert_string_equal(rig_heard(r), t[i].heard);
        rig_free(r);
    }
}

static void half_close_is_served_when_asked(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, &(struct codec_opts){ .half_close_ok = true });
    rig_send(r, GET("/1") GET("/2"));
    shutdown(r->fd, SHUT_WR);
    rig_turn(r, 3);
    rig_answer(r, 200, 2, "ok");
    assert_string_equal(rig_recv(r), OK2("ok"));
    rig_answer(r, 200, 2, "ok");
    assert_string_equal(rig_recv(r), OK2("ok") "<eof>");
    assert_string_equal(rig_heard(r), REQ("/1") "close|idle|" REQ("/2") "close|idle|gone local|");
    rig_free(r);
}

static void bodiless_answers(void **state)
{
    (void)state;
    const struct {
        const char *method;
        int status;
        long long len;
        const char *body, *want;
    } t[] = {
        { "HEAD", 200, 5, "hello", "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 5\r\n\r\n" },
        { "HEAD", 200, -1, NULL, "HTTP/1.1 200 OK\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n" },
        { "GET", 204, -1, "x", "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n" },
        { "GET", 304, 5, NULL, "HTTP/1.1 304 Not Modified\r\nx-a: 1\r\ncontent-length: 5\r\n\r\n" },
        { "GET", 200, -1, NULL, "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 0\r\n\r\n" },
        { "GET", 200, 7, NULL, "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 0\r\n\r\n" },
    };
    struct rig *r = rig_new(true, NULL);
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        char q[64];
        snprintf(q, sizeof(q), "%s / HTTP/1.1\r\nHost: h\r\n\r\n", t[i].method);
        rig_send(r, q);
        rig_answer(r, t[i].status, t[i].len, t[i].body);
        assert_string_equal(rig_recv(r), t[i].want);
    }
    rig_free(r);
}

static void http10(void **state)
{
    (void)state;
    struct h1_limits l = h1_limits_default;
    l.allow_http10 = true;
    struct codec_opts o = { .h1 = &l };
    struct rig *r = rig_new(true, &o);
    rig_send(r, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    rig_answer(r, 200, 2, "ok");
    assert_string_equal(rig_recv(r), "HTTP/1.0 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok");
    rig_send(r, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    rig_answer(r, 200, -1, "ok"); // no length: the end of the connection ends it
    assert_string_equal(rig_recv(r), "HTTP/1.0 200 OK\r\nx-a: 1\r\nconnection: close\r\n\r\nok<eof>");
    rig_free(r);
    r = rig_new(true, NULL);
    rig_send(r, "GET / HTTP/1.0\r\n\r\n");
    assert_string_equal(rig_recv(r), "HTTP/1.1 426 Upgrade Required\r\ncontent-type: text/plain\r\ncontent-length: 16\r\n"
                                     "upgrade: HTTP/1.1\r\nconnection: upgrade, close\r\n\r\nUpgrade Required<eof>");
    rig_free(r);
}

// Connection: close with much to send: all of it arrives, however slowly it is read.
static void large_last_answer_to_a_slow_reader(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    loop_set_fake_time(r->loop, 1000000);
    static char big[2 * 1024 * 1024 + 1], sink[64 * 1024];
    memset(big, 'x', sizeof(big) - 1);
    rig_send(r, "GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    rig_answer(r, 200, sizeof(big) - 1, big);
    size_t got = 0;
    ssize_t k;
    for (int i = 1;; i++) {
        loop_set_fake_time(r->loop, 1000000 + (uint64_t)i * 4000); // the kernel's buffer hides a few steps
        rig_turn(r, 2);
        k = recv(r->fd, sink, sizeof(sink), 0);
        if (k <= 0) {
            break;
        }
        got += (size_t)k;
    }
    assert_int_equal(k, 0);
    assert_true(got > sizeof(big));
    rig_free(r);
    // And who does not read at all is cut off.
    r = rig_new(true, NULL);
    loop_set_fake_time(r->loop, 1000000);
    rig_send(r, "GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    rig_answer(r, 200, sizeof(big) - 1, big);
    rig_turn(r, 3);
    assert_non_null(r->codec);
    for (int i = 1; i <= 3; i++) {
        loop_set_fake_time(r->loop, 1000000 + (uint64_t)i * 30001);
        rig_turn(r, 2);
    }
    assert_null(r->codec);
    rig_free(r);
}

static void close_and_free(struct codec_stream *s)
{
    struct rig *r = codec_stream_owner(s);
    rig_log(r, "close+free|");
    codec_free(r->codec);
    r->codec = NULL;
    r->stream = NULL;
}

static void free_inside_on_close(void **state)
{
    (void)state;
    static const struct codec_stream_ops ops = { .on_close = close_and_free };
    struct rig *r = rig_new(true, NULL);
    rig_send(r, GET("/1"));
    codec_stream_set(r->stream, &ops, r);
    rig_answer(r, 200, 2, "ok");
    codec_flush(r->codec); // otherwise the answer goes with the connection
    assert_string_equal(rig_recv(r), OK2("ok") "<eof>");
    assert_string_equal(rig_heard(r), REQ("/1") "close+free|");
    rig_free(r);
}

static void bytes_that_came_before_the_codec(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    struct addr none = { 0 };
    struct conn *c = conn_accepted(r->loop, fds[1], &none, &none, NULL, NULL);
    buf_append_str(&c->in, STR(GET("/early"))); // a listener filter has read them
    codec_free(r->codec);
    close(r->fd);
    r->fd = fds[0];
    r->codec = codec_h1_server(c, &rig_ops, r, NULL);
    assert_string_equal(rig_heard(r), "");
    rig_turn(r, 1);
    assert_string_equal(rig_heard(r), REQ("/early"));
    rig_free(r);
}

static void early_answer_while_paused(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    r->pause_in_request = true;
    rig_send(r, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel");
    rig_answer(r, 200, 2, "ok");
    assert_string_equal(rig_recv(r), OK2("ok"));
    r->pause_in_request = false;
    rig_send(r, "lo" GET("/2"));
    assert_string_equal(rig_heard(r), "request POST / host=h len=5|close|idle|" REQ("/2"));
    rig_free(r);
}

static void bad_requests(void **state)
{
    (void)state;
    const struct {
        const char *send, *heard, *want;
    } t[] = {
        { "GET / HTTP/1.1\nHost: h\n\n", "bad 400 http1.bare_lf|",
          "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 11\r\nconnection: close\r\n\r\nBad Request<eof>" },
        { "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad 505 http1.unsupported_version|", "HTTP/1.1 505 " },
        { "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: br\r\n\r\n", "bad 501 http1.unsupported_transfer_encoding|",
          "HTTP/1.1 501 " },
        { "\x16\x03\x01", "bad 400 http1.invalid_method|", "HTTP/1.1 400 " },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct rig *r = rig_new(true, NULL);
        rig_send(r, t[i].send);
        assert_string_equal(rig_heard(r), t[i].heard);
        assert_memory_equal(rig_recv(r), t[i].want, strlen(t[i].want));
        rig_send(r, GET("/never")); // thrown away
        assert_string_equal(rig_heard(r), "");
        shutdown(r->fd, SHUT_WR);
        rig_turn(r, 3);
        assert_string_equal(rig_heard(r), "gone local|");
        rig_free(r);
    }
}

static void bad_request_behind_a_good_one(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, GET("/1") "GET / HTTP/1.1\r\n\r\n" GET("/3"));
    assert_string_equal(rig_heard(r), REQ("/1"));
    rig_answer(r, 200, 2, "ok");
    const char *a = rig_recv(r);
    assert_memory_equal(a, OK2("ok") "HTTP/1.1 400 ", strlen(OK2("ok")) + 13);
    assert_string_equal(rig_heard(r), "close|idle|bad 400 http1.missing_host|");
    rig_free(r);
}

static void bad_body(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n");
    assert_string_equal(rig_heard(r), "request POST / host=h len=-1|data ab|reset protocol http1.invalid_chunk_size|close|idle|");
    assert_memory_equal(rig_recv(r), "HTTP/1.1 400 Bad Request\r\n", 26);
    rig_free(r);
    // An answer is under way: it must not look complete.
    r = rig_new(true, NULL);
    rig_send(r, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    struct http_response q = { .status = 200, .content_length = -1 };
    codec_send_response(r->stream, &q);
    rig_send(r, "zz\r\n");
    const char *a = rig_recv(r);
    assert_null(strstr(a, "0\r\n\r\n"));
    assert_string_equal(rig_heard(r), "request POST / host=h len=-1|reset protocol http1.invalid_chunk_size|close|gone local|");
    rig_free(r);
}

static void watermarks_with_a_slow_reader(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    codec_conn(r->codec)->high = 64 * 1024;
    codec_conn(r->codec)->low = 16 * 1024;
    rig_send(r, GET("/big"));
    struct http_response q = { .status = 200, .content_length = -1 };
    codec_send_response(r->stream, &q);
    size_t sent = 0;
    static char piece[16 * 1024];
    while (!r->highs) {
        struct buf b = { 0 };
        buf_append(&b, piece, sizeof(piece));
        codec_send_data(r->stream, &b, false);
        sent += sizeof(piece);
        rig_turn(r, 1);
        assert_true(sent < 64 * 1024 * 1024);
    }
    assert_true(codec_conn(r->codec)->out.len <= 64 * 1024 + 2 * sizeof(piece)); // that much and no more is held
    rig_turn(r, 5);
    assert_int_equal(r->lows, 0);
    size_t got = 0;
    static char sink[64 * 1024];
    for (int i = 0; i < 10000 && !r->lows; i++) {
        ssize_t k = recv(r->fd, sink, sizeof(sink), 0);
        got += k > 0 ? (size_t)k : 0;
        rig_turn(r, 2);
    }
    assert_int_equal(r->highs, 1);
    assert_int_equal(r->lows, 1);
    struct buf none = { 0 };
    codec_send_data(r->stream, &none, true);
    rig_turn(r, 3);
    while (r->n_log && !strstr(r->log, "close|")) {
        rig_turn(r, 1);
    }
    for (int quiet = 0; quiet < 5;) {
        rig_turn(r, 1);
        ssize_t k = recv(r->fd, sink, sizeof(sink), 0);
        quiet = k > 0 ? 0 : quiet + 1;
        got += k > 0 ? (size_t)k : 0;
    }
    assert_true(got > sent); // all of it, and the framing
    rig_free(r);
}

static void answers_wait_for_a_reader(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    codec_conn(r->codec)->high = 32 * 1024;
    codec_conn(r->codec)->low = 8 * 1024;
    static char big[128 * 1024 + 1];
    memset(big, 'x', sizeof(big) - 1);
    r->quiet = true;
    int n = 0;
    for (; n < 200; n++) { // pipelined requests of a client that does not read
        rig_send(r, GET("/x"));
        if (!r->stream) {
            break;
        }
        rig_answer(r, 200, sizeof(big) - 1, big);
        rig_turn(r, 2);
    }
    assert_true(n < 200);
    assert_true(codec_conn(r->codec)->out.len < 512 * 1024);
    assert_null(r->stream);
    static char sink[256 * 1024];
    for (int i = 0; i < 1000 && !r->stream; i++) { // reading makes it go on
        ssize_t k = recv(r->fd, sink, sizeof(sink), 0);
        (void)k;
        rig_turn(r, 2);
    }
    assert_non_null(r->stream);
    rig_free(r);
}

static void pause_and_resume(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    r->pause_in_request = true;
    rig_send(r, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" GET("/2"));
    assert_string_equal(rig_heard(r), "request POST / host=h len=5|");
    rig_turn(r, 5);
    assert_string_equal(rig_heard(r), "");
    r->pause_in_request = false;
    codec_stream_resume(r->stream);
    rig_turn(r, 2);
    assert_string_equal(rig_heard(r), "data hello end|");
    assert_true(codec_stream_remote_done(r->stream));
    rig_answer(r, 200, 2, "ok");
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), "close|idle|" REQ("/2"));
    rig_free(r);
}

static void paused_body_stops_reading(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    r->pause_in_request = r->quiet = true;
    rig_send(r, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n");
    static char junk[16 * 1024];
    size_t sent = 0;
    for (int i = 0; i < 1000; i++) {
        ssize_t k = send(r->fd, junk, sizeof(junk), MSG_NOSIGNAL);
        sent += k > 0 ? (size_t)k : 0;
        rig_turn(r, 1);
    }
    assert_true(sent < 1000 * sizeof(junk));
    assert_true(codec_conn(r->codec)->in.len < 512 * 1024);
    assert_int_equal(r->body, 0);
    codec_stream_resume(r->stream);
    rig_turn(r, 50);
    assert_int_equal(r->body, sent);
    rig_free(r);
}

static void drain(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, GET("/1"));
    codec_drain(r->codec);
    rig_turn(r, 2);
    assert_string_equal(rig_heard(r), REQ("/1"));
    rig_answer(r, 200, 2, "ok");
    assert_string_equal(rig_recv(r), "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok<eof>");
    assert_string_equal(rig_heard(r), "close|gone local|");
    rig_free(r);
    r = rig_new(true, NULL); // idle: at once
    codec_drain(r->codec);
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), "gone local|");
    rig_free(r);
}

static void connection_close_of_the_client(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" GET("/2"));
    rig_answer(r, 200, 2, "ok");
    assert_string_equal(rig_recv(r), "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok<eof>");
    shutdown(r->fd, SHUT_WR);
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), REQ("/1") "close|idle|gone local|"); // /2 is not served
    rig_free(r);
}

static void length_mismatch_breaks_the_answer(void **state)
{
    (void)state;
    const char *bodies[] = { "x", "xxx" };
    for (int i = 0; i < 2; i++) {
        struct rig *r = rig_new(true, NULL);
        rig_send(r, GET("/a"));
        rig_answer(r, 200, 2, bodies[i]);
        assert_null(strstr(rig_recv(r), "\r\n\r\nx"));
        assert_string_equal(rig_heard(r), REQ("/a") "close|gone local|");
        rig_free(r);
    }
}

static void reset_and_free_inside_callbacks(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    r->reset_in_request = true;
    rig_send(r, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    assert_string_equal(rig_heard(r), "request POST / host=h len=5|close|gone local|");
    rig_free(r);
    r = rig_new(true, NULL);
    r->free_in_request = true;
    rig_send(r, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    assert_string_equal(rig_heard(r), "request POST / host=h len=5|");
    const char *end = rig_recv(r);
    assert_true(strcmp(end, "<eof>") == 0 || strcmp(end, "<reset>") == 0);
    rig_free(r);
}

static void tunnel(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly");
    assert_string_equal(rig_heard(r), "request GET / host=h len=-1 end|"); // the rest is held until the switch
    struct http_response q = { .status = 101, .content_length = -1, .upgrade = STR("websocket") };
    codec_send_response(r->stream, &q);
    assert_string_equal(rig_recv(r), "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    assert_string_equal(rig_heard(r), "data early|");
    struct buf b = { 0 };
    buf_append_str(&b, STR("raw"));
    codec_send_data(r->stream, &b, false);
    assert_string_equal(rig_recv(r), "raw");
    rig_send(r, GET("/not-parsed"));
    assert_string_equal(rig_heard(r), "data " GET("/not-parsed") "|");
    shutdown(r->fd, SHUT_WR);
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), "data  end|");
    codec_send_data(r->stream, &b, true);
    assert_string_equal(rig_recv(r), "<eof>");
    assert_string_equal(rig_heard(r), "close|gone remote|");
    rig_free(r);
}

static void upgrade_refused(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    rig_send(r, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" GET("/2"));
    rig_answer(r, 403, 2, "no");
    assert_string_equal(rig_recv(r), "HTTP/1.1 403 Forbidden\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nno");
    assert_string_equal(rig_heard(r), "request GET / host=h len=-1 end|close|idle|" REQ("/2"));
    struct http_response q = { .status = 101, .content_length = -1, .upgrade = STR("x") };
    codec_send_response(r->stream, &q); // nobody asked: broken off
    assert_string_equal(rig_recv(r), "<eof>");
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keep_alive),
        cmocka_unit_test(half_a_request_at_a_time),
        cmocka_unit_test(pipelining_of_ten),
        cmocka_unit_test(pipelining_answered_inside_the_callback),
        cmocka_unit_test(pipelined_bytes_are_bounded),
        cmocka_unit_test(chunked_and_trailers),
        cmocka_unit_test(continue_100),
        cmocka_unit_test(final_answer_in_place_of_continue),
        cmocka_unit_test(early_answer_reads_a_small_rest_away),
        cmocka_unit_test(early_answer_to_a_large_request_closes_without_reset),
        cmocka_unit_test(early_answer_with_a_body_to_a_large_request),
        cmocka_unit_test(broken_until_close_answer_is_reset),
        cmocka_unit_test(endless_early_body_is_cut),
        cmocka_unit_test(lingering_ends_by_time),
        cmocka_unit_test(cut_off),
        cmocka_unit_test(half_close_is_served_when_asked),
        cmocka_unit_test(bodiless_answers),
        cmocka_unit_test(http10),
        cmocka_unit_test(large_last_answer_to_a_slow_reader),
        cmocka_unit_test(free_inside_on_close),
        cmocka_unit_test(bytes_that_came_before_the_codec),
        cmocka_unit_test(early_answer_while_paused),
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(bad_request_behind_a_good_one),
        cmocka_unit_test(bad_body),
        cmocka_unit_test(watermarks_with_a_slow_reader),
        cmocka_unit_test(answers_wait_for_a_reader),
        cmocka_unit_test(pause_and_resume),
        cmocka_unit_test(paused_body_stops_reading),
        cmocka_unit_test(drain),
        cmocka_unit_test(connection_close_of_the_client),
        cmocka_unit_test(length_mismatch_breaks_the_answer),
        cmocka_unit_test(reset_and_free_inside_callbacks),
        cmocka_unit_test(tunnel),
        cmocka_unit_test(upgrade_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
