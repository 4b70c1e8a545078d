// SPDX-License-Identifier: Apache-2.0
// Matchers shared by routes, RBAC and TLS: strings (type.matcher.v3.StringMatcher), headers (route.v3.HeaderMatcher), query parameters,
// fractions, runtime-free. Frozen, in the owner's arena; pure look-ups.
#ifndef PROXY_MODEL_MATCHER_H
#define PROXY_MODEL_MATCHER_H

#include "lib/http/headers.h"
#include "lib/regex/regex.h"

enum string_match { SM_EXACT, SM_PREFIX, SM_SUFFIX, SM_CONTAINS, SM_REGEX };

struct string_matcher {
    enum string_match kind;
    bool ignore_case; // not for SM_REGEX
    struct str value; // pattern
    struct regex *re; // SM_REGEX; freed with the arena
};
bool string_matcher_match(const struct string_matcher *m, struct str s);

enum header_match { HM_PRESENT, HM_STRING, HM_RANGE };

struct header_matcher {
    enum header_match kind;
    enum hdr_id id;      // HDR_OTHER: compare name
    struct str name;     // lower case; ":method", ":path", ":authority", ":scheme" are pseudo
    bool invert;
    bool present;        // HM_PRESENT: wanted presence
    bool treat_missing_as_empty;
    bool joined;         // header_is_joined(name)
    struct string_matcher string;
    int64_t from, to;    // HM_RANGE: [from, to)
};

struct query_matcher {
    struct str name;
    bool present_only; // any value, also none
    bool want_present;
    struct string_matcher string;
};

struct connection_fact; // proxy/core/facts.h
struct stream_info;     // proxy/core/stream_info.h
struct http_request;    // lib/http/message.h

// What a request offers to matchers. Borrowed views.
struct match_request {
    struct str method, path /* with query */, authority, scheme;
    const struct headers *headers;
    uint64_t random; // one draw per request: fractions and weights
    const struct connection_fact *facts; // of the connection; NULL = none
    const struct stream_info *info;      // what filters have found out, and the facts; NULL = only those
    struct arena *arena; // scratch
    const struct http_request *head; // what says upgrade, connection, te and content-length, which its list does not hold; NULL = the list does
};
enum { MATCH_NUMBER_MAX = 21 }; // characters of 64 bits, and the end
// Fields that a head keeps beside its list (content-length, connection, te, upgrade), and what they say, as Envoy's filters see them. number:
// what the value of content-length is made in.
bool match_is_framing(enum hdr_id id);
struct str match_framing_value(enum hdr_id id, const struct http_request *h, char number[MATCH_NUMBER_MAX]);
// Fields of this name (lower case) are one to matchers, with commas between their values, as Envoy's header map has them: what is made of an odd
// request with two User-Agent fields must not be less strict than there.
bool header_is_joined(struct str name);
bool header_matcher_match(const struct header_matcher *m, const struct match_request *r);
// Whether fn(arg, value) is true for some value of the header that m names; what m asks of it is not looked at.
bool header_any_value(const struct header_matcher *m, const struct match_request *r, bool (*fn)(const void *arg, struct str value), const void *arg);
bool query_matcher_match(const struct query_matcher *m, struct str query, struct arena *scratch);

// type.v3.FractionalPercent
struct fraction {
    uint32_t numerator;
    uint32_t denominator; // 100, 10000, 1000000
};
static inline bool fraction_hit(struct fraction f, uint64_t random)
{
    return f.denominator != 0 && random % f.denominator < f.numerator;
}

#endif
