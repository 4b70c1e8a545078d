// SPDX-License-Identifier: Apache-2.0
#include "proxy/authz/rate_question.h"

#include <errno.h>

#include "envoy/service/ratelimit/v3/rls.pb-c.h"
#include "lib/http/chars.h"
#include "lib/http/headers.h"
#include "proto/pb_util.h"
#include "proxy/authz/check.h"

typedef Envoy__Service__Ratelimit__V3__RateLimitRequest question_msg;
typedef Envoy__Service__Ratelimit__V3__RateLimitResponse answer_msg;
typedef Envoy__Service__Ratelimit__V3__RateLimitResponse__DescriptorStatus status_msg;
typedef Envoy__Extensions__Common__Ratelimit__V3__RateLimitDescriptor descriptor_msg;
typedef Envoy__Extensions__Common__Ratelimit__V3__RateLimitDescriptor__Entry entry_msg;

// Text of a message: UTF-8 without NUL, as proto3 wants it; what is not becomes '!'. Else a client could make its questions unreadable, and pass
// where the failure of a question lets pass.
static char *text_of(struct str s, struct arena *a)
{
    struct str utf8 = check_utf8(s, a);
    char *p = arena_alloc(a, utf8.n + 1);
    for (size_t i = 0; i < utf8.n; i++) {
        p[i] = utf8.p[i] ? utf8.p[i] : '!';
    }
    p[utf8.n] = 0;
    return p;
}

static entry_msg *entry_of(const struct rate_limit_entry *e, struct arena *a)
{
    entry_msg *m = arena_new(a, entry_msg);
    envoy__extensions__common__ratelimit__v3__rate_limit_descriptor__entry__init(m);
    m->key = text_of(e->key, a);
    m->value = text_of(e->value, a);
    return m;
}

static descriptor_msg *descriptor_of(const struct rate_limit_descriptor *d, struct arena *a)
{
    descriptor_msg *m = arena_new(a, descriptor_msg);
    envoy__extensions__common__ratelimit__v3__rate_limit_descriptor__init(m);
    m->entries = arena_array(a, entry_msg *, d->count + 1);
    for (; m->n_entries < d->count; m->n_entries++) {
        m->entries[m->n_entries] = entry_of(&d->entries[m->n_entries], a);
    }
    if (d->has_override) {
        m->limit = arena_new(a, Envoy__Extensions__Common__Ratelimit__V3__RateLimitDescriptor__RateLimitOverride);
        envoy__extensions__common__ratelimit__v3__rate_limit_descriptor__rate_limit_override__init(m->limit);
        m->limit->requests_per_unit = d->override_requests;
        m->limit->unit = (Envoy__Type__V3__RateLimitUnit)d->override_unit;
    }
    if (d->has_hits) {
        m->hits_addend = arena_new(a, Google__Protobuf__UInt64Value);
        google__protobuf__uint64_value__init(m->hits_addend);
        m->hits_addend->value = d->hits;
        m->is_negative_hits = d->negative;
    }
    return m;
}

struct str rate_question_pack(struct str domain, const struct rate_limit_descriptor *d, size_t n, struct arena *a)
{
    question_msg m;
    envoy__service__ratelimit__v3__rate_limit_request__init(&m);
    m.domain = text_of(domain, a);
    m.descriptors = arena_array(a, descriptor_msg *, n + 1);
    for (; m.n_descriptors < n; m.n_descriptors++) {
        m.descriptors[m.n_descriptors] = descriptor_of(&d[m.n_descriptors], a);
    }
    return pb_pack(&m.base, a);
}

// ---- answers ----

static bool value_ok(struct str v)
{
    for (size_t i = 0; i < v.n; i++) {
        unsigned char c = (unsigned char)v.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

// Fields that say where a message ends and how a connection is used are the sending codec's own: passed over.
static bool frames(struct str name)
{
    enum hdr_id id = hdr_id_of(name);
    return id == HDR_CONTENT_LENGTH || id == HDR_HOST || id == HDR_TE || hdr_is_connection_specific(id);
}

static int take_fields(size_t n, Envoy__Config__Core__V3__HeaderValue *const *v, struct arena *a, struct rate_field **ret, size_t *ret_n,
                       struct err *err)
{
    if (n > RATE_ANSWER_FIELDS_MAX) {
        return err_set(err, -EINVAL, "too many header fields");
    }
    *ret = arena_array(a, struct rate_field, n + 1);
    *ret_n = 0;
    for (size_t i = 0; i < n; i++) {
        struct rate_field *f = &(*ret)[*ret_n];
        f->name = arena_str(a, str_c(v[i]->key));
        f->value = arena_str(a, v[i]->value[0] ? str_c(v[i]->value) : pb_bytes(v[i]->raw_value));
        for (size_t k = 0; k < f->name.n; k++) {
            char *c = (char *)f->name.p + k;
            *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
        }
        if (!ch_all(f->name, CH_TOKEN) || !value_ok(f->value)) {
            return err_set(err, -EINVAL, "a header field that cannot stand in a message");
        }
        *ret_n += !frames(f->name);
    }
    return 0;
}

static uint32_t window_s(const Envoy__Service__Ratelimit__V3__RateLimitResponse__RateLimit *l)
{
    static const uint32_t units[] = { 0, 1, 60, 3600, 24 * 3600, 30 * 24 * 3600, 365 * 24 * 3600, 7 * 24 * 3600 }; // by enum Unit
    uint64_t s = (unsigned)l->unit < sizeof(units) / sizeof(units[0]) ? (uint64_t)units[l->unit] * pb_u32_or(l->unit_multiplier, 1) : 0;
    return s <= UINT32_MAX ? (uint32_t)s : UINT32_MAX;
}

// draft-polli-ratelimit-headers-03: the limit that is nearest, then all windows.
static void take_limits(const answer_msg *m, struct arena *a, struct rate_answer *r)
{
    const status_msg *least = NULL;
    struct str policy = STR("");
    for (size_t i = 0; i < m->n_statuses; i++) {
        const status_msg *s = m->statuses[i];
        int64_t reset = s->duration_until_reset ? s->duration_until_reset->seconds : 0;
        if (s->code == ENVOY__SERVICE__RATELIMIT__V3__RATE_LIMIT_RESPONSE__CODE__OVER_LIMIT && reset > r->retry_after_s) {
            r->retry_after_s = reset;
        }
        if (!s->current_limit) {
            continue;
        }
        least = !least || s->limit_remaining < least->limit_remaining ? s : least;
        uint32_t w = window_s(s->current_limit);
        if (w) {
            const char *name = value_ok(str_c(s->current_limit->name)) ? s->current_limit->name : "";
            policy = arena_printf(a, "%.*s, %u;w=%u%s%s%s", STR_FMT(policy), s->current_limit->requests_per_unit, w, name[0] ? ";name=\"" : "", name,
                                  name[0] ? "\"" : "");
        }
    }
    if (least) {
        r->has_limit = true;
        r->limit = arena_printf(a, "%u%.*s", least->current_limit->requests_per_unit, STR_FMT(policy));
        r->remaining = least->limit_remaining;
        r->reset_s = least->duration_until_reset ? least->duration_until_reset->seconds : 0;
    }
}

int rate_answer_parse(struct str bytes, struct arena *a, struct rate_answer *ret, struct err *err)
{
    answer_msg *m = NULL;
    struct rate_answer r = { 0 };
    if (pb_unpack_as(answer_msg, envoy__service__ratelimit__v3__rate_limit_response, bytes, a, &m, err)) {
        return err->code;
    }
    r.over = m->overall_code == ENVOY__SERVICE__RATELIMIT__V3__RATE_LIMIT_RESPONSE__CODE__OVER_LIMIT;
    if (take_fields(m->n_response_headers_to_add, m->response_headers_to_add, a, &r.response, &r.response_count, err) ||
        take_fields(m->n_request_headers_to_add, m->request_headers_to_add, a, &r.request, &r.request_count, err)) {
        return err->code;
    }
    r.body = pb_bytes(m->raw_body);
    r.metadata = m->dynamic_metadata && m->dynamic_metadata->n_fields ? pb_pack(&m->dynamic_metadata->base, a) : str_n(NULL, 0);
    take_limits(m, a, &r);
    *ret = r;
    return 0;
}
