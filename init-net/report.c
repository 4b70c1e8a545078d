// SPDX-License-Identifier: Apache-2.0
#include "init-net/report.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static bool is_shown(const struct options *o, const char *level)
{
    if (!o || str_is(STR("error"), level)) {
        return true;
    }
    if (str_is(STR("debug"), level)) {
        return o->log_debug;
    }
    return str_is(STR("info"), level) ? !o->log_no_info : !o->log_quiet;
}

int report_write(int fd, struct buf *out)
{
    int r = 0;
    while (buf_len(out)) {
        struct str s = buf_front(out);
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno != EINTR) {
            r = -errno;
            break;
        }
        buf_drain(out, n > 0 ? (size_t)n : 0);
    }
    buf_clear(out);
    return r;
}

void report_message(const struct options *o, const char *level, const char *fmt, ...)
{
    if (!is_shown(o, level)) {
        return;
    }
    char text[ERR_MSG_MAX + 128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    struct buf out = { 0 };
    if (o && o->log_json) {
        struct json_writer w;
        jw_init(&w, &out, 0);
        jw_object(&w);
        jw_kv(&w, "level", str_c(level));
        jw_kv(&w, "scope", STR("remora-init"));
        jw_kv(&w, "msg", str_c(text));
        jw_object_end(&w);
        buf_append(&out, "\n", 1);
    } else {
        buf_printf(&out, "remora-init: %s%s%s\n", str_is(STR("info"), level) ? "" : level,
                   str_is(STR("info"), level) ? "" : ": ", text);
    }
    report_write(STDERR_FILENO, &out);
}

void report_warnings(const struct options *o)
{
    for (size_t i = 0; i < o->n_warnings; i++) {
        report_message(o, "warn", "%.*s", STR_FMT(o->warnings[i]));
    }
}

void report_begin(const struct options *o, struct json_writer *w, struct buf *out, const char *result)
{
    jw_init(w, out, 0);
    jw_object(w);
    jw_kv(w, "command", str_c(options_command_name(o->command)));
    jw_kv(w, "version", STR(REMORA_VERSION));
    jw_kv(w, "result", str_c(result));
}

void report_end(const struct options *o, struct json_writer *w, struct buf *out)
{
    jw_key(w, STR("warnings"));
    jw_array(w);
    for (size_t i = 0; i < o->n_warnings; i++) {
        jw_str(w, o->warnings[i]);
    }
    jw_array_end(w);
    jw_object_end(w);
    buf_append(out, "\n", 1);
    report_write(STDOUT_FILENO, out);
}

void report_failed(const struct options *o, const struct err *err)
{
    report_warnings(o);
    report_message(o, "error", "%s", err->msg);
    if (o->output == OUTPUT_JSON) {
        struct json_writer w;
        struct buf out = { 0 };
        report_begin(o, &w, &out, "failed");
        jw_kv(&w, "error", str_c(err->msg));
        report_end(o, &w, &out);
    }
}
