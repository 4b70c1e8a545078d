// SPDX-License-Identifier: Apache-2.0
// gRPC-Web: text that comes in any pieces is decoded as the library's decoder does it group by group; what is encoded decodes to the same bytes, and
// the frame of trailers says what the trailers said.
#include <stdlib.h>

#include "lib/base/base64.h"
#include "lib/base/check.h"
#include "proxy/filters/http/filters.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct http_filter_ops *const ops = &http_filter_grpc_web;

struct run {
    struct stream stream;
    struct http_filter f;
    struct http_request req;
    struct http_response resp;
};

static struct run *begin(const char *type)
{
    struct run *r = calloc(1, sizeof(*r));
    arena_init(&r->stream.arena, 1024, 0);
    r->f = (struct http_filter){ .ops = ops, .stream = &r->stream, .state = calloc(1, ops->state_size) };
    headers_init(&r->req.headers, &r->stream.arena);
    headers_init(&r->resp.headers, &r->stream.arena);
    headers_add(&r->req.headers, STR("content-type"), str_c(type));
    headers_add(&r->resp.headers, STR("content-type"), STR("application/grpc"));
    ops->on_request(&r->f, &r->req);
    ops->on_response(&r->f, &r->resp);
    return r;
}

static void end(struct run *r)
{
    free(r->f.state);
    arena_fini(&r->stream.arena);
    free(r);
}

// Groups of four, each alone. false: not base64.
static bool reference(struct arena *a, const uint8_t *data, size_t size, struct buf *out)
{
    for (size_t i = 0; i < size; i += 4) {
        struct str group = str_n(data + i, size - i < 4 ? size - i : 4), bytes;
        bool url = str_find(group, '-') >= 0 || str_find(group, '_') >= 0; // the library reads both alphabets
        if (group.n < 4 || url || !base64_decode(a, group, &bytes)) {
            return false;
        }
        buf_append(out, bytes.p, bytes.n);
    }
    return true;
}

static void request(const uint8_t *data, size_t size, size_t piece)
{
    struct run *r = begin("application/grpc-web-text");
    struct buf got = { 0 }, want = { 0 };
    bool ok = true, good = reference(&r->stream.arena, data, size, &want);
    for (size_t at = 0; ok && (at < size || at == 0); at += piece) {
        struct buf b = { 0 };
        buf_append(&b, data + at, size - at < piece ? size - at : piece);
        ok = ops->on_request_data(&r->f, &b, at + piece >= size) == HF_CONTINUE;
        buf_move(&got, &b, b.len);
    }
    CHECK(ok == good);
    struct str g = buf_pullup(&got, got.len), w = buf_pullup(&want, want.len);
    CHECK(!ok || str_eq(g, w));
    buf_clear(&got);
    buf_clear(&want);
    end(r);
}

static void answer(const uint8_t *data, size_t size, size_t piece)
{
    struct run *r = begin("application/grpc-web-text");
    struct buf text = { 0 }, back = { 0 };
    for (size_t at = 0; at < size; at += piece) {
        struct buf b = { 0 };
        buf_append(&b, data + at, size - at < piece ? size - at : piece);
        ops->on_response_data(&r->f, &b, false);
        buf_move(&text, &b, b.len);
    }
    struct headers t;
    headers_init(&t, &r->stream.arena);
    headers_add(&t, STR("grpc-message"), str_n(data, size / 2));
    struct buf last = { 0 };
    CHECK(ops->response_trailers_as_data(&r->f, &t, &last));
    buf_move(&text, &last, last.len);
    struct str s = buf_pullup(&text, text.len);
    CHECK(reference(&r->stream.arena, (const uint8_t *)s.p, s.n, &back));
    struct str all = buf_pullup(&back, back.len);
    size_t trailers = 5 + 15 + size / 2;
    CHECK(all.n == size + trailers && memcmp(all.p, data, size) == 0);
    const uint8_t *head = (const uint8_t *)all.p + size;
    CHECK(head[0] == 0x80 && ((size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4]) == trailers - 5);
    CHECK(memcmp(head + 5, "grpc-message:", 13) == 0 && memcmp(head + 18, data, size / 2) == 0);
    buf_clear(&text);
    buf_clear(&back);
    end(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    size_t piece = 1 + data[0] % 17;
    request(data + 1, size - 1, piece);
    answer(data + 1, size - 1, piece);
    return 0;
}
