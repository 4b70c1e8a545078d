// SPDX-License-Identifier: Apache-2.0
// The filter that asks a provider of CUSTOM policies. The RBAC filter before it says by its metadata which requests are asked about.
#include <stdlib.h>

#include "control-plane/compile_int.h"

#define URL_PREFIX "type.googleapis.com/envoy.extensions.filters."

static void write_patterns(struct compiler *k, struct buf *b, const char *sep, const char *member, const struct str *v, size_t n)
{
    if (!n) {
        return;
    }
    buf_printf(b, "%s%s: {patterns: [", sep, member);
    for (size_t i = 0; i < n; i++) {
        bool front = str_starts(v[i], STR("*")), back = !front && str_ends(v[i], STR("*"));
        struct str s = front ? str_skip(v[i], 1) : back ? str_n(v[i].p, v[i].n - 1) : v[i];
        buf_printf(b, "%s{ignore_case: true, %s: %s}", i ? ", " : "", front ? "suffix" : back ? "prefix" : "exact", cpc_q(k, s));
    }
    buf_printf(b, "]}");
}

static int by_key(const void *a, const void *b)
{
    return str_cmp(((const struct cp_label *)a)->key, ((const struct cp_label *)b)->key);
}

static void write_added_headers(struct compiler *k, struct buf *b, const struct cp_labels *add)
{
    if (!add->n) {
        return;
    }
    struct cp_label *v = arena_array(&k->scratch, struct cp_label, add->n);
    memcpy(v, add->v, add->n * sizeof(*v));
    qsort(v, add->n, sizeof(*v), by_key);
    buf_printf(b, ", authorization_request: {headers_to_add: [");
    for (size_t i = 0; i < add->n; i++) {
        buf_printf(b, "%s{key: %s, value: %s}", i ? ", " : "", cpc_q(k, v[i].key), cpc_q(k, v[i].value));
    }
    buf_printf(b, "]}");
}

static const char *timeout_of(struct compiler *k, const struct cp_provider *p)
{
    return p->timeout.n ? cpc_q(k, p->timeout) : "600s"; // Istio's default
}

static void write_http_service(struct compiler *k, struct buf *b, const struct cp_provider *p, struct str host)
{
    buf_printf(b, ", http_service: {server_uri: {uri: %s, cluster: %s, timeout: %s}", cpc_qf(k, "http://%.*s", STR_FMT(host)),
               cpc_qf(k, "outbound|%u||%.*s", p->port, STR_FMT(host)), timeout_of(k, p));
    if (p->path_prefix.n) {
        buf_printf(b, ", path_prefix: %s", cpc_q(k, p->path_prefix));
    }
    write_added_headers(k, b, &p->add);
    if (p->upstream_count || p->downstream_deny_count || p->downstream_allow_count) {
        buf_printf(b, ", authorization_response: {");
        write_patterns(k, b, "", "allowed_upstream_headers", p->upstream, p->upstream_count);
        write_patterns(k, b, p->upstream_count ? ", " : "", "allowed_client_headers", p->downstream_deny, p->downstream_deny_count);
        write_patterns(k, b, p->upstream_count || p->downstream_deny_count ? ", " : "", "allowed_client_headers_on_success", p->downstream_allow,
                       p->downstream_allow_count);
        buf_printf(b, "}");
    }
    buf_printf(b, "}");
    write_patterns(k, b, ", ", "allowed_headers", p->include, p->include_count);
}

static void write_grpc_service(struct compiler *k, struct buf *b, const struct cp_provider *p, struct str host)
{
    buf_printf(b, ", grpc_service: {envoy_grpc: {cluster_name: %s, authority: %s}, timeout: %s}",
               cpc_qf(k, "outbound|%u||%.*s", p->port, STR_FMT(host)), cpc_q(k, host), timeout_of(k, p));
}

static void write_enabled(struct compiler *k, struct buf *b, const struct cp_provider *p, const char *filter)
{
    buf_printf(b, ", filter_enabled_metadata: {filter: %s, path: [{key: istio_ext_authz_shadow_effective_policy_id}], value: {string_match: {prefix: %s}}}",
               filter, cpc_qf(k, "istio-ext-authz-%.*s", STR_FMT(p->name)));
}

void cpc_ext_authz(struct compiler *k, struct buf *b, const struct cp_provider *p, bool tcp)
{
    struct str host = cp_find_provider_service(k->c, p->service)->host; // checked when loaded
    if (tcp) {
        buf_printf(b, "{name: envoy.filters.network.ext_authz, typed_config: {'@type': " URL_PREFIX "network.ext_authz.v3.ExtAuthz, stat_prefix: tcp., "
                      "transport_api_version: V3");
        write_enabled(k, b, p, "envoy.filters.network.rbac");
    } else {
        buf_printf(b, "{name: envoy.filters.http.ext_authz, typed_config: {'@type': " URL_PREFIX "http.ext_authz.v3.ExtAuthz, transport_api_version: V3");
        write_enabled(k, b, p, "envoy.filters.http.rbac");
        if (p->status_on_error) {
            buf_printf(b, ", status_on_error: {code: %u}", p->status_on_error);
        }
        if (p->body) {
            buf_printf(b, ", with_request_body: {max_request_bytes: %u, allow_partial_message: %s, pack_as_bytes: %s}", p->body_max,
                       p->partial ? "true" : "false", p->pack ? "true" : "false");
        }
    }
    buf_printf(b, ", failure_mode_allow: %s", p->fail_open ? "true" : "false");
    (p->grpc ? write_grpc_service : write_http_service)(k, b, p, host);
    buf_printf(b, "}}, ");
}
