// SPDX-License-Identifier: Apache-2.0
// fuzz-modules: lib/http lib/net lib/event lib/base
// A codec on a socket pair with a real loop; the input is a script of what the peer sends and what the owner does. First byte: side.
// Then operations: one byte of kind, most with arguments. Held: each stream hears on_close once and nothing behind it, the
// connection's end is told once, the count of streams is right.
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/http/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct loop *loop;
    struct codec *codec; // NULL once gone
    struct codec_stream *s;
    struct arena arena;
    int fd;
    unsigned open, highs;
    uint8_t plan; // what callbacks do: bits
    bool ended;   // the stream heard its peer's end
};

static struct run r;

static void stream_end(void)
{
    CHECK(r.s && !r.ended);
    r.ended = true;
}

static void in_callback(void)
{
    if ((r.plan & 1) && r.s) {
        codec_stream_reset(r.s, CODEC_RESET_LOCAL);
    }
    if ((r.plan & 2) && r.s) {
        codec_stream_pause(r.s);
    }
    if ((r.plan & 4) && r.codec) {
        codec_free(r.codec);
        r.codec = NULL;
        r.s = NULL;
        r.open = 0;
    }
    r.plan >>= 3;
}

static void on_response(struct codec_stream *s, struct http_response *q)
{
    CHECK(s == r.s);
    if (q->status == 101) {
        r.ended = false;
    }
    in_callback();
}

static void on_data(struct codec_stream *s, struct buf *data, bool end)
{
    CHECK(s == r.s && (end || data->len));
    if (end) {
        stream_end();
    }
    in_callback();
}

static void on_trailers(struct codec_stream *s, struct headers *t)
{
    CHECK(s == r.s && t->count);
    stream_end();
    in_callback();
}

static void on_high(struct codec_stream *s)
{
    CHECK(s == r.s);
    r.highs++;
}

static void on_low(struct codec_stream *s)
{
    CHECK(s == r.s);
}

static void on_reset(struct codec_stream *s, enum codec_reset why, const char *detail)
{
    CHECK(s == r.s && detail && why <= CODEC_RESET_OVERFLOW);
    in_callback();
}

static void on_close(struct codec_stream *s)
{
    CHECK(s == r.s && r.open == 1);
    r.s = NULL;
    r.open--;
    arena_reset(&r.arena, false);
    in_callback();
}

static const struct codec_stream_ops stream_ops = {
    .on_response = on_response, .on_data = on_data, .on_trailers = on_trailers, .on_high = on_high, .on_low = on_low,
    .on_reset = on_reset, .on_close = on_close,
};

static void on_request(struct codec *c, struct codec_stream *s, struct http_request *q)
{
    CHECK(c == r.codec && !r.s && r.open == 0);
    CHECK(q->method.n && (q->path.n || q->host.n));
    codec_stream_set(s, &stream_ops, &r);
    r.s = s;
    r.open = 1;
    r.ended = q->end_stream;
    in_callback();
}

static struct arena *get_arena(struct codec *c)
{
    CHECK(c == r.codec && !r.s);
    arena_reset(&r.arena, false);
    return &r.arena;
}

static void on_bad_request(struct codec *c, int status, const char *detail)
{
    CHECK(c == r.codec && status >= 400 && detail);
    in_callback();
}

static void on_event(struct codec *c)
{
    CHECK(c == r.codec);
    in_callback();
}

static void on_conn_close(struct codec *c, enum conn_close why)
{
    CHECK(c == r.codec && !r.s && r.open == 0 && why != CONN_CLOSE_NONE);
    codec_free(c);
    r.codec = NULL;
}

static const struct codec_ops ops = {
    .on_request = on_request, .get_arena = get_arena, .on_bad_request = on_bad_request, .on_goaway = on_event, .on_idle = on_event,
    .on_conn_close = on_conn_close,
};

static void turn(int n)
{
    while (n--) {
        loop_turn(r.loop, 0);
    }
    CHECK(!r.codec || codec_active(r.codec) == r.open);
}

static void send_head(bool server, uint8_t how)
{
    static const int status[] = { 200, 204, 304, 100, 103, 101, 413, 503 };
    struct arena a = { 0 };
    if (server) {
        struct http_response q = { .status = (uint16_t)status[how & 7], .content_length = (how >> 3 & 3) - 1,
                                   .end_stream = how & 0x20, .upgrade = STR("x") };
        headers_init(&q.headers, &a);
        headers_add(&q.headers, STR("n"), STR("v"));
        codec_send_response(r.s, &q);
        r.ended = r.s && codec_stream_remote_done(r.s); // a tunnel opens what had ended
    } else {
        static const char *const methods[] = { "GET", "HEAD", "POST", "CONNECT" };
        struct http_request q = { .method = str_c(methods[how & 3]), .host = STR("h"), .path = (how & 3) == 3 ? STR("") : STR("/"),
                                  .content_length = (how >> 3 & 3) - 1, .end_stream = how & 0x20,
                                  .upgrade = how & 0x40 ? STR("x") : STR("") };
        headers_init(&q.headers, &a);
        codec_send_request(r.s, &q);
    }
    arena_fini(&a);
}

static void send_body(uint8_t how)
{
    struct buf b = { 0 };
    static char piece[4096];
    buf_append(&b, piece, how & 1 ? sizeof(piece) : how >> 2 & 3);
    codec_send_data(r.s, &b, how & 2);
    buf_clear(&b);
}

static void step(bool server, uint8_t op, uint8_t arg)
{
    switch (op % 12) {
    case 0:
    case 1:
        turn(1 + arg % 3);
        break;
    case 2:
        if (!server && r.codec && !r.s && codec_can_open(r.codec)) {
            arena_reset(&r.arena, false);
            r.s = codec_new_stream(r.codec, &stream_ops, &r, &r.arena);
            r.open = 1;
            r.ended = false;
        }
        if (r.s) {
            send_head(server, arg);
        }
        break;
    case 3:
        if (r.s) {
            send_body(arg);
        }
        break;
    case 4:
        if (r.s) {
            arg & 1 ? codec_stream_pause(r.s) : codec_stream_resume(r.s);
        }
        break;
    case 5:
        if (r.s && arg < 64) {
            codec_stream_reset(r.s, CODEC_RESET_LOCAL);
        }
        break;
    case 6:
        if (r.codec && arg < 64) {
            codec_drain(r.codec);
        }
        break;
    case 7:
        r.plan = arg;
        break;
    case 8:
        shutdown(r.fd, arg & 1 ? SHUT_WR : SHUT_RDWR);
        break;
    case 9: {
        char sink[8192];
        ssize_t k = recv(r.fd, sink, sizeof(sink), 0);
        (void)k;
        break;
    }
    case 10:
        if (r.s) {
            codec_send_trailers(r.s, NULL);
        }
        break;
    case 11:
        if (r.codec) {
            codec_flush(r.codec);
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fds[2];
    if (size < 2 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0) {
        return 0;
    }
    bool server = data[0] & 1;
    struct addr none = { 0 };
    struct codec_opts o = { .half_close_ok = data[0] & 2 };
    r = (struct run){ .fd = fds[0], .loop = loop_new(NULL) };
    loop_turn(r.loop, 0);
    struct conn *conn = conn_accepted(r.loop, fds[1], &none, &none, NULL, NULL);
    conn->high = 8192;
    conn->low = 1024;
    r.codec = server ? codec_h1_server(conn, &ops, &r, &o) : codec_h1_client(conn, &ops, &r, &o);
    for (size_t i = 1; i + 1 < size;) {
        uint8_t op = data[i], arg = data[i + 1];
        i += 2;
        if (op < 0x80) { // text: the rest of the byte is its length
            size_t n = op < size - i ? op : size - i;
            ssize_t k = send(r.fd, data + i, n, MSG_NOSIGNAL);
            (void)k;
            i += n;
            turn(arg & 1);
        } else {
            step(server, op & 0x7f, arg);
        }
    }
    turn(4);
    r.plan = 0;
    close(r.fd);
    turn(6);
    if (r.codec) {
        codec_free(r.codec);
    }
    r.codec = NULL;
    r.s = NULL;
    r.open = 0;
    turn(3);
    loop_free(r.loop);
    arena_fini(&r.arena);
    buf_cache_free();
    return 0;
}
