// SPDX-License-Identifier: Apache-2.0
#include "xds-client/delta.h"

#include <errno.h>

#include "lib/base/arena.h"
#include "xds-client/resource_types.h"
#include "xds-client/wire.h"

// DeltaDiscoveryRequest
enum { REQ_NODE = 1, REQ_TYPE = 2, REQ_SUBSCRIBE = 3, REQ_UNSUBSCRIBE = 4, REQ_INITIAL = 5, REQ_NONCE = 6, REQ_ERROR = 7 };

void xds_delta_start(struct xds_delta *d)
{
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        map_fini(&d->types[t].sent);
        d->types[t] = (struct xds_delta_type){ 0 };
    }
    d->node_sent = false;
}

void xds_delta_fini(struct xds_delta *d)
{
    xds_delta_start(d);
}

static void begin(struct xds_delta *d, const struct xds_view *v, enum xds_type t, struct buf *out)
{
    if (!d->node_sent) {
        wire_put_bytes(out, REQ_NODE, v->node);
        d->node_sent = true;
    }
    wire_put_str(out, REQ_TYPE, xds_type_url(t));
}

// What we hold from this server, so that it can name what vanished while we were away. A nameless singleton has nothing to say.
static void put_initial_versions(const struct xds_view *v, enum xds_type t, struct buf *out)
{
    struct buf pair = { 0 };
    struct map_entry *e;
    if (xds_type_singleton(t).p) {
        return;
    }
    for (size_t i = 0; (e = map_next(&v->stores[t].entries, &i));) {
        const struct xds_entry *held = e->val;
        if (held->accepted && held->origin == XDS_ORIGIN_ADS && xds_sub_wants(&v->subs[t], e->key)) {
            wire_put_str(&pair, 1, held->r.name);
            wire_put_str(&pair, 2, held->wire_version);
            wire_put_message(out, REQ_INITIAL, &pair);
        }
    }
}

static void subscribe(struct xds_delta_type *ty, struct str name, struct buf *out)
{
    wire_put_bytes(out, REQ_SUBSCRIBE, name);
    map_put(&ty->sent, name, ty);
}

static void put_first(struct xds_delta *d, const struct xds_view *v, enum xds_type t, struct buf *out)
{
    struct xds_delta_type *ty = &d->types[t];
    struct map_entry *e;
    begin(d, v, t, out);
    for (size_t i = 0; (e = map_next(&v->subs[t].names, &i));) {
        subscribe(ty, e->key, out);
    }
    put_initial_versions(v, t, out);
    ty->requested = true;
    ty->wildcard = v->subs[t].wildcard;
}

// Names that came and went since the last request; false (and nothing written but to scratch) when there are none.
static bool put_changes(struct xds_delta_type *ty, const struct xds_sub *sub, struct buf *out)
{
    bool any = false;
    struct map_entry *e;
    if (sub->wildcard != ty->wildcard) {
        wire_put_bytes(out, sub->wildcard ? REQ_SUBSCRIBE : REQ_UNSUBSCRIBE, STR("*"));
        ty->wildcard = sub->wildcard;
        any = true;
    }
    for (size_t i = 0; (e = map_next(&sub->names, &i));) {
        if (!map_get(&ty->sent, e->key)) {
            subscribe(ty, e->key, out);
            any = true;
        }
    }
    if (ty->sent.count == sub->names.count) {
        return any; // all wanted names are sent, so no other is
    }
    for (size_t i = 0; (e = map_next(&ty->sent, &i));) {
        if (!map_get(&sub->names, e->key)) {
            wire_put_bytes(out, REQ_UNSUBSCRIBE, e->key);
            map_del(&ty->sent, e->key);
            any = true;
        }
    }
    return any;
}

bool xds_delta_next(struct xds_delta *d, const struct xds_view *v, struct buf *out)
{
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        struct xds_delta_type *ty = &d->types[t];
        if (!ty->requested) {
            if (xds_view_asks(v, (enum xds_type)t)) {
                put_first(d, v, (enum xds_type)t, out);
                return true;
            }
            continue;
        }
        struct buf names = { 0 };
        if (put_changes(ty, &v->subs[t], &names)) {
            begin(d, v, (enum xds_type)t, out);
            buf_move(out, &names, buf_len(&names));
            return true;
        }
    }
    return false;
}

int xds_delta_decode(struct xds_delta *d, struct str bytes, struct arena *a, struct xds_response *ret, struct err *err)
{
    struct xds_envelope e;
    int rc = xds_envelope_read(bytes, &e, err);
    if (rc == 0 && !d->types[e.type].requested) {
        rc = err_set(err, -ENOENT, "a response for %s, which was not asked for", xds_type_short(e.type));
    }
    if (rc) {
        d->ignored += rc == -ENOENT;
        return rc;
    }
    if (xds_response_open(ret, &e, e.resources + e.removed, a)) {
        struct wire_field f;
        while (wire_next(&bytes, &f) > 0) {
            if (f.number == XDS_ENVELOPE_RESOURCE) {
                xds_response_add_resource(ret, f.bytes, a);
            } else if (f.number == XDS_ENVELOPE_REMOVED) {
                xds_response_add_removed(ret, f.bytes);
            }
        }
        xds_response_seal(ret, a);
    }
    return 0;
}

void xds_delta_answer(struct xds_delta *d, const struct xds_view *v, const struct xds_response *r, struct str nack, struct buf *out)
{
    begin(d, v, r->type, out);
    wire_put_str(out, REQ_NONCE, r->nonce);
    if (nack.n) {
        xds_put_error_detail(out, REQ_ERROR, nack);
    }
}
