// SPDX-License-Identifier: Apache-2.0
// RequestAuthentication.
#include "control-plane/validate_int.h"
#include "lib/base/check.h"

static void check_texts(struct cp_validator *v, const struct json *n, const char *key)
{
    for (const struct json *x = va_first(n, key); x; x = x->next) {
        if (!x->text.n) {
            va_error(v, va_get(n, key), "holds an empty text");
            return;
        }
    }
}

// Private keys have no business here: what is needed is the public half, and symmetric ones have none.
static void warn_private(struct cp_validator *v, const struct json *at, const struct json *keys)
{
    int i = 0;
    for (const struct json *k = keys ? keys->first : NULL; k; k = k->next, i++) {
        if (va_get(k, "d") || str_is(json_str(k, "kty"), "oct")) {
            va_warn(v, at, "key %d is a private one; only public keys are used to look at tokens", i);
        }
    }
}

static void check_keys(struct cp_validator *v, const struct json *rule)
{
    static const char *const kinds[] = { "RSA", "EC", "OKP", "oct" };
    const struct json *at = va_get(rule, "jwks");
    struct json *set = NULL;
    if (!at || !at->text.n) {
        return;
    }
    if (json_parse(at->text, v->a, &set, NULL) || set->type != JSON_OBJECT || (!va_get(set, "keys") && !va_get(set, "kty"))) {
        va_error(v, at, "is no set of keys in JSON");
        return;
    }
    const struct json *keys = va_get(set, "keys");
    for (const struct json *k = keys ? keys->first : NULL; k; k = k->next) {
        bool good = false;
        for (size_t i = 0; i < array_len(kinds) && !good; i++) {
            good = str_is(json_str(k, "kty"), kinds[i]);
        }
        if (!good) {
            va_error(v, at, "a key's kty is none of RSA, EC, OKP, oct");
            return;
        }
    }
    warn_private(v, at, keys);
}

// Letters, digits, '-' and '_' (Istio is stricter here than HTTP is).
static bool is_strict_header(struct str s)
{
    bool good = s.n > 0;
    for (size_t i = 0; i < s.n && good; i++) {
        char c = s.p[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    }
    return good;
}

static void check_claims(struct cp_validator *v, const struct json *rule)
{
    for (const struct json *x = va_first(rule, "outputClaimToHeaders"); x; x = x->next) {
        struct str header = json_str(x, "header");
        if (!header.n || !json_str(x, "claim").n) {
            va_error(v, x, "outputClaimToHeaders: header and claim are needed");
        } else if (!is_strict_header(header)) {
            va_error(v, va_get(x, "header"), "\"%.*s\" is no header's name of letters, digits, - and _", STR_FMT(header));
        }
    }
}

static void check_rule(struct cp_validator *v, const struct json *rule)
{
    struct str uri = json_str(rule, "jwksUri");
    check_texts(v, rule, "audiences");
    check_texts(v, rule, "fromParams");
    check_texts(v, rule, "fromCookies");
    if (!json_str(rule, "issuer").n && !uri.n) {
        va_error(v, rule, "issuer or jwksUri is needed");
    }
    if (uri.n && !str_starts(uri, STR("http://")) && !str_starts(uri, STR("https://"))) {
        va_error(v, va_get(rule, "jwksUri"), "\"%.*s\" begins neither with http:// nor with https://", STR_FMT(uri));
    }
    check_keys(v, rule);
    for (const struct json *x = va_first(rule, "fromHeaders"); x; x = x->next) {
        if (!json_str(x, "name").n) {
            va_error(v, x, "fromHeaders: name is needed");
        }
    }
    check_claims(v, rule);
    va_duration(v, rule, "timeout");
}

void va_request_authentication(struct cp_validator *v, const struct json *spec)
{
    va_scope(v, spec);
    for (const struct json *x = va_first(spec, "jwtRules"); x; x = x->next) {
        check_rule(v, x);
    }
}

void va_peer_authentication(struct cp_validator *v, const struct json *spec)
{
    const struct json *selector = va_get(spec, "selector"), *ports = va_get(spec, "portLevelMtls");
    va_selector(v, selector, "matchLabels", "without labels it selects every workload");
    if (ports && ports->count && !va_first(selector, "matchLabels")) {
        va_error(v, ports, "needs a selector: ports are those of workloads");
    }
    for (const struct json *p = ports ? ports->first : NULL; p; p = p->next) {
        uint64_t port;
        if (!str_to_u64(p->key, 65535, &port) || !port) {
            va_error(v, p, "is no port from 1 to 65535");
        }
    }
}
