// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets of the two xDS machines share: a client's state, a sink that refuses by content, and what must hold after
// every step. Input: steps of one operation byte and, for a response, two bytes of length and the response.
#ifndef TESTS_FUZZ_FUZZ_XDS_H
#define TESTS_FUZZ_FUZZ_XDS_H

#include <errno.h>

#include "envoy/service/discovery/v3/discovery.pb-c.h"
#include "lib/base/check.h"
#include "proto/pb_util.h"
#include "xds-client/apply.h"
#include "xds-client/limits.h"
#include "xds-client/resource_types.h"
#include "xds-client/view.h"

enum fuzz_op { FUZZ_RESPONSE, FUZZ_SUBSCRIBE, FUZZ_STREAM, FUZZ_REQUESTS, FUZZ_OPS };

struct fuzz_xds {
    struct xds_sub subs[XDS_TYPE_COUNT];
    struct xds_store stores[XDS_TYPE_COUNT];
    struct arena a;
    bool answered[XDS_TYPE_COUNT];
};

static inline struct xds_view fuzz_view(const struct fuzz_xds *f)
{
    return (struct xds_view){ .node = STR("\x0a\x01n"), .subs = f->subs, .stores = f->stores, .served = ~0u };
}

static inline void fuzz_sink(void *arg, struct xds_update *u)
{
    (void)arg;
    for (size_t i = 0; i < u->count; i++) {
        struct xds_update_item *it = &u->items[i];
        CHECK(it->name.n > 0);
        if (it->bytes.p && it->bytes.n % 3 == 2) {
            it->refused = it->bytes; // a reason may be anything
        }
    }
}

static inline struct str fuzz_apply(struct fuzz_xds *f, struct xds_response *r)
{
    struct xds_apply ap = { .store = &f->stores[r->type],
                            .sub = &f->subs[r->type],
                            .origin = XDS_ORIGIN_ADS,
                            .first = !f->answered[r->type],
                            .wall_ms = 1,
                            .sink = fuzz_sink };
    f->answered[r->type] = true;
    xds_apply(&ap, r, &f->a);
    struct str nack = xds_response_nack(r, &f->a);
    CHECK(nack.n <= XDS_NACK_MAX_BYTES);
    CHECK(r->error.p || (r->refused > 0) == (nack.n > 0));
    return nack;
}

// Names from the input: cut at commas, bytes as they are.
static inline void fuzz_subscribe(struct fuzz_xds *f, enum xds_type t, struct str text)
{
    struct str names[32];
    size_t n = 0;
    while (text.n && n < 32) {
        names[n++] = str_split(&text, ',');
    }
    xds_sub_set(&f->subs[t], xds_type_info(t)->wildcard, names, n, 0);
    struct map_entry *me;
    for (size_t i = 0; (me = map_next(&f->stores[t].entries, &i));) { // as the client does at the end of a turn
        if (!xds_sub_wants(&f->subs[t], me->key)) {
            xds_store_del(&f->stores[t], me->key);
        }
    }
}

static inline void fuzz_check(const struct fuzz_xds *f)
{
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        size_t accepted = 0;
        struct map_entry *me;
        for (size_t i = 0; (me = map_next(&f->stores[t].entries, &i));) {
            const struct xds_entry *e = me->val;
            accepted += e->accepted;
            CHECK(e->accepted || e->r.failed_reason.p);
            CHECK(!e->accepted || e->r.bytes.p);
            CHECK(xds_sub_wants(&f->subs[t], me->key));
            CHECK(str_eq(me->key, e->r.name));
        }
        CHECK(accepted == f->stores[t].accepted);
    }
}

// What we send must be a valid message whatever came in: a server ends the stream otherwise.
static inline void fuzz_check_request(const ProtobufCMessageDescriptor *desc, struct buf *b)
{
    struct err err;
    CHECK(pb_check(desc, buf_pullup(b, buf_len(b)), &err) == 0);
    buf_clear(b);
}

static inline void fuzz_fini(struct fuzz_xds *f)
{
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        xds_sub_fini(&f->subs[t]);
        xds_store_fini(&f->stores[t]);
    }
    buf_cache_free();
    arena_fini(&f->a);
}

// Cuts the operand of a step: two bytes of length (low first), clipped.
static inline struct str fuzz_operand(struct str *in)
{
    if (in->n < 2) {
        *in = str_n(NULL, 0);
        return *in;
    }
    size_t n = (uint8_t)in->p[0] | (size_t)(uint8_t)in->p[1] << 8;
    *in = str_skip(*in, 2);
    n = n < in->n ? n : in->n;
    struct str s = str_n(in->p, n);
    *in = str_skip(*in, n);
    return s;
}

#endif
