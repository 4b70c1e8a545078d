// SPDX-License-Identifier: Apache-2.0
// The mesh's own settings, where Istio keeps them: the ConfigMap "istio" in istio-system, whose member "mesh" is a MeshConfig in YAML.
#include <errno.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"

enum { PROVIDER_NAME_MAX = 63 };

// What goes into names of metadata and policies.
static int check_name(struct loader *l, const struct json *n, struct str s)
{
    bool good = s.n && s.n <= PROVIDER_NAME_MAX && s.p[0] != '-' && s.p[s.n - 1] != '-';
    for (size_t i = 0; i < s.n && good; i++) {
        good = (s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '-';
    }
    return good ? 0 : ld_fail(l, n, "name: \"%.*s\" is no name of a provider (a-z, 0-9 and '-', at most %d)", STR_FMT(s), PROVIDER_NAME_MAX);
}

static int load_body(struct loader *l, const struct json *n, struct cp_provider *p)
{
    const struct json *b = NULL;
    if (ld_object(l, n, "includeRequestBodyInCheck", &b) ||
        (b && (ld_members(l, b, "maxRequestBytes allowPartialMessage packAsBytes") || ld_u32(l, b, "maxRequestBytes", UINT32_MAX, &p->body_max) ||
               ld_bool(l, b, "allowPartialMessage", &p->partial) || ld_bool(l, b, "packAsBytes", &p->pack)))) {
        return -EINVAL;
    }
    p->body = b;
    return b && !p->body_max ? ld_fail(l, b, "maxRequestBytes: must be there and above 0") : 0;
}

static int load_status(struct loader *l, const struct json *n, struct cp_provider *p)
{
    static const uint16_t known[] = { 100, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400,
                                      401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424, 426,
                                      428, 429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511 }; // type.v3.StatusCode
    struct str s = { 0 };
    uint64_t v = 0;
    if (ld_str(l, n, "statusOnError", &s)) {
        return -EINVAL;
    }
    bool good = !s.n;
    for (size_t i = 0; s.n && str_to_u64(s, 999, &v) && i < array_len(known) && !good; i++) {
        good = known[i] == v;
    }
    p->status_on_error = (uint32_t)v;
    return good ? 0 : ld_fail(l, json_get(n, "statusOnError"), "\"%.*s\" is no HTTP status", STR_FMT(s));
}

static int check_patterns(struct loader *l, const struct json *n, const char *key, const struct str *v, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!v[i].n || str_is(v[i], "*")) {
            return ld_fail(l, json_get(n, key), "\"%.*s\": a header's name is needed, or its beginning or end with a *", STR_FMT(v[i]));
        }
    }
    return 0;
}

static int load_http(struct loader *l, const struct json *n, struct cp_provider *p)
{
    if (ld_str(l, n, "pathPrefix", &p->path_prefix) || ld_strs(l, n, "includeRequestHeadersInCheck", &p->include, &p->include_count) ||
        (!p->include_count && ld_strs(l, n, "includeHeadersInCheck", &p->include, &p->include_count)) ||
        ld_strs(l, n, "headersToUpstreamOnAllow", &p->upstream, &p->upstream_count) ||
        ld_strs(l, n, "headersToDownstreamOnDeny", &p->downstream_deny, &p->downstream_deny_count) ||
        ld_strs(l, n, "headersToDownstreamOnAllow", &p->downstream_allow, &p->downstream_allow_count) ||
        ld_labels(l, n, "includeAdditionalHeadersInCheck", &p->add)) {
        return -EINVAL;
    }
    if (p->path_prefix.n && p->path_prefix.p[0] != '/') {
        return ld_fail(l, json_get(n, "pathPrefix"), "must begin with /");
    }
    return check_patterns(l, n, "includeRequestHeadersInCheck", p->include, p->include_count) ||
                   check_patterns(l, n, "headersToUpstreamOnAllow", p->upstream, p->upstream_count) ||
                   check_patterns(l, n, "headersToDownstreamOnDeny", p->downstream_deny, p->downstream_deny_count) ||
                   check_patterns(l, n, "headersToDownstreamOnAllow", p->downstream_allow, p->downstream_allow_count)
               ? -EINVAL
               : 0;
}

#define COMMON_MEMBERS "service port timeout failOpen statusOnError includeRequestBodyInCheck"

static int load_provider(struct loader *l, const struct json *n, struct cp_provider *p)
{
    const struct json *http = NULL, *grpc = NULL;
    if (ld_members(l, n, "name envoyExtAuthzHttp envoyExtAuthzGrpc") || ld_str(l, n, "name", &p->name) || check_name(l, n, p->name) ||
        ld_object(l, n, "envoyExtAuthzHttp", &http) || ld_object(l, n, "envoyExtAuthzGrpc", &grpc)) {
        return -EINVAL;
    }
    if (!http == !grpc) {
        return ld_fail(l, n, "%.*s: exactly one of envoyExtAuthzHttp and envoyExtAuthzGrpc is needed", STR_FMT(p->name));
    }
    const struct json *x = http ? http : grpc;
    p->grpc = grpc;
    p->line = n->line;
    if (ld_members(l, x, http ? COMMON_MEMBERS " pathPrefix includeRequestHeadersInCheck includeHeadersInCheck includeAdditionalHeadersInCheck "
                                               "headersToUpstreamOnAllow headersToDownstreamOnDeny headersToDownstreamOnAllow"
                              : COMMON_MEMBERS) ||
        ld_str(l, x, "service", &p->service) || ld_port(l, x, "port", &p->port) || ld_duration(l, x, "timeout", &p->timeout) ||
        ld_bool(l, x, "failOpen", &p->fail_open) || load_status(l, x, p) || load_body(l, x, p) || (http && load_http(l, x, p))) {
        return -EINVAL;
    }
    if (!p->service.n || !p->port) {
        return ld_fail(l, x, "service and port are needed");
    }
    return 0;
}

static int load_providers(struct loader *l, const struct json *n, struct cp_mesh *m)
{
    const struct json *list = NULL;
    if (ld_list(l, n, "extensionProviders", &list)) {
        return -EINVAL;
    }
    m->providers = arena_array(l->a, struct cp_provider, (list ? list->count : 0) + 1);
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        struct cp_provider *p = &m->providers[m->provider_count++];
        if (load_provider(l, x, p)) {
            return -EINVAL;
        }
        for (size_t i = 0; i + 1 < m->provider_count; i++) {
            if (str_eq(m->providers[i].name, p->name)) {
                return ld_fail(l, x, "name: \"%.*s\" is named twice", STR_FMT(p->name));
            }
        }
    }
    return 0;
}

// What the command line says as well; here it comes first.
static int load_defaults(struct loader *l, const struct json *n, struct cp_mesh *m)
{
    struct str root = STR("istio-system"), log = { 0 };
    const struct json *outbound = NULL;
    int mode = -1;
    if (ld_str(l, n, "rootNamespace", &root) || ld_str(l, n, "accessLogFile", &log) || ld_str(l, n, "trustDomain", &m->trust_domain) ||
        ld_duration(l, n, "protocolDetectionTimeout", &m->sniff_timeout) || ld_object(l, n, "outboundTrafficPolicy", &outbound) ||
        (outbound && (ld_members(l, outbound, "mode") || ld_word(l, outbound, "mode", "REGISTRY_ONLY ALLOW_ANY", &mode)))) {
        return -EINVAL;
    }
    if (!str_is(root, "istio-system")) {
        return ld_fail(l, json_get(n, "rootNamespace"), "must be istio-system");
    }
    if (log.n && !str_is(log, "/dev/stdout")) {
        return ld_fail(l, json_get(n, "accessLogFile"), "must be /dev/stdout, or empty");
    }
    m->access_log = log.n ? 1 : json_get(n, "accessLogFile") ? -1 : 0;
    m->registry_only = mode == 0 ? 1 : mode == 1 ? -1 : 0;
    return 0;
}

#define SETTINGS "extensionProviders trustDomainAliases trustDomain rootNamespace accessLogFile outboundTrafficPolicy protocolDetectionTimeout"

static int load_settings(struct loader *l, const struct json *n)
{
    struct cp_mesh *m = &l->c->mesh;
    if (ld_members(l, n, SETTINGS) || load_defaults(l, n, m) || ld_strs(l, n, "trustDomainAliases", &m->aliases, &m->alias_count) ||
        load_providers(l, n, m)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < m->alias_count; i++) {
        if (ld_name(l, json_get(n, "trustDomainAliases"), "trust domain", m->aliases[i])) {
            return -EINVAL;
        }
    }
    return 0;
}

// Lines of the text are those of the file: it begins behind the line of "mesh: |".
static void move_lines(struct json *n, int by)
{
    n->line += by;
    for (struct json *x = n->first; x; x = x->next) {
        move_lines(x, by);
    }
}

int ld_config_map(struct loader *l, const struct json *doc)
{
    const struct json *data = json_get(doc, "data"), *text = json_get(data, "mesh");
    struct json *docs = NULL;
    struct err e = { 0 };
    if (!str_is(l->meta.name, "istio") || !str_is(l->meta.ns, "istio-system")) {
        return ld_fail(l, doc, "of all ConfigMaps, only \"istio\" in istio-system has a meaning here");
    }
    if (l->c->mesh.file) {
        return ld_fail(l, doc, "ConfigMap istio is there already: %s", l->c->mesh.file);
    }
    l->c->mesh.file = l->file;
    if (!data || ld_members(l, data, "mesh meshNetworks") || !text) {
        return data && !text ? 0 : data ? -EINVAL : ld_fail(l, doc, "data: missing");
    }
    if (text->type != JSON_STRING) {
        return ld_mistyped(l, text, "must be text: \"mesh: |\", and YAML below it");
    }
    if (yaml_parse(text->text, l->a, &docs, &e)) {
        return ld_fail(l, text, "%s (lines counted from here)", e.msg);
    }
    if (!docs->first) {
        return 0;
    }
    move_lines(docs, text->line);
    return docs->first->type != JSON_OBJECT ? ld_mistyped(l, text, "must be an object") : load_settings(l, docs->first);
}
