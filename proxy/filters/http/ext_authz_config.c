// SPDX-License-Identifier: Apache-2.0
// envoy.extensions.filters.http.ext_authz.v3 → struct authz_cfg. What cannot be done as it says is refused by name.
#include <errno.h>

#include "envoy/extensions/filters/http/ext_authz/v3/ext_authz.pb-c.h"
#include "lib/http/chars.h"
#include "lib/tls/transport_tls.h"
#include "proto/pb_util.h"
#include "proxy/authz/match_parse.h"
#include "proxy/authz/node_labels.h"
#include "proxy/filters/http/ext_authz.h"
#include "proxy/filters/http/parse.h"
#include "proxy/filters/http/parse_fields.h"

typedef Envoy__Extensions__Filters__Http__ExtAuthz__V3__ExtAuthz ext_authz_msg;
typedef Envoy__Extensions__Filters__Http__ExtAuthz__V3__HttpService http_msg;
typedef Envoy__Extensions__Filters__Http__ExtAuthz__V3__ExtAuthzPerRoute route_msg;
typedef Envoy__Extensions__Filters__Http__ExtAuthz__V3__CheckSettings settings_msg;
typedef Envoy__Extensions__Filters__Http__ExtAuthz__V3__BufferSettings buffer_msg;
typedef Envoy__Type__Matcher__V3__ListStringMatcher list_msg;

enum { TIMEOUT_MS = 200, STATUS_ON_ERROR = 403 }; // Envoy's, where none is said

bool authz_names_match(const struct authz_names *n, struct str name)
{
    for (size_t i = 0; i < n->count; i++) {
        if (string_matcher_match(&n->v[i], name)) {
            return true;
        }
    }
    return false;
}

static int take_names(const list_msg *m, const char *field, struct arena *a, struct authz_names *ret, struct err *err)
{
    if (!m) {
        return 0;
    }
    struct string_matcher *v = arena_array(a, struct string_matcher, m->n_patterns + 1);
    for (size_t i = 0; i < m->n_patterns; i++) {
        int rc = parse_string_matcher(m->patterns[i], a, &v[i], err);
        if (rc < 0) {
            return err_wrap(err, "%s.patterns[%zu]", field, i);
        }
    }
    *ret = (struct authz_names){ .v = v, .count = m->n_patterns, .set = true };
    return 0;
}

// AuthorizationRequest.headers_to_add: each replaces what the client sent.
static int take_adds(size_t n, Envoy__Config__Core__V3__HeaderValue *const *v, struct arena *a, struct authz_server *s, struct err *err)
{
    Envoy__Config__Core__V3__HeaderValueOption **options = arena_array(a, Envoy__Config__Core__V3__HeaderValueOption *, n + 1);
    for (size_t i = 0; i < n; i++) {
        options[i] = arena_new(a, Envoy__Config__Core__V3__HeaderValueOption);
        envoy__config__core__v3__header_value_option__init(options[i]);
        options[i]->header = v[i];
        options[i]->append_action =
            ENVOY__CONFIG__CORE__V3__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS_OR_ADD;
    }
    struct header_add *adds = NULL;
    int rc = parse_header_adds(n, options, "headers_to_add", a, &adds, &s->add_count, err);
    s->add = adds;
    return rc < 0 ? err_wrap(err, "authorization_request") : 0;
}

static int take_response(const Envoy__Extensions__Filters__Http__ExtAuthz__V3__AuthorizationResponse *m, struct arena *a, struct authz_server *s,
                         struct err *err)
{
    int rc = take_names(m->allowed_upstream_headers, "allowed_upstream_headers", a, &s->upstream, err);
    rc = rc ? rc : take_names(m->allowed_upstream_headers_to_append, "allowed_upstream_headers_to_append", a, &s->upstream_append, err);
    rc = rc ? rc : take_names(m->allowed_client_headers, "allowed_client_headers", a, &s->client, err);
    rc = rc ? rc : take_names(m->allowed_client_headers_on_success, "allowed_client_headers_on_success", a, &s->client_ok, err);
    rc = rc ? rc : take_names(m->dynamic_metadata_from_headers, "dynamic_metadata_from_headers", a, &s->metadata, err);
    return rc ? err_wrap(err, "authorization_response") : 0;
}

static int take_http(const http_msg *m, struct arena *a, struct authz_server *s, struct err *err)
{
    const Envoy__Config__Core__V3__HttpUri *u = m->server_uri;
    s->http = true;
    if (!u || u->http_upstream_type_case != ENVOY__CONFIG__CORE__V3__HTTP_URI__HTTP_UPSTREAM_TYPE_CLUSTER || !u->cluster[0]) {
        return err_set(err, -EINVAL, "server_uri.cluster: is missing");
    }
    s->cluster = arena_str(a, str_c(u->cluster));
    s->timeout_ms = (uint64_t)pb_duration_ms(u->timeout, TIMEOUT_MS);
    s->path_prefix = arena_str(a, str_c(m->path_prefix));
    if (s->path_prefix.n && (s->path_prefix.p[0] != '/' || !ch_all(s->path_prefix, CH_PATH))) {
        return err_set(err, -EINVAL, "path_prefix: must begin with \"/\" and be fit for a request line");
    }
    int rc = core_retry_parse(m->retry_policy, a, &s->retry, err);
    if (!rc && m->authorization_request) {
        rc = take_names(m->authorization_request->allowed_headers, "authorization_request.allowed_headers", a, &s->allowed, err);
        rc = rc ? rc : take_adds(m->authorization_request->n_headers_to_add, m->authorization_request->headers_to_add, a, s, err);
    }
    return rc || !m->authorization_response ? rc : take_response(m->authorization_response, a, s, err);
}

static int take_body(const buffer_msg *m, bool http, struct authz_body *ret, struct err *err)
{
    if (m->max_request_bytes == 0) {
        return err_set(err, -EINVAL, "with_request_body.max_request_bytes: must be above 0");
    }
    *ret = (struct authz_body){ .max = m->max_request_bytes, .partial = m->allow_partial_message, .as_bytes = m->pack_as_bytes || http };
    return 0;
}

static struct authz_spaces take_spaces(size_t n, char *const *v, struct arena *a)
{
    struct str *out = arena_array(a, struct str, n + 1);
    for (size_t i = 0; i < n; i++) {
        out[i] = arena_str(a, str_c(v[i]));
    }
    return (struct authz_spaces){ .v = out, .count = n };
}

// What no code stands behind.
static int refuse_unsupported(const ext_authz_msg *m, struct err *err)
{
    const struct {
        const char *field;
        bool set;
    } fields[] = {
        { "clear_route_cache_headers", m->n_clear_route_cache_headers > 0 },
        { "typed_metadata_context_namespaces", m->n_typed_metadata_context_namespaces > 0 },
        { "route_typed_metadata_context_namespaces", m->n_route_typed_metadata_context_namespaces > 0 },
        { "filter_metadata", m->filter_metadata != NULL },
        { "emit_filter_state_stats", m->emit_filter_state_stats },
        { "enforce_response_header_limits", m->enforce_response_header_limits },
        { "shadow_mode", m->shadow_mode },
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (fields[i].set) {
            return err_set(err, -ENOTSUP, "%s: is not supported", fields[i].field);
        }
    }
    return 0;
}

// The listener waits for the cluster, as for those that it sends traffic to.
static void uses(struct config_ctx *ctx, const struct authz_server *s)
{
    if (config_uses_cluster && ctx) {
        config_uses_cluster(ctx, s->http ? s->cluster : s->grpc.cluster);
    }
}

static int take_server(const ext_authz_msg *m, struct arena *a, struct authz_cfg *c, struct err *err)
{
    if (m->services_case == ENVOY__EXTENSIONS__FILTERS__HTTP__EXT_AUTHZ__V3__EXT_AUTHZ__SERVICES_HTTP_SERVICE) {
        int rc = take_http(m->http_service, a, &c->server, err);
        return rc ? err_wrap(err, "http_service") : 0;
    }
    if (m->services_case != ENVOY__EXTENSIONS__FILTERS__HTTP__EXT_AUTHZ__V3__EXT_AUTHZ__SERVICES_GRPC_SERVICE) {
        return err_set(err, -EINVAL, "services: one of grpc_service and http_service is needed");
    }
    if (m->transport_api_version != ENVOY__CONFIG__CORE__V3__API_VERSION__V3) {
        return err_set(err, -EINVAL, "transport_api_version: must be V3");
    }
    int rc = grpc_service_parse(m->grpc_service, TIMEOUT_MS, a, &c->server.grpc, err);
    return rc ? err_wrap(err, "grpc_service") : 0;
}

static int take_switches(struct config_ctx *ctx, const ext_authz_msg *m, struct arena *a, struct authz_cfg *c, struct err *err)
{
    if (m->filter_enabled) {
        c->has_enabled = true;
        c->enabled = parse_runtime_fraction(ctx, m->filter_enabled);
    }
    if (m->deny_at_disable) {
        c->deny_at_disable = pb_bool_or(m->deny_at_disable->default_value, false);
        const char *key = m->deny_at_disable->runtime_key;
        int rc = config_runtime_bool && key[0] ? config_runtime_bool(ctx, key, &c->deny_at_disable, err) : 0;
        if (rc) {
            return err_wrap(err, "deny_at_disable");
        }
    }
    if (m->filter_enabled_metadata && metadata_match_parse(m->filter_enabled_metadata, a, &c->enabled_metadata, err)) {
        return err_wrap(err, "filter_enabled_metadata");
    }
    return 0;
}

static int status_of(const Envoy__Type__V3__HttpStatus *m)
{
    int code = m ? (int)m->code : 0;
    return code >= 200 && code <= 511 ? code : STATUS_ON_ERROR; // 100 would have the client wait for an answer
}

static int take_lists(const ext_authz_msg *m, struct arena *a, struct authz_cfg *c, struct err *err)
{
    int rc = take_names(m->allowed_headers, "allowed_headers", a, &c->allowed, err);
    rc = rc ? rc : take_names(m->disallowed_headers, "disallowed_headers", a, &c->disallowed, err);
    if (!rc && c->server.http) {
        if (c->allowed.set && c->server.allowed.set) {
            return err_set(err, -EINVAL, "allowed_headers: is said by http_service.authorization_request too");
        }
        c->allowed = c->allowed.set ? c->allowed : c->server.allowed;
        c->server.allowed = c->allowed;
    }
    c->metadata = take_spaces(m->n_metadata_context_namespaces, m->metadata_context_namespaces, a);
    c->route_metadata = take_spaces(m->n_route_metadata_context_namespaces, m->route_metadata_context_namespaces, a);
    return rc;
}

int ext_authz_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const ext_authz_msg *m = msg;
    if (!m) {
        return err_set(err, -EINVAL, "services: one of grpc_service and http_service is needed");
    }
    struct authz_cfg *c = arena_new(arena, struct authz_cfg);
    int rc = refuse_unsupported(m, err);
    rc = rc ? rc : take_server(m, arena, c, err);
    rc = rc ? rc : take_switches(ctx, m, arena, c, err);
    rc = rc ? rc : take_lists(m, arena, c, err);
    if (!rc && m->with_request_body) {
        c->has_body = true;
        rc = take_body(m->with_request_body, c->server.http, &c->body, err);
    }
    if (rc) {
        return rc;
    }
    uses(ctx, &c->server);
    c->failure_mode_allow = m->failure_mode_allow;
    c->failure_mode_header = m->failure_mode_allow_header_add;
    c->clear_route_cache = m->clear_route_cache;
    c->status_on_error = status_of(m->status_on_error);
    c->validate = m->validate_mutations;
    c->peer_certificate = m->include_peer_certificate;
    if (c->peer_certificate) {
        tls_want_peer_pem();
    }
    c->tls_session = m->include_tls_session;
    c->stat_suffix = m->stat_prefix[0] ? arena_printf(arena, "ext_authz.%s", m->stat_prefix) : STR("ext_authz");
    c->charge_cluster = pb_bool_or(m->charge_cluster_response_stats, true);
    c->raw_headers = m->encode_raw_headers;
    c->take_metadata = pb_bool_or(m->enable_dynamic_metadata_ingestion, true);
    c->max_denied_body = m->max_denied_response_body_bytes;
    c->label_count = node_labels_get(m->bootstrap_metadata_labels_key, arena, &c->labels);
    *ret_cfg = c;
    return 0;
}

// ---- per route ----

static int take_route_server(const settings_msg *m, struct arena *a, struct authz_route *r, struct err *err)
{
    struct authz_server *s = arena_new(a, struct authz_server);
    int rc;
    switch (m->service_override_case) {
    case ENVOY__EXTENSIONS__FILTERS__HTTP__EXT_AUTHZ__V3__CHECK_SETTINGS__SERVICE_OVERRIDE_GRPC_SERVICE:
        rc = grpc_service_parse(m->grpc_service, TIMEOUT_MS, a, &s->grpc, err);
        rc = rc ? err_wrap(err, "grpc_service") : 0;
        break;
    case ENVOY__EXTENSIONS__FILTERS__HTTP__EXT_AUTHZ__V3__CHECK_SETTINGS__SERVICE_OVERRIDE_HTTP_SERVICE:
        rc = take_http(m->http_service, a, s, err);
        rc = rc ? err_wrap(err, "http_service") : 0;
        break;
    default:
        return 0;
    }
    r->server = s;
    return rc;
}

static int take_settings(const settings_msg *m, struct arena *a, struct authz_route *r, struct err *err)
{
    struct check_pair *v = arena_array(a, struct check_pair, m->n_context_extensions + 1);
    for (size_t i = 0; i < m->n_context_extensions; i++) {
        v[i] = (struct check_pair){ arena_str(a, str_c(m->context_extensions[i]->key)), arena_str(a, str_c(m->context_extensions[i]->value)) };
    }
    r->extensions = v;
    r->extension_count = m->n_context_extensions;
    r->no_body = m->disable_request_body_buffering;
    r->has_body = m->with_request_body != NULL;
    if (r->no_body && r->has_body) {
        return err_set(err, -EINVAL, "with_request_body: contradicts disable_request_body_buffering");
    }
    int rc = r->has_body ? take_body(m->with_request_body, false, &r->body, err) : 0;
    return rc ? rc : take_route_server(m, a, r, err);
}

int ext_authz_parse_route(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const route_msg *m = msg;
    struct authz_route *r = arena_new(arena, struct authz_route);
    *ret_cfg = r;
    switch (m->override_case) {
    case ENVOY__EXTENSIONS__FILTERS__HTTP__EXT_AUTHZ__V3__EXT_AUTHZ_PER_ROUTE__OVERRIDE_DISABLED:
        r->disabled = m->disabled;
        return m->disabled ? 0 : err_set(err, -EINVAL, "disabled: must be true");
    case ENVOY__EXTENSIONS__FILTERS__HTTP__EXT_AUTHZ__V3__EXT_AUTHZ_PER_ROUTE__OVERRIDE_CHECK_SETTINGS:
        if (take_settings(m->check_settings, arena, r, err)) {
            return err_wrap(err, "check_settings");
        }
        if (r->server) {
            uses(ctx, r->server);
        }
        return 0;
    default:
        return err_set(err, -EINVAL, "override: one of disabled and check_settings is needed");
    }
}
