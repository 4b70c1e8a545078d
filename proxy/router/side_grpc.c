// SPDX-License-Identifier: Apache-2.0
// Unary gRPC (its PROTOCOL-HTTP2 document) as a side call: one framed message each way, the status in the trailers, or in the head where
// there is nothing else.
#include "proxy/router/internal.h"
#include "proxy/router/side_call.h"

enum { FRAME_HEADER = 5, STATUS_MAX = 1u << 30 };

struct side_grpc {
    struct side_call *call;
    void (*done)(void *owner, const struct side_grpc_answer *a);
    void *owner;
};

bool side_grpc_unframe(struct str body, struct str *ret_message)
{
    const unsigned char *p = (const unsigned char *)body.p;
    if (body.n < FRAME_HEADER) {
        return false;
    }
    size_t n = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (n != body.n - FRAME_HEADER || (p[0] && n)) { // p[0]: compressed, which was not offered
        return false;
    }
    *ret_message = str_skip(body, FRAME_HEADER);
    return true;
}

// grpc-status and grpc-message of h. False: not there.
static bool take_status(const struct headers *h, struct side_grpc_answer *a)
{
    uint64_t status;
    const struct hdr *x = h ? headers_get_id(h, HDR_GRPC_STATUS) : NULL;
    if (!x) {
        return false;
    }
    a->status = str_to_u64(x->value, STATUS_MAX, &status) ? (int)status : GRPC_UNKNOWN;
    a->text = headers_value_id(h, HDR_GRPC_MESSAGE);
    return true;
}

static void fail(struct side_grpc_answer *a, int status, struct str text)
{
    a->status = status;
    a->text = text;
}

static void read_answer(const struct side_answer *http, struct side_grpc_answer *a)
{
    if (http->failure == SIDE_TIMEOUT) {
        fail(a, GRPC_DEADLINE_EXCEEDED, STR("no answer in time"));
    } else if (http->failure == SIDE_TOO_LARGE) {
        fail(a, GRPC_RESOURCE_EXHAUSTED, STR("answer too large"));
    } else if (http->failure != SIDE_OK) {
        fail(a, GRPC_UNAVAILABLE, str_c(http->reason));
    } else if (!take_status(http->trailers, a) && !take_status(http->headers, a)) {
        fail(a, http->status == 200 ? GRPC_UNKNOWN : (int)grpc_status_of_http(http->status), STR("no grpc-status"));
    } else if (a->status == GRPC_OK && (http->status != 200 || !side_grpc_unframe(http->body, &a->message))) {
        fail(a, GRPC_INTERNAL, STR("no whole message"));
    }
}

static void on_done(void *owner, const struct side_answer *http)
{
    struct side_grpc *g = owner;
    struct side_grpc_answer a = { .failure = http->failure, .http = http };
    read_answer(http, &a);
    g->done(g->owner, &a);
}

static void copy_metadata(const struct side_grpc_request *q, struct headers *h)
{
    headers_add_id(h, HDR_CONTENT_TYPE, STR("application/grpc"));
    if (q->timeout_ms) {
        headers_add_id(h, HDR_GRPC_TIMEOUT, grpc_timeout_text(q->timeout_ms, h->arena));
    }
    for (struct hdr *x = q->metadata ? headers_first(q->metadata) : NULL; x; x = headers_next(q->metadata, x)) {
        headers_add_known(h, (enum hdr_id)x->id, x->name, x->value);
    }
}

struct side_grpc *side_grpc_start(struct worker *w, const struct side_grpc_request *q)
{
    struct arena scratch;
    struct headers h;
    struct buf body = { 0 };
    arena_init(&scratch, 0, 0);
    headers_init(&h, &scratch);
    copy_metadata(q, &h);
    uint32_t n = (uint32_t)q->message.n;
    const uint8_t head[FRAME_HEADER] = { 0, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n };
    buf_append(&body, head, sizeof(head));
    buf_append_str(&body, q->message);
    size_t max = q->answer_max ? q->answer_max : SIDE_ANSWER_MAX;
    struct side_call *c = side_call_start(w, &(struct side_request){ .cluster = q->cluster, .method = STR("POST"), .path = q->path,
                                                                     .host = q->authority.n ? q->authority : q->cluster, .headers = &h,
                                                                     .body = &body, .timeout_ms = q->timeout_ms,
                                                                     .answer_max = max + FRAME_HEADER, .retry = q->retry, .grpc = true,
                                                                     .no_envoy_headers = q->no_envoy_headers, .done = on_done });
    buf_clear(&body);
    arena_fini(&scratch);
    struct side_grpc *g = c ? side_call_own(c, sizeof(*g)) : NULL;
    if (g) {
        g->call = c;
        g->done = q->done;
        g->owner = q->owner;
    }
    return g;
}

void side_grpc_cancel(struct side_grpc *g)
{
    if (g) {
        side_call_cancel(g->call);
    }
}
