// SPDX-License-Identifier: Apache-2.0
// Authorization servers over HTTP: the client's request without its body (or with the part that is configured), and what the status and the
// fields of the answer mean.
#include "proxy/access_log/format.h"
#include "proxy/filters/http/ext_authz.h"

static const struct str remove_header = STR_INIT("x-envoy-auth-headers-to-remove");

// Framing belongs to the request that carries the question.
static bool is_framing(struct str name)
{
    enum hdr_id id = hdr_id_of(name);
    return id == HDR_CONTENT_LENGTH || id == HDR_TE || id == HDR_EXPECT || id == HDR_TRAILER || hdr_is_connection_specific(id);
}

static void put_field(struct headers *h, struct str name, struct str value, bool set)
{
    if (set) {
        headers_set(h, name, value);
    } else {
        headers_add(h, name, value);
    }
}

static void add_configured(const struct authz_server *s, struct stream *st, struct headers *h)
{
    const struct format_ctx ctx = { .info = &st->info, .req = &st->req, .original_path = st->path_original };
    for (size_t i = 0; i < s->add_count; i++) {
        struct str v = s->add[i].format ? format_text(s->add[i].format, &ctx, h->arena) : s->add[i].value;
        if (v.n) {
            headers_set(h, s->add[i].name, v);
        }
    }
}

bool authz_http_request(const struct authz_server *s, struct stream *st, const struct check_http *http, struct headers *h, struct side_request *ret)
{
    if (!http->path.n) {
        return false;
    }
    for (size_t i = 0; i < http->header_count; i++) {
        struct str name = http->headers[i].key;
        if (!name.n || name.p[0] == ':' || is_framing(name)) {
            continue;
        }
        const struct hdr *x = http->raw ? NULL : headers_get(h, name);
        struct str value = http->headers[i].value;
        put_field(h, name, x ? arena_printf(h->arena, "%.*s,%.*s", STR_FMT(x->value), STR_FMT(value)) : value, x != NULL);
    }
    if (http->has_body) {
        headers_add(h, STR("x-envoy-auth-partial-body"), http->partial ? STR("true") : STR("false"));
    }
    add_configured(s, st, h);
    struct str path = s->path_prefix.n ? arena_printf(h->arena, "%.*s%.*s", STR_FMT(s->path_prefix), STR_FMT(http->path)) : http->path;
    *ret = (struct side_request){ .cluster = s->cluster, .method = http->method, .path = path, .host = http->host, .headers = h,
                                  .timeout_ms = s->timeout_ms, .retry = s->retry };
    return true;
}

// ---- answers ----

struct lists { // of check_answer, being filled
    struct check_header *headers, *client;
    struct str *remove;
    size_t n, client_n, remove_n;
    struct str metadata;
};

static struct check_header field(const struct hdr *x, enum check_action action, struct arena *a)
{
    struct str name = arena_str(a, x->name);
    for (size_t i = 0; i < name.n; i++) {
        char *c = (char *)name.p + i;
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
    }
    return (struct check_header){ .name = name, .value = x->value, .action = action };
}

static void take_metadata(const struct authz_server *s, const struct check_header *h, struct arena *a, struct lists *l)
{
    if (!authz_names_match(&s->metadata, h->name)) {
        return;
    }
    const struct metadata_value v = { .kind = MV_TEXT, .bytes = check_utf8(h->value, a) };
    l->metadata = metadata_struct_merge(l->metadata, metadata_struct_of(h->name, &v, a), a);
}

static void take_removals(struct str list, struct arena *a, struct lists *l, size_t max)
{
    while (list.n && l->remove_n < max) {
        struct str name = str_trim(str_split(&list, ','));
        if (name.n) {
            l->remove[l->remove_n++] = arena_str(a, name);
        }
    }
}

static void take_ok(const struct authz_server *s, const struct hdr *x, struct arena *a, struct lists *l)
{
    struct check_header h = field(x, CHECK_OVERWRITE_OR_ADD, a);
    if (authz_names_match(&s->upstream, h.name)) {
        l->headers[l->n++] = h;
    }
    if (authz_names_match(&s->upstream_append, h.name)) {
        l->headers[l->n] = h;
        l->headers[l->n++].action = CHECK_ADD;
    }
    if (authz_names_match(&s->client_ok, h.name)) {
        l->client[l->client_n] = h;
        l->client[l->client_n++].action = CHECK_ADD;
    }
    take_metadata(s, &h, a, l);
}

// All fields where no list says which; with a list these too.
static bool client_hears(const struct authz_server *s, struct str name)
{
    return s->client.count == 0 || str_is(name, "location") || str_is(name, "www-authenticate") || authz_names_match(&s->client, name);
}

static void take_denied(const struct authz_server *s, const struct hdr *x, struct arena *a, struct lists *l)
{
    struct check_header h = field(x, CHECK_ADD, a);
    if (client_hears(s, h.name)) {
        l->headers[l->n++] = h;
    }
    take_metadata(s, &h, a, l);
}

void authz_http_answer(const struct authz_server *s, const struct side_answer *a, struct arena *arena, struct check_answer *ret)
{
    *ret = (struct check_answer){ .verdict = CHECK_ERROR };
    if (a->failure != SIDE_OK || a->status >= 500) {
        return;
    }
    size_t n = a->headers->count;
    bool ok = a->status == 200;
    struct lists l = { .headers = arena_array(arena, struct check_header, 2 * n + 1), .client = arena_array(arena, struct check_header, n + 1),
                       .remove = arena_array(arena, struct str, CHECK_FIELDS_MAX) };
    for (struct hdr *x = headers_first(a->headers); x; x = headers_next(a->headers, x)) {
        if (str_eq_nocase(x->name, remove_header)) {
            take_removals(ok ? x->value : str_n(NULL, 0), arena, &l, CHECK_FIELDS_MAX);
        } else if (ok) {
            take_ok(s, x, arena, &l);
        } else {
            take_denied(s, x, arena, &l);
        }
    }
    ret->verdict = ok ? CHECK_OK : CHECK_DENIED;
    ret->status = ok ? 0 : a->status;
    ret->body = ok ? str_n(NULL, 0) : a->body;
    ret->headers = l.headers;
    ret->header_count = l.n;
    ret->answer_headers = l.client;
    ret->answer_header_count = l.client_n;
    ret->remove = l.remove;
    ret->remove_count = l.remove_n;
    ret->metadata = l.metadata;
}
