// SPDX-License-Identifier: Apache-2.0
#include "envoy/extensions/http/header_formatters/preserve_case/v3/preserve_case.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"

typedef Envoy__Config__Core__V3__Http1ProtocolOptions__HeaderKeyFormat key_format;

static int take_formatter(struct config_ctx *ctx, const Envoy__Config__Core__V3__TypedExtensionConfig *x, struct err *err)
{
    Envoy__Extensions__Http__HeaderFormatters__PreserveCase__V3__PreserveCaseFormatterConfig *f = NULL;
    struct err e = { 0 };
    if (!x->typed_config) {
        return cfg_fail(err, "typed_config", "missing");
    }
    if (pb_any_unpack_whole_as(Envoy__Extensions__Http__HeaderFormatters__PreserveCase__V3__PreserveCaseFormatterConfig,
                         envoy__extensions__http__header_formatters__preserve_case__v3__preserve_case_formatter_config, x->typed_config,
                         ctx->scratch, &f, &e)) {
        return cfg_fail(err, "typed_config", "%.900s", e.msg);
    }
    // forward_reason_phrase and formatter_type_on_envoy_headers are not offered
    return cfg_known(&f->base, NULL, 0, err) ? cfg_in(err, "typed_config") : 0;
}

static int take_names(struct config_ctx *ctx, const key_format *k, enum h1_names *ret, struct err *err)
{
    switch (k->header_format_case) {
    case ENVOY__CONFIG__CORE__V3__HTTP1_PROTOCOL_OPTIONS__HEADER_KEY_FORMAT__HEADER_FORMAT_PROPER_CASE_WORDS:
        *ret = H1_NAMES_PROPER;
        return 0;
    case ENVOY__CONFIG__CORE__V3__HTTP1_PROTOCOL_OPTIONS__HEADER_KEY_FORMAT__HEADER_FORMAT_STATEFUL_FORMATTER:
        *ret = H1_NAMES_PRESERVE;
        return take_formatter(ctx, k->stateful_formatter, err) ? cfg_in(err, "stateful_formatter") : 0;
    default:
        return cfg_fail(err, "header_format", "one of proper_case_words, stateful_formatter is needed");
    }
}

int build_h1_options(struct config_ctx *ctx, const Envoy__Config__Core__V3__Http1ProtocolOptions *o, struct h1_limits *limits,
                     enum h1_names *names, struct err *err)
{
    if (runtime_bool(ctx, "remora.http1.lenient", &limits->lenient, err)) {
        return err->code;
    }
    if (!o) {
        return 0;
    }
    // enable_trailers: they are passed on in any case; allow_custom_methods: any token is a method
    if (CFG_KNOWN(o, err, "allow_absolute_url", "accept_http_10", "default_host_for_http_10", "header_key_format", "enable_trailers",
                  "allow_chunked_length", "override_stream_error_on_invalid_http_message", "allow_custom_methods")) {
        return err->code;
    }
    limits->allow_absolute_url = pb_bool_or(o->allow_absolute_url, true);
    limits->allow_http10 = o->accept_http_10;
    limits->allow_chunked_length = o->allow_chunked_length;
    return o->header_key_format && take_names(ctx, o->header_key_format, names, err) ? cfg_in(err, "header_key_format") : 0;
}
