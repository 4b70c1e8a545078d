// SPDX-License-Identifier: Apache-2.0
// The codec without a protocol, against a raw socket.
#include "tests/unit/lib/http/codec_rig.h"

// As rig_new, with the raw client on the other end and its one exchange begun.
static struct rig *begin(void)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    struct rig *r = calloc(1, sizeof(*r));
    r->fd = fds[0];
    r->loop = loop_new(NULL);
    rig_turn(r, 1);
    struct addr none = { 0 };
    r->codec = codec_raw_client(conn_accepted(r->loop, fds[1], &none, &none, NULL, NULL), &rig_ops, r);
    assert_true(codec_can_open(r->codec));
    rig_ask_with(r, "CONNECT", "", -1, NULL, true, NULL);
    assert_false(codec_can_open(r->codec));
    rig_turn(r, 2);
    return r;
}

static void say(struct rig *r, const char *text, bool end)
{
    struct buf b = { 0 };
    buf_append_str(&b, str_c(text));
    codec_send_data(r->stream, &b, end);
    assert_int_equal(b.len, 0);
}

static void bytes_pass_and_each_side_ends(void **state)
{
    (void)state;
    struct rig *r = begin();
    assert_string_equal(rig_heard(r), "response 200 len=-1|");
    say(r, "hello", false);
    assert_string_equal(rig_recv(r), "hello"); // and nothing of the request
    rig_send(r, "world");
    assert_string_equal(rig_heard(r), "data world|");
    shutdown(r->fd, SHUT_WR);
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), "data  end|");
    say(r, "more", false); // the other way goes on
    say(r, "last", true);
    assert_string_equal(rig_recv(r), "morelast<eof>");
    rig_turn(r, 3);
    assert_int_equal(strncmp(rig_heard(r), "close|gone ", 11), 0);
    assert_null(r->codec);
    rig_free(r);
}

static void what_comes_early_waits_for_the_answer(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    struct rig *r = calloc(1, sizeof(*r));
    r->fd = fds[0];
    r->loop = loop_new(NULL);
    rig_turn(r, 1);
    struct addr none = { 0 };
    r->codec = codec_raw_client(conn_accepted(r->loop, fds[1], &none, &none, NULL, NULL), &rig_ops, r);
    rig_send(r, "first");
    assert_string_equal(rig_heard(r), "");
    rig_ask_with(r, "CONNECT", "", -1, NULL, true, NULL);
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), "response 200 len=-1|data first|");
    rig_free(r);
}

static void a_reset_ends_it_at_once(void **state)
{
    (void)state;
    struct rig *r = begin();
    rig_heard(r);
    codec_stream_reset(r->stream, CODEC_RESET_LOCAL);
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), "close|gone local|");
    rig_free(r);
}

static void a_lost_server_is_a_reset(void **state)
{
    (void)state;
    struct rig *r = begin();
    rig_heard(r);
    close(r->fd);
    r->fd = -1;
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), "data  end|"); // an orderly end, as far as can be seen
    say(r, "x", false);
    rig_turn(r, 4);
    const char *got = rig_heard(r);
    assert_non_null(strstr(got, "reset connection"));
    assert_non_null(strstr(got, "close|gone reset|"));
    rig_free(r);
}

static void a_slow_server_holds_up_the_sender(void **state)
{
    (void)state;
    struct rig *r = begin();
    rig_heard(r);
    static char block[100000];
    memset(block, 'x', sizeof(block) - 1);
    for (int i = 0; i < 100 && !r->highs; i++) {
        say(r, block, false);
    }
    assert_int_equal(r->highs, 1);
    for (int i = 0; i < 200 && !r->lows; i++) {
        rig_recv(r);
    }
    assert_int_equal(r->lows, 1);
    rig_free(r);
}

static void a_paused_stream_hears_nothing(void **state)
{
    (void)state;
    struct rig *r = begin();
    rig_heard(r);
    codec_stream_pause(r->stream);
    rig_send(r, "later");
    assert_string_equal(rig_heard(r), "");
    codec_stream_resume(r->stream);
    rig_turn(r, 3);
    assert_string_equal(rig_heard(r), "data later|");
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_pass_and_each_side_ends),
        cmocka_unit_test(what_comes_early_waits_for_the_answer),
        cmocka_unit_test(a_reset_ends_it_at_once),
        cmocka_unit_test(a_lost_server_is_a_reset),
        cmocka_unit_test(a_slow_server_holds_up_the_sender),
        cmocka_unit_test(a_paused_stream_hears_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
