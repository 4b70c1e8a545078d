// SPDX-License-Identifier: Apache-2.0
// The only C++ of the project: RE2 behind C functions. No exception leaves it (built without them; RE2 throws none).
#include "lib/regex/re2_shim.h"

#include <re2/re2.h>

#include <cstdio>
#include <new>
#include <string>

static re2::StringPiece piece(const char *p, size_t n)
{
    return re2::StringPiece(n ? p : "", n);
}

void *re2_shim_new(const char *p, size_t n, size_t max_mem, char *why, size_t why_bytes)
{
    RE2::Options o;
    o.set_log_errors(false);
    o.set_max_mem(static_cast<int64_t>(max_mem));
    RE2 *re = new (std::nothrow) RE2(piece(p, n), o);
    if (!re || !re->ok()) {
        snprintf(why, why_bytes, "%s", re ? re->error().c_str() : "out of memory");
        delete re;
        return nullptr;
    }
    return re;
}

void re2_shim_free(void *re)
{
    delete static_cast<RE2 *>(re);
}

bool re2_shim_match(const void *re, const char *p, size_t n, bool full)
{
    // Match without groups: the DFA alone answers.
    return static_cast<const RE2 *>(re)->Match(piece(p, n), 0, n, full ? RE2::ANCHOR_BOTH : RE2::UNANCHORED, nullptr, 0);
}

bool re2_shim_replace(const void *re, const char *p, size_t n, const char *sub, size_t sub_n,
                      void (*sink)(void *arg, const char *p, size_t n), void *arg)
{
    const RE2 *r = static_cast<const RE2 *>(re);
    std::string why;
    if (!r->CheckRewriteString(piece(sub, sub_n), &why)) {
        return false;
    }
    std::string s(n ? p : "", n);
    RE2::GlobalReplace(&s, *r, piece(sub, sub_n));
    sink(arg, s.data(), s.size());
    return true;
}
