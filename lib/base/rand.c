// SPDX-License-Identifier: Apache-2.0
#include "lib/base/rand.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
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

// The sixteen digits of eight bytes, first byte first.
static inline void put_hex(const unsigned char *b, char out[16])
{
    const uint64_t ones = 0x0101010101010101u;
    for (int half = 0; half < 2; half++) {
        uint32_t four;
        memcpy(&four, b + 4 * half, sizeof(four));
        uint64_t x = le32toh(four);
        // Each byte to two, each nibble to a byte: the high one first.
        x = (x | x << 16) & 0x0000ffff0000ffffu;
        x = (x | x << 8) & 0x00ff00ff00ff00ffu;
        x = (x >> 4 & ones * 0x0f & 0x00ff00ff00ff00ffu) | (x & 0x000f000f000f000fu) << 8;
        uint64_t letters = (x + ones * 6) >> 4 & ones; // of nibbles above 9
        x += ones * '0' + letters * ('a' - '0' - 10);
        x = htole64(x);
        memcpy(out + 8 * half, &x, sizeof(x));
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
    char hex[32];
    put_hex(b, hex);
    put_hex(b + 8, hex + 16);
    memcpy(out, hex, 8);
    memcpy(out + 9, hex + 8, 4);
    memcpy(out + 14, hex + 12, 4);
    memcpy(out + 19, hex + 16, 4);
    memcpy(out + 24, hex + 20, 12);
    out[8] = out[13] = out[18] = out[23] = '-';
    out[36] = '\0';
}
