// SPDX-License-Identifier: Apache-2.0
// Makes responses and reads requests with the generated code, so that our own reader and writer are checked against another.
#ifndef TESTS_UNIT_XDS_CLIENT_HELPERS_H
#define TESTS_UNIT_XDS_CLIENT_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "envoy/service/discovery/v3/discovery.pb-c.h"
#include "lib/base/arena.h"
#include "proto/pb_util.h"
#include "xds-client/apply.h"
#include "xds-client/view.h"
#include "xds-client/wire.h"
#include "xds-client/xds_client.h"

typedef Envoy__Service__Discovery__V3__DeltaDiscoveryRequest delta_request;
typedef Envoy__Service__Discovery__V3__DiscoveryRequest sotw_request;

// A resource as the tests write it: name, the name inside (NULL = the same), a byte of content, type URL (NULL = the response's).
struct res {
    const char *name, *inner, *body, *url, *version;
};

// A message whose field 1 is the name and whose field 15 is some content: enough for what reads no further.
static inline struct str message(struct arena *a, const char *name, const char *body)
{
    struct buf b = { 0 };
    wire_put_str(&b, 1, str_c(name));
    wire_put_str(&b, 15, str_c(body));
    struct str s = arena_str(a, buf_pullup(&b, buf_len(&b)));
    buf_clear(&b);
    return s;
}

static inline Google__Protobuf__Any *any_of(struct arena *a, enum xds_type t, const struct res *r)
{
    Google__Protobuf__Any *any = pb_new_as(a, Google__Protobuf__Any, google__protobuf__any);
    struct str m = message(a, r->inner ? r->inner : r->name, r->body ? r->body : "");
    any->type_url = arena_strdup(a, r->url ? r->url : xds_type_url(t).p);
    any->value = (ProtobufCBinaryData){ .len = m.n, .data = (uint8_t *)m.p };
    return any;
}

static inline struct str delta_response(struct arena *a, enum xds_type t, const char *nonce, const struct res *res, size_t n,
                                        const char *const *removed, size_t n_removed)
{
    Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *m =
        pb_new_as(a, Envoy__Service__Discovery__V3__DeltaDiscoveryResponse, envoy__service__discovery__v3__delta_discovery_response);
    m->type_url = (char *)xds_type_url(t).p;
    m->nonce = (char *)nonce;
    m->system_version_info = (char *)"v1";
    m->n_resources = n;
    m->resources = arena_alloc(a, sizeof(*m->resources) * (n + 1));
    for (size_t i = 0; i < n; i++) {
        m->resources[i] = pb_new_as(a, Envoy__Service__Discovery__V3__Resource, envoy__service__discovery__v3__resource);
        m->resources[i]->name = (char *)res[i].name;
        m->resources[i]->version = (char *)(res[i].version ? res[i].version : "");
        m->resources[i]->resource = any_of(a, t, &res[i]);
    }
    m->n_removed_resources = n_removed;
    m->removed_resources = (char **)removed;
    return pb_pack(&m->base, a);
}

static inline struct str sotw_response(struct arena *a, enum xds_type t, const char *nonce, const char *version, const struct res *res,
                                       size_t n)
{
    Envoy__Service__Discovery__V3__DiscoveryResponse *m =
        pb_new_as(a, Envoy__Service__Discovery__V3__DiscoveryResponse, envoy__service__discovery__v3__discovery_response);
    m->type_url = (char *)xds_type_url(t).p;
    m->nonce = (char *)nonce;
    m->version_info = (char *)version;
    m->n_resources = n;
    m->resources = arena_alloc(a, sizeof(*m->resources) * (n + 1));
    for (size_t i = 0; i < n; i++) {
        m->resources[i] = any_of(a, t, &res[i]);
    }
    return pb_pack(&m->base, a);
}

static inline struct str take_buf(struct buf *b, struct arena *a)
{
    struct str s = arena_str(a, buf_pullup(b, buf_len(b)));
    buf_clear(b);
    return s;
}

static inline delta_request *read_delta(struct arena *a, struct str bytes)
{
    delta_request *q = NULL;
    struct err err = { 0 };
    if (pb_unpack_as(Envoy__Service__Discovery__V3__DeltaDiscoveryRequest, envoy__service__discovery__v3__delta_discovery_request, bytes, a,
                     &q, &err)) {
        fail_msg("request does not parse: %s", err.msg);
    }
    return q;
}

static inline sotw_request *read_sotw(struct arena *a, struct str bytes)
{
    sotw_request *q = NULL;
    struct err err = { 0 };
    if (pb_unpack_as(Envoy__Service__Discovery__V3__DiscoveryRequest, envoy__service__discovery__v3__discovery_request, bytes, a, &q,
                     &err)) {
        fail_msg("request does not parse: %s", err.msg);
    }
    return q;
}

static inline bool has(char *const *names, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

// A sink that writes down what it was shown ("+a -b ") and refuses names given to it.
struct log_sink {
    char text[4096];
    int calls;
    const char *refuse; // refuse this name
    struct str reason;
};

static inline void log_sink_fn(void *arg, struct xds_update *u)
{
    struct log_sink *s = arg;
    s->calls++;
    for (size_t i = 0; i < u->count; i++) {
        struct xds_update_item *it = &u->items[i];
        size_t n = strlen(s->text);
        snprintf(s->text + n, sizeof(s->text) - n, "%s%s%.*s", n ? " " : "", it->bytes.p ? "+" : "-", STR_FMT(it->name));
        if (s->refuse && it->bytes.p && str_is(it->name, s->refuse)) {
            it->refused = s->reason.p ? arena_str(u->arena, s->reason) : arena_printf(u->arena, "some.field: no good");
        }
    }
}

static inline void log_sink_clear(struct log_sink *s)
{
    s->text[0] = '\0';
    s->calls = 0;
}

// The state a client keeps, without a client.
struct world {
    struct xds_sub subs[XDS_TYPE_COUNT];
    struct xds_store stores[XDS_TYPE_COUNT];
    struct log_sink sink;
    struct arena a;
    bool answered[XDS_TYPE_COUNT];
};

static inline struct xds_view world_view(struct world *w)
{
    return (struct xds_view){ .node = STR("\x0a\x02me"), .subs = w->subs, .stores = w->stores, .served = ~0u }; // Node.id = "me"
}

static inline void world_want(struct world *w, enum xds_type t, bool wildcard, const char *const *names, size_t n)
{
    struct str v[16] = { 0 };
    for (size_t i = 0; i < n; i++) {
        v[i] = str_c(names[i]);
    }
    xds_sub_set(&w->subs[t], wildcard, v, n, 1000);
}

static inline struct str world_apply(struct world *w, struct xds_response *r)
{
    struct xds_apply ap = { .store = &w->stores[r->type],
                            .sub = &w->subs[r->type],
                            .origin = XDS_ORIGIN_ADS,
                            .first = !w->answered[r->type],
                            .wall_ms = 5,
                            .sink = log_sink_fn,
                            .arg = &w->sink };
    w->answered[r->type] = true;
    xds_apply(&ap, r, &w->a);
    return xds_response_nack(r, &w->a);
}

static inline void world_fini(struct world *w)
{
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        xds_sub_fini(&w->subs[t]);
        xds_store_fini(&w->stores[t]);
    }
    arena_fini(&w->a);
}

#endif
