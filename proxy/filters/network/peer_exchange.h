// SPDX-License-Identifier: Apache-2.0
// Istio's TCP metadata exchange: on a connection with the ALPN "istio-peer-exchange" each side's first bytes are a message that says who it is:
//
//   magic 0x3D230467 (4 bytes, big-endian) · length (4 bytes, big-endian) · google.protobuf.Any of a Struct with
//   "x-envoy-peer-metadata" (a Struct) and "x-envoy-peer-metadata-id" (the node's id)
//
// Pure but for the one message of this process. Behaviour follows Istio's metadata exchange filter (Envoy contrib/istio): a peer that does not begin with
// the magic is taken to have begun with its payload.
#ifndef PROXY_FILTERS_NETWORK_PEER_EXCHANGE_H
#define PROXY_FILTERS_NETWORK_PEER_EXCHANGE_H

#include "lib/base/arena.h"
#include "lib/base/buf.h"
#include "proxy/core/peer.h"

struct Envoy__Config__Core__V3__Node;

#define PEER_EXCHANGE_ALPN "istio-peer-exchange"
enum {
    PEER_EXCHANGE_HEADER = 8,
    PEER_EXCHANGE_BYTES_MAX = 16 * 1024, // of a peer's message; ours are a few hundred
};

// Control thread, once, before the first snapshot is published: what this process says of itself. Without it (or with a NULL node) the message is an empty Struct.
void peer_exchange_init(const struct Envoy__Config__Core__V3__Node *node);
// The message of this process, header included; lives as long as the process.
struct str peer_exchange_message(void);
// The message for a node, header included, in the arena.
struct str peer_exchange_build(const struct Envoy__Config__Core__V3__Node *node, struct arena *a);

enum peer_exchange_result {
    PEER_EXCHANGE_MORE, // a beginning
    PEER_EXCHANGE_NONE, // the peer sends no message: all bytes are payload
    PEER_EXCHANGE_FOUND,
    PEER_EXCHANGE_UNKNOWN, // a whole message that says nothing we know: to be skipped
    PEER_EXCHANGE_BAD,     // longer than PEER_EXCHANGE_BYTES_MAX
};
// bytes: what came, from the start. ret_length: of the message with its header, when it is whole. *ret in a (FOUND only).
enum peer_exchange_result peer_exchange_parse(struct str bytes, struct arena *a, struct peer_info *ret, size_t *ret_length);
// How many bytes parse needs to see of these to get further.
size_t peer_exchange_wants(struct str head);

#endif
