// SPDX-License-Identifier: Apache-2.0
// Fuzz target of the protobuf codec. First byte: what the rest is. Even: wire bytes of a message,
// checked, decoded, written as JSON and, when nothing was cut, read back equal. Odd: JSON or YAML
// of a message, read, written and read back equal.
#include <stdlib.h>

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "envoy/service/discovery/v3/discovery.pb-c.h"
#include "lib/base/check.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const types[] = {
    &envoy__config__bootstrap__v3__bootstrap__descriptor,
    &envoy__service__discovery__v3__delta_discovery_response__descriptor,
    &envoy__config__listener__v3__listener__descriptor,
    &google__protobuf__any__descriptor,
};

// m → JSON → m must pack alike. Text that the reader rightly refuses (cut, or a wire-only oddity
// such as two equal map keys or times out of range) ends the run of this input.
static void round_trip(ProtobufCMessage *m, struct arena *a)
{
    struct buf out = { 0 };
    struct json_writer w;
    ProtobufCMessage *back;
    jw_init(&w, &out, 0);
    pb_json_write(&w, m, 0);
    struct str text = buf_pullup(&out, buf_len(&out));
    if (pb_json_parse(text, m->descriptor, 0, a, &back, NULL) == 0) {
        struct buf again = { 0 };
        jw_init(&w, &again, 0);
        pb_json_write(&w, back, 0);
        CHECK(str_eq(text, buf_pullup(&again, buf_len(&again))));
        buf_clear(&again);
    }
    buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 65536) {
        return 0;
    }
    struct arena a;
    arena_init(&a, 0, 256u << 20);
    const ProtobufCMessageDescriptor *desc = types[(data[0] >> 1) % array_len(types)];
    struct str rest = str_n(data + 1, size - 1);
    ProtobufCMessage *m;
    int r = data[0] & 1 ? pb_json_parse(rest, desc, data[0] & 0x80 ? PB_JSON_IGNORE_UNKNOWN : 0, &a,
                                        &m, NULL)
                        : pb_unpack(desc, rest, &a, &m, NULL);
    if (r == 0) {
        round_trip(m, &a);
        pb_pack_stable(m, &a);
    }
    buf_cache_free();
    arena_fini(&a);
    return 0;
}
