// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "lib/http/h1_parser.h"

static struct arena arena;

static const char *text(struct buf *b)
{
    static char out[200 * 1024];
    size_t n = buf_peek(b, 0, out, sizeof(out) - 1);
    out[n] = '\0';
    buf_clear(b);
    return out;
}

static int done(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void framing_fields_of_the_list_are_left_out(void **state)
{
    (void)state;
    struct buf b = { 0 };
    struct http_request r = { .method = STR("GET"), .host = STR("h"), .path = STR("/"), .version = HTTP_11, .content_length = 3 };
    headers_init(&r.headers, &arena);
    const char *own[] = { "Host", "content-LENGTH", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer",
                          "Upgrade", "HTTP2-Settings" };
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        headers_add(&r.headers, str_c(own[i]), STR("evil"));
    }
    headers_add(&r.headers, STR("Keep"), STR("me"));
    headers_add(&r.headers, STR("drop"), STR("me"));
    headers_remove(&r.headers, STR("drop"));
    h1_write_request(&b, &r, &(struct h1_write_opts){ .close = true });
    assert_string_equal(text(&b), "GET / HTTP/1.1\r\nhost: h\r\nKeep: me\r\ncontent-length: 3\r\nconnection: close\r\n\r\n");
}

static void nothing_breaks_out_of_its_line(void **state)
{
    (void)state;
    struct buf b = { 0 };
    struct http_request r = { .method = STR("GET"), .host = STR("h\r\nX: 1"), .path = STR("/a b\r\nX: \xff#"), .content_length = -1,
                              .version = HTTP_11 };
    headers_init(&r.headers, &arena);
    headers_add(&r.headers, STR("a"), str_n("1\r\nb: 2\0", 8));
    headers_add(&r.headers, STR("b c"), STR("3"));
    headers_add(&r.headers, STR("long"), STR("0123456789\rX"));
    headers_add(&r.headers, STR("tab"), STR("0123456789\tX"));
    headers_add(&r.headers, STR("d\r\n"), STR("4"));
    headers_add(&r.headers, STR(""), STR("5"));
    h1_write_request(&b, &r, &(struct h1_write_opts){ 0 });
    assert_string_equal(text(&b), "GET /a%20b%0D%0AX:%20%FF%23 HTTP/1.1\r\nhost: h%0D%0AX:%201\r\na: 1  b: 2 \r\n"
                                  "long: 0123456789 X\r\ntab: 0123456789\tX\r\n\r\n");
}

static void options_of_connection(void **state)
{
    (void)state;
    struct buf b = { 0 };
    struct http_request r = { .method = STR("GET"), .host = STR("h"), .path = STR("/"), .version = HTTP_11, .content_length = -1,
                              .upgrade = STR("websocket"), .te_trailers = true, .expect_continue = true };
    headers_init(&r.headers, &arena);
    h1_write_request(&b, &r, &(struct h1_write_opts){ .chunked = true, .upgrade = true, .close = true });
    assert_string_equal(text(&b), "GET / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n"
                                  "upgrade: websocket\r\nte: trailers\r\nconnection: close, upgrade, te\r\n\r\n");
    struct http_response p = { .status = 200, .version = HTTP_10, .content_length = 0 };
    h1_write_response(&b, &p, &(struct h1_write_opts){ .keep_alive_10 = true });
    assert_string_equal(text(&b), "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n");
}

static void names_in_the_wanted_case(void **state)
{
    (void)state;
    struct buf b = { 0 };
    struct http_request r = { .method = STR("POST"), .host = STR("h"), .path = STR("/"), .version = HTTP_11, .content_length = 2,
                              .upgrade = STR("u"), .expect_continue = true };
    headers_init(&r.headers, &arena);
    headers_add(&r.headers, STR("x-a1b_c.d"), STR("v-w"));
    headers_add(&r.headers, STR("SOAPAction"), STR("1"));
    h1_write_request(&b, &r, &(struct h1_write_opts){ .names = H1_NAMES_PROPER, .upgrade = true });
    assert_string_equal(text(&b), "POST / HTTP/1.1\r\nHost: h\r\nX-A1b_C.D: v-w\r\nSOAPAction: 1\r\nContent-Length: 2\r\n"
                                  "Expect: 100-continue\r\nUpgrade: u\r\nConnection: upgrade\r\n\r\n");
    h1_write_request(&b, &r, &(struct h1_write_opts){ .names = H1_NAMES_PRESERVE });
    assert_non_null(strstr(text(&b), "\r\nhost: h\r\nx-a1b_c.d: v-w\r\nSOAPAction: 1\r\ncontent-length: 2\r\n"));
    struct http_response p = { .status = 200, .version = HTTP_11, .content_length = -1, .capital_names = true };
    headers_init(&p.headers, &arena);
    headers_add(&p.headers, STR("x-a"), STR("1"));
    h1_write_response(&b, &p, &(struct h1_write_opts){ .names = H1_NAMES_PRESERVE, .chunked = true, .close = true });
    assert_string_equal(text(&b), "HTTP/1.1 200 OK\r\nx-a: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
}

static void any_token_is_a_method(void **state)
{
    (void)state;
    struct buf b = { 0 };
    struct http_request r = { .method = STR("M#1"), .host = STR("h"), .path = STR("/"), .version = HTTP_11, .content_length = -1, .end_stream = true };
    headers_init(&r.headers, &arena);
    h1_write_request(&b, &r, &(struct h1_write_opts){ 0 });
    assert_string_equal(text(&b), "M#1 / HTTP/1.1\r\nhost: h\r\n\r\n");
    r.method = STR("A B"); // a policy's
    h1_write_request(&b, &r, &(struct h1_write_opts){ 0 });
    assert_string_equal(text(&b), "A%20B / HTTP/1.1\r\nhost: h\r\n\r\n");
}

static void large_heads_cross_slices(void **state)
{
    (void)state;
    struct buf b = { 0 };
    struct http_request r = { .method = STR("GET"), .host = STR("h"), .path = STR("/"), .version = HTTP_11, .content_length = -1,
                              .end_stream = true };
    headers_init(&r.headers, &arena);
    static char big[40000];
    memset(big, 'v', sizeof(big));
    headers_add(&r.headers, STR("big"), str_n(big, sizeof(big)));
    for (int i = 0; i < 90; i++) {
        headers_add(&r.headers, arena_printf(&arena, "name-%d", i), str_n(big, 150));
    }
    h1_write_request(&b, &r, &(struct h1_write_opts){ 0 });
    struct h1_parser p;
    h1_parser_init(&p, true, NULL, &arena);
    assert_int_equal(h1_parser_run(&p, &b), H1_HEAD);
    assert_int_equal(b.len, 0);
    assert_int_equal(p.req.headers.count, 91);
    assert_int_equal(p.req.headers.bytes, r.headers.bytes);
    assert_true(str_eq(headers_value(&p.req.headers, STR("big")), str_n(big, sizeof(big))));
    assert_int_equal(headers_value(&p.req.headers, STR("name-89")).n, 150);
}

static void chunks(void **state)
{
    (void)state;
    const struct {
        size_t n;
        const char *line;
    } t[] = { { 1, "1\r\n" }, { 15, "f\r\n" }, { 16, "10\r\n" }, { 255, "ff\r\n" }, { 65536, "10000\r\n" } };
    static char data[65536];
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct buf b = { 0 }, src = { 0 };
        buf_append(&src, data, t[i].n);
        h1_write_body(&b, &src, true);
        assert_int_equal(src.len, 0);
        assert_int_equal(b.len, strlen(t[i].line) + t[i].n + 2);
        assert_memory_equal(buf_pullup(&b, strlen(t[i].line)).p, t[i].line, strlen(t[i].line));
        buf_clear(&b);
    }
    struct buf b = { 0 }, none = { 0 };
    h1_write_body(&b, &none, true); // would end the message
    assert_int_equal(b.len, 0);
    h1_write_end(&b, NULL, true);
    assert_string_equal(text(&b), "0\r\n\r\n");
    h1_write_end(&b, NULL, false);
    assert_int_equal(b.len, 0);
    struct headers tr;
    headers_init(&tr, &arena);
    headers_add(&tr, STR("X-Sum"), STR("1\n2"));
    headers_add(&tr, STR("Content-Length"), STR("1"));
    h1_write_end(&b, &tr, true);
    assert_string_equal(text(&b), "0\r\nX-Sum: 1 2\r\n\r\n");
}

static struct http_request *parsed(struct h1_parser *p, const char *in)
{
    struct buf b = { 0 };
    h1_parser_init(p, true, NULL, &arena);
    buf_append(&b, in, strlen(in));
    assert_int_equal(h1_parser_run(p, &b), H1_HEAD);
    buf_clear(&b);
    return &p->req;
}

static void fields_go_on_as_they_came(void **state)
{
    (void)state;
    static const char in[] = "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nuser-agent: 22\r\nB:  3 \r\nC:\r\nD: \r\nE:5\r\nF:\t6\r\nG: 7\tx\r\n"
                             "Accept: 8\r\nContent-Length: 0\r\nI: 9\r\n\r\n";
    struct h1_parser p;
    struct buf b = { 0 };
    struct http_request *r = parsed(&p, in);
    h1_write_request(&b, r, &(struct h1_write_opts){ 0 });
    assert_string_equal(text(&b), "GET / HTTP/1.1\r\nhost: h\r\nA: 1\r\nuser-agent: 22\r\nB: 3\r\nC: \r\nD: \r\nE: 5\r\nF: 6\r\nG: 7\tx\r\n"
                                  "Accept: 8\r\nI: 9\r\ncontent-length: 0\r\n\r\n");
    h1_write_request(&b, r, &(struct h1_write_opts){ .names = H1_NAMES_PROPER });
    assert_string_equal(text(&b), "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nUser-Agent: 22\r\nB: 3\r\nC: \r\nD: \r\nE: 5\r\nF: 6\r\nG: 7\tx\r\n"
                                  "Accept: 8\r\nI: 9\r\nContent-Length: 0\r\n\r\n");
}

// The text that a field came in is forgotten with the first change.
static void changed_fields_go_out_changed(void **state)
{
    (void)state;
    struct h1_parser p;
    struct buf b = { 0 };
    struct http_request *r = parsed(&p, "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 234\r\nC: 5\r\nX-Request-Id: 6\r\nD: 7\r\nE: 8\r\n\r\n");
    headers_set(&r->headers, STR("a"), STR("new"));
    headers_get(&r->headers, STR("b"))->value.n = 1; // a prefix of what it was
    headers_remove(&r->headers, STR("c"));
    headers_set_id(&r->headers, HDR_X_REQUEST_ID, STR("evil\r\nX: 1"));
    headers_get(&r->headers, STR("d"))->name = STR("Dd");
    struct hdr *e = headers_get(&r->headers, STR("e"));
    e->value = str_n(e->value.p + 1, 0); // empty, in front of the line's end
    h1_write_request(&b, r, &(struct h1_write_opts){ 0 });
    assert_string_equal(text(&b), "GET / HTTP/1.1\r\nhost: h\r\nA: new\r\nB: 2\r\nX-Request-Id: evil  X: 1\r\nDd: 7\r\nE: \r\n\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(fields_go_on_as_they_came, done),
        cmocka_unit_test_teardown(changed_fields_go_out_changed, done),
        cmocka_unit_test_teardown(framing_fields_of_the_list_are_left_out, done),
        cmocka_unit_test_teardown(nothing_breaks_out_of_its_line, done),
        cmocka_unit_test_teardown(names_in_the_wanted_case, done),
        cmocka_unit_test_teardown(any_token_is_a_method, done),
        cmocka_unit_test_teardown(options_of_connection, done),
        cmocka_unit_test_teardown(large_heads_cross_slices, done),
        cmocka_unit_test_teardown(chunks, done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
