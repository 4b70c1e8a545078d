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

int build_h2_options(const Envoy__Config__Core__V3__Http2ProtocolOptions *o, struct build_h2 *ret, struct err *err)
{
    // connection_keepalive: a dead peer is found by TCP keepalive and by the time-outs of requests.
    if (CFG_KNOWN(o, err, "max_concurrent_streams", "initial_stream_window_size", "initial_connection_window_size",
                  "allow_connect", "max_outbound_frames", "max_outbound_control_frames", "max_consecutive_inbound_frames_with_empty_payload",
                  "max_inbound_priority_frames_per_stream", "max_inbound_window_update_frames_per_data_frame_sent",
                  "stream_error_on_invalid_http_messaging", "override_stream_error_on_invalid_http_message", "connection_keepalive",
                  "use_oghttp2_codec", "enable_huffman_encoding", "hpack_table_size")) {
        return err->code;
    }
    struct build_h2 b = { .max_streams = pb_u32_or(o->max_concurrent_streams, 0), .allow_connect = o->allow_connect };
    if (window(o->initial_stream_window_size, "initial_stream_window_size", &b.stream_window, err) ||
        window(o->initial_connection_window_size, "initial_connection_window_size", &b.conn_window, err)) {
        return err->code;
    }
    *ret = b;
    return 0;
}
