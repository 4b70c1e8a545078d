// SPDX-License-Identifier: Apache-2.0
// JSON and YAML ↔ protobuf messages by descriptor: the proto3 JSON mapping
// (protobuf.dev/programming-guides/json), as Envoy's files and dumps use it. Input takes snake_case
// and lowerCamelCase names; output has snake_case names.
#ifndef PROTO_PB_JSON_H
#define PROTO_PB_JSON_H

#include <protobuf-c/protobuf-c.h>

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/base/json.h"

struct Google__Protobuf__Struct;

enum pb_json_flags {
    PB_JSON_IGNORE_UNKNOWN = 1 << 0, // input: unknown members are skipped in place of refused
    PB_JSON_REDACT = 1 << 1,         // output: keys, passwords and other secrets read "[redacted]"
    PB_JSON_DEFAULTS = 1 << 2, // output: scalars, lists and maps are written when they have default
                               // values too, as in Envoy's /server_info, /certs and /memory
};

// Reads an object tree (json_parse, yaml_parse) as a message of type desc, in the arena. -EINVAL
// with the path and place: `static_resources.clusters[2].lb_policy (line 41, column 14): unknown
// value "ROUNDROBIN"; one of ROUND_ROBIN, …`. null means absent. Numbers and text may stand for
// each other where YAML leaves them unquoted; quoted numbers are taken. Integers refuse fractions
// and what does not fit. A type in "@type" that types.def does not have is refused, except in the
// form that pb_json_write gives it.
int pb_json_read(const struct json *n, const ProtobufCMessageDescriptor *desc, unsigned flags,
                 struct arena *a, ProtobufCMessage **ret, struct err *err);
// json_or_yaml_parse and pb_json_read. The tree is left in the arena too.
int pb_json_parse(struct str text, const ProtobufCMessageDescriptor *desc, unsigned flags,
                  struct arena *a, ProtobufCMessage **ret, struct err *err);
// As pb_json_read, from a Struct (NULL is empty). Errors have a path and no place.
int pb_json_from_struct(const struct Google__Protobuf__Struct *st,
                        const ProtobufCMessageDescriptor *desc, unsigned flags, struct arena *a,
                        ProtobufCMessage **ret, struct err *err);
// A Struct as a tree in the arena, for code that wants to walk it. NULL at the arena's limit.
struct json *pb_struct_to_json(const struct Google__Protobuf__Struct *st, struct arena *a);

// Writes m as one JSON value. Fields with default values are left out (but see PB_JSON_DEFAULTS),
// present messages are written even when empty. An Any is written with "@type" and its fields; with
// "@type" and base64 "value" when its type is unknown or its bytes are bad. Beyond the writer's
// depth a text says that something was cut.
void pb_json_write(struct json_writer *w, const ProtobufCMessage *m, unsigned flags);
// The same as an Any would be: with "@type" first. desc must be in types.def.
void pb_json_write_typed(struct json_writer *w, const ProtobufCMessage *m, unsigned flags);

#endif
