// SPDX-License-Identifier: Apache-2.0
// AuthorizationPolicies that no workload follows, or that name namespaces which are not there.
#include "control-plane/analyze_int.h"
#include "lib/base/check.h"

static const struct json *first(const struct json *n, const char *key)
{
    const struct json *m = json_get(n, key);
    return m ? m->first : NULL;
}

// ---- workloads ----

static bool has_proxy(const struct json *spec, const char *list)
{
    for (const struct json *c = first(spec, list); c; c = c->next) {
        if (str_is(json_str(c, "name"), "istio-proxy")) {
            return json_str(c, "image").n;
        }
    }
    return false;
}

static bool injected(struct analysis *x, struct str ns)
{
    const struct an_object *o;
    for (size_t i = 0; (o = an_next(x, "Namespace", &i));) {
        if (str_eq(o->name, ns)) {
            return str_is(json_str(json_path(o->doc, "metadata.labels"), "istio-injection"), "enabled");
        }
    }
    return false;
}

// A pod has a sidecar, or will get one: what it says itself counts before what its namespace says.
static bool in_mesh(struct analysis *x, const struct an_object *pod)
{
    const struct json *label = json_get(json_path(pod->doc, "metadata.labels"), "sidecar.istio.io/inject");
    const struct json *notes = json_path(pod->doc, "metadata.annotations");
    const struct json *said = label ? label : json_get(notes, "sidecar.istio.io/inject");
    if (str_is(json_str(notes, "ambient.istio.io/redirection"), "enabled") || has_proxy(pod->spec, "containers") || has_proxy(pod->spec, "initContainers")) {
        return true;
    }
    return said ? str_is(said->text, "true") : injected(x, pod->ns);
}

// ns: of the policy; everywhere: it is one of the mesh.
static bool has_workload(struct analysis *x, const struct json *labels, struct str ns, bool everywhere)
{
    const struct an_object *o;
    for (size_t i = 0; (o = an_next(x, "Pod", &i));) {
        if ((everywhere || str_eq(o->ns, ns)) && in_mesh(x, o) && an_selects(labels, json_path(o->doc, "metadata.labels"))) {
            return true;
        }
    }
    for (size_t i = 0; (o = an_next(x, "WorkloadEntry", &i));) {
        if ((everywhere || str_eq(o->ns, ns)) && an_selects(labels, json_get(o->spec, "labels"))) {
            return true;
        }
    }
    return false;
}

// Files without any workload are policies alone: of those nothing can be said.
static bool knows_workloads(const struct analysis *x)
{
    size_t pods = 0, entries = 0;
    return an_next(x, "Pod", &pods) || an_next(x, "WorkloadEntry", &entries);
}

static void check_workloads(struct analysis *x, const struct an_object *o)
{
    const struct json *selector = json_get(o->spec, "selector");
    bool mesh = str_is(o->ns, "istio-system");
    if (!knows_workloads(x) || (mesh && !selector) || has_workload(x, json_get(selector, "matchLabels"), o->ns, mesh)) {
        return;
    }
    an_report(x, CP_WARNING, "IST0127", o, selector, selector ? "no workload with a sidecar has these labels" : "no workload of its namespace has a sidecar");
}

// ---- namespaces ----

static bool covers(struct str pattern, struct str ns)
{
    if (str_starts(pattern, STR("*"))) {
        return str_ends(ns, str_skip(pattern, 1));
    }
    return str_ends(pattern, STR("*")) ? str_starts(ns, str_n(pattern.p, pattern.n - 1)) : str_eq_nocase(ns, pattern);
}

// A namespace is there when an object says so, or lives in it.
static bool has_namespace(const struct analysis *x, const struct an_object *asking, struct str pattern)
{
    for (size_t i = 0; i < x->n; i++) {
        const struct an_object *o = &x->v[i];
        if (o != asking && covers(pattern, str_is(o->kind, "Namespace") ? o->name : o->ns)) {
            return true;
        }
    }
    return false;
}

static void check_namespaces(struct analysis *x, const struct an_object *o)
{
    static const char *const lists[] = { "namespaces", "notNamespaces" };
    for (const struct json *r = first(o->spec, "rules"); r; r = r->next) {
        for (const struct json *f = first(r, "from"); f; f = f->next) {
            for (size_t i = 0; i < array_len(lists); i++) {
                for (const struct json *n = first(json_get(f, "source"), lists[i]); n; n = n->next) {
                    if (!has_namespace(x, o, n->text)) {
                        an_report(x, CP_ERROR, "IST0101", o, n, "there is no namespace \"%.*s\"", STR_FMT(n->text));
                    }
                }
            }
        }
    }
}

static void check_conditions(struct analysis *x, const struct an_object *o)
{
    for (const struct json *c = first(json_get(o->doc, "status"), "conditions"); c; c = c->next) {
        struct str type = json_str(c, "type"), reason = json_str(c, "reason");
        bool waypoint = str_is(type, "WaypointAccepted"), no = str_is(json_str(c, "status"), "False");
        if ((no && (waypoint || str_is(type, "ZtunnelAccepted"))) || (waypoint && str_is(reason, "PartiallyInvalid"))) {
            an_report(x, CP_WARNING, "IST0171", o, c, "its status says of %.*s: %.*s, %.*s", STR_FMT(type), STR_FMT(reason),
                      STR_FMT(json_str(c, "message")));
        }
    }
}

void an_policies(struct analysis *x)
{
    const struct an_object *o;
    for (size_t i = 0; (o = an_next(x, "AuthorizationPolicy", &i));) {
        check_workloads(x, o);
        check_namespaces(x, o);
        check_conditions(x, o);
    }
}
