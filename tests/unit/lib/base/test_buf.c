// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "lib/base/buf.h"
#include "lib/base/rand.h"

enum { CAP = BUF_SLICE_ROOM };

// Walks the chain and compares it with what should be there.
static void check(const struct buf *b, const char *want, size_t n)
{
    assert_int_equal(b->len, n);
    size_t at = 0;
    const struct slice *last = NULL;
    for (const struct slice *s = b->head; s; last = s, s = s->next) {
        assert_true(s->off < s->end && s->end <= s->cap); // no empty slices
        assert_memory_equal(s->data + s->off, want + at, s->end - s->off);
        at += s->end - s->off;
    }
    assert_int_equal(at, n);
    assert_ptr_equal(b->tail, last);
    if (n == 0) {
        assert_null(b->head);
    }
}

static char *pattern(size_t n)
{
    char *p = malloc(n + 1);
    for (size_t i = 0; i < n; i++) {
        p[i] = (char)(i * 31 + i / 251);
    }
    return p;
}

static void test_append_drain(void **state)
{
    (void)state;
    char *p = pattern(100000);
    struct buf b = { 0 };
    buf_append(&b, p, 0);
    check(&b, p, 0);
    buf_append(&b, p, 10);
    buf_append(&b, p + 10, 99990);
    check(&b, p, 100000);
    buf_drain(&b, 5);
    check(&b, p + 5, 99995);
    buf_drain(&b, CAP - 5); // exactly to the end of the first slice
    check(&b, p + CAP, 100000 - CAP);
    buf_drain(&b, 0);
    buf_drain(&b, 100000 - CAP);
    check(&b, p, 0);
    assert_null(buf_front(&b).p);
    free(p);
}

static void test_reserve_commit(void **state)
{
    (void)state;
    struct buf b = { 0 };
    size_t room;
    char *p = buf_reserve(&b, 100, &room);
    assert_true(room >= 100);
    assert_int_equal(buf_len(&b), 0);
    buf_commit(&b, 0);
    assert_null(b.head); // an empty buffer holds nothing
    p = buf_reserve(&b, CAP, &room);
    assert_int_equal(room, CAP);
    memset(p, 'a', CAP - 10);
    buf_commit(&b, CAP - 10);
    p = buf_reserve(&b, 10, &room); // fits the rest of the slice
    assert_int_equal(room, 10);
    buf_commit(&b, 0);
    p = buf_reserve(&b, 11, &room); // does not
    assert_int_equal(room, CAP);
    buf_commit(&b, 0);
    assert_ptr_equal(b.head, b.tail);
    assert_null(b.head->next);
    p = buf_reserve(&b, 11, &room);
    memcpy(p, "hello world", 11);
    buf_commit(&b, 11);
    assert_int_equal(b.len, CAP + 1);
    char tail[12];
    assert_int_equal(buf_peek(&b, CAP - 10, tail, sizeof(tail)), 11);
    assert_memory_equal(tail, "hello world", 11);
    buf_clear(&b);
}

static void test_reserve_without_commit(void **state)
{
    (void)state;
    struct buf b = { 0 };
    size_t room;
    struct iovec iov[8];
    buf_reserve(&b, 1, &room);
    buf_append(&b, "x", 1);
    check(&b, "x", 1);
    buf_reserve(&b, CAP, &room);
    buf_append(&b, "y", 1);
    check(&b, "xy", 2);
    buf_reserve_iov(&b, 60000, iov, 8);
    assert_int_equal(buf_pullup(&b, 2).n, 2);
    check(&b, "xy", 2);
    buf_reserve_iov(&b, 60000, iov, 8);
    struct buf to = { 0 };
    assert_int_equal(buf_move(&to, &b, 2), 2);
    check(&to, "xy", 2);
    check(&b, "", 0);
    buf_reserve(&b, 1, &room);
    assert_int_equal(buf_move(&b, &to, 1), 1);
    check(&b, "x", 1);
    buf_reserve(&b, CAP, &room);
    buf_drain(&b, 1);
    check(&b, "", 0);
    buf_reserve(&b, 1, &room);
    buf_clear(&b);
    buf_clear(&to);
}

static void test_reserve_iov(void **state)
{
    (void)state;
    char *p = pattern(5 * CAP);
    for (size_t n = 0; n <= 3 * CAP + 100; n += 997) {
        struct buf b = { 0 };
        buf_append(&b, p, 100);
        struct iovec iov[4];
        int count = buf_reserve_iov(&b, 4 * CAP, iov, 4);
        assert_int_equal(count, 4);
        size_t left = n;
        for (int i = 0; i < count && left; i++) {
            size_t k = iov[i].iov_len < left ? iov[i].iov_len : left;
            memcpy(iov[i].iov_base, p + 100 + (n - left), k);
            left -= k;
        }
        assert_int_equal(left, 0);
        buf_commit_iov(&b, n);
        check(&b, p, n + 100);
        buf_clear(&b);
    }
    struct buf b = { 0 };
    struct iovec iov[4];
    assert_int_equal(buf_reserve_iov(&b, 10, iov, 4), 1);
    buf_commit_iov(&b, 0);
    assert_null(b.head);
    free(p);
}

static void test_move(void **state)
{
    (void)state;
    char *p = pattern(4 * CAP);
    struct buf a = { 0 }, b = { 0 };
    buf_append(&a, p, 3 * CAP);
    struct slice *first = a.head;
    assert_int_equal(buf_move(&b, &a, 0), 0);
    assert_int_equal(buf_move(&b, &a, CAP + 100), CAP + 100);
    assert_ptr_equal(b.head, first); // a whole slice moved by pointer
    check(&b, p, CAP + 100);
    check(&a, p + CAP + 100, 2 * CAP - 100);
    assert_int_equal(buf_move(&b, &a, SIZE_MAX), 2 * CAP - 100);
    check(&b, p, 3 * CAP);
    check(&a, p, 0);
    // All of it into an empty buffer.
    assert_int_equal(buf_move(&a, &b, SIZE_MAX), 3 * CAP);
    check(&a, p, 3 * CAP);
    check(&b, p, 0);
    buf_clear(&a);
    // Small pieces share a slice.
    for (size_t i = 0; i < 1000; i++) {
        buf_append(&a, p + i, 1);
        buf_move(&b, &a, 1);
    }
    check(&b, p, 1000);
    assert_ptr_equal(b.head, b.tail);
    buf_clear(&b);
    free(p);
}

static void test_pullup(void **state)
{
    (void)state;
    char *p = pattern(5 * CAP);
    struct buf b = { 0 };
    buf_append(&b, p, 4 * CAP);
    assert_int_equal(buf_pullup(&b, 0).n, 0);
    struct slice *head = b.head;
    assert_int_equal(buf_pullup(&b, CAP).n, CAP);
    assert_ptr_equal(b.head, head); // contiguous already
    buf_drain(&b, CAP - 10);
    struct str s = buf_pullup(&b, 100);
    assert_memory_equal(s.p, p + CAP - 10, 100);
    check(&b, p + CAP - 10, 3 * CAP + 10);
    s = buf_pullup(&b, 2 * CAP); // larger than any slice
    assert_memory_equal(s.p, p + CAP - 10, 2 * CAP);
    check(&b, p + CAP - 10, 3 * CAP + 10);
    s = buf_pullup(&b, b.len);
    assert_memory_equal(s.p, p + CAP - 10, s.n);
    check(&b, p + CAP - 10, 3 * CAP + 10);
    buf_append(&b, p + 4 * CAP, 10);
    check(&b, p + CAP - 10, 3 * CAP + 20);
    buf_clear(&b);
    free(p);
}

static void test_peek_iov(void **state)
{
    (void)state;
    char *p = pattern(3 * CAP), out[64];
    struct buf b = { 0 };
    struct iovec iov[2];
    assert_int_equal(buf_peek(&b, 0, out, 10), 0);
    assert_int_equal(buf_iov(&b, iov, 2), 0);
    buf_append(&b, p, 3 * CAP);
    assert_int_equal(buf_peek(&b, CAP - 32, out, 64), 64);
    assert_memory_equal(out, p + CAP - 32, 64);
    assert_int_equal(buf_peek(&b, 3 * CAP - 3, out, 64), 3);
    assert_int_equal(buf_peek(&b, 3 * CAP, out, 64), 0);
    assert_int_equal(buf_peek(&b, 30 * CAP, out, 64), 0);
    buf_drain(&b, 1);
    assert_int_equal(buf_iov(&b, iov, 2), 2);
    assert_int_equal(iov[0].iov_len, CAP - 1);
    assert_memory_equal(iov[1].iov_base, p + CAP, CAP);
    buf_clear(&b);
    free(p);
}

static void test_printf(void **state)
{
    (void)state;
    struct buf b = { 0 };
    buf_printf(&b, "%s", "");
    check(&b, "", 0);
    buf_printf(&b, "a=%d", 5);
    check(&b, "a=5", 3);
    char *big = malloc(40001);
    memset(big, 'x', 40000);
    big[40000] = '\0';
    buf_printf(&b, "%s", big); // more than one slice
    buf_drain(&b, 3);
    check(&b, big, 40000);
    buf_clear(&b);
    free(big);
}

// A thousand random operations against a plain array.
static void test_random_operations(void **state)
{
    (void)state;
    enum { MODEL = 1 << 20 };
    rand_seed(42);
    char *p = pattern(MODEL);
    struct buf a = { 0 }, b = { 0 };
    size_t in = 0, mid = 0, out = 0; // appended, moved to b, drained from b
    struct iovec iov[8];
    size_t room;
    for (int i = 0; i < 3000; i++) {
        size_t n = rand_below(4) ? rand_below(200) : rand_below(3 * CAP);
        switch (rand_below(6)) {
        case 0:
            n = n < MODEL - in ? n : MODEL - in;
            buf_append(&a, p + in, n);
            in += n;
            break;
        case 1: {
            char *w = buf_reserve(&a, rand_below(CAP), &room);
            n = n < room ? n : room;
            n = n < MODEL - in ? n : MODEL - in;
            memcpy(w, p + in, n);
            buf_commit(&a, n);
            in += n;
            break;
        }
        case 2:
            mid += buf_move(&b, &a, n);
            break;
        case 3:
            n = n < b.len ? n : b.len;
            buf_drain(&b, n);
            out += n;
            break;
        case 4:
            buf_pullup(&b, n < b.len ? n : b.len);
            break;
        case 5:
            buf_reserve_iov(rand_below(2) ? &a : &b, n, iov, 8); // and never committed
            break;
        }
        assert_int_equal(a.len, in - mid);
        assert_int_equal(b.len, mid - out);
    }
    buf_append(&a, p + in, 1);
    buf_append(&b, p + mid, a.len); // drops what reservations left
    check(&a, p + mid, in - mid + 1);
    check(&b, p + out, in - out + 1);
    buf_clear(&a);
    buf_clear(&b);
    free(p);
}

static void test_prepend(void **state)
{
    (void)state;
    struct buf b = { 0 };
    char head[BUF_HEADROOM + 1] = "0123456789abcdef";
    assert_false(buf_prepend(&b, head, 1)); // nothing to stand in front of
    char *p = pattern(2 * CAP);
    buf_append(&b, p, 2 * CAP);
    assert_true(buf_prepend(&b, head + 7, 9));
    assert_int_equal(b.len, 2 * CAP + 9);
    assert_int_equal(buf_front(&b).n, CAP + 9);
    assert_memory_equal(buf_front(&b).p, head + 7, 9);
    assert_false(buf_prepend(&b, head, BUF_HEADROOM - 8)); // only seven bytes are left
    buf_drain(&b, 9);
    check(&b, p, 2 * CAP);
    assert_true(buf_prepend(&b, head, BUF_HEADROOM));
    buf_drain(&b, BUF_HEADROOM + CAP); // the second slice's room is its own
    assert_true(buf_prepend(&b, p, BUF_HEADROOM));
    buf_drain(&b, BUF_HEADROOM);
    check(&b, p + CAP, CAP);
    buf_clear(&b);
    struct iovec iov[3]; // room behind the headroom here, too
    assert_int_equal(buf_reserve_iov(&b, 3 * CAP, iov, 3), 3);
    memcpy(iov[0].iov_base, p, CAP);
    memcpy(iov[1].iov_base, p + CAP, 100);
    buf_commit_iov(&b, CAP + 100);
    buf_drain(&b, CAP);
    assert_true(buf_prepend(&b, head, BUF_HEADROOM));
    buf_clear(&b);
    free(p);
}

static size_t held(const struct buf *b)
{
    size_t n = 0;
    for (const struct slice *s = b->head; s; s = s->next) {
        n += sizeof(*s) + s->cap;
    }
    return n;
}

static void test_compact(void **state)
{
    (void)state;
    char *p = pattern(2 * CAP);
    static const size_t sizes[] = { 1, 500, 8000, 20000 };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct buf b = { 0 };
        size_t n = sizes[i];
        for (size_t at = 0, k; at < n; at += k) { // each piece in a slice of its own
            struct buf part = { 0 };
            k = n - at < 1500 ? n - at : 1500;
            buf_append(&part, p + at, k);
            struct slice *s = part.head;
            if (b.tail) {
                b.tail->next = s;
            } else {
                b.head = s;
            }
            b.tail = s;
            b.len += k;
        }
        buf_compact(&b);
        assert_true(held(&b) <= n + 4 * (sizeof(struct slice) + BUF_HEADROOM));
        check(&b, p, n);
        size_t before = held(&b);
        buf_compact(&b); // nothing to gain
        assert_int_equal(held(&b), before);
        buf_append(&b, p + n, 100);
        check(&b, p, n + 100);
        buf_drain(&b, n);
        check(&b, p + n, 100);
        buf_clear(&b);
    }
    struct buf none = { 0 };
    buf_compact(&none);
    assert_null(none.head);
    struct buf full = { 0 };
    buf_append(&full, p, CAP);
    struct slice *same = full.head;
    buf_compact(&full);
    assert_ptr_equal(full.head, same);
    buf_clear(&full);
    free(p);
}

static void test_cache_is_bounded(void **state)
{
    (void)state;
    struct buf b = { 0 };
    char *p = pattern(CAP);
    for (int i = 0; i < 400; i++) {
        buf_append(&b, p, CAP);
    }
    buf_clear(&b); // more than the cache keeps
    buf_append(&b, p, 1);
    buf_clear(&b);
    buf_cache_free();
    buf_cache_free();
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_drain), cmocka_unit_test(test_reserve_commit),
        cmocka_unit_test(test_reserve_without_commit), cmocka_unit_test(test_reserve_iov),
        cmocka_unit_test(test_move), cmocka_unit_test(test_pullup), cmocka_unit_test(test_peek_iov),
        cmocka_unit_test(test_printf), cmocka_unit_test(test_random_operations), cmocka_unit_test(test_prepend),
        cmocka_unit_test(test_compact), cmocka_unit_test(test_cache_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
