// SPDX-License-Identifier: Apache-2.0
// gRPC-Web (gRPC's PROTOCOL-WEB): types, base64 in pieces, frames of trailers. The filter alone, on a stream without a connection.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/filters/http/filters.h"

static struct stream stream;
static struct http_filter filter;
static struct http_request req;
static struct http_response resp;
static const struct http_filter_ops *const ops = &http_filter_grpc_web;

static int setup(void **state)
{
    (void)state;
    stream = (struct stream){ 0 };
    arena_init(&stream.arena, 0, 0);
    req = (struct http_request){ .method = STR("POST"), .path = STR("/s/m"), .content_length = 100, .version = HTTP_11 };
    headers_init(&req.headers, &stream.arena);
    resp = (struct http_response){ .status = 200, .content_length = -1 };
    headers_init(&resp.headers, &stream.arena);
    filter = (struct http_filter){ .ops = ops, .stream = &stream, .state = calloc(1, ops->state_size) };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(filter.state);
    arena_fini(&stream.arena);
    return 0;
}

static void ask(const char *type)
{
    headers_add(&req.headers, STR("content-type"), str_c(type));
    assert_int_equal(ops->on_request(&filter, &req), HF_CONTINUE);
}

static void again(void)
{
    teardown(NULL);
    setup(NULL);
}

static const char *of(struct headers *h, const char *name)
{
    struct str v = headers_value(h, str_c(name));
    return v.p ? arena_str(&stream.arena, v).p : "(none)";
}

static void types(void **state)
{
    (void)state;
    static const struct {
        const char *in, *request, *answer;
    } t[] = {
        { "application/grpc-web", "application/grpc", "application/grpc-web+proto" },
        { "application/grpc-web+proto", "application/grpc+proto", "application/grpc-web+proto" },
        { "application/grpc-web+thrift", "application/grpc+thrift", "application/grpc-web+proto" },
        { "Application/gRPC-Web", "application/grpc", "application/grpc-web+proto" },
        { "application/grpc-web-text", "application/grpc", "application/grpc-web-text+proto" },
        { "application/grpc-web-text+proto", "application/grpc+proto", "application/grpc-web-text+proto" },
        { "application/grpc-web; charset=utf-8", "application/grpc; charset=utf-8", "application/grpc-web+proto" },
        { "application/grpc-webx", "application/grpc-webx", "application/grpc" },
        { "application/grpc-web-textual", "application/grpc-web-textual", "application/grpc" },
        { "application/grpc", "application/grpc", "application/grpc" },
        { "text/plain", "text/plain", "application/grpc" },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        ask(t[i].in);
        assert_string_equal(of(&req.headers, "content-type"), t[i].request);
        bool ours = strcmp(t[i].in, t[i].request) != 0;
        assert_int_equal(req.te_trailers, ours);
        assert_string_equal(of(&req.headers, "grpc-accept-encoding"), ours ? "identity" : "(none)");
        assert_int_equal(req.content_length, ours && strstr(t[i].in, "-text") ? -1 : 100); // text shrinks
        headers_add(&resp.headers, STR("content-type"), STR("application/grpc"));
        resp.content_length = 7;
        ops->on_response(&filter, &resp);
        assert_string_equal(of(&resp.headers, "content-type"), t[i].answer);
        assert_int_equal(resp.content_length, ours ? -1 : 7); // trailers make it grow
        again();
    }
}

static void accept_says_how_the_answer_looks(void **state)
{
    (void)state;
    headers_add(&req.headers, STR("accept"), STR("application/grpc-web-text"));
    ask("application/grpc-web+proto");
    headers_add(&resp.headers, STR("content-type"), STR("application/grpc+json"));
    ops->on_response(&filter, &resp);
    assert_string_equal(of(&resp.headers, "content-type"), "application/grpc-web-text+json");
}

// What the upstream hears of text that comes in pieces of n bytes; "!" when it is refused.
static const char *decoded(const char *text, size_t n)
{
    static char out[256];
    size_t have = 0, all = strlen(text);
    again();
    ask("application/grpc-web-text");
    for (size_t at = 0; at < all || at == 0; at += n) {
        struct buf b = { 0 };
        size_t part = all - at < n ? all - at : n;
        buf_append(&b, text + at, part);
        enum http_filter_status st = ops->on_request_data(&filter, &b, at + n >= all);
        have += buf_peek(&b, 0, out + have, sizeof(out) - 1 - have);
        bool stopped = st == HF_STOP;
        assert_true(!stopped || b.len == 0);
        buf_clear(&b);
        if (stopped) {
            return "!";
        }
    }
    out[have] = '\0';
    return out;
}

static void base64_of_requests(void **state)
{
    (void)state;
    static const struct {
        const char *text, *bytes;
    } t[] = {
        { "", "" }, { "Zm9vYmFy", "foobar" }, { "Zm9vYmE=", "fooba" }, { "Zm9vYg==", "foob" },
        { "Zm8=Zg==YmFy", "fofbar" }, // PROTOCOL-WEB: messages that were padded each
        { "Pj8+Pz4/", ">?>?>?" }, // '+' and '/'
        { "Z", "!" }, { "Zm", "!" }, { "Zm9", "!" }, { "Zm9vY", "!" }, // the last group is not whole
        { "=", "!" }, { "Z===", "!" }, { "====", "!" }, { "Zg=v", "!" }, { "Zg==Z", "!" }, { "Zg===", "!" }, { "Zm6=", "!" }, { "Zh==", "!" },
        { "Zm9v Zm9v", "!" }, { "Zm9v\r\n", "!" }, { "Zm-_", "!" }, { "Zm9v.", "!" },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        for (size_t n = 1; n <= 13; n++) {
            assert_string_equal(decoded(t[i].text, n), t[i].bytes);
        }
    }
    assert_string_equal(decoded("!", 1), "!");
    struct buf more = { 0 };
    buf_append_str(&more, STR("Zm9v"));
    assert_int_equal(ops->on_request_data(&filter, &more, true), HF_STOP); // refused for good
    assert_int_equal(more.len, 0);
}

static void binary_requests_pass_as_they_are(void **state)
{
    (void)state;
    ask("application/grpc-web");
    struct buf b = { 0 };
    buf_append(&b, "\0\0\0\0\1=", 6);
    assert_int_equal(ops->on_request_data(&filter, &b, true), HF_CONTINUE);
    assert_int_equal(b.len, 6);
    buf_clear(&b);
}

// The answer's body and trailers, given in pieces of n bytes, as the client gets them.
static struct str answered(const char *type, const void *body, size_t size, size_t n)
{
    struct buf all = { 0 };
    again();
    ask(type);
    headers_add(&resp.headers, STR("content-type"), STR("application/grpc"));
    ops->on_response(&filter, &resp);
    for (size_t at = 0; at < size; at += n) {
        struct buf b = { 0 };
        buf_append(&b, (const char *)body + at, size - at < n ? size - at : n);
        ops->on_response_data(&filter, &b, false);
        buf_move(&all, &b, b.len);
    }
    struct headers t;
    headers_init(&t, &stream.arena);
    headers_add(&t, STR("Grpc-Status"), STR("0"));
    headers_add(&t, STR("x-b"), STR("v w"));
    assert_true(ops->response_trailers_as_data(&filter, &t, &all));
    struct str s = arena_str(&stream.arena, buf_pullup(&all, all.len));
    buf_clear(&all);
    return s;
}

static void answers_in_binary(void **state)
{
    (void)state;
    static const char want[] = "\0\0\0\0\2hi\x80\0\0\0\x18grpc-status:0\r\nx-b:v w\r\n";
    for (size_t n = 1; n < 9; n++) {
        struct str s = answered("application/grpc-web", "\0\0\0\0\2hi", 7, n);
        assert_int_equal(s.n, sizeof(want) - 1);
        assert_memory_equal(s.p, want, s.n);
    }
}

static void answers_in_text(void **state)
{
    (void)state;
    // Each message is padded: a client reads it when it comes.
    static const char want[] = "AAAAAAJoaQ==" "AAAAAAE/" "AAAAAAA=" "gAAAABhncnBjLXN0YXR1czowDQp4LWI6diB3DQo=";
    for (size_t n = 1; n < 20; n++) {
        struct str s = answered("application/grpc-web-text", "\0\0\0\0\2hi\0\0\0\0\1?\0\0\0\0\0", 18, n);
        assert_string_equal(s.p, want);
    }
}

static void an_answer_that_ends_within_a_message_is_padded(void **state)
{
    (void)state;
    ask("application/grpc-web-text");
    headers_add(&resp.headers, STR("content-type"), STR("application/grpc"));
    ops->on_response(&filter, &resp);
    struct buf b = { 0 };
    buf_append(&b, "\0\0\0\0\x09x", 6 + 1);
    ops->on_response_data(&filter, &b, true);
    struct str s = buf_pullup(&b, b.len);
    assert_int_equal(s.n, 12);
    assert_memory_equal(s.p, "AAAAAAl4AA==", 12);
    buf_clear(&b);
}

static void what_is_no_grpc_stays(void **state)
{
    (void)state;
    ask("application/grpc-web-text");
    headers_add(&resp.headers, STR("content-type"), STR("text/html"));
    resp.content_length = 3;
    ops->on_response(&filter, &resp);
    assert_string_equal(of(&resp.headers, "content-type"), "text/html");
    assert_int_equal(resp.content_length, 3);
    struct buf b = { 0 };
    buf_append_str(&b, STR("abc"));
    ops->on_response_data(&filter, &b, true);
    assert_int_equal(b.len, 3);
    struct headers t;
    headers_init(&t, &stream.arena);
    assert_false(ops->response_trailers_as_data(&filter, &t, &b));
    buf_clear(&b);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(types), T(accept_says_how_the_answer_looks), T(base64_of_requests), T(binary_requests_pass_as_they_are), T(answers_in_binary),
        T(answers_in_text), T(an_answer_that_ends_within_a_message_is_padded), T(what_is_no_grpc_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
