// SPDX-License-Identifier: Apache-2.0
// What a route looks at: the match blocks of HTTP, TLS and TCP routes.
#include <errno.h>
#include <string.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"
#include "lib/net/cidr.h"
#include "lib/regex/regex.h"

// A proxy would refuse the whole route table.
static int check_regex(struct loader *l, const struct json *n, struct str text)
{
    struct err e = { 0 };
    struct regex *re = regex_new(text, &e);
    if (!re) {
        return ld_fail(l, n, "%.500s", e.msg);
    }
    regex_free(re);
    return 0;
}

int ld_string_match(struct loader *l, const struct json *n, struct cp_string_match *m)
{
    static const struct {
        const char *key;
        enum cp_match kind;
    } kinds[] = { { "exact", CP_EXACT }, { "prefix", CP_PREFIX }, { "regex", CP_REGEX } };
    m->kind = CP_PRESENT;
    if (n->type == JSON_NULL) {
        return 0;
    }
    if (ld_members(l, n, "exact prefix regex")) {
        return -EINVAL;
    }
    if (n->count > 1) {
        return ld_fail(l, n, "only one of exact, prefix and regex can be given");
    }
    for (size_t i = 0; i < array_len(kinds); i++) {
        const struct json *x = json_get(n, kinds[i].key);
        if (!x) {
            continue;
        }
        if (ld_str(l, n, kinds[i].key, &m->value)) {
            return -EINVAL;
        }
        m->kind = kinds[i].kind;
        return m->kind == CP_REGEX ? check_regex(l, x, m->value) : 0;
    }
    return 0; // {}: any value, present
}

static int get_match(struct loader *l, const struct json *n, const char *key, struct cp_string_match *m)
{
    const struct json *x = json_get(n, key);
    return x ? ld_string_match(l, x, m) : 0;
}

static int load_named_matches(struct loader *l, const struct json *n, const char *key, bool without, struct cp_header_match **v, size_t *count)
{
    const struct json *m = NULL;
    if (ld_object(l, n, key, &m) || !m) {
        return m ? -EINVAL : l->err->code;
    }
    struct cp_header_match *nv = arena_array(l->a, struct cp_header_match, *count + m->count + 1);
    if (*count) {
        memcpy(nv, *v, *count * sizeof(**v));
    }
    *v = nv;
    for (const struct json *x = m->first; x; x = x->next) {
        struct cp_header_match *h = &nv[(*count)++];
        h->name = arena_str(l->a, x->key);
        h->without = without;
        if (!h->name.n || h->name.p[0] == '@') {
            return ld_fail(l, x, "is not supported; a header's name is wanted (matches on token claims are not there yet)");
        }
        if (without && str_is(json_str(x, "regex"), "*")) { // Istio's word for "is there"
            h->match.kind = CP_PRESENT;
        } else if (ld_string_match(l, x, &h->match)) {
            return -EINVAL;
        }
    }
    return 0;
}

int ld_gateways(struct loader *l, const struct json *n, enum cp_gateways *ret)
{
    struct str *v = NULL;
    size_t count = 0;
    if (ld_strs(l, n, "gateways", &v, &count)) {
        return -EINVAL;
    }
    *ret = count ? CP_GATEWAYS_OTHER : CP_GATEWAYS_UNSET;
    for (size_t i = 0; i < count; i++) {
        if (!v[i].n) {
            return ld_fail(l, json_get(n, "gateways"), "a name is empty");
        }
        *ret = str_is(v[i], "mesh") ? CP_GATEWAYS_MESH : *ret;
    }
    return 0;
}

int ld_http_match(struct loader *l, const struct json *n, struct cp_http_match *m)
{
    return ld_members(l, n, "name uri scheme method authority headers withoutHeaders port sourceLabels sourceNamespace queryParams ignoreUriCase "
                            "gateways statPrefix") ||
                   ld_str(l, n, "name", &m->name) || ld_str(l, n, "statPrefix", &m->stat_prefix) ||
                   ld_str(l, n, "sourceNamespace", &m->source_ns) || get_match(l, n, "uri", &m->uri) ||
                   get_match(l, n, "method", &m->method) || get_match(l, n, "authority", &m->authority) ||
                   get_match(l, n, "scheme", &m->scheme) || ld_bool(l, n, "ignoreUriCase", &m->ignore_uri_case) ||
                   ld_port(l, n, "port", &m->port) || ld_labels(l, n, "sourceLabels", &m->source_labels) ||
                   load_named_matches(l, n, "headers", false, &m->headers, &m->header_count) ||
                   load_named_matches(l, n, "withoutHeaders", true, &m->headers, &m->header_count) ||
                   load_named_matches(l, n, "queryParams", false, &m->queries, &m->query_count) || ld_gateways(l, n, &m->gateways)
               ? -EINVAL
               : 0;
}

int ld_l4_match(struct loader *l, const struct json *n, bool tls, struct cp_l4_match *m)
{
    if (ld_members(l, n, tls ? "sniHosts destinationSubnets port sourceLabels gateways sourceNamespace"
                             : "destinationSubnets port sourceLabels gateways sourceNamespace") ||
        ld_strs(l, n, "sniHosts", &m->sni, &m->sni_count) || ld_strs(l, n, "destinationSubnets", &m->subnets, &m->subnet_count) ||
        ld_port(l, n, "port", &m->port) || ld_labels(l, n, "sourceLabels", &m->source_labels) ||
        ld_str(l, n, "sourceNamespace", &m->source_ns) || ld_gateways(l, n, &m->gateways)) {
        return -EINVAL;
    }
    if (tls && !m->sni_count) {
        return ld_fail(l, n, "sniHosts: at least one is needed");
    }
    for (size_t i = 0; i < m->sni_count; i++) {
        if (!str_is(m->sni[i], "*") && ld_host(l, json_get(n, "sniHosts"), "name", m->sni[i])) {
            return -EINVAL;
        }
    }
    for (size_t i = 0; i < m->subnet_count; i++) {
        struct cidr c;
        if (!cidr_parse(m->subnets[i], &c)) {
            return ld_fail(l, json_get(n, "destinationSubnets"), "\"%.*s\" is not an address or range", STR_FMT(m->subnets[i]));
        }
    }
    return 0;
}
