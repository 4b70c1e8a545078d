// SPDX-License-Identifier: Apache-2.0
// Answers of rate limit servers: any bytes are taken or refused; what is taken leaves messages that can be sent. And what a question makes of the
// client's bytes is a RateLimitRequest.
#include "envoy/service/ratelimit/v3/rls.pb-c.h"
#include "lib/base/check.h"
#include "lib/http/chars.h"
#include "lib/http/headers.h"
#include "proto/pb_util.h"
#include "proxy/authz/rate_question.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void one_line(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        CHECK(s.p[i] != '\r' && s.p[i] != '\n' && s.p[i] != '\0');
    }
}

static void sendable(const struct rate_field *f, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        enum hdr_id id = hdr_id_of(f[i].name);
        CHECK(ch_all(f[i].name, CH_TOKEN));
        CHECK(id != HDR_CONTENT_LENGTH && id != HDR_HOST && id != HDR_TE && !hdr_is_connection_specific(id));
        one_line(f[i].value);
    }
}

static void ask(struct str bytes, struct arena *a)
{
    size_t half = bytes.n / 2;
    struct rate_limit_entry e[] = { { str_n(bytes.p, half), str_skip(bytes, half) }, { STR("k"), bytes } };
    const struct rate_limit_descriptor d[] = { { .entries = e, .count = bytes.n % 3 }, { .entries = e, .count = 2, .has_hits = true, .hits = bytes.n } };
    struct str packed = rate_question_pack(bytes, d, 2, a);
    Envoy__Service__Ratelimit__V3__RateLimitRequest *m = NULL;
    struct err err = { 0 };
    bool text = pb_unpack_as(Envoy__Service__Ratelimit__V3__RateLimitRequest, envoy__service__ratelimit__v3__rate_limit_request, packed, a, &m, &err) == 0;
    CHECK(text && m->n_descriptors == 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = { 0 };
    struct rate_answer r;
    struct err err = { 0 };
    struct str bytes = str_n(data, size);
    if (rate_answer_parse(bytes, &a, &r, &err) == 0) {
        sendable(r.response, r.response_count);
        sendable(r.request, r.request_count);
        one_line(r.limit);
        CHECK(r.retry_after_s >= 0);
    }
    ask(bytes, &a);
    arena_fini(&a);
    return 0;
}
