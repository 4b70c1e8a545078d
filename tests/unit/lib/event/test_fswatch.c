// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/event/fswatch.h"

static struct loop *loop;
static char dir[64];
static int changes;
static uint64_t now = 1000;

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    return p;
}

static void put(const char *name, const char *text)
{
    assert_int_equal(file_write_atomic(in_dir(name), str_c(text), 0644, NULL), 0);
}

static void on_change(void *arg)
{
    (void)arg;
    changes++;
}

// Events so far are read, then ms go by.
static int after(uint64_t ms)
{
    changes = 0;
    loop_turn(loop, 0);
    now += ms;
    loop_set_fake_time(loop, now);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    return changes;
}

static int setup(void **state)
{
    (void)state;
    loop = loop_new(NULL);
    loop_set_fake_time(loop, now);
    snprintf(dir, sizeof(dir), "/tmp/remora-watch-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char cmd[128];
    loop_free(loop);
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
    return system(cmd);
}

static void test_folder(void **state)
{
    (void)state;
    struct fswatch *w = fswatch_new(loop, dir, 50, on_change, NULL, NULL);
    assert_non_null(w);
    assert_int_equal(after(1000), 0);
    put("a", "1");
    put("b", "1");
    assert_int_equal(after(49), 0);
    assert_int_equal(after(1), 1); // coalesced
    assert_int_equal(after(1000), 0);
    assert_int_equal(mkdir(in_dir("sub"), 0755), 0);
    put("sub/x", "1");
    assert_int_equal(after(60), 1);
    put("sub/x", "2"); // the new folder is watched
    assert_int_equal(after(60), 1);
    unlink(in_dir("sub/x"));
    assert_int_equal(after(60), 1);
    fswatch_free(w);
    put("a", "3");
    assert_int_equal(after(100), 0);
}

static void test_file(void **state)
{
    (void)state;
    put("f", "1");
    struct fswatch *w = fswatch_new(loop, in_dir("f"), 10, on_change, NULL, NULL);
    assert_non_null(w);
    put("other", "1");
    assert_int_equal(after(20), 0);
    put("f", "2");
    assert_int_equal(after(20), 1);
    put("f", "3"); // replaced by rename a second time
    assert_int_equal(after(20), 1);
    unlink(in_dir("f"));
    assert_int_equal(after(20), 1);
    put("f", "4");
    assert_int_equal(after(20), 1);
    fswatch_free(w);
}

// As the kubelet does: f → ..data/f, ..data → ..1, and the link ..data is swapped.
static void test_kubernetes_swap(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_dir("..1"), 0755), 0);
    assert_int_equal(mkdir(in_dir("..2"), 0755), 0);
    put("..1/f", "one");
    put("..2/f", "two");
    assert_int_equal(symlink("..1", in_dir("..data")), 0);
    assert_int_equal(symlink("..data/f", in_dir("f")), 0);
    struct fswatch *w = fswatch_new(loop, in_dir("f"), 10, on_change, NULL, NULL);
    assert_non_null(w);
    assert_int_equal(after(20), 0);
    assert_int_equal(symlink("..2", in_dir("..data_tmp")), 0);
    assert_int_equal(rename(in_dir("..data_tmp"), in_dir("..data")), 0);
    assert_int_equal(after(20), 1);
    fswatch_free(w);
}

static void test_folder_comes_back(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_dir("top"), 0755), 0);
    struct fswatch *w = fswatch_new(loop, in_dir("top"), 10, on_change, NULL, NULL);
    assert_non_null(w);
    assert_int_equal(rmdir(in_dir("top")), 0);
    assert_int_equal(after(20), 1);
    assert_int_equal(mkdir(in_dir("top"), 0755), 0);
    assert_int_equal(after(1000), 1);
    put("top/x", "1");
    assert_int_equal(after(20), 1);
    fswatch_free(w);
}

// Events that never pause still get told.
static void test_never_quiet(void **state)
{
    (void)state;
    struct fswatch *w = fswatch_new(loop, dir, 10, on_change, NULL, NULL);
    int told = 0;
    for (int i = 0; i < 60; i++) {
        put("busy", "x");
        told += after(5);
    }
    assert_true(told >= 1 && told <= 2);
    fswatch_free(w);
}

static void test_missing(void **state)
{
    (void)state;
    struct err err;
    assert_null(fswatch_new(loop, in_dir("no/such"), 10, on_change, NULL, &err));
    assert_non_null(strstr(err.msg, "no/such"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kubernetes_swap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_folder_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_never_quiet, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
