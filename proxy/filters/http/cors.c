// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.cors: answers preflights and marks answers for the origins that a route's policy allows (the Fetch standard's CORS
// protocol). The listener's configuration is empty; policies stand at routes and virtual hosts.
#include <errno.h>

#include "envoy/extensions/filters/http/cors/v3/cors.pb-c.h"
#include "lib/base/rand.h"
#include "proxy/filters/http/filters.h"
#include "proxy/filters/http/parse.h"
#include "proxy/http/manager.h"

struct cors_policy {
    struct string_matcher *origins;
    size_t origin_count;
    struct str methods, headers, expose, max_age;
    bool credentials, private_network, forward_not_matching;
    struct fraction enabled;
};

struct cors_state {
    const struct cors_policy *policy;
    struct str origin; // allowed; empty: not our business
};

static int cors_route_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const Envoy__Extensions__Filters__Http__Cors__V3__CorsPolicy *m = msg;
    struct cors_policy *p = arena_new(arena, struct cors_policy);
    p->origins = arena_array(arena, struct string_matcher, m->n_allow_origin_string_match + 1);
    for (size_t i = 0; i < m->n_allow_origin_string_match; i++, p->origin_count++) {
        int rc = parse_string_matcher(m->allow_origin_string_match[i], arena, &p->origins[i], err);
        if (rc < 0) {
            return err_wrap(err, "allow_origin_string_match[%zu]", i);
        }
    }
    p->methods = arena_str(arena, str_c(m->allow_methods));
    p->headers = arena_str(arena, str_c(m->allow_headers));
    p->expose = arena_str(arena, str_c(m->expose_headers));
    p->max_age = arena_str(arena, str_c(m->max_age));
    p->credentials = m->allow_credentials && m->allow_credentials->value;
    p->private_network = m->allow_private_network_access && m->allow_private_network_access->value;
    p->forward_not_matching = !m->forward_not_matching_preflights || m->forward_not_matching_preflights->value;
    p->enabled = m->filter_enabled ? parse_fraction(m->filter_enabled->default_value) : (struct fraction){ 1, 1 };
    uint64_t share;
    if (m->filter_enabled && m->filter_enabled->runtime_key[0] && config_runtime_number &&
        config_runtime_number(ctx, m->filter_enabled->runtime_key, 100, &share)) {
        p->enabled = (struct fraction){ .numerator = (uint32_t)share, .denominator = 100 };
    }
    // shadow_enabled only counts what would have happened.
    *ret_cfg = p;
    return 0;
}

static bool allowed(const struct cors_policy *p, struct str origin)
{
    for (size_t i = 0; i < p->origin_count; i++) {
        const struct string_matcher *o = &p->origins[i];
        if ((o->kind == SM_EXACT && str_is(o->value, "*")) || string_matcher_match(o, origin)) {
            return true;
        }
    }
    return false;
}

static void add_common(struct headers *h, const struct cors_state *st)
{
    headers_set(h, STR("access-control-allow-origin"), st->origin);
    if (st->policy->credentials) {
        headers_set(h, STR("access-control-allow-credentials"), STR("true"));
    }
    if (st->policy->expose.n) {
        headers_set(h, STR("access-control-expose-headers"), st->policy->expose);
    }
}

static void answer_preflight(struct http_filter *f, const struct http_request *req)
{
    const struct cors_state *st = f->state;
    const struct cors_policy *p = st->policy;
    struct headers h;
    headers_init(&h, &f->stream->arena);
    if (st->origin.n) {
        add_common(&h, st);
        if (p->methods.n) { // "*" is said with the words of the question: with credentials a star would mean nothing
            headers_add(&h, STR("access-control-allow-methods"),
                        str_is(p->methods, "*") ? headers_value(&req->headers, STR("access-control-request-method")) : p->methods);
        }
        if (p->headers.n) {
            struct str asked = headers_value(&req->headers, STR("access-control-request-headers"));
            headers_add(&h, STR("access-control-allow-headers"), str_is(p->headers, "*") ? asked : p->headers);
        }
        if (p->max_age.n) {
            headers_add(&h, STR("access-control-max-age"), p->max_age);
        }
        if (p->private_network && str_is(headers_value(&req->headers, STR("access-control-request-private-network")), "true")) {
            headers_add(&h, STR("access-control-allow-private-network"), STR("true"));
        }
    }
    struct cors_state *mine = f->state;
    mine->origin = str_n(NULL, 0); // said; the answer passes on_response too
    stream_local_reply(f->stream, 200, str_n(NULL, 0), "cors_response", 0, &h);
}

static enum http_filter_status cors_on_request(struct http_filter *f, struct http_request *req)
{
    struct str origin = headers_value_id(&req->headers, HDR_ORIGIN);
    if (!origin.n) {
        return HF_CONTINUE;
    }
    struct cors_state *st = f->state;
    st->policy = stream_per_filter(f->stream, f->ext->name);
    if (!st->policy || !fraction_hit(st->policy->enabled, rand_u64())) {
        return HF_CONTINUE;
    }
    bool preflight = str_is(req->method, "OPTIONS") && headers_value(&req->headers, STR("access-control-request-method")).n;
    if (allowed(st->policy, origin)) {
        st->origin = origin;
    } else if (!preflight || st->policy->forward_not_matching) {
        return HF_CONTINUE;
    }
    if (preflight) {
        answer_preflight(f, req);
        return HF_STOP;
    }
    return HF_CONTINUE;
}

static void cors_on_response(struct http_filter *f, struct http_response *resp)
{
    const struct cors_state *st = f->state;
    if (st->origin.n) {
        add_common(&resp->headers, st);
    }
}

const struct http_filter_ops http_filter_cors = {
    .ext = { .name = "envoy.filters.http.cors", .type_url = "envoy.extensions.filters.http.cors.v3.Cors" },
    .route_type_url = "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    .route_config_parse = cors_route_parse,
    .state_size = sizeof(struct cors_state),
    .on_request = cors_on_request,
    .on_response = cors_on_response,
};
