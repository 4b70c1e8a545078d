// SPDX-License-Identifier: Apache-2.0
// Static resources of the bootstrap, through the same door as all others.
#include <errno.h>
#include <stdlib.h>

#include "lib/base/mem.h"
#include "xds-client/client.h"
#include "xds-client/limits.h"

// A put that waits for its commit.
struct xds_pending {
    struct xds_pending *next;
    struct str name, bytes; // arena; bytes p NULL = remove
};

static void forget(struct xds_type_state *st)
{
    if (st->pending) {
        arena_fini(st->pending);
        free(st->pending);
    }
    st->pending = NULL;
    st->pending_first = st->pending_last = NULL;
}

void xds_mem_fini(struct xds_client *c)
{
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        forget(&c->types[t]);
    }
}

void xds_mem_put(struct xds_client *c, enum xds_type t, struct str name, struct str bytes)
{
    struct xds_type_state *st = &c->types[t];
    if (!st->pending) {
        st->pending = mem_new(struct arena);
    }
    struct xds_pending *p = arena_new(st->pending, struct xds_pending);
    p->name = arena_str(st->pending, name);
    p->bytes = bytes.p ? arena_str(st->pending, bytes) : bytes;
    if (st->pending_last) {
        st->pending_last->next = p;
    } else {
        st->pending_first = p;
    }
    st->pending_last = p;
}

int xds_mem_commit(struct xds_client *c, enum xds_type t, struct err *err)
{
    struct xds_type_state *st = &c->types[t];
    struct xds_response r;
    struct arena a = { 0 };
    size_t n = 0;
    for (const struct xds_pending *p = st->pending_first; p; p = p->next) {
        n++;
    }
    xds_response_init(&r, t, n, &a);
    for (const struct xds_pending *p = st->pending_first; p; p = p->next) {
        xds_response_add_static(&r, p->name, p->bytes);
    }
    xds_response_seal(&r, &a);
    (void)xds_client_take(c, &r, XDS_ORIGIN_STATIC, &a);
    for (size_t i = 0; i < r.count; i++) {
        if (r.items[i].refused.p) {
            err_set(err, -EINVAL, "%s \"%.*s\": %.*s", xds_type_short(t), STR_FMT(r.items[i].name), STR_FMT(r.items[i].refused));
            break;
        }
    }
    int refused = (int)r.refused;
    arena_fini(&a);
    forget(st);
    xds_client_wake(c);
    return refused;
}
