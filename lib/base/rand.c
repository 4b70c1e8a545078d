// SPDX-License-Identifier: Apache-2.0
#include "lib/base/rand.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/random.h>

#include "lib/base/check.h"

static _Thread_local uint64_t state;
static _Thread_local bool seeded;

// SplitMix64 (Steele, Lea, Flood 2014): one addition and a mixing function; good enough for balancing, not for secrets.
uint64_t rand_u64(void)
{
    if (__builtin_expect(!seeded, 0)) {
        rand_bytes(&state, sizeof(state));
        seeded = true;
    }
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t rand_below(uint64_t n)
{
    CHECK(n > 0);
    // Lemire's multiplication: the high half of a 128-bit product; products in the biased part are drawn again.
    unsigned __int128 m = (unsigned __int128)rand_u64() * n;
    if ((uint64_t)m < n) {
        uint64_t least = -n % n;
        while ((uint64_t)m < least) {
            m = (unsigned __int128)rand_u64() * n;
        }
    }
    return (uint64_t)(m >> 64);
}

double rand_double(void)
{
    return (double)(rand_u64() >> 11) * 0x1.0p-53;
}

void rand_seed(uint64_t seed)
{
    state = seed;
    seeded = true;
}

void rand_bytes(void *p, size_t n)
{
    char *out = p;
    while (n) {
        ssize_t k = getrandom(out, n, 0);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        CHECK(k > 0);
        out += k;
        n -= (size_t)k;
    }
}

void rand_uuid(char out[RAND_UUID_MAX])
{
    // 256 bytes at a time per thread: a request id is made for every request, and one system call each would show.
    static _Thread_local unsigned char pool[256];
    static _Thread_local size_t left;
    if (left == 0) {
        rand_bytes(pool, sizeof(pool));
        left = sizeof(pool);
    }
    left -= 16;
    unsigned char *b = pool + left;
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40); // RFC 9562 §5.4: version 4
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80); // §4.1: variant 10
    static const char digits[] = "0123456789abcdef";
    char *o = out;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *o++ = '-';
        }
        *o++ = digits[b[i] >> 4];
        *o++ = digits[b[i] & 15];
    }
    *o = '\0';
}
