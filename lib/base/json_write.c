// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/json.h"
#include "lib/base/utf8.h"

void jw_init(struct json_writer *w, struct buf *out, int indent)
{
    *w = (struct json_writer){ .out = out, .indent = indent };
}

static void newline(struct json_writer *w)
{
    if (w->indent) {
        static const char spaces[] = "                                ";
        buf_append(w->out, "\n", 1);
        for (size_t n = (size_t)w->indent * (size_t)w->depth; n;) {
            size_t k = n < sizeof(spaces) - 1 ? n : sizeof(spaces) - 1;
            buf_append(w->out, spaces, k);
            n -= k;
        }
    }
}

// Comma and line break before a value or key.
static void before(struct json_writer *w)
{
    if (w->after_key) {
        w->after_key = false;
        return;
    }
    if (w->depth == 0) {
        return;
    }
    if (w->need_comma[w->depth]) {
        buf_append(w->out, ",", 1);
    }
    w->need_comma[w->depth] = true;
    newline(w);
}

static void open(struct json_writer *w, const char *c)
{
    before(w);
    CHECK(w->depth + 1 < (int)array_len(w->need_comma));
    buf_append(w->out, c, 1);
    w->need_comma[++w->depth] = false;
}

static void shut(struct json_writer *w, const char *c)
{
    CHECK(w->depth > 0);
    if (w->need_comma[w->depth--]) {
        newline(w);
    }
    buf_append(w->out, c, 1);
}

void jw_object(struct json_writer *w)
{
    open(w, "{");
}

void jw_object_end(struct json_writer *w)
{
    shut(w, "}");
}

void jw_array(struct json_writer *w)
{
    open(w, "[");
}

void jw_array_end(struct json_writer *w)
{
    shut(w, "]");
}

static void put_escape(struct buf *out, unsigned char c)
{
    char e[8] = { '\\' };
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *q = c ? strchr(from, c) : NULL;
    if (q) {
        e[1] = to[q - from];
        buf_append(out, e, 2);
    } else {
        buf_append(out, e, (size_t)snprintf(e, sizeof(e), "\\u%04x", c));
    }
}

static void put_string(struct buf *out, struct str s)
{
    buf_append(out, "\"", 1);
    size_t from = 0, i = 0;
    while (i < s.n) {
        unsigned char c = (unsigned char)s.p[i];
        size_t k = c >= 0x80 ? utf8_len(str_skip(s, i)) : 1;
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f && k) {
            i += k;
            continue;
        }
        buf_append(out, s.p + from, i - from);
        if (k == 0) {
            buf_append(out, "\xef\xbf\xbd", 3); // U+FFFD
        } else {
            put_escape(out, c);
        }
        from = ++i;
    }
    if (from < s.n) { // nothing is what there may be no pointer to
        buf_append(out, s.p + from, s.n - from);
    }
    buf_append(out, "\"", 1);
}

void jw_key(struct json_writer *w, struct str key)
{
    DCHECK(!w->after_key && w->depth > 0);
    before(w);
    put_string(w->out, key);
    buf_append(w->out, ": ", w->indent ? 2 : 1);
    w->after_key = true;
}

void jw_str(struct json_writer *w, struct str s)
{
    before(w);
    put_string(w->out, s);
}

void jw_raw(struct json_writer *w, struct str s)
{
    before(w);
    buf_append_str(w->out, s);
}

void jw_bool(struct json_writer *w, bool b)
{
    jw_raw(w, b ? STR("true") : STR("false"));
}

void jw_null(struct json_writer *w)
{
    jw_raw(w, STR("null"));
}

void jw_i64(struct json_writer *w, int64_t v)
{
    char s[24];
    jw_raw(w, str_n(s, (size_t)snprintf(s, sizeof(s), "%" PRId64, v)));
}

void jw_u64(struct json_writer *w, uint64_t v)
{
    char s[24];
    jw_raw(w, str_n(s, (size_t)snprintf(s, sizeof(s), "%" PRIu64, v)));
}

void jw_double(struct json_writer *w, double v)
{
    if (isnan(v) || isinf(v)) {
        // JSON has no such numbers; the ProtoJSON mapping writes these strings.
        jw_str(w, isnan(v) ? STR("NaN") : v > 0 ? STR("Infinity") : STR("-Infinity"));
        return;
    }
    char s[40];
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) { // the shortest that reads back the same
        n = snprintf(s, sizeof(s), "%.*g", digits, v);
        if (strtod(s, NULL) == v) {
            break;
        }
    }
    jw_raw(w, str_n(s, (size_t)n));
}

void jw_tree(struct json_writer *w, const struct json *n)
{
    switch (n->type) {
    case JSON_NULL:
        jw_null(w);
        return;
    case JSON_BOOL:
        jw_bool(w, n->boolean);
        return;
    case JSON_NUMBER:
        jw_raw(w, n->text);
        return;
    case JSON_STRING:
        jw_str(w, n->text);
        return;
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    }
    bool object = n->type == JSON_OBJECT;
    open(w, object ? "{" : "[");
    for (const struct json *m = n->first; m; m = m->next) {
        if (object) {
            jw_key(w, m->key);
        }
        jw_tree(w, m);
    }
    shut(w, object ? "}" : "]");
}

void jw_kv(struct json_writer *w, const char *key, struct str v)
{
    jw_key(w, str_c(key));
    jw_str(w, v);
}

void jw_kv_bool(struct json_writer *w, const char *key, bool v)
{
    jw_key(w, str_c(key));
    jw_bool(w, v);
}

void jw_kv_u64(struct json_writer *w, const char *key, uint64_t v)
{
    jw_key(w, str_c(key));
    jw_u64(w, v);
}
