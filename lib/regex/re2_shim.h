// SPDX-License-Identifier: Apache-2.0
// The seam between C and C++: plain types only, so that the C++ file needs none of our headers. Used by regex.c alone.
#ifndef LIB_REGEX_RE2_SHIM_H
#define LIB_REGEX_RE2_SHIM_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// A compiled RE2, or NULL with RE2's words in why (why_bytes, NUL-terminated, cut).
void *re2_shim_new(const char *p, size_t n, size_t max_mem, char *why, size_t why_bytes);
void re2_shim_free(void *re);
// Whole text (full) or some part of it.
bool re2_shim_match(const void *re, const char *p, size_t n, bool full);
// All matches replaced; sink(arg, …) gets the result once. false when sub is malformed (sink is not called).
bool re2_shim_replace(const void *re, const char *p, size_t n, const char *sub, size_t sub_n,
                      void (*sink)(void *arg, const char *p, size_t n), void *arg);

#ifdef __cplusplus
}
#endif

#endif
