// SPDX-License-Identifier: Apache-2.0
#include "lib/base/recycle.h"

#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/rand.h"

static void pieces_have_room(void **st)
{
    (void)st;
    enum { HELD = 200 };
    char *held[HELD] = { 0 };
    size_t size[HELD] = { 0 };
    for (int i = 0; i < 20000; i++) {
        size_t k = rand_below(HELD), n = rand_below(RECYCLE_PIECE_MAX + 100);
        for (size_t b = 0; b < size[k]; b++) { // nobody else wrote into it
            assert_int_equal(held[k][b], (char)k);
        }
        if (held[k] && rand_below(8) == 0) {
            held[k] = recycle_realloc(held[k], ++n); // not 0, which frees
        } else if (held[k]) {
            recycle_free(held[k]);
            held[k] = rand_below(2) ? recycle_malloc(n) : recycle_calloc(1, n);
        } else {
            held[k] = recycle_calloc(n, 1);
            for (size_t b = 0; b < n; b++) {
                assert_int_equal(held[k][b], 0);
            }
        }
        assert_non_null(held[k]);
        assert_true(malloc_usable_size(held[k]) >= n);
        memset(held[k], (int)k, n);
        size[k] = n;
    }
    for (int i = 0; i < HELD; i++) {
        recycle_free(held[i]);
    }
    recycle_free(NULL);
    assert_null(recycle_calloc(SIZE_MAX, 2));
}

static void *free_there(void *p)
{
    recycle_free(p);
    void *q = recycle_malloc(100);
    recycle_free(q);
    return NULL;
}

// Leaks and double frees show under AddressSanitizer's leak check and valgrind.
static void another_thread_may_free(void **st)
{
    (void)st;
    for (int i = 0; i < 10; i++) {
        pthread_t t;
        assert_int_equal(pthread_create(&t, NULL, free_there, recycle_malloc(100)), 0);
        assert_int_equal(pthread_join(t, NULL), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(pieces_have_room), cmocka_unit_test(another_thread_may_free) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
