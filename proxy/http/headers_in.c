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

// Not a path's own characters (RFC 3986 §3.3), yet accepted by parsers: escaped, so that each path has one spelling.
static const bool to_escape[256] = { ['"'] = true, ['<'] = true, ['>'] = true, ['^'] = true, ['`'] = true,
                                     ['{'] = true, ['|'] = true, ['}'] = true };

static bool must_escape(char c)
{
    return to_escape[(unsigned char)c];
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
    static const char hex[] = "0123456789ABCDEF";
    char *out = arena_alloc(a, pq.n + 2 * end + 1);
    for (size_t i = 0; i < end; i++) {
        if (unreserved && must_escape(pq.p[i])) {
            out[n++] = '%';
            out[n++] = hex[(unsigned char)pq.p[i] >> 4];
            out[n++] = hex[pq.p[i] & 15];
            continue;
        }
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

// Something that normalising spells differently, other than dots and slashes.
static bool has_escapes(struct str path)
{
    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];
        if (c == '%' || c == '\\' || must_escape(c)) {
            return true;
        }
    }
    return false;
}

enum path_verdict request_path_prepare(struct http_request *req, const struct http_manager_cfg *cfg)
{
    struct arena *a = req->headers.arena;
    struct str path = req->path;
    if (!path.n || path.p[0] != '/') {
        return PATH_OK; // CONNECT and "*": nothing to spell differently
    }
    bool escapes = (cfg->normalize_path || cfg->escaped_slashes != ESC_KEEP) && has_escapes(path);
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
        if (!url_normalize_path(path, false, a, &path)) {
            return PATH_REFUSED;
        }
    }
    if (cfg->merge_slashes) {
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

// What steers us: honoured of internal requests, dropped of others. Without "x-envoy-".
static const char *const steering[] = {
    "retry-on", "retry-grpc-on", "max-retries", "upstream-alt-stat-name", "upstream-rq-timeout-ms", "upstream-rq-per-try-timeout-ms",
    "upstream-rq-timeout-alt-response", "expected-rq-timeout-ms", "force-trace", "ip-tags", "hedge-on-per-try-timeout",
    "retriable-status-codes", "retriable-header-names", "original-url",
};
// At the edge (use_remote_address, external client) also these.
static const char *const dropped_at_edge[] = {
    "decorator-operation", "downstream-service-cluster", "downstream-service-node", "original-path", "original-host", "external-address",
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

enum x_envoy { X_OTHER, X_INTERNAL, X_STEERING, X_EDGE };

static enum x_envoy x_envoy_kind_of(struct str name)
{
    if (name.n < 12 || (name.p[0] | 0x20) != 'x' || name.p[1] != '-' || !str_eq_nocase(str_n(name.p, 8), STR("x-envoy-"))) {
        return X_OTHER;
    }
    struct str rest = str_skip(name, 8);
    if (str_eq_nocase(rest, STR("internal"))) {
        return X_INTERNAL;
    }
    if (in_list(rest, steering, sizeof(steering) / sizeof(steering[0]))) {
        return X_STEERING;
    }
    return in_list(rest, dropped_at_edge, sizeof(dropped_at_edge) / sizeof(dropped_at_edge[0])) ? X_EDGE : X_OTHER;
}

static enum x_envoy x_envoy_kind(const struct hdr *x)
{
    switch (x->id) {
    case HDR_OTHER:
        return x_envoy_kind_of(x->name);
    case HDR_X_ENVOY_INTERNAL:
        return X_INTERNAL;
    case HDR_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS:
        return X_STEERING;
    case HDR_X_ENVOY_DECORATOR_OPERATION:
    case HDR_X_ENVOY_EXTERNAL_ADDRESS:
    case HDR_X_ENVOY_ORIGINAL_PATH:
        return X_EDGE;
    default: // no other well-known name is in the lists
        return X_OTHER;
    }
}

static void drop(struct headers *h, struct hdr *x)
{
    x->removed = true;
    h->bytes -= x->name.n + x->value.n;
}

struct found { // fields that decide something; NULL = absent
    struct hdr *xff, *proto, *id, *xfcc, *via, *port, *agent;
    bool x_envoy; // fields that depend on who asks
};

// Several fields of a list are one list; nobody must see only one of them. In one go: a join for each would cost the square of their bytes.
static void join_all(struct headers *h, struct hdr *first)
{
    size_t n = 0;
    for (struct hdr *x = first; x; x = headers_next(h, x)) {
        n += x->id == first->id ? x->value.n + 1 : 0;
    }
    char *out = arena_alloc(h->arena, n);
    size_t at = 0;
    for (struct hdr *x = first; x; x = headers_next(h, x)) {
        if (x->id != first->id) {
            continue;
        }
        if (x->value.n) {
            memcpy(out + at, x->value.p, x->value.n);
        }
        at += x->value.n;
        out[at++] = ',';
        if (x != first) {
            drop(h, x);
        }
    }
    h->bytes += at - 1 - first->value.n;
    out[at - 1] = '\0';
    first->value = str_n(out, at - 1);
}

// first: of its name; more: there are further ones.
static void take_list(struct hdr **first, bool *more, struct hdr *x)
{
    *more |= *first != NULL;
    *first = *first ? *first : x;
}

static bool scan(struct headers *h, const struct http_manager_cfg *cfg, struct found *f)
{
    const uint64_t matter = HDR_BIT(HDR_X_FORWARDED_FOR) | HDR_BIT(HDR_X_FORWARDED_PROTO) | HDR_BIT(HDR_X_FORWARDED_PORT) |
                            HDR_BIT(HDR_X_REQUEST_ID) | HDR_BIT(HDR_X_FORWARDED_CLIENT_CERT) | HDR_BIT(HDR_VIA) |
                            HDR_BIT(HDR_X_ENVOY_INTERNAL) | HDR_BIT(HDR_OTHER) | HDR_BIT(HDR_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS) |
                            HDR_BIT(HDR_X_ENVOY_DECORATOR_OPERATION) | HDR_BIT(HDR_X_ENVOY_EXTERNAL_ADDRESS) |
                            HDR_BIT(HDR_X_ENVOY_ORIGINAL_PATH);
    bool underscores = cfg->headers_with_underscores_drop || cfg->headers_with_underscores_reject;
    bool more_xff = false, more_xfcc = false;
    if (!headers_may_have(h, cfg->user_agent.n ? matter | HDR_BIT(HDR_USER_AGENT) : matter)) {
        return true; // none of the cases below
    }
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        switch (x->id) {
        case HDR_X_FORWARDED_FOR:
            take_list(&f->xff, &more_xff, x);
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
            take_list(&f->xfcc, &more_xfcc, x);
            break;
        case HDR_VIA:
            f->via = x;
            break;
        case HDR_X_ENVOY_INTERNAL:
            drop(h, x); // ours to say
            break;
        case HDR_USER_AGENT:
            f->agent = x;
            break;
        case HDR_OTHER:
        case HDR_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS:
        case HDR_X_ENVOY_DECORATOR_OPERATION:
        case HDR_X_ENVOY_EXTERNAL_ADDRESS:
        case HDR_X_ENVOY_ORIGINAL_PATH:
            if (x_envoy_kind(x) != X_OTHER) {
                f->x_envoy = true;
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
    if (more_xff) {
        join_all(h, f->xff);
    }
    if (more_xfcc) {
        join_all(h, f->xfcc);
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

// The address left of all those at the right that belong to trusted proxies; without one the leftmost.
static bool xff_beyond(struct str xff, const struct ip_detection *d, struct addr *ret)
{
    struct addr a;
    bool any = false;
    for (uint32_t skip = 0; xff_address(xff, skip, &a); skip++) {
        bool trusted = false;
        *ret = a;
        any = true;
        for (size_t i = 0; i < d->cidr_count && !trusted; i++) {
            trusted = cidr_contains(&d->cidrs[i], &a);
        }
        if (!trusted) {
            break;
        }
    }
    return any;
}

// original_ip_detection_extensions. *ret_alone: the address may be trusted as the sender's.
static bool detect(const struct headers *h, const struct ip_detection *d, struct hdr *xff, struct addr *ret, bool *ret_alone)
{
    if (d->header.n) {
        struct str v = str_trim(headers_value(h, d->header));
        *ret_alone = d->trust;
        return v.n && addr_parse_ip(v, 0, ret);
    }
    if (!xff) {
        return false;
    }
    *ret_alone = str_find(xff->value, ',') < 0;
    return d->cidr_count ? xff_beyond(xff->value, d, ret) : xff_address(xff->value, d->hops, ret);
}

// Who sent the request, and whether that is one of us: X-Forwarded-For must name one address, which must be internal.
static void find_sender(struct headers *h, const struct http_manager_cfg *cfg, const struct request_peer *p, struct hdr *xff,
                        struct addr *ret_remote, struct request_trust *t)
{
    struct addr a = p->remote;
    bool known = false, alone = false;
    if (cfg->use_remote_address) {
        alone = !xff;
        known = true;
        if (cfg->xff_trusted_hops && xff) {
            (void)xff_address(xff->value, cfg->xff_trusted_hops - 1, &a);
        }
    } else if (cfg->detection_count) {
        for (size_t i = 0; i < cfg->detection_count && !known; i++) {
            known = detect(h, &cfg->detections[i], xff, &a, &alone);
            if (!known && cfg->detections[i].reject_status) {
                t->reject_status = cfg->detections[i].reject_status;
                break;
            }
        }
    } else if (xff) { // a proxy before us has said who the client is
        alone = str_find(xff->value, ',') < 0;
        known = xff_address(xff->value, cfg->xff_trusted_hops, &a);
    }
    *ret_remote = known ? a : p->remote;
    t->internal = known && alone && a.family == AF_UNIX && cfg->internal_unix;
    for (size_t i = 0; known && alone && i < cfg->internal_count && !t->internal; i++) {
        t->internal = cidr_contains(&cfg->internal[i], &a);
    }
}

static void append_forwarded_for(struct headers *h, const struct http_manager_cfg *cfg, const struct request_peer *p, struct hdr *xff)
{
    if (!cfg->use_remote_address || cfg->skip_xff_append || (p->remote.family != AF_INET && p->remote.family != AF_INET6)) {
        return;
    }
    char text[ADDR_TEXT_MAX];
    addr_ip_text(&p->remote, text);
    if (xff) {
        xff->value = arena_printf(h->arena, "%.*s,%s", STR_FMT(xff->value), text);
    } else {
        headers_add_id(h, HDR_X_FORWARDED_FOR, arena_str(h->arena, str_c(text)));
    }
}

// x-envoy-internal and x-envoy-external-address say what we found; fields that only some may send are taken from the others.
static void sort_out(struct headers *h, const struct http_manager_cfg *cfg, const struct found *f, const struct addr *remote,
                     struct request_trust *t)
{
    bool edge = cfg->use_remote_address && !t->internal;
    if (f->x_envoy) {
        for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
            enum x_envoy kind = x_envoy_kind(x);
            if ((kind == X_STEERING && !t->internal) || (kind == X_EDGE && edge)) {
                drop(h, x);
            }
        }
        t->envoy_fields = t->internal;
    }
    if (t->internal) {
        headers_add_id(h, HDR_X_ENVOY_INTERNAL, STR("true"));
    } else if (edge && (remote->family == AF_INET || remote->family == AF_INET6)) {
        char text[ADDR_TEXT_MAX];
        headers_add_id(h, HDR_X_ENVOY_EXTERNAL_ADDRESS, arena_str(h->arena, str_c(addr_ip_text(remote, text))));
    }
}

void request_headers_only_internal(struct http_request *req, const struct str *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        headers_remove(&req->headers, names[i]);
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

static void request_id(struct headers *h, const struct http_manager_cfg *cfg, struct hdr *id, bool internal)
{
    bool replace = cfg->use_remote_address && !internal && !cfg->preserve_external_request_id;
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

// add_user_agent: who we are.
static void say_agent(struct headers *h, const struct http_manager_cfg *cfg, struct hdr *agent)
{
    headers_set(h, STR("x-envoy-downstream-service-cluster"), cfg->user_agent);
    if (cfg->user_node.n) {
        headers_set(h, STR("x-envoy-downstream-service-node"), cfg->user_node);
    }
    if (!agent) {
        headers_add_id(h, HDR_USER_AGENT, cfg->user_agent);
    }
}

bool request_headers_prepare(struct http_request *req, const struct http_manager_cfg *cfg, const struct request_peer *p,
                             struct addr *ret_remote, struct request_trust *ret_trust)
{
    struct headers *h = &req->headers;
    struct request_trust trust = { 0 };
    struct found f = { 0 };
    // Adding may move the array, and f points into it: make room for all that is added below first.
    headers_reserve(h, h->count + 12);
    if (!scan(h, cfg, &f)) {
        return false;
    }
    find_sender(h, cfg, p, f.xff, ret_remote, &trust);
    append_forwarded_for(h, cfg, p, f.xff);
    struct str scheme = p->tls ? STR("https") : STR("http");
    if (!f.proto) {
        headers_add_id(h, HDR_X_FORWARDED_PROTO, cfg->scheme_overwrite.n ? cfg->scheme_overwrite : scheme);
    } else if (cfg->use_remote_address && cfg->xff_trusted_hops == 0) {
        f.proto->value = scheme;
    } else if (str_eq_nocase(f.proto->value, STR("https")) || str_eq_nocase(f.proto->value, STR("http"))) {
        scheme = f.proto->value.n == 5 ? STR("https") : STR("http");
    }
    if (cfg->scheme_overwrite.n) {
        req->scheme = cfg->scheme_overwrite;
    } else if (!req->scheme.n) { // else the client has said it: HTTP/2, a target in absolute form
        req->scheme = scheme;
    }
    sort_out(h, cfg, &f, ret_remote, &trust);
    if (cfg->user_agent.n) {
        say_agent(h, cfg, f.agent);
    }
    if (cfg->append_x_forwarded_port && !f.port && p->local.port) {
        headers_add_id(h, HDR_X_FORWARDED_PORT, arena_printf(h->arena, "%u", p->local.port));
    }
    client_cert(h, cfg, p, f.xfcc);
    request_id(h, cfg, f.id, trust.internal);
    if (cfg->via.n) {
        if (f.via) {
            f.via->value = arena_printf(h->arena, "%.*s, %.*s", STR_FMT(f.via->value), STR_FMT(cfg->via));
        } else {
            headers_add_id(h, HDR_VIA, cfg->via);
        }
    }
    *ret_trust = trust;
    return true;
}
