// SPDX-License-Identifier: Apache-2.0
// Runtime keys (bootstrap.v3.LayeredRuntime): the static layers. Their values do not change while the process lives, so that they are put
// into the model when a resource is built, and the data path knows no keys.
#include <string.h>

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "proxy/config/build.h"

// The value of the key in s, which may be spelled with dots or as nested structures. NULL = not there.
static const Google__Protobuf__Value *find(const Google__Protobuf__Struct *s, const char *key)
{
    const Google__Protobuf__Value *hit = NULL;
    for (size_t i = 0; s && i < s->n_fields; i++) {
        const char *name = s->fields[i]->key;
        const Google__Protobuf__Value *v = s->fields[i]->value;
        size_t n = strlen(name);
        if (strcmp(name, key) == 0) {
            hit = v;
        } else if (strncmp(name, key, n) == 0 && key[n] == '.' && v && v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE) {
            const Google__Protobuf__Value *inner = find(v->struct_value, key + n + 1); // as deep as the key has dots
            hit = inner ? inner : hit;
        }
    }
    return hit;
}

static const Google__Protobuf__Value *lookup(const struct config_ctx *ctx, const char *key)
{
    const Envoy__Config__Bootstrap__V3__LayeredRuntime *r = ctx->runtime;
    const Google__Protobuf__Value *hit = NULL;
    for (size_t i = 0; r && key && key[0] && i < r->n_layers; i++) { // later layers win
        const Envoy__Config__Bootstrap__V3__RuntimeLayer *l = r->layers[i];
        if (l->layer_specifier_case == ENVOY__CONFIG__BOOTSTRAP__V3__RUNTIME_LAYER__LAYER_SPECIFIER_STATIC_LAYER) {
            const Google__Protobuf__Value *v = find(l->static_layer, key);
            hit = v ? v : hit;
        }
    }
    return hit;
}

static bool number(const Google__Protobuf__Value *v, uint64_t max, uint64_t *ret)
{
    if (!v || v->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE || !(v->number_value >= 0)) {
        return false;
    }
    *ret = v->number_value >= (double)max ? max : (uint64_t)v->number_value;
    return true;
}

int runtime_bool(const struct config_ctx *ctx, const char *key, bool *ret, struct err *err)
{
    const Google__Protobuf__Value *v = lookup(ctx, key);
    if (v && v->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE) {
        return cfg_fail(err, "layered_runtime", "%s must be true or false", key);
    }
    *ret = v ? v->bool_value : *ret;
    return 0;
}

bool runtime_number(const struct config_ctx *ctx, const char *key, uint64_t max, uint64_t *ret)
{
    return number(lookup(ctx, key), max, ret);
}

// {"numerator": 5, "denominator": "TEN_THOUSAND"}
static bool fraction_of(const Google__Protobuf__Struct *s, struct fraction *ret)
{
    uint64_t n;
    if (!number(find(s, "numerator"), UINT32_MAX, &n)) {
        return false;
    }
    const Google__Protobuf__Value *d = find(s, "denominator");
    const char *name = d && d->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE ? d->string_value : "HUNDRED";
    *ret = (struct fraction){ .numerator = (uint32_t)n,
                              .denominator = !strcmp(name, "MILLION") ? 1000000 : !strcmp(name, "TEN_THOUSAND") ? 10000 : 100 };
    return true;
}

bool runtime_fraction(const struct config_ctx *ctx, const char *key, uint32_t *ret_numerator, uint32_t *ret_denominator)
{
    const Google__Protobuf__Value *v = lookup(ctx, key);
    struct fraction f = { .denominator = 100 };
    uint64_t n;
    if (v && v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE) {
        if (!fraction_of(v->struct_value, &f)) {
            return false;
        }
    } else if (number(v, 100, &n)) { // a plain number is a percentage
        f.numerator = (uint32_t)n;
    } else {
        return false;
    }
    *ret_numerator = f.numerator;
    *ret_denominator = f.denominator;
    return true;
}

struct fraction build_runtime_fraction(const struct config_ctx *ctx, const Envoy__Config__Core__V3__RuntimeFractionalPercent *m)
{
    struct fraction f = build_fraction(m->default_value);
    (void)runtime_fraction(ctx, m->runtime_key, &f.numerator, &f.denominator);
    return f;
}
