// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/tls/transport_tls.h"
#include "proxy/access_log/format.h"
#include "proxy/core/facts.h"
#include "proxy/core/peer.h"

static struct arena arena;
static struct http_request req;
static struct http_response resp;
static struct stream_info info;
static const struct tls_info tls = { .version = "TLSv1.3", .peer_uri = STR_INIT("spiffe://td/ns/a/sa/b"), .local_uri = STR_INIT("spiffe://td/ns/c/sa/d") };
static struct format_ctx ctx = { .info = &info, .req = &req, .resp = &resp };

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0, 0);
    req = (struct http_request){ .method = STR("GET"), .path = STR("/a?b=c"), .host = STR("shop:80") };
    headers_init(&req.headers, &arena);
    headers_init(&resp.headers, &arena);
    headers_add(&req.headers, STR("User-Agent"), STR("curl/7 \"x\"\t\\"));
    headers_add(&req.headers, STR("X-Request-Id"), STR("id-1"));
    headers_add(&resp.headers, STR("x-envoy-upstream-service-time"), STR("7"));
    info = (struct stream_info){ .start_wall_ms = 1763693971123, .start_ns = 1000000000, .request_end_ns = 1002000000,
                                 .first_response_ns = 1005000000, .end_ns = 1012999999, .status = 503,
                                 .flags = RF(UPSTREAM_CONNECT_FAILURE) | RF(UPSTREAM_RETRY_LIMIT), .bytes_sent = 91, .is_http = true,
                                 .protocol = HTTP_11, .attempts = 3, .details = "upstream reset{a b}", .downstream_tls = &tls,
                                 .upstream_cluster = STR("outbound|80||shop") };
    addr_parse(STR("10.0.0.9:4000"), &info.downstream_remote);
    addr_parse(STR("[::1]:80"), &info.downstream_local);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static const char *run(const char *text)
{
    struct format *f;
    struct err err;
    if (format_compile(str_c(text), &arena, &f, &err) < 0) {
        return arena_strdup(&arena, err.msg);
    }
    struct buf out = { 0 };
    format_write(f, &ctx, &out);
    const char *s = arena_str(&arena, buf_pullup(&out, out.len)).p;
    buf_clear(&out);
    return s ? s : "";
}

static void operators(void **state)
{
    (void)state;
    assert_string_equal(run("%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%"), "GET /a?b=c HTTP/1.1");
    assert_string_equal(run("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%"),
                        "503 URX,UF UpstreamRetryLimitExceeded,UpstreamConnectionFailure");
    assert_string_equal(run("%RESPONSE_CODE_DETAILS% %RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%"),
                        "upstream_reset{a_b} upstream reset{a b}");
    assert_string_equal(run("%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%"),
                        "0 91 12 2 5 7");
    assert_string_equal(run("%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% %RESP(x)% %TRAILER(x)%"), "7 - -");
    assert_string_equal(run("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS% "
                            "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT% %UPSTREAM_HOST%"),
                        "10.0.0.9:4000 10.0.0.9 [::1]:80 ::1 80 -");
    assert_string_equal(run("%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_TLS_VERSION%"),
                        "spiffe://td/ns/a/sa/b spiffe://td/ns/c/sa/d TLSv1.3");
    assert_string_equal(run("%UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_CLUSTER_RAW% %DYNAMIC_METADATA(a:b)% %FILTER_STATE(x:PLAIN)%"),
                        "3 outbound|80||shop - -");
    assert_string_equal(run("100%% %REQ_WITHOUT_QUERY(:PATH)% %REQ(X-REQUEST-ID):2%"), "100% /a id");
    assert_string_equal(run("%REQ(HOST)% %STREAM_ID%"), "shop:80 id-1");
}

// What metadata exchange and listener filters found out. Hostile texts of a peer are escaped like all others, and bounded.
static void peers_and_facts(void **state)
{
    (void)state;
    char long_name[400];
    memset(long_name, 'n', sizeof(long_name));
    struct peer_info down = { .id = STR("sidecar~x"), .workload = STR("w\n"), .namespace = STR("ns"), .canonical_name = STR("c") };
    struct peer_info up = { .workload = str_n(long_name, sizeof(long_name)), .app = STR("a") };
    const struct connection_fact first = { STR("mine"), STR("k"), STR("old"), NULL }, last = { STR("mine"), STR("k"), STR("new"), &first };
    info.downstream_peer = &down;
    info.upstream_peer = &up;
    info.facts = &last;
    assert_string_equal(run("%FILTER_STATE(downstream_peer)%"), "k8s.deployment.name=w\\x0a,service.name=c,k8s.namespace.name=ns");
    assert_string_equal(run("%FILTER_STATE(wasm.downstream_peer_id)% %FILTER_STATE(upstream_peer_id)%"), "sidecar~x -");
    assert_string_equal(run("%FILTER_STATE(upstream_peer:PLAIN)%"), "app.name=a"); // what does not fit is left out
    assert_string_equal(run("%FILTER_STATE(downstream_peers)% %FILTER_STATE(peer)%"), "- -");
    assert_string_equal(run("%DYNAMIC_METADATA(mine:k)% %DYNAMIC_METADATA(mine:x)% %DYNAMIC_METADATA(k)%"), "new - -");
}

static void times(void **state)
{
    (void)state;
    assert_string_equal(run("%START_TIME%"), "2025-11-21T02:59:31.123Z");
    assert_string_equal(run("%START_TIME(%Y/%m/%dT%H:%M:%S%z)%"), "2025/11/21T02:59:31+0000");
    assert_string_equal(run("%START_TIME(%s.%3f)% %START_TIME(%Y %E3S %6f)%"), "1763693971.123 2025 31.123 123000");
    assert_string_equal(run("%START_TIME(%f)%"), "123000000");
}

static void hostile_values_cannot_forge_fields_or_lines(void **state)
{
    (void)state;
    assert_string_equal(run("\"%REQ(USER-AGENT)%\""), "\"curl/7 \\\"x\\\"\\x09\\\\\"");
    req.path = STR("/\r\nfake");
    assert_string_equal(run("%REQ(:PATH)%"), "/\\x0d\\x0afake");
    struct format *f;
    struct err err;
    assert_int_equal(format_compile(STR("a%REQ(USER-AGENT)%%REQ(nope)%b"), &arena, &f, &err), 0);
    struct str s = format_text(f, &ctx, &arena);
    assert_string_equal(s.p, "acurl/7 \"x\"\t\\b"); // header values are not escaped, and missing ones are empty
}

static void refused(void **state)
{
    (void)state;
    assert_non_null(strstr(run("%NOPE%"), "unknown operator %NOPE%; known: BYTES_RECEIVED"));
    assert_non_null(strstr(run("%CEL(request.path)%"), "unknown operator %CEL%"));
    assert_non_null(strstr(run("%REQ%"), "needs an argument"));
    assert_non_null(strstr(run("%REQ(a?b?c)%"), "two with '?'"));
    assert_non_null(strstr(run("%REQ(abc"), "not closed"));
    assert_non_null(strstr(run("%PROTOCOL(x)%"), "takes no argument"));
    assert_non_null(strstr(run("%PROTOCOL"), "must follow"));
    assert_non_null(strstr(run("%REQ(a):x%"), "must follow"));
    assert_non_null(strstr(run("50%"), "unknown operator"));
    assert_true(format_has_operator(STR("a%b")));
    assert_false(format_has_operator(STR("a%%b")));
}

static const char *run_json(const char *text, bool omit)
{
    struct json *tree;
    struct format *f;
    struct err err;
    assert_int_equal(json_parse(str_c(text), &arena, &tree, &err), 0);
    if (format_compile_json(tree, &arena, &f, &err) < 0) {
        return arena_strdup(&arena, err.msg);
    }
    if (omit) {
        format_omit_empty(f);
    }
    struct buf out = { 0 };
    format_write(f, &ctx, &out);
    const char *s = arena_str(&arena, buf_pullup(&out, out.len)).p;
    buf_clear(&out);
    return s;
}

static void json_keeps_types(void **state)
{
    (void)state;
    static const char text[] = "{\"code\":\"%RESPONSE_CODE%\",\"ua\":\"%REQ(USER-AGENT)%\",\"none\":\"%REQ(x)%\","
                               "\"two\":\"%PROTOCOL% %REQ(x)%\",\"n\":{\"a\":[\"%DURATION%\",1,true]}}";
    assert_string_equal(run_json(text, false),
                        "{\"code\":503,\"n\":{\"a\":[12,1,true]},\"none\":null,\"two\":\"HTTP/1.1 -\",\"ua\":\"curl/7 \\\"x\\\"\\t\\\\\"}\n");
    assert_string_equal(run_json(text, true),
                        "{\"code\":503,\"n\":{\"a\":[12,1,true]},\"two\":\"HTTP/1.1 \",\"ua\":\"curl/7 \\\"x\\\"\\t\\\\\"}\n");
    assert_non_null(strstr(run_json("{\"x\":\"%NO%\"}", false), "\"x\": unknown operator"));
    assert_non_null(strstr(run_json("[]", false), "must be an object"));
}

// {ns: {k: "v", o: true}}
static const struct str some_metadata = STR_INIT("\x0a\x19\x0a\x02ns\x12\x13\x0a\x08\x0a\x01k\x12\x03\x1a\x01v\x0a\x07\x0a\x01o\x12\x02\x20\x01");

static void metadata(void **state)
{
    (void)state;
    info.metadata[METADATA_ROUTE] = info.metadata[METADATA_UPSTREAM_HOST] = &some_metadata;
    assert_string_equal(run("%METADATA(ROUTE:ns:k)% %METADATA(ROUTE:ns:o)% %METADATA(ROUTE:ns)% %METADATA(ROUTE:ns):6% %METADATA(ROUTE:ns:x)%"),
                        "v true {\"k\":\"v\",\"o\":true} {\"k\":\" -");
    assert_string_equal(run("%UPSTREAM_METADATA(ns:k)% %METADATA(UPSTREAM_HOST:ns:k)% %CLUSTER_METADATA(ns:k)% %METADATA(DYNAMIC:ns:k)%"), "v v - -");
    struct arena a = { 0 };
    stream_info_metadata_merge(&info, &a, STR("ns"), metadata_find(some_metadata, STR("ns"), STR("")).bytes);
    stream_info_metadata_text(&info, &a, STR("ns"), STR("urn:x"), STR("colons"));
    assert_string_equal(run("%DYNAMIC_METADATA(ns:k)% %METADATA(DYNAMIC:ns:o)% %DYNAMIC_METADATA(ns:urn:x)% %DYNAMIC_METADATA(ns)% %DYNAMIC_METADATA(no)%"),
                        "v true colons {\"k\":\"v\",\"o\":true,\"urn:x\":\"colons\"} -");
    info.dynamic = NULL;
    arena_fini(&a);
    assert_string_equal(run_json("{\"a\":\"%METADATA(ROUTE:ns):3%\",\"b\":\"%METADATA(ROUTE:ns:o)%\",\"c\":\"%METADATA(ROUTE:no)%\",\"d\":\"<%METADATA(ROUTE:ns)%>\"}", false),
                        "{\"a\":{\"k\":\"v\",\"o\":true},\"b\":true,\"c\":null,\"d\":\"<{\\\"k\\\":\\\"v\\\",\\\"o\\\":true}>\"}\n");
    assert_true(metadata_wanted(METADATA_UPSTREAM_HOST) && metadata_wanted(METADATA_CLUSTER) && !metadata_wanted(METADATA_LISTENER));
    assert_non_null(strstr(run("%METADATA(ROUTES:ns:k)%"), "%METADATA(ROUTES:"));
}

static void default_format(void **state)
{
    (void)state;
    assert_string_equal(run(format_default_text),
                        "[2025-11-21T02:59:31.123Z] \"GET /a?b=c HTTP/1.1\" 503 URX,UF 0 91 12 7 \"-\" "
                        "\"curl/7 \\\"x\\\"\\x09\\\\\" \"id-1\" \"shop:80\" \"-\"\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(operators, setup, teardown),
        cmocka_unit_test_setup_teardown(peers_and_facts, setup, teardown),
        cmocka_unit_test_setup_teardown(times, setup, teardown),
        cmocka_unit_test_setup_teardown(hostile_values_cannot_forge_fields_or_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(refused, setup, teardown),
        cmocka_unit_test_setup_teardown(json_keeps_types, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata, setup, teardown),
        cmocka_unit_test_setup_teardown(default_format, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
