// SPDX-License-Identifier: Apache-2.0
// Questions to rate limit servers and their answers (envoy.service.ratelimit.v3). Pure.
#ifndef PROXY_AUTHZ_RATE_QUESTION_H
#define PROXY_AUTHZ_RATE_QUESTION_H

#include "proxy/authz/rate_limit.h"

enum { RATE_ANSWER_FIELDS_MAX = 256 }; // header fields of an answer, each way

// RateLimitRequest as bytes in the arena.
struct str rate_question_pack(struct str domain, const struct rate_limit_descriptor *d, size_t n, struct arena *a);

struct rate_field {
    struct str name, value; // a token in lower case; no control characters
};

struct rate_answer {
    bool over;                 // overall_code is OVER_LIMIT
    struct rate_field *response, *request; // …_headers_to_add
    size_t response_count, request_count;
    struct str body;           // raw_body
    struct str metadata;       // dynamic_metadata, bytes of a google.protobuf.Struct; empty = none
    bool has_limit;            // some status says its limit; the three are about the one with the least left
    struct str limit;          // "10, 10;w=60;name=\"x\""
    uint64_t remaining;
    int64_t reset_s;
    int64_t retry_after_s;     // the longest of those over their limit, 0 = not said
};
// All in the arena. -EINVAL: no RateLimitResponse, or fields that must not get into a message.
int rate_answer_parse(struct str bytes, struct arena *a, struct rate_answer *ret, struct err *err);

#endif
