// SPDX-License-Identifier: Apache-2.0
// Log lines on stderr: time, level, component, a stable event name, then key=value. Any thread. Never keys, tokens or bodies.
// error = the operator must act, warn = degraded, info = life-cycle, debug = per connection, trace = per event.
#ifndef LIB_BASE_LOG_H
#define LIB_BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_CRITICAL, LOG_OFF, LOG_LEVELS };

// Components, with Envoy's logger names where Envoy has one (istioctl proxy-config log names them).
enum log_component {
    LOGC_MAIN, LOGC_ADMIN, LOGC_CONFIG, LOGC_CONNECTION, LOGC_FILTER, LOGC_HTTP, LOGC_POOL, LOGC_ROUTER, LOGC_SECRET,
    LOGC_UPSTREAM, LOGC_GRPC, LOGC_DNS, LOGC_JWT, LOGC_RBAC, LOGC_CA, LOGC_CONTROL, LOGC_INIT, LOGC_COUNT
};

extern enum log_level log_levels[LOGC_COUNT]; // read on every call, written by log_set_level only

// Name ↔ value; NULL or -1 when unknown. Levels: trace debug info warning error critical off ("warn" is taken too).
const char *log_component_name(enum log_component c);
int log_component_parse(const char *name);
const char *log_level_name(enum log_level l);
int log_level_parse(const char *name);
// c = -1 sets all components.
void log_set_level(int c, enum log_level l);
// JSON lines in place of text.
void log_set_json(bool on);
// One line; repeats of the same call site are limited to 10 a second per thread, with a count of what was left out
// (info and above: who asks for debug or trace wants every line). A line for which stderr has no room is lost; the next one says how many were.
// id: connection or stream id, 0 for none. fmt: "key=%s other=%d" in printf form; may be "".
__attribute__((format(printf, 5, 6))) void log_write(enum log_component c, enum log_level l, unsigned long id, const char *event,
                                                     const char *fmt, ...);

#define log_at(c, l, id, event, ...)                                                                                   \
    do {                                                                                                               \
        if (__builtin_expect((l) >= log_levels[c], 0)) {                                                               \
            log_write((c), (l), (id), (event), __VA_ARGS__);                                                           \
        }                                                                                                              \
    } while (0)
#define log_error(c, id, event, ...) log_at(c, LOG_ERROR, id, event, __VA_ARGS__)
#define log_warn(c, id, event, ...) log_at(c, LOG_WARN, id, event, __VA_ARGS__)
#define log_info(c, id, event, ...) log_at(c, LOG_INFO, id, event, __VA_ARGS__)
#define log_debug(c, id, event, ...) log_at(c, LOG_DEBUG, id, event, __VA_ARGS__)
#define log_trace(c, id, event, ...) log_at(c, LOG_TRACE, id, event, __VA_ARGS__)

#endif
