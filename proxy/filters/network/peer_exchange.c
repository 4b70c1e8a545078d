// SPDX-License-Identifier: Apache-2.0
#include "proxy/filters/network/peer_exchange.h"

#include <stdlib.h>

#include "envoy/config/core/v3/base.pb-c.h"
#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/pb_util.h"

typedef Google__Protobuf__Struct struct_msg;
typedef Google__Protobuf__Value value_msg;
typedef Google__Protobuf__Struct__FieldsEntry entry_msg;

static const unsigned char magic[4] = { 0x3D, 0x23, 0x04, 0x67 };
static const char key_metadata[] = "x-envoy-peer-metadata", key_id[] = "x-envoy-peer-metadata-id";
static const char label_name[] = "service.istio.io/canonical-name", label_revision[] = "service.istio.io/canonical-revision";

// ---- writing ----

static value_msg *text_value(struct arena *a, const char *text)
{
    value_msg *v = pb_new_as(a, value_msg, google__protobuf__value);
    v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    v->string_value = arena_strdup(a, text);
    return v;
}

static value_msg *struct_value(struct arena *a, struct_msg *s)
{
    value_msg *v = pb_new_as(a, value_msg, google__protobuf__value);
    v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    v->struct_value = s;
    return v;
}

enum { FIELDS_MAX = 8 };

static struct_msg *struct_new(struct arena *a)
{
    struct_msg *s = pb_new_as(a, struct_msg, google__protobuf__struct);
    s->fields = arena_array(a, entry_msg *, FIELDS_MAX);
    return s;
}

static void put(struct arena *a, struct_msg *s, const char *key, value_msg *v)
{
    entry_msg *e = pb_new_as(a, entry_msg, google__protobuf__struct__fields_entry);
    e->key = (char *)key;
    e->value = v;
    s->fields[s->n_fields++] = e;
}

static void put_text(struct arena *a, struct_msg *to, const struct_msg *from, const char *key)
{
    struct str v = pb_struct_str(from, key);
    if (v.n) {
        put(a, to, key, text_value(a, v.p));
    }
}

// What of a node's metadata goes to peers: istiod puts much more into it, also what is nobody's business.
static struct_msg *shared_metadata(const struct_msg *from, struct arena *a)
{
    struct_msg *to = struct_new(a), *labels = struct_new(a);
    static const char *const keys[] = { "NAME", "NAMESPACE", "WORKLOAD_NAME", "CLUSTER_ID", "OWNER" };
    static const char *const label_keys[] = { "app", label_name, label_revision, "version" };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        put_text(a, to, from, keys[i]);
    }
    const value_msg *l = pb_struct_get(from, "LABELS");
    const struct_msg *have = l && l->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE ? l->struct_value : NULL;
    for (size_t i = 0; have && i < sizeof(label_keys) / sizeof(label_keys[0]); i++) {
        put_text(a, labels, have, label_keys[i]);
    }
    if (labels->n_fields) {
        put(a, to, "LABELS", struct_value(a, labels));
    }
    return to;
}

struct str peer_exchange_build(const struct Envoy__Config__Core__V3__Node *node, struct arena *a)
{
    struct_msg *all = struct_new(a);
    if (node) {
        static const struct_msg none = GOOGLE__PROTOBUF__STRUCT__INIT;
        put(a, all, key_metadata, struct_value(a, shared_metadata(node->metadata ? node->metadata : &none, a)));
        if (node->id && node->id[0]) {
            put(a, all, key_id, text_value(a, node->id));
        }
    }
    struct str body = pb_pack_stable(&all->base, a); // peers cache by content: always the same bytes
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    any.type_url = (char *)"type.googleapis.com/google.protobuf.Struct";
    any.value = (ProtobufCBinaryData){ .len = body.n, .data = (uint8_t *)body.p };
    struct str packed = pb_pack(&any.base, a);
    char *out = arena_alloc(a, PEER_EXCHANGE_HEADER + packed.n);
    memcpy(out, magic, sizeof(magic));
    for (int i = 0; i < 4; i++) {
        out[4 + i] = (char)(packed.n >> (24 - 8 * i));
    }
    memcpy(out + PEER_EXCHANGE_HEADER, packed.p, packed.n);
    return str_n(out, PEER_EXCHANGE_HEADER + packed.n);
}

static struct str own; // written before the first snapshot, read by connections that a snapshot brought about

void peer_exchange_init(const struct Envoy__Config__Core__V3__Node *node)
{
    struct arena a;
    arena_init(&a, 1024, 0);
    struct str m = peer_exchange_build(node, &a);
    free((void *)own.p);
    own = str_n(str_dup(m), m.n);
    arena_fini(&a);
}

struct str peer_exchange_message(void)
{
    // An Any of an empty Struct, when nobody said who we are.
    static const char anonymous[] = "\x3D\x23\x04\x67\0\0\0\x2C\x0A\x2Atype.googleapis.com/google.protobuf.Struct";
    return own.n ? own : str_n(anonymous, sizeof(anonymous) - 1);
}

// ---- reading ----

static uint32_t message_bytes(const char *head)
{
    const unsigned char *p = (const unsigned char *)head;
    return (uint32_t)p[4] << 24 | (uint32_t)p[5] << 16 | (uint32_t)p[6] << 8 | p[7];
}

size_t peer_exchange_wants(struct str head)
{
    if (head.n < PEER_EXCHANGE_HEADER) {
        return PEER_EXCHANGE_HEADER;
    }
    uint32_t n = message_bytes(head.p);
    return PEER_EXCHANGE_HEADER + (n < PEER_EXCHANGE_BYTES_MAX ? n : PEER_EXCHANGE_BYTES_MAX);
}

static struct str text_of(const struct_msg *s, const char *key, struct arena *a)
{
    struct str v = pb_struct_str(s, key);
    return v.n ? arena_str(a, v) : (struct str){ 0 };
}

static const struct_msg *struct_of(const struct_msg *s, const char *key)
{
    const value_msg *v = pb_struct_get(s, key);
    return v && v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE ? v->struct_value : NULL;
}

static bool read_message(struct str bytes, struct arena *scratch, struct arena *a, struct peer_info *ret)
{
    Google__Protobuf__Any *any = NULL;
    struct_msg *all = NULL;
    struct err e;
    if (pb_unpack_as(Google__Protobuf__Any, google__protobuf__any, bytes, scratch, &any, &e) ||
        strcmp(any->type_url, "type.googleapis.com/google.protobuf.Struct") != 0 ||
        pb_unpack_as(struct_msg, google__protobuf__struct, pb_bytes(any->value), scratch, &all, &e)) {
        return false;
    }
    const struct_msg *m = struct_of(all, key_metadata), *labels = m ? struct_of(m, "LABELS") : NULL;
    struct peer_info p = { .id = text_of(all, key_id, a) };
    if (m) {
        p.name = text_of(m, "NAME", a);
        p.namespace = text_of(m, "NAMESPACE", a);
        p.workload = text_of(m, "WORKLOAD_NAME", a);
        p.cluster = text_of(m, "CLUSTER_ID", a);
        p.owner = text_of(m, "OWNER", a);
    }
    if (labels) {
        p.canonical_name = text_of(labels, label_name, a);
        p.canonical_revision = text_of(labels, label_revision, a);
        p.app = text_of(labels, "app", a);
        p.version = text_of(labels, "version", a);
    }
    *ret = p;
    return m || p.id.n;
}

enum peer_exchange_result peer_exchange_parse(struct str bytes, struct arena *a, struct peer_info *ret, size_t *ret_length)
{
    if (memcmp(bytes.p, magic, bytes.n < sizeof(magic) ? bytes.n : sizeof(magic)) != 0) {
        return PEER_EXCHANGE_NONE;
    }
    if (bytes.n < PEER_EXCHANGE_HEADER) {
        return PEER_EXCHANGE_MORE;
    }
    uint32_t n = message_bytes(bytes.p);
    if (n > PEER_EXCHANGE_BYTES_MAX) {
        return PEER_EXCHANGE_BAD;
    }
    if (bytes.n < PEER_EXCHANGE_HEADER + n) {
        return PEER_EXCHANGE_MORE;
    }
    *ret_length = PEER_EXCHANGE_HEADER + n;
    struct arena scratch;
    arena_init(&scratch, 4096, 0);
    bool known = read_message(str_n(bytes.p + PEER_EXCHANGE_HEADER, n), &scratch, a, ret);
    arena_fini(&scratch);
    return known ? PEER_EXCHANGE_FOUND : PEER_EXCHANGE_UNKNOWN;
}
