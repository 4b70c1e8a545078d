// SPDX-License-Identifier: Apache-2.0
// Pattern-defeating quicksort (O. Peters, 2021) with the constants of Go's standard library: up to 12 elements by insertion,
// pivot from 1, 3 or 9 samples, a pseudo-random shuffle seeded by the length after a bad split, heap sort after too many.
#include "cli/order.h"

#include <stdint.h>

enum { INSERTION_MAX = 12, SAMPLE_3_MIN = 8, SAMPLE_9_MIN = 50, SWAPS_MAX = 12, SHIFT_STEPS = 5, SHIFT_MIN = 50 };

enum hint { HINT_UNKNOWN, HINT_INCREASING, HINT_DECREASING };

struct sorter {
    const void **v;
    order_less_fn *less;
};

static bool less_at(const struct sorter *s, size_t i, size_t j)
{
    return s->less(s->v[i], s->v[j]);
}

static void swap(struct sorter *s, size_t i, size_t j)
{
    const void *x = s->v[i];
    s->v[i] = s->v[j];
    s->v[j] = x;
}

static int bit_length(uint64_t n)
{
    return n ? 64 - __builtin_clzll(n) : 0;
}

static void insertion(struct sorter *s, size_t a, size_t b)
{
    for (size_t i = a + 1; i < b; i++) {
        for (size_t j = i; j > a && less_at(s, j, j - 1); j--) {
            swap(s, j, j - 1);
        }
    }
}

static void sift_down(struct sorter *s, size_t base, size_t root, size_t n)
{
    for (;;) {
        size_t child = 2 * root + 1;
        if (child >= n) {
            return;
        }
        if (child + 1 < n && less_at(s, base + child, base + child + 1)) {
            child++;
        }
        if (!less_at(s, base + root, base + child)) {
            return;
        }
        swap(s, base + root, base + child);
        root = child;
    }
}

static void heap(struct sorter *s, size_t a, size_t b)
{
    size_t n = b - a;
    for (size_t i = (n - 1) / 2 + 1; i-- > 0;) {
        sift_down(s, a, i, n);
    }
    for (size_t i = n; i-- > 0;) {
        swap(s, a, a + i);
        sift_down(s, a, 0, i);
    }
}

// Three elements around the middle change places with others, to break the pattern that split so badly.
static void shuffle(struct sorter *s, size_t a, size_t b)
{
    uint64_t n = b - a, seed = n, mask = (UINT64_C(1) << bit_length(n)) - 1;
    if (n < SAMPLE_3_MIN) {
        return;
    }
    size_t middle = a + n / 4 * 2;
    for (size_t i = 0; i < 3; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        uint64_t other = seed & mask;
        swap(s, middle - 1 + i, a + (other >= n ? other - n : other));
    }
}

static void order_two(const struct sorter *s, size_t *i, size_t *j, int *swaps)
{
    if (less_at(s, *j, *i)) {
        size_t x = *i;
        *i = *j;
        *j = x;
        (*swaps)++;
    }
}

static size_t median(const struct sorter *s, size_t i, size_t j, size_t k, int *swaps)
{
    order_two(s, &i, &j, swaps);
    order_two(s, &j, &k, swaps);
    order_two(s, &i, &j, swaps);
    return j;
}

static size_t choose_pivot(const struct sorter *s, size_t a, size_t b, enum hint *hint)
{
    size_t n = b - a, i = a + n / 4, j = a + n / 4 * 2, k = a + n / 4 * 3;
    int swaps = 0;
    if (n >= SAMPLE_9_MIN) {
        i = median(s, i - 1, i, i + 1, &swaps);
        j = median(s, j - 1, j, j + 1, &swaps);
        k = median(s, k - 1, k, k + 1, &swaps);
    }
    if (n >= SAMPLE_3_MIN) {
        j = median(s, i, j, k, &swaps);
    }
    *hint = swaps == 0 ? HINT_INCREASING : swaps == SWAPS_MAX ? HINT_DECREASING : HINT_UNKNOWN;
    return j;
}

static void reverse(struct sorter *s, size_t a, size_t b)
{
    for (size_t j = b - 1; a < j; a++, j--) {
        swap(s, a, j);
    }
}

// Repairs up to SHIFT_STEPS places of a range that seems sorted. True when it is sorted then.
static bool repair(struct sorter *s, size_t a, size_t b)
{
    size_t i = a + 1;
    for (int step = 0; step < SHIFT_STEPS; step++) {
        while (i < b && !less_at(s, i, i - 1)) {
            i++;
        }
        if (i == b) {
            return true;
        }
        if (b - a < SHIFT_MIN) {
            return false;
        }
        swap(s, i, i - 1);
        if (i - a >= 2) {
            // Down to the front of all, not of the range: what lies before is not greater.
            for (size_t j = i - 1; j >= 1 && less_at(s, j, j - 1); j--) {
                swap(s, j, j - 1);
            }
        }
        if (b - i >= 2) {
            for (size_t j = i + 1; j < b && less_at(s, j, j - 1); j++) {
                swap(s, j, j - 1);
            }
        }
    }
    return false;
}

// Elements equal to the pivot to the front (none is smaller). Returns the end of them.
static size_t partition_equal(struct sorter *s, size_t a, size_t b, size_t pivot)
{
    size_t i = a + 1, j = b - 1;
    swap(s, a, pivot);
    for (;;) {
        while (i <= j && !less_at(s, a, i)) {
            i++;
        }
        while (i <= j && less_at(s, a, j)) {
            j--;
        }
        if (i > j) {
            return i;
        }
        swap(s, i++, j--);
    }
}

// Smaller ones before the pivot. Returns its place; *ret_already: nothing had to move.
static size_t partition(struct sorter *s, size_t a, size_t b, size_t pivot, bool *ret_already)
{
    size_t i = a + 1, j = b - 1;
    swap(s, a, pivot);
    for (*ret_already = true;; *ret_already = false) {
        while (i <= j && less_at(s, i, a)) {
            i++;
        }
        while (i <= j && !less_at(s, j, a)) {
            j--;
        }
        if (i > j) {
            swap(s, j, a);
            return j;
        }
        swap(s, i++, j--);
    }
}

static void sort_range(struct sorter *s, size_t a, size_t b, int limit)
{
    bool balanced = true, partitioned = true;
    for (;;) {
        size_t n = b - a;
        if (n <= INSERTION_MAX) {
            insertion(s, a, b);
            return;
        }
        if (limit == 0) {
            heap(s, a, b);
            return;
        }
        if (!balanced) {
            shuffle(s, a, b);
            limit--;
        }
        enum hint hint;
        size_t pivot = choose_pivot(s, a, b, &hint);
        if (hint == HINT_DECREASING) {
            reverse(s, a, b);
            pivot = b - 1 - (pivot - a);
            hint = HINT_INCREASING;
        }
        if (balanced && partitioned && hint == HINT_INCREASING && repair(s, a, b)) {
            return;
        }
        if (a > 0 && !less_at(s, a - 1, pivot)) {
            a = partition_equal(s, a, b, pivot);
            continue;
        }
        size_t mid = partition(s, a, b, pivot, &partitioned);
        size_t left = mid - a, right = b - mid;
        balanced = (left < right ? left : right) >= n / 8;
        if (left < right) {
            sort_range(s, a, mid, limit);
            a = mid + 1;
        } else {
            sort_range(s, mid + 1, b, limit);
            b = mid;
        }
    }
}

void order_sort(const void **v, size_t n, order_less_fn *less)
{
    struct sorter s = { .v = v, .less = less };
    sort_range(&s, 0, n, bit_length(n));
}
