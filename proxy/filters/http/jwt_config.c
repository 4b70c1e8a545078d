// SPDX-License-Identifier: Apache-2.0
// jwt_authn.v3.JwtAuthentication → struct jwt_cfg: providers, and rules with what they need of whom.
#include <errno.h>
#include <stdlib.h>

#include "envoy/extensions/filters/http/jwt_authn/v3/config.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/filters/http/jwt_provider.h"

typedef Envoy__Extensions__Filters__Http__JwtAuthn__V3__JwtAuthentication pb_authn;
typedef Envoy__Extensions__Filters__Http__JwtAuthn__V3__JwtRequirement pb_need;
typedef Envoy__Extensions__Filters__Http__JwtAuthn__V3__RequirementRule pb_rule;
typedef Envoy__Extensions__Filters__Http__JwtAuthn__V3__PerRouteConfig pb_route;

// ---- requirements ----

struct builder {
    const struct jwt_cfg *cfg;
    struct arena *a;
    uint16_t nodes;
};

static int build_need(struct builder *b, const pb_need *m, struct jwt_node *n, int depth, struct err *err);

static const struct jwt_provider *provider_named(const struct jwt_cfg *c, struct str name)
{
    for (size_t i = 0; i < c->provider_count; i++) {
        if (str_eq(c->providers[i].name, name)) {
            return &c->providers[i];
        }
    }
    return NULL;
}

static int need_provider(struct builder *b, const char *name, struct jwt_node *n, struct err *err)
{
    n->kind = JWT_NEED_PROVIDER;
    n->provider = provider_named(b->cfg, str_c(name));
    if (!n->provider) {
        return err_set(err, -EINVAL, "provider_name: provider \"%s\" is not among the providers", name);
    }
    n->locations = n->provider->locations;
    return 0;
}

static int need_list(struct builder *b, size_t count, pb_need *const *v, enum jwt_need kind, struct jwt_node *n, int depth, struct err *err)
{
    n->kind = kind;
    if (!count) {
        return err_set(err, -EINVAL, "requirements: at least one is needed");
    }
    n->children = arena_array(b->a, struct jwt_node, count + 1);
    for (size_t i = 0; i < count; i++) {
        if (kind == JWT_NEED_ANY && v[i]->requires_type_case == ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING) {
            n->missing_ok = true;
        } else if (kind == JWT_NEED_ANY &&
                   v[i]->requires_type_case == ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING_OR_FAILED) {
            n->failed_ok = true;
        } else if (build_need(b, v[i], &n->children[n->child_count++], depth + 1, err)) {
            return err_wrap(err, "requirements[%zu]", i);
        }
    }
    if (!n->child_count) { // any of "allow_missing" alone: tokens of all providers are looked at
        struct jwt_node *x = &n->children[n->child_count++];
        x->index = b->nodes++;
        x->kind = n->failed_ok ? JWT_NEED_MISSING_OR_FAILED : JWT_NEED_MISSING;
        jwt_locations_merge(b->cfg->providers, b->cfg->provider_count, b->a, &x->locations);
    }
    return 0;
}

static int build_need(struct builder *b, const pb_need *m, struct jwt_node *n, int depth, struct err *err)
{
    if (depth > JWT_DEPTH_MAX || b->nodes >= JWT_NODES_MAX) {
        return err_set(err, -EINVAL, "requires: more than %d levels or %d requirements", JWT_DEPTH_MAX, JWT_NODES_MAX);
    }
    n->index = b->nodes++;
    switch (m->requires_type_case) {
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE_PROVIDER_NAME:
        return need_provider(b, m->provider_name, n, err);
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE_PROVIDER_AND_AUDIENCES:
        if (need_provider(b, m->provider_and_audiences->provider_name, n, err)) {
            return err_wrap(err, "provider_and_audiences");
        }
        n->audience_count = m->provider_and_audiences->n_audiences;
        n->audiences = jwt_audiences(n->audience_count, m->provider_and_audiences->audiences, b->a);
        return 0;
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE_REQUIRES_ANY:
        return need_list(b, m->requires_any->n_requirements, m->requires_any->requirements, JWT_NEED_ANY, n, depth, err)
                   ? err_wrap(err, "requires_any") : 0;
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE_REQUIRES_ALL:
        return need_list(b, m->requires_all->n_requirements, m->requires_all->requirements, JWT_NEED_ALL, n, depth, err)
                   ? err_wrap(err, "requires_all") : 0;
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING:
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING_OR_FAILED:
        n->kind = m->requires_type_case == ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING
                      ? JWT_NEED_MISSING : JWT_NEED_MISSING_OR_FAILED;
        jwt_locations_merge(b->cfg->providers, b->cfg->provider_count, b->a, &n->locations);
        return 0;
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE__NOT_SET:
        n->kind = JWT_NEED_NOTHING;
        return 0;
    default: // claims without a verified signature would look to policies like those of a good token
        return err_set(err, -ENOTSUP, "extract_only_without_validation: is not supported");
    }
}

static int build_requirement(const struct jwt_cfg *c, const pb_need *m, struct arena *a, struct jwt_requirement *ret, struct err *err)
{
    struct builder b = { .cfg = c, .a = a };
    ret->root = arena_new(a, struct jwt_node);
    int rc = build_need(&b, m, ret->root, 0, err);
    ret->node_count = b.nodes;
    return rc;
}

const struct jwt_requirement *jwt_requirement_find(const struct jwt_cfg *c, struct str name)
{
    for (size_t i = 0; i < c->map_count; i++) {
        if (str_eq(c->map[i].name, name)) {
            return &c->map[i];
        }
    }
    return NULL;
}

const struct jwt_provider *jwt_provider_of(const struct jwt_cfg *c, struct str issuer)
{
    const struct jwt_provider *any = NULL;
    for (size_t i = 0; i < c->provider_count; i++) {
        if (issuer.n && str_eq(c->providers[i].issuer, issuer)) {
            return &c->providers[i];
        }
        any = any || c->providers[i].issuer.n ? any : &c->providers[i];
    }
    return any;
}

static int by_name(const void *x, const void *y)
{
    return str_cmp(((const struct jwt_requirement *)x)->name, ((const struct jwt_requirement *)y)->name);
}

static int build_map(const pb_authn *m, struct arena *a, struct jwt_cfg *c, struct err *err)
{
    c->map = arena_array(a, struct jwt_requirement, m->n_requirement_map + 1);
    for (size_t i = 0; i < m->n_requirement_map; i++) {
        struct jwt_requirement *r = &c->map[c->map_count];
        r->name = arena_str(a, str_c(m->requirement_map[i]->key));
        if (jwt_requirement_find(c, r->name)) {
            return err_set(err, -EINVAL, "requirement_map[\"%s\"]: is there twice", m->requirement_map[i]->key);
        }
        if (m->requirement_map[i]->value && build_requirement(c, m->requirement_map[i]->value, a, r, err)) {
            return err_wrap(err, "requirement_map[\"%s\"]", m->requirement_map[i]->key);
        }
        c->map_count++;
    }
    qsort(c->map, c->map_count, sizeof(*c->map), by_name);
    for (size_t i = 0; i < c->map_count; i++) {
        c->map_names = arena_printf(a, "%.*s%s%.*s", STR_FMT(c->map_names), i ? "," : "", STR_FMT(c->map[i].name));
    }
    return 0;
}

// ---- rules ----

// Envoy looks at path, headers and query alone; a rule that counts on more would let pass here what it stops there, or the other way round.
static int check_match(const Envoy__Config__Route__V3__RouteMatch *m, struct err *err)
{
    const char *field = m->runtime_fraction ? "runtime_fraction" : m->grpc ? "grpc" : m->n_cookies ? "cookies" : m->n_dynamic_metadata ? "dynamic_metadata" : NULL;
    return field ? err_set(err, -ENOTSUP, "match.%s: is not looked at in rules of this filter", field) : 0;
}

static int build_rule(struct config_ctx *ctx, const pb_rule *m, struct arena *a, const struct jwt_cfg *c, struct jwt_rule *r, struct err *err)
{
    if (!m->match) {
        return err_set(err, -EINVAL, "match: is missing");
    }
    if (!config_route_match) {
        return err_set(err, -ENOTSUP, "match: there is nobody here who reads it");
    }
    if (check_match(m->match, err) || config_route_match(ctx, m->match, a, &r->match, err)) {
        return err->code;
    }
    struct jwt_requirement *own;
    switch (m->requirement_type_case) {
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__REQUIREMENT_RULE__REQUIREMENT_TYPE_REQUIRES:
        own = arena_new(a, struct jwt_requirement);
        if (build_requirement(c, m->requires, a, own, err)) {
            return err_wrap(err, "requires");
        }
        r->needs = own;
        return 0;
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__REQUIREMENT_RULE__REQUIREMENT_TYPE_REQUIREMENT_NAME:
        r->needs = jwt_requirement_find(c, str_c(m->requirement_name));
        return r->needs ? 0 : err_set(err, -EINVAL, "requirement_name: \"%s\" is none of [%.*s]", m->requirement_name, STR_FMT(c->map_names));
    default:
        return 0;
    }
}

// Header fields that are ours alone: what a client sends under these names never passes for a verified claim.
static void collect_sanitized(struct jwt_cfg *c, struct arena *a)
{
    size_t n = 0;
    for (size_t i = 0; i < c->provider_count; i++) {
        n += 1 + c->providers[i].claim_count;
    }
    c->sanitize = arena_array(a, struct str, n + 1);
    for (size_t i = 0; i < c->provider_count; i++) {
        const struct jwt_provider *p = &c->providers[i];
        if (p->payload_header.n) {
            c->sanitize[c->sanitize_count++] = p->payload_header;
        }
        for (size_t k = 0; k < p->claim_count; k++) {
            c->sanitize[c->sanitize_count++] = p->claims[k].name;
        }
    }
}

static int provider_order(const void *x, const void *y)
{
    return str_cmp(((const struct jwt_provider *)x)->name, ((const struct jwt_provider *)y)->name);
}

static int build_providers(struct config_ctx *ctx, const pb_authn *m, struct arena *a, struct jwt_cfg *c, struct err *err)
{
    if (m->n_providers > JWT_PROVIDERS_MAX) {
        return err_set(err, -EINVAL, "providers: more than %d", JWT_PROVIDERS_MAX);
    }
    c->providers = arena_array(a, struct jwt_provider, m->n_providers + 1);
    for (size_t i = 0; i < m->n_providers; i++) {
        const char *name = m->providers[i]->key;
        if (provider_named(c, str_c(name))) {
            return err_set(err, -EINVAL, "providers[\"%s\"]: is there twice", name);
        }
        struct jwt_provider *p = &c->providers[c->provider_count];
        if (!m->providers[i]->value) {
            return err_set(err, -EINVAL, "providers[\"%s\"]: jwks_source_specifier is missing", name);
        }
        if (jwt_provider_build(ctx, name, m->providers[i]->value, a, p, err)) {
            return err_wrap(err, "providers[\"%s\"]", name);
        }
        c->provider_count++;
    }
    qsort(c->providers, c->provider_count, sizeof(*c->providers), provider_order); // before anything points to them
    return 0;
}

int jwt_config_parse(struct config_ctx *ctx, const void *msg, struct arena *a, void **ret_cfg, struct err *err)
{
    const pb_authn *m = msg;
    struct jwt_cfg *c = arena_new(a, struct jwt_cfg);
    if (!m) {
        return err_set(err, -EINVAL, "providers: the filter has no configuration");
    }
    c->bypass_preflight = m->bypass_cors_preflight;
    c->strip_failure = m->strip_failure_response;
    c->stat_prefix = arena_str(a, str_c(m->stat_prefix));
    if (build_providers(ctx, m, a, c, err) || build_map(m, a, c, err)) {
        return err->code;
    }
    collect_sanitized(c, a);
    c->rules = arena_array(a, struct jwt_rule, m->n_rules + 1);
    for (size_t i = 0; i < m->n_rules; i++, c->rule_count++) {
        if (build_rule(ctx, m->rules[i], a, c, &c->rules[i], err)) {
            return err_wrap(err, "rules[%zu]", i);
        }
    }
    *ret_cfg = c;
    return 0;
}

int jwt_route_parse(struct config_ctx *ctx, const void *msg, struct arena *a, void **ret_cfg, struct err *err)
{
    (void)ctx;
    const pb_route *m = msg;
    struct jwt_route_cfg *c = arena_new(a, struct jwt_route_cfg);
    switch (m->requirement_specifier_case) {
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__PER_ROUTE_CONFIG__REQUIREMENT_SPECIFIER_DISABLED:
        if (!m->disabled) {
            return err_set(err, -EINVAL, "disabled: must be true");
        }
        c->disabled = true;
        break;
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__PER_ROUTE_CONFIG__REQUIREMENT_SPECIFIER_REQUIREMENT_NAME:
        if (!m->requirement_name[0]) {
            return err_set(err, -EINVAL, "requirement_name: is empty");
        }
        c->requirement = arena_str(a, str_c(m->requirement_name));
        break;
    default:
        return err_set(err, -EINVAL, "requirement_specifier: disabled or requirement_name is needed");
    }
    *ret_cfg = c;
    return 0;
}
