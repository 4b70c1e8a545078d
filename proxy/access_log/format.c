// SPDX-License-Identifier: Apache-2.0
// Formats: compiled once into a list of literals and operators (text) or a tree of such lists (JSON).
#include "proxy/access_log/format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "proxy/access_log/token.h"

enum { FORMAT_TEXT_MAX = 64 * 1024, FORMAT_OPS_MAX = 512, NAME_MAX_SHOWN = 64 };

struct format_node { // of a JSON format
    enum { NODE_OBJECT, NODE_ARRAY, NODE_FORMAT, NODE_LITERAL } kind;
    struct str key;
    struct format_node *first, *next;
    struct format *format;     // NODE_FORMAT
    const struct json *literal; // NODE_LITERAL: a number, a boolean or null of the configuration
};

struct format {
    struct format_op *ops; // text
    size_t op_count;
    struct format_node *root; // JSON when set
    bool omit_empty;
    bool dash;                // text of a body: "-" stands for what has no value
};

const char format_default_text[] =
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% "
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" "
    "\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

bool format_has_operator(struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '%') {
            if (i + 1 < text.n && text.p[i + 1] == '%') {
                i++;
            } else {
                return true;
            }
        }
    }
    return false;
}

// ---- compiling ----

static int unknown_operator(struct str name, struct err *err)
{
    char known[ERR_MSG_MAX - 128];
    size_t n = 0;
    known[0] = '\0';
    for (size_t i = 0; i < format_token_count && n + NAME_MAX_SHOWN < sizeof(known); i++) {
        n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", i ? ", " : "", format_tokens[i].name);
    }
    name.n = name.n > NAME_MAX_SHOWN ? NAME_MAX_SHOWN : name.n;
    return err_set(err, -EINVAL, "unknown operator %%%.*s%%; known: %s", STR_FMT(name), known);
}

static void header_ref_set(struct header_ref *r, struct str name, struct arena *a)
{
    static const struct {
        const char *name;
        int kind;
    } pseudo[] = { { ":method", REF_METHOD }, { ":path", REF_PATH }, { ":authority", REF_AUTHORITY },
                   { "host", REF_AUTHORITY }, { ":scheme", REF_SCHEME }, { ":status", REF_STATUS } };
    for (size_t i = 0; i < array_len(pseudo); i++) {
        if (str_eq_nocase(name, str_c(pseudo[i].name))) {
            r->kind = pseudo[i].kind;
            return;
        }
    }
    r->kind = REF_HEADER;
    r->id = hdr_id_of(name);
    r->name = arena_str(a, name);
}

static int op_header(struct format_op *op, struct arena *a, struct err *err)
{
    struct str rest = op->text, name = str_split(&rest, '?');
    if (!name.n || str_find(rest, '?') >= 0) {
        return err_set(err, -EINVAL, "%%%s(%.*s)%%: one header name, or two with '?' between them", op->token->name, STR_FMT(op->text));
    }
    header_ref_set(&op->header, name, a);
    if (rest.n) {
        header_ref_set(&op->alternative, rest, a);
    }
    return 0;
}

// %METADATA(OF:NAMESPACE:KEY…)% and the older operators of one kind each.
static int op_metadata(struct format_op *op, struct err *err)
{
    static const struct {
        const char *name;
        enum metadata_of of;
    } kinds[] = { { "DYNAMIC", METADATA_COUNT },           { "CLUSTER", METADATA_CLUSTER },   { "ROUTE", METADATA_ROUTE },
                  { "UPSTREAM_HOST", METADATA_UPSTREAM_HOST }, { "LISTENER", METADATA_LISTENER }, { "VIRTUAL_HOST", METADATA_VIRTUAL_HOST },
                  { "LISTENER_FILTER_CHAIN", METADATA_FILTER_CHAIN } };
    bool one = strcmp(op->token->name, "METADATA") != 0;
    struct str kind = !one ? str_split(&op->text, ':') : op->token->name[0] == 'C' ? STR("CLUSTER") : STR("UPSTREAM_HOST");
    for (size_t i = 0; i < array_len(kinds); i++) {
        if (str_is(kind, kinds[i].name)) {
            op->metadata = kinds[i].of;
            metadata_want(kinds[i].of);
            return 0;
        }
    }
    return err_set(err, -EINVAL, "%%METADATA(%.*s:…)%%: metadata of this is not known; DYNAMIC, CLUSTER, ROUTE, UPSTREAM_HOST, LISTENER, VIRTUAL_HOST "
                   "or LISTENER_FILTER_CHAIN", STR_FMT(kind));
}

static int op_resolve(struct format_op *op, bool has_arg, struct arena *a, struct err *err)
{
    const char *name = op->token->name;
    if (op->token->arg == ARG_NONE && has_arg) {
        return err_set(err, -EINVAL, "%%%s%% takes no argument", name);
    }
    if ((op->token->arg == ARG_TEXT || op->token->arg == ARG_HEADER) && !op->text.n) {
        return err_set(err, -EINVAL, "%%%s%% needs an argument in parentheses", name);
    }
    if (op->token->arg == ARG_HEADER) {
        return op_header(op, a, err);
    }
    size_t name_len = strlen(name);
    if (name_len >= 8 && strcmp(name + name_len - 8, "METADATA") == 0 && strcmp(name, "DYNAMIC_METADATA") != 0) {
        int rc = op_metadata(op, err);
        op->text = op->text.n ? arena_str(a, op->text) : op->text;
        return rc;
    }
    if (strcmp(name, "ENVIRONMENT") == 0) {
        op->text = arena_str(a, str_c(getenv(arena_str(a, op->text).p)));
    } else if (strcmp(name, "HOSTNAME") == 0) {
        char host[256] = "";
        gethostname(host, sizeof(host) - 1);
        op->text = arena_str(a, str_c(host));
    } else if (op->text.n) {
        op->text = arena_str(a, op->text);
    }
    return 0;
}

// Cuts "NAME", "NAME(arg)", "NAME:5", "NAME(arg):5" and the closing '%' off *rest, which stands behind the opening one.
static int op_parse(struct str *rest, struct format_op *op, struct arena *a, struct err *err)
{
    size_t n = 0;
    while (n < rest->n && ((rest->p[n] >= 'A' && rest->p[n] <= 'Z') || rest->p[n] == '_' || (rest->p[n] >= '0' && rest->p[n] <= '9'))) {
        n++;
    }
    struct str name = str_n(rest->p, n), whole = *rest;
    for (size_t i = 0; i < format_token_count; i++) {
        if (str_is(name, format_tokens[i].name)) {
            op->token = &format_tokens[i];
        }
    }
    if (!op->token) {
        return unknown_operator(name.n ? name : whole, err);
    }
    *rest = str_skip(*rest, n);
    bool has_arg = rest->n && rest->p[0] == '(';
    if (has_arg) {
        // The argument may hold '%' and ')': it ends at the first ")%" or "):" with a length.
        size_t end = 1;
        while (end + 1 < rest->n && !(rest->p[end] == ')' && (rest->p[end + 1] == '%' || rest->p[end + 1] == ':'))) {
            end++;
        }
        if (end + 1 >= rest->n) {
            return err_set(err, -EINVAL, "%%%.*s: the argument is not closed with \")%%\"", STR_FMT(name));
        }
        op->text = str_n(rest->p + 1, end - 1);
        *rest = str_skip(*rest, end + 1);
    }
    op->max_len = UINT32_MAX;
    ptrdiff_t close = str_find(*rest, '%');
    struct str limit = close >= 0 ? str_n(rest->p, (size_t)close) : *rest;
    uint64_t max;
    if (close < 0 || (limit.n && (limit.p[0] != ':' || !str_to_u64(str_skip(limit, 1), UINT32_MAX - 1, &max)))) {
        return err_set(err, -EINVAL, "%%%.*s%.*s: \"%%\" or \":LENGTH%%\" must follow", STR_FMT(name), STR_FMT(limit));
    }
    if (limit.n) {
        op->max_len = (uint32_t)max;
    }
    *rest = str_skip(*rest, limit.n + 1);
    return op_resolve(op, has_arg, a, err);
}

static void add_literal(struct format_op *ops, size_t *n, struct str s, struct arena *a)
{
    if (s.n) {
        ops[(*n)++] = (struct format_op){ .text = arena_str(a, s) };
    }
}

int format_compile(struct str text, struct arena *a, struct format **ret, struct err *err)
{
    if (text.n > FORMAT_TEXT_MAX) {
        return err_set(err, -EINVAL, "longer than %d bytes", FORMAT_TEXT_MAX);
    }
    struct format_op ops[FORMAT_OPS_MAX];
    size_t n = 0;
    struct str rest = text;
    while (rest.n) {
        if (n + 3 > FORMAT_OPS_MAX) {
            return err_set(err, -EINVAL, "more than %d operators", FORMAT_OPS_MAX / 2);
        }
        ptrdiff_t at = str_find(rest, '%');
        if (at < 0) {
            add_literal(ops, &n, rest, a);
            break;
        }
        bool doubled = (size_t)at + 1 < rest.n && rest.p[at + 1] == '%';
        add_literal(ops, &n, str_n(rest.p, (size_t)at + (doubled ? 1 : 0)), a);
        rest = str_skip(rest, (size_t)at + (doubled ? 2 : 1));
        if (!doubled) {
            ops[n] = (struct format_op){ .token = NULL };
            int rc = op_parse(&rest, &ops[n], a, err);
            if (rc < 0) {
                return rc;
            }
            n++;
        }
    }
    struct format *f = arena_new(a, struct format);
    f->ops = arena_array(a, struct format_op, n ? n : 1);
    memcpy(f->ops, ops, n * sizeof(*ops));
    f->op_count = n;
    *ret = f;
    return 0;
}

static int compile_node(const struct json *j, struct arena *a, struct format_node **ret, struct err *err)
{
    struct format_node *n = arena_new(a, struct format_node);
    n->key = j->key.n ? arena_str(a, j->key) : j->key;
    if (j->type == JSON_STRING) {
        n->kind = NODE_FORMAT;
        int rc = format_compile(j->text, a, &n->format, err);
        if (rc < 0) {
            return j->key.n ? err_wrap(err, "\"%.*s\"", STR_FMT(j->key)) : rc;
        }
    } else if (j->type == JSON_OBJECT || j->type == JSON_ARRAY) {
        n->kind = j->type == JSON_OBJECT ? NODE_OBJECT : NODE_ARRAY;
        for (const struct json *c = j->first; c; c = c->next) {
            struct format_node *one = NULL, **at = &n->first;
            int rc = compile_node(c, a, &one, err);
            if (rc < 0) {
                return rc;
            }
            // Members come sorted, as Envoy's do: the order of a map on the wire says nothing.
            while (*at && (n->kind == NODE_ARRAY || str_cmp((*at)->key, one->key) <= 0)) {
                at = &(*at)->next;
            }
            one->next = *at;
            *at = one;
        }
    } else {
        n->kind = NODE_LITERAL;
        struct json *copy = arena_new(a, struct json);
        *copy = *j;
        copy->next = NULL;
        copy->key = str_n(NULL, 0);
        copy->text = arena_str(a, j->text);
        n->literal = copy;
    }
    *ret = n;
    return 0;
}

int format_compile_json(const struct json *tree, struct arena *a, struct format **ret, struct err *err)
{
    if (!tree || tree->type != JSON_OBJECT) {
        return err_set(err, -EINVAL, "a JSON format must be an object");
    }
    struct format *f = arena_new(a, struct format);
    int rc = compile_node(tree, a, &f->root, err);
    if (rc == 0) {
        *ret = f;
    }
    return rc;
}

void format_is_body(struct format *f)
{
    f->dash = true;
}

void format_omit_empty(struct format *f)
{
    f->omit_empty = true;
}

// ---- evaluating ----

// whole: a value that is JSON is not cut to the operator's length.
static void op_eval(const struct format_op *op, const struct format_ctx *ctx, bool whole, struct format_value *v)
{
    v->kind = VALUE_NONE;
    v->owned = (struct buf){ 0 };
    op->token->eval(op, ctx, v);
    if ((v->kind == VALUE_TEXT || (v->kind == VALUE_JSON && !whole)) && v->text.n > op->max_len) {
        v->text.n = op->max_len;
    }
}

static void put_u64(struct buf *out, uint64_t n)
{
    char text[20];
    size_t at = sizeof(text);
    do {
        text[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    buf_append(out, text + at, sizeof(text) - at);
}

static bool must_escape(unsigned char c)
{
    return c < 0x20 || c == 0x7f || c == '"' || c == '\\';
}

static void put_escaped(struct buf *out, struct str s)
{
    size_t from = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (__builtin_expect(!must_escape(c), 1)) {
            continue;
        }
        buf_append(out, s.p + from, i - from);
        from = i + 1;
        if (c == '"' || c == '\\') {
            const char two[2] = { '\\', (char)c };
            buf_append(out, two, 2);
        } else {
            buf_printf(out, "\\x%02x", c);
        }
    }
    buf_append(out, s.p + from, s.n - from);
}

static void write_text(const struct format *f, const struct format_ctx *ctx, bool log, struct buf *out)
{
    struct format_value v;
    for (size_t i = 0; i < f->op_count; i++) {
        const struct format_op *op = &f->ops[i];
        if (!op->token) {
            buf_append_str(out, op->text);
            continue;
        }
        op_eval(op, ctx, false, &v);
        if (v.kind == VALUE_NUMBER) {
            put_u64(out, v.number);
        } else if (v.kind == VALUE_TEXT) {
            if (log) {
                put_escaped(out, v.text);
            } else {
                buf_append_str(out, v.text);
            }
        } else if (v.kind == VALUE_JSON) { // has nothing that ends a line, and is no peer's
            buf_append_str(out, v.text);
            buf_clear(&v.owned);
        } else if ((log || f->dash) && !f->omit_empty) {
            buf_append(out, "-", 1);
        }
    }
}

static void write_leaf(struct json_writer *w, const struct format *f, const struct format_ctx *ctx, struct str key, bool omit)
{
    struct format_value v = { .kind = VALUE_TEXT };
    bool lone = f->op_count == 1 && f->ops[0].token;
    if (lone) {
        op_eval(&f->ops[0], ctx, true, &v);
        if (v.kind == VALUE_NONE && omit) {
            return;
        }
    }
    if (key.p) {
        jw_key(w, key);
    }
    if (!lone) {
        struct buf text = { 0 };
        struct format plain = { .ops = f->ops, .op_count = f->op_count };
        for (size_t i = 0; i < plain.op_count; i++) {
            struct format one = { .ops = &plain.ops[i], .op_count = 1 };
            size_t before = text.len;
            write_text(&one, ctx, false, &text);
            if (text.len == before && one.ops[0].token && !omit) {
                buf_append(&text, "-", 1);
            }
        }
        jw_str(w, buf_pullup(&text, text.len));
        buf_clear(&text);
    } else if (v.kind == VALUE_NUMBER) {
        jw_u64(w, v.number);
    } else if (v.kind == VALUE_TEXT) {
        jw_str(w, v.text);
    } else if (v.kind == VALUE_JSON) {
        jw_raw(w, v.text);
        buf_clear(&v.owned);
    } else {
        jw_null(w);
    }
}

static void write_node(struct json_writer *w, const struct format_node *n, const struct format_ctx *ctx, bool omit, bool member)
{
    if (n->kind == NODE_FORMAT) {
        write_leaf(w, n->format, ctx, member ? n->key : str_n(NULL, 0), omit);
        return;
    }
    if (member) {
        jw_key(w, n->key);
    }
    if (n->kind == NODE_LITERAL) {
        jw_tree(w, n->literal);
        return;
    }
    bool object = n->kind == NODE_OBJECT;
    if (object) {
        jw_object(w);
    } else {
        jw_array(w);
    }
    for (const struct format_node *c = n->first; c; c = c->next) {
        write_node(w, c, ctx, omit, object);
    }
    if (object) {
        jw_object_end(w);
    } else {
        jw_array_end(w);
    }
}

void format_write(const struct format *f, const struct format_ctx *ctx, struct buf *out)
{
    if (!f->root) {
        write_text(f, ctx, true, out);
        return;
    }
    struct json_writer w;
    jw_init(&w, out, 0);
    write_node(&w, f->root, ctx, f->omit_empty, false);
    buf_append(out, "\n", 1);
}

struct str format_text(const struct format *f, const struct format_ctx *ctx, struct arena *a)
{
    struct buf out = { 0 };
    if (f->root) {
        format_write(f, ctx, &out);
    } else {
        write_text(f, ctx, false, &out);
    }
    struct str s = arena_str(a, buf_pullup(&out, out.len));
    buf_clear(&out);
    return s;
}
