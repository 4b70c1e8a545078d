// SPDX-License-Identifier: Apache-2.0
// YAML → struct cp_config. Strict: an unknown kind, field or value is an error that names file, line and field.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control-plane/load_int.h"
#include "control-plane/validate.h"
#include "lib/base/check.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"

enum { FILE_BYTES_MAX = 8 * 1024 * 1024, FILES_MAX = 4096, DEPTH_MAX = 16, OBJECTS_MAX = 50000 };

static const struct cp_kind {
    const char *kind, *group;
    int (*load)(struct loader *l, const struct json *spec);
} kinds[] = {
    { "ServiceEntry", "networking.istio.io/", ld_service_entry },
    { "WorkloadEntry", "networking.istio.io/", ld_workload },
    { "VirtualService", "networking.istio.io/", ld_virtual_service },
    { "DestinationRule", "networking.istio.io/", ld_destination_rule },
    { "PeerAuthentication", "security.istio.io/", ld_peer_authentication },
    { "AuthorizationPolicy", "security.istio.io/", ld_authorization_policy },
    { "RequestAuthentication", "security.istio.io/", ld_request_authentication },
};

static int load_meta(struct loader *l, const struct json *doc)
{
    const struct json *m = json_get(doc, "metadata");
    l->meta = (struct cp_meta){ .ns = STR("default"), .file = l->file, .line = doc->line };
    if (!m) {
        return ld_fail(l, doc, "metadata: missing");
    }
    // what `kubectl get -o yaml` adds says nothing about traffic
    if (ld_members(l, m, "name namespace labels annotations creationTimestamp generation resourceVersion uid managedFields ownerReferences "
                         "finalizers selfLink") ||
        ld_str(l, m, "name", &l->meta.name) || ld_str(l, m, "namespace", &l->meta.ns) || ld_str(l, m, "creationTimestamp", &l->meta.created)) {
        return -EINVAL;
    }
    l->annotations = NULL;
    if (!l->meta.name.n) {
        return ld_fail(l, m, "name: missing");
    }
    if (ld_object(l, m, "annotations", &l->annotations)) {
        return -EINVAL;
    }
    return ld_name(l, m, "name", l->meta.name) || ld_name(l, m, "namespace", l->meta.ns) ? -EINVAL : 0;
}

// One object of a kind, namespace and name.
static int check_unique(struct loader *l, const struct json *doc)
{
    struct str key = arena_printf(l->a, "%.*s/%.*s/%.*s", STR_FMT(l->meta.kind), STR_FMT(l->meta.ns), STR_FMT(l->meta.name));
    struct cp_meta *mine = arena_new(l->a, struct cp_meta);
    *mine = l->meta;
    const struct cp_meta *other = map_put(&l->seen, key, mine);
    return !other ? 0 : ld_fail(l, doc, "%.*s %.*s in namespace %.*s is there already: %s:%d", STR_FMT(l->meta.kind), STR_FMT(l->meta.name),
                                STR_FMT(l->meta.ns), other->file, other->line);
}

// The first thing that istiod would refuse the object for.
static void take_complaint(void *arg, bool warning, const struct json *at, struct str text)
{
    struct loader *l = arg;
    if (!warning && !l->err->code) {
        err_set(l->err, -EINVAL, "%s:%d: %.*s", l->file, at ? at->line : l->meta.line, STR_FMT(text));
    }
}

static int validate(struct loader *l, const struct json *doc)
{
    struct cp_validator v = { .a = l->a, .ns = l->meta.ns, .say = take_complaint, .arg = l };
    l->err->code = 0;
    cp_validate(&v, doc);
    return l->err->code;
}

static int load_config_map(struct loader *l, const struct json *doc)
{
    return ld_members(l, doc, "apiVersion kind metadata data immutable") || load_meta(l, doc) || ld_config_map(l, doc) ? -EINVAL : 0;
}

static int load_document(struct loader *l, const struct json *doc)
{
    struct str kind = { 0 }, api = { 0 };
    static const struct json no_spec = { .type = JSON_OBJECT };
    if (doc->type == JSON_OBJECT && str_is(json_str(doc, "kind"), "ConfigMap")) {
        return load_config_map(l, doc);
    }
    if (ld_members(l, doc, "apiVersion kind metadata spec status") || ld_str(l, doc, "kind", &kind) || ld_str(l, doc, "apiVersion", &api) ||
        load_meta(l, doc)) {
        return -EINVAL;
    }
    if (l->c->service_count + l->c->workload_count + l->c->virtual_service_count + l->c->destination_rule_count +
            l->c->peer_authentication_count + l->c->authz_count + l->c->request_authentication_count > OBJECTS_MAX) {
        return ld_fail(l, doc, "more than %d objects", OBJECTS_MAX);
    }
    for (size_t i = 0; i < array_len(kinds); i++) {
        if (!str_is(kind, kinds[i].kind)) {
            continue;
        }
        if (!str_starts(api, str_c(kinds[i].group))) {
            return ld_fail(l, json_get(doc, "apiVersion") ? json_get(doc, "apiVersion") : doc, "%s belongs to %sv1", kinds[i].kind, kinds[i].group);
        }
        l->meta.kind = str_c(kinds[i].kind);
        const struct json *spec = json_get(doc, "spec");
        if (check_unique(l, doc)) {
            return -EINVAL;
        }
        return kinds[i].load(l, spec && spec->type != JSON_NULL ? spec : &no_spec) ? -EINVAL : validate(l, doc);
    }
    return ld_fail(l, json_get(doc, "kind") ? json_get(doc, "kind") : doc,
                "unknown kind \"%.*s\"; known: ServiceEntry, WorkloadEntry, VirtualService, DestinationRule, PeerAuthentication, "
                "AuthorizationPolicy, RequestAuthentication, ConfigMap", STR_FMT(kind));
}

static int load_text(struct loader *l, struct str text, const char *name)
{
    struct arena scratch = { 0 };
    struct json *docs = NULL;
    struct err e = { 0 };
    int rc = 0;
    l->file = arena_strdup(l->a, name);
    if (yaml_parse(text, &scratch, &docs, &e)) {
        rc = err_set(l->err, -EINVAL, "%s: %s", name, e.msg);
    }
    for (const struct json *d = docs ? docs->first : NULL; d && !rc; d = d->next) {
        rc = load_document(l, d);
    }
    arena_fini(&scratch);
    return rc;
}

static int load_file(struct loader *l, const char *path)
{
    struct arena a = { 0 };
    struct str text;
    int rc = file_read(path, FILE_BYTES_MAX, &a, &text, l->err);
    rc = rc ? rc : load_text(l, text, path);
    arena_fini(&a);
    return rc;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_folder(struct loader *l, const char *folder, int depth, int *files)
{
    struct dirent **v = NULL;
    int n = scandir(folder, &v, NULL, by_name);
    if (n < 0) {
        return err_errno(l->err, errno, folder);
    }
    int rc = 0;
    for (int i = 0; i < n; i++) {
        char path[4096];
        struct stat st;
        size_t len = strlen(v[i]->d_name);
        bool yaml = (len > 5 && !strcmp(v[i]->d_name + len - 5, ".yaml")) || (len > 4 && !strcmp(v[i]->d_name + len - 4, ".yml"));
        snprintf(path, sizeof(path), "%s/%s", folder, v[i]->d_name);
        if (rc == 0 && v[i]->d_name[0] != '.' && stat(path, &st) == 0) {
            if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
                rc = load_folder(l, path, depth + 1, files);
            } else if (S_ISREG(st.st_mode) && yaml) {
                rc = ++*files > FILES_MAX ? err_set(l->err, -EINVAL, "%s: more than %d files", folder, FILES_MAX) : load_file(l, path);
            }
        }
        free(v[i]);
    }
    free(v);
    return rc;
}

static int finish(struct loader *l, int rc, struct cp_config **ret)
{
    if (!rc) {
        rc = ld_link(l);
    }
    map_fini(&l->seen);
    if (rc) {
        cp_config_free(l->c);
        return rc;
    }
    *ret = l->c;
    return 0;
}

static struct loader loader_new(struct err *err)
{
    struct loader l = { .c = mem_new(struct cp_config), .err = err };
    l.a = &l.c->arena;
    arena_init(l.a, 64 * 1024, 0);
    return l;
}

int cp_load(const char *folder, struct cp_config **ret, struct err *err)
{
    struct loader l = loader_new(err);
    int files = 0;
    return finish(&l, load_folder(&l, folder, 0, &files), ret);
}

int cp_check_document(const struct json *doc, const char *file, struct err *err)
{
    struct str kind = json_str(doc, "kind");
    for (size_t i = 0; i < array_len(kinds); i++) {
        if (str_is(kind, kinds[i].kind)) {
            struct loader l = loader_new(err);
            l.file = file;
            int rc = load_document(&l, doc);
            map_fini(&l.seen);
            cp_config_free(l.c);
            return rc;
        }
    }
    return 0;
}

int cp_load_text(struct str text, const char *name, struct cp_config **ret, struct err *err)
{
    struct loader l = loader_new(err);
    return finish(&l, load_text(&l, text, name), ret);
}

void cp_config_free(struct cp_config *c)
{
    if (c) {
        map_fini(&c->by_host);
        map_fini(&c->by_rule);
        arena_fini(&c->arena);
        free(c);
    }
}
