// SPDX-License-Identifier: Apache-2.0
// Rules and matches of one VirtualService that earlier ones leave nothing to.
#include <stdlib.h>

#include "control-plane/analyze_int.h"
#include "lib/base/map.h"

static const struct json *first(const struct json *n, const char *key)
{
    const struct json *m = json_get(n, key);
    return m && m->type == JSON_ARRAY ? m->first : NULL;
}

// "name", or "#3".
static struct str title(struct analysis *x, const struct json *n, size_t at)
{
    struct str name = json_str(n, "name");
    return name.n ? arena_printf(x->a, "\"%.*s\"", STR_FMT(name)) : arena_printf(x->a, "#%zu", at);
}

// One text for equal conditions: members in the order of their keys, without the name.
static struct str canonical(struct analysis *x, const struct json *n, bool top)
{
    struct str out = { 0 };
    if (n->type != JSON_OBJECT && n->type != JSON_ARRAY) {
        return arena_printf(x->a, "'%.*s'", STR_FMT(n->text));
    }
    if (n->type == JSON_ARRAY) {
        for (const struct json *m = n->first; m; m = m->next) {
            out = arena_printf(x->a, "%.*s%.*s;", STR_FMT(out), STR_FMT(canonical(x, m, false)));
        }
        return out;
    }
    struct map keys = { 0 };
    for (const struct json *m = n->first; m; m = m->next) {
        map_put(&keys, m->key, (void *)(uintptr_t)m);
    }
    struct map_entry **v = map_sorted(&keys);
    for (size_t i = 0; i < keys.count; i++) {
        if (!top || !str_is(v[i]->key, "name")) {
            out = arena_printf(x->a, "%.*s%.*s={%.*s}", STR_FMT(out), STR_FMT(v[i]->key), STR_FMT(canonical(x, v[i]->val, false)));
        }
    }
    free(v);
    map_fini(&keys);
    return out;
}

// ---- a prefix that an earlier, shorter one covers ----

struct prefix {
    const struct json *match;
    struct str value, route, name;
};

static struct str condition(struct analysis *x, const struct json *n)
{
    struct str exact = json_str(n, "exact"), prefix = json_str(n, "prefix");
    return exact.n ? arena_printf(x->a, "exact %.*s", STR_FMT(exact)) : prefix.n ? arena_printf(x->a, "prefix %.*s", STR_FMT(prefix)) : STR("");
}

static bool covers(struct str wide, struct str narrow)
{
    return str_eq(wide, narrow) || str_starts(wide, narrow); // as Istio compares them
}

static bool maps_cover(struct analysis *x, const struct json *a, const struct json *b)
{
    size_t n = a ? a->count : 0;
    if (n != (b ? b->count : 0)) {
        return false;
    }
    for (const struct json *m = a ? a->first : NULL; m; m = m->next) {
        const struct json *other = NULL;
        for (const struct json *k = b->first; k && !other; k = k->next) {
            other = str_eq(k->key, m->key) ? k : NULL;
        }
        if (!other || !covers(condition(x, m), condition(x, other))) {
            return false;
        }
    }
    return true;
}

static bool prefix_covers(struct analysis *x, const struct prefix *a, const struct prefix *b)
{
    static const char *const maps[] = { "headers", "queryParams", "withoutHeaders" };
    struct str ma = condition(x, json_get(a->match, "method")), mb = condition(x, json_get(b->match, "method"));
    const struct json *pa = json_get(a->match, "port"), *pb = json_get(b->match, "port");
    bool same_port = (!pa && !pb) || (pa && pb && str_eq(pa->text, pb->text));
    if (!str_starts(b->value, a->value) || !same_port || !covers(ma.n ? ma : STR("exact GET"), mb.n ? mb : STR("exact GET")) ||
        !covers(condition(x, json_get(a->match, "authority")), condition(x, json_get(b->match, "authority")))) {
        return false;
    }
    for (int i = 0; i < 3; i++) {
        if (!maps_cover(x, json_get(a->match, maps[i]), json_get(b->match, maps[i]))) {
            return false;
        }
    }
    return true;
}

static void report_covered(struct analysis *x, const struct an_object *o, const struct prefix *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = i + 1; k < n; k++) {
            if (!str_eq(v[i].value, v[k].value) && prefix_covers(x, &v[i], &v[k])) {
                an_report(x, CP_INFO, "IST0131", o, v[k].match, "rule %.*s: match %.*s of prefix %.*s has no effect: rule %.*s takes prefix %.*s before",
                          STR_FMT(v[k].route), STR_FMT(v[k].name), STR_FMT(v[k].value), STR_FMT(v[i].route), STR_FMT(v[i].value));
            }
        }
    }
}

// ---- whole rules ----

struct rules {
    struct map seen; // condition → title of the rule that has it
    bool caught_all;
    struct prefix *prefixes;
    size_t prefix_count;
};

static void check_rule(struct analysis *x, const struct an_object *o, const struct json *r, size_t at, struct rules *s)
{
    struct str name = title(x, r, at);
    size_t twice = 0, n = 0;
    if (!first(r, "match")) {
        if (s->caught_all) {
            an_report(x, CP_WARNING, "IST0130", o, r, "rule %.*s is never used: only the last rule can be without a match", STR_FMT(name));
        }
        s->caught_all = true;
        return;
    }
    for (const struct json *m = first(r, "match"); m; m = m->next, n++) {
        if (s->caught_all) {
            an_report(x, CP_WARNING, "IST0130", o, r, "rule %.*s is never used: a rule without a match is before it", STR_FMT(name));
            continue;
        }
        struct str key = canonical(x, m, true);
        const struct str *other = map_get(&s->seen, key);
        if (other) {
            an_report(x, CP_INFO, "IST0131", o, m, "rule %.*s: match %.*s has no effect: rule %.*s has the same", STR_FMT(name), STR_FMT(title(x, m, n)),
                      STR_FMT(*other));
            twice++;
            continue;
        }
        struct str *mine = arena_new(x->a, struct str);
        *mine = name;
        map_put(&s->seen, key, mine);
        struct str prefix = json_str(json_get(m, "uri"), "prefix");
        if (prefix.n) {
            s->prefixes[s->prefix_count++] = (struct prefix){ .match = m, .value = prefix, .route = name, .name = title(x, m, n) };
        }
    }
    if (twice == n) {
        an_report(x, CP_WARNING, "IST0130", o, r, "rule %.*s is never used: earlier rules have all its matches", STR_FMT(name));
    }
}

void an_matches(struct analysis *x, const struct an_object *o)
{
    static const char *const kinds[] = { "http", "tcp", "tls" };
    for (int k = 0; k < 3; k++) {
        struct rules s = { 0 };
        size_t at = 0, total = 0;
        for (const struct json *r = first(o->spec, kinds[k]); r; r = r->next) {
            const struct json *m = json_get(r, "match");
            total += m ? m->count : 0;
        }
        s.prefixes = arena_array(x->a, struct prefix, total + 1);
        for (const struct json *r = first(o->spec, kinds[k]); r; r = r->next) {
            check_rule(x, o, r, at++, &s);
        }
        report_covered(x, o, s.prefixes, s.prefix_count);
        map_fini(&s.seen);
    }
}
