// SPDX-License-Identifier: Apache-2.0
#include "lib/base/base64.h"

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

struct str base64_encode(struct arena *a, struct str s)
{
    size_t n = (s.n + 2) / 3 * 4;
    char *out = arena_alloc(a, n + 1);
    if (!out) {
        return (struct str){ 0 };
    }
    char *o = out;
    for (size_t i = 0; i < s.n; i += 3) {
        size_t k = s.n - i < 3 ? s.n - i : 3;
        uint32_t v = (uint32_t)(unsigned char)s.p[i] << 16;
        v |= k > 1 ? (uint32_t)(unsigned char)s.p[i + 1] << 8 : 0;
        v |= k > 2 ? (uint32_t)(unsigned char)s.p[i + 2] : 0;
        *o++ = ALPHABET[v >> 18];
        *o++ = ALPHABET[v >> 12 & 63];
        *o++ = k > 1 ? ALPHABET[v >> 6 & 63] : '=';
        *o++ = k > 2 ? ALPHABET[v & 63] : '=';
    }
    *o = '\0';
    return (struct str){ .p = out, .n = n };
}

// Value of a digit of RFC 4648 §4 or §5, or -1.
static int digit(unsigned char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

bool base64_decode(struct arena *a, struct str s, struct str *ret)
{
    if (s.n % 4 == 0 && str_ends(s, STR("="))) {
        s.n -= str_ends(s, STR("==")) ? 2 : 1;
    }
    if (s.n % 4 == 1) {
        return false;
    }
    char *out = arena_alloc(a, s.n / 4 * 3 + 3);
    if (!out) {
        return false;
    }
    size_t n = 0;
    uint32_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        int d = digit((unsigned char)s.p[i]);
        if (d < 0) {
            return false;
        }
        v = v << 6 | (uint32_t)d;
        if (i % 4) {
            out[n++] = (char)(v >> (6 - 2 * (i % 4)));
        }
    }
    // RFC 4648 §3.5: left-over bits must be zero, or two texts would mean the same bytes.
    if ((s.n % 4 == 2 && (v & 15)) || (s.n % 4 == 3 && (v & 3))) {
        return false;
    }
    out[n] = '\0';
    *ret = (struct str){ .p = out, .n = n };
    return true;
}

struct str hex_encode(struct arena *a, struct str s)
{
    char *out = arena_alloc(a, s.n * 2 + 1);
    if (!out) {
        return (struct str){ 0 };
    }
    for (size_t i = 0; i < s.n; i++) {
        out[2 * i] = "0123456789abcdef"[(unsigned char)s.p[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[s.p[i] & 15];
    }
    out[s.n * 2] = '\0';
    return (struct str){ .p = out, .n = s.n * 2 };
}
