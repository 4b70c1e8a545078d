// SPDX-License-Identifier: Apache-2.0
// The ADS source over a real gRPC stream on loopback: the control plane answers, goes away, answers garbage, comes back.
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/event/loop.h"
#include "lib/grpc/grpc.h"
#include "tests/unit/xds-client/helpers.h"

enum { REQUESTS_MAX = 32, PATIENCE_MS = 20000 };

struct fixture {
    struct loop *loop;
    struct xds_client *c;
    struct log_sink sink;
    struct arena a;
    struct grpc_srv *srv;
    struct grpc_call *call; // the open stream
    int port, calls;
    struct str requests[REQUESTS_MAX]; // of all streams
    size_t n_requests, n_read;
    char extra[64];
};

static bool on_call(struct grpc_srv *s, struct grpc_call *c, const struct grpc_call_info *info)
{
    struct fixture *f = grpc_srv_owner(s);
    if (!str_is(info->method, "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")) {
        return false;
    }
    f->calls++;
    f->call = c;
    f->extra[0] = '\0';
    for (size_t i = 0; i < info->md_count; i++) {
        if (str_is(info->md[i].key, "x-extra")) {
            snprintf(f->extra, sizeof(f->extra), "%.*s", STR_FMT(info->md[i].value));
        }
    }
    grpc_call_set_owner(c, f);
    return true;
}

static void on_message(struct grpc_call *c, struct str bytes)
{
    struct fixture *f = grpc_call_owner(c);
    assert_true(f->n_requests < REQUESTS_MAX);
    f->requests[f->n_requests++] = arena_str(&f->a, bytes);
}

static void on_half_close(struct grpc_call *c)
{
    grpc_call_finish(c, 0, "");
}

static void on_end(struct grpc_call *c)
{
    struct fixture *f = grpc_call_owner(c);
    if (f->call == c) {
        f->call = NULL;
    }
}

static const struct grpc_srv_ops srv_ops = {
    .on_call = on_call, .on_message = on_message, .on_half_close = on_half_close, .on_end = on_end
};

static void serve(struct fixture *f)
{
    struct err err = { 0 };
    struct grpc_srv_opts o = { 0 };
    char addr[32];
    f->srv = grpc_srv_new(f->loop, &srv_ops, f, &err);
    assert_non_null(f->srv);
    snprintf(addr, sizeof(addr), "127.0.0.1:%d", f->port);
    int port = grpc_srv_listen(f->srv, addr, &o, &err);
    if (port <= 0) {
        fail_msg("%s: %s", addr, err.msg);
    }
    f->port = port;
    grpc_srv_start(f->srv);
}

static void stop_serving(struct fixture *f)
{
    grpc_srv_free(f->srv);
    f->srv = NULL;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = { 0 };
    struct xds_node node = { .serialized = STR("\x0a\x02me") };
    log_set_level(-1, LOG_OFF);
    f->loop = loop_new(&err);
    serve(f);
    f->c = xds_client_new(f->loop, &node, log_sink_fn, &f->sink);
    char target[32];
    struct str headers[][2] = { { STR("X-Extra"), STR("yes") } };
    snprintf(target, sizeof(target), "127.0.0.1:%d", f->port);
    struct xds_ads_opts o = { .target = str_c(target),
                              .delta = true,
                              .backoff_base_ms = 20,
                              .backoff_max_ms = 100,
                              .headers = (const struct str(*)[2])headers,
                              .header_count = 1 };
    assert_int_equal(xds_add_ads(f->c, &o, &err), 0);
    xds_subscribe(f->c, XDS_CLUSTER, NULL, 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    xds_client_free(f->c);
    grpc_srv_free(f->srv);
    loop_free(f->loop);
    arena_fini(&f->a);
    free(f);
    return 0;
}

// Turns the loop until the condition holds.
#define UNTIL(f, cond)                                                                                                                     \
    do {                                                                                                                                   \
        uint64_t end = clock_mono_ms() + PATIENCE_MS;                                                                                      \
        while (!(cond)) {                                                                                                                  \
            loop_turn((f)->loop, 20);                                                                                                      \
            if (clock_mono_ms() > end) {                                                                                                   \
                fail_msg("gave up waiting for: " #cond);                                                                                   \
            }                                                                                                                              \
        }                                                                                                                                  \
    } while (0)

static delta_request *next(struct fixture *f)
{
    UNTIL(f, f->n_read < f->n_requests);
    return read_delta(&f->a, f->requests[f->n_read++]);
}

static void answer(struct fixture *f, const char *nonce, const char *body)
{
    struct res r[] = { { .name = "a", .body = body, .version = "7" } };
    assert_int_equal(grpc_call_send(f->call, delta_response(&f->a, XDS_CLUSTER, nonce, r, 1, NULL, 0)), 0);
}

static struct xds_ads_status status(struct fixture *f)
{
    struct xds_ads_status s;
    xds_ads_state(f->c, &s);
    return s;
}

static void subscribes_and_acks(void **state)
{
    struct fixture *f = *state;
    delta_request *q = next(f);
    assert_string_equal(q->node->id, "me");
    assert_string_equal(q->type_url, xds_type_url(XDS_CLUSTER).p);
    assert_string_equal(f->extra, "yes");
    answer(f, "n1", "x");
    assert_string_equal(next(f)->response_nonce, "n1");
    assert_string_equal(f->sink.text, "+a");
    assert_true(status(f).connected);
}

static void control_plane_goes_and_comes_back(void **state)
{
    struct fixture *f = *state;
    next(f);
    answer(f, "n1", "x");
    next(f);
    stop_serving(f);
    UNTIL(f, !status(f).connected);
    assert_int_equal(status(f).disconnects, 1);
    assert_non_null(xds_find(f->c, XDS_CLUSTER, STR("a")));
    struct xds_type_status st;
    do { // refused connections are tried again
        loop_turn(f->loop, 20);
        xds_status(f->c, XDS_CLUSTER, &st);
    } while (st.failures < 3);
    serve(f);
    delta_request *q = next(f);
    assert_string_equal(q->node->id, "me");
    assert_int_equal(q->n_initial_resource_versions, 1);
    assert_string_equal(q->initial_resource_versions[0]->key, "a");
    assert_string_equal(q->initial_resource_versions[0]->value, "7");
    log_sink_clear(&f->sink);
    answer(f, "n2", "x");
    assert_string_equal(next(f)->response_nonce, "n2");
    assert_int_equal(f->sink.calls, 0);
    assert_int_equal(status(f).connects, 2);
}

static void stream_ended_by_the_server_is_opened_again(void **state)
{
    struct fixture *f = *state;
    next(f);
    answer(f, "n1", "x");
    next(f);
    grpc_call_finish(f->call, 8, "too many connections");
    UNTIL(f, f->calls == 2);
    assert_string_equal(status(f).last_error.p, "too many connections");
    assert_int_equal(next(f)->n_initial_resource_versions, 1);
}

static void garbage_is_survived(void **state)
{
    struct fixture *f = *state;
    next(f);
    answer(f, "n1", "x");
    next(f);
    assert_int_equal(grpc_call_send(f->call, STR("\xff\xff\xff\xff what is this")), 0);
    UNTIL(f, f->calls == 2);
    assert_non_null(strstr(status(f).last_error.p, "not a discovery response"));
    assert_string_equal(next(f)->response_nonce, "");
    answer(f, "n2", "y");
    assert_string_equal(next(f)->response_nonce, "n2");
    assert_string_equal(f->sink.text, "+a +a");
}

static int shut_down(void **state)
{
    (void)state;
    grpc_fence_shutdown();
    return 0;
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

#ifdef __SANITIZE_THREAD__
// As in tests/unit/lib/grpc/test_grpc.c: gRPC core is not instrumented, so its own threads look like races. The tests still run.
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "report_bugs=0";
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(subscribes_and_acks),
        T(control_plane_goes_and_comes_back),
        T(stream_ended_by_the_server_is_opened_again),
        T(garbage_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, shut_down);
}
