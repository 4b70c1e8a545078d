// SPDX-License-Identifier: Apache-2.0
// The server's half of an ADS stream, delta and state of the world, as a pure machine: requests in, responses out. No socket, clock or thread.
#ifndef CONTROL_PLANE_STREAM_H
#define CONTROL_PLANE_STREAM_H

#include "control-plane/compile.h"
#include "lib/base/map.h"

enum { CP_NAMES_MAX = 200000, CP_OTHER_TYPES_MAX = 64 };

struct cp_watch { // one type on one stream
    bool asked, wildcard;
    struct map names;      // subscribed; value unused
    struct map sent;       // name → struct hash128 * (owned): what the client was given
    char nonce[48];        // of the last response
    uint64_t acked, nacked, pushes;
    uint64_t sent_version, acked_version; // of the configuration
    bool dirty;            // subscription changed: answer even when content did not
    char *last_error;      // owned; text of the last NACK
};

struct cp_stream {
    bool delta;
    struct arena node_arena;
    struct cp_node node;
    bool has_node;
    struct cp_watch w[CP_TYPE_COUNT];
    uint64_t nonce_counter;
    // Other types a sidecar asks for (secrets, name tables): answered once, empty.
    struct map others;
};
void cp_stream_init(struct cp_stream *s, bool delta);
void cp_stream_fini(struct cp_stream *s);

// Takes one request (DiscoveryRequest or DeltaDiscoveryRequest bytes). *ret_nack: text of a refusal in it, NULL otherwise (valid until the next
// call). Negative + err: the stream must end with INVALID_ARGUMENT.
int cp_stream_request(struct cp_stream *s, struct str bytes, const char **ret_nack, struct err *err);
// The next response due for this set, in Envoy's order (CDS, EDS, LDS, RDS), packed into the arena. false: nothing is due.
bool cp_stream_next(struct cp_stream *s, const struct cp_set *set, uint64_t version, struct arena *a, struct str *ret_bytes, enum cp_type *ret_type);

#endif
