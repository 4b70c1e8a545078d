// SPDX-License-Identifier: Apache-2.0
// Sorting as Go's sort.Slice does it. istioctl sorts its tables with it, often by keys that tie (chains of one listener by
// destination) or by a comparison that is no order (route names, numbers only), so that what comes first depends on the
// algorithm. With the same algorithm a diff between istioctl's output and ours is empty.
#ifndef CLI_ORDER_H
#define CLI_ORDER_H

#include <stdbool.h>
#include <stddef.h>

typedef bool order_less_fn(const void *a, const void *b);

// Sorts n pointers in place; not stable. At most O(n log n) comparisons whatever the input.
void order_sort(const void **v, size_t n, order_less_fn *less);

#endif
