// SPDX-License-Identifier: Apache-2.0
// `match: {…}` of a route, as istiod writes it: the path, headers by name, then :method, :authority, :scheme, then query parameters.
#include "control-plane/compile_int.h"

void cpc_string_match(struct compiler *k, struct buf *b, const struct cp_string_match *m)
{
    static const char *const names[] = { [CP_EXACT] = "exact", [CP_PREFIX] = "prefix" };
    if (m->kind == CP_REGEX) {
        buf_printf(b, "{safe_regex: {regex: %s}}", cpc_q(k, m->value));
    } else {
        buf_printf(b, "{%s: %s}", names[m->kind], cpc_q(k, m->value));
    }
}

static void write_value(struct compiler *k, struct buf *b, const struct cp_string_match *m)
{
    if (m->kind == CP_PRESENT) {
        buf_printf(b, "present_match: true");
    } else {
        buf_printf(b, "string_match: ");
        cpc_string_match(k, b, m);
    }
}

static void write_pseudo(struct compiler *k, struct buf *b, const char *name, const struct cp_string_match *m, const char **sep)
{
    if (m->kind != CP_UNSET) {
        buf_printf(b, "%s{name: '%s', ", *sep, name);
        write_value(k, b, m);
        buf_printf(b, "}");
        *sep = ", ";
    }
}

static void write_path(struct compiler *k, struct buf *b, const struct cp_http_match *m)
{
    if (m->uri.kind == CP_EXACT) {
        buf_printf(b, "path: %s", cpc_q(k, m->uri.value));
    } else if (m->uri.kind == CP_REGEX) {
        buf_printf(b, "safe_regex: {regex: %s}", cpc_q(k, m->uri.value));
    } else {
        buf_printf(b, "prefix: %s", m->uri.kind == CP_PREFIX ? cpc_q(k, m->uri.value) : "/");
    }
    buf_printf(b, ", case_sensitive: %s", m->ignore_uri_case ? "false" : "true");
}

static void write_header(struct compiler *k, struct buf *b, const struct cp_header_match *h)
{
    buf_printf(b, "{name: %s, ", cpc_q(k, h->name));
    write_value(k, b, &h->match);
    if (h->without) { // withoutHeaders with a value: a header that is absent does not have it
        buf_printf(b, ", invert_match: true%s", h->match.kind == CP_PRESENT ? "" : ", treat_missing_header_as_empty: true");
    }
    buf_printf(b, "}");
}

// In the order of names; few, so the next one is looked for each time.
static void write_headers(struct compiler *k, struct buf *b, const struct cp_http_match *m, const char **sep)
{
    bool *done = arena_array(&k->scratch, bool, m->header_count + 1);
    for (size_t n = 0; n < m->header_count; n++) {
        size_t at = m->header_count;
        for (size_t i = 0; i < m->header_count; i++) {
            at = !done[i] && (at == m->header_count || str_cmp(m->headers[i].name, m->headers[at].name) < 0) ? i : at;
        }
        done[at] = true;
        buf_printf(b, "%s", *sep);
        write_header(k, b, &m->headers[at]);
        *sep = ", ";
    }
}

void cpc_match(struct compiler *k, struct buf *b, const struct cp_http_match *m)
{
    const char *sep = "";
    if (!m) {
        buf_printf(b, "match: {prefix: /}");
        return;
    }
    buf_printf(b, "match: {");
    write_path(k, b, m);
    buf_printf(b, ", headers: [");
    write_headers(k, b, m, &sep);
    write_pseudo(k, b, ":method", &m->method, &sep);
    write_pseudo(k, b, ":authority", &m->authority, &sep);
    write_pseudo(k, b, ":scheme", &m->scheme, &sep);
    buf_printf(b, "], query_parameters: [");
    for (size_t i = 0; i < m->query_count; i++) {
        buf_printf(b, "%s{name: %s, ", i ? ", " : "", cpc_q(k, m->queries[i].name));
        write_value(k, b, &m->queries[i].match);
        buf_printf(b, "}");
    }
    buf_printf(b, "]}");
}
