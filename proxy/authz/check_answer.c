// SPDX-License-Identifier: Apache-2.0
// CheckResponse, and the one part of it that takes work: changes of a query.
#include <errno.h>
#include <stdlib.h>

#include "envoy/service/auth/v3/external_auth.pb-c.h"
#include "lib/http/chars.h"
#include "proto/pb_util.h"
#include "proxy/authz/check.h"
#include "proxy/core/metadata.h"

typedef Envoy__Service__Auth__V3__CheckResponse response_msg;
typedef Envoy__Config__Core__V3__HeaderValueOption option_msg;

static struct str lower(struct arena *a, const char *text)
{
    struct str s = arena_str(a, str_c(text));
    for (size_t i = 0; i < s.n; i++) {
        char *c = (char *)s.p + i;
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
    }
    return s;
}

static bool too_many(size_t n)
{
    return n > CHECK_FIELDS_MAX;
}

enum direction { TO_UPSTREAM, TO_CLIENT, TO_DENIED };

static enum check_action action_of(const option_msg *m, enum direction to, struct check_answer *ret)
{
    if (to == TO_DENIED) {
        return CHECK_ADD;
    }
    if (to == TO_UPSTREAM) {
        return m->append && m->append->value ? CHECK_JOIN : CHECK_OVERWRITE_OR_ADD;
    }
    if (m->append) { // the older field says it alone
        return m->append->value ? CHECK_ADD : CHECK_OVERWRITE_OR_ADD;
    }
    if ((unsigned)m->append_action > CHECK_OVERWRITE) {
        ret->bad_action = true;
        return CHECK_OVERWRITE_OR_ADD;
    }
    return (enum check_action)m->append_action;
}

static size_t take_headers(size_t n, option_msg *const *v, enum direction to, struct arena *a, struct check_answer *ret,
                           const struct check_header **ret_v)
{
    struct check_header *out = arena_array(a, struct check_header, n + 1);
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const Envoy__Config__Core__V3__HeaderValue *h = v[i]->header;
        if (!h || (to == TO_DENIED && v[i]->append && v[i]->append->value)) { // joined to nothing
            continue;
        }
        struct str value = h->value[0] ? str_c(h->value) : pb_bytes(h->raw_value);
        out[count++] = (struct check_header){ .name = lower(a, h->key), .value = value, .action = action_of(v[i], to, ret) };
    }
    *ret_v = out;
    return count;
}

static int take_ok(const Envoy__Service__Auth__V3__OkHttpResponse *m, struct arena *a, struct check_answer *ret)
{
    if (too_many(m->n_headers) || too_many(m->n_response_headers_to_add) || too_many(m->n_headers_to_remove) ||
        too_many(m->n_query_parameters_to_set) || too_many(m->n_query_parameters_to_remove)) {
        return -EMSGSIZE;
    }
    ret->header_count = take_headers(m->n_headers, m->headers, TO_UPSTREAM, a, ret, &ret->headers);
    ret->answer_header_count = take_headers(m->n_response_headers_to_add, m->response_headers_to_add, TO_CLIENT, a, ret, &ret->answer_headers);
    struct str *remove = arena_array(a, struct str, m->n_headers_to_remove + 1);
    struct str *query_remove = arena_array(a, struct str, m->n_query_parameters_to_remove + 1);
    struct check_pair *set = arena_array(a, struct check_pair, m->n_query_parameters_to_set + 1);
    for (size_t i = 0; i < m->n_headers_to_remove; i++) {
        remove[ret->remove_count++] = lower(a, m->headers_to_remove[i]);
    }
    for (size_t i = 0; i < m->n_query_parameters_to_set; i++) {
        set[ret->query_set_count++] = (struct check_pair){ str_c(m->query_parameters_to_set[i]->key), str_c(m->query_parameters_to_set[i]->value) };
    }
    for (size_t i = 0; i < m->n_query_parameters_to_remove; i++) {
        query_remove[ret->query_remove_count++] = str_c(m->query_parameters_to_remove[i]);
    }
    ret->remove = remove;
    ret->query_set = set;
    ret->query_remove = query_remove;
    return 0;
}

static int take_denied(const Envoy__Service__Auth__V3__DeniedHttpResponse *m, struct arena *a, struct check_answer *ret)
{
    if (too_many(m->n_headers)) {
        return -EMSGSIZE;
    }
    ret->header_count = take_headers(m->n_headers, m->headers, TO_DENIED, a, ret, &ret->headers);
    ret->status = m->status ? (int)m->status->code : 0;
    ret->body = pb_bytes(m->body);
    return 0;
}

int check_answer_parse(struct str bytes, struct arena *a, struct check_answer *ret, struct err *err)
{
    response_msg *m = NULL;
    struct check_answer r = { .verdict = CHECK_DENIED };
    int rc = pb_unpack_as(response_msg, envoy__service__auth__v3__check_response, bytes, a, &m, err);
    if (rc) {
        return rc;
    }
    const Envoy__Service__Auth__V3__OkHttpResponse *ok =
        m->http_response_case == ENVOY__SERVICE__AUTH__V3__CHECK_RESPONSE__HTTP_RESPONSE_OK_RESPONSE ? m->ok_response : NULL;
    if (!m->status || m->status->code == 0) {
        r.verdict = CHECK_OK;
        rc = ok ? take_ok(ok, a, &r) : 0;
    } else if (m->http_response_case == ENVOY__SERVICE__AUTH__V3__CHECK_RESPONSE__HTTP_RESPONSE_ERROR_RESPONSE) {
        r.verdict = CHECK_ERROR;
        rc = take_denied(m->error_response, a, &r);
    } else if (m->http_response_case == ENVOY__SERVICE__AUTH__V3__CHECK_RESPONSE__HTTP_RESPONSE_DENIED_RESPONSE) {
        rc = take_denied(m->denied_response, a, &r);
    }
    if (rc) {
        return err_set(err, rc, "more than %d fields in a list", CHECK_FIELDS_MAX);
    }
    const Google__Protobuf__Struct *metadata = ok && ok->dynamic_metadata ? ok->dynamic_metadata : m->dynamic_metadata;
    r.metadata = metadata && metadata->n_fields ? pb_pack(&metadata->base, a) : str_n(NULL, 0);
    *ret = r;
    return 0;
}

// ---- queries ----

bool check_query_text(struct str text, bool strict)
{
    if (!strict) {
        return !text.n || ch_all(text, CH_PATH);
    }
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '*' && c != '-' && c != '.' && c != '_') {
            return false;
        }
    }
    return true;
}

struct param {
    struct str key, value;
    size_t index; // where it stood
};
struct params {
    struct param *v;
    size_t n;
};

static void drop(struct params *p, struct str key)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (!str_eq(p->v[i].key, key)) {
            p->v[n++] = p->v[i];
        }
    }
    p->n = n;
}

static void add(struct params *p, struct str key, struct str value)
{
    p->v[p->n] = (struct param){ key, value, p->n };
    p->n++;
}

// By name; those of one name keep their order.
static int compare(const void *a, const void *b)
{
    const struct param *x = a, *y = b;
    int c = str_cmp(x->key, y->key);
    return c ? c : x->index < y->index ? -1 : 1;
}

static struct params parse(struct str query, size_t more, struct arena *a)
{
    size_t n = 1;
    for (size_t i = 0; i < query.n; i++) {
        n += query.p[i] == '&';
    }
    struct params p = { .v = arena_array(a, struct param, n + more) };
    while (query.n) {
        struct str value = str_split(&query, '&'), key = str_split(&value, '=');
        add(&p, key, value);
    }
    return p;
}

struct str check_query_change(struct str path, const struct check_pair *set, size_t set_count, const struct str *remove, size_t remove_count,
                              struct arena *a)
{
    ptrdiff_t mark = str_find(path, '?');
    struct str bare = mark < 0 ? path : str_n(path.p, (size_t)mark);
    struct params p = parse(mark < 0 ? str_n(NULL, 0) : str_skip(path, (size_t)mark + 1), set_count, a);
    for (size_t i = 0; i < set_count; i++) {
        drop(&p, set[i].key);
        add(&p, set[i].key, set[i].value);
    }
    for (size_t i = 0; i < remove_count; i++) {
        drop(&p, remove[i]);
    }
    qsort(p.v, p.n, sizeof(*p.v), compare);
    size_t bytes = bare.n + 1;
    for (size_t i = 0; i < p.n; i++) {
        bytes += p.v[i].key.n + p.v[i].value.n + 2;
    }
    char *out = arena_alloc(a, bytes);
    struct str parts[4];
    size_t n = bare.n;
    memcpy(out, bare.p, bare.n);
    for (size_t i = 0; i < p.n; i++) {
        parts[0] = i ? STR("&") : STR("?");
        parts[1] = p.v[i].key;
        parts[2] = STR("=");
        parts[3] = p.v[i].value;
        for (size_t k = 0; k < 4; k++) {
            if (parts[k].n) {
                memcpy(out + n, parts[k].p, parts[k].n);
                n += parts[k].n;
            }
        }
    }
    return str_n(out, n);
}

struct str check_answer_metadata(const struct check_answer *c, uint64_t took_ns, struct arena *a)
{
    if (c->verdict != CHECK_OK) {
        return c->metadata;
    }
    const struct metadata_value ms = { .kind = MV_NUMBER, .number = (double)(took_ns / 1000000) };
    return metadata_struct_merge(c->metadata, metadata_struct_of(STR("ext_authz_duration"), &ms, a), a);
}
