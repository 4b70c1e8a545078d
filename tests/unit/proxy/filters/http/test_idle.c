// SPDX-License-Identifier: Apache-2.0
// Connections that wait for their next request: what they cost, and that they lose nothing by it (proxy/http/idle.c).
#include <malloc.h>
#include <sys/resource.h>

#include "tests/unit/proxy/filters/http/mesh.h"

#include "proxy/http/internal.h"

enum { CROWD = IDLE_AWAKE_MAX + 40, COST_MAX = 512 };

static struct mesh m;
static int crowd[CROWD];

static int setup(void **state)
{
    (void)state;
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &r), 0);
    r.rlim_cur = r.rlim_max < 4096 ? r.rlim_max : 4096;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
    mesh_init(&m);
    m.route->kind = ROUTE_DIRECT;
    m.route->direct_status = 204;
    mesh_go(&m, 0, 0);
    loop_set_fake_time(m.x.w.loop, 1000000);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < CROWD; i++) {
        if (crowd[i] > 0) {
            close(crowd[i]);
        }
        crowd[i] = 0;
    }
    mesh_fini(&m);
    return 0;
}

static void get(int fd)
{
    world_send(fd, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, fd, "HTTP/1.1 204");
}

// Every member has made a request; the first ones sleep.
static void gather(bool ask)
{
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = mesh_client(&m);
        if (ask) {
            get(crowd[i]);
        }
    }
    world_turns(&m.x, 3);
}

static uint32_t awake(void)
{
    return ((struct http_worker *)m.x.w.slots[SLOT_HTTP])->awake_count;
}

static void costs_little(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); // malloc is another one
#else
    enum { MORE = 200 };
    gather(true);
    int more[MORE];
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < MORE; i++) {
        more[i] = mesh_client(&m);
        get(more[i]);
    }
    world_turns(&m.x, 3);
    size_t each = (mallinfo2().uordblks - before) / MORE;
    for (int i = 0; i < MORE; i++) {
        close(more[i]);
    }
    if (each > COST_MAX) {
        fail_msg("an idle connection takes %zu bytes, more than %d", each, (int)COST_MAX);
    }
#endif
}

static void sleeps_and_answers_again(void **state)
{
    (void)state;
    gather(true);
    assert_int_equal(awake(), IDLE_AWAKE_MAX);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < CROWD; i++) {
            get(crowd[i]);
        }
    }
    world_turns(&m.x, 3);
    assert_int_equal(awake(), IDLE_AWAKE_MAX);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_TOTAL), CROWD);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_ACTIVE), CROWD);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_RQ_TOTAL), 3 * CROWD);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_RX_BYTES), 3 * CROWD * strlen("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
}

static void takes_a_request_in_pieces_and_two_at_once(void **state)
{
    (void)state;
    gather(true);
    world_send(crowd[0], "G");
    world_turns(&m.x, 3);
    world_send(crowd[0], "ET / HTTP/1.1\r\nHost: h\r\n\r\n");
    mesh_expect(&m, crowd[0], "HTTP/1.1 204");
    world_send(crowd[1], "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    world_turns(&m.x, 3);
    const char *got = mesh_until(&m, crowd[1], NULL);
    assert_non_null(strstr(strstr(got, "HTTP/1.1 204") + 1, "HTTP/1.1 204"));
}

static void second_protocol_is_refused(void **state)
{
    (void)state;
    gather(true);
    world_send(crowd[0], "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    mesh_expect(&m, crowd[0], "HTTP/1.1 ");
    assert_true(mesh_closed(&m, crowd[0]));
}

static void one_that_never_spoke_sleeps_too(void **state)
{
    (void)state;
    gather(false);
    assert_int_equal(awake(), IDLE_AWAKE_MAX);
    get(crowd[0]);
}

static void ends_are_noticed(void **state)
{
    (void)state;
    gather(true);
    shutdown(crowd[0], SHUT_WR);
    assert_true(mesh_closed(&m, crowd[0]));
    close(crowd[1]);
    crowd[1] = 0;
    world_turns(&m.x, 3);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_ACTIVE), CROWD - 2);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_DESTROY), 2);
    assert_int_equal(listener_connections(&m.x.w), CROWD - 2);
}

static void idle_time_goes_on(void **state)
{
    (void)state;
    m.hcm->idle_ms = 60000;
    m.hcm->request_headers_ms = 30000; // its timer of the first request fires while they sleep
    gather(true);
    loop_set_fake_time(m.x.w.loop, 1000000 + 50000);
    world_turns(&m.x, 3);
    assert_int_equal(awake(), IDLE_AWAKE_MAX);
    get(crowd[0]); // starts anew
    loop_set_fake_time(m.x.w.loop, 1000000 + 61000);
    world_turns(&m.x, 3);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_IDLE_TIMEOUT), CROWD - 1);
    assert_true(mesh_closed(&m, crowd[1]));
    get(crowd[0]);
    loop_set_fake_time(m.x.w.loop, 1000000 + 130000);
    assert_true(mesh_closed(&m, crowd[0]));
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_ACTIVE), 0);
}

static void has_no_longer_life(void **state)
{
    (void)state;
    m.hcm->max_connection_ms = 90000;
    gather(true);
    loop_set_fake_time(m.x.w.loop, 1000000 + 91000);
    world_turns(&m.x, 3);
    assert_int_equal(mesh_http(&m, STAT_ID_HTTP_CX_MAX_DURATION), CROWD);
    assert_true(mesh_closed(&m, crowd[0]));
}

static void requests_are_counted_on(void **state)
{
    (void)state;
    m.hcm->max_requests_per_connection = 3;
    gather(true);
    for (int i = 0; i < CROWD; i++) {
        get(crowd[i]);
    }
    world_send(crowd[0], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    const char *got = mesh_until(&m, crowd[0], "\r\n\r\n");
    assert_non_null(strcasestr(got, "\r\nconnection: close\r\n"));
    assert_true(mesh_closed(&m, crowd[0]));
}

static void drains(void **state)
{
    (void)state;
    gather(true);
    listener_drain_notify(&m.x.w, false);
    world_send(crowd[0], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    const char *got = mesh_until(&m, crowd[0], "\r\n\r\n");
    assert_non_null(strcasestr(got, "\r\nconnection: close\r\n"));
    loop_set_fake_time(m.x.w.loop, 1000000 + m.hcm->drain_ms + 1000);
    assert_true(mesh_closed(&m, crowd[1]));
    world_turns(&m.x, 3);
    assert_int_equal(listener_connections(&m.x.w), 0);
}

// Those that cannot sleep, with a request under way, do not keep the others awake.
static void busy_ones_do_not_stand_in_the_way(void **state)
{
    (void)state;
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = mesh_client(&m);
        world_send(crowd[i], "POST / HTTP/1.1\r\nHost: h\r\nContent-Le");
    }
    world_turns(&m.x, 3);
    assert_int_equal(awake(), CROWD);
    enum { MORE = 300 };
    int more[MORE];
    for (int i = 0; i < MORE; i++) {
        more[i] = mesh_client(&m);
        get(more[i]);
    }
    world_turns(&m.x, 3);
    assert_in_range(awake(), CROWD, 2 * CROWD + 2);
    for (int i = 0; i < MORE; i++) {
        close(more[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(costs_little, setup, teardown),
        cmocka_unit_test_setup_teardown(sleeps_and_answers_again, setup, teardown),
        cmocka_unit_test_setup_teardown(takes_a_request_in_pieces_and_two_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(second_protocol_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_never_spoke_sleeps_too, setup, teardown),
        cmocka_unit_test_setup_teardown(ends_are_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(idle_time_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(has_no_longer_life, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_are_counted_on, setup, teardown),
        cmocka_unit_test_setup_teardown(drains, setup, teardown),
        cmocka_unit_test_setup_teardown(busy_ones_do_not_stand_in_the_way, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
