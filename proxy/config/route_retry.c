// SPDX-License-Identifier: Apache-2.0
// route.v3.RetryPolicy, HedgePolicy and InternalRedirectPolicy → the model.
#include <string.h>

#include "envoy/extensions/internal_redirect/allow_listed_routes/v3/allow_listed_routes_config.pb-c.h"
#include "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"

typedef Envoy__Config__Route__V3__RetryPolicy retry_msg;

static int build_headers(size_t n, Envoy__Config__Route__V3__HeaderMatcher *const *m, const char *field, struct arena *a,
                         struct header_matcher **ret, size_t *ret_count, struct err *err)
{
    *ret = n ? arena_array(a, struct header_matcher, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (build_header_matcher(m[i], a, &(*ret)[i], err)) {
            return cfg_in(err, "%s[%zu]", field, i);
        }
    }
    *ret_count = n;
    return 0;
}

static int build_priority(struct config_ctx *ctx, const retry_msg *m, struct retry_policy *r, struct err *err)
{
    if (!m->retry_priority) {
        return 0;
    }
    if (strcmp(m->retry_priority->name, "envoy.retry_priorities.previous_priorities")) {
        return cfg_fail(err, "retry_priority", "\"%s\" is not supported", m->retry_priority->name);
    }
    Envoy__Extensions__Retry__Priority__PreviousPriorities__V3__PreviousPrioritiesConfig *c = NULL;
    struct err e = { 0 };
    if (m->retry_priority->typed_config &&
        pb_any_unpack_whole_as(Envoy__Extensions__Retry__Priority__PreviousPriorities__V3__PreviousPrioritiesConfig,
                         envoy__extensions__retry__priority__previous_priorities__v3__previous_priorities_config,
                         m->retry_priority->typed_config, ctx->scratch, &c, &e)) {
        return cfg_fail(err, "retry_priority.typed_config", "%.900s", e.msg);
    }
    r->avoid_previous_priorities = true;
    r->priority_update_frequency = c && c->update_frequency > 0 ? (uint32_t)c->update_frequency : 1;
    return 0;
}

static int build_reset_headers(const retry_msg *m, struct arena *a, struct retry_policy *r, struct err *err)
{
    const Envoy__Config__Route__V3__RetryPolicy__RateLimitedRetryBackOff *b = m->rate_limited_retry_back_off;
    if (!b) {
        return 0;
    }
    if (b->n_reset_headers == 0) {
        return cfg_fail(err, "rate_limited_retry_back_off.reset_headers", "at least one is needed");
    }
    r->reset_headers = arena_array(a, struct reset_header, b->n_reset_headers);
    for (size_t i = 0; i < b->n_reset_headers; i++) {
        struct reset_header *h = &r->reset_headers[r->reset_header_count++];
        h->name = build_str(a, b->reset_headers[i]->name);
        h->unix_time = b->reset_headers[i]->format == ENVOY__CONFIG__ROUTE__V3__RETRY_POLICY__RESET_HEADER_FORMAT__UNIX_TIMESTAMP;
    }
    r->reset_max_ms = (uint64_t)pb_duration_ms(b->max_interval, 300 * 1000);
    return 0;
}

static int fill(struct config_ctx *ctx, const retry_msg *m, struct retry_policy *r, struct err *err)
{
    if (CFG_KNOWN(m, err, "retry_on", "num_retries", "per_try_timeout", "per_try_idle_timeout", "retry_host_predicate", "retry_priority",
                  "host_selection_retry_max_attempts", "retriable_status_codes", "retry_back_off", "retriable_headers",
                  "retriable_request_headers", "rate_limited_retry_back_off")) {
        return err->code;
    }
    r->on = retry_on_parse(str_c(m->retry_on));
    r->num_retries = pb_u32_or(m->num_retries, 1);
    r->per_try_timeout_ms = (uint64_t)pb_duration_ms(m->per_try_timeout, 0);
    r->per_try_idle_ms = (uint64_t)pb_duration_ms(m->per_try_idle_timeout, 0);
    if (m->retry_back_off && (!m->retry_back_off->base_interval || pb_duration_ms(m->retry_back_off->base_interval, 0) == 0 ||
                              pb_duration_ms(m->retry_back_off->max_interval, INT64_MAX) < pb_duration_ms(m->retry_back_off->base_interval, 0))) {
        return cfg_fail(err, "retry_policy.retry_back_off", "base_interval must be greater than 0s, and max_interval not less");
    }
    r->backoff_base_ms = (uint64_t)pb_duration_ms(m->retry_back_off ? m->retry_back_off->base_interval : NULL, 25);
    r->backoff_base_ms = r->backoff_base_ms ? r->backoff_base_ms : 1;
    r->backoff_max_ms = (uint64_t)pb_duration_ms(m->retry_back_off ? m->retry_back_off->max_interval : NULL, (int64_t)r->backoff_base_ms * 10);
    r->host_selection_attempts = m->host_selection_retry_max_attempts > 0 ? (uint32_t)m->host_selection_retry_max_attempts : 1;
    for (size_t i = 0; i < m->n_retry_host_predicate; i++) {
        if (!strcmp(m->retry_host_predicate[i]->name, "envoy.retry_host_predicates.omit_canary_hosts")) {
            r->omit_canary = true;
            continue;
        }
        if (strcmp(m->retry_host_predicate[i]->name, "envoy.retry_host_predicates.previous_hosts")) {
            return cfg_fail(err, "retry_host_predicate", "\"%s\" is not supported", m->retry_host_predicate[i]->name);
        }
        r->avoid_previous_hosts = true;
    }
    r->status_code_count = m->n_retriable_status_codes;
    r->status_codes = arena_array(ctx->arena, uint32_t, m->n_retriable_status_codes + 1);
    for (size_t i = 0; i < m->n_retriable_status_codes; i++) {
        r->status_codes[i] = m->retriable_status_codes[i];
    }
    if (build_priority(ctx, m, r, err) || build_reset_headers(m, ctx->arena, r, err) ||
        build_headers(m->n_retriable_headers, m->retriable_headers, "retriable_headers", ctx->arena, &r->headers, &r->header_count, err) ||
        build_headers(m->n_retriable_request_headers, m->retriable_request_headers, "retriable_request_headers", ctx->arena,
                      &r->request_headers, &r->request_header_count, err)) {
        return err->code;
    }
    return 0;
}

int build_retry_policy(struct config_ctx *ctx, const retry_msg *m, struct retry_policy **ret, struct err *err)
{
    if (!m) {
        return 0;
    }
    struct retry_policy *r = arena_new(ctx->arena, struct retry_policy);
    if (fill(ctx, m, r, err)) {
        return cfg_in(err, "retry_policy");
    }
    *ret = r;
    return 0;
}

int build_hedge(const Envoy__Config__Route__V3__HedgePolicy *m, bool *ret, struct err *err)
{
    if (m && CFG_KNOWN(m, err, "hedge_on_per_try_timeout")) {
        return cfg_in(err, "hedge_policy");
    }
    *ret = m && m->hedge_on_per_try_timeout;
    return 0;
}

// ---- internal redirects ----

static int build_allowed(struct config_ctx *ctx, const Google__Protobuf__Any *any, struct internal_redirect *r, struct err *err)
{
    Envoy__Extensions__InternalRedirect__AllowListedRoutes__V3__AllowListedRoutesConfig *c = NULL;
    struct err e = { 0 };
    if (pb_any_unpack_whole_as(Envoy__Extensions__InternalRedirect__AllowListedRoutes__V3__AllowListedRoutesConfig,
                         envoy__extensions__internal_redirect__allow_listed_routes__v3__allow_listed_routes_config, any, ctx->scratch, &c,
                         &e)) {
        return cfg_fail(err, "typed_config", "%.900s", e.msg);
    }
    r->allow_list = true;
    r->allowed = arena_array(ctx->arena, struct str, c->n_allowed_route_names + 1);
    for (size_t i = 0; i < c->n_allowed_route_names; i++) {
        r->allowed[r->allowed_count++] = build_str(ctx->arena, c->allowed_route_names[i]);
    }
    return 0;
}

static int build_predicate(struct config_ctx *ctx, const Envoy__Config__Core__V3__TypedExtensionConfig *m, struct internal_redirect *r,
                           struct err *err)
{
    struct str type = m->typed_config ? pb_any_type_name(m->typed_config, ctx->scratch) : str_n(NULL, 0);
    if (str_is(type, "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig")) {
        r->previous_routes = true;
    } else if (str_is(type, "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig")) {
        r->safe_cross_scheme = true;
    } else if (str_is(type, "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig")) {
        return build_allowed(ctx, m->typed_config, r, err);
    } else {
        return cfg_fail(err, "typed_config", "\"%s\" (%.*s) is not supported", m->name, STR_FMT(type));
    }
    return 0;
}

static bool is_redirect(uint32_t code)
{
    return code == 301 || code == 302 || code == 303 || code == 307 || code == 308;
}

int build_internal_redirect(struct config_ctx *ctx, const Envoy__Config__Route__V3__InternalRedirectPolicy *m, struct internal_redirect **ret,
                            struct err *err)
{
    struct internal_redirect *r = arena_new(ctx->arena, struct internal_redirect);
    r->max = pb_u32_or(m->max_internal_redirects, 1);
    r->cross_scheme = m->allow_cross_scheme_redirect;
    for (size_t i = 0; i < m->n_redirect_response_codes; i++) {
        if (is_redirect(m->redirect_response_codes[i]) && r->code_count < REDIRECT_CODES_MAX) { // others are passed over (as the API says)
            r->codes[r->code_count++] = (uint16_t)m->redirect_response_codes[i];
        }
    }
    if (!m->n_redirect_response_codes) {
        r->codes[r->code_count++] = 302;
    }
    for (size_t i = 0; i < m->n_predicates; i++) {
        if (build_predicate(ctx, m->predicates[i], r, err)) {
            return cfg_in(err, "internal_redirect_policy.predicates[%zu]", i);
        }
    }
    r->copy = arena_array(ctx->arena, struct str, m->n_response_headers_to_copy + 1);
    for (size_t i = 0; i < m->n_response_headers_to_copy; i++) {
        r->copy[r->copy_count++] = build_str(ctx->arena, m->response_headers_to_copy[i]);
    }
    *ret = r;
    return 0;
}
