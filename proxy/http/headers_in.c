// SPDX-License-Identifier: Apache-2.0
// What the connection manager does to every request head before filters see it. One pass over the fields finds all that matters.
#include <stdio.h>

#include "lib/base/rand.h"
#include "lib/http/chars.h"
#include "lib/http/url.h"
#include "proxy/http/internal.h"

// ---- path ----

static bool is_unreserved(unsigned c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

// Value of a %XX at p[i], -1 when there is none.
static int escape_at(struct str s, size_t i)
{
    if (s.p[i] != '%' || s.n - i < 3 || !ch_is(s.p[i + 1], CH_HEX) || !ch_is(s.p[i + 2], CH_HEX)) {
        return -1;
    }
    return (int)(ch_hex(s.p[i + 1]) << 4 | ch_hex(s.p[i + 2]));
}

static size_t path_length(struct str pq)
{
    ptrdiff_t q = str_find(pq, '?');
    return q >= 0 ? (size_t)q : pq.n;
}

// Rewrites the path part: escapes of unreserved characters (RFC 3986 §6.2.2.2: "%2e%2e" is "..") and '\' when unreserved is set, escaped
// slashes when slashes is set.
static struct str path_unescape(struct str pq, bool unreserved, bool slashes, struct arena *a)
{
    size_t end = path_length(pq), n = 0;
    char *out = arena_alloc(a, pq.n + 1);
    for (size_t i = 0; i < end; i++) {
        int c = escape_at(pq, i);
        if (c >= 0 && unreserved && is_unreserved((unsigned)c)) {
            out[n++] = (char)c;
            i += 2;
        } else if (c >= 0 && slashes && (c == '/' || c == '\\')) {
            out[n++] = (char)c;
            i += 2;
        } else {
            out[n++] = unreserved && pq.p[i] == '\\' ? '/' : pq.p[i];
        }
    }
    memcpy(out + n, pq.p + end, pq.n - end);
    n += pq.n - end;
    out[n] = '\0';
    return str_n(out, n);
}

static bool has_escaped_slash(struct str pq)
{
    size_t end = path_length(pq);
    for (size_t i = 0; i < end; i++) {
        int c = pq.p[i] == '%' ? escape_at(pq, i) : -1;
        if (c == '/' || c == '\\') {
            return true;
        }
    }
    return false;
}

static struct str path_merge(struct str pq, struct arena *a)
{
    size_t end = path_length(pq), n = 0;
    if (str_find_str(str_n(pq.p, end), STR("//")) < 0) {
        return pq;
    }
    char *out = arena_alloc(a, pq.n + 1);
    for (size_t i = 0; i < pq.n; i++) {
        if (i > 0 && i < end && pq.p[i] == '/' && pq.p[i - 1] == '/') {
            continue;
        }
        out[n++] = pq.p[i];
    }
    out[n] = '\0';
    return str_n(out, n);
}

enum path_verdict request_path_prepare(struct http_request *req, const struct http_manager_cfg *cfg)
{
    struct arena *a = req->headers.arena;
    struct str path = req->path;
    if (!path.n || path.p[0] != '/') {
        return PATH_OK; // CONNECT and "*": nothing to spell differently
    }
    bool escapes = memchr(path.p, '%', path.n) || memchr(path.p, '\\', path.n);
    bool redirect = false;
    if (escapes && cfg->escaped_slashes != ESC_KEEP && has_escaped_slash(path)) {
        if (cfg->escaped_slashes == ESC_REJECT) {
            return PATH_REFUSED;
        }
        path = path_unescape(path, false, true, a);
        redirect = cfg->escaped_slashes == ESC_UNESCAPE_REDIRECT;
    }
    if (cfg->normalize_path) {
        if (escapes) {
            path = path_unescape(path, true, false, a);
        }
        if (!url_normalize_path(path, cfg->merge_slashes, a, &path)) {
            return PATH_REFUSED;
        }
    } else if (cfg->merge_slashes) {
        path = path_merge(path, a);
    }
    req->path = path;
    return redirect ? PATH_REDIRECTED : PATH_OK;
}

void request_host_prepare(struct http_request *req, const struct http_manager_cfg *cfg, uint16_t local_port)
{
    if (!cfg->strip_any_host_port && !cfg->strip_matching_host_port && !cfg->strip_trailing_host_dot) {
        return;
    }
    struct str host = req->host, name;
    uint16_t port;
    if (!host.n || !url_split_authority(host, &name, &port)) {
        return;
    }
    size_t colon = host.n;
    while (colon > 0 && host.p[colon - 1] != ':' && host.p[colon - 1] != ']') {
        colon--;
    }
    bool has_port = port && colon > 0 && host.p[colon - 1] == ':';
    size_t end = has_port ? colon - 1 : host.n;
    if (cfg->strip_trailing_host_dot && end > 1 && host.p[end - 1] == '.') {
        host = has_port ? arena_printf(req->headers.arena, "%.*s:%u", (int)(end - 1), host.p, port) : str_n(host.p, end - 1);
        end--;
    }
    if (has_port && (cfg->strip_any_host_port || (cfg->strip_matching_host_port && port == local_port))) {
        host = str_n(host.p, end);
    }
    req->host = host;
}

// ---- fields ----

// Envoy takes these from nobody outside its trust; we trust no peer to steer our retries and time-outs. Without "x-envoy-".
static const char *const dropped[] = {
    "retry-on", "retry-grpc-on", "max-retries", "upstream-alt-stat-name", "upstream-rq-timeout-ms", "upstream-rq-per-try-timeout-ms",
    "upstream-rq-timeout-alt-response", "expected-rq-timeout-ms", "force-trace", "ip-tags", "hedge-on-per-try-timeout",
    "retriable-status-codes", "retriable-header-names", "internal",
};
// At the edge (use_remote_address) also these.
static const char *const dropped_at_edge[] = {
    "decorator-operation", "downstream-service-cluster", "downstream-service-node", "original-path", "external-address",
};

static bool in_list(struct str s, const char *const *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (str_eq_nocase(s, str_c(v[i]))) {
            return true;
        }
    }
    return false;
}

static bool is_dropped(struct str name, bool edge)
{
    if (name.n < 12 || (name.p[0] | 0x20) != 'x' || name.p[1] != '-' || !str_eq_nocase(str_n(name.p, 8), STR("x-envoy-"))) {
        return false;
    }
    struct str rest = str_skip(name, 8);
    return in_list(rest, dropped, sizeof(dropped) / sizeof(dropped[0])) ||
           (edge && in_list(rest, dropped_at_edge, sizeof(dropped_at_edge) / sizeof(dropped_at_edge[0])));
}

static void drop(struct headers *h, struct hdr *x)
{
    x->removed = true;
    h->bytes -= x->name.n + x->value.n;
}

struct found { // fields that decide something; NULL = absent
    struct hdr *xff, *proto, *id, *xfcc, *via, *port;
};

// Several fields of a list are one list; nobody must see only one of them.
static void join(struct headers *h, struct hdr **first, struct hdr *x)
{
    if (!*first) {
        *first = x;
        return;
    }
    (*first)->value = arena_printf(h->arena, "%.*s,%.*s", STR_FMT((*first)->value), STR_FMT(x->value));
    drop(h, x);
}

static bool scan(struct headers *h, const struct http_manager_cfg *cfg, struct found *f)
{
    bool underscores = cfg->headers_with_underscores_drop || cfg->headers_with_underscores_reject;
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        switch (x->id) {
        case HDR_X_FORWARDED_FOR:
            join(h, &f->xff, x);
            break;
        case HDR_X_FORWARDED_PROTO:
            f->proto = x;
            break;
        case HDR_X_FORWARDED_PORT:
            f->port = x;
            break;
        case HDR_X_REQUEST_ID:
            f->id = x;
            break;
        case HDR_X_FORWARDED_CLIENT_CERT:
            join(h, &f->xfcc, x);
            break;
        case HDR_VIA:
            f->via = x;
            break;
        case HDR_OTHER:
        case HDR_X_ENVOY_INTERNAL:
        case HDR_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS:
        case HDR_X_ENVOY_DECORATOR_OPERATION:
        case HDR_X_ENVOY_EXTERNAL_ADDRESS:
        case HDR_X_ENVOY_ORIGINAL_PATH:
            if (is_dropped(x->name, cfg->use_remote_address)) {
                drop(h, x);
            } else if (underscores && memchr(x->name.p, '_', x->name.n)) {
                if (cfg->headers_with_underscores_reject) {
                    return false;
                }
                drop(h, x);
            }
            break;
        default:
            break;
        }
    }
    return true;
}

// The address at the given place from the right of X-Forwarded-For (0 = last). False when there is none or it is no address.
static bool xff_address(struct str xff, uint32_t skip, struct addr *ret)
{
    for (;;) {
        size_t at = xff.n;
        while (at > 0 && xff.p[at - 1] != ',') {
            at--;
        }
        struct str part = str_trim(str_skip(xff, at));
        if (skip == 0) {
            return addr_parse_ip(part, 0, ret);
        }
        if (at == 0) {
            return false;
        }
        xff = str_n(xff.p, at - 1);
        skip--;
    }
}

static void forwarded_for(struct headers *h, const struct http_manager_cfg *cfg, const struct request_peer *p, struct hdr *xff,
                          struct addr *ret_remote)
{
    *ret_remote = p->remote;
    struct addr a;
    if (!cfg->use_remote_address) { // a proxy before us has said who the client is
        if (xff && xff_address(xff->value, cfg->xff_trusted_hops, &a)) {
            *ret_remote = a;
        }
        return;
    }
    if (cfg->xff_trusted_hops && xff && xff_address(xff->value, cfg->xff_trusted_hops - 1, &a)) {
        *ret_remote = a;
    }
    if (ret_remote->family == AF_INET || ret_remote->family == AF_INET6) {
        char text[ADDR_TEXT_MAX];
        headers_add_id(h, HDR_X_ENVOY_EXTERNAL_ADDRESS, arena_str(h->arena, str_c(addr_ip_text(ret_remote, text))));
    }
    if (!cfg->skip_xff_append && (p->remote.family == AF_INET || p->remote.family == AF_INET6)) {
        char text[ADDR_TEXT_MAX];
        addr_ip_text(&p->remote, text);
        if (xff) {
            xff->value = arena_printf(h->arena, "%.*s,%s", STR_FMT(xff->value), text);
        } else {
            headers_add_id(h, HDR_X_FORWARDED_FOR, arena_str(h->arena, str_c(text)));
        }
    }
}

static void client_cert(struct headers *h, const struct http_manager_cfg *cfg, const struct request_peer *p, struct hdr *x)
{
    enum forward_client_cert mode = cfg->forward_client_cert;
    if (mode == FCC_ALWAYS_FORWARD_ONLY) {
        return;
    }
    if (mode == FCC_SANITIZE || !p->mtls) { // only a peer with a certificate is believed
        if (x) {
            drop(h, x);
        }
        return;
    }
    if (mode == FCC_FORWARD_ONLY || !p->xfcc.n) {
        return;
    }
    if (x && mode == FCC_APPEND_FORWARD) {
        x->value = arena_printf(h->arena, "%.*s,%.*s", STR_FMT(x->value), STR_FMT(p->xfcc));
    } else if (x) {
        x->value = p->xfcc;
    } else if (p->xfcc.n) {
        headers_add_id(h, HDR_X_FORWARDED_CLIENT_CERT, p->xfcc);
    }
}

static void request_id(struct headers *h, const struct http_manager_cfg *cfg, struct hdr *id)
{
    bool replace = cfg->use_remote_address && !cfg->preserve_external_request_id;
    if (!cfg->generate_request_id || (id && id->value.n && !replace)) {
        return;
    }
    char *uuid = arena_alloc(h->arena, RAND_UUID_MAX);
    rand_uuid(uuid);
    struct str v = str_n(uuid, RAND_UUID_MAX - 1);
    if (id) {
        id->value = v;
    } else {
        headers_add_id(h, HDR_X_REQUEST_ID, v);
    }
}

bool request_headers_prepare(struct http_request *req, const struct http_manager_cfg *cfg, const struct request_peer *p,
                             struct addr *ret_remote)
{
    struct headers *h = &req->headers;
    struct found f = { 0 };
    // Adding may move the array, and f points into it: make room for all that is added below first.
    headers_reserve(h, h->count + 8);
    if (!scan(h, cfg, &f)) {
        return false;
    }
    forwarded_for(h, cfg, p, f.xff, ret_remote);
    struct str scheme = p->tls ? STR("https") : STR("http");
    if (!f.proto) {
        headers_add_id(h, HDR_X_FORWARDED_PROTO, scheme);
    } else if (cfg->use_remote_address && cfg->xff_trusted_hops == 0) {
        f.proto->value = scheme;
    } else if (str_eq_nocase(f.proto->value, STR("https")) || str_eq_nocase(f.proto->value, STR("http"))) {
        scheme = f.proto->value.n == 5 ? STR("https") : STR("http");
    }
    req->scheme = scheme;
    if (cfg->append_x_forwarded_port && !f.port && p->local.port) {
        headers_add_id(h, HDR_X_FORWARDED_PORT, arena_printf(h->arena, "%u", p->local.port));
    }
    client_cert(h, cfg, p, f.xfcc);
    request_id(h, cfg, f.id);
    if (cfg->via.n) {
        if (f.via) {
            f.via->value = arena_printf(h->arena, "%.*s, %.*s", STR_FMT(f.via->value), STR_FMT(cfg->via));
        } else {
            headers_add_id(h, HDR_VIA, cfg->via);
        }
    }
    return true;
}
