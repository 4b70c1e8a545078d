// SPDX-License-Identifier: Apache-2.0
// Whether a text begins with, ends with or contains one of many others, in the logarithm of their number.
#include <stdlib.h>

#include "lib/base/mem.h"
#include "proxy/authz/authz_int.h"

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

// The i-th character in the order of comparison.
static unsigned char at(const struct affix_set *t, struct str s, size_t i)
{
    char c = s.p[t->how == SM_SUFFIX ? s.n - 1 - i : i];
    return (unsigned char)(t->ignore_case ? lower(c) : c);
}

// Compares v with as much of s. 0: s begins (or ends) with v.
static int compare(const struct affix_set *t, struct str v, struct str s)
{
    size_t n = v.n < s.n ? v.n : s.n;
    if (t->how != SM_SUFFIX && !t->ignore_case) {
        int order = n ? memcmp(v.p, s.p, n) : 0;
        return order ? order : v.n > s.n;
    }
    for (size_t i = 0; i < n; i++) {
        int order = (int)at(t, v, i) - (int)at(t, s, i);
        if (order) {
            return order;
        }
    }
    return v.n > s.n;
}

static bool begins_with_one(const struct affix_set *t, struct str s)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int order = compare(t, t->v[mid], s);
        if (order == 0) {
            return true;
        }
        if (order < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return false;
}

static bool contains_one(const struct affix_set *t, struct str s)
{
    struct str common = str_n(t->v[0].p, t->common);
    for (; s.n; s = str_skip(s, 1)) {
        if (common.n) {
            ptrdiff_t next = str_find_str(s, common);
            if (next < 0) {
                return false;
            }
            s = str_skip(s, (size_t)next);
        }
        if (begins_with_one(t, s)) {
            return true;
        }
    }
    return false;
}

static bool fits(const struct affix_set *t, struct str s)
{
    if (t->how == SM_EXACT) {
        for (size_t i = 0; i < t->count; i++) {
            if (str_eq(t->v[i], s)) {
                return true;
            }
        }
        return false;
    }
    return t->how == SM_CONTAINS ? contains_one(t, s) : begins_with_one(t, s);
}

static bool printable(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x20 || s.p[i] > 0x7e) {
            return false;
        }
    }
    return true;
}

bool affix_set_fits(const struct affix_set *t, struct str s)
{
    if (!t->expressions || printable(s)) {
        return fits(t, s);
    }
    for (size_t i = 0; i < t->expression_count; i++) { // "." takes no line end and nothing that is not UTF-8
        if (string_matcher_match(t->expressions[i], s)) {
            return true;
        }
    }
    return false;
}

// ---- making one ----

static _Thread_local const struct affix_set *sorted; // for qsort

static int in_order(const void *x, const void *y)
{
    const struct str *a = x, *b = y;
    int order = compare(sorted, *a, *b);
    return order ? order : a->n < b->n ? -1 : a->n > b->n;
}

// Sorts, and leaves out what begins with another one: whatever begins with the former begins with the latter.
static void arrange(struct affix_set *t)
{
    size_t k = 0;
    sorted = t;
    qsort(t->v, t->count, sizeof(*t->v), in_order);
    for (size_t i = 0; i < t->count; i++) {
        if (k == 0 || compare(t, t->v[k - 1], t->v[i]) != 0) {
            t->v[k++] = t->v[i];
        }
    }
    t->count = k;
    struct str first = t->v[0], last = t->v[k - 1];
    while (!t->ignore_case && t->how == SM_CONTAINS && t->common < first.n && t->common < last.n && first.p[t->common] == last.p[t->common]) {
        t->common++;
    }
}

struct affix_set *affix_set_new(struct string_matcher *const *v, size_t n, struct arena *a)
{
    struct affix_set *t = arena_new(a, struct affix_set);
    t->how = v[0]->kind;
    t->ignore_case = v[0]->ignore_case && v[0]->kind != SM_REGEX;
    t->v = arena_array(a, struct str, n);
    t->count = n;
    bool expressions = v[0]->kind == SM_REGEX;
    for (size_t i = 0; i < n; i++) {
        t->v[i] = v[i]->value;
        if (expressions) {
            (void)affix_reduce(v[i], a, &t->how, &t->v[i]);
        }
    }
    if (expressions) {
        struct string_matcher **all = arena_array(a, struct string_matcher *, n);
        memcpy(all, v, n * sizeof(*all));
        t->expressions = all;
        t->expression_count = n;
    }
    if (t->how != SM_EXACT) {
        arrange(t);
    }
    return t;
}

static bool take_any(struct str *s, bool at_end)
{
    bool any = s->n >= 2 && (at_end ? s->p[s->n - 2] == '.' && s->p[s->n - 1] == '*' && (s->n < 3 || s->p[s->n - 3] != '\\')
                                    : s->p[0] == '.' && s->p[1] == '*');
    if (any) {
        *s = at_end ? str_n(s->p, s->n - 2) : str_skip(*s, 2);
    }
    return any;
}

bool affix_reduce(const struct string_matcher *m, struct arena *a, enum string_match *ret_how, struct str *ret_literal)
{
    struct str s = m->value;
    bool before = take_any(&s, false), behind = take_any(&s, true);
    char *out = arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '\\' && i + 1 < s.n && s.p[i + 1] && strchr(".-/:*+?()[]{}|^$\\", s.p[i + 1])) {
            out[n++] = s.p[++i];
        } else if (c < 0x20 || c > 0x7e || strchr("\\.*+?()[]{}|^$", c)) {
            return false;
        } else {
            out[n++] = (char)c;
        }
    }
    if (!n) {
        return false; // ".*": nothing to sort
    }
    *ret_how = before && behind ? SM_CONTAINS : before ? SM_SUFFIX : behind ? SM_PREFIX : SM_EXACT;
    *ret_literal = str_n(out, n);
    return true;
}
