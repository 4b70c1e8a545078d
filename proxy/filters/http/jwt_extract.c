// SPDX-License-Identifier: Apache-2.0
// Where a request has its tokens (JwtProvider.from_headers, from_params, from_cookies). Pure.
#include "lib/http/url.h"
#include "proxy/filters/http/jwt_int.h"

bool jwt_issuer_allowed(const struct jwt_location *at, struct str issuer)
{
    for (size_t i = 0; i < at->issuer_count && !at->any_issuer; i++) {
        if (str_eq(at->issuers[i], issuer)) {
            return true;
        }
    }
    return at->any_issuer;
}

static bool token_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

// What follows the prefix, wherever it stands in the value, from the first byte that a token may have. False: no such prefix.
static bool behind_prefix(struct str value, struct str prefix, struct str *ret)
{
    ptrdiff_t at = prefix.n ? str_find_str(value, prefix) : 0;
    if (at < 0) {
        return false;
    }
    struct str rest = str_skip(value, (size_t)at + prefix.n);
    while (prefix.n && rest.n && !token_char(rest.p[0])) {
        rest = str_skip(rest, 1);
    }
    *ret = rest.n ? rest : value; // nothing there: the value will be no token
    return true;
}

// "a=b": false when the name is another. Both halves percent-decoded where they can be.
static bool param_value(struct str pair, struct str name, struct arena *a, struct str *ret)
{
    struct str value = pair, key = str_split(&value, '=');
    struct str text;
    if (url_decode(key, a, &text)) {
        key = text;
    }
    if (!str_eq(key, name)) {
        return false;
    }
    *ret = url_decode(value, a, &text) ? text : value;
    return true;
}

static struct str query_of(struct str path, struct str *ret_before)
{
    ptrdiff_t hash = str_find(path, '#');
    path.n = hash >= 0 ? (size_t)hash : path.n;
    struct str query = path;
    *ret_before = str_split(&query, '?');
    return query;
}

static bool find_param(struct str path, struct str name, struct arena *a, struct str *ret)
{
    struct str before, query = query_of(path, &before);
    while (query.n) {
        if (param_value(str_split(&query, '&'), name, a, ret)) {
            return true;
        }
    }
    return false;
}

static bool find_cookie(const struct headers *h, struct str name, struct str *ret)
{
    for (struct hdr *x = headers_may_have(h, HDR_BIT(HDR_COOKIE)) ? headers_first(h) : NULL; x; x = headers_next(h, x)) {
        struct str rest = x->id == HDR_COOKIE ? x->value : str_n(NULL, 0);
        while (rest.n) {
            struct str value = str_trim(str_split(&rest, ';')), key = str_split(&value, '=');
            if (!value.p || !str_eq(key, name)) {
                continue;
            }
            if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"') {
                value = str_n(value.p + 1, value.n - 2);
            }
            *ret = value;
            return true;
        }
    }
    return false;
}

static bool add(struct jwt_found *v, size_t *n, const struct jwt_location *at, struct str token)
{
    if (*n == JWT_TOKENS_MAX) {
        return false;
    }
    v[(*n)++] = (struct jwt_found){ .at = at, .token = token };
    return true;
}

static bool add_headers(struct jwt_found *v, size_t *n, const struct jwt_location *at, const struct headers *h)
{
    struct str token;
    enum hdr_id id = hdr_id_of(at->name);
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        bool same = id != HDR_OTHER ? x->id == id : x->id == HDR_OTHER && str_eq_nocase(x->name, at->name);
        if (same && behind_prefix(x->value, at->prefix, &token) && !add(v, n, at, token)) {
            return false;
        }
    }
    return true;
}

size_t jwt_extract(const struct jwt_locations *l, const struct http_request *req, struct arena *a, struct jwt_found *ret, bool *ret_more)
{
    size_t n = 0;
    bool room = true;
    for (size_t i = 0; i < l->count && room; i++) {
        const struct jwt_location *at = &l->v[i];
        struct str token;
        switch (at->place) {
        case JWT_IN_HEADER:
            room = add_headers(ret, &n, at, &req->headers);
            break;
        case JWT_IN_PARAM:
            room = !find_param(req->path, at->name, a, &token) || add(ret, &n, at, token);
            break;
        case JWT_IN_COOKIE:
            room = !find_cookie(&req->headers, at->name, &token) || add(ret, &n, at, token);
            break;
        }
    }
    *ret_more = !room;
    return n;
}

// The path without this parameter, the others as they are.
static struct str without_param(struct str path, struct str name, struct arena *a)
{
    struct str before, value, query = query_of(path, &before);
    char *out = arena_alloc(a, path.n + 1);
    size_t n = before.n;
    if (n) { // CONNECT has no path
        memcpy(out, before.p, n);
    }
    char sep = '?';
    while (query.n) {
        struct str pair = str_split(&query, '&');
        if (!param_value(pair, name, a, &value)) {
            out[n++] = sep;
            if (pair.n) {
                memcpy(out + n, pair.p, pair.n);
            }
            n += pair.n;
            sep = '&';
        }
    }
    out[n] = '\0';
    return str_n(out, n);
}

void jwt_remove(const struct jwt_location *at, struct http_request *req, struct arena *a)
{
    if (at->place == JWT_IN_HEADER) {
        headers_remove(&req->headers, at->name);
    } else if (at->place == JWT_IN_PARAM) {
        req->path = without_param(req->path, at->name, a);
    }
}
