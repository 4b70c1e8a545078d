// SPDX-License-Identifier: Apache-2.0
// The application's own probes. Istio's injector points the kubelet at the agent's port (/app-health/CONTAINER/{livez,readyz,startupz},
// /app-lifecycle/…) and hands over what stood there before as ISTIO_KUBE_APP_PROBERS; the probe then goes to the pod's address from 127.0.0.6,
// which the redirect rules leave alone.
#ifndef PROXY_SERVER_APP_PROBES_H
#define PROXY_SERVER_APP_PROBES_H

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/event/loop.h"
#include "lib/http/server.h"

enum { APP_PROBES_AT_ONCE = 64, APP_PROBE_BODY_MAX = 10 * 1024, APP_PROBE_ANSWER_MAX = 1024 * 1024 };

struct app_probe {
    struct str path;    // "/app-health/app/readyz"
    enum { APP_PROBE_HTTP, APP_PROBE_TCP, APP_PROBE_UNSUPPORTED } kind; // unsupported: HTTPS and gRPC
    struct str target;  // path for HTTP
    uint16_t port;
    int timeout_ms;
};

// The map of ISTIO_KUBE_APP_PROBERS (JSON) into a. Paths, kinds or ports that are wrong are errors that name the place.
int app_probes_parse(struct str text, struct arena *a, struct app_probe **ret, size_t *ret_count, struct err *err);

struct app_probes;
// text: ISTIO_KUBE_APP_PROBERS, may be empty; pod_ip: where the application listens; status_port: the agent's, which Host fields are freed of.
struct app_probes *app_probes_new(struct loop *l, struct str text, struct str pod_ip, uint16_t status_port, struct err *err);
// Loop's thread. Whether the path is a probe's: then the answer comes now or later.
bool app_probes_handle(struct app_probes *p, struct http_server_req *q, struct http_server_resp *r);
// Loop's thread; probes under way end by themselves. NULL is ignored.
void app_probes_free(struct app_probes *p);

#endif
