// SPDX-License-Identifier: Apache-2.0
// What the program says: messages on standard error (text or JSON lines), one result on standard output.
#ifndef INIT_NET_REPORT_H
#define INIT_NET_REPORT_H

#include "init-net/options.h"
#include "lib/base/json.h"

// "error", "warn", "info" or "debug". Which are shown depends on --log_output_level.
__attribute__((format(printf, 3, 4))) void report_message(const struct options *o, const char *level, const char *fmt,
                                                          ...);
// Shows the warnings collected in o.
void report_warnings(const struct options *o);
// The end of a command that failed: warnings and the reason on standard error and, with --output json, on standard output
// an object with the result "failed" and the reason as "error".
void report_failed(const struct options *o, const struct err *err);
// Begins the JSON result: opens an object with command, version and result. out must be empty.
void report_begin(const struct options *o, struct json_writer *w, struct buf *out, const char *result);
// Adds warnings, closes the object, writes it to standard output and frees out.
void report_end(const struct options *o, struct json_writer *w, struct buf *out);
// Writes all of out to fd and frees it. 0 or -errno.
int report_write(int fd, struct buf *out);

#endif
