// SPDX-License-Identifier: Apache-2.0
#include "proxy/model/matcher.h"

#include <stdio.h>

#include "lib/http/message.h"

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static bool eq(struct str a, struct str b, bool ignore_case)
{
    return ignore_case ? str_eq_nocase(a, b) : str_eq(a, b);
}

static bool contains(struct str s, struct str part, bool ignore_case)
{
    if (!ignore_case) {
        return str_find_str(s, part) >= 0;
    }
    for (size_t i = 0; i + part.n <= s.n; i++) {
        if (part.n == 0 || (lower(s.p[i]) == lower(part.p[0]) && str_eq_nocase(str_n(s.p + i, part.n), part))) {
            return true;
        }
    }
    return false;
}

bool string_matcher_match(const struct string_matcher *m, struct str s)
{
    switch (m->kind) {
    case SM_EXACT:
        return eq(s, m->value, m->ignore_case);
    case SM_PREFIX:
        return s.n >= m->value.n && eq(str_n(s.p, m->value.n), m->value, m->ignore_case);
    case SM_SUFFIX:
        return s.n >= m->value.n && eq(str_skip(s, s.n - m->value.n), m->value, m->ignore_case);
    case SM_CONTAINS:
        return contains(s, m->value, m->ignore_case);
    case SM_REGEX:
        return regex_full_match(m->re, s);
    }
    return false;
}

bool match_is_framing(enum hdr_id id)
{
    static const uint64_t framing = HDR_BIT(HDR_CONTENT_LENGTH) | HDR_BIT(HDR_CONNECTION) | HDR_BIT(HDR_TE) | HDR_BIT(HDR_UPGRADE);
    return id != HDR_OTHER && (framing & HDR_BIT(id));
}

// What the head keeps apart from its fields (lib/http/message.h).
static bool is_apart(const struct header_matcher *m, const struct match_request *r)
{
    return m->id == HDR_HOST || (m->name.n && m->name.p[0] == ':') || (r->head && match_is_framing((enum hdr_id)m->id));
}

// As Envoy's filters see these fields; hop-by-hop options that mean nothing are taken away there, too.
struct str match_framing_value(enum hdr_id id, const struct http_request *h, char number[MATCH_NUMBER_MAX])
{
    switch (id) {
    case HDR_UPGRADE:
        return h->upgrade;
    case HDR_CONNECTION:
        return !h->upgrade.n ? str_n(NULL, 0) : h->version == HTTP_2 ? STR("upgrade") : STR("Upgrade");
    case HDR_TE:
        return h->te_trailers ? STR("trailers") : str_n(NULL, 0);
    default:
        return h->content_length < 0 ? str_n(NULL, 0)
                                     : str_n(number, (size_t)snprintf(number, MATCH_NUMBER_MAX, "%lld", (long long)h->content_length));
    }
}

static struct str apart_value(const struct header_matcher *m, const struct match_request *r, char number[MATCH_NUMBER_MAX])
{
    return m->id == HDR_HOST || str_is(m->name, ":authority") ? r->authority
           : m->id != HDR_OTHER                               ? match_framing_value(m->id, r->head, number)
           : str_is(m->name, ":method")                       ? r->method
           : str_is(m->name, ":path")                         ? r->path
           : str_is(m->name, ":scheme")                       ? r->scheme
                                                              : str_n(NULL, 0);
}

static bool is_field(const struct header_matcher *m, const struct hdr *x)
{
    return m->id != HDR_OTHER ? x->id == m->id : x->id == HDR_OTHER && str_eq_nocase(x->name, m->name);
}

static bool in_range(const struct header_matcher *m, struct str v)
{
    bool negative = v.n > 0 && v.p[0] == '-';
    uint64_t u;
    if (!str_to_u64(str_skip(v, negative), INT64_MAX, &u)) {
        return false;
    }
    int64_t i = negative ? -(int64_t)u : (int64_t)u;
    return i >= m->from && i < m->to;
}

static bool value_matches(const struct header_matcher *m, struct str v)
{
    return m->kind == HM_RANGE ? in_range(m, v) : string_matcher_match(&m->string, v);
}

bool header_is_joined(struct str name)
{
    static const char *const names[] = { // found by asking Envoy 1.40; sorted
        "accept", "accept-encoding", "access-control-request-headers", "access-control-request-method", "access-control-request-private-network",
        "authorization", "cache-control", "content-encoding", "content-type", "expect", "grpc-accept-encoding", "grpc-timeout", "if-match",
        "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "origin", "pragma", "referer", "te", "user-agent", "via",
        "x-client-trace-id", "x-envoy-attempt-count", "x-envoy-decorator-operation", "x-envoy-downstream-service-cluster",
        "x-envoy-downstream-service-node", "x-envoy-expected-rq-timeout-ms", "x-envoy-external-address", "x-envoy-force-trace",
        "x-envoy-hedge-on-per-try-timeout", "x-envoy-internal", "x-envoy-ip-tags", "x-envoy-max-retries", "x-envoy-original-host",
        "x-envoy-original-path", "x-envoy-retriable-header-names", "x-envoy-retriable-status-codes", "x-envoy-retry-grpc-on", "x-envoy-retry-on",
        "x-envoy-upstream-alt-stat-name", "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-upstream-stream-duration-ms", "x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port",
        "x-forwarded-proto", "x-request-id",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (str_is(name, names[i])) {
            return true;
        }
    }
    return false;
}

// All values of a joined header; a NULL view when there is none. Empty values leave no comma.
static struct str joined_value(const struct header_matcher *m, const struct match_request *r)
{
    struct str only = str_n(NULL, 0);
    size_t n = 0, filled = 0;
    for (struct hdr *x = headers_first(r->headers); x; x = headers_next(r->headers, x)) {
        if (is_field(m, x)) {
            only = filled ? only : x->value.p ? x->value : STR("");
            filled += x->value.n > 0;
            n += x->value.n + 1;
        }
    }
    char *p = filled > 1 ? arena_alloc(r->arena, n) : NULL, *at = p;
    if (!p) {
        return only;
    }
    for (struct hdr *x = headers_first(r->headers); x; x = headers_next(r->headers, x)) {
        if (is_field(m, x) && x->value.n) {
            *at = ',';
            at += at > p;
            memcpy(at, x->value.p, x->value.n);
            at += x->value.n;
        }
    }
    return str_n(p, (size_t)(at - p));
}

// route.v3.HeaderMatcher. Each field of the name is looked at by itself: what stands in two fields must not hide from a condition on one
// (as in Envoy 1.40), but for names that are joined. A header that is missing fails a value match even when it is inverted, unless it counts
// as empty.
bool header_matcher_match(const struct header_matcher *m, const struct match_request *r)
{
    bool present = false, hit = false;
    char number[MATCH_NUMBER_MAX];
    if (is_apart(m, r)) {
        struct str v = apart_value(m, r, number);
        present = v.n > 0;
        hit = present && m->kind != HM_PRESENT && value_matches(m, v);
    } else if (m->joined && m->kind != HM_PRESENT) {
        struct str v = joined_value(m, r);
        present = v.p != NULL;
        hit = present && value_matches(m, v);
    } else {
        for (struct hdr *x = headers_first(r->headers); x && !hit; x = headers_next(r->headers, x)) {
            if (is_field(m, x)) {
                present = true;
                hit = m->kind == HM_PRESENT || value_matches(m, x->value);
            }
        }
    }
    if (m->kind == HM_PRESENT) {
        return ((present || m->treat_missing_as_empty) == m->present) != m->invert;
    }
    if (!present) {
        return m->treat_missing_as_empty && value_matches(m, STR("")) != m->invert;
    }
    return hit != m->invert;
}

bool header_any_value(const struct header_matcher *m, const struct match_request *r, bool (*fn)(const void *arg, struct str value), const void *arg)
{
    char number[MATCH_NUMBER_MAX];
    if (is_apart(m, r)) {
        struct str v = apart_value(m, r, number);
        return v.n > 0 && fn(arg, v);
    }
    if (m->joined) {
        struct str v = joined_value(m, r);
        return v.p && fn(arg, v);
    }
    for (struct hdr *x = headers_first(r->headers); x; x = headers_next(r->headers, x)) {
        if (is_field(m, x) && fn(arg, x->value)) {
            return true;
        }
    }
    return false;
}

// The first parameter of that name, as written: Envoy does not decode either.
bool query_matcher_match(const struct query_matcher *m, struct str query, struct arena *scratch)
{
    (void)scratch;
    struct str rest = query;
    while (rest.n) {
        struct str pair = str_split(&rest, '&');
        ptrdiff_t at = str_find(pair, '=');
        struct str name = at < 0 ? pair : str_n(pair.p, (size_t)at);
        if (str_eq(name, m->name)) {
            struct str value = at < 0 ? (struct str){ .p = "", .n = 0 } : str_skip(pair, (size_t)at + 1);
            return m->present_only ? m->want_present : string_matcher_match(&m->string, value);
        }
    }
    return m->present_only && !m->want_present;
}
