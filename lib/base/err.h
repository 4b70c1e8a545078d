// SPDX-License-Identifier: Apache-2.0
// Why something failed, in words for a person. Cold code only (configuration, command lines, control path): functions return
// 0 or a negative errno-like code and fill *err; the program decides by the code, the person reads the message.
#ifndef LIB_BASE_ERR_H
#define LIB_BASE_ERR_H

#include <stdarg.h>

enum { ERR_MSG_MAX = 1024 };

struct err {
    int code;              // negative errno value, 0 when unset
    char msg[ERR_MSG_MAX]; // NUL-terminated, cut with "…" when too long
};

// Sets code (negative errno) and message; returns code. err may be NULL.
__attribute__((format(printf, 3, 4))) int err_set(struct err *err, int code, const char *fmt, ...);
// Puts "context: " before the message; returns err->code. Used on the way up. err may be NULL (returns -1 then).
__attribute__((format(printf, 2, 3))) int err_wrap(struct err *err, const char *fmt, ...);
// Sets -errno_value and "what: strerror". Returns the code.
int err_errno(struct err *err, int errno_value, const char *what);

#endif
