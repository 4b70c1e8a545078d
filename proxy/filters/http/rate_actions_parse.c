// SPDX-License-Identifier: Apache-2.0
// route.v3.RateLimit (protobuf) → struct rate_limits.
#include <errno.h>
#include <stdio.h>

#include "proto/pb_util.h"
#include "proxy/access_log/format.h"
#include "proxy/filters/http/rate_actions_int.h"

typedef Envoy__Config__Route__V3__RateLimit limit_msg;
typedef Envoy__Config__Route__V3__RateLimit__Action action_msg;

enum { HITS_MAX = 1000000000 }; // route.v3.RateLimit.HitsAddend.number

static struct str text(struct arena *a, const char *s)
{
    return arena_str(a, str_c(s ? s : ""));
}

// A value, whose operators count only where the runtime says so (Envoy's guard, off by default): else it is text as it stands.
static int take_value(const struct config_ctx *ctx, struct arena *a, const char *value, const char *fallback, struct rate_action *x,
                      struct err *err)
{
    struct err e = { 0 };
    bool operators = false;
    x->value = text(a, value);
    x->fallback = text(a, fallback);
    if (config_runtime_bool && ctx &&
        config_runtime_bool(ctx, "envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value", &operators, err)) {
        return err->code;
    }
    if (operators && format_has_operator(x->value) && format_compile(x->value, a, &x->format, &e)) {
        return err_set(err, -EINVAL, "descriptor_value: %.900s", e.msg);
    }
    return 0;
}

static void take_key(struct arena *a, const char *key, const char *usual, struct rate_action *x)
{
    x->key = text(a, key && key[0] ? key : usual);
}

static int take_metadata_key(const Envoy__Type__Metadata__V3__MetadataKey *m, struct arena *a, struct str *ret_space, struct str **ret_path,
                             size_t *ret_n, struct err *err)
{
    if (!m || !m->key[0] || !m->n_path || m->n_path > RATE_LIMIT_ACTIONS_MAX) {
        return err_set(err, -EINVAL, "metadata_key: needs key and path");
    }
    *ret_space = text(a, m->key);
    *ret_path = arena_array(a, struct str, m->n_path);
    for (size_t i = 0; i < m->n_path; i++) {
        if (m->path[i]->segment_case != ENVOY__TYPE__METADATA__V3__METADATA_KEY__PATH_SEGMENT__SEGMENT_KEY || !m->path[i]->key[0]) {
            return err_set(err, -EINVAL, "metadata_key.path[%zu]: must be a key", i);
        }
        (*ret_path)[i] = text(a, m->path[i]->key);
    }
    *ret_n = m->n_path;
    return 0;
}

static int need(const char *value, const char *field, struct err *err)
{
    return value && value[0] ? 0 : err_set(err, -EINVAL, "%s: missing", field);
}

static int parse_metadata(const char *key, const Envoy__Type__Metadata__V3__MetadataKey *path, const char *fallback, struct arena *a,
                          struct rate_action *x, struct err *err)
{
    x->kind = RA_METADATA;
    x->key = text(a, key);
    x->value = text(a, fallback);
    return need(key, "descriptor_key", err) ? err->code : take_metadata_key(path, a, &x->name, &x->path, &x->path_count, err);
}

static int parse_metadata_source(const Envoy__Config__Route__V3__RateLimit__Action__MetaData *m, struct arena *a, struct rate_action *x,
                                 struct err *err)
{
    x->optional = m->skip_if_absent;
    x->of_route = m->source == ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__ACTION__META_DATA__SOURCE__ROUTE_ENTRY;
    if (!x->of_route && m->source != ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__ACTION__META_DATA__SOURCE__DYNAMIC) {
        return err_set(err, -ENOTSUP, "source: only DYNAMIC and ROUTE_ENTRY are supported");
    }
    return parse_metadata(m->descriptor_key, m->metadata_key, m->default_value, a, x, err);
}

static int parse_header_match(const struct config_ctx *ctx, const Envoy__Config__Route__V3__RateLimit__Action__HeaderValueMatch *m, struct arena *a, struct rate_action *x,
                              struct err *err)
{
    x->kind = RA_HEADER_MATCH;
    x->expect = pb_bool_or(m->expect_match, true);
    take_key(a, m->descriptor_key, "header_match", x);
    if (!m->n_headers) {
        return err_set(err, -EINVAL, "headers: at least one is needed");
    }
    x->headers = arena_array(a, struct header_matcher, m->n_headers);
    for (; x->match_count < m->n_headers; x->match_count++) {
        if (parse_header_matcher(m->headers[x->match_count], a, &x->headers[x->match_count], err)) {
            return err_wrap(err, "headers[%zu]", x->match_count);
        }
    }
    return need(m->descriptor_value, "descriptor_value", err) ? err->code : take_value(ctx, a, m->descriptor_value, m->default_value, x, err);
}

static int parse_query(const Envoy__Config__Route__V3__QueryParameterMatcher *m, struct arena *a, struct query_matcher *q, struct err *err)
{
    q->name = text(a, m->name);
    q->present_only = m->query_parameter_match_specifier_case != ENVOY__CONFIG__ROUTE__V3__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_STRING_MATCH;
    q->want_present = m->query_parameter_match_specifier_case != ENVOY__CONFIG__ROUTE__V3__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_PRESENT_MATCH ||
                      m->present_match;
    if (need(m->name, "name", err)) {
        return err->code;
    }
    return q->present_only ? 0 : parse_string_matcher(m->string_match, a, &q->string, err);
}

static int parse_query_match(const struct config_ctx *ctx, const Envoy__Config__Route__V3__RateLimit__Action__QueryParameterValueMatch *m, struct arena *a,
                             struct rate_action *x, struct err *err)
{
    x->kind = RA_QUERY_MATCH;
    x->expect = pb_bool_or(m->expect_match, true);
    take_key(a, m->descriptor_key, "query_match", x);
    if (!m->n_query_parameters) {
        return err_set(err, -EINVAL, "query_parameters: at least one is needed");
    }
    x->queries = arena_array(a, struct query_matcher, m->n_query_parameters);
    for (; x->match_count < m->n_query_parameters; x->match_count++) {
        if (parse_query(m->query_parameters[x->match_count], a, &x->queries[x->match_count], err)) {
            return err_wrap(err, "query_parameters[%zu]", x->match_count);
        }
    }
    return need(m->descriptor_value, "descriptor_value", err) ? err->code : take_value(ctx, a, m->descriptor_value, m->default_value, x, err);
}

static int parse_address_match(const struct config_ctx *ctx, const Envoy__Config__Route__V3__RateLimit__Action__RemoteAddressMatch *m, struct arena *a, struct rate_action *x,
                               struct err *err)
{
    x->kind = RA_ADDRESS_MATCH;
    take_key(a, m->descriptor_key, "remote_address_match", x);
    if (!m->address_matcher) {
        return err_set(err, -EINVAL, "address_matcher: missing");
    }
    x->invert = m->address_matcher->invert_match;
    size_t n = m->address_matcher->n_ranges;
    x->ranges = arena_array(a, struct cidr, n + 1);
    for (; x->range_count < n; x->range_count++) {
        const Xds__Core__V3__CidrRange *r = m->address_matcher->ranges[x->range_count];
        char cidr[96];
        snprintf(cidr, sizeof(cidr), "%.80s/%u", r->address_prefix, pb_u32_or(r->prefix_len, 0));
        if (!cidr_parse(str_c(cidr), &x->ranges[x->range_count])) {
            return err_set(err, -EINVAL, "address_matcher.ranges[%zu]: \"%s\" is not an address range", x->range_count, cidr);
        }
    }
    return need(m->descriptor_value, "descriptor_value", err) ? err->code : take_value(ctx, a, m->descriptor_value, m->default_value, x, err);
}

static int parse_masked(const Envoy__Config__Route__V3__RateLimit__Action__MaskedRemoteAddress *m, struct rate_action *x, struct err *err)
{
    uint32_t v4 = pb_u32_or(m->v4_prefix_mask_len, 32), v6 = pb_u32_or(m->v6_prefix_mask_len, 128);
    x->kind = RA_MASKED_ADDRESS;
    x->key = STR("masked_remote_address");
    x->v4_bits = (uint8_t)v4;
    x->v6_bits = (uint8_t)v6;
    return v4 > 32 || v6 > 128 ? err_set(err, -EINVAL, "%s: must be at most %d", v4 > 32 ? "v4_prefix_mask_len" : "v6_prefix_mask_len", v4 > 32 ? 32 : 128) : 0;
}

// Members of the oneof, and how errors name them.
#define ACTION(name) ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__ACTION__ACTION_SPECIFIER_##name
static const char *const action_names[] = {
    [ACTION(SOURCE_CLUSTER)] = "source_cluster", [ACTION(DESTINATION_CLUSTER)] = "destination_cluster", [ACTION(REQUEST_HEADERS)] = "request_headers",
    [ACTION(REMOTE_ADDRESS)] = "remote_address", [ACTION(GENERIC_KEY)] = "generic_key", [ACTION(HEADER_VALUE_MATCH)] = "header_value_match",
    [ACTION(DYNAMIC_METADATA)] = "dynamic_metadata", [ACTION(METADATA)] = "metadata", [ACTION(EXTENSION)] = "extension",
    [ACTION(MASKED_REMOTE_ADDRESS)] = "masked_remote_address", [ACTION(QUERY_PARAMETER_VALUE_MATCH)] = "query_parameter_value_match",
    [ACTION(QUERY_PARAMETERS)] = "query_parameters", [ACTION(REMOTE_ADDRESS_MATCH)] = "remote_address_match",
};

static int parse_named(const char *name, const char *name_field, const char *key, struct arena *a, struct rate_action *x, struct err *err)
{
    x->name = text(a, name);
    x->key = text(a, key);
    return need(name, name_field, err) ? err->code : need(key, "descriptor_key", err);
}

static int parse_action(const struct config_ctx *ctx, const action_msg *m, struct arena *a, struct rate_action *x, struct err *err)
{
    switch (m->action_specifier_case) {
    case ACTION(SOURCE_CLUSTER):
        x->kind = RA_SOURCE_CLUSTER;
        x->key = STR("source_cluster");
        x->value = text(a, config_node_cluster && ctx ? config_node_cluster(ctx) : "");
        return 0;
    case ACTION(DESTINATION_CLUSTER):
        x->kind = RA_DESTINATION_CLUSTER;
        x->key = STR("destination_cluster");
        return 0;
    case ACTION(REMOTE_ADDRESS):
        x->kind = RA_REMOTE_ADDRESS;
        x->key = STR("remote_address");
        return 0;
    case ACTION(REQUEST_HEADERS):
        x->kind = RA_HEADER;
        x->optional = m->request_headers->skip_if_absent;
        return parse_named(m->request_headers->header_name, "header_name", m->request_headers->descriptor_key, a, x, err);
    case ACTION(QUERY_PARAMETERS):
        x->kind = RA_QUERY;
        x->optional = m->query_parameters->skip_if_absent;
        return parse_named(m->query_parameters->query_parameter_name, "query_parameter_name", m->query_parameters->descriptor_key, a, x, err);
    case ACTION(MASKED_REMOTE_ADDRESS):
        return parse_masked(m->masked_remote_address, x, err);
    case ACTION(GENERIC_KEY):
        x->kind = RA_GENERIC;
        take_key(a, m->generic_key->descriptor_key, "generic_key", x);
        return need(m->generic_key->descriptor_value, "descriptor_value", err)
                   ? err->code
                   : take_value(ctx, a, m->generic_key->descriptor_value, m->generic_key->default_value, x, err);
    case ACTION(HEADER_VALUE_MATCH):
        return parse_header_match(ctx, m->header_value_match, a, x, err);
    case ACTION(QUERY_PARAMETER_VALUE_MATCH):
        return parse_query_match(ctx, m->query_parameter_value_match, a, x, err);
    case ACTION(DYNAMIC_METADATA):
        return parse_metadata(m->dynamic_metadata->descriptor_key, m->dynamic_metadata->metadata_key, m->dynamic_metadata->default_value, a, x, err);
    case ACTION(METADATA):
        return parse_metadata_source(m->metadata, a, x, err);
    case ACTION(REMOTE_ADDRESS_MATCH):
        return parse_address_match(ctx, m->remote_address_match, a, x, err);
    case ACTION(EXTENSION):
        return err_set(err, -ENOTSUP, "\"%s\": extensions are not supported", m->extension->name);
    default:
        return err_set(err, -EINVAL, "action_specifier: missing");
    }
}

// One operator and nothing else.
static bool single_operator(struct str s)
{
    return s.n > 2 && s.p[0] == '%' && s.p[s.n - 1] == '%' && str_find(str_n(s.p + 1, s.n - 2), '%') < 0;
}

static int parse_hits(const Envoy__Config__Route__V3__RateLimit__HitsAddend *m, struct arena *a, struct rate_rule *r, struct err *err)
{
    struct str format = text(a, m->format);
    struct err e = { 0 };
    if (!m->number == !format.n) {
        return err_set(err, -EINVAL, "hits_addend: must have either number or format");
    }
    r->has_hits = true;
    r->negative = m->is_negative_hits;
    r->hits = m->number ? m->number->value : 0;
    if (r->hits > HITS_MAX) {
        return err_set(err, -EINVAL, "hits_addend.number: must be at most %d", HITS_MAX);
    }
    if (format.n && !single_operator(format)) {
        return err_set(err, -EINVAL, "hits_addend.format: must be one operator");
    }
    return format.n && format_compile(format, a, &r->hits_format, &e) ? err_set(err, -EINVAL, "hits_addend.format: %.900s", e.msg) : 0;
}

static int parse_limit(const Envoy__Config__Route__V3__RateLimit__Override *m, struct arena *a, struct rate_rule *r, struct err *err)
{
    if (m->override_specifier_case == ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__OVERRIDE__OVERRIDE_SPECIFIER_RATE_LIMIT) {
        r->fixed_limit = true;
        r->limit_requests = m->rate_limit->requests_per_unit;
        r->limit_unit = (int)m->rate_limit->unit;
        return 0;
    }
    if (m->override_specifier_case != ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__OVERRIDE__OVERRIDE_SPECIFIER_DYNAMIC_METADATA) {
        return err_set(err, -EINVAL, "limit: needs dynamic_metadata or rate_limit");
    }
    r->has_override = true;
    return take_metadata_key(m->dynamic_metadata->metadata_key, a, &r->limit_space, &r->limit_path, &r->limit_path_count, err)
               ? err_wrap(err, "limit.dynamic_metadata")
               : 0;
}

static int check_place(const limit_msg *m, enum rate_limits_place place, struct err *err)
{
    if (place != RATE_LIMITS_ROUTE && (m->stage || m->disable_key[0])) {
        return err_set(err, -EINVAL, "%s: means nothing in a filter's own rate_limits", m->stage ? "stage" : "disable_key");
    }
    if (place == RATE_LIMITS_LOCAL_FILTER && m->limit) {
        return err_set(err, -EINVAL, "limit: means nothing where this process limits");
    }
    return 0;
}

static int parse_rule(const struct config_ctx *ctx, const limit_msg *m, enum rate_limits_place place, struct arena *a, struct rate_rule *r,
                      struct err *err)
{
    r->stage = pb_u32_or(m->stage, 0);
    if (r->stage >= RATE_LIMIT_STAGES) {
        return err_set(err, -EINVAL, "stage: must be at most %d", RATE_LIMIT_STAGES - 1);
    }
    r->done = m->apply_on_stream_done;
    r->headers = (enum rate_limit_headers)m->x_ratelimit_option;
    r->keyed = m->disable_key[0] != 0;
    r->share = (struct fraction){ .numerator = 1, .denominator = 1 };
    if (r->keyed && config_runtime_fraction && ctx) {
        struct str key = arena_printf(a, "ratelimit.%s.http_filter_enabled", m->disable_key);
        (void)config_runtime_fraction(ctx, key.p, &r->share.numerator, &r->share.denominator);
    }
    if (check_place(m, place, err) || (m->hits_addend && parse_hits(m->hits_addend, a, r, err)) || (m->limit && parse_limit(m->limit, a, r, err))) {
        return err->code;
    }
    if (place == RATE_LIMITS_ROUTE && r->has_hits) { // checked, and without effect: as in Envoy 1.40, where only a filter's own rate_limits have it
        r->has_hits = r->negative = false;
        r->hits_format = NULL;
    }
    if (!m->n_actions || m->n_actions > RATE_LIMIT_ACTIONS_MAX) {
        return err_set(err, -EINVAL, "actions: 1 to %d are needed", RATE_LIMIT_ACTIONS_MAX);
    }
    r->actions = arena_array(a, struct rate_action, m->n_actions);
    for (; r->count < m->n_actions; r->count++) {
        const action_msg *x = m->actions[r->count];
        if (parse_action(ctx, x, a, &r->actions[r->count], err)) {
            unsigned k = (unsigned)x->action_specifier_case;
            const char *name = k < sizeof(action_names) / sizeof(action_names[0]) ? action_names[k] : NULL;
            return err_wrap(err, "actions[%zu]%s%s", r->count, name ? "." : "", name ? name : "");
        }
    }
    return 0;
}

int rate_limits_parse(const struct config_ctx *ctx, size_t n, limit_msg *const *v, enum rate_limits_place place, struct arena *a,
                      const struct rate_limits **ret, struct err *err)
{
    *ret = NULL;
    if (n == 0) {
        return 0;
    }
    if (n > RATE_LIMIT_RULES_MAX) {
        return err_set(err, -EINVAL, "rate_limits: at most %d", RATE_LIMIT_RULES_MAX);
    }
    struct rate_limits *l = arena_new(a, struct rate_limits);
    l->v = arena_array(a, struct rate_rule, n);
    for (; l->count < n; l->count++) {
        if (parse_rule(ctx, v[l->count], place, a, &l->v[l->count], err)) {
            return err_wrap(err, "rate_limits[%zu]", l->count);
        }
    }
    *ret = l;
    return 0;
}
