// SPDX-License-Identifier: Apache-2.0
// The protobuf wire format, as little of it as xDS envelopes need: responses are hundreds of kilobytes of resources that only
// the sink decodes, so the envelope is read in place (borrowed views, no copy). Requests are written the same way because the
// node comes packed already. https://protobuf.dev/programming-guides/encoding/
#ifndef XDS_CLIENT_WIRE_H
#define XDS_CLIENT_WIRE_H

#include "lib/base/buf.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct wire_field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;   // WIRE_VARINT; fixed ones are skipped, not read
    struct str bytes; // WIRE_BYTES; borrowed from the message
};

// Cuts the next field off *rest. 1 = a field, 0 = the end, -1 = not protobuf (truncated, groups, field number 0, overlong varint);
// *ret_field is undefined then.
int wire_next(struct str *rest, struct wire_field *ret_field);

// Whether s may be a protobuf string for us: at most max bytes, UTF-8 (or the server ends the stream), and no NUL (it would hide
// what follows from C strings).
bool wire_is_text(struct str s, size_t max);

// Length-delimited field; nothing is written for an empty value (proto3 default) by wire_put_str.
void wire_put_bytes(struct buf *b, uint32_t number, struct str v);
void wire_put_str(struct buf *b, uint32_t number, struct str v);
// Varint field, written also when 0 (oneof members keep presence).
void wire_put_varint(struct buf *b, uint32_t number, uint64_t v);
void wire_put_double(struct buf *b, uint32_t number, double v);
// Appends sub as an embedded message and empties sub.
void wire_put_message(struct buf *b, uint32_t number, struct buf *sub);

#endif
