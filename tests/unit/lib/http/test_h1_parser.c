// SPDX-License-Identifier: Apache-2.0
// The parser's own interface: events, members, limits. Verdicts on doubtful bytes are in tests/conformance/h1.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/http/h1_parser.h"

struct rig {
    struct arena arena;
    struct h1_parser p;
    struct buf in, body;
};

static struct rig *rig_new(bool request)
{
    struct rig *r = calloc(1, sizeof(*r));
    h1_parser_init(&r->p, request, NULL, &r->arena);
    return r;
}

static void rig_free(struct rig *r)
{
    buf_clear(&r->in);
    buf_clear(&r->body);
    arena_fini(&r->arena);
    free(r);
}

static enum h1_event run(struct rig *r, const char *more)
{
    buf_append_str(&r->in, str_c(more));
    return h1_parser_run(&r->p, &r->in);
}

static void every_member_of_a_request(void **state)
{
    (void)state;
    struct rig *r = rig_new(true);
    assert_true(h1_parser_idle(&r->p));
    assert_int_equal(run(r, "PUT /a?b HTTP/1.1\r\nHost: h:80\r\nX-A:  1 \r\nConnection: keep-alive, Upgrade, x-a\r\nUpgrade: websocket\r\n"
                            "TE: trailers\r\nExpect: 100-continue\r\nAccept: */*\r\nContent-Length: 3\r\n\r"),
                     H1_NEED_MORE);
    assert_false(h1_parser_idle(&r->p));
    assert_int_equal(run(r, "\nabcd"), H1_HEAD);
    const struct http_request *q = &r->p.req;
    assert_true(str_is(q->method, "PUT") && str_is(q->path, "/a?b") && str_is(q->host, "h:80") && str_is(q->upgrade, "websocket"));
    assert_int_equal(q->version, HTTP_11);
    assert_true(q->te_trailers && q->expect_continue && !q->end_stream);
    assert_int_equal(q->content_length, 3);
    assert_int_equal(q->scheme.n, 0);
    assert_int_equal(r->p.body, H1_BODY_LENGTH);
    assert_true(r->p.keep_alive);
    assert_true(str_is(headers_first(&q->headers)->name, "Accept"));
    assert_null(headers_next(&q->headers, headers_first(&q->headers)));
    assert_int_equal(q->headers.bytes, 9);
    assert_int_equal(h1_parser_run(&r->p, &r->in), H1_DATA);
    assert_int_equal(h1_parser_run(&r->p, &r->in), H1_DATA); // until it is taken
    assert_int_equal(h1_take_body(&r->p, &r->in, &r->body, 2), 2);
    assert_int_equal(h1_parser_run(&r->p, &r->in), H1_DATA);
    assert_int_equal(h1_take_body(&r->p, &r->in, &r->body, 99), 1);
    assert_int_equal(h1_parser_run(&r->p, &r->in), H1_END);
    assert_int_equal(h1_parser_run(&r->p, &r->in), H1_END);
    assert_int_equal(h1_take_body(&r->p, &r->in, &r->body, 99), 0);
    assert_int_equal(r->in.len, 1); // "d" belongs to the next message
    h1_parser_next(&r->p, &r->arena);
    assert_true(h1_parser_idle(&r->p));
    assert_int_equal(h1_parser_eof(&r->p), H1_END);
    rig_free(r);
}

static void events_of_a_chunked_body(void **state)
{
    (void)state;
    struct rig *r = rig_new(false);
    assert_int_equal(run(r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_HEAD);
    assert_int_equal(run(r, ""), H1_NEED_MORE);
    assert_int_equal(run(r, "3\r\nab"), H1_DATA);
    assert_int_equal(h1_take_body(&r->p, &r->in, &r->body, 99), 2);
    assert_int_equal(run(r, "c\r\n0\r\n"), H1_DATA);
    assert_int_equal(h1_take_body(&r->p, &r->in, &r->body, 99), 1);
    assert_int_equal(run(r, "X-A: 1\r\n"), H1_NEED_MORE);
    assert_int_equal(run(r, "\r\n"), H1_TRAILERS);
    assert_true(str_is(headers_value(&r->p.trailers, STR("x-a")), "1"));
    assert_int_equal(run(r, ""), H1_END);
    assert_int_equal(h1_parser_eof(&r->p), H1_END);
    rig_free(r);
}

static void informational_then_final(void **state)
{
    (void)state;
    struct rig *r = rig_new(false);
    r->p.head_request = true;
    assert_int_equal(run(r, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), H1_HEAD);
    assert_int_equal(r->p.resp.status, 100);
    assert_int_equal(run(r, ""), H1_END);
    h1_parser_next(&r->p, &r->arena);
    assert_int_equal(run(r, ""), H1_HEAD);
    assert_int_equal(r->p.resp.status, 200);
    assert_int_equal(r->p.resp.content_length, 5);
    assert_true(r->p.resp.end_stream);
    assert_int_equal(run(r, ""), H1_END);
    rig_free(r);
}

static void failed_stays_failed(void **state)
{
    (void)state;
    struct rig *r = rig_new(true);
    assert_int_equal(run(r, "GET / HTTP/1.1\n"), H1_FAILED);
    assert_int_equal(run(r, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"), H1_FAILED);
    assert_int_equal(h1_parser_eof(&r->p), H1_FAILED);
    assert_int_equal(r->p.error, H1_ERR_BARE_LF);
    assert_false(r->p.keep_alive);
    rig_free(r);
}

static void every_error_has_words_and_a_status(void **state)
{
    (void)state;
    for (int e = 1; e < H1_ERR_COUNT; e++) {
        const char *t = h1_error_text((enum h1_error)e);
        assert_memory_equal(t, "http1.", 6);
        assert_string_not_equal(t, "http1.unknown_error");
        for (int f = 1; f < e; f++) {
            assert_string_not_equal(t, h1_error_text((enum h1_error)f));
        }
        int s = h1_error_status((enum h1_error)e);
        assert_true(s >= 400 && s < 600);
    }
    assert_int_equal(h1_error_status(H1_ERR_HEAD_TOO_LARGE), 431);
    assert_int_equal(h1_error_status(H1_ERR_TOO_MANY_HEADERS), 431);
    assert_int_equal(h1_error_status(H1_ERR_TE_UNSUPPORTED), 501);
    assert_int_equal(h1_error_status(H1_ERR_HTTP10), 426);
    assert_string_equal(h1_error_text((enum h1_error)999), "http1.unknown_error");
}

// A head of exactly the limit passes, one byte more does not, whatever the pieces.
static void head_limit_is_exact(void **state)
{
    (void)state;
    static const char head[] = "GET / HTTP/1.1\r\nHost: h\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n";
    for (int delta = -1; delta <= 1; delta++) {
        for (size_t cut = 1; cut < sizeof(head) - 1; cut++) {
            struct rig *r = rig_new(true);
            r->p.limits.head_bytes = (uint32_t)((int)sizeof(head) - 1 + delta);
            buf_append(&r->in, head, cut);
            enum h1_event ev = h1_parser_run(&r->p, &r->in);
            if (ev == H1_NEED_MORE) {
                buf_append(&r->in, head + cut, sizeof(head) - 1 - cut);
                ev = h1_parser_run(&r->p, &r->in);
            }
            assert_int_equal(ev, delta < 0 ? H1_FAILED : H1_HEAD);
            assert_int_equal(r->p.error, delta < 0 ? H1_ERR_HEAD_TOO_LARGE : H1_OK);
            rig_free(r);
        }
    }
}

static void arena_limit_refuses_the_head(void **state)
{
    (void)state;
    struct rig *r = rig_new(true);
    arena_init(&r->arena, 0, 200);
    assert_int_equal(run(r, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"), H1_FAILED);
    assert_int_equal(r->p.error, H1_ERR_HEAD_TOO_LARGE);
    rig_free(r);
}

static void chunk_extensions_are_bounded_per_message(void **state)
{
    (void)state;
    struct rig *r = rig_new(true);
    assert_int_equal(run(r, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_HEAD);
    char line[256];
    snprintf(line, sizeof(line), "1;%0200d\r\nx\r\n", 0);
    int n = 0;
    enum h1_event ev;
    while ((ev = run(r, line)) == H1_DATA && n < 1000) {
        h1_take_body(&r->p, &r->in, &r->body, 99);
        n++;
    }
    assert_int_equal(ev, H1_FAILED);
    assert_int_equal(r->p.error, H1_ERR_CHUNK_EXT);
    assert_int_equal(n, H1_CHUNK_EXT_MAX / 201);
    rig_free(r);
}

// Many one-byte chunks end up in few slices, not one each (threat class T5).
static void tiny_chunks_are_gathered(void **state)
{
    (void)state;
    struct rig *r = rig_new(true);
    assert_int_equal(run(r, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_HEAD);
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(run(r, "1\r\nx\r\n"), H1_DATA);
        h1_take_body(&r->p, &r->in, &r->body, 99);
    }
    assert_int_equal(r->body.len, 10000);
    int slices = 0;
    for (struct slice *s = r->body.head; s; s = s->next) {
        slices++;
    }
    assert_true(slices <= 2);
    rig_free(r);
}

// A head in slices of one byte each: every boundary is crossed by name, value, CR LF and the end.
static void head_in_tiny_slices(void **state)
{
    (void)state;
    struct rig *r = rig_new(true);
    static char pad[BUF_SLICE_BYTES];
    const char *head = "GET /abc HTTP/1.1\r\nHost: host\r\nName: value\r\n\r\n";
    size_t room;
    for (const char *c = head; *c; c++) {
        struct buf one = { 0 };
        char *w = buf_reserve(&one, 1, &room);
        size_t fill = room; // a full slice whose last byte alone is live
        memcpy(w, pad, fill);
        w[fill - 1] = *c;
        buf_commit(&one, fill);
        buf_drain(&one, fill - 1);
        r->in.tail ? (void)(r->in.tail->next = one.head) : (void)(r->in.head = one.head);
        r->in.tail = one.tail;
        r->in.len++;
    }
    assert_int_equal(h1_parser_run(&r->p, &r->in), H1_HEAD);
    assert_true(str_is(r->p.req.path, "/abc") && str_is(r->p.req.host, "host"));
    assert_true(str_is(headers_value(&r->p.req.headers, STR("name")), "value"));
    assert_int_equal(r->in.len, 0);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_of_a_request),
        cmocka_unit_test(events_of_a_chunked_body),
        cmocka_unit_test(informational_then_final),
        cmocka_unit_test(failed_stays_failed),
        cmocka_unit_test(every_error_has_words_and_a_status),
        cmocka_unit_test(head_limit_is_exact),
        cmocka_unit_test(arena_limit_refuses_the_head),
        cmocka_unit_test(chunk_extensions_are_bounded_per_message),
        cmocka_unit_test(tiny_chunks_are_gathered),
        cmocka_unit_test(head_in_tiny_slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
