// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/base64.h"
#include "lib/base/check.h"
#include "proto/pb_json_int.h"
#include "proto/types.h"

// Fields whose text and bytes are secrets. File names and names of variables in them stay readable.
static const struct {
    const char *message, *field;
} secrets[] = {
    { "envoy.extensions.transport_sockets.tls.v3.TlsCertificate", "private_key" },
    { "envoy.extensions.transport_sockets.tls.v3.TlsCertificate", "password" },
    { "envoy.extensions.transport_sockets.tls.v3.TlsCertificate", "pkcs12" },
    { "envoy.extensions.transport_sockets.tls.v3.TlsSessionTicketKeys", "keys" },
    { "envoy.extensions.transport_sockets.tls.v3.GenericSecret", "secret" },
    { "envoy.extensions.transport_sockets.tls.v3.GenericSecret", "secrets" },
    { "envoy.config.core.v3.GrpcService.GoogleGrpc.SslCredentials", "private_key" },
    { "istio.mesh.v1alpha1.Tracing.Lightstep", "access_token" },
};

static bool is_secret(const ProtobufCMessageDescriptor *desc, const ProtobufCFieldDescriptor *f)
{
    for (size_t i = 0; i < array_len(secrets); i++) {
        if (strcmp(f->name, secrets[i].field) == 0 && strcmp(desc->name, secrets[i].message) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_place(const ProtobufCFieldDescriptor *f)
{
    return strcmp(f->name, "filename") == 0 || strcmp(f->name, "environment_variable") == 0;
}

bool wr_deep(struct wr *wr)
{
    if (wr->w->depth + 4 < (int)array_len(wr->w->need_comma)) {
        return false;
    }
    jw_str(wr->w, STR("(cut: nested too deep)"));
    return true;
}

static void write_float(struct wr *wr, float v)
{
    char s[40];
    int n = 0;
    for (int digits = 6; digits <= 9; digits++) { // the shortest that reads back the same
        n = snprintf(s, sizeof(s), "%.*g", digits, (double)v);
        if (strtof(s, NULL) == v) {
            break;
        }
    }
    if (isfinite(v)) {
        jw_raw(wr->w, str_n(s, (size_t)n));
    } else {
        jw_double(wr->w, (double)v);
    }
}

static void write_quoted(struct wr *wr, uint64_t magnitude, bool neg)
{
    char s[32];
    int n = snprintf(s, sizeof(s), "%s%" PRIu64, neg ? "-" : "", magnitude);
    jw_str(wr->w, str_n(s, (size_t)n));
}

static void write_bytes(struct wr *wr, ProtobufCBinaryData b)
{
    struct arena a = { 0 };
    jw_str(wr->w, base64_encode(&a, wr->redact ? STR("[redacted]") : pb_bytes(b)));
    arena_fini(&a);
}

static void write_enum(struct wr *wr, const ProtobufCEnumDescriptor *desc, int v)
{
    const ProtobufCEnumValue *e = protobuf_c_enum_descriptor_get_value(desc, v);
    if (desc == &google__protobuf__null_value__descriptor) {
        jw_null(wr->w);
    } else if (e) {
        jw_str(wr->w, str_c(e->name));
    } else {
        jw_i64(wr->w, v);
    }
}

void wr_value(struct wr *wr, const ProtobufCFieldDescriptor *f, const void *slot)
{
    int64_t i;
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        jw_i64(wr->w, *(const int32_t *)slot);
        return;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        jw_u64(wr->w, *(const uint32_t *)slot);
        return;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        i = *(const int64_t *)slot;
        write_quoted(wr, i < 0 ? (uint64_t)0 - (uint64_t)i : (uint64_t)i, i < 0);
        return;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        write_quoted(wr, *(const uint64_t *)slot, false);
        return;
    case PROTOBUF_C_TYPE_FLOAT:
        write_float(wr, *(const float *)slot);
        return;
    case PROTOBUF_C_TYPE_DOUBLE:
        jw_double(wr->w, *(const double *)slot);
        return;
    case PROTOBUF_C_TYPE_BOOL:
        jw_bool(wr->w, *(const protobuf_c_boolean *)slot);
        return;
    case PROTOBUF_C_TYPE_ENUM:
        write_enum(wr, f->descriptor, *(const int *)slot);
        return;
    case PROTOBUF_C_TYPE_STRING:
        jw_str(wr->w, wr->redact && !is_place(f) ? STR("[redacted]") : str_c(*(char *const *)slot));
        return;
    case PROTOBUF_C_TYPE_BYTES:
        write_bytes(wr, *(const ProtobufCBinaryData *)slot);
        return;
    case PROTOBUF_C_TYPE_MESSAGE:
        if (*(ProtobufCMessage *const *)slot) {
            wr_message(wr, *(ProtobufCMessage *const *)slot);
        } else { // the value of a map entry that came without one: its default
            jw_object(wr->w);
            jw_object_end(wr->w);
        }
        return;
    }
}

static void write_map_key(struct wr *wr, const ProtobufCFieldDescriptor *f, const void *slot)
{
    char s[32];
    int n;
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        jw_key(wr->w, str_c(*(char *const *)slot));
        return;
    case PROTOBUF_C_TYPE_BOOL:
        jw_key(wr->w, *(const protobuf_c_boolean *)slot ? STR("true") : STR("false"));
        return;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        n = snprintf(s, sizeof(s), "%" PRIu32, *(const uint32_t *)slot);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        n = snprintf(s, sizeof(s), "%" PRIu64, *(const uint64_t *)slot);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        n = snprintf(s, sizeof(s), "%" PRId64, *(const int64_t *)slot);
        break;
    default:
        n = snprintf(s, sizeof(s), "%" PRId32, *(const int32_t *)slot);
    }
    jw_key(wr->w, str_n(s, (size_t)n));
}

static void write_list(struct wr *wr, const ProtobufCMessageDescriptor *desc,
                       const ProtobufCFieldDescriptor *f, const char *v, size_t count)
{
    size_t size = pb_value_size(f->type);
    bool map = pb_field_is_map(desc, f);
    if (map) {
        jw_object(wr->w);
    } else {
        jw_array(wr->w);
    }
    for (size_t i = 0; i < count; i++) {
        if (!map) {
            wr_value(wr, f, v + i * size);
            continue;
        }
        const char *entry = ((const char *const *)(const void *)v)[i];
        const ProtobufCFieldDescriptor *kv =
            ((const ProtobufCMessage *)(const void *)entry)->descriptor->fields;
        write_map_key(wr, &kv[0], entry + kv[0].offset);
        wr_value(wr, &kv[1], entry + kv[1].offset);
    }
    if (map) {
        jw_object_end(wr->w);
    } else {
        jw_array_end(wr->w);
    }
}

// Whether PB_JSON_DEFAULTS writes the field when it is not set: what cannot be told from absent.
static bool has_default(const ProtobufCFieldDescriptor *f)
{
    return f->label == PROTOBUF_C_LABEL_REPEATED ||
           (f->type != PROTOBUF_C_TYPE_MESSAGE && !(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF));
}

// Whether a singular field outside a oneof differs from its default.
static bool is_set(const ProtobufCFieldDescriptor *f, const void *slot)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return *(void *const *)slot != NULL;
    case PROTOBUF_C_TYPE_STRING:
        return *(char *const *)slot && **(char *const *)slot;
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)slot)->len > 0;
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_UINT64:
        return *(const uint64_t *)slot != 0;
    default:
        return *(const uint32_t *)slot != 0;
    }
}

void wr_fields(struct wr *wr, const ProtobufCMessage *m)
{
    const ProtobufCMessageDescriptor *desc = m->descriptor;
    for (unsigned i = 0; i < desc->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &desc->fields[i];
        const char *slot = (const char *)m + f->offset,
                   *quantifier = (const char *)m + f->quantifier_offset;
        bool list = f->label == PROTOBUF_C_LABEL_REPEATED;
        bool present = list ? *(const size_t *)(const void *)quantifier > 0
                       : f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF
                           ? *(const uint32_t *)(const void *)quantifier == f->id
                           : is_set(f, slot);
        if (!present && !((wr->flags & PB_JSON_DEFAULTS) && has_default(f))) {
            continue;
        }
        bool outer = wr->redact;
        wr->redact = outer || ((wr->flags & PB_JSON_REDACT) && is_secret(desc, f));
        jw_key(wr->w, str_c(f->name));
        if (list) {
            write_list(wr, desc, f, *(const char *const *)(const void *)slot,
                       *(const size_t *)(const void *)quantifier);
        } else {
            wr_value(wr, f, slot);
        }
        wr->redact = outer;
    }
}

void wr_message(struct wr *wr, const ProtobufCMessage *m)
{
    const struct pb_wkt *wkt = pb_wkt_find(m->descriptor);
    if (wkt) {
        wkt->write(wr, m);
        return;
    }
    if (wr_deep(wr)) {
        return;
    }
    jw_object(wr->w);
    wr_fields(wr, m);
    jw_object_end(wr->w);
}

void pb_json_write(struct json_writer *w, const ProtobufCMessage *m, unsigned flags)
{
    struct wr wr = { .w = w, .flags = flags };
    wr_message(&wr, m);
}

void pb_json_write_typed(struct json_writer *w, const ProtobufCMessage *m, unsigned flags)
{
    struct wr wr = { .w = w, .flags = flags };
    if (wr_deep(&wr)) {
        return;
    }
    jw_object(w);
    jw_key(w, STR("@type"));
    jw_str(w, types_url(m->descriptor));
    if (pb_wkt_find(m->descriptor)) {
        jw_key(w, STR("value"));
        wr_message(&wr, m);
    } else {
        wr_fields(&wr, m);
    }
    jw_object_end(w);
}
