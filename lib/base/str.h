// SPDX-License-Identifier: Apache-2.0
// A borrowed view of bytes: pointer and length, no NUL needed. The owner is whoever made the bytes.
#ifndef LIB_BASE_STR_H
#define LIB_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p; // borrowed; may be NULL when n is 0
    size_t n;      // bytes
};

// A literal as a view, usable in static initialisers.
#define STR(lit) ((struct str){ .p = (lit), .n = sizeof(lit) - 1 })
#define STR_INIT(lit) { .p = (lit), .n = sizeof(lit) - 1 }
// printf("%.*s", STR_FMT(s))
#define STR_FMT(s) (int)(s).n, (s).p

// View of a NUL-terminated string; NULL gives the empty view.
static inline struct str str_c(const char *s)
{
    return (struct str){ .p = s, .n = s ? strlen(s) : 0 };
}
static inline struct str str_n(const void *p, size_t n)
{
    return (struct str){ .p = p, .n = n };
}
static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool str_is(struct str a, const char *lit)
{
    return str_eq(a, str_c(lit));
}

// ASCII case-insensitive equality.
bool str_eq_nocase(struct str a, struct str b);
// Byte-wise order, shorter first on a common prefix: <0, 0, >0.
int str_cmp(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
// Index of the first c, or -1.
ptrdiff_t str_find(struct str s, char c);
// Index of the first occurrence of needle, or -1.
ptrdiff_t str_find_str(struct str s, struct str needle);
// Without leading and trailing spaces and tabs.
struct str str_trim(struct str s);
// Cuts *rest at the first sep: returns the part before it and moves *rest behind it. When no sep is left, returns all and empties *rest (p = NULL).
struct str str_split(struct str *rest, char sep);
// s without its first n bytes (n is clipped).
struct str str_skip(struct str s, size_t n);
// Decimal digits only (no sign, no space), the whole view, at most max. false otherwise; *ret untouched then.
bool str_to_u64(struct str s, uint64_t max, uint64_t *ret);
// Heap copy with a NUL; the caller frees. Aborts when out of memory (boot and control path only).
char *str_dup(struct str s);

#endif
