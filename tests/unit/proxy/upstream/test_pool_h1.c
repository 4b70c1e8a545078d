// SPDX-License-Identifier: Apache-2.0
// Pools of HTTP connections against servers that the test plays itself.
#include "tests/unit/proxy/world.h"

#include <stdio.h>

static struct world x;
static struct host_table *table;
static int listen_fd;
static struct addr server_addr;

static int setup(void **state)
{
    (void)state;
    world_init(&x);
    table = host_table_new();
    listen_fd = world_listen(&server_addr);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(listen_fd);
    world_fini(&x);
    host_table_free(table);
    return 0;
}

// One request as the router makes it.
struct call {
    struct pool_request r;
    struct arena arena;
    struct codec_stream *stream;
    struct picked picked;
    struct cluster_worker *cw;
    int ready, failed, status, resets, closes;
    enum pool_failure why;
    bool reused, give_up;
    char detail[128];
};

static void on_response(struct codec_stream *s, struct http_response *resp)
{
    ((struct call *)codec_stream_owner(s))->status = resp->status;
}
static void on_reset(struct codec_stream *s, enum codec_reset why, const char *detail)
{
    (void)why, (void)detail;
    ((struct call *)codec_stream_owner(s))->resets++;
}
static void on_close(struct codec_stream *s)
{
    struct call *c = codec_stream_owner(s);
    c->closes++;
    c->stream = NULL;
}
static const struct codec_stream_ops stream_ops = { .on_response = on_response, .on_reset = on_reset, .on_close = on_close };

static void on_ready(struct pool_request *r, struct codec *c, const struct conn *conn)
{
    (void)conn;
    struct call *k = container_of(r, struct call, r);
    k->ready++;
    k->reused = r->reused;
    if (k->give_up) {
        return;
    }
    k->stream = codec_new_stream(c, &stream_ops, k, &k->arena);
    assert_non_null(k->stream);
    struct http_request q = { .method = STR("GET"), .host = STR("h"), .path = STR("/"), .version = HTTP_11, .end_stream = true };
    headers_init(&q.headers, &k->arena);
    codec_send_request(k->stream, &q);
    codec_flush(c);
}

static void on_fail(struct pool_request *r, enum pool_failure why, const char *detail)
{
    struct call *k = container_of(r, struct call, r);
    k->failed++;
    k->why = why;
    snprintf(k->detail, sizeof(k->detail), "%s", detail ? detail : "");
}

static struct cluster_cfg *cfg_of_snapshot;

// Cluster "c" with the addresses; change may adapt its configuration before it is published.
static struct cluster_worker *put(const struct addr *v, size_t n, void (*change)(struct cluster_cfg *c))
{
    struct lb_endpoint_cfg e[4];
    for (size_t i = 0; i < n; i++) {
        e[i] = world_endpoint(v[i]);
    }
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct cluster_cfg *c = world_cluster("c", LB_ROUND_ROBIN);
    cfg_of_snapshot = c;
    if (change) {
        change(c);
    }
    world_cluster_put(s, c, table, e, n);
    snapshot_unref(world_swap(&x, s));
    return upstream_cluster(&x.w, STR("c"));
}

static void call_start(struct call *k, struct cluster_worker *cw)
{
    static const struct pick none;
    static const struct pool_opts o = { .downstream = HTTP_11 };
    bool give_up = k->give_up;
    *k = (struct call){ .cw = cw, .give_up = give_up };
    k->r.on_ready = on_ready;
    k->r.on_fail = on_fail;
    assert_true(upstream_pick(cw, &none, &k->picked));
    pool_http_get(cw, &k->picked, &o, &k->r);
}

static void call_end(struct call *k)
{
    picked_release(&k->picked);
    arena_fini(&k->arena);
}

static void answer(int fd, const char *text)
{
    char got[1024];
    assert_true(world_read(&x, fd, got, 23) > 0); // some of the request
    world_turns(&x, 1);
    while (recv(fd, got, sizeof(got), MSG_DONTWAIT) > 0) {
    }
    world_send(fd, text);
}
#define OK "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

static uint64_t stat(enum stat_any id)
{
    return world_stat(&x, STAT_CLUSTER, "c", id);
}

static void connections_are_reused(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, NULL);
    struct call k = { 0 };
    int fd = -1;
    for (int i = 0; i < 3; i++) {
        call_start(&k, cw);
        fd = fd < 0 ? world_accept(&x, listen_fd) : fd;
        world_turn_until(&x, k.ready);
        assert_int_equal(k.reused, i > 0);
        answer(fd, OK);
        world_turn_until(&x, k.closes);
        assert_int_equal(k.status, 200);
        call_end(&k);
    }
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_TOTAL), 1);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_ACTIVE), 1);
    close(fd);
    world_turn_until(&x, stat(STAT_ID_CLUSTER_UPSTREAM_CX_ACTIVE) == 0); // died while idle: nobody is told
    call_start(&k, cw);
    fd = world_accept(&x, listen_fd);
    world_turn_until(&x, k.ready);
    assert_false(k.reused);
    answer(fd, OK);
    world_turn_until(&x, k.closes);
    call_end(&k);
    close(fd);
}

static void most_recent_connection_first(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, NULL);
    struct call a = { 0 }, b = { 0 };
    call_start(&a, cw);
    call_start(&b, cw);
    int fa = world_accept(&x, listen_fd), fb = world_accept(&x, listen_fd);
    world_turn_until(&x, a.ready && b.ready);
    answer(fb, OK);
    world_turns(&x, 5);
    answer(fa, OK);
    world_turn_until(&x, a.closes && b.closes);
    struct call c = { 0 };
    call_start(&c, cw);
    assert_int_equal(c.ready, 1); // at once
    answer(fa, OK);               // the one that came back last
    world_turn_until(&x, c.closes);
    call_end(&a);
    call_end(&b);
    call_end(&c);
    close(fa);
    close(fb);
}

static void connection_close_is_honoured(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, NULL);
    struct call k = { 0 };
    for (int i = 0; i < 2; i++) {
        call_start(&k, cw);
        int fd = world_accept(&x, listen_fd);
        answer(fd, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        world_turn_until(&x, k.closes);
        assert_int_equal(k.status, 200);
        assert_false(k.reused);
        assert_string_equal(world_peek(&x, fd), "");
        call_end(&k);
        close(fd);
    }
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_TOTAL), 2);
}

static void one_request_each(struct cluster_cfg *c)
{
    c->max_requests_per_connection = 1;
}

static void max_requests_per_connection(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, one_request_each);
    struct call k = { 0 };
    call_start(&k, cw);
    int fd = world_accept(&x, listen_fd);
    answer(fd, OK);
    world_turn_until(&x, k.closes);
    assert_string_equal(world_peek(&x, fd), "");
    call_end(&k);
    close(fd);
}

static void two_at_most(struct cluster_cfg *c)
{
    c->breakers[0].max_connections = 1;
    c->breakers[0].max_pending = 2;
}

// With one connection allowed the others wait for it, and those beyond max_pending are refused.
static void breakers_hold(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, two_at_most);
    struct call k[4] = { 0 };
    for (int i = 0; i < 3; i++) {
        call_start(&k[i], cw);
    }
    assert_int_equal(k[2].failed, 1);
    assert_int_equal(k[2].why, POOL_FAIL_OVERFLOW);
    int fd = world_accept(&x, listen_fd);
    world_turn_until(&x, k[0].ready);
    assert_int_equal(k[1].ready, 0);
    answer(fd, OK);
    world_turn_until(&x, k[1].ready);
    assert_true(k[1].reused);
    call_start(&k[3], cw); // a place is free again
    assert_int_equal(k[3].failed, 0);
    answer(fd, OK);
    answer(fd, OK);
    world_turn_until(&x, k[3].closes);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_TOTAL), 1);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_RQ_PENDING_OVERFLOW), 1);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_RQ_PENDING_ACTIVE), 0);
    for (int i = 0; i < 4; i++) {
        call_end(&k[i]);
    }
    close(fd);
}

static void three_requests(struct cluster_cfg *c)
{
    c->breakers[0].max_requests = 3;
    c->breakers[0].max_retries = 1;
}

static void request_and_retry_limits(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, three_requests);
    struct host *h = cw->snap->endpoints->v[0].host;
    for (int i = 0; i < 3; i++) {
        assert_true(upstream_request_begin(cw, h, 0));
    }
    assert_false(upstream_request_begin(cw, h, 0));
    assert_true(upstream_request_begin(cw, h, 1)); // the other priority has its own
    upstream_request_done(cw, h, 1, 200, false);
    upstream_request_done(cw, h, 0, 503, false);
    assert_true(upstream_request_begin(cw, h, 0));
    for (int i = 0; i < 3; i++) {
        upstream_request_done(cw, h, 0, 204, false);
    }
    assert_int_equal(atomic_load(&h->rq_active), 0);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_RQ_5XX), 1);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_RQ_2XX), 4);
    assert_true(upstream_retry_begin(cw, 0));
    assert_false(upstream_retry_begin(cw, 0));
    upstream_retry_done(cw, 0);
    assert_true(upstream_retry_begin(cw, 0));
    upstream_retry_done(cw, 0);
}

static void refused_connections_fail_their_requests(void **state)
{
    (void)state;
    struct addr dead = world_dead_port();
    struct cluster_worker *cw = put(&dead, 1, NULL);
    struct call k[3] = { 0 };
    for (int i = 0; i < 3; i++) {
        call_start(&k[i], cw);
    }
    world_turn_until(&x, k[0].failed && k[1].failed && k[2].failed);
    assert_int_equal(k[0].why, POOL_FAIL_CONNECT);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_CONNECT_FAIL), 3);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_ACTIVE), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(k[i].failed, 1);
        call_end(&k[i]);
    }
}

static void http2_upstream(struct cluster_cfg *c)
{
    c->protocol = UPSTREAM_H2;
}

// ---- an HTTP/2 server on the same loop ----

struct h2_side {
    struct codec *codec;
    struct codec_stream *s[8];
    struct arena arena;
    int n;
};

static void h2_request(struct codec *c, struct codec_stream *s, struct http_request *q)
{
    (void)q;
    struct h2_side *d = codec_owner(c);
    assert_in_range(d->n, 0, 7);
    d->s[d->n++] = s;
}
static struct arena *h2_arena(struct codec *c)
{
    return &((struct h2_side *)codec_owner(c))->arena;
}
static void h2_gone(struct codec *c, enum conn_close why)
{
    (void)why;
    ((struct h2_side *)codec_owner(c))->codec = NULL;
    codec_free(c);
}
static const struct codec_ops h2_ops = { .on_request = h2_request, .get_arena = h2_arena, .on_conn_close = h2_gone };

static void h2_accept(struct h2_side *d, uint32_t max_streams)
{
    struct addr none = { 0 };
    const struct codec_opts o = { .max_concurrent_streams = max_streams };
    *d = (struct h2_side){ 0 };
    d->codec = codec_h2_server(conn_accepted(x.w.loop, world_accept(&x, listen_fd), &none, &none, NULL, NULL), &h2_ops, d, &o);
}

static void h2_answer(struct h2_side *d, int i)
{
    struct http_response q = { .status = 200, .content_length = 0, .end_stream = true };
    headers_init(&q.headers, &d->arena);
    codec_send_response(d->s[i], &q);
}

static void h2_end(struct h2_side *d)
{
    codec_free(d->codec);
    arena_fini(&d->arena);
    world_turns(&x, 2);
}

static void streams_share_a_connection(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, http2_upstream);
    struct call k[4] = { 0 };
    struct h2_side d;
    for (int i = 0; i < 3; i++) {
        call_start(&k[i], cw);
    }
    h2_accept(&d, 3);
    world_turn_until(&x, d.n == 3);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_TOTAL), 1);
    for (int i = 2; i >= 0; i--) {
        h2_answer(&d, i);
    }
    world_turn_until(&x, k[0].closes && k[1].closes && k[2].closes);
    assert_int_equal(k[0].status + k[1].status + k[2].status, 600);
    call_start(&k[3], cw); // the same one again
    world_turn_until(&x, d.n == 4);
    assert_true(k[3].reused);
    h2_answer(&d, 3);
    world_turn_until(&x, k[3].closes);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_TOTAL), 1);
    for (int i = 0; i < 4; i++) {
        call_end(&k[i]);
    }
    h2_end(&d);
}

// Many wait for one connection, and its server then says that it takes one stream only: the first stream may last for hours, so the others get
// connections of their own at once.
static void a_limit_that_comes_late_holds_nobody(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, http2_upstream);
    struct call k[3] = { 0 };
    struct h2_side d[3];
    for (int i = 0; i < 3; i++) {
        call_start(&k[i], cw);
    }
    for (int i = 0; i < 3; i++) {
        h2_accept(&d[i], 1);
        world_turn_until(&x, d[i].n == 1);
    }
    for (int i = 0; i < 3; i++) {
        h2_answer(&d[i], 0);
    }
    world_turn_until(&x, k[0].closes && k[1].closes && k[2].closes);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_TOTAL), 3);
    for (int i = 0; i < 3; i++) {
        call_end(&k[i]);
        h2_end(&d[i]);
    }
}

static void goaway_moves_to_another_connection(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, http2_upstream);
    struct call k[2] = { 0 };
    struct h2_side d, e;
    call_start(&k[0], cw);
    h2_accept(&d, 0);
    world_turn_until(&x, d.n == 1);
    codec_drain(d.codec);
    world_turns(&x, 6);
    call_start(&k[1], cw);
    h2_accept(&e, 0);
    world_turn_until(&x, e.n == 1);
    h2_answer(&d, 0); // the old stream is finished there
    h2_answer(&e, 0);
    world_turn_until(&x, k[0].closes && k[1].closes);
    assert_int_equal(k[0].status, 200);
    assert_int_equal(k[1].status, 200);
    assert_int_equal(k[0].resets, 0);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_TOTAL), 2);
    world_turns(&x, 4);
    assert_int_equal(stat(STAT_ID_CLUSTER_UPSTREAM_CX_ACTIVE), 1);
    call_end(&k[0]);
    call_end(&k[1]);
    h2_end(&d);
    h2_end(&e);
}

static void with_empty_slot(struct cluster_cfg *c)
{
    c->default_transport.tls = arena_new(&c->arena, struct tls_cfg);
    c->default_transport.tls->slot = tls_slot_new();
    arena_on_free(&c->arena, (void (*)(void *))tls_slot_unref, c->default_transport.tls->slot);
}

static void no_certificate_no_connection(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, with_empty_slot);
    struct call k = { 0 };
    call_start(&k, cw);
    assert_int_equal(k.failed, 1);
    assert_int_equal(k.why, POOL_FAIL_NO_SECRET);
    world_turns(&x, 5);
    struct addr peer;
    assert_int_equal(socket_accept(listen_fd, &peer), -EAGAIN);
    assert_int_equal(atomic_load(&cw->snap->shared->connections[0]), 0);
    assert_int_equal(atomic_load(&cw->snap->shared->pending[0]), 0);
    call_end(&k);
}

static void cancelled_requests_hear_nothing(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, NULL);
    struct call a = { 0 }, b = { 0 };
    call_start(&a, cw);
    pool_http_cancel(&a.r);
    int fd = world_accept(&x, listen_fd);
    world_turns(&x, 5);
    assert_int_equal(a.ready + a.failed, 0);
    call_start(&b, cw); // gets the connection that was on its way
    assert_int_equal(b.ready, 1);
    answer(fd, OK);
    world_turn_until(&x, b.closes);
    call_end(&a);
    call_end(&b);
    close(fd);
}

// A caller that does not use the connection it is offered: the next one gets it.
static void unused_offer_goes_back(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, NULL);
    struct call a = { .give_up = true }, b = { 0 };
    call_start(&a, cw);
    int fd = world_accept(&x, listen_fd);
    world_turn_until(&x, a.ready);
    call_start(&b, cw);
    assert_int_equal(b.ready, 1);
    answer(fd, OK);
    world_turn_until(&x, b.closes);
    call_end(&a);
    call_end(&b);
    close(fd);
}

// The host leaves: its idle connection closes, the busy one finishes its exchange; a request that runs is not hurt.
static void removed_hosts_drain(void **state)
{
    (void)state;
    struct addr other;
    int other_fd = world_listen(&other);
    struct cluster_worker *cw = put(&server_addr, 1, NULL);
    struct call busy = { 0 }, idle = { 0 }, next = { 0 };
    call_start(&busy, cw);
    call_start(&idle, cw);
    int f1 = world_accept(&x, listen_fd), f2 = world_accept(&x, listen_fd);
    world_turn_until(&x, busy.ready && idle.ready);
    answer(f2, OK);
    world_turn_until(&x, idle.closes);
    struct cluster_cfg *same = cluster_cfg_ref(cw->snap->cfg); // an EDS push: the same configuration, other hosts
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct lb_endpoint_cfg e = world_endpoint(other);
    world_cluster_put(s, same, table, &e, 1);
    snapshot_unref(world_swap(&x, s));
    assert_string_equal(world_peek(&x, f2), "");
    answer(f1, OK);
    world_turn_until(&x, busy.closes);
    assert_int_equal(busy.status, 200);
    assert_int_equal(busy.resets, 0);
    assert_string_equal(world_peek(&x, f1), "");
    assert_ptr_equal(upstream_cluster(&x.w, STR("c")), cw);
    call_start(&next, cw);
    int f3 = world_accept(&x, other_fd);
    answer(f3, OK);
    world_turn_until(&x, next.closes);
    call_end(&busy);
    call_end(&idle);
    call_end(&next);
    close(f1);
    close(f2);
    close(f3);
    close(other_fd);
}

static void removed_clusters_finish_what_runs(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, NULL);
    struct call k = { 0 };
    call_start(&k, cw);
    int fd = world_accept(&x, listen_fd);
    world_turn_until(&x, k.ready);
    assert_true(upstream_request_begin(cw, k.picked.host, 0));
    struct snapshot *s = snapshot_clone(x.w.snap);
    snapshot_del_cluster(s, STR("c"));
    snapshot_unref(world_swap(&x, s));
    assert_null(upstream_cluster(&x.w, STR("c")));
    answer(fd, OK);
    world_turn_until(&x, k.closes);
    assert_int_equal(k.status, 200);
    upstream_request_done(cw, k.picked.host, 0, 200, false);
    call_end(&k);
    close(fd);
}

static void short_idle(struct cluster_cfg *c)
{
    c->idle_timeout_ms = 30;
}

static void idle_connections_age(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(&server_addr, 1, short_idle);
    struct call k = { 0 };
    call_start(&k, cw);
    int fd = world_accept(&x, listen_fd);
    answer(fd, OK);
    world_turn_until(&x, k.closes);
    assert_string_equal(world_peek(&x, fd), "");
    call_end(&k);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(connections_are_reused, setup, teardown),
        cmocka_unit_test_setup_teardown(most_recent_connection_first, setup, teardown),
        cmocka_unit_test_setup_teardown(connection_close_is_honoured, setup, teardown),
        cmocka_unit_test_setup_teardown(max_requests_per_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(breakers_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(request_and_retry_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_connections_fail_their_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(streams_share_a_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(a_limit_that_comes_late_holds_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(goaway_moves_to_another_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(no_certificate_no_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelled_requests_hear_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(unused_offer_goes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(removed_hosts_drain, setup, teardown),
        cmocka_unit_test_setup_teardown(removed_clusters_finish_what_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(idle_connections_age, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
