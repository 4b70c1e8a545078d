// SPDX-License-Identifier: Apache-2.0
// Protocol upgrades (RFC 9110 §7.8): those that the connection manager or the route names are passed to the upstream, which decides; with its
// 101 both sides become a tunnel, and not before: what the client sends early waits in its connection (threat class T9).
#include "proxy/http/internal.h"

static bool named(const struct str *v, size_t n, struct str what)
{
    for (size_t i = 0; i < n; i++) {
        if (str_eq_nocase(v[i], what)) {
            return true;
        }
    }
    return false;
}

void upgrade_prepare(struct http_request *req)
{
    // RFC 9113 §3.1 took h2c away; a proxy that passes it on opens a tunnel past its own policy (threat class T10). Ignoring an upgrade is
    // what RFC 9110 §7.8 allows any server to do.
    if (req->upgrade.n && str_eq_nocase(req->upgrade, STR("h2c"))) {
        req->upgrade = str_n(NULL, 0);
        headers_remove_id(&req->headers, HDR_HTTP2_SETTINGS);
    }
}

// What req wants to switch to; CONNECT is one of the types (RFC 9110 §9.3.6). Empty: nothing.
static struct str wanted(const struct http_request *req)
{
    return req->upgrade.n || req->path.n ? req->upgrade : STR("connect");
}

static const struct http_upgrade *configured(const struct http_manager_cfg *cfg, struct str what)
{
    for (size_t i = 0; i < cfg->upgrade_count; i++) {
        if (str_eq_nocase(cfg->upgrades[i].type, what)) {
            return &cfg->upgrades[i];
        }
    }
    return NULL;
}

bool upgrade_allowed(const struct http_request *req, const struct http_manager_cfg *cfg, const struct route *route)
{
    struct str what = wanted(req);
    if (!what.n) {
        return true;
    }
    if (route && (named(route->upgrades, route->upgrade_count, what) || named(route->upgrades_off, route->upgrade_off_count, what))) {
        return named(route->upgrades, route->upgrade_count, what); // the route's word counts
    }
    const struct http_upgrade *u = configured(cfg, what);
    return u && u->enabled;
}

const struct http_chain *upgrade_chain(const struct http_request *req, const struct http_manager_cfg *cfg)
{
    struct str what = wanted(req);
    const struct http_upgrade *u = what.n ? configured(cfg, what) : NULL;
    return u && u->chain.count ? &u->chain : &cfg->chain;
}

bool upgrade_switches(const struct http_request *req, int status)
{
    return (status == 101 && req->upgrade.n) || (!req->path.n && !req->upgrade.n && status >= 200 && status < 300);
}
