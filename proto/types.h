// SPDX-License-Identifier: Apache-2.0
// Every message that may stand inside a google.protobuf.Any: type URL ↔ descriptor ↔ short name.
// The list is types.def.
#ifndef PROTO_TYPES_H
#define PROTO_TYPES_H

#include <protobuf-c/protobuf-c.h>

#include "lib/base/str.h"

#define TYPES_URL_PREFIX "type.googleapis.com/"

struct type_entry {
    const char *url;                        // "type.googleapis.com/" and the full name
    const char *name;                       // full name: url behind its prefix
    const char *short_name;                 // for people; unique in the list
    const ProtobufCMessageDescriptor *desc; // static
};

// The descriptor for "type.googleapis.com/X" or "X", NULL when unknown. Any other authority before
// the last '/' is not taken: the name decides in protobuf, but a URL of somebody else's server is
// not ours to guess. Any thread.
const ProtobufCMessageDescriptor *types_find(struct str type_url);
// The entry of a descriptor, NULL when it is not in the list.
const struct type_entry *types_entry(const ProtobufCMessageDescriptor *desc);
// "type.googleapis.com/X" of a descriptor of the list; the empty view otherwise. Static.
struct str types_url(const ProtobufCMessageDescriptor *desc);
// The entry with this short name ("Cluster"), NULL when unknown.
const struct type_entry *types_by_short_name(struct str short_name);
// The whole list in order of full names; *ret_n entries.
const struct type_entry *types_all(size_t *ret_n);

#endif
