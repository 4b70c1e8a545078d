// SPDX-License-Identifier: Apache-2.0
// Sixteen bytes at a time: where a byte of some kind stands, as one bit for each byte, the first byte's lowest. Written with the compiler's
// vectors; only the step from a vector to bits differs between machines. Every function reads SCAN_BYTES bytes at p.
#ifndef LIB_HTTP_SCAN_H
#define LIB_HTTP_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { SCAN_BYTES = 16 };
typedef uint8_t scan_v __attribute__((vector_size(SCAN_BYTES)));

#define SCAN_ALL(c) ((scan_v){ c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c })

static inline scan_v scan_load(const char *p)
{
    scan_v v;
    memcpy(&v, p, sizeof(v));
    return v;
}

// A vector with every one of the n < SCAN_BYTES bytes at p and no other, some more than once: for questions about all of them. n 0: 'x'.
static inline scan_v scan_load_short(const char *p, size_t n)
{
    uint64_t a = 0x7878787878787878u, b;
    if (n >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
    } else if (n >= 4) {
        uint32_t c, d;
        memcpy(&c, p, 4);
        memcpy(&d, p + n - 4, 4);
        b = a = c | (uint64_t)d << 32;
    } else {
        if (n) {
            a = ((unsigned char)p[0] | (uint64_t)(unsigned char)p[n / 2] << 8 | (uint64_t)(unsigned char)p[n - 1] << 16) |
                (uint64_t)(unsigned char)p[0] << 24;
            a |= a << 32;
        }
        b = a;
    }
    uint64_t both[2] = { a, b };
    scan_v v;
    memcpy(&v, both, sizeof(v));
    return v;
}

// m: each byte 0 or 0xff.
static inline uint32_t scan_bits_anywhere(scan_v m)
{
    uint32_t bits = 0;
    for (int i = 0; i < SCAN_BYTES; i++) {
        bits |= (uint32_t)(m[i] & 1) << i;
    }
    return bits;
}

static inline uint32_t scan_bits(scan_v m)
{
#if defined(__SSE2__)
    return (uint32_t)_mm_movemask_epi8((__m128i)m);
#elif defined(__aarch64__)
    static const uint8_t weights[SCAN_BYTES] = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    uint8x16_t b = vandq_u8((uint8x16_t)m, vld1q_u8(weights));
    return (uint32_t)vaddv_u8(vget_low_u8(b)) | (uint32_t)vaddv_u8(vget_high_u8(b)) << 8;
#else
    return scan_bits_anywhere(m);
#endif
}

static inline scan_v scan_v_control(scan_v v)
{
    return ((scan_v)(v <= SCAN_ALL(0x1f)) & ~(scan_v)(v == SCAN_ALL('\t'))) | (scan_v)(v == SCAN_ALL(0x7f));
}

// Not of class CH_PATH (lib/http/chars.h): control bytes, blank, '#', DEL and all above.
static inline scan_v scan_v_not_target(scan_v v)
{
    return (scan_v)(v <= SCAN_ALL(0x20)) | (scan_v)(v >= SCAN_ALL(0x7f)) | (scan_v)(v == SCAN_ALL('#'));
}

static inline uint32_t scan_equal(const char *p, char c)
{
    return scan_bits((scan_v)(scan_load(p) == SCAN_ALL((uint8_t)c)));
}

// Control bytes but HTAB.
static inline uint32_t scan_control(const char *p)
{
    return scan_bits(scan_v_control(scan_load(p)));
}

static inline uint32_t scan_not_target(const char *p)
{
    return scan_bits(scan_v_not_target(scan_load(p)));
}

// Not a letter, digit, '-' or '.': what nearly every host name is made of.
static inline uint32_t scan_not_plain_host(const char *p)
{
    scan_v v = scan_load(p), letter = (v | SCAN_ALL(0x20)) - SCAN_ALL('a'), digit = v - SCAN_ALL('0');
    scan_v plain = (scan_v)(letter <= SCAN_ALL(25)) | (scan_v)(digit <= SCAN_ALL(9)) | (scan_v)(v == SCAN_ALL('-')) |
                   (scan_v)(v == SCAN_ALL('.'));
    return scan_bits(~plain);
}

static inline unsigned scan_first(uint32_t bits) // bits != 0
{
    return (unsigned)__builtin_ctz(bits);
}

#endif
