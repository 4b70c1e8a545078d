// SPDX-License-Identifier: Apache-2.0
// One limit of a circuit breaker. Any thread.
#ifndef PROXY_UPSTREAM_BREAKER_H
#define PROXY_UPSTREAM_BREAKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct breaker_limits;

// Takes one place; false when limit of them are taken.
bool breaker_take(atomic_uint *n, uint32_t limit);
void breaker_give(atomic_uint *n);
// Retries at a time that l allows with so many requests active and pending. (A budget over time is not in it.)
uint32_t breaker_retries_allowed(const struct breaker_limits *l, uint32_t active);

#endif
