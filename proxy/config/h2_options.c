// SPDX-License-Identifier: Apache-2.0
#include "proto/pb_util.h"
#include "proxy/config/build.h"

enum { WINDOW_MIN = 65535, WINDOW_MAX = 0x7fffffff };

static int window(const Google__Protobuf__UInt32Value *v, const char *field, uint32_t *ret, struct err *err)
{
    *ret = pb_u32_or(v, 0);
    if (v && (*ret < WINDOW_MIN || *ret > WINDOW_MAX)) {
        return cfg_fail(err, field, "must be %d to %d", WINDOW_MIN, WINDOW_MAX);
    }
    return 0;
}

static int limit(const Google__Protobuf__UInt32Value *v, const char *field, uint32_t min, uint32_t *ret, struct err *err)
{
    if (!v) {
        return 0;
    }
    if (v->value < min) {
        return cfg_fail(err, field, "must be at least %u", min);
    }
    *ret = v->value;
    return 0;
}

static int keepalive(const Envoy__Config__Core__V3__KeepaliveSettings *k, struct h2_opts *h, struct err *err)
{
    if (!k) {
        return 0;
    }
    if (CFG_KNOWN(k, err, "interval", "timeout", "interval_jitter", "connection_idle_interval")) {
        return err->code;
    }
    h->ping_interval_ms = (uint64_t)pb_duration_ms(k->interval, 0);
    h->ping_timeout_ms = (uint64_t)pb_duration_ms(k->timeout, 0);
    h->ping_idle_ms = (uint64_t)pb_duration_ms(k->connection_idle_interval, 0);
    double jitter = k->interval_jitter ? k->interval_jitter->value : 15; // Envoy's default
    if (h->ping_timeout_ms == 0) {
        return cfg_fail(err, "timeout", "must be there and at least 1 ms");
    }
    if (k->interval && h->ping_interval_ms == 0) {
        return cfg_fail(err, "interval", "must be at least 1 ms");
    }
    if (!(jitter >= 0 && jitter <= 100)) {
        return cfg_fail(err, "interval_jitter", "must be 0 to 100");
    }
    h->ping_jitter_pct = (uint32_t)jitter;
    return 0;
}

int build_h2_options(const Envoy__Config__Core__V3__Http2ProtocolOptions *o, struct build_h2 *ret, struct err *err)
{
    // use_oghttp2_codec chooses between two implementations inside Envoy.
    if (CFG_KNOWN(o, err, "max_concurrent_streams", "initial_stream_window_size", "initial_connection_window_size", "allow_connect",
                  "max_outbound_frames", "max_outbound_control_frames", "max_consecutive_inbound_frames_with_empty_payload",
                  "max_inbound_priority_frames_per_stream", "max_inbound_window_update_frames_per_data_frame_sent",
                  "stream_error_on_invalid_http_messaging", "override_stream_error_on_invalid_http_message", "connection_keepalive",
                  "use_oghttp2_codec", "enable_huffman_encoding", "hpack_table_size")) {
        return err->code;
    }
    struct build_h2 b = { .max_streams = pb_u32_or(o->max_concurrent_streams, 0), .allow_connect = o->allow_connect, .opts = h2_opts_default };
    struct h2_opts *h = &b.opts;
    if (o->max_concurrent_streams && (b.max_streams == 0 || b.max_streams > WINDOW_MAX)) {
        return cfg_fail(err, "max_concurrent_streams", "must be 1 to %d", WINDOW_MAX);
    }
    if (o->enable_huffman_encoding && !o->enable_huffman_encoding->value) {
        return cfg_fail(err, "enable_huffman_encoding", "false is not supported: header values are always sent in their shorter form");
    }
    if (window(o->initial_stream_window_size, "initial_stream_window_size", &b.stream_window, err) ||
        window(o->initial_connection_window_size, "initial_connection_window_size", &b.conn_window, err) ||
        limit(o->hpack_table_size, "hpack_table_size", 0, &h->hpack_table, err) ||
        limit(o->max_outbound_frames, "max_outbound_frames", 1, &h->max_outbound_frames, err) ||
        limit(o->max_outbound_control_frames, "max_outbound_control_frames", 1, &h->max_outbound_control, err) ||
        limit(o->max_consecutive_inbound_frames_with_empty_payload, "max_consecutive_inbound_frames_with_empty_payload", 0,
              &h->max_empty_frames, err) ||
        limit(o->max_inbound_priority_frames_per_stream, "max_inbound_priority_frames_per_stream", 0, &h->max_priority_per_stream, err) ||
        limit(o->max_inbound_window_update_frames_per_data_frame_sent, "max_inbound_window_update_frames_per_data_frame_sent", 1,
              &h->max_window_updates, err)) {
        return err->code;
    }
    if (h->hpack_table > H2_HPACK_TABLE_MAX) {
        return cfg_fail(err, "hpack_table_size", "must be at most %d", H2_HPACK_TABLE_MAX);
    }
    if (keepalive(o->connection_keepalive, h, err)) {
        return cfg_in(err, "connection_keepalive");
    }
    // The plain bool cannot say "false" apart from "unset".
    h->invalid_ends_connection = !pb_bool_or(o->override_stream_error_on_invalid_http_message, true);
    *ret = b;
    return 0;
}
