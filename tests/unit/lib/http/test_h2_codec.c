// SPDX-License-Identifier: Apache-2.0
// An HTTP/2 client codec against a server codec on a socket pair, and a server against raw frames.
#include "tests/unit/lib/http/codec_rig.h"

enum { LOG_MAX = 16384, STREAMS_MAX = 256 };

struct side;
struct one { // a stream
    struct side *side;
    struct codec_stream *s;
    struct arena arena;
    size_t body;
    int number;
    bool closed;
};
struct side {
    struct pair *pair;
    struct codec *codec;
    struct one *v[STREAMS_MAX];
    int n;
    struct arena *next;
    char log[LOG_MAX];
    size_t n_log;
    int highs, lows, closes;
    bool quiet, pause, free_in_request;
    void (*on_request)(struct one *o, struct http_request *q);
    void (*on_end)(struct one *o);
};
struct pair {
    struct loop *loop;
    struct side client, server;
    int fd; // raw client's end; -1: a codec
};

__attribute__((format(printf, 2, 3))) static void say(struct side *d, const char *fmt, ...)
{
    if (d->quiet) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(d->log + d->n_log, sizeof(d->log) - d->n_log, fmt, ap);
    va_end(ap);
    assert_true(n >= 0 && (size_t)n < sizeof(d->log) - d->n_log);
    d->n_log += (size_t)n;
}

static void say_fields(struct side *d, const struct headers *h)
{
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        say(d, " %.*s=%.*s", STR_FMT(x->name), STR_FMT(x->value));
    }
}

static const char *heard(struct side *d)
{
    static char out[2][LOG_MAX];
    static int i;
    char *o = out[i++ % 2];
    memcpy(o, d->log, d->n_log);
    o[d->n_log] = '\0';
    d->n_log = 0;
    return o;
}

static struct one *one_new(struct side *d)
{
    struct one *o = calloc(1, sizeof(*o));
    o->side = d;
    o->number = d->n;
    assert_true(d->n < STREAMS_MAX);
    d->v[d->n++] = o;
    return o;
}

static void on_response(struct codec_stream *s, struct http_response *q)
{
    struct one *o = codec_stream_owner(s);
    say(o->side, "%d: response %u len=%lld%s", o->number, q->status, (long long)q->content_length, q->end_stream ? " end" : "");
    say_fields(o->side, &q->headers);
    say(o->side, "|");
}

static void on_data(struct codec_stream *s, struct buf *data, bool end)
{
    struct one *o = codec_stream_owner(s);
    o->body += data->len;
    struct str all = buf_pullup(data, data->len);
    say(o->side, "%d: data %.*s%s|", o->number, (int)(all.n > 40 ? 40 : all.n), all.p, end ? " end" : "");
    if (end && o->side->on_end) {
        o->side->on_end(o);
    }
}

static void on_trailers(struct codec_stream *s, struct headers *t)
{
    struct one *o = codec_stream_owner(s);
    say(o->side, "%d: trailers", o->number);
    say_fields(o->side, t);
    say(o->side, "|");
}

static void on_high(struct codec_stream *s)
{
    ((struct one *)codec_stream_owner(s))->side->highs++;
}

static void on_low(struct codec_stream *s)
{
    ((struct one *)codec_stream_owner(s))->side->lows++;
}

static void on_reset(struct codec_stream *s, enum codec_reset why, const char *detail)
{
    static const char *const names[] = { "local", "remote", "refused", "connection", "before_request", "protocol", "overflow" };
    struct one *o = codec_stream_owner(s);
    say(o->side, "%d: reset %s %s|", o->number, names[why], detail);
}

static void on_close(struct codec_stream *s)
{
    struct one *o = codec_stream_owner(s);
    assert_false(o->closed);
    o->closed = true;
    o->s = NULL;
    o->side->closes++;
    say(o->side, "%d: close|", o->number);
}

static const struct codec_stream_ops stream_ops = {
    .on_response = on_response, .on_data = on_data, .on_trailers = on_trailers, .on_high = on_high, .on_low = on_low,
    .on_reset = on_reset, .on_close = on_close,
};

static struct arena *get_arena(struct codec *c)
{
    struct side *d = codec_owner(c);
    struct one *o = d->n && !d->v[d->n - 1]->side ? d->v[d->n - 1] : one_new(d);
    o->side = NULL; // not yet a stream
    return &o->arena;
}

static void on_request_cb(struct codec *c, struct codec_stream *s, struct http_request *q)
{
    struct side *d = codec_owner(c);
    struct one *o = d->v[d->n - 1];
    o->side = d;
    o->s = s;
    codec_stream_set(s, &stream_ops, o);
    say(d, "%d: %.*s %.*s://%.*s %.*s len=%lld%s%s%s", o->number, STR_FMT(q->method), STR_FMT(q->scheme), STR_FMT(q->host),
        STR_FMT(q->path), (long long)q->content_length, q->end_stream ? " end" : "", q->te_trailers ? " te" : "",
        q->expect_continue ? " expect" : "");
    say_fields(d, &q->headers);
    say(d, "|");
    if (d->pause) {
        codec_stream_pause(s);
    }
    if (d->on_request) {
        d->on_request(o, q);
    }
    if (d->free_in_request) {
        codec_free(c);
        d->codec = NULL;
    }
}

static void on_bad(struct codec *c, int status, const char *detail)
{
    say(codec_owner(c), "bad %d %s|", status, detail);
}

static void on_goaway(struct codec *c)
{
    say(codec_owner(c), "goaway|");
}

static void on_gone(struct codec *c, enum conn_close why)
{
    struct side *d = codec_owner(c);
    say(d, "gone %s|", why == CONN_CLOSE_LOCAL ? "local" : why == CONN_CLOSE_REMOTE ? "remote" : "reset");
    codec_free(c);
    d->codec = NULL;
}

static const struct codec_ops ops = {
    .on_request = on_request_cb, .get_arena = get_arena, .on_bad_request = on_bad, .on_goaway = on_goaway, .on_conn_close = on_gone,
};

static void turns(struct pair *p, int n)
{
    while (n--) {
        loop_turn(p->loop, 0);
    }
}

static struct pair *pair_with(bool raw, const struct codec_opts *server)
{
    struct pair *p = calloc(1, sizeof(*p));
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    p->loop = loop_new(NULL);
    turns(p, 1);
    struct addr none = { 0 };
    p->client.pair = p->server.pair = p;
    p->server.codec = codec_h2_server(conn_accepted(p->loop, fds[1], &none, &none, NULL, NULL), &ops, &p->server, server);
    p->fd = raw ? fds[0] : -1;
    if (!raw) {
        p->client.codec = codec_h2_client(conn_accepted(p->loop, fds[0], &none, &none, NULL, NULL), &ops, &p->client, NULL);
    }
    turns(p, 4);
    return p;
}

static void side_free(struct side *d)
{
    codec_free(d->codec);
    for (int i = 0; i < d->n; i++) {
        arena_fini(&d->v[i]->arena);
        free(d->v[i]);
    }
}

static void pair_free(struct pair *p)
{
    side_free(&p->client);
    side_free(&p->server);
    turns(p, 3);
    loop_free(p->loop);
    if (p->fd >= 0) {
        close(p->fd);
    }
    free(p);
    buf_cache_free();
}

static struct one *ask(struct pair *p, const char *method, int64_t length, bool end)
{
    struct one *o = one_new(&p->client);
    o->s = codec_new_stream(p->client.codec, &stream_ops, o, &o->arena);
    assert_non_null(o->s);
    struct http_request q = { .method = str_c(method), .scheme = STR("http"), .host = STR("h:80"), .path = STR("/p?q"),
                              .version = HTTP_11, .content_length = length, .end_stream = end, .te_trailers = true };
    headers_init(&q.headers, &o->arena);
    headers_add(&q.headers, STR("X-Upper"), STR("1"));
    headers_add(&q.headers, STR("Connection"), STR("close"));
    codec_send_request(o->s, &q);
    return o;
}

static void answer(struct one *o, int status, int64_t length, bool end)
{
    struct http_response q = { .status = (uint16_t)status, .content_length = length, .end_stream = end };
    headers_init(&q.headers, &o->arena);
    headers_add(&q.headers, STR("X-A"), STR("1"));
    codec_send_response(o->s, &q);
}

static void send_text(struct one *o, const char *text, bool end)
{
    struct buf b = { 0 };
    buf_append_str(&b, str_c(text));
    codec_send_data(o->s, &b, end);
}

// ---- codec to codec ----

static void exchange(void **state)
{
    (void)state;
    struct pair *p = pair_with(false, NULL);
    struct one *a = ask(p, "POST", 5, false);
    send_text(a, "hello", true);
    turns(p, 6);
    assert_string_equal(heard(&p->server), "0: POST http://h:80 /p?q len=5 te x-upper=1|0: data hello end|");
    struct one *sa = p->server.v[0];
    answer(sa, 103, -1, false);
    answer(sa, 200, -1, false);
    send_text(sa, "body", false);
    struct headers t;
    headers_init(&t, &sa->arena);
    headers_add(&t, STR("Grpc-Status"), STR("0"));
    headers_add(&t, STR("Content-Length"), STR("9"));
    codec_send_trailers(sa->s, &t);
    turns(p, 6);
    assert_string_equal(heard(&p->client), "0: response 103 len=-1 end x-a=1|0: response 200 len=-1 x-a=1|0: data body|"
                                           "0: trailers grpc-status=0|0: close|");
    assert_string_equal(heard(&p->server), "0: close|");
    assert_int_equal(codec_active(p->server.codec), 0);
    assert_int_equal(codec_active(p->client.codec), 0);
    pair_free(p);
}

static void head_and_no_content(void **state)
{
    (void)state;
    struct pair *p = pair_with(false, NULL);
    ask(p, "HEAD", -1, true);
    ask(p, "GET", -1, true);
    turns(p, 6);
    answer(p->server.v[0], 200, 1234, false);
    send_text(p->server.v[0], "must not be sent", true);
    answer(p->server.v[1], 204, 7, true);
    turns(p, 6);
    assert_string_equal(heard(&p->client), "0: response 200 len=1234 end x-a=1|1: response 204 len=-1 end x-a=1|0: close|1: close|");
    pair_free(p);
}

static void a_hundred_at_once(void **state)
{
    (void)state;
    struct pair *p = pair_with(false, &(struct codec_opts){ .max_concurrent_streams = 100 });
    assert_true(codec_settled(p->client.codec));
    for (int i = 0; i < 100; i++) {
        assert_true(codec_can_open(p->client.codec));
        ask(p, "GET", -1, true);
    }
    assert_false(codec_can_open(p->client.codec)); // max_concurrent_streams
    turns(p, 6);
    assert_int_equal(p->server.n, 100);
    for (int i = 99; i >= 0; i--) {
        answer(p->server.v[i], 200, 2, false);
        send_text(p->server.v[i], "ok", true);
    }
    turns(p, 8);
    assert_int_equal(p->client.closes, 100);
    assert_int_equal(p->server.closes, 100);
    assert_true(codec_can_open(p->client.codec));
    for (int i = 0; i < 100; i++) {
        assert_int_equal(p->client.v[i]->body, 2);
    }
    pair_free(p);
}

static void paused_reader_bounds_memory(void **state)
{
    (void)state;
    struct pair *p = pair_with(false, NULL);
    p->client.quiet = p->server.quiet = true;
    struct one *a = ask(p, "GET", -1, true), *b = ask(p, "GET", -1, true);
    turns(p, 6);
    codec_stream_pause(a->s);
    answer(p->server.v[0], 200, -1, false);
    answer(p->server.v[1], 200, 2, false);
    char piece[8193];
    memset(piece, 'x', 8192);
    piece[8192] = '\0';
    size_t sent = 0;
    while (p->server.highs == 0 && sent < 8 * 1024 * 1024) {
        send_text(p->server.v[0], piece, false);
        sent += 8192;
        turns(p, 2);
    }
    assert_int_equal(p->server.highs, 1);
    assert_true(sent < 512 * 1024); // the stream's window and the high mark
    assert_int_equal(a->body, 0);
    send_text(p->server.v[1], "ok", true); // others go on
    turns(p, 6);
    assert_int_equal(b->body, 2);
    codec_stream_resume(a->s);
    turns(p, 30);
    assert_int_equal(p->server.lows, 1);
    assert_int_equal(a->body, sent);
    send_text(p->server.v[0], "e", true);
    turns(p, 6);
    assert_int_equal(a->body, sent + 1);
    assert_true(a->closed);
    pair_free(p);
}

static void resets(void **state)
{
    (void)state;
    struct pair *p = pair_with(false, NULL);
    struct one *a = ask(p, "POST", -1, false), *b = ask(p, "GET", -1, true), *c = ask(p, "POST", -1, false);
    turns(p, 6);
    heard(&p->server);
    codec_stream_reset(a->s, CODEC_RESET_LOCAL);
    codec_stream_reset(p->server.v[1]->s, CODEC_RESET_REFUSED);
    codec_stream_reset(p->server.v[2]->s, CODEC_RESET_LOCAL);
    turns(p, 6);
    assert_string_equal(heard(&p->client), "0: close|1: reset refused http2.remote_refuse|1: close|"
                                           "2: reset remote http2.remote_reset|2: close|");
    assert_string_equal(heard(&p->server), "1: close|2: close|0: reset remote http2.remote_reset|0: close|");
    assert_true(a->closed && b->closed && c->closed);
    assert_true(codec_can_open(p->client.codec));
    pair_free(p);
}

static void early_answer(void **state)
{
    (void)state;
    struct pair *p = pair_with(false, NULL);
    ask(p, "POST", 100, false);
    turns(p, 6);
    heard(&p->server);
    answer(p->server.v[0], 413, 0, true);
    turns(p, 6);
    assert_string_equal(heard(&p->client), "0: response 413 len=0 end x-a=1|0: close|");
    assert_string_equal(heard(&p->server), "0: close|");
    assert_true(codec_can_open(p->client.codec));
    pair_free(p);
}

static void lengths_are_kept(void **state)
{
    (void)state;
    struct pair *p = pair_with(false, NULL);
    struct one *a = ask(p, "POST", 5, false);
    send_text(a, "toolong", true);
    turns(p, 6);
    assert_string_equal(heard(&p->client), "0: close|");
    ask(p, "GET", -1, true);
    turns(p, 6);
    answer(p->server.v[p->server.n - 1], 200, 5, false);
    send_text(p->server.v[p->server.n - 1], "abc", true);
    turns(p, 6);
    assert_non_null(strstr(heard(&p->client), "reset"));
    pair_free(p);
}

static void drain_in_two_steps(void **state)
{
    (void)state;
    struct pair *p = pair_with(false, NULL);
    ask(p, "GET", -1, true);
    turns(p, 4);
    heard(&p->server);
    codec_drain(p->server.codec);
    ask(p, "GET", -1, true); // already under way when GOAWAY comes
    turns(p, 8);
    assert_string_equal(heard(&p->client), "goaway|");
    assert_false(codec_can_open(p->client.codec));
    assert_int_equal(p->server.n, 2);
    for (int i = 0; i < 2; i++) {
        answer(p->server.v[i], 200, 0, true);
    }
    turns(p, 10);
    const char *c = heard(&p->client);
    assert_non_null(strstr(c, "0: response 200"));
    assert_non_null(strstr(c, "1: response 200"));
    assert_null(strstr(c, "reset"));
    assert_non_null(strstr(c, "gone"));
    assert_null(p->client.codec);
    pair_free(p);
}

static void server_gone(void **state)
{
    (void)state;
    struct pair *p = pair_with(false, NULL);
    ask(p, "GET", -1, true);
    turns(p, 4);
    codec_free(p->server.codec);
    p->server.codec = NULL;
    turns(p, 4);
    assert_non_null(strstr(heard(&p->client), "0: reset connection upstream_remote_disconnect|0: close|"));
    assert_null(p->client.codec);
    pair_free(p);
}

static void freed_inside_request(void **state)
{
    (void)state;
    struct pair *p = pair_with(false, NULL);
    p->server.free_in_request = true;
    ask(p, "GET", -1, true);
    ask(p, "GET", -1, true);
    turns(p, 6);
    assert_null(p->server.codec);
    assert_null(p->client.codec);
    pair_free(p);
}

// ---- raw frames ----

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define SETTINGS0 "\0\0\0\4\0\0\0\0\0"

static void raw(struct pair *p, const void *data, size_t n)
{
    const char *at = data;
    for (int i = 0; n && i < 10000; i++) {
        ssize_t k = send(p->fd, at, n, MSG_NOSIGNAL);
        if (k < 0 && errno != EAGAIN) {
            break;
        }
        at += k > 0 ? k : 0;
        n -= k > 0 ? (size_t)k : 0;
        turns(p, 1);
    }
    turns(p, 3);
}

static void frame(struct pair *p, int type, int flags, uint32_t id, const void *payload, size_t n)
{
    uint8_t b[9 + 16384] = { (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, (uint8_t)type, (uint8_t)flags, (uint8_t)(id >> 24),
                             (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id };
    assert_true(n <= 16384);
    memcpy(b + 9, payload, n);
    raw(p, b, n + 9);
}

static struct pair *raw_pair(void)
{
    struct pair *p = pair_with(true, NULL);
    raw(p, PREFACE SETTINGS0, 24 + 9);
    return p;
}

// A literal field without indexing.
static size_t field(char *to, const char *name, const char *value)
{
    size_t a = strlen(name), b = strlen(value);
    to[0] = 0;
    to[1] = (char)a;
    memcpy(to + 2, name, a);
    to[2 + a] = (char)b;
    memcpy(to + 3 + a, value, b);
    return 3 + a + b;
}

static size_t block(char *to, const char *const *pairs)
{
    size_t n = 0;
    for (; pairs[0]; pairs += 2) {
        n += field(to + n, pairs[0], pairs[1]);
    }
    return n;
}

#define OK_HEAD ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "h"

static const char *try_head(const char *const *pairs, int flags)
{
    struct pair *p = raw_pair();
    char b[4096];
    size_t n = block(b, pairs);
    frame(p, 1, flags, 1, b, n);
    const char *out = heard(&p->server);
    static char copy[LOG_MAX];
    snprintf(copy, sizeof(copy), "%s", out);
    pair_free(p);
    return copy;
}

static void strict_heads(void **state)
{
    (void)state;
#define H(...) ((const char *const[]){ __VA_ARGS__, NULL })
    assert_string_equal(try_head(H(OK_HEAD, "cookie", "a=1", "cookie", "b=2", "te", "trailers"), 5),
                        "0: GET http://h / len=-1 end te cookie=a=1; b=2|");
    assert_string_equal(try_head(H(OK_HEAD, "cookie", "", "cookie", "a=1", "cookie", ""), 5), "0: GET http://h / len=-1 end cookie=a=1|");
    assert_string_equal(try_head(H(":method", "GET", ":scheme", "HTTP", ":path", "/", "host", "hh"), 5), "0: GET http://hh / len=-1 end|");
    const char *const *const bad[] = {
        H(OK_HEAD, "X-Upper", "1"), H(OK_HEAD, "connection", "close"), H(OK_HEAD, "transfer-encoding", "chunked"),
        H(OK_HEAD, "upgrade", "websocket"), H(OK_HEAD, "te", "gzip"), H(OK_HEAD, "x", "a\rb"), H(OK_HEAD, "x", "a\nb"),
        H(OK_HEAD, "x", " a"), H(OK_HEAD, "x y", "a"), H(OK_HEAD, "host", "other"), H(OK_HEAD, ":path", "/2"),
        H("x", "1", OK_HEAD), H(":method", "GET", ":scheme", "http", ":authority", "h"),
        H(":method", "GET", ":scheme", "http", ":path", "x", ":authority", "h"),
        H(":method", "GET", ":scheme", "http", ":path", "/ a", ":authority", "h"),
        H(":method", "GET", ":scheme", "ftp", ":path", "/", ":authority", "h"),
        H(":method", "G T", ":scheme", "http", ":path", "/", ":authority", "h"),
        H(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a/b"),
        H(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a@b"),
        H(":method", "GET", ":scheme", "http", ":path", "/", ":authority", ","),
        H(":method", "GET", ":scheme", "http", ":path", "/"), H(OK_HEAD, "content-length", "1x"),
        H(OK_HEAD, "content-length", "1", "content-length", "1"), H(OK_HEAD, ":status", "200"), H(OK_HEAD, ":protocol", "websocket"),
        H(":method", "CONNECT", ":authority", "h"), H(OK_HEAD, "http2-settings", "x"),
    };
    for (size_t i = 0; i < array_len(bad); i++) {
        const char *got = try_head(bad[i], 4);
        if (strncmp(got, "bad 400 ", 8)) {
            fail_msg("head %zu: %s", i, got);
        }
    }
#undef H
}

static void length_against_data(void **state)
{
    (void)state;
    struct pair *p = raw_pair();
    char b[512];
    size_t n = block(b, (const char *const[]){ OK_HEAD, "content-length", "2", NULL });
    frame(p, 1, 4, 1, b, n);
    frame(p, 0, 1, 1, "abc", 3);
    const char *got = heard(&p->server);
    assert_non_null(strstr(got, "reset protocol"));
    assert_null(strstr(got, "end"));
    pair_free(p);
}

// Sends until the server closes; returns the frames it took. Ends the test when it never does.
static int flood(int type, int flags, uint32_t id, const void *payload, size_t n, bool open_stream)
{
    struct pair *p = raw_pair();
    p->server.quiet = true;
    if (open_stream) {
        char b[512];
        frame(p, 1, 4, 1, b, block(b, (const char *const[]){ OK_HEAD, NULL }));
    }
    int i = 0;
    for (; i < 20000 && p->server.codec && codec_conn(p->server.codec)->eof_out == false; i++) {
        frame(p, type, flags, id, payload, n);
        static char sink[65536];
        while (recv(p->fd, sink, sizeof(sink), 0) > 0) {
        }
    }
    pair_free(p);
    return i;
}

static void floods_end(void **state)
{
    (void)state;
    assert_in_range(flood(6, 0, 0, "12345678", 8, false), 100, 1500);         // PING
    assert_in_range(flood(4, 0, 0, "", 0, false), 10, 500);                   // SETTINGS
    assert_in_range(flood(0, 0, 1, "", 0, true), 2, 5);                       // empty DATA
    assert_in_range(flood(8, 0, 0, "\0\0\0\1", 4, false), 6, 20);             // WINDOW_UPDATE
    assert_in_range(flood(2, 0, 1, "\0\0\0\0\1", 5, false), 100, 3000);       // PRIORITY
    assert_in_range(flood(0x55, 0, 0, "x", 1, false), 100, 3000);             // unknown
}

static void rapid_reset_ends(void **state)
{
    (void)state;
    struct pair *p = raw_pair();
    p->server.quiet = true;
    char b[512];
    size_t n = block(b, (const char *const[]){ OK_HEAD, NULL });
    int i = 0;
    for (; i < STREAMS_MAX && p->server.codec; i++) {
        frame(p, 1, 5, (uint32_t)(2 * i + 1), b, n);
        frame(p, 3, 0, (uint32_t)(2 * i + 1), "\0\0\0\x8", 4);
        if (p->server.n > STREAMS_MAX - 4) {
            break;
        }
    }
    assert_int_equal(codec_active(p->server.codec), 0);
    pair_free(p);
}

static void header_bombs_end(void **state)
{
    (void)state;
    struct pair *p = raw_pair();
    char b[16384];
    size_t n = block(b, (const char *const[]){ OK_HEAD, NULL });
    b[n++] = 0x40; // one large entry for the table …
    b[n++] = 1;
    b[n++] = 'x';
    b[n++] = 0x7f;
    b[n++] = (char)(0x80 | ((3900 - 127) & 0x7f));
    b[n++] = (char)((3900 - 127) >> 7);
    memset(b + n, 'v', 3900);
    n += 3900;
    memset(b + n, 0xbe, 8000); // … and references to it
    size_t some = n + 500, many = n + 8000;
    int i = 0;
    for (; i < 100 && p->server.codec && !codec_conn(p->server.codec)->eof_out; i++) {
        frame(p, 1, 5, (uint32_t)(2 * i + 1), b, some);
    }
    assert_in_range(i, 2, 20);
    assert_non_null(strstr(heard(&p->server), "bad 431"));
    pair_free(p);
    p = raw_pair();
    frame(p, 1, 5, 1, b, many); // one is enough
    turns(p, 5);
    assert_true(!p->server.codec || codec_conn(p->server.codec)->eof_out);
    pair_free(p);
}

static void continuation_flood_ends(void **state)
{
    (void)state;
    struct pair *p = raw_pair();
    char b[512];
    frame(p, 1, 0, 1, b, block(b, (const char *const[]){ OK_HEAD, NULL }));
    int i = 0;
    for (; i < 1000 && p->server.codec && !codec_conn(p->server.codec)->eof_out; i++) {
        frame(p, 9, 0, 1, "", 0);
    }
    assert_in_range(i, 1, 12);
    pair_free(p);
}

static void lower_stream_id(void **state)
{
    (void)state;
    struct pair *p = raw_pair();
    char b[512];
    size_t n = block(b, (const char *const[]){ OK_HEAD, NULL });
    frame(p, 1, 5, 5, b, n);
    frame(p, 1, 5, 3, b, n);
    turns(p, 3);
    assert_non_null(strstr(heard(&p->server), "reset protocol http2.stream_id_too_low"));
    pair_free(p);
}

static void bad_preface(void **state)
{
    (void)state;
    struct pair *p = pair_with(true, NULL);
    raw(p, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27);
    turns(p, 3);
    assert_true(!p->server.codec || codec_conn(p->server.codec)->eof_out);
    pair_free(p);
}

static void byte_by_byte(void **state)
{
    (void)state;
    struct pair *p = raw_pair();
    char b[512], all[600];
    size_t n = block(b, (const char *const[]){ OK_HEAD, NULL });
    const uint8_t hd[9] = { 0, 0, (uint8_t)n, 1, 5, 0, 0, 0, 1 };
    memcpy(all, hd, 9);
    memcpy(all + 9, b, n);
    for (size_t i = 0; i < n + 9; i++) {
        raw(p, all + i, 1);
    }
    assert_string_equal(heard(&p->server), "0: GET http://h / len=-1 end|");
    pair_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exchange), cmocka_unit_test(head_and_no_content), cmocka_unit_test(a_hundred_at_once),
        cmocka_unit_test(paused_reader_bounds_memory), cmocka_unit_test(resets), cmocka_unit_test(early_answer),
        cmocka_unit_test(lengths_are_kept), cmocka_unit_test(drain_in_two_steps), cmocka_unit_test(server_gone),
        cmocka_unit_test(freed_inside_request), cmocka_unit_test(strict_heads), cmocka_unit_test(length_against_data),
        cmocka_unit_test(floods_end), cmocka_unit_test(rapid_reset_ends), cmocka_unit_test(header_bombs_end),
        cmocka_unit_test(continuation_flood_ends), cmocka_unit_test(lower_stream_id), cmocka_unit_test(bad_preface),
        cmocka_unit_test(byte_by_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
