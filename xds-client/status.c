// SPDX-License-Identifier: Apache-2.0
// What the client tells of itself, for the admin interface.
#include <stdlib.h>

#include "xds-client/client.h"

void xds_status(const struct xds_client *c, enum xds_type t, struct xds_type_status *ret)
{
    const struct xds_type_state *st = &c->types[t];
    *ret = (struct xds_type_status){
        .version = st->version,
        .updates = st->updates,
        .accepted = st->accepted,
        .rejected = st->rejected,
        .failures = st->failures,
        .last_update_ms = st->last_update_ms,
        .last_error = st->last_error,
        .subscribed = c->subs[t].subscribed,
        .answered = st->answered || st->answered_static,
        .resources = c->stores[t].accepted,
    };
}

void xds_ads_state(const struct xds_client *c, struct xds_ads_status *ret)
{
    *ret = (struct xds_ads_status){ 0 };
    if (c->ads) {
        xds_ads_status_get(c->ads, ret);
    }
}

static void each(const struct xds_client *c, enum xds_type t, bool accepted, bool (*fn)(void *arg, const struct xds_resource *r), void *arg)
{
    size_t n = c->stores[t].entries.count;
    struct map_entry **sorted = map_sorted(&c->stores[t].entries);
    for (size_t i = 0; i < n; i++) {
        const struct xds_entry *e = sorted[i]->val;
        if (e->accepted == accepted && !fn(arg, &e->r)) {
            break;
        }
    }
    free(sorted);
}

void xds_each(const struct xds_client *c, enum xds_type t, bool (*fn)(void *arg, const struct xds_resource *r), void *arg)
{
    each(c, t, true, fn, arg);
}

void xds_each_refused(const struct xds_client *c, enum xds_type t, bool (*fn)(void *arg, const struct xds_resource *r), void *arg)
{
    each(c, t, false, fn, arg);
}

const struct xds_resource *xds_find(const struct xds_client *c, enum xds_type t, struct str name)
{
    const struct xds_entry *e = xds_store_get(&c->stores[t], name);
    return e && e->accepted ? &e->r : NULL;
}
