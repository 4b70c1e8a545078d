// SPDX-License-Identifier: Apache-2.0
// Answers of authorization servers: any bytes are taken or refused; what is taken and let through leaves messages that can be sent. And what the
// question makes of the client's bytes is a CheckRequest.
#include <stdlib.h>

#include "envoy/service/auth/v3/external_auth.pb-c.h"
#include "lib/base/check.h"
#include "lib/http/chars.h"
#include "proto/pb_util.h"
#include "proxy/filters/http/ext_authz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void sendable(const struct headers *h)
{
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        CHECK(ch_all(x->name, CH_TOKEN));
        CHECK(x->id != HDR_CONTENT_LENGTH && x->id != HDR_TE && x->id != HDR_HOST && !hdr_is_connection_specific((enum hdr_id)x->id));
        for (size_t i = 0; i < x->value.n; i++) {
            CHECK(x->value.p[i] != '\r' && x->value.p[i] != '\n' && x->value.p[i] != '\0');
        }
    }
}

static void apply(const struct check_answer *a, struct arena *arena)
{
    struct http_request req = { .method = STR("GET"), .path = STR("/p?b=1&a"), .host = STR("h"), .scheme = STR("http") };
    struct headers answer;
    headers_init(&req.headers, arena);
    headers_init(&answer, arena);
    headers_add(&req.headers, STR("x"), STR("1"));
    if (authz_headers_ok(a->headers, a->header_count)) {
        authz_headers_apply(a->headers, a->header_count, &req.headers, &req);
        sendable(&req.headers);
        CHECK(ch_all(req.method, CH_TOKEN) && ch_all(req.path, CH_PATH) && req.path.p[0] == '/' && req.host.n);
    }
    if (authz_headers_ok(a->answer_headers, a->answer_header_count)) {
        authz_headers_apply(a->answer_headers, a->answer_header_count, &answer, NULL);
        sendable(&answer);
    }
    for (size_t i = 0; i < a->query_set_count; i++) {
        if (!check_query_text(a->query_set[i].key, false) || !check_query_text(a->query_set[i].value, false)) {
            return;
        }
    }
    struct str path = check_query_change(req.path, a->query_set, a->query_set_count, a->query_remove, a->query_remove_count, arena);
    CHECK(path.n && path.p[0] == '/' && ch_all(path, CH_PATH));
}

static void ask(struct str bytes, struct arena *arena)
{
    size_t third = bytes.n / 3;
    const struct check_pair pairs[] = { { STR("k"), str_n(bytes.p, third) }, { STR("x"), str_skip(bytes, third) }, { STR("x"), bytes } };
    const struct check_http http = { .id = bytes.n, .method = str_n(bytes.p, third), .path = bytes, .headers = pairs, .header_count = 3,
                                     .raw = bytes.n & 1, .has_body = true, .body = bytes, .body_as_bytes = bytes.n & 2 };
    const struct check_question q = { .source = { .principal = bytes }, .http = &http, .extensions = pairs, .extension_count = 1 };
    Envoy__Service__Auth__V3__CheckRequest *m = NULL;
    struct err err = { 0 };
    int rc = pb_unpack_as(Envoy__Service__Auth__V3__CheckRequest, envoy__service__auth__v3__check_request, check_question_pack(&q, arena), arena, &m,
                          &err);
    CHECK(rc == 0 || strstr(err.msg, "NUL") || memchr(bytes.p, '\0', bytes.n)); // our own reader takes no NUL in texts
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = { 0 };
    struct check_answer a;
    struct str bytes = str_n(data, size), message;
    if (check_answer_parse(bytes, &arena, &a, NULL) == 0) {
        CHECK(a.header_count <= CHECK_FIELDS_MAX && a.remove_count <= CHECK_FIELDS_MAX);
        apply(&a, &arena);
    }
    if (side_grpc_unframe(bytes, &message)) {
        CHECK(message.n + 5 == size);
    }
    if (size) {
        ask(bytes, &arena);
    }
    arena_fini(&arena);
    return 0;
}
