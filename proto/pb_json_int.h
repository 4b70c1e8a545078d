// SPDX-License-Identifier: Apache-2.0
// What the files of the JSON codec share; nobody else includes it.
#ifndef PROTO_PB_JSON_INT_H
#define PROTO_PB_JSON_INT_H

#include "proto/pb_json.h"
#include "proto/pb_util.h"

// A step of the path to the value being read; lives on the stack.
struct frame {
    const struct frame *up; // NULL at the root
    struct str name;        // member, or p NULL for an element
    size_t index;
};

struct rd {
    unsigned flags;
    struct arena *arena;
    struct err *err;
};

// -EINVAL with "PATH (line L, column C): …".
__attribute__((format(printf, 4, 5))) int rd_fail(struct rd *rd, const struct frame *at,
                                                  const struct json *n, const char *fmt, ...);
int rd_no_memory(struct rd *rd, const struct frame *at, const struct json *n);
// n as a message of type desc; the message is made here.
int rd_message(struct rd *rd, const struct frame *at, const struct json *n,
               const ProtobufCMessageDescriptor *desc, ProtobufCMessage **ret);
// n as the content of m, whose type has no special form.
int rd_fields(struct rd *rd, const struct frame *at, const struct json *n, ProtobufCMessage *m,
              bool skip_type);
// n as the field f of m: a list, a map, a member of a oneof, or one value.
int rd_field(struct rd *rd, const struct frame *at, const struct json *n,
             const ProtobufCFieldDescriptor *f, ProtobufCMessage *m);
// n as one value of the field's type, into slot (an element of an array, a member of a message).
int rd_value(struct rd *rd, const struct frame *at, const struct json *n,
             const ProtobufCFieldDescriptor *f, void *slot);
// Bytes of one value of the type in memory.
size_t pb_value_size(ProtobufCType t);
// What n is, for messages: "text", "a number", ….
const char *rd_kind(const struct json *n);

// Writer state; depth of the writer itself limits recursion.
struct wr {
    struct json_writer *w;
    unsigned flags;
    bool redact; // inside a secret field
};
void wr_message(struct wr *wr, const ProtobufCMessage *m);
void wr_fields(struct wr *wr, const ProtobufCMessage *m);
void wr_value(struct wr *wr, const ProtobufCFieldDescriptor *f, const void *slot);
// Whether one more object with an array in it still fits the writer; writes a remark when not.
bool wr_deep(struct wr *wr);

// The forms of google.protobuf's own types.
struct pb_wkt {
    const ProtobufCMessageDescriptor *desc;
    int (*read)(struct rd *rd, const struct frame *at, const struct json *n, ProtobufCMessage *m);
    void (*write)(struct wr *wr, const ProtobufCMessage *m);
};
// NULL for ordinary messages.
const struct pb_wkt *pb_wkt_find(const ProtobufCMessageDescriptor *desc);

#endif
