// SPDX-License-Identifier: Apache-2.0
// PINGs of an HTTP/2 connection by a clock that stands still unless moved.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/http/codec.h"

#define SETTINGS0 "\0\0\0\4\0\0\0\0\0"
#define WORD "keepalve"
enum { START = 1000000, PREFACE_BYTES = 24, FRAME_HEAD = 9, DATA = 0, HEADERS = 1, PING = 6, ACK = 1, HEARD_MAX = 65536 };

struct rig {
    struct loop *loop;
    struct codec *codec; // NULL: gone
    struct arena arena;
    int fd;              // the peer's end
    bool preface_due;    // heard from a client
    int pings, heads;    // heard since the last look
    int pings_before_head;
};

static void on_gone(struct codec *c, enum conn_close why)
{
    struct rig *r = codec_owner(c);
    assert_int_equal(why, CONN_CLOSE_LOCAL);
    codec_free(c);
    r->codec = NULL;
}

static struct arena *get_arena(struct codec *c)
{
    return &((struct rig *)codec_owner(c))->arena;
}

static const struct codec_ops ops = { .on_conn_close = on_gone, .get_arena = get_arena };
static const struct codec_stream_ops stream_ops = { .on_high = NULL };

static void turn(struct rig *r)
{
    for (int i = 0; i < 4; i++) {
        loop_turn(r->loop, 0);
    }
}

static void peer_says(struct rig *r, const void *p, size_t n)
{
    assert_int_equal(send(r->fd, p, n, MSG_NOSIGNAL), n);
    turn(r);
}

static struct rig *rig_new(bool server, const struct h2_opts *o)
{
    struct rig *r = calloc(1, sizeof(*r));
    int fds[2];
    struct addr none = { 0 };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    r->fd = fds[0];
    r->loop = loop_new(NULL);
    assert_non_null(r->loop);
    loop_turn(r->loop, 0);
    loop_set_fake_time(r->loop, START);
    loop_turn(r->loop, 0);
    struct conn *c = conn_accepted(r->loop, fds[1], &none, &none, NULL, NULL);
    const struct codec_opts opts = { .h2 = o };
    r->codec = server ? codec_h2_server(c, &ops, r, &opts) : codec_h2_client(c, &ops, r, &opts);
    r->preface_due = !server;
    turn(r);
    if (server) {
        peer_says(r, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" SETTINGS0, PREFACE_BYTES + FRAME_HEAD);
    }
    return r;
}

static void rig_free(struct rig *r)
{
    if (r->codec) {
        codec_free(r->codec);
    }
    turn(r);
    loop_free(r->loop);
    arena_fini(&r->arena);
    close(r->fd);
    free(r);
    buf_cache_free();
}

// Counts the frames that came from the codec.
static void look(struct rig *r)
{
    static unsigned char in[HEARD_MAX];
    ssize_t n = recv(r->fd, in, sizeof(in), 0);
    size_t at = 0;
    r->pings = r->heads = r->pings_before_head = 0;
    if (n > 0 && r->preface_due) {
        r->preface_due = false;
        at = PREFACE_BYTES;
    }
    while (n > 0 && at + FRAME_HEAD <= (size_t)n) {
        size_t len = (size_t)in[at] << 16 | (size_t)in[at + 1] << 8 | in[at + 2];
        assert_true(at + FRAME_HEAD + len <= (size_t)n);
        if (in[at + 3] == PING && !(in[at + 4] & ACK)) {
            assert_memory_equal(in + at + FRAME_HEAD, WORD, 8);
            r->pings++;
        } else if (in[at + 3] == HEADERS) {
            r->heads++;
            r->pings_before_head = r->pings;
        }
        at += FRAME_HEAD + len;
    }
}

// PINGs that came when ms have passed since START.
static int pings_at(struct rig *r, uint64_t ms)
{
    loop_set_fake_time(r->loop, START + ms);
    turn(r);
    look(r);
    return r->pings;
}

static struct h2_opts every_second(void)
{
    struct h2_opts o = h2_opts_default;
    o.ping_interval_ms = 1000;
    o.ping_timeout_ms = 300;
    return o;
}

static void none_unless_configured(void **state)
{
    (void)state;
    struct rig *r = rig_new(true, NULL);
    for (uint64_t at = 0; at <= 600000; at += 1000) {
        assert_int_equal(pings_at(r, at), 0);
    }
    assert_non_null(r->codec);
    rig_free(r);
}

static void answered(void **state)
{
    (void)state;
    struct h2_opts o = every_second();
    struct rig *r = rig_new(true, &o);
    uint64_t at = 0;
    for (int i = 0; i < 3; i++) { // the interval begins when the last PING's time is over
        assert_int_equal(pings_at(r, at + 990), 0);
        assert_int_equal(pings_at(r, at + 1010), 1);
        peer_says(r, "\0\0\x08\6\1\0\0\0\0" WORD, FRAME_HEAD + 8);
        at += 1010 + 310;
        assert_int_equal(pings_at(r, at), 0);
        assert_non_null(r->codec);
    }
    rig_free(r);
}

static void silent_peer_is_gone(void **state)
{
    (void)state;
    struct h2_opts o = every_second();
    for (int server = 0; server < 2; server++) {
        struct rig *r = rig_new(server, &o);
        assert_int_equal(pings_at(r, 1010), 1);
        pings_at(r, 1010 + 290);
        assert_non_null(r->codec);
        pings_at(r, 1010 + 310);
        assert_null(r->codec);
        rig_free(r);
    }
}

static void any_byte_is_a_sign_of_life(void **state)
{
    (void)state;
    struct h2_opts o = every_second();
    struct rig *r = rig_new(true, &o);
    assert_int_equal(pings_at(r, 1010), 1);
    peer_says(r, "\0", 1); // a frame that has only begun
    pings_at(r, 1010 + 310);
    assert_non_null(r->codec);
    assert_int_equal(pings_at(r, 1010 + 310 + 1010), 1); // what came before a PING does not count for it
    pings_at(r, 1010 + 310 + 1010 + 310);
    assert_null(r->codec);
    rig_free(r);
}

static void jitter_spreads(void **state)
{
    (void)state;
    struct h2_opts o = every_second();
    o.ping_jitter_pct = 50;
    int early = 0, late = 0;
    for (int i = 0; i < 40; i++) { // 0 to 500 ms more, at random
        struct rig *r = rig_new(true, &o);
        assert_int_equal(pings_at(r, 990), 0);
        int n = pings_at(r, 1250);
        early += n;
        late += n == 0;
        if (!n) {
            assert_int_equal(pings_at(r, 1510), 1);
        }
        rig_free(r);
    }
    assert_true(early > 5 && late > 5);
}

static void ask(struct rig *r)
{
    struct http_request q = { .method = STR("GET"), .path = STR("/"), .host = STR("h"), .scheme = STR("http"), .content_length = -1,
                              .end_stream = true, .version = HTTP_2 };
    headers_init(&q.headers, &r->arena);
    assert_true(codec_can_open(r->codec));
    struct codec_stream *s = codec_new_stream(r->codec, &stream_ops, r, &r->arena);
    codec_send_request(s, &q);
    codec_flush(r->codec);
    turn(r);
    look(r);
    assert_int_equal(r->heads, 1);
}

static void ping_in_front_of_a_stream_behind_silence(void **state)
{
    (void)state;
    struct h2_opts o = h2_opts_default;
    o.ping_idle_ms = 5000;
    o.ping_timeout_ms = 300;
    struct rig *r = rig_new(false, &o);
    peer_says(r, SETTINGS0, FRAME_HEAD);
    pings_at(r, 4990);
    ask(r);
    assert_int_equal(r->pings, 0);
    pings_at(r, 5010); // silent for so long: our own frames are no sign of the peer
    ask(r);
    assert_int_equal(r->pings_before_head, 1);
    ask(r); // one PING at a time
    assert_int_equal(r->pings, 0);
    peer_says(r, "\0\0\x08\6\1\0\0\0\0" WORD, FRAME_HEAD + 8);
    assert_int_equal(pings_at(r, 5010 + 310), 0);
    assert_non_null(r->codec);
    ask(r);
    assert_int_equal(r->pings, 0);
    pings_at(r, 5010 + 5010);
    ask(r);
    assert_int_equal(r->pings, 1);
    pings_at(r, 5010 + 5010 + 310);
    assert_null(r->codec);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none_unless_configured), cmocka_unit_test(answered), cmocka_unit_test(silent_peer_is_gone),
        cmocka_unit_test(any_byte_is_a_sign_of_life), cmocka_unit_test(jitter_spreads),
        cmocka_unit_test(ping_in_front_of_a_stream_behind_silence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
