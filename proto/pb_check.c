// SPDX-License-Identifier: Apache-2.0
// The look before the leap: protobuf-c recurses without a limit, refuses without a reason, and cuts
// text at a NUL. One pass over the wire bytes (https://protobuf.dev/programming-guides/encoding/)
// by the descriptor rules all of that out.
#include <errno.h>
#include <inttypes.h>

#include "lib/base/utf8.h"
#include "proto/pb_util.h"

enum wire { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_GROUP, WIRE_GROUP_END, WIRE_32 };

static bool take_varint(struct str *s, uint64_t *ret)
{
    uint64_t v = 0;
    for (size_t i = 0; i < 10 && i < s->n; i++) {
        uint64_t b = (unsigned char)s->p[i];
        v |= (b & 0x7f) << (7 * i);
        if (!(b & 0x80)) {
            *s = str_skip(*s, i + 1);
            *ret = v;
            return true;
        }
    }
    return false;
}

static bool take_bytes(struct str *s, size_t n, struct str *ret)
{
    if (n > s->n) {
        return false;
    }
    *ret = str_n(s->p, n);
    *s = str_skip(*s, n);
    return true;
}

// The value behind a tag; *ret is its content when it is length-delimited.
static bool take_value(struct str *s, enum wire w, struct str *ret)
{
    uint64_t v;
    switch (w) {
    case WIRE_VARINT:
        return take_varint(s, &v);
    case WIRE_64:
        return take_bytes(s, 8, ret);
    case WIRE_32:
        return take_bytes(s, 4, ret);
    case WIRE_BYTES:
        return take_varint(s, &v) && v <= s->n && take_bytes(s, (size_t)v, ret);
    default: // groups: not in proto3, not taken by protobuf-c
        return false;
    }
}

static enum wire wire_of(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_64;
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_32;
    default:
        return WIRE_VARINT;
    }
}

static bool packed_ok(struct str s, enum wire w)
{
    while (s.n) {
        struct str value;
        if (!take_value(&s, w, &value)) {
            return false;
        }
    }
    return true;
}

static int check_message(const ProtobufCMessageDescriptor *desc, struct str s, int depth,
                         struct err *err);

static int check_field(const ProtobufCMessageDescriptor *desc, const ProtobufCFieldDescriptor *f,
                       enum wire w, struct str value, int depth, struct err *err)
{
    enum wire want = wire_of(f->type);
    if (w != want) {
        if (f->label == PROTOBUF_C_LABEL_REPEATED && w == WIRE_BYTES && packed_ok(value, want)) {
            return 0;
        }
        return err_set(err, -EINVAL, "%s.%s: wire type %d, expected %d", desc->name, f->name, w,
                       want);
    }
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        return check_message(f->descriptor, value, depth + 1, err);
    }
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        if (value.n && memchr(value.p, 0, value.n)) {
            return err_set(err, -EINVAL, "%s.%s: text with a NUL byte in it", desc->name, f->name);
        }
        if (!utf8_valid(value)) {
            return err_set(err, -EINVAL, "%s.%s: text is not UTF-8", desc->name, f->name);
        }
    }
    return 0;
}

static int check_message(const ProtobufCMessageDescriptor *desc, struct str s, int depth,
                         struct err *err)
{
    if (depth > PB_DEPTH_MAX) {
        return err_set(err, -EINVAL, "%s: nested deeper than %d messages", desc->name,
                       PB_DEPTH_MAX);
    }
    while (s.n) {
        uint64_t tag;
        struct str value = { 0 };
        if (!take_varint(&s, &tag) || tag > UINT32_MAX || tag >> 3 == 0) {
            return err_set(err, -EINVAL, "%s: malformed field tag", desc->name);
        }
        enum wire w = (enum wire)(tag & 7);
        const ProtobufCFieldDescriptor *f =
            protobuf_c_message_descriptor_get_field(desc, (unsigned)(tag >> 3));
        if (!take_value(&s, w, &value)) {
            return err_set(err, -EINVAL, "%s: field %" PRIu64 "%s%s%s is malformed or cut off",
                           desc->name, tag >> 3, f ? " (" : "", f ? f->name : "", f ? ")" : "");
        }
        int r = f ? check_field(desc, f, w, value, depth, err) : 0;
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int pb_check(const ProtobufCMessageDescriptor *desc, struct str bytes, struct err *err)
{
    return check_message(desc, bytes, 1, err);
}
