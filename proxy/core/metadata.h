// SPDX-License-Identifier: Apache-2.0
// Metadata of configured objects (config.core.v3.Metadata.filter_metadata): kept once, as the bytes of that message, and read where somebody
// asks. The bytes were checked when the configuration was taken. Any thread.
#ifndef PROXY_CORE_METADATA_H
#define PROXY_CORE_METADATA_H

#include "lib/base/buf.h"

struct arena;

// Whose: the operators %METADATA(ROUTE:…)% and so on.
enum metadata_of {
    METADATA_ROUTE, METADATA_VIRTUAL_HOST, METADATA_CLUSTER, METADATA_UPSTREAM_HOST, METADATA_LISTENER, METADATA_FILTER_CHAIN, METADATA_COUNT
};

struct metadata_value { // google.protobuf.Value
    enum { MV_NONE, MV_NULL, MV_NUMBER, MV_TEXT, MV_BOOL, MV_STRUCT, MV_LIST } kind;
    struct str bytes;   // MV_TEXT: the text; MV_STRUCT, MV_LIST: the message; borrowed
    double number;
    bool boolean;
};
// The value at path ("key:key…" through structs) of a namespace; the whole namespace when path is empty. md: bytes of a Metadata, may be empty.
struct metadata_value metadata_find(struct str md, struct str space, struct str path);
// The same within a google.protobuf.Struct, by a path of keys that may hold anything; n_path 0: the struct itself.
struct metadata_value metadata_struct_find(struct str st, const struct str *path, size_t n_path);
// The next element of a google.protobuf.ListValue, which is taken from it; false at the end.
bool metadata_list_next(struct str *list, struct metadata_value *ret);
// A Struct with one field; in the arena.
struct str metadata_struct_of(struct str key, const struct metadata_value *v, struct arena *a);
// A Struct with the fields of both, less those of st that the later one has too. In the arena; the empty view when that has no room.
struct str metadata_struct_merge(struct str st, struct str later, struct arena *a);
// Appends v as JSON without blanks, numbers in the fewest characters that read back the same.
void metadata_json(const struct metadata_value *v, struct buf *out);

// Endpoints and clusters may be replaced before an exchange ends: theirs is copied for it only when some operator of this process asks.
void metadata_want(enum metadata_of of);
bool metadata_wanted(enum metadata_of of);

#endif
