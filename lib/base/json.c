// SPDX-License-Identifier: Apache-2.0
// Recursive descent over RFC 8259, depth bounded by JSON_DEPTH_MAX. Look-ups in the tree are here too.
#include "lib/base/json.h"

#include <errno.h>

#include "lib/base/map.h"
#include "lib/base/utf8.h"

enum { LINEAR_MEMBERS_MAX = 16 }; // objects with more members get a table against quadratic look-ups for duplicates

struct parser {
    const char *p, *end;
    const char *line_start;
    int line;
    int depth;
    size_t nodes;
    struct arena *arena;
    struct err *err;
};

static int col_at(const struct parser *j, const char *at)
{
    return (int)(at - j->line_start) + 1;
}

// Always -EINVAL: "line L, column C: what".
static int fail_at(struct parser *j, const char *at, const char *what)
{
    return err_set(j->err, -EINVAL, "line %d, column %d: %s", j->line, col_at(j, at), what);
}

static int fail_limit(struct parser *j, const char *what)
{
    return err_set(j->err, -E2BIG, "line %d, column %d: %s", j->line, col_at(j, j->p), what);
}

static void skip_space(struct parser *j)
{
    for (; j->p < j->end; j->p++) {
        if (*j->p == '\n') {
            j->line++;
            j->line_start = j->p + 1;
        } else if (*j->p != ' ' && *j->p != '\t' && *j->p != '\r') {
            return;
        }
    }
}

static int hex4(const char *p, const char *end, unsigned *ret)
{
    unsigned v = 0;
    if (end - p < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                            : 16;
        if (d == 16) {
            return -1;
        }
        v = v << 4 | d;
    }
    *ret = v;
    return 0;
}

// \uXXXX behind the 'u', with its second half when it is a surrogate (RFC 8259 §7). Returns the bytes of UTF-8 or negative.
static int unescape_u(struct parser *j, char *out)
{
    unsigned c, low;
    const char *at = j->p - 2;
    if (hex4(j->p, j->end, &c) < 0) {
        return fail_at(j, at, "\\u needs four hexadecimal digits");
    }
    j->p += 4;
    if (c >= 0xd800 && c < 0xe000) {
        if (c >= 0xdc00 || j->end - j->p < 6 || j->p[0] != '\\' || j->p[1] != 'u' ||
            hex4(j->p + 2, j->end, &low) < 0 || low < 0xdc00 || low >= 0xe000) {
            return fail_at(j, at, "half of a surrogate pair");
        }
        j->p += 6;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    return (int)utf8_encode(c, out);
}

// One escape, p behind the backslash. Returns the bytes written (at most 4; the escape is never shorter) or negative.
static int unescape(struct parser *j, char *out)
{
    if (j->p == j->end) {
        return fail_at(j, j->p, "the text ends in a string");
    }
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = *j->p++;
    if (c == 'u') {
        return unescape_u(j, out);
    }
    const char *q = c ? strchr(from, c) : NULL;
    if (!q) {
        return fail_at(j, j->p - 2, "unknown escape in a string");
    }
    *out = to[q - from];
    return 1;
}

// p at the opening quote; leaves it behind the closing one.
static int parse_string(struct parser *j, struct str *ret)
{
    const char *start = j->p++;
    const char *q = j->p;
    while (q < j->end && *q != '"') {
        q += *q == '\\' && q + 1 < j->end ? 2 : 1;
    }
    if (q >= j->end) {
        return fail_at(j, start, "a string without its closing quote");
    }
    char *out = arena_alloc(j->arena, (size_t)(q - j->p) + 1);
    if (!out) {
        return fail_limit(j, "more text than the limit allows");
    }
    size_t n = 0;
    while (*j->p != '"') {
        unsigned char c = (unsigned char)*j->p;
        if (c == '\\') {
            j->p++;
            int k = unescape(j, out + n);
            if (k < 0) {
                return k;
            }
            n += (size_t)k;
        } else if (c < 0x20) {
            return fail_at(j, j->p, "a control character in a string; write it as an escape");
        } else if (c < 0x80) {
            out[n++] = (char)c;
            j->p++;
        } else {
            size_t k = utf8_len(str_n(j->p, (size_t)(q - j->p)));
            if (k == 0) {
                return fail_at(j, j->p, "bytes that are not UTF-8");
            }
            memcpy(out + n, j->p, k);
            n += k;
            j->p += k;
        }
    }
    j->p++;
    out[n] = '\0';
    *ret = (struct str){ .p = out, .n = n };
    return 0;
}

static int parse_value(struct parser *j, struct json **ret);

static struct json *node_new(struct parser *j, enum json_type type)
{
    if (++j->nodes > JSON_NODES_MAX) {
        fail_limit(j, "more values than the limit of 2000000");
        return NULL;
    }
    struct json *n = arena_new(j->arena, struct json);
    if (!n) {
        fail_limit(j, "more values than the memory limit allows");
        return NULL;
    }
    n->type = type;
    n->line = j->line;
    n->col = col_at(j, j->p);
    return n;
}

static int parse_array(struct parser *j, struct json *arr)
{
    struct json **tail = &arr->first;
    j->p++;
    skip_space(j);
    if (j->p < j->end && *j->p == ']') {
        j->p++;
        return 0;
    }
    for (;;) {
        int r = parse_value(j, tail);
        if (r < 0) {
            return r;
        }
        tail = &(*tail)->next;
        arr->count++;
        skip_space(j);
        if (j->p == j->end || (*j->p != ',' && *j->p != ']')) {
            return fail_at(j, j->p, "expected ',' or ']' in an array");
        }
        if (*j->p++ == ']') {
            return 0;
        }
    }
}

// Whether the object has the key already; seen is filled once the object has become large.
static bool is_duplicate(struct json *obj, struct json *member, struct map *seen)
{
    if (obj->count < LINEAR_MEMBERS_MAX) {
        for (const struct json *m = obj->first; m; m = m->next) {
            if (m != member && str_eq(m->key, member->key)) {
                return true;
            }
        }
        return false;
    }
    if (seen->count == 0) {
        for (struct json *m = obj->first; m; m = m->next) {
            if (m != member) {
                map_put(seen, m->key, m);
            }
        }
    }
    return map_put(seen, member->key, member) != NULL;
}

static int parse_members(struct parser *j, struct json *obj, struct map *seen)
{
    struct json **tail = &obj->first;
    for (;;) {
        skip_space(j);
        if (j->p == j->end || *j->p != '"') {
            return fail_at(j, j->p, "expected a key in quotes");
        }
        const char *at = j->p;
        struct str key;
        int r = parse_string(j, &key);
        if (r < 0) {
            return r;
        }
        const struct json probe = { .key = key };
        if (is_duplicate(obj, (struct json *)&probe, seen)) {
            return err_set(j->err, -EINVAL, "line %d, column %d: the key \"%.*s\" is there twice", j->line, col_at(j, at),
                           (int)(key.n < 100 ? key.n : 100), key.p);
        }
        skip_space(j);
        if (j->p == j->end || *j->p != ':') {
            return fail_at(j, j->p, "expected ':' behind a key");
        }
        j->p++;
        r = parse_value(j, tail);
        if (r < 0) {
            return r;
        }
        (*tail)->key = key;
        tail = &(*tail)->next;
        obj->count++;
        skip_space(j);
        if (j->p == j->end || (*j->p != ',' && *j->p != '}')) {
            return fail_at(j, j->p, "expected ',' or '}' in an object");
        }
        if (*j->p++ == '}') {
            return 0;
        }
    }
}

static int parse_object(struct parser *j, struct json *obj)
{
    j->p++;
    skip_space(j);
    if (j->p < j->end && *j->p == '}') {
        j->p++;
        return 0;
    }
    struct map seen = { 0 };
    int r = parse_members(j, obj, &seen);
    map_fini(&seen);
    return r;
}

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' || c == '-' || c == '.' ||
           c == '_';
}

// null, true, false or a number.
static int parse_word(struct parser *j, struct json *n)
{
    const char *start = j->p, *q = start;
    while (q < j->end && is_word(*q)) {
        q++;
    }
    struct str w = str_n(start, (size_t)(q - start));
    if (str_is(w, "null")) {
        n->type = JSON_NULL;
    } else if (str_is(w, "true") || str_is(w, "false")) {
        n->type = JSON_BOOL;
        n->boolean = w.n == 4;
    } else if (json_is_number(w)) {
        n->type = JSON_NUMBER;
    } else {
        return fail_at(j, start, w.n ? "neither a number nor true, false or null; text needs quotes" : "expected a value");
    }
    n->text = arena_str(j->arena, w);
    if (!n->text.p) {
        return fail_limit(j, "more text than the limit allows");
    }
    j->p = q;
    return 0;
}

static int parse_nested(struct parser *j, struct json *n)
{
    if (j->depth >= JSON_DEPTH_MAX) {
        return fail_limit(j, "nested deeper than 64 levels");
    }
    j->depth++;
    int r = n->type == JSON_OBJECT ? parse_object(j, n) : parse_array(j, n);
    j->depth--;
    return r;
}

static int parse_value(struct parser *j, struct json **ret)
{
    skip_space(j);
    if (j->p == j->end) {
        return fail_at(j, j->p, "the text ends where a value is expected");
    }
    char c = *j->p;
    struct json *n = node_new(j, c == '{' ? JSON_OBJECT : c == '[' ? JSON_ARRAY : c == '"' ? JSON_STRING : JSON_NULL);
    if (!n) {
        return -E2BIG;
    }
    int r = c == '{' || c == '[' ? parse_nested(j, n) : c == '"' ? parse_string(j, &n->text) : parse_word(j, n);
    if (r < 0) {
        return r;
    }
    *ret = n;
    return 0;
}

int json_parse(struct str text, struct arena *a, struct json **ret, struct err *err)
{
    if (str_starts(text, STR("\xef\xbb\xbf"))) {
        text = str_skip(text, 3); // RFC 8259 §8.1: a parser may ignore a byte order mark
    }
    const char *p = text.p ? text.p : "";
    struct parser j = { .p = p, .end = p + text.n, .line_start = p, .line = 1, .arena = a, .err = err };
    struct json *root = NULL;
    int r = parse_value(&j, &root);
    if (r < 0) {
        return r;
    }
    skip_space(&j);
    if (j.p != j.end) {
        return fail_at(&j, j.p, "more text behind the value");
    }
    *ret = root;
    return 0;
}

int json_or_yaml_parse(struct str text, struct arena *a, struct json **ret, struct err *err)
{
    struct str s = str_starts(text, STR("\xef\xbb\xbf")) ? str_skip(text, 3) : text;
    while (s.n && (*s.p == ' ' || *s.p == '\t' || *s.p == '\r' || *s.p == '\n')) {
        s = str_skip(s, 1);
    }
    if (s.n && (*s.p == '{' || *s.p == '[')) {
        return json_parse(text, a, ret, err);
    }
    struct json *docs;
    int r = yaml_parse(text, a, &docs, err);
    if (r < 0) {
        return r;
    }
    if (docs->count != 1) {
        return err_set(err, -EINVAL, docs->count ? "line %d: a second YAML document; expected one" : "the text is empty",
                       docs->count ? docs->first->next->line : 0);
    }
    docs->first->next = NULL;
    *ret = docs->first;
    return 0;
}

static struct json *get_n(const struct json *n, struct str key)
{
    if (!n || n->type != JSON_OBJECT) {
        return NULL;
    }
    for (struct json *m = n->first; m; m = m->next) {
        if (str_eq(m->key, key)) {
            return m;
        }
    }
    return NULL;
}

struct json *json_get(const struct json *n, const char *key)
{
    return get_n(n, str_c(key));
}

struct json *json_path(const struct json *n, const char *path)
{
    struct str rest = str_c(path);
    struct json *m = NULL;
    do {
        m = get_n(n, str_split(&rest, '.'));
        n = m;
    } while (m && rest.p);
    return m;
}

struct str json_str(const struct json *n, const char *key)
{
    const struct json *m = json_get(n, key);
    return m && m->type == JSON_STRING ? m->text : (struct str){ 0 };
}
