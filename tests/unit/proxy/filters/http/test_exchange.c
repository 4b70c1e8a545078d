// SPDX-License-Identifier: Apache-2.0
// Requests through manager, filters, router, pool and codecs.
#include "tests/unit/proxy/filters/http/mesh.h"

static struct mesh m;

static int setup(void **state)
{
    (void)state;
    mesh_init(&m);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mesh_fini(&m);
    return 0;
}

#define OK_RESPONSE "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

static void request_and_answer_on_kept_connections(void **state)
{
    (void)state;
    mesh_log(&m, "%REQ(:METHOD)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %ROUTE_NAME% "
                 "%UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n");
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m), u = -1;
    for (int i = 0; i < 3; i++) {
        world_send(c, "GET /a?b HTTP/1.1\r\nHost: h\r\nX-Mine: 1\r\n\r\n");
        if (u < 0) {
            u = world_accept(&m.x, m.listen_fd[0]);
        }
        const char *got = mesh_until(&m, u, "\r\n\r\n");
        assert_true(strncmp(got, "GET /a?b HTTP/1.1\r\n", 19) == 0);
        assert_non_null(strcasestr(got, "\r\nhost: h\r\n"));
        assert_non_null(strcasestr(got, "\r\nx-mine: 1\r\n"));
        assert_non_null(strcasestr(got, "\r\nx-request-id: "));
        assert_non_null(strcasestr(got, "\r\nx-forwarded-proto: http\r\n"));
        world_send(u, OK_RESPONSE);
        got = mesh_until(&m, c, "\r\n\r\nok");
        assert_true(strncmp(got, "HTTP/1.1 200 OK\r\n", 17) == 0);
        assert_non_null(strcasestr(got, "\r\nserver: istio-envoy\r\n"));
        assert_non_null(strcasestr(got, "\r\ndate: "));
        assert_non_null(strcasestr(got, "\r\nx-envoy-upstream-service-time: "));
    }
    world_turns(&m.x, 3);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_CX_TOTAL), 1);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_2XX), 3);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 0);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_RQ_2XX), 3);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_RQ_ACTIVE), 0);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_ACTIVE), 1);
    close(c);
    close(u);
    world_turns(&m.x, 5);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_ACTIVE), 0);
    assert_string_equal(mesh_logged(&m), "GET 200 via_upstream - 0 2 r up 1\nGET 200 via_upstream - 0 2 r up 1\n"
                                         "GET 200 via_upstream - 0 2 r up 1\n");
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "GET /1 ");
    world_send(u, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none");
    mesh_expect(&m, u, "GET /2 ");
    world_send(u, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo");
    const char *got = mesh_until(&m, c, "\r\n\r\ntwo");
    assert_non_null(strstr(got, "\r\n\r\none"));
    assert_true(strstr(got, "one") < strstr(got, "two"));
    close(c);
    close(u);
}

static void bodies_both_ways_with_trailers(void **state)
{
    (void)state;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "5\r\nhello\r\n");
    world_send(c, "3\r\nyou\r\n0\r\nX-Sum: 8\r\n\r\n");
    const char *got = mesh_until(&m, u, "\r\n\r\n");
    assert_non_null(strcasestr(got, "3\r\nyou\r\n0\r\nx-sum: 8\r\n\r\n"));
    world_send(u, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nt: 1\r\n\r\n");
    got = mesh_until(&m, c, "0\r\n");
    assert_non_null(strstr(got, "2\r\nhi\r\n0\r\nt: 1\r\n\r\n"));
    // and with a length
    world_send(c, "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab");
    mesh_expect(&m, u, "\r\n\r\nab");
    world_send(c, "cd");
    mesh_expect(&m, u, "cd");
    world_send(u, OK_RESPONSE);
    mesh_expect(&m, c, "\r\n\r\nok");
    close(c);
    close(u);
}

static void head_and_204_have_no_body(void **state)
{
    (void)state;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "HEAD / ");
    world_send(u, "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n");
    const char *got = mesh_until(&m, c, "\r\n\r\n");
    assert_non_null(strcasestr(got, "content-length: 5000"));
    world_send(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, u, "GET / ");
    world_send(u, "HTTP/1.1 204 No Content\r\n\r\n");
    got = mesh_until(&m, c, "\r\n\r\n");
    assert_non_null(strstr(got, "HTTP/1.1 204"));
    assert_null(strcasestr(got, "content-length"));
    assert_null(strcasestr(got, "transfer-encoding"));
    close(c);
    close(u);
}

static void no_route_no_cluster_no_host(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    m.vhost->route_count = 3;
    m.vhost->routes[1] = m.vhost->routes[0];
    m.vhost->routes[0].path = STR("/gone");
    m.vhost->routes[0].cluster = STR("nowhere");
    m.vhost->routes[1].path = STR("/up");
    m.vhost->routes[2] = m.vhost->routes[1];
    m.vhost->routes[2].path = STR("/missing");
    m.vhost->routes[2].cluster = STR("nowhere");
    m.vhost->routes[2].cluster_not_found_status = 404;
    mesh_go(&m, 0, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, c, "HTTP/1.1 404 Not Found\r\n");
    world_send(c, "GET /gone HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, c, "HTTP/1.1 503 ");
    world_send(c, "GET /missing HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, c, "HTTP/1.1 404 ");
    world_send(c, "GET /up HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, c, "no healthy upstream");
    world_send(c, "POST /up HTTP/1.1\r\nHost: h\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n");
    const char *got = mesh_until(&m, c, "grpc-message");
    assert_non_null(strstr(got, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(got, "grpc-status: 14\r\n"));
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_NO_ROUTE), 1);
    close(c);
    world_turns(&m.x, 4);
    assert_string_equal(mesh_logged(&m), "404 NR route_not_found\n503 NC cluster_not_found\n404 NC cluster_not_found\n"
                                         "503 UH no_healthy_upstream\n200 UH no_healthy_upstream\n");
}

static void refused_connection_is_503_and_tried_elsewhere_by_policy(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n");
    static struct retry_policy p = { .on = RETRY_CONNECT_FAILURE, .num_retries = 2, .avoid_previous_hosts = true,
                                     .host_selection_attempts = 5, .backoff_base_ms = 2 };
    m.vhost->route_count = 2;
    m.vhost->routes[1] = m.vhost->routes[0];
    m.vhost->routes[0].path = STR("/retry");
    m.vhost->routes[0].retry = &p;
    mesh_go(&m, 2, 1);
    int c = mesh_client(&m), refused = 0, served = 0, u = -1;
    for (int i = 0; i < 2; i++) { // round robin: one of the two meets the dead host
        world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
        world_turns(&m.x, 5);
        if (u < 0) {
            u = socket_accept(m.listen_fd[1], &(struct addr){ 0 });
        }
        char byte;
        if (u >= 0 && recv(u, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 1) {
            mesh_expect(&m, u, "\r\n\r\n");
            world_send(u, OK_RESPONSE);
            mesh_expect(&m, c, "\r\n\r\nok");
            served++;
        } else {
            mesh_expect(&m, c, "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure");
            refused++;
        }
    }
    assert_int_equal(refused, 1);
    assert_int_equal(served, 1);
    for (int i = 0; i < 6; i++) { // with the policy nobody notices, whichever host comes first
        const struct endpoint_set *set = upstream_cluster(&m.x.w, STR("up"))->snap->endpoints;
        for (size_t k = 0; k < set->count; k++) { // as if the host had not just refused somebody
            atomic_store(&set->v[k].host->refused_until_ms, 0);
        }
        world_send(c, "GET /retry HTTP/1.1\r\nHost: h\r\n\r\n");
        mesh_expect(&m, u, "\r\n\r\n");
        world_send(u, OK_RESPONSE);
        mesh_expect(&m, c, "\r\n\r\nok");
    }
    world_turns(&m.x, 3);
    uint64_t retries = mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_RETRY); // a retry moves the round robin on too
    assert_true(retries >= 3 && retries <= 6);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_RETRY_SUCCESS), retries);
    close(c);
    close(u);
    const char *log = mesh_logged(&m);
    assert_non_null(strstr(log, "503 UF upstream_reset_before_response_started{remote_connection_failure"));
    assert_non_null(strstr(log, "200 - via_upstream 2\n"));
}

static void retries_end(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n");
    static struct retry_policy p = { .on = RETRY_CONNECT_FAILURE, .num_retries = 2, .backoff_base_ms = 1 };
    m.route->retry = &p;
    mesh_go(&m, 1, 1);
    int c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, c, "retried and the latest reset reason: remote connection failure");
    close(c);
    world_turns(&m.x, 3);
    assert_string_equal(mesh_logged(&m), "503 URX,UF 3\n");
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 0);
}

static void retry_on_status_replays_the_body(void **state)
{
    (void)state;
    static struct retry_policy p = { .on = RETRY_5XX, .num_retries = 2, .backoff_base_ms = 1 };
    m.route->retry = &p;
    m.vhost->include_request_attempt_count = m.vhost->include_attempt_in_response = true;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
    int u = world_accept(&m.x, m.listen_fd[0]);
    const char *got = mesh_until(&m, u, "\r\n\r\nbody");
    assert_non_null(strstr(got, "x-envoy-attempt-count: 1\r\n"));
    world_send(u, "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
    got = mesh_until(&m, u, "\r\n\r\nbody");
    assert_non_null(strstr(got, "x-envoy-attempt-count: 2\r\n"));
    world_send(u, OK_RESPONSE);
    got = mesh_until(&m, c, "\r\n\r\nok");
    assert_non_null(strstr(got, "x-envoy-attempt-count: 2\r\n"));
    close(c);
    close(u);
}

static void late_body_is_replayed_and_long_body_is_not(void **state)
{
    (void)state;
    static struct retry_policy p = { .on = RETRY_5XX, .num_retries = 2, .backoff_base_ms = 1 };
    m.route->retry = &p;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "abc\r\n");
    world_send(c, "3\r\ndef\r\n0\r\nx: y\r\n\r\n"); // behind the open attempt
    mesh_expect(&m, u, "x: y\r\n\r\n");
    world_send(u, "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
    mesh_expect(&m, u, "6\r\nabcdef\r\n0\r\nx: y\r\n\r\n");
    world_send(u, OK_RESPONSE);
    mesh_expect(&m, c, "\r\n\r\nok");
    // More than is kept: the first answer is the client's.
    static char body[ROUTER_REPLAY_MAX + 1000];
    memset(body, 'b', sizeof(body));
    char head[128];
    snprintf(head, sizeof(head), "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", sizeof(body));
    world_send(c, head);
    for (size_t sent = 0, got = 0; sent < sizeof(body) || got < sizeof(body);) {
        static char sink[65536];
        ssize_t n = sent < sizeof(body) ? send(c, body + sent, sizeof(body) - sent, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
        sent += n > 0 ? (size_t)n : 0;
        n = recv(u, sink, sizeof(sink), MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
        loop_turn(m.x.w.loop, 1);
    }
    world_send(u, "HTTP/1.1 500 No\r\ncontent-length: 5\r\n\r\nfirst");
    mesh_expect(&m, c, "\r\n\r\nfirst");
    close(c);
    close(u);
}

static void stale_connection_is_retried_only_when_safe(void **state)
{
    (void)state;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    for (int post = 0; post < 2; post++) {
        world_send(c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
        int u = world_accept(&m.x, m.listen_fd[0]);
        mesh_expect(&m, u, "GET /1 ");
        world_send(u, OK_RESPONSE);
        mesh_expect(&m, c, "\r\n\r\nok");
        // The next request is on its way when the server closes.
        world_send(c, post ? "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n" : "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
        mesh_expect(&m, u, "/2 ");
        close(u);
        if (post) {
            mesh_expect(&m, c, "HTTP/1.1 503 ");
        } else {
            u = world_accept(&m.x, m.listen_fd[0]);
            mesh_expect(&m, u, "GET /2 ");
            world_send(u, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
            mesh_expect(&m, c, "\r\n\r\nok");
            close(u);
        }
    }
    close(c);
}

static void upstream_ends_before_and_inside_the_answer(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "GET /x");
    close(u);
    mesh_expect(&m, c, "reset reason: connection termination");
    world_send(c, "GET /y HTTP/1.1\r\nHost: h\r\n\r\n");
    u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "GET /y");
    world_send(u, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    close(u); // seen in the same turn: what came is passed on first
    mesh_expect(&m, c, "half");
    assert_true(mesh_closed(&m, c));
    close(c);
    world_turns(&m.x, 3);
    assert_string_equal(mesh_logged(&m), "503 UC upstream_reset_before_response_started{connection_termination}\n"
                                         "200 UPE upstream_reset_after_response_started{protocol_error}\n");
}

static void client_gone_cancels_the_upstream(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "GET /x");
    close(c);
    assert_true(mesh_closed(&m, u));
    close(u);
    world_turns(&m.x, 3);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 0);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_RQ_RX_RESET), 1);
    assert_string_equal(mesh_logged(&m), "0 DC downstream_remote_disconnect\n");
}

static void route_time_out(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    m.route->timeout_ms = 20;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "\r\n\r\n");
    mesh_expect(&m, c, "upstream request timeout");
    assert_true(mesh_closed(&m, u));
    close(c);
    close(u);
    world_turns(&m.x, 3);
    assert_string_equal(mesh_logged(&m), "504 UT response_timeout\n");
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_TIMEOUT), 1);
}

static void per_try_time_out_tries_again(void **state)
{
    (void)state;
    static struct retry_policy p = { .on = RETRY_5XX, .num_retries = 1, .backoff_base_ms = 1, .per_try_timeout_ms = 200 };
    m.route->retry = &p;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "GET /x");
    int u2 = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u2, "GET /x");
    world_send(u2, OK_RESPONSE);
    mesh_expect(&m, c, "\r\n\r\nok");
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_PER_TRY_TIMEOUT), 1);
    close(c);
    close(u);
    close(u2);
}

static void per_try_idle_time_out_ends_a_stalled_answer(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    static struct retry_policy p = { .num_retries = 1, .per_try_idle_ms = 250 };
    m.route->retry = &p;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "GET /x");
    world_turns(&m.x, 8);
    world_send(u, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab");
    mesh_expect(&m, c, "\r\n\r\nab");
    assert_true(mesh_closed(&m, c));
    assert_true(mesh_closed(&m, u));
    close(c);
    close(u);
    world_turns(&m.x, 3);
    assert_string_equal(mesh_logged(&m), "200 UT upstream_per_try_idle_timeout\n");
}

static void stream_idle_time_out(void **state)
{
    (void)state;
    m.hcm->stream_idle_ms = 100;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\ncontent-length: 10\r\n\r\nabc");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, c, "HTTP/1.1 408 ");
    close(c);
    close(u);
    c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, c, "HTTP/1.1 504 ");
    close(c);
    close(u);
    world_turns(&m.x, 3);
    assert_string_equal(mesh_logged(&m), "408 SI stream_idle_timeout\n504 SI stream_idle_timeout\n");
}

static void connection_time_outs(void **state)
{
    (void)state;
    m.hcm->idle_ms = 200;
    m.hcm->request_headers_ms = 200;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    assert_true(mesh_closed(&m, c));
    close(c);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_IDLE_TIMEOUT), 1);
    c = mesh_client(&m);
    world_send(c, "GET /x HT");
    mesh_expect(&m, c, "HTTP/1.1 408 Request Timeout");
    assert_true(mesh_closed(&m, c));
    close(c);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_RQ_HEADER_TIMEOUT), 1);
}

static void wait_ms(unsigned ms)
{
    uint64_t end = loop_now_ms(m.x.w.loop) + ms;
    while (loop_now_ms(m.x.w.loop) < end) {
        world_turns(&m.x, 1);
    }
}

static void slow_bodies(void **state)
{
    (void)state;
    m.hcm->body_window_ms = 40;
    m.hcm->body_min_bytes = 5;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\ncontent-length: 100\r\n\r\nabc");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, c, "HTTP/1.1 408 ");
    mesh_expect(&m, u, "abc");
    assert_true(mesh_closed(&m, u)); // half a request
    close(c);
    close(u);
    // without a known length nobody can say that it is slow
    c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n");
    u = world_accept(&m.x, m.listen_fd[0]);
    wait_ms(50);
    world_send(c, "0\r\n\r\n");
    world_turns(&m.x, 3);
    world_send(u, OK_RESPONSE);
    mesh_expect(&m, c, "HTTP/1.1 200 ");
    close(c);
    close(u);
    world_turns(&m.x, 3);
    assert_non_null(strstr(mesh_logged(&m), "408 - request_body_too_slow\n200 - via_upstream\n"));
}

static void a_beginning_that_says_nothing(void **state)
{
    (void)state;
    m.hcm->request_headers_ms = 20;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "PRI * HT"); // HTTP/1 or HTTP/2?
    assert_true(mesh_closed(&m, c));
    close(c);
}

static void expect_continue(void **state)
{
    (void)state;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    mesh_expect(&m, c, "HTTP/1.1 100 Continue\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    const char *got = mesh_until(&m, u, "\r\n\r\n");
    assert_null(strcasestr(got, "expect"));
    world_send(c, "abc");
    mesh_expect(&m, u, "abc");
    world_send(u, OK_RESPONSE);
    mesh_expect(&m, c, "\r\n\r\nok");
    m.hcm->proxy_100_continue = true; // now the upstream decides
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    got = mesh_until(&m, u, "\r\n\r\n");
    assert_non_null(strcasestr(got, "expect: 100-continue"));
    world_send(u, "HTTP/1.1 100 Continue\r\n\r\n");
    mesh_expect(&m, c, "HTTP/1.1 100 Continue\r\n\r\n");
    world_send(c, "abc");
    mesh_expect(&m, u, "abc");
    world_send(u, OK_RESPONSE);
    mesh_expect(&m, c, "\r\n\r\nok");
    close(c);
    close(u);
}

static void what_is_refused(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    m.hcm->normalize_path = true;
    mesh_go(&m, 1, 0);
    static const struct {
        const char *request, *answer;
        bool closes;
    } cases[] = {
        { "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 403 ", false },
        { "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", "HTTP/1.1 404 ", true },
        { "GET /../x HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 400 ", false },
        { "GET /%2e%2e/x HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 400 ", false },
        { "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 400 ", true },
        { "GARBAGE\r\n\r\n", "HTTP/1.1 400 ", true },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int c = mesh_client(&m);
        world_send(c, cases[i].request);
        mesh_expect(&m, c, cases[i].answer);
        if (cases[i].closes) {
            assert_true(mesh_closed(&m, c));
        }
        close(c);
        world_turns(&m.x, 2);
    }
    const char *log = mesh_logged(&m);
    assert_non_null(strstr(log, "403 - upgrade_failed\n404 NR route_not_found\n400 - path_normalization_failed\n400 - path_norm"));
    assert_non_null(strstr(log, "400 DPE http1."));
}

static void early_answer_while_the_body_still_comes(void **state)
{
    (void)state;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "abc");
    world_send(u, "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno");
    mesh_expect(&m, c, "\r\n\r\nno");
    world_send(c, "defghij"); // the rest is read away, the connection goes on with another upstream connection
    world_send(c, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    int u2 = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u2, "GET /2");
    world_send(u2, OK_RESPONSE);
    mesh_expect(&m, c, "\r\n\r\nok");
    close(c);
    close(u);
    close(u2);
}

// Fills towards a reader that does not read, and tells how many bytes the proxy took meanwhile.
static size_t flood(int fd, size_t max)
{
    static char block[65536];
    size_t total = 0;
    int quiet = 0;
    while (total < max && quiet < 50) {
        ssize_t n = send(fd, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            total += (size_t)n;
            quiet = 0;
        } else {
            quiet++;
        }
        world_turns(&m.x, 1);
    }
    return total;
}

static void slow_reader_stops_the_upstream(void **state)
{
    (void)state;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "GET /x");
    world_send(u, "HTTP/1.1 200 OK\r\ncontent-length: 134217728\r\n\r\n");
    size_t taken = flood(u, 128u << 20);
    assert_true(taken < 32u << 20); // sockets' buffers and ours, far from all
    // The reader wakes up: everything arrives.
    static char sink[262144];
    size_t got = 0, sent = taken;
    for (int i = 0; i < 200000 && got < (64u << 20); i++) {
        ssize_t n = recv(c, sink, sizeof(sink), MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
        static char block[65536];
        n = sent < (128u << 20) ? send(u, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
        sent += n > 0 ? (size_t)n : 0;
        loop_turn(m.x.w.loop, 0);
    }
    assert_true(got >= 64u << 20);
    close(c);
    close(u);
}

static void slow_upstream_stops_the_client(void **state)
{
    (void)state;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 134217728\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    size_t taken = flood(c, 128u << 20);
    assert_true(taken < 32u << 20);
    static char sink[262144];
    size_t got = 0;
    for (int i = 0; i < 200000 && got < taken; i++) {
        ssize_t n = recv(u, sink, sizeof(sink), MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
        loop_turn(m.x.w.loop, 0);
    }
    assert_true(got >= taken);
    close(c);
    close(u);
}

static void body_waits_bounded_for_a_connection(void **state)
{
    (void)state;
    mesh_go(&m, 1, 0);
    m.x.w.snap->version++; // nothing depends on it
    int c = mesh_client(&m);
    // A listening socket whose queue nobody empties still connects; so the pause comes from the unread upstream. Here the connection is
    // cut before it opens: the body must not have been lost or doubled.
    world_send(c, "PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n");
    static char body[200000];
    memset(body, 'b', sizeof(body));
    size_t sent = 0;
    int u = -1;
    static char got[400000];
    size_t n = 0;
    for (int i = 0; i < 20000 && n < sizeof(body) + 4; i++) {
        ssize_t k = sent < sizeof(body) ? send(c, body + sent, sizeof(body) - sent, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
        sent += k > 0 ? (size_t)k : 0;
        loop_turn(m.x.w.loop, 0);
        if (u < 0) {
            u = socket_accept(m.listen_fd[0], &(struct addr){ 0 });
            continue;
        }
        k = recv(u, got + n, sizeof(got) - n, MSG_DONTWAIT);
        n += k > 0 ? (size_t)k : 0;
        char *end = memmem(got, n, "\r\n\r\n", 4);
        if (end && n == (size_t)(end + 4 - got) + sizeof(body)) {
            break;
        }
    }
    char *end = memmem(got, n, "\r\n\r\n", 4);
    assert_non_null(end);
    assert_int_equal(n, (size_t)(end + 4 - got) + sizeof(body));
    assert_memory_equal(end + 4, body, sizeof(body));
    close(c);
    close(u);
}

static void drain_says_close_and_ends_idle_connections(void **state)
{
    (void)state;
    m.hcm->drain_ms = 300;
    mesh_go(&m, 1, 0);
    int busy = mesh_client(&m), idle = mesh_client(&m), late = mesh_client(&m);
    world_send(busy, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "GET /1");
    listener_drain(&m.x.w, false);
    world_turns(&m.x, 2);
    world_send(u, OK_RESPONSE);
    const char *got = mesh_until(&m, busy, "\r\n\r\nok");
    assert_non_null(strcasestr(got, "connection: close"));
    assert_true(mesh_closed(&m, busy));
    // A request that was about to come is still served.
    world_send(late, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, u, "GET /2");
    world_send(u, OK_RESPONSE);
    got = mesh_until(&m, late, "\r\n\r\nok");
    assert_non_null(strcasestr(got, "connection: close"));
    assert_true(mesh_closed(&m, late));
    assert_true(mesh_closed(&m, idle));
    close(busy);
    close(idle);
    close(late);
    close(u);
    world_turns(&m.x, 3);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_ACTIVE), 0);
}

static void requests_per_connection_are_limited(void **state)
{
    (void)state;
    m.hcm->max_requests_per_connection = 2;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m), u = -1;
    for (int i = 0; i < 2; i++) {
        world_send(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        u = u < 0 ? world_accept(&m.x, m.listen_fd[0]) : u;
        mesh_expect(&m, u, "GET / ");
        world_send(u, OK_RESPONSE);
        const char *got = mesh_until(&m, c, "\r\n\r\nok");
        assert_true((strcasestr(got, "connection: close") != NULL) == (i == 1));
    }
    assert_true(mesh_closed(&m, c));
    close(c);
    close(u);
}

static void redirects_and_direct_answers(void **state)
{
    (void)state;
    m.vhost->route_count = 2;
    m.vhost->routes[1] = m.vhost->routes[0];
    m.vhost->routes[0].path = STR("/old");
    m.vhost->routes[0].kind = ROUTE_REDIRECT;
    m.vhost->routes[0].redirect_https = true;
    m.vhost->routes[0].redirect_prefix = STR("/new");
    m.vhost->routes[0].redirect_status = 308;
    m.vhost->routes[1].kind = ROUTE_DIRECT;
    m.vhost->routes[1].direct_status = 418;
    m.vhost->routes[1].direct_body = STR("teapot");
    mesh_go(&m, 0, 0);
    int c = mesh_client(&m);
    world_send(c, "GET /old/x?q HTTP/1.1\r\nHost: h:80\r\n\r\n");
    const char *got = mesh_until(&m, c, "\r\n\r\n");
    assert_non_null(strstr(got, "HTTP/1.1 308 "));
    assert_non_null(strstr(got, "location: https://h/new/x?q\r\n"));
    world_send(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, c, "\r\n\r\nteapot");
    world_send(c, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    got = mesh_until(&m, c, "\r\n\r\n");
    assert_non_null(strstr(got, "content-length: 6\r\n"));
    assert_null(strstr(got, "teapot"));
    close(c);
}

static void overflow_is_503_UO(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    m.cluster->breakers[0].max_requests = 1;
    mesh_go(&m, 1, 0);
    int a = mesh_client(&m), b = mesh_client(&m);
    world_send(a, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "GET / ");
    world_send(b, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    const char *got = mesh_until(&m, b, "reset reason: overflow");
    assert_non_null(strstr(got, "x-envoy-overloaded: true\r\n"));
    world_send(u, OK_RESPONSE);
    mesh_expect(&m, a, "\r\n\r\nok");
    close(a);
    close(b);
    close(u);
    world_turns(&m.x, 3);
    assert_non_null(strstr(mesh_logged(&m), "503 UO upstream_reset_before_response_started{overflow}\n"));
}

static void weights_are_kept(void **state)
{
    (void)state;
    static struct weighted_cluster w[2] = { { .name = STR_INIT("none1"), .weight = 90 }, { .name = STR_INIT("none2"), .weight = 10 } };
    m.route->weighted = w;
    m.route->weighted_count = 2;
    m.route->total_weight = 100;
    mesh_log(&m, "%UPSTREAM_CLUSTER%\n");
    mesh_go(&m, 0, 0);
    struct snapshot *next = snapshot_clone(m.x.w.snap);
    world_cluster_put(next, world_cluster("none1", LB_ROUND_ROBIN), NULL, NULL, 0); // nobody in them: 503 at once
    world_cluster_put(next, world_cluster("none2", LB_ROUND_ROBIN), NULL, NULL, 0);
    snapshot_unref(world_swap(&m.x, next));
    int c = mesh_client(&m);
    enum { N = 400 };
    for (int i = 0; i < N; i++) {
        world_send(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        mesh_expect(&m, c, "503");
    }
    close(c);
    int first = 0, second = 0;
    for (const char *p = mesh_logged(&m); (p = strstr(p, "none")); p++) {
        first += p[4] == '1';
        second += p[4] == '2';
    }
    assert_int_equal(first + second, N);
    assert_true(second >= 12 && second <= 75); // six standard deviations around 40
}

static void mirrors_get_a_copy_and_do_not_matter(void **state)
{
    (void)state;
    static struct mirror mirrors[2] = { { .cluster = STR_INIT("up"), .fraction = { 100, 100 }, .append_shadow = true },
                                        { .cluster = STR_INIT("none"), .fraction = { 100, 100 } } };
    static struct header_add add = { .name = STR_INIT("x-table"), .value = STR_INIT("1"), .action = HA_APPEND_IF_EXISTS_OR_ADD };
    m.route->mirrors = mirrors;
    m.route->mirror_count = 2;
    m.table->request_ops = (struct header_ops){ .add = &add, .add_count = 1 };
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    int a = world_accept(&m.x, m.listen_fd[0]), b = world_accept(&m.x, m.listen_fd[0]);
    world_send(c, "def");
    int shadow = -1;
    for (int i = 0; i < 2; i++) {
        int fd = i ? b : a;
        const char *got = mesh_until(&m, fd, "abcdef");
        assert_non_null(strstr(got, "abcdef"));
        const char *field = strstr(got, "x-table: 1\r\n");
        assert_true(field && !strstr(field + 1, "x-table")); // not once more for the mirror
        shadow = strstr(got, "h-shadow\r\n") ? fd : shadow;
    }
    assert_true(shadow >= 0);
    int real = shadow == a ? b : a;
    world_send(real, OK_RESPONSE);
    mesh_expect(&m, c, "\r\n\r\nok");
    world_send(shadow, "HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno");
    world_turns(&m.x, 4);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 0);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_5XX), 1);
    // A client that goes away in the middle takes its mirror with it.
    world_send(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    world_turns(&m.x, 4);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 2);
    close(c);
    world_turns(&m.x, 6);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 0);
    close(a);
    close(b);
    // One whose server does not answer ends with the thread.
    c = mesh_client(&m);
    world_send(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    world_turns(&m.x, 4);
    close(c);
    world_turns(&m.x, 4);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 1);
    mirror_worker_fini();
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 0);
}

#define WS_REQUEST "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"

static void upgrade_becomes_a_tunnel(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT%\n");
    static struct http_upgrade ws[] = { { .type = STR_INIT("websocket"), .enabled = true } };
    m.hcm->upgrades = ws;
    m.hcm->upgrade_count = 1;
    m.route->timeout_ms = 300;
    static struct mirror mirrors[1] = { { .cluster = STR_INIT("up"), .fraction = { 100, 100 } } };
    m.route->mirrors = mirrors;
    m.route->mirror_count = 1;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, WS_REQUEST "early");
    int u = world_accept(&m.x, m.listen_fd[0]);
    const char *got = mesh_until(&m, u, "\r\n\r\n");
    assert_non_null(strcasestr(got, "upgrade: websocket\r\n"));
    assert_non_null(strcasestr(got, "connection: upgrade\r\n"));
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 1); // no mirror of a conversation
    world_turns(&m.x, 5);
    char byte;
    assert_int_equal(recv(u, &byte, 1, MSG_DONTWAIT), -1); // "early" waits for the switch
    close(u);
    close(c);
    world_turns(&m.x, 3);
    c = mesh_client(&m);
    world_send(c, WS_REQUEST "early");
    u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "\r\n\r\n");
    world_send(u, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello");
    got = mesh_until(&m, c, "hello");
    assert_non_null(strstr(got, "HTTP/1.1 101 "));
    assert_non_null(strcasestr(got, "upgrade: websocket\r\n"));
    mesh_expect(&m, u, "early");
    wait_ms(m.route->timeout_ms + 20u);
    world_send(c, "ping");
    mesh_expect(&m, u, "ping");
    world_send(u, "pong");
    mesh_expect(&m, c, "pong");
    shutdown(u, SHUT_WR);
    assert_true(mesh_closed(&m, c));
    close(c);
    close(u);
    world_turns(&m.x, 5);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 0);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_CX_ACTIVE), 0);
    assert_non_null(strstr(mesh_logged(&m), "101 - 9 9\n"));
}

static void tunnel_ends_with_the_client_and_refusal_is_an_answer(void **state)
{
    (void)state;
    static struct str ws[] = { STR_INIT("websocket") };
    m.route->upgrades = ws;
    m.route->upgrade_count = 1;
    mesh_go(&m, 1, 0);
    int c = mesh_client(&m);
    world_send(c, WS_REQUEST);
    int u = world_accept(&m.x, m.listen_fd[0]);
    mesh_expect(&m, u, "\r\n\r\n");
    world_send(u, "HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno"); // and the connection goes on
    mesh_expect(&m, c, "\r\n\r\nno");
    world_send(c, WS_REQUEST);
    world_turns(&m.x, 3);
    int u2 = socket_accept(m.listen_fd[0], &(struct addr){ 0 });
    u2 = u2 < 0 ? u : u2;
    mesh_expect(&m, u2, "\r\n\r\n");
    world_send(u2, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    mesh_expect(&m, c, "\r\n\r\n");
    shutdown(c, SHUT_WR);
    assert_true(mesh_closed(&m, u2)); // the end travels on
    world_send(u2, "last words");
    mesh_expect(&m, c, "last words");
    close(u2);
    assert_true(mesh_closed(&m, c));
    close(c);
    if (u2 != u) {
        close(u);
    }
    world_turns(&m.x, 3);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_ACTIVE), 0);
    assert_int_equal(mesh_cluster(&m, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(request_and_answer_on_kept_connections), T(pipelined_requests_are_answered_in_order), T(bodies_both_ways_with_trailers),
        T(head_and_204_have_no_body), T(no_route_no_cluster_no_host), T(refused_connection_is_503_and_tried_elsewhere_by_policy),
        T(retries_end), T(retry_on_status_replays_the_body), T(late_body_is_replayed_and_long_body_is_not), T(stale_connection_is_retried_only_when_safe),
        T(upstream_ends_before_and_inside_the_answer), T(client_gone_cancels_the_upstream), T(route_time_out),
        T(per_try_time_out_tries_again), T(per_try_idle_time_out_ends_a_stalled_answer), T(stream_idle_time_out), T(connection_time_outs), T(slow_bodies), T(a_beginning_that_says_nothing), T(expect_continue), T(what_is_refused),
        T(early_answer_while_the_body_still_comes), T(slow_reader_stops_the_upstream), T(slow_upstream_stops_the_client),
        T(body_waits_bounded_for_a_connection), T(drain_says_close_and_ends_idle_connections), T(requests_per_connection_are_limited),
        T(redirects_and_direct_answers), T(overflow_is_503_UO), T(weights_are_kept),
        T(mirrors_get_a_copy_and_do_not_matter), T(upgrade_becomes_a_tunnel),
        T(tunnel_ends_with_the_client_and_refusal_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
