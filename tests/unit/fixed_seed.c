// SPDX-License-Identifier: Apache-2.0
// Linked into every unit test: jitter and random choices of the test's thread are the same in each run, so that a failure can be
// repeated and none comes by chance. Weak, for a test of a library that has no random numbers.
#include "lib/base/rand.h"

__attribute__((weak)) void rand_seed(uint64_t seed);

__attribute__((constructor)) static void fix_seed(void)
{
    if (rand_seed) {
        rand_seed(1);
    }
}
