// SPDX-License-Identifier: Apache-2.0
#include "lib/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void check_failed(const char *expr, const char *file, int line)
{
    char msg[512];
    int n = snprintf(msg, sizeof(msg), "remora: broken invariant: %s at %s:%d; please report this bug\n", expr, file, line);
    if (n > 0) {
        size_t len = (size_t)n < sizeof(msg) ? (size_t)n : sizeof(msg) - 1;
        // write(2), not stdio: this may run with stdio's lock held.
        ssize_t done = write(STDERR_FILENO, msg, len);
        (void)done;
    }
    abort();
}
