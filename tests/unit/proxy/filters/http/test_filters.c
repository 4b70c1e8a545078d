// SPDX-License-Identifier: Apache-2.0
// The chain's stopping and going on, and each filter with its configuration parsed from JSON.
#include "envoy/extensions/filters/http/cors/v3/cors.pb-c.h"
#include "envoy/extensions/filters/http/fault/v3/fault.pb-c.h"
#include "envoy/extensions/filters/http/router/v3/router.pb-c.h"
#include "io/istio/http/peer_metadata/config.pb-c.h"
#include "istio/envoy/config/filter/http/alpn/v2alpha1/config.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/filters/http/registry.h"
#include "tests/unit/proxy/filters/http/mesh.h"

static struct mesh m;
static struct err err;
static struct http_filter *held; // by the test's filter

static int setup(void **state)
{
    (void)state;
    mesh_init(&m);
    held = NULL;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mesh_fini(&m);
    return 0;
}

// A filter in front of the router.
static void front(const struct http_filter_ops *ops, const void *cfg)
{
    struct http_chain *h = &m.hcm->chain;
    memmove(h->filters + 1, h->filters, h->count * sizeof(*h->filters));
    h->filters[0] = (struct ext){ .ops = &ops->ext, .cfg = cfg, .name = str_c(ops->ext.name) };
    h->count++;
}

static int parse(int (*fn)(struct config_ctx *, const void *, struct arena *, void **, struct err *), const ProtobufCMessageDescriptor *d,
                 const char *json, void **ret)
{
    ProtobufCMessage *msg;
    if (pb_json_parse(str_c(json), d, 0, &m.l->arena, &msg, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return fn(NULL, msg, &m.l->arena, ret, &err);
}

static void per_route(const struct http_filter_ops *ops, void *cfg)
{
    m.route->per_filter = arena_array(&m.table->arena, struct ext, 1);
    m.route->per_filter[0] = (struct ext){ .ops = &ops->ext, .cfg = cfg, .name = str_c(ops->ext.name) };
    m.route->per_filter_count = 1;
}

#define OK_RESPONSE "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

// ---- the chain ----

static enum http_filter_status hold_request(struct http_filter *f, struct http_request *req)
{
    held = f;
    headers_add(&req->headers, STR("x-held"), STR("yes"));
    return HF_STOP;
}
static const struct http_filter_ops holder = { .ext = { .name = "holder" }, .on_request = hold_request };

static void a_held_request_goes_on_with_its_body(void **state)
{
    (void)state;
    front(&holder, NULL);
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\nt: 1\r\n\r\n");
    world_turns(&m.x, 4);
    assert_non_null(held);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL), 0);
    stream_continue_request(held->stream, held);
    int u = world_accept(&m.x, m.listen_fd[0]);
    const char *got = mesh_until(&m, u, "t: 1\r\n\r\n");
    assert_non_null(strstr(got, "x-held: yes\r\n"));
    assert_non_null(strstr(got, "6\r\nabcdef\r\n0\r\nt: 1\r\n\r\n"));
    world_send(u, OK_RESPONSE);
    mesh_expect(&m, c, "\r\n\r\nok");
    close(c);
    close(u);
}

static void a_held_body_is_bounded(void **state)
{
    (void)state;
    front(&holder, NULL);
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n");
    static char block[65536];
    size_t total = 0;
    for (int quiet = 0; quiet < 20; quiet++) {
        ssize_t n = send(c, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            total += (size_t)n;
            quiet = 0;
        }
        world_turns(&m.x, 1);
    }
    assert_true(total < 8u << 20);
    assert_true(held->stream->held.len <= 2 * STREAM_HELD_MAX + CONN_READ_BUDGET);
    close(c);
}

static void a_client_may_leave_while_held(void **state)
{
    (void)state;
    front(&holder, NULL);
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    world_turns(&m.x, 3);
    assert_non_null(held);
    close(c);
    world_turns(&m.x, 3);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_RQ_ACTIVE), 0);
}

struct gather {
    size_t seen;
};
static enum http_filter_status gather_request(struct http_filter *f, struct http_request *req)
{
    (void)f;
    return req->end_stream ? HF_CONTINUE : HF_STOP;
}
static enum http_filter_status gather_data(struct http_filter *f, struct buf *data, bool end)
{
    struct gather *g = f->state;
    g->seen += data->len;
    return end ? HF_CONTINUE : HF_STOP;
}
static const struct http_filter_ops gatherer = { .ext = { .name = "gatherer" }, .state_size = sizeof(struct gather),
                                                 .on_request = gather_request, .on_request_data = gather_data };

static void two_filters_that_wait_for_the_whole_body(void **state)
{
    (void)state;
    front(&gatherer, NULL);
    front(&gatherer, NULL);
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    world_turns(&m.x, 4);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL), 0);
    world_send(c, "def");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "\r\n\r\nabcdef");
    world_send(u, OK_RESPONSE);
    mesh_expect(&m, c, "\r\n\r\nok");
    close(c);
    close(u);
}

// ---- filters ----

static void cors(void **state)
{
    (void)state;
    void *p;
    assert_int_equal(parse(http_filter_cors.route_config_parse, &envoy__extensions__filters__http__cors__v3__cors_policy__descriptor,
                           "{\"allow_origin_string_match\":[{\"exact\":\"http://a\"},{\"safe_regex\":{\"regex\":\"http://[x-z]\"}}],"
                           "\"allow_methods\":\"GET\",\"max_age\":\"60\",\"allow_credentials\":true,\"expose_headers\":\"e\","
                           "\"forward_not_matching_preflights\":false}", &p), 0);
    front(&http_filter_cors, NULL);
    per_route(&http_filter_cors, p);
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "OPTIONS / HTTP/1.1\r\nHost: h\r\nOrigin: http://y\r\nAccess-Control-Request-Method: GET\r\n\r\n");
    const char *got = mesh_until(&m, c, "\r\n\r\n");
    assert_non_null(strstr(got, "HTTP/1.1 200 OK"));
    assert_non_null(strstr(got, "access-control-allow-origin: http://y\r\n"));
    assert_non_null(strstr(got, "access-control-allow-methods: GET\r\n"));
    assert_non_null(strstr(got, "access-control-allow-credentials: true\r\n"));
    assert_non_null(strstr(got, "access-control-max-age: 60\r\n"));
    world_send(c, "OPTIONS / HTTP/1.1\r\nHost: h\r\nOrigin: http://evil\r\nAccess-Control-Request-Method: GET\r\n\r\n");
    got = mesh_until(&m, c, "\r\n\r\n");
    assert_non_null(strstr(got, "HTTP/1.1 200 OK"));
    assert_null(strstr(got, "access-control"));
    world_send(c, "GET / HTTP/1.1\r\nHost: h\r\nOrigin: http://a\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "\r\n\r\n");
    world_send(u, OK_RESPONSE);
    got = mesh_until(&m, c, "\r\n\r\nok");
    assert_non_null(strstr(got, "access-control-allow-origin: http://a\r\n"));
    assert_non_null(strstr(got, "access-control-expose-headers: e\r\n"));
    world_send(c, "GET / HTTP/1.1\r\nHost: h\r\nOrigin: http://evil\r\n\r\n");
    mesh_expect(&m, u, "\r\n\r\n");
    world_send(u, OK_RESPONSE);
    got = mesh_until(&m, c, "\r\n\r\nok");
    assert_null(strstr(got, "access-control"));
    close(c);
    close(u);
}

static void *fault(const char *json)
{
    void *p = NULL;
    if (parse(http_filter_fault.route_config_parse, &envoy__extensions__filters__http__fault__v3__httpfault__descriptor, json, &p) < 0) {
        return NULL;
    }
    return p;
}

static void faults(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    m.vhost->route_count = 2;
    m.vhost->routes[1] = m.vhost->routes[0];
    m.vhost->routes[0].path = STR("/abort");
    per_route(&http_filter_fault, fault("{\"abort\":{\"http_status\":418,\"percentage\":{\"numerator\":100}},"
                                        "\"headers\":[{\"name\":\"who\",\"string_match\":{\"exact\":\"me\"}}]}"));
    front(&http_filter_fault, fault("{\"delay\":{\"fixed_delay\":\"0.02s\",\"percentage\":{\"numerator\":100}},"
                                    "\"abort\":{\"grpc_status\":14,\"percentage\":{\"numerator\":1000000,\"denominator\":\"MILLION\"}}}"));
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /abort HTTP/1.1\r\nHost: h\r\nwho: me\r\n\r\n");
    mesh_expect(&m, c, "HTTP/1.1 418 ");
    world_send(c, "GET /abort HTTP/1.1\r\nHost: h\r\nwho: you\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "\r\n\r\n");
    world_send(u, OK_RESPONSE);
    mesh_expect(&m, c, "\r\n\r\nok");
    uint64_t before = loop_now_ms(m.x.w.loop);
    world_send(c, "GET /delay HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, c, "fault filter abort"); // no gRPC client: plain
    assert_true(loop_now_ms(m.x.w.loop) - before >= 19);
    world_send(c, "POST /delay HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc+proto\r\nContent-Length: 0\r\n\r\n");
    mesh_expect(&m, c, "grpc-status: 14\r\n");
    close(c);
    close(u);
    world_turns(&m.x, 3);
    assert_string_equal(mesh_logged(&m), "418 FI fault_filter_abort\n200 - via_upstream\n200 DI,FI fault_filter_abort\n"
                                         "200 DI,FI fault_filter_abort\n");
    assert_null(fault("{\"response_rate_limit\":{\"fixed_limit\":{\"limit_kbps\":1}}}"));
    assert_null(fault("{\"abort\":{\"http_status\":100}}"));
    assert_null(fault("{\"delay\":{}}"));
}

static void faults_end_with_the_client(void **state)
{
    (void)state;
    front(&http_filter_fault, fault("{\"delay\":{\"fixed_delay\":\"0.01s\",\"percentage\":{\"numerator\":100}}}"));
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /delay HTTP/1.1\r\nHost: h\r\n\r\n");
    world_turns(&m.x, 2);
    close(c);
    world_turns(&m.x, 30);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL), 0);
}

static void peer_metadata_does_not_reach_the_application(void **state)
{
    (void)state;
    void *p;
    assert_int_equal(parse(http_filter_metadata_exchange.ext.config_parse, &io__istio__http__peer_metadata__config__descriptor,
                           "{\"downstream_discovery\":[{\"istio_headers\":{}}],\"upstream_discovery\":[{\"istio_headers\":{}}]}", &p), 0);
    front(&http_filter_metadata_exchange, p);
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET / HTTP/1.1\r\nHost: h\r\nx-envoy-peer-metadata: abc\r\nX-Envoy-Peer-Metadata-Id: i\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    const char *got = mesh_until(&m, u, "\r\n\r\n");
    assert_null(strcasestr(got, "peer-metadata"));
    world_send(u, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-envoy-peer-metadata: d\r\n\r\nok");
    got = mesh_until(&m, c, "\r\n\r\nok");
    assert_null(strcasestr(got, "peer-metadata"));
    close(c);
    close(u);
}

static void alpn_for_http11(void **state)
{
    (void)state;
    void *p;
    assert_int_equal(parse(http_filter_alpn.ext.config_parse, &istio__envoy__config__filter__http__alpn__v2alpha1__filter_config__descriptor,
                           "{\"alpn_override\":[{\"alpn_override\":[\"old\"]},{\"upstream_protocol\":\"HTTP11\",\"alpn_override\":"
                           "[\"istio-http/1.1\",\"istio\"]},{\"upstream_protocol\":\"HTTP2\",\"alpn_override\":[\"x\"]}]}", &p), 0);
    front(&holder, NULL);
    front(&http_filter_alpn, p);
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    world_turns(&m.x, 3);
    assert_non_null(held);
    assert_int_equal(held->stream->alpn_override_count, 2);
    assert_true(str_is(held->stream->alpn_override[0], "istio-http/1.1"));
    close(c);
}

static void what_would_not_be_enforced_is_refused(void **state)
{
    (void)state;
    void *p;
    const ProtobufCMessageDescriptor *router = &envoy__extensions__filters__http__router__v3__router__descriptor;
    assert_int_equal(parse(http_filter_router.ext.config_parse, router, "{\"suppress_envoy_headers\":true}", &p), 0);
    assert_true(((struct router_cfg *)p)->suppress_envoy_headers);
    assert_true(parse(http_filter_router.ext.config_parse, router, "{\"strict_check_headers\":[\"x\"]}", &p) < 0);
    assert_ptr_equal(http_filter_find(STR("any"), STR("stats.PluginConfig")), &http_filter_istio_stats);
    assert_ptr_equal(http_filter_find(STR("envoy.filters.http.router"), STR("")), &http_filter_router);
    assert_null(http_filter_find(STR("envoy.filters.http.lua"), STR("envoy.extensions.filters.http.lua.v3.Lua")));
    assert_null(http_filter_find(STR("envoy.filters.http.router"), STR("envoy.extensions.filters.http.wasm.v3.Wasm")));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_held_request_goes_on_with_its_body), T(a_held_body_is_bounded), T(a_client_may_leave_while_held),
        T(two_filters_that_wait_for_the_whole_body), T(cors), T(faults), T(faults_end_with_the_client),
        T(peer_metadata_does_not_reach_the_application), T(alpn_for_http11), T(what_would_not_be_enforced_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
