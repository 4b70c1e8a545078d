// SPDX-License-Identifier: Apache-2.0
// Matches on claims of tokens are worth something only where a gateway checks tokens.
#include "control-plane/analyze_int.h"

static const struct json *first(const struct json *n, const char *key)
{
    const struct json *m = json_get(n, key);
    return m ? m->first : NULL;
}

// The first match on a claim, or NULL.
static const struct json *find_claim(const struct an_object *o)
{
    static const char *const maps[] = { "headers", "withoutHeaders" };
    for (const struct json *r = first(o->spec, "http"); r; r = r->next) {
        for (const struct json *m = first(r, "match"); m; m = m->next) {
            for (int i = 0; i < 2; i++) {
                for (const struct json *h = first(m, maps[i]); h; h = h->next) {
                    if (str_starts(h->key, STR("@request.auth.claims"))) {
                        return h;
                    }
                }
            }
        }
    }
    return NULL;
}

static bool checks_tokens(struct analysis *x, const struct an_object *pod)
{
    const struct an_object *r;
    for (size_t i = 0; (r = an_next(x, "RequestAuthentication", &i));) {
        if ((str_eq(r->ns, pod->ns) || str_is(r->ns, "istio-system")) &&
            an_selects(json_path(r->spec, "selector.matchLabels"), json_path(pod->doc, "metadata.labels"))) {
            return true;
        }
    }
    return false;
}

void an_claims(struct analysis *x, const struct an_object *o)
{
    const struct json *claim = find_claim(o);
    const struct an_object *pod;
    for (const struct json *n = claim ? first(o->spec, "gateways") : NULL; n; n = n->next) {
        const struct an_object *g = str_is(n->text, "mesh") ? NULL : an_find_gateway(x, n->text, o->ns);
        for (size_t i = 0; g && (pod = an_next(x, "Pod", &i));) {
            if (an_selects(json_get(g->spec, "selector"), json_path(pod->doc, "metadata.labels")) && !checks_tokens(x, pod)) {
                an_report(x, CP_ERROR, "IST0149", o, claim, "no RequestAuthentication makes pod %.*s/%.*s of gateway %.*s check tokens", STR_FMT(pod->ns),
                          STR_FMT(pod->name), STR_FMT(n->text));
            }
        }
    }
}
