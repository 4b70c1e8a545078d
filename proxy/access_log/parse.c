// SPDX-License-Identifier: Apache-2.0
// accesslog.v3.AccessLog → access_log_cfg. Protobuf types stop here.
#include <errno.h>
#include <stdlib.h>

#include "envoy/config/accesslog/v3/accesslog.pb-c.h"
#include "envoy/extensions/access_loggers/file/v3/file.pb-c.h"
#include "envoy/extensions/access_loggers/stream/v3/stream.pb-c.h"
#include "lib/base/check.h"
#include "lib/base/file.h"
#include "lib/base/log.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proxy/access_log/access_log.h"
#include "proxy/access_log/file.h"
#include "proxy/access_log/filter.h"

enum { FORMAT_FILE_MAX = 64 * 1024 };

static int parse_json_struct(const Google__Protobuf__Struct *st, struct arena *a, struct format **ret, struct err *err)
{
    struct json *tree = pb_struct_to_json(st, a);
    int rc = tree ? format_compile_json(tree, a, ret, err) : err_set(err, -ENOMEM, "too large");
    return rc < 0 ? err_wrap(err, "json_format") : 0;
}

static int parse_source(const Envoy__Config__Core__V3__DataSource *d, struct arena *a, struct format **ret, struct err *err)
{
    struct str text;
    int rc = 0;
    switch (d->specifier_case) {
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        text = str_c(d->inline_string);
        break;
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        text = pb_bytes(d->inline_bytes);
        break;
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_FILENAME:
        rc = file_read(d->filename, FORMAT_FILE_MAX, a, &text, err);
        break;
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_ENVIRONMENT_VARIABLE:
        text = str_c(getenv(d->environment_variable));
        rc = text.p ? 0 : err_set(err, -EINVAL, "environment_variable: %s is not set", d->environment_variable);
        break;
    default:
        rc = err_set(err, -EINVAL, "must be inline_string, inline_bytes, filename or environment_variable");
    }
    rc = rc < 0 ? rc : format_compile(text, a, ret, err);
    return rc < 0 ? err_wrap(err, "text_format_source") : 0;
}

static int parse_format_string(const Envoy__Config__Core__V3__SubstitutionFormatString *m, struct arena *a, struct format **ret,
                               struct err *err)
{
    int rc;
    switch (m->format_case) {
    case ENVOY__CONFIG__CORE__V3__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT:
        rc = format_compile(str_c(m->text_format), a, ret, err);
        rc = rc < 0 ? err_wrap(err, "text_format") : 0;
        break;
    case ENVOY__CONFIG__CORE__V3__SUBSTITUTION_FORMAT_STRING__FORMAT_JSON_FORMAT:
        rc = parse_json_struct(m->json_format, a, ret, err);
        break;
    case ENVOY__CONFIG__CORE__V3__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT_SOURCE:
        rc = parse_source(m->text_format_source, a, ret, err);
        break;
    default:
        return err_set(err, -EINVAL, "text_format, json_format or text_format_source must be set");
    }
    if (rc < 0) {
        return rc;
    }
    // m->formatters only name where operators come from; those that exist are built in, others are refused as unknown operators.
    if (m->omit_empty_values) {
        format_omit_empty(*ret);
    }
    return 0;
}

int access_log_format_parse(const void *msg, struct arena *a, struct format **ret, struct str *ret_content_type, struct err *err)
{
    const Envoy__Config__Core__V3__SubstitutionFormatString *m = msg;
    bool is_json = m->format_case == ENVOY__CONFIG__CORE__V3__SUBSTITUTION_FORMAT_STRING__FORMAT_JSON_FORMAT;
    int rc = parse_format_string(m, a, ret, err);
    if (rc == 0) {
        format_is_body(*ret);
        *ret_content_type = m->content_type[0] ? arena_str(a, str_c(m->content_type)) : is_json ? STR("application/json") : STR("text/plain");
    }
    return rc;
}

static int parse_log_format(const Envoy__Config__Core__V3__SubstitutionFormatString *m, struct arena *a, struct format **ret, struct err *err)
{
    return parse_format_string(m, a, ret, err) < 0 ? err_wrap(err, "log_format") : 0;
}

static int default_format(struct arena *a, struct format **ret, struct err *err)
{
    return format_compile(str_c(format_default_text), a, ret, err);
}

static int parse_file(const Envoy__Extensions__AccessLoggers__File__V3__FileAccessLog *m, struct arena *a,
                      struct access_log_cfg *c, struct err *err)
{
    int rc;
    switch (m->access_log_format_case) {
    case ENVOY__EXTENSIONS__ACCESS_LOGGERS__FILE__V3__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_FORMAT:
        rc = m->format && m->format[0] ? format_compile(str_c(m->format), a, &c->format, err) : default_format(a, &c->format, err);
        rc = rc < 0 ? err_wrap(err, "format") : 0;
        break;
    case ENVOY__EXTENSIONS__ACCESS_LOGGERS__FILE__V3__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_JSON_FORMAT:
        rc = parse_json_struct(m->json_format, a, &c->format, err);
        break;
    case ENVOY__EXTENSIONS__ACCESS_LOGGERS__FILE__V3__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_TYPED_JSON_FORMAT:
        rc = parse_json_struct(m->typed_json_format, a, &c->format, err);
        break;
    case ENVOY__EXTENSIONS__ACCESS_LOGGERS__FILE__V3__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT:
        rc = parse_log_format(m->log_format, a, &c->format, err);
        break;
    default:
        rc = default_format(a, &c->format, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (!m->path || !m->path[0]) {
        return err_set(err, -EINVAL, "path: is missing");
    }
    rc = sink_get(str_c(m->path), &c->sink, err);
    return rc < 0 ? err_wrap(err, "path") : 0;
}

static int parse_stream(const Envoy__Config__Core__V3__SubstitutionFormatString *f, const char *path, struct arena *a,
                        struct access_log_cfg *c, struct err *err)
{
    int rc = f ? parse_log_format(f, a, &c->format, err) : default_format(a, &c->format, err);
    return rc < 0 ? rc : sink_get(str_c(path), &c->sink, err);
}

// Lines of these go to a telemetry system that is not built yet; the proxy works the same without them.
static bool is_telemetry(struct str type)
{
    static const char *const types[] = {
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
    };
    for (size_t i = 0; i < array_len(types); i++) {
        if (str_is(type, types[i])) {
            return true;
        }
    }
    return false;
}

static int parse_logger(const Google__Protobuf__Any *any, struct arena *a, struct access_log_cfg *c, struct err *err)
{
    struct str type = any ? pb_any_type_name(any, a) : str_n(NULL, 0);
    if (is_telemetry(type)) {
        return 0;
    }
    ProtobufCMessage *m;
    if (str_is(type, "envoy.extensions.access_loggers.file.v3.FileAccessLog") ||
        str_is(type, "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog") ||
        str_is(type, "envoy.extensions.access_loggers.stream.v3.StderrAccessLog")) {
        int rc = pb_any_unpack_whole(any, NULL, NULL, a, &m, err);
        if (rc < 0) {
            return rc;
        }
    } else {
        return err_set(err, -EINVAL, "unknown access logger %.*s", STR_FMT(type));
    }
    if (m->descriptor == &envoy__extensions__access_loggers__file__v3__file_access_log__descriptor) {
        return parse_file((const void *)m, a, c, err);
    }
    if (m->descriptor == &envoy__extensions__access_loggers__stream__v3__stdout_access_log__descriptor) {
        const Envoy__Extensions__AccessLoggers__Stream__V3__StdoutAccessLog *s = (const void *)m;
        return parse_stream(s->log_format, "/dev/stdout", a, c, err);
    }
    const Envoy__Extensions__AccessLoggers__Stream__V3__StderrAccessLog *s = (const void *)m;
    return parse_stream(s->log_format, "/dev/stderr", a, c, err);
}

int access_log_parse(const void *msg, struct arena *a, struct access_log_cfg **ret, struct err *err)
{
    const Envoy__Config__Accesslog__V3__AccessLog *m = msg;
    struct access_log_cfg *c = arena_new(a, struct access_log_cfg);
    int rc = parse_logger(m->typed_config, a, c, err);
    if (rc < 0) {
        return err_wrap(err, "access_log \"%s\"", m->name ? m->name : "");
    }
    if (m->filter) {
        bool extension;
        rc = access_filter_parse(m->filter, a, &c->filter, &extension, err);
        if (rc < 0) {
            return err_wrap(err, "access_log \"%s\"", m->name ? m->name : "");
        }
        if (extension && c->sink) {
            log_warn(LOGC_CONFIG, 0, "access_log_off", "name=\"%s\" reason=\"its filter is an extension (CEL), which is not built in\"",
                     m->name ? m->name : "");
            c->sink = NULL;
        }
    }
    *ret = c;
    return 0;
}
