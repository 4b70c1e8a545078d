// SPDX-License-Identifier: Apache-2.0
#include "lib/base/str.h"

#include "lib/base/mem.h"

// ASCII only: header names and host names, whatever the locale.
static inline unsigned char lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c | 0x20) : c;
}

bool str_eq_nocase(struct str a, struct str b)
{
    if (a.n != b.n) {
        return false;
    }
    for (size_t i = 0; i < a.n; i++) {
        if (lower((unsigned char)a.p[i]) != lower((unsigned char)b.p[i])) {
            return false;
        }
    }
    return true;
}

int str_cmp(struct str a, struct str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

bool str_starts(struct str s, struct str prefix)
{
    return prefix.n == 0 || (s.n >= prefix.n && memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool str_ends(struct str s, struct str suffix)
{
    return suffix.n == 0 || (s.n >= suffix.n && memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

ptrdiff_t str_find(struct str s, char c)
{
    const char *q = s.n ? memchr(s.p, c, s.n) : NULL;
    return q ? q - s.p : -1;
}

ptrdiff_t str_find_str(struct str s, struct str needle)
{
    if (needle.n == 0) {
        return 0;
    }
    if (s.n < needle.n) {
        return -1;
    }
    const char *q = memmem(s.p, s.n, needle.p, needle.n);
    return q ? q - s.p : -1;
}

static inline bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct str str_trim(struct str s)
{
    while (s.n && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n && is_blank(s.p[s.n - 1])) {
        s.n--;
    }
    return s;
}

struct str str_split(struct str *rest, char sep)
{
    struct str part = *rest;
    ptrdiff_t at = str_find(part, sep);
    if (at < 0) {
        *rest = (struct str){ 0 };
        return part;
    }
    part.n = (size_t)at;
    *rest = str_skip(*rest, part.n + 1);
    return part;
}

struct str str_skip(struct str s, size_t n)
{
    n = n < s.n ? n : s.n;
    return (struct str){ .p = s.p ? s.p + n : NULL, .n = s.n - n };
}

bool str_to_u64(struct str s, uint64_t max, uint64_t *ret)
{
    uint64_t v = 0;
    if (s.n == 0) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        unsigned d = (unsigned)(unsigned char)s.p[i] - '0';
        if (d > 9 || (i >= 19 && v > (UINT64_MAX - d) / 10)) { // 19 digits always fit
            return false;
        }
        v = v * 10 + d;
    }
    if (v > max) {
        return false;
    }
    *ret = v;
    return true;
}

char *str_dup(struct str s)
{
    char *p = mem_alloc(s.n + 1);
    if (s.n) {
        memcpy(p, s.p, s.n);
    }
    p[s.n] = '\0';
    return p;
}
