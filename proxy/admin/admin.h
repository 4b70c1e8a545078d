// SPDX-License-Identifier: Apache-2.0
// The admin port: Envoy's paths and shapes (config_dump, clusters, listeners, stats, certs, server_info, logging, ready, …), so that istioctl
// and scripts written for Envoy read it. One table of routes; runs on the control thread.
#ifndef PROXY_ADMIN_ADMIN_H
#define PROXY_ADMIN_ADMIN_H

#include "lib/http/server.h"
#include "proxy/core/worker.h"
#include "proxy/model/snapshot.h"
#include "proxy/stats/stats.h"
#include "xds-client/xds_client.h"

// Numbers as in admin.v3.ServerInfo.State
enum server_state { SERVER_LIVE, SERVER_DRAINING, SERVER_PRE_INITIALIZING, SERVER_INITIALIZING };

// A secret as the dump shows it (private keys are never handed to admin).
struct admin_secret {
    struct str name, pem, version;
    bool is_root, is_static;
    bool warming; // not there yet: pem is empty
    uint64_t updated_ms;
};

// What admin needs from the rest; filled by proxy/server. All functions run on the control thread.
struct admin_deps {
    struct loop *loop;
    struct stats_store *stats;
    struct xds_client *xds;
    const void *bootstrap;      // Envoy__Config__Bootstrap__V3__Bootstrap *, the effective one
    const void *node;           // Envoy__Config__Core__V3__Node *
    const char *config_path;    // "" in sidecar mode
    int concurrency;
    uint64_t start_wall_ms;
    void *arg;
    enum server_state (*state)(void *arg);
    struct snapshot *(*snapshot)(void *arg); // borrowed, may be NULL
    void (*each_secret)(void *arg, void (*fn)(void *a, const struct admin_secret *s), void *a);
    bool (*cluster_warming)(void *arg, struct str name);
    bool (*listener_warming)(void *arg, struct str name);
    void (*drain)(void *arg, bool inbound_only, bool graceful, bool skip_exit);
    void (*healthcheck_fail)(void *arg, bool fail);
    void (*quit)(void *arg);
    void (*explain)(void *arg, struct http_server_req *q, struct http_server_resp *r); // NULL = no such page
};
struct admin;
// Listens on a. deps is copied; what it points to must outlive admin.
struct admin *admin_new(const struct addr *a, const struct admin_deps *deps, struct err *err);
struct addr admin_addr(const struct admin *ad);
void admin_free(struct admin *ad);
// Answers one request as the admin port would; for the readiness and metrics ports of the sidecar, and tests.
void admin_handle(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);

#endif
