// SPDX-License-Identifier: Apache-2.0
#include "proxy/authz/match_parse.h"

#include <errno.h>

static void free_regex(void *re)
{
    regex_free(re);
}

static int parse_regex(const Envoy__Type__Matcher__V3__RegexMatcher *m, struct arena *a, struct regex **ret, struct err *err)
{
    if (!m->regex[0]) {
        return err_set(err, -EINVAL, "safe_regex.regex: is missing");
    }
    struct regex *re = regex_new(str_c(m->regex), err);
    if (!re) {
        return err_wrap(err, "safe_regex.regex");
    }
    arena_on_free(a, free_regex, re);
    *ret = re;
    return 0;
}

int parse_string_matcher(const Envoy__Type__Matcher__V3__StringMatcher *m, struct arena *a, struct string_matcher *ret, struct err *err)
{
    struct string_matcher s = { .ignore_case = m->ignore_case };
    const char *text = "";
    switch (m->match_pattern_case) {
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_EXACT:
        s.kind = SM_EXACT;
        text = m->exact;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_PREFIX:
        s.kind = SM_PREFIX;
        text = m->prefix;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
        s.kind = SM_SUFFIX;
        text = m->suffix;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
        s.kind = SM_CONTAINS;
        text = m->contains;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX: {
        s.kind = SM_REGEX;
        int rc = parse_regex(m->safe_regex, a, &s.re, err);
        if (rc < 0) {
            return rc;
        }
        text = m->safe_regex->regex;
        break;
    }
    default:
        return err_set(err, -EINVAL, "match_pattern: is missing or not supported");
    }
    s.value = arena_str(a, str_c(text));
    if (s.kind != SM_EXACT && s.kind != SM_REGEX && !s.value.n) {
        return err_set(err, -EINVAL, "match_pattern: prefix, suffix and contains must not be empty");
    }
    *ret = s;
    return 0;
}

static struct str lower_name(const char *name, struct arena *a)
{
    struct str s = arena_str(a, str_c(name));
    for (size_t i = 0; i < s.n; i++) {
        char *c = (char *)s.p + i;
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
    }
    return s;
}

// The kinds that string_match took the place of.
static int parse_former(const Envoy__Config__Route__V3__HeaderMatcher *m, struct arena *a, struct header_matcher *h, struct err *err)
{
    Envoy__Type__Matcher__V3__StringMatcher s = ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__INIT;
    switch (m->header_match_specifier_case) {
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_EXACT_MATCH:
        s.match_pattern_case = ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_EXACT;
        s.exact = m->exact_match;
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PREFIX_MATCH:
        s.match_pattern_case = ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_PREFIX;
        s.prefix = m->prefix_match;
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SUFFIX_MATCH:
        s.match_pattern_case = ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SUFFIX;
        s.suffix = m->suffix_match;
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_CONTAINS_MATCH:
        s.match_pattern_case = ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_CONTAINS;
        s.contains = m->contains_match;
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SAFE_REGEX_MATCH:
        s.match_pattern_case = ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX;
        s.safe_regex = m->safe_regex_match;
        break;
    default:
        return err_set(err, -ENOTSUP, "header_match_specifier: not supported");
    }
    h->kind = HM_STRING;
    return parse_string_matcher(&s, a, &h->string, err);
}

int parse_header_matcher(const Envoy__Config__Route__V3__HeaderMatcher *m, struct arena *a, struct header_matcher *ret, struct err *err)
{
    struct header_matcher h = { .kind = HM_PRESENT, .present = true, .invert = m->invert_match,
                                .treat_missing_as_empty = m->treat_missing_header_as_empty };
    if (!m->name[0]) {
        return err_set(err, -EINVAL, "name: is missing");
    }
    h.name = lower_name(m->name, a);
    h.id = hdr_id_of(h.name);
    h.joined = header_is_joined(h.name);
    switch (m->header_match_specifier_case) {
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER__NOT_SET:
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PRESENT_MATCH:
        h.present = m->present_match;
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_STRING_MATCH: {
        h.kind = HM_STRING;
        int rc = parse_string_matcher(m->string_match, a, &h.string, err);
        if (rc < 0) {
            return err_wrap(err, "string_match");
        }
        break;
    }
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_RANGE_MATCH:
        h.kind = HM_RANGE;
        h.from = m->range_match->start;
        h.to = m->range_match->end;
        break;
    default: {
        int rc = parse_former(m, a, &h, err);
        if (rc < 0) {
            return rc;
        }
        break;
    }
    }
    *ret = h;
    return 0;
}
