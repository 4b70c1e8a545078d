// SPDX-License-Identifier: Apache-2.0
// /clusters as text and JSON (admin.v3.Clusters), /listeners.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/admin/admin_int.h"

static const char *health_name(uint8_t h)
{
    static const char *const names[] = { "UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED" };
    return h < array_len(names) ? names[h] : "UNKNOWN";
}

struct host_stat {
    const char *name;
    bool gauge;
    uint64_t value;
};

enum { HOST_STATS = 9 };

static void host_stats(const struct host *h, struct host_stat v[HOST_STATS])
{
    uint64_t connect_fail = atomic_load_explicit(&h->cx_connect_fail, memory_order_relaxed);
    const struct host_stat s[HOST_STATS] = {
        { "cx_active", true, atomic_load_explicit(&h->cx_active, memory_order_relaxed) },
        { "cx_connect_fail", false, connect_fail },
        { "cx_total", false, atomic_load_explicit(&h->cx_total, memory_order_relaxed) },
        { "rq_active", true, atomic_load_explicit(&h->rq_active, memory_order_relaxed) },
        { "rq_error", false, atomic_load_explicit(&h->rq_error, memory_order_relaxed) },
        { "rq_pending_active", true, 0 },
        { "rq_success", false, atomic_load_explicit(&h->rq_success, memory_order_relaxed) },
        { "rq_timeout", false, atomic_load_explicit(&h->rq_timeout, memory_order_relaxed) },
        { "rq_total", false, atomic_load_explicit(&h->rq_total, memory_order_relaxed) },
    };
    memcpy(v, s, sizeof(s));
}

static void text_limits(struct buf *b, struct str name, const char *priority, const struct breaker_limits *l)
{
    buf_printf(b, "%.*s::%s::max_connections::%u\n", STR_FMT(name), priority, l->max_connections);
    buf_printf(b, "%.*s::%s::max_pending_requests::%u\n", STR_FMT(name), priority, l->max_pending);
    buf_printf(b, "%.*s::%s::max_requests::%u\n", STR_FMT(name), priority, l->max_requests);
    buf_printf(b, "%.*s::%s::max_retries::%u\n", STR_FMT(name), priority, l->max_retries);
}

static void text_flags(struct buf *b, const struct host *h)
{
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = { { HOST_FAILED_ACTIVE_HC, "/failed_active_hc" }, { HOST_FAILED_OUTLIER, "/failed_outlier_check" },
                  { HOST_FAILED_EDS, "/failed_eds_health" }, { HOST_REMOVED, "/pending_dynamic_removal" },
                  { HOST_PENDING_HC, "/pending_active_hc" } };
    unsigned flags = atomic_load_explicit(&h->flags, memory_order_relaxed);
    if (!flags) {
        buf_printf(b, "healthy");
    }
    for (size_t i = 0; i < array_len(names); i++) {
        if (flags & names[i].bit) {
            buf_printf(b, "%s", names[i].name);
        }
    }
}

// Percent of the last interval of outlier detection, -1 when there were too few answers.
static void text_rate(struct buf *b, struct str name, const struct host *h, const char *what, const atomic_int *tenths)
{
    int v = atomic_load_explicit(tenths, memory_order_relaxed);
    buf_printf(b, v < 0 || v % 10 == 0 ? "%.*s::%s::%s::%.0f\n" : "%.*s::%s::%s::%.1f\n", STR_FMT(name), h->text, what, v < 0 ? -1.0 : v / 10.0);
}

static void text_host(struct buf *b, struct str name, const struct endpoint *e)
{
    struct host_stat v[HOST_STATS];
    host_stats(e->host, v);
    for (int i = 0; i < HOST_STATS; i++) {
        buf_printf(b, "%.*s::%s::%s::%llu\n", STR_FMT(name), e->host->text, v[i].name, (unsigned long long)v[i].value);
    }
    buf_printf(b, "%.*s::%s::hostname::%s\n", STR_FMT(name), e->host->text, e->host->hostname ? e->host->hostname : "");
    buf_printf(b, "%.*s::%s::health_flags::", STR_FMT(name), e->host->text);
    text_flags(b, e->host);
    buf_printf(b, "\n%.*s::%s::weight::%u\n", STR_FMT(name), e->host->text, e->weight);
    buf_printf(b, "%.*s::%s::region::%.*s\n", STR_FMT(name), e->host->text, STR_FMT(e->region));
    buf_printf(b, "%.*s::%s::zone::%.*s\n", STR_FMT(name), e->host->text, STR_FMT(e->zone));
    buf_printf(b, "%.*s::%s::sub_zone::%.*s\n", STR_FMT(name), e->host->text, STR_FMT(e->sub_zone));
    buf_printf(b, "%.*s::%s::canary::false\n", STR_FMT(name), e->host->text);
    buf_printf(b, "%.*s::%s::priority::%u\n", STR_FMT(name), e->host->text, e->priority);
    text_rate(b, name, e->host, "success_rate", &e->host->success_rate);
    text_rate(b, name, e->host, "local_origin_success_rate", &e->host->local_success_rate);
}

static void text_cluster(struct buf *b, const struct cluster_snap *c)
{
    struct str n = c->cfg->name;
    buf_printf(b, "%.*s::observability_name::%.*s\n", STR_FMT(n), STR_FMT(c->cfg->stat_name));
    text_limits(b, n, "default_priority", &c->cfg->breakers[0]);
    text_limits(b, n, "high_priority", &c->cfg->breakers[1]);
    buf_printf(b, "%.*s::added_via_api::%s\n", STR_FMT(n), c->cfg->added_via_api ? "true" : "false");
    if (c->cfg->type == CLUSTER_EDS) {
        buf_printf(b, "%.*s::eds_service_name::%.*s\n", STR_FMT(n), STR_FMT(c->cfg->eds_service_name));
    }
    for (size_t i = 0; i < c->endpoints->count; i++) {
        text_host(b, n, &c->endpoints->v[i]);
    }
}

static void json_host(struct json_writer *w, const struct endpoint *e)
{
    struct host_stat v[HOST_STATS];
    unsigned flags = atomic_load_explicit(&e->host->flags, memory_order_relaxed);
    host_stats(e->host, v);
    jw_object(w);
    jw_key(w, STR("address"));
    admin_address(w, &e->host->addr);
    jw_key(w, STR("stats"));
    jw_array(w);
    for (int i = 0; i < HOST_STATS; i++) {
        jw_object(w);
        if (v[i].gauge) {
            jw_kv(w, "type", STR("GAUGE"));
        }
        if (v[i].value) { // 64-bit numbers are text in proto3 JSON, zeros are left out
            char text[24];
            snprintf(text, sizeof(text), "%llu", (unsigned long long)v[i].value);
            jw_kv(w, "value", str_c(text));
        }
        jw_kv(w, "name", str_c(v[i].name));
        jw_object_end(w);
    }
    jw_array_end(w);
    jw_key(w, STR("health_status"));
    jw_object(w);
    if (flags & HOST_FAILED_ACTIVE_HC) {
        jw_kv_bool(w, "failed_active_health_check", true);
    }
    if (flags & HOST_FAILED_OUTLIER) {
        jw_kv_bool(w, "failed_outlier_check", true);
    }
    if (flags & HOST_REMOVED) {
        jw_kv_bool(w, "pending_dynamic_removal", true);
    }
    if (flags & HOST_PENDING_HC) {
        jw_kv_bool(w, "pending_active_hc", true);
    }
    // Envoy tells HEALTHY for endpoints whose assignment says nothing.
    jw_kv(w, "eds_health_status", str_c(e->eds_health == EDS_UNKNOWN ? "HEALTHY" : health_name(e->eds_health)));
    jw_object_end(w);
    jw_kv_u64(w, "weight", e->weight);
    if (e->host->hostname && e->host->hostname[0]) {
        jw_kv(w, "hostname", str_c(e->host->hostname));
    }
    if (e->priority) {
        jw_kv_u64(w, "priority", e->priority);
    }
    jw_key(w, STR("locality"));
    jw_object(w);
    const struct {
        const char *key;
        struct str v;
    } parts[] = { { "region", e->region }, { "zone", e->zone }, { "sub_zone", e->sub_zone } };
    for (size_t i = 0; i < array_len(parts); i++) {
        if (parts[i].v.n) {
            jw_kv(w, parts[i].key, parts[i].v);
        }
    }
    jw_object_end(w);
    jw_object_end(w);
}

static void json_limits(struct json_writer *w, const struct breaker_limits *l, bool high)
{
    jw_object(w);
    if (high) {
        jw_kv(w, "priority", STR("HIGH"));
    }
    jw_kv_u64(w, "max_connections", l->max_connections);
    jw_kv_u64(w, "max_pending_requests", l->max_pending);
    jw_kv_u64(w, "max_requests", l->max_requests);
    jw_kv_u64(w, "max_retries", l->max_retries);
    jw_object_end(w);
}

static void json_cluster(struct json_writer *w, const struct cluster_snap *c)
{
    jw_object(w);
    jw_kv(w, "name", c->cfg->name);
    if (c->cfg->added_via_api) {
        jw_kv_bool(w, "added_via_api", true);
    }
    if (c->endpoints->count) {
        jw_key(w, STR("host_statuses"));
        jw_array(w);
        for (size_t i = 0; i < c->endpoints->count; i++) {
            json_host(w, &c->endpoints->v[i]);
        }
        jw_array_end(w);
    }
    jw_key(w, STR("circuit_breakers"));
    jw_object(w);
    jw_key(w, STR("thresholds"));
    jw_array(w);
    json_limits(w, &c->cfg->breakers[0], false);
    json_limits(w, &c->cfg->breakers[1], true);
    jw_array_end(w);
    jw_object_end(w);
    jw_kv(w, "observability_name", c->cfg->stat_name);
    if (c->cfg->type == CLUSTER_EDS) {
        jw_kv(w, "eds_service_name", c->cfg->eds_service_name);
    }
    jw_object_end(w);
}

void admin_clusters(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    bool json = str_is(http_query_get(q->query, "format", q->arena), "json");
    struct snapshot *s = ad->d.snapshot(ad->d.arg);
    struct map_entry **v = s ? map_sorted(&s->clusters) : NULL;
    size_t n = s ? s->clusters.count : 0;
    struct json_writer w;
    if (json) {
        admin_json(r, &w);
        jw_object(&w);
        jw_key(&w, STR("cluster_statuses"));
        jw_array(&w);
    }
    for (size_t i = 0; i < n; i++) {
        if (json) {
            json_cluster(&w, v[i]->val);
        } else {
            text_cluster(&r->body, v[i]->val);
        }
    }
    if (json) {
        jw_array_end(&w);
        jw_object_end(&w);
        buf_append(&r->body, "\n", 1);
    }
    free(v);
}

void admin_listeners(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    bool json = str_is(http_query_get(q->query, "format", q->arena), "json");
    struct snapshot *s = ad->d.snapshot(ad->d.arg);
    struct json_writer w;
    char text[ADDR_TEXT_MAX];
    if (json) {
        admin_json(r, &w);
        jw_object(&w);
        jw_key(&w, STR("listener_statuses"));
        jw_array(&w);
    }
    for (size_t i = 0; s && i < s->listener_count; i++) {
        const struct listener_cfg *l = s->listeners[i];
        if (json) {
            jw_object(&w);
            jw_kv(&w, "name", l->name);
            jw_key(&w, STR("local_address"));
            admin_address(&w, &l->addresses[0]);
            if (l->address_count > 1) {
                jw_key(&w, STR("additional_local_addresses"));
                jw_array(&w);
                for (size_t k = 1; k < l->address_count; k++) {
                    admin_address(&w, &l->addresses[k]);
                }
                jw_array_end(&w);
            }
            jw_object_end(&w);
        } else {
            for (size_t k = 0; k < l->address_count; k++) {
                buf_printf(&r->body, "%.*s::%s\n", STR_FMT(l->name), addr_text(&l->addresses[k], text));
            }
        }
    }
    if (json) {
        jw_array_end(&w);
        jw_object_end(&w);
        buf_append(&r->body, "\n", 1);
    }
}
