// SPDX-License-Identifier: Apache-2.0
// Reads core.v3.Metadata from its wire format without unpacking it. Field numbers: Metadata.filter_metadata 1; map entries 1 key, 2 value;
// Struct.fields 1; Value.null_value 1, number_value 2, string_value 3, bool_value 4, struct_value 5, list_value 6; ListValue.values 1.
#include "proxy/core/metadata.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/arena.h"
#include "lib/base/json.h"
#include "lib/base/mem.h"

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5, VALUE_DEPTH_MAX = 40 };

static atomic_uint wanted; // bits of enum metadata_of; only ever set

void metadata_want(enum metadata_of of)
{
    atomic_fetch_or_explicit(&wanted, 1u << of, memory_order_relaxed);
}

bool metadata_wanted(enum metadata_of of)
{
    return atomic_load_explicit(&wanted, memory_order_relaxed) >> of & 1;
}

struct wire_field {
    uint32_t number;
    unsigned type;
    uint64_t value;   // WIRE_VARINT, WIRE_64
    struct str bytes; // WIRE_BYTES
};

static bool take_varint(struct str *s, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (s->n == 0) {
            return false;
        }
        unsigned char c = (unsigned char)s->p[0];
        *s = str_skip(*s, 1);
        v |= (uint64_t)(c & 0x7f) << shift;
        if (!(c & 0x80)) {
            *ret = v;
            return true;
        }
    }
    return false;
}

// The next field of a message; false at its end, or where it is no message.
static bool take_field(struct str *s, struct wire_field *f)
{
    uint64_t tag, n;
    if (s->n == 0 || !take_varint(s, &tag)) {
        return false;
    }
    *f = (struct wire_field){ .number = (uint32_t)(tag >> 3), .type = tag & 7 };
    switch (f->type) {
    case WIRE_VARINT:
        return take_varint(s, &f->value);
    case WIRE_64:
        n = 8;
        break;
    case WIRE_32:
        n = 4;
        break;
    case WIRE_BYTES:
        if (!take_varint(s, &n)) {
            return false;
        }
        break;
    default:
        return false;
    }
    if (n > s->n) {
        return false;
    }
    f->bytes = str_n(s->p, (size_t)n);
    *s = str_skip(*s, (size_t)n);
    for (size_t i = 0; f->type == WIRE_64 && i < 8; i++) {
        f->value |= (uint64_t)(unsigned char)f->bytes.p[i] << (8 * i);
    }
    return true;
}

// Both halves of a map's entry.
static void entry_split(struct str entry, struct str *ret_key, struct str *ret_value)
{
    struct wire_field f;
    *ret_key = *ret_value = STR("");
    while (take_field(&entry, &f)) {
        if (f.type == WIRE_BYTES && f.number == 1) {
            *ret_key = f.bytes;
        } else if (f.type == WIRE_BYTES && f.number == 2) {
            *ret_value = f.bytes;
        }
    }
}

// The entry of a map that is field 1 of msg: Metadata.filter_metadata, Struct.fields. The last one of a name counts.
static bool map_entry(struct str msg, struct str key, struct str *ret)
{
    struct wire_field f;
    bool found = false;
    while (take_field(&msg, &f)) {
        struct str k, v;
        if (f.number != 1 || f.type != WIRE_BYTES) {
            continue;
        }
        entry_split(f.bytes, &k, &v);
        if (str_eq(k, key)) {
            *ret = v;
            found = true;
        }
    }
    return found;
}

static struct metadata_value value_of(struct str msg)
{
    struct metadata_value v = { .kind = MV_NONE };
    struct wire_field f;
    while (take_field(&msg, &f)) { // a oneof: the last one counts
        if (f.number == 1 && f.type == WIRE_VARINT) {
            v = (struct metadata_value){ .kind = MV_NULL };
        } else if (f.number == 2 && f.type == WIRE_64) {
            v = (struct metadata_value){ .kind = MV_NUMBER };
            memcpy(&v.number, &f.value, sizeof(v.number));
        } else if (f.number == 4 && f.type == WIRE_VARINT) {
            v = (struct metadata_value){ .kind = MV_BOOL, .boolean = f.value != 0 };
        } else if (f.type == WIRE_BYTES && (f.number == 3 || f.number == 5 || f.number == 6)) {
            v = (struct metadata_value){ .kind = f.number == 3 ? MV_TEXT : f.number == 5 ? MV_STRUCT : MV_LIST, .bytes = f.bytes };
        }
    }
    return v;
}

struct metadata_value metadata_find(struct str md, struct str space, struct str path)
{
    struct metadata_value v = { .kind = MV_NONE };
    if (!map_entry(md, space, &v.bytes)) {
        return v;
    }
    v.kind = MV_STRUCT;
    while (path.n) {
        struct str key = str_split(&path, ':'), bytes;
        if (v.kind != MV_STRUCT || !map_entry(v.bytes, key, &bytes)) {
            return (struct metadata_value){ .kind = MV_NONE };
        }
        v = value_of(bytes);
    }
    return v;
}

struct metadata_value metadata_struct_find(struct str st, const struct str *path, size_t n_path)
{
    struct metadata_value v = { .kind = MV_STRUCT, .bytes = st };
    for (size_t i = 0; i < n_path; i++) {
        struct str bytes;
        if (v.kind != MV_STRUCT || !map_entry(v.bytes, path[i], &bytes)) {
            return (struct metadata_value){ .kind = MV_NONE };
        }
        v = value_of(bytes);
    }
    return v;
}

bool metadata_list_next(struct str *list, struct metadata_value *ret)
{
    struct wire_field f;
    while (take_field(list, &f)) {
        if (f.number == 1 && f.type == WIRE_BYTES) {
            *ret = value_of(f.bytes);
            return true;
        }
    }
    return false;
}

static size_t put_varint(char *out, uint64_t v)
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) {
        out[n++] = (char)(v | 0x80);
    }
    out[n++] = (char)v;
    return n;
}

// Tag and length of a field of bytes.
static size_t put_head(char *out, unsigned number, size_t length)
{
    out[0] = (char)(number << 3 | WIRE_BYTES);
    return 1 + put_varint(out + 1, length);
}

enum { HEAD_MAX = 11 };

static struct str join(struct arena *a, const struct str *parts, size_t n)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        total += parts[i].n;
    }
    char *p = arena_alloc(a, total), *at = p;
    if (!p) {
        return str_n(NULL, 0);
    }
    for (size_t i = 0; i < n; at += parts[i].n, i++) {
        if (parts[i].n) {
            memcpy(at, parts[i].p, parts[i].n);
        }
    }
    return str_n(p, total);
}

struct str metadata_struct_of(struct str key, const struct metadata_value *v, struct arena *a)
{
    char head[HEAD_MAX + 9], key_head[HEAD_MAX], value_head[HEAD_MAX], entry_head[HEAD_MAX];
    size_t n = 0;
    struct str body = STR("");
    switch (v->kind) {
    case MV_NUMBER:
        head[0] = 2 << 3 | WIRE_64;
        memcpy(head + 1, &v->number, 8); // little-endian, as we are
        n = 9;
        break;
    case MV_BOOL:
        head[0] = 4 << 3 | WIRE_VARINT;
        head[1] = v->boolean;
        n = 2;
        break;
    case MV_TEXT:
    case MV_STRUCT:
    case MV_LIST:
        n = put_head(head, v->kind == MV_TEXT ? 3 : v->kind == MV_STRUCT ? 5 : 6, v->bytes.n);
        body = v->bytes;
        break;
    default: // null
        head[0] = 1 << 3 | WIRE_VARINT;
        head[1] = 0;
        n = 2;
        break;
    }
    size_t kn = put_head(key_head, 1, key.n), vn = put_head(value_head, 2, n + body.n);
    size_t en = put_head(entry_head, 1, kn + key.n + vn + n + body.n);
    const struct str parts[] = { str_n(entry_head, en), str_n(key_head, kn), key, str_n(value_head, vn), str_n(head, n), body };
    return join(a, parts, sizeof(parts) / sizeof(parts[0]));
}

// The fields of st that `unless` does not name; returns the end of what was written.
static char *put_fields(char *out, struct str st, struct str unless)
{
    struct wire_field f;
    for (const char *from = st.p; take_field(&st, &f); from = st.p) {
        struct str key, value, other;
        if (f.number != 1 || f.type != WIRE_BYTES) {
            continue;
        }
        entry_split(f.bytes, &key, &value);
        if (!unless.n || !map_entry(unless, key, &other)) {
            memcpy(out, from, (size_t)(st.p - from));
            out += st.p - from;
        }
    }
    return out;
}

struct str metadata_struct_merge(struct str st, struct str later, struct arena *a)
{
    char *p = arena_alloc(a, st.n + later.n);
    return p ? str_n(p, (size_t)(put_fields(put_fields(p, st, later), later, STR("")) - p)) : str_n(NULL, 0);
}

// As std::to_chars does, which Envoy uses: the shortest text, plain or with an exponent, plain when both are as long.
static void put_number(struct json_writer *w, double x)
{
    char sci[40], fix[400];
    int digits = 0;
    do {
        snprintf(sci, sizeof(sci), "%.*e", digits, x);
    } while (digits < 16 && strtod(sci, NULL) != x && ++digits);
    const char *e = strchr(sci, 'e');
    if (!e) { // not a number, infinite
        jw_double(w, x);
        return;
    }
    int decimals = digits - (int)strtol(e + 1, NULL, 10);
    int n = snprintf(fix, sizeof(fix), "%.*f", decimals > 0 ? decimals : 0, x);
    bool plain = n > 0 && (size_t)n <= strlen(sci);
    jw_raw(w, str_c(plain ? fix : sci));
}

static void put_value(struct json_writer *w, const struct metadata_value *v, int depth);

struct member {
    struct str key, value;
    size_t index;
};

static int by_key(const void *x, const void *y)
{
    const struct member *a = x, *b = y;
    int order = str_cmp(a->key, b->key);
    return order ? order : a->index < b->index ? -1 : 1;
}

// In the order of the keys; of two with one name the last one.
static void put_struct(struct json_writer *w, struct str msg, int depth)
{
    struct wire_field f;
    size_t n = 0, k = 0;
    for (struct str rest = msg; take_field(&rest, &f); n++) {
    }
    struct member *v = mem_zalloc((n + 1) * sizeof(*v));
    while (take_field(&msg, &f)) {
        if (f.number == 1 && f.type == WIRE_BYTES) {
            v[k].index = k;
            entry_split(f.bytes, &v[k].key, &v[k].value);
            k++;
        }
    }
    qsort(v, k, sizeof(*v), by_key);
    jw_object(w);
    for (size_t i = 0; i < k; i++) {
        if (i + 1 == k || !str_eq(v[i].key, v[i + 1].key)) {
            const struct metadata_value value = value_of(v[i].value);
            jw_key(w, v[i].key);
            put_value(w, &value, depth + 1);
        }
    }
    jw_object_end(w);
    free(v);
}

static void put_list(struct json_writer *w, struct str msg, int depth)
{
    struct wire_field f;
    jw_array(w);
    while (take_field(&msg, &f)) {
        if (f.number == 1 && f.type == WIRE_BYTES) {
            const struct metadata_value v = value_of(f.bytes);
            put_value(w, &v, depth + 1);
        }
    }
    jw_array_end(w);
}

static void put_value(struct json_writer *w, const struct metadata_value *v, int depth)
{
    switch (depth > VALUE_DEPTH_MAX ? MV_NULL : v->kind) {
    case MV_NUMBER:
        put_number(w, v->number);
        break;
    case MV_TEXT:
        jw_str(w, v->bytes);
        break;
    case MV_BOOL:
        jw_bool(w, v->boolean);
        break;
    case MV_STRUCT:
        put_struct(w, v->bytes, depth);
        break;
    case MV_LIST:
        put_list(w, v->bytes, depth);
        break;
    default:
        jw_null(w);
        break;
    }
}

void metadata_json(const struct metadata_value *v, struct buf *out)
{
    struct json_writer w;
    jw_init(&w, out, 0);
    put_value(&w, v, 0);
}
