// SPDX-License-Identifier: Apache-2.0
#include "lib/base/err.h"

#include <stdio.h>
#include <string.h>

static const char ELLIPSIS[] = "…";

// Ends a message that did not fit with "…", never in the middle of a UTF-8 sequence.
static void cut(char *msg)
{
    size_t at = ERR_MSG_MAX - sizeof(ELLIPSIS);
    while (at > 0 && ((unsigned char)msg[at] & 0xc0) == 0x80) {
        at--;
    }
    memcpy(msg + at, ELLIPSIS, sizeof(ELLIPSIS));
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
    if (!err) {
        return code;
    }
    // Through a copy: an argument may be err->msg itself.
    char msg[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    if (n < 0) {
        msg[0] = '\0';
    } else if (n >= (int)sizeof(msg)) {
        cut(msg);
    }
    err->code = code;
    memcpy(err->msg, msg, sizeof(msg));
    return code;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
    if (!err) {
        return -1;
    }
    char msg[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n;
    if (len < sizeof(msg)) {
        int m = snprintf(msg + len, sizeof(msg) - len, ": %s", err->msg);
        len += m < 0 ? 0 : (size_t)m;
    }
    if (len >= sizeof(msg)) {
        cut(msg);
    }
    memcpy(err->msg, msg, sizeof(msg));
    return err->code;
}

int err_errno(struct err *err, int errno_value, const char *what)
{
    char text[128];
    // GNU strerror_r: thread-safe, may return a static string.
    return err_set(err, -errno_value, "%s: %s", what, strerror_r(errno_value, text, sizeof(text)));
}
