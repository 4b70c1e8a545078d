// SPDX-License-Identifier: Apache-2.0
// The WebSocket handshake between versions of HTTP (RFC 6455 §4, RFC 8441 §5), and which answers switch protocols (RFC 9110 §7.8, §9.3.6).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/http/internal.h"

#define KEY "dGhlIHNhbXBsZSBub25jZQ==" // RFC 6455 §1.3
#define DIGEST "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static struct stream s;
static struct http_response resp;

static int setup(void **state)
{
    (void)state;
    s = (struct stream){ 0 };
    arena_init(&s.arena, 0, 0);
    s.req = (struct http_request){ .method = STR("GET"), .path = STR("/chat"), .upgrade = STR("WebSocket") };
    headers_init(&s.req.headers, &s.arena);
    resp = (struct http_response){ .status = 101 };
    headers_init(&resp.headers, &s.arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&s.arena);
    return 0;
}

static struct str key(void)
{
    return headers_value(&s.req.headers, STR("sec-websocket-key"));
}

static const char *accepted(void)
{
    struct str v = headers_value(&resp.headers, STR("sec-websocket-accept"));
    return v.p ? arena_str(&s.arena, v).p : "(none)";
}

static void a_key_is_made_for_clients_of_http2(void **state)
{
    (void)state;
    s.req.version = HTTP_2;
    websocket_request(&s);
    struct str first = key();
    assert_int_equal(first.n, 24); // 16 bytes
    assert_true(s.ws_key_made && first.p[22] == '=' && first.p[23] == '=' && first.p[21] != '=');
    s.tunnel = true;
    headers_add(&resp.headers, STR("Sec-WebSocket-Accept"), STR("x"));
    headers_add(&resp.headers, STR("sec-websocket-protocol"), STR("chat"));
    websocket_response(&s, &resp);
    assert_string_equal(accepted(), "(none)"); // the client knows of no key
    assert_int_equal(resp.headers.count - headers_remove(&resp.headers, STR("sec-websocket-protocol")), resp.headers.count - 1);
    struct str old = arena_str(&s.arena, first);
    headers_remove(&s.req.headers, STR("sec-websocket-key"));
    websocket_request(&s);
    assert_false(str_eq(old, key())); // RFC 6455 §4.1: chosen at random for each connection
}

static void a_key_that_is_there_stays(void **state)
{
    (void)state;
    s.req.version = HTTP_2;
    headers_add(&s.req.headers, STR("Sec-WebSocket-Key"), STR(KEY));
    websocket_request(&s);
    assert_true(str_is(key(), KEY) && !s.ws_key_made);
    s.tunnel = true;
    headers_add(&resp.headers, STR("sec-websocket-accept"), STR(DIGEST));
    websocket_response(&s, &resp);
    assert_string_equal(accepted(), DIGEST); // who sent a key wants its digest
}

static void a_digest_is_made_for_clients_of_http1(void **state)
{
    (void)state;
    s.req.version = HTTP_11;
    headers_add(&s.req.headers, STR("sec-websocket-key"), STR(KEY));
    websocket_request(&s);
    assert_true(str_is(key(), KEY) && !s.ws_key_made);
    s.tunnel = true;
    websocket_response(&s, &resp);
    assert_string_equal(accepted(), DIGEST);
}

static void a_server_s_own_digest_stays(void **state)
{
    (void)state;
    s.req.version = HTTP_11;
    headers_add(&s.req.headers, STR("sec-websocket-key"), STR(KEY));
    headers_add(&resp.headers, STR("sec-websocket-accept"), STR("wrong")); // the client shall see it
    s.tunnel = true;
    websocket_response(&s, &resp);
    assert_string_equal(accepted(), "wrong");
}

static void nothing_is_made_where_nothing_switches(void **state)
{
    (void)state;
    s.req.version = HTTP_11;
    websocket_request(&s);
    assert_int_equal(key().n, 0); // a client of HTTP/1.1 brings its own or fails
    s.tunnel = true;
    websocket_response(&s, &resp);
    assert_string_equal(accepted(), "(none)");
    headers_add(&s.req.headers, STR("sec-websocket-key"), STR(KEY));
    s.tunnel = false;
    websocket_response(&s, &resp); // a 403, for example
    assert_string_equal(accepted(), "(none)");
    s.tunnel = true;
    s.req.upgrade = STR("other");
    websocket_response(&s, &resp);
    assert_string_equal(accepted(), "(none)");
    headers_remove(&s.req.headers, STR("sec-websocket-key"));
    s.req.version = HTTP_2;
    websocket_request(&s);
    assert_int_equal(key().n, 0);
}

static void answers_that_switch(void **state)
{
    (void)state;
    const struct http_request upgrade = { .path = STR("/"), .upgrade = STR("x") }, connect = { .method = STR("CONNECT") }, plain = { .path = STR("/") };
    static const struct {
        int status;
        bool upgrade, connect;
    } t[] = {
        { 100, false, false }, { 101, true, false }, { 103, false, false }, { 200, false, true }, { 204, false, true }, { 299, false, true },
        { 300, false, false }, { 403, false, false }, { 426, false, false }, { 500, false, false },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        assert_int_equal(upgrade_switches(&upgrade, t[i].status), t[i].upgrade);
        assert_int_equal(upgrade_switches(&connect, t[i].status), t[i].connect);
        assert_false(upgrade_switches(&plain, t[i].status));
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_key_is_made_for_clients_of_http2), T(a_key_that_is_there_stays), T(a_digest_is_made_for_clients_of_http1),
        T(a_server_s_own_digest_stays), T(nothing_is_made_where_nothing_switches), T(answers_that_switch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
