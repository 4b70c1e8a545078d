// SPDX-License-Identifier: Apache-2.0
// A Struct as a JSON tree.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/pb_json.h"
#include "proto/pb_util.h"

static bool from_value(const Google__Protobuf__Value *v, struct arena *a, struct json *n);

static struct json *append(struct json *parent, struct json **last, struct arena *a)
{
    struct json *n = arena_new(a, struct json);
    if (n) {
        *(*last ? &(*last)->next : &parent->first) = n;
        *last = n;
        parent->count++;
    }
    return n;
}

static bool from_struct(const Google__Protobuf__Struct *st, struct arena *a, struct json *n)
{
    struct json *last = NULL;
    n->type = JSON_OBJECT;
    for (size_t i = 0; st && i < st->n_fields; i++) {
        struct json *m = append(n, &last, a);
        if (!m || !from_value(st->fields[i]->value, a, m)) {
            return false;
        }
        m->key = str_c(st->fields[i]->key);
    }
    return true;
}

static bool from_number(double d, struct arena *a, struct json *n)
{
    char text[40];
    int k = 0;
    if (!isfinite(d)) { // JSON has no such numbers; proto3 JSON spells them as text
        n->type = JSON_STRING;
        n->text = isnan(d) ? STR("NaN") : d < 0 ? STR("-Infinity") : STR("Infinity");
        return true;
    }
    for (int digits = 15; digits <= 17; digits++) {
        k = snprintf(text, sizeof(text), "%.*g", digits, d);
        if (strtod(text, NULL) == d) {
            break;
        }
    }
    n->type = JSON_NUMBER;
    n->text = arena_str(a, str_n(text, (size_t)k));
    return n->text.p != NULL;
}

static bool from_value(const Google__Protobuf__Value *v, struct arena *a, struct json *n)
{
    struct json *last = NULL;
    switch (v ? v->kind_case : GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET) {
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        n->type = JSON_BOOL;
        n->boolean = v->bool_value;
        return true;
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        return from_number(v->number_value, a, n);
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        n->type = JSON_STRING;
        n->text = str_c(v->string_value);
        return true;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        return from_struct(v->struct_value, a, n);
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        n->type = JSON_ARRAY;
        for (size_t i = 0; i < v->list_value->n_values; i++) {
            struct json *m = append(n, &last, a);
            if (!m || !from_value(v->list_value->values[i], a, m)) {
                return false;
            }
        }
        return true;
    default:
        n->type = JSON_NULL;
        return true;
    }
}

struct json *pb_struct_to_json(const Google__Protobuf__Struct *st, struct arena *a)
{
    struct json *n = arena_new(a, struct json);
    return n && from_struct(st, a, n) ? n : NULL;
}
