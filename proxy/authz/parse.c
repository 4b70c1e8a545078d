// SPDX-License-Identifier: Apache-2.0
// config.rbac.v3.RBAC → the tree. A condition that cannot be taken refuses the whole configuration: without it a policy would mean something else.
#include <errno.h>
#include <stdlib.h>

#include "envoy/config/rbac/v3/rbac.pb-c.h"
#include "envoy/extensions/path/match/uri_template/v3/uri_template_match.pb-c.h"
#include "lib/base/map.h"
#include "proto/pb_util.h"
#include "proxy/authz/authz_int.h"
#include "proxy/authz/match_parse.h"
#include "proxy/model/uri_template.h"

typedef Envoy__Config__Rbac__V3__Permission pb_permission;
typedef Envoy__Config__Rbac__V3__Principal pb_principal;

struct parse {
    struct arena *a;
    enum authz_of of;
    struct err *err;
    size_t nodes;
};

static int bad(struct parse *p, const char *text)
{
    return err_set(p->err, -EINVAL, "%s", text);
}

static int permission(struct parse *p, const pb_permission *m, int depth, struct node *n);
static int principal(struct parse *p, const pb_principal *m, int depth, struct node *n);

// ---- what permissions and principals have in common ----

static int text(struct parse *p, enum node_input input, const Envoy__Type__Matcher__V3__StringMatcher *m, struct node *n)
{
    n->kind = NODE_STRING;
    n->input = (uint8_t)input;
    n->string = arena_new(p->a, struct string_matcher);
    return parse_string_matcher(m, p->a, n->string, p->err);
}

static int url_path(struct parse *p, const Envoy__Type__Matcher__V3__PathMatcher *m, struct node *n)
{
    if (m->rule_case != ENVOY__TYPE__MATCHER__V3__PATH_MATCHER__RULE_PATH) {
        return bad(p, "url_path.path: is missing");
    }
    int rc = text(p, IN_PATH, m->path, n);
    return rc < 0 ? err_wrap(p->err, "url_path.path") : 0;
}

static int header(struct parse *p, const Envoy__Config__Route__V3__HeaderMatcher *m, struct node *n)
{
    if (p->of == AUTHZ_OF_CONNECTION) { // as Envoy
        return err_set(p->err, -EINVAL, "header: \"%s\": a connection has no header fields", m->name);
    }
    n->kind = NODE_HEADER;
    n->header = arena_new(p->a, struct header_matcher);
    int rc = parse_header_matcher(m, p->a, n->header, p->err);
    return rc < 0 ? err_wrap(p->err, "header") : 0;
}

static int cidr(struct parse *p, enum node_input input, const Envoy__Config__Core__V3__CidrRange *m, const char *field, struct node *n)
{
    struct addr a;
    uint32_t len = pb_u32_or(m->prefix_len, 0);
    n->kind = NODE_CIDR;
    n->input = (uint8_t)input;
    n->cidr = arena_new(p->a, struct cidr);
    bool ok = addr_parse_ip(str_c(m->address_prefix), 0, &a) && len <= (a.family == AF_INET ? 32 : 128);
    struct str range = arena_printf(p->a, "%s/%u", m->address_prefix, len);
    if (!ok || !cidr_parse(range, n->cidr)) {
        return err_set(p->err, -EINVAL, "%s: \"%.*s\" is not an address range", field, STR_FMT(range));
    }
    return 0;
}

// Filters that are taken without what they would find out in the bytes: a condition on it would never hold, so a DENY would let pass.
static bool writes_nothing(const char *space)
{
    return !strcmp(space, "envoy.filters.network.mysql_proxy") || !strcmp(space, "envoy.filters.network.mongo_proxy");
}

static int metadata(struct parse *p, const Envoy__Type__Matcher__V3__MetadataMatcher *m, bool of_route, struct node *n)
{
    if (writes_nothing(m->filter)) {
        return err_set(p->err, -ENOTSUP, "metadata: \"%s\" finds nothing out here", m->filter);
    }
    n->kind = NODE_METADATA;
    n->input = of_route ? IN_ROUTE : IN_NONE;
    int rc = metadata_match_parse(m, p->a, &n->metadata, p->err);
    return rc < 0 ? err_wrap(p->err, "metadata") : 0;
}

static int sourced_metadata(struct parse *p, const Envoy__Config__Rbac__V3__SourcedMetadata *m, struct node *n)
{
    if (!m->metadata_matcher) {
        return bad(p, "sourced_metadata.metadata_matcher: is missing");
    }
    bool of_route = m->metadata_source == ENVOY__CONFIG__RBAC__V3__METADATA_SOURCE__ROUTE;
    int rc = metadata(p, m->metadata_matcher, of_route, n);
    return rc < 0 ? err_wrap(p->err, "sourced_metadata") : 0;
}

static int any(struct parse *p, bool value, struct node *n)
{
    n->kind = NODE_ANY;
    return value ? 0 : bad(p, "any: can only be true");
}

static int extension(struct parse *p, const Envoy__Config__Core__V3__TypedExtensionConfig *m, const char *field)
{
    return err_set(p->err, -ENOTSUP, "%s: the extension \"%s\" is not supported", field, m->name);
}

static int enter(struct parse *p, int depth)
{
    if (depth > AUTHZ_DEPTH_MAX) {
        return err_set(p->err, -EINVAL, "more than %d conditions within each other", AUTHZ_DEPTH_MAX);
    }
    return ++p->nodes > AUTHZ_NODES_MAX ? err_set(p->err, -EINVAL, "more than %d conditions", AUTHZ_NODES_MAX) : 0;
}

static struct node *children(struct parse *p, size_t n, enum node_kind kind, struct node *ret)
{
    ret->kind = (uint8_t)kind;
    ret->children = arena_array(p->a, struct node, n ? n : 1);
    return ret->children;
}

// ---- permissions ----

static int permissions(struct parse *p, enum node_kind kind, size_t count, pb_permission *const *v, int depth, struct node *n)
{
    if (!count) {
        return bad(p, "at least one is needed");
    }
    children(p, count, kind, n);
    for (size_t i = 0; i < count; i++, n->count++) {
        int rc = permission(p, v[i], depth + 1, &n->children[i]);
        if (rc < 0) {
            return err_wrap(p->err, "[%zu]", i);
        }
    }
    authz_fold(n, p->a);
    return 0;
}

static int uri_template(struct parse *p, const Envoy__Config__Core__V3__TypedExtensionConfig *m, struct node *n)
{
    Envoy__Extensions__Path__Match__UriTemplate__V3__UriTemplateMatchConfig *t = NULL;
    struct uri_template made;
    struct str type = m->typed_config ? pb_any_type_name(m->typed_config, p->a) : str_n(NULL, 0);
    if (!str_is(type, "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig")) {
        return extension(p, m, "uri_template");
    }
    int rc = pb_any_unpack_whole_as(Envoy__Extensions__Path__Match__UriTemplate__V3__UriTemplateMatchConfig,
                                    envoy__extensions__path__match__uri_template__v3__uri_template_match_config, m->typed_config, p->a, &t, p->err);
    rc = rc < 0 ? rc : uri_template_parse(str_c(t->path_template), p->a, &made, p->err);
    if (rc < 0) {
        return err_wrap(p->err, "uri_template");
    }
    Envoy__Type__Matcher__V3__RegexMatcher re = ENVOY__TYPE__MATCHER__V3__REGEX_MATCHER__INIT;
    Envoy__Type__Matcher__V3__StringMatcher s = ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__INIT;
    re.regex = (char *)arena_str(p->a, made.regex).p;
    s.match_pattern_case = ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX;
    s.safe_regex = &re;
    return text(p, IN_PATH, &s, n);
}

static int port_range(struct parse *p, int64_t from, int64_t to, struct node *n)
{
    if (from < 0 || to > 65536 || from >= to) {
        return bad(p, "is not a range of ports");
    }
    n->kind = NODE_PORTS;
    n->input = IN_LOCAL;
    n->ports.from = (uint32_t)from;
    n->ports.to = (uint32_t)to;
    return 0;
}

static int permission_ports(struct parse *p, const pb_permission *m, struct node *n)
{
    if (m->rule_case == ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_DESTINATION_PORT_RANGE) {
        int rc = port_range(p, m->destination_port_range->start, m->destination_port_range->end, n);
        return rc < 0 ? err_wrap(p->err, "destination_port_range") : 0;
    }
    int rc = port_range(p, m->destination_port, (int64_t)m->destination_port + 1, n);
    return rc < 0 ? err_wrap(p->err, "destination_port") : 0;
}

static int permission(struct parse *p, const pb_permission *m, int depth, struct node *n)
{
    int rc = enter(p, depth);
    if (rc < 0) {
        return rc;
    }
    switch (m->rule_case) {
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_AND_RULES:
        rc = permissions(p, NODE_AND, m->and_rules->n_rules, m->and_rules->rules, depth, n);
        return rc < 0 ? err_wrap(p->err, "and_rules.rules") : 0;
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_OR_RULES:
        rc = permissions(p, NODE_OR, m->or_rules->n_rules, m->or_rules->rules, depth, n);
        return rc < 0 ? err_wrap(p->err, "or_rules.rules") : 0;
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_NOT_RULE:
        rc = permission(p, m->not_rule, depth + 1, children(p, 1, NODE_NOT, n));
        return rc < 0 ? err_wrap(p->err, "not_rule") : 0;
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_ANY:
        return any(p, m->any, n);
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_HEADER:
        return header(p, m->header, n);
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_URL_PATH:
        return url_path(p, m->url_path, n);
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_URI_TEMPLATE:
        return uri_template(p, m->uri_template, n);
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_DESTINATION_IP:
        return cidr(p, IN_LOCAL, m->destination_ip, "destination_ip", n);
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_DESTINATION_PORT:
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_DESTINATION_PORT_RANGE:
        return permission_ports(p, m, n);
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_REQUESTED_SERVER_NAME:
        rc = text(p, IN_SERVER_NAME, m->requested_server_name, n);
        return rc < 0 ? err_wrap(p->err, "requested_server_name") : 0;
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_METADATA:
        return metadata(p, m->metadata, false, n);
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_SOURCED_METADATA:
        return sourced_metadata(p, m->sourced_metadata, n);
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_MATCHER:
        return extension(p, m->matcher, "matcher");
    default:
        return bad(p, "rule: is missing or not supported");
    }
}

// ---- principals ----

static int principals(struct parse *p, enum node_kind kind, size_t count, pb_principal *const *v, int depth, struct node *n)
{
    if (!count) {
        return bad(p, "at least one is needed");
    }
    children(p, count, kind, n);
    for (size_t i = 0; i < count; i++, n->count++) {
        int rc = principal(p, v[i], depth + 1, &n->children[i]);
        if (rc < 0) {
            return err_wrap(p->err, "[%zu]", i);
        }
    }
    authz_fold(n, p->a);
    return 0;
}

static int authenticated(struct parse *p, const Envoy__Config__Rbac__V3__Principal__Authenticated *m, struct node *n)
{
    if (!m->principal_name) {
        n->kind = NODE_TLS;
        return 0;
    }
    int rc = text(p, IN_PRINCIPAL, m->principal_name, n);
    return rc < 0 ? err_wrap(p->err, "authenticated.principal_name") : 0;
}

static int principal(struct parse *p, const pb_principal *m, int depth, struct node *n)
{
    int rc = enter(p, depth);
    if (rc < 0) {
        return rc;
    }
    switch (m->identifier_case) {
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_AND_IDS:
        rc = principals(p, NODE_AND, m->and_ids->n_ids, m->and_ids->ids, depth, n);
        return rc < 0 ? err_wrap(p->err, "and_ids.ids") : 0;
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_OR_IDS:
        rc = principals(p, NODE_OR, m->or_ids->n_ids, m->or_ids->ids, depth, n);
        return rc < 0 ? err_wrap(p->err, "or_ids.ids") : 0;
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_NOT_ID:
        rc = principal(p, m->not_id, depth + 1, children(p, 1, NODE_NOT, n));
        return rc < 0 ? err_wrap(p->err, "not_id") : 0;
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_ANY:
        return any(p, m->any, n);
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_AUTHENTICATED:
        return authenticated(p, m->authenticated, n);
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_SOURCE_IP:
        return cidr(p, IN_SOURCE, m->source_ip, "source_ip", n);
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_DIRECT_REMOTE_IP:
        return cidr(p, IN_DIRECT_REMOTE, m->direct_remote_ip, "direct_remote_ip", n);
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_REMOTE_IP:
        return cidr(p, IN_REMOTE, m->remote_ip, "remote_ip", n);
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_HEADER:
        return header(p, m->header, n);
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_URL_PATH:
        return url_path(p, m->url_path, n);
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_METADATA:
        return metadata(p, m->metadata, false, n);
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_SOURCED_METADATA:
        return sourced_metadata(p, m->sourced_metadata, n);
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_FILTER_STATE:
        return err_set(p->err, -ENOTSUP, "filter_state: \"%s\": filter state is not supported", m->filter_state->key);
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_CUSTOM:
        return extension(p, m->custom, "custom");
    default:
        return bad(p, "identifier: is missing or not supported");
    }
}

// ---- policies ----

static int policy(struct parse *p, const Envoy__Config__Rbac__V3__Policy *m, struct authz_policy *ret)
{
    if (m->opt_condition_case || m->opt_checked_condition_case || m->opt_cel_config_case) {
        return bad(p, "condition: expressions (CEL) are not supported");
    }
    int rc = permissions(p, NODE_OR, m->n_permissions, m->permissions, 0, &ret->permissions);
    if (rc < 0) {
        return err_wrap(p->err, "permissions");
    }
    rc = principals(p, NODE_OR, m->n_principals, m->principals, 0, &ret->principals);
    return rc < 0 ? err_wrap(p->err, "principals") : 0;
}

static int by_name(const void *a, const void *b)
{
    return str_cmp(((const struct authz_policy *)a)->name, ((const struct authz_policy *)b)->name);
}

// A map: of entries with one name the last counts.
static int policies(struct parse *p, const Envoy__Config__Rbac__V3__RBAC *m, struct authz *z)
{
    struct map seen = { 0 };
    int rc = 0;
    z->policies = arena_array(p->a, struct authz_policy, m->n_policies + 1);
    for (size_t i = 0; i < m->n_policies && rc == 0; i++) {
        const char *name = m->policies[i]->key;
        struct authz_policy *x = map_get(&seen, str_c(name));
        if (!x) {
            x = &z->policies[z->count++];
            x->name = arena_str(p->a, str_c(name));
            map_put(&seen, x->name, x);
        }
        x->permissions = x->principals = (struct node){ 0 };
        rc = m->policies[i]->value ? policy(p, m->policies[i]->value, x) : bad(p, "permissions: at least one is needed");
        rc = rc < 0 ? err_wrap(p->err, "policies[%s]", name) : 0;
    }
    map_fini(&seen);
    return rc;
}

int authz_parse(const void *msg, enum authz_of of, struct arena *a, struct authz **ret, struct err *err)
{
    const Envoy__Config__Rbac__V3__RBAC *m = msg;
    struct parse p = { .a = a, .of = of, .err = err };
    struct authz *z = arena_new(a, struct authz);
    if (m->opt_audit_logging_options_case) {
        return bad(&p, "audit_logging_options: audit loggers are not supported");
    }
    z->action = m->action == ENVOY__CONFIG__RBAC__V3__RBAC__ACTION__DENY  ? AUTHZ_DENY
                : m->action == ENVOY__CONFIG__RBAC__V3__RBAC__ACTION__LOG ? AUTHZ_LOG
                                                                         : AUTHZ_ALLOW;
    int rc = policies(&p, m, z);
    if (rc == 0) {
        qsort(z->policies, z->count, sizeof(*z->policies), by_name);
        *ret = z;
    }
    return rc;
}
