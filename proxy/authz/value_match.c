// SPDX-License-Identifier: Apache-2.0
#include "proxy/authz/value_match.h"

#include <errno.h>

#include "envoy/type/matcher/v3/value.pb-c.h"
#include "proxy/authz/match_parse.h"

typedef Envoy__Type__Matcher__V3__ValueMatcher pb_value;

static int parse(const pb_value *m, int depth, struct arena *a, struct value_match *v, struct err *err);

static int parse_number(const Envoy__Type__Matcher__V3__DoubleMatcher *m, struct value_match *v, struct err *err)
{
    switch (m->match_pattern_case) {
    case ENVOY__TYPE__MATCHER__V3__DOUBLE_MATCHER__MATCH_PATTERN_RANGE:
        v->kind = VM_RANGE;
        v->from = m->range->start;
        v->to = m->range->end;
        return 0;
    case ENVOY__TYPE__MATCHER__V3__DOUBLE_MATCHER__MATCH_PATTERN_EXACT:
        v->kind = VM_NUMBER;
        v->from = m->exact;
        return 0;
    default:
        return err_set(err, -EINVAL, "double_match: one of range, exact is needed");
    }
}

static int parse_or(const Envoy__Type__Matcher__V3__OrMatcher *m, int depth, struct arena *a, struct value_match *v, struct err *err)
{
    if (m->n_value_matchers < 2) { // as the validation rules of the API have it
        return err_set(err, -EINVAL, "or_match: value_matchers: at least 2 are needed");
    }
    v->kind = VM_OR;
    v->inner = arena_array(a, struct value_match, m->n_value_matchers);
    for (size_t i = 0; i < m->n_value_matchers; i++, v->count++) {
        int rc = parse(m->value_matchers[i], depth + 1, a, &v->inner[i], err);
        if (rc < 0) {
            return err_wrap(err, "or_match: value_matchers[%zu]", i);
        }
    }
    return 0;
}

static int parse_list(const Envoy__Type__Matcher__V3__ListMatcher *m, int depth, struct arena *a, struct value_match *v, struct err *err)
{
    if (m->match_pattern_case != ENVOY__TYPE__MATCHER__V3__LIST_MATCHER__MATCH_PATTERN_ONE_OF) {
        return err_set(err, -EINVAL, "list_match: one_of: is missing");
    }
    v->kind = VM_ELEMENT;
    v->inner = arena_new(a, struct value_match);
    v->count = 1;
    int rc = parse(m->one_of, depth + 1, a, v->inner, err);
    return rc < 0 ? err_wrap(err, "list_match: one_of") : 0;
}

static int parse(const pb_value *m, int depth, struct arena *a, struct value_match *v, struct err *err)
{
    if (depth > VALUE_MATCH_DEPTH_MAX) {
        return err_set(err, -EINVAL, "more than %d conditions within each other", VALUE_MATCH_DEPTH_MAX);
    }
    int rc = 0;
    switch (m->match_pattern_case) {
    case ENVOY__TYPE__MATCHER__V3__VALUE_MATCHER__MATCH_PATTERN_NULL_MATCH:
        v->kind = VM_NULL;
        break;
    case ENVOY__TYPE__MATCHER__V3__VALUE_MATCHER__MATCH_PATTERN_DOUBLE_MATCH:
        return parse_number(m->double_match, v, err);
    case ENVOY__TYPE__MATCHER__V3__VALUE_MATCHER__MATCH_PATTERN_STRING_MATCH:
        v->kind = VM_STRING;
        rc = parse_string_matcher(m->string_match, a, &v->string, err);
        return rc < 0 ? err_wrap(err, "string_match") : 0;
    case ENVOY__TYPE__MATCHER__V3__VALUE_MATCHER__MATCH_PATTERN_BOOL_MATCH:
        v->kind = VM_BOOL;
        v->truth = m->bool_match;
        break;
    case ENVOY__TYPE__MATCHER__V3__VALUE_MATCHER__MATCH_PATTERN_PRESENT_MATCH:
        v->kind = VM_PRESENT;
        v->truth = m->present_match;
        break;
    case ENVOY__TYPE__MATCHER__V3__VALUE_MATCHER__MATCH_PATTERN_LIST_MATCH:
        return parse_list(m->list_match, depth, a, v, err);
    case ENVOY__TYPE__MATCHER__V3__VALUE_MATCHER__MATCH_PATTERN_OR_MATCH:
        return parse_or(m->or_match, depth, a, v, err);
    default:
        return err_set(err, -EINVAL, "match_pattern: is missing or not supported");
    }
    return rc;
}

int value_match_parse(const void *msg, struct arena *a, struct value_match *ret, struct err *err)
{
    struct value_match v = { 0 };
    int rc = parse(msg, 0, a, &v, err);
    if (rc == 0) {
        *ret = v;
    }
    return rc;
}

static bool element_matches(const struct value_match *m, struct str list)
{
    struct metadata_value v;
    while (metadata_list_next(&list, &v)) {
        if (value_match(m->inner, &v)) {
            return true;
        }
    }
    return false;
}

bool value_match(const struct value_match *m, const struct metadata_value *v)
{
    switch (m->kind) {
    case VM_NULL:
        return v->kind == MV_NULL;
    case VM_NUMBER:
        return v->kind == MV_NUMBER && v->number == m->from;
    case VM_RANGE:
        return v->kind == MV_NUMBER && v->number >= m->from && v->number < m->to;
    case VM_STRING:
        return v->kind == MV_TEXT && string_matcher_match(&m->string, v->bytes);
    case VM_BOOL:
        return v->kind == MV_BOOL && v->boolean == m->truth;
    case VM_PRESENT:
        return m->truth && v->kind != MV_NONE; // asking for absence matches nothing, as in Envoy
    case VM_ELEMENT:
        return v->kind == MV_LIST && element_matches(m, v->bytes);
    case VM_OR:
        for (size_t i = 0; i < m->count; i++) {
            if (value_match(&m->inner[i], v)) {
                return true;
            }
        }
        return false;
    }
    return false;
}
