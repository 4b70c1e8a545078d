// SPDX-License-Identifier: Apache-2.0
// Answers that are made here.
#include <stdio.h>

#include "proxy/http/internal.h"

bool stream_is_grpc(const struct stream *s)
{
    struct str t = headers_value_id(&s->req.headers, HDR_CONTENT_TYPE);
    return str_starts(t, STR("application/grpc")) && (t.n == 16 || t.p[16] == '+' || t.p[16] == ';');
}

// gRPC's own table of HTTP statuses (http-grpc-status-mapping), as Envoy uses it for local answers.
static const char *grpc_status(int status)
{
    switch (status) {
    case 400:
        return "13";
    case 401:
        return "16";
    case 403:
        return "7";
    case 404:
        return "12";
    case 429:
    case 502:
    case 503:
    case 504:
        return "14";
    default:
        return "2";
    }
}

// grpc-message: percent-encoded except printable ASCII without '%' (gRPC over HTTP/2, "Status-Message").
static struct str grpc_message(struct str body, struct arena *a)
{
    char *out = arena_alloc(a, body.n * 3 + 1);
    size_t n = 0;
    for (size_t i = 0; i < body.n; i++) {
        unsigned char c = (unsigned char)body.p[i];
        if (c >= 0x20 && c <= 0x7e && c != '%') {
            out[n++] = (char)c;
        } else {
            n += (size_t)snprintf(out + n, 4, "%%%02X", c);
        }
    }
    out[n] = '\0';
    return str_n(out, n);
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
    bool grpc = stream_is_grpc(s);
    if (grpc) {
        r.status = 200;
        headers_add_id(&r.headers, HDR_CONTENT_TYPE, STR("application/grpc"));
        headers_add_id(&r.headers, HDR_GRPC_STATUS, str_c(grpc_status(status)));
        if (body.n) {
            headers_add_id(&r.headers, HDR_GRPC_MESSAGE, grpc_message(body, &s->arena));
        }
        body.n = 0;
        r.content_length = s->info.protocol == HTTP_2 ? -1 : 0;
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
