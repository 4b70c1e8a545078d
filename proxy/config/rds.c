// SPDX-License-Identifier: Apache-2.0
// route.v3.RouteConfiguration → struct route_table.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "envoy/extensions/path/match/uri_template/v3/uri_template_match.pb-c.h"
#include "envoy/extensions/path/rewrite/uri_template/v3/uri_template_rewrite.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/access_log/access_log.h"
#include "proxy/config/build.h"
#include "proxy/filters/http/parse_fields.h"
#include "proxy/filters/http/rate_actions.h"
#include "proxy/model/uri_template.h"

typedef Envoy__Config__Route__V3__RouteConfiguration route_config;
typedef Envoy__Config__Route__V3__Route route_msg;
typedef Envoy__Config__Route__V3__RouteAction route_action;
typedef Envoy__Config__Route__V3__VirtualHost vhost_msg;
typedef Envoy__Config__Core__V3__HeaderValueOption header_option;

enum { ROUTES_MAX = 100000, DIRECT_BODY_MAX = 1024 * 1024 };

int build_header_adds(size_t n, header_option *const *v, const char *field, struct arena *a, struct header_add **ret, size_t *ret_count,
                      struct err *err)
{
    return parse_header_adds(n, v, field, a, ret, ret_count, err);
}

static int build_header_ops(size_t n_add, header_option *const *add, size_t n_remove, char *const *rm, const char *field, struct arena *a,
                            struct header_ops *ret, struct err *err)
{
    char name[64];
    snprintf(name, sizeof(name), "%s_to_add", field);
    if (build_header_adds(n_add, add, name, a, &ret->add, &ret->add_count, err)) {
        return err->code;
    }
    ret->remove = n_remove ? arena_array(a, struct str, n_remove) : NULL;
    for (size_t i = 0; i < n_remove; i++) {
        ret->remove[i] = build_str(a, rm[i]);
        if (!build_header_name_ok(ret->remove[i])) {
            return cfg_fail(err, "headers_to_remove", "%s: \"%s\" is no name of a field", field, rm[i]);
        }
    }
    ret->remove_count = n_remove;
    return 0;
}

// Both directions of any message that has the four fields.
#define BUILD_HEADER_OPS(m, a, req, resp, err)                                                                         \
    (build_header_ops((m)->n_request_headers_to_add, (m)->request_headers_to_add, (m)->n_request_headers_to_remove,    \
                      (m)->request_headers_to_remove, "request_headers", (a), (req), (err)) ||                         \
     build_header_ops((m)->n_response_headers_to_add, (m)->response_headers_to_add, (m)->n_response_headers_to_remove, \
                      (m)->response_headers_to_remove, "response_headers", (a), (resp), (err)))

static struct regex *path_regex(struct str pattern, struct arena *a, struct err *err)
{
    struct regex *re = NULL;
    const Envoy__Type__Matcher__V3__RegexMatcher m = { .regex = (char *)(uintptr_t)arena_strdup(a, arena_str(a, pattern).p) };
    return build_regex(&m, a, &re, err) ? NULL : re;
}

static int build_template(struct config_ctx *ctx, const Envoy__Config__Core__V3__TypedExtensionConfig *x, struct route *r,
                          struct uri_template *ret, struct err *err)
{
    Envoy__Extensions__Path__Match__UriTemplate__V3__UriTemplateMatchConfig *t = NULL;
    struct err e = { 0 };
    if (!x->typed_config || pb_any_unpack_whole_as(Envoy__Extensions__Path__Match__UriTemplate__V3__UriTemplateMatchConfig,
                                             envoy__extensions__path__match__uri_template__v3__uri_template_match_config,
                                             x->typed_config, ctx->scratch, &t, &e)) {
        return cfg_fail(err, "path_match_policy.typed_config", "%.900s", x->typed_config ? e.msg : "missing");
    }
    r->path_kind = PATH_TEMPLATE;
    r->path = build_str(ctx->arena, t->path_template);
    if (uri_template_parse(r->path, ctx->arena, ret, &e)) {
        return cfg_fail(err, "path_match_policy.typed_config.path_template", "%.900s", e.msg);
    }
    r->path_re = path_regex(ret->regex, ctx->arena, err);
    return r->path_re ? 0 : cfg_in(err, "path_match_policy.typed_config.path_template");
}

static int build_path(struct config_ctx *ctx, const Envoy__Config__Route__V3__RouteMatch *m, struct route *r, struct err *err)
{
    struct arena *a = ctx->arena;
    switch (m->path_specifier_case) {
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_MATCH__PATH_SPECIFIER_PREFIX:
        r->path_kind = PATH_PREFIX;
        r->path = build_str(a, m->prefix);
        return 0;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_MATCH__PATH_SPECIFIER_PATH:
        r->path_kind = PATH_EXACT;
        r->path = build_str(a, m->path);
        return 0;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_MATCH__PATH_SPECIFIER_PATH_SEPARATED_PREFIX:
        r->path_kind = PATH_SEPARATED_PREFIX;
        r->path = build_str(a, m->path_separated_prefix);
        if (r->path.n < 2 || r->path.p[r->path.n - 1] == '/' || strpbrk(m->path_separated_prefix, "?#")) {
            return cfg_fail(err, "path_separated_prefix", "\"%s\" must have two bytes or more, no ? or #, and no / at its end", m->path_separated_prefix);
        }
        return 0;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_MATCH__PATH_SPECIFIER_SAFE_REGEX:
        r->path_kind = PATH_REGEX;
        r->path = build_str(a, m->safe_regex->regex);
        return build_regex(m->safe_regex, a, &r->path_re, err) ? cfg_in(err, "safe_regex") : 0;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_MATCH__PATH_SPECIFIER_CONNECT_MATCHER:
        r->path_kind = PATH_CONNECT;
        return 0;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_MATCH__PATH_SPECIFIER_PATH_MATCH_POLICY:
        return build_template(ctx, m->path_match_policy, r, &(struct uri_template){ 0 }, err);
    default:
        return cfg_fail(err, "path_specifier", "one of prefix, path, safe_regex, path_separated_prefix is needed");
    }
}

static int build_query(const Envoy__Config__Route__V3__QueryParameterMatcher *m, struct arena *a, struct query_matcher *q, struct err *err)
{
    q->name = build_str(a, m->name);
    if (!q->name.n) {
        return cfg_fail(err, "name", "missing");
    }
    if (m->query_parameter_match_specifier_case ==
        ENVOY__CONFIG__ROUTE__V3__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_STRING_MATCH) {
        return build_string_matcher(m->string_match, a, &q->string, err);
    }
    q->present_only = true;
    q->want_present = m->query_parameter_match_specifier_case !=
                          ENVOY__CONFIG__ROUTE__V3__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_PRESENT_MATCH ||
                      m->present_match;
    return 0;
}

static int build_cookies(const Envoy__Config__Route__V3__RouteMatch *m, struct arena *a, struct route *r, struct err *err)
{
    r->cookies = m->n_cookies ? arena_array(a, struct query_matcher, m->n_cookies) : NULL;
    r->cookie_inverts = m->n_cookies ? arena_array(a, bool, m->n_cookies) : NULL;
    for (size_t i = 0; i < m->n_cookies; i++, r->cookie_count++) {
        r->cookies[i].name = build_str(a, m->cookies[i]->name);
        r->cookie_inverts[i] = m->cookies[i]->invert_match;
        if (!m->cookies[i]->name[0] || !m->cookies[i]->string_match) {
            return cfg_fail(err, "cookies", "entry %zu needs name and string_match", i);
        }
        if (build_string_matcher(m->cookies[i]->string_match, a, &r->cookies[i].string, err)) {
            return cfg_in(err, "cookies[%zu].string_match", i);
        }
    }
    return 0;
}

// dynamic_metadata: texts that listener filters found.
static int build_facts(const Envoy__Config__Route__V3__RouteMatch *m, struct arena *a, struct route *r, struct err *err)
{
    r->facts = m->n_dynamic_metadata ? arena_array(a, struct fact_matcher, m->n_dynamic_metadata) : NULL;
    for (size_t i = 0; i < m->n_dynamic_metadata; i++, r->fact_count++) {
        const Envoy__Type__Matcher__V3__MetadataMatcher *x = m->dynamic_metadata[i];
        struct fact_matcher *f = &r->facts[i];
        if (!x->filter[0] || !x->n_path || !x->value) {
            return cfg_fail(err, "dynamic_metadata", "entry %zu needs filter, value and a path", i);
        }
        f->space = build_str(a, x->filter);
        f->key = build_str(a, x->path[0]->key);
        f->path = x->n_path > 1 ? arena_array(a, struct str, x->n_path) : NULL;
        for (size_t k = 0; k < x->n_path && x->n_path > 1; k++) {
            f->path[f->path_count++] = build_str(a, x->path[k]->key);
        }
        f->invert = x->invert;
        switch (x->value->match_pattern_case) {
        case ENVOY__TYPE__MATCHER__V3__VALUE_MATCHER__MATCH_PATTERN_STRING_MATCH:
            if (build_string_matcher(x->value->string_match, a, &f->string, err)) {
                return cfg_in(err, "dynamic_metadata[%zu].value.string_match", i);
            }
            break;
        case ENVOY__TYPE__MATCHER__V3__VALUE_MATCHER__MATCH_PATTERN_PRESENT_MATCH:
            f->present_only = true;
            f->want_present = x->value->present_match;
            break;
        default:
            return cfg_fail(err, "dynamic_metadata", "entry %zu: only string_match and present_match are supported", i);
        }
    }
    return 0;
}

static int build_match(struct config_ctx *ctx, const Envoy__Config__Route__V3__RouteMatch *m, struct route *r, struct err *err)
{
    struct arena *a = ctx->arena;
    if (!m) {
        return cfg_fail(err, "match", "missing");
    }
    if (CFG_KNOWN(m, err, "prefix", "path", "safe_regex", "connect_matcher", "path_separated_prefix", "case_sensitive", "headers",
                  "query_parameters", "runtime_fraction", "grpc", "path_match_policy", "cookies", "dynamic_metadata") ||
        build_path(ctx, m, r, err) || build_facts(m, a, r, err) || build_cookies(m, a, r, err)) {
        return cfg_in(err, "match");
    }
    r->case_sensitive = pb_bool_or(m->case_sensitive, true);
    r->headers = m->n_headers ? arena_array(a, struct header_matcher, m->n_headers) : NULL;
    for (size_t i = 0; i < m->n_headers; i++, r->header_count++) {
        if (build_header_matcher(m->headers[i], a, &r->headers[i], err)) {
            return cfg_in(err, "match.headers[%zu]", i);
        }
    }
    r->queries = m->n_query_parameters ? arena_array(a, struct query_matcher, m->n_query_parameters) : NULL;
    for (size_t i = 0; i < m->n_query_parameters; i++, r->query_count++) {
        if (build_query(m->query_parameters[i], a, &r->queries[i], err)) {
            return cfg_in(err, "match.query_parameters[%zu]", i);
        }
    }
    if (m->runtime_fraction && !m->runtime_fraction->default_value) {
        return cfg_fail(err, "match.runtime_fraction.default_value", "missing");
    }
    r->has_fraction = m->runtime_fraction != NULL;
    r->fraction = m->runtime_fraction ? build_runtime_fraction(ctx, m->runtime_fraction) : build_fraction(NULL);
    r->grpc_only = m->grpc != NULL;
    return 0;
}

int build_route_match(struct config_ctx *ctx, const void *msg, struct arena *a, struct route *ret, struct err *err)
{
    struct arena *outer = ctx->arena;
    ctx->arena = a;
    int rc = build_match(ctx, msg, ret, err);
    ctx->arena = outer;
    return rc;
}

static int by_key(const void *a, const void *b)
{
    const struct subset_key *x = a, *y = b;
    return str_cmp(x->key, y->key);
}

// metadata_match: the criteria of namespace "envoy.lb". A weighted cluster's come over those of its route (WeightedCluster.metadata_match).
static int build_subset(const Envoy__Config__Core__V3__Metadata *m, const struct route *base, struct arena *a, struct subset_key **ret,
                        size_t *ret_count, struct err *err)
{
    const Google__Protobuf__Struct *st = pb_metadata_get(m, "envoy.lb");
    size_t n = 0, below = base ? base->subset_count : 0;
    if (!st && !below) {
        return 0;
    }
    struct subset_key *v = arena_array(a, struct subset_key, (st ? st->n_fields : 0) + below);
    for (size_t i = 0; st && i < st->n_fields; i++) {
        struct str text = build_value_text(st->fields[i]->value, a);
        if (!text.p) {
            return cfg_fail(err, "metadata_match", "envoy.lb.%s: only strings, numbers and bools are compared", st->fields[i]->key);
        }
        v[n++] = (struct subset_key){ .key = build_str(a, st->fields[i]->key), .value = text };
    }
    for (size_t i = 0, own = n; i < below; i++) {
        size_t j = 0;
        while (j < own && !str_eq(v[j].key, base->subset[i].key)) {
            j++;
        }
        if (j == own) {
            v[n++] = base->subset[i];
        }
    }
    qsort(v, n, sizeof(*v), by_key);
    *ret = v;
    *ret_count = n;
    return 0;
}

static uint32_t weight_of(const struct config_ctx *ctx, const char *prefix, const Envoy__Config__Route__V3__WeightedCluster__ClusterWeight *w)
{
    uint64_t n = pb_u32_or(w->weight, 0);
    if (prefix && prefix[0]) {
        struct str key = arena_printf(ctx->scratch, "%s.%s", prefix, w->name);
        (void)runtime_number(ctx, key.p, UINT32_MAX, &n);
    }
    return (uint32_t)n;
}

static int build_weighted(struct config_ctx *ctx, const Envoy__Config__Route__V3__WeightedCluster *m, struct route *r, struct err *err)
{
    if (CFG_KNOWN(m, err, "clusters", "total_weight", "runtime_key_prefix")) {
        return cfg_in(err, "weighted_clusters");
    }
    r->weighted = arena_array(ctx->arena, struct weighted_cluster, m->n_clusters + 1);
    for (size_t i = 0; i < m->n_clusters; i++) {
        const Envoy__Config__Route__V3__WeightedCluster__ClusterWeight *w = m->clusters[i];
        struct weighted_cluster *c = &r->weighted[i];
        if (cfg_one_line(&w->base, err) || CFG_KNOWN(w, err, "name", "weight", "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add",
                      "response_headers_to_remove", "host_rewrite_literal", "cluster_header", "typed_per_filter_config", "metadata_match") ||
            BUILD_HEADER_OPS(w, ctx->arena, &c->request_ops, &c->response_ops, err) ||
            build_per_filter(ctx, w->n_typed_per_filter_config, (ProtobufCMessage *const *)w->typed_per_filter_config, &c->per_filter,
                             &c->per_filter_count, err) ||
            build_subset(w->metadata_match, r, ctx->arena, &c->subset, &c->subset_count, err)) {
            return cfg_in(err, "weighted_clusters.clusters[%zu]", i);
        }
        c->name = build_str(ctx->arena, w->name);
        c->cluster_header = build_str(ctx->arena, w->cluster_header);
        if (!c->name.n == !c->cluster_header.n) {
            return cfg_fail(err, "weighted_clusters", "entry %zu needs one of name, cluster_header", i);
        }
        if (c->name.n) {
            config_ctx_add_cluster(ctx, c->name);
        }
        c->weight = weight_of(ctx, m->runtime_key_prefix, w);
        if (w->host_rewrite_specifier_case ==
            ENVOY__CONFIG__ROUTE__V3__WEIGHTED_CLUSTER__CLUSTER_WEIGHT__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL) {
            c->host_rewrite = build_str(ctx->arena, w->host_rewrite_literal);
        }
        r->total_weight += c->weight;
    }
    r->weighted_count = m->n_clusters;
    if (r->total_weight == 0 || r->total_weight > UINT32_MAX) {
        return cfg_fail(err, "weighted_clusters", "the sum of the weights must be 1 to %u", UINT32_MAX);
    }
    return 0;
}

static int build_mirrors(struct config_ctx *ctx, const route_action *m, struct route *r, struct err *err)
{
    struct arena *a = ctx->arena;
    r->mirrors = m->n_request_mirror_policies ? arena_array(a, struct mirror, m->n_request_mirror_policies) : NULL;
    for (size_t i = 0; i < m->n_request_mirror_policies; i++) {
        const Envoy__Config__Route__V3__RouteAction__RequestMirrorPolicy *p = m->request_mirror_policies[i];
        if (cfg_one_line(&p->base, err) || CFG_KNOWN(p, err, "cluster", "cluster_header", "runtime_fraction", "trace_sampled", "disable_shadow_host_suffix_append",
                      "host_rewrite_literal")) {
            return cfg_in(err, "request_mirror_policies[%zu]", i);
        }
        struct mirror *x = &r->mirrors[r->mirror_count++];
        x->cluster = build_str(a, p->cluster);
        x->cluster_header = build_str(a, p->cluster_header);
        if (!x->cluster.n == !x->cluster_header.n) {
            return cfg_fail(err, "request_mirror_policies", "entry %zu needs one of cluster, cluster_header", i);
        }
        x->host = build_str(a, p->host_rewrite_literal);
        x->append_shadow = !p->disable_shadow_host_suffix_append;
        x->fraction = p->runtime_fraction ? build_runtime_fraction(ctx, p->runtime_fraction)
                                          : (struct fraction){ .numerator = 100, .denominator = 100 };
    }
    return 0;
}

// type.matcher.v3.RegexMatchAndSubstitute
static int build_substitution(const Envoy__Type__Matcher__V3__RegexMatchAndSubstitute *m, struct arena *a, struct regex **ret,
                              struct str *ret_sub, struct err *err)
{
    if (!m->pattern) {
        return cfg_fail(err, "pattern", "missing");
    }
    if (cfg_one_line(&m->base, err)) {
        return err->code;
    }
    if (build_regex(m->pattern, a, ret, err)) {
        return cfg_in(err, "pattern");
    }
    *ret_sub = build_str(a, m->substitution);
    struct str probe;
    if (!regex_replace_all(*ret, STR(""), *ret_sub, a, &probe)) {
        return cfg_fail(err, "substitution", "\"%s\" names a group that the pattern does not have, or ends in \\", m->substitution);
    }
    return 0;
}

static int build_hash(const route_action *m, struct arena *a, struct route *r, struct err *err)
{
    r->hash = m->n_hash_policy ? arena_array(a, struct hash_policy, m->n_hash_policy) : NULL;
    for (size_t i = 0; i < m->n_hash_policy; i++) {
        const Envoy__Config__Route__V3__RouteAction__HashPolicy *p = m->hash_policy[i];
        struct hash_policy *h = &r->hash[r->hash_count++];
        h->terminal = p->terminal;
        switch (p->policy_specifier_case) {
        case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_HEADER:
            if (p->header->regex_rewrite &&
                build_substitution(p->header->regex_rewrite, a, &h->rewrite, &h->rewrite_sub, err)) {
                return cfg_in(err, "hash_policy[%zu].header.regex_rewrite", i);
            }
            h->kind = HASH_HEADER;
            if (!p->header->header_name[0]) {
                return cfg_fail(err, "hash_policy", "entry %zu: header.header_name is missing", i);
            }
            h->name = build_str(a, p->header->header_name);
            break;
        case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_COOKIE:
            h->kind = HASH_COOKIE;
            if (!build_header_name_ok(str_c(p->cookie->name)) || cfg_one_line(&p->cookie->base, err)) {
                return cfg_fail(err, "hash_policy", "entry %zu: a cookie has a name without blanks, and no line ends", i);
            }
            h->name = build_str(a, p->cookie->name);
            h->cookie_path = build_str(a, p->cookie->path);
            h->cookie_ttl_s = p->cookie->ttl ? p->cookie->ttl->seconds : -1;
            for (size_t k = 0; k < p->cookie->n_attributes; k++) {
                const Envoy__Config__Route__V3__RouteAction__HashPolicy__CookieAttribute *at = p->cookie->attributes[k];
                if (!at->name[0] || cfg_one_line(&at->base, err)) {
                    return cfg_fail(err, "hash_policy", "entry %zu: attributes %zu: a name is needed, and no line ends", i, k);
                }
                h->cookie_attributes = arena_printf(a, "%.*s; %s%s%s", STR_FMT(h->cookie_attributes), at->name, at->value[0] ? "=" : "", at->value);
            }
            break;
        case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_CONNECTION_PROPERTIES:
            h->kind = HASH_SOURCE_IP;
            r->hash_count -= !p->connection_properties->source_ip; // says nothing then
            break;
        case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_QUERY_PARAMETER:
            h->kind = HASH_QUERY;
            h->name = build_str(a, p->query_parameter->name);
            break;
        default:
            return cfg_fail(err, "hash_policy", "entry %zu: this kind is not supported", i);
        }
    }
    return 0;
}

static int build_rewrite_policy(struct config_ctx *ctx, const Envoy__Config__Core__V3__TypedExtensionConfig *x,
                                const Envoy__Config__Route__V3__RouteMatch *match, struct route *r, struct err *err)
{
    Envoy__Extensions__Path__Rewrite__UriTemplate__V3__UriTemplateRewriteConfig *t = NULL;
    struct err e = { 0 };
    if (!x->typed_config || pb_any_unpack_whole_as(Envoy__Extensions__Path__Rewrite__UriTemplate__V3__UriTemplateRewriteConfig,
                                             envoy__extensions__path__rewrite__uri_template__v3__uri_template_rewrite_config,
                                             x->typed_config, ctx->scratch, &t, &e)) {
        return cfg_fail(err, "path_rewrite_policy.typed_config", "%.900s", x->typed_config ? e.msg : "missing");
    }
    if (r->path_kind != PATH_TEMPLATE) {
        return cfg_fail(err, "path_rewrite_policy", "the route must match by path_match_policy");
    }
    struct uri_template made;
    struct route again = { 0 };
    if (build_template(ctx, match->path_match_policy, &again, &made, err)) {
        return err->code;
    }
    if (uri_template_rewrite(build_str(ctx->arena, t->path_template_rewrite), &made, ctx->arena, &r->rewrite_sub, &e)) {
        return cfg_fail(err, "path_rewrite_policy.typed_config.path_template_rewrite", "%.900s", e.msg);
    }
    r->rewrite_re = path_regex(arena_printf(ctx->arena, "^%.*s$", STR_FMT(made.regex)), ctx->arena, err);
    return r->rewrite_re ? 0 : cfg_in(err, "path_rewrite_policy");
}

static int build_rewrites(const route_action *m, struct arena *a, struct route *r, struct err *err)
{
    r->has_prefix_rewrite = m->prefix_rewrite[0] != 0;
    r->prefix_rewrite = build_str(a, m->prefix_rewrite);
    if (m->regex_rewrite && build_substitution(m->regex_rewrite, a, &r->rewrite_re, &r->rewrite_sub, err)) {
        return cfg_in(err, "regex_rewrite");
    }
    if ((m->regex_rewrite != NULL) + (m->path_rewrite_policy != NULL) + r->has_prefix_rewrite > 1) {
        return cfg_fail(err, "prefix_rewrite", "only one of prefix_rewrite, regex_rewrite, path_rewrite_policy can be given");
    }
    switch (m->host_rewrite_specifier_case) {
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL:
        r->host_rewrite = build_str(a, m->host_rewrite_literal);
        break;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_AUTO_HOST_REWRITE:
        r->auto_host_rewrite = pb_bool_or(m->auto_host_rewrite, false);
        break;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_HEADER:
        r->host_rewrite_header = build_str(a, m->host_rewrite_header);
        break;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_PATH_REGEX:
        if (build_substitution(m->host_rewrite_path_regex, a, &r->host_rewrite_re, &r->host_rewrite_sub, err)) {
            return cfg_in(err, "host_rewrite_path_regex");
        }
        break;
    default:
        break;
    }
    r->append_x_forwarded_host = m->append_x_forwarded_host;
    return 0;
}

static int build_action_target(struct config_ctx *ctx, const route_action *m, struct route *r, struct err *err)
{
    switch (m->cluster_specifier_case) {
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER:
        r->cluster = build_str(ctx->arena, m->cluster);
        config_ctx_add_cluster(ctx, r->cluster);
        return 0;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER_HEADER:
        r->cluster_header = build_str(ctx->arena, m->cluster_header);
        return 0;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS:
        return build_weighted(ctx, m->weighted_clusters, r, err);
    default:
        return cfg_fail(err, "cluster_specifier", "one of cluster, weighted_clusters, cluster_header is needed");
    }
}

static int build_upgrades(const route_action *m, struct arena *a, struct route *r, struct err *err)
{
    r->upgrades = arena_array(a, struct str, m->n_upgrade_configs + 1);
    r->upgrades_off = arena_array(a, struct str, m->n_upgrade_configs + 1);
    for (size_t i = 0; i < m->n_upgrade_configs; i++) {
        const Envoy__Config__Route__V3__RouteAction__UpgradeConfig *u = m->upgrade_configs[i];
        if (!pb_bool_or(u->enabled, true)) {
            r->upgrades_off[r->upgrade_off_count++] = build_str(a, u->upgrade_type);
            continue;
        }
        r->upgrades[r->upgrade_count++] = build_str(a, u->upgrade_type);
        if (!u->connect_config) {
            continue;
        }
        if (strcasecmp(u->upgrade_type, "CONNECT") != 0) {
            return cfg_fail(err, "upgrade_configs", "entry %zu: connect_config goes with upgrade_type CONNECT only", i);
        }
        const Envoy__Config__Core__V3__ProxyProtocolConfig *pp = u->connect_config->proxy_protocol_config;
        if (pp && CFG_KNOWN(pp, err, "version")) {
            return cfg_in(err, "upgrade_configs[%zu].connect_config.proxy_protocol_config", i);
        }
        r->connect_terminate = true;
        r->connect_post = u->connect_config->allow_post;
        r->connect_proxy_version = !pp ? 0 : pp->version == ENVOY__CONFIG__CORE__V3__PROXY_PROTOCOL_CONFIG__VERSION__V1 ? 1 : 2;
    }
    return 0;
}

static int build_max_stream(const Envoy__Config__Route__V3__RouteAction__MaxStreamDuration *m, struct route *r, struct err *err)
{
    if (!m) {
        return 0;
    }
    if (CFG_KNOWN(m, err, "max_stream_duration", "grpc_timeout_header_max", "grpc_timeout_header_offset")) {
        return cfg_in(err, "route.max_stream_duration");
    }
    r->has_max_stream = true;
    r->max_stream_ms = pb_duration_ms(m->max_stream_duration, -1);
    r->grpc_header_max_ms = pb_duration_ms(m->grpc_timeout_header_max, -1);
    r->grpc_header_offset_ms = (uint64_t)pb_duration_ms(m->grpc_timeout_header_offset, 0);
    return 0;
}

static int build_forward(struct config_ctx *ctx, const route_action *m, const Envoy__Config__Route__V3__RouteMatch *match,
                         const struct virtual_host *vh, struct route *r, struct err *err)
{
    static const int not_found[] = { 503, 404, 500 };
    if (cfg_one_line(&m->base, err) || CFG_KNOWN(m, err, "cluster", "cluster_header", "weighted_clusters", "cluster_not_found_response_code", "prefix_rewrite",
                  "regex_rewrite", "host_rewrite_literal", "auto_host_rewrite", "host_rewrite_header", "append_x_forwarded_host",
                  "timeout", "idle_timeout", "retry_policy", "request_mirror_policies", "priority", "hash_policy", "max_grpc_timeout",
                  "grpc_timeout_offset", "upgrade_configs", "max_stream_duration", "path_rewrite_policy", "host_rewrite_path_regex",
                  "internal_redirect_policy", "internal_redirect_action", "max_internal_redirects", "hedge_policy", "metadata_match", "rate_limits",
                  "include_vh_rate_limits") ||
        rate_limits_parse(ctx, m->n_rate_limits, m->rate_limits, RATE_LIMITS_ROUTE, ctx->arena, &r->rate_limits, err) ||
        build_subset(m->metadata_match, NULL, ctx->arena, &r->subset, &r->subset_count, err) ||
        build_action_target(ctx, m, r, err) || build_rewrites(m, ctx->arena, r, err) || build_retry_policy(ctx, m->retry_policy, &r->retry, err) ||
        build_mirrors(ctx, m, r, err) || build_hash(m, ctx->arena, r, err) || build_upgrades(m, ctx->arena, r, err)) {
        return cfg_in(err, "route");
    }
    r->kind = ROUTE_FORWARD;
    r->include_vh_rate_limits = pb_bool_or(m->include_vh_rate_limits, false);
    r->cluster_not_found_status = (unsigned)m->cluster_not_found_response_code < 3 ? not_found[m->cluster_not_found_response_code] : 503;
    r->timeout_ms = pb_duration_ms(m->timeout, -1);
    r->idle_timeout_ms = pb_duration_ms(m->idle_timeout, -1);
    r->max_grpc_timeout_ms = pb_duration_ms(m->max_grpc_timeout, -1);
    r->grpc_timeout_offset_ms = (uint64_t)pb_duration_ms(m->grpc_timeout_offset, 0);
    r->high_priority = m->priority == ENVOY__CONFIG__CORE__V3__ROUTING_PRIORITY__HIGH;
    if ((m->path_rewrite_policy && build_rewrite_policy(ctx, m->path_rewrite_policy, match, r, err)) ||
        (m->internal_redirect_policy && build_internal_redirect(ctx, m->internal_redirect_policy, &r->redirects, err))) {
        return cfg_in(err, "route");
    }
    if (!r->redirects && m->internal_redirect_action == ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__INTERNAL_REDIRECT_ACTION__HANDLE_INTERNAL_REDIRECT) {
        r->redirects = arena_new(ctx->arena, struct internal_redirect); // the former way to say so
        *r->redirects = (struct internal_redirect){ .max = pb_u32_or(m->max_internal_redirects, 1), .codes = { 302 }, .code_count = 1 };
    }
    r->hedge = vh->hedge;
    if (m->hedge_policy && build_hedge(m->hedge_policy, &r->hedge, err)) {
        return cfg_in(err, "route");
    }
    return build_max_stream(m->max_stream_duration, r, err);
}

static int build_redirect(const Envoy__Config__Route__V3__RedirectAction *m, struct arena *a, struct route *r, struct err *err)
{
    static const int codes[] = { 301, 302, 303, 307, 308 };
    if (cfg_one_line(&m->base, err) || CFG_KNOWN(m, err, "https_redirect", "scheme_redirect", "host_redirect", "port_redirect", "path_redirect", "prefix_rewrite",
                  "regex_rewrite", "path_rewrite", "response_code", "strip_query")) {
        return cfg_in(err, "redirect");
    }
    r->kind = ROUTE_REDIRECT;
    r->redirect_status = (unsigned)m->response_code < 5 ? codes[m->response_code] : 301;
    if (m->scheme_rewrite_specifier_case == ENVOY__CONFIG__ROUTE__V3__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_SCHEME_REDIRECT) {
        r->redirect_scheme = build_str(a, m->scheme_redirect);
    } else if (m->scheme_rewrite_specifier_case == ENVOY__CONFIG__ROUTE__V3__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_HTTPS_REDIRECT) {
        r->redirect_https = m->https_redirect;
    }
    r->redirect_host = build_str(a, m->host_redirect);
    r->redirect_port = m->port_redirect;
    r->redirect_strip_query = m->strip_query;
    switch (m->path_rewrite_specifier_case) {
    case ENVOY__CONFIG__ROUTE__V3__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PATH_REDIRECT:
        if (strstr(m->path_redirect, "%PREFIX()%")) { // istiod's own operator, which it takes out before it sends a route
            return cfg_fail(err, "redirect.path_redirect", "the operator %%PREFIX()%% is not known here; give prefix_rewrite");
        }
        r->redirect_path = build_str(a, m->path_redirect);
        break;
    case ENVOY__CONFIG__ROUTE__V3__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PATH_REWRITE: {
        struct err e = { 0 };
        if (format_compile(build_str(a, m->path_rewrite), a, &r->redirect_format, &e)) {
            return cfg_fail(err, "redirect.path_rewrite", "%.900s", e.msg);
        }
        break;
    }
    case ENVOY__CONFIG__ROUTE__V3__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PREFIX_REWRITE:
        r->redirect_prefix = build_str(a, m->prefix_rewrite);
        break;
    case ENVOY__CONFIG__ROUTE__V3__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_REGEX_REWRITE:
        if (build_substitution(m->regex_rewrite, a, &r->rewrite_re, &r->rewrite_sub, err)) {
            return cfg_in(err, "redirect.regex_rewrite");
        }
        break;
    default:
        break;
    }
    return 0;
}

static int build_body_format(const Envoy__Config__Core__V3__SubstitutionFormatString *m, struct arena *a, struct route *r, struct err *err)
{
    if (CFG_KNOWN(m, err, "text_format", "text_format_source", "json_format", "content_type", "omit_empty_values", "formatters")) {
        return err->code;
    }
    return access_log_format_parse(m, a, &r->direct_format, &r->direct_type, err);
}

static int build_direct(const Envoy__Config__Route__V3__DirectResponseAction *m, uint32_t direct_max, struct arena *a, struct route *r,
                        struct err *err)
{
    if (m->status < 200 || m->status > 599) {
        return cfg_fail(err, "direct_response.status", "%u is not between 200 and 599", m->status);
    }
    r->kind = ROUTE_DIRECT;
    r->direct_status = (int)m->status;
    if (build_data_source(m->body, a, &r->direct_body, err)) {
        return cfg_in(err, "direct_response.body");
    }
    if (m->body_format && build_body_format(m->body_format, a, r, err)) {
        return cfg_in(err, "direct_response.body_format");
    }
    if (r->direct_body.n > direct_max) {
        return cfg_fail(err, "direct_response.body", "%zu bytes, at most %u", r->direct_body.n, direct_max);
    }
    return 0;
}

static int build_action(struct config_ctx *ctx, const route_msg *m, const struct virtual_host *vh, struct route *r, struct err *err)
{
    switch (m->action_case) {
    case ENVOY__CONFIG__ROUTE__V3__ROUTE__ACTION_ROUTE:
        return build_forward(ctx, m->route, m->match, vh, r, err);
    case ENVOY__CONFIG__ROUTE__V3__ROUTE__ACTION_REDIRECT:
        return build_redirect(m->redirect, ctx->arena, r, err);
    case ENVOY__CONFIG__ROUTE__V3__ROUTE__ACTION_DIRECT_RESPONSE:
        return build_direct(m->direct_response, vh->direct_max, ctx->arena, r, err);
    default:
        return cfg_fail(err, "action", "one of route, redirect, direct_response is needed");
    }
}

// The newer field wins. False: nothing said.
static bool buffer_limit(const Google__Protobuf__UInt64Value *newer, const Google__Protobuf__UInt32Value *older, uint64_t *ret)
{
    if (newer || older) {
        *ret = newer ? newer->value : older->value;
    }
    return newer || older;
}

static int build_route(struct config_ctx *ctx, const route_msg *m, struct virtual_host *vh, struct route *r, struct err *err)
{
    if (CFG_KNOWN(m, err, "name", "match", "route", "redirect", "direct_response", "metadata", "decorator", "typed_per_filter_config",
                  "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
                  "tracing", "stat_prefix", "per_request_buffer_limit_bytes", "request_body_buffer_limit")) {
        return err->code;
    }
    r->buffer_limit = vh->buffer_limit;
    r->has_buffer_limit = buffer_limit(m->request_body_buffer_limit, m->per_request_buffer_limit_bytes, &r->buffer_limit) || vh->has_buffer_limit;
    r->name = build_str(ctx->arena, m->name);
    r->vhost = vh;
    r->stat_name = m->stat_prefix[0] ? arena_printf(ctx->arena, "%.*s.route.%s", STR_FMT(vh->name), m->stat_prefix) : str_n(NULL, 0);
    r->timeout_ms = r->idle_timeout_ms = r->max_stream_ms = r->max_grpc_timeout_ms = r->grpc_header_max_ms = -1;
    if (build_match(ctx, m->match, r, err) || build_action(ctx, m, vh, r, err) ||
        BUILD_HEADER_OPS(m, ctx->arena, &r->request_ops, &r->response_ops, err) ||
        build_per_filter(ctx, m->n_typed_per_filter_config, (ProtobufCMessage *const *)m->typed_per_filter_config, &r->per_filter,
                         &r->per_filter_count, err)) {
        return err->code;
    }
    r->decorator = m->decorator ? build_str(ctx->arena, m->decorator->operation) : str_n(NULL, 0);
    r->metadata = build_metadata_bytes(m->metadata, ctx->arena);
    return 0;
}

static int build_virtual_clusters(const vhost_msg *m, struct arena *a, struct virtual_host *vh, struct err *err)
{
    if (!m->n_virtual_clusters) {
        return 0;
    }
    vh->clusters = arena_array(a, struct virtual_cluster, m->n_virtual_clusters + 1);
    for (size_t i = 0; i < m->n_virtual_clusters; i++) {
        const Envoy__Config__Route__V3__VirtualCluster *x = m->virtual_clusters[i];
        struct virtual_cluster *c = &vh->clusters[vh->cluster_count++];
        if (CFG_KNOWN(x, err, "name", "headers")) {
            return cfg_in(err, "virtual_clusters[%zu]", i);
        }
        if (!x->name[0] || !x->n_headers) {
            return cfg_fail(err, "virtual_clusters", "entry %zu needs name and headers", i);
        }
        c->name = build_str(a, x->name);
        c->headers = arena_array(a, struct header_matcher, x->n_headers);
        for (size_t k = 0; k < x->n_headers; k++, c->header_count++) {
            if (build_header_matcher(x->headers[k], a, &c->headers[k], err)) {
                return cfg_in(err, "virtual_clusters[%zu].headers[%zu]", i, k);
            }
        }
    }
    vh->clusters[vh->cluster_count++] = (struct virtual_cluster){ .name = STR("other") };
    for (size_t i = 0; i < vh->cluster_count; i++) {
        vh->clusters[i].stat_name = arena_printf(a, "%s.vcluster.%.*s", m->name, STR_FMT(vh->clusters[i].name));
    }
    return 0;
}

static int build_vhost(struct config_ctx *ctx, const vhost_msg *m, struct virtual_host *vh, struct err *err)
{
    if (CFG_KNOWN(m, err, "name", "domains", "routes", "require_tls", "request_headers_to_add", "request_headers_to_remove",
                  "response_headers_to_add", "response_headers_to_remove", "typed_per_filter_config", "include_request_attempt_count",
                  "include_attempt_count_in_response", "include_is_timeout_retry_header", "retry_policy", "hedge_policy", "metadata",
                  "virtual_clusters", "per_request_buffer_limit_bytes", "request_body_buffer_limit", "rate_limits") ||
        rate_limits_parse(ctx, m->n_rate_limits, m->rate_limits, RATE_LIMITS_ROUTE, ctx->arena, &vh->rate_limits, err) ||
        BUILD_HEADER_OPS(m, ctx->arena, &vh->request_ops, &vh->response_ops, err) ||
        build_retry_policy(ctx, m->retry_policy, &vh->retry, err) || build_hedge(m->hedge_policy, &vh->hedge, err) ||
        build_per_filter(ctx, m->n_typed_per_filter_config, (ProtobufCMessage *const *)m->typed_per_filter_config, &vh->per_filter,
                         &vh->per_filter_count, err)) {
        return err->code;
    }
    vh->name = build_str(ctx->arena, m->name);
    if (build_virtual_clusters(m, ctx->arena, vh, err)) {
        return err->code;
    }
    if (m->n_domains == 0) {
        return cfg_fail(err, "domains", "at least one is needed");
    }
    vh->domains = arena_array(ctx->arena, struct str, m->n_domains);
    for (size_t i = 0; i < m->n_domains; i++) {
        vh->domains[vh->domain_count++] = build_str(ctx->arena, m->domains[i]);
    }
    vh->has_buffer_limit = buffer_limit(m->request_body_buffer_limit, m->per_request_buffer_limit_bytes, &vh->buffer_limit);
    vh->include_is_timeout_retry = m->include_is_timeout_retry_header;
    vh->include_request_attempt_count = m->include_request_attempt_count;
    vh->include_attempt_in_response = m->include_attempt_count_in_response;
    vh->metadata = build_metadata_bytes(m->metadata, ctx->arena);
    vh->require_tls = (unsigned)m->require_tls <= TLS_REQ_ALL ? (int)m->require_tls : TLS_REQ_ALL;
    vh->routes = arena_array(ctx->arena, struct route, m->n_routes + 1);
    for (size_t i = 0; i < m->n_routes; i++) {
        if (build_route(ctx, m->routes[i], vh, &vh->routes[i], err)) {
            return cfg_in(err, "routes[%zu]", i);
        }
        vh->route_count++;
    }
    return 0;
}

static int fill(struct config_ctx *ctx, const route_config *m, struct route_table *t, struct err *err)
{
    if (CFG_KNOWN(m, err, "name", "virtual_hosts", "internal_only_headers", "response_headers_to_add", "response_headers_to_remove",
                  "request_headers_to_add", "request_headers_to_remove", "most_specific_header_mutations_wins", "validate_clusters",
                  "max_direct_response_body_size_bytes", "ignore_port_in_host_matching", "metadata", "typed_per_filter_config") ||
        BUILD_HEADER_OPS(m, ctx->arena, &t->request_ops, &t->response_ops, err) ||
        build_per_filter(ctx, m->n_typed_per_filter_config, (ProtobufCMessage *const *)m->typed_per_filter_config, &t->per_filter,
                         &t->per_filter_count, err)) {
        return err->code;
    }
    t->internal_only = arena_array(ctx->arena, struct str, m->n_internal_only_headers + 1);
    for (size_t i = 0; i < m->n_internal_only_headers; i++) {
        t->internal_only[t->internal_only_count++] = build_str(ctx->arena, m->internal_only_headers[i]);
    }
    t->name = build_str(ctx->arena, m->name);
    t->ignore_port = m->ignore_port_in_host_matching;
    t->most_specific_header_mutations_wins = m->most_specific_header_mutations_wins;
    t->vhosts = arena_array(ctx->arena, struct virtual_host, m->n_virtual_hosts + 1);
    for (size_t i = 0; i < m->n_virtual_hosts; i++) {
        if (m->virtual_hosts[i]->n_routes > ROUTES_MAX) {
            return cfg_fail(err, "virtual_hosts", "entry %zu has more than %d routes", i, ROUTES_MAX);
        }
        t->vhosts[i].direct_max = pb_u32_or(m->max_direct_response_body_size_bytes, DIRECT_BODY_MAX);
        if (build_vhost(ctx, m->virtual_hosts[i], &t->vhosts[i], err)) {
            return cfg_in(err, "virtual_hosts[%zu]", i);
        }
        t->vhost_count++;
    }
    struct err e = { 0 };
    if (route_table_seal(t, &e)) {
        return cfg_fail(err, "virtual_hosts", "%.900s", e.msg);
    }
    return 0;
}

int build_route_table(struct config_ctx *ctx, const route_config *m, struct hash128 hash, struct route_table **ret, struct err *err)
{
    struct route_table *t = calloc(1, sizeof(*t));
    if (!t) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    struct arena *outer = ctx->arena;
    refs_init(&t->refs);
    arena_init(&t->arena, 4096, 0);
    t->hash = hash;
    ctx->arena = &t->arena;
    int rc = fill(ctx, m, t, err);
    ctx->arena = outer;
    if (rc) {
        route_table_unref(t);
        return rc;
    }
    *ret = t;
    return 0;
}

int build_route_table_bytes(struct config_ctx *ctx, struct str bytes, struct route_table **ret, struct err *err)
{
    route_config *m = NULL;
    if (pb_unpack_as(route_config, envoy__config__route__v3__route_configuration, bytes, ctx->scratch, &m, err) || pb_whole(&m->base, NULL, NULL, err)) {
        return err->code;
    }
    return build_route_table(ctx, m, hash_content(bytes.p, bytes.n), ret, err);
}
