// SPDX-License-Identifier: Apache-2.0
#include "xds-client/store.h"

#include <stdlib.h>

#include "lib/base/mem.h"
#include "xds-client/limits.h"

static void drop(struct str *s)
{
    free((char *)s->p);
    *s = str_n(NULL, 0);
}

static void set(struct str *s, struct str v)
{
    if (s->p && str_eq(*s, v)) {
        return;
    }
    char *p = str_dup(v);
    free((char *)s->p);
    *s = str_n(p, v.n);
}

void xds_store_clear_failed(struct xds_entry *e)
{
    drop(&e->r.failed_bytes);
    drop(&e->r.failed_reason);
    drop(&e->r.failed_version);
    e->r.failed_ms = 0;
}

static void entry_free(struct xds_entry *e)
{
    xds_store_clear_failed(e);
    drop(&e->r.name);
    drop(&e->r.bytes);
    drop(&e->r.version);
    drop(&e->wire_version);
    free(e);
}

void xds_store_fini(struct xds_store *s)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->entries, &i));) {
        entry_free(e->val);
    }
    map_fini(&s->entries);
    *s = (struct xds_store){ 0 };
}

struct xds_entry *xds_store_get(const struct xds_store *s, struct str name)
{
    return map_get(&s->entries, name);
}

static struct xds_entry *get_or_add(struct xds_store *s, struct str name)
{
    struct xds_entry *e = map_get(&s->entries, name);
    if (!e) {
        e = mem_new(struct xds_entry);
        set(&e->r.name, name);
        map_put(&s->entries, name, e);
    }
    return e;
}

void xds_store_put(struct xds_store *s, struct str name, struct str bytes, struct str version, struct str wire_version, int origin,
                   uint64_t wall_ms)
{
    struct xds_entry *e = get_or_add(s, name);
    set(&e->r.bytes, bytes);
    set(&e->r.version, version);
    set(&e->wire_version, wire_version);
    e->r.hash = hash_content(bytes.p, bytes.n);
    e->r.updated_ms = wall_ms;
    e->r.is_static = origin == XDS_ORIGIN_STATIC;
    e->origin = origin;
    s->accepted += !e->accepted;
    e->accepted = true;
    xds_store_clear_failed(e);
}

void xds_store_fail(struct xds_store *s, struct str name, struct str bytes, struct str version, struct str reason, int origin,
                    uint64_t wall_ms)
{
    if (!map_get(&s->entries, name) && s->entries.count - s->accepted >= XDS_REFUSED_MAX) {
        return;
    }
    struct xds_entry *e = get_or_add(s, name);
    if (!e->accepted) {
        e->origin = origin;
    }
    set(&e->r.failed_bytes, bytes);
    set(&e->r.failed_version, version);
    set(&e->r.failed_reason, reason);
    e->r.failed_ms = wall_ms;
}

void xds_store_set_wire_version(struct xds_entry *e, struct str v)
{
    set(&e->wire_version, v);
}

void xds_store_del(struct xds_store *s, struct str name)
{
    struct xds_entry *e = map_del(&s->entries, name);
    if (e) {
        s->accepted -= e->accepted;
        entry_free(e);
    }
}
