// SPDX-License-Identifier: Apache-2.0
#include "xds-client/apply.h"

#include "lib/base/arena.h"
#include "xds-client/limits.h"

struct round {
    const struct xds_apply *ap;
    struct xds_response *r;
    struct arena *a;
    struct xds_update_item *shown; // arena; what the sink gets
    size_t *from;                  // index into r->items of each shown item, SIZE_MAX for what a full response left out
    size_t count;
};

static void show(struct round *o, struct str name, struct str bytes, struct str version, size_t from)
{
    o->shown[o->count] = (struct xds_update_item){
        .name = name,
        .bytes = bytes,
        .version = version,
        .is_static = o->ap->origin == XDS_ORIGIN_STATIC,
    };
    o->from[o->count++] = from;
}

// Two sources may not own one name; Envoy too keeps the static resource. Static ones may replace what came before them.
static const char *conflict(const struct xds_entry *e, const struct xds_apply *ap)
{
    if (!e || !e->accepted || e->origin == ap->origin || ap->origin == XDS_ORIGIN_STATIC) {
        return NULL;
    }
    return e->origin == XDS_ORIGIN_STATIC ? "a static resource has this name" : "another source has given a resource of this name";
}

static struct str shown_version(const struct xds_response *r, const struct xds_item *it)
{
    return it->wire_version.n ? it->wire_version : r->version;
}

static void consider_removal(struct round *o, const struct xds_entry *e, size_t i)
{
    const struct xds_apply *ap = o->ap;
    struct xds_item *it = &o->r->items[i];
    if (e && e->accepted && e->origin == ap->origin) {
        show(o, it->name, str_n(NULL, 0), o->r->version, i);
    } else if (!e || !e->accepted) {
        // Never had it, but somebody may be waiting for it: it does not exist.
        if (ap->sub && xds_sub_waits_for(ap->sub, it->name)) {
            show(o, it->name, str_n(NULL, 0), o->r->version, i);
        } else if (e) {
            xds_store_del(ap->store, it->name);
        }
    }
}

static void consider(struct round *o, size_t i)
{
    const struct xds_apply *ap = o->ap;
    struct xds_item *it = &o->r->items[i];
    struct xds_entry *e = it->name.n ? xds_store_get(ap->store, it->name) : NULL;
    if (e) {
        e->mark = ap->store->mark;
    }
    if (it->refused.p || (ap->sub && !xds_sub_wants(ap->sub, it->name))) {
        return;
    }
    if (it->removed) {
        consider_removal(o, e, i);
        return;
    }
    const char *why = conflict(e, ap);
    if (!why && (!e || !e->accepted) && ap->store->accepted + o->count >= XDS_RESOURCES_MAX) {
        why = "too many resources of this type";
    }
    if (why) {
        it->refused = str_c(why);
        return;
    }
    struct hash128 h = hash_content(it->bytes.p, it->bytes.n);
    bool same = e && e->accepted && e->r.bytes.n == it->bytes.n && e->r.hash.lo == h.lo && e->r.hash.hi == h.hi;
    if (same && e->r.is_static == (ap->origin == XDS_ORIGIN_STATIC)) {
        xds_store_clear_failed(e);
        xds_store_set_wire_version(e, it->wire_version);
        if (ap->sub) {
            xds_sub_answer(ap->sub, it->name);
        }
        return;
    }
    show(o, it->name, it->bytes, shown_version(o->r, it), i);
}

// Full state: whatever this source gave before and does not name now is gone.
static void consider_left_out(struct round *o)
{
    struct xds_store *s = o->ap->store;
    struct map_entry *me;
    for (size_t i = 0; (me = map_next(&s->entries, &i));) {
        struct xds_entry *e = me->val;
        if (e->mark == s->mark || e->origin != o->ap->origin) {
            continue;
        }
        if (e->accepted) {
            show(o, arena_str(o->a, e->r.name), str_n(NULL, 0), o->r->version, SIZE_MAX);
        } else {
            xds_store_del(s, e->r.name);
        }
    }
}

static void keep(struct round *o, size_t k)
{
    const struct xds_apply *ap = o->ap;
    const struct xds_update_item *u = &o->shown[k];
    struct xds_item *it = o->from[k] == SIZE_MAX ? NULL : &o->r->items[o->from[k]];
    if (ap->sub) {
        xds_sub_answer(ap->sub, u->name);
    }
    if (!u->bytes.p) {
        xds_store_del(ap->store, u->name); // a removal cannot be refused
    } else if (u->refused.p) {
        it->refused = u->refused;
    } else {
        xds_store_put(ap->store, u->name, u->bytes, u->version, it->wire_version, ap->origin, ap->wall_ms);
    }
}

static void remember_refused(struct round *o)
{
    const struct xds_apply *ap = o->ap;
    for (size_t i = 0; i < o->r->count; i++) {
        struct xds_item *it = &o->r->items[i];
        if (!it->refused.p) {
            continue;
        }
        o->r->refused++;
        if (it->name.n && !it->removed && (!ap->sub || xds_sub_wants(ap->sub, it->name))) {
            xds_store_fail(ap->store, it->name, it->bytes, shown_version(o->r, it), it->refused, ap->origin, ap->wall_ms);
        }
    }
}

void xds_apply(const struct xds_apply *ap, struct xds_response *r, struct arena *a)
{
    if (r->error.p) {
        return;
    }
    size_t room = r->count + (r->full ? ap->store->entries.count : 0) + 1;
    struct round o = {
        .ap = ap,
        .r = r,
        .a = a,
        .shown = arena_array(a, struct xds_update_item, room),
        .from = arena_array(a, size_t, room),
    };
    ap->store->mark++;
    for (size_t i = 0; i < r->count; i++) {
        consider(&o, i);
    }
    if (r->full) {
        consider_left_out(&o);
    }
    if (o.count || ap->first) {
        struct xds_update u = { .type = r->type, .items = o.shown, .count = o.count, .version = r->version, .arena = a };
        ap->sink(ap->arg, &u);
    }
    for (size_t k = 0; k < o.count; k++) {
        keep(&o, k);
    }
    remember_refused(&o);
}
