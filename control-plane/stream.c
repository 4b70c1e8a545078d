// SPDX-License-Identifier: Apache-2.0
#include "control-plane/stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "envoy/config/endpoint/v3/endpoint.pb-c.h"
#include "envoy/service/discovery/v3/discovery.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "lib/base/mem.h"
#include "proto/pb_util.h"

typedef Envoy__Service__Discovery__V3__DiscoveryRequest sotw_request;
typedef Envoy__Service__Discovery__V3__DeltaDiscoveryRequest delta_request;

// Make before break: clusters and endpoints before what refers to them.
static const enum cp_type push_order[CP_TYPE_COUNT] = { CP_CDS, CP_EDS, CP_LDS, CP_RDS };

void cp_stream_init(struct cp_stream *s, bool delta)
{
    memset(s, 0, sizeof(*s));
    s->delta = delta;
}

static void clear_sent(struct cp_watch *w)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&w->sent, &i));) {
        free(e->val);
    }
    map_fini(&w->sent);
    map_init(&w->sent);
}

void cp_stream_fini(struct cp_stream *s)
{
    for (int t = 0; t < CP_TYPE_COUNT; t++) {
        clear_sent(&s->w[t]);
        map_fini(&s->w[t].names);
        map_fini(&s->w[t].sent);
        free(s->w[t].last_error);
    }
    map_fini(&s->others);
    arena_fini(&s->node_arena);
}

static int take_node(struct cp_stream *s, const Envoy__Config__Core__V3__Node *node, struct arena *a, struct err *err)
{
    if (s->has_node) {
        return 0;
    }
    if (!node || !node->id[0]) {
        return err_set(err, -EINVAL, "node.id: missing in the first request");
    }
    struct str bytes = arena_str(&s->node_arena, pb_pack(&node->base, a));
    int rc = cp_node_parse(bytes, &s->node_arena, &s->node, err);
    s->has_node = rc == 0;
    return rc;
}

// true: the request is an answer to our last response (its ACK or NACK is booked); false: stale or spontaneous.
static bool take_answer(struct cp_watch *w, const char *nonce, const Google__Rpc__Status *error, const char **ret_nack)
{
    if (!nonce[0] || strcmp(nonce, w->nonce)) {
        return false;
    }
    if (error) {
        w->nacked++;
        free(w->last_error);
        w->last_error = mem_strdup(error->message);
        *ret_nack = w->last_error;
    } else {
        w->acked++;
        w->acked_version = w->sent_version;
    }
    return true;
}

static int take_other(struct cp_stream *s, struct str type_url, struct err *err)
{
    if (s->others.count >= CP_OTHER_TYPES_MAX && !map_get(&s->others, type_url)) {
        return err_set(err, -EINVAL, "type_url: more than %d different types", CP_OTHER_TYPES_MAX);
    }
    map_put(&s->others, type_url, s);
    return 0;
}

static void forget(struct cp_watch *w, struct str name)
{
    map_del(&w->names, name);
    free(map_del(&w->sent, name));
}

// Resource.version is the content's hash, so it means the same after a restart of ours.
static char *version_text(const struct hash128 *h, struct arena *a)
{
    return (char *)arena_printf(a, "%016llx%016llx", (unsigned long long)h->hi, (unsigned long long)h->lo).p;
}

// The hash that a client shows; zero, which is no content's, for any other text.
static struct hash128 version_parse(const char *text)
{
    struct hash128 h = { 0 };
    for (size_t i = 0; i < 32; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) {
            return (struct hash128){ 0 };
        }
        uint64_t *half = i < 16 ? &h.hi : &h.lo;
        *half = *half << 4 | (uint64_t)digit;
    }
    return text[32] ? (struct hash128){ 0 } : h;
}

static int delta_subscribe(struct cp_stream *s, struct cp_watch *w, const delta_request *m, struct err *err)
{
    bool first = !w->asked;
    w->asked = true;
    for (size_t i = 0; i < m->n_resource_names_subscribe; i++) {
        struct str name = str_c(m->resource_names_subscribe[i]);
        if (str_is(name, "*")) {
            w->wildcard = true;
        } else if (w->names.count >= CP_NAMES_MAX) {
            return err_set(err, -EINVAL, "resource_names_subscribe: more than %d names", CP_NAMES_MAX);
        } else {
            map_put(&w->names, name, s);
            free(map_del(&w->sent, name)); // asked again: sent again
        }
        w->dirty = true;
    }
    for (size_t i = 0; i < m->n_resource_names_unsubscribe; i++) {
        struct str name = str_c(m->resource_names_unsubscribe[i]);
        if (str_is(name, "*")) {
            w->wildcard = false;
        } else {
            forget(w, name);
        }
    }
    if (first) {
        w->wildcard |= m->n_resource_names_subscribe == 0; // legacy wildcard: the first request names nothing
        w->dirty = true;
        for (size_t i = 0; i < m->n_initial_resource_versions; i++) {
            // What the client holds: sent again unless its version is today's, and listed as removed when it is gone.
            struct str name = str_c(m->initial_resource_versions[i]->key);
            struct hash128 *h = mem_new(struct hash128);
            *h = version_parse(m->initial_resource_versions[i]->value);
            free(map_put(&w->sent, name, h));
        }
    }
    return 0;
}

static int delta_take(struct cp_stream *s, struct str bytes, struct arena *a, const char **ret_nack, struct err *err)
{
    delta_request *m = NULL;
    if (pb_unpack_as(delta_request, envoy__service__discovery__v3__delta_discovery_request, bytes, a, &m, err) || take_node(s, m->node, a, err)) {
        return err->code;
    }
    int t = cp_type_parse(str_c(m->type_url));
    if (t < 0) {
        return take_other(s, str_c(m->type_url), err);
    }
    struct cp_watch *w = &s->w[t];
    bool answer = take_answer(w, m->response_nonce, m->error_detail, ret_nack);
    bool names = m->n_resource_names_subscribe || m->n_resource_names_unsubscribe;
    return answer && !names && w->asked ? 0 : delta_subscribe(s, w, m, err);
}

static int sotw_take(struct cp_stream *s, struct str bytes, struct arena *a, const char **ret_nack, struct err *err)
{
    sotw_request *m = NULL;
    if (pb_unpack_as(sotw_request, envoy__service__discovery__v3__discovery_request, bytes, a, &m, err) || take_node(s, m->node, a, err)) {
        return err->code;
    }
    int t = cp_type_parse(str_c(m->type_url));
    if (t < 0) {
        return take_other(s, str_c(m->type_url), err);
    }
    struct cp_watch *w = &s->w[t];
    if (m->response_nonce[0] && !take_answer(w, m->response_nonce, m->error_detail, ret_nack)) {
        return 0; // stale
    }
    if (m->n_resource_names > CP_NAMES_MAX) {
        return err_set(err, -EINVAL, "resource_names: more than %d names", CP_NAMES_MAX);
    }
    bool changed = !w->asked || w->names.count != m->n_resource_names;
    for (size_t i = 0; i < m->n_resource_names; i++) {
        changed |= map_get(&w->names, str_c(m->resource_names[i])) == NULL;
    }
    w->wildcard = m->n_resource_names == 0;
    w->asked = true;
    if (changed) {
        map_fini(&w->names);
        map_init(&w->names);
        for (size_t i = 0; i < m->n_resource_names; i++) {
            map_put(&w->names, str_c(m->resource_names[i]), s);
        }
        w->dirty = true;
    }
    return 0;
}

int cp_stream_request(struct cp_stream *s, struct str bytes, const char **ret_nack, struct err *err)
{
    struct arena a = { 0 };
    *ret_nack = NULL;
    int rc = s->delta ? delta_take(s, bytes, &a, ret_nack, err) : sotw_take(s, bytes, &a, ret_nack, err);
    arena_fini(&a);
    return rc;
}

static bool hash_is(const struct hash128 *a, const struct hash128 *b)
{
    return a && a->lo == b->lo && a->hi == b->hi;
}

static bool wanted(const struct cp_watch *w, struct str name)
{
    return w->wildcard || map_get(&w->names, name);
}

static void remember(struct cp_watch *w, const struct cp_resource *r)
{
    struct hash128 *h = map_get(&w->sent, r->name);
    if (!h) {
        h = mem_new(struct hash128);
        map_put(&w->sent, r->name, h);
    }
    *h = r->hash;
}

static void next_nonce(struct cp_stream *s, struct cp_watch *w, uint64_t version)
{
    snprintf(w->nonce, sizeof(w->nonce), "%llu/%llu", (unsigned long long)version, (unsigned long long)++s->nonce_counter);
    w->sent_version = version;
    w->pushes++;
    w->dirty = false;
}

// A name that was asked for and does not exist. EDS gets an assignment without endpoints, as istiod answers it; others nothing.
static struct cp_resource empty_assignment(struct str name, struct arena *a)
{
    Envoy__Config__Endpoint__V3__ClusterLoadAssignment m = ENVOY__CONFIG__ENDPOINT__V3__CLUSTER_LOAD_ASSIGNMENT__INIT;
    m.cluster_name = (char *)arena_str(a, name).p;
    struct cp_resource r = { .name = name, .bytes = pb_pack(&m.base, a) };
    r.hash = hash_content(r.bytes.p, r.bytes.n);
    return r;
}

// The resources of this type that the stream should have, in *ret (arena).
static size_t target(struct cp_watch *w, const struct cp_set *set, enum cp_type t, struct arena *a, const struct cp_resource ***ret)
{
    size_t n = 0;
    const struct cp_resource **v = arena_array(a, const struct cp_resource *, set->n[t] + w->names.count + 1);
    for (size_t i = 0; i < set->n[t]; i++) {
        if (wanted(w, set->v[t][i].name)) {
            v[n++] = &set->v[t][i];
        }
    }
    struct map_entry *e;
    for (size_t i = 0; t == CP_EDS && (e = map_next(&w->names, &i));) {
        if (!cp_set_find(set, t, e->key)) {
            struct cp_resource *r = arena_new(a, struct cp_resource);
            *r = empty_assignment(e->key, a);
            v[n++] = r;
        }
    }
    *ret = v;
    return n;
}

static Google__Protobuf__Any *to_any(const struct cp_resource *r, enum cp_type t, struct arena *a)
{
    Google__Protobuf__Any *any = pb_new_as(a, Google__Protobuf__Any, google__protobuf__any);
    any->type_url = (char *)cp_type_url(t).p;
    any->value = (ProtobufCBinaryData){ .data = (uint8_t *)r->bytes.p, .len = r->bytes.n };
    return any;
}

// absent: also names that were asked for and never were there, so that nobody waits for them (delta).
static size_t gone(struct cp_watch *w, const struct cp_resource **v, size_t n, bool absent, struct arena *a, char ***ret)
{
    struct map now = { 0 };
    for (size_t i = 0; i < n; i++) {
        map_put(&now, v[i]->name, w);
    }
    char **out = arena_array(a, char *, w->sent.count + w->names.count + 1);
    size_t count = 0;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&w->sent, &i));) {
        if (!map_get(&now, e->key)) {
            out[count++] = (char *)arena_str(a, e->key).p;
        }
    }
    for (size_t i = 0; absent && (e = map_next(&w->names, &i));) {
        if (!map_get(&now, e->key) && !map_get(&w->sent, e->key)) {
            out[count++] = (char *)arena_str(a, e->key).p;
        }
    }
    for (size_t i = 0; i < count; i++) {
        free(map_del(&w->sent, str_c(out[i])));
    }
    map_fini(&now);
    *ret = out;
    return count;
}

static bool delta_next(struct cp_stream *s, struct cp_watch *w, const struct cp_set *set, uint64_t version, enum cp_type t, struct arena *a,
                       struct str *ret)
{
    Envoy__Service__Discovery__V3__DeltaDiscoveryResponse m = ENVOY__SERVICE__DISCOVERY__V3__DELTA_DISCOVERY_RESPONSE__INIT;
    const struct cp_resource **v;
    size_t n = target(w, set, t, a, &v);
    m.resources = arena_array(a, Envoy__Service__Discovery__V3__Resource *, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (hash_is(map_get(&w->sent, v[i]->name), &v[i]->hash)) {
            continue;
        }
        Envoy__Service__Discovery__V3__Resource *r =
            pb_new_as(a, Envoy__Service__Discovery__V3__Resource, envoy__service__discovery__v3__resource);
        r->name = (char *)v[i]->name.p;
        r->version = version_text(&v[i]->hash, a);
        r->resource = to_any(v[i], t, a);
        m.resources[m.n_resources++] = r;
    }
    m.n_removed_resources = gone(w, v, n, w->dirty, a, &m.removed_resources);
    if (!m.n_resources && !m.n_removed_resources && !w->dirty) {
        w->acked_version = w->acked_version == w->sent_version ? version : w->acked_version;
        w->sent_version = version; // nothing of it concerns this client
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        remember(w, v[i]);
    }
    next_nonce(s, w, version);
    m.nonce = w->nonce;
    m.type_url = (char *)cp_type_url(t).p;
    m.system_version_info = (char *)arena_printf(a, "%llu", (unsigned long long)version).p;
    *ret = pb_pack(&m.base, a);
    return true;
}

static bool sotw_next(struct cp_stream *s, struct cp_watch *w, const struct cp_set *set, uint64_t version, enum cp_type t, struct arena *a,
                      struct str *ret)
{
    Envoy__Service__Discovery__V3__DiscoveryResponse m = ENVOY__SERVICE__DISCOVERY__V3__DISCOVERY_RESPONSE__INIT;
    const struct cp_resource **v;
    char **removed;
    size_t n = target(w, set, t, a, &v);
    bool changed = w->dirty;
    for (size_t i = 0; i < n && !changed; i++) {
        changed = !hash_is(map_get(&w->sent, v[i]->name), &v[i]->hash);
    }
    changed |= gone(w, v, n, false, a, &removed) > 0;
    if (!changed) {
        w->acked_version = w->acked_version == w->sent_version ? version : w->acked_version;
        w->sent_version = version;
        return false;
    }
    m.resources = arena_array(a, Google__Protobuf__Any *, n + 1);
    for (size_t i = 0; i < n; i++) {
        m.resources[m.n_resources++] = to_any(v[i], t, a);
        remember(w, v[i]);
    }
    next_nonce(s, w, version);
    m.nonce = w->nonce;
    m.type_url = (char *)cp_type_url(t).p;
    m.version_info = (char *)arena_printf(a, "%llu", (unsigned long long)version).p;
    *ret = pb_pack(&m.base, a);
    return true;
}

bool cp_stream_next(struct cp_stream *s, const struct cp_set *set, uint64_t version, struct arena *a, struct str *ret_bytes, enum cp_type *ret_type)
{
    for (int i = 0; i < CP_TYPE_COUNT; i++) {
        enum cp_type t = push_order[i];
        struct cp_watch *w = &s->w[t];
        if (!w->asked || (!w->dirty && w->sent_version == version)) {
            continue;
        }
        bool due = s->delta ? delta_next(s, w, set, version, t, a, ret_bytes) : sotw_next(s, w, set, version, t, a, ret_bytes);
        if (due) {
            *ret_type = t;
            return true;
        }
    }
    return false;
}
