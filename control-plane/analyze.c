// SPDX-License-Identifier: Apache-2.0
#include "control-plane/analyze.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control-plane/analyze_int.h"
#include "control-plane/validate.h"
#include "lib/base/check.h"

const char *cp_level_name(enum cp_level l)
{
    static const char *const names[] = { [CP_ERROR] = "Error", [CP_WARNING] = "Warning", [CP_INFO] = "Info" };
    return names[l];
}

static void *grow(struct arena *a, void **v, size_t *n, size_t *cap, size_t size)
{
    if (*n == *cap) {
        size_t want = *cap ? *cap * 2 : 32;
        void *p = arena_zalloc(a, want * size);
        if (*n) {
            memcpy(p, *v, *n * size);
        }
        *v = p;
        *cap = want;
    }
    return (char *)*v + size * (*n)++;
}

void an_report(struct analysis *x, enum cp_level level, const char *code, const struct an_object *o, const struct json *at, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    struct cp_finding *f = grow(x->a, (void **)&x->found, &x->found_count, &x->found_cap, sizeof(*f));
    *f = (struct cp_finding){ .level = level,
                              .code = code,
                              .file = o->file,
                              .line = at ? at->line : o->doc ? o->doc->line : 0,
                              .origin = arena_printf(x->a, "%.*s %.*s/%.*s", STR_FMT(o->kind), STR_FMT(o->ns), STR_FMT(o->name)),
                              .text = arena_str(x->a, str_c(text)) };
}

const struct an_object *an_next(const struct analysis *x, const char *kind, size_t *at)
{
    for (; *at < x->n; (*at)++) {
        if (str_is(x->v[*at].kind, kind)) {
            return &x->v[(*at)++];
        }
    }
    return NULL;
}

struct str an_full(struct analysis *x, struct str host, struct str ns)
{
    if (!host.n || str_find(host, '.') >= 0 || str_is(host, "*")) {
        return host;
    }
    return arena_printf(x->a, "%.*s.%.*s.svc.cluster.local", STR_FMT(host), STR_FMT(ns));
}

static const struct an_host *find_named(const struct analysis *x, struct str name, struct str ns)
{
    for (size_t at = (size_t)(uintptr_t)map_get(&x->by_host, name); at; at = x->hosts[at - 1].next) {
        if (cp_exported(&x->hosts[at - 1].o->export, x->hosts[at - 1].o->ns, ns)) {
            return &x->hosts[at - 1];
        }
    }
    return NULL;
}

const struct an_host *an_find_host(struct analysis *x, struct str host, struct str ns)
{
    const struct an_host *h = find_named(x, host, ns);
    for (struct str key = an_full(x, host, ns); !h && key.n; key = cp_wider_host(x->a, key)) { // a ServiceEntry can be for "*.example.com"
        h = find_named(x, key, ns);
    }
    return h;
}

bool an_covers_host(struct analysis *x, struct str host, struct str ns)
{
    for (size_t i = 0; i < x->host_count && str_starts(host, STR("*")); i++) {
        if (cp_host_covers(host, x->hosts[i].name) && cp_exported(&x->hosts[i].o->export, x->hosts[i].o->ns, ns)) {
            return true;
        }
    }
    return false;
}

static void add_ref(struct analysis *x, struct map *m, struct an_ref **wild, struct str host, const struct an_object *o)
{
    struct an_ref *r = arena_new(x->a, struct an_ref), *head = map_get(m, host);
    *r = (struct an_ref){ .o = o, .next = head };
    map_put(m, host, r);
    if (wild && str_starts(host, STR("*"))) {
        struct an_ref *w = arena_new(x->a, struct an_ref);
        *w = (struct an_ref){ .o = o, .next = *wild };
        *wild = w;
    }
}

// Backwards, so that lists are in the order of the files.
static void index_objects(struct analysis *x)
{
    for (size_t i = x->n; i--;) {
        const struct an_object *o = &x->v[i];
        if (str_is(o->kind, "DestinationRule")) {
            add_ref(x, &x->rules, NULL, an_full(x, json_str(o->spec, "host"), o->ns), o);
        }
        const struct json *hosts = str_is(o->kind, "VirtualService") ? json_get(o->spec, "hosts") : NULL;
        for (const struct json *h = hosts && hosts->type == JSON_ARRAY ? hosts->first : NULL; h; h = h->next) {
            add_ref(x, &x->virtual_services, &x->wild_virtual_services, an_full(x, h->text, o->ns), o);
        }
    }
    for (size_t i = x->host_count; i--;) {
        x->hosts[i].next = (size_t)(uintptr_t)map_put(&x->by_host, x->hosts[i].name, (void *)(uintptr_t)(i + 1));
    }
}

static void take_export(struct analysis *x, struct an_object *o)
{
    const struct json *list = json_get(o->spec, "exportTo");
    struct str note = str_is(o->kind, "Service") ? json_str(json_get(json_get(o->doc, "metadata"), "annotations"), "networking.istio.io/exportTo")
                                                 : str_n(NULL, 0);
    size_t room = list ? list->count : 0;
    for (size_t i = 0; i < note.n; i++) {
        room += note.p[i] == ',';
    }
    o->export.v = arena_array(x->a, struct str, room + 1);
    while (note.n) {
        o->export.v[o->export.n++] = str_trim(str_split(&note, ','));
    }
    for (const struct json *n = list && list->type == JSON_ARRAY ? list->first : NULL; n; n = n->next) {
        o->export.v[o->export.n++] = n->text;
    }
}

struct complaints {
    struct analysis *x;
    const struct an_object *o;
    size_t errors;
};

static void take_complaint(void *arg, bool warning, const struct json *at, struct str text)
{
    struct complaints *c = arg;
    c->errors += !warning;
    an_report(c->x, warning ? CP_WARNING : CP_ERROR, warning ? "IST0133" : "IST0106", c->o, at, "%s%.*s", warning ? "" : "not valid: ", STR_FMT(text));
}

// Istio's verdict, and what remora-control alone does not take: fields of Istio's are no mistakes.
static void check_schema(struct analysis *x, const struct an_object *o)
{
    static const char *const beyond[] = { "zoneAwareLbSetting: unknown", "exponentialDelay: unknown", "http2Error: unknown",
                                          "sourceSubnet: unknown", "consecutiveErrors: unknown", "network: unknown" };
    struct err err = { 0 };
    bool refused = cp_check_document(o->doc, o->file, &err) != 0;
    // "FILE:LINE: what" with the place taken off
    struct str rest = str_c(err.msg), file = str_c(o->file);
    struct json at = { .line = o->doc->line };
    if (refused && str_starts(rest, file)) {
        uint64_t line;
        rest = str_skip(rest, file.n + 1);
        if (str_to_u64(str_split(&rest, ':'), 1 << 30, &line)) {
            at.line = (int)line;
        }
        rest = str_trim(rest);
    }
    bool typo = err.code == -EPROTOTYPE;
    for (size_t i = 0; i < array_len(beyond); i++) {
        typo &= str_find_str(rest, str_c(beyond[i])) < 0;
    }
    if (typo) {
        an_report(x, CP_ERROR, "IST0106", o, &at, "not valid: %.*s", STR_FMT(rest));
        return;
    }
    struct complaints c = { .x = x, .o = o };
    cp_validate(&(struct cp_validator){ .a = x->a, .ns = o->ns, .say = take_complaint, .arg = &c }, o->doc);
    if (refused && !c.errors) {
        an_report(x, CP_INFO, "REM0001", o, &at, "remora-control does not take this: %.*s", STR_FMT(rest));
    }
}

static void take_hosts(struct analysis *x, const struct an_object *o)
{
    if (str_is(o->kind, "Service")) {
        struct an_host *h = grow(x->a, (void **)&x->hosts, &x->host_count, &x->host_cap, sizeof(*h));
        *h = (struct an_host){ .name = an_full(x, o->name, o->ns), .o = o, .ports = json_get(o->spec, "ports") };
        return;
    }
    const struct json *list = str_is(o->kind, "ServiceEntry") ? json_get(o->spec, "hosts") : NULL;
    for (const struct json *n = list && list->type == JSON_ARRAY ? list->first : NULL; n; n = n->next) {
        struct an_host *h = grow(x->a, (void **)&x->hosts, &x->host_count, &x->host_cap, sizeof(*h));
        *h = (struct an_host){ .name = n->text, .o = o, .ports = json_get(o->spec, "ports") };
    }
}

static void take_document(struct analysis *x, const struct json *doc, const char *file)
{
    const struct json *meta = json_get(doc, "metadata"), *spec = json_get(doc, "spec");
    struct str ns = json_str(meta, "namespace");
    struct an_object *o = grow(x->a, (void **)&x->v, &x->n, &x->cap, sizeof(*o));
    *o = (struct an_object){ .doc = doc, .spec = spec && spec->type == JSON_OBJECT ? spec : NULL, .file = file, .kind = json_str(doc, "kind"),
                             .name = json_str(meta, "name"), .ns = ns.n ? ns : STR("default") };
    take_export(x, o);
}

static int worse(const void *a, const void *b)
{
    const struct cp_finding *f = a, *g = b;
    int d = (int)f->level - (int)g->level;
    d = d ? d : strcmp(f->code ? f->code : "", g->code ? g->code : "");
    d = d ? d : str_cmp(f->origin, g->origin);
    d = d ? d : f->line - g->line;
    return d ? d : str_cmp(f->text, g->text);
}

size_t cp_analyze(const struct cp_source *v, size_t n, struct arena *a, struct cp_finding **ret)
{
    struct analysis x = { .a = a };
    for (size_t i = 0; i < n; i++) {
        struct json *docs = NULL;
        struct err err = { 0 };
        if (yaml_parse(v[i].text, a, &docs, &err)) {
            an_report(&x, CP_ERROR, NULL, &(struct an_object){ .file = v[i].name }, NULL, "%s", err.msg);
            continue;
        }
        for (const struct json *d = docs->first; d; d = d->next) {
            take_document(&x, d, v[i].name);
        }
    }
    for (size_t i = 0; i < x.n; i++) {
        take_hosts(&x, &x.v[i]);
        check_schema(&x, &x.v[i]);
    }
    index_objects(&x);
    an_virtual_services(&x);
    an_conflicting_hosts(&x);
    an_rules(&x);
    an_service_entries(&x);
    an_policies(&x);
    map_fini(&x.by_host);
    map_fini(&x.rules);
    map_fini(&x.virtual_services);
    if (x.found_count) {
        qsort(x.found, x.found_count, sizeof(*x.found), worse);
    }
    size_t kept = 0;
    for (size_t i = 0; i < x.found_count; i++) { // a rule with many matches is named once
        if (!kept || worse(&x.found[kept - 1], &x.found[i]) || strcmp(x.found[kept - 1].file, x.found[i].file)) {
            x.found[kept++] = x.found[i];
        }
    }
    *ret = x.found;
    return kept;
}
