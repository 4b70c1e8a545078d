// SPDX-License-Identifier: Apache-2.0
// RequestAuthentication.
#include <errno.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"
#include "lib/http/url.h"
#include "lib/jose/jwks.h"

static int load_headers(struct loader *l, const struct json *n, struct cp_jwt_rule *r)
{
    const struct json *from = NULL, *out = NULL;
    if (ld_list(l, n, "fromHeaders", &from) || ld_list(l, n, "outputClaimToHeaders", &out)) {
        return -EINVAL;
    }
    r->headers = arena_array(l->a, struct cp_label, (from ? from->count : 0) + 1);
    r->claims = arena_array(l->a, struct cp_label, (out ? out->count : 0) + 1);
    for (const struct json *x = from ? from->first : NULL; x; x = x->next) {
        struct cp_label *h = &r->headers[r->header_count++];
        if (ld_members(l, x, "name prefix") || ld_str(l, x, "name", &h->key) || ld_str(l, x, "prefix", &h->value)) {
            return -EINVAL;
        }
    }
    for (const struct json *x = out ? out->first : NULL; x; x = x->next) {
        struct cp_label *h = &r->claims[r->claim_count++];
        if (ld_members(l, x, "header claim") || ld_str(l, x, "header", &h->key) || ld_str(l, x, "claim", &h->value)) {
            return -EINVAL;
        }
    }
    return 0;
}

// http://HOST[:PORT]/… or https://…
static int split_uri(struct loader *l, const struct json *n, struct cp_jwt_rule *r)
{
    r->https = str_starts(r->jwks_uri, STR("https://"));
    if (!r->https && !str_starts(r->jwks_uri, STR("http://"))) {
        return ld_fail(l, json_get(n, "jwksUri"), "\"%.*s\" begins neither with http:// nor with https://", STR_FMT(r->jwks_uri));
    }
    struct str rest = str_skip(r->jwks_uri, r->https ? 8 : 7), authority = str_split(&rest, '/');
    if (!url_split_authority(authority, &r->host, &r->port) || !r->host.n) {
        return ld_fail(l, json_get(n, "jwksUri"), "\"%.*s\" names no host", STR_FMT(r->jwks_uri));
    }
    r->port = r->port ? r->port : r->https ? 443 : 80;
    return 0;
}

// A proxy refuses keys of which it can use none, and with them the whole listener.
static int check_keys(struct loader *l, const struct json *n, struct str text)
{
    struct jwks *k = NULL;
    struct err e = { 0 };
    if (jwks_parse(text, &k, &e) != JWT_OK) {
        return ld_fail(l, json_get(n, "jwks"), "no usable key: %s", e.msg);
    }
    jwks_unref(k);
    return 0;
}

static int load_rule(struct loader *l, const struct json *n, struct cp_jwt_rule *r)
{
    if (ld_members(l, n, "issuer audiences jwksUri jwks fromHeaders fromParams fromCookies outputPayloadToHeader outputClaimToHeaders "
                         "forwardOriginalToken timeout spaceDelimitedClaims") ||
        ld_str(l, n, "issuer", &r->issuer) || ld_str(l, n, "jwks", &r->jwks) || ld_str(l, n, "jwksUri", &r->jwks_uri) ||
        ld_str(l, n, "outputPayloadToHeader", &r->payload_header) || ld_duration(l, n, "timeout", &r->timeout) ||
        ld_bool(l, n, "forwardOriginalToken", &r->forward) || ld_strs(l, n, "audiences", &r->audiences, &r->audience_count) ||
        ld_strs(l, n, "fromParams", &r->params, &r->param_count) || ld_strs(l, n, "fromCookies", &r->cookies, &r->cookie_count) ||
        ld_strs(l, n, "spaceDelimitedClaims", &r->space_delimited, &r->space_delimited_count) || load_headers(l, n, r)) {
        return -EINVAL;
    }
    if (!r->jwks.n && !r->jwks_uri.n) {
        return ld_fail(l, n, "jwks or jwksUri is needed: remora-control does not ask issuers where their keys are");
    }
    return r->jwks.n ? check_keys(l, n, r->jwks) : split_uri(l, n, r); // with both, Istio takes the keys that are here
}

int ld_request_authentication(struct loader *l, const struct json *spec)
{
    struct cp_request_authentication p = { .meta = l->meta };
    const struct json *rules = NULL;
    if (ld_members(l, spec, "selector targetRef targetRefs jwtRules") || ld_policy_scope(l, spec, &p.selector, &p.targets) ||
        ld_list(l, spec, "jwtRules", &rules)) {
        return -EINVAL;
    }
    p.rules = arena_array(l->a, struct cp_jwt_rule, (rules ? rules->count : 0) + 1);
    for (const struct json *x = rules ? rules->first : NULL; x; x = x->next) {
        if (load_rule(l, x, &p.rules[p.rule_count++])) {
            return -EINVAL;
        }
    }
    *(struct cp_request_authentication *)ld_grow(l, (void **)&l->c->request_authentications, &l->c->request_authentication_count, &l->ra_cap,
                                                 sizeof(p)) = p;
    return 0;
}
