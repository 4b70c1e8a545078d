// SPDX-License-Identifier: Apache-2.0
// Private to lib/http: h1_limits.lenient. Heads and trailers that old programs write a little wrong are written again in the one strict form,
// and then read by the strict parser; what has more than one reading stays refused.
#ifndef LIB_HTTP_H1_LENIENT_H
#define LIB_HTTP_H1_LENIENT_H

#include <stdbool.h>
#include <stddef.h>

enum { H1_LENIENT_EMPTY_LINES = 8 }; // in front of a request

// Writes raw[n] (whole lines, the empty one last) to out, which has room for 2 * n bytes, and returns the length:
//  - a line may end with LF alone (RFC 9112 §2.2);
//  - a folded line is joined with one SP (§5.2), but not the first one behind the start line, which is no continuation of a field;
//  - request_line: runs of SP and HTAB between its words become one SP, those at its end go (§3).
// trailers: there is no start line.
size_t h1_lenient_text(const char *raw, size_t n, bool request_line, bool trailers, char *out);

#endif
