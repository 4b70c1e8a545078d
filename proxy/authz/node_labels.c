// SPDX-License-Identifier: Apache-2.0
#include "proxy/authz/node_labels.h"

#include "envoy/config/core/v3/base.pb-c.h"
#include "proto/pb_util.h"

static const Google__Protobuf__Struct *metadata; // written before any configuration is built

void node_labels_init(const struct Envoy__Config__Core__V3__Node *node)
{
    metadata = node ? node->metadata : NULL;
}

size_t node_labels_get(const char *key, struct arena *a, const struct check_pair **ret)
{
    const Google__Protobuf__Value *v = metadata ? pb_struct_get(metadata, key) : NULL;
    if (!v || v->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE) {
        return 0;
    }
    const Google__Protobuf__Struct *s = v->struct_value;
    struct check_pair *out = arena_array(a, struct check_pair, s->n_fields + 1);
    for (size_t i = 0; i < s->n_fields; i++) {
        out[i] = (struct check_pair){ arena_str(a, str_c(s->fields[i]->key)), arena_str(a, pb_value_str(s->fields[i]->value)) };
    }
    *ret = out;
    return s->n_fields;
}
