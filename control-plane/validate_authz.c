// SPDX-License-Identifier: Apache-2.0
// AuthorizationPolicy, and what all policies have in common.
#include "control-plane/validate_int.h"
#include "lib/base/check.h"

enum { ACCOUNTS_MAX = 16, ACCOUNT_BYTES_MAX = 320 };

static bool filled(const struct json *n, const char *key)
{
    return va_first(n, key);
}

// ---- values ----

static void check_filled(struct cp_validator *v, const struct json *list)
{
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        if (!x->text.n) {
            va_error(v, list, "holds an empty text");
            return;
        }
    }
}

static void check_ips(struct cp_validator *v, const struct json *list)
{
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        if (!va_is_subnet(x->text)) {
            va_error(v, list, "\"%.*s\" is neither an address nor a range", STR_FMT(x->text));
        }
    }
}

static void check_ports(struct cp_validator *v, const struct json *list)
{
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        uint64_t port;
        if (!str_to_u64(x->text, 65535, &port)) {
            va_error(v, list, "\"%.*s\" is no port", STR_FMT(x->text));
        }
    }
}

static void check_accounts(struct cp_validator *v, const struct json *list)
{
    if (list && list->count > ACCOUNTS_MAX) {
        va_error(v, list, "more than %d", ACCOUNTS_MAX);
        return;
    }
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        struct str name = x->text, ns = str_split(&name, '/');
        bool good = name.p ? ns.n && name.n && str_find(name, '/') < 0 : ns.n > 0;
        if (!good || str_find(x->text, '*') >= 0 || x->text.n > ACCOUNT_BYTES_MAX) {
            va_error(v, list, "\"%.*s\" is neither ACCOUNT nor NAMESPACE/ACCOUNT (no wildcards, at most %d bytes)", STR_FMT(x->text), ACCOUNT_BYTES_MAX);
            return;
        }
    }
}

static void check_wildcards(struct cp_validator *v, const struct json *list)
{
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        size_t stars = 0;
        for (size_t i = 0; i < x->text.n; i++) {
            stars += x->text.p[i] == '*';
        }
        if (!x->text.n || stars > 1 || (stars && !str_starts(x->text, STR("*")) && !str_ends(x->text, STR("*")))) {
            va_error(v, list, "\"%.*s\": needs a text, with at most one * at its beginning or end", STR_FMT(x->text));
            return;
        }
    }
}

static void check_domains(struct cp_validator *v, const struct json *list)
{
    check_wildcards(v, list);
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        if (str_find(x->text, '/') >= 0) {
            va_error(v, list, "\"%.*s\": a trust domain has no /", STR_FMT(x->text));
            return;
        }
    }
}

static bool is_segment(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && str_find(STR("-._~%!$&'()+,;:@="), c) < 0) {
            return false;
        }
    }
    return s.n > 0;
}

// "{*}" is one segment, "{**}" the rest, behind which no other of them may stand.
static void check_template(struct cp_validator *v, const struct json *list, struct str path)
{
    bool template = str_find_str(path, STR("{*}")) >= 0 || str_find_str(path, STR("{**}")) >= 0, rest = false;
    struct str s = path;
    while (s.n && s.p[0] == '/') {
        s = str_skip(s, 1);
    }
    while (s.n && s.p[s.n - 1] == '/') {
        s.n--;
    }
    do {
        struct str part = str_split(&s, '/');
        if (str_is(part, "{*}") || str_is(part, "{**}")) {
            if (rest) {
                va_error(v, list, "\"%.*s\": nothing like {*} may stand behind {**}", STR_FMT(path));
                return;
            }
            rest = part.n == 4;
        } else if (str_find(part, '{') >= 0 || str_find(part, '}') >= 0) {
            va_error(v, list, "\"%.*s\": { and } stand only in the segments {*} and {**}", STR_FMT(path));
            return;
        } else if (template && !is_segment(part)) {
            va_error(v, list, "\"%.*s\": beside {*} and {**}, the segment \"%.*s\" can hold characters of paths only", STR_FMT(path), STR_FMT(part));
            return;
        }
    } while (s.p);
}

static void check_paths(struct cp_validator *v, const struct json *list)
{
    check_filled(v, list);
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        check_template(v, list, x->text);
    }
}

// ---- when ----

static bool has_brackets(struct str key)
{
    ptrdiff_t open = str_find(key, '[');
    return open > 0 && str_ends(key, STR("]")) && (size_t)open + 2 < key.n;
}

static void check_no_more(struct cp_validator *v, const struct json *at)
{
    (void)v;
    (void)at;
}

static void check_values(struct cp_validator *v, const struct json *key, const struct json *list)
{
    static const struct {
        const char *key;
        void (*check)(struct cp_validator *v, const struct json *list);
    } plain[] = {
        { "source.ip", check_ips },
        { "remote.ip", check_ips },
        { "destination.ip", check_ips },
        { "destination.port", check_ports },
        { "source.serviceAccount", check_accounts },
        { "source.trustDomain", check_wildcards },
        { "source.namespace", check_no_more },
        { "source.principal", check_no_more },
        { "request.auth.principal", check_no_more },
        { "request.auth.audiences", check_no_more },
        { "request.auth.presenter", check_no_more },
        { "connection.sni", check_no_more },
    };
    static const char *const with_name[] = { "request.headers", "request.auth.claims", "experimental.envoy.filters." };
    check_filled(v, list);
    for (size_t i = 0; i < array_len(plain); i++) {
        if (str_is(key->text, plain[i].key)) {
            plain[i].check(v, list);
            return;
        }
    }
    for (size_t i = 0; i < array_len(with_name); i++) {
        if (str_starts(key->text, str_c(with_name[i]))) {
            if (!has_brackets(key->text)) {
                va_error(v, key, "\"%.*s\": a name in brackets is missing: %s[NAME]", STR_FMT(key->text), with_name[i]);
            }
            return;
        }
    }
    va_error(v, key, "\"%.*s\" is no attribute that conditions know", STR_FMT(key->text));
}

static void check_when(struct cp_validator *v, const struct json *x)
{
    const struct json *key = va_get(x, "key");
    if (!key || !key->text.n) {
        va_error(v, x, "when: key: missing");
    } else if (!filled(x, "values") && !filled(x, "notValues")) {
        va_error(v, key, "values or notValues are needed");
    } else {
        check_values(v, key, va_get(x, filled(x, "values") ? "values" : "notValues"));
        if (filled(x, "values") && filled(x, "notValues")) {
            check_values(v, key, va_get(x, "notValues"));
        }
    }
}

// ---- from and to ----

struct checked {
    const char *name;
    void (*check)(struct cp_validator *v, const struct json *list);
    bool tcp; // says something about TCP connections
};
static const struct checked sources[] = {
    { "principals", check_filled, true },        { "notPrincipals", check_filled, true },
    { "requestPrincipals", check_filled, false }, { "notRequestPrincipals", check_filled, false },
    { "namespaces", check_filled, true },        { "notNamespaces", check_filled, true },
    { "serviceAccounts", check_accounts, true }, { "notServiceAccounts", check_accounts, true },
    { "trustDomains", check_domains, false },    { "notTrustDomains", check_domains, false }, // as istiod: it warns of these, too
    { "ipBlocks", check_ips, true },             { "notIpBlocks", check_ips, true },
    { "remoteIpBlocks", check_ips, true },       { "notRemoteIpBlocks", check_ips, true },
};
static const struct checked operations[] = {
    { "hosts", check_filled, false },   { "notHosts", check_filled, false },
    { "methods", check_filled, false }, { "notMethods", check_filled, false },
    { "paths", check_paths, false },    { "notPaths", check_paths, false },
    { "ports", check_ports, true },     { "notPorts", check_ports, true },
};

struct seen {
    bool there, tcp;
};

static void check_fields(struct cp_validator *v, const struct json *rule, const char *list, const char *inner, const struct checked *f, size_t n,
                         struct seen *ret)
{
    for (const struct json *x = va_first(rule, list); x; x = x->next) {
        const struct json *m = va_get(x, inner);
        bool any = false;
        if (!m) {
            va_error(v, x, "%s: %s is missing", list, inner);
            continue;
        }
        ret->there = true;
        for (size_t i = 0; i < n; i++) {
            any |= filled(m, f[i].name);
            ret->tcp |= f[i].tcp && filled(m, f[i].name);
            f[i].check(v, va_get(m, f[i].name));
        }
        if (!any) {
            va_error(v, m, "says nothing: name at least one field");
        }
    }
}

static void check_exclusive(struct cp_validator *v, const struct json *rule)
{
    for (const struct json *x = va_first(rule, "from"); x; x = x->next) {
        const struct json *m = va_get(x, "source");
        bool accounts = filled(m, "serviceAccounts") || filled(m, "notServiceAccounts");
        if (accounts && (filled(m, "principals") || filled(m, "notPrincipals") || filled(m, "namespaces") || filled(m, "notNamespaces"))) {
            va_error(v, m, "serviceAccounts go neither with namespaces nor with principals");
        }
    }
}

static void check_rule(struct cp_validator *v, const struct json *rule, struct str action)
{
    struct seen from = { 0 }, to = { 0 };
    if (rule->type != JSON_OBJECT) {
        va_error(v, rule, "a rule is missing; {} stands for every request");
        return;
    }
    check_fields(v, rule, "from", "source", sources, array_len(sources), &from);
    check_fields(v, rule, "to", "operation", operations, array_len(operations), &to);
    check_exclusive(v, rule);
    for (const struct json *x = va_first(rule, "when"); x; x = x->next) {
        check_when(v, x);
    }
    if (str_is(action, "DENY") && ((from.there && !to.there && !from.tcp) || (to.there && !to.tcp))) {
        va_warn(v, rule, "denies everything on TCP ports: only attributes of HTTP are named, and these do not exist there; name the ports that are meant");
    }
}

// What is known before a provider is asked is less than what ALLOW and DENY know.
static void check_custom(struct cp_validator *v, const struct json *rule)
{
    static const char *const unknown[] = { "namespaces", "notNamespaces", "serviceAccounts", "notServiceAccounts", "trustDomains", "notTrustDomains",
                                           "principals", "notPrincipals", "requestPrincipals", "notRequestPrincipals" };
    for (const struct json *x = va_first(rule, "from"); x; x = x->next) {
        for (size_t i = 0; i < array_len(unknown); i++) {
            if (filled(va_get(x, "source"), unknown[i])) {
                va_error(v, va_get(va_get(x, "source"), unknown[i]), "does not go with action CUSTOM");
            }
        }
    }
    for (const struct json *x = va_first(rule, "when"); x; x = x->next) {
        struct str key = json_str(x, "key");
        if (str_is(key, "source.namespace") || str_is(key, "source.serviceAccount") || str_is(key, "source.trustDomain") ||
            str_is(key, "source.principal") || str_starts(key, STR("request.auth."))) {
            va_error(v, va_get(x, "key"), "\"%.*s\" does not go with action CUSTOM", STR_FMT(key));
        }
    }
}

// ---- scope ----

static void check_target(struct cp_validator *v, const struct json *t)
{
    static const struct {
        const char *kind, *group;
    } known[] = { { "Service", "" }, { "Service", "core" }, { "ServiceEntry", "networking.istio.io" }, { "Gateway", "gateway.networking.k8s.io" },
                  { "GatewayClass", "gateway.networking.k8s.io" } };
    bool good = false;
    for (size_t i = 0; i < array_len(known) && !good; i++) {
        good = str_is(json_str(t, "kind"), known[i].kind) && str_is(json_str(t, "group"), known[i].group);
    }
    if (!good) {
        va_error(v, t, "a policy is for a Service, ServiceEntry (networking.istio.io), Gateway or GatewayClass (gateway.networking.k8s.io)");
    }
    if (!json_str(t, "name").n) {
        va_error(v, t, "name: missing");
    }
    if (json_str(t, "namespace").n) {
        va_error(v, va_get(t, "namespace"), "must not be there: a policy is for its own namespace");
    }
}

void va_scope(struct cp_validator *v, const struct json *spec)
{
    const struct json *one = va_get(spec, "targetRef"), *several = va_get(spec, "targetRefs"), *selector = va_get(spec, "selector");
    bool list = several && several->count;
    if ((selector && (one || list)) || (one && list)) {
        va_error(v, spec, "only one of selector, targetRef and targetRefs can be there");
    }
    va_selector(v, selector, "matchLabels", "without labels it selects every workload");
    if (one) {
        check_target(v, one);
    }
    for (const struct json *t = list ? several->first : NULL; t; t = t->next) {
        check_target(v, t);
    }
}

void va_dry_run(struct cp_validator *v, const struct json *doc)
{
    static const char *const words[] = { "1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False" };
    const struct json *m = va_get(va_get(va_get(doc, "metadata"), "annotations"), "istio.io/dry-run");
    struct str action = json_str(va_get(doc, "spec"), "action");
    if (!m) {
        return;
    }
    bool good = false;
    for (size_t i = 0; i < array_len(words); i++) {
        good |= str_is(m->text, words[i]);
    }
    if (!str_is(json_str(doc, "kind"), "AuthorizationPolicy") || (action.n && !str_is(action, "ALLOW") && !str_is(action, "DENY"))) {
        va_error(v, m, "only AuthorizationPolicies of action ALLOW and DENY can be tried out");
    } else if (!good) {
        va_error(v, m, "\"%.*s\" is neither true nor false", STR_FMT(m->text));
    }
}

void va_authorization_policy(struct cp_validator *v, const struct json *spec)
{
    struct str action = json_str(spec, "action");
    bool custom = str_is(action, "CUSTOM"), rules = filled(spec, "rules");
    const struct json *provider = va_get(spec, "provider");
    va_scope(v, spec);
    if (!rules && (custom || str_is(action, "DENY"))) {
        va_error(v, va_get(spec, "action"), "%.*s without rules is never triggered; the rule {} stands for every request", STR_FMT(action));
    }
    if (custom && rules && !json_str(provider, "name").n) {
        va_error(v, provider ? provider : spec, "provider.name: missing, which action CUSTOM needs");
    }
    if (provider && !custom) {
        va_error(v, provider, "goes with action CUSTOM only");
    }
    for (const struct json *r = va_first(spec, "rules"); r; r = r->next) {
        check_rule(v, r, action);
        if (custom) {
            check_custom(v, r);
        }
    }
}
