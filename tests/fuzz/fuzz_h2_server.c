// SPDX-License-Identifier: Apache-2.0
// fuzz-modules: lib/http lib/net lib/event lib/base
// An HTTP/2 server codec on a socket pair with a real loop. First byte: what the owner does; then pieces of (length, bytes) for the
// connection behind the preface. Held: each stream hears on_close once and nothing behind it; heads that are delivered are clean (RFC 9113
// §8.2, §8.3), bodies have the length that the head announced.
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/http/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STREAMS_MAX = 512 };

struct one {
    struct arena arena;
    struct codec_stream *s;
    int64_t left; // of the announced body; -1: not announced
    bool begun, ended, closed, upgrade;
};
static struct {
    struct loop *loop;
    struct codec *codec;
    struct one *v[STREAMS_MAX];
    unsigned n;
    uint8_t plan;
} r;

static void check_clean(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        CHECK(s.p[i] != '\r' && s.p[i] != '\n' && s.p[i] != '\0');
    }
}

static void check_fields(const struct headers *h)
{
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        check_clean(x->name);
        check_clean(x->value);
        for (size_t i = 0; i < x->name.n; i++) {
            char c = x->name.p[i];
            CHECK(c > ' ' && c != ':' && (c < 'A' || c > 'Z'));
        }
        CHECK(x->name.n && (x->value.n == 0 || str_trim(x->value).n == x->value.n));
        CHECK(!hdr_is_connection_specific(x->id) && x->id != HDR_HOST && x->id != HDR_CONTENT_LENGTH && x->id != HDR_TE);
    }
}

static void answer(struct one *o)
{
    if (!o->s || o->closed) {
        return;
    }
    struct http_response q = { .status = o->upgrade ? 101 : 200, .content_length = -1 };
    headers_init(&q.headers, &o->arena);
    headers_add(&q.headers, STR("X-A"), STR("1"));
    codec_send_response(o->s, &q);
    struct buf b = { 0 };
    for (int i = 0; i < (r.plan & 16 ? 3000 : 1); i++) {
        buf_append_str(&b, STR("some bytes of an answer"));
    }
    codec_send_data(o->s, &b, false);
    codec_send_trailers(o->s, &q.headers);
}

static void on_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct one *o = codec_stream_owner(s);
    CHECK(o->s == s && !o->closed && !o->ended && (end || data->len));
    CHECK(o->left < 0 || (int64_t)data->len <= o->left);
    o->left -= o->left < 0 ? 0 : (int64_t)data->len;
    CHECK(!end || o->left <= 0);
    o->ended = end;
    if (r.plan & 1) {
        codec_stream_pause(s);
    }
    if (end && (r.plan & 2)) {
        answer(o);
    }
}

static void on_trailers(struct codec_stream *s, struct headers *t)
{
    struct one *o = codec_stream_owner(s);
    CHECK(o->s == s && !o->closed && !o->ended && o->left <= 0);
    o->ended = true;
    check_fields(t);
}

static void on_reset(struct codec_stream *s, enum codec_reset why, const char *detail)
{
    struct one *o = codec_stream_owner(s);
    CHECK(!o->closed && detail && why <= CODEC_RESET_OVERFLOW);
}

static void on_close(struct codec_stream *s)
{
    struct one *o = codec_stream_owner(s);
    CHECK(o->s == s && !o->closed);
    o->closed = true;
    o->s = NULL;
}

static const struct codec_stream_ops stream_ops = { .on_data = on_data, .on_trailers = on_trailers, .on_reset = on_reset,
                                                    .on_close = on_close };

static struct arena *get_arena(struct codec *c)
{
    CHECK(c == r.codec);
    if (r.n == 0 || r.v[r.n - 1]->begun) {
        if (r.n == STREAMS_MAX) {
            arena_reset(&r.v[0]->arena, false);
            codec_free(c);
            r.codec = NULL;
            return &r.v[0]->arena;
        }
        r.v[r.n++] = calloc(1, sizeof(struct one));
    }
    return &r.v[r.n - 1]->arena;
}

static void on_request(struct codec *c, struct codec_stream *s, struct http_request *q)
{
    CHECK(c == r.codec);
    struct one *o = r.v[r.n - 1];
    o->begun = true;
    o->s = s;
    o->upgrade = q->upgrade.n > 0;
    CHECK(!o->upgrade || (str_is(q->method, "GET") && q->end_stream && (r.plan & 128)));
    o->ended = q->end_stream && !o->upgrade && q->path.n; // tunnels go on behind the answer
    codec_stream_set(s, &stream_ops, o);
    CHECK(q->method.n && q->host.n && (q->path.n || str_is(q->method, "CONNECT")));
    check_clean(q->method);
    check_clean(q->path);
    check_clean(q->host);
    check_fields(&q->headers);
    bool connect = str_is(q->method, "CONNECT");
    CHECK(connect ? q->path.n == 0 && q->scheme.n == 0 : q->path.p[0] == '/' || (q->path.p[0] == '*' && str_is(q->method, "OPTIONS")));
    CHECK(connect || str_is(q->scheme, "http") || str_is(q->scheme, "https"));
    o->left = connect || o->upgrade ? -1 : q->content_length;
    CHECK(!q->end_stream || o->left <= 0);
    if (r.plan & 4) {
        answer(o);
    }
    if ((r.plan & 8) && r.n % 3 == 0) {
        codec_stream_reset(s, CODEC_RESET_LOCAL);
    }
    if ((r.plan & 32) && r.n == 5) {
        codec_drain(c);
    }
    if ((r.plan & 64) && r.n == 7) {
        codec_free(c);
        r.codec = NULL;
    }
}

static void on_gone(struct codec *c, enum conn_close why)
{
    (void)why;
    CHECK(c == r.codec && codec_active(c) == 0);
    r.codec = NULL;
    codec_free(c);
}

static const struct codec_ops ops = { .on_request = on_request, .get_arena = get_arena, .on_conn_close = on_gone };

static void turns(int fd, int n)
{
    static char sink[65536];
    while (n--) {
        loop_turn(r.loop, 0);
        while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0) {
        }
    }
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
    const struct codec_opts o = { .allow_connect = r.plan & 128 };
    r.codec = codec_h2_server(conn_accepted(r.loop, fds[1], &none, &none, NULL, NULL), &ops, NULL, &o);
    static const char start[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    if (send(fds[0], start, sizeof(start) - 1, MSG_NOSIGNAL) < 0) {
        r.plan = 0;
    }
    for (size_t at = 1; at + 1 < size;) {
        size_t n = data[at++] + 1u;
        n = n > size - at ? size - at : n;
        if (send(fds[0], data + at, n, MSG_NOSIGNAL) < 0) {
            break;
        }
        at += n;
        turns(fds[0], 2);
        if (r.n && r.codec && (data[at - 1] & 1)) {
            struct one *o = r.v[data[at - 1] % r.n];
            if (o->s) {
                codec_stream_resume(o->s);
            }
        }
    }
    close(fds[0]);
    for (unsigned i = 0; i < r.n; i++) { // what is paused may go on
        if (r.v[i]->s && r.codec) {
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
    return 0;
}
