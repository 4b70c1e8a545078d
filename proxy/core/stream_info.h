// SPDX-License-Identifier: Apache-2.0
// Facts of one request or one TCP connection, gathered along the way, for access logs, metrics and explain. Single thread.
#ifndef PROXY_CORE_STREAM_INFO_H
#define PROXY_CORE_STREAM_INFO_H

#include "lib/http/message.h"
#include "lib/net/addr.h"
#include "proxy/core/metadata.h"

enum response_flag {
#define RESPONSE_FLAG(id, short_text, long_text) RF_##id##_BIT,
#include "proxy/core/response_flags.def"
#undef RESPONSE_FLAG
    RF_COUNT
};
#define RF(id) (1u << RF_##id##_BIT)

struct peer_info;
struct connection_fact;
struct arena;

struct dynamic_field;

struct dynamic_metadata { // in the exchange's or the connection's arena; one entry a namespace
    struct str space, bytes;      // bytes: a google.protobuf.Struct; of fields of one name the last one counts
    struct dynamic_field *fields; // newer than bytes, the newest first; they become bytes when somebody wants those
    uint32_t field_count;
    struct arena *arena;
    struct dynamic_metadata *next; // NULL = last
};

struct stream_info {
    // times: monotonic ns, 0 = did not happen; start also as wall clock
    uint64_t start_wall_ms, start_ns, request_end_ns, upstream_start_ns, upstream_end_ns, first_response_ns, end_ns;
    uint64_t bytes_received, bytes_sent;             // body bytes of the downstream side
    uint64_t upstream_bytes_received, upstream_bytes_sent; // wire bytes
    uint32_t flags;                                  // RF(...)
    uint16_t status;                                 // response code, 0 = none
    uint16_t attempts;                               // upstream attempts
    enum http_version protocol;
    enum http_version upstream_protocol; // of the last attempt that had a connection: upstream_start_ns is set
    bool is_http;
    const char *details;       // response code details: static or in the stream's arena ("via_upstream", "route_not_found", …)
    struct str transport_failure; // upstream TLS failure text; arena
    struct str connection_termination; // details; arena or static
    // downstream connection (borrowed from it)
    struct addr downstream_remote, downstream_direct_remote, downstream_local;
    uint64_t connection_id;
    struct str requested_server_name;
    const struct tls_info *downstream_tls; // NULL = plaintext
    // upstream
    struct addr upstream_host, upstream_local;
    struct str upstream_cluster; // config name; borrowed from the attempt's cluster
    struct str upstream_peer_uri; // SPIFFE id of the server; arena
    const struct connection_fact *facts; // of the downstream connection, borrowed; NULL = none
    const struct peer_info *downstream_peer, *upstream_peer; // by metadata exchange; NULL = unknown
    struct str route_name;      // borrowed from the route table
    struct str virtual_host, virtual_cluster;
    struct dynamic_metadata *dynamic; // what filters found out on the way, by namespace; NULL = nothing
    const struct str *metadata[METADATA_COUNT]; // of what was configured, see metadata.h; borrowed or in the arena; NULL = none
};

// Adds the fields of a google.protobuf.Struct (its bytes, copied) to the dynamic metadata of a namespace; those of the same name are replaced
// (StreamInfo.setDynamicMetadata of Envoy). a: where the exchange lives, or the connection's (downstream_found.dynamic holds that list). False:
// there is no room, nothing has changed; who decides by metadata must hear of it.
enum { DYNAMIC_METADATA_BYTES_MAX = 1024 * 1024, DYNAMIC_METADATA_SPACES_MAX = 64 }; // a namespace; namespaces
bool dynamic_metadata_merge(struct dynamic_metadata **list, struct arena *a, struct str space, struct str struct_bytes);
// One field, cheaply: nothing is encoded before somebody asks for the whole. All texts are borrowed for as long as the list lives.
void dynamic_metadata_note(struct dynamic_metadata **list, struct arena *a, struct str space, struct str key, const struct metadata_value *v);
bool stream_info_metadata_merge(struct stream_info *info, struct arena *a, struct str space, struct str struct_bytes);
// One field: text or truth.
void stream_info_metadata_text(struct stream_info *info, struct arena *a, struct str space, struct str key, struct str value);
void stream_info_metadata_bool(struct stream_info *info, struct arena *a, struct str space, struct str key, bool value);
// The value at a path of keys within a namespace (the whole namespace when n_path is 0), then among the connection's facts. Views live as long as
// the metadata is not written to.
struct metadata_value stream_info_metadata_find(const struct stream_info *info, struct str space, const struct str *path, size_t n_path);

// "UF,URX" or "-" into out (at least 96 bytes).
enum { RF_TEXT_MAX = 160 };
const char *response_flags_text(uint32_t flags, bool long_names, char out[RF_TEXT_MAX]);
// Bit for a short name, 0 when unknown.
uint32_t response_flag_parse(struct str short_name);

#endif
