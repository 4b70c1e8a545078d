// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/lib/http/codec_rig.h"

#define ASKED(path) "GET " path " HTTP/1.1\r\nhost: h\r\nx-q: 1\r\n\r\n"

static void keep_alive(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    for (int i = 0; i < 3; i++) {
        assert_true(codec_can_open(r->codec));
        rig_ask(r, "GET", "/a");
        assert_false(codec_can_open(r->codec));
        assert_null(codec_new_stream(r->codec, &rig_stream_ops, r, &r->arena));
        assert_string_equal(rig_recv(r), ASKED("/a"));
        rig_send(r, "HTTP/1.1 200 OK\r\nX-B: 2\r\nContent-Length: 5\r\n\r\nhello");
        assert_string_equal(rig_heard(r), "response 200 len=5 X-B=2|data hello end|close|idle|");
        assert_null(codec_conn(r->codec)->in.head);
    }
    rig_free(r);
}

static void answers(void **state)
{
    (void)state;
    const struct {
        const char *method, *send, *heard;
    } t[] = {
        { "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX-T: 1\r\n\r\n",
          "response 200 len=-1|data abc|trailers X-T=1|close|idle|" },
        { "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
          "response 200 len=-1|data ab end|close|idle|" },
        { "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "response 200 len=5 end|close|idle|" },
        { "GET", "HTTP/1.1 204 No Content\r\n\r\n", "response 204 len=-1 end|close|idle|" },
        { "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "response 304 len=9 end|close|idle|" },
        { "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "response 200 len=0 end|close|idle|" },
        { "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
          "response 100 len=-1 end|response 103 len=-1 end Link=x|response 200 len=2|data ok end|close|idle|" },
        { "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
          "response 200 len=2|goaway|data ok end|close|gone local|" },
        { "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "response 200 len=2|goaway|data ok end|close|gone local|" },
        { "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "response 204 len=-1 end|goaway|close|gone local|" },
        { "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEXTRA", "response 200 len=2|data ok end|close|goaway|gone local|" },
        { "GET", "HTTP/1.1 200 OK\r\nTE: trailers\r\nContent-Length: 0\r\n\r\n", "response 200 len=0 end|close|idle|" },
        { "GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
          "reset protocol http1.unexpected_upgrade|close|goaway|gone local|" },
        { "GET", "SSH-2.0\r\n", "reset protocol http1.invalid_status_line|close|goaway|gone local|" },
        { "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
          "reset protocol http1.content_length_and_transfer_encoding|close|goaway|gone local|" },
        { "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX",
          "response 200 len=-1|data ab|reset protocol http1.invalid_chunk_end|close|goaway|gone local|" },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct rig *r = rig_new(false, NULL);
        rig_ask(r, t[i].method, "/a");
        rig_recv(r);
        rig_send(r, t[i].send);
        assert_string_equal(rig_heard(r), t[i].heard);
        rig_free(r);
    }
}

static void answers_byte_by_byte(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    r->quiet = true;
    rig_ask(r, "GET", "/a");
    rig_recv(r);
    for (const char *p = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"; *p; p++) {
        rig_send_n(r, p, 1);
    }
    assert_int_equal(r->body, 3);
    assert_string_equal(rig_heard(r), "response 200 len=-1|close|idle|");
    rig_free(r);
}

static void until_close(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    rig_ask(r, "GET", "/a");
    rig_recv(r);
    rig_send(r, "HTTP/1.1 200 OK\r\n\r\nhel");
    rig_send(r, "lo");
    assert_string_equal(rig_heard(r), "response 200 len=-1|goaway|data hel|data lo|");
    close(r->fd);
    r->fd = -1;
    rig_turn(r, 4);
    assert_string_equal(rig_heard(r), "data  end|close|gone remote|");
    rig_free(r);
}

static void cut_off(void **state)
{
    (void)state;
    const struct {
        const char *send, *heard;
    } t[] = {
        { "", "reset remote upstream_remote_disconnect|close|goaway|gone remote|" },
        { "HTTP/1.1 200", "reset remote upstream_remote_disconnect|close|goaway|gone remote|" },
        { "HTTP/1.1 100 Continue\r\n\r\n", "response 100 len=-1 end|reset remote upstream_remote_disconnect|close|goaway|gone remote|" },
        { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
          "response 200 len=5|data hel|reset remote upstream_remote_disconnect|close|goaway|gone remote|" },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
          "response 200 len=-1|data ab|reset remote upstream_remote_disconnect|close|goaway|gone remote|" },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct rig *r = rig_new(false, NULL);
        rig_ask(r, "GET", "/a");
        rig_recv(r);
        rig_send(r, t[i].send);
        shutdown(r->fd, SHUT_WR);
        rig_turn(r, 4);
        assert_string_equal(rig_heard(r), t[i].heard);
        rig_free(r);
    }
}

static void exchange_once(struct rig *r)
{
    rig_ask(r, "GET", "/1");
    rig_recv(r);
    rig_send(r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_string_equal(rig_heard(r), "response 200 len=0 end|close|idle|");
}

static void reused_connection_closed_before_the_answer(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    exchange_once(r);
    rig_ask(r, "GET", "/2");
    rig_recv(r);
    shutdown(r->fd, SHUT_WR);
    rig_turn(r, 4);
    assert_string_equal(rig_heard(r), "reset before_request upstream_remote_disconnect|close|goaway|gone remote|");
    rig_free(r);
    // And with RST: unread bytes at our end when it closes.
    r = rig_new(false, NULL);
    exchange_once(r);
    rig_ask(r, "GET", "/2");
    rig_turn(r, 2);
    close(r->fd);
    r->fd = -1;
    rig_turn(r, 4);
    assert_memory_equal(rig_heard(r), "reset before_request ", 21);
    rig_free(r);
}

static void closed_while_idle(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    exchange_once(r);
    shutdown(r->fd, SHUT_WR);
    rig_turn(r, 4);
    assert_string_equal(rig_heard(r), "goaway|gone remote|");
    rig_free(r);
}

static void bytes_nobody_asked_for(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    exchange_once(r);
    rig_send(r, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    assert_string_equal(rig_heard(r), "goaway|gone local|");
    rig_free(r);
    // In the very moment when the next request is queued: it must not get that answer.
    r = rig_new(false, NULL);
    exchange_once(r);
    assert_true(send(r->fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 42, MSG_NOSIGNAL) == 42);
    rig_ask(r, "GET", "/2");
    rig_turn(r, 4);
    assert_string_equal(rig_heard(r), "reset before_request http1.unexpected_bytes|close|goaway|gone local|");
    rig_free(r);
}

static void answer_in_the_turn_in_which_the_connection_opened(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    rig_ask(r, "GET", "/1");
    conn_flush(codec_conn(r->codec)); // what a connection does by itself when it has become open
    assert_true(send(r->fd, "HTTP/1.1 204 No Content\r\n\r\n", 27, MSG_NOSIGNAL) == 27);
    rig_turn(r, 1);
    assert_memory_equal(rig_heard(r), "response 204", 12);
    rig_free(r);
}

static void early_answer_while_sending(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    rig_ask_with(r, "POST", "/a", -1, "part", false, NULL);
    assert_string_equal(rig_recv(r), "POST /a HTTP/1.1\r\nhost: h\r\nx-q: 1\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n");
    rig_send(r, "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno");
    assert_string_equal(rig_heard(r), "response 413 len=2|data no end|close|goaway|gone local|");
    rig_free(r);
}

static void request_bodies(void **state)
{
    (void)state;
    const struct {
        long long length;
        const char *body, *want;
    } t[] = {
        { 5, "hello", "POST /a HTTP/1.1\r\nhost: h\r\nx-q: 1\r\ncontent-length: 5\r\n\r\nhello" },
        { -1, "hello", "POST /a HTTP/1.1\r\nhost: h\r\nx-q: 1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" },
        { 0, NULL, "POST /a HTTP/1.1\r\nhost: h\r\nx-q: 1\r\ncontent-length: 0\r\n\r\n" },
        { -1, NULL, "POST /a HTTP/1.1\r\nhost: h\r\nx-q: 1\r\ncontent-length: 0\r\n\r\n" },
        { 9, "hello", "<eof>" }, // shorter than announced: never looks complete
        { 2, "hello", "<eof>" },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct rig *r = rig_new(false, NULL);
        rig_ask_with(r, "POST", "/a", t[i].length, t[i].body, true, NULL);
        assert_string_equal(rig_recv(r), t[i].want);
        rig_free(r);
    }
}

static void paused_answer(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    rig_ask(r, "GET", "/a");
    rig_recv(r);
    codec_stream_pause(r->stream);
    rig_send(r, "HTTP/1.1 200 OK\r\n\r\nhello");
    close(r->fd);
    r->fd = -1;
    rig_turn(r, 4);
    assert_string_equal(rig_heard(r), "response 200 len=-1|goaway|"); // the head is not body
    codec_stream_resume(r->stream);
    rig_turn(r, 4);
    assert_string_equal(rig_heard(r), "data hello|data  end|close|gone remote|");
    rig_free(r);
}

static void too_many_informational_heads(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    rig_ask(r, "GET", "/a");
    rig_recv(r);
    for (int i = 0; i < 20 && r->codec; i++) {
        rig_send(r, "HTTP/1.1 102 Processing\r\n\r\n");
    }
    assert_non_null(strstr(rig_heard(r), "reset overflow"));
    rig_free(r);
}

static void reset_closes_the_connection(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    rig_ask(r, "GET", "/a");
    rig_recv(r);
    codec_stream_reset(r->stream, CODEC_RESET_LOCAL);
    assert_string_equal(rig_heard(r), ""); // nothing from inside the call
    rig_turn(r, 2);
    assert_string_equal(rig_heard(r), "close|goaway|gone local|");
    assert_string_equal(rig_recv(r), "<eof>");
    rig_free(r);
}

static void draining(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    rig_ask(r, "GET", "/a");
    rig_recv(r);
    codec_drain(r->codec);
    rig_send(r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_string_equal(rig_heard(r), "response 200 len=0 end|close|gone local|");
    rig_free(r);
}

static void tunnel(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    rig_ask_with(r, "GET", "/a", -1, NULL, true, "websocket");
    assert_string_equal(rig_recv(r), "GET /a HTTP/1.1\r\nhost: h\r\nx-q: 1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    rig_send(r, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw");
    assert_string_equal(rig_heard(r), "response 101 len=-1 upgrade=websocket|goaway|data raw|");
    struct buf b = { 0 };
    buf_append_str(&b, STR("up"));
    codec_send_data(r->stream, &b, true);
    assert_string_equal(rig_recv(r), "up<eof>");
    rig_send(r, "more");
    shutdown(r->fd, SHUT_WR);
    rig_turn(r, 4);
    assert_string_equal(rig_heard(r), "data more|data  end|close|gone remote|");
    rig_free(r);
}

static void connect_tunnel_and_refusal(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    rig_ask_with(r, "CONNECT", "", -1, NULL, false, NULL);
    assert_string_equal(rig_recv(r), "CONNECT h HTTP/1.1\r\nhost: h\r\nx-q: 1\r\n\r\n");
    rig_send(r, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw");
    assert_string_equal(rig_heard(r), "response 200 len=-1|data raw|");
    rig_free(r);
    r = rig_new(false, NULL);
    rig_ask_with(r, "GET", "/", -1, NULL, true, "websocket");
    rig_recv(r);
    rig_send(r, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    assert_string_equal(rig_heard(r), "response 403 len=2|data no end|close|idle|");
    rig_free(r);
}

static void codec_on_a_connection_that_is_not_open_yet(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    struct addr a;
    assert_true(addr_parse(STR("127.0.0.1:0"), &a));
    int l = socket_listen(&a, &(struct socket_listen_opts){ 0 }, NULL);
    socket_local(l, &a);
    codec_free(r->codec);
    r->codec = codec_h1_client(conn_connect(r->loop, &a, NULL, 1000, NULL, NULL), &rig_ops, r, NULL);
    assert_false(codec_can_open(r->codec));
    for (int i = 0; i < 100 && !r->n_log; i++) {
        loop_turn(r->loop, 10);
    }
    assert_string_equal(rig_heard(r), "idle|");
    assert_true(codec_can_open(r->codec));
    rig_free(r);
    close(l);
}

static void refused_connection(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    struct addr a;
    assert_true(addr_parse(STR("127.0.0.1:0"), &a));
    int l = socket_listen(&a, &(struct socket_listen_opts){ 0 }, NULL);
    socket_local(l, &a);
    close(l);
    codec_free(r->codec);
    r->codec = codec_h1_client(conn_connect(r->loop, &a, NULL, 1000, NULL, NULL), &rig_ops, r, NULL);
    for (int i = 0; i < 100 && !r->n_log; i++) {
        loop_turn(r->loop, 10);
    }
    assert_string_equal(rig_heard(r), "gone reset|");
    rig_free(r);
}

static void echo_piece(struct codec_stream *s, struct buf *data, bool end)
{
    codec_send_data(s, data, end);
}

static const struct codec_stream_ops echo_stream_ops = { .on_data = echo_piece };

static void echo_request(struct codec *c, struct codec_stream *s, struct http_request *q)
{
    (void)c;
    codec_stream_set(s, &echo_stream_ops, NULL);
    struct http_response p = { .status = 200, .content_length = q->content_length };
    codec_send_response(s, &p);
}

static void echo_gone(struct codec *c, enum conn_close why)
{
    (void)why;
    *(bool *)codec_owner(c) = true;
    codec_free(c);
}

static struct arena echo_arena;
static struct arena *echo_get_arena(struct codec *c)
{
    (void)c;
    arena_reset(&echo_arena, true);
    return &echo_arena;
}

static const struct codec_ops echo_ops = { .on_request = echo_request, .get_arena = echo_get_arena, .on_conn_close = echo_gone };

// Our client against our server, megabytes both ways at once, in both framings.
static void client_against_server(void **state)
{
    (void)state;
    struct rig *r = rig_new(false, NULL);
    r->quiet = true;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    bool gone = false;
    struct addr none = { 0 };
    codec_free(r->codec);
    r->codec = codec_h1_client(conn_accepted(r->loop, fds[0], &none, &none, NULL, NULL), &rig_ops, r, NULL);
    codec_h1_server(conn_accepted(r->loop, fds[1], &none, &none, NULL, NULL), &echo_ops, &gone, NULL);
    static char piece[30000];
    memset(piece, 'e', sizeof(piece));
    for (int chunked = 0; chunked < 2; chunked++) {
        size_t total = 100 * sizeof(piece);
        r->body = 0;
        rig_ask_with(r, "POST", "/echo", chunked ? -1 : (long long)total, NULL, false, NULL);
        for (size_t sent = 0; sent < total;) {
            if (r->highs == r->lows) {
                struct buf b = { 0 };
                buf_append(&b, piece, sizeof(piece));
                sent += sizeof(piece);
                codec_send_data(r->stream, &b, sent == total);
            }
            rig_turn(r, 1);
        }
        for (int i = 0; i < 5000 && r->stream; i++) {
            rig_turn(r, 1);
        }
        assert_null(r->stream);
        assert_int_equal(r->body, total);
        assert_true(codec_can_open(r->codec));
        rig_heard(r);
    }
    codec_free(r->codec);
    r->codec = NULL;
    rig_turn(r, 5);
    assert_true(gone);
    rig_free(r);
    arena_fini(&echo_arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keep_alive),
        cmocka_unit_test(answers),
        cmocka_unit_test(answers_byte_by_byte),
        cmocka_unit_test(until_close),
        cmocka_unit_test(cut_off),
        cmocka_unit_test(reused_connection_closed_before_the_answer),
        cmocka_unit_test(closed_while_idle),
        cmocka_unit_test(bytes_nobody_asked_for),
        cmocka_unit_test(answer_in_the_turn_in_which_the_connection_opened),
        cmocka_unit_test(early_answer_while_sending),
        cmocka_unit_test(request_bodies),
        cmocka_unit_test(paused_answer),
        cmocka_unit_test(too_many_informational_heads),
        cmocka_unit_test(reset_closes_the_connection),
        cmocka_unit_test(draining),
        cmocka_unit_test(tunnel),
        cmocka_unit_test(connect_tunnel_and_refusal),
        cmocka_unit_test(codec_on_a_connection_that_is_not_open_yet),
        cmocka_unit_test(refused_connection),
        cmocka_unit_test(client_against_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
