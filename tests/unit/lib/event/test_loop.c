// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/mem.h"
#include "lib/event/loop.h"
#include "lib/event/signal.h"
#include "lib/event/thread.h"

static struct loop *loop;

static int setup(void **state)
{
    (void)state;
    struct err err;
    loop = loop_new(&err);
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

struct watcher {
    struct loop_fd f;
    int calls;
    uint32_t events;
    struct watcher *drop; // unregister this one when called
};

static void on_event(struct loop_fd *f, uint32_t events)
{
    struct watcher *w = list_entry(f, struct watcher, f);
    w->calls++;
    w->events = events;
    if (w->drop) {
        loop_del_fd(loop_current(), &w->drop->f);
    }
}

static void test_edge_and_level(void **state)
{
    (void)state;
    int p[2], q[2];
    assert_int_equal(pipe(p), 0);
    assert_int_equal(pipe(q), 0);
    struct watcher edge = { .f = { .fd = p[0], .on_event = on_event } };
    struct watcher level = { .f = { .fd = q[0], .on_event = on_event } };
    assert_int_equal(loop_add_fd(loop, &edge.f, EPOLLIN), 0);
    assert_int_equal(loop_add_fd_level(loop, &level.f, EPOLLIN), 0);
    assert_true(loop_add_fd(loop, &edge.f, EPOLLIN) < 0);
    loop_turn(loop, 0);
    assert_int_equal(edge.calls + level.calls, 0);
    assert_int_equal(write(p[1], "x", 1), 1);
    assert_int_equal(write(q[1], "x", 1), 1);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    assert_int_equal(edge.calls, 1);
    assert_int_equal(level.calls, 2);
    assert_int_equal(loop_mod_fd(loop, &level.f, 0), 0);
    loop_turn(loop, 0);
    assert_int_equal(level.calls, 2);
    assert_int_equal(loop_mod_fd(loop, &level.f, EPOLLIN), 0);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    assert_int_equal(level.calls, 4); // still level-triggered
    loop_del_fd(loop, &level.f);
    loop_del_fd(loop, &level.f);
    assert_false(level.f.watched);
    loop_turn(loop, 0);
    assert_int_equal(level.calls, 4);
    loop_close_fd(loop, &edge.f);
    loop_close_fd(loop, &edge.f);
    assert_int_equal(edge.f.fd, -1);
    close(p[1]);
    close(q[0]);
    close(q[1]);
}

// Both are ready in the same turn; whoever is called first unregisters the other, whose event must not come.
static void test_delete_drops_events_of_this_turn(void **state)
{
    (void)state;
    int p[2], q[2];
    assert_int_equal(pipe(p), 0);
    assert_int_equal(pipe(q), 0);
    struct watcher *a = mem_new(struct watcher), *b = mem_new(struct watcher);
    *a = (struct watcher){ .f = { .fd = p[0], .on_event = on_event }, .drop = b };
    *b = (struct watcher){ .f = { .fd = q[0], .on_event = on_event }, .drop = a };
    loop_add_fd(loop, &a->f, EPOLLIN);
    loop_add_fd(loop, &b->f, EPOLLIN);
    assert_int_equal(write(p[1], "x", 1), 1);
    assert_int_equal(write(q[1], "x", 1), 1);
    loop_turn(loop, 0);
    assert_int_equal(a->calls + b->calls, 1);
    loop_del_fd(loop, &a->f);
    loop_del_fd(loop, &b->f);
    free(a);
    free(b);
    for (int i = 0; i < 2; i++) {
        close(p[i]);
        close(q[i]);
    }
}

struct job {
    struct loop_task task;
    int runs;
    bool again;
    struct job *cancel;
    bool die;
};

static void on_task(struct loop_task *t)
{
    struct job *j = list_entry(t, struct job, task);
    j->runs++;
    if (j->again) {
        loop_defer(loop, t);
    }
    if (j->cancel) {
        loop_task_cancel(&j->cancel->task);
    }
    if (j->die) {
        free(j);
    }
}

static void test_tasks(void **state)
{
    (void)state;
    struct job a = { 0 }, b = { 0 };
    loop_task_init(&a.task, on_task);
    loop_task_init(&b.task, on_task);
    loop_defer(loop, &a.task);
    loop_defer(loop, &a.task);
    loop_turn(loop, -1); // tasks waiting: no wait
    assert_int_equal(a.runs, 1);
    a.again = true;
    loop_defer(loop, &a.task);
    loop_turn(loop, -1);
    assert_int_equal(a.runs, 2); // once a turn
    a.again = false;
    a.cancel = &b;
    loop_defer(loop, &b.task);
    loop_turn(loop, -1);
    assert_int_equal(a.runs, 3);
    assert_int_equal(b.runs, 0);
    loop_task_cancel(&b.task);
    struct job *dying = mem_new(struct job);
    loop_task_init(&dying->task, on_task);
    dying->die = true;
    loop_defer(loop, &dying->task);
    loop_free_later(loop, mem_alloc(10));
    loop_turn(loop, -1);
}

// Tasks left when the loop ends are run: objects free themselves there.
static void test_free_runs_tasks(void **state)
{
    (void)state;
    struct loop *l = loop_new(NULL);
    struct job *dying = mem_new(struct job);
    loop_task_init(&dying->task, on_task);
    dying->die = true;
    loop_defer(l, &dying->task);
    loop_free_later(l, mem_alloc(10));
    loop_free(l);
    loop_free(NULL);
}

struct hooked {
    struct loop_hook h;
    int runs;
    struct hooked *drop;
};

static void on_hook(struct loop_hook *h)
{
    struct hooked *x = list_entry(h, struct hooked, h);
    x->runs++;
    if (x->drop) {
        loop_del_hook(&x->drop->h);
    }
}

static void test_hooks(void **state)
{
    (void)state;
    struct hooked a = { .h.fn = on_hook }, b = { .h.fn = on_hook };
    loop_add_hook(loop, &a.h);
    loop_add_hook(loop, &b.h);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    assert_int_equal(a.runs, 2);
    assert_int_equal(b.runs, 2);
    a.drop = &b;
    loop_turn(loop, 0);
    assert_int_equal(b.runs, 2);
    a.drop = &a;
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    assert_int_equal(a.runs, 4);
}

static void test_time(void **state)
{
    (void)state;
    assert_true(loop_wall_ms(loop) > 1577836800000u);
    uint64_t wall = loop_wall_ms(loop), mono = loop_now_ms(loop);
    loop_set_fake_time(loop, mono + 5000);
    assert_int_equal(loop_now_ms(loop), mono + 5000);
    assert_true(loop_wall_ms(loop) == wall + 5000);
    loop_turn(loop, 0);
    assert_int_equal(loop_now_ns(loop), (mono + 5000) * 1000000);
}

// --- other threads ---

enum { SENDERS = 4, PER_SENDER = 20000 };

struct letter {
    struct mailbox_msg m;
    int sender, number;
};
static int last[SENDERS], received;

static void on_letter(struct mailbox_msg *m)
{
    struct letter *x = list_entry(m, struct letter, m);
    assert_int_equal(x->number, last[x->sender] + 1); // in order per sender
    assert_true(loop_is_current(loop));
    assert_ptr_equal(loop_current(), loop);
    last[x->sender] = x->number;
    if (++received == SENDERS * PER_SENDER) {
        loop_stop(loop);
    }
    free(x);
}

static void *sender(void *arg)
{
    int me = (int)(intptr_t)arg;
    for (int i = 1; i <= PER_SENDER; i++) {
        struct letter *x = mem_new(struct letter);
        *x = (struct letter){ .m.fn = on_letter, .sender = me, .number = i };
        loop_post(loop, &x->m);
    }
    return NULL;
}

static void test_mailbox(void **state)
{
    (void)state;
    pthread_t t[SENDERS];
    received = 0;
    memset(last, 0, sizeof(last));
    for (intptr_t i = 0; i < SENDERS; i++) {
        assert_int_equal(thread_start(&t[i], "a name that is far too long", sender, (void *)i, NULL), 0);
    }
    loop_run(loop);
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(t[i], NULL);
    }
    assert_int_equal(received, SENDERS * PER_SENDER);
}

// Two loops that throw one message to and fro: each post must wake a sleeping loop.
static struct loop *other;
static int throws;
static struct mailbox_msg ball;

static void on_ball(struct mailbox_msg *m)
{
    struct loop *here = loop_current();
    if (++throws == 2000) {
        loop_stop(loop);
        loop_stop(other);
        return;
    }
    loop_post(here == loop ? other : loop, m);
}

static void *run_other(void *arg)
{
    (void)arg;
    assert_null(loop_current());
    loop_run(other);
    return NULL;
}

static void test_wakes_sleeper(void **state)
{
    (void)state;
    pthread_t t;
    throws = 0;
    other = loop_new(NULL);
    assert_true(loop_is_current(other)); // nobody runs it yet
    ball.fn = on_ball;
    loop_post(other, &ball);
    assert_int_equal(thread_start(&t, "other", run_other, NULL, NULL), 0);
    loop_run(loop);
    pthread_join(t, NULL);
    loop_free(other);
    assert_int_equal(throws, 2000);
}

static void count_message(struct mailbox_msg *m)
{
    received++;
    free(m);
}

static void test_free_delivers(void **state)
{
    (void)state;
    struct loop *l = loop_new(NULL);
    received = 0;
    for (int i = 0; i < 3; i++) {
        struct mailbox_msg *m = mem_new(struct mailbox_msg);
        m->fn = count_message;
        loop_post(l, m);
    }
    loop_free(l);
    assert_int_equal(received, 3);
}

static void test_stop_before_run(void **state)
{
    (void)state;
    loop_stop(loop);
    loop_run(loop); // returns
}

static int last_signal;
static void on_signal(struct signal_watch *w, int signo)
{
    last_signal = signo;
    signal_watch_stop(w);
}

static void test_signals(void **state)
{
    (void)state;
    signal_block_all();
    struct signal_watch w = { .on_signal = on_signal };
    static const int wanted[] = { SIGHUP, SIGUSR1 };
    assert_int_equal(signal_watch_start(&w, loop, wanted, 2, NULL), 0);
    raise(SIGUSR1);
    loop_turn(loop, 1000);
    assert_int_equal(last_signal, SIGUSR1);
    assert_int_equal(w.fd.fd, -1);
    signal_watch_stop(&w);
}

static void test_cpu_count(void **state)
{
    (void)state;
    int n = thread_cpu_count();
    assert_true(n >= 1 && n <= sysconf(_SC_NPROCESSORS_ONLN));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_edge_and_level, setup, teardown),
        cmocka_unit_test_setup_teardown(test_delete_drops_events_of_this_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tasks, setup, teardown),
        cmocka_unit_test(test_free_runs_tasks),
        cmocka_unit_test_setup_teardown(test_hooks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mailbox, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wakes_sleeper, setup, teardown),
        cmocka_unit_test(test_free_delivers),
        cmocka_unit_test_setup_teardown(test_stop_before_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_signals, setup, teardown),
        cmocka_unit_test(test_cpu_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
