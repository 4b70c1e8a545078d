// SPDX-License-Identifier: Apache-2.0
// Questions to authorization servers, byte by byte as the API has them, and what their answers are taken for.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "envoy/service/auth/v3/external_auth.pb-c.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proxy/authz/check.h"
#include "proxy/authz/grpc_service.h"
#include "proxy/authz/metadata_match.h"
#include "proxy/authz/node_labels.h"

typedef Envoy__Service__Auth__V3__CheckRequest request_msg;

static struct arena arena;
static struct err err;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0, 0);
    err = (struct err){ 0 };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static const char *z(struct str s)
{
    return arena_str(&arena, s).p;
}

static struct addr ip(const char *text)
{
    struct addr a;
    assert_true(addr_parse(str_c(text), &a));
    return a;
}

static const request_msg *asked(const struct check_question *q)
{
    request_msg *m = NULL;
    if (pb_unpack_as(request_msg, envoy__service__auth__v3__check_request, check_question_pack(q, &arena), &arena, &m, &err)) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(pb_whole(&m->base, NULL, NULL, &err), 0);
    return m;
}

static void questions(void **state)
{
    (void)state;
    char large[70000]; // lengths of one, two and three bytes
    memset(large, 'x', sizeof(large));
    const struct check_pair labels[] = { { STR("app"), STR("shop") } }, extensions[] = { { STR("a"), STR("b") } };
    const struct check_pair headers[] = { { STR("x"), STR("1") }, { STR("y"), STR("") }, { STR("x"), STR("2") }, { STR("big"), str_n(large, 300) } };
    const struct check_http http = { .id = UINT64_MAX, .method = STR("PUT"), .path = STR("/p"), .host = STR("h"), .scheme = STR("https"),
                                     .protocol = STR("HTTP/2"), .size = 70000, .headers = headers, .header_count = 4, .has_body = true,
                                     .body = str_n(large, sizeof(large)), .partial = true };
    const struct check_question q = { .source = { .addr = ip("10.1.2.3:99"), .service = STR("s"), .principal = STR("p"), .certificate = STR("c") },
                                      .destination = { .addr = ip("[::1]:8080"), .labels = labels, .label_count = 1 }, .time_ms = 1234567,
                                      .http = &http, .extensions = extensions, .extension_count = 1, .has_tls = true, .sni = STR("sni") };
    const Envoy__Service__Auth__V3__AttributeContext *a = asked(&q)->attributes;
    assert_string_equal(a->source->address->socket_address->address, "10.1.2.3");
    assert_int_equal(a->source->address->socket_address->port_value, 99);
    assert_string_equal(a->source->service, "s");
    assert_string_equal(a->source->principal, "p");
    assert_string_equal(a->source->certificate, "c");
    assert_string_equal(a->destination->address->socket_address->address, "::1");
    assert_string_equal(a->destination->labels[0]->value, "shop");
    assert_int_equal(a->request->time->seconds, 1234);
    assert_int_equal(a->request->time->nanos, 567000000);
    const Envoy__Service__Auth__V3__AttributeContext__HttpRequest *h = a->request->http;
    assert_string_equal(h->id, "18446744073709551615");
    assert_string_equal(h->method, "PUT");
    assert_string_equal(h->path, "/p");
    assert_string_equal(h->host, "h");
    assert_string_equal(h->scheme, "https");
    assert_string_equal(h->protocol, "HTTP/2");
    assert_int_equal(h->size, 70000);
    assert_int_equal(strlen(h->body), 70000);
    assert_int_equal(h->n_headers, 4); // x once, and the mark of a part
    assert_string_equal(pb_map_get(h->headers, h->n_headers, "x")->value, "1,2");
    assert_string_equal(pb_map_get(h->headers, h->n_headers, "y")->value, "");
    assert_int_equal(strlen(pb_map_get(h->headers, h->n_headers, "big")->value), 300);
    assert_string_equal(pb_map_get(h->headers, h->n_headers, "x-envoy-auth-partial-body")->value, "true");
    assert_string_equal(a->context_extensions[0]->value, "b");
    assert_string_equal(a->tls_session->sni, "sni");
    assert_non_null(a->metadata_context);
    assert_non_null(a->route_metadata_context);
}

static void questions_raw_and_about_connections(void **state)
{
    (void)state;
    const struct check_pair headers[] = { { STR("x"), STR("\xff") }, { STR("x"), STR("2") } };
    const struct check_http http = { .headers = headers, .header_count = 2, .raw = true, .has_body = true, .body_as_bytes = true,
                                     .body = STR("a\0\xff") };
    struct check_question q = { .source = { .addr = ip("1.1.1.1:1") }, .destination = { .addr = ip("1.1.1.1:2") }, .http = &http };
    const Envoy__Service__Auth__V3__AttributeContext__HttpRequest *h = asked(&q)->attributes->request->http;
    assert_int_equal(h->n_headers, 0);
    assert_int_equal(h->header_map->n_headers, 3);
    assert_int_equal(h->header_map->headers[0]->raw_value.data[0], 0xff);
    assert_string_equal(h->header_map->headers[2]->key, "x-envoy-auth-partial-body");
    assert_int_equal(h->raw_body.len, 3);
    assert_memory_equal(h->raw_body.data, "a\0\xff", 3);
    assert_string_equal(h->id, "0");
    q.http = NULL;
    const Envoy__Service__Auth__V3__AttributeContext *a = asked(&q)->attributes;
    assert_null(a->request);
    assert_null(a->route_metadata_context);
    assert_null(a->tls_session);
}

static void texts_become_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "", "" }, { "plain", "plain" }, { "\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x9f", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x9f" },
        { "a\xff" "b", "a!b" }, { "\xc3", "!" }, { "\xe2\x82", "!!" }, { "\xe2\x82x", "!!x" }, { "\xc0\xaf", "!!" }, { "\xed\xa0\x80", "!!!" },
        { "\xf4\x90\x80\x80", "!!!!" }, { "\xe0\x80\x80", "!!!" }, { "\xf5", "!" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(z(check_utf8(str_c(cases[i].in), &arena)), cases[i].out);
    }
    assert_string_equal(z(check_certificate(STR("-----BEGIN A-----\na+/=\n"), &arena)), "-----BEGIN%20A-----%0Aa%2B%2F%3D%0A");
}

// ---- answers ----

static struct check_answer answered(const char *json)
{
    ProtobufCMessage *m = NULL;
    struct check_answer a;
    if (pb_json_parse(str_c(json), &envoy__service__auth__v3__check_response__descriptor, 0, &arena, &m, &err)) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(check_answer_parse(pb_pack(m, &arena), &arena, &a, &err), 0);
    return a;
}

static void answers(void **state)
{
    (void)state;
    struct check_answer a = answered("{}");
    assert_int_equal(a.verdict, CHECK_OK);
    a = answered("{\"status\":{\"code\":7}}");
    assert_int_equal(a.verdict, CHECK_DENIED);
    assert_int_equal(a.status, 0);
    a = answered("{\"status\":{\"code\":0},\"denied_response\":{\"status\":{\"code\":401}}}"); // the status decides
    assert_int_equal(a.verdict, CHECK_OK);
    a = answered("{\"status\":{\"code\":7},\"ok_response\":{\"headers\":[{\"header\":{\"key\":\"x\",\"value\":\"v\"}}]}}");
    assert_int_equal(a.verdict, CHECK_DENIED);
    assert_int_equal(a.header_count, 0);
    a = answered("{\"status\":{\"code\":13},\"error_response\":{\"status\":{\"code\":502},\"body\":\"bm8=\"}}");
    assert_int_equal(a.verdict, CHECK_ERROR);
    assert_int_equal(a.status, 502);
    assert_true(str_is(a.body, "no"));
}

static void actions_by_direction(void **state)
{
    (void)state;
#define FIELDS                                                                                                                       \
    "[{\"header\":{\"key\":\"A\",\"value\":\"1\"}},{\"header\":{\"key\":\"b\",\"value\":\"2\"},\"append\":true},"                     \
    "{\"header\":{\"key\":\"c\",\"value\":\"3\"},\"append\":false},{\"header\":{\"key\":\"d\",\"raw_value\":\"NA==\"},\"append_action\":\"ADD_IF_ABSENT\"},{}]"
    struct check_answer a = answered("{\"ok_response\":{\"headers\":" FIELDS ",\"response_headers_to_add\":" FIELDS
                                     ",\"headers_to_remove\":[\"X-Gone\"],\"query_parameters_to_set\":[{\"key\":\"k\",\"value\":\"v\"}],"
                                     "\"query_parameters_to_remove\":[\"r\"],\"dynamic_metadata\":{\"a\":1}},\"dynamic_metadata\":{\"b\":1}}");
    static const enum check_action up[] = { CHECK_OVERWRITE_OR_ADD, CHECK_JOIN, CHECK_OVERWRITE_OR_ADD, CHECK_OVERWRITE_OR_ADD },
                                   down[] = { CHECK_ADD, CHECK_ADD, CHECK_OVERWRITE_OR_ADD, CHECK_ADD_IF_ABSENT };
    assert_int_equal(a.header_count, 4);
    assert_int_equal(a.answer_header_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(a.headers[i].action, up[i]);
        assert_int_equal(a.answer_headers[i].action, down[i]);
    }
    assert_true(str_is(a.headers[0].name, "a") && str_is(a.headers[3].value, "4"));
    assert_true(a.remove_count == 1 && str_is(a.remove[0], "x-gone"));
    assert_true(a.query_set_count == 1 && str_is(a.query_set[0].value, "v"));
    assert_true(a.query_remove_count == 1 && str_is(a.query_remove[0], "r"));
    const struct str key = STR("a"), other = STR("b");
    assert_int_equal(metadata_struct_find(a.metadata, &key, 1).kind, MV_NUMBER); // the older field wins
    assert_int_equal(metadata_struct_find(a.metadata, &other, 1).kind, MV_NONE);
    a = answered("{\"status\":{\"code\":7},\"denied_response\":{\"headers\":" FIELDS "}}");
    assert_int_equal(a.header_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(a.headers[i].action, CHECK_ADD);
    }
    assert_false(a.bad_action);
}

static void answers_that_are_none(void **state)
{
    (void)state;
    static const struct str bad[] = { STR_INIT("\xff"), STR_INIT("\x0a\x05"), STR_INIT("\x0a\x04\x12\x02\x0a\xff"), STR_INIT("nonsense") };
    struct check_answer a = { .status = 77 };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_true(check_answer_parse(bad[i], &arena, &a, &err) < 0);
        assert_int_equal(a.status, 77); // untouched
    }
    char many[3 + 4 * (CHECK_FIELDS_MAX + 1)], *p = many + 4; // ok_response { headers_to_remove: "x" } many times over
    for (int i = 0; i <= CHECK_FIELDS_MAX && p + 3 <= many + sizeof(many); i++, p += 3) {
        memcpy(p, "\x2a\x01x", 3);
    }
    size_t n = (size_t)(p - many) - 4;
    many[0] = 0x1a;
    many[1] = (char)(n | 0x80);
    many[2] = (char)(n >> 7);
    memmove(many + 3, many + 4, n);
    assert_int_equal(check_answer_parse(str_n(many, n + 3), &arena, &a, &err), -EMSGSIZE);
}

static void queries(void **state)
{
    (void)state;
    const struct check_pair set[] = { { STR("c"), STR("x") }, { STR("b"), STR("y") } };
    const struct str gone[] = { STR("a") };
    static const struct {
        const char *path, *want;
        size_t set, gone;
    } cases[] = {
        { "/p?b=1&a=2&b=3", "/p?a=2&b=y&c=x", 2, 0 }, { "/p", "/p?c=x", 1, 0 }, { "/p?a", "/p", 0, 1 }, { "/p?b&a=1", "/p?b=", 0, 1 },
        { "/p?", "/p", 0, 1 }, { "/p?b=2&b=1&b=0", "/p?b=2&b=1&b=0", 0, 1 }, { "/p?a=b=c&z=1", "/p?a=b=c&c=x&z=1", 1, 0 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(z(check_query_change(str_c(cases[i].path), set, cases[i].set, gone, cases[i].gone, &arena)), cases[i].want);
    }
    assert_true(check_query_text(STR("a-b.c_d*9"), true) && check_query_text(STR(""), true) && check_query_text(STR("a/b%20&="), false));
    assert_false(check_query_text(STR("a b"), false) || check_query_text(STR("a#b"), false) || check_query_text(STR("a\n"), false) ||
                 check_query_text(STR("%20"), true));
}

// ---- configuration ----

static int service(const char *json, struct grpc_service *ret)
{
    ProtobufCMessage *m = NULL;
    if (pb_json_parse(str_c(json), &envoy__config__core__v3__grpc_service__descriptor, 0, &arena, &m, &err)) {
        fail_msg("%s", err.msg);
    }
    return grpc_service_parse((const void *)m, 200, &arena, ret, &err);
}

static void grpc_services(void **state)
{
    (void)state;
    struct grpc_service s;
    assert_int_equal(service("{\"envoy_grpc\":{\"cluster_name\":\"c\"}}", &s), 0);
    assert_true(str_is(s.cluster, "c") && s.timeout_ms == 200 && !s.retry && !s.metadata);
    assert_int_equal(service("{\"envoy_grpc\":{\"cluster_name\":\"c\",\"authority\":\"a\",\"max_receive_message_length\":9,\"retry_policy\":{\"num_retries\":3,"
                             "\"retry_on\":\"unavailable\",\"retry_back_off\":{\"base_interval\":\"0.1s\"}}},\"timeout\":\"0.0005s\","
                             "\"initial_metadata\":[{\"key\":\"X-A\",\"value\":\"b\"}]}", &s), 0);
    assert_true(s.timeout_ms == 1 && s.answer_max == 9 && s.retry->num_retries == 3 && s.retry->on == RETRY_GRPC_UNAVAILABLE);
    assert_true(s.retry->backoff_base_ms == 100 && s.retry->backoff_max_ms == 1000 && s.retry->per_try_timeout_ms == 1000);
    assert_true(str_is(headers_value(s.metadata, STR("x-a")), "b") && str_is(headers_first(s.metadata)->name, "x-a"));
    static const struct {
        const char *json, *want;
    } bad[] = {
        { "{}", "envoy_grpc.cluster_name: is missing" },
        { "{\"envoy_grpc\":{}}", "envoy_grpc.cluster_name: is missing" },
        { "{\"google_grpc\":{\"target_uri\":\"x\"}}", "google_grpc: is not supported; name a cluster with envoy_grpc" },
        { "{\"envoy_grpc\":{\"cluster_name\":\"c\",\"authority\":\"a b\"}}", "envoy_grpc.authority: must not have spaces or control characters" },
        { "{\"envoy_grpc\":{\"cluster_name\":\"c\"},\"initial_metadata\":[{\"key\":\"a b\"}]}", "initial_metadata[0].key: \"a b\" is no name of a field" },
        { "{\"envoy_grpc\":{\"cluster_name\":\"c\"},\"initial_metadata\":[{\"key\":\"a\",\"value\":\"b\\n\"}]}",
          "initial_metadata[0].value: must not have line ends or control characters" },
        { "{\"envoy_grpc\":{\"cluster_name\":\"c\"},\"initial_metadata\":[{\"key\":\"a\",\"value\":\"%REQ(b)%\"}]}",
          "initial_metadata[0].value: operators (%…%) are not supported here" },
        { "{\"envoy_grpc\":{\"cluster_name\":\"c\"},\"retry_policy\":{\"num_retries\":1000}}", "retry_policy.num_retries: at most 100" },
        { "{\"envoy_grpc\":{\"cluster_name\":\"c\"},\"retry_policy\":{\"retry_back_off\":{\"base_interval\":\"2s\",\"max_interval\":\"1s\"}}}",
          "retry_policy.retry_back_off: base_interval must be above 0, and max_interval not below it" },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        s.timeout_ms = 5;
        assert_true(service(bad[i].json, &s) < 0);
        assert_string_equal(err.msg, bad[i].want);
        assert_int_equal(s.timeout_ms, 5);
    }
}

static void metadata_of_exchanges(void **state)
{
    (void)state;
    const struct str spaces[] = { STR("absent"), STR("here"), STR("there") };
    struct stream_info info = { 0 };
    stream_info_metadata_text(&info, &arena, STR("here"), STR("k"), STR("v"));
    stream_info_metadata_text(&info, &arena, STR("other"), STR("k"), STR("v"));
    struct str bytes = check_metadata(&info, spaces, 3, &arena);
    struct metadata_value v = metadata_find(bytes, STR("here"), STR("k"));
    assert_true(v.kind == MV_TEXT && str_is(v.bytes, "v"));
    assert_int_equal(metadata_find(bytes, STR("other"), STR("k")).kind, MV_NONE);
    assert_true(str_eq(check_metadata_of(bytes, spaces, 3, &arena), bytes));
    assert_int_equal(check_metadata(&info, spaces, 1, &arena).n, 0);
}

static void labels_of_the_node(void **state)
{
    (void)state;
    ProtobufCMessage *m = NULL;
    const struct check_pair *v = NULL;
    assert_int_equal(node_labels_get("labels", &arena, &v), 0);
    assert_int_equal(pb_json_parse(STR("{\"metadata\":{\"labels\":{\"app\":\"shop\"},\"text\":\"x\"}}"), &envoy__config__core__v3__node__descriptor, 0,
                                   &arena, &m, &err), 0);
    node_labels_init((const void *)m);
    assert_int_equal(node_labels_get("labels", &arena, &v), 1);
    assert_true(str_is(v[0].key, "app") && str_is(v[0].value, "shop"));
    assert_int_equal(node_labels_get("text", &arena, &v), 0);
    assert_int_equal(node_labels_get("", &arena, &v), 0);
    node_labels_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(questions, setup, teardown),
        cmocka_unit_test_setup_teardown(questions_raw_and_about_connections, setup, teardown),
        cmocka_unit_test_setup_teardown(texts_become_utf8, setup, teardown),
        cmocka_unit_test_setup_teardown(answers, setup, teardown),
        cmocka_unit_test_setup_teardown(actions_by_direction, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_that_are_none, setup, teardown),
        cmocka_unit_test_setup_teardown(queries, setup, teardown),
        cmocka_unit_test_setup_teardown(grpc_services, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata_of_exchanges, setup, teardown),
        cmocka_unit_test_setup_teardown(labels_of_the_node, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
