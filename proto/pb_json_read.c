// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/base64.h"
#include "lib/base/check.h"
#include "lib/base/utf8.h"
#include "proto/pb_json_int.h"

enum { NAME_MAX_BYTES = 128, FIELDS_MAX = 256, PATH_MAX_BYTES = 512 };

static size_t path_write(const struct frame *f, char *out, size_t cap)
{
    if (!f) {
        return 0;
    }
    size_t n = path_write(f->up, out, cap);
    if (n >= cap) {
        return cap;
    }
    int k = f->name.p ? snprintf(out + n, cap - n, "%s%.*s", n ? "." : "", STR_FMT(f->name))
                      : snprintf(out + n, cap - n, "[%zu]", f->index);
    return k < 0 ? n : n + (size_t)k;
}

int rd_fail(struct rd *rd, const struct frame *at, const struct json *n, const char *fmt, ...)
{
    char path[PATH_MAX_BYTES] = "", what[ERR_MSG_MAX], place[64] = "";
    path_write(at, path, sizeof(path));
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    if (n && n->line) {
        snprintf(place, sizeof(place), path[0] ? " (line %d, column %d)" : "line %d, column %d",
                 n->line, n->col);
    }
    return err_set(rd->err, -EINVAL, "%s%s%s%s", path, place, path[0] || place[0] ? ": " : "",
                   what);
}

int rd_no_memory(struct rd *rd, const struct frame *at, const struct json *n)
{
    rd_fail(rd, at, n, "takes more memory than allowed");
    if (rd->err) {
        rd->err->code = -ENOMEM;
    }
    return -ENOMEM;
}

const char *rd_kind(const struct json *n)
{
    switch (n->type) {
    case JSON_NULL:
        return "null";
    case JSON_BOOL:
        return "true or false";
    case JSON_NUMBER:
        return "a number";
    case JSON_STRING:
        return "text";
    case JSON_ARRAY:
        return "a list";
    default:
        return "an object";
    }
}

size_t pb_value_size(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

// The number's text: a number, quoted or not. NULL view otherwise.
static struct str number_text(const struct json *n)
{
    return n->type == JSON_NUMBER || n->type == JSON_STRING ? n->text : (struct str){ 0 };
}

static bool copy_text(struct str s, char *out, size_t cap)
{
    if (s.n == 0 || s.n >= cap) {
        return false;
    }
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
    return true;
}

// -5, 5, 5.0 and 1e3 are integers; 1.5 is none. *ret_neg with the magnitude in *ret.
static bool parse_integer(struct str s, bool *ret_neg, uint64_t *ret)
{
    bool neg = s.n && s.p[0] == '-';
    if (str_to_u64(str_skip(s, neg), UINT64_MAX, ret)) {
        *ret_neg = neg;
        return true;
    }
    char text[64];
    if (!json_is_number(s) || !copy_text(s, text, sizeof(text))) {
        return false;
    }
    double d = strtod(text, NULL);
    if (!isfinite(d) || d != trunc(d) ||
        fabs(d) > 9007199254740992.0) { // 2^53: beyond it a double is not exact
        return false;
    }
    *ret_neg = d < 0;
    *ret = (uint64_t)fabs(d);
    return true;
}

static int rd_integer(struct rd *rd, const struct frame *at, const struct json *n, int64_t min,
                      uint64_t max, uint64_t *ret)
{
    bool neg;
    uint64_t v;
    struct str s = number_text(n);
    if (!s.p || !parse_integer(s, &neg, &v)) {
        bool fraction = n->type == JSON_NUMBER;
        return rd_fail(rd, at, n, "%s%.*s%s is not a whole number%s", fraction ? "" : "",
                       s.p ? (int)s.n : 0, s.p ? s.p : "", s.p ? "" : rd_kind(n),
                       fraction ? " that fits" : "");
    }
    if (neg ? v > (uint64_t)0 - (uint64_t)min : v > max) {
        return rd_fail(rd, at, n, "%.*s does not fit: expected %" PRId64 " to %" PRIu64, STR_FMT(s),
                       min, max);
    }
    *ret = neg ? (uint64_t)0 - v : v;
    return 0;
}

static int rd_double(struct rd *rd, const struct frame *at, const struct json *n, double *ret)
{
    struct str s = number_text(n);
    char text[512];
    if (n->type == JSON_STRING &&
        (str_is(s, "NaN") || str_is(s, "Infinity") || str_is(s, "-Infinity"))) {
        *ret = str_is(s, "NaN") ? (double)NAN
               : s.p[0] == '-'  ? -(double)INFINITY
                                : (double)INFINITY;
        return 0;
    }
    if (!s.p || !json_is_number(s) || !copy_text(s, text, sizeof(text))) {
        return rd_fail(rd, at, n, "%s where a number is expected", rd_kind(n));
    }
    double d = strtod(text, NULL);
    if (!isfinite(d)) {
        return rd_fail(rd, at, n, "%s does not fit a number of 64 bits", text);
    }
    *ret = d;
    return 0;
}

static int rd_enum(struct rd *rd, const struct frame *at, const struct json *n,
                   const ProtobufCEnumDescriptor *desc, int *ret)
{
    char name[NAME_MAX_BYTES];
    if (n->type == JSON_STRING && copy_text(n->text, name, sizeof(name))) {
        const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value_by_name(desc, name);
        if (v) {
            *ret = v->value;
            return 0;
        }
    }
    if (n->type == JSON_NUMBER) {
        uint64_t v;
        int r = rd_integer(rd, at, n, INT32_MIN, INT32_MAX, &v);
        if (r == 0) {
            *ret = (int)(int64_t)v;
        }
        return r;
    }
    if (n->type != JSON_STRING && !n->plain) {
        return rd_fail(rd, at, n, "%s where a name is expected", rd_kind(n));
    }
    char names[512] = "";
    size_t k = 0;
    for (unsigned i = 0; i < desc->n_value_names && k < sizeof(names); i++) {
        k += (size_t)snprintf(names + k, sizeof(names) - k, "%s%s", i ? ", " : "",
                              desc->values_by_name[i].name);
    }
    return rd_fail(rd, at, n, "unknown value \"%.*s\"; one of %s%s",
                   (int)(n->text.n < 100 ? n->text.n : 100), n->text.p ? n->text.p : "", names,
                   k >= sizeof(names) ? "…" : "");
}

static int rd_string(struct rd *rd, const struct frame *at, const struct json *n, char **ret)
{
    bool taken =
        n->type == JSON_STRING || (n->plain && (n->type == JSON_NUMBER || n->type == JSON_BOOL));
    if (!taken) {
        return rd_fail(rd, at, n, "%s where text is expected%s", rd_kind(n),
                       n->type == JSON_NUMBER || n->type == JSON_BOOL ? "; put it in quotes" : "");
    }
    if (n->text.n && memchr(n->text.p, 0, n->text.n)) {
        return rd_fail(rd, at, n, "text with a NUL character in it");
    }
    if (!utf8_valid(n->text)) {
        return rd_fail(rd, at, n, "text is not UTF-8");
    }
    struct str s = arena_str(rd->arena, n->text);
    if (!s.p) {
        return rd_no_memory(rd, at, n);
    }
    *ret = (char *)s.p;
    return 0;
}

static int rd_bytes(struct rd *rd, const struct frame *at, const struct json *n,
                    ProtobufCBinaryData *ret)
{
    struct str s;
    if (n->type != JSON_STRING) {
        return rd_fail(rd, at, n, "%s where base64 text is expected", rd_kind(n));
    }
    if (!base64_decode(rd->arena, n->text, &s)) {
        return rd_fail(rd, at, n, "not base64");
    }
    *ret = (ProtobufCBinaryData){ .data = (uint8_t *)s.p, .len = s.n };
    return 0;
}

static int rd_bool(struct rd *rd, const struct frame *at, const struct json *n,
                   protobuf_c_boolean *ret)
{
    if (n->type != JSON_BOOL) {
        return rd_fail(rd, at, n, "%s where true or false is expected%s", rd_kind(n),
                       n->type == JSON_STRING ? " (without quotes)" : "");
    }
    *ret = n->boolean;
    return 0;
}

static int rd_scalar(struct rd *rd, const struct frame *at, const struct json *n,
                     ProtobufCType type, void *slot)
{
    uint64_t v;
    double d;
    int r;
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        r = rd_integer(rd, at, n, INT32_MIN, INT32_MAX, &v);
        if (r == 0) {
            *(int32_t *)slot = (int32_t)(int64_t)v;
        }
        return r;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        r = rd_integer(rd, at, n, 0, UINT32_MAX, &v);
        if (r == 0) {
            *(uint32_t *)slot = (uint32_t)v;
        }
        return r;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        r = rd_integer(rd, at, n, INT64_MIN, INT64_MAX, &v);
        if (r == 0) {
            *(int64_t *)slot = (int64_t)v;
        }
        return r;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        r = rd_integer(rd, at, n, 0, UINT64_MAX, &v);
        if (r == 0) {
            *(uint64_t *)slot = v;
        }
        return r;
    case PROTOBUF_C_TYPE_DOUBLE:
        return rd_double(rd, at, n, slot);
    case PROTOBUF_C_TYPE_FLOAT:
        r = rd_double(rd, at, n, &d);
        if (r == 0 && isfinite(d) && fabs(d) > 3.4028234663852886e38) {
            return rd_fail(rd, at, n, "%.*s does not fit a number of 32 bits", STR_FMT(n->text));
        }
        if (r == 0) {
            *(float *)slot = (float)d;
        }
        return r;
    case PROTOBUF_C_TYPE_BOOL:
        return rd_bool(rd, at, n, slot);
    case PROTOBUF_C_TYPE_STRING:
        return rd_string(rd, at, n, slot);
    default:
        return rd_bytes(rd, at, n, slot);
    }
}

int rd_value(struct rd *rd, const struct frame *at, const struct json *n,
             const ProtobufCFieldDescriptor *f, void *slot)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return rd_message(rd, at, n, f->descriptor, slot);
    case PROTOBUF_C_TYPE_ENUM:
        return rd_enum(rd, at, n, f->descriptor, slot);
    default:
        return rd_scalar(rd, at, n, f->type, slot);
    }
}

// Whether key is the lowerCamelCase form of a field's name: '_' goes, the letter behind it rises
// (protoc's json_name).
static bool is_camel(const char *field, struct str key)
{
    size_t i = 0;
    bool up = false;
    for (; *field; field++) {
        if (*field == '_') {
            up = true;
            continue;
        }
        char c = up && *field >= 'a' && *field <= 'z' ? (char)(*field - 'a' + 'A') : *field;
        up = false;
        if (i >= key.n || key.p[i++] != c) {
            return false;
        }
    }
    return i == key.n;
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *desc,
                                                  struct str key)
{
    char name[NAME_MAX_BYTES];
    if (!copy_text(key, name, sizeof(name)) || strlen(name) != key.n) {
        return NULL;
    }
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(desc, name);
    for (unsigned i = 0; !f && i < desc->n_fields; i++) {
        f = is_camel(desc->fields[i].name, key) ? &desc->fields[i] : NULL;
    }
    return f;
}

static int rd_list(struct rd *rd, const struct frame *at, const struct json *n,
                   const ProtobufCFieldDescriptor *f, ProtobufCMessage *m)
{
    if (n->type != JSON_ARRAY) {
        return rd_fail(rd, at, n, "%s where a list is expected", rd_kind(n));
    }
    size_t size = pb_value_size(f->type), i = 0;
    char *v = arena_zalloc(rd->arena, n->count * size + 1);
    if (!v) {
        return rd_no_memory(rd, at, n);
    }
    for (const struct json *e = n->first; e; e = e->next, i++) {
        struct frame here = { .up = at, .index = i };
        int r = rd_value(rd, &here, e, f, v + i * size);
        if (r < 0) {
            return r;
        }
    }
    *(size_t *)((char *)m + f->quantifier_offset) = i;
    *(void **)((char *)m + f->offset) = i ? v : NULL;
    return 0;
}

static int rd_map_key(struct rd *rd, const struct frame *at, const struct json *n,
                      const ProtobufCFieldDescriptor *k, void *slot)
{
    struct json key = { .type = JSON_STRING, .text = n->key, .line = n->line, .col = n->col };
    if (k->type == PROTOBUF_C_TYPE_BOOL) {
        key.boolean = str_is(n->key, "true");
        key.type = key.boolean || str_is(n->key, "false") ? JSON_BOOL : JSON_STRING;
    }
    return rd_scalar(rd, at, &key, k->type, slot);
}

static int rd_map(struct rd *rd, const struct frame *at, const struct json *n,
                  const ProtobufCFieldDescriptor *f, ProtobufCMessage *m)
{
    if (n->type != JSON_OBJECT) {
        return rd_fail(rd, at, n, "%s where an object is expected", rd_kind(n));
    }
    const ProtobufCMessageDescriptor *desc = f->descriptor;
    ProtobufCMessage **v = arena_zalloc(rd->arena, (n->count + 1) * sizeof(*v));
    size_t i = 0;
    if (!v) {
        return rd_no_memory(rd, at, n);
    }
    for (const struct json *e = n->first; e; e = e->next) {
        struct frame here = { .up = at, .name = e->key };
        ProtobufCMessage *entry = pb_new(rd->arena, desc);
        if (!entry) {
            return rd_no_memory(rd, &here, e);
        }
        int r = rd_map_key(rd, &here, e, &desc->fields[0], (char *)entry + desc->fields[0].offset);
        if (r == 0) {
            r = rd_value(rd, &here, e, &desc->fields[1], (char *)entry + desc->fields[1].offset);
        }
        if (r < 0) {
            return r;
        }
        v[i++] = entry;
    }
    *(size_t *)((char *)m + f->quantifier_offset) = i;
    *(void **)((char *)m + f->offset) = i ? v : NULL;
    return 0;
}

// null is "not given", but for the two types that have a null of their own.
static bool is_absent(const struct json *n, const ProtobufCFieldDescriptor *f)
{
    return n->type == JSON_NULL &&
           !(f->type == PROTOBUF_C_TYPE_MESSAGE && f->label != PROTOBUF_C_LABEL_REPEATED &&
             f->descriptor == &google__protobuf__value__descriptor) &&
           !(f->type == PROTOBUF_C_TYPE_ENUM &&
             f->descriptor == &google__protobuf__null_value__descriptor);
}

static int rd_oneof_clash(struct rd *rd, const struct frame *at, const struct json *n,
                          const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    uint32_t set = *(const uint32_t *)((const char *)m + f->quantifier_offset);
    const ProtobufCFieldDescriptor *other =
        set ? protobuf_c_message_descriptor_get_field(m->descriptor, set) : NULL;
    return other ? rd_fail(rd, at, n, "cannot stand beside %s: only one of them may be given",
                           other->name)
                 : 0;
}

int rd_field(struct rd *rd, const struct frame *at, const struct json *n,
             const ProtobufCFieldDescriptor *f, ProtobufCMessage *m)
{
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        return pb_field_is_map(m->descriptor, f) ? rd_map(rd, at, n, f, m)
                                                 : rd_list(rd, at, n, f, m);
    }
    if (!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)) {
        return rd_value(rd, at, n, f, (char *)m + f->offset);
    }
    int r = rd_oneof_clash(rd, at, n, m, f);
    if (r == 0) {
        r = rd_value(rd, at, n, f, (char *)m + f->offset);
    }
    if (r == 0) {
        *(uint32_t *)((char *)m + f->quantifier_offset) = f->id;
    }
    return r;
}

int rd_fields(struct rd *rd, const struct frame *at, const struct json *n, ProtobufCMessage *m,
              bool skip_type)
{
    if (n->type != JSON_OBJECT) {
        return rd_fail(rd, at, n, "%s where an object is expected", rd_kind(n));
    }
    bool seen[FIELDS_MAX] = { 0 };
    CHECK(m->descriptor->n_fields <= FIELDS_MAX);
    for (const struct json *e = n->first; e; e = e->next) {
        struct frame here = { .up = at, .name = e->key };
        if (skip_type && str_is(e->key, "@type")) {
            continue;
        }
        const ProtobufCFieldDescriptor *f = find_field(m->descriptor, e->key);
        if (!f && (rd->flags & PB_JSON_IGNORE_UNKNOWN)) {
            continue;
        }
        if (!f) {
            return rd_fail(rd, &here, e, "unknown field; %s has none of this name",
                           m->descriptor->name);
        }
        if (is_absent(e, f)) {
            continue;
        }
        bool *twice = &seen[f - m->descriptor->fields];
        int r = *twice ? rd_fail(rd, &here, e, "given twice, in both spellings")
                       : rd_field(rd, &here, e, f, m);
        if (r < 0) {
            return r;
        }
        *twice = true;
    }
    return 0;
}

int rd_message(struct rd *rd, const struct frame *at, const struct json *n,
               const ProtobufCMessageDescriptor *desc, ProtobufCMessage **ret)
{
    ProtobufCMessage *m = pb_new(rd->arena, desc);
    if (!m) {
        return rd_no_memory(rd, at, n);
    }
    const struct pb_wkt *wkt = pb_wkt_find(desc);
    int r = wkt ? wkt->read(rd, at, n, m) : rd_fields(rd, at, n, m, false);
    if (r == 0) {
        *ret = m;
    }
    return r;
}

int pb_json_read(const struct json *n, const ProtobufCMessageDescriptor *desc, unsigned flags,
                 struct arena *a, ProtobufCMessage **ret, struct err *err)
{
    struct rd rd = { .flags = flags, .arena = a, .err = err };
    return rd_message(&rd, NULL, n, desc, ret);
}

int pb_json_parse(struct str text, const ProtobufCMessageDescriptor *desc, unsigned flags,
                  struct arena *a, ProtobufCMessage **ret, struct err *err)
{
    struct json *n;
    int r = json_or_yaml_parse(text, a, &n, err);
    return r < 0 ? r : pb_json_read(n, desc, flags, a, ret, err);
}

int pb_json_from_struct(const Google__Protobuf__Struct *st, const ProtobufCMessageDescriptor *desc,
                        unsigned flags, struct arena *a, ProtobufCMessage **ret, struct err *err)
{
    struct json *n = pb_struct_to_json(st, a);
    return n ? pb_json_read(n, desc, flags, a, ret, err)
             : err_set(err, -ENOMEM, "%s: takes more memory than allowed", desc->name);
}
