// SPDX-License-Identifier: Apache-2.0
// http_connection_manager.v3.LocalReplyConfig → struct local_replies.
#include "proto/pb_util.h"
#include "proxy/access_log/access_log.h"
#include "proxy/access_log/filter.h"
#include "proxy/config/build.h"
#include "proxy/http/manager.h"

typedef Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__LocalReplyConfig replies_msg;
typedef Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__ResponseMapper mapper_msg;
typedef Envoy__Config__Core__V3__SubstitutionFormatString format_msg;

enum { MAPPERS_MAX = 256, REPLY_BODY_MAX = 1024 * 1024 };

static int build_format(const format_msg *m, const char *field, struct arena *a, struct format **ret, struct str *ret_type, struct err *err)
{
    if (!m) {
        return 0;
    }
    if (CFG_KNOWN(m, err, "text_format", "text_format_source", "json_format", "content_type", "omit_empty_values", "formatters") ||
        access_log_format_parse(m, a, ret, ret_type, err)) {
        return cfg_in(err, "%s", field);
    }
    return 0;
}

static int build_mapper(struct config_ctx *ctx, const mapper_msg *m, struct local_reply_mapper *x, struct err *err)
{
    bool extension = false;
    struct err e = { 0 };
    if (!m->filter) {
        return cfg_fail(err, "filter", "missing");
    }
    if (access_filter_parse(m->filter, ctx->arena, &x->filter, &extension, &e) || extension) {
        return extension ? cfg_fail(err, "filter.extension_filter", "not supported") : err_set(err, -EINVAL, "%s", e.msg);
    }
    uint32_t status = pb_u32_or(m->status_code, 0);
    if (m->status_code && (status < 200 || status > 599)) {
        return cfg_fail(err, "status_code", "%u is not between 200 and 599", status);
    }
    x->status = (uint16_t)status;
    if (m->body && build_data_source(m->body, ctx->arena, &x->body, err)) {
        return cfg_in(err, "body");
    }
    if (x->body.n > REPLY_BODY_MAX) {
        return cfg_fail(err, "body", "%zu bytes, at most %d", x->body.n, REPLY_BODY_MAX);
    }
    x->has_body = m->body != NULL;
    return build_header_adds(m->n_headers_to_add, m->headers_to_add, "headers_to_add", ctx->arena, &x->adds, &x->add_count, err) ||
                   build_format(m->body_format_override, "body_format_override", ctx->arena, &x->format, &x->type, err)
               ? err->code
               : 0;
}

int build_local_replies(struct config_ctx *ctx, const replies_msg *m, struct local_replies **ret, struct err *err)
{
    struct local_replies *l = arena_new(ctx->arena, struct local_replies);
    if (m->n_mappers > MAPPERS_MAX) {
        return cfg_fail(err, "mappers", "%zu entries, at most %d", m->n_mappers, MAPPERS_MAX);
    }
    l->mappers = arena_array(ctx->arena, struct local_reply_mapper, m->n_mappers + 1);
    for (size_t i = 0; i < m->n_mappers; i++, l->mapper_count++) {
        if (build_mapper(ctx, m->mappers[i], &l->mappers[i], err)) {
            return cfg_in(err, "mappers[%zu]", i);
        }
    }
    if (build_format(m->body_format, "body_format", ctx->arena, &l->format, &l->type, err)) {
        return err->code;
    }
    *ret = l;
    return 0;
}
