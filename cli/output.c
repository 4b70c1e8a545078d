// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/base/check.h"

void cli_note(struct cli *c, const char *fmt, ...)
{
    char text[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    buf_printf(&c->notes, "note: %s\n", text);
}

void table_init(struct table *t, struct arena *a, int gutter)
{
    *t = (struct table){ .arena = a, .gutter = gutter };
}

void table_header(struct table *t, const char *names)
{
    struct str rest = str_c(names), cells[TABLE_COLUMNS_MAX];
    CHECK(t->rows == 0);
    while (rest.p) {
        CHECK(t->columns < TABLE_COLUMNS_MAX);
        cells[t->columns++] = str_split(&rest, '\t');
    }
    table_row(t, cells);
    t->headers = 1;
}

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

static struct str clean(struct str s, struct arena *a)
{
    size_t i = 0;
    while (i < s.n && !is_control(s.p[i])) {
        i++;
    }
    if (i == s.n) {
        return s;
    }
    char *copy = arena_alloc(a, s.n);
    for (i = 0; i < s.n; i++) {
        copy[i] = is_control(s.p[i]) ? '?' : s.p[i];
    }
    return str_n(copy, s.n);
}

void table_row(struct table *t, const struct str *cells)
{
    if (t->rows == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 32;
        struct str *v = arena_array(t->arena, struct str, cap * t->columns);
        if (t->rows) {
            memcpy(v, t->cells, t->rows * t->columns * sizeof(*v));
        }
        t->cells = v;
        t->cap = cap;
    }
    for (size_t i = 0; i < t->columns; i++) {
        t->cells[t->rows * t->columns + i] = clean(cells[i], t->arena);
    }
    t->rows++;
}

// Characters, not bytes: all but UTF-8's continuation bytes.
static size_t width_of(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    }
    return n;
}

static const char *color_of(struct str s)
{
    static const struct {
        const char *word, *color;
    } words[] = {
        { "FAILED", "\033[31m" },   { "UNHEALTHY", "\033[31m" }, { "ERROR", "\033[31m" },   { "TIMEOUT", "\033[31m" },
        { "STALE", "\033[33m" },    { "DRAINING", "\033[33m" },  { "WARMING", "\033[33m" }, { "DEGRADED", "\033[33m" },
        { "NOT SENT", "\033[33m" }, { "HEALTHY", "\033[32m" },   { "SYNCED", "\033[32m" },  { "ACTIVE", "\033[32m" },
    };
    for (size_t i = 0; i < array_len(words); i++) {
        if (str_is(s, words[i].word)) {
            return words[i].color;
        }
    }
    return NULL;
}

static void write_cell(struct buf *out, struct str s, bool color)
{
    const char *code = color ? color_of(s) : NULL;
    if (code) {
        buf_append_str(out, str_c(code));
    }
    buf_append_str(out, s);
    if (code) {
        buf_append_str(out, STR("\033[0m"));
    }
}

void table_write(const struct table *t, struct buf *out, bool color, bool show_headers)
{
    size_t width[TABLE_COLUMNS_MAX] = { 0 };
    size_t first = show_headers ? 0 : t->headers;
    for (size_t r = first; r < t->rows; r++) {
        for (size_t i = 0; i < t->columns; i++) {
            size_t n = width_of(t->cells[r * t->columns + i]);
            width[i] = n > width[i] ? n : width[i];
        }
    }
    for (size_t r = first; r < t->rows; r++) {
        for (size_t i = 0; i < t->columns; i++) {
            struct str s = t->cells[r * t->columns + i];
            write_cell(out, s, color && r >= t->headers);
            if (i + 1 < t->columns) {
                buf_printf(out, "%*s", (int)(width[i] - width_of(s)) + t->gutter, "");
            }
        }
        buf_append(out, "\n", 1);
    }
}

void output_table(struct cli *c, const struct table *t)
{
    table_write(t, &c->out, c->color, !c->o.no_headers);
}

void output_tree(struct cli *c, const struct json *n)
{
    if (c->o.format == FORMAT_YAML) {
        yaml_write(&c->out, n);
        return;
    }
    struct json_writer w;
    jw_init(&w, &c->out, 4);
    jw_tree(&w, n);
    buf_append(&c->out, "\n", 1);
}

void output_list(struct cli *c, const struct dump_list *l)
{
    // A node can be in one list only, so the list is made of copies of the topmost nodes.
    struct json array = { .type = JSON_ARRAY, .count = l->n }, *copies = arena_array(c->arena, struct json, l->n + 1);
    for (size_t i = 0; i < l->n; i++) {
        copies[i] = *l->v[i];
        copies[i].key = (struct str){ 0 };
        copies[i].next = i + 1 < l->n ? &copies[i + 1] : NULL;
    }
    array.first = l->n ? copies : NULL;
    output_tree(c, &array);
}

const struct json *output_without_type(const struct json *n, struct arena *a)
{
    struct json *copy = arena_new(a, struct json), **last = &copy->first;
    *copy = *n;
    copy->first = NULL;
    copy->count = 0;
    for (const struct json *m = n->first; m; m = m->next) {
        if (!str_is(m->key, "@type")) {
            struct json *k = arena_new(a, struct json);
            *k = *m;
            k->next = NULL;
            *last = k;
            last = &k->next;
            copy->count++;
        }
    }
    return copy;
}

int output_flush(int fd, struct buf *b)
{
    while (b->len) {
        struct str front = buf_front(b);
        ssize_t n = write(fd, front.p, front.n);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            int code = -errno;
            buf_clear(b);
            return code;
        }
        buf_drain(b, (size_t)n);
    }
    buf_clear(b);
    return 0;
}
