// SPDX-License-Identifier: Apache-2.0
#include "lib/regex/regex.h"

#include <errno.h>

#include "lib/regex/re2_shim.h"

// struct regex is RE2's object itself: one allocation, no wrapper.

struct regex *regex_new(struct str pattern, struct err *err)
{
    if (pattern.n > REGEX_LENGTH_MAX) {
        err_set(err, -EINVAL, "the expression has %zu bytes, at most %d are taken", pattern.n, REGEX_LENGTH_MAX);
        return NULL;
    }
    char why[256] = "";
    void *re = re2_shim_new(pattern.p, pattern.n, REGEX_MEMORY_MAX, why, sizeof(why));
    if (!re) {
        err_set(err, -EINVAL, "%s", why);
    }
    return re;
}

void regex_free(struct regex *r)
{
    re2_shim_free(r);
}

bool regex_full_match(const struct regex *r, struct str text)
{
    return re2_shim_match(r, text.p, text.n, true);
}

bool regex_search(const struct regex *r, struct str text)
{
    return re2_shim_match(r, text.p, text.n, false);
}

struct replace_out {
    struct arena *arena;
    struct str text;
};

static void take_result(void *arg, const char *p, size_t n)
{
    struct replace_out *o = arg;
    o->text = arena_str(o->arena, str_n(p, n));
}

bool regex_replace_all(const struct regex *r, struct str text, struct str substitution, struct arena *a, struct str *ret)
{
    struct replace_out o = { .arena = a };
    if (!re2_shim_replace(r, text.p, text.n, substitution.p, substitution.n, take_result, &o) || !o.text.p) {
        return false;
    }
    *ret = o.text;
    return true;
}
