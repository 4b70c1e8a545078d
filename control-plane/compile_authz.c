// SPDX-License-Identifier: Apache-2.0
// AuthorizationPolicies as RBAC filters, in istiod's shapes: names of policies, order of filters and conditions, and what becomes of HTTP
// conditions where a chain is TCP (a DENY goes without them, an ALLOW without the whole rule, so that what is left is stricter).
#include <stdio.h>
#include <string.h>

#include "control-plane/compile_int.h"

#define HTTP_RBAC "{name: envoy.filters.http.rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
#define TCP_RBAC "{name: envoy.filters.network.rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: tcp."
#define JWT_NAMESPACE "filter: envoy.filters.http.jwt_authn"

struct authz {
    struct compiler *k;
    bool tcp;
    enum cp_authz_action action;
};

// ---- matchers ----

// Text with every character that means something in a regular expression escaped.
static struct str quote_regex(struct compiler *k, struct str s)
{
    char *out = arena_alloc(&k->scratch, 2 * s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (strchr("\\.+*?()|[]{}^$", s.p[i])) {
            out[n++] = '\\';
        }
        out[n++] = s.p[i];
    }
    return str_n(out, n);
}

static const char *regex(struct compiler *k, struct str s)
{
    return arena_printf(&k->scratch, "safe_regex: {regex: %s}", cpc_q(k, s)).p;
}

static struct str without_star(struct str s, bool front)
{
    return front ? str_skip(s, 1) : str_n(s.p, s.n - 1);
}

// Members of a StringMatcher: "*" is anything but nothing, "*x" a suffix, "x*" a prefix.
static const char *string_match(struct compiler *k, struct str v)
{
    if (str_is(v, "*")) {
        return "safe_regex: {regex: .+}";
    }
    bool front = str_starts(v, STR("*")), back = !front && str_ends(v, STR("*"));
    return arena_printf(&k->scratch, "%s: %s", front ? "suffix" : back ? "prefix" : "exact", cpc_q(k, front || back ? without_star(v, front) : v)).p;
}

static const char *header_match(struct compiler *k, struct str name, struct str v, bool nocase)
{
    const char *n = cpc_q(k, name);
    if (str_is(v, "*")) {
        return arena_printf(&k->scratch, "header: {name: %s, present_match: true}", n).p;
    }
    return arena_printf(&k->scratch, "header: {name: %s, string_match: {%s%s}}", n, string_match(k, v), nocase ? ", ignore_case: true" : "").p;
}

static const char *ip_match(struct compiler *k, const char *member, struct str v)
{
    struct str bits = v, ip = str_split(&bits, '/');
    struct addr a = { 0 };
    char text[ADDR_TEXT_MAX];
    addr_parse_ip(ip, 0, &a); // checked when loaded, as the digits behind it
    return arena_printf(&k->scratch, "%s: {address_prefix: %s, prefix_len: %.*s}", member, cpc_q(k, str_c(addr_ip_text(&a, text))),
                        (int)(bits.p ? bits.n : a.family == AF_INET6 ? 3 : 2), bits.p ? bits.p : a.family == AF_INET6 ? "128" : "32").p;
}

static const char *authenticated(struct compiler *k, const char *match)
{
    return arena_printf(&k->scratch, "authenticated: {principal_name: {%s}}", match).p;
}

static const char *principal(struct compiler *k, struct str v)
{
    if (!str_is(v, "*") && str_starts(v, STR("*"))) {
        return authenticated(k, regex(k, arena_printf(&k->scratch, "spiffe://.*%.*s", STR_FMT(quote_regex(k, str_skip(v, 1))))));
    }
    return authenticated(k, string_match(k, str_is(v, "*") ? v : arena_printf(&k->scratch, "spiffe://%.*s", STR_FMT(v))));
}

static const char *service_account(struct compiler *k, struct str policy_ns, struct str v)
{
    ptrdiff_t slash = str_find(v, '/');
    struct str ns = slash < 0 ? policy_ns : str_n(v.p, (size_t)slash), name = slash < 0 ? v : str_skip(v, (size_t)slash + 1);
    return authenticated(k, regex(k, arena_printf(&k->scratch, "spiffe://.+/ns/%.*s/(.+/|)sa/%.*s(/.+)?", STR_FMT(quote_regex(k, ns)),
                                                  STR_FMT(quote_regex(k, name)))));
}

static const char *trust_domain(struct compiler *k, struct str v)
{
    ptrdiff_t star = str_find(v, '*');
    if (str_is(v, "*")) {
        return authenticated(k, "prefix: 'spiffe://'");
    }
    if (star < 0) {
        return authenticated(k, arena_printf(&k->scratch, "prefix: %s", cpc_qf(k, "spiffe://%.*s/", STR_FMT(v))).p);
    }
    return authenticated(k, regex(k, arena_printf(&k->scratch, "spiffe://%.*s[^/]*%.*s/.*", STR_FMT(quote_regex(k, str_n(v.p, (size_t)star))),
                                                  STR_FMT(quote_regex(k, str_skip(v, (size_t)star + 1))))));
}

static const char *source_namespace(struct compiler *k, struct str v)
{
    struct buf b = { 0 };
    buf_printf(&b, ".*/ns/");
    for (struct str rest = v; rest.p;) {
        struct str part = quote_regex(k, str_split(&rest, '*'));
        buf_printf(&b, "%.*s%s", STR_FMT(part), rest.p ? ".*" : "");
    }
    buf_printf(&b, "/.*");
    const char *out = authenticated(k, regex(k, buf_pullup(&b, buf_len(&b))));
    buf_clear(&b);
    return out;
}

static const char *path_match(struct compiler *k, struct str v)
{
    if (str_find_str(v, STR("{*}")) < 0 && str_find_str(v, STR("{**}")) < 0) {
        return arena_printf(&k->scratch, "url_path: {path: {%s}}", string_match(k, v)).p;
    }
    char *out = arena_alloc(&k->scratch, v.n + 1);
    size_t n = 0;
    for (struct str rest = v; rest.n;) {
        size_t stars = str_starts(rest, STR("{*}")) ? 1 : str_starts(rest, STR("{**}")) ? 2 : 0;
        memcpy(out + n, stars ? "**" : rest.p, stars ? stars : 1);
        n += stars ? stars : 1;
        rest = str_skip(rest, stars ? stars + 2 : 1);
    }
    return arena_printf(&k->scratch, "uri_template: {name: uri-template, typed_config: {'@type': "
                                     "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: %s}}",
                        cpc_q(k, str_n(out, n))).p;
}

// ---- claims of tokens, and metadata of other filters ----

static const char *claim_text(struct compiler *k, const char *claim, const char *match)
{
    return arena_printf(&k->scratch, "{metadata: {" JWT_NAMESPACE ", path: [{key: payload}, {key: %s}], value: {string_match: {%s}}}}", claim, match).p;
}

// "ISSUER/SUBJECT" with a * at one end.
static const char *request_principal(struct compiler *k, struct str v)
{
    static const char any[] = "safe_regex: {regex: .+}";
    size_t cut = v.n;
    while (cut && v.p[cut - 1] != '/') {
        cut--;
    }
    struct str iss = cut ? str_n(v.p, cut - 1) : v, sub = cut ? str_skip(v, cut) : str_n("", 0);
    const char *want_iss, *want_sub;
#define MATCH(kind, s) arena_printf(&k->scratch, kind ": %s", cpc_q(k, s)).p
    if (str_is(v, "*")) {
        want_iss = want_sub = any;
    } else if (str_starts(v, STR("*"))) {
        want_iss = !cut || str_is(iss, "*") ? any : MATCH("suffix", str_skip(iss, 1));
        want_sub = cut ? MATCH("exact", sub) : MATCH("suffix", str_skip(v, 1));
    } else if (str_ends(v, STR("*"))) {
        want_iss = cut ? MATCH("exact", iss) : MATCH("prefix", without_star(v, false));
        want_sub = !cut || str_is(sub, "*") ? any : MATCH("prefix", without_star(sub, false));
    } else {
        want_iss = MATCH("exact", iss);
        want_sub = MATCH("exact", sub);
    }
#undef MATCH
    return arena_printf(&k->scratch, "{and_ids: {ids: [%s, %s]}}", claim_text(k, "iss", want_iss), claim_text(k, "sub", want_sub)).p;
}

// One of several becomes itself.
static const char *join(struct compiler *k, const char *or, const char **v, size_t n)
{
    struct buf b = { 0 };
    if (n == 1) {
        return v[0];
    }
    buf_printf(&b, "{%s: [", or);
    for (size_t i = 0; i < n; i++) {
        buf_printf(&b, "%s%s", i ? ", " : "", v[i]);
    }
    buf_printf(&b, strstr(or, "{") ? "]}}" : "]}");
    const char *out = arena_str(&k->scratch, buf_pullup(&b, buf_len(&b))).p;
    buf_clear(&b);
    return out;
}

static const char *request_principals(struct compiler *k, const struct str *values, size_t n)
{
    const char **v = arena_array(&k->scratch, const char *, n + 1);
    for (size_t i = 0; i < n; i++) {
        v[i] = request_principal(k, values[i]);
    }
    return join(k, "or_ids: {ids", v, n);
}

// A ValueMatcher for one of the texts. lists: "[x]" means a list that holds x.
static const char *values_match(struct compiler *k, const struct str *values, size_t n, bool lists)
{
    const char **v = arena_array(&k->scratch, const char *, n + 1);
    for (size_t i = 0; i < n; i++) {
        bool list = lists && values[i].n >= 2 && values[i].p[0] == '[' && values[i].p[values[i].n - 1] == ']';
        struct str s = values[i];
        while (list && s.n && (s.p[0] == '[' || s.p[0] == ']')) {
            s = str_skip(s, 1);
        }
        while (list && s.n && (s.p[s.n - 1] == '[' || s.p[s.n - 1] == ']')) {
            s.n--;
        }
        v[i] = arena_printf(&k->scratch, list ? "{list_match: {one_of: {string_match: {%s}}}}" : "{string_match: {%s}}", string_match(k, s)).p;
    }
    return join(k, "or_match: {value_matchers", v, n);
}

static const char *path_segments(struct compiler *k, const char *first, const struct str *path, size_t n)
{
    struct buf b = { 0 };
    buf_printf(&b, "%s", first);
    for (size_t i = 0; i < n; i++) {
        buf_printf(&b, "%s{key: %s}", i || *first ? ", " : "", cpc_q(k, path[i]));
    }
    const char *out = arena_str(&k->scratch, buf_pullup(&b, buf_len(&b))).p;
    buf_clear(&b);
    return out;
}

// A claim that is such a text, or a list that holds one.
static const char *claim(struct compiler *k, const struct str *path, size_t path_count, const struct str *values, size_t n)
{
    const char *value = values_match(k, values, n, false);
    return arena_printf(&k->scratch, "{metadata: {" JWT_NAMESPACE ", path: [%s], value: {or_match: {value_matchers: [{list_match: {one_of: %s}}, %s]}}}}",
                        path_segments(k, "{key: payload}", path, path_count), value, value).p;
}

static const char *metadata(struct compiler *k, const struct cp_authz_condition *c, const struct str *values, size_t n)
{
    return arena_printf(&k->scratch, "{metadata: {filter: %s, path: [%s], value: %s}}", cpc_q(k, c->name), path_segments(k, "", c->path, c->path_count),
                        values_match(k, values, n, true)).p;
}

// ---- conditions ----

static bool only_http(enum cp_authz_key key)
{
    switch (key) {
    case CP_AUTHZ_HOST:
    case CP_AUTHZ_METHOD:
    case CP_AUTHZ_PATH:
    case CP_AUTHZ_REQUEST_PRINCIPAL:
    case CP_AUTHZ_AUDIENCES:
    case CP_AUTHZ_PRESENTER:
    case CP_AUTHZ_HEADER:
    case CP_AUTHZ_CLAIM:
        return true;
    default:
        return false;
    }
}

// Conditions whose values make one matcher. NULL: not one of these.
static const char *write_values(struct compiler *k, const struct cp_authz_condition *c, const struct str *v, size_t n)
{
    static const struct str aud = STR_INIT("aud"), azp = STR_INIT("azp");
    switch (c->key) {
    case CP_AUTHZ_REQUEST_PRINCIPAL:
        return request_principals(k, v, n);
    case CP_AUTHZ_AUDIENCES:
        return claim(k, &aud, 1, v, n);
    case CP_AUTHZ_PRESENTER:
        return claim(k, &azp, 1, v, n);
    case CP_AUTHZ_CLAIM:
        return claim(k, c->path, c->path_count, v, n);
    case CP_AUTHZ_METADATA:
        return metadata(k, c, v, n);
    default:
        return NULL;
    }
}

// Members of a Permission or Principal for one value.
static const char *write_value(struct compiler *k, const struct cp_authz_condition *c, struct str policy_ns, struct str v)
{
    switch (c->key) {
    case CP_AUTHZ_HOST:
        return header_match(k, STR(":authority"), v, true);
    case CP_AUTHZ_METHOD:
        return header_match(k, STR(":method"), v, false);
    case CP_AUTHZ_HEADER:
        return header_match(k, c->name, v, false);
    case CP_AUTHZ_PATH:
        return path_match(k, v);
    case CP_AUTHZ_PORT:
        return arena_printf(&k->scratch, "destination_port: %.*s", STR_FMT(v)).p; // digits, checked when loaded
    case CP_AUTHZ_DESTINATION_IP:
        return ip_match(k, "destination_ip", v);
    case CP_AUTHZ_SNI:
        return arena_printf(&k->scratch, "requested_server_name: {%s}", string_match(k, v)).p;
    case CP_AUTHZ_PRINCIPAL:
        return principal(k, v);
    case CP_AUTHZ_SERVICE_ACCOUNT:
        return service_account(k, policy_ns, v);
    case CP_AUTHZ_TRUST_DOMAIN:
        return trust_domain(k, v);
    case CP_AUTHZ_NAMESPACE:
        return source_namespace(k, v);
    case CP_AUTHZ_REMOTE_IP:
        return ip_match(k, "remote_ip", v);
    default:
        return ip_match(k, "direct_remote_ip", v);
    }
}

static const char *one_of(struct authz *z, const struct cp_authz_condition *c, struct str policy_ns, const struct str *v, size_t n)
{
    struct compiler *k = z->k;
    const char *whole = write_values(k, c, v, n);
    if (whole) {
        return whole;
    }
    struct buf b = { 0 };
    bool asks = c->key >= CP_AUTHZ_FIRST_PRINCIPAL;
    buf_printf(&b, "{%s: [", asks ? "or_ids: {ids" : "or_rules: {rules");
    for (size_t i = 0; i < n; i++) {
        buf_printf(&b, "%s{%s}", i ? ", " : "", write_value(k, c, policy_ns, v[i]));
    }
    buf_printf(&b, "]}}");
    const char *out = arena_str(&k->scratch, buf_pullup(&b, buf_len(&b))).p;
    buf_clear(&b);
    return out;
}

// Principals of this mesh are named by any of its trust domains: see cpc_authz_aliases.
static void aliases_of(struct compiler *k, enum cp_authz_key key, const struct str **v, size_t *n)
{
    if (key == CP_AUTHZ_PRINCIPAL) {
        *v = cpc_alias_principals(k, *v, *n, n);
    } else if (key == CP_AUTHZ_TRUST_DOMAIN) {
        *v = cpc_alias_domains(k, *v, *n, n);
    }
}

// false: the rule is for HTTP alone, and an ALLOW, so there is none of it on a TCP chain.
static bool write_all(struct authz *z, struct buf *b, const struct cp_authz_all *all, bool asks, struct str policy_ns)
{
    const char *sep = "", *not = asks ? "not_id" : "not_rule";
    buf_printf(b, asks ? "{and_ids: {ids: [" : "{and_rules: {rules: [");
    for (size_t i = 0; i < all->n; i++) {
        const struct cp_authz_condition *c = &all->v[i];
        const struct str *v = c->values, *w = c->not_values;
        size_t n = c->value_count, m = c->not_value_count;
        if (z->tcp && only_http(c->key)) {
            if (z->action == CP_AUTHZ_ALLOW) {
                return false;
            }
            continue;
        }
        aliases_of(z->k, c->key, &v, &n);
        aliases_of(z->k, c->key, &w, &m);
        if (n) {
            buf_printf(b, "%s%s", sep, one_of(z, c, policy_ns, v, n));
            sep = ", ";
        }
        if (m) {
            buf_printf(b, "%s{%s: %s}", sep, not, one_of(z, c, policy_ns, w, m));
            sep = ", ";
        }
    }
    buf_printf(b, *sep ? "]}}" : "{any: true}]}}");
    return true;
}

static bool write_rule(struct authz *z, struct buf *b, const struct cp_authz_rule *r, struct str policy_ns)
{
    buf_printf(b, "{permissions: [");
    for (size_t i = 0; i < r->to_count; i++) {
        buf_printf(b, "%s", i ? ", " : "");
        if (!write_all(z, b, &r->to[i], false, policy_ns)) {
            return false;
        }
    }
    buf_printf(b, "], principals: [");
    for (size_t i = 0; i < r->from_count; i++) {
        buf_printf(b, "%s", i ? ", " : "");
        if (!write_all(z, b, &r->from[i], true, policy_ns)) {
            return false;
        }
    }
    buf_printf(b, "]}");
    return true;
}

// ---- policies ----

static const struct str no_provider;

static const char *policy_name(struct compiler *k, const struct cp_authz *p, size_t rule, const char *suffix)
{
    bool custom = p->action == CP_AUTHZ_CUSTOM;
    return cpc_qf(k, "%s%.*s%sns[%.*s]-policy[%.*s]-rule[%zu]%s", custom ? "istio-ext-authz-" : "", STR_FMT(p->provider), custom ? "-" : "",
                  STR_FMT(p->meta.ns), STR_FMT(p->meta.name), rule, suffix);
}

// `{action: …, policies: {…}}`: the policies of a provider (empty but for CUSTOM) that are dry runs, or those that are not.
static void write_rules(struct authz *z, struct buf *b, const struct cpc_authz_list *l, struct str provider, bool dry_run, const char *suffix)
{
    static const char *const actions[] = { "ALLOW", "DENY", "LOG", "DENY" };
    const char *sep = "";
    buf_printf(b, "{action: %s, policies: {", actions[z->action]);
    for (size_t i = 0; i < l->n; i++) {
        const struct cp_authz *p = l->v[i];
        if (p->dry_run != dry_run || !str_eq(p->provider, provider)) {
            continue;
        }
        for (size_t r = 0; r < p->rule_count; r++) {
            struct buf one = { 0 };
            if (write_rule(z, &one, &p->rules[r], p->meta.ns)) {
                buf_printf(b, "%s%s: ", sep, policy_name(z->k, p, r, suffix));
                buf_move(b, &one, buf_len(&one));
                sep = ", ";
            }
            buf_clear(&one);
        }
        if (!p->rule_count) { // matches nothing
            buf_printf(b, "%s%s: {permissions: [{not_rule: {any: true}}], principals: [{not_id: {any: true}}]}", sep, policy_name(z->k, p, 0, suffix));
            sep = ", ";
        }
    }
    buf_printf(b, "}}");
}

static bool has(const struct cpc_authz_list *l, struct str provider, bool dry_run)
{
    bool found = false;
    for (size_t i = 0; i < l->n && !found; i++) {
        found = l->v[i]->dry_run == dry_run && str_eq(l->v[i]->provider, provider);
    }
    return found;
}

static void write_filter(struct authz *z, struct buf *b, const struct cpc_authz_list *l)
{
    if (!l->n) {
        return;
    }
    buf_printf(b, z->tcp ? TCP_RBAC : HTTP_RBAC);
    if (has(l, no_provider, false)) {
        buf_printf(b, ", rules: ");
        write_rules(z, b, l, no_provider, false, "");
    }
    if (has(l, no_provider, true)) {
        buf_printf(b, ", shadow_rules: ");
        write_rules(z, b, l, no_provider, true, "");
    }
    // istiod names it where there is nothing to try out as well
    bool deny = z->action == CP_AUTHZ_DENY && has(l, no_provider, true);
    buf_printf(b, ", shadow_rules_stat_prefix: istio_dry_run_%s_}}, ", deny ? "deny" : "allow");
}

// ---- CUSTOM ----

static const struct cp_provider *provider_of(const struct compiler *k, struct str name)
{
    const struct cp_provider *p = k->c->mesh.providers;
    while (!str_eq(p->name, name)) { // checked when loaded
        p++;
    }
    return p;
}

// Providers of a workload's policies, in byte order, each once.
static size_t providers_of(struct compiler *k, const struct cpc_authz_list *l, struct str **ret)
{
    struct str *v = arena_array(&k->scratch, struct str, l->n + 1);
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) {
        size_t at = 0;
        while (at < n && str_cmp(v[at], l->v[i]->provider) < 0) {
            at++;
        }
        if (at == n || !str_eq(v[at], l->v[i]->provider)) {
            memmove(v + at + 1, v + at, (n - at) * sizeof(*v));
            v[at] = l->v[i]->provider;
            n++;
        }
    }
    *ret = v;
    return n;
}

static void write_custom(struct authz *z, struct buf *b, const struct cpc_authz_list *l)
{
    struct str *names;
    size_t n = providers_of(z->k, l, &names);
    for (size_t i = 0; i < n; i++) {
        const struct cp_provider *p = provider_of(z->k, names[i]);
        if (n > 1) { // as istiod: a workload has one provider, and which of them is meant nobody can tell
            buf_printf(b, "%s, rules: ", z->tcp ? TCP_RBAC : HTTP_RBAC);
            write_rules(z, b, l, names[i], false, "-deny-due-to-bad-CUSTOM-action");
            buf_printf(b, "}}, ");
        } else if (!z->tcp || p->grpc) { // HTTP providers have no say in TCP connections
            buf_printf(b, "%s, shadow_rules: ", z->tcp ? TCP_RBAC : HTTP_RBAC);
            write_rules(z, b, l, names[i], false, "");
            buf_printf(b, ", shadow_rules_stat_prefix: istio_ext_authz_}}, ");
            cpc_ext_authz(z->k, b, p, z->tcp);
        }
    }
}

// ---- which policies, and the filters ----

bool cpc_policy_applies(const struct compiler *k, const struct cp_meta *m, const struct cp_labels *selector, bool targets, bool root)
{
    return !targets && (root ? str_is(m->ns, CPC_ROOT_NAMESPACE) : str_eq(m->ns, k->node->ns) && !str_is(m->ns, CPC_ROOT_NAMESPACE)) &&
           cp_labels_match(selector, &k->node->labels);
}

// The mesh's own policies, then those of the namespace.
static void collect(struct compiler *k, enum cp_authz_action action, struct cpc_authz_list *ret)
{
    ret->v = arena_array(&k->scratch, const struct cp_authz *, k->c->authz_count + 1);
    for (int root = 1; root >= 0; root--) {
        for (size_t i = 0; i < k->c->authz_count; i++) {
            const struct cp_authz *p = &k->c->authz[i];
            if (p->action == action && cpc_policy_applies(k, &p->meta, &p->selector, p->targets, root)) {
                ret->v[ret->n++] = p;
            }
        }
    }
}

static struct str write_filters(struct compiler *k, bool tcp)
{
    static const enum cp_authz_action order[] = { CP_AUTHZ_AUDIT, CP_AUTHZ_DENY, CP_AUTHZ_ALLOW };
    struct buf b = { 0 };
    struct cpc_authz_list l = { 0 };
    collect(k, CP_AUTHZ_CUSTOM, &l);
    write_custom(&(struct authz){ .k = k, .tcp = tcp, .action = CP_AUTHZ_CUSTOM }, &b, &l);
    if (!tcp) {
        cpc_jwt_filter(k, &b);
    }
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        l = (struct cpc_authz_list){ 0 };
        collect(k, order[i], &l);
        write_filter(&(struct authz){ .k = k, .tcp = tcp, .action = order[i] }, &b, &l);
    }
    struct str out = arena_str(&k->work, buf_pullup(&b, buf_len(&b)));
    buf_clear(&b);
    return out;
}

void cpc_policy_filters(struct compiler *k)
{
    k->http_policy = write_filters(k, false);
    k->tcp_policy = write_filters(k, true);
    arena_reset(&k->scratch, true);
}
