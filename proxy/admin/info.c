// SPDX-License-Identifier: Apache-2.0
// /ready, /server_info, /memory, /certs, /logging, /stats and the server-level statistics.
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "envoy/config/core/v3/base.pb-c.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/regex/regex.h"
#include "lib/tls/cert.h"
#include "proto/pb_json.h"
#include "proxy/access_log/access_log.h"
#include "proxy/admin/admin_int.h"

static const char *const state_names[] = { "LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING" };

void admin_ready(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)q;
    enum server_state s = ad->d.state(ad->d.arg);
    r->status = s == SERVER_LIVE ? 200 : 503;
    buf_printf(&r->body, "%s\n", state_names[s]);
}

static void kv_seconds(struct json_writer *w, const char *key, uint64_t s)
{
    char text[32];
    snprintf(text, sizeof(text), "%llus", (unsigned long long)s);
    jw_kv(w, key, str_c(text));
}

void admin_server_info(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)q;
    struct json_writer w;
    uint64_t up = (clock_wall_ms() - ad->d.start_wall_ms) / 1000;
    admin_json(r, &w);
    jw_object(&w);
    // Five parts, as tools split it: revision / version / tree state / build type / TLS library.
    jw_kv(&w, "version", STR("remora/" REMORA_VERSION "/Clean/RELEASE/OpenSSL"));
    jw_kv(&w, "state", str_c(state_names[ad->d.state(ad->d.arg)]));
    kv_seconds(&w, "uptime_current_epoch", up);
    kv_seconds(&w, "uptime_all_epochs", up);
    jw_kv(&w, "hot_restart_version", STR("disabled"));
    jw_key(&w, STR("command_line_options"));
    jw_object(&w);
    jw_kv_u64(&w, "concurrency", (uint64_t)ad->d.concurrency);
    jw_kv(&w, "config_path", str_c(ad->d.config_path));
    jw_kv(&w, "log_level", str_c(log_level_name(log_levels[LOGC_MAIN])));
    jw_kv(&w, "mode", STR("Serve"));
    jw_kv_bool(&w, "disable_hot_restart", true);
    jw_object_end(&w);
    if (ad->d.node) {
        jw_key(&w, STR("node"));
        pb_json_write(&w, ad->d.node, PB_JSON_REDACT); // metadata may carry PROXY_CONFIG with a tracer's token
    }
    jw_object_end(&w);
    buf_append(&r->body, "\n", 1);
}

static uint64_t resident_bytes(void)
{
    unsigned long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%lu %lu", &total, &resident) != 2) {
            resident = 0;
        }
        fclose(f);
    }
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void kv_u64_text(struct json_writer *w, const char *key, uint64_t v)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
    jw_kv(w, key, str_c(text));
}

void admin_memory(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)ad;
    (void)q;
    struct json_writer w;
    struct mallinfo2 m = mallinfo2();
    admin_json(r, &w);
    jw_object(&w);
    kv_u64_text(&w, "allocated", m.uordblks + m.hblkhd);
    kv_u64_text(&w, "heap_size", m.arena + m.hblkhd);
    kv_u64_text(&w, "pageheap_unmapped", 0);
    kv_u64_text(&w, "pageheap_free", m.fordblks);
    kv_u64_text(&w, "total_thread_cache", 0);
    kv_u64_text(&w, "total_physical_bytes", resident_bytes());
    jw_object_end(&w);
    buf_append(&r->body, "\n", 1);
}

// ---- /certs ----

struct cert_walk {
    struct json_writer w;
    struct arena *arena;
    bool roots;
};

static void one_certificate(struct cert_walk *c, const struct cert_info *i)
{
    static const char *const kinds[] = { [SAN_ANY] = "dns", [SAN_DNS] = "dns", [SAN_URI] = "uri", [SAN_EMAIL] = "dns", [SAN_IP] = "ip_address" };
    int64_t left = i->not_after_s - (int64_t)(clock_wall_ms() / 1000);
    jw_object(&c->w);
    jw_kv(&c->w, "path", STR("<inline>"));
    jw_kv(&c->w, "serial_number", i->serial_hex);
    jw_key(&c->w, STR("subject_alt_names"));
    jw_array(&c->w);
    for (size_t k = 0; k < i->san_count; k++) {
        jw_object(&c->w);
        jw_kv(&c->w, kinds[i->sans[k].type], i->sans[k].value);
        jw_object_end(&c->w);
    }
    jw_array_end(&c->w);
    kv_u64_text(&c->w, "days_until_expiration", left > 0 ? (uint64_t)left / 86400 : 0);
    admin_kv_time(&c->w, "valid_from", (uint64_t)i->not_before_s * 1000);
    admin_kv_time(&c->w, "expiration_time", (uint64_t)i->not_after_s * 1000);
    jw_object_end(&c->w);
}

static void one_secret(void *arg, const struct admin_secret *s)
{
    struct cert_walk *c = arg;
    struct cert_info *v;
    size_t n;
    if (cert_parse_bundle(s->pem, c->arena, &v, &n, NULL)) {
        return;
    }
    jw_object(&c->w);
    for (int part = 0; part < 2; part++) {
        jw_key(&c->w, part ? STR("cert_chain") : STR("ca_cert"));
        jw_array(&c->w);
        for (size_t i = 0; i < n && (part == 0) == s->is_root; i++) {
            one_certificate(c, &v[i]);
        }
        jw_array_end(&c->w);
    }
    jw_object_end(&c->w);
}

void admin_certs(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    struct cert_walk c = { .arena = q->arena };
    admin_json(r, &c.w);
    jw_object(&c.w);
    jw_key(&c.w, STR("certificates"));
    jw_array(&c.w);
    ad->d.each_secret(ad->d.arg, one_secret, &c);
    jw_array_end(&c.w);
    jw_object_end(&c.w);
    buf_append(&r->body, "\n", 1);
}

// ---- /logging ----

static void print_loggers(struct buf *b)
{
    buf_printf(b, "active loggers:\n");
    for (int i = 0; i < LOGC_COUNT; i++) {
        buf_printf(b, "  %s: %s\n", log_component_name((enum log_component)i), log_level_name(log_levels[i]));
    }
    buf_printf(b, "\n");
}

static bool set_one(struct str name, struct str level)
{
    char n[32], l[16];
    snprintf(n, sizeof(n), "%.*s", STR_FMT(name));
    snprintf(l, sizeof(l), "%.*s", STR_FMT(level));
    int c = log_component_parse(n), v = log_level_parse(l);
    if (c < 0 || v < 0) {
        return false;
    }
    log_set_level(c, (enum log_level)v);
    return true;
}

static bool apply_logging(struct str query, struct arena *a)
{
    while (query.n) {
        struct str item = str_split(&query, '&');
        struct str key = str_split(&item, '=');
        struct str v = http_query_get(str_n(key.p, key.n + (item.p ? item.n + 1 : 0)), arena_str(a, key).p, a);
        char l[16];
        snprintf(l, sizeof(l), "%.*s", STR_FMT(v));
        if (str_is(key, "level")) {
            int level = log_level_parse(l);
            if (level < 0) {
                return false;
            }
            log_set_level(-1, (enum log_level)level);
        } else if (str_is(key, "paths")) {
            while (v.n) {
                struct str one = str_split(&v, ',');
                struct str name = str_split(&one, ':');
                if (!set_one(name, one)) {
                    return false;
                }
            }
        } else if (!set_one(key, v)) {
            return false;
        }
    }
    return true;
}

void admin_logging(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)ad;
    if (!apply_logging(q->query, q->arena)) {
        r->status = 400;
        buf_printf(&r->body, "error: unknown logger name or level. usage: /logging?<name>=<level> (change single level)\n"
                             "/logging?paths=name1:level1,name2:level2,... (change several)\n/logging?level=<level> (change all levels)\n"
                             "levels: trace debug info warning error critical off\n");
    }
    print_loggers(&r->body);
}

// ---- /stats ----

static bool keep_regex(void *arg, struct str name)
{
    return regex_search(arg, name);
}

static bool keep_not_regex(void *arg, struct str name)
{
    return !regex_search(arg, name);
}

static void stats_page(struct admin *ad, struct http_server_req *q, struct http_server_resp *r, bool prometheus)
{
    struct stats_dump_opts o = { .used_only = admin_flag(q, "usedonly") };
    struct str filter = http_query_get(q->query, "filter", q->arena), format = http_query_get(q->query, "format", q->arena);
    struct err err = { 0 };
    struct regex *re = NULL;
    if (filter.n) {
        re = regex_new(filter, &err);
        if (!re) {
            r->status = 400;
            buf_printf(&r->body, "Invalid re2 regex: %s\n", err.msg);
            return;
        }
        o.keep = admin_flag(q, "invert_filter") ? keep_not_regex : keep_regex;
        o.arg = re;
    }
    if (prometheus || str_is(format, "prometheus")) {
        stats_dump_prometheus(ad->d.stats, &o, &r->body);
    } else if (str_is(format, "json")) {
        r->content_type = "application/json";
        stats_dump_json(ad->d.stats, &o, &r->body);
    } else if (format.n && !str_is(format, "text")) {
        r->status = 400;
        buf_printf(&r->body, "usage: /stats?format=(json|prometheus|text)\n");
    } else {
        stats_dump_text(ad->d.stats, &o, &r->body);
    }
    if (re) {
        regex_free(re);
    }
}

void admin_stats(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    stats_page(ad, q, r, false);
}

void admin_stats_prometheus(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    stats_page(ad, q, r, true);
}

void admin_reset_counters(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)q;
    stats_reset_counters(ad->d.stats);
    admin_text(r, 200, "OK\n");
}

// ---- server-level values ----

static uint64_t val_state(void *arg)
{
    struct admin *ad = arg;
    return (uint64_t)ad->d.state(ad->d.arg);
}

static uint64_t val_live(void *arg)
{
    return val_state(arg) == SERVER_LIVE;
}

static uint64_t val_uptime(void *arg)
{
    return (clock_wall_ms() - ((struct admin *)arg)->d.start_wall_ms) / 1000;
}

static uint64_t val_concurrency(void *arg)
{
    return (uint64_t)((struct admin *)arg)->d.concurrency;
}

static uint64_t val_allocated(void *arg)
{
    (void)arg;
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static uint64_t val_heap(void *arg)
{
    (void)arg;
    struct mallinfo2 m = mallinfo2();
    return m.arena + m.hblkhd;
}

static uint64_t val_physical(void *arg)
{
    (void)arg;
    return resident_bytes();
}

static uint64_t val_workers_started(void *arg)
{
    enum server_state s = (enum server_state)val_state(arg);
    return s == SERVER_LIVE || s == SERVER_DRAINING;
}

static uint64_t val_active_clusters(void *arg)
{
    struct admin *ad = arg;
    struct snapshot *s = ad->d.snapshot(ad->d.arg);
    return s ? s->clusters.count : 0;
}

static uint64_t val_active_listeners(void *arg)
{
    struct admin *ad = arg;
    struct snapshot *s = ad->d.snapshot(ad->d.arg);
    return s ? s->listener_count : 0;
}

static bool count_warming(void *arg, const struct xds_resource *r)
{
    void **v = arg;
    const struct admin_deps *d = v[0];
    *(uint64_t *)v[1] += d->listener_warming(d->arg, r->name);
    return true;
}

static uint64_t val_warming_listeners(void *arg)
{
    uint64_t n = 0;
    void *v[] = { &((struct admin *)arg)->d, &n };
    xds_each(((struct admin *)arg)->d.xds, XDS_LISTENER, count_warming, v);
    return n;
}

static uint64_t val_connected(void *arg)
{
    struct xds_ads_status s;
    xds_ads_state(((struct admin *)arg)->d.xds, &s);
    return s.connected;
}

#define XDS_VALUE(name, type, field)                                                                                   \
    static uint64_t name(void *arg)                                                                                    \
    {                                                                                                                  \
        struct xds_type_status s;                                                                                      \
        xds_status(((struct admin *)arg)->d.xds, (type), &s);                                                          \
        return s.field;                                                                                                \
    }
XDS_VALUE(val_cds_attempt, XDS_CLUSTER, updates)
XDS_VALUE(val_cds_success, XDS_CLUSTER, accepted)
XDS_VALUE(val_cds_rejected, XDS_CLUSTER, rejected)
XDS_VALUE(val_cds_failure, XDS_CLUSTER, failures)
XDS_VALUE(val_lds_attempt, XDS_LISTENER, updates)
XDS_VALUE(val_lds_success, XDS_LISTENER, accepted)
XDS_VALUE(val_lds_rejected, XDS_LISTENER, rejected)
XDS_VALUE(val_lds_failure, XDS_LISTENER, failures)

static uint64_t val_log_dropped(void *arg)
{
    (void)arg;
    return access_log_dropped();
}

static struct str val_cds_version(void *arg)
{
    struct xds_type_status s;
    xds_status(((struct admin *)arg)->d.xds, XDS_CLUSTER, &s);
    return s.version;
}

static struct str val_lds_version(void *arg)
{
    struct xds_type_status s;
    xds_status(((struct admin *)arg)->d.xds, XDS_LISTENER, &s);
    return s.version;
}

void admin_register_stats(struct admin *ad)
{
    static const struct {
        const char *name;
        enum stat_kind kind;
        const char *help;
        uint64_t (*fn)(void *arg);
    } v[] = {
        { "server.state", STAT_GAUGE, "0 live, 1 draining, 2 and 3 initializing", val_state },
        { "server.live", STAT_GAUGE, "1 when live", val_live },
        { "server.uptime", STAT_GAUGE, "Seconds since the start", val_uptime },
        { "server.concurrency", STAT_GAUGE, "Worker threads", val_concurrency },
        { "server.memory_allocated", STAT_GAUGE, "Bytes allocated", val_allocated },
        { "server.memory_heap_size", STAT_GAUGE, "Bytes of heap", val_heap },
        { "server.memory_physical_size", STAT_GAUGE, "Bytes resident", val_physical },
        { "listener_manager.workers_started", STAT_GAUGE, "1 when workers serve", val_workers_started },
        { "listener_manager.total_listeners_active", STAT_GAUGE, "Listeners in force", val_active_listeners },
        { "listener_manager.total_listeners_warming", STAT_GAUGE, "Listeners waiting for something", val_warming_listeners },
        { "listener_manager.lds.update_attempt", STAT_COUNTER, "Responses received", val_lds_attempt },
        { "listener_manager.lds.update_success", STAT_COUNTER, "Responses accepted", val_lds_success },
        { "listener_manager.lds.update_rejected", STAT_COUNTER, "Responses refused", val_lds_rejected },
        { "listener_manager.lds.update_failure", STAT_COUNTER, "Stream failures", val_lds_failure },
        { "cluster_manager.active_clusters", STAT_GAUGE, "Clusters in force", val_active_clusters },
        { "cluster_manager.cds.update_attempt", STAT_COUNTER, "Responses received", val_cds_attempt },
        { "cluster_manager.cds.update_success", STAT_COUNTER, "Responses accepted", val_cds_success },
        { "cluster_manager.cds.update_rejected", STAT_COUNTER, "Responses refused", val_cds_rejected },
        { "cluster_manager.cds.update_failure", STAT_COUNTER, "Stream failures", val_cds_failure },
        { "access_log.dropped", STAT_COUNTER, "Access log lines that could not be written", val_log_dropped },
        { "control_plane.connected_state", STAT_GAUGE, "1 when the stream to the control plane is up", val_connected },
    };
    for (size_t i = 0; i < array_len(v); i++) {
        stats_register(ad->d.stats, v[i].name, v[i].kind, v[i].help, v[i].fn, ad);
    }
    stats_register_text(ad->d.stats, "cluster_manager.cds.version_text", val_cds_version, ad);
    stats_register_text(ad->d.stats, "listener_manager.lds.version_text", val_lds_version, ad);
}
