// SPDX-License-Identifier: Apache-2.0
// One limit of a circuit breaker. Any thread.
#ifndef PROXY_UPSTREAM_BREAKER_H
#define PROXY_UPSTREAM_BREAKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

// Takes one place; false when limit of them are taken.
bool breaker_take(atomic_uint *n, uint32_t limit);
void breaker_give(atomic_uint *n);

#endif
