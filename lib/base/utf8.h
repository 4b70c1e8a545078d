// SPDX-License-Identifier: Apache-2.0
// UTF-8 (RFC 3629) and the shape of JSON numbers: what the JSON and YAML halves share.
#ifndef LIB_BASE_UTF8_H
#define LIB_BASE_UTF8_H

#include "lib/base/str.h"

// Bytes (1 to 4) of the well-formed character at the front of s, 0 when there is none: overlong forms, surrogates, values
// above U+10FFFF and cut sequences are not well-formed.
size_t utf8_len(struct str s);
// Whether all of s is well-formed.
bool utf8_valid(struct str s);
// Writes the code point (a Unicode scalar value) to out (at least 4 bytes); returns the bytes written.
size_t utf8_encode(uint32_t c, char *out);
// Whether s is a number as RFC 8259 §6 writes it.
bool json_is_number(struct str s);

#endif
