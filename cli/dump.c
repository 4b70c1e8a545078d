// SPDX-License-Identifier: Apache-2.0
#include "cli/dump.h"

#include <errno.h>

// Whether key is the field's name, or its lowerCamelCase form (ProtoJSON mapping, "JSON name").
static bool is_field(struct str key, struct str field)
{
    if (str_eq(key, field)) {
        return true;
    }
    size_t k = 0;
    for (size_t i = 0; i < field.n; i++, k++) {
        char c = field.p[i];
        if (c == '_' && i + 1 < field.n) {
            c = field.p[++i];
            c = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
        }
        if (k >= key.n || key.p[k] != c) {
            return false;
        }
    }
    return k == key.n;
}

static const struct json *get(const struct json *n, struct str field)
{
    if (!n || n->type != JSON_OBJECT) {
        return NULL;
    }
    for (const struct json *m = n->first; m; m = m->next) {
        if (is_field(m->key, field)) {
            return m;
        }
    }
    return NULL;
}

const struct json *dump_get(const struct json *n, const char *field)
{
    return get(n, str_c(field));
}

const struct json *dump_path(const struct json *n, const char *path)
{
    struct str rest = str_c(path);
    while (n && rest.n) {
        n = get(n, str_split(&rest, '.'));
    }
    return n;
}

struct str dump_str(const struct json *n, const char *path)
{
    const struct json *v = dump_path(n, path);
    bool text = v && (v->type == JSON_STRING || v->type == JSON_NUMBER);
    return text ? v->text : (struct str){ 0 };
}

uint32_t dump_u32(const struct json *n, const char *path)
{
    uint64_t v = 0;
    str_to_u64(dump_str(n, path), UINT32_MAX, &v);
    return (uint32_t)v;
}

bool dump_bool(const struct json *n, const char *path)
{
    const struct json *v = dump_path(n, path);
    return v && v->type == JSON_BOOL && v->boolean;
}

void dump_add(struct dump_list *l, const struct json *n, struct arena *a)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 32;
        const struct json **v = arena_array(a, const struct json *, cap);
        if (l->n) {
            memcpy(v, l->v, l->n * sizeof(*v));
        }
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = n;
}

const struct json *dump_section(const struct json *dump, const char *name)
{
    const struct json *configs = dump_get(dump, "configs"), *found = NULL;
    for (const struct json *m = configs ? configs->first : NULL; m; m = m->next) {
        struct str type = dump_str(m, "@type");
        size_t n = strlen(name);
        if (type.n > n && type.p[type.n - n - 1] == '.' && str_ends(type, str_c(name))) {
            found = m;
        }
    }
    return found;
}

int dump_resources(const struct json *dump, const struct dump_kind *kind, struct arena *a, struct dump_list *ret, struct err *err)
{
    struct dump_list l = { 0 };
    if (dump->type == JSON_ARRAY) {
        for (const struct json *m = dump->first; m; m = m->next) {
            dump_add(&l, m, a);
        }
        *ret = l;
        return 0;
    }
    const struct json *section = dump_section(dump, kind->section);
    if (!section && !dump_get(dump, "configs")) {
        return err_set(err, -EINVAL, "this is not a config dump (it has no \"configs\"); save one with: curl ADMIN/config_dump");
    }
    if (!section) {
        return err_set(err, -ENOENT, "the dump has no %s, so nothing is known of %s; save a whole one with: curl ADMIN/config_dump",
                       kind->section, kind->what);
    }
    for (size_t i = 0; i < 2; i++) {
        const struct json *list = kind->lists[i].member ? dump_get(section, kind->lists[i].member) : NULL;
        for (const struct json *m = list ? list->first : NULL; m; m = m->next) {
            const struct json *resource = dump_path(m, kind->lists[i].path);
            if (resource) {
                dump_add(&l, resource, a);
            }
        }
    }
    *ret = l;
    return 0;
}

struct subset_key dump_subset_key(struct str name)
{
    struct str rest = name;
    struct str direction = str_split(&rest, '|'), port = str_split(&rest, '|'), subset = str_split(&rest, '|');
    if (!rest.p) {
        return (struct subset_key){ .fqdn = name };
    }
    uint64_t n = 0;
    str_to_u64(port, UINT32_MAX, &n);
    struct subset_key key = { .direction = direction, .subset = subset, .port = (uint32_t)n, .parsed = true };
    if (str_find(rest, '|') < 0) { // more parts than four: no host name can be told
        key.fqdn = rest;
    }
    return key;
}

bool dump_subset_less(const struct subset_key *a, const struct subset_key *b)
{
    int d = str_cmp(a->fqdn, b->fqdn);
    d = d ? d : str_cmp(a->subset, b->subset);
    if (d == 0 && a->port != b->port) {
        return a->port < b->port;
    }
    return (d ? d : str_cmp(a->direction, b->direction)) < 0;
}

struct str dump_management(const struct json *resource, struct arena *a)
{
    const struct json *istio = dump_get(dump_path(resource, "metadata.filter_metadata"), "istio");
    const struct json *config = dump_get(istio, "config");
    if (!config) {
        return STR("");
    }
    struct str rest = dump_str(istio, "config"), part[8];
    if (!str_starts(rest, STR("/apis/networking.istio.io/"))) {
        return STR("<unknown>");
    }
    size_t n = 0;
    while (rest.p && n < 8) {
        part[n++] = str_split(&rest, '/');
    }
    if (n != 8 || rest.p) {
        return STR("");
    }
    return arena_printf(a, "%.*s.%.*s", STR_FMT(part[7]), STR_FMT(part[5]));
}
