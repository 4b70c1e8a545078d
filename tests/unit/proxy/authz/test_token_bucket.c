// SPDX-License-Identifier: Apache-2.0
// The bucket with a clock of its own: filling, overflow, threads.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/authz/token_bucket.h"

static const uint64_t S = 1000000000ull;

static void starts_full_and_fills_evenly(void **state)
{
    (void)state;
    struct token_bucket b;
    uint64_t t = 1000000 * S;
    token_bucket_init(&b, 3, 1, 3600 * 1000);
    assert_int_equal(token_bucket_left(&b, t), 3);
    for (int i = 3; i > 0; i--) {
        assert_true(token_bucket_take(&b, t, 1));
        assert_int_equal(token_bucket_left(&b, t), i - 1);
    }
    assert_false(token_bucket_take(&b, t, 1));
    assert_int_equal(token_bucket_wait_ms(&b, t), 3600 * 1000);
    assert_false(token_bucket_take(&b, t + 3599 * S, 1));
    assert_int_equal(token_bucket_wait_ms(&b, t + 3599 * S), 1000);
    assert_true(token_bucket_take(&b, t + 3600 * S, 1));
    assert_false(token_bucket_take(&b, t + 3600 * S, 1));
    assert_int_equal(token_bucket_wait_ms(&b, t + 2 * 3600 * S), 0);
    assert_int_equal(token_bucket_left(&b, t + 100 * 3600 * S), 3); // no more than it holds
}

static void several_at_a_time_or_none(void **state)
{
    (void)state;
    struct token_bucket b;
    token_bucket_init(&b, 10, 10, 1000);
    assert_true(token_bucket_take(&b, 5 * S, 7));
    assert_false(token_bucket_take(&b, 5 * S, 4));
    assert_int_equal(token_bucket_left(&b, 5 * S), 3);
    assert_true(token_bucket_take(&b, 5 * S + S / 10, 4));
    assert_false(token_bucket_take(&b, 5 * S + S, 0)); // as in Envoy
    assert_false(token_bucket_take(&b, 500 * S, 11));
    token_bucket_give(&b, 500 * S, 5);
    assert_int_equal(token_bucket_left(&b, 500 * S), 10);
    assert_true(token_bucket_take(&b, 500 * S, 10));
    token_bucket_give(&b, 500 * S, 2);
    assert_int_equal(token_bucket_left(&b, 500 * S), 2);
}

static void clocks_of_threads_may_differ_a_little(void **state)
{
    (void)state;
    struct token_bucket b;
    token_bucket_init(&b, 2, 1, 1000);
    assert_true(token_bucket_take(&b, 100 * S, 2));
    assert_false(token_bucket_take(&b, 99 * S, 1)); // behind: nothing there, nothing broken
    assert_int_equal(token_bucket_left(&b, 99 * S), 0);
    assert_true(token_bucket_take(&b, 101 * S, 1));
}

enum { THREADS = 2, TOKENS = 50000 };
static struct token_bucket shared;

static void *drain(void *arg)
{
    unsigned *got = arg;
    for (unsigned i = 0; i < TOKENS; i++) {
        *got += token_bucket_take(&shared, 7 * S, 1);
    }
    return NULL;
}

static void threads_share_it_exactly(void **state)
{
    (void)state;
    pthread_t th[THREADS];
    unsigned got[THREADS] = { 0 }, sum = 0;
    token_bucket_init(&shared, TOKENS, 1, 1000);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&th[i], NULL, drain, &got[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(th[i], NULL);
        sum += got[i];
    }
    assert_int_equal(sum, TOKENS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_full_and_fills_evenly),
        cmocka_unit_test(several_at_a_time_or_none),
        cmocka_unit_test(clocks_of_threads_may_differ_a_little),
        cmocka_unit_test(threads_share_it_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
