// SPDX-License-Identifier: Apache-2.0
// Answers that are made here.
#include "lib/http/grpc_text.h"
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

static void add_all(struct headers *to, const struct headers *from)
{
    for (struct hdr *x = from ? headers_first(from) : NULL; x; x = headers_next(from, x)) {
        if (x->id == HDR_CONTENT_TYPE || x->id == HDR_GRPC_STATUS || x->id == HDR_GRPC_MESSAGE) { // once, and the caller knows better
            headers_set_id(to, (enum hdr_id)x->id, x->value);
        } else {
            headers_add_known(to, (enum hdr_id)x->id, x->name, x->value);
        }
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
    if (stream_is_grpc(s)) {
        grpc_answer(s, &r, status, body);
        body.n = 0;
    } else if (body.n && !(extra && headers_get_id(extra, HDR_CONTENT_TYPE))) {
        headers_add_id(&r.headers, HDR_CONTENT_TYPE, STR("text/plain"));
    }
    add_all(&r.headers, extra);
    bool head = str_is(s->req.method, "HEAD");
    r.end_stream = body.n == 0 || head;
    stream_send_response(s, &r);
    if (!r.end_stream && s->down) {
        struct buf b = { 0 };
        buf_append_str(&b, body);
        stream_send_data(s, &b, true);
        buf_clear(&b);
    }
}
