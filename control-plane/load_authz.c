// SPDX-License-Identifier: Apache-2.0
// AuthorizationPolicy. What a rule says is kept as lists of conditions in the order in which istiod writes them. Nothing is ever left out: what
// cannot be understood here is a mistake, since a policy without one of its conditions lets pass, or stops, what it should not.
#include <errno.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"

enum { RULES_MAX = 4096 };

struct field {
    const char *name, *not_name;
    enum cp_authz_key key;
};

static const struct field source_fields[] = {
    { "principals", "notPrincipals", CP_AUTHZ_PRINCIPAL },
    { "requestPrincipals", "notRequestPrincipals", CP_AUTHZ_REQUEST_PRINCIPAL },
    { "serviceAccounts", "notServiceAccounts", CP_AUTHZ_SERVICE_ACCOUNT },
    { "trustDomains", "notTrustDomains", CP_AUTHZ_TRUST_DOMAIN },
    { "namespaces", "notNamespaces", CP_AUTHZ_NAMESPACE },
    { "remoteIpBlocks", "notRemoteIpBlocks", CP_AUTHZ_REMOTE_IP },
    { "ipBlocks", "notIpBlocks", CP_AUTHZ_SOURCE_IP },
};
static const struct field operation_fields[] = {
    { "hosts", "notHosts", CP_AUTHZ_HOST },
    { "methods", "notMethods", CP_AUTHZ_METHOD },
    { "paths", "notPaths", CP_AUTHZ_PATH },
    { "ports", "notPorts", CP_AUTHZ_PORT },
};

#define SOURCE_MEMBERS "principals notPrincipals requestPrincipals notRequestPrincipals serviceAccounts notServiceAccounts trustDomains "           \
                       "notTrustDomains namespaces notNamespaces remoteIpBlocks notRemoteIpBlocks ipBlocks notIpBlocks"
#define OPERATION_MEMBERS "hosts notHosts methods notMethods paths notPaths ports notPorts"

// ---- when ----

// "request.auth.claims[a][b]": the names in brackets. Where brackets stand within a name, the outermost ones hold one name, as in Istio.
static int take_claims(struct loader *l, struct str s, struct cp_authz_condition *c)
{
    c->path = arena_array(l->a, struct str, s.n / 2 + 1);
    for (struct str rest = s; rest.n;) {
        ptrdiff_t end = str_find(rest, ']'), inner = str_find(str_skip(rest, 1), '[');
        if (rest.p[0] != '[' || end < 0 || (inner >= 0 && inner + 1 < end)) {
            c->path[0] = str_n(s.p + 1, s.n - 2);
            c->path_count = 1;
            return 0;
        }
        c->path[c->path_count++] = str_n(rest.p + 1, (size_t)end - 1);
        rest = str_skip(rest, (size_t)end + 1);
    }
    return 0;
}

// "experimental.envoy.filters.NAME[KEY]"
static int take_metadata(struct loader *l, struct str key, struct cp_authz_condition *c)
{
    struct str rest = str_skip(key, sizeof("experimental.") - 1);
    c->name = str_split(&rest, '[');
    c->path = arena_array(l->a, struct str, 1);
    c->path[c->path_count++] = str_n(rest.p, rest.n - 1); // ends with ']'
    return 0;
}

static bool in_brackets(struct str s)
{
    return s.n > 2 && s.p[0] == '[' && s.p[s.n - 1] == ']';
}

static int take_key(struct loader *l, const struct json *n, struct str key, struct cp_authz_condition *c)
{
    static const struct {
        const char *name;
        enum cp_authz_key key;
    } plain[] = {
        { "destination.ip", CP_AUTHZ_DESTINATION_IP },      { "destination.port", CP_AUTHZ_PORT },
        { "connection.sni", CP_AUTHZ_SNI },                 { "source.ip", CP_AUTHZ_SOURCE_IP },
        { "remote.ip", CP_AUTHZ_REMOTE_IP },                { "source.namespace", CP_AUTHZ_NAMESPACE },
        { "source.trustDomain", CP_AUTHZ_TRUST_DOMAIN },    { "source.serviceAccount", CP_AUTHZ_SERVICE_ACCOUNT },
        { "source.principal", CP_AUTHZ_PRINCIPAL },         { "request.auth.principal", CP_AUTHZ_REQUEST_PRINCIPAL },
        { "request.auth.audiences", CP_AUTHZ_AUDIENCES },   { "request.auth.presenter", CP_AUTHZ_PRESENTER },
    };
    for (size_t i = 0; i < array_len(plain); i++) {
        if (str_is(key, plain[i].name)) {
            c->key = plain[i].key;
            return 0;
        }
    }
    struct str header = STR("request.headers"), claim = STR("request.auth.claims"), filter = STR("experimental.envoy.filters.");
    if (str_starts(key, header) && in_brackets(str_skip(key, header.n))) {
        c->key = CP_AUTHZ_HEADER;
        c->name = str_n(key.p + header.n + 1, key.n - header.n - 2);
        return 0;
    }
    if (str_starts(key, claim) && in_brackets(str_skip(key, claim.n))) {
        c->key = CP_AUTHZ_CLAIM;
        return take_claims(l, str_skip(key, claim.n), c);
    }
    ptrdiff_t open = str_find(key, '[');
    if (str_starts(key, filter) && open > (ptrdiff_t)filter.n && in_brackets(str_skip(key, (size_t)open))) {
        c->key = CP_AUTHZ_METADATA;
        return take_metadata(l, key, c);
    }
    return ld_fail(l, json_get(n, "key") ? json_get(n, "key") : n, "\"%.*s\" is no attribute that conditions know", STR_FMT(key));
}

static int load_when(struct loader *l, const struct json *n, struct cp_authz_all *asks, struct cp_authz_all *asked)
{
    const struct json *list = NULL;
    if (ld_list(l, n, "when", &list)) {
        return -EINVAL;
    }
    asks->v = arena_array(l->a, struct cp_authz_condition, (list ? list->count : 0) + 1);
    asked->v = arena_array(l->a, struct cp_authz_condition, (list ? list->count : 0) + 1);
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        struct cp_authz_condition c = { .key = CP_AUTHZ_HOST };
        struct str key = { 0 };
        if (ld_members(l, x, "key values notValues") || ld_str(l, x, "key", &key) || ld_strs(l, x, "values", &c.values, &c.value_count) ||
            ld_strs(l, x, "notValues", &c.not_values, &c.not_value_count) || take_key(l, x, key, &c)) {
            return -EINVAL;
        }
        if (!c.value_count && !c.not_value_count) {
            return ld_fail(l, x, "when: values or notValues are needed for \"%.*s\"", STR_FMT(key));
        }
        struct cp_authz_all *to = c.key < CP_AUTHZ_FIRST_PRINCIPAL ? asked : asks;
        to->v[to->n++] = c;
    }
    return 0;
}

// ---- from and to ----

static int load_fields(struct loader *l, const struct json *n, const struct field *f, size_t count, const struct cp_authz_all *when,
                       struct cp_authz_all *ret)
{
    ret->v = arena_array(l->a, struct cp_authz_condition, count + when->n + 1);
    for (size_t i = 0; i < count && n; i++) {
        struct cp_authz_condition c = { .key = f[i].key };
        if (ld_strs(l, n, f[i].name, &c.values, &c.value_count) || ld_strs(l, n, f[i].not_name, &c.not_values, &c.not_value_count)) {
            return -EINVAL;
        }
        if (c.value_count || c.not_value_count) {
            ret->v[ret->n++] = c;
        }
    }
    for (size_t i = 0; i < when->n; i++) {
        ret->v[ret->n++] = when->v[i];
    }
    return 0;
}

static int load_list(struct loader *l, const struct json *rule, bool from, const struct cp_authz_all *when, struct cp_authz_all **ret, size_t *ret_n)
{
    const char *key = from ? "from" : "to", *inner = from ? "source" : "operation";
    const struct field *f = from ? source_fields : operation_fields;
    size_t count = from ? array_len(source_fields) : array_len(operation_fields);
    const struct json *list = NULL;
    if (ld_list(l, rule, key, &list)) {
        return -EINVAL;
    }
    *ret = arena_array(l->a, struct cp_authz_all, (list ? list->count : 0) + 1);
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        const struct json *n = NULL;
        if (ld_members(l, x, inner) || ld_object(l, x, inner, &n)) {
            return -EINVAL;
        }
        if (!n) {
            return ld_fail(l, x, "%s: %s is missing", key, inner);
        }
        if (ld_members(l, n, from ? SOURCE_MEMBERS : OPERATION_MEMBERS) || load_fields(l, n, f, count, when, &(*ret)[(*ret_n)++])) {
            return -EINVAL;
        }
    }
    return *ret_n ? 0 : load_fields(l, NULL, f, count, when, &(*ret)[(*ret_n)++]);
}

static int load_rule(struct loader *l, const struct json *n, struct cp_authz_rule *r)
{
    struct cp_authz_all asks = { 0 }, asked = { 0 };
    if (ld_members(l, n, "from to when") || load_when(l, n, &asks, &asked) || load_list(l, n, true, &asks, &r->from, &r->from_count) ||
        load_list(l, n, false, &asked, &r->to, &r->to_count)) {
        return -EINVAL;
    }
    return 0;
}

// ---- policies ----

int ld_policy_scope(struct loader *l, const struct json *spec, struct cp_labels *ret_selector, bool *ret_targets)
{
    const struct json *sel = NULL, *one = NULL, *refs = NULL;
    if (ld_object(l, spec, "selector", &sel) || ld_object(l, spec, "targetRef", &one) || ld_list(l, spec, "targetRefs", &refs) ||
        (sel && (ld_members(l, sel, "matchLabels") || ld_labels(l, sel, "matchLabels", ret_selector))) ||
        (one && ld_members(l, one, "group kind name namespace"))) {
        return -EINVAL;
    }
    for (const struct json *x = refs ? refs->first : NULL; x; x = x->next) {
        if (ld_members(l, x, "group kind name namespace")) {
            return -EINVAL;
        }
    }
    *ret_targets = one || (refs && refs->count);
    return 0;
}

// ParseBool of Go; what is none of its words is refused by the validation.
static bool is_dry_run(const struct loader *l)
{
    static const char *const yes[] = { "1", "t", "T", "TRUE", "true", "True" };
    const struct json *m = json_get(l->annotations, "istio.io/dry-run");
    for (size_t i = 0; i < array_len(yes); i++) {
        if (m && str_is(m->text, yes[i])) {
            return true;
        }
    }
    return false;
}

int ld_authorization_policy(struct loader *l, const struct json *spec)
{
    struct cp_authz p = { .meta = l->meta };
    const struct json *rules = NULL, *provider = NULL;
    int action = CP_AUTHZ_ALLOW;
    if (ld_members(l, spec, "selector targetRef targetRefs action provider rules") || ld_policy_scope(l, spec, &p.selector, &p.targets) ||
        ld_word(l, spec, "action", "ALLOW DENY AUDIT CUSTOM", &action) || ld_object(l, spec, "provider", &provider) ||
        (provider && (ld_members(l, provider, "name") || ld_str(l, provider, "name", &p.provider))) || ld_list(l, spec, "rules", &rules)) {
        return -EINVAL;
    }
    p.dry_run = is_dry_run(l);
    p.action = (enum cp_authz_action)action;
    if (rules && rules->count > RULES_MAX) {
        return ld_fail(l, rules, "more than %d rules", RULES_MAX);
    }
    p.rules = arena_array(l->a, struct cp_authz_rule, (rules ? rules->count : 0) + 1);
    for (const struct json *x = rules ? rules->first : NULL; x; x = x->next) {
        if (load_rule(l, x, &p.rules[p.rule_count++])) {
            return -EINVAL;
        }
    }
    *(struct cp_authz *)ld_grow(l, (void **)&l->c->authz, &l->c->authz_count, &l->authz_cap, sizeof(p)) = p;
    return 0;
}
