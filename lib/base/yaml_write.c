// SPDX-License-Identifier: Apache-2.0
#include "lib/base/check.h"
#include "lib/base/json.h"
#include "lib/base/utf8.h"

static void indent(struct buf *out, int n)
{
    for (int i = 0; i < n; i++) {
        buf_append(out, " ", 1);
    }
}

// Words that readers of YAML 1.1 or 1.2 take for something other than text.
static bool is_reserved(struct str s)
{
    static const char *const words[] = { "null", "~", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf" };
    for (size_t i = 0; i < array_len(words); i++) {
        if (str_eq_nocase(s, str_c(words[i]))) {
            return true;
        }
    }
    // Numbers, dates, octals and the like: whatever begins as one.
    char c = s.p[0];
    return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == '=' || c == '<';
}

// Text that may stand without quotes: cautious, since quotes are never wrong.
static bool is_plain_safe(struct str s)
{
    if (s.n == 0 || is_reserved(s)) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        bool inside = i > 0 && i + 1 < s.n && (c == ' ' || c == ':' || c == '@' || c == ',' || c == '+' || c == '=');
        if (!word && !inside && c != '_' && c != '-' && c != '.' && c != '/') {
            return false;
        }
        if ((c == ':' && s.p[i + 1] == ' ') || (c == ' ' && s.p[i + 1] == '#')) {
            return false;
        }
    }
    return true;
}

static void put_text(struct buf *out, struct str s)
{
    if (is_plain_safe(s)) {
        buf_append_str(out, s);
        return;
    }
    struct json_writer w; // JSON's strings are YAML's double-quoted ones
    jw_init(&w, out, 0);
    jw_str(&w, s);
}

static void put_scalar(struct buf *out, const struct json *n)
{
    switch (n->type) {
    case JSON_NULL:
        buf_append_str(out, STR("null"));
        return;
    case JSON_BOOL:
        buf_append_str(out, n->boolean ? STR("true") : STR("false"));
        return;
    case JSON_NUMBER:
        buf_append_str(out, n->text);
        return;
    case JSON_STRING:
        put_text(out, n->text);
        return;
    case JSON_ARRAY:
        buf_append_str(out, STR("[]"));
        return;
    case JSON_OBJECT:
        buf_append_str(out, STR("{}"));
        return;
    }
}

static bool is_block(const struct json *n)
{
    return (n->type == JSON_ARRAY || n->type == JSON_OBJECT) && n->first;
}

// The children of n, one per line at level; the first line's indentation is there already when inline_first.
static void put_block(struct buf *out, const struct json *n, int level, bool inline_first)
{
    for (const struct json *m = n->first; m; m = m->next) {
        if (!inline_first) {
            indent(out, level);
        }
        inline_first = false;
        if (n->type == JSON_ARRAY) {
            buf_append_str(out, STR("- "));
            if (is_block(m)) {
                put_block(out, m, level + 2, true);
                continue;
            }
        } else {
            put_text(out, m->key);
            buf_append(out, ":", 1);
            if (is_block(m)) {
                buf_append(out, "\n", 1);
                put_block(out, m, m->type == JSON_ARRAY ? level : level + 2, false); // kubectl's style
                continue;
            }
            buf_append(out, " ", 1);
        }
        put_scalar(out, m);
        buf_append(out, "\n", 1);
    }
}

void yaml_write(struct buf *out, const struct json *n)
{
    if (is_block(n)) {
        put_block(out, n, 0, false);
        return;
    }
    put_scalar(out, n);
    buf_append(out, "\n", 1);
}
