// SPDX-License-Identifier: Apache-2.0
// Access logs: who decides (filter), what is written (format), where (file, stdout). Workers only format; lines are handed in batches to one
// writer thread, which drops with a count when it cannot keep up (ACCESS_LOG_QUEUE_MAX bytes).
#ifndef PROXY_ACCESS_LOG_ACCESS_LOG_H
#define PROXY_ACCESS_LOG_ACCESS_LOG_H

#include "proxy/access_log/format.h"
#include "proxy/core/ext.h"
#include "proxy/core/worker.h"

enum { ACCESS_LOG_QUEUE_MAX = 4 * 1024 * 1024, ACCESS_LOG_FLUSH_MS = 1000, ACCESS_LOG_BATCH = 64 * 1024, ACCESS_LOG_STOP_MS = 2000 };

struct access_log_sink;  // one per path, process-wide
struct access_log_filter; // compiled accesslog.v3.AccessLogFilter; NULL = all

struct access_log_cfg { // in its listener's arena
    struct access_log_sink *sink; // NULL: accepted but not written (gRPC and OpenTelemetry loggers until telemetry is built): counted
    struct access_log_filter *filter;
    struct format *format;
};
// Parses accesslog.v3.AccessLog (msg) into arena. Unknown logger types are refused by name, telemetry ones are accepted with sink NULL.
int access_log_parse(const void *msg, struct arena *a, struct access_log_cfg **ret, struct err *err);
// core.v3.SubstitutionFormatString (msg), of any of its kinds, into arena. *ret_content_type: what an HTTP body of it is. -EINVAL + err.
int access_log_format_parse(const void *msg, struct arena *a, struct format **ret, struct str *ret_content_type, struct err *err);
// Evaluates the filters and queues the lines. Worker's thread.
void access_log_write(struct worker *w, struct access_log_cfg *const *logs, size_t n, const struct format_ctx *ctx);
void access_log_worker_init(struct worker *w);
void access_log_worker_fini(struct worker *w); // flushes
// Process-wide: starts / stops the writer thread; reopen for log rotation (SIGUSR1, /reopen_logs). Stopping writes what waits, for at most
// ACCESS_LOG_STOP_MS (a pipe may have no reader); the rest is dropped, said and counted.
int access_log_start(struct err *err);
void access_log_stop(void);
void access_log_reopen(void);
uint64_t access_log_dropped(void); // lines that were not written: queue full, error of the file, no time left. Any thread

#endif
