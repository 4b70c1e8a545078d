// SPDX-License-Identifier: Apache-2.0
// ext_authz: which configurations are taken, and what the filter does between a client, an authorization server over HTTP and a backend that the
// test plays itself. What real servers answer stands in tests/parity and tests/integration.
#include "envoy/extensions/filters/http/ext_authz/v3/ext_authz.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/filters/http/ext_authz.h"
#include "proxy/filters/http/registry.h"
#include "tests/unit/proxy/filters/http/mesh.h"

static struct mesh m;
static struct err err;

static int setup(void **state)
{
    (void)state;
    side_call_worker_init();
    mesh_init(&m);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mesh_fini(&m);
    return 0;
}

static int parse(const char *json, const struct authz_cfg **ret)
{
    ProtobufCMessage *msg;
    void *cfg = NULL;
    if (pb_json_parse(str_c(json), &envoy__extensions__filters__http__ext_authz__v3__ext_authz__descriptor, 0, &m.l->arena, &msg, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    int rc = ext_authz_parse(NULL, msg, &m.l->arena, &cfg, &err);
    *ret = cfg;
    return rc;
}

#define GRPC "\"transport_api_version\":\"V3\",\"grpc_service\":{\"envoy_grpc\":{\"cluster_name\":\"c\"}}"
#define HTTP "\"http_service\":{\"server_uri\":{\"uri\":\"x\",\"cluster\":\"up\",\"timeout\":\"20s\"}}"

static void taken(void **state)
{
    (void)state;
    const struct authz_cfg *c;
    assert_int_equal(parse("{" GRPC "}", &c), 0);
    assert_true(!c->server.http && c->server.grpc.timeout_ms == 200 && c->status_on_error == 403 && c->charge_cluster && c->take_metadata);
    assert_true(str_is(c->stat_suffix, "ext_authz") && !c->has_body && !c->enabled_metadata && !c->allowed.set);
    assert_int_equal(parse("{" HTTP ",\"status_on_error\":{\"code\":100}}", &c), 0); // no answer at all
    assert_int_equal(c->status_on_error, 403);
    assert_int_equal(parse("{" HTTP ",\"stat_prefix\":\"waf\",\"status_on_error\":{\"code\":503},\"with_request_body\":{\"max_request_bytes\":9},"
                           "\"charge_cluster_response_stats\":false,\"enable_dynamic_metadata_ingestion\":false,\"allowed_headers\":{\"patterns\":[{\"exact\":\"a\"}]}}",
                           &c), 0);
    assert_true(c->server.http && c->server.timeout_ms == 20000 && c->status_on_error == 503 && c->body.max == 9 && c->body.as_bytes);
    assert_true(str_is(c->stat_suffix, "ext_authz.waf") && !c->charge_cluster && !c->take_metadata);
    assert_true(authz_names_match(&c->allowed, STR("a")) && !authz_names_match(&c->allowed, STR("b")));
}

static void refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *json, *want;
    } cases[] = {
        { "{}", "services: one of grpc_service and http_service is needed" },
        { "{\"grpc_service\":{\"envoy_grpc\":{\"cluster_name\":\"c\"}}}", "transport_api_version: must be V3" },
        { "{\"transport_api_version\":\"V3\",\"grpc_service\":{\"google_grpc\":{\"target_uri\":\"x\"}}}",
          "grpc_service: google_grpc: is not supported; name a cluster with envoy_grpc" },
        { "{\"http_service\":{}}", "http_service: server_uri.cluster: is missing" },
        { "{\"http_service\":{\"server_uri\":{\"cluster\":\"c\"},\"path_prefix\":\"x\"}}",
          "http_service: path_prefix: must begin with \"/\" and be fit for a request line" },
        { "{" GRPC ",\"with_request_body\":{}}", "with_request_body.max_request_bytes: must be above 0" },
        { "{" GRPC ",\"shadow_mode\":true}", "shadow_mode: is not supported" },
        { "{" GRPC ",\"emit_filter_state_stats\":true}", "emit_filter_state_stats: is not supported" },
        { "{" GRPC ",\"filter_metadata\":{}}", "filter_metadata: is not supported" },
        { "{" GRPC ",\"enforce_response_header_limits\":true}", "enforce_response_header_limits: is not supported" },
        { "{" GRPC ",\"clear_route_cache_headers\":[\"x\"]}", "clear_route_cache_headers: is not supported" },
        { "{" GRPC ",\"typed_metadata_context_namespaces\":[\"x\"]}", "typed_metadata_context_namespaces: is not supported" },
        { "{" GRPC ",\"filter_enabled_metadata\":{\"filter\":\"f\",\"path\":[{\"key\":\"k\"}]}}", "filter_enabled_metadata: value: is missing" },
        { "{" GRPC ",\"allowed_headers\":{\"patterns\":[{\"prefix\":\"\"}]}}",
          "allowed_headers.patterns[0]: match_pattern: prefix, suffix and contains must not be empty" },
        { "{\"allowed_headers\":{},\"http_service\":{\"server_uri\":{\"cluster\":\"c\"},\"authorization_request\":{\"allowed_headers\":{}}}}",
          "allowed_headers: is said by http_service.authorization_request too" },
        { "{\"http_service\":{\"server_uri\":{\"cluster\":\"c\"},\"authorization_request\":{\"headers_to_add\":[{\"key\":\"a b\",\"value\":\"c\"}]}}}",
          "http_service: authorization_request: headers_to_add[0].header.key: \"a b\" is no name of a field" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct authz_cfg *c = NULL;
        assert_true(parse(cases[i].json, &c) < 0);
        assert_string_equal(err.msg, cases[i].want);
        assert_null(c);
    }
}

static void routes(void **state)
{
    (void)state;
    static const struct {
        const char *json, *want;
    } cases[] = {
        { "{}", "override: one of disabled and check_settings is needed" },
        { "{\"disabled\":false}", "disabled: must be true" },
        { "{\"disabled\":true}", NULL },
        { "{\"check_settings\":{\"context_extensions\":{\"a\":\"b\"}}}", NULL },
        { "{\"check_settings\":{\"disable_request_body_buffering\":true,\"with_request_body\":{\"max_request_bytes\":1}}}",
          "check_settings: with_request_body: contradicts disable_request_body_buffering" },
        { "{\"check_settings\":{\"grpc_service\":{}}}", "check_settings: grpc_service: envoy_grpc.cluster_name: is missing" },
        { "{\"check_settings\":{\"http_service\":{}}}", "check_settings: http_service: server_uri.cluster: is missing" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ProtobufCMessage *msg;
        void *cfg;
        assert_int_equal(pb_json_parse(str_c(cases[i].json), &envoy__extensions__filters__http__ext_authz__v3__ext_authz_per_route__descriptor, 0,
                                       &m.l->arena, &msg, &err), 0);
        int rc = ext_authz_parse_route(NULL, msg, &m.l->arena, &cfg, &err);
        assert_int_equal(rc < 0, cases[i].want != NULL);
        if (cases[i].want) {
            assert_string_equal(err.msg, cases[i].want);
        }
    }
}

// ---- what an answer may make of messages ----

static void fields_that_cannot_stand(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
        bool ok;
    } cases[] = {
        { "x", "v", true }, { "x", "", true }, { "x", "a\tb", true }, { "x", "a\nb", false }, { "x", "a\rb", false }, { "x y", "v", false },
        { "", "v", false }, { "x:", "v", false }, { ":path", "/x", true }, { ":path", "x", false }, { ":path", "/a b", false }, { ":path", "", false },
        { "host", "h:1", true }, { "host", "", false }, { "host", "a b", false }, { ":authority", "a/b", false }, { ":method", "PUT", true },
        { ":method", "CONNECT", false }, { ":method", "A B", false }, { ":scheme", "https", true }, { ":scheme", "ftp", false },
        { "content-length", "x\n", true }, { ":unknown", "\n", true }, // which change nothing
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct check_header h = { str_c(cases[i].name), str_c(cases[i].value), CHECK_ADD };
        assert_int_equal(authz_headers_ok(&h, 1), cases[i].ok);
    }
}

static void changes_by_action(void **state)
{
    (void)state;
    struct arena *a = &m.l->arena;
    struct http_request req = { .method = STR("GET"), .path = STR("/"), .host = STR("h"), .scheme = STR("http") };
    struct headers answer;
    headers_init(&req.headers, a);
    headers_init(&answer, a);
    headers_add(&req.headers, STR("x"), STR("1"));
    headers_add(&answer, STR("x"), STR("1"));
    const struct check_header v[] = {
        { STR("x"), STR("2"), CHECK_JOIN },           { STR("none"), STR("2"), CHECK_JOIN },          { STR("x"), STR(" 3 "), CHECK_OVERWRITE_OR_ADD },
        { STR(":path"), STR("/n"), CHECK_OVERWRITE_OR_ADD }, { STR("host"), STR("n"), CHECK_OVERWRITE_OR_ADD }, { STR(":method"), STR("PUT"), CHECK_JOIN },
        { STR("content-length"), STR("5"), CHECK_OVERWRITE_OR_ADD }, { STR("te"), STR("x"), CHECK_ADD }, { STR("connection"), STR("x"), CHECK_ADD },
    };
    authz_headers_apply(v, sizeof(v) / sizeof(v[0]), &req.headers, &req);
    assert_true(str_is(headers_joined(&req.headers, STR("x"), NULL), "3,2")); // sets, then joins
    assert_true(str_is(req.path, "/n") && str_is(req.host, "n") && str_is(req.method, "GET"));
    assert_null(headers_get(&req.headers, STR("none")));
    assert_null(headers_get(&req.headers, STR("content-length")));
    assert_null(headers_get(&req.headers, STR("te")));
    assert_null(headers_get(&req.headers, STR("connection")));
    const struct check_header w[] = {
        { STR("y"), STR("1"), CHECK_OVERWRITE }, { STR("y"), STR("2"), CHECK_ADD_IF_ABSENT }, { STR("y"), STR("3"), CHECK_ADD },
        { STR("x"), STR("4"), CHECK_ADD },       { STR("x"), STR("5"), CHECK_OVERWRITE_OR_ADD }, { STR(":path"), STR("/n"), CHECK_ADD },
    };
    authz_headers_apply(w, sizeof(w) / sizeof(w[0]), &answer, NULL);
    assert_true(str_is(headers_joined(&answer, STR("x"), NULL), "5")); // added, then set
    assert_true(str_is(headers_joined(&answer, STR("y"), NULL), "1")); // added, then overwritten
    req.path = STR("");
    authz_headers_apply(&v[3], 1, &req.headers, &req);
    assert_int_equal(req.path.n, 0); // CONNECT
}

// ---- the filter ----

static void front(const char *json)
{
    const struct authz_cfg *c;
    struct http_chain *h = &m.hcm->chain;
    assert_int_equal(parse(json, &c), 0);
    memmove(h->filters + 1, h->filters, h->count * sizeof(*h->filters));
    h->filters[0] = (struct ext){ .ops = &http_filter_ext_authz.ext, .cfg = c, .name = STR("envoy.filters.http.ext_authz") };
    h->count++;
}

// The authorization server and the backend are one and the same here: cluster "up".
static int first_request(const char *line)
{
    char text[64];
    int fd = world_accept(&m.x, m.listen_fd[0]);
    assert_int_equal(world_read(&m.x, fd, text, strlen(line)), strlen(line));
    assert_memory_equal(text, line, strlen(line));
    return fd;
}

static void a_request_waits_and_goes_on(void **state)
{
    (void)state;
    front("{" HTTP "}");
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    int u = first_request("POST /x HTTP/1.1\r\nhost: h\r\n");
    world_turns(&m.x, 10);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL), 1); // the question alone
    world_send(u, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    world_turn_until(&m.x, mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL) == 2);
    assert_int_equal(world_stat(&m.x, STAT_HTTP_AUTHZ, "hcm.ext_authz", STAT_ID_HTTP_AUTHZ_OK), 1);
    close(c);
    close(u);
    world_turns(&m.x, 5);
}

static void a_client_that_leaves_ends_the_question(void **state)
{
    (void)state;
    front("{" HTTP "}");
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = first_request("GET /x HTTP/1.1\r\n");
    close(c);
    world_turn_until(&m.x, mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE) == 0);
    assert_int_equal(world_stat(&m.x, STAT_HTTP_AUTHZ, "hcm.ext_authz", STAT_ID_HTTP_AUTHZ_OK), 0);
    assert_int_equal(world_stat(&m.x, STAT_HTTP_AUTHZ, "hcm.ext_authz", STAT_ID_HTTP_AUTHZ_ERROR), 0);
    close(u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(taken, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(routes, setup, teardown),
        cmocka_unit_test_setup_teardown(fields_that_cannot_stand, setup, teardown),
        cmocka_unit_test_setup_teardown(changes_by_action, setup, teardown),
        cmocka_unit_test_setup_teardown(a_request_waits_and_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_that_leaves_ends_the_question, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
