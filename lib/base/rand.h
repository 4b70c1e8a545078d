// SPDX-License-Identifier: Apache-2.0
// Random numbers: a fast per-thread generator for balancing and jitter, and the kernel's for secrets and ids.
#ifndef LIB_BASE_RAND_H
#define LIB_BASE_RAND_H

#include <stddef.h>
#include <stdint.h>

uint64_t rand_u64(void);               // this thread's generator, seeded from the kernel on first use
uint64_t rand_below(uint64_t n);       // uniform in [0, n), n > 0
double rand_double(void);              // uniform in [0, 1)
void rand_seed(uint64_t seed);         // this thread; tests only
void rand_bytes(void *p, size_t n);    // getrandom(2); aborts on failure
enum { RAND_UUID_MAX = 37 };
void rand_uuid(char out[RAND_UUID_MAX]); // RFC 9562 version 4, text

#endif
