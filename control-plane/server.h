// SPDX-License-Identifier: Apache-2.0
// remora-control: folder → model → xDS to every connected proxy; certificates; hot reload; metrics. One thread (gRPC core's own threads only post).
#ifndef CONTROL_PLANE_SERVER_H
#define CONTROL_PLANE_SERVER_H

#include "control-plane/compile.h"

enum { CP_SANS_MAX = 32 };

struct cp_server_opts {
    const char *folder;        // YAML
    const char *state;         // CA, token key
    const char *grpc_addr;     // plaintext xDS, loopback only; NULL = off
    const char *secure_addr;   // TLS xDS and certificates; NULL = off
    const char *http_addr;     // /metrics, /ready, /debug/syncz; NULL = off
    struct str sans[CP_SANS_MAX]; // further names and addresses of this server
    size_t san_count;
    struct cp_options compile;
};
// Runs until SIGTERM or SIGINT. Exit status.
int cp_server_run(const struct cp_server_opts *o);

#endif
