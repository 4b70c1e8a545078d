// SPDX-License-Identifier: Apache-2.0
#include "proxy/model/uri_template.h"

#include <errno.h>

#include "lib/base/buf.h"

// RFC 3986 §3.3 pchar without '*', which is the operator.
static const char literals[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()+,;:@=";
#define SEGMENT_CLASS "a-zA-Z0-9\\-._~%!$&'()*+,;:@="

struct parse {
    struct str text;
    size_t at;
    struct buf out;
    struct uri_template *t;
    bool in_variable, any; // "**" was seen
    struct err *err;
};

static int bad(struct parse *p, const char *why)
{
    return err_set(p->err, -EINVAL, "\"%.*s\" at byte %zu: %s", STR_FMT(p->text), p->at, why);
}

static void put(struct parse *p, struct str s)
{
    buf_append_str(&p->out, s);
}

static void put_literal(struct parse *p, char c)
{
    bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/';
    char two[2] = { '\\', c };
    put(p, word ? str_n(&two[1], 1) : str_n(two, 2));
}

static bool is_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && (i == 0 || (c != '_' && (c < '0' || c > '9')))) {
            return false;
        }
    }
    return s.n > 0 && s.n <= 16;
}

static int parse_star(struct parse *p)
{
    bool two = p->at + 1 < p->text.n && p->text.p[p->at + 1] == '*';
    p->at += two ? 2 : 1;
    put(p, two ? STR("[" SEGMENT_CLASS "/]*") : STR("[" SEGMENT_CLASS "]+"));
    p->any |= two;
    return 0;
}

static int parse_part(struct parse *p);

// "{name}" or "{name=pattern}".
static int parse_variable(struct parse *p)
{
    size_t from = ++p->at;
    while (p->at < p->text.n && p->text.p[p->at] != '=' && p->text.p[p->at] != '}') {
        p->at++;
    }
    struct str name = str_n(p->text.p + from, p->at - from);
    if (p->at == p->text.n || !is_name(name)) {
        return bad(p, "a variable is {name} or {name=pattern}, the name a letter and at most 15 letters, digits and '_'");
    }
    for (size_t i = 0; i < p->t->variable_count; i++) {
        if (str_eq(p->t->variables[i], name)) {
            return bad(p, "this name is there already");
        }
    }
    if (p->t->variable_count == URI_TEMPLATE_VARIABLES_MAX) {
        return bad(p, "at most 5 variables");
    }
    p->t->variables[p->t->variable_count++] = name;
    put(p, STR("("));
    if (p->text.p[p->at] == '}') {
        put(p, STR("[" SEGMENT_CLASS "]+"));
    } else {
        size_t begin = ++p->at;
        p->in_variable = true;
        while (p->at < p->text.n && p->text.p[p->at] != '}') {
            int rc = parse_part(p);
            if (rc) {
                return rc;
            }
        }
        p->in_variable = false;
        if (p->at == p->text.n || p->at == begin) {
            return bad(p, "the variable has no pattern or no end");
        }
    }
    p->at++;
    put(p, STR(")"));
    return 0;
}

static int parse_part(struct parse *p)
{
    char c = p->text.p[p->at];
    if (p->any) {
        return bad(p, "nothing may follow **");
    }
    if (c == '*') {
        return parse_star(p);
    }
    if (c == '{' && !p->in_variable) {
        return parse_variable(p);
    }
    if (c == '/' ? p->at + 1 < p->text.n && p->text.p[p->at + 1] == '/' : !memchr(literals, c, sizeof(literals) - 1)) {
        return bad(p, c == '/' ? "an empty segment" : "this character cannot stand here");
    }
    put_literal(p, c);
    p->at++;
    return 0;
}

int uri_template_parse(struct str text, struct arena *a, struct uri_template *ret, struct err *err)
{
    struct uri_template t = { 0 };
    struct parse p = { .text = text, .t = &t, .err = err };
    int rc = text.n && text.p[0] == '/' ? 0 : bad(&p, "must begin with /");
    while (rc == 0 && p.at < text.n) {
        rc = parse_part(&p);
    }
    if (rc == 0) {
        char *out = arena_alloc(a, p.out.len + 1);
        size_t n = buf_peek(&p.out, 0, out, p.out.len);
        t.regex = str_n(out, n);
        *ret = t;
    }
    buf_clear(&p.out);
    return rc;
}

int uri_template_rewrite(struct str text, const struct uri_template *t, struct arena *a, struct str *ret, struct err *err)
{
    struct parse p = { .text = text, .err = err };
    char *out = arena_alloc(a, 2 * text.n + 1);
    size_t n = 0;
    if (!text.n || text.p[0] != '/') {
        return bad(&p, "must begin with /");
    }
    while (p.at < text.n) {
        char c = text.p[p.at];
        if (c != '{') {
            if (c == '\\' || c == '}') {
                return bad(&p, "this character cannot stand here");
            }
            out[n++] = c;
            p.at++;
            continue;
        }
        struct str rest = str_skip(text, p.at + 1);
        ptrdiff_t end = str_find(rest, '}');
        struct str name = str_n(rest.p, end < 0 ? 0 : (size_t)end);
        size_t i = 0;
        while (i < t->variable_count && !str_eq(t->variables[i], name)) {
            i++;
        }
        if (end < 0 || i == t->variable_count) {
            return bad(&p, "the path template has no such variable");
        }
        out[n++] = '\\';
        out[n++] = (char)('1' + i);
        p.at += name.n + 2;
    }
    *ret = str_n(out, n);
    return 0;
}
