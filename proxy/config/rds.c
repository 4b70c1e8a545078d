// SPDX-License-Identifier: Apache-2.0
// route.v3.RouteConfiguration → struct route_table.
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "proto/pb_util.h"
#include "proxy/access_log/format.h"
#include "proxy/config/build.h"

typedef Envoy__Config__Route__V3__RouteConfiguration route_config;
typedef Envoy__Config__Route__V3__Route route_msg;
typedef Envoy__Config__Route__V3__RouteAction route_action;
typedef Envoy__Config__Route__V3__VirtualHost vhost_msg;
typedef Envoy__Config__Core__V3__HeaderValueOption header_option;

enum { ROUTES_MAX = 100000, DIRECT_BODY_MAX = 1024 * 1024 };

static int build_header_add(const header_option *m, struct arena *a, struct header_add *h, struct err *err)
{
    if (!m->header || !m->header->key[0]) {
        return cfg_fail(err, "header.key", "missing");
    }
    if (m->header->key[0] == ':' || !strcasecmp(m->header->key, "host")) {
        return cfg_fail(err, "header.key", "\"%s\" cannot be set this way", m->header->key);
    }
    h->name = build_str(a, m->header->key);
    h->value = m->header->raw_value.len ? arena_str(a, pb_bytes(m->header->raw_value)) : build_str(a, m->header->value);
    h->action = (enum header_append)m->append_action;
    if (m->append) {
        h->action = m->append->value ? HA_APPEND_IF_EXISTS_OR_ADD : HA_OVERWRITE_IF_EXISTS_OR_ADD;
    }
    h->keep_empty = m->keep_empty_value;
    struct err e = { 0 };
    if (format_has_operator(h->value) && format_compile(h->value, a, &h->format, &e)) {
        return cfg_fail(err, "header.value", "%.900s", e.msg);
    }
    return 0;
}

static int build_header_ops(size_t n_add, header_option *const *add, size_t n_remove, char *const *rm, const char *field, struct arena *a,
                            struct header_ops *ret, struct err *err)
{
    ret->add = n_add ? arena_array(a, struct header_add, n_add) : NULL;
    for (size_t i = 0; i < n_add; i++) {
        if (build_header_add(add[i], a, &ret->add[i], err)) {
            return cfg_in(err, "%s_to_add[%zu]", field, i);
        }
    }
    ret->add_count = n_add;
    ret->remove = n_remove ? arena_array(a, struct str, n_remove) : NULL;
    for (size_t i = 0; i < n_remove; i++) {
        ret->remove[i] = build_str(a, rm[i]);
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

static const struct {
    const char *name;
    uint32_t bit;
} retry_names[] = {
    { "5xx", RETRY_5XX },
    { "gateway-error", RETRY_GATEWAY_ERROR },
    { "reset", RETRY_RESET },
    { "connect-failure", RETRY_CONNECT_FAILURE },
    { "refused-stream", RETRY_REFUSED_STREAM },
    { "retriable-4xx", RETRY_RETRIABLE_4XX },
    { "retriable-status-codes", RETRY_STATUS_CODES },
    { "envoy-ratelimited", RETRY_ENVOY_RATELIMITED },
    { "reset-before-request", RETRY_RESET_BEFORE_REQUEST },
    { "cancelled", RETRY_GRPC_CANCELLED },
    { "deadline-exceeded", RETRY_GRPC_DEADLINE },
    { "internal", RETRY_GRPC_INTERNAL },
    { "resource-exhausted", RETRY_GRPC_EXHAUSTED },
    { "unavailable", RETRY_GRPC_UNAVAILABLE },
    { "http3-post-connect-failure", RETRY_HTTP3 },
};

static uint32_t parse_retry_on(const char *text)
{
    uint32_t on = 0;
    struct str rest = str_c(text);
    while (rest.n) {
        struct str item = str_trim(str_split(&rest, ','));
        for (size_t i = 0; i < sizeof(retry_names) / sizeof(retry_names[0]); i++) {
            on |= str_is(item, retry_names[i].name) ? retry_names[i].bit : 0; // unknown words mean nothing in Envoy too
        }
    }
    return on;
}

static int build_retry(const Envoy__Config__Route__V3__RetryPolicy *m, struct arena *a, struct retry_policy **ret, struct err *err)
{
    if (!m) {
        return 0;
    }
    if (CFG_KNOWN(m, err, "retry_on", "num_retries", "per_try_timeout", "per_try_idle_timeout", "retry_host_predicate", "retry_priority",
                  "host_selection_retry_max_attempts", "retriable_status_codes", "retry_back_off")) {
        return cfg_in(err, "retry_policy");
    }
    struct retry_policy *r = arena_new(a, struct retry_policy);
    r->on = parse_retry_on(m->retry_on);
    r->num_retries = pb_u32_or(m->num_retries, 1);
    r->per_try_timeout_ms = (uint64_t)pb_duration_ms(m->per_try_timeout, 0);
    r->per_try_idle_ms = (uint64_t)pb_duration_ms(m->per_try_idle_timeout, 0);
    r->backoff_base_ms = (uint64_t)pb_duration_ms(m->retry_back_off ? m->retry_back_off->base_interval : NULL, 25);
    r->backoff_base_ms = r->backoff_base_ms ? r->backoff_base_ms : 1;
    r->backoff_max_ms = (uint64_t)pb_duration_ms(m->retry_back_off ? m->retry_back_off->max_interval : NULL, (int64_t)r->backoff_base_ms * 10);
    r->host_selection_attempts = m->host_selection_retry_max_attempts > 0 ? (uint32_t)m->host_selection_retry_max_attempts : 1;
    for (size_t i = 0; i < m->n_retry_host_predicate; i++) {
        if (strcmp(m->retry_host_predicate[i]->name, "envoy.retry_host_predicates.previous_hosts")) {
            return cfg_fail(err, "retry_policy.retry_host_predicate", "\"%s\" is not supported", m->retry_host_predicate[i]->name);
        }
        r->avoid_previous_hosts = true;
    }
    // previous_priorities only widens the choice after a failure; with previous_hosts the next host differs already.
    if (m->retry_priority && strcmp(m->retry_priority->name, "envoy.retry_priorities.previous_priorities")) {
        return cfg_fail(err, "retry_policy.retry_priority", "\"%s\" is not supported", m->retry_priority->name);
    }
    r->status_code_count = m->n_retriable_status_codes;
    r->status_codes = arena_array(a, uint32_t, m->n_retriable_status_codes + 1);
    for (size_t i = 0; i < m->n_retriable_status_codes; i++) {
        r->status_codes[i] = m->retriable_status_codes[i];
    }
    *ret = r;
    return 0;
}

static int build_path(const Envoy__Config__Route__V3__RouteMatch *m, struct arena *a, struct route *r, struct err *err)
{
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
        return 0;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_MATCH__PATH_SPECIFIER_SAFE_REGEX:
        r->path_kind = PATH_REGEX;
        r->path = build_str(a, m->safe_regex->regex);
        return build_regex(m->safe_regex, a, &r->path_re, err) ? cfg_in(err, "safe_regex") : 0;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_MATCH__PATH_SPECIFIER_CONNECT_MATCHER:
        r->path_kind = PATH_CONNECT;
        return 0;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_MATCH__PATH_SPECIFIER_PATH_MATCH_POLICY:
        return cfg_fail(err, "path_match_policy", "not supported yet");
    default:
        return cfg_fail(err, "path_specifier", "one of prefix, path, safe_regex, path_separated_prefix is needed");
    }
}

static int build_query(const Envoy__Config__Route__V3__QueryParameterMatcher *m, struct arena *a, struct query_matcher *q, struct err *err)
{
    q->name = build_str(a, m->name);
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

static int build_match(const Envoy__Config__Route__V3__RouteMatch *m, struct arena *a, struct route *r, struct err *err)
{
    if (!m) {
        return cfg_fail(err, "match", "missing");
    }
    if (CFG_KNOWN(m, err, "prefix", "path", "safe_regex", "connect_matcher", "path_separated_prefix", "case_sensitive", "headers",
                  "query_parameters", "runtime_fraction", "grpc") ||
        build_path(m, a, r, err)) {
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
    r->has_fraction = m->runtime_fraction != NULL;
    r->fraction = build_fraction(m->runtime_fraction ? m->runtime_fraction->default_value : NULL);
    r->grpc_only = m->grpc != NULL;
    return 0;
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
        if (CFG_KNOWN(w, err, "name", "weight", "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add",
                      "response_headers_to_remove", "host_rewrite_literal") ||
            BUILD_HEADER_OPS(w, ctx->arena, &c->request_ops, &c->response_ops, err)) {
            return cfg_in(err, "weighted_clusters.clusters[%zu]", i);
        }
        c->name = build_str(ctx->arena, w->name);
        config_ctx_add_cluster(ctx, c->name);
        c->weight = pb_u32_or(w->weight, 0);
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

static int build_mirrors(const route_action *m, struct arena *a, struct route *r, struct err *err)
{
    r->mirrors = m->n_request_mirror_policies ? arena_array(a, struct mirror, m->n_request_mirror_policies) : NULL;
    for (size_t i = 0; i < m->n_request_mirror_policies; i++) {
        const Envoy__Config__Route__V3__RouteAction__RequestMirrorPolicy *p = m->request_mirror_policies[i];
        if (CFG_KNOWN(p, err, "cluster", "runtime_fraction", "trace_sampled", "disable_shadow_host_suffix_append")) {
            return cfg_in(err, "request_mirror_policies[%zu]", i);
        }
        struct mirror *x = &r->mirrors[r->mirror_count++];
        x->cluster = build_str(a, p->cluster);
        x->append_shadow = !p->disable_shadow_host_suffix_append;
        x->fraction = p->runtime_fraction ? build_fraction(p->runtime_fraction->default_value)
                                          : (struct fraction){ .numerator = 100, .denominator = 100 };
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
            if (p->header->regex_rewrite) {
                return cfg_fail(err, "hash_policy", "entry %zu: header.regex_rewrite is not supported yet", i);
            }
            h->kind = HASH_HEADER;
            h->name = build_str(a, p->header->header_name);
            break;
        case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_COOKIE:
            h->kind = HASH_COOKIE;
            h->name = build_str(a, p->cookie->name);
            h->cookie_path = build_str(a, p->cookie->path);
            h->cookie_ttl_s = p->cookie->ttl ? p->cookie->ttl->seconds : -1;
            break;
        case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_CONNECTION_PROPERTIES:
            h->kind = HASH_SOURCE_IP;
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

static int build_rewrites(const route_action *m, struct arena *a, struct route *r, struct err *err)
{
    r->has_prefix_rewrite = m->prefix_rewrite[0] != 0;
    r->prefix_rewrite = build_str(a, m->prefix_rewrite);
    if (m->regex_rewrite) {
        if (!m->regex_rewrite->pattern || build_regex(m->regex_rewrite->pattern, a, &r->rewrite_re, err)) {
            return m->regex_rewrite->pattern ? cfg_in(err, "regex_rewrite.pattern") : cfg_fail(err, "regex_rewrite.pattern", "missing");
        }
        r->rewrite_sub = build_str(a, m->regex_rewrite->substitution);
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
        return cfg_fail(err, "host_rewrite_path_regex", "not supported yet");
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
    r->upgrades = m->n_upgrade_configs ? arena_array(a, struct str, m->n_upgrade_configs) : NULL;
    for (size_t i = 0; i < m->n_upgrade_configs; i++) {
        if (m->upgrade_configs[i]->connect_config) {
            return cfg_fail(err, "upgrade_configs", "entry %zu: connect_config is not supported yet", i);
        }
        if (pb_bool_or(m->upgrade_configs[i]->enabled, true)) {
            r->upgrades[r->upgrade_count++] = build_str(a, m->upgrade_configs[i]->upgrade_type);
        }
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

static int build_forward(struct config_ctx *ctx, const route_action *m, struct route *r, struct err *err)
{
    static const int not_found[] = { 503, 404, 500 };
    if (CFG_KNOWN(m, err, "cluster", "cluster_header", "weighted_clusters", "cluster_not_found_response_code", "prefix_rewrite",
                  "regex_rewrite", "host_rewrite_literal", "auto_host_rewrite", "host_rewrite_header", "append_x_forwarded_host",
                  "timeout", "idle_timeout", "retry_policy", "request_mirror_policies", "priority", "hash_policy", "max_grpc_timeout",
                  "grpc_timeout_offset", "upgrade_configs", "max_stream_duration") ||
        build_action_target(ctx, m, r, err) || build_rewrites(m, ctx->arena, r, err) || build_retry(m->retry_policy, ctx->arena, &r->retry, err) ||
        build_mirrors(m, ctx->arena, r, err) || build_hash(m, ctx->arena, r, err) || build_upgrades(m, ctx->arena, r, err)) {
        return cfg_in(err, "route");
    }
    r->kind = ROUTE_FORWARD;
    r->cluster_not_found_status = (unsigned)m->cluster_not_found_response_code < 3 ? not_found[m->cluster_not_found_response_code] : 503;
    r->timeout_ms = pb_duration_ms(m->timeout, -1);
    r->idle_timeout_ms = pb_duration_ms(m->idle_timeout, -1);
    r->max_grpc_timeout_ms = pb_duration_ms(m->max_grpc_timeout, -1);
    r->grpc_timeout_offset_ms = (uint64_t)pb_duration_ms(m->grpc_timeout_offset, 0);
    return build_max_stream(m->max_stream_duration, r, err);
}

static int build_redirect(const Envoy__Config__Route__V3__RedirectAction *m, struct arena *a, struct route *r, struct err *err)
{
    static const int codes[] = { 301, 302, 303, 307, 308 };
    if (CFG_KNOWN(m, err, "https_redirect", "scheme_redirect", "host_redirect", "port_redirect", "path_redirect", "prefix_rewrite",
                  "regex_rewrite", "response_code", "strip_query")) {
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
        if (strstr(m->path_redirect, "%PREFIX()%")) {
            return cfg_fail(err, "redirect.path_redirect", "the operator %%PREFIX()%% is not supported yet");
        }
        r->redirect_path = build_str(a, m->path_redirect);
        break;
    case ENVOY__CONFIG__ROUTE__V3__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PREFIX_REWRITE:
        r->redirect_prefix = build_str(a, m->prefix_rewrite);
        break;
    case ENVOY__CONFIG__ROUTE__V3__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_REGEX_REWRITE:
        if (!m->regex_rewrite->pattern) {
            return cfg_fail(err, "redirect.regex_rewrite.pattern", "missing");
        }
        if (build_regex(m->regex_rewrite->pattern, a, &r->rewrite_re, err)) {
            return cfg_in(err, "redirect.regex_rewrite.pattern");
        }
        r->rewrite_sub = build_str(a, m->regex_rewrite->substitution);
        break;
    default:
        break;
    }
    return 0;
}

static int build_direct(const Envoy__Config__Route__V3__DirectResponseAction *m, struct arena *a, struct route *r, struct err *err)
{
    if (m->status < 200 || m->status > 599) {
        return cfg_fail(err, "direct_response.status", "%u is not between 200 and 599", m->status);
    }
    if (m->body_format) {
        return cfg_fail(err, "direct_response.body_format", "not supported yet");
    }
    r->kind = ROUTE_DIRECT;
    r->direct_status = (int)m->status;
    if (build_data_source(m->body, a, &r->direct_body, err)) {
        return cfg_in(err, "direct_response.body");
    }
    if (r->direct_body.n > DIRECT_BODY_MAX) {
        return cfg_fail(err, "direct_response.body", "%zu bytes, at most %d", r->direct_body.n, DIRECT_BODY_MAX);
    }
    return 0;
}

static int build_action(struct config_ctx *ctx, const route_msg *m, struct route *r, struct err *err)
{
    switch (m->action_case) {
    case ENVOY__CONFIG__ROUTE__V3__ROUTE__ACTION_ROUTE:
        return build_forward(ctx, m->route, r, err);
    case ENVOY__CONFIG__ROUTE__V3__ROUTE__ACTION_REDIRECT:
        return build_redirect(m->redirect, ctx->arena, r, err);
    case ENVOY__CONFIG__ROUTE__V3__ROUTE__ACTION_DIRECT_RESPONSE:
        return build_direct(m->direct_response, ctx->arena, r, err);
    default:
        return cfg_fail(err, "action", "one of route, redirect, direct_response is needed");
    }
}

static int build_route(struct config_ctx *ctx, const route_msg *m, struct virtual_host *vh, struct route *r, struct err *err)
{
    if (CFG_KNOWN(m, err, "name", "match", "route", "redirect", "direct_response", "metadata", "decorator", "typed_per_filter_config",
                  "request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
                  "tracing", "stat_prefix")) {
        return err->code;
    }
    r->name = build_str(ctx->arena, m->name);
    r->vhost = vh;
    r->timeout_ms = r->idle_timeout_ms = r->max_stream_ms = r->max_grpc_timeout_ms = r->grpc_header_max_ms = -1;
    if (build_match(m->match, ctx->arena, r, err) || build_action(ctx, m, r, err) ||
        BUILD_HEADER_OPS(m, ctx->arena, &r->request_ops, &r->response_ops, err) ||
        build_per_filter(ctx, m->n_typed_per_filter_config, (ProtobufCMessage *const *)m->typed_per_filter_config, &r->per_filter,
                         &r->per_filter_count, err)) {
        return err->code;
    }
    r->decorator = m->decorator ? build_str(ctx->arena, m->decorator->operation) : str_n(NULL, 0);
    struct str config = pb_struct_str(pb_metadata_get(m->metadata, "istio"), "config");
    r->config = config.p ? arena_str(ctx->arena, config) : str_n(NULL, 0);
    return 0;
}

static int build_vhost(struct config_ctx *ctx, const vhost_msg *m, struct virtual_host *vh, struct err *err)
{
    if (CFG_KNOWN(m, err, "name", "domains", "routes", "require_tls", "request_headers_to_add", "request_headers_to_remove",
                  "response_headers_to_add", "response_headers_to_remove", "typed_per_filter_config", "include_request_attempt_count",
                  "include_attempt_count_in_response", "retry_policy", "metadata", "virtual_clusters") ||
        BUILD_HEADER_OPS(m, ctx->arena, &vh->request_ops, &vh->response_ops, err) ||
        build_retry(m->retry_policy, ctx->arena, &vh->retry, err) ||
        build_per_filter(ctx, m->n_typed_per_filter_config, (ProtobufCMessage *const *)m->typed_per_filter_config, &vh->per_filter,
                         &vh->per_filter_count, err)) {
        return err->code;
    }
    vh->name = build_str(ctx->arena, m->name);
    if (m->n_domains == 0) {
        return cfg_fail(err, "domains", "at least one is needed");
    }
    vh->domains = arena_array(ctx->arena, struct str, m->n_domains);
    for (size_t i = 0; i < m->n_domains; i++) {
        vh->domains[vh->domain_count++] = build_str(ctx->arena, m->domains[i]);
    }
    vh->include_request_attempt_count = m->include_request_attempt_count;
    vh->include_attempt_in_response = m->include_attempt_count_in_response;
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
                  "max_direct_response_body_size_bytes", "ignore_port_in_host_matching", "metadata") ||
        BUILD_HEADER_OPS(m, ctx->arena, &t->request_ops, &t->response_ops, err)) {
        return err->code;
    }
    t->name = build_str(ctx->arena, m->name);
    t->ignore_port = m->ignore_port_in_host_matching;
    t->most_specific_header_mutations_wins = m->most_specific_header_mutations_wins;
    t->vhosts = arena_array(ctx->arena, struct virtual_host, m->n_virtual_hosts + 1);
    for (size_t i = 0; i < m->n_virtual_hosts; i++) {
        if (m->virtual_hosts[i]->n_routes > ROUTES_MAX) {
            return cfg_fail(err, "virtual_hosts", "entry %zu has more than %d routes", i, ROUTES_MAX);
        }
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
    if (pb_unpack_as(route_config, envoy__config__route__v3__route_configuration, bytes, ctx->scratch, &m, err)) {
        return err->code;
    }
    return build_route_table(ctx, m, hash_content(bytes.p, bytes.n), ret, err);
}
