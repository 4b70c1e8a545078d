// SPDX-License-Identifier: Apache-2.0
// Reading Envoy's admin JSON as trees: types that nobody here knows do no harm. Fields are asked for by their .proto name and
// found in both spellings of the ProtoJSON mapping (connect_timeout, connectTimeout), since Envoy writes the one and istioctl
// and most libraries the other. Results are borrowed from the tree.
#ifndef CLI_DUMP_H
#define CLI_DUMP_H

#include "lib/base/json.h"

// Member of an object, or NULL. n may be NULL.
const struct json *dump_get(const struct json *n, const char *field);
// Member by a path "active_state.listener", or NULL. For metadata use dump_get with the literal key.
const struct json *dump_path(const struct json *n, const char *path);
// Text of a string or number at a path; empty view otherwise.
struct str dump_str(const struct json *n, const char *path);
// Number (also as string, as ProtoJSON allows) at a path, 0 otherwise. google.protobuf.UInt32Value is a plain number in JSON.
uint32_t dump_u32(const struct json *n, const char *path);
bool dump_bool(const struct json *n, const char *path);

// Growing list of borrowed nodes in an arena.
struct dump_list {
    const struct json **v;
    size_t n, cap;
};
void dump_add(struct dump_list *l, const struct json *n, struct arena *a);

// The last of the dump's `configs` whose type ends in ".NAME" (admin.v3.ClustersConfigDump, …), or NULL.
const struct json *dump_section(const struct json *dump, const char *name);

// Where the resources of one kind are: of each element of the named members of a section, the node at a path.
struct dump_kind {
    const char *section; // "ClustersConfigDump"
    const char *what;    // plural for messages: "clusters"
    struct {
        const char *member; // "dynamic_active_clusters"
        const char *path;   // "cluster"
    } lists[2];
};
// The resources of a kind in the order of the dump. An array instead of a dump (what `pc … -o json` prints) is taken as the list
// itself. -EINVAL when it is neither, -ENOENT when the dump has no such section.
int dump_resources(const struct json *dump, const struct dump_kind *kind, struct arena *a, struct dump_list *ret, struct err *err);

// A name that istiod makes: "direction|port|subset|fqdn" (inbound and outbound clusters). Others have all in fqdn.
struct subset_key {
    struct str direction, subset, fqdn;
    uint32_t port;
    bool parsed; // had the four parts
};
struct subset_key dump_subset_key(struct str name);
// istioctl's order of clusters: fqdn, subset, port, direction.
bool dump_subset_less(const struct subset_key *a, const struct subset_key *b);

// "reviews.default" from the API path in metadata.filter_metadata.istio.config
// ("/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"); empty when there is none.
struct str dump_management(const struct json *resource, struct arena *a);

#endif
