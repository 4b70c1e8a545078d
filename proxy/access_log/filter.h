// SPDX-License-Identifier: Apache-2.0
// Which requests a log takes: accesslog.v3.AccessLogFilter compiled into a small tree. Inside of proxy/access_log.
#ifndef PROXY_ACCESS_LOG_FILTER_H
#define PROXY_ACCESS_LOG_FILTER_H

#include "proxy/access_log/format.h"
#include "proxy/model/matcher.h"

enum { ACCESS_FILTER_DEPTH_MAX = 16 };

struct access_log_filter {
    enum access_filter_kind {
        AF_STATUS, AF_DURATION, AF_NOT_HEALTH_CHECK, AF_RUNTIME, AF_AND, AF_OR, AF_HEADER, AF_FLAGS, AF_GRPC_STATUS,
        AF_ALL, // traceable: everything, as nothing marks requests as not traceable
    } kind;
    enum { AF_EQ, AF_GE, AF_LE, AF_NE } op;
    uint64_t value;
    struct fraction fraction;
    uint32_t flags;         // AF_FLAGS; 0 = any flag
    uint32_t grpc_statuses; // bits
    bool grpc_exclude;
    struct header_matcher header;
    struct access_log_filter *children; // AF_AND, AF_OR
    size_t child_count;
};

// msg: accesslog.v3.AccessLogFilter. *ret_extension: an extension filter (CEL) is in it, which only telemetry understands. 0 or
// negative with "field: reason".
int access_filter_parse(const void *msg, struct arena *a, struct access_log_filter **ret, bool *ret_extension, struct err *err);
// random: the stream's draw. Pure.
bool access_filter_match(const struct access_log_filter *f, const struct format_ctx *ctx, uint64_t random);

#endif
