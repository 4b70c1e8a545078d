// SPDX-License-Identifier: Apache-2.0
// Readers of YAML fields, with errors that name file, line and field.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"

static int fail(struct loader *l, int code, const struct json *n, const char *fmt, va_list ap)
{
    char text[ERR_MSG_MAX / 2];
    vsnprintf(text, sizeof(text), fmt, ap);
    if (n && n->key.n) {
        err_set(l->err, code, "%s:%d: %.*s: %s", l->file, n->line, STR_FMT(n->key), text);
    } else {
        err_set(l->err, code, "%s:%d: %s", l->file, n ? n->line : 0, text);
    }
    return -EINVAL;
}

int ld_fail(struct loader *l, const struct json *n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail(l, -EINVAL, n, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

int ld_mistyped(struct loader *l, const struct json *n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail(l, -EPROTOTYPE, n, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

int ld_members(struct loader *l, const struct json *n, const char *known)
{
    if (n->type != JSON_OBJECT) {
        return ld_mistyped(l, n, "must be an object");
    }
    for (const struct json *m = n->first; m; m = m->next) {
        struct str rest = str_c(known);
        bool found = false;
        while (rest.n && !found) {
            found = str_eq(str_split(&rest, ' '), m->key);
        }
        if (!found) {
            return ld_mistyped(l, m, "unknown or unsupported field; known here: %s", known);
        }
    }
    return 0;
}

int ld_str(struct loader *l, const struct json *n, const char *key, struct str *ret)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != JSON_STRING && !(m->plain && (m->type == JSON_NUMBER || m->type == JSON_BOOL))) {
        return ld_mistyped(l, m, "must be text");
    }
    *ret = arena_str(l->a, m->text);
    return 0;
}

static bool is_integer(struct str s)
{
    uint64_t x;
    return str_to_u64(str_starts(s, STR("-")) ? str_skip(s, 1) : s, UINT64_MAX, &x);
}

static int num_of(struct loader *l, const struct json *m, uint64_t max, uint64_t *ret)
{
    if (!is_integer(m->text)) {
        return ld_mistyped(l, m, "must be a number from 0 to %llu", (unsigned long long)max);
    }
    if (!str_to_u64(m->text, max, ret)) {
        return ld_fail(l, m, "must be a number from 0 to %llu", (unsigned long long)max);
    }
    return 0;
}

int ld_u32(struct loader *l, const struct json *n, const char *key, uint64_t max, uint32_t *ret)
{
    const struct json *m = json_get(n, key);
    uint64_t v;
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (num_of(l, m, max, &v)) {
        return -EINVAL;
    }
    *ret = (uint32_t)v;
    return 0;
}

int ld_port(struct loader *l, const struct json *n, const char *key, uint16_t *ret)
{
    uint32_t v = *ret;
    if (ld_u32(l, n, key, 65535, &v)) {
        return -EINVAL;
    }
    *ret = (uint16_t)v;
    return 0;
}

int ld_bool(struct loader *l, const struct json *n, const char *key, bool *ret)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != JSON_BOOL) {
        return ld_mistyped(l, m, "must be true or false");
    }
    *ret = m->boolean;
    return 0;
}

// One decimal number at the start of *rest, which moves behind it. Nothing else that strtod takes is a number here.
static bool take_number(struct str *rest, double *ret)
{
    char text[40];
    size_t n = 0;
    while (n < rest->n && n < sizeof(text) - 1 && ((rest->p[n] >= '0' && rest->p[n] <= '9') || rest->p[n] == '.')) {
        text[n] = rest->p[n];
        n++;
    }
    text[n] = 0;
    char *end;
    *ret = strtod(text, &end);
    *rest = str_skip(*rest, n);
    return n > 0 && end == text + n;
}

// Go's durations: numbers with units, one after the other, without a sign.
bool ld_parse_duration(struct str s, double *ret)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = { { "ms", 0.001 }, { "us", 1e-6 }, { "ns", 1e-9 }, { "s", 1 }, { "m", 60 }, { "h", 3600 } };
    double sum = 0;
    while (s.n) {
        double v;
        size_t i = 0;
        if (!take_number(&s, &v)) {
            return false;
        }
        while (i < array_len(units) && !str_starts(s, str_c(units[i].unit))) {
            i++;
        }
        if (i == array_len(units)) {
            return false;
        }
        sum += v * units[i].seconds;
        s = str_skip(s, strlen(units[i].unit));
    }
    *ret = sum;
    return sum < 1e9;
}

int ld_duration(struct loader *l, const struct json *n, const char *key, struct str *ret)
{
    struct str s = { 0 };
    double v;
    if (ld_str(l, n, key, &s)) {
        return -EINVAL;
    }
    if (!json_get(n, key) || json_get(n, key)->type == JSON_NULL) {
        return 0;
    }
    if (!s.n || !ld_parse_duration(s, &v)) {
        return ld_mistyped(l, json_get(n, key), "\"%.*s\" is not a duration such as 10s, 500ms or 1m", STR_FMT(s));
    }
    *ret = arena_printf(l->a, "%.6fs", v);
    return 0;
}

int ld_number(struct loader *l, const struct json *n, const char *key, double min, double max, double *ret, bool *ret_there)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    struct str s = m->text;
    double v;
    if ((m->type != JSON_NUMBER && !m->plain) || !take_number(&s, &v) || s.n || v < min || v > max) {
        return ld_fail(l, m, "must be a number from %g to %g", min, max);
    }
    *ret = v;
    if (ret_there) {
        *ret_there = true;
    }
    return 0;
}

int ld_percent(struct loader *l, const struct json *n, const char *key, uint32_t *ret, bool *ret_there)
{
    const struct json *m = NULL;
    double v = 0;
    if (ld_object(l, n, key, &m) || (m && (ld_members(l, m, "value") || ld_number(l, m, "value", 0, 100, &v, NULL)))) {
        return -EINVAL;
    }
    if (m) {
        *ret = (uint32_t)(v * 10000 + 1e-6); // Istio cuts; 0.29 * 10000 must not become 2899
        *ret_there = true;
    }
    return 0;
}

int ld_word(struct loader *l, const struct json *n, const char *key, const char *words, int *ret_index)
{
    struct str s = { 0 }, rest = str_c(words);
    if (ld_str(l, n, key, &s)) {
        return -EINVAL;
    }
    if (!s.n) {
        return 0;
    }
    for (int i = 0; rest.n; i++) {
        if (str_eq(str_split(&rest, ' '), s)) {
            *ret_index = i;
            return 0;
        }
    }
    return ld_mistyped(l, json_get(n, key), "\"%.*s\" is not one of: %s", STR_FMT(s), words);
}

int ld_export(struct loader *l, const struct json *n, struct cp_export *ret)
{
    if (ld_strs(l, n, "exportTo", &ret->v, &ret->n)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < ret->n; i++) {
        if (!str_is(ret->v[i], "*") && !str_is(ret->v[i], ".") && !str_is(ret->v[i], "~") &&
            ld_name(l, json_get(n, "exportTo"), "namespace", ret->v[i])) {
            return -EINVAL;
        }
    }
    return 0;
}

static int member(struct loader *l, const struct json *n, const char *key, enum json_type type, const char *what, const struct json **ret)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != type) {
        return ld_mistyped(l, m, "must be %s", what);
    }
    *ret = m;
    return 0;
}

int ld_object(struct loader *l, const struct json *n, const char *key, const struct json **ret)
{
    return member(l, n, key, JSON_OBJECT, "an object", ret);
}

int ld_list(struct loader *l, const struct json *n, const char *key, const struct json **ret)
{
    return member(l, n, key, JSON_ARRAY, "a list", ret);
}

int ld_strs(struct loader *l, const struct json *n, const char *key, struct str **ret, size_t *ret_n)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != JSON_ARRAY) {
        return ld_mistyped(l, m, "must be a list");
    }
    *ret = arena_array(l->a, struct str, m->count + 1);
    for (const struct json *x = m->first; x; x = x->next) {
        if (x->type != JSON_STRING && !x->plain) {
            return ld_mistyped(l, m, "must hold text");
        }
        (*ret)[(*ret_n)++] = arena_str(l->a, x->text);
    }
    return 0;
}

int ld_labels(struct loader *l, const struct json *n, const char *key, struct cp_labels *ret)
{
    const struct json *m = json_get(n, key);
    if (!m || m->type == JSON_NULL) {
        return 0;
    }
    if (m->type != JSON_OBJECT) {
        return ld_mistyped(l, m, "must be an object of texts");
    }
    ret->v = arena_array(l->a, struct cp_label, m->count + 1);
    for (const struct json *x = m->first; x; x = x->next) {
        if (x->type == JSON_OBJECT || x->type == JSON_ARRAY || x->type == JSON_NULL) {
            return ld_mistyped(l, x, "must be text");
        }
        ret->v[ret->n++] = (struct cp_label){ arena_str(l->a, x->key), arena_str(l->a, x->text) };
    }
    return 0;
}

int ld_name(struct loader *l, const struct json *n, const char *what, struct str s)
{
    bool good = s.n > 0 && s.n <= NAME_BYTES_MAX;
    for (size_t i = 0; i < s.n && good; i++) {
        char c = s.p[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    }
    return good ? 0 : ld_fail(l, n, "%s: \"%.*s\" is not a name (letters, digits, '-', '_', '.'; at most %d)", what,
                           (int)(s.n < 80 ? s.n : 80), s.p, NAME_BYTES_MAX);
}

int ld_host(struct loader *l, const struct json *n, const char *what, struct str s)
{
    return ld_name(l, n, what, str_starts(s, STR("*.")) ? str_skip(s, 2) : s);
}

struct str ld_full_name(struct loader *l, struct str host, struct str ns)
{
    if (!host.n || str_find(host, '.') >= 0 || str_is(host, "*")) {
        return host;
    }
    return arena_printf(l->a, "%.*s.%.*s.svc.cluster.local", STR_FMT(host), STR_FMT(ns));
}

void *ld_grow(struct loader *l, void **v, size_t *n, size_t *cap, size_t size)
{
    if (*n == *cap) {
        size_t want = *cap ? *cap * 2 : 16;
        void *p = arena_zalloc(l->a, want * size);
        if (*n) {
            memcpy(p, *v, *n * size);
        }
        *v = p;
        *cap = want;
    }
    return (char *)*v + size * (*n)++;
}
