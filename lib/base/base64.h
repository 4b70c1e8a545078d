// SPDX-License-Identifier: Apache-2.0
// Base64 (RFC 4648 §4 and §5) and hexadecimal.
#ifndef LIB_BASE_BASE64_H
#define LIB_BASE_BASE64_H

#include "lib/base/arena.h"

// Standard alphabet with padding.
struct str base64_encode(struct arena *a, struct str s);
// Accepts both alphabets, padding optional; false on any other byte. Result in the arena.
bool base64_decode(struct arena *a, struct str s, struct str *ret);
struct str hex_encode(struct arena *a, struct str s);

#endif
