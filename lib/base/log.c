// SPDX-License-Identifier: Apache-2.0
#include "lib/base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"

enum {
    LINE_MAX_BYTES = 4096, // one line, newline included; longer ones are cut
    SITES = 64,            // call sites a thread remembers for the limit
    PER_SECOND = 10,
    READER_MS = 100,       // how long a full pipe may take to have room again
};

// Racing readers see the old or the new level, both are fine; the type is fixed by the header, so plain int-sized loads.
enum log_level log_levels[LOGC_COUNT] = {
    [0 ... LOGC_COUNT - 1] = LOG_INFO,
};
static atomic_bool json_lines;
static atomic_uint lost; // lines since the last one that stderr took

static const char *const component_names[LOGC_COUNT] = {
    [LOGC_MAIN] = "main",         [LOGC_ADMIN] = "admin",   [LOGC_CONFIG] = "config", [LOGC_CONNECTION] = "connection",
    [LOGC_FILTER] = "filter",     [LOGC_HTTP] = "http",     [LOGC_POOL] = "pool",     [LOGC_ROUTER] = "router",
    [LOGC_SECRET] = "secret",     [LOGC_UPSTREAM] = "upstream", [LOGC_GRPC] = "grpc", [LOGC_DNS] = "dns",
    [LOGC_JWT] = "jwt",           [LOGC_RBAC] = "rbac",     [LOGC_CA] = "ca",         [LOGC_CONTROL] = "control",
    [LOGC_INIT] = "init",
};
static const char *const level_names[LOG_LEVELS] = {
    [LOG_TRACE] = "trace", [LOG_DEBUG] = "debug",       [LOG_INFO] = "info", [LOG_WARN] = "warning",
    [LOG_ERROR] = "error", [LOG_CRITICAL] = "critical", [LOG_OFF] = "off",
};

const char *log_component_name(enum log_component c)
{
    return (unsigned)c < LOGC_COUNT ? component_names[c] : NULL;
}

int log_component_parse(const char *name)
{
    for (int i = 0; name && i < LOGC_COUNT; i++) {
        if (strcmp(name, component_names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

const char *log_level_name(enum log_level l)
{
    return (unsigned)l < LOG_LEVELS ? level_names[l] : NULL;
}

int log_level_parse(const char *name)
{
    for (int i = 0; name && i < LOG_LEVELS; i++) {
        if (strcasecmp(name, level_names[i]) == 0) {
            return i;
        }
    }
    return name && strcasecmp(name, "warn") == 0 ? LOG_WARN : -1;
}

void log_set_level(int c, enum log_level l)
{
    for (int i = 0; i < LOGC_COUNT; i++) {
        if (c == -1 || c == i) {
            __atomic_store_n(&log_levels[i], l, __ATOMIC_RELAXED);
        }
    }
}

void log_set_json(bool on)
{
    atomic_store_explicit(&json_lines, on, memory_order_relaxed);
}

// What one thread wrote from one call site in the current second. Two sites that share a slot push each other out; then
// more is written than the limit says, never less.
struct site {
    const void *event, *fmt; // identity of the call site: its literals
    uint64_t second;
    unsigned written, left_out;
};

// false: leave the line out. *ret_left_out: lines left out since the site last wrote.
static bool site_admit(const char *event, const char *fmt, unsigned *ret_left_out)
{
    static _Thread_local struct site sites[SITES];
    struct site *s = &sites[(((uintptr_t)event * 31 + (uintptr_t)fmt) * 0x9e3779b97f4a7c15u) >> 58];
    uint64_t now = clock_mono_ms() / 1000;
    if (s->event != event || s->fmt != fmt) {
        *s = (struct site){ .event = event, .fmt = fmt, .second = now };
    }
    if (s->second != now) {
        s->second = now;
        s->written = 0;
    }
    if (s->written >= PER_SECOND) {
        s->left_out++;
        return false;
    }
    s->written++;
    *ret_left_out = s->left_out;
    s->left_out = 0;
    return true;
}

struct line {
    size_t n;
    char s[LINE_MAX_BYTES];
};

__attribute__((format(printf, 2, 3))) static void put(struct line *l, const char *fmt, ...)
{
    size_t room = sizeof(l->s) - 8 - l->n; // the end of the line always fits
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(l->s + l->n, room, fmt, ap);
    va_end(ap);
    l->n += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

// Control characters would let a peer's bytes forge lines; in JSON, quotes and backslashes too.
static void put_escaped(struct line *l, const char *s, bool json)
{
    for (; *s && l->n + 16 < sizeof(l->s); s++) {
        unsigned char c = (unsigned char)*s;
        if (json && (c == '"' || c == '\\')) {
            l->s[l->n++] = '\\';
            l->s[l->n++] = (char)c;
        } else if (c < 0x20 || c == 0x7f) {
            put(l, json ? "\\u%04x" : "\\x%02x", c);
        } else {
            l->s[l->n++] = (char)c;
        }
    }
}

static void compose(struct line *l, enum log_component c, enum log_level lv, unsigned long id, const char *event,
                    const char *detail, unsigned left_out)
{
    char now[CLOCK_RFC3339_MAX];
    clock_rfc3339(clock_wall_ms(), now);
    bool json = atomic_load_explicit(&json_lines, memory_order_relaxed);
    put(l, json ? "{\"time\":\"%s\",\"level\":\"%s\",\"component\":\"%s\",\"event\":\"%s\"" : "%s %-7s %-10s %s", now,
        level_names[lv], component_names[c], event);
    if (id) {
        put(l, json ? ",\"id\":%lu" : " id=%lu", id);
    }
    if (left_out) {
        put(l, json ? ",\"left_out\":%u" : " left_out=%u", left_out);
    }
    unsigned n = atomic_load_explicit(&lost, memory_order_relaxed) ? atomic_exchange_explicit(&lost, 0, memory_order_relaxed) : 0;
    if (n) {
        put(l, json ? ",\"lost\":%u" : " lost=%u", n);
    }
    if (detail[0]) {
        put(l, "%s", json ? ",\"detail\":\"" : " ");
        put_escaped(l, detail, json);
        put(l, "%s", json ? "\"" : "");
    }
    const char *end = json ? "}\n" : "\n";
    memcpy(l->s + l->n, end, strlen(end)); // put leaves 8 bytes
    l->n += strlen(end);
}

// A pipe whose reader has stopped must not stop us (poll(2): POLLOUT of a pipe stands for PIPE_BUF bytes, which a line is at most): the first line
// waits for it a little, those behind it are lost until there is room again.
static bool may_write(void)
{
    struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
    return poll(&p, 1, atomic_load_explicit(&lost, memory_order_relaxed) ? 0 : READER_MS) != 0;
}

void log_write(enum log_component c, enum log_level l, unsigned long id, const char *event, const char *fmt, ...)
{
    CHECK((unsigned)c < LOGC_COUNT && (unsigned)l < LOG_OFF);
    int saved = errno;
    unsigned left_out = 0;
    if (l >= LOG_INFO && !site_admit(event, fmt, &left_out)) {
        errno = saved;
        return;
    }
    char detail[LINE_MAX_BYTES / 2];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
    if (n < 0) {
        detail[0] = '\0';
    }
    struct line line;
    line.n = 0;
    if (!may_write()) {
        atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
        errno = saved;
        return;
    }
    compose(&line, c, l, id, event, detail, left_out);
    // One write(2) per line, so that lines of several threads do not mix.
    ssize_t done = write(STDERR_FILENO, line.s, line.n);
    (void)done; // nobody to tell
    errno = saved;
}
