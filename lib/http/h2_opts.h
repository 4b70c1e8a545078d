// SPDX-License-Identifier: Apache-2.0
// How an HTTP/2 connection is kept (core.v3.Http2ProtocolOptions), for codecs and for the model that holds the configuration.
#ifndef LIB_HTTP_H2_OPTS_H
#define LIB_HTTP_H2_OPTS_H

#include <stdbool.h>
#include <stdint.h>

enum { H2_HPACK_TABLE_DEFAULT = 4096, H2_HPACK_TABLE_MAX = 64 * 1024 };

struct h2_opts {
    uint32_t hpack_table;               // bytes of the compression table, either direction; 0 = nothing is remembered
    // connection_keepalive
    uint64_t ping_interval_ms;          // 0 = none
    uint64_t ping_timeout_ms;           // a peer that says nothing for so long after a PING is gone
    uint64_t ping_idle_ms;              // client: a stream that begins after so much silence is preceded by a PING; 0 = none
    uint32_t ping_jitter_pct;           // of the interval, added at random
    // Limits against floods, as Envoy counts them; the codec's own budget (h2_guard.c) stands beside them.
    uint32_t max_outbound_frames;       // waiting to be sent
    uint32_t max_outbound_control;      // of these PING, SETTINGS, RST_STREAM
    uint32_t max_empty_frames;          // in a row: without payload, and not the end of a message
    uint32_t max_priority_per_stream;   // PRIORITY for each opened stream (and one more)
    uint32_t max_window_updates;        // WINDOW_UPDATE for each DATA frame that we sent
    bool invalid_ends_connection;       // a malformed message costs the connection, not only its stream
};

// What holds where nothing is configured.
extern const struct h2_opts h2_opts_default;

#endif
