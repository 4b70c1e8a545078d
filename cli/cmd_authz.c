// SPDX-License-Identifier: Apache-2.0
// remoractl authz check: which AuthorizationPolicies a proxy enforces, read from the RBAC filters in its listeners, as `istioctl x authz check` does.
#include <errno.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/source.h"
#include "lib/base/check.h"

static const struct dump_kind kind = {
    .section = "ListenersConfigDump",
    .what = "listeners",
    .lists = { { "dynamic_listeners", "active_state.listener" } },
};

// In the order of the table.
static const char *const actions[] = { "DENY", "ALLOW", "LOG", "CUSTOM" };

struct found { // one rule of one policy
    unsigned action;
    struct str policy, rule; // "NAME.NAMESPACE", "0"
};
struct search {
    struct arena *a;
    struct found *v;
    size_t n, cap;
};

static void add(struct search *s, unsigned action, struct str policy, struct str rule)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 32;
        struct found *v = arena_array(s->a, struct found, cap);
        if (s->n) {
            memcpy(v, s->v, s->n * sizeof(*v));
        }
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = (struct found){ action, policy, rule };
}

// "…ns[NS]-policy[NAME]-rule[N]". What is named otherwise is no policy of Istio's and keeps its name.
static void add_named(struct search *s, unsigned action, struct str name)
{
    ptrdiff_t ns = str_find_str(name, STR("ns[")), policy = str_find_str(name, STR("]-policy[")), rule = str_find_str(name, STR("]-rule["));
    struct str index = rule < 0 ? str_n(NULL, 0) : str_skip(name, (size_t)rule + 7);
    ptrdiff_t end = str_find(index, ']');
    if (ns < 0 || policy < ns + 3 || rule < policy + 9 || end < 1) {
        add(s, action, name, STR("0"));
        return;
    }
    struct str space = str_n(name.p + ns + 3, (size_t)(policy - ns - 3)), own = str_n(name.p + policy + 9, (size_t)(rule - policy - 9));
    add(s, action, arena_printf(s->a, "%.*s.%.*s", STR_FMT(own), STR_FMT(space)), str_n(index.p, (size_t)end));
}

static unsigned action_of(const struct json *rules)
{
    struct str name = dump_str(rules, "action");
    for (unsigned i = 0; i < array_len(actions); i++) {
        if (str_is(name, actions[i])) {
            return i;
        }
    }
    return 1; // config.rbac.v3.RBAC.Action: the default is ALLOW
}

// Rules that are there and empty let nothing pass, which is why they get a line.
static void take_filter(struct search *s, const struct json *config)
{
    const struct json *rules = dump_get(config, "rules"), *policies = dump_get(rules, "policies");
    const struct json *shadow = dump_get(dump_get(config, "shadow_rules"), "policies");
    for (const struct json *p = policies ? policies->first : NULL; p; p = p->next) {
        add_named(s, action_of(rules), p->key);
    }
    for (const struct json *p = shadow ? shadow->first : NULL; p; p = p->next) {
        if (str_starts(p->key, STR("istio-ext-authz-"))) {
            add_named(s, 3, p->key);
        }
    }
    if (!policies || !policies->count) {
        add(s, action_of(rules), STR("_anonymous_match_nothing_"), STR("0"));
    }
}

static void take_chain(struct search *s, const struct json *chain)
{
    const struct json *filters = dump_get(chain, "filters");
    for (const struct json *f = filters ? filters->first : NULL; f; f = f->next) {
        const struct json *config = dump_get(f, "typed_config"), *http = dump_get(config, "http_filters");
        if (str_is(dump_str(f, "name"), "envoy.filters.network.rbac")) {
            take_filter(s, config);
        }
        for (const struct json *h = http ? http->first : NULL; h; h = h->next) {
            if (str_is(dump_str(h, "name"), "envoy.filters.http.rbac")) {
                take_filter(s, dump_get(h, "typed_config"));
            }
        }
    }
}

static int by_policy(const void *x, const void *y)
{
    const struct found *a = x, *b = y;
    int d = (int)a->action - (int)b->action;
    return d ? d : str_cmp(a->policy, b->policy);
}

// Rules of the policy of that name, whatever their action, each once.
static size_t count_rules(const struct search *s, struct str policy)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        bool first = str_eq(s->v[i].policy, policy);
        for (size_t x = 0; x < i && first; x++) {
            first = !str_eq(s->v[x].policy, policy) || !str_eq(s->v[x].rule, s->v[i].rule);
        }
        n += first;
    }
    return n;
}

static void write_table(struct cli *c, const struct search *s)
{
    struct table t;
    table_init(&t, c->arena, 3);
    table_header(&t, "ACTION\tAuthorizationPolicy\tRULES");
    for (size_t i = 0; i < s->n; i++) {
        if (!i || by_policy(&s->v[i - 1], &s->v[i])) {
            struct str cells[] = { str_c(actions[s->v[i].action]), s->v[i].policy, arena_printf(c->arena, "%zu", count_rules(s, s->v[i].policy)) };
            table_row(&t, cells);
        }
    }
    output_table(c, &t);
}

static int write_tree(struct cli *c, const struct search *s, struct err *err)
{
    struct buf b = { 0 };
    struct json_writer w;
    struct json *tree = NULL;
    jw_init(&w, &b, 0);
    jw_array(&w);
    for (size_t i = 0; i < s->n; i++) {
        if (!i || by_policy(&s->v[i - 1], &s->v[i])) {
            jw_object(&w);
            jw_kv(&w, "action", str_c(actions[s->v[i].action]));
            jw_kv(&w, "authorizationPolicy", s->v[i].policy);
            jw_kv_u64(&w, "rules", count_rules(s, s->v[i].policy));
            jw_object_end(&w);
        }
    }
    jw_array_end(&w);
    int rc = json_parse(arena_str(c->arena, buf_pullup(&b, buf_len(&b))), c->arena, &tree, err);
    buf_clear(&b);
    if (!rc) {
        output_tree(c, tree);
    }
    return rc;
}

int cmd_authz_check(struct cli *c, struct err *err)
{
    struct json *dump;
    struct dump_list l;
    struct search s = { .a = c->arena };
    int r = source_admin(c, "/config_dump", &dump, err);
    r = r ? r : dump_resources(dump, &kind, c->arena, &l, err);
    for (size_t i = 0; !r && i < l.n; i++) {
        const struct json *chains = dump_get(l.v[i], "filter_chains");
        for (const struct json *m = chains ? chains->first : NULL; m; m = m->next) {
            take_chain(&s, m);
        }
    }
    if (r) {
        return r;
    }
    if (s.n) {
        qsort(s.v, s.n, sizeof(*s.v), by_policy);
    }
    if (c->o.format != FORMAT_TABLE) {
        return write_tree(c, &s, err);
    }
    write_table(c, &s);
    return 0;
}
