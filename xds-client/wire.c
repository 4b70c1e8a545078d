// SPDX-License-Identifier: Apache-2.0
#include "xds-client/wire.h"

#include "lib/base/utf8.h"

static int read_varint(struct str *s, uint64_t *ret)
{
    uint64_t v = 0;
    for (size_t i = 0; i < 10 && i < s->n; i++) {
        uint8_t c = (uint8_t)s->p[i];
        if (i == 9 && c > 1) {
            return -1; // beyond 64 bits
        }
        v |= (uint64_t)(c & 0x7f) << (7 * i);
        if (c < 0x80) {
            *s = str_skip(*s, i + 1);
            *ret = v;
            return 0;
        }
    }
    return -1;
}

static int cut(struct str *s, uint64_t n, struct str *ret)
{
    if (n > s->n) {
        return -1;
    }
    *ret = str_n(s->p, n);
    *s = str_skip(*s, n);
    return 0;
}

int wire_next(struct str *rest, struct wire_field *ret_field)
{
    if (rest->n == 0) {
        return 0;
    }
    uint64_t tag = 0;
    if (read_varint(rest, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) {
        return -1;
    }
    *ret_field = (struct wire_field){ .number = (uint32_t)(tag >> 3), .type = (enum wire_type)(tag & 7) };
    uint64_t n = 0;
    struct str skipped;
    switch (tag & 7) {
    case WIRE_VARINT:
        return read_varint(rest, &ret_field->value) ? -1 : 1;
    case WIRE_FIXED64:
        return cut(rest, 8, &skipped) ? -1 : 1;
    case WIRE_FIXED32:
        return cut(rest, 4, &skipped) ? -1 : 1;
    case WIRE_BYTES:
        return read_varint(rest, &n) || cut(rest, n, &ret_field->bytes) ? -1 : 1;
    default:
        return -1; // groups: not in proto3
    }
}

bool wire_is_text(struct str s, size_t max)
{
    return s.n <= max && str_find(s, '\0') < 0 && utf8_valid(s);
}

static void put_varint(struct buf *b, uint64_t v)
{
    uint8_t out[10];
    size_t n = 0;
    while (v >= 0x80) {
        out[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    out[n++] = (uint8_t)v;
    buf_append(b, out, n);
}

void wire_put_bytes(struct buf *b, uint32_t number, struct str v)
{
    put_varint(b, (uint64_t)number << 3 | WIRE_BYTES);
    put_varint(b, v.n);
    buf_append_str(b, v);
}

void wire_put_str(struct buf *b, uint32_t number, struct str v)
{
    if (v.n) {
        wire_put_bytes(b, number, v);
    }
}

void wire_put_varint(struct buf *b, uint32_t number, uint64_t v)
{
    put_varint(b, (uint64_t)number << 3 | WIRE_VARINT);
    put_varint(b, v);
}

void wire_put_double(struct buf *b, uint32_t number, double v)
{
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof(bits));
    uint8_t out[8];
    for (int i = 0; i < 8; i++) {
        out[i] = (uint8_t)(bits >> (8 * i));
    }
    put_varint(b, (uint64_t)number << 3 | WIRE_FIXED64);
    buf_append(b, out, sizeof(out));
}

void wire_put_message(struct buf *b, uint32_t number, struct buf *sub)
{
    put_varint(b, (uint64_t)number << 3 | WIRE_BYTES);
    put_varint(b, buf_len(sub));
    buf_move(b, sub, buf_len(sub));
}
