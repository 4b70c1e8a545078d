// SPDX-License-Identifier: Apache-2.0
// Requests of our own: what the server sees, each way in which they end, and that nothing is left behind.
#include "tests/unit/proxy/world.h"

#include "proxy/router/side_call.h"

static struct world x;
static int fd, conn; // of the server: listening, accepted
static struct snapshot *old;
static struct stats_store *store;

static struct { // what done was told
    int calls, status, grpc;
    enum side_failure failure;
    char body[256], text[128], reason[128], trailer[32];
} got;

static int setup(void **state)
{
    (void)state;
    struct addr a, dead = world_dead_port();
    world_init(&x);
    store = x.stats;
    side_call_worker_init();
    fd = world_listen(&a);
    struct snapshot *s = snapshot_clone(NULL);
    const struct lb_endpoint_cfg up = world_endpoint(a), gone = world_endpoint(dead);
    world_cluster_put(s, world_cluster("authz", LB_ROUND_ROBIN), NULL, &up, 1);
    world_cluster_put(s, world_cluster("dead", LB_ROUND_ROBIN), NULL, &gone, 1);
    world_cluster_put(s, world_cluster("empty", LB_ROUND_ROBIN), NULL, NULL, 0);
    old = world_swap(&x, s);
    memset(&got, 0, sizeof(got));
    conn = -1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    side_call_worker_fini();
    snapshot_unref(old);
    if (conn >= 0) {
        close(conn);
    }
    close(fd);
    world_fini(&x);
    return 0;
}

static void keep(char *to, size_t size, struct str s)
{
    size_t n = s.n < size - 1 ? s.n : size - 1;
    memcpy(to, s.p ? s.p : "", n);
    to[n] = '\0';
}

static void done(void *owner, const struct side_answer *a)
{
    assert_ptr_equal(owner, &got);
    got.calls++;
    got.failure = a->failure;
    got.status = a->status;
    keep(got.body, sizeof(got.body), a->body);
    keep(got.reason, sizeof(got.reason), str_c(a->reason));
    assert_non_null(a->headers);
    if (a->trailers) {
        keep(got.trailer, sizeof(got.trailer), headers_value(a->trailers, STR("x-end")));
    }
}

static struct side_request request(void)
{
    return (struct side_request){ .cluster = STR("authz"), .method = STR("GET"), .path = STR("/check/a"), .host = STR("shop"), .timeout_ms = 20000,
                                  .done = done, .owner = &got };
}

// The request's head, as far as it came in one piece.
static char *served(void)
{
    static char text[2048];
    conn = world_accept(&x, fd);
    size_t n = 0;
    for (int i = 0; i < 3000 && n < sizeof(text) - 1; i++) {
        ssize_t k = recv(conn, text + n, sizeof(text) - 1 - n, MSG_DONTWAIT);
        n += k > 0 ? (size_t)k : 0;
        text[n] = '\0';
        if (strstr(text, "\r\n\r\n")) {
            break;
        }
        loop_turn(x.w.loop, 1);
    }
    return text;
}

static void answered_in_one_callback(void **state)
{
    (void)state;
    struct arena a;
    struct headers h;
    arena_init(&a, 0, 0);
    headers_init(&h, &a);
    headers_add(&h, STR("x-id"), STR("7"));
    struct side_request q = request();
    q.headers = &h;
    assert_non_null(side_call_start(&x.w, &q));
    arena_fini(&a); // all was copied
    assert_string_equal(served(), "GET /check/a HTTP/1.1\r\nhost: shop\r\nx-id: 7\r\nx-envoy-internal: true\r\n"
                                  "x-envoy-expected-rq-timeout-ms: 20000\r\n\r\n");
    world_send(conn, "HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n2\r\nno\r\n");
    world_turns(&x, 20);
    assert_int_equal(got.calls, 0); // half an answer is none
    world_send(conn, "4\r\n way\r\n0\r\nx-end: yes\r\n\r\n");
    world_turn_until(&x, got.calls);
    assert_int_equal(got.failure, SIDE_OK);
    assert_int_equal(got.status, 403);
    assert_string_equal(got.body, "no way");
    assert_string_equal(got.trailer, "yes");
    assert_int_equal(world_stat(&x, STAT_CLUSTER, "authz", STAT_ID_CLUSTER_UPSTREAM_RQ_COMPLETED), 1);
}

static void bodies_are_sent_whole(void **state)
{
    (void)state;
    struct buf body = { 0 };
    for (int i = 0; i < 10000; i++) { // more than one slice, more than what is kept for another attempt
        buf_append(&body, "0123456789", 10);
    }
    struct side_request q = request();
    q.method = STR("POST");
    q.body = &body;
    q.no_envoy_headers = true;
    assert_non_null(side_call_start(&x.w, &q));
    assert_int_equal(body.len, 0);
    static char all[100000 + 256];
    conn = world_accept(&x, fd);
    size_t n = world_read(&x, conn, all, 100000 + strlen("POST /check/a HTTP/1.1\r\nhost: shop\r\nx-envoy-expected-rq-timeout-ms: 20000\r\ncontent-length: 100000\r\n\r\n"));
    assert_memory_equal(all, "POST /check/a HTTP/1.1\r\nhost: shop\r\nx-envoy-expected-rq-timeout-ms: 20000\r\ncontent-length: 100000\r\n\r\n0123", 104);
    assert_memory_equal(all + n - 4, "6789", 4);
    world_send(conn, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    world_turn_until(&x, got.calls);
    assert_int_equal(got.status, 200);
}

static void failures_are_told_later(void **state)
{
    (void)state;
    static const struct {
        const char *cluster, *reason;
    } cases[] = { { "dead", "upstream_reset_before_response_started{remote connection failure" }, { "empty", "no_healthy_upstream" },
                  { "nowhere", "cluster_not_found" } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct side_request q = request();
        q.cluster = str_c(cases[i].cluster);
        memset(&got, 0, sizeof(got));
        assert_non_null(side_call_start(&x.w, &q));
        assert_int_equal(got.calls, 0); // never inside the starting call
        world_turn_until(&x, got.calls);
        assert_int_equal(got.failure, SIDE_NO_ANSWER);
        assert_int_equal(got.status, 503);
        assert_memory_equal(got.reason, cases[i].reason, strlen(cases[i].reason));
        world_turns(&x, 3);
        assert_int_equal(got.calls, 1);
    }
}

static void a_cut_answer_is_a_failure(void **state)
{
    (void)state;
    struct side_request q = request();
    assert_non_null(side_call_start(&x.w, &q));
    served();
    world_send(conn, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    world_turns(&x, 5);
    close(conn);
    conn = -1;
    world_turn_until(&x, got.calls);
    assert_int_equal(got.failure, SIDE_NO_ANSWER);
    assert_int_equal(got.status, 503);
    assert_string_equal(got.body, "");
}

static void too_large_answers_are_given_up(void **state)
{
    (void)state;
    struct side_request q = request();
    q.answer_max = 5;
    assert_non_null(side_call_start(&x.w, &q));
    served();
    world_send(conn, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n123");
    world_turns(&x, 5);
    assert_int_equal(got.calls, 0);
    world_send(conn, "456");
    world_turn_until(&x, got.calls);
    assert_int_equal(got.failure, SIDE_TOO_LARGE);
    assert_string_equal(got.body, "");
    assert_string_equal(world_peek(&x, conn), ""); // the connection is not used again
}

static void silence_ends_in_time(void **state)
{
    (void)state;
    struct side_request q = request();
    q.timeout_ms = 30;
    assert_non_null(side_call_start(&x.w, &q));
    served();
    world_turn_until(&x, got.calls);
    assert_int_equal(got.failure, SIDE_TIMEOUT);
    assert_int_equal(got.status, 504);
    assert_int_equal(world_stat(&x, STAT_CLUSTER, "authz", STAT_ID_CLUSTER_UPSTREAM_RQ_TIMEOUT), 1);
}

static void cancelled_at_any_time(void **state)
{
    (void)state;
    struct side_request q = request();
    side_call_cancel(side_call_start(&x.w, &q)); // while it connects
    q.cluster = STR("nowhere");
    side_call_cancel(side_call_start(&x.w, &q)); // its failure is on its way
    q.cluster = STR("authz");
    struct side_call *c = side_call_start(&x.w, &q);
    served();
    world_send(conn, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n123");
    world_turns(&x, 5);
    side_call_cancel(c); // half of the answer is there
    side_call_cancel(NULL);
    assert_non_null(side_call_start(&x.w, &q)); // the end of the thread finds it
    world_turns(&x, 20);
    side_call_worker_fini();
    assert_null(side_call_start(&x.w, &q));
    world_turns(&x, 5);
    assert_int_equal(got.calls, 0);
}

// Twice what was the answer of the first, from inside of its callback, which also tries to cancel what is over.
static struct side_call *running;
static void again(void *owner, const struct side_answer *a)
{
    side_call_cancel(running);
    done(owner, a);
    if (got.calls == 1) {
        struct side_request q = request();
        q.cluster = STR("nowhere");
        assert_non_null(side_call_start(&x.w, &q));
    }
}

static void callbacks_may_start_and_cancel(void **state)
{
    (void)state;
    struct side_request q = request();
    q.cluster = STR("empty");
    q.done = again;
    running = side_call_start(&x.w, &q);
    world_turn_until(&x, got.calls == 2);
    assert_string_equal(got.reason, "cluster_not_found");
}

static void retries_by_policy(void **state)
{
    (void)state;
    struct retry_policy policy = { .on = RETRY_5XX, .num_retries = 1, .backoff_base_ms = 1, .backoff_max_ms = 1, .host_selection_attempts = 1 };
    struct buf body = { 0 };
    buf_append(&body, "question", 8);
    struct side_request q = request();
    q.method = STR("POST");
    q.body = &body;
    q.retry = &policy;
    assert_non_null(side_call_start(&x.w, &q));
    policy = (struct retry_policy){ 0 }; // the caller's configuration may be gone by now
    served();
    world_send(conn, "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
    char text[512];
    size_t n = 0; // the whole request comes once more, on the same connection
    for (int i = 0; i < 3000 && (n < 8 || memcmp(text + n - 8, "question", 8) != 0); i++) {
        ssize_t k = recv(conn, text + n, sizeof(text) - n, MSG_DONTWAIT);
        n += k > 0 ? (size_t)k : 0;
        loop_turn(x.w.loop, 1);
    }
    assert_int_equal(got.calls, 0);
    assert_memory_equal(text + n - 8, "question", 8);
    world_send(conn, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    world_turn_until(&x, got.calls);
    assert_int_equal(got.status, 200);
    assert_string_equal(got.body, "ok");
}

// ---- gRPC ----

static void grpc_done(void *owner, const struct side_grpc_answer *a)
{
    assert_ptr_equal(owner, &got);
    got.calls++;
    got.grpc = a->status;
    got.failure = a->failure;
    keep(got.body, sizeof(got.body), a->message);
    keep(got.text, sizeof(got.text), a->text);
}

static void frames(void **state)
{
    (void)state;
    struct str m;
    assert_true(side_grpc_unframe(str_n("\0\0\0\0\2hi", 7), &m));
    assert_true(str_is(m, "hi"));
    assert_true(side_grpc_unframe(str_n("\0\0\0\0\0", 5), &m));
    assert_int_equal(m.n, 0);
    assert_true(side_grpc_unframe(str_n("\1\0\0\0\0", 5), &m));
    static const struct str bad[] = { STR_INIT(""), STR_INIT("\0\0\0\0"), STR_INIT("\0\0\0\0\3hi"), STR_INIT("\0\0\0\0\1hi"),
                                      STR_INIT("\1\0\0\0\2hi"), STR_INIT("\0\0\0\0\0\0\0\0\0\0"), STR_INIT("\0\377\377\377\377hi") };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(side_grpc_unframe(bad[i], &m));
    }
}

// gRPC's framing and statuses do not depend on HTTP/2; with HTTP/1.1 this test reads and writes them itself.
static void grpc_statuses(void **state)
{
    (void)state;
    static const struct {
        struct str answer;
        int status;
        const char *message, *text;
    } cases[] = {
        { STR_INIT("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\n\0\0\0\0\2hi\r\n0\r\ngrpc-status: 0\r\n\r\n"), GRPC_OK, "hi", "" },
        { STR_INIT("HTTP/1.1 200 OK\r\ncontent-length: 0\r\ngrpc-status: 7\r\ngrpc-message: go%20away\r\n\r\n"), 7, "", "go%20away" },
        { STR_INIT("HTTP/1.1 200 OK\r\ncontent-length: 0\r\ngrpc-status: x\r\n\r\n"), GRPC_UNKNOWN, "", "" },
        { STR_INIT("HTTP/1.1 200 OK\r\ncontent-length: 0\r\ngrpc-status: 0\r\n\r\n"), GRPC_INTERNAL, "", "no whole message" },
        { STR_INIT("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n\0\0\0\0\2hi"), GRPC_UNKNOWN, "", "no grpc-status" },
        { STR_INIT("HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno"), GRPC_PERMISSION_DENIED, "", "no grpc-status" },
        { STR_INIT("HTTP/1.1 503 No\r\ncontent-length: 7\r\ngrpc-status: 0\r\n\r\n\0\0\0\0\2hi"), GRPC_INTERNAL, "", "no whole message" },
        { STR_INIT("nonsense\r\n\r\n"), GRPC_UNAVAILABLE, "", NULL },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(&got, 0, sizeof(got));
        assert_non_null(side_grpc_start(&x.w, &(struct side_grpc_request){ .cluster = STR("authz"), .path = STR("/a.B/C"), .message = STR("ask"),
                                                                           .timeout_ms = 20000, .done = grpc_done, .owner = &got }));
        if (i == 0) {
            char all[512];
            static const struct str head = STR_INIT("POST /a.B/C HTTP/1.1\r\nhost: authz\r\ncontent-type: application/grpc\r\n"
                                                    "grpc-timeout: 20000m\r\nx-envoy-internal: true\r\n"
                                                    "x-envoy-expected-rq-timeout-ms: 20000\r\n"),
                                    rest = STR_INIT("transfer-encoding: chunked\r\nte: trailers\r\nconnection: te\r\n\r\n"
                                                    "8\r\n\0\0\0\0\3ask\r\n0\r\n\r\n");
            conn = world_accept(&x, fd);
            assert_int_equal(world_read(&x, conn, all, head.n + rest.n), head.n + rest.n);
            assert_memory_equal(all, head.p, head.n);
            assert_memory_equal(all + head.n, rest.p, rest.n);
        } else {
            served();
        }
        assert_int_equal(send(conn, cases[i].answer.p, cases[i].answer.n, MSG_NOSIGNAL), (ssize_t)cases[i].answer.n);
        world_turn_until(&x, got.calls);
        assert_int_equal(got.grpc, cases[i].status);
        assert_string_equal(got.body, cases[i].message);
        if (cases[i].text) {
            assert_string_equal(got.text, cases[i].text);
        }
        close(conn);
        conn = -1;
        world_turns(&x, 10); // the connection's end is seen
    }
}

static void grpc_failures_and_ends(void **state)
{
    (void)state;
    struct side_grpc_request q = { .cluster = STR("dead"), .path = STR("/a.B/C"), .done = grpc_done, .owner = &got };
    assert_non_null(side_grpc_start(&x.w, &q));
    world_turn_until(&x, got.calls);
    assert_int_equal(got.grpc, GRPC_UNAVAILABLE);
    assert_int_equal(got.failure, SIDE_NO_ANSWER);
    q.cluster = STR("authz");
    q.timeout_ms = 20;
    assert_non_null(side_grpc_start(&x.w, &q));
    world_turn_until(&x, got.calls == 2);
    assert_int_equal(got.grpc, GRPC_DEADLINE_EXCEEDED);
    side_grpc_cancel(side_grpc_start(&x.w, &q));
    side_grpc_cancel(NULL);
    world_turns(&x, 40);
    side_call_worker_fini();
    assert_null(side_grpc_start(&x.w, &q));
    assert_int_equal(got.calls, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answered_in_one_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(bodies_are_sent_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(failures_are_told_later, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cut_answer_is_a_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(too_large_answers_are_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(silence_ends_in_time, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelled_at_any_time, setup, teardown),
        cmocka_unit_test_setup_teardown(callbacks_may_start_and_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(retries_by_policy, setup, teardown),
        cmocka_unit_test(frames),
        cmocka_unit_test_setup_teardown(grpc_statuses, setup, teardown),
        cmocka_unit_test_setup_teardown(grpc_failures_and_ends, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
