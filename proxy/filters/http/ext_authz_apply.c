// SPDX-License-Identifier: Apache-2.0
// What an authorization server's answer makes of messages. A trusted server may still be wrong, and what it says may come from the client:
// nothing of it can end a line, a field or a message.
#include "lib/http/chars.h"
#include "proxy/filters/http/ext_authz.h"

enum { SET_METHOD, SET_PATH, SET_HOST, SET_SCHEME, SET_FIELD, SET_NOTHING };

static int kind_of(struct str name)
{
    if (str_is(name, ":authority") || str_is(name, "host")) {
        return SET_HOST;
    }
    if (name.n && name.p[0] == ':') {
        return str_is(name, ":path") ? SET_PATH : str_is(name, ":method") ? SET_METHOD : str_is(name, ":scheme") ? SET_SCHEME : SET_NOTHING;
    }
    enum hdr_id id = hdr_id_of(name); // framing is ours to say
    bool framing = id == HDR_CONTENT_LENGTH || id == HDR_TE || id == HDR_TRAILER || id == HDR_EXPECT || hdr_is_connection_specific(id);
    return framing ? SET_NOTHING : SET_FIELD;
}

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

bool authz_header_ok(const struct check_header *h)
{
    switch (kind_of(h->name)) {
    case SET_PATH:
        return h->value.n && h->value.p[0] == '/' && ch_all(h->value, CH_PATH);
    case SET_HOST:
        for (size_t i = 0; i < h->value.n; i++) {
            if ((unsigned char)h->value.p[i] <= 0x20 || h->value.p[i] == 0x7f || h->value.p[i] == '/') {
                return false;
            }
        }
        return h->value.n > 0;
    case SET_METHOD:
        return ch_all(h->value, CH_TOKEN) && !str_is(h->value, "CONNECT");
    case SET_SCHEME:
        return str_is(h->value, "http") || str_is(h->value, "https");
    case SET_NOTHING:
        return true;
    default:
        return ch_all(h->name, CH_TOKEN) && value_ok(h->value);
    }
}

bool authz_headers_ok(const struct check_header *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!authz_header_ok(&v[i])) {
            return false;
        }
    }
    return true;
}

struct check_header *authz_headers_keep(const struct check_header *v, size_t n, struct arena *a)
{
    struct check_header *out = n ? arena_array(a, struct check_header, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        out[i] = (struct check_header){ .name = arena_str(a, v[i].name), .value = arena_str(a, v[i].value), .action = v[i].action };
    }
    return out;
}

static void join(struct hdr *x, const struct check_header *m, struct headers *h)
{
    if (x) { // a field of its own, or one for the list (RFC 9110 §5.3)
        headers_set(h, arena_str(h->arena, m->name), arena_printf(h->arena, "%.*s,%.*s", STR_FMT(x->value), STR_FMT(m->value)));
    }
}

static void apply_field(const struct check_header *m, struct headers *h)
{
    struct hdr *x = headers_get(h, m->name);
    switch (m->action) {
    case CHECK_JOIN:
        join(x, m, h);
        return;
    case CHECK_ADD_IF_ABSENT:
        if (x) {
            return;
        }
        break;
    case CHECK_OVERWRITE:
        if (!x) {
            return;
        }
        break;
    default:
        break;
    }
    struct str name = arena_str(h->arena, m->name), value = arena_str(h->arena, str_trim(m->value));
    if (m->action == CHECK_ADD || m->action == CHECK_ADD_IF_ABSENT) {
        headers_add(h, name, value);
    } else {
        headers_set(h, name, value);
    }
}

// A request has each of these once.
static void apply_pseudo(const struct check_header *m, int kind, struct http_request *req, struct arena *a)
{
    struct str *to = kind == SET_METHOD ? &req->method : kind == SET_PATH ? &req->path : kind == SET_HOST ? &req->host : &req->scheme;
    if (to->n && m->action != CHECK_JOIN) { // CONNECT stays without a path
        *to = arena_str(a, m->value);
    }
}

void authz_headers_apply(const struct check_header *v, size_t n, struct headers *h, struct http_request *req)
{
    static const enum check_action request[] = { CHECK_OVERWRITE_OR_ADD, CHECK_ADD, CHECK_JOIN },
                                   answer[] = { CHECK_ADD, CHECK_OVERWRITE_OR_ADD, CHECK_ADD_IF_ABSENT, CHECK_OVERWRITE };
    const enum check_action *order = req ? request : answer;
    for (size_t k = 0; k < (req ? sizeof(request) : sizeof(answer)) / sizeof(answer[0]); k++) {
        for (size_t i = 0; i < n; i++) {
            int kind = kind_of(v[i].name);
            if (v[i].action == order[k] && kind == SET_FIELD) {
                apply_field(&v[i], h);
            } else if (v[i].action == order[k] && req && kind != SET_NOTHING) {
                apply_pseudo(&v[i], kind, req, h->arena);
            }
        }
    }
}
