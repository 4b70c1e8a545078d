// SPDX-License-Identifier: Apache-2.0
// Which filter chain takes a connection: Envoy's order (destination port, destination prefix, server name, transport protocol,
// application protocols, source type, source prefix, source port; listener.v3.FilterChainMatch) without backtracking: once a level has a
// most specific entry that fits, only what is below it is looked at.
#ifndef PROXY_MODEL_CHAIN_MATCH_H
#define PROXY_MODEL_CHAIN_MATCH_H

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/net/cidr.h"

struct filter_chain;

enum source_type { SOURCE_ANY, SOURCE_SAME_IP_OR_LOOPBACK, SOURCE_EXTERNAL };

struct chain_criteria { // one filter_chain_match; zeroed = matches all. Borrowed during chain_matcher_add.
    uint32_t destination_port; // 0 = any
    const struct cidr *destinations;
    size_t destination_count;
    const struct str *server_names; // exact or "*.suffix"; case-insensitive
    size_t server_name_count;
    struct str transport_protocol;  // "raw_buffer", "tls" or empty
    const struct str *application_protocols;
    size_t application_protocol_count;
    enum source_type source_type;
    const struct cidr *sources;
    size_t source_count;
    const uint32_t *source_ports;
    size_t source_port_count;
};

struct chain_input { // what is known of a connection
    struct addr destination, source;
    struct str server_name;        // from the TLS hello; empty = none
    struct str transport_protocol; // "raw_buffer" or "tls"
    const struct str *application_protocols; // client's ALPN offer in order, or what http_inspector found
    size_t application_protocol_count;
};

struct chain_matcher; // in an arena, immutable once built

struct chain_matcher *chain_matcher_new(struct arena *a);
// The same criteria twice is an error ("filter chain 'b' has the same match as 'a'").
int chain_matcher_add(struct chain_matcher *m, const struct chain_criteria *c, struct filter_chain *chain, struct str chain_name,
                      struct err *err);
// NULL when none fits. Pure, any thread. trail (may be NULL): for explain, one line of text per level.
struct filter_chain *chain_matcher_find(const struct chain_matcher *m, const struct chain_input *in);

#endif
