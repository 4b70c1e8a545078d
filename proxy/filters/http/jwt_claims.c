// SPDX-License-Identifier: Apache-2.0
// Claims as metadata (google.protobuf.Struct) and as header values.
//
// A Struct is written from the front in one go: a length that is not known yet gets four bytes, a varint with padding, which every reader of
// protobuf takes. Field numbers: Struct.fields 1; map entry 1 key, 2 value; Value.null_value 1, number_value 2, string_value 3, bool_value 4,
// struct_value 5, list_value 6; ListValue.values 1.
#include <math.h>
#include <stdio.h>

#include "lib/base/base64.h"
#include "proxy/filters/http/jwt_int.h"

enum { NODE_BYTES = 40, WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2 }; // what a value and its entry need beside key and text

static void put_varint(char **p, uint64_t v)
{
    for (; v > 0x7f; v >>= 7) {
        *(*p)++ = (char)(0x80 | (v & 0x7f));
    }
    *(*p)++ = (char)v;
}

static void put_tag(char **p, unsigned number, unsigned wire)
{
    *(*p)++ = (char)(number << 3 | wire);
}

static void put_text(char **p, unsigned number, struct str s)
{
    put_tag(p, number, WIRE_BYTES);
    put_varint(p, s.n);
    if (s.n) {
        memcpy(*p, s.p, s.n);
    }
    *p += s.n;
}

// A field whose length follows; returns where it begins.
static char *open_field(char **p, unsigned number)
{
    put_tag(p, number, WIRE_BYTES);
    *p += 4;
    return *p;
}

static void close_field(char *begin, const char *end)
{
    size_t n = (size_t)(end - begin);
    for (int i = 0; i < 4; i++) {
        begin[i - 4] = (char)((n >> (7 * i) & 0x7f) | (i < 3 ? 0x80 : 0));
    }
}

// By key, as Envoy prints structs. Merge sort of the list of members.
static struct json *sorted(struct json *v, size_t n)
{
    if (n < 2) {
        if (v) {
            v->next = NULL;
        }
        return v;
    }
    struct json *half = v;
    for (size_t i = 0; i < n / 2; i++) {
        half = half->next;
    }
    struct json *b = sorted(half, n - n / 2), *a = sorted(v, n / 2), *first = NULL, **last = &first;
    while (a || b) {
        struct json **from = !b || (a && str_cmp(a->key, b->key) <= 0) ? &a : &b;
        *last = *from;
        last = &(*from)->next;
        *from = (*from)->next;
    }
    return first;
}

static void put_members(char **p, struct json *object);

static void put_value(char **p, struct json *n)
{
    char *begin;
    double d = 0;
    switch (n->type) {
    case JSON_NULL:
        put_tag(p, 1, WIRE_VARINT);
        *(*p)++ = 0;
        break;
    case JSON_BOOL:
        put_tag(p, 4, WIRE_VARINT);
        *(*p)++ = n->boolean;
        break;
    case JSON_NUMBER:
        put_tag(p, 2, WIRE_64);
        (void)json_double(n, &d);
        memcpy(*p, &d, sizeof(d)); // little-endian, as the wire
        *p += sizeof(d);
        break;
    case JSON_STRING:
        put_text(p, 3, n->text);
        break;
    case JSON_OBJECT:
        begin = open_field(p, 5);
        put_members(p, n);
        close_field(begin, *p);
        break;
    case JSON_ARRAY:
        begin = open_field(p, 6);
        for (struct json *x = n->first; x; x = x->next) {
            char *value = open_field(p, 1);
            put_value(p, x);
            close_field(value, *p);
        }
        close_field(begin, *p);
        break;
    }
}

// A list of the words of a text.
static void put_words(char **p, struct str text)
{
    char *begin = open_field(p, 6);
    while (text.n) {
        struct str word = str_split(&text, ' ');
        if (word.n) {
            char *value = open_field(p, 1);
            put_text(p, 3, word);
            close_field(value, *p);
        }
    }
    close_field(begin, *p);
}

static void put_entry(char **p, struct json *n, bool words)
{
    char *entry = open_field(p, 1);
    put_text(p, 1, n->key);
    char *value = open_field(p, 2);
    if (words) {
        put_words(p, n->text);
    } else {
        put_value(p, n);
    }
    close_field(value, *p);
    close_field(entry, *p);
}

static void put_members(char **p, struct json *object)
{
    object->first = sorted(object->first, object->count);
    for (struct json *x = object->first; x; x = x->next) {
        put_entry(p, x, false);
    }
}

static size_t room_for(const struct json *n)
{
    size_t room = NODE_BYTES + n->key.n + n->text.n;
    for (const struct json *x = n->first; x; x = x->next) {
        room += room_for(x);
    }
    return room;
}

static bool is_split(const struct json *n, const struct str *split, size_t count)
{
    for (size_t i = 0; i < count && n->type == JSON_STRING; i++) {
        if (str_eq(split[i], n->key)) {
            for (size_t k = 0; k < n->text.n; k++) {
                if (n->text.p[k] != ' ') { // a text without words stays as it is
                    return true;
                }
            }
        }
    }
    return false;
}

struct str jwt_struct_bytes(struct json *object, const struct str *split, size_t split_count, struct arena *a)
{
    size_t room = room_for(object);
    for (const struct json *x = object->first; x; x = x->next) {
        room += is_split(x, split, split_count) ? x->text.n * 16 : 0; // a word takes 12 bytes more
    }
    char *begin = arena_alloc(a, room), *p = begin;
    if (!begin) {
        return str_n(NULL, 0);
    }
    object->first = sorted(object->first, object->count);
    for (struct json *x = object->first; x; x = x->next) {
        put_entry(&p, x, is_split(x, split, split_count));
    }
    return str_n(begin, (size_t)(p - begin));
}

// ---- header values ----

// As Envoy: integers of 64 bits plainly, others with six decimals.
static struct str number_text(const struct json *n, struct arena *a)
{
    double d, whole;
    if (!json_double(n, &d)) {
        return str_n(NULL, 0);
    }
    if (d < 0 || d >= 18446744073709551616.0 || modf(d, &whole) != 0) {
        return arena_printf(a, "%f", d);
    }
    return arena_printf(a, "%llu", (unsigned long long)d);
}

static struct str tree_text(const struct json *n, struct arena *a)
{
    struct buf b = { 0 };
    struct json_writer w;
    jw_init(&w, &b, 0);
    jw_tree(&w, n);
    struct str s = base64_encode(a, buf_pullup(&b, b.len));
    buf_clear(&b);
    return s;
}

// What would break out of a field is no value (RFC 9110 §5.5).
static struct str safe_text(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return str_n(NULL, 0);
        }
    }
    return str_trim(s);
}

static struct str claim_text(const struct json *payload, const struct jwt_claim_header *c, struct arena *a)
{
    const struct json *n = payload;
    for (size_t i = 0; i < c->path_count && n; i++) {
        const struct json *x = n->type == JSON_OBJECT ? n->first : NULL;
        while (x && !str_eq(x->key, c->path[i])) {
            x = x->next;
        }
        n = x;
    }
    switch (n ? n->type : JSON_NULL) {
    case JSON_STRING:
        return safe_text(n->text);
    case JSON_NUMBER:
        return number_text(n, a);
    case JSON_BOOL:
        return n->boolean ? STR("true") : STR("false");
    case JSON_ARRAY:
    case JSON_OBJECT:
        return tree_text(n, a);
    default:
        return str_n(NULL, 0);
    }
}

void jwt_facts_make(const struct jwt_provider *p, const struct jwt *t, struct arena *a, struct jwt_facts *ret)
{
    *ret = (struct jwt_facts){ .iss = t->iss, .sub = t->sub, .aud = t->aud, .aud_count = t->aud_count, .has_exp = t->has_exp, .nbf = t->nbf,
                               .exp = t->exp, .payload_b64 = t->payload_b64 };
    if (p->header_key.n) {
        ret->header_struct = jwt_struct_bytes(t->header, NULL, 0, a);
    }
    if (p->payload_key.n) {
        ret->payload_struct = jwt_struct_bytes(t->payload, p->split_claims, p->split_count, a);
    }
    ret->claim_values = p->claim_count ? arena_array(a, struct str, p->claim_count) : NULL;
    for (size_t i = 0; i < p->claim_count; i++) {
        ret->claim_values[i] = claim_text(t->payload, &p->claims[i], a);
    }
}
