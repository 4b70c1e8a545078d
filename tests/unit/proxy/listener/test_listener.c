// SPDX-License-Identifier: Apache-2.0
// Sockets over snapshots, drain, and what happens without descriptors. The terminal filter echoes nothing; it holds the connection.
#define WORLD_WITHOUT_UPSTREAM
#include "tests/unit/proxy/world.h"

#include <sys/resource.h>

#include "proxy/listener/listener.h"
#include "proxy/listener/listener_filter.h"
#include "proxy/listener/network_filter.h"

static struct world x;
static int drained, aborted;

static void closed(struct conn *c, enum conn_close why)
{
    (void)why;
    downstream_close(c->owner);
}
static const struct conn_ops held_ops = { .on_close = closed };

static void on_drain(struct downstream *d)
{
    drained++;
    downstream_close(d);
}
static void on_abort(struct downstream *d)
{
    (void)d;
    aborted++;
}

static const struct downstream_ops downstream_ops = { .on_drain = on_drain, .on_abort = on_abort };

static void hold(struct downstream *d, const void *cfg)
{
    (void)cfg;
    d->conn->ops = &held_ops;
    d->conn->owner = d;
    d->ops = &downstream_ops;
    if (cfg) {
        conn_write_bytes(d->conn, cfg, strlen(cfg));
    }
}
static const struct network_filter_ops terminal = { .ext = { .name = "hold" }, .terminal = true, .start = hold };

static int setup(void **state)
{
    (void)state;
    world_init(&x);
    listener_worker_init(&x.w);
    drained = aborted = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    listener_worker_fini(&x.w);
    world_fini(&x);
    return 0;
}

static void drop_chain(void *c)
{
    filter_chain_unref(c);
}

static struct filter_chain *chain_new(const char *greeting)
{
    struct filter_chain *c = filter_chain_new();
    c->filters = arena_new(&c->arena, struct ext);
    c->filters[0] = (struct ext){ .ops = &terminal.ext, .cfg = greeting };
    c->filter_count = 1;
    return c;
}

// Takes chain.
static struct listener_cfg *listener_of(const char *name, struct addr at, bool bind, struct filter_chain *chain)
{
    struct listener_cfg *l = listener_cfg_new();
    l->name = l->stat_name = arena_str(&l->arena, str_c(name));
    l->addresses = arena_new(&l->arena, struct addr);
    l->addresses[0] = at;
    l->address_count = 1;
    l->bind_to_port = bind;
    arena_on_free(&l->arena, drop_chain, chain);
    l->default_chain = chain;
    return l;
}

static struct listener_cfg *listener_new(const char *name, struct addr at, bool bind, const char *greeting)
{
    return listener_of(name, at, bind, chain_new(greeting));
}

// Publishes exactly these; takes the references.
static void publish(struct listener_cfg **v, size_t n)
{
    struct snapshot *s = snapshot_clone(x.w.snap);
    snapshot_set_listeners(s, v, n);
    for (size_t i = 0; i < n; i++) {
        listener_cfg_unref(v[i]);
    }
    struct snapshot *old = world_swap(&x, s);
    listener_on_snapshot(&x.w, old);
    snapshot_unref(old);
}

static int dial(const struct addr *a)
{
    bool done;
    struct socket_connect_opts o = { 0 };
    return socket_connect(a, &o, &done);
}

static bool refused(const struct addr *a)
{
    int fd = dial(a);
    if (fd < 0) {
        return true;
    }
    world_turns(&x, 3);
    bool r = socket_error(fd) == -ECONNREFUSED || strcmp(world_peek(&x, fd), "reset") == 0;
    close(fd);
    return r;
}

static void accepts_and_counts(void **state)
{
    (void)state;
    struct addr at = world_dead_port();
    struct listener_cfg *l = listener_new("l", at, true, "hello");
    publish(&l, 1);
    int a = dial(&at), b = dial(&at);
    assert_string_equal(world_peek(&x, a), "hello");
    assert_string_equal(world_peek(&x, b), "hello");
    assert_int_equal(listener_connections(&x.w), 2);
    close(a);
    world_turn_until(&x, listener_connections(&x.w) == 1);
    assert_int_equal(world_stat(&x, STAT_LISTENER, "l", STAT_ID_LISTENER_DOWNSTREAM_CX_TOTAL), 2);
    assert_int_equal(world_stat(&x, STAT_LISTENER, "l", STAT_ID_LISTENER_DOWNSTREAM_CX_ACTIVE), 1);
    close(b);
}

// Another content on the same address: the socket stays, so that not one connection is refused meanwhile; old connections drain.
static void changed_listener_keeps_its_socket(void **state)
{
    (void)state;
    struct addr at = world_dead_port();
    struct listener_cfg *l = listener_new("l", at, true, "one");
    publish(&l, 1);
    int a = dial(&at);
    assert_string_equal(world_peek(&x, a), "one");
    int queued = dial(&at); // in the accept queue while the configuration changes
    l = listener_new("l", at, true, "two");
    publish(&l, 1);
    assert_string_equal(world_peek(&x, queued), "two");
    assert_string_equal(world_peek(&x, a), "");
    assert_int_equal(drained, 1);
    close(a);
    close(queued);
}

// The same content as a new object (equal hash), and a snapshot in which only others changed: nothing is drained.
static void unchanged_listener_is_left_alone(void **state)
{
    (void)state;
    struct addr at = world_dead_port(), other = world_dead_port();
    struct listener_cfg *v[2] = { listener_new("l", at, true, "one") };
    v[0]->hash = (struct hash128){ 1, 2 };
    listener_cfg_ref(v[0]);
    publish(v, 1);
    int a = dial(&at);
    assert_string_equal(world_peek(&x, a), "one");
    v[1] = listener_new("other", other, true, "x");
    publish(v, 2);
    v[0] = listener_new("l", at, true, "one");
    v[0]->hash = (struct hash128){ 1, 2 };
    publish(v, 1);
    world_turns(&x, 3);
    assert_int_equal(drained, 0);
    assert_int_equal(listener_connections(&x.w), 1);
    assert_true(refused(&other));
    close(a);
}

static int gone; // listeners that were freed

static void note_gone(void *unused)
{
    (void)unused;
    gone++;
}

// A version of the listener "l" with these hashes and a chain that is also elsewhere.
static struct listener_cfg *version(struct addr at, uint64_t hash, uint64_t rest, struct filter_chain *shared)
{
    struct listener_cfg *l = listener_of("l", at, true, filter_chain_ref(shared));
    l->hash = (struct hash128){ hash, 1 };
    l->rest_hash = (struct hash128){ rest, 2 };
    arena_on_free(&l->arena, note_gone, NULL);
    return l;
}

static void chains_that_stay_keep_their_connections(void **state)
{
    (void)state;
    gone = 0;
    struct addr at = world_dead_port();
    struct filter_chain *one = chain_new("one"), *two = chain_new("two");
    struct listener_cfg *l = version(at, 1, 1, one);
    publish(&l, 1);
    int a = dial(&at);
    assert_string_equal(world_peek(&x, a), "one");
    l = version(at, 2, 1, two); // its default is another one now, and the former chain is still among the others
    l->all_chains = arena_new(&l->arena, struct filter_chain *);
    l->all_chains[l->chain_count++] = one;
    publish(&l, 1);
    assert_int_equal(drained, 0);
    assert_int_equal(gone, 1); // the connection belongs to the new version
    int b = dial(&at);
    assert_string_equal(world_peek(&x, b), "two");
    l = version(at, 3, 1, two);
    publish(&l, 1);
    assert_int_equal(drained, 1); // a's chain is gone
    assert_int_equal(listener_connections(&x.w), 1);
    assert_string_equal(world_peek(&x, a), "");
    l = version(at, 4, 2, two);
    publish(&l, 1);
    assert_int_equal(drained, 2); // not only chains changed
    world_turns(&x, 3);
    assert_int_equal(gone, 3);
    filter_chain_unref(one);
    filter_chain_unref(two);
    close(a);
    close(b);
}

static bool borrowed;

static bool borrows(const struct downstream *d)
{
    (void)d;
    return borrowed;
}

static void hold_and_borrow(struct downstream *d, const void *cfg)
{
    static const struct downstream_ops borrowing = { .on_drain = on_drain, .on_abort = on_abort, .borrows_listener = borrows };
    hold(d, cfg);
    d->ops = &borrowing;
}
static const struct network_filter_ops borrower = { .ext = { .name = "hold" }, .terminal = true, .start = hold_and_borrow };

static void a_listener_that_is_borrowed_stays(void **state)
{
    (void)state;
    gone = 0;
    struct addr at = world_dead_port();
    struct filter_chain *c = chain_new("one");
    c->filters[0].ops = &borrower.ext;
    struct listener_cfg *l = version(at, 1, 1, c);
    publish(&l, 1);
    int a = dial(&at);
    assert_string_equal(world_peek(&x, a), "one");
    borrowed = true;
    l = version(at, 2, 1, c);
    publish(&l, 1);
    assert_int_equal(gone, 0);
    l = version(at, 3, 1, c);
    publish(&l, 1);
    assert_int_equal(gone, 1); // nobody had borrowed the second one
    borrowed = false;
    l = version(at, 4, 1, c);
    publish(&l, 1);
    assert_int_equal(gone, 3);
    assert_int_equal(drained, 0);
    assert_int_equal(listener_connections(&x.w), 1);
    filter_chain_unref(c);
    close(a);
}

static void removed_listener_stops_accepting(void **state)
{
    (void)state;
    struct addr at = world_dead_port();
    struct listener_cfg *l = listener_new("l", at, true, "one");
    publish(&l, 1);
    int a = dial(&at);
    assert_string_equal(world_peek(&x, a), "one");
    publish(NULL, 0);
    assert_int_equal(drained, 1);
    assert_true(refused(&at));
    close(a);
}

// Connections that the kernel has taken already, when their listener goes: served by what it was, then drained.
static void removed_listener_serves_its_queue(void **state)
{
    (void)state;
    struct addr at = world_dead_port();
    struct listener_cfg *l = listener_new("l", at, true, "one");
    publish(&l, 1);
    enum { WAITING = 200 }; // more than one turn accepts
    int fd[WAITING];
    for (int i = 0; i < WAITING; i++) {
        fd[i] = dial(&at);
    }
    publish(NULL, 0);
    for (int i = 0; i < WAITING; i++) {
        assert_string_equal(world_peek(&x, fd[i]), "one");
        close(fd[i]);
    }
    assert_int_equal(drained, WAITING);
    assert_true(refused(&at));
}

// The same address with another option wants another socket.
static void replaced_socket_serves_its_queue(void **state)
{
    (void)state;
    struct addr at = world_dead_port();
    struct listener_cfg *l = listener_new("l", at, true, "one");
    publish(&l, 1);
    int queued = dial(&at);
    l = listener_new("l", at, true, "two");
    l->freebind = true;
    publish(&l, 1);
    assert_string_equal(world_peek(&x, queued), "one");
    int next = dial(&at);
    assert_string_equal(world_peek(&x, next), "two");
    close(queued);
    close(next);
}

static enum listener_verdict wants_bytes(struct downstream *d, const void *cfg)
{
    (void)d, (void)cfg;
    return LF_NEED_BYTES;
}
static enum listener_verdict any_byte(struct downstream *d, const void *cfg, struct str bytes, bool eof, size_t *ret_consumed)
{
    (void)d, (void)cfg, (void)eof, (void)ret_consumed;
    return bytes.n ? LF_DONE : LF_NEED_BYTES;
}
static const struct listener_filter_ops waits = {
    .ext = { .name = "waits" }, .on_accept = wants_bytes, .on_bytes = any_byte, .max_bytes = 64,
};

// It waits for its first bytes while its listener goes: drained as soon as somebody can drain it.
static void a_silent_connection_drains_later(void **state)
{
    (void)state;
    struct addr at = world_dead_port();
    struct listener_cfg *l = listener_new("l", at, true, "one");
    l->listener_filters = arena_new(&l->arena, struct listener_filter_cfg);
    l->listener_filters[0] = (struct listener_filter_cfg){ .ext = { .ops = &waits.ext } };
    l->listener_filter_count = 1;
    publish(&l, 1);
    int a = dial(&at);
    world_turn_until(&x, listener_connections(&x.w) == 1);
    publish(NULL, 0);
    assert_int_equal(drained, 0);
    assert_int_equal(listener_connections(&x.w), 1);
    world_send(a, "hi");
    world_turn_until(&x, listener_connections(&x.w) == 0);
    assert_int_equal(drained, 1);
    close(a);
}

static void not_binding_means_no_socket(void **state)
{
    (void)state;
    struct addr at = world_dead_port();
    struct listener_cfg *l = listener_new("v", at, false, "x");
    publish(&l, 1);
    assert_true(refused(&at));
}

static void busy_address_is_retried(void **state)
{
    (void)state;
    struct addr at;
    int holder = world_listen(&at); // without SO_REUSEPORT: in our way
    struct listener_cfg *l = listener_new("l", at, true, "late");
    struct err e = { 0 };
    assert_true(listener_check_bind(l, &e) < 0);
    assert_non_null(strstr(e.msg, "in use"));
    publish(&l, 1);
    close(holder);
    for (int i = 0; i < 3000; i++) {
        int fd = dial(&at);
        loop_turn(x.w.loop, 1);
        if (fd >= 0 && socket_error(fd) == 0) {
            const char *got = world_peek(&x, fd);
            close(fd);
            if (strcmp(got, "late") == 0) {
                return;
            }
        } else if (fd >= 0) {
            close(fd);
        }
    }
    fail_msg("never bound");
}

static void drain_serves_the_queue_and_closes(void **state)
{
    (void)state;
    struct addr in = world_dead_port(), out = world_dead_port();
    struct listener_cfg *v[] = { listener_new("in", in, true, "in"), listener_new("out", out, true, "out") };
    v[0]->direction = DIRECTION_INBOUND;
    v[1]->direction = DIRECTION_OUTBOUND;
    publish(v, 2);
    int queued = dial(&in), o = dial(&out);
    assert_string_equal(world_peek(&x, o), "out");
    listener_drain_notify(&x.w, true);
    assert_int_equal(drained, 1); // world_peek has let the inbound one in
    int more = dial(&in);
    assert_string_equal(world_peek(&x, more), "in"); // notified, still accepting
    int last = dial(&in);
    listener_drain(&x.w, true);
    assert_string_equal(world_peek(&x, last), "in"); // it waited in the queue: served, then drained
    assert_true(refused(&in));
    int o2 = dial(&out);
    assert_string_equal(world_peek(&x, o2), "out");
    listener_drain(&x.w, false);
    assert_true(refused(&out));
    assert_int_equal(listener_connections(&x.w), 0);
    close(queued);
    close(o);
    close(more);
    close(last);
    close(o2);
}

static void the_end_aborts(void **state)
{
    (void)state;
    struct addr at = world_dead_port();
    struct listener_cfg *l = listener_new("l", at, true, "one");
    publish(&l, 1);
    int a = dial(&at);
    assert_string_equal(world_peek(&x, a), "one");
    listener_worker_fini(&x.w);
    assert_int_equal(aborted, 1);
    loop_turn(x.w.loop, 0);
    assert_string_equal(world_peek(&x, a), "");
    listener_worker_init(&x.w); // for the teardown
    close(a);
}

// Out of descriptors: the client at the head of the queue is turned away at once, the loop rests, and goes on later.
static void no_descriptors_no_spin(void **state)
{
    (void)state;
    struct addr at = world_dead_port();
    struct listener_cfg *l = listener_new("l", at, true, "hello");
    publish(&l, 1);
    world_turns(&x, 1);
    int a = dial(&at), b = dial(&at);
    struct rlimit old, now;
    getrlimit(RLIMIT_NOFILE, &old);
    now = old;
    now.rlim_cur = (rlim_t)b + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    // fill gaps below the limit
    int filler[64], fillers = 0;
    for (int fd; fillers < 64 && (fd = dup(0)) >= 0; fillers++) {
        filler[fillers] = fd;
    }
    assert_true(fillers < 64);
    loop_turn(x.w.loop, 50);
    assert_string_equal(world_peek(&x, a), "reset");
    uint64_t before = loop_now_ms(x.w.loop);
    int turns = 0;
    while (loop_now_ms(x.w.loop) < before + 60) {
        loop_turn(x.w.loop, 1000); // nothing to do until the pause is over
        turns++;
    }
    assert_in_range(turns, 0, 5);
    setrlimit(RLIMIT_NOFILE, &old);
    while (fillers > 0) {
        close(filler[--fillers]);
    }
    assert_string_equal(world_peek(&x, b), "hello");
    close(a);
    close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(accepts_and_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(changed_listener_keeps_its_socket, setup, teardown),
        cmocka_unit_test_setup_teardown(unchanged_listener_is_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(chains_that_stay_keep_their_connections, setup, teardown),
        cmocka_unit_test_setup_teardown(a_listener_that_is_borrowed_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(removed_listener_stops_accepting, setup, teardown),
        cmocka_unit_test_setup_teardown(removed_listener_serves_its_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(replaced_socket_serves_its_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(a_silent_connection_drains_later, setup, teardown),
        cmocka_unit_test_setup_teardown(not_binding_means_no_socket, setup, teardown),
        cmocka_unit_test_setup_teardown(busy_address_is_retried, setup, teardown),
        cmocka_unit_test_setup_teardown(drain_serves_the_queue_and_closes, setup, teardown),
        cmocka_unit_test_setup_teardown(the_end_aborts, setup, teardown),
        cmocka_unit_test_setup_teardown(no_descriptors_no_spin, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
