// SPDX-License-Identifier: Apache-2.0
// Real threads: snapshots reach all, errands come home, also those that are on their way when the end comes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/event/signal.h"
#include "proxy/server/workers.h"

static size_t counted_times;

static void applied(void *arg)
{
    ++*(int *)arg;
}

static void counted(void *arg, size_t connections)
{
    (void)arg;
    assert_int_equal(connections, 0);
    counted_times++;
}

static struct snapshot *next(struct snapshot *s, struct loop *l)
{
    struct snapshot *n = snapshot_clone(s);
    n->home = l;
    snapshot_unref(s);
    return n;
}

static void snapshots_reach_all_workers(void **state)
{
    (void)state;
    signal_block_all();
    int calls = 0;
    struct err err = { 0 };
    struct loop *l = loop_new(&err);
    struct stats_store *st = stats_store_new(4);
    struct snapshot *s = snapshot_clone(NULL);
    s->home = l;
    struct workers *w = workers_start(l, st, 3, s, &err);
    assert_non_null(w);
    workers_on_applied(w, applied, &calls);
    s = next(s, l);
    workers_publish(w, s);
    for (int i = 0; i < 2000 && workers_applied(w) < s->version; i++) {
        loop_turn(l, 10);
    }
    assert_int_equal(workers_applied(w), s->version);
    assert_true(calls >= 1);
    counted_times = 0;
    workers_count(w, counted, NULL);
    for (int i = 0; i < 2000 && !counted_times; i++) {
        loop_turn(l, 10);
    }
    assert_int_equal(counted_times, 1);
    // Stopped in the middle of everything, many times over: nothing is lost (the sanitizers tell), each count is answered once.
    for (int i = 0; i < 50; i++) {
        s = next(s, l);
        workers_publish(w, s);
        workers_count(w, counted, NULL);
    }
    workers_drain(w, true, false);
    workers_stop(w);
    assert_int_equal(counted_times, 51);
    snapshot_unref(s);
    loop_turn(l, 0);
    loop_free(l);
    stats_store_free(st);
}

static void stop_and_start(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        snapshots_reach_all_workers(state);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(snapshots_reach_all_workers), cmocka_unit_test(stop_and_start) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
