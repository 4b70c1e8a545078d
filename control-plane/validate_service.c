// SPDX-License-Identifier: Apache-2.0
// ServiceEntry.
#include "control-plane/validate_int.h"
#include "lib/base/check.h"

enum protocol { PROTOCOL_HTTP, PROTOCOL_TLS, PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_NONE };

static enum protocol protocol_of(const struct json *port)
{
    static const struct {
        const char *name;
        enum protocol protocol;
    } names[] = { { "HTTP", PROTOCOL_HTTP }, { "HTTP2", PROTOCOL_HTTP }, { "GRPC", PROTOCOL_HTTP }, { "GRPC-WEB", PROTOCOL_HTTP },
                  { "HTTP_PROXY", PROTOCOL_HTTP }, { "TLS", PROTOCOL_TLS }, { "HTTPS", PROTOCOL_TLS }, { "TCP", PROTOCOL_TCP },
                  { "MONGO", PROTOCOL_TCP }, { "REDIS", PROTOCOL_TCP }, { "MYSQL", PROTOCOL_TCP }, { "UDP", PROTOCOL_UDP } };
    struct str s = json_str(port, "protocol");
    for (size_t i = 0; i < array_len(names); i++) {
        if (str_eq_nocase(s, str_c(names[i].name))) {
            return names[i].protocol;
        }
    }
    return PROTOCOL_NONE;
}

static bool is_dns(const struct json *spec)
{
    return str_is(json_str(spec, "resolution"), "DNS") || str_is(json_str(spec, "resolution"), "DNS_ROUND_ROBIN");
}

static bool is_none(const struct json *spec)
{
    struct str r = json_str(spec, "resolution");
    return !r.n || str_is(r, "NONE");
}

static void check_hosts(struct cp_validator *v, const struct json *spec)
{
    const struct json *list = va_get(spec, "hosts");
    if (!list || !list->count) {
        va_error(v, spec, "hosts: at least one is needed");
    }
    for (const struct json *h = list ? list->first : NULL; h; h = h->next) {
        if (str_is(h->text, "*") || !va_is_wild_domain(h->text)) {
            va_error(v, list, "\"%.*s\" is no host name", STR_FMT(h->text));
        } else if (str_starts(h->text, STR("*")) && !str_starts(h->text, STR("*."))) {
            va_warn(v, list, "\"%.*s\": the * should be a whole label", STR_FMT(h->text));
        }
    }
}

static void check_addresses(struct cp_validator *v, const struct json *spec)
{
    bool range = false;
    for (const struct json *a = va_first(spec, "addresses"); a; a = a->next) {
        range |= str_find(a->text, '/') >= 0;
        if (!va_is_subnet(a->text)) {
            va_error(v, va_get(spec, "addresses"), "\"%.*s\" is neither an address nor a range", STR_FMT(a->text));
        }
    }
    if (range && !is_none(spec) && !str_is(json_str(spec, "resolution"), "STATIC")) {
        va_error(v, va_get(spec, "addresses"), "ranges go with resolution NONE and STATIC only");
    }
}

static void check_ports(struct cp_validator *v, const struct json *spec)
{
    const struct json *list = va_get(spec, "ports");
    bool given = va_first(spec, "addresses") || !is_none(spec); // istiod can give those addresses of its own
    for (const struct json *p = list ? list->first : NULL; p; p = p->next) {
        struct str protocol = json_str(p, "protocol");
        for (const struct json *q = list->first; q != p; q = q->next) {
            if (str_eq(json_str(p, "name"), json_str(q, "name")) || va_number(va_get(p, "number")) == va_number(va_get(q, "number"))) {
                va_error(v, p, "number or name of another port of this service");
            }
        }
        if (va_number(va_get(p, "targetPort")) != 0) {
            va_port(v, p, va_get(p, "targetPort"));
        }
        if (!given && (!protocol.n || str_is(protocol, "TCP"))) {
            va_warn(v, p, "a TCP port needs addresses: nothing else tells its connections apart");
        }
        if (!va_is_label(json_str(p, "name"))) {
            va_error(v, va_get(p, "name") ? va_get(p, "name") : p, "name: \"%.*s\" is no name of a port", STR_FMT(json_str(p, "name")));
        }
        if (protocol.n && protocol_of(p) == PROTOCOL_NONE) {
            va_error(v, va_get(p, "protocol"), "\"%.*s\" is no protocol", STR_FMT(protocol));
        }
        va_port(v, p, va_get(p, "number"));
    }
}

static void check_endpoint_ports(struct cp_validator *v, const struct json *e, const struct json *spec)
{
    for (const struct json *m = va_first(e, "ports"); m; m = m->next) {
        bool found = false;
        for (const struct json *p = va_first(spec, "ports"); p && !found; p = p->next) {
            found = str_eq(json_str(p, "name"), m->key);
        }
        if (!found) {
            va_error(v, m, "is no port of the service");
        }
        va_port(v, m, m);
    }
}

static void check_endpoints(struct cp_validator *v, const struct json *spec)
{
    const struct json *list = va_get(spec, "endpoints");
    bool dns = is_dns(spec);
    if (list && va_get(spec, "workloadSelector")) {
        va_error(v, list, "does not go with workloadSelector");
    }
    if (is_none(spec)) {
        if (list && list->count) {
            va_error(v, list, "does not go with resolution NONE");
        }
        if (va_get(spec, "workloadSelector")) {
            va_warn(v, va_get(spec, "workloadSelector"), "has no effect with resolution NONE");
        }
        return;
    }
    if (str_is(json_str(spec, "resolution"), "DNS_ROUND_ROBIN") && list && list->count > 1) {
        va_error(v, list, "resolution DNS_ROUND_ROBIN knows one endpoint at most");
    }
    for (const struct json *e = list ? list->first : NULL; e; e = e->next) {
        struct str address = json_str(e, "address");
        bool network = json_str(e, "network").n && !address.n && !dns;
        if (str_starts(address, STR("unix://")) && !dns) {
            continue;
        }
        if (network) {
            va_warn(v, e, "address: missing");
        } else if (!va_is_ip(address) && !(dns && va_is_domain(address))) {
            va_error(v, va_get(e, "address") ? va_get(e, "address") : e, "\"%.*s\" is no %saddress", STR_FMT(address), dns ? "host name and no " : "IP ");
        }
        check_endpoint_ports(v, e, spec);
        va_labels(v, e, "labels");
    }
}

static void check_dns_hosts(struct cp_validator *v, const struct json *spec)
{
    const struct json *hosts = va_get(spec, "hosts");
    for (const struct json *h = !va_first(spec, "endpoints") && hosts ? hosts->first : NULL; h; h = h->next) {
        if (!va_is_domain(h->text)) {
            va_error(v, hosts, "\"%.*s\": a wildcard cannot be resolved; give endpoints", STR_FMT(h->text));
            break;
        }
    }
    for (const struct json *p = va_first(spec, "addresses") ? va_first(spec, "ports") : NULL; p; p = p->next) {
        if (protocol_of(p) == PROTOCOL_TLS || protocol_of(p) == PROTOCOL_TCP) {
            if (hosts && hosts->count > 1) {
                va_warn(v, hosts, "several hosts share the addresses of a TCP port: nothing tells their connections apart");
            }
            break;
        }
    }
}

void va_service_entry(struct cp_validator *v, const struct json *spec)
{
    const struct json *hosts = va_get(spec, "hosts");
    static const char *const known[] = { "", "NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN" };
    va_selector(v, va_get(spec, "workloadSelector"), "labels", "takes all workloads of the namespace without labels");
    check_hosts(v, spec);
    check_addresses(v, spec);
    check_ports(v, spec);
    for (size_t i = 0; i < array_len(known); i++) {
        if (str_is(json_str(spec, "resolution"), known[i])) { // DYNAMIC_DNS is not looked at
            check_endpoints(v, spec);
        }
    }
    if (is_dns(spec)) {
        check_dns_hosts(v, spec);
    }
    for (const struct json *p = !is_none(spec) && hosts && hosts->count > 1 ? va_first(spec, "ports") : NULL; p; p = p->next) {
        if (protocol_of(p) != PROTOCOL_HTTP && protocol_of(p) != PROTOCOL_TLS) {
            va_error(v, hosts, "several hosts need ports of HTTP or TLS: nothing else tells them apart");
            break;
        }
    }
    va_export(v, spec, true, false);
}
