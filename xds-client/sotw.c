// SPDX-License-Identifier: Apache-2.0
#include "xds-client/sotw.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/base/arena.h"
#include "xds-client/resource_types.h"
#include "xds-client/wire.h"

// DiscoveryRequest
enum { REQ_VERSION = 1, REQ_NODE = 2, REQ_NAMES = 3, REQ_TYPE = 4, REQ_NONCE = 5, REQ_ERROR = 6 };

static void set(struct str *s, struct str v)
{
    char *p = v.n ? str_dup(v) : NULL;
    free((char *)s->p);
    *s = str_n(p, v.n);
}

void xds_sotw_start(struct xds_sotw *s)
{
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        struct xds_sotw_type *ty = &s->types[t];
        set(&ty->nonce, str_n(NULL, 0));
        map_fini(&ty->sent);
        ty->requested = ty->wildcard = false;
    }
    s->node_sent = false;
}

void xds_sotw_fini(struct xds_sotw *s)
{
    xds_sotw_start(s);
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        set(&s->types[t].version, str_n(NULL, 0));
    }
}

static void put_request(struct xds_sotw *s, const struct xds_view *v, enum xds_type t, struct str nack, struct buf *out)
{
    struct xds_sotw_type *ty = &s->types[t];
    struct map_entry *e;
    wire_put_str(out, REQ_VERSION, ty->version);
    if (!s->node_sent) {
        wire_put_bytes(out, REQ_NODE, v->node);
        s->node_sent = true;
    }
    for (size_t i = 0; (e = map_next(&ty->sent, &i));) {
        wire_put_bytes(out, REQ_NAMES, e->key);
    }
    wire_put_str(out, REQ_TYPE, xds_type_url(t));
    wire_put_str(out, REQ_NONCE, ty->nonce);
    if (nack.n) {
        xds_put_error_detail(out, REQ_ERROR, nack);
    }
}

static bool names_changed(const struct xds_sotw_type *ty, const struct xds_sub *sub)
{
    if (ty->wildcard != sub->wildcard || ty->sent.count != sub->names.count) {
        return true;
    }
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&sub->names, &i));) {
        if (!map_get(&ty->sent, e->key)) {
            return true;
        }
    }
    return false;
}

static void take_names(struct xds_sotw_type *ty, const struct xds_sub *sub)
{
    struct map_entry *e;
    map_fini(&ty->sent);
    for (size_t i = 0; (e = map_next(&sub->names, &i));) {
        map_put(&ty->sent, e->key, ty);
    }
    ty->wildcard = sub->wildcard;
}

bool xds_sotw_next(struct xds_sotw *s, const struct xds_view *v, struct buf *out)
{
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        struct xds_sotw_type *ty = &s->types[t];
        const struct xds_sub *sub = &v->subs[t];
        bool first = !ty->requested && xds_view_asks(v, (enum xds_type)t);
        if (first || (ty->requested && names_changed(ty, sub))) {
            take_names(ty, sub);
            ty->requested = true;
            put_request(s, v, (enum xds_type)t, str_n(NULL, 0), out);
            return true;
        }
    }
    return false;
}

int xds_sotw_decode(struct xds_sotw *s, struct str bytes, struct arena *a, struct xds_response *ret, struct err *err)
{
    struct xds_envelope e;
    int rc = xds_envelope_read(bytes, &e, err);
    if (rc == 0 && !s->types[e.type].requested) {
        rc = err_set(err, -ENOENT, "a response for %s, which was not asked for", xds_type_short(e.type));
    }
    if (rc) {
        s->ignored += rc == -ENOENT;
        return rc;
    }
    if (xds_response_open(ret, &e, e.resources, a)) {
        struct wire_field f;
        while (wire_next(&bytes, &f) > 0) {
            if (f.number == XDS_ENVELOPE_RESOURCE) {
                xds_response_add_any(ret, f.bytes, a);
            }
        }
        xds_response_seal(ret, a);
    }
    // With explicit names even CDS and LDS answers cover only those.
    ret->full = xds_type_info(e.type)->full_state && s->types[e.type].wildcard;
    return 0;
}

void xds_sotw_answer(struct xds_sotw *s, const struct xds_view *v, const struct xds_response *r, struct str nack, struct buf *out)
{
    struct xds_sotw_type *ty = &s->types[r->type];
    set(&ty->nonce, r->nonce);
    if (!nack.n) {
        set(&ty->version, r->version);
    }
    put_request(s, v, r->type, nack, out);
}
