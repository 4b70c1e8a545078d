// SPDX-License-Identifier: Apache-2.0
// Files that log lines go to, and the one thread that writes them. Inside of proxy/access_log.
#ifndef PROXY_ACCESS_LOG_FILE_H
#define PROXY_ACCESS_LOG_FILE_H

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/str.h"

struct access_log_sink;

// The sink of this path; opened (created, appended to) on first use, kept until access_log_stop: there are as many as paths in the
// configurations seen. /dev/stdout and /dev/stderr are the process's own descriptors, also where opening them is not permitted.
// Control thread. Negative with err naming the path.
int sink_get(struct str path, struct access_log_sink **ret, struct err *err);
// Number of the sink, from 0, stable.
size_t sink_index(const struct access_log_sink *s);
// Hands all of lines over to the writer thread; dropped and counted when more than ACCESS_LOG_QUEUE_MAX bytes wait. Any thread.
void sink_queue(struct access_log_sink *s, struct buf *lines, uint64_t line_count);
// access_log_stop with another limit, milliseconds.
void sink_stop(uint64_t limit_ms);

#endif
