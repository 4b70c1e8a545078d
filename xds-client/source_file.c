// SPDX-License-Identifier: Apache-2.0
// Resources of one type in a file: a DiscoveryResponse in JSON or YAML (core.v3.PathConfigSource), or a list of resources. A file
// is the full state of what it gives; a file that does not parse changes nothing.
#include <errno.h>
#include <stdlib.h>

#include "lib/base/file.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/event/fswatch.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"
#include "xds-client/client.h"
#include "xds-client/limits.h"

enum { QUIET_MS = 50 }; // an editor's or kubelet's several events are one change

struct xds_file {
    struct list link;
    struct xds_client *c; // borrowed
    enum xds_type type;
    int origin;
    char *path;            // owned
    struct fswatch *watch; // owned
    struct hash128 seen;   // of the content that was counted last
    bool counted;
};

// ---- text → response ----

static struct str element_name(const struct json *el)
{
    struct str name = json_str(el, "name");
    name = name.n ? name : json_str(el, "cluster_name");
    return name.n ? name : json_str(el, "clusterName");
}

static void add_element(struct xds_response *r, const struct json *el, struct arena *a)
{
    bool typed = json_get(el, "@type") != NULL;
    const ProtobufCMessageDescriptor *desc = typed ? &google__protobuf__any__descriptor : types_find(xds_type_url(r->type));
    ProtobufCMessage *msg = NULL;
    struct err err = { 0 };
    if (!desc) {
        xds_response_add_refused(r, element_name(el), STR("this type is not known here"), a);
    } else if (pb_json_read(el, desc, 0, a, &msg, &err)) {
        xds_response_add_refused(r, element_name(el), str_c(err.msg), a);
    } else if (typed) {
        xds_response_add_any(r, pb_pack(msg, a), a);
    } else {
        xds_response_add_message(r, pb_pack(msg, a), str_n(NULL, 0), a);
    }
}

// Members of a DiscoveryResponse; anything else is a mistake of the writer.
static int check_members(const struct json *root, struct err *err)
{
    static const char *const known[] = { "version_info", "versionInfo", "resources",     "type_url",     "typeUrl",
                                         "nonce",        "canary",      "control_plane", "controlPlane", "@type" };
    for (const struct json *m = root->first; m; m = m->next) {
        bool ok = false;
        for (size_t i = 0; i < array_len(known); i++) {
            ok |= str_is(m->key, known[i]);
        }
        if (!ok) {
            return err_set(err, -EINVAL, "line %d: unknown field \"%.*s\" in a DiscoveryResponse", m->line, STR_FMT(m->key));
        }
    }
    return 0;
}

static int parse(const struct xds_file *f, struct str text, struct arena *a, struct xds_response *ret, struct err *err)
{
    struct json *root = NULL;
    if (json_or_yaml_parse(text, a, &root, err)) {
        return -EINVAL;
    }
    const struct json *list = root;
    if (root->type == JSON_OBJECT) {
        if (check_members(root, err)) {
            return -EINVAL;
        }
        struct str url = json_str(root, "type_url");
        url = url.n ? url : json_str(root, "typeUrl");
        if (url.n && xds_type_parse(url) != (int)f->type) {
            return err_set(err, -EINVAL, "type_url: \"%.*s\" in a file for %s", STR_FMT(url), xds_type_short(f->type));
        }
        list = json_get(root, "resources");
    }
    if (list && list->type != JSON_ARRAY && list->type != JSON_NULL) {
        return err_set(err, -EINVAL, "line %d: resources must be a list", list->line);
    }
    size_t n = list ? list->count : 0;
    if (n > XDS_RESOURCES_MAX) {
        return err_set(err, -E2BIG, "%zu resources, more than the %d allowed", n, XDS_RESOURCES_MAX);
    }
    xds_response_init(ret, f->type, n, a);
    for (const struct json *el = list ? list->first : NULL; el; el = el->next) {
        add_element(ret, el, a);
    }
    xds_response_seal(ret, a);
    ret->full = true;
    ret->version = json_str(root, "version_info");
    ret->version = ret->version.n ? ret->version : json_str(root, "versionInfo");
    return 0;
}

// ---- file → client ----

static void load(struct xds_file *f)
{
    struct xds_client *c = f->c;
    struct arena a = { 0 };
    struct err err = { 0 };
    struct str text = { 0 };
    struct xds_response r;
    if (file_read(f->path, XDS_FILE_MAX_BYTES, &a, &text, &err)) {
        xds_client_refuse(c, f->type, str_c(err.msg));
        f->counted = false;
        arena_fini(&a);
        return;
    }
    struct hash128 h = hash_content(text.p, text.n);
    bool again = f->counted && h.lo == f->seen.lo && h.hi == f->seen.hi;
    f->seen = h;
    f->counted = true;
    // The counters tell of changes of the file; a look for newly wanted names is none.
    struct xds_type_state *st = &c->types[f->type];
    uint64_t updates = st->updates, accepted = st->accepted, rejected = st->rejected;
    if (parse(f, text, &a, &r, &err)) {
        err_wrap(&err, "%s", f->path);
        xds_client_refuse(c, f->type, str_c(err.msg));
    } else {
        if (!r.version.n) {
            r.version = arena_printf(&a, "%016llx", (unsigned long long)h.lo);
        }
        (void)xds_client_take(c, &r, f->origin, &a);
    }
    if (again) {
        st->updates = updates;
        st->accepted = accepted;
        st->rejected = rejected;
    }
    arena_fini(&a);
}

static void on_change(void *arg)
{
    struct xds_file *f = arg;
    if (f->c->subs[f->type].subscribed) {
        load(f);
    }
}

void xds_files_load(struct xds_client *c, enum xds_type t)
{
    list_for_safe(l, &c->files)
    {
        struct xds_file *f = list_entry(l, struct xds_file, link);
        if (f->type == t && c->subs[t].subscribed) {
            load(f);
        }
    }
}

static void file_free(struct xds_file *f)
{
    if (f->watch) {
        fswatch_free(f->watch);
    }
    free(f->path);
    free(f);
}

void xds_files_free(struct xds_client *c)
{
    list_for_safe(l, &c->files)
    {
        list_del(l);
        file_free(list_entry(l, struct xds_file, link));
    }
}

int xds_add_file(struct xds_client *c, enum xds_type t, const char *path, struct err *err)
{
    struct arena a = { 0 };
    struct str text;
    if (c->ads && (xds_ads_served(c->ads) >> t & 1)) {
        return err_set(err, -EEXIST, "%s: %s is served by the ADS stream already", path, xds_type_short(t));
    }
    int rc = file_read(path, XDS_FILE_MAX_BYTES, &a, &text, err);
    arena_fini(&a);
    if (rc) {
        return rc;
    }
    struct xds_file *f = mem_new(struct xds_file);
    *f = (struct xds_file){ .c = c, .type = t, .origin = c->next_origin++, .path = mem_strdup(path) };
    f->watch = fswatch_new(c->loop, path, QUIET_MS, on_change, f, err);
    if (!f->watch) {
        file_free(f);
        return err && err->code ? err->code : -EIO;
    }
    list_add_tail(&c->files, &f->link);
    c->file_types |= 1u << t;
    c->types[t].dirty = true;
    xds_client_wake(c);
    return 0;
}
