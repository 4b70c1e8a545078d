// SPDX-License-Identifier: Apache-2.0
// RequestAuthentications as one jwt_authn filter, in istiod's shape: a provider for each rule, in the order of issuers. A request may come without
// a token, but not with a wrong one. Keys behind a jwksUri are fetched by the proxy (docs/decisions/0008-keys-by-the-proxy.md).
#include <stdlib.h>

#include "control-plane/compile_int.h"

#define JWT_URL "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"

struct rules {
    const struct cp_jwt_rule **v;
    size_t n;
};

// Those of the namespace first; by issuer, and otherwise in that order.
static struct rules collect(struct compiler *k)
{
    size_t count = 0;
    for (size_t i = 0; i < k->c->request_authentication_count; i++) {
        count += k->c->request_authentications[i].rule_count;
    }
    struct rules r = { .v = arena_array(&k->scratch, const struct cp_jwt_rule *, count + 1) };
    for (int root = 0; root <= 1; root++) {
        for (size_t i = 0; i < k->c->request_authentication_count; i++) {
            const struct cp_request_authentication *p = &k->c->request_authentications[i];
            for (size_t x = 0; cpc_policy_applies(k, &p->meta, &p->selector, p->targets, root) && x < p->rule_count; x++) {
                size_t at = r.n++;
                for (; at && str_cmp(r.v[at - 1]->issuer, p->rules[x].issuer) > 0; at--) {
                    r.v[at] = r.v[at - 1];
                }
                r.v[at] = &p->rules[x];
            }
        }
    }
    return r;
}

static void write_strings(struct compiler *k, struct buf *b, const char *member, const struct str *v, size_t n)
{
    if (!n) {
        return;
    }
    buf_printf(b, ", %s: [", member);
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s%s", i ? ", " : "", cpc_q(k, v[i]));
    }
    buf_printf(b, "]");
}

static int by_text(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

// Claims that hold several words. Two always do.
static void write_split_claims(struct compiler *k, struct buf *b, const struct cp_jwt_rule *r)
{
    struct str *v = arena_array(&k->scratch, struct str, r->space_delimited_count + 2);
    size_t n = 0;
    v[n++] = STR("permission");
    v[n++] = STR("scope");
    for (size_t i = 0; i < r->space_delimited_count; i++) {
        bool there = false;
        for (size_t x = 0; x < n && !there; x++) {
            there = str_eq(v[x], r->space_delimited[i]);
        }
        if (!there) {
            v[n++] = r->space_delimited[i];
        }
    }
    qsort(v, n, sizeof(*v), by_text);
    buf_printf(b, ", normalize_payload_in_metadata: {space_delimited_claims: [");
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s%s", i ? ", " : "", cpc_q(k, v[i]));
    }
    buf_printf(b, "]}");
}

// ---- where keys come from ----

// The service of a jwksUri, and its port, where there is one that this proxy has a cluster for.
static const struct cp_service *keys_service(const struct compiler *k, const struct cp_jwt_rule *r, const struct cp_port **ret)
{
    const struct cp_service *s = cp_find_service(k->c, r->host, str_n(NULL, 0));
    for (size_t i = 0; s && cpc_view(k, s)->visible && i < s->port_count; i++) {
        if (s->ports[i].number == r->port) {
            *ret = &s->ports[i];
            return s;
        }
    }
    return NULL;
}

// The service's own cluster can be asked: in plain text, or by TLS that a rule says is made here.
static bool asks_service(const struct compiler *k, const struct cp_jwt_rule *r)
{
    const struct cp_port *p;
    const struct cp_service *s = keys_service(k, r, &p);
    if (!s || !r->https) {
        return s;
    }
    struct cp_policy policy = cpc_policy(cpc_view(k, s)->rule, NULL, p->number);
    return policy.tls && (policy.tls->mode == CP_TLS_SIMPLE || policy.tls->mode == CP_TLS_MUTUAL);
}

static struct str keys_cluster(struct compiler *k, const struct cp_jwt_rule *r)
{
    return arena_printf(&k->scratch, "%s|%u||%.*s", asks_service(k, r) ? "outbound" : r->https ? "jwks-tls" : "jwks", r->port, STR_FMT(r->host));
}

static void write_keys(struct compiler *k, struct buf *b, const struct cp_jwt_rule *r)
{
    if (r->jwks.n) {
        buf_printf(b, ", local_jwks: {inline_string: %s}", cpc_q(k, r->jwks));
        return;
    }
    buf_printf(b, ", remote_jwks: {http_uri: {uri: %s, cluster: %s, timeout: %.*s}, cache_duration: 300s}", cpc_q(k, r->jwks_uri),
               cpc_q(k, keys_cluster(k, r)), (int)(r->timeout.n ? r->timeout.n : 2), r->timeout.n ? r->timeout.p : "5s");
}

static bool is_first(const struct rules *r, size_t i)
{
    for (size_t x = 0; x < i; x++) {
        if (!r->v[x]->jwks.n && r->v[x]->https == r->v[i]->https && r->v[x]->port == r->v[i]->port && str_eq(r->v[x]->host, r->v[i]->host)) {
            return false;
        }
    }
    return true;
}

// A cluster for one host of keys that no service stands for: by its name, or its address, with TLS and the system's roots where the URI says so.
static int add_cluster(struct compiler *k, const struct cp_jwt_rule *r)
{
    struct buf b = { 0 };
    struct addr ip;
    struct str name = arena_str(&k->set->arena, keys_cluster(k, r));
    const struct cp_port *p = NULL;
    const struct cp_service *s = keys_service(k, r, &p);
    static const struct cp_labels no_labels;
    static const struct cp_policy no_policy;
    bool fixed = s ? s->resolution == CP_STATIC : addr_parse_ip(r->host, 0, &ip);
    buf_printf(&b, "{name: %s, alt_stat_name: %s, type: %s, connect_timeout: 10s", cpc_q(k, name), cpc_qf(k, "%.*s;", STR_FMT(name)),
               fixed ? "STATIC" : "STRICT_DNS");
    if (!fixed) {
        buf_printf(&b, ", dns_refresh_rate: 60s, respect_dns_ttl: true, dns_lookup_family: %s", k->node->ip.family == AF_INET6 ? "AUTO" : "V4_ONLY");
    }
    buf_printf(&b, ", load_assignment: ");
    if (s && (fixed || s->endpoint_count)) {
        cpc_assignment(k, &b, name, s, p, &no_labels, &no_policy);
    } else {
        buf_printf(&b, "{cluster_name: %s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %u}}}}]}]}",
                   cpc_q(k, name), cpc_q(k, r->host), r->port);
    }
    cpc_limits(&b, &no_policy);
    if (r->https) {
        cpc_file_tls(k, &b, r->host);
    }
    buf_printf(&b, "}");
    return cpc_add(k, CP_CDS, name, &b);
}

int cpc_jwt_clusters(struct compiler *k)
{
    struct rules r = collect(k);
    struct rules kept = { .v = arena_array(&k->work, const struct cp_jwt_rule *, r.n + 1) }; // scratch is emptied by each cluster
    for (size_t i = 0; i < r.n; i++) {
        if (!r.v[i]->jwks.n && is_first(&r, i) && !asks_service(k, r.v[i])) {
            kept.v[kept.n++] = r.v[i];
        }
    }
    for (size_t i = 0; i < kept.n; i++) {
        if (add_cluster(k, kept.v[i])) {
            return k->err->code;
        }
    }
    return 0;
}

// ---- the filter ----

static void write_provider(struct compiler *k, struct buf *b, const struct cp_jwt_rule *r)
{
    buf_printf(b, "{issuer: %s, payload_in_metadata: payload", cpc_q(k, r->issuer));
    write_split_claims(k, b, r);
    write_strings(k, b, "audiences", r->audiences, r->audience_count);
    write_strings(k, b, "from_params", r->params, r->param_count);
    write_strings(k, b, "from_cookies", r->cookies, r->cookie_count);
    if (r->forward) {
        buf_printf(b, ", forward: true");
    }
    if (r->payload_header.n) {
        buf_printf(b, ", forward_payload_header: %s", cpc_q(k, r->payload_header));
    }
    for (size_t i = 0; i < r->claim_count; i++) {
        buf_printf(b, "%s{header_name: %s, claim_name: %s}", i ? ", " : ", claim_to_headers: [", cpc_q(k, r->claims[i].key), cpc_q(k, r->claims[i].value));
    }
    buf_printf(b, r->claim_count ? "]" : "");
    for (size_t i = 0; i < r->header_count; i++) {
        buf_printf(b, "%s{name: %s, value_prefix: %s}", i ? ", " : ", from_headers: [", cpc_q(k, r->headers[i].key), cpc_q(k, r->headers[i].value));
    }
    buf_printf(b, r->header_count ? "]" : "");
    write_keys(k, b, r);
    buf_printf(b, "}");
}

static void write_optional(struct buf *b, size_t i)
{
    buf_printf(b, "{requires_any: {requirements: [{provider_name: origins-%zu}, {allow_missing: {}}]}}", i);
}

// One provider: its token, or none. Several: the token of one of them, or of each either a good one or none (they may look in different places).
static void write_requirement(struct buf *b, size_t n)
{
    if (n == 1) {
        write_optional(b, 0);
        return;
    }
    buf_printf(b, "{requires_any: {requirements: [");
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "{provider_name: origins-%zu}, ", i);
    }
    buf_printf(b, "{requires_all: {requirements: [");
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s", i ? ", " : "");
        write_optional(b, i);
    }
    buf_printf(b, "]}}]}}");
}

void cpc_jwt_filter(struct compiler *k, struct buf *b)
{
    struct rules r = collect(k);
    if (!r.n) {
        return;
    }
    buf_printf(b, "{name: envoy.filters.http.jwt_authn, typed_config: {'@type': " JWT_URL ", bypass_cors_preflight: true, providers: {");
    for (size_t i = 0; i < r.n; i++) {
        buf_printf(b, "%sorigins-%zu: ", i ? ", " : "", i);
        write_provider(k, b, r.v[i]);
    }
    buf_printf(b, "}, rules: [{match: {prefix: /}, requires: ");
    write_requirement(b, r.n);
    buf_printf(b, "}]}}, ");
}
