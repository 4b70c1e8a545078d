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
    const struct str *metadata[METADATA_COUNT]; // of what was configured, see metadata.h; borrowed or in the arena; NULL = none
};

// "UF,URX" or "-" into out (at least 96 bytes).
enum { RF_TEXT_MAX = 160 };
const char *response_flags_text(uint32_t flags, bool long_names, char out[RF_TEXT_MAX]);
// Bit for a short name, 0 when unknown.
uint32_t response_flag_parse(struct str short_name);

#endif
