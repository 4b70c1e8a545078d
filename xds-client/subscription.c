// SPDX-License-Identifier: Apache-2.0
#include "xds-client/subscription.h"

#include <stdlib.h>

#include "lib/base/mem.h"
#include "xds-client/limits.h"
#include "xds-client/wire.h"

static void free_names(struct map *names)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(names, &i));) {
        free(e->val);
    }
    map_fini(names);
}

void xds_sub_fini(struct xds_sub *s)
{
    free_names(&s->names);
    *s = (struct xds_sub){ 0 };
}

static uint64_t deadline(const struct xds_sub *s, uint64_t now_ms)
{
    return s->timeout_ms ? now_ms + s->timeout_ms : 0;
}

// A request with a name that is not text makes the server end the stream, over and over.
static bool is_askable(struct str name)
{
    return name.n > 0 && wire_is_text(name, XDS_NAME_MAX_BYTES);
}

bool xds_sub_set(struct xds_sub *s, bool wildcard_ok, const struct str *names, size_t n, uint64_t now_ms)
{
    bool wildcard = wildcard_ok && n == 0;
    bool changed = !s->subscribed || s->wildcard != wildcard;
    if (wildcard && changed) {
        s->all = (struct xds_sub_name){ .deadline_ms = deadline(s, now_ms) };
    }
    struct map fresh = { 0 };
    for (size_t i = 0; i < n && fresh.count < XDS_NAMES_MAX; i++) {
        if (!is_askable(names[i]) || map_get(&fresh, names[i])) {
            continue;
        }
        struct xds_sub_name *kept = map_del(&s->names, names[i]);
        if (!kept) {
            kept = mem_new(struct xds_sub_name);
            kept->deadline_ms = deadline(s, now_ms);
            changed = true;
        }
        map_put(&fresh, names[i], kept);
    }
    changed |= s->names.count != 0; // what was not taken over has left
    free_names(&s->names);
    s->names = fresh;
    s->subscribed = true;
    s->wildcard = wildcard;
    return changed;
}

static void retime(struct xds_sub_name *w, uint64_t deadline_ms)
{
    if (!w->answered && (!w->deadline_ms || !deadline_ms)) {
        w->deadline_ms = deadline_ms;
    }
}

void xds_sub_set_timeout(struct xds_sub *s, uint64_t timeout_ms, uint64_t now_ms)
{
    s->timeout_ms = timeout_ms;
    uint64_t d = deadline(s, now_ms);
    if (s->wildcard) {
        retime(&s->all, d);
    }
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->names, &i));) {
        retime(e->val, d);
    }
}

bool xds_sub_wants(const struct xds_sub *s, struct str name)
{
    return s->subscribed && (s->wildcard || map_get(&s->names, name));
}

bool xds_sub_waits_for(const struct xds_sub *s, struct str name)
{
    const struct xds_sub_name *w = map_get(&s->names, name);
    return w && !w->answered;
}

void xds_sub_answer(struct xds_sub *s, struct str name)
{
    struct xds_sub_name *w = s->wildcard ? &s->all : map_get(&s->names, name);
    if (w) {
        w->answered = true;
    }
}

static bool counts(const struct xds_sub_name *w)
{
    return !w->answered && w->deadline_ms;
}

uint64_t xds_sub_deadline(const struct xds_sub *s)
{
    uint64_t first = s->wildcard && counts(&s->all) ? s->all.deadline_ms : 0;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->names, &i));) {
        const struct xds_sub_name *w = e->val;
        if (counts(w) && (!first || w->deadline_ms < first)) {
            first = w->deadline_ms;
        }
    }
    return first;
}

static bool take_expired(struct xds_sub_name *w, uint64_t now_ms)
{
    if (!counts(w) || w->deadline_ms > now_ms) {
        return false;
    }
    w->answered = true;
    return true;
}

size_t xds_sub_expire(struct xds_sub *s, uint64_t now_ms, struct arena *a, struct str **ret_names)
{
    size_t n = 0;
    struct str *names = arena_array(a, struct str, s->names.count + 1);
    if (s->wildcard && take_expired(&s->all, now_ms)) {
        names[n++] = arena_str(a, str_n(NULL, 0));
    }
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->names, &i));) {
        if (take_expired(e->val, now_ms)) {
            names[n++] = arena_str(a, e->key);
        }
    }
    *ret_names = names;
    return n;
}
