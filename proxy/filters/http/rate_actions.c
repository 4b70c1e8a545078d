// SPDX-License-Identifier: Apache-2.0
// Descriptors of a request.
#include <arpa/inet.h>

#include "lib/http/url.h"
#include "proxy/access_log/format.h"
#include "proxy/filters/http/rate_actions_int.h"
#include "proxy/http/stream.h"

struct asked { // one exchange
    const struct stream *s;
    struct arena *a;
    struct match_request match;
    struct format_ctx format;
};

size_t rate_limits_count(const struct rate_limits *l)
{
    return l ? l->count : 0;
}

// ---- what requests say ----

static struct str header_of(const struct asked *q, struct str name)
{
    const struct http_request *r = &q->s->req;
    enum hdr_id id = hdr_id_of(name);
    if (name.p[0] == ':') {
        return str_eq_nocase(name, STR(":path"))        ? r->path
               : str_eq_nocase(name, STR(":method"))    ? r->method
               : str_eq_nocase(name, STR(":authority")) ? r->host
               : str_eq_nocase(name, STR(":scheme"))    ? r->scheme
                                                        : str_n(NULL, 0);
    }
    if (match_is_framing(id)) {
        char number[MATCH_NUMBER_MAX];
        struct str v = match_framing_value(id, r, number);
        return v.p == number ? arena_str(q->a, v) : v;
    }
    return id == HDR_HOST ? r->host : headers_value(&r->headers, name);
}

static struct str decoded(struct str s, struct arena *a)
{
    struct str out;
    return str_find(s, '%') >= 0 && url_decode(s, a, &out) ? out : s;
}

// The first parameter of that name, decoded. p NULL: not there.
static struct str query_of(const struct asked *q, struct str name)
{
    struct str rest;
    (void)url_split_path(q->s->req.path, &rest);
    while (rest.n) {
        struct str pair = str_split(&rest, '&');
        ptrdiff_t at = str_find(pair, '=');
        if (str_eq(decoded(at < 0 ? pair : str_n(pair.p, (size_t)at), q->a), name)) {
            return at < 0 ? STR("") : decoded(str_skip(pair, (size_t)at + 1), q->a);
        }
    }
    return str_n(NULL, 0);
}

struct str rate_limits_destination(const struct stream *s)
{
    const struct route *r = s->route;
    const struct weighted_cluster *w = r->weighted_count ? route_pick_weighted(r, s->random) : NULL; // the same draw as the router's
    struct str by = w ? w->cluster_header : r->cluster_header;
    return by.n ? headers_value(&s->req.headers, by) : w ? w->name : r->cluster;
}

static struct str remote_text(const struct stream *s, struct arena *a)
{
    const struct addr *r = &s->info.downstream_remote;
    char text[ADDR_TEXT_MAX];
    return r->family == AF_INET || r->family == AF_INET6 ? arena_str(a, str_c(addr_ip_text(r, text))) : str_n(NULL, 0);
}

// "10.1.0.0/16"
static struct str masked_text(const struct rate_action *x, const struct stream *s, struct arena *a)
{
    struct addr r = s->info.downstream_remote;
    if (r.family != AF_INET && r.family != AF_INET6) {
        return str_n(NULL, 0);
    }
    unsigned bits = r.family == AF_INET ? x->v4_bits : x->v6_bits, bytes = r.family == AF_INET ? 4 : 16;
    for (unsigned i = 0; i < bytes; i++) {
        unsigned keep = bits > i * 8 ? bits - i * 8 : 0;
        r.ip[i] &= (uint8_t)(keep >= 8 ? 0xff : 0xff00 >> keep);
    }
    char text[ADDR_TEXT_MAX];
    return arena_printf(a, "%s/%u", addr_ip_text(&r, text), bits);
}

static struct str metadata_of(const struct rate_action *x, const struct stream *s)
{
    struct metadata_value v = { .kind = MV_NONE };
    if (!x->of_route) {
        v = stream_info_metadata_find(&s->info, x->name, x->path, x->path_count);
    } else if (s->info.metadata[METADATA_ROUTE]) {
        v = metadata_find(*s->info.metadata[METADATA_ROUTE], x->name, str_n(NULL, 0));
        v = v.kind == MV_STRUCT ? metadata_struct_find(v.bytes, x->path, x->path_count) : (struct metadata_value){ .kind = MV_NONE };
    }
    return v.kind == MV_TEXT && v.bytes.n ? v.bytes : x->value.n ? x->value : str_n(NULL, 0);
}

static bool headers_match(const struct rate_action *x, const struct asked *q)
{
    for (size_t i = 0; i < x->match_count; i++) {
        if (!header_matcher_match(&x->headers[i], &q->match)) {
            return false;
        }
    }
    return true;
}

static bool queries_match(const struct rate_action *x, const struct asked *q)
{
    for (size_t i = 0; i < x->match_count; i++) {
        const struct query_matcher *m = &x->queries[i];
        struct str v = query_of(q, m->name);
        if (m->present_only ? (v.p != NULL) != m->want_present : !v.p || !string_matcher_match(&m->string, v)) {
            return false;
        }
    }
    return true;
}

static bool address_matches(const struct rate_action *x, const struct stream *s)
{
    bool hit = false;
    for (size_t i = 0; i < x->range_count && !hit; i++) {
        hit = cidr_contains(&x->ranges[i], &s->info.downstream_remote);
    }
    return hit != x->invert;
}

static struct str value_of(const struct rate_action *x, const struct asked *q)
{
    if (!x->format) {
        return x->value;
    }
    struct str v = format_text(x->format, &q->format, q->a);
    return v.n ? v : x->fallback;
}

// ---- actions ----

enum outcome { ENTRY, NOTHING, NO_DESCRIPTOR };

static enum outcome if_there(struct str v, bool optional, struct str *ret)
{
    *ret = v;
    return v.p ? ENTRY : optional ? NOTHING : NO_DESCRIPTOR; // there, if empty
}

static enum outcome if_true(bool ok, const struct rate_action *x, const struct asked *q, struct str *ret)
{
    if (!ok) {
        return NO_DESCRIPTOR;
    }
    *ret = value_of(x, q);
    return ret->n ? ENTRY : NO_DESCRIPTOR;
}

static enum outcome act(const struct rate_action *x, const struct asked *q, struct str *ret)
{
    switch (x->kind) {
    case RA_SOURCE_CLUSTER:
        *ret = x->value;
        return ENTRY;
    case RA_DESTINATION_CLUSTER:
        if (!q->s->route || q->s->route->kind != ROUTE_FORWARD) {
            return NO_DESCRIPTOR;
        }
        *ret = rate_limits_destination(q->s);
        return ENTRY;
    case RA_HEADER:
        return if_there(header_of(q, x->name), x->optional, ret);
    case RA_QUERY:
        return if_there(query_of(q, x->name), x->optional, ret);
    case RA_REMOTE_ADDRESS:
        return if_there(remote_text(q->s, q->a), false, ret);
    case RA_MASKED_ADDRESS:
        return if_there(masked_text(x, q->s, q->a), false, ret);
    case RA_GENERIC:
        return if_true(true, x, q, ret);
    case RA_HEADER_MATCH:
        return if_true(headers_match(x, q) == x->expect, x, q, ret);
    case RA_QUERY_MATCH:
        return if_true(queries_match(x, q) == x->expect, x, q, ret);
    case RA_METADATA:
        return if_there(metadata_of(x, q->s), x->optional, ret);
    case RA_ADDRESS_MATCH:
        return if_true(address_matches(x, q->s), x, q, ret);
    }
    return NO_DESCRIPTOR;
}

// type.v3.RateLimitUnit; -1 = no unit.
static int unit_of(struct str name)
{
    static const char *const names[] = { "UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR" };
    for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++) {
        if (str_is(name, names[i])) {
            return i;
        }
    }
    return -1;
}

// {"requests_per_unit": 10, "unit": "HOUR"} in dynamic metadata; anything else is passed over.
static void take_override(const struct rate_rule *r, const struct stream *s, struct rate_limit_descriptor *d)
{
    struct metadata_value v = stream_info_metadata_find(&s->info, r->limit_space, r->limit_path, r->limit_path_count);
    if (v.kind != MV_STRUCT) {
        return;
    }
    const struct str requests = STR("requests_per_unit"), unit = STR("unit");
    struct metadata_value n = metadata_struct_find(v.bytes, &requests, 1), u = metadata_struct_find(v.bytes, &unit, 1);
    int k = u.kind == MV_TEXT ? unit_of(u.bytes) : -1;
    if (n.kind == MV_NUMBER && n.number >= 0 && n.number <= UINT32_MAX && k >= 0) {
        d->has_override = true;
        d->override_requests = (uint32_t)n.number;
        d->override_unit = k;
    }
}

static bool take_hits(const struct rate_rule *r, const struct asked *q, struct rate_limit_descriptor *d)
{
    d->has_hits = r->has_hits;
    d->negative = r->negative;
    d->hits = r->hits;
    return !r->hits_format || str_to_u64(format_text(r->hits_format, &q->format, q->a), UINT64_MAX, &d->hits);
}

// False: it makes none.
static bool fill_one(const struct rate_rule *r, const struct asked *q, struct rate_limit_descriptor *d)
{
    *d = (struct rate_limit_descriptor){ .headers = r->headers };
    d->entries = arena_array(q->a, struct rate_limit_entry, r->count);
    for (size_t i = 0; i < r->count; i++) {
        struct str v;
        enum outcome o = act(&r->actions[i], q, &v);
        if (o == NO_DESCRIPTOR) {
            return false;
        }
        if (o == ENTRY) {
            d->entries[d->count++] = (struct rate_limit_entry){ .key = r->actions[i].key, .value = v };
        }
    }
    if (r->has_override) {
        take_override(r, q->s, d);
    } else if (r->fixed_limit) {
        d->has_override = true;
        d->override_requests = r->limit_requests;
        d->override_unit = r->limit_unit;
    }
    return take_hits(r, q, d);
}

static bool applies(const struct rate_rule *r, const struct stream *s, const struct rate_limits_ask *q)
{
    if (r->stage != q->stage || (!q->any_time && r->done != q->done)) {
        return false;
    }
    return !r->keyed || (!q->keyed_are_off && fraction_hit(r->share, s->random));
}

void rate_limits_fill(const struct rate_limits *l, struct stream *s, const struct rate_limits_ask *q, struct rate_limit_descriptor *d,
                      size_t *n)
{
    if (!l) {
        return;
    }
    struct arena *a = &s->arena;
    const struct asked asked = {
        .s = s, .a = a,
        .match = { .method = s->req.method, .path = s->req.path, .authority = s->req.host, .scheme = s->req.scheme, .headers = &s->req.headers,
                   .random = s->random, .facts = s->info.facts, .arena = a, .head = &s->req },
        .format = { .info = &s->info, .req = &s->req, .resp = s->response_started ? &s->resp : NULL, .original_path = s->path_original },
    };
    for (size_t i = 0; i < l->count; i++) {
        if (applies(&l->v[i], s, q) && fill_one(&l->v[i], &asked, &d[*n])) {
            ++*n;
        }
    }
}
