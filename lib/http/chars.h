// SPDX-License-Identifier: Apache-2.0
// Byte classes of HTTP/1 and URIs, one table look-up each. Pure data; any thread.
#ifndef LIB_HTTP_CHARS_H
#define LIB_HTTP_CHARS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/str.h"

enum {
    CH_TOKEN = 1, // tchar, RFC 9110 §5.6.2
    CH_PATH = 2,  // what we take in a request target: VCHAR without '#' (Envoy takes the same set and cuts the fragment)
    CH_HOST = 4,  // unreserved and sub-delims of RFC 3986 §3.2.2 without ',' (a list separator to others) and '%'
    CH_HEX = 8,
    CH_DIGIT = 16,
};

extern const uint8_t http_chars[256];

static inline bool ch_is(char c, int classes)
{
    return http_chars[(unsigned char)c] & classes;
}

// Whether s has bytes, and only of these classes.
static inline bool ch_all(struct str s, int classes)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!ch_is(s.p[i], classes)) {
            return false;
        }
    }
    return s.n > 0;
}

// Value of a hexadecimal digit; only for bytes of class CH_HEX.
static inline unsigned ch_hex(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
}

#endif
