// SPDX-License-Identifier: Apache-2.0
// A listener as configured (listener.v3.Listener): frozen, counted. Connections hold a reference.
#ifndef PROXY_MODEL_LISTENER_CFG_H
#define PROXY_MODEL_LISTENER_CFG_H

#include "lib/base/hash.h"
#include "proxy/core/ext.h"
#include "proxy/model/chain_match.h"
#include "proxy/model/refs.h"
#include "proxy/model/tls_cfg.h"

struct access_log_cfg; // proxy/access_log/access_log.h

enum traffic_direction { DIRECTION_UNSPECIFIED, DIRECTION_INBOUND, DIRECTION_OUTBOUND };

// listener.v3.ListenerFilterChainMatchPredicate, destination ports only
enum port_predicate_kind { PP_NEVER, PP_ANY, PP_RANGE, PP_OR, PP_AND, PP_NOT };
struct port_predicate {
    enum port_predicate_kind kind;
    int32_t start, end; // PP_RANGE: [start, end)
    struct port_predicate **rules; // PP_OR, PP_AND (all), PP_NOT (one)
    size_t rule_count;
};
bool port_predicate_match(const struct port_predicate *p, uint16_t destination_port);

struct listener_filter_cfg {
    struct ext ext;                 // ops are struct listener_filter_ops (proxy/listener/listener_filter.h)
    struct port_predicate *disabled; // NULL = never
};

// Counted by its own, so that a connection keeps its chain, and only that, while listeners come and go around it; versions of a listener share the
// chains that did not change.
struct filter_chain {
    struct refs refs;              // 0 = made by hand in a listener's arena, lives as long as that
    struct arena arena;            // everything below lives here
    struct hash128 hash;           // of the message
    struct str name, metadata;     // metadata: see proxy/core/metadata.h
    struct tls_cfg *tls;           // NULL = raw_buffer
    uint64_t connect_timeout_ms;   // transport_socket_connect_timeout: TLS handshake limit, 15 s where nothing is said; 0 = none
    struct ext *filters;           // network filters in order; the last one is terminal; ops are struct network_filter_ops
    size_t filter_count;
};

struct listener_cfg {
    struct refs refs;
    struct arena arena;       // everything below lives here
    struct hash128 hash;      // of the resource: equal hash = the same listener, nothing is drained
    struct hash128 rest_hash; // of the resource without its filter chains: equal = connections of chains that it shares are not drained
    struct str name, metadata; // metadata: see proxy/core/metadata.h
    struct addr *addresses;   // address and additional_addresses
    size_t address_count;
    bool bind_to_port, use_original_dst, transparent, reuse_port, freebind;
    bool ignore_global_limit;     // ignore_global_conn_limit, bypass_overload_manager
    bool no_server_first;         // runtime key remora.server_first is false: silent clients are only waited for
    bool continue_on_timeout;     // continue_on_listener_filters_timeout
    uint64_t listener_filters_timeout_ms; // 0 = none (wait for ever)
    enum traffic_direction direction;
    uint32_t max_accept_per_event; // 0 = no limit
    uint32_t buffer_limit;         // per_connection_buffer_limit_bytes; 0 = default
    struct str stat_name;          // "0.0.0.0_15006"
    struct listener_filter_cfg *listener_filters;
    size_t listener_filter_count;
    struct chain_matcher *chains;
    struct filter_chain *default_chain; // NULL = close
    struct filter_chain **all_chains;
    size_t chain_count;
    struct access_log_cfg **access_logs; // connections without a chain (NR)
    size_t access_log_count;
    bool is_static;
};

// Zeroed, one reference, empty arena. Any thread.
struct filter_chain *filter_chain_new(void);
struct filter_chain *filter_chain_ref(struct filter_chain *c);
void filter_chain_unref(struct filter_chain *c); // last one frees; any thread; NULL is ignored
// Zeroed, one reference, empty arena. Any thread.
struct listener_cfg *listener_cfg_new(void);
struct listener_cfg *listener_cfg_ref(struct listener_cfg *l);
void listener_cfg_unref(struct listener_cfg *l); // last one frees; any thread

#endif
