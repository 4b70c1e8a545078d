// SPDX-License-Identifier: Apache-2.0
// DestinationRules and ServiceEntries.
#include "control-plane/analyze_int.h"

static const struct json *first(const struct json *n, const char *key)
{
    const struct json *m = json_get(n, key);
    return m && m->type == JSON_ARRAY ? m->first : NULL;
}

// TLS to a server whose certificate nobody checks against a named authority.
static bool unchecked(const struct json *tls, const struct an_object *o)
{
    struct str mode = json_str(tls, "mode");
    bool own = str_is(mode, "SIMPLE") || str_is(mode, "MUTUAL");
    bool credential = json_str(tls, "credentialName").n && json_get(o->spec, "workloadSelector");
    return own && !json_str(tls, "caCertificates").n && !credential;
}

static void check_certificates(struct analysis *x, const struct an_object *o)
{
    const struct json *policy = json_get(o->spec, "trafficPolicy"), *tls = json_get(policy, "tls");
    if (unchecked(tls, o)) {
        an_report(x, CP_WARNING, "IST0128", o, tls, "TLS mode %.*s without caCertificates: servers of %.*s are not checked against a named authority",
                  STR_FMT(json_str(tls, "mode")), STR_FMT(json_str(o->spec, "host")));
    }
    for (const struct json *p = first(policy, "portLevelSettings"); p; p = p->next) {
        tls = json_get(p, "tls");
        if (unchecked(tls, o)) {
            const struct json *number = json_get(json_get(p, "port"), "number");
            an_report(x, CP_WARNING, "IST0129", o, tls,
                      "TLS mode %.*s without caCertificates at port %.*s: servers of %.*s are not checked against a named authority",
                      STR_FMT(json_str(tls, "mode")), number ? (int)number->text.n : 0, number ? number->text.p : "",
                      STR_FMT(json_str(o->spec, "host")));
        }
    }
}

bool an_selects(const struct json *want, const struct json *have)
{
    for (const struct json *w = want ? want->first : NULL; w; w = w->next) {
        bool found = false;
        for (const struct json *h = have ? have->first : NULL; h && !found; h = h->next) {
            found = str_eq(w->key, h->key) && str_eq(w->text, h->text);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

// Some endpoint or workload of the service, or as in Istio any pod among the files, carries the subset's labels.
static bool selects_any(struct analysis *x, const struct an_host *h, const struct json *labels)
{
    const struct json *selector = json_get(json_get(h->o->spec, "workloadSelector"), "labels");
    const struct an_object *w;
    for (size_t i = 0; (w = an_next(x, "Pod", &i));) {
        const struct json *have = json_path(w->doc, "metadata.labels");
        if (an_selects(labels, have) && an_selects(selector, have)) {
            return true;
        }
    }
    for (const struct json *e = first(h->o->spec, "endpoints"); e; e = e->next) {
        if (an_selects(labels, json_get(e, "labels"))) {
            return true;
        }
    }
    for (size_t i = 0; selector && (w = an_next(x, "WorkloadEntry", &i));) {
        const struct json *have = json_get(w->spec, "labels");
        if (str_eq(w->ns, h->o->ns) && an_selects(selector, have) && an_selects(labels, have)) {
            return true;
        }
    }
    return false;
}

static void check_subsets(struct analysis *x, const struct an_object *o)
{
    struct str host = json_str(o->spec, "host");
    const struct an_host *h = an_find_host(x, host, o->ns);
    if (!h && !an_covers_host(x, host, o->ns)) {
        an_report(x, CP_WARNING, "IST0174", o, json_get(o->spec, "host"), "host \"%.*s\" is no known service", STR_FMT(host));
    }
    // What a Service selects is not in the files when there are no pods.
    size_t pods = 0;
    bool known = h && (str_is(h->o->kind, "ServiceEntry") || an_next(x, "Pod", &pods));
    for (const struct json *s = known ? first(o->spec, "subsets") : NULL; s; s = s->next) {
        if (!selects_any(x, h, json_get(s, "labels"))) {
            an_report(x, CP_ERROR, "IST0173", o, s, "subset \"%.*s\" selects no workload of %.*s", STR_FMT(json_str(s, "name")), STR_FMT(host));
        }
    }
}

void an_rules(struct analysis *x)
{
    const struct an_object *o;
    for (size_t i = 0; (o = an_next(x, "DestinationRule", &i));) {
        check_certificates(x, o);
        check_subsets(x, o);
    }
}

// ---- ServiceEntry ----

static struct str protocol_of(struct analysis *x, const struct json *port)
{
    struct str up = arena_str(x->a, json_str(port, "protocol"));
    for (size_t i = 0; i < up.n; i++) {
        char *c = (char *)&up.p[i];
        *c = *c >= 'a' && *c <= 'z' ? (char)(*c & ~0x20) : *c;
    }
    return up;
}

static void check_addresses(struct analysis *x, const struct an_object *o)
{
    if (first(o->spec, "addresses") || first(json_get(o->doc, "status"), "addresses")) {
        return;
    }
    for (const struct json *p = first(o->spec, "ports"); p; p = p->next) {
        struct str protocol = protocol_of(x, p);
        if (!protocol.n || str_is(protocol, "TCP")) {
            an_report(x, CP_WARNING, "IST0134", o, json_get(p, "name") ? json_get(p, "name") : p, "a TCP port needs addresses: nothing else tells its connections apart");
        }
    }
}

static bool exported_together(const struct an_object *a, const struct an_object *b)
{
    for (size_t i = 0; i < a->export.n; i++) {
        struct str ns = str_is(a->export.v[i], ".") ? a->ns : a->export.v[i];
        if (str_is(ns, "*") || cp_exported(&b->export, b->ns, ns)) {
            return true;
        }
    }
    return a->export.n == 0;
}

static void check_protocols(struct analysis *x, const struct an_host *h)
{
    for (const struct json *p = h->ports && h->ports->type == JSON_ARRAY ? h->ports->first : NULL; p; p = p->next) {
        const struct json *number = json_get(p, "number");
        size_t at = number ? (size_t)(uintptr_t)map_get(&x->by_host, h->name) : 0;
        for (; at; at = x->hosts[at - 1].next) {
            const struct an_host *g = &x->hosts[at - 1];
            if (g == h || g->o == h->o || !str_is(g->o->kind, "ServiceEntry") || !exported_together(h->o, g->o)) {
                continue;
            }
            for (const struct json *q = g->ports && g->ports->type == JSON_ARRAY ? g->ports->first : NULL; q; q = q->next) {
                const struct json *other = json_get(q, "number");
                if (other && str_eq(other->text, number->text) && !str_eq(protocol_of(x, p), protocol_of(x, q))) {
                    an_report(x, CP_WARNING, "IST0177", h->o, json_get(json_get(h->o->doc, "metadata"), "name"),
                              "host %.*s port %.*s is %.*s here and %.*s in %.*s/%.*s", STR_FMT(h->name), STR_FMT(number->text),
                              STR_FMT(protocol_of(x, p)), STR_FMT(protocol_of(x, q)), STR_FMT(g->o->ns), STR_FMT(g->o->name));
                    return;
                }
            }
        }
    }
}

// What a control plane wrote into the object's status.
static void check_conditions(struct analysis *x, const struct an_object *o)
{
    for (const struct json *c = first(json_get(o->doc, "status"), "conditions"); c; c = c->next) {
        if (str_is(json_str(c, "type"), "istio.io/WaypointBound") && str_is(json_str(c, "status"), "False")) {
            an_report(x, CP_WARNING, "IST0171", o, c, "its status says that %.*s is false: %.*s, %.*s", STR_FMT(json_str(c, "type")),
                      STR_FMT(json_str(c, "reason")), STR_FMT(json_str(c, "message")));
        }
    }
}

void an_service_entries(struct analysis *x)
{
    const struct an_object *o;
    for (size_t i = 0; (o = an_next(x, "ServiceEntry", &i));) {
        check_addresses(x, o);
        check_conditions(x, o);
    }
    for (size_t i = 0; i < x->host_count; i++) {
        if (str_is(x->hosts[i].o->kind, "ServiceEntry")) {
            check_protocols(x, &x->hosts[i]);
        }
    }
}
