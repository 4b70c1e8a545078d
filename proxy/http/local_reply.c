// SPDX-License-Identifier: Apache-2.0
// Answers that are made here.
#include "lib/http/grpc_text.h"
#include "proxy/access_log/filter.h"
#include "proxy/http/internal.h"

bool stream_is_grpc(const struct stream *s)
{
    return grpc_content_type(headers_value_id(&s->req.headers, HDR_CONTENT_TYPE));
}

static void grpc_answer(struct stream *s, struct http_response *r, int status, struct str body)
{
    r->status = 200;
    r->content_length = s->info.protocol == HTTP_2 ? -1 : 0;
    headers_add_id(&r->headers, HDR_CONTENT_TYPE, STR("application/grpc"));
    headers_add_id(&r->headers, HDR_GRPC_STATUS, arena_printf(&s->arena, "%d", (int)grpc_status_of_http(status)));
    struct str message = grpc_message_encode(body, &s->arena);
    if (message.n) {
        headers_add_id(&r->headers, HDR_GRPC_MESSAGE, message);
    }
}

// Fields of the caller stand in the place of those of the same names.
static void add_all(struct headers *to, const struct headers *from)
{
    for (struct hdr *x = from && to->count ? headers_first(from) : NULL; x; x = headers_next(from, x)) {
        headers_remove(to, x->name);
    }
    for (struct hdr *x = from ? headers_first(from) : NULL; x; x = headers_next(from, x)) {
        if (x->id == HDR_CONTENT_TYPE || x->id == HDR_GRPC_STATUS || x->id == HDR_GRPC_MESSAGE) { // once, and the caller knows better
            headers_set_id(to, (enum hdr_id)x->id, x->value);
        } else {
            headers_add_known(to, (enum hdr_id)x->id, x->name, x->value);
        }
    }
}

static void add_fields(struct stream *s, const struct header_add *v, size_t n, const struct format_ctx *ctx, struct http_response *r)
{
    struct str *values = n ? arena_array(&s->arena, struct str, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        values[i] = v[i].format ? format_text(v[i].format, ctx, &s->arena) : v[i].value;
    }
    header_adds_take(v, values, n, &r->headers, NULL);
}

// The route's fields on an answer that some filter or this engine makes. The router and routes that answer by themselves see to theirs.
static void add_route_fields(struct stream *s, struct http_response *r)
{
    const struct route *rt = s->route;
    const struct header_ops *levels[HEADER_LEVELS];
    const struct format_ctx ctx = { .info = &s->info, .req = &s->req, .resp = r, .original_path = s->path_original };
    const struct weighted_cluster *w = rt->weighted_count ? route_pick_weighted(rt, s->random) : NULL; // the same draw as the router's
    size_t n = header_levels_response(s->table, s->vhost, rt, w, levels);
    for (size_t i = 0; i < n; i++) {
        header_ops_remove(levels[i], &r->headers);
        add_fields(s, levels[i]->add, levels[i]->add_count, &ctx, r);
    }
}

// What local_reply_config makes of an answer: its status and fields, in r, and its body.
static void rewrite_reply(struct stream *s, struct http_response *r, struct str *body)
{
    const struct local_replies *l = s->cfg->local_replies;
    const struct format *format = l->format;
    struct str type = l->type;
    struct format_ctx ctx = { .info = &s->info, .req = &s->req, .resp = r, .original_path = s->path_original, .local_reply_body = *body };
    struct str had_type = headers_value_id(&r->headers, HDR_CONTENT_TYPE);
    s->info.status = r->status;
    for (size_t i = 0; i < l->mapper_count; i++) {
        const struct local_reply_mapper *m = &l->mappers[i];
        if (!access_filter_match(m->filter, &ctx, s->random)) {
            continue;
        }
        add_fields(s, m->adds, m->add_count, &ctx, r);
        ctx.local_reply_body = m->has_body ? m->body : ctx.local_reply_body;
        s->info.status = r->status = m->status ? m->status : r->status;
        format = m->format ? m->format : format;
        type = m->format ? m->type : type;
        break;
    }
    bool own_type = !str_eq(had_type, headers_value_id(&r->headers, HDR_CONTENT_TYPE));
    *body = format ? format_text(format, &ctx, &s->arena) : ctx.local_reply_body;
    if (format && !own_type) { // the mapper knows better
        headers_set_id(&r->headers, HDR_CONTENT_TYPE, type);
    }
}

void stream_local_reply(struct stream *s, int status, struct str body, const char *details, uint32_t flags, const struct headers *extra)
{
    if (s->response_started) {
        stream_reset(s, details, flags);
        return;
    }
    if (!s->down) {
        return;
    }
    s->local_reply = true;
    s->info.flags |= flags;
    s->info.details = details;
    struct http_response r = { .status = (uint16_t)status, .version = HTTP_11, .content_length = (int64_t)body.n };
    headers_init(&r.headers, &s->arena);
    if (s->route && s->route->kind == ROUTE_FORWARD && !s->route_fields_done) {
        add_route_fields(s, &r);
    }
    bool rewritten = s->cfg->local_replies != NULL;
    if (rewritten) {
        add_all(&r.headers, extra);
        rewrite_reply(s, &r, &body);
        status = r.status;
        r.content_length = (int64_t)body.n;
    }
    if (stream_is_grpc(s)) {
        headers_remove(&r.headers, STR("content-type"));
        grpc_answer(s, &r, status, body);
        body.n = 0;
    } else if (body.n && !headers_get_id(&r.headers, HDR_CONTENT_TYPE) && !(extra && headers_get_id(extra, HDR_CONTENT_TYPE))) {
        headers_add_id(&r.headers, HDR_CONTENT_TYPE, STR("text/plain"));
    }
    if (!rewritten) {
        add_all(&r.headers, extra);
    }
    bool head = str_is(s->req.method, "HEAD");
    if (!body.n && (head || s->info.protocol == HTTP_2)) { // nothing says how long it would be
        r.content_length = -1;
    }
    r.end_stream = body.n == 0 || head;
    stream_send_response(s, &r);
    if (!r.end_stream && s->down) {
        struct buf b = { 0 };
        buf_append_str(&b, body);
        stream_send_data(s, &b, true);
        buf_clear(&b);
    }
}
