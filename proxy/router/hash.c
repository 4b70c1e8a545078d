// SPDX-License-Identifier: Apache-2.0
// route.v3.RouteAction.hash_policy: values of the request that tie it to an endpoint. The hash is Envoy's: xxHash64 with seed 0, combined
// by rotation and exclusive or.
#include "lib/base/hash.h"
#include "lib/http/url.h"
#include "lib/regex/regex.h"
#include "proxy/router/router.h"

static bool cookie_value(const struct headers *h, struct str name, struct str *ret)
{
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        struct str rest = x->id == HDR_COOKIE ? x->value : str_n(NULL, 0);
        while (rest.n) {
            struct str value = str_trim(str_split(&rest, ';')), key = str_split(&value, '=');
            if (str_eq(key, name)) {
                if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"') {
                    value = str_n(value.p + 1, value.n - 2);
                }
                *ret = value;
                return true;
            }
        }
    }
    return false;
}

static bool query_value(struct str path, struct str name, struct str *ret)
{
    struct str rest;
    (void)url_split_path(path, &rest);
    while (rest.n) {
        struct str value = str_split(&rest, '&'), key = str_split(&value, '=');
        if (str_eq(key, name)) {
            *ret = value;
            return true;
        }
    }
    return false;
}

static bool policy_value(const struct hash_policy *p, const struct http_request *req, const struct addr *source, struct arena *a,
                         struct str *ret)
{
    bool present;
    switch (p->kind) {
    case HASH_HEADER:
        if (str_eq_nocase(p->name, STR(":authority")) || str_eq_nocase(p->name, STR("host"))) {
            *ret = req->host;
            return ret->n > 0;
        }
        if (str_is(p->name, ":path")) {
            *ret = req->path;
            return true;
        }
        if (str_is(p->name, ":method")) {
            *ret = req->method;
            return true;
        }
        *ret = headers_joined(&req->headers, p->name, &present);
        if (present && p->rewrite) {
            (void)regex_replace_all(p->rewrite, *ret, p->rewrite_sub, a, ret);
        }
        return present;
    case HASH_COOKIE:
        return cookie_value(&req->headers, p->name, ret);
    case HASH_SOURCE_IP: {
        char text[ADDR_TEXT_MAX];
        if (source->family != AF_INET && source->family != AF_INET6) {
            return false;
        }
        *ret = arena_str(a, str_c(addr_ip_text(source, text)));
        return true;
    }
    case HASH_QUERY:
        return query_value(req->path, p->name, ret);
    }
    return false;
}

// HashPolicy.Cookie.ttl: 0 is a session cookie.
static struct str make_cookie(const struct hash_policy *p, uint64_t random, struct arena *a, struct str *ret_value)
{
    *ret_value = arena_printf(a, "%016llx", (unsigned long long)random);
    struct str age = p->cookie_ttl_s > 0 ? arena_printf(a, "; Max-Age=%lld", (long long)p->cookie_ttl_s) : STR("");
    return arena_printf(a, "%.*s=\"%.*s\"%.*s%s%.*s%.*s; HttpOnly", STR_FMT(p->name), STR_FMT(*ret_value), STR_FMT(age),
                        p->cookie_path.n ? "; Path=" : "", STR_FMT(p->cookie_path), STR_FMT(p->cookie_attributes));
}

bool route_hash(const struct route *rt, const struct http_request *req, const struct addr *source, uint64_t random, struct arena *a,
                uint64_t *ret, struct str *ret_cookie)
{
    bool any = false;
    uint64_t hash = 0;
    for (size_t i = 0; i < rt->hash_count; i++) {
        const struct hash_policy *p = &rt->hash[i];
        struct str v;
        if (!policy_value(p, req, source, a, &v)) {
            if (p->kind != HASH_COOKIE || p->cookie_ttl_s < 0 || !ret_cookie) {
                continue;
            }
            *ret_cookie = make_cookie(p, random, a, &v);
        }
        uint64_t h = hash_xx64(v.p, v.n, 0);
        hash = any ? ((hash << 1) | (hash >> 63)) ^ h : h;
        any = true;
        if (p->terminal) {
            break;
        }
    }
    if (any) {
        *ret = hash;
    }
    return any;
}
