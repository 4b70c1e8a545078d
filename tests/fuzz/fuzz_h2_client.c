// SPDX-License-Identifier: Apache-2.0
// fuzz-modules: lib/http lib/net lib/event lib/base
// An HTTP/2 client codec on a socket pair with a real loop, against a server that is the input. First byte: what the owner does; then pieces
// of (length, bytes) from the server. Held: each stream hears on_close once and nothing behind it, one final head before any body, heads
// that are clean (RFC 9113 §8.2), and a body of the length that its head announced.
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/http/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STREAMS_MAX = 64 };

struct one {
    struct arena arena;
    struct codec_stream *s;
    int64_t left; // of the announced body; -1: not announced
    bool head, ended, tunnel, closed, upgrade, connect, ask_head;
};
static struct {
    struct loop *loop;
    struct codec *codec;
    struct one *v[STREAMS_MAX];
    unsigned n;
    uint8_t plan;
} r;

static void check_clean(const struct headers *h)
{
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        CHECK(x->name.n);
        for (size_t i = 0; i < x->name.n + x->value.n; i++) {
            char c = i < x->name.n ? x->name.p[i] : x->value.p[i - x->name.n];
            CHECK(c != '\r' && c != '\n' && c != '\0');
            CHECK(i >= x->name.n || (c > ' ' && c != ':' && (c < 'A' || c > 'Z')));
        }
        CHECK(x->value.n == 0 || str_trim(x->value).n == x->value.n);
        CHECK(!hdr_is_connection_specific(x->id) && x->id != HDR_HOST && x->id != HDR_CONTENT_LENGTH && x->id != HDR_TE);
    }
}

static void on_response(struct codec_stream *s, struct http_response *q)
{
    struct one *o = codec_stream_owner(s);
    CHECK(o->s == s && !o->closed && !o->head && q->status >= 100 && q->status <= 999);
    check_clean(&q->headers);
    CHECK(q->status != 101 || (o->upgrade && q->upgrade.n));
    CHECK(!(o->upgrade && q->status >= 200 && q->status < 300)); // a switch is said as 101
    if (q->status >= 200 || q->status == 101) {
        o->head = true;
        o->ended = q->end_stream;
        o->tunnel = q->status == 101 || (o->connect && q->status < 300);
        o->left = o->tunnel ? -1 : o->ask_head || q->status == 204 || q->status == 304 ? 0 : q->content_length;
        CHECK(!q->end_stream || o->left <= 0);
    } else {
        CHECK(q->content_length < 0);
    }
    if (o->tunnel) {
        struct buf b = { 0 };
        buf_append_str(&b, STR("through the tunnel"));
        codec_send_data(s, &b, r.plan & 1);
    }
    if ((r.plan & 2) && r.n % 3 == 0) {
        codec_stream_reset(s, CODEC_RESET_LOCAL);
    }
}

static void on_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct one *o = codec_stream_owner(s);
    CHECK(o->s == s && !o->closed && o->head && !o->ended && (end || data->len));
    CHECK(o->left < 0 || (int64_t)data->len <= o->left);
    o->left -= o->left < 0 ? 0 : (int64_t)data->len;
    CHECK(!end || o->left <= 0);
    o->ended = end;
    if (r.plan & 4) {
        codec_stream_pause(s);
    }
}

static void on_trailers(struct codec_stream *s, struct headers *t)
{
    struct one *o = codec_stream_owner(s);
    CHECK(o->s == s && !o->closed && o->head && !o->ended && o->left <= 0);
    o->ended = true;
    check_clean(t);
}

static void on_reset(struct codec_stream *s, enum codec_reset why, const char *detail)
{
    struct one *o = codec_stream_owner(s);
    CHECK(!o->closed && detail && why <= CODEC_RESET_GOAWAY);
}

static void on_close(struct codec_stream *s)
{
    struct one *o = codec_stream_owner(s);
    CHECK(o->s == s && !o->closed);
    o->closed = true;
    o->s = NULL;
}

static const struct codec_stream_ops stream_ops = { .on_response = on_response, .on_data = on_data, .on_trailers = on_trailers,
                                                    .on_reset = on_reset, .on_close = on_close };

static void ask(uint8_t how)
{
    if (r.n == STREAMS_MAX || !r.codec || !codec_can_open(r.codec)) {
        return;
    }
    struct one *o = r.v[r.n++] = calloc(1, sizeof(struct one));
    o->s = codec_new_stream(r.codec, &stream_ops, o, &o->arena);
    CHECK(o->s);
    o->connect = how % 5 == 1;
    o->upgrade = how % 5 == 2;
    o->ask_head = how % 5 == 4;
    bool body = how % 5 == 3;
    struct http_request q = { .method = o->connect ? STR("CONNECT") : body ? STR("POST") : o->ask_head ? STR("HEAD") : STR("GET"),
                              .host = STR("h:1"),
                              .path = o->connect ? STR("") : STR("/"), .version = HTTP_11, .content_length = -1, .end_stream = !body,
                              .upgrade = o->upgrade ? STR("websocket") : STR("") };
    headers_init(&q.headers, &o->arena);
    headers_add(&q.headers, STR("X-A"), STR("1"));
    codec_send_request(o->s, &q);
    if (body && o->s) {
        struct buf b = { 0 };
        for (int i = 0; i < (r.plan & 8 ? 5000 : 1); i++) {
            buf_append_str(&b, STR("some bytes of a request"));
        }
        codec_send_data(o->s, &b, how & 8);
        if (!(how & 8) && o->s) {
            codec_send_trailers(o->s, &q.headers);
        }
    }
}

static void on_gone(struct codec *c, enum conn_close why)
{
    (void)why;
    CHECK(c == r.codec && codec_active(c) == 0);
    r.codec = NULL;
    codec_free(c);
}

static void on_idle(struct codec *c)
{
    if ((r.plan & 16) && c == r.codec) {
        ask((uint8_t)(r.n * 3));
    }
}

static const struct codec_ops ops = { .on_conn_close = on_gone, .on_idle = on_idle };

static void turns(int fd, int n)
{
    static char sink[65536];
    while (n--) {
        loop_turn(r.loop, 0);
        while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0) {
        }
    }
}

static void play(int fd, const uint8_t *data, size_t size)
{
    for (size_t at = 1; at + 1 < size;) {
        size_t n = data[at++] + 1u;
        n = n > size - at ? size - at : n;
        if (send(fd, data + at, n, MSG_NOSIGNAL) < 0) {
            return;
        }
        at += n;
        turns(fd, 2);
        if (data[at - 1] & 1) {
            ask(data[at - 1]);
        }
        if (r.n && r.codec && (data[at - 1] & 2)) {
            struct one *o = r.v[data[at - 1] % r.n];
            if (o->s) {
                codec_stream_resume(o->s);
            }
        }
        if ((r.plan & 32) && r.n == 5 && r.codec) {
            codec_drain(r.codec);
        }
        if ((r.plan & 64) && r.n == 7 && r.codec) {
            codec_free(r.codec);
            r.codec = NULL;
        }
    }
}

static void clean(void)
{
    for (unsigned i = 0; i < r.n && r.codec; i++) { // what is paused may go on
        if (r.v[i]->s) {
            codec_stream_resume(r.v[i]->s);
        }
    }
    for (int i = 0; i < 4; i++) {
        loop_turn(r.loop, 0);
    }
    codec_free(r.codec);
    r.codec = NULL;
    for (int i = 0; i < 3; i++) {
        loop_turn(r.loop, 0);
    }
    for (unsigned i = 0; i < r.n; i++) {
        arena_fini(&r.v[i]->arena);
        free(r.v[i]);
    }
    r.n = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fds[2];
    if (size < 2 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
        return 0;
    }
    if (!r.loop) {
        r.loop = loop_new(NULL);
        loop_turn(r.loop, 0);
    }
    struct addr none = { 0 };
    r.plan = data[0];
    r.codec = codec_h2_client(conn_accepted(r.loop, fds[1], &none, &none, NULL, NULL), &ops, NULL, NULL);
    static const char start[] = "\0\0\6\4\0\0\0\0\0\0\10\0\0\0\1"; // SETTINGS that offer extended CONNECT
    if (r.plan & 128) {
        ask(2); // an upgrade before they came
    }
    if (send(fds[0], start, sizeof(start) - 1, MSG_NOSIGNAL) < 0) {
        r.plan = 0;
    }
    turns(fds[0], 2);
    for (uint8_t i = 0; i < 4; i++) {
        ask((uint8_t)(i + 8));
    }
    turns(fds[0], 2);
    play(fds[0], data, size);
    close(fds[0]);
    clean();
    return 0;
}
