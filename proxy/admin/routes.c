// SPDX-License-Identifier: Apache-2.0
// Path → page. Shapes and words follow Envoy's admin interface, which istioctl and scripts read.
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "proxy/access_log/access_log.h"
#include "proxy/admin/admin_int.h"

static void page_ok(struct http_server_resp *r)
{
    admin_text(r, 200, "OK\n");
}

static void admin_drain_listeners(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    ad->d.drain(ad->d.arg, admin_flag(q, "inboundonly"), admin_flag(q, "graceful"), admin_flag(q, "skip_exit"));
    page_ok(r);
}

static void admin_explain(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    if (!ad->d.explain) {
        admin_text(r, 404, "not in this program\n");
        return;
    }
    ad->d.explain(ad->d.arg, q, r);
}

static void admin_health_fail(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)q;
    ad->d.healthcheck_fail(ad->d.arg, true);
    page_ok(r);
}

static void admin_health_ok(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)q;
    ad->d.healthcheck_fail(ad->d.arg, false);
    page_ok(r);
}

static void admin_quit(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)q;
    page_ok(r);
    r->close = true;
    r->after = ad->d.quit;
    r->after_arg = ad->d.arg;
}

static void admin_reopen(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)ad;
    (void)q;
    access_log_reopen();
    page_ok(r);
}

static void write_help(struct buf *b)
{
    buf_printf(b, "admin commands are:\n");
    for (size_t i = 0; i < admin_page_count; i++) {
        buf_printf(b, "  %s%s: %s\n", admin_pages[i].path, admin_pages[i].post ? " (POST)" : "", admin_pages[i].help);
    }
}

static void admin_help(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)ad;
    (void)q;
    write_help(&r->body);
}

static void admin_home(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)ad;
    (void)q;
    r->content_type = "text/html; charset=UTF-8";
    buf_printf(&r->body, "<!DOCTYPE html><title>remora admin</title><h1>remora admin</h1><ul>");
    for (size_t i = 0; i < admin_page_count; i++) {
        const struct admin_page *p = &admin_pages[i];
        buf_printf(&r->body, p->post ? "<li>POST %s: %s</li>" : "<li><a href=\"%s\">%s</a></li>", p->path, p->help);
    }
    buf_printf(&r->body, "</ul>\n");
}

const struct admin_page admin_pages[] = {
    { "/", false, "this page", admin_home },
    { "/certs", false, "certificates in use", admin_certs },
    { "/clusters", false, "clusters and their endpoints", admin_clusters },
    { "/config_dump", false, "configuration in force (params: include_eds, mask, resource, name_regex)", admin_config_dump },
    { "/drain_listeners", true, "stop accepting, let connections finish (params: inboundonly, graceful, skip_exit)", admin_drain_listeners },
    { "/explain", false, "which way a request would take, and why not another (params: method, url, header, dst, source, listener)", admin_explain },
    { "/healthcheck/fail", true, "report not ready", admin_health_fail },
    { "/healthcheck/ok", true, "report ready again", admin_health_ok },
    { "/help", false, "this list", admin_help },
    { "/init_dump", false, "what is still waited for", admin_init_dump },
    { "/listeners", false, "listener addresses", admin_listeners },
    { "/logging", true, "show or change log levels (params: level, paths, <component>)", admin_logging },
    { "/memory", false, "memory in use", admin_memory },
    { "/quitquitquit", true, "exit", admin_quit },
    { "/ready", false, "200 when traffic can be served", admin_ready },
    { "/reopen_logs", true, "reopen access log files", admin_reopen },
    { "/reset_counters", true, "set all counters to zero", admin_reset_counters },
    { "/server_info", false, "version, state, options, node", admin_server_info },
    { "/stats", false, "statistics (params: usedonly, filter, format=json|prometheus)", admin_stats },
    { "/stats/prometheus", false, "statistics for Prometheus", admin_stats_prometheus },
};
const size_t admin_page_count = array_len(admin_pages);

void admin_text(struct http_server_resp *r, int status, const char *text)
{
    r->status = status;
    buf_clear(&r->body);
    buf_append_str(&r->body, str_c(text));
}

void admin_json(struct http_server_resp *r, struct json_writer *w)
{
    r->content_type = "application/json";
    jw_init(w, &r->body, 1);
}

void admin_kv_time(struct json_writer *w, const char *key, uint64_t wall_ms)
{
    if (wall_ms) {
        char text[CLOCK_RFC3339_MAX];
        clock_rfc3339(wall_ms, text);
        jw_kv(w, key, str_c(text));
    }
}

bool admin_flag(const struct http_server_req *q, const char *name)
{
    struct str v = http_query_get(q->query, name, q->arena);
    return v.p && !str_is(v, "false") && !str_is(v, "0");
}

void admin_address(struct json_writer *w, const struct addr *a)
{
    char ip[ADDR_TEXT_MAX];
    jw_object(w);
    if (a->family == AF_UNIX) {
        jw_key(w, STR("pipe"));
        jw_object(w);
        jw_kv(w, "path", str_c(a->path));
        jw_object_end(w);
    } else {
        jw_key(w, STR("socket_address"));
        jw_object(w);
        jw_kv(w, "address", str_c(addr_ip_text(a, ip)));
        jw_kv_u64(w, "port_value", a->port);
        jw_object_end(w);
    }
    jw_object_end(w);
}

void admin_handle(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    headers_add(&r->headers, STR("cache-control"), STR("no-cache, max-age=0"));
    headers_add(&r->headers, STR("x-content-type-options"), STR("nosniff"));
    for (size_t i = 0; i < admin_page_count; i++) {
        const struct admin_page *p = &admin_pages[i];
        if (!str_is(q->path, p->path)) {
            continue;
        }
        if (p->post && !str_is(q->req->method, "POST")) {
            r->status = 405;
            buf_printf(&r->body, "Method %.*s not allowed, POST required.", STR_FMT(q->req->method));
            return;
        }
        p->fn(ad, q, r);
        return;
    }
    r->status = 404;
    buf_printf(&r->body, "invalid path. ");
    write_help(&r->body);
}

static void on_request(void *arg, struct http_server_req *q, struct http_server_resp *r)
{
    admin_handle(arg, q, r);
}

struct admin *admin_new(const struct addr *a, const struct admin_deps *deps, struct err *err)
{
    struct admin *ad = mem_new(struct admin);
    ad->d = *deps;
    ad->server = http_server_new(deps->loop, a, 0, on_request, ad, err);
    if (!ad->server) {
        char text[ADDR_TEXT_MAX];
        err_wrap(err, "admin address %s", addr_text(a, text));
        free(ad);
        return NULL;
    }
    admin_register_stats(ad);
    return ad;
}

struct addr admin_addr(const struct admin *ad)
{
    return http_server_addr(ad->server);
}

void admin_free(struct admin *ad)
{
    http_server_free(ad->server);
    free(ad);
}
