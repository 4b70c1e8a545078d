// SPDX-License-Identifier: Apache-2.0
// core.v3.ConfigSource of endpoints, routes and secrets: the ADS stream, or a file.
#include "envoy/config/core/v3/config_source.pb-c.h"
#include "proxy/config/build.h"

static int add_file(struct config_ctx *ctx, int type, const char *path, const char *field, struct err *err)
{
    struct err e = { 0 };
    if (!path[0]) {
        return cfg_fail(err, field, "missing");
    }
    if (!ctx->add_source) {
        return cfg_fail(err, field, "files are no source here");
    }
    return ctx->add_source(ctx->add_source_arg, type, path, &e) ? cfg_fail(err, field, "%.900s", e.msg) : 0;
}

static int from_stream(struct config_ctx *ctx, int type, struct err *err)
{
    struct err e = { 0 };
    return ctx->add_source && ctx->add_source(ctx->add_source_arg, type, NULL, &e) ? cfg_fail(err, "ads", "%.900s", e.msg) : 0;
}

int build_config_source(struct config_ctx *ctx, const Envoy__Config__Core__V3__ConfigSource *m, int type, bool *ret_remote, struct err *err)
{
    *ret_remote = true;
    // initial_fetch_timeout: what is waited for has one limit of its own (config.c)
    if (m->resource_api_version == ENVOY__CONFIG__CORE__V3__API_VERSION__V2) {
        return cfg_fail(err, "resource_api_version", "only V3 is spoken");
    }
    switch (m->config_source_specifier_case) {
    case ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS:
    case ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_SELF:
        return from_stream(ctx, type, err);
    case ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH:
        return add_file(ctx, type, m->path, "path", err);
    case ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH_CONFIG_SOURCE:
        if (m->path_config_source->watched_directory) {
            return cfg_fail(err, "path_config_source.watched_directory", "not supported; the file itself is watched");
        }
        return add_file(ctx, type, m->path_config_source->path, "path_config_source.path", err);
    case ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_API_CONFIG_SOURCE:
        *ret_remote = false;
        return 0;
    default:
        return cfg_fail(err, "config_source_specifier", "one of ads, path_config_source is needed");
    }
}
