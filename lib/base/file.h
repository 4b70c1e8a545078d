// SPDX-License-Identifier: Apache-2.0
// Small files: tokens, certificates, configuration. Cold code, blocking; never on a worker.
#ifndef LIB_BASE_FILE_H
#define LIB_BASE_FILE_H

#include "lib/base/arena.h"
#include "lib/base/err.h"

// Whole file into the arena (NUL behind the end). More than max_bytes is an error (-EFBIG). Error names the path.
int file_read(const char *path, size_t max_bytes, struct arena *a, struct str *ret, struct err *err);
// Writes path atomically: temporary file beside it, fsync, rename. mode: permission bits.
int file_write_atomic(const char *path, struct str data, int mode, struct err *err);

#endif
