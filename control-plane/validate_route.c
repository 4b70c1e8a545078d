// SPDX-License-Identifier: Apache-2.0
// VirtualService.
#include <stdlib.h>

#include "control-plane/validate_int.h"
#include "lib/base/check.h"
#include "lib/regex/regex.h"

enum { REGEX_MAX = 1024 };

// ---- matches ----

static void check_regex(struct cp_validator *v, const struct json *n)
{
    struct err e = { 0 };
    struct regex *re = n->text.n && n->text.n <= REGEX_MAX ? regex_new(n->text, &e) : NULL;
    if (!n->text.n || n->text.n > REGEX_MAX) {
        va_error(v, n, "must have 1 to %d characters", REGEX_MAX);
    } else if (!re) {
        va_error(v, n, "%.300s", e.msg);
    }
    regex_free(re);
}

static void check_match(struct cp_validator *v, const struct json *m, bool empty_prefix)
{
    const struct json *regex = va_get(m, "regex"), *prefix = va_get(m, "prefix");
    if (regex) {
        check_regex(v, regex);
    } else if (prefix && !prefix->text.n && !empty_prefix) {
        va_error(v, prefix, "must not be empty");
    }
}

static bool is_claim(struct str name)
{
    static const struct str head = STR_INIT("@request.auth.claims");
    return name.n > head.n + 1 && str_eq_nocase(str_n(name.p, head.n), head) && (name.p[head.n] == '.' || name.p[head.n] == '[');
}

static void check_header_match(struct cp_validator *v, const struct json *h)
{
    static const char *const pseudo[] = { ":method", ":scheme", ":authority", ":path", ":status" };
    bool known = is_claim(h->key) || va_is_header(h->key);
    for (size_t i = 0; i < array_len(pseudo); i++) {
        known |= str_is(h->key, pseudo[i]);
    }
    if (!known) {
        va_error(v, h, "is no name of a header");
    }
}

static void check_http_match(struct cp_validator *v, const struct json *m)
{
    for (const struct json *h = va_first(m, "headers"); h; h = h->next) {
        check_header_match(v, h);
        check_match(v, h, false);
    }
    for (const struct json *h = va_first(m, "withoutHeaders"); h; h = h->next) {
        check_header_match(v, h);
        if (!str_is(json_str(h, "regex"), "*")) { // Istio's word for "is there"
            check_match(v, h, false);
        }
    }
    check_match(v, va_get(m, "uri"), true);
    check_match(v, va_get(m, "scheme"), false);
    check_match(v, va_get(m, "method"), false);
    check_match(v, va_get(m, "authority"), false);
    for (const struct json *q = va_first(m, "queryParams"); q; q = q->next) {
        check_match(v, q, false);
    }
    if (va_number(va_get(m, "port")) != 0) {
        va_port(v, m, va_get(m, "port"));
    }
    va_labels(v, m, "sourceLabels");
    va_gateways(v, m);
    struct str ns = json_str(m, "sourceNamespace");
    if (ns.n && !va_is_label(ns)) {
        va_error(v, va_get(m, "sourceNamespace"), "\"%.*s\" is no name of a namespace", STR_FMT(ns));
    }
}

static void check_l4_match(struct cp_validator *v, const struct json *m)
{
    for (const struct json *s = va_first(m, "destinationSubnets"); s; s = s->next) {
        if (!va_is_subnet(s->text)) {
            va_error(v, va_get(m, "destinationSubnets"), "\"%.*s\" is neither an address nor a range", STR_FMT(s->text));
        }
    }
    if (va_number(va_get(m, "port")) != 0) {
        va_port(v, m, va_get(m, "port"));
    }
    va_labels(v, m, "sourceLabels");
    va_gateways(v, m);
}

// ---- destinations ----

void va_destination(struct cp_validator *v, const struct json *to)
{
    const struct json *host = va_get(to, "host"), *subset = va_get(to, "subset"), *port = va_get(to, "port");
    if (!to) {
        return;
    }
    if (!va_is_wild_domain(json_str(to, "host")) || str_is(json_str(to, "host"), "*")) {
        va_error(v, host ? host : to, "\"%.*s\" is no host to send to", STR_FMT(json_str(to, "host")));
    }
    if (subset && subset->text.n && !va_is_label(subset->text)) {
        va_error(v, subset, "\"%.*s\" is no name of a subset", STR_FMT(subset->text));
    }
    if (port) {
        va_port(v, port, va_get(port, "number"));
    }
}

static void check_weights(struct cp_validator *v, const struct json *r)
{
    const struct json *list = va_get(r, "route");
    double sum = 0;
    for (const struct json *d = list ? list->first : NULL; d; d = d->next) {
        double weight = va_number(va_get(d, "weight"));
        sum += weight;
        if (weight < 0) {
            va_error(v, va_get(d, "weight"), "must not be negative");
        }
        if (!va_get(d, "destination")) {
            va_error(v, d, "destination: missing");
        }
        va_destination(v, va_get(d, "destination"));
    }
    if (list && list->count > 1 && sum == 0) {
        va_error(v, list, "the sum of the weights is 0");
    }
}

static void check_tls_route(struct cp_validator *v, const struct json *r, const struct json *spec, bool gateway)
{
    if (!va_first(r, "match")) {
        va_error(v, r, "match: at least one is needed");
    }
    for (const struct json *m = va_first(r, "match"); m; m = m->next) {
        if (!va_first(m, "sniHosts")) {
            va_error(v, m, "sniHosts: at least one is needed");
        }
        for (const struct json *s = va_first(m, "sniHosts"); s; s = s->next) {
            bool covered = false;
            if (gateway && str_starts(s->text, STR("outbound_"))) {
                continue; // names that gateways make up for other meshes
            }
            if (!va_is_wild_domain(s->text)) {
                if (va_is_ip(s->text)) {
                    va_warn(v, va_get(m, "sniHosts"), "%.*s: clients send no addresses as server names", STR_FMT(s->text));
                } else {
                    va_error(v, va_get(m, "sniHosts"), "\"%.*s\" is no host name", STR_FMT(s->text));
                }
                continue;
            }
            for (const struct json *h = va_first(spec, "hosts"); h && !covered; h = h->next) {
                covered = va_host_within(s->text, h->text);
            }
            if (!covered) {
                va_error(v, va_get(m, "sniHosts"), "\"%.*s\" is none of this VirtualService's hosts", STR_FMT(s->text));
            }
        }
        check_l4_match(v, m);
    }
}

static void check_l4_routes(struct cp_validator *v, const struct json *spec, bool gateway)
{
    static const char *const kinds[] = { "tls", "tcp" };
    for (int k = 0; k < 2; k++) {
        for (const struct json *r = va_first(spec, kinds[k]); r; r = r->next) {
            if (k == 0) {
                check_tls_route(v, r, spec, gateway);
            }
            for (const struct json *m = k ? va_first(r, "match") : NULL; m; m = m->next) {
                check_l4_match(v, m);
            }
            if (!va_first(r, "route")) {
                va_error(v, r, "route: missing");
            }
            check_weights(v, r);
        }
    }
}

// ---- the whole ----

static void check_hosts(struct cp_validator *v, const struct json *spec, bool gateway)
{
    const struct json *list = va_get(spec, "hosts");
    bool valid = true;
    for (const struct json *h = list ? list->first : NULL; h; h = h->next) {
        bool made_up = gateway && str_starts(h->text, STR("outbound_"));
        if (!made_up && !va_is_wild_domain(h->text) && !va_is_ip(h->text)) {
            va_error(v, list, "\"%.*s\" is no host name", STR_FMT(h->text));
            valid = false;
        } else if (!gateway && str_is(h->text, "*")) {
            va_error(v, list, "\"*\" is for gateways only");
            valid = false;
        }
    }
    for (const struct json *h = valid && list ? list->first : NULL; h; h = h->next) {
        for (const struct json *g = h->next; g; g = g->next) {
            if (va_hosts_meet(h->text, g->text)) {
                va_error(v, list, "\"%.*s\" and \"%.*s\" cover each other", STR_FMT(h->text), STR_FMT(g->text));
            }
        }
    }
}

static void check_claims(struct cp_validator *v, const struct json *spec)
{
    static const char *const maps[] = { "headers", "withoutHeaders" };
    for (const struct json *r = va_first(spec, "http"); r; r = r->next) {
        for (const struct json *m = va_first(r, "match"); m; m = m->next) {
            for (int i = 0; i < 2; i++) {
                for (const struct json *h = va_first(m, maps[i]); h; h = h->next) {
                    if (is_claim(h->key)) {
                        va_error(v, h, "matches on claims of tokens are for gateways only");
                    }
                }
            }
        }
    }
}

void va_virtual_service(struct cp_validator *v, const struct json *spec)
{
    bool delegate = !va_first(spec, "hosts"), gateway = va_first(spec, "gateways") != NULL;
    for (const struct json *g = va_first(spec, "gateways"); g; g = g->next) {
        gateway &= !str_is(g->text, "mesh");
    }
    static const char *const others[] = { "gateways", "tls", "tcp" };
    for (size_t i = 0; delegate && i < array_len(others); i++) {
        if (va_first(spec, others[i])) {
            va_error(v, va_get(spec, others[i]), "hosts: missing; a delegate, which has none, has no %s either", others[i]);
        }
    }
    va_gateways(v, spec);
    if (!gateway) {
        check_claims(v, spec);
    }
    check_hosts(v, spec, gateway);
    if (!va_first(spec, "http") && !va_first(spec, "tls") && !va_first(spec, "tcp")) {
        va_error(v, spec, "http, tls or tcp is needed");
    }
    for (const struct json *r = va_first(spec, "http"); r; r = r->next) {
        for (const struct json *m = va_first(r, "match"); m; m = m->next) {
            check_http_match(v, m);
        }
        check_weights(v, r);
        va_http_route(v, r, delegate);
    }
    check_l4_routes(v, spec, gateway);
    va_export(v, spec, false, false);
}
