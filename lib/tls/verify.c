// SPDX-License-Identifier: Apache-2.0
#include "lib/tls/verify.h"

// "*.example.com" stands for exactly one non-empty left-most label (RFC 6125 §6.4.3; Envoy does the same).
static bool dns_wildcard(struct str pattern, struct str host)
{
    if (pattern.n < 3 || pattern.p[0] != '*' || pattern.p[1] != '.') {
        return false;
    }
    ptrdiff_t dot = str_find(host, '.');
    return dot > 0 && str_eq_nocase(str_skip(pattern, 1), str_skip(host, (size_t)dot));
}

static bool contains_nocase(struct str s, struct str needle)
{
    for (size_t i = 0; i + needle.n <= s.n; i++) {
        if (str_eq_nocase(str_n(s.p + i, needle.n), needle)) {
            return true;
        }
    }
    return false;
}

static bool text_matches(struct str name, const struct san_matcher *m)
{
    struct str v = m->value;
    switch (m->match) {
    case SAN_EXACT:
        return m->ignore_case ? str_eq_nocase(name, v) : str_eq(name, v);
    case SAN_PREFIX:
        return name.n >= v.n && (m->ignore_case ? str_eq_nocase(str_n(name.p, v.n), v) : str_starts(name, v));
    case SAN_SUFFIX:
        return name.n >= v.n && (m->ignore_case ? str_eq_nocase(str_skip(name, name.n - v.n), v) : str_ends(name, v));
    case SAN_CONTAINS:
        return m->ignore_case ? contains_nocase(name, v) : str_find_str(name, v) >= 0;
    }
    return false;
}

static bool san_matches(const struct san *s, const struct san_matcher *m)
{
    if (m->type != SAN_ANY && m->type != s->type) {
        return false;
    }
    if (s->type == SAN_DNS && m->match == SAN_EXACT) {
        return str_eq_nocase(s->value, m->value) || dns_wildcard(s->value, m->value);
    }
    return text_matches(s->value, m);
}

bool san_match_any(const struct san *names, size_t n, const struct san_matcher *m, size_t count)
{
    if (count == 0) {
        return true;
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < count; k++) {
            if (san_matches(&names[i], &m[k])) {
                return true;
            }
        }
    }
    return false;
}
