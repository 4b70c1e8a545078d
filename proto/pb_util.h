// SPDX-License-Identifier: Apache-2.0
// Protobuf messages in arenas: checked decoding, Any, and the small readers that configuration code
// needs. A message made here lives as long as its arena and is never freed by itself. All
// functions: any thread, one arena per thread at a time.
#ifndef PROTO_PB_UTIL_H
#define PROTO_PB_UTIL_H

#include <protobuf-c/protobuf-c.h>

#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"
#include "lib/base/arena.h"
#include "lib/base/err.h"

struct Envoy__Config__Core__V3__Metadata;

enum {
    PB_DEPTH_MAX = 100,               // nested messages, as protobuf's own readers have it
    PB_BYTES_MAX = 256 * 1024 * 1024, // one message on the wire
    PB_GROWTH_MAX = 256,              // bytes in memory per byte on the wire, beyond PB_GROWTH_FREE
    PB_GROWTH_FREE = 1024 * 1024,
};

// An allocator that takes from an arena and frees nothing. budget: bytes it may hand out, counted
// down; then NULL.
struct pb_alloc {
    ProtobufCAllocator base; // give &x.base to protobuf-c
    struct arena *arena;     // borrowed
    size_t budget;
};
void pb_alloc_init(struct pb_alloc *pa, struct arena *a, size_t budget);

// Checks bytes against desc before anything is allocated: well-formed, wire types as declared,
// nesting at most PB_DEPTH_MAX, text valid UTF-8 without NUL (C strings would hide what follows
// it). Unknown fields pass. -EINVAL with message and field.
int pb_check(const ProtobufCMessageDescriptor *desc, struct str bytes, struct err *err);
// pb_check, then decodes into the arena. -EINVAL malformed, -EMSGSIZE too large, -ENOMEM the
// arena's or our growth limit. Unknown fields are kept in the message.
int pb_unpack(const ProtobufCMessageDescriptor *desc, struct str bytes, struct arena *a,
              ProtobufCMessage **ret, struct err *err);
// As pb_unpack, typed: pb_unpack_as(Envoy__…__Cluster, envoy__…__cluster, bytes, arena, &cluster,
// err).
#define pb_unpack_as(type, c_name, bytes, a, ret, err)                                             \
    pb_unpack(&c_name##__descriptor, (bytes), (a),                                                 \
              (ProtobufCMessage **)(1 ? (ret) : (type **)NULL), (err))

// Whether all of m is understood: -EINVAL for a field on the wire that our definitions do not have
// for an enum's value without a name, for a negative or malformed duration, and for a percentage outside 0 to 100, at any
// depth, "path: reason". What an Any holds is looked
// at when it is unpacked. at: where m stands, the beginning of the path; NULL = the top. skip: a
// field of m itself that is left out; NULL = none.
int pb_whole(const ProtobufCMessage *m, const char *at, const char *skip, struct err *err);

// A message with all fields absent; NULL when the arena is at its limit.
ProtobufCMessage *pb_new(struct arena *a, const ProtobufCMessageDescriptor *desc);
// pb_new_as(arena, Envoy__…__Cluster, envoy__…__cluster)
#define pb_new_as(a, type, c_name) ((type *)(void *)pb_new((a), &c_name##__descriptor))

// Wire bytes in the arena; the empty view for a message without fields (p is not NULL then), p NULL
// at the arena's limit.
struct str pb_pack(const ProtobufCMessage *m, struct arena *a);
// The same with map entries in order of their keys, so that equal messages give equal bytes: for
// hashing. Sorts the entries of m itself (their order has no meaning); Any payloads stay as they
// are.
struct str pb_pack_stable(ProtobufCMessage *m, struct arena *a);
// An Any that holds m, whose type must be in types.def. NULL at the arena's limit.
Google__Protobuf__Any *pb_any_pack(const ProtobufCMessage *m, struct arena *a);

// Decodes what an Any holds. expected: the only type taken, or NULL for any type of types.def;
// (*ret)->descriptor tells. A udpa.type.v1.TypedStruct or xds.type.v3.TypedStruct is turned into
// the message that it names, by JSON names; unknown members in it are left out, as unknown fields
// on the wire are. -ENOENT unknown type (the message names it), -EINVAL NULL Any, wrong type or bad
// content.
int pb_any_unpack(const Google__Protobuf__Any *any, const ProtobufCMessageDescriptor *expected,
                  struct arena *a, ProtobufCMessage **ret, struct err *err);
#define pb_any_unpack_as(type, c_name, any, a, ret, err)                                           \
    pb_any_unpack((any), &c_name##__descriptor, (a),                                               \
                  (ProtobufCMessage **)(1 ? (ret) : (type **)NULL), (err))
// As pb_any_unpack, and -EINVAL as pb_whole says it when there is anything that our definitions do
// not have, members of a TypedStruct included. For what decides what happens to traffic. skip: as
// for pb_whole.
int pb_any_unpack_whole(const Google__Protobuf__Any *any, const ProtobufCMessageDescriptor *expected,
                        const char *skip, struct arena *a, ProtobufCMessage **ret, struct err *err);
#define pb_any_unpack_whole_as(type, c_name, any, a, ret, err)                                     \
    pb_any_unpack_whole((any), &c_name##__descriptor, NULL, (a),                                   \
                        (ProtobufCMessage **)(1 ? (ret) : (type **)NULL), (err))
// Full name of the type that pb_any_unpack would give: what is behind the last '/' of type_url,
// that of the TypedStruct's own URL when it is one. Empty when there is none. Into the arena or
// borrowed from any.
struct str pb_any_type_name(const Google__Protobuf__Any *any, struct arena *a);

// Milliseconds, rounded up so that a short time does not become 0. NULL, negative and malformed
// durations give dflt. Never overflows: the largest duration (315,576,000,000 s) fits.
int64_t pb_duration_ms(const Google__Protobuf__Duration *d, int64_t dflt);
// Whether d is well-formed (google/protobuf/duration.proto: range, nanos within a second, same
// sign) and not negative.
bool pb_duration_valid(const Google__Protobuf__Duration *d);

// Wrapper types: the value, or dflt when absent.
uint32_t pb_u32_or(const Google__Protobuf__UInt32Value *v, uint32_t dflt);
uint64_t pb_u64_or(const Google__Protobuf__UInt64Value *v, uint64_t dflt);
int32_t pb_i32_or(const Google__Protobuf__Int32Value *v, int32_t dflt);
bool pb_bool_or(const Google__Protobuf__BoolValue *v, bool dflt);
double pb_double_or(const Google__Protobuf__DoubleValue *v, double dflt);
// Bytes field as a view.
static inline struct str pb_bytes(ProtobufCBinaryData b)
{
    return str_n(b.data, b.len);
}

// Member of a Struct, NULL when absent; st may be NULL.
const Google__Protobuf__Value *pb_struct_get(const Google__Protobuf__Struct *st, const char *key);
// Text of a Value, the empty view (p NULL) when it is not text; v may be NULL.
struct str pb_value_str(const Google__Protobuf__Value *v);
// Text member of a Struct, as pb_value_str(pb_struct_get(…)).
struct str pb_struct_str(const Google__Protobuf__Struct *st, const char *key);
// Struct of a filter's name in core.v3.Metadata.filter_metadata, NULL when absent; md may be NULL.
const Google__Protobuf__Struct *pb_metadata_get(const struct Envoy__Config__Core__V3__Metadata *md,
                                                const char *filter);

// The entry of a map field with this text key, NULL when absent. The last one wins, as in protobuf.
const ProtobufCMessage *pb_map_find(const void *entries, size_t n, const char *key);
// Typed: pb_map_get(c->typed_extension_protocol_options, c->n_typed_extension_protocol_options,
// "envoy…")->value
#define pb_map_get(entries, n, key)                                                                \
    ((typeof(*(entries)))(const void *)pb_map_find((entries), (n), (key)))
// Whether the field of desc is a map (protobuf-c has it as repeated …Entry messages).
bool pb_field_is_map(const ProtobufCMessageDescriptor *desc, const ProtobufCFieldDescriptor *f);

#endif
