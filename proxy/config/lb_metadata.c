// SPDX-License-Identifier: Apache-2.0
// "envoy.lb" metadata of endpoints as canonical texts: two values are alike when their bytes are.
#include "proto/pb_util.h"
#include "proxy/config/build.h"

enum { LB_ENTRIES_MAX = 256, LB_DEPTH_MAX = 8 };

// Lists as their elements with lengths; scalars as routes have them.
static int text_of(const Google__Protobuf__Value *v, int depth, struct arena *a, struct str *ret, struct err *err)
{
    if (!v || v->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        *ret = v ? build_value_text(v, a) : str_n(NULL, 0);
        return ret->p ? 0 : cfg_fail(err, "value", "only strings, numbers, bools and lists of them are compared");
    }
    struct str text = STR("[");
    for (size_t i = 0; i < v->list_value->n_values; i++) {
        struct str one;
        if (depth > LB_DEPTH_MAX || text_of(v->list_value->values[i], depth + 1, a, &one, err)) {
            return depth > LB_DEPTH_MAX ? cfg_fail(err, "value", "nested deeper than %d", LB_DEPTH_MAX) : err->code;
        }
        text = arena_printf(a, "%.*s%zu:%.*s,", STR_FMT(text), one.n, STR_FMT(one));
    }
    *ret = text;
    return 0;
}

static size_t count_entries(const Google__Protobuf__Struct *st)
{
    size_t n = 0;
    for (size_t i = 0; st && i < st->n_fields; i++) {
        const Google__Protobuf__Value *v = st->fields[i]->value;
        n += 1 + (v && v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE ? v->list_value->n_values : 0);
    }
    return n;
}

int build_lb_metadata(const Google__Protobuf__Struct *st, struct arena *a, struct lb_criterion **ret, size_t *ret_count, struct err *err)
{
    size_t max = count_entries(st), n = 0;
    if (max > LB_ENTRIES_MAX) {
        return cfg_fail(err, "fields", "%zu values, at most %d", max, LB_ENTRIES_MAX);
    }
    struct lb_criterion *v = max ? arena_array(a, struct lb_criterion, max) : NULL;
    for (size_t i = 0; st && i < st->n_fields; i++) {
        const Google__Protobuf__Value *x = st->fields[i]->value;
        struct str key = build_str(a, st->fields[i]->key);
        v[n].key = key;
        if (text_of(x, 0, a, &v[n++].value, err)) {
            return cfg_in(err, "%.*s", STR_FMT(key));
        }
        for (size_t k = 0; x->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE && k < x->list_value->n_values; k++) {
            v[n] = (struct lb_criterion){ .key = key, .element = true };
            if (text_of(x->list_value->values[k], 1, a, &v[n++].value, err)) {
                return cfg_in(err, "%.*s", STR_FMT(key));
            }
        }
    }
    *ret = v;
    *ret_count = n;
    return 0;
}
