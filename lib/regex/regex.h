// SPDX-License-Identifier: Apache-2.0
// Regular expressions with RE2's meaning and linear time, which is what xDS says (type.matcher.v3.RegexMatcher). The shim behind it is the
// only C++ of the project. Compiled expressions are immutable and may be used by any thread.
#ifndef LIB_REGEX_REGEX_H
#define LIB_REGEX_REGEX_H

#include "lib/base/arena.h"
#include "lib/base/err.h"

struct regex;
enum { REGEX_LENGTH_MAX = 16384, REGEX_MEMORY_MAX = 1 << 20 };

// NULL + err (RE2's own words) when it does not compile.
struct regex *regex_new(struct str pattern, struct err *err);
void regex_free(struct regex *r);
// The whole text matches.
bool regex_full_match(const struct regex *r, struct str text);
// Some part of the text matches (admin filter=).
bool regex_search(const struct regex *r, struct str text);
// Replaces all matches by substitution (\1 … \9, \0); result in the arena. false when the substitution is malformed.
bool regex_replace_all(const struct regex *r, struct str text, struct str substitution, struct arena *a, struct str *ret);

#endif
