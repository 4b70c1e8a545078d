// SPDX-License-Identifier: Apache-2.0
// The JSON forms of google.protobuf's own types: https://protobuf.dev/programming-guides/json, and
// the comments of duration.proto, timestamp.proto, struct.proto, wrappers.proto and any.proto.
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "google/protobuf/empty.pb-c.h"
#include "lib/base/base64.h"
#include "lib/base/check.h"
#include "proto/pb_json_int.h"
#include "proto/types.h"

// ---- Duration and Timestamp

// ".5" to 500000000; at most nine digits, nothing is 0.
static bool parse_fraction(struct str s, int32_t *ret)
{
    uint64_t v = 0;
    if (s.n) {
        if (s.p[0] != '.' || s.n < 2 || s.n > 10 || !str_to_u64(str_skip(s, 1), UINT64_MAX, &v)) {
            return false;
        }
        for (size_t i = s.n - 1; i < 9; i++) {
            v *= 10;
        }
    }
    *ret = (int32_t)v;
    return true;
}

// Nanoseconds as "", ".250", ".000001" or nine digits: three at a time, as proto3 JSON has it.
static void format_fraction(int32_t nanos, char out[16])
{
    out[0] = '\0';
    if (nanos % 1000000 == 0 && nanos) {
        snprintf(out, 16, ".%03d", nanos / 1000000);
    } else if (nanos % 1000 == 0 && nanos) {
        snprintf(out, 16, ".%06d", nanos / 1000);
    } else if (nanos) {
        snprintf(out, 16, ".%09d", nanos);
    }
}

static int read_duration(struct rd *rd, const struct frame *at, const struct json *n,
                         ProtobufCMessage *m)
{
    Google__Protobuf__Duration *d = (Google__Protobuf__Duration *)m;
    struct str s = n->text;
    if (n->type != JSON_STRING || s.n < 2 || s.p[s.n - 1] != 's') {
        return rd_fail(rd, at, n, "not a duration; expected seconds such as \"0.25s\"");
    }
    s.n--;
    bool neg = s.p[0] == '-';
    s = str_skip(s, neg);
    ptrdiff_t dot = str_find(s, '.');
    struct str whole = dot >= 0 ? str_n(s.p, (size_t)dot) : s;
    uint64_t seconds;
    int32_t nanos;
    if (!str_to_u64(whole, 315576000000, &seconds) ||
        !parse_fraction(str_skip(s, whole.n), &nanos)) {
        return rd_fail(rd, at, n, "\"%.*s\" is not a duration; expected seconds such as \"0.25s\"",
                       (int)(n->text.n < 100 ? n->text.n : 100), n->text.p);
    }
    d->seconds = neg ? -(int64_t)seconds : (int64_t)seconds;
    d->nanos = neg ? -nanos : nanos;
    return 0;
}

static void write_duration(struct wr *wr, const ProtobufCMessage *m)
{
    const Google__Protobuf__Duration *d = (const Google__Protobuf__Duration *)m;
    char out[64], fraction[16];
    bool neg = d->seconds < 0 || d->nanos < 0;
    uint64_t s = d->seconds < 0 ? (uint64_t)0 - (uint64_t)d->seconds : (uint64_t)d->seconds;
    int32_t nanos = d->nanos < 0 ? -(d->nanos % 1000000000) : d->nanos % 1000000000;
    format_fraction(nanos, fraction);
    snprintf(out, sizeof(out), "%s%" PRIu64 "%ss", neg ? "-" : "", s, fraction);
    jw_str(wr->w, str_c(out));
}

static bool parse_digits(struct str *s, size_t n, char end, uint64_t max, int *ret)
{
    uint64_t v;
    if (s->n <= n || s->p[n] != end || !str_to_u64(str_n(s->p, n), max, &v)) {
        return false;
    }
    *ret = (int)v;
    *s = str_skip(*s, n + 1);
    return true;
}

// RFC 3339 §5.6, with "T" in upper case and a zone "Z" or "+hh:mm".
static bool parse_timestamp(struct str s, int64_t *ret_seconds, int32_t *ret_nanos)
{
    struct tm tm = { 0 };
    if (!parse_digits(&s, 4, '-', 9999, &tm.tm_year) || !parse_digits(&s, 2, '-', 12, &tm.tm_mon) ||
        !parse_digits(&s, 2, 'T', 31, &tm.tm_mday) || !parse_digits(&s, 2, ':', 23, &tm.tm_hour) ||
        !parse_digits(&s, 2, ':', 59, &tm.tm_min) || s.n < 3) {
        return false;
    }
    uint64_t sec;
    if (!str_to_u64(str_n(s.p, 2), 60, &sec) || tm.tm_year < 1 || tm.tm_mon < 1 || tm.tm_mday < 1) {
        return false;
    }
    s = str_skip(s, 2);
    size_t frac = 0;
    while (frac < s.n && (s.p[frac] == '.' || (s.p[frac] >= '0' && s.p[frac] <= '9'))) {
        frac++;
    }
    if (!parse_fraction(str_n(s.p, frac), ret_nanos)) {
        return false;
    }
    s = str_skip(s, frac);
    int64_t offset = 0;
    if (!str_is(s, "Z")) {
        uint64_t h, mi;
        if (s.n != 6 || (s.p[0] != '+' && s.p[0] != '-') || s.p[3] != ':' ||
            !str_to_u64(str_n(s.p + 1, 2), 23, &h) || !str_to_u64(str_n(s.p + 4, 2), 59, &mi)) {
            return false;
        }
        offset = (int64_t)(h * 3600 + mi * 60) * (s.p[0] == '-' ? -1 : 1);
    }
    int day = tm.tm_mday, mon = --tm.tm_mon;
    tm.tm_year -= 1900;
    tm.tm_sec = (int)sec;
    *ret_seconds = (int64_t)timegm(&tm) - offset;
    return sec == 60 ||
           (tm.tm_mday == day && tm.tm_mon == mon); // timegm turns 30 February into March
}

static int read_timestamp(struct rd *rd, const struct frame *at, const struct json *n,
                          ProtobufCMessage *m)
{
    Google__Protobuf__Timestamp *t = (Google__Protobuf__Timestamp *)m;
    if (n->type != JSON_STRING || !parse_timestamp(n->text, &t->seconds, &t->nanos)) {
        return rd_fail(rd, at, n, "not a time; expected one such as \"2026-01-31T23:59:59Z\"");
    }
    return 0;
}

static void write_timestamp(struct wr *wr, const ProtobufCMessage *m)
{
    const Google__Protobuf__Timestamp *t = (const Google__Protobuf__Timestamp *)m;
    char out[96], fraction[16];
    const int64_t first = -62135596800, last = 253402300799; // years 1 to 9999
    time_t s = (time_t)(t->seconds < first ? first : t->seconds > last ? last : t->seconds);
    struct tm tm;
    gmtime_r(&s, &tm);
    format_fraction(t->nanos >= 0 ? t->nanos % 1000000000 : 0, fraction);
    snprintf(out, sizeof(out), "%04d-%02d-%02dT%02d:%02d:%02d%sZ", tm.tm_year + 1900, tm.tm_mon + 1,
             tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, fraction);
    jw_str(wr->w, str_c(out));
}

// ---- wrappers: the bare value of their only field

static int read_wrapper(struct rd *rd, const struct frame *at, const struct json *n,
                        ProtobufCMessage *m)
{
    const ProtobufCFieldDescriptor *f = &m->descriptor->fields[0];
    return rd_value(rd, at, n, f, (char *)m + f->offset);
}

static void write_wrapper(struct wr *wr, const ProtobufCMessage *m)
{
    const ProtobufCFieldDescriptor *f = &m->descriptor->fields[0];
    wr_value(wr, f, (const char *)m + f->offset);
}

// ---- Struct, Value, ListValue: free JSON

// Both have one field: a map, or a list, of Values.
static int read_free(struct rd *rd, const struct frame *at, const struct json *n,
                     ProtobufCMessage *m)
{
    return rd_field(rd, at, n, &m->descriptor->fields[0], m);
}

static int read_value(struct rd *rd, const struct frame *at, const struct json *n,
                      ProtobufCMessage *m)
{
    Google__Protobuf__Value *v = (Google__Protobuf__Value *)m;
    static const char *const names[] = {
        [JSON_NULL] = "null_value",     [JSON_BOOL] = "bool_value",  [JSON_NUMBER] = "number_value",
        [JSON_STRING] = "string_value", [JSON_ARRAY] = "list_value", [JSON_OBJECT] = "struct_value",
    };
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field_by_name(m->descriptor, names[n->type]);
    int r = n->type == JSON_NULL ? 0 : rd_value(rd, at, n, f, (char *)m + f->offset);
    if (r == 0) {
        v->kind_case = (Google__Protobuf__Value__KindCase)f->id;
    }
    return r;
}

// Members whose text is a secret wherever they stand in free JSON (a TypedStruct may hold any
// message).
static bool secret_name(const char *key)
{
    static const char *const names[] = { "private_key",  "privateKey",          "password",
                                         "pkcs12",       "session_ticket_keys", "sessionTicketKeys",
                                         "access_token", "accessToken" };
    for (size_t i = 0; i < array_len(names); i++) {
        if (strcmp(key, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void write_struct(struct wr *wr, const ProtobufCMessage *m)
{
    const Google__Protobuf__Struct *st = (const Google__Protobuf__Struct *)m;
    if (wr_deep(wr)) {
        return;
    }
    jw_object(wr->w);
    for (size_t i = 0; i < st->n_fields; i++) {
        const Google__Protobuf__Struct__FieldsEntry *e = st->fields[i];
        bool outer = wr->redact;
        wr->redact = outer || ((wr->flags & PB_JSON_REDACT) && secret_name(e->key));
        jw_key(wr->w, str_c(e->key));
        if (e->value) {
            wr_message(wr, &e->value->base);
        } else {
            jw_null(wr->w);
        }
        wr->redact = outer;
    }
    jw_object_end(wr->w);
}

static void write_list(struct wr *wr, const ProtobufCMessage *m)
{
    const Google__Protobuf__ListValue *l = (const Google__Protobuf__ListValue *)m;
    if (wr_deep(wr)) {
        return;
    }
    jw_array(wr->w);
    for (size_t i = 0; i < l->n_values; i++) {
        wr_message(wr, &l->values[i]->base);
    }
    jw_array_end(wr->w);
}

static void write_value(struct wr *wr, const ProtobufCMessage *m)
{
    const Google__Protobuf__Value *v = (const Google__Protobuf__Value *)m;
    const ProtobufCFieldDescriptor *f =
        v->kind_case ? protobuf_c_message_descriptor_get_field(m->descriptor, v->kind_case) : NULL;
    if (!f || v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE) {
        jw_null(wr->w);
    } else {
        wr_value(wr, f, (const char *)m + f->offset);
    }
}

// ---- Any

static int read_any_content(struct rd *rd, const struct frame *at, const struct json *n,
                            const ProtobufCMessageDescriptor *desc, Google__Protobuf__Any *any)
{
    ProtobufCMessage *m = pb_new(rd->arena, desc);
    const struct pb_wkt *wkt = pb_wkt_find(desc);
    const struct json *value = json_get(n, "value");
    int r;
    if (!m) {
        return rd_no_memory(rd, at, n);
    }
    if (!wkt) {
        r = rd_fields(rd, at, n, m, true);
    } else if (value && n->count == 2) {
        struct frame here = { .up = at, .name = STR_INIT("value") };
        r = wkt->read(rd, &here, value, m);
    } else {
        r = rd_fail(rd, at, n, "a %s in an Any is written as its \"value\"", desc->name);
    }
    if (r < 0) {
        return r;
    }
    struct str bytes = pb_pack(m, rd->arena);
    if (!bytes.p) {
        return rd_no_memory(rd, at, n);
    }
    any->value = (ProtobufCBinaryData){ .data = (uint8_t *)bytes.p, .len = bytes.n };
    return 0;
}

static int read_any(struct rd *rd, const struct frame *at, const struct json *n,
                    ProtobufCMessage *m)
{
    Google__Protobuf__Any *any = (Google__Protobuf__Any *)m;
    const struct json *type = json_get(n, "@type");
    if (n->type != JSON_OBJECT) {
        return rd_fail(rd, at, n, "%s where an object is expected", rd_kind(n));
    }
    if (n->count == 0) {
        return 0;
    }
    if (!type || type->type != JSON_STRING) {
        return rd_fail(rd, at, n, "needs \"@type\" with the URL of its type");
    }
    struct frame here = { .up = at, .name = STR_INIT("@type") };
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field_by_name(m->descriptor, "type_url");
    int r = rd_value(rd, &here, type, f, &any->type_url);
    if (r < 0) {
        return r;
    }
    const ProtobufCMessageDescriptor *desc = types_find(type->text);
    if (desc) {
        return read_any_content(rd, at, n, desc, any);
    }
    const struct json *value = json_get(n, "value");
    f = protobuf_c_message_descriptor_get_field_by_name(m->descriptor, "value");
    if (n->count == 2 && value &&
        value->type == JSON_STRING) { // as write_any leaves what it cannot decode
        here.name = STR("value");
        return rd_value(rd, &here, value, f, &any->value);
    }
    return rd_fail(rd, &here, type, "unknown type \"%.*s\"",
                   (int)(type->text.n < 200 ? type->text.n : 200), type->text.p);
}

static void write_any(struct wr *wr, const ProtobufCMessage *m)
{
    const Google__Protobuf__Any *any = (const Google__Protobuf__Any *)m;
    struct arena a = { 0 };
    if (wr_deep(wr)) {
        return;
    }
    jw_object(wr->w);
    if (any->type_url[0] || any->value.len) {
        jw_kv(wr->w, "@type", str_c(any->type_url));
        const ProtobufCMessageDescriptor *desc = types_find(str_c(any->type_url));
        ProtobufCMessage *content;
        if (!desc || pb_unpack(desc, pb_bytes(any->value), &a, &content, NULL) < 0) {
            jw_kv(wr->w, "value",
                  base64_encode(&a, wr->redact ? STR("[redacted]") : pb_bytes(any->value)));
        } else if (pb_wkt_find(desc)) {
            jw_key(wr->w, STR("value"));
            wr_message(wr, content);
        } else {
            wr_fields(wr, content);
        }
    }
    jw_object_end(wr->w);
    arena_fini(&a);
}

// ---- the table

static const struct pb_wkt table[] = {
    { &google__protobuf__any__descriptor, read_any, write_any },
    { &google__protobuf__duration__descriptor, read_duration, write_duration },
    { &google__protobuf__timestamp__descriptor, read_timestamp, write_timestamp },
    { &google__protobuf__struct__descriptor, read_free, write_struct },
    { &google__protobuf__value__descriptor, read_value, write_value },
    { &google__protobuf__list_value__descriptor, read_free, write_list },
    { &google__protobuf__bool_value__descriptor, read_wrapper, write_wrapper },
    { &google__protobuf__bytes_value__descriptor, read_wrapper, write_wrapper },
    { &google__protobuf__double_value__descriptor, read_wrapper, write_wrapper },
    { &google__protobuf__float_value__descriptor, read_wrapper, write_wrapper },
    { &google__protobuf__int32_value__descriptor, read_wrapper, write_wrapper },
    { &google__protobuf__int64_value__descriptor, read_wrapper, write_wrapper },
    { &google__protobuf__string_value__descriptor, read_wrapper, write_wrapper },
    { &google__protobuf__uint32_value__descriptor, read_wrapper, write_wrapper },
    { &google__protobuf__uint64_value__descriptor, read_wrapper, write_wrapper },
};

const struct pb_wkt *pb_wkt_find(const ProtobufCMessageDescriptor *desc)
{
    if (strcmp(desc->package_name, "google.protobuf") != 0) {
        return NULL;
    }
    for (size_t i = 0; i < array_len(table); i++) {
        if (table[i].desc == desc) {
            return &table[i];
        }
    }
    return NULL;
}
