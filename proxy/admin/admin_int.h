// SPDX-License-Identifier: Apache-2.0
// Inside proxy/admin: one handler per page, listed in routes.c.
#ifndef PROXY_ADMIN_ADMIN_INT_H
#define PROXY_ADMIN_ADMIN_INT_H

#include "lib/base/json.h"
#include "proxy/admin/admin.h"

struct admin {
    struct admin_deps d;
    struct http_server *server; // owned
};

typedef void (*admin_page_fn)(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);

struct admin_page {
    const char *path;
    bool post;        // changes something: other methods are refused with 405
    const char *help;
    admin_page_fn fn;
};
extern const struct admin_page admin_pages[];
extern const size_t admin_page_count;

void admin_config_dump(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_init_dump(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_clusters(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_listeners(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_stats(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_stats_prometheus(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_reset_counters(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_certs(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_ready(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_server_info(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_memory(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
void admin_logging(struct admin *ad, struct http_server_req *q, struct http_server_resp *r);
// Registers the values that tools look for: server.*, cluster_manager.*, listener_manager.*.
void admin_register_stats(struct admin *ad);

// Answers with JSON: begin writes into r->body, one-space indent as Envoy's.
void admin_json(struct http_server_resp *r, struct json_writer *w);
// Plain answer with a status.
void admin_text(struct http_server_resp *r, int status, const char *text);
// "key": "2026-11-21T…" of a wall time; nothing for 0.
void admin_kv_time(struct json_writer *w, const char *key, uint64_t wall_ms);
// Query flag: "?x", "?x=", "?x=true".
bool admin_flag(const struct http_server_req *q, const char *name);
// An address as core.v3.Address.
void admin_address(struct json_writer *w, const struct addr *a);

#endif
