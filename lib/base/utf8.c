// SPDX-License-Identifier: Apache-2.0
#include "lib/base/utf8.h"

size_t utf8_len(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    if (s.n == 0) {
        return 0;
    }
    if (p[0] < 0x80) {
        return 1;
    }
    size_t n = p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;
    if (n == 0 || s.n < n) {
        return 0;
    }
    // RFC 3629 §4: the second byte alone decides about overlong forms, surrogates and the upper end.
    unsigned char lo = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char hi = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < lo || p[1] > hi) {
        return 0;
    }
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

bool utf8_valid(struct str s)
{
    while (s.n) {
        size_t k = utf8_len(s);
        if (k == 0) {
            return false;
        }
        s = str_skip(s, k);
    }
    return true;
}

size_t utf8_encode(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

static size_t digits(struct str s)
{
    size_t n = 0;
    while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9') {
        n++;
    }
    return n;
}

bool json_is_number(struct str s)
{
    if (s.n && s.p[0] == '-') {
        s = str_skip(s, 1);
    }
    size_t n = digits(s);
    if (n == 0 || (n > 1 && s.p[0] == '0')) {
        return false;
    }
    s = str_skip(s, n);
    if (s.n && s.p[0] == '.') {
        s = str_skip(s, 1);
        n = digits(s);
        if (n == 0) {
            return false;
        }
        s = str_skip(s, n);
    }
    if (s.n && (s.p[0] == 'e' || s.p[0] == 'E')) {
        s = str_skip(s, 1);
        if (s.n && (s.p[0] == '+' || s.p[0] == '-')) {
            s = str_skip(s, 1);
        }
        n = digits(s);
        if (n == 0) {
            return false;
        }
        s = str_skip(s, n);
    }
    return s.n == 0;
}
