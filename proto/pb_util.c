// SPDX-License-Identifier: Apache-2.0
#include "proto/pb_util.h"

#include <errno.h>
#include <stdlib.h>

#include "envoy/config/core/v3/base.pb-c.h"
#include "lib/base/check.h"

static void *alloc_from_arena(void *data, size_t n)
{
    struct pb_alloc *pa = data;
    if (n > pa->budget) {
        return NULL;
    }
    pa->budget -= n;
    return arena_alloc(pa->arena, n);
}

static void free_nothing(void *data, void *p)
{
    (void)data;
    (void)p;
}

void pb_alloc_init(struct pb_alloc *pa, struct arena *a, size_t budget)
{
    *pa = (struct pb_alloc){
        .base = { .alloc = alloc_from_arena, .free = free_nothing, .allocator_data = pa },
        .arena = a,
        .budget = budget
    };
}

int pb_unpack(const ProtobufCMessageDescriptor *desc, struct str bytes, struct arena *a,
              ProtobufCMessage **ret, struct err *err)
{
    if (bytes.n > PB_BYTES_MAX) {
        return err_set(err, -EMSGSIZE, "%s: %zu bytes are more than the limit of %d", desc->name,
                       bytes.n, PB_BYTES_MAX);
    }
    int r = pb_check(desc, bytes, err);
    if (r < 0) {
        return r;
    }
    // A repeated singular message is merged by copying, so a hostile message could ask for far more
    // memory than it has bytes.
    struct pb_alloc pa;
    pb_alloc_init(&pa, a, PB_GROWTH_FREE + bytes.n * PB_GROWTH_MAX);
    const uint8_t *p = bytes.p ? (const uint8_t *)bytes.p : (const uint8_t *)"";
    ProtobufCMessage *m = protobuf_c_message_unpack(desc, &pa.base, bytes.n, p);
    if (!m) {
        return err_set(err, -ENOMEM, "%s: decoding %zu bytes takes more memory than allowed",
                       desc->name, bytes.n);
    }
    *ret = m;
    return 0;
}

ProtobufCMessage *pb_new(struct arena *a, const ProtobufCMessageDescriptor *desc)
{
    ProtobufCMessage *m = arena_alloc(a, desc->sizeof_message);
    if (m) {
        protobuf_c_message_init(desc, m);
    }
    return m;
}

struct str pb_pack(const ProtobufCMessage *m, struct arena *a)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *p = arena_alloc(a, n + 1);
    if (!p) {
        return (struct str){ 0 };
    }
    protobuf_c_message_pack(m, p);
    p[n] = 0;
    return str_n(p, n);
}

bool pb_field_is_map(const ProtobufCMessageDescriptor *desc, const ProtobufCFieldDescriptor *f)
{
    if (f->label != PROTOBUF_C_LABEL_REPEATED || f->type != PROTOBUF_C_TYPE_MESSAGE) {
        return false;
    }
    // protoc makes for `map<K, V> foo_bar` in message M the type M.FooBarEntry {K key = 1; V value
    // = 2;}.
    const ProtobufCMessageDescriptor *e = f->descriptor;
    struct str name = str_c(e->name), owner = str_c(desc->name);
    if (!str_ends(name, STR("Entry")) || !str_starts(name, owner) || e->n_fields != 2 ||
        name.n <= owner.n || name.p[owner.n] != '.') {
        return false;
    }
    const char *p = name.p + owner.n + 1;
    for (const char *q = f->name; *q; q++) {
        bool up = q == f->name || q[-1] == '_';
        if (*q == '_') {
            continue;
        }
        char c = up && *q >= 'a' && *q <= 'z' ? (char)(*q - 'a' + 'A') : *q;
        if (*p++ != c) {
            return false;
        }
    }
    return strcmp(p, "Entry") == 0 && strcmp(e->fields[0].name, "key") == 0 &&
           strcmp(e->fields[1].name, "value") == 0;
}

// Integer keys of the APIs are never negative, so one order serves all.
static uint64_t integer_key(const ProtobufCMessage *e)
{
    const ProtobufCFieldDescriptor *k = &e->descriptor->fields[0];
    const void *p = (const char *)e + k->offset;
    bool wide = k->type == PROTOBUF_C_TYPE_INT64 || k->type == PROTOBUF_C_TYPE_UINT64 ||
                k->type == PROTOBUF_C_TYPE_FIXED64 || k->type == PROTOBUF_C_TYPE_SINT64 ||
                k->type == PROTOBUF_C_TYPE_SFIXED64;
    return wide ? *(const uint64_t *)p : *(const uint32_t *)p;
}

static int entry_cmp(const void *a, const void *b)
{
    const ProtobufCMessage *x = *(ProtobufCMessage *const *)a, *y = *(ProtobufCMessage *const *)b;
    const ProtobufCFieldDescriptor *k = &x->descriptor->fields[0];
    if (k->type == PROTOBUF_C_TYPE_STRING) {
        const char *s = *(char *const *)((const char *)x + k->offset),
                   *t = *(char *const *)((const char *)y + k->offset);
        return strcmp(s ? s : "", t ? t : "");
    }
    uint64_t s = integer_key(x), t = integer_key(y);
    return s < t ? -1 : s > t;
}

static void sort_maps(ProtobufCMessage *m)
{
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (f->type != PROTOBUF_C_TYPE_MESSAGE) {
            continue;
        }
        char *at = (char *)m + f->offset;
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            bool set = !(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
                       *(const uint32_t *)((char *)m + f->quantifier_offset) == f->id;
            if (set && *(ProtobufCMessage **)at) {
                sort_maps(*(ProtobufCMessage **)at);
            }
            continue;
        }
        ProtobufCMessage **v = *(ProtobufCMessage ***)at;
        size_t n = *(size_t *)((char *)m + f->quantifier_offset);
        if (n > 1 && pb_field_is_map(m->descriptor, f)) {
            qsort(v, n, sizeof(*v), entry_cmp);
        }
        for (size_t j = 0; j < n; j++) {
            sort_maps(v[j]);
        }
    }
}

struct str pb_pack_stable(ProtobufCMessage *m, struct arena *a)
{
    sort_maps(m);
    return pb_pack(m, a);
}

bool pb_duration_valid(const Google__Protobuf__Duration *d)
{
    const int64_t seconds_max = 315576000000; // 10,000 years
    return d && d->seconds >= 0 && d->seconds <= seconds_max && d->nanos >= 0 &&
           d->nanos < 1000000000;
}

int64_t pb_duration_ms(const Google__Protobuf__Duration *d, int64_t dflt)
{
    return pb_duration_valid(d) ? d->seconds * 1000 + (d->nanos + 999999) / 1000000 : dflt;
}

uint32_t pb_u32_or(const Google__Protobuf__UInt32Value *v, uint32_t dflt)
{
    return v ? v->value : dflt;
}

uint64_t pb_u64_or(const Google__Protobuf__UInt64Value *v, uint64_t dflt)
{
    return v ? v->value : dflt;
}

int32_t pb_i32_or(const Google__Protobuf__Int32Value *v, int32_t dflt)
{
    return v ? v->value : dflt;
}

bool pb_bool_or(const Google__Protobuf__BoolValue *v, bool dflt)
{
    return v ? v->value : dflt;
}

double pb_double_or(const Google__Protobuf__DoubleValue *v, double dflt)
{
    return v ? v->value : dflt;
}

const ProtobufCMessage *pb_map_find(const void *entries, size_t n, const char *key)
{
    ProtobufCMessage *const *v = entries;
    for (size_t i = n; i-- > 0;) {
        const ProtobufCFieldDescriptor *k = &v[i]->descriptor->fields[0];
        DCHECK(k->type == PROTOBUF_C_TYPE_STRING);
        const char *s = *(char *const *)((const char *)v[i] + k->offset);
        if (strcmp(s ? s : "", key) == 0) {
            return v[i];
        }
    }
    return NULL;
}

const Google__Protobuf__Value *pb_struct_get(const Google__Protobuf__Struct *st, const char *key)
{
    const Google__Protobuf__Struct__FieldsEntry *e =
        st ? pb_map_get(st->fields, st->n_fields, key) : NULL;
    return e ? e->value : NULL;
}

struct str pb_value_str(const Google__Protobuf__Value *v)
{
    return str_c(v && v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE ? v->string_value
                                                                                 : NULL);
}

struct str pb_struct_str(const Google__Protobuf__Struct *st, const char *key)
{
    return pb_value_str(pb_struct_get(st, key));
}

const Google__Protobuf__Struct *pb_metadata_get(const Envoy__Config__Core__V3__Metadata *md,
                                                const char *filter)
{
    const Envoy__Config__Core__V3__Metadata__FilterMetadataEntry *e =
        md ? pb_map_get(md->filter_metadata, md->n_filter_metadata, filter) : NULL;
    return e ? e->value : NULL;
}
