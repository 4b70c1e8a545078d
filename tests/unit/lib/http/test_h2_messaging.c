// SPDX-License-Identifier: Apache-2.0
// What an HTTP/2 message may look like (RFC 9113 §8), rule by rule: a malformed one resets its stream with PROTOCOL_ERROR and never looks
// complete to the owner; the connection goes on.
#include "tests/unit/lib/http/codec_rig.h"

enum { DATA, HEADERS, END = 1, END_HEADERS = 4, FRAME_HEAD = 9, BLOCK_MAX = 1024 };

struct step { // a frame on stream 1
    int type, flags;
    const char *const *fields; // HEADERS: name, value, …, NULL
    const char *bytes;         // DATA
};
struct message {
    const char *method; // client: what was asked
    struct step steps[4];
};

#define FIELDS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define HEAD_OF(flag, ...) { HEADERS, END_HEADERS | (flag), FIELDS(__VA_ARGS__), NULL }
#define BODY(text) { DATA, 0, NULL, text }
#define BODY_END(text) { DATA, END, NULL, text }
#define GET ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "h"
#define POST(length) HEAD_OF(0, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "h", "content-length", length)
#define ONLY(...) { NULL, { HEAD_OF(END, __VA_ARGS__) } }
#define WEBSOCKET ":method", "CONNECT", ":scheme", "http", ":path", "/"

static bool ended;

static void on_end(struct rig *r)
{
    (void)r;
    ended = true;
}

static void on_request(struct rig *r, struct http_request *q)
{
    (void)r;
    ended = ended || (q->end_stream && !str_is(q->method, "CONNECT") && !q->upgrade.n);
}

static struct rig *make(bool server, const struct codec_opts *o)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    struct rig *r = calloc(1, sizeof(*r));
    r->fd = fds[0];
    r->loop = loop_new(NULL);
    assert_non_null(r->loop);
    rig_turn(r, 1);
    struct addr none = { 0 };
    struct conn *c = conn_accepted(r->loop, fds[1], &none, &none, NULL, NULL);
    r->codec = server ? codec_h2_server(c, &rig_ops, r, o) : codec_h2_client(c, &rig_ops, r, o);
    r->on_end = on_end;
    r->on_request = on_request;
    ended = false;
    rig_turn(r, 2);
    static const char start[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    rig_send_n(r, server ? start : start + 24, sizeof(start) - 1 - (server ? 0 : 24));
    return r;
}

// Literal fields without indexing.
static size_t put_fields(char *to, const char *const *fields)
{
    size_t n = 0;
    for (; fields[0]; fields += 2) {
        to[n++] = 0;
        for (int i = 0; i < 2; i++) {
            size_t k = strlen(fields[i]);
            assert_true(k < 127 && n + k + 2 < BLOCK_MAX);
            to[n++] = (char)k;
            memcpy(to + n, fields[i], k);
            n += k;
        }
    }
    return n;
}

static void play(struct rig *r, const struct message *m)
{
    for (size_t i = 0; i < array_len(m->steps) && r->codec; i++) {
        const struct step *s = &m->steps[i];
        char b[FRAME_HEAD + BLOCK_MAX] = { 0, 0, 0, (char)s->type, (char)s->flags, 0, 0, 0, 1 };
        if (!s->fields && !s->bytes) {
            break;
        }
        size_t n = s->fields ? put_fields(b + FRAME_HEAD, s->fields) : strlen(s->bytes);
        if (s->bytes) {
            memcpy(b + FRAME_HEAD, s->bytes, n);
        }
        b[1] = (char)(n >> 8);
        b[2] = (char)n;
        rig_send_n(r, b, n + FRAME_HEAD);
    }
}

// Whether the codec sent RST_STREAM(PROTOCOL_ERROR) for stream 1, and nothing that ends the connection.
static bool was_reset(struct rig *r)
{
    static char got[65536];
    static const char rst[] = "\0\0\4\3\0\0\0\0\1\0\0\0\1";
    size_t n = 0;
    for (ssize_t k; n < sizeof(got) && (k = recv(r->fd, got + n, sizeof(got) - n, 0)) > 0;) {
        n += (size_t)k;
    }
    assert_non_null(r->codec);
    return memmem(got, n, rst, sizeof(rst) - 1) != NULL;
}

static void ask(struct rig *r, const char *method)
{
    bool connect = strcmp(method, "CONNECT") == 0;
    r->stream = codec_new_stream(r->codec, &rig_stream_ops, r, &r->arena);
    assert_non_null(r->stream);
    struct http_request q = { .method = str_c(method), .scheme = STR("http"), .host = STR("h:80"), .path = connect ? STR("") : STR("/"),
                              .version = HTTP_11, .content_length = -1, .end_stream = true };
    headers_init(&q.headers, &r->arena);
    codec_send_request(r->stream, &q);
    rig_turn(r, 3);
}

static void check(bool server, const struct codec_opts *o, const struct message *v, size_t n, bool good)
{
    for (size_t i = 0; i < n; i++) {
        struct rig *r = make(server, o);
        if (!server) {
            ask(r, v[i].method);
        }
        play(r, &v[i]);
        bool reset = was_reset(r);
        if (reset == good || ended != good) {
            fail_msg("message %zu: reset %d, ended %d: %s", i, reset, ended, rig_heard(r));
        }
        rig_free(r);
    }
}

static void requests_that_are_whole(void **state)
{
    (void)state;
    const struct message v[] = {
        ONLY(GET), ONLY(GET, "content-length", "0"), ONLY(GET, "te", "trailers"), ONLY(GET, "x", "", "y", "\x80\xff\tz"),
        ONLY(":method", "OPTIONS", ":scheme", "http", ":path", "*", ":authority", "h"),
        ONLY(":method", "GET", ":scheme", "https", ":path", "/", "host", "h"),
        { NULL, { POST("2"), BODY_END("ab") } },
        { NULL, { POST("2"), BODY("a"), BODY("b"), BODY_END("") } },
        { NULL, { POST("2"), BODY("ab"), HEAD_OF(END, "x-t", "1") } },
        { NULL, { HEAD_OF(0, GET), BODY("any"), HEAD_OF(END, "x-t", "1") } },
    };
    check(true, NULL, v, array_len(v), true);
}

static void names_and_values(void **state)
{
    (void)state;
    const struct message v[] = {
        ONLY(GET, "X-Upper", "1"), ONLY(GET, "Accept", "1"), ONLY(GET, "", "1"), ONLY(GET, "a:b", "1"), ONLY(GET, "a b", "1"),
        ONLY(GET, "a\x80", "1"), ONLY(GET, "a\r", "1"), ONLY(GET, "x", "\x01"), ONLY(GET, "x", "a\rb"), ONLY(GET, "x", "a\nb"),
        ONLY(GET, "x", "\x7f"), ONLY(GET, "x", " a"), ONLY(GET, "x", "a\t"), ONLY(GET, "connection", "close"),
        ONLY(GET, "keep-alive", "1"), ONLY(GET, "proxy-connection", "close"), ONLY(GET, "transfer-encoding", "chunked"),
        ONLY(GET, "upgrade", "h2c"), ONLY(GET, "http2-settings", "x"), ONLY(GET, "te", "gzip"), ONLY(GET, "te", "trailers, gzip"),
    };
    check(true, NULL, v, array_len(v), false);
}

static void pseudo_fields_of_requests(void **state)
{
    (void)state;
    const struct message v[] = {
        ONLY(GET, ":method", "GET"), ONLY(GET, ":scheme", "http"), ONLY(GET, ":path", "/"), ONLY(GET, ":authority", "h"),
        ONLY(GET, ":foo", "1"), ONLY(GET, ":status", "200"), ONLY(GET, ":", "1"), ONLY("x", "1", GET),
        ONLY(":method", "GET", ":scheme", "http", "x", "1", ":path", "/", ":authority", "h"),
        ONLY(":scheme", "http", ":path", "/", ":authority", "h"), ONLY(":method", "GET", ":path", "/", ":authority", "h"),
        ONLY(":method", "GET", ":scheme", "http", ":authority", "h"), ONLY(":method", "GET", ":scheme", "http", ":path", "/"),
        ONLY(":method", "", ":scheme", "http", ":path", "/", ":authority", "h"),
        ONLY(":method", "G T", ":scheme", "http", ":path", "/", ":authority", "h"),
        ONLY(":method", "GET", ":scheme", "", ":path", "/", ":authority", "h"),
        ONLY(":method", "GET", ":scheme", "1http", ":path", "/", ":authority", "h"),
        ONLY(":method", "GET", ":scheme", "http", ":path", "", ":authority", "h"),
        ONLY(":method", "GET", ":scheme", "http", ":path", "x", ":authority", "h"),
        ONLY(":method", "GET", ":scheme", "http", ":path", "*", ":authority", "h"),
        ONLY(":method", "GET", ":scheme", "http", ":path", "/ a", ":authority", "h"),
        ONLY(":method", "GET", ":scheme", "http", ":path", "/\x80", ":authority", "h"),
        ONLY(":method", "GET", ":scheme", "http", ":path", "/", ":authority", ""),
        ONLY(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a/b"),
        ONLY(":method", "GET", ":scheme", "http", ":path", "/", "host", ""),
        ONLY(":method", "GET", ":scheme", "http", ":path", "/", "host", "a b"),
        ONLY(GET, "host", "other"), ONLY(GET, "host", ""), ONLY(GET, "host", "h", "host", "h"),
        ONLY(":method", "CONNECT", ":authority", "h:1", ":path", "/"), ONLY(":method", "CONNECT", ":authority", "h:1", ":scheme", "http"),
        ONLY(":method", "CONNECT", "host", "h:1"), ONLY(":method", "CONNECT"),
        ONLY(WEBSOCKET, ":authority", "h", ":protocol", "websocket"), // not offered
    };
    check(true, NULL, v, array_len(v), false);
}

static void extended_connect(void **state)
{
    (void)state;
    const struct codec_opts o = { .allow_connect = true };
    const struct message v[] = {
        ONLY(GET, ":protocol", "websocket"), ONLY(WEBSOCKET, ":protocol", "websocket", "host", "h"),
        ONLY(WEBSOCKET, ":authority", "h", ":protocol", ""), ONLY(WEBSOCKET, ":authority", "h", ":protocol", "a b"),
        ONLY(WEBSOCKET, ":authority", "h", ":protocol", "a", ":protocol", "a"),
        ONLY(":method", "CONNECT", ":authority", "h", ":protocol", "websocket"),
    };
    check(true, &o, v, array_len(v), false);
    struct rig *r = make(true, &o);
    play(r, &(struct message){ NULL, { HEAD_OF(0, WEBSOCKET, ":authority", "h", ":protocol", "websocket", "content-length", "1"),
                                       BODY("more than one") } });
    assert_false(was_reset(r)); // a tunnel has no length
    assert_non_null(strstr(rig_heard(r), "request GET /"));
    rig_free(r);
}

static void lengths_of_requests(void **state)
{
    (void)state;
    const struct message v[] = {
        ONLY(GET, "content-length", "5"), ONLY(GET, "content-length", ""), ONLY(GET, "content-length", "+0"),
        ONLY(GET, "content-length", "-0"), ONLY(GET, "content-length", "0x"), ONLY(GET, "content-length", "0,0"),
        ONLY(GET, "content-length", "99999999999999999999"), ONLY(GET, "content-length", "0", "content-length", "0"),
        { NULL, { POST("2"), BODY_END("abc") } },
        { NULL, { POST("2"), BODY("ab"), BODY("c"), BODY_END("") } },
        { NULL, { POST("0"), BODY_END("a") } },
        { NULL, { POST("2"), BODY_END("a") } },
        { NULL, { POST("2"), BODY_END("") } },
        { NULL, { POST("2"), BODY("a"), HEAD_OF(END, "x-t", "1") } },
        { NULL, { POST("2"), HEAD_OF(END, "x-t", "1") } },
    };
    check(true, NULL, v, array_len(v), false);
}

#define TRAILERS(...) { NULL, { HEAD_OF(0, GET), BODY("a"), __VA_ARGS__ } }

static void trailers_of_requests(void **state)
{
    (void)state;
    const struct message v[] = {
        TRAILERS(HEAD_OF(0, "x", "1")), TRAILERS(HEAD_OF(0, "x", "1"), BODY_END("b")), TRAILERS(HEAD_OF(END, ":path", "/")),
        TRAILERS(HEAD_OF(END, "X", "1")), TRAILERS(HEAD_OF(END, "", "1")), TRAILERS(HEAD_OF(END, "x", "a\nb")),
        TRAILERS(HEAD_OF(END, "connection", "close")), TRAILERS(HEAD_OF(END, "transfer-encoding", "chunked")),
        TRAILERS(HEAD_OF(END, "content-length", "1")), TRAILERS(HEAD_OF(END, "te", "gzip")), TRAILERS(HEAD_OF(END, GET)),
    };
    check(true, NULL, v, array_len(v), false);
}

#define TO(method, ...) { method, { __VA_ARGS__ } }

static void answers_that_are_whole(void **state)
{
    (void)state;
    const struct message v[] = {
        TO("GET", HEAD_OF(END, ":status", "200")), TO("GET", HEAD_OF(0, ":status", "200", "content-length", "2"), BODY_END("ab")),
        TO("GET", HEAD_OF(0, ":status", "103", "link", "x"), HEAD_OF(0, ":status", "100"), HEAD_OF(END, ":status", "200")),
        TO("GET", HEAD_OF(0, ":status", "200"), BODY("any"), HEAD_OF(END, "x-t", "1")),
        TO("GET", HEAD_OF(0, ":status", "200", "content-length", "2"), BODY("ab"), HEAD_OF(END, "x-t", "1")),
        TO("GET", HEAD_OF(0, ":status", "200", "content-length", "0"), BODY_END("")),
        TO("HEAD", HEAD_OF(END, ":status", "200", "content-length", "5")),
        TO("HEAD", HEAD_OF(0, ":status", "200", "content-length", "5"), BODY_END("")),
        TO("GET", HEAD_OF(END, ":status", "304", "content-length", "5")),
        TO("GET", HEAD_OF(0, ":status", "304", "content-length", "5"), BODY_END("")),
        TO("GET", HEAD_OF(END, ":status", "204", "content-length", "0")), TO("GET", HEAD_OF(0, ":status", "204"), BODY_END("")),
        TO("CONNECT", HEAD_OF(END, ":status", "403", "content-length", "0")),
    };
    check(false, NULL, v, array_len(v), true);
    struct rig *r = make(false, NULL);
    ask(r, "CONNECT");
    play(r, &(struct message)TO("CONNECT", HEAD_OF(0, ":status", "200", "content-length", "1"), BODY("more than one")));
    assert_false(was_reset(r)); // a tunnel has no length
    assert_non_null(strstr(rig_heard(r), "data more than one|"));
    rig_free(r);
}

static void heads_of_answers(void **state)
{
    (void)state;
#define STATUS(...) TO("GET", HEAD_OF(END, __VA_ARGS__))
    const struct message v[] = {
        STATUS("x", "1"), STATUS(":status", ""), STATUS(":status", "20"), STATUS(":status", "2000"), STATUS(":status", "099"),
        STATUS(":status", "2x0"), STATUS(":status", "+20"), STATUS(":status", "200", ":status", "200"), STATUS("x", "1", ":status", "200"),
        STATUS(":status", "200", ":path", "/"), STATUS(":status", "200", ":foo", "1"), STATUS(":status", "200", "X", "1"),
        STATUS(":status", "200", "", "1"), STATUS(":status", "200", "x", "a\rb"), STATUS(":status", "200", "x", "a "),
        STATUS(":status", "200", "connection", "close"), STATUS(":status", "200", "keep-alive", "1"),
        STATUS(":status", "200", "proxy-connection", "1"), STATUS(":status", "200", "transfer-encoding", "chunked"),
        STATUS(":status", "200", "upgrade", "h2c"), STATUS(":status", "200", "te", "trailers"),
        STATUS(":status", "200", "content-length", "0", "content-length", "0"), STATUS(":status", "200", "content-length", "x"),
        STATUS(":status", "101"), STATUS(":status", "103"), // an end in front of the final answer
        TO("GET", HEAD_OF(0, ":status", "101"), HEAD_OF(END, ":status", "200")),
        TO("GET", HEAD_OF(0, ":status", "103", "content-length", "0"), HEAD_OF(END, ":status", "200")),
        TO("GET", HEAD_OF(0, ":status", "103"), HEAD_OF(END, "x-t", "1")),
    };
    check(false, NULL, v, array_len(v), false);
}

static void bodies_of_answers(void **state)
{
    (void)state;
    const struct message v[] = {
        STATUS(":status", "200", "content-length", "5"), STATUS(":status", "204", "content-length", "5"),
        TO("GET", HEAD_OF(0, ":status", "200", "content-length", "2"), BODY_END("abc")),
        TO("GET", HEAD_OF(0, ":status", "200", "content-length", "2"), BODY("ab"), BODY_END("c")),
        TO("GET", HEAD_OF(0, ":status", "200", "content-length", "2"), BODY_END("a")),
        TO("GET", HEAD_OF(0, ":status", "200", "content-length", "2"), BODY_END("")),
        TO("GET", HEAD_OF(0, ":status", "200", "content-length", "2"), BODY("a"), HEAD_OF(END, "x-t", "1")),
        TO("GET", HEAD_OF(0, ":status", "200", "content-length", "0"), BODY_END("a")),
        TO("GET", HEAD_OF(0, ":status", "204"), BODY_END("a")), TO("GET", HEAD_OF(0, ":status", "304"), BODY_END("a")),
        TO("HEAD", HEAD_OF(0, ":status", "200", "content-length", "1"), BODY_END("a")), TO("HEAD", HEAD_OF(0, ":status", "200"), BODY_END("a")),
        TO("GET", HEAD_OF(0, ":status", "103"), BODY("a"), HEAD_OF(END, ":status", "200")),
        TO("GET", HEAD_OF(0, ":status", "103"), BODY_END("")),
        TO("CONNECT", HEAD_OF(END, ":status", "403", "content-length", "5")),
        TO("GET", HEAD_OF(0, ":status", "200"), HEAD_OF(0, "x-t", "1")), TO("GET", HEAD_OF(0, ":status", "200"), HEAD_OF(END, ":status", "200")),
        TO("GET", HEAD_OF(0, ":status", "200"), HEAD_OF(END, "X", "1")), TO("GET", HEAD_OF(0, ":status", "200"), HEAD_OF(END, "upgrade", "1")),
        TO("GET", HEAD_OF(0, ":status", "200"), HEAD_OF(END, "content-length", "0")),
    };
    check(false, NULL, v, array_len(v), false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_that_are_whole), cmocka_unit_test(names_and_values), cmocka_unit_test(pseudo_fields_of_requests),
        cmocka_unit_test(extended_connect), cmocka_unit_test(lengths_of_requests), cmocka_unit_test(trailers_of_requests),
        cmocka_unit_test(answers_that_are_whole), cmocka_unit_test(heads_of_answers), cmocka_unit_test(bodies_of_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
